//! The address plan of every lab.
//!
//! ```text
//!   clients c1…       10.1.0.10+i   fd01::10+i  sources beside it: 10.1.0.150+n  fd01::150+n
//!   front network     10.1.0.0/24   fd01::/64        VIPs: 10.1.0.100+n  fd01::100+n
//!   balancer lb       eth0 = 10.1.0.1, fd01::1       eth1 = 10.2.0.1, fd02::1
//!   back network      10.2.0.0/24   fd02::/64        proxy-src: 10.2.0.200+n  fd02::200+n
//!   servers s1…       10.2.0.10+i   fd02::10+i
//!   router rt         10.1.0.254    fd01::254  and   10.2.0.254  fd02::254
//! ```
//!
//! Numbers in IPv6 addresses are written in decimal digits on purpose (`fd02::11` is server 1 as 10.2.0.11 is).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Family;

/// The networks of a lab; the number is the second byte (10.**n**.0.0/24) and the first word (fd0**n**::/64).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// Where clients and VIPs are.
    Front = 1,
    /// Where servers and `proxy-src` addresses are.
    Back = 2,
    /// Servers behind a narrow hop.
    FarBack = 3,
    /// The narrow hop itself.
    Narrow = 4,
    /// Clients behind a narrow hop.
    FarFront = 5,
}

impl Net {
    /// Host `number` (1..=254) in this network.
    pub fn host(self, family: Family, number: u8) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, self as u8, 0, number).into(),
            Family::V6 => {
                // 11 becomes 0x11.
                let digits = u16::from_str_radix(&number.to_string(), 16)
                    .expect("decimal digits are hexadecimal");
                Ipv6Addr::new(0xfd00 + self as u16, 0, 0, 0, 0, 0, 0, digits).into()
            }
        }
    }

    /// The whole network with its prefix length.
    pub fn cidr(self, family: Family) -> String {
        match family {
            Family::V4 => format!("10.{}.0.0/24", self as u8),
            Family::V6 => format!("fd{:02}::/64", self as u8),
        }
    }
}

/// Prefix length of all networks.
pub fn prefix_length(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// An address as it stands before a port or in a URL: IPv6 in brackets.
pub fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_show_the_same_digits() {
        assert_eq!(Net::Back.host(Family::V4, 11).to_string(), "10.2.0.11");
        assert_eq!(Net::Back.host(Family::V6, 11).to_string(), "fd02::11");
        assert_eq!(Net::Front.host(Family::V6, 254).to_string(), "fd01::254");
        assert_eq!(Net::Front.cidr(Family::V6), "fd01::/64");
    }
}
