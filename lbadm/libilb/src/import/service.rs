//! A virtual service of IPVS, as ipvsadm and keepalived both describe it.

use std::fmt;
use std::net::IpAddr;

use super::report::Place;
use crate::address::bracketed;
use crate::rule::{Protocol, Tunnel};
use crate::vip::Vip;

/// Seconds of persistence that ipvsadm has by default.
pub(super) const PERSISTENCE: u32 = 300;
/// The scheduler that both have by default.
pub(super) const SCHEDULER: &str = "wlc";

/// What was said about a virtual service.
#[derive(Debug, Clone)]
pub(super) struct Service {
    /// Where it begins.
    pub place: Place,
    /// How it is written.
    pub what: String,
    /// What the rule shall be called.
    pub name: String,
    /// Not empty, all of one family.
    pub vips: Vec<Vip>,
    /// How servers are chosen.
    pub scheduler: Said,
    /// Options of the scheduler.
    pub flags: Vec<Said>,
    /// Whether clients come back to their server.
    pub persistence: Option<Persistence>,
    /// Where one-packet scheduling is switched on, if it is.
    pub one_packet: Option<Said>,
    /// How packets get to servers that do not say it themselves.
    pub method: Option<Method>,
    /// The servers.
    pub servers: Vec<Backend>,
    /// Idle times that are not the defaults of IPVS.
    pub idle: Idle,
}

/// A word with its place.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// Where it stands.
    pub place: Place,
    /// The directive with its arguments.
    pub what: String,
    /// Its value.
    pub value: String,
}

/// See [`Service::persistence`].
#[derive(Debug, Clone)]
pub(super) struct Persistence {
    /// Seconds.
    pub timeout: u32,
    /// A netmask, or a number of bits.
    pub mask: Option<Said>,
}

/// How packets get to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// The destination is rewritten; answers come back through the balancer.
    Masquerade,
    /// The next hop changes.
    Direct,
    /// The packet is wrapped.
    Tunnel(Tunnel),
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::Masquerade => f.write_str("type=HALF-NAT"),
            Method::Direct => f.write_str("type=DSR"),
            Method::Tunnel(tunnel) => write!(f, "type=TUN,tunnel={tunnel}"),
        }
    }
}

/// A server of a virtual service.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    /// Where it begins.
    pub place: Place,
    /// How it is written.
    pub what: String,
    /// Where it is.
    pub address: IpAddr,
    /// 0 for the port of the service.
    pub port: u16,
    /// How packets get there.
    pub method: Option<Method>,
    /// Its share.
    pub weight: u32,
    /// Connections at which it takes no new ones; 0 is no limit.
    pub upper: u32,
    /// Connections below which it takes new ones again.
    pub lower: u32,
    /// Whether it serves only when the others are too few.
    pub sorry: bool,
}

/// Idle times in seconds, where they are set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Idle {
    /// Open TCP connections.
    pub tcp: Option<u32>,
    /// TCP connections after a FIN.
    pub tcp_fin: Option<u32>,
    /// UDP flows.
    pub udp: Option<u32>,
}

/// A name for a rule about some traffic: `tcp-192.0.2.80-443`.
pub(super) fn name_of(vip: &Vip) -> String {
    let port = match vip.protocol.has_ports() {
        true => format!("-{}", vip.ports),
        false => String::new(),
    };
    clean(&format!("{}-{}{port}", vip.protocol, vip.address))
}

/// The name that is nearest to a text.
pub(super) fn clean(text: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let mut name: String = text
        .chars()
        .map(|c| if good(c) { c } else { '-' })
        .collect();
    let bad = name.find(|c: char| c.is_ascii_alphanumeric());
    name.drain(..bad.unwrap_or(name.len()));
    name.truncate(crate::rule::MAX_NAME);
    match name.is_empty() {
        true => "imported".to_string(),
        false => name,
    }
}

/// An address with a port, as a server is written.
pub(super) fn place_of(address: IpAddr, port: u16) -> String {
    match port {
        0 => bracketed(address),
        port => format!("{}:{port}", bracketed(address)),
    }
}

/// Reads a netmask (`255.255.255.0`) or a number of bits and gives the number; none for masks with holes.
pub(super) fn mask_bits(text: &str, family_bits: u8) -> Option<u8> {
    let bare = text.strip_prefix('/').unwrap_or(text);
    if let Ok(bits) = bare.parse::<u8>() {
        return (bits <= family_bits).then_some(bits);
    }
    let (bits, ones, zeros) = match bare.parse::<IpAddr>().ok()? {
        IpAddr::V4(mask) => (
            32,
            mask.to_bits().leading_ones(),
            mask.to_bits().trailing_zeros(),
        ),
        IpAddr::V6(mask) => (
            128,
            mask.to_bits().leading_ones(),
            mask.to_bits().trailing_zeros(),
        ),
    };
    (bits == u32::from(family_bits) && ones + zeros == bits).then_some(ones as u8)
}

/// The protocol's word in lower case, if IPVS balances it.
pub(super) fn protocol(text: &str) -> Option<Protocol> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::PortRange;

    #[test]
    fn names_are_made_of_what_is_claimed() {
        let vip = |address: &str, protocol, ports| Vip {
            address: address.parse().unwrap(),
            protocol,
            ports,
        };
        let web = vip("192.0.2.80", Protocol::Tcp, PortRange::single(80));
        assert_eq!(name_of(&web), "tcp-192.0.2.80-80");
        let web6 = vip("2001:db8::80", Protocol::Udp, PortRange::ANY);
        assert_eq!(name_of(&web6), "udp-2001-db8--80-any");
        for (text, name) in [("_a b", "a-b"), ("ü", "imported"), ("", "imported")] {
            assert_eq!(clean(text), name);
        }
        assert_eq!(clean(&"x".repeat(100)).len(), 63);
    }

    #[test]
    fn masks_are_numbers_of_bits() {
        for (text, bits, expected) in [
            ("255.255.255.0", 32, Some(24)),
            ("0.0.0.0", 32, Some(0)),
            ("255.255.255.255", 32, Some(32)),
            ("255.0.255.0", 32, None),
            ("64", 128, Some(64)),
            ("/64", 32, None),
            ("ffff:ffff::", 128, Some(32)),
            ("255.255.255.0", 128, None),
            ("x", 32, None),
        ] {
            assert_eq!(mask_bits(text, bits), expected, "{text}");
        }
    }
}
