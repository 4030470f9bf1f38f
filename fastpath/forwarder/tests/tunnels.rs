//! TUN: what a server gets out of the tunnel is what the client sent, less one hop; what does not fit is answered.

mod common;

use std::collections::HashSet;
use std::net::IpAddr;

use common::*;
use ilb_forwarder::address::Addr;
use ilb_forwarder::packet::{self, tcp};
use ilb_forwarder::spec::*;
use ilb_forwarder::tunnel::MOST_OVERHEAD;
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{CompileError, Packet, Snapshot, checksum};
use proptest::prelude::*;

const PORT: u16 = 6080;

fn gue(checksum: GueChecksum) -> Tunnel {
    Tunnel::Gue {
        port: PORT,
        checksum,
    }
}

const KINDS: [Tunnel; 6] = [
    Tunnel::Ipip,
    Tunnel::Gre { checksum: false },
    Tunnel::Gre { checksum: true },
    Tunnel::Gue {
        port: PORT,
        checksum: GueChecksum::None,
    },
    Tunnel::Gue {
        port: PORT,
        checksum: GueChecksum::Udp,
    },
    Tunnel::Gue {
        port: PORT,
        checksum: GueChecksum::Remote,
    },
];

/// Bytes before a TCP segment's packet.
fn overhead(kind: Tunnel, outer: Family) -> usize {
    let shim = match kind {
        Tunnel::Ipip => 0,
        Tunnel::Gre { checksum } => 4 + 4 * checksum as usize,
        Tunnel::Gue {
            checksum: GueChecksum::Remote,
            ..
        } => 20,
        Tunnel::Gue { .. } => 12,
    };
    shim + if outer.v4 { 20 } else { 40 }
}

fn tunnel_rule(kind: Tunnel, inner: Family, outer: Family, protocol: Protocol) -> RuleSpec {
    let mut rule = rule(inner, Topology::Tun, Algorithm::RoundRobin, 3);
    rule.tunnel = kind;
    rule.vips[0].protocol = protocol;
    rule.proxy_src = (1..=3).map(|n| outer.proxy(n)).collect();
    for (n, server) in rule.servers.iter_mut().enumerate() {
        server.address = outer.server(n as u8 + 1);
    }
    rule
}

fn world(kind: Tunnel, inner: Family, outer: Family) -> World {
    let mut udp = tunnel_rule(kind, inner, outer, Protocol::Udp);
    udp.id = 2;
    World::new(vec![tunnel_rule(kind, inner, outer, Protocol::Tcp), udp])
}

