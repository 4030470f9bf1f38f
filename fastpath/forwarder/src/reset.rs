//! A TCP reset to the client, out of the segment that it answers (RFC 9293 section 3.10.7.1): for a connection whose
//! server cannot answer any more.

use crate::checksum;
use crate::icmp_answer::{self, is_one_host};
use crate::packet::{ETHERNET, Headers, Packet, field, get16, protocol, put16, tcp};
use crate::rewrite;

/// Turns a whole TCP segment, or the first fragment of one, into a reset to its sender, and gives the answer's headers.
/// The answer is no longer than what it answers. Its Ethernet addresses are left to
/// [`crate::network::Network::send`]. None, with the packet unchanged, if there must be no answer: to a reset, to what
/// is no single host's, to a damaged packet, or without an acknowledgement to a segment of which only a part is here.
pub fn answer(packet: &mut Packet<'_>, headers: &Headers) -> Option<Headers> {
    let flags = headers.tcp_flags;
    let acknowledges = flags & tcp::ACK != 0;
    if headers.tuple.protocol != protocol::TCP
        || flags & tcp::RST != 0
        || (headers.fragment.is_some() && !acknowledges)
        || !is_one_host(headers.tuple.src)
        || !rewrite::ip_is_intact(packet.frame(), headers)
    {
        return None;
    }
    let segment = &packet.frame()[headers.l4 as usize..headers.end as usize];
    // "If the ACK bit is off, sequence number zero is used, <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>. If the ACK bit
    // is on, <SEQ=SEG.ACK><CTL=RST>." A length counts SYN and FIN.
    let (seq, ack, control) = if acknowledges {
        (get32(segment, field::TCP_ACK), 0, tcp::RST)
    } else {
        let header = (segment[field::TCP_OFFSET] >> 4) as usize * 4;
        let marks = [tcp::SYN, tcp::FIN].iter().filter(|&&f| flags & f != 0);
        let len = segment.len().saturating_sub(header) + marks.count();
        let ack = get32(segment, field::TCP_SEQ).wrapping_add(len as u32);
        (0, ack, tcp::RST | tcp::ACK)
    };
    let ip_header = if headers.is_v4() {
        field::IP4_HEADER
    } else {
        field::IP6_HEADER
    };
    let l4 = ETHERNET + ip_header;
    let end = l4 + field::TCP_HEADER;
    let answer = Headers {
        kind: headers.kind,
        tuple: headers.tuple.reversed(),
        l3: ETHERNET as u16,
        l4: l4 as u16,
        end: end as u16,
        tcp_flags: control,
        ..Headers::default()
    };
    packet.truncate(end);
    let frame = packet.frame_mut();
    icmp_answer::ip(frame, &answer, 0);
    let segment = &mut frame[l4..end];
    segment.fill(0);
    put16(segment, field::SPORT, answer.tuple.sport);
    put16(segment, field::DPORT, answer.tuple.dport);
    segment[field::TCP_SEQ..][..4].copy_from_slice(&seq.to_be_bytes());
    segment[field::TCP_ACK..][..4].copy_from_slice(&ack.to_be_bytes());
    segment[field::TCP_OFFSET] = (field::TCP_HEADER as u8 / 4) << 4;
    segment[field::TCP_FLAGS] = control;
    let pseudo = checksum::pseudo_header(
        answer.tuple.src,
        answer.tuple.dst,
        protocol::TCP,
        field::TCP_HEADER,
    );
    let sum = checksum::of(segment, pseudo);
    put16(segment, field::TCP_CHECKSUM, sum);
    Some(answer)
}

