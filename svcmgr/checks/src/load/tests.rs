//! The law by tables, and the loop in a simulation: servers whose load follows from the share that they are given.

use std::collections::VecDeque;

use super::*;
use crate::random::Random;

fn group(readings: &[Reading]) -> Group {
    let mut group = Group::new(10);
    for (server, reading) in (0..).zip(readings) {
        group.join(server);
        group.take(server, Some(*reading));
    }
    group
}

#[test]
fn twice_the_load_is_half_the_share() {
    use Reading::{Busy, Share, Time};
    for (given, then) in [
        (vec![Busy(0.0), Busy(0.0)], vec![1000, 1000]),
        // 0.2 is slack.
        (vec![Busy(0.2), Busy(0.5), Busy(0.8)], vec![1000, 570, 400]),
        (vec![Busy(0.0), Busy(1.0)], vec![1000, 170]),
        (vec![Busy(0.0), Busy(5.0)], vec![1000, 100]),
        // A millisecond is slack.
        (vec![Time(100.0), Time(150.0)], vec![1000, 960]),
        (vec![Time(1000.0), Time(9000.0)], vec![1000, 200]),
        (
            vec![Share(0.75), Share(1.0), Share(0.0)],
            vec![750, 1000, 100],
        ),
    ] {
        let told: Vec<u16> = group(&given)
            .settle()
            .into_iter()
            .map(|(_, share)| share)
            .collect();
        assert_eq!(told, then, "given {given:?}");
    }
}

#[test]
fn what_is_not_known_counts_as_the_average() {
    let mut group = group(&[Reading::Busy(0.2), Reading::Busy(0.5)]);
    group.join(7);
    assert_eq!(group.settle(), [(0, 1000), (1, 570), (7, 790)]);
    // Readings that fail: the third one in a row counts.
    for _ in 0..MISSES - 1 {
        group.take(1, None);
    }
    assert_eq!(group.settle(), []);
    group.take(1, None);
    assert_eq!(group.settle(), [(1, 1000), (7, 1000)]);
    // All unknown: as configured.
    (0..MISSES).for_each(|_| group.take(0, None));
    assert_eq!(group.settle(), []);
}

#[test]
fn who_goes_is_compared_with_nobody() {
    let mut group = group(&[Reading::Busy(0.0), Reading::Busy(0.5), Reading::Busy(0.5)]);
    assert_eq!(group.settle(), [(0, 1000), (1, 290), (2, 290)]);
    group.leave(0);
    assert_eq!(group.settle(), [(1, 1000), (2, 1000)]);
    // Back, and nothing is known of it but that it is there.
    group.join(0);
    group.take(0, Some(Reading::Busy(0.5)));
    assert_eq!(group.settle(), [(0, 1000)]);
}

#[test]
fn little_differences_are_not_told() {
    let mut group = group(&[Reading::Busy(0.40), Reading::Busy(0.40)]);
    group.settle();
    for n in 0..100 {
        let noise = if n % 2 == 0 { 0.43 } else { 0.37 };
        group.take(0, Some(Reading::Busy(noise)));
        assert_eq!(group.settle(), [], "after {n} readings");
    }
}

/// Servers that are read with a delay and some noise. What they have to do besides is `own`, what all connections together
/// would make of one of them is `work / capacity`.
struct World {
    own: Vec<f64>,
    capacity: Vec<f64>,
    work: f64,
    delay: usize,
    past: VecDeque<Vec<f64>>,
    random: Random,
}

impl World {
    fn busy(&self, shares: &[f64]) -> Vec<f64> {
        let all: f64 = shares.iter().sum();
        let one = |(share, (own, capacity)): (&f64, (&f64, &f64))| {
            (own + self.work * share / all / capacity).min(1.0)
        };
        shares
            .iter()
            .zip(self.own.iter().zip(&self.capacity))
            .map(one)
            .collect()
    }

