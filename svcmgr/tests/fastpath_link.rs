//! The manager and a fast path that comes, goes, refuses and begins anew, over a real control socket.

mod common;

use common::{Bus, FakeFastpath, Node, Process, answering, rule, wait_for};
use ilb_forwarder::listing;
use ilb_forwarder::spec::SnapshotSpec;
use ilb_node::control;
use libilb::ErrorKind;
use libilb::client::{Client, ClientError};
use libilb::connections::Filter;
use libilb::describe::Fastpath;
use libilb::explain::Packet;
use libilb::rule::Prefix;
use libilb::stats::Counter;

/// Without `--sim`, but with no addresses to manage: needs no root.
async fn start(bus: &Bus, node: &Node) -> (Process, Client) {
    node.configure("[manager]\nmanage-addresses = false");
    let manager = Process::start(&mut node.command(bus));
    let client = answering(bus).await;
    (manager, client)
}

async fn fill(client: &Client) {
    client
        .create_group("web", &["192.0.2.10", "192.0.2.11"])
        .await
        .unwrap();
    client
        .create_rule("shop", &rule("198.51.100.1", "web"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_rule_is_in_force_when_create_rule_returns() {
    let (bus, node) = (Bus::start(), Node::new());
    let fastpath = FakeFastpath::start(&node);
    let (_manager, client) = start(&bus, &node).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    fill(&client).await;
    let mind = fastpath.mind.lock().unwrap();
    assert_eq!(mind.spec.rules.len(), 1);
    assert_eq!(mind.spec.rules[0].servers.len(), 2);
    assert_eq!(mind.applied, [0, 1, 2]);
    assert_eq!(
        mind.differences, 2,
        "the fast path was in step from the first"
    );
}

/// The XDP program may still steer by what was in force before everything was lost: somebody has to say that it is nothing.
#[tokio::test]
async fn who_has_nothing_is_told_so() {
    let (bus, node) = (Bus::start(), Node::new());
    let fastpath = FakeFastpath::start(&node);
    let (_manager, client) = start(&bus, &node).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    assert_eq!(fastpath.mind.lock().unwrap().applied, [0]);
}

#[tokio::test]
async fn what_the_fast_path_has_lost_is_found_shown_and_given_again() {
    let (bus, node) = (Bus::start(), Node::new());
    let fastpath = FakeFastpath::start(&node);
    let (_manager, client) = start(&bus, &node).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    fill(&client).await;
    type Loss = fn(&mut SnapshotSpec);
    let losses: [(&str, Loss, &str); 2] = [
        (
            "generation",
            |spec| *spec = SnapshotSpec::default(),
            "generation 0 instead of generation 2",
        ),
        (
            "rules",
            |spec| spec.rules.clear(),
            "0 rules instead of 1 rules",
        ),
    ];
    for (what, lose, words) in losses {
        lose(&mut fastpath.mind.lock().unwrap().spec);
        let found = wait_for(&client, what, |d| {
            let mut drift = d.drift.iter();
            drift.any(|drift| drift.what == what && drift.repaired != 0)
        })
        .await;
        assert_eq!(found.fastpath, Fastpath::Connected, "{what}");
        fastpath.wait_for_rules(1);
        let said = drift_property(&bus);
        assert!(said.contains(words) && said.contains("put right"), "{said}");
    }

    // One that refuses is behind, and that stays to be seen until it takes something.
    {
        let mut mind = fastpath.mind.lock().unwrap();
        mind.spec = SnapshotSpec::default();
        mind.refuse = Some("no memory for it".into());
    }
    let found = wait_for(&client, "it is behind", |d| d.fastpath == Fastpath::Behind).await;
    let open: Vec<_> = found.drift.iter().filter(|d| d.repaired == 0).collect();
    assert_eq!(open.len(), 1);
    assert_eq!(
        (&*open[0].what, &*open[0].wanted),
        ("generation", "generation 2")
    );
    assert!(open[0].doing.contains("refuses"), "{}", open[0].doing);
    fastpath.mind.lock().unwrap().refuse = None;
    client.create_group("more", &[]).await.unwrap();
    let found = client.describe().await.unwrap();
    assert_eq!(found.fastpath, Fastpath::Connected);
    assert!(found.drift.iter().all(|drift| drift.repaired != 0));
}

#[tokio::test]
async fn what_the_fast_path_finds_is_shown_with_what_becomes_of_it() {
    let (bus, node) = (Bus::start(), Node::new());
    let fastpath = FakeFastpath::start(&node);
    let (_manager, client) = start(&bus, &node).await;
    let mut drift = control::Drift {
        what: "program".into(),
        item: "eth0".into(),
        wanted: "the XDP program on it".into(),
        actual: "taken off".into(),
        since: 1,
        trouble: "another one is there".into(),
        ..control::Drift::default()
    };
    fastpath.mind.lock().unwrap().drift = vec![drift.clone()];
    wait_for(&client, "it is shown", |d| d.drift.len() == 1).await;
    assert_eq!(
        drift_property(&bus),
        "as 1 \"program eth0: taken off instead of the XDP program on it; the fast path tries to put it right, but \
         another one is there\"\n"
    );
    // What was put right long ago is no news.
    drift.repaired = 2;
    fastpath.mind.lock().unwrap().drift = vec![drift];
    wait_for(&client, "it is right again", |d| d.drift.is_empty()).await;
    assert_eq!(drift_property(&bus), "as 0\n");
}

fn drift_property(bus: &Bus) -> String {
    let said = bus.busctl(&[
        "get-property",
        "org.ilb.Ilb1",
        "/org/ilb/Ilb1",
        "org.ilb.Ilb1.Manager",
        "Drift",
    ]);
    String::from_utf8(said.stdout).unwrap()
}

#[tokio::test]
async fn connections_are_listed_over_all_pages_by_name() {
    let (bus, node) = (Bus::start(), Node::new());
    let fastpath = FakeFastpath::start(&node);
    let (_manager, client) = start(&bus, &node).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    fill(&client).await;
    let entry = |port: u16, server: u32| {
        let end = |address: &str, port| listing::End {
            address: address.parse().unwrap(),
            port,
        };
        listing::Entry {
            rule: 1,
            server,
            address: Some(end("192.0.2.10", 80)),
            protocol: 6,
            client: end("203.0.113.9", port),
            vip: Some(end("198.51.100.1", 80)),
            source: None,
            state: "established".into(),
            idle: 1,
            remaining: None,
            pool_version: 0,
        }
    };
    let page = |entries: Vec<listing::Entry>, next| listing::Page { entries, next };
    fastpath.mind.lock().unwrap().pages = [
        (0, page(vec![entry(1, 1), entry(2, 2)], Some(5))),
        (5, page(vec![], Some(9))),
        (9, page(vec![entry(3, 1)], None)),
    ]
    .into();
    let filter = Filter {
        rule: Some("SHOP".into()),
        client: Some(Prefix::parse("203.0.113.0/24").unwrap()),
        ..Filter::default()
    };
    let (found, more) = client.connections(&filter, 100).await.unwrap();
    let found: Vec<(u16, &str, &str)> = found
        .iter()
        .map(|c| (c.client.port, c.rule.as_str(), c.server.as_str()))
        .collect();
    let expected = [
        (1, "shop", "_web.0"),
        (2, "shop", "_web.1"),
        (3, "shop", "_web.0"),
    ];
    assert_eq!((found, more), (expected.to_vec(), false));
    let (found, more) = client.connections(&filter, 2).await.unwrap();
    assert_eq!((found.len(), more), (2, true));
    {
        let asked = std::mem::take(&mut fastpath.mind.lock().unwrap().asked);
        let limits: Vec<u32> = asked.iter().map(|query| query.limit).collect();
        assert_eq!(limits, [100, 98, 98, 2]);
        assert!(asked.iter().all(|query| query.filter.rule == Some(1)));
    }

    let wrong = Filter {
        server: Some("_web.7".into()),
        ..Filter::default()
    };
    let error = client.connections(&wrong, 1).await.unwrap_err();
    assert!(error.to_string().contains("_web.7"), "{error}");
    let packet = Packet::new("tcp", "203.0.113.9:1", "198.51.100.1:80").unwrap();
    let error = client.explain(&packet).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the fast path cannot say: it has no packets"
    );
    drop(fastpath);
    wait_for(&client, "it is gone", |d| d.fastpath == Fastpath::Absent).await;
    let error = client.explain(&packet).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the fast path cannot say: it is not running: start it with 'systemctl start ilb-fastpath'"
    );
}

#[tokio::test]
async fn a_fast_path_that_comes_later_or_again_gets_everything() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = start(&bus, &node).await;
    fill(&client).await;
    let description = client.describe().await.unwrap();
    assert_eq!(description.fastpath, Fastpath::Absent);
    assert!(description.rules[0].problems[0].contains("fast path is not running"));
    for round in 0..5 {
        let fastpath = FakeFastpath::start(&node);
        fastpath.wait_for_rules(1);
        wait_for(&client, "it is connected", |d| {
            d.fastpath == Fastpath::Connected
        })
        .await;
        client
            .create_group(&format!("g{round}"), &[])
            .await
            .unwrap();
        drop(fastpath);
        wait_for(&client, "it is gone", |d| d.fastpath == Fastpath::Absent).await;
        // A change without it is accepted all the same.
        client.delete_groups(&[&format!("g{round}")]).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_manager_leaves_a_fast_path_in_step_alone() {
    let (bus, node) = (Bus::start(), Node::new());
    let fastpath = FakeFastpath::start(&node);
    let (mut manager, client) = start(&bus, &node).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    fill(&client).await;
    let applied = fastpath.mind.lock().unwrap().applied.clone();
    for _ in 0..10 {
        manager.kill();
        let (again, client) = start(&bus, &node).await;
        manager = again;
        wait_for(&client, "it is connected", |d| {
            d.fastpath == Fastpath::Connected
        })
        .await;
        assert!(client.describe().await.unwrap().rule("shop").is_some());
    }
    assert_eq!(fastpath.mind.lock().unwrap().applied, applied);
}

#[tokio::test]
async fn a_refused_change_is_taken_back() {
    let (bus, node) = (Bus::start(), Node::new());
    let fastpath = FakeFastpath::start(&node);
    let (mut manager, client) = start(&bus, &node).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    fill(&client).await;
    fastpath.mind.lock().unwrap().refuse = Some("no memory for it".into());
    match client
        .create_rule("more", &rule("198.51.100.2", "web"))
        .await
    {
        Err(ClientError::Refused { kind, message }) => {
            assert_eq!(kind, ErrorKind::FastpathRejected);
            assert!(message.contains("no memory for it"), "{message}");
        }
        other => panic!("a refusal was expected: {other:?}"),
    }
    assert!(client.describe().await.unwrap().rule("more").is_none());
    manager.kill();
    fastpath.mind.lock().unwrap().refuse = None;
    let (_manager, client) = start(&bus, &node).await;
    let description = wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    assert!(description.rule("more").is_none());
    client
        .create_rule("more", &rule("198.51.100.2", "web"))
        .await
        .unwrap();
    fastpath.wait_for_rules(2);
}

#[tokio::test]
async fn deleted_rules_drain_over_restarts_of_the_manager() {
    let (bus, node) = (Bus::start(), Node::new());
    let fastpath = FakeFastpath::start(&node);
    let (mut manager, client) = start(&bus, &node).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    fill(&client).await;
    fastpath.mind.lock().unwrap().connections = 5;
    client.delete_all_rules().await.unwrap();
    // Its VIP is free for a new rule at once, and its old connections stay with it.
    client
        .create_rule("again", &rule("198.51.100.1", "web"))
        .await
        .unwrap();
    manager.kill();
    let (_manager, client) = start(&bus, &node).await;
    let description = client.describe().await.unwrap();
    assert!(
        description
            .rules
            .iter()
            .any(|r| r.deleted && r.rule.name == "shop")
    );
    {
        let mind = fastpath.mind.lock().unwrap();
        let rules: Vec<_> = mind
            .spec
            .rules
            .iter()
            .map(|r| (r.name.clone(), r.accepting))
            .collect();
        assert_eq!(rules, [("shop".into(), false), ("again".into(), true)]);
    }
    fastpath.mind.lock().unwrap().connections = 0;
    fastpath.wait_for_rules(1);
    wait_for(&client, "it is drained", |d| d.rules.len() == 1).await;
}

#[tokio::test]
async fn counters_go_on_when_the_fast_path_begins_anew() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = start(&bus, &node).await;
    fill(&client).await;
    let mut expected = 0;
    for _ in 0..3 {
        let fastpath = FakeFastpath::start(&node);
        fastpath.mind.lock().unwrap().packets = 100;
        expected += 100;
        wait_for(&client, "it is connected", |d| {
            d.fastpath == Fastpath::Connected
        })
        .await;
        let statistics = client.statistics().await.unwrap();
        for (rule, server) in [("", ""), ("shop", ""), ("shop", "_web.1")] {
            let entry = statistics.get(rule, server).unwrap();
            assert_eq!(
                entry.get(Counter::PacketsForwarded),
                expected,
                "{rule} {server}"
            );
        }
        drop(fastpath);
        wait_for(&client, "it is gone", |d| d.fastpath == Fastpath::Absent).await;
    }
}

#[tokio::test]
async fn nothing_stirs_while_there_is_nothing_to_do() {
    let (bus, node) = (Bus::start(), Node::new());
    let fastpath = FakeFastpath::start(&node);
    let (manager, client) = start(&bus, &node).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    fill(&client).await;
    drop(client);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    // Voluntary context switches are the times that it woke up. The threads of the database library look once a second
    // whether they are needed, which cannot be changed and costs nothing that could be measured.
    let wakeups = || {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", manager.id())).unwrap() {
            let task = task.unwrap().path();
            if std::fs::read_to_string(task.join("comm"))
                .unwrap()
                .starts_with("sled-io")
            {
                continue;
            }
            let status = std::fs::read_to_string(task.join("status")).unwrap();
            let line = status
                .lines()
                .find(|l| l.starts_with("voluntary_ctxt_switches"))
                .unwrap();
            sum += line
                .split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap();
        }
        sum
    };
    let before = wakeups();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let woken = wakeups() - before;
    assert!(woken <= 6, "it woke up {woken} times in 3 s");
    drop(fastpath);
}
