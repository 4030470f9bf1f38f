//! Counters that one worker writes and anybody reads. They belong to a rule, a server or a worker for its life, not to
//! a snapshot: a new snapshot carries them on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::load::Load;
use crate::verdict::DropReason;

/// A counter with a single writer: an ordinary addition, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning worker may.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! traffic {
    ($($(#[doc = $doc:literal])+ $field:ident;)+) => {
        /// What one worker did for one server of a rule, or for a rule where no server was involved.
        #[derive(Debug, Default)]
        #[repr(align(64))]
        pub struct Traffic { $($(#[doc = $doc])+ pub $field: Counter,)+ }

        /// Sum of [`Traffic`] over workers.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct TrafficTotals { $($(#[doc = $doc])+ pub $field: u64,)+ }

        impl TrafficTotals {
            /// Adds one worker's share.
            pub fn add(&mut self, share: &Traffic) {
                $(self.$field = self.$field.wrapping_add(share.$field.get());)+
            }
        }
    };
}

traffic! {
    /// Packets forwarded, both directions.
    packets;
    /// Bytes forwarded, IP header and up.
    bytes;
    /// Packets dropped.
    dropped_packets;
    /// Bytes of them.
    dropped_bytes;
    /// ICMP errors carried to the right end.
    icmp_processed;
    /// ICMP errors dropped.
    icmp_dropped;
    /// Of the errors carried, those that say "too big".
    too_big_processed;
    /// Of the errors dropped, those that say "too big".
    too_big_dropped;
    /// Connections refused because the table was full.
    no_memory;
    /// Connections refused because all NAT ports were taken.
    no_port;
    /// New flows refused: over the limit a second, or too many embryonic ones.
    refused;
    /// Connections that came to nothing and were ended to make way for others.
    replaced;
    /// Packets that we answered in place of a server that is dead or gone: with a reset or an ICMP error.
    answered;
    /// Connections begun; of one-packet scheduling, every datagram.
    connections;
    /// Connections whose entry was lost and whose server a version of the pool knew.
    recovered;
}

/// The worker whose counters do not count.
pub const NOBODY: usize = usize::MAX;

/// [`Traffic`] of all workers and what the sweeper last counted.
#[derive(Debug)]
pub struct Account {
    workers: Arc<[Traffic]>,
    load: Load,
    /// What does not count.
    nobody: Traffic,
    open: AtomicU32,
    total: AtomicU32,
}

impl Account {
    /// For this many workers.
    pub fn new(workers: usize) -> Account {
        Account {
            workers: (0..workers).map(|_| Traffic::default()).collect(),
            load: Load::default(),
            nobody: Traffic::default(),
            open: AtomicU32::new(0),
            total: AtomicU32::new(0),
        }
    }

    /// Number of workers that it has room for.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Connections at this moment, as the algorithms see them.
    #[inline(always)]
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Whether it has room for this many workers.
    pub fn fits(&self, workers: usize) -> bool {
        self.workers.len() >= workers
    }

    /// One worker's share; for [`NOBODY`] one that is in no sum.
    #[inline(always)]
    pub fn of(&self, worker: usize) -> &Traffic {
        self.workers.get(worker).unwrap_or(&self.nobody)
    }

    /// The shares of all workers, to be kept where they are needed.
    pub(crate) fn shares(&self) -> Arc<[Traffic]> {
        self.workers.clone()
    }

    /// Sum over the workers.
    pub fn totals(&self) -> TrafficTotals {
        let mut totals = TrafficTotals::default();
        self.workers.iter().for_each(|share| totals.add(share));
        totals
    }

    /// Connections that are open, and all that have an entry; as of the last sweep.
    pub fn connections(&self) -> (u32, u32) {
        (
            self.open.load(Ordering::Relaxed),
            self.total.load(Ordering::Relaxed),
        )
    }

    /// Records what a sweep counted.
    pub fn set_connections(&self, open: u32, total: u32) {
        self.open.store(open, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }
}

/// What one worker did in all.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct WorkerCounters {
    /// Packets given to `process`.
    pub packets: Counter,
    /// Bytes of them, Ethernet header and up.
    pub bytes: Counter,
    /// Packets with verdict transmit.
    pub transmitted: Counter,
    /// Packets with verdict unresolved.
    pub unresolved: Counter,
    /// Connections that were ended to make way for others.
    pub replaced: Counter,
    /// Packets with verdict hold; they are counted again when they are processed again.
    pub held: Counter,
    /// Packets with verdict kernel.
    pub kernel: Counter,
    /// Packets with verdict transmit that were sent on, unchanged, to another node: see [`crate::relay`].
    pub relayed: Counter,
    drops: [Counter; DropReason::COUNT],
}

impl WorkerCounters {
    /// Counts a drop. The forwarder counts its own; the caller counts those that happen behind it.
    #[inline(always)]
    pub fn dropped(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }

    /// Drops for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }
}
