//! Every state with every evidence; and flapping networks against a judge that knows the whole history.

use libilb::health::HealthState::{Alive, Dead, Disabled, UnInit, Unreach};

use super::*;
use crate::random::Random;

const GOOD: Evidence = Evidence::Good {
    rtt: Some(1000),
    weight: None,
};
const STATES: [HealthState; 5] = [UnInit, Alive, Unreach, Dead, Disabled];

fn demands(count: u32, rise: u32) -> Demands {
    Demands {
        count,
        rise,
        retries: count - 1,
        alpha: false,
    }
}

/// A machine in this state with no result counted.
fn machine(demands: Demands, state: HealthState) -> Machine {
    Machine {
        state,
        ..Machine::new(demands, None)
    }
}

#[test]
fn every_state_with_every_evidence() {
    // given: one result is enough; when: it comes; then: the state is
    let table = [
        // state    good   unreachable  dead   nothing
        (UnInit, [Alive, Unreach, Dead, UnInit]),
        (Alive, [Alive, Unreach, Dead, Alive]),
        (Unreach, [Alive, Unreach, Dead, Unreach]),
        (Dead, [Alive, Unreach, Dead, Dead]),
        (Disabled, [Disabled, Disabled, Disabled, Disabled]),
    ];
    let evidences = [GOOD, Evidence::Unreachable, Evidence::Dead, Evidence::None];
    for alpha in [false, true] {
        for (state, results) in table {
            for (evidence, result) in evidences.into_iter().zip(results) {
                let mut machine = machine(
                    Demands {
                        alpha,
                        ..demands(1, 1)
                    },
                    state,
                );
                let change = machine.handle(evidence);
                assert_eq!(machine.state(), result, "{state} and {evidence:?}");
                let expected = (state != result).then_some(Change {
                    from: state,
                    to: result,
                    count: 1,
                });
                assert_eq!(change, expected, "{state} and {evidence:?}");
            }
        }
    }
}

#[test]
fn every_state_with_the_administrator() {
    for (state, enabled, disabled) in [
        (UnInit, UnInit, Disabled),
        (Alive, Alive, Disabled),
        (Unreach, Unreach, Disabled),
        (Dead, Dead, Disabled),
        (Disabled, UnInit, Disabled),
    ] {
        for (enable, result) in [(true, enabled), (false, disabled)] {
            let mut machine = machine(demands(3, 1), state);
            let change = machine.enable(enable);
            assert_eq!(machine.state(), result);
            let expected = (state != result).then_some(Change {
                from: state,
                to: result,
                count: 0,
            });
            assert_eq!(change, expected);
            assert_eq!(machine.plan() == Next::Never, result == Disabled);
        }
    }
}

#[test]
fn up_is_what_the_state_says() {
    for alpha in [false, true] {
        for state in STATES {
            let machine = machine(
                Demands {
                    alpha,
                    ..demands(3, 1)
                },
                state,
            );
            assert_eq!(machine.up(), state == Alive || state == UnInit && !alpha);
        }
    }
}

#[test]
fn one_less_than_demanded_changes_nothing() {
    for (count, rise) in [(1, 1), (2, 1), (3, 2), (255, 255)] {
        for failure in [Evidence::Unreachable, Evidence::Dead] {
            let mut machine = machine(demands(count, rise), Alive);
            for n in 1..=count {
                let change = machine.handle(failure);
                assert_eq!(change.is_some(), n == count);
                assert_eq!(machine.fails(), n);
                assert_eq!(machine.handle(Evidence::None), None);
            }
            for n in 1..=rise {
                assert_eq!(machine.handle(GOOD).is_some(), n == rise);
            }
            assert_eq!(machine.state(), Alive);
            // A success between them begins the count anew.
            for _ in 0..3 {
                for _ in 1..count {
                    assert_eq!(machine.handle(failure), None);
                }
                assert_eq!(machine.handle(GOOD), None);
            }
        }
    }
}

