//! A server, and the syntax in which one or several are written.

use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::{self, Purpose};
use crate::error::ModelError;
use crate::model::MAX_SERVERS;
use crate::port::PortRange;
use crate::rule::{Protocol, is_zero};
use crate::words::{self, Word};

/// One server of a server group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Durable number among the servers of all groups, never 0, never given to another. Connections remember their
    /// server by it.
    pub number: u32,
    /// `_<group>.<n>`, as the administrator names it.
    pub id: String,
    /// Where it is.
    pub address: IpAddr,
    /// The host name that it was given by, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// Its ports; none means those of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// Share of new connections, 0 to 65535; 0 takes no new ones.
    #[serde(default = "one")]
    pub weight: u16,
    /// Connections at which it takes no new ones; 0 is no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_connections: u32,
    /// Connections below which it takes new ones again after it was full; 0 is three quarters of `max_connections`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_connections: u32,
    /// Which servers it stands in for: those of higher tiers serve while those of lower ones are too few. 0 to 254, or
    /// [`SORRY`].
    #[serde(default, skip_serializing_if = "is_first")]
    pub tier: u8,
    /// Whether it takes new connections.
    pub enabled: bool,
    /// Its place in the group, which hashing algorithms know it by. A server that is added later takes the lowest one that
    /// is vacant, and with it what its predecessor had. [`UNPLACED`] until the group has given it one.
    #[serde(default = "unplaced")]
    pub place: u32,
    /// Whether the source of its group has found it, which also takes it out again. See [`crate::source`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
}

/// The place of a server in its group, as an export says it: `3/10` is place 3 of ten, which are 0 to 9. See
/// [`Server::place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPlace {
    /// Which one.
    pub place: u32,
    /// How many the group has, taken or vacant: more than [`GroupPlace::place`], at most
    /// [`crate::model::MAX_SERVERS`].
    pub places: u32,
}

impl FromStr for GroupPlace {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<GroupPlace, ModelError> {
        let numbers = text
            .split_once('/')
            .and_then(|(place, places)| Some((place.parse().ok()?, places.parse().ok()?)));
        match numbers {
            Some((place, places)) if place < places && places as usize <= MAX_SERVERS => {
                Ok(GroupPlace { place, places })
            }
            _ => Err(ModelError::invalid(
                PLACE_KEY,
                text,
                "is not a place in a group",
                format!(
                    "write PLACE/PLACES, such as 0/3 for the first of three, at most {MAX_SERVERS}; or leave it out"
                ),
            )),
        }
    }
}

impl fmt::Display for GroupPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.place, self.places)
    }
}

/// The tier of sorry servers: they serve, alone, when those of all other tiers are too few.
pub const SORRY: u8 = u8::MAX;

fn is_first(tier: &u8) -> bool {
    *tier == 0
}

/// A tier as people write it.
pub fn tier_text(tier: u8) -> String {
    match tier {
        SORRY => "sorry".to_string(),
        tier => tier.to_string(),
    }
}

/// No place yet: see [`Server::place`].
pub const UNPLACED: u32 = u32::MAX;

fn unplaced() -> u32 {
    UNPLACED
}

fn one() -> u16 {
    1
}

impl Server {
    /// The server as it can be written on the command line again.
    pub fn spec(&self) -> String {
        ServerSpec {
            target: Target::Address(self.address),
            host_name: self.host_name.clone(),
            ports: self.ports,
            limits: ServerSettings::default(),
            id: None,
            place: None,
            found: false,
        }
        .to_string()
    }
}

/// What is said about the share and the limits of a server, to add it or to change it. What is not given stays as it is,
/// or has its default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerSettings {
    /// Share of new connections, 0 to 65535; 1 by default.
    pub weight: Option<u16>,
    /// Connections at which it takes no new ones; 0 (the default) is no limit.
    pub max_connections: Option<u32>,
    /// Connections below which it takes new ones again; 0 (the default) is three quarters of the maximum.
    pub min_connections: Option<u32>,
    /// See [`Server::tier`]; 0 by default.
    pub tier: Option<u8>,
}

/// What can be said about a server, as keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKey {
    /// See [`ServerSettings::weight`].
    Weight,
    /// See [`ServerSettings::max_connections`].
    MaxConnections,
    /// See [`ServerSettings::min_connections`].
    MinConnections,
    /// See [`ServerSettings::tier`].
    Tier,
}

