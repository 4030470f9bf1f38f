//! A Bloom filter of (flow, server) pairs that any number of workers fill at once.
//!
//! It is *blocked* (Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007): the flow alone
//! chooses a block of one cache line, flow and server together choose one bit in each of its eight words. So a question
//! costs one cache line however many servers are asked about. At [`BITS_A_FLOW`] bits a flow about one pair in a
//! thousand that was never entered is found nevertheless, at half that load one in a hundred thousand.
//!
//! Nothing can be taken out of a Bloom filter, so it comes in two *halves*. Flows are entered into the younger one;
//! [`Filter::rotate`] clears the older one and makes it the younger, and the census then enters the flows that live
//! anew. What the census does not know (flows whose entry was lost, or that began on a peer) is remembered for one to
//! two rotations.
//!
//! It also comes in *levels*, each four times as large as the one before, of which a filter has those that it needed so
//! far. Their sizes are the same everywhere, so that filters of two nodes can be merged level by level.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::hash::{FIXED_KEYS, fold};
use crate::spec::ServerId;

/// Bits of a half for each flow of its level.
pub const BITS_A_FLOW: usize = 16;
/// Flows that the halves of each level are made for.
pub const LEVELS: [u32; 9] = [
    1 << 8,
    1 << 10,
    1 << 12,
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
];
/// 64-bit words in a block, and bits set for a pair.
pub const WORDS: usize = 8;
/// Share of bits set, in thousandths, at which a half is as full as it was made for: 1 - exp(-8/16).
pub const FULL: u32 = 393;

/// Share of bits set, in thousandths, from which on a half says yes to one in fifty who were never entered.
pub const SATURATED: u32 = 600;

/// Blocks in a half of a level.
pub const fn blocks(level: usize) -> usize {
    LEVELS[level] as usize * BITS_A_FLOW / (WORDS * 64)
}

/// The smallest level for so many flows; the largest there is if none suffices.
pub fn level_for(flows: u32) -> usize {
    LEVELS
        .iter()
        .position(|&size| size >= flows)
        .unwrap_or(LEVELS.len() - 1)
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Block([AtomicU64; WORDS]);

#[derive(Debug)]
struct Half {
    blocks: Box<[Block]>,
    /// Whether anything was entered since it was cleared; spares questions their cache line.
    used: AtomicBool,
}

#[derive(Debug)]
struct Level {
    halves: [Half; 2],
    younger: AtomicU8,
}

/// A flow as filters know it; the same on every node.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    place: u64,
    bits: u64,
}

impl Key {
    /// Of a flow, by its hash with [`FIXED_KEYS`].
    #[inline]
    pub fn of(flow: u64) -> Key {
        Key {
            place: fold(flow ^ FIXED_KEYS[1], FIXED_KEYS[2]),
            bits: flow.rotate_left(23) ^ FIXED_KEYS[3],
        }
    }

    /// One bit for each word of the block.
    #[inline(always)]
    fn pattern(self, server: ServerId) -> u64 {
        fold(
            self.bits ^ server as u64,
            FIXED_KEYS[0] ^ (server as u64) << 32,
        )
    }

    #[inline(always)]
    fn bit(pattern: u64, word: usize) -> u64 {
        1 << (pattern >> (word * 6) & 63)
    }
}

impl Half {
    fn new(level: usize) -> Half {
        Half {
            blocks: (0..blocks(level)).map(|_| Block::default()).collect(),
            used: AtomicBool::new(false),
        }
    }

    #[inline(always)]
    fn block(&self, key: Key) -> &Block {
        &self.blocks[((key.place as u128 * self.blocks.len() as u128) >> 64) as usize]
    }

    #[inline]
    fn insert(&self, key: Key, server: ServerId) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        let pattern = key.pattern(server);
        for (n, word) in self.block(key).0.iter().enumerate() {
            let bit = Key::bit(pattern, n);
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    fn clear(&self) {
        if self.used.swap(false, Ordering::Relaxed) {
            self.words()
                .for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }

    fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        self.blocks.iter().flat_map(|block| &block.0)
    }

    /// Share of bits set, in thousandths.
    fn fill(&self) -> u32 {
        if !self.used.load(Ordering::Relaxed) {
            return 0;
        }
        let set: u64 = self
            .words()
            .map(|word| word.load(Ordering::Relaxed).count_ones() as u64)
            .sum();
        (set * 1000 / (self.blocks.len() * WORDS * 64) as u64) as u32
    }
}

impl Level {
    fn new(level: usize) -> Level {
        Level {
            halves: [Half::new(level), Half::new(level)],
            younger: AtomicU8::new(0),
        }
    }

