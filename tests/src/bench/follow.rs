//! What it costs that connections follow to a peer: 100,000 that last and 10,000 new ones a second, between two nodes whose
//! datagrams are handed over in this process. Time is virtual; what each part takes of a processor is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ilb_fastpath::peer::entries::Entries;
use ilb_forwarder::Table;
use ilb_forwarder::changes::{Change, Changes};
use ilb_forwarder::peer::{self, Places, VISITOR};
use ilb_forwarder::spec::{Synchronise, Topology};
use ilb_sync::{Event, Secret, Session, Settings};

use super::logic::{Bench, Shape};
use super::{Report, median};

const LASTING: u32 = 100_000;
const NEW: u32 = 10_000;
/// Seconds that are played.
const SECONDS: u32 = 20;
/// Looks at what there is to tell, a second.
const TICKS: u32 = 100;
const ROUNDS: usize = 9;
/// Octets of headers of a datagram: Ethernet, IPv4, UDP.
const HEADERS: u64 = 14 + 20 + 8;

fn session(node: u8) -> Session {
    let settings = Settings {
        node,
        secret: Secret::new([7; 32]),
        bandwidth: 0,
        datagram: ilb_sync::session::DATAGRAM,
    };
    let mut drawn = 0u128;
    let draw = move || {
        drawn += 1;
        (drawn << 8 | u128::from(node)).to_be_bytes()
    };
    Session::new(settings, 1 << 20, draw, 0)
}

/// One node: its forwarder, and its end of the session.
struct Node {
    bench: Bench,
    changes: Arc<Changes>,
    places: Places,
    session: Session,
    events: Vec<Event>,
    /// What the end of the session took.
    took: Duration,
}

impl Node {
    fn new(node: u8, mut bench: Bench) -> Node {
        let changes = Arc::new(Changes::new(1));
        changes.switch(true);
        bench.forwarder().set_changes(Arc::clone(&changes));
        Node {
            places: Places::of(&bench.view().snapshot),
            bench,
            changes,
            session: session(node),
            events: Vec::new(),
            took: Duration::ZERO,
        }
    }

    /// A turn of the peer's thread: changes, datagrams in, datagrams out.
    fn turn(&mut self, datagrams: Vec<Vec<u8>>, now: u64) -> Vec<Vec<u8>> {
        let began = Instant::now();
        let table: &Table = self.bench.table();
        let mut entries = Entries {
            view: self.bench.view(),
            table,
            places: &self.places,
            now: super::logic::NOW,
        };
        table.enter(VISITOR);
        for mut datagram in datagrams {
            // Two greetings of which the other end has moved on are no loss.
            let _ = self.session.handle(&mut datagram, now, &mut self.events);
        }
        for event in self.events.drain(..) {
            match event {
                Event::Record(record) => drop(entries.take(&record)),
                Event::Traces(traces) => entries.remember(&traces),
                _ => {}
            }
        }
        let session = &mut self.session;
        let missed = self.changes.take(|change| {
            if let Change::Entry(entry) = change {
                entries.tell(session, entry, now);
            }
        });
        assert!(!missed, "the rings are large enough for this rate");
        let mut out = Vec::new();
        while let Some(datagram) = session.poll(&mut entries, now, &mut self.events) {
            out.push(datagram);
        }
        table.quiesce(VISITOR);
        self.took += began.elapsed();
        out
    }
}

/// Both nodes' turns, until nobody has anything to say at this moment.
fn turns(nodes: &mut [Node; 2], now: u64) {
    let mut to_second = nodes[0].turn(Vec::new(), now);
    loop {
        let to_first = nodes[1].turn(std::mem::take(&mut to_second), now);
        if to_first.is_empty() {
            return;
        }
        to_second = nodes[0].turn(to_first, now);
    }
}

/// What it took to tell of connections.
struct Cost {
    /// Octets, headers included, and records or traces.
    octets: u64,
    told: u64,
    /// Time of sender and receiver, and of the packets that begin connections.
    took: [Duration; 2],
    beginning: Duration,
    nodes: [Node; 2],
    now: u64,
}

/// Plays connections that last and new ones.
fn play(bench: impl Fn() -> Bench, lasting: u32, new: u32, seconds: u32) -> Cost {
    let mut nodes = [Node::new(0, bench()), Node::new(1, bench())];
    let mut now = 1;
    for _ in 0..100 {
        now += 1000 / u64::from(TICKS);
        turns(&mut nodes, now);
    }
    assert!(
        nodes.iter().all(|node| node.session.is_up()),
        "both are there"
    );
    for first in (0..lasting).step_by(new as usize / TICKS as usize) {
        nodes[0].bench.begin(first, new / TICKS);
        now += 1000 / u64::from(TICKS);
        turns(&mut nodes, now);
    }
    let before = *nodes[0].session.counters();
    let mut beginning = Duration::ZERO;
    nodes.iter_mut().for_each(|node| node.took = Duration::ZERO);
    for tick in 0..seconds * TICKS {
        let first = lasting + tick * (new / TICKS);
        beginning += nodes[0].bench.begin(first, new / TICKS);
        // What goes on is told of once a minute, unless rounds do that.
        for entry in 0..lasting / 60 / TICKS {
            let entry = (tick * (lasting / 60 / TICKS) + entry) % lasting;
            nodes[0].session.changed(entry, now);
        }
        now += 1000 / u64::from(TICKS);
        turns(&mut nodes, now);
    }
    let after = *nodes[0].session.counters();
    for _ in 0..100 {
        now += 1000 / u64::from(TICKS);
        turns(&mut nodes, now);
    }
    Cost {
        octets: after.sent_octets - before.sent_octets
            + HEADERS * (after.sent_datagrams - before.sent_datagrams),
        told: after.sent_records - before.sent_records + after.sent_traces - before.sent_traces,
        took: nodes.each_ref().map(|node| node.took),
        beginning,
        nodes,
        now,
    }
}

