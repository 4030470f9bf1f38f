//! The logic alone: parse, look up, rewrite, choose the next hop; no rings, no kernel.
//!
//! Frames lie 2 KiB apart in a pool as large as a receive ring, so that headers come from the cache level where a
//! network card leaves them. Before each batch the headers are written anew, outside the measured time; what is
//! measured is the call of `process` with 64 packets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ilb_fastpath::table_file::{self, Joining};
use ilb_forwarder::address::Addr;
use ilb_forwarder::network::{Hop, Interface, Neighbour, Network, Route};
use ilb_forwarder::spec::{
    Algorithm, PortMap, PortRange, Protocol, RuleSpec, ServerSpec, SnapshotSpec, Topology, VipSpec,
};
use ilb_forwarder::verdict::Verdict;
use ilb_forwarder::{BATCH, Forwarder, Packet, Snapshot, Table, View, checksum};

use super::{Report, median};

const FRAMES: usize = 2048;
const STRIDE: usize = 2048;
const HEADROOM: usize = 256;
/// 64 bytes on the wire: Ethernet, IPv4, UDP, 18 bytes of payload.
const LENGTH: usize = 60;
const ROUNDS: usize = 9;
const SERVERS: u8 = 16;
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 200);

/// A forwarder with one rule and packets to feed it with.
pub struct Bench {
    table: Arc<Table>,
    forwarder: Forwarder,
    view: View,
    pool: Vec<u8>,
    next_frame: usize,
    flows: u32,
    random: u64,
}

impl Bench {
    /// A rule of this topology and a table for `flows` UDP flows.
    pub fn new(topology: Topology, flows: u32) -> Bench {
        let table = Arc::new(table((flows * 2).max(65_536)));
        let rule = RuleSpec {
            id: 1,
            name: "bench".into(),
            accepting: true,
            vips: vec![VipSpec {
                address: VIP.into(),
                protocol: Protocol::Udp,
                ports: PortRange::single(80),
            }],
            topology,
            algorithm: Algorithm::RoundRobin,
            proxy_src: match topology {
                Topology::Nat => (1..=10)
                    .map(|n| Ipv4Addr::new(10, 2, 1, n).into())
                    .collect(),
                Topology::Dsr | Topology::HalfNat | Topology::Tun => vec![],
            },
            servers: (1..=SERVERS)
                .map(|n| ServerSpec {
                    id: n.into(),
                    name: format!("_bench.{n}"),
                    address: server(n),
                    ports: PortMap::Same,
                    weight: 1,
                    accepting: true,
                    ..ServerSpec::default()
                })
                .collect(),
            ..RuleSpec::default()
        };
        let spec = SnapshotSpec {
            generation: 1,
            rules: vec![rule],
            ..SnapshotSpec::default()
        };
        let snapshot = Snapshot::compile(&spec, None, 1).expect("snapshot");
        let view = View::new(Arc::new(snapshot), Arc::new(network()));
        let mut bench = Bench {
            forwarder: Forwarder::new(0, table.clone()),
            table,
            view,
            pool: vec![0; FRAMES * STRIDE],
            next_frame: 0,
            flows,
            random: 0x1234_5678_9abc_def1,
        };
        // Every flow three times, so that all are in the table and in full flow.
        for _ in 0..3 {
            let mut flow = 0;
            while flow < flows {
                bench.batch(|n| (flow + n as u32) % flows);
                flow += BATCH as u32;
            }
        }
        bench
    }

    fn draw(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(self.flows)) >> 32) as u32
    }

    /// 64 packets of the flows that `flow` names; gives the time that they took.
    pub fn batch(&mut self, mut flow: impl FnMut(usize) -> u32) -> Duration {
        let first = self.next_frame;
        self.next_frame = (first + BATCH) % FRAMES;
        let frames = &mut self.pool[first * STRIDE..(first + BATCH) * STRIDE];
        let mut packets: [Packet<'_>; BATCH] = {
            let mut chunks = frames.chunks_exact_mut(STRIDE).enumerate();
            std::array::from_fn(|_| {
                let (n, chunk) = chunks.next().expect("one chunk a packet");
                write_frame(&mut chunk[HEADROOM..HEADROOM + LENGTH], flow(n));
                Packet::new(chunk, HEADROOM, LENGTH, 0)
            })
        };
        let begin = Instant::now();
        self.forwarder.process(&self.view, &mut packets, 1000);
        let took = begin.elapsed();
        assert!(
            packets.iter().all(|p| p.verdict == Verdict::Transmit(1)),
            "the benchmark must forward every packet; got {:?}",
            packets
                .iter()
                .map(|p| p.verdict)
                .find(|v| *v != Verdict::Transmit(1))
        );
        took
    }

    /// `batches` batches of flows drawn at random; nanoseconds a packet.
    pub fn random_batches(&mut self, batches: usize) -> f64 {
        let mut total = Duration::ZERO;
        for _ in 0..batches {
            let flows: [u32; BATCH] = std::array::from_fn(|_| self.draw());
            total += self.batch(|n| flows[n]);
        }
        total.as_nanos() as f64 / (batches * BATCH) as f64
    }

    /// Bytes of memory a connection.
    pub fn bytes_per_connection(&self) -> f64 {
        self.table.bytes_per_connection()
    }
}

