//! A pair whose nodes do not hear each other, with everything that a pair shares at once: addresses, configuration and
//! connections; and one whose backup cannot write.

use std::net::SocketAddr;
use std::time::Duration;

use ilb_tests::cut::Cut;
use ilb_tests::disk::SmallDisk;
use ilb_tests::held::Held;
use ilb_tests::joined::{Joined, PATIENCE, ROLES};
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::service::Service;
use ilb_tests::{Family, Topology, shell};

/// Instances of VRRP: both networks, both families.
const INSTANCES: u64 = 4;
/// Connections that each client opens to each service.
const EACH: usize = 8;
/// Who is on which side of the cut.
const SIDES: [[&str; 3]; 2] = [["lb", "c1", "s1"], ["lb2", "c2", "s2"]];

struct Site {
    lab: Lab,
    targets: Vec<SocketAddr>,
}

/// What addresses have done.
struct Moves {
    /// Changes of state of all instances of each node.
    transitions: [u64; 2],
    /// Instances that found that they did not run for too long.
    slept: u64,
}

impl Site {
    /// Two services by NAT, one in each family, on a pair, whose servers are asked whether they are there.
    fn new() -> Site {
        let lab = Lab::new(Spec {
            servers: 2,
            clients: 2,
            pair: true,
            ..Spec::default()
        });
        let pair = Joined::start(&lab);
        let node = pair.node(0);
        node.lbadm(
            "create-healthcheck -h hc-test=tcp,hc-timeout=1,hc-count=2,hc-interval=0.25 port",
        );
        let mut targets = Vec::new();
        for (number, family) in Family::BOTH.into_iter().enumerate() {
            let service = Service::http(number as u8, Topology::Nat, family);
            let (vip, source) = (
                lab.vip(family, service.number),
                lab.proxy_source(family, service.number),
            );
            for (side, address) in [vip, source].into_iter().enumerate() {
                node.lbadm(&format!(
                    "create-vrrp -i interface=eth{side},vrid=51,addresses={address},priority=150,interval=0.3,\
                     sync-group=pair side{side}{number}"
                ));
            }
            node.lbadm(&service.group_line(&lab));
            node.lbadm(&service.rule_line(&lab));
            node.lbadm(&format!("modify-rule -h hc-name=port {}", service.rule()));
            targets.push(SocketAddr::new(vip, 80));
        }
        pair.join();
        let given = "given two nodes that are a pair";
        pair.settled(given);
        pair.active(given, 0);
        let site = Site { lab, targets };
        for at in 0..2 {
            site.servers_are(given, at, &["enabled", "enabled"]);
        }
        site
    }

