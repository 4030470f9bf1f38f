//! Lives of connections: ports used again, forged segments, servers that die, go or are drained, one-packet
//! scheduling, and the local node.

mod common;

use std::net::IpAddr;

use common::*;
use ilb_forwarder::packet::tcp;
use ilb_forwarder::spec::*;
use ilb_forwarder::table::State;
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{View, census};
use tcp::{ACK, FIN, RST, SYN};

const RR: Algorithm = Algorithm::RoundRobin;
const TOPOLOGIES: [Topology; 3] = [Topology::Dsr, Topology::HalfNat, Topology::Nat];

type End = (IpAddr, u16);
/// Whether it comes from the server, and its flags.
type Segments<'a> = &'a [(bool, u8)];

fn client(family: Family, n: u8) -> End {
    (family.client(n), 40_000 + n as u16)
}

/// Number of the server that a frame was sent to: the last byte of its Ethernet address.
fn server_of(frame: &[u8]) -> u8 {
    assert_eq!(frame[..5], [4, 0, 0, 0, 2], "to a server");
    frame[5]
}

fn udp(mut rule: RuleSpec) -> RuleSpec {
    rule.vips[0].protocol = Protocol::Udp;
    rule
}

/// State of the only connection.
fn state(world: &World) -> State {
    let mut states = vec![];
    world.table.each(|_, connection| {
        states.push(connection.state);
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(states.len(), 1, "one connection: {states:?}");
    states[0]
}

#[test]
fn a_syn_finds_another_server_only_when_the_connection_is_over() {
    #[rustfmt::skip]
    let table: [(&str, &[u8], bool); 7] = [
        // what happened before, flags of the client's segments, another server
        ("nothing but a SYN", &[], false),
        ("open", &[ACK], false),
        ("open, then a SYN that was not ours", &[ACK, SYN], false),
        ("the client closed", &[ACK, FIN | ACK], true),
        ("the client closed and went on receiving", &[ACK, FIN | ACK, ACK], true),
        ("reset", &[ACK, RST], true),
        ("reset, but the client goes on: it was forged", &[ACK, RST, ACK], false),
    ];
    for family in FAMILIES {
        for topology in TOPOLOGIES {
            for (what, before, another) in table {
                let mut world = World::new(vec![rule(family, topology, RR, 3)]);
                let (client, vip) = (client(family, 1), (family.vip(), 80));
                let first = server_of(&world.pass(&syn(client, vip), BACK));
                for &flags in before {
                    let out = world.pass(&segment(client, vip, flags).frame(), BACK);
                    assert_eq!(server_of(&out), first, "{what}");
                }
                let second = server_of(&world.pass(&syn(client, vip), BACK));
                assert_eq!(second != first, another, "{family:?} {topology:?}: {what}");
                let after = server_of(&world.pass(&ack(client, vip), BACK));
                assert_eq!(after, second, "{family:?} {topology:?}: {what}");
            }
        }
    }
}

#[test]
fn a_server_that_closes_is_seen_where_it_passes() {
    for topology in [Topology::HalfNat, Topology::Nat] {
        let mut world = World::new(vec![rule(V4, topology, RR, 1)]);
        let (client, vip) = (client(V4, 1), (V4.vip(), 80));
        let (seen, server) = ends(&world.pass(&syn(client, vip), BACK));
        world.pass(&ack(client, vip), BACK);
        assert_eq!(state(&world), State::Established);
        world.pass(&segment(server, seen, FIN | ACK).frame(), FRONT);
        assert_eq!(state(&world), State::CloseWait);
        world.pass(&segment(client, vip, FIN | ACK).frame(), BACK);
        assert_eq!(state(&world), State::LastAck);
    }
}

#[test]
fn a_forged_reset_or_syn_does_not_break_a_connection_that_goes_on() {
    for topology in TOPOLOGIES {
        let mut world = World::new(vec![rule(V4, topology, RR, 3)]);
        let table = world.table.clone();
        let mut sweeper = table.sweeper();
        let (client, vip) = (client(V4, 1), (V4.vip(), 80));
        let server = server_of(&world.pass(&syn(client, vip), BACK));
        world.pass(&ack(client, vip), BACK);
        for round in 0..200 {
            let forged = [RST, RST | ACK, SYN, ACK][round % 4];
            world.pass(&segment(client, vip, forged).frame(), BACK);
            // The flow's own traffic pauses for less than the 10 s of a reset connection.
            world.now += 9;
            census::take(&world.view, &mut sweeper, world.now);
            let out = world.pass(&ack(client, vip), BACK);
            assert_eq!(server_of(&out), server, "{topology:?} round {round}");
            assert_eq!(state(&world), State::Established);
        }
    }
}

#[test]
fn each_state_is_forgotten_in_its_time() {
    #[rustfmt::skip]
    let table: [(&str, Segments, u32); 7] = [
        // (from the server, flags) after the SYN, seconds
        ("syn-received", &[], 60),
        ("established", &[(false, ACK)], 900),
        ("fin-wait", &[(false, ACK), (false, FIN | ACK)], 120),
        ("time-wait", &[(false, FIN | ACK), (true, FIN | ACK)], 120),
        ("close-wait", &[(false, ACK), (true, FIN | ACK)], 60),
        ("last-ack", &[(true, FIN | ACK), (false, FIN | ACK)], 30),
        ("close", &[(false, ACK), (true, RST)], 10),
    ];
    for (name, segments, seconds) in table {
        let mut world = World::new(vec![rule(V4, Topology::HalfNat, RR, 1)]);
        let table = world.table.clone();
        let mut sweeper = table.sweeper();
        let (client, vip) = (client(V4, 1), (V4.vip(), 80));
        world.pass(&syn(client, vip), BACK);
        for &(reverse, flags) in segments {
            let frame = match reverse {
                true => segment((V4.server(1), 80), client, flags).frame(),
                false => segment(client, vip, flags).frame(),
            };
            world.pass(&frame, if reverse { FRONT } else { BACK });
        }
        assert_eq!(state(&world).label(), name);
        let mut ended = |after| census::take(&world.view, &mut sweeper, world.now + after).ended;
        assert_eq!(ended(seconds), 0, "{name}");
        assert_eq!(ended(seconds + 1), 1, "{name}");
    }
}

/// What a rule's servers look like after something happened to the first one.
fn without_first(rule: &RuleSpec, gone: bool, orphans: Orphans) -> RuleSpec {
    let mut rule = RuleSpec {
        orphans,
        ..rule.clone()
    };
    if gone {
        rule.servers.remove(0);
    } else {
        rule.servers[0].dead = true;
    }
    rule
}

#[test]
fn orphans_are_rescheduled_in_mid_connection() {
    for family in FAMILIES {
        for topology in TOPOLOGIES {
            for gone in [false, true] {
                let tcp = rule(family, topology, RR, 2);
                let mut world = World::new(vec![tcp.clone()]);
                let (client, vip) = (client(family, 1), (family.vip(), 80));
                assert_eq!(server_of(&world.pass(&syn(client, vip), BACK)), 1);
                world.pass(&ack(client, vip), BACK);
                world.configure(vec![without_first(&tcp, gone, Orphans::Reschedule)]);
                let what = format!("{family:?} {topology:?} gone {gone}");
                for _ in 0..3 {
                    let out = world.pass(&ack(client, vip), BACK);
                    assert_eq!(server_of(&out), 2, "{what}");
                    assert_eq!(state(&world), State::Established, "{what}");
                }
            }
        }
    }
}

#[test]
fn orphans_without_another_server_wait_for_theirs() {
    let one = rule(V4, Topology::Nat, RR, 1);
    let mut world = World::new(vec![one.clone()]);
    let (client, vip) = (client(V4, 1), (V4.vip(), 80));
    let before = ends(&world.pass(&syn(client, vip), BACK));
    world.configure(vec![without_first(&one, false, Orphans::Reschedule)]);
    let (verdict, _) = world.send(&ack(client, vip));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoServer));
    world.configure(vec![one]);
    assert_eq!(ends(&world.pass(&ack(client, vip), BACK)), before);
}

