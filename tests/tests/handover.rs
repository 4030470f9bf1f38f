//! A planned change of the active node loses nothing: while the addresses go from one node of a pair to the other and back,
//! every question is answered, every connection works from its first packet to its last, and nothing is dropped by either node.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ilb_node::control::{Request, Response, Statistics};
use ilb_tests::lab::namespace::Namespace;
use ilb_tests::lab::node::Node;
use ilb_tests::lab::plan::Net;
use ilb_tests::lab::web::big_file;
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load;
use ilb_tests::peers::Peers;
use ilb_tests::service::Service;
use ilb_tests::transfer::{Downloads, sha256_of};
use ilb_tests::{Family, Topology, shell};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
/// The servers' way home under HALF-NAT, which is one of the shared addresses.
const GATEWAY: u8 = 250;
/// Changes of the active node, at least and at most.
const FEWEST: usize = 4;
const MOST: usize = 16;
/// A machine that stands still for longer loses packets by itself, because rings overflow: what happens meanwhile does not count.
const STANDSTILL: Duration = Duration::from_millis(60);
/// Whoever has lost a packet waits for at least so long (RFC 6298, as Linux has it).
const RETRANSMITTED: Duration = Duration::from_millis(200);
/// What a packet may take.
const LATE: Duration = Duration::from_millis(500);
/// VRRP instances: clients' side and servers' side, IPv4 and IPv6.
const INSTANCES: usize = 4;
/// Between two questions to one service.
const PACE: Duration = Duration::from_millis(4);
/// Those who open connections to one service, one after the other.
const CALLERS: usize = 3;
const ROLES: [&str; 2] = ["lb", "lb2"];
/// Neither NAT nor HALF-NAT goes without: answers pass through the active node.
const TOPOLOGIES: [Topology; 2] = [Topology::Nat, Topology::HalfNat];

struct Site {
    lab: Lab,
    peers: Peers,
    questions: Vec<SocketAddr>,
    webs: Vec<SocketAddr>,
}

impl Site {
    fn new() -> Site {
        let lab = Lab::new(Spec {
            servers: 2,
            pair: true,
            ..Spec::default()
        });
        lab.node.start();
        lab.second().start();
        let (questions, webs) = configure(&lab);
        let runs: [PathBuf; 2] = ["run", "second/run"].map(|run| lab.directory().join(run));
        let peers = Peers {
            runs,
            addresses: [1, 2].map(|host| Net::Back.host(Family::V4, host)),
        };
        let site = Site {
            lab,
            peers,
            questions,
            webs,
        };
        let invited = site.node(0).lbadm("pair create --address 10.2.0.1");
        let line = invited
            .lines()
            .find_map(|line| line.trim().strip_prefix("lbadm "))
            .expect("pair create says what to type on the other node");
        site.node(1).lbadm(line);
        site
    }

    fn node(&self, at: usize) -> &Node {
        [&self.lab.node, self.lab.second()][at]
    }

    fn shown(&self, at: usize) -> Value {
        let json = self.node(at).lbadm("-j show-pair");
        serde_json::from_str(&json).expect("show-pair writes JSON")
    }

    /// One node is active, the other one is not, and both know the same.
    #[track_caller]
    fn settles(&self, given: &str, active: usize) {
        let stands = |at: usize| {
            let pair = self.shown(at);
            let known = &pair["connections"];
            pair["configuration"]["step"] == "in-step"
                && known["up"] == true
                && known["complete"] == true
                && pair["here"]["active"] == (at == active)
                && pair["there"]["active"] == (at != active)
        };
        let settled = shell::wait_for(PATIENCE, || (stands(0) && stands(1)).then_some(()));
        assert!(
            settled.is_some(),
            "{given}, then {} is active and both are in step:\n{}\n{}",
            ROLES[active],
            self.node(0).lbadm("show-pair"),
            self.node(1).lbadm("show-pair")
        );
    }

    fn statistics(&self, at: usize) -> Statistics {
        match self.peers.ask(at, &Request::Statistics) {
            Response::Statistics(statistics) => statistics,
            other => panic!("{other:?}"),
        }
    }

