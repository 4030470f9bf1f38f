//! A server, and the syntax in which one or several are written.

use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};

use serde::{Deserialize, Serialize};

use crate::address::{self, Purpose};
use crate::error::ModelError;
use crate::port::PortRange;
use crate::rule::Protocol;

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
    /// Share of new connections, 0 to 65535.
    #[serde(default = "one")]
    pub weight: u16,
    /// Whether it takes new connections.
    pub enabled: bool,
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
        }
        .to_string()
    }
}

/// Where a server specification points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(IpAddr),
    /// A host name that has to be resolved.
    Host(String),
}

/// One server as written: `host|ip|ip-ip[:port|p-p]`, IPv6 addresses in brackets. `host=ip` gives a name and the
/// address that it stands for, which is how `lbadm` hands a resolved name to the manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// Where it is.
    pub target: Target,
    /// The name given to an address.
    pub host_name: Option<String>,
    /// Ports, if any were written.
    pub ports: Option<PortRange>,
}

const SYNTAX: &str = "write host[:port], address[:port] or first-last[:port], with IPv6 addresses in brackets: [2001:db8::1]:80";

impl ServerSpec {
    /// Reads one specification. A range of addresses gives several servers. Service names are looked up for TCP, then
    /// for UDP.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] that names the part that is wrong.
    pub fn parse(text: &str) -> Result<Vec<ServerSpec>, ModelError> {
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
                        "say which one is meant: {host}={}",
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
        match self.ports {
            Some(ports) => write!(f, ":{ports}"),
            None => Ok(()),
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

fn check_host_name(name: &str, whole: &str) -> Result<(), ModelError> {
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
    if bare.len() <= 253 && bare.split('.').all(label) && !numeric {
        return Ok(());
    }
    let problem = if name.is_empty() {
        "has no host or address"
    } else {
        "is neither a host name nor an address"
    };
    Err(ModelError::invalid("server", whole, problem, SYNTAX))
}
