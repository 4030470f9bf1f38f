//! Connections and persistence entries, as the manager lists them.
//!
//! `ListConnections` takes a filter ([`FILTER`]), where to begin and how many to give; it returns JSON of a list of
//! [`Connection`] and where the next page begins, 0 for the end. A page may be empty and yet not be the last.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use zbus::{OwnedVariant, Variant};

use crate::address::Family;
use crate::dbus::{read, read_text, unknown};
use crate::error::ModelError;
use crate::rule::Prefix;
use crate::words;

/// The keys of the filter of `ListConnections`, with the D-Bus type of each.
pub const FILTER: &[(&str, &str)] = &[
    ("rule", "s"),
    ("server", "s"),
    ("client", "s"),
    ("vip", "s"),
    ("protocol", "s"),
    ("state", "s"),
    ("persistence", "b"),
];

/// Most entries of one page.
pub const MOST: u32 = 10_000;

/// Which connections are asked for. Everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Name of a rule, or of a deleted one that still has connections.
    pub rule: Option<String>,
    /// Id of a server, or of a removed one that still has connections.
    pub server: Option<String>,
    /// Network of clients.
    pub client: Option<Prefix>,
    /// Address that clients connected to.
    pub vip: Option<IpAddr>,
    /// Number of a protocol.
    pub protocol: Option<u8>,
    /// One of [`STATES`], or of [`CLAIMS`].
    pub state: Option<String>,
    /// Persistence entries instead of connections.
    pub persistence: bool,
}

/// Protocols that have a word; ICMPv6 has that of ICMP with addresses of its family.
const PROTOCOLS: &[(u8, &str)] = &[
    (6, "tcp"),
    (17, "udp"),
    (132, "sctp"),
    (1, "icmp"),
    (58, "icmpv6"),
];

/// A protocol number as its word, if it has one.
pub fn protocol_word(number: u8) -> String {
    let word = PROTOCOLS.iter().find(|(n, _)| *n == number);
    word.map_or_else(|| number.to_string(), |(_, word)| (*word).to_string())
}

/// States that a connection can be in.
pub const STATES: [&str; 9] = [
    "syn-received",
    "established",
    "fin-wait",
    "close-wait",
    "last-ack",
    "time-wait",
    "close",
    "fresh",
    "flowing",
];

/// States that a persistence entry can be in.
pub const CLAIMS: [&str; 2] = ["persistence", OFFERED];

/// State of a persistence entry whose client has not shown yet that it is real: none of its connections has got past its
/// first packets. It counts like any other, but makes way under pressure.
pub const OFFERED: &str = "offered";

/// Reads a state of a connection, or of a persistence entry, in any case.
///
/// # Errors
/// [`ModelError::UnknownWord`].
pub fn parse_state(text: &str, persistence: bool) -> Result<&'static str, ModelError> {
    let known: &[&str] = match persistence {
        true => &CLAIMS,
        false => &STATES,
    };
    let found = known.iter().find(|s| s.eq_ignore_ascii_case(text));
    found.copied().ok_or_else(|| ModelError::UnknownWord {
        field: "state",
        value: text.to_string(),
        allowed: words::one_of(known),
        suggestion: words::nearest(text, known.iter().copied()),
    })
}

/// Reads a protocol: a word or a number. `icmp` is that of `family`.
///
/// # Errors
/// [`ModelError::UnknownWord`].
pub fn parse_protocol(text: &str, family: Option<Family>) -> Result<u8, ModelError> {
    if text.eq_ignore_ascii_case("icmp") && family == Some(Family::Ipv6) {
        return Ok(58);
    }
    let word = PROTOCOLS
        .iter()
        .find(|(_, word)| word.eq_ignore_ascii_case(text));
    match (word, text.parse()) {
        (Some((number, _)), _) => Ok(*number),
        (None, Ok(number)) => Ok(number),
        (None, Err(_)) => {
            let known = PROTOCOLS.iter().map(|(_, word)| *word);
            Err(ModelError::UnknownWord {
                field: "protocol",
                value: text.to_string(),
                allowed: "tcp, udp, sctp, icmp, icmpv6 or a protocol number".to_string(),
                suggestion: words::nearest(text, known),
            })
        }
    }
}

