//! Which target is due when: pure, in microseconds of any clock. Chance is given.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use libilb::healthcheck::Timing;

use crate::random::Random;

/// Microseconds.
pub type Micros = u64;

/// Without a warm-up the first tests are spread over at most this.
const FIRST: Micros = 2_000_000;

/// What is due when. Every target is there at most once.
#[derive(Debug, Clone)]
pub struct Schedule<Id> {
    queue: BTreeSet<(Micros, Id)>,
    due: HashMap<Id, Micros>,
    random: Random,
}

impl<Id: Copy + Ord + Hash> Schedule<Id> {
    /// An empty schedule.
    pub fn new(seed: u64) -> Schedule<Id> {
        Schedule {
            queue: BTreeSet::new(),
            due: HashMap::new(),
            random: Random::new(seed),
        }
    }

    /// A new target: its first test comes by chance within its warm-up, or else within an interval and two seconds, so that
    /// many targets that come at once are not tested at once.
    pub fn begin(&mut self, id: Id, timing: &Timing, now: Micros) -> Micros {
        let wait = match timing.warm_up {
            Some(time) => self.random.up_to(micros(time.millis())),
            None if micros(timing.interval.millis()) <= FIRST => self.rest_of_interval(timing),
            None => self.random.up_to(FIRST),
        };
        self.put(id, now + wait)
    }

    /// How long somebody waits who comes at any time while tests go on: as if they had always done. (If it was any part of an
    /// interval instead, the first tests of the slow would meet the second ones of the quick.)
    fn rest_of_interval(&mut self, timing: &Timing) -> Micros {
        let (least, most) = bounds(timing);
        loop {
            let interval = least + self.random.up_to(most - least);
            // A moment is in a long interval rather than in a short one.
            if self.random.up_to(most) <= interval {
                return self.random.up_to(interval);
            }
        }
    }

    /// The next regular test of a target whose last one was due at `last`: an interval later, give or take what chance may,
    /// but not in the past. Those who were tested together drift apart.
    pub fn again(&mut self, id: Id, timing: &Timing, last: Micros, now: Micros) -> Micros {
        let (least, most) = bounds(timing);
        let due = last + least + self.random.up_to(most - least);
        self.put(id, due.max(now))
    }

    /// A test that is repeated after its delay.
    pub fn retry(&mut self, id: Id, timing: &Timing, now: Micros) -> Micros {
        self.put(id, now + micros(timing.retry_delay.millis()))
    }

    /// Plans a test at a given time.
    pub fn put(&mut self, id: Id, due: Micros) -> Micros {
        self.remove(id);
        self.queue.insert((due, id));
        self.due.insert(id, due);
        due
    }

    /// Forgets a target.
    pub fn remove(&mut self, id: Id) {
        if let Some(due) = self.due.remove(&id) {
            self.queue.remove(&(due, id));
        }
    }

    /// When a target is due, if it is planned.
    pub fn due(&self, id: Id) -> Option<Micros> {
        self.due.get(&id).copied()
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Micros> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// Takes out the one that is due for the longest time, with the time at which it was.
    pub fn pop(&mut self, now: Micros) -> Option<(Id, Micros)> {
        let &(due, id) = self.queue.first().filter(|(due, _)| *due <= now)?;
        self.remove(id);
        Some((id, due))
    }
}

/// The shortest and the longest interval.
fn bounds(timing: &Timing) -> (Micros, Micros) {
    let interval = micros(timing.interval.millis());
    let jitter = interval / 100 * u64::from(timing.jitter);
    (interval - jitter, interval + jitter)
}

fn micros(millis: u32) -> Micros {
    u64::from(millis) * 1000
}

#[cfg(test)]
mod tests {
    use libilb::healthcheck::Time;

    use super::*;

    const SECOND: Micros = 1_000_000;

    fn timing(interval: u32, jitter: u8) -> Timing {
        Timing {
            interval: Time::from_secs(interval),
            jitter,
            ..Timing::default()
        }
    }

