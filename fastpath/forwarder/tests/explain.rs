//! Explanations are true: what is said is what the next packet meets, and saying it changes nothing.

mod common;

use std::net::IpAddr;

use common::*;
use ilb_forwarder::counters::Account;
use ilb_forwarder::explain::{
    Explanation, Origin, Outcome, Query, QueryError, explain, explain_frame,
};
use ilb_forwarder::listing::End;
use ilb_forwarder::packet::tcp;
use ilb_forwarder::spec::*;
use ilb_forwarder::table::Connection;
use ilb_forwarder::verdict::Verdict;
use proptest::prelude::*;

fn end(address: IpAddr, port: u16) -> End {
    End { address, port }
}

/// Everything that an explanation might have changed.
fn state(world: &World) -> (Vec<(u32, Connection)>, u32, Vec<String>) {
    let mut entries = vec![];
    world.table.each(|index, connection| {
        entries.push((index, *connection));
        std::ops::ControlFlow::Continue(())
    });
    let snapshot = &world.view.snapshot;
    let mut counters: Vec<String> = snapshot
        .rules()
        .iter()
        .map(|rule| {
            format!(
                "{} {:?}",
                numbers(&rule.account),
                rule.pool.versions().first().and_then(|v| v.export(rule.id))
            )
        })
        .collect();
    counters.extend(
        snapshot
            .targets()
            .iter()
            .map(|target| numbers(&target.account)),
    );
    (entries, world.table.used(), counters)
}

fn numbers(account: &Account) -> String {
    format!("{:?} {:?}", account.totals(), account.connections())
}

/// What `frame` meets is what its explanation says.
fn agree(world: &mut World, frame: &[u8]) -> Explanation {
    let before = state(world);
    let said = explain_frame(&world.view, &world.table, frame, FRONT, world.now);
    let again = explain_frame(&world.view, &world.table, frame, FRONT, world.now);
    assert_eq!(said, again, "asking changes the answer");
    assert!(before == state(world), "asking changes the state");
    let (verdict, out) = world.send(frame);
    assert_eq!(said.outcome, Outcome::from(verdict));
    match (&said.leaving, verdict) {
        (Some(leaving), Verdict::Transmit(port) | Verdict::Unresolved { port, .. }) => {
            let (source, destination) = ends(&out);
            assert_eq!((leaving.source.address, leaving.source.port), source);
            assert_eq!(
                (leaving.destination.address, leaving.destination.port),
                destination
            );
            assert_eq!(leaving.interface, port);
            if verdict == Verdict::Transmit(port) {
                assert_eq!(leaving.neighbour.unwrap(), out[..6]);
            }
        }
        (None, Verdict::Kernel | Verdict::Drop(_)) => {}
        (leaving, verdict) => panic!("{leaving:?}, but {verdict:?}"),
    }
    said
}

fn rules(family: Family, topology: Topology, algorithm: Algorithm) -> Vec<RuleSpec> {
    let mut udp = rule(family, topology, algorithm, 3);
    udp.id = 2;
    udp.name = "dns".into();
    udp.vips[0].protocol = Protocol::Udp;
    vec![rule(family, topology, algorithm, 3), udp]
}

