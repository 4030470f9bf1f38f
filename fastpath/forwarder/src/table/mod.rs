//! The connection table: shared memory, sized once, lock-free.
//!
//! A header, an index and the entries. The index has buckets of one cache line: fifteen slots of 32 bits and a count of
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
mod insert;
mod memory;
mod sweep;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

pub use entry::{Connection, Direction, Identity, State};
use entry::{Entry, Status};
pub use insert::{Candidate, InsertError};
pub use memory::{Region, TableError};
pub use sweep::{Sweep, Sweeper, Swept};

use crate::hash::FlowHasher;

/// Most workers that may share a table.
pub const MAX_WORKERS: usize = 64;

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
    entries: &'static [Entry],
    tag_shift: u32,
    hasher: FlowHasher,
    /// First free entry plus one, below a tag that changes with every operation (against ABA).
    free: AtomicU64,
    free_count: AtomicU32,
    progress: Box<[Progress]>,
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
        self.entries.len() as u32
    }

    /// Entries that are in use, in limbo included.
    pub fn used(&self) -> u32 {
        self.high_water()
            .saturating_sub(self.free_count.load(Ordering::Relaxed))
    }

    /// Bytes of memory a connection, index included, header not.
    pub fn bytes_per_connection(&self) -> f64 {
        (size_of_val(self.entries) + size_of_val(self.buckets)) as f64 / self.entries.len() as f64
    }

    /// The hash by which packets find their connections; its keys live in the table, so that it stays the same for
    /// whoever maps it.
    pub fn hasher(&self) -> FlowHasher {
        self.hasher
    }

    fn high_water(&self) -> u32 {
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
        let mask = (1u32 << self.tag_shift) - 1;
        let slots = &self.bucket(self.home(hash), 0).slots;
        let value = slots
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed))
            .find(|value| value & !mask == tag && *value != 0)?;
        self.slot_index(value)
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
        let entry = self.entries.get(index as usize)?;
        let (forward, reverse) = entry.hashes();
        let direction = if forward == hash {
            Direction::Forward
        } else if reverse == hash {
            Direction::Reverse
        } else {
            return None;
        };
        let (connection, meta) = entry.read();
        (meta.status() == Status::Live).then_some((connection, direction))
    }

    #[inline(always)]
    fn examine(
        index: u32,
        entry: &Entry,
        hash: u32,
        is_it: &mut impl FnMut(&Connection, Direction) -> bool,
    ) -> Option<Found> {
        let (forward, reverse) = entry.hashes();
        if forward != hash && reverse != hash {
            return None;
        }
        let (connection, meta) = entry.read();
        if meta.status() != Status::Live {
            return None;
        }
        let direction = Table::matching_direction(entry, hash, meta, |direction| {
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
        entry: &Entry,
        hash: u32,
        meta: entry::Meta,
        mut is_it: impl FnMut(Direction) -> bool,
    ) -> Option<Direction> {
        let (forward, reverse) = entry.hashes();
        if forward == hash && is_it(Direction::Forward) {
            return Some(Direction::Forward);
        }
        (meta.has_reverse() && reverse == hash && is_it(Direction::Reverse))
            .then_some(Direction::Reverse)
    }

    /// Calls `visit` with every entry whose slot carries this hash's tag, until it gives something.
    #[inline(always)]
    fn each_candidate<T>(
        &self,
        hash: u32,
        mut visit: impl FnMut(u32, &Entry) -> Option<T>,
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
                    && let Some(found) = visit(index, &self.entries[index as usize])
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
        let (connection, meta) = self.entries.get(index as usize)?.read();
        (meta.status() == Status::Live).then_some(connection)
    }

    /// Fetches an entry into the cache.
    #[inline(always)]
    pub fn prefetch(&self, index: u32) {
        if let Some(entry) = self.entries.get(index as usize) {
            memory::prefetch(entry);
        }
    }

    /// Records a packet of the connection; false if the connection has ended meanwhile.
    #[inline(always)]
    pub fn touch(&self, index: u32, state: impl Fn(State) -> State, now: u32) -> bool {
        self.entries[index as usize].touch(state, now)
    }

    /// Ends a connection: it is not found any more. False if somebody else did so first.
    pub fn kill(&self, index: u32) -> bool {
        let entry = &self.entries[index as usize];
        if !entry.transition(Status::Live, Status::Dead) {
            return false;
        }
        self.unlink(index);
        true
    }

    /// Takes the entry's slots out of the index.
    fn unlink(&self, index: u32) {
        let entry = &self.entries[index as usize];
        let (forward, reverse) = entry.hashes();
        self.remove_slot(forward, index);
        if entry.meta().has_reverse() {
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
            let (connection, meta) = self.entries[index as usize].read();
            if meta.status() == Status::Live && visit(index, &connection).is_break() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
