//! Each server in turn, as often as its weight says (`ip_vs_wrr.c`), exact over every cycle and well mixed within.
//!
//! The turn walks around a ring of W places, W being the sum of the weights, in steps that have no common factor with
//! W: after W choices it has been on every place once, and so at every server exactly as often as its weight. The step
//! is next to W divided by the golden ratio, whose multiples spread the most evenly of all: in any row of k choices a
//! server is met k·w/W times, give or take a few (the kernel gives the heaviest its whole surplus in one burst). Which
//! server has a place is found by [`super::weights::Row`], so that memory does not grow with W.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::weights::{Row, gcd};
use super::{Candidates, Mode, NoChoice, Request, Select, Turns};

/// Turns that may fall on full servers before one is taken out of turn. With golden steps, any server with a 20th of
/// the weight is met within this many.
const FULL_TRIES: usize = 64;

/// See the module's text.
#[derive(Debug)]
pub struct WeightedRoundRobin {
    row: Row,
    step: u64,
    turns: Arc<Turns>,
}

impl WeightedRoundRobin {
    /// Over these candidates, going on from where `turns` stands.
    pub fn new(among: &Candidates, turns: Arc<Turns>) -> WeightedRoundRobin {
        let row = Row::new(among.all().iter().map(|c| c.terms.weight as u64));
        WeightedRoundRobin {
            step: golden_step(row.total()),
            row,
            turns,
        }
    }

    /// This turn's place, and the next turn.
    fn turn(&self, cursor: u64) -> (u64, u64) {
        let total = self.row.total();
        let place = if cursor < total {
            cursor
        } else {
            cursor % total
        };
        let next = place + self.step;
        (place, if next < total { next } else { next - total })
    }
}

/// The number next to `total` divided by the golden ratio that has no factor in common with it.
fn golden_step(total: u64) -> u64 {
    // 2^64 divided by the golden ratio.
    let near = ((total as u128 * 0x9e37_79b9_7f4a_7c15) >> 64) as u64;
    (0..total)
        .flat_map(|distance| [near.wrapping_add(distance), near.wrapping_sub(distance)])
        .find(|&step| step > 0 && step <= total && gcd(step, total) == 1)
        .unwrap_or(1)
        % total.max(2)
}

impl Select for WeightedRoundRobin {
    fn select(&self, among: &Candidates, request: &Request, mode: Mode) -> Result<u32, NoChoice> {
        if among.available().is_empty() {
            return Err(NoChoice::AtLimits);
        }
        let mut cursor = self.turns.cursor.load(Ordering::Relaxed);
        let mut place = 0;
        let available = (0..FULL_TRIES).filter_map(|_| {
            let here = match mode {
                Mode::Preview => cursor,
                Mode::Choose => {
                    let next = |cursor| Some(self.turn(cursor).1);
                    let moved =
                        self.turns
                            .cursor
                            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
                    match moved {
                        Ok(cursor) | Err(cursor) => cursor,
                    }
                }
            };
            (place, cursor) = self.turn(here);
            let choice = self.row.at(place);
            among.available().contains(choice).then_some(choice)
        });
        if let Ok(choice) = among.settle(available, request.hash, request) {
            return Ok(choice);
        }
        // Nearly all of the weight is full: whoever is left takes it, from a place as good as random.
        let from = (request.hash as u128 * among.count() as u128) >> 64;
        among.next_available(from as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_visit_every_place() {
        for total in 1..2000u64 {
            let step = golden_step(total);
            assert!(total == 1 || gcd(step, total) == 1, "{total}: {step}");
            assert!(step < total.max(2));
            let golden = total as f64 * 0.618_034;
            assert!((step as f64 - golden).abs() <= 12.0, "{total}: {step}");
        }
        assert_eq!(gcd(golden_step(6_553_500_000), 6_553_500_000), 1);
    }
}
