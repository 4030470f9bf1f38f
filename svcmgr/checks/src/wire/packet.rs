//! IP packets as octets: whose an answer is, and which ones are heard at all. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;
use socket2::SockFilter;

use super::FIRST_PORT;

/// Protocol numbers (IANA).
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
/// For echoes of both families.
pub const ICMP: u8 = 1;
const ICMP_6: u8 = 58;

/// Types of messages (RFC 792, RFC 4443).
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const UNREACHABLE_6: u8 = 1;
const TIME_EXCEEDED_6: u8 = 3;
const ECHO_REPLY_6: u8 = 129;
/// Codes of "unreachable" for ports.
const PORT: u8 = 3;
const PORT_6: u8 = 4;
/// Octets before what an ICMP message quotes.
const ICMP_HEADER: usize = 8;

/// What a test is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// [`TCP`], [`UDP`] or [`ICMP`].
    pub protocol: u8,
    /// Our port, or the identifier of an echo.
    pub port: u16,
}

/// A packet for a test.
#[derive(Debug, PartialEq, Eq)]
pub struct Read<'a> {
    /// Of which.
    pub key: Key,
    /// Our address.
    pub local: IpAddr,
    /// The address that the test asks.
    pub peer: IpAddr,
    /// What ICMP says became of a packet of ours, as connect(2) puts it.
    pub error: Option<i32>,
    /// All of it.
    pub whole: &'a [u8],
}

/// The header of a packet, and what is behind it.
struct Ip<'a> {
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    payload: &'a [u8],
}

/// An IP packet that is no later fragment; none if it is something else.
fn ip(packet: &[u8]) -> Option<Ip<'_>> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let fragment = get16(packet, 6)? & 0x1fff;
            let four = |at: usize| -> Option<[u8; 4]> { packet.get(at..at + 4)?.try_into().ok() };
            (header >= 20 && fragment == 0).then_some(())?;
            Some(Ip {
                protocol: *packet.get(9)?,
                source: Ipv4Addr::from(four(12)?).into(),
                destination: Ipv4Addr::from(four(16)?).into(),
                payload: packet.get(header..)?,
            })
        }
        6 => {
            let address =
                |at: usize| -> Option<[u8; 16]> { packet.get(at..at + 16)?.try_into().ok() };
            Some(Ip {
                // Answers to what we send have no extension headers.
                protocol: *packet.get(6)?,
                source: Ipv6Addr::from(address(8)?).into(),
                destination: Ipv6Addr::from(address(24)?).into(),
                payload: packet.get(40..)?,
            })
        }
        _ => None,
    }
}

/// Whose a packet is, if it can be an answer to anything of ours.
pub fn read(packet: &[u8]) -> Option<Read<'_>> {
    let outer = ip(packet)?;
    let answer = |key| Read {
        key,
        local: outer.destination,
        peer: outer.source,
        error: None,
        whole: packet,
    };
    let kind = *outer.payload.first()?;
    match (outer.protocol, kind) {
        (TCP | UDP, _) => Some(answer(Key {
            protocol: outer.protocol,
            port: get16(outer.payload, 2)?,
        })),
        (ICMP, ECHO_REPLY) | (ICMP_6, ECHO_REPLY_6) => Some(answer(Key {
            protocol: ICMP,
            port: get16(outer.payload, 4)?,
        })),
        (ICMP, UNREACHABLE | TIME_EXCEEDED) | (ICMP_6, UNREACHABLE_6 | TIME_EXCEEDED_6) => {
            let code = *outer.payload.get(1)?;
            let quoted = ip(outer.payload.get(ICMP_HEADER..)?)?;
            let (protocol, at) = match quoted.protocol {
                protocol @ (TCP | UDP) => (protocol, 0),
                ICMP | ICMP_6 => (ICMP, 4),
                _ => return None,
            };
            let port = matches!(
                (outer.protocol, kind, code),
                (ICMP, UNREACHABLE, PORT) | (ICMP_6, UNREACHABLE_6, PORT_6)
            );
            Some(Read {
                key: Key {
                    protocol,
                    port: get16(quoted.payload, at)?,
                },
                local: quoted.source,
                peer: quoted.destination,
                error: Some(if port {
                    libc::ECONNREFUSED
                } else {
                    libc::EHOSTUNREACH
                }),
                whole: packet,
            })
        }
        _ => None,
    }
}

fn get16(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?))
}

/// A filter (classic BPF) for what [`read`] may make something of: TCP and UDP for our ports, answers to echoes, and
/// messages that something could not be delivered. A packet begins with its IP header.
pub fn filter(v4: bool) -> Vec<SockFilter> {
    let steps = program(v4).into_iter();
    steps
        .map(|step| {
            let code = u16::try_from(step.code).unwrap_or_default();
            SockFilter::new(code, step.jt, step.jf, step.k)
        })
        .collect()
}

