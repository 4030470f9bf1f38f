//! Connections of one node come into the table of another, whose rules and servers have other numbers, and go on there.

mod common;

use std::sync::Arc;

use common::*;
use ilb_forwarder::changes::{Change, Changes, Ended};
use ilb_forwarder::nat::Share;
use ilb_forwarder::packet::tcp;
use ilb_forwarder::peer::{self, Known, Outcome, Places, VISITOR};
use ilb_forwarder::spec::*;
use ilb_forwarder::table::{Connection, State};
use ilb_forwarder::verdict::Verdict;

/// What a rule is on the other node: other numbers, and other servers that are not there here.
fn elsewhere(mut rule: RuleSpec) -> RuleSpec {
    rule.id += 70;
    for server in &mut rule.servers {
        server.id = 900 - server.id;
        server.name = format!("_other.{}", server.id);
    }
    rule.servers.reverse();
    rule
}

/// A node, with what its workers tell.
struct Node {
    world: World,
    changes: Arc<Changes>,
    places: Places,
}

impl Node {
    fn new(rules: Vec<RuleSpec>) -> Node {
        let mut world = World::new(rules);
        let changes = Arc::new(Changes::new(1));
        changes.switch(true);
        world.forwarder.set_changes(Arc::clone(&changes));
        Node {
            places: Places::of(&world.view.snapshot),
            world,
            changes,
        }
    }

    fn changes(&self) -> Vec<Change> {
        let mut all = Vec::new();
        assert!(!self.changes.take(|change| all.push(change)));
        all
    }

    /// Everything that is to be told.
    fn told(&self) -> Vec<Connection> {
        let table = &self.world.table;
        (0..table.high_water())
            .filter_map(|entry| peer::telling(table, entry))
            .collect()
    }

    fn known(&self, from: &Node, connection: &Connection) -> Option<Known> {
        let identity = &connection.identity;
        let hash = from.places.hash(identity.rule, identity.server)?;
        let rule = from.world.view.snapshot.rule_by_id(identity.rule)?;
        let nat = rule.topology == Topology::Nat;
        Some(Known {
            ids: self.places.ids(hash)?,
            client: identity.client.into(),
            client_port: identity.client_port,
            vip_port: identity.vip_port,
            vip_index: identity.vip_index,
            protocol: identity.protocol,
            nat: nat.then_some((identity.nat_port, identity.nat_index)),
        })
    }

    fn visit<T>(&self, work: impl FnOnce(&World) -> T) -> T {
        self.world.table.enter(VISITOR);
        let outcome = work(&self.world);
        self.world.table.quiesce(VISITOR);
        outcome
    }

    fn enter(&self, known: &Known, state: State, idle: u32) -> Outcome {
        self.visit(|it| peer::enter(&it.view, &it.table, known.identity(), state, idle, it.now))
    }

    /// Takes over what the other node has.
    fn take(&self, from: &Node) -> Vec<Outcome> {
        let take = |connection: &Connection| {
            let known = self
                .known(from, connection)
                .expect("the place is known here");
            let idle = connection.idle(from.world.now);
            if !connection.state.is_claim() {
                return self.enter(&known, connection.state, idle);
            }
            let Known { ids, client, .. } = known;
            let index = connection.identity.nat_index;
            self.visit(|it| {
                let client = client.into();
                peer::claim(
                    &it.view, &it.table, ids.0, client, ids.1, index, idle, it.now,
                )
            })
        };
        from.told().iter().map(take).collect()
    }
}

const TOPOLOGIES: [Topology; 4] = [
    Topology::Dsr,
    Topology::HalfNat,
    Topology::Nat,
    Topology::Tun,
];

fn rules(family: Family, topology: Topology) -> Vec<RuleSpec> {
    let mut web = rule(family, topology, Algorithm::RoundRobin, 3);
    if topology == Topology::Tun {
        web.proxy_src = vec![family.proxy(1)];
    }
    let mut dns = web.clone();
    dns.id = 2;
    dns.name = "dns".into();
    dns.vips[0].protocol = Protocol::Udp;
    vec![web, dns]
}

fn pair(rules: Vec<RuleSpec>) -> [Node; 2] {
    let others = rules.iter().cloned().map(elsewhere).collect();
    [Node::new(rules), Node::new(others)]
}

