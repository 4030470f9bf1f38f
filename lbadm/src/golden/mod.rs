//! Command lines and what comes of them, as a person sees it.
//!
//! `show.txt` has command lines with their output, from the node of [`node`] and [`counted`]. `parse.txt` has command
//! lines with the request that they become, or with the message and exit code that they get. In both a case begins with
//! `$ lbadm` and ends at the next one.

use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use libilb::connections::{Connection, End};
use libilb::describe::{
    Description, DropReason, Fastpath, GroupDescription, RuleDescription, ServerDescription, State,
    Status,
};
use libilb::explain::{
    Candidate, Chosen, Explanation, Leaving, Matched, Miss, Origin, Outcome, Packet,
};
use libilb::model::{Configuration, RuleSettings, Timeout};
use libilb::stats::{Counter, Entry, Statistics};

use crate::action::{self, Action, Show, understand};
use crate::cli;
use crate::error::Error;
use crate::explain;
use crate::statistics::{self, Printer};
use crate::table::Style;
use crate::usage;

/// A node with four rules: one enabled, one disabled with a problem, one that drains after it was deleted, one that says
/// all that can be said.
fn node() -> Description {
    let mut c = Configuration::default();
    c.create_group("web", &["192.0.2.11", "back=192.0.2.12:8080"])
        .unwrap();
    c.create_group("web6", &["[2001:db8::11]:8000-8009"])
        .unwrap();
    c.create_group::<&str>("spare", &[]).unwrap();
    let rule = |vip: &str, port: &str, topology: &str, group: &str| RuleSettings {
        vip: vip.into(),
        port: port.into(),
        algorithm: "rr".into(),
        topology: topology.into(),
        servergroup: group.into(),
        ..RuleSettings::default()
    };
    let nat = RuleSettings {
        enabled: true,
        proxy_src: vec!["192.0.2.90-192.0.2.91".into()],
        conn_drain: Some(30),
        ..rule("192.0.2.80", "80", "n", "web")
    };
    let half = RuleSettings {
        algorithm: "hip".into(),
        nat_timeout: Some(900),
        ..rule("2001:db8::80", "80-89", "h", "web6")
    };
    c.create_group(
        "far",
        &[
            "192.0.2.31,weight=3,max-conn=10,min-conn=5",
            "[2001:db8::31],weight=0",
        ],
    )
    .unwrap();
    let far = RuleSettings {
        more_vips: vec!["vip=192.0.2.83,port=443,protocol=sctp".parse().unwrap()],
        clients: vec!["10.0.0.0/8".into(), "192.0.2.7".into()],
        algorithm: "mh".into(),
        flags: vec!["mh-port".into(), "mh-fallback".into()],
        tunnel: Some("gue".into()),
        proxy_src: vec!["192.0.2.90".into(), "2001:db8::90".into()],
        pmask: Some("24".into()),
        orphans: Some("reset".into()),
        slow_start: Some(30),
        max_new_flows: Some(1000),
        timeouts: [(Timeout::SynReceived, 5), (Timeout::FinWait, 20)].into(),
        ..rule("192.0.2.82", "any", "t", "far")
    };
    let rules = [
        (
            c.create_rule("far", &far).unwrap(),
            Status::Enabled,
            0,
            false,
            vec![],
        ),
        (
            c.create_rule("www", &nat).unwrap(),
            Status::Enabled,
            7,
            false,
            vec![],
        ),
        (
            c.create_rule("www6", &half).unwrap(),
            Status::Disabled,
            0,
            false,
            vec!["the vip 2001:db8::80 is on no interface".to_string()],
        ),
        (
            c.create_rule("old", &rule("192.0.2.81", "443", "h", "web"))
                .unwrap(),
            Status::Draining,
            2,
            true,
            vec![],
        ),
    ];
    c.enable_servers(&["_web.1"], false).unwrap();
    let removed = c.add_servers("web", &["192.0.2.13"]).unwrap();
    Description {
        version: "0.1.0".into(),
        generation: 12,
        state: State::Ok,
        state_reason: String::new(),
        fastpath: Fastpath::Connected,
        fastpath_generation: 12,
        database_path: "/var/lib/ilb/db".into(),
        rules: rules
            .into_iter()
            .map(
                |(rule, status, connections, deleted, problems)| RuleDescription {
                    rule: (*rule).clone(),
                    status,
                    deleted,
                    connections,
                    problems,
                },
            )
            .collect(),
        groups: c
            .groups
            .values()
            .map(|g| GroupDescription {
                name: g.name.clone(),
                servers: g
                    .servers
                    .iter()
                    .map(|s| ServerDescription {
                        server: s.clone(),
                        status: if s.enabled && !removed.contains(s) {
                            Status::Enabled
                        } else {
                            Status::Draining
                        },
                        removed: removed.contains(s),
                        connections: 3,
                    })
                    .collect(),
            })
            .collect(),
        drop_reasons: [
            (
                "malformed",
                "the packet is truncated or its headers contradict each other",
            ),
            ("no-server", "no server of the rule accepts new connections"),
            (
                "no-route",
                "the kernel's routing table has no route to the destination",
            ),
        ]
        .map(|(label, words)| DropReason {
            label: label.into(),
            words: words.into(),
        })
        .into(),
    }
}

