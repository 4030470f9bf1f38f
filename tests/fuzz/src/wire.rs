//! What a frame says, read without the forwarder's own parser and checksums, so that both cannot be wrong together.

use std::net::IpAddr;

/// Ones' complement sum over big-endian words (RFC 1071), the plain way.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    for part in parts {
        for word in part.chunks(2) {
            total += u64::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u64::from(low));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}

/// Whether every checksum of a frame is right: IPv4 header, TCP, UDP, ICMP, ICMPv6. None where the frame is not one
/// that this simple reading understands: options, extension headers, fragments, other protocols.
pub fn checksums(frame: &[u8]) -> Option<bool> {
    let ip = frame.get(14..)?;
    let ethertype = word(frame, 12);
    let (addresses, protocol, body, header_is_right) = match ethertype {
        0x0800 if ip.len() >= 20 && ip[0] == 0x45 && word(ip, 6) & 0x3fff == 0 => {
            let body = ip.get(20..word(ip, 2))?;
            (&ip[12..20], ip[9], body, sum(&[&ip[..20]]) == 0xffff)
        }
        0x86dd if ip.len() >= 40 && ip[0] >> 4 == 6 => {
            let body = ip.get(40..40 + word(ip, 4))?;
            (&ip[8..40], ip[6], body, true)
        }
        _ => return None,
    };
    let length = (body.len() as u32).to_be_bytes();
    let pseudo: [&[u8]; 4] = [addresses, &length, &[0, protocol], body];
    let body_is_right = match (ethertype, protocol) {
        (_, 6) if body.len() >= 20 => sum(&pseudo) == 0xffff,
        // Zero is no checksum.
        (_, 17) if body.len() >= 8 && word(body, 4) == body.len() => {
            word(body, 6) == 0 || sum(&pseudo) == 0xffff
        }
        (0x0800, 1) if body.len() >= 8 => sum(&[body]) == 0xffff,
        (0x86dd, 58) if body.len() >= 8 => sum(&pseudo) == 0xffff,
        _ => return None,
    };
    Some(header_is_right && body_is_right)
}

/// Source and destination of an IP header.
fn addresses(ip: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let address = |from: usize, len: usize| -> Option<IpAddr> {
        let bytes = ip.get(from..from + len)?;
        match len {
            4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
            _ => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        }
    };
    match ip.first()? >> 4 {
        4 => Some((address(12, 4)?, address(16, 4)?)),
        6 => Some((address(8, 16)?, address(24, 16)?)),
        _ => None,
    }
}

/// Type and code of an ICMP or ICMPv6 error about `about`, to its sender, that quotes it as it was.
pub fn error_about(frame: &[u8], about: &[u8]) -> Option<(u8, u8)> {
    let (ip, quoted) = (frame.get(14..)?, about.get(14..)?);
    if checksums(frame) != Some(true) || frame[12..14] != about[12..14] {
        return None;
    }
    let (at, is_error) = match word(frame, 12) {
        0x0800 => (20, ip[9] == 1 && matches!(ip[20], 3 | 4 | 11 | 12)),
        _ => (40, ip[6] == 58 && ip[40] < 128),
    };
    let quote = &ip[at + 8..];
    let to_sender = addresses(ip)?.1 == addresses(quoted)?.0;
    (is_error && to_sender && quote.len() >= 28 && quoted.starts_with(quote))
        .then(|| (ip[at], ip[at + 1]))
}

/// Whether a frame is the reset that answers the TCP segment in `about` (RFC 9293 section 3.10.7.1).
pub fn is_reset_of(frame: &[u8], about: &[u8]) -> bool {
    let at = if word(frame, 12) == 0x0800 { 34 } else { 54 };
    if checksums(frame) != Some(true) || frame.len() != at + 20 || frame[12..14] != about[12..14] {
        return false;
    }
    let protocol = if at == 34 { frame[23] } else { frame[20] };
    let (Some((from, to)), Some((client, vip))) =
        (addresses(&frame[14..]), addresses(&about[14..]))
    else {
        return false;
    };
    // The segment's header may lie behind options; those packets are left to what holds for every frame.
    let Some(segment) = about.get(at..).filter(|segment| segment.len() >= 20) else {
        return false;
    };
    let reset = &frame[at..];
    let acknowledges = segment[13] & 0x10 != 0;
    let right = match acknowledges {
        true => reset[4..8] == segment[8..12] && reset[13] == 0x04,
        false => reset[4..8] == [0; 4] && reset[13] == 0x14,
    };
    protocol == 6
        && (from, to) == (vip, client)
        && (&reset[..2], &reset[2..4]) == (&segment[2..4], &segment[..2])
        && right
}

