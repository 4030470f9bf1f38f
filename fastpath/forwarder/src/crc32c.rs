//! The checksum of SCTP (RFC 9260 appendix A): CRC32c, changed without reading the packet.
//!
//! A CRC is linear over GF(2): when bits of a message change, the CRC changes by the CRC of what changed alone, followed by
//! as many zero bytes as the message goes on behind it. Those cost one multiplication by a power of x, whatever their
//! number. So, as with the Internet checksum, a wrong checksum stays as wrong as it was.

/// The Castagnoli polynomial, the coefficient of x^31 in the lowest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x^0.
const ONE: u32 = 1 << 31;

/// x^(8n) for n in 0..256, and x^(8·256·n).
static BYTES: [u32; 256] = powers(multiply_by_x(ONE, 8));
static PAGES: [u32; 256] = powers(multiply_by_x(ONE, 8 * 256));

const fn multiply_by_x(mut a: u32, times: usize) -> u32 {
    let mut n = 0;
    while n < times {
        a = (a >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(a & 1));
        n += 1;
    }
    a
}

const fn powers(base: u32) -> [u32; 256] {
    let mut powers = [ONE; 256];
    let mut n = 1;
    while n < 256 {
        powers[n] = multiply(powers[n - 1], base);
        n += 1;
    }
    powers
}

/// The product of two polynomials modulo [`POLYNOMIAL`].
#[inline(always)]
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        product ^= b & 0u32.wrapping_sub(a << bit >> 31);
        b = multiply_by_x(b, 1);
        bit += 1;
    }
    product
}

/// The CRC after the first four bytes of a message of `len` bytes have changed. CRC and bytes as they stand in the packet.
#[inline]
pub fn change_of_head(crc: [u8; 4], old: [u8; 4], new: [u8; 4], len: u16) -> [u8; 4] {
    let difference = u32::from_le_bytes(old) ^ u32::from_le_bytes(new);
    let behind = multiply(BYTES[len as usize & 0xff], PAGES[len as usize >> 8]);
    (u32::from_le_bytes(crc) ^ multiply(difference, behind)).to_le_bytes()
}

/// The CRC of a whole message, bit by bit: for tests, which know what they look at.
#[cfg(test)]
pub fn of(bytes: &[u8]) -> [u8; 4] {
    let crc = bytes
        .iter()
        .fold(!0, |crc, &byte| multiply_by_x(crc ^ byte as u32, 8));
    (!crc).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples_of_rfc_3720_appendix_b_4() {
        let ascending: Vec<u8> = (0..32).collect();
        for (bytes, crc) in [
            (vec![0; 32], [0xaa, 0x36, 0x91, 0x8a]),
            (vec![0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
            (ascending, [0x4e, 0x79, 0xdd, 0x46]),
        ] {
            assert_eq!(of(&bytes), crc);
        }
    }

    proptest! {
        #[test]
        fn changed_equals_recomputed(mut bytes in proptest::collection::vec(any::<u8>(), 4..3000), new in any::<[u8; 4]>()) {
            let before = of(&bytes);
            let old = [bytes[0], bytes[1], bytes[2], bytes[3]];
            bytes[..4].copy_from_slice(&new);
            prop_assert_eq!(change_of_head(before, old, new, bytes.len() as u16), of(&bytes));
        }
    }

    #[test]
    fn the_longest_packet() {
        let mut bytes = vec![7; 65_535];
        let before = of(&bytes);
        bytes[..4].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(
            change_of_head(before, [7; 4], [1, 2, 3, 4], 65_535),
            of(&bytes)
        );
    }
}
