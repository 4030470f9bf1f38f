//! The introspection files in `packaging/dbus/interfaces` and the tables in `docs/dbus.md` are what the running service says
//! of itself, and every method that changes something asks who calls.
//!
//! `make dbus-docs` writes both anew. A new method, property or signal needs a doc comment where it is declared, a method
//! that only reads a place in [`READING`], and a new object one in [`filled`].

mod common;
#[path = "interfaces/introspection.rs"]
mod introspection;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::{Bus, NOBODY, Node, as_user, need_root, rule};
use introspection::{Emits, Interface, Member};
use libilb::ErrorKind;
use libilb::client::Client;
use libilb::dbus::BUS_NAME;
use libilb::healthcheck::HealthCheckSettings;
use libilb::vrrp::VrrpSettings;

/// Methods that everybody may call. Any other asks polkit.
const READING: &[&str] = &[
    "Describe",
    "DescribeFastpath",
    "DescribePair",
    "Explain",
    "GetStatistics",
    "History",
    "ListConnections",
    "ListHealthResults",
    "PreviewRollback",
];

/// Methods for which polkit's action `manage-state` is enough.
const STATE: &[&str] = &[
    "Enable",
    "Disable",
    "EnableRules",
    "DisableRules",
    "EnableServers",
    "DisableServers",
    "EnableVrrp",
    "DisableVrrp",
    "Failover",
    "SetMaintenance",
];

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// One object of every kind.
async fn filled(client: &Client) {
    client.create_group("web", &["192.0.2.10"]).await.unwrap();
    let mut check = HealthCheckSettings::default();
    check.parse("test=tcp").unwrap();
    client.create_check("alive", &check).await.unwrap();
    let mut outer = VrrpSettings::default();
    outer
        .parse("interface=eth0,vrid=51,addresses=198.51.100.2")
        .unwrap();
    client.create_vrrp("outer", &outer).await.unwrap();
    let shop = rule("198.51.100.1", "web");
    client.create_rule("shop", &shop).await.unwrap();
}

/// The interfaces of the running service by their names, and an object that has each.
async fn interfaces(bus: &Bus) -> BTreeMap<String, (Interface, String)> {
    let mut found = BTreeMap::new();
    let mut paths = vec![String::new()];
    while let Some(path) = paths.pop() {
        let at = if path.is_empty() { "/" } else { &path };
        let xml = introspection::introspect(bus, at).await;
        paths.extend(introspection::children(&xml).map(|child| format!("{path}/{child}")));
        for interface in introspection::interfaces(&xml) {
            if interface.name.starts_with("org.ilb.") {
                found.insert(interface.name.clone(), (interface, path.clone()));
            }
        }
    }
    found
}

/// Who may call a method, for the table.
fn who(method: &str) -> &'static str {
    if READING.contains(&method) {
        "all"
    } else if STATE.contains(&method) {
        "manage-state"
    } else {
        "manage"
    }
}

/// Compares a file with what it should hold, or writes it with `ILB_WRITE=1`.
fn settle(path: &Path, wanted: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("ILB_WRITE").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().expect("a file is in a folder")).unwrap();
        fs::write(path, wanted).unwrap();
    } else if fs::read_to_string(path).unwrap_or_default() != wanted {
        wrong.push(path.display().to_string());
    }
}

#[tokio::test]
async fn files_and_documentation_are_what_the_service_says_of_itself() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    filled(&client).await;
    let interfaces = interfaces(&bus).await;
    assert!(interfaces.len() >= 4, "{:?}", interfaces.keys());

    let mut wrong = Vec::new();
    let folder = project("packaging/dbus/interfaces");
    for (interface, _) in interfaces.values() {
        for member in &interface.members {
            let name = format!("{}.{}", interface.name, member.name());
            assert!(!member.doc().is_empty(), "{name} has no doc comment");
        }
        let path = folder.join(format!("{}.xml", interface.name));
        settle(&path, &interface.file(), &mut wrong);
    }
    let files: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let known: BTreeSet<String> = interfaces
        .keys()
        .map(|name| format!("{name}.xml"))
        .collect();
    assert_eq!(files, known, "files in {}", folder.display());

    let path = project("docs/dbus.md");
    let mut text = fs::read_to_string(&path).unwrap();
    for (name, (interface, _)) in &interfaces {
        let (begin, end) = (
            format!("<!-- begin {name} -->\n"),
            format!("<!-- end {name} -->"),
        );
        let from = text
            .find(&begin)
            .unwrap_or_else(|| panic!("docs/dbus.md has no place for {name}: write {begin}{end}"));
        let from = from + begin.len();
        let to = from + text[from..].find(&end).expect("the place has an end");
        text.replace_range(from..to, &interface.tables(who));
    }
    settle(&path, &text, &mut wrong);
    assert!(
        wrong.is_empty(),
        "not what the service says, write them anew with `make dbus-docs`: {wrong:?}"
    );
}

