//! `monitor`: what happens, a line for each event.

use std::time::SystemTime;

use libilb::events::{Event, Kind, Properties, What};
use libilb::words;
use serde_json::{Value, json};

use crate::action::{Action, line};
use crate::cli::{Monitor, MonitorCommand};
use crate::error::Error;
use crate::table::{Style, Tone};
use crate::time;

/// Which events are said, and how.
#[derive(Debug)]
pub struct Filter {
    kinds: Vec<Kind>,
    names: Vec<String>,
    verbose: bool,
}

/// Properties of the manager that follow from what is said anyway.
const FOLLOWING: [&str; 2] = ["generation", "fastpath-generation"];

/// Reads a command that watches.
///
/// # Errors
/// A kind that there is not.
pub fn understand(command: MonitorCommand) -> Result<Action, Error> {
    let MonitorCommand::Monitor(args) = command;
    Ok(Action::Monitor(read(args)?))
}

fn read(args: Monitor) -> Result<Filter, Error> {
    let kind = |word: &str| {
        Kind::parse(word.trim()).ok_or_else(|| {
            let known: Vec<&str> = Kind::all().collect();
            let hint = words::nearest(word, known.iter().copied());
            let hint = hint.map_or(String::new(), |word| format!("; did you mean '{word}'?"));
            Error::Usage(format!(
                "--only '{word}' is not known: use {}{hint}",
                words::one_of(&known)
            ))
        })
    };
    let kinds = args.only.iter().flat_map(|only| only.split(','));
    Ok(Filter {
        kinds: kinds.map(kind).collect::<Result<_, _>>()?,
        names: args.names,
        verbose: args.verbose,
    })
}

impl Filter {
    /// The event without what is not wanted of it; nothing if none of it is.
    fn pass(&self, mut event: Event) -> Option<Event> {
        if !self.kinds.is_empty() && !self.kinds.contains(&event.object) {
            return None;
        }
        let named = |name: &String| name.eq_ignore_ascii_case(&event.name);
        if !self.names.is_empty() && !self.names.iter().any(named) {
            return None;
        }
        if let What::Changed { changes } = &mut event.what {
            changes.retain(|name, _| self.verbose || !FOLLOWING.contains(&name.as_str()));
            if changes.is_empty() {
                return None;
            }
        }
        Some(event)
    }

    /// The line for an event; nothing if it is not wanted.
    pub fn render(
        &self,
        event: Event,
        now: SystemTime,
        json: bool,
        style: Style,
    ) -> Option<String> {
        let event = self.pass(event)?;
        if json {
            let mut value = json!(event);
            value["time"] = json!(time::rfc3339(now));
            return Some(line(&value));
        }
        let (tone, text) = words_of(&event);
        let who = match (event.object, event.name.as_str()) {
            (Kind::Manager, _) if matches!(event.what, What::Changed { .. }) => "node".to_string(),
            (kind, "") => kind.to_string(),
            (Kind::ServerGroup, name) => format!("server group {name}"),
            (Kind::HealthCheck, name) => format!("health check {name}"),
            (Kind::Vrrp, name) => format!("VRRP instance {name}"),
            (kind, name) => format!("{kind} {name}"),
        };
        Some(format!(
            "{}  {who} {}\n",
            time::rfc3339(now),
            style.paint(tone, &text)
        ))
    }
}

fn words_of(event: &Event) -> (Tone, String) {
    match &event.what {
        What::Created { properties } => (Tone::Plain, created(event.object, properties)),
        What::Removed => (Tone::Plain, "removed".to_string()),
        What::Stopped => (
            Tone::Bad,
            "stopped; forwarding goes on, nothing can be changed".to_string(),
        ),
        What::Started => (Tone::Good, "started".to_string()),
        What::Changed { changes } => {
            let mut tone = Tone::Plain;
            let said: Vec<String> = changes
                .iter()
                .map(|(name, change)| {
                    tone = worse(tone, tone_of(name, &change.new));
                    let name = match (event.object, name.as_str()) {
                        (Kind::Manager, "fastpath") => "fast path",
                        (_, name) => name,
                    };
                    format!("{name} {} -> {}", value(&change.old), value(&change.new))
                })
                .collect();
            (tone, said.join(", "))
        }
    }
}

/// Whether what a property says now is good or bad news.
fn tone_of(name: &str, value: &Value) -> Tone {
    match (name, value.as_str().unwrap_or_default()) {
        ("fastpath", "connected") | ("state", "ok") | ("health", "alive") => Tone::Good,
        ("fastpath", "absent") | ("state", "degraded") => Tone::Bad,
        ("health", "dead" | "unreach" | "unreachable") => Tone::Bad,
        ("fastpath" | "health", _) => Tone::Notice,
        _ => Tone::Plain,
    }
}

fn worse(one: Tone, other: Tone) -> Tone {
    let rank = |tone| match tone {
        Tone::Plain => 0,
        Tone::Good => 1,
        Tone::Notice => 2,
        Tone::Bad => 3,
    };
    if rank(other) > rank(one) { other } else { one }
}

/// What a person wants to know about something new.
fn created(kind: Kind, properties: &Properties) -> String {
    let say = |name: &str| properties.get(name).map(value).unwrap_or_default();
    let text = |name: &str| match say(name) {
        text if text == "none" => String::new(),
        text => text,
    };
    let enabled = match properties.get("enabled") {
        Some(Value::Bool(false)) => ", disabled",
        Some(_) => ", enabled",
        None => "",
    };
    match kind {
        Kind::Rule => {
            let port = match text("port") {
                port if port.is_empty() => port,
                port => format!(" port {port}"),
            };
            format!(
                "created: {} {}{port}, {}, {}, servergroup {}{enabled}",
                text("vip"),
                text("protocol"),
                text("topology"),
                text("algorithm"),
                text("server-group")
            )
        }
        Kind::Server => {
            let port = match text("port") {
                port if port.is_empty() => port,
                port => format!(" port {port}"),
            };
            let weight = say("weight");
            format!(
                "created: {}{port}, weight {weight}{enabled}",
                text("address")
            )
        }
        Kind::ServerGroup => match text("servers") {
            servers if servers.is_empty() => "created: no servers".to_string(),
            servers => format!("created: {servers}"),
        },
        Kind::Manager | Kind::HealthCheck | Kind::Vrrp | Kind::Other => {
            let shown = properties.iter().filter(|(name, _)| *name != "name");
            let shown: Vec<String> = shown
                .map(|(name, property)| format!("{name} {}", value(property)))
                .collect();
            format!("created: {}", shown.join(", "))
        }
    }
}

/// A value as people write it.
fn value(value: &Value) -> String {
    match value {
        Value::Null => "none".to_string(),
        Value::Bool(true) => "yes".to_string(),
        Value::Bool(false) => "no".to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.is_empty() => "none".to_string(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "none".to_string(),
        Value::Array(all) => {
            let all: Vec<String> = all.iter().map(self::value).collect();
            all.join(",")
        }
        Value::Object(map) => {
            let all: Vec<String> = map
                .iter()
                .map(|(key, item)| format!("{key}={}", self::value(item)))
                .collect();
            all.join(",")
        }
    }
}
