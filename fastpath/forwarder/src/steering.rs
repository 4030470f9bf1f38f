//! What XDP has to steer to the fast path for a configuration.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::address::Addr;
use crate::nat;
use crate::packet::protocol;
use crate::snapshot::{Rule, Snapshot, Target};
use crate::spec::{PortRange, Protocol, RuleId, Topology};

/// Which side of a connection XDP has to watch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Packets to this address and port.
    Destination,
    /// Packets from this address and port.
    Source,
}

/// Packets that XDP takes apart from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A protocol with ports, or the family's ICMP with its queries, by its number.
    Protocol(u8),
    /// All protocols that have neither.
    Others,
    /// No packets to the address, only ICMP errors about any that left from it.
    Errors,
}

/// What XDP has to steer to the fast path. ICMP errors about what an entry describes go with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SteeringEntry {
    /// Match on source or destination.
    pub side: Side,
    /// The address.
    pub address: IpAddr,
    /// The packets.
    pub class: Class,
    /// The ports; [`PortRange::ANY`] for what has none.
    pub ports: PortRange,
}

/// Protocols with ports.
const WITH_PORTS: [u8; 3] = [protocol::TCP, protocol::UDP, protocol::SCTP];

impl Snapshot {
    /// Everything that XDP has to steer to the fast path, with repetitions.
    pub fn steering(&self) -> Vec<SteeringEntry> {
        let mut entries = Vec::with_capacity(self.targets().len() + self.rules().len());
        for rule in self.rules() {
            self.add_all(&mut entries, rule);
        }
        entries
    }

    /// What XDP has to steer no more after `before`, and what it has to steer in its stead. The work is that of the
    /// difference.
    pub fn steering_since(&self, before: &Snapshot) -> (Vec<SteeringEntry>, Vec<SteeringEntry>) {
        let gone = before.rules().own(self.rules());
        let come = self.rules().own(before.rules());
        let ids: BTreeSet<RuleId> = gone.chain(come).map(|rule| rule.id).collect();
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for id in ids {
            let of = |snapshot: &Snapshot| {
                let mut entries = Vec::new();
                if let Some(rule) = snapshot.rule_by_id(id) {
                    snapshot.add_all(&mut entries, rule);
                }
                entries
            };
            let (was, is) = (of(before), of(self));
            if was != is {
                old.extend(was);
                new.extend(is);
            }
        }
        (old, new)
    }

    fn add_all(&self, entries: &mut Vec<SteeringEntry>, rule: &Rule) {
        add_rule(entries, rule);
        if rule.topology == Topology::HalfNat {
            for &target in rule.targets() {
                add_server(entries, rule, &self.targets()[target as usize]);
            }
        }
    }
}

/// VIPs, and what comes back to addresses of ours.
fn add_rule(entries: &mut Vec<SteeringEntry>, rule: &Rule) {
    for vip in &rule.vips {
        let side = Side::Destination;
        add(entries, side, vip.address, vip.protocol, vip.ports);
        if rule.topology == Topology::Nat {
            for &address in &rule.proxy_src {
                add(entries, side, address, vip.protocol, nat::PORTS);
            }
        }
    }
    if rule.topology == Topology::Tun {
        entries.extend(rule.proxy_src.iter().map(|&address| SteeringEntry {
            side: Side::Destination,
            address: address.into(),
            class: Class::Errors,
            ports: PortRange::ANY,
        }));
    }
}

/// What a server behind HALF-NAT answers.
fn add_server(entries: &mut Vec<SteeringEntry>, rule: &Rule, target: &Target) {
    for vip in &rule.vips {
        let ports = PortRange {
            first: target.port(vip, vip.ports.first),
            last: target.port(vip, vip.ports.last),
        };
        add(entries, Side::Source, target.address, vip.protocol, ports);
    }
}

/// The entries of one protocol, or of all. `ports` are those of protocols that have any.
fn add(
    entries: &mut Vec<SteeringEntry>,
    side: Side,
    address: Addr,
    of: Protocol,
    ports: PortRange,
) {
    let entry = |class, ports| SteeringEntry {
        side,
        address: address.into(),
        class,
        ports,
    };
    let icmp = match address.is_v4() {
        true => protocol::ICMP,
        false => protocol::ICMPV6,
    };
    let icmp = entry(Class::Protocol(icmp), PortRange::ANY);
    match of {
        Protocol::Tcp => entries.push(entry(Class::Protocol(protocol::TCP), ports)),
        Protocol::Udp => entries.push(entry(Class::Protocol(protocol::UDP), ports)),
        Protocol::Sctp => entries.push(entry(Class::Protocol(protocol::SCTP), ports)),
        Protocol::Icmp => entries.push(icmp),
        Protocol::Any => {
            entries.extend(WITH_PORTS.map(|number| entry(Class::Protocol(number), ports)));
            entries.extend([icmp, entry(Class::Others, PortRange::ANY)]);
        }
    }
}
