//! What the outer headers have to know of the packet within.

use crate::checksum;
use crate::packet::{Headers, Kind, field, get16, protocol, put16};

/// A packet that is about to be wrapped. Offsets count from its own beginning.
#[derive(Debug, Clone, Copy)]
pub struct Inner {
    v4: bool,
    ds_field: u8,
    id: u16,
    transport: Option<Transport>,
}

/// A transport header whose checksum vouches for all that follows the IP header.
#[derive(Debug, Clone, Copy)]
struct Transport {
    /// Where it begins.
    at: usize,
    /// Where its checksum is.
    checksum_at: usize,
    /// Sum of its pseudo-header.
    pseudo: u64,
    /// Set when the checksum has been taken out, see [`Inner::leave_checksum_to_receiver`].
    taken_out: Option<u16>,
}

/// Where remote checksum offload has the receiver begin its sum and put it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// First byte of the sum.
    pub start: u16,
    /// Where the sum belongs.
    pub offset: u16,
}

impl Inner {
    /// Of a packet with these headers.
    pub fn new(frame: &[u8], headers: &Headers) -> Inner {
        let ip = &frame[headers.l3 as usize..headers.end as usize];
        let v4 = headers.is_v4();
        let (ds_field, id) = if v4 {
            (ip[1], get16(ip, field::IP4_ID))
        } else {
            ((get16(ip, 0) >> 4) as u8, 0)
        };
        Inner {
            v4,
            ds_field,
            id,
            transport: transport(ip, headers),
        }
    }

    /// Its family.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.v4
    }

    /// DSCP and ECN.
    #[inline]
    pub fn ds_field(&self) -> u8 {
        self.ds_field
    }

    /// An identification for the outer header. With DF any will do (RFC 6864 section 4.1); one that differs from packet
    /// to packet also survives whoever fragments in spite of it.
    #[inline]
    pub fn id(&self, hash: u64) -> u16 {
        if self.v4 { self.id } else { hash as u16 }
    }

    /// Sum of all words of the packet, as checksums of outer headers need it. A transport checksum makes it known
    /// without a look at the data (local checksum offload, Documentation/networking/checksum-offloads.rst): the segment
    /// with its pseudo-header sums up to all ones. If it does not, because the packet is damaged, the outer checksum is
    /// as wrong as the inner one, and the server drops the packet all the same.
    pub fn sum(&self, packet: &[u8]) -> u64 {
        let Some(transport) = &self.transport else {
            return checksum::sum(packet);
        };
        let rest = match transport.taken_out {
            None => !checksum::fold(transport.pseudo),
            Some(checksum) => !checksum,
        };
        checksum::sum(&packet[..transport.at]) + rest as u64
    }

    /// Takes the transport checksum out and puts the sum of the pseudo-header in its place, as a sender does that leaves
    /// the rest to its NIC; here it is the receiver that does the rest. None, and nothing changes, where there is no
    /// such checksum.
    pub fn leave_checksum_to_receiver(&mut self, frame: &mut [u8]) -> Option<Remote> {
        let transport = self.transport.as_mut()?;
        let packet = &mut frame[crate::packet::ETHERNET..];
        let checksum = get16(packet, transport.checksum_at);
        // The receiver would put 0 there, which UDP takes for no checksum.
        if checksum == 0xffff {
            return None;
        }
        put16(
            packet,
            transport.checksum_at,
            checksum::fold(transport.pseudo),
        );
        transport.taken_out = Some(checksum);
        Some(Remote {
            start: transport.at as u16,
            offset: transport.checksum_at as u16,
        })
    }
}

/// None for fragments, for options and extension headers (source routes have another destination in the pseudo-header),
/// and for what is not summed whole.
fn transport(ip: &[u8], headers: &Headers) -> Option<Transport> {
    let at = (headers.l4 - headers.l3) as usize;
    let plain = if headers.is_v4() {
        field::IP4_HEADER
    } else {
        field::IP6_HEADER
    };
    if headers.kind != Kind::Transport || headers.fragment.is_some() || at != plain {
        return None;
    }
    let segment = &ip[at..];
    let checksum_at = match headers.tuple.protocol {
        protocol::TCP => field::TCP_CHECKSUM,
        protocol::UDP => {
            let whole = get16(segment, field::UDP_LENGTH) as usize == segment.len();
            let summed = get16(segment, field::UDP_CHECKSUM) != 0;
            (whole && summed).then_some(field::UDP_CHECKSUM)?
        }
        _ => return None,
    };
    let tuple = &headers.tuple;
    Some(Transport {
        at,
        checksum_at: at + checksum_at,
        pseudo: checksum::pseudo_header(tuple.src, tuple.dst, tuple.protocol, segment.len()),
        taken_out: None,
    })
}
