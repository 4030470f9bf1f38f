//! What the manager makes of sources of server groups, with a test that plays who asks.

use libilb::source::{Found, SourceSettings};

use super::*;
use crate::sources::follow::Heard;
use crate::sources::{News, Order};

fn found(n: u8) -> Found {
    Found {
        address: [192, 0, 2, n].into(),
        ports: None,
        weight: None,
        host_name: Some("a.example.com".into()),
    }
}

pub(super) fn all(octets: &[u8]) -> Heard {
    Heard::All(octets.iter().copied().map(found).collect(), None)
}

impl Bench {
    /// A group with a source.
    async fn following(words: &str) -> Bench {
        let bench = Bench::new();
        bench.connect(0).await;
        let mut source = SourceSettings::default();
        source.parse(words).unwrap();
        let change = Change::CreateGroup {
            name: "App".into(),
            servers: Vec::new(),
            source,
        };
        bench.change(change).await.unwrap();
        bench
    }

    /// The number of the question that is asked last.
    pub(super) async fn asked(&mut self) -> u64 {
        let mut last = None;
        loop {
            // What follows from an answer is asked at once.
            let order = tokio::time::timeout(Duration::from_millis(300), self.asked.orders.recv());
            match order.await {
                Ok(Some(Order::Ask { serial, group, .. })) => {
                    assert_eq!(group, "app");
                    last = Some(serial);
                }
                Ok(Some(Order::Forget(_))) => last = None,
                Ok(None) | Err(_) => return last.expect("something is asked"),
            }
        }
    }

    pub(super) async fn hear(&mut self, serial: u64, heard: Heard) {
        let news = News {
            group: "app".into(),
            serial,
            heard,
        };
        let sender = &self.asked.news;
        sender.send(news).await.unwrap();
        // What is ready at the same time is taken in any order: first the answer, then a question behind it.
        while sender.capacity() < sender.max_capacity() {
            self.handle.attend().await.unwrap();
        }
        self.handle.attend().await.unwrap();
    }

    pub(super) fn servers(&self) -> Vec<String> {
        let view = self.handle.view();
        let group = view.state.configuration.group("app").unwrap().clone();
        group
            .servers
            .iter()
            .map(|s| s.address.to_string())
            .collect()
    }
}

#[tokio::test]
async fn an_answer_is_a_change_by_the_group_s_discovery_and_nothing_else_is() {
    let mut bench = Bench::following("dns=a.example.com,hold=0").await;
    let first = bench.asked().await;
    bench.hear(first, all(&[1, 2])).await;
    assert_eq!(bench.servers(), ["192.0.2.1", "192.0.2.2"]);
    let history = bench.handle.history(1).await.unwrap();
    assert_eq!(history[0].user.as_deref(), Some("discovery of App"));
    assert_eq!(
        history[0].words,
        "the name a.example.com: added _App.0, _App.1"
    );
    let generation = bench.handle.view().state.generation;

    // An answer to a question that nobody asks any more, the same once more, and none.
    let second = bench.asked().await;
    assert!(second > first);
    bench.hear(first, all(&[9])).await;
    bench.hear(second, all(&[2, 1])).await;
    let third = bench.asked().await;
    bench.hear(third, Heard::Failed("SERVFAIL".into())).await;
    assert_eq!(bench.servers(), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(bench.handle.view().state.generation, generation);
    let described = bench.handle.describe().await.unwrap();
    let source = described.group("app").unwrap().source.clone().unwrap();
    assert_eq!(
        (source.problem.as_str(), source.answers, source.failures),
        ("SERVFAIL", 2, 1)
    );

    // One change for all that is different.
    let fourth = bench.asked().await;
    bench.hear(fourth, all(&[2, 3, 4])).await;
    assert_eq!(bench.servers(), ["192.0.2.2", "192.0.2.3", "192.0.2.4"]);
    assert_eq!(bench.handle.view().state.generation, generation + 1);
}

#[tokio::test]
async fn candidates_are_taken_in_by_who_approves_them() {
    let mut bench = Bench::following("dns=a.example.com,approve=ask").await;
    let serial = bench.asked().await;
    bench.hear(serial, all(&[1, 2, 3])).await;
    assert_eq!(bench.servers(), [""; 0]);
    let me = || Author::of_number(7);
    for (group, which, expected) in [
        ("nobody", "192.0.2.1", "no server group is named 'nobody'"),
        (
            "app",
            "192.0.2.9",
            "server '192.0.2.9' is not a candidate of server group 'App': use 192.0.2.1",
        ),
    ] {
        let refused = bench.handle.approve(me(), group, &[which.into()]).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let ids = bench
        .handle
        .approve(me(), "app", &["192.0.2.2".into()])
        .await;
    assert_eq!(ids.unwrap(), ["_App.0"]);
    let history = bench.handle.history(1).await.unwrap();
    assert_eq!(history[0].uid, Some(7));
    let ids = bench.handle.approve(me(), "APP", &[]).await;
    assert_eq!(ids.unwrap(), ["_App.1", "_App.2"]);
    assert_eq!(
        bench.handle.approve(me(), "app", &[]).await.unwrap(),
        [""; 0]
    );
    let view = bench.handle.view();
    let group = view.state.configuration.group("app").unwrap();
    assert!(group.servers.iter().all(|server| server.found));
}

#[tokio::test]
async fn a_group_without_a_source_is_not_asked_about() {
    let mut bench = Bench::following("dns=a.example.com").await;
    let serial = bench.asked().await;
    let mut source = SourceSettings::default();
    source.parse("dns=none").unwrap();
    let name = "app".to_owned();
    bench
        .change(Change::ModifyGroup { name, source })
        .await
        .unwrap();
    let order = bench.asked.orders.recv().await;
    assert!(matches!(order, Some(Order::Forget(group)) if group == "app"));
    bench.hear(serial, all(&[1])).await;
    assert_eq!(bench.servers(), [""; 0]);
}
