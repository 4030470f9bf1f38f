//! Raw IP sockets, for protocols that the kernel here does not speak and for packets that it would not make.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Family;

/// `IPPROTO_RAW`: packets come with their IP header (raw(7), ipv6(7)).
const WHOLE: i32 = 255;

/// A socket for packets of one protocol, bound to an address or to none.
pub fn open(
    family: Family,
    protocol: i32,
    local: Option<IpAddr>,
    patience: Duration,
) -> io::Result<Socket> {
    let socket = Socket::new(domain(family), Type::RAW, Some(Protocol::from(protocol)))?;
    if let Some(local) = local {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}

/// A socket for whole packets to be sent, IP header and all.
pub fn sender(family: Family) -> io::Result<Socket> {
    Socket::new(domain(family), Type::RAW, Some(Protocol::from(WHOLE)))
}

fn domain(family: Family) -> Domain {
    match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    }
}

/// The next packet, without its IP header, and who sent it.
pub fn receive(socket: &Socket) -> io::Result<(Vec<u8>, IpAddr)> {
    let mut bytes = vec![0; 65_536];
    let (length, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut bytes)?;
    bytes.truncate(length);
    let from = from.and_then(|from| {
        let v4 = from.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| from.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    let from = from.ok_or(io::ErrorKind::InvalidData)?;
    // IPv4 raw sockets give the IP header, too.
    if from.is_ipv4() {
        let header = bytes
            .first()
            .map_or(0, |first| usize::from(first & 0xf) * 4);
        bytes.drain(..header.min(length));
    }
    Ok((bytes, from))
}

/// Ones' complement sum over big-endian words (RFC 1071); 0xffff over a whole whose checksum is right.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    for part in parts {
        for word in part.chunks(2) {
            total += u64::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u64::from(low));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The pseudo-header (RFC 768, RFC 8200 section 8.1) as bytes to be summed.
pub fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}
