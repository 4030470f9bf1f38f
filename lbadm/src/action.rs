//! What a command line asks for, once it is understood, and how it is carried out.

use std::path::PathBuf;

use libilb::client::{Client, ClientError};
use libilb::describe::Description;
use libilb::explain::Packet;
use libilb::rule::RuleSettings;
use libilb::server::ServerSettings;
use serde_json::{Value, json};

use crate::cli::{self, Cli, Command, ShowRule, ShowServer, ShowServergroup, ShowStatistics};
use crate::connections::Listing;
use crate::error::Error;
use crate::table::Style;
use crate::{connections, explain, rule, server, servergroup, statistics, status};

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Say something that needs no manager.
    Say(&'static str),
    /// Change the configuration.
    Change(Request),
    /// Show configuration and state, from one call.
    Show(Show),
    /// Show counters, once or again and again.
    Statistics(ShowStatistics),
    /// Show what the connection table holds.
    Connections(Listing),
    /// Say what would become of a packet.
    Explain(Packet),
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
}

/// A command that shows configuration or state.
#[derive(Debug)]
pub enum Show {
    /// `show-rule`.
    Rules(ShowRule),
    /// `show-servergroup`.
    Groups(ShowServergroup),
    /// `show-server`.
    Servers(ShowServer),
    /// `status`.
    Status,
}

/// Understands a command line.
///
/// # Errors
/// Everything that is wrong with it whatever is configured, and what this version cannot do.
pub fn understand(cli: Cli) -> Result<Action, Error> {
    let Some(command) = cli.command else {
        return Ok(Action::Say(cli::OVERVIEW));
    };
    let later = |what: &str, hint: Option<&str>| Err(Error::not_supported(what, hint));
    match command {
        Command::CreateRule(args) => rule::create(args),
        Command::ModifyRule(args) => rule::modify(args),
        Command::DeleteRule(args) => rule::delete(args),
        Command::EnableRule(args) => Ok(Action::Change(Request::EnableRules {
            names: args.names,
            enabled: true,
        })),
        Command::DisableRule(args) => Ok(Action::Change(Request::EnableRules {
            names: args.names,
            enabled: false,
        })),
        Command::ShowRule(args) => rule::show(args),
        Command::CreateServergroup(args) => servergroup::create(args),
        Command::DeleteServergroup(args) => Ok(servergroup::delete(args)),
        Command::ShowServergroup(args) => servergroup::show(args),
        Command::AddServer(args) => server::add(args),
        Command::RemoveServer(args) => server::remove(args),
        Command::EnableServer(args) => Ok(server::enable(args, true)),
        Command::DisableServer(args) => Ok(server::enable(args, false)),
        Command::ModifyServer(args) => server::modify(args),
        Command::ShowServer(args) => server::show(args),
        Command::ShowStatistics(args) => statistics::show(args),
        Command::Status => Ok(Action::Show(Show::Status)),
        Command::CreateHealthcheck(_)
        | Command::DeleteHealthcheck(_)
        | Command::ShowHealthcheck(_)
        | Command::ShowHcResult(_) => later("health checks", None),
        Command::ShowConnections(args) => connections::show(args),
        Command::ShowNat(args) => connections::nat(&args),
        Command::ShowPersist(args) => connections::persistence(&args),
        Command::Explain(args) => explain::read(args),
        Command::ExportConfig(_) => later(
            "export of the configuration",
            Some("'lbadm show-rule -j' and 'lbadm show-servergroup -j' write it as JSON"),
        ),
        Command::ImportConfig(_) => later("import of a configuration", None),
        Command::GenerateMan(args) => Ok(Action::Man(args.directory)),
    }
}

/// Carries out a change and returns what changed: a word for what was done, and the names or ids.
///
/// # Errors
/// See [`ClientError`], and names that cannot be resolved.
pub async fn change(request: Request) -> Result<(&'static str, Vec<String>), Error> {
    let request = match request {
        Request::CreateGroup { name, servers } => Request::CreateGroup {
            name,
            servers: server::resolve(servers)?,
        },
        Request::AddServers { group, servers } => Request::AddServers {
            group,
            servers: server::resolve(servers)?,
        },
        other => other,
    };
    let client = Client::connect().await?;
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
        Request::CreateGroup { name, servers } => {
            client.create_group(&name, &refs(&servers)).await?;
            ("created", vec![name])
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
    })
}

/// What a change says with `--json`; without it a change is silent.
pub fn changed_json(word: &str, names: &[String]) -> String {
    line(&json!({ word: names }))
}

impl Show {
    /// The output, from what the manager described.
    ///
    /// # Errors
    /// A name that does not exist.
    pub fn render(&self, node: &Description, json: bool, style: Style) -> Result<String, Error> {
        if json {
            return self.json(node);
        }
        match self {
            Show::Rules(args) => rule::render(args, node, style),
            Show::Groups(args) => servergroup::render(args, node, style),
            Show::Servers(args) => server::render(args, node, style),
            Show::Status => Ok(status::render(node, style)),
        }
    }

    fn json(&self, node: &Description) -> Result<String, Error> {
        let value = match self {
            Show::Rules(args) => json!(rule::select(args, node)?),
            Show::Groups(args) => servergroup::json(args, node)?,
            Show::Servers(args) => server::select(args, node)?
                .into_iter()
                .map(|row| {
                    let mut value = json!(row.server);
                    value["rule"] = json!(row.rule.rule.name);
                    value["servergroup"] = json!(row.rule.rule.servergroup);
                    value
                })
                .collect(),
            Show::Status => status::json(node),
        };
        Ok(line(&value))
    }
}

/// JSON as it is written: one line.
pub fn line(value: &Value) -> String {
    format!("{value}\n")
}
