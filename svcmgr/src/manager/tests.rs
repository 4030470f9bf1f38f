//! The manager against a scripted fast path, scripted addresses and a store in memory: order, refusal, degradation.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use ilb_forwarder::spec::{Limits, SnapshotSpec};
use ilb_node::control::{
    Counters, Hello, Request, Response, RuleStatistics, ServerStatistics, Statistics,
};
use libilb::ErrorKind;
use libilb::describe::{Fastpath, Status};
use libilb::model::RuleSettings;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::change::Change;
use super::error::ManagerError;
use super::*;
use crate::addresses::{AddressError, Mark, Present};
use crate::author::Author;
use crate::dataplane::{Event, LinkError};
use crate::store::StoreError;

mod accept;
mod following;
mod handover;
mod health;
mod pair;
mod sources;

/// What happened, in order, and how the scripted parts shall behave.
#[derive(Default)]
struct World {
    log: Vec<String>,
    spec: SnapshotSpec,
    refuse_spec: bool,
    refuse_addresses: bool,
    fail_store: bool,
    connections: u64,
    present: Vec<Present>,
    stored: Option<State>,
    events: VecDeque<Event>,
    restarts: u64,
    /// Addresses that are closed, and how often that was said.
    closed: std::collections::BTreeSet<IpAddr>,
    closings: u64,
    refuse_closing: bool,
}

type Shared = Arc<Mutex<World>>;

struct Scripted(Shared, Arc<tokio::sync::Notify>);

impl DataPlane for Scripted {
    async fn request(&mut self, request: Request) -> Result<Response, LinkError> {
        let mut world = self.0.lock().unwrap();
        let (request, word) = match request {
            Request::Change(change) if change.base != world.spec.generation => {
                let generation = world.spec.generation;
                world.log.push(format!("gap {generation}"));
                return Ok(Response::Gap { generation });
            }
            Request::Change(change) => {
                let mut spec = world.spec.clone();
                spec.change(change);
                (Request::Apply(spec), "change")
            }
            other => (other, "apply"),
        };
        Ok(match request {
            Request::Apply(spec) if world.refuse_spec => {
                world.log.push(format!("refuse {}", spec.generation));
                Response::Rejected {
                    generation: spec.generation,
                    reason: "not today".into(),
                }
            }
            Request::Apply(spec) => {
                world.log.push(format!("{word} {}", spec.generation));
                let generation = spec.generation;
                world.spec = spec;
                Response::Applied { generation }
            }
            Request::Statistics | Request::StatisticsOf(_) => {
                let counters = Counters {
                    connections_open: world.connections,
                    connections_total: world.connections,
                    packets: 7,
                    ..Counters::default()
                };
                let rules = world.spec.rules.iter().map(|rule| RuleStatistics {
                    id: rule.id,
                    counters,
                    servers: rule
                        .servers
                        .iter()
                        .map(|server| ServerStatistics {
                            id: server.id,
                            counters,
                        })
                        .collect(),
                });
                Response::Statistics(Statistics {
                    start_id: world.restarts,
                    totals: counters,
                    rules: rules.collect(),
                    ..Statistics::default()
                })
            }
            Request::Peer(peer) => {
                let told = peer.as_ref().map(|peer| peer.address.to_string());
                world.log.push(format!("peer {}", told.unwrap_or_default()));
                Response::Peer(None)
            }
            Request::Close(_) if world.refuse_closing => Response::Error {
                message: "no room".into(),
            },
            Request::Close(addresses) => {
                world.closed = addresses;
                world.closings += 1;
                Response::Closed
            }
            Request::Handover(givers) => {
                let words = givers.iter().map(|it| {
                    let time = it.milliseconds.map_or("", |_| " for a while");
                    format!(" {} {}{time}", it.interface, it.address)
                });
                world
                    .log
                    .push(format!("handover{}", words.collect::<String>()));
                Response::Handover
            }
            other => Response::Error {
                message: format!("{other:?}"),
            },
        })
    }

    async fn event(&mut self) -> Event {
        loop {
            let event = self.0.lock().unwrap().events.pop_front();
            match event {
                Some(event) => return event,
                None => self.1.notified().await,
            }
        }
    }
}

struct ScriptedAddresses(Shared);

