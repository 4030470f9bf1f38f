//! [`process`]: a sequence of packets, changes of the configuration, time and sweeps through two workers with one
//! table, held against the [`Reference`].

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use ilb_forwarder::network::Network;
use ilb_forwarder::packet::{self, Kind, Tuple, tcp};
use ilb_forwarder::spec::*;
use ilb_forwarder::table::{Connection, Direction, State};
use ilb_forwarder::tunnel::MOST_OVERHEAD;
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{Forwarder, Packet, Snapshot, Table, View, census};

use crate::bytes::Bytes;
use crate::common::{BACK, Build, FAMILIES, FRONT, Family, HEADROOM, KEYS, icmp_error, network};
use crate::reference::Datagram::*;
use crate::reference::{End, Expected, Key, Known, Life, Reference, masked, may_be_chosen};
use crate::wire;

mod account;
mod frames;
mod hold;

use frames::{arrives, is_sent, mac};

const CAPACITY: u32 = 1024;
const FILL: u8 = 0xa5;
const TAIL: usize = 32;
/// Idle times below the first are always survived, idle times above the second never ([`Timeouts::default`]).
const SURVIVED: u32 = 10;
const FORGOTTEN: u32 = 900;
/// The server that never answers neighbour resolution ([`network`]).
const SILENT: u8 = 250;
const CLIENTS: usize = 4;
/// All ways to wrap a packet.
const TUNNELS: [Tunnel; 6] = [
    Tunnel::Ipip,
    Tunnel::Gre { checksum: false },
    Tunnel::Gre { checksum: true },
    Tunnel::Gue {
        port: GUE_PORT,
        checksum: GueChecksum::None,
    },
    Tunnel::Gue {
        port: GUE_PORT,
        checksum: GueChecksum::Udp,
    },
    Tunnel::Gue {
        port: GUE_PORT,
        checksum: GueChecksum::Remote,
    },
];
/// Seconds that later fragments wait for their first one; the fast path's are as few.
const PATIENCE: u32 = 2;

/// The server that is this host.
const LOCAL: u8 = 251;
const GUE_PORT: u16 = 6080;

static NETWORK: LazyLock<Arc<Network>> = LazyLock::new(|| {
    let own = FAMILIES.map(|family| family.server(LOCAL));
    Arc::new(network().with_local(own))
});
/// Outer sources of all tunnels.
static TUNNEL_SOURCES: LazyLock<Vec<IpAddr>> = LazyLock::new(|| {
    FAMILIES
        .iter()
        .flat_map(|family| [11, 12].map(|n| family.proxy(n)))
        .collect()
});

/// Why a packet that begins a connection may be refused although a server could take it.
const REFUSALS: &[&str] = &[
    "reply-collision",
    "nat-ports-exhausted",
    "admission",
    "embryonic",
];

/// Frame conservation and more, whatever happens in whatever order:
/// every packet has one verdict and is counted once; nothing outside a frame changes; what goes to the kernel is
/// unchanged; what is sent has right checksums if it came with right ones; both directions of a connection find one
/// entry; a connection keeps its server and its NAT port, which nobody else has; the table's account is right; and
/// each well-formed packet leaves byte for byte as the reference says.
pub fn process(data: &[u8]) {
    let mut input = Bytes(data);
    let mut world = World::new(&mut input);
    while !input.is_over() {
        world.step(&mut input);
    }
    world.end();
}

/// A packet that is sent through the forwarder, and what the reference needs to know about it.
struct Sent {
    frame: Vec<u8>,
    meaning: Meaning,
}

enum Meaning {
    /// From a client: as it was made, and which fragment of it this is.
    Client(Key, Build, Option<Piece>),
    /// From a server.
    Server(Build),
    /// Anything: only what holds for every frame is held against it.
    Noise,
}

/// Fragment number, identification and size.
type Piece = (usize, u32, usize);

struct World {
    table: Arc<Table>,
    workers: Vec<Forwarder>,
    view: View,
    reference: Reference,
    now: u32,
    generation: u64,
    next_server: u8,
    packets: u64,
    /// Packets that were answered: they count as dropped, and their answers as sent.
    answers: u64,
    datagram: u32,
    /// Later fragments that wait for their first one: what [`Verdict::Hold`] said, and when.
    waiting: Vec<(Sent, u64, u32)>,
    /// Verdicts to wait.
    held: u64,
    /// The latest packet that went into a tunnel.
    wrapped: Option<Vec<u8>>,
}

