//! Connections survive what administrators, crashes and upgrades do to everything around them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ilb_tests::capture::Capture;
use ilb_tests::lab::web::big_file;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load::{Load, Tally};
use ilb_tests::service::Service;
use ilb_tests::transfer::{Downloads, sha256_of};
use ilb_tests::{Family, Topology, shell};

const PATIENCE: Duration = Duration::from_secs(15);

/// 100 downloads of more than 10 MiB at once, spread over six services, at `rate` bytes a second each.
struct Hundred {
    sets: Vec<Downloads>,
    expected: String,
}

impl Hundred {
    fn start(lab: &Lab, services: &[(Service, SocketAddr)], rate: u32) -> Hundred {
        let path = format!("/paced/big?rate={rate}");
        let sets = services
            .iter()
            .enumerate()
            .map(|(n, (_, target))| {
                let count = 100 / services.len() + usize::from(n < 100 % services.len());
                Downloads::start(lab.at("c1"), *target, &path, count)
            })
            .collect();
        Hundred {
            sets,
            expected: sha256_of(&big_file(lab.directory())),
        }
    }

    fn under_way(&self) -> usize {
        self.sets.iter().map(Downloads::under_way).sum()
    }

    /// The disturbances are over; all downloads must have met all of them.
    fn still_all_under_way(&self, what: &str) {
        assert_eq!(
            self.under_way(),
            100,
            "given 100 downloads, when {what} is over, then none has ended yet (or it met only a part of it)"
        );
    }

    fn none_broken(self, given_when: &str) {
        for set in self.sets {
            set.none_broken(&self.expected, given_when);
        }
    }
}

/// Rules and servers that have nothing to do with the downloads come and go every 50 ms.
#[test]
fn downloads_survive_unrelated_changes_every_50_ms() {
    let lab = Lab::with_ilb(Spec::default());
    let services = Service::all_six(&lab, 0);
    let downloads = Hundred::start(&lab, &services, 600_000);
    let other = lab.vip(Family::V4, 40);
    let source = lab.proxy_source(Family::V4, 40);
    let script = [
        "create-servergroup -s server=10.2.0.11,10.2.0.12 other".to_owned(),
        format!(
            "create-rule -e -i vip={other},port=81 -m lbalg=hip,type=NAT,proxy-src={source} -o servergroup=other more"
        ),
        "add-server -s server=10.2.0.13 other".to_owned(),
        "disable-rule more".to_owned(),
        "remove-server -s server=10.2.0.12 other".to_owned(),
        "enable-rule more".to_owned(),
        "delete-rule more".to_owned(),
        "delete-servergroup other".to_owned(),
    ];
    let mut changes = 0;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        let next = Instant::now() + Duration::from_millis(50);
        lab.node.lbadm(&script[changes % script.len()]);
        changes += 1;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    downloads.still_all_under_way("the series of changes");
    assert!(
        changes >= 100,
        "given 10 s, when one change follows another every 50 ms, then at least 100 fit (each took less than 100 ms); \
         there were {changes}"
    );
    downloads.none_broken(&format!(
        "given 100 downloads, when {changes} unrelated changes are made"
    ));
    lab.node.assert_alive();
}

