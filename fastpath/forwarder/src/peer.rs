//! Connections of the peer: what is told of ours, and how those that it tells of come into the table.
//!
//! Numbers of rules and servers are given by each node for itself. What both nodes agree on is what they stand for, and of
//! that a [`Places`] keeps a hash: the rule's name, topology, VIPs and source addresses, in their order, because entries
//! name these by their numbers; and the server's address and port mapping. Whoever has the same hash means the same.
//!
//! An entry that came from the peer has no lane ([`NO_LANE`]), until its first packet takes the general path and gives it
//! one: that is how the two are told apart, at no cost to any packet. Entries that a process found in its table when it
//! started have none either: what is said of them counts if it is not older than what is known.
//!
//! Not for workers: it allocates. Entering goes by the protocol that workers enter by; whoever calls [`enter`], [`claim`]
//! or [`leave`] does so between [`Table::enter`] and [`Table::quiesce`] of [`VISITOR`].

use std::collections::{HashMap, HashSet};
use std::hash::Hasher as _;
use std::net::IpAddr;

use crate::address::Addr;
use crate::changes::Phase;
use crate::hash::{FoldBuild, FoldHasher};
use crate::packet::Ports;
use crate::persistence;
use crate::pool;
use crate::select::Request;
use crate::snapshot::{Snapshot, Vip};
use crate::spec::{PortMap, RuleId, ServerId, Synchronise, Topology};
use crate::state;
use crate::table::{
    Candidate, Connection, Direction, Found, Identity, InsertError, NO_LANE, State, Table,
};
use crate::traces;
use crate::view::View;

pub use crate::table::VISITOR;

/// Attempts to enter a connection before other threads' count as too many.
const RACES: usize = 8;
/// Seconds after which a connection in use is told of again, at most.
const REFRESH: u32 = 60;

/// Which rule and server a hash stands for, and the other way.
#[derive(Debug, Default)]
pub struct Places {
    ids: HashMap<u64, (RuleId, ServerId), FoldBuild>,
    hashes: HashMap<(RuleId, ServerId), u64, FoldBuild>,
    /// Those whose connections are told of by their traces.
    marks: HashSet<u64, FoldBuild>,
}

fn put_address(hasher: &mut FoldHasher, address: Addr) {
    hasher.write_u128(address.0);
}

/// What a rule stands for, on every node.
pub(crate) fn rule_hash(name: &str, topology: Topology, vips: &[Vip], sources: &[Addr]) -> u64 {
    let mut hasher = std::hash::BuildHasher::build_hasher(&FoldBuild);
    hasher.write(name.as_bytes());
    hasher.write_u64(name.len() as u64);
    hasher.write_u8(match topology {
        Topology::Dsr => 1,
        Topology::HalfNat => 2,
        Topology::Nat => 3,
        Topology::Tun => 4,
    });
    hasher.write_u64(vips.len() as u64);
    for vip in vips {
        put_address(&mut hasher, vip.address);
        let number = vip.protocol.number(vip.address.is_v4());
        hasher.write_u64(u64::from(number.unwrap_or(u8::MAX)));
        hasher.write_u32(u32::from(vip.ports.first) << 16 | u32::from(vip.ports.last));
    }
    sources
        .iter()
        .for_each(|&address| put_address(&mut hasher, address));
    hasher.finish()
}

/// What a server of a rule stands for.
pub(crate) fn place_hash(rule: u64, address: Addr, ports: PortMap) -> u64 {
    let mut hasher = std::hash::BuildHasher::build_hasher(&FoldBuild);
    hasher.write_u64(rule);
    put_address(&mut hasher, address);
    hasher.write_u32(match ports {
        PortMap::Same => 0,
        PortMap::Collapse(port) => 1 << 16 | u32::from(port),
        PortMap::Shift(port) => 2 << 16 | u32::from(port),
    });
    hasher.finish()
}

impl Places {
    /// All places of a configuration whose connections follow to the peer. Of two that mean the same, such as a server that
    /// was removed and one that was added in its place, the one that takes new connections is meant.
    pub fn of(snapshot: &Snapshot) -> Places {
        let mut places = Places::default();
        let rules: Vec<u64> = {
            let rules = snapshot.rules().iter();
            rules
                .map(|it| rule_hash(&it.name, it.topology, &it.vips, &it.proxy_src))
                .collect()
        };
        for target in snapshot.targets() {
            let rule = &snapshot.rules()[target.rule as usize];
            if rule.sync == Synchronise::Off {
                continue;
            }
            let hash = place_hash(rules[target.rule as usize], target.address, target.ports);
            if target.mark != 0 {
                places.marks.insert(target.mark);
            }
            let ids = (rule.id, target.server);
            places.hashes.insert(ids, hash);
            if rule.accepting && target.accepting {
                places.ids.insert(hash, ids);
            } else {
                places.ids.entry(hash).or_insert(ids);
            }
        }
        places
    }

