//! Every D-Bus method, property and signal, by proxy and with the real `busctl`, on a private bus with the packaged policy.

mod common;

use std::collections::HashMap;

use common::{Bus, NOBODY, Node, as_user, need_root, rule, wait_for};
use futures_util::StreamExt;
use libilb::ErrorKind;
use libilb::client::{Client, ClientError};
use libilb::dbus::{
    BUS_NAME, HealthCheckProxy, ROOT_PATH, RuleProxy, ServerGroupProxy, ServerProxy, check_path,
    group_path, rule_path, server_path,
};
use libilb::describe::{Fastpath, State};
use libilb::model::{HealthCheckSettings, RuleSettings};
use zbus::fdo::{ObjectManagerProxy, PropertiesProxy};

const MANAGER: [&str; 4] = ["call", BUS_NAME, ROOT_PATH, "org.ilb.Ilb1.Manager"];

fn kind(result: Result<impl std::fmt::Debug, ClientError>) -> ErrorKind {
    match result.expect_err("the manager refuses") {
        ClientError::Refused { kind, .. } => kind,
        other => panic!("another error was expected: {other}"),
    }
}

async fn filled(client: &Client) {
    client
        .create_group("web", &["192.0.2.10", "192.0.2.11:8080"])
        .await
        .unwrap();
    client
        .create_rule("shop", &rule("198.51.100.1", "web"))
        .await
        .unwrap();
}

#[tokio::test]
async fn every_method_of_the_manager() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;

    let path = client
        .create_group("web", &["192.0.2.10", "192.0.2.11:8080"])
        .await
        .unwrap();
    assert_eq!(path, group_path("web"));
    let path = client
        .create_rule("Shop-1", &rule("198.51.100.1", "WEB"))
        .await
        .unwrap();
    assert_eq!(path, rule_path("Shop-1"));
    let mut off = rule("2001:db8::80", "six");
    off.enabled = false;
    client
        .create_group("six", &["[2001:db8::1]"])
        .await
        .unwrap();
    client.create_rule("six", &off).await.unwrap();

    assert_eq!(client.enable_rules(&[], true).await.unwrap(), ["six"]);
    assert_eq!(
        client.enable_rules(&["SIX"], true).await.unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(
        client
            .enable_rules(&["six", "shop-1"], false)
            .await
            .unwrap(),
        ["six", "Shop-1"]
    );
    assert_eq!(
        client
            .add_servers("web", &["192.0.2.12-192.0.2.13"])
            .await
            .unwrap(),
        ["_web.2", "_web.3"]
    );
    assert_eq!(
        client
            .enable_servers(&["_web.2", "_web.3"], false)
            .await
            .unwrap(),
        ["_web.2", "_web.3"]
    );
    assert_eq!(
        client.enable_servers(&["_WEB.3"], true).await.unwrap(),
        ["_web.3"]
    );
    assert_eq!(
        client
            .remove_servers("web", &["_web.2", "192.0.2.11:8080"])
            .await
            .unwrap(),
        ["_web.1", "_web.2"]
    );

    let description = client.describe().await.unwrap();
    assert_eq!(description.state, State::Ok);
    assert_eq!(description.fastpath, Fastpath::Connected);
    assert_eq!(description.fastpath_generation, description.generation);
    let ids: Vec<&str> = description
        .group("web")
        .unwrap()
        .servers
        .iter()
        .map(|s| s.server.id.as_str())
        .collect();
    assert_eq!(ids, ["_web.0", "_web.3"]);
    assert!(!description.rule("shop-1").unwrap().rule.enabled);

    let statistics = client.statistics().await.unwrap();
    for (rule, server) in [
        ("", ""),
        ("Shop-1", ""),
        ("Shop-1", "_web.0"),
        ("six", "_six.0"),
    ] {
        assert!(statistics.get(rule, server).is_some(), "{rule} {server}");
    }

    assert_eq!(client.delete_rules(&["six"]).await.unwrap(), ["six"]);
    assert_eq!(client.delete_all_rules().await.unwrap(), ["Shop-1"]);
    assert_eq!(
        client.delete_groups(&["web", "six"]).await.unwrap(),
        ["web", "six"]
    );
    // Deleted rules are seen until they are drained.
    let description = client.describe().await.unwrap();
    assert!(description.groups.is_empty() && description.rules.iter().all(|r| r.deleted));
    wait_for(&client, "all is drained", |d| d.rules.is_empty()).await;
}

