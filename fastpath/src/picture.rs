//! What the kernel said about links, routes and neighbours, and what the forwarder needs of it. Pure: messages in, picture
//! out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ilb_forwarder::network::{Hop, Interface, MacAddr, Neighbour, Network, PortIndex, Route};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags,
    RouteType, RouteVia,
};

/// `RT_TABLE_DEFAULT` of include/uapi/linux/rtnetlink.h.
const TABLE_DEFAULT: u32 = 253;
/// Metric of an IPv6 route that has none (`IP6_RT_PRIO_USER`, include/uapi/linux/ipv6_route.h).
const IPV6_METRIC: u32 = 1024;

/// A link that the node settings name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index of it.
    pub ifindex: u32,
    /// Its address, all zero where it has none.
    pub mac: MacAddr,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Whether it is up.
    pub up: bool,
}

/// What happened to an interface of the node settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkChange {
    /// Nothing, or none of ours.
    None,
    /// It exists now, or exists anew.
    Appeared(PortIndex),
    /// It does not exist any more.
    Vanished(PortIndex),
    /// It went up or down, or changed its address or MTU; routes may have changed with it.
    Changed(PortIndex),
}

/// A neighbour as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    state: NeighbourState,
    mac: Option<MacAddr>,
}

impl Entry {
    /// The address that packets may be sent to.
    fn usable(self) -> Option<MacAddr> {
        self.mac.filter(|_| is_usable(self.state))
    }
}

/// Where a route leads, with the kernel's index of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leg {
    ifindex: u32,
    via: Option<IpAddr>,
}

/// A route as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRoute {
    prefix: IpAddr,
    len: u8,
    metric: u32,
    legs: Vec<Leg>,
}

/// What the forwarder's network is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Input {
    /// In the order of the node settings; all zero for one that does not exist.
    pub interfaces: Vec<Interface>,
    /// Forwarding routes.
    pub routes: Vec<Route>,
    /// Neighbours on interfaces that are served.
    pub neighbours: Vec<Neighbour>,
    /// This host's own addresses.
    pub local: Vec<IpAddr>,
    /// Addresses at which this host takes nothing for itself.
    pub closed: BTreeSet<IpAddr>,
}

