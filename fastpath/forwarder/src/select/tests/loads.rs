//! Algorithms that look at loads.

use super::*;

/// (algorithm, weights, (active, inactive) of each server, who is chosen)
type Case = (Algorithm, &'static [u16], &'static [(u32, u32)], ServerId);

#[test]
fn the_least_is_what_the_definition_says() {
    use Algorithm::*;
    let cases: &[Case] = &[
        (LeastConnection, &[1, 1, 1], &[(5, 0), (4, 0), (6, 0)], 2),
        (LeastConnection, &[1, 1, 100], &[(5, 0), (4, 0), (6, 0)], 2),
        // An active one weighs as much as 256 inactive ones.
        (LeastConnection, &[1, 1], &[(1, 0), (0, 255)], 2),
        (LeastConnection, &[1, 1], &[(1, 0), (0, 257)], 1),
        (WeightedLeastConnection, &[1, 2], &[(5, 0), (9, 0)], 2),
        (WeightedLeastConnection, &[1, 2], &[(5, 0), (11, 0)], 1),
        // 65534/65535 and 65533/65534 differ by a four thousand millionth.
        (
            WeightedLeastConnection,
            &[65_535, 65_534],
            &[(999, 0), (999, 0)],
            1,
        ),
        // (active + 1) / weight; inactive ones do not count.
        (ShortestExpectedDelay, &[1, 3], &[(0, 0), (2, 0)], 1),
        (ShortestExpectedDelay, &[1, 4], &[(0, 0), (2, 0)], 2),
        (ShortestExpectedDelay, &[1, 1], &[(0, 9999), (1, 0)], 1),
        // An idle one first, however slow.
        (NeverQueue, &[1, 100], &[(0, 0), (1, 0)], 1),
        (NeverQueue, &[1, 100], &[(1, 0), (1, 0)], 2),
        (Failover, &[5, 9, 7], &[(9, 0), (9999, 0), (0, 0)], 2),
        (Overflow, &[5, 9, 7], &[(0, 0), (8, 0), (0, 0)], 2),
        (Overflow, &[5, 9, 7], &[(0, 0), (9, 0), (6, 0)], 3),
        (Overflow, &[5, 9, 7], &[(4, 0), (9, 0), (7, 99)], 1),
        (Failover, &[9, 9], &[(1, 0), (0, 0)], 1),
    ];
    for (algorithm, weights, loads, chosen) in cases {
        let world = World::new(*algorithm, weights);
        for (id, &(active, inactive)) in (1..).zip(*loads) {
            world.load(id, active, inactive);
        }
        assert_eq!(
            world.choose(0),
            *chosen,
            "{algorithm:?} {weights:?} {loads:?}"
        );
    }
}

#[test]
fn an_overflow_with_nobody_below_his_weight_gives_none() {
    let world = World::new(Algorithm::Overflow, &[2, 3]);
    for n in 0..5 {
        world.begin(n);
    }
    assert_eq!(world.ask(&flow(5)), Err(NoChoice::AtLimits));
    world.load(1, 1, 1);
    assert_eq!(world.ask(&flow(5)), Ok(1));
}

#[test]
fn connections_that_stay_settle_in_proportion() {
    use Algorithm::*;
    let weights = [1u16, 2, 3, 4];
    for (algorithm, weighted) in [
        (LeastConnection, false),
        (WeightedLeastConnection, true),
        (ShortestExpectedDelay, true),
        (NeverQueue, true),
    ] {
        let world = World::new(algorithm, &weights);
        let mut loads = [0u32; 4];
        for n in 0..1000 {
            loads[world.begin(n) as usize - 1] += 1;
        }
        for (load, weight) in loads.into_iter().zip(weights) {
            let exact = if weighted { 100 * weight as u32 } else { 250 };
            assert!(load.abs_diff(exact) <= 1, "{algorithm:?}: {loads:?}");
        }
    }
}

#[test]
fn idle_servers_take_turns_by_weight() {
    // Connections so short that nobody ever has one when the next begins.
    let shares = |algorithm| World::new(algorithm, &[1, 2, 3, 4]).shares(0..1000);
    assert_eq!(shares(Algorithm::LeastConnection), [250; 4]);
    for algorithm in [Algorithm::WeightedLeastConnection, Algorithm::NeverQueue] {
        for (share, exact) in shares(algorithm).into_iter().zip([100u32, 200, 300, 400]) {
            assert!(share.abs_diff(exact) <= 1, "{algorithm:?}");
        }
    }
}

#[test]
fn a_server_that_comes_back_does_not_catch_up_on_turns() {
    let mut world = World::new(Algorithm::LeastConnection, &[1, 1, 1]);
    world.without(3);
    world.shares(0..900);
    let third = Terms {
        id: 3,
        ..world.recipe.servers[0]
    };
    world.change(|recipe| recipe.servers = recipe.servers.iter().copied().chain([third]).collect());
    assert_eq!(world.shares(0..300), [100; 3]);
}

