//! A configuration as the workers use it: immutable, indexed, with everything computed that does not depend on a
//! packet. Compiled off the workers from a [`SnapshotSpec`].

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::Addr;
use crate::admission::Admission;
use crate::chunks::{Chunks, Draft};
use crate::counters::Account;
use crate::guard::Guard;
use crate::hash::FoldBuild;
use crate::idmap::{IdMap, Places};
use crate::lane;
use crate::load::{Activity, Thresholds};
use crate::matching::{self, Claim, Matcher, Miss};
use crate::packet::Tuple;
use crate::persistence::Renewed;
use crate::pool::{Candidates, Chooser, Pool};
use crate::select::candidates::Terms;
use crate::select::{self, Mode, NoChoice, Recipe, Request, Selector, Turns, Workshop, maglev};
use crate::spec::{
    Limits, Orphans, Persistence, PortMap, PortRange, Prefix, Protocol, RuleId, RuleSpec, ServerId,
    ServerSpec, SnapshotSpec, SpecChange, Timeouts, Topology,
};
use crate::table::{self, State};
use crate::tunnel::{self, Encapsulation};

/// Why a specification cannot be used. The manager validates before it sends; this is the second lock on the door.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// An id appears twice.
    #[error("rule '{rule}': {what} id {id} is used twice")]
    DuplicateId {
        /// Rule in which it was found.
        rule: String,
        /// "rule" or "server".
        what: &'static str,
        /// The id.
        id: u32,
    },
    /// An id is larger than a connection's entry can hold.
    #[error("rule '{rule}': {what} id {id} is out of range: allowed are 1 to {most}")]
    Id {
        /// Rule in which it was found.
        rule: String,
        /// "rule" or "server".
        what: &'static str,
        /// The id.
        id: u32,
        /// The largest that is allowed.
        most: u32,
    },
    /// A list is too short or too long.
    #[error("rule '{rule}': {count} {what} are not allowed; {allowed} are")]
    Count {
        /// The rule.
        rule: String,
        /// What was counted.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Addresses of both families in one rule.
    #[error("rule '{rule}': {address} is not of the family of the VIP {vip}")]
    Family {
        /// The rule.
        rule: String,
        /// The address.
        address: IpAddr,
        /// The VIP.
        vip: IpAddr,
    },
    /// A port range that ends before it begins, or does not fit the server's ports.
    #[error(
        "rule '{rule}': ports {first}-{last} cannot be mapped to server '{server}' from port {to} on"
    )]
    Ports {
        /// The rule.
        rule: String,
        /// The server.
        server: String,
        /// First port of the VIP.
        first: u16,
        /// Last port of the VIP.
        last: u16,
        /// First port of the server.
        to: u16,
    },
    /// DSR or TUN with other ports at the server.
    #[error(
        "rule '{rule}': server '{server}' has ports of its own, which DSR and TUN cannot reach"
    )]
    DsrPorts {
        /// The rule.
        rule: String,
        /// The server.
        server: String,
    },
    /// TUN without an outer source address of a server's family.
    #[error(
        "rule '{rule}': no-tunnel-source: server '{server}' is at {address}, and none of the rule's proxy-src addresses is \
         of that family"
    )]
    NoTunnelSource {
        /// The rule.
        rule: String,
        /// The server.
        server: String,
        /// Where it is.
        address: IpAddr,
    },
    /// A VIP that no packet may be balanced to.
    #[error("rule '{rule}': {address} is not the address of a single host and cannot be a VIP")]
    NotUnicast {
        /// The rule.
        rule: String,
        /// The VIP.
        address: IpAddr,
    },
    /// Ports where there are none.
    #[error(
        "rule '{rule}': protocol {protocol} has no ports, but the VIP names ports {first}-{last}"
    )]
    NoPorts {
        /// The rule.
        rule: String,
        /// The protocol.
        protocol: Protocol,
        /// First port of the VIP.
        first: u16,
        /// Last port of the VIP.
        last: u16,
    },
    /// One-packet scheduling where answers come back through us, or of another protocol than UDP.
    #[error("rule '{rule}': one-packet scheduling is for UDP under DSR or TUN only")]
    OnePacket {
        /// The rule.
        rule: String,
    },
    /// A client prefix that is longer than an address.
    #[error("rule '{rule}': a prefix of {address} cannot be {len} bits long")]
    PrefixLength {
        /// The rule.
        rule: String,
        /// The prefix's address.
        address: IpAddr,
        /// Its length.
        len: u8,
    },
    /// Two rules accept the same connections, and neither is more specific than the other.
    #[error(
        "rules '{first}' and '{second}' both accept {protocol} connections to {address} port {port}"
    )]
    Overlap {
        /// One rule.
        first: String,
        /// The other rule.
        second: String,
        /// The VIP.
        address: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// A port that both claim.
        port: u16,
    },
}