/// A table as the fast path has it: a file on tmpfs in huge pages, as far as there are any.
fn table(capacity: u32) -> Table {
    let path = format!("/dev/shm/ilb-bench-{}-{capacity}", std::process::id());
    let path = std::path::Path::new(&path);
    let table = table_file::open_table(path, capacity, Joining::Now).expect("connection table");
    // The mapping lives on without a name.
    std::fs::remove_file(path).expect("the table's file can be removed");
    table
}

fn server(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 2, 0, n).into()
}

fn network() -> Network {
    let on_link = |third, port| Route {
        prefix: Ipv4Addr::new(10, third, 0, 0).into(),
        len: 16,
        metric: 0,
        hops: vec![Hop {
            port: Some(port),
            via: None,
        }],
    };
    let interfaces = (0..2)
        .map(|n| Interface {
            mac: [2, 0, 0, 0, 0, n],
            mtu: 1500,
        })
        .collect();
    let neighbours = (1..=SERVERS)
        .map(|n| Neighbour {
            port: 1,
            address: server(n),
            mac: [4, 0, 0, 0, 0, n],
        })
        .collect();
    Network::new(interfaces, vec![on_link(1, 0), on_link(2, 1)], neighbours)
}

/// A UDP packet of flow `flow` with a whole IPv4 checksum and no UDP checksum to begin with: a present one costs the
/// same.
fn write_frame(frame: &mut [u8], flow: u32) {
    let client = Addr::v4((0x0b00_0000 + flow / 16_384).to_be_bytes());
    let vip = Addr::from(IpAddr::V4(VIP));
    let source_port = 1024 + (flow % 16_384) as u16;
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[8, 0]);
    let ip_len = (LENGTH - 14) as u16;
    frame[14..34].fill(0);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&ip_len.to_be_bytes());
    frame[22] = 64;
    frame[23] = 17;
    frame[26..30].copy_from_slice(&client.v4_bytes());
    frame[30..34].copy_from_slice(&vip.v4_bytes());
    let sum = checksum::of(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[34..36].copy_from_slice(&source_port.to_be_bytes());
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    frame[38..40].copy_from_slice(&(ip_len - 20).to_be_bytes());
    // Any non-zero sum takes the same path as the right one.
    frame[40..42].copy_from_slice(&[0x12, 0x34]);
}

/// Measures and reports everything about the logic.
pub fn run(report: &mut Report) {
    println!("The logic alone (64-byte UDP, 16 servers, batches of 64; medians of {ROUNDS}):");
    for (name, flows) in [
        ("logic_ns_1flow", 1),
        ("logic_ns_10k", 10_000),
        ("logic_ns_1m", 1_000_000),
    ] {
        for (topology, suffix, words) in [
            (Topology::Nat, "", "NAT"),
            (Topology::HalfNat, "_halfnat", "HALF-NAT"),
            (Topology::Dsr, "_dsr", "DSR"),
        ] {
            let mut bench = Bench::new(topology, flows);
            bench.random_batches(2000);
            let rounds = (0..ROUNDS).map(|_| bench.random_batches(4000)).collect();
            let meaning = format!("{words}, {flows} flows at random");
            report.add(&format!("{name}{suffix}"), median(rounds), "ns", &meaning);
        }
    }
    let bytes = Bench::new(Topology::Nat, 1_000_000).bytes_per_connection();
    let meaning = "entry and index, both directions";
    report.add("bytes_per_connection", bytes, "B", meaning);
    let instructions = instructions();
    let meaning = "NAT, one flow, counted by valgrind";
    report.add("logic_instructions_1flow", instructions, "count", meaning);
}

/// What valgrind runs: `batches` batches of one flow.
pub fn count_me(batches: usize) {
    Bench::new(Topology::Nat, 1).random_batches(batches);
}

/// Instructions a packet, as callgrind counts them within `process` and what it calls. Two runs of different length,
/// so that everything else (start, pool, the first packet) cancels out.
fn instructions() -> f64 {
    let [short, long] = [100, 300].map(callgrind);
    (long - short) as f64 / (200 * BATCH) as f64
}

fn callgrind(batches: usize) -> u64 {
    let own = std::env::current_exe().expect("the benchmark knows its own file");
    let output = std::process::Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
            "--toggle-collect=*Forwarder*process*",
        ])
        .arg(own)
        .args(["count-me", &batches.to_string()])
        .output()
        .expect("valgrind runs (apt install valgrind; `make deps` does)");
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find_map(|line| line.split("Collected :").nth(1))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("valgrind counted nothing:\n{text}"))
}
