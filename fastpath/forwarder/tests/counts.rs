//! What the workers count of each server while packets come and go is what is in the table, at any time: after
//! beginnings, ends, resets, orphans, evictions, reused ports, recoveries and whatever else there is. Least-connection
//! algorithms and thresholds go by these counts, and a census must find nothing to correct.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use ilb_forwarder::load::{Activity, Connections};
use ilb_forwarder::packet::tcp::{ACK, FIN, RST, SYN};
use ilb_forwarder::spec::*;
use ilb_forwarder::table::Sweep;
use ilb_forwarder::verdict::Verdict;
use ilb_forwarder::{Forwarder, Packet, Snapshot, View, census};
use proptest::prelude::*;

/// Entries of the table: few, so that connections have to make way.
const CAPACITY: u32 = 128;

#[derive(Debug, Clone)]
enum Step {
    /// A client sends to one of the rules' ports.
    Client {
        v4: bool,
        worker: bool,
        rule: u16,
        client: u8,
        port: u16,
        udp: bool,
        flags: u8,
    },
    /// A server answers a packet that reached it.
    Server { which: usize, flags: u8 },
    /// A datagram in pieces, in any order.
    Fragments { v4: bool, client: u8, swap: bool },
    /// As many strangers as push others out.
    Flood { from: u16, udp: bool },
    /// Time goes by, and the census is taken.
    Time(u32),
    /// Servers die, are disabled, quiesced or removed, or come back.
    Servers {
        dead: u8,
        disabled: u8,
        quiesced: u8,
        removed: u8,
        orphans: Orphans,
    },
    /// The second server is found to be this host, or not.
    Local(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = prop::sample::select(vec![SYN, SYN, ACK, ACK, ACK, FIN | ACK, RST, SYN | ACK, 0]);
    let client = (
        any::<(bool, bool)>(),
        0u16..8,
        1u8..4,
        4000u16..4002,
        prop::bool::weighted(0.25),
        flags.clone(),
    )
        .prop_map(
            |((v4, worker), rule, client, port, udp, flags)| Step::Client {
                v4,
                worker,
                rule,
                client,
                port,
                udp,
                flags,
            },
        );
    let server = (any::<usize>(), flags).prop_map(|(which, flags)| Step::Server { which, flags });
    let fragments = (any::<bool>(), 1u8..6, any::<bool>())
        .prop_map(|(v4, client, swap)| Step::Fragments { v4, client, swap });
    let flood = (any::<u16>(), any::<bool>()).prop_map(|(from, udp)| Step::Flood { from, udp });
    let orphans = prop::sample::select(vec![Orphans::Reschedule, Orphans::Reset, Orphans::Drop]);
    let servers = (0u8..8, 0u8..8, 0u8..8, 0u8..8, orphans).prop_map(
        |(dead, disabled, quiesced, removed, orphans)| Step::Servers {
            dead: dead << 1,
            disabled: disabled << 1,
            quiesced: quiesced << 1,
            removed: removed << 1,
            orphans,
        },
    );
    let step = prop_oneof![
        30 => client,
        12 => server,
        2 => fragments,
        1 => flood,
        3 => (0u32..100).prop_map(Step::Time),
        3 => servers,
        1 => any::<bool>().prop_map(Step::Local),
    ];
    prop::collection::vec(step, 1..300)
}

/// Eight rules a family: every topology, with and without persistence, thresholds and one-packet scheduling.
fn rules() -> Vec<RuleSpec> {
    let algorithms = [
        Algorithm::LeastConnection,
        Algorithm::WeightedLeastConnection,
        Algorithm::ShortestExpectedDelay,
        Algorithm::NeverQueue,
        Algorithm::LocalityLeastConnectionReplication,
        Algorithm::Overflow,
        Algorithm::Maglev,
        Algorithm::TwoChoices,
    ];
    let topologies = [
        Topology::Dsr,
        Topology::HalfNat,
        Topology::Nat,
        Topology::Tun,
    ];
    let mut rules = vec![];
    for family in FAMILIES {
        for (n, algorithm) in algorithms.into_iter().enumerate() {
            let topology = topologies[n % 4];
            let mut rule = rule(family, topology, algorithm, 3);
            rule.id = rules.len() as u32 + 1;
            let ports = PortRange::single(80 + n as u16);
            let vip = |protocol| VipSpec {
                address: family.vip(),
                protocol,
                ports,
            };
            rule.vips = vec![vip(Protocol::Tcp), vip(Protocol::Udp)];
            match topology {
                Topology::Tun => rule.proxy_src = vec![family.proxy(1)],
                Topology::Dsr if n >= 4 => {
                    rule.vips.remove(0);
                    rule.one_packet = true;
                }
                _ => {}
            }
            if n >= 3 {
                let mask = if family.v4 { 32 } else { 128 };
                rule.persistence = Some(Persistence { mask, timeout: 40 });
            }
            for server in &mut rule.servers {
                server.id += rule.id * 100;
                server.max_connections = [0, 3, 9][n % 3];
            }
            rules.push(rule);
        }
    }
    rules
}

/// Every server's counts are those of its entries, and what follows from counts does.
fn assert_counted(world: &World, after: &Step) {
    let snapshot = &world.view.snapshot;
    let mut counted = vec![Connections::default(); snapshot.targets().len()];
    let mut embryonic = 0;
    world.table.each(|_, connection| {
        embryonic += u32::from(connection.state.is_embryonic());
        if let Some(flow) = world.view.flow(connection.identity) {
            counted[flow.target_index as usize].add(Activity::of(connection.state));
        }
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(
        world.table.embryonic(),
        embryonic,
        "embryonic after {after:?}"
    );
    for (target, counted) in snapshot.targets().iter().zip(counted) {
        let load = target.account.load();
        let server = target.server;
        assert_eq!(
            load.connections(),
            counted,
            "server {server} after {after:?}"
        );
    }
    for rule in snapshot.rules() {
        let Some(selector) = rule.selector() else {
            continue;
        };
        for (index, candidate) in (0..).zip(selector.candidates().all()) {
            let load = candidate.account.load();
            let terms = &candidate.terms;
            assert_eq!(
                selector.candidates().available().contains(index),
                !load.is_full(),
                "server {} after {after:?}",
                terms.id
            );
            assert_eq!(
                terms
                    .thresholds
                    .full(load.is_full(), load.connections().total()),
                load.is_full(),
                "threshold of server {} after {after:?}",
                terms.id
            );
        }
    }
}

fn process(world: &World, forwarder: &mut Forwarder, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let mut buf = vec![0; HEADROOM + frame.len() + 32];
    buf[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
    let mut packets = [Packet::new(&mut buf, HEADROOM, frame.len(), FRONT)];
    forwarder.process(&world.view, &mut packets, world.now);
    (packets[0].verdict, packets[0].frame().to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn workers_count_what_a_census_finds(steps in steps()) {
        let mut world = World::with_table(rules(), CAPACITY);
        let table = world.table.clone();
        let mut sweeper = table.sweeper();
        let mut workers = [Forwarder::new(0, table.clone()), Forwarder::new(1, table.clone())];
        let mut reached: Vec<Vec<u8>> = vec![];
        let mut removed_for_good = 0;
        for step in &steps {
            match *step {
                Step::Client { v4, worker, rule, client, port, udp, flags } => {
                    let family = if v4 { V4 } else { V6 };
                    let (from, to) = ((family.client(client), port), (family.vip(), 80 + rule));
                    let build = if udp { datagram(from, to) } else { segment(from, to, flags) };
                    let (verdict, out) = process(&world, &mut workers[worker as usize], &build.frame());
                    if verdict == Verdict::Transmit(BACK) && reached.len() < 64 {
                        reached.push(out);
                    }
                }
                Step::Server { which, flags } => {
                    let Some(packet) = reached.get(which % reached.len().max(1)) else { continue };
                    let (client, server) = ends(packet);
                    let tcp = segment(server, client, flags).frame();
                    process(&world, &mut workers[which % 2], &tcp);
                    process(&world, &mut workers[which % 2], &datagram(server, client).frame());
                }
                Step::Fragments { v4, client, swap } => {
                    let family = if v4 { V4 } else { V6 };
                    let whole = Build {
                        payload: vec![1; 64],
                        ..datagram((family.client(client), 4000), (family.vip(), 81))
                    };
                    let mut fragments = whole.fragments(7, 32);
                    if swap {
                        fragments.reverse();
                    }
                    for fragment in &fragments {
                        process(&world, &mut workers[0], fragment);
                    }
                }
                Step::Flood { from, udp } => {
                    for n in 0..2 * CAPACITY as u16 {
                        let [high, low] = from.wrapping_add(n).to_be_bytes();
                        let from = (std::net::IpAddr::from([198, 18, high, low]), 1024 + n);
                        let to = (V4.vip(), 80 + n % 8);
                        let build = if udp { datagram(from, to) } else { segment(from, to, SYN) };
                        process(&world, &mut workers[n as usize % 2], &build.frame());
                    }
                }
                Step::Time(seconds) => {
                    world.now += seconds;
                    census::take(&world.view, &mut sweeper, world.now);
                }
                Step::Servers { dead, disabled, quiesced, removed, orphans } => {
                    let mut rules = rules();
                    // Ids of servers that are gone are not given again.
                    removed_for_good |= removed & dead & disabled;
                    for rule in &mut rules {
                        rule.orphans = orphans;
                        rule.servers.retain(|server| removed_for_good >> (server.id % 100) & 1 == 0);
                        for server in &mut rule.servers {
                            let is = |bits: u8| bits >> (server.id % 100) & 1 == 1;
                            (server.dead, server.accepting) = (is(dead), !is(disabled));
                            server.weight = if is(quiesced) { 0 } else { 2 };
                        }
                    }
                    world.configure(rules);
                }
                Step::Local(local) => {
                    let network = match local {
                        true => network().with_local(FAMILIES.map(|family| family.server(2))),
                        false => network(),
                    };
                    world.view = View::new(world.view.snapshot.clone(), network.into());
                }
            }
            assert_counted(&world, step);
        }
        // Two censuses with nothing in between would correct whatever was wrong.
        let before: Vec<_> = world.view.snapshot.targets().iter().map(|t| t.account.load().connections()).collect();
        for _ in 0..2 {
            census::take(&world.view, &mut sweeper, world.now);
            assert_counted(&world, &Step::Time(0));
        }
        let swept: Vec<_> = world.view.snapshot.targets().iter().map(|t| t.account.connections().1).collect();
        let after: Vec<_> = world.view.snapshot.targets().iter().map(|t| t.account.load().connections()).collect();
        for ((before, after), total) in before.iter().zip(&after).zip(swept) {
            prop_assert!(after.total() <= before.total());
            prop_assert_eq!(after.total(), total, "what the census says to people, too");
        }
    }
}

#[test]
fn counts_are_right_after_many_workers_at_once() {
    const PACKETS: u32 = 60_000;
    let snapshot = SnapshotSpec {
        generation: 1,
        rules: rules(),
        ..SnapshotSpec::default()
    };
    let snapshot = Snapshot::compile(&snapshot, None, 3).unwrap();
    let mut world = World::with_table(vec![], 2048);
    world.view = View::new(snapshot.into(), network().into());
    let (view, table, now) = (&world.view, &world.table, world.now);
    let working = AtomicUsize::new(3);
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let working = &working;
            scope.spawn(move || {
                let mut forwarder = Forwarder::new(worker, table.clone());
                let mut random = worker as u64 + 1;
                for _ in 0..PACKETS {
                    random = random
                        .wrapping_mul(0x5851_f42d_4c95_7f2d)
                        .wrapping_add(0x1405_7b7e_f767_814f);
                    let pick = |shift: u32, n: u64| ((random >> shift) % n) as u8;
                    let family = FAMILIES[pick(63, 2) as usize];
                    let from = (family.client(1 + pick(20, 200)), 4000 + pick(30, 8) as u16);
                    let to = (family.vip(), 80 + pick(40, 8) as u16);
                    let flags = [SYN, SYN, ACK, FIN | ACK, RST, ACK][pick(50, 6) as usize];
                    let build = match pick(58, 4) {
                        0 => datagram(from, to),
                        _ => segment(from, to, flags),
                    };
                    let mut buf = vec![0; 256];
                    let frame = build.frame();
                    buf[HEADROOM..HEADROOM + frame.len()].copy_from_slice(&frame);
                    let mut packets = [Packet::new(&mut buf, HEADROOM, frame.len(), FRONT)];
                    forwarder.process(view, &mut packets, now);
                }
                working.fetch_sub(1, Ordering::Relaxed);
            });
        }
        // What is dead is given back meanwhile, but nothing is counted anew: a census would correct mistakes.
        let mut sweeper = table.sweeper();
        while working.load(Ordering::Relaxed) > 0 {
            sweeper.pass(|_| Sweep::Keep);
            std::thread::yield_now();
        }
    });
    assert!(world.table.used() > 500, "{} entries", world.table.used());
    assert_counted(&world, &Step::Time(0));
}