#[derive(Debug, Clone)]
enum Step {
    Client {
        n: u8,
        port: u16,
        dport: u16,
        flags: u8,
        udp: bool,
        ttl: u8,
    },
    Server {
        n: u8,
        back_to: u16,
        flags: u8,
    },
    Time(u32),
    Servers(u8),
    LoseTable,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = prop::sample::select(vec![
        tcp::SYN,
        tcp::ACK,
        tcp::ACK,
        tcp::FIN | tcp::ACK,
        tcp::RST,
        tcp::SYN | tcp::ACK,
        0,
    ]);
    let client = (
        1u8..4,
        4000u16..4003,
        80u16..82,
        flags.clone(),
        any::<bool>(),
        1u8..65,
    )
        .prop_map(|(n, port, dport, flags, udp, ttl)| Step::Client {
            n,
            port,
            dport,
            flags,
            udp,
            ttl,
        });
    let server = (0u8..4, any::<u16>(), flags).prop_map(|(n, back_to, flags)| Step::Server {
        n,
        back_to,
        flags,
    });
    let step = prop_oneof![
        12 => client,
        4 => server,
        1 => (0u32..100).prop_map(Step::Time),
        1 => (0u8..16).prop_map(Step::Servers),
        1 => Just(Step::LoseTable),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(120) })]
    #[test]
    fn what_is_said_is_what_happens(
        steps in steps(),
        v4 in any::<bool>(),
        topology in prop::sample::select(vec![Topology::Dsr, Topology::HalfNat, Topology::Nat]),
        algorithm in prop::sample::select(vec![
            Algorithm::RoundRobin,
            Algorithm::WeightedRoundRobin,
            Algorithm::LeastConnection,
            Algorithm::HashIp,
            Algorithm::HashIpPort,
            Algorithm::HashIpVip,
        ]),
    ) {
        let family = if v4 { V4 } else { V6 };
        let mut world = World::with_table(rules(family, topology, algorithm), 64);
        let mut seen = vec![];
        for step in steps {
            match step {
                Step::Client { n, port, dport, flags, udp, ttl } => {
                    let (from, to) = ((family.client(n), port), (family.vip(), dport));
                    let build = if udp { datagram(from, to) } else { segment(from, to, flags) };
                    let frame = Build { ttl, ..build }.frame();
                    let said = agree(&mut world, &frame);
                    seen.extend(said.leaving.map(|leaving| leaving.source));
                }
                Step::Server { n, back_to, flags } => {
                    let Some(&to) = seen.get(back_to as usize % seen.len().max(1)) else { continue };
                    let frame = segment((family.server(n.max(1)), 80), (to.address, to.port), flags).frame();
                    agree(&mut world, &frame);
                }
                Step::Time(seconds) => {
                    world.now += seconds;
                    let mut sweeper = world.table.sweeper();
                    ilb_forwarder::census::take(&world.view, &mut sweeper, world.now);
                }
                Step::Servers(present) => {
                    let mut rules = rules(family, topology, algorithm);
                    for server in rules.iter_mut().flat_map(|rule| &mut rule.servers) {
                        server.accepting = present >> server.id & 1 == 1;
                    }
                    if present & 1 == 1 {
                        rules.iter_mut().for_each(|rule| rule.servers.truncate(2));
                    }
                    world.configure(rules);
                }
                Step::LoseTable => {
                    world.table = std::sync::Arc::new(ilb_forwarder::Table::private(64, KEYS).unwrap());
                    world.forwarder = ilb_forwarder::Forwarder::new(0, world.table.clone());
                }
            }
        }
    }
}

fn ask(world: &World, source: (IpAddr, u16), destination: (IpAddr, u16), flags: u8) -> Explanation {
    let query = Query {
        source: end(source.0, source.1),
        destination: end(destination.0, destination.1),
        tcp_flags: flags,
        ..Query::default()
    };
    explain(&world.view, &world.table, &query, world.now).unwrap()
}