    /// Packets that a node has dropped or left to the kernel, by the name of it.
    fn refused(&self, at: usize) -> Vec<(String, u64)> {
        let statistics = self.statistics(at);
        let kernel = ("kernel".to_owned(), statistics.totals.unprocessed_packets);
        statistics.drops.into_iter().chain([kernel]).collect()
    }

    fn relayed(&self) -> u64 {
        let relayed = |at| self.peers.status(at).counters["relayed_packets"];
        relayed(0) + relayed(1)
    }

    /// Times that TCP in a namespace had to wait for its timer before it sent again.
    fn timeouts(&self, role: &str) -> u64 {
        let text = self.lab.at(role).run("cat /proc/net/netstat");
        let mut lines = text.lines().filter(|it| it.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        let mut both = names.split(' ').zip(values.split(' '));
        let found = both.find(|(name, _)| *name == "TCPTimeouts");
        let (_, value) = found.expect("the kernel counts timeouts");
        value.parse().expect("a number")
    }
}

/// Eight services, and instances for their addresses. The names of those that clients ask come first: it shall not be the
/// alphabet that has servers know of the change before.
fn configure(lab: &Lab) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let (mut lines, mut questions, mut webs) = (Vec::new(), Vec::new(), Vec::new());
    let mut addresses = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    let mut number = 0;
    for (more, family) in Family::BOTH.into_iter().enumerate() {
        lab.udp_echo(family, &[], 7);
        for topology in TOPOLOGIES {
            for service in [
                Service::http(number, topology, family),
                Service::echo(number + 1, topology, family),
            ] {
                let vip = lab.vip(family, service.number);
                addresses[0][more].push(vip);
                if topology == Topology::Nat {
                    addresses[1][more].push(lab.proxy_source(family, service.number));
                }
                lines.extend([service.group_line(lab), service.rule_line(lab)]);
                match service.protocol {
                    "udp" => questions.push(SocketAddr::new(vip, 7)),
                    _ => webs.push(SocketAddr::new(vip, 80)),
                }
            }
            number += 2;
        }
        let gateway = Net::Back.host(family, GATEWAY);
        addresses[1][more].push(gateway);
        let all = match family {
            Family::V4 => "default",
            Family::V6 => "::/0",
        };
        for n in 1..=2 {
            let server = lab.at(&format!("s{n}"));
            server.run(&format!("ip route replace {all} via {gateway}"));
        }
    }
    // First the instances: then no node puts the addresses up for its rules.
    for (side, (of, name)) in addresses.iter().zip(["clients", "servers"]).enumerate() {
        for (number, list) in of.iter().enumerate() {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            lab.node.lbadm(&format!(
                "create-vrrp -i interface=eth{side},vrid={},addresses={},sync-group=pair,interval=1,priority=150 \
                 {name}{number}",
                51 + number,
                list.join(",")
            ));
        }
    }
    for line in &lines {
        lab.node.lbadm(line);
    }
    (questions, webs)
}

/// Clients of one service, until they are told to stop.
struct Clients<T> {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<T>>,
}

impl<T: Send + 'static> Clients<T> {
    fn start(
        from: &Arc<Namespace>,
        targets: &[SocketAddr],
        count: usize,
        work: fn(SocketAddr, &AtomicBool) -> T,
    ) -> Clients<T> {
        let stop = Arc::new(AtomicBool::new(false));
        let each = targets
            .iter()
            .flat_map(|it| std::iter::repeat_n(*it, count));
        let threads = each.map(|target| {
            let (from, stop) = (Arc::clone(from), Arc::clone(&stop));
            std::thread::spawn(move || {
                from.join_here();
                work(target, &stop)
            })
        });
        let threads = threads.collect();
        Clients { stop, threads }
    }

    /// What each of them has to say.
    fn finish(self) -> Vec<T> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = self.threads.into_iter();
        threads
            .map(|it| it.join().expect("a client ends"))
            .collect()
    }
}

/// A question that waits for its answer.
struct Question {
    socket: UdpSocket,
    asked: Instant,
    number: usize,
}

