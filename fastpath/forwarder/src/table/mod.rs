//! The connection table: shared memory, sized once, lock-free.
//!
//! A header, an index and the entries, each of which has a hot and a cold part. The index has buckets of one cache line: fifteen slots of 32 bits and a count of
//! how many connections had to overflow from here into the buckets behind. A slot holds an entry's number and some
//! bits of the hash. A connection has one slot for each direction that passes through us, so both directions of a NAT
//! flow find one entry, on whichever worker they arrive: 48 bytes of entry and 16 of index a connection.
//!
//! Entering a connection takes no lock. The entry is *pending* while its slots are placed; whoever finds another
//! pending entry of the same key aborts it or yields to it, by the order of their numbers, so exactly one becomes
//! *live*. A NAT source port is free when no entry with that reverse key exists: the table itself is the allocator,
//! and so survives whatever kills the workers.
//!
//! Removal marks the entry *dead*, takes its slots out, and gives it back once every worker has finished the batch
//! that it was in ([`Table::quiesce`]).

mod entry;
mod evict;
mod insert;
mod memory;
mod rehearsal;
mod sweep;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

pub(crate) use entry::Hot;
use entry::{Cold, Entry, Status, Word};
pub use entry::{
    Connection, Direction, Identity, LONGEST_IDLE, MAX_LANE, MAX_POOL_VERSION, MAX_RULE_ID,
    MAX_SERVER_ID, NO_LANE, State,
};
pub use evict::Limbo;
pub use insert::{Candidate, InsertError};
pub use memory::{Region, TableError};
pub(crate) use memory::{prefetch, prefetch_lines};
pub use sweep::{Sweep, Sweeper, Swept};

use crate::hash::FlowHasher;

/// Most workers that may share a table.
pub const MAX_WORKERS: usize = 64;

/// The number by which a thread that is no worker calls [`Table::enter`] and [`Table::quiesce`]. There is one.
pub const VISITOR: usize = MAX_WORKERS;
/// Those whose progress is watched: workers and the visitor.
const WATCHED: usize = MAX_WORKERS + 1;

const SLOTS: usize = 15;
/// Buckets behind its own in which a connection may be placed.
const MAX_OVERFLOW: usize = 8;

/// A cache line of the index.
#[repr(C, align(64))]
struct Bucket {
    slots: [AtomicU32; SLOTS],
    /// Connections whose own bucket is this one and that lie in a later one.
    overflowed: AtomicU32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// First bytes of the memory. Little-endian on every machine that this runs on; `MAGIC` fails otherwise.
#[repr(C, align(64))]
struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    capacity: AtomicU32,
    keys: [AtomicU64; 4],
    /// Entries below this number have been used at least once.
    high_water: AtomicU32,
}

/// Worker-private progress marks: odd while a batch is being processed.
#[repr(align(64))]
struct Progress(AtomicU64);

/// See the module's text.
pub struct Table {
    header: &'static Header,
    buckets: &'static [Bucket],
    hot: &'static [Hot],
    cold: &'static [Cold],
    tag_shift: u32,
    hasher: FlowHasher,
    /// First free entry plus one, below a tag that changes with every operation (against ABA).
    free: AtomicU64,
    free_count: AtomicU32,
    progress: Box<[Progress]>,
    embryos: evict::Embryos,
    /// Set if nothing is to change.
    rehearsal: Option<rehearsal::Rehearsal>,
    /// Keeps the memory behind the three references alive; dropped last.
    _region: Region,
}

/// A found connection.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Number of its entry.
    pub index: u32,
    /// Where in its life the connection is.
    pub state: State,
    /// Which of its two keys matched.
    pub direction: Direction,
}

impl Table {
    /// Most connections that it can hold.
    pub fn capacity(&self) -> u32 {
        self.hot.len() as u32
    }

    /// Entries that are in use, in limbo included.
    pub fn used(&self) -> u32 {
        self.high_water()
            .saturating_sub(self.free_count.load(Ordering::Relaxed))
    }

    /// Bytes of memory a connection, index included, header not.
    pub fn bytes_per_connection(&self) -> f64 {
        let bytes = size_of_val(self.hot) + size_of_val(self.cold) + size_of_val(self.buckets);
        bytes as f64 / self.hot.len() as f64
    }

    /// The hash by which packets find their connections; its keys live in the table, so that it stays the same for
    /// whoever maps it.
    pub fn hasher(&self) -> FlowHasher {
        self.hasher
    }

    /// Entries below this number have been used at least once.
    pub fn high_water(&self) -> u32 {
        self.header
            .high_water
            .load(Ordering::Acquire)
            .min(self.capacity())
    }

