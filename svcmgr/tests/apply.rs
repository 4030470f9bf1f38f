//! Documents over D-Bus: one change, all or nothing, what is the same is not touched; and a change that is taken back
//! unless it is confirmed, whatever becomes of the manager meanwhile.

mod common;

use std::time::Duration;

use common::{Bus, FakeFastpath, NOBODY, Node, Process, answering, as_user, need_root, wait_for};
use futures_util::StreamExt;
use libilb::ErrorKind;
use libilb::apply::ApplyOptions;
use libilb::client::{Client, ClientError};
use libilb::dbus::{BUS_NAME, ROOT_PATH, rule_path};
use libilb::describe::Description;
use libilb::document::{Action, Item, Report};
use zbus::fdo::{ObjectManagerProxy, PropertiesProxy};

const FIRST: &str = r#"
[group.web]
servers = ["192.0.2.10", { address = "192.0.2.11", weight = 2 }]

[rule.shop]
vip = "198.51.100.1"
port = 80
algorithm = "wlc"
topology = "HALF-NAT"
group = "web"

[rule.pay]
vip = "198.51.100.1"
port = 443
algorithm = "wlc"
topology = "HALF-NAT"
group = "web"
"#;

/// Another server, another group, another VIP for one rule; the other rule stays.
const SECOND: &str = r#"
[group.web]
servers = ["192.0.2.10", "192.0.2.12"]

[group.api]
servers = ["192.0.2.20"]

[rule.shop]
vip = "198.51.100.2"
port = 80
algorithm = "wlc"
topology = "HALF-NAT"
group = "api"

[rule.pay]
vip = "198.51.100.1"
port = 443
algorithm = "wlc"
topology = "HALF-NAT"
group = "web"
"#;

async fn apply(client: &Client, text: &str) -> Report {
    let applied = client.apply(text, &ApplyOptions::default()).await;
    applied.unwrap_or_else(|error| panic!("{error}"))
}

async fn apply_for(client: &Client, text: &str, seconds: u32) -> Report {
    let confirm = Some(seconds);
    let options = ApplyOptions {
        confirm,
        ..ApplyOptions::default()
    };
    let applied = client.apply(text, &options).await;
    applied.unwrap_or_else(|error| panic!("{error}"))
}

fn refused(result: Result<impl std::fmt::Debug, ClientError>) -> (ErrorKind, String) {
    match result.expect_err("the manager refuses") {
        ClientError::Refused { kind, message } => (kind, message),
        other => panic!("another error was expected: {other}"),
    }
}

/// Numbers and ids of everything that is configured, and what it says.
fn contents(node: &Description) -> Vec<String> {
    let rules = node.rules.iter().filter(|rule| !rule.deleted);
    let servers = node.groups.iter().flat_map(|group| &group.servers);
    let servers = servers.filter(|server| !server.removed);
    let groups = node.groups.iter().map(|group| group.name.clone());
    rules
        .map(|rule| format!("{:?}", rule.rule))
        .chain(servers.map(|server| format!("{:?}", server.server)))
        .chain(groups)
        .collect()
}