#[tokio::test]
async fn rules_and_servers_are_changed_in_place() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    filled(&client).await;
    let before = client.describe().await.unwrap();
    let said = libilb::model::RuleSettings {
        algorithm: "wlc".into(),
        pmask: Some("/24".into()),
        orphans: Some("reset".into()),
        sync: Some("off".into()),
        ..Default::default()
    };
    assert!(client.modify_rule("SHOP", &said).await.unwrap());
    assert!(!client.modify_rule("shop", &said).await.unwrap());
    let limits = libilb::model::ServerSettings {
        weight: Some(0),
        max_connections: Some(9),
        min_connections: None,
        tier: Some(1),
    };
    let ids = ["_web.0"];
    assert_eq!(client.modify_servers(&ids, &limits).await.unwrap(), ids);
    assert!(
        client
            .modify_servers(&ids, &limits)
            .await
            .unwrap()
            .is_empty()
    );
    let after = client.describe().await.unwrap();
    assert_eq!(after.generation, before.generation + 2);
    let (old, new) = (before.rule("shop").unwrap(), after.rule("shop").unwrap());
    assert_eq!(new.rule.number, old.rule.number);
    assert_eq!(
        new.rule.algorithm,
        libilb::model::Algorithm::WeightedLeastConnection
    );
    assert_eq!(new.rule.persistence.unwrap().mask, 24);
    let server = &after.group("web").unwrap().servers[0].server;
    assert_eq!((server.weight, server.max_connections), (0, 9));
    let vip = libilb::model::RuleSettings {
        vip: "198.51.100.77".into(),
        ..Default::default()
    };
    assert_eq!(
        kind(client.modify_rule("shop", &vip).await),
        ErrorKind::InvalidArgument
    );
}

#[tokio::test]
async fn refusals_have_their_name_and_change_nothing() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    filled(&client).await;
    let before = client.describe().await.unwrap();

    let mut bad = rule("127.0.0.1", "web");
    assert_eq!(
        kind(client.create_rule("bad", &bad).await),
        ErrorKind::InvalidArgument
    );
    bad = rule("198.51.100.9", "web");
    bad.algorithm = "roundrobbin".into();
    assert_eq!(
        kind(client.create_rule("bad", &bad).await),
        ErrorKind::InvalidArgument
    );
    bad = rule("198.51.100.9", "web");
    bad.pmask = Some("/33".into());
    assert_eq!(
        kind(client.create_rule("bad", &bad).await),
        ErrorKind::InvalidArgument
    );
    let same = rule("198.51.100.1", "web");
    assert_eq!(
        kind(client.create_rule("other", &same).await),
        ErrorKind::Conflict
    );
    assert_eq!(
        kind(
            client
                .create_rule("SHOP", &rule("198.51.100.9", "web"))
                .await
        ),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        kind(
            client
                .create_rule("six", &rule("2001:db8::80", "web"))
                .await
        ),
        ErrorKind::Conflict
    );
    assert_eq!(
        kind(
            client
                .create_rule("nowhere", &rule("198.51.100.9", "none"))
                .await
        ),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(client.delete_rules(&["shop", "shopp"]).await),
        ErrorKind::NotFound
    );
    assert_eq!(kind(client.delete_groups(&["web"]).await), ErrorKind::InUse);
    assert_eq!(
        kind(client.add_servers("web", &["192.0.2.12", "x y"]).await),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        kind(client.remove_servers("web", &["_web.0", "_web.7"]).await),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(client.enable_servers(&["_web.0", "_web.7"], false).await),
        ErrorKind::NotFound
    );

    assert_eq!(client.describe().await.unwrap(), before);
}

