//! Traces of the peer's connections: 32 bits for each, by which a packet in mid-connection that nobody here knows finds its
//! server again.
//!
//! A *trace* says that a flow went to a server. Its upper 16 bits are of the flow alone, so that all servers are asked about
//! in one place; the lower 16 of flow and server together. Both are the same on both nodes: the flow is hashed with keys that
//! all have, and a server goes by its *mark*, a hash of what it and its rule stand for ([`crate::peer::Places`]), because
//! numbers of servers are each node's own.
//!
//! Among n traces one that was never told of is found with a probability of n / 2^32, for a flow that is there with another
//! server 2^-16 more. A stray packet makes an entry then and goes to a server that resets it; of two servers that are found
//! for a flow the first is taken, which is the wrong one every other time. With ten servers and 100,000 connections that is
//! one of 6,000 connections.
//!
//! They are kept in three sets, because nobody tells of an end. The peer tells everything that lives in *rounds*: what is told
//! since a round began is in the *younger* set, what was told before in the *older* one, which is forgotten when the round is
//! over. What a peer had told that is another process now is *inherited*: it may have been right, and the new one may not know
//! it any more. It is forgotten when nobody can come back to those connections, as is everything when the peer falls silent.
//!
//! One thread writes, any may ask meanwhile, and none waits for another.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::hash::{FIXED_KEYS, fold};

/// Lower bits of a trace: those that the server has a part in.
const PAIR_BITS: u32 = 16;
/// Places of each level of a set: together some 80 MiB for twelve million traces.
const LEVELS: [usize; 6] = [1 << 10, 1 << 13, 1 << 16, 1 << 19, 1 << 22, 1 << 24];

/// The trace of a flow, by its hash with [`FIXED_KEYS`], that goes to a server with this mark. Never 0.
#[inline]
pub fn trace(flow: u64, mark: u64) -> u32 {
    let prefix = (fold(flow ^ FIXED_KEYS[3], FIXED_KEYS[1]) >> (32 + PAIR_BITS)) as u32;
    let pair = (fold(flow ^ FIXED_KEYS[0], mark ^ FIXED_KEYS[2]) >> (64 - PAIR_BITS)) as u32;
    (prefix << PAIR_BITS | pair).max(1)
}

/// Places that are looked through one behind the other, at least a quarter of them empty.
#[derive(Debug, Default)]
struct Level {
    places: OnceLock<Box<[AtomicU32]>>,
    used: AtomicU32,
}

impl Level {
    fn used(&self) -> u32 {
        self.used.load(Ordering::Acquire)
    }

    /// Its places, if there is anything in them.
    fn places(&self) -> &[AtomicU32] {
        match self.used() {
            0 => &[],
            _ => self.places.get().map_or(&[], |places| places),
        }
    }

    /// The place where a trace is, or else where it would be.
    fn place(places: &[AtomicU32], key: u64, trace: u32) -> Option<(&AtomicU32, bool)> {
        let mask = places.len().checked_sub(1)?;
        // Those of one flow are neighbours. Nobody outside can choose whose neighbours they are.
        let begin = fold(u64::from(trace >> PAIR_BITS) ^ key, FIXED_KEYS[2]) as usize;
        (0..places.len())
            .map(|n| &places[begin.wrapping_add(n) & mask])
            .find_map(|place| match place.load(Ordering::Relaxed) {
                0 => Some((place, false)),
                there if there == trace => Some((place, true)),
                _ => None,
            })
    }

    /// Enters a trace; false if there is no room.
    fn insert(&self, size: usize, key: u64, trace: u32) -> bool {
        let empty = || (0..size).map(|_| AtomicU32::new(0)).collect();
        let places = self.places.get_or_init(empty);
        match Level::place(places, key, trace) {
            Some((_, true)) => true,
            Some((place, false)) if (self.used() as usize) < size / 4 * 3 => {
                place.store(trace, Ordering::Relaxed);
                self.used.store(self.used() + 1, Ordering::Release);
                true
            }
            Some((_, false)) | None => false,
        }
    }

    fn list(&self) -> impl Iterator<Item = u32> {
        let places = self.places().iter();
        let traces = places.map(|it| it.load(Ordering::Relaxed));
        traces.filter(|&trace| trace != 0)
    }

    fn clear(&self) {
        let places = self.places();
        self.used.store(0, Ordering::Release);
        places.iter().for_each(|it| it.store(0, Ordering::Relaxed));
    }
}

/// A set of traces: they are in the level that has room for all, and in the one before while they go there. Whoever looks
/// into levels in their order finds what is in the set all the time.
#[derive(Debug, Default)]
struct Set([Level; LEVELS.len()]);

