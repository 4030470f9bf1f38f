//! What can go wrong in `lbadm`, and the exit code of each.

use std::io;

use libilb::client::ClientError;
use libilb::{ErrorKind, ModelError};

/// Exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It is done.
    Ok = 0,
    /// It could not be done; nothing changed.
    Failed = 1,
    /// The command line itself is wrong, whatever is configured.
    Usage = 2,
    /// The manager is not running.
    NotRunning = 3,
    /// The caller may not do it.
    NotAuthorized = 4,
    /// The manager cannot store changes.
    Degraded = 5,
}

/// Why a command failed. The text goes to standard error after `lbadm: `.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// It cannot be done, found out without the manager.
    #[error("{0}")]
    Model(ModelError),
    /// The manager is not there or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file could not be imported.
    #[error("{0}")]
    Import(String),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// A file could not be read.
    #[error("cannot read {path}: {cause}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        cause: io::Error,
    },
    /// A man page could not be written.
    #[error("cannot write {path}: {cause}")]
    File {
        /// The file.
        path: String,
        /// Why.
        cause: io::Error,
    },
}

impl Error {
    /// A value on the command line that is wrong in itself is a usage error; anything else is a failure.
    pub fn from_command_line(error: ModelError) -> Error {
        match error.kind() {
            ErrorKind::InvalidArgument => Error::Usage(error.to_string()),
            _ => Error::Model(error),
        }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Usage(_) => Exit::Usage,
            Error::Client(ClientError::NotRunning(_)) => Exit::NotRunning,
            Error::Client(ClientError::NotAuthorized(_)) => Exit::NotAuthorized,
            Error::Client(ClientError::Refused {
                kind: ErrorKind::Degraded,
                ..
            }) => Exit::Degraded,
            Error::Model(_)
            | Error::Client(_)
            | Error::Import(_)
            | Error::Output(_)
            | Error::File { .. }
            | Error::Read { .. } => Exit::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_the_exit_code_that_the_help_promises() {
        let refused = |kind| {
            Error::Client(ClientError::Refused {
                kind,
                message: String::new(),
            })
        };
        let cases = [
            (Error::Usage(String::new()), 2),
            (refused(ErrorKind::Conflict), 1),
            (refused(ErrorKind::InvalidArgument), 1),
            (refused(ErrorKind::FastpathRejected), 1),
            (refused(ErrorKind::Degraded), 5),
            (Error::Client(ClientError::NotRunning(String::new())), 3),
            (Error::Client(ClientError::NotAuthorized(String::new())), 4),
            (Error::Client(ClientError::Timeout), 1),
            (Error::Output(io::ErrorKind::StorageFull.into()), 1),
        ];
        for (error, code) in cases {
            assert_eq!(error.exit() as i32, code, "{error:?}");
        }
    }
}
