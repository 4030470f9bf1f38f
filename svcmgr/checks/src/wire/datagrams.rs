//! Datagrams and echoes to the VIP through one server.

use std::io;
use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr, UdpPacket,
    UdpRepr,
};

use super::packet::{ICMP, UDP};
use super::{Heard, Path, Registration};

/// As that of the kernel.
const HOPS: u8 = 64;
const UDP_HEADER: usize = 8;

/// A UDP socket, as it were, that is connected.
#[derive(Debug)]
pub struct Datagrams {
    path: Path,
    registration: Registration,
    place: SocketAddr,
}

impl Path {
    /// Datagrams to and from one place.
    pub(crate) fn datagrams(&self, place: SocketAddr) -> io::Result<Datagrams> {
        Ok(Datagrams {
            path: self.clone(),
            registration: self.register(UDP, place.ip())?,
            place,
        })
    }

    fn header(&self, to: IpAddr, protocol: IpProtocol, length: usize) -> IpRepr {
        IpRepr::new(self.local.into(), to.into(), protocol, length, HOPS)
    }
}

impl Datagrams {
    /// Sends one.
    pub fn send(&self, payload: &[u8]) -> io::Result<()> {
        let length = UDP_HEADER + payload.len();
        if length > self.path.mtu {
            return Err(io::Error::from_raw_os_error(nix::libc::EMSGSIZE));
        }
        let to = self.place.ip();
        let ip = self.path.header(to, IpProtocol::Udp, length);
        let udp = UdpRepr {
            src_port: self.registration.key.port,
            dst_port: self.place.port(),
        };
        let checksums = ChecksumCapabilities::default();
        let mut packet = vec![0; ip.buffer_len()];
        ip.emit(&mut packet[..], &checksums);
        udp.emit(
            &mut UdpPacket::new_unchecked(&mut packet[ip.header_len()..]),
            &self.path.local.into(),
            &IpAddress::from(to),
            payload.len(),
            |octets| octets.copy_from_slice(payload),
            &checksums,
        );
        self.path.send(&packet)
    }

    /// Waits for one; what does not fit into the buffer is lost.
    pub async fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let packet = match self.registration.receiver.recv().await {
                Some(Heard::Packet(packet)) => packet,
                Some(Heard::Error(errno)) => return Err(Heard::error(errno)),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            let header = match packet.first().map(|first| first >> 4) {
                Some(4) => usize::from(packet[0] & 15) * 4,
                _ => 40,
            };
            let Some(datagram) = packet
                .get(header..)
                .and_then(|octets| UdpPacket::new_checked(octets).ok())
            else {
                continue;
            };
            // From the port that was asked, as with a connected socket.
            if datagram.src_port() != self.place.port() {
                continue;
            }
            let payload = datagram.payload();
            let length = payload.len().min(buffer.len());
            buffer[..length].copy_from_slice(&payload[..length]);
            return Ok(length);
        }
    }
}

/// Sends an echo and waits for the answer, for as long as the caller likes.
pub async fn echo(path: &Path, to: IpAddr) -> io::Result<()> {
    let mut registration = path.register(ICMP, to)?;
    let (ident, seq_no, data) = (registration.key.port, 1, &b"ilb-check"[..]);
    let checksums = ChecksumCapabilities::default();
    let packet = match (path.local, to) {
        (IpAddr::V4(_), _) => {
            let icmp = Icmpv4Repr::EchoRequest {
                ident,
                seq_no,
                data,
            };
            let ip = path.header(to, IpProtocol::Icmp, icmp.buffer_len());
            let mut packet = vec![0; ip.buffer_len()];
            ip.emit(&mut packet[..], &checksums);
            let mut behind = Icmpv4Packet::new_unchecked(&mut packet[ip.header_len()..]);
            icmp.emit(&mut behind, &checksums);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(vip)) => {
            let icmp = Icmpv6Repr::EchoRequest {
                ident,
                seq_no,
                data,
            };
            let ip = path.header(to, IpProtocol::Icmpv6, icmp.buffer_len());
            let mut packet = vec![0; ip.buffer_len()];
            ip.emit(&mut packet[..], &checksums);
            let mut behind = Icmpv6Packet::new_unchecked(&mut packet[ip.header_len()..]);
            icmp.emit(&from, &vip, &mut behind, &checksums);
            packet
        }
        (IpAddr::V6(_), IpAddr::V4(_)) => {
            return Err(io::Error::from_raw_os_error(nix::libc::EAFNOSUPPORT));
        }
    };
    path.send(&packet)?;
    match registration.receiver.recv().await {
        Some(Heard::Packet(_)) => Ok(()),
        Some(Heard::Error(errno)) => Err(Heard::error(errno)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
