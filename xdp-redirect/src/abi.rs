//! The layout of keys and values in the maps: the Rust side of `src/bpf/shared.h`.

use std::mem::{offset_of, size_of};
use std::net::IpAddr;

include!(concat!(env!("OUT_DIR"), "/constants.rs"));

/// `struct ilb_range`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub first: u16,
    pub last: u16,
}

impl Range {
    /// Holds no port.
    pub const NONE: Range = Range { first: 1, last: 0 };
}

/// `struct ilb_ports`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub kind: u32,
    pub bitmap: u32,
    pub ranges: [Range; INLINE_RANGES as usize],
}

/// `struct ilb_key4`, only for its size; keys are written by [`key`].
#[repr(C)]
struct Key4 {
    address: [u8; 4],
    protocol: u8,
    zero: [u8; 3],
}

/// `struct ilb_key6`, only for its size; keys are written by [`key`].
#[repr(C)]
struct Key6 {
    address: [u8; 16],
    protocol: u8,
    zero: [u8; 3],
}

/// `struct ilb_counters`, only for its size and offsets.
#[repr(C)]
pub struct RawCounters {
    pub passed: u64,
    pub malformed: u64,
    pub redirected: u64,
    pub unserved: u64,
    pub fragments: u64,
    pub icmp_errors: u64,
    pub closed: u64,
    pub closed_bytes: u64,
}

const _: () = assert!(size_of::<Key4>() == KEY4_SIZE as usize);
const _: () = assert!(size_of::<Key6>() == KEY6_SIZE as usize);
const _: () = assert!(size_of::<Ports>() == PORTS_SIZE as usize);
const _: () = assert!(size_of::<RawCounters>() == COUNTERS_SIZE as usize);
const _: () = assert!(BITMAP_WORDS * 8 == BITMAP_SIZE);

/// `struct ilb_settings`: how many addresses are closed.
pub fn settings(closed: u32) -> [u8; SETTINGS_SIZE as usize] {
    closed.to_ne_bytes()
}

/// `struct ilb_address`: an address of either family.
pub fn address(address: IpAddr) -> [u8; ADDRESS_SIZE as usize] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The address of a `struct ilb_address`; `None` if it has another length.
pub fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    let octets = <[u8; ADDRESS_SIZE as usize]>::try_from(bytes).ok()?;
    Some(IpAddr::from(octets).to_canonical())
}

/// The key of an address and protocol: 8 bytes for IPv4, 20 for IPv6.
pub fn key(address: IpAddr, protocol: u8) -> Vec<u8> {
    let mut key = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    key.extend([protocol, 0, 0, 0]);
    key
}

/// The address and protocol of a key; `None` if it has neither length.
pub fn parse_key(key: &[u8]) -> Option<(IpAddr, u8)> {
    let (address, protocol) = key.split_at_checked(key.len().checked_sub(4)?)?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        _ => return None,
    };
    Some((address, protocol[0]))
}

impl Ports {
    /// The bytes of the value in the map.
    pub fn to_bytes(self) -> [u8; PORTS_SIZE as usize] {
        let mut bytes = [0; PORTS_SIZE as usize];
        let mut put = |offset: usize, value: &[u8]| {
            bytes[offset..offset + value.len()].copy_from_slice(value)
        };
        put(offset_of!(Ports, kind), &self.kind.to_ne_bytes());
        put(offset_of!(Ports, bitmap), &self.bitmap.to_ne_bytes());
        for (index, range) in self.ranges.iter().enumerate() {
            let at = offset_of!(Ports, ranges) + index * size_of::<Range>();
            put(at + offset_of!(Range, first), &range.first.to_ne_bytes());
            put(at + offset_of!(Range, last), &range.last.to_ne_bytes());
        }
        bytes
    }

    /// The value in these bytes; `None` if there are too few.
    pub fn from_bytes(bytes: &[u8]) -> Option<Ports> {
        let get_u32 =
            |offset: usize| Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?));
        let get_u16 =
            |offset: usize| Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?));
        let mut ranges = [Range::NONE; INLINE_RANGES as usize];
        for (index, range) in ranges.iter_mut().enumerate() {
            let at = offset_of!(Ports, ranges) + index * size_of::<Range>();
            range.first = get_u16(at + offset_of!(Range, first))?;
            range.last = get_u16(at + offset_of!(Range, last))?;
        }
        Some(Ports {
            kind: get_u32(offset_of!(Ports, kind))?,
            bitmap: get_u32(offset_of!(Ports, bitmap))?,
            ranges,
        })
    }
}

/// The 64-bit number at `offset` of a value; 0 if the value is shorter.
pub fn read_u64(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |chunk| u64::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_survive_their_bytes() {
        for text in ["192.0.2.1", "2001:db8::1"] {
            let one: IpAddr = text.parse().expect("an address");
            assert_eq!(parse_key(&key(one, 17)), Some((one, 17)));
        }
        for text in ["192.0.2.1", "2001:db8::1", "::", "0.0.0.0"] {
            let one: IpAddr = text.parse().expect("an address");
            assert_eq!(parse_address(&address(one)), Some(one));
        }
        assert_eq!(parse_address(&[0; 4]), None);
        assert_eq!(parse_key(&[0; 7]), None);
        assert_eq!(parse_key(&[]), None);

        let range = Range {
            first: 0x1234,
            last: 0xfedc,
        };
        let ports = Ports {
            kind: PORTS_RANGES,
            bitmap: 7,
            ranges: [range, Range::NONE, Range::NONE, range],
        };
        assert_eq!(Ports::from_bytes(&ports.to_bytes()), Some(ports));
        assert_eq!(Ports::from_bytes(&ports.to_bytes()[..23]), None);
    }
}
