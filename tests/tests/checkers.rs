//! Checkers of a keepalived.conf mean here what they meant there: a real keepalived and an ilb that has imported the same file ask the
//! same servers at the same time, and believe the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

use ilb_tests::keepalived::Checkers;
use ilb_tests::lab::process::Daemon;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::site::{Authority, Site};
use ilb_tests::udp::Echo;
use ilb_tests::{Family, shell};

/// Long enough for whatever has to happen.
const PATIENCE: Duration = Duration::from_secs(40);
/// What both believe has to last.
const LASTING: Duration = Duration::from_millis(1500);
/// Port of the services and their servers.
const PORT: u16 = 8090;
const SERVERS: [&str; 3] = ["s1", "s2", "s3"];

/// A service with this checker for each of its servers, in both families.
struct Checked {
    name: &'static str,
    /// As keepalived.conf has it. `@` is the lab's folder.
    checker: &'static str,
}

const CHECKED: &[Checked] = &[
    Checked {
        name: "tcp",
        checker: "TCP_CHECK { connect_timeout 1\n retry 1\n delay_before_retry 1\n }",
    },
    Checked {
        name: "status",
        checker: "HTTP_GET { connect_timeout 1\n retry 1\n delay_before_retry 1\n \
                  url { path /health\n status_code 200\n } }",
    },
    Checked {
        name: "digest",
        // MD5 of "well" and a line end.
        checker: "HTTP_GET { connect_timeout 1\n retry 1\n delay_before_retry 1\n \
                  url { path /health\n digest DIGEST\n } url { path /\n status_code 200\n } }",
    },
    Checked {
        name: "regex",
        // Not with `^`: whether that matches there depends on how the answer was cut into packets.
        checker: "HTTP_GET { connect_timeout 1\n retry 1\n delay_before_retry 1\n \
                  url { path /health\n regex \"w[a-f]l+\"\n } }",
    },
    Checked {
        name: "tls",
        checker: "SSL_GET { connect_port 8443\n connect_timeout 1\n retry 1\n delay_before_retry 1\n \
                  enable_sni\n virtualhost site.example\n url { path /health\n status_code 200-299\n } }",
    },
    Checked {
        name: "misc",
        checker: "MISC_CHECK { misc_path \"@/script 1 2\"\n misc_timeout 1\n retry 1\n delay_before_retry 1\n }",
    },
    Checked {
        name: "ping",
        checker: "PING_CHECK { connect_timeout 1\n retry 1\n delay_before_retry 1\n }",
    },
    Checked {
        name: "udp",
        checker: "UDP_CHECK { connect_port 8091\n connect_timeout 1\n retry 1\n delay_before_retry 1\n \
                  payload 70696e67\n require_reply\n }",
    },
    Checked {
        name: "dns",
        checker: "DNS_CHECK { connect_port 8053\n connect_timeout 1\n retry 1\n delay_before_retry 1\n \
                  type A\n name known.example\n }",
    },
];

/// The servers and what they need.
struct Place {
    lab: Lab,
    authority: Authority,
    sites: Vec<Site>,
    echoes: Vec<Echo>,
    dns: Option<Daemon>,
}

