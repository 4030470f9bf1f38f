//! Where the [`State`] is durable: a database ([`sled_store`]), and beside it snapshots as text ([`snapshots`]) from which
//! a damaged database is rebuilt ([`open`]).

pub mod codec;
pub mod open;
pub mod sled_store;
pub mod snapshots;

use std::io;
use std::path::PathBuf;

use crate::state::State;

/// Durable storage of one [`State`]. Calls block; keep them off the async runtime.
pub trait Store: Send + Sync + 'static {
    /// Replaces `before`, which is what the store holds, with `after`: all of it or nothing. When this has returned, the
    /// change survives kill -9 and power loss.
    ///
    /// # Errors
    /// After any error it is unknown what the store holds, and nothing more may be written to it.
    fn replace(&self, before: &State, after: &State) -> Result<(), StoreError>;
}

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error(
        "the database {path} is in use by another ilb-svcmgr{holder}: stop that one first, or give this one a state-dir of its own"
    )]
    InUse {
        /// The database.
        path: PathBuf,
        /// ` (process 4711)`, or empty when unknown.
        holder: String,
    },
    /// The file system said no.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was to be done, such as `create`.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database said no.
    #[error("the database {path} {}", database_words(source))]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: sled::Error,
    },
    /// The contents make no sense.
    #[error("the database {path} is damaged: {reason}")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// It was written by a later version.
    #[error(
        "the database {path} has schema {found}, this ilb-svcmgr knows {known}: install the version that wrote it"
    )]
    Schema {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
}

/// Without the backtrace that sled prints.
fn database_words(error: &sled::Error) -> String {
    match error {
        sled::Error::Corruption { at: Some(at), .. } => format!("is damaged at offset {at:?}"),
        sled::Error::Corruption { at: None, .. } => "is damaged".to_owned(),
        other => format!("failed: {other}"),
    }
}

impl StoreError {
    /// Whether the contents are bad, as opposed to the surroundings.
    pub fn is_damage(&self) -> bool {
        match self {
            StoreError::Damaged { .. } => true,
            StoreError::Database { source, .. } => {
                matches!(
                    source,
                    sled::Error::Corruption { .. } | sled::Error::ReportableBug(_)
                )
            }
            StoreError::InUse { .. } | StoreError::Io { .. } | StoreError::Schema { .. } => false,
        }
    }
}
