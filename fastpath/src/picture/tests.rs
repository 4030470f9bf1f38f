use super::*;
use rtnetlink::packet_route::route::RouteNextHop;

const MAC: MacAddr = [2, 0, 0, 0, 0, 7];

fn link(ifindex: u32, name: &str, up: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.header.flags = if up {
        LinkFlags::Up
    } else {
        LinkFlags::empty()
    };
    message.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::Address(MAC.to_vec()),
        LinkAttribute::Mtu(1500),
    ];
    message
}

fn neighbour(ifindex: u32, address: &str, state: NeighbourState) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.state = state;
    let address: IpAddr = address.parse().unwrap();
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    if state != NeighbourState::Failed && state != NeighbourState::Incomplete {
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(MAC.to_vec()));
    }
    message
}

fn route(prefix: &str, len: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let prefix: IpAddr = prefix.parse().unwrap();
    let mut message = RouteMessage::default();
    message.header.address_family = match prefix {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = len;
    message.header.kind = RouteType::Unicast;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.attributes = attributes;
    if len > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(prefix.into()));
    }
    message
}

fn picture() -> Picture {
    let mut picture = Picture::new(vec!["a".into(), "b".into()]);
    assert_eq!(
        picture.link_is(&link(10, "a", true)),
        LinkChange::Appeared(0)
    );
    assert_eq!(
        picture.link_is(&link(11, "b", true)),
        LinkChange::Appeared(1)
    );
    picture
}

#[test]
fn links_come_change_and_go() {
    let mut picture = picture();
    assert_eq!(picture.link_is(&link(10, "a", true)), LinkChange::None);
    assert_eq!(
        picture.link_is(&link(10, "a", false)),
        LinkChange::Changed(0)
    );
    assert_eq!(picture.link_is(&link(12, "other", true)), LinkChange::None);
    assert_eq!(picture.link_is_gone(12), LinkChange::None);
    assert_eq!(picture.link_is_gone(10), LinkChange::Vanished(0));
    assert_eq!(picture.link(0), None);
    assert_eq!(
        picture.link_is(&link(20, "a", true)),
        LinkChange::Appeared(0)
    );
    assert_eq!(picture.link(0).unwrap().ifindex, 20);
}

#[test]
fn an_interface_that_is_made_anew_under_its_name_is_noticed() {
    let mut picture = picture();
    assert_eq!(
        picture.link_is(&link(30, "a", true)),
        LinkChange::Appeared(0)
    );
}

#[test]
fn a_renamed_interface_is_gone() {
    let mut picture = picture();
    assert_eq!(
        picture.link_is(&link(10, "other", true)),
        LinkChange::Vanished(0)
    );
    assert_eq!(picture.link(0), None);
}

#[test]
fn only_usable_neighbours_on_served_interfaces_reach_the_forwarder() {
    let mut picture = picture();
    for (n, state) in [
        NeighbourState::Reachable,
        NeighbourState::Stale,
        NeighbourState::Delay,
        NeighbourState::Probe,
        NeighbourState::Permanent,
        NeighbourState::Noarp,
        NeighbourState::Failed,
        NeighbourState::Incomplete,
        NeighbourState::None,
    ]
    .into_iter()
    .enumerate()
    {
        picture.neighbour_is(&neighbour(10, &format!("10.0.0.{n}"), state));
    }
    picture.neighbour_is(&neighbour(99, "10.0.0.77", NeighbourState::Reachable));
    let input = picture.input();
    assert_eq!(input.neighbours.len(), 6);
    assert!(input.neighbours.iter().all(|n| n.port == 0 && n.mac == MAC));
}

#[test]
fn a_neighbour_that_fails_is_taken_away() {
    let mut picture = picture();
    picture.neighbour_is(&neighbour(11, "2001:db8::1", NeighbourState::Reachable));
    assert_eq!(picture.input().neighbours.len(), 1);
    picture.neighbour_is(&neighbour(11, "2001:db8::1", NeighbourState::Failed));
    assert!(picture.input().neighbours.is_empty());
    picture.neighbour_is(&neighbour(11, "2001:db8::1", NeighbourState::Stale));
    assert_eq!(picture.input().neighbours.len(), 1);
    picture.neighbour_is_gone(&neighbour(11, "2001:db8::1", NeighbourState::Stale));
    assert!(picture.input().neighbours.is_empty());
}

