//! Round robin, plain and weighted; weighted draws.

use super::*;

#[test]
fn round_robin_is_exact_over_all_workers_whatever_the_weights() {
    let world = World::new(Algorithm::RoundRobin, &[1, 50, 65_535]);
    let counts = [const { AtomicU64::new(0) }; 3];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..750 {
                    let index = world.selector.select(&flow(n), Mode::Choose).unwrap();
                    counts[index as usize].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(counts.map(AtomicU64::into_inner), [1000; 3]);
}

#[test]
fn round_robin_goes_on_when_servers_come_and_go() {
    let mut world = World::new(Algorithm::RoundRobin, &[1; 5]);
    let next = |world: &World, n| (0..n).map(|n| world.choose(n)).collect::<Vec<_>>();
    assert_eq!(next(&world, 4), [1, 2, 3, 4]);
    for id in [1, 3, 4] {
        world.without(id);
    }
    assert_eq!(
        next(&world, 4),
        [2, 5, 2, 5],
        "from the beginning: five are not there"
    );
    world.without(2);
    assert_eq!(next(&world, 3), [5, 5, 5]);
}

#[test]
fn weighted_round_robin_is_exact_in_every_cycle_over_all_workers() {
    for weights in [
        vec![3, 2],
        vec![5, 1, 1],
        vec![10, 20, 30],
        vec![1, 100, 7, 65],
        vec![9],
    ] {
        let world = World::new(Algorithm::WeightedRoundRobin, &weights);
        let factor = weights.iter().fold(0, |a, &b| weights::gcd(a, b as u64)) as u32;
        let cycle = weights.iter().map(|&w| w as u32).sum::<u32>() / factor;
        let exact: Vec<u32> = weights.iter().map(|&w| w as u32 / factor).collect();
        for n in 0..3 {
            assert_eq!(
                world.shares(n * cycle..(n + 1) * cycle),
                exact,
                "{weights:?}"
            );
        }
        // From anywhere in the cycle, and with several workers.
        world.choose(0);
        let counts: Vec<_> = weights.iter().map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..cycle {
                        let index = world.selector.select(&flow(n), Mode::Choose).unwrap();
                        counts[index as usize].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let counts: Vec<_> = counts.into_iter().map(|n| n.into_inner() as u32).collect();
        let four: Vec<_> = exact.iter().map(|n| 4 * n).collect();
        assert_eq!(counts, four, "{weights:?}");
    }
}

#[test]
fn weighted_round_robin_is_well_mixed() {
    // In any first k choices a server differs from its share by less than 3, for weights whose sum is up to 131,071:
    // the kernel's differs by up to the heaviest weight.
    for weights in [
        vec![50, 30, 20],
        vec![65_535, 65_535, 1],
        vec![1000, 1, 1, 1],
        vec![7; 9],
    ] {
        let world = World::new(Algorithm::WeightedRoundRobin, &weights);
        let total: f64 = weights.iter().map(|&w| w as f64).sum();
        let mut counts = vec![0u32; weights.len()];
        for k in 1..=20_000 {
            counts[world.choose(k) as usize - 1] += 1;
            for (&count, &weight) in counts.iter().zip(&weights) {
                let share = k as f64 * weight as f64 / total;
                assert!(
                    (count as f64 - share).abs() < 3.0,
                    "{weights:?} after {k}: {counts:?}"
                );
            }
        }
    }
}

#[test]
fn weighted_round_robin_keeps_the_proportions_of_those_that_are_left() {
    let world = World::with(Algorithm::WeightedRoundRobin, &[10, 20, 30, 40], |recipe| {
        recipe.servers[3].thresholds.max = 1;
    });
    world.load(4, 1, 0);
    assert_eq!(world.shares(0..600), [100, 200, 300, 0]);
}

#[test]
fn two_choices_go_by_weight_when_loads_are_equal() {
    let world = World::new(Algorithm::TwoChoices, &[10, 20, 70]);
    let of = 20_000;
    for (got, share) in world.shares(0..of).into_iter().zip([0.1, 0.2, 0.7]) {
        assert_share(got, of, share, "two choices");
    }
}

#[test]
fn two_choices_balance_far_better_than_one() {
    let world = World::new(Algorithm::TwoChoices, &[1; 100]);
    let mut loads = vec![0u32; 100];
    for n in 0..10_000 {
        loads[world.begin(n) as usize - 1] += 1;
    }
    let (least, most) = (*loads.iter().min().unwrap(), *loads.iter().max().unwrap());
    // One draw each: 100 ± 10, and the extremes of a hundred servers beyond 75 and 125. Two: ln ln 100 above.
    assert!(least >= 90 && most <= 106, "{least}..{most}");
}
