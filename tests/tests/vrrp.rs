//! Two nodes that share their addresses, with everything that ilb is made of: whatever happens to one, the other one answers.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ilb_tests::disk::SmallDisk;
use ilb_tests::lab::plan::Net;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::pair::{Pair, Seen, Sharing};
use ilb_tests::{Family, Topology, shell};

const SHARING: Sharing = Sharing {
    topology: Topology::Nat,
    interval: "0.1",
    priorities: [150, 100],
    more: "",
};

/// Something happens; `role` has everything afterwards, `other` nothing, and clients get answers again.
#[track_caller]
fn happens(pair: &Pair, given: &str, role: &str, other: &str, event: impl FnOnce()) -> Vec<Seen> {
    let settled = || {
        pair.has_all(given, role, other);
        pair.answers(given);
    };
    let seen = pair.watched(event, settled);
    for (seen, target) in seen.iter().zip(&pair.targets) {
        let (gap, lost) = (seen.gap.as_millis(), seen.lost);
        println!("{given}: {target} without an answer for {gap} ms, {lost} not answered");
    }
    seen
}

fn signal(pid: u32, name: &str) {
    shell::run_line(&format!("kill -s {name} {pid}")).ok();
}

#[test]
fn whatever_happens_to_one_node_the_other_one_answers() {
    let pair = Pair::new(&SHARING);
    let lab = &pair.lab;
    pair.has_all("given two nodes, when both are up", "lb", "lb2");
    pair.stands("given two nodes", "lb", "active");
    pair.stands("given two nodes", "lb2", "backup");
    let rule = lab.second().lbadm("show-rule -p -o rulename,status");
    assert!(rule.contains("rule0:"), "{rule}");

    let given = "given a pair, when the active one is disabled";
    happens(&pair, given, "lb2", "lb", || {
        lab.node.lbadm("disable-vrrp");
    });
    pair.stands(given, "lb", "disabled");
    let given = "given a disabled node, when it is enabled";
    happens(&pair, given, "lb", "lb2", || {
        lab.node.lbadm("enable-vrrp");
    });
    let given = "given a rule that is tracked, when it loses its servers";
    for instance in pair.instances() {
        lab.node.lbadm(&format!(
            "modify-vrrp -i track=fastpath,rule:rule1:-60 {instance}"
        ));
    }
    happens(&pair, given, "lb2", "lb", || {
        lab.node.lbadm("disable-server _group1.0");
    });
    let given = "given a rule without servers, when it has them again";
    happens(&pair, given, "lb", "lb2", || {
        lab.node.lbadm("enable-server _group1.0");
    });
    let given = "given a pair, when the fast path dies";
    happens(&pair, given, "lb2", "lb", || lab.node.kill_fastpath());
    pair.stands(given, "lb", "fault");
    let given = "given a dead fast path, when it comes back";
    happens(&pair, given, "lb", "lb2", || lab.node.start_fastpath());
    let given = "given a pair, when an interface goes down";
    happens(&pair, given, "lb2", "lb", || {
        lab.at("lb").run("ip link set eth1 down");
    });
    let given = "given an interface that is down, when it is up";
    happens(&pair, given, "lb", "lb2", || {
        lab.at("lb").ip(&[
            "link set eth1 up".to_owned(),
            "addr replace fd02::1/64 dev eth1 nodad".to_owned(),
            "addr replace fe80::1/64 dev eth1 nodad".to_owned(),
        ]);
    });
    // A dead manager cannot take its addresses away; the other one has announced that it has them.
    let given = "given a pair, when everything is killed on the active one";
    happens(&pair, given, "lb2", "", || {
        lab.node.kill_manager();
        lab.node.kill_fastpath();
    });
    let given = "given a killed node, when it comes back";
    happens(&pair, given, "lb", "lb2", || lab.node.start());
    lab.node.stop();
    pair.has_all("given a pair, when one is stopped", "lb2", "lb");
    lab.second().assert_alive();
}

