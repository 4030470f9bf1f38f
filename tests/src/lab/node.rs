//! The balancer's programs: the fast path, the service manager, and `lbadm` to talk to them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::Spec;
use super::namespace::Namespace;
use super::process::{Daemon, tail};
use crate::clock::Clock;
use crate::shell::{self, Answer};

/// The programs of the node under test. All methods take `&self`, so that a test can disturb it from another thread.
#[derive(Debug)]
pub struct Node {
    namespace: Arc<Namespace>,
    directory: PathBuf,
    bus: String,
    lbadm: PathBuf,
    clock: OnceLock<Clock>,
    fastpath: Mutex<Option<Daemon>>,
    manager: Mutex<Option<Daemon>>,
}

/// The directory with the programs under test: `$ILB_BIN_DIR`, or `target/release` of this workspace.
pub fn programs() -> PathBuf {
    match std::env::var_os("ILB_BIN_DIR") {
        Some(directory) => directory.into(),
        None => {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let target = std::env::var_os("CARGO_TARGET_DIR")
                .map_or_else(|| workspace.join("target"), PathBuf::from);
            target.join("release")
        }
    }
}

fn program(name: &str) -> PathBuf {
    let path = programs().join(name);
    assert!(
        path.exists(),
        "{} is not there: run `make build` first, or set ILB_BIN_DIR",
        path.display()
    );
    path.canonicalize().unwrap_or(path)
}

impl Node {
    pub(crate) fn new(namespace: Arc<Namespace>, directory: &Path, spec: &Spec) -> Node {
        let mut text = String::new();
        let interfaces = if spec.one_armed {
            r#""eth0""#
        } else {
            r#""eth0", "eth1""#
        };
        write!(
            text,
            "[node]\nruntime-dir = \"{dir}/run\"\nstate-dir = \"{dir}/state\"\nbpf-dir = \"{dir}/bpf/ilb\"\n\n\
             [fastpath]\ninterfaces = [{interfaces}]\ntable-size = 262144\n",
            dir = directory.display()
        )
        .expect("writing to a string");
        std::fs::write(directory.join("ilb.toml"), text)
            .expect("cannot write into the lab's directory");
        Node {
            namespace,
            directory: directory.to_owned(),
            bus: super::bus::address(directory),
            lbadm: directory.join("bin/lbadm"),
            clock: OnceLock::new(),
            fastpath: Mutex::default(),
            manager: Mutex::default(),
        }
    }

    /// The settings file that both daemons read.
    pub fn settings(&self) -> PathBuf {
        self.directory.join("ilb.toml")
    }

    /// Address of the bus.
    pub fn bus(&self) -> &str {
        &self.bus
    }

    /// Gives the programs that are started from now on a clock of their own.
    #[track_caller]
    pub fn own_clock(&self) -> &Clock {
        self.clock.get_or_init(|| Clock::new(&self.directory))
    }

    /// Starts the fast path and the manager and waits until the node is ready for commands.
    #[track_caller]
    pub fn start(&self) {
        self.start_fastpath();
        self.start_manager();
        self.wait_ready();
    }

    /// Starts the fast path. Does not wait.
    #[track_caller]
    pub fn start_fastpath(&self) {
        let daemon = self.spawn("ilb-fastpath");
        let before = lock(&self.fastpath).replace(daemon);
        assert!(before.is_none(), "the fast path was started twice");
    }

    /// Starts the manager. Does not wait.
    #[track_caller]
    pub fn start_manager(&self) {
        let daemon = self.spawn("ilb-svcmgr");
        let before = lock(&self.manager).replace(daemon);
        assert!(before.is_none(), "the manager was started twice");
    }

    #[track_caller]
    fn spawn(&self, name: &str) -> Daemon {
        let mut command = self.namespace.command(program(name));
        command.arg("--config").arg(self.settings());
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus);
        command.envs(self.clock.get().into_iter().flat_map(Clock::environment));
        Daemon::spawn(name, command, &self.log(name))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// What `ilb-fastpath` has logged so far.
    pub fn fastpath_log(&self) -> String {
        tail(&self.log("ilb-fastpath"), usize::MAX)
    }

    /// What `ilb-svcmgr` has logged so far.
    pub fn manager_log(&self) -> String {
        tail(&self.log("ilb-svcmgr"), usize::MAX)
    }

    /// Process id of the running fast path.
    #[track_caller]
    pub fn fastpath_pid(&self) -> u32 {
        lock(&self.fastpath)
            .as_ref()
            .expect("the fast path is not running")
            .pid()
    }

    /// Process id of the running manager.
    #[track_caller]
    pub fn manager_pid(&self) -> u32 {
        lock(&self.manager)
            .as_ref()
            .expect("the manager is not running")
            .pid()
    }

    /// Panics with the log if one of the daemons that were started has ended by itself.
    #[track_caller]
    pub fn assert_alive(&self) {
        for (name, slot) in [
            ("ilb-fastpath", &self.fastpath),
            ("ilb-svcmgr", &self.manager),
        ] {
            if let Some(daemon) = lock(slot).as_mut()
                && let Some(status) = daemon.ended()
            {
                panic!(
                    "{name} ended by itself: {status}; its log:\n{}",
                    tail(daemon.log(), 40)
                );
            }
        }
    }