/// Counters after `n` seconds of steady traffic.
fn counted(n: u64) -> Statistics {
    let entry = |rule: &str, server: &str, share: u64| {
        let mut entry = Entry {
            rule: rule.into(),
            server: server.into(),
            ..Entry::default()
        };
        entry.set(Counter::PacketsForwarded, 1000 * share * n);
        entry.set(Counter::BytesForwarded, 600_000 * share * n);
        entry.set(Counter::PacketsDropped, 2 * share * n);
        entry.set(Counter::BytesDropped, 128 * share * n);
        entry.set(Counter::IcmpForwarded, n);
        entry.set(Counter::Connections, 7 * share);
        entry
    };
    let mut node = entry("", "", 4);
    node.set(Counter::PacketsUnprocessed, 5 * n);
    node.counters.insert("drop:no-server".into(), 7 * n);
    node.counters.insert("drop:no-route".into(), n);
    node.counters.insert("drop:malformed".into(), 0);
    Statistics {
        entries: vec![
            node,
            entry("www", "", 3),
            entry("www", "_web.0", 2),
            entry("www", "_web.1", 1),
            entry("www6", "", 1),
            entry("www6", "_web6.0", 1),
        ],
    }
}

fn end(text: &str) -> End {
    End::parse("end", text).unwrap()
}

/// A connection under NAT, and one whose rule and server are gone.
fn connections() -> Vec<Connection> {
    let nat = Connection {
        rule: "www".into(),
        server: "_web.0".into(),
        protocol: "tcp".into(),
        client: end("203.0.113.9:40000"),
        vip: Some(end("192.0.2.80:80")),
        source: Some(end("192.0.2.90:1025")),
        destination: Some(end("192.0.2.11:80")),
        state: "established".into(),
        idle: 3,
        remaining: Some(117),
    };
    let gone = Connection {
        rule: "#7".into(),
        server: "#9".into(),
        protocol: "udp".into(),
        client: end("[2001:db8::9]:5353"),
        vip: None,
        source: None,
        destination: None,
        state: "fresh".into(),
        idle: 0,
        remaining: None,
    };
    vec![nat, gone]
}

/// A network that is kept on a server, and one that is only offered one.
fn claims() -> Vec<Connection> {
    let kept = Connection {
        protocol: String::new(),
        client: end("203.0.113.0"),
        vip: None,
        source: None,
        state: "persistence".into(),
        remaining: Some(57),
        ..connections().remove(0)
    };
    let offered = Connection {
        client: end("198.51.100.0"),
        state: "offered".into(),
        idle: 0,
        remaining: Some(60),
        ..kept.clone()
    };
    vec![kept, offered]
}

