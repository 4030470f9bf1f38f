//! Two nodes that share their addresses, with everything that ilb is made of: whatever happens to one, the other one answers.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ilb_tests::lab::node::Node;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::service::Service;
use ilb_tests::{Family, Topology, shell};

const PATIENCE: Duration = Duration::from_secs(30);

/// Asks an echo service every few milliseconds, and remembers when answers came.
struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Instant>>,
}

impl Prober {
    fn start(lab: &Lab, target: SocketAddr) -> Prober {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, stopped) = (Arc::clone(lab.at("c1")), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            client.join_here();
            let any = if target.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(target).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(5)))
                .unwrap();
            let mut answers = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                // While nobody has the address there may be no way to send.
                let _ = socket.send(b"?");
                match socket.recv(&mut [0; 64]) {
                    Ok(_) => answers.push(Instant::now()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
            answers
        });
        Prober { stop, thread }
    }

    /// The longest time without an answer after `event`.
    fn finish(self, event: Instant) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let answers = self.thread.join().unwrap();
        let before = answers.iter().rposition(|at| *at <= event).unwrap_or(0);
        let gaps = answers[before..].windows(2).map(|two| two[1] - two[0]);
        gaps.max().expect("it answers again")
    }
}

struct Pair {
    lab: Lab,
    targets: Vec<SocketAddr>,
}

impl Pair {
    fn new() -> Pair {
        let lab = Lab::new(Spec {
            servers: 1,
            pair: true,
            ..Spec::default()
        });
        lab.node.start();
        lab.second().start();
        let mut targets = Vec::new();
        let mut instances = Vec::new();
        for (number, family) in Family::BOTH.into_iter().enumerate() {
            let service = Service::echo(number as u8, Topology::Nat, family);
            let vip = lab.vip(family, service.number);
            let source = lab.proxy_source(family, service.number);
            lab.udp_echo(family, &[], 7);
            for node in [&lab.node, lab.second()] {
                node.lbadm(&service.group_line(&lab));
            }
            targets.push(SocketAddr::new(vip, 7));
            instances.push(format!(
                "interface=eth0,vrid=51,addresses={vip} front{number}"
            ));
            instances.push(format!(
                "interface=eth1,vrid=51,addresses={source} back{number}"
            ));
            // First the instances: then no node puts the addresses up for its rule.
            for (node, priority) in [(&lab.node, 150), (lab.second(), 100)] {
                for instance in &instances[2 * number..] {
                    node.lbadm(&format!(
                        "create-vrrp -i sync-group=pair,interval=0.1,priority={priority},{instance}"
                    ));
                }
                node.lbadm(&service.rule_line(&lab));
            }
        }
        Pair { lab, targets }
    }

    /// Whether a node has an address.
    fn has(&self, role: &str, address: &SocketAddr) -> bool {
        let all = self.lab.at(role).run("ip -o addr show");
        all.contains(&format!(" {}/", address.ip()))
    }

    /// Waits until this node, and no other one that lives, has everything.
    #[track_caller]
    fn has_all(&self, given: &str, role: &str, other: &str) {
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

    /// Something happens; `role` has everything afterwards, `other` nothing, and clients get answers again.
    #[track_caller]
    fn happens(&self, given: &str, role: &str, other: &str, event: impl FnOnce()) {
        let probers: Vec<Prober> = self
            .targets
            .iter()
            .map(|target| Prober::start(&self.lab, *target))
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        event();
        self.has_all(given, role, other);
        for target in &self.targets {
            let asked = || ilb_tests::udp::ask(*target, 0, b"again").ok();
            let answers = shell::wait_for(PATIENCE, || self.lab.at("c1").enter(asked));
            assert!(answers.is_some(), "{given}, then {target} answers");
        }
        // What comes after the answer counts, too.
        std::thread::sleep(Duration::from_millis(300));
        for (prober, target) in probers.into_iter().zip(&self.targets) {
            let gap = prober.finish(began);
            println!(
                "{given}: {target} without an answer for {} ms",
                gap.as_millis()
            );
        }
    }

    fn state(&self, node: &Node, instance: &str) -> String {
        let text = node.lbadm(&format!("show-vrrp -p -o state {instance}"));
        text.trim().to_owned()
    }
}

#[test]
fn whatever_happens_to_one_node_the_other_one_answers() {
    let pair = Pair::new();
    let lab = &pair.lab;
    pair.has_all("given two nodes, when both are up", "lb", "lb2");
    for instance in ["front0", "back0", "front1", "back1"] {
        assert_eq!(pair.state(&lab.node, instance), "active");
        assert_eq!(pair.state(lab.second(), instance), "backup");
    }
    let rule = lab.second().lbadm("show-rule -p -o rulename,status");
    assert!(rule.contains("rule0:"), "{rule}");

    pair.happens(
        "given a pair, when the active one is disabled",
        "lb2",
        "lb",
        || {
            lab.node.lbadm("modify-vrrp -i enabled=no front0");
            for instance in ["back0", "front1", "back1"] {
                lab.node
                    .lbadm(&format!("modify-vrrp -i enabled=no {instance}"));
            }
        },
    );
    pair.happens(
        "given a disabled node, when it is enabled",
        "lb",
        "lb2",
        || {
            for instance in ["front0", "back0", "front1", "back1"] {
                lab.node
                    .lbadm(&format!("modify-vrrp -i enabled=yes {instance}"));
            }
        },
    );
    pair.happens("given a pair, when the fast path dies", "lb2", "lb", || {
        lab.node.kill_fastpath();
    });
    assert_eq!(pair.state(&lab.node, "front0"), "fault");
    pair.happens(
        "given a dead fast path, when it comes back",
        "lb",
        "lb2",
        || {
            lab.node.start_fastpath();
        },
    );
    pair.happens(
        "given a pair, when an interface goes down",
        "lb2",
        "lb",
        || {
            lab.at("lb").run("ip link set eth1 down");
        },
    );
    pair.happens(
        "given an interface that is down, when it is up",
        "lb",
        "lb2",
        || {
            lab.at("lb").ip(&[
                "link set eth1 up".to_owned(),
                "addr replace fd02::1/64 dev eth1 nodad".to_owned(),
                "addr replace fe80::1/64 dev eth1 nodad".to_owned(),
            ]);
        },
    );
    // A dead manager cannot take its addresses away; the other one has announced that it has them.
    pair.happens(
        "given a pair, when everything is killed on the active one",
        "lb2",
        "",
        || {
            lab.node.kill_manager();
            lab.node.kill_fastpath();
        },
    );
    pair.happens(
        "given a killed node, when it comes back",
        "lb",
        "lb2",
        || {
            lab.node.start();
        },
    );
    lab.node.stop();
    pair.has_all("given a pair, when one is stopped", "lb2", "lb");
    lab.second().assert_alive();
}
