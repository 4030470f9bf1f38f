//! What the manager's objects can be asked, as zbus calls it.

use std::collections::HashMap;

use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use crate::stats::RawEntry;

/// The manager. Methods that take several names do all or nothing.
#[zbus::proxy(
    interface = "org.ilb.Ilb1.Manager",
    default_service = "org.ilb.Ilb1",
    default_path = "/org/ilb/Ilb1"
)]
pub trait Manager {
    /// Creates a rule; see [`super::SETTINGS`].
    #[zbus(allow_interactive_auth)]
    fn create_rule(
        &self,
        name: &str,
        settings: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<OwnedObjectPath>;

    /// Changes a rule; keys of [`super::SETTINGS`] that it keeps for its life are refused. True if that made a difference.
    #[zbus(allow_interactive_auth)]
    fn modify_rule(&self, name: &str, settings: HashMap<&str, Variant<'_>>) -> zbus::Result<bool>;

    /// Deletes rules and returns their names.
    #[zbus(allow_interactive_auth)]
    fn delete_rules(&self, names: &[&str]) -> zbus::Result<Vec<String>>;

    /// Deletes all rules and returns their names.
    #[zbus(allow_interactive_auth)]
    fn delete_all_rules(&self) -> zbus::Result<Vec<String>>;

    /// Enables rules, all if none is named, and returns those that were disabled.
    #[zbus(allow_interactive_auth)]
    fn enable_rules(&self, names: &[&str]) -> zbus::Result<Vec<String>>;

    /// Disables rules, all if none is named, and returns those that were enabled.
    #[zbus(allow_interactive_auth)]
    fn disable_rules(&self, names: &[&str]) -> zbus::Result<Vec<String>>;

    /// Creates a server group with the servers that [`crate::server::ServerSpec`] describes.
    #[zbus(allow_interactive_auth)]
    fn create_server_group(&self, name: &str, servers: &[&str]) -> zbus::Result<OwnedObjectPath>;

    /// Creates a server group whose servers are found by themselves; see [`super::SOURCE_SETTINGS`].
    #[zbus(allow_interactive_auth)]
    fn create_following_server_group(
        &self,
        name: &str,
        servers: &[&str],
        source: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<OwnedObjectPath>;

    /// Changes where the servers of a group are found. True if that made a difference.
    #[zbus(allow_interactive_auth)]
    fn modify_server_group(
        &self,
        name: &str,
        source: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<bool>;

    /// Takes servers into a group that wait for it, all if none is named, and returns their ids.
    #[zbus(allow_interactive_auth)]
    fn approve_servers(&self, group: &str, servers: &[&str]) -> zbus::Result<Vec<String>>;

    /// Deletes server groups and returns their names.
    #[zbus(allow_interactive_auth)]
    fn delete_server_groups(&self, names: &[&str]) -> zbus::Result<Vec<String>>;

    /// Adds servers to a group and returns their ids.
    #[zbus(allow_interactive_auth)]
    fn add_servers(&self, group: &str, servers: &[&str]) -> zbus::Result<Vec<String>>;

    /// Removes servers, named by id or specification, from a group and returns their ids.
    #[zbus(allow_interactive_auth)]
    fn remove_servers(&self, group: &str, servers: &[&str]) -> zbus::Result<Vec<String>>;

    /// Enables servers and returns the ids of those that were disabled.
    #[zbus(allow_interactive_auth)]
    fn enable_servers(&self, ids: &[&str]) -> zbus::Result<Vec<String>>;

    /// Disables servers and returns the ids of those that were enabled.
    #[zbus(allow_interactive_auth)]
    fn disable_servers(&self, ids: &[&str]) -> zbus::Result<Vec<String>>;

    /// Changes weights and limits of servers, see [`super::SERVER_SETTINGS`], and returns the ids of those that were different.
    #[zbus(allow_interactive_auth)]
    fn modify_servers(
        &self,
        ids: &[&str],
        settings: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<Vec<String>>;

    /// Creates a health check; see [`crate::healthcheck::HEALTH_CHECK_SETTINGS`].
    #[zbus(allow_interactive_auth)]
    fn create_health_check(
        &self,
        name: &str,
        settings: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<OwnedObjectPath>;

    /// Changes a health check; what is not given stays. True if that made a difference.
    #[zbus(allow_interactive_auth)]
    fn modify_health_check(
        &self,
        name: &str,
        settings: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<bool>;

    /// Deletes health checks and returns their names.
    #[zbus(allow_interactive_auth)]
    fn delete_health_checks(&self, names: &[&str]) -> zbus::Result<Vec<String>>;

    /// Creates a VRRP instance; see [`crate::vrrp::VRRP_SETTINGS`].
    #[zbus(allow_interactive_auth)]
    fn create_vrrp(
        &self,
        name: &str,
        settings: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<OwnedObjectPath>;

    /// Changes a VRRP instance; what is not given stays. True if that made a difference.
    #[zbus(allow_interactive_auth)]
    fn modify_vrrp(&self, name: &str, settings: HashMap<&str, Variant<'_>>) -> zbus::Result<bool>;

    /// Enables VRRP instances, all if none is named, and returns those that were disabled.
    #[zbus(allow_interactive_auth)]
    fn enable_vrrp(&self, names: &[&str]) -> zbus::Result<Vec<String>>;

    /// Disables VRRP instances, all if none is named, and returns those that were enabled.
    #[zbus(allow_interactive_auth)]
    fn disable_vrrp(&self, names: &[&str]) -> zbus::Result<Vec<String>>;

    /// Deletes VRRP instances and returns their names.
    #[zbus(allow_interactive_auth)]
    fn delete_vrrp(&self, names: &[&str]) -> zbus::Result<Vec<String>>;

    /// Makes this node the first of a pair, and returns a [`crate::pair::Invitation`] as JSON, which is a secret. No address
    /// and port 0 mean what the node's settings say.
    #[zbus(allow_interactive_auth)]
    fn create_pair(&self, address: &str, port: u16) -> zbus::Result<String>;

    /// Joins the pair of the node at this address; with `replace` also if this node has a configuration of its own.
    #[zbus(allow_interactive_auth)]
    fn join_pair(&self, address: &str, port: u16, token: &str, replace: bool) -> zbus::Result<()>;

    /// Ends the pair for this node; false if there was none.
    #[zbus(allow_interactive_auth)]
    fn leave_pair(&self) -> zbus::Result<bool>;

    /// Takes note of what happened to the pair, and says how much that was.
    #[zbus(allow_interactive_auth)]
    fn acknowledge_pair(&self) -> zbus::Result<u32>;

    /// Gives the addresses of this node to the other one, and returns the VRRP instances; with `force` also if that one is
    /// not ready for it.
    #[zbus(allow_interactive_auth)]
    fn failover(&self, force: bool) -> zbus::Result<Vec<String>>;

    /// Whether this node takes no addresses. False if it was so already.
    #[zbus(allow_interactive_auth)]
    fn set_maintenance(&self, on: bool) -> zbus::Result<bool>;

    /// How it stands with the pair, as JSON; see [`crate::pair::PairDescription`].
    fn describe_pair(&self) -> zbus::Result<String>;

    /// Applies a document, see [`crate::document`] and [`crate::apply::APPLY_OPTIONS`], and returns a
    /// [`crate::document::Report`] as JSON.
    #[zbus(allow_interactive_auth)]
    fn apply(&self, document: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<String>;

    /// Keeps the change that waits for it; false if none does.
    #[zbus(allow_interactive_auth)]
    fn confirm(&self) -> zbus::Result<bool>;

    /// Takes the change back that waits for its confirmation; false if none does.
    #[zbus(allow_interactive_auth)]
    fn revert(&self) -> zbus::Result<bool>;

    /// All counters; see [`crate::stats`].
    fn get_statistics(&self) -> zbus::Result<Vec<RawEntry>>;

    /// Connections as JSON, and where to go on, 0 for the end; see [`crate::connections`].
    fn list_connections(
        &self,
        filter: HashMap<&str, Variant<'_>>,
        cursor: u32,
        limit: u32,
    ) -> zbus::Result<(String, u32)>;

    /// What health checks know of servers, as JSON; see [`crate::health::HealthReport`] and [`crate::healthfilter`].
    fn list_health_results(&self, filter: HashMap<&str, Variant<'_>>) -> zbus::Result<String>;

    /// What would become of a packet, as JSON; see [`crate::explain`].
    fn explain(&self, packet: HashMap<&str, Variant<'_>>) -> zbus::Result<String>;

    /// The newest generations, 0 for all that are known, as JSON; see [`crate::history::Item`].
    fn history(&self, count: u32) -> zbus::Result<String>;

    /// Goes back to the configuration of a generation, as one change, and says as JSON what that changed; see
    /// [`crate::history::Report`].
    #[zbus(allow_interactive_auth)]
    fn rollback(&self, generation: u64) -> zbus::Result<String>;

    /// What `Rollback` would change.
    fn preview_rollback(&self, generation: u64) -> zbus::Result<String>;

    /// How the fast path does its work, as JSON; see [`crate::fastpath::FastpathDescription`].
    fn describe_fastpath(&self) -> zbus::Result<String>;

    /// Configuration and state as JSON; see [`crate::describe::Description`].
    fn describe(&self) -> zbus::Result<String>;

    /// Version of the manager.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::fdo::Result<String>;

    /// Generation of the configuration.
    #[zbus(property)]
    fn generation(&self) -> zbus::fdo::Result<u64>;

    /// `ok` or `degraded`.
    #[zbus(property)]
    fn state(&self) -> zbus::fdo::Result<String>;

    /// Why it is degraded, or empty.
    #[zbus(property)]
    fn state_reason(&self) -> zbus::fdo::Result<String>;

    /// `connected`, `absent` or `behind`.
    #[zbus(property)]
    fn fastpath(&self) -> zbus::fdo::Result<String>;

    /// Generation that the fast path acknowledged last.
    #[zbus(property)]
    fn fastpath_generation(&self) -> zbus::fdo::Result<u64>;

    /// See [`crate::describe::Description::drift`]: a line each.
    #[zbus(property)]
    fn drift(&self) -> zbus::fdo::Result<Vec<String>>;

    /// Unix time in seconds until when a change has to be confirmed; 0 if none waits.
    #[zbus(property)]
    fn confirm_by(&self) -> zbus::fdo::Result<u64>;

    /// Where the configuration is stored.
    #[zbus(property(emits_changed_signal = "const"))]
    fn database_path(&self) -> zbus::fdo::Result<String>;
}

/// A rule, at [`super::rule_path`].
#[zbus::proxy(interface = "org.ilb.Ilb1.Rule", default_service = "org.ilb.Ilb1")]
pub trait Rule {
    /// Enables it; true if it was disabled.
    #[zbus(allow_interactive_auth)]
    fn enable(&self) -> zbus::Result<bool>;

    /// Disables it; true if it was enabled.
    #[zbus(allow_interactive_auth)]
    fn disable(&self) -> zbus::Result<bool>;

    /// Deletes it.
    #[zbus(allow_interactive_auth)]
    fn delete(&self) -> zbus::Result<()>;

    /// [`crate::describe::RuleDescription`] as JSON.
    fn describe(&self) -> zbus::Result<String>;

    /// Its name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::fdo::Result<String>;

    /// Whether it takes new connections.
    #[zbus(property)]
    fn enabled(&self) -> zbus::fdo::Result<bool>;
}

/// A server group, at [`super::group_path`].
#[zbus::proxy(
    interface = "org.ilb.Ilb1.ServerGroup",
    default_service = "org.ilb.Ilb1"
)]
pub trait ServerGroup {
    /// Deletes it.
    #[zbus(allow_interactive_auth)]
    fn delete(&self) -> zbus::Result<()>;

    /// [`crate::describe::GroupDescription`] as JSON.
    fn describe(&self) -> zbus::Result<String>;

    /// Its name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::fdo::Result<String>;

    /// Ids of its servers.
    #[zbus(property)]
    fn servers(&self) -> zbus::fdo::Result<Vec<String>>;
}

/// A health check, at [`super::check_path`].
#[zbus::proxy(
    interface = "org.ilb.Ilb1.HealthCheck",
    default_service = "org.ilb.Ilb1"
)]
pub trait HealthCheck {
    /// Deletes it.
    #[zbus(allow_interactive_auth)]
    fn delete(&self) -> zbus::Result<()>;

    /// [`crate::describe::CheckDescription`] as JSON.
    fn describe(&self) -> zbus::Result<String>;

    /// Its name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::fdo::Result<String>;

    /// Kind of the test, or the path of a script.
    #[zbus(property)]
    fn test(&self) -> zbus::fdo::Result<String>;

    /// Seconds that a test may take.
    #[zbus(property)]
    fn timeout(&self) -> zbus::fdo::Result<f64>;

    /// Seconds from one test to the next, on average.
    #[zbus(property)]
    fn interval(&self) -> zbus::fdo::Result<f64>;

    /// Failures in a row that make a server dead.
    #[zbus(property)]
    fn count(&self) -> zbus::fdo::Result<u32>;

    /// Whether the server is pinged before each test.
    #[zbus(property)]
    fn ping(&self) -> zbus::fdo::Result<bool>;

    /// See [`crate::healthcheck::HEALTH_CHECK_SETTINGS`].
    #[zbus(property)]
    fn settings(&self) -> zbus::fdo::Result<HashMap<String, OwnedVariant>>;
}

/// A VRRP instance, at [`super::vrrp_path`].
#[zbus::proxy(
    interface = "org.ilb.Ilb1.VrrpInstance",
    default_service = "org.ilb.Ilb1"
)]
pub trait VrrpInstance {
    /// Deletes it.
    #[zbus(allow_interactive_auth)]
    fn delete(&self) -> zbus::Result<()>;

    /// [`crate::describe::VrrpDescription`] as JSON.
    fn describe(&self) -> zbus::Result<String>;

    /// Its name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::fdo::Result<String>;

    /// `active`, `backup`, `fault` or `disabled`.
    #[zbus(property)]
    fn state(&self) -> zbus::fdo::Result<String>;

    /// Why.
    #[zbus(property)]
    fn state_reason(&self) -> zbus::fdo::Result<String>;

    /// The priority by which it takes part; 0 when it does not.
    #[zbus(property)]
    fn effective_priority(&self) -> zbus::fdo::Result<u32>;

    /// Address of another node that is active; empty if none is known.
    #[zbus(property)]
    fn active_node(&self) -> zbus::fdo::Result<String>;

    /// See [`crate::vrrp::VRRP_SETTINGS`].
    #[zbus(property)]
    fn settings(&self) -> zbus::fdo::Result<HashMap<String, OwnedVariant>>;
}

/// A server, at [`super::server_path`].
#[zbus::proxy(interface = "org.ilb.Ilb1.Server", default_service = "org.ilb.Ilb1")]
pub trait Server {
    /// Enables it; true if it was disabled.
    #[zbus(allow_interactive_auth)]
    fn enable(&self) -> zbus::Result<bool>;

    /// Disables it; true if it was enabled.
    #[zbus(allow_interactive_auth)]
    fn disable(&self) -> zbus::Result<bool>;

    /// Removes it from its group.
    #[zbus(allow_interactive_auth)]
    fn delete(&self) -> zbus::Result<()>;

    /// [`crate::describe::ServerDescription`] as JSON.
    fn describe(&self) -> zbus::Result<String>;

    /// Its id.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> zbus::fdo::Result<String>;

    /// Whether it takes new connections.
    #[zbus(property)]
    fn enabled(&self) -> zbus::fdo::Result<bool>;
}
