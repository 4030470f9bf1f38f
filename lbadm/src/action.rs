//! What a command line asks for, once it is understood, and how it is carried out.

use std::fmt;
use std::path::PathBuf;

use libilb::client::{Client, ClientError};
use libilb::describe::Description;
use libilb::healthcheck::HealthCheckSettings;
use libilb::rule::RuleSettings;
use libilb::server::ServerSettings;
use libilb::source::SourceSettings;
use libilb::vrrp::VrrpSettings;
use serde_json::{Value, json};

use crate::cli::{self, Cli, Command, ExportConfig, ShowStatistics, Top};
use crate::connections::Listing;
use crate::error::{Error, Exit};
use crate::explain::Question;
use crate::hcresult::Results;
use crate::table::Style;
use crate::{
    agent, candidate, config, connections, document, explain, healthcheck, history, monitor, node,
    pair, rule, server, servergroup, statistics, top, vrrp,
};

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Say something that needs no manager.
    Say(&'static str),
    /// Change the configuration.
    Change(Request),
    /// Do something with a file that describes a configuration.
    Document(document::Request),
    /// Show configuration and state, from one call.
    Show(Box<dyn Show>),
    /// Show counters, once or again and again.
    Statistics(ShowStatistics),
    /// Show what the connection table holds.
    Connections(Listing),
    /// Show what health checks found.
    HealthResults(Results),
    /// Say what becomes of a packet, or what a rule or server gets.
    Explain(Question),
    /// Show what passes, as it changes.
    Top(Top),
    /// Say what happens, as it happens.
    Monitor(monitor::Filter),
    /// Look at everything that the node's work depends on; the file has the settings.
    Doctor(PathBuf),
    /// Say what may come next in a command line.
    Complete(String),
    /// Write the configuration.
    Export(ExportConfig),
    /// Read a configuration.
    Import(Box<config::Import>),
    /// Do or show something about the pair.
    Pair(pair::Request),
    /// Show what was changed.
    History(history::Listing),
    /// Go back to what was.
    Rollback(history::Rollback),
    /// Write the man pages.
    Man(PathBuf),
}

/// A change of the configuration.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// `create-rule`.
    CreateRule {
        /// Its name.
        name: String,
        /// What it is.
        settings: Box<RuleSettings>,
    },
    /// `modify-rule`.
    ModifyRule {
        /// Its name.
        name: String,
        /// What shall be different.
        settings: Box<RuleSettings>,
    },
    /// `delete-rule`.
    DeleteRules(Vec<String>),
    /// `delete-rule -a`.
    DeleteAllRules,
    /// `enable-rule`, `disable-rule`; all if none is named.
    EnableRules {
        /// Which.
        names: Vec<String>,
        /// Which of both.
        enabled: bool,
    },
    /// `create-servergroup`.
    CreateGroup {
        /// Its name.
        name: String,
        /// Specifications.
        servers: Vec<String>,
        /// Where servers are found; nothing said for nowhere.
        source: SourceSettings,
    },
    /// `modify-servergroup`.
    ModifyGroup {
        /// Its name.
        name: String,
        /// What shall be different about its source.
        source: SourceSettings,
    },
    /// `approve-server`; all that wait if none is named.
    ApproveServers {
        /// The group.
        group: String,
        /// Addresses.
        servers: Vec<String>,
    },
    /// `delete-servergroup`.
    DeleteGroups(Vec<String>),
    /// `add-server`.
    AddServers {
        /// The group.
        group: String,
        /// Specifications.
        servers: Vec<String>,
    },
    /// `remove-server`.
    RemoveServers {
        /// The group.
        group: String,
        /// Specifications or ids.
        servers: Vec<String>,
    },
    /// `enable-server`, `disable-server`.
    EnableServers {
        /// Which.
        ids: Vec<String>,
        /// Which of both.
        enabled: bool,
    },
    /// `modify-server`.
    ModifyServers {
        /// Which.
        ids: Vec<String>,
        /// What shall be different.
        settings: ServerSettings,
    },
    /// `create-healthcheck`.
    CreateCheck {
        /// Its name.
        name: String,
        /// What it is.
        settings: Box<HealthCheckSettings>,
    },
    /// `modify-healthcheck`.
    ModifyCheck {
        /// Its name.
        name: String,
        /// What shall be different.
        settings: Box<HealthCheckSettings>,
    },
    /// `delete-healthcheck`.
    DeleteChecks(Vec<String>),
    /// `create-vrrp`.
    CreateVrrp {
        /// Its name.
        name: String,
        /// What it is.
        settings: VrrpSettings,
    },
    /// `modify-vrrp`.
    ModifyVrrp {
        /// Its name.
        name: String,
        /// What shall be different.
        settings: VrrpSettings,
    },
    /// `enable-vrrp`, `disable-vrrp`; all if none is named.
    EnableVrrp {
        /// Their names.
        names: Vec<String>,
        /// Or disable.
        enabled: bool,
    },
    /// `delete-vrrp`.
    DeleteVrrp(Vec<String>),
}

/// A command that shows configuration or state.
pub trait Show: fmt::Debug {
    /// For people and scripts.
    ///
    /// # Errors
    /// A name that does not exist.
    fn render(&self, node: &Description, style: Style) -> Result<String, Error>;

    /// For programs.
    ///
    /// # Errors
    /// A name that does not exist.
    fn json(&self, node: &Description) -> Result<Value, Error>;

    /// The exit code when it could be shown.
    fn exit(&self, _node: &Description) -> Exit {
        Exit::Ok
    }
}

