//! Makes a snapshot out of a specification, or out of another snapshot and what is different.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{
    Behind, CompileError, Rule, Snapshot, Sources, Target, Vip, check, places, target_key,
};
use crate::address::Addr;
use crate::chunks::{Chunks, Draft};
use crate::counters::Account;
use crate::hash::FoldBuild;
use crate::idmap::Places;
use crate::lane;
use crate::load::Thresholds;
use crate::matching::{self, Claim, Matcher};
use crate::peer;
use crate::pool::{Candidates, Chooser, Pool};
use crate::select::candidates::Terms;
use crate::select::{self, Recipe, Selector, Turns, Workshop, maglev};
use crate::spec::{
    Limits, Protocol, RuleId, RuleSpec, ServerId, ServerSpec, Synchronise, Topology,
};
use crate::tunnel::{self, Encapsulation};

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

/// A snapshot in the making.
pub(super) struct Compiler<'a> {
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
    /// See [`Snapshot::behind`]; that of the copied snapshot, as long as no rule is different that has a part in it.
    behind: Option<Arc<Behind>>,
    /// See [`Snapshot::is_source`]; that of the copied snapshot, as long as no rule has others.
    sources: Option<Arc<Sources>>,
    workshop: Workshop,
}

impl<'a> Compiler<'a> {
    /// Of everything.
    pub(super) fn new(previous: &'a Snapshot, workers: usize) -> Compiler<'a> {
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
            behind: None,
            sources: None,
            workshop: Workshop::default(),
        }
    }