#[test]
fn a_change_of_state_alone_changes_nothing_for_the_forwarder() {
    let mut picture = picture();
    assert!(picture.neighbour_is(&neighbour(10, "10.0.0.1", NeighbourState::Reachable)));
    let before = picture.input();
    assert!(!picture.neighbour_is(&neighbour(10, "10.0.0.1", NeighbourState::Stale)));
    assert_eq!(picture.input(), before);
    assert!(!picture.neighbour_is(&neighbour(10, "10.0.0.2", NeighbourState::Incomplete)));
    assert_eq!(picture.input(), before);
    assert!(picture.neighbour_is(&neighbour(10, "10.0.0.1", NeighbourState::Failed)));
}

#[test]
fn proxied_addresses_are_no_neighbours() {
    let mut picture = picture();
    let real = neighbour(10, "10.0.0.1", NeighbourState::Reachable);
    let mut proxy = neighbour(10, "10.0.0.1", NeighbourState::None);
    proxy.header.flags = NeighbourFlags::Proxy;
    picture.neighbour_is(&real);
    assert!(!picture.neighbour_is(&proxy));
    assert!(!picture.neighbour_is_gone(&proxy));
    assert_eq!(picture.input().neighbours.len(), 1);
}

#[test]
fn stale_servers_and_gateways_are_found() {
    let mut picture = picture();
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        picture.neighbour_is(&neighbour(10, address, NeighbourState::Stale));
    }
    picture.neighbour_is(&neighbour(10, "10.0.0.4", NeighbourState::Reachable));
    let gateway: IpAddr = "10.0.0.2".parse().unwrap();
    picture.routes_are(vec![
        forwarding_route(&route(
            "0.0.0.0",
            0,
            vec![
                RouteAttribute::Oif(10),
                RouteAttribute::Gateway(gateway.into()),
            ],
        ))
        .unwrap(),
    ]);
    let server: IpAddr = "10.0.0.1".parse().unwrap();
    let mut stale = picture.stale(|a| *a == server);
    stale.sort();
    assert_eq!(stale, [(0, server), (0, gateway)]);
}

#[test]
fn routes_on_link_and_through_a_gateway() {
    let mut picture = picture();
    let via: IpAddr = "10.0.0.254".parse().unwrap();
    picture.routes_are(
        [
            route("10.0.0.0", 24, vec![RouteAttribute::Oif(10)]),
            route(
                "0.0.0.0",
                0,
                vec![
                    RouteAttribute::Gateway(via.into()),
                    RouteAttribute::Oif(11),
                    RouteAttribute::Priority(100),
                ],
            ),
            route("192.0.2.0", 24, vec![RouteAttribute::Oif(99)]),
        ]
        .iter()
        .filter_map(forwarding_route)
        .collect(),
    );
    let routes = picture.input().routes;
    assert_eq!(routes.len(), 3);
    assert_eq!((routes[0].len, routes[0].metric), (0, 100));
    assert_eq!(
        routes[0].hops,
        [Hop {
            port: Some(1),
            via: Some(via)
        }]
    );
    assert_eq!(
        routes[1].hops,
        [Hop {
            port: Some(0),
            via: None
        }]
    );
    assert_eq!(
        routes[2].hops,
        [Hop {
            port: None,
            via: None
        }]
    );
}

#[test]
fn an_ipv4_route_may_have_an_ipv6_gateway() {
    let via: Ipv6Addr = "fe80::1".parse().unwrap();
    let message = route(
        "10.9.0.0",
        16,
        vec![
            RouteAttribute::Via(RouteVia::Inet6(via)),
            RouteAttribute::Oif(10),
        ],
    );
    let mut picture = picture();
    picture.routes_are(vec![forwarding_route(&message).unwrap()]);
    assert_eq!(
        picture.input().routes[0].hops,
        [Hop {
            port: Some(0),
            via: Some(IpAddr::V6(via))
        }]
    );
}

