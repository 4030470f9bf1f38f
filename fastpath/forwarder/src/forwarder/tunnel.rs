//! The way out through a tunnel, and the errors that come back from it.

use super::known::Hit;
use super::send::count;
use super::{Path, not_ours};
use crate::counters::Traffic;
use crate::icmp;
use crate::packet::{ETHERNET, Headers, Kind, Packet};
use crate::rewrite;
use crate::table::Direction;
use crate::too_big;
use crate::tunnel::{Encapsulation, Quoted, reported_mtu};
use crate::verdict::{DropReason, Verdict};
use crate::view::{Flow, Recognised, View};

impl Path {
    /// Sends a client's packet to its server, wrapped.
    #[inline(never)]
    pub(super) fn encapsulate(
        &self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        flow: &Flow<'_>,
        encapsulation: &Encapsulation,
        hash: u64,
    ) -> Verdict {
        if let Some(mtu) = self.tunnel_mtu(view, flow, encapsulation)
            && headers.ip_len() > mtu
        {
            return self.too_big(view, packet, headers, flow, Direction::Forward, mtu);
        }
        let traffic = flow.target.account.of(self.worker);
        let verdict = self.wrap_and_send(view, packet, headers, flow, hash);
        count(traffic, headers, verdict);
        verdict
    }

    /// Largest packet that can be wrapped and sent to the server of a flow; None if there is no way.
    #[inline]
    fn tunnel_mtu(
        &self,
        view: &View,
        flow: &Flow<'_>,
        encapsulation: &Encapsulation,
    ) -> Option<usize> {
        let mut mtu = view.network.mtu(view.hop(flow.target_index))?;
        if let Some(path) = encapsulation.path_mtu().get(self.now) {
            mtu = mtu.min(path);
        }
        Some(mtu.saturating_sub(encapsulation.overhead()))
    }

    /// As [`Path::encapsulate`], uncounted. What does not fit is dropped.
    pub(super) fn wrap_and_send(
        &self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        flow: &Flow<'_>,
        hash: u64,
    ) -> Verdict {
        let Some(encapsulation) = &flow.target.encapsulation else {
            return Verdict::Drop(DropReason::ServerGone);
        };
        // All packets of a flow look the same from outside, those without ports included.
        let hash = match headers.kind {
            Kind::Transport => hash,
            _ => self.hasher.tuple(&flow.forward_tuple()),
        };
        if !rewrite::take_hop(packet.frame_mut(), headers) {
            return Verdict::Drop(DropReason::TtlExpired);
        }
        if let Err(reason) = encapsulation.wrap(packet, headers, hash) {
            return Verdict::Drop(reason);
        }
        let len = packet.len() - ETHERNET;
        let hop = view.hop(flow.target_index);
        view.network.send(hop, len, packet.frame_mut())
    }

    /// An ICMP error from the way to a server, about one of our outer packets; None if it is about something else.
    ///
    /// The client has to be told in its own terms: an error from the VIP, about its packet, with an MTU that leaves room
    /// for the outer headers. That takes as much of its packet as tells its connection. Routers of today quote enough,
    /// but RFC 792 asks for no more than eight bytes behind the outer IP header, and then only the way's MTU can be
    /// learned: the next packet that is too big is answered by ourselves. That is done in any case, because errors may
    /// be lost, and other clients' packets take the same way.
    pub(super) fn tunnel_error(
        &self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
    ) -> Option<Verdict> {
        let quoted = Quoted::find(packet.frame(), headers)?;
        let path = view.snapshot.tunnel_ends().path_of(&quoted)?;
        if !rewrite::icmp_is_intact(packet.frame(), headers) {
            return Some(Verdict::Drop(DropReason::Malformed));
        }
        let is_too_big = icmp::is_too_big(packet.frame(), headers);
        let mtu = reported_mtu(packet.frame(), headers);
        if is_too_big && self.is_real() {
            path.learn(mtu, headers.is_v4(), self.now);
        }
        let told = quoted
            .inner
            .filter(|inner| inner.kind == Kind::Transport)
            .and_then(|inner| {
                let flow = self.tunnelled(view, &inner, &quoted)?;
                self.tell_client(view, packet, &inner, &flow, is_too_big)
            });
        // Otherwise the kernel, whose address it was sent to, may make of it what it likes.
        Some(told.unwrap_or_else(|| not_ours::verdict(view, headers)))
    }

    /// The connection of a quoted client's packet, if its server is the one that the outer packet went to.
    fn tunnelled<'v>(&self, view: &'v View, inner: &Headers, quoted: &Quoted) -> Option<Flow<'v>> {
        let hash = self.hasher.tuple(&inner.tuple);
        let Hit {
            found,
            recognised: Recognised::Flow(flow),
        } = self.find(view, &inner.tuple, hash)?
        else {
            return None;
        };
        let encapsulation = flow.target.encapsulation.as_ref()?;
        (found.direction == Direction::Forward && encapsulation.recognises(quoted)).then_some(flow)
    }

    fn tell_client(
        &self,
        view: &View,
        packet: &mut Packet<'_>,
        inner: &Headers,
        flow: &Flow<'_>,
        is_too_big: bool,
    ) -> Option<Verdict> {
        let encapsulation = flow.target.encapsulation.as_ref()?;
        let v4 = inner.is_v4();
        let error = if is_too_big {
            too_big::error(v4, self.tunnel_mtu(view, flow, encapsulation)?)
        } else {
            too_big::unreachable(v4)
        };
        let bytes = packet.len() - ETHERNET;
        let inner = strip(packet, inner);
        let traffic: &Traffic = flow.target.account.of(self.worker);
        let verdict = if self.may_carry_icmp(view) {
            self.answer(view, packet, &inner, error, flow.vip.address)
                .unwrap_or(Verdict::Drop(DropReason::NoRoute))
        } else {
            Verdict::Drop(DropReason::IcmpLimit)
        };
        icmp::count(traffic, verdict, is_too_big, bytes);
        Some(verdict)
    }
}

/// Takes everything before the quoted packet away, but for an Ethernet header without contents.
fn strip(packet: &mut Packet<'_>, inner: &Headers) -> Headers {
    let off = inner.l3 as usize - ETHERNET;
    packet.shrink_front(off);
    packet.frame_mut()[..ETHERNET].fill(0);
    Headers {
        l3: inner.l3 - off as u16,
        l4: inner.l4 - off as u16,
        end: inner.end - off as u16,
        ..*inner
    }
}