#[test]
fn a_disabled_rule_reschedules_its_orphans_but_takes_nobody_new() {
    let two = rule(V4, Topology::HalfNat, RR, 2);
    let mut world = World::new(vec![two.clone()]);
    let (old, vip) = (client(V4, 1), (V4.vip(), 80));
    world.pass(&syn(old, vip), BACK);
    let mut disabled = without_first(&two, false, Orphans::Reschedule);
    disabled.accepting = false;
    world.configure(vec![disabled]);
    assert_eq!(server_of(&world.pass(&ack(old, vip), BACK)), 2);
    let (verdict, _) = world.send(&syn(client(V4, 9), vip));
    assert_eq!(verdict, Verdict::Kernel);
}

/// Sequence and acknowledgement numbers and flags of a TCP segment.
fn numbers(frame: &[u8]) -> (u32, u32, u8) {
    let tcp = &frame[headers(frame).l4 as usize..];
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    (word(4), word(8), tcp[13])
}

#[test]
fn orphans_are_reset() {
    for family in FAMILIES {
        for topology in TOPOLOGIES {
            for gone in [false, true] {
                let what = format!("{family:?} {topology:?} gone {gone}");
                let tcp = rule(family, topology, RR, 2);
                let mut world = World::new(vec![tcp.clone()]);
                let (client, vip) = (client(family, 1), (family.vip(), 80));
                world.pass(&syn(client, vip), BACK);
                world.pass(&ack(client, vip), BACK);
                world.configure(vec![without_first(&tcp, gone, Orphans::Reset)]);
                // The segment acknowledges 2. Whoever is reset may repeat itself.
                for _ in 0..3 {
                    let out = world.pass(&ack(client, vip), FRONT);
                    assert_eq!(ends(&out), (vip, client), "{what}");
                    assert_eq!(numbers(&out), (2, 0, RST), "{what}");
                    assert_eq!(out[..6], [4, 0, 0, 0, 1, 1], "{what}: by the client's hop");
                }
                let totals = world.view.snapshot.rules()[0].account.totals();
                assert_eq!(totals.answered, 3, "{what}");
                let reset = segment(client, vip, RST).frame();
                let (verdict, _) = world.send(&reset);
                let orphaned = Verdict::Drop(DropReason::Orphaned);
                assert_eq!(verdict, orphaned, "{what}: no reset for a reset");
                let out = world.pass(&syn(client, vip), BACK);
                assert_eq!(server_of(&out), 2, "{what}: a SYN begins anew");
                assert_eq!(server_of(&world.pass(&ack(client, vip), BACK)), 2);
            }
        }
    }
}

