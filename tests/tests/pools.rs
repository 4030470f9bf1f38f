//! Pools of servers from end to end: a quorum with hysteresis and a sorry server, commands that are run when something
//! happens, and what holds when the node that tests its servers is cut off from them.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ilb_tests::held::Held;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load::Load;
use ilb_tests::service::Service;
use ilb_tests::site::{Authority, Site};
use ilb_tests::{Family, Topology, shell};

/// Long enough for whatever has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How the checks of this file ask. They find out about all servers within five seconds.
const CHECK: &str =
    "create-healthcheck -h hc-test=tcp,hc-timeout=1,hc-count=2,hc-interval=0.25 port";

/// A lab with three sites, and services that are asked through the node's own sockets.
fn lab() -> (Lab, Vec<Site>, Vec<(Service, SocketAddr)>) {
    let lab = Lab::with_ilb(Spec::default());
    let authority = Authority::new(&lab);
    let sites = ["s1", "s2", "s3"].map(|role| Site::start(&lab, &authority, role));
    lab.node.lbadm(CHECK);
    let both = [(Topology::HalfNat, Family::V4), (Topology::Nat, Family::V6)];
    let services = both.map(|(topology, family)| {
        let service = Service {
            ports: "8090",
            ..Service::http(u8::from(family == Family::V6), topology, family)
        };
        let target = service.create(&lab);
        let rule = service.rule();
        lab.node
            .lbadm(&format!("modify-rule -h hc-name=port {rule}"));
        (service, target)
    });
    (lab, sites.into(), services.into())
}

/// Waits until an output of lbadm is as it should be.
#[track_caller]
fn wait_for(lab: &Lab, given: &str, line: &str, so: impl Fn(&str) -> bool) {
    let mut last = String::new();
    let found = shell::wait_for(PATIENCE, || {
        last = lab
            .node
            .try_lbadm(&line.split(' ').collect::<Vec<_>>())
            .stdout;
        so(&last).then_some(())
    });
    assert!(found.is_some(), "given {given}, '{line}' in vain:\n{last}");
}

/// What `show-server` says of the three servers of a service.
fn states(service: &Service, all: [&str; 3]) -> String {
    let group = service.group();
    let lines = all.iter().enumerate();
    lines
        .map(|(n, state)| format!("_{group}.{n}:{state}\n"))
        .collect()
}

/// Everybody who serves, by new connections from each client in turn.
#[track_caller]
fn served_by(lab: &Lab, given: &str, services: &[(Service, SocketAddr)], expected: &[&str]) {
    for (service, target) in services {
        let tally = Load::new(*target, 12).run(lab.at("c1"));
        let case = format!("given {given}, {service}");
        tally.none_failed(&case);
        for role in ["s1", "s2", "s3"] {
            let serves = tally.of(role) > 0;
            assert_eq!(
                serves,
                expected.contains(&role),
                "{case}: {role} of {tally}"
            );
        }
    }
}

