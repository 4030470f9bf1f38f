//! Why the manager refused or failed.

use libilb::apply::MAX_DOCUMENT;
use libilb::document::Mistakes;
use libilb::{ErrorKind, ModelError};

use crate::addresses::AddressError;

/// See the module. The text is what a person reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagerError {
    /// What was asked for is wrong in itself or does not fit the configuration.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A document with everything that is wrong with it.
    #[error("{0}")]
    Document(Mistakes),
    /// A document that nobody should have to read.
    #[error("the document has {0} bytes: at most {MAX_DOCUMENT} are read")]
    TooLarge(usize),
    /// Another change waits for its confirmation.
    #[error(
        "a change of {author} waits for its confirmation and will be taken back in {left} s: 'lbadm confirm' keeps it, \
         'lbadm revert' takes it back now; until then nothing else can be changed"
    )]
    Waiting {
        /// Who made it.
        author: String,
        /// Seconds that are left.
        left: u64,
    },
    /// Nothing can be stored.
    #[error("nothing can be changed, the manager is degraded: {0}")]
    Degraded(String),
    /// The fast path does not take it.
    #[error("the fast path refused the change, nothing was changed: {0}")]
    FastpathRejected(String),
    /// The fast path cannot be asked, or does not understand the question.
    #[error("the fast path cannot say: {0}")]
    Fastpath(String),
    /// An address could not be put on its interface.
    #[error("{0}; nothing was changed")]
    Address(AddressError),
    /// There is no way back to it.
    #[error(
        "generation {generation} {problem}: 'lbadm history' lists those that one can go back to"
    )]
    Generation {
        /// Which.
        generation: u64,
        /// What about it.
        problem: String,
    },
    /// The caller may not.
    #[error(
        "user {uid} may not {what}: {reason}; run it as root, for example with sudo, or have an administrator allow the \
         polkit action {action}"
    )]
    NotAuthorized {
        /// Number of the caller's user.
        uid: u32,
        /// What it wanted, after `may not`.
        what: &'static str,
        /// Name of the action in polkit's rules.
        action: &'static str,
        /// Why not.
        reason: String,
    },
    /// The bus does not say who the caller is.
    #[error("cannot find out who asks, so nothing was changed: {0}")]
    UnknownCaller(String),
    /// The manager is on its way out.
    #[error("the manager is stopping: try again when it has started")]
    Stopping,
    /// Something that never should happen.
    #[error("{0}")]
    Internal(String),
}

impl ManagerError {
    /// The class, which decides the D-Bus error's name and the exit code of `lbadm`.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ManagerError::Model(error) => error.kind(),
            ManagerError::Generation { .. } => ErrorKind::NotFound,
            ManagerError::Document(_) | ManagerError::TooLarge(_) => ErrorKind::InvalidArgument,
            ManagerError::Waiting { .. } => ErrorKind::Conflict,
            ManagerError::Degraded(_) => ErrorKind::Degraded,
            ManagerError::FastpathRejected(_) => ErrorKind::FastpathRejected,
            ManagerError::NotAuthorized { .. } | ManagerError::UnknownCaller(_) => {
                ErrorKind::NotAuthorized
            }
            ManagerError::Address(_)
            | ManagerError::Fastpath(_)
            | ManagerError::Stopping
            | ManagerError::Internal(_) => ErrorKind::Failed,
        }
    }
}
