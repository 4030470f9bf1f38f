//! The versions that a node has, one after the other, and how those of two nodes stand to each other.

use std::sync::Arc;

use super::version::{Version, VersionId};

/// Versions that are remembered.
pub const MOST: usize = 1000;

/// A version and where it is kept here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The version.
    pub version: Version,
    /// By what this node knows the configuration that it made: its generation.
    pub mark: u64,
}

/// The last [`MOST`] versions. A clone shares them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Oldest first, each the parent of the next.
    versions: Arc<Vec<Arc<Kept>>>,
}

/// How our line stands to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same newest version.
    Same,
    /// They have so many versions more.
    Behind(usize),
    /// We have so many versions more.
    Ahead(usize),
    /// Both have gone on from one version, each in its own way.
    Forked {
        /// The last that both have.
        common: VersionId,
        /// Versions that only we have.
        ours: usize,
        /// Versions that only they have.
        theirs: usize,
    },
    /// Nothing is known that both have.
    Strangers {
        /// Versions that we have.
        ours: usize,
        /// Versions that they have.
        theirs: usize,
    },
}

impl Line {
    /// One of these versions, oldest first.
    ///
    /// # Errors
    /// What is wrong with them, when they do not follow one another.
    pub fn new(versions: impl IntoIterator<Item = Kept>) -> Result<Line, String> {
        let mut line = Line::default();
        for kept in versions {
            line.push(kept.version, kept.mark)?;
        }
        Ok(line)
    }

    /// One more version.
    ///
    /// # Errors
    /// What is wrong with it: it has to follow the newest. The line is as it was.
    pub fn push(&mut self, version: Version, mark: u64) -> Result<(), String> {
        if let Some(newest) = self.newest() {
            if version.parent != newest.id {
                return Err(format!(
                    "version {} follows {}, and the newest is {}",
                    version.id, version.parent, newest.id
                ));
            }
            if version.number != newest.number + 1 {
                return Err(format!(
                    "version {} has number {}, and the one before it {}",
                    version.id, version.number, newest.number
                ));
            }
        }
        if version.id == VersionId::ROOT || self.has(version.id) {
            return Err(format!("version {} is there twice", version.id));
        }
        let versions = Arc::make_mut(&mut self.versions);
        versions.push(Arc::new(Kept { version, mark }));
        if versions.len() > MOST {
            versions.remove(0);
        }
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// All that are remembered, oldest first.
    pub fn versions(&self) -> &[Arc<Kept>] {
        &self.versions
    }

    /// The newest one.
    pub fn newest(&self) -> Option<&Version> {
        self.versions.last().map(|kept| &kept.version)
    }

    /// Name of the newest one; [`VersionId::ROOT`] for none.
    pub fn head(&self) -> VersionId {
        self.newest().map_or(VersionId::ROOT, |newest| newest.id)
    }

    /// Whether this version is remembered.
    pub fn has(&self, id: VersionId) -> bool {
        // Those that are asked for are mostly the newest.
        self.versions.iter().rev().any(|kept| kept.version.id == id)
    }

    /// Those after `id`, oldest first; `None` if it is not known.
    pub fn after(&self, id: VersionId) -> Option<&[Arc<Kept>]> {
        let place = self.versions.iter().rposition(|kept| kept.version.id == id);
        match place {
            Some(place) => self.versions.get(place + 1..),
            None if self.versions.first()?.version.parent == id => Some(&self.versions),
            None => None,
        }
    }

    /// The names of all versions that are known, oldest first: those that are remembered, and the one before them.
    pub fn ids(&self) -> Vec<VersionId> {
        let before = self.versions.first().map(|oldest| oldest.version.parent);
        let before = before.filter(|parent| *parent != VersionId::ROOT);
        let all = self.versions.iter().map(|kept| kept.version.id);
        before.into_iter().chain(all).collect()
    }

    /// How this line stands to one with these [`Line::ids`].
    pub fn relation(&self, theirs: &[VersionId]) -> Relation {
        let ours = self.ids();
        let Some((our_head, their_head)) = ours.last().zip(theirs.last()) else {
            return match (ours.len(), theirs.len()) {
                (0, 0) => Relation::Same,
                (0, more) => Relation::Behind(more),
                (more, _) => Relation::Ahead(more),
            };
        };
        if our_head == their_head {
            return Relation::Same;
        }
        let after = |ids: &[VersionId], id: &VersionId| {
            let place = ids.iter().rposition(|known| known == id)?;
            Some(ids.len() - 1 - place)
        };
        if let Some(more) = after(&ours, their_head) {
            return Relation::Ahead(more);
        }
        if let Some(more) = after(theirs, our_head) {
            return Relation::Behind(more);
        }
        let known: std::collections::HashSet<&VersionId> = theirs.iter().collect();
        let common = ours.iter().rev().find(|id| known.contains(id));
        match common.and_then(|id| Some((id, after(&ours, id)?, after(theirs, id)?))) {
            Some((common, ours, theirs)) => Relation::Forked {
                common: *common,
                ours,
                theirs,
            },
            None => Relation::Strangers {
                ours: ours.len(),
                theirs: theirs.len(),
            },
        }
    }
}
