//! What tells a network who has an address now: gratuitous ARP (RFC 9568 section 6.4.1, RFC 5227 section 3) and unsolicited
//! neighbour advertisements (RFC 4861 section 7.2.6).

use std::net::{Ipv4Addr, Ipv6Addr};

/// Everybody on an Ethernet.
const BROADCAST: [u8; 6] = [0xff; 6];
/// `ETH_P_ARP`.
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Ethernet, IPv4, lengths of their addresses.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
const REQUEST: [u8; 2] = [0, 1];

/// ICMPv6 type of a neighbour advertisement (RFC 4861 section 4.4).
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Not solicited, not from a router, overrides what was known.
const OVERRIDE: u8 = 0x20;
/// Option with the sender's link-layer address, in units of eight bytes.
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];

/// All nodes of a link, whom neighbour advertisements go to.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// An Ethernet frame with a gratuitous ARP request: `mac` asks for the address that it has, and so tells everybody.
pub fn gratuitous_arp(mac: [u8; 6], address: Ipv4Addr) -> [u8; 42] {
    let mut frame = [0; 42];
    let parts: [&[u8]; 9] = [
        &BROADCAST,
        &mac,
        &ETHERTYPE_ARP,
        &ETHERNET_IPV4,
        &REQUEST,
        &mac,
        &address.octets(),
        &[0; 6],
        &address.octets(),
    ];
    let mut at = 0;
    for part in parts {
        frame[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    frame
}

/// An ICMPv6 message, its checksum left to the system, with an unsolicited neighbour advertisement: `address` is at `mac`.
pub fn neighbour_advertisement(mac: [u8; 6], address: Ipv6Addr) -> [u8; 32] {
    let mut message = [0; 32];
    message[0] = NEIGHBOUR_ADVERTISEMENT;
    message[4] = OVERRIDE;
    message[8..24].copy_from_slice(&address.octets());
    message[24..26].copy_from_slice(&TARGET_LINK_LAYER_ADDRESS);
    message[26..].copy_from_slice(&mac);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn a_gratuitous_arp_asks_everybody_for_its_own_address() {
        let frame = gratuitous_arp(MAC, Ipv4Addr::new(192, 0, 2, 80));
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // a request, of IPv4 over Ethernet
            2, 0, 0, 0, 0, 7, 192, 0, 2, 80, // sender
            0, 0, 0, 0, 0, 0, 192, 0, 2, 80, // target
        ];
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_neighbour_advertisement_overrides() {
        let message = neighbour_advertisement(MAC, "2001:db8::80".parse().unwrap());
        let expected = [
            136, 0, 0, 0, 0x20, 0, 0, 0, // type, code, checksum, flags
            0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, // target
            2, 1, 2, 0, 0, 0, 0, 7, // its link-layer address
        ];
        assert_eq!(message, expected);
    }
}