    /// kill -9 for the fast path.
    #[track_caller]
    pub fn kill_fastpath(&self) {
        lock(&self.fastpath)
            .take()
            .expect("the fast path is not running")
            .kill();
    }

    /// kill -9 for the manager.
    #[track_caller]
    pub fn kill_manager(&self) {
        lock(&self.manager)
            .take()
            .expect("the manager is not running")
            .kill();
    }

    /// Stops both as an administrator would (SIGTERM); both must end by themselves, with success.
    #[track_caller]
    pub fn stop(&self) {
        for (name, slot) in [
            ("ilb-svcmgr", &self.manager),
            ("ilb-fastpath", &self.fastpath),
        ] {
            if let Some(mut daemon) = lock(slot).take() {
                let status = daemon.terminate();
                assert!(
                    status.success(),
                    "given a running {name}, when it gets SIGTERM, then it ends with success, not {status}; its log:\n{}",
                    tail(daemon.log(), 40)
                );
            }
        }
    }

    /// Waits until the manager answers and has brought the fast path up to date. Returns how long it took.
    #[track_caller]
    pub fn wait_ready(&self) -> Duration {
        let start = Instant::now();
        let mut last = None;
        let ready = shell::wait_for(Duration::from_secs(20), || {
            self.assert_alive();
            let answer = self.property("Fastpath");
            let ready = answer.code == 0 && answer.stdout.contains("\"connected\"");
            last = Some(answer);
            ready.then_some(())
        });
        if ready.is_none() {
            panic!(
                "the node did not become ready in 20 s (property Fastpath must be \"connected\"); last answer:\n{}\n\
                 log of ilb-svcmgr:\n{}\nlog of ilb-fastpath:\n{}",
                last.expect("asked at least once"),
                tail(&self.log("ilb-svcmgr"), 40),
                tail(&self.log("ilb-fastpath"), 40),
            );
        }
        start.elapsed()
    }

    /// Asks for a property of the manager's interface with plain dbus-send.
    #[track_caller]
    pub fn property(&self, name: &str) -> Answer {
        let mut command = Command::new("dbus-send");
        command
            .arg(format!("--bus={}", self.bus))
            .args([
                "--print-reply=literal",
                "--reply-timeout=5000",
                "--dest=org.ilb.Ilb1",
                "/org/ilb/Ilb1",
            ])
            .arg("org.freedesktop.DBus.Properties.Get")
            .args(["string:org.ilb.Ilb1.Manager", &format!("string:{name}")]);
        let mut answer = shell::run(command);
        // The literal form prints strings bare; give them quotes again.
        let bare = answer.stdout.replace("variant", "").trim().to_owned();
        answer.stdout = format!("\"{bare}\"");
        answer
    }

    /// Calls a method of the manager's interface with plain dbus-send; arguments as it takes them (`string:x`).
    #[track_caller]
    pub fn call(&self, method: &str, arguments: &[&str]) -> Answer {
        let mut command = Command::new("dbus-send");
        command
            .arg(format!("--bus={}", self.bus))
            .args([
                "--print-reply",
                "--reply-timeout=5000",
                "--dest=org.ilb.Ilb1",
                "/org/ilb/Ilb1",
            ])
            .arg(format!("org.ilb.Ilb1.Manager.{method}"))
            .args(arguments);
        shell::run(command)
    }

    /// `lbadm` with these arguments, as root.
    #[track_caller]
    pub fn try_lbadm(&self, arguments: &[&str]) -> Answer {
        let mut command = self.lbadm_command();
        command.args(arguments);
        shell::run(command)
    }

    /// `lbadm` with one line of words; it must succeed. Returns what it printed.
    #[track_caller]
    pub fn lbadm(&self, line: &str) -> String {
        self.try_lbadm(&line.split_whitespace().collect::<Vec<_>>())
            .ok()
    }

    /// The command `lbadm` itself. The program is copied to where everybody may run it.
    pub fn lbadm_command(&self) -> Command {
        if !self.lbadm.exists() {
            std::fs::copy(program("lbadm"), &self.lbadm).expect("cannot copy lbadm");
        }
        let mut command = self.namespace.command(&self.lbadm);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus);
        command
    }

    /// `lbadm` with one line of words as the user nobody.
    #[track_caller]
    pub fn lbadm_as_nobody(&self, line: &str) -> Answer {
        use std::os::unix::process::CommandExt;
        // Entering a namespace takes root; D-Bus is a Unix socket and needs none.
        self.lbadm_command();
        let mut command = Command::new(&self.lbadm);
        command.args(line.split_whitespace());
        command
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus)
            .uid(65534)
            .gid(65534);
        shell::run(command)
    }

    pub(crate) fn kill_all(&self) {
        lock(&self.manager).take();
        lock(&self.fastpath).take();
    }

    pub(crate) fn forget(&self) {
        lock(&self.manager)
            .take()
            .into_iter()
            .for_each(std::mem::forget);
        lock(&self.fastpath)
            .take()
            .into_iter()
            .for_each(std::mem::forget);
    }
}

fn lock(slot: &Mutex<Option<Daemon>>) -> std::sync::MutexGuard<'_, Option<Daemon>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
