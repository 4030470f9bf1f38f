//! Octets as hexadecimal digits, as files, the database and people have them.

use std::fmt::Write;

/// Two lower-case digits an octet.
pub(crate) fn write(octets: &[u8]) -> String {
    let mut out = String::with_capacity(2 * octets.len());
    for octet in octets {
        // Writing to a string cannot fail.
        let _ = write!(out, "{octet:02x}");
    }
    out
}

/// Exactly `N` octets, from digits of either case; None if these are something else.
pub(crate) fn read<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digits = digits.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let mut out = [0; N];
    for (octet, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *octet = (value(pair[0])? << 4) | value(pair[1])?;
    }
    Some(out)
}