impl Input {
    /// The forwarder's network.
    pub fn network(self) -> Network {
        Network::new(self.interfaces, self.routes, self.neighbours)
            .with_local(self.local)
            .with_closed(self.closed)
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Picture {
    names: Vec<String>,
    links: Vec<Option<Link>>,
    routes: Vec<KernelRoute>,
    local: Vec<IpAddr>,
    closed: BTreeSet<IpAddr>,
    neighbours: HashMap<(u32, IpAddr), Entry>,
}

impl Picture {
    /// An empty picture for these interfaces.
    pub fn new(names: Vec<String>) -> Picture {
        Picture {
            links: vec![None; names.len()],
            names,
            ..Picture::default()
        }
    }

    /// The interface with this index in the node settings, if it exists.
    pub fn link(&self, port: PortIndex) -> Option<Link> {
        self.links.get(usize::from(port)).copied().flatten()
    }

    /// Name of the interface with this index in the node settings.
    pub fn name(&self, port: PortIndex) -> &str {
        self.names
            .get(usize::from(port))
            .map_or("?", String::as_str)
    }

    /// The interface of the node settings with this name.
    pub fn port_named(&self, name: &str) -> Option<PortIndex> {
        let found = self.names.iter().position(|it| it == name);
        found.map(|port| port as PortIndex)
    }

    fn port_of(&self, ifindex: u32) -> Option<PortIndex> {
        let found = |link: &Option<Link>| link.is_some_and(|l| l.ifindex == ifindex);
        self.links.iter().position(found).map(|i| i as PortIndex)
    }

    /// A link is there or has changed.
    pub fn link_is(&mut self, message: &LinkMessage) -> LinkChange {
        let ifindex = message.header.index;
        let mut name = None;
        let mut link = Link {
            ifindex,
            mac: [0; 6],
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(n) => name = Some(n.as_str()),
                LinkAttribute::Address(a) => link.mac = mac(a).unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => link.mtu = u16::try_from(*mtu).unwrap_or(u16::MAX),
                _ => {}
            }
        }
        // The bridge family repeats links with other contents.
        if message.header.interface_family == AddressFamily::Bridge {
            return LinkChange::None;
        }
        let port = name
            .and_then(|name| self.names.iter().position(|n| n == name))
            .map(|port| port as PortIndex);
        // A served interface that was renamed is gone for us.
        let renamed = self.port_of(ifindex).filter(|old| Some(*old) != port);
        if let Some(old) = renamed {
            self.links[usize::from(old)] = None;
        }
        let Some(port) = port else {
            return renamed.map_or(LinkChange::None, LinkChange::Vanished);
        };
        match self.links[usize::from(port)].replace(link) {
            Some(old) if old == link => LinkChange::None,
            Some(old) if old.ifindex == link.ifindex => LinkChange::Changed(port),
            _ => LinkChange::Appeared(port),
        }
    }

    /// A link is gone.
    pub fn link_is_gone(&mut self, ifindex: u32) -> LinkChange {
        self.neighbours.retain(|(index, _), _| *index != ifindex);
        let Some(port) = self.port_of(ifindex) else {
            return LinkChange::None;
        };
        self.links[usize::from(port)] = None;
        LinkChange::Vanished(port)
    }

    /// Replaces all routes.
    pub fn routes_are(&mut self, routes: Vec<KernelRoute>) {
        self.routes = routes;
    }

    /// Replaces all addresses of this host.
    pub fn local_addresses_are(&mut self, addresses: Vec<IpAddr>) {
        self.local = addresses;
        self.local.sort_unstable();
        self.local.dedup();
    }

    /// Replaces the addresses at which this host takes nothing for itself: the one thing that the kernel has not said.
    pub fn closed_are(&mut self, addresses: BTreeSet<IpAddr>) {
        self.closed = addresses;
    }

    /// A neighbour is there or has changed its state. True if the forwarder has to know.
    pub fn neighbour_is(&mut self, message: &NeighbourMessage) -> bool {
        let Some((address, mac)) = neighbour(message) else {
            return false;
        };
        let entry = Entry {
            state: message.header.state,
            mac,
        };
        let key = (message.header.ifindex, address);
        let old = self.neighbours.insert(key, entry);
        old.and_then(Entry::usable) != entry.usable()
    }

    /// A neighbour is gone. True if the forwarder has to know.
    pub fn neighbour_is_gone(&mut self, message: &NeighbourMessage) -> bool {
        let Some((address, _)) = neighbour(message) else {
            return false;
        };
        let old = self.neighbours.remove(&(message.header.ifindex, address));
        old.and_then(Entry::usable).is_some()
    }

    /// Forgets all neighbours, before they are listed anew.
    pub fn forget_neighbours(&mut self) {
        self.neighbours.clear();
    }

    /// Neighbours in doubt that matter: gateways, and those for which `matters` holds.
    pub fn stale(&self, matters: impl Fn(&IpAddr) -> bool) -> Vec<(PortIndex, IpAddr)> {
        let gateways: HashSet<IpAddr> = self
            .routes
            .iter()
            .flat_map(|r| r.legs.iter().filter_map(|l| l.via))
            .collect();
        self.neighbours
            .iter()
            .filter(|(_, entry)| entry.state == NeighbourState::Stale)
            .filter(|((_, address), _)| gateways.contains(address) || matters(address))
            .filter_map(|((ifindex, address), _)| Some((self.port_of(*ifindex)?, *address)))
            .collect()
    }

    /// Gateways on interfaces that are served whose link-layer addresses are not known.
    pub fn unresolved_gateways(&self) -> Vec<(PortIndex, IpAddr)> {
        let legs = self.routes.iter().flat_map(|route| &route.legs);
        let unknown: HashSet<(u32, IpAddr)> = legs
            .filter_map(|leg| Some((leg.ifindex, leg.via?)))
            .filter(|key| {
                let entry = self.neighbours.get(key);
                entry.is_none_or(|entry| entry.usable().is_none())
            })
            .collect();
        let places = unknown.into_iter();
        places
            .filter_map(|(ifindex, address)| Some((self.port_of(ifindex)?, address)))
            .collect()
    }

    /// What the forwarder needs, in a fixed order, so that two equal pictures give equal inputs.
    pub fn input(&self) -> Input {
        let interfaces = self
            .links
            .iter()
            .map(|link| {
                link.map_or(
                    Interface {
                        mac: [0; 6],
                        mtu: 0,
                    },
                    |l| Interface {
                        mac: l.mac,
                        mtu: l.mtu,
                    },
                )
            })
            .collect();
        let mut routes: Vec<Route> = self.routes.iter().map(|r| self.route(r)).collect();
        routes.sort_by_key(|r| (r.prefix, r.len, r.metric));
        let mut neighbours: Vec<Neighbour> = self
            .neighbours
            .iter()
            .filter_map(|((ifindex, address), entry)| {
                Some(Neighbour {
                    mac: entry.usable()?,
                    port: self.port_of(*ifindex)?,
                    address: *address,
                })
            })
            .collect();
        neighbours.sort_by_key(|n| (n.port, n.address));
        Input {
            interfaces,
            routes,
            neighbours,
            local: self.local.clone(),
            closed: self.closed.clone(),
        }
    }

    fn route(&self, route: &KernelRoute) -> Route {
        Route {
            prefix: route.prefix,
            len: route.len,
            metric: route.metric,
            hops: route
                .legs
                .iter()
                .map(|leg| Hop {
                    port: self.port_of(leg.ifindex),
                    via: leg.via,
                })
                .collect(),
        }
    }
}

/// States in which the kernel itself would send (`NUD_VALID`, include/net/neighbour.h).
fn is_usable(state: NeighbourState) -> bool {
    match state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent
        | NeighbourState::Noarp => true,
        // None, Incomplete and Failed; and states that kernels to come may have.
        _ => false,
    }
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok()
}

