//! What the forwarder would do with a packet, and why: answered by the code that forwards, which is made to look and not
//! to touch (see [`crate::table::Table::rehearsal`]). Nothing changes: no entry, no turn, no counter, no limit.
//!
//! What an explanation cannot know is what happens between it and the packet. A packet that ends a connection before it
//! begins another (its client uses a port again, or the table is full) may change which server has the least load, or is
//! full; the explanation goes by the loads before. And a HALF-NAT client that uses one port
//! towards two VIPs makes the forwarder choose up to four times; asked without being made, a choice is the same each
//! time, so that the explanation ends in a collision where the forwarder may find another server.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::address::Addr;
use crate::checksum;
use crate::forwarder::{Rehearsed, rehearse};
use crate::listing::{self, End};
use crate::matching::Miss;
use crate::packet::{self, Headers, Kind, Tuple, protocol};
use crate::persistence;
use crate::snapshot::{Rule, Vip};
use crate::spec::{Algorithm, PortRange, Protocol, RuleId, ServerId, Topology};
use crate::state;
use crate::table::{Direction, Table};
use crate::verdict::Verdict;
use crate::view::View;

/// Misses and servers that an explanation names.
const MOST: usize = 64;

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Query {
    /// Where it comes from. For ICMP queries the port is the identifier, and 0 in replies.
    pub source: End,
    /// Where it goes. For ICMP replies the port is the identifier, and 0 in queries.
    pub destination: End,
    /// Protocol number.
    pub protocol: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// Type of the first SCTP chunk or of the ICMP message.
    pub message: u8,
    /// Length of the IP packet; the smallest possible if it is less.
    pub length: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Number of the interface that it comes in by.
    pub ingress: u8,
}

impl Default for Query {
    /// A TCP SYN from nowhere to nowhere.
    fn default() -> Query {
        let nowhere = End {
            address: IpAddr::from([0, 0, 0, 0]),
            port: 0,
        };
        Query {
            source: nowhere,
            destination: nowhere,
            protocol: protocol::TCP,
            tcp_flags: packet::tcp::SYN,
            message: 0,
            length: 0,
            ttl: 64,
            ingress: 0,
        }
    }
}

/// A query that is no packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Addresses of both families.
    #[error("{0} and {1} are not of one family")]
    Family(IpAddr, IpAddr),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Generation of the configuration that it is by.
    pub generation: u64,
    /// The connection that the packet belongs to, as it is before the packet.
    pub entry: Option<listing::Entry>,
    /// Where the connection comes from that the packet would be of.
    pub origin: Origin,
    /// Whether the packet is on its way from the server to the client.
    pub from_server: bool,
    /// The rule that it is for.
    pub rule: Option<Matched>,
    /// VIPs of the packet's destination that do not get it, nearest first; when no rule does, or a more specific one.
    pub misses: Vec<Missed>,
    /// Servers of the rule, and why they are or are not candidates. Only for packets that begin a connection.
    pub servers: Vec<Candidate>,
    /// The client's claim to a server of the rule, if the rule is persistent and the packet begins a connection: while
    /// that server is a candidate, it is chosen, whatever the algorithm says and however many connections it has.
    #[serde(default)]
    pub claim: Option<listing::Entry>,
    /// The server that it goes to, or comes from.
    pub server: Option<Chosen>,
    /// How it leaves; None if it does not.
    pub leaving: Option<Leaving>,
    /// What becomes of it.
    pub outcome: Outcome,
    /// Whether it leaves as it came, for another node that may know its connection: addresses are moving.
    #[serde(default)]
    pub relayed: bool,
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
    /// It is not in the table, but a version of the rule's pool knows its server.
    Recovered,
}

/// A rule that gets a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matched {
    /// The rule.
    pub id: RuleId,
    /// Its name.
    pub name: String,
    /// Its VIP that the packet met.
    pub vip: VipText,
    /// How packets reach its servers.
    pub topology: Topology,
    /// How a server is chosen.
    pub algorithm: Option<Algorithm>,
    /// The version of its pool that connections begin with.
    pub pool_version: u16,
}

/// A VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipText {
    /// Its address.
    pub address: IpAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its ports.
    pub ports: PortRange,
}

/// A VIP that a packet is not for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Its rule.
    pub id: RuleId,
    /// The rule's name.
    pub name: String,
    /// The VIP.
    pub vip: VipText,
    /// What is in the way; nothing if a more specific VIP gets the packet.
    pub obstacles: Vec<String>,
}

/// A server of the rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The server.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// Its weight, if it is a candidate.
    pub weight: Option<u16>,
    /// Connections that are open, as of the last census.
    pub open: u32,
    /// All connections that have an entry, as of the last census.
    pub total: u32,
    /// Why it takes no new connections; None if it does.
    pub obstacle: Option<String>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// The server.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub end: End,
    /// The version of the pool that it comes from.
    pub pool_version: u16,
}