/// What is configured, without what only counts.
fn configuration(lab: &Lab) -> String {
    let shown =
        ["show-rule -f", "show-servergroup", "show-server"].map(|command| lab.node.lbadm(command));
    let lines = shown.iter().flat_map(|text| text.lines());
    lines
        .filter(|line| !line.trim_start().starts_with("CONNECTIONS:"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn downloads_survive_ten_kills_of_the_manager() {
    let lab = Lab::with_ilb(Spec::default());
    let services = Service::all_six(&lab, 0);
    let before = configuration(&lab);
    let downloads = Hundred::start(&lab, &services, 600_000);
    for round in 1..=10 {
        lab.node.kill_manager();
        std::thread::sleep(Duration::from_millis(200));
        lab.node.start_manager();
        let begun = Instant::now();
        let works = shell::wait_for(Duration::from_secs(5), || {
            (lab.node.try_lbadm(&["show-rule"]).code == 0).then_some(())
        });
        assert!(
            works.is_some() && begun.elapsed() < Duration::from_secs(2),
            "given a manager killed with -9 (round {round}), when it is started, then lbadm works within 2 s; it took {:?}\n{}",
            begun.elapsed(),
            lab.node.manager_log()
        );
        lab.node.wait_ready();
        assert_eq!(
            configuration(&lab),
            before,
            "given a manager killed with -9 (round {round}), when it is back, then the configuration is what it was"
        );
    }
    downloads.still_all_under_way("the tenth restart of the manager");
    downloads.none_broken(
        "given 100 downloads, when the manager is killed with -9 and restarted ten times",
    );
    // And changes are possible as ever.
    for (service, _) in &services {
        lab.node.lbadm(&format!("delete-rule {}", service.rule()));
    }
}

#[test]
fn downloads_survive_five_kills_of_the_fast_path_and_the_kernel_stays_silent() {
    let lab = Lab::with_ilb(Spec::default());
    let services = Service::all_six(&lab, 0);
    let echo = Service::echo(10, Topology::HalfNat, Family::V4).create(&lab);
    // In the balancer: what its kernel sends passes a capture there, what the fast path sends does not. RSTs of clients
    // and servers (whose FIN may have been lost in a gap) are theirs to send, and only pass through.
    let capture = Capture::start(
        lab.at("lb"),
        "any",
        "(tcp[13] & 4 != 0) or (ip6 and ip6[6] = 6 and ip6[53] & 4 != 0) or (icmp[0] = 3) or (icmp6 and ip6[40] = 1)",
    );
    let closed = SocketAddr::from((lab.client_net().host(Family::V4, 1), 9));
    let refused = lab
        .at("c1")
        .enter(|| std::net::TcpStream::connect(closed).map(drop));
    assert!(
        refused.is_err(),
        "given a port of the balancer itself that nobody serves, then its kernel refuses"
    );
    let downloads = Hundred::start(&lab, &services, 600_000);
    for round in 1..=5 {
        lab.node.kill_fastpath();
        // Somebody new knocks in the middle of the gap, too: a silent balancer makes it try again.
        let running = Load {
            parallel: 6,
            ..Load::new(services[round % services.len()].1, 0)
        }
        .start(lab.at("c1"));
        lab.at("c1").enter(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a free port");
            for _ in 0..10 {
                socket.send_to(b"anybody there?", echo).expect("a route");
            }
        });
        std::thread::sleep(Duration::from_millis(500));
        if round == 3 {
            // It will know nothing until the manager has found it, and has to be silent until then.
            for file in ["snapshot.json", "snapshot.changes"] {
                let _ = std::fs::remove_file(lab.directory().join("run").join(file));
            }
        }
        lab.node.start_fastpath();
        lab.node.wait_ready();
        std::thread::sleep(Duration::from_millis(1200));
        running.stop().none_failed(&format!(
            "given a fast path killed with -9 (round {round}), when new clients come meanwhile"
        ));
    }
    downloads.still_all_under_way("the fifth restart of the fast path");
    downloads.none_broken(
        "given 100 downloads, when the fast path is killed with -9 and restarted five times",
    );
    let sent: Vec<String> = capture.stop();
    let (expected, seen): (Vec<&String>, Vec<&String>) = sent
        .iter()
        .filter(|line| line.contains(" Out "))
        .partition(|line| line.contains(&format!("{}.{} >", closed.ip(), closed.port())));
    assert_eq!(
        expected.len(),
        1,
        "given the one RST that the balancer's kernel was made to send, then the capture shows it (or it shows nothing): {sent:?}"
    );
    assert!(
        seen.is_empty(),
        "given gaps without a fast path, then the kernel answers nobody with RST or unreachable; {} packets it did, the first: {:?}",
        seen.len(),
        &seen[..seen.len().min(3)]
    );
}

#[test]
fn stop_and_start_brings_everything_back_without_a_command() {
    let lab = Lab::with_ilb(Spec::default());
    let services = Service::all_six(&lab, 0);
    let before = configuration(&lab);
    lab.node.stop();
    assert_eq!(
        lab.node.try_lbadm(&["show-rule"]).code,
        3,
        "given a stopped node, when lbadm asks, then it says not running"
    );
    lab.node.start();
    assert_eq!(
        configuration(&lab),
        before,
        "given a stop and a start, then the configuration is what it was"
    );
    for (service, target) in services {
        let given = format!("given {service}, when the node was stopped and started");
        let tally = Load::new(target, 30).run(lab.at("c1"));
        tally.none_failed(&given);
        assert_eq!(
            tally.answers.len(),
            3,
            "{given}, then all servers answer: {tally}"
        );
    }
}

/// The other order: the manager is up before the fast path, and after a cold start of the fast path alone.
#[test]
fn the_order_of_starting_does_not_matter() {
    let lab = Lab::with_ilb(Spec::default());
    let service = Service::http(0, Topology::Nat, Family::V4);
    let target = service.create(&lab);
    lab.node.stop();
    lab.node.start_manager();
    let answers = shell::wait_for(Duration::from_secs(5), || {
        (lab.node.try_lbadm(&["show-rule"]).code == 0).then_some(())
    });
    assert!(
        answers.is_some(),
        "given no fast path, when the manager starts, then it answers"
    );
    lab.node.start_fastpath();
    lab.node.wait_ready();
    Load::new(target, 30)
        .run(lab.at("c1"))
        .none_failed("given a fast path that started after the manager, when requests come");
}

/// Ids of the servers of a group, by server name.
fn ids(lab: &Lab, group: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in lab
        .node
        .lbadm("show-servergroup -p -o sgname,serverid,ip_address")
        .lines()
    {
        // `:` separates, and is escaped within an address.
        let fields: Vec<String> = line
            .replace("\\:", "\u{0}")
            .split(':')
            .map(|field| field.replace('\u{0}', ":"))
            .collect();
        if fields.len() == 3 && fields[0] == group {
            for family in Family::BOTH {
                for n in 1..=3 {
                    if fields[2] == lab.server(family, n).to_string() {
                        found.insert(format!("s{n}"), fields[1].clone());
                    }
                }
            }
        }
    }
    assert_eq!(
        found.len(),
        3,
        "given group {group} of three, then show-servergroup lists three ids"
    );
    found
}

/// Under load, `take` brings server 2 out of service; its downloads finish, new connections go elsewhere at once;
/// then `restore` brings it back.
fn leave_under_load(lab: &Lab, service: &Service, target: SocketAddr, take: &str, restore: &str) {
    let given = format!("given {service} under load, when `lbadm {take}` returns");
    let expected = sha256_of(&big_file(lab.directory()));
    let downloads = Downloads::start(lab.at("c1"), target, "/paced/big?rate=3000000", 12);
    let load = Load {
        parallel: 4,
        ..Load::new(target, 0)
    }
    .start(lab.at("c1"));
    let seen = |tally: &Tally, when: &str| {
        tally.none_failed(&format!("given {service} under load, {when}"));
        tally.of("s2")
    };
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        seen(&load.take(), "when all servers are in service") > 0,
        "given {service} under load, when all servers are in service, then server 2 answers some"
    );
    lab.node.lbadm(take);
    // Requests that were under way when the command returned may still end.
    std::thread::sleep(Duration::from_millis(200));
    load.take().none_failed(&given);
    std::thread::sleep(Duration::from_secs(1));
    let after = load.take();
    assert_eq!(
        seen(&after, "when server 2 has left"),
        0,
        "{given}, then no new connection goes to server 2: {after}"
    );
    assert!(
        after.total() > 100,
        "{given}, then the others carry on: {after}"
    );
    assert!(
        downloads.under_way() > 0,
        "{given}, then downloads are still under way (or the test shows nothing)"
    );
    downloads.none_broken(&expected, &given);
    lab.node.lbadm(restore);
    // Within a time in which each client asks again, also one whose packets were lost.
    let mut back = Tally::default();
    let answers = shell::wait_for(PATIENCE, || {
        back = load.take();
        (seen(&back, "when server 2 is back") > 0).then_some(())
    });
    assert!(
        answers.is_some(),
        "given {service} under load, when `lbadm {restore}` has returned, then server 2 answers again: {back}"
    );
    load.stop()
        .none_failed(&format!("given {service} under load, to the end"));
}

#[test]
fn a_server_can_be_disabled_under_load() {
    let lab = Lab::with_ilb(Spec::default());
    for (service, target) in Service::all_six(&lab, 0) {
        let id = ids(&lab, &service.group())["s2"].clone();
        leave_under_load(
            &lab,
            &service,
            target,
            &format!("disable-server {id}"),
            &format!("enable-server {id}"),
        );
    }
}

#[test]
fn a_server_can_be_removed_under_load() {
    let lab = Lab::with_ilb(Spec::default());
    for (service, target) in Service::all_six(&lab, 0) {
        let id = ids(&lab, &service.group())["s2"].clone();
        let server = ilb_tests::lab::plan::bracketed(lab.server(service.family, 2));
        leave_under_load(
            &lab,
            &service,
            target,
            &format!("remove-server -s server={id} {}", service.group()),
            &format!("add-server -s server={server} {}", service.group()),
        );
    }
}

/// A rule that is disabled under load lets its connections finish and takes no new ones.
#[test]
fn a_rule_can_be_disabled_under_load() {
    let lab = Lab::with_ilb(Spec::default());
    let expected = sha256_of(&big_file(lab.directory()));
    for (service, target) in Service::all_six(&lab, 0) {
        let downloads = Downloads::start(lab.at("c1"), target, "/paced/big?rate=4000000", 6);
        lab.node.lbadm(&format!("disable-rule {}", service.rule()));
        let refused = AtomicBool::new(false);
        lab.at("c1").enter(|| {
            let timeout = Duration::from_millis(300);
            let outcome = std::net::TcpStream::connect_timeout(&target, timeout);
            refused.store(outcome.is_err(), Ordering::Relaxed);
        });
        assert!(
            refused.load(Ordering::Relaxed),
            "given {service}, when its rule is disabled, then no new connection is taken"
        );
        downloads.none_broken(
            &expected,
            &format!("given {service}, when its rule is disabled while downloads run"),
        );
        lab.node.lbadm(&format!("enable-rule {}", service.rule()));
        Load::new(target, 9)
            .run(lab.at("c1"))
            .none_failed(&format!("given {service}, when its rule is enabled again"));
    }
}
