//! Advertisements on the wire: RFC 9568 section 5.2 (version 3) and RFC 3768 section 5.3 (version 2).
//!
//! ```text
//! version 3                                          version 2
//! |version|type=1| vrid | priority | count |          |version|type=1| vrid | priority | count |
//! |  0  | max interval (cs) |    checksum   |          | auth type | interval (s) |  checksum   |
//! |               addresses                 |          |               addresses                |
//!                                                     |       authentication, 8 bytes          |
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::HOPS;
use crate::checksum::Sum;

/// Bytes before the addresses.
const HEADER: usize = 8;
/// Bytes of authentication behind the addresses of version 2, whatever the type.
const AUTHENTICATION: usize = 8;
/// The only type of packet that there is.
const TYPE: u8 = 1;

/// Version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// RFC 3768: IPv4 only, intervals of whole seconds.
    V2,
    /// RFC 9568.
    V3,
}

impl Version {
    /// 2 or 3.
    pub const fn number(self) -> u8 {
        match self {
            Version::V2 => 2,
            Version::V3 => 3,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VRRPv{}", self.number())
    }
}

/// Time between two advertisements, in the protocol's unit of ten milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u16);

impl Interval {
    /// One second.
    pub const SECOND: Interval = Interval(100);
    /// The longest one that version 3 can say: 40.95 seconds. Version 2: 255 seconds, of which this type holds 255.
    pub const MAX: u16 = 25_500;

    /// 1 to 25,500 hundredths of a second, of which version 3 can carry up to 4095 and version 2 whole seconds.
    pub const fn centiseconds(number: u16) -> Option<Interval> {
        match number {
            1..=Interval::MAX => Some(Interval(number)),
            _ => None,
        }
    }

    /// 1 to 255 seconds.
    pub const fn seconds(number: u8) -> Option<Interval> {
        Interval::centiseconds(number as u16 * 100)
    }

    /// In hundredths of a second.
    pub const fn as_centiseconds(self) -> u16 {
        self.0
    }

    /// As a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }

    /// Whether a version can carry it.
    pub const fn fits(self, version: Version) -> bool {
        match version {
            Version::V2 => self.0.is_multiple_of(100),
            Version::V3 => self.0 <= 4095,
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} s", self.0 / 100, self.0 % 100)
    }
}

/// How the checksum of version 3 over IPv4 is made. Both forms are accepted, one is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ChecksumForm {
    /// With a pseudo-header, as RFC 5798 was read and keepalived sends it.
    #[default]
    PseudoHeader,
    /// The VRRP message alone, as RFC 9568 section 5.2.8 says (and keepalived with `v3_checksum_as_v2`).
    MessageOnly,
}

/// What version 2 carries behind the addresses (RFC 3768 section 5.3.10 took it away, older speakers still use it).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Authentication {
    /// Type 0.
    #[default]
    None,
    /// Type 1: a password in clear text, which keeps nobody out who listens. Shorter ones are padded with zeros.
    Password([u8; AUTHENTICATION]),
}

impl Authentication {
    /// A password, of which the first eight bytes count.
    pub fn password(text: &str) -> Authentication {
        let mut bytes = [0; AUTHENTICATION];
        bytes
            .iter_mut()
            .zip(text.bytes())
            .for_each(|(to, from)| *to = from);
        Authentication::Password(bytes)
    }
}

/// One advertisement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// Version that it is or was sent as.
    pub version: Version,
    /// Virtual router, 1..=255.
    pub vrid: u8,
    /// 255: the sender owns the addresses; 0: it gives them up.
    pub priority: u8,
    /// Time until the sender's next one at the latest.
    pub interval: Interval,
    /// The virtual router's addresses, all of the family that the packet travels by, at most 255. Under IPv6 the
    /// first one is link-local.
    pub addresses: Vec<IpAddr>,
    /// Version 2 only.
    pub authentication: Authentication,
    /// Version 3 over IPv4 only: the form to send, or that was received.
    pub checksum: ChecksumForm,
}