#[test]
fn connections_go_on_at_the_other_node_with_their_servers() {
    for (family, topology) in FAMILIES.iter().flat_map(|f| TOPOLOGIES.map(|t| (*f, t))) {
        let what = format!("{family:?} {topology:?}");
        let [mut a, mut b] = pair(rules(family, topology));
        let vip = (family.vip(), 80);
        let mut frames = Vec::new();
        for n in 1..=20 {
            let client = (family.client(n), 4000);
            let last = match n % 2 {
                0 => {
                    a.world.send(&syn(client, vip));
                    ack(client, vip)
                }
                _ => {
                    a.world.send(&datagram(client, vip).frame());
                    datagram(client, vip).frame()
                }
            };
            a.world.send(&last);
            frames.push(last);
        }
        // Half open ones are not told of.
        a.world.send(&syn((family.client(30), 1), vip));
        assert_eq!((a.changes().len(), a.told().len()), (20, 20), "{what}");
        b.world.now = 77_777;
        assert_eq!(b.take(&a), [Outcome::Entered; 20], "{what}");
        assert_eq!(b.take(&a), [Outcome::Changed; 20], "{what}");
        assert_eq!(b.changes(), [], "what the peer says is no news to it");
        for frame in &frames {
            let there = a.world.send(frame);
            assert!(matches!(there.0, Verdict::Transmit(_)), "{what}");
            assert_eq!(b.world.send(frame), there, "{what}");
            if matches!(topology, Topology::HalfNat | Topology::Nat) {
                let (client, server) = ends(&there.1);
                let tcp = headers(frame).tuple.protocol == 6;
                let back = match tcp {
                    true => ack(server, client),
                    false => datagram(server, client).frame(),
                };
                assert_eq!(b.world.send_by(&back, BACK), a.world.send_by(&back, BACK));
            }
        }
        assert_eq!(b.world.table.used(), 20, "{what}: nothing was begun");
        let loads = b.world.view.snapshot.targets().iter();
        let loads: u32 = loads
            .map(|it| it.account.load().connections().total())
            .sum();
        assert_eq!(loads, 20, "{what}: and all are counted");
    }
}

#[test]
fn what_was_seen_here_later_is_kept_and_what_came_from_the_peer_gives_way() {
    let [mut a, mut b] = pair(rules(V4, Topology::Nat));
    let (client, vip) = ((V4.client(1), 4000), (V4.vip(), 80));
    a.world.send(&syn(client, vip));
    a.world.send(&ack(client, vip));
    let connection = a.told()[0];
    let known = b.known(&a, &connection).unwrap();
    assert_eq!(b.enter(&known, State::Established, 5), Outcome::Entered);
    // Another server, another port: the peer has begun anew.
    let other = Known {
        ids: (known.ids.0, if known.ids.1 == 899 { 898 } else { 899 }),
        nat: Some((2000, 1)),
        ..known
    };
    assert_eq!(b.enter(&other, State::Established, 3), Outcome::Entered);
    assert_eq!(b.told().len(), 1);
    assert_eq!(b.told()[0].identity.nat_port, 2000);
    assert_eq!(
        b.enter(&known, State::Established, 30),
        Outcome::Kept,
        "older"
    );
    // Another client with the same port towards the same server: the old one is over there.
    let neighbour = Known {
        client: V4.client(2),
        ..other
    };
    assert_eq!(b.enter(&neighbour, State::Established, 0), Outcome::Entered);
    assert_eq!(b.told().len(), 1);
    // From its first packet on it is ours.
    let packet = ack((V4.client(2), 4000), vip);
    let (_, sent) = b.world.send(&packet);
    assert_eq!(ends(&sent).0.1, 2000);
    for (of, outcome) in [(&neighbour, Outcome::Kept), (&other, Outcome::InTheWay)] {
        assert_eq!(b.enter(of, State::Established, 0), outcome);
    }
    let leave =
        |b: &Node, of: &Known| b.visit(|it| peer::leave(&it.view, &it.table, &of.identity()));
    assert_eq!(leave(&b, &neighbour), Outcome::Kept);
    assert_eq!(b.enter(&known, State::TimeWait, 0), Outcome::Entered);
    assert_eq!(leave(&b, &known), Outcome::Left);
    assert_eq!(leave(&b, &known), Outcome::Kept, "there is none");
    // It has gone back to the peer: what is later there counts again.
    b.world.now += 10;
    assert_eq!(b.enter(&neighbour, State::TimeWait, 2), Outcome::Changed);
    assert_eq!(b.told()[0].state, State::TimeWait);
    assert_eq!(b.world.send(&packet).1, sent, "and goes on forwarding");
}