/// The keys in the first column of the table after a mark in the documentation, with their type.
fn documented_keys(text: &str, mark: &str) -> BTreeSet<(String, String)> {
    let mark = format!("<!-- keys {mark} -->");
    let at = text
        .find(&mark)
        .unwrap_or_else(|| panic!("docs/dbus.md has no {mark}"));
    text[at + mark.len()..]
        .trim_start()
        .lines()
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .flat_map(|line| {
            let mut cells = line.trim_matches('|').split('|');
            let keys = cells.next().unwrap_or_default();
            let kind = cells.next().unwrap_or_default().trim().to_owned();
            let keys: Vec<_> = keys
                .split('`')
                .skip(1)
                .step_by(2)
                .map(|key| (key.to_owned(), kind.clone()))
                .collect();
            keys
        })
        .collect()
}

#[test]
fn every_key_error_and_counter_is_documented_and_no_other() {
    let text = fs::read_to_string(project("docs/dbus.md")).unwrap();
    for (mark, keys) in [
        ("CreateRule", libilb::dbus::SETTINGS),
        ("ModifyServers", libilb::dbus::SERVER_SETTINGS),
        (
            "CreateHealthCheck",
            libilb::healthcheck::HEALTH_CHECK_SETTINGS,
        ),
        ("CreateVrrp", libilb::vrrp::VRRP_SETTINGS),
        ("CreateFollowingServerGroup", libilb::dbus::SOURCE_SETTINGS),
        ("ListConnections", libilb::connections::FILTER),
        ("Explain", libilb::explain::PACKET),
        ("ListHealthResults", libilb::healthfilter::HEALTH_FILTER),
        ("Apply", libilb::apply::APPLY_OPTIONS),
    ] {
        let known: BTreeSet<(String, String)> = keys
            .iter()
            .map(|(key, kind)| ((*key).to_owned(), (*kind).to_owned()))
            .collect();
        assert_eq!(documented_keys(&text, mark), known, "{mark}");
    }
    let section = |name: &str| {
        let at = text.find(&format!("\n## {name}\n")).expect("a section");
        let rest = &text[at + 1..];
        rest[..rest.find("\n## ").unwrap_or(rest.len())].to_owned()
    };
    let errors = section("Errors");
    for kind in ErrorKind::ALL {
        let word = format!("`{}`", kind.word());
        assert!(errors.contains(&word), "the error {word} is not documented");
    }
    let counters = section("Counters");
    for counter in libilb::stats::Counter::all() {
        let word = format!("`{}`", counter.name());
        assert!(
            counters.contains(&word),
            "the counter {word} is not documented"
        );
    }
}

/// Arguments for `busctl` that fit a signature and mean nothing.
fn nothing(signature: &str) -> Vec<&'static str> {
    let mut rest = signature.chars().peekable();
    let mut words = Vec::new();
    while let Some(kind) = rest.next() {
        words.push(match kind {
            'a' => {
                // What the array is of; an empty one needs no more.
                if rest.next() == Some('{') {
                    rest.by_ref().find(|c| *c == '}');
                }
                "0"
            }
            's' => "",
            'o' => "/",
            'b' => "false",
            _ => "0",
        });
    }
    words
}

#[tokio::test]
async fn whatever_changes_something_asks_who_calls() {
    need_root();
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    filled(&client).await;
    let before = client.describe().await.unwrap();
    let mut known = BTreeSet::new();
    for (interface, path) in interfaces(&bus).await.values() {
        let mut describes = false;
        for member in &interface.members {
            let Member::Method { name, .. } = member else {
                continue;
            };
            known.insert(name.clone());
            describes |= name == "Describe";
            let signature = member.signature();
            let mut command = as_user(NOBODY, "busctl");
            command.arg(format!("--address={}", bus.address())).args([
                "call",
                BUS_NAME,
                path,
                &interface.name,
                name,
            ]);
            if !signature.is_empty() {
                command.arg(&signature).args(nothing(&signature));
            }
            let output = command.output().expect("busctl can be run");
            let error = String::from_utf8(output.stderr).unwrap();
            let refused = error.contains("user 65534 may not");
            let name = format!("{}.{name}", interface.name);
            match who(member.name()) {
                "all" => assert!(!refused, "everybody may call {name}: {error}"),
                action => {
                    assert!(refused, "anybody may call {name}: {error:?}");
                    let action = format!("polkit action org.ilb.Ilb1.{action}\n");
                    assert!(error.ends_with(&action), "{name}: {error}");
                }
            }
        }
        assert!(describes, "{} has no Describe", interface.name);
    }
    for name in READING.iter().chain(STATE) {
        assert!(known.contains(*name), "there is no method {name}");
    }
    assert_eq!(client.describe().await.unwrap(), before);
}

#[tokio::test]
async fn what_never_changes_says_so_and_nothing_can_be_written() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    filled(&client).await;
    for (interface, _) in interfaces(&bus).await.values() {
        for member in &interface.members {
            let Member::Property {
                name,
                access,
                emits,
                ..
            } = member
            else {
                continue;
            };
            let name = format!("{}.{name}", interface.name);
            // Changes are methods: they take several things at a time, and say what came of it.
            assert_eq!(access, "read", "{name}");
            assert_ne!(*emits, Emits::Invalidates, "{name} can be sent");
        }
    }
}
