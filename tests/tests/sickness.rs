//! Health checks from end to end: real servers fall sick in every way that servers do, and traffic goes elsewhere until they
//! are well again.

use std::net::SocketAddr;
use std::time::Duration;

use ilb_tests::held::Held;
use ilb_tests::lab::namespace::Namespace;
use ilb_tests::lab::{Lab, Spec, plan};
use ilb_tests::load::Load;
use ilb_tests::service::Service;
use ilb_tests::site::{Authority, NAME, Site};
use ilb_tests::tunnel::{FarEnd, Kind};
use ilb_tests::udp::{self, Echo};
use ilb_tests::{Family, Topology, shell};

/// Long enough for whatever has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// The one that falls sick, as the lab counts.
const SICK: &str = "s2";
/// How the checks of this file ask: quickly, and sure of what they say.
const TIMING: &str = "hc-timeout=1,hc-count=3,hc-interval=0.25";

/// A lab whose servers say of each packet that they refuse it: kernels do so about once a second for each client, and here
/// six rules are tested from one address at the same time.
fn lab() -> Lab {
    let lab = Lab::with_ilb(Spec::default());
    for role in ["s1", "s2", "s3"] {
        lab.at(role)
            .sysctl(&[("ipv4.icmp_ratelimit", "0"), ("ipv6.icmp.ratelimit", "0")]);
    }
    lab
}

/// One line of `show-hc-result`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    rule: String,
    server: String,
    status: String,
    reason: String,
}

/// What health checks say of the sick server, rule by rule.
#[track_caller]
fn verdicts(lab: &Lab) -> Vec<Verdict> {
    let text = lab
        .node
        .lbadm("show-hc-result -p -o rulename,serverid,status,reason");
    let all = text.lines().map(|line| {
        let mut parts = line.splitn(4, ':').map(|part| part.replace("\\:", ":"));
        let mut next = || parts.next().expect("four fields");
        Verdict {
            rule: next(),
            server: next(),
            status: next(),
            reason: next(),
        }
    });
    // Of each group the servers are _group.0, _group.1, _group.2.
    all.filter(|verdict| verdict.server.ends_with(".1"))
        .collect()
}

/// Waits until all rules say of the sick server what they should.
#[track_caller]
fn wait_for_verdicts(lab: &Lab, given: &str, so: impl Fn(&Verdict) -> bool) {
    let mut last = Vec::new();
    let found = shell::wait_for(PATIENCE, || {
        last = verdicts(lab);
        (!last.is_empty() && last.iter().all(&so)).then_some(())
    });
    assert!(
        found.is_some(),
        "given {given}, it is found in time, not:\n{last:#?}"
    );
}

/// Waits until the fast path itself says that no rule gives the sick server connections, or that all do.
#[track_caller]
fn wait_for_fastpath(lab: &Lab, services: &[(Service, SocketAddr)], given: &str, sick: bool) {
    let unanswering = "cannot: it does not answer";
    for (service, target) in services {
        let client = SocketAddr::new(lab.client(service.family, 1), 50_000);
        let line = format!("explain {} {client} {target}", service.protocol);
        let mut last = String::new();
        let found = shell::wait_for(PATIENCE, || {
            last = lab.node.lbadm(&line);
            let about = last
                .lines()
                .find(|line| line.contains(&format!("_{}.1 ", service.group())))?;
            (about.contains(unanswering) == sick).then_some(())
        });
        assert!(
            found.is_some(),
            "given {given}, {service}: the fast path knows, not:\n{last}"
        );
    }
}

/// Connections to healthy servers, that nothing of this may disturb.
struct Bystanders(Vec<(Service, Held)>);

impl Bystanders {
    fn open(from: &Namespace, services: &[(Service, SocketAddr)]) -> Bystanders {
        let mut all = Vec::new();
        for (service, target) in services {
            let held = from.enter(|| (0..6).map(|_| Held::open(*target)).collect::<Vec<_>>());
            let healthy = held.into_iter().filter(|held| held.server != SICK);
            let before = all.len();
            all.extend(healthy.map(|held| (service.clone(), held)));
            assert!(all.len() >= before + 2, "round robin goes to everybody");
        }
        Bystanders(all)
    }