impl Addresses for ScriptedAddresses {
    async fn present(&mut self) -> Result<Vec<Present>, AddressError> {
        Ok(self.0.lock().unwrap().present.clone())
    }

    async fn add(&mut self, address: IpAddr, interface: &str) -> Result<(), AddressError> {
        let mut world = self.0.lock().unwrap();
        if world.refuse_addresses {
            return Err(AddressError::Add {
                address,
                interface: interface.into(),
                reason: "permission denied".into(),
            });
        }
        world.log.push(format!("add {address}"));
        world.present.push(Present {
            interface: interface.into(),
            address,
            prefix: 32,
            mark: Mark::Ours,
        });
        Ok(())
    }

    async fn remove(&mut self, address: IpAddr, _: &str) -> Result<(), AddressError> {
        let mut world = self.0.lock().unwrap();
        world.log.push(format!("remove {address}"));
        world.present.retain(|item| item.address != address);
        Ok(())
    }

    async fn changed(&mut self) {
        std::future::pending().await
    }
}

struct MemoryStore(Shared);

impl Store for MemoryStore {
    fn replace(&self, before: &State, after: &State) -> Result<(), StoreError> {
        let mut world = self.0.lock().unwrap();
        if world.fail_store {
            return Err(StoreError::Damaged {
                path: "/db".into(),
                reason: "disk full".into(),
            });
        }
        let stored = world.stored.take().unwrap_or_default();
        assert_eq!(&stored, before, "the manager knows what is stored");
        world.log.push(format!("store {}", after.generation));
        world.stored = Some(after.clone());
        Ok(())
    }
}

struct Silent;

impl Publisher for Silent {
    async fn publish(&mut self, _: &View, _: &View) {}
}

struct Bench {
    world: Shared,
    wake: Arc<tokio::sync::Notify>,
    handle: ManagerHandle,
    checker: crate::checks::Checker,
    asked: crate::sources::Asked,
    notices: mpsc::UnboundedReceiver<crate::notify::Notice>,
    _stop: oneshot::Sender<()>,
    _task: JoinHandle<()>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_store(true)
    }

    fn with_store(store: bool) -> Bench {
        Bench::build(store, State::default(), None)
    }

    /// A manager that begins with this state, and remembers by this file.
    fn with_memory(state: State, memory: crate::checks::memory::Memory) -> Bench {
        Bench::build(true, state, Some(memory))
    }

    fn build(store: bool, state: State, memory: Option<crate::checks::memory::Memory>) -> Bench {
        // Nothing can be kept where there is no folder.
        Bench::with_pair(store, state, memory, Keep::new("/nowhere".as_ref()))
    }

    fn with_pair(
        store: bool,
        state: State,
        memory: Option<crate::checks::memory::Memory>,
        pair: Keep,
    ) -> Bench {
        Bench::with_driver(store, state, memory, pair, ilb_vrrp::Driver::simulated())
    }

    fn with_driver(
        store: bool,
        state: State,
        memory: Option<crate::checks::memory::Memory>,
        pair: Keep,
        vrrp: ilb_vrrp::Driver,
    ) -> Bench {
        let (checks, checker) = crate::checks::Checks::pair();
        let (sources, asked) = crate::sources::Sources::pair();
        let (notifier, notices) = mpsc::unbounded_channel();
        let world = Shared::default();
        let wake = Arc::new(tokio::sync::Notify::new());
        let (manager, handle) = Manager::new(Start {
            store: store.then(|| Arc::new(MemoryStore(world.clone())) as Arc<dyn Store>),
            state,
            checks,
            sources,
            notifier,
            memory,
            vrrp,
            pair,
            listen: crate::pair::Place {
                address: None,
                port: 0,
            },
            notice: match store {
                true => String::new(),
                false => "damaged".into(),
            },
            known: store,
            keeper: None,
            database: "/db".into(),
            snapshots: None,
            dataplane: Scripted(world.clone(), wake.clone()),
            addresses: ScriptedAddresses(world.clone()),
            live: Live {
                manage_addresses: true,
                limits: Limits::default(),
            },
            statistics: None,
            interfaces: vec!["eth0".into(), "eth1".into()],
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(manager.run(Silent, async {
            drop(stopped.await);
        }));
        Bench {
            world,
            wake,
            handle,
            notices,
            checker,
            asked,
            _stop: stop,
            _task: task,
        }
    }

    /// A fast path comes, with this generation, and the manager has noticed.
    async fn connect(&self, generation: u64) {
        {
            let mut world = self.world.lock().unwrap();
            world.restarts += 1;
            let start_id = world.restarts;
            world.events.push_back(Event::Up(Hello {
                start_id,
                generation,
                ..Hello::default()
            }));
        }
        self.wake.notify_one();
        self.until(|view| view.fastpath != Fastpath::Absent).await;
    }

    async fn disconnect(&self) {
        let lost = LinkError::Lost("killed".into());
        self.world
            .lock()
            .unwrap()
            .events
            .push_back(Event::Down(lost));
        self.wake.notify_one();
        self.until(|view| view.fastpath == Fastpath::Absent).await;
    }

    async fn until(&self, condition: impl Fn(&View) -> bool) {
        let mut view = self.handle.view.clone();
        tokio::time::timeout(Duration::from_secs(10), view.wait_for(|v| condition(v)))
            .await
            .expect("the manager gets there in time")
            .unwrap();
    }

    /// What happened since the last call.
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.world.lock().unwrap().log)
    }

    fn set(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().unwrap());
    }

    async fn change(&self, change: Change) -> Result<Vec<String>, ManagerError> {
        self.handle.change(Author::Manager, change).await
    }

    async fn create_enabled_rule(&self) -> Result<Vec<String>, ManagerError> {
        let servers = vec!["192.0.2.10".into(), "192.0.2.11".into()];
        self.handle
            .change(
                Author::Manager,
                Change::CreateGroup {
                    source: Default::default(),
                    name: "web".into(),
                    servers,
                },
            )
            .await?;
        self.handle
            .change(Author::Manager, rule("shop", "198.51.100.1"))
            .await
    }
}

