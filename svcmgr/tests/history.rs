//! What was changed, when and by whom, and the way back, over D-Bus and over restarts.

mod common;

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Bus, Node, rule};
use libilb::ErrorKind;
use libilb::client::{Client, ClientError};
use libilb::describe::Description;
use libilb::difference::Change;

/// Rules and server groups as they are configured, without what only drains.
fn contents(node: &Description) -> String {
    let rules: Vec<_> = node.rules.iter().filter(|rule| !rule.deleted).collect();
    let mut text = String::new();
    for rule in rules {
        text.push_str(&format!("{:?}\n", rule.rule));
    }
    for group in &node.groups {
        let servers = group.servers.iter().filter(|server| !server.removed);
        for server in servers {
            text.push_str(&format!("{}: {:?}\n", group.name, server.server));
        }
    }
    text
}

/// Five generations, and what each of them had.
async fn fill(client: &Client) -> Vec<String> {
    let mut all = vec![];
    let now = async || contents(&client.describe().await.unwrap());
    client
        .create_group("web", &["192.0.2.1", "192.0.2.2"])
        .await
        .unwrap();
    all.push(now().await);
    client
        .create_rule("shop", &rule("198.51.100.1", "web"))
        .await
        .unwrap();
    all.push(now().await);
    client.remove_servers("web", &["_web.0"]).await.unwrap();
    all.push(now().await);
    client.delete_rules(&["shop"]).await.unwrap();
    all.push(now().await);
    client
        .create_rule("shop", &rule("198.51.100.7", "web"))
        .await
        .unwrap();
    all.push(now().await);
    all
}

#[tokio::test]
async fn every_generation_is_told_and_can_be_gone_back_to() {
    let (bus, node) = (Bus::start(), Node::new());
    let (mut manager, client) = node.start_sim(&bus).await;
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let all = fill(&client).await;
    // Over a restart, and without snapshots: the database knows.
    manager.kill();
    fs::remove_dir_all(node.path("state/snapshots")).unwrap();
    let (_manager, client) = node.start_sim(&bus).await;

    let history = client.history(0).await.unwrap();
    // What drains makes generations of the manager's own in between.
    let mine: Vec<_> = history
        .iter()
        .rev()
        .filter(|item| item.uid.is_some())
        .collect();
    let words: Vec<&str> = mine.iter().map(|item| item.words.as_str()).collect();
    let expected = [
        "create server group web",
        "create rule shop",
        "remove servers _web.0",
        "delete rules shop",
        "create rule shop",
    ];
    assert_eq!(words, expected, "{history:#?}");
    for item in &mine {
        assert!(item.kept, "{item:?}");
        assert!(item.time.unwrap() + 5 > began.as_secs(), "{item:?}");
        assert!(
            item.user.as_ref().is_some_and(|user| !user.is_empty()),
            "{item:?}"
        );
    }
    assert_eq!(history.last().unwrap().words, "the beginning");
    assert_eq!(client.history(2).await.unwrap(), history[..2]);

    // To each of the five, from wherever we are.
    let mut last = client.describe().await.unwrap().generation;
    for n in [1, 3, 0, 4, 2] {
        let generation = mine[n].generation;
        let preview = client.preview_rollback(generation).await.unwrap();
        let report = client.rollback(generation).await.unwrap();
        assert_eq!(report.differences, preview.differences, "{n}");
        assert!(!report.differences.is_empty(), "{n}");
        let node = client.describe().await.unwrap();
        assert_eq!(contents(&node), all[n], "{n}");
        assert!(report.generation > last && node.generation >= report.generation);
        last = report.generation;
        let history = client.history(0).await.unwrap();
        let item = history.iter().find(|item| item.generation == last).unwrap();
        assert_eq!(item.words, format!("back to generation {generation}"));
    }
    // Nothing that was given is given again.
    client.add_servers("web", &["192.0.2.9"]).await.unwrap();
    let node = client.describe().await.unwrap();
    let added = &node.group("web").unwrap().servers;
    let added = added
        .iter()
        .find(|server| server.server.address.to_string() == "192.0.2.9");
    assert_eq!(added.unwrap().server.id, "_web.2");
    assert_eq!(added.unwrap().server.number, 3);
}

#[tokio::test]
async fn a_report_says_what_changed_and_nothing_is_no_change() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    client.create_group("web", &["192.0.2.1"]).await.unwrap();
    client.create_group("more", &[]).await.unwrap();
    client.enable_servers(&["_web.0"], false).await.unwrap();
    let report = client.rollback(1).await.unwrap();
    let short: Vec<_> = report
        .differences
        .iter()
        .map(|d| (d.item.as_str(), d.name.as_str(), d.change))
        .collect();
    let expected = [
        ("servergroup", "more", Change::Deleted),
        ("server", "_web.0", Change::Changed),
    ];
    assert_eq!(short, expected);
    assert_eq!((report.from, report.to, report.generation), (3, 1, 4));
    let again = client.rollback(1).await.unwrap();
    assert_eq!((again.differences.len(), again.generation), (0, 4));
    assert_eq!(client.describe().await.unwrap().generation, 4);
    // And a rollback can be rolled back.
    let back = client.rollback(3).await.unwrap();
    assert_eq!(back.differences.len(), 2);
    let node = client.describe().await.unwrap();
    assert!(node.group("more").is_some());
}

#[tokio::test]
async fn a_generation_that_there_is_not_is_refused_by_its_number() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    client.create_group("web", &[]).await.unwrap();
    for (generation, problem) in [
        (7, "generation 7 is yet to come, the present one is 1"),
        (u64::MAX, "is yet to come"),
    ] {
        for error in [
            client.rollback(generation).await.unwrap_err(),
            client.preview_rollback(generation).await.unwrap_err(),
        ] {
            let ClientError::Refused { kind, message } = error else {
                panic!("a refusal was expected: {error}");
            };
            assert_eq!(kind, ErrorKind::NotFound);
            assert!(message.contains(problem), "{message}");
            assert!(message.contains("'lbadm history' lists"), "{message}");
        }
    }
    assert_eq!(client.describe().await.unwrap().generation, 1);
    // Back to before anything was.
    let report = client.rollback(0).await.unwrap();
    assert_eq!(report.generation, 2);
    assert!(client.describe().await.unwrap().groups.is_empty());
}

#[tokio::test]
async fn what_a_snapshot_has_can_be_gone_back_to_when_the_database_was_lost() {
    let (bus, node) = (Bus::start(), Node::new());
    let (mut manager, client) = node.start_sim(&bus).await;
    client.create_group("web", &["192.0.2.1"]).await.unwrap();
    common::wait_until("a snapshot is written", || {
        node.path("state/snapshots/configuration-00000000000000000001.toml")
            .exists()
    });
    client.create_group("more", &[]).await.unwrap();
    manager.signal("TERM");
    assert!(manager.wait().success());
    fs::remove_dir_all(node.path("state/db")).unwrap();
    let (_manager, client) = node.start_sim(&bus).await;
    let history = client.history(0).await.unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|item| (item.generation, item.words.as_str(), item.kept))
        .collect();
    let expected = [
        (3, "rebuilt from generation 2 of the snapshot", true),
        (2, "create server group more", true),
        (1, "create server group web", true),
        (0, "the beginning", true),
    ];
    assert_eq!(told, expected);
    client.rollback(1).await.unwrap();
    let node = client.describe().await.unwrap();
    assert!(node.group("web").is_some() && node.group("more").is_none());
}