    #[track_caller]
    fn undisturbed(&mut self, given: &str) {
        for (service, held) in &mut self.0 {
            let answer = held.ask();
            assert_eq!(
                answer.as_ref().ok(),
                Some(&held.server),
                "given {given}, {service}: a connection to a healthy server goes on; {answer:?}"
            );
        }
    }
}

/// A way to fall sick, and to be well again.
struct Sickness {
    name: &'static str,
    /// What its verdict has to say; the first two words are status and layer/code.
    said: &'static [&'static str],
    begin: fn(&mut Site),
    end: fn(&mut Site),
}

const SICKNESSES: &[Sickness] = &[
    Sickness {
        name: "a killed server",
        said: &["dead", "L4/refused", "connection refused"],
        begin: Site::kill,
        end: Site::revive,
    },
    Sickness {
        name: "a frozen server",
        said: &["dead", "L7/timeout", "no answer in time"],
        begin: |site| site.freeze(),
        end: |site| site.thaw(),
    },
    Sickness {
        name: "a firewall that resets",
        said: &["dead", "L4/refused", "connection refused"],
        begin: |site| site.firewall(&["tcp dport 8090 reject with tcp reset"]),
        end: |site| site.open(),
    },
    Sickness {
        name: "a firewall that says so",
        said: &["dead", "L3/unreachable", "no route to host"],
        begin: |site| site.firewall(&["tcp dport 8090 reject with icmpx type host-unreachable"]),
        end: |site| site.open(),
    },
    Sickness {
        name: "a firewall that says nothing",
        said: &["dead", "L7/timeout", "no answer in time"],
        begin: |site| site.firewall(&["tcp dport 8090 drop"]),
        end: |site| site.open(),
    },
    Sickness {
        name: "a server that hears nothing",
        said: &["unreach", "L3/timeout", "no answer in time"],
        begin: |site| {
            site.firewall(&[
                "meta l4proto { tcp, icmp } drop",
                "icmpv6 type echo-request drop",
            ]);
        },
        end: |site| site.open(),
    },
    Sickness {
        name: "status 500",
        said: &["dead", "L7/status 500", "Internal Server Error"],
        begin: |site| site.broken(true),
        end: |site| site.broken(false),
    },
    Sickness {
        name: "another body",
        said: &["dead", "L7/regex 200", "on fire"],
        begin: |site| site.says("on fire"),
        end: |site| site.says("well"),
    },
    Sickness {
        name: "an answer that drips",
        said: &["dead", "L7/timeout", "no answer in time"],
        begin: |site| site.slow(true),
        end: |site| site.slow(false),
    },
];

/// HTTP in all topologies and families, with this check.
fn services(lab: &Lab, check: &str) -> Vec<(Service, SocketAddr)> {
    let mut services = Vec::new();
    for topology in Topology::ALL {
        for family in Family::BOTH {
            let service = Service {
                ports: "8090",
                ..Service::http(services.len() as u8, topology, family)
            };
            let target = service.create(lab);
            lab.node.lbadm(&format!(
                "modify-rule -h hc-name={check} {}",
                service.rule()
            ));
            services.push((service, target));
        }
    }
    services
}

/// Everything that has to hold while a server is sick, and when it is well again.
#[track_caller]
fn goes_elsewhere(
    lab: &Lab,
    services: &[(Service, SocketAddr)],
    given: &str,
    said: &[&str],
    heal: impl FnOnce(),
) {
    wait_for_verdicts(lab, given, |verdict| {
        verdict.status == said[0] && said[1..].iter().all(|part| verdict.reason.contains(part))
    });
    wait_for_fastpath(lab, services, given, true);
    for (service, target) in services {
        let tally = Load::new(*target, 12).run(lab.at("c1"));
        tally.none_failed(&format!("given {given}, {service}, when it is found"));
        assert_eq!(tally.of(SICK), 0, "given {given}, {service}: {tally}");
    }
    heal();
    comes_back(lab, services, given);
}

