//! The servers in the order of their weights, highest first: fo (`ip_vs_fo.c`) takes the first that is not full, ovf
//! (`ip_vs_ovf.c`) the first whose active connections are fewer than its weight. Of equal weights the one that was
//! configured first.

use super::bitmap::Bitmap;
use super::{Candidates, Mode, NoChoice, Request, Select};

/// Candidates by weight, and which of them may be taken.
#[derive(Debug)]
struct Order {
    /// Candidate of each rank.
    by_rank: Box<[u32]>,
    /// Rank of each candidate.
    rank: Box<[u32]>,
    eligible: Bitmap,
}

impl Order {
    fn new(among: &Candidates) -> Order {
        let mut by_rank: Box<[u32]> = (0..among.count()).collect();
        by_rank.sort_by_key(|&index| std::cmp::Reverse(among.weight(index)));
        let mut rank = vec![0; by_rank.len()];
        for (n, &index) in by_rank.iter().enumerate() {
            rank[index as usize] = n as u32;
        }
        Order {
            by_rank,
            rank: rank.into(),
            eligible: Bitmap::new(among.count()),
        }
    }

    fn set(&self, index: u32, eligible: bool) {
        self.eligible.set(self.rank[index as usize], eligible);
    }

    fn first(&self, among: &Candidates, request: &Request) -> Result<u32, NoChoice> {
        let ranks =
            std::iter::successors(self.eligible.next(0), |&rank| self.eligible.next(rank + 1));
        among.settle(
            ranks.map(|rank| self.by_rank[rank as usize]),
            request.hash,
            request,
        )
    }
}

/// Fo.
#[derive(Debug)]
pub struct Failover(Order);

impl Failover {
    /// Over these candidates.
    pub fn new(among: &Candidates) -> Failover {
        let this = Failover(Order::new(among));
        (0..among.count()).for_each(|index| this.changed(among, index));
        this
    }
}

impl Select for Failover {
    fn select(&self, among: &Candidates, request: &Request, _: Mode) -> Result<u32, NoChoice> {
        self.0.first(among, request)
    }

    fn changed(&self, among: &Candidates, index: u32) {
        let eligible = || among.available().contains(index);
        converge(eligible, |eligible| self.0.set(index, eligible));
    }
}

/// Ovf.
#[derive(Debug)]
pub struct Overflow(Order);

impl Overflow {
    /// Over these candidates.
    pub fn new(among: &Candidates) -> Overflow {
        let this = Overflow(Order::new(among));
        (0..among.count()).for_each(|index| this.changed(among, index));
        this
    }
}

impl Select for Overflow {
    fn select(&self, among: &Candidates, request: &Request, _: Mode) -> Result<u32, NoChoice> {
        self.0.first(among, request)
    }

    fn changed(&self, among: &Candidates, index: u32) {
        let eligible = || {
            among.available().contains(index)
                && (among.connections(index).active as u64) < among.weight(index)
        };
        converge(eligible, |eligible| self.0.set(index, eligible));
    }
}

/// Writes down what holds until it does: another worker may write at the same time what held before.
pub(super) fn converge(holds: impl Fn() -> bool, write: impl Fn(bool)) {
    loop {
        let now = holds();
        write(now);
        if holds() == now {
            return;
        }
    }
}
