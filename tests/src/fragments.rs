//! UDP datagrams in fragments of our own making, in any order: the kernel sends them only in the right one.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::{Family, load, raw};

/// Bytes of each fragment but the last, of the datagram.
const PIECE: usize = 1200;
const UDP: u8 = 17;
/// IPv6 next header.
const FRAGMENT: u8 = 44;
const HOPS: u8 = 64;

/// The fragments of one datagram.
fn fragments(from: SocketAddr, to: SocketAddr, id: u16, payload: &[u8]) -> Vec<Vec<u8>> {
    let length = 8 + payload.len();
    let mut datagram = Vec::new();
    for word in [from.port(), to.port(), length as u16, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend(payload);
    let pseudo = raw::pseudo_header(from.ip(), to.ip(), UDP, length);
    // Zero would be no checksum.
    let checksum = match !raw::sum(&[&pseudo, &datagram]) {
        0 => 0xffff,
        checksum => checksum,
    };
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    let pieces = datagram.chunks(PIECE).count();
    datagram
        .chunks(PIECE)
        .enumerate()
        .map(|(n, piece)| {
            let more = n + 1 < pieces;
            let mut packet = header(from.ip(), to.ip(), id, n * PIECE, more, piece.len());
            packet.extend(piece);
            packet
        })
        .collect()
}

fn header(from: IpAddr, to: IpAddr, id: u16, offset: usize, more: bool, length: usize) -> Vec<u8> {
    let units = (offset / 8) as u16;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut bytes = vec![0x45, 0];
            for word in [20 + length as u16, id, units | u16::from(more) << 13] {
                bytes.extend(word.to_be_bytes());
            }
            // The kernel fills in the checksum.
            bytes.extend([HOPS, UDP, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            bytes
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut bytes = vec![0x60, 0, 0, 0];
            bytes.extend((8 + length as u16).to_be_bytes());
            bytes.extend([FRAGMENT, HOPS]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            bytes.extend([UDP, 0]);
            bytes.extend((units << 3 | u16::from(more)).to_be_bytes());
            bytes.extend(u32::from(id).to_be_bytes());
            bytes
        }
        _ => unreachable!("a packet has one family"),
    }
}

/// Sends a datagram in fragments, the last one first, `gap` apart, and waits up to two seconds for the echo's answer.
/// Gives the server's name.
pub fn ask_backwards(
    from: IpAddr,
    target: SocketAddr,
    id: u16,
    payload: &[u8],
    gap: Duration,
) -> Result<String, String> {
    let socket = UdpSocket::bind((load::unspecified(target.ip()), 0))
        .and_then(|socket| {
            socket.connect(target)?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            Ok(socket)
        })
        .map_err(|error| format!("socket: {error}"))?;
    let port = socket
        .local_addr()
        .map_err(|error| format!("socket: {error}"))?
        .port();
    let sender = raw::sender(Family::of(from)).map_err(|error| format!("raw socket: {error}"))?;
    let to = SocketAddr::new(target.ip(), 0).into();
    for packet in fragments((from, port).into(), target, id, payload)
        .iter()
        .rev()
    {
        sender
            .send_to(packet, &to)
            .map_err(|error| format!("send: {error}"))?;
        std::thread::sleep(gap);
    }
    let mut buffer = vec![0; 65_536];
    let length = socket
        .recv(&mut buffer)
        .map_err(|error| format!("receive: {error}"))?;
    let text = &buffer[..length];
    match text.iter().position(|byte| *byte == b' ') {
        Some(space) if &text[space + 1..] == payload => {
            Ok(String::from_utf8_lossy(&text[..space]).into_owned())
        }
        _ => Err(format!("{length} bytes that are no answer")),
    }
}