/// A server that is well gets traffic again.
#[track_caller]
fn comes_back(lab: &Lab, services: &[(Service, SocketAddr)], given: &str) {
    wait_for_verdicts(lab, &format!("{given} that is over"), |verdict| {
        verdict.status == "alive" && verdict.reason.contains("/ok")
    });
    wait_for_fastpath(lab, services, given, false);
    for (service, target) in services {
        let tally = Load::new(*target, 12).run(lab.at("c1"));
        tally.none_failed(&format!("given {given} that is over, {service}"));
        assert!(
            tally.of(SICK) > 0,
            "given {given} that is over, {service}: {tally}"
        );
    }
}

#[test]
fn traffic_goes_round_a_sick_server_and_comes_back() {
    let lab = lab();
    let authority = Authority::new(&lab);
    let mut sites: Vec<Site> = ["s1", "s2", "s3"]
        .iter()
        .map(|role| Site::start(&lab, &authority, role))
        .collect();
    let page =
        format!("create-healthcheck -h hc-test=http,hc-url=/health,hc-regex=well,{TIMING} page");
    lab.node.lbadm(&page);
    let services = services(&lab, "page");
    comes_back(&lab, &services, "a healthy server");
    let mut bystanders = Bystanders::open(lab.at("c1"), &services);
    for sickness in SICKNESSES {
        let site = &mut sites[1];
        (sickness.begin)(site);
        goes_elsewhere(&lab, &services, sickness.name, sickness.said, || {
            bystanders.undisturbed(sickness.name);
            (sickness.end)(site);
        });
    }

    // Well and sick by turns, faster than that anything can be believed: nobody notices.
    let site = &sites[1];
    for _ in 0..10 {
        site.broken(true);
        std::thread::sleep(Duration::from_millis(100));
        site.broken(false);
        std::thread::sleep(Duration::from_millis(100));
        for (service, target) in &services {
            let tally = Load::new(*target, 3).run(lab.at("c1"));
            tally.none_failed(&format!("given a flapping server, {service}"));
        }
    }
    comes_back(&lab, &services, "a flapping server");
    bystanders.undisturbed("a flapping server");

    let tls = format!(
        "create-healthcheck -h hc-test=https,hc-port=8443,hc-url=/health,hc-verify=yes,hc-sni={NAME},hc-ca-file={},{TIMING} tls",
        authority.file().display()
    );
    lab.node.lbadm(&tls);
    for (service, _) in &services {
        lab.node
            .lbadm(&format!("modify-rule -h hc-name=tls {}", service.rule()));
    }
    comes_back(&lab, &services, "a good certificate");
    let site = &sites[1];
    site.certificate(&authority, "old");
    let said = ["dead", "L6/certificate", "expired on 2021-02-03"];
    goes_elsewhere(&lab, &services, "an expired certificate", &said, || {
        bystanders.undisturbed("an expired certificate");
        site.certificate(&authority, "good");
    });
    lab.node.assert_alive();
}

#[test]
fn datagrams_go_round_a_server_that_is_gone() {
    let lab = lab();
    let timing = "hc-timeout=1,hc-count=2,hc-interval=0.25";
    lab.node
        .lbadm(&format!("create-healthcheck -h hc-test=udp,{timing} port"));
    let mut services = Vec::new();
    let mut healthy = Vec::new();
    let mut places = Vec::new();
    for topology in Topology::ALL {
        for family in Family::BOTH {
            // A port each, so that every echo has its own.
            let number = services.len() as u8;
            let ports = ["7000", "7001", "7002", "7003", "7004", "7005"][number as usize];
            let service = Service {
                ports,
                ..Service::echo(number, topology, family)
            };
            let target = service.create(&lab);
            for n in 1..=3u8 {
                let mut addresses = vec![lab.server(family, n)];
                if topology == Topology::Dsr {
                    addresses.push(target.ip());
                }
                for address in addresses {
                    let place = SocketAddr::new(address, target.port());
                    let role = format!("s{n}");
                    match n {
                        2 => places.push(place),
                        _ => healthy.push(Echo::start(lab.at(&role), &role, place)),
                    }
                }
            }
            services.push((service, target));
        }
    }
    let start = || -> Vec<Echo> {
        let each = places.iter();
        each.map(|place| Echo::start(lab.at(SICK), SICK, *place))
            .collect()
    };
    let echoes = start();
    for (service, _) in &services {
        lab.node
            .lbadm(&format!("modify-rule -h hc-name=port {}", service.rule()));
    }
    let answers = |target: &SocketAddr| {
        let answers = udp::tally(lab.at("c1"), *target, 20_000, 24, 64);
        answers.unwrap_or_else(|error| panic!("{target}: {error}"))
    };
    wait_for_verdicts(&lab, "a healthy server", |verdict| {
        verdict.status == "alive"
    });
    wait_for_fastpath(&lab, &services, "a healthy server", false);
    drop(echoes);
    let given = "a killed server";
    wait_for_verdicts(&lab, given, |verdict| {
        verdict.status == "dead" && verdict.reason.contains("L4/refused")
    });
    wait_for_fastpath(&lab, &services, given, true);
    for (service, target) in &services {
        let answers = answers(target);
        assert!(
            !answers.contains_key(SICK),
            "given {given}, {service}: {answers:?}"
        );
    }
    let _echoes = start();
    wait_for_verdicts(&lab, "a revived server", |verdict| {
        verdict.status == "alive"
    });
    wait_for_fastpath(&lab, &services, "a revived server", false);
    for (service, target) in &services {
        // Other flows than before, which would stay where they are.
        let answers = udp::tally(lab.at("c1"), *target, 30_000, 24, 64)
            .unwrap_or_else(|error| panic!("{service}: {error}"));
        assert!(
            answers.contains_key(SICK),
            "given a revived server, {service}: {answers:?}"
        );
    }
}