#[tokio::test]
async fn a_document_is_one_change_that_leaves_alone_what_is_the_same() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    let empty = client.describe().await.unwrap().generation;
    let report = apply(&client, FIRST).await;
    assert_eq!(report.generation, empty + 1);
    assert_eq!(
        report.names_of(Action::Created, Item::Rule),
        ["shop", "pay"]
    );
    assert_eq!(
        report.names_of(Action::Created, Item::Server),
        ["_web.0", "_web.1"]
    );
    let first = client.describe().await.unwrap();
    assert_eq!(first.generation, empty + 1, "one generation");
    assert_eq!(first.fastpath_generation, first.generation);

    // The same once more is no change, in whatever form.
    let json = libilb::document::Document::parse(FIRST).unwrap();
    for text in [FIRST.to_owned(), serde_json::to_string(&json).unwrap()] {
        let report = apply(&client, &text).await;
        assert!(report.is_empty(), "{report}");
        assert_eq!(report.generation, first.generation);
        assert_eq!(report.unchanged.servers, 2);
    }

    // A dry run says the same as the change, and changes nothing.
    let dry = ApplyOptions {
        dry_run: true,
        ..ApplyOptions::default()
    };
    let said = client.apply(SECOND, &dry).await.unwrap();
    assert_eq!(
        contents(&client.describe().await.unwrap()),
        contents(&first)
    );
    let done = apply(&client, SECOND).await;
    assert_eq!(said.changes, done.changes);
    let second = client.describe().await.unwrap();
    assert_eq!(second.generation, first.generation + 1, "one generation");
    let pay = |node: &Description| node.rule("pay").unwrap().rule.clone();
    assert_eq!(pay(&first), pay(&second));
    let server = |node: &Description, id: &str| {
        let mut servers = node.group("web").unwrap().servers.iter();
        servers
            .find(|s| s.server.id == id && !s.removed)
            .map(|s| s.server.clone())
    };
    assert_eq!(server(&first, "_web.0"), server(&second, "_web.0"));
    assert_eq!(server(&second, "_web.1"), None);
    assert_eq!(
        server(&second, "_web.2").unwrap().address.to_string(),
        "192.0.2.12"
    );
    assert!(second.rule("shop").unwrap().rule.number > pay(&second).number);

    // Merged, only what is named is different.
    let merge = ApplyOptions {
        merge: true,
        ..ApplyOptions::default()
    };
    let report = client
        .apply("[rule.pay]\nenabled = false", &merge)
        .await
        .unwrap();
    assert_eq!(report.to_string(), "~ rule pay: enabled default → false\n");
    assert_eq!(
        client
            .describe()
            .await
            .unwrap()
            .rules
            .iter()
            .filter(|r| !r.deleted)
            .count(),
        2
    );
}

#[tokio::test]
async fn a_document_with_mistakes_changes_nothing_and_all_of_them_are_told() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    apply(&client, FIRST).await;
    let before = client.describe().await.unwrap();
    let text = SECOND
        .replace("group = \"api\"", "group = \"apu\"")
        .replace("port = 443", "prot = \"tpc\"");
    let (kind, message) = refused(client.apply(&text, &ApplyOptions::default()).await);
    assert_eq!(kind, ErrorKind::InvalidArgument);
    for part in [
        "no server group is named 'apu'; did you mean 'api'?",
        " --> document:13:9\n",
        "protocol 'tpc' is not known",
        "document: 2 mistakes",
    ] {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
    let options = ApplyOptions {
        confirm: Some(0),
        ..ApplyOptions::default()
    };
    let (_, message) = refused(client.apply(SECOND, &options).await);
    assert_eq!(
        message,
        "confirm '0' is out of range: use 1 to 86400 seconds"
    );
    let after = client.describe().await.unwrap();
    assert_eq!(after, before);
}

#[tokio::test]
async fn what_the_fast_path_refuses_is_taken_back_as_a_whole() {
    let (bus, node) = (Bus::start(), Node::new());
    let fastpath = FakeFastpath::start(&node);
    let _manager = Process::start(&mut node.command(&bus));
    let client = answering(&bus).await;
    wait_for(&client, "the fast path is there", |d| {
        d.fastpath == libilb::describe::Fastpath::Connected
    })
    .await;
    apply(&client, FIRST).await;
    fastpath.wait_for_rules(2);
    let before = client.describe().await.unwrap();
    let pushed = fastpath.mind.lock().unwrap().applied.len();
    fastpath.mind.lock().unwrap().refuse = Some("no room".into());
    let options = ApplyOptions {
        confirm: Some(60),
        ..ApplyOptions::default()
    };
    let (kind, message) = refused(client.apply(SECOND, &options).await);
    assert_eq!(kind, ErrorKind::FastpathRejected);
    assert!(message.contains("no room"), "{message}");
    fastpath.mind.lock().unwrap().refuse = None;
    let after = client.describe().await.unwrap();
    assert_eq!(contents(&after), contents(&before));
    assert_eq!(after.waiting, None);
    // And then it goes through, in one piece.
    apply(&client, SECOND).await;
    fastpath.wait_for_rules(3);
    let now = fastpath.mind.lock().unwrap().applied.len();
    assert!(
        now <= pushed + 2,
        "one for what was taken back, one for the change: {now} after {pushed}"
    );
}