impl Question {
    fn ask(target: SocketAddr, number: usize) -> std::io::Result<Question> {
        let socket = UdpSocket::bind((load::unspecified(target.ip()), 0))?;
        socket.connect(target)?;
        socket.set_nonblocking(true)?;
        socket.send(format!("{number}").as_bytes())?;
        let asked = Instant::now();
        Ok(Question {
            socket,
            asked,
            number,
        })
    }

    /// Whether it has its answer: `<server> <question>`.
    fn is_answered(&self) -> bool {
        let mut buffer = [0; 64];
        match self.socket.recv(&mut buffer) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                text.split(' ').next_back() == Some(&self.number.to_string())
            }
            // An answer that is lost is as good as none.
            Err(error) => error.kind() == ErrorKind::Interrupted,
        }
    }
}

/// A question that nobody has answered: to whom, and when.
type Lost = (SocketAddr, Instant);

/// How many questions were asked, each a flow of its own, and those that nobody answered.
fn questions(target: SocketAddr, stop: &AtomicBool) -> (usize, Vec<Lost>) {
    let mut waiting: Vec<Question> = Vec::new();
    let (mut asked, mut lost, mut last) = (0, Vec::new(), None);
    loop {
        waiting.retain(|it| !it.is_answered());
        let now = Instant::now();
        if stop.load(Ordering::Relaxed) {
            let end = *last.get_or_insert(now + Duration::from_secs(2));
            if waiting.is_empty() || now > end {
                break;
            }
        } else {
            match Question::ask(target, asked) {
                Ok(question) => waiting.push(question),
                Err(_) => lost.push((target, now)),
            }
            asked += 1;
        }
        std::thread::sleep(PACE);
    }
    lost.extend(waiting.iter().map(|it| (target, it.asked)));
    (asked, lost)
}

/// When the machine stood still: a thread that wanted to go on at one time and could not before another.
fn standstills(_: SocketAddr, stop: &AtomicBool) -> Vec<(Instant, Instant)> {
    let mut found = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let due = Instant::now() + PACE;
        std::thread::sleep(PACE);
        let now = Instant::now();
        if now > due + STANDSTILL {
            found.push((due, now));
        }
    }
    found
}

/// A connection that is opened, asks once, is answered, and is closed.
fn call(target: SocketAddr) -> Result<(), String> {
    let failed = |what: &'static str| move |error| format!("{what}: {error}");
    let mut stream = load::connect(target, None).map_err(failed("connect"))?;
    let request = b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n";
    stream.write_all(request).map_err(failed("send"))?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(failed("receive"))?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(format!("an answer that begins with {:.20}", answer)),
    }
}

/// How many connections there were, what went wrong, and those that took longer than any that has lost nothing.
fn calls(target: SocketAddr, stop: &AtomicBool) -> (usize, Vec<String>, Vec<(Instant, Instant)>) {
    let (mut made, mut broken, mut slow) = (0, Vec::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        if let Err(error) = call(target) {
            broken.push(format!("{target}: {error}"));
        }
        let end = Instant::now();
        if end - began > RETRANSMITTED {
            slow.push((began, end));
        }
        made += 1;
        std::thread::sleep(PACE);
    }
    (made, broken, slow)
}

/// One change of the active node.
struct Change {
    /// From the command to a while after it.
    time: (Instant, Instant),
    /// How many instances became active by it.
    takeovers: usize,
    /// What both nodes dropped or left to the kernel before it and after it.
    refused: [Vec<(String, u64)>; 2],
}

impl Change {
    fn overlaps(&self, other: &(Instant, Instant)) -> bool {
        self.time.0 <= other.1 && other.0 <= self.time.1
    }

    /// Whether nothing happened but what was planned.
    fn is_calm(&self, standstills: &[(Instant, Instant)]) -> bool {
        self.takeovers == INSTANCES && !standstills.iter().any(|it| self.overlaps(it))
    }
}

impl Site {
    /// Times that an instance of a node became active.
    fn takeovers(&self) -> usize {
        let logs = [0, 1].map(|at| self.node(at).manager_log());
        let lines = logs.iter().flat_map(|log| log.lines());
        lines.filter(|it| it.contains(" is active: ")).count()
    }

