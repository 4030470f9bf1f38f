//! The JSON that `Manager.DescribePair()` and `Manager.CreatePair()` return: two nodes that stand in for each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// TCP port of the pair if nothing else is said: one of the dynamic ones (RFC 6335).
pub const PAIR_PORT: u16 = 49_281;

/// What the other node needs to join. It is a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Invitation {
    /// Whoever has it may join, once.
    pub token: String,
    /// Where to join: the address that was given, or the name of this node.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Until when, in seconds since 1970.
    pub until: u64,
}

/// How it stands with the pair, as one node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct PairDescription {
    /// Whether there is a peer.
    pub paired: bool,
    /// Until when somebody may join, in seconds since 1970; 0 if nobody may.
    pub open_until: u64,
    /// Address and port of the other node; of the first node, from where the other one came last. Empty if unknown.
    pub address: String,
    /// The connection between both managers.
    pub link: LinkDescription,
    /// How the configurations stand to each other.
    pub configuration: StepDescription,
    /// What both fast paths tell each other of connections; nothing if they do not.
    pub connections: Option<ExchangeDescription>,
    /// Why not, if this node's fast path was to and did not take it; usually empty.
    pub connections_why: String,
    /// This node.
    pub here: NodeDescription,
    /// The other one, as it said last; nothing if it never did.
    pub there: Option<NodeDescription>,
    /// What happened that a person should know, oldest first; until `AcknowledgePair`.
    pub notices: Vec<Notice>,
    /// The other node has ended the pair, and so it has ended here; until `LeavePair` or another pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<LeftDescription>,
    /// What has become of changes on their way, since the manager was started or the pair began.
    pub following: FollowingDescription,
    /// Connections to the port of the pair that were refused, by reason, since the manager was started.
    pub refused: BTreeMap<String, u64>,
}

/// A node of the pair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct NodeDescription {
    /// Its number: 0 created the pair, 1 joined it.
    pub node: u8,
    /// Its host name.
    pub name: String,
    /// Version of its manager.
    pub software: String,
    /// Whether it has addresses by VRRP, so that clients are served by it.
    pub active: bool,
    /// Names of the VRRP instances whose addresses it has.
    pub instances: Vec<String>,
    /// Whether it takes no addresses because somebody works at it.
    pub maintenance: bool,
    /// Whether its fast path is there and has something to forward by.
    pub fastpath: bool,
    /// Generation of its configuration.
    pub generation: u64,
}

impl NodeDescription {
    /// What it does, in a word: `active`, `standby` or `maintenance`.
    pub const fn role(&self) -> &'static str {
        match (self.maintenance, self.active) {
            (true, _) => "maintenance",
            (false, true) => "active",
            (false, false) => "standby",
        }
    }
}

/// The connection between both managers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct LinkDescription {
    /// Whether both hear each other.
    pub up: bool,
    /// Since when, in milliseconds since 1970; 0 if it never was otherwise.
    pub since: u64,
    /// Why not, or why not the last time.
    pub why: String,
    /// How often it was lost since the manager was started.
    pub lost: u64,
}

/// The other node of a pair that is no more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct LeftDescription {
    /// When it has left, in seconds since 1970.
    pub time: u64,
    /// Its host name.
    pub name: String,
    /// Its address.
    pub address: String,
}

/// What has become of changes on their way between both nodes. Numbers only grow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct FollowingDescription {
    /// Changes of this node that the other one was asked to take, by what became of it: `taken`, `unanswered`, `cut` (the link was
    /// lost), `overtaken` (by a change of the other node), or the reason of a refusal as in `refused`.
    pub offers: BTreeMap<String, u64>,
    /// What this node did not take, by reason: `busy`, `stale`, `waiting`, `forged`, `cannot`.
    pub refused: BTreeMap<String, u64>,
    /// Changes of the other node that were made here, one by one.
    pub taken: u64,
    /// Whole configurations of the other node that were made this node's.
    pub wholes_taken: u64,
    /// Whole configurations that were sent to it.
    pub wholes_given: u64,
    /// Octets of the last one that was sent.
    pub whole_octets: u64,
    /// Conflicting histories of which this node's went on.
    pub forks_won: u64,
    /// Conflicting histories of which the other node's went on.
    pub forks_lost: u64,
}

/// How the configurations of both nodes stand to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Nobody knows: they have not spoken with each other.
    #[default]
    Unknown,
    /// Both have the same.
    InStep,
    /// The other node has changes that this one does not have yet.
    Behind,
    /// This node has changes that the other one does not have yet.
    Ahead,
    /// Each has changes that the other one does not have.
    Forked,
}

impl Step {
    /// Every one.
    pub const ALL: [Step; 5] = [
        Step::Unknown,
        Step::InStep,
        Step::Behind,
        Step::Ahead,
        Step::Forked,
    ];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Step::Unknown => "unknown",
            Step::InStep => "in-step",
            Step::Behind => "behind",
            Step::Ahead => "ahead",
            Step::Forked => "forked",
        }
    }
}

/// See [`Step`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct StepDescription {
    /// In a word.
    pub step: Step,
    /// How many changes are missing on the node that is behind.
    pub changes: u64,
    /// For a person: what is done about it; usually empty.
    pub words: String,
}

/// What both fast paths tell each other of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ExchangeDescription {
    /// Whether the other fast path answers.
    pub up: bool,
    /// Whether it has told everything since it, or ours, started.
    pub complete: bool,
    /// For how many milliseconds something has been waiting to be told.
    pub lag: u64,
    /// Entries that wait to be told.
    pub pending: u64,
    /// Datagrams, octets and records, by name.
    pub counters: BTreeMap<String, u64>,
    /// What became of the other node's records, by outcome.
    pub records: BTreeMap<String, u64>,
    /// Datagrams that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// What happened to the pair that a person should know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notice {
    /// When, in seconds since 1970.
    pub time: u64,
    /// What.
    pub words: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_says_is_understood() {
        let json = r#"{"paired":true,"tomorrow":1,"here":{"active":true,"colour":"red"},"configuration":{"step":"in-step"}}"#;
        let pair: PairDescription = serde_json::from_str(json).unwrap();
        assert!(pair.paired && pair.here.active && pair.there.is_none());
        assert_eq!(pair.configuration.step, Step::InStep);
        for step in Step::ALL {
            let json = serde_json::to_string(&step).unwrap();
            assert_eq!(json, format!("{:?}", step.word()));
        }
    }

    #[test]
    fn a_node_in_maintenance_is_not_active() {
        for (active, maintenance, role) in [
            (false, false, "standby"),
            (true, false, "active"),
            (false, true, "maintenance"),
            (true, true, "maintenance"),
        ] {
            let node = NodeDescription {
                active,
                maintenance,
                ..NodeDescription::default()
            };
            assert_eq!(node.role(), role);
        }
    }
}
