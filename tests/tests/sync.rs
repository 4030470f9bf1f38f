//! Two nodes of which one takes over what the other one began: no connection breaks, whether the other one was told each of
//! them or only how to find their servers.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use ilb_node::control::PEER_PORT;
use ilb_tests::capture::Capture;
use ilb_tests::held::Held;
use ilb_tests::lab::node::Node;
use ilb_tests::lab::web::big_file;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::peers::Peers;
use ilb_tests::service::Service;
use ilb_tests::transfer::{Downloads, sha256_of};
use ilb_tests::tunnel::{FarEnd, Kind};
use ilb_tests::{Family, shell};

const PATIENCE: Duration = Duration::from_secs(30);
const NODES: [&str; 2] = ["10.8.0.1", "10.8.0.2"];
/// Downloads and open connections of each service.
const EACH: usize = 4;

/// Both nodes, by number.
struct Pair {
    lab: Lab,
    peers: Peers,
}

impl Pair {
    fn new(lab: Lab) -> Pair {
        let peers = Peers {
            runs: ["run", "second/run"].map(|run| lab.directory().join(run)),
            addresses: NODES.map(|it| it.parse().expect("an address")),
        };
        Pair { lab, peers }
    }

    fn node(&self, at: usize) -> &Node {
        [&self.lab.node, self.lab.second()][at]
    }

    /// Every open connection is answered by the server that it has had.
    #[track_caller]
    fn same(&self, targets: &[SocketAddr], held: &mut [Held], when: &str) {
        let again = |it: &mut Held| {
            (
                it.ask().map_err(|error| error.to_string()),
                it.server.clone(),
            )
        };
        let client = self.lab.at("c1");
        let answers: Vec<_> = client.enter(|| held.iter_mut().map(again).collect());
        for (at, (answer, server)) in answers.into_iter().enumerate() {
            let target = targets[at % targets.len()];
            assert_eq!(
                answer,
                Ok(server),
                "given an open connection to {target}, {when}, then its server answers"
            );
        }
    }

    /// A node knows of so many traces.
    #[track_caller]
    fn has_traces(&self, at: usize, count: u64) {
        self.peers
            .until(at, &format!("{count} traces are known"), |it| {
                it.counters["known_traces"] >= count
            });
    }

    fn kill(&self, at: usize) {
        self.node(at).kill_manager();
        self.node(at).kill_fastpath();
    }
}

