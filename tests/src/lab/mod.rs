//! A throw-away network with the real programs in it.
//!
//! ```text
//!            c1, c2 …                          s1, s2, s3 (nginx, UDP echo)
//!               |                                 |
//!   ============+=======+=====  front     ========+======+====  back
//!                       |     |                   |      |
//!                       |     +---- rt (router) --|------+
//!                       +---------- lb -----------+
//!                            (ilb-fastpath, ilb-svcmgr, dbus-daemon)
//! ```
//!
//! Each box is a network namespace `ilb-<pid>-<n>-<role>`; front and back are bridges in one more namespace, `sw`.
//! [`plan`] has the addresses. Dropping a [`Lab`] ends every process, removes every namespace, mount and file, and
//! panics if anything is left (or says so, if the test is failing already).

pub mod bus;
pub mod leftovers;
pub mod namespace;
pub mod node;
pub mod plan;
pub mod play;
pub mod process;
pub mod system;
pub mod web;
pub mod wiring;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use namespace::Namespace;
use node::Node;
use plan::Net;
use process::Daemon;
use wiring::{NarrowHop, Wiring};

use crate::Family;
use crate::udp::Echo;

/// What a lab looks like.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Client namespaces, 1..=100. The first has the extra source addresses.
    pub clients: u8,
    /// More source addresses on the first client, 0..=50 for each family.
    pub sources: u8,
    /// Servers, 1..=80.
    pub servers: u8,
    /// Queues of the balancer's interfaces; flows are spread over them by their hash.
    pub queues: u32,
    /// Requests arrive on queue 0 and replies on the last one.
    pub replies_on_last_queue: bool,
    /// The balancer has one interface only, on the back network.
    pub one_armed: bool,
    /// A hop with a smaller MTU, and that MTU in bytes.
    pub narrow: Option<(NarrowHop, u32)>,
    /// There is another balancer `lb2` beside the first one, host 2 of both networks.
    pub pair: bool,
    /// There is another balancer `lb2`, the first one's twin: the same addresses, link-layer addresses included, and not
    /// plugged in ([`Lab::swap`]). Between both lies a link of their own, 10.8.0.1 and 10.8.0.2.
    pub twin: bool,
}

impl Default for Spec {
    fn default() -> Spec {
        Spec {
            clients: 1,
            sources: 0,
            servers: 3,
            queues: 1,
            replies_on_last_queue: false,
            one_armed: false,
            narrow: None,
            pair: false,
            twin: false,
        }
    }
}

/// A built lab. One at a time in a process.
#[derive(Debug)]
pub struct Lab {
    identity: String,
    directory: PathBuf,
    spec: Spec,
    /// The balancer's programs.
    pub node: Node,
    second: Option<Node>,
    wiring: Wiring,
    echoes: Mutex<Vec<Echo>>,
    daemons: Mutex<Vec<Daemon>>,
    kept: AtomicBool,
    // Last, so that the next lab starts after this one is gone.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());
static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEPT: Once = Once::new();

/// Removes a lab that fell over while it was being built.
struct Unfinished {
    identity: String,
    armed: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.armed {
            leftovers::remove(&self.identity);
        }
    }
}

