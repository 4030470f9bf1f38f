//! What the fast path would do with a packet, and why: `Explain` takes a packet ([`PACKET`]) and returns JSON of an
//! [`Explanation`]. Nothing changes by it.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use zbus::{OwnedVariant, Variant};

use crate::address::Family;
use crate::connections::{Connection, End, parse_protocol, protocol_word};
use crate::dbus::{read, read_text, unknown};
use crate::error::ModelError;
use crate::vrrp::VrrpState;
use crate::words;

/// The keys of the packet of `Explain`, with the D-Bus type of each. The first three are needed.
pub const PACKET: &[(&str, &str)] = &[
    ("protocol", "s"),
    ("source", "s"),
    ("destination", "s"),
    ("flags", "s"),
    ("message", "u"),
    ("length", "u"),
    ("ttl", "u"),
    ("interface", "s"),
];

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Number of its protocol.
    pub protocol: u8,
    /// Where it comes from.
    pub source: End,
    /// Where it goes.
    pub destination: End,
    /// TCP flags as they are in the header; a SYN if not given.
    pub flags: Option<u8>,
    /// Type of an ICMP message, or of the first chunk of SCTP; an echo request, or INIT, if not given.
    pub message: Option<u8>,
    /// Length of the IP packet; the smallest possible if not given.
    pub length: Option<u16>,
    /// TTL or hop limit; 64 if not given.
    pub ttl: Option<u8>,
    /// Interface that it comes in by; the first one if not given.
    pub interface: Option<String>,
}

/// TCP flags with their bits in the header.
const FLAGS: &[(&str, u8)] = &[
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
];

/// Every word that [`parse_flags`] knows, but for `none`.
pub fn flag_words() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().map(|(name, _)| *name)
}

/// Reads TCP flags such as `syn`, `syn,ack` or `none`.
///
/// # Errors
/// [`ModelError::UnknownWord`].
pub fn parse_flags(text: &str) -> Result<u8, ModelError> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(0);
    }
    let bit = |word: &str| {
        let known = || FLAGS.iter().map(|(name, _)| *name);
        let found = FLAGS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word));
        found
            .map(|(_, bit)| *bit)
            .ok_or_else(|| ModelError::UnknownWord {
                field: "flags",
                value: word.to_string(),
                allowed: format!("none, or {}", words::one_of(&known().collect::<Vec<_>>())),
                suggestion: words::nearest(word, known()),
            })
    };
    text.split([',', '+', '|'])
        .try_fold(0, |all, word| Ok(all | bit(word.trim())?))
}

/// TCP flags in words.
pub fn flags_text(flags: u8) -> String {
    let set: Vec<&str> = FLAGS
        .iter()
        .filter(|(_, bit)| flags & bit != 0)
        .map(|(name, _)| *name)
        .collect();
    match set.is_empty() {
        true => "none".to_string(),
        false => set.join(","),
    }
}

impl Packet {
    /// A packet of which only the ends are known.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`], or [`ModelError::Invalid`] for ends of which there can be no packet.
    pub fn new(protocol: &str, source: &str, destination: &str) -> Result<Packet, ModelError> {
        let source = End::parse("source", source)?;
        let destination = End::parse("destination", destination)?;
        let family = Family::of(source.address);
        if Family::of(destination.address) != family {
            return Err(ModelError::invalid(
                "destination",
                destination.to_string(),
                format!("is {}", Family::of(destination.address)),
                format!("the source {} is {family}; use one family", source.address),
            ));
        }
        let protocol = parse_protocol(protocol, Some(family))?;
        let word = protocol_word(protocol);
        if matches!(word.as_str(), "tcp" | "udp" | "sctp") {
            for (field, end) in [("source", source), ("destination", destination)] {
                if end.port == 0 {
                    return Err(ModelError::invalid(
                        field,
                        end.to_string(),
                        "has no port",
                        format!(
                            "packets of {word} have one: write it like {}",
                            End { port: 80, ..end }
                        ),
                    ));
                }
            }
        }
        Ok(Packet {
            protocol,
            source,
            destination,
            flags: None,
            message: None,
            length: None,
            ttl: None,
            interface: None,
        })
    }

    /// As `Explain` takes it.
    pub fn to_dbus(&self) -> HashMap<&'static str, Variant<'static>> {
        let number = |value: Option<u32>| value.map(Variant::from);
        let all = [
            ("protocol", Some(protocol_word(self.protocol).into())),
            ("source", Some(self.source.to_string().into())),
            ("destination", Some(self.destination.to_string().into())),
            ("flags", self.flags.map(|flags| flags_text(flags).into())),
            ("message", number(self.message.map(u32::from))),
            ("length", number(self.length.map(u32::from))),
            ("ttl", number(self.ttl.map(u32::from))),
            ("interface", self.interface.clone().map(Variant::from)),
        ];
        all.into_iter().filter_map(|(k, v)| Some((k, v?))).collect()
    }

