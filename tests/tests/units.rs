//! The units as systemd runs them: a real one, as process 1 of a small system in the balancer's network, gives the daemons
//! the users, capabilities, limits, seccomp filters and mounts that the units ask for, and traffic flows all the same.

use std::net::SocketAddr;
use std::time::Duration;

use ilb_node::journal::events::{GENERATION_APPLIED, RULE_CREATED, SERVER_DOWN};
use ilb_tests::lab::system::{PATIENCE, System};
use ilb_tests::lab::web::big_file;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load::Load;
use ilb_tests::service::Service;
use ilb_tests::transfer::{Downloads, sha256_of};
use ilb_tests::{Family, Topology, shell};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const UNITS: [&str; 2] = ["ilb.service", "ilb-fastpath.service"];

/// Makes a service by the system's own lbadm; returns where clients find it.
#[track_caller]
fn create(lab: &Lab, system: &System, service: &Service) -> SocketAddr {
    system.lbadm(&service.group_line(lab));
    system.lbadm(&service.rule_line(lab));
    SocketAddr::new(lab.vip(service.family, service.number), 80)
}

/// NAT and HALF-NAT in both families.
#[track_caller]
fn four(lab: &Lab, system: &System) -> Vec<(Service, SocketAddr)> {
    let mut services = Vec::new();
    for topology in [Topology::Nat, Topology::HalfNat] {
        for family in Family::BOTH {
            let service = Service::http(services.len() as u8, topology, family);
            let target = create(lab, system, &service);
            services.push((service, target));
        }
    }
    services
}

#[track_caller]
fn all_served(lab: &Lab, services: &[(Service, SocketAddr)], when: &str) {
    for (service, target) in services {
        let given = format!("given {service} under the units' settings, {when}");
        let tally = Load::new(*target, 30).run(lab.at("c1"));
        tally.none_failed(&given);
        assert_eq!(
            tally.answers.len(),
            3,
            "{given}, then all servers answer: {tally}"
        );
    }
}