fn rule(name: &str, vip: &str) -> Change {
    Change::CreateRule {
        name: name.into(),
        settings: Box::new(RuleSettings {
            enabled: true,
            vip: vip.into(),
            port: "80".into(),
            algorithm: "rr".into(),
            topology: "DSR".into(),
            servergroup: "web".into(),
            ..RuleSettings::default()
        }),
    }
}

fn disable_all() -> Change {
    Change::EnableRules {
        names: vec![],
        enabled: false,
    }
}

#[tokio::test]
async fn durable_then_steering_then_address() {
    let bench = Bench::new();
    bench.connect(0).await;
    bench.create_enabled_rule().await.unwrap();
    let steps = [
        // What XDP may have of an earlier one.
        "apply 0",
        "store 1",
        "change 1",
        "store 2",
        "change 2",
        "add 198.51.100.1",
    ];
    assert_eq!(bench.log(), steps);
    assert_eq!(bench.handle.view().fastpath_generation, 2);
}

#[tokio::test]
async fn a_drained_rule_loses_its_address_before_its_steering() {
    let bench = Bench::new();
    bench.connect(0).await;
    bench.create_enabled_rule().await.unwrap();
    bench.set(|world| world.connections = 1);
    bench.log();
    bench
        .handle
        .change(Author::Manager, disable_all())
        .await
        .unwrap();
    assert_eq!(bench.log(), ["store 3", "change 3"]);
    let description = bench.handle.describe().await.unwrap();
    assert_eq!(description.rules[0].status, Status::Draining);
    assert_eq!(description.rules[0].connections, 1);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(bench.log(), Vec::<String>::new(), "a connection is left");
    bench.set(|world| world.connections = 0);
    bench.until(|view| view.state.retired.is_empty()).await;
    assert_eq!(bench.log(), ["store 4", "remove 198.51.100.1", "change 4"]);
    assert!(bench.world.lock().unwrap().spec.rules.is_empty());
}

#[tokio::test]
async fn conn_drain_ends_the_wait_even_without_a_fast_path() {
    let bench = Bench::new();
    bench.connect(0).await;
    bench.create_enabled_rule().await.unwrap();
    bench.set(|world| world.connections = 1);
    let Change::CreateRule { name, mut settings } = rule("short", "198.51.100.2") else {
        panic!("a rule");
    };
    settings.conn_drain = Some(1);
    bench
        .handle
        .change(Author::Manager, Change::CreateRule { name, settings })
        .await
        .unwrap();
    bench.disconnect().await;
    bench
        .handle
        .change(Author::Manager, Change::DeleteAllRules)
        .await
        .unwrap();
    bench
        .until(|view| view.state.retired.rules.len() == 1)
        .await;
    let view = bench.handle.view();
    assert_eq!(view.state.retired.rules.keys().collect::<Vec<_>>(), [&1]);
}

