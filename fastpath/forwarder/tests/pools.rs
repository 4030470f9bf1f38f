//! Connections whose entry is lost find their server through the versions of their rule's pool.

mod common;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use common::*;
use ilb_forwarder::spec::*;
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{Forwarder, Table, census};

/// Servers that a pool is made of, changed a hundred times.
fn pool_after(change: u32) -> Vec<u8> {
    (1..=20)
        .filter(|&n| !(change * 7 + n as u32 * 13).is_multiple_of(5) || n == 1)
        .collect()
}

fn with_servers(
    family: Family,
    topology: Topology,
    algorithm: Algorithm,
    present: &[u8],
) -> RuleSpec {
    let mut spec = rule(family, topology, algorithm, 20);
    for server in &mut spec.servers {
        server.accepting = present.contains(&(server.id as u8));
    }
    spec
}

fn address(family: Family, n: u32) -> IpAddr {
    // Not on a link of the world: by its default route.
    match family.v4 {
        true => IpAddr::from([172, 16, (n >> 8) as u8, n as u8]),
        false => ip(&format!("fd77::{n:x}")),
    }
}

/// Client number `n`.
fn client(family: Family, n: u32) -> (IpAddr, u16) {
    (address(family, n % 5000), 1024 + (n / 5000) as u16)
}

/// By which server's Ethernet address, or to which address, a packet goes out.
fn server_of(world: &mut World, frame: &[u8]) -> Result<u8, Verdict> {
    match world.send(frame) {
        (Verdict::Transmit(BACK), out) => Ok(out[5]),
        (verdict, _) => Err(verdict),
    }
}

/// A connection that has done its handshake; gives its server.
fn establish(world: &mut World, family: Family, n: u32) -> u8 {
    let (from, to) = (client(family, n), (family.vip(), 80));
    let server = server_of(world, &syn(from, to)).unwrap();
    assert_eq!(server_of(world, &ack(from, to)), Ok(server));
    server
}

fn take_census(world: &World) {
    let mut sweeper = world.table.sweeper();
    census::take(&world.view, &mut sweeper, world.now);
}

/// The state is lost, but not the filters.
fn lose_the_table(world: &mut World, capacity: u32) {
    world.table = Arc::new(Table::private(capacity, KEYS).unwrap());
    world.forwarder = Forwarder::new(0, world.table.clone());
}

const FLOWS: u32 = 10_000;

#[test]
fn ten_thousand_connections_survive_a_hundred_changes_and_the_loss_of_the_table() {
    for (family, topology) in [
        (V4, Topology::Dsr),
        (V6, Topology::Dsr),
        (V4, Topology::HalfNat),
        (V6, Topology::HalfNat),
    ] {
        for algorithm in [
            Algorithm::RoundRobin,
            Algorithm::HashIp,
            Algorithm::HashIpPort,
            Algorithm::HashIpVip,
        ] {
            let mut world = World::with_table(
                vec![with_servers(family, topology, algorithm, &pool_after(0))],
                1 << 15,
            );
            let mut servers = HashMap::new();
            for n in 0..FLOWS {
                if n % (FLOWS / 100) == 0 {
                    let present = pool_after(n / (FLOWS / 100));
                    world.configure(vec![with_servers(family, topology, algorithm, &present)]);
                    world.now += 1;
                    take_census(&world);
                }
                servers.insert(n, establish(&mut world, family, n));
            }
            assert!(world.view.snapshot.rules()[0].pool.versions().len() <= 8);
            // As long as the table is there, it decides.
            for (&n, server) in &servers {
                let frame = ack(client(family, n), (family.vip(), 80));
                assert_eq!(server_of(&mut world, &frame), Ok(*server));
            }
            world.now += 1;
            take_census(&world);
            let exports: Vec<Vec<u8>> = world.view.snapshot.rules()[0]
                .pool
                .versions()
                .iter()
                .filter_map(|version| version.export(1))
                .collect();

            let here = format!("{family:?} {topology:?} {algorithm:?}");
            lose_the_table(&mut world, 1 << 15);
            all_find_their_servers(&mut world, family, &servers, &here);

            // A peer with the same rule that has seen none of it.
            let everything =
                with_servers(family, topology, algorithm, &(1..=20).collect::<Vec<_>>());
            let mut peer = World::with_table(vec![everything], 1 << 15);
            let pool = &peer.view.snapshot.rules()[0].pool;
            for bytes in &exports {
                pool.merge(1, bytes).unwrap();
            }
            all_find_their_servers(&mut peer, family, &servers, &format!("{here}, on a peer"));
        }
    }
}

