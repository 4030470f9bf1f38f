//! What the tests of the whole program share: a private bus, the program, a fast path that only talks. Everything ends and
//! is deleted with its value, also when a test fails.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod random;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ilb_forwarder::listing;
use ilb_forwarder::spec::SnapshotSpec;
use ilb_node::control::{
    Counters, Drift, Hello, PROTOCOL_VERSION, PeerStatus, Request, Response, RuleStatistics,
    ServerStatistics, Statistics, Status, read_frame, write_frame,
};
use libilb::client::Client;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A folder of its own for each test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("ilb-svcmgr-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary folder can be written");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the test's folder can be deleted");
    }
}

/// A process that is killed with its value.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Process {
        let child = command.stdin(Stdio::null()).spawn();
        Process(child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        let status = self.0.try_wait();
        status.expect("the process can be waited for").is_some()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.0.kill().expect("the process can be killed");
        self.0.wait().expect("the process can be waited for");
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.expect("kill can be run").success());
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().expect("the process can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The uid of nobody, and its other name in messages.
pub const NOBODY: u32 = 65534;

/// A command that runs as this user, without any privilege.
pub fn as_user(uid: u32, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            &format!("--reuid={uid}"),
            &format!("--regid={uid}"),
            "--clear-groups",
            "--inh-caps=-all",
        ])
        .arg(program);
    command
}

/// A bus with the rules of a system bus, our policy file, and polkit's if it is installed.
pub struct Bus {
    folder: Folder,
    _daemon: Process,
}

impl Bus {
    pub fn start() -> Bus {
        Bus::with("")
    }

    /// With these lines in its configuration.
    pub fn with(lines: &str) -> Bus {
        let folder = Folder::new();
        let socket = folder.path().join("bus");
        let policy =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/dbus/org.ilb.Ilb1.conf");
        let uid = fs::metadata("/proc/self").expect("/proc is there").uid();
        let config = folder.path().join("bus.conf");
        let text = format!(
            r#"<busconfig>
  <listen>unix:path={}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <policy user="{uid}"><allow own="org.ilb.Ilb1"/></policy>
  <include>{}</include>
  <include ignore_missing="yes">/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>
  {lines}
</busconfig>"#,
            socket.display(),
            policy.display()
        );
        fs::write(&config, text).expect("the bus configuration can be written");
        let daemon = Process::start(
            Command::new("dbus-daemon")
                .arg(format!("--config-file={}", config.display()))
                .args(["--nofork", "--nopidfile"])
                .stderr(Stdio::null()),
        );
        wait_until("the bus listens", || UnixStream::connect(&socket).is_ok());
        Bus {
            folder,
            _daemon: daemon,
        }
    }

    pub fn address(&self) -> String {
        format!("unix:path={}", self.folder.path().join("bus").display())
    }

    /// A connection of the test's own.
    pub async fn connection(&self) -> zbus::Connection {
        zbus::connection::Builder::address(self.address().as_str())
            .build()
            .await
            .expect("the private bus can be reached")
    }

    /// The real `busctl`.
    pub fn busctl(&self, arguments: &[&str]) -> Output {
        Command::new("busctl")
            .arg(format!("--address={}", self.address()))
            .args(arguments)
            .output()
            .expect("busctl can be run")
    }
}

/// The real polkitd on a private bus. It sees our actions and these rules in place of the machine's, by mounts of its own.
pub struct Polkit {
    _folder: Folder,
    _daemon: Process,
}

