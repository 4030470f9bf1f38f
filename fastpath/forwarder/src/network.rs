//! The forwarder's picture of the network around it: interfaces, routes and neighbours, made from what the kernel
//! knows, immutable once built, looked up without a lock.
//!
//! Routes are turned into disjoint address ranges in ascending order, so that the longest match is one binary search,
//! whatever the number of prefix lengths.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::address::Addr;
use crate::hash::FoldBuild;
use crate::packet::ETHERNET;
use crate::verdict::{DropReason, Verdict};

/// Index of an interface that the fast path serves, in the order of the node settings. 0..=254.
pub type PortIndex = u8;

/// Ethernet address.
pub type MacAddr = [u8; 6];

/// An interface that the fast path serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// Its Ethernet address, the source of what we send.
    pub mac: MacAddr,
    /// Largest IP packet that it takes, in bytes.
    pub mtu: u16,
}

/// A route of the kernel's tables, only those that forward (unicast; no local, broadcast, blackhole).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Network address.
    pub prefix: IpAddr,
    /// Prefix length, 0..=32 or 0..=128.
    pub len: u8,
    /// Lower wins among routes of one prefix.
    pub metric: u32,
    /// Where to: one, or several of equal cost.
    pub hops: Vec<Hop>,
}

/// One way of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The interface; None for one that the fast path does not serve.
    pub port: Option<PortIndex>,
    /// The gateway; None if the destination is on the link itself.
    pub via: Option<IpAddr>,
}

/// A neighbour whose link-layer address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Interface on which it lives.
    pub port: PortIndex,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

/// Where a packet has to go next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    /// To this neighbour.
    Known {
        /// Egress interface.
        port: PortIndex,
        /// The neighbour's Ethernet address.
        mac: MacAddr,
    },
    /// To this neighbour, whose Ethernet address is not known yet.
    Unknown {
        /// Egress interface.
        port: PortIndex,
        /// The neighbour's address.
        address: Addr,
    },
    /// To this host itself.
    Local,
    /// Nowhere, for this reason.
    None(DropReason),
}

/// Ways out of one range of addresses: a slice of `Network::ways`.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: u128,
    ways: Ways,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ways {
    at: u32,
    count: u32,
}

/// A way with everything about it that does not depend on the destination.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Through a gateway, resolved or not.
    Gateway(NextHop),
    /// The destination itself is the neighbour.
    OnLink(PortIndex),
    /// An interface that we do not serve.
    Elsewhere,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Network {
    interfaces: Vec<Interface>,
    ranges4: Vec<Range>,
    ranges6: Vec<Range>,
    ways: Vec<Way>,
    neighbours: HashMap<(PortIndex, u128), MacAddr, FoldBuild>,
    local: HashSet<u128, FoldBuild>,
    closed: HashSet<u128, FoldBuild>,
}

const NO_WAY: Ways = Ways { at: 0, count: 0 };

impl Network {
    /// Builds the lookup structures. `interfaces` is indexed by [`PortIndex`].
    pub fn new(
        interfaces: Vec<Interface>,
        routes: Vec<Route>,
        neighbours: Vec<Neighbour>,
    ) -> Network {
        let mut network = Network {
            interfaces,
            ..Network::default()
        };
        for neighbour in neighbours {
            network.neighbours.insert(
                (neighbour.port, Addr::from(neighbour.address).0),
                neighbour.mac,
            );
        }
        let (routes4, routes6): (Vec<_>, Vec<_>) =
            routes.into_iter().partition(|route| route.prefix.is_ipv4());
        network.ranges4 = network.ranges(routes4);
        network.ranges6 = network.ranges(routes6);
        network
    }

