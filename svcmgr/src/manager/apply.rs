//! Documents: the whole configuration or a part of it in one change, which may have to be confirmed.
//!
//! While a change waits for its confirmation, every other one is refused: what comes back when it is taken back is what
//! there was before it, and nothing that somebody did since gets lost with it.

use std::sync::Arc;
use std::time::Duration;

use ilb_node::journal::events::CHANGE_UNDONE;
use libilb::apply::{ApplyOptions, MAX_DOCUMENT, Waiting};
use libilb::document::{self, Plan, Report};
use libilb::model::Configuration;
use tokio::time::Instant;

use super::error::ManagerError;
use super::steps::{Cause, TRIES, cause_words, unix_now};
use super::{Command, Manager, ManagerHandle};
use crate::addresses::Addresses;
use crate::author::Author;
use crate::dataplane::DataPlane;
use crate::pending::Pending;
use crate::state::State;

/// After how long a change is taken back once more when that failed.
const AGAIN: Duration = Duration::from_secs(5);

impl ManagerHandle {
    /// Applies a document and says what that changed.
    ///
    /// # Errors
    /// [`ManagerError::Document`] with everything that is wrong with it; otherwise those of a change.
    pub async fn apply(
        &self,
        author: Author,
        document: String,
        options: ApplyOptions,
    ) -> Result<Report, ManagerError> {
        self.ask(|reply| Command::Apply {
            author,
            document,
            options,
            reply,
        })
        .await?
    }

    /// What a document would change. Nothing changes, and the manager is not kept from its work.
    ///
    /// # Errors
    /// [`ManagerError::Document`].
    pub async fn preview(&self, document: String, merge: bool) -> Result<Report, ManagerError> {
        let _turn = self.previews.acquire().await;
        let state = self.view().state.clone();
        let mut report = plan(document, state.configuration, merge).await?.report;
        report.generation = state.generation;
        Ok(report)
    }

    /// Keeps the change that waits for its confirmation; `Ok(false)` if none does.
    ///
    /// # Errors
    /// Those of a change.
    pub async fn confirm(&self, author: Author) -> Result<bool, ManagerError> {
        self.ask(|reply| Command::Confirm { author, reply }).await?
    }

    /// Takes the change back that waits for its confirmation; `Ok(false)` if none does.
    ///
    /// # Errors
    /// Those of a change.
    pub async fn revert(&self, author: Author) -> Result<bool, ManagerError> {
        self.ask(|reply| Command::Revert { author, reply }).await?
    }
}

