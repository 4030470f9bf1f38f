//! Which rule a packet is for that begins a connection.
//!
//! Several VIPs of one or more rules may accept the same packet; the most specific one gets it:
//! 1. the one whose clients are the longest prefix that holds the client's address, then
//! 2. the one with the narrowest port range, then
//! 3. the one of the packet's own protocol rather than of any.
//!
//! VIPs that are equally specific and accept a common packet are ambiguous, and a configuration with such ones is refused.
//!
//! A lookup is one hash of the VIP's address, a binary search among the client prefixes of that address, and a binary
//! search among the ports of that prefix and of those around it. Prefixes nest, so there are no more of these than the
//! different lengths that nest at this place, mostly one or two.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::address::Addr;
use crate::chunks::Chunks;
use crate::hash::FoldBuild;
use crate::packet::{Ports, Tuple};
use crate::snapshot::{CompileError, Rule};
use crate::spec::{PortRange, Prefix, Protocol, RuleSpec, VipSpec};

/// A rule and one of its VIPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Index of the rule in [`crate::Snapshot::rules`].
    pub rule: u32,
    /// Index into its VIPs.
    pub vip: u8,
}

/// What a VIP accepts from the clients of one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pattern {
    pub address: Addr,
    pub clients: Clients,
    pub protocol: Protocol,
    pub ports: PortRange,
    pub claim: Claim,
}

/// Addresses `first..=last` that are a prefix; in this order, a prefix comes before those within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clients {
    first: u128,
    last: u128,
}

impl Ord for Clients {
    fn cmp(&self, other: &Clients) -> std::cmp::Ordering {
        (self.first, std::cmp::Reverse(self.last))
            .cmp(&(other.first, std::cmp::Reverse(other.last)))
    }
}

impl PartialOrd for Clients {
    fn partial_cmp(&self, other: &Clients) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Clients {
    /// Everybody, of the VIP's family.
    pub const ALL: Clients = Clients {
        first: 0,
        last: u128::MAX,
    };

    /// Those of a prefix.
    pub fn of(prefix: &Prefix) -> Clients {
        if prefix.len == 0 {
            return Clients::ALL;
        }
        let (first, last) = Addr::from(prefix.address).network(prefix.len);
        Clients {
            first: first.0,
            last: last.0,
        }
    }

    /// Whether the prefix holds an address.
    pub fn contains(self, client: Addr) -> bool {
        self.first <= client.0 && client.0 <= self.last
    }
}

/// Two VIPs that accept a common packet and are equally specific.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ambiguity {
    pub first: Claim,
    pub second: Claim,
    pub address: IpAddr,
    pub protocol: Protocol,
    /// A port that both accept.
    pub port: u16,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    services: HashMap<u128, Service, FoldBuild>,
}

/// No node.
const NONE: u32 = u32::MAX;

/// What is offered at one address.
#[derive(Debug)]
struct Service {
    /// First addresses of disjoint ranges of clients, ascending from 0, and the innermost node of each.
    clients: Box<[(u128, u32)]>,
    nodes: Box<[Node]>,
}

/// What is offered to the clients of one prefix.
#[derive(Debug)]
struct Node {
    /// The prefix around it.
    parent: u32,
    /// Disjoint port ranges of each protocol, ascending.
    ports: PortClaims,
}

/// Who has which ports.
type PortClaims = Box<[(Protocol, PortRange, Claim)]>;

impl Node {
    #[inline]
    fn claim(&self, protocol: Protocol, port: u16) -> Option<Claim> {
        let at = self
            .ports
            .partition_point(|(of, range, _)| (*of, range.last) < (protocol, port));
        let (of, range, claim) = self.ports.get(at)?;
        (*of == protocol && range.contains(port)).then_some(*claim)
    }
}

/// The protocol of a packet, as rules name it.
#[inline]
pub(crate) fn protocol_of(tuple: &Tuple) -> Protocol {
    match Ports::of(tuple.protocol, tuple.dst.is_v4()) {
        Ports::None => Protocol::Any,
        Ports::Both | Ports::Identifier => Protocol::from_number(tuple.protocol),
    }
}