#[test]
fn the_life_of_a_connection_explained() {
    for family in FAMILIES {
        let mut specs = rules(family, Topology::Nat, Algorithm::RoundRobin);
        specs[0].servers[0].accepting = false;
        specs[0].servers[1].dead = true;
        let mut world = World::new(specs);
        let (client, vip) = ((family.client(1), 4000), (family.vip(), 80));
        let begins = ask(&world, client, vip, tcp::SYN);
        assert_eq!(begins.origin, Origin::Begins);
        assert_eq!(begins.rule.as_ref().unwrap().name, "web");
        assert_eq!(
            begins.rule.as_ref().unwrap().algorithm,
            Some(Algorithm::RoundRobin)
        );
        let obstacles: Vec<_> = begins
            .servers
            .iter()
            .map(|s| s.obstacle.as_deref())
            .collect();
        assert_eq!(
            obstacles,
            [
                Some("disabled or removed"),
                Some("it does not answer"),
                None
            ]
        );
        assert_eq!(
            begins.server.as_ref().unwrap().end,
            end(family.server(3), 80)
        );
        assert_eq!(begins.outcome, Outcome::Transmit);
        let leaving = begins.leaving.unwrap();
        assert_eq!(leaving.destination, end(family.server(3), 80));
        assert_eq!(leaving.neighbour, Some([4, 0, 0, 0, 2, 3]));

        let out = world.pass(&syn(client, vip), BACK);
        assert_eq!(ends(&out).0, (leaving.source.address, leaving.source.port));
        world.now += 3;
        let known = ask(&world, client, vip, tcp::ACK);
        assert_eq!((known.origin, known.from_server), (Origin::Known, false));
        let entry = known.entry.unwrap();
        assert_eq!(
            (entry.state.as_str(), entry.idle, entry.server),
            ("syn-received", 3, 3)
        );
        assert!(known.servers.is_empty() && known.misses.is_empty());

        let back = ask(
            &world,
            (family.server(3), 80),
            (leaving.source.address, leaving.source.port),
            tcp::SYN | tcp::ACK,
        );
        assert_eq!((back.origin, back.from_server), (Origin::Known, true));
        assert_eq!(back.leaving.unwrap().source, end(family.vip(), 80));

        let stray = ask(&world, (family.client(2), 1), vip, tcp::ACK);
        assert_eq!(stray.origin, Origin::None);
        assert!(
            matches!(&stray.outcome, Outcome::Drop { reason, .. } if reason == "no-connection")
        );

        let missed = ask(&world, client, (family.vip(), 81), tcp::SYN);
        assert_eq!((missed.outcome, missed.rule), (Outcome::Kernel, None));
        let nearest = &missed.misses[0];
        assert_eq!(
            (nearest.name.as_str(), nearest.obstacles.as_slice()),
            ("web", &["another port".to_string()][..])
        );
        assert_eq!(missed.misses[1].obstacles.len(), 2);

        let json = serde_json::to_string(&known.server).unwrap();
        assert!(json.contains("_web.2"), "{json}");
    }
}

#[test]
fn a_recovered_connection_and_a_packet_that_is_too_big() {
    let mut world = World::new(rules(V4, Topology::Dsr, Algorithm::RoundRobin));
    let (client, vip) = ((V4.client(1), 4000), (V4.vip(), 80));
    world.pass(&syn(client, vip), BACK);
    world.pass(&ack(client, vip), BACK);
    world.table = std::sync::Arc::new(ilb_forwarder::Table::private(64, KEYS).unwrap());
    world.forwarder = ilb_forwarder::Forwarder::new(0, world.table.clone());
    let said = ask(&world, client, vip, tcp::ACK);
    assert_eq!(said.origin, Origin::Recovered);
    assert_eq!(said.server.unwrap().id, 1);
    assert_eq!(world.table.used(), 0);
    let whole = serde_json::to_string(&ask(&world, client, vip, tcp::ACK)).unwrap();
    assert_eq!(
        serde_json::from_str::<Explanation>(&whole).unwrap(),
        ask(&world, client, vip, tcp::ACK)
    );

    let query = |length| Query {
        source: end(client.0, client.1),
        destination: end(vip.0, vip.1),
        length,
        ..Query::default()
    };
    let outcome = |length| {
        explain(&world.view, &world.table, &query(length), 1000)
            .unwrap()
            .outcome
    };
    assert_eq!(outcome(1500), Outcome::Transmit);
    assert_ne!(outcome(1501), Outcome::Transmit);

    let mixed = Query {
        destination: end(V6.vip(), 80),
        ..query(0)
    };
    assert_eq!(
        explain(&world.view, &world.table, &mixed, 1000),
        Err(QueryError::Family(client.0, V6.vip()))
    );
}
