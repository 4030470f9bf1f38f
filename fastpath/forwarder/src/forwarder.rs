//! From frame to verdict. One [`Forwarder`] belongs to each worker; all share one connection table.

use std::sync::Arc;

use crate::counters::{Traffic, WorkerCounters};
use crate::fragment::Fragments;
use crate::hash::FlowHasher;
use crate::icmp;
use crate::nat;
use crate::packet::{self, Headers, Kind, Packet, Tuple};
use crate::rewrite;
use crate::select::Request;
use crate::snapshot::Rule;
use crate::spec::{Protocol, Topology};
use crate::state;
use crate::table::{Candidate, Connection, Direction, Found, Identity, InsertError, State, Table};
use crate::verdict::{DropReason, Verdict};
use crate::view::{Flow, Recognised, View};

/// Packets that are taken through each step together, so that memory arrives while others are worked on.
pub const BATCH: usize = 64;

/// Looks and insertions for one packet before other workers' insertions count as too many.
const RACES: usize = 8;

/// Other servers that are tried when a HALF-NAT client uses the same port towards the same server already.
const HALF_NAT_CHOICES: usize = 4;

/// See the module's text.
pub struct Forwarder {
    path: Path,
    parsed: Box<[Parsed; BATCH]>,
}

/// Everything that a packet meets on its way.
struct Path {
    worker: usize,
    table: Arc<Table>,
    hasher: FlowHasher,
    fragments: Fragments,
    counters: Arc<WorkerCounters>,
}

/// A packet on its way through the batch.
#[derive(Clone, Copy)]
struct Parsed {
    headers: Headers,
    outcome: Result<(), DropReason>,
    hash: u64,
    /// Entry that probably belongs to it.
    candidate: Option<u32>,
}

/// A packet with a connection.
struct Hit<'v> {
    found: Found,
    recognised: Recognised<'v>,
}

impl Forwarder {
    /// For worker number `worker`, below [`crate::table::MAX_WORKERS`] and the number of workers that snapshots are
    /// compiled for.
    pub fn new(worker: usize, table: Arc<Table>) -> Forwarder {
        let nothing = Parsed {
            headers: Headers::default(),
            outcome: Err(DropReason::Malformed),
            hash: 0,
            candidate: None,
        };
        Forwarder {
            path: Path {
                worker,
                hasher: table.hasher(),
                table,
                fragments: Fragments::default(),
                counters: Arc::default(),
            },
            parsed: Box::new([nothing; BATCH]),
        }
    }