/// A packet as the far end of a tunnel sees it.
#[derive(Debug)]
struct Decoded {
    src: IpAddr,
    dst: IpAddr,
    ttl: u8,
    ds: u8,
    /// IPv6.
    label: u32,
    /// GUE.
    sport: u16,
    /// With an Ethernet header before it, for [`headers`].
    inner: Vec<u8>,
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The far end: independent of the code that wraps, straight from the RFCs.
fn decode(frame: &[u8], kind: Tunnel) -> Decoded {
    let ip = &frame[14..];
    let mut out = Decoded {
        src: ip_addr(&[0; 4]),
        dst: ip_addr(&[0; 4]),
        ttl: 0,
        ds: 0,
        label: 0,
        sport: 0,
        inner: vec![],
    };
    let (protocol, mut body) = match be16(frame, 12) {
        0x0800 => {
            assert_eq!(ip[0], 0x45);
            assert_eq!(be16(ip, 2) as usize, ip.len(), "total length, no padding");
            assert_eq!(be16(ip, 6), 0x4000, "DF and no fragment");
            assert_eq!(checksum::of(&ip[..20], 0), 0, "outer header checksum");
            (out.ttl, out.ds) = (ip[8], ip[1]);
            (out.src, out.dst) = (ip_addr(&ip[12..16]), ip_addr(&ip[16..20]));
            (ip[9], ip[20..].to_vec())
        }
        0x86dd => {
            assert_eq!(ip[0] >> 4, 6);
            assert_eq!(be16(ip, 4) as usize + 40, ip.len(), "payload length");
            (out.ttl, out.ds) = (ip[7], (be16(ip, 0) >> 4) as u8);
            out.label = u32::from_be_bytes(ip[..4].try_into().unwrap()) & 0xf_ffff;
            (out.src, out.dst) = (ip_addr(&ip[8..24]), ip_addr(&ip[24..40]));
            (ip[6], ip[40..].to_vec())
        }
        other => panic!("Ethernet type {other:x}"),
    };
    let inner_protocol = match kind {
        Tunnel::Ipip => protocol,
        Tunnel::Gre { checksum } => {
            assert_eq!(protocol, 47);
            assert_eq!(be16(&body, 0), (checksum as u16) << 15);
            if checksum {
                assert_eq!(checksum::of(&body, 0), 0, "GRE checksum");
                assert_eq!(be16(&body, 6), 0, "reserved");
            }
            let ethertype = be16(&body, 2);
            body.drain(..if checksum { 8 } else { 4 });
            if ethertype == 0x0800 { 4 } else { 41 }
        }
        Tunnel::Gue { port, checksum } => {
            assert_eq!(protocol, 17);
            out.sport = be16(&body, 0);
            assert_eq!(be16(&body, 2), port);
            assert_eq!(be16(&body, 4) as usize, body.len());
            if checksum == GueChecksum::None {
                assert_eq!(be16(&body, 6), 0);
            } else {
                assert_ne!(be16(&body, 6), 0);
                let (src, dst) = (Addr::from(out.src), Addr::from(out.dst));
                let pseudo = checksum::pseudo_header(src, dst, 17, body.len());
                assert_eq!(checksum::of(&body, pseudo), 0, "outer UDP checksum");
            }
            assert_eq!(body[8] & 0xe0, 0, "variant 0, no control");
            let options = (body[8] & 0x1f) as usize * 4;
            let number = body[9];
            let remote = be16(&body, 10) == 1;
            assert_eq!(options, if remote { 8 } else { 0 });
            let (mut start, mut offset) = (0, 0);
            if remote {
                assert_eq!(checksum, GueChecksum::Remote);
                assert_eq!(body[12..16], [0x80, 0, 0, 0]);
                (start, offset) = (be16(&body, 16) as usize, be16(&body, 18) as usize);
            }
            body.drain(..12 + options);
            if remote {
                let sum = checksum::of(&body[start..], 0);
                body[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
            }
            number
        }
    };
    let ethertype: u16 = match inner_protocol {
        4 => 0x0800,
        41 => 0x86dd,
        other => panic!("inner protocol {other}"),
    };
    out.inner = vec![0; 12];
    out.inner.extend(ethertype.to_be_bytes());
    out.inner.extend(body);
    out
}

fn ip_addr(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap()),
    }
}

/// What the server has to get: the client's packet, one hop older.
fn one_hop_on(frame: &[u8]) -> Vec<u8> {
    let h = headers(frame);
    let mut packet = frame[14..h.end as usize].to_vec();
    if h.is_v4() {
        let len = (packet[0] & 0xf) as usize * 4;
        packet[8] -= 1;
        packet[10..12].fill(0);
        let sum = checksum::of(&packet[..len], 0);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[7] -= 1;
    }
    packet
}

fn combinations() -> impl Iterator<Item = (Tunnel, Family, Family)> {
    KINDS.into_iter().flat_map(|kind| {
        FAMILIES
            .into_iter()
            .flat_map(move |inner| FAMILIES.into_iter().map(move |outer| (kind, inner, outer)))
    })
}

