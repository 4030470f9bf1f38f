//! The JSON that `Manager.Describe()` returns: configuration and state at one moment.
//!
//! Unknown fields are ignored and new ones have defaults, so that programs of different versions understand each other.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::apply::Waiting;
use crate::health::HealthState;
use crate::healthcheck::HealthCheck;
use crate::model::{Configuration, Rule, Server, key};
use crate::pair::PairDescription;
use crate::rule::PanicMode;
use crate::servergroup::ServerGroup;
use crate::source::SourceDescription;
use crate::vrrp::{VrrpCounters, VrrpInstance, VrrpStatus};

/// Everything that there is to know about a node, but for its counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Version of the manager.
    pub version: String,
    /// Generation of the configuration.
    pub generation: u64,
    /// Whether changes can be stored.
    pub state: State,
    /// Why the state is degraded, for a person; empty when it is not.
    #[serde(default)]
    pub state_reason: String,
    /// Whether the fast path forwards by this configuration.
    pub fastpath: Fastpath,
    /// Generation that the fast path acknowledged last; 0 when there was none.
    #[serde(default)]
    pub fastpath_generation: u64,
    /// What was found other than it should be, and what was put right in the last ten minutes.
    #[serde(default)]
    pub drift: Vec<Drift>,
    /// The change that waits for its confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Where the configuration is stored.
    #[serde(default)]
    pub database_path: String,
    /// Rules by name, and deleted ones that still have connections.
    pub rules: Vec<RuleDescription>,
    /// Server groups by name.
    pub groups: Vec<GroupDescription>,
    /// Health checks by name.
    #[serde(default)]
    pub checks: Vec<CheckDescription>,
    /// VRRP instances by name.
    #[serde(default)]
    pub vrrp: Vec<VrrpDescription>,
    /// The pair, if there is one or the other node has left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Box<PairDescription>>,
    /// Every reason for which the fast path drops packets.
    #[serde(default)]
    pub drop_reasons: Vec<DropReason>,
}

impl Description {
    /// The rule of this name, in any case, unless it is deleted.
    pub fn rule(&self, name: &str) -> Option<&RuleDescription> {
        self.rules
            .iter()
            .find(|r| !r.deleted && r.rule.name.eq_ignore_ascii_case(name))
    }

    /// The server group of this name, in any case.
    pub fn group(&self, name: &str) -> Option<&GroupDescription> {
        self.groups
            .iter()
            .find(|g| g.name.eq_ignore_ascii_case(name))
    }

    /// The health check of this name, in any case.
    pub fn check(&self, name: &str) -> Option<&CheckDescription> {
        self.checks
            .iter()
            .find(|c| c.check.name.eq_ignore_ascii_case(name))
    }

    /// The VRRP instance of this name, in any case.
    pub fn instance(&self, name: &str) -> Option<&VrrpDescription> {
        self.vrrp
            .iter()
            .find(|v| v.instance.name.eq_ignore_ascii_case(name))
    }

    /// What is configured, without what is deleted and only drains.
    pub fn configuration(&self) -> Configuration {
        let mut all = Configuration::default();
        for group in &self.groups {
            let present = group.servers.iter().filter(|s| !s.removed);
            let servers: Vec<Server> = present.map(|s| s.server.clone()).collect();
            let index = |id: &str| id.rsplit_once('.').and_then(|(_, n)| n.parse::<u32>().ok());
            let last = group.servers.iter().filter_map(|s| index(&s.server.id));
            let number = servers.iter().map(|s| s.number.saturating_add(1));
            all.next_server = number.fold(all.next_server, u32::max);
            let mut made = ServerGroup {
                name: group.name.clone(),
                servers,
                next_index: last.max().map_or(0, |n| n.saturating_add(1)),
                places: group.places,
                source: group
                    .source
                    .as_ref()
                    .map(|described| Box::new(described.source.clone())),
            };
            made.settle();
            all.groups.insert(key(&group.name), Arc::new(made));
        }
        for check in &self.checks {
            let check = Arc::new(check.check.clone());
            all.checks.insert(key(&check.name), check);
        }
        for described in &self.vrrp {
            let instance = Arc::new(described.instance.clone());
            all.vrrp.insert(key(&instance.name), instance);
        }
        for described in self.rules.iter().filter(|r| !r.deleted) {
            let rule = Arc::new(described.rule.clone());
            all.next_rule = all.next_rule.max(rule.number.saturating_add(1));
            all.rules.insert(key(&rule.name), rule);
        }
        all
    }

    /// As `Describe()` returns it.
    ///
    /// # Errors
    /// None in practice: every field is representable.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Reads what `Describe()` returned.
    ///
    /// # Errors
    /// Text that is not such a description.
    pub fn from_json(text: &str) -> Result<Description, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// Whether the manager can store changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All is well.
    #[default]
    Ok,
    /// Nothing can be changed; forwarding goes on.
    Degraded,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Ok => "ok",
            State::Degraded => "degraded",
        })
    }
}

/// The fast path as the manager sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fastpath {
    /// It forwards by the current generation.
    Connected,
    /// It does not answer.
    #[default]
    Absent,
    /// It answers but has not taken the current generation.
    Behind,
}

impl fmt::Display for Fastpath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Fastpath::Connected => "connected",
            Fastpath::Absent => "absent",
            Fastpath::Behind => "behind",
        })
    }
}

