//! Explanations are true: what is said is what the next packet meets, and saying it changes nothing.

mod common;

use std::net::IpAddr;

use common::*;
use ilb_forwarder::View;
use ilb_forwarder::counters::Account;
use ilb_forwarder::explain::{
    Explanation, Origin, Outcome, Query, QueryError, explain, explain_frame,
};
use ilb_forwarder::listing::End;
use ilb_forwarder::packet::tcp;
use ilb_forwarder::select::is_computed;
use ilb_forwarder::snapshot::Rule;
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
    counters.push(format!("{}", world.table.embryonic()));
    (entries, world.table.used(), counters)
}

fn numbers(account: &Account) -> String {
    let load = account.load();
    let live = (load.connections(), load.is_full(), load.changes());
    format!(
        "{:?} {:?} {live:?}",
        account.totals(),
        account.connections()
    )
}

/// Whether a choice may depend on a connection that the packet ends first: see the module's text.
fn depends_on_loads(world: &World, said: &Explanation) -> bool {
    let by_load = |rule: &Rule| {
        let recipe = rule.selector().map(|selector| selector.recipe());
        recipe.is_some_and(|recipe| {
            use Algorithm::*;
            let turn = matches!(recipe.algorithm, RoundRobin | WeightedRoundRobin | Failover);
            let fixed = turn || is_computed(recipe.algorithm);
            !fixed
                || recipe
                    .servers
                    .iter()
                    .any(|server| server.thresholds.max > 0)
        })
    };
    let (table, capacity) = (&world.table, world.table.capacity());
    let pressed = table.used() + 4 > capacity - capacity / 16 || table.embryonic() >= capacity / 2;
    let ends = said.entry.is_some() && said.origin != Origin::Known;
    (pressed || ends) && world.view.snapshot.rules().iter().any(by_load)
}

/// What `frame` meets is what its explanation says.
fn agree(world: &mut World, frame: &[u8]) -> Explanation {
    let before = state(world);
    let said = explain_frame(&world.view, &world.table, frame, FRONT, world.now);
    let again = explain_frame(&world.view, &world.table, frame, FRONT, world.now);
    assert_eq!(said, again, "asking changes the answer");
    assert!(before == state(world), "asking changes the state");
    let depends = depends_on_loads(world, &said);
    let (verdict, out) = world.send(frame);
    if depends {
        return said;
    }
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
        (None, Verdict::Kernel | Verdict::Drop(_) | Verdict::Hold { .. }) => {}
        (leaving, verdict) => panic!("{leaving:?}, but {verdict:?}"),
    }
    said
}

fn rules(family: Family, topology: Topology, algorithm: Algorithm) -> Vec<RuleSpec> {
    let mut tcp = rule(family, topology, algorithm, 3);
    if topology == Topology::Tun {
        tcp.proxy_src = vec![family.proxy(1), family.proxy(2)];
    }
    let mut udp = tcp.clone();
    udp.id = 2;
    udp.name = "dns".into();
    udp.vips[0].protocol = Protocol::Udp;
    vec![tcp, udp]
}

/// What may be special about both rules.
#[derive(Debug, Clone, Copy)]
struct Manner {
    persistent: bool,
    /// UDP under DSR or TUN.
    one_packet: bool,
    most: u32,
    new_flows: u32,
}

fn manners() -> impl Strategy<Value = Manner> {
    let numbers = (
        prop::sample::select(vec![0, 0, 1, 3]),
        prop::sample::select(vec![0, 0, 0, 2]),
    );
    (any::<(bool, bool)>(), numbers).prop_map(|((persistent, one_packet), (most, new_flows))| {
        Manner {
            persistent,
            one_packet,
            most,
            new_flows,
        }
    })
}

