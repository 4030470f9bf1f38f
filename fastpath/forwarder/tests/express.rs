//! The express path against the general one: the same packets through two forwarders, one of which has no express path.
//! Verdicts, frames and counters must be the same, whatever comes.

mod common;

use common::*;
use ilb_forwarder::network::{Network, Route};
use ilb_forwarder::packet::tcp;
use ilb_forwarder::spec::*;
use ilb_forwarder::verdict::Verdict;
use ilb_forwarder::{Snapshot, View, census};
use proptest::prelude::*;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// A client sends.
    Client {
        family: bool,
        rule: u8,
        client: u8,
        flags: u8,
        size: usize,
        ttl: u8,
    },
    /// A server answers the packet that last reached it.
    Server { which: u8, flags: u8, size: usize },
    /// As before, with one bit of the frame turned over.
    Spoilt { which: u8, bit: usize },
    /// Time goes by, and the census is taken.
    Time(u32),
    /// Servers of every rule go, die, are quiesced or come back.
    Servers(Fortune),
    /// The neighbours are forgotten or known again, or the second server is found to be this host.
    Neighbours(u8),
}

/// What has become of the servers of every rule.
#[derive(Debug, Clone, Copy)]
struct Fortune {
    /// How many there are.
    present: u8,
    /// Bit n: server n is dead.
    dead: u8,
    /// Bit n: server n takes no new connections.
    quiesced: u8,
    orphans: Orphans,
}

const WELL: Fortune = Fortune {
    present: 3,
    dead: 0,
    quiesced: 0,
    orphans: Orphans::Reschedule,
};

