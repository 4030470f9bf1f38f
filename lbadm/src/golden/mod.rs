//! Command lines and what comes of them, as a person sees it.
//!
//! Each object has a file of cases, `rule.txt` for rules. A case begins with `$ lbadm` and a command line, and ends at the next
//! one. What follows is the output, for the node of [`node::node`] and [`node::counted`]; or the message and exit code; or, for
//! a command that changes something, the D-Bus method that is called with what it is given. `empty.txt` and `degraded.txt`
//! are about other nodes.

mod documents;
mod events;
pub mod history;
pub mod node;
mod pairs;
mod traffic;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, SystemTime};

use libilb::dbus;
use libilb::describe::{Description, Drift, Fastpath, State};
use libilb::healthcheck;
use libilb::pair::PairDescription;

use crate::action::{self, Action, Request, Show, understand};
use crate::cli;
use crate::complete;
use crate::config;
use crate::error::Error;
use crate::explain::{self, Question};
use crate::pair;
use crate::statistics::{self, Printer};
use crate::status::Status;
use crate::table::Style;
use crate::usage;
use events::events;
use history::{history, rolled_back};
use node::{counted, node, results};
use traffic::{claims, connections, explanation};

/// The cases of every object.
const CASES: &[(&str, &str)] = &[
    ("rule", include_str!("rule.txt")),
    ("servergroup", include_str!("servergroup.txt")),
    ("server", include_str!("server.txt")),
    ("healthcheck", include_str!("healthcheck.txt")),
    ("vrrp", include_str!("vrrp.txt")),
    ("pair", include_str!("pair.txt")),
    ("config", include_str!("config.txt")),
    ("history", include_str!("history.txt")),
    ("document", include_str!("document.txt")),
    ("statistics", include_str!("statistics.txt")),
    ("connections", include_str!("connections.txt")),
    ("explain", include_str!("explain.txt")),
    ("monitor", include_str!("monitor.txt")),
    ("node", include_str!("node.txt")),
    ("lbadm", include_str!("lbadm.txt")),
];

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
        (Action::Show(show), json) => action::shown(&*show, node, json, plain),
        (Action::Statistics(args), json) if args.drops => {
            statistics::drops(&args, node, &counted(10), json, plain)
        }
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
        (Action::Pair(pair::Request::Show(listing)), json) => {
            let other = pairs::pair();
            listing.render(node.pair.as_deref().unwrap_or(&other), json, plain)
        }
        (Action::Pair(request @ pair::Request::Create { .. }), json) => Ok(format!(
            "{request:?}\n{}",
            pair::invited(&pairs::invitation(), json)
        )),
        (Action::Pair(request), _) => Ok(format!("{request:?}\n")),
        (Action::History(listing), json) => listing.render(&history(), json, plain),
        (Action::Rollback(rollback), json) => {
            let report = rolled_back(rollback.generation, rollback.dry_run);
            rollback.render(&report, json, plain)
        }
        (Action::HealthResults(shown), json) => shown.render(&results(), json, plain),
        (Action::Explain(Question::Packet(packet)), json) => {
            let said = explanation(&packet);
            Ok(explain::packet(&packet, &said, json, plain))
        }
        (Action::Explain(Question::Object(object)), json) => {
            object.explain(node, &counted(10), json, plain)
        }
        (Action::Monitor(filter), json) => {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
            let lines = events().into_iter();
            Ok(lines
                .filter_map(|event| filter.render(event, now, json, plain))
                .collect())
        }
        (Action::Export(args), json) => Ok(config::export(&args, node, json)),
        (Action::Import(import), _) => Ok(format!("{import:?}\n")),
        (Action::Document(request), json) => Ok(documents::outcome(&request, json)),
        (Action::Say(text), _) => Ok(text.to_string()),
        (Action::Change(request), _) => Ok(called(&request)),
        (Action::Top(args), _) => Ok(format!("{args:?}\n")),
        (Action::Doctor(config), _) => Ok(format!("looks, with {}\n", config.display())),
        (Action::Complete(line), _) => {
            let known = complete::Known {
                node: Some(node),
                history: Some(&history()),
            };
            Ok(complete::answer(&line, known).text())
        }
        (Action::Man(directory), _) => Ok(format!("man pages to {}\n", directory.display())),
    }
}