impl Lab {
    /// Builds the network and starts nginx in every server and a D-Bus daemon; ilb itself is started by
    /// [`Node::start`].
    #[track_caller]
    pub fn new(spec: Spec) -> Lab {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the lab needs root for network namespaces and BPF: run `sudo make test` (nothing is ever skipped)"
        );
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        SWEPT.call_once(|| {
            for identity in leftovers::sweep(false) {
                eprintln!("removed what {identity} had left behind (its runner was killed)");
            }
        });
        let identity = format!(
            "ilb-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = leftovers::root().join(&identity);
        let mut unfinished = Unfinished {
            identity: identity.clone(),
            armed: true,
        };
        make_directory(&directory);
        leftovers::claim(&directory);
        let wiring = Wiring::build(&identity, &spec);
        let node = Node::new(Arc::clone(wiring.at("lb")), &directory, &spec);
        let second = (spec.pair || spec.twin).then(|| {
            let directory = directory.join("second");
            make_directory(&directory);
            Node::new(Arc::clone(wiring.at("lb2")), &directory, &spec)
        });
        let lab = Lab {
            identity,
            directory,
            node,
            second,
            wiring,
            spec,
            echoes: Mutex::default(),
            daemons: Mutex::default(),
            kept: AtomicBool::new(false),
            _turn: turn,
        };
        unfinished.armed = false;
        lab.adopt(bus::start(lab.at("lb"), &lab.directory));
        if lab.second.is_some() {
            let bus = bus::start(lab.at("lb2"), &lab.directory.join("second"));
            lab.adopt(bus);
        }
        web::make_files(&lab.directory);
        for n in 1..=lab.spec.servers {
            let role = format!("s{n}");
            lab.adopt(web::start(lab.at(&role), &role, &lab.directory));
        }
        for n in 1..=lab.spec.servers {
            web::wait(lab.at(&format!("s{n}")));
        }
        lab
    }

    /// A lab with ilb running in it.
    #[track_caller]
    pub fn with_ilb(spec: Spec) -> Lab {
        let lab = Lab::new(spec);
        lab.node.start();
        lab
    }

    /// Pulls the cables of balancer `from` and plugs those of its twin `to` in.
    pub fn swap(&self, from: &str, to: &str) {
        self.wiring.swap(from, to);
    }

    /// The programs of the other balancer.
    #[track_caller]
    pub fn second(&self) -> &Node {
        self.second.as_ref().expect("this lab has no pair")
    }

    /// Its name, the prefix of its namespaces.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The namespace of a role: `lb`, `rt`, `c1`, `s1`, `na`, `sw` …
    #[track_caller]
    pub fn at(&self, role: &str) -> &Arc<Namespace> {
        self.wiring.at(role)
    }

    /// The network where servers are.
    pub fn server_net(&self) -> Net {
        match self.spec.narrow {
            Some((NarrowHop::BehindBalancer, _)) => Net::FarBack,
            _ => Net::Back,
        }
    }

    /// The network where clients are.
    pub fn client_net(&self) -> Net {
        match self.spec.narrow {
            Some((NarrowHop::BeforeBalancer, _)) => Net::FarFront,
            _ => Net::Front,
        }
    }

    /// Address of server `n` (from 1).
    pub fn server(&self, family: Family, n: u8) -> IpAddr {
        self.server_net().host(family, 10 + n)
    }

    /// The balancer's own address on the back network.
    pub fn node_address(&self, family: Family) -> IpAddr {
        Net::Back.host(family, 1)
    }

    /// Starts nginx in one more namespace, as in a server, and waits for it.
    #[track_caller]
    pub fn web(&self, role: &str) {
        self.adopt(web::start(self.at(role), role, &self.directory));
        web::wait(self.at(role));
    }

    /// Address of client `n` (from 1).
    pub fn client(&self, family: Family, n: u8) -> IpAddr {
        self.client_net().host(family, 9 + n)
    }

    /// The extra source addresses of client 1.
    pub fn sources(&self, family: Family) -> Vec<IpAddr> {
        (0..self.spec.sources)
            .map(|n| self.client_net().host(family, 150 + n))
            .collect()
    }

    /// Virtual address `n` (0..=49).
    pub fn vip(&self, family: Family, n: u8) -> IpAddr {
        let net = if self.spec.one_armed {
            Net::Back
        } else {
            Net::Front
        };
        net.host(family, 100 + n)
    }

    /// `proxy-src` address `n` (0..=49).
    pub fn proxy_source(&self, family: Family, n: u8) -> IpAddr {
        Net::Back.host(family, 200 + n)
    }

    /// The value of `lbadm -s server=` for all servers, each followed by `suffix` (such as `:80`).
    pub fn server_specs(&self, family: Family, suffix: &str) -> String {
        let specs: Vec<String> = (1..=self.spec.servers)
            .map(|n| format!("{}{suffix}", plan::bracketed(self.server(family, n))))
            .collect();
        specs.join(",")
    }

