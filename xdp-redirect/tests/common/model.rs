//! The steering decision a second time, written from the crate's documentation and not from the program.

use std::collections::BTreeSet;
use std::net::IpAddr;

use xdp_redirect::{ERRORS_ONLY, OTHER_PROTOCOLS, PortSet, Steering};

/// Whether the program should take this frame.
pub fn is_ours(steering: &Steering, frame: &[u8]) -> bool {
    decide(&Rules { steering }, frame).unwrap_or(false)
}

/// Whether the program should drop this frame, which it does not take, because of the addresses that are closed.
pub fn is_closed(closed: &BTreeSet<IpAddr>, frame: &[u8]) -> bool {
    let Some((header, packet)) = frame.split_at_checked(14) else {
        return false;
    };
    let (version, destination) = match (header[12], header[13]) {
        (0x08, 0x00) => (4, packet.get(..20).map(|ip| v4(&ip[16..]))),
        (0x86, 0xdd) => (6, packet.get(..40).map(|ip| v6(&ip[24..]))),
        _ => return false,
    };
    let needed = parse(packet, version, true).is_some_and(|packet| packet.is_of_the_link());
    destination.is_some_and(|address| closed.contains(&address)) && !needed
}

fn v4(octets: &[u8]) -> IpAddr {
    IpAddr::from(<[u8; 4]>::try_from(octets).expect("four octets"))
}

fn v6(octets: &[u8]) -> IpAddr {
    IpAddr::from(<[u8; 16]>::try_from(octets).expect("sixteen octets"))
}

struct Rules<'a> {
    steering: &'a Steering,
}

/// A packet as far as it matters.
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    later: bool,
    payload: Vec<u8>,
}

/// The protocol under which a packet's entry is.
fn key(address: IpAddr, protocol: u8) -> u8 {
    let icmp = if address.is_ipv4() { 1 } else { 58 };
    match protocol {
        6 | 17 | 132 => protocol,
        _ if protocol == icmp => protocol,
        _ => OTHER_PROTOCOLS,
    }
}

impl Rules<'_> {
    fn destination(&self, address: IpAddr, protocol: u8) -> Option<&PortSet> {
        let protocol = key(address, protocol);
        let mut all = self.steering.destinations();
        all.find(|entry| (entry.0, entry.1) == (address, protocol))
            .map(|entry| entry.2)
    }

    fn errors(&self, address: IpAddr) -> bool {
        let mut all = self.steering.destinations();
        all.any(|entry| (entry.0, entry.1) == (address, ERRORS_ONLY))
    }

    fn source(&self, address: IpAddr, protocol: u8) -> Option<&PortSet> {
        let protocol = key(address, protocol);
        let mut all = self.steering.sources();
        all.find(|entry| (entry.0, entry.1) == (address, protocol))
            .map(|entry| entry.2)
    }
}

/// What a packet can be to the program.
#[derive(PartialEq, Eq)]
enum Nature {
    /// Between hosts and their link.
    Local,
    /// An ICMP error.
    Error,
    /// Anything that could be balanced.
    Flow,
}

/// `None` means malformed, which passes.
fn decide(rules: &Rules<'_>, frame: &[u8]) -> Option<bool> {
    let (header, packet) = frame.split_at_checked(14)?;
    if header[0] & 1 == 1 {
        return Some(false);
    }
    let packet = match (header[12], header[13]) {
        (0x08, 0x00) => parse(packet, 4, true)?,
        (0x86, 0xdd) => parse(packet, 6, true)?,
        _ => return Some(false),
    };
    match packet.nature()? {
        Nature::Local => return Some(false),
        Nature::Error => return decide_error(rules, &packet),
        Nature::Flow => {}
    }
    let to = rules.destination(packet.destination, packet.protocol);
    let from = rules.source(packet.source, packet.protocol);
    if packet.later || !packet.has_ports() {
        return Some(to.is_some() || from.is_some());
    }
    let (source, destination) = packet.ports().unzip();
    Some(
        to.zip(destination)
            .is_some_and(|(set, port)| set.contains(port))
            || from
                .zip(source)
                .is_some_and(|(set, port)| set.contains(port)),
    )
}

