//! Where the [`State`] is durable: a database ([`sled_store`]), and beside it snapshots as text ([`snapshots`]) from which
//! a damaged database is rebuilt ([`open`]).

pub mod codec;
#[cfg(test)]
mod images;
pub mod lock;
pub mod open;
mod seal;
pub mod sled_store;
pub mod snapshots;
mod watermark;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

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

/// Gets a store again after it could not be written. Calls block.
pub trait Keeper: Send + Sync + 'static {
    /// A new store that holds `state`, in the place of one that failed; that one must not be touched any more. It is kept
    /// aside if it is `damaged`.
    ///
    /// # Errors
    /// Why it still cannot be written.
    fn renew(&self, state: &State, damaged: bool) -> Result<Arc<dyn Store>, StoreError>;

    /// Opens the store that could not be opened for writing at the start.
    ///
    /// # Errors
    /// Why it still cannot be written.
    fn reopen(&self) -> Result<open::Opened, open::OpenError>;
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

/// An error of the disk itself (`errno.h`).
const EIO: i32 = 5;

/// Without the backtrace that sled prints.
fn database_words(error: &sled::Error) -> String {
    match error {
        sled::Error::Corruption { at: Some(at), .. } => format!("is damaged at offset {at:?}"),
        sled::Error::Corruption { at: None, .. } => "is damaged".to_owned(),
        sled::Error::Io(error) if error.raw_os_error().is_none() => {
            format!("cannot be written or read: {}", error.kind())
        }
        sled::Error::Io(error) => format!("cannot be written or read: {error}"),
        other => format!("failed: {other}"),
    }
}

impl StoreError {
    /// Whether it is only about writing: no room, a read-only file system, a disk that fails.
    pub fn is_about_writing(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let (StoreError::Io { source, .. }
        | StoreError::Database {
            source: sled::Error::Io(source),
            ..
        }) = self
        else {
            return false;
        };
        // sled keeps the number only as text.
        matches!(
            source.kind(),
            StorageFull | ReadOnlyFilesystem | QuotaExceeded
        ) || source.raw_os_error() == Some(EIO)
            || source.to_string().contains(&format!("code: {EIO},"))
    }

    /// Whether the contents are bad, as opposed to the surroundings.
    pub fn is_damage(&self) -> bool {
        match self {
            StoreError::Damaged { .. } => true,
            StoreError::Database { source, .. } => {
                // "Unsupported" is what it says of a file of its own that it does not understand.
                matches!(
                    source,
                    sled::Error::Corruption { .. }
                        | sled::Error::ReportableBug(_)
                        | sled::Error::Unsupported(_)
                        | sled::Error::CollectionNotFound(_)
                )
            }
            StoreError::InUse { .. } | StoreError::Io { .. } | StoreError::Schema { .. } => false,
        }
    }
}
