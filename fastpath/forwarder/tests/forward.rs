//! Packet in, verdict and packet out: topologies, ports, lives of connections, drops with their reasons.

mod common;

use common::*;
use ilb_forwarder::packet::tcp;
use ilb_forwarder::spec::*;
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{Snapshot, census};

const RR: Algorithm = Algorithm::RoundRobin;

fn client(family: Family, n: u8) -> (std::net::IpAddr, u16) {
    (family.client(n), 40_000 + n as u16)
}

#[test]
fn dsr_changes_only_the_ethernet_addresses() {
    for family in FAMILIES {
        let mut world = World::new(vec![rule(family, Topology::Dsr, RR, 3)]);
        let frame = syn(client(family, 1), (family.vip(), 80));
        let out = world.pass(&frame, BACK);
        assert_eq!(
            out[14..],
            frame[14..],
            "{family:?}: the packet itself is untouched"
        );
        assert_eq!(
            out[..6],
            [4, 0, 0, 0, 2, 1],
            "{family:?}: to the first server"
        );
    }
}

#[test]
fn half_nat_rewrites_the_destination_and_back() {
    for family in FAMILIES {
        let mut world = World::new(vec![rule(family, Topology::HalfNat, RR, 3)]);
        let (client, vip) = (client(family, 1), (family.vip(), 80));
        let out = world.pass(&syn(client, vip), BACK);
        assert_eq!(ends(&out), (client, (family.server(1), 80)), "{family:?}");
        let reply = segment((family.server(1), 80), client, tcp::SYN | tcp::ACK).frame();
        let back = world.pass(&reply, FRONT);
        assert_eq!(ends(&back), (vip, client), "{family:?}");
        assert_eq!(back[..6], [4, 0, 0, 0, 1, 1]);
    }
}

#[test]
fn nat_rewrites_both_ends_and_back() {
    for family in FAMILIES {
        let mut world = World::new(vec![rule(family, Topology::Nat, RR, 3)]);
        let (client, vip) = (client(family, 1), (family.vip(), 80));
        let out = world.pass(&syn(client, vip), BACK);
        let (nat, server) = ends(&out);
        assert_eq!(server, (family.server(1), 80));
        assert!(
            [family.proxy(1), family.proxy(2)].contains(&nat.0) && nat.1 >= 1024,
            "{nat:?}"
        );
        let again = world.pass(&ack(client, vip), BACK);
        assert_eq!(
            ends(&again),
            (nat, server),
            "{family:?}: the connection keeps source and server"
        );
        let back = world.pass(&segment(server, nat, tcp::SYN | tcp::ACK).frame(), FRONT);
        assert_eq!(ends(&back), (vip, client), "{family:?}");
    }
}

#[test]
fn there_and_back_gives_the_original_but_for_the_hops() {
    for family in FAMILIES {
        for topology in [Topology::HalfNat, Topology::Nat] {
            let mut world = World::new(vec![rule(family, topology, RR, 3)]);
            let (client, vip) = (client(family, 7), (family.vip(), 80));
            let sent = syn(client, vip);
            let at_server = world.pass(&sent, BACK);
            let (nat, server) = ends(&at_server);
            // The server's mirror image of the packet must arrive as the client's mirror image.
            let mirrored = segment(server, nat, tcp::SYN).frame();
            let mut expected = Build {
                ttl: 63,
                ..segment(vip, client, tcp::SYN)
            }
            .frame();
            let got = world.pass(&mirrored, FRONT);
            expected[..12].copy_from_slice(&got[..12]);
            assert_eq!(got, expected, "{family:?} {topology:?}");
        }
    }
}

#[test]
fn a_missing_udp_checksum_stays_missing_and_a_present_one_present() {
    let udp = |topology| {
        let mut rule = rule(V4, topology, RR, 2);
        rule.vips[0].protocol = Protocol::Udp;
        rule
    };
    for checksum in [true, false] {
        let mut world = World::new(vec![udp(Topology::Nat)]);
        let frame = Build {
            udp_checksum: checksum,
            ..datagram(client(V4, 1), (V4.vip(), 80))
        }
        .frame();
        let out = world.pass(&frame, BACK);
        assert_eq!(out[14 + 20 + 6..][..2] != [0, 0], checksum);
    }
}

