//! Load-aware weights, with the real snmpd and agents of both kinds. Each test is in a network namespace of its own. Needs root.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use common::{serve, target};
use ilb_checks::load::snmp::{self, Past};
use ilb_checks::{Engine, Options};
use libilb::health::{ServerHealth, Weight};
use libilb::healthcheck::Figure;
use nix::sched::{CloneFlags, unshare};

const OPTIONS: Options = Options {
    max_sockets: 64,
    max_scripts: 4,
    seed: 1,
};

/// Where its share is told by.
const OBJECT: &str = "1.3.6.1.4.1.8072.9999.9999.1.0";

/// Runs a test in a new network namespace, with loopback and a pair of interfaces up.
fn apart(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
        for command in [
            "link set lo up",
            "link add va type veth peer name vb",
            "link set va up",
            "link set vb up",
        ] {
            let words: Vec<&str> = command.split(' ').collect();
            let done = Command::new("ip").args(words).status().unwrap();
            assert!(done.success(), "ip {command}");
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// An snmpd that says what it is told. It ends with the test.
struct Agent {
    child: Child,
    folder: PathBuf,
    place: SocketAddr,
}

impl Agent {
    fn start(address: &str, value: u32) -> Agent {
        let place: SocketAddr = address.parse().unwrap();
        let name = format!(
            "ilb-snmpd-{}-{}",
            std::process::id(),
            place.ip().to_string().replace(':', "_")
        );
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let listen = match place {
            SocketAddr::V4(_) => format!("udp:{place}"),
            SocketAddr::V6(_) => format!("udp6:{place}"),
        };
        let text = format!(
            "agentaddress {listen}\nrocommunity secret\nrocommunity6 secret\noverride {OBJECT} integer {value}\n"
        );
        fs::write(folder.join("snmpd.conf"), text).unwrap();
        let child = Command::new("snmpd")
            .args(["-f", "-Ln", "-C", "-c"])
            .arg(folder.join("snmpd.conf"))
            .env("SNMP_PERSISTENT_DIR", &folder)
            .env("HOME", &folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("snmpd: {error}"));
        Agent {
            child,
            folder,
            place,
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// An engine, and the shares that it told last.
struct Watched {
    runtime: tokio::runtime::Runtime,
    engine: Engine,
    shares: BTreeMap<u32, Option<Weight>>,
}

impl Watched {
    fn new(targets: Vec<ilb_checks::Target>) -> Watched {
        let engine = Engine::start(OPTIONS).unwrap();
        engine.set(targets);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Watched {
            runtime,
            engine,
            shares: BTreeMap::new(),
        }
    }

    #[track_caller]
    fn until(&mut self, then: &[(u32, u16)]) {
        let began = std::time::Instant::now();
        let expected: BTreeMap<u32, Option<Weight>> = then
            .iter()
            .map(|(server, share)| (*server, Some(Weight::Share(*share))))
            .collect();
        while self.shares != expected {
            assert!(
                began.elapsed() < common::PATIENCE,
                "waited in vain for {expected:?}; told: {:?}; {:#?}",
                self.shares,
                self.runtime.block_on(self.engine.report())
            );
            let changes = self.runtime.block_on(async {
                tokio::time::timeout(Duration::from_millis(100), self.engine.changes()).await
            });
            for changed in changes.into_iter().flatten() {
                self.shares.insert(changed.id.server, changed.weight);
            }
        }
    }

    fn server(&self, server: u32) -> ServerHealth {
        let report = self.runtime.block_on(self.engine.report());
        let id = format!("_g.{server}");
        report.servers.into_iter().find(|s| s.server == id).unwrap()
    }
}

/// A server that takes every connection.
fn open(address: &str) -> SocketAddr {
    serve(address, drop)
}

const OFTEN: &str = "hc-test=tcp,hc-ping=no,hc-interval=100ms,hc-timeout=20,hc-load-interval=100ms";

#[test]
fn shares_follow_what_snmp_agents_say_in_both_families() {
    apart(|| {
        let quiet = Agent::start("127.0.0.1:1161", 20);
        let busy = Agent::start("[::1]:1161", 80);
        let text = format!("{OFTEN},hc-load={OBJECT}/100,hc-load-port=1161,hc-community=secret");
        let (first, second) = (open("127.0.0.1"), open("::1"));
        assert_eq!(quiet.place.port(), busy.place.port());
        let mut watched = Watched::new(vec![target(1, &text, first), target(2, &text, second)]);
        // (0.2 + 0.2) / (0.8 + 0.2)
        watched.until(&[(1, 1000), (2, 400)]);
        let load = watched.server(2).load.unwrap();
        assert_eq!(
            (load.value.as_deref(), load.share, load.error),
            (Some("80 %"), Some(400), None)
        );
        // An agent that is gone says nothing about its server: that counts as the average of those that are known.
        drop(busy);
        watched.until(&[(1, 1000), (2, 1000)]);
        let load = watched.server(2).load.unwrap();
        assert_eq!(load.value, None);
        assert!(
            load.error.is_some_and(
                |error| error.contains("no agent answers") || error.contains("no answer")
            )
        );
        // Another community is not answered either.
        let wrong = format!("{OFTEN},hc-load={OBJECT}/100,hc-load-port=1161,hc-community=guessed");
        watched
            .engine
            .set(vec![target(1, &wrong, first), target(2, &wrong, second)]);
        common::until("the wrong community is seen", || {
            watched
                .server(1)
                .load
                .is_some_and(|load| load.error.is_some() && load.value.is_none())
        });
    });
}

#[test]
fn shares_follow_the_word_of_agents_and_end_with_the_load() {
    let percent = Arc::new(AtomicU8::new(50));
    let said = percent.clone();
    let agent = serve("127.0.0.2", move |mut stream| {
        let _ = writeln!(stream, "up {}%", said.load(Ordering::Relaxed));
    });
    let port = agent.port();
    // The other server has no agent at that port: unknown, like the average, here that of the one.
    let text = format!("{OFTEN},hc-load=agent,hc-load-port={port},hc-load-least=20");
    let door = Arc::new(AtomicBool::new(true));
    let opened = door.clone();
    let first = serve("127.0.0.2", move |mut stream| {
        common::request(&mut stream);
        let status = if opened.load(Ordering::Relaxed) {
            "200 OK"
        } else {
            "503 Closed"
        };
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    });
    let http = text.replace("hc-test=tcp", "hc-test=http,hc-count=1");
    let second = open("127.0.0.3");
    let mut watched = Watched::new(vec![target(1, &http, first), target(2, &text, second)]);
    watched.until(&[(1, 500), (2, 500)]);
    // It wants nothing: the bound.
    percent.store(0, Ordering::Relaxed);
    watched.until(&[(1, 200), (2, 200)]);
    percent.store(100, Ordering::Relaxed);
    watched.until(&[(1, 1000), (2, 1000)]);
    // Down: nobody is compared with it, and its load is not asked.
    percent.store(10, Ordering::Relaxed);
    watched.until(&[(1, 200), (2, 200)]);
    door.store(false, Ordering::Relaxed);
    common::until("it is down and not asked", || {
        watched.server(1).load.is_none()
    });
    // A check without load: configured weights again.
    let plain = "hc-test=tcp,hc-ping=no,hc-interval=100ms,hc-timeout=20";
    watched.engine.set(vec![target(2, plain, second)]);
    common::until("no share is left", || watched.server(2).weight.is_none());
}

#[test]
fn slow_servers_get_less_by_their_response_times() {
    let slow = Arc::new(AtomicBool::new(true));
    let is_slow = slow.clone();
    let answer = |wait: Arc<AtomicBool>| {
        serve("127.0.0.1", move |mut stream| {
            common::request(&mut stream);
            if wait.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(300));
            }
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        })
    };
    let text = "hc-test=http,hc-ping=no,hc-interval=100ms,hc-timeout=20,hc-load=response,hc-load-interval=100ms";
    let quick = answer(Arc::new(AtomicBool::new(false)));
    let watched = Watched::new(vec![
        target(1, text, quick),
        target(2, text, answer(is_slow)),
    ]);
    // However busy this machine is, 300 ms are more than what the other one takes.
    let share = |server| watched.server(server).load.and_then(|load| load.share);
    common::until("the slow one has less than half", || {
        share(2).is_some_and(|share| share < 500) && share(1) == Some(1000)
    });
    slow.store(false, Ordering::Relaxed);
    common::until("it has most of its share again", || {
        share(2).is_some_and(|share| share > 500)
    });
}

/// Reads a figure until it is there.
fn figure(agent: &Agent, figure: &Figure, past: &mut Past) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let began = std::time::Instant::now();
    loop {
        let asked = snmp::ask(agent.place, "secret", figure, past, 7);
        let asked =
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(2), asked).await });
        if let Ok(Ok(Some(value))) = asked {
            return value;
        }
        assert!(began.elapsed() < common::PATIENCE, "{figure:?}: {asked:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_real_agent_tells_of_processors_memory_and_interfaces() {
    apart(|| {
        let agent = Agent::start("127.0.0.1:1161", 0);
        let memory = figure(&agent, &Figure::Memory, &mut Past::None);
        assert!((0.0..1.0).contains(&memory), "{memory}");
        let network = figure(&agent, &Figure::Network, &mut Past::None);
        assert!((0.0..1.0).contains(&network), "{network}");
        // Everything that there is, busy.
        let enough = Arc::new(AtomicBool::new(false));
        let burners: Vec<_> = (0..std::thread::available_parallelism().unwrap().get())
            .map(|_| {
                let enough = enough.clone();
                std::thread::spawn(move || while !enough.load(Ordering::Relaxed) {})
            })
            .collect();
        let mut past = Past::None;
        // The first two readings may be of a time before.
        figure(&agent, &Figure::Cpu, &mut past);
        let busy = figure(&agent, &Figure::Cpu, &mut past);
        enough.store(true, Ordering::Relaxed);
        burners
            .into_iter()
            .for_each(|burner| burner.join().unwrap());
        assert!((0.5..=1.0).contains(&busy), "{busy}");
    });
}

#[test]
fn an_agent_that_sends_rubbish_costs_a_reading() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let place = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut question, mut turn) = ([0; 2048], 0);
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            turn += 1;
            let answer = match turn % 4 {
                0 => vec![0x30; 60_000],
                1 => vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
                // Its own question.
                2 => question[..length].to_vec(),
                _ => Vec::new(),
            };
            let _ = socket.send_to(&answer, from);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for figure in [Figure::Cpu, Figure::Memory, Figure::Network] {
        for turn in 0..8 {
            let asked = runtime.block_on(async {
                let mut past = Past::None;
                let asked = snmp::ask(place, "public", &figure, &mut past, turn);
                tokio::time::timeout(Duration::from_secs(5), asked).await
            });
            let error = asked.expect("an answer").expect_err("rubbish is no figure");
            assert!(error.contains("agent"), "{error}");
        }
    }
}
