//! Advertisements over raw sockets, raw(7) and ipv6(7): one an instance, bound to its interface.

use std::io::{self, IoSliceMut, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use nix::cmsg_space;
use nix::libc::in6_pktinfo;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Bytes of an IPv4 header without options.
const IPV4_HEADER: usize = 20;
/// Internet control, as routing protocols have it (RFC 4594 section 3.2).
const CLASS: u8 = 0xc0;
/// `IP_DF` of the flags and the offset.
const DO_NOT_FRAGMENT: u16 = 0x4000;
/// Longest packet that is read; a longer one is none of ours.
const LONGEST: usize = 4096;

/// A packet of the protocol, its IP header read and removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Its source address.
    pub from: IpAddr,
    /// Where it was sent to.
    pub to: IpAddr,
    /// TTL or hop limit.
    pub hops: u8,
    /// What is behind the IP header.
    pub bytes: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct VrrpSocket {
    /// Tokio's name for a socket that sends and receives packets, whatever their protocol.
    socket: UdpSocket,
    source: IpAddr,
    index: u32,
}

impl VrrpSocket {
    /// Opens one that sends from `source`, and joins the group unless advertisements are unicast. Needs a running tokio
    /// runtime and CAP_NET_RAW.
    ///
    /// # Errors
    /// What the system says, as of an address that is not usable yet.
    pub fn open(name: &str, index: u32, source: IpAddr, multicast: bool) -> io::Result<VrrpSocket> {
        VrrpSocket::make(name, index, source, multicast, false)
    }

    fn make(
        name: &str,
        index: u32,
        source: IpAddr,
        multicast: bool,
        elsewhere: bool,
    ) -> io::Result<VrrpSocket> {
        let protocol = Protocol::from(i32::from(vrrp_rs::PROTOCOL));
        let hops = u32::from(vrrp_rs::HOPS);
        let socket = Socket::new(
            Domain::for_address((source, 0).into()),
            Type::RAW,
            Some(protocol),
        )?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(name.as_bytes()))?;
        match source {
            IpAddr::V4(_) => {
                // Bound to its address it would not hear multicasts; so it writes the header by itself.
                socket.set_header_included_v4(true)?;
                socket.set_multicast_all_v4(false)?;
                socket.set_multicast_loop_v4(false)?;
                if multicast {
                    let interface = InterfaceIndexOrAddress::Index(index);
                    socket.join_multicast_v4_n(&vrrp_rs::GROUP_V4, &interface)?;
                }
            }
            IpAddr::V6(address) => {
                socket.set_multicast_all_v6(false)?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_hops_v6(hops)?;
                socket.set_unicast_hops_v6(hops)?;
                socket.set_tclass_v6(u32::from(CLASS))?;
                socket.set_multicast_if_v6(index)?;
                setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
                if multicast {
                    socket.join_multicast_v6(&vrrp_rs::GROUP_V6, index)?;
                }
                if elsewhere {
                    socket.set_freebind_v6(true)?;
                }
                socket.bind(&SocketAddr::from(scoped(address, index)).into())?;
            }
        }
        Ok(VrrpSocket {
            socket: UdpSocket::from_std(socket.into())?,
            source,
            index,
        })
    }

    /// One that only sends, by an interface that has not the address that it sends from.
    ///
    /// # Errors
    /// What the system says.
    pub fn from_elsewhere(name: &str, index: u32, source: IpAddr) -> io::Result<VrrpSocket> {
        VrrpSocket::make(name, index, source, false, true)
    }

    /// Sends what stands behind the IP header.
    ///
    /// # Errors
    /// What the system says; there is no waiting, as a late advertisement is none.
    pub fn send(&self, to: IpAddr, message: &[u8]) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        let sent = match (self.source, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let packet = [&ipv4_header(from, to, message.len())[..], message].concat();
                socket.send_to(&packet, &SocketAddr::new(to.into(), 0).into())
            }
            (IpAddr::V6(_), IpAddr::V6(to)) => {
                let to = SocketAddr::from(scoped(to, self.index));
                socket.send_to(message, &to.into())
            }
            _ => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        sent.map(drop)
    }

    /// The next packet. One that cannot be read at all is left out.
    ///
    /// # Errors
    /// What the system says, as when the interface is gone.
    pub async fn receive(&self) -> io::Result<Packet> {
        loop {
            let read = self.socket.async_io(Interest::READABLE, || {
                let socket = SockRef::from(&self.socket);
                match self.source {
                    IpAddr::V4(_) => read_v4(&socket),
                    IpAddr::V6(_) => read_v6(&socket),
                }
            });
            if let Some(packet) = read.await? {
                return Ok(packet);
            }
        }
    }
}