#[tokio::test]
async fn a_change_that_waits_can_be_confirmed_or_reverted_and_nothing_else_happens_meanwhile() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    assert!(!client.confirm().await.unwrap());
    assert!(!client.revert().await.unwrap());
    apply(&client, FIRST).await;
    let first = client.describe().await.unwrap();

    let report = apply_for(&client, SECOND, 3600).await;
    let second = client.describe().await.unwrap();
    let waiting = second.waiting.clone().expect("it waits");
    assert_eq!(report.confirm_by, Some(waiting.until));
    assert_eq!(waiting.generation, first.generation);
    assert_eq!(client.manager().confirm_by().await.unwrap(), waiting.until);
    let (kind, message) = refused(client.create_group("more", &[]).await);
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(message.contains("waits for its confirmation"), "{message}");
    assert!(message.contains("'lbadm confirm' keeps it"), "{message}");
    let (kind, _) = refused(client.apply(FIRST, &ApplyOptions::default()).await);
    assert_eq!(kind, ErrorKind::Conflict);
    // What would be different may be asked.
    let dry = ApplyOptions {
        dry_run: true,
        ..ApplyOptions::default()
    };
    assert!(client.apply(SECOND, &dry).await.unwrap().is_empty());

    assert!(client.revert().await.unwrap());
    let back = client.describe().await.unwrap();
    assert_eq!(contents(&back), contents(&first), "numbers and ids, too");
    assert_eq!(
        (back.waiting, back.generation),
        (None, second.generation + 1)
    );
    assert_eq!(client.manager().confirm_by().await.unwrap(), 0);

    // An id that was given meanwhile is not given again.
    apply_for(&client, SECOND, 3600).await;
    assert!(client.confirm().await.unwrap());
    let kept = client.describe().await.unwrap();
    assert_eq!(kept.waiting, None);
    let ids: Vec<String> = kept
        .group("web")
        .unwrap()
        .servers
        .iter()
        .filter(|s| !s.removed)
        .map(|s| s.server.id.clone())
        .collect();
    assert_eq!(ids, ["_web.0", "_web.3"]);
    client.create_group("more", &[]).await.unwrap();
    // Nothing that could be confirmed when nothing changes.
    let report = apply_for(
        &client,
        &format!("{SECOND}\n[group.more]\nservers = []"),
        3600,
    )
    .await;
    assert_eq!((report.is_empty(), report.confirm_by), (true, None));
}

#[tokio::test]
async fn a_change_that_is_not_confirmed_in_time_is_taken_back() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    apply(&client, FIRST).await;
    let first = client.describe().await.unwrap();
    let connection = bus.connection().await;
    let properties = PropertiesProxy::builder(&connection)
        .destination(BUS_NAME)
        .path(ROOT_PATH)
        .build()
        .await
        .unwrap();
    let mut signals = properties.receive_properties_changed().await.unwrap();
    apply_for(&client, SECOND, 1).await;
    let back = wait_for(&client, "it is taken back", |d| d.waiting.is_none()).await;
    assert_eq!(contents(&back), contents(&first));
    // Those who watch the property see it come and go.
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let signal = tokio::time::timeout(common::PATIENCE, signals.next()).await;
        let signal = signal.expect("a signal comes").expect("the bus is there");
        let args = signal.args().unwrap();
        if let Some(value) = args.changed_properties().get("ConfirmBy") {
            seen.push(u64::try_from(value).unwrap());
        }
    }
    assert!(seen[0] > 0 && seen[1] == 0, "{seen:?}");
}