#[tokio::test]
async fn without_a_fast_path_changes_wait_for_it() {
    let bench = Bench::new();
    bench.create_enabled_rule().await.unwrap();
    assert_eq!(bench.handle.view().fastpath, Fastpath::Absent);
    assert_eq!(bench.log(), ["store 1", "store 2"]);
    bench.connect(0).await;
    assert_eq!(bench.log(), ["apply 2", "add 198.51.100.1"]);
    assert_eq!(bench.handle.view().fastpath, Fastpath::Connected);
    // It comes back with what it had: nothing to do. It comes back with nothing: it gets all.
    bench.disconnect().await;
    bench.connect(2).await;
    assert_eq!(bench.log(), Vec::<String>::new());
    bench.disconnect().await;
    bench.connect(0).await;
    assert_eq!(bench.log(), ["apply 2"]);
}

#[tokio::test]
async fn who_forwards_by_something_else_gets_everything() {
    let bench = Bench::new();
    bench.connect(0).await;
    bench.create_enabled_rule().await.unwrap();
    bench.log();
    // It has lost something without our knowing.
    bench.set(|world| world.spec = SnapshotSpec::default());
    let more = |vip: &str| {
        bench
            .handle
            .change(Author::Manager, rule(&vip.replace('.', "-"), vip))
    };
    more("198.51.100.2").await.unwrap();
    let steps = ["store 3", "gap 0", "apply 3", "add 198.51.100.2"];
    assert_eq!(bench.log(), steps);
    more("198.51.100.3").await.unwrap();
    assert_eq!(bench.log(), ["store 4", "change 4", "add 198.51.100.3"]);
    // A new one with what the old one had goes on with differences, one with less gets everything.
    bench.disconnect().await;
    bench.connect(4).await;
    more("198.51.100.4").await.unwrap();
    assert_eq!(bench.log(), ["store 5", "change 5", "add 198.51.100.4"]);
    bench.disconnect().await;
    more("198.51.100.5").await.unwrap();
    bench.connect(5).await;
    assert_eq!(bench.log(), ["store 6", "apply 6", "add 198.51.100.5"]);
    let world = bench.world.lock().unwrap();
    let whole = crate::compile::snapshot(&bench.handle.view().state, &Default::default());
    assert_eq!(world.spec, whole);
}

#[tokio::test]
async fn a_fast_path_with_a_later_generation_is_overtaken() {
    let bench = Bench::new();
    bench.connect(41).await;
    bench.until(|view| view.state.generation == 42).await;
    assert_eq!(bench.log(), ["store 42", "apply 42"]);
}