/// What was in a tunnel.
pub struct Unwrapped {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// Whether the checksums of GRE or UDP, as far as there are any, are right.
    pub is_intact: bool,
    /// With the outer packet's Ethernet addresses.
    pub frame: Vec<u8>,
}

/// As [`unwrap`], if the outer source is one of these.
pub fn unwrap_if(frame: &[u8], gue: u16, is_ours: impl Fn(IpAddr) -> bool) -> Option<Unwrapped> {
    let (src, _) = addresses(frame.get(14..)?)?;
    is_ours(src).then(|| unwrap(frame, gue)).flatten()
}

/// Takes IPIP, GRE or GUE off, which must be without a fault but for their checksums. None if this is no wrapped packet.
pub fn unwrap(frame: &[u8], gue: u16) -> Option<Unwrapped> {
    let ip = frame.get(14..)?;
    let (src, dst) = addresses(ip)?;
    let (protocol, body) = match word(frame, 12) {
        0x0800 => {
            assert!(ip[0] == 0x45 && sum(&[&ip[..20]]) == 0xffff && word(ip, 2) == ip.len());
            (ip[9], &ip[20..])
        }
        _ => {
            assert_eq!(word(ip, 4) + 40, ip.len());
            (ip[6], &ip[40..])
        }
    };
    let mut is_intact = true;
    let (inner_protocol, mut inner) = match protocol {
        4 | 41 => (protocol, body.to_vec()),
        47 => {
            let checked = word(body, 0) == 0x8000;
            assert!(checked || word(body, 0) == 0);
            is_intact = !checked || sum(&[body]) == 0xffff;
            let ethertype = word(body, 2);
            assert!(matches!(ethertype, 0x0800 | 0x86dd));
            let protocol = if ethertype == 0x0800 { 4 } else { 41 };
            (protocol, body[if checked { 8 } else { 4 }..].to_vec())
        }
        17 if word(body, 2) == usize::from(gue) => {
            assert_eq!(word(body, 4), body.len());
            is_intact = word(body, 6) == 0 || checksums(frame) == Some(true);
            let options = usize::from(body[8] & 0x1f) * 4;
            let mut inner = body[12 + options..].to_vec();
            match (word(body, 10), options) {
                (0, 0) => {}
                (1, 8) => {
                    assert_eq!(body[12..16], [0x80, 0, 0, 0]);
                    let (start, at) = (word(body, 16), word(body, 18));
                    let checksum = match !sum(&[&inner[start..]]) {
                        0 if matches!(
                            (inner[0] >> 4, inner[9], inner[6]),
                            (4, 17, _) | (6, _, 17)
                        ) =>
                        {
                            0xffff
                        }
                        checksum => checksum,
                    };
                    inner[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
                }
                other => panic!("GUE flags and options {other:?}"),
            }
            (body[9], inner)
        }
        _ => return None,
    };
    let (version, ethertype) = if inner_protocol == 4 {
        (4, [8, 0])
    } else {
        (6, [0x86, 0xdd])
    };
    assert_eq!(
        inner[0] >> 4,
        version,
        "the inner protocol is the inner version"
    );
    let mut whole = frame[..12].to_vec();
    whole.extend(ethertype);
    whole.append(&mut inner);
    Some(Unwrapped {
        src,
        dst,
        is_intact,
        frame: whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::*;

    #[test]
    fn a_flipped_bit_is_a_wrong_checksum() {
        for family in FAMILIES {
            let (from, to) = ((family.client(1), 4000), (family.vip(), 80));
            let error = icmp_error(family.router(), to.0, true, &syn(from, to), 60);
            for frame in [syn(from, to), datagram(from, to).frame(), error] {
                assert_eq!(checksums(&frame), Some(true));
                for at in [if family.v4 { 30 } else { 38 }, frame.len() - 1] {
                    let mut bad = frame.clone();
                    bad[at] ^= 4;
                    assert_eq!(checksums(&bad), Some(false), "byte {at}");
                }
            }
        }
    }
}