#[test]
fn what_does_not_fit_the_configuration_changes_nothing() {
    let [a, b] = pair(rules(V4, Topology::Nat));
    let place = |rule, server| b.places.ids(a.places.hash(rule, server).unwrap()).unwrap();
    let good = Known {
        ids: place(1, 2),
        client: V4.client(1),
        client_port: 1,
        vip_port: 80,
        vip_index: 0,
        protocol: 6,
        nat: Some((1024, 1)),
    };
    #[rustfmt::skip]
    let table: [(&str, Known, State); 10] = [
        ("no such VIP", Known { vip_index: 1, ..good }, State::Established),
        ("not its port", Known { vip_port: 81, ..good }, State::Established),
        ("not its protocol", Known { protocol: 17, ..good }, State::Flowing),
        ("a claim's protocol", Known { protocol: 0, ..good }, State::Established),
        ("no source address", Known { nat: Some((1024, 2)), ..good }, State::Established),
        ("no source port", Known { nat: Some((0, 1)), ..good }, State::Established),
        ("no source", Known { nat: None, ..good }, State::Established),
        ("a client of another family", Known { client: V6.client(1), ..good }, State::Established),
        ("TCP that has no state", good, State::Flowing),
        ("no such server", Known { ids: (good.ids.0, 5), ..good }, State::Established),
    ];
    for (what, known, state) in table {
        assert_eq!(b.enter(&known, state, 0), Outcome::Unfit, "{what}");
    }
    assert_eq!(b.world.table.used(), 0);
    assert_eq!(b.enter(&good, State::Established, 0), Outcome::Entered);
}

#[test]
fn a_place_is_the_same_only_where_it_means_the_same() {
    let original = rules(V4, Topology::Nat);
    let snapshot = |rules: Vec<RuleSpec>| Places::of(&World::new(rules).view.snapshot);
    let ours = snapshot(original.clone());
    let hash = ours.hash(1, 2).unwrap();
    assert!(
        snapshot(original.iter().cloned().map(elsewhere).collect())
            .ids(hash)
            .is_some()
    );
    type Spoil = fn(&mut RuleSpec);
    #[rustfmt::skip]
    let table: [(&str, Spoil); 8] = [
        ("name", |it| it.name.push('x')),
        ("topology", |it| { it.topology = Topology::HalfNat; it.proxy_src.clear(); }),
        ("port of a VIP", |it| it.vips[0].ports = PortRange::single(81)),
        ("another VIP", |it| { let mut more = it.vips[0].clone(); more.address = V4.client(77); it.vips.push(more); }),
        ("order of sources", |it| it.proxy_src.reverse()),
        ("address of the server", |it| it.servers[1].address = V4.server(99)),
        ("port of the server", |it| it.servers[1].ports = PortMap::Collapse(8080)),
        ("not told of", |it| it.sync = Synchronise::Off),
    ];
    for (what, spoil) in table {
        let mut rules = original.clone();
        spoil(&mut rules[0]);
        let theirs = snapshot(rules);
        assert_eq!(theirs.ids(hash), None, "{what}");
        assert!(theirs.ids(ours.hash(2, 2).unwrap()).is_some(), "{what}");
        assert!(ours.adds_to(&theirs), "{what}");
    }
    // A server that was taken away and added again: its new number is meant.
    let mut twice = original.clone();
    let mut gone = twice[0].servers[1].clone();
    (gone.id, gone.accepting) = (55, false);
    twice[0].servers.insert(0, gone);
    assert_eq!(snapshot(twice).ids(hash), Some((1, 2)));
}

#[test]
fn claims_follow_and_hold_new_connections() {
    for topology in [Topology::Dsr, Topology::Nat] {
        let mut specs = rules(V4, topology);
        specs.truncate(1);
        specs[0].persistence = Some(Persistence {
            mask: 24,
            timeout: 300,
        });
        let [mut a, mut b] = pair(specs);
        let vip = (V4.vip(), 80);
        // Three turns of round robin elsewhere: the claim alone decides.
        a.world.send(&syn((V4.client(1), 1), vip));
        a.world.send(&ack((V4.client(1), 1), vip));
        let told = a.told();
        assert_eq!(told.iter().filter(|it| it.state.is_claim()).count(), 1);
        assert_eq!(a.changes().len(), 2, "the connection and the claim");
        assert_eq!(b.take(&a), [Outcome::Entered; 2]);
        let (_, there) = a.world.send(&syn((V4.client(2), 9), vip));
        let (_, here) = b.world.send(&syn((V4.client(2), 9), vip));
        assert_eq!(there[..12], here[..12], "{topology:?}: the same server");
        assert_eq!(ends(&there).0.0, ends(&here).0.0, "and the same source");
        // A claim with the wrong mask is none of this rule's.
        let (rule, server) = b.places.ids(a.places.hash(1, 1).unwrap()).unwrap();
        let client = V4.client(1).into();
        let wrong =
            b.visit(|it| peer::claim(&it.view, &it.table, rule, client, server, 0, 0, it.now));
        assert_eq!(wrong, Outcome::Unfit);
    }
}

