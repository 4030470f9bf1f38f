//! Later fragments that wait for their first one. Bounded in number and in time; the oldest make way, and a network that
//! sends more than its share pushes out its own first.

use std::collections::VecDeque;

use ilb_forwarder::fragment::{self, GROUPS, Key};

/// Milliseconds after which a fragment is given up. Those that are out of order are so by a few milliseconds.
pub const PATIENCE_MS: u64 = 1_500;
/// One part in so many of a worker's frames may be held.
const SHARE: usize = 8;
/// A group of networks that holds more than one part in so many of the room has had its share.
const GROUP_SHARE: usize = 4;

/// A fragment that waits.
#[derive(Debug)]
struct Waiting<F> {
    frame: F,
    key: Key,
    deadline: u64,
}

/// The waiting fragments of one worker, oldest first.
#[derive(Debug)]
pub struct Held<F> {
    waiting: VecDeque<Waiting<F>>,
    capacity: usize,
    groups: [usize; GROUPS],
}

impl<F> Held<F> {
    /// An empty list for a worker with this many frames; allocates all that it will ever need.
    pub fn new(frames: usize) -> Held<F> {
        let capacity = frames / SHARE;
        Held {
            waiting: VecDeque::with_capacity(capacity),
            capacity,
            groups: [0; GROUPS],
        }
    }

    /// Number of waiting fragments.
    pub fn count(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a fragment at `now` (milliseconds of a clock that does not go back). At most `limit` wait, 0 for as many as
    /// there is room for; gives the one that has to go, which may be the same.
    pub fn push(&mut self, frame: F, key: Key, limit: u32, now: u64) -> Option<F> {
        let limit = match limit as usize {
            0 => self.capacity,
            limit => limit.min(self.capacity),
        };
        if limit == 0 {
            return Some(frame);
        }
        let group = fragment::group(key);
        let gone = if self.waiting.len() < limit {
            None
        } else if self.groups[group] * GROUP_SHARE > limit {
            self.waiting
                .iter()
                .position(|waiting| fragment::group(waiting.key) == group)
        } else {
            Some(0)
        };
        let gone = gone.and_then(|at| self.remove(at));
        self.groups[group] += 1;
        self.waiting.push_back(Waiting {
            frame,
            key,
            deadline: now + PATIENCE_MS,
        });
        gone
    }

    fn remove(&mut self, at: usize) -> Option<F> {
        let waiting = self.waiting.remove(at)?;
        self.groups[fragment::group(waiting.key)] -= 1;
        Some(waiting.frame)
    }

    /// Takes out the oldest fragment, from number `at` on, whose key `is_known`; `at` is set to where to go on.
    pub fn take(&mut self, at: &mut usize, is_known: impl Fn(Key) -> bool) -> Option<F> {
        let found = self
            .waiting
            .iter()
            .skip(*at)
            .position(|waiting| is_known(waiting.key));
        match found {
            Some(ahead) => {
                *at += ahead;
                self.remove(*at)
            }
            None => {
                *at = self.waiting.len();
                None
            }
        }
    }

    /// Takes out the oldest fragment if its time is over.
    pub fn expired(&mut self, now: u64) -> Option<F> {
        self.waiting.front().filter(|w| w.deadline <= now)?;
        self.remove(0)
    }

    /// Takes out the oldest fragment.
    pub fn pop(&mut self) -> Option<F> {
        self.remove(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of this group.
    fn key(group: u64, n: u64) -> Key {
        group << 61 | n
    }

    #[test]
    fn what_is_known_comes_out_in_its_order() {
        let mut held = Held::new(64);
        for n in 0..8 {
            assert_eq!(held.push(n, key(n % 3, n), 0, 0), None);
        }
        let mut at = 0;
        let odd = std::iter::from_fn(|| held.take(&mut at, |key| key & 1 == 1));
        assert_eq!(odd.collect::<Vec<_>>(), [1, 3, 5, 7]);
        let left = std::iter::from_fn(|| held.pop());
        assert_eq!(left.collect::<Vec<_>>(), [0, 2, 4, 6]);
        assert_eq!((held.count(), held.groups), (0, [0; GROUPS]));
    }

    #[test]
    fn bounded_by_the_limit_and_by_a_share_of_the_frames() {
        // (frames, limit, held)
        for (frames, limit, room) in [(1024, 16, 16), (1024, 0, 128), (64, 256, 8), (4, 1, 0)] {
            let mut held = Held::new(frames);
            let mut gone = vec![];
            for n in 0..1000 {
                gone.extend(held.push(n, key(n % 8, n), limit, 0));
            }
            assert_eq!(held.count(), room, "{frames} frames, limit {limit}");
            assert_eq!(gone, (0..1000 - room as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_flood_of_one_network_pushes_out_its_own() {
        let mut held = Held::new(1024);
        for n in 0..40 {
            assert_eq!(held.push(n, key(n % 7, n), 64, 0), None);
        }
        for n in 100..10_000 {
            if let Some(gone) = held.push(n, key(7, n), 64, 0) {
                assert!(gone >= 100, "{gone} had to go");
            }
        }
        assert_eq!(held.count(), 64);
        let (mut at, mut others) = (0, 0);
        while held.take(&mut at, |key| key < 7 << 61).is_some() {
            others += 1;
        }
        assert_eq!(others, 40);
    }

    #[test]
    fn fragments_are_given_up_in_time_and_not_early() {
        let mut held = Held::new(64);
        held.push('a', 1, 0, 0);
        held.push('b', 2, 0, 10);
        assert!(held.expired(PATIENCE_MS - 1).is_none());
        assert_eq!(held.expired(PATIENCE_MS), Some('a'));
        assert!(held.expired(PATIENCE_MS).is_none());
        assert_eq!(held.expired(PATIENCE_MS + 10), Some('b'));
        assert_eq!(held.count(), 0);
    }
}
