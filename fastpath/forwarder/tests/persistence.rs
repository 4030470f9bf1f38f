//! Persistence: a client comes back to its server, over all that a rule serves and for as long as was said, and what
//! strangers claim does not stand in the way of those who are real.

mod common;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};

use common::*;
use ilb_forwarder::listing::{self, Filter, Query};
use ilb_forwarder::packet::tcp::{ACK, FIN};
use ilb_forwarder::spec::*;
use ilb_forwarder::table::State;
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{Forwarder, Packet, Table, census};

const TOPOLOGIES: [Topology; 4] = [
    Topology::Dsr,
    Topology::HalfNat,
    Topology::Nat,
    Topology::Tun,
];

type End = (IpAddr, u16);

/// A rule for TCP, UDP and ICMP on all ports, round robin over three servers.
fn sticky(family: Family, topology: Topology, mask: u8, timeout: u32) -> RuleSpec {
    let mut rule = rule(family, topology, Algorithm::RoundRobin, 3);
    if topology == Topology::Tun {
        rule.proxy_src = vec![family.proxy(1), family.proxy(2)];
    }
    rule.vips = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp]
        .into_iter()
        .map(|protocol| VipSpec {
            address: family.vip(),
            protocol,
            ports: PortRange::ANY,
        })
        .collect();
    rule.persistence = Some(Persistence { mask, timeout });
    rule
}

fn all_bits(family: Family) -> u8 {
    if family.v4 { 32 } else { 128 }
}

fn client(family: Family, n: u8, port: u16) -> End {
    (family.client(n), port)
}

fn vip(family: Family, port: u16) -> End {
    (family.vip(), port)
}

/// Number of the server that a frame was sent to: the last byte of its Ethernet address.
fn server_of(frame: &[u8]) -> u8 {
    assert_eq!(frame[..5], [4, 0, 0, 0, 2], "to a server");
    frame[5]
}

fn connect(world: &mut World, family: Family, n: u8, port: u16) -> u8 {
    server_of(&world.pass(&syn(client(family, n, port), vip(family, 80)), BACK))
}

fn establish(world: &mut World, family: Family, n: u8, port: u16) -> u8 {
    let server = connect(world, family, n, port);
    world.pass(&ack(client(family, n, port), vip(family, 80)), BACK);
    server
}

fn echo(family: Family, from: IpAddr, id: u16) -> Vec<u8> {
    let mut message = vec![if family.v4 { 8 } else { 128 }, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 1]);
    let protocol = if family.v4 { 1 } else { 58 };
    let sum = message_sum(&message, protocol, from.into(), family.vip().into());
    message[2..4].copy_from_slice(&sum);
    ip_frame(from, family.vip(), protocol, 64, None, &message)
}

/// Claims in the table: (client, server, state).
fn claims(world: &World) -> Vec<(IpAddr, u32, State)> {
    let mut claims = vec![];
    world.table.each(|_, connection| {
        if connection.state.is_claim() {
            let identity = connection.identity;
            claims.push((identity.client.into(), identity.server, connection.state));
        }
        std::ops::ControlFlow::Continue(())
    });
    claims
}

#[test]
fn a_client_comes_back_whatever_protocol_and_port_it_uses() {
    for family in FAMILIES {
        for topology in TOPOLOGIES {
            let what = format!("{family:?} {topology:?}");
            let mut world = World::new(vec![sticky(family, topology, all_bits(family), 60)]);
            for n in 1..=4 {
                // Passive FTP is the case of port 21 and any other one.
                let server =
                    server_of(&world.pass(&syn(client(family, n, 4000), vip(family, 21)), BACK));
                assert_eq!(server, (n - 1) % 3 + 1, "{what}: each client has a turn");
                for port in [80, 443, 40_000, 65_535, 1] {
                    let tcp = syn(client(family, n, 4000 + port % 1000), vip(family, port));
                    assert_eq!(server_of(&world.pass(&tcp, BACK)), server, "{what} {port}");
                    let udp = datagram(client(family, n, 5000), vip(family, port)).frame();
                    assert_eq!(server_of(&world.pass(&udp, BACK)), server, "{what} {port}");
                }
                let ping = echo(family, family.client(n), 77);
                assert_eq!(server_of(&world.pass(&ping, BACK)), server, "{what} ping");
            }
            assert_eq!(claims(&world).len(), 4, "{what}: one claim a client");
        }
    }
}

