//! Two nodes that are a pair, as two commands make it, which tell each other of their connections, or only how to find their
//! servers: 200 downloads and 200 open connections, in all topologies, survive whatever happens to the node that forwards them,
//! all of it one after the other.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ilb_tests::held::Held;
use ilb_tests::joined::{Joined, PATIENCE, ROLES};
use ilb_tests::lab::plan::Net;
use ilb_tests::lab::web::small_file;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::service::Service;
use ilb_tests::transfer::{Downloads, sha256_of};
use ilb_tests::tunnel::{FarEnd, Kind};
use ilb_tests::{Family, Topology, shell};

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
    targets: Vec<SocketAddr>,
    held: Vec<(SocketAddr, Held)>,
    downloads: Vec<Downloads>,
    _far_ends: Vec<FarEnd>,
}

impl Site {
    fn new(sync: &'static str) -> Site {
        let lab = Lab::new(Spec {
            servers: 2,
            pair: true,
            ..Spec::default()
        });
        let pair = Joined::start(&lab);
        let (targets, far_ends) = configure(&lab, sync);
        pair.join();
        Site {
            sync,
            each: MANY.div_ceil(targets.len()),
            targets,
            held: Vec::new(),
            downloads: Vec::new(),
            _far_ends: far_ends,
            lab,
        }
    }

    fn pair(&self) -> Joined<'_> {
        Joined { lab: &self.lab }
    }

    /// The node has all addresses, and says that it is active.
    #[track_caller]
    fn takes_over(&self, at: usize, when: &str) {
        let addresses: Vec<IpAddr> = self.targets.iter().map(SocketAddr::ip).collect();
        let has = || self.pair().has(at, &addresses).then_some(());
        assert!(
            shell::wait_for(PATIENCE, has).is_some(),
            "{when}, then {} has all addresses: {}",
            ROLES[at],
            self.pair()
                .node(at)
                .lbadm("show-vrrp -p -o name,state,reason")
        );
        let given = format!("{when}, then {} is active", ROLES[at]);
        self.pair()
            .until(at, &given, |pair| pair["here"]["active"] == true);
    }

    /// Opens so many more connections to each service, which stay open.
    fn hold(&mut self, count: usize) {
        let client = self.lab.at("c1");
        for target in &self.targets {
            let open = || (0..count).map(|_| (*target, Held::open(*target)));
            let open = || open().collect::<Vec<_>>();
            self.held.extend(client.enter(open));
        }
    }

    fn download(&mut self) {
        let client = self.lab.at("c1");
        let start = |it: &SocketAddr| Downloads::slowly(client, *it, "/files/small", self.each);
        self.downloads = self.targets.iter().map(start).collect();
    }

    #[track_caller]
    fn all_go_on(&mut self, when: &str) {
        let ask = |(target, it): &mut (SocketAddr, Held)| {
            let answer = it.ask().map_err(|error| error.to_string());
            (answer != Ok(it.server.clone()))
                .then(|| format!("{target} to {}: {answer:?}", it.server))
        };
        let held = &mut self.held;
        let client = self.lab.at("c1");
        let broken: Vec<String> = client.enter(|| held.iter_mut().filter_map(ask).collect());
        assert!(
            broken.is_empty(),
            "{when}, then every open connection goes on with its server; {} of {} do not: {:#?}",
            broken.len(),
            self.held.len(),
            &broken[..broken.len().min(8)]
        );
        let under_way: usize = self.downloads.iter().map(Downloads::under_way).sum();
        assert_eq!(
            under_way,
            self.each * self.targets.len(),
            "{when}, then no download has ended"
        );
        println!(
            "{when}: {under_way} downloads and {} open connections go on",
            self.held.len()
        );
    }

    /// Waits until a node knows what it has to of all connections.
    #[track_caller]
    fn knows(&self, at: usize) {
        let count = self.held.len() + self.each * self.downloads.len();
        match self.sync {
            "full" => self.pair().knows(at, count),
            _ => {
                let given = format!("given {count} connections, then they are known");
                self.pair().until(at, &given, |pair| {
                    let known = &pair["connections"]["counters"]["known_traces"];
                    known.as_u64() >= Some(count as u64)
                });
                // Some of them may be of connections that have ended: what began just now takes its ten milliseconds.
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        self.pair().settled("given connections");
    }
}

/// Seven services on the first node, and instances for their addresses.
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
    // First the instances: then the node does not put the addresses up for its rules.
    for (side, of) in addresses.iter().enumerate() {
        for (number, list) in of.iter().enumerate() {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            lab.node.lbadm(&format!(
                "create-vrrp -i interface=eth{side},vrid={},addresses={},sync-group=pair,interval=0.1,priority=150 \
                 side{side}{number}",
                51 + number,
                list.join(",")
            ));
        }
    }
    for line in &lines {
        lab.node.lbadm(line);
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
    let given = "given two nodes that are a pair";
    site.pair().settled(given);
    site.pair().active(given, 0);
    site.hold(site.each);
    site.download();
    site.knows(1);

    let when = "when everything on the active node is killed";
    site.pair().kill(0);
    site.takes_over(1, when);
    site.all_go_on(when);
    site.hold(2);
    // Like another machine in its place: nothing of the table is left.
    let table = site.lab.directory().join("run/connections");
    std::fs::remove_file(table).expect("there is a table");
    site.pair().node(0).start();
    // It has the higher priority, and knows nothing of connections at first.
    let when = "when the killed node is back";
    site.pair().active(when, 0);
    site.all_go_on(when);
    site.knows(1);

    let when = "when the active node gives its addresses away";
    site.pair().node(0).lbadm("failover");
    site.takes_over(1, when);
    site.pair().active(when, 1);
    site.all_go_on(when);
    site.hold(2);
    site.knows(0);

    let when = "when an interface of the active node goes down";
    let lb2 = site.lab.at("lb2").clone();
    lb2.run("ip link set eth1 down");
    site.takes_over(0, when);
    site.all_go_on(when);
    site.hold(2);
    lb2.ip(&[
        "link set eth1 up".to_owned(),
        "addr replace fd02::2/64 dev eth1 nodad".to_owned(),
        "addr replace fe80::2/64 dev eth1 nodad".to_owned(),
    ]);
    let when = "when the interface is up again";
    site.pair().settled(when);
    site.pair().active(when, 0);
    site.knows(1);

    let when = "when the active node is stopped (SIGSTOP)";
    let stopped = [
        site.pair().node(0).manager_pid(),
        site.pair().node(0).fastpath_pid(),
    ];
    stopped.iter().for_each(|it| signal(*it, "STOP"));
    site.takes_over(1, when);
    site.all_go_on(when);
    site.hold(2);
    // For so long that it has to be told of everything anew.
    let given = format!("{when}, then the other one does not hear its fast path any more");
    site.pair()
        .until(1, &given, |pair| pair["connections"]["up"] == false);
    site.hold(2);
    stopped.iter().for_each(|it| signal(*it, "CONT"));
    let when = "when the stopped node goes on";
    site.pair().active(when, 0);
    site.all_go_on(when);

    let expected = sha256_of(&small_file(site.lab.directory()));
    site.downloads.iter().for_each(Downloads::hurry);
    for set in site.downloads.drain(..) {
        set.none_broken(&expected, "given all of that");
    }
    site.pair().settled("when all is over");
    site.pair().node(0).assert_alive();
    site.pair().node(1).assert_alive();
}
