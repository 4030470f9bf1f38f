//! Real requests through the whole chain, in every topology and family.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load::Load;
use ilb_tests::service::Service;
use ilb_tests::{Family, Topology, udp};

/// 3,000 requests a family, none failed, exactly a third for each server; curl agrees.
fn round_robin_is_exact(topology: Topology) {
    let lab = Lab::with_ilb(Spec::default());
    for (number, family) in Family::BOTH.into_iter().enumerate() {
        let service = Service::http(number as u8, topology, family);
        let target = service.create(&lab);
        let given = format!("given {service}, when 3,000 requests are sent");
        let tally = Load::new(target, 3000).run(lab.at("c1"));
        tally.none_failed(&given);
        for server in ["s1", "s2", "s3"] {
            assert_eq!(
                tally.of(server),
                1000,
                "{given}, then {server} answers exactly 1,000: {tally}"
            );
        }
        let answer = lab.at("c1").try_run(&format!(
            "curl -sS --globoff --max-time 10 -H Connection:close http://{target}/"
        ));
        assert!(
            answer.code == 0 && ["s1\n", "s2\n", "s3\n"].contains(&answer.stdout.as_str()),
            "given {service}, when curl asks, then a server answers\n{answer}"
        );
    }
    lab.node.assert_alive();
}

#[test]
fn dsr_shares_exactly() {
    round_robin_is_exact(Topology::Dsr);
}

#[test]
fn half_nat_shares_exactly() {
    round_robin_is_exact(Topology::HalfNat);
}

#[test]
fn nat_shares_exactly() {
    round_robin_is_exact(Topology::Nat);
}

/// What the servers see: the client's own address under DSR and HALF-NAT, a proxy-src address under NAT.
#[test]
fn servers_see_the_addresses_of_their_topology() {
    let lab = Lab::with_ilb(Spec::default());
    for (service, target) in Service::all_six(&lab, 0) {
        let tally = Load::new(target, 9).path("/who").run(lab.at("c1"));
        tally.none_failed(&format!(
            "given {service}, when nine clients ask who they are"
        ));
        for answer in tally.answers.keys() {
            let words: Vec<&str> = answer.split(' ').collect();
            let (server, client) = (words[1].parse().ok(), words[3].parse().ok());
            let vip = Some(target.ip());
            let number: u8 = words[0][1..]
                .parse()
                .expect("a server's name is s and its number");
            let own = Some(lab.server(service.family, number));
            let from = Some(lab.client(service.family, 1));
            let proxy = Some(lab.proxy_source(service.family, service.number));
            let expected = match service.topology {
                Topology::Dsr => (vip, from),
                Topology::HalfNat => (own, from),
                Topology::Nat => (own, proxy),
            };
            assert_eq!(
                (server, client),
                expected,
                "given {service}, then {} sees its address and the client's as that topology has it: {answer}",
                words[0]
            );
        }
    }
}

/// Under hash-ip and hash-ip-vip a client address stays with its server, and clients are spread.
#[test]
fn hashing_keeps_a_client_on_its_server() {
    let lab = Lab::with_ilb(Spec {
        sources: 40,
        ..Spec::default()
    });
    let mut number = 0;
    for algorithm in ["hash-ip", "hash-ip-vip"] {
        for family in Family::BOTH {
            for topology in Topology::ALL {
                let service = Service::http(number, topology, family).algorithm(algorithm);
                number += 1;
                let target = service.create(&lab);
                let given = format!("given {service}, when 40 clients send ten requests each");
                let tally = Load::new(target, 400)
                    .from(lab.sources(family))
                    .run(lab.at("c1"));
                tally.none_failed(&given);
                assert_eq!(tally.by_source.len(), 40, "{given}, then all are counted");
                for (source, answers) in &tally.by_source {
                    assert_eq!(
                        answers.len(),
                        1,
                        "{given}, then {source} stays with one server: {answers:?}"
                    );
                }
                // 40 clients on three servers: one without any has a chance of 3·(2/3)^40 < 10^-6.
                assert_eq!(
                    tally.answers.len(),
                    3,
                    "{given}, then every server has some: {tally}"
                );
            }
        }
    }
}

/// Under hash-ip-port an address and port stay with their server, and ports are spread.
#[test]
fn hashing_with_ports_keeps_an_address_and_port_on_its_server() {
    let lab = Lab::with_ilb(Spec::default());
    for (number, family) in Family::BOTH.into_iter().enumerate() {
        let service =
            Service::echo(number as u8, Topology::HalfNat, family).algorithm("hash-ip-port");
        lab.udp_echo(family, &[], 7);
        let target = service.create(&lab);
        let mut servers = BTreeSet::new();
        for port in 20_000..20_040 {
            let mut of_port = BTreeSet::new();
            for round in 0..5u8 {
                let answer = lab.at("c1").enter(|| udp::ask(target, port, &[round; 100]));
                of_port.insert(answer.unwrap_or_else(|error| {
                    panic!("given {service}, when port {port} asks, then it is answered: {error}")
                }));
            }
            assert_eq!(
                of_port.len(),
                1,
                "given {service}, when port {port} asks five times, then one server answers: {of_port:?}"
            );
            servers.extend(of_port);
        }
        assert_eq!(
            servers.len(),
            3,
            "given {service}, when 40 ports ask, then every server has some"
        );
    }
}

