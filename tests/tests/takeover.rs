//! Two nodes that share their addresses by VRRP and tell each other of their connections, or only how to find their servers: 200
//! downloads and 200 open connections, in all topologies, survive whatever happens to the node that forwards them.

use std::net::SocketAddr;
use std::time::Duration;

use ilb_tests::held::Held;
use ilb_tests::lab::node::Node;
use ilb_tests::lab::plan::Net;
use ilb_tests::lab::web::small_file;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::peers::Peers;
use ilb_tests::service::Service;
use ilb_tests::transfer::{Downloads, sha256_of};
use ilb_tests::tunnel::{FarEnd, Kind};
use ilb_tests::{Family, Topology, shell};

const PATIENCE: Duration = Duration::from_secs(30);
const ROLES: [&str; 2] = ["lb", "lb2"];
/// Downloads, and open connections, of all services together at least.
const MANY: usize = 200;
/// The servers' way home, which is one of the shared addresses.
const GATEWAY: u8 = 250;

struct Site {
    lab: Lab,
    /// What is told of connections, as `sync` says it.
    sync: &'static str,
    /// Downloads, and open connections, of each service.
    each: usize,
    peers: Peers,
    targets: Vec<SocketAddr>,
    held: Vec<Held>,
    sha256: String,
    _far_ends: Vec<FarEnd>,
}

impl Site {
    fn new(sync: &'static str) -> Site {
        let lab = Lab::new(Spec {
            servers: 2,
            pair: true,
            ..Spec::default()
        });
        lab.node.start();
        lab.second().start();
        let (targets, far_ends) = configure(&lab, sync);
        let peers = Peers {
            runs: ["run", "second/run"].map(|run| lab.directory().join(run)),
            addresses: [1, 2].map(|host| Net::Front.host(Family::V4, host)),
        };
        let sha256 = sha256_of(&small_file(lab.directory()));
        Site {
            sync,
            each: MANY.div_ceil(targets.len()),
            peers,
            targets,
            held: Vec::new(),
            sha256,
            _far_ends: far_ends,
            lab,
        }
    }

    fn node(&self, at: usize) -> &Node {
        [&self.lab.node, self.lab.second()][at]
    }

    fn is_active(&self, at: usize) -> bool {
        let addresses = self.lab.at(ROLES[at]).run("ip -o addr show");
        let has = |it: &SocketAddr| addresses.contains(&format!(" {}/", it.ip()));
        self.targets.iter().all(has)
    }

    #[track_caller]
    fn becomes_active(&self, at: usize, when: &str) {
        let active = shell::wait_for(PATIENCE, || self.is_active(at).then_some(()));
        assert!(
            active.is_some(),
            "{when}, then {} has all addresses: {}",
            ROLES[at],
            self.node(at).lbadm("show-vrrp -p -o name,state,reason")
        );
    }

    #[track_caller]
    fn is_backup(&self, at: usize, when: &str) {
        let backup = shell::wait_for(PATIENCE, || {
            let states = self.node(at).lbadm("show-vrrp -p -o state");
            states.lines().all(|it| it == "backup").then_some(())
        });
        assert!(
            backup.is_some(),
            "{when}, then {} is a backup: {}",
            ROLES[at],
            self.node(at).lbadm("show-vrrp -p -o name,state,reason")
        );
    }

    fn hold(&mut self) {
        for target in &self.targets {
            let open = || {
                (0..self.each)
                    .map(|_| Held::open(*target))
                    .collect::<Vec<_>>()
            };
            self.held.extend(self.lab.at("c1").enter(open));
        }
    }