    fn step(&mut self, group: &mut Group) -> Vec<(u32, u16)> {
        let count = u32::try_from(self.own.len()).unwrap();
        let shares: Vec<f64> = (0..count)
            .map(|n| f64::from(group.share(n).unwrap_or(WHOLE)))
            .collect();
        self.past.push_back(self.busy(&shares));
        if self.past.len() > self.delay + 1 {
            self.past.pop_front();
        }
        for (server, busy) in (0..).zip(self.past[0].clone()) {
            let noise = self.random.up_to(40) as f64 / 1000.0 - 0.02;
            group.take(server, Some(Reading::Busy((busy + noise).clamp(0.0, 1.0))));
        }
        group.settle()
    }

    /// The shares at which the law is content, found by going there slowly.
    fn predicted(&self, least: f64) -> Vec<f64> {
        let mut shares = vec![1.0; self.own.len()];
        for _ in 0..2000 {
            let burdens: Vec<f64> = self
                .busy(&shares)
                .iter()
                .map(|busy| busy + SLACK.0)
                .collect();
            let lightest = burdens.iter().copied().fold(f64::INFINITY, f64::min);
            for (share, burden) in shares.iter_mut().zip(burdens) {
                *share += 0.05 * ((lightest / burden).max(least) - *share);
            }
        }
        let all: f64 = shares.iter().sum();
        shares.iter().map(|share| share / all).collect()
    }
}

/// Given servers of different size that others use, too, when load comes and goes, then each time shares go where the law
/// says, and rest there. For 300 seeds, and delays up to four readings.
#[test]
fn shares_settle_where_the_law_says_and_rest_there() {
    for seed in 1..=300u64 {
        let mut random = Random::new(seed);
        let count = 2 + usize::try_from(random.up_to(6)).unwrap();
        let mut part = |of: u64| random.up_to(of) as f64 / 100.0;
        let mut world = World {
            own: (0..count).map(|_| part(30)).collect(),
            capacity: (0..count).map(|_| 1.0 + part(300)).collect(),
            work: part(80) * count as f64,
            delay: usize::try_from(seed % 5).unwrap(),
            past: VecDeque::new(),
            random: Random::new(seed + 1000),
        };
        let mut group = Group::new(10);
        (0..u32::try_from(count).unwrap()).for_each(|server| group.join(server));
        // A burden comes, and goes.
        for own in [world.own[0], 0.95, world.own[0]] {
            world.own[0] = own;
            for _ in 0..80 {
                world.step(&mut group);
            }
            let late: Vec<_> = (0..60).flat_map(|_| world.step(&mut group)).collect();
            assert!(
                late.len() <= count,
                "seed {seed}: {} changes after it should have come to rest: {late:?}",
                late.len()
            );
            let told: Vec<f64> = (0..count as u32)
                .map(|n| f64::from(group.share(n).unwrap()))
                .collect();
            let all: f64 = told.iter().sum();
            for (server, (told, predicted)) in told.iter().zip(world.predicted(0.1)).enumerate() {
                let share = told / all;
                // The dead band, and the noise.
                assert!(
                    (share - predicted).abs() <= 0.06,
                    "seed {seed}, server {server}: {share:.3} of new connections, predicted {predicted:.3}"
                );
            }
        }
    }
}

#[test]
fn shares_stay_within_their_bounds_whatever_is_read() {
    for seed in 1..=200 {
        let mut random = Random::new(seed);
        let least = 1 + u8::try_from(random.up_to(99)).unwrap();
        let mut group = Group::new(least);
        for _ in 0..500 {
            let server = u32::try_from(random.up_to(5)).unwrap();
            let value = random.up_to(3000) as f64 / 1000.0 - 1.0;
            match random.up_to(6) {
                0 => group.join(server),
                1 => group.leave(server),
                2 => group.take(server, None),
                3 => group.take(server, Some(Reading::Busy(value))),
                4 => group.take(server, Some(Reading::Time(value * 1e9))),
                _ => group.take(server, Some(Reading::Share(value))),
            }
            for (server, share) in group.settle() {
                let bounds = u16::from(least) * 10..=WHOLE;
                assert!(
                    bounds.contains(&share),
                    "seed {seed}, server {server}: {share}"
                );
            }
        }
    }
}
