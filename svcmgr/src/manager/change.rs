//! What an administrator can ask to be changed.

use libilb::ModelError;
use libilb::model::{Configuration, HealthCheckSettings, RuleSettings, ServerSettings};
use libilb::source::SourceSettings;
use libilb::vrrp::VrrpSettings;

/// One user action: done as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// See [`Configuration::create_rule`].
    CreateRule {
        /// Its name.
        name: String,
        /// All about it.
        settings: Box<RuleSettings>,
    },
    /// See [`Configuration::modify_rule`].
    ModifyRule {
        /// Its name.
        name: String,
        /// What shall be different.
        settings: Box<RuleSettings>,
    },
    /// See [`Configuration::delete_rules`].
    DeleteRules(Vec<String>),
    /// See [`Configuration::delete_all_rules`].
    DeleteAllRules,
    /// See [`Configuration::enable_rules`].
    EnableRules {
        /// None means all.
        names: Vec<String>,
        /// Or disable.
        enabled: bool,
    },
    /// See [`Configuration::create_group`].
    CreateGroup {
        /// Its name.
        name: String,
        /// Its servers.
        servers: Vec<String>,
        /// Where servers are found; nothing said for nowhere.
        source: SourceSettings,
    },
    /// See [`Configuration::modify_group`].
    ModifyGroup {
        /// Its name.
        name: String,
        /// What shall be different about its source.
        source: SourceSettings,
    },
    /// See [`Configuration::delete_groups`].
    DeleteGroups(Vec<String>),
    /// See [`Configuration::add_servers`].
    AddServers {
        /// Name of the group.
        group: String,
        /// The servers.
        servers: Vec<String>,
    },
    /// See [`Configuration::remove_servers`].
    RemoveServers {
        /// Name of the group.
        group: String,
        /// Ids or specifications.
        servers: Vec<String>,
    },
    /// See [`Configuration::enable_servers`].
    EnableServers {
        /// Their ids.
        ids: Vec<String>,
        /// Or disable.
        enabled: bool,
    },
    /// See [`Configuration::modify_servers`].
    ModifyServers {
        /// Their ids.
        ids: Vec<String>,
        /// What shall be different.
        settings: ServerSettings,
    },
    /// See [`Configuration::create_check`].
    CreateCheck {
        /// Its name.
        name: String,
        /// All about it.
        settings: Box<HealthCheckSettings>,
    },
    /// See [`Configuration::modify_check`].
    ModifyCheck {
        /// Its name.
        name: String,
        /// What shall be different.
        settings: Box<HealthCheckSettings>,
    },
    /// See [`Configuration::delete_checks`].
    DeleteChecks(Vec<String>),
    /// See [`Configuration::create_vrrp`].
    CreateVrrp {
        /// Its name.
        name: String,
        /// All about it.
        settings: VrrpSettings,
    },
    /// See [`Configuration::modify_vrrp`].
    ModifyVrrp {
        /// Its name.
        name: String,
        /// What shall be different.
        settings: VrrpSettings,
    },
    /// See [`Configuration::enable_vrrp`].
    EnableVrrp {
        /// None means all.
        names: Vec<String>,
        /// Or disable.
        enabled: bool,
    },
    /// See [`Configuration::delete_vrrp`].
    DeleteVrrp(Vec<String>),
}

