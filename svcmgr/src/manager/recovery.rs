//! When nothing can be stored: what is told, and the way out of it without a restart.
//!
//! After a failed write it is unknown what the database holds, and the library that wrote it is not asked again. What it
//! held before is known, though: it is the state in memory, of which every part was read and checked or was acknowledged as
//! durable. So a new database is made from that state beside the old one, and takes its place when it is whole. The change
//! that failed is in neither, as its author was told.

use std::sync::Arc;
use std::time::Duration;

use ilb_node::journal::events::{DEGRADED, RECOVERED};
use libilb::describe;
use tokio::time::{Instant, timeout};

use super::Manager;
use super::error::ManagerError;
use crate::addresses::Addresses;
use crate::dataplane::DataPlane;
use crate::store::Keeper;

/// How often it is tried.
const RETRY: Duration = Duration::from_secs(10);
/// How soon it is tried again because somebody wants to change something.
const SOON: Duration = Duration::from_secs(1);
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a commit failed.
pub(super) struct Failure {
    /// The database is damaged, as opposed to the disk being full.
    pub damage: bool,
    /// What went wrong.
    pub reason: String,
    /// It may still be under way, and nobody can say what becomes of it.
    pub hangs: bool,
}

/// How to get a store again.
#[derive(Default)]
pub(super) struct Recovery {
    /// `None` when there is no way but a restart.
    plan: Option<Plan>,
    /// When it was tried last.
    last: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Plan {
    /// Make a new database from the state in memory.
    Renew {
        /// Keep the old one aside.
        damaged: bool,
    },
    /// Open the one that could only be read.
    Reopen,
}

impl Recovery {
    /// The store could not be opened for writing.
    pub(super) fn reopen() -> Recovery {
        Recovery {
            plan: Some(Plan::Reopen),
            last: Some(Instant::now()),
        }
    }

    /// When it is to be tried again, if at all.
    pub(super) fn due(&self) -> Option<Instant> {
        self.plan?;
        Some(self.last? + RETRY)
    }
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// From now on nothing can be changed.
    pub(super) fn degrade(&mut self, failure: Failure) -> ManagerError {
        let Failure {
            damage,
            reason,
            hangs,
        } = failure;
        tracing::error!(
            message_id = DEGRADED.id,
            ilb_generation = self.state.generation,
            "the configuration cannot be stored, from now on it can only be read: {reason}"
        );
        if let Some(store) = self.store.take() {
            // Not even closing it is safe: it might write by path into the one that takes its place.
            std::mem::forget(store);
        }
        self.recovery = Recovery {
            plan: (self.keeper.is_some() && !hangs).then_some(Plan::Renew { damaged: damage }),
            last: Some(Instant::now()),
        };
        self.health = describe::State::Degraded;
        self.health_reason = match self.recovery.plan {
            Some(_) => format!("{reason}; see to the disk: it is tried again and again"),
            None => format!("{reason}; see to the disk and restart ilb"),
        };
        ManagerError::Degraded(self.health_reason.clone())
    }

    /// Passes when something can be changed.
    ///
    /// # Errors
    /// [`ManagerError::Degraded`]; [`ManagerError::Waiting`] while a change waits for its confirmation;
    /// [`ManagerError::PeerAhead`].
    pub(super) async fn need_store(&mut self) -> Result<(), ManagerError> {
        self.can_store().await?;
        self.has_caught_up().await
    }

    /// Passes when something can be stored.
    ///
    /// # Errors
    /// [`ManagerError::Degraded`]; [`ManagerError::Waiting`] while a change waits for its confirmation.
    pub(super) async fn can_store(&mut self) -> Result<(), ManagerError> {
        if self.health == describe::State::Degraded {
            let recently = |last: Instant| last.elapsed() < SOON;
            if !self.recovery.last.is_some_and(recently) {
                self.recover().await;
            }
        }
        match self.health {
            describe::State::Ok => self.nobody_waits(),
            describe::State::Degraded => Err(ManagerError::Degraded(self.health_reason.clone())),
        }
    }

    /// Tries to get a store again.
    pub(super) async fn recover(&mut self) {
        let (Some(plan), Some(keeper)) = (self.recovery.plan, self.keeper.clone()) else {
            return;
        };
        self.recovery.last = Some(Instant::now());
        let state = self.state.clone();
        let task = tokio::task::spawn_blocking(move || attempt(plan, keeper.as_ref(), &state));
        let found = match timeout(PATIENCE, task).await {
            Ok(Ok(Ok(found))) => found,
            Ok(Ok(Err(reason))) => {
                tracing::debug!("still nothing can be stored: {reason}");
                return;
            }
            Ok(Err(error)) => {
                tracing::error!("{error}");
                return;
            }
            Err(_) => {
                self.recovery.plan = None;
                tracing::error!("the disk does not answer: restart ilb when it does");
                return;
            }
        };
        tracing::warn!(
            message_id = RECOVERED.id,
            ilb_generation = self.state.generation,
            "the configuration can be stored again"
        );
        self.recovery = Recovery::default();
        self.health = describe::State::Ok;
        self.health_reason = String::new();
        self.store = found.store;
        if let Some((state, notice)) = found.read {
            self.link.doubtful |= state.configuration != self.state.configuration;
            self.state = state;
            self.health_reason = notice;
        }
        self.known = true;
        if let Some(snapshots) = &self.snapshots {
            snapshots.write(&self.state);
        }
        self.catch_up().await;
        self.look_again_soon();
    }
}

struct Found {
    store: Option<Arc<dyn crate::store::Store>>,
    /// What a store that was opened holds, and what a person should know about it.
    read: Option<(crate::state::State, String)>,
}

fn attempt(plan: Plan, keeper: &dyn Keeper, state: &crate::state::State) -> Result<Found, String> {
    match plan {
        Plan::Renew { damaged } => {
            let store = keeper.renew(state, damaged).map_err(|e| e.to_string())?;
            Ok(Found {
                store: Some(store),
                read: None,
            })
        }
        Plan::Reopen => {
            let opened = keeper.reopen().map_err(|error| error.to_string())?;
            Ok(Found {
                store: opened.store,
                read: Some((opened.state, opened.notice)),
            })
        }
    }
}
