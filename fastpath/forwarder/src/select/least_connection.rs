//! The server with the least load, by four measures: lc, wlc, sed and nq of IPVS (`ip_vs_lc.c`, `ip_vs_wlc.c`,
//! `ip_vs_sed.c`, `ip_vs_nq.c`). The kernel walks along all servers for every choice; here a [`Tournament`] knows it.
//!
//! Where the kernel lets the first of equals win, and so sends everything to one server as long as all are idle, ours
//! take turns by weight: each choice moves the server's turn on by one over its weight (start-time fair queueing).
//! In slow start a server counts with its reduced weight, and does not refuse.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::tournament::{NEVER, Tournament};
use super::{Candidates, Mode, NoChoice, Request, Select, Turns};
use crate::load::Connections;
use crate::spec::Algorithm;

/// What "least" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Lc: 256 × active + inactive, whatever the weight.
    Connections,
    /// Wlc: (256 × active + inactive) / weight.
    Weighted,
    /// Sed: (active + 1) / weight.
    Delay,
    /// Nq: 0 if nothing is active, otherwise (active + 1) / weight.
    Idle,
}

impl Measure {
    /// The measure of an algorithm that has one.
    pub const fn of(algorithm: Algorithm) -> Measure {
        match algorithm {
            Algorithm::LeastConnection => Measure::Connections,
            Algorithm::ShortestExpectedDelay => Measure::Delay,
            Algorithm::NeverQueue => Measure::Idle,
            _ => Measure::Weighted,
        }
    }

    fn overhead(self, connections: Connections) -> u64 {
        let active = connections.active as u64;
        match self {
            Measure::Connections | Measure::Weighted => overhead(connections),
            Measure::Idle if active == 0 => 0,
            Measure::Delay | Measure::Idle => active + 1,
        }
    }
}

/// What connections weigh (`ip_vs_dest_conn_overhead`): an active one as much as 256 inactive ones.
pub const fn overhead(connections: Connections) -> u64 {
    ((connections.active as u64) << 8) + connections.inactive as u64
}

/// How far a choice moves a turn when the weight is 1.
const ROUND: u64 = 1 << 24;

/// See the module's text.
#[derive(Debug)]
pub struct LeastConnection {
    measure: Measure,
    tree: Tournament,
    turns: Arc<Turns>,
}

impl LeastConnection {
    /// By this measure.
    pub fn new(measure: Measure, among: &Candidates, turns: Arc<Turns>) -> LeastConnection {
        let players = (0..among.count()).map(|index| {
            let turn = &among.get(index).account.load().turn;
            (key(measure, among, index), turn.load(Ordering::Relaxed))
        });
        LeastConnection {
            measure,
            tree: Tournament::new(players),
            turns,
        }
    }

    /// Weight as far as the measure goes by it, as a fraction.
    fn weight(measure: Measure, among: &Candidates, index: u32) -> (u64, u64) {
        let (part, whole) = among.share(index, among.now());
        let weight = match measure {
            Measure::Connections => 1,
            Measure::Weighted | Measure::Delay | Measure::Idle => among.weight(index),
        };
        (weight * part as u64, whole as u64)
    }

    /// The least loaded.
    pub fn least(&self) -> Option<u32> {
        self.tree.winner()
    }

    /// Load of a candidate in the order of this measure.
    pub fn load(&self, index: u32) -> u64 {
        self.tree.key(index)
    }

    /// Counts a choice: the turn moves on.
    pub fn picked(&self, among: &Candidates, index: u32) {
        let (part, whole) = LeastConnection::weight(self.measure, among, index);
        // Who was busy or away for long does not get all those turns back.
        let begins = self.turns.not_before(self.tree.turn(index));
        let ends = begins.wrapping_add((ROUND * whole / part.max(1)).max(1));
        among
            .get(index)
            .account
            .load()
            .turn
            .store(ends, Ordering::Relaxed);
        self.tree.set_turn(index, ends);
    }
}

/// Load of a candidate, comparable with others': exact up to 16 million active connections.
fn key(measure: Measure, among: &Candidates, index: u32) -> u64 {
    if !among.available().contains(index) {
        return NEVER;
    }
    let (part, whole) = LeastConnection::weight(measure, among, index);
    let overhead = measure.overhead(among.connections(index));
    // 32 binary places tell any two fractions apart whose denominators have 16 bits.
    let key = ((overhead as u128) << 32) * whole as u128 / part.max(1) as u128;
    key.min(NEVER as u128 - 1) as u64
}

impl Select for LeastConnection {
    fn select(&self, among: &Candidates, _: &Request, mode: Mode) -> Result<u32, NoChoice> {
        let choice = self.least().ok_or(NoChoice::AtLimits)?;
        if mode == Mode::Choose {
            self.picked(among, choice);
        }
        Ok(choice)
    }

    fn changed(&self, among: &Candidates, index: u32) {
        loop {
            let new = key(self.measure, among, index);
            self.tree.set_key(index, new);
            // Of two workers that change the same server, the one with the older count must not have the last word.
            if key(self.measure, among, index) == new {
                return;
            }
        }
    }
}
