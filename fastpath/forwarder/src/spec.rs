//! What the service manager hands to the fast path: a complete, validated description of every service.
//!
//! A [`SnapshotSpec`] is data only. It crosses the control socket as it is and is compiled by the fast path into a
//! [`crate::snapshot::Snapshot`] off the workers. Numeric ids are given by the manager, are durable and are never used
//! twice, because a connection remembers its rule and its server by them.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Durable number of a rule. Never 0, never reused.
pub type RuleId = u32;
/// Durable number of a server within all server groups. Never 0, never reused.
pub type ServerId = u32;

/// Everything that one generation of the configuration tells the fast path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotSpec {
    /// Grows by at least one with every change; the fast path acknowledges it.
    pub generation: u64,
    /// What the node as a whole lets in.
    pub limits: Limits,
    /// Rules that accept new connections, and retired ones that still have connections to serve.
    pub rules: Vec<RuleSpec>,
}

/// What is different between two generations of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpecChange {
    /// The generation that it is a difference to. It means nothing to any other.
    pub base: u64,
    /// The generation that it leads to.
    pub generation: u64,
    /// See [`SnapshotSpec::limits`].
    pub limits: Limits,
    /// Rules that are new or different, wholly.
    pub rules: Vec<RuleSpec>,
    /// Rules that are no longer there.
    pub removed: Vec<RuleId>,
}

impl SnapshotSpec {
    /// Carries a change out. Rules are in the order of their ids afterwards.
    pub fn change(&mut self, change: SpecChange) {
        let gone: HashSet<RuleId> = change.rules.iter().map(|rule| rule.id).collect();
        let gone: HashSet<RuleId> = gone.into_iter().chain(change.removed).collect();
        self.rules.retain(|rule| !gone.contains(&rule.id));
        self.rules.extend(change.rules);
        self.rules.sort_by_key(|rule| rule.id);
        (self.generation, self.limits) = (change.generation, change.limits);
    }
}

/// What the node as a whole lets in. 0 is no limit, everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// New flows a second of all rules together. Clients that are known to be real have as many again.
    pub new_flows_per_second: u32,
    /// ICMP errors a second that are carried to a client or a server, and as many that we make ourselves.
    pub icmp_errors_per_second: u32,
    /// Share of the connection table, in percent (0..=100), that flows may fill of which only the first packets have
    /// been seen. 0 is no limit.
    pub embryonic_percent: u8,
    /// Later fragments that may wait for their first one, per worker.
    pub waiting_fragments: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            new_flows_per_second: 0,
            icmp_errors_per_second: 1000,
            embryonic_percent: 50,
            waiting_fragments: 256,
        }
    }
}

/// One rule with the servers that it may choose from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleSpec {
    /// See [`RuleId`].
    pub id: RuleId,
    /// The administrator's name for it, for counters and messages.
    pub name: String,
    /// False for a rule that is disabled or deleted and only serves the connections that it has.
    pub accepting: bool,
    /// Where clients connect to. 1 to 256, all of one address family. Their order is part of the rule's identity:
    /// a connection remembers an index into this list.
    pub vips: Vec<VipSpec>,
    /// Clients that the rule is for, of the VIPs' family; empty for all of them.
    pub clients: Vec<Prefix>,
    /// How packets reach the servers.
    pub topology: Topology,
    /// How packets are wrapped, TUN only.
    pub tunnel: Tunnel,
    /// How a server is chosen for a new connection.
    pub algorithm: Algorithm,
    /// Options of the algorithm.
    pub options: AlgorithmOptions,
    /// NAT: source addresses towards the servers, 1 to 10. TUN: source addresses of the outer header, 1 to 10 for each
    /// family that servers have, chosen by the flow. Empty otherwise. A NAT connection remembers an index into this
    /// list.
    pub proxy_src: Vec<IpAddr>,
    /// Whether a client comes back to its server.
    pub persistence: Option<Persistence>,
    /// One-packet scheduling: every datagram is a choice of its own and leaves no entry. For UDP under DSR or TUN, where
    /// no answer comes back through us.
    pub one_packet: bool,
    /// What becomes of connections whose server is dead or gone.
    pub orphans: Orphans,
    /// Whether connections follow to the peer, if there is one.
    pub sync: Synchronise,
    /// Seconds in which the share of a server that came up rises to its full weight; 0 for at once.
    pub slow_start: u32,
    /// New flows a second; 0 is no limit. Clients that are known to be real have as many again.
    pub new_flows_per_second: u32,
    /// Idle times after which a connection is forgotten.
    pub timeouts: Timeouts,
    /// Servers of the rule's group, and retired ones that still have connections.
    pub servers: Vec<ServerSpec>,
    /// Places in the rule's group, at most 65,536. Algorithms that hash share their table out among all places and then
    /// hand over what belongs to places that nobody takes connections for: only the slots of a server that goes move,
    /// and of one that comes only those that it gets. 0: servers have no places but their ids.
    pub places: u32,
}

