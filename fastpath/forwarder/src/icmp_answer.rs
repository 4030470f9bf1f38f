//! ICMP and ICMPv6 errors that we make ourselves (RFC 792, RFC 4443), out of the packet that they are about: it is
//! quoted in its own frame, behind the headers that are written in front of it.

use crate::address::Addr;
use crate::checksum;
use crate::packet::{ETHERNET, Headers, Kind, Packet, field, protocol, put16};
use crate::rewrite;

/// Largest IPv4 packet of an answer: as much of the original as fits (RFC 1812 section 4.3.2.3).
const MOST_V4: usize = 576;
/// Largest IPv6 packet of an answer: the smallest MTU of IPv6 (RFC 4443 section 3.1).
const MOST_V6: usize = 1280;
/// Hops that an answer may go.
const HOPS: u8 = 64;
/// Type of service of an answer: internetwork control (RFC 1812 section 4.3.2.5).
const PRECEDENCE: u8 = 0xc0;
/// Don't fragment; without fragments, the identification means nothing (RFC 6864).
const DONT_FRAGMENT: u16 = 0x4000;

/// What an error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes behind the checksum, such as an MTU.
    pub rest: u32,
}

impl Error {
    /// Nobody listens there: RFC 792 type 3 code 3, RFC 4443 type 1 code 4.
    pub const fn port_unreachable(v4: bool) -> Error {
        let (kind, code) = if v4 { (3, 3) } else { (1, 4) };
        Error {
            kind,
            code,
            rest: 0,
        }
    }
}

/// Whether an error about this packet may be sent at all (RFC 1122 section 3.2.2, RFC 4443 section 2.4 e): never
/// about an ICMP error or a later fragment, nor about what was sent to many, nor to a source that is no single host, nor
/// about a packet whose header is damaged (RFC 1812 section 4.3.2.7).
pub fn allowed(frame: &[u8], headers: &Headers) -> bool {
    let for_many = frame[0] & 1 != 0 || is_group(headers.tuple.dst);
    let answerable = !matches!(headers.kind, Kind::IcmpError | Kind::LaterFragment);
    answerable
        && !for_many
        && is_one_host(headers.tuple.src)
        && rewrite::ip_is_intact(frame, headers)
}

fn is_group(address: Addr) -> bool {
    if address.is_v4() {
        let first = address.v4_bytes()[0];
        first >= 224
    } else {
        address.0 >> 120 == 0xff
    }
}

pub(crate) fn is_one_host(address: Addr) -> bool {
    let nowhere = if address.is_v4() {
        matches!(address.v4_bytes()[0], 0 | 127)
    } else {
        address.0 <= 1
    };
    !nowhere && !is_group(address)
}

/// Turns the packet into an error about itself, from `source` to the packet's sender, and gives the answer's headers.
/// Its Ethernet addresses are left to [`crate::network::Network::send`]. None, with the packet unchanged, if such an
/// error must not be sent ([`allowed`]). Nothing is copied where there is room in front of the frame; where there is
/// too little, the quote is what fits into the frame.
///
/// `headers` are those of the packet as it is in the frame, which must be as its sender sent it.
pub fn error(
    packet: &mut Packet<'_>,
    headers: &Headers,
    error: Error,
    source: Addr,
) -> Option<Headers> {
    if !allowed(packet.frame(), headers) {
        return None;
    }
    let v4 = headers.is_v4();
    let (ip_header, most, number) = if v4 {
        (field::IP4_HEADER, MOST_V4, protocol::ICMP)
    } else {
        (field::IP6_HEADER, MOST_V6, protocol::ICMPV6)
    };
    let l4 = ETHERNET + ip_header;
    let at = l4 + field::ICMP_HEADER;
    let quote = headers.ip_len().min(ETHERNET + most - at);
    let from = headers.l3 as usize;
    let quote = if packet.grow_front(at - from) {
        quote
    } else {
        let quote = quote.min(packet.len().checked_sub(at)?);
        packet.frame_mut().copy_within(from..from + quote, at);
        quote
    };
    let end = at + quote;
    packet.truncate(end);
    let answer = Headers {
        kind: Kind::Other,
        tuple: crate::packet::Tuple {
            src: source,
            dst: headers.tuple.src,
            sport: 0,
            dport: 0,
            protocol: number,
        },
        l3: ETHERNET as u16,
        l4: l4 as u16,
        end: end as u16,
        ..Headers::default()
    };
    let frame = packet.frame_mut();
    frame[..ETHERNET].fill(0);
    ip(frame, &answer, PRECEDENCE);
    let message = &mut frame[l4..end];
    message[..2].copy_from_slice(&[error.kind, error.code]);
    put16(message, field::ICMP_CHECKSUM, 0);
    message[4..8].copy_from_slice(&error.rest.to_be_bytes());
    let initial = if v4 {
        0
    } else {
        checksum::pseudo_header(source, answer.tuple.dst, number, message.len())
    };
    let sum = checksum::of(message, initial);
    put16(message, field::ICMP_CHECKSUM, sum);
    Some(answer)
}

