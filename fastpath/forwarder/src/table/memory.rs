//! The table's memory: layout, first use, and adoption of what a killed process left behind. The only place of this
//! crate with `unsafe`.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::entry::{Cold, Hot, NO_LANE, Status};
use super::evict::Embryos;
use super::{Bucket, Header, MAX_OVERFLOW, Progress, Table, WATCHED};
use crate::hash::{FlowHasher, HashKeys};

const MAGIC: u64 = u64::from_le_bytes(*b"ilbtable");
/// Changes with the layout of header, bucket or entry.
const VERSION: u32 = 3;
/// The header's share of the memory; buckets begin on a page of their own.
const HEADER_BYTES: usize = 4096;
const MIN_CAPACITY: u32 = 16;
const MAX_CAPACITY: u32 = 1 << 28;

/// Why memory cannot serve as a connection table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The capacity is out of range.
    #[error(
        "table size {0} is out of range: allowed are {MIN_CAPACITY} to {MAX_CAPACITY} connections"
    )]
    Capacity(u32),
    /// The memory is too small or not aligned.
    #[error(
        "{given} bytes at {alignment}-byte alignment are no place for {capacity} connections: {needed} bytes are needed, page-aligned"
    )]
    Memory {
        /// Bytes given.
        given: usize,
        /// Largest power of two that divides the address, up to 4096.
        alignment: usize,
        /// Connections wanted.
        capacity: u32,
        /// Bytes needed.
        needed: usize,
    },
    /// The memory holds something else.
    #[error("the memory does not hold a connection table (magic {0:#x})")]
    Magic(u64),
    /// The memory holds a table of another layout.
    #[error(
        "the memory holds a connection table of layout {found}; this program knows layout {VERSION}"
    )]
    Version {
        /// Layout found.
        found: u32,
    },
    /// The memory holds a table of another size.
    #[error("the memory holds a table of {found} connections, not of {wanted}")]
    Size {
        /// Capacity found.
        found: u32,
        /// Capacity wanted.
        wanted: u32,
    },
}

/// Memory for a table, with whatever keeps it mapped.
pub struct Region {
    memory: NonNull<u8>,
    len: usize,
    _owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: the memory is only reached through atomics, and the owner is Send and Sync itself.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// No memory of its own: keeps that of another table alive.
    pub(super) fn of(table: std::sync::Arc<Table>) -> Region {
        Region {
            memory: NonNull::dangling(),
            len: 0,
            _owner: Box::new(table),
        }
    }

    /// Memory that somebody else provides, such as a mapped file.
    ///
    /// # Safety
    /// `memory` must be valid for reads and writes of `len` bytes until `owner` is dropped, and nobody may access it
    /// but through tables or atomically. Memory fresh from the kernel (all zero) is an empty table.
    pub unsafe fn new(
        memory: NonNull<u8>,
        len: usize,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Region {
        Region {
            memory,
            len,
            _owner: owner,
        }
    }

    /// Private memory for a table of `capacity` connections.
    pub fn private(capacity: u32) -> Region {
        let layout = Layout::from_size_align(Table::bytes(capacity), HEADER_BYTES)
            .expect("table size fits memory");
        // SAFETY: the layout is not empty, the header alone has 4096 bytes.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        Region {
            memory,
            len: layout.size(),
            _owner: Box::new(Private {
                memory: memory.as_ptr() as usize,
                layout,
            }),
        }
    }
}

struct Private {
    memory: usize,
    layout: Layout,
}

impl Drop for Private {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `Region::private`, freed once.
        unsafe { dealloc(self.memory as *mut u8, self.layout) }
    }
}

/// Asks the processor to fetch the first `LINES` cache lines of what a reference points to.
#[inline(always)]
pub(crate) fn prefetch_lines<T, const LINES: usize>(place: &T) {
    const LINE: usize = 64;
    const { assert!(size_of::<T>() >= LINES * LINE) };
    let first = std::ptr::from_ref(place).cast::<[u8; LINE]>();
    for line in 0..LINES {
        // SAFETY: the object has at least this many lines.
        prefetch(unsafe { &*first.add(line) });
    }
}

