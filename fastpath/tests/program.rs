//! The real program between real interfaces. Needs root, and says so without it.

mod lab;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use ilb_forwarder::spec::Topology;
use ilb_node::control::{Drift, Request, Response, XdpMode};
use lab::{Lab, SERVERS4, SERVERS6, VIP4, VIP6, echo, rule, run, wait};

/// Shorter than the second after which TCP repeats a lost SYN.
const WITHOUT_REPETITION: Duration = Duration::from_millis(900);

fn both_families(topology4: Topology) -> Vec<ilb_forwarder::spec::RuleSpec> {
    vec![
        rule(1, VIP4, topology4, &SERVERS4),
        rule(2, VIP6, Topology::HalfNat, &SERVERS6),
    ]
}

/// Thirty connections by each VIP; every server gets its share.
fn shares(lab: &Lab) {
    for vip in [VIP4, VIP6] {
        let mut answers: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..30 {
            let (mut stream, name) = lab.connect(vip, WITHOUT_REPETITION).unwrap();
            echo(&mut stream, 5000);
            *answers.entry(name).or_default() += 1;
        }
        assert_eq!(answers.len(), 3, "{answers:?}");
        assert!(answers.values().all(|n| *n == 10), "{answers:?}");
    }
}

/// Until connections are made by both VIPs.
fn wait_for_both(lab: &Lab) {
    for vip in [VIP4, VIP6] {
        wait("a connection by an interface that has come", || {
            lab.connect(vip, Duration::from_millis(200)).ok()
        });
    }
}

#[test]
fn traffic_flows_at_once_in_both_families() {
    for topology in [Topology::HalfNat, Topology::Nat] {
        let mut lab = Lab::new(2);
        lab.serve();
        lab.start();
        assert_eq!(lab.hello().generation, 0);
        // Nobody knows anybody's Ethernet address: the first packet has to wait and must not be lost.
        lab.apply(1, both_families(topology));
        shares(&lab);
        let status = lab.status();
        assert_eq!((status.generation, status.workers), (1, 2));
        for interface in &status.interfaces {
            assert_eq!(interface.mode, XdpMode::Native);
            assert_eq!(interface.queues, 2);
            assert!(!interface.zero_copy && !interface.copy_reason.is_empty());
            assert!(interface.rx_packets > 60 && interface.tx_packets > 60);
        }
        let statistics = lab.statistics();
        assert_eq!(statistics.totals.new_connections, 60);
        let drops: u64 = statistics.drops.values().sum();
        assert_eq!(drops, 0, "{:?}", statistics.drops);
        assert!(!lab.log().contains("ERROR"), "{}", lab.log());
    }
}

#[test]
fn connections_outlive_the_process() {
    let mut lab = Lab::new(2);
    lab.serve();
    lab.start();
    lab.apply(7, both_families(Topology::Nat));
    let (mut nat, _) = lab.connect(VIP4, WITHOUT_REPETITION).unwrap();
    let (mut half_nat, _) = lab.connect(VIP6, WITHOUT_REPETITION).unwrap();
    let first = lab.hello();
    for signal in [libc::SIGKILL, libc::SIGKILL, libc::SIGTERM] {
        echo(&mut nat, 3000);
        echo(&mut half_nat, 3000);
        let began = Instant::now();
        let status = lab.end(signal);
        if signal == libc::SIGTERM {
            assert!(status.success(), "{status}");
            assert!(began.elapsed() < Duration::from_secs(1));
        }
        // Silence, not a reset: the kernel has this address and no such port.
        let error = lab
            .connect(VIP4, Duration::from_millis(300))
            .map(|(_, name)| name)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        lab.start();
        let hello = lab.hello();
        assert_eq!(hello.generation, 7);
        assert_ne!(hello.start_id, first.start_id);
        assert_eq!(hello.version, first.version);
    }
    echo(&mut nat, 3000);
    echo(&mut half_nat, 3000);
    shares(&lab);
    let open: u64 = lab
        .statistics()
        .rules
        .iter()
        .map(|rule| rule.counters.connections_open)
        .sum();
    assert!(open >= 2, "{open}");
}

