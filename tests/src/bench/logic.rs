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
use ilb_forwarder::packet::{protocol, tcp};
use ilb_forwarder::select::maglev::Maglev;
use ilb_forwarder::spec::{
    Algorithm, Limits, PortRange, Protocol, RuleSpec, ServerSpec, SnapshotSpec, Synchronise,
    Topology, VipSpec,
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
const SERVERS: u32 = 16;
/// Seconds since boot, as packets are told.
pub const NOW: u32 = 1000;

/// A forwarder with one rule and packets to feed it with.
pub struct Bench {
    table: Arc<Table>,
    forwarder: Forwarder,
    view: View,
    pool: Vec<u8>,
    next_frame: usize,
    flows: u32,
    rules: u32,
    random: u64,
    /// Flags of TCP segments, if that is what packets are; else they are UDP's.
    flags: Option<u8>,
}

/// How large a configuration is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rules, each with a VIP of its own; at most 65,536.
    pub rules: u32,
    /// Servers of each rule; at most 65,536 in all.
    pub servers: u32,
}

impl Bench {
    /// A rule of this topology and a table for `flows` UDP flows.
    pub fn new(topology: Topology, flows: u32) -> Bench {
        let shape = Shape {
            rules: 1,
            servers: SERVERS,
        };
        let mut bench = Bench::empty(topology, shape, flows, (flows * 2).max(65_536));
        // Every flow three times, so that all are in the table and in full flow.
        for _ in 0..3 {
            bench.all_flows();
        }
        bench
    }

    /// As many rules and servers as `shape` says, a table of `capacity` connections, and no connection yet.
    pub fn empty(topology: Topology, shape: Shape, flows: u32, capacity: u32) -> Bench {
        Bench::of(topology, shape, flows, capacity, |_| {})
    }

    /// The same for connections of TCP, of which the peer is told in this way.
    pub fn tcp(topology: Topology, sync: Synchronise, flows: u32, capacity: u32) -> Bench {
        let shape = Shape {
            rules: 1,
            servers: SERVERS,
        };
        let bench = Bench::of(topology, shape, flows, capacity, |rule| {
            rule.vips[0].protocol = Protocol::Tcp;
            rule.sync = sync;
        });
        Bench {
            flags: Some(tcp::SYN),
            ..bench
        }
    }

    fn of(
        topology: Topology,
        shape: Shape,
        flows: u32,
        capacity: u32,
        change: impl Fn(&mut RuleSpec),
    ) -> Bench {
        let rules = (0..shape.rules).map(|n| {
            let mut rule = rule(topology, shape, n);
            change(&mut rule);
            rule
        });
        let spec = SnapshotSpec {
            generation: 1,
            // The packets of one flow come one after the other here, not as those of real ones.
            limits: Limits {
                embryonic_percent: 0,
                ..Limits::default()
            },
            rules: rules.collect(),
        };
        let table = Arc::new(table(capacity));
        let snapshot = Snapshot::compile(&spec, None, 1).expect("snapshot");
        let view = View::new(Arc::new(snapshot), Arc::new(network(shape)));
        Bench {
            forwarder: Forwarder::new(0, table.clone()),
            table,
            view,
            pool: vec![0; FRAMES * STRIDE],
            next_frame: 0,
            flows,
            rules: shape.rules,
            random: 0x1234_5678_9abc_def1,
            flags: None,
        }
    }

    /// One packet of every flow; gives the time that they took.
    pub fn all_flows(&mut self) -> Duration {
        let (flows, mut took, mut flow) = (self.flows, Duration::ZERO, 0);
        while flow < flows {
            took += self.batch(|n| (flow + n as u32) % flows);
            flow += BATCH as u32;
        }
        took
    }

    /// Two packets of each of `count` flows from `first` on: they begin, and are in full flow. Gives the time that they
    /// took; `count` is made a multiple of a batch.
    pub fn begin(&mut self, first: u32, count: u32) -> Duration {
        let (last, mut took) = (first + count - 1, Duration::ZERO);
        for flags in [tcp::SYN, tcp::ACK] {
            self.flags = self.flags.map(|_| flags);
            for at in (0..count).step_by(BATCH) {
                took += self.batch(|n| (first + at + n as u32).min(last));
            }
        }
        took
    }

    /// The connection table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What packets are forwarded by.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What forwards them.
    pub fn forwarder(&mut self) -> &mut Forwarder {
        &mut self.forwarder
    }

    /// Connections in the table.
    pub fn held(&self) -> u32 {
        self.table.used()
    }

    fn draw(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(self.flows)) >> 32) as u32
    }

    /// 64 packets of the flows that `flow` names; gives the time that they took.
    pub fn batch(&mut self, mut flow: impl FnMut(usize) -> u32) -> Duration {
        let (first, rules, flags) = (self.next_frame, self.rules, self.flags);
        self.next_frame = (first + BATCH) % FRAMES;
        let frames = &mut self.pool[first * STRIDE..(first + BATCH) * STRIDE];
        let mut packets: [Packet<'_>; BATCH] = {
            let mut chunks = frames.chunks_exact_mut(STRIDE).enumerate();
            std::array::from_fn(|_| {
                let (n, chunk) = chunks.next().expect("one chunk a packet");
                write_frame(
                    &mut chunk[HEADROOM..HEADROOM + LENGTH],
                    flow(n),
                    rules,
                    flags,
                );
                Packet::new(chunk, HEADROOM, LENGTH, 0)
            })
        };
        let begin = Instant::now();
        self.forwarder.process(&self.view, &mut packets, NOW);
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

fn vip(rule: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + rule)
}

fn server(n: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 2, 0, 0)) + n).into()
}

