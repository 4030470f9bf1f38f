//! Health checks of the whole program: real servers on the loopback interface that come and go, and a fast path that only
//! talks and shows what it is told.

mod common;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Bus, FakeFastpath, Node, PATIENCE, Process, answering, rule, wait_until};
use libilb::client::Client;
use libilb::health::{Code, HealthState, Layer, ServerHealth};
use libilb::healthfilter::HealthFilter;
use libilb::model::{HealthCheckSettings, RuleSettings};

/// A server that accepts connections until this is dropped, at an address that no other test uses.
struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(address: &str) -> Server {
        let listener = TcpListener::bind(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        listener.set_nonblocking(true).expect("a socket of ours");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if listener.accept().is_err() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Server {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server's thread ends");
        }
    }
}

/// Which servers of the only rule are dead as far as the fast path knows, by their ids.
fn dead(fastpath: &FakeFastpath) -> Vec<String> {
    let mind = fastpath.mind.lock().unwrap();
    let servers = mind.spec.rules.iter().flat_map(|rule| &rule.servers);
    let dead = servers.filter(|server| server.dead);
    dead.map(|server| server.name.clone()).collect()
}

async fn results(client: &Client, server: &str) -> ServerHealth {
    let filter = HealthFilter {
        rule: Some("SHOP".into()),
        server: Some(server.into()),
    };
    let mut report = client.health_results(&filter).await.unwrap();
    assert_eq!(report.servers.len(), 1);
    report.servers.remove(0)
}

async fn until(client: &Client, server: &str, state: HealthState) -> ServerHealth {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = results(client, server).await;
        if found.state == state {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {state}: {found:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Where the servers really are: what is tested has the servers' ports, but an address of this machine.
const PLACES: [&str; 2] = ["127.18.0.1:18081", "127.18.0.1:18082"];

/// A rule with two servers and a check that finds out quickly.
async fn configure(client: &Client) {
    let servers = ["192.0.2.10:18081", "192.0.2.11:18082"];
    client.create_group("web", &servers).await.unwrap();
    let mut check = HealthCheckSettings::default();
    let text = "test=tcp,address=127.18.0.1,ping=no,timeout=2,interval=0.1,count=2,warm-up=0";
    check.parse(text).unwrap();
    client.create_check("alive", &check).await.unwrap();
    let checked = RuleSettings {
        health_check: Some("alive".into()),
        manage_addresses: Some(false),
        ..rule("198.51.100.1", "web")
    };
    client.create_rule("shop", &checked).await.unwrap();
}

#[tokio::test]
async fn a_server_that_dies_gets_no_connections_until_it_is_back() {
    let (bus, node) = (Bus::start(), Node::new());
    node.configure("[manager]\nmanage-addresses = false");
    let fastpath = FakeFastpath::start(&node);
    let (one, two) = (Server::start(PLACES[0]), Server::start(PLACES[1]));
    let mut manager = Process::start(&mut node.command(&bus));
    let client = answering(&bus).await;
    configure(&client).await;
    until(&client, "_web.0", HealthState::Alive).await;
    until(&client, "_web.1", HealthState::Alive).await;
    fastpath.wait_for_rules(1);
    assert_eq!(dead(&fastpath), [""; 0]);
    let generation = client.describe().await.unwrap().generation;

    drop(one);
    wait_until("the fast path hears of the dead server", || {
        dead(&fastpath) == ["_web.0"]
    });
    let found = until(&client, "_web.0", HealthState::Dead).await;
    let result = found.result.expect("a reason");
    assert_eq!((result.layer, result.code), (Layer::L4, Code::Refused));
    let last = found.transitions.last().expect("a transition");
    assert_eq!(
        (last.from, last.to),
        (HealthState::Alive, HealthState::Dead)
    );
    let described = client.describe().await.unwrap();
    assert_eq!(
        described.generation, generation,
        "health is not configuration"
    );
    let group = described.group("web").unwrap();
    let health = group.servers[0].health_in("shop").unwrap();
    assert!(health.why.contains("L4/refused"), "{health:?}");

    // A manager that is killed and comes back knows it still, before it has tested anybody.
    manager.kill();
    let _manager = Process::start(&mut node.command(&bus));
    let client = answering(&bus).await;
    assert_eq!(
        until(&client, "_web.0", HealthState::Dead).await.state,
        HealthState::Dead
    );
    until(&client, "_web.1", HealthState::Alive).await;
    assert_eq!(dead(&fastpath), ["_web.0"]);

    let _one = Server::start(PLACES[0]);
    wait_until("the fast path hears that it is back", || {
        dead(&fastpath).is_empty()
    });
    until(&client, "_web.0", HealthState::Alive).await;

    // Who is disabled is not tested.
    client.enable_servers(&["_web.1"], false).await.unwrap();
    let found = until(&client, "_web.1", HealthState::Disabled).await;
    assert!(!found.up);
    drop(two);
    client.modify_rule("shop", &off()).await.unwrap();
    let all = client
        .health_results(&HealthFilter::default())
        .await
        .unwrap();
    assert!(all.servers.is_empty(), "{all:?}");
}

fn off() -> RuleSettings {
    RuleSettings {
        health_check: Some("none".into()),
        ..RuleSettings::default()
    }
}

#[tokio::test]
async fn whom_nobody_knows_cannot_be_asked_for() {
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = node.start_sim(&bus).await;
    configure(&client).await;
    let all = client
        .health_results(&HealthFilter::default())
        .await
        .unwrap();
    let states: Vec<_> = all
        .servers
        .iter()
        .map(|s| (s.rule.as_str(), s.server.as_str(), s.state, s.up))
        .collect();
    let unknown = HealthState::UnInit;
    let expected = [
        ("shop", "_web.0", unknown, true),
        ("shop", "_web.1", unknown, true),
    ];
    assert_eq!(states, expected);
    for (rule, server, words) in [
        (
            Some("shopp"),
            None,
            "no rule is named 'shopp'; did you mean 'shop'?",
        ),
        (
            None,
            Some("_web.7"),
            "no server is named '_web.7'; did you mean '_web.0'?",
        ),
    ] {
        let filter = HealthFilter {
            rule: rule.map(str::to_string),
            server: server.map(str::to_string),
        };
        let error = client.health_results(&filter).await.unwrap_err();
        assert_eq!(error.to_string(), words);
    }
}