impl World {
    fn new(input: &mut Bytes<'_>) -> World {
        let table = Arc::new(Table::private(CAPACITY, KEYS).expect("a table"));
        let workers = (0..2).map(|n| Forwarder::new(n, table.clone())).collect();
        let mut world = World {
            table,
            workers,
            view: View::new(Arc::new(Snapshot::empty()), NETWORK.clone()),
            reference: Reference::default(),
            now: 1000,
            generation: 0,
            next_server: 0,
            packets: 0,
            answers: 0,
            datagram: 0,
            waiting: Vec::new(),
            held: 0,
            wrapped: None,
        };
        for n in 0..1 + input.below(3) {
            let rule = world.rule(n as u8, input);
            world.reference.rules.push(rule);
        }
        world.configure();
        world
    }

    /// Rule `n` has the ports 80 + 4n to 82 + 4n, so that rules never overlap.
    fn rule(&mut self, n: u8, input: &mut Bytes<'_>) -> RuleSpec {
        let family = input.pick(&FAMILIES);
        let topology = input.pick(&[
            Topology::Nat,
            Topology::HalfNat,
            Topology::Dsr,
            Topology::Tun,
        ]);
        let first = 80 + 4 * u16::from(n);
        let protocol = match input.below(8) {
            // It has no ports that would keep two rules apart.
            7 if n == 0 => Protocol::Icmp,
            n if n < 4 => Protocol::Tcp,
            _ => Protocol::Udp,
        };
        let mask = input.pick(&[32, 24, 30]);
        let mut rule = RuleSpec {
            id: u32::from(n) + 1,
            name: format!("rule{n}"),
            vips: vec![VipSpec {
                address: family.vip(),
                protocol,
                ports: match protocol {
                    Protocol::Icmp => PortRange::ANY,
                    _ => PortRange {
                        first,
                        last: first + 2,
                    },
                },
            }],
            topology,
            algorithm: algorithm(input),
            proxy_src: match topology {
                Topology::Nat => (1..=1 + input.below(2) as u8)
                    .map(|n| family.proxy(n))
                    .collect(),
                Topology::Tun => TUNNEL_SOURCES.clone(),
                Topology::Dsr | Topology::HalfNat => Vec::new(),
            },
            tunnel: input.pick(&TUNNELS),
            orphans: input.pick(&[Orphans::Reschedule, Orphans::Reset, Orphans::Drop]),
            persistence: input.once_in(4).then(|| Persistence {
                mask: if family.v4 { mask } else { mask + 96 },
                timeout: 60,
            }),
            one_packet: input.once_in(8) && protocol == Protocol::Udp && !topology.has_reverse(),
            new_flows_per_second: if input.once_in(16) { 2 } else { 0 },
            ..RuleSpec::default()
        };
        for _ in 0..input.below(4) {
            let server = self.server(family, &rule, input);
            rule.servers.push(server);
        }
        rule
    }

    fn server(&mut self, family: Family, rule: &RuleSpec, input: &mut Bytes<'_>) -> ServerSpec {
        self.next_server = self.next_server % 200 + 1;
        let family = match rule.topology {
            Topology::Tun => input.pick(&FAMILIES),
            _ => family,
        };
        let number = match input.below(16) {
            15 => SILENT,
            14 => LOCAL,
            _ => self.next_server,
        };
        let is_there = |n| {
            let addresses = FAMILIES.map(|family| family.server(n));
            let mut servers = rule.servers.iter();
            servers.any(|server| addresses.contains(&server.address))
        };
        let address = match is_there(number) {
            true => family.server(self.next_server),
            false => family.server(number),
        };
        ServerSpec {
            id: u32::from(self.next_server) + self.generation as u32 * 1000,
            name: format!("_s.{}", self.next_server),
            address,
            ports: match rule.topology {
                Topology::Dsr | Topology::Tun => PortMap::Same,
                _ if rule.vips[0].protocol == Protocol::Icmp => PortMap::Same,
                _ => input.pick(&[PortMap::Same, PortMap::Collapse(8080), PortMap::Shift(9000)]),
            },
            weight: input.pick(&[1, 1, 1, 0, 7, 65535]),
            accepting: !input.once_in(8),
            max_connections: input.pick(&[0, 0, 0, 0, 0, 0, 1, 3]),
            ..ServerSpec::default()
        }
    }

