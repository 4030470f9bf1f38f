//! Two nodes of a lab that share their addresses by VRRP, and somebody who asks them all the time.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::node::Node;
use crate::lab::{Lab, Spec};
use crate::service::Service;
use crate::shell;
use crate::{Family, Topology};

/// How long a loaded machine may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two questions of a [`Prober`].
const PACE: Duration = Duration::from_millis(2);
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
    /// Names of the instances.
    pub instances: Vec<String>,
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
        let mut targets = Vec::new();
        let mut instances = Vec::new();
        for (number, family) in Family::BOTH.into_iter().enumerate() {
            let service = Service::echo(number as u8, sharing.topology, family);
            let vip = lab.vip(family, service.number);
            let mut made = vec![(
                format!("front{number}"),
                format!("interface=eth0,vrid=51,addresses={vip}"),
            )];
            match sharing.topology {
                Topology::Dsr => {
                    lab.dsr_address(vip);
                    lab.udp_echo_on((vip, 7).into());
                }
                Topology::Nat | Topology::HalfNat => lab.udp_echo(family, &[], 7),
            }
            if sharing.topology == Topology::Nat {
                let source = lab.proxy_source(family, service.number);
                let text = format!("interface=eth1,vrid=51,addresses={source}");
                made.push((format!("back{number}"), text));
            }
            for (node, priority) in [&lab.node, lab.second()]
                .into_iter()
                .zip(sharing.priorities)
            {
                node.lbadm(&service.group_line(&lab));
                // First the instances: then no node puts the addresses up for its rule.
                for (name, text) in &made {
                    node.lbadm(&format!(
                        "create-vrrp -i sync-group=pair,interval={},priority={priority},{text}{} {name}",
                        sharing.interval, sharing.more
                    ));
                }
                node.lbadm(&service.rule_line(&lab));
            }
            targets.push(SocketAddr::new(vip, 7));
            instances.extend(made.into_iter().map(|(name, _)| name));
        }
        Pair {
            lab,
            targets,
            instances,
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

/// Asks an echo service every few milliseconds from one socket, and remembers what was answered when.
struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Prober {
    fn start(lab: &Lab, target: SocketAddr) -> Prober {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, stopped) = (Arc::clone(lab.at("c1")), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            client.join_here();
            probe(target, &stopped)
        });
        Prober { stop, thread }
    }

    fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the prober ends")
    }
}

fn probe(target: SocketAddr, stopped: &AtomicBool) -> Seen {
    let any = if target.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).expect("a socket");
    socket.connect(target).expect("a target");
    socket
        .set_read_timeout(Some(PACE / 2))
        .expect("a timeout can be set");
    let mut answered: Vec<bool> = Vec::new();
    let (mut last, mut gap): (Option<Instant>, Duration) = (None, Duration::ZERO);
    let mut next = Instant::now();
    let mut end = None;
    let mut buffer = [0; 64];
    loop {
        let now = Instant::now();
        if stopped.load(Ordering::Relaxed) && end.is_none() {
            end = Some(now + LATE);
        }
        if end.is_some_and(|end| now > end || answered.iter().all(|it| *it)) {
            break;
        }
        if end.is_none() && now >= next {
            next = (next + PACE).max(now);
            // While nobody has the address there may be no way to send: that is a question without an answer, too.
            let number = answered.len().to_string();
            drop(socket.send(number.as_bytes()));
            answered.push(false);
        }
        match socket.recv(&mut buffer) {
            Ok(length) => {
                // "<server> <request>"
                let text = String::from_utf8_lossy(&buffer[..length]);
                let number = text.split(' ').next_back().and_then(|it| it.parse().ok());
                if let Some(found) = number.and_then(|it: usize| answered.get_mut(it)) {
                    *found = true;
                }
                let now = Instant::now();
                if let Some(last) = last.replace(now) {
                    gap = gap.max(now - last);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => std::thread::sleep(PACE / 4),
        }
    }
    Seen {
        asked: answered.len(),
        lost: answered.iter().filter(|it| !**it).count(),
        gap,
    }
}
