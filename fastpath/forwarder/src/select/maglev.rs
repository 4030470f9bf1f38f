//! Maglev's lookup table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4): shares that differ by at most one slot, and little movement when a server comes or goes.

use crate::hash::{FIXED_KEYS, fold};
use crate::spec::ServerId;

/// A lookup table over candidates 0, 1, 2 ….
#[derive(Debug, PartialEq, Eq)]
pub struct Maglev {
    slots: Box<[u32]>,
}

/// Table sizes: primes, each the first with at least a hundred slots a server, as the paper advises for shares within
/// one percent. The largest is the paper's small table.
const SIZES: [u32; 9] = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65537];

impl Maglev {
    /// Table for these candidates. The result depends on their ids, and only through the index on their order.
    /// With more than 650 candidates the slots a server become fewer than a hundred.
    ///
    /// # Panics
    /// If there are no candidates.
    pub fn new(candidates: &[ServerId]) -> Maglev {
        assert!(!candidates.is_empty());
        let wanted = candidates.len().saturating_mul(100);
        let largest = SIZES[SIZES.len() - 1];
        let size = SIZES
            .into_iter()
            .find(|&size| size as usize >= wanted)
            .unwrap_or(largest);
        Maglev::with_size(candidates, size.max(next_prime(candidates.len() as u32)))
    }

    /// Table of `size` slots, a prime not below the number of candidates.
    pub fn with_size(candidates: &[ServerId], size: u32) -> Maglev {
        const EMPTY: u32 = u32::MAX;
        let mut slots = vec![EMPTY; size as usize].into_boxed_slice();
        // Candidates take their turns in the order of their ids, so that the table does not depend on theirs.
        let mut order: Vec<u32> = (0..candidates.len() as u32).collect();
        order.sort_by_key(|&index| candidates[index as usize]);
        let mut places: Vec<(u32, u32)> = order
            .iter()
            .map(|&index| {
                let id = candidates[index as usize] as u64;
                let offset = fold(id ^ FIXED_KEYS[0], FIXED_KEYS[1]) % size as u64;
                let skip = fold(id ^ FIXED_KEYS[2], FIXED_KEYS[3]) % (size as u64 - 1) + 1;
                (offset as u32, skip as u32)
            })
            .collect();
        let mut left = size;
        'fill: loop {
            for (&index, (place, skip)) in order.iter().zip(&mut places) {
                while slots[*place as usize] != EMPTY {
                    *place = step(*place, *skip, size);
                }
                slots[*place as usize] = index;
                *place = step(*place, *skip, size);
                left -= 1;
                if left == 0 {
                    break 'fill;
                }
            }
        }
        Maglev { slots }
    }

    /// The candidate for a hash.
    #[inline]
    pub fn lookup(&self, hash: u64) -> u32 {
        self.slots[((hash as u128 * self.slots.len() as u128) >> 64) as usize]
    }

    /// Number of slots.
    pub fn size(&self) -> usize {
        self.slots.len()
    }
}

fn step(place: u32, skip: u32, size: u32) -> u32 {
    let next = place as u64 + skip as u64;
    (if next >= size as u64 {
        next - size as u64
    } else {
        next
    }) as u32
}

fn next_prime(from: u32) -> u32 {
    (from.max(3)..)
        .find(|&n| (2..).take_while(|d| d * d <= n).all(|d| n % d != 0))
        .unwrap_or(3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn shares(table: &Maglev) -> HashMap<u32, u32> {
        let mut shares = HashMap::new();
        table
            .slots
            .iter()
            .for_each(|&index| *shares.entry(index).or_default() += 1);
        shares
    }

    #[test]
    fn shares_differ_by_at_most_one_slot() {
        for n in [1, 2, 3, 10, 655, 5000] {
            let table = Maglev::new(&(1..=n).collect::<Vec<_>>());
            let shares = shares(&table);
            assert_eq!(shares.len(), n as usize);
            assert!(
                shares.values().max().unwrap() - shares.values().min().unwrap() <= 1,
                "{n} servers"
            );
        }
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter() {
        let (a, b) = (Maglev::new(&[7, 3, 9]), Maglev::new(&[9, 7, 3]));
        let ids = |table: &Maglev, ids: [u32; 3]| {
            table
                .slots
                .iter()
                .map(|&i| ids[i as usize])
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&a, [7, 3, 9]), ids(&b, [9, 7, 3]));
    }

    #[test]
    fn removing_one_moves_little_else() {
        let all: Vec<u32> = (1..=50).collect();
        let (before, after) = (
            Maglev::with_size(&all, 65537),
            Maglev::with_size(&all[1..], 65537),
        );
        let moved = before
            .slots
            .iter()
            .zip(&after.slots)
            .filter(|&(&old, &new)| old != 0 && all[old as usize] != all[new as usize + 1])
            .count();
        assert!(
            moved as f64 / 65537.0 < 0.02,
            "{moved} slots moved that need not have"
        );
    }

    #[test]
    fn primes() {
        assert!(SIZES.iter().all(|&size| next_prime(size) == size));
        assert_eq!(next_prime(66_000), 66029);
    }
}
