//! A set of numbers that all workers change and search without a lock: a bitmap with summaries of 64 to 1 above it, so
//! that the next member is found in O(log64 n).

use std::sync::atomic::{AtomicU64, Ordering};

/// See the module's text.
#[derive(Debug)]
pub struct Bitmap {
    /// The members, then for each level above which words of the one below are not zero. The last has one word.
    levels: Box<[Box<[AtomicU64]>]>,
    len: u32,
}

impl Bitmap {
    /// An empty set of numbers below `len`.
    pub fn new(len: u32) -> Bitmap {
        let mut levels = Vec::new();
        let mut words = (len as usize).max(1);
        loop {
            words = words.div_ceil(64);
            levels.push((0..words).map(|_| AtomicU64::new(0)).collect());
            if words == 1 {
                break;
            }
        }
        Bitmap {
            levels: levels.into(),
            len,
        }
    }

    /// Whether `n` is a member.
    #[inline]
    pub fn contains(&self, n: u32) -> bool {
        let word = self.levels[0][n as usize / 64].load(Ordering::Relaxed);
        word >> (n % 64) & 1 == 1
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        let top = &self.levels[self.levels.len() - 1][0];
        top.load(Ordering::SeqCst) == 0
    }

    /// Makes `n` a member or not.
    pub fn set(&self, n: u32, member: bool) {
        if self.contains(n) == member {
            return;
        }
        let mut at = n as usize;
        for (height, level) in self.levels.iter().enumerate() {
            let (word, bit) = (&level[at / 64], 1u64 << (at % 64));
            if member {
                if word.fetch_or(bit, Ordering::SeqCst) != 0 {
                    return;
                }
            } else if word.fetch_and(!bit, Ordering::SeqCst) & !bit != 0 {
                return;
            }
            at /= 64;
            if !member {
                self.summarise(height, at);
                return;
            }
        }
    }

    /// Brings the levels above `height` up to date after its word `at` has become empty. A member that is added
    /// meanwhile may find its summaries still set and leave them alone: each is looked at again after it is cleared.
    fn summarise(&self, height: usize, at: usize) {
        let (mut below, mut at) = (height, at);
        while below + 1 < self.levels.len() {
            let (word, bit) = (&self.levels[below + 1][at / 64], 1u64 << (at % 64));
            let left = word.fetch_and(!bit, Ordering::SeqCst) & !bit;
            if self.levels[below][at].load(Ordering::SeqCst) != 0 {
                // Somebody came in between.
                let mut up = at;
                for level in &self.levels[below + 1..] {
                    level[up / 64].fetch_or(1 << (up % 64), Ordering::SeqCst);
                    up /= 64;
                }
                return;
            }
            if left != 0 {
                return;
            }
            below += 1;
            at /= 64;
        }
    }

    /// The smallest member that is not below `from`.
    #[inline]
    pub fn next(&self, from: u32) -> Option<u32> {
        if from >= self.len {
            return None;
        }
        let mut at = from as usize;
        let mut height = 0;
        // Up, until a word has a member at or behind the place.
        loop {
            let level = self.levels.get(height)?;
            let word = level.get(at / 64)?.load(Ordering::SeqCst) & (!0 << (at % 64));
            if word != 0 {
                at = at / 64 * 64 + word.trailing_zeros() as usize;
                if height == 0 {
                    return Some(at as u32);
                }
                // Down, along the smallest.
                let mut below = height;
                while below > 0 {
                    below -= 1;
                    let word = self.levels[below][at].load(Ordering::SeqCst);
                    if word == 0 {
                        break;
                    }
                    at = at * 64 + word.trailing_zeros() as usize;
                    if below == 0 {
                        return Some(at as u32);
                    }
                }
                // It has gone meanwhile: go on behind it, at the level where that was seen.
                height = below + 1;
                at += 1;
                continue;
            }
            at = at / 64 + 1;
            height += 1;
        }
    }

    /// The next member from `from` on, beginning anew behind the last one.
    #[inline]
    pub fn next_around(&self, from: u32) -> Option<u32> {
        self.next(from).or_else(|| self.next(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(
            len in 1u32..10_000,
            steps in proptest::collection::vec((any::<u32>(), any::<bool>(), any::<u32>()), 0..300)
        ) {
            let (bitmap, mut model) = (Bitmap::new(len), BTreeSet::new());
            for (n, member, from) in steps {
                let (n, from) = (n % len, from % (len + 2));
                bitmap.set(n, member);
                if member { model.insert(n); } else { model.remove(&n); }
                prop_assert_eq!(bitmap.contains(n), member);
                prop_assert_eq!(bitmap.next(from), model.range(from..).next().copied());
                prop_assert_eq!(bitmap.is_empty(), model.is_empty());
                let around = model.range(from..).next().or(model.first()).copied();
                prop_assert_eq!(bitmap.next_around(from), around);
            }
        }
    }

    #[test]
    fn summaries_are_right_after_concurrent_changes() {
        let bitmap = Bitmap::new(64 * 64 * 2);
        for round in 0..200u32 {
            std::thread::scope(|scope| {
                for thread in 0..4u32 {
                    let bitmap = &bitmap;
                    scope.spawn(move || {
                        for step in 0..200u32 {
                            // All threads in one word, so that it is empty again and again.
                            bitmap.set(64 + thread, (step + round + thread) % 2 == 0);
                        }
                    });
                }
            });
            let members = (0..4).filter(|&thread| bitmap.contains(64 + thread));
            assert_eq!(bitmap.next(0), members.map(|thread| 64 + thread).min());
        }
    }
}