/// What happens to the second server, after what happened before, and who takes it for dead then.
struct Case {
    name: &'static str,
    happens: fn(&mut Place),
    dead: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "everybody well",
        happens: |_| (),
        dead: &[],
    },
    Case {
        name: "a killed server",
        happens: |place| place.sites[1].kill(),
        dead: &["tcp", "status", "digest", "regex", "tls"],
    },
    Case {
        name: "one that is back, with status 500",
        happens: |place| {
            place.sites[1].broken(true);
            place.sites[1].revive();
        },
        dead: &["status", "digest", "regex", "tls"],
    },
    Case {
        name: "another body",
        happens: |place| {
            place.sites[1].says("on fire");
            place.sites[1].broken(false);
        },
        dead: &["digest", "regex"],
    },
    Case {
        name: "an expired certificate, which nobody looks at, and the first body again",
        happens: |place| {
            let Place {
                sites, authority, ..
            } = place;
            sites[1].certificate(authority, "old");
            sites[1].says("well");
        },
        dead: &[],
    },
    Case {
        name: "a frozen server, whose kernel still takes connections",
        happens: |place| place.sites[1].freeze(),
        dead: &["status", "digest", "regex", "tls"],
    },
    Case {
        name: "a firewall that resets connections",
        happens: |place| {
            place.sites[1].thaw();
            place.sites[1].firewall(&["tcp dport 8090 reject with tcp reset"]);
        },
        dead: &["tcp", "status", "digest", "regex"],
    },
    Case {
        name: "no answer to anything",
        happens: |place| {
            place.sites[1].open();
            place.sites[1].firewall(&[
                "meta l4proto { tcp, udp, icmp } drop",
                "icmpv6 type echo-request drop",
            ]);
        },
        dead: &[
            "tcp", "status", "digest", "regex", "tls", "ping", "udp", "dns",
        ],
    },
    Case {
        name: "datagrams that nobody takes, and a script that fails",
        happens: |place| {
            place.sites[1].open();
            place.echoes.clear();
            place.dns = None;
            write(&place.lab, "failing", "");
        },
        dead: &["udp", "dns", "misc"],
    },
    Case {
        name: "everybody well again",
        happens: |place| {
            datagrams(place);
            std::fs::remove_file(place.lab.directory().join("failing")).expect("it was there");
        },
        dead: &[],
    },
];

#[test]
fn imported_checkers_believe_what_keepalived_believes() {
    let lab = Lab::with_ilb(Spec::default());
    for role in SERVERS {
        lab.at(role)
            .sysctl(&[("ipv4.icmp_ratelimit", "0"), ("ipv6.icmp.ratelimit", "0")]);
    }
    let authority = Authority::new(&lab);
    let sites = SERVERS.map(|role| Site::start(&lab, &authority, role));
    let mut place = Place {
        lab,
        authority,
        sites: sites.into(),
        echoes: Vec::new(),
        dns: None,
    };
    datagrams(&mut place);
    // Of the two others these never stop.
    let others: Vec<(Vec<Echo>, Daemon)> = ["s1", "s3"]
        .iter()
        .map(|role| (echoes(&place.lab, role), dns(&place.lab, role)))
        .collect();
    let folder = place.lab.directory().to_owned();
    write(
        &place.lab,
        "script",
        &format!("#!/bin/sh\n[ ! -e {}/failing ]\n", folder.display()),
    );
    let script = folder.join("script");
    shell::run_line(&format!("chmod 755 {}", script.display())).ok();
    let text = configuration(&place.lab);
    let file = folder.join("keepalived.conf");
    write(&place.lab, "keepalived.conf", &text);

    let mut keepalived = Checkers::start(&place.lab, &file);
    let report = place
        .lab
        .node
        .lbadm(&format!("import-config -v {}", file.display()));
    for case in CASES {
        (case.happens)(&mut place);
        let wanted = wanted(&place.lab, case.dead);
        let mut seen = (BTreeMap::new(), BTreeMap::new());
        let mut since = None;
        let agreed = shell::wait_for(PATIENCE, || {
            seen = (keepalived.believes(), ours(&place.lab));
            if seen.0 != wanted || seen.1 != wanted {
                since = None;
                return None;
            }
            let since = since.get_or_insert_with(Instant::now);
            (since.elapsed() >= LASTING).then_some(())
        });
        let wrong = |seen: &BTreeMap<(String, String), bool>| {
            let both: BTreeSet<_> = seen.keys().chain(wanted.keys()).collect();
            let wrong = both
                .into_iter()
                .filter(|key| seen.get(*key) != wanted.get(*key));
            let lines: Vec<String> = wrong
                .map(|key| {
                    format!(
                        "{} {}: {:?}, not {:?}",
                        key.0,
                        key.1,
                        seen.get(key),
                        wanted.get(key)
                    )
                })
                .collect();
            lines.join("\n")
        };
        assert!(
            agreed.is_some(),
            "given {}, both believe the same in time; keepalived:\n{}\nilb:\n{}\n{}\n{report}",
            case.name,
            wrong(&seen.0),
            wrong(&seen.1),
            place
                .lab
                .node
                .lbadm("show-hc-result -o rulename,serverid,status,reason"),
        );
    }
    drop(others);
}