#[test]
fn who_does_not_run_gives_way_and_comes_back_in_order() {
    let pair = Pair::new(&SHARING);
    let lab = &pair.lab;
    pair.has_all("given two nodes, when both are up", "lb", "lb2");

    let manager = lab.node.manager_pid();
    let given = "given a pair, when the manager of the active one is stopped by a signal";
    happens(&pair, given, "lb2", "", || signal(manager, "STOP"));
    let given = "given a stopped manager, when it goes on";
    happens(&pair, given, "lb", "lb2", || signal(manager, "CONT"));
    // It has not taken the addresses from the other one the moment it woke up, but listened first.
    let log = lab.node.manager_log();
    assert!(log.contains("it did not run for"), "{log}");

    let fastpath = lab.node.fastpath_pid();
    let given = "given a pair, when the fast path hangs";
    happens(&pair, given, "lb2", "lb", || signal(fastpath, "STOP"));
    pair.stands(given, "lb", "fault");
    let reasons = lab.node.lbadm("show-vrrp -p -o reason");
    assert!(
        reasons.contains("the fast path does not answer"),
        "{reasons}"
    );
    let given = "given a fast path that hangs, when it goes on";
    happens(&pair, given, "lb", "lb2", || signal(fastpath, "CONT"));
}

#[test]
fn a_planned_change_loses_no_packet() {
    // Replies go past the nodes: what is on its way finds its client whoever is active.
    let pair = Pair::new(&Sharing {
        topology: Topology::Dsr,
        more: ",mac=virtual",
        ..SHARING
    });
    let lab = &pair.lab;
    pair.has_all("given two nodes, when both are up", "lb", "lb2");
    pair.answers("given two nodes");
    for _ in 0..2 {
        for (given, role, other, line) in [
            (
                "when the active one is disabled",
                "lb2",
                "lb",
                "disable-vrrp",
            ),
            ("when it is enabled again", "lb", "lb2", "enable-vrrp"),
        ] {
            let seen = happens(&pair, given, role, other, || drop(lab.node.lbadm(line)));
            for (seen, target) in seen.iter().zip(&pair.targets) {
                assert!(seen.asked > 100, "{given}, {target}: {seen:?}");
                assert_eq!(seen.lost, 0, "{given}, {target}: {seen:?}");
            }
        }
    }
}

/// Port of a daemon on the nodes themselves.
const DAEMON: u16 = 2222;
/// How long a loaded machine may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a node answers at an address by itself: a ping, and a connection to its own daemon, which have to agree.
#[track_caller]
fn takes(pair: &Pair, address: IpAddr) -> bool {
    let client = pair.lab.at("c1");
    // Whoever answers does so in no time; who does not must not be waited for three times as long.
    let ping = client.try_run(&format!("ping -n -c 1 -W 1 {address}"));
    let target = SocketAddr::new(address, DAEMON);
    let limit = Duration::from_secs(1);
    let connected = client.enter(|| TcpStream::connect_timeout(&target, limit));
    let connected = match connected {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::TimedOut => false,
        Err(error) => panic!("{target}: {error}"),
    };
    assert_eq!(ping.code == 0, connected, "{address}: {ping:?}");
    connected
}

/// What becomes of a connection to the daemon of a node at its first VIPs.
fn outcomes(pair: &Pair, role: &str) -> Vec<String> {
    let explain = |target: &SocketAddr| {
        let family = if target.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let source = SocketAddr::new(pair.lab.client(family, 1), 40_000);
        let target = SocketAddr::new(target.ip(), DAEMON);
        let said = pair
            .node(role)
            .lbadm(&format!("explain tcp {source} {target}"));
        let outcome = said.lines().find(|line| line.starts_with("outcome:"));
        outcome
            .unwrap_or_else(|| panic!("no outcome: {said}"))
            .to_owned()
    };
    pair.targets.iter().map(explain).collect()
}

/// Waits until all that a node says of such a connection has this in it.
#[track_caller]
fn explained(pair: &Pair, given: &str, role: &str, words: &str) {
    let all = || outcomes(pair, role).iter().all(|it| it.contains(words));
    let settled = shell::wait_for(PATIENCE, || all().then_some(()));
    assert!(settled.is_some(), "{given}: {:?}", outcomes(pair, role));
}

