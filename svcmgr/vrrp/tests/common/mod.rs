//! Network namespaces without names, each a thread: they are gone with it, whatever happens.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ilb_vrrp::{Driver, Order, Report};
use libilb::vrrp::{VrrpInstance, VrrpSettings, VrrpState};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, geteuid, gettid};

type Work = Box<dyn FnOnce() + Send>;

/// How long a loaded machine may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A network namespace.
pub struct Net {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    id: Pid,
}

impl Net {
    #[track_caller]
    pub fn new() -> Net {
        assert!(
            geteuid().is_root(),
            "network namespaces need root (nothing is ever skipped)"
        );
        let (work, jobs) = channel::<Work>();
        let (sender, id) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            sender.send(gettid()).unwrap();
            jobs.into_iter().for_each(|job| job());
        });
        let net = Net {
            work: Some(work),
            thread: Some(thread),
            id: id.recv().unwrap(),
        };
        net.ip(&["link set lo up"]);
        net
    }

    /// Does something in it.
    pub fn enter<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        let (sender, result) = channel();
        let job: Work = Box::new(move || drop(sender.send(work())));
        self.work.as_ref().unwrap().send(job).unwrap();
        result.recv().expect("the work in a namespace has panicked")
    }

    pub fn ip(&self, lines: &[&str]) -> String {
        let lines: Vec<String> = lines.iter().map(|line| format!("ip {line}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        self.run(&lines)
    }

    /// Runs commands, each of words with a space between.
    pub fn run(&self, lines: &[&str]) -> String {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        self.enter(move || {
            let mut all = String::new();
            for line in lines {
                let mut words = line.split(' ');
                let mut command = Command::new(words.next().unwrap_or_default());
                let output = command.args(words).output().unwrap();
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{line}: {error}");
                all.push_str(&String::from_utf8_lossy(&output.stdout));
            }
            all
        })
    }

    /// Whether an address is on an interface here.
    pub fn has(&self, address: &str) -> bool {
        self.ip(&["-o addr show"]).contains(&format!(" {address}/"))
    }

    pub fn driver(&self) -> Driver {
        self.enter(|| Driver::start().unwrap())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("a namespace's thread has panicked");
        }
    }
}

/// Two nodes on one wire, `eth0` of each: 192.0.2.1 and .2, 2001:db8::1 and ::2, fe80::1 and ::2.
pub fn two_nodes() -> (Net, Net) {
    let (a, b) = (Net::new(), Net::new());
    a.ip(&[&format!(
        "link add eth0 type veth peer name eth0 netns {}",
        b.id
    )]);
    for (node, number) in [(&a, 1), (&b, 2)] {
        node.ip(&[
            "link set eth0 addrgenmode none",
            "link set eth0 up",
            &format!("addr add 192.0.2.{number}/24 dev eth0"),
            &format!("addr add 2001:db8::{number}/64 dev eth0 nodad"),
            &format!("addr add fe80::{number}/64 dev eth0 nodad"),
        ]);
    }
    (a, b)
}

pub fn instance(name: &str, text: &str) -> VrrpInstance {
    let mut settings = VrrpSettings::default();
    settings.parse(text).unwrap();
    settings.check(name).unwrap()
}

pub fn configure(driver: &Driver, instances: &[(&str, &str)]) {
    let instances = instances
        .iter()
        .map(|(name, text)| instance(name, text).into());
    driver.order(Order::Configure(instances.collect()));
}

/// The only instance of a node.
pub async fn one(driver: &Driver) -> Report {
    let mut all = driver.report().await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[track_caller]
pub fn wait<F: Future<Output = Option<String>>>(
    what: &str,
    mut not_yet: impl FnMut() -> F,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        let began = Instant::now();
        while let Some(why) = not_yet().await {
            assert!(began.elapsed() < PATIENCE, "{caller}: then {what}: {why}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Waits until the instances of a node all stand so.
#[track_caller]
pub fn stands(driver: &Driver, what: &str, state: VrrpState) -> impl Future<Output = ()> {
    wait(what, move || async move {
        let all = driver.report().await;
        let well = !all.is_empty() && all.iter().all(|it| it.status.state == state);
        (!well).then(|| format!("{all:?}"))
    })
}