/// A VIP of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: Addr,
    /// The protocol.
    pub protocol: Protocol,
    /// The ports.
    pub ports: PortRange,
}

/// A rule, compiled.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its id.
    pub id: RuleId,
    /// Its name.
    pub name: String,
    /// Whether it takes new connections.
    pub accepting: bool,
    /// How packets reach the servers.
    pub topology: Topology,
    /// Where clients connect to.
    pub vips: Box<[Vip]>,
    /// Clients that the rule is for; empty for all.
    pub clients: Box<[Prefix]>,
    /// Source addresses towards the servers.
    pub proxy_src: Box<[Addr]>,
    /// New flows a second; 0 is no limit.
    pub new_flows_per_second: u32,
    /// Those of the current second.
    pub(crate) admission: Arc<Admission>,
    /// Whether a client comes back to its server.
    pub persistence: Option<Persistence>,
    /// When persistence was last looked after.
    pub(crate) renewed: Arc<Renewed>,
    /// Whether every datagram is a choice of its own.
    pub one_packet: bool,
    /// What becomes of connections whose server is dead or gone.
    pub orphans: Orphans,
    /// Idle times.
    pub timeouts: Timeouts,
    /// Counters for what concerns no server.
    pub account: Arc<Account>,
    /// Versions of its candidates, the present one first.
    pub pool: Pool,
    /// All its targets, as indices into [`Snapshot::targets`].
    targets: Box<[u32]>,
    /// Targets that take new connections, as indices into [`Snapshot::targets`].
    candidates: Box<[u32]>,
    selector: Option<Arc<Selector>>,
    turns: Arc<Turns>,
}

/// A server of a rule, compiled.
#[derive(Debug, Clone)]
pub struct Target {
    /// Index of its rule in [`Snapshot::rules`].
    pub rule: u32,
    /// The server's id.
    pub server: ServerId,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: Addr,
    /// How ports map.
    pub ports: PortMap,
    /// Whether it takes new connections.
    pub accepting: bool,
    /// Whether it does not answer.
    pub dead: bool,
    /// Its counters.
    pub account: Arc<Account>,
    /// Its lane: a number that no other server of a rule ever had in this process.
    pub lane: u32,
    /// Its number among the candidates of the rule's selector.
    candidate: Option<u32>,
    /// TUN: what goes before its packets.
    pub encapsulation: Option<Arc<Encapsulation>>,
}

impl Rule {
    /// All its targets, as indices into [`Snapshot::targets`].
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// What chooses its servers; None if there is none that takes new connections.
    pub fn selector(&self) -> Option<&Arc<Selector>> {
        self.selector.as_ref()
    }

    /// Whether it takes the same packets as another.
    fn accepts_as(&self, other: &Rule) -> bool {
        self.accepting == other.accepting
            && self.vips == other.vips
            && self.clients == other.clients
    }

    /// Targets that take new connections, in the order of the selector's candidates.
    pub fn candidates(&self) -> &[u32] {
        &self.candidates
    }
}

impl Target {
    /// Whether it is a candidate for new connections, thresholds aside: accepting, alive, and of a weight above 0.
    pub fn takes_new(&self) -> bool {
        self.candidate.is_some()
    }

