//! A read-only map from 64-bit keys to 32-bit indices, for the one lookup that every packet needs: open addressing, at
//! most half full, mostly one cache line a lookup. It is made of a [`Places`], which begins empty or as a copy of another
//! map and shares with it what stays the same.

use crate::chunks::{Chunks, Draft};
use crate::hash::FIXED_KEYS;

/// See the module's text.
#[derive(Debug, Default)]
pub struct IdMap {
    places: Chunks<(u64, u32)>,
    used: usize,
}

/// Index that marks a free place.
const FREE: u32 = u32::MAX;

/// The place where a key is looked for first, of a power of two.
#[inline(always)]
fn home(key: u64, places: usize) -> usize {
    (key.wrapping_mul(FIXED_KEYS[0] | 1) >> (64 - places.trailing_zeros())) as usize
}

impl IdMap {
    /// The index of a key.
    #[inline(always)]
    pub fn get(&self, key: u64) -> Option<u32> {
        let len = self.places.len();
        if len == 0 {
            return None;
        }
        let mut at = home(key, len);
        loop {
            let (found, index) = self.places[at & (len - 1)];
            if index == FREE {
                return None;
            }
            if found == key {
                return Some(index);
            }
            at += 1;
        }
    }
}

/// A map in the making.
#[derive(Debug, Default)]
pub struct Places {
    places: Draft<(u64, u32)>,
    used: usize,
}

impl Places {
    /// A copy of a map.
    pub fn of(map: &IdMap) -> Places {
        Places {
            places: Draft::of(&map.places),
            used: map.used,
        }
    }

    /// The map.
    pub fn finish(self) -> IdMap {
        IdMap {
            places: self.places.finish(),
            used: self.used,
        }
    }

    /// Where a key is, or the free place where it would go.
    fn find(&self, key: u64) -> usize {
        let mask = self.places.len() - 1;
        let mut at = home(key, self.places.len());
        while self.places[at].1 != FREE && self.places[at].0 != key {
            at = (at + 1) & mask;
        }
        at
    }

    /// The index of a key.
    pub fn get(&self, key: u64) -> Option<u32> {
        if self.places.len() == 0 {
            return None;
        }
        let (_, index) = self.places[self.find(key)];
        (index != FREE).then_some(index)
    }

    /// Enters a key, or gives it another index.
    pub fn insert(&mut self, key: u64, index: u32) {
        if self.places.len() < (self.used + 1) * 2 {
            self.grow();
        }
        let at = self.find(key);
        self.used += (self.places[at].1 == FREE) as usize;
        *self.places.get_mut(at) = (key, index);
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: u64) {
        if self.get(key).is_none() {
            return;
        }
        self.used -= 1;
        let mask = self.places.len() - 1;
        let mut free = self.find(key);
        let mut at = free;
        // Whoever could have gone to the free place goes there now, so that no search ends before its key.
        loop {
            at = (at + 1) & mask;
            let (other, index) = self.places[at];
            if index == FREE {
                break;
            }
            let wanted = home(other, self.places.len());
            if (at.wrapping_sub(wanted) & mask) >= (at.wrapping_sub(free) & mask) {
                *self.places.get_mut(free) = (other, index);
                free = at;
            }
        }
        *self.places.get_mut(free) = (0, FREE);
    }

    fn grow(&mut self) {
        let size = ((self.used + 1) * 2).next_power_of_two();
        let mut larger = Places::default();
        (0..size).for_each(|_| larger.places.push((0, FREE)));
        for at in 0..self.places.len() {
            let (key, index) = self.places[at];
            if index != FREE {
                larger.insert(key, index);
            }
        }
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn behaves_like_a_map(
            pairs in proptest::collection::hash_map(any::<u64>(), 0u32..1000, 0..500),
            gone in proptest::collection::vec(any::<prop::sample::Index>(), 0..200),
            more in proptest::collection::hash_map(any::<u64>(), 0u32..1000, 0..20),
            probes in proptest::collection::vec(any::<u64>(), 50)
        ) {
            let mut places = Places::default();
            pairs.iter().for_each(|(&key, &index)| places.insert(key, index));
            let first = places.finish();

            let mut places = Places::of(&first);
            let mut model = pairs.clone();
            let keys: Vec<u64> = pairs.keys().copied().collect();
            for index in gone.iter().filter(|_| !keys.is_empty()) {
                let key = *index.get(&keys);
                places.remove(key);
                model.remove(&key);
            }
            for (&key, &index) in &more {
                places.insert(key, index);
                model.insert(key, index);
            }
            let second = places.finish();
            let all: HashMap<u64, u32> = pairs.clone().into_iter().chain(more).collect();
            for key in all.keys().copied().chain(probes) {
                prop_assert_eq!(first.get(key), pairs.get(&key).copied());
                prop_assert_eq!(second.get(key), model.get(&key).copied());
            }
        }
    }
}