#[tokio::test]
async fn every_object_has_its_methods_and_properties() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    filled(&client).await;
    let connection = bus.connection().await;

    let shop = RuleProxy::new(&connection, rule_path("shop"))
        .await
        .unwrap();
    assert_eq!(shop.name().await.unwrap(), "shop");
    assert!(shop.enabled().await.unwrap());
    assert!(shop.disable().await.unwrap());
    assert!(!shop.disable().await.unwrap());
    assert!(shop.enable().await.unwrap());
    assert!(
        shop.describe()
            .await
            .unwrap()
            .contains("\"vip\":\"198.51.100.1\"")
    );

    let server = ServerProxy::new(&connection, server_path("_web.1"))
        .await
        .unwrap();
    assert_eq!(server.id().await.unwrap(), "_web.1");
    assert!(server.disable().await.unwrap());
    assert!(server.enable().await.unwrap());
    assert!(server.describe().await.unwrap().contains("192.0.2.11"));
    server.delete().await.unwrap();

    let group = ServerGroupProxy::new(&connection, group_path("web"))
        .await
        .unwrap();
    assert_eq!(group.servers().await.unwrap(), ["_web.0"]);
    assert!(group.describe().await.unwrap().contains("_web.0"));
    assert!(group.delete().await.is_err(), "it is in use");
    shop.delete().await.unwrap();
    group.delete().await.unwrap();
    assert!(client.describe().await.unwrap().groups.is_empty());
    assert!(shop.describe().await.is_err(), "the object is gone");
}

#[tokio::test]
async fn objects_and_signals_follow_changes_and_nothing_else() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    let connection = bus.connection().await;
    let objects = ObjectManagerProxy::new(&connection, BUS_NAME, ROOT_PATH)
        .await
        .unwrap();
    let mut added = objects.receive_interfaces_added().await.unwrap();
    let mut removed = objects.receive_interfaces_removed().await.unwrap();

    filled(&client).await;
    let mut paths = Vec::new();
    for _ in 0..4 {
        let signal = added.next().await.unwrap();
        paths.push(signal.args().unwrap().object_path().to_string());
    }
    paths.sort();
    let mut expected = vec![
        group_path("web"),
        server_path("_web.0"),
        server_path("_web.1"),
        rule_path("shop"),
    ];
    expected.sort();
    assert_eq!(paths, expected);

    let managed = objects.get_managed_objects().await.unwrap();
    for path in &expected {
        assert!(managed.keys().any(|known| known.as_str() == path), "{path}");
    }

    let properties = PropertiesProxy::new(&connection, BUS_NAME, rule_path("shop"))
        .await
        .unwrap();
    let mut changes = properties.receive_properties_changed().await.unwrap();
    client.enable_rules(&["shop"], true).await.unwrap();
    client.enable_rules(&["shop"], false).await.unwrap();
    let change = changes.next().await.unwrap();
    let args = change.args().unwrap();
    // The first call changed nothing and was silent.
    let enabled: bool = args.changed_properties()["Enabled"]
        .try_clone()
        .unwrap()
        .try_into()
        .unwrap();
    assert!(!enabled);

    client.delete_rules(&["shop"]).await.unwrap();
    let gone = removed.next().await.unwrap();
    assert_eq!(
        gone.args().unwrap().object_path().as_str(),
        rule_path("shop")
    );
}

#[tokio::test]
async fn a_program_without_an_async_runtime_has_a_client_too() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    let address = bus.address().as_str().try_into().unwrap();
    let other = std::thread::spawn(move || {
        let client = libilb::blocking::Client::connect_to(address).unwrap();
        client.create_group("web", &["192.0.2.10"]).unwrap();
        let shop = rule("198.51.100.1", "web");
        client.create_rule("shop", &shop).unwrap();
        assert_eq!(
            kind(client.create_rule("shop", &shop)),
            ErrorKind::AlreadyExists
        );
        assert_eq!(client.enable_rules(&["shop"], false).unwrap(), ["shop"]);
        assert!(client.statistics().unwrap().get("shop", "").is_some());
        let generation = client.wait(async |client| client.manager().generation().await);
        assert_eq!(generation.unwrap(), client.describe().unwrap().generation);
    });
    // The test's own runtime goes on meanwhile.
    while !other.is_finished() {
        client.describe().await.unwrap();
    }
    other.join().unwrap();
    assert!(
        !client
            .describe()
            .await
            .unwrap()
            .rule("shop")
            .unwrap()
            .rule
            .enabled
    );
}

