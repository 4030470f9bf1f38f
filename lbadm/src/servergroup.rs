//! `create-servergroup`, `delete-servergroup`, `show-servergroup`.

use libilb::describe::{Description, GroupDescription, ServerDescription};
use libilb::error::Item;
use libilb::rule::check_name;
use libilb::server::tier_text;
use libilb::source::SourceSettings;

use serde_json::{Value, json};

use crate::action::{Action, Request, Show};
use crate::candidate;
use crate::cli::{
    CreateServergroup, GroupNames, ModifyServergroup, ServergroupCommand, ShowServergroup,
};
use crate::error::Error;
use crate::rule::status_cell;
use crate::server::{self, specs};
use crate::show;
use crate::table::{self, Cell, Column, Style};

/// Reads a command about server groups.
///
/// # Errors
/// Everything that is wrong whatever is configured.
pub fn understand(command: ServergroupCommand) -> Result<Action, Error> {
    match command {
        ServergroupCommand::CreateServergroup(args) => create(args),
        ServergroupCommand::ModifyServergroup(args) => modify(args),
        ServergroupCommand::DeleteServergroup(args) => Ok(delete(args)),
        ServergroupCommand::ShowServergroup(args) => show(args),
    }
}

/// Reads `create-servergroup`.
///
/// # Errors
/// Everything that is wrong whatever is configured.
fn create(args: CreateServergroup) -> Result<Action, Error> {
    check_name(Item::ServerGroup, &args.name).map_err(Error::from_command_line)?;
    let source = source(&args.discover)?;
    if !source.is_empty() {
        source.apply(None).map_err(Error::from_command_line)?;
    }
    Ok(Action::Change(Request::CreateGroup {
        name: args.name,
        servers: specs(&args.servers)?,
        source,
    }))
}

/// Reads `modify-servergroup`.
///
/// # Errors
/// Everything that is wrong whatever is configured.
fn modify(args: ModifyServergroup) -> Result<Action, Error> {
    Ok(Action::Change(Request::ModifyGroup {
        name: args.name,
        source: source(&args.discover)?,
    }))
}

/// Reads `-d`.
fn source(texts: &[String]) -> Result<SourceSettings, Error> {
    let mut source = SourceSettings::default();
    for text in texts {
        source.parse(text).map_err(Error::from_command_line)?;
    }
    Ok(source)
}

/// What there is to say of the sources of groups, a line each.
fn followed(groups: &[&GroupDescription]) -> String {
    let mut out = String::new();
    for group in groups {
        let Some(said) = &group.source else { continue };
        let there = group.servers.iter();
        let found = there.filter(|s| s.server.found && !s.removed).count();
        let mut text = match (said.last_answer, said.problem.as_str()) {
            (0, "") => "asked for the first time".to_string(),
            (0, problem) => problem.to_string(),
            (at, "") => format!("last answer {}", candidate::since(at)),
            (at, problem) => format!("{problem}; last answer {}", candidate::since(at)),
        };
        let waiting = said.candidates.len();
        if waiting > 0 {
            text.push_str(&format!(
                "; {waiting} to be approved ('lbadm show-candidate {}')",
                group.name
            ));
        }
        if said.problem.is_empty()
            && let Some(first) = said.refused.first()
        {
            text.push_str(&format!("; not taken: {} {}", first.address, first.why));
            if said.refused.len() > 1 {
                text.push_str(&format!(" and {} more", said.refused.len() - 1));
            }
        }
        out.push_str(&format!(
            "{} follows {}: {found} found; {text}\n",
            group.name, said.source
        ));
    }
    out
}

/// Reads `delete-servergroup`.
fn delete(args: GroupNames) -> Action {
    Action::Change(Request::DeleteGroups(args.names))
}

/// Reads `show-servergroup`.
///
/// # Errors
/// Unknown fields.
fn show(args: ShowServergroup) -> Result<Action, Error> {
    table::choose(
        &columns(),
        args.format.output.as_deref(),
        args.format.parsable,
    )?;
    Ok(Action::Show(Box::new(args)))
}

