//! Services that are not one port of TCP: passive FTP, ping, SCTP, datagrams in fragments, and a rule whose servers include
//! the balancer itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ilb_tests::lab::process::Daemon;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load::Load;
use ilb_tests::service::Service;
use ilb_tests::{Family, Topology, fragments, machine, sctp, shell};

/// A real vsftpd in a server's namespace. What it serves is one file that says which server it is.
fn ftp_server(lab: &Lab, role: &str, vip: IpAddr) -> Daemon {
    let own = lab.directory().join(role).join("ftp");
    std::fs::create_dir(&own).expect("the lab's directory can be written");
    std::fs::write(own.join("who"), format!("{role}\n")).expect("and a file in it");
    let configuration = own.with_extension("conf");
    // Passive ports lie in a range; the address that it announces is the one that clients know.
    let announced = match vip {
        IpAddr::V4(v4) => format!("listen=YES\nlisten_ipv6=NO\npasv_address={v4}\n"),
        IpAddr::V6(_) => "listen=NO\nlisten_ipv6=YES\n".to_owned(),
    };
    let text = format!(
        "{announced}background=NO\nanonymous_enable=YES\nlocal_enable=NO\nwrite_enable=NO\nno_anon_password=YES\n\
         anon_root={own}\npasv_enable=YES\npasv_min_port=30000\npasv_max_port=30999\nsecure_chroot_dir={own}\n\
         seccomp_sandbox=NO\nisolate_network=NO\nxferlog_enable=NO\npasv_promiscuous=NO\n",
        own = own.display()
    );
    std::fs::write(&configuration, text).expect("the lab's directory can be written");
    let mut command = lab.at(role).command("vsftpd");
    command.arg(&configuration);
    let log = lab.directory().join(format!("vsftpd-{role}.log"));
    Daemon::spawn(&format!("vsftpd {role}"), command, &log)
}

/// Fetches the file by a real client: control and data connection go to the VIP, the latter to a port that the server
/// has just made up.
fn fetch(lab: &Lab, from: IpAddr, vip: IpAddr) -> String {
    let target = SocketAddr::new(vip, 21);
    lab.at("c1").run(&format!(
        "curl -sS --globoff --max-time 20 --no-ftp-skip-pasv-ip --interface {from} ftp://{target}/who"
    ))
}

/// Port 0 with persistence: a client's control and data connections reach one server, whichever ports they use.
#[test]
fn passive_ftp_works_with_all_ports_and_persistence() {
    let lab = Lab::with_ilb(Spec {
        sources: 12,
        ..Spec::default()
    });
    let mut number = 0;
    for topology in [Topology::Nat, Topology::HalfNat] {
        for (family, mask) in [(Family::V4, 32), (Family::V6, 128)] {
            let service = Service {
                ports: "any",
                ..Service::http(number, topology, family)
            };
            let vip = lab.vip(family, number);
            number += 1;
            let servers: Vec<Daemon> = (1..=3)
                .map(|n| ftp_server(&lab, &format!("s{n}"), vip))
                .collect();
            let line = service
                .rule_line(&lab)
                .replace(" -o ", &format!(",pmask=/{mask} -t persist-timeout=60 -o "));
            lab.node.lbadm(&service.group_line(&lab));
            lab.node.lbadm(&line);
            let listening = shell::wait_for(Duration::from_secs(10), || {
                (1..=3)
                    .all(|n| {
                        lab.at(&format!("s{n}"))
                            .run("ss -Hltn sport = :21")
                            .contains(":21")
                    })
                    .then_some(())
            });
            assert!(listening.is_some(), "vsftpd listens in every server");
            let mut servers_of = BTreeMap::<IpAddr, BTreeSet<String>>::new();
            for _ in 0..4 {
                for source in lab.sources(family) {
                    servers_of
                        .entry(source)
                        .or_default()
                        .insert(fetch(&lab, source, vip));
                }
            }
            let given = format!(
                "given {service} on all ports with persistence, when 12 clients fetch four times each"
            );
            let used: BTreeSet<&String> = servers_of.values().flatten().collect();
            assert!(
                servers_of.values().all(|servers| servers.len() == 1),
                "{given}, then each stays with its server: {servers_of:?}"
            );
            assert_eq!(
                used.len(),
                3,
                "{given}, then every server has some: {servers_of:?}"
            );
            lab.node.lbadm(&format!("delete-rule {}", service.rule()));
            drop(servers);
            for n in 1..=3 {
                let own = lab.directory().join(format!("s{n}/ftp"));
                std::fs::remove_dir_all(own).expect("the lab's files can be removed");
            }
        }
    }
    lab.node.assert_alive();
}