fn dropped(pair: &Pair, role: &str) -> u64 {
    let lines = pair
        .node(role)
        .lbadm("show-statistics --drops -p -o reason,drops");
    let drops = lines
        .lines()
        .find_map(|it| it.strip_prefix("address-closed:"));
    drops.map_or(0, |it| it.parse().unwrap())
}

#[test]
fn a_closed_address_is_for_rules_and_neighbours_alone() {
    let pair = Pair::new(&Sharing {
        more: ",accept=no",
        ..SHARING
    });
    let lab = &pair.lab;
    let vips: Vec<IpAddr> = pair.targets.iter().map(SocketAddr::ip).collect();
    let own = [("lb", 1), ("lb2", 2)].map(|(role, host)| {
        let daemon = lab.at(role).enter(|| TcpListener::bind(("::", DAEMON)));
        (
            daemon.unwrap(),
            Family::BOTH.map(|it| Net::Front.host(it, host)),
        )
    });
    let given = "given accept=no";
    pair.has_all(given, "lb", "lb2");
    explained(&pair, given, "lb", "has accept=no");
    explained(&pair, given, "lb2", "left to the kernel");
    pair.answers(given);
    for vip in &vips {
        assert!(!takes(&pair, *vip), "{given}: {vip} is the rules' alone");
    }
    assert!(dropped(&pair, "lb") >= 4, "two pings and two SYNs");
    for address in own.iter().flat_map(|(_, own)| own) {
        assert!(takes(&pair, *address), "{given}: {address} is a node's own");
    }

    // A client that has forgotten everything, and one that asks whether what it knows is still so: by unicast.
    lab.at("c1").run("ip neigh flush dev eth0");
    pair.answers("given a client that knows no neighbours");
    for vip in &vips {
        let client = lab.at("c1");
        client.run(&format!("ip neigh change {vip} dev eth0 nud probe"));
        let reached = || {
            let said = client.run(&format!("ip neigh show {vip} dev eth0"));
            said.contains("REACHABLE").then_some(())
        };
        let reached = shell::wait_for(PATIENCE, reached);
        assert!(reached.is_some(), "{vip} answers its neighbours");
    }

    let given = "given a closed pair, when the active one is disabled";
    lab.node.lbadm("disable-vrrp");
    pair.has_all(given, "lb2", "lb");
    explained(&pair, given, "lb2", "has accept=no");
    explained(&pair, given, "lb", "left to the kernel");
    pair.answers(given);
    assert!(!takes(&pair, vips[0]), "{given}");

    let given = "given an active node, when it is told to accept";
    let moved = || lab.second().lbadm("show-vrrp -p -o state,transitions");
    let before = moved();
    for instance in pair.instances() {
        lab.second()
            .lbadm(&format!("modify-vrrp -i accept=yes {instance}"));
    }
    for vip in &vips {
        assert!(takes(&pair, *vip), "{given}: {vip} is the node's, too");
    }
    pair.answers(given);
    assert_eq!(moved(), before, "{given}: it stays where it is");
    explained(&pair, given, "lb2", "left to the kernel");
}

#[test]
fn a_full_disk_takes_no_addresses_away_and_gives_them_up_as_ever() {
    let lab = Lab::new(Spec {
        servers: 1,
        pair: true,
        ..Spec::default()
    });
    let state = lab.node.settings().with_file_name("state");
    let disk = SmallDisk::new(&state);
    // The disk goes before the lab's folder, also when something fails.
    let (disk, pair) = &(disk, Pair::within(lab, &SHARING));
    pair.has_all("given two nodes, when both are up", "lb", "lb2");
    disk.fill();
    let refused = (0..64).any(|number| {
        let name = format!("more{number}");
        let words = [
            "create-servergroup",
            "-s",
            "server=192.0.2.1-192.0.2.200",
            &name,
        ];
        pair.node("lb").try_lbadm(&words).code != 0
    });
    assert!(
        refused,
        "given a full disk, when much is changed, then it is refused"
    );
    pair.stands("given a full disk", "lb", "active");
    let given = "given a full disk on the active node, when it is stopped";
    happens(pair, given, "lb2", "lb", || pair.node("lb").stop());
}