    /// Of what is different.
    pub(super) fn copy(previous: &'a Snapshot) -> Compiler<'a> {
        Compiler {
            tunnel_ends: previous.tunnel_ends.clone(),
            rules: Draft::of(&previous.rules),
            targets: Draft::of(&previous.targets),
            target_index: Places::of(&previous.target_index),
            rule_index: previous.rule_index.clone(),
            matcher: Some(previous.matcher.clone()),
            behind: Some(previous.behind.clone()),
            sources: Some(previous.sources.clone()),
            ..Compiler::new(previous, previous.workers)
        }
    }

    /// New filters are made for a configuration of so many rules.
    pub(super) fn filters_for(&mut self, rules: usize) {
        self.flows = (FILTERED / rules.max(1)) as u32;
    }

    /// The servers that a rule has in the draft.
    fn servers_of(&self, rule: u32) -> Vec<ServerId> {
        let targets = self.rules[rule as usize].targets.iter();
        targets
            .map(|&at| self.targets[at as usize].server)
            .collect()
    }

    /// Takes a rule out, if it is there. The last one takes its place.
    pub(super) fn remove(&mut self, id: RuleId) {
        let Some(&at) = self.rule_index.get(&id) else {
            return;
        };
        for server in self.servers_of(at) {
            self.remove_target(target_key(id, server));
        }
        self.rule_index.remove(&id);
        if is_behind(&self.rules[at as usize]) {
            self.behind = None;
        }
        if !sources_of(&self.rules[at as usize]).is_empty() {
            self.sources = None;
        }
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
    pub(super) fn rule(&mut self, spec: &RuleSpec) -> Result<(), CompileError> {
        check::rule(spec)?;
        matching::check(spec)?;
        places::check(spec)?;
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
            check::server(spec, server)?;
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
        let vips: Box<[Vip]> = spec
            .vips
            .iter()
            .map(|vip| Vip {
                address: vip.address.into(),
                protocol: vip.protocol,
                ports: vip.ports,
            })
            .collect();
        let proxy_src: Box<[Addr]> = spec
            .proxy_src
            .iter()
            .map(|&address| address.into())
            .collect();
        let mark = (spec.sync == Synchronise::Light && remembers(spec))
            .then(|| peer::rule_hash(&spec.name, spec.topology, &vips, &proxy_src));
        let mut targets = Vec::with_capacity(spec.servers.len());
        let mut candidates = Vec::new();
        for server in &spec.servers {
            let candidate = takes_new(server).then_some(candidates.len() as u32);
            let target = self.server(spec, server, at, candidate, &sources, mark)?;
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
            proxy_src,
            new_flows_per_second: spec.new_flows_per_second,
            admission: old.map(|old| old.admission.clone()).unwrap_or_default(),
            persistence: spec.persistence,
            renewed: old.map(|old| old.renewed.clone()).unwrap_or_default(),
            one_packet: spec.one_packet,
            orphans: spec.orphans,
            sync: spec.sync,
            timeouts: spec.timeouts,
            account: account.unwrap_or_else(|| Arc::new(Account::new(self.workers))),
            pool,
            targets: targets.into(),
            candidates: candidates.iter().map(|(target, _)| *target).collect(),
            selector,
            turns,
        };
        let was = place.is_some_and(|place| is_behind(&self.rules[place as usize]));
        if was || is_behind(&rule) {
            self.behind = None;
        }
        let had = place.map(|place| sources_of(&self.rules[place as usize]));
        if had.unwrap_or_default() != sources_of(&rule) {
            self.sources = None;
        }
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
            place: places::of(spec, server),
            weight: server.weight,
            thresholds: Thresholds {
                max: server.max_connections,
                min: server.min_connections,
            },
            up_since: server.up_since,
        };
        let servers: Box<[Terms]> = candidates.iter().map(terms).collect();
        let [away, dead] = match select::is_computed(spec.algorithm) {
            true => places::away(spec, &servers),
            false => Default::default(),
        };
        let recipe = Recipe {
            algorithm: spec.algorithm,
            options: spec.options,
            slow_start: spec.slow_start,
            vips: spec.vips.iter().map(|vip| vip.address.into()).collect(),
            large: spec.servers.len().max(spec.places as usize) > maglev::FEW,
            servers,
            away,
            dead,
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
        mark: Option<u64>,
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
            mark: mark.map_or(0, |rule| {
                peer::place_hash(rule, spec.address.into(), spec.ports).max(1)
            }),
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

    /// The snapshot of this generation.
    pub(super) fn finish(self, generation: u64, limits: Limits) -> Result<Snapshot, CompileError> {
        let rules = self.rules.finish();
        let matcher = match self.matcher {
            Some(matcher) => matcher,
            None => Arc::new(matcher_of(&rules)?),
        };
        let targets = self.targets.finish();
        let behind = self
            .behind
            .unwrap_or_else(|| Arc::new(behind(&rules, &targets)));
        let sources = self
            .sources
            .unwrap_or_else(|| Arc::new(rules.iter().flat_map(sources_of).copied().collect()));
        Ok(Snapshot {
            generation,
            limits,
            workers: self.workers,
            guard: self.previous.guard.clone(),
            rules,
            targets,
            behind,
            sources,
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

/// Addresses that its servers answer to.
fn sources_of(rule: &Rule) -> &[Addr] {
    match rule.topology {
        Topology::Nat => &rule.proxy_src,
        Topology::Dsr | Topology::HalfNat | Topology::Tun => &[],
    }
}

/// Whether packets from its servers without an entry may belong to connections that the peer had.
fn is_behind(rule: &Rule) -> bool {
    rule.sync == Synchronise::Light && rule.topology == Topology::HalfNat
}

fn behind(rules: &Chunks<Rule>, targets: &Chunks<Target>) -> Behind {
    let mut all = Behind::default();
    for rule in rules.iter().filter(|rule| is_behind(rule)) {
        for target in rule.targets.iter().map(|&at| &targets[at as usize]) {
            all.entry(target.address)
                .or_default()
                .push((rule.id, target.server));
        }
    }
    all
}

fn takes_new(server: &ServerSpec) -> bool {
    server.accepting && !server.dead && server.weight > 0
}