/// What the VIPs of a rule accept.
pub(crate) fn patterns(rule: &Rule, at: u32) -> impl Iterator<Item = Pattern> {
    let everybody = rule.clients.is_empty().then_some(Clients::ALL);
    let clients = rule.clients.iter().map(Clients::of).chain(everybody);
    clients.flat_map(move |clients| {
        rule.vips.iter().zip(0..).map(move |(vip, index)| Pattern {
            address: vip.address,
            clients,
            protocol: vip.protocol,
            ports: vip.ports,
            claim: Claim {
                rule: at,
                vip: index,
            },
        })
    })
}

/// Refuses VIPs and clients that cannot be.
pub(crate) fn check(rule: &RuleSpec) -> Result<(), CompileError> {
    rule.vips.iter().try_for_each(|vip| check_vip(rule, vip))?;
    for &Prefix { address, len } in &rule.clients {
        if let Some(vip) = rule.vips.first()
            && address.is_ipv4() != vip.address.is_ipv4()
        {
            return Err(CompileError::Family {
                rule: rule.name.clone(),
                address,
                vip: vip.address,
            });
        }
        if len > if address.is_ipv4() { 32 } else { 128 } {
            return Err(CompileError::PrefixLength {
                rule: rule.name.clone(),
                address,
                len,
            });
        }
    }
    Ok(())
}

fn check_vip(rule: &RuleSpec, vip: &VipSpec) -> Result<(), CompileError> {
    let unicast = match vip.address {
        IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unspecified(),
    };
    if !unicast {
        return Err(CompileError::NotUnicast {
            rule: rule.name.clone(),
            address: vip.address,
        });
    }
    if !vip.protocol.has_ports() && vip.ports != PortRange::ANY {
        return Err(CompileError::NoPorts {
            rule: rule.name.clone(),
            protocol: vip.protocol,
            first: vip.ports.first,
            last: vip.ports.last,
        });
    }
    Ok(())
}

impl Matcher {
    /// Orders the patterns of all rules that accept connections.
    pub fn new(mut patterns: Vec<Pattern>) -> Result<Matcher, Ambiguity> {
        patterns.sort_unstable();
        // A rule may name a client prefix twice.
        patterns.dedup();
        let services = patterns
            .chunk_by(|a, b| a.address == b.address)
            .map(|offers| Ok((offers[0].address.0, Service::new(offers)?)))
            .collect::<Result<_, Ambiguity>>()?;
        Ok(Matcher { services })
    }

    /// See [`crate::Snapshot::misses`].
    pub fn misses(&self, rules: &Chunks<Rule>, tuple: &Tuple) -> Vec<Miss> {
        let accepting = self.find(tuple);
        let protocol = protocol_of(tuple);
        let mut misses = Vec::new();
        for (rule, n) in rules.iter().zip(0..) {
            let one_of_them = |prefix| Clients::of(prefix).contains(tuple.src);
            let client = !rule.clients.is_empty() && !rule.clients.iter().any(one_of_them);
            for (vip, index) in rule.vips.iter().zip(0..) {
                let claim = Claim {
                    rule: n,
                    vip: index,
                };
                if vip.address != tuple.dst || accepting == Some(claim) {
                    continue;
                }
                misses.push(Miss {
                    claim,
                    disabled: !rule.accepting,
                    protocol: ![protocol, Protocol::Any].contains(&vip.protocol),
                    port: !vip.ports.contains(tuple.dport),
                    client,
                });
            }
        }
        misses.sort_by_key(Miss::obstacles);
        misses
    }

    /// The VIP that a packet is for.
    #[inline]
    pub fn find(&self, tuple: &Tuple) -> Option<Claim> {
        let service = self.services.get(&tuple.dst.0)?;
        let protocol = protocol_of(tuple);
        let mut at = service.innermost(tuple.src);
        while let Some(node) = service.nodes.get(at as usize) {
            let claim = node.claim(protocol, tuple.dport);
            if let Some(claim) = claim.or_else(|| node.claim(Protocol::Any, tuple.dport)) {
                return Some(claim);
            }
            at = node.parent;
        }
        None
    }
}