/// A script that notes what it is told, and leaves somebody behind.
fn script(folder: &Path) -> (PathBuf, PathBuf) {
    let (script, notes) = (folder.join("tell"), folder.join("told"));
    let text = format!(
        "#!/bin/sh\nleft={0}.$$\nsetsid -f sh -c 'echo $$ >'$left'; exec sleep 1000' >/dev/null 2>&1\n\
         while ! [ -s $left ]; do sleep 0.01; done\n\
         echo \"$ILB_EVENT $ILB_RULE ${{ILB_SERVER:-itself}} $ILB_STATE $# $2\" >>{0}\necho told $1\n",
        notes.display()
    );
    std::fs::write(&script, text).expect("the lab's folder can be written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("the script is ours");
    (script, notes)
}

#[test]
fn a_quorum_is_lost_and_had_again_and_everybody_is_told() {
    let (lab, mut sites, services) = lab();
    let (script, notes) = script(lab.directory());
    for (service, _) in &services {
        let (rule, group) = (service.rule(), service.group());
        lab.node
            .lbadm(&format!("modify-server -s tier=sorry _{group}.2"));
        lab.node
            .lbadm(&format!("modify-rule -m quorum=2,hysteresis=1 {rule}"));
        let told = |event: &str| format!("{event}={} {event} 'a b; c'", script.display());
        let all = ["up", "down", "quorum-up", "quorum-down"].map(told);
        let mut line = vec!["modify-rule"];
        line.extend(all.iter().flat_map(|command| ["-n", command]));
        line.push(&rule);
        lab.node.try_lbadm(&line).ok();
    }
    let open = |target: SocketAddr, role: &str| {
        lab.at("c1").enter(|| {
            let mut all = (0..4).map(|_| Held::open(target));
            all.find(|held| held.server == role).expect("it serves")
        })
    };
    let undisturbed = |held: &mut [Held], given: &str| {
        for held in held {
            let answer = held.ask().ok();
            assert_eq!(answer.as_ref(), Some(&held.server), "given {given}");
        }
    };
    served_by(&lab, "everybody is there", &services, &["s1", "s2"]);
    let mut second: Vec<Held> = services.iter().map(|(_, to)| open(*to, "s2")).collect();

    // What is done, what show-server says then, who serves.
    type Step = (
        &'static str,
        fn(&mut [Site]),
        [&'static str; 3],
        &'static [&'static str],
    );
    let steps: [Step; 4] = [
        (
            "one fewer than the quorum, which its hysteresis bears",
            |sites| sites[0].kill(),
            ["dead", "enabled", "standby"],
            &["s2"],
        ),
        (
            "no quorum",
            |sites| sites[1].kill(),
            ["dead", "dead", "enabled"],
            &["s3"],
        ),
        (
            "one that is back, which is not enough",
            |sites| sites[0].revive(),
            ["standby", "dead", "enabled"],
            &["s3"],
        ),
        (
            "all that there are",
            |sites| sites[1].revive(),
            ["enabled", "enabled", "standby"],
            &["s1", "s2"],
        ),
    ];
    let mut third = Vec::new();
    for (n, (given, step, said, expected)) in steps.into_iter().enumerate() {
        step(&mut sites);
        for (service, _) in &services {
            let line = format!("show-server -p -o serverid,status {}", service.rule());
            wait_for(&lab, given, &line, |text| text == states(service, said));
        }
        served_by(&lab, given, &services, expected);
        match n {
            0 => undisturbed(&mut second, given),
            1 => third = services.iter().map(|(_, to)| open(*to, "s3")).collect(),
            // Who stands by keeps the connections that it has.
            _ => undisturbed(&mut third, given),
        }
    }

    // Each in its order, each with its arguments.
    let mut told = String::new();
    for (service, _) in &services {
        let (rule, group) = (service.rule(), service.group());
        for (object, events) in [
            (format!("_{group}.0"), &["down", "up"][..]),
            (format!("_{group}.1"), &["down", "up"]),
            (format!("_{group}.2"), &[]),
            ("itself".to_string(), &["quorum-down", "quorum-up"]),
        ] {
            let of_object = |text: &str| -> Vec<String> {
                let about = format!(" {rule} {object} ");
                let lines = text.lines().filter(|line| line.contains(&about));
                lines.map(str::to_string).collect()
            };
            let expected: Vec<String> = events
                .iter()
                .map(|event| {
                    let state = match *event {
                        "down" => "dead",
                        "up" => "alive",
                        _ => "",
                    };
                    format!("{event} {rule} {object} {state} 2 a b; c")
                })
                .collect();
            let found = shell::wait_for(PATIENCE, || {
                told = std::fs::read_to_string(&notes).unwrap_or_default();
                (of_object(&told) == expected).then_some(())
            });
            assert!(
                found.is_some(),
                "{rule} {object} {expected:?}, not:\n{told}"
            );
        }
    }
    // Nobody of them is left.
    let left: Vec<String> = std::fs::read_dir(lab.directory())
        .expect("the lab's folder can be read")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("told."))
        .map(|entry| std::fs::read_to_string(entry.path()).unwrap_or_default())
        .collect();
    assert_eq!(left.len(), 12, "each command has left somebody behind");
    let gone = shell::wait_for(PATIENCE, || {
        let mut pids = left.iter().map(|pid| Path::new("/proc").join(pid.trim()));
        pids.all(|process| !process.exists()).then_some(())
    });
    assert!(
        gone.is_some(),
        "processes that commands left behind live: {left:?}"
    );
    let log = lab.node.manager_log();
    for line in [
        "has lost its quorum of 2",
        "has its quorum of 2 again",
        "notify quorum-down of rule",
        "done, saying 'told quorum-down',",
    ] {
        assert!(log.contains(line), "{line} in:\n{log}");
    }
    lab.node.assert_alive();
}