/// Understands a command line.
///
/// # Errors
/// Everything that is wrong with it whatever is configured, and what this version cannot do.
pub fn understand(cli: Cli) -> Result<Action, Error> {
    match cli.command {
        None => Ok(Action::Say(cli::OVERVIEW)),
        Some(Command::Rule(command)) => rule::understand(command),
        Some(Command::Servergroup(command)) => servergroup::understand(command),
        Some(Command::Server(command)) => server::understand(command),
        Some(Command::Candidate(command)) => candidate::understand(command),
        Some(Command::Healthcheck(command)) => healthcheck::understand(command),
        Some(Command::Vrrp(command)) => vrrp::understand(command),
        Some(Command::Pair(command)) => pair::understand(command),
        Some(Command::Config(command)) => config::understand(command),
        Some(Command::History(command)) => history::understand(command),
        Some(Command::Document(command)) => document::understand(command),
        Some(Command::Statistics(command)) => statistics::understand(command),
        Some(Command::Connections(command)) => connections::understand(command),
        Some(Command::Explain(command)) => explain::understand(command),
        Some(Command::Top(command)) => top::understand(command),
        Some(Command::Monitor(command)) => monitor::understand(command),
        Some(Command::Node(command)) => node::understand(command),
    }
}

/// Carries out a change, for which its user may be asked for a password (`ask`), and returns what changed: a word for what was done, and the names or ids.
///
/// # Errors
/// See [`ClientError`], and names that cannot be resolved.
pub async fn change(request: Request, ask: bool) -> Result<(&'static str, Vec<String>), Error> {
    let request = match request {
        Request::CreateGroup {
            name,
            servers,
            source,
        } => Request::CreateGroup {
            name,
            servers: server::resolve(servers)?,
            source,
        },
        Request::AddServers { group, servers } => Request::AddServers {
            group,
            servers: server::resolve(servers)?,
        },
        other => other,
    };
    let client = agent::connect(ask).await?;
    Ok(send(&client, request).await?)
}

async fn send(
    client: &Client,
    request: Request,
) -> Result<(&'static str, Vec<String>), ClientError> {
    fn refs(names: &[String]) -> Vec<&str> {
        names.iter().map(String::as_str).collect()
    }
    Ok(match request {
        Request::CreateRule { name, settings } => {
            client.create_rule(&name, &settings).await?;
            ("created", vec![name])
        }
        Request::ModifyRule { name, settings } => {
            let changed = client.modify_rule(&name, &settings).await?;
            ("modified", changed.then_some(name).into_iter().collect())
        }
        Request::DeleteRules(names) => ("deleted", client.delete_rules(&refs(&names)).await?),
        Request::DeleteAllRules => ("deleted", client.delete_all_rules().await?),
        Request::EnableRules { names, enabled } => {
            let changed = client.enable_rules(&refs(&names), enabled).await?;
            (if enabled { "enabled" } else { "disabled" }, changed)
        }
        Request::CreateGroup {
            name,
            servers,
            source,
        } => {
            let servers = refs(&servers);
            match source.is_empty() {
                true => client.create_group(&name, &servers).await?,
                false => {
                    let created = client.create_following_group(&name, &servers, &source);
                    created.await?
                }
            };
            ("created", vec![name])
        }
        Request::ModifyGroup { name, source } => {
            let changed = client.modify_group(&name, &source).await?;
            ("modified", changed.then_some(name).into_iter().collect())
        }
        Request::ApproveServers { group, servers } => {
            let added = client.approve_servers(&group, &refs(&servers)).await?;
            ("added", added)
        }
        Request::DeleteGroups(names) => ("deleted", client.delete_groups(&refs(&names)).await?),
        Request::AddServers { group, servers } => {
            ("added", client.add_servers(&group, &refs(&servers)).await?)
        }
        Request::RemoveServers { group, servers } => {
            let removed = client.remove_servers(&group, &refs(&servers)).await?;
            ("removed", removed)
        }
        Request::EnableServers { ids, enabled } => {
            let changed = client.enable_servers(&refs(&ids), enabled).await?;
            (if enabled { "enabled" } else { "disabled" }, changed)
        }
        Request::ModifyServers { ids, settings } => {
            let changed = client.modify_servers(&refs(&ids), &settings).await?;
            ("modified", changed)
        }
        Request::CreateCheck { name, settings } => {
            client.create_check(&name, &settings).await?;
            ("created", vec![name])
        }
        Request::ModifyCheck { name, settings } => {
            let changed = client.modify_check(&name, &settings).await?;
            ("modified", changed.then_some(name).into_iter().collect())
        }
        Request::DeleteChecks(names) => ("deleted", client.delete_checks(&refs(&names)).await?),
        Request::CreateVrrp { name, settings } => {
            client.create_vrrp(&name, &settings).await?;
            ("created", vec![name])
        }
        Request::ModifyVrrp { name, settings } => {
            let changed = client.modify_vrrp(&name, &settings).await?;
            ("modified", changed.then_some(name).into_iter().collect())
        }
        Request::EnableVrrp { names, enabled } => {
            let changed = client.enable_vrrp(&refs(&names), enabled).await?;
            (if enabled { "enabled" } else { "disabled" }, changed)
        }
        Request::DeleteVrrp(names) => ("deleted", client.delete_vrrp(&refs(&names)).await?),
    })
}

/// What a change says with `--json`; without it a change is silent.
pub fn changed_json(word: &str, names: &[String]) -> String {
    line(&json!({ word: names }))
}

/// The output of a command that shows.
///
/// # Errors
/// A name that does not exist.
pub fn shown(
    show: &dyn Show,
    node: &Description,
    json: bool,
    style: Style,
) -> Result<String, Error> {
    match json {
        true => Ok(line(&show.json(node)?)),
        false => show.render(node, style),
    }
}

/// JSON as it is written: one line.
pub fn line(value: &Value) -> String {
    format!("{value}\n")
}
