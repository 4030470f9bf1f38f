//! Packets that begin a connection: is a rule there for them, which server do they get, and is there room.

use super::orphans::Orphan;
use super::{Path, not_ours, pinned, send::drop_for};
use crate::nat;
use crate::packet::{Headers, Packet, Ports, Tuple};
use crate::select::Request;
use crate::snapshot::Rule;
use crate::spec::Topology;
use crate::state;
use crate::table::{Candidate, Connection, Direction, Identity, InsertError, NO_LANE, State};
use crate::verdict::{DropReason, Verdict};
use crate::view::{Flow, View};

/// Other servers that are tried when a HALF-NAT client uses the same port towards the same server already.
const HALF_NAT_CHOICES: usize = 4;

/// A connection and the direction of the packet; Err(None) if another worker was faster: look again.
pub(super) type Begun<'v> = Result<(Flow<'v>, Direction), Option<Verdict>>;

impl Path {
    /// A packet that belongs to no connection.
    #[cold]
    pub(super) fn begin<'v>(
        &mut self,
        view: &'v View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        hash: u64,
        now: u32,
    ) -> Begun<'v> {
        let tuple = &headers.tuple;
        let Some((rule, vip)) = view.snapshot.accepting(tuple) else {
            return match self.recover_back(view, headers, now) {
                Some(Some(flow)) => Ok((flow, Direction::Reverse)),
                Some(None) => Err(None),
                None => {
                    let relayed = self.relay_back(view, packet, headers);
                    Err(Some(
                        relayed.unwrap_or_else(|| not_ours::verdict(view, headers)),
                    ))
                }
            };
        };
        let rule = &view.snapshot.rules()[rule as usize];
        let account = rule.account.of(self.worker);
        let request = Request::new(tuple, vip, now);
        if !state::may_begin(headers) {
            match self.recover(view, rule, headers, &request, hash) {
                Some(Some(flow)) => return Ok((flow, Direction::Forward)),
                Some(None) => return Err(None),
                None => {}
            }
            if let Some(verdict) = self.relay_forward(view, packet, headers) {
                return Err(Some(verdict));
            }
            return Err(Some(match headers.is_icmp_reply() {
                // The kernel may have asked.
                true => not_ours::verdict(view, headers),
                false => drop_for(account, headers, DropReason::NoConnection),
            }));
        }
        if let Err(reason) = self.admit(view, rule, tuple.src, hash, now) {
            match reason {
                DropReason::TableFull => account.no_memory.add(1),
                _ => account.refused.add(1),
            }
            return Err(Some(drop_for(account, headers, reason)));
        }
        self.place(view, rule, headers, &request, hash, None)
    }

    /// Gives a connection whose server is dead or gone another one, whatever packet of it this is. It stays with its
    /// rule, even if that takes no new connections. Its old entry goes when there is a server for the new one.
    #[cold]
    pub(super) fn begin_again<'v>(
        &self,
        view: &'v View,
        headers: &Headers,
        hash: u64,
        now: u32,
        orphan: &Orphan<'v>,
    ) -> Begun<'v> {
        let request = Request::new(&headers.tuple, orphan.vip, now);
        let old = Some(*orphan);
        let (flow, direction) = self.place(view, orphan.rule, headers, &request, hash, old)?;
        self.changed(&flow, (State::SynReceived, state::first(headers)), now);
        Ok((flow, direction))
    }

    /// Chooses a server and enters the connection, in place of the entry `old` if there is one.
    fn place<'v>(
        &self,
        view: &'v View,
        rule: &Rule,
        headers: &Headers,
        request: &Request,
        hash: u64,
        mut old: Option<Orphan<'_>>,
    ) -> Begun<'v> {
        let tuple = &headers.tuple;
        let account = rule.account.of(self.worker);
        let dropped = |reason| Err(Some(drop_for(account, headers, reason)));
        for _ in 0..HALF_NAT_CHOICES {
            let pin = match &rule.persistence {
                Some(persistence) => self.pin(view, rule, persistence, request).map(Some),
                None => Ok(None),
            };
            let choice = pin.and_then(|pin| match pin {
                Some(pin) => Ok((pin.target, Some(pin.nat_index))),
                None => {
                    let chosen = view.snapshot.select(rule, request, self.mode);
                    chosen.map(|target| (target, None)).map_err(pinned::reason)
                }
            });
            let (target, source) = match choice {
                Ok(choice) => choice,
                Err(reason) => return dropped(reason),
            };
            let identity = Identity {
                client: tuple.src,
                client_port: tuple.sport,
                vip_port: tuple.dport,
                nat_port: 0,
                nat_index: source.unwrap_or_default(),
                vip_index: request.vip_index,
                rule: rule.id,
                server: view.snapshot.targets()[target as usize].server,
                protocol: tuple.protocol,
                has_reverse: rule.topology.has_reverse(),
                pool_version: rule.pool.current(),
            };
            if let Some(old) = old.take() {
                self.end_orphan(view, &old);
            }
            let entered = if rule.one_packet {
                Ok(identity)
            } else {
                self.enter(view, rule, identity, source, headers, hash, request.now)
            };
            match entered {
                Ok(identity) => {
                    let flow = view
                        .flow(identity)
                        .ok_or(Some(Verdict::Drop(DropReason::ServerGone)))?;
                    flow.target.account.of(self.worker).connections.add(1);
                    return Ok((flow, Direction::Forward));
                }
                Err(InsertError::Race) => return Err(None),
                Err(InsertError::Full) => {
                    account.no_memory.add(1);
                    return dropped(DropReason::TableFull);
                }
                Err(InsertError::ReverseTaken) if rule.topology == Topology::HalfNat => {}
                Err(InsertError::ReverseTaken) => {
                    account.no_port.add(1);
                    return dropped(DropReason::NatPortsExhausted);
                }
            }
            if source.is_some() {
                break;
            }
        }
        dropped(DropReason::ReplyCollision)
    }

    /// Enters a new connection into the table, with a NAT source of its own if it needs one: a port of the source
    /// address with index `source`, or of any.
    #[expect(
        clippy::too_many_arguments,
        reason = "each says another thing about one connection"
    )]
    pub(super) fn enter(
        &self,
        view: &View,
        rule: &Rule,
        identity: Identity,
        source: Option<u8>,
        headers: &Headers,
        hash: u64,
        now: u32,
    ) -> Result<Identity, InsertError> {
        let tuple = &headers.tuple;
        let is_it = |connection: &Connection, direction| {
            view.recognise(tuple, connection, direction).is_some()
        };
        let ports = Ports::of(tuple.protocol, tuple.src.is_v4());
        let addresses = match source {
            Some(_) => 1,
            None => rule.proxy_src.len(),
        };
        let mut sources = {
            let share = view.snapshot.guard().share();
            nat::Candidates::new(ports, addresses, hash.rotate_left(29), share)
        };
        let mut half_nat_tried = false;
        let reverse_keys = |identity: &mut Identity| {
            if rule.topology == Topology::Nat {
                let (index, port) = sources.next()?;
                (identity.nat_index, identity.nat_port) = (source.unwrap_or(index), port);
            } else if std::mem::replace(&mut half_nat_tried, true) {
                return None;
            }
            let tuple = view.flow(*identity)?.reverse_tuple()?;
            let hash = self.hasher.tuple(&tuple);
            if rule.topology == Topology::HalfNat {
                self.end_finished(view, &tuple, hash);
            }
            Some(hash as u32)
        };
        let same_reverse = |wanted: &Identity, connection: &Connection, direction| {
            let wanted = view.flow(*wanted).and_then(|flow| flow.reverse_tuple());
            wanted.is_some_and(|tuple| view.recognise(&tuple, connection, direction).is_some())
        };
        let state = state::first(headers);
        let candidate = Candidate {
            identity,
            state,
            hash: hash as u32,
            lane: view.flow(identity).map_or(NO_LANE, |flow| flow.target.lane),
            now,
        };
        self.table
            .insert(candidate, is_it, reverse_keys, same_reverse)
            .map(|(index, identity)| {
                self.tell_new(index, state);
                if let Some(flow) = view.flow(identity) {
                    self.load_began(view, flow.target_index, state);
                }
                identity
            })
    }

    /// Makes way for a client that uses its port anew: a finished connection with the same reverse key, made through
    /// another VIP, has no claim to it any more.
    pub(super) fn end_finished(&self, view: &View, tuple: &Tuple, hash: u64) {
        if let Some(hit) = self.find(view, tuple, hash)
            && state::is_over_for_client(hit.found.state)
        {
            self.end(view, &hit);
        }
    }
}
