//! Addresses as an administrator writes them, and which of them may be a VIP, a server or a NAT source.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// Most addresses that a range may span.
pub const MAX_RANGE: u32 = 256;

/// What an address is meant for. Decides what it may be and how messages call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Clients connect to it.
    Vip,
    /// Packets are forwarded to it.
    Server,
    /// Source of the connections to servers.
    ProxySrc,
}

impl Purpose {
    /// The field's name in messages.
    pub const fn field(self) -> &'static str {
        match self {
            Purpose::Vip => "vip",
            Purpose::Server => "server address",
            Purpose::ProxySrc => "proxy-src",
        }
    }
}

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// RFC 791.
    Ipv4,
    /// RFC 8200.
    Ipv6,
}

impl Family {
    /// The family of `address`.
    pub const fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }

    /// Bits of an address.
    pub const fn bits(self) -> u8 {
        match self {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        })
    }
}

/// Reads an address (IPv6 with or without brackets) and checks that it may serve `purpose`.
///
/// # Errors
/// [`ModelError::Invalid`] if it is no address, or one that [`check`] refuses.
pub fn parse(purpose: Purpose, text: &str) -> Result<IpAddr, ModelError> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    let address: IpAddr = bare.parse().map_err(|_| {
        ModelError::invalid(
            purpose.field(),
            text,
            "is not an IP address",
            "use an address such as 192.0.2.1 or 2001:db8::1",
        )
    })?;
    check(purpose, address)?;
    Ok(address)
}

/// Checks that `address` may serve `purpose`: no loopback, multicast, unspecified or broadcast address, no IPv4-mapped
/// IPv6 address, and no IPv6 link-local one, which would mean nothing without its interface. IPv4 link-local addresses
/// (169.254.0.0/16) are allowed.
///
/// # Errors
/// [`ModelError::Invalid`] that says what the address is and what to use.
pub fn check(purpose: Purpose, address: IpAddr) -> Result<(), ModelError> {
    let refuse = |problem: &str, allowed: String| {
        Err(ModelError::invalid(
            purpose.field(),
            address.to_string(),
            problem,
            allowed,
        ))
    };
    let unicast = || "use a unicast address that other hosts can reach".to_string();
    if let IpAddr::V6(v6) = address {
        if let Some(v4) = v6.to_ipv4_mapped() {
            return refuse("is an IPv4-mapped IPv6 address", format!("write {v4}"));
        }
        if v6.is_unicast_link_local() {
            return refuse(
                "is a link-local address, which is valid on one link only",
                "use a global or unique local (fc00::/7) address".to_string(),
            );
        }
    }
    if address.is_unspecified() {
        return refuse("is the unspecified address", unicast());
    }
    if address.is_loopback() {
        return refuse("is a loopback address", unicast());
    }
    if address.is_multicast() {
        return refuse("is a multicast address", unicast());
    }
    if let IpAddr::V4(v4) = address {
        if v4.is_broadcast() {
            return refuse("is the broadcast address", unicast());
        }
        if v4.octets()[0] == 0 {
            return refuse("is in 0.0.0.0/8, which means \"this network\"", unicast());
        }
        if v4.octets()[0] >= 240 {
            return refuse("is in 240.0.0.0/4, which is reserved", unicast());
        }
    }
    Ok(())
}

/// Reads an address or a range `a-b` of at most [`MAX_RANGE`] addresses. `text` stands in messages for the whole.
///
/// # Errors
/// As [`parse`]; [`ModelError::Invalid`] for a range that mixes families, ends before it begins, or is too long.
pub fn parse_range(purpose: Purpose, text: &str) -> Result<Vec<IpAddr>, ModelError> {
    let outer = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .filter(|t| !t.contains(['[', ']']))
        .unwrap_or(text);
    match outer.split_once('-') {
        None => parse(purpose, text).map(|address| vec![address]),
        Some((first, last)) => expand(purpose, text, parse(purpose, first)?, parse(purpose, last)?),
    }
}

fn expand(
    purpose: Purpose,
    text: &str,
    first: IpAddr,
    last: IpAddr,
) -> Result<Vec<IpAddr>, ModelError> {
    let refuse = |problem: String, allowed: String| {
        Err(ModelError::invalid(purpose.field(), text, problem, allowed))
    };
    let (from, to) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits())),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits()),
        _ => {
            return refuse(
                "begins in one address family and ends in the other".to_string(),
                "use two IPv4 or two IPv6 addresses".to_string(),
            );
        }
    };
    if from > to {
        return refuse(
            "ends before it begins".to_string(),
            format!("write {last}-{first}"),
        );
    }
    let count = (to - from).saturating_add(1);
    if count > u128::from(MAX_RANGE) {
        return refuse(
            "spans too many addresses".to_string(),
            format!("a range may span at most {MAX_RANGE}; split it"),
        );
    }
    let addresses: Vec<IpAddr> = (from..=to)
        .map(|bits| match first {
            // The value came from a u32, or lies between two that did.
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        })
        .collect();
    for &address in &addresses {
        check(purpose, address)?;
    }
    Ok(addresses)
}

/// `address`, in brackets if it is IPv6, as it stands before a port.
pub fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}
