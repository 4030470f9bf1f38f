//! A small world around a forwarder: packets made by hand, interfaces and neighbours that are always there.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::IpAddr;
use std::sync::Arc;

use ilb_forwarder::address::Addr;
use ilb_forwarder::checksum;
use ilb_forwarder::network::{Hop, Interface, Neighbour, Network, Route};
use ilb_forwarder::packet::{self, Headers, tcp};
use ilb_forwarder::spec::*;
use ilb_forwarder::verdict::Verdict;
use ilb_forwarder::{Forwarder, Packet, Snapshot, Table, View};

pub const KEYS: [u64; 4] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0x2545_f491_4f6c_dd1d,
];
pub const FRONT: u8 = 0;
pub const BACK: u8 = 1;
pub const HEADROOM: usize = 64;

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Addresses of one family, by role.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub v4: bool,
}

pub const V4: Family = Family { v4: true };
pub const V6: Family = Family { v4: false };
pub const FAMILIES: [Family; 2] = [V4, V6];

impl Family {
    fn pick(self, v4: String, v6: String) -> IpAddr {
        if self.v4 {
            v4.parse().unwrap()
        } else {
            v6.parse().unwrap()
        }
    }
    pub fn client(self, n: u8) -> IpAddr {
        self.pick(format!("10.1.0.{n}"), format!("fd01::{n:x}"))
    }
    pub fn vip(self) -> IpAddr {
        self.pick("10.1.0.200".into(), "fd01::c8".into())
    }
    pub fn server(self, n: u8) -> IpAddr {
        self.pick(format!("10.2.0.{n}"), format!("fd02::{n:x}"))
    }
    pub fn proxy(self, n: u8) -> IpAddr {
        self.pick(
            format!("10.2.0.{}", 100 + n),
            format!("fd02::{:x}", 0x100 + n as u16),
        )
    }
    pub fn router(self) -> IpAddr {
        self.pick("10.9.9.9".into(), "fd99::9".into())
    }
}

pub fn rule(family: Family, topology: Topology, algorithm: Algorithm, servers: u8) -> RuleSpec {
    RuleSpec {
        id: 1,
        name: "web".into(),
        vips: vec![VipSpec {
            address: family.vip(),
            protocol: Protocol::Tcp,
            ports: PortRange::single(80),
        }],
        topology,
        algorithm,
        proxy_src: if topology == Topology::Nat {
            vec![family.proxy(1), family.proxy(2)]
        } else {
            vec![]
        },
        servers: (1..=servers)
            .map(|n| ServerSpec {
                id: n as u32,
                name: format!("_web.{}", n - 1),
                address: family.server(n),
                ..ServerSpec::default()
            })
            .collect(),
        ..RuleSpec::default()
    }
}

pub fn network() -> Network {
    let interfaces = vec![
        Interface {
            mac: [2, 0, 0, 0, 0, FRONT],
            mtu: 1500,
        },
        Interface {
            mac: [2, 0, 0, 0, 0, BACK],
            mtu: 1500,
        },
    ];
    let on_link = |prefix: &str, len, port| Route {
        prefix: ip(prefix),
        len,
        metric: 0,
        hops: vec![Hop {
            port: Some(port),
            via: None,
        }],
    };
    let via = |prefix: &str, via: &str| Route {
        prefix: ip(prefix),
        len: 0,
        metric: 0,
        hops: vec![Hop {
            port: Some(FRONT),
            via: Some(ip(via)),
        }],
    };
    let routes = vec![
        on_link("10.1.0.0", 24, FRONT),
        on_link("10.2.0.0", 24, BACK),
        on_link("fd01::", 64, FRONT),
        on_link("fd02::", 64, BACK),
        via("0.0.0.0", "10.1.0.254"),
        via("::", "fd01::fe"),
    ];
    let mut neighbours = vec![];
    for family in FAMILIES {
        for n in 1..=253 {
            // Client 250, server 250 and the gateway never answer.
            if n != 250 {
                neighbours.push(Neighbour {
                    port: FRONT,
                    address: family.client(n),
                    mac: [4, 0, 0, 0, 1, n],
                });
                neighbours.push(Neighbour {
                    port: BACK,
                    address: family.server(n),
                    mac: [4, 0, 0, 0, 2, n],
                });
            }
        }
    }
    Network::new(interfaces, routes, neighbours)
}

pub struct World {
    pub table: Arc<Table>,
    pub forwarder: Forwarder,
    pub view: View,
    pub now: u32,
}

impl World {
    pub fn new(rules: Vec<RuleSpec>) -> World {
        World::with_table(rules, 1024)
    }

    pub fn with_table(rules: Vec<RuleSpec>, capacity: u32) -> World {
        World::limited(Limits::default(), rules, capacity)
    }

    pub fn limited(limits: Limits, rules: Vec<RuleSpec>, capacity: u32) -> World {
        let table = Arc::new(Table::private(capacity, KEYS).unwrap());
        let snapshot = Snapshot::compile(
            &SnapshotSpec {
                generation: 1,
                limits,
                rules,
            },
            None,
            2,
        )
        .unwrap();
        let view = View::new(Arc::new(snapshot), Arc::new(network()));
        World {
            forwarder: Forwarder::new(0, table.clone()),
            table,
            view,
            now: 1000,
        }
    }

