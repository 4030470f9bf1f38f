//! A read-only map from 64-bit keys to 32-bit indices, for the one lookup that every packet needs: open addressing, at
//! most half full, mostly one cache line a lookup.

use crate::hash::FIXED_KEYS;

/// See the module's text.
#[derive(Debug, Default)]
pub struct IdMap {
    places: Box<[(u64, u32)]>,
    shift: u32,
}

/// Index that marks a free place.
const FREE: u32 = u32::MAX;

impl IdMap {
    /// Makes a map; of equal keys the first one counts.
    pub fn new(pairs: &[(u64, u32)]) -> IdMap {
        if pairs.is_empty() {
            return IdMap::default();
        }
        let size = (pairs.len() * 2).next_power_of_two().max(2);
        let mut map = IdMap {
            places: vec![(0, FREE); size].into(),
            shift: 64 - size.trailing_zeros(),
        };
        for &(key, index) in pairs {
            let mut at = map.home(key);
            while map.places[at].1 != FREE && map.places[at].0 != key {
                at = (at + 1) & (size - 1);
            }
            if map.places[at].1 == FREE {
                map.places[at] = (key, index);
            }
        }
        map
    }

    #[inline(always)]
    fn home(&self, key: u64) -> usize {
        (key.wrapping_mul(FIXED_KEYS[0] | 1) >> self.shift) as usize
    }

    /// The index of a key.
    #[inline(always)]
    pub fn get(&self, key: u64) -> Option<u32> {
        if self.places.is_empty() {
            return None;
        }
        let mask = self.places.len() - 1;
        let mut at = self.home(key);
        loop {
            let (found, index) = self.places[at & mask];
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn behaves_like_a_map(
            pairs in proptest::collection::hash_map(any::<u64>(), 0u32..1000, 0..500),
            probes in proptest::collection::vec(any::<u64>(), 50)
        ) {
            let list: Vec<_> = pairs.iter().map(|(&key, &index)| (key, index)).collect();
            let map = IdMap::new(&list);
            let model: HashMap<_, _> = pairs;
            for key in model.keys().copied().chain(probes) {
                prop_assert_eq!(map.get(key), model.get(&key).copied());
            }
        }
    }
}
