//! Two nodes of a lab that share their addresses by VRRP, and somebody who asks them all the time.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::joined::{Joined, ROLES};
use crate::lab::node::Node;
use crate::lab::{Lab, Spec};
use crate::service::Service;
use crate::shell;
use crate::{Family, Topology};

/// How long a loaded machine may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two questions of a [`Prober`].
const PACE: Duration = Duration::from_millis(2);
/// How often whoever waits for answers looks whether there are more questions.
const LOOK: Duration = Duration::from_millis(20);
/// How long the last answers may take.
const LATE: Duration = Duration::from_millis(400);

/// How both nodes take part.
#[derive(Debug, Clone)]
pub struct Sharing {
    /// How packets get to servers.
    pub topology: Topology,
    /// Time between advertisements, as `lbadm` takes it.
    pub interval: &'static str,
    /// Priorities of the first and of the second node.
    pub priorities: [u8; 2],
    /// More settings, each with a comma before it.
    pub more: &'static str,
}

/// A UDP echo in each family, behind two nodes.
pub struct Pair {
    /// The lab.
    pub lab: Lab,
    /// Where clients ask.
    pub targets: Vec<SocketAddr>,
    /// Names of the instances, and what each is given.
    instances: Vec<(String, String)>,
    services: Vec<Service>,
}

impl Pair {
    /// Both nodes are up and configured.
    #[track_caller]
    pub fn new(sharing: &Sharing) -> Pair {
        let lab = Lab::new(Spec {
            servers: 1,
            pair: true,
            ..Spec::default()
        });
        Pair::within(lab, sharing)
    }

    /// The same in a lab that is there, with a second node.
    #[track_caller]
    pub fn within(lab: Lab, sharing: &Sharing) -> Pair {
        lab.node.start();
        lab.second().start();
        let pair = Pair::prepared(lab, sharing.topology);
        for (role, priority) in ROLES.into_iter().zip(sharing.priorities) {
            pair.configure(role, sharing, priority);
        }
        pair
    }

    /// The same, but the first node is configured, and the second one joins its pair.
    #[track_caller]
    pub fn joined(sharing: &Sharing) -> Pair {
        let lab = Lab::new(Spec {
            servers: 1,
            pair: true,
            ..Spec::default()
        });
        Joined::start(&lab);
        let pair = Pair::prepared(lab, sharing.topology);
        pair.configure(ROLES[0], sharing, sharing.priorities[0]);
        pair.both().join();
        pair.both().settled("given two nodes that are a pair");
        for (name, _) in &pair.instances {
            let priority = sharing.priorities[1];
            let line = format!("modify-vrrp -i priority={priority} {name}");
            pair.node(ROLES[1]).lbadm(&line);
        }
        pair
    }

    /// Both as they see each other, if they were joined.
    pub fn both(&self) -> Joined<'_> {
        Joined { lab: &self.lab }
    }

    /// With what clients ask for, and nothing on the nodes.
    fn prepared(lab: Lab, topology: Topology) -> Pair {
        let mut targets = Vec::new();
        let mut services = Vec::new();
        let mut instances = Vec::new();
        for (number, family) in Family::BOTH.into_iter().enumerate() {
            let service = Service::echo(number as u8, topology, family);
            let vip = lab.vip(family, service.number);
            instances.push((
                format!("front{number}"),
                format!("interface=eth0,vrid=51,addresses={vip}"),
            ));
            match topology {
                Topology::Dsr => {
                    lab.dsr_address(vip);
                    lab.udp_echo_on((vip, 7).into());
                }
                Topology::Nat | Topology::HalfNat => lab.udp_echo(family, &[], 7),
            }
            if topology == Topology::Nat {
                let source = lab.proxy_source(family, service.number);
                let text = format!("interface=eth1,vrid=51,addresses={source}");
                instances.push((format!("back{number}"), text));
            }
            targets.push(SocketAddr::new(vip, 7));
            services.push(service);
        }
        Pair {
            lab,
            targets,
            instances,
            services,
        }
    }

    /// Configures a node.
    #[track_caller]
    fn configure(&self, role: &str, sharing: &Sharing, priority: u8) {
        let node = self.node(role);
        // First the instances: then no node puts the addresses up for its rule.
        for (name, text) in &self.instances {
            node.lbadm(&format!(
                "create-vrrp -i sync-group=pair,interval={},priority={priority},{text}{} {name}",
                sharing.interval, sharing.more
            ));
        }
        for service in &self.services {
            node.lbadm(&service.group_line(&self.lab));
            node.lbadm(&service.rule_line(&self.lab));
        }
    }

    /// The node with this role, `lb` or `lb2`.
    pub fn node(&self, role: &str) -> &Node {
        match role {
            "lb" => &self.lab.node,
            _ => self.lab.second(),
        }
    }

    /// Whether a node has an address.
    pub fn has(&self, role: &str, address: &SocketAddr) -> bool {
        let all = self.lab.at(role).run("ip -o addr show");
        all.contains(&format!(" {}/", address.ip()))
    }

    /// Waits until this node, and no other one that lives, has everything.
    #[track_caller]
    pub fn has_all(&self, given: &str, role: &str, other: &str) {
        let settled = shell::wait_for(PATIENCE, || {
            let all = |role: &str| self.targets.iter().all(|it| self.has(role, it));
            let none = |role: &str| !self.targets.iter().any(|it| self.has(role, it));
            (all(role) && (other.is_empty() || none(other))).then_some(())
        });
        if settled.is_none() {
            panic!(
                "{given}, then {role} has all addresses and {other} none:\n{}\n{}",
                self.lab.at("lb").run("ip -br addr"),
                self.lab.at("lb2").run("ip -br addr")
            );
        }
    }

    /// Names of the instances.
    pub fn instances(&self) -> impl Iterator<Item = &str> {
        self.instances.iter().map(|(name, _)| name.as_str())
    }

    /// Where the instances of a node stand.
    #[track_caller]
    pub fn states(&self, role: &str) -> Vec<String> {
        let lines = self.node(role).lbadm("show-vrrp -p -o state");
        lines.lines().map(str::to_owned).collect()
    }

    /// Waits until all instances of a node stand so.
    #[track_caller]
    pub fn stands(&self, given: &str, role: &str, state: &str) {
        let settled = shell::wait_for(PATIENCE, || {
            let states = self.states(role);
            states.iter().all(|it| it == state).then_some(())
        });
        let all = || self.node(role).lbadm("show-vrrp -p -o name,state,reason");
        assert!(
            settled.is_some(),
            "{given}, then {role} is {state}: {}",
            all()
        );
    }

    /// Waits until everybody is answered.
    #[track_caller]
    pub fn answers(&self, given: &str) {
        for target in &self.targets {
            let asked = || crate::udp::ask(*target, 0, b"again").ok();
            let answers = shell::wait_for(PATIENCE, || self.lab.at("c1").enter(asked));
            assert!(answers.is_some(), "{given}, then {target} answers");
        }
    }

    /// Something happens, and `settled` waits for its end; what clients have seen meanwhile, by target.
    #[track_caller]
    pub fn watched(&self, event: impl FnOnce(), settled: impl FnOnce()) -> Vec<Seen> {
        let probers: Vec<Prober> = self
            .targets
            .iter()
            .map(|target| Prober::start(&self.lab, *target))
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        event();
        settled();
        // What comes after the answer counts, too.
        std::thread::sleep(Duration::from_millis(300));
        probers.into_iter().map(Prober::finish).collect()
    }
}