impl Set {
    fn used(&self) -> u32 {
        self.0.iter().map(Level::used).sum()
    }

    fn contains(&self, key: u64, trace: u32) -> bool {
        self.0.iter().any(|level| {
            let place = Level::place(level.places(), key, trace);
            place.is_some_and(|(_, there)| there)
        })
    }

    /// By the one thread that writes. What the largest level has no room for is left out.
    fn insert(&self, key: u64, trace: u32) {
        let mut at = self.0.iter().rposition(|it| it.used() > 0).unwrap_or(0);
        while !self.0[at].insert(LEVELS[at], key, trace) && at + 1 < LEVELS.len() {
            let (full, larger) = (&self.0[at], &self.0[at + 1]);
            for trace in full.list() {
                larger.insert(LEVELS[at + 1], key, trace);
            }
            full.clear();
            at += 1;
        }
    }

    fn list(&self) -> Vec<u32> {
        self.0.iter().flat_map(Level::list).collect()
    }

    fn clear(&self) {
        self.0.iter().for_each(Level::clear);
    }
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Told since the peer's round began.
    pub younger: u32,
    /// Told before.
    pub older: u32,
    /// Told by a peer that is another process now.
    pub inherited: u32,
}

/// See the module's text. Memory that was needed once is kept.
#[derive(Debug)]
pub struct Traces {
    key: u64,
    younger: Set,
    older: Set,
    inherited: Set,
    round: AtomicU32,
    /// When the peer was heard last, and when the one before it was, in seconds since boot.
    heard: AtomicU32,
    inherited_at: AtomicU32,
}

impl Default for Traces {
    fn default() -> Traces {
        Traces {
            key: RandomState::new().build_hasher().finish(),
            younger: Set::default(),
            older: Set::default(),
            inherited: Set::default(),
            round: AtomicU32::new(0),
            heard: AtomicU32::new(0),
            inherited_at: AtomicU32::new(0),
        }
    }
}

impl Traces {
    /// In the order in which traces go from one to another.
    fn sets(&self) -> [&Set; 3] {
        [&self.younger, &self.older, &self.inherited]
    }

    /// Whether the peer has told of a trace; perhaps also if it has not. By any worker.
    pub fn contains(&self, trace: u32) -> bool {
        let sets = self.sets();
        sets.iter().any(|set| set.contains(self.key, trace))
    }

    /// Whether nobody has told of any.
    pub fn is_empty(&self) -> bool {
        self.sets().iter().all(|set| set.used() == 0)
    }

    /// How many there are.
    pub fn count(&self) -> Count {
        let [younger, older, inherited] = self.sets().map(Set::used);
        Count {
            younger,
            older,
            inherited,
        }
    }

    /// The peer tells of these in this round of its.
    pub fn told(&self, round: u32, traces: &[u32], now: u32) {
        self.heard(now);
        if self.round.swap(round, Ordering::Relaxed) != round {
            self.pour(&self.younger, &self.older);
        }
        self.insert(&self.younger, traces);
    }

    /// The peer has told everything of this round.
    pub fn over(&self, round: u32) {
        if self.round.load(Ordering::Relaxed) == round {
            self.older.clear();
        }
    }

    /// The peer tells of these, which it has been told of by us before we were what we are now, `age` seconds ago.
    pub fn told_again(&self, traces: &[u32], age: u16, now: u32) {
        self.heard(now);
        let then = now.saturating_sub(u32::from(age));
        self.inherited_at.fetch_max(then, Ordering::Relaxed);
        self.insert(&self.inherited, traces);
    }

    /// The peer is there, whatever it says.
    pub fn heard(&self, now: u32) {
        self.heard.store(now, Ordering::Relaxed);
    }

    /// The peer is another process than before.
    pub fn inherit(&self) {
        self.round.store(0, Ordering::Relaxed);
        let heard = self.heard.load(Ordering::Relaxed);
        self.inherited_at.fetch_max(heard, Ordering::Relaxed);
        self.pour(&self.younger, &self.inherited);
        self.pour(&self.older, &self.inherited);
    }

    /// What is inherited, for a peer that may not know it any more, and for how many seconds nobody has confirmed it.
    pub fn inherited(&self, now: u32) -> Option<(Vec<u32>, u16)> {
        let age = now.saturating_sub(self.inherited_at.load(Ordering::Relaxed));
        let list = self.inherited.list();
        (!list.is_empty()).then_some((list, age.min(u32::from(u16::MAX)) as u16))
    }