#[test]
fn a_bad_snapshot_is_refused_and_changes_nothing() {
    let mut lab = Lab::new(2);
    lab.serve();
    lab.start();
    lab.apply(1, both_families(Topology::Nat));
    let mut twice = both_families(Topology::Nat);
    twice.push(rule(3, VIP4, Topology::HalfNat, &SERVERS4));
    let answer = lab.ask(&Request::Apply(ilb_forwarder::spec::SnapshotSpec {
        generation: 2,
        rules: twice,
        ..ilb_forwarder::spec::SnapshotSpec::default()
    }));
    match answer {
        Response::Rejected { generation, reason } => {
            assert_eq!(generation, 2);
            assert!(reason.contains(VIP4), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(lab.hello().generation, 1);
    shares(&lab);
}

#[test]
fn what_is_none_of_ours_reaches_the_kernel() {
    let mut lab = Lab::new(2);
    lab.serve();
    lab.start();
    let mut rules = both_families(Topology::Nat);
    for rule in &mut rules {
        rule.accepting = false;
    }
    lab.apply(1, rules);
    for vip in [VIP4, VIP6] {
        let error = lab
            .connect(vip, WITHOUT_REPETITION)
            .map(|(_, name)| name)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    }
    assert_eq!(lab.statistics().totals.unprocessed_packets, 2);
}

/// A connection that is refused was answered by the kernel.
fn refused(lab: &Lab, vip: &str, port: u16) -> bool {
    let target = (vip.parse::<std::net::IpAddr>().unwrap(), port).into();
    let error = lab
        .within("client", || {
            std::net::TcpStream::connect_timeout(&target, Duration::from_millis(300))
        })
        .unwrap_err();
    match error.kind() {
        ErrorKind::ConnectionRefused => true,
        ErrorKind::TimedOut => false,
        _ => panic!("{vip} port {port}: {error}"),
    }
}

#[test]
fn a_closed_address_is_the_rules_alone() {
    let mut lab = Lab::new(2);
    lab.serve();
    lab.start();
    // One port that rules have, and take no connections at; all others are not steered at all.
    let with_silent = |lab: &Lab, generation| {
        let mut rules = both_families(Topology::HalfNat);
        for (id, vip) in [(11, VIP4), (12, VIP6)] {
            let mut silent = rule(id, vip, Topology::Dsr, &[]);
            silent.vips[0].ports = ilb_forwarder::spec::PortRange::single(lab::PORT + 1);
            silent.accepting = false;
            rules.push(silent);
        }
        lab.apply(generation, rules);
    };
    with_silent(&lab, 1);
    let close = |lab: &Lab, vips: &[&str]| {
        let vips = vips.iter().map(|vip| vip.parse().unwrap()).collect();
        assert_eq!(lab.ask(&Request::Close(vips)), Response::Closed);
    };
    let kernel_answers = |lab: &Lab, given: &str, expected: bool| {
        for vip in [VIP4, VIP6] {
            for port in [lab::PORT + 1, 22] {
                assert_eq!(refused(lab, vip, port), expected, "{given}: {vip} {port}");
            }
        }
    };
    kernel_answers(&lab, "given open addresses", true);
    close(&lab, &[VIP4, VIP6]);
    kernel_answers(&lab, "given closed addresses", false);
    shares(&lab);
    let statistics = lab.statistics();
    let closed = statistics.drops["address-closed"];
    assert!(closed >= 4, "a SYN for each at least: {statistics:?}");
    let totals = statistics.totals;
    assert!(totals.dropped_packets >= closed && totals.dropped_bytes >= 40 * closed);

    // Whoever comes after it knows, and counts from zero.
    lab.end(libc::SIGKILL);
    lab.start();
    assert_eq!(lab.statistics().drops["address-closed"], 0);
    kernel_answers(&lab, "given another process", false);
    assert!(lab.statistics().drops["address-closed"] >= 4);
    shares(&lab);
    close(&lab, &[]);
    kernel_answers(&lab, "given addresses that are open again", true);
    shares(&lab);
}

#[test]
fn one_worker_serves_all_queues_and_sleeps_when_there_is_nothing_to_do() {
    let mut lab = Lab::new(2);
    lab.settings("queues = 1");
    lab.serve();
    lab.start();
    lab.apply(1, both_families(Topology::HalfNat));
    shares(&lab);
    let status = lab.status();
    assert_eq!(status.workers, 1);
    assert!(status.interfaces.iter().all(|i| i.queues == 2));
    let before = lab.ticks();
    std::thread::sleep(Duration::from_secs(4));
    let used = lab.ticks() - before;
    assert!(used <= 4, "{used} % of a processor while idle");
}

#[test]
fn generic_mode_works_and_excludes_zero_copy() {
    let mut lab = Lab::new(2);
    lab.settings("mode = \"generic\"");
    lab.serve();
    lab.start();
    lab.apply(1, both_families(Topology::Nat));
    shares(&lab);
    for interface in lab.status().interfaces {
        assert_eq!(interface.mode, XdpMode::Generic);
        assert!(
            interface.copy_reason.contains("generic"),
            "{}",
            interface.copy_reason
        );
    }
    lab.end(libc::SIGTERM);
    // What is attached stays as it is, and after decommissioning the driver is asked.
    lab.settings("zero-copy = \"require\"");
    for reason in ["runs in generic mode", "does not offer"] {
        let output = lab.command(&[]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(said.contains(reason), "{said}");
        assert!(lab.command(&["--detach"]).status().unwrap().success());
    }
}

#[test]
fn two_workers_send_through_an_interface_with_one_queue() {
    let mut lab = Lab::new(1);
    lab.serve();
    lab.start();
    lab.apply(1, both_families(Topology::Nat));
    shares(&lab);
    let queues: Vec<u32> = lab.status().interfaces.iter().map(|i| i.queues).collect();
    assert_eq!(queues, [2, 1]);
}

#[test]
fn a_dead_next_hop_costs_its_own_packets_only() {
    let mut lab = Lab::new(2);
    lab.serve();
    lab.start();
    let mut rules = both_families(Topology::Nat);
    let mut dead = rule(3, VIP4, Topology::Nat, &["10.2.0.99"]);
    dead.vips[0].ports = ilb_forwarder::spec::PortRange::single(lab::PORT + 1);
    rules.push(dead);
    lab.apply(1, rules);
    let address = (VIP4.parse::<std::net::IpAddr>().unwrap(), lab::PORT + 1).into();
    let error = lab
        .within("client", || {
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    shares(&lab);
    wait("the drop to be counted", || {
        let drops = lab.statistics().drops;
        (drops["neighbour-unresolved"] >= 1).then_some(())
    });
}

#[test]
fn an_interface_that_comes_back_is_served_again() {
    let mut lab = Lab::new(2);
    lab.serve();
    lab.start();
    lab.apply(1, both_families(Topology::HalfNat));
    shares(&lab);
    let balancer = lab.namespace("balancer");
    // Up and down is no reason to open anything anew.
    run(&format!("ip -n {balancer} link set cl down"));
    run(&format!("ip -n {balancer} link set cl up"));
    run(&format!(
        "ip -n {balancer} addr add {VIP6}/128 dev cl nodad"
    ));
    run(&format!(
        "ip -n {balancer} addr add fd01::1/64 dev cl nodad"
    ));
    // The kernel may take a second until it sends by an interface that has come up (`linkwatch_event`).
    wait_for_both(&lab);
    shares(&lab);
    // The first interface of the settings is the one that the packet memory was made with.
    for (at, name) in ["cl", "sv"].into_iter().enumerate() {
        run(&format!("ip -n {balancer} link del {name}"));
        wait("the interface's absence", || {
            let status = lab.status();
            (!status.interfaces[at].mode_reason.is_empty()).then_some(())
        });
        lab.join(name, 2);
        wait_for_both(&lab);
        shares(&lab);
    }
    // And one that is not there at the start.
    lab.end(libc::SIGTERM);
    run(&format!("ip -n {balancer} link del sv"));
    lab.start();
    lab.join("sv", 2);
    wait_for_both(&lab);
    shares(&lab);
    assert!(!lab.log().contains("ERROR"), "{}", lab.log());
}

#[test]
fn what_somebody_takes_out_of_the_kernel_is_put_back() {
    let mut lab = Lab::new(2);
    lab.serve();
    lab.start();
    lab.apply(1, both_families(Topology::HalfNat));
    let (mut held, _) = lab.connect(VIP4, WITHOUT_REPETITION).unwrap();
    assert_eq!(lab.status().drift, []);
    // As `ilb-fastpath --detach` would, were it not for its lock: the program off both interfaces, and every pin deleted.
    xdp_redirect::Redirect::detach_all(lab.pins()).unwrap();
    assert!(!lab.pins().exists());
    let status = lab.status();
    let count = |what: &str| {
        let all = status.drift.iter().filter(|drift| drift.what == what);
        let right = |drift: &&Drift| drift.repaired >= drift.since && drift.trouble.is_empty();
        all.filter(right).count()
    };
    // Links are pinned anew with their programs, maps by themselves.
    assert_eq!((count("program"), count("pin")), (2, 10), "{status:#?}");
    echo(&mut held, 3000);
    shares(&lab);

    // The pins alone: nothing goes with them, and the next process finds everything.
    for pin in std::fs::read_dir(lab.pins()).unwrap() {
        let pin = pin.unwrap().path();
        if pin.is_file() {
            std::fs::remove_file(pin).unwrap();
        }
    }
    wait("the pins' return", || {
        let pins = std::fs::read_dir(lab.pins()).ok()?;
        let links = pins.filter(|pin| pin.as_ref().is_ok_and(|pin| pin.path().is_file()));
        (links.count() == 2).then_some(())
    });
    lab.end(libc::SIGKILL);
    lab.start();
    echo(&mut held, 3000);
    shares(&lab);
    assert!(!lab.log().contains("ERROR"), "{}", lab.log());
}

#[test]
fn a_second_fast_path_is_told_so_and_decommissioning_leaves_nothing() {
    let mut lab = Lab::new(2);
    lab.start();
    for arguments in [&[][..], &["--detach"]] {
        let output = lab.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(said.contains("another ilb-fastpath"), "{said}");
    }
    lab.end(libc::SIGTERM);
    assert!(lab.pins().exists());
    let output = lab.command(&["--detach"]).output().unwrap();
    assert!(output.status.success());
    assert!(!lab.pins().exists());
    let link = lab.namespace("balancer");
    let shown = std::process::Command::new("ip")
        .args(["-n", &link, "link", "show", "cl"])
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("xdp"));
}
