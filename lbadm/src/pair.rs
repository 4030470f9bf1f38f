//! `pair`, `show-pair`, `failover`, `maintenance`.

use std::fmt;
use std::io::Read;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime};

use libilb::ModelError;
use libilb::client::Client;
use libilb::pair::{Invitation, NodeDescription, PairDescription, Step};
use serde_json::json;

use crate::action::{Action, changed_json, line};
use crate::agent;
use crate::cli::{OnOff, PairCommand, PairVerb, ShowPair};
use crate::error::Error;
use crate::table::{self, Cell, Column, Style, Tone};
use crate::time;

/// Longest token that is read from standard input, in bytes; one has about a hundred.
const MAX_TOKEN: u64 = 4096;

/// How long `pair join` waits for the configuration, and how long between two looks.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// What to do about the pair.
#[derive(PartialEq, Eq)]
pub enum Request {
    /// `pair create`.
    Create {
        /// Where to listen.
        address: Option<IpAddr>,
        /// TCP port; 0 for what the settings say.
        port: u16,
    },
    /// `pair join`.
    Join {
        /// The other node.
        host: String,
        /// TCP port.
        port: u16,
        /// A secret, or `-`.
        token: String,
        /// What is here may go.
        replace: bool,
    },
    /// `pair leave`.
    Leave,
    /// `pair acknowledge`.
    Acknowledge,
    /// `show-pair`.
    Show(Listing),
    /// `failover`.
    Failover {
        /// Whatever is against it.
        force: bool,
    },
    /// `maintenance`.
    Maintenance(bool),
}

/// Without the token.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Create { address, port } => write!(f, "CreatePair {address:?} {port}"),
            Request::Join {
                host,
                port,
                replace,
                ..
            } => write!(f, "JoinPair {host:?} {port} (token) {replace}"),
            Request::Leave => f.write_str("LeavePair"),
            Request::Acknowledge => f.write_str("AcknowledgePair"),
            Request::Show(_) => f.write_str("DescribePair"),
            Request::Failover { force } => write!(f, "Failover {force}"),
            Request::Maintenance(on) => write!(f, "SetMaintenance {on}"),
        }
    }
}

/// `show-pair`.
#[derive(Debug, PartialEq, Eq)]
pub struct Listing {
    output: Option<String>,
    parsable: bool,
}

/// Reads a command about the pair.
///
/// # Errors
/// Unknown fields.
pub fn understand(command: PairCommand) -> Result<Action, Error> {
    Ok(Action::Pair(match command {
        PairCommand::Pair(pair) => match pair.verb {
            PairVerb::Create(args) => Request::Create {
                address: args.address,
                port: args.port.unwrap_or(0),
            },
            PairVerb::Join(args) => Request::Join {
                host: args.host,
                port: args.port,
                token: args.token,
                replace: args.replace,
            },
            PairVerb::Leave => Request::Leave,
            PairVerb::Acknowledge => Request::Acknowledge,
        },
        PairCommand::ShowPair(ShowPair { format }) => {
            table::choose(&columns(), format.output.as_deref(), format.parsable)?;
            Request::Show(Listing {
                output: format.output,
                parsable: format.parsable,
            })
        }
        PairCommand::Failover(args) => Request::Failover { force: args.force },
        PairCommand::Maintenance(args) => Request::Maintenance(args.which == OnOff::On),
    }))
}

/// Does it, and returns what there is to say; its user may be asked for a password (`ask`).
///
/// # Errors
/// See [`Error`].
pub async fn run(request: Request, json: bool, ask: bool, style: Style) -> Result<String, Error> {
    let done = |word: &str, what: Vec<String>| match json {
        true => changed_json(word, &what),
        false => String::new(),
    };
    Ok(match request {
        Request::Show(listing) => {
            let pair = Client::connect().await?.describe_pair().await?;
            listing.render(&pair, json, style)?
        }
        Request::Create { address, port } => {
            let client = agent::connect(ask).await?;
            invited(&client.create_pair(address, port).await?, json)
        }
        Request::Join {
            host,
            port,
            token,
            replace,
        } => {
            let (address, token) = (resolve(&host, port)?, read_token(token)?);
            let client = agent::connect(ask).await?;
            client.join_pair(address, port, &token, replace).await?;
            let settled = settled(&client).await?;
            match json || settled {
                true => done("joined", vec![host]),
                false => "joined; what is configured there has not come yet: 'lbadm show-pair' says why\n".to_owned(),
            }
        }
        Request::Leave => {
            let left = agent::connect(ask).await?.leave_pair().await?;
            match (left, json) {
                (_, true) => line(&json!({ "left": left })),
                (true, false) => String::new(),
                (false, false) => "there is no pair\n".to_string(),
            }
        }
        Request::Acknowledge => {
            let count = agent::connect(ask).await?.acknowledge_pair().await?;
            match (count, json) {
                (_, true) => line(&json!({ "acknowledged": count })),
                (0, false) => "there is nothing to take note of\n".to_string(),
                (_, false) => String::new(),
            }
        }
        Request::Failover { force } => {
            let client = agent::connect(ask).await?;
            done("given", client.failover(force).await?)
        }
        Request::Maintenance(on) => {
            let changed = agent::connect(ask).await?.set_maintenance(on).await?;
            match json {
                true => line(&json!({ "maintenance": on, "changed": changed })),
                false => String::new(),
            }
        }
    })
}