    /// Ten thousand targets that came at once, every 2 s, for a minute of virtual time, each test taking 3 ms.
    fn a_minute(jitter: u8) -> (Vec<u32>, HashMap<u32, Vec<Micros>>) {
        let timing = timing(2, jitter);
        let mut schedule = Schedule::new(7);
        for id in 0..10_000u32 {
            schedule.begin(id, &timing, 0);
        }
        let mut each_ms = vec![0; 60_000];
        let mut tested: HashMap<u32, Vec<Micros>> = HashMap::new();
        while let Some(now) = schedule.next().filter(|now| *now < 60 * SECOND) {
            let (id, due) = schedule.pop(now).unwrap();
            assert_eq!(due, now);
            each_ms[(now / 1000) as usize] += 1;
            tested.entry(id).or_default().push(now);
            schedule.again(id, &timing, due, now + 3000);
        }
        (each_ms, tested)
    }

    #[test]
    fn ten_thousand_targets_are_tested_on_time_and_without_bursts() {
        for jitter in [0, 10, 50] {
            let (each_ms, tested) = a_minute(jitter);
            assert_eq!(tested.len(), 10_000);
            let total: u32 = each_ms.iter().sum();
            assert!(
                (294_000..=306_000).contains(&total),
                "{total} tests, jitter {jitter}"
            );
            // 5 are due in a millisecond on average. By chance (Poisson) more than 30 come once in 10^10.
            let most = each_ms.iter().max().unwrap();
            assert!(*most <= 30, "{most} in a millisecond, jitter {jitter}");
            // Nor do whole tenths of a second fill up: 500 and, at most, six standard deviations.
            let tenths = each_ms.chunks(100).map(|ms| ms.iter().sum::<u32>());
            let most = tenths.max().unwrap();
            assert!(
                most <= 640,
                "{most} in a tenth of a second, jitter {jitter}"
            );
            for times in tested.values() {
                assert!(times[0] <= 3 * SECOND);
                for pair in times.windows(2) {
                    let gap = pair[1] - pair[0];
                    let slack = 2 * SECOND / 100 * u64::from(jitter);
                    assert!(
                        (2 * SECOND - slack..=2 * SECOND + slack).contains(&gap),
                        "{gap}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_late_is_tested_at_once_and_not_twice() {
        let timing = timing(2, 0);
        let mut schedule = Schedule::new(1);
        schedule.put(1u32, 0);
        assert_eq!(schedule.pop(10 * SECOND), Some((1, 0)));
        // It was due at 0, and should have been at 2, 4, 6, 8 and 10 s: all of them are one test now.
        assert_eq!(schedule.again(1, &timing, 0, 10 * SECOND), 10 * SECOND);
        assert_eq!(schedule.pop(10 * SECOND), Some((1, 10 * SECOND)));
        assert_eq!(schedule.pop(10 * SECOND), None);
    }

    #[test]
    fn retries_come_after_their_delay_and_warm_ups_within_their_time() {
        let timing = Timing {
            retry_delay: Time::from_millis(250),
            warm_up: Some(Time::from_secs(10)),
            ..timing(2, 0)
        };
        let mut schedule = Schedule::new(1);
        assert_eq!(
            schedule.retry(1u32, &timing, 5 * SECOND),
            5 * SECOND + 250_000
        );
        let first: Vec<Micros> = (2..2000).map(|id| schedule.begin(id, &timing, 0)).collect();
        assert!(first.iter().all(|due| *due <= 10 * SECOND));
        let late = first.iter().filter(|due| **due > 9 * SECOND).count();
        assert!(
            (140..=260).contains(&late),
            "{late} of 1998 in the last of ten seconds"
        );
    }

    #[test]
    fn targets_come_in_the_order_in_which_they_are_due_and_go_when_removed() {
        let mut schedule = Schedule::new(1);
        for (id, due) in [(1u32, 30), (2, 10), (3, 20), (4, 10)] {
            schedule.put(id, due);
        }
        schedule.put(1, 5);
        schedule.remove(3);
        assert_eq!((schedule.due(1), schedule.due(3)), (Some(5), None));
        assert_eq!(schedule.next(), Some(5));
        let order: Vec<_> = std::iter::from_fn(|| schedule.pop(15)).collect();
        assert_eq!(order, [(1, 5), (2, 10), (4, 10)]);
        assert_eq!(schedule.next(), None);
    }
}