/// Asks the processor to fetch what a reference points to.
#[inline(always)]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint and touches nothing that the program can observe.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// One bit for each of the bucket's slots: set where the bits of `mask` are those of `tag`. The bit of what follows the
/// slots may be set, too. A slot may change at any time, so that a bit is a hint.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn matching(bucket: &Bucket, mask: u32, tag: u32) -> u32 {
    let bits: u32;
    // SAFETY: reads the 64 bytes of the bucket, which are 64-byte aligned, and touches vector registers only. Other
    // threads may write to them meanwhile: in assembly that is four loads of whatever is there, each 32-bit part of
    // which is a value that the slot had.
    unsafe {
        std::arch::asm!(
            "movd {mask}, {mask_word:e}",
            "pshufd {mask}, {mask}, 0",
            "movd {tag}, {tag_word:e}",
            "pshufd {tag}, {tag}, 0",
            "movdqa {a}, [{bucket}]",
            "movdqa {b}, [{bucket} + 16]",
            "movdqa {c}, [{bucket} + 32]",
            "movdqa {d}, [{bucket} + 48]",
            "pand {a}, {mask}",
            "pand {b}, {mask}",
            "pand {c}, {mask}",
            "pand {d}, {mask}",
            "pcmpeqd {a}, {tag}",
            "pcmpeqd {b}, {tag}",
            "pcmpeqd {c}, {tag}",
            "pcmpeqd {d}, {tag}",
            "packssdw {a}, {b}",
            "packssdw {c}, {d}",
            "packsswb {a}, {c}",
            "pmovmskb {bits:e}, {a}",
            mask = out(xmm_reg) _,
            tag = out(xmm_reg) _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            mask_word = in(reg) mask,
            tag_word = in(reg) tag,
            bucket = in(reg) std::ptr::from_ref(bucket),
            bits = lateout(reg) bits,
            options(nostack, readonly, preserves_flags),
        );
    }
    bits
}

/// As above, one slot after the other.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(super) fn matching(bucket: &Bucket, mask: u32, tag: u32) -> u32 {
    let slots = bucket.slots.iter().enumerate();
    slots.fold(0, |bits, (n, slot)| {
        bits | ((slot.load(Ordering::Relaxed) & mask == tag) as u32) << n
    })
}

fn bucket_count(capacity: u32) -> usize {
    (capacity as usize).div_ceil(4).max(2 * MAX_OVERFLOW)
}

/// `len` values of `T` at `offset` of the region.
///
/// # Safety
/// The range must lie within the region and be aligned for `T`, `T` must be made of atomics for which all bit patterns
/// are valid, and the region must outlive the result.
unsafe fn slice<T>(region: &Region, offset: usize, len: usize) -> &'static [T] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(region.memory.as_ptr().add(offset).cast(), len) }
}

impl Table {
    /// Bytes of memory that a table of `capacity` connections needs.
    pub fn bytes(capacity: u32) -> usize {
        HEADER_BYTES
            + bucket_count(capacity) * size_of::<Bucket>()
            + capacity as usize * (size_of::<Hot>() + size_of::<Cold>())
    }

    /// A table in private memory, for tests, benchmarks and simulation.
    pub fn private(capacity: u32, keys: HashKeys) -> Result<Table, TableError> {
        check_capacity(capacity)?;
        Table::attach(Region::private(capacity), capacity, keys)
    }

    /// Makes a table of memory, or adopts the one that is there: connections that were live go on, half-entered and
    /// half-removed ones are cleared away. `keys` should be random; they count only for new memory.
    ///
    /// Nobody else may write to the table meanwhile.
    pub fn attach(region: Region, capacity: u32, keys: HashKeys) -> Result<Table, TableError> {
        check_capacity(capacity)?;
        let needed = Table::bytes(capacity);
        let address = region.memory.as_ptr() as usize;
        if region.len < needed || !address.is_multiple_of(HEADER_BYTES) {
            let alignment = 1 << address.trailing_zeros().min(12);
            return Err(TableError::Memory {
                given: region.len,
                alignment,
                capacity,
                needed,
            });
        }
        let buckets_at = HEADER_BYTES;
        let bucket_count = bucket_count(capacity);
        let hot_at = buckets_at + bucket_count * size_of::<Bucket>();
        let cold_at = hot_at + capacity as usize * size_of::<Hot>();
        // SAFETY: the ranges lie within `needed` bytes one behind the other, page, 64, 32 and 16-byte aligned; all
        // four types are made of atomics; the table keeps the region for as long as it keeps the references.
        let (header, buckets, hot, cold) = unsafe {
            (
                &slice::<Header>(&region, 0, 1)[0],
                slice::<Bucket>(&region, buckets_at, bucket_count),
                slice::<Hot>(&region, hot_at, capacity as usize),
                slice::<Cold>(&region, cold_at, capacity as usize),
            )
        };
        let index_bits = 32 - capacity.leading_zeros();
        let progress = (0..WATCHED).map(|_| Progress(AtomicU64::new(0))).collect();
        let keys = header.open(capacity, keys)?;
        let table = Table {
            header,
            buckets,
            hot,
            cold,
            tag_shift: index_bits,
            hasher: FlowHasher::new(keys),
            free: AtomicU64::new(0),
            free_count: AtomicU32::new(0),
            progress,
            embryos: Embryos::default(),
            rehearsal: None,
            _region: region,
        };
        table.recover();
        Ok(table)
    }

