//! A rule: which traffic is balanced, how, and to which server group.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::{self, Family, Purpose};
use crate::error::{Item, ModelError};
use crate::port::PortRange;
use crate::words::{self, Word};

/// Most NAT source addresses of a rule.
pub const MAX_PROXY_SRC: usize = 10;
/// Longest name of a rule or server group, in characters.
pub const MAX_NAME: usize = 63;

/// One rule. `name` is unique in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Durable number, never 0, never given to another rule. Connections remember their rule by it.
    pub number: u32,
    /// As spelled by the administrator.
    pub name: String,
    /// Whether it takes new connections.
    pub enabled: bool,
    /// Virtual address that clients connect to.
    pub vip: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Ports that clients may connect to.
    pub ports: PortRange,
    /// How a server is chosen.
    pub algorithm: Algorithm,
    /// How packets reach the servers.
    pub topology: Topology,
    /// Source addresses towards the servers: 1 to 10 with [`Topology::Nat`], else none.
    #[serde(default)]
    pub proxy_src: Vec<IpAddr>,
    /// Name of the server group, spelled as the group is.
    pub servergroup: String,
    /// Seconds that connections may live on after the rule or their server was disabled or removed; 0 waits for the
    /// last one.
    #[serde(default)]
    pub conn_drain: u32,
    /// Seconds after which an idle connection is forgotten; 0 means the default of the protocol.
    #[serde(default)]
    pub nat_timeout: u32,
    /// Whether the manager puts the rule's addresses on an interface.
    #[serde(default = "yes")]
    pub manage_addresses: bool,
}

fn yes() -> bool {
    true
}

impl Rule {
    /// Seconds after which an idle connection is forgotten: what was set, or ilbadm's defaults for NAT of both kinds
    /// (120 for TCP, 60 for UDP), or those of the kernel's IPVS under DSR (900 and 300), where an entry holds no NAT
    /// port and there is no reason to forget early.
    pub fn idle_timeout(&self) -> u32 {
        match (self.nat_timeout, self.protocol, self.topology) {
            (0, Protocol::Tcp, Topology::Dsr) => 900,
            (0, Protocol::Udp, Topology::Dsr) => 300,
            (0, Protocol::Tcp, _) => 120,
            (0, Protocol::Udp, _) => 60,
            (seconds, _, _) => seconds,
        }
    }

    /// The address family of the rule, of its servers and of its NAT sources.
    pub fn family(&self) -> Family {
        Family::of(self.vip)
    }

    /// The traffic that both rules claim, readable, if any.
    pub fn overlap(&self, other: &Rule) -> Option<String> {
        if self.vip != other.vip || self.protocol != other.protocol {
            return None;
        }
        let ports = self.ports.common(other.ports)?;
        Some(format!("{} {} port {ports}", self.vip, self.protocol))
    }
}

/// Transport protocols that can be balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// How packets get to the servers and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Topology {
    /// Direct server return: only the next hop changes, the server answers the client itself.
    #[serde(rename = "DSR")]
    Dsr,
    /// Both addresses are rewritten; the server sees a `proxy-src` address.
    #[serde(rename = "NAT")]
    Nat,
    /// The destination is rewritten; the server's route to the client leads through us.
    #[serde(rename = "HALF-NAT")]
    HalfNat,
}

/// How a server is chosen for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Each server in turn.
    #[serde(rename = "roundrobin")]
    RoundRobin,
    /// By the client's address.
    HashIp,
    /// By the client's address and port.
    HashIpPort,
    /// By the client's address and the VIP.
    HashIpVip,
}

const PROTOCOLS: &[Word<Protocol>] = &[(Protocol::Tcp, "tcp", &[]), (Protocol::Udp, "udp", &[])];
const TOPOLOGIES: &[Word<Topology>] = &[
    (Topology::Dsr, "DSR", &["d"]),
    (Topology::Nat, "NAT", &["n"]),
    (Topology::HalfNat, "HALF-NAT", &["h"]),
];
const ALGORITHMS: &[Word<Algorithm>] = &[
    (Algorithm::RoundRobin, "roundrobin", &["rr"]),
    (Algorithm::HashIp, "hash-ip", &["hip"]),
    (Algorithm::HashIpPort, "hash-ip-port", &["hipp"]),
    (Algorithm::HashIpVip, "hash-ip-vip", &["hipv"]),
];