    fn pair(&self) -> Joined<'_> {
        Joined { lab: &self.lab }
    }

    /// Waits until a node finds its servers so.
    #[track_caller]
    fn servers_are(&self, given: &str, at: usize, states: &[&str; 2]) {
        let said = || {
            let all = self
                .pair()
                .node(at)
                .lbadm("show-server -p -o serverid,status");
            let of = |n: usize| all.lines().filter(move |it| it.contains(&format!(".{n}:")));
            let so = |(n, state): (usize, &&str)| {
                of(n).count() == self.targets.len()
                    && of(n).all(|line| line.ends_with(&format!(":{state}")))
            };
            states.iter().enumerate().all(so).then_some(())
        };
        assert!(
            shell::wait_for(PATIENCE, said).is_some(),
            "{given}, then {} finds its servers {states:?}:\n{}",
            ROLES[at],
            self.pair().node(at).lbadm("show-server")
        );
    }

    /// Connections of a client to its own side's server.
    #[track_caller]
    fn hold(&self, side: usize) -> Vec<Held> {
        let [_, client, server] = SIDES[side];
        let open = || {
            let all = self.targets.iter().cycle().take(EACH * self.targets.len());
            all.map(|it| Held::open(*it)).collect::<Vec<_>>()
        };
        let mut held = self.lab.at(client).enter(open);
        held.retain(|it| it.server == server);
        assert!(!held.is_empty(), "{client} gets to {server}");
        held
    }

    #[track_caller]
    fn go_on(&self, given: &str, side: usize, held: &mut [Held]) {
        let ask = |it: &mut Held| it.ask().map_err(|error| error.to_string());
        let ask = |it: &mut Held| (ask(it), it.server.clone());
        let client = self.lab.at(SIDES[side][1]);
        let answers: Vec<_> = client.enter(|| held.iter_mut().map(ask).collect());
        for (answer, server) in answers {
            assert_eq!(
                answer,
                Ok(server),
                "{given}, then an open connection of {} goes on",
                SIDES[side][1]
            );
        }
    }

    /// Makes a group with this name.
    #[track_caller]
    fn change(&self, at: usize, name: &str) {
        let line = format!("create-servergroup -s server=192.0.2.1 {name}");
        self.pair().node(at).lbadm(&line);
    }

    /// Whether a node has a group with this name.
    #[track_caller]
    fn has(&self, at: usize, name: &str) -> bool {
        let all = self.pair().node(at).lbadm("show-servergroup -p -o sgname");
        all.lines().any(|it| it == name)
    }

    #[track_caller]
    fn both_have(&self, given: &str, names: &[(&str, bool)]) {
        for (at, role) in ROLES.iter().enumerate() {
            for (name, there) in names {
                let given = format!("{given}, then {role} has group {name}");
                assert_eq!(self.has(at, name), *there, "{given}");
            }
        }
    }

    /// How often addresses came or went by now.
    #[track_caller]
    fn moves(&self) -> Moves {
        let pair = self.pair();
        let slept = |at: usize| {
            let log = pair.node(at).manager_log();
            log.matches("it did not run for").count() as u64
        };
        Moves {
            transitions: [0, 1].map(|at| pair.transitions(at)),
            slept: slept(0) + slept(1),
        }
    }

    /// Each instance of each node has changed its state so many times since then.
    #[track_caller]
    fn moved(&self, given: &str, before: &Moves, expected: [u64; 2]) {
        let now = self.moves();
        // A machine that is too busy to run its programs for three intervals makes them move more often.
        let more = 2 * (now.slept - before.slept);
        for at in 0..2 {
            let moved = now.transitions[at] - before.transitions[at];
            let expected = expected[at] * INSTANCES;
            assert!(
                moved == expected || more > 0 && moved <= expected + more,
                "{given}, then instances of {} change their state {expected} times, not {moved}",
                ROLES[at]
            );
        }
    }

    #[track_caller]
    fn notices(&self, at: usize) -> String {
        let shown = self.pair().shown(at);
        let all = shown["notices"].as_array().expect("a list").iter();
        let words = all.map(|it| it["words"].as_str().expect("a text").to_owned());
        words.collect::<Vec<_>>().join("\n")
    }

    #[track_caller]
    fn no_conflict(&self, given: &str) {
        for at in 0..2 {
            let notices = self.notices(at);
            assert_eq!(notices, "", "{given}, then there is no conflict");
        }
    }
}

