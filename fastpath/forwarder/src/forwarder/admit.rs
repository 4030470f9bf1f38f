//! Whether a new flow may come in: limits a second, and room in the connection table. Under attack, clients that are
//! known to be real come before strangers, and strangers' connections that came to nothing make way for new ones.

use super::Path;
use crate::address::Addr;
use crate::snapshot::Rule;
use crate::table::State;
use crate::verdict::DropReason;
use crate::view::View;

/// One part in so many of the table is kept for clients that are known to be real, and for entries that are on their
/// way back to the free list.
const RESERVE: u32 = 16;

impl Path {
    /// Lets a new flow of `client` in, or says why not. To be asked once for each flow, before a server is chosen.
    pub(super) fn admit(
        &mut self,
        view: &View,
        rule: &Rule,
        client: Addr,
        hash: u64,
        now: u32,
    ) -> Result<(), DropReason> {
        let (limits, guard) = (view.snapshot.limits(), view.snapshot.guard());
        let limited = limits.new_flows_per_second > 0 || rule.new_flows_per_second > 0;
        let pressed = match rule.one_packet && rule.persistence.is_none() {
            // It leaves nothing in the table.
            true => None,
            false => self.pressure(limits.embryonic_percent),
        };
        if !limited && pressed.is_none() {
            return Ok(());
        }
        let known = guard.clients.contains(&self.hasher, client);
        // What one of the two refuses must not count for the other.
        if !guard
            .new_flows
            .has_room(limits.new_flows_per_second, known, now)
            || !rule
                .admission
                .has_room(rule.new_flows_per_second, known, now)
        {
            return Err(DropReason::Admission);
        }
        if let Some(reason) = pressed {
            self.make_room(view, reason, known, hash, now)?;
        }
        if !self.is_real() {
            return Ok(());
        }
        let in_all = guard
            .new_flows
            .take(limits.new_flows_per_second, known, now);
        if in_all && rule.admission.take(rule.new_flows_per_second, known, now) {
            Ok(())
        } else {
            Err(DropReason::Admission)
        }
    }

    /// What there is too little of, by the reason for which strangers are turned away if nothing can be done about it.
    fn pressure(&self, embryonic_percent: u8) -> Option<DropReason> {
        let capacity = self.table.capacity();
        if self.table.used() >= capacity - capacity / RESERVE {
            return Some(DropReason::TableFull);
        }
        let allowed = capacity as u64 * u64::from(embryonic_percent.min(100)) / 100;
        (embryonic_percent > 0 && self.table.embryonic() as u64 >= allowed)
            .then_some(DropReason::Embryonic)
    }

    /// Ends a connection that can be done without. A stranger is let in only for such a one; a known client, as long as
    /// there is any room at all.
    fn make_room(
        &mut self,
        view: &View,
        reason: DropReason,
        known: bool,
        hash: u64,
        now: u32,
    ) -> Result<(), DropReason> {
        let full = reason == DropReason::TableFull;
        let may_go = |state: State| state.is_embryonic() || (full && state.is_done());
        let gone = self.table.evict(&mut self.limbo, hash, may_go, now);
        if let Some(connection) = gone {
            self.counters.replaced.add(1);
            if let Some(flow) = view.flow(connection.identity) {
                flow.target.account.of(self.worker).replaced.add(1);
                self.load_ended(view, flow.target_index, connection.state);
                self.drop_offer(&flow);
            }
        }
        // What was ended comes back after the batch: half of the reserve is never lent to strangers meanwhile.
        let capacity = self.table.capacity();
        let lent = full && self.table.used() >= capacity - capacity / (2 * RESERVE);
        if known || (gone.is_some() && !lent) {
            Ok(())
        } else {
            Err(reason)
        }
    }
}