/// UDP through every topology: 300 flows shared exactly, datagrams small, full-sized and fragmented.
#[test]
fn udp_echo_in_every_topology() {
    let lab = Lab::with_ilb(Spec::default());
    let mut number = 0;
    for topology in Topology::ALL {
        for family in Family::BOTH {
            let service = Service::echo(number, topology, family);
            let vip = lab.vip(family, number);
            number += 1;
            let target = service.create(&lab);
            // The echoes of the DSR rounds, which come first, answer at the servers' own addresses too.
            if topology == Topology::Dsr {
                lab.udp_echo(family, &[vip], 7);
            }
            for (first_port, size) in [(20_000, 0), (21_000, 1), (22_000, 64), (23_000, 1400)] {
                let answers = udp::tally(lab.at("c1"), target, first_port, 300, size).unwrap_or_else(|error| {
                    panic!("given {service}, when 300 datagrams of {size} bytes are sent, then all are answered: {error}")
                });
                let expected: BTreeMap<String, usize> = ["s1", "s2", "s3"]
                    .map(|server| (server.to_owned(), 100))
                    .into();
                assert_eq!(
                    answers, expected,
                    "given {service}, when 300 flows of {size} bytes are sent, then each server has exactly 100"
                );
            }
            for (first_port, size) in [(24_000, 1473), (25_000, 4000), (26_000, 20_000)] {
                let answers = udp::tally(lab.at("c1"), target, first_port, 30, size).unwrap_or_else(|error| {
                    panic!("given {service}, when 30 datagrams of {size} bytes come in fragments, then all are answered: {error}")
                });
                assert_eq!(
                    answers.values().sum::<usize>(),
                    30,
                    "given {service}, when 30 datagrams of {size} bytes come in fragments, then all are answered"
                );
            }
        }
    }
}

/// One interface is enough.
#[test]
fn one_armed_balancer_works_in_every_topology() {
    let lab = Lab::with_ilb(Spec {
        one_armed: true,
        ..Spec::default()
    });
    for (service, target) in Service::all_six(&lab, 0) {
        let given = format!("given a one-armed balancer and {service}, when 300 requests are sent");
        let tally = Load::new(target, 300).run(lab.at("c1"));
        tally.none_failed(&given);
        for server in ["s1", "s2", "s3"] {
            assert_eq!(
                tally.of(server),
                100,
                "{given}, then {server} answers 100: {tally}"
            );
        }
    }
}

/// Server ports: the same as the rule's, all collapsed to one, and a range shifted.
#[test]
fn ports_are_mapped() {
    let lab = Lab::with_ilb(Spec::default());
    let mut number = 0;
    for topology in [Topology::HalfNat, Topology::Nat] {
        for family in Family::BOTH {
            for (ports, server_ports, pairs) in [
                ("8080-8083", "", [(8080, 8080), (8083, 8083)]),
                ("20000-20010", ":9000", [(20_000, 9000), (20_010, 9000)]),
                (
                    "18080-18083",
                    ":8080-8083",
                    [(18_080, 8080), (18_083, 8083)],
                ),
            ] {
                let service = Service {
                    ports,
                    server_ports,
                    ..Service::http(number, topology, family)
                };
                number += 1;
                let target = service.create(&lab);
                for (asked, expected) in pairs {
                    let mut at = target;
                    at.set_port(asked);
                    let tally = Load::new(at, 6).path("/who").run(lab.at("c1"));
                    tally.none_failed(&format!(
                        "given {service} with ports {ports} to `{server_ports}`, when port {asked} is asked"
                    ));
                    for answer in tally.answers.keys() {
                        assert_eq!(
                            answer.split(' ').nth(2),
                            Some(expected.to_string().as_str()),
                            "given {service} with ports {ports} to `{server_ports}`, when port {asked} is asked, then \
                             the server sees port {expected}: {answer}"
                        );
                    }
                }
            }
        }
    }
}

/// The packet that finds no link-layer address waits for it instead of being lost: no retransmission is needed.
#[test]
fn the_first_packet_survives_an_unresolved_neighbour() {
    let lab = Lab::with_ilb(Spec::default());
    for (service, target) in Service::all_six(&lab, 0) {
        lab.at("lb").run("ip neigh flush all");
        lab.at("lb").run("ip -6 neigh flush all");
        // One at a time: the first three meet one unresolved server each.
        let tally = Load::new(target, 6).sequential().run(lab.at("c1"));
        let given =
            format!("given {service} and an empty neighbour table, when the first requests come");
        tally.none_failed(&given);
        // A lost SYN would be repeated after one second.
        assert!(
            tally.slowest < Duration::from_millis(900),
            "{given}, then none needs a retransmission: the slowest took {:?}",
            tally.slowest
        );
    }
}

/// The balancer's own addresses are its kernel's business.
#[test]
fn traffic_that_is_none_of_ours_passes_to_the_kernel() {
    let lab = Lab::with_ilb(Spec::default());
    Service::all_six(&lab, 0);
    for family in Family::BOTH {
        let balancer = ilb_tests::lab::plan::Net::Front.host(family, 1);
        let answer = lab.at("c1").try_run(&format!(
            "curl -sS --globoff --max-time 5 http://{}:81/",
            ilb_tests::lab::plan::bracketed(balancer)
        ));
        // The kernel of the balancer has nothing on port 81 and says so: connection refused is curl's exit code 7.
        assert_eq!(
            answer.code, 7,
            "given ilb on the interfaces, when a client asks the balancer's own address, then its kernel answers\n{answer}"
        );
        let echo = udp::Echo::start(lab.at("lb"), "lb", (balancer, 9).into());
        let answers = udp::tally(lab.at("c1"), (balancer, 9).into(), 20_000, 10, 100);
        drop(echo);
        assert_eq!(
            answers.map(|answers| answers.get("lb").copied()),
            Ok(Some(10)),
            "given ilb on the interfaces, when a service of the balancer itself is asked, then it answers"
        );
    }
}
