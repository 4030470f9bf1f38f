//! Connections go on at another node that knows no more than their traces: on their servers, although it would choose others.

mod common;

use common::*;
use ilb_forwarder::packet::tcp;
use ilb_forwarder::peer::{self, Places};
use ilb_forwarder::spec::*;
use ilb_forwarder::verdict::{DropReason, Verdict};

const TOPOLOGIES: [Topology; 3] = [Topology::Dsr, Topology::HalfNat, Topology::Tun];
const ALGORITHMS: [Algorithm; 4] = [
    Algorithm::LeastConnection,
    Algorithm::RoundRobin,
    Algorithm::WeightedRoundRobin,
    Algorithm::Maglev,
];

fn light(family: Family, topology: Topology, algorithm: Algorithm) -> RuleSpec {
    let mut rule = rule(family, topology, algorithm, 4);
    rule.sync = Synchronise::Light;
    if topology == Topology::Tun {
        rule.proxy_src = vec![family.proxy(1)];
    }
    rule
}

/// The rule as it is on the other node: other numbers, another order and other weights, one server more.
fn elsewhere(mut rule: RuleSpec, family: Family) -> RuleSpec {
    rule.id += 70;
    for server in &mut rule.servers {
        server.id = 900 - server.id;
        server.weight = 1 + server.id as u16 % 3;
    }
    rule.servers.reverse();
    rule.servers.push(ServerSpec {
        id: 5,
        name: "_new.5".into(),
        address: family.server(9),
        weight: 5,
        ..ServerSpec::default()
    });
    rule
}

fn traces(world: &World) -> Vec<u32> {
    (0..world.table.high_water())
        .filter_map(|entry| peer::trace(&world.view, &world.table, entry))
        .collect()
}

/// Has a node know what another one tells.
fn tell(world: &World, traces: &[u32]) {
    let told = &world.view.snapshot.guard().traces;
    told.told(1, traces, world.now);
}

/// Begins a connection; gives its next packet.
fn begin(world: &mut World, family: Family, n: u8, port: u16) -> Vec<u8> {
    let (client, vip) = ((family.client(n), port), (family.vip(), 80));
    world.send(&syn(client, vip));
    world.send(&ack(client, vip));
    ack(client, vip)
}

#[test]
fn connections_stay_on_their_servers() {
    for family in FAMILIES {
        for topology in TOPOLOGIES {
            for algorithm in ALGORITHMS {
                let what = format!("{family:?} {topology:?} {algorithm:?}");
                let rule = light(family, topology, algorithm);
                let mut a = World::new(vec![rule.clone()]);
                let mut b = World::new(vec![elsewhere(rule, family)]);
                b.now = 77_777;
                let frames: Vec<_> = (1..=40).map(|n| begin(&mut a, family, n, 4000)).collect();
                // Half open ones leave no traces.
                a.send(&syn((family.client(50), 1), (family.vip(), 80)));
                let told = traces(&a);
                assert_eq!(told.len(), 40, "{what}");
                // Nothing is known yet.
                let verdict = b.send(&frames[0]).0;
                assert_eq!(verdict, Verdict::Drop(DropReason::NoConnection), "{what}");
                tell(&b, &told);
                for (n, frame) in frames.iter().enumerate() {
                    let there = a.send(frame);
                    assert!(matches!(there.0, Verdict::Transmit(_)), "{what}");
                    if topology == Topology::HalfNat && n % 2 == 0 {
                        // The client has nothing to say: it waits for the server.
                        let (client, server) = ends(&there.1);
                        let back = ack(server, client);
                        assert_eq!(b.send_by(&back, BACK), a.send_by(&back, BACK), "{what}");
                    }
                    assert_eq!(b.send(frame), there, "{what}: the same server");
                }
                assert_eq!(b.table.used(), 40, "{what}");
                assert_eq!(
                    traces(&b).len(),
                    40,
                    "{what}: and it could tell of them itself"
                );
                // Who was not told of is not known now either.
                let stranger = ack((family.client(60), 4000), (family.vip(), 80));
                let verdict = b.send(&stranger).0;
                assert_eq!(verdict, Verdict::Drop(DropReason::NoConnection), "{what}");
            }
        }
    }
}

#[test]
fn only_what_can_be_found_again_leaves_a_trace() {
    type Spoil = fn(&mut RuleSpec);
    #[rustfmt::skip]
    let table: [(&str, Spoil, usize); 5] = [
        ("a rule that is light", |_| {}, 1),
        ("full", |it| it.sync = Synchronise::Full, 0),
        ("off", |it| it.sync = Synchronise::Off, 0),
        ("NAT", |it| { it.topology = Topology::Nat; it.proxy_src = vec![V4.proxy(1)]; }, 0),
        ("UDP", |it| it.vips[0].protocol = Protocol::Udp, 0),
    ];
    for (what, spoil, expected) in table {
        let mut rule = light(V4, Topology::HalfNat, Algorithm::RoundRobin);
        spoil(&mut rule);
        let mut world = World::new(vec![rule]);
        begin(&mut world, V4, 1, 4000);
        world.send(&datagram((V4.client(1), 4000), (V4.vip(), 80)).frame());
        world.send(&datagram((V4.client(1), 4000), (V4.vip(), 80)).frame());
        assert_eq!(traces(&world).len(), expected, "{what}");
    }
}