    /// Makes index, entries and free list agree again.
    fn recover(&self) {
        let used = self.high_water();
        // Which directions of an entry the index holds.
        let mut indexed = vec![0u8; used as usize];
        for bucket in self.buckets {
            bucket.overflowed.store(0, Ordering::Relaxed);
        }
        for (at, bucket) in self.buckets.iter().enumerate() {
            for slot in &bucket.slots {
                let value = slot.load(Ordering::Relaxed);
                if value != 0 && !self.keep_slot(value, at, &mut indexed) {
                    slot.store(0, Ordering::Relaxed);
                }
            }
        }
        for index in (0..used).rev() {
            let hot = &self.hot[index as usize];
            let word = hot.word();
            let wanted = if word.has_reverse() { 3 } else { 1 };
            if word.status() == Status::Live {
                if indexed[index as usize] == wanted {
                    // Lanes are numbers of the process that wrote them.
                    hot.set_lane(NO_LANE);
                    self.embryos.began(word.state());
                    continue;
                }
                self.unlink(index);
            }
            self.push_free(index);
        }
    }

    /// Whether a slot found in bucket `at` belongs to a live entry that should be found there.
    fn keep_slot(&self, value: u32, at: usize, indexed: &mut [u8]) -> bool {
        let Some(index) = self
            .slot_index(value)
            .filter(|&index| (index as usize) < indexed.len())
        else {
            return false;
        };
        let entry = self.entry(index);
        let word = entry.hot.word();
        if word.status() != Status::Live {
            return false;
        }
        let (forward, reverse) = entry.cold.hashes();
        let directions = [(1, forward, true), (2, reverse, word.has_reverse())];
        for (bit, hash, present) in directions {
            let home = self.home(hash);
            let step = (at + self.buckets.len() - home) % self.buckets.len();
            if !present
                || indexed[index as usize] & bit != 0
                || self.slot(hash, index) != value
                || step > MAX_OVERFLOW
            {
                continue;
            }
            indexed[index as usize] |= bit;
            if step > 0 {
                self.bucket(home, 0)
                    .overflowed
                    .fetch_add(1, Ordering::Relaxed);
            }
            return true;
        }
        false
    }
}

impl Header {
    /// Writes the header of new memory or checks that of old; gives the keys in force.
    fn open(&self, capacity: u32, keys: HashKeys) -> Result<HashKeys, TableError> {
        match self.magic.load(Ordering::Acquire) {
            0 => {
                self.version.store(VERSION, Ordering::Relaxed);
                self.capacity.store(capacity, Ordering::Relaxed);
                for (place, key) in self.keys.iter().zip(keys) {
                    place.store(key | 1, Ordering::Relaxed);
                }
                // Last, so that a header with the magic is a whole one.
                self.magic.store(MAGIC, Ordering::Release);
            }
            MAGIC => {}
            other => return Err(TableError::Magic(other)),
        }
        let found = self.version.load(Ordering::Relaxed);
        if found != VERSION {
            return Err(TableError::Version { found });
        }
        let found = self.capacity.load(Ordering::Relaxed);
        if found != capacity {
            return Err(TableError::Size {
                found,
                wanted: capacity,
            });
        }
        Ok(std::array::from_fn(|i| {
            self.keys[i].load(Ordering::Relaxed)
        }))
    }
}

fn check_capacity(capacity: u32) -> Result<(), TableError> {
    if (MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity) {
        Ok(())
    } else {
        Err(TableError::Capacity(capacity))
    }
}

/// The region's memory, for tests that map it twice.
#[cfg(test)]
pub(super) fn raw(region: &Region) -> (NonNull<u8>, usize) {
    (region.memory, region.len)
}

/// Overwrites a word behind the header, as a process that dies in mid-write may leave it.
#[cfg(test)]
pub(super) fn damage(region: &Region, at: usize, value: u64) {
    let words = (region.len - HEADER_BYTES) / 8;
    // SAFETY: within the region, aligned, and atomic.
    let memory: &[AtomicU64] = unsafe { slice(region, HEADER_BYTES, words) };
    memory[at % words].store(value, Ordering::Relaxed);
}