impl Default for RuleSpec {
    /// An accepting rule without VIPs and servers, DSR, round robin.
    fn default() -> RuleSpec {
        RuleSpec {
            id: 0,
            name: String::new(),
            accepting: true,
            vips: Vec::new(),
            clients: Vec::new(),
            topology: Topology::Dsr,
            tunnel: Tunnel::default(),
            algorithm: Algorithm::RoundRobin,
            options: AlgorithmOptions::default(),
            proxy_src: Vec::new(),
            persistence: None,
            one_packet: false,
            orphans: Orphans::default(),
            sync: Synchronise::default(),
            slow_start: 0,
            new_flows_per_second: 0,
            timeouts: Timeouts::default(),
            servers: Vec::new(),
            places: 0,
        }
    }
}

/// A virtual address with protocol and ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipSpec {
    /// The virtual address.
    pub address: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Ports that clients may connect to; [`PortRange::ANY`] for protocols that have none.
    pub ports: PortRange,
}

/// A network: all addresses that share the first `len` bits of `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prefix {
    /// The network's address. Bits behind the first `len` do not count.
    pub address: IpAddr,
    /// 0..=32 or 0..=128.
    pub len: u8,
}

/// A server as one rule sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerSpec {
    /// See [`ServerId`].
    pub id: ServerId,
    /// The administrator's id for it, such as `_web.0`.
    pub name: String,
    /// Where it is. An address of this host makes it the local node: packets are handed to the kernel unchanged.
    pub address: IpAddr,
    /// How a VIP's port becomes the server's port.
    pub ports: PortMap,
    /// Share of new connections, 0..=65535; 0 takes no new ones.
    pub weight: u16,
    /// False for a server that is disabled or removed and only serves the connections that it has.
    pub accepting: bool,
    /// True for a server that does not answer: it takes no new connections, and [`RuleSpec::orphans`] says what becomes
    /// of those that it has.
    pub dead: bool,
    /// Connections at which it takes no new ones; 0 is no limit.
    pub max_connections: u32,
    /// Connections below which it takes new ones again after it was full; 0 is three quarters of `max_connections`.
    pub min_connections: u32,
    /// When it came up, in seconds since boot, for [`RuleSpec::slow_start`]; 0 for long ago.
    pub up_since: u32,
    /// Its place in the group, below [`RuleSpec::places`] and of its own among those that are accepting. Without places
    /// it means nothing.
    pub place: u32,
}

impl Default for ServerSpec {
    /// A healthy server of weight 1 without an address.
    fn default() -> ServerSpec {
        ServerSpec {
            id: 0,
            name: String::new(),
            address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            ports: PortMap::Same,
            weight: 1,
            accepting: true,
            dead: false,
            max_connections: 0,
            min_connections: 0,
            up_since: 0,
            place: 0,
        }
    }
}

/// What a VIP is reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
    /// Queries of ICMP (RFC 792) or ICMPv6 (RFC 4443), by the family of the VIP: echo above all. Never errors, which
    /// belong to the connections that they are about, and never neighbour discovery.
    Icmp,
    /// Every protocol but neighbour discovery.
    Any,
}

impl Protocol {
    /// The protocol's number in the IPv4 protocol or IPv6 next-header field; None for any.
    pub const fn number(self, v4: bool) -> Option<u8> {
        match self {
            Protocol::Tcp => Some(6),
            Protocol::Udp => Some(17),
            Protocol::Sctp => Some(132),
            Protocol::Icmp if v4 => Some(1),
            Protocol::Icmp => Some(58),
            Protocol::Any => None,
        }
    }

    /// The protocol that has this number and ports or ids of its own; [`Protocol::Any`] for all others.
    pub const fn from_number(number: u8) -> Protocol {
        match number {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            132 => Protocol::Sctp,
            1 | 58 => Protocol::Icmp,
            _ => Protocol::Any,
        }
    }

    /// Whether its packets have ports.
    pub const fn has_ports(self) -> bool {
        matches!(self, Protocol::Tcp | Protocol::Udp | Protocol::Sctp)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
            Protocol::Icmp => "icmp",
            Protocol::Any => "any",
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
    /// The packet travels unchanged within another one; the server unwraps it and answers the client itself.
    Tun,
}

impl Topology {
    /// Whether packets from the servers come through us.
    pub const fn has_reverse(self) -> bool {
        matches!(self, Topology::HalfNat | Topology::Nat)
    }
}

/// How packets are wrapped on their way to the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tunnel {
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213).
    #[default]
    Ipip,
    /// Generic routing encapsulation (RFC 2784).
    Gre {
        /// Whether the GRE header carries a checksum.
        checksum: bool,
    },
    /// Generic UDP encapsulation (draft-ietf-intarea-gue), variant 0 with an IP packet as payload.
    Gue {
        /// UDP port of the servers; 6080 is the registered one.
        port: u16,
        /// What the outer UDP checksum and the GUE header vouch for.
        checksum: GueChecksum,
    },
}