    /// Says that `worker` begins a batch. Until [`Table::quiesce`], no entry that it finds is given to another
    /// connection.
    #[inline]
    pub fn enter(&self, worker: usize) {
        let mark = &self.progress[worker].0;
        mark.store(mark.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that `worker` holds no reference to any entry any more.
    #[inline]
    pub fn quiesce(&self, worker: usize) {
        let mark = &self.progress[worker].0;
        mark.store((mark.load(Ordering::Relaxed) | 1) + 1, Ordering::Release);
    }

    /// Both parts of an entry.
    #[inline(always)]
    fn entry(&self, index: u32) -> Entry<'_> {
        Entry {
            hot: &self.hot[index as usize],
            cold: &self.cold[index as usize],
        }
    }

    /// The hot part of an entry.
    #[inline(always)]
    pub(crate) fn hot(&self, index: u32) -> Option<&Hot> {
        self.hot.get(index as usize)
    }

    /// An entry number, if there is such an entry.
    #[inline(always)]
    fn checked(&self, index: u32) -> Option<u32> {
        (index < self.capacity()).then_some(index)
    }

    #[inline(always)]
    fn home(&self, hash: u32) -> usize {
        ((hash as u64 * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline(always)]
    fn bucket(&self, home: usize, step: usize) -> &Bucket {
        let at = home + step;
        &self.buckets[if at >= self.buckets.len() {
            at - self.buckets.len()
        } else {
            at
        }]
    }

    #[inline(always)]
    fn slot(&self, hash: u32, index: u32) -> u32 {
        (hash << self.tag_shift) | (index + 1)
    }

    /// The slot value's entry number, which must be within the table even if the memory was damaged.
    #[inline(always)]
    fn slot_index(&self, slot: u32) -> Option<u32> {
        let index = (slot & ((1 << self.tag_shift) - 1)).wrapping_sub(1);
        (index < self.capacity()).then_some(index)
    }

    /// Fetches the index line for `hash` into the cache.
    #[inline(always)]
    pub fn prefetch_bucket(&self, hash: u32) {
        memory::prefetch(&self.buckets[self.home(hash)]);
    }

    /// The entry that probably belongs to `hash`: the first in its own bucket with the same tag.
    #[inline(always)]
    pub fn candidate(&self, hash: u32) -> Option<u32> {
        let tag = hash << self.tag_shift;
        let mask = !((1u32 << self.tag_shift) - 1);
        let bucket = &self.buckets[self.home(hash)];
        let mut matches = memory::matching(bucket, mask, tag);
        loop {
            let slot = bucket.slots.get(matches.trailing_zeros() as usize)?;
            // An empty slot looks like tag 0.
            let value = slot.load(Ordering::Relaxed);
            if value != 0 {
                return self.slot_index(value);
            }
            matches &= matches - 1;
        }
    }

    /// Finds the connection whose forward or reverse key has this hash and that `is_it` recognises.
    #[inline(always)]
    pub fn find(
        &self,
        hash: u32,
        mut is_it: impl FnMut(&Connection, Direction) -> bool,
    ) -> Option<Found> {
        self.each_candidate(hash, |index, entry| {
            Table::examine(index, entry, hash, &mut is_it)
        })
    }

    /// The live entry with this number, if one of its keys has this hash, and which one.
    #[inline(always)]
    pub fn peek(&self, index: u32, hash: u32) -> Option<(Connection, Direction)> {
        let entry = self.entry(self.checked(index)?);
        let (forward, reverse) = entry.cold.hashes();
        let direction = if forward == hash {
            Direction::Forward
        } else if reverse == hash {
            Direction::Reverse
        } else {
            return None;
        };
        let (connection, word) = entry.read();
        (word.status() == Status::Live).then_some((connection, direction))
    }

    #[inline(always)]
    fn examine(
        index: u32,
        entry: Entry<'_>,
        hash: u32,
        is_it: &mut impl FnMut(&Connection, Direction) -> bool,
    ) -> Option<Found> {
        let (forward, reverse) = entry.cold.hashes();
        if forward != hash && reverse != hash {
            return None;
        }
        let (connection, word) = entry.read();
        if word.status() != Status::Live {
            return None;
        }
        let direction = Table::matching_direction(entry, hash, word, |direction| {
            is_it(&connection, direction)
        })?;
        Some(Found {
            index,
            state: connection.state,
            direction,
        })
    }

    #[inline(always)]
    fn matching_direction(
        entry: Entry<'_>,
        hash: u32,
        word: Word,
        mut is_it: impl FnMut(Direction) -> bool,
    ) -> Option<Direction> {
        let (forward, reverse) = entry.cold.hashes();
        if forward == hash && is_it(Direction::Forward) {
            return Some(Direction::Forward);
        }
        (word.has_reverse() && reverse == hash && is_it(Direction::Reverse))
            .then_some(Direction::Reverse)
    }

    /// Calls `visit` with every entry whose slot carries this hash's tag, until it gives something.
    #[inline(always)]
    fn each_candidate<T>(
        &self,
        hash: u32,
        mut visit: impl FnMut(u32, Entry<'_>) -> Option<T>,
    ) -> Option<T> {
        let home = self.home(hash);
        let tag = hash << self.tag_shift;
        let mask = (1u32 << self.tag_shift) - 1;
        for step in 0..=MAX_OVERFLOW {
            let bucket = self.bucket(home, step);
            for slot in &bucket.slots {
                let value = slot.load(Ordering::Acquire);
                if value & !mask != tag || value == 0 {
                    continue;
                }
                if let Some(index) = self.slot_index(value)
                    && let Some(found) = visit(index, self.entry(index))
                {
                    return Some(found);
                }
            }
            // The count of the home bucket covers all that overflowed from it, however far.
            if self.bucket(home, 0).overflowed.load(Ordering::Acquire) == 0 {
                return None;
            }
        }
        None
    }

    /// The entry's contents if it is still a connection.
    pub fn get(&self, index: u32) -> Option<Connection> {
        let (connection, word) = self.entry(self.checked(index)?).read();
        (word.status() == Status::Live).then_some(connection)
    }

    /// Fetches an entry into the cache.
    #[inline(always)]
    pub fn prefetch(&self, index: u32) {
        if let Some(hot) = self.hot.get(index as usize) {
            memory::prefetch(hot);
        }
    }

    /// Records a packet of the connection; gives its states before and after, or None if it has ended meanwhile. Of
    /// several that make the same change at once, one is told of it.
    #[inline(always)]
    pub fn touch(
        &self,
        index: u32,
        state: impl Fn(State) -> State,
        now: u32,
    ) -> Option<(State, State)> {
        if self.rehearsal.is_some() {
            return self.rehearse_touch(index, state);
        }
        let (old, new) = self.hot[index as usize].touch(state, now)?;
        self.embryos.changed(old, new);
        Some((old, new))
    }

    /// Tells a live entry its lane, if it does not know it.
    #[inline]
    pub fn set_lane(&self, index: u32, lane: u32) {
        if self.rehearsal.is_none() {
            self.hot[index as usize].set_lane(lane);
        }
    }

    /// Whether a live entry knows its lane: a packet of it has come to a worker of this process.
    pub fn has_lane(&self, index: u32) -> bool {
        self.hot(index)
            .is_some_and(|hot| hot.word().lane() != NO_LANE)
    }

    /// Ends a connection: it is not found any more. Gives its last state, or None if somebody else ended it first.
    pub fn kill(&self, index: u32) -> Option<State> {
        if let Some(rehearsal) = &self.rehearsal {
            return self.rehearse_kill(rehearsal, index);
        }
        let word = self.hot[index as usize].transition(Status::Live, Status::Dead)?;
        self.embryos.ended(word.state());
        self.unlink(index);
        Some(word.state())
    }

    /// Takes the entry's slots out of the index.
    fn unlink(&self, index: u32) {
        let entry = self.entry(index);
        let (forward, reverse) = entry.cold.hashes();
        self.remove_slot(forward, index);
        if entry.hot.word().has_reverse() {
            self.remove_slot(reverse, index);
        }
    }

    fn remove_slot(&self, hash: u32, index: u32) {
        let home = self.home(hash);
        let value = self.slot(hash, index);
        for step in 0..=MAX_OVERFLOW {
            for slot in &self.bucket(home, step).slots {
                if slot.load(Ordering::Relaxed) == value
                    && slot
                        .compare_exchange(value, 0, Ordering::SeqCst, Ordering::Relaxed)
                        .is_ok()
                {
                    if step > 0 {
                        self.bucket(home, 0)
                            .overflowed
                            .fetch_sub(1, Ordering::SeqCst);
                    }
                    return;
                }
            }
        }
    }

    /// Calls `visit` with every connection, in no particular order, until it says stop. A connection that begins or
    /// ends meanwhile may or may not be seen. Does not disturb forwarding.
    pub fn each(&self, mut visit: impl FnMut(u32, &Connection) -> std::ops::ControlFlow<()>) {
        for index in 0..self.high_water() {
            let (connection, word) = self.entry(index).read();
            if word.status() == Status::Live && visit(index, &connection).is_break() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