/// HTTP in all topologies: six services as everywhere, and one through a tunnel. With less than everything told: those for
/// which that is enough.
fn services(lab: &Lab, sync: &str) -> (Vec<SocketAddr>, Vec<FarEnd>) {
    let mut lines = Vec::new();
    let mut targets = Vec::new();
    let nat = |it: &ilb_tests::Topology| *it == ilb_tests::Topology::Nat;
    let topologies = ilb_tests::Topology::ALL;
    let topologies = topologies
        .into_iter()
        .filter(|it| sync == "full" || !nat(it));
    for (number, topology) in topologies.enumerate() {
        for (more, family) in Family::BOTH.into_iter().enumerate() {
            let algorithm = ["roundrobin", "lc"][more];
            let service =
                Service::http((2 * number + more) as u8, topology, family).algorithm(algorithm);
            let vip = lab.vip(family, service.number);
            if topology == ilb_tests::Topology::Dsr {
                lab.dsr_address(vip);
            }
            let rule = service
                .rule_line(lab)
                .replace("-m ", &format!("-m sync={sync},"));
            lines.extend([service.group_line(lab), rule]);
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
    targets.push(SocketAddr::new(vip, 80));
    let far_ends = (1..=2).map(|n| {
        let at = lab.at(&format!("s{n}"));
        FarEnd::start(at, Kind::Ipip, lab.server(Family::V4, n))
    });
    let far_ends = far_ends.collect();
    for line in &lines {
        lab.node.lbadm(line);
    }
    // The other node got its configuration in another order, so that its numbers are others.
    let second = lab.second();
    second.lbadm("create-servergroup -s server=10.2.0.77,10.2.0.78 other");
    for pair in lines.chunks(2).rev() {
        pair.iter().for_each(|line| drop(second.lbadm(line)));
    }
    (targets, far_ends)
}

/// The datagrams in what tcpdump has printed: what follows IPv4's and UDP's header.
fn datagrams(captured: &[String]) -> Vec<Vec<u8>> {
    let all = captured.iter().map(|packet| Capture::bytes(packet));
    all.filter(|it| it.len() > 28)
        .map(|it| it[28..].to_vec())
        .collect()
}

/// Sends datagrams to node 1 as a stranger does who sits on the peer's own machine.
fn send(lab: &Lab, from: &str, datagrams: &[Vec<u8>]) {
    lab.at("lb").enter(|| {
        let socket = UdpSocket::bind((from, 0)).expect("an address of the balancer");
        for datagram in datagrams {
            socket
                .send_to(datagram, (NODES[1], PEER_PORT))
                .expect("a way to the peer");
        }
    });
}

fn big(lab: &Lab) -> String {
    sha256_of(Path::new(&big_file(lab.directory())))
}

#[test]
fn no_connection_breaks_when_the_other_node_takes_over() {
    let lab = Lab::new(Spec {
        servers: 2,
        twin: true,
        ..Spec::default()
    });
    lab.node.start();
    lab.second().start();
    let (targets, _far_ends) = services(&lab, "full");
    let pair = Pair::new(lab);
    let lab = &pair.lab;
    pair.peers.introduce(0);
    pair.peers.introduce(1);
    pair.peers.settled();

    let mut held: Vec<Held> = Vec::new();
    for _ in 0..EACH {
        let open = || {
            targets
                .iter()
                .map(|target| Held::open(*target))
                .collect::<Vec<_>>()
        };
        held.extend(lab.at("c1").enter(open));
    }
    pair.peers.has_open(1, held.len() as u64);
    pair.peers.settled();

    // What strangers say changes nothing, and is counted.
    let capture = Capture::start(lab.at("lb2"), "peer", "udp and src host 10.8.0.1");
    let heard = shell::wait_for(PATIENCE, || (capture.lines().len() > 12).then_some(()));
    assert!(
        heard.is_some(),
        "given two nodes, then they speak with each other"
    );
    let mut real = datagrams(&capture.stop());
    real.retain(|it| it[5] == 2);
    let sealed = real.first().expect("a sealed datagram").clone();
    let before = pair.peers.status(1);
    let mut future = sealed.clone();
    future[16..24].fill(0xff);
    let mut old = sealed.clone();
    old[8] ^= 1;
    #[rustfmt::skip]
    let table: [(&str, &str, Vec<Vec<u8>>); 6] = [
        ("repeated", "late", real.clone()),
        ("forged", "seal", vec![future]),
        ("truncated", "length", vec![sealed[..20].to_vec(), vec![]]),
        ("foreign", "foreign", vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()]),
        ("of an old session", "session", vec![old]),
        ("of a later version", "version", vec![[&sealed[..4], &[9][..], &sealed[5..]].concat()]),
    ];
    for (what, reason, datagrams) in table {
        send(lab, NODES[0], &datagrams);
        let least = before.refused[reason] + datagrams.len() as u64;
        pair.peers
            .until(1, &format!("what is {what} is counted as {reason}"), |it| {
                it.refused[reason] >= least
            });
    }
    let after = pair.peers.status(1);
    assert!(
        after.up && after.complete,
        "given hostile datagrams, then the session goes on: {after:#?}"
    );
    assert_eq!(after.counters["sessions"], before.counters["sessions"]);
    assert_eq!(after.records["left"], before.records["left"]);

    // The other one takes over.
    let downloads: Vec<Downloads> = targets
        .iter()
        .map(|target| Downloads::start(lab.at("c1"), *target, "/paced/big?rate=700000", EACH))
        .collect();
    pair.peers.has_open(1, (2 * EACH * targets.len()) as u64);
    pair.peers.settled();
    let under_way: usize = downloads.iter().map(Downloads::under_way).sum();
    assert_eq!(
        under_way,
        EACH * targets.len(),
        "given downloads, when a node dies, then none has ended yet"
    );
    pair.kill(0);
    lab.swap("lb", "lb2");
    pair.same(&targets, &mut held, "when the other node has taken over");
    pair.peers.until(1, "the dead peer is noticed", |it| !it.up);

    // The first one comes back with nothing in its table, and is told everything.
    let expected = big(lab);
    for set in downloads {
        set.none_broken(&expected, "given downloads, when the other node takes over");
    }
    let open = EACH as u64 * targets.len() as u64;
    std::fs::remove_file(pair.peers.runs[0].join("connections")).expect("there is a table");
    lab.node.start();
    assert_eq!(
        pair.peers.open(0),
        0,
        "given a new table, then there is nothing in it"
    );
    pair.peers.introduce(0);
    pair.peers.settled();
    pair.peers.has_open(0, open);
    pair.kill(1);
    lab.swap("lb2", "lb");
    pair.same(&targets, &mut held, "when the first node is back");
    lab.node.assert_alive();
}

#[test]
fn no_connection_breaks_when_the_other_node_knows_only_their_servers() {
    let lab = Lab::new(Spec {
        servers: 2,
        twin: true,
        ..Spec::default()
    });
    lab.node.start();
    lab.second().start();
    let (targets, _far_ends) = services(&lab, "light");
    let pair = Pair::new(lab);
    let lab = &pair.lab;
    pair.peers.introduce(0);
    pair.peers.introduce(1);
    pair.peers.settled();

    let mut held: Vec<Held> = Vec::new();
    for _ in 0..EACH {
        let open = || {
            targets
                .iter()
                .map(|target| Held::open(*target))
                .collect::<Vec<_>>()
        };
        held.extend(lab.at("c1").enter(open));
    }
    let downloads: Vec<Downloads> = targets
        .iter()
        .map(|target| Downloads::start(lab.at("c1"), *target, "/paced/big?rate=700000", EACH))
        .collect();
    let all = (EACH * targets.len()) as u64;
    pair.has_traces(1, 2 * all);
    pair.peers.settled();
    assert_eq!(
        (
            pair.peers.open(1),
            pair.peers.status(0).counters["sent_records"]
        ),
        (0, 0),
        "given rules with sync=light, then no connection is told of as it is"
    );
    let under_way: usize = downloads.iter().map(Downloads::under_way).sum();
    assert_eq!(
        under_way as u64, all,
        "given downloads, when a node dies, then none has ended yet"
    );
    pair.kill(0);
    lab.swap("lb", "lb2");
    // Half of them say nothing as long as the second node has the addresses.
    let (asking, _silent) = held.split_at_mut(all as usize / 2);
    pair.same(&targets, asking, "when the other node has taken over");
    let expected = big(lab);
    for set in downloads {
        set.none_broken(&expected, "given downloads, when the other node takes over");
    }

    // The first one comes back with nothing in its table, and is told what the second one has, and what that was told.
    pair.peers.until(1, "the dead peer is noticed", |it| !it.up);
    std::fs::remove_file(pair.peers.runs[0].join("connections")).expect("there is a table");
    lab.node.start();
    pair.peers.introduce(0);
    pair.peers.settled();
    pair.has_traces(0, all);
    pair.kill(1);
    lab.swap("lb2", "lb");
    pair.same(&targets, &mut held, "when the first node is back");
    lab.node.assert_alive();
}
