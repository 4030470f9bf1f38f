//! Load-aware weights: where a health check learns how much a server has to do, and how far that may change its share.
//!
//! The ideas are those of Zen's nftables prototype (netdev 1.1: weights from response times and, over SNMP, from the load of
//! processors, memory and network). What becomes of a figure is `ilb-checks`' matter.

use std::fmt;

use super::Time;
use crate::error::ModelError;
use crate::words::{self, Word};

/// UDP port of SNMP agents (RFC 3417).
pub const SNMP_PORT: u16 = 161;
/// Most octets of an SNMP community.
pub const MAX_COMMUNITY: usize = 255;
/// Most numbers of an object identifier (RFC 2578, section 3.5).
pub const MAX_OID: usize = 128;

/// How the load of servers changes their share of new connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// What is looked at.
    pub source: LoadSource,
    /// How often, 0.1 to 3600 s; 5 s by default. With [`LoadSource::Response`] each test is looked at.
    pub interval: Time,
    /// The least that is left of a server's configured share, in percent, 1 to 100; 10 by default.
    pub least: u8,
}

impl Load {
    /// See [`Load::interval`].
    pub const DEFAULT_INTERVAL: Time = Time::from_secs(5);
    /// See [`Load::least`].
    pub const DEFAULT_LEAST: u8 = 10;
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadSource {
    /// How long successful tests take.
    Response,
    /// Figures of an SNMP agent on the server (version 2c, RFC 3416).
    Snmp {
        /// Which figure.
        figure: Figure,
        /// The community, up to [`MAX_COMMUNITY`] octets; `public` by default.
        community: String,
        /// UDP port of the agent; [`SNMP_PORT`] by default.
        port: u16,
    },
    /// An agent that says in a line of text which share the server wants, such as `75%` (HAProxy's agent-check).
    Agent {
        /// TCP port of the agent.
        port: u16,
    },
}

/// A figure of an SNMP agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Figure {
    /// Processors (UCD-SNMP-MIB ssCpuRaw…, else HOST-RESOURCES-MIB hrProcessorLoad).
    Cpu,
    /// Memory that is neither free nor cache (UCD-SNMP-MIB).
    Memory,
    /// The busiest interface and direction, of its speed (IF-MIB).
    Network,
    /// A figure of one's own.
    Value {
        /// Where it is: 2 to [`MAX_OID`] numbers.
        oid: Vec<u32>,
        /// What it is at full load, from 1.
        full: u64,
    },
}

/// Words for what needs no more than a word.
const SOURCES: &[Word<Plain>] = &[
    (Plain::Response, "response", &["rtt"]),
    (Plain::Cpu, "cpu", &[]),
    (Plain::Memory, "memory", &["mem"]),
    (Plain::Network, "network", &["net"]),
    (Plain::Agent, "agent", &["agent-check"]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plain {
    Response,
    Cpu,
    Memory,
    Network,
    Agent,
}

/// What is said about load, as it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    pub load: &'a str,
    pub interval: Option<Time>,
    pub least: Option<u32>,
    pub port: Option<u32>,
    pub community: Option<&'a str>,
}

impl Said<'_> {
    /// Reads and checks it; everything that is wrong goes to `errors`.
    pub fn check(self, errors: &mut Vec<ModelError>) -> Option<Load> {
        let before = errors.len();
        let mut wrong = |field, value: String, problem: &str, allowed: String| {
            errors.push(ModelError::invalid(field, value, problem, allowed));
        };
        let interval = self.interval.unwrap_or(Load::DEFAULT_INTERVAL);
        let range = Time::from_millis(100)..=Time::from_secs(3600);
        if !range.contains(&interval) {
            let allowed = "use 0.1 to 3600 seconds".to_string();
            wrong(
                "load-interval",
                interval.to_string(),
                "is out of range",
                allowed,
            );
        }
        let least = self.least.unwrap_or(Load::DEFAULT_LEAST.into());
        if !(1..=100).contains(&least) {
            let allowed = "use 1 to 100 percent".to_string();
            wrong("load-least", least.to_string(), "is out of range", allowed);
        }
        let port = match self.port.map(u16::try_from) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => {
                let value = self.port.unwrap_or_default().to_string();
                wrong(
                    "load-port",
                    value,
                    "is no port",
                    "use 1 to 65535".to_string(),
                );
                None
            }
        };
        let community = self.community.unwrap_or("public");
        if community.is_empty() || community.len() > MAX_COMMUNITY {
            let allowed = format!("use 1 to {MAX_COMMUNITY} octets");
            let value = community.escape_debug().to_string();
            wrong("community", value, "is too short or too long", allowed);
        }
        let snmp = |figure| LoadSource::Snmp {
            figure,
            community: community.to_string(),
            port: port.unwrap_or(SNMP_PORT),
        };
        let source = match (read(self.load), port) {
            (Ok(Read::Figure(figure)), _) => Some(snmp(figure)),
            (Ok(Read::Response), _) => Some(LoadSource::Response),
            (Ok(Read::Agent), Some(port)) => Some(LoadSource::Agent { port }),
            (Ok(Read::Agent), None) => {
                errors.push(ModelError::Missing {
                    field: "load-port",
                    allowed: "an agent listens at a TCP port of its own, such as load-port=9999"
                        .to_string(),
                });
                None
            }
            (Err(error), _) => {
                errors.push(error);
                None
            }
        };
        let foreign = [
            (
                "community",
                self.community.map(str::to_string),
                "cpu, memory, network or an object",
            ),
            (
                "load-port",
                self.port.map(|port| port.to_string()),
                "cpu, memory, network, an object or agent",
            ),
        ];
        for ((field, value, of), belongs) in foreign.into_iter().zip([
            matches!(source, Some(LoadSource::Snmp { .. }) | None),
            !matches!(source, Some(LoadSource::Response)),
        ]) {
            if let Some(value) = value.filter(|_| !belongs) {
                let problem = format!("is given, but load is {}", self.load);
                let allowed = format!("it belongs to load={of}; leave it out");
                errors.push(ModelError::invalid(field, value, problem, allowed));
            }
        }
        if errors.len() > before {
            return None;
        }
        Some(Load {
            source: source?,
            interval,
            least: u8::try_from(least).ok()?,
        })
    }
}

