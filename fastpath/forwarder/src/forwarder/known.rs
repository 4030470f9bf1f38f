//! Packets of connections that are in the table.

use super::{Path, send::drop_for};
use crate::packet::{Headers, Packet, Tuple};
use crate::state;
use crate::table::{Direction, Found, State};
use crate::verdict::{DropReason, Verdict};
use crate::view::{Flow, Recognised, View};

/// Looks and insertions for one packet before other workers' insertions count as too many.
const RACES: usize = 8;

/// A packet with a connection.
pub(super) struct Hit<'v> {
    pub(super) found: Found,
    pub(super) recognised: Recognised<'v>,
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
        if old != new && grew && direction == Direction::Forward {
            let clients = &view.snapshot.guard().clients;
            clients.insert(&self.hasher, flow.identity.client);
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
            let connected = match self.find(view, &headers.tuple, hash) {
                Some(hit) => self.go_on(view, hit, headers, now),
                None => None,
            };
            let (flow, direction) = match connected {
                Some(Ok(connected)) => connected,
                Some(Err(verdict)) => return verdict,
                None => match self.begin(view, headers, hash, now) {
                    Ok(flow) => (flow, Direction::Forward),
                    Err(None) => continue,
                    Err(Some(verdict)) => return verdict,
                },
            };
            if let Some(id) = headers.fragment {
                let hash = self.fragment_hash(headers, id);
                self.fragments
                    .remember(headers, id, hash, (flow.identity, direction), now);
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

    /// A packet of a known connection. None if the connection is over and the packet begins another.
    pub(super) fn go_on<'v>(
        &self,
        view: &View,
        hit: Hit<'v>,
        headers: &Headers,
        now: u32,
    ) -> Option<Result<(Flow<'v>, Direction), Verdict>> {
        let Found {
            index,
            state,
            direction,
        } = hit.found;
        let begins = state::begins_with_handshake(headers);
        let flow = match hit.recognised {
            Recognised::Flow(flow) => flow,
            Recognised::ServerGone(rule) => {
                self.end(view, &hit);
                if state::may_begin(headers) {
                    return None;
                }
                return Some(Err(drop_for(
                    rule.account.of(self.worker),
                    headers,
                    DropReason::ServerGone,
                )));
            }
        };
        let begins_anew =
            begins && direction == Direction::Forward && state::is_over_for_client(state);
        if begins_anew {
            self.end(view, &hit);
            return None;
        }
        let change = self
            .table
            .touch(index, |old| state::next(old, direction, headers), now)?;
        self.table.set_lane(index, flow.target.lane);
        view.snapshot.connection_changed(flow.target_index, change);
        self.changed(&flow, change, now);
        self.learn(view, &flow, direction, change);
        Some(Ok((flow, direction)))
    }

    /// Ends a connection, and counts that if nobody was faster.
    pub(super) fn end(&self, view: &View, hit: &Hit<'_>) {
        if let Some(state) = self.table.kill(hit.found.index)
            && let Recognised::Flow(flow) = hit.recognised
        {
            view.snapshot.connection_ended(flow.target_index, state);
        }
    }
}
