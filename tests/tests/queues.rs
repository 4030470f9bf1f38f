//! Several queues: requests on one, replies on another, and both spread over all.

use ilb_tests::lab::web::big_file;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load::Load;
use ilb_tests::service::Service;
use ilb_tests::transfer::{Downloads, sha256_of};
use ilb_tests::{Family, Topology, udp};

/// Packets that the XDP program saw on a receive queue of the balancer.
fn received(lab: &Lab, device: &str, queue: u32) -> u64 {
    let wanted = format!("rx_queue_{queue}_xdp_packets:");
    lab.at("lb")
        .run(&format!("ethtool -S {device}"))
        .lines()
        .find_map(|line| line.trim().strip_prefix(&wanted)?.trim().parse().ok())
        .unwrap_or_else(|| panic!("{device} of the balancer has no counter {wanted}"))
}

#[test]
fn replies_on_the_other_queue_are_exact() {
    let lab = Lab::with_ilb(Spec {
        queues: 2,
        replies_on_last_queue: true,
        ..Spec::default()
    });
    let mut number = 0;
    let expected = sha256_of(&big_file(lab.directory()));
    for topology in [Topology::HalfNat, Topology::Nat] {
        for family in Family::BOTH {
            let service = Service::http(number, topology, family);
            number += 1;
            let target = service.create(&lab);
            let before = [
                received(&lab, "eth0", 0),
                received(&lab, "eth1", 1),
                received(&lab, "eth0", 1),
            ];
            let given = format!(
                "given {service} and replies on the other queue, when 3,000 requests are sent"
            );
            let tally = Load::new(target, 3000).run(lab.at("c1"));
            tally.none_failed(&given);
            for server in ["s1", "s2", "s3"] {
                assert_eq!(
                    tally.of(server),
                    1000,
                    "{given}, then {server} answers 1,000: {tally}"
                );
            }
            let after = [
                received(&lab, "eth0", 0),
                received(&lab, "eth1", 1),
                received(&lab, "eth0", 1),
            ];
            assert!(
                after[0] - before[0] > 9000 && after[1] - before[1] > 9000,
                "{given}, then requests came on queue 0 and replies on queue 1 (or the test shows nothing): \
                 {before:?} before, {after:?} after"
            );
            // A handful of ND or ARP packets of the switch's other ports may come on queue 1.
            assert!(
                after[2] - before[2] < 100,
                "{given}, then no request came on queue 1: {before:?} before, {after:?} after"
            );
            Downloads::start(lab.at("c1"), target, "/files/big", 10).none_broken(
                &expected,
                &format!("given {service} and replies on the other queue, when ten downloads run"),
            );
        }
    }
    lab.node.assert_alive();
}

#[test]
fn traffic_spread_over_all_queues_works_in_every_topology() {
    let lab = Lab::with_ilb(Spec {
        queues: 2,
        ..Spec::default()
    });
    for (service, target) in Service::all_six(&lab, 0) {
        let given = format!("given {service} on two queues, when 1,000 requests are sent");
        let tally = Load::new(target, 1000).run(lab.at("c1"));
        tally.none_failed(&given);
        assert_eq!(
            tally.answers.len(),
            3,
            "{given}, then all servers answer: {tally}"
        );
        for count in tally.answers.values() {
            assert!(
                (333..=334).contains(count),
                "{given}, then the workers share one turn, and shares are exact: {tally}"
            );
        }
    }
    let mut number = 20;
    for topology in [Topology::HalfNat, Topology::Nat] {
        for family in Family::BOTH {
            if topology == Topology::HalfNat {
                lab.udp_echo(family, &[], 7);
            }
            let service = Service::echo(number, topology, family);
            number += 1;
            let target = service.create(&lab);
            for (first_port, size) in [(20_000, 100), (21_000, 4000)] {
                let answers = udp::tally(lab.at("c1"), target, first_port, 100, size).unwrap_or_else(|error| {
                    panic!("given {service} on two queues, when 100 datagrams of {size} bytes are sent, then all are answered: {error}")
                });
                assert_eq!(answers.values().sum::<usize>(), 100);
            }
        }
    }
    for queue in 0..2 {
        assert!(
            received(&lab, "eth0", queue) > 100,
            "given two queues, then queue {queue} saw traffic (or the test shows nothing)"
        );
    }
}
