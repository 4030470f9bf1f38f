//! Who may change things: root and the manager's own user always, everybody else as polkit says. Reading is open to
//! everybody.
//!
//! A method asks with [`check`] or [`check_state`] before it does anything. Each call has a task of its own, so one that
//! waits for a person at a password prompt keeps nobody else from being served.

use std::os::unix::fs::MetadataExt;

use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::{Flags, Header};
use zbus::names::BusName;

use super::polkit::{self, Question};
use crate::author::Author;
use crate::manager::error::ManagerError;

/// What polkit is asked about: `packaging/polkit/org.ilb.Ilb1.policy` says what an administrator reads of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Every change.
    Manage,
    /// Enable and disable only.
    ManageState,
}

impl Action {
    /// The name in polkit's rules.
    pub fn id(self) -> &'static str {
        match self {
            Action::Manage => "org.ilb.Ilb1.manage",
            Action::ManageState => "org.ilb.Ilb1.manage-state",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Action::Manage => "change the load balancer",
            Action::ManageState => "enable or disable anything of the load balancer",
        }
    }
}

/// Lets pass who may change the configuration, and says who it is.
///
/// # Errors
/// [`ManagerError::NotAuthorized`], or [`ManagerError::UnknownCaller`] when the bus cannot tell who calls.
pub async fn check(connection: &Connection, header: &Header<'_>) -> Result<Author, ManagerError> {
    authorize(connection, header, Action::Manage).await
}

/// Lets pass who may enable and disable.
///
/// # Errors
/// As [`check`].
pub async fn check_state(
    connection: &Connection,
    header: &Header<'_>,
) -> Result<Author, ManagerError> {
    authorize(connection, header, Action::ManageState).await
}

async fn authorize(
    connection: &Connection,
    header: &Header<'_>,
    action: Action,
) -> Result<Author, ManagerError> {
    let unknown = |reason: String| ManagerError::UnknownCaller(reason);
    let sender = header
        .sender()
        .ok_or_else(|| unknown("the call has no sender".to_owned()))?;
    let bus = DBusProxy::new(connection)
        .await
        .map_err(|error| unknown(error.to_string()))?;
    let uid = bus
        .get_connection_unix_user(BusName::Unique(sender.to_owned()))
        .await
        .map_err(|error| unknown(error.to_string()))?;
    if is_trusted(uid) {
        return Ok(Author::of(uid).await);
    }
    let interactive = header
        .primary()
        .flags()
        .contains(Flags::ALLOW_INTERACTIVE_AUTH);
    let question = Question {
        sender,
        uid,
        action: action.id(),
        method: header.member().map_or("", |member| member.as_str()),
        interactive,
    };
    let refused = |reason: String| ManagerError::NotAuthorized {
        uid,
        what: action.words(),
        action: action.id(),
        reason,
    };
    match polkit::ask(connection, &bus, &question).await {
        Ok(()) => Ok(Author::of(uid).await),
        Err(refusal) => {
            tracing::info!("user {uid} may not {}: {refusal}", action.words());
            Err(refused(refusal.to_string()))
        }
    }
}

/// Whether a user may do everything: root, and who we are ourselves.
pub fn is_trusted(uid: u32) -> bool {
    uid == 0 || Some(uid) == own_uid()
}

fn own_uid() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|own| own.uid())
}
