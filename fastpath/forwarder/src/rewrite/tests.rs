//! Two laws for every protocol and both families: the changed checksum is the one that would be computed anew, and
//! changing back gives the packet that there was.

use proptest::prelude::*;

use super::*;
use crate::address::Addr;
use crate::packet::{self, ETHERNET};

/// A message of one protocol without its checksum, and where that stands.
struct Message {
    protocol: u8,
    bytes: Vec<u8>,
    checksum: Option<usize>,
}

const KINDS: usize = 9;

fn message(kind: usize, v4: bool, ports: (u16, u16), payload: &[u8]) -> Message {
    let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    let icmp = if v4 { protocol::ICMP } else { protocol::ICMPV6 };
    let (request, reply) = if v4 { (8, 0) } else { (128, 129) };
    let (protocol, header, checksum): (u8, Vec<u8>, _) = match kind {
        0 => (
            protocol::TCP,
            vec![0, 0, 0, 1, 0, 0, 0, 2, 0x50, 2, 1, 0, 0, 0, 0, 0],
            Some(16),
        ),
        1 => (protocol::UDP, vec![0, 0, 0, 0], Some(6)),
        2 => (
            protocol::SCTP,
            vec![1, 2, 3, 4, 0, 0, 0, 0, 1, 0, 0, 20],
            Some(8),
        ),
        3 => (protocol::UDP_LITE, vec![0, 0, 0, 0], Some(6)),
        4 => (protocol::DCCP, vec![4, 0, 0, 0], Some(6)),
        5 | 6 => {
            bytes = vec![if kind == 5 { request } else { reply }, 0, 0, 0];
            (
                icmp,
                [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat(),
                Some(2),
            )
        }
        7 => (47, vec![0, 0, 8, 0], None),
        _ => (50, vec![], None),
    };
    bytes.extend(header);
    bytes.extend(payload);
    Message {
        protocol,
        bytes,
        checksum,
    }
}

/// The checksum that a sender puts there.
fn computed(message: &Message, src: Addr, dst: Addr) -> Vec<u8> {
    let pseudo = checksum::pseudo_header(src, dst, message.protocol, message.bytes.len());
    match message.protocol {
        protocol::SCTP => crc32c::of(&message.bytes).to_vec(),
        protocol::ICMP => checksum::of(&message.bytes, 0).to_be_bytes().to_vec(),
        protocol::UDP | protocol::UDP_LITE => match checksum::of(&message.bytes, pseudo) {
            0 => vec![0xff; 2],
            sum => sum.to_be_bytes().to_vec(),
        },
        _ => checksum::of(&message.bytes, pseudo).to_be_bytes().to_vec(),
    }
}

fn frame(mut message: Message, src: Addr, dst: Addr) -> Vec<u8> {
    if let Some(at) = message.checksum {
        let sum = computed(&message, src, dst);
        message.bytes[at..at + sum.len()].copy_from_slice(&sum);
    }
    let mut frame = vec![2; 12];
    let len = message.bytes.len() as u16;
    if src.is_v4() {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + len).to_be_bytes());
        frame.extend([0, 9, 0, 0, 64, message.protocol, 0, 0]);
        frame.extend([src.v4_bytes(), dst.v4_bytes()].concat());
        let sum = checksum::of(&frame[ETHERNET..], 0);
        put16(&mut frame, ETHERNET + field::IP4_CHECKSUM, sum);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([message.protocol, 64]);
        frame.extend([src.v6_bytes(), dst.v6_bytes()].concat());
    }
    frame.extend(message.bytes);
    frame
}

fn address(v4: bool, bits: u128) -> Addr {
    match v4 {
        true => Addr::v4((bits as u32).to_be_bytes()),
        false => Addr(bits | 0xfd << 120),
    }
}

/// What the tuple of a message becomes: ICMP keeps its identifier on its side, what has no ports gets none.
fn new_tuple(old: &Tuple, v4: bool, addresses: (u128, u128), ports: (u16, u16)) -> Tuple {
    let (sport, dport) = match Ports::of(old.protocol, v4) {
        Ports::Both => ports,
        Ports::Identifier if old.dport == 0 => (ports.0, 0),
        Ports::Identifier => (0, ports.0),
        Ports::None => (0, 0),
    };
    Tuple {
        src: address(v4, addresses.0),
        dst: address(v4, addresses.1),
        sport,
        dport,
        protocol: old.protocol,
    }
}

