//! Why a specification cannot be used.

use std::net::IpAddr;

use crate::spec::Protocol;

/// Why a specification cannot be used. The manager validates before it sends; this is the second lock on the door.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// An id appears twice.
    #[error("rule '{rule}': {what} id {id} is used twice")]
    DuplicateId {
        /// Rule in which it was found.
        rule: String,
        /// "rule" or "server".
        what: &'static str,
        /// The id.
        id: u32,
    },
    /// An id is larger than a connection's entry can hold.
    #[error("rule '{rule}': {what} id {id} is out of range: allowed are 1 to {most}")]
    Id {
        /// Rule in which it was found.
        rule: String,
        /// "rule" or "server".
        what: &'static str,
        /// The id.
        id: u32,
        /// The largest that is allowed.
        most: u32,
    },
    /// A place that is not there, or that another server has.
    #[error(
        "rule '{rule}': server '{server}' cannot have place {place}: allowed are those below {places}, one for each server"
    )]
    Place {
        /// The rule.
        rule: String,
        /// The server.
        server: String,
        /// Its place.
        place: u32,
        /// How many there are.
        places: u32,
    },
    /// A list is too short or too long.
    #[error("rule '{rule}': {count} {what} are not allowed; {allowed} are")]
    Count {
        /// The rule.
        rule: String,
        /// What was counted.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Addresses of both families in one rule.
    #[error("rule '{rule}': {address} is not of the family of the VIP {vip}")]
    Family {
        /// The rule.
        rule: String,
        /// The address.
        address: IpAddr,
        /// The VIP.
        vip: IpAddr,
    },
    /// A port range that ends before it begins, or does not fit the server's ports.
    #[error(
        "rule '{rule}': ports {first}-{last} cannot be mapped to server '{server}' from port {to} on"
    )]
    Ports {
        /// The rule.
        rule: String,
        /// The server.
        server: String,
        /// First port of the VIP.
        first: u16,
        /// Last port of the VIP.
        last: u16,
        /// First port of the server.
        to: u16,
    },
    /// DSR or TUN with other ports at the server.
    #[error(
        "rule '{rule}': server '{server}' has ports of its own, which DSR and TUN cannot reach"
    )]
    DsrPorts {
        /// The rule.
        rule: String,
        /// The server.
        server: String,
    },
    /// TUN without an outer source address of a server's family.
    #[error(
        "rule '{rule}': no-tunnel-source: server '{server}' is at {address}, and none of the rule's proxy-src addresses is \
         of that family"
    )]
    NoTunnelSource {
        /// The rule.
        rule: String,
        /// The server.
        server: String,
        /// Where it is.
        address: IpAddr,
    },
    /// A VIP that no packet may be balanced to.
    #[error("rule '{rule}': {address} is not the address of a single host and cannot be a VIP")]
    NotUnicast {
        /// The rule.
        rule: String,
        /// The VIP.
        address: IpAddr,
    },
    /// Ports where there are none.
    #[error(
        "rule '{rule}': protocol {protocol} has no ports, but the VIP names ports {first}-{last}"
    )]
    NoPorts {
        /// The rule.
        rule: String,
        /// The protocol.
        protocol: Protocol,
        /// First port of the VIP.
        first: u16,
        /// Last port of the VIP.
        last: u16,
    },
    /// One-packet scheduling where answers come back through us, or of another protocol than UDP.
    #[error("rule '{rule}': one-packet scheduling is for UDP under DSR or TUN only")]
    OnePacket {
        /// The rule.
        rule: String,
    },
    /// A client prefix that is longer than an address.
    #[error("rule '{rule}': a prefix of {address} cannot be {len} bits long")]
    PrefixLength {
        /// The rule.
        rule: String,
        /// The prefix's address.
        address: IpAddr,
        /// Its length.
        len: u8,
    },
    /// Two rules accept the same connections, and neither is more specific than the other.
    #[error(
        "rules '{first}' and '{second}' both accept {protocol} connections to {address} port {port}"
    )]
    Overlap {
        /// One rule.
        first: String,
        /// The other rule.
        second: String,
        /// The VIP.
        address: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// A port that both claim.
        port: u16,
    },
}