#[test]
fn a_node_that_is_cut_off_does_not_believe_that_everybody_is_dead() {
    let (lab, mut sites, services) = lab();
    for (service, _) in &services {
        let rule = service.rule();
        lab.node
            .lbadm(&format!("modify-rule -m panic-mode=keep-last {rule}"));
    }
    let shown = |given: &str, said: [&str; 3]| {
        for (service, _) in &services {
            let line = format!("show-server -p -o serverid,status {}", service.rule());
            wait_for(&lab, given, &line, |text| text == states(service, said));
        }
    };
    // One dies, and everybody else is still there.
    let given = "a server that is dead";
    sites[0].kill();
    shown(given, ["dead", "enabled", "enabled"]);
    served_by(&lab, given, &services, &["s2", "s3"]);
    let mut held: Vec<Held> = lab.at("c1").enter(|| {
        let targets = services.iter().map(|(_, target)| *target);
        targets
            .flat_map(|target| [Held::open(target), Held::open(target)])
            .collect()
    });
    // Longer than finding out takes: its death is none of what comes now.
    std::thread::sleep(Duration::from_secs(6));

    let given = "a node whose tests get nowhere";
    lab.at("lb").run("nft add table inet cut");
    let mut chain = lab.at("lb").command("nft");
    chain.arg("add chain inet cut out { type filter hook output priority 0; }");
    shell::run(chain).ok();
    lab.at("lb")
        .run("nft add rule inet cut out tcp dport 8090 drop");
    shown(given, ["dead", "panic", "panic"]);
    served_by(&lab, given, &services, &["s2", "s3"]);
    wait_for(&lab, given, "status", |text| {
        text.contains("0 of 3 servers look alive, fewer than 50 %: panic mode keep-last holds")
    });
    for held in &mut held {
        assert_eq!(
            held.ask().ok().as_ref(),
            Some(&held.server),
            "given {given}"
        );
    }

    // Who comes back unseen is used when everybody is to be.
    sites[0].revive();
    for (service, _) in &services {
        let rule = service.rule();
        lab.node
            .lbadm(&format!("modify-rule -m panic-mode=fail-open {rule}"));
    }
    shown(given, ["panic", "panic", "panic"]);
    served_by(&lab, given, &services, &["s1", "s2", "s3"]);

    lab.at("lb").run("nft delete table inet cut");
    let given = "a node whose tests get through again";
    shown(given, ["enabled", "enabled", "enabled"]);
    served_by(&lab, given, &services, &["s1", "s2", "s3"]);
    for held in &mut held {
        assert_eq!(
            held.ask().ok().as_ref(),
            Some(&held.server),
            "given {given}"
        );
    }
    let log = lab.node.manager_log();
    for line in [
        "so panic mode keep-last holds: those that were alive until then are used all the same",
        "so panic mode fail-open holds: all are used all the same",
        "panic mode fail-open is over, enough servers are alive",
    ] {
        assert!(log.contains(line), "{line} in:\n{log}");
    }
    lab.node.assert_alive();
}