    /// With these addresses as this host's own: none at first.
    #[must_use]
    pub fn with_local(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Network {
        let addresses = addresses.into_iter();
        self.local = addresses.map(|address| Addr::from(address).0).collect();
        self
    }

    /// With these addresses as those at which this host takes nothing for itself: none at first.
    #[must_use]
    pub fn with_closed(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Network {
        let addresses = addresses.into_iter();
        self.closed = addresses.map(|address| Addr::from(address).0).collect();
        self
    }

    /// Whether this host takes nothing for itself at an address.
    pub fn is_closed(&self, address: Addr) -> bool {
        self.closed.contains(&address.0)
    }

    /// Cuts the address space where a best route begins or ends.
    fn ranges(&mut self, mut routes: Vec<Route>) -> Vec<Range> {
        // Parents come before their children, and of equals the better one first.
        routes.sort_by_key(|route| (bounds(route).0, route.len, route.metric));
        routes
            .dedup_by(|later, first| bounds(later).0 == bounds(first).0 && later.len == first.len);
        let mut ranges = Vec::with_capacity(routes.len() * 2 + 1);
        let mut enclosing: Vec<(u128, Ways)> = Vec::new();
        for route in &routes {
            let (first, last) = bounds(route);
            close(&mut ranges, &mut enclosing, Some(first));
            let ways = self.add_ways(route);
            begin(&mut ranges, first, ways);
            enclosing.push((last, ways));
        }
        close(&mut ranges, &mut enclosing, None);
        ranges
    }

    fn add_ways(&mut self, route: &Route) -> Ways {
        let at = self.ways.len() as u32;
        for hop in &route.hops {
            let way = match (hop.port, hop.via) {
                (None, _) => Way::Elsewhere,
                (Some(port), None) => Way::OnLink(port),
                (Some(port), Some(via)) => Way::Gateway(self.neighbour(port, via.into())),
            };
            self.ways.push(way);
        }
        Ways {
            at,
            count: route.hops.len() as u32,
        }
    }

    /// As [`Network::next_hop`], for a server, which may be this host itself. Packets to clients and to what answers them
    /// are never local, and do not pay for the question.
    pub fn server_hop(&self, server: Addr, spread: u32) -> NextHop {
        match self.is_local(server) {
            true => NextHop::Local,
            false => self.next_hop(server, spread),
        }
    }

    /// Whether an address is one of this host's own.
    pub fn is_local(&self, address: Addr) -> bool {
        self.local.contains(&address.0)
    }

    /// The next hop towards an address. `spread` chooses among ways of equal cost; give it the flow's hash, so that a
    /// flow keeps its way.
    #[inline]
    pub fn next_hop(&self, destination: Addr, spread: u32) -> NextHop {
        let ranges = if destination.is_v4() {
            &self.ranges4
        } else {
            &self.ranges6
        };
        let at = ranges.partition_point(|range| range.first <= destination.0);
        let Some(Range { ways, .. }) = at.checked_sub(1).map(|at| ranges[at]) else {
            return NextHop::None(DropReason::NoRoute);
        };
        let way = match ways.count {
            0 => return NextHop::None(DropReason::NoRoute),
            1 => self.ways[ways.at as usize],
            n => self.ways[(ways.at + ((spread as u64 * n as u64) >> 32) as u32) as usize],
        };
        match way {
            Way::Gateway(hop) => hop,
            Way::OnLink(port) => self.neighbour(port, destination),
            Way::Elsewhere => NextHop::None(DropReason::NoEgress),
        }
    }

    /// The next hop towards an address, if there is only one way: None where the choice depends on the flow.
    pub fn only_hop(&self, destination: Addr) -> Option<NextHop> {
        let (first, last) = (
            self.next_hop(destination, 0),
            self.next_hop(destination, u32::MAX),
        );
        (first == last).then_some(first)
    }

    /// A neighbour on an interface.
    pub fn neighbour(&self, port: PortIndex, address: Addr) -> NextHop {
        match self.neighbours.get(&(port, address.0)) {
            Some(&mac) => NextHop::Known { port, mac },
            None => NextHop::Unknown { port, address },
        }
    }

    /// The interface, if it is one of ours.
    #[inline(always)]
    pub fn interface(&self, port: PortIndex) -> Option<&Interface> {
        self.interfaces.get(port as usize)
    }

    /// Largest IP packet that the way to this next hop begins with, in bytes; None if there is no way.
    #[inline(always)]
    pub fn mtu(&self, hop: NextHop) -> Option<usize> {
        match hop {
            NextHop::Known { port, .. } | NextHop::Unknown { port, .. } => {
                self.interface(port).map(|interface| interface.mtu as usize)
            }
            NextHop::Local | NextHop::None(_) => None,
        }
    }

    /// Addresses an Ethernet frame to its next hop.
    #[inline(always)]
    pub fn send(&self, hop: NextHop, ip_len: usize, frame: &mut [u8]) -> Verdict {
        match hop {
            NextHop::Known { port, mac } => {
                let Some(interface) = self.interface(port) else {
                    return Verdict::Drop(DropReason::NoEgress);
                };
                if ip_len > interface.mtu as usize {
                    return Verdict::Drop(DropReason::TooBig);
                }
                frame[0..6].copy_from_slice(&mac);
                frame[6..12].copy_from_slice(&interface.mac);
                Verdict::Transmit(port)
            }
            NextHop::Unknown { port, address } => Verdict::Unresolved {
                port,
                next_hop: address.into(),
            },
            NextHop::Local => Verdict::Kernel,
            NextHop::None(reason) => Verdict::Drop(reason),
        }
    }

    /// Completes a frame that had to wait for a neighbour: writes its Ethernet addresses. Gives
    /// [`Verdict::Transmit`], or [`Verdict::Unresolved`] again. `frame` begins with the Ethernet header.
    pub fn finish(&self, port: PortIndex, next_hop: IpAddr, frame: &mut [u8]) -> Verdict {
        if frame.len() < ETHERNET {
            return Verdict::Drop(DropReason::Malformed);
        }
        let ip_len = frame.len() - ETHERNET;
        self.send(self.neighbour(port, next_hop.into()), ip_len, frame)
    }
}

/// First and last address of a route.
fn bounds(route: &Route) -> (u128, u128) {
    let (first, last) = Addr::from(route.prefix).network(route.len);
    (first.0, last.0)
}

fn begin(ranges: &mut Vec<Range>, first: u128, ways: Ways) {
    match ranges.last_mut() {
        Some(last) if last.first == first => last.ways = ways,
        Some(last) if last.ways == ways => {}
        _ => ranges.push(Range { first, ways }),
    }
}

/// Ends the routes that do not reach `next`; behind each, its parent goes on, or nothing.
fn close(ranges: &mut Vec<Range>, enclosing: &mut Vec<(u128, Ways)>, next: Option<u128>) {
    while let Some(&(last, _)) = enclosing.last()
        && next.is_none_or(|next| last < next)
    {
        enclosing.pop();
        let parent = enclosing.last().map_or(NO_WAY, |&(_, ways)| ways);
        if let Some(after) = last.checked_add(1) {
            begin(ranges, after, parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(prefix: &str, port: Option<PortIndex>, via: Option<&str>) -> Route {
        let (address, len) = prefix.split_once('/').unwrap();
        Route {
            prefix: address.parse().unwrap(),
            len: len.parse().unwrap(),
            metric: 0,
            hops: vec![Hop {
                port,
                via: via.map(|via| via.parse().unwrap()),
            }],
        }
    }

    fn addr(text: &str) -> Addr {
        Addr::from(text.parse::<IpAddr>().unwrap())
    }

    fn network(routes: Vec<Route>) -> Network {
        let interfaces = (0..4)
            .map(|n| Interface {
                mac: [2, 0, 0, 0, 0, n],
                mtu: 1500,
            })
            .collect();
        let neighbour = |port, address: &str, last| Neighbour {
            port,
            address: address.parse().unwrap(),
            mac: [4, 0, 0, 0, 0, last],
        };
        Network::new(
            interfaces,
            routes,
            vec![
                neighbour(0, "10.0.0.254", 254),
                neighbour(1, "10.1.0.7", 7),
                neighbour(0, "fe80::1", 1),
            ],
        )
    }

    #[test]
    fn longest_prefix_wins_and_families_are_apart() {
        let network = network(vec![
            route("0.0.0.0/0", Some(0), Some("10.0.0.254")),
            route("10.0.0.0/8", None, None),
            route("10.1.0.0/24", Some(1), None),
            route("fd00::/8", Some(0), Some("fe80::1")),
        ]);
        let known = |port, last| NextHop::Known {
            port,
            mac: [4, 0, 0, 0, 0, last],
        };
        assert_eq!(network.next_hop(addr("8.8.8.8"), 0), known(0, 254));
        assert_eq!(network.next_hop(addr("255.255.255.255"), 0), known(0, 254));
        assert_eq!(
            network.next_hop(addr("10.2.0.1"), 0),
            NextHop::None(DropReason::NoEgress)
        );
        assert_eq!(network.next_hop(addr("10.1.0.7"), 0), known(1, 7));
        assert_eq!(
            network.next_hop(addr("10.1.0.8"), 0),
            NextHop::Unknown {
                port: 1,
                address: addr("10.1.0.8")
            }
        );
        assert_eq!(network.next_hop(addr("fd12::1"), 0), known(0, 1));
        assert_eq!(
            network.next_hop(addr("2001:db8::1"), 0),
            NextHop::None(DropReason::NoRoute)
        );
    }

    #[test]
    fn equal_ways_share_flows_and_the_better_metric_wins() {
        let mut two = route("0.0.0.0/0", Some(0), None);
        two.hops.push(Hop {
            port: Some(1),
            via: None,
        });
        let worse = Route {
            metric: 5,
            ..route("0.0.0.0/0", Some(2), None)
        };
        let network = network(vec![worse, two]);
        let port = |spread| match network.next_hop(addr("9.9.9.9"), spread) {
            NextHop::Unknown { port, .. } => port,
            other => panic!("{other:?}"),
        };
        assert_eq!((port(0), port(u32::MAX)), (0, 1));
    }

    #[test]
    fn own_addresses_are_local_whatever_the_routes_say() {
        let network = network(vec![route("0.0.0.0/0", Some(0), None)])
            .with_local(["10.1.0.8".parse().unwrap(), "fd00::8".parse().unwrap()]);
        let hops = ["10.1.0.8", "fd00::8", "10.1.0.9"].map(|to| network.server_hop(addr(to), 0));
        let unknown = NextHop::Unknown {
            port: 0,
            address: addr("10.1.0.9"),
        };
        assert_eq!(hops, [NextHop::Local, NextHop::Local, unknown]);
        let mut frame = vec![7; 2000];
        assert_eq!(
            network.send(NextHop::Local, 1986, &mut frame),
            Verdict::Kernel
        );
        assert_eq!(frame, vec![7; 2000]);
    }

    #[test]
    fn finish_addresses_the_frame_once_the_neighbour_is_known() {
        let network = network(vec![]);
        let mut frame = vec![0; 100];
        let unknown = "10.1.0.9".parse().unwrap();
        assert_eq!(
            network.finish(1, unknown, &mut frame),
            Verdict::Unresolved {
                port: 1,
                next_hop: unknown
            }
        );
        assert_eq!(
            network.finish(1, "10.1.0.7".parse().unwrap(), &mut frame),
            Verdict::Transmit(1)
        );
        assert_eq!(frame[..12], [4, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn too_big_for_the_interface() {
        let network = network(vec![]);
        let hop = NextHop::Known {
            port: 0,
            mac: [0; 6],
        };
        let mut frame = vec![0; 2000];
        assert_eq!(
            network.send(hop, 1501, &mut frame),
            Verdict::Drop(DropReason::TooBig)
        );
        assert_eq!(network.send(hop, 1500, &mut frame), Verdict::Transmit(0));
    }

    proptest! {
        /// Against the plain definition: the longest prefix that contains the address.
        #[test]
        fn agrees_with_a_scan(
            prefixes in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..40), probes in proptest::collection::vec(any::<u32>(), 40)
        ) {
            let routes: Vec<Route> = prefixes.iter().enumerate().map(|(n, &(address, len))| Route {
                prefix: IpAddr::from(address.to_be_bytes()), len, metric: n as u32,
                hops: vec![Hop { port: Some(n as u8), via: None }],
            }).collect();
            let network = Network::new(vec![], routes.clone(), vec![]);
            let edges = prefixes.iter().flat_map(|&(a, _)| [a, a.wrapping_sub(1), a.wrapping_add(1)]);
            for probe in probes.into_iter().chain(edges) {
                let addr = Addr::v4(probe.to_be_bytes());
                let best = routes.iter()
                    .filter(|route| { let (first, last) = bounds(route); first <= addr.0 && addr.0 <= last })
                    .max_by_key(|route| (route.len, std::cmp::Reverse(route.metric)));
                let expected = match best {
                    Some(route) => NextHop::Unknown { port: route.hops[0].port.unwrap(), address: addr },
                    None => NextHop::None(DropReason::NoRoute),
                };
                prop_assert_eq!(network.next_hop(addr, 0), expected);
            }
        }
    }
}
