//! `explain`: what becomes of a packet, why a rule or a server gets connections or does not, and who has the addresses of a VRRP
//! instance.

mod packet;
mod rule;
mod server;
mod share;
mod vrrp;

pub use share::{down, obstacle};

use libilb::ModelError;
use libilb::describe::Description;
use libilb::error::Item;
use libilb::explain::{Explanation, Packet};
use libilb::stats::Statistics;
use libilb::words;
use serde_json::{Value, json};

use crate::action::{Action, line};
use crate::cli::{Explain, ExplainCommand};
use crate::error::Error;
use crate::table::Style;

/// What shall be explained.
#[derive(Debug)]
pub enum Question {
    /// What becomes of a packet.
    Packet(Packet),
    /// Why something that is configured does what it does.
    Object(Object),
}

/// Something that is configured.
#[derive(Debug)]
pub enum Object {
    /// A rule, by its name.
    Rule(String),
    /// A server, by its id.
    Server(String),
    /// A VRRP instance, by its name.
    Vrrp(String),
}

/// Reads a command that explains.
///
/// # Errors
/// Values that are wrong in themselves.
pub fn understand(command: ExplainCommand) -> Result<Action, Error> {
    let ExplainCommand::Explain(args) = command;
    let object = match args.protocol.to_ascii_lowercase().as_str() {
        "rule" | "rl" => Object::Rule(args.source.clone()),
        "server" | "srv" => Object::Server(args.source.clone()),
        "vrrp" => Object::Vrrp(args.source.clone()),
        _ => return Ok(Action::Explain(Question::Packet(packet::read(args)?))),
    };
    let what = match object {
        Object::Rule(_) => "rule",
        Object::Server(_) => "server",
        Object::Vrrp(_) => "VRRP instance",
    };
    only_a_name(&args, what)?;
    Ok(Action::Explain(Question::Object(object)))
}

/// These have nothing of what a packet has.
fn only_a_name(args: &Explain, what: &str) -> Result<(), Error> {
    let given = [
        ("--flags", args.flags.is_some()),
        ("--message", args.message.is_some()),
        ("--length", args.length.is_some()),
        ("--ttl", args.ttl.is_some()),
        ("--interface", args.interface.is_some()),
    ];
    if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
        return Err(Error::Usage(format!(
            "{option} is given, but a {what} is no packet: leave it out"
        )));
    }
    match &args.destination {
        None => Ok(()),
        Some(more) => Err(Error::Usage(format!(
            "unexpected argument '{more}' found: one {what} at a time ('lbadm help explain' explains it)"
        ))),
    }
}

/// Writes what becomes of a packet.
pub fn packet(packet: &Packet, said: &Explanation, json: bool, style: Style) -> String {
    match json {
        true => line(&json!(said)),
        false => packet::render(packet, said, style),
    }
}

impl Object {
    /// Writes why it does what it does.
    ///
    /// # Errors
    /// One that does not exist.
    pub fn explain(
        &self,
        node: &Description,
        counted: &Statistics,
        json: bool,
        style: Style,
    ) -> Result<String, Error> {
        let (text, value): (String, Value) = match self {
            Object::Rule(name) => {
                let said = rule::explain(name, node, counted)?;
                (rule::render(&said, style), json!(said))
            }
            Object::Server(id) => {
                let said = server::explain(id, node, counted)?;
                (server::render(&said, style), json!(said))
            }
            Object::Vrrp(name) => {
                let said = vrrp::find(name, node)?;
                (vrrp::render(said, style), json!(said))
            }
        };
        Ok(if json { line(&value) } else { text })
    }
}

/// A name that does not exist.
fn not_found<'a>(item: Item, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    Error::Model(ModelError::NotFound {
        item,
        names: vec![name.to_string()],
        suggestion: words::nearest(name, known),
    })
}

/// Lines with a heading each.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, what: &str, text: impl AsRef<str>) {
        let head = format!("{what}:");
        self.0.push_str(&format!("{head:<12}{}\n", text.as_ref()));
    }

    fn text(self) -> String {
        self.0
    }
}