/// Waits for a while until both managers hear each other and have the same configuration: who has joined wants to see that.
async fn settled(client: &Client) -> Result<bool, Error> {
    let began = Instant::now();
    loop {
        let pair = client.describe_pair().await?;
        if pair.link.up && pair.configuration.step == Step::InStep {
            return Ok(true);
        }
        if began.elapsed() >= SETTLE_PATIENCE {
            return Ok(false);
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
}

/// The address of the other node.
fn resolve(host: &str, port: u16) -> Result<IpAddr, Error> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Ok(address);
    }
    let invalid = |problem: String| {
        let allowed = "use the name or an address of the node that created the pair";
        Error::Model(ModelError::invalid("host", host, &problem, allowed))
    };
    let mut found = (host, port)
        .to_socket_addrs()
        .map_err(|error| invalid(format!("cannot be resolved ({error})")))?;
    let first = found.next();
    first
        .map(|it| it.ip())
        .ok_or_else(|| invalid("has no address".to_owned()))
}

fn read_token(token: String) -> Result<String, Error> {
    if token != "-" {
        return Ok(token);
    }
    let mut text = String::new();
    let read = std::io::stdin()
        .lock()
        .take(MAX_TOKEN)
        .read_to_string(&mut text);
    read.map_err(|cause| Error::Read {
        path: "standard input".to_owned(),
        cause,
    })?;
    let token = text.trim();
    match token.is_empty() {
        true => Err(Error::Usage(
            "token is missing: there is nothing on standard input".to_owned(),
        )),
        false => Ok(token.to_owned()),
    }
}

/// What `pair create` says.
pub fn invited(invitation: &Invitation, json: bool) -> String {
    if json {
        return line(&json!(invitation));
    }
    let port = match invitation.port {
        libilb::pair::PAIR_PORT => String::new(),
        port => format!("--port {port} "),
    };
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(invitation.until);
    format!(
        "on the other node, until {} and once:\n\n  lbadm pair join {port}{} {}\n\nWhoever has this token may join: keep it to yourself.\n",
        time::of_day(until),
        invitation.host,
        invitation.token
    )
}

/// A node.
struct Row<'a> {
    node: &'a NodeDescription,
    /// Whether it is the one that was asked.
    here: bool,
    /// Whether it is heard: otherwise it stands as it stood once.
    heard: bool,
}