#[tokio::test]
async fn plain_busctl_is_enough() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    let call = |arguments: &[&str]| {
        let all: Vec<&str> = MANAGER.iter().chain(arguments).copied().collect();
        let output = bus.busctl(&all);
        let error = String::from_utf8(output.stderr).unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            error,
        )
    };
    let (ok, out, error) = call(&["CreateServerGroup", "sas", "web", "1", "192.0.2.10"]);
    assert!(ok, "{error}");
    assert_eq!(out, "o \"/org/ilb/Ilb1/servergroup/web\"\n");
    let (ok, out, error) = call(&[
        "CreateRule",
        "sa{sv}",
        "shop",
        "7",
        "vip",
        "s",
        "198.51.100.1",
        "port",
        "s",
        "http",
        "algorithm",
        "s",
        "rr",
        "topology",
        "s",
        "n",
        "proxy-src",
        "as",
        "1",
        "198.51.100.2",
        "servergroup",
        "s",
        "web",
        "conn-drain",
        "u",
        "5",
    ]);
    assert!(ok, "{error}");
    assert_eq!(out, "o \"/org/ilb/Ilb1/rule/shop\"\n");
    let (ok, out, _) = call(&["EnableRules", "as", "0"]);
    assert!(ok);
    assert_eq!(out, "as 1 \"shop\"\n");
    let (ok, _, error) = call(&[
        "CreateRule",
        "sa{sv}",
        "x",
        "1",
        "vipp",
        "s",
        "198.51.100.1",
    ]);
    assert!(!ok);
    assert!(error.contains("did you mean 'vip'?"), "{error}");
    let property = bus.busctl(&[
        "get-property",
        BUS_NAME,
        ROOT_PATH,
        "org.ilb.Ilb1.Manager",
        "Fastpath",
        "State",
        "Generation",
    ]);
    assert_eq!(
        String::from_utf8(property.stdout).unwrap(),
        "s \"connected\"\ns \"ok\"\nt 3\n"
    );
    let rule = client.describe().await.unwrap().rules[0].rule.clone();
    assert_eq!(
        (rule.vips[0].ports.first, rule.conn_drain, rule.enabled),
        (80, 5, true)
    );
}

#[tokio::test]
async fn only_root_may_change_and_everybody_may_read() {
    need_root();
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    filled(&client).await;
    let before = client.describe().await.unwrap();
    // The bus socket is in a folder that everybody may enter.
    let as_nobody = |arguments: &[&str]| {
        as_user(NOBODY, "busctl")
            .arg(format!("--address={}", bus.address()))
            .args(MANAGER)
            .args(arguments)
            .output()
            .expect("setpriv can be run")
    };
    let read = as_nobody(&["Describe"]);
    assert!(
        read.status.success(),
        "{}",
        String::from_utf8_lossy(&read.stderr)
    );
    for arguments in [
        &["DeleteAllRules"][..],
        &["DisableRules", "as", "0"],
        &["AddServers", "sas", "web", "1", "192.0.2.99"],
        &["CreateServerGroup", "sas", "more", "0"],
    ] {
        let output = as_nobody(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(
            error.contains("user 65534 may not ")
                && error.contains("without polkit on the bus only root may; run it as root"),
            "{error}"
        );
    }
    assert_eq!(client.describe().await.unwrap(), before);
}

#[tokio::test]
async fn unknown_and_wrong_settings_are_named() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    let wrong = HashMap::from([("port", zbus::Variant::from(80_u32))]);
    let error: ClientError = client
        .manager()
        .create_rule("x", wrong)
        .await
        .unwrap_err()
        .into();
    assert!(
        error
            .to_string()
            .contains("'port' has D-Bus type u: it has to be of type s"),
        "{error}"
    );
}

#[tokio::test]
async fn ten_thousand_servers_are_no_trouble() {
    let (bus, node) = (Bus::start(), Node::new());
    let (mut manager, client) = node.start_sim(&bus).await;
    let specs: Vec<String> = (0..40)
        .map(|n| format!("10.0.{n}.0-10.0.{n}.249"))
        .collect();
    let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
    client.create_group("big", &specs).await.unwrap();
    client
        .create_rule("big", &rule("198.51.100.1", "big"))
        .await
        .unwrap();
    manager.kill();
    drop(manager);
    let (_manager, client) = node.start_sim(&bus).await;
    let description = wait_for(&client, "all servers are back", |d| !d.groups.is_empty()).await;
    assert_eq!(description.groups[0].servers.len(), 10_000);
    assert_eq!(
        client.enable_servers(&["_big.9999"], false).await.unwrap(),
        ["_big.9999"]
    );
}

fn check(text: &str) -> HealthCheckSettings {
    let mut settings = HealthCheckSettings::default();
    settings.parse(text).expect("settings of a health check");
    settings
}

