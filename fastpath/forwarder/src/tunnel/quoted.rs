//! Our own outer packets as ICMP errors from the path quote them.

use super::{carried, gre, gue, ipip};
use crate::address::Addr;
use crate::packet::{self, Headers, field, get16, protocol};

/// The outer packet that an error is about. Offsets count from the beginning of the frame.
#[derive(Debug, Clone, Copy)]
pub struct Quoted {
    /// Its source, one of ours.
    pub source: Addr,
    /// Its destination, a server.
    pub destination: Addr,
    protocol: u8,
    /// GUE: the UDP destination port.
    port: Option<u16>,
    /// The packet of the client, if the quotation reaches its ports.
    pub inner: Option<Headers>,
}

impl Quoted {
    /// Of the error with these headers; None if it cannot be about a tunnel.
    pub fn find(frame: &[u8], headers: &Headers) -> Option<Quoted> {
        let within = &frame[..headers.end as usize];
        let at = headers.l4 as usize + field::ICMP_HEADER;
        let outer = packet::parse_quoted(within, at, headers.is_v4())?;
        // The first fragment of a packet of ours, which has DF, is none of ours; and what is not sent to a packet's source is
        // no error about it.
        if outer.fragment.is_some() || outer.tuple.src != headers.tuple.dst {
            return None;
        }
        let l4 = outer.l4 as usize;
        let body = within.get(l4..)?;
        let (shim, v4) = match outer.tuple.protocol {
            carried::IPV4 | carried::IPV6 => (Some(0), ipip::is_v4(outer.tuple.protocol)?),
            carried::GRE => gre::parse(body).map_or((None, true), |(len, v4)| (Some(len), v4)),
            protocol::UDP => gue::parse(body).map_or((None, true), |(len, v4)| (Some(len), v4)),
            _ => return None,
        };
        let inner = shim.and_then(|shim| packet::parse_quoted(within, l4 + shim, v4));
        Some(Quoted {
            source: outer.tuple.src,
            destination: outer.tuple.dst,
            protocol: outer.tuple.protocol,
            port: (outer.tuple.protocol == protocol::UDP).then_some(outer.tuple.dport),
            inner,
        })
    }

    pub(super) fn is_ipip(&self) -> bool {
        ipip::is_v4(self.protocol).is_some()
    }

    pub(super) fn is_gre(&self) -> bool {
        self.protocol == carried::GRE
    }

    pub(super) fn gue_port(&self) -> Option<u16> {
        self.port
    }
}

/// RFC 1191 section 7.1: what to try when a router from before that RFC does not say what it takes.
const PLATEAUS: [u16; 10] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// The MTU that a "fragmentation needed" or "packet too big" reports, in bytes.
pub fn reported_mtu(frame: &[u8], headers: &Headers) -> u32 {
    let message = &frame[headers.l4 as usize..headers.end as usize];
    if !headers.is_v4() {
        return (get16(message, 4) as u32) << 16 | get16(message, 6) as u32;
    }
    match get16(message, 6) {
        0 => {
            let quoted = message
                .get(field::ICMP_HEADER..field::ICMP_HEADER + field::IP4_HEADER)
                .map_or(0, |ip| get16(ip, field::IP4_TOTAL_LENGTH));
            let plateau = PLATEAUS.iter().find(|&&mtu| mtu < quoted);
            plateau.copied().unwrap_or(PLATEAUS[PLATEAUS.len() - 1]) as u32
        }
        mtu => mtu as u32,
    }
}
