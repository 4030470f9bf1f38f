//! Thresholds.

use super::*;

fn limited(algorithm: Algorithm, fallback: bool) -> World {
    World::with(algorithm, &[100, 100, 100], |recipe| {
        recipe.options.fallback = fallback;
        for server in &mut recipe.servers {
            server.thresholds = Thresholds { max: 8, min: 0 };
        }
    })
}

#[test]
fn a_full_server_is_passed_over_until_it_is_well_below_its_threshold() {
    for algorithm in ALL {
        let world = limited(algorithm, true);
        world.load(2, 5, 3);
        assert_eq!(world.shares(0..300)[1], 0, "{algorithm:?}: full");
        world.load(1, 8, 0);
        assert_eq!(world.shares(0..60), [0, 0, 60], "{algorithm:?}: one left");
        world.load(2, 3, 3);
        assert_eq!(
            world.shares(0..60),
            [0, 0, 60],
            "{algorithm:?}: 6 of 8 is not well below"
        );
        world.load(2, 2, 3);
        world.load(3, 8, 0);
        assert_eq!(world.shares(0..60), [0, 60, 0], "{algorithm:?}: 5 of 8 is");
        world.load(2, 8, 0);
        assert_eq!(
            world.ask(&flow(0)),
            Err(NoChoice::AtLimits),
            "{algorithm:?}: all full"
        );
    }
}

#[test]
fn being_full_outlives_the_selector() {
    for algorithm in ALL {
        let mut world = limited(algorithm, true);
        world.load(2, 8, 0);
        world.load(2, 7, 0);
        world.change(|recipe| recipe.servers[0].weight = 99);
        assert_eq!(
            world.shares(0..300)[1],
            0,
            "{algorithm:?}: it was full, and 7 of 8 is near it"
        );
    }
}

#[test]
fn without_fallback_a_full_server_leaves_its_clients_alone() {
    for algorithm in [Algorithm::SourceHash, Algorithm::Maglev] {
        let (strict, lenient) = (limited(algorithm, false), limited(algorithm, true));
        let before: Vec<_> = (0..300).map(|n| strict.choose(n)).collect();
        strict.load(2, 8, 0);
        lenient.load(2, 8, 0);
        let mut taken = [0; 4];
        for (n, before) in (0..).zip(before) {
            let (strict, lenient) = (strict.ask(&flow(n)), lenient.ask(&flow(n)));
            if before == 2 {
                assert_eq!(strict, Err(NoChoice::AtLimits));
                taken[lenient.unwrap() as usize] += 1;
            } else {
                assert_eq!(
                    (strict, lenient),
                    (Ok(before), Ok(before)),
                    "the others stay"
                );
            }
        }
        assert!(taken[1] > 20 && taken[3] > 20 && taken[2] == 0, "{taken:?}");
    }
}

#[test]
fn as_many_begin_as_fit() {
    for algorithm in ALL {
        let world = limited(algorithm, true);
        let begun = (0..).take_while(|&n| {
            let choice = world.ask(&flow(n));
            let shift = |id| world.shift(id, Activity::None, Activity::Active);
            choice.map(shift).is_ok()
        });
        assert_eq!(begun.count(), 24, "{algorithm:?}");
    }
}
