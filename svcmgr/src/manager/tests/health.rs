//! What the manager makes of health checks, with a test that plays their engine.

use ilb_checks::Id;
use libilb::health::{HealthState, Weight};
use libilb::model::HealthCheckSettings;

use super::*;
use crate::checks::memory::Memory;
use crate::checks::{News, Order};
use crate::test_folder::TestFolder;

fn check(name: &str, text: &str) -> Change {
    let mut settings = HealthCheckSettings::default();
    settings.parse(text).unwrap();
    Change::CreateCheck {
        name: name.into(),
        settings: Box::new(settings),
    }
}

fn use_check(name: &str) -> Change {
    Change::ModifyRule {
        name: "shop".into(),
        settings: Box::new(RuleSettings {
            health_check: Some(name.into()),
            slow_start: Some(60),
            ..RuleSettings::default()
        }),
    }
}

/// News of one of the servers of the rule: they have the numbers 1 and 2.
fn news(server: u32, state: HealthState) -> News {
    News {
        id: Id { rule: 1, server },
        state,
        up: matches!(state, HealthState::Alive | HealthState::UnInit),
        weight: None,
        why: "L4/refused after 0.1 ms".into(),
        since: 1,
        changes: 0,
    }
}

impl Bench {
    /// A rule with two servers and a check.
    async fn with_check(text: &str) -> Bench {
        let bench = Bench::new();
        bench.connect(0).await;
        bench.create_enabled_rule().await.unwrap();
        bench.change(check("alive", text)).await.unwrap();
        bench.change(use_check("alive")).await.unwrap();
        bench.log();
        bench
    }

    fn tell(&self, news: Vec<News>) {
        self.checker.news.send(news).unwrap();
    }

    /// Whether the servers are dead as far as the fast path knows.
    fn dead(&self) -> Vec<bool> {
        let world = self.world.lock().unwrap();
        let servers = world.spec.rules[0].servers.iter();
        servers.map(|server| server.dead).collect()
    }

    /// Waits until the manager has taken note of this.
    async fn noted(&self, server: u32, state: HealthState) {
        self.until(|view| view.book.state(1, server) == state).await;
    }

    /// The orders that have come, as rule, server, and whether to test it; `None` for no longer.
    fn orders(&mut self) -> Vec<(u32, u32, Option<bool>)> {
        let mut all = Vec::new();
        while let Ok(order) = self.checker.orders.try_recv() {
            if let Order::Test { changed, gone } = order {
                let changed = changed.iter().map(|t| (t.id, Some(t.enabled)));
                let gone = gone.iter().map(|id| (*id, None));
                all.extend(changed.chain(gone).map(|(id, on)| (id.rule, id.server, on)));
            }
        }
        all
    }
}

#[tokio::test]
async fn who_is_tested_follows_the_configuration() {
    let mut bench = Bench::with_check("test=tcp").await;
    assert_eq!(bench.orders(), [(1, 1, Some(true)), (1, 2, Some(true))]);
    let disable = Change::EnableServers {
        ids: vec!["_web.1".into()],
        enabled: false,
    };
    bench.change(disable).await.unwrap();
    assert_eq!(bench.orders(), [(1, 2, Some(false))]);
    bench.set(|world| world.refuse_spec = true);
    bench.change(use_check("none")).await.unwrap_err();
    assert_eq!(
        bench.orders(),
        [],
        "what was refused is not tested otherwise"
    );
    bench.set(|world| world.refuse_spec = false);
    bench.change(use_check("none")).await.unwrap();
    assert_eq!(bench.orders(), [(1, 1, None), (1, 2, None)]);
}

