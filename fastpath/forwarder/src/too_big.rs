//! What we tell the sender of a packet that does not fit: ICMP "fragmentation needed" (RFC 792, RFC 1191) or ICMPv6
//! "packet too big" (RFC 4443 section 3.2).
//!
//! An IPv4 packet without DF gets no answer: its sender counts on routers to fragment it, and would not make its packets
//! smaller. We do not fragment: pieces behind the first could not be told apart by a server's queues, and a sender that
//! forbids path MTU discovery is rare today. (IPVS fragments the outer packet with `pmtu_disc=0` only.)

use crate::icmp_answer::Error;
use crate::packet::{Headers, field, get16};

/// Smallest MTU that is worth reporting: every link carries that much (RFC 791, RFC 8200 section 5).
const LEAST_V4: usize = 68;
const LEAST_V6: usize = 1280;

/// The error that says that `mtu` bytes would have fitted.
pub fn error(v4: bool, mtu: usize) -> Error {
    if v4 {
        Error {
            kind: 3,
            code: 4,
            rest: mtu.clamp(LEAST_V4, u16::MAX as usize) as u32,
        }
    } else {
        Error {
            kind: 2,
            code: 0,
            rest: mtu.clamp(LEAST_V6, u32::MAX as usize) as u32,
        }
    }
}

/// The error for a sender whose packets do not arrive for any other reason that a router on the way to the server knows:
/// host unreachable (RFC 2003 section 4.3, RFC 2473 section 8.2).
pub fn unreachable(v4: bool) -> Error {
    let (kind, code) = if v4 { (3, 1) } else { (1, 3) };
    Error {
        kind,
        code,
        rest: 0,
    }
}

/// Whether the sender expects to be told instead of having the packet fragmented: DF, and all of IPv6.
pub fn is_to_be_told(frame: &[u8], headers: &Headers) -> bool {
    /// RFC 791 section 3.1.
    const DF: u16 = 0x4000;
    let ip = &frame[headers.l3 as usize..];
    !headers.is_v4() || get16(ip, field::IP4_FRAGMENT) & DF != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_send_less_than_every_link_carries() {
        for (v4, mtu, told) in [
            (true, 1480, 1480),
            (true, 40, 68),
            (true, 100_000, 65535),
            (false, 1460, 1460),
            (false, 1240, 1280),
        ] {
            assert_eq!(error(v4, mtu).rest, told, "IPv4: {v4}, {mtu}");
        }
    }
}
