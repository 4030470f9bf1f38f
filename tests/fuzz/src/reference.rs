//! A forwarder that is slow and plain: maps from what a packet says to what must become of it. It does not choose
//! servers or NAT ports; it learns the choice from the first packet, says whether it was allowed, and holds every
//! further packet against it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ilb_forwarder::packet::tcp;
use ilb_forwarder::spec::{PortMap, Protocol, RuleSpec, ServerSpec, Topology};

/// An address with a port.
pub type End = (IpAddr, u16);

/// What a client's packets have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub client: End,
    pub vip: End,
    pub protocol: u8,
}

/// A connection as the reference knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub rule: u32,
    pub server: u32,
    /// Our end towards the server, NAT only.
    pub nat: Option<End>,
    /// Whether it goes on.
    pub life: Life,
    /// When its last packet came.
    pub seen: u32,
}

/// As much of a TCP connection's life as decides whether a SYN begins another. Everything else is always open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Open,
    /// The client has closed it.
    Closed,
    /// Either end has reset it; an acknowledgement of the client says that it was not meant.
    Reset,
}

/// What must become of a client's packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    /// It belongs to this connection.
    Continues(Known),
    /// It begins a connection by the rule at this place.
    Begins(usize),
    /// It is none of ours.
    Kernel,
    /// It belongs to nothing and begins nothing.
    NoConnection,
    /// The server of this connection is dead or gone.
    Orphan(Known),
}

/// Where the first fragment of a datagram went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram {
    /// To this connection's server, with this identification.
    Follows {
        known: Known,
        id: u32,
        since: u32,
    },
    Kernel {
        since: u32,
    },
    /// Nobody has checked.
    Unchecked,
}

/// Seconds for which first fragments are remembered.
const REASSEMBLY: u32 = 30;

#[derive(Default)]
pub struct Reference {
    pub rules: Vec<RuleSpec>,
    pub flows: BTreeMap<Key, Known>,
    /// By connection and identification.
    pub datagrams: BTreeMap<(Key, u32), Datagram>,
    /// Servers that persistent clients, as far as the mask lets them be told apart, have a claim to, by rule.
    pub claims: BTreeMap<(u32, IpAddr), u32>,
}

/// The part of an address that a persistence mask lets through.
pub fn masked(address: IpAddr, mask: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let gone = u32::MAX.checked_shr(u32::from(mask)).unwrap_or(0);
            IpAddr::from((v4.to_bits() & !gone).to_be_bytes())
        }
        IpAddr::V6(v6) => {
            let gone = u128::MAX.checked_shr(u32::from(mask)).unwrap_or(0);
            IpAddr::from((v6.to_bits() & !gone).to_be_bytes())
        }
    }
}

fn number(protocol: Protocol, v4: bool) -> u8 {
    protocol
        .number(v4)
        .expect("the reference has no rules for any protocol")
}

/// Whether the server may be given new connections.
pub fn may_be_chosen(server: &ServerSpec) -> bool {
    server.accepting && server.weight > 0 && !server.dead
}

impl Reference {
    /// A rule by its id.
    pub fn rule(&self, rule: u32) -> Option<&RuleSpec> {
        self.rules.iter().find(|candidate| candidate.id == rule)
    }

    /// A rule and one of its servers by their ids.
    pub fn configured(&self, rule: u32, server: u32) -> Option<(&RuleSpec, &ServerSpec)> {
        let rule = self.rule(rule)?;
        let server = rule
            .servers
            .iter()
            .find(|candidate| candidate.id == server)?;
        Some((rule, server))
    }

    /// Where the first fragment of a datagram went, if it came lately.
    pub fn datagram(&self, key: &Key, id: u32, now: u32) -> Option<Datagram> {
        let datagram = self.datagrams.get(&(*key, id)).copied()?;
        match datagram {
            Datagram::Follows { since, .. } | Datagram::Kernel { since } => {
                (now - since <= REASSEMBLY).then_some(datagram)
            }
            Datagram::Unchecked => Some(datagram),
        }
    }

    /// The server that a client has a claim to, if it has one that is worth something.
    pub fn claim(&self, rule: &RuleSpec, client: IpAddr) -> Option<u32> {
        let mask = rule.persistence?.mask;
        let server = *self.claims.get(&(rule.id, masked(client, mask)))?;
        rule.servers
            .iter()
            .any(|candidate| candidate.id == server && may_be_chosen(candidate))
            .then_some(server)
    }