/// The words for them; the aliases are ipvsadm's.
pub const SERVER_KEYS: &[Word<ServerKey>] = &[
    (ServerKey::Weight, "weight", &[]),
    (
        ServerKey::MaxConnections,
        "max-conn",
        &["max-connections", "u-threshold"],
    ),
    (
        ServerKey::MinConnections,
        "min-conn",
        &["min-connections", "l-threshold"],
    ),
    (ServerKey::Tier, "tier", &["priority"]),
];

impl ServerSettings {
    /// Sets what a key stands for.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] for something that is no number or out of range.
    pub fn set(&mut self, key: ServerKey, value: &str) -> Result<(), ModelError> {
        let field = words::name(SERVER_KEYS, key);
        let refuse = |allowed: &str| ModelError::invalid(field, value, "is out of range", allowed);
        let connections = || {
            let number = value.parse::<u32>().map(Some);
            number.map_err(|_| refuse("use a number of connections; 0 is no limit"))
        };
        match key {
            ServerKey::Weight => {
                let weight = value.parse::<u16>();
                self.weight =
                    Some(weight.map_err(|_| refuse("use 0 to 65535; 0 takes no new connections"))?);
            }
            ServerKey::MaxConnections => self.max_connections = connections()?,
            ServerKey::MinConnections => self.min_connections = connections()?,
            ServerKey::Tier if value.eq_ignore_ascii_case("sorry") => self.tier = Some(SORRY),
            ServerKey::Tier => {
                let tier = value.parse::<u8>();
                self.tier = Some(tier.map_err(|_| refuse(TIERS))?);
            }
        }
        Ok(())
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == ServerSettings::default()
    }

    /// Does what is said to a server.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] for limits that contradict each other; the server is as it was.
    pub fn apply(&self, server: &mut Server) -> Result<(), ModelError> {
        let most = self.max_connections.unwrap_or(server.max_connections);
        let least = self.min_connections.unwrap_or(server.min_connections);
        check_limits(most, least)?;
        server.weight = self.weight.unwrap_or(server.weight);
        server.tier = self.tier.unwrap_or(server.tier);
        (server.max_connections, server.min_connections) = (most, least);
        Ok(())
    }
}

/// What a tier has to be.
pub(crate) const TIERS: &str =
    "use 0 (serves first) to 254, or sorry for when all others are too few";

/// Checks that a server that is full can become free again.
///
/// # Errors
/// [`ModelError::Invalid`].
pub(crate) fn check_limits(most: u32, least: u32) -> Result<(), ModelError> {
    if least == 0 || least <= most {
        return Ok(());
    }
    Err(ModelError::invalid(
        "min-conn",
        least.to_string(),
        match most {
            0 => "is given without max-conn".to_string(),
            most => format!("is more than max-conn {most}"),
        },
        "use a number up to max-conn, or leave it out for three quarters of it",
    ))
}

/// Where a server specification points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(IpAddr),
    /// A host name that has to be resolved.
    Host(String),
}

/// One server as written: `host|ip|ip-ip[:port|p-p][,weight=n][,max-conn=n][,min-conn=n][,id=_group.n][,place=n/n]
/// [,found=yes]`, IPv6 addresses in brackets. `host=ip` gives a name and the address that it stands for, which is how `lbadm` hands a resolved name to the
/// manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// Where it is.
    pub target: Target,
    /// The name given to an address.
    pub host_name: Option<String>,
    /// Ports, if any were written.
    pub ports: Option<PortRange>,
    /// Share and limits, if any were written.
    pub limits: ServerSettings,
    /// The id that it shall have, such as one that was exported; the next of its group if none was written.
    pub id: Option<String>,
    /// The place that it shall have, such as one that was exported; the lowest vacant one if none was written.
    pub place: Option<GroupPlace>,
    /// Whether it is one that the group's source has found, such as one that was exported.
    pub found: bool,
}

/// The key of [`ServerSpec::id`].
pub const ID_KEY: &str = "id";
/// The key of [`ServerSpec::place`].
pub const PLACE_KEY: &str = "place";
/// The key of [`ServerSpec::found`].
pub const FOUND_KEY: &str = "found";

