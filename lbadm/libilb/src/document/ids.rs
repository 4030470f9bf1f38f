//! Which ids the new servers of a group get: those that they ask for if the group has never given them, otherwise the next.

use std::collections::{HashMap, HashSet};

use super::entry::ServerEntry;
use super::plan::Place;
use super::write::server_index;
use crate::server::Server;

/// The ids of a group's new servers.
pub(super) struct Ids<'a> {
    group: &'a str,
    /// The `<n>` that comes next.
    counter: u32,
    /// Above all that were given.
    end: u32,
    /// What new servers ask for and can have: never given by this group.
    wished: HashSet<u32>,
    /// What new servers have got.
    given: HashSet<u32>,
}

/// Highest `<n>` that can be asked for: above it there is room for those that are given.
const MAX_WISH: u32 = u32::MAX / 2;

impl<'a> Ids<'a> {
    /// For a group whose next `<n>` is `next` and that has the servers `known`.
    pub fn new(
        group: &'a str,
        next: u32,
        entries: &[ServerEntry],
        known: &HashMap<Place, &Server>,
    ) -> Ids<'a> {
        let mut ids = Ids {
            group,
            counter: next,
            end: next,
            wished: HashSet::new(),
            given: HashSet::new(),
        };
        for entry in entries {
            let known = entry
                .address
                .is_some_and(|a| known.contains_key(&(a, entry.ports)));
            if let Some(wish) = ids.wish(entry).filter(|wish| !known && *wish >= next) {
                ids.wished.insert(wish);
            }
        }
        ids
    }

    /// The `<n>` that an entry asks for.
    fn wish(&self, entry: &ServerEntry) -> Option<u32> {
        let id = entry.id.as_deref()?.strip_prefix('_')?;
        let (group, _) = id.rsplit_once('.')?;
        let index = server_index(id).filter(|index| *index <= MAX_WISH)?;
        group.eq_ignore_ascii_case(self.group).then_some(index)
    }

    /// The id of the next new server.
    pub fn next(&mut self, entry: &ServerEntry, notes: &mut Vec<String>) -> String {
        let wish = self.wish(entry).filter(|wish| self.wished.remove(wish));
        let index = match wish {
            Some(wish) => wish,
            None => {
                while [&self.wished, &self.given]
                    .iter()
                    .any(|all| all.contains(&self.counter))
                {
                    self.counter = self.counter.saturating_add(1);
                }
                self.counter
            }
        };
        let given = format!("_{}.{index}", self.group);
        if let (Some(id), None) = (&entry.id, wish) {
            notes.push(format!(
                "server {} gets the id {given}: {id} was asked for, and is not free in group '{}'",
                entry.place(),
                self.group
            ));
        }
        self.given.insert(index);
        self.counter = index.saturating_add(1);
        self.end = self.end.max(self.counter);
        given
    }
    /// The `<n>` that the group gives next.
    pub fn end(&self) -> u32 {
        self.end
    }
}
