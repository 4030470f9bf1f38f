//! Choosing a server for a new connection: one file per algorithm, one trait.
//!
//! What can be computed beforehand is computed when the snapshot is compiled, off the workers, so that a choice is O(1)
//! or O(log n) among n servers, without a lock and without memory of its own. What all algorithms have in common is in
//! [`candidates`]: servers at their thresholds are passed over, and servers in slow start refuse part of the flows.

mod bitmap;
pub mod candidates;
mod failover;
mod hash;
mod least_connection;
mod locality;
pub mod maglev;
mod round_robin;
#[cfg(test)]
mod tests;
mod tournament;
mod two_choices;
mod weighted_round_robin;
mod weights;
mod workshop;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::address::Addr;
use crate::counters::Account;
use crate::hash::{FIXED_KEYS, FlowHasher};
use crate::load::Thresholds;
use crate::packet::Tuple;
use crate::spec::{Algorithm, AlgorithmOptions, ServerId};
use candidates::{Candidate, Candidates, Terms};
use least_connection::{LeastConnection, Measure};
use locality::Local;
use maglev::Maglev;
pub use workshop::Workshop;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The client's address.
    pub client: Addr,
    /// The client's port.
    pub client_port: u16,
    /// The address that it connects to.
    pub vip: Addr,
    /// The port that it connects to.
    pub vip_port: u16,
    /// Index of the VIP among those of the rule.
    pub vip_index: u8,
    /// Protocol number.
    pub protocol: u8,
    /// Hash of the flow with [`crate::hash::FIXED_KEYS`]: the same on every node.
    pub hash: u64,
    /// Seconds since boot.
    pub now: u32,
}

impl Request {
    /// For a flow whose first packet has this tuple and meets this VIP of the rule.
    pub fn new(tuple: &Tuple, vip_index: u8, now: u32) -> Request {
        Request {
            client: tuple.src,
            client_port: tuple.sport,
            vip: tuple.dst,
            vip_port: tuple.dport,
            vip_index,
            protocol: tuple.protocol,
            hash: HASHER.tuple(tuple),
            now,
        }
    }
}

const HASHER: FlowHasher = FlowHasher::new(FIXED_KEYS);

/// Whether a choice counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// For a connection that begins: turns move on.
    Choose,
    /// Only to know what [`Mode::Choose`] would give now: nothing changes.
    Preview,
}

/// Why there is no server for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoChoice {
    /// No server takes new connections: all are disabled, dead, removed or of weight 0.
    NoServer,
    /// The servers that might take it are at their thresholds.
    AtLimits,
}

/// A way to choose among the servers that take new connections.
trait Select: Send + Sync + std::fmt::Debug {
    /// Index of the chosen server.
    fn select(&self, among: &Candidates, request: &Request, mode: Mode) -> Result<u32, NoChoice>;

    /// What the packet alone says, whoever is full or in slow start; None if the choice depends on more.
    fn computed(&self, _request: &Request) -> Option<u32> {
        None
    }

    /// The load of this candidate has changed, or whether it is full, or its share in slow start.
    fn changed(&self, _among: &Candidates, _index: u32) {}
}

/// Whose turn it is. Belongs to a rule and outlives its selectors.
#[derive(Debug, Default)]
pub struct Turns {
    cursor: AtomicU64,
    /// Beginning of the latest turn among equals.
    latest: AtomicU64,
    localities: OnceLock<Box<[Local]>>,
}

impl Turns {
    /// The later of `turn` and the beginning of the latest turn, in wrapping order; it is the latest from now on.
    fn not_before(&self, turn: u64) -> u64 {
        let later = |latest: u64| ((turn.wrapping_sub(latest) as i64) > 0).then_some(turn);
        let (order, latest) = (Ordering::Relaxed, &self.latest);
        match latest.fetch_update(order, order, later) {
            Ok(_) => turn,
            Err(latest) => latest,
        }
    }

    /// What each VIP's servers were. First called when a selector is made.
    fn localities(&self) -> &[Local] {
        self.localities
            .get_or_init(|| (0..256).map(|_| Local::default()).collect())
    }
}

/// All that a selector is made from: two that are equal choose alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Its options.
    pub options: AlgorithmOptions,
    /// Seconds of slow start.
    pub slow_start: u32,
    /// Addresses of the rule's VIPs.
    pub vips: Box<[Addr]>,
    /// Whether so many servers are configured, candidates or not, that a hash takes a large table: see
    /// [`maglev::FEW`].
    pub large: bool,
    /// The servers that take new connections, in configured order. At least one.
    pub servers: Box<[Terms]>,
    /// Places and weights of those that do not, for hash tables: see [`maglev::Recipe::away`].
    pub away: Box<[maglev::Racer]>,
    /// Likewise, of those that are only dead.
    pub dead: Box<[maglev::Racer]>,
}

impl Recipe {
    /// For servers given by id and weight that have nothing special about them.
    pub fn plain(algorithm: Algorithm, servers: &[(ServerId, u16)]) -> Recipe {
        let terms = |&(id, weight): &(ServerId, u16)| Terms {
            id,
            place: id,
            weight,
            thresholds: Thresholds::default(),
            up_since: 0,
        };
        Recipe {
            algorithm,
            options: AlgorithmOptions::default(),
            slow_start: 0,
            vips: Box::default(),
            large: servers.len() > maglev::FEW,
            servers: servers.iter().map(terms).collect(),
            away: Box::default(),
            dead: Box::default(),
        }
    }

