//! Packets of connections that are in the table.

use super::Path;
use super::orphans::{Fate, Orphan};
use crate::packet::{Headers, Packet, Tuple};
use crate::state;
use crate::table::{Direction, Found, State};
use crate::verdict::{DropReason, Verdict};
use crate::view::{Flow, Recognised, View};

/// Looks and insertions for one packet before other workers' insertions count as too many.
pub(super) const RACES: usize = 8;

/// A packet with a connection.
pub(super) struct Hit<'v> {
    pub(super) found: Found,
    pub(super) recognised: Recognised<'v>,
}

/// How it goes on for a packet of a connection that is, or was, in the table.
pub(super) enum Onward<'v> {
    /// It is one more of this connection.
    Goes(Flow<'v>, Direction),
    /// The connection is over, and the packet begins another.
    Begins,
    /// The connection's server is dead or gone.
    Orphan(Orphan<'v>),
    /// The entry has gone under our eyes: look again.
    Again,
}

impl Path {
    /// A client whose connection is more than embryonic now is real.
    fn learn(
        &self,
        view: &View,
        flow: &Flow<'_>,
        direction: Direction,
        (old, new): (State, State),
    ) {
        let grew = old.is_embryonic() && matches!(new, State::Established | State::Flowing);
        if old != new && grew && direction == Direction::Forward && self.is_real() {
            let clients = &view.snapshot.guard().clients;
            clients.insert(&self.hasher, flow.identity.client);
            if let Some(persistence) = &flow.rule.persistence {
                self.assure_claim(flow, persistence);
            }
        }
    }

    /// A packet with addresses and perhaps ports.
    pub(super) fn transport(
        &mut self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        hash: u64,
        now: u32,
    ) -> Verdict {
        for _ in 0..RACES {
            let onward = match self.find(view, &headers.tuple, hash) {
                Some(hit) => match self.relay_over(view, packet, headers, &hit.found) {
                    Some(verdict) => return verdict,
                    None => self.go_on(view, hit, headers, now),
                },
                None => Onward::Begins,
            };
            let begins = !matches!(onward, Onward::Goes(..));
            let begun = match onward {
                Onward::Goes(flow, direction) => Ok((flow, direction)),
                Onward::Begins => self.begin(view, packet, headers, hash, now),
                Onward::Again => continue,
                Onward::Orphan(orphan) => match self.orphaned(view, packet, headers, hash, &orphan)
                {
                    Fate::Begin => self.begin(view, packet, headers, hash, now),
                    Fate::Again => self.begin_again(view, headers, hash, now, &orphan),
                    Fate::Verdict(verdict) => return verdict,
                },
            };
            let (flow, direction) = match begun {
                Ok(begun) => begun,
                Err(None) => continue,
                Err(Some(verdict)) => return verdict,
            };
            if !self.is_real() {
                self.notes.connection = Some((flow.identity, direction));
                self.notes.begins = begins;
            }
            if headers.fragment.is_some() {
                let way = (&flow, direction);
                return self.forward_first(view, packet, headers, way, hash, now);
            }
            return self.forward(view, packet, headers, &flow, direction, hash);
        }
        Verdict::Drop(DropReason::InsertRace)
    }

    /// The connection that a packet belongs to.
    pub(super) fn find<'v>(&self, view: &'v View, tuple: &Tuple, hash: u64) -> Option<Hit<'v>> {
        let mut recognised = None;
        let found = self.table.find(hash as u32, |connection, direction| {
            recognised = view.recognise(tuple, connection, direction);
            recognised.is_some()
        })?;
        Some(Hit {
            found,
            recognised: recognised?,
        })
    }

    /// A packet of a known connection.
    pub(super) fn go_on<'v>(
        &self,
        view: &View,
        hit: Hit<'v>,
        headers: &Headers,
        now: u32,
    ) -> Onward<'v> {
        let Found {
            index,
            state,
            direction,
        } = hit.found;
        let begins = state::begins_with_handshake(headers);
        let orphan = |target, rule, vip| {
            Onward::Orphan(Orphan {
                index,
                target,
                rule,
                vip,
            })
        };
        let flow = match hit.recognised {
            Recognised::Flow(flow) => flow,
            Recognised::ServerGone(rule, vip) => return orphan(None, rule, vip),
        };
        // What a server sends that passes for dead is no worse for that.
        if flow.target.dead && direction == Direction::Forward {
            return orphan(Some(flow.target_index), flow.rule, flow.identity.vip_index);
        }
        let begins_anew =
            begins && direction == Direction::Forward && state::is_over_for_client(state);
        if begins_anew {
            self.end(view, &hit);
            return Onward::Begins;
        }
        let next = |old| state::next(old, direction, headers);
        let Some(change) = self.table.touch(index, next, now) else {
            return Onward::Again;
        };
        self.table.set_lane(index, flow.target.lane);
        self.tell_changed(index, change);
        self.load_changed(view, flow.target_index, change);
        self.changed(&flow, change, now);
        self.learn(view, &flow, direction, change);
        Onward::Goes(flow, direction)
    }

    /// Ends a connection, and counts that if nobody was faster.
    pub(super) fn end(&self, view: &View, hit: &Hit<'_>) {
        if let Some(state) = self.kill(hit.found.index)
            && let Recognised::Flow(flow) = hit.recognised
        {
            self.load_ended(view, flow.target_index, state);
        }
    }
}
