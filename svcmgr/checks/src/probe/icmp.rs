//! Echo requests and what comes back for them, as octets (RFC 792, RFC 4443): pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;
use socket2::SockFilter;

/// Octets of an echo request of ours: header, then the token.
pub const LENGTH: usize = HEADER + 16;
const HEADER: usize = 8;

/// Types of messages.
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const ECHO_REQUEST_6: u8 = 128;
const ECHO_REPLY_6: u8 = 129;
const UNREACHABLE_6: u8 = 1;
const TIME_EXCEEDED_6: u8 = 3;

/// What tells our echoes from those of others, and each from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// The same for all of this process.
    pub nonce: u64,
    /// Another one for each.
    pub count: u64,
}

/// What a packet says about an echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// The answer.
    Reply(Token),
    /// The request could not be delivered to `to`.
    Undelivered {
        /// Where the request was for.
        to: IpAddr,
        /// Its identifier.
        identifier: u16,
        /// Its sequence number.
        sequence: u16,
        /// Why, in words.
        why: &'static str,
        /// The code of the message.
        code: u8,
    },
}

/// An echo request for an address of this family.
pub fn request(v4: bool, identifier: u16, token: Token) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[0] = if v4 { ECHO_REQUEST } else { ECHO_REQUEST_6 };
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence(token).to_be_bytes());
    packet[8..16].copy_from_slice(&token.nonce.to_be_bytes());
    packet[16..24].copy_from_slice(&token.count.to_be_bytes());
    if v4 {
        // The kernel computes that of ICMPv6, which covers addresses.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The sequence number of an echo.
pub fn sequence(token: Token) -> u16 {
    u16::try_from(token.count & 0xffff).unwrap_or_default()
}

/// Reads an ICMP message.
pub fn read(packet: &[u8]) -> Option<Message> {
    match *packet.first()? {
        ECHO_REPLY => reply(packet),
        kind @ (UNREACHABLE | TIME_EXCEEDED) => {
            let code = *packet.get(1)?;
            let quoted = packet.get(HEADER..)?;
            let (to, echo) = quoted_v4(quoted)?;
            let why = if kind == TIME_EXCEEDED {
                "time to live exceeded"
            } else {
                words(code)
            };
            undelivered(to, echo, ECHO_REQUEST, why, code)
        }
        _ => None,
    }
}

/// Reads an ICMPv6 message.
pub fn read_v6(packet: &[u8]) -> Option<Message> {
    match *packet.first()? {
        ECHO_REPLY_6 => reply(packet),
        kind @ (UNREACHABLE_6 | TIME_EXCEEDED_6) => {
            let code = *packet.get(1)?;
            let quoted = packet.get(HEADER..)?;
            // Version and next header; an echo of ours has no extension headers.
            if quoted.first()? >> 4 != 6 || *quoted.get(6)? != 58 {
                return None;
            }
            let to: [u8; 16] = quoted.get(24..40)?.try_into().ok()?;
            let why = if kind == TIME_EXCEEDED_6 {
                "hop limit exceeded"
            } else {
                words_v6(code)
            };
            undelivered(
                Ipv6Addr::from(to).into(),
                quoted.get(40..)?,
                ECHO_REQUEST_6,
                why,
                code,
            )
        }
        _ => None,
    }
}

/// A filter (classic BPF) for a raw socket: answers to echoes with this identifier, and messages that something could not be
/// delivered. A raw IPv4 socket sees the header of the packet, a raw ICMPv6 one does not.
pub fn filter(v4: bool, identifier: u16) -> [SockFilter; 9] {
    let (reply, errors) = match v4 {
        true => (ECHO_REPLY, [UNREACHABLE, TIME_EXCEEDED]),
        false => (ECHO_REPLY_6, [UNREACHABLE_6, TIME_EXCEEDED_6]),
    };
    let base = libc::BPF_IND;
    let step = |code: u32, k: u32, jt: u8, jf: u8| {
        SockFilter::new(u16::try_from(code).unwrap_or_default(), jt, jf, k)
    };
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    // The index register: where the ICMP message begins.
    let begin = match v4 {
        true => step(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
        false => step(libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM, 0, 0, 0),
    };
    [
        begin,
        step(libc::BPF_LD | libc::BPF_B | base, 0, 0, 0),
        step(equal, errors[0].into(), 4, 0),
        step(equal, errors[1].into(), 3, 0),
        step(equal, reply.into(), 0, 3),
        step(libc::BPF_LD | libc::BPF_H | base, 4, 0, 0),
        step(equal, identifier.into(), 0, 1),
        step(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}

/// What is behind the header of an IPv4 packet, if it is ICMP.
pub fn behind_ipv4(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let length = usize::from(first & 15) * 4;
    (first >> 4 == 4 && length >= 20 && *packet.get(9)? == 1).then_some(packet.get(length..)?)
}

fn quoted_v4(quoted: &[u8]) -> Option<(IpAddr, &[u8])> {
    let to: [u8; 4] = quoted.get(16..20)?.try_into().ok()?;
    Some((Ipv4Addr::from(to).into(), behind_ipv4(quoted)?))
}

fn reply(packet: &[u8]) -> Option<Message> {
    let number = |at: usize| Some(u64::from_be_bytes(packet.get(at..at + 8)?.try_into().ok()?));
    Some(Message::Reply(Token {
        nonce: number(8)?,
        count: number(16)?,
    }))
}

fn undelivered(to: IpAddr, echo: &[u8], kind: u8, why: &'static str, code: u8) -> Option<Message> {
    let number = |at: usize| Some(u16::from_be_bytes(echo.get(at..at + 2)?.try_into().ok()?));
    (*echo.first()? == kind).then_some(())?;
    Some(Message::Undelivered {
        to,
        identifier: number(4)?,
        sequence: number(6)?,
        why,
        code,
    })
}

const fn words(code: u8) -> &'static str {
    match code {
        0 => "network unreachable",
        1 => "host unreachable",
        2 => "protocol unreachable",
        3 => "port unreachable",
        4 => "fragmentation needed",
        9 | 10 | 13 => "administratively prohibited",
        _ => "destination unreachable",
    }
}

const fn words_v6(code: u8) -> &'static str {
    match code {
        0 => "no route to destination",
        1 => "administratively prohibited",
        3 => "address unreachable",
        4 => "port unreachable",
        _ => "destination unreachable",
    }
}

/// RFC 1071.
fn checksum(packet: &[u8]) -> u16 {
    let mut sum: u32 = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: Token = Token {
        nonce: 0x1122_3344_5566_7788,
        count: 0x0001_0002,
    };

    fn ipv4(protocol: u8, to: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1];
        packet.extend(to);
        packet.extend(payload);
        packet
    }

    #[test]
    fn a_reply_gives_the_token_back() {
        let mut packet = request(true, 7, TOKEN);
        assert_eq!(checksum(&packet), 0);
        packet[0] = ECHO_REPLY;
        assert_eq!(read(&packet), Some(Message::Reply(TOKEN)));
        let mut packet = request(false, 7, TOKEN);
        packet[0] = ECHO_REPLY_6;
        assert_eq!(read_v6(&packet), Some(Message::Reply(TOKEN)));
    }

    #[test]
    fn an_error_names_the_request_that_it_quotes() {
        for (kind, code, why) in [
            (3, 1, "host unreachable"),
            (3, 13, "administratively prohibited"),
            (11, 0, "time to live exceeded"),
        ] {
            let mut packet = vec![kind, code, 0, 0, 0, 0, 0, 0];
            // Only the first eight octets have to be quoted (RFC 792).
            packet.extend(ipv4(1, [192, 0, 2, 9], &request(true, 7, TOKEN)[..8]));
            let to = "192.0.2.9".parse().unwrap();
            let expected = Message::Undelivered {
                to,
                identifier: 7,
                sequence: 2,
                why,
                code,
            };
            assert_eq!(read(&packet), Some(expected));
        }
        let mut packet = vec![1, 3, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 0, 58, 64];
        packet.extend([0; 16]);
        let to: Ipv6Addr = "2001:db8::9".parse().unwrap();
        packet.extend(to.octets());
        packet.extend(request(false, 7, TOKEN));
        let why = "address unreachable";
        let expected = Message::Undelivered {
            to: to.into(),
            identifier: 7,
            sequence: 2,
            why,
            code: 3,
        };
        assert_eq!(read_v6(&packet), Some(expected));
    }

    #[test]
    fn what_is_not_about_an_echo_is_nothing() {
        let mut packet = vec![3, 3, 0, 0, 0, 0, 0, 0];
        packet.extend(ipv4(17, [192, 0, 2, 9], &[0; 8]));
        assert_eq!(read(&packet), None);
        assert_eq!(read(&request(true, 7, TOKEN)), None);
        assert_eq!(read_v6(&request(false, 7, TOKEN)), None);
        assert_eq!(behind_ipv4(&ipv4(1, [1; 4], b"abc")), Some(&b"abc"[..]));
        assert_eq!(behind_ipv4(&ipv4(6, [1; 4], b"abc")), None);
    }

    proptest! {
        #[test]
        fn no_packet_is_a_surprise(packet in prop::collection::vec(any::<u8>(), 0..80), kind in 0..130u8) {
            let mut packet = packet;
            if let Some(first) = packet.first_mut() {
                *first = kind;
            }
            let _ = (read(&packet), read_v6(&packet), behind_ipv4(&packet));
        }
    }
}
