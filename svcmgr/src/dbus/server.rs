//! `org.ilb.Ilb1.Server`, one object for each server.

use std::collections::HashMap;

use libilb::ModelError;
use libilb::error::Item;
use libilb::health::HealthState;
use libilb::model::{Rule, Server};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, fdo, interface};

use super::access;
use super::error::MethodError;
use crate::author::Author;
use crate::manager::ManagerHandle;
use crate::manager::change::Change;
use crate::manager::error::ManagerError;

/// See the module.
pub struct ServerObject {
    handle: ManagerHandle,
    group: String,
    /// As it was when the object was made. Enabled, weight and limits may have changed since.
    server: Server,
}

impl ServerObject {
    /// Speaks for this server of the group of this name.
    pub fn new(handle: ManagerHandle, group: String, server: Server) -> ServerObject {
        ServerObject {
            handle,
            group,
            server,
        }
    }

    /// Servers of a group are in the order of their numbers, so that thousands of them are no trouble.
    fn now<T>(&self, value: impl Fn(&Server) -> T) -> fdo::Result<T> {
        let view = self.handle.view();
        let group = view.state.configuration.group(&self.group);
        let servers = group.map_or(&[][..], |group| &group.servers);
        match servers.binary_search_by_key(&self.server.number, |item| item.number) {
            Ok(at) => Ok(value(&servers[at])),
            Err(_) => Err(fdo::Error::UnknownObject(format!(
                "server {} is removed",
                self.server.id
            ))),
        }
    }

    fn gone(&self) -> ManagerError {
        ModelError::NotFound {
            item: Item::Server,
            names: vec![self.server.id.clone()],
            suggestion: None,
        }
        .into()
    }

    async fn enable_or_disable(&self, author: Author, enabled: bool) -> Result<bool, ManagerError> {
        let ids = vec![self.server.id.clone()];
        let change = Change::EnableServers { ids, enabled };
        let changed = self.handle.change(author, change).await?;
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
        let author = access::check_state(connection, &header).await?;
        Ok(self.enable_or_disable(author, true).await?)
    }

    /// Disables the server; true if it was enabled. Its connections live on.
    #[zbus(out_args("changed"))]
    async fn disable(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        let author = access::check_state(connection, &header).await?;
        Ok(self.enable_or_disable(author, false).await?)
    }

    /// Removes the server from its group. Its connections live on.
    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), MethodError> {
        let author = access::check(connection, &header).await?;
        let (group, servers) = (self.group.clone(), vec![self.server.id.clone()]);
        let change = Change::RemoveServers { group, servers };
        self.handle.change(author, change).await?;
        Ok(())
    }

    /// The server with its state as JSON.
    #[zbus(out_args("json"))]
    async fn describe(&self) -> Result<String, MethodError> {
        let description = self.handle.describe().await?;
        let mut servers = description.groups.iter().flat_map(|group| &group.servers);
        let server = servers
            .find(|item| !item.removed && item.server.number == self.server.number)
            .ok_or_else(|| self.gone())?;
        serde_json::to_string(server)
            .map_err(|error| ManagerError::Internal(error.to_string()).into())
    }

    /// Its id, such as `_web.0`.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn id(&self) -> String {
        self.server.id.clone()
    }

    /// Whether it takes new connections.
    #[zbus(property)]
    async fn enabled(&self) -> fdo::Result<bool> {
        self.now(|server| server.enabled)
    }

    /// Name of its group.
    #[zbus(property(emits_changed_signal = "const"), name = "ServerGroup")]
    async fn server_group(&self) -> String {
        self.group.clone()
    }

    /// Its address.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn address(&self) -> String {
        self.server.address.to_string()
    }

    /// A port or range; empty means the ports of the rule.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn port(&self) -> String {
        let ports = self.server.ports;
        ports.map_or(String::new(), |ports| ports.to_string())
    }

    /// The host name that the server was given by, or empty.
    #[zbus(property)]
    async fn host_name(&self) -> fdo::Result<String> {
        self.now(|server| server.host_name.clone().unwrap_or_default())
    }

    /// What the health checks of the rules that use it say, by the rules' names: `un-init`, `alive`, `unreach`, `dead` or
    /// `disabled`; empty without checks.
    #[zbus(property)]
    async fn health(&self) -> fdo::Result<HashMap<String, String>> {
        let view = self.handle.view();
        let enabled = self.now(|server| server.enabled)?;
        let rules = view.state.configuration.rules_of(&self.group);
        let checked = rules.filter(|rule| rule.health_check.is_some());
        let state = |rule: &Rule| match rule.enabled && enabled {
            true => view.book.state(rule.number, self.server.number),
            false => HealthState::Disabled,
        };
        Ok(checked
            .map(|rule| (rule.name.clone(), state(rule).to_string()))
            .collect())
    }

    /// Share of new connections; 0 takes none.
    #[zbus(property)]
    async fn weight(&self) -> fdo::Result<u16> {
        self.now(|server| server.weight)
    }

    /// Connections at which it takes no new ones; 0 is no limit.
    #[zbus(property)]
    async fn max_connections(&self) -> fdo::Result<u32> {
        self.now(|server| server.max_connections)
    }

    /// Connections below which it takes new ones again; 0 is three quarters of the maximum.
    #[zbus(property)]
    async fn min_connections(&self) -> fdo::Result<u32> {
        self.now(|server| server.min_connections)
    }

    /// Which servers it stands in for: those of higher tiers serve while those of lower ones are too few. 255 is a sorry
    /// server.
    #[zbus(property)]
    async fn tier(&self) -> fdo::Result<u8> {
        self.now(|server| server.tier)
    }
}

impl ServerObject {
    /// Sends the signals for what is different between `before` and `after`.
    pub async fn announce(
        &self,
        emitter: &SignalEmitter<'_>,
        before: &Server,
        after: &Server,
    ) -> zbus::Result<()> {
        if before.enabled != after.enabled {
            self.enabled_changed(emitter).await?;
        }
        if before.host_name != after.host_name {
            self.host_name_changed(emitter).await?;
        }
        if before.weight != after.weight {
            self.weight_changed(emitter).await?;
        }
        if before.max_connections != after.max_connections {
            self.max_connections_changed(emitter).await?;
        }
        if before.min_connections != after.min_connections {
            self.min_connections_changed(emitter).await?;
        }
        if before.tier != after.tier {
            self.tier_changed(emitter).await?;
        }
        Ok(())
    }
}
