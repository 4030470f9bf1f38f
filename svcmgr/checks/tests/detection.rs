//! How long it takes until a dead server is found, and a live one: the scheduler and the state machine together, in virtual
//! time, for any settings.

use ilb_checks::fsm::{Demands, Evidence, Machine, Next};
use ilb_checks::schedule::{Micros, Schedule};
use libilb::health::HealthState;
use libilb::healthcheck::{Time, Timing};
use proptest::prelude::*;

/// How long a test of a server that is well takes.
const QUICK: Micros = 2_000;

/// When a server that dies (or comes back) at `at` is found so, and how many tests that took.
fn found(timing: &Timing, seed: u64, at: Micros, dies: bool) -> Option<(Micros, u32)> {
    let timeout = Micros::from(timing.timeout.millis()) * 1000;
    let demands = Demands {
        count: timing.count,
        rise: timing.rise,
        retries: timing.quick_retries(),
        alpha: false,
    };
    let mut machine = Machine::new(demands, None);
    let mut schedule = Schedule::new(seed);
    schedule.begin(1u32, timing, 0);
    let (mut base, mut tests) = (0, 0);
    let wanted = if dies {
        HealthState::Dead
    } else {
        HealthState::Alive
    };
    for _ in 0..100_000 {
        let begin = schedule.next()?;
        let (_, due) = schedule.pop(begin)?;
        if machine.repeated() == 0 {
            base = due;
        }
        let dead = (begin >= at) == dies;
        let end = begin + if dead { timeout } else { QUICK };
        tests += u32::from(begin >= at);
        machine.handle(match dead {
            true => Evidence::Dead,
            false => Evidence::Good {
                rtt: Some(QUICK),
                weight: None,
            },
        });
        if begin >= at && machine.state() == wanted {
            return Some((end - at, tests));
        }
        match machine.plan() {
            Next::Retry => schedule.retry(1, timing, end),
            Next::Interval => schedule.again(1, timing, base, end),
            Next::Never => return None,
        };
    }
    None
}

fn timings() -> impl Strategy<Value = Timing> {
    (
        1..3000u32,
        10..5000u32,
        0..=50u8,
        1..6u32,
        1..6u32,
        0..500u32,
        prop::option::of(0..6u32),
    )
        .prop_map(
            |(timeout, interval, jitter, count, rise, delay, retries)| Timing {
                timeout: Time::from_millis(timeout),
                interval: Time::from_millis(interval),
                jitter,
                warm_up: None,
                count,
                rise,
                retries,
                retry_delay: Time::from_millis(delay),
            },
        )
}

proptest! {
    #[test]
    fn a_dead_server_is_found_within_timeout_by_count_and_one_interval(
        timing in timings(), seed in any::<u64>(), at in 10_000_000..30_000_000u64,
    ) {
        // With all retries at once, as is the default.
        let timing = Timing { retries: None, ..timing };
        let (took, tests) = found(&timing, seed, at, true).unwrap();
        let millis = |time: Time| Micros::from(time.millis()) * 1000;
        let interval = millis(timing.interval) * (100 + Micros::from(timing.jitter)) / 100;
        let count = Micros::from(timing.count);
        let most = (millis(timing.timeout) + millis(timing.retry_delay)) * count + interval;
        prop_assert!(took <= most, "{took} of {most}");
        prop_assert_eq!(tests, timing.count);
    }

    #[test]
    fn without_retries_each_failure_waits_for_the_interval_or_the_timeout(
        timing in timings(), seed in any::<u64>(), at in 10_000_000..30_000_000u64,
    ) {
        let (took, tests) = found(&timing, seed, at, true).unwrap();
        let millis = |time: Time| Micros::from(time.millis()) * 1000;
        let interval = millis(timing.interval) * (100 + Micros::from(timing.jitter)) / 100;
        let each = millis(timing.timeout) + millis(timing.retry_delay) + interval;
        prop_assert!(took <= each * Micros::from(timing.count) + interval);
        prop_assert_eq!(tests, timing.count);
    }

    #[test]
    fn a_server_that_is_back_is_found_within_rise_intervals(
        timing in timings(), seed in any::<u64>(), at in 30_000_000..50_000_000u64,
    ) {
        let (took, tests) = found(&timing, seed, at, false).unwrap();
        let millis = |time: Time| Micros::from(time.millis()) * 1000;
        let interval = millis(timing.interval) * (100 + Micros::from(timing.jitter)) / 100;
        // The test that was under way when it came back still fails.
        let rise = Micros::from(timing.rise);
        prop_assert!(took <= millis(timing.timeout) + (interval + QUICK) * (rise + 1));
        prop_assert_eq!(tests, timing.rise);
    }
}