#[test]
fn a_mask_joins_the_clients_of_a_network() {
    for family in FAMILIES {
        let mut world = World::new(vec![sticky(
            family,
            Topology::Dsr,
            all_bits(family) - 3,
            60,
        )]);
        // Networks of eight: clients 8 to 15, 16 to 23, 24 to 31.
        let servers: Vec<u8> = (8..32)
            .map(|n| connect(&mut world, family, n, 4000))
            .collect();
        let expected: Vec<u8> = (0..24).map(|n| n / 8 + 1).collect();
        assert_eq!(servers, expected, "{family:?}");
        assert_eq!(claims(&world).len(), 3);
        let mut world = World::new(vec![sticky(family, Topology::Dsr, 0, 60)]);
        let servers: Vec<u8> = (1..9)
            .map(|n| connect(&mut world, family, n, 4000))
            .collect();
        assert_eq!(servers, [1; 8], "a mask of no bits is everybody");
    }
}

#[test]
fn a_claim_lives_for_its_timeout_after_the_last_connection() {
    const TIMEOUT: u32 = 200;
    let mut spec = sticky(V4, Topology::Dsr, 32, TIMEOUT);
    spec.timeouts.tcp_established = 1000;
    let mut world = World::new(vec![spec]);
    let table = world.table.clone();
    let mut sweeper = table.sweeper();
    let begun = world.now;
    assert_eq!(establish(&mut world, V4, 1, 4000), 1);
    // One census a second; the connection is idle and ends after 1000 s, the claim 200 s later.
    let mut alive = vec![];
    for second in 0..=1210 {
        world.now = begun + second;
        census::take(&world.view, &mut sweeper, world.now);
        alive.push((claims(&world).len(), world.table.used()));
    }
    let ended = alive.iter().position(|&(claims, _)| claims == 0);
    let last = |second: usize| alive[second].0 == 1;
    assert!(last(999) && last(1001) && last(1001 + TIMEOUT as usize));
    assert_eq!(ended, Some(1002 + TIMEOUT as usize));
    assert_eq!(
        connect(&mut world, V4, 1, 4001),
        2,
        "and then it is a client like any other"
    );
}

#[test]
fn a_claim_holds_while_its_server_takes_new_connections() {
    type Change = fn(&mut RuleSpec);
    #[rustfmt::skip]
    let table: [(&str, Change, bool); 7] = [
        // what happens to server 1, whether its client comes back to it
        ("nothing",        |_| {}, true),
        ("full",           |rule| rule.servers[0].max_connections = 1, true),
        ("another weight", |rule| rule.servers[0].weight = 9, true),
        ("quiesced",       |rule| rule.servers[0].weight = 0, false),
        ("disabled",       |rule| rule.servers[0].accepting = false, false),
        ("dead",           |rule| rule.servers[0].dead = true, false),
        ("removed",        |rule| { rule.servers.remove(0); }, false),
    ];
    for topology in TOPOLOGIES {
        for (what, change, same) in table {
            let before = sticky(V4, topology, 32, 60);
            let mut world = World::new(vec![before.clone()]);
            assert_eq!(establish(&mut world, V4, 1, 4000), 1);
            let mut after = before.clone();
            change(&mut after);
            world.configure(vec![after]);
            let second = connect(&mut world, V4, 1, 4001);
            assert_eq!(second == 1, same, "{topology:?} {what}");
            // Whoever it was: the claim is theirs from now on, even if the first one comes back.
            world.configure(vec![before]);
            assert_eq!(
                connect(&mut world, V4, 1, 4002),
                second,
                "{topology:?} {what}"
            );
            assert_eq!(claims(&world).len(), 1, "{topology:?} {what}");
        }
    }
}

#[test]
fn a_claim_is_kept_while_nobody_could_take_it_over() {
    let spec = sticky(V4, Topology::Nat, 32, 60);
    let mut world = World::new(vec![spec.clone()]);
    assert_eq!(establish(&mut world, V4, 1, 4000), 1);
    let mut none = spec.clone();
    none.servers
        .iter_mut()
        .for_each(|server| server.dead = true);
    world.configure(vec![none]);
    let (verdict, _) = world.send(&syn(client(V4, 1, 4001), vip(V4, 80)));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoServer));
    world.configure(vec![spec]);
    assert_eq!(connect(&mut world, V4, 1, 4002), 1);
}

#[test]
fn an_orphan_takes_its_clients_claim_along() {
    let spec = sticky(V4, Topology::HalfNat, 32, 60);
    let mut world = World::new(vec![spec.clone()]);
    assert_eq!(establish(&mut world, V4, 1, 4000), 1);
    assert_eq!(establish(&mut world, V4, 1, 4001), 1);
    let mut dead = spec.clone();
    dead.servers[0].dead = true;
    world.configure(vec![dead]);
    let next = |world: &mut World, port| {
        server_of(&world.pass(&ack(client(V4, 1, port), vip(V4, 80)), BACK))
    };
    let second = next(&mut world, 4000);
    assert_ne!(second, 1);
    assert_eq!(
        next(&mut world, 4001),
        second,
        "all its connections go to the same server"
    );
    assert_eq!(connect(&mut world, V4, 1, 4002), second);
}

