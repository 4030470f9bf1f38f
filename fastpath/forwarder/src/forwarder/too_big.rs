//! Packets that do not fit: the sender is told.

use super::Path;
use crate::address::Addr;
use crate::icmp_answer::{self, Error};
use crate::packet::{Headers, Packet};
use crate::spec::Topology;
use crate::table::Direction;
use crate::too_big;
use crate::verdict::{DropReason, Verdict};
use crate::view::{Flow, View};

impl Path {
    /// A packet of a connection, as it was received, of which the way takes no more than `mtu` bytes. It is answered in
    /// its own frame, or dropped. Either way the drop is counted, for the worker and for the server; the answer is
    /// counted as an ICMP error.
    #[cold]
    pub(super) fn too_big(
        &self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        flow: &Flow<'_>,
        direction: Direction,
        mtu: usize,
    ) -> Verdict {
        let traffic = flow.target.account.of(self.worker);
        traffic.dropped_packets.add(1);
        traffic.dropped_bytes.add(headers.ip_len() as u64);
        let unanswered = Verdict::Drop(DropReason::TooBig);
        if !too_big::is_to_be_told(packet.frame(), headers) {
            return unanswered;
        }
        // An address of ours that the sender knows.
        let source = match (direction, flow.rule.topology) {
            (Direction::Reverse, Topology::Nat) => headers.tuple.dst,
            _ => flow.vip.address,
        };
        let error = too_big::error(headers.is_v4(), mtu);
        let answer = self
            .may_make_icmp(view)
            .then(|| self.answer(view, packet, headers, error, source));
        match answer.flatten() {
            Some(verdict) => {
                traffic.icmp_processed.add(1);
                traffic.too_big_processed.add(1);
                self.counters.dropped(DropReason::TooBig);
                verdict
            }
            None => {
                traffic.icmp_dropped.add(1);
                traffic.too_big_dropped.add(1);
                unanswered
            }
        }
    }

    /// Makes an error out of a packet and sends it to the packet's sender. None, and the packet may have changed, if
    /// none may be sent, or there is no way.
    pub(super) fn answer(
        &self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        error: Error,
        source: Addr,
    ) -> Option<Verdict> {
        let answer = icmp_answer::error(packet, headers, error, source)?;
        let spread = self.hasher.address(answer.tuple.dst, 0) as u32;
        let hop = view.network.next_hop(answer.tuple.dst, spread);
        match view.network.send(hop, answer.ip_len(), packet.frame_mut()) {
            Verdict::Drop(_) => None,
            verdict => Some(verdict),
        }
    }
}
