//! Under attack: established connections go on, known clients get in, limits are exact, memory is bounded.

mod common;

use std::net::IpAddr;

use common::*;
use ilb_forwarder::counters::TrafficTotals;
use ilb_forwarder::packet::tcp;
use ilb_forwarder::spec::*;
use ilb_forwarder::table::State;
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{Packet, Snapshot, View, census};

const RR: Algorithm = Algorithm::RoundRobin;

/// The `n`th of a flood's invented sources, all over the address space.
fn invented(family: Family, n: u32) -> (IpAddr, u16) {
    let mixed = u64::from(n)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let port = 1024 + (mixed >> 8) as u16 % 60_000;
    let address = if family.v4 {
        IpAddr::from((0x2000_0000 | (mixed >> 36) as u32).to_be_bytes())
    } else {
        let high = 0x2001_0db8_u128 << 96;
        IpAddr::from((high | u128::from(mixed)).to_be_bytes())
    };
    (address, port)
}

fn client(family: Family, n: u16) -> (IpAddr, u16) {
    (family.client(1 + (n % 200) as u8), 20_000 + n)
}

fn vip(family: Family) -> (IpAddr, u16) {
    (family.vip(), 80)
}

/// Sends frames in batches as long as a worker's; gives how many passed and how many were dropped for `reason`.
fn flood(
    world: &mut World,
    frames: impl Iterator<Item = Vec<u8>>,
    reason: DropReason,
) -> (u32, u32) {
    let (mut passed, mut dropped) = (0, 0);
    let mut frames = frames.peekable();
    while frames.peek().is_some() {
        let mut bufs: Vec<Vec<u8>> = frames.by_ref().take(64).collect();
        let mut packets: Vec<Packet<'_>> = bufs
            .iter_mut()
            .map(|buf| {
                let len = buf.len();
                Packet::new(buf, 0, len, FRONT)
            })
            .collect();
        world
            .forwarder
            .process(&world.view, &mut packets, world.now);
        for packet in &packets {
            match packet.verdict {
                Verdict::Transmit(BACK) => passed += 1,
                Verdict::Drop(why) if why == reason => dropped += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    (passed, dropped)
}

fn sweep(world: &World) {
    let mut sweeper = world.table.sweeper();
    for _ in 0..2 {
        census::take(&world.view, &mut sweeper, world.now);
    }
}

fn rule_totals(world: &World, rule: usize) -> TrafficTotals {
    world.view.snapshot.rules()[rule].account.totals()
}

fn states(world: &World, wanted: State) -> u32 {
    let mut count = 0;
    world.table.each(|_, connection| {
        count += u32::from(connection.state == wanted);
        std::ops::ControlFlow::Continue(())
    });
    count
}

/// Opens connections; the client acknowledges.
fn establish(world: &mut World, family: Family, clients: std::ops::Range<u16>) {
    for n in clients {
        world.pass(&syn(client(family, n), vip(family)), BACK);
        world.pass(&ack(client(family, n), vip(family)), BACK);
    }
}

#[test]
fn established_connections_go_on_in_a_flood_of_a_million_syns() {
    const CAPACITY: u32 = 16_384;
    for family in FAMILIES {
        for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
            let rules = vec![rule(family, topology, RR, 3)];
            let mut world = World::with_table(rules, CAPACITY);
            establish(&mut world, family, 0..1000);
            let servers: Vec<Vec<u8>> = (0..1000)
                .map(|n| world.pass(&ack(client(family, n), vip(family)), BACK))
                .collect();
            // 200,000 a second; the sweeper comes once a second, far too seldom to matter.
            let (mut passed, mut dropped) = (0, 0);
            let per_second = 1_000_000 / FAMILIES.len() as u32 / 3 / 5;
            for second in 0..5 {
                world.now += 1;
                let frames = (0..per_second)
                    .map(|n| syn(invented(family, second * per_second + n), vip(family)));
                let (p, d) = flood(&mut world, frames, DropReason::Embryonic);
                (passed, dropped) = (passed + p, dropped + d);
                sweep(&world);
                for n in (0..1000).step_by(97) {
                    world.pass(&ack(client(family, n), vip(family)), BACK);
                }
            }
            let context = format!("{family:?} {topology:?}");
            assert!(
                world.table.embryonic() <= CAPACITY / 2,
                "{context}: half of the table at most"
            );
            assert_eq!(world.table.embryonic(), states(&world, State::SynReceived));
            assert_eq!(states(&world, State::Established), 1000, "{context}");
            assert!(
                dropped < passed / 1000,
                "{context}: old ones make way for new ones: {passed} passed, {dropped} dropped"
            );
            for n in 0..1000 {
                let out = world.pass(&ack(client(family, n), vip(family)), BACK);
                assert_eq!(out, servers[n as usize], "{context}: the same server");
            }
            let replaced: u64 = world
                .view
                .snapshot
                .targets()
                .iter()
                .map(|target| target.account.totals().replaced)
                .sum();
            assert_eq!(replaced, world.forwarder.counters().replaced.get());
            assert!(replaced + u64::from(CAPACITY / 2) >= u64::from(passed));
        }
    }
}

#[test]
fn a_new_client_gets_through_its_handshake_in_the_flood() {
    // The share is 8192 entries, and the oldest make way first, by the second. (SYNs a second, SYNs in a round trip of a
    // new client, new clients of 100 that must get through).
    for (rate, meanwhile, at_least) in [(6_000, 600, 100), (15_000, 1_500, 70)] {
        let family = V4;
        let mut world = World::with_table(vec![rule(family, Topology::Nat, RR, 3)], 16_384);
        let mut next = 0;
        let mut come = |world: &mut World, count: u32| {
            next += count;
            let frames = (next - count..next).map(|n| syn(invented(family, n), vip(family)));
            flood(world, frames, DropReason::Embryonic)
        };
        for second in 0..20u16 {
            world.now += 1;
            for n in 0..5 {
                let own = client(family, 5 * second + n);
                come(&mut world, rate / 5 - meanwhile);
                world.pass(&syn(own, vip(family)), BACK);
                come(&mut world, meanwhile);
                world.send(&ack(own, vip(family)));
            }
        }
        let through = states(&world, State::Established);
        assert!(through >= at_least, "{rate} a second: {through} of 100");
    }
}

#[test]
fn a_flood_of_datagrams_is_held_off_the_same_way_even_when_servers_answer_it() {
    for family in FAMILIES {
        let mut dns = rule(family, Topology::HalfNat, RR, 1);
        dns.vips[0].protocol = Protocol::Udp;
        let mut world = World::with_table(vec![dns], 4096);
        for n in 0..100 {
            for _ in 0..2 {
                world.pass(&datagram(client(family, n), vip(family)).frame(), BACK);
            }
        }
        assert_eq!(states(&world, State::Flowing), 100);
        for n in 0..50_000 {
            let from = invented(family, n);
            let (verdict, _) = world.send(&datagram(from, vip(family)).frame());
            if verdict == Verdict::Transmit(BACK) {
                let answer = datagram((family.server(1), 80), from).frame();
                let (verdict, _) = world.send_by(&answer, BACK);
                assert!(!matches!(verdict, Verdict::Drop(_)), "{verdict:?}");
            }
        }
        assert!(world.table.embryonic() <= 2048);
        assert_eq!(states(&world, State::Flowing), 100, "{family:?}");
        world.now += 31;
        sweep(&world);
        assert_eq!(
            (states(&world, State::Fresh), states(&world, State::Flowing)),
            (0, 100),
            "{family:?}: what came to nothing is forgotten sooner"
        );
    }
}

#[test]
fn datagrams_that_leave_no_entry_go_on_whatever_fills_the_table() {
    let family = V4;
    let web = rule(family, Topology::Dsr, RR, 3);
    let mut dns = web.clone();
    dns.id = 2;
    dns.vips[0].protocol = Protocol::Udp;
    dns.one_packet = true;
    let mut world = World::with_table(vec![web, dns], 1024);
    for n in 0..3000 {
        world.send(&syn(invented(family, n), vip(family)));
    }
    let (entries, replaced) = (world.table.used(), rule_replaced(&world));
    assert!(replaced > 1000, "the table is under pressure: {replaced}");
    let frames = (0..2000).map(|n| datagram(invented(family, n), vip(family)).frame());
    assert_eq!(flood(&mut world, frames, DropReason::Embryonic), (2000, 0));
    assert_eq!(
        (world.table.used(), rule_replaced(&world)),
        (entries, replaced)
    );
}

fn rule_replaced(world: &World) -> u64 {
    world.forwarder.counters().replaced.get()
}

#[test]
fn nothing_makes_way_when_all_are_established_and_known_clients_have_the_reserve() {
    const CAPACITY: u32 = 2048;
    let family = V4;
    let mut rule = rule(family, Topology::Dsr, RR, 3);
    rule.timeouts.tcp_established = 10_000;
    let mut world = World::with_table(vec![rule], CAPACITY);
    // Strangers fill all but the reserve.
    let unreserved = (CAPACITY - CAPACITY / 16) as u16;
    establish(&mut world, family, 0..unreserved);
    let frames = (0..1000).map(|n| syn(invented(family, n), vip(family)));
    assert_eq!(
        flood(&mut world, frames, DropReason::TableFull),
        (0, 1000),
        "strangers stay out"
    );
    assert_eq!(rule_totals(&world, 0).no_memory, 1000);
    for n in 0..CAPACITY as u16 / 16 {
        world.pass(&syn((client(family, n).0, 100 + n), vip(family)), BACK);
    }
    let (verdict, _) = world.send(&syn((client(family, 1).0, 9), vip(family)));
    assert_eq!(
        verdict,
        Verdict::Transmit(BACK),
        "embryonic ones make way even here"
    );
    assert_eq!(states(&world, State::Established), u32::from(unreserved));
}

#[test]
fn admission_is_exact_each_second_for_each_rule_and_in_all() {
    for family in FAMILIES {
        let limited = |id: u32, port: u16, limit: u32| RuleSpec {
            id,
            name: format!("rule{id}"),
            new_flows_per_second: limit,
            vips: vec![VipSpec {
                address: family.vip(),
                protocol: Protocol::Tcp,
                ports: PortRange::single(port),
            }],
            ..rule(family, Topology::Dsr, RR, 3)
        };
        let limits = Limits {
            new_flows_per_second: 120,
            ..Limits::default()
        };
        let rules = vec![limited(1, 80, 50), limited(2, 81, 30), limited(3, 82, 0)];
        let mut world = World::limited(limits, rules, 65_536);
        let mut next = 0;
        let mut send = |world: &mut World, port: u16| {
            next += 400;
            let to = (family.vip(), port);
            let frames = (next - 400..next).map(|n| syn(invented(family, n), to));
            flood(world, frames, DropReason::Admission)
        };
        for second in 1..=3u64 {
            world.now += 1;
            // (port, passed): two limits of their own, then what is left of the limit in all.
            for (port, passed) in [(80, 50), (81, 30), (82, 40), (80, 0), (82, 0)] {
                assert_eq!(
                    send(&mut world, port),
                    (passed, 400 - passed),
                    "{family:?} port {port} second {second}"
                );
            }
            assert_eq!(rule_totals(&world, 0).refused, second * 750);
            assert_eq!(rule_totals(&world, 0).dropped_packets, second * 750);
            assert_eq!(rule_totals(&world, 1).refused, second * 370);
        }
        assert_eq!(
            world.forwarder.counters().drops(DropReason::Admission),
            3 * (2000 - 120)
        );
        // A new snapshot does not open the window again.
        let spec = SnapshotSpec {
            generation: 2,
            limits,
            rules: vec![limited(1, 80, 50)],
        };
        let snapshot = Snapshot::compile(&spec, Some(&world.view.snapshot), 2).unwrap();
        world.view = View::new(snapshot.into(), world.view.network.clone());
        assert_eq!(send(&mut world, 80), (0, 400));
    }
}

#[test]
fn known_clients_have_a_budget_of_their_own() {
    for family in FAMILIES {
        let mut web = rule(family, Topology::Nat, RR, 3);
        web.new_flows_per_second = 200;
        let mut world = World::with_table(vec![web], 65_536);
        establish(&mut world, family, 0..150);
        world.now += 1;
        let frames = (0..5000).map(|n| syn(invented(family, n), vip(family)));
        assert_eq!(
            flood(&mut world, frames, DropReason::Admission),
            (200, 4800)
        );
        for n in 0..150 {
            let again = (client(family, n).0, 50_000 + n);
            world.pass(&syn(again, vip(family)), BACK);
        }
        // 20 minutes later the clients are known only if they still have a connection open.
        world.now += 1;
        sweep(&world);
        for n in 0..100 {
            let fin = segment(client(family, n), vip(family), tcp::RST | tcp::ACK).frame();
            world.pass(&fin, BACK);
        }
        for _ in 0..3 {
            world.now += 600;
            for n in 100..150 {
                world.pass(&ack(client(family, n), vip(family)), BACK);
            }
            sweep(&world);
        }
        let frames = (5000..10_000).map(|n| syn(invented(family, n), vip(family)));
        flood(&mut world, frames, DropReason::Admission);
        for n in 0..150u16 {
            let (verdict, _) = world.send(&syn((client(family, n).0, 60_000 + n), vip(family)));
            let passes = matches!(verdict, Verdict::Transmit(_));
            assert_eq!(passes, n >= 100, "{family:?} client {n}: {verdict:?}");
        }
    }
}

#[test]
fn packets_of_known_connections_are_never_limited() {
    let family = V6;
    let mut web = rule(family, Topology::HalfNat, RR, 2);
    web.new_flows_per_second = 10;
    let mut world = World::with_table(vec![web], 4096);
    establish(&mut world, family, 0..10);
    let (verdict, _) = world.send(&syn(client(family, 11), vip(family)));
    assert_eq!(verdict, Verdict::Drop(DropReason::Admission));
    for n in 0..10 {
        for _ in 0..100 {
            world.pass(&ack(client(family, n), vip(family)), BACK);
        }
    }
}

#[test]
fn icmp_errors_are_limited_and_counted() {
    for family in FAMILIES {
        let limits = Limits {
            icmp_errors_per_second: 7,
            ..Limits::default()
        };
        let mut world = World::limited(limits, vec![rule(family, Topology::Nat, RR, 1)], 1024);
        let out = world.pass(&syn(client(family, 1), vip(family)), BACK);
        let (nat, _) = ends(&out);
        for second in 1..=3u64 {
            world.now += 1;
            let verdicts: Vec<Verdict> = (0..20)
                .map(|_| {
                    let error = icmp_error(family.router(), nat.0, true, &out, 60);
                    world.send_by(&error, BACK).0
                })
                .collect();
            let (carried, limited) = verdicts.split_at(7);
            assert_eq!(carried, [Verdict::Transmit(FRONT); 7], "{family:?}");
            assert_eq!(limited, [Verdict::Drop(DropReason::IcmpLimit); 13]);
            let totals = world.view.snapshot.targets()[0].account.totals();
            assert_eq!(
                (totals.too_big_processed, totals.too_big_dropped),
                (second * 7, second * 13)
            );
            // Our own have a budget of their own.
            let made = &world.view.snapshot.guard().icmp_made;
            let made = (0..20).filter(|_| made.take(7, world.now)).count();
            assert_eq!(made, 7);
        }
    }
}

#[test]
fn limits_of_zero_are_none() {
    let family = V4;
    let limits = Limits {
        new_flows_per_second: 0,
        icmp_errors_per_second: 0,
        embryonic_percent: 0,
        waiting_fragments: 0,
    };
    let mut world = World::limited(limits, vec![rule(family, Topology::Dsr, RR, 1)], 4096);
    let frames = (0..3800).map(|n| syn(invented(family, n), vip(family)));
    assert_eq!(flood(&mut world, frames, DropReason::Embryonic), (3800, 0));
    assert_eq!(world.table.embryonic(), 3800);
    let made = &world.view.snapshot.guard().icmp_made;
    assert!((0..10_000).all(|_| made.take(0, world.now)));
}