#[test]
fn failures_of_both_kinds_count_together_and_the_last_one_names_it() {
    let mut machine = machine(demands(3, 1), Alive);
    assert_eq!(machine.handle(Evidence::Unreachable), None);
    assert_eq!(machine.handle(Evidence::Dead), None);
    let change = machine.handle(Evidence::Unreachable);
    assert_eq!(
        change,
        Some(Change {
            from: Alive,
            to: Unreach,
            count: 3
        })
    );
    // Another reason needs as many of its own.
    assert_eq!(machine.handle(Evidence::Dead), None);
    assert_eq!(machine.handle(Evidence::Dead), None);
    let change = machine.handle(Evidence::Dead);
    assert_eq!(
        change,
        Some(Change {
            from: Unreach,
            to: Dead,
            count: 3
        })
    );
}

#[test]
fn a_server_that_was_down_stays_so_until_it_has_proved_otherwise() {
    for (remembered, begins) in [
        (None, UnInit),
        (Some(Alive), UnInit),
        (Some(Dead), Dead),
        (Some(Unreach), Unreach),
        (Some(Disabled), UnInit),
    ] {
        assert_eq!(Machine::new(demands(3, 2), remembered).state(), begins);
    }
}

#[test]
fn alpha_needs_as_many_successes_as_a_return() {
    let mut machine = Machine::new(
        Demands {
            alpha: true,
            ..demands(3, 2)
        },
        None,
    );
    assert!(!machine.up());
    assert_eq!(machine.handle(GOOD), None);
    assert!(!machine.up());
    assert_eq!(
        machine.handle(GOOD).map(|c| (c.to, c.count)),
        Some((Alive, 2))
    );
    assert!(machine.up());
}

#[test]
fn retries_are_immediate_while_there_is_doubt() {
    for (count, retries, expected) in [
        // Until it is sure, then by the interval.
        (
            3,
            2,
            vec![Next::Retry, Next::Retry, Next::Interval, Next::Interval],
        ),
        (1, 5, vec![Next::Interval, Next::Interval]),
        (
            4,
            1,
            vec![
                Next::Retry,
                Next::Interval,
                Next::Retry,
                Next::Interval,
                Next::Interval,
            ],
        ),
        (3, 0, vec![Next::Interval; 4]),
    ] {
        let mut machine = machine(
            Demands {
                retries,
                ..demands(count, 1)
            },
            Alive,
        );
        for (n, expected) in expected.into_iter().enumerate() {
            machine.handle(Evidence::Dead);
            assert_eq!(
                machine.plan(),
                expected,
                "count {count}, retries {retries}, failure {n}"
            );
        }
        machine.handle(GOOD);
        assert_eq!(machine.plan(), Next::Interval);
    }
}

#[test]
fn round_trip_times_are_smoothed() {
    let mut machine = machine(demands(3, 1), UnInit);
    for (new, smoothed) in [(1000, 1000), (2000, 1250), (2000, 1437), (0, 1077)] {
        machine.handle(Evidence::Good {
            rtt: Some(new),
            weight: None,
        });
        assert_eq!(machine.rtt(), Some(smoothed));
    }
    machine.handle(Evidence::Dead);
    machine.handle(Evidence::Good {
        rtt: None,
        weight: Some(Weight::Set(5)),
    });
    assert_eq!(
        (machine.rtt(), machine.weight()),
        (Some(1077), Some(Weight::Set(5)))
    );
    assert_eq!(smooth(u64::MAX, u64::MAX), u64::MAX);
}

#[test]
fn other_demands_begin_to_count_anew() {
    let mut machine = machine(demands(3, 1), Alive);
    machine.handle(Evidence::Dead);
    machine.handle(Evidence::Dead);
    machine.demand(demands(2, 1));
    assert_eq!((machine.state(), machine.fails()), (Alive, 0));
    assert_eq!(machine.handle(Evidence::Dead), None);
    assert!(machine.handle(Evidence::Dead).is_some());
}

