//! Generic routing encapsulation (RFC 2784), with or without its checksum; no key and no sequence number (RFC 2890).

use super::inner::Inner;
use crate::checksum;
use crate::packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, get16, put16};

/// RFC 2784 section 2.2: checksum present.
const CHECKSUM_PRESENT: u16 = 0x8000;
/// RFC 2890: key and sequence number present.
const KEY_PRESENT: u16 = 0x2000;
const SEQUENCE_PRESENT: u16 = 0x1000;
const VERSION: u16 = 0x0007;

const PROTOCOL: usize = 2;
const CHECKSUM: usize = 4;

/// Length of the header in bytes.
pub const fn len(checksum: bool) -> usize {
    if checksum { 8 } else { 4 }
}

/// Writes the header. `sum` is that of the packet behind it, if there is to be a checksum.
pub fn write(header: &mut [u8], inner: &Inner, sum: Option<u64>) {
    let ethertype = if inner.is_v4() {
        ETHERTYPE_IPV4
    } else {
        ETHERTYPE_IPV6
    };
    put16(header, 0, 0);
    put16(header, PROTOCOL, ethertype);
    if let Some(sum) = sum {
        put16(header, 0, CHECKSUM_PRESENT);
        header[CHECKSUM..].fill(0);
        let checksum = checksum::of(header, sum);
        put16(header, CHECKSUM, checksum);
    }
}

/// Where the packet behind a header begins, and whether it is IPv4. None if this is nothing that we write.
pub fn parse(header: &[u8]) -> Option<(usize, bool)> {
    if header.len() < len(false) {
        return None;
    }
    let flags = get16(header, 0);
    if flags & (KEY_PRESENT | SEQUENCE_PRESENT | VERSION) != 0 {
        return None;
    }
    let v4 = match get16(header, PROTOCOL) {
        ETHERTYPE_IPV4 => true,
        ETHERTYPE_IPV6 => false,
        _ => return None,
    };
    Some((len(flags & CHECKSUM_PRESENT != 0), v4))
}
