//! Writes that fail. Every call by which the manager changes a file of its state, in a life with two changes, is made to fail:
//! it alone, all from it on, or half way through; and while a doubtful database is replaced, once more. What was acknowledged is
//! there after a restart, what was refused was refused as degraded, nothing is half there, and forwarding goes on. And a disk
//! that is full, or read-only: for this a small file system of the test's own.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Bus, Folder, Node, PATIENCE, Process, need_root, rule, wait_for};
use libilb::ErrorKind;
use libilb::client::{Client, ClientError};
use libilb::describe::{Description, Fastpath, State};

/// Managers at a time: they mostly wait.
const LANES: usize = 8;
/// Longer than the manager waits before it tries again to get a store, because somebody wants to change something.
const SOON: Duration = Duration::from_millis(1100);

/// Two servers that are always added together.
fn pair(number: u32) -> [String; 2] {
    let [_, a, b, c] = number.to_be_bytes();
    [format!("10.{a}.{b}.{c}"), format!("11.{a}.{b}.{c}")]
}

/// Which pairs a node has; panics if one is half there.
fn pairs(node: &Description, place: &str) -> BTreeSet<u32> {
    let group = node.group("web").expect("the group is there");
    let there: BTreeSet<String> = group
        .servers
        .iter()
        .map(|server| server.server.address.to_string())
        .collect();
    let found = (1..100).filter(|number| {
        let [one, two] = pair(*number).map(|address| there.contains(&address));
        assert_eq!(one, two, "{place}: half a change");
        one
    });
    let found: BTreeSet<u32> = found.collect();
    assert_eq!(
        there.len(),
        2 * found.len(),
        "{place}: something else is there"
    );
    found
}

async fn add(client: &Client, number: u32) -> Result<(), ClientError> {
    let [one, two] = pair(number);
    client.add_servers("web", &[&one, &two]).await.map(drop)
}

/// Which calls fail, and how.
#[derive(Debug, Clone)]
struct Fault {
    /// In the words of `fail.c`.
    calls: String,
    error: &'static str,
    /// Whether the second change waits until the manager tries to get a store again.
    patient: bool,
}

impl Fault {
    fn none() -> Fault {
        Fault {
            calls: String::new(),
            error: "",
            patient: false,
        }
    }
}

/// Numbers of errors (`errno.h`).
const EIO: &str = "5";
const ENOSPC: &str = "28";

/// A manager whose calls can be made to fail.
struct Saboteur {
    _folder: Folder,
    preload: PathBuf,
    /// What each run begins with: a rule, and a group with one pair.
    template: Node,
}

impl Saboteur {
    async fn new() -> Saboteur {
        let folder = Folder::new();
        let library = folder.path().join("fail.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/fail.c");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([library.as_path(), Path::new(source)])
            .status();
        assert!(status.expect("cc can be run").success());
        let (bus, template) = (Bus::start(), Node::new());
        let (mut manager, client) = template.start_sim(&bus).await;
        client.create_group("far", &["192.0.2.1"]).await.unwrap();
        let shop = rule("198.51.100.1", "far");
        client.create_rule("shop", &shop).await.unwrap();
        client.create_group("web", &[]).await.unwrap();
        add(&client, 1).await.unwrap();
        manager.signal("TERM");
        assert!(manager.wait().success());
        Saboteur {
            _folder: folder,
            preload: library,
            template,
        }
    }

    fn start(&self, bus: &Bus, node: &Node, fault: &Fault) -> Process {
        let from = self.template.path("state");
        let status = Command::new("cp")
            .arg("-a")
            .args([&from, &node.path("state")])
            .status();
        assert!(status.expect("cp can be run").success());
        let words = fs::File::create(node.path("words")).unwrap();
        Process::start(
            node.command(bus)
                .arg("--sim")
                .env("LD_PRELOAD", &self.preload)
                .env("ILB_FAIL_BELOW", node.path("state"))
                .env("ILB_FAIL_LOG", node.path("calls"))
                .env("ILB_FAIL_CALLS", &fault.calls)
                .env("ILB_FAIL_ERROR", fault.error)
                .stderr(words),
        )
    }
}