/// A line of `/proc/PID/status` of a unit's process.
#[track_caller]
fn status(system: &System, unit: &str, key: &str) -> String {
    let text = system.read(&format!("/proc/{}/status", system.pid(unit)));
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {text}"))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_daemons_do_all_their_work_confined_as_the_units_say() {
    let lab = Lab::new(Spec::default());
    let system = System::with_ilb(&lab);
    let verified = system.run("systemd-analyze verify /usr/lib/systemd/system/ilb.service /usr/lib/systemd/system/ilb-fastpath.service");
    assert_eq!(
        (verified.code, &*verified.stderr),
        (0, ""),
        "given the units, then systemd-analyze verify has nothing to say\n{verified}"
    );
    for unit in UNITS {
        // In tenths; above it the program fails.
        system.run(&format!("systemd-analyze security --no-pager --offline=true --threshold=25 /usr/lib/systemd/system/{unit}")).ok();
    }
    system.start_ilb();

    // What systemd made of the units, seen from the kernel. 12: NET_ADMIN, 13: NET_RAW, 38: PERFMON, 39: BPF.
    let capabilities = |list: &[u32]| {
        let set: u64 = list.iter().map(|capability| 1u64 << capability).sum();
        format!("{set:016x}")
    };
    for (unit, user, allowed, ambient) in [
        (UNITS[0], "ilb", &[12, 13][..], &[][..]),
        (
            UNITS[1],
            "ilb-fastpath",
            &[12, 13, 38, 39],
            &[12, 13, 38, 39],
        ),
    ] {
        let of = |name: &str| status(&system, unit, name);
        let uid = system.run(&format!("id -u {user}")).ok();
        let gid = system.run("id -g ilb").ok();
        let (uid, gid) = (uid.trim(), gid.trim());
        let four_times = |id: &str| [id; 4].join(" ");
        for (name, expected) in [
            ("Uid", four_times(uid)),
            ("Gid", four_times(gid)),
            ("CapBnd", capabilities(allowed)),
            ("CapPrm", capabilities(allowed)),
            ("CapEff", capabilities(allowed)),
            // Ambient ones pass to programs that are started: the manager starts some, and gives them none.
            ("CapAmb", capabilities(ambient)),
            ("NoNewPrivs", "1".to_owned()),
            ("Seccomp", "2".to_owned()),
        ] {
            assert_eq!(
                of(name),
                expected,
                "given {unit} as it runs, then its {name}"
            );
        }
        let root = format!("nsenter -t {} -m", system.pid(unit));
        for folder in ["/usr", "/etc", "/var/log", "/sys/class"] {
            let answer = system.run(&format!("{root} touch {folder}/ilb-was-here"));
            assert!(
                answer.code != 0 && answer.stderr.contains("Read-only"),
                "given {unit}, then {folder} is read-only for it, even for root\n{answer}"
            );
        }
    }
    let pins = format!("nsenter -t {} -m ls /sys/fs/bpf", system.pid(UNITS[1]));
    assert_eq!(
        system.run(&pins).ok(),
        "ilb\n",
        "given ilb-fastpath.service, then it sees no pins but its own"
    );

    let services = four(&lab, &system);
    all_served(&lab, &services, "when they are new");
    the_journal_explains(&lab, &system);
    let shown = system.lbadm("show-statistics -A");
    assert!(shown.lines().count() > 1, "{shown}");
    let explained = system.lbadm(&format!("explain tcp 203.0.113.9:4000 {}", services[0].1));
    assert!(explained.contains("outcome:    sent"), "{explained}");

    // Changes of every kind, the addresses of VIPs among them.
    let group = services[0].0.group();
    system.lbadm(&format!(
        "add-server -s server={}:8080 {group}",
        lab.server(Family::V4, 1)
    ));
    system.lbadm("modify-rule -m lbalg=wlc -t slow-start=2 rule1");
    system.lbadm("disable-rule rule2");
    system.lbadm("enable-rule rule2");
    all_served(&lab, &services, "when they have been changed");

    let expected = sha256_of(&big_file(lab.directory()));
    let downloads: Vec<Downloads> = services
        .iter()
        .map(|(_, target)| Downloads::start(lab.at("c1"), *target, "/paced/big?rate=500000", 5))
        .collect();
    let mut starts = 0;
    for how in [
        "restart ilb-fastpath",
        "restart ilb",
        "kill -s KILL ilb-fastpath",
        "kill -s KILL ilb",
        "restart ilb ilb-fastpath",
        "reload ilb",
        "reload ilb-fastpath",
    ] {
        system.run(&format!("systemctl {how}")).ok();
        let active = shell::wait_for(PATIENCE, || {
            let both = system.run("systemctl is-active ilb ilb-fastpath");
            (both.stdout == "active\nactive\n").then_some(())
        });
        assert!(active.is_some(), "given {how}\n{}", system.journal());
        system.wait_ready();
        all_served(
            &lab,
            &services[..1],
            &format!("when `systemctl {how}` is over"),
        );
        starts += 1;
    }
    assert_eq!(starts, 7);
    let under_way: usize = downloads.iter().map(Downloads::under_way).sum();
    assert!(under_way > 0, "given downloads, then some met everything");
    for set in downloads {
        set.none_broken(
            &expected,
            "given downloads under the units' settings, when everything is restarted",
        );
    }
    let journal: String = system
        .journal()
        .lines()
        // Where systemd itself may not raise limits, as in some containers, nobody gets this one.
        .filter(|line| !line.contains("real-time priority") || real_time_limit(&system) > 0)
        .collect();
    for complaint in [
        "Operation not permitted",
        "Permission denied",
        "Read-only file system",
        "SIGSYS",
    ] {
        assert!(
            !journal.contains(complaint),
            "given all of this, then nothing was refused\n{journal}"
        );
    }
}

/// The real-time priority that the manager may give itself by its limit.
fn real_time_limit(system: &System) -> u32 {
    let limits = system.read(&format!("/proc/{}/limits", system.pid("ilb")));
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max realtime priority"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|soft| soft.parse().ok())
        .expect("a number of the priority")
}

/// Real-time priority and policy of a unit's threads by their names: fields 40 and 41 of proc_pid_stat(5).
fn urgency(system: &System, unit: &str) -> Vec<(String, [u32; 2])> {
    let stats = system.shell(&format!("cat /proc/{}/task/*/stat", system.pid(unit)));
    let of = |stat: &str| {
        let (head, fields) = stat.rsplit_once(") ")?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some((name.to_owned(), [field(40)?, field(41)?]))
    };
    let threads: Option<Vec<_>> = stats.ok().lines().map(of).collect();
    threads.expect("lines of proc_pid_stat(5)")
}

