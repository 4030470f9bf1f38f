//! A rule: which traffic is balanced, how, and to which server group.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::{self, Family, Purpose};
use crate::error::{Item, ModelError};
use crate::words::{self, Word};

use crate::algorithm::{self, ALGORITHMS};
pub use crate::algorithm::{Algorithm, Flags};
pub use crate::healthcheck::CheckPort;
pub use crate::healthcheck_use::HealthCheckUse;
pub use crate::notify::{Notify, NotifyCommand, NotifyEvent};
pub use crate::panicmode::{PANIC_THRESHOLD, PanicMode};
pub use crate::settings::RuleSettings;
pub use crate::timeout::{Timeout, Timeouts};
pub use crate::tunnel::{Tunnel, TunnelChecksum};
pub use crate::vip::{Prefix, Vip, VipSettings, Vips};
use crate::{panicmode, vip};

/// Most source addresses of a rule towards its servers; with [`Topology::Tun`] of each family.
pub const MAX_PROXY_SRC: usize = 10;
/// Longest name of a rule or server group, in characters.
pub const MAX_NAME: usize = 63;
/// Seconds of persistence unless set, as with ilbadm.
pub const PERSIST_TIMEOUT: u32 = 60;

/// One rule. `name` is unique in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Durable number, never 0, never given to another rule. Connections remember their rule by it.
    pub number: u32,
    /// As spelled by the administrator.
    pub name: String,
    /// Whether it takes new connections.
    pub enabled: bool,
    /// Where clients connect to.
    #[serde(flatten)]
    pub vips: Vips,
    /// Clients that it is for; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<Prefix>,
    /// How a server is chosen.
    pub algorithm: Algorithm,
    /// Options of the algorithm.
    #[serde(default, skip_serializing_if = "Flags::is_none")]
    pub flags: Flags,
    /// How packets reach the servers.
    pub topology: Topology,
    /// How packets are wrapped: with [`Topology::Tun`], and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// Source addresses towards the servers: 1 to 10 with [`Topology::Nat`]; those of the outer header, 1 to 10 of each
    /// family that servers have, with [`Topology::Tun`]; else none.
    #[serde(default)]
    pub proxy_src: Vec<IpAddr>,
    /// Whether and how long a client comes back to its server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// Every datagram is a choice of its own and leaves no entry; UDP under DSR or TUN.
    #[serde(default, skip_serializing_if = "is_false")]
    pub one_packet: bool,
    /// What becomes of connections whose server is dead or gone.
    #[serde(default, skip_serializing_if = "Orphans::is_default")]
    pub orphans: Orphans,
    /// What the other node of a pair is told of its connections.
    #[serde(default, skip_serializing_if = "Synchronise::is_default")]
    pub sync: Synchronise,
    /// Seconds in which the share of a server that came up rises to its full weight; 0 for at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slow_start: u32,
    /// New flows a second; 0 is no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_new_flows: u32,
    /// Weight of servers that is enough: with less, those of the next tier serve, too, and in the end the sorry servers. At
    /// least 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub quorum: u32,
    /// Weight above the quorum that it takes to have it again, and below it to lose it; less than it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hysteresis: u32,
    /// What is done when most of its servers look dead at once.
    #[serde(default, skip_serializing_if = "PanicMode::is_none")]
    pub panic_mode: PanicMode,
    /// Percentage of living servers below which that is so, 1 to 100.
    #[serde(
        default = "panicmode::threshold",
        skip_serializing_if = "panicmode::is_usual"
    )]
    pub panic_threshold: u8,
    /// What is run when its servers come and go, or its quorum does.
    #[serde(default, skip_serializing_if = "Notify::is_empty")]
    pub notify: Notify,
    /// Name of the server group, spelled as the group is.
    pub servergroup: String,
    /// Seconds that connections may live on after the rule or their server was disabled or removed; 0 waits for the
    /// last one.
    #[serde(default)]
    pub conn_drain: u32,
    /// Seconds after which an idle connection is forgotten; 0 means the default of the protocol.
    #[serde(default)]
    pub nat_timeout: u32,
    /// Idle times of single states.
    #[serde(default, skip_serializing_if = "Timeouts::is_empty")]
    pub timeouts: Timeouts,
    /// What its servers have to pass to get new connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheckUse>,
    /// Whether the manager puts the rule's addresses on an interface.
    #[serde(default = "yes")]
    pub manage_addresses: bool,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn is_one(value: &u32) -> bool {
    *value == 1
}

