//! One representation for addresses of both families: 128 bits, IPv4 as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2),
//! so that tables and hashes have one key type.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address in 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Addr(pub u128);

const MAPPED: u128 = 0xffff << 32;

impl Addr {
    /// From the four bytes of an IPv4 header field, in network order.
    #[inline(always)]
    pub fn v4(bytes: [u8; 4]) -> Addr {
        Addr(MAPPED | u32::from_be_bytes(bytes) as u128)
    }

    /// From the sixteen bytes of an IPv6 header field, in network order.
    #[inline(always)]
    pub fn v6(bytes: [u8; 16]) -> Addr {
        Addr(u128::from_be_bytes(bytes))
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub fn is_v4(self) -> bool {
        self.0 >> 32 == 0xffff
    }

    /// The four bytes of an IPv4 address in network order; the low four of an IPv6 one.
    #[inline(always)]
    pub fn v4_bytes(self) -> [u8; 4] {
        (self.0 as u32).to_be_bytes()
    }

    /// The sixteen bytes in network order.
    #[inline(always)]
    pub fn v6_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// First and last address of the network of the first `len` bits (0..=32 or 0..=128) of this address.
    #[inline]
    pub fn network(self, len: u8) -> (Addr, Addr) {
        let hosts = match self.is_v4() {
            true => u32::MAX.checked_shr(len as u32).unwrap_or(0) as u128,
            false => u128::MAX.checked_shr(len as u32).unwrap_or(0),
        };
        (Addr(self.0 & !hosts), Addr(self.0 | hosts))
    }

    /// The upper half.
    #[inline(always)]
    pub fn high(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// The lower half.
    #[inline(always)]
    pub fn low(self) -> u64 {
        self.0 as u64
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Addr {
        match address {
            IpAddr::V4(v4) => Addr::v4(v4.octets()),
            IpAddr::V6(v6) => Addr::v6(v6.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(address: Addr) -> IpAddr {
        if address.is_v4() {
            IpAddr::V4(Ipv4Addr::from(address.v4_bytes()))
        } else {
            IpAddr::V6(Ipv6Addr::from(address.v6_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_both_families() {
        for text in ["192.0.2.1", "0.0.0.0", "2001:db8::1", "::", "fe80::1"] {
            let address: IpAddr = text.parse().unwrap();
            let addr = Addr::from(address);
            assert_eq!(IpAddr::from(addr), address);
            assert_eq!(addr.is_v4(), address.is_ipv4());
        }
    }
}
