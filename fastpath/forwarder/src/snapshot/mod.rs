//! A configuration as the workers use it: immutable, indexed, with everything computed that does not depend on a
//! packet. Compiled off the workers from a [`SnapshotSpec`].

mod check;
mod compile;
mod error;
mod places;
mod rule;
mod target;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::address::Addr;
use crate::chunks::Chunks;
use crate::guard::Guard;
use crate::hash::FoldBuild;
use crate::idmap::IdMap;
use crate::load::Activity;
use crate::matching::{Claim, Matcher, Miss};
use crate::packet::Tuple;
use crate::select::{Mode, NoChoice, Request};
use crate::spec::{Limits, RuleId, ServerId, SnapshotSpec, SpecChange};
use crate::table::State;
use crate::tunnel;
use compile::Compiler;
pub use error::CompileError;
pub use rule::{Rule, Vip};
pub use target::Target;

/// Servers by their addresses, see [`Snapshot::behind`].
type Behind = HashMap<Addr, Vec<(RuleId, ServerId)>, FoldBuild>;

/// Addresses, see [`Snapshot::is_source`].
type Sources = HashSet<Addr, FoldBuild>;

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
    /// See [`Snapshot::behind`].
    behind: Arc<Behind>,
    /// See [`Snapshot::is_source`].
    sources: Arc<Sources>,
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
        compiler.filters_for(spec.rules.len());
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
        compiler.filters_for(self.rules.len());
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

    /// Servers with this address whose answers pass through here and whose connections leave traces
    /// ([`crate::spec::Synchronise::Light`] and HALF-NAT), each with its rule.
    pub fn behind(&self, address: Addr) -> &[(RuleId, ServerId)] {
        self.behind.get(&address).map_or(&[], |servers| servers)
    }

    /// Whether connections of any rule go to their servers from this address, so that answers come back to it.
    pub fn is_source(&self, address: Addr) -> bool {
        self.sources.contains(&address)
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

#[inline(always)]
fn target_key(rule: RuleId, server: ServerId) -> u64 {
    (rule as u64) << 32 | server as u64
}

#[cfg(test)]
mod tests;
