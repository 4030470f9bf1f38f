//! Which clients are real: they have answered, which an invented source address never does.
//!
//! Two Bloom filters of fixed size, shared by all workers. What is learnt goes into the younger one; after ten minutes
//! the older one is emptied and becomes the younger. So a client is known for ten to twenty minutes after it last began
//! a connection, or for as long as it has one open (the census sees to that). A filter never forgets too early, but may
//! take a stranger for a known client: one in a thousand with 200,000 clients, one in seven with a million. Budgets for
//! known clients are limited too, so that this costs little.
//!
//! Read only for new flows, written when a connection is established.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::address::Addr;
use crate::hash::FlowHasher;

/// Words of one filter: 512 KiB.
const WORDS: usize = 1 << 16;
/// Bits that are set for one client, all in one word, so that a question is one memory access a filter.
const BITS: u32 = 4;
/// Seconds between two rotations.
const ROTATION: u32 = 600;
/// Tells this use of the table's hash keys from others.
const PURPOSE: u64 = 0x6b6e_6f77_6e00_0001;

type Filter = Box<[AtomicU64]>;

/// See the module's text.
#[derive(Debug)]
pub struct KnownClients {
    filters: [Filter; 2],
    younger: AtomicUsize,
    /// When the filters were rotated last; 0 for never.
    rotated: AtomicU32,
}

impl Default for KnownClients {
    /// Nobody is known.
    fn default() -> KnownClients {
        let empty = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        KnownClients {
            filters: [empty(), empty()],
            younger: AtomicUsize::new(0),
            rotated: AtomicU32::new(0),
        }
    }
}

/// Which word, and which bits of it.
fn place(hasher: &FlowHasher, client: Addr) -> (usize, u64) {
    let hash = hasher.address(client, PURPOSE);
    let bits = (0..BITS).fold(0, |bits, n| bits | 1u64 << (hash >> (6 * n) & 63));
    (hash as usize >> 32 & (WORDS - 1), bits)
}

impl KnownClients {
    /// The client is real. `hasher` has the keys of the connection table, here and in [`KnownClients::contains`].
    pub fn insert(&self, hasher: &FlowHasher, client: Addr) {
        let (word, bits) = place(hasher, client);
        let word = &self.filters[self.younger.load(Ordering::Relaxed) & 1][word];
        if word.load(Ordering::Relaxed) & bits != bits {
            word.fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// Whether the client is known to be real.
    pub fn contains(&self, hasher: &FlowHasher, client: Addr) -> bool {
        let (word, bits) = place(hasher, client);
        self.filters
            .iter()
            .any(|filter| filter[word].load(Ordering::Relaxed) & bits == bits)
    }

    /// Forgets the older half if it is time to, at `now` (seconds since boot); true then, and the first time. Whoever
    /// has open connections should be entered again. Not for a worker.
    pub fn rotate(&self, now: u32) -> bool {
        let rotated = self.rotated.load(Ordering::Relaxed);
        if rotated != 0 && now.wrapping_sub(rotated) < ROTATION {
            return false;
        }
        self.rotated.store(now.max(1), Ordering::Relaxed);
        if rotated != 0 {
            let older = 1 - (self.younger.load(Ordering::Relaxed) & 1);
            for word in &self.filters[older] {
                word.store(0, Ordering::Relaxed);
            }
            self.younger.store(older, Ordering::Relaxed);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::FIXED_KEYS;

    fn client(n: u32) -> Addr {
        Addr::v4((0x0a00_0000 + n).to_be_bytes())
    }

    #[test]
    fn known_for_one_to_two_rotations() {
        let (clients, hasher) = (KnownClients::default(), FlowHasher::new(FIXED_KEYS));
        assert!(clients.rotate(1000), "the first time");
        clients.insert(&hasher, client(1));
        // (seconds later, whether it is a rotation, whether client 1 is known then)
        for (later, rotates, known) in [
            (0, false, true),
            (599, false, true),
            (600, true, true),
            (1199, false, true),
            (1200, true, false),
        ] {
            assert_eq!(clients.rotate(1000 + later), rotates, "{later}");
            assert_eq!(clients.contains(&hasher, client(1)), known, "{later}");
        }
    }

    #[test]
    fn nobody_is_forgotten_and_few_strangers_pass() {
        let (clients, hasher) = (KnownClients::default(), FlowHasher::new(FIXED_KEYS));
        (0..200_000).for_each(|n| clients.insert(&hasher, client(n)));
        assert!((0..200_000).all(|n| clients.contains(&hasher, client(n))));
        let strangers = 1_000_000..1_200_000;
        let passed = strangers
            .filter(|&n| clients.contains(&hasher, client(n)))
            .count();
        // 3 clients a word in the mean: one in a thousand expected.
        assert!(passed < 600, "{passed} of 200000");
    }
}