proptest! {
    #[test]
    fn changed_equals_recomputed_and_back_is_the_original(
        kind in 0..KINDS, v4 in any::<bool>(), from in any::<(u128, u128)>(), to in any::<(u128, u128)>(),
        ports in (1u16.., 1u16..), new_ports in (1u16.., 1u16..), payload in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let (src, dst) = (address(v4, from.0), address(v4, from.1));
        let original = frame(message(kind, v4, ports, &payload), src, dst);
        let headers = packet::parse(&original).unwrap();
        prop_assert_eq!(headers.kind, Kind::Transport);
        let new = new_tuple(&headers.tuple, v4, to, new_ports);

        let mut changed = original.clone();
        tuple(&mut changed, &headers, &new);
        // An ICMP query keeps its second number, which is a sequence.
        let ports = if matches!(kind, 5 | 6) { (new_ports.0, ports.1) } else { new_ports };
        // What has no ports in our eyes keeps those bytes.
        let written = if Ports::of(new.protocol, v4) == Ports::None { headers_ports(&original, &headers) } else { ports };
        let expected = frame(message(kind, v4, written, &payload), new.src, new.dst);
        prop_assert_eq!(&changed, &expected);

        let back = packet::parse(&changed).unwrap();
        prop_assert_eq!(back.tuple, new);
        tuple(&mut changed, &back, &headers.tuple);
        prop_assert_eq!(changed, original);
    }

    /// As a router on the way quotes it: cut anywhere behind the eighth byte.
    #[test]
    fn a_quoted_packet_becomes_the_beginning_of_what_was_sent(
        kind in 0..KINDS, v4 in any::<bool>(), from in any::<(u128, u128)>(), to in any::<(u128, u128)>(),
        ports in (1u16.., 1u16..), new_ports in (1u16.., 1u16..), payload in proptest::collection::vec(any::<u8>(), 8..200),
        keep in 8usize..60,
    ) {
        let whole = frame(message(kind, v4, ports, &payload), address(v4, from.0), address(v4, from.1));
        let headers = packet::parse(&whole).unwrap();
        let new = new_tuple(&headers.tuple, v4, to, new_ports);
        let mut expected = whole.clone();
        tuple(&mut expected, &headers, &new);

        let sum = message(kind, v4, ports, &payload).checksum.unwrap_or_default();
        let sum_len = if headers.tuple.protocol == protocol::SCTP { 4 } else { 2 };
        prop_assume!(!(sum + 1..sum + sum_len).contains(&keep), "half a checksum is of no use");
        let cut = (headers.l4 as usize + keep).min(whole.len());
        let mut quoted = whole[..cut].to_vec();
        let quoted_headers = packet::parse_quoted(&quoted, ETHERNET, v4).unwrap();
        tuple(&mut quoted, &quoted_headers, &new);
        prop_assert_eq!(&quoted[..], &expected[..cut]);
    }

    #[test]
    fn a_wrong_checksum_stays_wrong(
        kind in 0usize..7, v4 in any::<bool>(), from in any::<(u128, u128)>(), to in any::<(u128, u128)>(),
        new_ports in (1u16.., 1u16..), bit in 0usize..8,
    ) {
        let mut broken = frame(message(kind, v4, (1000, 80), b"payload"), address(v4, from.0), address(v4, from.1));
        *broken.last_mut().unwrap() ^= 1 << bit;
        let headers = packet::parse(&broken).unwrap();
        let new = new_tuple(&headers.tuple, v4, to, new_ports);
        tuple(&mut broken, &headers, &new);
        let at = headers.l4 as usize;
        let mut sent = message(kind, v4, (0, 0), b"payload");
        sent.bytes = broken[at..].to_vec();
        let sum_at = sent.checksum.unwrap();
        let len = if sent.protocol == protocol::SCTP { 4 } else { 2 };
        let there = sent.bytes[sum_at..sum_at + len].to_vec();
        sent.bytes[sum_at..sum_at + len].fill(0);
        prop_assert_ne!(there, computed(&sent, new.src, new.dst));
    }
}

fn headers_ports(frame: &[u8], headers: &Headers) -> (u16, u16) {
    let l4 = &frame[headers.l4 as usize..];
    (get16(l4, field::SPORT), get16(l4, field::DPORT))
}

#[test]
fn only_sctp_in_fragments_cannot_change_its_ports() {
    let (src, dst) = (address(true, 1), address(true, 2));
    for kind in 0..KINDS {
        let whole = frame(message(kind, true, (1000, 80), b"payload"), src, dst);
        let mut first = whole.clone();
        first[ETHERNET + field::IP4_FRAGMENT] = 0x20;
        for (frame, fragment) in [(whole, false), (first, true)] {
            let headers = packet::parse(&frame).unwrap();
            let same_ports = Tuple {
                dst: address(true, 3),
                ..headers.tuple
            };
            assert!(is_possible(&headers, &same_ports), "message {kind}");
            let other_ports = new_tuple(&headers.tuple, true, (1, 2), (7, 8));
            let sctp = headers.tuple.protocol == protocol::SCTP;
            assert_eq!(
                is_possible(&headers, &other_ports),
                !(sctp && fragment),
                "message {kind}"
            );
        }
    }
}
