//! ICMP errors about our connections (RFC 792, RFC 4443, RFC 5508): carried to the end that sent the packet in
//! question, with the quoted packet as that end knows it.

use crate::address::Addr;
use crate::counters::Traffic;
use crate::packet::{self, Headers, Kind, Tuple, field};
use crate::rewrite;
use crate::spec::Topology;
use crate::table::Direction;
use crate::verdict::{DropReason, Verdict};
use crate::view::Flow;

/// The packet that an error quotes, if it is one of a kind that we balance.
pub fn quoted(frame: &[u8], headers: &Headers) -> Option<Headers> {
    let within = &frame[..headers.end as usize];
    let quoted = packet::parse_quoted(
        within,
        headers.l4 as usize + field::ICMP_HEADER,
        headers.is_v4(),
    )?;
    (quoted.kind == Kind::Transport).then_some(quoted)
}

/// Whether it says that a packet was too big: RFC 1191 (type 3, code 4), RFC 4443 section 3.2.
pub fn is_too_big(frame: &[u8], headers: &Headers) -> bool {
    let message = &frame[headers.l4 as usize..];
    if headers.is_v4() {
        message[..2] == [3, 4]
    } else {
        message[0] == 2
    }
}

/// Rewrites an error so that the end that it is for can match it. `direction` is that in which the error itself
/// travels. Gives the destination.
pub fn rewrite(
    frame: &mut [u8],
    headers: &Headers,
    quoted: &Headers,
    flow: &Flow<'_>,
    direction: Direction,
) -> Result<Addr, DropReason> {
    // A wrong checksum must not become a right one.
    if !rewrite::icmp_is_intact(frame, headers) {
        return Err(DropReason::Malformed);
    }
    if !flow.rule.topology.has_reverse() {
        return Ok(headers.tuple.dst);
    }
    let new = flow.translated(direction).ok_or(DropReason::ServerGone)?;
    // The error comes from somewhere on the path. The client may know nothing behind the VIP, and under NAT the
    // server nothing before our own address; under HALF-NAT the server may see who complains.
    let src = match (direction, flow.rule.topology) {
        (Direction::Forward, Topology::HalfNat | Topology::Dsr | Topology::Tun) => {
            headers.tuple.src
        }
        (Direction::Forward, Topology::Nat) | (Direction::Reverse, _) => new.src,
    };
    let outer = Tuple {
        src,
        dst: new.dst,
        ..headers.tuple
    };
    if !rewrite::hop(frame, headers, &outer) {
        return Err(DropReason::TtlExpired);
    }
    rewrite::tuple(frame, quoted, &new.reversed());
    rewrite::recompute_icmp(
        frame,
        &Headers {
            tuple: outer,
            ..*headers
        },
    );
    Ok(new.dst)
}

/// Counts an error for the server whose connection it concerns.
pub fn count(traffic: &Traffic, verdict: Verdict, too_big: bool, bytes: usize) {
    let (packets, all_bytes, icmp, big) = match verdict {
        Verdict::Drop(_) => (
            &traffic.dropped_packets,
            &traffic.dropped_bytes,
            &traffic.icmp_dropped,
            &traffic.too_big_dropped,
        ),
        Verdict::Transmit(_)
        | Verdict::Unresolved { .. }
        | Verdict::Hold { .. }
        | Verdict::Kernel => (
            &traffic.packets,
            &traffic.bytes,
            &traffic.icmp_processed,
            &traffic.too_big_processed,
        ),
    };
    packets.add(1);
    all_bytes.add(bytes as u64);
    icmp.add(1);
    if too_big {
        big.add(1);
    }
}