    /// Puts a VIP on the loopback of every server, as DSR wants it.
    pub fn dsr_address(&self, vip: IpAddr) {
        for n in 1..=self.spec.servers {
            self.wiring.dsr_address(&format!("s{n}"), vip);
        }
    }

    /// Starts a UDP echo in every server on its own address and `more`, port `port`. Answers are `<server> <request>`.
    pub fn udp_echo(&self, family: Family, more: &[IpAddr], port: u16) {
        let mut echoes = self.echoes.lock().unwrap_or_else(PoisonError::into_inner);
        for n in 1..=self.spec.servers {
            let role = format!("s{n}");
            let mut addresses = vec![self.server(family, n)];
            addresses.extend(more);
            for address in addresses {
                echoes.push(Echo::start(self.at(&role), &role, (address, port).into()));
            }
        }
    }

    /// Starts a UDP echo in every server on this address, such as a VIP that servers hold.
    pub fn udp_echo_on(&self, address: SocketAddr) {
        let mut echoes = self.echoes.lock().unwrap_or_else(PoisonError::into_inner);
        for n in 1..=self.spec.servers {
            let role = format!("s{n}");
            echoes.push(Echo::start(self.at(&role), &role, address));
        }
    }

    /// Keeps a daemon for as long as the lab lives.
    pub fn adopt(&self, daemon: Daemon) {
        self.daemons
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(daemon);
    }

    /// Leaves everything running and in place when this value is dropped; `make lab-clean` ends it.
    pub fn keep(self) {
        leftovers::keep(&self.directory);
        self.kept.store(true, Ordering::Relaxed);
    }

    /// The ends of all logs, for a test that is failing.
    fn print_logs(&self) {
        eprintln!("---- logs of lab {} ----", self.identity);
        let mut logs: Vec<PathBuf> = std::fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        for log in logs {
            let text = process::tail(&log, 60);
            if !text.is_empty() {
                eprintln!("---- {} (its end)\n{text}", log.display());
            }
        }
        eprintln!("---- end of logs ----");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing {
            self.print_logs();
        }
        self.echoes
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let keep_failed = failing && std::env::var_os("ILB_LAB_KEEP_FAILED").is_some();
        if self.kept.load(Ordering::Relaxed) || keep_failed {
            leftovers::keep(&self.directory);
            let daemons = std::mem::take(
                self.daemons
                    .get_mut()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            daemons.into_iter().for_each(std::mem::forget);
            self.node.forget();
            self.second.iter().for_each(Node::forget);
            return;
        }
        let identities: Vec<String> = self
            .wiring
            .namespaces
            .values()
            .filter_map(|namespace| namespace.identity())
            .collect();
        self.node.kill_all();
        self.second.iter().for_each(Node::kill_all);
        self.daemons
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        leftovers::remove(&self.identity);
        let left = leftovers::of(&self.identity, &identities);
        if left.is_empty() {
            return;
        }
        let message = format!(
            "given a lab that was taken down, when looking for what is left of it, then nothing must be found; found:\n{}",
            left.join("\n")
        );
        if failing {
            eprintln!("{message}");
        } else {
            panic!("{message}");
        }
    }
}

/// The lab's directory with everything in it that programs expect; readable for all, so that an unprivileged `lbadm`
/// reaches the bus.
fn make_directory(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for part in ["", "run", "state", "bpf", "bin"] {
        let path = directory.join(part);
        std::fs::create_dir(&path)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("cannot set permissions");
    }
    // Runtime files are in memory on every system that ilb is made for; the connection table is one.
    for (kind, part, data) in [("bpf", "bpf", None), ("tmpfs", "run", Some("mode=755"))] {
        let at = directory.join(part);
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some(kind), &at, Some(kind), flags, data)
            .unwrap_or_else(|error| panic!("cannot mount {kind} on {}: {error}", at.display()));
    }
}
