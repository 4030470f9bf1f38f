//! Packets of connections that this node does not know, but another one may: see [`crate::relay`].

use super::Path;
use crate::network::NextHop;
use crate::packet::{Headers, Packet, Ports, protocol};
use crate::relay::RELAYED_PER_SECOND;
use crate::select::Mode;
use crate::state;
use crate::table::Found;
use crate::verdict::Verdict;
use crate::view::View;

/// Seconds after which a connection that was over here may have had a successor elsewhere.
const OVER: u32 = 2;

/// Whether a packet that no rule accepts may be an answer to something that the other node has sent.
fn may_answer_other(view: &View, headers: &Headers) -> bool {
    let tuple = &headers.tuple;
    let asks = match tuple.protocol {
        protocol::ICMP | protocol::ICMPV6 => !headers.is_icmp_reply(),
        _ => state::begins_with_handshake(headers),
    };
    if asks {
        return false;
    }
    match view.snapshot.is_source(tuple.dst) {
        true => {
            let ports = Ports::of(tuple.protocol, tuple.dst.is_v4());
            let share = view.snapshot.guard().share();
            share.may_be_others(ports, tuple.dport)
        }
        // A server's to a client; not what it says to this node itself, as to its health checks.
        false => !view.network.is_local(tuple.dst),
    }
}

impl Path {
    /// Sends a packet of a server's on that belongs to nothing here.
    #[cold]
    pub(super) fn relay_back(
        &mut self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
    ) -> Option<Verdict> {
        self.relay(view, packet, headers, may_answer_other)
    }

    /// Sends a client's packet on that is in the middle of something unknown.
    #[cold]
    pub(super) fn relay_forward(
        &mut self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
    ) -> Option<Verdict> {
        let may = |_: &View, headers: &Headers| state::has_handshake(headers.tuple.protocol);
        self.relay(view, packet, headers, may)
    }

    /// Sends a packet on whose connection is over, as far as is known here: its client may have begun another one from the same
    /// port at the other node. What goes by the old entry would go to the old server, and keep the entry from being replaced.
    #[inline]
    pub(super) fn relay_over(
        &mut self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        found: &Found,
    ) -> Option<Verdict> {
        if !state::is_over_for_client(found.state) || state::begins_with_handshake(headers) {
            return None;
        }
        view.snapshot.guard().relay.to(packet.ingress, self.now)?;
        let idle = self.table.get(found.index)?.idle(self.now);
        // What has ended here since this node took over ended here.
        if self.table.has_lane(found.index) && idle < OVER {
            return None;
        }
        self.relay(view, packet, headers, |_, _| true)
    }

    /// Sends a packet on as it came, if there is somebody who may know more of it and it does not come from there.
    pub(super) fn relay(
        &mut self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        may: impl FnOnce(&View, &Headers) -> bool,
    ) -> Option<Verdict> {
        let relay = &view.snapshot.guard().relay;
        let port = packet.ingress;
        let mac = relay.to(port, self.now)?;
        // Both nodes may send on at once: what comes from the other one goes no further.
        if packet.frame()[6..12] == mac || !may(view, headers) {
            return None;
        }
        let within = match self.mode {
            Mode::Choose => relay.sent.take(RELAYED_PER_SECOND, self.now),
            Mode::Preview => relay.sent.has_room(RELAYED_PER_SECOND, self.now),
        };
        if !within {
            return None;
        }
        let hop = NextHop::Known { port, mac };
        match view.network.send(hop, headers.ip_len(), packet.frame_mut()) {
            verdict @ Verdict::Transmit(_) => {
                self.counters.relayed.add(1);
                self.notes.relayed = true;
                Some(verdict)
            }
            Verdict::Unresolved { .. }
            | Verdict::Kernel
            | Verdict::Hold { .. }
            | Verdict::Drop(_) => None,
        }
    }
}
