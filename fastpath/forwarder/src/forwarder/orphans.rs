//! Packets of clients whose server is dead, or gone from the configuration ([`Orphans`]).
//!
//! Only the client is told. The one frame that we have becomes the answer to it, and a dead server could not hear a
//! reset. One that is alive but no longer configured, its connections drained for as long as the rule says, has no
//! entry that its packets could belong to: they go to the kernel, which resets them under NAT as it does with anything
//! that nobody listens for.

use super::{Path, send::drop_for};
use crate::icmp_answer;
use crate::packet::{Headers, Packet, protocol};
use crate::reset;
use crate::snapshot::Rule;
use crate::spec::Orphans;
use crate::state;
use crate::table::State;
use crate::verdict::{DropReason, Verdict};
use crate::view::View;

/// A connection without a server.
#[derive(Clone, Copy)]
pub(super) struct Orphan<'v> {
    /// Its entry.
    pub(super) index: u32,
    /// Index of its server in [`crate::snapshot::Snapshot::targets`]; None if that is gone.
    pub(super) target: Option<u32>,
    pub(super) rule: &'v Rule,
    /// Index of the VIP in the rule.
    pub(super) vip: u8,
}

/// What becomes of its packet.
pub(super) enum Fate {
    /// A server is chosen anew, in the connection's own rule; the entry goes when there is one.
    Again,
    /// The packet begins a new connection.
    Begin,
    Verdict(Verdict),
}

impl Path {
    /// A packet from the client of such a connection.
    #[cold]
    pub(super) fn orphaned(
        &mut self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        hash: u64,
        orphan: &Orphan<'_>,
    ) -> Fate {
        if state::begins_with_handshake(headers) {
            self.end_orphan(view, orphan);
            return Fate::Begin;
        }
        match orphan.rule.orphans {
            Orphans::Reschedule => Fate::Again,
            Orphans::Drop => {
                let traffic = orphan.rule.account.of(self.worker);
                Fate::Verdict(drop_for(traffic, headers, DropReason::Orphaned))
            }
            Orphans::Reset => Fate::Verdict(self.refuse(view, packet, headers, hash, orphan)),
        }
    }

    /// Ends such a connection, and counts that if nobody was faster.
    pub(super) fn end_orphan(&self, view: &View, orphan: &Orphan<'_>) {
        if let Some(state) = self.kill(orphan.index)
            && let Some(target) = orphan.target
        {
            self.load_ended(view, target, state);
        }
    }

    /// Answers in the server's stead. A TCP connection is remembered as reset, so that what is still on its way gets
    /// the same answer; of others the next packet begins anew.
    fn refuse(
        &mut self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        hash: u64,
        orphan: &Orphan<'_>,
    ) -> Verdict {
        let traffic = orphan.rule.account.of(self.worker);
        let refused = drop_for(traffic, headers, DropReason::Orphaned);
        let answer = if headers.tuple.protocol == protocol::TCP {
            let change = self.table.touch(orphan.index, |_| State::Close, self.now);
            if let Some(change) = change {
                self.tell_changed(orphan.index, change);
            }
            if let (Some(change), Some(target)) = (change, orphan.target) {
                self.load_changed(view, target, change);
            }
            reset::answer(packet, headers)
        } else if !icmp_answer::allowed(packet.frame(), headers) {
            None
        } else {
            if !self.may_make_icmp(view) {
                return Verdict::Drop(DropReason::IcmpLimit);
            }
            self.end_orphan(view, orphan);
            let error = icmp_answer::Error::port_unreachable(headers.is_v4());
            icmp_answer::error(packet, headers, error, headers.tuple.dst)
        };
        let Some(answer) = answer else {
            return refused;
        };
        let hop = view.network.next_hop(answer.tuple.dst, hash as u32);
        let verdict = view.network.send(hop, answer.ip_len(), packet.frame_mut());
        if !matches!(verdict, Verdict::Drop(_)) {
            traffic.answered.add(1);
        }
        verdict
    }
}