#[test]
fn ports_collapse_and_shift() {
    let with = |ports| {
        let mut rule = rule(V4, Topology::HalfNat, RR, 1);
        rule.vips[0].ports = PortRange {
            first: 8000,
            last: 8009,
        };
        rule.servers[0].ports = ports;
        rule
    };
    for (map, expected) in [
        (PortMap::Same, 8003),
        (PortMap::Collapse(80), 80),
        (PortMap::Shift(9000), 9003),
    ] {
        let mut world = World::new(vec![with(map)]);
        let out = world.pass(&syn(client(V4, 1), (V4.vip(), 8003)), BACK);
        assert_eq!(ends(&out).1, (V4.server(1), expected), "{map:?}");
        let back = world.pass(&ack((V4.server(1), expected), client(V4, 1)), FRONT);
        assert_eq!(ends(&back).0, (V4.vip(), 8003), "{map:?}");
        assert_eq!(
            world.send(&syn(client(V4, 1), (V4.vip(), 8010))).0,
            Verdict::Kernel
        );
        assert_eq!(
            world.send(&syn(client(V4, 1), (V4.vip(), 7999))).0,
            Verdict::Kernel
        );
    }
}

#[test]
fn round_robin_shares_are_exact_and_retransmissions_take_no_turn() {
    let mut world = World::with_table(vec![rule(V4, Topology::Nat, RR, 3)], 4096);
    let mut counts = [0; 4];
    for port in 0..3000 {
        let frame = syn((V4.client(1), 1000 + port), (V4.vip(), 80));
        let first = ends(&world.pass(&frame, BACK));
        assert_eq!(ends(&world.pass(&frame, BACK)), first);
        let server = (1..=3).find(|&n| first.1.0 == V4.server(n)).unwrap();
        counts[server as usize] += 1;
    }
    assert_eq!(counts, [0, 1000, 1000, 1000]);
}

#[test]
fn hash_algorithms_keep_to_what_they_hash() {
    for (algorithm, port_matters) in [
        (Algorithm::HashIp, false),
        (Algorithm::HashIpVip, false),
        (Algorithm::HashIpPort, true),
    ] {
        for family in FAMILIES {
            let mut world =
                World::with_table(vec![rule(family, Topology::HalfNat, algorithm, 5)], 8192);
            let mut servers = std::collections::HashSet::new();
            for n in 1..=60 {
                let of_client: std::collections::HashSet<_> = (0..40)
                    .map(|port| {
                        ends(&world.pass(
                            &syn((family.client(n), 2000 + port), (family.vip(), 80)),
                            BACK,
                        ))
                        .1
                    })
                    .collect();
                assert_eq!(of_client.len() > 1, port_matters, "{algorithm:?}");
                servers.extend(of_client);
            }
            assert_eq!(
                servers.len(),
                5,
                "{algorithm:?}: all servers have their share"
            );
        }
    }
}

#[test]
fn a_connection_keeps_its_server_whatever_changes() {
    let mut world = World::new(vec![rule(V4, Topology::HalfNat, RR, 3)]);
    let (client, vip) = (client(V4, 1), (V4.vip(), 80));
    let server = ends(&world.pass(&syn(client, vip), BACK)).1;
    assert_eq!(server.0, V4.server(1));

    let mut drained = rule(V4, Topology::HalfNat, RR, 4);
    drained.servers[0].accepting = false;
    world.configure(vec![drained.clone()]);
    assert_eq!(
        ends(&world.pass(&ack(client, vip), BACK)).1,
        server,
        "disabled server"
    );
    drained.servers.rotate_left(2);
    drained.accepting = false;
    world.configure(vec![drained]);
    assert_eq!(
        ends(&world.pass(&ack(client, vip), BACK)).1,
        server,
        "disabled rule"
    );
    assert_eq!(ends(&world.pass(&ack(server, client), FRONT)).0, vip);
    assert_eq!(
        world.send(&syn((V4.client(9), 5), vip)).0,
        Verdict::Kernel,
        "no new ones for a disabled rule"
    );
}

#[test]
fn a_port_that_is_used_again_begins_a_new_connection() {
    for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
        let mut world = World::new(vec![rule(V4, topology, RR, 2)]);
        let (client, vip) = (client(V4, 1), (V4.vip(), 80));
        let first = world.pass(&syn(client, vip), BACK);
        world.pass(&ack(client, vip), BACK);
        assert_eq!(
            world.pass(&syn(client, vip), BACK)[..6],
            first[..6],
            "{topology:?}: a stray SYN changes nothing"
        );
        world.pass(&segment(client, vip, tcp::FIN | tcp::ACK).frame(), BACK);
        let second = world.pass(&syn(client, vip), BACK);
        assert_ne!(
            second[..6],
            first[..6],
            "{topology:?}: the next server's turn"
        );
        assert_eq!(world.pass(&ack(client, vip), BACK)[..6], second[..6]);
    }
}

