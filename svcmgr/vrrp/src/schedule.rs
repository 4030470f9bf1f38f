//! When addresses are announced. Pure.

use std::time::Duration;

/// From the first announcement after a takeover to the second, and from there to the third: one is lost easily, as by a port
/// of a switch that has just come up, and whoever misses all of them sends to the wrong node until the next.
const SOON: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(80)];
/// How often another active node makes us announce again. It may advertise a hundred times a second.
const CONTEST: Duration = Duration::from_secs(1);
/// Announcements when another one was active, too.
const AFTER_CONTEST: u8 = 2;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    next: Option<Duration>,
    /// How many are to come before there are only those of `refresh`.
    left: u8,
    /// How many there were since the beginning, or since the last contest.
    done: usize,
    began: Duration,
    /// A contest came too soon after the last one to be answered at once.
    owed: bool,
    /// Between those after the first three.
    delay: Duration,
    /// Between those that never end; zero for none.
    refresh: Duration,
}

impl Schedule {
    /// Begins with `count` of them, at least 1.
    pub fn begin(now: Duration, count: u8, delay: Duration, refresh: Duration) -> Schedule {
        Schedule {
            next: Some(now),
            left: count,
            done: 0,
            began: now,
            owed: false,
            delay,
            refresh,
        }
    }

    /// Another one has been active, too. It may have told the network after we did last: that is answered once a second, but
    /// never left unanswered.
    pub fn contest(&mut self, now: Duration) {
        self.owed = now.saturating_sub(self.began) < CONTEST;
        if self.owed {
            return;
        }
        self.began = now;
        self.left = self.left.max(AFTER_CONTEST);
        self.done = 0;
        self.next = Some(now);
    }

    /// When the next one is due.
    pub fn deadline(&self) -> Option<Duration> {
        let answer = self.owed.then_some(self.began + CONTEST);
        self.next.into_iter().chain(answer).min()
    }

    /// Whether one is due; then the next one is planned.
    pub fn is_due(&mut self, now: Duration) -> bool {
        if self.owed && self.began + CONTEST <= now {
            self.contest(now);
        }
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        let pause = match self.left {
            0 => self.refresh,
            _ => SOON.get(self.done).copied().unwrap_or(self.delay),
        };
        self.done = self.done.saturating_add(1);
        self.next = (pause > Duration::ZERO).then_some(now + pause);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The times until `end`, in milliseconds.
    fn times(schedule: &mut Schedule, end: u64) -> Vec<u128> {
        let mut times = Vec::new();
        while let Some(now) = schedule.deadline().filter(|next| *next <= ms(end)) {
            assert!(schedule.is_due(now) && !schedule.is_due(now));
            times.push(now.as_millis());
        }
        times
    }

    #[test]
    fn addresses_are_announced_soon_again_then_slower_then_as_often_as_wanted() {
        let none = Duration::ZERO;
        for (given, mut schedule, expected) in [
            ("one", Schedule::begin(none, 1, SECOND, none), vec![0]),
            (
                "three",
                Schedule::begin(none, 3, SECOND, none),
                vec![0, 20, 100],
            ),
            (
                "five",
                Schedule::begin(none, 5, SECOND, none),
                vec![0, 20, 100, 1100, 2100],
            ),
            (
                "four, slowly, and again and again",
                Schedule::begin(none, 4, SECOND * 5, SECOND * 2),
                vec![0, 20, 100, 5100, 7100, 9100],
            ),
        ] {
            assert_eq!(times(&mut schedule, 10_000), expected, "given {given}");
        }
    }

    #[test]
    fn a_contest_is_answered_once_a_second_however_often_the_other_one_speaks() {
        let mut schedule = Schedule::begin(Duration::ZERO, 2, SECOND, Duration::ZERO);
        assert_eq!(times(&mut schedule, 500), [0, 20]);
        let mut all = Vec::new();
        for now in (10..=3000).step_by(10) {
            schedule.contest(ms(now));
            all.extend(times(&mut schedule, now));
        }
        assert_eq!(all, [1000, 1020, 2000, 2020, 3000]);
    }

    #[test]
    fn a_contest_is_answered_also_if_it_comes_soon_after_another_one() {
        let mut schedule = Schedule::begin(Duration::ZERO, 3, SECOND, Duration::ZERO);
        assert_eq!(times(&mut schedule, 300), [0, 20, 100]);
        for now in [400, 900] {
            schedule.contest(ms(now));
        }
        assert_eq!(times(&mut schedule, 10_000), [1000, 1020]);
        schedule.contest(ms(11_000));
        schedule.contest(ms(11_500));
        assert_eq!(
            times(&mut schedule, 20_000),
            [11_000, 11_020, 12_000, 12_020]
        );
    }
}
