//! The way out: rewritten for its direction, addressed to its next hop, counted.

use super::Path;
use crate::counters::Traffic;
use crate::network::NextHop;
use crate::packet::{Headers, Packet};
use crate::rewrite;
use crate::spec::Topology;
use crate::table::Direction;
use crate::verdict::{DropReason, Verdict};
use crate::view::{Flow, View};

impl Path {
    /// Sends a packet on its way: rewritten for its direction, addressed to its next hop.
    pub(super) fn forward(
        &self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        flow: &Flow<'_>,
        direction: Direction,
        hash: u64,
    ) -> Verdict {
        let traffic = flow.target.account.of(self.worker);
        if direction == Direction::Forward && view.hop(flow.target_index) == NextHop::Local {
            return deliver(traffic, headers, flow);
        }
        if let Some(encapsulation) = &flow.target.encapsulation {
            return self.encapsulate(view, packet, headers, flow, encapsulation, hash);
        }
        let Some(new) = flow.translated(direction) else {
            return drop_for(traffic, headers, DropReason::ServerGone);
        };
        if headers.fragment.is_some() && !rewrite::is_possible(headers, &new) {
            return drop_for(traffic, headers, DropReason::SctpFragment);
        }
        let hop = match direction {
            Direction::Forward => view.hop(flow.target_index),
            Direction::Reverse => view.network.next_hop(new.dst, hash as u32),
        };
        if let Some(mtu) = view.network.mtu(hop)
            && headers.ip_len() > mtu
        {
            return self.too_big(view, packet, headers, flow, direction, mtu);
        }
        if flow.rule.topology != Topology::Dsr && !rewrite::hop(packet.frame_mut(), headers, &new) {
            return drop_for(traffic, headers, DropReason::TtlExpired);
        }
        let verdict = view.network.send(hop, headers.ip_len(), packet.frame_mut());
        count(traffic, headers, verdict);
        verdict
    }
}

/// Hands a packet to the local node, unchanged whatever the topology: its destination is the VIP, which is this host's,
/// and the answer of whoever listens there goes to the client without passing through us. Ports cannot be changed on
/// this way.
#[cold]
fn deliver(traffic: &Traffic, headers: &Headers, flow: &Flow<'_>) -> Verdict {
    if flow.server_port() != flow.identity.vip_port {
        return drop_for(traffic, headers, DropReason::LocalPort);
    }
    count(traffic, headers, Verdict::Kernel);
    Verdict::Kernel
}

/// Counts a packet of a connection for its server.
#[inline(always)]
pub(super) fn count(traffic: &Traffic, headers: &Headers, verdict: Verdict) {
    match verdict {
        Verdict::Drop(_) => {
            traffic.dropped_packets.add(1);
            traffic.dropped_bytes.add(headers.ip_len() as u64);
        }
        Verdict::Transmit(_)
        | Verdict::Unresolved { .. }
        | Verdict::Hold { .. }
        | Verdict::Kernel => {
            traffic.packets.add(1);
            traffic.bytes.add(headers.ip_len() as u64);
        }
    }
}

pub(super) fn drop_for(traffic: &Traffic, headers: &Headers, reason: DropReason) -> Verdict {
    traffic.dropped_packets.add(1);
    traffic.dropped_bytes.add(headers.ip_len() as u64);
    Verdict::Drop(reason)
}
