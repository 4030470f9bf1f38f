//! What a frame says, read without the forwarder's own parser and checksums, so that both cannot be wrong together.

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

/// Whether a frame is an ICMP or ICMPv6 error about `about`, to its sender, that quotes it as it was.
pub fn is_error_about(frame: &[u8], about: &[u8]) -> bool {
    let (Some(ip), Some(quoted)) = (frame.get(14..), about.get(14..)) else {
        return false;
    };
    if checksums(frame) != Some(true) || frame[12..14] != about[12..14] {
        return false;
    }
    let (is_error, to, sender, quote) = match word(frame, 12) {
        0x0800 => (
            ip[9] == 1 && matches!(ip[20], 3 | 4 | 11 | 12),
            &ip[16..20],
            quoted.get(12..16),
            &ip[28..],
        ),
        _ => (
            ip[6] == 58 && ip[40] < 128,
            &ip[24..40],
            quoted.get(8..24),
            &ip[48..],
        ),
    };
    is_error && Some(to) == sender && quoted.starts_with(quote) && quote.len() >= 28
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
