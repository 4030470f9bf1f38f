//! The manager as its clients use it: typed calls, typed answers, typed errors.
//!
//! ```no_run
//! # async fn example() -> Result<(), libilb::client::ClientError> {
//! use libilb::client::Client;
//!
//! let client = Client::connect().await?;
//! // What happens from now on, through restarts of the manager.
//! let mut events = client.watch().await?;
//! client.enable_rules(&["shop"], false).await?;
//! println!("{:?}", events.next().await?);
//! # Ok(())
//! # }
//! ```

use std::net::IpAddr;
use std::time::Duration;

use zbus::connection::Builder;
use zbus::proxy::CacheProperties;
use zbus::{Address, Connection, fdo};

use crate::apply::ApplyOptions;
use crate::connections::{self, Filter};
use crate::dbus::{self, ManagerProxy};
use crate::describe::Description;
use crate::document::Report;
use crate::error::ErrorKind;
use crate::events::Watcher;
use crate::explain::{Explanation, Packet};
use crate::fastpath::FastpathDescription;
use crate::health::HealthReport;
use crate::healthcheck::{self, HealthCheckSettings};
use crate::healthfilter::HealthFilter;
use crate::history;
use crate::pair::{Invitation, PairDescription};
use crate::rule::RuleSettings;
use crate::server::ServerSettings;
use crate::source::SourceSettings;
use crate::stats::Statistics;
use crate::vrrp::{self, VrrpSettings};

/// How long a call may take. The manager answers in milliseconds; this only keeps a client from waiting for ever.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// The same where a person may be asked for a password, for which the manager waits two minutes.
pub const PATIENT_TIMEOUT: Duration = Duration::from_secs(150);

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// There is no bus, or no manager on it.
    #[error(
        "the load balancer's manager is not running ({0}): start it with 'systemctl start ilb'"
    )]
    NotRunning(String),
    /// The caller may not do it.
    #[error("not authorised: {0}")]
    NotAuthorized(String),
    /// The manager refused, and says why.
    #[error("{message}")]
    Refused {
        /// See [`ErrorKind`].
        kind: ErrorKind,
        /// What the manager says.
        message: String,
    },
    /// The manager did not answer in time.
    #[error("the manager did not answer in time: look at 'journalctl -u ilb'")]
    Timeout,
    /// What came back was not understood.
    #[error(
        "the manager's answer was not understood ({0}): are lbadm and ilb-svcmgr of the same version?"
    )]
    Protocol(String),
}

impl From<zbus::Error> for ClientError {
    fn from(error: zbus::Error) -> ClientError {
        match error {
            zbus::Error::Connection(e, _) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                ClientError::NotAuthorized(format!("the D-Bus system bus cannot be used: {e}"))
            }
            zbus::Error::Connection(..) | zbus::Error::Handshake(_) => {
                ClientError::NotRunning(format!("no D-Bus system bus: {error}"))
            }
            zbus::Error::Address(_) => ClientError::NotRunning(error.to_string()),
            zbus::Error::InputOutput(e) if e.kind() == std::io::ErrorKind::TimedOut => {
                ClientError::Timeout
            }
            zbus::Error::InputOutput(e) => ClientError::NotRunning(format!(
                "the connection to the D-Bus system bus failed: {e}"
            )),
            zbus::Error::FDO(e) => match *e {
                fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) => {
                    ClientError::NotRunning(format!(
                        "nobody owns {} on the system bus",
                        dbus::BUS_NAME
                    ))
                }
                fdo::Error::NoReply(_) | fdo::Error::Disconnected(_) => {
                    ClientError::NotRunning("it went away before it answered".to_string())
                }
                fdo::Error::SpawnExecFailed(m)
                | fdo::Error::SpawnChildExited(m)
                | fdo::Error::SpawnFailed(m)
                | fdo::Error::SpawnServiceNotFound(m) => ClientError::NotRunning(m),
                fdo::Error::AccessDenied(m)
                | fdo::Error::AuthFailed(m)
                | fdo::Error::InteractiveAuthorizationRequired(m) => {
                    ClientError::NotAuthorized(format!("{m}; run it as root"))
                }
                // Too much at a time; the message says what.
                fdo::Error::LimitsExceeded(message) => ClientError::Refused {
                    kind: ErrorKind::Failed,
                    message,
                },
                fdo::Error::Timeout(_) | fdo::Error::TimedOut(_) => ClientError::Timeout,
                other => ClientError::Protocol(other.to_string()),
            },
            // The bus wanted to start it, and systemd did not.
            zbus::Error::MethodError(name, message, _)
                if name.as_str().starts_with("org.freedesktop.systemd1.") =>
            {
                ClientError::NotRunning(message.unwrap_or_else(|| name.to_string()))
            }
            zbus::Error::MethodError(name, message, _) => match dbus::error_kind(name.as_str()) {
                Some(ErrorKind::NotAuthorized) => ClientError::NotAuthorized(
                    message.unwrap_or_else(|| "run it as root".to_string()),
                ),
                Some(kind) => ClientError::Refused {
                    kind,
                    message: message.unwrap_or_else(|| kind.word().to_string()),
                },
                None => ClientError::Protocol(format!(
                    "{}: {}",
                    name.as_str(),
                    message.unwrap_or_default()
                )),
            },
            other => ClientError::Protocol(other.to_string()),
        }
    }
}

