//! Algorithms that look at the packet alone.

use super::*;

const HASHED: [Algorithm; 6] = [
    Algorithm::DestinationHash,
    Algorithm::SourceHash,
    Algorithm::Maglev,
    Algorithm::HashIp,
    Algorithm::HashIpPort,
    Algorithm::HashIpVip,
];

/// The `n`th of many flows that are different in everything.
fn any(n: u32) -> Request {
    let mut request = flow(n);
    request.vip = Addr::v4((0x0b00_0000 + n).to_be_bytes());
    request
}

#[test]
fn equal_keys_go_to_equal_servers_and_other_fields_do_not_matter() {
    let changes: [fn(&mut Request); 3] = [
        |request| request.client = Addr::v4([1, 2, 3, 4]),
        |request| request.client_port ^= 1,
        |request| request.vip = Addr::v4([4, 3, 2, 1]),
    ];
    // Whether the choice depends on the client, its port, the VIP.
    for (algorithm, port, depends) in [
        (Algorithm::DestinationHash, false, [false, false, true]),
        (Algorithm::SourceHash, false, [true, false, false]),
        (Algorithm::SourceHash, true, [true, true, false]),
        (Algorithm::Maglev, false, [true, false, false]),
        (Algorithm::Maglev, true, [true, true, false]),
        (Algorithm::HashIp, true, [true, false, false]),
        (Algorithm::HashIpPort, false, [true, true, false]),
        (Algorithm::HashIpVip, true, [true, false, true]),
    ] {
        let world = World::with(algorithm, &[1; 10], |recipe| recipe.options.port = port);
        for (change, depends) in changes.into_iter().zip(depends) {
            let differs = |n: &u32| {
                let before = any(*n);
                let mut after = before;
                change(&mut after);
                after.hash ^= 0x1234_5678_9abc_def0;
                after.now += 7;
                world.ask(&before) != world.ask(&after)
            };
            let differing = (0..200).filter(differs).count();
            // One in ten meets the same server again.
            assert_eq!(
                differing > 140,
                depends,
                "{algorithm:?} {port}: {differing}"
            );
            assert!(
                depends || differing == 0,
                "{algorithm:?} {port}: {differing}"
            );
        }
    }
}

#[test]
fn shares_are_those_of_the_weights() {
    let of = 20_000;
    for algorithm in HASHED {
        let world = World::new(algorithm, &[1, 2, 3, 4]);
        let mut shares = [0; 4];
        (0..of).for_each(|n| shares[world.ask(&any(n)).unwrap() as usize - 1] += 1);
        for (got, weight) in shares.into_iter().zip([0.1, 0.2, 0.3, 0.4]) {
            // The table of few servers is exact to a thousandth.
            assert_share(got, of, weight, &format!("{algorithm:?}"));
        }
    }
}

#[test]
fn when_a_server_leaves_little_else_moves_and_it_comes_back_to_the_same() {
    let of = 20_000;
    for algorithm in HASHED {
        let mut world = World::new(algorithm, &[1; 10]);
        let choices =
            |world: &World| -> Vec<_> { (0..of).map(|n| world.ask(&any(n)).unwrap()).collect() };
        let before = choices(&world);
        let recipe = world.recipe.clone();
        world.without(4);
        let without = choices(&world);
        let moved = before
            .iter()
            .zip(&without)
            .filter(|&(&old, new)| old != 4 && old != *new)
            .count();
        // Percent of the slots: of 65,537, and of 8191. And six standard deviations.
        let needless = if algorithm == Algorithm::Maglev {
            0.3
        } else {
            0.7
        };
        let mean = of as f64 * needless / 100.0;
        let most = mean + 6.0 * mean.sqrt();
        assert!(
            (moved as f64) < most,
            "{algorithm:?}: {moved}, not {most:.0}"
        );
        assert!(!without.contains(&4));
        world.change(|changed| *changed = recipe);
        assert_eq!(
            choices(&world),
            before,
            "{algorithm:?}: a function of the set"
        );
    }
}

#[test]
fn any_number_of_servers_may_die_one_after_the_other() {
    for (algorithm, n) in HASHED
        .into_iter()
        .flat_map(|algorithm| [(algorithm, 30), (algorithm, 40)])
    {
        let mut world = World::new(algorithm, &vec![1; n as usize]);
        let ask =
            |world: &World| -> Vec<_> { (0..2000).map(|n| world.ask(&any(n)).unwrap()).collect() };
        let mut before = ask(&world);
        for gone in 1..n {
            world.without(gone);
            let after = ask(&world);
            let others = before.iter().filter(|&&old| old != gone).count();
            let moved = before
                .iter()
                .zip(&after)
                .filter(|&(old, new)| *old != gone && old != new);
            // Less than one in a hundred of the others, whatever number is left; and six standard deviations.
            let most = others as f64 / 100.0 + 6.0 * (others as f64 / 100.0).sqrt();
            let moved = moved.count();
            assert!(
                moved as f64 <= most,
                "{algorithm:?} without {gone}: {moved} of {others}"
            );
            before = after;
        }
    }
}

#[test]
fn maglev_always_has_its_full_table() {
    let size = |algorithm, n| {
        World::new(algorithm, &vec![1; n])
            .selector
            .table()
            .unwrap()
            .size()
    };
    assert_eq!(size(Algorithm::Maglev, 2), 65_537);
    assert_eq!(size(Algorithm::SourceHash, 2), 8191);
    assert_eq!(size(Algorithm::SourceHash, 33), 65_537);
    assert_eq!(size(Algorithm::Maglev, 1000), 65_537);
}
