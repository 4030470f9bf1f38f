//! Making way under pressure: which connections may be given up, and how a worker gets their entries back at once.
//!
//! The sweeper comes once a second, too seldom for a flood. A worker that ends a connection to make way for another
//! keeps the entry in a limbo of its own and gives it back after the batch, as soon as every worker has finished the
//! batch that it was in. Until then it is marked as owned, so that the sweeper leaves it alone. The memory is fixed.

use std::sync::atomic::{AtomicI32, Ordering, fence};

use super::entry::{Connection, State, Status};
use super::{Table, WATCHED};
use crate::hash::fold;

/// Entries that are looked at to find one that may go. Linux's conntrack looks at 8 buckets (`NF_CT_EVICTION_RANGE`,
/// net/netfilter/nf_conntrack_core.c). With half of the entries fit to go, one search in 65,536 finds none.
const LOOKS: u64 = 16;
/// Entries of one lot.
const LOT: usize = 1024;

/// How many connections are embryonic, on a cache line that packets of other connections do not read.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Embryos(AtomicI32);

impl Embryos {
    pub fn copy(&self) -> Embryos {
        Embryos(AtomicI32::new(self.0.load(Ordering::Relaxed)))
    }

    pub fn get(&self) -> u32 {
        // A worker may end a connection before the one that began it has counted it.
        self.0.load(Ordering::Relaxed).max(0) as u32
    }