/// Words that ilb will understand. Naming them is no spelling mistake.
const LATER_PROTOCOLS: &[&str] = &["sctp", "icmp", "any"];
const LATER_TOPOLOGIES: &[&str] = &["tun", "t"];
const LATER_ALGORITHMS: &[&str] = &[
    "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos",
];

fn parse_word<T: Copy>(
    list: &[Word<T>],
    later: &[&str],
    field: &'static str,
    value: &str,
) -> Result<T, ModelError> {
    if words::find(list, value).is_none() && later.iter().any(|w| w.eq_ignore_ascii_case(value)) {
        return Err(ModelError::NotSupported {
            what: format!("{field} {}", value.to_ascii_lowercase()),
            hint: Some(format!("this version has {}", words::all(list))),
        });
    }
    words::parse(list, field, value)
}

macro_rules! word_enum {
    ($type:ty, $list:ident, $later:ident, $field:literal) => {
        impl $type {
            /// The usual word for it.
            pub fn name(self) -> &'static str {
                words::name($list, self)
            }

            /// Reads a word or its alias, in any case.
            ///
            /// # Errors
            /// [`ModelError::UnknownWord`], or [`ModelError::NotSupported`] for a word of a later version.
            pub fn parse(text: &str) -> Result<Self, ModelError> {
                parse_word($list, $later, $field, text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

word_enum!(Protocol, PROTOCOLS, LATER_PROTOCOLS, "protocol");
word_enum!(Topology, TOPOLOGIES, LATER_TOPOLOGIES, "type");
word_enum!(Algorithm, ALGORITHMS, LATER_ALGORITHMS, "lbalg");

/// What an administrator says about a rule that is to be created, as text. [`RuleSettings::check`] reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSettings {
    /// Whether it takes connections from the start; a rule is created disabled unless this is said.
    pub enabled: bool,
    /// Virtual address.
    pub vip: String,
    /// Port, range or service name.
    pub port: String,
    /// `tcp` if not given.
    pub protocol: Option<String>,
    /// See [`Algorithm::parse`].
    pub algorithm: String,
    /// See [`Topology::parse`].
    pub topology: String,
    /// Addresses and ranges.
    pub proxy_src: Vec<String>,
    /// Name of an existing server group.
    pub servergroup: String,
    /// Seconds, at least 1; not given waits for the last connection.
    pub conn_drain: Option<u32>,
    /// Seconds; 0 or not given means the default.
    pub nat_timeout: Option<u32>,
    /// Not supported yet.
    pub persist_timeout: Option<u32>,
    /// Not supported yet.
    pub pmask: Option<String>,
    /// Yes if not given.
    pub manage_addresses: Option<bool>,
}

impl RuleSettings {
    /// Reads and checks all that can be checked without knowing what else is configured. The result has number 0.
    ///
    /// # Errors
    /// [`ModelError::Missing`], [`ModelError::Invalid`], [`ModelError::UnknownWord`] or [`ModelError::NotSupported`].
    pub fn check(&self, name: &str) -> Result<Rule, ModelError> {
        check_name(Item::Rule, name)?;
        for (field, value, allowed) in [
            (
                "vip",
                &self.vip,
                "say which address clients connect to, such as vip=192.0.2.1",
            ),
            (
                "port",
                &self.port,
                "say which port clients connect to, such as port=80",
            ),
            (
                "lbalg",
                &self.algorithm,
                "say how servers are chosen, such as lbalg=roundrobin",
            ),
            (
                "type",
                &self.topology,
                "say how packets reach the servers: DSR, NAT or HALF-NAT",
            ),
            (
                "servergroup",
                &self.servergroup,
                "name the server group that serves the rule",
            ),
        ] {
            if value.is_empty() {
                return Err(ModelError::Missing {
                    field,
                    allowed: allowed.to_string(),
                });
            }
        }
        if self.pmask.is_some() || self.persist_timeout.is_some() {
            return Err(ModelError::NotSupported {
                what: "persistence".to_string(),
                hint: Some(
                    "leave pmask and persist-timeout out; lbalg=hash-ip keeps a client on its server"
                        .to_string(),
                ),
            });
        }
        if self.conn_drain == Some(0) {
            return Err(ModelError::invalid(
                "conn-drain",
                "0",
                "is out of range",
                "use 1 or more seconds, or leave it out to wait for the last connection",
            ));
        }
        let protocol = match &self.protocol {
            Some(word) => Protocol::parse(word)?,
            None => Protocol::Tcp,
        };
        let rule = Rule {
            number: 0,
            name: name.to_string(),
            enabled: self.enabled,
            vip: address::parse(Purpose::Vip, &self.vip)?,
            protocol,
            ports: PortRange::parse("port", &self.port, protocol)?,
            algorithm: Algorithm::parse(&self.algorithm)?,
            topology: Topology::parse(&self.topology)?,
            proxy_src: self.proxy_src()?,
            servergroup: self.servergroup.clone(),
            conn_drain: self.conn_drain.unwrap_or(0),
            nat_timeout: self.nat_timeout.unwrap_or(0),
            manage_addresses: self.manage_addresses.unwrap_or(true),
        };
        check_rule(&rule)?;
        Ok(rule)
    }

    fn proxy_src(&self) -> Result<Vec<IpAddr>, ModelError> {
        let mut all = Vec::new();
        for text in &self.proxy_src {
            all.extend(address::parse_range(Purpose::ProxySrc, text)?);
        }
        Ok(all)
    }
}

/// Checks a rule by itself: addresses, ports, `proxy-src`.
///
/// # Errors
/// [`ModelError::Invalid`] or [`ModelError::Missing`].
pub fn check_rule(rule: &Rule) -> Result<(), ModelError> {
    check_name(Item::Rule, &rule.name)?;
    address::check(Purpose::Vip, rule.vip)?;
    if rule.ports.first == 0 || rule.ports.first > rule.ports.last {
        return Err(ModelError::invalid(
            "port",
            rule.ports.to_string(),
            "is out of range",
            "use ports from 1 to 65535",
        ));
    }
    let sources = &rule.proxy_src;
    let list = || {
        let all: Vec<String> = sources.iter().map(ToString::to_string).collect();
        all.join(",")
    };
    if rule.topology != Topology::Nat {
        return match sources.is_empty() {
            true => Ok(()),
            false => Err(ModelError::invalid(
                "proxy-src",
                list(),
                format!("is given, but type is {}", rule.topology),
                "only type=NAT has source addresses of its own; leave proxy-src out or use NAT",
            )),
        };
    }
    if sources.is_empty() {
        return Err(ModelError::Missing {
            field: "proxy-src",
            allowed: format!(
                "type=NAT needs 1 to {MAX_PROXY_SRC} source addresses towards the servers, such as proxy-src=192.0.2.9"
            ),
        });
    }
    if sources.len() > MAX_PROXY_SRC {
        return Err(ModelError::invalid(
            "proxy-src",
            format!("{} to {}", sources[0], sources[sources.len() - 1]),
            format!("has {} addresses", sources.len()),
            format!("use 1 to {MAX_PROXY_SRC}"),
        ));
    }
    for (i, &source) in sources.iter().enumerate() {
        address::check(Purpose::ProxySrc, source)?;
        if Family::of(source) != rule.family() {
            return Err(ModelError::invalid(
                "proxy-src",
                source.to_string(),
                format!(
                    "is {}, but the vip {} is {}",
                    Family::of(source),
                    rule.vip,
                    rule.family()
                ),
                format!("use {} addresses", rule.family()),
            ));
        }
        if sources[..i].contains(&source) {
            return Err(ModelError::invalid(
                "proxy-src",
                source.to_string(),
                "is given twice",
                "give each address once",
            ));
        }
    }
    Ok(())
}

/// Checks the name of a rule or server group: 1 to [`MAX_NAME`] ASCII letters, digits, `-`, `_` and `.`, beginning with
/// a letter or digit (a leading `_` marks server ids).
///
/// # Errors
/// [`ModelError::Invalid`].
pub fn check_name(item: Item, name: &str) -> Result<(), ModelError> {
    let field = match item {
        Item::Rule => "rule name",
        Item::ServerGroup => "server group name",
        Item::Server => "server id",
    };
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let problem = if name.is_empty() {
        "is empty".to_string()
    } else if name.len() > MAX_NAME {
        format!("has {} characters", name.chars().count())
    } else if let Some(c) = name.chars().find(|&c| !c.is_ascii() || !good(c as u8)) {
        format!("contains '{}'", c.escape_default())
    } else if !name.as_bytes()[0].is_ascii_alphanumeric() {
        format!("begins with '{}'", &name[..1])
    } else {
        return Ok(());
    };
    Err(ModelError::invalid(
        field,
        name.escape_debug().to_string(),
        problem,
        format!(
            "use 1 to {MAX_NAME} letters, digits, '-', '_' or '.', beginning with a letter or digit"
        ),
    ))
}
