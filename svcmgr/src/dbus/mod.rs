//! The D-Bus side: objects whose methods parse, ask the manager and map the error, and whose properties read the published
//! view. Names are in [`libilb::dbus`].

mod access;
mod error;
mod gate;
mod healthcheck;
mod introspect;
mod manager;
mod objects;
mod polkit;
mod publisher;
mod rule;
mod server;
mod servergroup;
mod turns;
mod vrrp;

use libilb::dbus::BUS_NAME;
use zbus::Connection;
use zbus::fdo::{RequestNameFlags, RequestNameReply};

use crate::manager::ManagerHandle;
use gate::Gate;
use publisher::ObjectPublisher;

/// Why there is no D-Bus interface.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no bus.
    #[error(
        "cannot connect to the D-Bus system bus: {0}; is dbus running? DBUS_SYSTEM_BUS_ADDRESS names another bus"
    )]
    Connect(zbus::Error),
    /// The name is taken.
    #[error(
        "the name {BUS_NAME} is taken on the bus: another ilb-svcmgr is running, stop it first"
    )]
    NameTaken,
    /// The name is refused.
    #[error(
        "the bus does not let us have the name {BUS_NAME}: {0}; is /usr/share/dbus-1/system.d/{BUS_NAME}.conf installed, and do we run as root or as the user ilb?"
    )]
    NameRefused(zbus::Error),
}

/// Connects to the system bus.
///
/// # Errors
/// [`BusError::Connect`].
pub async fn connect() -> Result<(Connection, Gate), BusError> {
    gate::connect().await.map_err(BusError::Connect)
}

/// Serves all objects, and only then takes the name: who sees the name sees the objects.
///
/// # Errors
/// [`BusError`].
pub async fn serve(
    connection: &Connection,
    gate: &Gate,
    handle: &ManagerHandle,
) -> Result<ObjectPublisher, BusError> {
    gate.serves(connection, handle);
    let publisher = ObjectPublisher::new(connection.clone(), handle.clone());
    let reply = connection
        .request_name_with_flags(BUS_NAME, RequestNameFlags::DO_NOT_QUEUE)
        .await;
    match reply {
        Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => Ok(publisher),
        Ok(RequestNameReply::Exists | RequestNameReply::InQueue) | Err(zbus::Error::NameTaken) => {
            Err(BusError::NameTaken)
        }
        Err(error) => Err(BusError::NameRefused(error)),
    }
}