    /// What a hash stands for.
    pub fn ids(&self, hash: u64) -> Option<(RuleId, ServerId)> {
        self.ids.get(&hash).copied()
    }

    /// The hash of a server of a rule.
    pub fn hash(&self, rule: RuleId, server: ServerId) -> Option<u64> {
        self.hashes.get(&(rule, server)).copied()
    }

    /// Whether connections are told of by their traces that were not so in `old`.
    pub fn traces_more_than(&self, old: &Places) -> bool {
        !self.marks.is_subset(&old.marks)
    }

    /// Whether there is something in it that was not in `old`.
    pub fn adds_to(&self, old: &Places) -> bool {
        self.ids.keys().any(|hash| !old.ids.contains_key(hash))
    }
}

/// What became of something that the peer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the table now.
    Entered,
    /// It was there, and is as the peer said now.
    Changed,
    /// It is out of the table.
    Left,
    /// We know better: a packet has come here later, or there is nothing to end.
    Kept,
    /// It does not fit the configuration.
    Unfit,
    /// The table is full.
    Full,
    /// A connection of ours has its NAT port, or its client towards the same server.
    InTheWay,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 7] = [
        Outcome::Entered,
        Outcome::Changed,
        Outcome::Left,
        Outcome::Kept,
        Outcome::Unfit,
        Outcome::Full,
        Outcome::InTheWay,
    ];

    /// The word by which it is counted.
    pub const fn label(self) -> &'static str {
        match self {
            Outcome::Entered => "entered",
            Outcome::Changed => "changed",
            Outcome::Left => "left",
            Outcome::Kept => "kept",
            Outcome::Unfit => "unfit",
            Outcome::Full => "table-full",
            Outcome::InTheWay => "in-the-way",
        }
    }
}

/// Whether the peer's word counts for an entry that is here: it was `idle` for so long there.
fn counts(table: &Table, found: &Found, here: &Connection, idle: u32, now: u32) -> bool {
    let ours = table.has_lane(found.index);
    let known = here.idle(now);
    // Clocks of two machines tick at different moments.
    if ours {
        idle < known
    } else {
        idle <= known + 1
    }
}

/// Whether connections of the rule are told of by their traces, and only their clients' claims as they are.
pub fn is_light(view: &View, rule: RuleId) -> bool {
    let rule = view.snapshot.rule_by_id(rule);
    rule.is_some_and(|rule| rule.sync == Synchronise::Light)
}

/// The trace of an entry, if that is what the peer should know of it: see [`crate::traces`].
pub fn trace(view: &View, table: &Table, entry: u32) -> Option<u32> {
    let connection = telling(table, entry)?;
    let flow = view.flow(connection.identity)?;
    if flow.target.mark == 0 || !pool::is_remembered(&flow, connection.state) {
        return None;
    }
    let request = Request::new(&flow.forward_tuple(), connection.identity.vip_index, 0);
    Some(traces::trace(request.hash, flow.target.mark))
}

/// Seconds after which nobody can come back to a connection that the peer told of by its trace.
pub fn patience(view: &View) -> u32 {
    let rules = view.snapshot.rules().iter();
    let light = rules.filter(|rule| rule.sync == Synchronise::Light);
    light
        .map(|rule| pool::longest(&rule.timeouts))
        .max()
        .unwrap_or(0)
}

/// What can be told of an entry: its contents, if it is something that the peer should know.
pub fn telling(table: &Table, entry: u32) -> Option<Connection> {
    let connection = table.get(entry)?;
    // Given to another connection while it was read? Then its parts may be of both.
    let again = table.get(entry)?;
    (again.identity == connection.identity && Phase::of(again.state) != Phase::Embryonic)
        .then_some(again)
}

/// Whether an entry should be told of once more, so that the peer does not forget it: asked every `gap` seconds.
pub fn wants_refresh(view: &View, table: &Table, entry: u32, gap: u32, now: u32) -> bool {
    let Some(connection) = table.get(entry) else {
        return false;
    };
    let Some(rule) = view.snapshot.rule_by_id(connection.identity.rule) else {
        return false;
    };
    let timeout = match Phase::of(connection.state) {
        Phase::Claim => rule.persistence.map_or(0, |it| it.timeout),
        Phase::Open if rule.sync == Synchronise::Light => return false,
        Phase::Open if table.has_lane(entry) => state::timeout(
            connection.state,
            connection.identity.protocol,
            &rule.timeouts,
        ),
        Phase::Open | Phase::Done | Phase::Embryonic => return false,
    };
    let period = (timeout / 3).clamp(1, REFRESH);
    let turn = (now.wrapping_add(entry)) % period < gap;
    turn && connection.idle(now) <= period.max(gap)
}

