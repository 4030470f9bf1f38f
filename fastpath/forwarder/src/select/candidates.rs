//! The servers that a rule may choose from, and what every algorithm asks about them: whether one is full, and how far
//! one that came up has got in its slow start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::bitmap::Bitmap;
use super::{NoChoice, Request};
use crate::counters::Account;
use crate::hash::{FIXED_KEYS, fold};
use crate::load::{Connections, Thresholds};
use crate::spec::ServerId;

/// What does not change about a candidate while its selector lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Its id.
    pub id: ServerId,
    /// What a hash knows it by: see [`crate::spec::ServerSpec::place`].
    pub place: u32,
    /// Its weight, 1..=65535.
    pub weight: u16,
    /// When it is full.
    pub thresholds: Thresholds,
    /// When it came up, in seconds since boot; 0 for long ago.
    pub up_since: u32,
}

/// A server that takes new connections.
#[derive(Debug)]
pub struct Candidate {
    /// Id, weight, thresholds.
    pub terms: Terms,
    /// Its counters.
    pub account: Arc<Account>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Candidates {
    list: Box<[Candidate]>,
    /// Those that are not full.
    available: Bitmap,
    slow_start: u32,
    /// When the last slow start ends.
    settled: u32,
    /// The latest time that anybody told.
    now: AtomicU32,
}

/// Other servers that a flow is offered to when those in slow start refuse it, before the first one has to take it.
pub const SLOW_START_TRIES: usize = 8;

impl Candidates {
    /// In configured order; at least one. `slow_start` in seconds.
    pub fn new(list: Vec<Candidate>, slow_start: u32) -> Candidates {
        let settled = list
            .iter()
            .filter(|candidate| slow_start > 0 && candidate.terms.up_since > 0)
            .map(|candidate| candidate.terms.up_since.saturating_add(slow_start))
            .max()
            .unwrap_or(0);
        let among = Candidates {
            available: Bitmap::new(list.len() as u32),
            list: list.into(),
            slow_start,
            settled,
            now: AtomicU32::new(0),
        };
        (0..among.count()).for_each(|index| among.judge(index));
        among
    }

    /// How many there are.
    #[inline]
    pub fn count(&self) -> u32 {
        self.list.len() as u32
    }

    /// All of them.
    pub fn all(&self) -> &[Candidate] {
        &self.list
    }

    /// One of them.
    #[inline]
    pub fn get(&self, index: u32) -> &Candidate {
        &self.list[index as usize]
    }

    /// Weight of one of them.
    #[inline]
    pub fn weight(&self, index: u32) -> u64 {
        self.get(index).terms.weight as u64
    }

    /// Its connections now.
    #[inline]
    pub fn connections(&self, index: u32) -> Connections {
        self.get(index).account.load().connections()
    }

    /// Those that are not full.
    #[inline]
    pub fn available(&self) -> &Bitmap {
        &self.available
    }

    /// The next one from `from` on that is not full.
    #[inline]
    pub fn next_available(&self, from: u32) -> Result<u32, NoChoice> {
        self.available.next_around(from).ok_or(NoChoice::AtLimits)
    }

    /// Looks anew whether a candidate is full.
    pub fn judge(&self, index: u32) {
        let candidate = self.get(index);
        loop {
            let full = candidate.account.load().judge(candidate.terms.thresholds);
            self.available.set(index, !full);
            // Another worker may have changed its mind between the two.
            if candidate.account.load().is_full() == full {
                return;
            }
        }
    }

    /// The latest time told, in seconds since boot.
    pub fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// Tells the time.
    #[inline]
    pub fn tell(&self, now: u32) {
        if self.now() != now {
            self.now.store(now, Ordering::Relaxed);
        }
    }

    /// Whether any candidate may be in slow start.
    #[inline]
    pub fn any_slow(&self, now: u32) -> bool {
        now < self.settled
    }

    /// Share of its weight that a candidate has at this time, as a fraction: (1, 1) when it is in full service.
    #[inline]
    pub fn share(&self, index: u32, now: u32) -> (u32, u32) {
        let since = self.get(index).terms.up_since;
        if since == 0 || !self.any_slow(now) {
            return (1, 1);
        }
        let elapsed = now.saturating_sub(since).max(1);
        if elapsed >= self.slow_start {
            return (1, 1);
        }
        (elapsed, self.slow_start)
    }

    /// Whether a candidate accepts a flow, which in slow start it does with a probability that rises with time. The
    /// same for the same `key`: who has been accepted once stays so.
    #[inline]
    pub fn accepts(&self, index: u32, key: u64, now: u32) -> bool {
        let (part, whole) = self.share(index, now);
        if part == whole {
            return true;
        }
        let id = self.get(index).terms.id as u64;
        let coin = fold(
            key ^ FIXED_KEYS[2],
            fold(id ^ FIXED_KEYS[3], FIXED_KEYS[0]) | 1,
        ) >> 32;
        coin * (whole as u64) < (part as u64) << 32
    }

    /// The first of `choices` that accepts the flow, of at most [`SLOW_START_TRIES`]; otherwise the first of all,
    /// because somebody has to.
    #[inline]
    pub fn settle(
        &self,
        choices: impl Iterator<Item = u32>,
        key: u64,
        request: &Request,
    ) -> Result<u32, NoChoice> {
        let mut first = None;
        for choice in choices.take(SLOW_START_TRIES) {
            if self.accepts(choice, key, request.now) {
                return Ok(choice);
            }
            first = first.or(Some(choice));
        }
        first.ok_or(NoChoice::AtLimits)
    }
}