/// None is lost; of the wrong server are at most as many as the filters' size allows for. Who never connected is not
/// taken in.
fn all_find_their_servers(
    world: &mut World,
    family: Family,
    servers: &HashMap<u32, u8>,
    what: &str,
) {
    let (mut lost, mut wrong) = (0, 0);
    for (&n, &server) in servers {
        world.now = 5000 + n / 2000;
        match server_of(world, &ack(client(family, n), (family.vip(), 80))) {
            Ok(found) if found == server => {}
            Ok(_) => wrong += 1,
            Err(_) => lost += 1,
        }
    }
    assert_eq!(lost, 0, "{what}: lost");
    assert!(wrong <= FLOWS / 1000, "{what}: {wrong} with another server");
    let strangers = (0..2000)
        .filter(|&n| {
            let frame = ack((address(family, 6000 + n), 999), (family.vip(), 80));
            let answer = server_of(world, &frame);
            assert!(matches!(
                answer,
                Ok(_) | Err(Verdict::Drop(DropReason::NoConnection))
            ));
            answer.is_ok()
        })
        .count();
    assert!(strangers <= 20, "{what}: {strangers} strangers");
}

#[test]
fn a_recovered_connection_is_one_like_any_other() {
    for topology in [Topology::Dsr, Topology::HalfNat] {
        let spec = || vec![rule(V4, topology, Algorithm::RoundRobin, 3)];
        let mut world = World::new(spec());
        let server = establish(&mut world, V4, 1);
        let (from, to) = (client(V4, 1), (V4.vip(), 80));
        lose_the_table(&mut world, 1024);
        if topology == Topology::HalfNat {
            // The server's packets are the kernel's until the client's have brought the entry back.
            let back = ack((V4.server(server), 80), from);
            assert_eq!(world.send_by(&back, BACK).0, Verdict::Kernel);
            assert_eq!(server_of(&mut world, &ack(from, to)), Ok(server));
            assert_eq!(
                world.send_by(&back, BACK).0,
                Verdict::Unresolved {
                    port: FRONT,
                    next_hop: ip("10.1.0.254")
                }
            );
        } else {
            assert_eq!(server_of(&mut world, &ack(from, to)), Ok(server));
        }
        let account = &world.view.snapshot.targets()[server as usize - 1].account;
        let totals = account.totals();
        assert_eq!((totals.recovered, totals.connections), (1, 1));
        take_census(&world);
        assert_eq!(world.view.snapshot.rules()[0].pool.versions()[0].live(), 1);
        // It is in the table now: what the pools know does not matter any more.
        let before = world.table.used();
        assert_eq!(server_of(&mut world, &ack(from, to)), Ok(server));
        assert_eq!(world.table.used(), before);
    }
}

#[test]
fn what_cannot_be_recovered_is_dropped_as_before() {
    let nat = rule(V4, Topology::Nat, Algorithm::RoundRobin, 3);
    let mut world = World::new(vec![nat]);
    establish(&mut world, V4, 1);
    lose_the_table(&mut world, 1024);
    let frame = ack(client(V4, 1), (V4.vip(), 80));
    let drop = Err(Verdict::Drop(DropReason::NoConnection));
    assert_eq!(
        server_of(&mut world, &frame),
        drop,
        "NAT: its port is not known"
    );

    let dsr = |dead| {
        let mut spec = rule(V4, Topology::Dsr, Algorithm::RoundRobin, 1);
        spec.servers[0].dead = dead;
        vec![spec]
    };
    let mut world = World::new(dsr(false));
    establish(&mut world, V4, 1);
    // Half-open ones are not worth it: their client begins again.
    let half_open = (client(V4, 2), (V4.vip(), 80));
    server_of(&mut world, &syn(half_open.0, half_open.1)).unwrap();
    world.configure(dsr(true));
    lose_the_table(&mut world, 1024);
    assert_eq!(server_of(&mut world, &frame), drop, "the server is dead");
    world.configure(dsr(false));
    assert_eq!(server_of(&mut world, &frame), Ok(1));
    assert_eq!(server_of(&mut world, &ack(half_open.0, half_open.1)), drop);
}