/// A connection to the manager.
#[derive(Debug, Clone)]
pub struct Client {
    manager: ManagerProxy<'static>,
}

impl Client {
    /// Connects to the system bus (`DBUS_SYSTEM_BUS_ADDRESS` says where another one is).
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] if there is no bus. Whether the manager is there shows with the first call.
    pub async fn connect() -> Result<Client, ClientError> {
        let connection = Builder::system().method_timeout(TIMEOUT).build().await?;
        Client::on(&connection).await
    }

    /// Like [`Client::connect`], for calls that may have a person asked for a password.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_patiently() -> Result<Client, ClientError> {
        let builder = Builder::system().method_timeout(PATIENT_TIMEOUT);
        Client::on(&builder.build().await?).await
    }

    /// Connects to the bus at this address.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_to(address: Address) -> Result<Client, ClientError> {
        let connection = Builder::address(address)
            .method_timeout(TIMEOUT)
            .build()
            .await?;
        Client::on(&connection).await
    }

    /// Uses a connection that is there already.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn on(connection: &Connection) -> Result<Client, ClientError> {
        let manager = ManagerProxy::builder(connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok(Client { manager })
    }

    /// The proxy, for what has no method here.
    pub fn manager(&self) -> &ManagerProxy<'static> {
        &self.manager
    }

    /// Configuration and state.
    ///
    /// # Errors
    /// [`ClientError`]; all methods below likewise.
    pub async fn describe(&self) -> Result<Description, ClientError> {
        let json = self.manager.describe().await?;
        Description::from_json(&json).map_err(|e| ClientError::Protocol(e.to_string()))
    }

    /// How the fast path does its work.
    pub async fn describe_fastpath(&self) -> Result<FastpathDescription, ClientError> {
        from_json(&self.manager.describe_fastpath().await?)
    }

    /// How it stands with the pair.
    pub async fn describe_pair(&self) -> Result<PairDescription, ClientError> {
        from_json(&self.manager.describe_pair().await?)
    }

    /// Makes this node the first of a pair. No address and port 0 mean what the node's settings say.
    pub async fn create_pair(
        &self,
        address: Option<IpAddr>,
        port: u16,
    ) -> Result<Invitation, ClientError> {
        let address = address.map(|it| it.to_string()).unwrap_or_default();
        from_json(&self.manager.create_pair(&address, port).await?)
    }

    /// Joins the pair of the node at this address; with `replace` what is configured here goes.
    pub async fn join_pair(
        &self,
        address: IpAddr,
        port: u16,
        token: &str,
        replace: bool,
    ) -> Result<(), ClientError> {
        let address = address.to_string();
        let joined = self.manager.join_pair(&address, port, token, replace);
        Ok(joined.await?)
    }

    /// Ends the pair for this node, and takes note of the other one having ended it. False if there was neither.
    pub async fn leave_pair(&self) -> Result<bool, ClientError> {
        Ok(self.manager.leave_pair().await?)
    }

    /// Takes note of what happened to the pair, and says how much that was.
    pub async fn acknowledge_pair(&self) -> Result<u32, ClientError> {
        Ok(self.manager.acknowledge_pair().await?)
    }

    /// Gives the addresses of this node to the other one. Returns the VRRP instances.
    pub async fn failover(&self, force: bool) -> Result<Vec<String>, ClientError> {
        Ok(self.manager.failover(force).await?)
    }

    /// Takes this node out, or in again. False if it was so already.
    pub async fn set_maintenance(&self, on: bool) -> Result<bool, ClientError> {
        Ok(self.manager.set_maintenance(on).await?)
    }

    /// All counters.
    pub async fn statistics(&self) -> Result<Statistics, ClientError> {
        Ok(self.manager.get_statistics().await?.into())
    }

    /// At most `limit` connections, and whether there may be more.
    pub async fn connections(
        &self,
        filter: &Filter,
        limit: u32,
    ) -> Result<(Vec<connections::Connection>, bool), ClientError> {
        let mut all: Vec<connections::Connection> = Vec::new();
        let mut cursor = 0;
        loop {
            let left = limit.saturating_sub(u32::try_from(all.len()).unwrap_or(u32::MAX));
            if left == 0 {
                return Ok((all, true));
            }
            let page = left.min(connections::MOST);
            let asked = self
                .manager
                .list_connections(filter.to_dbus(), cursor, page);
            let (json, next) = asked.await?;
            let page: Vec<connections::Connection> = from_json(&json)?;
            all.extend(page);
            if next == 0 {
                return Ok((all, false));
            }
            cursor = next;
        }
    }

    /// What happens from now on.
    pub async fn watch(&self) -> Result<Watcher, ClientError> {
        Watcher::on(self.manager.inner().connection()).await
    }

    /// What would become of a packet.
    pub async fn explain(&self, packet: &Packet) -> Result<Explanation, ClientError> {
        from_json(&self.manager.explain(packet.to_dbus()).await?)
    }

    /// The newest generations, newest first; 0 for all that are known.
    pub async fn history(&self, count: u32) -> Result<Vec<history::Item>, ClientError> {
        from_json(&self.manager.history(count).await?)
    }

    /// Goes back to the configuration of a generation.
    pub async fn rollback(&self, generation: u64) -> Result<history::Report, ClientError> {
        from_json(&self.manager.rollback(generation).await?)
    }

    /// What going back would change.
    pub async fn preview_rollback(&self, generation: u64) -> Result<history::Report, ClientError> {
        from_json(&self.manager.preview_rollback(generation).await?)
    }

    /// What health checks know of the servers that a filter wants.
    pub async fn health_results(&self, filter: &HealthFilter) -> Result<HealthReport, ClientError> {
        from_json(&self.manager.list_health_results(filter.to_dbus()).await?)
    }

    /// Applies a document and returns what it changed, or with a dry run would change.
    pub async fn apply(
        &self,
        document: &str,
        options: &ApplyOptions,
    ) -> Result<Report, ClientError> {
        from_json(&self.manager.apply(document, options.to_dbus()).await?)
    }

    /// Keeps the change that waits for its confirmation. False if none does.
    pub async fn confirm(&self) -> Result<bool, ClientError> {
        Ok(self.manager.confirm().await?)
    }

    /// Takes the change back that waits for its confirmation. False if none does.
    pub async fn revert(&self) -> Result<bool, ClientError> {
        Ok(self.manager.revert().await?)
    }

    /// Creates a rule and returns its object path.
    pub async fn create_rule(
        &self,
        name: &str,
        settings: &RuleSettings,
    ) -> Result<String, ClientError> {
        let settings = dbus::settings_to_dbus(settings);
        Ok(self.manager.create_rule(name, settings).await?.to_string())
    }

    /// Changes a rule. False if it was so already.
    pub async fn modify_rule(
        &self,
        name: &str,
        settings: &RuleSettings,
    ) -> Result<bool, ClientError> {
        let settings = dbus::settings_to_dbus(settings);
        Ok(self.manager.modify_rule(name, settings).await?)
    }

    /// Deletes rules.
    pub async fn delete_rules(&self, names: &[&str]) -> Result<Vec<String>, ClientError> {
        Ok(self.manager.delete_rules(names).await?)
    }

    /// Deletes all rules.
    pub async fn delete_all_rules(&self) -> Result<Vec<String>, ClientError> {
        Ok(self.manager.delete_all_rules().await?)
    }

    /// Enables or disables rules, all if none is named. Returns those that changed.
    pub async fn enable_rules(
        &self,
        names: &[&str],
        enabled: bool,
    ) -> Result<Vec<String>, ClientError> {
        Ok(if enabled {
            self.manager.enable_rules(names).await?
        } else {
            self.manager.disable_rules(names).await?
        })
    }

    /// Creates a server group and returns its object path.
    pub async fn create_group(&self, name: &str, servers: &[&str]) -> Result<String, ClientError> {
        let path = self.manager.create_server_group(name, servers).await?;
        Ok(path.to_string())
    }

    /// Creates a server group whose servers are found by themselves, and returns its object path.
    pub async fn create_following_group(
        &self,
        name: &str,
        servers: &[&str],
        source: &SourceSettings,
    ) -> Result<String, ClientError> {
        let source = dbus::source_to_dbus(source);
        let created = self
            .manager
            .create_following_server_group(name, servers, source);
        Ok(created.await?.to_string())
    }

    /// Changes where the servers of a group are found. False if it was so already.
    pub async fn modify_group(
        &self,
        name: &str,
        source: &SourceSettings,
    ) -> Result<bool, ClientError> {
        let source = dbus::source_to_dbus(source);
        Ok(self.manager.modify_server_group(name, source).await?)
    }

    /// Takes servers into a group that wait for it, all if none is named. Returns their ids.
    pub async fn approve_servers(
        &self,
        group: &str,
        servers: &[&str],
    ) -> Result<Vec<String>, ClientError> {
        Ok(self.manager.approve_servers(group, servers).await?)
    }

    /// Deletes server groups.
    pub async fn delete_groups(&self, names: &[&str]) -> Result<Vec<String>, ClientError> {
        Ok(self.manager.delete_server_groups(names).await?)
    }

    /// Adds servers to a group and returns their ids.
    pub async fn add_servers(
        &self,
        group: &str,
        servers: &[&str],
    ) -> Result<Vec<String>, ClientError> {
        Ok(self.manager.add_servers(group, servers).await?)
    }

    /// Removes servers from a group, by id or specification, and returns their ids.
    pub async fn remove_servers(
        &self,
        group: &str,
        servers: &[&str],
    ) -> Result<Vec<String>, ClientError> {
        Ok(self.manager.remove_servers(group, servers).await?)
    }

    /// Enables or disables servers. Returns the ids of those that changed.
    pub async fn enable_servers(
        &self,
        ids: &[&str],
        enabled: bool,
    ) -> Result<Vec<String>, ClientError> {
        Ok(if enabled {
            self.manager.enable_servers(ids).await?
        } else {
            self.manager.disable_servers(ids).await?
        })
    }

    /// Creates a health check and returns its object path.
    pub async fn create_check(
        &self,
        name: &str,
        settings: &HealthCheckSettings,
    ) -> Result<String, ClientError> {
        let settings = healthcheck::settings_to_dbus(settings);
        let path = self.manager.create_health_check(name, settings).await?;
        Ok(path.to_string())
    }

    /// Changes a health check. False if it was so already.
    pub async fn modify_check(
        &self,
        name: &str,
        settings: &HealthCheckSettings,
    ) -> Result<bool, ClientError> {
        let settings = healthcheck::settings_to_dbus(settings);
        Ok(self.manager.modify_health_check(name, settings).await?)
    }

    /// Creates a VRRP instance and returns its object path.
    pub async fn create_vrrp(
        &self,
        name: &str,
        settings: &VrrpSettings,
    ) -> Result<String, ClientError> {
        let settings = vrrp::settings_to_dbus(settings);
        let path = self.manager.create_vrrp(name, settings).await?;
        Ok(path.to_string())
    }

    /// Changes a VRRP instance. False if it was so already.
    pub async fn modify_vrrp(
        &self,
        name: &str,
        settings: &VrrpSettings,
    ) -> Result<bool, ClientError> {
        let settings = vrrp::settings_to_dbus(settings);
        Ok(self.manager.modify_vrrp(name, settings).await?)
    }

    /// Enables or disables VRRP instances, all if none is named. Returns those that changed.
    pub async fn enable_vrrp(
        &self,
        names: &[&str],
        enabled: bool,
    ) -> Result<Vec<String>, ClientError> {
        Ok(match enabled {
            true => self.manager.enable_vrrp(names).await?,
            false => self.manager.disable_vrrp(names).await?,
        })
    }

    /// Deletes VRRP instances.
    pub async fn delete_vrrp(&self, names: &[&str]) -> Result<Vec<String>, ClientError> {
        Ok(self.manager.delete_vrrp(names).await?)
    }

    /// Deletes health checks.
    pub async fn delete_checks(&self, names: &[&str]) -> Result<Vec<String>, ClientError> {
        Ok(self.manager.delete_health_checks(names).await?)
    }

    /// Changes weights and limits of servers. Returns the ids of those that changed.
    pub async fn modify_servers(
        &self,
        ids: &[&str],
        settings: &ServerSettings,
    ) -> Result<Vec<String>, ClientError> {
        let settings = dbus::server_settings_to_dbus(settings);
        Ok(self.manager.modify_servers(ids, settings).await?)
    }
}

fn from_json<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, ClientError> {
    serde_json::from_str(json).map_err(|e| ClientError::Protocol(e.to_string()))
}