    #[inline(always)]
    fn younger(&self) -> &Half {
        &self.halves[(self.younger.load(Ordering::Relaxed) & 1) as usize]
    }

    /// Empties the older half and gives its number.
    fn clear_older(&self) -> u8 {
        let older = self.younger.load(Ordering::Relaxed) & 1 ^ 1;
        self.halves[older as usize].clear();
        older
    }

    fn rotate(&self) {
        let older = self.clear_older();
        self.younger.store(older, Ordering::Relaxed);
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Filter {
    levels: [OnceLock<Level>; LEVELS.len()],
    active: AtomicU8,
}

impl Filter {
    /// An empty filter that begins with this level, below `LEVELS.len()`.
    pub fn new(level: usize) -> Filter {
        let filter = Filter {
            levels: Default::default(),
            active: AtomicU8::new(level as u8),
        };
        filter.level(level);
        filter
    }

    /// The level that flows are entered into.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed) as usize % LEVELS.len()
    }

    fn level(&self, level: usize) -> &Level {
        self.levels[level].get_or_init(|| Level::new(level))
    }

    /// Enters a flow. By any worker.
    #[inline]
    pub fn insert(&self, key: Key, server: ServerId) {
        if let Some(level) = self.levels[self.active()].get() {
            level.younger().insert(key, server);
        }
    }

    /// A question about one flow: see [`Question::asks`].
    #[inline]
    pub fn question(&self, key: Key) -> Question {
        let mut question = Question {
            key,
            blocks: [[0; WORDS]; 2 * LEVELS.len()],
            count: 0,
        };
        let halves = self
            .levels
            .iter()
            .filter_map(|level| level.get())
            .flat_map(|level| &level.halves);
        for half in halves.filter(|half| half.used.load(Ordering::Relaxed)) {
            let block = &mut question.blocks[question.count];
            for (copy, word) in block.iter_mut().zip(&half.block(key).0) {
                *copy = word.load(Ordering::Relaxed);
            }
            question.count += 1;
        }
        question
    }

    /// Whether the pair was entered; perhaps also if it was not.
    pub fn contains(&self, key: Key, server: ServerId) -> bool {
        self.question(key).asks(server)
    }

    /// Share of bits set in the half that flows are entered into, in thousandths. Reads all of it.
    pub fn fill(&self) -> u32 {
        self.levels[self.active()]
            .get()
            .map_or(0, |level| level.younger().fill())
    }

    /// Forgets what was entered before the last rotation.
    pub fn rotate(&self) {
        self.levels
            .iter()
            .filter_map(|level| level.get())
            .for_each(Level::rotate);
    }

    /// Forgets at once what was entered before the last rotation.
    pub fn clear_older(&self) {
        for level in self.levels.iter().filter_map(|level| level.get()) {
            level.clear_older();
        }
    }

    /// Has flows entered into this level from now on. Allocates.
    pub fn grow(&self, level: usize) {
        self.level(level);
        self.active.store(level as u8, Ordering::Relaxed);
    }

    /// Enters all that another filter holds.
    pub fn absorb(&self, other: &Filter) {
        for (n, level) in other.levels.iter().enumerate() {
            let Some(level) = level.get() else { continue };
            for half in &level.halves {
                if half.used.load(Ordering::Relaxed) {
                    let words = half.words().map(|word| word.load(Ordering::Relaxed));
                    self.merge(n, words);
                }
            }
        }
        if other.active() > self.active() {
            self.grow(other.active());
        }
    }

    /// The levels that hold anything, each with the words of both halves together.
    pub fn words(&self) -> impl Iterator<Item = (usize, impl Iterator<Item = u64>)> {
        self.levels.iter().enumerate().filter_map(|(n, level)| {
            let level = level.get()?;
            let [a, b] = &level.halves;
            let used = a.used.load(Ordering::Relaxed) || b.used.load(Ordering::Relaxed);
            let words = a
                .words()
                .zip(b.words())
                .map(|(a, b)| a.load(Ordering::Relaxed) | b.load(Ordering::Relaxed));
            used.then_some((n, words))
        })
    }

    /// Sets the bits of `words` in a level, beginning with its first word. Allocates.
    pub fn merge(&self, level: usize, words: impl Iterator<Item = u64>) {
        let half = self.level(level).younger();
        half.used.store(true, Ordering::Relaxed);
        for (mine, word) in half.words().zip(words) {
            if word != 0 {
                mine.fetch_or(word, Ordering::Relaxed);
            }
        }
    }

    /// Bytes of memory of its bits.
    pub fn bytes(&self) -> usize {
        (0..LEVELS.len())
            .filter(|&level| self.levels[level].get().is_some())
            .map(|level| 2 * blocks(level) * size_of::<Block>())
            .sum()
    }
}

/// All that a filter knows about one flow, so that many servers can be asked about.
#[derive(Debug)]
pub struct Question {
    key: Key,
    blocks: [[u64; WORDS]; 2 * LEVELS.len()],
    count: usize,
}

impl Question {
    /// Whether the flow went to this server; perhaps also if it did not.
    #[inline]
    pub fn asks(&self, server: ServerId) -> bool {
        let pattern = self.key.pattern(server);
        self.blocks[..self.count].iter().any(|block| {
            block
                .iter()
                .enumerate()
                .all(|(n, word)| word & Key::bit(pattern, n) != 0)
        })
    }