#[tokio::test]
async fn a_dead_server_is_told_to_the_fast_path_and_not_to_the_store() {
    let bench = Bench::with_check("test=tcp").await;
    let generation = bench.handle.view().state.generation;
    assert_eq!(bench.dead(), [false, false]);

    bench.tell(vec![news(1, HealthState::Dead)]);
    bench.noted(1, HealthState::Dead).await;
    assert_eq!(bench.dead(), [true, false]);
    assert_eq!(bench.log(), [format!("change {generation}")]);
    let description = bench.handle.describe().await.unwrap();
    let server = &description.groups[0].servers[0];
    let health = server.health_in("shop").unwrap();
    assert_eq!((health.state, health.up), (HealthState::Dead, false));
    assert_eq!(health.why, "L4/refused after 0.1 ms");
    assert_eq!(description.rules[0].problems, Vec::<String>::new());

    // The same again is no news.
    bench.tell(vec![news(1, HealthState::Dead)]);
    // Both at once is one change.
    bench.tell(vec![
        news(1, HealthState::Unreach),
        news(2, HealthState::Dead),
    ]);
    bench.noted(2, HealthState::Dead).await;
    assert_eq!(bench.dead(), [true, true]);
    assert_eq!(bench.log(), [format!("change {generation}")]);
    let problems = bench.handle.describe().await.unwrap().rules[0]
        .problems
        .clone();
    assert!(
        problems[0].starts_with("every enabled server of server group 'web' is down: L4/refused"),
        "{problems:?}"
    );

    bench.tell(vec![news(1, HealthState::Alive)]);
    bench.noted(1, HealthState::Alive).await;
    assert_eq!(bench.dead(), [false, true]);
    let world = bench.world.lock().unwrap();
    let up_since = |at: usize| world.spec.rules[0].servers[at].up_since;
    assert!(up_since(0) > 0, "it comes up slowly");
    assert_eq!(up_since(1), 0);
}

#[tokio::test]
async fn what_is_not_tested_any_more_is_not_dead() {
    let bench = Bench::with_check("test=tcp").await;
    bench.tell(vec![news(1, HealthState::Dead)]);
    bench.noted(1, HealthState::Dead).await;
    bench.change(use_check("none")).await.unwrap();
    assert_eq!(bench.dead(), [false, false]);
    // What was under way comes too late.
    bench.tell(vec![news(2, HealthState::Dead)]);
    bench.change(check("other", "test=tcp")).await.unwrap();
    assert_eq!(bench.dead(), [false, false]);
}

#[tokio::test]
async fn a_disabled_server_keeps_what_was_found_for_its_last_connections() {
    let bench = Bench::with_check("test=tcp").await;
    bench.set(|world| world.connections = 1);
    bench.tell(vec![news(1, HealthState::Dead)]);
    bench.noted(1, HealthState::Dead).await;
    let enable = |enabled| Change::EnableServers {
        ids: vec!["_web.0".into()],
        enabled,
    };
    bench.change(enable(false)).await.unwrap();
    bench.tell(vec![News {
        up: false,
        ..news(1, HealthState::Disabled)
    }]);
    bench.noted(1, HealthState::Disabled).await;
    // It comes last now, draining.
    assert_eq!(bench.dead(), [false, true]);
    bench.change(enable(true)).await.unwrap();
    assert_eq!(bench.dead(), [false, false], "who enables it means it");
}

#[tokio::test]
async fn alpha_is_dead_until_it_is_proven_alive() {
    let bench = Bench::with_check("test=tcp,alpha=yes").await;
    assert_eq!(bench.dead(), [true, true]);
    let unknown = News {
        up: false,
        ..news(1, HealthState::UnInit)
    };
    bench.tell(vec![unknown, news(2, HealthState::Alive)]);
    bench.noted(2, HealthState::Alive).await;
    assert_eq!(bench.dead(), [true, false]);
    let add = Change::AddServers {
        group: "web".into(),
        servers: vec!["192.0.2.12".into()],
    };
    bench.change(add).await.unwrap();
    assert_eq!(bench.dead(), [true, false, true]);
}

#[tokio::test]
async fn a_weight_that_a_check_gives_is_the_servers_share() {
    let bench = Bench::with_check("test=/bin/true,contract=exit-code,weight=yes").await;
    bench.tell(vec![News {
        weight: Some(Weight::Set(7)),
        ..news(2, HealthState::Alive)
    }]);
    bench.noted(2, HealthState::Alive).await;
    let weights = || -> Vec<u16> {
        let world = bench.world.lock().unwrap();
        let servers = world.spec.rules[0].servers.iter();
        servers.map(|server| server.weight).collect()
    };
    assert_eq!(weights(), [1, 7]);
    bench.tell(vec![news(2, HealthState::Alive)]);
    bench
        .until(|view| view.book.of(1, 2).is_some_and(|news| news.weight.is_none()))
        .await;
    assert_eq!(weights(), [1, 1]);
}

