//! A client that means no good, as another user: whatever it does, root's calls are answered, and the manager's memory is
//! bounded.

mod common;

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Bus, NOBODY, Node, as_user, need_root, rule};
use libilb::client::Client;

/// Memory that the manager may have after all that, in KiB: its own few dozen MiB, the 128 MiB of calls that the gate lets
/// wait, as much again for what they are while they run, and what the allocator keeps.
const MEMORY: u64 = 700 * 1024;

/// What the attacks of `clients/hostile.py` are called, with a word that has to be among their answers, and whether they
/// last long enough for root to do something meanwhile.
const ATTACKS: [(&str, &str, bool); 10] = [
    ("wrong-types", "org.ilb.Ilb1.Error.InvalidArgument", false),
    ("garbage", "answered", false),
    ("disconnect", "answered", false),
    ("matches", "answered", false),
    ("no-answers-read", "answered", false),
    ("huge", "org.freedesktop.DBus.Error.LimitsExceeded", true),
    ("flood", "org.freedesktop.DBus.Error.LimitsExceeded", true),
    (
        "flood-objects",
        "org.freedesktop.DBus.Error.LimitsExceeded",
        true,
    ),
    ("flood-introspect", "over", false),
    ("flood-changes", "over", true),
];

/// Bounds that are far over those of a system bus, so that it is the manager who has to bear it.
const LIMITS: &str = r#"
  <limit name="max_incoming_bytes">1000000000</limit>
  <limit name="max_outgoing_bytes">1000000000</limit>
  <limit name="max_message_size">128000000</limit>
  <limit name="max_replies_per_connection">50000</limit>
  <limit name="max_match_rules_per_connection">50000</limit>
"#;

fn attack(bus: &Bus, what: &str) -> Child {
    as_user(NOBODY, "/usr/bin/python3")
        .arg("-")
        .args([&bus.address(), what])
        .stdin(
            // Nobody may not enter the folder that the project is in.
            fs::File::open(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/clients/hostile.py"
            ))
            .expect("the client is there"),
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 can be run")
}

/// The largest memory that the process had, in KiB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the manager runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

/// Everything that an administrator does, and how long it took.
async fn work(client: &Client, number: u32) -> Duration {
    let start = Instant::now();
    let name = format!("good-{number}");
    client.create_group(&name, &["192.0.2.77"]).await.unwrap();
    assert!(client.describe().await.unwrap().group(&name).is_some());
    client.delete_groups(&[&name]).await.unwrap();
    start.elapsed()
}

#[tokio::test]
async fn a_hostile_client_harms_nobody() {
    need_root();
    let (bus, node) = (Bus::with(LIMITS), Node::new());
    let (manager, client) = node.start_sim(&bus).await;
    let servers: Vec<String> = (0..2).map(|n| format!("10.0.{n}.0-10.0.{n}.249")).collect();
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    client.create_group("web", &servers).await.unwrap();
    let shop = rule("198.51.100.1", "web");
    client.create_rule("shop", &shop).await.unwrap();
    let before = client.describe().await.unwrap();

    for (what, wanted, lasts) in ATTACKS {
        let mut child = attack(&bus, what);
        let (mut count, mut worst) = (0, Duration::ZERO);
        // While it goes on, and once more.
        let status = loop {
            let status = child.try_wait().expect("the client can be waited for");
            worst = worst.max(work(&client, count).await);
            count += 1;
            if let Some(status) = status {
                break status;
            }
        };
        let output = child.wait_with_output().expect("the client is over");
        let answers = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(status.success(), "{what}: {answers}{error}");
        assert!(answers.contains(wanted), "{what}: {answers}");
        let memory = peak(manager.id());
        println!(
            "{what}: {count} rounds of work, the longest took {worst:?}; memory {} MiB; {}",
            memory / 1024,
            answers.trim().replace('\n', ", ")
        );
        // One that held root's calls up would be over before the first of them was answered.
        assert!(
            !lasts || count > 1,
            "{what}: nothing was answered while it went on"
        );
        assert!(memory < MEMORY, "{what}: {memory} KiB");
    }
    let after = client.describe().await.unwrap();
    assert_eq!(after.groups, before.groups);
    assert_eq!(after.rules, before.rules);
}
