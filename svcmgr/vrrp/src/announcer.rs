//! Tells the network of an interface that addresses are here now.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket};
use socket2::{Domain, Protocol, Socket, Type};
use vrrp_rs::announce::{ALL_NODES, gratuitous_arp, neighbour_advertisement};

/// Announces addresses, each once. An interface without Ethernet addresses has nobody to tell.
///
/// # Errors
/// What the system says of the first that could not be told.
pub fn announce(name: &str, link: &LinkAddr, addresses: &[IpAddr]) -> io::Result<()> {
    let Some(mac) = link.addr() else {
        return Ok(());
    };
    let mut arp = None;
    let mut neighbours = None;
    for address in addresses {
        match address {
            IpAddr::V4(address) => {
                let socket = match &arp {
                    Some(socket) => socket,
                    None => arp.insert(packet_socket(link)?),
                };
                let frame = gratuitous_arp(mac, *address);
                send(socket.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT)?;
            }
            IpAddr::V6(address) => {
                let index = u32::try_from(link.ifindex()).unwrap_or(0);
                let socket = match &neighbours {
                    Some(socket) => socket,
                    None => neighbours.insert(icmp_socket(name, index)?),
                };
                advertise(socket, index, mac, *address)?;
            }
        }
    }
    Ok(())
}

/// One that only sends, whole frames.
fn packet_socket(link: &LinkAddr) -> io::Result<std::os::fd::OwnedFd> {
    // Protocol 0 receives nothing; the interface comes with the address that the kernel gave us.
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    bind(socket.as_raw_fd(), link)?;
    Ok(socket)
}

fn icmp_socket(name: &str, index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_if_v6(index)?;
    Ok(socket)
}

fn advertise(socket: &Socket, index: u32, mac: [u8; 6], address: Ipv6Addr) -> io::Result<()> {
    let to = SocketAddr::from(SocketAddrV6::new(ALL_NODES, 0, 0, index));
    let message = neighbour_advertisement(mac, address);
    socket.send_to(&message, &to.into()).map(drop)
}