/// Whether a connection of the rule, as the peer tells of it, is one that we could have.
fn fits(view: &View, identity: &Identity, state: State) -> bool {
    let Some(flow) = view.flow(*identity) else {
        return false;
    };
    let (rule, vip) = (flow.rule, flow.vip);
    let v4 = vip.address.is_v4();
    let number = vip.protocol.number(v4);
    let sources = rule.proxy_src.len();
    let ports = Ports::of(identity.protocol, v4);
    let nat = match rule.topology {
        Topology::Nat => {
            (identity.nat_index as usize) < sources
                && (identity.nat_port != 0) == (ports != Ports::None)
        }
        Topology::Dsr | Topology::HalfNat | Topology::Tun => identity.nat_port == 0,
    };
    let flows = matches!(state, State::Flowing);
    !rule.one_packet
        && identity.protocol != 0
        && number.is_none_or(|number| number == identity.protocol)
        && (!vip.protocol.has_ports() || vip.ports.contains(identity.vip_port))
        && identity.client.is_v4() == v4
        && nat
        && flows != state::has_handshake(identity.protocol)
}

/// The connection of this identity, by its forward key.
fn find(view: &View, table: &Table, identity: &Identity) -> Option<(u32, Found, Connection)> {
    let tuple = view.flow(*identity)?.forward_tuple();
    let hash = table.hasher().tuple(&tuple) as u32;
    let mut here = None;
    let found = table.find(hash, |connection, direction| {
        let it = direction == Direction::Forward
            && view.recognise(&tuple, connection, direction).is_some();
        if it {
            here = Some(*connection);
        }
        it
    })?;
    Some((hash, found, here?))
}

/// Ends an entry, and counts that.
fn end(view: &View, table: &Table, index: u32, identity: &Identity) {
    if let Some(state) = table.kill(index)
        && let Some(flow) = view.flow(*identity)
    {
        view.snapshot.connection_ended(flow.target_index, state);
    }
}

/// Enters a connection that the peer tells of, `idle` seconds after its last packet there.
pub fn enter(
    view: &View,
    table: &Table,
    identity: Identity,
    state: State,
    idle: u32,
    now: u32,
) -> Outcome {
    if !fits(view, &identity, state) {
        return Outcome::Unfit;
    }
    let Some(flow) = view.flow(identity) else {
        return Outcome::Unfit;
    };
    let identity = Identity {
        has_reverse: flow.rule.topology.has_reverse(),
        pool_version: flow.rule.pool.current(),
        ..identity
    };
    let seen = now.saturating_sub(idle);
    for _ in 0..RACES {
        if let Some((_, found, here)) = find(view, table, &identity) {
            if !counts(table, &found, &here, idle, now) {
                return Outcome::Kept;
            }
            let (old, new) = (&here.identity, &identity);
            let same = (old.rule, old.server, old.nat_port, old.nat_index)
                == (new.rule, new.server, new.nat_port, new.nat_index);
            if same {
                if let Some(change) = table.touch(found.index, |_| state, seen) {
                    view.snapshot.connection_changed(flow.target_index, change);
                    return Outcome::Changed;
                }
            } else {
                end(view, table, found.index, &here.identity);
            }
            continue;
        }
        match insert(view, table, identity, state, seen) {
            Ok(()) => {
                view.snapshot.connection_began(flow.target_index, state);
                return Outcome::Entered;
            }
            Err(InsertError::Race) => {}
            Err(InsertError::Full) => return Outcome::Full,
            Err(InsertError::ReverseTaken) => {
                if !clear_reverse(view, table, &identity) {
                    return Outcome::InTheWay;
                }
            }
        }
    }
    Outcome::InTheWay
}

fn insert(
    view: &View,
    table: &Table,
    identity: Identity,
    state: State,
    seen: u32,
) -> Result<(), InsertError> {
    let hasher = table.hasher();
    let flow = view.flow(identity).ok_or(InsertError::Race)?;
    let tuple = flow.forward_tuple();
    let mut reverse = flow.reverse_tuple();
    let wanted = reverse;
    let candidate = Candidate {
        identity,
        state,
        hash: hasher.tuple(&tuple) as u32,
        lane: NO_LANE,
        now: seen,
    };
    table
        .insert(
            candidate,
            |connection, direction| view.recognise(&tuple, connection, direction).is_some(),
            |_| Some(hasher.tuple(&reverse.take()?) as u32),
            |_, connection, direction| {
                wanted.is_some_and(|it| view.recognise(&it, connection, direction).is_some())
            },
        )
        .map(drop)
}