/// Why an advertisement cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// VRID 0.
    #[error("VRID 0 is not allowed: 1 to 255 are")]
    Vrid,
    /// More addresses than the count can say, or none.
    #[error("{0} addresses cannot be advertised: 1 to 255 can")]
    Addresses(usize),
    /// An address that is not of the packet's family.
    #[error(
        "address {address} cannot be advertised from {source_address}: it is of the other family"
    )]
    Family {
        /// The address.
        address: IpAddr,
        /// Where the packet comes from.
        source_address: IpAddr,
    },
    /// An interval that the version has no number for.
    #[error("an interval of {interval} cannot be sent as {version}: {allowed}")]
    Interval {
        /// The interval.
        interval: Interval,
        /// The version.
        version: Version,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Version 2 knows no IPv6.
    #[error("VRRPv2 has no IPv6: use version 3")]
    Ipv6,
}

/// Why bytes are no advertisement that may be believed. In the order of the checks of RFC 9568 section 7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// It came from another network.
    #[error("TTL {0} instead of 255: it came from another network")]
    Hops(u8),
    /// Neither 2 nor 3, or version 2 over IPv6.
    #[error("version {0}, which is not spoken here")]
    Version(u8),
    /// Not an advertisement.
    #[error("type {0} instead of 1")]
    Type(u8),
    /// Too short for its header or for the addresses that it counts, or longer than that.
    #[error("{found} bytes instead of {expected}")]
    Length {
        /// Bytes that there are.
        found: usize,
        /// Bytes that there should be.
        expected: usize,
    },
    /// The checksum is wrong in every form.
    #[error("the checksum is wrong")]
    Checksum,
    /// VRID 0.
    #[error("VRID 0")]
    Vrid,
    /// No addresses.
    #[error("no addresses")]
    NoAddresses,
    /// An interval of 0.
    #[error("an interval of 0")]
    Interval,
    /// An authentication that is not spoken here.
    #[error("authentication type {0}, which is not spoken here")]
    Authentication(u8),
}

