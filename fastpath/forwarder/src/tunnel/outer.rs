//! The outer IP header: nearly all of it is known when the configuration is compiled.

use super::carried;
use super::inner::Inner;
use crate::address::Addr;
use crate::checksum;
use crate::packet::{ETHERTYPE_AT, ETHERTYPE_IPV4, ETHERTYPE_IPV6, field, put16};

/// Hops that an outer packet may take: the default that RFC 1700 gives a sender.
const TTL: u8 = 64;
/// RFC 791: don't fragment.
const DF: u16 = 0x4000;

/// Everything of an outer header that is the same for all packets to a server.
#[derive(Debug)]
pub struct Outer {
    server: Addr,
    /// The protocol that follows; None if that is the inner packet itself.
    protocol: Option<u8>,
    template: [u8; field::IP6_HEADER],
    /// Sum of the template's words, IPv4 only.
    sum: u64,
}

impl Outer {
    /// Towards `server`, carrying `protocol`, or packets themselves.
    pub fn new(server: Addr, protocol: Option<u8>) -> Outer {
        let mut template = [0; field::IP6_HEADER];
        if server.is_v4() {
            template[0] = 0x45;
            put16(&mut template, field::IP4_FRAGMENT, DF);
            template[field::IP4_TTL] = TTL;
            template[field::IP4_DST..field::IP4_DST + 4].copy_from_slice(&server.v4_bytes());
        } else {
            template[0] = 0x60;
            template[field::IP6_HOP_LIMIT] = TTL;
            template[field::IP6_DST..field::IP6_DST + 16].copy_from_slice(&server.v6_bytes());
        }
        let sum = checksum::sum(&template[..field::IP4_HEADER]);
        Outer {
            server,
            protocol,
            template,
            sum,
        }
    }

    /// Where packets are sent to.
    pub fn server(&self) -> Addr {
        self.server
    }

    /// The header's length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        if self.server.is_v4() {
            field::IP4_HEADER
        } else {
            field::IP6_HEADER
        }
    }

    /// Says in the Ethernet header which family follows.
    #[inline]
    pub fn write_ethertype(&self, frame: &mut [u8]) {
        let ethertype = if self.server.is_v4() {
            ETHERTYPE_IPV4
        } else {
            ETHERTYPE_IPV6
        };
        put16(frame, ETHERTYPE_AT, ethertype);
    }

    /// Writes the header of a packet with `body` bytes behind it.
    #[inline]
    pub fn write(&self, ip: &mut [u8], inner: &Inner, body: usize, source: Addr, hash: u64) {
        let len = ip.len();
        ip.copy_from_slice(&self.template[..len]);
        let protocol = self.protocol.unwrap_or(if inner.is_v4() {
            carried::IPV4
        } else {
            carried::IPV6
        });
        if self.server.is_v4() {
            let total = (len + body) as u16;
            let id = inner.id(hash);
            ip[1] = inner.ds_field();
            put16(ip, field::IP4_TOTAL_LENGTH, total);
            put16(ip, field::IP4_ID, id);
            ip[field::IP4_PROTOCOL] = protocol;
            let bytes = source.v4_bytes();
            ip[field::IP4_SRC..field::IP4_SRC + 4].copy_from_slice(&bytes);
            let changed = inner.ds_field() as u64
                + total as u64
                + id as u64
                + protocol as u64
                + u32::from_be_bytes(bytes) as u64;
            let sum = !checksum::fold(self.sum + changed);
            put16(ip, field::IP4_CHECKSUM, sum);
        } else {
            let first = 0x6000_0000 | (inner.ds_field() as u32) << 20 | flow_label(hash);
            ip[..4].copy_from_slice(&first.to_be_bytes());
            put16(ip, field::IP6_PAYLOAD_LENGTH, body as u16);
            ip[field::IP6_NEXT_HEADER] = protocol;
            ip[field::IP6_SRC..field::IP6_SRC + 16].copy_from_slice(&source.v6_bytes());
        }
    }
}

/// RFC 6437 section 3: 20 bits of the flow's hash, never 0, which would say that there is no label.
fn flow_label(hash: u64) -> u32 {
    ((hash >> 20) as u32 & 0xf_ffff).max(1)
}