impl Service {
    /// From the patterns of one address, in order.
    fn new(offers: &[Pattern]) -> Result<Service, Ambiguity> {
        let mut clients = vec![(0, NONE)];
        let mut nodes: Vec<Node> = Vec::new();
        // Prefixes that are open at this place, from the outermost to the innermost: last address and node.
        let mut open: Vec<(u128, u32)> = Vec::new();
        let mut begin = |first, open: &[(u128, u32)]| {
            let node = open.last().map_or(NONE, |&(_, node)| node);
            clients.pop_if(|(at, _)| *at == first);
            clients.push((first, node));
        };
        for offers in offers.chunk_by(|a, b| a.clients == b.clients) {
            let Clients { first, last } = offers[0].clients;
            while let Some((ended, _)) = open.pop_if(|(last, _)| *last < first) {
                begin(ended + 1, &open);
            }
            let parent = open.last().map_or(NONE, |&(_, node)| node);
            open.push((last, nodes.len() as u32));
            begin(first, &open);
            nodes.push(Node {
                parent,
                ports: narrowest(offers)?,
            });
        }
        while let Some((ended, _)) = open.pop() {
            if let Some(next) = ended.checked_add(1) {
                begin(next, &open);
            }
        }
        Ok(Service {
            clients: clients.into(),
            nodes: nodes.into(),
        })
    }

    #[inline]
    fn innermost(&self, client: Addr) -> u32 {
        let behind = self
            .clients
            .partition_point(|(first, _)| *first <= client.0);
        // The first range begins at 0.
        self.clients[behind - 1].1
    }
}

/// Disjoint ranges of the ports of one address and prefix, in which the narrowest pattern has each port.
fn narrowest(offers: &[Pattern]) -> Result<PortClaims, Ambiguity> {
    let width = |offer: &Pattern| offer.ports.last - offer.ports.first;
    let mut ordered: Vec<&Pattern> = offers.iter().collect();
    ordered.sort_unstable_by_key(|offer| (offer.protocol, width(offer), offer.ports, offer.claim));
    for pair in ordered.windows(2) {
        let [a, b] = [pair[0], pair[1]];
        let alike = a.protocol == b.protocol && width(a) == width(b);
        if alike && a.ports.last >= b.ports.first {
            return Err(Ambiguity {
                first: a.claim.min(b.claim),
                second: a.claim.max(b.claim),
                address: a.address.into(),
                protocol: a.protocol,
                port: b.ports.first,
            });
        }
    }
    let mut ports = Vec::new();
    for of_protocol in ordered.chunk_by(|a, b| a.protocol == b.protocol) {
        // Taken ranges by their first port.
        let mut taken: BTreeMap<u16, (u16, Claim)> = BTreeMap::new();
        for offer in of_protocol {
            for gap in gaps(&taken, offer.ports) {
                taken.insert(gap.first, (gap.last, offer.claim));
            }
        }
        let protocol = of_protocol[0].protocol;
        ports.extend(
            taken
                .into_iter()
                .map(|(first, (last, claim))| (protocol, PortRange { first, last }, claim)),
        );
    }
    Ok(ports.into())
}

/// The parts of `wanted` that nobody has taken.
fn gaps(taken: &BTreeMap<u16, (u16, Claim)>, wanted: PortRange) -> Vec<PortRange> {
    let mut gaps = Vec::new();
    let mut next = wanted.first as u32;
    let before = taken.range(..=wanted.first).next_back();
    let within = taken.range(wanted.first..=wanted.last);
    for (&first, &(last, _)) in before.into_iter().chain(within) {
        if next < first as u32 {
            gaps.push(PortRange {
                first: next as u16,
                last: first - 1,
            });
        }
        next = next.max(last as u32 + 1);
    }
    if next <= wanted.last as u32 {
        gaps.push(PortRange {
            first: next as u16,
            last: wanted.last,
        });
    }
    gaps
}

/// A VIP that has the address of a packet but does not get it, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Miss {
    /// Which one.
    pub claim: Claim,
    /// Its rule is disabled, or deleted and draining.
    pub disabled: bool,
    /// It is of another protocol.
    pub protocol: bool,
    /// It has not this port.
    pub port: bool,
    /// The client is not one of its rule's.
    pub client: bool,
}

impl Miss {
    /// How much is in the way; 0 if it would accept the packet and a more specific VIP gets it.
    pub fn obstacles(&self) -> u32 {
        let all = [self.disabled, self.protocol, self.port, self.client];
        all.into_iter().map(u32::from).sum()
    }
}

#[cfg(test)]
mod tests;
