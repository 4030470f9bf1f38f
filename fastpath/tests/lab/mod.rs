//! Three network namespaces – client, balancer, servers – joined by two veth pairs, and the real program in the middle.
//! Everything is taken away when the lab is dropped, also when a test fails.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ilb_forwarder::spec::{
    Algorithm, PortMap, PortRange, Protocol, RuleSpec, ServerSpec, SnapshotSpec, Topology, VipSpec,
};
use ilb_node::control::{Hello, Request, Response, Statistics, Status, read_frame, write_frame};

/// Where clients connect to.
pub const VIP4: &str = "10.1.0.100";
/// The same for IPv6.
pub const VIP6: &str = "fd01::100";
/// Source address of NAT.
pub const NAT4: &str = "10.2.0.100";
/// The servers.
pub const SERVERS4: [&str; 3] = ["10.2.0.11", "10.2.0.12", "10.2.0.13"];
/// The same for IPv6.
pub const SERVERS6: [&str; 3] = ["fd02::11", "fd02::12", "fd02::13"];
/// Port on which servers say who they are and then repeat what they hear.
pub const PORT: u16 = 7000;

/// Longest time that a step may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a command and panics with its output if it fails.
pub fn run(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Calls `attempt` until it gives something.
pub fn wait<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// See the module's text.
pub struct Lab {
    prefix: String,
    dir: PathBuf,
    pins: PathBuf,
    fastpath: Option<Child>,
    /// One lab at a time: two cores are not enough for times that mean something otherwise.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Lab {
    /// Builds everything; nothing of ours runs yet. The server side's interface has `server_queues` queues, the
    /// client side's two.
    pub fn new(server_queues: u32) -> Lab {
        // SAFETY: plain system call.
        let uid = unsafe { libc::geteuid() };
        assert_eq!(
            uid, 0,
            "this test makes network namespaces and loads XDP programs: run it as root (sudo make test)"
        );
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("ilb-{}-{number}", std::process::id());
        let lab = Lab {
            dir: std::env::temp_dir().join(&prefix),
            pins: Path::new("/sys/fs/bpf").join(&prefix),
            fastpath: None,
            prefix,
            _turn: TURN.lock().unwrap_or_else(PoisonError::into_inner),
        };
        std::fs::create_dir_all(&lab.dir).unwrap();
        for side in ["client", "balancer", "servers"] {
            run(&format!("ip netns add {}", lab.namespace(side)));
            run(&format!("ip -n {} link set lo up", lab.namespace(side)));
        }
        lab.join("cl", 2);
        lab.join("sv", server_queues);
        lab.settings("");
        lab
    }

    /// Name of a side's namespace.
    pub fn namespace(&self, side: &str) -> String {
        format!("{}-{side}", self.prefix)
    }

    /// The veth pair that is called `name` at the balancer, `cl` or `sv`, and `outer` at the other end; with all its
    /// addresses and routes.
    pub fn join(&self, name: &str, queues: u32) {
        let (side, net4, net6) = match name {
            "cl" => ("client", "10.1.0", "fd01:"),
            _ => ("servers", "10.2.0", "fd02:"),
        };
        let (outer, balancer) = (self.namespace(side), self.namespace("balancer"));
        run(&format!(
            "ip link add outer netns {outer} numrxqueues {queues} numtxqueues {queues} type veth \
             peer name {name} netns {balancer} numrxqueues {queues} numtxqueues {queues}"
        ));
        for (namespace, interface, host) in [(&outer, "outer", 2), (&balancer, name, 1)] {
            run(&format!(
                "ip -n {namespace} addr add {net4}.{host}/24 dev {interface}"
            ));
            run(&format!(
                "ip -n {namespace} addr add {net6}:{host}/64 dev {interface} nodad"
            ));
            run(&format!("ip -n {namespace} link set {interface} up"));
            // AF_XDP sees what veth leaves to a network card that does not exist.
            run(&format!(
                "ip netns exec {namespace} ethtool -K {interface} tx off gro on"
            ));
        }
        for (namespace, interface) in [(&outer, "outer"), (&balancer, name)] {
            settle(namespace, interface);
        }
        run(&format!("ip -n {outer} route add default via {net4}.1"));
        run(&format!("ip -n {outer} route add default via {net6}:1"));
        let ours: &[&str] = if name == "cl" { &[VIP4, VIP6] } else { &[NAT4] };
        for address in ours {
            self.address("balancer", name, address);
        }
        if name == "sv" {
            for address in SERVERS4.iter().chain(&SERVERS6) {
                self.address("servers", "outer", address);
            }
        }
    }

    fn address(&self, side: &str, interface: &str, address: &str) {
        let namespace = self.namespace(side);
        // On the network of the interface, not as a host route, so that the servers reach each other.
        let suffix = match (side, address.contains(':')) {
            ("servers", true) => "/64 nodad",
            ("servers", false) => "/24",
            (_, true) => "/128 nodad",
            (_, false) => "/32",
        };
        let (length, flag) = suffix.split_once(' ').unwrap_or((suffix, ""));
        run(&format!(
            "ip -n {namespace} addr add {address}{length} dev {interface} {flag}"
        ));
    }

    /// Writes the node settings, with these further lines for the fast path.
    pub fn settings(&self, further: &str) {
        let text = format!(
            "[node]\nruntime-dir = \"{dir}/run\"\nstate-dir = \"{dir}/state\"\nbpf-dir = \"{pins}\"\n\
             [fastpath]\ninterfaces = [\"cl\", \"sv\"]\ntable-size = 4096\nframes = 1024\nring-size = 512\n{further}\n",
            dir = self.dir.display(),
            pins = self.pins.display(),
        );
        std::fs::write(self.dir.join("ilb.toml"), text).unwrap();
    }

    /// Where the pins are.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// The program with its settings and these further arguments, in the balancer's namespace.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.namespace("balancer")))
            .arg(env!("CARGO_BIN_EXE_ilb-fastpath"))
            .arg("--config")
            .arg(self.dir.join("ilb.toml"))
            .args(arguments);
        command
    }

    /// Starts the program and waits until it can be talked to.
    pub fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        self.fastpath = Some(self.command(&[]).stderr(log).spawn().unwrap());
        wait("starting ilb-fastpath", || {
            let ended = self.fastpath.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "ilb-fastpath has ended: {}", self.log());
            let mut stream = UnixStream::connect(self.socket()).ok()?;
            ask(&mut stream, &Request::Status)
        });
    }

    /// What the program has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("run/fastpath.sock")
    }

    /// Processor time that the program has used, in hundredths of a second (proc_pid_stat(5)).
    pub fn ticks(&self) -> u64 {
        let pid = self.fastpath.as_ref().expect("the program runs").id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Sends a signal to the program and waits for its end.
    pub fn end(&mut self, signal: i32) -> ExitStatus {
        let mut child = self.fastpath.take().expect("the program runs");
        // nsenter becomes the program, so that this is its process id.
        // SAFETY: plain system call.
        unsafe { libc::kill(child.id() as i32, signal) };
        wait("the end of ilb-fastpath", || child.try_wait().unwrap())
    }

    /// Asks over the control socket.
    pub fn ask(&self, request: &Request) -> Response {
        let mut stream = UnixStream::connect(self.socket()).expect("the control socket is there");
        ask(&mut stream, request).expect("there is an answer")
    }

    /// Applies these rules.
    pub fn apply(&self, generation: u64, rules: Vec<RuleSpec>) {
        let answer = self.ask(&Request::Apply(SnapshotSpec {
            generation,
            rules,
            ..SnapshotSpec::default()
        }));
        assert_eq!(answer, Response::Applied { generation }, "{}", self.log());
    }

    /// Who answers.
    pub fn hello(&self) -> Hello {
        match self.ask(&Request::Hello { version: 1 }) {
            Response::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    /// How it is.
    pub fn status(&self) -> Status {
        match self.ask(&Request::Status) {
            Response::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// All counters.
    pub fn statistics(&self) -> Statistics {
        match self.ask(&Request::Statistics) {
            Response::Statistics(statistics) => statistics,
            other => panic!("{other:?}"),
        }
    }

    /// Runs something with sockets of a side.
    pub fn within<T: Send>(&self, side: &str, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(self.namespace(side))).unwrap();
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                // SAFETY: plain system call on an open descriptor; it changes this thread only.
                let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
                work()
            });
            worker
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e))
        })
    }

    /// Starts a server on each of the servers' addresses.
    pub fn serve(&self) {
        for address in SERVERS4.iter().chain(&SERVERS6) {
            let address: IpAddr = address.parse().unwrap();
            let listener = self
                .within("servers", || TcpListener::bind((address, PORT)))
                .unwrap();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || repeat(stream, address));
                }
            });
        }
    }

    /// Opens a connection as a client and hears who is there.
    pub fn connect(
        &self,
        address: &str,
        patience: Duration,
    ) -> std::io::Result<(TcpStream, String)> {
        let address = SocketAddr::new(address.parse().unwrap(), PORT);
        let mut stream =
            self.within("client", || TcpStream::connect_timeout(&address, patience))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut name = vec![0; 64];
        stream.read_exact(&mut name)?;
        let name = String::from_utf8(name).unwrap().trim().to_owned();
        Ok((stream, name))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mut misplaced = false;
        if thread::panicking() {
            eprintln!("what ilb-fastpath said:\n{}", self.log());
            if let Some(mut child) = self.fastpath.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        } else if self.fastpath.is_some() {
            // At its end it looks for every frame once more.
            self.end(libc::SIGTERM);
            misplaced = self.log().contains("a fault in ilb");
        }
        let log = self.log();
        let _ = self.command(&["--detach"]).output();
        for side in ["client", "balancer", "servers"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.namespace(side)])
                .output();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
        assert!(!misplaced, "{log}");
    }
}

