//! Each server in turn (`ip_vs_rr.c`). The turn belongs to the rule and is shared by all workers, so that the shares
//! are exact. One that is full, or refuses in its slow start, loses its turn to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Candidates, Mode, NoChoice, Request, Select, Turns};

/// See the module's text.
#[derive(Debug)]
pub struct RoundRobin(pub Arc<Turns>);

impl RoundRobin {
    fn at(turn: u64, among: &Candidates, request: &Request) -> Result<u32, NoChoice> {
        // The turn of a larger set may stand behind the end of this one.
        let from = if turn < among.count() as u64 {
            turn as u32
        } else {
            0
        };
        let first = among.next_available(from)?;
        if !among.any_slow(request.now) {
            return Ok(first);
        }
        let after = |&last: &u32| among.next_available(last + 1).ok();
        among.settle(
            std::iter::successors(Some(first), after),
            request.hash,
            request,
        )
    }
}

impl Select for RoundRobin {
    fn select(&self, among: &Candidates, request: &Request, mode: Mode) -> Result<u32, NoChoice> {
        let cursor = &self.0.cursor;
        let mut turn = cursor.load(Ordering::Relaxed);
        loop {
            let choice = RoundRobin::at(turn, among, request)?;
            if mode == Mode::Preview {
                return Ok(choice);
            }
            let next = (choice as u64 + 1) % among.count() as u64;
            match cursor.compare_exchange_weak(turn, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(choice),
                Err(seen) => turn = seen,
            }
        }
    }
}
