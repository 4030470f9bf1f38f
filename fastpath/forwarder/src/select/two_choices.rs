//! Two servers drawn by weight, and of these the one with less load for its weight (`ip_vs_twos.c`; Mitzenmacher, "The
//! Power of Two Choices in Randomized Load Balancing"). The draws follow from the flow's hash, so that a packet that
//! comes again draws the same.

use super::least_connection::overhead;
use super::weights::Row;
use super::{Candidates, Mode, NoChoice, Request, Select};
use crate::hash::{FIXED_KEYS, fold};

/// Draws before a server is taken that was not drawn, because nearly all of the weight is full.
const DRAWS: u64 = 32;

/// See the module's text.
#[derive(Debug)]
pub struct TwoChoices(Row);

impl TwoChoices {
    /// Over these candidates.
    pub fn new(among: &Candidates) -> TwoChoices {
        TwoChoices(Row::new(among.all().iter().map(|c| c.terms.weight as u64)))
    }
}

impl Select for TwoChoices {
    fn select(&self, among: &Candidates, request: &Request, _: Mode) -> Result<u32, NoChoice> {
        let drawn = |n: u64| {
            self.0.draw(fold(
                request.hash ^ FIXED_KEYS[0],
                FIXED_KEYS[1].wrapping_add(n << 1),
            ))
        };
        let mut draws = (0..DRAWS)
            .map(drawn)
            .filter(|&index| among.available().contains(index));
        // In slow start a server that is drawn may refuse; another draw takes its place.
        let mut draw = || among.settle(draws.by_ref(), request.hash, request);
        let Ok(first) = draw() else {
            let from = (request.hash as u128 * among.count() as u128) >> 64;
            return among.next_available(from as u32);
        };
        let Ok(second) = draw() else {
            return Ok(first);
        };
        let load = |index| overhead(among.connections(index)) as u128;
        let lighter = load(second) * (among.weight(first) as u128)
            < load(first) * among.weight(second) as u128;
        Ok(if lighter { second } else { first })
    }
}