const SYNTAX: &str = "write host[:port], address[:port] or first-last[:port], with IPv6 addresses in brackets: [2001:db8::1]:80";

impl ServerSpec {
    /// Reads one specification. A range of addresses gives several servers. Service names are looked up for TCP, then
    /// for UDP.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] that names the part that is wrong.
    pub fn parse(whole: &str) -> Result<Vec<ServerSpec>, ModelError> {
        let mut items = whole.split(',');
        let text = items.next().unwrap_or_default();
        let mut limits = ServerSettings::default();
        let mut id = None;
        let mut group_place = None;
        let mut found = false;
        for item in items {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            if key.eq_ignore_ascii_case(ID_KEY) {
                id = Some(value.to_string());
                continue;
            }
            if key.eq_ignore_ascii_case(PLACE_KEY) {
                group_place = Some(value.parse()?);
                continue;
            }
            if key.eq_ignore_ascii_case(FOUND_KEY) {
                found = match value.to_ascii_lowercase().as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => {
                        let problem = "is neither yes nor no";
                        let allowed =
                            "use found=yes for a server that the group's source has found";
                        return Err(ModelError::invalid(FOUND_KEY, value, problem, allowed));
                    }
                };
                continue;
            }
            let key = words::parse(SERVER_KEYS, "server key", key)?;
            limits.set(key, value)?;
        }
        check_limits(
            limits.max_connections.unwrap_or(0),
            limits.min_connections.unwrap_or(0),
        )?;
        let (host_name, rest) = match text.split_once('=') {
            Some((name, rest)) => {
                check_host_name(name, text)?;
                (Some(name.to_string()), rest)
            }
            None => (None, text),
        };
        let (place, port) = split_port(text, rest)?;
        let ports = match port {
            None => None,
            Some(port) => Some(parse_port(port)?),
        };
        let spec = |target| ServerSpec {
            target,
            host_name: host_name.clone(),
            ports,
            limits,
            id: id.clone(),
            place: group_place,
            found,
        };
        if !looks_like_address(place) {
            check_host_name(place, text)?;
            if host_name.is_some() {
                return Err(ModelError::invalid(
                    "server",
                    text,
                    "gives a name for a name",
                    "write name=address",
                ));
            }
            return Ok(vec![spec(Target::Host(place.to_string()))]);
        }
        let addresses = address::parse_range(Purpose::Server, place)?;
        if host_name.is_some() && addresses.len() > 1 {
            return Err(ModelError::invalid(
                "server",
                text,
                "gives one name to several addresses",
                "write name=address",
            ));
        }
        if let Some(id) = id.as_ref().filter(|_| addresses.len() > 1) {
            return Err(ModelError::invalid(
                "server id",
                id,
                "is given to several addresses",
                "give each its own, or leave it out",
            ));
        }
        if let Some(place) = group_place.filter(|_| addresses.len() > 1) {
            return Err(ModelError::invalid(
                PLACE_KEY,
                place.to_string(),
                "is given to several addresses",
                "give each its own, or leave it out",
            ));
        }
        Ok(addresses
            .into_iter()
            .map(|address| spec(Target::Address(address)))
            .collect())
    }

    /// Replaces a host name by the address that the system's resolver knows for it, and keeps the name. Blocks.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] if the name has no address, or several.
    pub fn resolve(self) -> Result<ServerSpec, ModelError> {
        self.resolve_with(|host| {
            (host, 0u16)
                .to_socket_addrs()
                .map(|found| found.map(|a| a.ip()).collect())
                .map_err(|e| e.to_string())
        })
    }

    /// Like [`ServerSpec::resolve`] with another resolver.
    ///
    /// # Errors
    /// As [`ServerSpec::resolve`].
    pub fn resolve_with(
        self,
        lookup: impl FnOnce(&str) -> Result<Vec<IpAddr>, String>,
    ) -> Result<ServerSpec, ModelError> {
        let Target::Host(host) = self.target else {
            return Ok(self);
        };
        let failed = |problem: String, allowed: String| {
            ModelError::invalid("server", host.clone(), problem, allowed)
        };
        let mut found = lookup(&host).map_err(|e| {
            failed(
                format!("cannot be resolved ({e})"),
                "check the name, or give the address".to_string(),
            )
        })?;
        found.sort();
        found.dedup();
        let address = match found[..] {
            [] => {
                return Err(failed(
                    "has no address".to_string(),
                    "check the name, or give the address".to_string(),
                ));
            }
            [address] => address,
            _ => {
                let all: Vec<String> = found.iter().map(ToString::to_string).collect();
                return Err(failed(
                    format!("has several addresses ({})", all.join(", ")),
                    format!(
                        "say which one is meant: {host}={}; or have the group follow it: -d dns={host}",
                        address::bracketed(found[0])
                    ),
                ));
            }
        };
        address::check(Purpose::Server, address)?;
        Ok(ServerSpec {
            target: Target::Address(address),
            host_name: Some(host),
            ports: self.ports,
            limits: self.limits,
            id: self.id,
            place: self.place,
            found: self.found,
        })
    }
}

