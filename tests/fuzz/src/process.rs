//! [`process`]: a sequence of packets, changes of the configuration, time and sweeps through two workers with one
//! table, held against the [`Reference`].

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use ilb_forwarder::network::Network;
use ilb_forwarder::packet::{self, Kind, Tuple, tcp};
use ilb_forwarder::spec::*;
use ilb_forwarder::table::{Connection, Direction, State};
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{Forwarder, Packet, Snapshot, Table, View, census};

use crate::bytes::Bytes;
use crate::common::{BACK, Build, FAMILIES, FRONT, Family, HEADROOM, KEYS, icmp_error, network};
use crate::reference::Datagram::*;
use crate::reference::{End, Expected, Key, Known, Life, Reference, may_be_chosen};
use crate::wire;

const CAPACITY: u32 = 1024;
const FILL: u8 = 0xa5;
const TAIL: usize = 32;
/// Idle times below the first are always survived, idle times above the second never ([`Timeouts::default`]).
const SURVIVED: u32 = 10;
const FORGOTTEN: u32 = 900;
/// The server that never answers neighbour resolution ([`network`]).
const SILENT: u8 = 250;
const CLIENTS: usize = 4;
/// Seconds that later fragments wait for their first one; the fast path's are as few.
const PATIENCE: u32 = 2;

