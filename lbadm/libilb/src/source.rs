//! Where a server group gets servers from by itself: a name of the DNS that is followed, or a subnet that is searched.
//!
//! docs/pools.md says what a person has to know about it.

mod settings;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::address::{self, Family, Purpose};
use crate::error::ModelError;
use crate::healthcheck::Time;
use crate::port::PortRange;
use crate::vip::Prefix;

pub use self::settings::{SOURCE_FIELDS, SourceField, SourceSettings};
pub use self::state::{Candidate, Found, Refused, SourceDescription};

/// Most servers that a source may give a group.
pub const MAX_FOUND: u32 = 1024;
/// Most addresses of a subnet that is searched.
pub const MAX_SUBNET: u32 = 1024;
/// Most name servers of a source, and most networks that it leaves out.
pub const MAX_LISTED: usize = 16;

/// See the module. What is `None` has its default, which depends on the origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Source {
    /// What is followed or searched.
    #[serde(flatten)]
    pub origin: Origin,
    /// Ports of the servers; none means those of the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortRange>,
    /// The only family of addresses that is asked for; none means that of the group's rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// What becomes of a server that is found.
    #[serde(default)]
    pub approve: Approve,
    /// Most servers that it may give the group, 1 to [`MAX_FOUND`].
    #[serde(default = "usual_limit")]
    pub limit: u32,
    /// See [`Source::interval`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Time>,
    /// See [`Source::max_interval`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_interval: Option<Time>,
    /// See [`Source::hold`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Time>,
    /// Name servers that are asked instead of those of the system, at most [`MAX_LISTED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolver: Vec<SocketAddr>,
    /// Addresses of a subnet that are tested a second; see [`Source::rate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Addresses that are never taken, at most [`MAX_LISTED`] networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Prefix>,
}

fn usual_limit() -> u32 {
    Source::LIMIT
}

/// What is followed or searched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A name of the DNS: each of its addresses is a server. One that begins with `_` is asked for SRV records (RFC 2782).
    Dns(String),
    /// A network: each of its addresses that answers is a server. At most [`MAX_SUBNET`] addresses.
    Subnet(Prefix),
}

/// What becomes of a server that is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approve {
    /// It is taken into the group.
    #[default]
    Auto,
    /// It waits until an administrator approves it.
    Ask,
}

impl Approve {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Approve::Auto => "auto",
            Approve::Ask => "ask",
        }
    }
}

impl Source {
    /// The usual [`Source::limit`].
    pub const LIMIT: u32 = 64;

    /// A source with all defaults.
    pub fn new(origin: Origin) -> Source {
        Source {
            origin,
            port: None,
            family: None,
            approve: Approve::default(),
            limit: Source::LIMIT,
            interval: None,
            max_interval: None,
            hold: None,
            resolver: Vec::new(),
            rate: None,
            except: Vec::new(),
        }
    }

    /// Whether it is a name of the DNS.
    pub const fn is_dns(&self) -> bool {
        matches!(self.origin, Origin::Dns(_))
    }

    /// Shortest time between two questions to the DNS, 5 s by default; pause between two searches of a subnet, 60 s by
    /// default. 1 s to a day.
    pub fn interval(&self) -> Time {
        let usual = if self.is_dns() { 5 } else { 60 };
        self.interval.unwrap_or(Time::from_secs(usual))
    }

    /// Longest time between two questions to the DNS, whatever its records say: 300 s by default, or the shortest one if
    /// that is longer.
    pub fn max_interval(&self) -> Time {
        let usual = Time::from_secs(300).max(self.interval());
        self.max_interval.unwrap_or(usual)
    }

    /// How long a server stays that is not found any more: 30 s by default, an hour in a subnet. 0 to seven days.
    pub fn hold(&self) -> Time {
        let usual = if self.is_dns() { 30 } else { 3600 };
        self.hold.unwrap_or(Time::from_secs(usual))
    }

    /// Addresses of a subnet that are tested a second, 1 to 50; 4 by default.
    pub fn rate(&self) -> u32 {
        self.rate.unwrap_or(4)
    }

    /// Whether it may give the group this address.
    ///
    /// # Errors
    /// Why not, for a person, such as "is a loopback address".
    pub fn permits(&self, address: IpAddr, family: Option<Family>) -> Result<(), String> {
        if let Err(error) = address::check(Purpose::Server, address) {
            return Err(match error {
                ModelError::Invalid { problem, .. } => problem,
                other => other.to_string(),
            });
        }
        let wanted = self.family.or(family);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != Family::of(address)) {
            return Err(format!("is not an {wanted} address"));
        }
        match self.except.iter().find(|network| network.holds(address)) {
            Some(network) => Err(format!("is in {network}, which is excepted")),
            None => Ok(()),
        }
    }

    /// The addresses of a subnet that can be those of hosts: not its own address, and of IPv4 not the one for broadcasts.
    /// Nothing for a name.
    pub fn hosts(&self) -> Vec<IpAddr> {
        let Origin::Subnet(prefix) = self.origin else {
            return Vec::new();
        };
        let bits = Family::of(prefix.address).bits() - prefix.len.min(32 * 4);
        let count = 1u32.checked_shl(u32::from(bits)).unwrap_or(0);
        let count = count.min(MAX_SUBNET);
        let (first, last) = match (prefix.address, count) {
            // A network of one or two addresses has no others (RFC 3021, RFC 6164).
            (_, 0..=2) => (0, count),
            (IpAddr::V4(_), _) => (1, count - 1),
            (IpAddr::V6(_), _) => (1, count),
        };
        let host = |n: u32| match prefix.address {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() | n).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() | u128::from(n)).into()),
        };
        (first..last).map(host).collect()
    }

    /// Checks one that was stored.
    ///
    /// # Errors
    /// [`ModelError`] as for what an administrator says.
    pub fn check(&self) -> Result<(), ModelError> {
        let mut said = SourceSettings::default();
        for (field, text) in self.pairs() {
            said.set(field, &text)?;
        }
        said.apply(None).map(drop)
    }

    /// As behind `-d` of `lbadm`: what has its default is not said.
    pub fn words(&self) -> String {
        let said = self.pairs().into_iter();
        let said = said.map(|(field, text)| format!("{}={text}", field.name()));
        said.collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for Source {
    /// As people read it: `the name app.example.com`, `the subnet 192.0.2.0/28`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Dns(name) => write!(f, "the name {name}"),
            Origin::Subnet(prefix) => write!(f, "the subnet {prefix}"),
        }
    }
}
