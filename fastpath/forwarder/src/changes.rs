//! What the workers tell the thread that talks to the peer: which entries have changed, and which connections have ended
//! before their time. Packets of connections in full flow write nothing here.
//!
//! ```text
//!   worker 0..n ──Ring (one writer, one reader)──▶ thread of the peer
//! ```
//!
//! A ring that is full loses what comes, and says so once: then the whole table has to be looked at. The memory is fixed,
//! neither side waits for the other.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::address::Addr;
use crate::spec::{RuleId, ServerId};
use crate::table::{Identity, State};

/// Places of a ring: at 10,000 connections a second on one worker, the reader may be away for a third of a second.
const PLACES: u32 = 8192;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// An entry is other than it was.
    Entry(u32),
    /// A connection was ended while it could have gone on.
    Ended(Ended),
}

/// What a connection that has ended is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The client's address.
    pub client: Addr,
    /// The client's port.
    pub client_port: u16,
    /// The VIP's port.
    pub vip_port: u16,
    /// Protocol number.
    pub protocol: u8,
    /// Index into the rule's `vips`.
    pub vip_index: u8,
    /// The rule.
    pub rule: RuleId,
    /// The server.
    pub server: ServerId,
}

impl From<&Identity> for Ended {
    fn from(identity: &Identity) -> Ended {
        Ended {
            client: identity.client,
            client_port: identity.client_port,
            vip_port: identity.vip_port,
            protocol: identity.protocol,
            vip_index: identity.vip_index,
            rule: identity.rule,
            server: identity.server,
        }
    }
}

/// The number of no entry: the place holds a connection that has ended.
const ENDED: u64 = u64::MAX;

/// Four words: entry number, or client, ports and the like, ids.
#[derive(Debug, Default)]
struct Place([AtomicU64; 5]);

impl Place {
    fn put(&self, change: &Change) {
        let words = match change {
            Change::Entry(entry) => [u64::from(*entry), 0, 0, 0, 0],
            Change::Ended(it) => [
                ENDED,
                it.client.low(),
                it.client.high(),
                u64::from(it.client_port)
                    | u64::from(it.vip_port) << 16
                    | u64::from(it.protocol) << 32
                    | u64::from(it.vip_index) << 40,
                u64::from(it.rule) | u64::from(it.server) << 32,
            ],
        };
        let count = if words[0] == ENDED { 5 } else { 1 };
        for (place, word) in self.0.iter().zip(words).take(count) {
            place.store(word, Ordering::Relaxed);
        }
    }

    fn get(&self) -> Change {
        let [entry, low, high, ports, ids] = self.0.each_ref().map(|it| it.load(Ordering::Relaxed));
        match entry {
            ENDED => Change::Ended(Ended {
                client: Addr(u128::from(high) << 64 | u128::from(low)),
                client_port: ports as u16,
                vip_port: (ports >> 16) as u16,
                protocol: (ports >> 32) as u8,
                vip_index: (ports >> 40) as u8,
                rule: ids as u32,
                server: (ids >> 32) as u32,
            }),
            entry => Change::Entry(entry as u32),
        }
    }
}

/// Changes of one worker. The numbers only grow, and wrap around.
#[derive(Debug)]
#[repr(align(64))]
struct Ring {
    written: AtomicU32,
    read: AtomicU32,
    missed: AtomicBool,
    places: Box<[Place]>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Changes {
    on: AtomicBool,
    rings: Box<[Ring]>,
}

impl Changes {
    /// For this many workers; switched off.
    pub fn new(workers: usize) -> Changes {
        let ring = || Ring {
            written: AtomicU32::new(0),
            read: AtomicU32::new(0),
            missed: AtomicBool::new(false),
            places: (0..PLACES).map(|_| Place::default()).collect(),
        };
        Changes {
            on: AtomicBool::new(false),
            rings: (0..workers).map(|_| ring()).collect(),
        }
    }