    /// Whether nothing can be found.
    pub fn is_empty(&self) -> bool {
        self.blocks[..self.count]
            .iter()
            .all(|block| block.contains(&0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flow(n: u32) -> Key {
        Key::of(fold(n as u64 ^ 0x1234_5678, 0x9e37_79b9_7f4a_7c15))
    }

    /// Pairs that were never entered and are found, in a million.
    fn found_in_a_million(filter: &Filter) -> u32 {
        (0..1_000_000)
            .filter(|&n| filter.contains(flow(0x8000_0000 + n), 1 + n % 7))
            .count() as u32
    }

    #[test]
    fn false_positives_stay_within_the_bound() {
        let level = 4;
        let filter = Filter::new(level);
        let enter = |range: std::ops::Range<u32>| {
            range.for_each(|n| filter.insert(flow(n), 1 + n % 7));
        };
        let size = LEVELS[level];
        assert_eq!(found_in_a_million(&filter), 0);
        enter(0..size / 2);
        assert!(found_in_a_million(&filter) < 50, "half full");
        enter(size / 2..size);
        assert!(found_in_a_million(&filter) < 2000, "full");
        assert!(filter.fill().abs_diff(FULL) <= 3, "{}", filter.fill());
        assert!((0..size).all(|n| filter.contains(flow(n), 1 + n % 7)));
        // Another server of a flow that is there is as unlikely as any other pair.
        let others = (0..size).filter(|&n| filter.contains(flow(n), 100)).count();
        assert!((others as f64) < 0.003 * size as f64, "{others}");
    }

    #[test]
    fn a_flow_is_remembered_for_one_to_two_rotations() {
        let filter = Filter::new(0);
        filter.insert(flow(1), 5);
        filter.rotate();
        assert!(filter.contains(flow(1), 5));
        filter.insert(flow(2), 5);
        filter.rotate();
        assert!(!filter.contains(flow(1), 5));
        assert!(filter.contains(flow(2), 5));
        filter.rotate();
        assert!(!filter.contains(flow(2), 5) && filter.fill() == 0);
    }

    #[test]
    fn growing_loses_nothing_until_two_rotations_later() {
        let filter = Filter::new(0);
        filter.insert(flow(1), 5);
        filter.grow(3);
        filter.insert(flow(2), 6);
        assert!(filter.contains(flow(1), 5) && filter.contains(flow(2), 6));
        filter.rotate();
        assert!(filter.contains(flow(1), 5) && filter.contains(flow(2), 6));
        filter.rotate();
        assert!(!filter.contains(flow(1), 5) && !filter.contains(flow(2), 6));
        assert_eq!(filter.bytes(), 2 * (512 + 32_768));
    }

    #[test]
    fn many_workers_enter_at_once() {
        let filter = Filter::new(2);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let filter = &filter;
                scope.spawn(move || (0..500).for_each(|n| filter.insert(flow(n * 4 + worker), 9)));
            }
        });
        assert!((0..2000).all(|n| filter.contains(flow(n), 9)));
    }

    proptest! {
        #[test]
        fn a_union_contains_what_either_contains(
            a in proptest::collection::vec((any::<u32>(), 1u32..50), 0..300),
            b in proptest::collection::vec((any::<u32>(), 1u32..50), 0..300),
            levels in (0usize..3, 0usize..3),
        ) {
            let (left, right) = (Filter::new(levels.0), Filter::new(levels.1));
            a.iter().for_each(|&(n, server)| left.insert(flow(n), server));
            b.iter().for_each(|&(n, server)| right.insert(flow(n), server));
            left.absorb(&right);
            for &(n, server) in a.iter().chain(&b) {
                prop_assert!(left.contains(flow(n), server));
            }
            prop_assert_eq!(left.active(), levels.0.max(levels.1));
        }
    }
}
