//! While addresses move between two nodes that live, what belongs to nothing here is sent on to the other node, as it came.

mod common;

use common::*;
use ilb_forwarder::explain;
use ilb_forwarder::nat::Share;
use ilb_forwarder::packet::tcp;
use ilb_forwarder::relay::{ALWAYS, RELAYED_PER_SECOND};
use ilb_forwarder::spec::*;
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{Snapshot, View};

/// The other node's Ethernet addresses, by interface.
const OTHER: [[u8; 6]; 2] = [[6, 0, 0, 0, 0, FRONT], [6, 0, 0, 0, 0, BACK]];

/// Rules for TCP and UDP, at a node which knows that another one may know more until a second.
fn world(family: Family, topology: Topology, until: u32) -> World {
    let tcp = rule(family, topology, Algorithm::RoundRobin, 2);
    let mut udp = tcp.clone();
    udp.id = 2;
    udp.name = "dns".into();
    udp.vips[0].protocol = Protocol::Udp;
    let mut world = World::new(vec![tcp, udp]);
    let own = [V4.proxy(9), V6.proxy(9)];
    let network = network().with_local(own);
    world.view = View::new(world.view.snapshot.clone(), network.into());
    let relay = &world.view.snapshot.guard().relay;
    relay.set(FRONT, Some(OTHER[0]), until);
    relay.set(BACK, Some(OTHER[1]), until);
    world
}

fn share(world: &World, share: Share) {
    world.view.snapshot.guard().set_share(share);
}

fn relayed(world: &World) -> u64 {
    world.forwarder.counters().relayed.get()
}

/// The frame is sent on by the interface that it came by, with other Ethernet addresses and otherwise the same.
#[track_caller]
fn goes_on(world: &mut World, frame: &[u8], port: u8, what: &str) {
    let before = relayed(world);
    let (verdict, out) = world.send_by(frame, port);
    assert_eq!(verdict, Verdict::Transmit(port), "{what}");
    assert_eq!(out[..6], OTHER[port as usize], "{what}: to the other node");
    assert_eq!(out[6..12], [2, 0, 0, 0, 0, port], "{what}: from us");
    assert_eq!(out[12..], frame[12..], "{what}: unchanged");
    assert_eq!(relayed(world), before + 1, "{what}: counted");
    assert_eq!(world.table.used(), 0, "{what}: nothing is entered");
}

#[track_caller]
fn stays(world: &mut World, frame: &[u8], port: u8, expected: Verdict, what: &str) {
    let before = relayed(world);
    let (verdict, out) = world.send_by(frame, port);
    assert_eq!(verdict, expected, "{what}");
    assert_eq!(out, frame, "{what}: untouched");
    assert_eq!(relayed(world), before, "{what}: not counted");
}

const NO_CONNECTION: Verdict = Verdict::Drop(DropReason::NoConnection);

#[test]
fn what_is_in_the_middle_of_something_unknown_goes_to_the_other_node() {
    for family in FAMILIES {
        for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
            let what = format!("{family:?} {topology:?}");
            let mut world = world(family, topology, ALWAYS);
            let (client, vip) = ((family.client(1), 4001), (family.vip(), 80));
            for flags in [tcp::ACK, tcp::ACK | tcp::FIN, tcp::RST] {
                let frame = segment(client, vip, flags).frame();
                goes_on(&mut world, &frame, FRONT, &what);
            }
            // Wherever a server answers to.
            let to = match topology {
                Topology::Nat => (family.proxy(1), 5001),
                _ => client,
            };
            let server = (family.server(1), 80);
            for frame in [
                segment(server, to, tcp::SYN | tcp::ACK).frame(),
                ack(server, to),
                datagram(server, to).frame(),
            ] {
                goes_on(&mut world, &frame, BACK, &what);
            }
            let listed = relayed(&world);
            let answer = world.send(&syn(client, vip)).0;
            assert_eq!(answer, Verdict::Transmit(BACK), "{what}: ours");
            let begun = world.send(&datagram((client.0, 4002), vip).frame()).0;
            assert_eq!(begun, Verdict::Transmit(BACK), "{what}: ours");
            let known = world.send(&ack(client, vip)).0;
            assert_eq!(known, Verdict::Transmit(BACK), "{what}: known");
            assert_eq!(relayed(&world), listed, "{what}");
        }
    }
}