/// Largest weight that can be asked for, that of LVS and keepalived.
pub const MAX_QUORUM: u32 = i32::MAX.unsigned_abs();

/// Checks which weight is enough.
///
/// # Errors
/// [`ModelError::Invalid`].
pub(crate) fn check_quorum(quorum: u32, hysteresis: u32) -> Result<(), ModelError> {
    if !(1..=MAX_QUORUM).contains(&quorum) {
        let allowed = format!("use a weight from 1 to {MAX_QUORUM}");
        return Err(ModelError::invalid(
            "quorum",
            quorum.to_string(),
            "is out of range",
            allowed,
        ));
    }
    if hysteresis >= quorum {
        let problem = format!("is not less than quorum {quorum}");
        let allowed = format!("use 0 to {}, or give a larger quorum", quorum - 1);
        return Err(ModelError::invalid(
            "hysteresis",
            hysteresis.to_string(),
            problem,
            allowed,
        ));
    }
    Ok(())
}

pub(crate) fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Rule {
    /// Seconds after which an idle connection to the first VIP is forgotten, see [`Rule::timeout`].
    pub fn idle_timeout(&self) -> u32 {
        self.timeout(match self.vips.first().map(|vip| vip.protocol) {
            Some(Protocol::Tcp) | None => Timeout::TcpEstablished,
            Some(Protocol::Udp) => Timeout::Udp,
            Some(Protocol::Sctp) => Timeout::Sctp,
            Some(Protocol::Icmp) => Timeout::Icmp,
            Some(Protocol::Any) => Timeout::Other,
        })
    }

    /// Seconds after which a connection in this state is forgotten: what was set for it; for open connections nat-timeout;
    /// or ilbadm's defaults for NAT of both kinds (120 for TCP, 60 for UDP), or those of the kernel's IPVS under DSR and
    /// TUN (900 and 300), where an entry holds no NAT port and there is no reason to forget early.
    pub fn timeout(&self, state: Timeout) -> u32 {
        if let Some(&seconds) = self.timeouts.get(&state) {
            return seconds;
        }
        let direct = matches!(self.topology, Topology::Dsr | Topology::Tun);
        match (state, self.nat_timeout) {
            (Timeout::TcpEstablished, 0) if !direct => 120,
            (Timeout::Udp, 0) if !direct => 60,
            (Timeout::TcpEstablished | Timeout::Udp | Timeout::Sctp, seconds) if seconds > 0 => {
                seconds
            }
            _ => state.default_seconds(),
        }
    }

    /// The address family of the rule, and, but for TUN, of its servers and NAT sources.
    pub fn family(&self) -> Family {
        self.vips.family()
    }

    /// The traffic that both rules claim with nothing to tell which is meant, readable, if any. Rules may overlap where
    /// one is more specific: a longer client prefix counts most, then a port range within the other's, then a protocol
    /// rather than `any`.
    pub fn overlap(&self, other: &Rule) -> Option<String> {
        for a in self.vips.iter() {
            for b in other.vips.iter() {
                let Some(ports) = vip::conflict(a, b) else {
                    continue;
                };
                let claim = Vip { ports, ..*a };
                if self.clients.is_empty() && other.clients.is_empty() {
                    return Some(claim.to_string());
                }
                if let Some(client) = self.common_client(other) {
                    return Some(format!("{claim} from {client}"));
                }
            }
        }
        None
    }

    /// A client prefix that both name. A rule for all clients names the one of length 0.
    fn common_client(&self, other: &Rule) -> Option<String> {
        let everyone = |rule: &Rule| {
            rule.clients.is_empty() || rule.clients.iter().any(|client| client.len == 0)
        };
        if everyone(self) && everyone(other) {
            return Some("all clients".to_string());
        }
        let mut mine = self.clients.iter();
        mine.find(|client| other.clients.contains(client))
            .map(ToString::to_string)
    }
}