    /// The hash table that the algorithm needs; None if it needs none.
    pub fn table(&self) -> Option<maglev::Recipe> {
        is_computed(self.algorithm).then(|| maglev::Recipe {
            servers: self.servers.iter().map(|s| (s.place, s.weight)).collect(),
            away: self.away.clone(),
            dead: self.dead.clone(),
            full_size: self.large || self.algorithm == Algorithm::Maglev,
        })
    }
}

/// An algorithm with the servers that it chooses from. Shared by snapshots between which nothing of it changes.
#[derive(Debug)]
pub struct Selector {
    recipe: Recipe,
    among: Candidates,
    algorithm: Box<dyn Select>,
    table: Option<Arc<Maglev>>,
}

impl Selector {
    /// Makes a selector. `accounts` belong to the servers of the recipe, `table` to [`Recipe::table`].
    pub fn new(
        recipe: Recipe,
        accounts: impl IntoIterator<Item = Arc<Account>>,
        turns: &Arc<Turns>,
        table: Option<Arc<Maglev>>,
    ) -> Selector {
        let list = recipe.servers.iter().zip(accounts);
        let list = list.map(|(&terms, account)| Candidate { terms, account });
        let among = Candidates::new(list.collect(), recipe.slow_start);
        let turns = turns.clone();
        let algorithm: Box<dyn Select> = match (recipe.algorithm, &table) {
            (algorithm, Some(table)) if is_computed(algorithm) => {
                Box::new(hash::Hashed::new(algorithm, recipe.options, table.clone()))
            }
            (
                Algorithm::LeastConnection
                | Algorithm::WeightedLeastConnection
                | Algorithm::ShortestExpectedDelay
                | Algorithm::NeverQueue,
                _,
            ) => {
                let measure = Measure::of(recipe.algorithm);
                Box::new(LeastConnection::new(measure, &among, turns))
            }
            (
                Algorithm::LocalityLeastConnection | Algorithm::LocalityLeastConnectionReplication,
                _,
            ) => {
                turns.localities();
                let sets = recipe.algorithm == Algorithm::LocalityLeastConnectionReplication;
                Box::new(locality::Locality::new(sets, &among, &recipe.vips, turns))
            }
            (Algorithm::WeightedRoundRobin, _) => {
                Box::new(weighted_round_robin::WeightedRoundRobin::new(&among, turns))
            }
            (Algorithm::Failover, _) => Box::new(failover::Failover::new(&among)),
            (Algorithm::Overflow, _) => Box::new(failover::Overflow::new(&among)),
            (Algorithm::TwoChoices, _) => Box::new(two_choices::TwoChoices::new(&among)),
            (_, _) => Box::new(round_robin::RoundRobin(turns)),
        };
        Selector {
            recipe,
            among,
            algorithm,
            table,
        }
    }

    /// What it was made from.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The servers that it chooses from.
    pub fn candidates(&self) -> &Candidates {
        &self.among
    }

    /// The hash table that it looks its choices up in.
    pub fn table(&self) -> Option<&Arc<Maglev>> {
        self.table.as_ref()
    }

    /// Index of the chosen server among the candidates.
    #[inline]
    pub fn select(&self, request: &Request, mode: Mode) -> Result<u32, NoChoice> {
        if mode == Mode::Choose {
            self.among.tell(request.now);
        }
        self.algorithm.select(&self.among, request, mode)
    }

    /// Index of the candidate that the packet alone decides, whatever the loads; None if [`is_computed`] is false.
    pub fn computed(&self, request: &Request) -> Option<u32> {
        self.algorithm.computed(request)
    }

    /// The load of this candidate has changed.
    #[inline]
    pub fn load_changed(&self, index: u32) {
        self.among.judge(index);
        self.algorithm.changed(&self.among, index);
    }

    /// Looks at all candidates anew: for what changed with time, or through another snapshot's selector.
    pub fn refresh(&self, now: u32) {
        self.among.tell(now);
        (0..self.among.count()).for_each(|index| self.load_changed(index));
    }
}

/// Whether the algorithm gives a flow the same server of the same candidates every time, whatever came before.
pub fn is_computed(algorithm: Algorithm) -> bool {
    match algorithm {
        Algorithm::DestinationHash
        | Algorithm::SourceHash
        | Algorithm::Maglev
        | Algorithm::HashIp
        | Algorithm::HashIpPort
        | Algorithm::HashIpVip => true,
        Algorithm::RoundRobin
        | Algorithm::WeightedRoundRobin
        | Algorithm::LeastConnection
        | Algorithm::WeightedLeastConnection
        | Algorithm::ShortestExpectedDelay
        | Algorithm::NeverQueue
        | Algorithm::LocalityLeastConnection
        | Algorithm::LocalityLeastConnectionReplication
        | Algorithm::Failover
        | Algorithm::Overflow
        | Algorithm::TwoChoices => false,
    }
}
