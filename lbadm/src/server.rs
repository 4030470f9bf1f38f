//! `add-server`, `remove-server`, `enable-server`, `disable-server`, `show-server`.

use std::collections::HashSet;

use libilb::describe::{Description, HealthSummary, RuleDescription, ServerDescription, Status};
use libilb::error::Item;
use libilb::model::key;
use libilb::server::{
    FOUND_KEY, ID_KEY, PLACE_KEY, SERVER_KEYS, ServerSettings, ServerSpec, Target, tier_text,
};
use libilb::words;

use serde_json::{Value, json};

use crate::action::{Action, Request, Show};
use crate::cli::{ChangeServers, ModifyServer, ServerCommand, ServerIds, ShowServer};
use crate::error::Error;
use crate::hcresult::state_cell;
use crate::keys::{Key, LIMITS, NAMED_SERVERS, SERVERS};
use crate::rule::status_cell;
use crate::show;
use crate::table::{self, Cell, Column, Style, Tone};

/// How removed servers are introduced.
pub const REMOVED: &str = "removed, until the last connections end";

/// Reads a command about servers.
///
/// # Errors
/// Everything that is wrong whatever is configured.
pub fn understand(command: ServerCommand) -> Result<Action, Error> {
    match command {
        ServerCommand::AddServer(args) => add(args),
        ServerCommand::RemoveServer(args) => remove(args),
        ServerCommand::EnableServer(args) => Ok(enable(args, true)),
        ServerCommand::DisableServer(args) => Ok(enable(args, false)),
        ServerCommand::ModifyServer(args) => modify(args),
        ServerCommand::ShowServer(args) => show(args),
    }
}

/// Reads `-s` of servers that are added. Weight and limits belong to the servers before them, back to the last that have
/// theirs; id, place and found to the one before them.
///
/// # Errors
/// One that is none.
pub fn specs(texts: &[String]) -> Result<Vec<String>, Error> {
    let mut specs: Vec<String> = Vec::new();
    for pairs in SERVERS.parse_each(texts)? {
        let (mut first, mut limited) = (specs.len(), true);
        for (key, value) in pairs {
            let word = match key {
                Key::Limit(limit) => words::name(SERVER_KEYS, limit),
                Key::Id => ID_KEY,
                Key::Place => PLACE_KEY,
                Key::Found => FOUND_KEY,
                _ => {
                    if limited {
                        (first, limited) = (specs.len(), false);
                    }
                    specs.push(value);
                    continue;
                }
            };
            let whose = match key {
                Key::Id | Key::Place | Key::Found => specs.len().saturating_sub(1).max(first),
                _ => first,
            };
            limited |= !matches!(key, Key::Id | Key::Place | Key::Found);
            if first == specs.len() {
                return Err(Error::Usage(format!(
                    "-s: key '{word}' stands before any server: write server=SPEC,{word}={value}"
                )));
            }
            for spec in &mut specs[whose..] {
                spec.push_str(&format!(",{word}={value}"));
            }
        }
    }
    for spec in &specs {
        ServerSpec::parse(spec).map_err(Error::from_command_line)?;
    }
    Ok(specs)
}

/// Reads `-s` of servers that are there: specifications and ids.
///
/// # Errors
/// One that is neither.
fn named(texts: &[String]) -> Result<Vec<String>, Error> {
    let pairs = NAMED_SERVERS.parse(texts)?;
    let specs: Vec<String> = pairs.into_iter().map(|(_, value)| value).collect();
    for spec in specs.iter().filter(|spec| !spec.starts_with('_')) {
        ServerSpec::parse(spec).map_err(Error::from_command_line)?;
    }
    Ok(specs)
}

/// Reads `modify-server`.
///
/// # Errors
/// A number out of range.
fn modify(args: ModifyServer) -> Result<Action, Error> {
    let mut settings = ServerSettings::default();
    for (key, value) in LIMITS.parse(&args.settings)? {
        if let Key::Limit(limit) = key {
            let set = settings.set(limit, &value);
            set.map_err(Error::from_command_line)?;
        }
    }
    Ok(Action::Change(Request::ModifyServers {
        ids: args.ids,
        settings,
    }))
}

/// Replaces host names by `name=address`, for the manager does not look names up. Blocks.
///
/// # Errors
/// A name that has no address, or several.
pub fn resolve(specs: Vec<String>) -> Result<Vec<String>, Error> {
    specs
        .into_iter()
        .map(|text| {
            let mut parsed = ServerSpec::parse(&text).map_err(Error::from_command_line)?;
            match parsed.pop() {
                Some(spec) if matches!(spec.target, Target::Host(_)) => {
                    Ok(spec.resolve().map_err(Error::Model)?.to_string())
                }
                _ => Ok(text),
            }
        })
        .collect()
}

/// Reads `add-server`.
///
/// # Errors
/// Everything that is wrong whatever is configured.
fn add(args: ChangeServers) -> Result<Action, Error> {
    Ok(Action::Change(Request::AddServers {
        servers: specs(&args.servers)?,
        group: args.group,
    }))
}

/// Reads `remove-server`.
///
/// # Errors
/// Everything that is wrong whatever is configured.
fn remove(args: ChangeServers) -> Result<Action, Error> {
    Ok(Action::Change(Request::RemoveServers {
        servers: named(&args.servers)?,
        group: args.group,
    }))
}

/// Reads `enable-server` and `disable-server`.
fn enable(args: ServerIds, enabled: bool) -> Action {
    Action::Change(Request::EnableServers {
        ids: args.ids,
        enabled,
    })
}