/// Whether and how long a client comes back to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Persistence {
    /// Leading bits of the client's address that count.
    pub mask: u8,
    /// Seconds after the client's last connection has ended; at least 1.
    pub timeout: u32,
}

/// Protocols that can be balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
    /// Queries of ICMP or ICMPv6: echo above all.
    Icmp,
    /// Every protocol.
    Any,
}

impl Protocol {
    /// Whether its packets have ports.
    pub const fn has_ports(self) -> bool {
        matches!(self, Protocol::Tcp | Protocol::Udp | Protocol::Sctp)
    }
}

/// How packets get to the servers and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Topology {
    /// Direct server return: only the next hop changes, the server answers the client itself.
    #[serde(rename = "DSR")]
    Dsr,
    /// Both addresses are rewritten; the server sees a `proxy-src` address.
    #[serde(rename = "NAT")]
    Nat,
    /// The destination is rewritten; the server's route to the client leads through us.
    #[serde(rename = "HALF-NAT")]
    HalfNat,
    /// The packet travels unchanged within another one; the server unwraps it and answers the client itself.
    #[serde(rename = "TUN")]
    Tun,
}

/// What becomes of connections whose server is dead, or gone from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Orphans {
    /// Their packets go to a server chosen anew.
    #[default]
    Reschedule,
    /// TCP clients are answered with a reset, others with an ICMP "port unreachable".
    Reset,
    /// Their packets are dropped.
    Drop,
    /// They stay with a server that looks dead, which only gets no new ones; those of one that is gone go to others.
    Keep,
}

impl Orphans {
    fn is_default(&self) -> bool {
        *self == Orphans::default()
    }
}

/// What the other node of a pair is told of a rule's connections, so that they go on there when it takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Synchronise {
    /// Each connection and each client's claim to its server.
    #[default]
    Full,
    /// A few octets for each connection with a handshake, by which it finds its server again, and each client's claim. Not
    /// with [`Topology::Nat`].
    Light,
    /// Nothing.
    Off,
}

impl Synchronise {
    fn is_default(&self) -> bool {
        *self == Synchronise::default()
    }
}

pub(crate) const PROTOCOLS: &[Word<Protocol>] = &[
    (Protocol::Tcp, "tcp", &[]),
    (Protocol::Udp, "udp", &[]),
    (Protocol::Sctp, "sctp", &[]),
    (Protocol::Icmp, "icmp", &["icmpv6"]),
    (Protocol::Any, "any", &[]),
];
pub(crate) const TOPOLOGIES: &[Word<Topology>] = &[
    (Topology::Dsr, "DSR", &["d"]),
    (Topology::Nat, "NAT", &["n"]),
    (Topology::HalfNat, "HALF-NAT", &["h"]),
    (Topology::Tun, "TUN", &["t"]),
];
pub(crate) const ORPHANS: &[Word<Orphans>] = &[
    (Orphans::Reschedule, "reschedule", &[]),
    (Orphans::Reset, "reset", &[]),
    (Orphans::Drop, "drop", &[]),
    (Orphans::Keep, "keep", &["inhibit"]),
];

pub(crate) const SYNCS: &[Word<Synchronise>] = &[
    (Synchronise::Full, "full", &[]),
    (Synchronise::Light, "light", &[]),
    (Synchronise::Off, "off", &["none"]),
];