impl Show for ShowServergroup {
    fn render(&self, node: &Description, style: Style) -> Result<String, Error> {
        render(self, node, style)
    }

    fn json(&self, node: &Description) -> Result<Value, Error> {
        let mut groups: Vec<GroupDescription> = select(self, node)?.into_iter().cloned().collect();
        for group in &mut groups {
            group.servers.retain(|s| self.removed || !s.removed);
        }
        Ok(json!(groups))
    }
}

/// A server in its group, or a group without servers.
struct Row<'a> {
    group: &'a str,
    server: Option<&'a ServerDescription>,
}

impl Row<'_> {
    fn of(&self, value: impl Fn(&ServerDescription) -> Cell) -> Cell {
        self.server.map(value).unwrap_or_default()
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
        column("SGNAME", true, |r| r.group.into()),
        column("SERVERID", true, |r| r.of(|s| s.server.id.as_str().into())),
        column("MINPORT", true, |r| {
            r.of(|s| s.server.ports.map(|p| p.first.into()).unwrap_or_default())
        }),
        column("MAXPORT", true, |r| {
            r.of(|s| s.server.ports.map(|p| p.last.into()).unwrap_or_default())
        }),
        column("IP_ADDRESS", true, |r| r.of(|s| s.server.address.into())),
        column("HOST", false, |r| {
            r.of(|s| s.server.host_name.as_deref().unwrap_or_default().into())
        }),
        column("WEIGHT", false, |r| r.of(|s| s.server.weight.into())),
        column("STATUS", false, |r| r.of(|s| status_cell(s.status))),
        column("CONNECTIONS", false, |r| r.of(|s| s.connections.into())),
        column("MAX-CONN", false, |r| {
            r.of(|s| s.server.max_connections.into())
        }),
        column("MIN-CONN", false, |r| {
            r.of(|s| s.server.min_connections.into())
        }),
        column("TIER", false, |r| r.of(|s| tier_text(s.server.tier).into())),
        column("FOUND", false, |r| {
            r.of(|s| if s.server.found { "yes" } else { "no" }.into())
        }),
    ]
}

/// Names of all columns.
pub fn fields() -> Vec<&'static str> {
    columns().iter().map(|column| column.name).collect()
}

/// The groups that `show-servergroup` is about.
///
/// # Errors
/// A name that does not exist.
fn select<'a>(
    args: &ShowServergroup,
    node: &'a Description,
) -> Result<Vec<&'a GroupDescription>, Error> {
    let known = || node.groups.iter().map(|g| g.name.as_str());
    show::check_names(Item::ServerGroup, &args.names, known)?;
    Ok(node
        .groups
        .iter()
        .filter(|g| show::named(&args.names, &g.name))
        .collect())
}

/// Writes `show-servergroup`.
///
/// # Errors
/// A name or field that does not exist.
fn render(args: &ShowServergroup, node: &Description, style: Style) -> Result<String, Error> {
    let groups = select(args, node)?;
    let columns = table::choose(
        &columns(),
        args.format.output.as_deref(),
        args.format.parsable,
    )?;
    let rows: Vec<Row<'_>> = groups
        .iter()
        .flat_map(|g| {
            let shown = || g.servers.iter().filter(|s| args.removed || !s.removed);
            let alone = shown().next().is_none().then_some(Row {
                group: &g.name,
                server: None,
            });
            let servers = shown().map(|s| Row {
                group: &g.name,
                server: Some(s),
            });
            alone.into_iter().chain(servers).collect::<Vec<_>>()
        })
        .collect();
    if args.format.parsable {
        return Ok(table::parsable(&columns, &rows));
    }
    if rows.is_empty() {
        return Ok(
            "there are no server groups; 'lbadm help create-servergroup' shows how to create one\n"
                .to_string(),
        );
    }
    let (mut out, _) = table::table(&columns, &rows, style, true, &[]);
    if !args.removed {
        let gone = groups.iter().flat_map(|g| &g.servers).filter(|s| s.removed);
        out.push_str(&show::draining(
            server::REMOVED,
            gone.map(|s| (s.server.id.as_str(), s.connections)),
        ));
    }
    out.push_str(&followed(&groups));
    Ok(out)
}