    fn accepting(&self, key: &Key) -> Option<usize> {
        self.rules.iter().position(|rule| {
            rule.accepting
                && rule.vips.iter().any(|vip| {
                    vip.address == key.vip.0
                        && number(vip.protocol, key.vip.0.is_ipv4()) == key.protocol
                        && vip.ports.contains(key.vip.1)
                })
        })
    }

    /// A HALF-NAT client that uses a port anew, through another VIP port to the same server, ends what it had finished there.
    pub fn makes_way_for(&mut self, key: &Key, known: &Known) {
        let is_half_nat = |known: &Known| {
            self.rule(known.rule)
                .is_some_and(|rule| rule.topology == Topology::HalfNat)
        };
        if !is_half_nat(known) {
            return;
        }
        let ends = self.towards_server(key, known);
        let gone: Vec<Key> = self
            .flows
            .iter()
            .filter(|(other, old)| {
                *other != key
                    && other.protocol == key.protocol
                    && old.life != Life::Open
                    && is_half_nat(old)
                    && self.towards_server(other, old) == ends
            })
            .map(|(other, _)| *other)
            .collect();
        self.flows.retain(|other, _| !gone.contains(other));
    }

    /// What a client's packet is, without a change.
    pub fn expect(&self, key: &Key, flags: u8) -> Expected {
        let begins =
            key.protocol != 6 || flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN;
        if let Some(&known) = self.flows.get(key) {
            match self.configured(known.rule, known.server) {
                Some((_, server)) if !server.dead => {
                    if !(key.protocol == 6 && begins && known.life != Life::Open) {
                        return Expected::Continues(known);
                    }
                }
                // A new handshake begins anew.
                _ if key.protocol == 6 && begins => {}
                _ => return Expected::Orphan(known),
            }
        }
        match self.accepting(key) {
            None => Expected::Kernel,
            Some(_) if !begins => Expected::NoConnection,
            Some(rule) => Expected::Begins(rule),
        }
    }

    /// A packet of a connection passed.
    pub fn passed(&mut self, key: &Key, from_client: bool, flags: u8, now: u32) {
        if let Some(known) = self.flows.get_mut(key) {
            known.seen = now;
            if key.protocol != 6 {
                return;
            }
            let flag = |flag: u8| flags & flag != 0;
            let plain = flag(tcp::ACK) && !flag(tcp::SYN);
            known.life = match known.life {
                _ if flag(tcp::RST) => Life::Reset,
                Life::Open | Life::Reset if from_client && plain && flag(tcp::FIN) => Life::Closed,
                Life::Reset if from_client && plain => Life::Open,
                life => life,
            };
        }
    }

    /// Where packets of a connection go towards the server: its source and destination.
    pub fn towards_server(&self, key: &Key, known: &Known) -> Option<(End, End)> {
        let (rule, server) = self.configured(known.rule, known.server)?;
        Some(match rule.topology {
            Topology::Dsr | Topology::Tun => (key.client, key.vip),
            Topology::HalfNat => (key.client, (server.address, server_port(rule, server, key))),
            Topology::Nat => (known.nat?, (server.address, server_port(rule, server, key))),
        })
    }

    /// The connection that a server's packet belongs to.
    pub fn of_reply(&self, from: End, to: End, protocol: u8) -> Option<(Key, Known)> {
        let mut hits = self.flows.iter().filter(|(key, known)| {
            let reverse = self
                .configured(known.rule, known.server)
                .is_some_and(|(rule, _)| rule.topology.has_reverse());
            reverse
                && key.protocol == protocol
                && self.towards_server(key, known) == Some((to, from))
        });
        let hit = hits.next().map(|(&key, &known)| (key, known));
        assert!(
            hits.next().is_none(),
            "two connections have the same replies"
        );
        hit
    }
}

fn server_port(rule: &RuleSpec, server: &ServerSpec, key: &Key) -> u16 {
    let first = rule
        .vips
        .iter()
        .find(|vip| vip.address == key.vip.0 && vip.ports.contains(key.vip.1))
        .map_or(0, |vip| vip.ports.first);
    match server.ports {
        PortMap::Same => key.vip.1,
        PortMap::Collapse(port) => port,
        PortMap::Shift(to) => to + (key.vip.1 - first),
    }
}