fn fortunes() -> impl Strategy<Value = Fortune> {
    let orphans = prop_oneof![
        Just(Orphans::Reschedule),
        Just(Orphans::Reset),
        Just(Orphans::Drop)
    ];
    (1u8..4, 0u8..8, 0u8..8, orphans).prop_map(|(present, dead, quiesced, orphans)| Fortune {
        present,
        dead: dead << 1,
        quiesced: quiesced << 1,
        orphans,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = prop_oneof![
        4 => Just(tcp::ACK),
        2 => Just(tcp::SYN),
        1 => Just(tcp::ACK | tcp::FIN),
        1 => Just(tcp::RST),
        1 => Just(tcp::SYN | tcp::ACK),
    ];
    let size = prop_oneof![0usize..40, Just(1452), 1400usize..1500];
    let client = (
        any::<bool>(),
        0u8..10,
        1u8..6,
        flags.clone(),
        size.clone(),
        1u8..5,
    )
        .prop_map(|(family, rule, client, flags, size, ttl)| Step::Client {
            family,
            rule,
            client,
            flags,
            size,
            ttl,
        });
    let server = (any::<u8>(), flags, size).prop_map(|(which, flags, size)| Step::Server {
        which,
        flags,
        size,
    });
    let spoilt = (any::<u8>(), 0usize..640).prop_map(|(which, bit)| Step::Spoilt { which, bit });
    let step = prop_oneof![
        20 => client,
        10 => server,
        5 => spoilt,
        2 => (0u32..100).prop_map(Step::Time),
        1 => fortunes().prop_map(Step::Servers),
        1 => Just(Step::Servers(WELL)),
        1 => (0u8..3).prop_map(Step::Neighbours),
    ];
    proptest::collection::vec(step, 1..200)
}

const TOPOLOGIES: [Topology; 4] = [
    Topology::Dsr,
    Topology::HalfNat,
    Topology::Nat,
    Topology::Tun,
];

/// Nine rules a family: TCP and UDP of each topology, of which every other one is persistent and has times of its own,
/// and one for all other ports.
fn rules(fortune: Fortune) -> Vec<RuleSpec> {
    let mut rules = vec![];
    for family in FAMILIES {
        for (n, topology) in TOPOLOGIES.into_iter().enumerate() {
            for (m, protocol) in [Protocol::Tcp, Protocol::Udp].into_iter().enumerate() {
                let mut rule = rule(family, topology, Algorithm::RoundRobin, fortune.present);
                rule.id = rules.len() as u32 + 1;
                if topology == Topology::Tun {
                    rule.proxy_src = vec![family.proxy(1), family.proxy(2)];
                }
                if (n + m) % 2 == 1 {
                    let mask = if family.v4 { 31 } else { 127 };
                    rule.persistence = Some(Persistence { mask, timeout: 50 });
                    rule.timeouts.tcp_established = 70;
                    rule.timeouts.udp = 20;
                }
                rule.vips[0].protocol = protocol;
                rule.vips[0].ports = PortRange {
                    first: 80 + n as u16 * 10,
                    last: 84 + n as u16 * 10,
                };
                if topology.has_reverse() && m == 1 {
                    rule.servers[0].ports = PortMap::Shift(5000 + n as u16 * 10);
                }
                rules.push(rule);
            }
        }
        // Ports that no VIP names stay as they are, whatever the server's are.
        let mut rest = rule(
            family,
            Topology::HalfNat,
            Algorithm::RoundRobin,
            fortune.present,
        );
        rest.id = rules.len() as u32 + 1;
        rest.vips[0].protocol = Protocol::Any;
        rest.vips[0].ports = PortRange::ANY;
        rest.servers[0].ports = PortMap::Collapse(9000);
        rules.push(rest);
    }
    for rule in &mut rules {
        rule.orphans = fortune.orphans;
        for server in &mut rule.servers {
            server.dead = fortune.dead >> server.id & 1 == 1;
            server.weight = 1 - (fortune.quiesced >> server.id & 1) as u16;
        }
    }
    rules
}

fn pair() -> [World; 2] {
    let mut worlds = [World::new(rules(WELL)), World::new(rules(WELL))];
    worlds[1].forwarder.set_express(false);
    worlds
}

fn without_neighbours() -> Network {
    let interface = |n| ilb_forwarder::network::Interface {
        mac: [2, 0, 0, 0, 0, n],
        mtu: 1500,
    };
    let route = |prefix: &str, len, port| Route {
        prefix: ip(prefix),
        len,
        metric: 0,
        hops: vec![ilb_forwarder::network::Hop {
            port: Some(port),
            via: None,
        }],
    };
    let routes = vec![
        route("10.1.0.0", 24, FRONT),
        route("10.2.0.0", 24, BACK),
        route("fd01::", 64, FRONT),
        route("fd02::", 64, BACK),
    ];
    Network::new(vec![interface(FRONT), interface(BACK)], routes, vec![])
}

fn client_frame(family: Family, rule: u8, client: u8, flags: u8, size: usize, ttl: u8) -> Vec<u8> {
    let from = (family.client(client), 4000 + client as u16);
    let to = (
        family.vip(),
        80 + (rule / 2) as u16 * 10 + (client % 5) as u16,
    );
    let built = match rule % 2 {
        0 => segment(from, to, flags),
        _ => datagram(from, to),
    };
    Build {
        payload: vec![7; size],
        ttl,
        ..built
    }
    .frame()
}

/// The answer of a server to a packet that reached it.
fn answer(reached: &[u8], flags: u8, size: usize) -> Vec<u8> {
    let (client, server) = ends(reached);
    let udp = matches!(
        (reached[12], reached[23], reached[20]),
        (8, 17, _) | (0x86, _, 17)
    );
    let built = match udp {
        true => datagram(server, client),
        false => segment(server, client, flags),
    };
    Build {
        payload: vec![9; size],
        ..built
    }
    .frame()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn both_paths_do_the_same(steps in steps()) {
        let [mut fast, mut slow] = pair();
        let mut reached: Vec<Vec<u8>> = vec![];
        let mut present = 3;
        for step in steps {
            let pick = |which: u8| reached.get(which as usize % reached.len().max(1)).cloned();
            let frame = match step {
                Step::Client { family, rule, client, flags, size, ttl } => {
                    let family = if family { V4 } else { V6 };
                    client_frame(family, rule, client, flags, size, ttl)
                }
                Step::Server { which, flags, size } => match pick(which) {
                    Some(packet) => answer(&packet, flags, size),
                    None => continue,
                },
                Step::Spoilt { which, bit } => match pick(which) {
                    Some(packet) => {
                        let mut frame = answer(&packet, tcp::ACK, 10);
                        let at = bit / 8 % frame.len();
                        frame[at] ^= 1 << (bit % 8);
                        frame
                    }
                    None => continue,
                },
                Step::Time(seconds) => {
                    for world in [&mut fast, &mut slow] {
                        world.now += seconds;
                        census::take(&world.view, &mut world.table.sweeper(), world.now);
                    }
                    continue;
                }
                Step::Servers(mut fortune) => {
                    // Ids of servers that are gone are not given again.
                    present = fortune.present.min(present);
                    fortune.present = present;
                    fast.configure(rules(fortune));
                    slow.configure(rules(fortune));
                    continue;
                }
                Step::Neighbours(known) => {
                    for world in [&mut fast, &mut slow] {
                        let network = match known {
                            0 => network(),
                            1 => without_neighbours(),
                            _ => network().with_local(FAMILIES.map(|family| family.server(2))),
                        };
                        world.view = View::new(world.view.snapshot.clone(), network.into());
                    }
                    continue;
                }
            };
            let (verdict, out) = fast.send(&frame);
            prop_assert_eq!((verdict, &out), { let (v, o) = slow.send(&frame); (v, &o.clone()) });
            if verdict == Verdict::Transmit(BACK) && reached.len() < 256 {
                reached.push(out);
            }
            let totals = |snapshot: &Snapshot| -> Vec<_> {
                snapshot.targets().iter().map(|target| target.account.totals()).collect()
            };
            prop_assert_eq!(totals(&fast.view.snapshot), totals(&slow.view.snapshot));
        }
        let mut entries = [vec![], vec![]];
        for (world, entries) in [&fast, &slow].into_iter().zip(&mut entries) {
            world.table.each(|_, connection| {
                entries.push(*connection);
                std::ops::ControlFlow::Continue(())
            });
        }
        prop_assert_eq!(&entries[0], &entries[1], "states and times are the same, too");
        let [a, b] = [&fast, &slow].map(|world| world.forwarder.counters());
        prop_assert_eq!((a.packets.get(), a.bytes.get(), a.transmitted.get()), (b.packets.get(), b.bytes.get(), b.transmitted.get()));
    }
}

#[test]
fn a_frame_to_a_group_is_not_forwarded_however_well_its_packet_is_known() {
    for family in FAMILIES {
        for mut world in pair() {
            let from = (family.client(1), 4001);
            let to = (family.vip(), 91);
            world.pass(&syn(from, to), BACK);
            world.pass(&ack(from, to), BACK);
            let there = world.pass(&ack(from, to), BACK);
            let back = answer(&there, tcp::ACK, 10);
            world.pass(&back, FRONT);
            for mut frame in [ack(from, to), back] {
                frame[0] |= 1;
                let (verdict, out) = world.send(&frame);
                assert_eq!(verdict, Verdict::Kernel, "{family:?}");
                assert_eq!(out, frame, "and it is as it was");
            }
        }
    }
}

#[test]
fn flowing_packets_do_take_the_express_path() {
    // Otherwise the test above would hold one path against itself.
    for family in FAMILIES {
        let [mut world, _] = pair();
        let from = (family.client(1), 4001);
        let to = (family.vip(), 101);
        world.pass(&syn(from, to), BACK);
        world.pass(&ack(from, to), BACK);
        let before = world.forwarder.express_packets();
        for n in 1..=100 {
            world.pass(&ack(from, to), BACK);
            assert_eq!(world.forwarder.express_packets(), before + n, "{family:?}");
        }
    }
}