impl Manner {
    fn rules(self, family: Family, topology: Topology, algorithm: Algorithm) -> Vec<RuleSpec> {
        let mut rules = rules(family, topology, algorithm);
        rules[1].one_packet = self.one_packet && !topology.has_reverse();
        for rule in &mut rules {
            let mask = if family.v4 { 32 } else { 128 };
            rule.persistence = self.persistent.then_some(Persistence { mask, timeout: 30 });
            rule.new_flows_per_second = self.new_flows;
            for server in &mut rule.servers {
                server.max_connections = self.most;
            }
        }
        rules
    }
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
    /// A datagram in pieces, in this order.
    Fragments {
        n: u8,
        swap: bool,
    },
    Time(u32),
    Servers {
        accepting: u8,
        dead: u8,
        gone: bool,
        rule: bool,
        orphans: Orphans,
    },
    /// The second server is found to be this host, or not.
    Local(bool),
    LoseTable,
    /// More than the table holds.
    Flood(u16),
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
    let orphans = prop::sample::select(vec![Orphans::Reschedule, Orphans::Reset, Orphans::Drop]);
    let servers = (0u8..16, 0u8..16, any::<bool>(), any::<bool>(), orphans).prop_map(
        |(accepting, dead, gone, rule, orphans)| Step::Servers {
            accepting,
            dead,
            gone,
            rule,
            orphans,
        },
    );
    let step = prop_oneof![
        12 => client,
        4 => server,
        1 => (0u32..100).prop_map(Step::Time),
        1 => servers,
        1 => (1u8..4, any::<bool>()).prop_map(|(n, swap)| Step::Fragments { n, swap }),
        1 => any::<bool>().prop_map(Step::Local),
        1 => Just(Step::LoseTable),
        1 => any::<u16>().prop_map(Step::Flood),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(120) })]
    #[test]
    fn what_is_said_is_what_happens(
        steps in steps(),
        v4 in any::<bool>(),
        topology in prop::sample::select(vec![Topology::Dsr, Topology::HalfNat, Topology::Nat, Topology::Tun]),
        algorithm in prop::sample::select(vec![
            Algorithm::RoundRobin,
            Algorithm::WeightedRoundRobin,
            Algorithm::LeastConnection,
            Algorithm::NeverQueue,
            Algorithm::LocalityLeastConnectionReplication,
            Algorithm::Overflow,
            Algorithm::TwoChoices,
            Algorithm::Maglev,
            Algorithm::HashIp,
            Algorithm::HashIpPort,
            Algorithm::HashIpVip,
        ]),
        manner in manners(),
    ) {
        let family = if v4 { V4 } else { V6 };
        let mut world = World::with_table(manner.rules(family, topology, algorithm), 64);
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
                Step::Fragments { n, swap } => {
                    let whole = Build {
                        payload: vec![1; 64],
                        ..datagram((family.client(n), 4000), (family.vip(), 80))
                    };
                    let mut fragments = whole.fragments(world.now, 32);
                    if swap {
                        fragments.reverse();
                    }
                    for fragment in &fragments {
                        agree(&mut world, fragment);
                    }
                }
                Step::Servers { accepting, dead, gone, rule, orphans } => {
                    let mut rules = manner.rules(family, topology, algorithm);
                    for server in rules.iter_mut().flat_map(|rule| &mut rule.servers) {
                        server.accepting = accepting >> server.id & 1 == 1;
                        server.dead = dead >> server.id & 1 == 1;
                    }
                    for spec in &mut rules {
                        (spec.accepting, spec.orphans) = (rule, orphans);
                        if gone {
                            spec.servers.truncate(2);
                        }
                    }
                    world.configure(rules);
                }
                Step::Local(local) => {
                    let network = match local {
                        true => network().with_local([family.server(2)]),
                        false => network(),
                    };
                    world.view = View::new(world.view.snapshot.clone(), network.into());
                }
                Step::Flood(from) => {
                    for n in 0..80u16 {
                        let [high, low] = from.wrapping_add(n).to_be_bytes();
                        let client = match v4 {
                            true => IpAddr::from([198, 18, high, low]),
                            false => IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, from.wrapping_add(n)]),
                        };
                        let frame = syn((client, 4000), (family.vip(), 80));
                        match n % 16 {
                            0 => drop(agree(&mut world, &frame)),
                            _ => drop(world.send(&frame)),
                        }
                    }
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

#[test]
fn what_is_special_about_a_rule_is_said() {
    for family in FAMILIES {
        let (client, vip) = ((family.client(1), 4000), (family.vip(), 80));
        let mask = if family.v4 { 32 } else { 128 };
        let specs = |change: &dyn Fn(&mut RuleSpec)| {
            let mut specs = rules(family, Topology::Tun, Algorithm::RoundRobin);
            specs[0].persistence = Some(Persistence { mask, timeout: 30 });
            change(&mut specs[0]);
            specs
        };
        let mut world = World::new(specs(&|_| {}));
        // Through the tunnel: what leaves is the outer packet.
        let begins = ask(&world, client, vip, tcp::SYN);
        let leaving = begins.leaving.unwrap();
        assert_eq!(leaving.protocol, if family.v4 { 4 } else { 41 });
        assert_eq!(leaving.destination, end(family.server(1), 0));
        assert_eq!(begins.claim, None);
        world.pass(&syn(client, vip), BACK);
        world.pass(&ack(client, vip), BACK);

        // The next connection has the claim's server, although it is full and the turn is another's.
        world.configure(specs(&|rule| rule.servers[0].max_connections = 1));
        let again = ask(&world, (client.0, 4001), vip, tcp::SYN);
        assert_eq!(again.server.unwrap().id, 1);
        let claim = again.claim.unwrap();
        assert_eq!((claim.server, claim.remaining), (1, Some(30)));
        let full = Some("it has as many connections as it may".to_string());
        let obstacles: Vec<_> = again.servers.into_iter().map(|s| s.obstacle).collect();
        assert_eq!(obstacles, [full, None, None]);

        // An orphan stays with its rule, which takes nobody new.
        world.configure(specs(&|rule| {
            rule.accepting = false;
            rule.servers[0].dead = true;
        }));
        let moved = ask(&world, client, vip, tcp::ACK);
        assert_eq!((moved.origin, moved.rule.unwrap().id), (Origin::Begins, 1));
        assert_ne!(moved.server.unwrap().id, 1);
        assert_eq!(moved.entry.unwrap().server, 1);
        world.configure(specs(&|rule| {
            rule.orphans = Orphans::Drop;
            rule.servers[0].dead = true;
        }));
        let dropped = ask(&world, client, vip, tcp::ACK);
        assert_eq!(
            (dropped.origin, dropped.rule.unwrap().id),
            (Origin::None, 1)
        );
        assert!(matches!(dropped.outcome, Outcome::Drop { reason, .. } if reason == "orphaned"));

        // A port that is used again, towards the only server.
        world.configure(specs(&|rule| rule.servers.truncate(1)));
        world.pass(&segment(client, vip, tcp::FIN | tcp::ACK).frame(), BACK);
        assert_eq!(ask(&world, client, vip, tcp::ACK).origin, Origin::Known);
        assert_eq!(ask(&world, client, vip, tcp::SYN).origin, Origin::Begins);

        let pieces = datagram(client, vip).fragments(9, 8);
        let later = explain_frame(&world.view, &world.table, &pieces[1], FRONT, world.now);
        assert_eq!(later.outcome, Outcome::Hold);
    }
}