#[test]
fn half_nat_tells_replies_of_two_vips_apart() {
    let mut other = rule(V4, Topology::HalfNat, RR, 2);
    other.id = 2;
    other.vips[0].ports = PortRange::single(81);
    other
        .servers
        .iter_mut()
        .for_each(|server| server.ports = PortMap::Collapse(80));
    let mut world = World::new(vec![rule(V4, Topology::HalfNat, RR, 2), other]);
    let client = client(V4, 1);
    let first = ends(&world.pass(&syn(client, (V4.vip(), 80)), BACK)).1;
    let second = ends(&world.pass(&syn(client, (V4.vip(), 81)), BACK)).1;
    assert_ne!(
        first, second,
        "the second connection takes the server where its replies can be told apart"
    );
    assert_eq!(
        ends(&world.pass(&ack(first, client), FRONT)).0,
        (V4.vip(), 80)
    );
    assert_eq!(
        ends(&world.pass(&ack(second, client), FRONT)).0,
        (V4.vip(), 81)
    );

    let mut single = rule(V4, Topology::HalfNat, RR, 1);
    single.id = 3;
    single.vips[0].ports = PortRange::single(82);
    single.servers[0].ports = PortMap::Collapse(80);
    let mut rules = vec![rule(V4, Topology::HalfNat, RR, 1), single];
    rules[0].id = 4;
    world.configure(rules);
    world.pass(&syn(client, (V4.vip(), 80)), BACK);
    assert_eq!(
        world.send(&syn(client, (V4.vip(), 82))).0,
        Verdict::Drop(DropReason::ReplyCollision)
    );
}

