//! Builds frames byte by byte, right and wrong ones.

use std::net::IpAddr;

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Fragment bits of IPv4: more fragments follow.
pub const MORE: u16 = 0x2000;

/// MAC address of the balancer's interface in tests.
pub const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
/// MAC address of the other side.
pub const THEIR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

pub fn address(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// An Ethernet frame.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(OUR_MAC);
    frame.extend(THEIR_MAC);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An Ethernet frame around an IP packet.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    let version = packet.first().map(|byte| byte >> 4);
    ethernet(
        if version == Some(6) {
            ETHERTYPE_IPV6
        } else {
            ETHERTYPE_IPV4
        },
        packet,
    )
}

/// What an IP header says besides addresses.
#[derive(Debug, Clone, Default)]
pub struct Header {
    /// IPv4: the flags and fragment offset field.
    pub fragment: u16,
    /// IPv4: options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6: extension headers, each its number and its bytes, of which the first becomes the next header field.
    pub extensions: Vec<(u8, Vec<u8>)>,
}

/// An IP packet without special features.
pub fn packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    packet_with(&Header::default(), source, destination, protocol, payload)
}

/// An IP packet of the family of `destination`.
pub fn packet_with(
    header: &Header,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = 20 + header.options.len() + payload.len();
            packet.extend([0x40 | (5 + header.options.len() / 4) as u8, 0]);
            packet.extend((length as u16).to_be_bytes());
            packet.extend([0, 1]);
            packet.extend(header.fragment.to_be_bytes());
            packet.extend([64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(&header.options);
            let sum = checksum(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut extensions = Vec::new();
            let numbers = header.extensions.iter().map(|(number, _)| *number);
            let following = numbers.clone().skip(1).chain([protocol]);
            for ((_, bytes), next) in header.extensions.iter().zip(following) {
                extensions.push(next);
                extensions.extend(&bytes[1..]);
            }
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(((extensions.len() + payload.len()) as u16).to_be_bytes());
            packet.push(numbers.clone().next().unwrap_or(protocol));
            packet.push(64);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(&extensions);
        }
        _ => panic!("{source} and {destination} are of different families"),
    }
    packet.extend(payload);
    packet
}

/// An IPv6 extension header of this many bytes; its first byte is filled in by [`packet_with`].
pub fn extension(number: u8, length: usize) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; length];
    // RFC 4302 section 2.2 against RFC 8200 section 4
    bytes[1] = if number == 51 {
        length / 4 - 2
    } else {
        length / 8 - 1
    } as u8;
    (number, bytes)
}

/// An IPv6 fragment header; `offset` in units of 8 bytes.
pub fn fragment_header(offset: u16, more: bool) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; 8];
    bytes[2..4].copy_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
    (44, bytes)
}

/// A TCP or UDP header, as far as the program is concerned, with some data.
pub fn ports(source: u16, destination: u16) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    bytes[..2].copy_from_slice(&source.to_be_bytes());
    bytes[2..4].copy_from_slice(&destination.to_be_bytes());
    bytes
}

/// An ICMP or ICMPv6 message.
pub fn icmp(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0, 0, 0, 0, 0];
    bytes.extend(body);
    bytes
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