fn printed(words: &[String], node: &Description) -> String {
    output(words, node).unwrap_or_else(|e| format!("lbadm: {e}\n[exit {}]\n", e.exit() as u8))
}

fn cases(text: &str) -> Vec<(&str, &str)> {
    let text = text.strip_prefix("$ ").unwrap_or(text);
    text.split("\n$ ")
        .map(|case| case.split_once('\n').unwrap_or((case, "")))
        .collect()
}

/// What is called, with the settings that are given, a line each.
fn called(request: &Request) -> String {
    fn settings<V: ToString>(head: String, map: HashMap<&str, V>) -> String {
        let map: BTreeMap<&str, String> = map.iter().map(|(k, v)| (*k, v.to_string())).collect();
        let lines = map.iter().map(|(key, value)| format!("  {key}: {value}\n"));
        format!("{head}\n{}", lines.collect::<String>())
    }
    let on = |enabled| if enabled { "Enable" } else { "Disable" };
    match request {
        Request::CreateRule { name, settings: s } => {
            settings(format!("CreateRule {name:?}"), dbus::settings_to_dbus(s))
        }
        Request::ModifyRule { name, settings: s } => {
            settings(format!("ModifyRule {name:?}"), dbus::settings_to_dbus(s))
        }
        Request::ModifyServers { ids, settings: s } => settings(
            format!("ModifyServers {ids:?}"),
            dbus::server_settings_to_dbus(s),
        ),
        Request::CreateCheck { name, settings: s } => settings(
            format!("CreateHealthCheck {name:?}"),
            healthcheck::settings_to_dbus(s),
        ),
        Request::ModifyCheck { name, settings: s } => settings(
            format!("ModifyHealthCheck {name:?}"),
            healthcheck::settings_to_dbus(s),
        ),
        Request::DeleteChecks(names) => format!("DeleteHealthChecks {names:?}\n"),
        Request::CreateVrrp { name, settings: s } => settings(
            format!("CreateVrrp {name:?}"),
            libilb::vrrp::settings_to_dbus(s),
        ),
        Request::ModifyVrrp { name, settings: s } => settings(
            format!("ModifyVrrp {name:?}"),
            libilb::vrrp::settings_to_dbus(s),
        ),
        Request::EnableVrrp { names, enabled } => format!("{}Vrrp {names:?}\n", on(*enabled)),
        Request::DeleteVrrp(names) => format!("DeleteVrrp {names:?}\n"),
        Request::DeleteRules(names) => format!("DeleteRules {names:?}\n"),
        Request::DeleteAllRules => "DeleteAllRules\n".to_string(),
        Request::EnableRules { names, enabled } => format!("{}Rules {names:?}\n", on(*enabled)),
        Request::EnableServers { ids, enabled } => format!("{}Servers {ids:?}\n", on(*enabled)),
        Request::CreateGroup {
            name,
            servers,
            source,
        } if source.is_empty() => {
            format!("CreateServerGroup {name:?} {servers:?}\n")
        }
        Request::CreateGroup {
            name,
            servers,
            source,
        } => settings(
            format!("CreateFollowingServerGroup {name:?} {servers:?}"),
            dbus::source_to_dbus(source),
        ),
        Request::ModifyGroup { name, source } => settings(
            format!("ModifyServerGroup {name:?}"),
            dbus::source_to_dbus(source),
        ),
        Request::ApproveServers { group, servers } => {
            format!("ApproveServers {group:?} {servers:?}\n")
        }
        Request::DeleteGroups(names) => format!("DeleteServerGroups {names:?}\n"),
        Request::AddServers { group, servers } => format!("AddServers {group:?} {servers:?}\n"),
        Request::RemoveServers { group, servers } => {
            format!("RemoveServers {group:?} {servers:?}\n")
        }
    }
}

/// The cases as they are now.
fn actual(text: &str, node: &Description) -> String {
    let now = cases(text).into_iter().map(|(line, _)| {
        assert!(line.starts_with("lbadm"), "no command line: {line}");
        let got = printed(&words(&format!("$ {line}")), node);
        format!("$ {line}\n{}", got.trim_end())
            .trim_end()
            .to_string()
    });
    now.collect::<Vec<_>>().join("\n\n") + "\n"
}

