//! What it costs the packets of others that connections follow, through real rings: 100,000 flows at full rate, and 10,000 new
//! ones a second beside them, with and without a peer in turn. The peer's fast path shares the source's processor.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ilb_node::control::Request;

use super::rings::{PORT, Wire, pin_all};
use super::{Report, median};
use crate::Family;
use crate::lab::Spec;
use crate::peers::Peers;

const LASTING: u32 = 100_000;
/// New flows in a hundredth of a second.
const NEW: u32 = 100;
const ROUNDS: usize = 5;
/// Ports of each address that new flows come from.
const PORTS: u32 = 50_000;

/// New flows of two datagrams each, until `stop`; gives how many there were a second.
fn begin_flows(vip: Ipv4Addr, stop: &AtomicBool, next: &mut u32) -> f64 {
    let (start, mut begun, mut ticks) = (Instant::now(), 0u32, 0u32);
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..NEW {
            let address = Ipv4Addr::from_bits(0x0c00_0001 + *next / PORTS);
            let port = 10_000 + (*next % PORTS) as u16;
            *next += 1;
            let socket = UdpSocket::bind((address, port)).expect("a free port of the client");
            for _ in 0..2 {
                // What the balancer's rings have no room for is lost, as everywhere.
                let _ = socket.send_to(b"new", (vip, PORT));
            }
            begun += 1;
        }
        ticks += 1;
        let due = Duration::from_millis(10) * ticks;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    f64::from(begun) / start.elapsed().as_secs_f64()
}

/// Measures and reports.
pub fn run(report: &mut Report) {
    println!("\nConnections follow, through real rings ({LASTING} flows, new ones beside them):");
    let wire = Wire::of(Spec {
        servers: 1,
        twin: true,
        ..Spec::default()
    });
    let lab = wire.lab();
    let vip = match lab.vip(Family::V4, 0) {
        std::net::IpAddr::V4(vip) => vip,
        std::net::IpAddr::V6(vip) => panic!("{vip} is not IPv4"),
    };
    let peers = Peers {
        runs: ["run", "second/run"].map(|run| lab.directory().join(run)),
        addresses: [[10, 8, 0, 1], [10, 8, 0, 2]].map(Into::into),
    };
    // The client has whole networks of addresses.
    lab.at("c1").run("ip route add local 12.0.0.0/16 dev lo");
    wire.start_ilb();
    lab.second().start();
    pin_all(lab.second().fastpath_pid(), 0);
    for node in [&lab.node, lab.second()] {
        node.lbadm(&format!(
            "create-servergroup -s server={}:{PORT} bench",
            wire.server()
        ));
        node.lbadm(&format!(
            "create-rule -e -i vip={vip},port={PORT},protocol=udp -m lbalg=rr,type=HALF-NAT -t udp=20 -o servergroup=bench bench"
        ));
    }
    let (mut next, mut rates) = (0, [vec![], vec![]]);
    let mut begun = Vec::new();
    for round in 0..2 * ROUNDS {
        let with = round % 2 == 1;
        if with {
            (0..2).for_each(|at| peers.introduce(at));
            peers.until(0, "the peer is there", |it| it.up);
        } else {
            (0..2).for_each(|at| drop(peers.ask(at, &Request::Peer(None))));
        }
        pin_all(lab.node.fastpath_pid(), 1);
        let stop = AtomicBool::new(false);
        let rate = std::thread::scope(|scope| {
            let beginner = scope.spawn(|| {
                lab.at("c1").join_here();
                begin_flows(vip, &stop, &mut next)
            });
            let rate = wire.measure(LASTING, vip, 1);
            stop.store(true, Ordering::Relaxed);
            begun.push(beginner.join().expect("new flows were begun"));
            rate
        });
        rates[usize::from(with)].push(rate);
        if with {
            let sent = peers.status(0).counters["sent_records"];
            assert!(sent > 0, "given a peer, then it is told of new flows");
        }
    }
    let [without, with] = &rates;
    let ratios = with
        .iter()
        .zip(without)
        .map(|(with, without)| with / without);
    let ratio = median(ratios.collect());
    lab.second().stop();
    wire.stop_ilb();
    let meaning = "new flows a second beside those that last";
    report.add("sync_rings_new_per_s", median(begun), "1/s", meaning);
    let meaning = "HALF-NAT, without a peer";
    let rate = median(without.clone()) / 1e6;
    report.add("sync_rings_mpps", rate, "Mpps", meaning);
    let meaning = "rate of packets through rings, with a peer against without";
    report.add("sync_ratio_rings", ratio, "ratio", meaning);
}
