//! What was changed, when and by whom, and how to get back to what there was. Pure: time comes in.
//!
//! Every committed generation has an [`Entry`]. Beside it stand the records that lead to the generation before it, as long
//! as all of them together are not too many: whatever can be reached over an unbroken chain of them can be restored exactly.

use std::sync::Arc;

use libilb::map::Map;

use crate::author::Author;
use crate::store::codec;

/// Entries that are kept at most.
pub const MOST: usize = 1000;
/// Bytes that the ways back of all entries may have together.
pub const MOST_BYTES: usize = 8 << 20;

/// How one generation came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Seconds of the Unix clock.
    pub time: u64,
    /// Who did it.
    pub author: Author,
    /// What was done, for people.
    pub words: String,
    /// The generation before; 0 for none.
    pub before: u64,
    /// What leads back to that one; `None` when it is not known any more.
    pub undo: Option<Arc<Undo>>,
}

/// Records that lead back to the configuration before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undo {
    /// What has to be written and deleted.
    pub changes: Vec<codec::Change>,
}

impl Undo {
    /// Its share of [`MOST_BYTES`].
    fn bytes(&self) -> usize {
        let value = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        let sizes = self.changes.iter().map(|(key, v)| key.1.len() + value(v));
        sizes.sum()
    }
}

/// See the module. A clone shares everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// By generation.
    pub entries: Map<u64, Arc<Entry>>,
}

impl History {
    /// Enters a generation, later than all others, and forgets what is too old or too large.
    pub fn push(&mut self, generation: u64, entry: Entry) {
        self.entries.insert(generation, Arc::new(entry));
        while self.entries.len() > MOST {
            let oldest = self.entries.keys().next().copied();
            self.entries.remove(&oldest.unwrap_or_default());
        }
        let mut room = Some(MOST_BYTES);
        let mut over = Vec::new();
        let newest_first: Vec<(&u64, &Arc<Entry>)> = self.entries.iter().collect();
        for (generation, entry) in newest_first.into_iter().rev() {
            let Some(undo) = &entry.undo else {
                continue;
            };
            // Behind one that has no room, older ones would be of no use.
            room = room.and_then(|room| room.checked_sub(undo.bytes()));
            if room.is_none() {
                over.push(*generation);
            }
        }
        for generation in over {
            if let Some(entry) = self.entries.get_mut(&generation) {
                Arc::make_mut(entry).undo = None;
            }
        }
    }

    /// The generations that can be reached from `newest`, itself first, then going back.
    pub fn kept(&self, newest: u64) -> impl Iterator<Item = u64> {
        std::iter::successors(Some(newest), |generation| {
            let entry = self.entries.get(generation)?;
            entry.undo.as_ref()?;
            (entry.before < *generation).then_some(entry.before)
        })
    }

    /// What leads from `newest` back to `generation`, in this order; `None` if it is not kept.
    pub fn way_back(&self, newest: u64, generation: u64) -> Option<Vec<Arc<Undo>>> {
        if !self.kept(newest).any(|kept| kept == generation) {
            return None;
        }
        let way = self.kept(newest).take_while(|at| *at != generation);
        way.map(|at| self.entries.get(&at)?.undo.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec::Tree;

    fn entry(before: u64, bytes: usize) -> Entry {
        let change = ((Tree::Rules, Vec::new()), Some(vec![0; bytes]));
        Entry {
            time: 1,
            author: Author::Manager,
            words: "test".into(),
            before,
            undo: Some(Arc::new(Undo {
                changes: vec![change],
            })),
        }
    }

    fn kept(history: &History, newest: u64) -> Vec<u64> {
        history.kept(newest).collect()
    }

    #[test]
    fn a_chain_leads_back_over_gaps_in_the_numbers() {
        let mut history = History::default();
        for (generation, before) in [(5, 4), (6, 5), (42, 6)] {
            history.push(generation, entry(before, 1));
        }
        assert_eq!(kept(&history, 42), [42, 6, 5, 4]);
        assert_eq!(history.way_back(42, 42).unwrap().len(), 0);
        assert_eq!(history.way_back(42, 5).unwrap().len(), 2);
        assert_eq!(history.way_back(42, 7), None);
        assert_eq!(history.way_back(42, 3), None);
    }

    #[test]
    fn what_is_too_old_or_too_large_is_forgotten() {
        let mut history = History::default();
        for generation in 1..=MOST as u64 + 5 {
            history.push(generation, entry(generation - 1, 1));
        }
        let newest = MOST as u64 + 5;
        assert_eq!(history.entries.len(), MOST);
        assert_eq!(kept(&history, newest).last(), Some(&5));
        history.push(newest + 1, entry(newest, MOST_BYTES - 10));
        assert_eq!(kept(&history, newest + 1).len(), 12);
        assert_eq!(history.entries.len(), MOST, "they are listed all the same");
        history.push(newest + 2, entry(newest + 1, MOST_BYTES + 1));
        assert_eq!(kept(&history, newest + 2), [newest + 2]);
        // From there it goes on.
        history.push(newest + 3, entry(newest + 2, 1));
        assert_eq!(kept(&history, newest + 3), [newest + 3, newest + 2]);
    }
}