#[test]
fn of_several_hops_the_living_ones_count() {
    let hop = |ifindex, address: &str, flags| {
        let address: IpAddr = address.parse().unwrap();
        let mut hop = RouteNextHop::default();
        hop.interface_index = ifindex;
        hop.flags = flags;
        hop.attributes = vec![RouteAttribute::Gateway(address.into())];
        hop
    };
    let message = route(
        "10.9.0.0",
        16,
        vec![RouteAttribute::MultiPath(vec![
            hop(10, "10.0.0.1", RouteNextHopFlags::empty()),
            hop(11, "10.1.0.1", RouteNextHopFlags::Dead),
            hop(11, "10.1.0.2", RouteNextHopFlags::Linkdown),
        ])],
    );
    let mut picture = picture();
    picture.routes_are(vec![forwarding_route(&message).unwrap()]);
    let ports: Vec<_> = picture.input().routes[0]
        .hops
        .iter()
        .map(|h| (h.port, h.via.map(|v| v.to_string())))
        .collect();
    assert_eq!(
        ports,
        [
            (Some(0), Some("10.0.0.1".to_owned())),
            (Some(1), Some("10.1.0.2".to_owned()))
        ]
    );
}

#[test]
fn own_addresses_are_told_by_local_routes() {
    let mut own = route("10.1.0.1", 32, vec![]);
    assert_eq!(local_address(&own), None, "a host's route is no address");
    own.header.kind = RouteType::Local;
    let mut six = route("fd00::1", 128, vec![]);
    six.header.kind = RouteType::Local;
    let mut loopback = route("127.0.0.0", 8, vec![]);
    loopback.header.kind = RouteType::Local;
    let addresses: Vec<_> = [&six, &own, &loopback, &own]
        .into_iter()
        .filter_map(local_address)
        .collect();
    let mut picture = Picture::new(vec!["eth0".to_owned()]);
    picture.local_addresses_are(addresses);
    assert_eq!(
        picture
            .input()
            .local
            .iter()
            .map(IpAddr::to_string)
            .collect::<Vec<_>>(),
        ["10.1.0.1", "fd00::1"]
    );
}

#[test]
fn routes_that_do_not_forward_are_left_out() {
    let good = || route("10.0.0.0", 24, vec![RouteAttribute::Oif(10)]);
    assert!(forwarding_route(&good()).is_some());
    let mut local = good();
    local.header.kind = RouteType::Local;
    assert!(forwarding_route(&local).is_none());
    let mut blackhole = good();
    blackhole.header.kind = RouteType::BlackHole;
    assert!(forwarding_route(&blackhole).is_none());
    let mut cached = good();
    cached.header.flags |= RouteFlags::Cloned;
    assert!(forwarding_route(&cached).is_none());
    let mut dead = good();
    dead.header.flags |= RouteFlags::Dead;
    assert!(forwarding_route(&dead).is_none());
    let mut other_table = good();
    other_table.attributes.push(RouteAttribute::Table(1000));
    assert!(forwarding_route(&other_table).is_none());
    let mut nowhere = good();
    nowhere.attributes.clear();
    assert!(forwarding_route(&nowhere).is_none());
}

#[test]
fn ipv6_routes_have_the_kernels_default_metric() {
    let message = route("2001:db8::", 32, vec![RouteAttribute::Oif(10)]);
    assert_eq!(forwarding_route(&message).unwrap().metric, 1024);
}

#[test]
fn closed_addresses_are_part_of_the_network() {
    let address: IpAddr = "192.0.2.80".parse().unwrap();
    let mut picture = picture();
    let open = picture.input();
    assert!(!open.clone().network().is_closed(address.into()));
    picture.closed_are(BTreeSet::from([address]));
    let closed = picture.input();
    assert_ne!(open, closed, "the workers have to know");
    assert!(closed.network().is_closed(address.into()));
    picture.closed_are(BTreeSet::new());
    assert_eq!(picture.input(), open);
}