#[test]
fn nat_keeps_the_source_address_too() {
    for family in FAMILIES {
        let mut spec = sticky(family, Topology::Nat, all_bits(family), 60);
        spec.proxy_src = (1..=10).map(|n| family.proxy(n)).collect();
        let mut world = World::new(vec![spec.clone()]);
        let mut used = vec![];
        for n in 1..=40 {
            let sources: Vec<End> = (0..5)
                .map(|port| {
                    let frame = syn(client(family, n, 4000 + port), vip(family, 80));
                    ends(&world.pass(&frame, BACK)).0
                })
                .collect();
            assert!(
                sources.iter().all(|(source, _)| *source == sources[0].0),
                "{sources:?}"
            );
            used.push(sources[0].0);
        }
        used.sort();
        used.dedup();
        assert!(
            used.len() >= 8,
            "{family:?}: clients spread over the sources: {used:?}"
        );
        // A source that is taken away is missed.
        spec.proxy_src.truncate(1);
        world.configure(vec![spec]);
        for n in 1..=40 {
            let frame = syn(client(family, n, 4100), vip(family, 80));
            assert_eq!(ends(&world.pass(&frame, BACK)).0.0, family.proxy(1));
        }
    }
}

#[test]
fn workers_that_meet_a_client_at_once_agree() {
    const CLIENTS: usize = 200;
    let spec = sticky(V4, Topology::Dsr, 32, 60);
    let world = World::with_table(vec![spec], 1 << 15);
    let servers: Vec<AtomicU8> = (0..CLIENTS).map(|_| AtomicU8::new(0)).collect();
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (table, view, servers) = (world.table.clone(), &world.view, &servers);
            scope.spawn(move || {
                let mut forwarder = Forwarder::new(worker, table);
                for port in 0..20 {
                    for (n, server) in servers.iter().enumerate() {
                        let from = client(V4, n as u8 + 1, 4000 + 100 * worker as u16 + port);
                        let mut buf = syn(from, vip(V4, 80));
                        let len = buf.len();
                        let mut packets = [Packet::new(&mut buf, 0, len, FRONT)];
                        forwarder.process(view, &mut packets, 1000);
                        assert_eq!(packets[0].verdict, Verdict::Transmit(BACK));
                        let got = server_of(packets[0].frame());
                        let had = server.swap(got, Ordering::Relaxed);
                        assert!(had == 0 || had == got, "client {n}: {had}, then {got}");
                    }
                }
            });
        }
    });
    assert_eq!(claims(&world).len(), CLIENTS);
}

#[test]
fn a_datagrams_turn_is_its_clients_when_it_is_persistent() {
    let mut spec = sticky(V4, Topology::Dsr, 32, 60);
    spec.vips.retain(|vip| vip.protocol == Protocol::Udp);
    spec.one_packet = true;
    let mut world = World::new(vec![spec]);
    for n in 1..=3 {
        for port in 0..5 {
            let frame = datagram(client(V4, n, 4000 + port), vip(V4, 53)).frame();
            assert_eq!(server_of(&world.pass(&frame, BACK)), n, "port {port}");
        }
    }
    assert_eq!(world.table.used(), 3, "claims, and nothing else");
}

#[test]
fn a_connection_that_is_recovered_brings_its_clients_claim_back() {
    for topology in [Topology::Dsr, Topology::HalfNat, Topology::Tun] {
        let mut world = World::new(vec![sticky(V4, topology, 32, 60)]);
        let servers: Vec<u8> = (1..=6)
            .map(|n| establish(&mut world, V4, n, 4000))
            .collect();
        world.table = std::sync::Arc::new(Table::private(1024, KEYS).unwrap());
        world.forwarder = Forwarder::new(0, world.table.clone());
        for (n, server) in (1..=6).zip(&servers).rev() {
            let frame = ack(client(V4, n, 4000), vip(V4, 80));
            assert_eq!(
                server_of(&world.pass(&frame, BACK)),
                *server,
                "{topology:?}"
            );
            assert_eq!(
                connect(&mut world, V4, n, 4001),
                *server,
                "{topology:?}: a new one"
            );
        }
        assert_eq!(claims(&world).len(), 6);
    }
}