#[test]
fn orphans_that_are_not_tcp_are_told_by_icmp_within_the_limit() {
    for family in FAMILIES {
        for topology in TOPOLOGIES {
            let spec = udp(rule(family, topology, RR, 2));
            let mut world = World::new(vec![spec.clone()]);
            let vip = (family.vip(), 80);
            let frames: Vec<_> = (1..=9)
                .map(|n| datagram(client(family, n), vip).frame())
                .collect();
            for frame in &frames {
                world.pass(frame, BACK);
            }
            let mut snapshot = SnapshotSpec {
                generation: 2,
                rules: vec![without_first(&spec, false, Orphans::Reset)],
                ..SnapshotSpec::default()
            };
            snapshot.limits.icmp_errors_per_second = 3;
            world.apply(&snapshot);
            let (mut told, mut limited, mut kept) = (0, 0, 0);
            for (n, frame) in (1..).zip(&frames) {
                let (verdict, out) = world.send(frame);
                match verdict {
                    Verdict::Transmit(FRONT) => {
                        told += 1;
                        assert_port_unreachable(&out, frame, family, n);
                    }
                    Verdict::Drop(DropReason::IcmpLimit) => limited += 1,
                    Verdict::Transmit(BACK) => kept += 1,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!((told, limited, kept), (3, 2, 4), "{family:?} {topology:?}");
            // Who was told begins anew, at a server that lives.
            assert_eq!(server_of(&world.pass(&frames[0], BACK)), 2);
        }
    }
}

fn assert_port_unreachable(out: &[u8], about: &[u8], family: Family, client: u8) {
    assert_checksums(out);
    let h = headers(out);
    assert_eq!(
        IpAddr::from(h.tuple.src),
        family.vip(),
        "the client sees the VIP"
    );
    assert_eq!(IpAddr::from(h.tuple.dst), family.client(client));
    let message = &out[h.l4 as usize..h.end as usize];
    assert_eq!(message[..2], if family.v4 { [3, 3] } else { [1, 4] });
    assert_eq!(message[8..], about[14..], "the whole datagram is quoted");
    assert_eq!(out[..6], [4, 0, 0, 0, 1, client]);
}

#[test]
fn orphans_are_dropped() {
    for gone in [false, true] {
        for (spec, frame) in [
            (
                rule(V4, Topology::Nat, RR, 2),
                ack(client(V4, 1), (V4.vip(), 80)),
            ),
            (
                udp(rule(V4, Topology::Nat, RR, 2)),
                datagram(client(V4, 1), (V4.vip(), 80)).frame(),
            ),
        ] {
            let mut world = World::new(vec![spec.clone()]);
            let first = match spec.vips[0].protocol {
                Protocol::Tcp => syn(client(V4, 1), (V4.vip(), 80)),
                _ => frame.clone(),
            };
            world.pass(&first, BACK);
            world.configure(vec![without_first(&spec, gone, Orphans::Drop)]);
            for _ in 0..2 {
                let (verdict, out) = world.send(&frame);
                assert_eq!(verdict, Verdict::Drop(DropReason::Orphaned));
                assert_eq!(out, frame);
            }
        }
    }
}

#[test]
fn drained_servers_keep_what_they_have() {
    type Change = fn(&mut RuleSpec);
    let table: [(&str, Change); 2] = [
        ("disabled", |rule| rule.servers[0].accepting = false),
        ("weight 0", |rule| rule.servers[0].weight = 0),
    ];
    for topology in TOPOLOGIES {
        for (what, change) in table {
            let two = rule(V4, topology, RR, 2);
            let mut world = World::new(vec![two.clone()]);
            let (old, vip) = (client(V4, 1), (V4.vip(), 80));
            assert_eq!(server_of(&world.pass(&syn(old, vip), BACK)), 1);
            let mut drained = two;
            change(&mut drained);
            world.configure(vec![drained]);
            for flags in [ACK, SYN, ACK, FIN | ACK] {
                let out = world.pass(&segment(old, vip, flags).frame(), BACK);
                assert_eq!(server_of(&out), 1, "{what}");
            }
            for n in 2..6 {
                let out = world.pass(&syn(client(V4, n), vip), BACK);
                assert_eq!(server_of(&out), 2, "{what}");
            }
            let out = world.pass(&syn(old, vip), BACK);
            assert_eq!(server_of(&out), 2, "{what}: a port that is used again");
        }
    }
}

#[test]
fn a_hash_goes_by_the_servers_that_are_left_with_or_without_fallback() {
    type Change = fn(&mut ServerSpec);
    let changes: [(&str, Change); 3] = [
        ("dead", |server| server.dead = true),
        ("quiesced", |server| server.weight = 0),
        ("disabled", |server| server.accepting = false),
    ];
    for algorithm in [Algorithm::SourceHash, Algorithm::Maglev] {
        for (what, change) in changes {
            let mut spec = rule(V4, Topology::Dsr, algorithm, 3);
            assert!(!spec.options.fallback);
            let mut world = World::new(vec![spec.clone()]);
            let vip = (V4.vip(), 80);
            let ask = |world: &mut World, port| {
                let syn = |n| syn((V4.client(n), port), vip);
                let servers = (1..=60).map(|n| server_of(&world.pass(&syn(n), BACK)));
                servers.collect::<Vec<u8>>()
            };
            let before = ask(&mut world, 4000);
            change(&mut spec.servers[0]);
            world.configure(vec![spec]);
            let after = ask(&mut world, 4001);
            let moved = before.iter().zip(&after).filter(|(old, new)| old != new);
            let (mut of_first, mut of_others) = (0, 0);
            moved.for_each(|(&old, _)| {
                *(if old == 1 {
                    &mut of_first
                } else {
                    &mut of_others
                }) += 1
            });
            let had = before.iter().filter(|&&server| server == 1).count();
            assert_eq!(of_first, had, "{algorithm:?} {what}");
            assert!(of_others <= 1, "{algorithm:?} {what}: {of_others}");
        }
    }
}

#[test]
fn one_packet_scheduling_gives_each_datagram_its_turn_and_leaves_nothing() {
    for family in FAMILIES {
        let mut spec = udp(rule(family, Topology::Dsr, RR, 3));
        spec.one_packet = true;
        let mut world = World::new(vec![spec]);
        let frame = datagram(client(family, 1), (family.vip(), 80)).frame();
        let servers: Vec<_> = (0..6)
            .map(|_| server_of(&world.pass(&frame, BACK)))
            .collect();
        assert_eq!(servers, [1, 2, 3, 1, 2, 3], "{family:?}");
        assert_eq!(world.table.used(), 0);
        let totals = world.view.snapshot.targets()[0].account.totals();
        assert_eq!((totals.packets, totals.connections), (2, 2));
    }
}

#[test]
fn one_packet_scheduling_is_refused_where_answers_pass_through() {
    let with = |topology, protocol| {
        let mut spec = rule(V4, topology, RR, 1);
        spec.one_packet = true;
        spec.vips[0].protocol = protocol;
        let spec = SnapshotSpec {
            generation: 1,
            rules: vec![spec],
            ..SnapshotSpec::default()
        };
        ilb_forwarder::Snapshot::compile(&spec, None, 1).map(drop)
    };
    assert_eq!(with(Topology::Dsr, Protocol::Udp), Ok(()));
    for (topology, protocol) in [
        (Topology::Nat, Protocol::Udp),
        (Topology::HalfNat, Protocol::Udp),
        (Topology::Dsr, Protocol::Tcp),
    ] {
        let error = with(topology, protocol).unwrap_err().to_string();
        let expected = "rule 'web': one-packet scheduling is for UDP under DSR or TUN only";
        assert_eq!(error, expected);
    }
}

#[test]
fn the_local_node_gets_packets_unchanged_and_is_counted() {
    for family in FAMILIES {
        for topology in TOPOLOGIES {
            let mut world = World::new(vec![rule(family, topology, RR, 2)]);
            let local = network().with_local([family.server(1)]);
            world.view = View::new(world.view.snapshot.clone(), local.into());
            let vip = (family.vip(), 80);
            let (here, there) = (client(family, 1), client(family, 2));
            for flags in [SYN, ACK, FIN | ACK] {
                let frame = segment(here, vip, flags).frame();
                assert_eq!(world.send(&frame), (Verdict::Kernel, frame), "{topology:?}");
            }
            assert_eq!(state(&world), State::FinWait, "{topology:?}");
            let totals = world.view.snapshot.targets()[0].account.totals();
            assert_eq!((totals.connections, totals.packets), (1, 3));
            assert_eq!(server_of(&world.pass(&syn(there, vip), BACK)), 2);
        }
    }
}

#[test]
fn the_local_node_cannot_have_other_ports() {
    let mut spec = rule(V4, Topology::Nat, RR, 1);
    spec.servers[0].ports = PortMap::Collapse(8080);
    let mut world = World::new(vec![spec]);
    let local = network().with_local([V4.server(1)]);
    world.view = View::new(world.view.snapshot.clone(), local.into());
    let (verdict, _) = world.send(&syn(client(V4, 1), (V4.vip(), 80)));
    assert_eq!(verdict, Verdict::Drop(DropReason::LocalPort));
}

#[test]
fn an_error_about_the_local_node_is_the_kernels() {
    let mut world = World::new(vec![rule(V4, Topology::HalfNat, RR, 1)]);
    let local = network().with_local([V4.server(1)]);
    world.view = View::new(world.view.snapshot.clone(), local.into());
    let (client, vip) = (client(V4, 1), (V4.vip(), 80));
    world.send(&syn(client, vip));
    let error = icmp_error(V4.router(), V4.vip(), true, &ack(vip, client), 60);
    assert_eq!(world.send(&error), (Verdict::Kernel, error));
}

#[test]
fn sctp_lives_by_its_chunks() {
    let mut spec = rule(V4, Topology::HalfNat, RR, 2);
    spec.vips[0].protocol = Protocol::Sctp;
    let mut world = World::new(vec![spec]);
    let (client, vip, server) = (client(V4, 1), (V4.vip(), 80), (V4.server(1), 80));
    let packet = |src: End, dst: End, chunk: u8| {
        let mut bytes = vec![];
        bytes.extend(src.1.to_be_bytes());
        bytes.extend(dst.1.to_be_bytes());
        bytes.extend([0, 0, 0, 9, 0, 0, 0, 0, chunk, 0, 0, 4]);
        ip_frame(src.0, dst.0, 132, 64, None, &bytes)
    };
    #[rustfmt::skip]
    let life = [
        // from the server, chunk, state
        (false, 1, State::SynReceived),
        (true, 2, State::SynReceived),
        (false, 10, State::Established),
        (true, 11, State::Established),
        (false, 0, State::Established),
        (false, 7, State::FinWait),
        (true, 8, State::TimeWait),
        (false, 14, State::Close),
    ];
    for (reverse, chunk, expected) in life {
        let frame = match reverse {
            true => packet(server, client, chunk),
            false => packet(client, vip, chunk),
        };
        let (verdict, _) = world.send(&frame);
        let port = if reverse { FRONT } else { BACK };
        assert_eq!(verdict, Verdict::Transmit(port), "chunk {chunk}");
        assert_eq!(state(&world), expected, "chunk {chunk}");
    }
    let (_, out) = world.send(&packet(client, vip, 1));
    assert_eq!(server_of(&out), 2, "an INIT begins anew");
}
