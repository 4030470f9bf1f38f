//! Acknowledged means durable: kill -9 at any moment, damage, a second instance, a clean stop.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Bus, Node, Process, rule, wait_until};
use libilb::ErrorKind;
use libilb::client::{Client, ClientError};

/// Two servers that are always added together.
fn pair(number: u32) -> [String; 2] {
    let [_, a, b, c] = number.to_be_bytes();
    [format!("10.{a}.{b}.{c}"), format!("11.{a}.{b}.{c}")]
}

/// Adds pairs until the manager is gone; those that were acknowledged are in `done`.
async fn add_until_killed(client: Client, first: u32, done: Arc<Mutex<Vec<u32>>>) {
    for number in first.. {
        let [one, two] = pair(number);
        match client.add_servers("web", &[&one, &two]).await {
            Ok(ids) => assert_eq!(ids.len(), 2),
            Err(ClientError::NotRunning(_)) => return,
            Err(other) => panic!("an unexpected answer: {other}"),
        }
        done.lock().unwrap().push(number);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn thirty_kills_lose_nothing_and_leave_nothing_half_done() {
    let (bus, node) = (Bus::start(), Node::new());
    let mut acknowledged: BTreeSet<u32> = BTreeSet::new();
    let mut next = 1;
    let mut landed_while_killed = 0;
    for round in 0..30_u64 {
        let (mut manager, client) = node.start_sim(&bus).await;
        if round == 0 {
            client.create_group("web", &["192.0.2.1"]).await.unwrap();
            client
                .create_rule("shop", &rule("198.51.100.1", "web"))
                .await
                .unwrap();
        }
        let done = Arc::new(Mutex::new(Vec::new()));
        let adding = tokio::spawn(add_until_killed(client, next, done.clone()));
        // Somewhere within a few changes; a different moment each time.
        tokio::time::sleep(Duration::from_micros(1_000 + round * 2_731 % 60_000)).await;
        manager.kill();
        adding.await.unwrap();
        let done = done.lock().unwrap().clone();
        let unknown = next + done.len() as u32;
        acknowledged.extend(done);

        let (mut manager, client) = node.start_sim(&bus).await;
        let description = client.describe().await.unwrap();
        assert_eq!(
            description.state_reason, "",
            "round {round}: nothing was rebuilt"
        );
        let there: BTreeSet<String> = description
            .group("web")
            .expect("the group is there")
            .servers
            .iter()
            .map(|server| server.server.address.to_string())
            .collect();
        for number in &acknowledged {
            for address in pair(*number) {
                assert!(
                    there.contains(&address),
                    "round {round}: {address} was acknowledged and is lost"
                );
            }
        }
        // What was under way is there as a whole or not at all.
        let [one, two] = pair(unknown);
        assert_eq!(
            there.contains(&one),
            there.contains(&two),
            "round {round}: half a change"
        );
        if there.contains(&one) {
            acknowledged.insert(unknown);
            landed_while_killed += 1;
        }
        assert_eq!(
            there.len(),
            1 + 2 * acknowledged.len(),
            "round {round}: nothing else is there"
        );
        assert!(description.rule("shop").unwrap().rule.enabled);
        next = unknown + 1;
        manager.kill();
    }
    assert!(
        acknowledged.len() >= 30,
        "only {} changes were made",
        acknowledged.len()
    );
    println!(
        "{} changes, {landed_while_killed} durable but not acknowledged",
        acknowledged.len()
    );
}

#[tokio::test]
async fn generations_only_grow() {
    let (bus, node) = (Bus::start(), Node::new());
    let mut last = 0;
    for round in 0..4 {
        let (mut manager, client) = node.start_sim(&bus).await;
        client
            .create_group(&format!("g{round}"), &[])
            .await
            .unwrap();
        let generation = client.describe().await.unwrap().generation;
        assert!(generation > last);
        last = generation;
        manager.kill();
    }
}

#[tokio::test]
async fn a_damaged_database_is_rebuilt_loudly() {
    let (bus, node) = (Bus::start(), Node::new());
    let (mut manager, client) = node.start_sim(&bus).await;
    client.create_group("web", &["192.0.2.1"]).await.unwrap();
    client
        .create_rule("shop", &rule("198.51.100.1", "web"))
        .await
        .unwrap();
    manager.signal("TERM");
    assert!(manager.wait().success(), "a clean stop");
    let file = node.path("state/db/db");
    let mut bytes = fs::read(&file).unwrap();
    for byte in bytes.iter_mut().step_by(3) {
        *byte ^= 0x5a;
    }
    fs::write(&file, bytes).unwrap();

    let (_manager, client) = node.start_sim(&bus).await;
    let description = client.describe().await.unwrap();
    assert!(description.rule("shop").is_some());
    assert!(
        description.state_reason.contains("it was rebuilt from"),
        "{}",
        description.state_reason
    );
    client.delete_all_rules().await.unwrap();
}

#[tokio::test]
async fn damage_without_snapshots_is_degraded_and_says_what_to_do() {
    let (bus, node) = (Bus::start(), Node::new());
    let (mut manager, client) = node.start_sim(&bus).await;
    client.create_group("web", &["192.0.2.1"]).await.unwrap();
    manager.kill();
    fs::remove_dir_all(node.path("state/snapshots")).unwrap();
    let file = node.path("state/db/db");
    let length = fs::metadata(&file).unwrap().len() as usize;
    fs::write(&file, vec![0x5a; length]).unwrap();

    let (_manager, client) = node.start_sim(&bus).await;
    let description = client.describe().await.unwrap();
    assert_eq!(description.state, libilb::describe::State::Degraded);
    assert!(
        description
            .state_reason
            .contains("begin with an empty configuration"),
        "{}",
        description.state_reason
    );
    match client.create_group("more", &[]).await {
        Err(ClientError::Refused { kind, message }) => {
            assert_eq!(kind, ErrorKind::Degraded);
            assert!(message.contains("damaged"), "{message}");
        }
        other => panic!("degraded was expected: {other:?}"),
    }
}

#[tokio::test]
async fn a_second_instance_ends_with_a_clear_error() {
    let (bus, node) = (Bus::start(), Node::new());
    let (first, _client) = node.start_sim(&bus).await;
    let second = node.command(&bus).arg("--sim").output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success());
    assert!(
        error.contains(&format!(
            "in use by another ilb-svcmgr (process {})",
            first.id()
        )),
        "{error}"
    );
    // Another database, but the same bus.
    let other = Node::new();
    let second = other.command(&bus).arg("--sim").output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success());
    assert!(
        error.contains("another ilb-svcmgr is running, stop it first"),
        "{error}"
    );
}

