//! `org.ilb.Ilb1.Manager` at the root object.

use std::collections::HashMap;

use libilb::apply::ApplyOptions;
use libilb::connections::{self, Filter};
use libilb::dbus::{self, check_path, group_path, rule_path};
use libilb::explain::Packet;
use libilb::health::HealthReport;
use libilb::healthcheck;
use libilb::healthfilter::HealthFilter;
use libilb::source::SourceSettings;
use libilb::stats::RawEntry;
use libilb::vrrp;
use zbus::message::Header;
use zbus::{Connection, ObjectPath, OwnedObjectPath, OwnedVariant, interface};

use super::access;
use super::error::MethodError;
use crate::manager::ManagerHandle;
use crate::manager::change::Change;
use crate::manager::error::ManagerError;

/// See the module.
pub struct ManagerObject {
    handle: ManagerHandle,
}

impl ManagerObject {
    /// Speaks for this manager.
    pub fn new(handle: ManagerHandle) -> ManagerObject {
        ManagerObject { handle }
    }

    async fn change(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        change: Change,
    ) -> Result<Vec<String>, MethodError> {
        let author = access::check(connection, header).await?;
        Ok(self.handle.change(author, change).await?)
    }

    /// For what only enables or disables.
    async fn change_state(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        change: Change,
    ) -> Result<Vec<String>, MethodError> {
        let author = access::check_state(connection, header).await?;
        Ok(self.handle.change(author, change).await?)
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, MethodError> {
    serde_json::to_string(value).map_err(|error| ManagerError::Internal(error.to_string()).into())
}

fn object_path(path: String) -> Result<OwnedObjectPath, MethodError> {
    ObjectPath::try_from(path)
        .map(OwnedObjectPath::from)
        .map_err(|error| ManagerError::Internal(error.to_string()).into())
}

#[interface(name = "org.ilb.Ilb1.Manager")]
impl ManagerObject {
    /// Creates a rule. Keys of settings: see docs/dbus.md.
    #[zbus(out_args("path"))]
    async fn create_rule(
        &self,
        name: String,
        settings: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, MethodError> {
        let author = access::check(connection, &header).await?;
        let settings = Box::new(dbus::settings_from_dbus(&settings)?);
        let path = rule_path(&name);
        let change = Change::CreateRule { name, settings };
        self.handle.change(author, change).await?;
        object_path(path)
    }

    /// Changes a rule while its connections go on; true if it was different. Keys as those of `CreateRule`, without what a
    /// rule keeps for its life.
    #[zbus(out_args("changed"))]
    async fn modify_rule(
        &self,
        name: String,
        settings: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        let author = access::check(connection, &header).await?;
        let settings = Box::new(dbus::settings_from_dbus(&settings)?);
        let change = Change::ModifyRule { name, settings };
        Ok(!self.handle.change(author, change).await?.is_empty())
    }

    /// Deletes rules, all of them or none, and returns their names.
    #[zbus(out_args("deleted"))]
    async fn delete_rules(
        &self,
        names: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        self.change(connection, &header, Change::DeleteRules(names))
            .await
    }

    /// Deletes all rules and returns their names.
    #[zbus(out_args("deleted"))]
    async fn delete_all_rules(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        self.change(connection, &header, Change::DeleteAllRules)
            .await
    }

    /// Enables rules, all if none is named, and returns those that were disabled.
    #[zbus(out_args("changed"))]
    async fn enable_rules(
        &self,
        names: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        let enabled = true;
        self.change_state(connection, &header, Change::EnableRules { names, enabled })
            .await
    }

    /// Disables rules, all if none is named, and returns those that were enabled. Their connections live on.
    #[zbus(out_args("changed"))]
    async fn disable_rules(
        &self,
        names: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        let enabled = false;
        self.change_state(connection, &header, Change::EnableRules { names, enabled })
            .await
    }

    /// Creates a server group with servers such as 192.0.2.10:80, [2001:db8::1] or 192.0.2.10-192.0.2.13:8080-8089.
    #[zbus(out_args("path"))]
    async fn create_server_group(
        &self,
        name: String,
        servers: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, MethodError> {
        let path = group_path(&name);
        let source = SourceSettings::default();
        let change = Change::CreateGroup {
            name,
            servers,
            source,
        };
        self.change(connection, &header, change).await?;
        object_path(path)
    }

    /// Creates a server group whose servers are found by themselves, with servers if there are any. Keys of source: see
    /// docs/dbus.md.
    #[zbus(out_args("path"))]
    async fn create_following_server_group(
        &self,
        name: String,
        servers: Vec<String>,
        source: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, MethodError> {
        let author = access::check(connection, &header).await?;
        let source = dbus::source_from_dbus(&source)?;
        let path = group_path(&name);
        let change = Change::CreateGroup {
            name,
            servers,
            source,
        };
        self.handle.change(author, change).await?;
        object_path(path)
    }

    /// Changes where the servers of a group are found; what is not given stays. True if it was different.
    #[zbus(out_args("changed"))]
    async fn modify_server_group(
        &self,
        name: String,
        source: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        let author = access::check(connection, &header).await?;
        let source = dbus::source_from_dbus(&source)?;
        let change = Change::ModifyGroup { name, source };
        Ok(!self.handle.change(author, change).await?.is_empty())
    }

    /// Takes servers into a group that its source has found and that wait for it, all if none is named, and returns their ids.
    #[zbus(out_args("ids"))]
    async fn approve_servers(
        &self,
        group: String,
        servers: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        let author = access::check(connection, &header).await?;
        Ok(self.handle.approve(author, &group, &servers).await?)
    }

    /// Deletes server groups that no rule uses, all of them or none, and returns their names.
    #[zbus(out_args("deleted"))]
    async fn delete_server_groups(
        &self,
        names: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        self.change(connection, &header, Change::DeleteGroups(names))
            .await
    }

    /// Adds servers to a group and returns their ids.
    #[zbus(out_args("ids"))]
    async fn add_servers(
        &self,
        group: String,
        servers: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        self.change(connection, &header, Change::AddServers { group, servers })
            .await
    }

    /// Removes servers from a group, named by id or as they were added, and returns their ids. Their connections live on.
    #[zbus(out_args("ids"))]
    async fn remove_servers(
        &self,
        group: String,
        servers: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        self.change(
            connection,
            &header,
            Change::RemoveServers { group, servers },
        )
        .await
    }

    /// Enables servers and returns the ids of those that were disabled.
    #[zbus(out_args("changed"))]
    async fn enable_servers(
        &self,
        ids: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        let enabled = true;
        self.change_state(connection, &header, Change::EnableServers { ids, enabled })
            .await
    }

    /// Disables servers and returns the ids of those that were enabled. Their connections live on.
    #[zbus(out_args("changed"))]
    async fn disable_servers(
        &self,
        ids: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        let enabled = false;
        self.change_state(connection, &header, Change::EnableServers { ids, enabled })
            .await
    }

    /// Changes weight (u), max-connections (u), min-connections (u) and tier (u, 255 for sorry) of servers, of all or none,
    /// and returns the ids of those that were different.
    #[zbus(out_args("changed"))]
    async fn modify_servers(
        &self,
        ids: Vec<String>,
        settings: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        let author = access::check(connection, &header).await?;
        let settings = dbus::server_settings_from_dbus(&settings)?;
        let change = Change::ModifyServers { ids, settings };
        Ok(self.handle.change(author, change).await?)
    }

    /// Creates a health check. Keys of settings: see docs/dbus.md.
    #[zbus(out_args("path"))]
    async fn create_health_check(
        &self,
        name: String,
        settings: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, MethodError> {
        let author = access::check(connection, &header).await?;
        let settings = Box::new(healthcheck::settings_from_dbus(&settings)?);
        let path = check_path(&name);
        self.handle
            .change(author, Change::CreateCheck { name, settings })
            .await?;
        object_path(path)
    }

    /// Changes a health check; what is not given stays. True if it was different.
    #[zbus(out_args("changed"))]
    async fn modify_health_check(
        &self,
        name: String,
        settings: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        let author = access::check(connection, &header).await?;
        let settings = Box::new(healthcheck::settings_from_dbus(&settings)?);
        let change = Change::ModifyCheck { name, settings };
        Ok(!self.handle.change(author, change).await?.is_empty())
    }

    /// Deletes health checks that no rule uses, all of them or none, and returns their names.
    #[zbus(out_args("deleted"))]
    async fn delete_health_checks(
        &self,
        names: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        self.change(connection, &header, Change::DeleteChecks(names))
            .await
    }

    /// Creates a VRRP instance. Keys of settings: see docs/dbus.md.
    #[zbus(out_args("path"))]
    async fn create_vrrp(
        &self,
        name: String,
        settings: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, MethodError> {
        let author = access::check(connection, &header).await?;
        let settings = vrrp::settings_from_dbus(&settings)?;
        let path = dbus::vrrp_path(&name);
        let change = Change::CreateVrrp { name, settings };
        self.handle.change(author, change).await?;
        object_path(path)
    }

    /// Changes a VRRP instance; what is not given stays. True if it was different.
    #[zbus(out_args("changed"))]
    async fn modify_vrrp(
        &self,
        name: String,
        settings: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        let author = access::check(connection, &header).await?;
        let settings = vrrp::settings_from_dbus(&settings)?;
        let change = Change::ModifyVrrp { name, settings };
        Ok(!self.handle.change(author, change).await?.is_empty())
    }

    /// Enables VRRP instances, all if none is named, and returns those that were disabled.
    #[zbus(out_args("changed"))]
    async fn enable_vrrp(
        &self,
        names: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        let enabled = true;
        self.change_state(connection, &header, Change::EnableVrrp { names, enabled })
            .await
    }

    /// Disables VRRP instances, all if none is named, and returns those that were enabled. Another node takes over; the addresses stay
    /// here until it has.
    #[zbus(out_args("changed"))]
    async fn disable_vrrp(
        &self,
        names: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        let enabled = false;
        self.change_state(connection, &header, Change::EnableVrrp { names, enabled })
            .await
    }

    /// Deletes VRRP instances, all of them or none, and returns their names. Their addresses are given up.
    #[zbus(out_args("deleted"))]
    async fn delete_vrrp(
        &self,
        names: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        self.change(connection, &header, Change::DeleteVrrp(names))
            .await
    }

    /// Makes this node the first of a pair, which another one can join with the token in the answer: JSON with token, host, port
    /// and until (Unix time in seconds). An empty address and port 0 mean what the settings say.
    #[zbus(out_args("json"))]
    async fn create_pair(
        &self,
        address: String,
        port: u16,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, MethodError> {
        let author = access::check(connection, &header).await?;
        json(&self.handle.create_pair(author, &address, port).await?)
    }

    /// Joins the pair of the node at an address, by its token. With replace also if something is configured here, which goes.
    async fn join_pair(
        &self,
        address: String,
        port: u16,
        token: String,
        replace: bool,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), MethodError> {
        let author = access::check(connection, &header).await?;
        let joined = self
            .handle
            .join_pair(author, &address, port, &token, replace);
        Ok(joined.await?)
    }

    /// Ends the pair for this node, which keeps its configuration, and tells the other one, which stands alone then. Takes note of
    /// one that has left before. False if there was nothing to end.
    #[zbus(out_args("left"))]
    async fn leave_pair(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        let author = access::check(connection, &header).await?;
        Ok(self.handle.leave_pair(author).await?)
    }

    /// Takes note of what happened to the pair, which `DescribePair` says no more then, and returns how much it was.
    #[zbus(out_args("count"))]
    async fn acknowledge_pair(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u32, MethodError> {
        let author = access::check(connection, &header).await?;
        Ok(self.handle.acknowledge_pair(author).await?)
    }

    /// Gives the addresses of this node to the other node of the pair and returns, when it has them, the names of the VRRP
    /// instances. With force also if the other node is not ready for it.
    #[zbus(out_args("instances"))]
    async fn failover(
        &self,
        force: bool,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, MethodError> {
        let author = access::check_state(connection, &header).await?;
        Ok(self.handle.fail_over(author, force).await?)
    }

    /// Takes this node out of service, or in again: meanwhile it takes no addresses by VRRP. False if it was so already.
    #[zbus(out_args("changed"))]
    async fn set_maintenance(
        &self,
        on: bool,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        let author = access::check_state(connection, &header).await?;
        Ok(self.handle.set_maintenance(author, on).await?)
    }

    /// How it stands with the pair as JSON: both nodes, the link, configurations, connections, and what happened.
    #[zbus(out_args("json"))]
    async fn describe_pair(&self) -> Result<String, MethodError> {
        json(&self.handle.describe_pair().await?)
    }

    /// Makes a document, TOML or JSON as docs/document.md says, the configuration: one change, all of it or nothing. Returns
    /// what was different, as JSON. With the option `dry-run` nothing changes, and everybody may ask.
    #[zbus(out_args("json"))]
    async fn apply(
        &self,
        document: String,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, MethodError> {
        let options = ApplyOptions::from_dbus(&options)?;
        if options.dry_run {
            return json(&self.handle.preview(document, options.merge).await?);
        }
        let author = access::check(connection, &header).await?;
        json(&self.handle.apply(author, document, options).await?)
    }

    /// Keeps the change that waits for its confirmation; false if none does.
    #[zbus(out_args("confirmed"))]
    async fn confirm(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        let author = access::check(connection, &header).await?;
        Ok(self.handle.confirm(author).await?)
    }

    /// Takes the change back that waits for its confirmation; false if none does.
    #[zbus(out_args("reverted"))]
    async fn revert(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<bool, MethodError> {
        let author = access::check(connection, &header).await?;
        Ok(self.handle.revert(author).await?)
    }

    /// Counters: rule name, server id (empty: the whole rule), values by name. Both names empty: the node.
    #[zbus(out_args("statistics"))]
    async fn get_statistics(&self) -> Result<Vec<RawEntry>, MethodError> {
        Ok(self.handle.statistics().await?.to_raw())
    }

    /// At most `limit` connections as JSON, and where the next page begins; 0 for the end. Keys of filter: see
    /// docs/dbus.md.
    #[zbus(out_args("json", "next"))]
    async fn list_connections(
        &self,
        filter: HashMap<String, OwnedVariant>,
        cursor: u32,
        limit: u32,
    ) -> Result<(String, u32), MethodError> {
        let filter = Filter::from_dbus(&filter)?;
        let limit = limit.clamp(1, connections::MOST);
        let (page, next) = self.handle.connections(&filter, cursor, limit).await?;
        Ok((json(&page)?, next))
    }

    /// What health checks know of servers as JSON. Keys of filter: rule (s), server (s).
    #[zbus(out_args("json"))]
    async fn list_health_results(
        &self,
        filter: HashMap<String, OwnedVariant>,
    ) -> Result<String, MethodError> {
        let filter = HealthFilter::from_dbus(&filter)?;
        let servers = self.handle.health_results(&filter).await?;
        json(&HealthReport { servers })
    }

    /// What would become of a packet, and why, as JSON; nothing changes. Keys of packet: see docs/dbus.md.
    #[zbus(out_args("json"))]
    async fn explain(&self, packet: HashMap<String, OwnedVariant>) -> Result<String, MethodError> {
        let packet = Packet::from_dbus(&packet)?;
        json(&self.handle.explain(&packet).await?)
    }

    /// The newest `count` generations as JSON, newest first; 0 for all that are known.
    #[zbus(out_args("json"))]
    async fn history(&self, count: u32) -> Result<String, MethodError> {
        json(&self.handle.history(count).await?)
    }

    /// Goes back to the configuration of a generation, as one change, and says as JSON what that changed.
    #[zbus(out_args("json"))]
    async fn rollback(
        &self,
        generation: u64,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, MethodError> {
        let author = access::check(connection, &header).await?;
        json(&self.handle.rollback(author, generation).await?)
    }

    /// What `Rollback` would change, as JSON; nothing changes.
    #[zbus(out_args("json"))]
    async fn preview_rollback(&self, generation: u64) -> Result<String, MethodError> {
        json(&self.handle.preview_rollback(generation).await?)
    }

    /// How the fast path does its work as JSON: version, workers, interfaces with mode and zero copy, or why not, and how full
    /// the connection table is.
    #[zbus(out_args("json"))]
    async fn describe_fastpath(&self) -> Result<String, MethodError> {
        json(&self.handle.describe_fastpath().await?)
    }

    /// Configuration and state as JSON.
    #[zbus(out_args("json"))]
    async fn describe(&self) -> Result<String, MethodError> {
        let description = self.handle.describe().await?;
        description
            .to_json()
            .map_err(|error| ManagerError::Internal(error.to_string()).into())
    }

    /// Version of the manager.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// Number of the configuration; it grows with every change.
    #[zbus(property)]
    async fn generation(&self) -> u64 {
        self.handle.view().state.generation
    }

    /// `ok`, or `degraded`: nothing can be changed.
    #[zbus(property)]
    async fn state(&self) -> String {
        self.handle.view().health.to_string()
    }

    /// Why it is degraded, or what a person should know about the database; usually empty.
    #[zbus(property)]
    async fn state_reason(&self) -> String {
        self.handle.view().health_reason.clone()
    }

    /// `connected`, `absent`, or `behind`: it forwards by an older configuration.
    #[zbus(property)]
    async fn fastpath(&self) -> String {
        self.handle.view().fastpath.to_string()
    }

    /// Generation that the fast path forwards by, as it acknowledged last.
    #[zbus(property)]
    async fn fastpath_generation(&self) -> u64 {
        self.handle.view().fastpath_generation
    }

    /// What is other than it should be in the fast path, in the kernel or on an interface, and what was put right in the last
    /// ten minutes, a line each. `Describe` has the parts.
    #[zbus(property)]
    async fn drift(&self) -> Vec<String> {
        let drift = &self.handle.view().drift;
        drift.iter().map(ToString::to_string).collect()
    }

    /// Unix time in seconds at which the last change is taken back unless it is confirmed; 0 if none waits.
    #[zbus(property)]
    async fn confirm_by(&self) -> u64 {
        let view = self.handle.view();
        view.state.pending.as_ref().map_or(0, |p| p.waiting.until)
    }

    /// Where the configuration is stored.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn database_path(&self) -> String {
        self.handle.database().to_owned()
    }
}