/// What became of a run.
#[derive(Default)]
struct Outcome {
    /// Calls until it answered, or ended.
    start: usize,
    /// Names of all calls.
    calls: Vec<String>,
    /// Names of those that failed.
    failed: Vec<String>,
    /// Changes that were refused.
    refused: usize,
    /// Whether a change was done after one had been refused.
    recovered: bool,
}

fn calls(node: &Node) -> Vec<String> {
    let log = fs::read_to_string(node.path("calls")).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

/// One life: a start, two changes, an end in order. And what another manager then finds.
async fn live(bus: &Bus, saboteur: &Saboteur, fault: &Fault) -> Outcome {
    let node = Node::new();
    let mut manager = saboteur.start(bus, &node, fault);
    let place = format!("{fault:?}");
    let client = Client::on(&bus.connection().await).await.unwrap();
    let mut outcome = Outcome::default();
    let mut acknowledged = BTreeSet::from([1]);
    let mut refused = BTreeSet::new();
    let answers = answers(&client, &mut manager, &place).await;
    outcome.start = calls(&node).len();
    let mut generation = 0;
    if answers {
        for number in [2, 3] {
            if number == 3 && fault.patient {
                tokio::time::sleep(SOON).await;
            }
            match add(&client, number).await {
                Ok(()) => {
                    outcome.recovered |= !refused.is_empty();
                    acknowledged.insert(number);
                }
                Err(ClientError::Refused { kind, message }) => {
                    assert_eq!(kind, ErrorKind::Degraded, "{place}: {message}");
                    refused.insert(number);
                    let seen = client.describe().await.unwrap();
                    assert_eq!(seen.state, State::Degraded, "{place}");
                    assert_ne!(seen.state_reason, "", "{place}");
                }
                Err(other) => panic!("{place}: {other}"),
            }
            let seen = client.describe().await.unwrap();
            assert_eq!(pairs(&seen, &place), acknowledged, "{place}");
            assert!(seen.rule("shop").unwrap().rule.enabled, "{place}");
            assert_eq!(seen.fastpath, Fastpath::Connected, "{place}");
            generation = seen.generation;
        }
        manager.signal("TERM");
        assert!(manager.wait().success(), "{place}: it ends in order");
    }
    let words = fs::read_to_string(node.path("words")).unwrap();
    // The database library panics where others give an error; that is caught.
    let ours = |line: &&str| line.contains("panicked") && !line.contains("/sled-");
    assert_eq!(words.lines().find(ours), None, "{place}: {words}");
    let calls = calls(&node);
    let name = |call: &String| Some(call.split_once(' ')?.0.to_owned());
    outcome.calls = calls.iter().filter_map(name).collect();
    let failed = calls.iter().filter_map(|call| {
        let (name, _) = call.strip_suffix(" failed")?.split_once(' ')?;
        Some(name.to_owned())
    });
    outcome.failed = failed.collect();
    outcome.refused = refused.len();
    let place = format!("{place}, {calls:#?}\n{words}");
    if !answers {
        assert!(words.contains("ERROR"), "{place}: it says why it ends");
    }

    let (mut manager, client) = node.start_sim(bus).await;
    let found = client.describe().await.unwrap();
    assert_eq!(found.state, State::Ok, "{place}: {}", found.state_reason);
    let there = pairs(&found, &place);
    assert!(
        there.is_superset(&acknowledged),
        "{place}: {there:?}, but {acknowledged:?} was acknowledged"
    );
    assert!(
        there.difference(&acknowledged).all(|n| refused.contains(n)),
        "{place}: {there:?}, but {acknowledged:?} and {refused:?} were asked for"
    );
    assert!(found.rule("shop").unwrap().rule.enabled, "{place}");
    assert!(found.generation >= generation, "{place}");
    add(&client, 9).await.unwrap();
    manager.kill();
    outcome
}

/// Waits until the manager answers; false if it ends before.
async fn answers(client: &Client, process: &mut Process, place: &str) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if client.describe().await.is_ok() {
            return true;
        }
        if process.ended() {
            return false;
        }
        assert!(
            Instant::now() < deadline,
            "{place}: neither an answer nor an end"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lives all of these lives, several at a time, each lane on a bus of its own.
fn live_all(saboteur: &Arc<Saboteur>, faults: Vec<Fault>) -> Vec<Outcome> {
    let next = Arc::new(AtomicUsize::new(0));
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let faults = Arc::new(faults);
    let lanes: Vec<_> = (0..LANES)
        .map(|_| {
            let (saboteur, next) = (saboteur.clone(), next.clone());
            let (faults, outcomes) = (faults.clone(), outcomes.clone());
            std::thread::spawn(move || {
                let bus = Bus::start();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = runtime.block_on(live(&bus, &saboteur, fault));
                    outcomes.lock().unwrap().push(outcome);
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.join().expect("no life fails");
    }
    Arc::into_inner(outcomes).unwrap().into_inner().unwrap()
}

#[test]
fn each_write_and_sync_may_fail_and_nothing_is_lost_or_half_done() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (saboteur, whole, doubtful) = runtime.block_on(async {
        let (bus, saboteur) = (Bus::start(), Saboteur::new().await);
        let whole = live(&bus, &saboteur, &Fault::none()).await;
        assert_eq!((whole.refused, whole.failed.len()), (0, 0));
        // Of the first change the first call fails, so that the second one finds a doubtful database.
        let doubtful = Fault {
            calls: (whole.start + 1).to_string(),
            error: EIO,
            patient: true,
        };
        let outcome = live(&bus, &saboteur, &doubtful).await;
        assert!(outcome.recovered, "the second change gets a new database");
        (Arc::new(saboteur), whole, outcome)
    });
    let fault = |calls: String, error| Fault {
        calls,
        error,
        patient: false,
    };
    let mut faults: Vec<Fault> = Vec::new();
    for (at, name) in (1..).zip(&whole.calls) {
        faults.push(fault(at.to_string(), EIO));
        faults.push(fault(format!("{at}+"), ENOSPC));
        if name.ends_with("write") {
            faults.push(fault(at.to_string(), "torn"));
        }
    }
    let first = whole.start + 1;
    faults.extend((first + 1..=doubtful.calls.len()).map(|at| Fault {
        calls: format!("{first},{at}"),
        error: ENOSPC,
        patient: true,
    }));
    let lives = faults.len();
    let began = Instant::now();
    let outcomes = live_all(&saboteur, faults);
    let refused: usize = outcomes.iter().map(|outcome| outcome.refused).sum();
    let recovered = outcomes.iter().filter(|outcome| outcome.recovered).count();
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for name in outcomes.iter().flat_map(|outcome| &outcome.failed) {
        *names.entry(name).or_default() += 1;
    }
    println!(
        "{lives} lives of {} calls in {:?}: {refused} changes refused, {recovered} times recovered; failed: {names:?}",
        whole.calls.len(),
        began.elapsed()
    );
    for name in [
        "open",
        "write",
        "pwrite",
        "sync_file_range",
        "fdatasync",
        "fsync",
        "rename",
    ] {
        assert!(names.contains_key(name), "no {name} failed");
    }
    assert!(refused > 20 && recovered > 3);
}

/// A file system in memory with little room, for the state of a node.
struct Small {
    path: PathBuf,
}

impl Small {
    fn mount(node: &Node) -> Small {
        let path = node.path("state");
        fs::create_dir_all(&path).unwrap();
        let small = Small { path };
        small.mount_with(&["-t", "tmpfs", "-o", "size=8m", "tmpfs"]);
        small
    }

    fn mount_with(&self, arguments: &[&str]) {
        let status = Command::new("mount")
            .args(arguments)
            .arg(&self.path)
            .status();
        assert!(status.expect("mount can be run").success());
    }

    fn remount(&self, how: &str) {
        self.mount_with(&["-o", &format!("remount,{how}")]);
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let file = fs::File::create(self.path.join("filler")).unwrap();
        let mut file = std::io::BufWriter::with_capacity(4096, file);
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        // What is left in the buffer has no room either.
        let (_, _) = file.into_parts();
    }

    fn free(&self) {
        fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let status = Command::new("umount")
            .arg("--lazy")
            .arg(&self.path)
            .status();
        assert!(status.expect("umount can be run").success());
    }
}

/// Adds pairs until one is refused, and says how many were taken and why no more.
async fn add_until_refused(client: &Client, first: u32) -> (u32, String) {
    for number in first..first + 50_000 {
        match add(client, number).await {
            Ok(()) => {}
            Err(ClientError::Refused {
                kind: ErrorKind::Degraded,
                message,
            }) => return (number, message),
            Err(other) => panic!("an unexpected answer: {other}"),
        }
    }
    panic!("a full disk takes everything");
}

/// `lbadm status`: its exit code, and what it says.
fn status(bus: &Bus) -> (Option<i32>, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_ilb-svcmgr")).with_file_name("lbadm");
    let output = Command::new(&program)
        .arg("status")
        .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
        .output();
    let output = output.unwrap_or_else(|error| {
        let program = program.display();
        panic!("{program}: {error} (cargo build --workspace --bins)")
    });
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), said)
}

fn count(node: &Description) -> usize {
    node.group("web").unwrap().servers.len()
}

#[tokio::test]
async fn a_full_disk_is_degraded_and_well_again_when_there_is_room() {
    need_root();
    let (bus, node) = (Bus::start(), Node::new());
    let small = Small::mount(&node);
    let (mut manager, client) = node.start_sim(&bus).await;
    client.create_group("web", &[]).await.unwrap();
    add(&client, 1).await.unwrap();
    small.fill();
    let (refused, message) = add_until_refused(&client, 2).await;
    assert!(message.contains("no storage space"), "{message}");
    let description = client.describe().await.unwrap();
    assert_eq!(description.state, State::Degraded);
    assert_eq!(
        count(&description),
        2 * (refused as usize - 1),
        "what was acknowledged"
    );
    let (code, said) = status(&bus);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("no storage space"), "{said}");

    small.free();
    let well = wait_for(&client, "it is well again", |node| node.state == State::Ok).await;
    assert_eq!(well.state_reason, "");
    add(&client, refused + 1).await.unwrap();
    manager.kill();
    let (mut manager, client) = node.start_sim(&bus).await;
    let description = client.describe().await.unwrap();
    assert_eq!(
        count(&description),
        2 * refused as usize,
        "nothing refused, nothing lost"
    );
    assert_eq!(description.state_reason, "");

    // And a start on a full disk.
    manager.kill();
    small.fill();
    let (mut manager, client) = node.start_sim(&bus).await;
    let description = client.describe().await.unwrap();
    assert_eq!(count(&description), 2 * refused as usize, "it can be read");
    if description.state == State::Degraded {
        assert!(
            description.state_reason.contains("no storage space"),
            "{}",
            description.state_reason
        );
    }
    small.free();
    wait_for(&client, "it is well again", |node| node.state == State::Ok).await;
    add(&client, refused + 2).await.unwrap();
    manager.kill();
}

#[tokio::test]
async fn a_read_only_disk_can_be_read_and_is_well_again_when_it_can_be_written() {
    need_root();
    let (bus, node) = (Bus::start(), Node::new());
    let small = Small::mount(&node);
    let (mut manager, client) = node.start_sim(&bus).await;
    client.create_group("web", &[]).await.unwrap();
    add(&client, 1).await.unwrap();
    client
        .create_rule("shop", &rule("198.51.100.1", "web"))
        .await
        .unwrap();
    manager.signal("TERM");
    assert!(manager.wait().success());

    small.remount("ro");
    let (mut manager, client) = node.start_sim(&bus).await;
    let description = client.describe().await.unwrap();
    assert_eq!(description.state, State::Degraded);
    assert!(
        description.state_reason.contains("ead-only"),
        "{}",
        description.state_reason
    );
    assert_eq!(count(&description), 2);
    // Forwarding goes by it all the same.
    assert_eq!(description.fastpath_generation, description.generation);
    match add(&client, 2).await {
        Err(ClientError::Refused { kind, .. }) => assert_eq!(kind, ErrorKind::Degraded),
        other => panic!("a refusal was expected: {other:?}"),
    }
    let second = node.command(&bus).arg("--sim").output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success(), "{error}");
    assert!(error.contains("in use by another ilb-svcmgr"), "{error}");
    let (code, said) = status(&bus);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("ead-only"), "{said}");

    small.remount("rw");
    wait_for(&client, "it is well again", |node| node.state == State::Ok).await;
    add(&client, 2).await.unwrap();
    manager.kill();
    let (_manager, client) = node.start_sim(&bus).await;
    let description = client.describe().await.unwrap();
    assert_eq!((count(&description), description.state), (4, State::Ok));
}