#[tokio::test]
async fn a_refused_change_changes_nothing() {
    let bench = Bench::new();
    bench.connect(0).await;
    bench.create_enabled_rule().await.unwrap();
    let before = bench.handle.view();
    bench.set(|world| world.refuse_spec = true);
    bench.log();
    let error = bench
        .handle
        .change(Author::Manager, rule("more", "198.51.100.2"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FastpathRejected);
    assert_eq!(
        error.to_string(),
        "the fast path refused the change, nothing was changed: not today"
    );
    let after = bench.handle.view();
    assert_eq!(after.state.configuration, before.state.configuration);
    assert!(after.state.generation > before.state.generation);
    assert_eq!(
        bench.world.lock().unwrap().stored.as_ref(),
        Some(&after.state)
    );
    assert!(!bench.log().iter().any(|step| step.starts_with("add")));
    // The number of the refused rule is not lost: nobody has seen it.
    bench.set(|world| world.refuse_spec = false);
    bench
        .handle
        .change(Author::Manager, rule("more", "198.51.100.2"))
        .await
        .unwrap();
    assert_eq!(bench.handle.view().fastpath, Fastpath::Connected);
}

#[tokio::test]
async fn an_address_that_cannot_be_added_undoes_the_change() {
    let bench = Bench::new();
    bench.connect(0).await;
    bench.set(|world| world.refuse_addresses = true);
    let error = bench.create_enabled_rule().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(
        error
            .to_string()
            .contains("198.51.100.1 on interface lo: permission denied"),
        "{error}"
    );
    assert!(bench.handle.view().state.configuration.rules.is_empty());
    assert!(bench.world.lock().unwrap().spec.rules.is_empty());
}

#[tokio::test]
async fn a_store_that_fails_makes_it_read_only() {
    let bench = Bench::new();
    bench.connect(0).await;
    bench.create_enabled_rule().await.unwrap();
    let before = bench.handle.view().state.clone();
    bench.set(|world| world.fail_store = true);
    bench.log();
    for _ in 0..2 {
        let error = bench
            .handle
            .change(Author::Manager, disable_all())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Degraded);
        assert!(error.to_string().contains("disk full"), "{error}");
        bench.set(|world| world.fail_store = false);
    }
    assert_eq!(bench.log(), Vec::<String>::new());
    let description = bench.handle.describe().await.unwrap();
    assert_eq!(description.state, libilb::describe::State::Degraded);
    assert!(description.state_reason.contains("disk full"));
    assert_eq!(bench.handle.view().state, before);
    let statistics = bench.handle.statistics().await.unwrap();
    assert!(statistics.get("shop", "_web.0").is_some());
}

#[tokio::test]
async fn without_a_store_the_fast_path_is_left_alone() {
    let bench = Bench::with_store(false);
    bench.connect(5).await;
    let error = bench.create_enabled_rule().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Degraded);
    assert_eq!(bench.log(), Vec::<String>::new());
    assert_eq!(bench.handle.view().fastpath, Fastpath::Behind);
}

#[tokio::test]
async fn what_changes_nothing_does_nothing() {
    let bench = Bench::new();
    bench.connect(0).await;
    bench.create_enabled_rule().await.unwrap();
    bench.log();
    let enable = Change::EnableRules {
        names: vec!["SHOP".into()],
        enabled: true,
    };
    assert_eq!(
        bench.handle.change(Author::Manager, enable).await.unwrap(),
        Vec::<String>::new()
    );
    let none = Change::DeleteRules(vec![]);
    assert_eq!(
        bench.handle.change(Author::Manager, none).await.unwrap(),
        Vec::<String>::new()
    );
    let wrong = Change::DeleteRules(vec!["shop".into(), "shob".into()]);
    let error = bench
        .handle
        .change(Author::Manager, wrong)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(bench.log(), Vec::<String>::new());
}

#[tokio::test]
async fn a_removed_server_drains_in_its_place() {
    let bench = Bench::new();
    bench.connect(0).await;
    bench.create_enabled_rule().await.unwrap();
    bench.set(|world| world.connections = 3);
    let remove = Change::RemoveServers {
        group: "web".into(),
        servers: vec!["_web.0".into()],
    };
    bench.handle.change(Author::Manager, remove).await.unwrap();
    {
        let world = bench.world.lock().unwrap();
        let servers: Vec<_> = world.spec.rules[0]
            .servers
            .iter()
            .map(|server| (server.name.clone(), server.accepting))
            .collect();
        assert_eq!(servers, [("_web.1".into(), true), ("_web.0".into(), false)]);
    }
    let description = bench.handle.describe().await.unwrap();
    let removed = &description.groups[0].servers[1];
    assert!(removed.removed && removed.status == Status::Draining);
    assert_eq!(removed.connections, 3);
    bench.set(|world| world.connections = 0);
    bench.until(|view| view.state.retired.is_empty()).await;
    assert_eq!(bench.world.lock().unwrap().spec.rules[0].servers.len(), 1);
}

#[tokio::test]
async fn counters_survive_a_new_fast_path() {
    let bench = Bench::new();
    bench.connect(0).await;
    bench.create_enabled_rule().await.unwrap();
    let packets = async || {
        let statistics = bench.handle.statistics().await.unwrap();
        statistics
            .get("shop", "")
            .unwrap()
            .get(libilb::stats::Counter::PacketsForwarded)
    };
    assert_eq!(packets().await, 7);
    bench.disconnect().await;
    assert_eq!(packets().await, 7);
    bench.connect(2).await;
    assert_eq!(packets().await, 14);
}