#[test]
fn the_server_gets_what_the_client_sent() {
    for (kind, inner, outer) in combinations() {
        let mut world = world(kind, inner, outer);
        let (client, vip) = ((inner.client(1), 40_001), (inner.vip(), 80));
        let frames = [
            ("SYN", syn(client, vip)),
            ("ACK", ack(client, vip)),
            ("UDP", datagram(client, vip).frame()),
            (
                "UDP without checksum",
                Build {
                    udp_checksum: false,
                    ..datagram(client, vip)
                }
                .frame(),
            ),
        ];
        for (what, frame) in frames {
            let what = format!("{what} by {kind:?}, {inner:?} in {outer:?}");
            // Ethernet pads short frames; that is no part of the packet.
            let mut padded = frame.clone();
            padded.extend([0xee; 7]);
            let (verdict, out) = world.send(&padded);
            assert_eq!(verdict, Verdict::Transmit(BACK), "{what}");
            assert_eq!(out[..6], [4, 0, 0, 0, 2, 1], "{what}: to the first server");
            assert_eq!(out[6..12], [2, 0, 0, 0, 0, BACK], "{what}");
            let decoded = decode(&out, kind);
            assert_eq!(decoded.dst, outer.server(1), "{what}");
            assert_eq!(decoded.ttl, 64, "{what}");
            assert_eq!(decoded.inner[14..], one_hop_on(&frame), "{what}");
            if what.starts_with("SYN") {
                let grown = out.len() - frame.len();
                assert_eq!(grown, overhead(kind, outer), "{what}");
                assert!(grown <= MOST_OVERHEAD);
            }
        }
        let totals = world.view.snapshot.targets()[0].account.totals();
        assert_eq!(totals.packets, 2, "{kind:?}");
        assert_eq!(totals.connections, 1);
    }
}

#[test]
fn the_outer_source_is_a_flows_own_and_varies_over_flows() {
    for (kind, inner, outer) in combinations() {
        let mut world = world(kind, inner, outer);
        let (mut sources, mut ports, mut labels) = (HashSet::new(), HashSet::new(), HashSet::new());
        for n in 0..60 {
            let (client, vip) = ((inner.client(1), 30_000 + n), (inner.vip(), 80));
            let mut of_flow = HashSet::new();
            for frame in [syn(client, vip), ack(client, vip), ack(client, vip)] {
                let (verdict, out) = world.send(&frame);
                assert_eq!(verdict, Verdict::Transmit(BACK));
                let Decoded {
                    src, sport, label, ..
                } = decode(&out, kind);
                of_flow.insert((src, sport, label));
            }
            assert_eq!(of_flow.len(), 1, "{kind:?}: a flow keeps its way");
            let (src, sport, label) = of_flow.into_iter().next().unwrap();
            sources.insert(src);
            ports.insert(sport);
            labels.insert(label);
        }
        let expected: HashSet<_> = (1..=3).map(|n| outer.proxy(n)).collect();
        assert_eq!(sources, expected, "{kind:?}");
        if let Tunnel::Gue { .. } = kind {
            assert!(ports.len() > 50, "{kind:?}: {} ports", ports.len());
            assert!(ports.iter().all(|&port| port >= 49152));
        }
        if !outer.v4 {
            assert!(labels.len() > 50, "{kind:?}: {} labels", labels.len());
            assert!(!labels.contains(&0));
        }
    }
}

#[test]
fn all_fragments_of_a_datagram_arrive_from_one_source() {
    for (kind, inner, outer) in combinations() {
        let mut world = world(kind, inner, outer);
        let (client, vip) = ((inner.client(1), 40_001), (inner.vip(), 80));
        let long = Build {
            payload: (0..3001).map(|n| n as u8).collect(),
            ..datagram(client, vip)
        };
        let mut ways = HashSet::new();
        for fragment in long.fragments(77, 1360) {
            let (verdict, out) = world.send(&fragment);
            assert_eq!(verdict, Verdict::Transmit(BACK), "{kind:?}");
            let decoded = decode(&out, kind);
            assert_eq!(decoded.inner[14..], one_hop_on(&fragment), "{kind:?}");
            ways.insert((decoded.src, decoded.dst, decoded.sport));
        }
        assert_eq!(ways.len(), 1, "{kind:?}");
    }
}