/// Behind a tunnel only the VIP is served, and the VIP has to be asked.
#[test]
fn a_server_behind_a_tunnel_is_asked_through_it() {
    let lab = lab();
    let authority = Authority::new(&lab);
    let mut site = Site::start(&lab, &authority, SICK);
    lab.node.lbadm(&format!(
        "create-healthcheck -h hc-test=http,hc-url=/health,hc-regex=well,{TIMING} page"
    ));
    let mut far_ends = Vec::new();
    let tunnels = [
        (Kind::Ipip, "ipip", Family::V4, Family::V4),
        (Kind::Ipip, "ipip", Family::V6, Family::V6),
        (Kind::Ipip, "ipip", Family::V6, Family::V4),
        (
            Kind::Gre,
            "gre,tunnel-checksum=full",
            Family::V4,
            Family::V6,
        ),
        (Kind::Gue, "gue", Family::V4, Family::V4),
    ];
    for (number, (_, words, inner, outer)) in (0u8..).zip(tunnels) {
        let vip = lab.vip(inner, number);
        lab.dsr_address(vip);
        let server = plan::bracketed(lab.server(outer, 2));
        let source = lab.proxy_source(outer, number);
        // The id is the one that `verdicts` looks for.
        lab.node.lbadm(&format!(
            "create-servergroup -s server={server},id=_group{number}.1 group{number}"
        ));
        lab.node.lbadm(&format!(
            "create-rule -e -i vip={vip},port=8090 -m lbalg=rr,type=TUN,tunnel={words},proxy-src={source} \
             -h hc-name=page -o servergroup=group{number} rule{number}"
        ));
    }
    // Nobody unwraps anything yet.
    wait_for_verdicts(&lab, "no far end of the tunnel", |verdict| {
        verdict.status == "dead" && verdict.reason.contains("/timeout")
    });
    let mut there: Vec<(Kind, Family)> = Vec::new();
    for (kind, _, _, outer) in tunnels {
        if !there.contains(&(kind, outer)) {
            there.push((kind, outer));
            far_ends.push(FarEnd::start(lab.at(SICK), kind, lab.server(outer, 2)));
        }
    }
    wait_for_verdicts(&lab, "a far end", |verdict| verdict.status == "alive");
    // The server's own address answers on, but that is not what counts.
    site.says("on fire");
    wait_for_verdicts(&lab, "another body behind a tunnel", |verdict| {
        verdict.status == "dead" && verdict.reason.contains("on fire")
    });
    site.says("well");
    wait_for_verdicts(&lab, "a server that is well again", |verdict| {
        verdict.status == "alive"
    });
    site.kill();
    wait_for_verdicts(&lab, "a killed server behind a tunnel", |verdict| {
        verdict.status == "dead" && verdict.reason.contains("L4/refused")
    });
    for far_end in &far_ends {
        let seen = far_end.seen();
        assert!(seen.packets > 0 && seen.faults.is_empty(), "{seen:?}");
    }
}