/// What the fast path might say: of port 80 a beginning, for clients of [`claims`] with their claims, the offered one to a
/// server that takes no new connections; of an ACK a known connection, of port 443 a miss, of anything else a drop.
fn explanation(packet: &Packet) -> Explanation {
    let matched = Matched {
        name: "www".into(),
        vip: "192.0.2.80 tcp port 80".into(),
        topology: "NAT".into(),
        algorithm: "roundrobin".into(),
    };
    let nothing = Explanation {
        generation: 12,
        origin: Origin::None,
        connection: None,
        from_server: false,
        rule: None,
        misses: vec![],
        claim: None,
        servers: vec![],
        server: None,
        leaving: None,
        outcome: Outcome::Kernel,
    };
    let begins = Explanation {
        origin: Origin::Begins,
        rule: Some(matched),
        servers: vec![
            Candidate {
                server: "_web.0".into(),
                weight: Some(1),
                open: 3,
                total: 5,
                obstacle: None,
            },
            Candidate {
                server: "_web.1".into(),
                weight: None,
                open: 1,
                total: 1,
                obstacle: Some("disabled or removed".into()),
            },
        ],
        server: Some(Chosen {
            server: "_web.0".into(),
            end: end("192.0.2.11:80"),
        }),
        leaving: Some(Leaving {
            interface: "eth1".into(),
            protocol: "tcp".into(),
            source: end("192.0.2.90:1025"),
            destination: end("192.0.2.11:80"),
            neighbour: Some("02:00:00:00:00:0b".into()),
        }),
        outcome: Outcome::Transmit,
        ..nothing.clone()
    };
    match (packet.destination.port, packet.flags) {
        (80, None) => Explanation {
            claim: match packet.source.to_string().as_str() {
                "203.0.113.8:40000" => claims().into_iter().next(),
                "198.51.100.8:40000" => claims().into_iter().nth(1).map(|claim| Connection {
                    server: "_web.1".into(),
                    ..claim
                }),
                _ => None,
            },
            ..begins
        },
        (80, Some(_)) => Explanation {
            origin: Origin::Known,
            connection: connections().into_iter().next(),
            servers: vec![],
            leaving: begins.leaving.map(|leaving| Leaving {
                neighbour: None,
                ..leaving
            }),
            outcome: Outcome::Unresolved {
                next_hop: "192.0.2.11".parse().unwrap(),
            },
            ..begins
        },
        (443, _) => Explanation {
            misses: vec![Miss {
                rule: "www".into(),
                vip: "192.0.2.80 tcp port 80".into(),
                obstacles: vec![
                    "the rule is disabled or deleted".into(),
                    "another port".into(),
                    "the client is not one of the rule's".into(),
                ],
            }],
            ..nothing
        },
        _ => Explanation {
            rule: begins.rule,
            outcome: Outcome::Drop {
                reason: "no-server".into(),
                words: "the rule has no server that takes new connections".into(),
            },
            ..nothing
        },
    }
}

/// The words of a case's first line.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace()
        .skip(1)
        .map(str::to_string)
        .collect()
}

fn read(words: &[String]) -> Result<(Action, bool), Error> {
    let args: Vec<OsString> = words.iter().map(Into::into).collect();
    let cli = cli::parse(args).map_err(|e| Error::Usage(usage::message(&e, &words[1..])))?;
    let json = cli.json;
    Ok((understand(cli)?, json))
}

/// Standard output, or what `main` writes when a command fails.
fn output(words: &[String], node: &Description) -> Result<String, Error> {
    let plain = Style::default();
    match read(words)? {
        (Action::Show(show), json) => show.render(node, json, plain),
        (Action::Statistics(args), json) if args.drops => Ok(statistics::drops(
            node,
            &counted(10),
            args.verbose,
            json,
            plain,
        )),
        (Action::Statistics(args), json) => {
            let lines = args.count.unwrap_or(1);
            let interval = u64::from(args.interval.unwrap_or(1));
            let mut printer = Printer::new(args, json, plain);
            let mut out = String::new();
            for i in 0..lines {
                let seconds = 10 + i * interval;
                let now = SystemTime::UNIX_EPOCH + Duration::from_secs(7 * 3600 + seconds);
                out.push_str(&printer.next(&counted(seconds), interval as f64, now)?);
            }
            Ok(out)
        }
        (Action::Connections(listing), json) => {
            let all = match listing.filter.persistence {
                true => claims(),
                false => connections(),
            };
            // Filtering is the fast path's, which is not here.
            let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
            let found = &all[..all.len().min(limit)];
            listing.render(found, found.len() < all.len(), json, plain)
        }
        (Action::Explain(packet), json) => {
            let said = explanation(&packet);
            Ok(match json {
                true => action::line(&serde_json::json!(said)),
                false => explain::render(&packet, &said, plain),
            })
        }
        (Action::Say(text), _) => Ok(text.to_string()),
        (Action::Change(request), _) => Ok(format!("{request:?}\n")),
        (Action::Man(directory), _) => Ok(format!("man pages to {}\n", directory.display())),
    }
}

fn printed(words: &[String], node: &Description) -> String {
    output(words, node).unwrap_or_else(|e| format!("lbadm: {e}\n[exit {}]\n", e.exit() as u8))
}

fn cases(text: &str) -> Vec<(&str, &str)> {
    text.split("$ ")
        .skip(1)
        .map(|case| case.split_once('\n').unwrap_or((case, "")))
        .collect()
}

fn compare(text: &str, node: &Description) {
    let mut wrong = String::new();
    for (line, expected) in cases(text) {
        assert!(!line.trim().is_empty());
        let got = printed(&words(&format!("$ {line}")), node);
        if got.trim_end() != expected.trim_end() {
            wrong.push_str(&format!("$ {line}\n{got}\n"));
        }
    }
    assert!(wrong.is_empty(), "these give something else:\n{wrong}");
}