    /// Reads what `Explain` was given.
    ///
    /// # Errors
    /// As [`Packet::new`]; [`ModelError::Missing`] for an end.
    pub fn from_dbus(map: &HashMap<String, OwnedVariant>) -> Result<Packet, ModelError> {
        let known = |key: &&String| PACKET.iter().any(|(name, _)| name == key);
        if let Some(key) = map.keys().find(|key| !known(key)) {
            return Err(unknown(PACKET, key));
        }
        let needed = |field: &'static str| match map.get(field) {
            Some(value) => read_text(field, value),
            None => Err(ModelError::Missing {
                field,
                allowed: "a packet has protocol, source and destination".to_string(),
            }),
        };
        let mut packet = Packet::new(
            &needed("protocol")?,
            &needed("source")?,
            &needed("destination")?,
        )?;
        for (key, value) in map {
            match key.as_str() {
                "flags" => packet.flags = Some(parse_flags(&read_text(key, value)?)?),
                "message" => packet.message = Some(small("message", key, value)?),
                "length" => packet.length = Some(small("length", key, value)?),
                "ttl" => packet.ttl = Some(small("ttl", key, value)?),
                "interface" => packet.interface = Some(read_text(key, value)?),
                _ => {}
            }
        }
        Ok(packet)
    }
}

fn small<T: TryFrom<u32>>(
    field: &'static str,
    key: &str,
    value: &OwnedVariant,
) -> Result<T, ModelError> {
    let number: u32 = read(key, value)?;
    T::try_from(number).map_err(|_| {
        let most = (1_u64 << (8 * size_of::<T>())) - 1;
        ModelError::invalid(
            field,
            number.to_string(),
            "is out of range",
            format!("use 0 to {most}"),
        )
    })
}

/// What would become of a packet, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Generation of the configuration that the fast path forwards by.
    pub generation: u64,
    /// Where the connection comes from that the packet would be of.
    pub origin: Origin,
    /// The connection, if it is there already.
    pub connection: Option<Connection>,
    /// Whether the packet is on its way from the server to the client.
    pub from_server: bool,
    /// The rule that it is for.
    pub rule: Option<Matched>,
    /// Rules with a VIP of the packet's destination that do not get it, the nearest one first.
    #[serde(default)]
    pub misses: Vec<Miss>,
    /// The client's claim to a server of a persistent rule, for packets that begin a connection. While that server takes
    /// new connections it gets this one, whatever the algorithm says and however many it has.
    #[serde(default)]
    pub claim: Option<Connection>,
    /// Servers of the rule, for packets that begin a connection.
    #[serde(default)]
    pub servers: Vec<Candidate>,
    /// The server that it goes to, or comes from.
    pub server: Option<Chosen>,
    /// How it leaves; `None` if it does not.
    pub leaving: Option<Leaving>,
    /// The VRRP instance that its destination belongs to, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrrp: Option<Shared>,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// There is none.
    None,
    /// It is in the table.
    Known,
    /// It begins with this packet.
    Begins,
    /// It is not in the table, but its rule remembers its server.
    Recovered,
}

/// A rule that gets a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matched {
    /// Its name.
    pub name: String,
    /// Its VIP, such as `192.0.2.80 tcp port 80`.
    pub vip: String,
    /// Its topology.
    pub topology: String,
    /// Its algorithm.
    pub algorithm: String,
}

/// A rule that does not get a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miss {
    /// The rule's name.
    pub rule: String,
    /// The VIP.
    pub vip: String,
    /// What is in the way; nothing if a more specific rule gets the packet.
    pub obstacles: Vec<String>,
}

/// A server of the rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its id.
    pub server: String,
    /// Its weight, if it takes new connections.
    pub weight: Option<u16>,
    /// Connections that are open.
    pub open: u32,
    /// All connections that it has.
    pub total: u32,
    /// Why it takes no new ones; `None` if it does.
    pub obstacle: Option<String>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Its id.
    pub server: String,
    /// Where it is.
    pub end: End,
}

/// A packet on its way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Interface that it leaves by.
    pub interface: String,
    /// Its protocol now: that of the outer header under TUN.
    pub protocol: String,
    /// Its source now.
    pub source: End,
    /// Its destination now.
    pub destination: End,
    /// Link-layer address of the next hop, if it is known.
    pub neighbour: Option<String>,
}

/// A VRRP instance with the address that a packet goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Shared {
    /// Its name.
    pub name: String,
    /// Where it stands on this node, which gets such packets only while it is active.
    pub state: VrrpState,
    /// Address of the node that was heard last to be active, other than this one; empty if there is none.
    pub active_node: String,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is sent.
    Transmit,
    /// It waits until the next hop's link-layer address is known.
    Unresolved {
        /// The next hop.
        next_hop: IpAddr,
    },
    /// It is sent on as it came, to another node that may know its connection: addresses have just moved.
    Relay,
    /// It is a later fragment and waits for the first one.
    Hold,
    /// The kernel gets it, unchanged.
    Kernel,
    /// It is dropped.
    Drop {
        /// The reason's name in counters.
        reason: String,
        /// The reason in words.
        words: String,
    },
}