impl Polkit {
    pub fn start(bus: &Bus, rules: &str) -> Polkit {
        let folder = Folder::new();
        let (actions, rules_folder) = (folder.path().join("actions"), folder.path().join("rules"));
        for folder in [&actions, &rules_folder] {
            fs::create_dir(folder).expect("the test's folder can be written");
        }
        let policy =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/polkit/org.ilb.Ilb1.policy");
        fs::copy(&policy, actions.join("org.ilb.Ilb1.policy")).expect("the policy can be copied");
        fs::write(rules_folder.join("10-test.rules"), rules).expect("the rules can be written");
        let script = "mount --bind \"$1\" /usr/share/polkit-1/actions && \
                      mount --bind \"$2\" /etc/polkit-1/rules.d && \
                      exec /usr/lib/polkit-1/polkitd --no-debug";
        let daemon = Process::start(
            Command::new("unshare")
                .args(["--mount", "sh", "-c", script, "polkitd"])
                .args([&actions, &rules_folder])
                .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        wait_until("polkit is on the bus", || {
            let name = "org.freedesktop.PolicyKit1";
            bus.busctl(&["--auto-start=no", "status", name])
                .status
                .success()
        });
        Polkit {
            _folder: folder,
            _daemon: daemon,
        }
    }
}

/// Where a node's settings and state are.
pub struct Node {
    folder: Folder,
}

impl Node {
    pub fn new() -> Node {
        let node = Node {
            folder: Folder::new(),
        };
        fs::create_dir_all(node.path("run")).expect("the runtime folder can be created");
        node.configure("");
        node
    }

    /// Writes the settings, with these lines at the end.
    pub fn configure(&self, more: &str) {
        let folder = self.folder.path().display();
        let text = format!(
            "[node]\nruntime-dir = \"{folder}/run\"\nstate-dir = \"{folder}/state\"\n\
             [fastpath]\ninterfaces = [\"eth0\"]\n{more}\n"
        );
        fs::write(self.path("ilb.toml"), text).expect("the settings can be written");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command that starts the manager.
    pub fn command(&self, bus: &Bus) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ilb-svcmgr"));
        self.complete(&mut command, bus);
        command
    }

    /// The same within a network namespace.
    pub fn command_in(&self, bus: &Bus, namespace: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", namespace])
            .arg(env!("CARGO_BIN_EXE_ilb-svcmgr"));
        self.complete(&mut command, bus);
        command
    }

    fn complete(&self, command: &mut Command, bus: &Bus) {
        command
            .arg("--config")
            .arg(self.path("ilb.toml"))
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
            .env("ILB_LOG", "warn");
    }

