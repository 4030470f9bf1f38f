//! The [client](crate::client::Client) for programs without an async runtime: each call waits for its answer.
//!
//! ```no_run
//! use libilb::blocking::Client;
//!
//! fn main() -> Result<(), libilb::client::ClientError> {
//!     let client = Client::connect()?;
//!     for rule in client.describe()?.rules {
//!         println!("{}: {}", rule.rule.name, if rule.rule.enabled { "enabled" } else { "disabled" });
//!     }
//!     // Whatever has no method here is a call of the other client.
//!     let generation = client.wait(async |client| client.manager().generation().await);
//!     println!("generation {generation:?}");
//!     Ok(())
//! }
//! ```

use std::io;

use tokio::runtime::{Builder, Runtime};
use zbus::Address;

use crate::client::{self, ClientError};
use crate::connections::{Connection, Filter};
use crate::describe::Description;
use crate::explain::{Explanation, Packet};
use crate::rule::RuleSettings;
use crate::server::ServerSettings;
use crate::stats::Statistics;

/// See the module. Not for use within an async runtime, where waiting is a panic; it has [`client::Client`].
#[derive(Debug)]
pub struct Client {
    // Before the runtime, so that it is dropped while that is there.
    client: client::Client,
    runtime: Runtime,
}

impl Client {
    /// Connects to the system bus (`DBUS_SYSTEM_BUS_ADDRESS` says where another one is).
    ///
    /// # Errors
    /// [`ClientError`]; all methods below likewise.
    pub fn connect() -> Result<Client, ClientError> {
        let runtime = runtime()?;
        let client = runtime.block_on(client::Client::connect())?;
        Ok(Client { client, runtime })
    }

    /// Connects to the bus at this address.
    pub fn connect_to(address: Address) -> Result<Client, ClientError> {
        let runtime = runtime()?;
        let client = runtime.block_on(client::Client::connect_to(address))?;
        Ok(Client { client, runtime })
    }

    /// Waits for what the other client does.
    pub fn wait<T>(&self, call: impl AsyncFnOnce(&client::Client) -> T) -> T {
        self.runtime.block_on(call(&self.client))
    }

    /// Configuration and state.
    pub fn describe(&self) -> Result<Description, ClientError> {
        self.wait(client::Client::describe)
    }

    /// All counters.
    pub fn statistics(&self) -> Result<Statistics, ClientError> {
        self.wait(client::Client::statistics)
    }

    /// At most `limit` connections, and whether there may be more.
    pub fn connections(
        &self,
        filter: &Filter,
        limit: u32,
    ) -> Result<(Vec<Connection>, bool), ClientError> {
        self.wait(async |client| client.connections(filter, limit).await)
    }

    /// What would become of a packet.
    pub fn explain(&self, packet: &Packet) -> Result<Explanation, ClientError> {
        self.wait(async |client| client.explain(packet).await)
    }

    /// Creates a rule and returns its object path.
    pub fn create_rule(&self, name: &str, settings: &RuleSettings) -> Result<String, ClientError> {
        self.wait(async |client| client.create_rule(name, settings).await)
    }

    /// Changes a rule. False if it was so already.
    pub fn modify_rule(&self, name: &str, settings: &RuleSettings) -> Result<bool, ClientError> {
        self.wait(async |client| client.modify_rule(name, settings).await)
    }

    /// Deletes rules.
    pub fn delete_rules(&self, names: &[&str]) -> Result<Vec<String>, ClientError> {
        self.wait(async |client| client.delete_rules(names).await)
    }

    /// Deletes all rules.
    pub fn delete_all_rules(&self) -> Result<Vec<String>, ClientError> {
        self.wait(client::Client::delete_all_rules)
    }

    /// Enables or disables rules, all if none is named. Returns those that changed.
    pub fn enable_rules(&self, names: &[&str], enabled: bool) -> Result<Vec<String>, ClientError> {
        self.wait(async |client| client.enable_rules(names, enabled).await)
    }

    /// Creates a server group and returns its object path.
    pub fn create_group(&self, name: &str, servers: &[&str]) -> Result<String, ClientError> {
        self.wait(async |client| client.create_group(name, servers).await)
    }

    /// Deletes server groups.
    pub fn delete_groups(&self, names: &[&str]) -> Result<Vec<String>, ClientError> {
        self.wait(async |client| client.delete_groups(names).await)
    }

    /// Adds servers to a group and returns their ids.
    pub fn add_servers(&self, group: &str, servers: &[&str]) -> Result<Vec<String>, ClientError> {
        self.wait(async |client| client.add_servers(group, servers).await)
    }

    /// Removes servers from a group, by id or specification, and returns their ids.
    pub fn remove_servers(
        &self,
        group: &str,
        servers: &[&str],
    ) -> Result<Vec<String>, ClientError> {
        self.wait(async |client| client.remove_servers(group, servers).await)
    }

    /// Enables or disables servers. Returns the ids of those that changed.
    pub fn enable_servers(&self, ids: &[&str], enabled: bool) -> Result<Vec<String>, ClientError> {
        self.wait(async |client| client.enable_servers(ids, enabled).await)
    }

    /// Changes weights and limits of servers. Returns the ids of those that changed.
    pub fn modify_servers(
        &self,
        ids: &[&str],
        settings: &ServerSettings,
    ) -> Result<Vec<String>, ClientError> {
        self.wait(async |client| client.modify_servers(ids, settings).await)
    }
}

fn runtime() -> Result<Runtime, ClientError> {
    let failed = |error: io::Error| ClientError::NotRunning(format!("no async runtime: {error}"));
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)
}