    /// Whether somebody reads.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Says whether somebody reads from now on.
    pub fn switch(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Notes a change. Only `worker` itself may.
    #[cold]
    pub fn note(&self, worker: usize, change: &Change) {
        let Some(ring) = self.rings.get(worker) else {
            return;
        };
        let written = ring.written.load(Ordering::Relaxed);
        if written.wrapping_sub(ring.read.load(Ordering::Acquire)) >= PLACES {
            ring.missed.store(true, Ordering::Relaxed);
            return;
        }
        ring.places[(written % PLACES) as usize].put(change);
        ring.written
            .store(written.wrapping_add(1), Ordering::Release);
    }

    /// Takes everything that was noted; true if something was missed. Only one thread may.
    pub fn take(&self, mut each: impl FnMut(Change)) -> bool {
        let mut missed = false;
        for ring in &self.rings {
            let mut read = ring.read.load(Ordering::Relaxed);
            let written = ring.written.load(Ordering::Acquire);
            while read != written {
                each(ring.places[(read % PLACES) as usize].get());
                read = read.wrapping_add(1);
                ring.read.store(read, Ordering::Release);
            }
            missed |=
                ring.missed.load(Ordering::Relaxed) && ring.missed.swap(false, Ordering::Relaxed);
        }
        missed
    }
}

/// What of a state the peer needs to know: as long as this stays the same, nothing has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is told of it.
    Embryonic,
    /// It is open, from one side at least.
    Open,
    /// Both ends have closed, or one has reset it.
    Done,
    /// A claim.
    Claim,
}

impl Phase {
    /// That of a state.
    pub const fn of(state: State) -> Phase {
        match state {
            State::SynReceived | State::Fresh | State::Offered => Phase::Embryonic,
            State::Established | State::FinWait | State::CloseWait | State::Flowing => Phase::Open,
            State::LastAck | State::TimeWait | State::Close => Phase::Done,
            State::Persistence => Phase::Claim,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(port: u16) -> Change {
        Change::Ended(Ended {
            client: Addr(u128::MAX - 7),
            client_port: port,
            vip_port: 0xfffe,
            protocol: 132,
            vip_index: 9,
            rule: (1 << 24) - 1,
            server: (1 << 28) - 1,
        })
    }

    fn taken(changes: &Changes) -> (Vec<Change>, bool) {
        let mut all = Vec::new();
        let missed = changes.take(|change| all.push(change));
        (all, missed)
    }

    #[test]
    fn what_is_noted_is_taken_once_and_in_order() {
        let changes = Changes::new(2);
        assert!(!changes.is_on());
        changes.note(1, &Change::Entry(7));
        changes.note(0, &ended(1));
        changes.note(1, &ended(2));
        changes.note(1, &Change::Entry(u32::MAX));
        changes.note(2, &Change::Entry(1));
        let expected = vec![
            ended(1),
            Change::Entry(7),
            ended(2),
            Change::Entry(u32::MAX),
        ];
        assert_eq!(taken(&changes), (expected, false));
        assert_eq!(taken(&changes), (vec![], false));
    }

    #[test]
    fn a_full_ring_says_that_something_was_missed_and_goes_on() {
        let changes = Changes::new(1);
        for round in 0..3 {
            (0..PLACES + 5).for_each(|n| changes.note(0, &Change::Entry(n)));
            let (all, missed) = taken(&changes);
            assert!(missed && all.len() == PLACES as usize, "round {round}");
            changes.note(0, &Change::Entry(round));
            assert_eq!(taken(&changes), (vec![Change::Entry(round)], false));
        }
    }

    #[test]
    fn reader_and_writer_at_once() {
        const MANY: u32 = 200_000;
        let changes = Changes::new(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..MANY {
                    let before = changes.rings[0].written.load(Ordering::Relaxed);
                    while changes.rings[0].written.load(Ordering::Relaxed) == before {
                        changes.note(0, &Change::Entry(n));
                    }
                }
            });
            let mut next = 0;
            while next < MANY {
                changes.take(|change| {
                    assert_eq!(change, Change::Entry(next));
                    next += 1;
                });
            }
        });
    }
}