/// A server that has lost the VIP, but is well otherwise, cannot serve under DSR.
#[test]
fn a_server_without_the_vip_is_no_server_under_dsr() {
    let lab = lab();
    let authority = Authority::new(&lab);
    let _site = Site::start(&lab, &authority, SICK);
    lab.node
        .lbadm(&format!("create-healthcheck -h hc-test=tcp,{TIMING} port"));
    for (number, family) in (0u8..).zip(Family::BOTH) {
        let vip = lab.vip(family, number);
        let server = plan::bracketed(lab.server(family, 2));
        lab.node.lbadm(&format!(
            "create-servergroup -s server={server},id=_group{number}.1 group{number}"
        ));
        lab.node.lbadm(&format!(
            "create-rule -e -i vip={vip},port=8090 -m lbalg=rr,type=DSR -h hc-name=port \
             -o servergroup=group{number} rule{number}"
        ));
    }
    wait_for_verdicts(&lab, "a server without the VIP", |verdict| {
        verdict.status == "dead" && verdict.reason.contains("L4/timeout")
    });
    for (number, family) in (0u8..).zip(Family::BOTH) {
        lab.dsr_address(lab.vip(family, number));
    }
    wait_for_verdicts(&lab, "a server with the VIP", |verdict| {
        verdict.status == "alive"
    });
}

/// The lower tiers that are enough serve, and the sorry server when nobody else can.
#[test]
fn those_of_higher_tiers_stand_in() {
    let lab = lab();
    let authority = Authority::new(&lab);
    let mut sites: Vec<Site> = ["s1", "s2", "s3"]
        .iter()
        .map(|role| Site::start(&lab, &authority, role))
        .collect();
    lab.node
        .lbadm(&format!("create-healthcheck -h hc-test=tcp,{TIMING} port"));
    let services = services(&lab, "port");
    for (service, _) in &services {
        let group = service.group();
        lab.node
            .lbadm(&format!("modify-server -s tier=1 _{group}.1"));
        lab.node
            .lbadm(&format!("modify-server -s tier=sorry _{group}.2"));
    }
    // One after the other goes, the last one comes back first, and the first one ends it all.
    type Step = (&'static str, fn(&mut [Site]), &'static str);
    let steps: [Step; 5] = [
        ("everybody there", |_| {}, "s1"),
        ("a first tier that is gone", |sites| sites[0].kill(), "s2"),
        ("only the sorry server left", |sites| sites[1].kill(), "s3"),
        (
            "a second tier that is back",
            |sites| sites[1].revive(),
            "s2",
        ),
        ("a first tier that is back", |sites| sites[0].revive(), "s1"),
    ];
    for (given, step, expected) in steps {
        step(&mut sites);
        for (service, target) in &services {
            let client = SocketAddr::new(lab.client(service.family, 1), 50_000);
            let line = format!("explain tcp {client} {target}");
            let place = format!(
                "_{}.{}",
                service.group(),
                expected[1..].parse::<u8>().unwrap() - 1
            );
            let mut last = String::new();
            let found = shell::wait_for(PATIENCE, || {
                last = lab.node.lbadm(&line);
                let mut lines = last.lines();
                let goes = lines.find(|line| line.starts_with("server:"))?;
                goes.contains(&format!("goes to {place} ")).then_some(())
            });
            assert!(
                found.is_some(),
                "given {given}, {service}: it goes to {place}, not:\n{last}"
            );
            let tally = Load::new(*target, 6).run(lab.at("c1"));
            tally.none_failed(&format!("given {given}, {service}"));
            assert_eq!(tally.of(expected), 6, "given {given}, {service}: {tally}");
        }
    }
    let shown = lab.node.lbadm("show-server -p -o serverid,status rule0");
    assert_eq!(
        shown,
        "_group0.0:enabled\n_group0.1:standby\n_group0.2:standby\n"
    );
    let log = lab.node.manager_log();
    for line in [
        "rule rule0 is served by tiers 0 to 1 now: too few servers are able",
        "rule rule0 is served by its sorry servers now: too few servers are able",
        "rule rule0 is served by tier 0 again",
    ] {
        assert!(log.contains(line), "{line}");
    }
    lab.node.assert_alive();
}
