//! Packets through a tunnel to a server, as the fast path sends those of clients: IPIP (RFC 2003, RFC 2473, RFC 4213), GRE
//! (RFC 2784) and GUE (draft-ietf-intarea-gue, variant 0). The kernel writes the outer header and finds the way.

use std::io;
use std::net::IpAddr;

use libilb::tunnel::{Tunnel as Kind, TunnelChecksum};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use super::{IPV4, IPV6, way};

/// Most octets of an inner packet: what fits behind every outer header.
pub const MTU: usize = 1400;

/// Protocol numbers (IANA).
const IPIP: i32 = 4;
const IPV6_IN: i32 = 41;
const GRE: i32 = 47;
/// RFC 2784 section 2.2: checksum present.
const CHECKSUM_PRESENT: u16 = 0x8000;

/// The near end of a tunnel to one server.
#[derive(Debug)]
pub struct Tunnel {
    socket: Socket,
    to: SockAddr,
    kind: Kind,
}

/// For packets of one family (`inner_v4`).
pub fn open(kind: Kind, server: IpAddr, inner_v4: bool) -> io::Result<Tunnel> {
    let domain = if server.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let (socket, port) = match kind {
        Kind::Ipip => {
            let protocol = if inner_v4 { IPIP } else { IPV6_IN };
            (
                Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?,
                0,
            )
        }
        Kind::Gre { .. } => (
            Socket::new(domain, Type::RAW, Some(Protocol::from(GRE)))?,
            0,
        ),
        Kind::Gue { port, .. } => (Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?, port),
    };
    // It only speaks: nothing passes a filter that accepts nothing (BPF_RET | BPF_K, 0).
    socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
    socket.set_nonblocking(true)?;
    Ok(Tunnel {
        socket,
        to: way::place(server, port),
        kind,
    })
}

impl Tunnel {
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let octets = wrap(self.kind, packet);
        self.socket.send_to(&octets, &self.to).map(drop)
    }
}

/// A packet with everything before it but the outer IP (and UDP) header.
fn wrap(kind: Kind, packet: &[u8]) -> Vec<u8> {
    let v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let ethertype = if v4 { IPV4 } else { IPV6 };
    let mut octets = Vec::with_capacity(packet.len() + 8);
    match kind {
        Kind::Ipip => {}
        Kind::Gre { checksum: false } => {
            octets.extend([0, 0]);
            octets.extend(ethertype.to_be_bytes());
        }
        Kind::Gre { checksum: true } => {
            octets.extend(CHECKSUM_PRESENT.to_be_bytes());
            octets.extend(ethertype.to_be_bytes());
            octets.extend([0; 4]);
        }
        // The UDP checksum is the kernel's; whoever takes packets without one takes those with one.
        Kind::Gue {
            checksum: TunnelChecksum::None | TunnelChecksum::Full | TunnelChecksum::Remote,
            ..
        } => octets.extend([0, if v4 { 4 } else { 41 }, 0, 0]),
    }
    octets.extend_from_slice(packet);
    if matches!(kind, Kind::Gre { checksum: true }) {
        let sum = checksum(&octets);
        octets[4..6].copy_from_slice(&sum.to_be_bytes());
    }
    octets
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let pairs = octets.chunks(2);
    let words =
        pairs.map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_header() {
        let four = [0x45, 1, 2, 3];
        let six = [0x60, 1, 2, 3];
        let gue = |checksum| Kind::Gue {
            port: 6080,
            checksum,
        };
        // (given, then): the header; the packet follows.
        for (kind, packet, header) in [
            (Kind::Ipip, four, vec![]),
            (Kind::Gre { checksum: false }, four, vec![0, 0, 8, 0]),
            (Kind::Gre { checksum: false }, six, vec![0, 0, 0x86, 0xdd]),
            // 0x8000 + 0x0800 + 0x4501 + 0x0203 = 0xcf04
            (
                Kind::Gre { checksum: true },
                four,
                vec![0x80, 0, 8, 0, 0x30, 0xfb, 0, 0],
            ),
            (gue(TunnelChecksum::None), four, vec![0, 4, 0, 0]),
            (gue(TunnelChecksum::Remote), six, vec![0, 41, 0, 0]),
        ] {
            let expected = [&header[..], &packet[..]].concat();
            assert_eq!(wrap(kind, &packet), expected, "{kind:?} {packet:?}");
        }
    }
}