#[test]
fn claims_are_offered_until_the_client_is_real() {
    #[rustfmt::skip]
    let table: [(&str, &[u8], State); 3] = [
        ("a SYN",              &[], State::Offered),
        ("the handshake",      &[ACK], State::Persistence),
        ("a whole connection", &[ACK, FIN | ACK], State::Persistence),
    ];
    for (what, flags, state) in table {
        let mut world = World::new(vec![sticky(V4, Topology::Dsr, 32, 60)]);
        connect(&mut world, V4, 1, 4000);
        for &flags in flags {
            world.pass(
                &segment(client(V4, 1, 4000), vip(V4, 80), flags).frame(),
                BACK,
            );
        }
        assert_eq!(claims(&world), [(V4.client(1), 1, state)], "{what}");
    }
    // Datagrams: the second one from the client.
    let mut world = World::new(vec![sticky(V4, Topology::Dsr, 32, 60)]);
    let frame = datagram(client(V4, 1, 4000), vip(V4, 53)).frame();
    world.pass(&frame, BACK);
    assert_eq!(claims(&world)[0].2, State::Offered);
    world.pass(&frame, BACK);
    assert_eq!(claims(&world)[0].2, State::Persistence);
    assert_eq!(world.table.embryonic(), 0);
}

#[test]
fn strangers_neither_fill_the_table_with_claims_nor_take_those_of_others() {
    const CAPACITY: u32 = 4096;
    for (mask, limits) in [
        (32, Limits::default()),
        // The flood comes from the clients' own networks.
        (24, Limits::default()),
        (
            32,
            Limits {
                embryonic_percent: 0,
                ..Limits::default()
            },
        ),
    ] {
        let mut spec = sticky(V4, Topology::Dsr, mask, 3600);
        spec.servers.truncate(3);
        let mut world = World::limited(limits, vec![spec], CAPACITY);
        let table = world.table.clone();
        let mut sweeper = table.sweeper();
        let real = |n: u8| (IpAddr::from([172, 16, n, 1]), 4000);
        let server: Vec<u8> = (0..100)
            .map(|n| {
                let server = server_of(&world.pass(&syn(real(n), vip(V4, 80)), BACK));
                world.pass(&ack(real(n), vip(V4, 80)), BACK);
                server
            })
            .collect();
        let mut passed = 0;
        for n in 0..60_000u32 {
            let [_, a, b, c] = n.wrapping_mul(0x9e37_79b9).to_be_bytes();
            let invented = match mask {
                24 => (IpAddr::from([172, 16, a % 100, b.max(2)]), 1024 + c as u16),
                _ => (IpAddr::from([198, a, b, c]), 4000),
            };
            let (verdict, _) = world.send(&syn(invented, vip(V4, 80)));
            passed += u32::from(matches!(verdict, Verdict::Transmit(_)));
            if n % 5000 == 0 {
                world.now += 1;
                census::take(&world.view, &mut sweeper, world.now);
            }
        }
        let what = format!("/{mask}, {} %", limits.embryonic_percent);
        assert!(
            passed > 20_000,
            "{what}: strangers go on being served: {passed}"
        );
        for n in 0..100 {
            let (from, port) = real(n);
            let out = world.pass(&ack((from, port), vip(V4, 80)), BACK);
            assert_eq!(server_of(&out), server[n as usize], "{what}: established");
            let out = world.pass(&syn((from, port + 1), vip(V4, 80)), BACK);
            assert_eq!(
                server_of(&out),
                server[n as usize],
                "{what}: and the claim holds"
            );
        }
        let assured = claims(&world)
            .iter()
            .filter(|claim| claim.2 == State::Persistence)
            .count();
        assert_eq!(assured, 100, "{what}");
    }
}

#[test]
fn a_listing_shows_whose_server_is_whose_and_for_how_long() {
    for family in FAMILIES {
        let mask = all_bits(family) - 3;
        let mut world = World::new(vec![sticky(family, Topology::Nat, mask, 60)]);
        establish(&mut world, family, 9, 4000);
        connect(&mut world, family, 17, 4000);
        world.now += 5;
        let list = |filter: Filter| {
            let query = Query {
                filter,
                ..Query::default()
            };
            listing::page(&world.view, &world.table, &query, world.now)
                .unwrap()
                .entries
        };
        let claims = Filter {
            persistence: true,
            ..Filter::default()
        };
        let mut found = list(claims.clone());
        found.sort_by_key(|entry| entry.client.address);
        assert_eq!(found.len(), 2);
        for (entry, (network, server, state)) in found
            .iter()
            .zip([(8, 1, "persistence"), (16, 2, "offered")])
        {
            assert_eq!(
                entry.client.address,
                family.client(network),
                "the network's address"
            );
            assert_eq!((entry.server, entry.state.as_str()), (server, state));
            assert_eq!((entry.idle, entry.remaining), (5, Some(55)));
            let source = entry.source.unwrap();
            assert!(
                world.view.snapshot.rules()[0]
                    .proxy_src
                    .contains(&source.address.into())
            );
        }
        let one = Filter {
            state: Some("offered".into()),
            ..claims
        };
        assert_eq!(list(one).len(), 1);
        assert_eq!(
            list(Filter::default()).len(),
            2,
            "connections are another list"
        );
    }
}