/// Whom a message is about.
pub fn neighbour_address(message: &NeighbourMessage) -> Option<IpAddr> {
    neighbour(message).map(|(address, _)| address)
}

fn neighbour(message: &NeighbourMessage) -> Option<(IpAddr, Option<MacAddr>)> {
    // An address that we answer for others is no neighbour.
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let mut address = None;
    let mut link_layer = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => {
                address = Some(IpAddr::V4(*a));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => {
                address = Some(IpAddr::V6(*a));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => link_layer = mac(bytes),
            _ => {}
        }
    }
    Some((address?, link_layer))
}

/// The address of a message that says that it is this host's own, as the kernel's table of local routes does for every
/// address of every interface.
pub fn local_address(message: &RouteMessage) -> Option<IpAddr> {
    let header = &message.header;
    let whole = match header.address_family {
        AddressFamily::Inet => 32,
        AddressFamily::Inet6 => 128,
        _ => return None,
    };
    if header.kind != RouteType::Local || header.destination_prefix_length != whole {
        return None;
    }
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => ip(address),
            _ => None,
        })
}

/// The route of a message, if packets may be forwarded by it: unicast, of the main or default table, not a cached
/// one, for any type of service, and with a hop that is alive.
pub fn forwarding_route(message: &RouteMessage) -> Option<KernelRoute> {
    let header = &message.header;
    if header.kind != RouteType::Unicast
        || header.flags.contains(RouteFlags::Cloned)
        || header.tos != 0
    {
        return None;
    }
    let (unspecified, default_metric) = match header.address_family {
        AddressFamily::Inet => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        AddressFamily::Inet6 => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IPV6_METRIC),
        _ => return None,
    };
    let mut route = KernelRoute {
        prefix: unspecified,
        len: header.destination_prefix_length,
        metric: default_metric,
        legs: Vec::new(),
    };
    let mut table = u32::from(header.table);
    let mut several = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(t) => table = *t,
            RouteAttribute::Destination(a) => route.prefix = ip(a)?,
            RouteAttribute::Priority(p) => route.metric = *p,
            RouteAttribute::MultiPath(hops) => {
                several = hops
                    .iter()
                    .filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead))
                    .map(|hop| Leg {
                        ifindex: hop.interface_index,
                        via: gateway(&hop.attributes),
                    })
                    .collect();
            }
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) && table != TABLE_DEFAULT {
        return None;
    }
    if several.is_empty() {
        let out = message.attributes.iter().find_map(|a| match a {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        if let (Some(ifindex), false) = (out, header.flags.contains(RouteFlags::Dead)) {
            several.push(Leg {
                ifindex,
                via: gateway(&message.attributes),
            });
        }
    }
    route.legs = several;
    (!route.legs.is_empty()).then_some(route)
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
