//! A table that answers like another one and changes nothing in it: for whoever wants to know what a packet would do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::entry::{Connection, Direction, Identity, State, Status};
use super::insert::{Candidate, InsertError};
use super::memory::Region;
use super::{Progress, Table};

/// What a rehearsal has only said to have done.
#[derive(Debug, Default)]
pub(super) struct Rehearsal {
    /// Entries that one packet ended, plus one; 0 where there is none. A packet ends two at most.
    killed: [AtomicU32; 8],
    /// Entries that it would have taken.
    entered: AtomicU32,
}

impl Rehearsal {
    fn has_killed(&self, index: u32) -> bool {
        self.killed
            .iter()
            .any(|killed| killed.load(Ordering::Relaxed) == index + 1)
    }

    fn kill(&self, index: u32) {
        let place = |killed: &&AtomicU32| killed.load(Ordering::Relaxed) == 0;
        if let Some(place) = self.killed.iter().find(place) {
            place.store(index + 1, Ordering::Relaxed);
        }
    }
}

impl Table {
    /// A view of `table` through which packets find the connections that they would find, while [`Table::touch`],
    /// [`Table::kill`], [`Table::evict`] and [`Table::insert`] only say what they would do. For one packet: of two
    /// that are rehearsed one after the other the second knows nothing of the first.
    pub fn rehearsal(table: &Arc<Table>) -> Table {
        Table {
            header: table.header,
            buckets: table.buckets,
            hot: table.hot,
            cold: table.cold,
            tag_shift: table.tag_shift,
            hasher: table.hasher,
            free: AtomicU64::new(0),
            free_count: AtomicU32::new(table.free_count.load(Ordering::Relaxed)),
            progress: (0..table.progress.len())
                .map(|_| Progress(AtomicU64::new(0)))
                .collect(),
            embryos: table.embryos.copy(),
            rehearsal: Some(Rehearsal::default()),
            _region: Region::of(Arc::clone(table)),
        }
    }

    #[cold]
    pub(super) fn rehearse_touch(
        &self,
        index: u32,
        state: impl Fn(State) -> State,
    ) -> Option<(State, State)> {
        let word = self.hot[index as usize].word();
        (word.status() == Status::Live).then(|| (word.state(), state(word.state())))
    }

    #[cold]
    pub(super) fn rehearse_kill(&self, rehearsal: &Rehearsal, index: u32) -> Option<State> {
        let word = self.hot[index as usize].word();
        if word.status() != Status::Live || rehearsal.has_killed(index) {
            return None;
        }
        rehearsal.kill(index);
        Some(word.state())
    }

    #[cold]
    pub(super) fn rehearse_insert(
        &self,
        rehearsal: &Rehearsal,
        candidate: &Candidate,
        is_it: impl Fn(&Connection, Direction) -> bool,
        mut reverse_keys: impl FnMut(&mut Identity) -> Option<u32>,
        same_reverse: impl Fn(&Identity, &Connection, Direction) -> bool,
    ) -> Result<(u32, Identity), InsertError> {
        let mut identity = candidate.identity;
        let entered = rehearsal.entered.load(Ordering::Relaxed);
        if self.used() + entered >= self.capacity() {
            return Err(InsertError::Full);
        }
        let taken = |hash, is_it: &dyn Fn(&Connection, Direction) -> bool| {
            self.find(hash, is_it)
                .is_some_and(|found| !rehearsal.has_killed(found.index))
        };
        if identity.has_reverse {
            loop {
                let hash = reverse_keys(&mut identity).ok_or(InsertError::ReverseTaken)?;
                let wanted = identity;
                if !taken(hash, &|connection, direction| {
                    same_reverse(&wanted, connection, direction)
                }) {
                    break;
                }
            }
        }
        if taken(candidate.hash, &is_it) {
            return Err(InsertError::Race);
        }
        rehearsal.entered.store(entered + 1, Ordering::Relaxed);
        Ok((u32::MAX, identity))
    }
}