#[test]
fn outputs_are_as_written_down() {
    compare(include_str!("show.txt"), &node());
}

#[test]
fn command_lines_are_understood_as_written_down() {
    compare(include_str!("parse.txt"), &node());
}

#[test]
fn an_empty_node_says_what_to_do_next() {
    compare(include_str!("empty.txt"), &Description::default());
}

#[test]
fn a_degraded_node_says_why() {
    let node = Description {
        state: State::Degraded,
        state_reason: "the database cannot be written (no space left on device)".into(),
        fastpath: Fastpath::Behind,
        fastpath_generation: 11,
        ..node()
    };
    compare(include_str!("degraded.txt"), &node);
}

#[test]
fn the_cases_cover_every_command() {
    let text = [include_str!("show.txt"), include_str!("parse.txt")].concat();
    let lines: Vec<&str> = cases(&text).iter().map(|(line, _)| *line).collect();
    for sub in cli::command()
        .get_subcommands()
        .filter(|s| !s.is_hide_set())
    {
        for name in std::iter::once(sub.get_name()).chain(sub.get_all_aliases()) {
            let wanted = format!("lbadm {name}");
            assert!(
                lines.iter().any(|l| format!("{l} ")
                    .to_ascii_lowercase()
                    .starts_with(&format!("{wanted} "))),
                "no case for {name}"
            );
        }
    }
}

#[test]
fn colours_do_not_disturb_the_columns() {
    let words: Vec<String> = ["lbadm", "show-rule"].map(String::from).into();
    let Ok((Action::Show(show), _)) = read(&words) else {
        panic!("show-rule shows");
    };
    let colours = show.render(&node(), false, Style { colour: true }).unwrap();
    assert!(
        colours.contains("\x1b[32menabled\x1b[0m   roundrobin"),
        "{colours}"
    );
    let bare = ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"]
        .iter()
        .fold(colours, |text, code| text.replace(code, ""));
    assert_eq!(bare, show.render(&node(), false, Style::default()).unwrap());
}

#[test]
fn json_is_json() {
    for command in [
        "show-rule",
        "show-server",
        "show-servergroup",
        "status",
        "show-stats",
        "show-stats --drops",
    ] {
        let words = words(&format!("$ lbadm {command} --json"));
        let value: serde_json::Value =
            serde_json::from_str(&output(&words, &node()).unwrap()).unwrap();
        assert!(!value.is_null(), "{command}");
    }
    let rules = output(&words("$ lbadm -j show-rule www"), &node()).unwrap();
    let rules: serde_json::Value = serde_json::from_str(&rules).unwrap();
    assert_eq!(rules[0]["name"], "www");
    assert_eq!(rules[0]["topology"], "NAT");
    assert_eq!(rules[0]["proxy_src"][1], "192.0.2.91");
    assert_eq!(
        action::changed_json("added", &["_web.2".into()]),
        "{\"added\":[\"_web.2\"]}\n"
    );
}

#[test]
fn a_status_needs_nothing_else() {
    let Ok((action, _)) = read(&words("$ lbadm status")) else {
        panic!("status is understood");
    };
    assert!(matches!(action, Action::Show(Show::Status)));
}

#[test]
fn help_and_man_pages_know_every_command() {
    let help = cli::parse(vec!["lbadm".into(), "help".into()]).unwrap_err();
    assert!(!help.use_stderr());
    let help = help.render().to_string();
    let directory = std::env::temp_dir().join(format!("ilb-man-{}", std::process::id()));
    crate::man::generate(&directory).unwrap();
    let pages: Vec<String> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    let create_rule = std::fs::read_to_string(directory.join("lbadm-create-rule.8"));
    std::fs::remove_dir_all(&directory).unwrap();
    for sub in cli::command()
        .get_subcommands()
        .filter(|s| !s.is_hide_set())
    {
        let name = sub.get_name();
        assert!(help.contains(name), "{name} is not in the help");
        assert!(
            pages.contains(&format!("lbadm-{name}.8")),
            "{name} has no man page"
        );
    }
    assert!(pages.contains(&"lbadm.8".to_string()));
    assert!(
        create_rule
            .unwrap()
            .contains("\n        \\-o servergroup=web www\n")
    );
}

#[test]
fn help_is_at_most_eighty_columns_wide() {
    let too_long = |text: &str| text.lines().filter(|l| l.chars().count() > 80).count();
    assert_eq!(too_long(cli::OVERVIEW), 0);
    for sub in cli::command().get_subcommands() {
        let after = sub
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert_eq!(too_long(&after), 0, "help of {}", sub.get_name());
    }
}