enum Read {
    Response,
    Agent,
    Figure(Figure),
}

fn read(text: &str) -> Result<Read, ModelError> {
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(Read::Figure(read_object(text)?));
    }
    let found = words::find(SOURCES, text).ok_or_else(|| {
        let known: Vec<&str> = SOURCES.iter().map(|(_, word, _)| *word).collect();
        ModelError::UnknownWord {
            field: "load",
            value: text.to_string(),
            suggestion: words::nearest(text, known.iter().copied()),
            allowed: format!(
                "{}, or an object and what it is at full load, such as 1.3.6.1.4.1.2021.10.1.5.1/200",
                words::one_of(&known)
            ),
        }
    })?;
    Ok(match found {
        Plain::Response => Read::Response,
        Plain::Agent => Read::Agent,
        Plain::Cpu => Read::Figure(Figure::Cpu),
        Plain::Memory => Read::Figure(Figure::Memory),
        Plain::Network => Read::Figure(Figure::Network),
    })
}

/// An object identifier, a slash, and what it is at full load.
fn read_object(text: &str) -> Result<Figure, ModelError> {
    let wrong = |problem: &str| {
        let allowed = "write an object of an SNMP agent and what it is at full load, such as 1.3.6.1.4.1.2021.10.1.5.1/200";
        ModelError::invalid("load", text, problem, allowed)
    };
    let (oid, full) = text
        .split_once('/')
        .ok_or_else(|| wrong("does not say what the object is at full load"))?;
    let numbers: Result<Vec<u32>, _> = oid
        .trim_start_matches('.')
        .split('.')
        .map(str::parse)
        .collect();
    let oid = numbers.map_err(|_| wrong("is no object identifier"))?;
    // X.660: 0 and 1 have at most 40 children, and there is no root 3.
    let root = oid.len() >= 2 && oid[0] <= 2 && (oid[0] == 2 || oid[1] < 40);
    if !root || oid.len() > MAX_OID {
        return Err(wrong("is no object identifier"));
    }
    match full.parse() {
        Ok(full) if full > 0 => Ok(Figure::Value { oid, full }),
        _ => Err(wrong("says no full load that is a number from 1")),
    }
}

/// As it is written.
impl fmt::Display for LoadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = match self {
            LoadSource::Response => Plain::Response,
            LoadSource::Agent { .. } => Plain::Agent,
            LoadSource::Snmp { figure, .. } => match figure {
                Figure::Cpu => Plain::Cpu,
                Figure::Memory => Plain::Memory,
                Figure::Network => Plain::Network,
                Figure::Value { oid, full } => {
                    let numbers: Vec<String> = oid.iter().map(u32::to_string).collect();
                    return f.pad(&format!("{}/{full}", numbers.join(".")));
                }
            },
        };
        f.pad(words::name(SOURCES, plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(load: &str) -> Said<'_> {
        Said {
            load,
            interval: None,
            least: None,
            port: None,
            community: None,
        }
    }

    #[test]
    fn every_source_is_read_as_it_is_written() {
        for (text, port) in [
            ("response", None),
            ("cpu", None),
            ("memory", Some(1161)),
            ("network", None),
            ("1.3.6.1.4.1.2021.10.1.5.1/200", None),
            ("agent", Some(9999)),
        ] {
            let mut errors = Vec::new();
            let load = Said { port, ..said(text) }.check(&mut errors);
            assert_eq!(errors, [], "{text}");
            let load = load.expect(text);
            assert_eq!(load.source.to_string(), text);
            assert_eq!((load.interval, load.least), (Time::from_secs(5), 10));
        }
    }

    #[test]
    fn everything_that_is_wrong_is_said() {
        for (given, then) in [
            (said("cpus"), vec!["load", "cpu"]),
            (said("1.3.6.1"), vec!["full load"]),
            (said("1.3.6.1/0"), vec!["from 1"]),
            (said("3.1/5"), vec!["object identifier"]),
            (said("1.77/5"), vec!["object identifier"]),
            (said("agent"), vec!["load-port"]),
            (
                Said {
                    least: Some(0),
                    ..said("cpu")
                },
                vec!["load-least", "1 to 100"],
            ),
            (
                Said {
                    port: Some(70_000),
                    ..said("cpu")
                },
                vec!["load-port", "65535"],
            ),
            (
                Said {
                    port: Some(7),
                    ..said("response")
                },
                vec!["load-port", "leave it out"],
            ),
            (
                Said {
                    community: Some("x"),
                    port: Some(7),
                    ..said("agent")
                },
                vec!["community"],
            ),
            (
                Said {
                    interval: Some(Time::ZERO),
                    least: Some(101),
                    ..said("cpu")
                },
                vec!["load-interval", "load-least"],
            ),
        ] {
            let mut errors = Vec::new();
            assert_eq!(given.check(&mut errors), None, "{given:?}");
            let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let text = text.join("\n");
            for word in then {
                assert!(
                    text.contains(word),
                    "given {given:?}, then `{word}` in: {text}"
                );
            }
        }
    }
}