#[test]
fn versions_that_nobody_needs_disappear() {
    let spec = |present: &[u8]| {
        vec![with_servers(
            V4,
            Topology::Dsr,
            Algorithm::RoundRobin,
            present,
        )]
    };
    let mut world = World::new(spec(&[1, 2]));
    establish(&mut world, V4, 1);
    world.configure(spec(&[3, 4]));
    establish(&mut world, V4, 2);
    world.configure(spec(&[5, 6]));
    let live = |world: &World| -> Vec<u32> {
        world.view.snapshot.rules()[0]
            .pool
            .versions()
            .iter()
            .map(|version| version.live())
            .collect()
    };
    take_census(&world);
    assert_eq!(live(&world), [0, 1, 1]);
    // The second connection goes on, the first one is forgotten after its 900 seconds.
    for _ in 0..4 {
        world.now += 600;
        server_of(&mut world, &ack(client(V4, 2), (V4.vip(), 80))).unwrap();
        take_census(&world);
        world.configure(spec(&[5, 6]));
    }
    assert_eq!(live(&world), [0, 1]);
    // It does so for weeks, and its version with it; its filter is rotated and still knows it.
    for _ in 0..3000 {
        world.now += 600;
        server_of(&mut world, &ack(client(V4, 2), (V4.vip(), 80))).unwrap();
        take_census(&world);
    }
    lose_the_table(&mut world, 1024);
    assert_eq!(
        server_of(&mut world, &ack(client(V4, 1), (V4.vip(), 80))).ok(),
        None
    );
    let found = server_of(&mut world, &ack(client(V4, 2), (V4.vip(), 80))).unwrap();
    assert!([3, 4].contains(&found));
}

#[test]
fn a_filter_grows_with_its_connections_and_forgets_those_that_are_over() {
    let mut specs = vec![rule(V4, Topology::Dsr, Algorithm::HashIp, 3)];
    // Many rules: each begins with a small filter.
    for id in 2..=300 {
        let mut other = rule(V4, Topology::Dsr, Algorithm::HashIp, 1);
        other.id = id;
        other.vips[0].ports = PortRange::single(1000 + id as u16);
        specs.push(other);
    }
    let mut world = World::with_table(specs, 1 << 16);
    let version = || world.view.snapshot.rules()[0].pool.versions()[0].clone();
    let version = version();
    let filter = version.filter().unwrap();
    assert!(filter.bytes() <= 2 * 1024);
    for n in 0..20_000 {
        establish(&mut world, V4, n);
    }
    for _ in 0..3 {
        world.now += 1;
        take_census(&world);
    }
    assert_eq!(version.live(), 20_000);
    // Two halves of two bytes for each of 65,536, and the little one that it had.
    assert!(
        filter.bytes() <= 2 * (128 << 10) + 2048,
        "{}",
        filter.bytes()
    );
    let servers: Vec<u8> = (0..20_000)
        .map(|n| server_of(&mut world, &ack(client(V4, n), (V4.vip(), 80))).unwrap())
        .collect();
    lose_the_table(&mut world, 1 << 16);
    for (n, server) in (0..20_000).zip(servers) {
        assert_eq!(
            server_of(&mut world, &ack(client(V4, n), (V4.vip(), 80))),
            Ok(server)
        );
    }
    // All are over: after two rotations nobody remembers them.
    lose_the_table(&mut world, 1 << 16);
    for _ in 0..3 {
        world.now += 901;
        take_census(&world);
    }
    for n in 0..20_000 {
        let frame = ack(client(V4, n), (V4.vip(), 80));
        assert_eq!(
            server_of(&mut world, &frame),
            Err(Verdict::Drop(DropReason::NoConnection))
        );
    }
}
