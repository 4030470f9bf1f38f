//! Slow start: server 1 has come up, the others have been there for long.

use super::*;

const UP: u32 = 50_000;
const RAMP: u32 = 100;

fn rising(algorithm: Algorithm, new: usize) -> World {
    World::with(algorithm, &[10; 4], |recipe| {
        recipe.slow_start = RAMP;
        recipe.servers[..new]
            .iter_mut()
            .for_each(|s| s.up_since = UP);
    })
}

/// Share of server 1 in percent, `seconds` after it came up.
fn share(world: &World, seconds: u32, flows: u32) -> f64 {
    let mine = (0..flows)
        .filter(|&n| {
            let request = Request {
                now: UP + seconds,
                vip: Addr::v4((0x0b00_0000 + n).to_be_bytes()),
                ..flow(n)
            };
            world.ask(&request) == Ok(1)
        })
        .count();
    100.0 * mine as f64 / flows as f64
}

#[test]
fn the_share_rises_to_the_full_weight() {
    for algorithm in [
        Algorithm::RoundRobin,
        Algorithm::WeightedRoundRobin,
        Algorithm::DestinationHash,
        Algorithm::SourceHash,
        Algorithm::Maglev,
        Algorithm::HashIp,
        Algorithm::HashIpPort,
        Algorithm::HashIpVip,
    ] {
        let world = rising(algorithm, 1);
        // (seconds, least, most): a quarter of the flows are offered, and accepted in proportion to the time. Five
        // standard deviations of 4000.
        for (seconds, least, most) in [
            (0, 0.01, 1.0),
            (20, 3.0, 7.0),
            (50, 9.5, 15.5),
            (100, 21.5, 28.5),
            (5000, 21.5, 28.5),
        ] {
            let share = share(&world, seconds, 4000);
            assert!(
                (least..=most).contains(&share),
                "{algorithm:?} after {seconds} s: {share} %"
            );
        }
    }
    let world = rising(Algorithm::TwoChoices, 1);
    let shares = [0, 20, 50, 100].map(|seconds| share(&world, seconds, 4000));
    assert!(
        shares.is_sorted() && shares[0] > 0.0 && shares[0] < 2.0,
        "{shares:?}"
    );
}

#[test]
fn whoever_was_accepted_stays_so() {
    for algorithm in [Algorithm::SourceHash, Algorithm::Maglev, Algorithm::HashIp] {
        let world = rising(algorithm, 1);
        for n in 0..300 {
            let at = |seconds| {
                world.ask(&Request {
                    now: UP + seconds,
                    ..flow(n)
                }) == Ok(1)
            };
            let accepted: Vec<bool> = (0..RAMP).step_by(10).map(at).collect();
            assert!(accepted.is_sorted(), "{algorithm:?} {n}: {accepted:?}");
        }
    }
}

#[test]
fn failover_hands_over_bit_by_bit() {
    for algorithm in [Algorithm::Failover, Algorithm::Overflow] {
        let world = World::with(algorithm, &[20, 10], |recipe| {
            recipe.slow_start = RAMP;
            recipe.servers[0].up_since = UP;
        });
        for seconds in [10, 50, 90] {
            let share = share(&world, seconds, 4000);
            assert!(
                (share - seconds as f64).abs() < 5.0,
                "{algorithm:?} after {seconds} s: {share}"
            );
        }
        assert_eq!(share(&world, RAMP, 100), 100.0);
    }
}

#[test]
fn loads_count_more_while_the_weight_is_reduced() {
    for algorithm in [
        Algorithm::LeastConnection,
        Algorithm::WeightedLeastConnection,
        Algorithm::ShortestExpectedDelay,
        Algorithm::NeverQueue,
    ] {
        for (seconds, expected) in [(10, 10), (50, 50), (100, 100)] {
            let world = rising(algorithm, 1);
            (2..=4).for_each(|id| world.load(id, 60, 0));
            world.selector.refresh(UP + seconds);
            // As many more as it takes to come up to the others.
            let mut n = 0;
            while world.accounts[&2].load().connections().active < 100 {
                let id = world
                    .ask(&Request {
                        now: UP + seconds,
                        ..flow(n)
                    })
                    .unwrap();
                world.shift(id, Activity::None, Activity::Active);
                n += 1;
            }
            let active = world.accounts[&1].load().connections().active;
            assert!(
                active.abs_diff(expected) <= 2,
                "{algorithm:?} after {seconds} s: {active}"
            );
        }
    }
}

#[test]
fn idle_servers_take_fewer_turns_while_the_weight_is_reduced() {
    let world = rising(Algorithm::LeastConnection, 1);
    world.selector.refresh(UP + 50);
    let share = share(&world, 50, 3500);
    assert!(
        (share - 100.0 / 7.0).abs() < 0.5,
        "half a turn for three: {share} %"
    );
}

#[test]
fn nobody_starves_when_all_are_new() {
    for algorithm in ALL {
        let world = rising(algorithm, 4);
        for n in 0..200 {
            let request = Request { now: UP, ..flow(n) };
            assert!(world.ask(&request).is_ok(), "{algorithm:?}");
        }
    }
}

#[test]
fn a_single_new_one_carries_what_nobody_else_can() {
    for algorithm in ALL {
        let world = World::with(algorithm, &[10; 3], |recipe| {
            recipe.slow_start = RAMP;
            recipe.options.fallback = true;
            recipe.servers[0].up_since = UP;
            recipe.servers[1].thresholds.max = 1;
            recipe.servers[2].thresholds.max = 1;
        });
        world.load(2, 1, 0);
        world.load(3, 1, 0);
        for n in 0..50 {
            let request = Request { now: UP, ..flow(n) };
            assert_eq!(world.ask(&request), Ok(1), "{algorithm:?}");
        }
    }
}