#[tokio::test]
async fn a_manager_that_was_killed_meanwhile_takes_it_back_all_the_same() {
    let (bus, node) = (Bus::start(), Node::new());
    let (mut manager, client) = node.start_sim(&bus).await;
    apply(&client, FIRST).await;
    let first = client.describe().await.unwrap();
    let report = apply_for(&client, SECOND, 2).await;
    manager.kill();
    let until = report.confirm_by.expect("it waits");
    let now = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs()
    };
    while now() <= until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (mut manager, client) = node.start_sim(&bus).await;
    let back = wait_for(&client, "it is taken back", |d| d.waiting.is_none()).await;
    assert_eq!(contents(&back), contents(&first));

    // In time it can still be confirmed after a restart, and then it stays.
    apply_for(&client, SECOND, 3600).await;
    let second = client.describe().await.unwrap();
    manager.kill();
    let (mut manager, client) = node.start_sim(&bus).await;
    let restarted = client.describe().await.unwrap();
    assert_eq!(restarted.waiting, second.waiting);
    let (kind, _) = refused(client.create_group("more", &[]).await);
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(client.confirm().await.unwrap());
    manager.kill();
    let (_manager, client) = node.start_sim(&bus).await;
    let kept = client.describe().await.unwrap();
    assert_eq!((contents(&kept), kept.waiting), (contents(&second), None));
}

#[tokio::test]
async fn a_rule_that_is_made_anew_is_another_object() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    apply(&client, FIRST).await;
    let connection = bus.connection().await;
    let objects = ObjectManagerProxy::builder(&connection)
        .destination(BUS_NAME)
        .path(ROOT_PATH)
        .build()
        .await
        .unwrap();
    let mut gone = objects.receive_interfaces_removed().await.unwrap();
    let mut come = objects.receive_interfaces_added().await.unwrap();
    apply(&client, SECOND).await;
    let shop = rule_path("shop");
    let removed = async {
        loop {
            let signal = gone.next().await.expect("the bus is there");
            if signal.args().unwrap().object_path().as_str() == shop {
                return;
            }
        }
    };
    tokio::time::timeout(common::PATIENCE, removed)
        .await
        .expect("the old one is gone");
    let added = async {
        loop {
            let signal = come.next().await.expect("the bus is there");
            if signal.args().unwrap().object_path().as_str() == shop {
                return;
            }
        }
    };
    tokio::time::timeout(common::PATIENCE, added)
        .await
        .expect("the new one is there");
    let proxy = libilb::dbus::RuleProxy::builder(&connection)
        .path(shop.clone())
        .build()
        .await
        .unwrap();
    let said: serde_json::Value = serde_json::from_str(&proxy.describe().await.unwrap()).unwrap();
    assert_eq!(said["vip"], "198.51.100.2");
}

#[tokio::test]
async fn everybody_may_ask_what_would_be_different_and_not_everybody_may_do_it() {
    need_root();
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    apply(&client, FIRST).await;
    let call = |document: &str, options: &[&str]| {
        let mut command = as_user(NOBODY, "busctl");
        command.arg(format!("--address={}", bus.address()));
        command.args(["call", BUS_NAME, ROOT_PATH, "org.ilb.Ilb1.Manager", "Apply"]);
        command.args(["sa{sv}", document]).args(options);
        command.output().expect("busctl can be run")
    };
    let asked = call(SECOND, &["1", "dry-run", "b", "true"]);
    let text = String::from_utf8(asked.stdout).unwrap();
    assert!(asked.status.success() && text.contains("created"), "{text}");
    let before = client.describe().await.unwrap();
    let done = call(SECOND, &["0"]);
    let text = String::from_utf8(done.stderr).unwrap();
    assert!(
        !done.status.success() && text.contains("may not change the load balancer"),
        "{text}"
    );
    let large = format!("# {}", "x".repeat(100_000));
    assert!(
        call(&large, &["1", "dry-run", "b", "true"])
            .status
            .success()
    );
    assert_eq!(client.describe().await.unwrap(), before);
}