/// What nobody knows while a node is not heard.
fn unknown() -> Cell {
    Cell {
        text: "unknown".into(),
        tone: Tone::Bad,
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

fn columns<'a>() -> Vec<Column<Row<'a>>> {
    vec![
        column("NODE", true, |row| u32::from(row.node.node).into()),
        column("NAME", true, |row| row.node.name.as_str().into()),
        column("SOFTWARE", true, |row| row.node.software.as_str().into()),
        column("ROLE", true, |row| match row.heard {
            false => unknown(),
            true => Cell {
                text: row.node.role().into(),
                tone: match (row.node.maintenance, row.node.active) {
                    (true, _) => Tone::Notice,
                    (false, true) => Tone::Good,
                    (false, false) => Tone::Plain,
                },
            },
        }),
        column("FASTPATH", true, |row| {
            match (row.heard, row.node.fastpath) {
                (false, _) => unknown(),
                (true, true) => "ready".into(),
                (true, false) => Cell {
                    text: "absent".into(),
                    tone: Tone::Bad,
                },
            }
        }),
        column("GENERATION", true, |row| row.node.generation.into()),
        column("THIS", true, |row| {
            if row.here { "yes" } else { "no" }.into()
        }),
    ]
}

/// Names of all columns.
pub fn fields() -> Vec<&'static str> {
    columns().iter().map(|column| column.name).collect()
}

impl Listing {
    /// The output.
    ///
    /// # Errors
    /// None: the fields were chosen before.
    pub fn render(
        &self,
        pair: &PairDescription,
        json: bool,
        style: Style,
    ) -> Result<String, Error> {
        if json {
            return Ok(line(&json!(pair)));
        }
        let columns = table::choose(&columns(), self.output.as_deref(), self.parsable)?;
        let mut rows = vec![Row {
            node: &pair.here,
            here: true,
            heard: true,
        }];
        rows.extend(pair.there.as_ref().map(|node| Row {
            node,
            here: false,
            heard: pair.link.up,
        }));
        rows.sort_by_key(|row| (row.node.node, !row.here));
        if self.parsable {
            return Ok(table::parsable(&columns, &rows));
        }
        let (mut out, _) = table::table(&columns, &rows, style, true, &[]);
        if !pair.paired {
            if let Some(left) = &pair.left {
                let gone = crate::status::pair::gone(left);
                let found = style.paint(Tone::Notice, &gone.found);
                out.push_str(&format!("{}: {found}\n{}\n", gone.about, gone.advice));
                if pair.open_until == 0 {
                    return Ok(out);
                }
            }
            out.push_str(&match pair.open_until {
                0 => "there is no pair; 'lbadm help pair' shows how to make one\n".to_owned(),
                until => format!(
                    "nobody has joined yet; the token is good until {}\n",
                    time::of_day(SystemTime::UNIX_EPOCH + Duration::from_secs(until))
                ),
            });
            return Ok(out);
        }
        for (what, (words, tone)) in [
            ("link", link(pair)),
            ("configuration", configuration(pair)),
            ("connections", connections(pair)),
        ] {
            out.push_str(&format!("{what}: {}\n", style.paint(tone, &words)));
        }
        let mut refused: Vec<String> = Vec::new();
        for (reason, count) in pair.refused.iter().filter(|(_, count)| **count > 0) {
            refused.push(format!("{reason} {count}"));
        }
        if !refused.is_empty() {
            out.push_str(&format!("refused: {}\n", refused.join(", ")));
        }
        for notice in &pair.notices {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(notice.time);
            let words = style.paint(Tone::Notice, &notice.words);
            out.push_str(&format!("notice of {}: {words}\n", time::rfc3339(at)));
        }
        if !pair.notices.is_empty() {
            out.push_str("'lbadm pair acknowledge' when you have taken note of it\n");
        }
        Ok(out)
    }
}

fn link(pair: &PairDescription) -> (String, Tone) {
    let link = &pair.link;
    let since = match link.since {
        0 => String::new(),
        millis => {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            format!(" since {}", time::rfc3339(at))
        }
    };
    let whom = match pair.address.as_str() {
        "" => String::new(),
        address => format!(" with {address}"),
    };
    match link.up {
        true => (format!("up{whom}{since}"), Tone::Good),
        false => (format!("down{whom}{since}: {}", link.why), Tone::Bad),
    }
}

/// How the configurations stand to each other.
pub fn configuration(pair: &PairDescription) -> (String, Tone) {
    let step = &pair.configuration;
    let changes = match step.changes {
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    };
    let (mut words, tone) = match step.step {
        Step::InStep => ("in step".to_owned(), Tone::Good),
        Step::Unknown => (
            "unknown how it stands to the other one's".to_owned(),
            Tone::Notice,
        ),
        Step::Behind => (format!("{changes} behind the other one's"), Tone::Notice),
        Step::Ahead => (format!("{changes} ahead of the other one's"), Tone::Notice),
        Step::Forked => (
            "both were changed while the nodes did not hear each other".to_owned(),
            Tone::Bad,
        ),
    };
    if !step.words.is_empty() {
        words.push_str(&format!(" ({})", step.words));
    }
    (words, tone)
}

fn connections(pair: &PairDescription) -> (String, Tone) {
    match &pair.connections {
        None => {
            let why = match pair.connections_why.as_str() {
                "" => "this node's fast path is not there",
                why => why,
            };
            (format!("do not follow: {why}"), Tone::Bad)
        }
        Some(it) if !it.up => (
            "do not follow: the other node's fast path does not answer".into(),
            Tone::Bad,
        ),
        Some(it) if !it.complete => ("follow; not all has been told yet".into(), Tone::Notice),
        Some(it) => (
            format!("follow; {} to be told, {} ms late", it.pending, it.lag),
            Tone::Good,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_does_not_show() {
        let request = Request::Join {
            host: "lb1".into(),
            port: 1,
            token: "ilb1-secret".into(),
            replace: false,
        };
        assert!(!format!("{request:?}").contains("secret"));
    }

    #[test]
    fn a_host_is_an_address_with_or_without_brackets_or_is_looked_up() {
        for (host, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("no such host", None),
        ] {
            let found = resolve(host, 1).ok().map(|it| it.to_string());
            assert_eq!(found.as_deref(), expected, "{host}");
        }
    }
}