#[tokio::test]
async fn health_checks_are_objects_that_rules_use() {
    let (bus, node) = (Bus::start(), Node::new());
    let (mut manager, client) = node.start_sim(&bus).await;
    filled(&client).await;
    let connection = bus.connection().await;
    let objects = ObjectManagerProxy::new(&connection, BUS_NAME, ROOT_PATH)
        .await
        .unwrap();
    let mut added = objects.receive_interfaces_added().await.unwrap();
    let mut removed = objects.receive_interfaces_removed().await.unwrap();

    let path = client
        .create_check(
            "Page-1",
            &check("test=http,url=/health,status=200\\,301,timeout=500ms"),
        )
        .await
        .unwrap();
    assert_eq!(path, check_path("page-1"));
    let signal = added.next().await.unwrap();
    assert_eq!(signal.args().unwrap().object_path().as_str(), path);
    let object = HealthCheckProxy::new(&connection, path.as_str())
        .await
        .unwrap();
    assert_eq!(object.name().await.unwrap(), "Page-1");
    assert_eq!(object.test().await.unwrap(), "http");
    assert_eq!(object.timeout().await.unwrap(), 0.5);
    assert_eq!(object.interval().await.unwrap(), 30.0);
    assert_eq!(object.count().await.unwrap(), 3);
    assert!(object.ping().await.unwrap());
    // What the property says makes the same check again.
    let said = object.settings().await.unwrap();
    let again = libilb::healthcheck::settings_from_dbus(&said).unwrap();
    let described = client.describe().await.unwrap();
    assert_eq!(again.check("Page-1"), Ok(described.checks[0].check.clone()));

    let used = |name: &str, port: Option<&str>| RuleSettings {
        health_check: Some(name.into()),
        health_check_port: port.map(str::to_string),
        ..RuleSettings::default()
    };
    assert!(
        client
            .modify_rule("shop", &used("PAGE-1", Some("8080")))
            .await
            .unwrap()
    );
    let description = client.describe().await.unwrap();
    assert_eq!(description.check("page-1").unwrap().rules, ["shop"]);
    let properties = PropertiesProxy::new(&connection, BUS_NAME, path.as_str())
        .await
        .unwrap();
    let mut changes = properties.receive_properties_changed().await.unwrap();
    assert!(
        !client
            .modify_check("PAGE-1", &check("count=3"))
            .await
            .unwrap()
    );
    assert!(
        client
            .modify_check("PAGE-1", &check("count=2"))
            .await
            .unwrap()
    );
    let change = changes.next().await.unwrap();
    let args = change.args().unwrap();
    assert!(args.changed_properties().contains_key("Count"), "{args:?}");

    for (refused, wanted) in [
        (
            client.delete_checks(&["page-1"]).await.map(drop),
            ErrorKind::InUse,
        ),
        (
            client.delete_checks(&["nosuch"]).await.map(drop),
            ErrorKind::NotFound,
        ),
        (
            client
                .create_check("page-1", &check("test=tcp"))
                .await
                .map(drop),
            ErrorKind::AlreadyExists,
        ),
        (
            client.create_check("x", &check("count=2")).await.map(drop),
            ErrorKind::InvalidArgument,
        ),
        (
            client
                .modify_check("page-1", &check("count=0"))
                .await
                .map(drop),
            ErrorKind::InvalidArgument,
        ),
        (
            client
                .modify_rule("shop", &used("nosuch", None))
                .await
                .map(drop),
            ErrorKind::NotFound,
        ),
    ] {
        assert_eq!(kind(refused), wanted);
    }

    // Everything is there again after a crash.
    let before = client.describe().await.unwrap();
    manager.kill();
    let (_manager, client) = node.start_sim(&bus).await;
    let after = client.describe().await.unwrap();
    assert_eq!(
        (&after.checks, &after.rules),
        (&before.checks, &before.rules)
    );
    assert_eq!(after.checks[0].check.timing.count, 2);

    assert!(
        client
            .modify_rule("shop", &used("none", None))
            .await
            .unwrap()
    );
    assert_eq!(client.delete_checks(&["PAGE-1"]).await.unwrap(), ["Page-1"]);
    let gone = removed.next().await.unwrap();
    assert_eq!(gone.args().unwrap().object_path().as_str(), path);
    assert!(client.describe().await.unwrap().checks.is_empty());
}
