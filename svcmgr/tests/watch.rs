//! What a watcher hears of a real manager on a private bus, through restarts of it.

mod common;

use std::time::Duration;

use common::{Bus, Node, PATIENCE, Process, answering, rule};
use libilb::events::{Event, Kind, Watcher, What};
use libilb::server::ServerSettings;
use serde_json::json;

/// The events until one is as wanted, which is the last of them.
async fn until(watcher: &mut Watcher, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut heard: Vec<Event> = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, watcher.next()).await;
        let event = next.unwrap_or_else(|_| panic!("waited in vain after {heard:#?}"));
        heard.push(event.expect("the bus is there"));
        if heard.last().is_some_and(&wanted) {
            return heard;
        }
    }
}

fn is(event: &Event, object: Kind, name: &str) -> bool {
    event.object == object && event.name == name
}

#[tokio::test]
async fn changes_are_heard_with_what_was_before() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    client.create_group("web", &["192.0.2.10"]).await.unwrap();
    let mut watcher = client.watch().await.unwrap();

    client
        .create_rule("Shop", &rule("198.51.100.1", "web"))
        .await
        .unwrap();
    let heard = until(&mut watcher, |event| is(event, Kind::Rule, "Shop")).await;
    let Some(What::Created { properties }) = heard.last().map(|event| &event.what) else {
        panic!("given a new rule, then it is created: {heard:#?}");
    };
    assert_eq!(properties["vip"], "198.51.100.1");
    assert_eq!(properties["enabled"], true);
    assert!(
        !heard.iter().any(|event| event.object == Kind::ServerGroup),
        "given a group from before, then it is no news: {heard:#?}"
    );

    let settings = ServerSettings {
        weight: Some(7),
        ..ServerSettings::default()
    };
    client.modify_servers(&["_web.0"], &settings).await.unwrap();
    let heard = until(&mut watcher, |event| is(event, Kind::Server, "_web.0")).await;
    assert_eq!(
        json!(heard.last().unwrap()),
        json!({
            "object": "server", "name": "_web.0", "event": "changed",
            "changes": {"weight": {"old": 1, "new": 7}}
        })
    );

    client.delete_rules(&["shop"]).await.unwrap();
    let heard = until(&mut watcher, |event| is(event, Kind::Rule, "Shop")).await;
    assert_eq!(heard.last().unwrap().what, What::Removed);
    let generation = |event: &Event| match &event.what {
        What::Changed { changes } => changes.contains_key("generation"),
        _ => false,
    };
    assert!(
        until(&mut watcher, generation).await.last().is_some(),
        "given a change, then the manager's generation is another"
    );
}

#[tokio::test]
async fn what_happens_while_the_manager_is_away_is_told_when_it_is_back() {
    let (bus, node) = (Bus::start(), Node::new());
    let (mut manager, client) = node.start_sim(&bus).await;
    client.create_group("web", &["192.0.2.10"]).await.unwrap();
    let mut watcher = client.watch().await.unwrap();

    manager.kill();
    let heard = until(&mut watcher, |event| event.what == What::Stopped).await;
    assert_eq!(heard.last().unwrap().object, Kind::Manager);

    // Another connection, so that the change is made before the watcher looks.
    let _manager = Process::start(node.command(&bus).arg("--sim"));
    let client = answering(&bus).await;
    client.create_group("late", &[]).await.unwrap();
    let created = |event: &Event| {
        is(event, Kind::ServerGroup, "late") && matches!(event.what, What::Created { .. })
    };
    let heard = until(&mut watcher, created).await;
    let started = heard.iter().any(|event| event.what == What::Started);
    let web = heard
        .iter()
        .any(|event| is(event, Kind::ServerGroup, "web"));
    assert!(
        started && !web,
        "given a manager that is back, then first it and then only what is new is told: {heard:#?}"
    );
}

#[tokio::test]
async fn without_a_manager_there_is_nothing_to_watch() {
    let bus = Bus::start();
    let client = libilb::client::Client::on(&bus.connection().await)
        .await
        .unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(60), client.watch()).await;
    assert!(matches!(
        refused.expect("it does not wait"),
        Err(libilb::client::ClientError::NotRunning(_))
    ));
}