    pub fn configure(&mut self, rules: Vec<RuleSpec>) {
        let generation = self.view.snapshot.generation() + 1;
        self.apply(&SnapshotSpec {
            generation,
            rules,
            ..SnapshotSpec::default()
        });
    }

    pub fn apply(&mut self, spec: &SnapshotSpec) {
        let snapshot = Snapshot::compile(spec, Some(&self.view.snapshot), 2).unwrap();
        self.view = View::new(Arc::new(snapshot), self.view.network.clone());
    }

    /// One frame through `process`: its verdict, and what it has become.
    pub fn send(&mut self, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.send_by(frame, FRONT)
    }

    pub fn send_by(&mut self, frame: &[u8], ingress: u8) -> (Verdict, Vec<u8>) {
        let mut buf = vec![0xa5; HEADROOM + frame.len() + 32];
        buf[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
        let mut packets = [Packet::new(&mut buf, HEADROOM, frame.len(), ingress)];
        self.forwarder.process(&self.view, &mut packets, self.now);
        (packets[0].verdict, packets[0].frame().to_vec())
    }

    /// Sends a frame that must go out by `port`.
    pub fn pass(&mut self, frame: &[u8], port: u8) -> Vec<u8> {
        let (verdict, out) = self.send(frame);
        assert_eq!(verdict, Verdict::Transmit(port));
        assert_checksums(&out);
        assert_eq!(
            out[6..12],
            [2, 0, 0, 0, 0, port],
            "source address of the egress interface"
        );
        out
    }
}

#[derive(Clone)]
pub struct Build {
    pub src: (IpAddr, u16),
    pub dst: (IpAddr, u16),
    pub protocol: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
    pub ttl: u8,
    pub udp_checksum: bool,
    /// Of ICMP, whether it is a reply; none: it is one if the destination has a port. An identifier may be 0, too.
    pub is_reply: Option<bool>,
}

pub fn segment(src: (IpAddr, u16), dst: (IpAddr, u16), flags: u8) -> Build {
    Build {
        src,
        dst,
        protocol: 6,
        flags,
        payload: b"hello".to_vec(),
        ttl: 64,
        udp_checksum: true,
        is_reply: None,
    }
}

pub fn syn(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Vec<u8> {
    segment(src, dst, tcp::SYN).frame()
}

pub fn ack(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Vec<u8> {
    segment(src, dst, tcp::ACK).frame()
}

pub fn datagram(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Build {
    Build {
        protocol: 17,
        ..segment(src, dst, 0)
    }
}

impl Build {
    /// Of ICMP, whether it is a reply.
    pub fn is_reply(&self) -> bool {
        self.is_reply.unwrap_or(self.dst.1 != 0)
    }

    /// Transport header and payload; of ICMP, an echo request or a reply.
    pub fn transport(&self) -> Vec<u8> {
        if matches!(self.protocol, 1 | 58) {
            return self.echo();
        }
        let mut bytes = vec![];
        bytes.extend(self.src.1.to_be_bytes());
        bytes.extend(self.dst.1.to_be_bytes());
        let at = if self.protocol == 6 {
            bytes.extend([
                0,
                0,
                0,
                1,
                0,
                0,
                0,
                2,
                5 << 4,
                self.flags,
                0xff,
                0xff,
                0,
                0,
                0,
                0,
            ]);
            16
        } else {
            bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
            bytes.extend([0, 0]);
            6
        };
        bytes.extend(&self.payload);
        if self.protocol == 6 || self.udp_checksum {
            let pseudo = checksum::pseudo_header(
                self.src.0.into(),
                self.dst.0.into(),
                self.protocol,
                bytes.len(),
            );
            let mut sum = checksum::of(&bytes, pseudo);
            if self.protocol == 17 && sum == 0 {
                // Zero is no checksum; its other form is sent (RFC 768).
                sum = 0xffff;
            }
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    fn echo(&self) -> Vec<u8> {
        let (kind, id) = match (self.protocol, self.is_reply()) {
            (1, false) => (8, self.src.1),
            (1, true) => (0, self.dst.1),
            (_, false) => (128, self.src.1),
            (_, true) => (129, self.dst.1),
        };
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend(id.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(&self.payload);
        let (src, dst) = (self.src.0.into(), self.dst.0.into());
        let pseudo = match self.protocol {
            1 => 0,
            _ => checksum::pseudo_header(src, dst, 58, bytes.len()),
        };
        let sum = checksum::of(&bytes, pseudo);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    pub fn frame(&self) -> Vec<u8> {
        ip_frame(
            self.src.0,
            self.dst.0,
            self.protocol,
            self.ttl,
            None,
            &self.transport(),
        )
    }

    /// The datagram in fragments of at most `size` bytes (a multiple of eight).
    pub fn fragments(&self, id: u32, size: usize) -> Vec<Vec<u8>> {
        let whole = self.transport();
        let pieces = whole.chunks(size).count();
        whole
            .chunks(size)
            .enumerate()
            .map(|(n, piece)| {
                let fragment = Some((id, (n * size / 8) as u16, n + 1 < pieces));
                ip_frame(
                    self.src.0,
                    self.dst.0,
                    self.protocol,
                    self.ttl,
                    fragment,
                    piece,
                )
            })
            .collect()
    }
}

/// An Ethernet frame with an IP packet.
pub fn ip_frame(
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ttl: u8,
    fragment: Option<(u32, u16, bool)>,
    body: &[u8],
) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 9];
    let (src, dst) = (Addr::from(src), Addr::from(dst));
    if src.is_v4() {
        frame.extend([8, 0]);
        let (id, offset) = fragment.map_or((7, 0), |(id, offset, more)| {
            (id as u16, offset | (more as u16) << 13)
        });
        let mut header = vec![0x45, 0];
        header.extend((20 + body.len() as u16).to_be_bytes());
        header.extend(id.to_be_bytes());
        header.extend(offset.to_be_bytes());
        header.extend([ttl, protocol, 0, 0]);
        header.extend(src.v4_bytes());
        header.extend(dst.v4_bytes());
        let sum = checksum::of(&header, 0);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        let extension = if fragment.is_some() { 8 } else { 0 };
        frame.extend((extension + body.len() as u16).to_be_bytes());
        frame.extend([if fragment.is_some() { 44 } else { protocol }, ttl]);
        frame.extend(src.v6_bytes());
        frame.extend(dst.v6_bytes());
        if let Some((id, offset, more)) = fragment {
            frame.extend([protocol, 0]);
            frame.extend((offset << 3 | more as u16).to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
    }
    frame.extend(body);
    frame
}

/// An ICMP error of this kind that quotes the first `quote` bytes of an IP packet.
pub fn icmp_error(src: IpAddr, dst: IpAddr, too_big: bool, about: &[u8], quote: usize) -> Vec<u8> {
    let v4 = src.is_ipv4();
    let mut message = match (v4, too_big) {
        (true, true) => vec![3, 4, 0, 0, 0, 0, 0x05, 0x14],
        (true, false) => vec![3, 3, 0, 0, 0, 0, 0, 0],
        (false, true) => vec![2, 0, 0, 0, 0, 0, 0x05, 0x14],
        (false, false) => vec![1, 4, 0, 0, 0, 0, 0, 0],
    };
    message.extend(&about[14..about.len().min(14 + quote)]);
    let protocol = if v4 { 1 } else { 58 };
    let pseudo = if v4 {
        0
    } else {
        checksum::pseudo_header(src.into(), dst.into(), protocol, message.len())
    };
    let sum = checksum::of(&message, pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip_frame(src, dst, protocol, 64, None, &message)
}

pub fn headers(frame: &[u8]) -> Headers {
    packet::parse(frame).unwrap()
}

/// (source, port) and (destination, port) of a frame.
pub fn ends(frame: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let tuple = headers(frame).tuple;
    (
        (tuple.src.into(), tuple.sport),
        (tuple.dst.into(), tuple.dport),
    )
}

/// Every checksum in the frame is right, by full computation.
pub fn assert_checksums(frame: &[u8]) {
    let h = headers(frame);
    let (l3, l4, end) = (h.l3 as usize, h.l4 as usize, h.end as usize);
    if h.is_v4() {
        assert_eq!(
            checksum::of(&frame[l3..l3 + 20], 0),
            0,
            "IPv4 header checksum"
        );
    }
    if h.fragment.is_some() {
        return;
    }
    let body = &frame[l4..end];
    let (src, dst, protocol) = (h.tuple.src, h.tuple.dst, h.tuple.protocol);
    match protocol {
        17 if body[6..8] == [0, 0] => {}
        132 => {
            let mut without = body.to_vec();
            without[8..12].fill(0);
            assert_eq!(body[8..12], crc32c(&without), "SCTP checksum");
        }
        1 => assert_eq!(checksum::of(body, 0), 0, "ICMP checksum"),
        6 | 17 | 33 | 58 | 136 => {
            let pseudo = checksum::pseudo_header(src, dst, protocol, body.len());
            assert_eq!(checksum::of(body, pseudo), 0, "transport checksum");
        }
        // Nobody knows of one.
        _ => {}
    }
}

/// What a sender puts where the checksum of a message stands, which must be zero; nothing for unknown protocols.
pub fn message_sum(message: &[u8], protocol: u8, src: Addr, dst: Addr) -> Vec<u8> {
    let pseudo = checksum::pseudo_header(src, dst, protocol, message.len());
    match protocol {
        1 => checksum::of(message, 0).to_be_bytes().to_vec(),
        6 | 17 | 33 | 58 | 136 => checksum::of(message, pseudo).to_be_bytes().to_vec(),
        132 => crc32c(message).to_vec(),
        _ => vec![],
    }
}

/// CRC32c (RFC 9260 appendix A), bit by bit.
pub fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= byte as u32;
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1));
        }
    }
    (!crc).to_le_bytes()
}
