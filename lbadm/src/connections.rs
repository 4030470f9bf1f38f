//! `show-connections`, `show-nat`, `show-persist`: what the connection table holds.

use libilb::connections::{self, Connection, End, Filter};
use libilb::rule::Prefix;
use serde_json::json;

use crate::action::{Action, line};
use crate::cli::{ConnectionsCommand, Count, Format, ShowConnections};
use crate::error::Error;
use crate::table::{self, Cell, Column, Style, Tone};

/// How many are shown when nothing else is said.
const USUAL: u32 = 100;

/// Which connections to show, and how.
#[derive(Debug)]
pub struct Listing {
    /// Which.
    pub filter: Filter,
    /// How many at most.
    pub limit: u32,
    format: Format,
}

/// Reads a command about connections.
///
/// # Errors
/// Values that are wrong in themselves, unknown fields.
pub fn understand(command: ConnectionsCommand) -> Result<Action, Error> {
    match command {
        ConnectionsCommand::ShowConnections(args) => show(args),
        ConnectionsCommand::ShowNat(args) => nat(args),
        ConnectionsCommand::ShowPersist(args) => persistence(args),
    }
}

/// Reads `show-connections`.
///
/// # Errors
/// Values that are wrong in themselves, unknown fields.
fn show(args: ShowConnections) -> Result<Action, Error> {
    let wrong = Error::from_command_line;
    let client = args.client.as_deref().map(Prefix::parse).transpose();
    let vip = args.vip.as_deref();
    let vip = vip.map(|vip| connections::parse_address("vip", vip));
    let (client, vip) = (client.map_err(wrong)?, vip.transpose().map_err(wrong)?);
    let family = client.map(|c| c.address).or(vip);
    let family = family.map(libilb::address::Family::of);
    let protocol = args.protocol.as_deref();
    let protocol = protocol.map(|text| connections::parse_protocol(text, family));
    let state = args.state.as_deref();
    let state = state.map(|text| connections::parse_state(text, args.persistence));
    let filter = Filter {
        rule: args.rule,
        server: args.server,
        client,
        vip,
        protocol: protocol.transpose().map_err(wrong)?,
        state: state.transpose().map_err(wrong)?.map(str::to_string),
        persistence: args.persistence,
    };
    listing(filter, args.limit, args.format)
}

/// Reads `show-nat`.
///
/// # Errors
/// Unknown fields.
fn nat(args: Count) -> Result<Action, Error> {
    listing(Filter::default(), args.count, args.format)
}

/// Reads `show-persist`.
///
/// # Errors
/// Unknown fields.
fn persistence(args: Count) -> Result<Action, Error> {
    let filter = Filter {
        persistence: true,
        ..Filter::default()
    };
    listing(filter, args.count, args.format)
}

fn listing(filter: Filter, limit: Option<u32>, format: Format) -> Result<Action, Error> {
    let all = columns(filter.persistence);
    table::choose(&all, format.output.as_deref(), format.parsable)?;
    Ok(Action::Connections(Listing {
        filter,
        limit: limit.unwrap_or(USUAL),
        format,
    }))
}

/// Names of all columns.
pub fn fields(persistence: bool) -> Vec<&'static str> {
    let columns = columns(persistence);
    columns.iter().map(|column| column.name).collect()
}

fn end(end: Option<End>) -> Cell {
    end.map(Cell::from).unwrap_or_default()
}

/// Every column; a client's claim to a server is about no protocol and no port.
fn columns(persistence: bool) -> Vec<Column<Connection>> {
    let text = |name, default, value: fn(&Connection) -> Cell| Column {
        name,
        default,
        number: false,
        value,
    };
    let number = |name, default, value: fn(&Connection) -> Cell| Column {
        name,
        default,
        number: true,
        value,
    };
    let flow = !persistence;
    vec![
        text("RULENAME", true, |c| c.rule.as_str().into()),
        text("PROTOCOL", flow, |c| c.protocol.as_str().into()),
        text("CLIENT", true, |c| c.client.into()),
        text("VIP", flow, |c| end(c.vip)),
        text("SOURCE", false, |c| end(c.source)),
        text("SERVERID", true, |c| c.server.as_str().into()),
        text("SERVER", true, |c| end(c.destination)),
        text("STATE", true, |c| Cell {
            text: c.state.clone(),
            tone: match c.state.as_str() {
                "established" | "flowing" | "persistence" => Tone::Good,
                _ => Tone::Plain,
            },
        }),
        number("IDLE", true, |c| c.idle.into()),
        number("EXPIRES", flow, |c| {
            c.remaining.map(Cell::from).unwrap_or_default()
        }),
    ]
}

impl Listing {
    /// The output. `more` says that there may be more than these.
    ///
    /// # Errors
    /// None: the fields were chosen before.
    pub fn render(
        &self,
        found: &[Connection],
        more: bool,
        json: bool,
        style: Style,
    ) -> Result<String, Error> {
        if json {
            return Ok(line(&json!(found)));
        }
        let persistence = self.filter.persistence;
        let Format { output, parsable } = &self.format;
        let columns = table::choose(&columns(persistence), output.as_deref(), *parsable)?;
        if *parsable {
            return Ok(table::parsable(&columns, found));
        }
        if found.is_empty() {
            let none = match (persistence, self.filter == Filter::default()) {
                (true, _) => "no client is kept on a server\n",
                (false, true) => "there are no connections\n",
                (false, false) => "there are no such connections\n",
            };
            return Ok(none.to_string());
        }
        let (mut out, _) = table::table(&columns, found, style, true, &[]);
        if more {
            out.push_str(&format!(
                "there may be more than these {}: ask for more of them\n",
                found.len()
            ));
        }
        Ok(out)
    }
}
