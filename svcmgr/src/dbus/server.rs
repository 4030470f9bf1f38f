//! `org.ilb.Ilb1.Server`, one object for each server.

use libilb::ModelError;
use libilb::error::Item;
use libilb::model::Server;
use zbus::message::Header;
use zbus::{Connection, fdo, interface};

use super::access;
use super::error::MethodError;
use crate::manager::ManagerHandle;
use crate::manager::change::Change;
use crate::manager::error::ManagerError;

/// See the module.
pub struct ServerObject {
    handle: ManagerHandle,
    id: String,
}

impl ServerObject {
    /// Speaks for the server of this id.
    pub fn new(handle: ManagerHandle, id: String) -> ServerObject {
        ServerObject { handle, id }
    }

    /// The server and the name of its group.
    fn server(&self) -> fdo::Result<(Server, String)> {
        let view = self.handle.view();
        let found = view.state.configuration.server(&self.id);
        found
            .map(|(group, server)| (server.clone(), group.name.clone()))
            .ok_or_else(|| fdo::Error::UnknownObject(format!("server {} is removed", self.id)))
    }

    fn gone(&self) -> ManagerError {
        ModelError::NotFound {
            item: Item::Server,
            names: vec![self.id.clone()],
            suggestion: None,
        }
        .into()
    }

    async fn enable_or_disable(&self, enabled: bool) -> Result<bool, ManagerError> {
        let ids = vec![self.id.clone()];
        let changed = self
            .handle
            .change(Change::EnableServers { ids, enabled })
            .await?;
        Ok(!changed.is_empty())
    }
}

#[interface(name = "org.ilb.Ilb1.Server")]
impl ServerObject {
    /// Enables the server; true if it was disabled.
    #[zbus(out_args("changed"))]
    async fn enable(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        access::check(connection, &header).await?;
        Ok(self.enable_or_disable(true).await?)
    }

    /// Disables the server; true if it was enabled. Its connections live on.
    #[zbus(out_args("changed"))]
    async fn disable(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        access::check(connection, &header).await?;
        Ok(self.enable_or_disable(false).await?)
    }

    /// Removes the server from its group. Its connections live on.
    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), MethodError> {
        access::check(connection, &header).await?;
        let (server, group) = self.server().map_err(|_| self.gone())?;
        let servers = vec![server.id];
        self.handle
            .change(Change::RemoveServers { group, servers })
            .await?;
        Ok(())
    }

    /// The server with its state as JSON.
    #[zbus(out_args("json"))]
    async fn describe(&self) -> Result<String, MethodError> {
        let description = self.handle.describe().await?;
        let mut servers = description.groups.iter().flat_map(|group| &group.servers);
        let server = servers
            .find(|item| !item.removed && item.server.id == self.id)
            .ok_or_else(|| self.gone())?;
        serde_json::to_string(server)
            .map_err(|error| ManagerError::Internal(error.to_string()).into())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn id(&self) -> String {
        self.id.clone()
    }

    #[zbus(property)]
    async fn enabled(&self) -> fdo::Result<bool> {
        Ok(self.server()?.0.enabled)
    }

    #[zbus(property(emits_changed_signal = "const"), name = "ServerGroup")]
    async fn server_group(&self) -> fdo::Result<String> {
        Ok(self.server()?.1)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn address(&self) -> fdo::Result<String> {
        Ok(self.server()?.0.address.to_string())
    }

    /// A port or range; empty means the ports of the rule.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn port(&self) -> fdo::Result<String> {
        let ports = self.server()?.0.ports;
        Ok(ports.map_or(String::new(), |ports| ports.to_string()))
    }

    /// The host name that the server was given by, or empty.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn host_name(&self) -> fdo::Result<String> {
        Ok(self.server()?.0.host_name.unwrap_or_default())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn weight(&self) -> fdo::Result<u16> {
        Ok(self.server()?.0.weight)
    }
}