#[test]
fn only_the_thread_of_vrrp_goes_before_ordinary_ones() {
    const ORDINARY: [u32; 2] = [0, 0];
    // SCHED_RR
    const URGENT: [u32; 2] = [10, 2];
    let lab = Lab::new(Spec::default());
    let system = System::with_ilb(&lab);
    system.start_ilb();
    let by_limit = match real_time_limit(&system) {
        0 => ORDINARY,
        _ => URGENT,
    };
    let expect = |given: &str, expected: [u32; 2]| {
        for unit in UNITS {
            let threads = urgency(&system, unit);
            assert!(threads.len() > 1, "{unit}: {threads:?}");
            for (name, found) in threads {
                let expected = if name == "vrrp" { expected } else { ORDINARY };
                assert_eq!(
                    found, expected,
                    "given {given}, then thread {name} of {unit}"
                );
            }
        }
    };
    expect("the units", by_limit);
    // Which does not ask for the limit.
    system.write(
        "/etc/systemd/system/ilb.service.d/nice.conf",
        "[Service]\nCapabilityBoundingSet=CAP_SYS_NICE\nAmbientCapabilities=CAP_SYS_NICE\n",
    );
    system.run("systemctl daemon-reload").ok();
    system.run("systemctl restart ilb").ok();
    system.wait_ready();
    expect("the units and CAP_SYS_NICE", URGENT);
}

/// Entries of the real journal have ids, which the installed catalogue explains, and fields, by which they are found.
fn the_journal_explains(lab: &Lab, system: &System) {
    let said = |ask: &str, sign: &str| {
        let ask = format!("journalctl --no-pager -x {ask}");
        let said = shell::wait_for(PATIENCE, || {
            let said = system.run(&ask).stdout;
            said.contains(sign).then_some(said)
        });
        said.unwrap_or_else(|| panic!("{ask}: no {sign:?}\n{}", system.journal()))
    };
    let created = format!("MESSAGE_ID={}", RULE_CREATED.id);
    let one = said(&format!("{created} ILB_RULE=rule1"), "was created");
    assert!(one.contains("Subject: Rule rule1 was created"), "{one}");
    assert!(!one.contains("rule2"), "{one}");
    let applied = format!(
        "MESSAGE_ID={} _SYSTEMD_UNIT=ilb-fastpath.service",
        GENERATION_APPLIED.id
    );
    said(&applied, "Subject: The fast path forwards by generation ");

    // Nobody listens there.
    let nobody = lab.server(Family::V4, 1);
    system
        .lbadm("create-healthcheck -n -h hc-test=tcp,hc-timeout=5,hc-count=1,hc-interval=6 quick");
    system.lbadm(&format!("create-servergroup -s server={nobody}:9 lonely"));
    system.lbadm("create-rule -e -i vip=192.0.2.99,port=9,manage-addresses=no -m lbalg=rr,type=NAT,proxy-src=192.0.2.98 -h hc-name=quick -o servergroup=lonely lonely");
    let down = format!("MESSAGE_ID={} ILB_SERVER=_lonely.0", SERVER_DOWN.id);
    let down = said(&down, "L4/refused");
    assert!(
        down.contains("Subject: Server _lonely.0 of rule lonely is down"),
        "{down}"
    );
    assert!(down.contains("show-hc-result"), "{down}");
    let fields = system
        .run(&format!(
            "journalctl --no-pager -o json -n 1 MESSAGE_ID={}",
            SERVER_DOWN.id
        ))
        .ok();
    for field in [
        "\"ILB_CODE\":\"L4/refused\"",
        "\"ILB_RULE\":\"lonely\"",
        "\"PRIORITY\":\"4\"",
    ] {
        assert!(fields.contains(field), "{field} in {fields}");
    }
    system.lbadm("delete-rule lonely");
    system.lbadm("delete-servergroup lonely");
}