impl fmt::Display for ServerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.host_name {
            write!(f, "{name}=")?;
        }
        match &self.target {
            Target::Address(address) => f.write_str(&address::bracketed(*address))?,
            Target::Host(host) => f.write_str(host)?,
        }
        if let Some(ports) = self.ports {
            write!(f, ":{ports}")?;
        }
        let ServerSettings {
            weight,
            max_connections,
            min_connections,
            tier,
        } = self.limits;
        for (key, value) in [
            ("weight", weight.map(u32::from)),
            ("max-conn", max_connections),
            ("min-conn", min_connections),
        ] {
            if let Some(value) = value {
                write!(f, ",{key}={value}")?;
            }
        }
        if let Some(tier) = tier {
            write!(f, ",tier={}", tier_text(tier))?;
        }
        if let Some(id) = &self.id {
            write!(f, ",{ID_KEY}={id}")?;
        }
        if let Some(place) = self.place {
            write!(f, ",{PLACE_KEY}={place}")?;
        }
        match self.found {
            true => write!(f, ",{FOUND_KEY}=yes"),
            false => Ok(()),
        }
    }
}

/// Splits `place[:port]`. Colons inside brackets belong to the address.
fn split_port<'a>(whole: &str, text: &'a str) -> Result<(&'a str, Option<&'a str>), ModelError> {
    let refuse = |problem: &str, allowed: String| {
        Err(ModelError::invalid("server", whole, problem, allowed))
    };
    if text.contains(['[', ']']) {
        let Some(end) = text.rfind(']') else {
            return refuse("has no closing bracket", SYNTAX.to_string());
        };
        let (place, rest) = text.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((place, Some(port))),
            None if rest.is_empty() => Ok((place, None)),
            None => refuse("goes on after the bracket", SYNTAX.to_string()),
        };
    }
    match text.matches(':').count() {
        0 => Ok((text, None)),
        1 => Ok(text
            .split_once(':')
            .map_or((text, None), |(place, port)| (place, Some(port)))),
        _ => refuse(
            "looks like an IPv6 address without brackets",
            format!("write [{text}], and a port after it: [{text}]:80"),
        ),
    }
}

fn parse_port(text: &str) -> Result<PortRange, ModelError> {
    PortRange::parse("server port", text, Protocol::Tcp)
        .or_else(|e| PortRange::parse("server port", text, Protocol::Udp).map_err(|_| e))
}

/// Digits, dots, dashes and brackets make an address or a range; anything else is a host name.
fn looks_like_address(place: &str) -> bool {
    place.contains('[')
        || (!place.is_empty()
            && place
                .bytes()
                .all(|b| b.is_ascii_digit() || b == b'.' || b == b'-')
            && place.contains('.'))
}

/// Whether it can be the name of a host: labels of letters, digits, `-` and `_`, at most 63 octets each and 253 in all.
pub(crate) fn is_host_name(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && l.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let bare = name.strip_suffix('.').unwrap_or(name);
    // A name of digits only would be read as an old-fashioned way to write an IPv4 address.
    let numeric = bare.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    bare.len() <= 253 && bare.split('.').all(label) && !numeric
}

fn check_host_name(name: &str, whole: &str) -> Result<(), ModelError> {
    if is_host_name(name) {
        return Ok(());
    }
    let problem = if name.is_empty() {
        "has no host or address"
    } else {
        "is neither a host name nor an address"
    };
    Err(ModelError::invalid("server", whole, problem, SYNTAX))
}