#[test]
fn dscp_and_congestion_are_copied() {
    for (kind, inner, outer) in combinations() {
        let mut world = world(kind, inner, outer);
        for ds in [
            0u8,
            0b1011_1000,
            0b0000_0001,
            0b0000_0010,
            0b0010_1011,
            0xff,
        ] {
            let mut frame = syn((inner.client(2), 4000), (inner.vip(), 80));
            if inner.v4 {
                frame[15] = ds;
                frame[24..26].fill(0);
                let sum = checksum::of(&frame[14..34], 0);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            } else {
                frame[14] = 0x60 | ds >> 4;
                frame[15] = ds << 4;
            }
            let (_, out) = world.send(&frame);
            let decoded = decode(&out, kind);
            assert_eq!(decoded.ds, ds, "{kind:?} {inner:?} {outer:?}");
            assert_eq!(decoded.inner[14..], one_hop_on(&frame));
        }
    }
}

#[test]
fn what_was_damaged_stays_damaged() {
    for (kind, inner, outer) in combinations() {
        let mut world = world(kind, inner, outer);
        let (client, vip) = ((inner.client(1), 40_001), (inner.vip(), 80));
        world.send(&syn(client, vip));
        let mut frame = ack(client, vip);
        *frame.last_mut().unwrap() ^= 4;
        let (_, out) = world.send(&frame);
        let caught = std::panic::catch_unwind(|| assert_checksums(&decode(&out, kind).inner));
        assert!(caught.is_err(), "{kind:?}: somebody notices");
    }
}

#[test]
fn without_room_a_hop_or_a_source_there_is_no_tunnel() {
    for (kind, inner, outer) in combinations() {
        let mut world = world(kind, inner, outer);
        let (client, vip) = ((inner.client(1), 40_001), (inner.vip(), 80));
        let frame = syn(client, vip);
        let needed = overhead(kind, outer);
        for (room, expected) in [
            (needed, Verdict::Transmit(BACK)),
            (needed - 1, Verdict::Drop(DropReason::EncapsulationRoom)),
            (0, Verdict::Drop(DropReason::EncapsulationRoom)),
        ] {
            let mut buf = vec![0; room];
            buf.extend(&frame);
            let mut packets = [Packet::new(&mut buf, room, frame.len(), FRONT)];
            world.forwarder.process(&world.view, &mut packets, 1000);
            assert_eq!(packets[0].verdict, expected, "{kind:?} with {room} bytes");
        }
        let last = Build {
            ttl: 1,
            ..segment(client, vip, tcp::ACK)
        };
        let verdict = world.send(&last.frame()).0;
        assert_eq!(verdict, Verdict::Drop(DropReason::TtlExpired), "{kind:?}");

        let mut rule = tunnel_rule(kind, inner, outer, Protocol::Tcp);
        let other = FAMILIES.into_iter().find(|f| f.v4 != outer.v4).unwrap();
        rule.proxy_src = vec![other.proxy(1)];
        let error = compile(rule).unwrap_err();
        assert!(
            matches!(&error, CompileError::NoTunnelSource { address, .. } if *address == outer.server(1)),
            "{error}"
        );
        assert!(error.to_string().contains("no-tunnel-source"), "{error}");
    }
}

fn compile(rule: RuleSpec) -> Result<Snapshot, CompileError> {
    let spec = SnapshotSpec {
        generation: 1,
        rules: vec![rule],
        ..SnapshotSpec::default()
    };
    Snapshot::compile(&spec, None, 1)
}

#[test]
fn one_rule_may_have_servers_of_both_families() {
    let mut rule = tunnel_rule(Tunnel::Ipip, V4, V4, Protocol::Tcp);
    rule.servers[1].address = V6.server(2);
    rule.proxy_src.push(V6.proxy(1));
    let mut world = World::new(vec![rule]);
    for (n, family) in [(1, V4), (2, V6), (3, V4)] {
        let (_, out) = world.send(&syn((V4.client(9), 1000 + n), (V4.vip(), 80)));
        assert_eq!(decode(&out, Tunnel::Ipip).dst, family.server(n as u8));
    }
}

