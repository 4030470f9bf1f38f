//! Packets that are none of ours after all. XDP sees to those that it does not take, by the same words: `OF_THE_LINK` and
//! `is_closed` in `xdp_redirect.bpf.c`.

use crate::packet::{Headers, Kind, protocol};
use crate::verdict::{DropReason, Verdict};
use crate::view::View;

/// Neighbour discovery, from router solicitation to redirect (RFC 4861).
const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// The kernel may have it, unless it was sent to an address at which this node takes nothing for itself.
#[cold]
pub(super) fn verdict(view: &View, headers: &Headers) -> Verdict {
    match view.network.is_closed(headers.tuple.dst) && !is_of_the_link(headers) {
        true => Verdict::Drop(DropReason::AddressClosed),
        false => Verdict::Kernel,
    }
}

/// Whether the other fragments have to share the lot of a first one with this verdict, because it was none of ours. At a
/// closed address the kernel gets only what a rule's server is this host for, and that is remembered as the rule's.
pub(super) fn is_first_of_others(view: &View, headers: &Headers, verdict: Verdict) -> bool {
    match verdict {
        Verdict::Drop(reason) => reason == DropReason::AddressClosed,
        Verdict::Kernel => !view.network.is_closed(headers.tuple.dst),
        Verdict::Transmit(_) | Verdict::Unresolved { .. } | Verdict::Hold { .. } => false,
    }
}

/// What a host needs to have an address at all (RFC 9568 section 6.4.3).
fn is_of_the_link(headers: &Headers) -> bool {
    let discovery = headers.tuple.protocol == protocol::ICMPV6
        && !headers.is_v4()
        && headers.kind == Kind::Other
        && DISCOVERY.contains(&headers.message);
    discovery || headers.tuple.protocol == protocol::VRRP
}
