//! What ends connections that nobody ends: the slow timer. One thread calls [`Sweeper::pass`] about once a second; the
//! workers never wait for it.

use std::sync::atomic::{Ordering, fence};

use super::Table;
use super::entry::{Connection, Status};
use crate::hash::FlowHasher;

/// Result of looking at one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// It goes on.
    Keep,
    /// Its time is over.
    End,
}

/// What a pass found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Connections that go on.
    pub live: u32,
    /// Connections that this pass ended.
    pub ended: u32,
    /// Entries that were given back.
    pub freed: u32,
}

/// Dead entries on their way back to the free list, and the workers' progress when they were found.
pub struct Sweeper<'a> {
    table: &'a Table,
    limbo: Vec<u32>,
    marks: Vec<u64>,
}

impl Table {
    /// The table's one sweeper. Entries that died before it existed are found by its first pass.
    pub fn sweeper(&self) -> Sweeper<'_> {
        Sweeper {
            table: self,
            limbo: Vec::new(),
            marks: Vec::new(),
        }
    }
}

impl<'a> Sweeper<'a> {
    /// The table that it sweeps.
    pub fn table(&self) -> &'a Table {
        self.table
    }

    /// Most connections that the table can hold.
    pub fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    /// See [`Table::hasher`].
    pub fn hasher(&self) -> FlowHasher {
        self.table.hasher()
    }

    /// Looks at every connection once, ends those for which `judge` says so, and gives back what died in earlier
    /// passes as soon as every worker has moved on since.
    pub fn pass(&mut self, judge: impl FnMut(&Connection) -> Sweep) -> Swept {
        self.pass_and_tell(judge, |_| {})
    }

    /// As [`Sweeper::pass`], and calls `ended` with every connection that this pass ended, in its last state.
    pub fn pass_and_tell(
        &mut self,
        mut judge: impl FnMut(&Connection) -> Sweep,
        mut ended: impl FnMut(&Connection),
    ) -> Swept {
        let mut swept = Swept {
            freed: self.reclaim(),
            ..Swept::default()
        };
        let fresh = self.limbo.is_empty();
        let table = self.table;
        for index in 0..table.high_water() {
            let (connection, word) = table.entry(index).read();
            match word.status() {
                Status::Live => match judge(&connection) {
                    Sweep::Keep => swept.live += 1,
                    Sweep::End => {
                        if let Some(state) = table.kill(index) {
                            swept.ended += 1;
                            ended(&Connection {
                                state,
                                ..connection
                            });
                        }
                    }
                },
                // Dead ones wait in limbo; while an earlier lot is still there, the next lot is left for later.
                Status::Dead if fresh && !word.is_owned() => self.limbo.push(index),
                Status::Dead | Status::Pending | Status::Free => {}
            }
        }
        if fresh {
            fence(Ordering::SeqCst);
            self.marks.clear();
            self.marks.extend(
                table
                    .progress
                    .iter()
                    .map(|mark| mark.0.load(Ordering::SeqCst)),
            );
        }
        swept
    }

    /// Frees what is in limbo if every worker is idle or has finished the batch that it was in.
    fn reclaim(&mut self) -> u32 {
        let moved_on = self
            .table
            .progress
            .iter()
            .zip(&self.marks)
            .all(|(mark, &then)| {
                let now = mark.0.load(Ordering::Acquire);
                then & 1 == 0 || now != then
            });
        if !moved_on {
            return 0;
        }
        let freed = self.limbo.len() as u32;
        for index in self.limbo.drain(..) {
            self.table.push_free(index);
        }
        freed
    }
}