/// Compares what is written down in some files with what there is. `ILB_GOLDEN=write` writes them anew instead, to be
/// read by a person before it is committed.
fn compare(files: &[(&str, &str)], node: &Description) {
    let mut wrong = String::new();
    for (name, text) in files {
        let now = actual(text, node);
        if std::env::var_os("ILB_GOLDEN").is_some_and(|value| value == "write") {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden");
            std::fs::write(folder.join(format!("{name}.txt")), now).unwrap();
            continue;
        }
        for ((line, expected), (_, got)) in cases(text).iter().zip(cases(&now)) {
            if got.trim_end() != expected.trim_end() {
                wrong.push_str(&format!("==== {name}.txt\n$ {line}\n{got}\n"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "these give something else (ILB_GOLDEN=write writes them down):\n{wrong}"
    );
}

#[test]
fn each_command_line_gives_what_is_written_down() {
    compare(CASES, &node());
}

#[test]
fn an_empty_node_says_what_to_do_next() {
    compare(
        &[("empty", include_str!("empty.txt"))],
        &Description::default(),
    );
}

#[test]
fn a_degraded_node_says_why() {
    let node = Description {
        state: State::Degraded,
        state_reason: "the database cannot be written (no space left on device)".into(),
        fastpath: Fastpath::Behind,
        fastpath_generation: 11,
        drift: vec![
            Drift {
                what: "interface".into(),
                item: "eth1".into(),
                wanted: "served".into(),
                actual: "there is no such interface".into(),
                since: 1_763_749_843_000,
                repaired: 0,
                doing: "it is served as soon as it is there".into(),
            },
            Drift {
                what: "address".into(),
                item: "192.0.2.80".into(),
                wanted: "on eth0".into(),
                actual: "on no interface".into(),
                since: 1_763_749_843_000,
                repaired: 1_763_749_843_004,
                doing: String::new(),
            },
        ],
        ..node()
    };
    compare(&[("degraded", include_str!("degraded.txt"))], &node);
}

#[test]
fn a_node_whose_change_waits_says_until_when() {
    let node = Description {
        waiting: Some(libilb::apply::Waiting {
            until: 1_795_000_000,
            generation: 11,
            author: "root (uid 0)".into(),
        }),
        ..node()
    };
    compare(&[("waiting", include_str!("waiting.txt"))], &node);
}

#[test]
fn a_node_says_how_its_pair_is() {
    for (name, pair, text) in [
        ("pair-well", pairs::well(), include_str!("pair-well.txt")),
        ("pair-busy", pairs::pair(), include_str!("pair-busy.txt")),
        ("pair-ill", pairs::ill(), include_str!("pair-ill.txt")),
        ("pair-down", pairs::down(), include_str!("pair-down.txt")),
        ("pair-left", pairs::left(), include_str!("pair-left.txt")),
    ] {
        let node = Description {
            pair: Some(Box::new(pair)),
            rules: Vec::new(),
            ..node()
        };
        compare(&[(name, text)], &node);
    }
}

#[test]
fn only_a_pair_that_does_not_work_is_no_success() {
    let exit = |pair: PairDescription| {
        let node = Description {
            pair: Some(Box::new(pair)),
            rules: Vec::new(),
            ..node()
        };
        Status.exit(&node) as u8
    };
    for (what, pair, code) in [
        ("well", pairs::well(), 0),
        ("behind, and it comes", pairs::pair(), 0),
        ("ill", pairs::ill(), 5),
        ("down", pairs::down(), 5),
        ("left", pairs::left(), 0),
    ] {
        assert_eq!(exit(pair), code, "{what}");
    }
}

#[test]
fn the_cases_cover_every_command() {
    let all = CASES.iter().flat_map(|(_, text)| cases(text));
    let lines: Vec<&str> = all.map(|(line, _)| line).collect();
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
    let colours = show.render(&node(), Style { colour: true }).unwrap();
    assert!(
        colours.contains("\x1b[32menabled\x1b[0m   roundrobin"),
        "{colours}"
    );
    let bare = ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"]
        .iter()
        .fold(colours, |text, code| text.replace(code, ""));
    assert_eq!(bare, show.render(&node(), Style::default()).unwrap());
}

#[test]
fn json_is_json() {
    for command in [
        "show-rule",
        "show-server",
        "show-servergroup",
        "show-healthcheck",
        "show-vrrp",
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