/// A packet on its way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Its source now.
    pub source: End,
    /// Its destination now.
    pub destination: End,
    /// Its protocol now: that of the outer header if it travels within another packet.
    pub protocol: u8,
    /// Number of the interface that it leaves by.
    pub interface: u8,
    /// The neighbour's link-layer address, if it is known.
    pub neighbour: Option<[u8; 6]>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is sent.
    Transmit,
    /// It waits until its next hop is resolved.
    Unresolved {
        /// The next hop.
        next_hop: IpAddr,
    },
    /// The kernel gets it, unchanged.
    Kernel,
    /// It waits for the first fragment of its datagram.
    Hold,
    /// It is dropped.
    Drop {
        /// The reason's name in counters.
        reason: String,
        /// The reason in words.
        words: String,
    },
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Outcome {
        match verdict {
            Verdict::Transmit(_) => Outcome::Transmit,
            Verdict::Unresolved { next_hop, .. } => Outcome::Unresolved { next_hop },
            Verdict::Kernel => Outcome::Kernel,
            Verdict::Hold { .. } => Outcome::Hold,
            Verdict::Drop(reason) => Outcome::Drop {
                reason: reason.label().into(),
                words: reason.words().into(),
            },
        }
    }
}

/// Explains a packet. Not for a worker: it allocates.
///
/// # Errors
/// When there can be no such packet.
pub fn explain(
    view: &View,
    table: &Arc<Table>,
    query: &Query,
    now: u32,
) -> Result<Explanation, QueryError> {
    let (source, destination) = (query.source.address, query.destination.address);
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(QueryError::Family(source, destination));
    }
    Ok(explain_frame(
        view,
        table,
        &frame(query),
        query.ingress,
        now,
    ))
}

/// Explains a frame.
pub fn explain_frame(
    view: &View,
    table: &Arc<Table>,
    frame: &[u8],
    ingress: u8,
    now: u32,
) -> Explanation {
    let headers = packet::parse(frame).ok();
    let tuple = headers
        .filter(|headers| headers.kind == Kind::Transport)
        .map(|headers| headers.tuple);
    let known = tuple.and_then(|tuple| known(view, table, &tuple));
    let rehearsed = rehearse(view, table, frame, ingress, now);
    let flow = rehearsed
        .connection
        .and_then(|(identity, _)| view.flow(identity));
    let origin = match rehearsed.connection {
        None => Origin::None,
        Some(_) if rehearsed.recovered => Origin::Recovered,
        Some(_) if rehearsed.begins => Origin::Begins,
        Some(_) => Origin::Known,
    };
    // An orphan stays with its rule, even if that takes nobody new; a handshake is for whoever accepts it.
    let orphaned = || {
        let begins = headers.as_ref().is_none_or(state::begins_with_handshake);
        known.filter(|_| !begins).map(|known| known.identity)
    };
    let accepting = || tuple.and_then(|tuple| view.snapshot.accepting(&tuple));
    let connection = rehearsed.connection.map(|(identity, _)| identity);
    let rule = match connection.or_else(orphaned) {
        Some(identity) => view
            .snapshot
            .rule_by_id(identity.rule)
            .map(|rule| (rule, identity.vip_index)),
        None => accepting().map(|(rule, vip)| (&view.snapshot.rules()[rule as usize], vip)),
    };
    let misses = match origin {
        Origin::Known => Vec::new(),
        Origin::None | Origin::Begins | Origin::Recovered => {
            tuple.map_or(Vec::new(), |tuple| view.snapshot.misses(&tuple))
        }
    };
    let (servers, claim) = match (origin, rule) {
        (Origin::Known | Origin::Recovered, _) | (_, None) => (Vec::new(), None),
        (Origin::None | Origin::Begins, Some((rule, _))) => (
            servers(view, rule),
            tuple.and_then(|tuple| claim(table, rule, tuple.src)),
        ),
    };
    Explanation {
        generation: view.snapshot.generation(),
        entry: known.map(|known| listing::entry(view, &known, now)),
        origin,
        from_server: matches!(rehearsed.connection, Some((_, Direction::Reverse))),
        rule: rule.and_then(|(rule, vip)| matched(rule, vip)),
        misses: misses
            .iter()
            .take(MOST)
            .filter_map(|miss| missed(view, miss))
            .collect(),
        servers,
        claim: claim.map(|claim| listing::entry(view, &claim, now)),
        server: flow.map(|flow| Chosen {
            id: flow.target.server,
            name: flow.target.name.clone(),
            end: End::new(flow.target.address, flow.server_port()),
            pool_version: flow.identity.pool_version,
        }),
        leaving: leaving(&rehearsed),
        outcome: rehearsed.verdict.into(),
        relayed: rehearsed.relayed,
    }
}

fn known(view: &View, table: &Table, tuple: &Tuple) -> Option<crate::table::Connection> {
    let hash = table.hasher().tuple(tuple);
    let found = table.find(hash as u32, |connection, direction| {
        view.recognise(tuple, connection, direction).is_some()
    })?;
    table.get(found.index)
}

fn claim(table: &Table, rule: &Rule, client: Addr) -> Option<crate::table::Connection> {
    let client = persistence::masked(client, rule.persistence?.mask);
    let (found, _) = persistence::find(table, &table.hasher(), rule.id, client)?;
    table.get(found.index)
}