    fn all_refused(&self) -> Vec<(String, u64)> {
        [0, 1].map(|at| self.refused(at)).concat()
    }

    /// Has a node give its addresses to the other one.
    #[track_caller]
    fn change(&self, giver: usize) -> Change {
        let given = format!("given a pair under load, when {} gives away", ROLES[giver]);
        let (refused, takeovers) = (self.all_refused(), self.takeovers());
        let begin = Instant::now();
        self.node(giver).lbadm("failover");
        self.settles(&given, 1 - giver);
        std::thread::sleep(LATE);
        Change {
            time: (begin, Instant::now()),
            takeovers: self.takeovers() - takeovers,
            refused: [refused, self.all_refused()],
        }
    }
}

#[test]
fn a_planned_change_of_the_active_node_loses_no_packet() {
    let site = Site::new();
    site.settles("given two nodes of a pair", 0);
    let client = site.lab.at("c1");
    let ready = shell::wait_for(PATIENCE, || {
        let all = || site.webs.iter().all(|it| call(*it).is_ok());
        client.enter(all).then_some(())
    });
    assert!(ready.is_some(), "given a pair, then every service answers");

    let timeouts = || ["c1", "s1", "s2"].map(|role| site.timeouts(role));
    let before = timeouts();
    let looking = Clients::start(client, &site.webs[..1], 1, standstills);
    let asking = Clients::start(client, &site.questions, 1, questions);
    let calling = Clients::start(client, &site.webs, CALLERS, calls);
    let start = |it: &SocketAddr| Downloads::start(client, *it, "/paced/big?rate=1000000", 2);
    let downloads: Vec<Downloads> = site.webs.iter().map(start).collect();
    let mut changes = Vec::new();
    let goes_on = |changes: &[Change]| {
        let planned = changes.iter().filter(|it| it.takeovers == INSTANCES);
        planned.count() < FEWEST || downloads.iter().any(|it| it.under_way() > 0)
    };
    while changes.len() < MOST && goes_on(&changes) {
        changes.push(site.change(changes.len() % 2));
    }
    let expected = sha256_of(&big_file(site.lab.directory()));
    for set in downloads {
        set.none_broken(&expected, "given downloads over planned changes");
    }
    let (asked, called) = (asking.finish(), calling.finish());
    let standstills = looking.finish().concat();

    let calm: Vec<&Change> = changes
        .iter()
        .filter(|it| it.is_calm(&standstills))
        .collect();
    let slow: Vec<(Instant, Instant)> = called.iter().flat_map(|it| it.2.iter().copied()).collect();
    let lost: Vec<Lost> = asked.iter().flat_map(|it| it.1.iter().copied()).collect();
    println!(
        "{} changes, {} of them while the machine went on: {} questions, {} of them lost; {} connections, of which {} \
         took long; {} packets sent on; timeouts of TCP {before:?} before, {:?} after",
        changes.len(),
        calm.len(),
        asked.iter().map(|it| it.0).sum::<usize>(),
        lost.len(),
        called.iter().map(|it| it.0).sum::<usize>(),
        slow.len(),
        site.relayed(),
        timeouts()
    );
    let broken: Vec<&String> = called.iter().flat_map(|it| &it.1).collect();
    assert!(
        broken.is_empty(),
        "given planned changes, then every connection works: {broken:#?}"
    );
    for change in &calm {
        let here: Vec<String> = lost
            .iter()
            .filter(|(_, at)| change.overlaps(&(*at, *at)))
            .map(|(target, at)| format!("to {target} after {:?}", *at - change.time.0))
            .collect();
        let [before, after] = &change.refused;
        assert!(
            here.is_empty(),
            "given a planned change, then every question is answered: {here:#?}; refused {before:?} before and {after:?} after"
        );
        assert_eq!(
            before, after,
            "given a planned change, then no node drops a packet or leaves it to the kernel"
        );
    }
    assert!(
        !calm.is_empty(),
        "given {} changes, then the machine goes on during one of them",
        changes.len()
    );
    assert!(
        site.relayed() > 0,
        "given planned changes, then packets are sent on"
    );
    site.node(0).assert_alive();
    site.node(1).assert_alive();
}