    /// Starts the manager with `--sim` and waits until it answers.
    pub async fn start_sim(&self, bus: &Bus) -> (Process, Client) {
        let process = Process::start(self.command(bus).arg("--sim"));
        let client = answering(bus).await;
        (process, client)
    }
}

/// A client, once the manager answers.
pub async fn answering(bus: &Bus) -> Client {
    let client = Client::on(&bus.connection().await)
        .await
        .expect("a proxy needs no manager");
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.describe().await {
            Ok(_) => return client,
            Err(error) => assert!(Instant::now() < deadline, "no answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until something is so.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until something is so, while what the test itself serves goes on.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a description is so, and returns it.
pub async fn wait_for(
    client: &Client,
    what: &str,
    condition: impl Fn(&libilb::describe::Description) -> bool,
) -> libilb::describe::Description {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let description = client.describe().await.expect("the manager answers");
        if condition(&description) {
            return description;
        }
        assert!(
            Instant::now() < deadline,
            "in vain: {what}: {description:#?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Settings of a rule as the tests need them.
pub fn rule(vip: &str, group: &str) -> libilb::model::RuleSettings {
    libilb::model::RuleSettings {
        enabled: true,
        vip: vip.into(),
        port: "80".into(),
        algorithm: "rr".into(),
        topology: "HALF-NAT".into(),
        servergroup: group.into(),
        ..libilb::model::RuleSettings::default()
    }
}

/// A fast path that takes snapshots and forwards nothing.
pub struct FakeFastpath {
    path: PathBuf,
    pub mind: Arc<Mutex<Mind>>,
    ending: Arc<Mutex<Vec<UnixStream>>>,
}

/// What it knows and how it shall behave.
#[derive(Default)]
pub struct Mind {
    pub spec: SnapshotSpec,
    pub applied: Vec<u64>,
    /// How many of these were sent as a difference.
    pub differences: usize,
    pub refuse: Option<String>,
    /// Pages of connections by where they begin.
    pub pages: BTreeMap<u32, listing::Page>,
    /// What was asked for.
    pub asked: Vec<listing::Query>,
    pub connections: u64,
    pub packets: u64,
    /// What it has found in the kernel.
    pub drift: Vec<Drift>,
    /// How it stands with the other fast path.
    pub peer: Option<PeerStatus>,
    start_id: u64,
}

impl FakeFastpath {
    /// Listens on the control socket of this node.
    pub fn start(node: &Node) -> FakeFastpath {
        static STARTS: AtomicU64 = AtomicU64::new(1);
        let path = node.path("run/fastpath.sock");
        let listener = UnixListener::bind(&path).expect("the control socket is free");
        let mind = Arc::new(Mutex::new(Mind {
            start_id: STARTS.fetch_add(1, Ordering::Relaxed),
            ..Mind::default()
        }));
        let ending = Arc::new(Mutex::new(Vec::new()));
        let fastpath = FakeFastpath {
            path,
            mind: mind.clone(),
            ending: ending.clone(),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("the control socket accepts");
                let copy = stream.try_clone().expect("a descriptor is left");
                ending.lock().unwrap().push(copy);
                // The first message of the value's end is nobody's.
                if Arc::strong_count(&ending) == 1 {
                    return;
                }
                let mind = mind.clone();
                std::thread::spawn(move || serve(stream, &mind));
            }
        });
        fastpath
    }

    /// Waits until it has this many rules.
    pub fn wait_for_rules(&self, count: usize) {
        wait_until("the fast path has its rules", || {
            self.mind.lock().unwrap().spec.rules.len() == count
        });
    }
}

impl Drop for FakeFastpath {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        for stream in self.ending.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn serve(mut stream: UnixStream, mind: &Mutex<Mind>) {
    while let Ok(Some(request)) = read_frame::<_, Request>(&mut stream) {
        let response = answer(request, &mut mind.lock().unwrap());
        if write_frame(&mut stream, &response).is_err() {
            return;
        }
    }
}

fn answer(request: Request, mind: &mut Mind) -> Response {
    let request = match request {
        Request::Change(change) if change.base != mind.spec.generation => {
            return Response::Gap {
                generation: mind.spec.generation,
            };
        }
        Request::Change(change) => {
            let mut spec = mind.spec.clone();
            spec.change(change);
            mind.differences += 1;
            Request::Apply(spec)
        }
        other => other,
    };
    match request {
        Request::Change(_) => unreachable!("made an Apply"),
        Request::Hello { .. } => Response::Hello(Hello {
            version: PROTOCOL_VERSION,
            pid: std::process::id(),
            start_id: mind.start_id,
            generation: mind.spec.generation,
            limits: mind.spec.limits,
        }),
        Request::Apply(spec) => match &mind.refuse {
            Some(reason) => Response::Rejected {
                generation: spec.generation,
                reason: reason.clone(),
            },
            None => {
                let generation = spec.generation;
                mind.applied.push(generation);
                mind.spec = spec;
                Response::Applied { generation }
            }
        },
        Request::Status => Response::Status(Status {
            generation: mind.spec.generation,
            rules: Some(mind.spec.rules.len() as u64),
            drift: mind.drift.clone(),
            peer: mind.peer.clone(),
            ..Status::default()
        }),
        Request::Connections(query) => {
            mind.asked.push(query.clone());
            Response::Connections(mind.pages.get(&query.cursor).cloned().unwrap_or_default())
        }
        Request::Close(_) => Response::Closed,
        Request::Handover(_) => Response::Handover,
        Request::Explain(_) | Request::Peer(_) | Request::PoolExport { .. } => Response::Error {
            message: "it has no packets".into(),
        },
        Request::Statistics | Request::StatisticsOf(_) => {
            let counters = Counters {
                packets: mind.packets,
                connections_open: mind.connections,
                connections_total: mind.connections,
                ..Counters::default()
            };
            let rules = mind.spec.rules.iter().map(|rule| RuleStatistics {
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
                start_id: mind.start_id,
                totals: counters,
                rules: rules.collect(),
                ..Statistics::default()
            })
        }
    }
}

/// Ends a test that needs root with a message that says so.
pub fn need_root() {
    let uid = fs::metadata("/proc/self").expect("/proc is there").uid();
    assert_eq!(uid, 0, "this test needs root: run `sudo make test`");
}