    /// This worker's counters, to be read by anybody.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.path.counters
    }

    /// Gives every packet its verdict and changes those that are to be sent. `now` is in seconds since boot, the same
    /// clock for all workers and for [`crate::table::Sweeper`].
    pub fn process(&mut self, view: &View, packets: &mut [Packet<'_>], now: u32) {
        for batch in packets.chunks_mut(BATCH) {
            self.path.table.enter(self.path.worker);
            self.parse(batch);
            self.look_ahead(batch.len());
            for (packet, parsed) in batch.iter_mut().zip(self.parsed.iter()) {
                packet.verdict = match parsed.outcome {
                    Ok(()) => self.path.one(view, packet.frame_mut(), parsed, now),
                    Err(reason) => Verdict::Drop(reason),
                };
            }
            self.path.count(batch);
            self.path.table.quiesce(self.path.worker);
        }
    }

    #[inline(always)]
    fn parse(&mut self, batch: &[Packet<'_>]) {
        for (packet, parsed) in batch.iter().zip(self.parsed.iter_mut()) {
            parsed.outcome = packet::parse_into(packet.frame(), &mut parsed.headers);
            parsed.hash = hash(&self.path.hasher, &parsed.headers.tuple);
            self.path.table.prefetch_bucket(parsed.hash as u32);
        }
    }

    #[inline(always)]
    fn look_ahead(&mut self, count: usize) {
        for parsed in &mut self.parsed[..count] {
            parsed.candidate = self.path.table.candidate(parsed.hash as u32);
            if let Some(index) = parsed.candidate {
                self.path.table.prefetch(index);
            }
        }
    }
}

impl Path {
    #[inline(always)]
    fn count(&self, batch: &[Packet<'_>]) {
        let (mut bytes, mut transmitted) = (0, 0);
        for packet in batch {
            bytes += packet.len();
            match packet.verdict {
                Verdict::Transmit(_) => transmitted += 1,
                Verdict::Unresolved { .. } => self.counters.unresolved.add(1),
                Verdict::Kernel => self.counters.kernel.add(1),
                Verdict::Drop(reason) => self.counters.dropped(reason),
            }
        }
        self.counters.packets.add(batch.len() as u64);
        self.counters.bytes.add(bytes as u64);
        self.counters.transmitted.add(transmitted);
    }

    #[inline(always)]
    fn one(&mut self, view: &View, frame: &mut [u8], parsed: &Parsed, now: u32) -> Verdict {
        let headers = &parsed.headers;
        match headers.kind {
            Kind::Transport => self.transport(view, frame, parsed, now),
            Kind::LaterFragment => self.later_fragment(view, frame, headers, now),
            Kind::IcmpError => self.icmp_error(view, frame, headers),
            Kind::Other => Verdict::Kernel,
        }
    }

    #[inline(always)]
    fn transport(&mut self, view: &View, frame: &mut [u8], parsed: &Parsed, now: u32) -> Verdict {
        let (headers, hash) = (&parsed.headers, parsed.hash);
        if headers.fragment.is_none()
            && let Some(index) = parsed.candidate
            && let Some((flow, direction)) = self.continues(view, headers, hash, index, now)
        {
            return self.forward(view, frame, headers, &flow, direction, hash);
        }
        self.transport_slowly(view, frame, headers, hash, now)
    }

    /// What nearly all packets are: one more of the connection whose entry was fetched ahead.
    #[inline(always)]
    fn continues<'v>(
        &self,
        view: &'v View,
        headers: &Headers,
        hash: u64,
        index: u32,
        now: u32,
    ) -> Option<(Flow<'v>, Direction)> {
        let (connection, direction) = self.table.peek(index, hash as u32)?;
        let flow = view.flow(connection.identity)?;
        if !flow.matches(&headers.tuple, direction) {
            return None;
        }
        if headers.tuple.protocol == packet::protocol::TCP {
            let flags = headers.tcp_flags;
            if state::begins(flags) {
                return None;
            }
            let after = |old| state::after(old, direction, flags);
            self.table.touch(index, after, now).then_some(())?;
        } else {
            self.table.touch(index, |old| old, now).then_some(())?;
        }
        Some((flow, direction))
    }

    /// First packets, fragments, hash collisions, lost races.
    #[cold]
    #[inline(never)]
    fn transport_slowly(
        &mut self,
        view: &View,
        frame: &mut [u8],
        headers: &Headers,
        hash: u64,
        now: u32,
    ) -> Verdict {
        for _ in 0..RACES {
            let connected = match self.find(view, &headers.tuple, hash) {
                Some(hit) => self.go_on(hit, headers, now),
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
            return self.forward_slowly(view, frame, headers, &flow, direction, hash);
        }
        Verdict::Drop(DropReason::InsertRace)
    }

    /// The connection that a packet belongs to.
    fn find<'v>(&self, view: &'v View, tuple: &Tuple, hash: u64) -> Option<Hit<'v>> {
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
    fn go_on<'v>(
        &self,
        hit: Hit<'v>,
        headers: &Headers,
        now: u32,
    ) -> Option<Result<(Flow<'v>, Direction), Verdict>> {
        let Found {
            index,
            state,
            direction,
        } = hit.found;
        let tcp = headers.tuple.protocol == packet::protocol::TCP;
        let begins = !tcp || state::begins(headers.tcp_flags);
        let flow = match hit.recognised {
            Recognised::Flow(flow) => flow,
            Recognised::ServerGone(rule) => {
                self.table.kill(index);
                if begins {
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
            tcp && begins && direction == Direction::Forward && state::is_over_for_client(state);
        if begins_anew {
            self.table.kill(index);
            return None;
        }
        let flags = headers.tcp_flags;
        let touched = self.table.touch(
            index,
            |old| {
                if tcp {
                    state::after(old, direction, flags)
                } else {
                    old
                }
            },
            now,
        );
        touched.then_some(Ok((flow, direction)))
    }

    /// A packet that belongs to no connection. Err(None) if another worker was faster: look again.
    #[cold]
    fn begin<'v>(
        &self,
        view: &'v View,
        headers: &Headers,
        hash: u64,
        now: u32,
    ) -> Result<Flow<'v>, Option<Verdict>> {
        let tuple = &headers.tuple;
        let protocol = Protocol::from_number(tuple.protocol).ok_or(Some(Verdict::Kernel))?;
        let Some((rule, vip)) = view.snapshot.accepting(tuple.dst, protocol, tuple.dport) else {
            return Err(Some(Verdict::Kernel));
        };
        let rule = &view.snapshot.rules()[rule as usize];
        let account = rule.account.of(self.worker);
        if protocol == Protocol::Tcp && !state::begins(headers.tcp_flags) {
            return Err(Some(drop_for(account, headers, DropReason::NoConnection)));
        }
        let request = Request {
            client: tuple.src,
            client_port: tuple.sport,
            vip: tuple.dst,
        };
        for _ in 0..HALF_NAT_CHOICES {
            let Some(target) = view.snapshot.select(rule, &request) else {
                return Err(Some(drop_for(account, headers, DropReason::NoServer)));
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
                protocol,
                has_reverse: rule.topology != Topology::Dsr,
                pool_version: 0,
            };
            match self.enter(view, rule, identity, tuple, hash, now) {
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
    fn enter(
        &self,
        view: &View,
        rule: &Rule,
        identity: Identity,
        tuple: &Tuple,
        hash: u64,
        now: u32,
    ) -> Result<Identity, InsertError> {
        let is_it = |connection: &Connection, direction| {
            view.recognise(tuple, connection, direction).is_some()
        };
        let mut sources = nat::Candidates::new(rule.proxy_src.len(), hash.rotate_left(29));
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
        let state = match identity.protocol {
            Protocol::Tcp => State::Syn,
            Protocol::Udp => State::Udp,
        };
        let candidate = Candidate {
            identity,
            state,
            hash: hash as u32,
            now,
        };
        self.table
            .insert(candidate, is_it, reverse_keys, same_reverse)
            .map(|(_, identity)| identity)
    }

    /// Makes way for a client that uses its port anew: a finished connection with the same reverse key, made through
    /// another VIP, has no claim to it any more.
    fn end_finished(&self, view: &View, tuple: &Tuple, hash: u64) {
        if let Some(hit) = self.find(view, tuple, hash)
            && state::is_over_for_client(hit.found.state)
        {
            self.table.kill(hit.found.index);
        }
    }

    /// As [`Path::forward`], for where it is not worth a copy of the code.
    #[inline(never)]
    fn forward_slowly(
        &self,
        view: &View,
        frame: &mut [u8],
        headers: &Headers,
        flow: &Flow<'_>,
        direction: Direction,
        hash: u64,
    ) -> Verdict {
        self.forward(view, frame, headers, flow, direction, hash)
    }

    /// Sends a packet on its way: rewritten for its direction, addressed to its next hop.
    #[inline(always)]
    fn forward(
        &self,
        view: &View,
        frame: &mut [u8],
        headers: &Headers,
        flow: &Flow<'_>,
        direction: Direction,
        hash: u64,
    ) -> Verdict {
        let traffic = flow.target.account.of(self.worker);
        let Some(new) = flow.translated(direction) else {
            return drop_for(traffic, headers, DropReason::ServerGone);
        };
        if flow.rule.topology != Topology::Dsr && !rewrite::hop(frame, headers, &new) {
            return drop_for(traffic, headers, DropReason::TtlExpired);
        }
        let hop = match direction {
            Direction::Forward => view.hop(flow.target_index),
            Direction::Reverse => view.network.next_hop(new.dst, hash as u32),
        };
        let verdict = view.network.send(hop, headers.ip_len(), frame);
        match verdict {
            Verdict::Drop(_) => {
                traffic.dropped_packets.add(1);
                traffic.dropped_bytes.add(headers.ip_len() as u64);
            }
            Verdict::Transmit(_) | Verdict::Unresolved { .. } | Verdict::Kernel => {
                traffic.packets.add(1);
                traffic.bytes.add(headers.ip_len() as u64);
            }
        }
        verdict
    }

    fn fragment_hash(&self, headers: &Headers, id: u32) -> u64 {
        let Tuple {
            src, dst, protocol, ..
        } = headers.tuple;
        self.hasher
            .flow(src, dst, id as u16, (id >> 16) as u16, protocol)
    }

    #[cold]
    fn later_fragment(
        &self,
        view: &View,
        frame: &mut [u8],
        headers: &Headers,
        now: u32,
    ) -> Verdict {
        let id = headers.fragment.unwrap_or_default();
        let hash = self.fragment_hash(headers, id);
        let Some((identity, direction)) = self.fragments.recall(headers, id, hash, now) else {
            return Verdict::Drop(DropReason::FragmentUnknown);
        };
        match view.flow(identity) {
            Some(flow) => self.forward_slowly(view, frame, headers, &flow, direction, hash),
            None => Verdict::Drop(DropReason::ServerGone),
        }
    }

    #[cold]
    fn icmp_error(&self, view: &View, frame: &mut [u8], headers: &Headers) -> Verdict {
        let Some(quoted) = icmp::quoted(frame, headers) else {
            return Verdict::Kernel;
        };
        let tuple = quoted.tuple.reversed();
        let hash = hash(&self.hasher, &tuple);
        let Some(Hit {
            found,
            recognised: Recognised::Flow(flow),
        }) = self.find(view, &tuple, hash)
        else {
            return Verdict::Kernel;
        };
        let traffic = flow.target.account.of(self.worker);
        let verdict = match icmp::rewrite(frame, headers, &quoted, &flow, found.direction) {
            Ok(destination) => {
                let hop = match found.direction {
                    Direction::Forward => view.hop(flow.target_index),
                    Direction::Reverse => view.network.next_hop(destination, hash as u32),
                };
                view.network.send(hop, headers.ip_len(), frame)
            }
            Err(reason) => Verdict::Drop(reason),
        };
        icmp::count(
            traffic,
            verdict,
            icmp::is_too_big(frame, headers),
            headers.ip_len(),
        );
        verdict
    }
}

#[inline(always)]
fn hash(hasher: &FlowHasher, tuple: &Tuple) -> u64 {
    hasher.flow(
        tuple.src,
        tuple.dst,
        tuple.sport,
        tuple.dport,
        tuple.protocol,
    )
}

fn drop_for(traffic: &Traffic, headers: &Headers, reason: DropReason) -> Verdict {
    traffic.dropped_packets.add(1);
    traffic.dropped_bytes.add(headers.ip_len() as u64);
    Verdict::Drop(reason)
}
