//! What it costs that connections follow to a peer: 100,000 that last and 10,000 new ones a second, between two nodes whose
//! datagrams are handed over in this process. Time is virtual; what each part takes of a processor is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ilb_fastpath::peer::entries::Entries;
use ilb_forwarder::Table;
use ilb_forwarder::changes::{Change, Changes};
use ilb_forwarder::peer::{self, Places, VISITOR};
use ilb_forwarder::spec::Topology;
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
    fn new(node: u8) -> Node {
        let shape = Shape {
            rules: 1,
            servers: 16,
        };
        let mut bench = Bench::empty(Topology::Nat, shape, LASTING + NEW * SECONDS, 1 << 20);
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
            if let Event::Record(record) = event {
                entries.take(&record);
            }
        }
        let session = &mut self.session;
        let missed = self.changes.take(|change| {
            if let Change::Entry(entry) = change {
                session.changed(entry, now);
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

/// Measures and reports.
pub fn run(report: &mut Report) {
    println!("Connections follow ({LASTING} that last, {NEW} new ones a second, NAT):");
    let mut nodes = [Node::new(0), Node::new(1)];
    let mut now = 1;
    for _ in 0..100 {
        now += 1000 / u64::from(TICKS);
        turns(&mut nodes, now);
    }
    assert!(
        nodes.iter().all(|node| node.session.is_up()),
        "both are there"
    );

    for first in (0..LASTING).step_by(NEW as usize / TICKS as usize) {
        nodes[0].bench.begin(first, NEW / TICKS);
        now += 1000 / u64::from(TICKS);
        turns(&mut nodes, now);
    }
    let before = *nodes[0].session.counters();
    let mut forwarding = Duration::ZERO;
    nodes.iter_mut().for_each(|node| node.took = Duration::ZERO);
    for tick in 0..SECONDS * TICKS {
        let first = LASTING + tick * (NEW / TICKS);
        forwarding += nodes[0].bench.begin(first, NEW / TICKS);
        // What goes on is told of once a minute.
        for entry in 0..LASTING / 60 / TICKS {
            let entry = (tick * (LASTING / 60 / TICKS) + entry) % LASTING;
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
    let told = (0..nodes[1].bench.table().high_water())
        .filter(|&entry| peer::telling(nodes[1].bench.table(), entry).is_some())
        .count() as u32;
    assert_eq!(told, LASTING + NEW * SECONDS, "all have followed");

    let seconds = f64::from(SECONDS);
    let octets = after.sent_octets - before.sent_octets
        + HEADERS * (after.sent_datagrams - before.sent_datagrams);
    let records = after.sent_records - before.sent_records;
    report.add(
        "sync_kB_per_s",
        octets as f64 / seconds / 1e3,
        "kB/s",
        "on the wire, headers included",
    );
    report.add("sync_records_per_s", records as f64 / seconds, "1/s", "");
    let share = |node: &Node| node.took.as_secs_f64() / seconds * 100.0;
    report.add(
        "sync_cpu_sender",
        share(&nodes[0]),
        "%",
        "of one processor, without system calls",
    );
    report.add(
        "sync_cpu_receiver",
        share(&nodes[1]),
        "%",
        "of one processor, without system calls",
    );
    let beginning = forwarding.as_secs_f64() / f64::from(NEW * SECONDS) * 1e9;
    report.add(
        "sync_beginning_ns",
        beginning,
        "ns",
        "two packets that begin a flow, with notes for the peer",
    );
    drop(nodes);
    ratios(report);
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