/// What the state has to be after a history, told from the history alone.
fn judge(demands: Demands, history: &[Evidence]) -> HealthState {
    let good = |e: &Evidence| matches!(e, Evidence::Good { .. });
    let evidence: Vec<Evidence> = history
        .iter()
        .copied()
        .filter(|e| *e != Evidence::None)
        .collect();
    let run = |end: usize, of: &dyn Fn(&Evidence) -> bool| {
        evidence[..end].iter().rev().take_while(|e| of(e)).count() as u32
    };
    let mut state = UnInit;
    for end in 1..=evidence.len() {
        let last = evidence[end - 1];
        let fails = run(end, &|e| !good(e));
        let alike = run(end, &|e| *e == last);
        let successes = run(end, &good);
        let named = if last == Evidence::Unreachable {
            Unreach
        } else {
            Dead
        };
        let rise = if state == UnInit && !demands.alpha {
            1
        } else {
            demands.rise
        };
        state = match state {
            _ if good(&last) && successes >= rise => Alive,
            UnInit | Alive if fails >= demands.count => named,
            Unreach | Dead if !good(&last) && alike >= demands.count => named,
            same => same,
        };
    }
    state
}

/// A network with moods that last: quiet, lossy, cut off, half dead, and a checker that sometimes cannot ask.
fn weather(random: &mut Random) -> Vec<Evidence> {
    let mut history = Vec::new();
    while history.len() < 120 {
        // In 64ths: good, unreachable, dead; the rest is nothing.
        let [good, unreachable, dead] = match random.up_to(5) {
            0 => [63, 0, 0],
            1 => [40, 12, 10],
            2 => [0, 64, 0],
            3 => [2, 0, 60],
            4 => [20, 20, 20],
            _ => [10, 0, 0],
        };
        for _ in 0..=random.up_to(25) {
            let dice = random.up_to(63);
            history.push(match dice {
                _ if dice < good => GOOD,
                _ if dice < good + unreachable => Evidence::Unreachable,
                _ if dice < good + unreachable + dead => Evidence::Dead,
                _ => Evidence::None,
            });
        }
    }
    history
}

#[test]
fn flapping_networks_never_change_a_state_without_the_evidence_that_is_demanded() {
    let mut changes = 0;
    for seed in 0..400 {
        let random = &mut Random::new(seed);
        let pick = |random: &mut Random| 1 + random.up_to(4) as u32;
        let demands = Demands {
            count: pick(random),
            rise: pick(random),
            retries: pick(random) - 1,
            alpha: random.up_to(1) == 1,
        };
        let history = weather(random);
        let mut machine = Machine::new(demands, None);
        for end in 1..=history.len() {
            let before = machine.state();
            let change = machine.handle(history[end - 1]);
            machine.plan();
            let expected = judge(demands, &history[..end]);
            assert_eq!(
                machine.state(),
                expected,
                "seed {seed}, result {end}, {demands:?}"
            );
            assert_eq!(change.is_some(), before != expected);
            let Some(change) = change else { continue };
            changes += 1;
            assert_eq!((change.from, change.to), (before, expected));
            // The results that were demanded are there, in a row, and nothing speaks against them.
            let seen: Vec<&Evidence> = history[..end]
                .iter()
                .rev()
                .filter(|e| **e != Evidence::None)
                .collect();
            let needed = match change.to {
                Alive if before == UnInit && !demands.alpha => 1,
                Alive => demands.rise,
                _ => demands.count,
            };
            let good = change.to == Alive;
            let run = seen
                .iter()
                .take_while(|e| matches!(e, Evidence::Good { .. }) == good);
            assert!(run.count() as u32 >= needed, "seed {seed}, result {end}");
        }
    }
    assert!(
        changes > 3000,
        "the weather was too fine: {changes} changes"
    );
}