/// A counter of the kernel of a namespace: `Icmp`'s or `Icmp6`'s echo requests.
fn echo_requests(lab: &Lab, role: &str, family: Family) -> u64 {
    match family {
        Family::V4 => {
            let text = lab.at(role).run("cat /proc/net/snmp");
            let lines: Vec<Vec<&str>> = text
                .lines()
                .filter(|line| line.starts_with("Icmp:"))
                .map(|line| line.split_whitespace().collect())
                .collect();
            let at = lines[0]
                .iter()
                .position(|word| *word == "InEchos")
                .expect("a column");
            lines[1][at].parse().expect("a number")
        }
        Family::V6 => {
            let text = lab.at(role).run("cat /proc/net/snmp6");
            let line = text
                .lines()
                .find(|line| line.starts_with("Icmp6InEchos "))
                .expect("a line");
            line.split_whitespace()
                .last()
                .expect("a value")
                .parse()
                .expect("a number")
        }
    }
}

/// Pings of the VIP are answered by servers, each series by one of them, in one piece or in fragments; the balancer's
/// kernel, which has the address, sees none of them.
#[test]
fn pings_are_balanced() {
    let lab = Lab::with_ilb(Spec::default());
    let roles = ["s1", "s2", "s3"];
    let mut number = 0;
    for topology in [Topology::Nat, Topology::HalfNat] {
        for family in Family::BOTH {
            let service = Service {
                protocol: "icmp",
                ports: "any",
                ..Service::http(number, topology, family)
            };
            number += 1;
            lab.node.lbadm(&service.group_line(&lab));
            // No ports.
            lab.node
                .lbadm(&service.rule_line(&lab).replace(",port=any", ""));
            let vip = lab.vip(family, service.number);
            for size in [56, 1400, 4000] {
                let (series, got, own) = machine::undisturbed(|| {
                    let before = roles.map(|role| echo_requests(&lab, role, family));
                    let own = echo_requests(&lab, "lb", family);
                    let line = format!("ping -c 5 -i 0.05 -W 3 -s {size} {vip}");
                    let series: Vec<_> = (0..6).map(|_| lab.at("c1").try_run(&line)).collect();
                    let after = roles.map(|role| echo_requests(&lab, role, family));
                    let got: Vec<u64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
                    (series, got, echo_requests(&lab, "lb", family) - own)
                });
                for said in series {
                    assert!(
                        said.code == 0 && said.stdout.contains(" 0% packet loss"),
                        "given {service}, when ping sends {size} bytes, then all are answered\n{said}"
                    );
                }
                assert_eq!(
                    (got.as_slice(), own),
                    ([10, 10, 10].as_slice(), 0),
                    "given {service}, when six pings of {size} bytes send five requests each, then each server gets \
                     two series, and the balancer's own kernel none"
                );
            }
        }
    }
    lab.node.assert_alive();
}