/// What has to be believed when these take the second server for dead; of a script, all servers are.
fn wanted(lab: &Lab, dead: &[&str]) -> BTreeMap<(String, String), bool> {
    let mut wanted = BTreeMap::new();
    each(lab, |name, service, server, n| {
        let sick = dead.contains(&name) && (n == 2 || name == "misc");
        wanted.insert((service, server), !sick);
    });
    wanted
}

/// Every server of every service, in keepalived's words.
fn each(lab: &Lab, mut visit: impl FnMut(&'static str, String, String, u8)) {
    for (number, checked) in (0u8..).zip(CHECKED) {
        for family in Family::BOTH {
            for n in 1..=3 {
                let place = |address| format!("[{address}]:tcp:{PORT}");
                let service = place(lab.vip(family, number));
                visit(checked.name, service, place(lab.server(family, n)), n);
            }
        }
    }
}

/// What ilb believes, in keepalived's words.
fn ours(lab: &Lab) -> BTreeMap<(String, String), bool> {
    let rules = lab.node.lbadm("show-rule -p -o rulename,vip");
    let unescape = |text: &str| text.replace("\\:", ":");
    let vips: BTreeMap<&str, String> = rules
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(rule, vip)| (rule, unescape(vip)))
        .collect();
    let text = lab
        .node
        .lbadm("show-hc-result -p -o rulename,status,address");
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(rule), Some(status), Some(address)) = (parts.next(), parts.next(), parts.next())
        else {
            panic!("three fields, not {line}");
        };
        let place = |address: &str| format!("[{address}]:tcp:{PORT}");
        let up = match status {
            "alive" | "un-init" => true,
            "dead" | "unreach" => false,
            other => panic!("{rule}: {other}"),
        };
        all.insert((place(&vips[rule]), place(&unescape(address))), up);
    }
    all
}

/// The keepalived.conf.
fn configuration(lab: &Lab) -> String {
    let folder = lab.directory().display().to_string();
    let digest = shell::run({
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "printf 'well\\n' | md5sum"]);
        command
    });
    let digest = digest.ok();
    let digest = digest.split(' ').next().unwrap_or_default();
    let mut text = "global_defs {\n script_user root\n enable_script_security\n}\n".to_string();
    for (number, checked) in (0u8..).zip(CHECKED) {
        for family in Family::BOTH {
            let vip = lab.vip(family, number);
            let _ = writeln!(
                text,
                "virtual_server {vip} {PORT} {{\n delay_loop 1\n lb_algo rr\n lb_kind NAT\n protocol TCP"
            );
            for n in 1..=3 {
                let checker = checked
                    .checker
                    .replace('@', &folder)
                    .replace("DIGEST", digest);
                let server = lab.server(family, n);
                let _ = writeln!(
                    text,
                    " real_server {server} {PORT} {{\n weight 1\n {checker}\n }}"
                );
            }
            text += "}\n";
        }
    }
    text
}

/// What the second server answers to datagrams with.
fn datagrams(place: &mut Place) {
    place.echoes = echoes(&place.lab, "s2");
    place.dns = Some(dns(&place.lab, "s2"));
}

fn echoes(lab: &Lab, role: &str) -> Vec<Echo> {
    let n = role
        .trim_start_matches('s')
        .parse()
        .expect("a server's number");
    let start = |family| Echo::start(lab.at(role), role, (lab.server(family, n), 8091).into());
    Family::BOTH.map(start).into()
}

fn dns(lab: &Lab, role: &str) -> Daemon {
    let mut command = lab.at(role).command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--pid-file",
        "--user=root",
        "--port=8053",
        "--address=/known.example/192.0.2.7",
    ]);
    let log = lab.directory().join(format!("dnsmasq-{role}.log"));
    Daemon::spawn(&format!("dnsmasq {role}"), command, &log)
}

#[track_caller]
fn write(lab: &Lab, name: &str, text: &str) {
    let path = lab.directory().join(name);
    std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