#[test]
fn nat_ports_never_collide_and_their_end_has_a_name() {
    let mut rule = rule(V4, Topology::Nat, RR, 1);
    rule.proxy_src.truncate(1);
    let mut world = World::with_table(vec![rule], 200_000);
    let mut sources = std::collections::HashSet::new();
    let mut refused = 0;
    for n in 0..70_000u32 {
        let from = (
            std::net::IpAddr::from((0x0a01_0100 + n / 30_000).to_be_bytes()),
            (n % 30_000 + 1) as u16,
        );
        let (verdict, out) = world.send(&syn(from, (V4.vip(), 80)));
        match verdict {
            Verdict::Transmit(BACK) => assert!(sources.insert(ends(&out).0), "source given twice"),
            Verdict::Drop(DropReason::NatPortsExhausted) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    // 64,512 ports; with 128 attempts, all but a few are found before the first refusals matter.
    assert!(
        sources.len() > 64_000,
        "{} of 64512 ports used",
        sources.len()
    );
    assert_eq!(
        world.view.snapshot.rules()[0].account.totals().no_port,
        refused
    );
}

#[test]
fn a_full_table_keeps_what_it_has() {
    let mut world = World::with_table(vec![rule(V4, Topology::Nat, RR, 3)], 64);
    let frames: Vec<_> = (0..100).map(|n| (V4.client(1), 3000 + n)).collect();
    let verdicts: Vec<_> = frames
        .iter()
        .map(|&from| {
            let verdict = world.send(&syn(from, (V4.vip(), 80))).0;
            // An established connection makes way for nobody.
            world.send(&ack(from, (V4.vip(), 80)));
            verdict
        })
        .collect();
    assert!(
        verdicts[..64]
            .iter()
            .all(|&verdict| verdict == Verdict::Transmit(BACK))
    );
    assert!(
        verdicts[64..]
            .iter()
            .all(|&verdict| verdict == Verdict::Drop(DropReason::TableFull))
    );
    for &from in &frames[..64] {
        world.pass(&ack(from, (V4.vip(), 80)), BACK);
    }
    assert_eq!(
        world.view.snapshot.rules()[0].account.totals().no_memory,
        36
    );
}

#[test]
fn drops_have_their_reasons() {
    let mut empty = rule(V4, Topology::Dsr, RR, 1);
    empty.servers[0].weight = 0;
    let mut world = World::new(vec![empty]);
    let (from, vip) = (client(V4, 1), (V4.vip(), 80));
    let mut expect = |frame: &[u8], reason| {
        let before = world.forwarder.counters().drops(reason);
        assert_eq!(world.send(frame).0, Verdict::Drop(reason));
        assert_eq!(world.forwarder.counters().drops(reason), before + 1);
    };
    expect(&syn(from, vip), DropReason::NoServer);
    expect(&ack(from, vip), DropReason::NoConnection);
    expect(&[0; 10], DropReason::Malformed);
    expect(&[0; 60], DropReason::NotIp);

    world.configure(vec![rule(V4, Topology::HalfNat, RR, 1)]);
    let old = Build {
        ttl: 1,
        ..segment(from, vip, tcp::SYN)
    }
    .frame();
    assert_eq!(
        world.send(&old),
        (Verdict::Drop(DropReason::TtlExpired), old)
    );
    let far: std::net::IpAddr = "203.0.113.7".parse().unwrap();
    world.pass(&syn((far, 5), vip), BACK);
    let to_far = ack((V4.server(1), 80), (far, 5));
    let gateway = Verdict::Unresolved {
        port: FRONT,
        next_hop: "10.1.0.254".parse().unwrap(),
    };
    assert_eq!(world.send(&to_far).0, gateway);
    assert_eq!(
        world.send(&ack((V4.server(1), 80), (far, 6))).0,
        Verdict::Kernel,
        "a server's own traffic"
    );
}

#[test]
fn an_unresolved_server_gets_the_packet_later() {
    let mut rule = rule(V6, Topology::Nat, RR, 1);
    rule.servers[0].address = V6.server(250);
    let mut world = World::new(vec![rule]);
    let (verdict, mut out) = world.send(&syn(client(V6, 1), (V6.vip(), 80)));
    assert_eq!(
        verdict,
        Verdict::Unresolved {
            port: BACK,
            next_hop: V6.server(250)
        }
    );
    assert_checksums(&out);
    assert_eq!(
        world.view.network.finish(BACK, V6.server(249), &mut out),
        Verdict::Transmit(BACK)
    );
    assert_eq!(out[..6], [4, 0, 0, 0, 2, 249]);
}

#[test]
fn idle_connections_end_in_their_time_and_the_census_counts() {
    let mut world = World::new(vec![rule(V4, Topology::Nat, RR, 1)]);
    let table = world.table.clone();
    let mut sweeper = table.sweeper();
    let vip = (V4.vip(), 80);
    let (opening, open, closed) = (client(V4, 1), client(V4, 2), client(V4, 3));
    for from in [opening, open, closed] {
        world.pass(&syn(from, vip), BACK);
    }
    for from in [open, closed] {
        world.pass(&ack(from, vip), BACK);
    }
    world.pass(&segment(closed, vip, tcp::RST).frame(), BACK);
    let mut at = |world: &World, seconds: u32| {
        census::take(&world.view, &mut sweeper, 1000 + seconds);
        world.view.snapshot.targets()[0].account.connections()
    };
    assert_eq!(at(&world, 0), (3, 3));
    assert_eq!(
        at(&world, 10),
        (1, 3),
        "only the established one would be missed"
    );
    assert_eq!(at(&world, 11), (1, 2), "reset: 10 s");
    assert_eq!(at(&world, 61), (1, 1), "handshake: 60 s");
    assert_eq!(at(&world, 900), (1, 1));
    assert_eq!(at(&world, 901), (0, 0), "idle: 900 s");
    assert_eq!(
        world.send(&ack(open, vip)).0,
        Verdict::Drop(DropReason::NoConnection)
    );
}

#[test]
fn without_a_configuration_nothing_is_ended() {
    let mut world = World::new(vec![rule(V4, Topology::Nat, RR, 1)]);
    world.pass(&syn(client(V4, 1), (V4.vip(), 80)), BACK);
    let table = world.table.clone();
    let empty = ilb_forwarder::View::new(Snapshot::empty().into(), world.view.network.clone());
    let swept = census::take(&empty, &mut table.sweeper(), 1_000_000);
    assert_eq!((swept.live, swept.ended), (1, 0));
}

#[test]
fn overlapping_rules_are_refused_and_a_retired_one_may_overlap() {
    let mut second = rule(V4, Topology::Dsr, RR, 1);
    second.id = 2;
    second.name = "other".into();
    let compile = |rules| {
        Snapshot::compile(
            &SnapshotSpec {
                generation: 1,
                rules,
                ..SnapshotSpec::default()
            },
            None,
            1,
        )
    };
    let error = compile(vec![rule(V4, Topology::Dsr, RR, 1), second.clone()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rules 'web' and 'other' both accept tcp connections to 10.1.0.200 port 80"
    );
    second.accepting = false;
    assert!(compile(vec![rule(V4, Topology::Dsr, RR, 1), second]).is_ok());
}
