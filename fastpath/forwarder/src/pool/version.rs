//! One version of a rule's pool: who could be chosen, and who was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::Recovered;
use super::filter::{Filter, level_for};
use crate::hash::{FIXED_KEYS, fold};
use crate::select::{Request, Selector};
use crate::spec::{Algorithm, ServerId};

/// How a version computes its choice.
#[derive(Debug, Clone)]
pub struct Chooser {
    /// Gives indices into `order`.
    pub selector: Arc<Selector>,
    /// Candidates in configured order.
    pub order: Box<[ServerId]>,
}

/// What selection sees.
#[derive(Debug)]
pub struct Candidates {
    /// How one is chosen.
    pub algorithm: Algorithm,
    /// Servers that take new connections, with their weights.
    pub servers: Vec<(ServerId, u16)>,
    /// How the choice is computed, for algorithms that always give a flow the same server of the same candidates.
    pub chooser: Option<Chooser>,
    /// Whether connections can be remembered at all.
    pub remembers: bool,
    /// Flows that a new filter is made for; it grows with the connections that there are.
    pub flows: u32,
}

impl Candidates {
    /// The same for the same candidates, in any order, on every node. Weights count only where the choice is computed
    /// from them: elsewhere a version is a set of servers, and weights that follow the servers' load do not make new
    /// ones all the time.
    pub fn digest(&self) -> u64 {
        let mut sum = 0u64;
        for &(server, weight) in &self.servers {
            let weight = if self.chooser.is_some() { weight } else { 0 };
            let item = (server as u64) << 16 | weight as u64;
            sum = sum.wrapping_add(fold(item ^ FIXED_KEYS[0], FIXED_KEYS[3]));
        }
        let kind = (self.algorithm as u64) << 32 | self.servers.len() as u64;
        fold(sum ^ FIXED_KEYS[2], kind ^ FIXED_KEYS[1])
    }
}

/// See the module's text. What changes in it is shared by all snapshots that have it.
#[derive(Debug)]
pub struct Version {
    number: u16,
    /// Numbers of versions that this one was made from.
    merged: Box<[u16]>,
    digest: u64,
    algorithm: Algorithm,
    /// Ascending by id.
    servers: Box<[(ServerId, u16)]>,
    chooser: Option<Chooser>,
    filter: Option<Filter>,
    /// Entries that named it when the census looked last.
    pub(super) live: AtomicU32,
    /// When the census first saw that nobody needs it, plus one; 0 if somebody does.
    pub(super) unused_since: AtomicU32,
    /// When its filter was rotated, plus one; 0 if the census has not seen it yet.
    pub(super) rotated: AtomicU32,
    /// The census has to enter all of its connections anew.
    pub(super) incomplete: AtomicBool,
    pub(super) retired: AtomicBool,
}

impl Version {
    /// A version that nobody has used. `before` is the one that it follows: it will have about as many connections.
    pub(super) fn new(number: u16, candidates: Candidates, before: Option<&Version>) -> Version {
        let digest = candidates.digest();
        let mut servers = candidates.servers;
        servers.sort_unstable();
        let expected = before.map_or(0, Version::live).max(candidates.flows);
        Version {
            filter: candidates
                .remembers
                .then(|| Filter::new(level_for(expected))),
            chooser: candidates.chooser,
            algorithm: candidates.algorithm,
            servers: servers.into(),
            ..Version::empty(number, digest)
        }
    }

    fn empty(number: u16, digest: u64) -> Version {
        Version {
            number,
            merged: Box::default(),
            digest,
            algorithm: Algorithm::RoundRobin,
            servers: Box::default(),
            chooser: None,
            filter: None,
            live: AtomicU32::new(0),
            unused_since: AtomicU32::new(0),
            rotated: AtomicU32::new(0),
            incomplete: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        }
    }

    /// One version in place of two: the candidates and the connections of both.
    pub(super) fn merged(newer: &Version, older: &Version) -> Version {
        let mut servers = [&*newer.servers, &*older.servers].concat();
        servers.sort_by_key(|&(server, _)| server);
        servers.dedup_by_key(|&mut (server, _)| server);
        let mut numbers = Vec::new();
        numbers.extend(newer.numbers().chain(older.numbers()).skip(1));
        let filter = match (&newer.filter, &older.filter) {
            (None, None) => None,
            (a, b) => {
                let filter = Filter::new(0);
                [a, b]
                    .into_iter()
                    .flatten()
                    .for_each(|half| filter.absorb(half));
                Some(filter)
            }
        };
        Version {
            merged: numbers.into(),
            algorithm: newer.algorithm,
            servers: servers.into(),
            filter,
            live: AtomicU32::new(newer.live() + older.live()),
            // A worker with the snapshot before may enter a connection into what was copied already.
            incomplete: AtomicBool::new(true),
            ..Version::empty(newer.number, fold(newer.digest, older.digest | 1))
        }
    }

    /// Its number within the rule, as entries carry it. Never 0.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// All numbers by which entries know it.
    pub fn numbers(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.number).chain(self.merged.iter().copied())
    }

    /// Whether an entry with this number means it.
    #[inline]
    pub fn has_number(&self, number: u16) -> bool {
        self.number == number || self.merged.contains(&number)
    }

    /// The same for the same candidates on every node.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// How it chose.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its candidates with their weights, ascending by id.
    pub fn servers(&self) -> &[(ServerId, u16)] {
        &self.servers
    }

    /// Whether a server was one of its candidates.
    #[inline]
    pub fn has_server(&self, server: ServerId) -> bool {
        self.servers
            .binary_search_by_key(&server, |&(id, _)| id)
            .is_ok()
    }

    pub(super) fn is_of(&self, candidates: &Candidates) -> bool {
        self.digest == candidates.digest()
            && self.filter.is_some() == candidates.remembers
            && self.servers.len() == candidates.servers.len()
    }

    /// Connections that name it, as of the last census.
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether nobody needs it any more.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// The connections that were established with it; None if it cannot know them.
    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// The server that it chooses for a flow, if it computes its choice.
    pub(crate) fn computed(&self, request: &Request) -> Option<ServerId> {
        let Chooser { selector, order } = self.chooser.as_ref()?;
        let at = selector.computed(request)?;
        order.get(at as usize).copied()
    }

    pub(super) fn recovered(&self, server: ServerId) -> Recovered {
        Recovered {
            version: self.number,
            server,
        }
    }
}