#[tokio::test]
async fn a_fast_path_that_comes_back_hears_who_is_dead() {
    let bench = Bench::with_check("test=tcp").await;
    let generation = bench.handle.view().state.generation;
    bench.disconnect().await;
    bench.tell(vec![news(2, HealthState::Dead)]);
    bench.noted(2, HealthState::Dead).await;
    assert_eq!(bench.dead(), [false, false]);
    bench.log();
    // It forwards by the same generation, and yet not by the same.
    bench.connect(generation).await;
    assert_eq!(bench.log(), [format!("change {generation}")]);
    assert_eq!(bench.dead(), [false, true]);
}

#[tokio::test]
async fn a_restarted_manager_does_not_take_the_dead_for_alive() {
    let folder = TestFolder::new("manager-memory");
    let memory = Memory::new(&folder.path().join("health.json"));
    let mut bench = Bench::with_memory(State::default(), memory.clone());
    bench.connect(0).await;
    bench.create_enabled_rule().await.unwrap();
    bench.change(check("alive", "test=tcp")).await.unwrap();
    bench.change(use_check("alive")).await.unwrap();
    assert!(bench.orders().len() == 2);
    bench.tell(vec![
        news(1, HealthState::Dead),
        news(2, HealthState::Alive),
    ]);
    bench.noted(2, HealthState::Alive).await;
    let (state, spec) = (
        bench.handle.view().state.clone(),
        bench.world.lock().unwrap().spec.clone(),
    );
    // What is remembered is written after the fast path was told.
    let memory_has = |dead: usize| memory.load().iter().count() == dead;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !memory_has(1) {
        assert!(
            std::time::Instant::now() < deadline,
            "nothing is remembered"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(bench);

    let mut bench = Bench::with_memory(state.clone(), memory);
    bench.set(|world| {
        world.spec = spec;
        world.stored = Some(state.clone());
    });
    let order = bench.checker.orders.try_recv();
    let Ok(Order::Test { changed, .. }) = order else {
        panic!("an order to test was expected: {order:?}");
    };
    let remembered: Vec<_> = changed.iter().map(|target| target.remembered).collect();
    assert_eq!(remembered, [Some(HealthState::Dead), None]);
    bench.connect(state.generation).await;
    assert_eq!(bench.dead(), [true, false]);
    let off = Change::ModifyRule {
        name: "shop".into(),
        settings: Box::new(RuleSettings {
            algorithm: "wlc".into(),
            ..RuleSettings::default()
        }),
    };
    bench.change(off).await.unwrap();
    assert_eq!(bench.dead(), [true, false]);
    // As the engine begins: it tells of each server once.
    bench.tell(vec![
        news(1, HealthState::Dead),
        news(2, HealthState::UnInit),
    ]);
    bench.tell(vec![news(1, HealthState::Alive)]);
    bench.noted(1, HealthState::Alive).await;
    assert_eq!(bench.dead(), [false, false]);
}

#[tokio::test]
async fn a_panic_mode_keeps_those_that_look_dead_at_once() {
    let bench = Bench::with_check("test=tcp").await;
    let panic_mode = |mode: &str| Change::ModifyRule {
        name: "shop".into(),
        settings: Box::new(RuleSettings {
            panic_mode: Some(mode.into()),
            ..RuleSettings::default()
        }),
    };
    bench.change(panic_mode("keep-last")).await.unwrap();
    assert_eq!(bench.handle.view().has_quorum("shop"), Some(true));
    // Half of them is not fewer than half.
    bench.tell(vec![news(1, HealthState::Dead)]);
    bench.noted(1, HealthState::Dead).await;
    assert_eq!(bench.dead(), [true, false]);
    bench.tell(vec![news(2, HealthState::Dead)]);
    bench.noted(2, HealthState::Dead).await;
    assert_eq!(bench.dead(), [false, false]);
    // By what was found there is no quorum, whoever asks for another node's sake.
    assert_eq!(bench.handle.view().has_quorum("SHOP"), Some(false));
    let description = bench.handle.describe().await.unwrap();
    let rule = &description.rules[0];
    let panic = rule.panic.as_ref().unwrap().to_string();
    assert_eq!(
        panic,
        "0 of 2 servers look alive, fewer than 50 %: panic mode keep-last holds"
    );
    assert_eq!(rule.problems, Vec::<String>::new());
    let health = description.groups[0].servers[1].health_in("shop").unwrap();
    let overruled = Some(libilb::rule::PanicMode::KeepLast);
    assert_eq!((health.up, health.overruled), (false, overruled));
    assert!(!health.keeps_out());

    bench.change(panic_mode("none")).await.unwrap();
    assert_eq!(bench.dead(), [true, true]);
    bench.change(panic_mode("fail-open")).await.unwrap();
    assert_eq!(bench.dead(), [false, false]);
    bench.tell(vec![news(2, HealthState::Alive)]);
    bench.noted(2, HealthState::Alive).await;
    assert_eq!(bench.dead(), [true, false]);
    assert_eq!(bench.handle.view().has_quorum("shop"), Some(true));
    assert_eq!(bench.handle.view().has_quorum("other"), None);
}

#[tokio::test]
async fn who_looks_dead_may_keep_its_connections() {
    let bench = Bench::with_check("test=tcp").await;
    let keep = Change::ModifyRule {
        name: "shop".into(),
        settings: Box::new(RuleSettings {
            orphans: Some("keep".into()),
            ..RuleSettings::default()
        }),
    };
    bench.change(keep).await.unwrap();
    bench.tell(vec![news(1, HealthState::Dead)]);
    bench.noted(1, HealthState::Dead).await;
    // As with weight 0.
    assert_eq!(bench.dead(), [false, false]);
    let world = bench.world.lock().unwrap();
    let servers = world.spec.rules[0].servers.iter();
    assert_eq!(
        servers.map(|server| server.weight).collect::<Vec<_>>(),
        [0, 1]
    );
}

impl Bench {
    /// What commands were to be run for, each with what it is about.
    fn told(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(notice) = self.notices.try_recv() {
            let crate::notify::Object { rule, server } = &notice.object;
            let event = notice.event;
            assert_eq!(notice.command.to_string(), format!("/bin/tell {event}"));
            assert!(
                notice
                    .environment
                    .contains(&("ILB_EVENT", event.to_string()))
            );
            all.push(format!("{event} {rule} {server}").trim_end().to_string());
        }
        all
    }
}

#[tokio::test]
async fn commands_are_told_of_servers_and_of_the_quorum() {
    use libilb::rule::NotifyEvent;

    let mut bench = Bench::with_check("test=tcp").await;
    let all = [
        NotifyEvent::Up,
        NotifyEvent::Down,
        NotifyEvent::QuorumUp,
        NotifyEvent::QuorumDown,
    ];
    let settings = RuleSettings {
        notify: all
            .map(|event| (event, format!("/bin/tell {event}")))
            .into(),
        ..RuleSettings::default()
    };
    let modify = Change::ModifyRule {
        name: "shop".into(),
        settings: Box::new(settings),
    };
    bench.change(modify).await.unwrap();
    assert_eq!(bench.told(), Vec::<String>::new());
    // What is told, what that leads to.
    for (server, state, expected) in [
        (1, HealthState::Dead, &["down shop _web.0"][..]),
        (1, HealthState::Unreach, &[]),
        (
            2,
            HealthState::Dead,
            &["down shop _web.1", "quorum-down shop"],
        ),
        (1, HealthState::Alive, &["up shop _web.0", "quorum-up shop"]),
        (2, HealthState::Alive, &["up shop _web.1"]),
    ] {
        bench.tell(vec![news(server, state)]);
        bench.noted(server, state).await;
        assert_eq!(bench.told(), expected, "{server} {state}");
    }
    let enable = |enabled| Change::EnableRules {
        names: vec!["shop".into()],
        enabled,
    };
    bench.change(enable(false)).await.unwrap();
    assert_eq!(bench.told(), ["quorum-down shop"]);
    bench.change(enable(true)).await.unwrap();
    assert_eq!(bench.told(), ["quorum-up shop"]);
    // What the fast path refuses has not happened.
    bench.set(|world| world.refuse_spec = true);
    bench.change(enable(false)).await.unwrap_err();
    assert_eq!(bench.told(), Vec::<String>::new());
}