    fn configure(&mut self) {
        self.generation += 1;
        let spec = SnapshotSpec {
            generation: self.generation,
            rules: self.reference.rules.clone(),
            ..SnapshotSpec::default()
        };
        let snapshot = Snapshot::compile(&spec, Some(&self.view.snapshot), self.workers.len())
            .unwrap_or_else(|error| panic!("{error}: {spec:#?}"));
        self.view = View::new(Arc::new(snapshot), NETWORK.clone());
    }

    fn step(&mut self, input: &mut Bytes<'_>) {
        match input.below(32) {
            0 => self.change(input),
            1 => self.now += 1 + input.below(5) as u32,
            2 => self.now += input.pick(&[11, 61, 301, 20_000]),
            3 => self.sweep(),
            4 | 5 => {
                let mut batch = Vec::new();
                for _ in 0..1 + input.below(3) {
                    batch.extend(self.noise(input));
                }
                self.run(input.below(2), batch);
            }
            6 => {
                // Perhaps through two workers, or with something between.
                let mut batch = self.fragments(input);
                let rest = batch.split_off(input.below(batch.len() + 1));
                self.run(input.below(2), batch);
                if input.once_in(4) {
                    let between = vec![self.client(input)];
                    self.run(input.below(2), between);
                }
                self.run(input.below(2), rest);
            }
            7 => {
                let batch = self.error(input);
                self.run(input.below(2), batch);
            }
            n if n < 20 => {
                let batch: Vec<_> = (0..1 + input.below(4))
                    .map(|_| self.client(input))
                    .collect();
                self.run(input.below(2), batch);
            }
            _ => {
                let batch: Vec<_> = (0..1 + input.below(2))
                    .filter_map(|_| self.reply(input))
                    .collect();
                self.run(input.below(2), batch);
            }
        }
    }

    /// One change of the configuration.
    fn change(&mut self, input: &mut Bytes<'_>) {
        let at = input.below(self.reference.rules.len());
        let family = FAMILIES[usize::from(!self.reference.rules[at].vips[0].address.is_ipv4())];
        match input.below(8) {
            0 => self.reference.rules[at].accepting ^= true,
            5 | 6 if !self.reference.rules[at].servers.is_empty() => {
                let servers = &mut self.reference.rules[at].servers;
                let n = input.below(servers.len());
                servers[n].dead ^= true;
            }
            1 => self.reference.rules[at].algorithm = algorithm(input),
            2 if self.reference.rules[at].servers.len() < 6 => {
                let rule = self.reference.rules[at].clone();
                let server = self.server(family, &rule, input);
                self.reference.rules[at].servers.push(server);
            }
            3 if !self.reference.rules[at].servers.is_empty() => {
                let servers = &mut self.reference.rules[at].servers;
                servers.remove(input.below(servers.len()));
            }
            4 if !self.reference.rules[at].servers.is_empty() => {
                let servers = &mut self.reference.rules[at].servers;
                let n = input.below(servers.len());
                servers[n].accepting ^= true;
            }
            _ if !self.reference.rules[at].servers.is_empty() => {
                let servers = &mut self.reference.rules[at].servers;
                let n = input.below(servers.len());
                servers[n].weight = input.pick(&[0, 1, 2, 100]);
            }
            _ => {}
        }
        self.configure();
    }

    fn build(&self, input: &mut Bytes<'_>, from: End, to: End, protocol: u8) -> Build {
        Build {
            src: from,
            dst: to,
            protocol,
            flags: match protocol {
                6 => input.pick(&[
                    tcp::SYN,
                    tcp::SYN,
                    tcp::ACK,
                    tcp::ACK,
                    tcp::FIN | tcp::ACK,
                    tcp::RST,
                    tcp::SYN | tcp::ACK,
                    tcp::RST | tcp::ACK,
                    0,
                    0x3f,
                ]),
                _ => 0,
            },
            payload: vec![input.byte(); input.pick(&[0, 1, 5, 6, 255])],
            ttl: if input.once_in(32) {
                1
            } else {
                input.pick(&[64, 2, 255])
            },
            udp_checksum: !input.once_in(8),
            is_reply: Some(false),
        }
    }

    fn client_build(&mut self, input: &mut Bytes<'_>) -> (Key, Build) {
        let at = input.below(self.reference.rules.len());
        let vip = self.reference.rules[at].vips[0].clone();
        let family = FAMILIES[usize::from(!vip.address.is_ipv4())];
        let key = Key {
            client: (
                family.client(1 + input.below(CLIENTS) as u8),
                4000 + input.below(3) as u16,
            ),
            // The port behind the rule's is nobody's.
            vip: match vip.protocol {
                Protocol::Icmp => (vip.address, 0),
                _ => (vip.address, vip.ports.first + input.below(4) as u16),
            },
            protocol: vip.protocol.number(vip.address.is_ipv4()).unwrap_or(6),
        };
        let build = self.build(input, key.client, key.vip, key.protocol);
        (key, build)
    }