/// Reload checks the settings first, and says what it did.
#[test]
fn a_reload_takes_new_settings_and_refuses_wrong_ones() {
    let lab = Lab::new(Spec::default());
    let system = System::with_ilb(&lab);
    system.start_ilb();
    let good = system.read("/etc/ilb/ilb.toml");
    let heard = |words: &str| {
        let heard = shell::wait_for(PATIENCE, || system.journal().contains(words).then_some(()));
        assert!(
            heard.is_some(),
            "then it says {words:?}\n{}",
            system.journal()
        );
    };

    system.write(
        "/etc/ilb/ilb.toml",
        &format!("{good}busy-poll = true\n[limits]\nembryonic-percent = 20\n"),
    );
    system.run("systemctl reload ilb").ok();
    heard("settings in force now: limits.embryonic-percent");
    heard("take a restart of ilb and ilb-fastpath: fastpath.busy-poll");
    system.run("systemctl reload ilb-fastpath").ok();
    heard("take a restart of ilb-fastpath: fastpath.busy-poll");

    system.write("/etc/ilb/ilb.toml", &format!("{good}busy-pol = true\n"));
    for unit in UNITS {
        let pid = system.pid(unit);
        let refused = system.run(&format!("systemctl reload {unit}"));
        assert_ne!(
            refused.code, 0,
            "given settings with a mistake, when {unit} is reloaded, then that fails\n{refused}"
        );
        assert_eq!(system.pid(unit), pid, "and it runs on");
        heard("did you mean \"busy-poll\"");
    }
}

/// One of the fast path's workers hangs, then the manager does: nobody feeds the watchdog, systemd starts them anew, and
/// connections go on.
#[test]
fn who_hangs_is_started_anew_and_connections_go_on() {
    let lab = Lab::new(Spec {
        queues: 2,
        ..Spec::default()
    });
    let system = System::with_ilb(&lab);
    for unit in UNITS {
        let path = format!("/etc/systemd/system/{unit}.d/soon.conf");
        system.write(&path, "[Service]\nWatchdogSec=6s\n");
    }
    system.run("systemctl daemon-reload").ok();
    system.start_ilb();
    let services = four(&lab, &system);
    let expected = sha256_of(&big_file(lab.directory()));
    let downloads = Downloads::start(lab.at("c1"), services[0].1, "/paced/big?rate=400000", 10);

    // Fed as long as all is well, for more than twice the time.
    std::thread::sleep(Duration::from_secs(14));
    for unit in UNITS {
        assert_eq!(
            system.property(unit, "NRestarts"),
            "0",
            "given {unit} that works"
        );
    }
    let timed_out = |unit: &str| {
        let ask = format!("journalctl --no-pager -u {unit}");
        let said = shell::wait_for(PATIENCE, || {
            system
                .run(&ask)
                .stdout
                .contains("Watchdog timeout")
                .then_some(())
        });
        assert!(
            said.is_some(),
            "given {unit} that hangs\n{}",
            system.journal()
        );
    };
    let restarted = |unit: &str, before: u32| {
        let restarted = shell::wait_for(PATIENCE, || {
            let pid = system.pid(unit);
            (pid != 0 && pid != before).then_some(())
        });
        assert!(
            restarted.is_some(),
            "given {unit} that hung\n{}",
            system.journal()
        );
        system.wait_ready();
    };

    let fastpath = system.pid(UNITS[1]);
    let worker = worker_thread(&system, fastpath);
    // The thread stops when a tracer says so, and only this one. What is traced is buried by its tracer.
    let tracer = std::thread::spawn(move || {
        ptrace::seize(worker, ptrace::Options::empty()).expect("we may trace it");
        ptrace::interrupt(worker).expect("it can be stopped");
        while let Ok(status) = waitpid(worker, Some(WaitPidFlag::__WALL)) {
            if matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                break;
            }
        }
    });
    timed_out(UNITS[1]);
    restarted(UNITS[1], fastpath);
    tracer.join().expect("the tracer ends");
    assert!(
        system.journal().contains("has not ended a round"),
        "{}",
        system.journal()
    );

    let manager = system.pid(UNITS[0]);
    system.run(&format!("kill -STOP {manager}")).ok();
    timed_out(UNITS[0]);
    restarted(UNITS[0], manager);

    all_served(&lab, &services, "when both have hung");
    downloads.none_broken(&expected, "given downloads, when worker and manager hang");
}

/// One worker of the fast path, as this machine counts threads.
#[track_caller]
fn worker_thread(system: &System, process: u32) -> Pid {
    // In the system's own count the process has another number: look for the thread by both.
    let outside = system.outside(process);
    let tasks = std::fs::read_dir(format!("/proc/{outside}/task")).expect("it runs");
    for task in tasks.flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.trim() == "ilb-worker-1" {
            let id = task
                .file_name()
                .to_string_lossy()
                .parse()
                .expect("a number");
            kill(Pid::from_raw(id), None::<Signal>).expect("it is there");
            return Pid::from_raw(id);
        }
    }
    panic!("process {process} has no second worker");
}
