//! What the store does at start and stop: damage, a second instance, a clean stop. `kills.rs` is about what
//! happens in between.

mod common;

use std::fs;

use common::{Bus, Node, Process, rule, wait_until};
use libilb::ErrorKind;
use libilb::client::ClientError;
use libilb::describe::Description;
use libilb::vrrp::VrrpSettings;

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

/// A state folder as another version left it.
fn unpack(name: &str, node: &Node) {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    fs::create_dir(node.path("state")).unwrap();
    let status = std::process::Command::new("tar")
        .args(["xzf", &format!("{fixtures}/{name}.tar.gz"), "-C"])
        .arg(node.path("state"))
        .status();
    assert!(status.unwrap().success());
}

/// Ids and weights of the servers that group `web` has.
fn servers_of_web(found: &Description) -> Vec<(&str, u16)> {
    let servers = found.group("web").unwrap().servers.iter();
    servers
        .filter(|server| !server.removed)
        .map(|item| (item.server.id.as_str(), item.server.weight))
        .collect()
}

/// A state folder as the last version with schema 1 left it: `schema-1.tar.gz`, written by that program. Seven changes, the
/// last three less than a second before it was stopped, so that two servers still drain.
#[tokio::test]
async fn a_database_of_the_first_schema_is_taken_over_whole() {
    let (bus, node) = (Bus::start(), Node::new());
    unpack("schema-1", &node);
    for start in 0..2 {
        let (mut manager, client) = node.start_sim(&bus).await;
        let found = client.describe().await.unwrap();
        assert_eq!(found.state_reason, "", "start {start}");
        let shop = &found.rule("shop").unwrap().rule;
        assert_eq!(
            (shop.name.as_str(), shop.number, shop.conn_drain),
            ("Shop", 1, 30)
        );
        let vips: Vec<String> = shop.vips.iter().map(ToString::to_string).collect();
        assert_eq!(vips, ["198.51.100.1 tcp port 80"]);
        assert!(shop.enabled && !found.rule("dns").unwrap().rule.enabled);
        let servers: Vec<_> = found
            .group("web")
            .unwrap()
            .servers
            .iter()
            .filter(|server| !server.removed)
            .map(|item| {
                (
                    item.server.id.as_str(),
                    item.server.number,
                    item.server.enabled,
                )
            })
            .collect();
        let expected = [
            ("_Web.0", 1, true),
            ("_Web.1", 2, false),
            ("_Web.3", 5, true),
        ];
        assert_eq!(servers, expected);
        // The earlier ones are there as snapshots.
        let history = client.history(0).await.unwrap();
        let item = history.iter().find(|item| item.generation == 7).unwrap();
        assert_eq!(
            (item.words.as_str(), item.kept),
            ("taken over from schema 1", true)
        );
        let preview = client.preview_rollback(2).await.unwrap();
        let names: Vec<&str> = preview
            .differences
            .iter()
            .map(|d| d.name.as_str())
            .collect();
        assert_eq!(names, ["_Web.1", "_Web.2", "_Web.3", "dns", "Shop"]);
        manager.signal("TERM");
        assert!(manager.wait().success());
    }
    assert!(
        node.path("state/db.schema-1/db").exists(),
        "what it was is kept"
    );
}