    fn client(&mut self, input: &mut Bytes<'_>) -> Sent {
        let (key, build) = self.client_build(input);
        Sent {
            frame: build.frame(),
            meaning: Meaning::Client(key, build, None),
        }
    }

    /// A connection and the ends that its server sees.
    fn some_flow(&self, input: &mut Bytes<'_>) -> Option<(Key, Known, (End, End))> {
        let n = input.byte() as usize;
        let (key, known) = self
            .reference
            .flows
            .iter()
            .nth(n % self.reference.flows.len().max(1))?;
        Some((*key, *known, self.reference.towards_server(key, known)?))
    }

    fn reply(&mut self, input: &mut Bytes<'_>) -> Option<Sent> {
        let (key, known, (seen_client, server)) = self.some_flow(input)?;
        let (rule, _) = self.reference.configured(known.rule, known.server)?;
        if !rule.topology.has_reverse() {
            return None;
        }
        let build = Build {
            is_reply: Some(true),
            ..self.build(input, server, seen_client, key.protocol)
        };
        Some(Sent {
            frame: build.frame(),
            meaning: Meaning::Server(build),
        })
    }

    /// A datagram in fragments, in some order.
    fn fragments(&mut self, input: &mut Bytes<'_>) -> Vec<Sent> {
        let (key, mut build) = self.client_build(input);
        if key.protocol == 6 {
            return Vec::new();
        }
        build.payload = vec![input.byte(); 100 + input.byte() as usize];
        self.datagram += 1;
        let (id, size) = (self.datagram, 64 + 8 * input.below(8));
        let pieces = build.fragments(id, size);
        let mut sent: Vec<Sent> = pieces
            .into_iter()
            .enumerate()
            .map(|(n, frame)| Sent {
                frame,
                meaning: Meaning::Client(key, build.clone(), Some((n, id, size))),
            })
            .collect();
        for last in (1..sent.len()).rev() {
            sent.swap(last, input.below(last + 1));
        }
        sent
    }

    /// An ICMP error about a packet of a connection, from either side, or about one in a tunnel.
    fn error(&mut self, input: &mut Bytes<'_>) -> Vec<Sent> {
        if let (Some(about), true) = (&self.wrapped, input.once_in(3)) {
            let (from, family) = match packet::parse(about).expect("it was sent").tuple.src.into() {
                from @ IpAddr::V4(_) => (from, FAMILIES[0]),
                from => (from, FAMILIES[1]),
            };
            let quote = input.pick(&[28, 48, 68, 300]);
            return vec![Sent {
                frame: icmp_error(family.router(), from, input.once_in(2), about, quote),
                meaning: Meaning::Noise,
            }];
        }
        let Some((key, _, (seen_client, server))) = self.some_flow(input) else {
            return Vec::new();
        };
        let (from, to) = input.pick(&[(key.vip, key.client), (seen_client, server)]);
        let about = self.build(input, from, to, key.protocol).frame();
        let family = FAMILIES[usize::from(!from.0.is_ipv4())];
        let quote = input.pick(&[28, 48, 60, 300]);
        let frame = icmp_error(family.router(), from.0, input.once_in(2), &about, quote);
        vec![Sent {
            frame,
            meaning: Meaning::Noise,
        }]
    }

    /// Frames that are spoilt, or that are out of order.
    fn noise(&mut self, input: &mut Bytes<'_>) -> Vec<Sent> {
        let mut frames: Vec<Vec<u8>> = match input.below(5) {
            // With identifications of their own, so that what is known of whole datagrams stays true.
            0 => {
                self.datagram += 1 << 15;
                let fragments = self.fragments(input);
                self.datagram -= 1 << 15;
                fragments.into_iter().map(|sent| sent.frame).collect()
            }
            1 => self
                .error(input)
                .into_iter()
                .map(|sent| sent.frame)
                .collect(),
            2 => self
                .reply(input)
                .into_iter()
                .map(|sent| sent.frame)
                .collect(),
            3 => {
                let (_, build) = self.client_build(input);
                vec![
                    Build {
                        payload: vec![1; 1600],
                        ..build
                    }
                    .frame(),
                ]
            }
            _ => vec![self.client(input).frame],
        };
        for frame in &mut frames {
            for _ in 0..input.below(4) {
                let at = input.byte() as usize % frame.len();
                frame[at] ^= input.byte();
            }
            if input.once_in(8) {
                frame.truncate(input.byte() as usize);
            }
        }
        frames
            .into_iter()
            .map(|frame| Sent {
                frame,
                meaning: Meaning::Noise,
            })
            .collect()
    }

