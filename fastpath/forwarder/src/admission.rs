//! How many new flows, or ICMP errors, one second may bring. Shared by all workers, without a lock: what is counted is
//! rare (packets of known connections never come here) or worth refusing.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count within the current second. All zero is a window in which nothing has been counted.
#[derive(Debug, Default)]
pub struct Window(AtomicU64);

impl Window {
    fn parts(word: u64) -> (u32, u32) {
        ((word >> 32) as u32, word as u32)
    }

    /// What has been counted in the second `now`. A worker whose clock is a second behind counts into the newer one.
    fn counted(word: u64, now: u32) -> (u32, u32) {
        let (second, count) = Window::parts(word);
        if now.wrapping_sub(second) as i32 > 0 {
            (now, 0)
        } else {
            (second, count)
        }
    }

    /// Whether one more fits into the second `now` (seconds since boot), without counting it. A limit of 0 is none.
    pub fn has_room(&self, limit: u32, now: u32) -> bool {
        limit == 0 || Window::counted(self.0.load(Ordering::Relaxed), now).1 < limit
    }

    /// Counts one more in the second `now`; false, and nothing is counted, if that is more than `limit`. Exact,
    /// however many workers count at once. A limit of 0 is none.
    pub fn take(&self, limit: u32, now: u32) -> bool {
        if limit == 0 {
            return true;
        }
        let more = |word| {
            let (second, count) = Window::counted(word, now);
            (count < limit).then(|| (second as u64) << 32 | (count + 1) as u64)
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }
}

/// New flows of a rule, or of all rules: those of clients that are known to be real have a budget of their own, so that
/// a flood from invented addresses cannot use it up.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Admission {
    strangers: Window,
    known: Window,
}

impl Admission {
    fn of(&self, known: bool) -> &Window {
        if known { &self.known } else { &self.strangers }
    }

    /// See [`Window::has_room`].
    pub fn has_room(&self, limit: u32, known: bool, now: u32) -> bool {
        self.of(known).has_room(limit, now)
    }

    /// See [`Window::take`].
    pub fn take(&self, limit: u32, known: bool, now: u32) -> bool {
        self.of(known).take(limit, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lets_in_exactly_its_limit() {
        let window = Window::default();
        for now in [7, 8, 100] {
            assert_eq!((0..50).filter(|_| window.take(20, now)).count(), 20);
            assert!(!window.has_room(20, now));
        }
        assert!((0..1000).all(|_| window.take(0, 100)), "0 is no limit");
    }

    #[test]
    fn a_worker_that_is_a_second_behind_does_not_open_the_window_again() {
        let window = Window::default();
        assert!(window.take(2, 11));
        assert!(window.take(2, 10));
        assert!(!window.take(2, 10));
        assert!(!window.take(2, 11));
        assert!(window.take(2, 12));
    }

    #[test]
    fn exact_with_many_workers() {
        let window = Window::default();
        let admitted: usize = std::thread::scope(|scope| {
            let count = || (0..10_000).filter(|_| window.take(12_345, 5)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(admitted, 12_345);
    }

    #[test]
    fn known_clients_and_strangers_do_not_share() {
        let admission = Admission::default();
        assert_eq!((0..9).filter(|_| admission.take(5, false, 1)).count(), 5);
        assert_eq!((0..9).filter(|_| admission.take(5, true, 1)).count(), 5);
    }
}