/// Reads an address.
///
/// # Errors
/// [`ModelError::Invalid`].
pub fn parse_address(field: &'static str, text: &str) -> Result<IpAddr, ModelError> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    bare.unwrap_or(text).parse().map_err(|_| {
        ModelError::invalid(
            field,
            text,
            "is not an IP address",
            "use an address such as 192.0.2.1 or 2001:db8::1",
        )
    })
}

impl Filter {
    /// As `ListConnections` takes it.
    pub fn to_dbus(&self) -> HashMap<&'static str, Variant<'static>> {
        let text = |value: Option<String>| value.map(Variant::from);
        let all = [
            ("rule", text(self.rule.clone())),
            ("server", text(self.server.clone())),
            ("client", text(self.client.map(|c| c.to_string()))),
            ("vip", text(self.vip.map(|v| v.to_string()))),
            ("protocol", text(self.protocol.map(protocol_word))),
            ("state", text(self.state.clone())),
            ("persistence", self.persistence.then(|| true.into())),
        ];
        all.into_iter().filter_map(|(k, v)| Some((k, v?))).collect()
    }

    /// Reads what `ListConnections` was given.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`] for a key that does not exist, [`ModelError::Invalid`] for a value.
    pub fn from_dbus(map: &HashMap<String, OwnedVariant>) -> Result<Filter, ModelError> {
        let mut filter = Filter::default();
        for (key, value) in map {
            match key.as_str() {
                "rule" => filter.rule = Some(read_text(key, value)?),
                "server" => filter.server = Some(read_text(key, value)?),
                "client" => filter.client = Some(Prefix::parse(&read_text(key, value)?)?),
                "vip" => filter.vip = Some(parse_address("vip", &read_text(key, value)?)?),
                "protocol" => {
                    filter.protocol = Some(parse_protocol(&read_text(key, value)?, None)?);
                }
                "state" => filter.state = Some(read_text(key, value)?),
                "persistence" => filter.persistence = read(key, value)?,
                _ => return Err(unknown(FILTER, key)),
            }
        }
        if let Some(state) = &mut filter.state {
            *state = parse_state(state, filter.persistence)?.to_string();
        }
        // One word for both, by the family of whoever else is named.
        let named = filter.client.map(|c| c.address).or(filter.vip);
        if filter.protocol == Some(1) && named.is_some_and(|address| address.is_ipv6()) {
            filter.protocol = Some(58);
        }
        Ok(filter)
    }
}

/// An address with a port, or an identifier for ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The address.
    pub address: IpAddr,
    /// The port; 0 where there is none.
    pub port: u16,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.port, self.address) {
            (0, address) => address.to_string(),
            (port, IpAddr::V4(address)) => format!("{address}:{port}"),
            (port, IpAddr::V6(address)) => format!("[{address}]:{port}"),
        };
        f.pad(&text)
    }
}

impl End {
    /// Reads `address`, `address:port` or `[address]:port`.
    ///
    /// # Errors
    /// [`ModelError::Invalid`].
    pub fn parse(field: &'static str, text: &str) -> Result<End, ModelError> {
        if let Ok(address) = text.parse() {
            return Ok(End { address, port: 0 });
        }
        let invalid = || {
            ModelError::invalid(
                field,
                text,
                "is not an address with a port",
                "write it like 192.0.2.1:80 or [2001:db8::1]:80",
            )
        };
        let (address, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let bracketed = address.starts_with('[') && address.ends_with(']');
        if address.contains(':') && !bracketed {
            return Err(invalid());
        }
        Ok(End {
            address: parse_address(field, address).map_err(|_| invalid())?,
            port: port.parse().map_err(|_| invalid())?,
        })
    }
}

/// A connection, or a client's claim to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Name of its rule; `#` and its number if it is not configured any more.
    pub rule: String,
    /// Id of its server; `#` and its number if it is not configured any more.
    pub server: String,
    /// A word or a number; empty for persistence.
    pub protocol: String,
    /// The client; of a persistence entry, its network's address.
    pub client: End,
    /// What it connected to; `None` if the rule is not configured any more.
    pub vip: Option<End>,
    /// Under NAT, what the server sees as the client.
    #[serde(default)]
    pub source: Option<End>,
    /// Where the server is; `None` if it is not configured any more.
    pub destination: Option<End>,
    /// A word such as `established`.
    pub state: String,
    /// Seconds since its last packet.
    pub idle: u32,
    /// Seconds after which it is forgotten if no more packets come.
    #[serde(default)]
    pub remaining: Option<u32>,
}