#[test]
fn nodes_that_do_not_hear_each_other_go_on_and_are_one_pair_again_when_they_do() {
    let site = Site::new();
    let pair = site.pair();
    let mut held = [site.hold(0), site.hold(1)];
    pair.knows(1, held.iter().map(Vec::len).sum());
    pair.settled("given open connections");
    let before = site.moves();

    let given = "given a backup that hears nothing";
    let cut = Cut::one_way(pair.lab, &["lb"], &["lb2"]);
    pair.until(1, given, |pair| pair["here"]["active"] == true);
    site.change(0, "deaf");
    drop(cut);
    let given = "given a backup that hears again";
    pair.active(given, 0);
    pair.settled(given);
    site.no_conflict(given);
    site.both_have(given, &[("deaf", true)]);
    // Addresses were taken once, and given back.
    site.moved(given, &before, [0, 2]);
    (0..2).for_each(|side| site.go_on(given, side, &mut held[side]));

    let given = "given a wire that comes and goes";
    let before = site.moves();
    std::thread::scope(|scope| {
        let changed = scope.spawn(|| site.change(0, "flapping"));
        for _ in 0..10 {
            let cut = Cut::between(pair.lab, &["lb"], &["lb2"]);
            std::thread::sleep(Duration::from_millis(250));
            drop(cut);
            std::thread::sleep(Duration::from_millis(250));
        }
        changed.join().expect("the change is made");
    });
    pair.active(given, 0);
    pair.settled(given);
    site.no_conflict(given);
    site.both_have(given, &[("flapping", true)]);
    // None of the cuts is long enough.
    site.moved(given, &before, [0, 0]);
    (0..2).for_each(|side| site.go_on(given, side, &mut held[side]));

    // Each side has a node, a client and a server, and nobody gets to the other one.
    let before = site.moves();
    let cut = Cut::between(pair.lab, &SIDES[0], &SIDES[1]);
    let given = "given two sides that do not hear each other";
    pair.until(1, given, |pair| pair["here"]["active"] == true);
    pair.until(0, given, |pair| pair["here"]["active"] == true);
    site.servers_are(given, 0, &["enabled", "unreach"]);
    site.servers_are(given, 1, &["unreach", "enabled"]);
    (0..2).for_each(|side| site.go_on(given, side, &mut held[side]));
    let mut apart = [site.hold(0), site.hold(1)];
    for at in 0..2 {
        pair.until(at, given, |pair| pair["link"]["up"] == false);
    }
    site.change(1, "right");
    site.change(0, "left1");
    site.change(0, "left2");
    site.moved(given, &before, [0, 1]);
    drop(cut);

    let given = "given two sides that hear each other again";
    pair.active(given, 0);
    pair.settled(given);
    // No address has moved more than once.
    site.moved(given, &before, [0, 2]);
    let names = [("left1", true), ("left2", true), ("right", false)];
    site.both_have(given, &names);
    site.servers_are(given, 0, &["enabled", "enabled"]);
    for (side, held) in held.iter_mut().enumerate() {
        site.go_on(given, side, held);
    }
    for (side, held) in apart.iter_mut().enumerate() {
        site.go_on(&format!("{given}, opened apart"), side, held);
    }
    let won = site.notices(0);
    assert!(won.contains("1 change was made on the other node"), "{won}");
    let lost = site.notices(1);
    assert!(lost.contains("1 change was made on this node"), "{lost}");
    let generation = lost.split("lbadm rollback ").nth(1);
    let generation = generation.and_then(|it| it.split('\'').next());
    let generation = generation.expect("the notice says how to bring it back");
    let preview = pair
        .node(1)
        .lbadm(&format!("rollback --dry-run {generation}"));
    assert!(preview.contains("right"), "{given}: {preview}");
    pair.node(1).lbadm(&format!("rollback {generation}"));
    pair.node(1).lbadm("pair acknowledge");
    let given = "given the configuration of the one that gave way, when it is brought back";
    pair.settled(given);
    let names = [("left1", false), ("left2", false), ("right", true)];
    site.both_have(given, &names);
    let noted = |at: usize| shell::wait_for(PATIENCE, || site.notices(at).is_empty().then_some(()));
    assert!(
        (0..2).all(|at| noted(at).is_some()),
        "{given}, then notices are gone from both"
    );
    // What begins now is known on both again.
    let mut more = site.hold(0);
    let all = [&held[0], &held[1], &apart[0], &apart[1], &more];
    pair.knows(1, all.iter().map(|it| it.len()).sum());
    // Among those that it knows may be some that were closed again at once, in the place of these.
    pair.settled(given);
    pair.node(0).lbadm("failover");
    let given = "given a pair that was apart, when the active node gives its addresses away";
    pair.active(given, 1);
    site.go_on(given, 0, &mut more);
    for (side, held) in held.iter_mut().enumerate() {
        site.go_on(given, side, held);
    }
    pair.node(0).assert_alive();
    pair.node(1).assert_alive();
}

#[test]
fn a_backup_that_cannot_write_keeps_nobody_from_changing_and_follows_when_it_can() {
    let lab = Lab::new(Spec {
        servers: 1,
        pair: true,
        ..Spec::default()
    });
    let state = lab.second().settings().with_file_name("state");
    let disk = SmallDisk::new(&state);
    // The disk goes before the lab's folder, also when something fails.
    let (disk, lab) = &(disk, lab);
    let pair = Joined::start(lab);
    pair.join();
    pair.settled("given two nodes that are a pair");
    disk.fill();
    let given = "given a backup whose disk is full";
    let change = |number: usize| {
        let line = format!("create-servergroup -s server=192.0.2.1-192.0.2.200 more{number}");
        pair.node(0).lbadm(&line);
        pair.shown(0)["configuration"]["step"] == "ahead"
    };
    assert!(
        (0..64).any(change),
        "{given}, when much is changed on the active one, then it is made there alone"
    );
    let shown = pair.until(0, given, |pair| {
        pair["configuration"]["step"] == "ahead" && pair["configuration"]["words"] != ""
    });
    let why = &shown["configuration"]["words"];
    let text = why.as_str().expect("a text");
    assert!(
        text.contains("the other node does not take it") && text.contains("disk"),
        "{given}, then show-pair says so: {text}"
    );
    pair.until(1, given, |pair| pair["configuration"]["step"] == "behind");
    pair.node(0)
        .lbadm("create-servergroup -s server=192.0.2.1 last");
    disk.clear();
    let given = "given a backup that can write again";
    pair.settled(given);
    let groups = [0, 1].map(|at| pair.node(at).lbadm("show-servergroup -p -o sgname"));
    assert!(groups[0].contains("last\n"), "{}", groups[0]);
    assert_eq!(groups[0], groups[1], "{given}, then it has everything");
    pair.node(1).assert_alive();
}