#[tokio::test]
async fn sighup_is_harmless_and_sigterm_ends_in_order() {
    let (bus, node) = (Bus::start(), Node::new());
    let (mut manager, client) = node.start_sim(&bus).await;
    client.create_group("web", &[]).await.unwrap();
    manager.signal("HUP");
    client.create_group("more", &[]).await.unwrap();
    manager.signal("TERM");
    assert!(manager.wait().success());
    let newest = node.path("state/snapshots/configuration-00000000000000000002.toml");
    let text = fs::read_to_string(newest).unwrap();
    assert!(text.contains("name = \"more\""), "{text}");
}

#[tokio::test]
async fn mistakes_in_the_settings_end_it_with_all_of_them() {
    let (bus, node) = (Bus::start(), Node::new());
    node.configure("mod = \"auto\"\nqueues = 0");
    let output = node.command(&bus).arg("--sim").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    for part in [
        "2 mistakes:",
        "fastpath.mod: unknown key",
        "did you mean \"mode\"?",
        "fastpath.queues: 0 is not allowed",
    ] {
        assert!(error.contains(part), "{part} is missing in {error}");
    }
}

#[tokio::test]
async fn systemd_is_told_when_it_is_ready() {
    let (bus, node) = (Bus::start(), Node::new());
    let path = node.path("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let mut manager = Process::start(node.command(&bus).arg("--sim").env("NOTIFY_SOCKET", &path));
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"READY=1"));
    // Ready means that it answers.
    let ready = bus.busctl(&[
        "get-property",
        "org.ilb.Ilb1",
        "/org/ilb/Ilb1",
        "org.ilb.Ilb1.Manager",
        "State",
    ]);
    assert_eq!(ready.stdout, b"s \"ok\"\n");
    manager.signal("TERM");
    let length = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"STOPPING=1"));
    assert!(manager.wait().success());
    wait_until("the lock is free", || {
        fs::File::open(node.path("state/db.lock"))
            .unwrap()
            .try_lock()
            .is_ok()
    });
}