/// Reads `show-server`.
///
/// # Errors
/// Unknown fields.
fn show(args: ShowServer) -> Result<Action, Error> {
    table::choose(
        &columns(),
        args.format.output.as_deref(),
        args.format.parsable,
    )?;
    Ok(Action::Show(Box::new(args)))
}

impl Show for ShowServer {
    fn render(&self, node: &Description, style: Style) -> Result<String, Error> {
        render(self, node, style)
    }

    fn json(&self, node: &Description) -> Result<Value, Error> {
        let rows = select(self, node)?.into_iter().map(|row| {
            let mut value = json!(row.server);
            value["rule"] = json!(row.rule.rule.name);
            value["servergroup"] = json!(row.rule.rule.servergroup);
            value
        });
        Ok(rows.collect())
    }
}

/// A server of a rule.
#[derive(Debug)]
struct Row<'a> {
    rule: &'a RuleDescription,
    server: &'a ServerDescription,
}

impl Row<'_> {
    /// What the rule's health check says of the server.
    fn health(&self) -> Option<&HealthSummary> {
        self.server.health_in(&self.rule.rule.name)
    }
}

fn column<'a>(name: &'static str, default: bool, value: fn(&Row<'a>) -> Cell) -> Column<Row<'a>> {
    Column {
        name,
        default,
        number: false,
        value,
    }
}

/// Every column.
fn columns<'a>() -> Vec<Column<Row<'a>>> {
    vec![
        column("SERVERID", true, |r| r.server.server.id.as_str().into()),
        column("ADDRESS", true, |r| r.server.server.address.into()),
        column("PORT", true, |r| match r.server.server.ports {
            Some(ports) => ports.into(),
            None => r.rule.rule.vips.column(|vip| vip.ports).into(),
        }),
        column("RULENAME", true, |r| r.rule.rule.name.as_str().into()),
        column("STATUS", true, |r| match r.health() {
            Some(health) if health.overruled.is_some() => Cell {
                text: "panic".to_string(),
                tone: Tone::Notice,
            },
            Some(health) if health.state.is_down() => state_cell(health.state),
            _ if r.server.status == Status::Enabled && r.server.stands_by_in(&r.rule.rule.name) => {
                Cell {
                    text: "standby".to_string(),
                    tone: Tone::Notice,
                }
            }
            _ => status_cell(r.server.status),
        }),
        column("SERVERGROUP", true, |r| {
            r.rule.rule.servergroup.as_str().into()
        }),
        column("HOST", false, |r| {
            r.server
                .server
                .host_name
                .as_deref()
                .unwrap_or_default()
                .into()
        }),
        column("WEIGHT", false, |r| r.server.server.weight.into()),
        column("CONNECTIONS", false, |r| r.server.connections.into()),
        column("MAX-CONN", false, |r| {
            r.server.server.max_connections.into()
        }),
        column("MIN-CONN", false, |r| {
            r.server.server.min_connections.into()
        }),
        column("TIER", false, |r| tier_text(r.server.server.tier).into()),
        column("HEALTH", false, |r| {
            r.health().map(|h| state_cell(h.state)).unwrap_or_default()
        }),
        column("REASON", false, |r| {
            let why = r.health().map(|health| health.why.as_str());
            why.unwrap_or_default().into()
        }),
    ]
}

/// Names of all columns.
pub fn fields() -> Vec<&'static str> {
    columns().iter().map(|column| column.name).collect()
}

/// The servers that `show-server` is about, rule by rule.
///
/// # Errors
/// A rule that does not exist.
fn select<'a>(args: &ShowServer, node: &'a Description) -> Result<Vec<Row<'a>>, Error> {
    let rules = || node.rules.iter().filter(|r| !r.deleted);
    let known = || rules().map(|r| r.rule.name.as_str());
    show::check_names(Item::Rule, &args.rules, known)?;
    let groups = show::Groups::of(node);
    Ok(rules()
        .filter(|r| show::named(&args.rules, &r.rule.name))
        .flat_map(|rule| {
            groups
                .get(&rule.rule.servergroup)
                .into_iter()
                .flat_map(|g| g.servers.iter().filter(|s| args.removed || !s.removed))
                .map(move |server| Row { rule, server })
        })
        .collect())
}

/// Writes `show-server`.
///
/// # Errors
/// A rule or field that does not exist.
fn render(args: &ShowServer, node: &Description, style: Style) -> Result<String, Error> {
    let rows = select(args, node)?;
    let columns = table::choose(
        &columns(),
        args.format.output.as_deref(),
        args.format.parsable,
    )?;
    if args.format.parsable {
        return Ok(table::parsable(&columns, &rows));
    }
    if rows.is_empty() {
        return Ok(
            "no rule has servers; 'lbadm show-servergroup' shows servers without rule\n"
                .to_string(),
        );
    }
    let (mut out, _) = table::table(&columns, &rows, style, true, &[]);
    if !args.removed {
        let shown: HashSet<String> = rows.iter().map(|r| key(&r.rule.rule.servergroup)).collect();
        let groups = node.groups.iter().filter(|g| shown.contains(&key(&g.name)));
        let gone = groups.flat_map(|g| &g.servers).filter(|s| s.removed);
        out.push_str(&show::draining(
            REMOVED,
            gone.map(|s| (s.server.id.as_str(), s.connections)),
        ));
    }
    Ok(out)
}