/// Reads and plans a document, off the async thread: a large one takes a while.
async fn plan(text: String, present: Configuration, merge: bool) -> Result<Plan, ManagerError> {
    if text.len() > MAX_DOCUMENT {
        return Err(ManagerError::TooLarge(text.len()));
    }
    tokio::task::spawn_blocking(move || document::plan(&text, &present, merge))
        .await
        .map_err(|error| ManagerError::Internal(error.to_string()))?
        .map_err(ManagerError::Document)
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// A document from beginning to end. If the other node of a pair was first, it is done again on top of that.
    pub(super) async fn apply(
        &mut self,
        author: &Author,
        text: String,
        options: ApplyOptions,
    ) -> Result<Report, ManagerError> {
        for _ in 0..TRIES {
            match self.apply_once(author, text.clone(), options).await {
                Err(ManagerError::Overtaken) => {}
                result => return result,
            }
        }
        Err(ManagerError::Overtaken)
    }

    async fn apply_once(
        &mut self,
        author: &Author,
        text: String,
        options: ApplyOptions,
    ) -> Result<Report, ManagerError> {
        self.need_store().await?;
        let before = self.editable();
        let Plan {
            configuration,
            mut report,
        } = plan(text, before.clone(), options.merge).await?;
        if configuration != before {
            let pending = options.confirm.map(|seconds| {
                let waiting = Waiting {
                    until: unix_now() + u64::from(seconds),
                    generation: self.state.generation,
                    author: author.to_string(),
                };
                Arc::new(Pending::new(&before, &configuration, waiting, seconds))
            });
            let cause = Cause {
                author: author.clone(),
                words: cause_words("apply a document:", &report.names()),
            };
            self.configure_until(configuration, pending, cause).await?;
            self.watch_pending();
        }
        report.generation = self.state.generation;
        report.confirm_by = self.state.pending.as_ref().map(|p| p.waiting.until);
        Ok(report)
    }

    /// Keeps what waits.
    pub(super) async fn confirm(&mut self) -> Result<bool, ManagerError> {
        if self.state.pending.is_none() {
            return Ok(false);
        }
        let next = State {
            pending: None,
            ..self.state.clone()
        };
        // No new generation: the configuration is the same.
        self.commit(next, Cause::own(String::new())).await?;
        self.watch_pending();
        self.look_again().await;
        Ok(true)
    }

    /// Takes back what waits. If the other node of a pair was first with something, it is done again on top of that.
    pub(super) async fn revert(&mut self, author: Author) -> Result<bool, ManagerError> {
        self.following.taking_back = true;
        let mut result = Err(ManagerError::Overtaken);
        for _ in 0..TRIES {
            result = self.revert_once(author.clone()).await;
            if !matches!(result, Err(ManagerError::Overtaken)) {
                break;
            }
        }
        self.following.taking_back = false;
        result
    }

    async fn revert_once(&mut self, author: Author) -> Result<bool, ManagerError> {
        if self.state.pending.is_none() {
            return Ok(false);
        }
        // What the other node has changed meanwhile comes first: without it there would be conflicting histories, of which the
        // other one could win, and with it what nobody has confirmed. A node that cannot have it takes its own back all the same.
        if self.lacks_changes() {
            self.look_again().await;
            if let Err(error) = self.has_caught_up().await {
                tracing::warn!("taking a change back without what the other node has: {error}");
            }
        }
        let Some(pending) = self.state.pending.clone() else {
            return Ok(false);
        };
        let back = pending.back(&self.state.configuration);
        back.validate()?;
        let words = format!(
            "back to generation {}: not confirmed",
            pending.waiting.generation
        );
        self.configure_until(back, None, Cause { author, words })
            .await?;
        self.watch_pending();
        self.look_again().await;
        Ok(true)
    }

    /// Whether no change waits for its confirmation.
    pub(super) fn nobody_waits(&self) -> Result<(), ManagerError> {
        match &self.state.pending {
            None => Ok(()),
            Some(pending) => Err(ManagerError::Waiting {
                author: pending.waiting.author.clone(),
                left: pending.left(unix_now()),
            }),
        }
    }

    /// Knows when the change that waits, if one does, has to be taken back.
    pub(super) fn watch_pending(&mut self) {
        self.confirm_by = self.state.pending.as_ref().map(|pending| {
            let left = pending.left(unix_now());
            Instant::now() + Duration::from_secs(left)
        });
    }

    /// The time of the change that waits is over.
    pub(super) async fn not_confirmed(&mut self) {
        let what = self.state.pending.as_ref().map_or_else(String::new, |p| {
            format!(
                "the change of {} was not confirmed in {} s",
                p.waiting.author, p.seconds
            )
        });
        let author = self.state.pending.as_ref();
        let author = author.map_or_else(String::new, |p| p.waiting.author.to_string());
        match self.revert(Author::Manager).await {
            Ok(_) => tracing::warn!(
                message_id = CHANGE_UNDONE.id,
                ilb_generation = self.state.generation,
                ilb_user = author,
                "{what}: all is as before it"
            ),
            Err(error) => {
                tracing::error!("{what}, and cannot be taken back: {error}");
                self.confirm_by = Some(Instant::now() + AGAIN);
            }
        }
    }
}