    /// Forgets what is older than so many seconds.
    pub fn forget(&self, patience: u32, now: u32) {
        let old = |then: &AtomicU32| now.saturating_sub(then.load(Ordering::Relaxed)) > patience;
        if old(&self.inherited_at) {
            self.inherited.clear();
        }
        if old(&self.heard) {
            self.younger.clear();
            self.older.clear();
        }
    }

    fn insert(&self, set: &Set, traces: &[u32]) {
        traces
            .iter()
            .for_each(|&it| set.insert(self.key, it.max(1)));
    }

    /// Whatever is in one set is in another one then, and never in none meanwhile.
    fn pour(&self, from: &Set, into: &Set) {
        self.insert(into, &from.list());
        from.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash and the mark of one of ten servers, well mixed.
    fn pair(n: u64) -> (u64, u64) {
        (fold(n + 1, FIXED_KEYS[0]), fold(n % 10 + 7, FIXED_KEYS[3]))
    }

    fn traces(range: std::ops::Range<u64>) -> Vec<u32> {
        range
            .map(pair)
            .map(|(flow, mark)| trace(flow, mark))
            .collect()
    }

    fn all_there(told: &Traces, range: std::ops::Range<u64>) -> bool {
        traces(range).into_iter().all(|it| told.contains(it))
    }

    #[test]
    fn few_are_found_that_nobody_told_of() {
        let told = Traces::default();
        told.told(1, &traces(0..200_000), 0);
        assert!(all_there(&told, 0..200_000));
        let found = traces(1_000_000..2_000_000)
            .into_iter()
            .filter(|&it| told.contains(it))
            .count();
        // 200,000 / 2^32 of a million: 47 of them, give or take seven.
        assert!(found < 100, "{found}");
        // Another server of a flow that is there: 2^-16 more, which makes three.
        let others = (0..200_000u64)
            .filter(|&n| told.contains(trace(pair(n).0, 12_345)))
            .count();
        assert!(others < 40, "{others}");
    }

    #[test]
    fn what_no_round_confirms_is_forgotten_with_its_end() {
        let told = Traces::default();
        told.told(1, &traces(0..100), 5);
        told.over(1);
        told.told(1, &traces(100..150), 6);
        // The next round tells of some, and of a new one that is told of meanwhile.
        told.told(2, &traces(50..151), 7);
        assert!(all_there(&told, 0..151), "until it is over");
        told.over(1);
        assert!(all_there(&told, 0..151), "an old one's end says nothing");
        told.over(2);
        assert!(all_there(&told, 50..151));
        assert!(!told.contains(traces(0..1)[0]));
        // A round that is not ended, and the next one.
        told.told(3, &traces(200..210), 8);
        told.told(4, &traces(210..220), 9);
        assert!(all_there(&told, 50..151) && all_there(&told, 200..220));
        told.over(4);
        assert_eq!(
            told.count(),
            Count {
                younger: 10,
                ..Count::default()
            }
        );
    }

    #[test]
    fn what_a_peer_told_that_has_died_is_kept_for_as_long_as_somebody_may_come_back() {
        let told = Traces::default();
        told.told(9, &traces(0..10), 100);
        told.told(10, &traces(10..20), 110);
        told.inherit();
        assert_eq!(
            told.count(),
            Count {
                inherited: 20,
                ..Count::default()
            }
        );
        let (mut list, age) = told.inherited(115).unwrap();
        let mut expected = traces(0..20);
        list.sort_unstable();
        expected.sort_unstable();
        assert_eq!((list, age), (expected, 5));
        // The new one begins to count anew.
        told.told(1, &traces(20..30), 120);
        told.forget(10, 120);
        assert!(all_there(&told, 0..30));
        told.forget(10, 121);
        assert_eq!(told.inherited(121), None);
        assert_eq!(
            told.count(),
            Count {
                younger: 10,
                ..Count::default()
            }
        );
        // It tells what it was told by us: they are as old as it says.
        told.told_again(&traces(40..45), 8, 130);
        told.forget(10, 132);
        assert!(all_there(&told, 40..45));
        told.forget(10, 133);
        assert_eq!(
            told.count(),
            Count {
                younger: 10,
                ..Count::default()
            }
        );
        told.heard(140);
        told.forget(10, 150);
        assert!(all_there(&told, 20..30));
        told.forget(10, 151);
        assert_eq!(told.count(), Count::default());
    }

    #[test]
    fn many_ask_while_one_writes() {
        let told = Traces::default();
        told.told(1, &traces(0..1000), 0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert!(all_there(&told, 0..1000), "nothing is away for a moment");
                    }
                });
            }
            for round in 2..20 {
                told.told(round, &traces(0..1000), round);
                told.told(round, &traces(0..u64::from(round) * 2000), round);
                told.over(round);
            }
        });
    }
}