#[test]
fn a_rule_is_told_of_anew_when_it_becomes_light() {
    let places = |sync| {
        let mut rule = light(V4, Topology::Dsr, Algorithm::RoundRobin);
        rule.sync = sync;
        Places::of(&World::new(vec![rule]).view.snapshot)
    };
    let [full, light, off] = [Synchronise::Full, Synchronise::Light, Synchronise::Off].map(places);
    assert!(light.traces_more_than(&full) && light.traces_more_than(&off));
    assert!(!full.traces_more_than(&light) && !light.traces_more_than(&light));
    assert!(
        light.adds_to(&off) && !light.adds_to(&full),
        "claims are told of as ever"
    );
}

#[test]
fn a_servers_packet_finds_its_connection_whatever_ports_it_goes_by() {
    #[rustfmt::skip]
    let table = [
        (PortRange::single(80), PortMap::Same, 80, 80),
        (PortRange::single(80), PortMap::Collapse(8080), 80, 8080),
        (PortRange { first: 80, last: 89 }, PortMap::Same, 85, 85),
        (PortRange { first: 80, last: 89 }, PortMap::Shift(1000), 85, 1005),
        (PortRange { first: 80, last: 89 }, PortMap::Collapse(8080), 85, 8080),
    ];
    for (ports, map, vip_port, server_port) in table {
        let what = format!("{ports:?} {map:?}");
        let mut rule = light(V4, Topology::HalfNat, Algorithm::LeastConnection);
        rule.vips[0].ports = ports;
        rule.servers.iter_mut().for_each(|it| it.ports = map);
        let (client, vip) = ((V4.client(1), 4000), (V4.vip(), vip_port));
        let mut a = World::new(vec![rule.clone()]);
        let mut b = World::new(vec![elsewhere(rule.clone(), V4)]);
        // The new server has ports of its own; it is not asked.
        a.send(&syn(client, vip));
        let (_, sent) = a.send(&ack(client, vip));
        let (_, server) = ends(&sent);
        assert_eq!(server.1, server_port, "{what}");
        let back = ack(server, client);
        tell(&b, &traces(&a));
        // Nobody answers with a handshake in the middle of a connection, and not from another port.
        let begins = segment(server, client, tcp::SYN).frame();
        let other = ack((server.0, server_port + 1), client);
        for frame in [begins, other] {
            assert_eq!(b.send_by(&frame, BACK).0, Verdict::Kernel, "{what}");
        }
        assert_eq!(b.table.used(), 0, "{what}");
        assert_eq!(b.send_by(&back, BACK), a.send_by(&back, BACK), "{what}");
        // As soon as the rule is not light any more, nobody looks.
        rule.sync = Synchronise::Full;
        let mut c = World::new(vec![light(
            V4,
            Topology::HalfNat,
            Algorithm::LeastConnection,
        )]);
        c.configure(vec![rule]);
        tell(&c, &traces(&a));
        assert_eq!(c.send_by(&back, BACK).0, Verdict::Kernel, "{what}");
    }
}

#[test]
fn what_changes_in_place_is_followed() {
    let rule = light(V4, Topology::HalfNat, Algorithm::LeastConnection);
    let mut a = World::new(vec![rule.clone()]);
    let mut b = World::new(vec![rule.clone()]);
    let frame = begin(&mut a, V4, 1, 4000);
    let (_, sent) = a.send(&frame);
    let (client, server) = ends(&sent);
    tell(&b, &traces(&a));
    let mut without = rule.clone();
    without.servers.retain(|it| it.address != server.0);
    let change = |world: &mut World, rules, removed| {
        let generation = world.view.snapshot.generation();
        let change = SpecChange {
            base: generation,
            generation: generation + 1,
            limits: Limits::default(),
            rules,
            removed,
        };
        let snapshot = world.view.snapshot.changed(&change).unwrap();
        world.view = world.view.with(snapshot.into());
    };
    let found = |world: &World| !world.view.snapshot.behind(server.0.into()).is_empty();
    assert!(found(&b));
    change(&mut b, vec![without], vec![]);
    assert!(!found(&b));
    assert_eq!(b.send(&frame).0, Verdict::Drop(DropReason::NoConnection));
    change(&mut b, vec![rule], vec![]);
    assert!(found(&b));
    assert_eq!(
        b.send_by(&ack(server, client), BACK).0,
        Verdict::Transmit(FRONT)
    );
    change(&mut b, vec![], vec![1]);
    assert!(!found(&b));
}
