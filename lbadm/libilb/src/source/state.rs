//! What a source has found, and how it is doing.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Source;
use crate::port::PortRange;
use crate::server::{ServerSettings, ServerSpec, Target};

/// A server that a source has found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Found {
    /// Where it is.
    pub address: IpAddr,
    /// Its ports; none means those of the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// Its share, if the DNS says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// The name that it was found under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
}

impl Found {
    /// As it is added to a group.
    pub fn spec(&self) -> ServerSpec {
        ServerSpec {
            target: Target::Address(self.address),
            host_name: self.host_name.clone(),
            ports: self.ports,
            limits: ServerSettings {
                weight: self.weight,
                ..ServerSettings::default()
            },
            id: None,
            place: None,
            found: true,
        }
    }
}

impl fmt::Display for Found {
    /// Address and ports, as they are written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = ServerSpec {
            host_name: None,
            limits: ServerSettings::default(),
            found: false,
            ..self.spec()
        };
        bare.fmt(f)
    }
}

/// A server that was found and waits to be approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Where it is.
    #[serde(flatten)]
    pub found: Found,
    /// Since when it has been found, in milliseconds since 1970, UTC.
    pub since: u64,
}

/// An address that was found and is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which.
    pub address: IpAddr,
    /// Why not, beginning with a verb, such as "is a loopback address".
    pub why: String,
}

/// A source with its state, as `Describe()` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SourceDescription {
    /// As it is configured.
    #[serde(flatten)]
    pub source: Source,
    /// How often something was learned, and how often nothing could be, since the manager was started.
    #[serde(default)]
    pub answers: u64,
    /// See above.
    #[serde(default)]
    pub failures: u64,
    /// When it was learned last, in milliseconds since 1970, UTC; 0 for not yet.
    #[serde(default)]
    pub last_answer: u64,
    /// When that changed the group last, likewise.
    #[serde(default)]
    pub last_change: u64,
    /// What is wrong now, for a person; empty when nothing is.
    #[serde(default)]
    pub problem: String,
    /// Servers that wait to be approved.
    #[serde(default)]
    pub candidates: Vec<Candidate>,
    /// Some of the addresses that were found last and are not taken.
    #[serde(default)]
    pub refused: Vec<Refused>,
}
