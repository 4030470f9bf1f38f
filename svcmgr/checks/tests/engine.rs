//! The engine as its user sees it: targets in, changes and reports out. On loopback, without privileges.

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{PATIENCE, nobody, serve, target, until};
use ilb_checks::{Changed, Engine, Id, Options, Target};
use libilb::health::HealthState::{self, Alive, Dead, Disabled, UnInit, Unreach};
use libilb::health::{Code, HealthReport, ServerHealth};

const OPTIONS: Options = Options {
    max_sockets: 64,
    max_scripts: 4,
    seed: 1,
};

/// An engine with all that it told.
struct Watched {
    engine: Engine,
    runtime: tokio::runtime::Runtime,
    /// By number of the server: every state that it was told to have, and whether it was up.
    told: BTreeMap<u32, Vec<(HealthState, bool)>>,
    changes: Vec<Changed>,
}

impl Watched {
    fn new(options: Options) -> Watched {
        Watched {
            engine: Engine::start(options).unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            told: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    fn collect(&mut self, within: Duration) {
        let next = async { tokio::time::timeout(within, self.engine.changes()).await };
        for change in self.runtime.block_on(next).unwrap_or_default() {
            self.told
                .entry(change.id.server)
                .or_default()
                .push((change.state, change.up));
            self.changes.push(change);
        }
    }

    fn until(&mut self, what: &str, so: impl Fn(&Watched) -> bool) {
        let began = Instant::now();
        while !so(self) {
            assert!(
                began.elapsed() < PATIENCE,
                "waited in vain: {what}; told: {:?}",
                self.told
            );
            self.collect(Duration::from_millis(100));
        }
    }

    fn state(&self, server: u32) -> Option<HealthState> {
        Some(self.told.get(&server)?.last()?.0)
    }

    fn report(&self) -> HealthReport {
        self.runtime.block_on(self.engine.report())
    }

    fn server(&self, server: u32) -> ServerHealth {
        let id = format!("_g.{server}");
        self.report()
            .servers
            .into_iter()
            .find(|s| s.server == id)
            .unwrap()
    }
}

/// A server that can be shut and opened again.
struct Door {
    place: SocketAddr,
    open: Arc<AtomicBool>,
    visits: Arc<AtomicUsize>,
}

impl Door {
    /// It answers every connection with a status that says whether it is open.
    fn new() -> Door {
        let (open, visits) = (
            Arc::new(AtomicBool::new(true)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (opened, visited) = (open.clone(), visits.clone());
        let place = serve("127.0.0.1", move |mut stream: TcpStream| {
            visited.fetch_add(1, Ordering::Relaxed);
            common::request(&mut stream);
            let status = if opened.load(Ordering::Relaxed) {
                "200 OK"
            } else {
                "503 Closed"
            };
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            let _ = std::io::Write::write_all(&mut stream, text.as_bytes());
        });
        Door {
            place,
            open,
            visits,
        }
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::Relaxed)
    }
}

const HTTP: &str = "hc-test=http,hc-ping=no,hc-interval=50ms,hc-timeout=20,hc-count=3,hc-rise=2";

#[test]
fn a_server_fails_and_comes_back_and_says_why() {
    let door = Door::new();
    let mut watched = Watched::new(OPTIONS);
    watched.engine.set(vec![target(1, HTTP, door.place)]);
    watched.until("it is alive", |w| w.state(1) == Some(Alive));
    assert_eq!(watched.told[&1], [(UnInit, true), (Alive, true)]);

    door.open.store(false, Ordering::Relaxed);
    watched.until("it is dead", |w| w.state(1) == Some(Dead));
    let health = watched.server(1);
    assert!(!health.up && health.fails >= 3);
    assert_eq!(
        (health.address, health.port),
        (door.place.ip(), Some(door.place.port()))
    );
    assert!(health.last.is_some() && health.rtt.is_some());

    door.open.store(true, Ordering::Relaxed);
    watched.until("it is back", |w| w.state(1) == Some(Alive));
    let health = watched.server(1);
    let seen: Vec<_> = health
        .transitions
        .iter()
        .map(|t| (t.from, t.to, t.count))
        .collect();
    assert_eq!(
        seen,
        [(UnInit, Alive, 1), (Alive, Dead, 3), (Dead, Alive, 2)]
    );
    let why = &health.transitions[1];
    assert_eq!(
        (why.finding.code, why.finding.number),
        (Code::Status, Some(503))
    );
    assert_eq!((&*why.finding.words, &*why.check), ("Closed", "c"));
    // What was told is what is reported.
    let told: Vec<_> = watched
        .changes
        .iter()
        .flat_map(|c| c.transitions.clone())
        .collect();
    assert_eq!(told, health.transitions);
    assert!(
        health
            .transitions
            .windows(2)
            .all(|pair| pair[0].time <= pair[1].time)
    );
}

#[test]
fn one_failure_less_than_demanded_is_not_told() {
    // given: every third connection is answered badly, and three failures in a row are needed
    let turn = AtomicUsize::new(0);
    let visits = Arc::new(AtomicUsize::new(0));
    let visited = visits.clone();
    let place = serve("127.0.0.1", move |mut stream: TcpStream| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        visited.store(turn, Ordering::Relaxed);
        common::request(&mut stream);
        let status = if turn.is_multiple_of(3) {
            "200 OK"
        } else {
            "500 No"
        };
        let _ =
            std::io::Write::write_all(&mut stream, format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
    });
    let mut watched = Watched::new(OPTIONS);
    watched.engine.set(vec![target(1, HTTP, place)]);
    // when: many tests were made
    watched.until("60 tests", |_| visits.load(Ordering::Relaxed) >= 60);
    // then
    assert_eq!(watched.told[&1], [(UnInit, true), (Alive, true)]);
}

#[test]
fn changing_targets_does_not_disturb_the_others() {
    let (door, other) = (Door::new(), Door::new());
    let mut watched = Watched::new(OPTIONS);
    let calm = "hc-test=http,hc-ping=no,hc-interval=3600,hc-warm-up=0,hc-timeout=20";
    let keep = target(1, calm, door.place);
    watched
        .engine
        .set(vec![keep.clone(), target(2, HTTP, other.place)]);
    watched.until("both are alive", |w| {
        w.state(1) == Some(Alive) && w.state(2) == Some(Alive)
    });
    assert_eq!(door.visits(), 1);
    let before = watched.server(1);

    // Another comes, one goes, and the names of all are said anew.
    let renamed = Target {
        rule: "other".to_string(),
        ..keep
    };
    watched
        .engine
        .set(vec![renamed, target(3, HTTP, other.place)]);
    watched.until("the new one is alive", |w| w.state(3) == Some(Alive));
    let after = watched.server(1);
    assert_eq!(after.rule, "other");
    let named = ServerHealth {
        rule: before.rule.clone(),
        next: before.next,
        ..after
    };
    assert_eq!(named, before);
    assert_eq!(door.visits(), 1, "it was tested again");
    assert_eq!(watched.report().servers.len(), 2);
    // The same by differences.
    let another = target(4, HTTP, other.place);
    watched
        .engine
        .update(vec![another], vec![Id { rule: 1, server: 3 }]);
    watched.until("the one that was added is alive", |w| {
        w.state(4) == Some(Alive)
    });
    let servers: Vec<String> = watched
        .report()
        .servers
        .into_iter()
        .map(|s| s.server)
        .collect();
    assert_eq!(servers, ["_g.1", "_g.4"]);
    assert_eq!(door.visits(), 1, "it was tested again");
    // The one that is gone is not tested any more, but for what was under way.
    std::thread::sleep(Duration::from_millis(50));
    watched.engine.set(Vec::new());
    assert!(watched.report().servers.is_empty());
    let statistics = watched.runtime.block_on(watched.engine.statistics());
    assert_eq!(statistics.targets, 0);
}

#[test]
fn another_check_keeps_the_state_and_disabling_ends_it() {
    let door = Door::new();
    let mut watched = Watched::new(OPTIONS);
    watched.engine.set(vec![target(1, HTTP, door.place)]);
    watched.until("it is alive", |w| w.state(1) == Some(Alive));

    let strict = target(1, &format!("{HTTP},hc-status=204"), door.place);
    watched.engine.set(vec![strict.clone()]);
    watched.until("it is dead by the new check", |w| w.state(1) == Some(Dead));
    let disabled = Target {
        enabled: false,
        ..strict.clone()
    };
    watched.engine.set(vec![disabled]);
    watched.until("it is disabled", |w| w.state(1) == Some(Disabled));
    let health = watched.server(1);
    assert_eq!(health.next, None);
    let last = health.transitions.last().unwrap();
    assert_eq!(
        (last.finding.code, &*last.finding.words),
        (Code::Administrator, "disabled")
    );
    let visits = door.visits();
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        door.visits() <= visits + 1,
        "it is tested though it is disabled"
    );

    watched.engine.set(vec![Target {
        enabled: true,
        ..target(1, HTTP, door.place)
    }]);
    watched.until("it is alive again", |w| w.state(1) == Some(Alive));
    let states: Vec<HealthState> = watched.told[&1].iter().map(|(state, _)| *state).collect();
    assert_eq!(states, [UnInit, Alive, Dead, Disabled, UnInit, Alive]);
}

#[test]
fn alpha_and_what_is_remembered_begin_down() {
    let door = Door::new();
    door.open.store(false, Ordering::Relaxed);
    let mut watched = Watched::new(OPTIONS);
    let alpha = target(1, &format!("{HTTP},hc-alpha=yes"), door.place);
    let remembered = Target {
        remembered: Some(Unreach),
        ..target(2, HTTP, door.place)
    };
    watched.engine.set(vec![alpha, remembered]);
    watched.until("both are told", |w| w.told.len() == 2);
    assert_eq!(watched.told[&1][0], (UnInit, false));
    assert_eq!(watched.told[&2][0], (Unreach, false));
    watched.until("both are dead", |w| {
        w.state(1) == Some(Dead) && w.state(2) == Some(Dead)
    });
    door.open.store(true, Ordering::Relaxed);
    watched.until("both are alive", |w| {
        w.state(1) == Some(Alive) && w.state(2) == Some(Alive)
    });
    assert!(
        watched
            .told
            .values()
            .flatten()
            .all(|(state, up)| *up == (*state == Alive))
    );
}

#[test]
fn sockets_and_scripts_are_bounded() {
    let at_once = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (at_once.clone(), most.clone());
    let place = serve("127.0.0.1", move |mut stream: TcpStream| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        common::request(&mut stream);
        std::thread::sleep(Duration::from_millis(20));
        now.fetch_sub(1, Ordering::SeqCst);
        let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\n\r\n");
    });
    let folder = std::env::temp_dir().join(format!("ilb-checks-bounded-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut watched = Watched::new(Options {
        max_sockets: 5,
        max_scripts: 2,
        seed: 1,
    });
    let http = "hc-test=http,hc-ping=no,hc-interval=3600,hc-warm-up=0,hc-timeout=60";
    // Each script marks that it runs, and counts who else does.
    let script = folder.join("script");
    let body = format!(
        "#!/bin/sh\ntouch {0}/run.$$\nls {0} | grep -c run >>{0}/counts\nsleep 0.1\nrm {0}/run.$$\necho 0\n",
        folder.display()
    );
    std::fs::write(&script, body).unwrap();
    let mut permissions = std::fs::metadata(&script).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&script, permissions).unwrap();
    let scripted = format!(
        "hc-test={},hc-ping=no,hc-interval=3600,hc-warm-up=0,hc-timeout=60",
        script.display()
    );
    let targets = (1..=60).map(|n| target(n, http, place));
    let scripts = (61..=70).map(|n| target(n, &scripted, place));
    watched.engine.set(targets.chain(scripts).collect());
    watched.until("all are alive", |w| {
        (1..=70).all(|n| w.state(n) == Some(Alive))
    });
    assert!(most.load(Ordering::SeqCst) <= 5, "{most:?} sockets at once");
    let counts = std::fs::read_to_string(folder.join("counts")).unwrap();
    assert_eq!(counts.lines().count(), 10);
    assert!(
        counts.lines().all(|n| n.parse::<u32>().unwrap() <= 2),
        "{counts}"
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_nobody_takes_is_not_heaped_up() {
    // given: a server that changes its mind with each answer
    let turn = AtomicUsize::new(0);
    let place = serve("127.0.0.1", move |mut stream: TcpStream| {
        common::request(&mut stream);
        let status = if turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            "200 OK"
        } else {
            "500 No"
        };
        let _ =
            std::io::Write::write_all(&mut stream, format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
    });
    let mut watched = Watched::new(OPTIONS);
    let moody = "hc-test=http,hc-ping=no,hc-interval=10ms,hc-timeout=20,hc-count=1";
    watched.engine.set(vec![target(1, moody, place)]);
    // when: it has changed more often than is kept, and nobody took a change
    until("80 tests", || {
        watched.runtime.block_on(watched.engine.statistics()).tests >= 80
    });
    // then: there is one change, with the latest transitions
    watched.collect(PATIENCE);
    assert_eq!(watched.changes.len(), 1);
    let transitions = &watched.changes[0].transitions;
    assert_eq!(transitions.len(), libilb::health::TRANSITIONS);
    assert!(
        transitions
            .windows(2)
            .all(|pair| pair[0].to == pair[1].from)
    );
    assert_eq!(transitions.last().unwrap().to, watched.changes[0].state);
    assert_eq!(watched.changes[0].id, Id { rule: 1, server: 1 });
}

#[test]
fn a_port_is_the_rules_the_checks_the_servers_or_the_usual_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let none = SocketAddr::new(place.ip(), 0);
    let number = |n: u16| Some(libilb::healthcheck::CheckPort::Number(n));
    for (text, rule, server, expected) in [
        ("hc-test=tcp", None, 8080, Some(8080)),
        ("hc-test=tcp,hc-port=81", None, 8080, Some(81)),
        ("hc-test=tcp,hc-port=81", number(82), 8080, Some(82)),
        ("hc-test=tcp,hc-port=any", None, 8080, Some(8080)),
        ("hc-test=smtp", None, 0, Some(25)),
        ("hc-test=tcp", None, 0, None),
        ("hc-test=ping", None, 8080, None),
    ] {
        let target = target(1, text, SocketAddr::new(none.ip(), server));
        let target = Target {
            port: rule,
            ..target
        };
        assert_eq!(target.fixed_port(), expected, "{text}");
    }
    // Any of several is another one each time: in the end the open one is found, and the closed one.
    let closed = nobody("127.0.0.1");
    let (first, last) = match place.port() < closed.port() {
        true => (place.port(), closed.port()),
        false => (closed.port(), place.port()),
    };
    let any = Target {
        ports: ilb_checks::Ports { first, last },
        ..target(1, "hc-test=tcp,hc-port=any", none)
    };
    assert_eq!(
        any.fixed_port(),
        if first == last { Some(first) } else { None }
    );
}