#[test]
fn ports_of_servers_cannot_be_changed() {
    let mut rule = tunnel_rule(Tunnel::Ipip, V4, V4, Protocol::Tcp);
    rule.servers[0].ports = PortMap::Collapse(8080);
    assert!(matches!(compile(rule), Err(CompileError::DsrPorts { .. })));
    let mut rule = tunnel_rule(Tunnel::Ipip, V4, V4, Protocol::Tcp);
    rule.proxy_src = (1..=11).map(|n| V4.proxy(n)).collect();
    assert!(matches!(compile(rule), Err(CompileError::Count { .. })));
}

/// A full-sized segment, IPv4 with DF.
fn full(src: (IpAddr, u16), dst: (IpAddr, u16), ip_len: usize, df: bool) -> Vec<u8> {
    let fixed = if src.0.is_ipv4() { 40 } else { 60 };
    let mut frame = Build {
        payload: (0..ip_len - fixed).map(|n| n as u8).collect(),
        ..segment(src, dst, tcp::ACK)
    }
    .frame();
    if src.0.is_ipv4() && df {
        frame[20] = 0x40;
        frame[24..26].fill(0);
        let sum = checksum::of(&frame[14..34], 0);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// The MTU that an ICMP error tells the client, after everything else about the error has been checked.
fn told(out: &[u8], from: IpAddr, sent: &[u8], ttl_lost: bool) -> usize {
    assert_checksums(out);
    let h = headers(out);
    let about = headers(sent);
    assert_eq!(IpAddr::from(h.tuple.src), from);
    assert_eq!(h.tuple.dst, about.tuple.src);
    assert_eq!(h.end as usize, out.len());
    let most = if h.is_v4() { 576 } else { 1280 };
    assert!(h.ip_len() <= most, "{} bytes", h.ip_len());
    let message = &out[h.l4 as usize..];
    let quote = &message[8..];
    let original = if ttl_lost {
        one_hop_on(sent)
    } else {
        sent[14..].to_vec()
    };
    assert_eq!(quote, &original[..quote.len()], "as the client sent it");
    if h.is_v4() {
        assert_eq!(message[..2], [3, 4]);
        assert_eq!(be16(message, 4), 0);
        be16(message, 6) as usize
    } else {
        assert_eq!(message[..2], [2, 0]);
        u32::from_be_bytes(message[4..8].try_into().unwrap()) as usize
    }
}

#[test]
fn the_client_is_told_what_fits_into_the_tunnel() {
    for (kind, inner, outer) in combinations() {
        let mut world = world(kind, inner, outer);
        let (client, vip) = ((inner.client(1), 40_001), (inner.vip(), 80));
        world.send(&syn(client, vip));
        let room = 1500 - overhead(kind, outer);
        let (verdict, out) = world.send(&full(client, vip, room, true));
        assert_eq!(verdict, Verdict::Transmit(BACK), "{kind:?}: just fits");
        assert_eq!(out.len(), 1514);

        let before = world.forwarder.counters().drops(DropReason::TooBig);
        let sent = full(client, vip, room + 1, true);
        let (verdict, out) = world.send(&sent);
        assert_eq!(verdict, Verdict::Transmit(FRONT), "{kind:?}: an answer");
        assert_eq!(out[..12], [4, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, FRONT]);
        assert_eq!(told(&out, inner.vip(), &sent, false), room, "{kind:?}");
        let after = world.forwarder.counters().drops(DropReason::TooBig);
        assert_eq!(after, before + 1);
        let totals = world.view.snapshot.targets()[0].account.totals();
        assert_eq!((totals.icmp_processed, totals.too_big_processed), (1, 1));
        assert_eq!(totals.dropped_packets, 1);

        // IPv4 without DF: nobody waits for an answer.
        if inner.v4 {
            let sent = full(client, vip, room + 1, false);
            assert_eq!(
                world.send(&sent).0,
                Verdict::Drop(DropReason::TooBig),
                "{kind:?}"
            );
        }
    }
}

#[test]
fn other_topologies_tell_both_ends_too() {
    for family in FAMILIES {
        for topology in [Topology::Dsr, Topology::HalfNat, Topology::Nat] {
            let mut world = World::new(vec![rule(family, topology, Algorithm::RoundRobin, 1)]);
            let (client, vip) = ((family.client(1), 40_001), (family.vip(), 80));
            let at_server = world.pass(&syn(client, vip), BACK);
            let sent = full(client, vip, 1501, true);
            let out = world.pass(&sent, FRONT);
            assert_eq!(told(&out, family.vip(), &sent, false), 1500);
            if topology == Topology::Dsr {
                continue;
            }
            let (seen_client, server) = ends(&at_server);
            let sent = full(server, seen_client, 1600, true);
            let out = world.pass(&sent, BACK);
            let from = if topology == Topology::Nat {
                seen_client.0
            } else {
                family.vip()
            };
            assert_eq!(told(&out, from, &sent, false), 1500, "{topology:?}");
        }
    }
}

#[test]
fn answers_are_limited_and_the_drops_still_counted() {
    let table = std::sync::Arc::new(ilb_forwarder::Table::private(1024, KEYS).unwrap());
    let spec = SnapshotSpec {
        generation: 1,
        limits: Limits {
            icmp_errors_per_second: 5,
            ..Limits::default()
        },
        rules: vec![tunnel_rule(Tunnel::Ipip, V4, V4, Protocol::Tcp)],
    };
    let snapshot = Snapshot::compile(&spec, None, 1).unwrap();
    let mut world = World {
        forwarder: ilb_forwarder::Forwarder::new(0, table.clone()),
        table,
        view: ilb_forwarder::View::new(snapshot.into(), network().into()),
        now: 1000,
    };
    let (client, vip) = ((V4.client(1), 40_001), (V4.vip(), 80));
    world.send(&syn(client, vip));
    for second in 0..3 {
        world.now = 1000 + second;
        let answered = (0..20)
            .filter(|_| {
                let verdict = world.send(&full(client, vip, 1500, true)).0;
                verdict == Verdict::Transmit(FRONT)
            })
            .count();
        assert_eq!(answered, 5, "second {second}");
    }
    let totals = world.view.snapshot.targets()[0].account.totals();
    assert_eq!((totals.too_big_processed, totals.too_big_dropped), (15, 45));
    assert_eq!(world.forwarder.counters().drops(DropReason::TooBig), 60);
}

/// An ICMP error from a router on the way about `quote` bytes of an outer packet.
fn path_error(outer: Family, about: &[u8], too_big: bool, mtu: u16, quote: usize) -> Vec<u8> {
    let source = IpAddr::from(headers(about).tuple.src);
    let mut error = icmp_error(outer.router(), source, too_big, about, quote);
    let h = headers(&error);
    let (l4, end) = (h.l4 as usize, h.end as usize);
    error[l4 + 2..l4 + 4].fill(0);
    error[l4 + 6..l4 + 8].copy_from_slice(&mtu.to_be_bytes());
    let pseudo = if outer.v4 {
        0
    } else {
        checksum::pseudo_header(h.tuple.src, h.tuple.dst, 58, end - l4)
    };
    let sum = checksum::of(&error[l4..end], pseudo);
    error[l4 + 2..l4 + 4].copy_from_slice(&sum.to_be_bytes());
    error
}

#[test]
fn an_error_from_the_path_becomes_one_from_the_vip() {
    for (kind, inner, outer) in combinations() {
        let mut world = world(kind, inner, outer);
        let (client, vip) = ((inner.client(1), 40_001), (inner.vip(), 80));
        world.send(&syn(client, vip));
        let room = 1500 - overhead(kind, outer);
        let sent = full(client, vip, room, true);
        let (_, on_path) = world.send(&sent);
        let error = path_error(outer, &on_path, true, 1400, 500);
        let (verdict, out) = world.send_by(&error, BACK);
        assert_eq!(
            verdict,
            Verdict::Transmit(FRONT),
            "{kind:?} {inner:?} {outer:?}"
        );
        let expected = 1400 - overhead(kind, outer);
        // Remote checksum offload has the checksum elsewhere on the path; a client does not look at it.
        let remote = gue(GueChecksum::Remote) == kind;
        let sent_then = if remote {
            let mut quoted = sent.clone();
            let h = headers(&out);
            let at = h.l4 as usize + 8;
            let field = headers(&sent).l4 as usize - 14 + 16;
            let l4 = headers(&sent).l4 as usize;
            quoted[l4 + 16..l4 + 18].copy_from_slice(&out[at + field..at + field + 2]);
            quoted
        } else {
            sent.clone()
        };
        assert_eq!(told(&out, inner.vip(), &sent_then, true), expected);

        // Learned: the next one is answered at once, for ten minutes.
        world.now += 599;
        let (verdict, out) = world.send(&sent);
        assert_eq!(verdict, Verdict::Transmit(FRONT), "{kind:?}: at once");
        assert_eq!(told(&out, inner.vip(), &sent, false), expected);
        world.now += 1;
        let (verdict, _) = world.send(&sent);
        assert_eq!(verdict, Verdict::Transmit(BACK), "{kind:?}: tried again");
        let totals = world.view.snapshot.targets()[0].account.totals();
        assert_eq!((totals.icmp_processed, totals.too_big_processed), (2, 2));
    }
}

#[test]
fn other_errors_from_the_path_say_unreachable() {
    for (kind, inner, outer) in combinations() {
        let mut world = world(kind, inner, outer);
        let (client, vip) = ((inner.client(1), 40_001), (inner.vip(), 80));
        let (_, on_path) = world.send(&syn(client, vip));
        let error = path_error(outer, &on_path, false, 0, 500);
        let (verdict, out) = world.send_by(&error, BACK);
        assert_eq!(verdict, Verdict::Transmit(FRONT), "{kind:?}");
        assert_checksums(&out);
        let h = headers(&out);
        let message = &out[h.l4 as usize..];
        let expected = if inner.v4 { [3, 1] } else { [1, 3] };
        assert_eq!(message[..2], expected, "{kind:?}");
        let quoted = packet::parse_quoted(&out, h.l4 as usize + 8, inner.v4).unwrap();
        assert_eq!(quoted.tuple, headers(&syn(client, vip)).tuple);
    }
}

#[test]
fn a_short_quotation_still_teaches_the_path() {
    for (kind, inner, outer) in combinations() {
        let mut world = world(kind, inner, outer);
        let (client, vip) = ((inner.client(1), 40_001), (inner.vip(), 80));
        world.send(&syn(client, vip));
        let sent = full(client, vip, 1500 - overhead(kind, outer), true);
        let (_, on_path) = world.send(&sent);
        // RFC 792: the header and eight bytes.
        let quote = if outer.v4 { 28 } else { 48 };
        let error = path_error(outer, &on_path, true, 1400, quote);
        assert_eq!(world.send_by(&error, BACK).0, Verdict::Kernel, "{kind:?}");
        let (verdict, out) = world.send(&sent);
        assert_eq!(verdict, Verdict::Transmit(FRONT), "{kind:?}");
        let expected = 1400 - overhead(kind, outer);
        assert_eq!(told(&out, inner.vip(), &sent, false), expected, "{kind:?}");
        // A new configuration does not forget it.
        let mut rules = vec![tunnel_rule(kind, inner, outer, Protocol::Tcp)];
        rules[0].servers[0].weight = 7;
        world.configure(rules);
        assert_eq!(world.send(&sent).0, Verdict::Transmit(FRONT), "{kind:?}");
    }
}

#[test]
fn nobody_else_teaches_us_a_path() {
    let mut world = world(Tunnel::Ipip, V4, V4);
    let (client, vip) = ((V4.client(1), 40_001), (V4.vip(), 80));
    world.send(&syn(client, vip));
    let sent = full(client, vip, 1480, true);
    let (_, on_path) = world.send(&sent);
    let source = decode(&on_path, Tunnel::Ipip).src;
    // (what, error)
    let mut damaged = path_error(V4, &on_path, true, 600, 100);
    *damaged.last_mut().unwrap() ^= 1;
    let mut strange = on_path.clone();
    strange[14 + 12..14 + 16].copy_from_slice(&[10, 2, 0, 99]);
    let from_strange = path_error(V4, &strange, true, 600, 100);
    let mut elsewhere = on_path.clone();
    elsewhere[14 + 16..14 + 20].copy_from_slice(&[10, 2, 0, 77]);
    let to_elsewhere = path_error(V4, &elsewhere, true, 600, 100);
    for (what, error, expected) in [
        ("damaged", damaged, Verdict::Drop(DropReason::Malformed)),
        ("from a source not ours", from_strange, Verdict::Kernel),
        ("to no server", to_elsewhere, Verdict::Kernel),
    ] {
        assert_eq!(world.send_by(&error, BACK).0, expected, "{what}");
        let (verdict, out) = world.send(&sent);
        assert_eq!(verdict, Verdict::Transmit(BACK), "{what}");
        assert_eq!(decode(&out, Tunnel::Ipip).src, source);
    }
    // A router from before RFC 1191 says 0: the next plateau below what it was sent.
    let old = path_error(V4, &on_path, true, 0, 100);
    let (verdict, out) = world.send_by(&old, BACK);
    assert_eq!(verdict, Verdict::Transmit(FRONT));
    assert_eq!(told(&out, V4.vip(), &sent, true), 1492 - 20);
}

#[test]
fn a_clients_error_about_an_answer_reaches_the_server_in_the_tunnel() {
    // The server answers from the VIP, past us; a router near the client complains to the VIP.
    for (kind, inner, outer) in combinations() {
        let mut world = world(kind, inner, outer);
        let (client, vip) = ((inner.client(1), 40_001), (inner.vip(), 80));
        let (_, first) = world.send(&syn(client, vip));
        let server = decode(&first, kind);
        let answer = full(vip, client, 1200, true);
        let error = icmp_error(inner.router(), vip.0, true, &answer, 400);
        let (verdict, out) = world.send(&error);
        assert_eq!(verdict, Verdict::Transmit(BACK), "{kind:?}");
        let decoded = decode(&out, kind);
        assert_eq!((decoded.src, decoded.dst), (server.src, server.dst));
        assert_eq!(decoded.inner[14..], one_hop_on(&error), "{kind:?}");
    }
}

fn any_kind() -> impl Strategy<Value = Tunnel> {
    proptest::sample::select(&KINDS[..])
}

proptest! {
    #[test]
    fn wrapped_and_unwrapped_is_the_original(
        kind in any_kind(), inner_v4 in any::<bool>(), outer_v4 in any::<bool>(), udp in any::<bool>(),
        udp_checksum in any::<bool>(), payload in proptest::collection::vec(any::<u8>(), 0..1360), port in 1u16..,
        client in 1u8..250, ttl in 2u8.., padding in 0usize..20, cut in proptest::option::of(8usize..600),
    ) {
        let (inner, outer) = (Family { v4: inner_v4 }, Family { v4: outer_v4 });
        let mut world = world(kind, inner, outer);
        let (client, vip) = ((inner.client(client), port), (inner.vip(), 80));
        let build = if udp { datagram(client, vip) } else { segment(client, vip, tcp::SYN) };
        let build = Build { payload, ttl, udp_checksum, ..build };
        let frames = match cut {
            Some(size) if udp => build.fragments(port as u32, size / 8 * 8),
            _ => vec![build.frame()],
        };
        for frame in frames {
            let mut padded = frame.clone();
            padded.extend(vec![0xee; padding]);
            let (verdict, out) = world.send(&padded);
            prop_assert_eq!(verdict, Verdict::Transmit(BACK));
            let decoded = decode(&out, kind);
            prop_assert_eq!(&decoded.inner[14..], &one_hop_on(&frame)[..]);
        }
    }
}
