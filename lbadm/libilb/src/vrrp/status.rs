//! Where an instance stands on this node.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VrrpState {
    /// It takes no part: `enabled = no`, or it has just been made.
    #[default]
    Disabled,
    /// It cannot take part: its interface or something that it tracks without a weight is not well.
    Fault,
    /// Another node is active, or may be.
    Backup,
    /// This node has the addresses.
    Active,
}

impl VrrpState {
    /// Every state.
    pub const ALL: [VrrpState; 4] = [
        VrrpState::Disabled,
        VrrpState::Fault,
        VrrpState::Backup,
        VrrpState::Active,
    ];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            VrrpState::Disabled => "disabled",
            VrrpState::Fault => "fault",
            VrrpState::Backup => "backup",
            VrrpState::Active => "active",
        }
    }
}

impl fmt::Display for VrrpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What is known of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct VrrpStatus {
    /// Where it stands.
    pub state: VrrpState,
    /// Why, for a person.
    pub why: String,
    /// Since when, in milliseconds since 1970; 0 if unknown.
    pub since: u64,
    /// The priority by which it takes part now, with the weights of what it tracks; 0 when it does not.
    pub priority: u8,
    /// Address of the node that was heard last to be active, other than this one; empty if there is none.
    pub active_node: String,
}

/// What was counted since the manager was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct VrrpCounters {
    /// Changes of state.
    pub transitions: u64,
    /// Times that it became active.
    pub became_active: u64,
    /// Advertisements sent.
    pub sent: u64,
    /// Advertisements that could not be sent.
    pub send_errors: u64,
    /// Advertisements received and believed.
    pub received: u64,
    /// Packets that were not believed, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Advertisements that were believed and have other addresses than ours.
    pub other_addresses: u64,
    /// Announcements of addresses: gratuitous ARP, unsolicited neighbour advertisements.
    pub announcements: u64,
}