static NETWORK: LazyLock<Arc<Network>> = LazyLock::new(|| Arc::new(network()));

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
        let topology = input.pick(&[Topology::Nat, Topology::HalfNat, Topology::Dsr]);
        let first = 80 + 4 * u16::from(n);
        let mut rule = RuleSpec {
            id: u32::from(n) + 1,
            name: format!("rule{n}"),
            vips: vec![VipSpec {
                address: family.vip(),
                protocol: input.pick(&[Protocol::Tcp, Protocol::Udp]),
                ports: PortRange {
                    first,
                    last: first + 2,
                },
            }],
            topology,
            algorithm: algorithm(input),
            proxy_src: if topology == Topology::Nat {
                (1..=1 + input.below(2) as u8)
                    .map(|n| family.proxy(n))
                    .collect()
            } else {
                Vec::new()
            },
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
        let silent = family.server(SILENT);
        let address =
            if input.once_in(16) && rule.servers.iter().all(|server| server.address != silent) {
                silent
            } else {
                family.server(self.next_server)
            };
        ServerSpec {
            id: u32::from(self.next_server) + self.generation as u32 * 1000,
            name: format!("_s.{}", self.next_server),
            address,
            ports: match rule.topology {
                Topology::Dsr | Topology::Tun => PortMap::Same,
                _ => input.pick(&[PortMap::Same, PortMap::Collapse(8080), PortMap::Shift(9000)]),
            },
            weight: input.pick(&[1, 1, 1, 0, 7, 65535]),
            accepting: !input.once_in(8),
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
        match input.below(6) {
            0 => self.reference.rules[at].accepting ^= true,
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
            vip: (vip.address, vip.ports.first + input.below(4) as u16),
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
        let build = self.build(input, server, seen_client, key.protocol);
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

    /// An ICMP error about a packet of a connection, from either side.
    fn error(&mut self, input: &mut Bytes<'_>) -> Vec<Sent> {
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
            self.answers += u64::from(conserved(&sent.frame, verdict, out));
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

    /// Holds a client's packet against the reference. True if the reference cannot know what the table holds now.
    fn hold_client(
        &mut self,
        key: &Key,
        build: &Build,
        piece: Option<Piece>,
        verdict: Verdict,
        out: &[u8],
    ) -> bool {
        let expected = self.reference.expect(key, build.flags);
        if !matches!(expected, Expected::Continues(_) | Expected::Orphan) {
            // One that was over makes way, whatever becomes of the packet.
            self.reference.flows.remove(key);
        }
        let datagram = piece.map(|(_, id, _)| (*key, id));
        if let Some(datagram) = datagram {
            // Until it is known better below.
            self.reference.datagrams.insert(datagram, Unchecked);
        }
        let known = match expected {
            Expected::Continues(known) => known,
            Expected::Orphan => return true,
            Expected::Kernel => {
                assert_eq!(verdict, Verdict::Kernel, "{key:?}");
                if let Some(datagram) = datagram {
                    self.reference
                        .datagrams
                        .insert(datagram, Kernel { since: self.now });
                }
                return false;
            }
            // Established once, and forgotten since by the table but not by the rule's pool.
            Expected::NoConnection if matches!(verdict, Verdict::Transmit(_)) => return true,
            Expected::NoConnection => {
                assert_eq!(verdict, Verdict::Drop(DropReason::NoConnection), "{key:?}");
                return false;
            }
            Expected::Begins(rule) => match self.learn(rule, key, verdict, out) {
                Some(known) => known,
                None => {
                    let is_entered = verdict == Verdict::Drop(DropReason::TtlExpired);
                    if let (Some(datagram), false) = (datagram, is_entered) {
                        self.reference.datagrams.remove(&datagram);
                    }
                    return is_entered;
                }
            },
        };
        self.reference.flows.insert(*key, known);
        let id = self.renumbered(build, &known, piece, out);
        if let (Some(datagram), Some(id)) = (datagram, id) {
            let known = Follows {
                known,
                id,
                since: self.now,
            };
            self.reference.datagrams.insert(datagram, known);
        }
        let piece = piece.map(|(n, own, size)| (n, id.unwrap_or(own), size));
        self.goes_to_server(key, build, &known, piece, verdict, out);
        self.reference.passed(key, true, build.flags, self.now);
        false
    }

    /// The identification that a first fragment was given; None if it has none that can be read.
    fn renumbered(
        &self,
        build: &Build,
        known: &Known,
        piece: Option<Piece>,
        out: &[u8],
    ) -> Option<u32> {
        let (_, id, _) = piece?;
        let (rule, _) = self.reference.configured(known.rule, known.server)?;
        if !build.src.0.is_ipv4() || !rule.topology.has_reverse() {
            return Some(id);
        }
        (build.ttl > 1).then(|| u32::from(u16::from_be_bytes([out[18], out[19]])))
    }

    /// A packet of a known connection, or a fragment of it, arrives at the server as it should.
    fn goes_to_server(
        &self,
        key: &Key,
        build: &Build,
        known: &Known,
        piece: Option<Piece>,
        verdict: Verdict,
        out: &[u8],
    ) {
        let (src, dst) = self
            .reference
            .towards_server(key, known)
            .expect("is configured");
        let (rule, server) = self
            .reference
            .configured(known.rule, known.server)
            .expect("is configured");
        let hop = rule.topology != Topology::Dsr;
        if hop && build.ttl == 1 {
            assert_eq!(verdict, Verdict::Drop(DropReason::TtlExpired), "{key:?}");
            return;
        }
        let expected = Build {
            src,
            dst,
            ttl: build.ttl - u8::from(hop),
            ..build.clone()
        };
        let frame = match piece {
            None => expected.frame(),
            Some((n, id, size)) => expected.fragments(id, size).swap_remove(n),
        };
        arrives(server.address, BACK, &frame, verdict, out);
    }

    /// A fragment behind the first one follows it, or waits for it.
    fn hold_later(
        &mut self,
        key: &Key,
        build: &Build,
        (n, id, size): Piece,
        verdict: Verdict,
        out: &[u8],
    ) {
        match self.reference.datagram(key, id, self.now) {
            Some(Unchecked) => {}
            None => assert!(
                matches!(verdict, Verdict::Hold { .. }),
                "{key:?}: {verdict:?}"
            ),
            Some(Kernel { .. }) => assert_eq!(verdict, Verdict::Kernel, "{key:?}"),
            Some(Follows { known, id, .. }) => {
                match self.reference.configured(known.rule, known.server) {
                    None => {
                        assert_eq!(verdict, Verdict::Drop(DropReason::ServerGone), "{key:?}");
                    }
                    Some(_) => {
                        self.goes_to_server(key, build, &known, Some((n, id, size)), verdict, out);
                    }
                }
            }
        }
    }

    /// Which server a new connection was given, by what became of its first packet.
    fn learn(&self, rule: usize, key: &Key, verdict: Verdict, out: &[u8]) -> Option<Known> {
        let rule = &self.reference.rules[rule];
        let candidates = || rule.servers.iter().filter(|server| may_be_chosen(server));
        let chosen: IpAddr = match verdict {
            Verdict::Drop(DropReason::NoServer) => {
                assert!(
                    candidates().next().is_none(),
                    "a server could be chosen: {rule:#?}"
                );
                return None;
            }
            // No server has thresholds, but overflow takes a weight as one.
            Verdict::Drop(DropReason::ServerLimits) => {
                let overflow = rule.algorithm == Algorithm::Overflow;
                assert!(
                    overflow && candidates().next().is_some(),
                    "nobody is at a limit: {rule:#?}"
                );
                return None;
            }
            Verdict::Drop(DropReason::TtlExpired) => return None,
            Verdict::Drop(reason) => {
                assert!(REFUSALS.contains(&reason.label()), "{key:?}: {reason:?}");
                return None;
            }
            Verdict::Unresolved { next_hop, .. } => next_hop,
            Verdict::Transmit(_) => {
                let mut all = candidates();
                all.find(|server| out[..6] == mac(server.address))?.address
            }
            other => panic!("{key:?}: {other:?}"),
        };
        let server = candidates()
            .find(|server| server.address == chosen)
            .unwrap_or_else(|| panic!("{chosen} may not be chosen: {rule:#?}"));
        let tuple = packet::parse(out).expect("what is sent can be read").tuple;
        let nat = (rule.topology == Topology::Nat).then(|| (tuple.src.into(), tuple.sport));
        if let Some((address, port)) = nat {
            assert!(
                rule.proxy_src.contains(&address) && port >= 1024,
                "NAT by {address}:{port}"
            );
        }
        Some(Known {
            rule: rule.id,
            server: server.id,
            nat,
            life: Life::Open,
            seen: self.now,
        })
    }

    fn hold_server(&mut self, build: &Build, verdict: Verdict, out: &[u8]) {
        let Some((key, _)) = self
            .reference
            .of_reply(build.src, build.dst, build.protocol)
        else {
            return;
        };
        if build.ttl == 1 {
            assert_eq!(verdict, Verdict::Drop(DropReason::TtlExpired), "{key:?}");
        } else {
            let expected = Build {
                src: key.vip,
                dst: key.client,
                ttl: build.ttl - 1,
                ..build.clone()
            };
            arrives(key.client.0, FRONT, &expected.frame(), verdict, out);
        }
        self.reference.passed(&key, false, build.flags, self.now);
    }

    /// The table holds the connections of the reference and no others, each found by both of its keys.
    fn compare(&mut self, surprises: bool) {
        let mut listed = Vec::new();
        self.table.each(|index, connection| {
            if !connection.state.is_claim() {
                listed.push((index, *connection));
            }
            ControlFlow::Continue(())
        });
        let mut seen = std::collections::BTreeMap::new();
        for (index, connection) in &listed {
            let Some((key, known)) = self.meaning(connection) else {
                continue;
            };
            let before = seen.insert(key, known);
            assert!(before.is_none(), "{key:?} is in the table twice");
            if self
                .reference
                .configured(known.rule, known.server)
                .is_some()
            {
                self.both_ways(*index, connection);
            }
            match self.reference.flows.get(&key) {
                Some(old) if (old.server, old.nat) == (known.server, known.nat) => {
                    assert!(
                        surprises || old.life == known.life,
                        "{key:?}: {old:?}, but in the table {:?}",
                        connection.state
                    );
                }
                Some(old) => assert!(
                    surprises || self.reference.configured(old.rule, old.server).is_none(),
                    "{key:?} has changed from {old:?} to {known:?}"
                ),
                None => assert!(surprises, "{key:?} comes from nowhere: {known:?}"),
            }
        }
        for (key, old) in &self.reference.flows {
            let excused = match self.reference.configured(old.rule, old.server) {
                None => true,
                // Its client uses the same port anew, through another VIP port.
                Some((rule, _)) => rule.topology == Topology::HalfNat && old.life != Life::Open,
            };
            assert!(
                surprises || excused || seen.contains_key(key),
                "{key:?} is lost: {old:?}"
            );
        }
        self.reference.flows = seen;
    }

    /// What an entry stands for; None for one that is no connection. Its server may be gone, but rules stay.
    fn meaning(&self, connection: &Connection) -> Option<(Key, Known)> {
        let id = &connection.identity;
        let rule = self.reference.rule(id.rule)?;
        let key = Key {
            client: (id.client.into(), id.client_port),
            vip: (rule.vips[id.vip_index as usize].address, id.vip_port),
            protocol: id.protocol,
        };
        let nat = (rule.topology == Topology::Nat)
            .then(|| (rule.proxy_src[id.nat_index as usize], id.nat_port));
        let life = match connection.state {
            State::FinWait | State::TimeWait | State::LastAck => Life::Closed,
            State::Close => Life::Reset,
            _ => Life::Open,
        };
        let known = Known {
            rule: id.rule,
            server: id.server,
            nat,
            life,
            seen: connection.last_seen,
        };
        Some((key, known))
    }

    fn both_ways(&self, index: u32, connection: &Connection) {
        let flow = self.view.flow(connection.identity).expect("is configured");
        let find = |tuple: &Tuple| {
            let hash = self.table.hasher().flow(
                tuple.src,
                tuple.dst,
                tuple.sport,
                tuple.dport,
                tuple.protocol,
            );
            self.table
                .find(hash as u32, |entry, direction| {
                    self.view.recognise(tuple, entry, direction).is_some()
                })
                .map(|found| (found.index, found.direction))
        };
        assert_eq!(
            find(&flow.forward_tuple()),
            Some((index, Direction::Forward)),
            "{connection:?}"
        );
        if let Some(tuple) = flow.reverse_tuple() {
            assert_eq!(
                find(&tuple),
                Some((index, Direction::Reverse)),
                "{connection:?}"
            );
        }
    }

    fn sweep(&mut self) {
        let table = self.table.clone();
        let mut sweeper = table.sweeper();
        let swept = census::take(&self.view, &mut sweeper, self.now);
        let mut left = 0;
        let mut lost = Vec::new();
        let mut live = std::collections::BTreeSet::new();
        table.each(|_, connection| {
            left += 1;
            live.extend(self.meaning(connection).map(|(key, _)| key));
            ControlFlow::Continue(())
        });
        assert_eq!(swept.live, left, "what the census counted is what is there");
        for (key, known) in &self.reference.flows {
            let idle = self.now - known.seen;
            let (there, configured) = (
                live.contains(key),
                self.reference
                    .configured(known.rule, known.server)
                    .is_some(),
            );
            assert!(
                there || !configured || idle > SURVIVED,
                "{key:?} ended after {idle} s"
            );
            assert!(!there || idle <= FORGOTTEN, "{key:?} lives after {idle} s");
            lost.extend((!there).then_some(*key));
        }
        self.reference.flows.retain(|key, _| !lost.contains(key));
        // Nobody is in a batch: whatever is dead comes back.
        for _ in 0..2 {
            census::take(&self.view, &mut sweeper, self.now);
        }
        assert_eq!(table.used(), left, "entries in use are live ones");
    }

    fn end(&mut self) {
        self.sweep();
        let counters = self.workers.iter().map(Forwarder::counters);
        let (mut verdicts, mut packets, mut held) = (0, 0, 0);
        for counters in counters {
            packets += counters.packets.get();
            verdicts +=
                counters.transmitted.get() + counters.kernel.get() + counters.unresolved.get();
            held += counters.held.get();
            verdicts += DropReason::ALL
                .iter()
                .map(|&reason| counters.drops(reason))
                .sum::<u64>();
        }
        assert_eq!(
            (packets, verdicts + held, held),
            (self.packets, self.packets + self.answers, self.held),
            "one verdict each, and one more for an answer"
        );
        self.now += 1_000_000;
        self.sweep();
        assert_eq!(self.table.used(), 0, "everything ends");
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

/// The MTU of all interfaces ([`network`]).
const MTU: usize = 1500;

/// What holds for every frame. True if it was answered instead of sent on.
fn conserved(before: &[u8], verdict: Verdict, after: &[u8]) -> bool {
    let is_sent = matches!(verdict, Verdict::Transmit(_) | Verdict::Unresolved { .. });
    if is_sent && wire::is_error_about(after, before) {
        assert!(before.len() > 14 + MTU, "nothing else is answered");
        return true;
    }
    match verdict {
        Verdict::Kernel => assert_eq!(after, before, "the kernel gets it unchanged"),
        Verdict::Hold { .. } => assert_eq!(after, before, "it waits unchanged"),
        Verdict::Transmit(port) => {
            assert!(port == FRONT || port == BACK);
            assert_eq!(after.len(), before.len());
            let read = packet::parse(after).expect("what is sent can be read");
            assert_ne!(read.kind, Kind::Other, "what is sent is balanced");
        }
        Verdict::Unresolved { .. } => assert_eq!(after.len(), before.len()),
        Verdict::Drop(_) => return false,
    }
    if wire::checksums(before) == Some(true) {
        assert_eq!(wire::checksums(after), Some(true), "checksums stay right");
    }
    false
}

/// The frame has become what it should and goes to this address, by its neighbour or the gateway ([`network`]).
fn arrives(address: IpAddr, port: u8, expected: &[u8], verdict: Verdict, out: &[u8]) {
    let family = FAMILIES[usize::from(!address.is_ipv4())];
    let all = if port == FRONT {
        Family::client
    } else {
        Family::server
    };
    if (1..=253).any(|n| n != SILENT && all(family, n) == address) {
        assert_eq!(verdict, Verdict::Transmit(port));
        assert_eq!(out[..6], mac(address));
        assert_eq!(out[6..12], [2, 0, 0, 0, 0, port]);
    } else if family.on_link(address) {
        assert_eq!(
            verdict,
            Verdict::Unresolved {
                port,
                next_hop: address
            }
        );
    } else {
        assert_eq!(
            verdict,
            Verdict::Unresolved {
                port: FRONT,
                next_hop: family.gateway()
            }
        );
    }
    assert_eq!(out[12..], expected[12..]);
}

impl Family {
    fn gateway(self) -> IpAddr {
        self.client(254)
    }

    /// Whether an address is in one of the two networks that we are in.
    fn on_link(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => matches!(v4.octets(), [10, 1 | 2, 0, _]),
            IpAddr::V6(v6) => matches!(v6.segments(), [0xfd01 | 0xfd02, 0, 0, 0, ..]),
        }
    }
}

/// The Ethernet address of a client or a server ([`network`]).
fn mac(address: IpAddr) -> [u8; 6] {
    let (net, host) = match address {
        IpAddr::V4(v4) => (v4.octets()[1], v4.octets()[3]),
        IpAddr::V6(v6) => (v6.octets()[1], v6.octets()[15]),
    };
    [4, 0, 0, 0, net, host]
}