    #[inline(always)]
    pub fn began(&self, state: State) {
        if state.is_embryonic() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub fn changed(&self, old: State, new: State) {
        if old != new {
            self.ended(old);
            self.began(new);
        }
    }

    #[inline(always)]
    pub fn ended(&self, state: State) {
        if state.is_embryonic() {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Entries that one worker has ended and not given back yet.
pub struct Limbo {
    /// Ended since the last look at the other workers.
    young: Vec<u32>,
    /// Ended before that look, with what it saw.
    old: Vec<u32>,
    marks: Box<[u64; WATCHED]>,
}

impl Default for Limbo {
    /// An empty one; allocates all that it will ever need.
    fn default() -> Limbo {
        Limbo {
            young: Vec::with_capacity(LOT),
            old: Vec::with_capacity(LOT),
            marks: Box::new([0; WATCHED]),
        }
    }
}

impl Limbo {
    /// Whether there is nothing to give back.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }
}

impl Table {
    /// Connections of which only the first packets have been seen ([`State::is_embryonic`]).
    pub fn embryonic(&self) -> u32 {
        self.embryos.get()
    }

    /// Ends one of the connections whose state `may_go`: the longest idle one of a few that are drawn by `seed`. None
    /// if none of them may go. To be called within a batch only.
    #[cold]
    pub fn evict(
        &self,
        limbo: &mut Limbo,
        seed: u64,
        may_go: impl Fn(State) -> bool,
        now: u32,
    ) -> Option<Connection> {
        let used = self.high_water() as u64;
        if limbo.young.len() == LOT || used == 0 {
            return None;
        }
        let drawn = |n: u64| {
            let draw = fold(seed ^ n, 0x9e37_79b9_7f4a_7c15);
            (((draw >> 32) * used) >> 32) as u32
        };
        let (_, index) = (0..LOOKS)
            .map(drawn)
            .filter_map(|index| {
                let (connection, word) = self.entry(index).read();
                let fit = word.status() == Status::Live && may_go(connection.state);
                fit.then(|| (connection.idle(now), index))
            })
            .max_by_key(|(idle, _)| *idle)?;
        let connection = self.get(index)?;
        if let Some(rehearsal) = &self.rehearsal {
            self.rehearse_kill(rehearsal, index)?;
            return Some(connection);
        }
        let state = self.hot[index as usize].seize(&may_go)?;
        self.embryos.ended(state);
        self.unlink(index);
        limbo.young.push(index);
        Some(Connection {
            state,
            ..connection
        })
    }

    /// Gives back what can be given back. Between two batches.
    pub fn reclaim(&self, limbo: &mut Limbo) {
        if !limbo.old.is_empty() {
            let moved_on = self
                .progress
                .iter()
                .zip(limbo.marks.iter())
                .all(|(mark, &then)| then & 1 == 0 || mark.0.load(Ordering::Acquire) != then);
            if !moved_on {
                return;
            }
            for index in limbo.old.drain(..) {
                self.push_free(index);
            }
        }
        if limbo.young.is_empty() {
            return;
        }
        std::mem::swap(&mut limbo.old, &mut limbo.young);
        fence(Ordering::SeqCst);
        let mut busy = false;
        for (mark, progress) in limbo.marks.iter_mut().zip(&self.progress) {
            *mark = progress.0.load(Ordering::SeqCst);
            busy |= *mark & 1 == 1;
        }
        if !busy {
            for index in limbo.old.drain(..) {
                self.push_free(index);
            }
        }
    }

    /// Leaves what is in limbo to the sweeper, because its worker ends.
    pub fn abandon(&self, limbo: &mut Limbo) {
        for index in limbo.young.drain(..).chain(limbo.old.drain(..)) {
            self.hot[index as usize].disown();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::FIXED_KEYS;
    use crate::table::tests::identity;
    use crate::table::{Candidate, NO_LANE};

    fn table(capacity: u32) -> Table {
        Table::private(capacity, FIXED_KEYS).unwrap()
    }

    fn enter(table: &Table, client: u32, state: State, now: u32) {
        let candidate = Candidate {
            identity: identity(client),
            state,
            hash: client.wrapping_mul(0x9e37_79b9),
            lane: NO_LANE,
            now,
        };
        table
            .insert(candidate, |_, _| false, |_| None, |_, _, _| false)
            .unwrap();
    }

    #[test]
    fn an_entry_that_made_way_is_used_again_after_the_batch() {
        let table = table(16);
        let mut limbo = Limbo::default();
        let mut now = 0;
        for n in 0..16 {
            enter(&table, n, State::SynReceived, n);
        }
        assert_eq!((table.used(), table.embryonic()), (16, 16));
        for n in 16..200 {
            now += 1;
            table.enter(0);
            let gone = table.evict(&mut limbo, n as u64, State::is_embryonic, now);
            let gone = gone.expect("all may go");
            assert!(gone.state.is_embryonic());
            table.quiesce(0);
            table.reclaim(&mut limbo);
            assert!(limbo.is_empty());
            assert_eq!(table.used(), 15);
            enter(&table, n, State::SynReceived, now);
            assert_eq!((table.used(), table.embryonic()), (16, 16));
        }
    }

    #[test]
    fn only_what_may_go_goes() {
        let table = table(1024);
        for n in 0..512 {
            let state = if n % 2 == 0 {
                State::Established
            } else {
                State::SynReceived
            };
            enter(&table, n, state, 0);
        }
        let mut limbo = Limbo::default();
        table.enter(0);
        let gone = (0..5000)
            .filter(|&n| table.evict(&mut limbo, n, State::is_embryonic, 5).is_some())
            .count();
        assert_eq!((gone, table.embryonic()), (256, 0));
        let mut left = 0;
        table.each(|_, connection| {
            assert_eq!(connection.state, State::Established);
            left += 1;
            std::ops::ControlFlow::Continue(())
        });
        assert_eq!(left, 256);
    }

    #[test]
    fn nothing_is_given_back_while_another_worker_may_read_it() {
        let table = table(64);
        for n in 0..64 {
            enter(&table, n, State::Fresh, 0);
        }
        let mut limbo = Limbo::default();
        table.enter(1);
        table.enter(0);
        assert!(table.evict(&mut limbo, 7, State::is_embryonic, 9).is_some());
        table.quiesce(0);
        table.reclaim(&mut limbo);
        table.reclaim(&mut limbo);
        assert_eq!(table.used(), 64, "worker 1 is still in its batch");
        table.quiesce(1);
        table.reclaim(&mut limbo);
        assert_eq!(table.used(), 63);
    }

    #[test]
    fn the_sweeper_leaves_a_workers_limbo_alone_until_the_worker_ends() {
        let table = table(64);
        for n in 0..64 {
            enter(&table, n, State::Fresh, 0);
        }
        let mut limbo = Limbo::default();
        let mut sweeper = table.sweeper();
        assert!(table.evict(&mut limbo, 7, State::is_embryonic, 9).is_some());
        let keep = |_: &Connection| crate::table::Sweep::Keep;
        assert_eq!(sweeper.pass(keep).freed + sweeper.pass(keep).freed, 0);
        table.abandon(&mut limbo);
        assert_eq!(sweeper.pass(keep).freed + sweeper.pass(keep).freed, 1);
    }
}
