//! Entering a connection, without a lock and without ever entering it twice.

use std::sync::atomic::Ordering;

use super::entry::{Connection, Direction, Identity, State, Status};
use super::{Bucket, MAX_OVERFLOW, Table};

/// Why a connection could not be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertError {
    /// No free entry, or no free slot near its place in the index.
    Full,
    /// The connection is there already, or another worker is entering it right now; look it up again.
    Race,
    /// All reverse keys that were offered are taken.
    ReverseTaken,
}

/// Whether the key is taken.
#[derive(PartialEq, Eq)]
enum Claim {
    Free,
    Taken,
}

/// A connection that is to be entered.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Who it is; its NAT fields may be open yet.
    pub identity: Identity,
    /// Its first state.
    pub state: State,
    /// Hash of packets from the client.
    pub hash: u32,
    /// Its lane, [`super::NO_LANE`] if none is known.
    pub lane: u32,
    /// Seconds since boot.
    pub now: u32,
}

impl Table {
    /// Enters a connection.
    ///
    /// `is_it` recognises an equal key, in either direction, among the connections that have the same hash. If `identity.has_reverse`, `reverse_keys` is asked for one reverse key
    /// after another: it sets the NAT fields of the identity and gives the hash, or None when there are no more.
    #[inline]
    pub fn insert(
        &self,
        candidate: Candidate,
        is_it: impl Fn(&Connection, Direction) -> bool,
        mut reverse_keys: impl FnMut(&mut Identity) -> Option<u32>,
        same_reverse: impl Fn(&Identity, &Connection, Direction) -> bool,
    ) -> Result<(u32, Identity), InsertError> {
        if let Some(rehearsal) = &self.rehearsal {
            return self.rehearse_insert(rehearsal, &candidate, is_it, reverse_keys, same_reverse);
        }
        let Candidate {
            mut identity,
            state,
            hash: forward,
            lane,
            now,
        } = candidate;
        let index = self.allocate().ok_or(InsertError::Full)?;
        let entry = self.entry(index);
        entry.write(&identity, state, forward, lane, now);
        let mut reverse = None;
        if identity.has_reverse {
            match self.claim_reverse(index, &mut identity, &mut reverse_keys, &same_reverse) {
                Ok(hash) => reverse = Some(hash),
                Err(error) => {
                    self.withdraw(index, None, None);
                    return Err(error);
                }
            }
        }
        if !self.place(forward, index) {
            self.withdraw(index, None, reverse);
            return Err(InsertError::Full);
        }
        if self.claim(forward, index, &is_it) == Claim::Free
            && entry
                .hot
                .transition(Status::Pending, Status::Live)
                .is_some()
        {
            self.embryos.began(state);
            return Ok((index, identity));
        }
        self.withdraw(index, Some(forward), reverse);
        Err(InsertError::Race)
    }

    fn claim_reverse(
        &self,
        index: u32,
        identity: &mut Identity,
        reverse_keys: &mut impl FnMut(&mut Identity) -> Option<u32>,
        same_reverse: &impl Fn(&Identity, &Connection, Direction) -> bool,
    ) -> Result<u32, InsertError> {
        while let Some(hash) = reverse_keys(identity) {
            let wanted = *identity;
            let same = |connection: &Connection, direction: Direction| {
                same_reverse(&wanted, connection, direction)
            };
            // A taken port is common when many are; see it before anything is written.
            if self.find(hash, same).is_some() {
                continue;
            }
            self.entry(index).set_reverse(identity, hash);
            if !self.place(hash, index) {
                return Err(InsertError::Full);
            }
            if self.claim(hash, index, &same) == Claim::Free {
                return Ok(hash);
            }
            self.remove_slot(hash, index);
        }
        Err(InsertError::ReverseTaken)
    }

    /// Whether any other entry has this key. Our own slot is in place already, so of two that enter the same key at
    /// once at least one sees the other.
    fn claim(&self, hash: u32, own: u32, is_it: &impl Fn(&Connection, Direction) -> bool) -> Claim {
        self.each_candidate(hash, |index, entry| {
            if index == own {
                return None;
            }
            loop {
                let (connection, word) = entry.read();
                if !matches!(word.status(), Status::Live | Status::Pending) {
                    return None;
                }
                Table::matching_direction(entry, hash, word, |direction| {
                    is_it(&connection, direction)
                })?;
                if word.status() == Status::Live || index < own {
                    return Some(Claim::Taken);
                }
                // The higher number gives way. If it went live under our eyes, look again.
                if entry
                    .hot
                    .transition(Status::Pending, Status::Dead)
                    .is_some()
                {
                    return None;
                }
            }
        })
        .unwrap_or(Claim::Free)
    }

    /// Undoes a pending entry.
    fn withdraw(&self, index: u32, forward: Option<u32>, reverse: Option<u32>) {
        let entry = self.entry(index);
        entry.hot.transition(Status::Pending, Status::Dead);
        for hash in [forward, reverse].into_iter().flatten() {
            self.remove_slot(hash, index);
        }
    }

    /// Puts a slot for `index` into the first free place of the hash's buckets.
    fn place(&self, hash: u32, index: u32) -> bool {
        let home = self.home(hash);
        let value = self.slot(hash, index);
        for step in 0..=MAX_OVERFLOW {
            if step > 0 {
                // Before the slot appears, so that no reader stops short of it.
                self.bucket(home, 0)
                    .overflowed
                    .fetch_add(1, Ordering::SeqCst);
            }
            if Table::place_in(self.bucket(home, step), value) {
                return true;
            }
            if step > 0 {
                self.bucket(home, 0)
                    .overflowed
                    .fetch_sub(1, Ordering::SeqCst);
            }
        }
        false
    }

    fn place_in(bucket: &Bucket, value: u32) -> bool {
        bucket.slots.iter().any(|slot| {
            slot.load(Ordering::Relaxed) == 0
                && slot
                    .compare_exchange(0, value, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
        })
    }

    /// An entry that nobody else can see.
    fn allocate(&self) -> Option<u32> {
        self.pop_free().or_else(|| {
            self.header
                .high_water
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                    (n < self.capacity()).then_some(n + 1)
                })
                .ok()
        })
    }

    fn pop_free(&self) -> Option<u32> {
        let mut head = self.free.load(Ordering::Acquire);
        loop {
            let index = (head as u32).checked_sub(1)?;
            let next = self.cold[index as usize].next_free();
            let tagged = (head >> 32).wrapping_add(1) << 32 | next as u64;
            match self
                .free
                .compare_exchange_weak(head, tagged, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => {
                    self.free_count.fetch_sub(1, Ordering::Relaxed);
                    return Some(index);
                }
                Err(seen) => head = seen,
            }
        }
    }

    /// Gives an entry back that nobody can be reading any more.
    pub(super) fn push_free(&self, index: u32) {
        let entry = self.entry(index);
        let mut head = self.free.load(Ordering::Acquire);
        self.free_count.fetch_add(1, Ordering::Relaxed);
        loop {
            entry.set_free(head as u32);
            let tagged = (head >> 32).wrapping_add(1) << 32 | (index + 1) as u64;
            match self
                .free
                .compare_exchange_weak(head, tagged, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }
}