fn text(vip: &Vip) -> VipText {
    VipText {
        address: vip.address.into(),
        protocol: vip.protocol,
        ports: vip.ports,
    }
}

fn matched(rule: &Rule, vip: u8) -> Option<Matched> {
    Some(Matched {
        id: rule.id,
        name: rule.name.clone(),
        vip: text(rule.vips.get(vip as usize)?),
        topology: rule.topology,
        algorithm: rule
            .pool
            .versions()
            .first()
            .map(|version| version.algorithm()),
        pool_version: rule.pool.current(),
    })
}

fn missed(view: &View, miss: &Miss) -> Option<Missed> {
    let rule = view.snapshot.rules().get(miss.claim.rule as usize)?;
    let obstacles = [
        (miss.disabled, "the rule is disabled or deleted"),
        (miss.protocol, "another protocol"),
        (miss.port, "another port"),
        (miss.client, "the client is not one of the rule's"),
    ];
    Some(Missed {
        id: rule.id,
        name: rule.name.clone(),
        vip: text(rule.vips.get(miss.claim.vip as usize)?),
        obstacles: obstacles
            .into_iter()
            .filter(|(in_the_way, _)| *in_the_way)
            .map(|(_, words)| words.into())
            .collect(),
    })
}

fn servers(view: &View, rule: &Rule) -> Vec<Candidate> {
    let version = rule.pool.versions().first();
    let weight = |server| {
        let servers = version?.servers();
        let at = servers.binary_search_by_key(&server, |&(id, _)| id).ok()?;
        Some(servers[at].1)
    };
    view.snapshot
        .targets()
        .iter()
        .filter(|target| view.snapshot.rules()[target.rule as usize].id == rule.id)
        .take(MOST)
        .map(|target| {
            let (open, total) = target.account.connections();
            let usable = target.accepting && !target.dead;
            let weight = weight(target.server).filter(|_| usable);
            let obstacle = match (target.accepting, target.dead, weight) {
                (false, ..) => Some("disabled or removed"),
                (_, true, _) => Some("it does not answer"),
                (_, _, None) => Some("its weight is 0"),
                (_, _, Some(_)) if target.account.load().is_full() => {
                    Some("it has as many connections as it may")
                }
                (_, _, Some(_)) => None,
            };
            Candidate {
                id: target.server,
                name: target.name.clone(),
                weight,
                open,
                total,
                obstacle: obstacle.map(Into::into),
            }
        })
        .collect()
}

fn leaving(rehearsed: &Rehearsed) -> Option<Leaving> {
    let (interface, neighbour) = match rehearsed.verdict {
        Verdict::Transmit(port) => (port, rehearsed.frame.first_chunk::<6>().copied()),
        Verdict::Unresolved { port, .. } => (port, None),
        Verdict::Kernel | Verdict::Hold { .. } | Verdict::Drop(_) => return None,
    };
    let Headers { tuple, .. } = packet::parse(&rehearsed.frame).ok()?;
    Some(Leaving {
        source: End::new(tuple.src, tuple.sport),
        destination: End::new(tuple.dst, tuple.dport),
        protocol: tuple.protocol,
        interface,
        neighbour,
    })
}

/// The packet that a query means, in an Ethernet frame.
fn frame(query: &Query) -> Vec<u8> {
    let (source, destination) = (query.source, query.destination);
    let (src, dst) = (Addr::from(source.address), Addr::from(destination.address));
    let mut body = Vec::new();
    let ports = [source.port.to_be_bytes(), destination.port.to_be_bytes()].concat();
    match query.protocol {
        protocol::TCP => {
            body.extend(ports);
            body.extend([0; 8]);
            body.extend([5 << 4, query.tcp_flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
        protocol::UDP => {
            body.extend(ports);
            body.extend([0; 4]);
        }
        protocol::SCTP => {
            body.extend(ports);
            body.extend([0, 0, 0, 1, 0, 0, 0, 0]);
            body.extend([query.message, 0, 0, 4]);
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let id = source.port.max(destination.port).to_be_bytes();
            body.extend([query.message, 0, 0, 0, id[0], id[1], 0, 0]);
        }
        _ => body.extend([0; 8]),
    }
    let header = if src.is_v4() { 20 } else { 40 };
    let length = (query.length as usize).max(header + body.len());
    body.resize(length - header, 0);
    if query.protocol == protocol::UDP {
        let udp = (body.len() as u16).to_be_bytes();
        body[4..6].copy_from_slice(&udp);
    }
    let mut frame = vec![0; 12];
    if src.is_v4() {
        frame.extend([0x08, 0x00]);
        let [high, low] = (length as u16).to_be_bytes();
        let mut ip = vec![0x45, 0, high, low, 0, 0, 0, 0];
        ip.extend([query.ttl, query.protocol, 0, 0]);
        ip.extend(src.v4_bytes());
        ip.extend(dst.v4_bytes());
        let sum = checksum::of(&ip, 0);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(ip);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((body.len() as u16).to_be_bytes());
        frame.extend([query.protocol, query.ttl]);
        frame.extend(src.v6_bytes());
        frame.extend(dst.v6_bytes());
    }
    frame.extend(body);
    frame
}