/// An instruction of a filter.
#[derive(Debug, Clone, Copy)]
struct Step {
    code: u32,
    k: u32,
    /// Instructions to leave out if it is so, and if not.
    jt: u8,
    jf: u8,
}

fn program(v4: bool) -> Vec<Step> {
    let step = |code: u32, k: u32, jt: u8, jf: u8| Step { code, k, jt, jf };
    let octet = |at| step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at, 0, 0);
    let octet_behind = |at| step(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, at, 0, 0);
    let word_behind = |at| step(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, at, 0, 0);
    let equal = |k: u8, jt, jf| {
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            k.into(),
            jt,
            jf,
        )
    };
    let at_least = |k: u16, jt, jf| {
        step(
            libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
            k.into(),
            jt,
            jf,
        )
    };
    let (protocol, icmp, reply, errors) = match v4 {
        true => (9, ICMP, ECHO_REPLY, [UNREACHABLE, TIME_EXCEEDED]),
        false => (6, ICMP_6, ECHO_REPLY_6, [UNREACHABLE_6, TIME_EXCEEDED_6]),
    };
    // The index register: where the header ends.
    let header = match v4 {
        true => step(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
        false => step(libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM, 40, 0, 0),
    };
    vec![
        header,
        octet(protocol),
        equal(TCP, 2, 0),
        equal(UDP, 1, 0),
        equal(icmp, 2, 9),
        // TCP and UDP: their destination port.
        word_behind(2),
        at_least(FIRST_PORT, 6, 7),
        // ICMP: its type, and the identifier of an echo.
        octet_behind(0),
        equal(errors[0], 4, 0),
        equal(errors[1], 3, 0),
        equal(reply, 0, 3),
        word_behind(4),
        at_least(FIRST_PORT, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        packet.extend(source);
        packet.extend(destination);
        packet.extend(payload);
        packet
    }

    fn ipv6(protocol: u8, source: u8, destination: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        for last in [source, destination] {
            packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        packet.extend(payload);
        packet
    }

    const US: [u8; 4] = [192, 0, 2, 1];
    const VIP: [u8; 4] = [192, 0, 2, 80];
    const ROUTER: [u8; 4] = [192, 0, 2, 254];
    /// 61001, the port or number of a test.
    const OURS: [u8; 2] = [0xee, 0x49];
    /// 443.
    const THEIRS: [u8; 2] = [0x01, 0xbb];

    /// The first octets of a segment or datagram.
    fn ports(from: [u8; 2], to: [u8; 2]) -> Vec<u8> {
        [from, to, [0, 0], [0, 0]].concat()
    }

    fn icmp(kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
        [&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat()
    }

    fn echo(kind: u8) -> Vec<u8> {
        [&[kind, 0, 0, 0][..], &OURS, &[0, 1]].concat()
    }

    /// What becomes of a packet: the test's protocol and port, and the error if it is one.
    type Outcome = Option<(u8, u16, Option<i32>)>;

    fn outcome(packet: &[u8]) -> Outcome {
        let read = read(packet)?;
        let v4 = packet[0] >> 4 == 4;
        let (us, vip): (IpAddr, IpAddr) = match v4 {
            true => (US.into(), VIP.into()),
            false => (
                "2001:db8::1".parse().unwrap(),
                "2001:db8::80".parse().unwrap(),
            ),
        };
        assert_eq!((read.local, read.peer), (us, vip));
        Some((read.key.protocol, read.key.port, read.error))
    }

    /// Packets that are for a test, and others; with what they are.
    fn cases() -> Vec<(Vec<u8>, Outcome)> {
        let four = |protocol, payload: &[u8]| ipv4(protocol, VIP, US, payload);
        let six = |protocol, payload: &[u8]| ipv6(protocol, 0x80, 1, payload);
        let lost = |protocol, payload: &[u8]| ipv4(protocol, US, VIP, payload);
        let lost_six = |protocol, payload: &[u8]| ipv6(protocol, 1, 0x80, payload);
        let (refused, unreachable) = (Some(libc::ECONNREFUSED), Some(libc::EHOSTUNREACH));
        let from_router = |payload: &[u8]| ipv4(ICMP, ROUTER, US, payload);
        let mut fragment = four(UDP, &ports(THEIRS, OURS));
        fragment[7] = 1;
        vec![
            (four(TCP, &ports(THEIRS, OURS)), Some((TCP, 61_001, None))),
            (four(UDP, &ports(THEIRS, OURS)), Some((UDP, 61_001, None))),
            (six(TCP, &ports(THEIRS, OURS)), Some((TCP, 61_001, None))),
            (six(UDP, &ports(THEIRS, OURS)), Some((UDP, 61_001, None))),
            (four(ICMP, &echo(0)), Some((ICMP, 61_001, None))),
            (six(ICMP_6, &echo(129)), Some((ICMP, 61_001, None))),
            (
                from_router(&icmp(3, 1, &lost(TCP, &ports(OURS, THEIRS)))),
                Some((TCP, 61_001, unreachable)),
            ),
            (
                from_router(&icmp(11, 0, &lost(UDP, &ports(OURS, THEIRS)))),
                Some((UDP, 61_001, unreachable)),
            ),
            (
                four(ICMP, &icmp(3, 3, &lost(UDP, &ports(OURS, THEIRS)))),
                Some((UDP, 61_001, refused)),
            ),
            (
                from_router(&icmp(3, 1, &lost(ICMP, &echo(8)))),
                Some((ICMP, 61_001, unreachable)),
            ),
            (
                six(ICMP_6, &icmp(1, 4, &lost_six(UDP, &ports(OURS, THEIRS)))),
                Some((UDP, 61_001, refused)),
            ),
            (
                six(ICMP_6, &icmp(1, 3, &lost_six(TCP, &ports(OURS, THEIRS)))),
                Some((TCP, 61_001, unreachable)),
            ),
            // Another protocol, a question, a later fragment, and what is cut off.
            (four(47, &ports(THEIRS, OURS)), None),
            (four(ICMP, &echo(8)), None),
            (six(ICMP_6, &echo(135)), None),
            (fragment, None),
            (four(TCP, &THEIRS), None),
            (six(TCP, &[]), None),
            (vec![], None),
        ]
    }

    #[test]
    fn each_packet_is_given_to_its_test() {
        for (packet, expected) in cases() {
            assert_eq!(outcome(&packet), expected, "{packet:02x?}");
        }
    }

    #[test]
    fn nothing_that_comes_in_is_too_short_or_too_strange() {
        for (packet, _) in cases() {
            for length in 0..packet.len() {
                let _ = read(&packet[..length]);
                let mut strange = packet.clone();
                strange[length] ^= 0xff;
                let _ = read(&strange);
            }
        }
    }

    /// Carries a filter out as the kernel does (Documentation/networking/filter.rst), for the instructions that it has.
    fn passes(filter: &[Step], packet: &[u8]) -> bool {
        let (mut accumulator, mut index, mut at) = (0u32, 0usize, 0);
        let octet = |at: usize| packet.get(at).map(|octet| u32::from(*octet));
        loop {
            let Step { code, k, jt, jf } = filter[at];
            at += 1;
            let loaded = match code {
                // ldx 4*([0]&0xf); ldx #k
                0xb1 => {
                    let Some(first) = octet(0) else { return false };
                    index = 4 * (first & 15) as usize;
                    continue;
                }
                0x01 => {
                    index = k as usize;
                    continue;
                }
                // ldb [k]; ldb [x+k]; ldh [x+k]
                0x30 => octet(k as usize),
                0x50 => octet(index + k as usize),
                0x48 => {
                    let (high, low) = (octet(index + k as usize), octet(index + k as usize + 1));
                    high.zip(low).map(|(high, low)| high << 8 | low)
                }
                // jeq, jge
                0x15 | 0x35 => {
                    let so = if code == 0x15 {
                        accumulator == k
                    } else {
                        accumulator >= k
                    };
                    at += usize::from(if so { jt } else { jf });
                    continue;
                }
                0x06 => return k > 0,
                other => panic!("instruction {other:#x}"),
            };
            match loaded {
                Some(value) => accumulator = value,
                None => return false,
            }
        }
    }

    #[test]
    fn the_filter_lets_through_what_is_read_and_not_what_is_for_others() {
        for (packet, expected) in cases() {
            let Some(first) = packet.first() else {
                continue;
            };
            let filter = program(first >> 4 == 4);
            if expected.is_some() {
                assert!(passes(&filter, &packet), "{packet:02x?}");
            }
        }
        // Port 60999 is the kernel's, 61000 is ours.
        for (port, passed) in [
            (60_999u16, false),
            (61_000, true),
            (65_535, true),
            (443, false),
        ] {
            for protocol in [TCP, UDP] {
                let payload = ports(THEIRS, port.to_be_bytes());
                let packet = ipv4(protocol, VIP, US, &payload);
                assert_eq!(passes(&program(true), &packet), passed, "{port}");
                let packet = ipv6(protocol, 0x80, 1, &payload);
                assert_eq!(passes(&program(false), &packet), passed, "{port}");
            }
        }
        for packet in [
            ipv4(47, VIP, US, &ports(THEIRS, OURS)),
            ipv4(ICMP, VIP, US, &echo(8)),
        ] {
            assert!(!passes(&program(true), &packet), "{packet:02x?}");
        }
    }
}
