//! `show-candidate`, `approve-server`.

use std::time::{Duration, SystemTime};

use libilb::describe::{Description, GroupDescription};
use libilb::error::Item;
use libilb::server::ServerSpec;
use libilb::source::{Candidate, SourceDescription};

use serde_json::{Value, json};

use crate::action::{Action, Request, Show};
use crate::cli::{ApproveServer, CandidateCommand, ShowCandidate};
use crate::error::Error;
use crate::keys::NAMED_SERVERS;
use crate::show;
use crate::table::{self, Cell, Column, Style};
use crate::time;

/// Reads a command about candidates.
///
/// # Errors
/// Everything that is wrong whatever is configured.
pub fn understand(command: CandidateCommand) -> Result<Action, Error> {
    match command {
        CandidateCommand::ShowCandidate(args) => show(args),
        CandidateCommand::ApproveServer(args) => approve(args),
    }
}

/// Reads `show-candidate`.
///
/// # Errors
/// Unknown fields.
fn show(args: ShowCandidate) -> Result<Action, Error> {
    table::choose(
        &columns(),
        args.format.output.as_deref(),
        args.format.parsable,
    )?;
    Ok(Action::Show(Box::new(args)))
}

/// Reads `approve-server`.
///
/// # Errors
/// What is no address.
fn approve(args: ApproveServer) -> Result<Action, Error> {
    let pairs = NAMED_SERVERS.parse(&args.servers)?;
    let servers: Vec<String> = pairs.into_iter().map(|(_, value)| value).collect();
    for server in &servers {
        ServerSpec::parse(server).map_err(Error::from_command_line)?;
    }
    Ok(Action::Change(Request::ApproveServers {
        group: args.group,
        servers,
    }))
}

/// A candidate of a group.
struct Row<'a> {
    group: &'a GroupDescription,
    source: &'a SourceDescription,
    candidate: &'a Candidate,
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
        column("SGNAME", true, |r| r.group.name.as_str().into()),
        column("ADDRESS", true, |r| r.candidate.found.address.into()),
        column("PORT", true, |r| {
            let ports = r.candidate.found.ports;
            ports.map(|p| p.to_string()).unwrap_or_default().into()
        }),
        column("SINCE", true, |r| since(r.candidate.since).into()),
        column("SOURCE", true, |r| r.source.source.to_string().into()),
        column("HOST", false, |r| {
            let host = r.candidate.found.host_name.as_deref();
            host.unwrap_or_default().into()
        }),
    ]
}

/// Names of all columns.
pub fn fields() -> Vec<&'static str> {
    columns().iter().map(|column| column.name).collect()
}

/// A time of the description, for people.
pub fn since(millis: u64) -> String {
    time::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
}

/// The candidates that the command is about.
///
/// # Errors
/// A group that does not exist.
fn select<'a>(args: &ShowCandidate, node: &'a Description) -> Result<Vec<Row<'a>>, Error> {
    let known = || node.groups.iter().map(|g| g.name.as_str());
    show::check_names(Item::ServerGroup, &args.names, known)?;
    let groups = node.groups.iter();
    let groups = groups.filter(|g| show::named(&args.names, &g.name));
    let rows = groups.filter_map(|group| Some((group, group.source.as_deref()?)));
    let rows = rows.flat_map(|(group, source)| {
        source.candidates.iter().map(move |candidate| Row {
            group,
            source,
            candidate,
        })
    });
    Ok(rows.collect())
}

impl Show for ShowCandidate {
    fn render(&self, node: &Description, style: Style) -> Result<String, Error> {
        let rows = select(self, node)?;
        let columns = table::choose(
            &columns(),
            self.format.output.as_deref(),
            self.format.parsable,
        )?;
        if self.format.parsable {
            return Ok(table::parsable(&columns, &rows));
        }
        if rows.is_empty() {
            return Ok("nobody waits to be approved\n".to_string());
        }
        let (out, _) = table::table(&columns, &rows, style, true, &[]);
        Ok(out)
    }

    fn json(&self, node: &Description) -> Result<Value, Error> {
        let rows = select(self, node)?;
        let rows = rows.iter().map(|row| {
            let mut said = json!(row.candidate);
            if let Value::Object(fields) = &mut said {
                fields.insert("group".to_string(), json!(row.group.name));
            }
            said
        });
        Ok(rows.collect())
    }
}