#[test]
fn all_fragments_of_a_datagram_go_the_same_way() {
    for (family, topology, to) in [
        (V4, Topology::Nat, (V4.proxy(1), 5001)),
        (V6, Topology::Nat, (V6.proxy(1), 5001)),
        (V4, Topology::HalfNat, (V4.client(1), 4001)),
    ] {
        let what = format!("{family:?} {topology:?}");
        let mut world = world(family, topology, ALWAYS);
        let long = Build {
            payload: vec![7; 3000],
            ..datagram((family.server(1), 80), to)
        };
        for fragment in long.fragments(9, 1400) {
            goes_on(&mut world, &fragment, BACK, &what);
        }
        world.now += 1;
        let relay = &world.view.snapshot.guard().relay;
        relay.set(BACK, None, 0);
        let last = long.fragments(9, 1400).remove(2);
        let gone = Verdict::Drop(DropReason::FragmentUnknown);
        stays(&mut world, &last, BACK, gone, &what);
    }
}

#[test]
fn a_port_of_a_source_names_the_node_that_has_taken_it() {
    let server = (V4.server(1), 80);
    // (which ports are ours; the port; whether the other node may have taken it)
    for (ours, port, others) in [
        (Share::All, 5000, true),
        (Share::All, 5001, true),
        (Share::Even, 5000, false),
        (Share::Even, 5001, true),
        (Share::Odd, 5000, true),
        (Share::Odd, 5001, false),
    ] {
        let what = format!("{ours:?}, port {port}");
        let mut world = world(V4, Topology::Nat, ALWAYS);
        share(&world, ours);
        for frame in [
            ack(server, (V4.proxy(2), port)),
            datagram(server, (V4.proxy(2), port)).frame(),
        ] {
            match others {
                true => goes_on(&mut world, &frame, BACK, &what),
                false => stays(&mut world, &frame, BACK, Verdict::Kernel, &what),
            }
        }
    }
}

#[test]
fn what_nobody_else_can_know_is_dealt_with_as_ever() {
    let (client, vip) = ((V4.client(1), 4001), (V4.vip(), 80));
    let server = (V4.server(1), 80);
    let mut half = world(V4, Topology::HalfNat, ALWAYS);
    let own = (V4.proxy(9), 40_000);
    let stranger = syn(server, (V4.client(2), 80));
    for (frame, what) in [
        (ack(server, own), "a health check's answer"),
        (datagram(server, own).frame(), "a health check's answer"),
        (stranger, "a connection of the server's own"),
    ] {
        stays(&mut half, &frame, BACK, Verdict::Kernel, what);
    }
    let mut nat = world(V4, Topology::Nat, ALWAYS);
    let begins = syn(server, (V4.proxy(1), 5001));
    stays(
        &mut nat,
        &begins,
        BACK,
        Verdict::Kernel,
        "a SYN to a source",
    );

    // What the other node has sent on itself goes no further.
    let mut back = ack(client, vip);
    back[6..12].copy_from_slice(&OTHER[0]);
    stays(&mut nat, &back, FRONT, NO_CONNECTION, "it comes from there");

    // Each interface has its own.
    nat.view.snapshot.guard().relay.set(FRONT, None, 0);
    let frame = ack(client, vip);
    stays(&mut nat, &frame, FRONT, NO_CONNECTION, "nobody is there");
    goes_on(&mut nat, &frame, BACK, "somebody is here");
}

#[test]
fn a_connection_that_is_over_may_have_a_successor_at_the_other_node() {
    for family in FAMILIES {
        let (client, vip) = ((family.client(1), 4001), (family.vip(), 80));
        let what = format!("{family:?}");
        let mut world = world(family, Topology::HalfNat, ALWAYS);
        let (_, begun) = world.send(&syn(client, vip));
        let (_, server) = ends(&begun);
        let fin = tcp::FIN | tcp::ACK;
        world.send(&ack(client, vip));
        world.send(&segment(client, vip, fin).frame());
        world.send_by(&segment(server, client, fin).frame(), BACK);
        let last = ack(client, vip);
        let ours = world.send(&last).0;
        assert_eq!(ours, Verdict::Transmit(BACK), "{what}: it ended here");
        world.now += 2;
        let relayed = |world: &mut World, frame: &[u8], port: u8| {
            let (verdict, out) = world.send_by(frame, port);
            assert_eq!(verdict, Verdict::Transmit(port), "{what}: a while later");
            assert_eq!(
                (&out[..6], &out[12..]),
                (&OTHER[port as usize][..], &frame[12..])
            );
        };
        relayed(&mut world, &last, FRONT);
        relayed(&mut world, &ack(server, client), BACK);
        let again = world.send(&syn(client, vip)).0;
        assert_eq!(
            again,
            Verdict::Transmit(BACK),
            "{what}: it begins anew here"
        );
        let next = world.send(&last).0;
        assert_eq!(next, Verdict::Transmit(BACK), "{what}: and goes on here");
    }
}