macro_rules! word_enum {
    ($type:ty, $list:ident, $field:literal) => {
        impl $type {
            /// The usual word for it.
            pub fn name(self) -> &'static str {
                words::name($list, self)
            }

            /// Reads a word or its alias, in any case.
            ///
            /// # Errors
            /// [`ModelError::UnknownWord`].
            pub fn parse(text: &str) -> Result<Self, ModelError> {
                words::parse($list, $field, text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

word_enum!(Protocol, PROTOCOLS, "protocol");
word_enum!(Topology, TOPOLOGIES, "type");
word_enum!(Algorithm, ALGORITHMS, "lbalg");
word_enum!(Orphans, ORPHANS, "orphans");
word_enum!(Synchronise, SYNCS, "sync");

/// Checks a rule by itself: addresses, ports, `proxy-src`, and that its options belong together.
///
/// # Errors
/// [`ModelError::Invalid`] or [`ModelError::Missing`].
pub fn check_rule(rule: &Rule) -> Result<(), ModelError> {
    rule_problems(rule).into_iter().next().map_or(Ok(()), Err)
}

/// Everything that is wrong with a rule by itself, see [`check_rule`].
pub(crate) fn rule_problems(rule: &Rule) -> Vec<ModelError> {
    let name = check_name(Item::Rule, &rule.name);
    let vips = vip::check(&rule.vips, &rule.clients);
    let quorum = check_quorum(rule.quorum, rule.hysteresis);
    let mut all = vec![name, vips, quorum];
    // Without a VIP there is no address family that the others could fit.
    if !rule.vips.is_empty() {
        all.push(algorithm::check(rule.algorithm, rule.flags));
        all.push(check_options(rule));
        all.push(check_sync(rule));
        all.push(check_proxy_src(rule));
    }
    all.into_iter().filter_map(Result::err).collect()
}

fn check_options(rule: &Rule) -> Result<(), ModelError> {
    if let Some(tunnel) = rule.tunnel.filter(|_| rule.topology != Topology::Tun) {
        return Err(ModelError::invalid(
            "tunnel",
            tunnel.to_string(),
            format!("is given, but type is {}", rule.topology),
            "only type=TUN has a tunnel; leave it out or use TUN",
        ));
    }
    if let Some(Persistence { mask, timeout }) = rule.persistence {
        let most = rule.family().bits();
        if mask > most {
            return Err(ModelError::invalid(
                "pmask",
                format!("/{mask}"),
                "is out of range",
                format!("use /0 to /{most} with {}", rule.family()),
            ));
        }
        if timeout == 0 {
            return Err(ModelError::invalid(
                "persist-timeout",
                "0",
                "is out of range",
                "use 1 or more seconds",
            ));
        }
    }
    if rule.one_packet {
        let refuse = |problem: String, allowed: &str| {
            Err(ModelError::invalid("one-packet", "yes", problem, allowed))
        };
        if let Some(vip) = rule.vips.iter().find(|vip| vip.protocol != Protocol::Udp) {
            return refuse(
                format!("is given, but protocol is {}", vip.protocol),
                "only udp can be scheduled by the packet",
            );
        }
        if !matches!(rule.topology, Topology::Dsr | Topology::Tun) {
            return refuse(
                format!("is given, but type is {}", rule.topology),
                "answers would find no connection; use DSR or TUN",
            );
        }
        if rule.persistence.is_some() {
            return refuse(
                "is given with persistence".to_string(),
                "each packet is a choice of its own; use one of both",
            );
        }
    }
    Ok(())
}

/// Light synchronisation tells so little of a connection that not all of them can go on by it.
fn check_sync(rule: &Rule) -> Result<(), ModelError> {
    if rule.sync != Synchronise::Light {
        return Ok(());
    }
    let refuse = |problem, allowed| Err(ModelError::invalid("sync", "light", problem, allowed));
    if rule.topology == Topology::Nat {
        return refuse(
            "is given, but type is NAT".to_string(),
            "the port of a connection towards its server is known by the connection alone; use full or off",
        );
    }
    let begins = |protocol| matches!(protocol, Protocol::Tcp | Protocol::Sctp | Protocol::Any);
    match rule.vips.iter().find(|vip| begins(vip.protocol)) {
        Some(_) => Ok(()),
        None => refuse(
            format!(
                "is given, but protocol is {}",
                rule.vips.column(|vip| vip.protocol)
            ),
            "it is for connections with a handshake, those of tcp and sctp; use full or off",
        ),
    }
}

fn check_proxy_src(rule: &Rule) -> Result<(), ModelError> {
    let sources = &rule.proxy_src;
    let list = || {
        let all: Vec<String> = sources.iter().map(ToString::to_string).collect();
        all.join(",")
    };
    let tun = rule.topology == Topology::Tun;
    if rule.topology != Topology::Nat && !tun {
        return match sources.is_empty() {
            true => Ok(()),
            false => Err(ModelError::invalid(
                "proxy-src",
                list(),
                format!("is given, but type is {}", rule.topology),
                "only type=NAT and type=TUN have source addresses of their own; leave proxy-src out or use one of these",
            )),
        };
    }
    if sources.is_empty() {
        return Err(ModelError::Missing {
            field: "proxy-src",
            allowed: format!(
                "type={} needs 1 to {MAX_PROXY_SRC} source addresses towards the servers, such as proxy-src=192.0.2.9",
                rule.topology
            ),
        });
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let mut same = sources
            .iter()
            .filter(|source| Family::of(**source) == family);
        let count = same.clone().count();
        if let (Some(first), Some(last)) = (same.next(), same.next_back())
            && count > MAX_PROXY_SRC
        {
            return Err(ModelError::invalid(
                "proxy-src",
                format!("{first} to {last}"),
                format!("has {count} addresses"),
                format!("use 1 to {MAX_PROXY_SRC}"),
            ));
        }
    }
    for (i, &source) in sources.iter().enumerate() {
        address::check(Purpose::ProxySrc, source)?;
        if !tun && Family::of(source) != rule.family() {
            return Err(ModelError::invalid(
                "proxy-src",
                source.to_string(),
                format!(
                    "is {}, but the vip {} is {}",
                    Family::of(source),
                    rule.vips[0].address,
                    rule.family()
                ),
                format!("use {} addresses", rule.family()),
            ));
        }
        if sources[..i].contains(&source) {
            return Err(ModelError::invalid(
                "proxy-src",
                source.to_string(),
                "is given twice",
                "give each address once",
            ));
        }
    }
    Ok(())
}

/// Checks the name of a rule, server group or health check: 1 to [`MAX_NAME`] ASCII letters, digits, `-`, `_` and `.`,
/// beginning with a letter or digit (a leading `_` marks server ids).
///
/// # Errors
/// [`ModelError::Invalid`].
pub fn check_name(item: Item, name: &str) -> Result<(), ModelError> {
    let field = match item {
        Item::Rule => "rule name",
        Item::ServerGroup => "server group name",
        Item::Server => "server id",
        Item::HealthCheck => "health check name",
        Item::Vrrp => "VRRP instance name",
        Item::SyncGroup => "sync-group",
    };
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let problem = if name.is_empty() {
        "is empty".to_string()
    } else if name.len() > MAX_NAME {
        format!("has {} characters", name.chars().count())
    } else if let Some(c) = name.chars().find(|&c| !c.is_ascii() || !good(c as u8)) {
        format!("contains '{}'", c.escape_default())
    } else if !name.as_bytes()[0].is_ascii_alphanumeric() {
        format!("begins with '{}'", &name[..1])
    } else {
        return Ok(());
    };
    Err(ModelError::invalid(
        field,
        name.escape_debug().to_string(),
        problem,
        format!(
            "use 1 to {MAX_NAME} letters, digits, '-', '_' or '.', beginning with a letter or digit"
        ),
    ))
}