/// Something that was found other than it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drift {
    /// What kind of thing: `generation` or `rules` of the fast path, `program` or `interface` (the XDP program on it, its
    /// sockets), `pin`, `address`. There may be more.
    pub what: String,
    /// Which one, such as the name of an interface.
    pub item: String,
    /// How it should be, for a person.
    pub wanted: String,
    /// How it was found, for a person.
    pub actual: String,
    /// When it was found, in milliseconds since 1970, UTC.
    pub since: u64,
    /// When it was put right, likewise; 0 if it is not yet.
    pub repaired: u64,
    /// What is being done about it, for a person; empty when it was put right.
    pub doing: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Drift {
            what,
            item,
            wanted,
            actual,
            ..
        } = self;
        write!(f, "{what} {item}: {actual} instead of {wanted}")?;
        match (self.repaired, self.doing.is_empty()) {
            (0, true) => Ok(()),
            (0, false) => write!(f, "; {}", self.doing),
            _ => f.write_str("; put right"),
        }
    }
}

/// Whether a rule or server takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It takes new ones.
    Enabled,
    /// It takes none and has none.
    Disabled,
    /// It takes no new ones and still serves those that it has.
    Draining,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Enabled => "enabled",
            Status::Disabled => "disabled",
            Status::Draining => "draining",
        })
    }
}

/// A rule with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleDescription {
    /// The rule as configured.
    #[serde(flatten)]
    pub rule: Rule,
    /// See [`Status`].
    pub status: Status,
    /// Whether it is deleted and only drains.
    #[serde(default)]
    pub deleted: bool,
    /// Connections that live now.
    #[serde(default)]
    pub connections: u64,
    /// Whether its servers have its quorum, by what was found of them; none while it is not enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_quorum: Option<bool>,
    /// Who serves, where that is a question: `tier 0`, `tiers 0 to 1` or `its sorry servers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
    /// What holds because most of its servers look dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<PanicDescription>,
    /// What keeps it from doing its work, for a person, such as "the vip 192.0.2.1 is on no interface".
    #[serde(default)]
    pub problems: Vec<String>,
}

/// A panic mode that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PanicDescription {
    /// Which one.
    pub mode: PanicMode,
    /// Servers that look alive.
    pub alive: u32,
    /// Of so many that ever did, without sorry servers.
    pub servers: u32,
    /// Below which percentage it holds.
    pub threshold: u8,
}

/// Such as `1 of 4 servers look alive, fewer than 50 %: panic mode keep-last holds`.
impl fmt::Display for PanicDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} servers look alive, fewer than {} %: panic mode {} holds",
            self.alive, self.servers, self.threshold, self.mode
        )
    }
}

/// A server group with the state of its servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDescription {
    /// Its name.
    pub name: String,
    /// The servers in the order in which they were added, then removed ones that still have connections.
    pub servers: Vec<ServerDescription>,
    /// Places that the group has, see [`ServerGroup::places`].
    #[serde(default)]
    pub places: u32,
    /// Where its servers are found, if it has them found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Box<SourceDescription>>,
}

/// A health check with what uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDescription {
    /// The check as configured.
    #[serde(flatten)]
    pub check: HealthCheck,
    /// Names of the rules that use it.
    #[serde(default)]
    pub rules: Vec<String>,
}

/// A VRRP instance with where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrrpDescription {
    /// The instance as configured.
    #[serde(flatten)]
    pub instance: VrrpInstance,
    /// Where it stands on this node.
    #[serde(default)]
    pub status: VrrpStatus,
    /// What was counted since the manager was started.
    #[serde(default)]
    pub counters: VrrpCounters,
    /// Names of the rules that have one of its addresses.
    #[serde(default)]
    pub rules: Vec<String>,
}

/// A server with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerDescription {
    /// The server as configured.
    #[serde(flatten)]
    pub server: Server,
    /// See [`Status`].
    pub status: Status,
    /// Whether it is removed and only drains.
    #[serde(default)]
    pub removed: bool,
    /// Connections that live now, over all rules.
    #[serde(default)]
    pub connections: u64,
    /// The rules in which it stands by, because lower tiers serve, or sorry servers do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standby: Vec<String>,
    /// What the health check of each rule that has one says, by the rules' names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<HealthSummary>,
}

impl ServerDescription {
    /// Whether it stands by in a rule.
    pub fn stands_by_in(&self, rule: &str) -> bool {
        self.standby
            .iter()
            .any(|name| name.eq_ignore_ascii_case(rule))
    }

    /// What the health check of a rule says, if the rule has one.
    pub fn health_in(&self, rule: &str) -> Option<&HealthSummary> {
        let mut all = self.health.iter();
        all.find(|health| health.rule.eq_ignore_ascii_case(rule))
    }
}

/// What the health check of a rule says of a server. `ListHealthResults` has more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSummary {
    /// Name of the rule.
    pub rule: String,
    /// Name of the health check.
    pub check: String,
    /// See [`HealthState`].
    pub state: HealthState,
    /// Whether the server takes new connections as far as its health is concerned.
    pub up: bool,
    /// Why, for a person; empty if nothing was found yet.
    #[serde(default)]
    pub why: String,
    /// Since when, in milliseconds since 1970, UTC; 0 if unknown.
    #[serde(default)]
    pub since: u64,
    /// The panic mode by which it is used although it looks dead, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overruled: Option<PanicMode>,
}

impl HealthSummary {
    /// Whether the server gets nothing because of this.
    pub fn keeps_out(&self) -> bool {
        !self.up && self.overruled.is_none()
    }
}

/// A reason for a drop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropReason {
    /// Its name in counters.
    pub label: String,
    /// What a person reads.
    pub words: String,
}