#[test]
fn it_ends_with_its_time_and_within_its_limit() {
    let frame = ack((V4.client(1), 4001), (V4.vip(), 80));
    let mut world = world(V4, Topology::Nat, 1001);
    for (now, goes) in [(1000, true), (1001, true), (1002, false), (1001, true)] {
        world.now = now;
        let what = format!("in second {now}");
        match goes {
            true => goes_on(&mut world, &frame, FRONT, &what),
            false => stays(&mut world, &frame, FRONT, NO_CONNECTION, &what),
        }
    }
    world.now = 1000;
    let relay = &world.view.snapshot.guard().relay;
    while relay.sent.take(RELAYED_PER_SECOND, 1001) {}
    stays(&mut world, &frame, FRONT, NO_CONNECTION, "given a flood");

    let mut closed = World::new(vec![rule(V4, Topology::Nat, Algorithm::RoundRobin, 1)]);
    stays(&mut closed, &frame, FRONT, NO_CONNECTION, "nobody is named");
}

#[test]
fn it_outlives_a_change_of_the_configuration() {
    let frame = ack((V4.server(1), 80), (V4.proxy(2), 5001));
    let mut world = world(V4, Topology::Nat, ALWAYS);
    let before = &world.view.snapshot;
    let other = rule(V4, Topology::Nat, Algorithm::RoundRobin, 1);
    let other = RuleSpec {
        id: 3,
        name: "other".into(),
        vips: vec![VipSpec {
            address: V4.client(77),
            ..other.vips[0]
        }],
        proxy_src: vec![V4.proxy(7)],
        ..other
    };
    let change = |base: &Snapshot, rules: Vec<RuleSpec>, removed: Vec<u32>| {
        let change = SpecChange {
            base: base.generation(),
            generation: base.generation() + 1,
            limits: *base.limits(),
            rules,
            removed,
        };
        base.changed(&change).unwrap()
    };
    let more = change(before, vec![other], vec![]);
    let less = change(&more, vec![], vec![1, 2]);
    let sources = |it: &Snapshot| [2, 7].map(|n| it.is_source(V4.proxy(n).into()));
    assert_eq!(sources(before), [true, false]);
    assert_eq!(sources(&more), [true, true], "a rule has come");
    assert_eq!(sources(&less), [false, true], "two rules are gone");
    let network = world.view.network.clone();
    world.view = View::new(more.into(), network);
    goes_on(&mut world, &frame, BACK, "after a change");
}

#[test]
fn an_explanation_says_so_and_changes_nothing() {
    let world = world(V4, Topology::Nat, ALWAYS);
    let end = |address, port| ilb_forwarder::listing::End { address, port };
    let query = explain::Query {
        source: end(V4.client(1), 4001),
        destination: end(V4.vip(), 80),
        tcp_flags: tcp::ACK,
        ..explain::Query::default()
    };
    let said = explain::explain(&world.view, &world.table, &query, world.now).unwrap();
    assert!(said.relayed);
    assert_eq!(said.outcome, explain::Outcome::Transmit);
    let leaving = said.leaving.unwrap();
    assert_eq!(leaving.neighbour, Some(OTHER[0]));
    assert_eq!(leaving.source, query.source, "unchanged");
    let relay = &world.view.snapshot.guard().relay;
    let left = (0..).take_while(|_| relay.sent.take(RELAYED_PER_SECOND, world.now));
    assert_eq!(
        left.count(),
        RELAYED_PER_SECOND as usize,
        "nothing is used up"
    );
    assert_eq!(relayed(&world), 0);
}