fn get32(bytes: &[u8], at: usize) -> u32 {
    (get16(bytes, at) as u32) << 16 | get16(bytes, at + 2) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Kind, Tuple, parse};
    use std::net::IpAddr;
    use tcp::{ACK, FIN, RST, SYN};

    const SEQ: u32 = 0xffff_fffe;
    const ACKED: u32 = 0x0a0b_0c0d;

    /// A segment with 12 bytes of options and this much payload.
    fn segment(v4: bool, flags: u8, payload: usize) -> Vec<u8> {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap().into();
        let (src, dst, ip) = if v4 {
            (addr("10.0.0.1"), addr("10.0.0.2"), field::IP4_HEADER)
        } else {
            (addr("fd00::1"), addr("fd00::2"), field::IP6_HEADER)
        };
        let l4 = ETHERNET + ip;
        let end = l4 + 32 + payload;
        let mut frame = vec![0; end];
        let headers = Headers {
            tuple: Tuple {
                src,
                dst,
                protocol: protocol::TCP,
                ..Tuple::default()
            },
            l3: ETHERNET as u16,
            l4: l4 as u16,
            end: end as u16,
            ..Headers::default()
        };
        icmp_answer::ip(&mut frame, &headers, 0);
        let tcp = &mut frame[l4..];
        put16(tcp, 0, 4000);
        put16(tcp, 2, 80);
        tcp[4..8].copy_from_slice(&SEQ.to_be_bytes());
        tcp[8..12].copy_from_slice(&ACKED.to_be_bytes());
        tcp[12] = 8 << 4;
        tcp[13] = flags;
        // Ethernet padding does not count as payload.
        frame.extend([0; 6]);
        frame
    }

    fn answered(frame: &[u8]) -> Option<(u32, u32, u8)> {
        let mut buf = frame.to_vec();
        let len = buf.len();
        let mut packet = Packet::new(&mut buf, 0, len, 0);
        let headers = parse(frame).unwrap();
        if answer(&mut packet, &headers).is_none() {
            assert_eq!(packet.frame(), frame, "unchanged");
            return None;
        }
        let out = packet.frame();
        let parsed = parse(out).unwrap();
        assert_eq!(parsed.kind, Kind::Transport);
        assert_eq!(parsed.tuple, headers.tuple.reversed());
        let (l3, l4, end) = (parsed.l3 as usize, parsed.l4 as usize, parsed.end as usize);
        assert_eq!((end - l4, end), (20, out.len()));
        if parsed.is_v4() {
            assert_eq!(checksum::of(&out[l3..l4], 0), 0);
        }
        let pseudo = checksum::pseudo_header(parsed.tuple.src, parsed.tuple.dst, protocol::TCP, 20);
        assert_eq!(checksum::of(&out[l4..end], pseudo), 0);
        let tcp = &out[l4..];
        Some((get32(tcp, 4), get32(tcp, 8), tcp[13]))
    }

    #[test]
    fn sequence_numbers_as_rfc_9293_says() {
        #[rustfmt::skip]
        let table = [
            // flags, payload, (seq, ack, flags) of the answer
            (ACK, 100, Some((ACKED, 0, RST))),
            (ACK | FIN, 0, Some((ACKED, 0, RST))),
            (SYN | ACK, 0, Some((ACKED, 0, RST))),
            (SYN, 0, Some((0, SEQ.wrapping_add(1), RST | ACK))),
            (SYN, 10, Some((0, SEQ.wrapping_add(11), RST | ACK))),
            (SYN | FIN, 10, Some((0, SEQ.wrapping_add(12), RST | ACK))),
            (0, 7, Some((0, SEQ.wrapping_add(7), RST | ACK))),
            (RST, 0, None),
            (RST | ACK, 0, None),
        ];
        for (flags, payload, expected) in table {
            for v4 in [true, false] {
                let got = answered(&segment(v4, flags, payload));
                assert_eq!(got, expected, "{flags:#x} {payload} {v4}");
            }
        }
    }

    #[test]
    fn of_a_fragment_only_what_is_known_is_answered() {
        for (flags, expected) in [(ACK, Some((ACKED, 0, RST))), (SYN, None)] {
            let mut frame = segment(true, flags, 64);
            frame[ETHERNET + field::IP4_FRAGMENT] = 0x20;
            seal(&mut frame);
            assert_eq!(answered(&frame), expected);
        }
    }

    /// Writes the checksum of an IPv4 header anew.
    fn seal(frame: &mut [u8]) {
        let ip = &mut frame[ETHERNET..ETHERNET + field::IP4_HEADER];
        put16(ip, field::IP4_CHECKSUM, 0);
        let sum = checksum::of(ip, 0);
        put16(ip, field::IP4_CHECKSUM, sum);
    }

    #[test]
    fn what_is_damaged_is_not_answered() {
        let mut frame = segment(true, ACK, 0);
        // Its source, by one bit.
        frame[ETHERNET + field::IP4_SRC + 3] ^= 4;
        assert_eq!(answered(&frame), None);
    }

    #[test]
    fn nobody_is_not_answered() {
        let mut frame = segment(true, ACK, 0);
        frame[ETHERNET + field::IP4_SRC..][..4].copy_from_slice(&[224, 0, 0, 1]);
        seal(&mut frame);
        assert_eq!(answered(&frame), None);
    }
}
