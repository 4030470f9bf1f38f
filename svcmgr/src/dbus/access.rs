//! Who may change things: root and the manager's own user. Reading is open to everybody.

use std::os::unix::fs::MetadataExt;

use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::Header;
use zbus::names::BusName;

use crate::author::Author;
use crate::manager::error::ManagerError;

/// Lets pass who may change things, and says who it is.
///
/// # Errors
/// [`ManagerError::NotAuthorized`], or [`ManagerError::UnknownCaller`] when the bus cannot tell who calls.
pub async fn check(connection: &Connection, header: &Header<'_>) -> Result<Author, ManagerError> {
    let uid = caller(connection, header).await?;
    if uid == 0 || Some(uid) == own_uid() {
        return Ok(Author::of(uid).await);
    }
    Err(ManagerError::NotAuthorized { uid })
}

async fn caller(connection: &Connection, header: &Header<'_>) -> Result<u32, ManagerError> {
    let unknown = |reason: String| ManagerError::UnknownCaller(reason);
    let sender = header
        .sender()
        .ok_or_else(|| unknown("the call has no sender".to_owned()))?;
    let bus = DBusProxy::new(connection)
        .await
        .map_err(|error| unknown(error.to_string()))?;
    bus.get_connection_unix_user(BusName::Unique(sender.to_owned()))
        .await
        .map_err(|error| unknown(error.to_string()))
}

fn own_uid() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|own| own.uid())
}