    #[track_caller]
    fn all_go_on(&mut self, when: &str) {
        let ask = |it: &mut Held| {
            let answer = it.ask().map_err(|error| error.to_string());
            (answer, it.server.clone())
        };
        let held = &mut self.held;
        let answers: Vec<_> = self
            .lab
            .at("c1")
            .enter(|| held.iter_mut().map(ask).collect());
        let broken: Vec<String> = answers
            .into_iter()
            .enumerate()
            .filter(|(_, (answer, server))| answer.as_ref() != Ok(server))
            .map(|(at, (answer, server))| {
                format!("{} to {server}: {answer:?}", self.targets[at / self.each])
            })
            .collect();
        assert!(
            broken.is_empty(),
            "{when}, then every open connection goes on with its server; {} of {} do not: {:#?}",
            broken.len(),
            self.held.len(),
            &broken[..broken.len().min(8)]
        );
    }

    /// Waits until a node knows what it has to of so many connections.
    #[track_caller]
    fn knows(&self, at: usize, count: usize) {
        match self.sync {
            "full" => self.peers.has_open(at, count as u64),
            _ => {
                self.peers.until(at, &format!("{count} are known"), |it| {
                    it.counters["known_traces"] >= count as u64
                });
                // Some of them may be of connections that have ended: what began just now takes its ten milliseconds.
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        self.peers.settled();
    }

    /// The node that is active now loses its role to the other one, under downloads.
    #[track_caller]
    fn happens(&mut self, when: &str, active: usize, event: impl FnOnce(&Site)) {
        let other = 1 - active;
        assert!(
            self.is_active(active),
            "{when}: {} is active",
            ROLES[active]
        );
        let downloads: Vec<Downloads> = self
            .targets
            .iter()
            .map(|it| {
                Downloads::start(
                    self.lab.at("c1"),
                    *it,
                    "/paced/small?rate=100000",
                    self.each,
                )
            })
            .collect();
        let count = self.each * self.targets.len();
        self.knows(other, self.held.len() + count);
        let under_way: usize = downloads.iter().map(Downloads::under_way).sum();
        assert_eq!(under_way, count, "{when}: downloads are under way before");
        event(self);
        self.becomes_active(other, when);
        self.all_go_on(when);
        let under_way: usize = downloads.iter().map(Downloads::under_way).sum();
        assert!(under_way > 0, "{when}: downloads have seen the takeover");
        for set in downloads {
            set.none_broken(&self.sha256, when);
        }
        println!(
            "{when}: {count} downloads, {under_way} of them over the takeover, and {} open connections went on",
            self.held.len()
        );
    }
}

/// Seven services on both nodes, and instances for their addresses. Nodes with the same settings, so that the one that has
/// the addresses keeps them: a node that comes back has to be told of all connections first.
fn configure(lab: &Lab, sync: &str) -> (Vec<SocketAddr>, Vec<FarEnd>) {
    let mut lines = Vec::new();
    let mut targets = Vec::new();
    let mut addresses = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    // A NAT port has to be known exactly.
    let told = |it: &Topology| sync == "full" || *it != Topology::Nat;
    for (number, topology) in Topology::ALL.into_iter().filter(told).enumerate() {
        for (more, family) in Family::BOTH.into_iter().enumerate() {
            let service = Service::http((2 * number + more) as u8, topology, family);
            let vip = lab.vip(family, service.number);
            match topology {
                Topology::Dsr => lab.dsr_address(vip),
                Topology::Nat => {
                    addresses[1][more].push(lab.proxy_source(family, service.number));
                }
                Topology::HalfNat => {}
            }
            let rule = service.rule_line(lab);
            let rule = rule.replace(" -m ", &format!(" -m sync={sync},"));
            lines.extend([service.group_line(lab), rule]);
            addresses[0][more].push(vip);
            targets.push(SocketAddr::new(vip, 80));
        }
    }
    let (vip, source) = (lab.vip(Family::V4, 9), lab.proxy_source(Family::V4, 9));
    lab.dsr_address(vip);
    let servers = lab.server_specs(Family::V4, "");
    lines.push(format!("create-servergroup -s server={servers} far"));
    lines.push(format!(
        "create-rule -e -i vip={vip},port=80 -m sync={sync},lbalg=rr,type=TUN,tunnel=ipip,proxy-src={source} -o servergroup=far tunnel"
    ));
    addresses[0][0].push(vip);
    addresses[1][0].push(source);
    targets.push(SocketAddr::new(vip, 80));
    for (family, of) in Family::BOTH.into_iter().zip(&mut addresses[1]) {
        let gateway = Net::Back.host(family, GATEWAY);
        of.push(gateway);
        for n in 1..=2 {
            let all = if family == Family::V4 {
                "default"
            } else {
                "::/0"
            };
            lab.at(&format!("s{n}"))
                .run(&format!("ip route replace {all} via {gateway}"));
        }
    }
    for (node, priority) in [(&lab.node, 150), (lab.second(), 100)] {
        // First the instances: then no node puts the addresses up for its rules.
        for (side, of) in addresses.iter().enumerate() {
            for (number, list) in of.iter().enumerate() {
                let list: Vec<String> = list.iter().map(ToString::to_string).collect();
                node.lbadm(&format!(
                    "create-vrrp -i interface=eth{side},vrid={},addresses={},sync-group=pair,interval=0.1,\
                     preempt=no,priority={priority} side{side}{number}",
                    51 + number,
                    list.join(",")
                ));
            }
        }
        for line in &lines {
            node.lbadm(line);
        }
    }
    let far_ends = (1..=2).map(|n| {
        let at = lab.at(&format!("s{n}"));
        FarEnd::start(at, Kind::Ipip, lab.server(Family::V4, n))
    });
    (targets, far_ends.collect())
}

fn signal(pid: u32, name: &str) {
    shell::run_line(&format!("kill -s {name} {pid}")).ok();
}

#[test]
fn nothing_that_happens_to_the_active_node_breaks_a_connection() {
    four_ways("full");
}

#[test]
fn it_is_enough_to_know_the_servers_of_connections() {
    four_ways("light");
}

fn four_ways(sync: &'static str) {
    let mut site = Site::new(sync);
    site.peers.introduce(0);
    site.peers.introduce(1);
    site.becomes_active(0, "given two nodes");
    site.is_backup(1, "given two nodes");
    site.peers.settled();
    site.hold();

    let when = "when the active node is disabled";
    site.happens(when, 0, |site| drop(site.node(0).lbadm("disable-vrrp")));
    site.node(0).lbadm("enable-vrrp");
    site.is_backup(0, "when it is enabled again");

    let when = "when everything on the active node is killed";
    site.happens(when, 1, |site| {
        site.node(1).kill_manager();
        site.node(1).kill_fastpath();
    });
    // Like another machine in its place: nothing of the table is left.
    let table = site.peers.runs[1].join("connections");
    std::fs::remove_file(table).expect("there is a table");
    site.node(1).start();
    site.is_backup(1, "when the killed node is back");
    site.peers.introduce(1);
    site.knows(1, site.held.len());

    let when = "when an interface of the active node goes down";
    site.happens(when, 0, |site| {
        site.lab.at("lb").run("ip link set eth1 down");
    });
    site.lab.at("lb").ip(&[
        "link set eth1 up".to_owned(),
        "addr replace fd02::1/64 dev eth1 nodad".to_owned(),
        "addr replace fe80::1/64 dev eth1 nodad".to_owned(),
    ]);
    site.is_backup(0, "when the interface is up again");
    site.peers.settled();

    let when = "when the active node is stopped (SIGSTOP)";
    let stopped = [site.node(1).manager_pid(), site.node(1).fastpath_pid()];
    site.happens(when, 1, |_| {
        stopped.iter().for_each(|it| signal(*it, "STOP"))
    });
    stopped.iter().for_each(|it| signal(*it, "CONT"));
    site.is_backup(1, "when the stopped node goes on");
    site.peers.settled();
    site.all_go_on("when all is over");
    site.node(0).assert_alive();
    site.node(1).assert_alive();
}
