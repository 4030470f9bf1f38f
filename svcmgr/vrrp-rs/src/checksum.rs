//! The Internet checksum (RFC 1071), with and without the pseudo-headers of IPv4 (RFC 793 section 3.1) and IPv6 (RFC 8200
//! section 8.1).

use std::net::IpAddr;

use crate::PROTOCOL;

/// A sum that is being added up.
#[derive(Clone, Copy, Default)]
pub struct Sum(u32);

impl Sum {
    /// Adds bytes; an odd last one is the high half of a word.
    pub fn bytes(mut self, bytes: &[u8]) -> Sum {
        for pair in bytes.chunks(2) {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            self.0 += u32::from(word);
            self.0 = (self.0 & 0xffff) + (self.0 >> 16);
        }
        self
    }

    /// Adds the pseudo-header of a message of `length` bytes.
    pub fn pseudo_header(self, source: IpAddr, destination: IpAddr, length: usize) -> Sum {
        let address = |sum: Sum, address: IpAddr| match address {
            IpAddr::V4(address) => sum.bytes(&address.octets()),
            IpAddr::V6(address) => sum.bytes(&address.octets()),
        };
        let sum = address(address(self, source), destination);
        // The length is 16 bits under IPv4 and 32 under IPv6: the same for all that fits into a packet.
        sum.bytes(&(length as u32).to_be_bytes())
            .bytes(&[0, PROTOCOL])
    }

    /// What the checksum field has to be when the rest adds up to this.
    pub fn field(self) -> u16 {
        !(self.0 as u16)
    }

    /// Whether a message with its checksum in place adds up.
    pub fn is_right(self) -> bool {
        self.field() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.field(), !0xddf2);
    }

    #[test]
    fn an_odd_byte_counts_as_the_high_half() {
        let sum = Sum::default().bytes(&[0x12, 0x34, 0x56]);
        assert_eq!(sum.field(), !(0x1234 + 0x5600));
    }
}