/// Ends what has the reverse key of a connection of the peer, if that came from the peer, too, or is over: the peer knows
/// that it is over there.
fn clear_reverse(view: &View, table: &Table, identity: &Identity) -> bool {
    let Some(tuple) = view.flow(*identity).and_then(|flow| flow.reverse_tuple()) else {
        return false;
    };
    let hash = table.hasher().tuple(&tuple) as u32;
    let mut here = None;
    let found = table.find(hash, |connection, direction| {
        let it = view.recognise(&tuple, connection, direction).is_some();
        if it {
            here = Some(connection.identity);
        }
        it
    });
    let (Some(found), Some(here)) = (found, here) else {
        return true;
    };
    if table.has_lane(found.index) && !found.state.is_done() {
        return false;
    }
    end(view, table, found.index, &here);
    true
}

/// Enters a client's claim that the peer tells of.
#[expect(
    clippy::too_many_arguments,
    reason = "each says another thing about one claim"
)]
pub fn claim(
    view: &View,
    table: &Table,
    rule: RuleId,
    client: Addr,
    server: ServerId,
    nat_index: u8,
    idle: u32,
    now: u32,
) -> Outcome {
    let Some(of) = view.snapshot.rule_by_id(rule) else {
        return Outcome::Unfit;
    };
    let source = of.topology != Topology::Nat || (nat_index as usize) < of.proxy_src.len();
    let masked = |mask| persistence::masked(client, mask) == client;
    if !source || !of.persistence.is_some_and(|it| masked(it.mask)) {
        return Outcome::Unfit;
    }
    let (hasher, seen) = (table.hasher(), now.saturating_sub(idle));
    for _ in 0..RACES {
        if let Some((found, here)) = persistence::find(table, &hasher, rule, client)
            && let Some(now_here) = table.get(found.index)
        {
            let offered = found.state == State::Offered;
            if !offered && !counts(table, &found, &now_here, idle, now) {
                return Outcome::Kept;
            }
            if (here.server, here.nat_index) == (server, nat_index) {
                let real = |state| persistence::used(state, true);
                if table.touch(found.index, real, seen).is_some() {
                    return Outcome::Changed;
                }
            } else {
                table.kill(found.index);
            }
            continue;
        }
        let candidate = Candidate {
            identity: persistence::identity(rule, client, server, nat_index),
            state: State::Persistence,
            hash: persistence::hash(&hasher, rule, client),
            lane: NO_LANE,
            now: seen,
        };
        let is_it = |connection: &Connection, _| persistence::is_claim(connection, rule, client);
        match table.insert(candidate, is_it, |_| None, |_, _, _| false) {
            Ok(_) => return Outcome::Entered,
            Err(InsertError::Full) => return Outcome::Full,
            Err(InsertError::Race | InsertError::ReverseTaken) => {}
        }
    }
    Outcome::InTheWay
}

/// Ends a connection of which the peer says that it is over, if no packet of it has come here.
pub fn leave(view: &View, table: &Table, identity: &Identity) -> Outcome {
    match find(view, table, identity) {
        Some((_, found, here))
            if !table.has_lane(found.index) && here.identity.server == identity.server =>
        {
            end(view, table, found.index, &here.identity);
            Outcome::Left
        }
        _ => Outcome::Kept,
    }
}

/// Whether there is a connection of this identity.
pub fn has(view: &View, table: &Table, identity: &Identity) -> bool {
    find(view, table, identity).is_some()
}

/// An identity as the peer tells of it; what it cannot know is filled in by [`enter`].
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// The rule and the server.
    pub ids: (RuleId, ServerId),
    /// The client.
    pub client: IpAddr,
    /// Its port.
    pub client_port: u16,
    /// The VIP's port.
    pub vip_port: u16,
    /// Which VIP.
    pub vip_index: u8,
    /// Protocol number.
    pub protocol: u8,
    /// Port and number of the source address, under NAT.
    pub nat: Option<(u16, u8)>,
}

impl Known {
    /// As the table has it.
    pub fn identity(&self) -> Identity {
        let (nat_port, nat_index) = self.nat.unwrap_or_default();
        Identity {
            client: self.client.into(),
            client_port: self.client_port,
            vip_port: self.vip_port,
            nat_port,
            nat_index,
            vip_index: self.vip_index,
            rule: self.ids.0,
            server: self.ids.1,
            protocol: self.protocol,
            has_reverse: false,
            pool_version: 0,
        }
    }
}