#[test]
fn ports_of_two_nodes_never_meet() {
    let mut taken = [vec![], vec![]];
    let mut nodes = pair(rules(V4, Topology::Nat));
    for (at, share) in [Share::Even, Share::Odd].into_iter().enumerate() {
        nodes[at].world.view.snapshot.guard().set_share(share);
        let mut specs = rules(V4, Topology::Nat);
        if at == 1 {
            specs = specs.into_iter().map(elsewhere).collect();
        }
        nodes[at].world.configure(specs);
        for port in 1..=200 {
            let (_, sent) = nodes[at]
                .world
                .send(&syn((V4.client(1), port), (V4.vip(), 80)));
            taken[at].push(ends(&sent).0.1);
        }
    }
    assert!(
        taken[0]
            .iter()
            .all(|port| port.is_multiple_of(2) && *port >= 1024)
    );
    assert!(taken[1].iter().all(|port| port % 2 == 1 && *port >= 1024));
}

#[test]
fn little_is_told_and_nothing_of_a_connection_in_full_flow() {
    let [mut a, _] = pair(rules(V4, Topology::HalfNat));
    let (client, vip, server) = ((V4.client(1), 4000), (V4.vip(), 80), (V4.server(1), 80));
    let (front, back) = (FRONT, BACK);
    let fin = tcp::FIN | tcp::ACK;
    #[rustfmt::skip]
    let steps: [(&str, Vec<u8>, u8, bool); 8] = [
        ("a SYN", syn(client, vip), front, false),
        ("its answer", segment(server, client, tcp::SYN | tcp::ACK).frame(), back, false),
        ("the end of the handshake", ack(client, vip), front, true),
        ("data", ack(client, vip), front, false),
        ("data back", ack(server, client), back, false),
        ("the client closes", segment(client, vip, fin).frame(), front, false),
        ("the server closes", segment(server, client, fin).frame(), back, true),
        ("the last word", ack(client, vip), front, false),
    ];
    for (what, frame, by, told) in steps {
        let (verdict, _) = a.world.send_by(&frame, by);
        assert!(matches!(verdict, Verdict::Transmit(_)), "{what}");
        assert_eq!(!a.changes().is_empty(), told, "{what}");
    }
    // The same client begins anew, while the other one is not forgotten yet.
    a.world.send(&syn(client, vip));
    let ended = a.changes();
    assert!(
        matches!(
            ended[..],
            [Change::Ended(Ended {
                client_port: 4000,
                vip_port: 80,
                rule: 1,
                ..
            })]
        ),
        "{ended:?}"
    );
    a.changes.switch(false);
    a.world.send(&ack(client, vip));
    assert_eq!(a.changes(), [], "nobody reads");
}

#[test]
fn connections_in_use_are_told_of_again_in_time_and_others_are_not() {
    let [mut a, b] = pair(rules(V4, Topology::Dsr));
    let vip = (V4.vip(), 80);
    for port in 1..=100 {
        a.world.send(&syn((V4.client(1), port), vip));
        a.world.send(&ack((V4.client(1), port), vip));
    }
    b.take(&a);
    let (start, gap) = (a.world.now, 5);
    let mut times = vec![0; a.world.table.high_water() as usize];
    // Half of them go on for two minutes.
    for now in start..start + 120 {
        a.world.now = now;
        for port in (1..=100).step_by(2) {
            a.world.send(&ack((V4.client(1), port), vip));
        }
        if now % gap != 0 {
            continue;
        }
        for entry in 0..times.len() as u32 {
            let World { view, table, .. } = &a.world;
            times[entry as usize] += u32::from(peer::wants_refresh(view, table, entry, gap, now));
            assert!(
                !peer::wants_refresh(&b.world.view, &b.world.table, entry, gap, now),
                "not ours"
            );
        }
    }
    for (entry, times) in times.into_iter().enumerate() {
        match entry % 2 {
            0 => assert_eq!(times, 2, "entry {entry}: once a minute"),
            _ => assert!(
                times <= 2,
                "entry {entry}: only while that is news: {times}"
            ),
        }
    }
}
