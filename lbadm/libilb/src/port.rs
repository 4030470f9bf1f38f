//! Ports as an administrator writes them: `80`, `8000-8009`, `https`.

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::rule::Protocol;
use crate::vip::Vip;
use crate::words;

/// Ports `first..=last`, both between 1 and 65535; 0 to 65535 is every port, see [`PortRange::ANY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port, not below `first`.
    pub last: u16,
}

/// How the ports of a rule become the ports of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortMap {
    /// The server listens on the rule's ports.
    Same,
    /// All the rule's ports go to this one.
    Collapse(u16),
    /// The rule's first port goes to this one, the next to the next, and so on.
    Shift(u16),
}

const ALLOWED: &str =
    "use a port from 1 to 65535, a range such as 8000-8009, or the name of a service such as https";

impl PortRange {
    /// Every port, written `any` or `0`.
    pub const ANY: PortRange = PortRange {
        first: 0,
        last: u16::MAX,
    };

    /// One port.
    pub const fn single(port: u16) -> PortRange {
        PortRange {
            first: port,
            last: port,
        }
    }

    /// Number of ports in the range.
    pub const fn size(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// The ports that are in both.
    pub fn common(self, other: PortRange) -> Option<PortRange> {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        (first <= last).then_some(PortRange { first, last })
    }

    /// Reads the ports of a rule: those of [`PortRange::parse`], or `0` or `any` for every port.
    ///
    /// # Errors
    /// As [`PortRange::parse`].
    pub fn parse_rule(
        field: &'static str,
        text: &str,
        protocol: Protocol,
    ) -> Result<PortRange, ModelError> {
        if text == "0" || text == "*" || text.eq_ignore_ascii_case("any") {
            return Ok(PortRange::ANY);
        }
        PortRange::parse(field, text, protocol)
    }

    /// Reads a number, a range, or a service name of `/etc/services`.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] if it is none of these or out of range; `field` names it in the message.
    pub fn parse(
        field: &'static str,
        text: &str,
        protocol: Protocol,
    ) -> Result<PortRange, ModelError> {
        PortRange::parse_with(field, text, protocol, services())
    }

    /// Like [`PortRange::parse`], with the text of a services file.
    ///
    /// # Errors
    /// As [`PortRange::parse`].
    pub fn parse_with(
        field: &'static str,
        text: &str,
        protocol: Protocol,
        services: &str,
    ) -> Result<PortRange, ModelError> {
        let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let number = |s: &str| {
            s.parse::<u16>()
                .ok()
                .filter(|&p| p != 0)
                .ok_or_else(|| ModelError::invalid(field, text, "is out of range", ALLOWED))
        };
        if is_number(text) {
            return number(text).map(PortRange::single);
        }
        if let Some((first, last)) = text.split_once('-')
            && is_number(first)
            && is_number(last)
        {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(ModelError::invalid(
                    field,
                    text,
                    "ends before it begins",
                    format!("write {last}-{first}"),
                ));
            }
            return Ok(PortRange { first, last });
        }
        let plausible = !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.+*/".contains(&b))
            && text.bytes().any(|b| b.is_ascii_alphabetic());
        if !plausible {
            return Err(ModelError::invalid(field, text, "is not a port", ALLOWED));
        }
        service_port(services, text, protocol)
            .map(PortRange::single)
            .ok_or_else(|| {
                let hint = words::nearest(text, service_names(services, protocol))
                    .map_or(String::new(), |word| format!("; did you mean '{word}'?"));
                ModelError::invalid(
                    field,
                    text,
                    format!("is no {protocol} service in /etc/services"),
                    format!("{ALLOWED}{hint}"),
                )
            })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == PortRange::ANY {
            f.pad("any")
        } else if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// How the ports of a rule's VIPs map to `server` ports, or `None` when the numbers of ports do not fit. Protocols without
/// ports are not asked.
pub fn map(vips: &[Vip], server: Option<PortRange>) -> Option<PortMap> {
    let Some(server) = server else {
        return Some(PortMap::Same);
    };
    let mut ranges = vips
        .iter()
        .filter(|vip| vip.protocol.has_ports())
        .map(|vip| vip.ports);
    if vips.iter().any(|vip| vip.protocol == Protocol::Any) {
        None
    } else if ranges.clone().all(|ports| ports == server) {
        Some(PortMap::Same)
    } else if server.size() == 1 {
        Some(PortMap::Collapse(server.first))
    } else {
        ranges
            .all(|ports| ports.size() == server.size())
            .then_some(PortMap::Shift(server.first))
    }
}

/// `/etc/services`, read once; empty where there is none.
fn services() -> &'static str {
    static SERVICES: OnceLock<String> = OnceLock::new();
    SERVICES.get_or_init(|| std::fs::read_to_string("/etc/services").unwrap_or_default())
}

/// Entries of a services file, see services(5): names (aliases too) and port of each that is for `protocol`.
fn entries(services: &str, protocol: Protocol) -> impl Iterator<Item = (Vec<&str>, u16)> {
    services.lines().filter_map(move |line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let (port, of) = words.next()?.split_once('/')?;
        if !of.eq_ignore_ascii_case(protocol.name()) {
            return None;
        }
        let port = port.parse().ok().filter(|&p: &u16| p != 0)?;
        Some((std::iter::once(name).chain(words).collect(), port))
    })
}

fn service_port(services: &str, name: &str, protocol: Protocol) -> Option<u16> {
    entries(services, protocol)
        .find(|(names, _)| names.iter().any(|n| n.eq_ignore_ascii_case(name)))
        .map(|(_, port)| port)
}

fn service_names(services: &str, protocol: Protocol) -> impl Iterator<Item = &str> {
    entries(services, protocol).flat_map(|(names, _)| names)
}