    /// The server's port for a port of this VIP. A VIP of any protocol keeps ports as they are, and ICMP has none.
    #[inline(always)]
    pub fn port(&self, vip: &Vip, vip_port: u16) -> u16 {
        match self.ports {
            _ if !vip.protocol.has_ports() => vip_port,
            PortMap::Same => vip_port,
            PortMap::Collapse(port) => port,
            PortMap::Shift(first) => first.wrapping_add(vip_port.wrapping_sub(vip.ports.first)),
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Snapshot {
    generation: u64,
    limits: Limits,
    workers: usize,
    guard: Arc<Guard>,
    rules: Chunks<Rule>,
    targets: Chunks<Target>,
    /// (rule id, server id) to target.
    target_index: IdMap,
    /// Rule id to rule.
    rule_index: HashMap<RuleId, u32, FoldBuild>,
    /// Which accepting rule a packet is for.
    matcher: Arc<Matcher>,
    /// Far ends of tunnels.
    tunnel_ends: Arc<tunnel::Ends>,
}

impl Snapshot {
    /// No rules at all, generation 0.
    pub fn empty() -> Snapshot {
        Snapshot::default()
    }

    /// Compiles a specification for `workers` workers. Counters and turns of rules and servers that `previous` has too
    /// are carried on.
    pub fn compile(
        spec: &SnapshotSpec,
        previous: Option<&Snapshot>,
        workers: usize,
    ) -> Result<Snapshot, CompileError> {
        let empty;
        let previous = match previous {
            Some(previous) => previous,
            None => {
                empty = Snapshot::empty();
                &empty
            }
        };
        let mut compiler = Compiler::new(previous, workers);
        compiler.flows = (FILTERED / spec.rules.len().max(1)) as u32;
        for rule in &spec.rules {
            compiler.rule(rule)?;
        }
        compiler.finish(spec.generation, spec.limits)
    }

    /// What a change makes of this snapshot, for as many workers. The work and the new memory are those of the change;
    /// rules and targets have other places than after a compilation of everything, and what was learned about tunnels that
    /// are gone stays known.
    ///
    /// # Errors
    /// When the change, or what it makes of the configuration, cannot be used.
    pub fn changed(&self, change: &SpecChange) -> Result<Snapshot, CompileError> {
        let mut compiler = Compiler::copy(self);
        compiler.flows = (FILTERED / self.rules.len().max(1)) as u32;
        for &rule in &change.removed {
            compiler.remove(rule);
        }
        for rule in &change.rules {
            compiler.rule(rule)?;
        }
        compiler.finish(change.generation, change.limits)
    }

    /// The specification's generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What the node as a whole lets in.
    #[inline(always)]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Workers that it was compiled for.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// What all workers share to keep floods out.
    #[inline(always)]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// All rules.
    pub fn rules(&self) -> &Chunks<Rule> {
        &self.rules
    }

    /// All servers of all rules.
    pub fn targets(&self) -> &Chunks<Target> {
        &self.targets
    }

    /// Index of the server of a rule.
    #[inline(always)]
    pub fn target_of(&self, rule: RuleId, server: ServerId) -> Option<u32> {
        self.target_index.get(target_key(rule, server))
    }

    /// Far ends of the tunnels of all rules.
    pub fn tunnel_ends(&self) -> &tunnel::Ends {
        &self.tunnel_ends
    }

    /// A rule by its id.
    pub fn rule_by_id(&self, id: RuleId) -> Option<&Rule> {
        self.rule_index.get(&id).map(|&at| &self.rules[at as usize])
    }

    /// Index of a rule in [`Snapshot::rules`].
    pub fn rule_index(&self, id: RuleId) -> Option<u32> {
        self.rule_index.get(&id).copied()
    }

    /// The rule that accepts a packet with this tuple as the beginning of a connection, and which of its VIPs that is:
    /// the most specific one, see [`crate::matching`].
    #[inline]
    pub fn accepting(&self, tuple: &Tuple) -> Option<(u32, u8)> {
        let Claim { rule, vip } = self.matcher.find(tuple)?;
        Some((rule, vip))
    }

    /// Every VIP with the address of a packet that does not get it, with what is in the way; the nearest miss first. For
    /// explanations: it looks at all rules.
    #[cold]
    pub fn misses(&self, tuple: &Tuple) -> Vec<Miss> {
        self.matcher.misses(&self.rules, tuple)
    }

    /// Chooses a server of a rule for a new connection: an index into [`Snapshot::targets`].
    #[inline]
    pub fn select(&self, rule: &Rule, request: &Request, mode: Mode) -> Result<u32, NoChoice> {
        let selector = rule.selector.as_ref().ok_or(NoChoice::NoServer)?;
        Ok(rule.candidates[selector.select(request, mode)? as usize])
    }

    /// A connection to this target has begun. To be called by whoever entered it into the table.
    #[inline]
    pub fn connection_began(&self, target: u32, state: State) {
        self.shift(target, Activity::None, Activity::of(state));
    }

    /// The state of a connection to this target has changed. To be called by whoever changed it in the table.
    #[inline(always)]
    pub fn connection_changed(&self, target: u32, (old, new): (State, State)) {
        if old != new {
            self.shift(target, Activity::of(old), Activity::of(new));
        }
    }

    /// A connection to this target has ended in this state. To be called by whoever took it out of the table.
    #[inline]
    pub fn connection_ended(&self, target: u32, state: State) {
        self.shift(target, Activity::of(state), Activity::None);
    }

    fn shift(&self, target: u32, from: Activity, to: Activity) {
        if from == to {
            return;
        }
        let target = &self.targets[target as usize];
        target.account.load().shift(from, to);
        if let Some(candidate) = target.candidate
            && let Some(selector) = &self.rules[target.rule as usize].selector
        {
            selector.load_changed(candidate);
        }
    }

    /// Has all selectors look at their servers anew. The census does so in every pass.
    pub fn refresh(&self, now: u32) {
        let selectors = self.rules.iter().filter_map(|rule| rule.selector.as_ref());
        selectors.for_each(|selector| selector.refresh(now));
    }
}

/// Flows that the first filters of all rules together are made for; at 16 bits and two halves, 256 KiB.
const FILTERED: usize = 1 << 16;

/// Whether connections of a rule can be remembered beside their entries: see [`crate::pool`].
fn remembers(spec: &RuleSpec) -> bool {
    spec.topology != Topology::Nat
        && !spec.one_packet
        && spec
            .vips
            .iter()
            .any(|vip| !matches!(vip.protocol, Protocol::Udp | Protocol::Icmp))
}

#[inline(always)]
fn target_key(rule: RuleId, server: ServerId) -> u64 {
    (rule as u64) << 32 | server as u64
}

struct Compiler<'a> {
    tunnel_ends: Arc<tunnel::Ends>,
    previous: &'a Snapshot,
    workers: usize,
    /// Flows that a rule's new filter is made for.
    flows: u32,
    rules: Draft<Rule>,
    targets: Draft<Target>,
    target_index: Places,
    rule_index: HashMap<RuleId, u32, FoldBuild>,
    /// Rules that were compiled.
    seen: HashSet<RuleId, FoldBuild>,
    /// That of the copied snapshot, as long as the same rules accept the same packets in the same places.
    matcher: Option<Arc<Matcher>>,
    workshop: Workshop,
}

impl<'a> Compiler<'a> {
    /// Of everything.
    fn new(previous: &'a Snapshot, workers: usize) -> Compiler<'a> {
        Compiler {
            tunnel_ends: Arc::default(),
            previous,
            workers,
            flows: 0,
            rules: Draft::default(),
            targets: Draft::default(),
            target_index: Places::default(),
            rule_index: HashMap::default(),
            seen: HashSet::default(),
            matcher: None,
            workshop: Workshop::default(),
        }
    }

    /// Of what is different.
    fn copy(previous: &'a Snapshot) -> Compiler<'a> {
        Compiler {
            tunnel_ends: previous.tunnel_ends.clone(),
            rules: Draft::of(&previous.rules),
            targets: Draft::of(&previous.targets),
            target_index: Places::of(&previous.target_index),
            rule_index: previous.rule_index.clone(),
            matcher: Some(previous.matcher.clone()),
            ..Compiler::new(previous, previous.workers)
        }
    }

    /// The servers that a rule has in the draft.
    fn servers_of(&self, rule: u32) -> Vec<ServerId> {
        let targets = self.rules[rule as usize].targets.iter();
        targets
            .map(|&at| self.targets[at as usize].server)
            .collect()
    }

    /// Takes a rule out, if it is there. The last one takes its place.
    fn remove(&mut self, id: RuleId) {
        let Some(&at) = self.rule_index.get(&id) else {
            return;
        };
        for server in self.servers_of(at) {
            self.remove_target(target_key(id, server));
        }
        self.rule_index.remove(&id);
        self.rules.swap_remove(at as usize);
        self.matcher = None;
        if (at as usize) < self.rules.len() {
            let moved = &self.rules[at as usize];
            self.rule_index.insert(moved.id, at);
            for &target in &moved.targets {
                self.targets.get_mut(target as usize).rule = at;
            }
        }
    }

    /// Takes a target out. The last one takes its place, and its rule is told. The rule of the removed one is about to be
    /// replaced or removed.
    fn remove_target(&mut self, key: u64) {
        let Some(at) = self.target_index.get(key) else {
            return;
        };
        self.target_index.remove(key);
        self.targets.swap_remove(at as usize);
        let last = self.targets.len() as u32;
        if at == last {
            return;
        }
        let moved = &self.targets[at as usize];
        let (owner, server) = (moved.rule as usize, moved.server);
        let owner = self.rules.get_mut(owner);
        let places = owner.targets.iter_mut().chain(&mut owner.candidates);
        places
            .filter(|place| **place == last)
            .for_each(|place| *place = at);
        self.target_index.insert(target_key(owner.id, server), at);
    }

    /// Compiles a rule, new or instead of the one with its id.
    fn rule(&mut self, spec: &RuleSpec) -> Result<(), CompileError> {
        check_rule(spec)?;
        matching::check(spec)?;
        let duplicate = |what, id| CompileError::DuplicateId {
            rule: spec.name.clone(),
            what,
            id,
        };
        if !self.seen.insert(spec.id) {
            return Err(duplicate("rule", spec.id));
        }
        let mut servers: HashSet<ServerId, FoldBuild> = HashSet::default();
        for server in &spec.servers {
            check_server(spec, server)?;
            if !servers.insert(server.id) {
                return Err(duplicate("server", server.id));
            }
        }
        let place = self.rule_index.get(&spec.id).copied();
        let at = place.unwrap_or(self.rules.len() as u32);
        if let Some(place) = place {
            let gone = self.servers_of(place).into_iter();
            for server in gone.filter(|server| !servers.contains(server)) {
                self.remove_target(target_key(spec.id, server));
            }
        }

        let old = self.previous.rule_by_id(spec.id);
        let sources = tunnel::Sources::new(&spec.proxy_src);
        let mut targets = Vec::with_capacity(spec.servers.len());
        let mut candidates = Vec::new();
        for server in &spec.servers {
            let candidate = takes_new(server).then_some(candidates.len() as u32);
            let target = self.server(spec, server, at, candidate, &sources)?;
            targets.push(target);
            if candidate.is_some() {
                candidates.push((target, server));
            }
        }
        let turns = old.map(|old| old.turns.clone()).unwrap_or_default();
        let selector = self.selector(spec, &candidates, &turns, old);
        let chooser = selector
            .clone()
            .filter(|_| select::is_computed(spec.algorithm))
            .map(|selector| Chooser {
                selector,
                order: candidates.iter().map(|(_, server)| server.id).collect(),
            });
        let weights = candidates.iter();
        let pool = Pool::next(
            old.map(|old| &old.pool),
            Candidates {
                algorithm: spec.algorithm,
                servers: weights
                    .map(|(_, server)| (server.id, server.weight))
                    .collect(),
                chooser,
                remembers: remembers(spec),
                flows: self.flows,
            },
        );
        let vips: Box<[Vip]> = spec
            .vips
            .iter()
            .map(|vip| Vip {
                address: vip.address.into(),
                protocol: vip.protocol,
                ports: vip.ports,
            })
            .collect();
        let account = old
            .map(|old| &old.account)
            .filter(|account| account.fits(self.workers))
            .cloned();
        let rule = Rule {
            id: spec.id,
            name: spec.name.clone(),
            accepting: spec.accepting,
            topology: spec.topology,
            vips,
            clients: spec.clients.clone().into(),
            proxy_src: spec
                .proxy_src
                .iter()
                .map(|&address| address.into())
                .collect(),
            new_flows_per_second: spec.new_flows_per_second,
            admission: old.map(|old| old.admission.clone()).unwrap_or_default(),
            persistence: spec.persistence,
            renewed: old.map(|old| old.renewed.clone()).unwrap_or_default(),
            one_packet: spec.one_packet,
            orphans: spec.orphans,
            timeouts: spec.timeouts,
            account: account.unwrap_or_else(|| Arc::new(Account::new(self.workers))),
            pool,
            targets: targets.into(),
            candidates: candidates.iter().map(|(target, _)| *target).collect(),
            selector,
            turns,
        };
        match place {
            Some(place) => {
                let old = self.rules.get_mut(place as usize);
                if !old.accepts_as(&rule) {
                    self.matcher = None;
                }
                *old = rule;
            }
            None => {
                if rule.accepting {
                    self.matcher = None;
                }
                self.rule_index.insert(rule.id, at);
                self.rules.push(rule);
            }
        }
        Ok(())
    }

    /// The selector for candidates of a rule, each with its target.
    fn selector(
        &mut self,
        spec: &RuleSpec,
        candidates: &[(u32, &ServerSpec)],
        turns: &Arc<Turns>,
        old: Option<&Rule>,
    ) -> Option<Arc<Selector>> {
        if candidates.is_empty() {
            return None;
        }
        let terms = |(_, server): &(u32, &ServerSpec)| Terms {
            id: server.id,
            weight: server.weight,
            thresholds: Thresholds {
                max: server.max_connections,
                min: server.min_connections,
            },
            up_since: server.up_since,
        };
        let recipe = Recipe {
            algorithm: spec.algorithm,
            options: spec.options,
            slow_start: spec.slow_start,
            vips: spec.vips.iter().map(|vip| vip.address.into()).collect(),
            large: spec.servers.len() > maglev::FEW,
            servers: candidates.iter().map(terms).collect(),
        };
        let account = |(target, _): &(u32, _)| self.targets[*target as usize].account.clone();
        let accounts = candidates.iter().map(account).collect();
        let old = old.and_then(|old| old.selector.as_ref());
        Some(self.workshop.selector(recipe, accounts, turns, old))
    }

    fn server(
        &mut self,
        rule: &RuleSpec,
        spec: &ServerSpec,
        rule_at: u32,
        candidate: Option<u32>,
        sources: &tunnel::Sources,
    ) -> Result<u32, CompileError> {
        let old = self
            .previous
            .target_of(rule.id, spec.id)
            .map(|at| &self.previous.targets[at as usize]);
        let lane = old.map_or_else(lane::next, |old| old.lane);
        let account = old
            .map(|old| &old.account)
            .filter(|account| account.fits(self.workers))
            .cloned();
        let encapsulation = match rule.topology {
            Topology::Tun => Some(self.encapsulation(rule, spec, sources)?),
            Topology::Dsr | Topology::HalfNat | Topology::Nat => None,
        };
        let target = Target {
            rule: rule_at,
            server: spec.id,
            name: spec.name.clone(),
            address: spec.address.into(),
            ports: spec.ports,
            accepting: spec.accepting,
            dead: spec.dead,
            lane,
            candidate,
            account: account.unwrap_or_else(|| Arc::new(Account::new(self.workers))),
            encapsulation,
        };
        let key = target_key(rule.id, spec.id);
        Ok(match self.target_index.get(key) {
            Some(at) => {
                *self.targets.get_mut(at as usize) = target;
                at
            }
            None => {
                let at = self.targets.len() as u32;
                self.target_index.insert(key, at);
                self.targets.push(target);
                at
            }
        })
    }

    fn encapsulation(
        &mut self,
        rule: &RuleSpec,
        server: &ServerSpec,
        sources: &tunnel::Sources,
    ) -> Result<Arc<Encapsulation>, CompileError> {
        let known = &self.previous.tunnel_ends;
        let address = server.address.into();
        let ends = Arc::make_mut(&mut self.tunnel_ends);
        match ends.add(known, rule.tunnel, address, sources) {
            Some(encapsulation) => Ok(Arc::new(encapsulation)),
            None => Err(CompileError::NoTunnelSource {
                rule: rule.name.clone(),
                server: server.name.clone(),
                address: server.address,
            }),
        }
    }

    fn finish(self, generation: u64, limits: Limits) -> Result<Snapshot, CompileError> {
        let rules = self.rules.finish();
        let matcher = match self.matcher {
            Some(matcher) => matcher,
            None => Arc::new(matcher_of(&rules)?),
        };
        Ok(Snapshot {
            generation,
            limits,
            workers: self.workers,
            guard: self.previous.guard.clone(),
            rules,
            targets: self.targets.finish(),
            target_index: self.target_index.finish(),
            rule_index: self.rule_index,
            matcher,
            tunnel_ends: self.tunnel_ends,
        })
    }
}

fn matcher_of(rules: &Chunks<Rule>) -> Result<Matcher, CompileError> {
    let name = |claim: Claim| rules[claim.rule as usize].name.clone();
    let accepting = rules.iter().zip(0..).filter(|(rule, _)| rule.accepting);
    let patterns = accepting.flat_map(|(rule, at)| matching::patterns(rule, at));
    Matcher::new(patterns.collect()).map_err(|ambiguity| CompileError::Overlap {
        first: name(ambiguity.first),
        second: name(ambiguity.second),
        address: ambiguity.address,
        protocol: ambiguity.protocol,
        port: ambiguity.port,
    })
}

fn takes_new(server: &ServerSpec) -> bool {
    server.accepting && !server.dead && server.weight > 0
}

fn check_rule(spec: &RuleSpec) -> Result<(), CompileError> {
    check_id(spec, "rule", spec.id, table::MAX_RULE_ID)?;
    let count = |what, count, allowed| CompileError::Count {
        rule: spec.name.clone(),
        what,
        count,
        allowed,
    };
    let Some(vip) = spec.vips.first().filter(|_| spec.vips.len() <= 256) else {
        return Err(count("VIPs", spec.vips.len(), "1 to 256"));
    };
    let v4 = spec.proxy_src.iter().filter(|a| a.is_ipv4()).count();
    let all = spec.proxy_src.len();
    let (counted, sources, allowed) = match spec.topology {
        Topology::Nat => (all, 1..=10, "1 to 10"),
        // Whether there is one of each family that is needed is seen with each server.
        Topology::Tun => (v4.max(all - v4), 0..=10, "up to 10 of each family"),
        Topology::Dsr | Topology::HalfNat => (all, 0..=0, "none"),
    };
    if !sources.contains(&counted) {
        return Err(count("proxy-src addresses", counted, allowed));
    }
    let vips = spec.vips.iter().map(|vip| vip.address);
    let servers = spec.servers.iter().map(|server| server.address);
    let others = spec.proxy_src.iter().copied().chain(servers);
    // A tunnel's outer packets may be of another family than what they carry.
    let others = others.filter(|_| spec.topology != Topology::Tun);
    for address in vips.chain(others) {
        if address.is_ipv4() != vip.address.is_ipv4() {
            return Err(CompileError::Family {
                rule: spec.name.clone(),
                address,
                vip: vip.address,
            });
        }
    }
    let most = if vip.address.is_ipv4() { 32 } else { 128 };
    if let Some(persistence) = spec.persistence
        && persistence.mask > most
    {
        return Err(CompileError::PrefixLength {
            rule: spec.name.clone(),
            address: vip.address,
            len: persistence.mask,
        });
    }
    let udp = spec.vips.iter().all(|vip| vip.protocol == Protocol::Udp);
    if spec.one_packet && (!udp || spec.topology.has_reverse()) {
        return Err(CompileError::OnePacket {
            rule: spec.name.clone(),
        });
    }
    Ok(())
}

fn check_id(rule: &RuleSpec, what: &'static str, id: u32, most: u32) -> Result<(), CompileError> {
    if (1..=most).contains(&id) {
        return Ok(());
    }
    Err(CompileError::Id {
        rule: rule.name.clone(),
        what,
        id,
        most,
    })
}

fn check_server(rule: &RuleSpec, server: &ServerSpec) -> Result<(), CompileError> {
    check_id(rule, "server", server.id, table::MAX_SERVER_ID)?;
    if matches!(rule.topology, Topology::Dsr | Topology::Tun) && server.ports != PortMap::Same {
        return Err(CompileError::DsrPorts {
            rule: rule.name.clone(),
            server: server.name.clone(),
        });
    }
    let with_ports = rule.vips.iter().filter(|vip| vip.protocol.has_ports());
    for PortRange { first, last } in with_ports.map(|vip| vip.ports) {
        let to = match server.ports {
            PortMap::Shift(to) => to,
            PortMap::Same | PortMap::Collapse(_) => first,
        };
        if first > last || to.checked_add(last - first).is_none() {
            return Err(CompileError::Ports {
                rule: rule.name.clone(),
                server: server.name.clone(),
                first,
                last,
                to,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
