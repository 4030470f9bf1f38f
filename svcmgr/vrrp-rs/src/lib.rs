//! The Virtual Router Redundancy Protocol: its packets ([`packet`]) and its state machine ([`machine`]), versions 3
//! (RFC 9568) and 2 (RFC 3768), for IPv4 and IPv6; and what tells a network who has an address now ([`announce`]).
//!
//! Pure: no sockets, no clock, no threads, no allocation beyond the list of addresses of a packet. Whoever uses it
//! receives packets, hands them in with the time, does what the machine says ([`Action`]), and comes back at
//! [`Machine::deadline`]. So every transition can be tested, and a network of any number of nodes simulated.
//!
//! What "Master" was in older documents is *Active* here, as in RFC 9568.
//!
//! ```
//! use std::time::Duration;
//! use vrrp_rs::{Action, Config, Event, Interval, Machine, State, Version};
//!
//! let config = Config {
//!     priority: 100,
//!     interval: Interval::centiseconds(10).unwrap(),
//!     ..Config::new(Version::V3, 51, "192.0.2.2".parse().unwrap(), vec!["192.0.2.80".parse().unwrap()])
//! };
//! let mut machine = Machine::new(config).unwrap();
//! let start = Duration::from_secs(1000);
//! machine.handle(start, Event::Startup);
//! assert_eq!(machine.state(), State::Backup);
//!
//! // Nobody is heard for three intervals and the skew time: it takes over.
//! let deadline = machine.deadline().unwrap();
//! assert_eq!(deadline - start, Duration::from_nanos(360_937_500));
//! let actions = machine.handle(deadline, Event::Timer);
//! assert_eq!(machine.state(), State::Active);
//! assert!(matches!(actions[0], Action::Send { priority: 100 }));
//! let bytes = machine.advertisement(100).encode(machine.config().source, "224.0.0.18".parse().unwrap());
//! assert_eq!(bytes.unwrap()[..4], [0x31, 51, 100, 1]);
//! ```

#![forbid(unsafe_code)]

pub mod announce;
mod checksum;
pub mod machine;
pub mod packet;

pub use machine::{Action, Config, ConfigError, Event, Machine, Refusal, State, Why};
pub use packet::{
    Advertisement, Authentication, ChecksumForm, DecodeError, EncodeError, Interval, Version,
};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol number (RFC 9568 section 5.1.1.4).
pub const PROTOCOL: u8 = 112;

/// TTL or hop limit of every packet; others are refused (RFC 9568 sections 5.1.1.3 and 5.1.2.3).
pub const HOPS: u8 = 255;

/// Group that IPv4 advertisements are sent to (RFC 9568 section 5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Group that IPv6 advertisements are sent to (RFC 9568 section 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// The group of the family of `address`.
pub const fn group_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(GROUP_V4),
        IpAddr::V6(_) => IpAddr::V6(GROUP_V6),
    }
}

/// The virtual router's MAC address (RFC 9568 section 7.3).
pub const fn virtual_mac(vrid: u8, v6: bool) -> [u8; 6] {
    [0x00, 0x00, 0x5e, 0x00, if v6 { 0x02 } else { 0x01 }, vrid]
}
