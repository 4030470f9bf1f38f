//! IP in IP, in all four combinations (RFC 2003: IPv4 in IPv4; RFC 2473: anything in IPv6; RFC 4213: IPv6 in IPv4):
//! nothing lies between the two headers, and the outer one's protocol says what follows.

use super::carried;

/// The family of the packet behind an outer header with this protocol: true for IPv4.
pub fn is_v4(protocol: u8) -> Option<bool> {
    match protocol {
        carried::IPV4 => Some(true),
        carried::IPV6 => Some(false),
        _ => None,
    }
}