fn rule(topology: Topology, shape: Shape, n: u32) -> RuleSpec {
    RuleSpec {
        id: n + 1,
        name: format!("bench{n}"),
        vips: vec![VipSpec {
            address: vip(n).into(),
            protocol: Protocol::Udp,
            ports: PortRange::single(80),
        }],
        topology,
        algorithm: Algorithm::RoundRobin,
        proxy_src: match topology {
            Topology::Nat => (1..=10)
                .map(|n| Ipv4Addr::new(10, 3, 1, n).into())
                .collect(),
            Topology::Dsr | Topology::HalfNat | Topology::Tun => vec![],
        },
        servers: (0..shape.servers)
            .map(|m| ServerSpec {
                id: n * shape.servers + m + 1,
                name: format!("_bench{n}.{m}"),
                address: server(n * shape.servers + m),
                ..ServerSpec::default()
            })
            .collect(),
        ..RuleSpec::default()
    }
}

fn network(shape: Shape) -> Network {
    let on_link = |second, port| Route {
        prefix: Ipv4Addr::new(10, second, 0, 0).into(),
        len: 15,
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
    let neighbours = (0..shape.rules * shape.servers)
        .map(|n| Neighbour {
            port: 1,
            address: server(n),
            mac: [4, 0, 0, (n >> 16) as u8, (n >> 8) as u8, n as u8],
        })
        .collect();
    Network::new(interfaces, vec![on_link(0, 0), on_link(2, 1)], neighbours)
}

/// A UDP packet, or a TCP segment with these flags, of flow `flow` with a whole IPv4 checksum and no UDP checksum to begin with: a present one costs the
/// same.
fn write_frame(frame: &mut [u8], flow: u32, rules: u32, flags: Option<u8>) {
    let client = Addr::v4((0x0b00_0000 + flow / 16_384).to_be_bytes());
    let vip = Addr::from(IpAddr::V4(vip(flow % rules)));
    let source_port = 1024 + (flow % 16_384) as u16;
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[8, 0]);
    let ip_len = (LENGTH - 14) as u16;
    frame[14..34].fill(0);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&ip_len.to_be_bytes());
    frame[22] = 64;
    frame[23] = if flags.is_some() { protocol::TCP } else { 17 };
    frame[26..30].copy_from_slice(&client.v4_bytes());
    frame[30..34].copy_from_slice(&vip.v4_bytes());
    let sum = checksum::of(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[34..36].copy_from_slice(&source_port.to_be_bytes());
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    if let Some(flags) = flags {
        frame[38..LENGTH].fill(0);
        (frame[46], frame[47]) = (5 << 4, flags);
        frame[50..52].copy_from_slice(&[0x12, 0x34]);
        return;
    }
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
    scale(report);
    tables(report);
    let instructions = instructions();
    let meaning = "NAT, one flow, counted by valgrind";
    report.add("logic_instructions_1flow", instructions, "count", meaning);
}

/// Beginnings, crowds and large configurations.
fn scale(report: &mut Report) {
    const BEGINNINGS: u32 = 2_000_000;
    const CROWD: u32 = 16_000_000;
    let one = Shape {
        rules: 1,
        servers: SERVERS,
    };
    let rounds = (0..3).map(|_| {
        let mut bench = Bench::empty(Topology::Nat, one, BEGINNINGS, BEGINNINGS * 2);
        f64::from(BEGINNINGS) / bench.all_flows().as_secs_f64()
    });
    let meaning = "NAT, one core, logic alone";
    report.add(
        "new_connections_per_s",
        median(rounds.collect()),
        "1/s",
        meaning,
    );

    let many = Shape {
        rules: 1,
        servers: 64,
    };
    let mut bench = Bench::empty(Topology::Nat, many, CROWD, CROWD + CROWD / 8);
    bench.all_flows();
    let held = bench.held();
    bench.all_flows();
    assert_eq!(bench.held(), held, "a second packet begins no connection");
    report.add(
        "connections_held",
        f64::from(held),
        "count",
        "NAT, both directions",
    );
    bench.random_batches(2000);
    let rounds = (0..ROUNDS).map(|_| bench.random_batches(4000)).collect();
    let meaning = "NAT, 16,000,000 flows at random";
    report.add("logic_ns_16m", median(rounds), "ns", meaning);
    drop(bench);

    // The same number of flows and of connections a server's worth of memory; what differs is the configuration.
    let crowd = Shape {
        rules: 10_000,
        servers: 10,
    };
    let mut benches = [one, crowd].map(|shape| {
        let mut bench = Bench::empty(Topology::HalfNat, shape, 1_000_000, 2_000_000);
        for _ in 0..3 {
            bench.all_flows();
        }
        bench
    });
    let ratios = (0..ROUNDS).map(|_| {
        let [one, many] = benches.each_mut().map(|bench| bench.random_batches(4000));
        one / many
    });
    let meaning =
        "rate of the logic: 10,000 rules with 100,000 servers against one rule with 16; 1 M flows";
    report.add(
        "logic_10k_rules_vs_1",
        median(ratios.collect()),
        "ratio",
        meaning,
    );
}

/// What is made when a configuration changes, by the control thread and not by the workers.
fn tables(report: &mut Report) {
    const SERVERS: u32 = 1000;
    let servers: Vec<u32> = (1..=SERVERS).collect();
    let rounds = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        let table = Maglev::full(&servers);
        let took = begin.elapsed();
        assert!(table.size() > SERVERS as usize);
        took.as_secs_f64() * 1e3
    });
    let meaning = "Maglev table, 1,000 servers, 65,537 slots";
    report.add(
        "maglev_build_ms_1000",
        median(rounds.collect()),
        "ms",
        meaning,
    );
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