/// As the last version with schema 2 left it, after five changes by root: a group, a health check, a rule with both, a server
/// more, a server less.
#[tokio::test]
async fn a_database_of_the_schema_before_is_taken_over_with_its_history() {
    let (bus, node) = (Bus::start(), Node::new());
    unpack("schema-2", &node);
    let mut instance = VrrpSettings::default();
    let text = "interface=eth0,vrid=51,addresses=198.51.100.1";
    instance.parse(text).unwrap();
    for start in 0..2 {
        let (mut manager, client) = node.start_sim(&bus).await;
        let found = client.describe().await.unwrap();
        assert_eq!(found.state_reason, "", "start {start}");
        let shop = &found.rule("shop").unwrap().rule;
        let check = shop.health_check.as_ref().map(|check| check.name.as_str());
        assert_eq!((shop.enabled, check), (true, Some("Page")));
        assert_eq!(servers_of_web(&found), [("_Web.0", 1), ("_Web.2", 3)]);
        // Who made a generation, and the way back, are as they were.
        let history = client.history(0).await.unwrap();
        let item = history.iter().find(|item| item.generation == 5).unwrap();
        assert_eq!(
            (item.words.as_str(), item.uid, item.kept),
            ("remove servers _Web.1", Some(0), true)
        );
        let preview = client.preview_rollback(1).await.unwrap();
        let names = preview.differences.iter().map(|d| d.name.as_str());
        let names: Vec<&str> = names.filter(|name| *name != "outer").collect();
        assert_eq!(names, ["_Web.1", "_Web.2", "Page", "Shop"]);
        // And it takes what it could not have before.
        match start {
            0 => client
                .create_vrrp("outer", &instance)
                .await
                .map(drop)
                .unwrap(),
            _ => assert!(found.instance("outer").is_some()),
        }
        manager.signal("TERM");
        assert!(manager.wait().success());
    }
    assert!(
        node.path("state/db.schema-2/db").exists(),
        "what it was is kept"
    );
}

/// As the last version with schema 3 left it, which knew of no pair, after six changes by root: a group, a health check, a VRRP
/// instance, a rule with all of them, a server more, a server less.
#[tokio::test]
async fn a_database_from_before_pairs_is_taken_over_and_can_be_paired() {
    let (bus, node) = (Bus::start(), Node::new());
    unpack("schema-3", &node);
    for start in 0..2 {
        let (mut manager, client) = node.start_sim(&bus).await;
        let found = client.describe().await.unwrap();
        assert_eq!(found.state_reason, "", "start {start}");
        let shop = &found.rule("shop").unwrap().rule;
        let check = shop.health_check.as_ref().map(|check| check.name.as_str());
        assert_eq!(
            (shop.enabled, check, shop.sync.to_string().as_str()),
            (true, Some("Page"), "light")
        );
        assert_eq!(servers_of_web(&found), [("_Web.0", 1), ("_Web.2", 3)]);
        let outer = &found.instance("outer").unwrap().instance;
        assert_eq!(
            (outer.vrid, outer.priority, outer.sync_group.as_deref()),
            (51, 150, Some("pair"))
        );
        let history = client.history(0).await.unwrap();
        let item = history.iter().find(|item| item.generation == 6).unwrap();
        assert_eq!(
            (item.words.as_str(), item.uid, item.kept),
            ("remove servers _Web.1", Some(0), true)
        );
        let preview = client.preview_rollback(1).await.unwrap();
        let names = preview.differences.iter().map(|d| d.name.as_str());
        let names: Vec<&str> = names.collect();
        assert_eq!(names, ["_Web.1", "_Web.2", "Page", "Outer", "Shop"]);
        // And it can have what it could not before.
        assert!(!client.describe_pair().await.unwrap().paired);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let free = listener.local_addr().unwrap();
        drop(listener);
        let invited = client.create_pair(Some(free.ip()), free.port()).await;
        assert!(!invited.unwrap().token.is_empty(), "start {start}");
        manager.signal("TERM");
        assert!(manager.wait().success());
    }
    assert!(
        node.path("state/db.schema-3/db").exists(),
        "what it was is kept"
    );
}

#[tokio::test]
async fn a_database_of_a_later_version_is_left_alone() {
    let (bus, node) = (Bus::start(), Node::new());
    let (mut manager, client) = node.start_sim(&bus).await;
    client.create_group("web", &["192.0.2.1"]).await.unwrap();
    manager.signal("TERM");
    assert!(manager.wait().success());
    {
        let db = sled::open(node.path("state/db")).unwrap();
        let meta = db.open_tree("meta").unwrap();
        meta.insert("schema", &u32::MAX.to_be_bytes()).unwrap();
        db.flush().unwrap();
    }
    let output = node.command(&bus).arg("--sim").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(error.contains("has schema 4294967295"), "{error}");
    assert!(
        error.contains("install the version that wrote it"),
        "{error}"
    );
    assert!(node.path("state/db/db").exists());
    assert!(!fs::read_dir(node.path("state")).unwrap().any(|file| {
        file.unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .contains("damaged")
    }));
}