/// Checksums of GUE, as `ipvsadm --tun-nocsum`, `--tun-csum` and `--tun-remcsum` have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GueChecksum {
    /// No UDP checksum (RFC 6935 and RFC 6936 for IPv6).
    #[default]
    None,
    /// A UDP checksum.
    Udp,
    /// Remote checksum offload (draft-herbert-remotecsumoffload): a UDP checksum, and the inner one left to the receiver.
    Remote,
}

/// How a server is chosen for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Each server in turn, whatever its weight.
    RoundRobin,
    /// Each server in turn, as often as its weight says.
    WeightedRoundRobin,
    /// The server with the fewest connections.
    LeastConnection,
    /// The server with the fewest connections for its weight.
    WeightedLeastConnection,
    /// Shortest expected delay: fewest (connections + 1) for its weight.
    ShortestExpectedDelay,
    /// Never queue: an idle server if there is one, otherwise shortest expected delay.
    NeverQueue,
    /// Locality-based least connection: the server that the VIP had, unless it is overloaded.
    LocalityLeastConnection,
    /// As before, with a set of servers for each VIP that grows under load and shrinks later.
    LocalityLeastConnectionReplication,
    /// By the VIP.
    DestinationHash,
    /// By the client's address.
    SourceHash,
    /// The server with the highest weight that takes new connections.
    Failover,
    /// The server with the highest weight whose connections are fewer than its weight.
    Overflow,
    /// By the client's address, with a Maglev table of 65,537 slots.
    Maglev,
    /// The less loaded of two that were drawn by weight.
    TwoChoices,
    /// By the client's address.
    HashIp,
    /// By the client's address and port.
    HashIpPort,
    /// By the client's address and the VIP.
    HashIpVip,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 17] = [
        Algorithm::RoundRobin,
        Algorithm::WeightedRoundRobin,
        Algorithm::LeastConnection,
        Algorithm::WeightedLeastConnection,
        Algorithm::ShortestExpectedDelay,
        Algorithm::NeverQueue,
        Algorithm::LocalityLeastConnection,
        Algorithm::LocalityLeastConnectionReplication,
        Algorithm::DestinationHash,
        Algorithm::SourceHash,
        Algorithm::Failover,
        Algorithm::Overflow,
        Algorithm::Maglev,
        Algorithm::TwoChoices,
        Algorithm::HashIp,
        Algorithm::HashIpPort,
        Algorithm::HashIpVip,
    ];
}

/// Options of an algorithm, for those that have them (sh and mh of IPVS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AlgorithmOptions {
    /// Sh, mh: when the server that the hash names is full, take another instead of none.
    pub fallback: bool,
    /// Sh, mh: hash the client's port too.
    pub port: bool,
}

/// A client, or its network, comes back to the server that it had, whichever VIP and port of the rule it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Persistence {
    /// Leading bits of the client's address that count: 0..=32 or 0..=128.
    pub mask: u8,
    /// Seconds after the client's last connection has ended; at least 1.
    pub timeout: u32,
}

/// What becomes of connections whose server is dead, or gone from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Orphans {
    /// Their packets go to a server chosen anew. One that does not know a TCP connection resets it.
    #[default]
    Reschedule,
    /// TCP clients are answered with a reset, others with an ICMP "port unreachable".
    Reset,
    /// Their packets are dropped.
    Drop,
}

/// What the peer is told of a rule's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Synchronise {
    /// Every connection, and every claim of a client.
    #[default]
    Full,
    /// A few octets for each connection with a handshake, and every claim of a client.
    Light,
    /// Nothing.
    Off,
}

/// Idle times in seconds after which a connection is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// An open TCP connection.
    pub tcp_established: u32,
    /// A TCP connection whose handshake is not finished.
    pub tcp_syn_received: u32,
    /// A TCP connection that the client has closed.
    pub tcp_fin_wait: u32,
    /// A TCP connection that both have closed, the client first.
    pub tcp_time_wait: u32,
    /// A TCP connection that was reset.
    pub tcp_close: u32,
    /// A TCP connection that the server has closed.
    pub tcp_close_wait: u32,
    /// A TCP connection that both have closed, the server first.
    pub tcp_last_ack: u32,
    /// A UDP flow.
    pub udp: u32,
    /// An SCTP association.
    pub sctp: u32,
    /// A series of ICMP queries.
    pub icmp: u32,
    /// A flow of any other protocol.
    pub other: u32,
}

impl Default for Timeouts {
    /// Those of the kernel's IPVS (`net/netfilter/ipvs/ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`).
    fn default() -> Timeouts {
        Timeouts {
            tcp_established: 900,
            tcp_syn_received: 60,
            tcp_fin_wait: 120,
            tcp_time_wait: 120,
            tcp_close: 10,
            tcp_close_wait: 60,
            tcp_last_ack: 30,
            udp: 300,
            sctp: 900,
            icmp: 30,
            other: 300,
        }
    }
}