/// Measures and reports.
pub fn run(report: &mut Report) {
    println!("Connections follow ({LASTING} that last, {NEW} new ones a second, NAT):");
    let shape = Shape {
        rules: 1,
        servers: 16,
    };
    let flows = LASTING + NEW * SECONDS;
    let bench = || Bench::empty(Topology::Nat, shape, flows, 1 << 20);
    let cost = play(bench, LASTING, NEW, SECONDS);
    let other = cost.nodes[1].bench.table();
    let told = (0..other.high_water())
        .filter(|&entry| peer::telling(other, entry).is_some())
        .count() as u32;
    assert_eq!(told, flows, "all have followed");

    let seconds = f64::from(SECONDS);
    report.add(
        "sync_kB_per_s",
        cost.octets as f64 / seconds / 1e3,
        "kB/s",
        "on the wire, headers included",
    );
    report.add("sync_records_per_s", cost.told as f64 / seconds, "1/s", "");
    let share = |took: Duration| took.as_secs_f64() / seconds * 100.0;
    for (name, took) in ["sync_cpu_sender", "sync_cpu_receiver"]
        .into_iter()
        .zip(cost.took)
    {
        let meaning = "of one processor, without system calls";
        report.add(name, share(took), "%", meaning);
    }
    let beginning = cost.beginning.as_secs_f64() / f64::from(NEW * SECONDS) * 1e9;
    report.add(
        "sync_beginning_ns",
        beginning,
        "ns",
        "two packets that begin a flow, with notes for the peer",
    );
    drop(cost);
    light(report);
    ratios(report);
}

/// The same by traces, for connections of TCP under DSR; and what everything told once more costs.
fn light(report: &mut Report) {
    let flows = LASTING + NEW * SECONDS;
    let ways = [Synchronise::Full, Synchronise::Light].map(|sync| {
        let bench = || Bench::tcp(Topology::Dsr, sync, flows, 1 << 20);
        play(bench, LASTING, NEW, SECONDS)
    });
    let names = ["sync_tcp_B_per_flow", "sync_light_B_per_flow"];
    for (name, cost) in names.into_iter().zip(&ways) {
        report.add(
            name,
            cost.octets as f64 / f64::from(NEW * SECONDS),
            "B",
            "a new connection of TCP under DSR, headers and repetitions included",
        );
    }
    let [_, mut cost] = ways;
    let known = cost.nodes[1].bench.view().snapshot.guard().traces.count();
    // Of so many, a few have the same trace as another one.
    assert!(
        known.younger + known.older >= flows - flows / 1000,
        "all are known: {known:?}"
    );
    for (name, took) in ["sync_light_cpu_sender", "sync_light_cpu_receiver"]
        .into_iter()
        .zip(cost.took)
    {
        let share = took.as_secs_f64() / f64::from(SECONDS) * 100.0;
        report.add(name, share, "%", "of one processor, without system calls");
    }
    let before = *cost.nodes[0].session.counters();
    cost.nodes[0].session.traces_changed();
    for tick in 1..200 {
        turns(&mut cost.nodes, cost.now + tick * 10);
    }
    let after = *cost.nodes[0].session.counters();
    let told = after.sent_traces - before.sent_traces;
    assert!(
        told >= u64::from(flows - flows / 1000),
        "a round tells all: {told}"
    );
    let octets = after.sent_octets - before.sent_octets
        + HEADERS * (after.sent_datagrams - before.sent_datagrams);
    report.add(
        "sync_light_B_per_flow_in_rounds",
        octets as f64 / told as f64,
        "B",
        "one that is told of again with all others",
    );
}

/// The same packets with and without somebody who reads notes, in turn.
fn ratios(report: &mut Report) {
    let flows = 200_000;
    let shape = Shape {
        rules: 1,
        servers: 16,
    };
    let mut beginnings = Vec::new();
    for _ in 0..ROUNDS {
        let [off, on] = [false, true].map(|on| {
            let mut bench = Bench::empty(Topology::Nat, shape, flows, 1 << 20);
            let changes = Arc::new(Changes::new(1));
            changes.switch(on);
            bench.forwarder().set_changes(Arc::clone(&changes));
            let mut took = Duration::ZERO;
            for first in (0..flows).step_by(1000) {
                took += bench.begin(first, 1000);
                changes.take(|_| {});
            }
            took.as_secs_f64()
        });
        beginnings.push(off / on);
    }
    report.add(
        "sync_ratio_beginning",
        median(beginnings),
        "ratio",
        "rate of new flows, with notes for a peer against without",
    );
    let mut benches = [false, true].map(|on| {
        let mut bench = Bench::new(Topology::Nat, LASTING);
        let changes = Arc::new(Changes::new(1));
        changes.switch(on);
        bench.forwarder().set_changes(changes);
        bench
    });
    let mut both = || benches.each_mut().map(|bench| bench.random_batches(2000));
    both();
    let rates = (0..5 * ROUNDS).map(|_| {
        let [off, on] = both();
        off / on
    });
    report.add(
        "sync_ratio_flowing",
        median(rates.collect::<Vec<_>>()),
        "ratio",
        "rate of packets in full flow, likewise",
    );
}