fn decide_error(rules: &Rules<'_>, message: &Packet) -> Option<bool> {
    let version = if message.destination.is_ipv4() { 4 } else { 6 };
    let packet = parse(&message.payload[8..], version, false)?;
    if packet.nature()? != Nature::Flow {
        return Some(false);
    }
    if rules.errors(packet.source) {
        return Some(true);
    }
    let sender = rules.destination(packet.source, packet.protocol);
    let to = rules.destination(packet.destination, packet.protocol);
    let server = rules.source(packet.destination, packet.protocol);
    if packet.later || !packet.has_ports() {
        return Some(sender.is_some() || to.is_some() || server.is_some());
    }
    let (source, destination) = packet.ports()?;
    let holds = |set: Option<&PortSet>, port| set.is_some_and(|set| set.contains(port));
    Some(holds(sender, source) || holds(to, destination) || holds(server, destination))
}

/// An IP packet. If `whole`, all of it has to be there; otherwise the beginning will do.
fn parse(bytes: &[u8], version: u8, whole: bool) -> Option<Packet> {
    if bytes.first()? >> 4 != version {
        return None;
    }
    let fixed = if version == 4 { 20 } else { 40 };
    let header = bytes.get(..fixed)?;
    let mut bytes = bytes;
    let field = |at: usize| usize::from(header[at]) << 8 | usize::from(header[at + 1]);
    if whole {
        bytes = bytes.get(
            ..if version == 4 {
                field(2)
            } else {
                40 + field(4)
            },
        )?;
    }
    if version == 4 {
        let length = usize::from(header[0] & 15) * 4;
        if length < 20 {
            return None;
        }
        return Some(Packet {
            source: IpAddr::from(<[u8; 4]>::try_from(&header[12..16]).ok()?),
            destination: IpAddr::from(<[u8; 4]>::try_from(&header[16..20]).ok()?),
            protocol: header[9],
            later: field(6) & 0x1fff != 0,
            payload: bytes.get(length..)?.to_vec(),
        });
    }
    let mut rest = &bytes[40..];
    let mut next = header[6];
    let mut later = false;
    let mut walked = 0;
    while [0, 43, 44, 51, 60].contains(&next) && !later {
        walked += 1;
        if walked > 8 || rest.len() < 8 {
            return None;
        }
        let length = match next {
            44 => 8,
            51 => (usize::from(rest[1]) + 2) * 4,
            _ => (usize::from(rest[1]) + 1) * 8,
        };
        later = next == 44 && (rest[2] != 0 || rest[3] & 0xf8 != 0);
        next = rest[0];
        rest = rest.get(length..)?;
    }
    Some(Packet {
        source: IpAddr::from(<[u8; 16]>::try_from(&header[8..24]).ok()?),
        destination: IpAddr::from(<[u8; 16]>::try_from(&header[24..40]).ok()?),
        protocol: next,
        later,
        payload: rest.to_vec(),
    })
}

impl Packet {
    fn has_ports(&self) -> bool {
        [6, 17, 132].contains(&self.protocol)
    }

    /// VRRP and neighbour discovery.
    fn is_of_the_link(&self) -> bool {
        let discovery = !self.later
            && self.protocol == 58
            && self.destination.is_ipv6()
            && self.payload.len() >= 8
            && (133..=137).contains(&self.payload[0]);
        self.protocol == 112 || discovery
    }

    /// `None` if it is too short to tell.
    fn nature(&self) -> Option<Nature> {
        let v4 = self.destination.is_ipv4();
        if self.protocol == 2 {
            return Some(Nature::Local);
        }
        if self.later || self.protocol != if v4 { 1 } else { 58 } {
            return Some(Nature::Flow);
        }
        let message = self.payload.get(..8)?[0];
        Some(match (v4, message) {
            (true, 3 | 11 | 12) | (false, 1..=4) => Nature::Error,
            (true, 0 | 8 | 13..=18 | 42 | 43) | (false, 128 | 129 | 160 | 161) => Nature::Flow,
            _ => Nature::Local,
        })
    }

    fn ports(&self) -> Option<(u16, u16)> {
        let bytes: &[u8; 4] = self.payload.first_chunk()?;
        Some((
            u16::from_be_bytes([bytes[0], bytes[1]]),
            u16::from_be_bytes([bytes[2], bytes[3]]),
        ))
    }
}