/// What a client has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Questions.
    pub asked: usize,
    /// Those that were not answered.
    pub lost: usize,
    /// Longest time between two answers.
    pub gap: Duration,
}

/// Asks an echo service again and again from one socket, by a thread that does nothing else, and notes what is answered
/// when, by another one: whoever waits for answers with a limit of milliseconds is woken by the kernel's ticks, of which there
/// are 100 or 250 a second.
struct Prober {
    stop: Arc<AtomicBool>,
    asked: JoinHandle<()>,
    seen: JoinHandle<Seen>,
}

impl Prober {
    fn start(lab: &Lab, target: SocketAddr) -> Prober {
        let stop = Arc::new(AtomicBool::new(false));
        let questions = Arc::new(Questions::default());
        let socket = lab.at("c1").enter(|| {
            let any = (crate::load::unspecified(target.ip()), 0);
            let socket = UdpSocket::bind(any).expect("a socket");
            socket.connect(target).expect("a target");
            socket
        });
        socket
            .set_read_timeout(Some(LOOK))
            .expect("a timeout can be set");
        let answers = socket.try_clone().expect("a socket can be shared");
        let (stopped, all) = (Arc::clone(&stop), Arc::clone(&questions));
        Prober {
            stop,
            asked: std::thread::spawn(move || ask(&socket, &all, &stopped)),
            seen: std::thread::spawn(move || listen(&answers, &questions)),
        }
    }

    fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.asked.join().expect("whoever asks ends");
        self.seen.join().expect("whoever listens ends")
    }
}

/// How many questions were asked, and whether there will be more.
#[derive(Default)]
struct Questions {
    count: AtomicUsize,
    ended: AtomicBool,
}

fn ask(socket: &UdpSocket, questions: &Questions, stopped: &AtomicBool) {
    let mut next = Instant::now();
    while !stopped.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now < next {
            std::thread::sleep(next - now);
        }
        // Who comes late asks one question and not those that he has missed.
        next = (next + PACE).max(now);
        let number = questions.count.fetch_add(1, Ordering::Relaxed);
        // While nobody has the address there may be no way to send: that is a question without an answer, too.
        drop(socket.send(number.to_string().as_bytes()));
    }
    questions.ended.store(true, Ordering::Release);
}

fn listen(socket: &UdpSocket, questions: &Questions) -> Seen {
    let mut answered = BTreeSet::new();
    let (mut last, mut gap): (Option<Instant>, Duration) = (None, Duration::ZERO);
    let mut end = None;
    let mut buffer = [0; 64];
    loop {
        let received = socket.recv(&mut buffer);
        let now = Instant::now();
        match received {
            Ok(length) => {
                // "<server> <request>"
                let text = String::from_utf8_lossy(&buffer[..length]);
                let number = text.split(' ').next_back().and_then(|it| it.parse().ok());
                let number: usize = number.expect("a number was asked");
                answered.insert(number);
                if let Some(last) = last.replace(now) {
                    gap = gap.max(now - last);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The kernel says that a question did not get anywhere.
            Err(_) => std::thread::sleep(PACE / 4),
        }
        if questions.ended.load(Ordering::Acquire) {
            let asked = questions.count.load(Ordering::Relaxed);
            if answered.len() == asked || now > *end.get_or_insert(now + LATE) {
                return Seen {
                    asked,
                    lost: asked - answered.len(),
                    gap,
                };
            }
        }
    }
}
