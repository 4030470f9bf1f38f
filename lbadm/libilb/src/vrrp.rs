//! VRRP instances: addresses that several nodes share, of which the active one has them (RFC 9568, RFC 3768).
//!
//! An address that an instance names is the instance's: no rule puts it up, whatever its `manage-addresses` says.

mod dbus;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod track;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use dbus::{VRRP_SETTINGS, settings_from_dbus, settings_to_dbus};
pub(crate) use settings::YES_OR_NO;
pub use settings::{FIELDS, Field, VrrpSettings};
pub use status::{VrrpCounters, VrrpState, VrrpStatus};
pub use track::{Probe, Track};

pub use crate::healthcheck::Time;

/// Most addresses of one instance; a packet can say 255, and those of 64 fit into any Ethernet frame.
pub const MAX_ADDRESSES: usize = 64;
/// Most peers of one instance.
pub const MAX_PEERS: usize = 16;
/// Most things that one instance tracks.
pub const MAX_TRACKED: usize = 32;
/// The priority of the node that owns the addresses.
pub const OWNER: u8 = 255;
/// The longest interval that version 3 can say, in hundredths of a second.
pub const MAX_INTERVAL_V3: u16 = 4095;
/// The longest interval of version 2, in hundredths of a second.
pub const MAX_INTERVAL_V2: u16 = 25_500;

/// Version of the protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Version {
    /// RFC 3768: IPv4, whole seconds, without authentication.
    #[serde(rename = "2")]
    V2,
    /// RFC 9568.
    #[default]
    #[serde(rename = "3")]
    V3,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Version::V2 => "2",
            Version::V3 => "3",
        })
    }
}

/// How the checksum of version 3 over IPv4 is made that we send. Both forms are understood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checksum {
    /// With a pseudo-header, as keepalived sends it by default.
    #[default]
    PseudoHeader,
    /// Over the message alone, as RFC 9568 section 5.2.8 has it.
    Message,
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Checksum::PseudoHeader => "pseudo-header",
            Checksum::Message => "message",
        })
    }
}

/// Which MAC address the addresses have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mac {
    /// That of the interface: after a takeover everybody is told of another one.
    #[default]
    Interface,
    /// That of the virtual router (RFC 9568 section 7.3), whoever is active.
    Virtual,
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mac::Interface => "interface",
            Mac::Virtual => "virtual",
        })
    }
}

/// One virtual router on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VrrpInstance {
    /// Its name.
    pub name: String,
    /// Whether it takes part.
    pub enabled: bool,
    /// The interface that it speaks on and that has the addresses.
    pub interface: String,
    /// Virtual router, 1 to 255.
    pub vrid: u8,
    /// The addresses, all of one family, in the order in which they are advertised.
    pub addresses: Vec<IpAddr>,
    /// What is spoken.
    pub version: Version,
    /// 1 to 254, or 255 for the owner of the addresses.
    pub priority: u8,
    /// Time between advertisements, in hundredths of a second.
    pub interval: u16,
    /// Whether it takes over from an active node with a lower priority.
    pub preempt: bool,
    /// How long it waits before it does so.
    pub preempt_delay: Time,
    /// The other nodes, if advertisements go to them and not to the multicast group.
    pub peers: Vec<IpAddr>,
    /// Where advertisements come from; the interface's first address (IPv6: its link-local one) if not given.
    pub source: Option<IpAddr>,
    /// Form of the checksum.
    pub checksum: Checksum,
    /// Which MAC address the addresses have.
    #[serde(default)]
    pub mac: Mac,
    /// Whether the active node takes packets for itself at the addresses (`Accept_Mode` of RFC 9568 section 6.1). Their owner
    /// does so in any case.
    #[serde(default = "yes")]
    pub accept: bool,
    /// What it depends on.
    pub track: Vec<Track>,
    /// Instances with the same group are active together or not at all.
    pub sync_group: Option<String>,
    /// Program that is told of changes: it gets `INSTANCE`, the name, the state and the priority.
    pub notify: Option<String>,
    /// How many times the addresses are announced after a takeover, the first three within a tenth of a second.
    pub announcements: u8,
    /// Time between the later ones.
    #[serde(default = "announce_delay")]
    pub announce_delay: Time,
    /// Time between announcements while it is active; 0 for none.
    pub announce_interval: Time,
}

/// A second, as it was before it could be said.
fn announce_delay() -> Time {
    Time::from_millis(1000)
}

/// What `accept` is if nothing is said, or could be.
fn yes() -> bool {
    true
}

impl VrrpInstance {
    /// Whether the active node takes nothing for itself at its addresses.
    pub fn is_closed(&self) -> bool {
        !self.accept && self.priority != OWNER
    }

    /// Whether its addresses are IPv6.
    pub fn is_v6(&self) -> bool {
        self.addresses.first().is_some_and(IpAddr::is_ipv6)
    }

    /// Whether another instance cannot be told from it on the wire.
    pub fn is_like(&self, other: &VrrpInstance) -> bool {
        self.interface == other.interface
            && self.vrid == other.vrid
            && self.is_v6() == other.is_v6()
    }
}