/// Writes an Ethernet type and an IP header without options for a packet of ours that `headers` describe.
pub(crate) fn ip(frame: &mut [u8], headers: &Headers, precedence: u8) {
    let v4 = headers.is_v4();
    let len = headers.ip_len();
    put16(frame, 12, if v4 { 0x0800 } else { 0x86dd });
    let ip = &mut frame[headers.l3 as usize..headers.l4 as usize];
    let tuple = &headers.tuple;
    ip.fill(0);
    if v4 {
        ip[0] = 0x45;
        ip[1] = precedence;
        put16(ip, field::IP4_TOTAL_LENGTH, len as u16);
        put16(ip, field::IP4_FRAGMENT, DONT_FRAGMENT);
        ip[field::IP4_TTL] = HOPS;
        ip[field::IP4_PROTOCOL] = tuple.protocol;
        ip[field::IP4_SRC..field::IP4_SRC + 4].copy_from_slice(&tuple.src.v4_bytes());
        ip[field::IP4_DST..field::IP4_DST + 4].copy_from_slice(&tuple.dst.v4_bytes());
        let sum = checksum::of(ip, 0);
        put16(ip, field::IP4_CHECKSUM, sum);
    } else {
        ip[0] = 0x60 | precedence >> 4;
        ip[1] = precedence << 4;
        put16(
            ip,
            field::IP6_PAYLOAD_LENGTH,
            (len - field::IP6_HEADER) as u16,
        );
        ip[field::IP6_NEXT_HEADER] = tuple.protocol;
        ip[field::IP6_HOP_LIMIT] = HOPS;
        ip[field::IP6_SRC..field::IP6_SRC + 16].copy_from_slice(&tuple.src.v6_bytes());
        ip[field::IP6_DST..field::IP6_DST + 16].copy_from_slice(&tuple.dst.v6_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{get16, parse};
    use std::net::IpAddr;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    /// A UDP datagram with this much payload.
    fn datagram(src: &str, dst: &str, payload: usize) -> Vec<u8> {
        let (src, dst) = (addr(src), addr(dst));
        let l4 = ETHERNET
            + if src.is_v4() {
                field::IP4_HEADER
            } else {
                field::IP6_HEADER
            };
        let end = l4 + field::UDP_HEADER + payload;
        let mut frame = vec![0; end];
        let headers = Headers {
            tuple: crate::packet::Tuple {
                src,
                dst,
                protocol: protocol::UDP,
                ..Default::default()
            },
            l3: ETHERNET as u16,
            l4: l4 as u16,
            end: end as u16,
            ..Headers::default()
        };
        ip(&mut frame, &headers, 0);
        for (n, byte) in frame[l4..].iter_mut().enumerate() {
            *byte = n as u8;
        }
        frame
    }

    fn answer(frame: &[u8], headroom: usize, source: &str) -> Option<Vec<u8>> {
        let mut buf = vec![0xa5; headroom + frame.len()];
        buf[headroom..].copy_from_slice(frame);
        let mut packet = Packet::new(&mut buf, headroom, frame.len(), 0);
        let headers = parse(frame).unwrap();
        let said = Error {
            rest: 0x0102_0304,
            ..Error::port_unreachable(headers.is_v4())
        };
        let Some(made) = error(&mut packet, &headers, said, addr(source)) else {
            assert_eq!(packet.frame(), frame, "unchanged");
            return None;
        };
        let out = packet.frame().to_vec();
        let parsed = parse(&out).unwrap();
        assert_eq!((parsed.l4, parsed.end), (made.l4, made.end));
        assert_eq!(parsed.end as usize, out.len());
        assert_eq!(parsed.kind, Kind::IcmpError);
        assert_eq!(parsed.tuple.src, addr(source));
        assert_eq!(parsed.tuple.dst, headers.tuple.src);
        assert!(crate::rewrite::icmp_is_intact(&out, &parsed));
        if parsed.is_v4() {
            assert_eq!(checksum::of(&out[ETHERNET..parsed.l4 as usize], 0), 0);
        }
        Some(out)
    }

    #[test]
    fn quotes_what_fits_in_both_families() {
        // (source, destination, payload, room in front, IP length of the answer)
        let table = [
            ("10.0.0.1", "10.0.0.2", 10, 100, 20 + 8 + 38),
            ("10.0.0.1", "10.0.0.2", 1400, 0, 576),
            ("10.0.0.1", "10.0.0.2", 1400, 500, 576),
            // No room: the quote gives way.
            ("10.0.0.1", "10.0.0.2", 10, 0, 38),
            ("fd00::1", "fd00::2", 10, 100, 40 + 8 + 58),
            ("fd00::1", "fd00::2", 1400, 0, 1280),
            ("fd00::1", "fd00::2", 100, 47, 148),
        ];
        for (src, dst, payload, room, expected) in table {
            let frame = datagram(src, dst, payload);
            let out = answer(&frame, room, dst).unwrap();
            assert_eq!(out.len() - ETHERNET, expected, "{src} {payload} {room}");
            let at = parse(&out).unwrap().l4 as usize;
            let kinds = if addr(src).is_v4() { [3, 3] } else { [1, 4] };
            assert_eq!(out[at..at + 2], kinds);
            assert_eq!(out[at + 4..at + 8], [1, 2, 3, 4]);
            let quote = &out[at + 8..];
            assert_eq!(
                quote,
                &frame[ETHERNET..][..quote.len()],
                "{src} {payload} {room}"
            );
        }
    }

    #[test]
    fn some_packets_must_not_be_answered() {
        let good = datagram("10.0.0.1", "10.0.0.2", 10);
        assert!(answer(&good, 100, "10.0.0.2").is_some());
        let mut broadcast = good.clone();
        broadcast[0] = 0xff;
        let mut fragment = good.clone();
        fragment[ETHERNET + 7] = 5;
        let once = answer(&good, 100, "10.0.0.2").unwrap();
        let once6 = answer(&datagram("fd00::1", "fd00::2", 10), 100, "fd00::2").unwrap();
        for (what, frame) in [
            ("to a link-layer broadcast", broadcast),
            ("a later fragment", fragment),
            ("an ICMP error", once),
            ("an ICMPv6 error", once6),
            ("to a group", datagram("10.0.0.1", "224.0.0.5", 10)),
            ("to an IPv6 group", datagram("fd00::1", "ff02::5", 10)),
            ("from nowhere", datagram("0.0.0.0", "10.0.0.2", 10)),
            ("from loopback", datagram("127.0.0.1", "10.0.0.2", 10)),
            (
                "from the limited broadcast",
                datagram("255.255.255.255", "10.0.0.2", 10),
            ),
            ("from nowhere in IPv6", datagram("::", "fd00::2", 10)),
            ("from IPv6 loopback", datagram("::1", "fd00::2", 10)),
            ("from an IPv6 group", datagram("ff02::5", "fd00::2", 10)),
        ] {
            assert!(answer(&frame, 100, "10.9.9.9").is_none(), "{what}");
        }
    }

    #[test]
    fn an_ip_header_carries_its_precedence() {
        let out = answer(&datagram("10.0.0.1", "10.0.0.2", 9), 64, "10.0.0.2").unwrap();
        assert_eq!(out[ETHERNET + 1], 0xc0);
        let out = answer(&datagram("fd00::1", "fd00::2", 9), 64, "fd00::2").unwrap();
        assert_eq!(get16(&out, ETHERNET) >> 4 & 0xff, 0xc0);
    }
}