/// The kernel here may have no SCTP, so both ends are raw sockets that make and check packets themselves.
#[test]
fn sctp_associations_are_balanced() {
    let lab = Lab::with_ilb(Spec::default());
    let mut number = 0;
    for topology in [Topology::Nat, Topology::HalfNat] {
        for family in Family::BOTH {
            let service = Service {
                protocol: "sctp",
                ports: "3868",
                ..Service::http(number, topology, family)
            };
            number += 1;
            let target = service.create(&lab);
            let servers: Vec<_> = (1..=3u8)
                .map(|n| {
                    let role = format!("s{n}");
                    sctp::Responder::start(lab.at(&role), lab.server(family, n), 3868, n)
                })
                .collect();
            let mut answers = BTreeMap::<u8, usize>::new();
            for port in 5000..5030 {
                let answer = lab.at("c1").enter(|| sctp::ask(target, port));
                let server = answer.unwrap_or_else(|error| {
                    panic!("given {service}, when a client sends INIT from {port}, then a server acknowledges: {error}")
                });
                *answers.entry(server).or_default() += 1;
            }
            assert_eq!(
                answers,
                BTreeMap::from([(1, 10), (2, 10), (3, 10)]),
                "given {service}, when 30 associations begin, then each server has ten"
            );
            drop(servers);
        }
    }
    lab.node.assert_alive();
}

/// One of the servers is the balancer's own nginx.
#[test]
fn the_local_node_takes_its_share() {
    let lab = Lab::with_ilb(Spec::default());
    lab.web("lb");
    for family in Family::BOTH {
        let service = Service::http(u8::from(family == Family::V6), Topology::Dsr, family);
        let vip = lab.vip(family, service.number);
        lab.dsr_address(vip);
        let own = lab.node_address(family);
        let bracketed = match own {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        lab.node.lbadm(&format!(
            "create-servergroup -s server={},{bracketed} {}",
            lab.server_specs(family, ""),
            service.group()
        ));
        lab.node.lbadm(&service.rule_line(&lab));
        let tally = Load::new(SocketAddr::new(vip, 80), 400).run(lab.at("c1"));
        let given = format!(
            "given {service} with the balancer as fourth server, when 400 requests are sent"
        );
        tally.none_failed(&given);
        for server in ["s1", "s2", "s3", "lb"] {
            assert_eq!(
                tally.of(server),
                100,
                "{given}, then {server} answers a hundred: {tally}"
            );
        }
    }
    lab.node.assert_alive();
}

/// The last fragment first, at once or each after a pause: they wait for the first one, which comes last.
#[test]
fn datagrams_whose_fragments_come_backwards_arrive() {
    let lab = Lab::with_ilb(Spec::default());
    let mut number = 0;
    for topology in Topology::ALL {
        for family in Family::BOTH {
            let service = Service::echo(number, topology, family);
            number += 1;
            let target = service.create(&lab);
            if topology == Topology::Dsr {
                lab.udp_echo(family, &[target.ip()], 7);
            }
            let mut answers = BTreeMap::<String, usize>::new();
            for id in 1..=30u16 {
                let (size, gap) = match id % 3 {
                    0 => (1500, Duration::from_millis(20)),
                    1 => (4000, Duration::ZERO),
                    _ => (20_000, Duration::ZERO),
                };
                let payload: Vec<u8> = (0..size).map(|n| (n * 7) as u8 ^ id as u8).collect();
                let from = lab.client(family, 1);
                let asked = lab
                    .at("c1")
                    .enter(|| fragments::ask_backwards(from, target, id, &payload, gap));
                let server = asked.unwrap_or_else(|error| {
                    panic!(
                        "given {service}, when a datagram of {size} bytes comes in fragments, the last one first, then \
                         it is answered: {error}"
                    )
                });
                *answers.entry(server).or_default() += 1;
            }
            assert_eq!(
                answers,
                BTreeMap::from(["s1", "s2", "s3"].map(|server| (server.to_owned(), 10))),
                "given {service}, when 30 datagrams come backwards, then each server has ten"
            );
        }
    }
    lab.node.assert_alive();
}