/// An address with the interface that it is meant on, if that matters.
fn scoped(address: Ipv6Addr, index: u32) -> SocketAddrV6 {
    let local = address.is_unicast_link_local() || address.is_multicast();
    SocketAddrV6::new(address, 0, 0, if local { index } else { 0 })
}

/// The kernel adds what is missing: identification and checksum.
fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr, length: usize) -> [u8; IPV4_HEADER] {
    let mut header = [0; IPV4_HEADER];
    header[0] = 0x45;
    header[1] = CLASS;
    let total = u16::try_from(IPV4_HEADER + length).unwrap_or(u16::MAX);
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[6..8].copy_from_slice(&DO_NOT_FRAGMENT.to_be_bytes());
    header[8] = vrrp_rs::HOPS;
    header[9] = vrrp_rs::PROTOCOL;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    header
}

fn read_v4(mut socket: &Socket) -> io::Result<Option<Packet>> {
    let mut buffer = [0; LONGEST];
    let length = socket.read(&mut buffer)?;
    Ok(parse_v4(&buffer[..length]))
}

/// A raw IPv4 socket gives the header, too.
fn parse_v4(packet: &[u8]) -> Option<Packet> {
    let header = packet.first_chunk::<IPV4_HEADER>()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets).into())
    };
    Some(Packet {
        from: address(12)?,
        to: address(16)?,
        hops: header[8],
        bytes: packet.get(length.max(IPV4_HEADER)..)?.to_vec(),
    })
}

fn read_v6(socket: &Socket) -> io::Result<Option<Packet>> {
    let mut buffer = [0; LONGEST];
    let mut space = cmsg_space!(i32, in6_pktinfo);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let fd = socket.as_raw_fd();
    let message = recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut space), MsgFlags::empty())?;
    let from = message.address.map(|address| IpAddr::from(address.ip()));
    let (mut to, mut hops) = (None, None);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv6HopLimit(limit) => hops = u8::try_from(limit).ok(),
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                to = Some(IpAddr::from(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
            }
            _ => {}
        }
    }
    let length = message.bytes;
    let whole = from.zip(to).zip(hops);
    Ok(whole.map(|((from, to), hops)| Packet {
        from,
        to,
        hops,
        bytes: buffer[..length].to_vec(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_ipv4_is_read_as_it_is_written() {
        let (from, to) = (Ipv4Addr::new(192, 0, 2, 1), vrrp_rs::GROUP_V4);
        let packet = [&ipv4_header(from, to, 3)[..], &[7, 8, 9]].concat();
        let expected = Packet {
            from: from.into(),
            to: to.into(),
            hops: 255,
            bytes: vec![7, 8, 9],
        };
        assert_eq!(parse_v4(&packet), Some(expected));
    }

    #[test]
    fn what_is_cut_short_or_lies_about_its_length_is_left_out() {
        let from = Ipv4Addr::new(192, 0, 2, 1);
        let mut packet = ipv4_header(from, from, 0).to_vec();
        assert_eq!(parse_v4(&packet[..19]), None);
        packet[0] = 0x4f;
        assert_eq!(parse_v4(&packet), None);
        packet[0] = 0x40;
        assert!(parse_v4(&packet).unwrap().bytes.is_empty());
    }
}