/// Waits until an interface is wholly up: the kernel takes up to a second to notice its carrier, and until then drops what
/// it sends itself (net/core/link_watch.c); then come the addresses.
fn settle(namespace: &str, interface: &str) {
    let shown = |what: &str| {
        let output = Command::new("ip")
            .args(["-n", namespace, what, "show", "dev", interface])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    wait("the carrier", || {
        shown("link").contains("state UP").then_some(())
    });
    wait("the addresses", || {
        let shown = shown("address");
        (shown.contains("fe80::") && !shown.contains("tentative")).then_some(())
    });
}

fn ask(stream: &mut UnixStream, request: &Request) -> Option<Response> {
    write_frame(stream, request).ok()?;
    read_frame(stream).ok()?
}

fn repeat(mut stream: TcpStream, name: IpAddr) {
    let _ = write!(stream, "{name:<64}");
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..n]).is_err() {
            return;
        }
    }
}

/// Sends bytes and hears them back.
pub fn echo(stream: &mut TcpStream, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
    let mut heard = vec![0; bytes];
    for (piece, echo) in sent.chunks(1000).zip(heard.chunks_mut(1000)) {
        stream.write_all(piece).unwrap();
        stream.read_exact(echo).unwrap();
    }
    assert_eq!(sent, heard);
}

/// A rule in round robin over three servers.
pub fn rule(id: u32, vip: &str, topology: Topology, servers: &[&str]) -> RuleSpec {
    let proxy_src = match topology {
        Topology::Nat => vec![NAT4.parse().unwrap()],
        Topology::Dsr | Topology::HalfNat | Topology::Tun => vec![],
    };
    RuleSpec {
        id,
        name: format!("rule{id}"),
        accepting: true,
        vips: vec![VipSpec {
            address: vip.parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: PortRange::single(PORT),
        }],
        topology,
        algorithm: Algorithm::RoundRobin,
        proxy_src,
        servers: servers
            .iter()
            .enumerate()
            .map(|(n, address)| ServerSpec {
                id: 100 * id + n as u32,
                name: format!("_servers.{n}"),
                address: address.parse().unwrap(),
                ports: PortMap::Same,
                weight: 1,
                accepting: true,
                ..ServerSpec::default()
            })
            .collect(),
        ..RuleSpec::default()
    }
}