#[test]
fn the_tree_knows_the_least_after_concurrent_beginnings_and_ends() {
    let world = World::new(
        Algorithm::WeightedLeastConnection,
        &[1, 2, 3, 4, 5, 6, 7, 8, 9],
    );
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let world = &world;
            scope.spawn(move || {
                let mut mine = Vec::new();
                for step in 0..3000u64 {
                    let random = fold(step ^ 0x9e37_79b9, thread * 2 + 0x1234_5677);
                    if random & 3 != 0 {
                        mine.push(
                            world
                                .selector
                                .select(&flow(step as u32), Mode::Choose)
                                .unwrap(),
                        );
                        world.shift(mine[mine.len() - 1] + 1, Activity::None, Activity::Active);
                    } else if let Some(index) = mine.pop() {
                        world.shift(index + 1, Activity::Active, Activity::None);
                    }
                }
            });
        }
    });
    let load = |id: &ServerId| {
        let active = world.accounts[id].load().connections().active as u64;
        active * 2520 * 1000 / *id as u64
    };
    let least = (1..=9).map(|id| load(&id)).min().unwrap();
    assert_eq!(load(&world.choose(0)), least);
    let total: u32 = (1..=9)
        .map(|id| world.accounts[&id].load().connections().active)
        .sum();
    for id in 1..=9u32 {
        let active = world.accounts[&id].load().connections().active;
        assert!(
            active.abs_diff(total * id / 45) <= total / 20 + 8,
            "{id} has {active} of {total}"
        );
    }
}

#[test]
fn a_refresh_shows_what_was_counted_elsewhere() {
    let world = World::new(Algorithm::LeastConnection, &[1, 1]);
    let load = world.accounts[&1].load();
    (0..5).for_each(|_| load.shift(Activity::None, Activity::Active));
    world.selector.refresh(NOW);
    assert_eq!((world.begin(0), world.begin(1), world.begin(2)), (2, 2, 2));
}

fn to_vip(n: u8) -> Request {
    Request {
        vip: vip(n),
        vip_index: n,
        ..flow(n as u32)
    }
}

const LOCAL: [Algorithm; 2] = [
    Algorithm::LocalityLeastConnection,
    Algorithm::LocalityLeastConnectionReplication,
];

#[test]
fn a_vip_stays_with_its_server_while_that_copes() {
    for algorithm in LOCAL {
        let mut world = World::new(algorithm, &[10, 10, 10, 10]);
        let first: Vec<_> = (0..4).map(|n| world.ask(&to_vip(n)).unwrap()).collect();
        let mut all = first.clone();
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4], "new VIPs spread");
        for _ in 0..10 {
            let id = world.ask(&to_vip(0)).unwrap();
            world.shift(id, Activity::None, Activity::Active);
            assert_eq!(
                id, first[0],
                "{algorithm:?}: not overloaded up to its weight"
            );
        }
        world.change(|recipe| recipe.servers[0].weight = 9);
        for n in 1..4 {
            let id = world.ask(&to_vip(n)).unwrap();
            assert_eq!(
                id, first[n as usize],
                "{algorithm:?}: outlives the selector"
            );
        }
    }
}

#[test]
fn an_overloaded_server_hands_its_vip_over_only_if_another_is_idle() {
    let world = World::new(LOCAL[0], &[4, 4, 4]);
    let first = world.ask(&to_vip(0)).unwrap();
    let others: Vec<_> = (1..=3).filter(|&id| id != first).collect();
    world.load(first, 5, 0);
    others.iter().for_each(|&id| world.load(id, 2, 0));
    assert_eq!(
        world.ask(&to_vip(0)),
        Ok(first),
        "the others have half of their weight"
    );
    world.load(others[1], 1, 0);
    assert_eq!(world.ask(&to_vip(0)), Ok(others[1]));
    world.load(first, 0, 0);
    assert_eq!(world.ask(&to_vip(0)), Ok(others[1]), "and it stays there");
}

#[test]
fn a_set_grows_under_load_and_shrinks_in_calm() {
    let world = World::new(LOCAL[1], &[4, 4, 4]);
    let at = |now| Request { now, ..to_vip(0) };
    let first = world.ask(&at(NOW)).unwrap();
    world.load(first, 5, 0);
    let second = world.ask(&at(NOW)).unwrap();
    assert_ne!(second, first);
    world.load(second, 5, 0);
    world.load(first, 4, 0);
    assert_eq!(
        world.ask(&at(NOW)),
        Ok(first),
        "the least loaded of the set"
    );
    let shrinks = NOW + locality::SHRINK_AFTER + 1;
    world.load(second, 1, 0);
    assert_eq!(
        world.ask(&at(shrinks)),
        Ok(second),
        "and now the set loses the first"
    );
    world.load(second, 3, 0);
    world.load(first, 0, 0);
    assert_eq!(world.ask(&at(shrinks)), Ok(second));
}

#[test]
fn a_set_is_bounded_and_still_finds_an_idle_server() {
    let world = World::new(LOCAL[1], &[1; 40]);
    let mut used = std::collections::HashSet::new();
    for _ in 0..80 {
        let id = world.ask(&to_vip(0)).unwrap();
        world.shift(id, Activity::None, Activity::Active);
        used.insert(id);
    }
    assert_eq!(
        used.len(),
        40,
        "all are needed, and found, although a set holds fifteen"
    );
}
