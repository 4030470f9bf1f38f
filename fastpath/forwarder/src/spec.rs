//! What the service manager hands to the fast path: a complete, validated description of every service.
//!
//! A [`SnapshotSpec`] is data only. It crosses the control socket as it is and is compiled by the fast path into a
//! [`crate::snapshot::Snapshot`] off the workers. Numeric ids are given by the manager, are durable and are never used
//! twice, because a connection remembers its rule and its server by them.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Durable number of a rule. Never 0, never reused.
pub type RuleId = u32;
/// Durable number of a server within all server groups. Never 0, never reused.
pub type ServerId = u32;

/// Everything that one generation of the configuration tells the fast path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSpec {
    /// Grows by at least one with every change; the fast path acknowledges it.
    pub generation: u64,
    /// Rules that accept new connections, and retired ones that still have connections to serve.
    pub rules: Vec<RuleSpec>,
}

/// One rule with the servers that it may choose from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSpec {
    /// See [`RuleId`].
    pub id: RuleId,
    /// The administrator's name for it, for counters and messages.
    pub name: String,
    /// False for a rule that is disabled or deleted and only serves the connections that it has.
    pub accepting: bool,
    /// Where clients connect to. At most 256, all of one address family. Their order is part of the rule's identity:
    /// a connection remembers an index into this list.
    pub vips: Vec<VipSpec>,
    /// How packets reach the servers.
    pub topology: Topology,
    /// How a server is chosen for a new connection.
    pub algorithm: Algorithm,
    /// Source addresses towards the servers, NAT only, 1 to 10. A connection remembers an index into this list.
    pub proxy_src: Vec<IpAddr>,
    /// Idle times after which a connection is forgotten.
    pub timeouts: Timeouts,
    /// Servers of the rule's group, and retired ones that still have connections.
    pub servers: Vec<ServerSpec>,
}

/// A virtual address with protocol and ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipSpec {
    /// The virtual address.
    pub address: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Ports that clients may connect to.
    pub ports: PortRange,
}

/// A server as one rule sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// See [`ServerId`].
    pub id: ServerId,
    /// The administrator's id for it, such as `_web.0`.
    pub name: String,
    /// Where it is.
    pub address: IpAddr,
    /// How a VIP's port becomes the server's port.
    pub ports: PortMap,
    /// Share of new connections, 0..=65535; 0 takes no new ones.
    pub weight: u16,
    /// False for a server that is disabled or removed and only serves the connections that it has.
    pub accepting: bool,
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

impl Protocol {
    /// The protocol's number in the IPv4 protocol and IPv6 next-header fields.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    /// The protocol with this number, if it can be balanced.
    pub const fn from_number(number: u8) -> Option<Protocol> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// Ports `first..=last`. `0-65535` is every port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// Every port.
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

    /// Whether `port` is in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// How a VIP's port becomes a server's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortMap {
    /// The server listens on the ports of the VIP.
    Same,
    /// Every port of the VIP goes to this one port.
    Collapse(u16),
    /// The VIP's first port goes to this port, the next one to the next, and so on.
    Shift(u16),
}

/// How packets get to the servers and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Direct server return: only the next hop changes; the server answers the client itself.
    Dsr,
    /// The destination is rewritten; the server's default route leads back through us.
    HalfNat,
    /// Both addresses are rewritten; the server sees one of our `proxy_src` addresses.
    Nat,
}

/// How a server is chosen for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Each server in turn.
    RoundRobin,
    /// By the client's address.
    HashIp,
    /// By the client's address and port.
    HashIpPort,
    /// By the client's address and the VIP.
    HashIpVip,
}

/// Idle times in seconds after which a connection is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// An open TCP connection.
    pub tcp_established: u32,
    /// A TCP connection whose handshake is not finished.
    pub tcp_syn: u32,
    /// A TCP connection that at least one end has closed.
    pub tcp_fin: u32,
    /// A TCP connection that was reset.
    pub tcp_close: u32,
    /// A UDP flow.
    pub udp: u32,
}

impl Default for Timeouts {
    /// The defaults of ilbadm for idle NAT connections (120 s, 60 s) and of the kernel's IPVS for the rest
    /// (`net/netfilter/ipvs/ip_vs_proto_tcp.c`).
    fn default() -> Timeouts {
        Timeouts {
            tcp_established: 120,
            tcp_syn: 60,
            tcp_fin: 120,
            tcp_close: 10,
            udp: 60,
        }
    }
}