    /// One batch through one worker, and then what had waited for something in it.
    fn run(&mut self, worker: usize, batch: Vec<Sent>) {
        self.batch(worker, batch, false);
        let (view, now) = (&self.view, self.now);
        let ready = |(_, key, _): &mut (_, u64, _)| Forwarder::is_awaited_no_more(view, *key, now);
        let again: Vec<_> = self.waiting.extract_if(.., ready).collect();
        self.batch(
            worker,
            again.into_iter().map(|(sent, ..)| sent).collect(),
            true,
        );
        self.waiting.retain(|&(.., since)| now - since <= PATIENCE);
    }

    fn batch(&mut self, worker: usize, batch: Vec<Sent>, again: bool) {
        if batch.is_empty() {
            return;
        }
        self.packets += batch.len() as u64;
        let mut buffers: Vec<Vec<u8>> = batch
            .iter()
            .map(|sent| {
                let mut buffer = vec![FILL; HEADROOM];
                buffer.extend(&sent.frame);
                buffer.extend([FILL; TAIL]);
                buffer
            })
            .collect();
        let mut packets: Vec<_> = buffers
            .iter_mut()
            .zip(&batch)
            .map(|(buffer, sent)| Packet::new(buffer, HEADROOM, sent.frame.len(), FRONT))
            .collect();
        self.workers[worker].process(&self.view, &mut packets, self.now);
        let outcomes: Vec<_> = packets
            .iter()
            .map(|packet| (packet.verdict, packet.start(), packet.len()))
            .collect();
        drop(packets);
        let mut surprises = false;
        for ((sent, buffer), (verdict, start, len)) in batch.into_iter().zip(&buffers).zip(outcomes)
        {
            let out = &buffer[start..start + len];
            let outside = buffer[..start.min(HEADROOM)]
                .iter()
                .chain(&buffer[HEADROOM + sent.frame.len()..]);
            assert!(
                outside.into_iter().all(|&byte| byte == FILL),
                "a byte outside the frame has changed"
            );
            self.answers += u64::from(self.conserved(&sent.frame, verdict, out));
            if wire::unwrap_if(out, GUE_PORT, |source| TUNNEL_SOURCES.contains(&source)).is_some() {
                self.wrapped = Some(out.to_vec());
            }
            match &sent.meaning {
                // What the table holds now is known again behind the batch.
                Meaning::Client(key, _, Some((0, id, _))) if surprises => {
                    self.reference.datagrams.insert((*key, *id), Unchecked);
                }
                _ if surprises => {}
                Meaning::Client(key, build, Some(piece)) if piece.0 > 0 => {
                    self.hold_later(key, build, *piece, verdict, out);
                }
                Meaning::Client(key, build, piece) => {
                    surprises = self.hold_client(key, build, *piece, verdict, out);
                }
                Meaning::Server(build) => self.hold_server(build, verdict, out),
                Meaning::Noise => surprises = true,
            }
            if let Verdict::Hold { key } = verdict {
                self.held += 1;
                // One whose first fragment has come does not wait again, but for noise, where keys may be alike.
                assert!(!again || matches!(sent.meaning, Meaning::Noise));
                if !again {
                    self.waiting.push((sent, key, self.now));
                }
            }
        }
        self.compare(surprises);
    }
}

fn algorithm(input: &mut Bytes<'_>) -> Algorithm {
    // Those with a table of 65,537 slots take a millisecond to compile.
    if input.once_in(32) {
        return input.pick(&[
            Algorithm::Maglev,
            Algorithm::HashIp,
            Algorithm::HashIpPort,
            Algorithm::HashIpVip,
        ]);
    }
    input.pick(&[
        Algorithm::RoundRobin,
        Algorithm::WeightedRoundRobin,
        Algorithm::LeastConnection,
        Algorithm::WeightedLeastConnection,
        Algorithm::ShortestExpectedDelay,
        Algorithm::NeverQueue,
        Algorithm::LocalityLeastConnection,
        Algorithm::LocalityLeastConnectionReplication,
        Algorithm::DestinationHash,
        Algorithm::SourceHash,
        Algorithm::Failover,
        Algorithm::Overflow,
        Algorithm::TwoChoices,
    ])
}