impl Advertisement {
    /// The bytes behind the IP header.
    ///
    /// # Errors
    /// [`EncodeError`]: what no packet can say.
    pub fn encode(&self, source: IpAddr, destination: IpAddr) -> Result<Vec<u8>, EncodeError> {
        if self.vrid == 0 {
            return Err(EncodeError::Vrid);
        }
        if !(1..=255).contains(&self.addresses.len()) {
            return Err(EncodeError::Addresses(self.addresses.len()));
        }
        let foreign = |address: &&IpAddr| address.is_ipv4() != source.is_ipv4();
        if let Some(&address) = self.addresses.iter().find(foreign) {
            return Err(EncodeError::Family {
                address,
                source_address: source,
            });
        }
        if self.version == Version::V2 && source.is_ipv6() {
            return Err(EncodeError::Ipv6);
        }
        if !self.interval.fits(self.version) {
            return Err(EncodeError::Interval {
                interval: self.interval,
                version: self.version,
                allowed: match self.version {
                    Version::V2 => "whole seconds from 1 to 255 are allowed",
                    Version::V3 => "0.01 to 40.95 seconds are allowed",
                },
            });
        }
        let mut bytes = vec![
            self.version.number() << 4 | TYPE,
            self.vrid,
            self.priority,
            self.addresses.len() as u8,
        ];
        match self.version {
            Version::V2 => {
                bytes.push(match self.authentication {
                    Authentication::None => 0,
                    Authentication::Password(_) => 1,
                });
                bytes.push((self.interval.0 / 100) as u8);
            }
            Version::V3 => bytes.extend(self.interval.0.to_be_bytes()),
        }
        bytes.extend([0, 0]);
        for address in &self.addresses {
            match address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        if self.version == Version::V2 {
            bytes.extend(match self.authentication {
                Authentication::None => [0; AUTHENTICATION],
                Authentication::Password(password) => password,
            });
        }
        let sum = Sum::default().bytes(&bytes);
        let alone = match self.version {
            Version::V2 => true,
            Version::V3 => source.is_ipv4() && self.checksum == ChecksumForm::MessageOnly,
        };
        let sum = match alone {
            true => sum,
            false => sum.pseudo_header(source, destination, bytes.len()),
        };
        bytes[6..8].copy_from_slice(&sum.field().to_be_bytes());
        Ok(bytes)
    }

    /// Reads the bytes behind the IP header of a packet that came with this TTL or hop limit.
    ///
    /// # Errors
    /// [`DecodeError`]: the packet must not be believed.
    pub fn decode(
        bytes: &[u8],
        source: IpAddr,
        destination: IpAddr,
        hops: u8,
    ) -> Result<Advertisement, DecodeError> {
        if hops != HOPS {
            return Err(DecodeError::Hops(hops));
        }
        let short = DecodeError::Length {
            found: bytes.len(),
            expected: HEADER,
        };
        let Some((&[first, vrid, priority, count, fourth, fifth, _, _], rest)) =
            bytes.split_first_chunk::<HEADER>()
        else {
            return Err(short);
        };
        let version = match first >> 4 {
            2 if source.is_ipv4() => Version::V2,
            3 => Version::V3,
            other => return Err(DecodeError::Version(other)),
        };
        if first & 0x0f != TYPE {
            return Err(DecodeError::Type(first & 0x0f));
        }
        let size = if source.is_ipv4() { 4 } else { 16 };
        let behind = match version {
            Version::V2 => AUTHENTICATION,
            Version::V3 => 0,
        };
        let expected = HEADER + count as usize * size + behind;
        if bytes.len() != expected {
            return Err(DecodeError::Length {
                found: bytes.len(),
                expected,
            });
        }
        let checksum = checksum_of(version, bytes, source, destination)?;
        let (list, password) = rest.split_at(count as usize * size);
        let authentication = match (version, fourth) {
            (Version::V3, _) | (Version::V2, 0) => Authentication::None,
            (Version::V2, 1) => Authentication::Password(password.try_into().map_err(|_| short)?),
            (Version::V2, other) => return Err(DecodeError::Authentication(other)),
        };
        let interval = match version {
            Version::V2 => u16::from(fifth) * 100,
            // The four bits before it are reserved and to be ignored (RFC 9568 section 5.2.6).
            Version::V3 => u16::from_be_bytes([fourth & 0x0f, fifth]),
        };
        if vrid == 0 {
            return Err(DecodeError::Vrid);
        }
        if count == 0 {
            return Err(DecodeError::NoAddresses);
        }
        Ok(Advertisement {
            version,
            vrid,
            priority,
            interval: Interval::centiseconds(interval).ok_or(DecodeError::Interval)?,
            addresses: addresses(list, source.is_ipv4()),
            authentication,
            checksum,
        })
    }
}

fn addresses(list: &[u8], v4: bool) -> Vec<IpAddr> {
    match v4 {
        true => list
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&octets| Ipv4Addr::from(octets).into())
            .collect(),
        false => list
            .as_chunks::<16>()
            .0
            .iter()
            .map(|&octets| Ipv6Addr::from(octets).into())
            .collect(),
    }
}

/// The form in which the checksum is right.
fn checksum_of(
    version: Version,
    bytes: &[u8],
    source: IpAddr,
    destination: IpAddr,
) -> Result<ChecksumForm, DecodeError> {
    let alone = Sum::default().bytes(bytes);
    let with = alone.pseudo_header(source, destination, bytes.len());
    let form = match version {
        Version::V2 if alone.is_right() => ChecksumForm::default(),
        Version::V3 if with.is_right() => ChecksumForm::PseudoHeader,
        Version::V3 if source.is_ipv4() && alone.is_right() => ChecksumForm::MessageOnly,
        Version::V2 | Version::V3 => return Err(DecodeError::Checksum),
    };
    Ok(form)
}

#[cfg(test)]
mod tests;
