//! What happens at a node: what is created, changed and removed, as the manager's D-Bus signals tell it.
//!
//! [`World`] remembers every object with its properties and turns news about them into [`Event`]s; [`Watcher`] feeds it from
//! the bus, through restarts of the manager. Objects and properties that this version does not know are reported like others.

mod watcher;
mod world;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

pub use watcher::Watcher;
pub use world::World;

use crate::words::{self, Word};

/// Properties of an object by their names, which are written like keys of settings: `proxy-src`.
pub type Properties = BTreeMap<String, Value>;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The manager with what it says about the node.
    Manager,
    /// A rule.
    Rule,
    /// A server group.
    ServerGroup,
    /// A server.
    Server,
    /// A health check.
    HealthCheck,
    /// A VRRP instance.
    Vrrp,
    /// Something else.
    Other,
}

const KINDS: &[Word<Kind>] = &[
    (Kind::Manager, "manager", &["node", "fastpath"]),
    (Kind::Rule, "rule", &["rules", "rl"]),
    (Kind::ServerGroup, "servergroup", &["servergroups", "sg"]),
    (Kind::Server, "server", &["servers", "srv"]),
    (Kind::HealthCheck, "healthcheck", &["healthchecks", "hc"]),
    (Kind::Vrrp, "vrrp", &["vrrp-instance"]),
    (Kind::Other, "other", &[]),
];

impl Kind {
    /// Reads a word.
    pub fn parse(word: &str) -> Option<Kind> {
        words::find(KINDS, word)
    }

    /// Every word without its aliases.
    pub fn all() -> impl Iterator<Item = &'static str> {
        KINDS.iter().map(|(_, name, _)| *name)
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        words::name(KINDS, self)
    }

    /// The kind that has a D-Bus interface.
    fn of(interface: &str) -> Option<Kind> {
        let word = interface.strip_prefix("org.ilb.Ilb1.")?;
        Some(match word {
            "Manager" => Kind::Manager,
            "Rule" => Kind::Rule,
            "ServerGroup" => Kind::ServerGroup,
            "Server" => Kind::Server,
            "HealthCheck" => Kind::HealthCheck,
            "VrrpInstance" => Kind::Vrrp,
            _ => Kind::Other,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A property that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What it was; null if it was not there.
    pub old: Value,
    /// What it is; null if it is gone.
    pub new: Value,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// It is new.
    Created {
        /// What it is.
        properties: Properties,
    },
    /// It is different.
    Changed {
        /// In what.
        changes: BTreeMap<String, Difference>,
    },
    /// It is gone.
    Removed,
    /// The manager does not run any more; what happens now is told when it is back.
    Stopped,
    /// The manager is back.
    Started,
}

/// Something that happened to an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Which kind of object.
    pub object: Kind,
    /// Its name or id; empty for the manager.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}
