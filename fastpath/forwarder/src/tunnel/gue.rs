//! Generic UDP encapsulation, variant 0 (draft-ietf-intarea-gue; the kernel's include/net/gue.h):
//!
//! ```text
//!  UDP header                                      8 bytes
//!  variant:2 control:1 hlen:5 | protocol | flags   4 bytes
//!  private flags                                   4 bytes, if flags & 1
//!  start, offset of the remote checksum            4 bytes, if private flags & 0x8000_0000
//! ```
//!
//! `hlen` counts the optional words. `protocol` is that of an IP header in its place: 4 or 41.

use super::carried;
use super::inner::{Inner, Remote};
use super::ipip;
use crate::address::Addr;
use crate::checksum;
use crate::packet::{field, protocol, put16};

/// `GUE_FLAG_PRIV`: private flags follow.
const PRIVATE: u16 = 1;
/// `GUE_PFLAG_REMCSUM`: remote checksum offload follows (draft-herbert-remotecsumoffload).
const REMOTE_CHECKSUM: u32 = 1 << 31;

const BASE: usize = 4;
const REMOTE: usize = 8;
/// Length of UDP and GUE headers in bytes, at most.
pub const MOST: usize = len(true);

const PROTOCOL: usize = 1;
const FLAGS: usize = 2;
const PRIVATE_FLAGS: usize = 4;
const REMOTE_START: usize = 8;
const REMOTE_OFFSET: usize = 10;

/// Length of UDP and GUE headers in bytes.
pub const fn len(remote: bool) -> usize {
    field::UDP_HEADER + BASE + if remote { REMOTE } else { 0 }
}

/// The UDP source port of a flow, out of the dynamic ports (RFC 6335 section 6).
pub fn source_port(hash: u64) -> u16 {
    0xc000 | (hash >> 40) as u16 & 0x3fff
}

/// Writes both headers, without a UDP checksum (RFC 768; RFC 6935 and RFC 6936 for IPv6).
pub fn write(
    headers: &mut [u8],
    inner: &Inner,
    payload: usize,
    sport: u16,
    dport: u16,
    remote: Option<Remote>,
) {
    let len = headers.len();
    let (udp, gue) = headers.split_at_mut(field::UDP_HEADER);
    put16(udp, field::SPORT, sport);
    put16(udp, field::DPORT, dport);
    put16(udp, field::UDP_LENGTH, (len + payload) as u16);
    put16(udp, field::UDP_CHECKSUM, 0);
    gue[0] = ((gue.len() - BASE) / 4) as u8;
    gue[PROTOCOL] = if inner.is_v4() {
        carried::IPV4
    } else {
        carried::IPV6
    };
    put16(gue, FLAGS, 0);
    if let Some(Remote { start, offset }) = remote {
        put16(gue, FLAGS, PRIVATE);
        gue[PRIVATE_FLAGS..PRIVATE_FLAGS + 4].copy_from_slice(&REMOTE_CHECKSUM.to_be_bytes());
        put16(gue, REMOTE_START, start);
        put16(gue, REMOTE_OFFSET, offset);
    }
}

/// Writes the UDP checksum of what [`write`] wrote. `sum` is that of the packet behind it.
pub fn write_checksum(headers: &mut [u8], payload: usize, src: Addr, dst: Addr, sum: u64) {
    let len = headers.len() + payload;
    let pseudo = checksum::pseudo_header(src, dst, protocol::UDP, len);
    let checksum = match checksum::of(headers, pseudo + sum) {
        0 => 0xffff,
        checksum => checksum,
    };
    put16(headers, field::UDP_CHECKSUM, checksum);
}

/// Where the packet behind UDP and GUE headers begins, and whether it is IPv4. None if this is nothing that we write.
pub fn parse(headers: &[u8]) -> Option<(usize, bool)> {
    let gue = headers.get(field::UDP_HEADER..)?.first_chunk::<BASE>()?;
    // Variant 0, no control message.
    if gue[0] & 0xe0 != 0 {
        return None;
    }
    let options = (gue[0] & 0x1f) as usize * 4;
    let v4 = ipip::is_v4(gue[PROTOCOL])?;
    Some((field::UDP_HEADER + BASE + options, v4))
}
