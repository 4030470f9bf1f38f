//! Packets that begin a connection: is a rule there for them, which server do they get, and is there room.

use super::{Path, hash, send::drop_for};
use crate::nat;
use crate::packet::{Headers, Ports, Tuple};
use crate::select::{Mode, NoChoice, Request};
use crate::snapshot::Rule;
use crate::spec::Topology;
use crate::state;
use crate::table::{Candidate, Connection, Identity, InsertError, NO_LANE};
use crate::verdict::{DropReason, Verdict};
use crate::view::{Flow, View};

/// Other servers that are tried when a HALF-NAT client uses the same port towards the same server already.
const HALF_NAT_CHOICES: usize = 4;

impl Path {
    /// A packet that belongs to no connection. Err(None) if another worker was faster: look again.
    #[cold]
    pub(super) fn begin<'v>(
        &mut self,
        view: &'v View,
        headers: &Headers,
        hash: u64,
        now: u32,
    ) -> Result<Flow<'v>, Option<Verdict>> {
        let tuple = &headers.tuple;
        let Some((rule, vip)) = view.snapshot.accepting(tuple) else {
            return Err(Some(Verdict::Kernel));
        };
        let rule = &view.snapshot.rules()[rule as usize];
        let account = rule.account.of(self.worker);
        let request = Request::new(tuple, vip, now);
        if !state::may_begin(headers) {
            match self.recover(view, rule, headers, &request, hash) {
                Some(Some(flow)) => return Ok(flow),
                Some(None) => return Err(None),
                None => {}
            }
            return Err(Some(match headers.is_icmp_reply() {
                // The kernel may have asked.
                true => Verdict::Kernel,
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
        for _ in 0..HALF_NAT_CHOICES {
            let target = match view.snapshot.select(rule, &request, Mode::Choose) {
                Ok(target) => target,
                Err(none) => {
                    let reason = match none {
                        NoChoice::NoServer => DropReason::NoServer,
                        NoChoice::AtLimits => DropReason::ServerLimits,
                    };
                    return Err(Some(drop_for(account, headers, reason)));
                }
            };
            let identity = Identity {
                client: tuple.src,
                client_port: tuple.sport,
                vip_port: tuple.dport,
                nat_port: 0,
                nat_index: 0,
                vip_index: vip,
                rule: rule.id,
                server: view.snapshot.targets()[target as usize].server,
                protocol: tuple.protocol,
                has_reverse: rule.topology.has_reverse(),
                pool_version: rule.pool.current(),
            };
            match self.enter(view, rule, identity, headers, hash, now) {
                Ok(identity) => {
                    let flow = view
                        .flow(identity)
                        .ok_or(Some(Verdict::Drop(DropReason::ServerGone)))?;
                    flow.target.account.of(self.worker).connections.add(1);
                    return Ok(flow);
                }
                Err(InsertError::Race) => return Err(None),
                Err(InsertError::Full) => {
                    account.no_memory.add(1);
                    return Err(Some(drop_for(account, headers, DropReason::TableFull)));
                }
                Err(InsertError::ReverseTaken) if rule.topology == Topology::HalfNat => {}
                Err(InsertError::ReverseTaken) => {
                    account.no_port.add(1);
                    return Err(Some(drop_for(
                        account,
                        headers,
                        DropReason::NatPortsExhausted,
                    )));
                }
            }
        }
        Err(Some(drop_for(account, headers, DropReason::ReplyCollision)))
    }

    /// Enters a new connection into the table, with a NAT source of its own if it needs one.
    pub(super) fn enter(
        &self,
        view: &View,
        rule: &Rule,
        identity: Identity,
        headers: &Headers,
        hash: u64,
        now: u32,
    ) -> Result<Identity, InsertError> {
        let tuple = &headers.tuple;
        let is_it = |connection: &Connection, direction| {
            view.recognise(tuple, connection, direction).is_some()
        };
        let ports = Ports::of(tuple.protocol, tuple.src.is_v4());
        let mut sources = nat::Candidates::new(ports, rule.proxy_src.len(), hash.rotate_left(29));
        let mut half_nat_tried = false;
        let reverse_keys = |identity: &mut Identity| {
            if rule.topology == Topology::Nat {
                (identity.nat_index, identity.nat_port) = sources.next()?;
            } else if std::mem::replace(&mut half_nat_tried, true) {
                return None;
            }
            let tuple = view.flow(*identity)?.reverse_tuple()?;
            let hash = self::hash(&self.hasher, &tuple);
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
            .map(|(_, identity)| {
                if let Some(flow) = view.flow(identity) {
                    view.snapshot.connection_began(flow.target_index, state);
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