impl Change {
    /// Does it, and returns the names or ids of what was created, deleted or changed.
    ///
    /// # Errors
    /// Those of the method of [`Configuration`]; the configuration is as it was.
    pub fn apply(&self, configuration: &mut Configuration) -> Result<Vec<String>, ModelError> {
        Ok(match self {
            Change::CreateRule { name, settings } => {
                vec![configuration.create_rule(name, settings)?.name.clone()]
            }
            Change::ModifyRule { name, settings } => configuration
                .modify_rule(name, settings)?
                .iter()
                .map(|rule| rule.name.clone())
                .collect(),
            Change::DeleteRules(names) => configuration
                .delete_rules(names)?
                .iter()
                .map(|rule| rule.name.clone())
                .collect(),
            Change::DeleteAllRules => configuration
                .delete_all_rules()
                .iter()
                .map(|rule| rule.name.clone())
                .collect(),
            Change::EnableRules { names, enabled } => configuration
                .enable_rules(names, *enabled)?
                .iter()
                .map(|rule| rule.name.clone())
                .collect(),
            Change::CreateGroup {
                name,
                servers,
                source,
            } => {
                let group = configuration.create_group_from(name, servers, source)?;
                vec![group.name.clone()]
            }
            Change::ModifyGroup { name, source } => configuration
                .modify_group(name, source)?
                .iter()
                .map(|group| group.name.clone())
                .collect(),
            Change::DeleteGroups(names) => configuration
                .delete_groups(names)?
                .iter()
                .map(|group| group.name.clone())
                .collect(),
            Change::AddServers { group, servers } => {
                ids(configuration.add_servers(group, servers)?)
            }
            Change::RemoveServers { group, servers } => {
                ids(configuration.remove_servers(group, servers)?)
            }
            Change::EnableServers {
                ids: names,
                enabled,
            } => ids(configuration.enable_servers(names, *enabled)?),
            Change::ModifyServers {
                ids: names,
                settings,
            } => ids(configuration.modify_servers(names, settings)?),
            Change::CreateCheck { name, settings } => {
                vec![configuration.create_check(name, settings)?.name.clone()]
            }
            Change::ModifyCheck { name, settings } => configuration
                .modify_check(name, settings)?
                .iter()
                .map(|check| check.name.clone())
                .collect(),
            Change::DeleteChecks(names) => configuration
                .delete_checks(names)?
                .iter()
                .map(|check| check.name.clone())
                .collect(),
            Change::CreateVrrp { name, settings } => {
                vec![configuration.create_vrrp(name, settings)?.name.clone()]
            }
            Change::ModifyVrrp { name, settings } => configuration
                .modify_vrrp(name, settings)?
                .iter()
                .map(|instance| instance.name.clone())
                .collect(),
            Change::EnableVrrp { names, enabled } => configuration
                .enable_vrrp(names, *enabled)?
                .iter()
                .map(|instance| instance.name.clone())
                .collect(),
            Change::DeleteVrrp(names) => configuration
                .delete_vrrp(names)?
                .iter()
                .map(|instance| instance.name.clone())
                .collect(),
        })
    }
}

impl Change {
    /// What it is, for the log.
    pub fn words(&self) -> &'static str {
        match self {
            Change::CreateRule { .. } => "create rule",
            Change::ModifyRule { .. } => "modify rule",
            Change::DeleteRules(_) => "delete rules",
            Change::DeleteAllRules => "delete all rules",
            Change::EnableRules { enabled: true, .. } => "enable rules",
            Change::EnableRules { enabled: false, .. } => "disable rules",
            Change::CreateGroup { .. } => "create server group",
            Change::ModifyGroup { .. } => "modify server group",
            Change::DeleteGroups(_) => "delete server groups",
            Change::AddServers { .. } => "add servers",
            Change::RemoveServers { .. } => "remove servers",
            Change::EnableServers { enabled: true, .. } => "enable servers",
            Change::EnableServers { enabled: false, .. } => "disable servers",
            Change::ModifyServers { .. } => "modify servers",
            Change::CreateCheck { .. } => "create health check",
            Change::ModifyCheck { .. } => "modify health check",
            Change::DeleteChecks(_) => "delete health checks",
            Change::CreateVrrp { .. } => "create VRRP instance",
            Change::ModifyVrrp { .. } => "modify VRRP instance",
            Change::EnableVrrp { enabled: true, .. } => "enable VRRP instances",
            Change::EnableVrrp { enabled: false, .. } => "disable VRRP instances",
            Change::DeleteVrrp(_) => "delete VRRP instances",
        }
    }
}

fn ids(servers: Vec<libilb::model::Server>) -> Vec<String> {
    servers.into_iter().map(|server| server.id).collect()
}
