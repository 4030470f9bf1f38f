//! The history as it is told, and the way back.

use libilb::difference;
use libilb::history::{Item, Report};
use libilb::model::Configuration;

use super::error::ManagerError;
use super::steps::{Cause, TRIES};
use super::{Command, Manager, ManagerHandle};
use crate::addresses::Addresses;
use crate::author::Author;
use crate::dataplane::DataPlane;
use crate::history::Entry;
use crate::state::State;
use crate::store::codec;
use crate::store::snapshots::Snapshots;

impl ManagerHandle {
    /// The newest `count` generations, newest first; 0 for all that are known.
    ///
    /// # Errors
    /// [`ManagerError::Internal`].
    pub async fn history(&self, count: u32) -> Result<Vec<Item>, ManagerError> {
        let view = self.view();
        let files = self.snapshots.clone();
        let snapshots = tokio::task::spawn_blocking(move || {
            files.map(|files| files.generations()).unwrap_or_default()
        });
        let snapshots = snapshots.await.map_err(internal)?;
        let count = match count {
            0 => usize::MAX,
            count => count as usize,
        };
        Ok(items(&view.state, &snapshots)
            .into_iter()
            .take(count)
            .collect())
    }

    /// Goes back to the configuration of a generation and says what that changed.
    ///
    /// # Errors
    /// [`ManagerError::Generation`] when there is no way back; otherwise those of a change.
    pub async fn rollback(&self, author: Author, generation: u64) -> Result<Report, ManagerError> {
        let author = Some(author);
        self.ask(|reply| Command::Rollback {
            author,
            generation,
            reply,
        })
        .await?
    }

    /// What [`ManagerHandle::rollback`] would change.
    ///
    /// # Errors
    /// [`ManagerError::Generation`].
    pub async fn preview_rollback(&self, generation: u64) -> Result<Report, ManagerError> {
        self.ask(|reply| Command::Rollback {
            author: None,
            generation,
            reply,
        })
        .await?
    }
}

/// Newest first.
fn items(state: &State, snapshots: &[u64]) -> Vec<Item> {
    let kept: std::collections::BTreeSet<u64> = state.history.kept(state.generation).collect();
    let item = |generation: u64, entry: Option<&Entry>| {
        let (uid, user) = match entry.map(|entry| &entry.author) {
            Some(Author::User { uid, name }) => (Some(*uid), name.clone()),
            Some(author) => (None, Some(author.to_string())),
            None => (None, None),
        };
        Item {
            generation,
            time: entry.map(|entry| entry.time),
            uid,
            user,
            words: match (entry, generation) {
                (Some(entry), _) => entry.words.clone(),
                (None, 0) => "the beginning".to_owned(),
                (None, _) => "not recorded".to_owned(),
            },
            kept: kept.contains(&generation) || snapshots.contains(&generation),
        }
    };
    let mut all: std::collections::BTreeMap<u64, Item> = state
        .history
        .entries
        .iter()
        .map(|(generation, entry)| (*generation, item(*generation, Some(entry))))
        .collect();
    for generation in snapshots.iter().chain(&kept).chain([&state.generation]) {
        all.entry(*generation)
            .or_insert_with(|| item(*generation, None));
    }
    all.into_values().rev().collect()
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// Goes back, or with no author says what that would change. If the other node of a pair was first, it is done again.
    pub(super) async fn rollback(
        &mut self,
        author: Option<Author>,
        generation: u64,
    ) -> Result<Report, ManagerError> {
        for _ in 0..TRIES {
            match self.rollback_once(author.clone(), generation).await {
                Err(ManagerError::Overtaken) => {}
                result => return result,
            }
        }
        Err(ManagerError::Overtaken)
    }

    async fn rollback_once(
        &mut self,
        author: Option<Author>,
        generation: u64,
    ) -> Result<Report, ManagerError> {
        if author.is_some() {
            self.need_store().await?;
        }
        let (state, files) = (self.state.clone(), self.snapshot_files.clone());
        let past = tokio::task::spawn_blocking(move || past(&state, files.as_ref(), generation));
        let past = past.await.map_err(internal)??;
        let before = self.state.configuration.clone();
        let from = self.state.generation;
        let configuration = before.restored(past);
        if let Some(author) = author {
            let cause = Cause {
                author: author.clone(),
                words: format!("back to generation {generation}"),
            };
            let result = self.configure(configuration.clone(), cause).await;
            match &result {
                Ok(()) => tracing::debug!("{author}: back to generation {generation}"),
                Err(error) => {
                    tracing::info!("{author}: back to generation {generation}: refused: {error}")
                }
            }
            result?;
        }
        Ok(Report {
            from,
            to: generation,
            generation: self.state.generation,
            differences: difference::between(&before, &configuration),
        })
    }
}

/// The configuration of a generation: by the way back, or from a snapshot.
fn past(
    state: &State,
    snapshots: Option<&Snapshots>,
    generation: u64,
) -> Result<Configuration, ManagerError> {
    let refuse = |problem: String| ManagerError::Generation {
        generation,
        problem,
    };
    if generation > state.generation {
        return Err(refuse(format!(
            "is yet to come, the present one is {}",
            state.generation
        )));
    }
    if let Some(way) = state.history.way_back(state.generation, generation) {
        return codec::history::back(&state.configuration, &way)
            .map_err(|error| refuse(format!("cannot be restored: {error}")));
    }
    let files = snapshots.filter(|files| files.generations().contains(&generation));
    let Some(files) = files else {
        return Err(refuse(
            match state.history.entries.contains_key(&generation) {
                true => "is not kept any more".to_owned(),
                false => "is not known".to_owned(),
            },
        ));
    };
    let state = files.read(generation);
    let state =
        state.map_err(|reason| refuse(format!("has a snapshot that is not usable: {reason}")))?;
    Ok(state.configuration)
}

fn internal(error: tokio::task::JoinError) -> ManagerError {
    ManagerError::Internal(error.to_string())
}
