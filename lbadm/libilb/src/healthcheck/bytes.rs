//! Octets as an administrator writes them: text, or hexadecimal digits behind `0x`.

use std::fmt;

use crate::error::ModelError;

/// Most octets of a payload or of the reply to it.
pub const MAX_BYTES: usize = 8192;

const SYNTAX: &str =
    "write text (with \\r, \\n, \\t, \\\\ and \\xHH) or hexadecimal digits behind 0x";
const MASKED_SYNTAX: &str = "write text, hexadecimal digits behind 0x with ? for digits that do not matter, or \
     0xDATA/0xMASK";

/// Octets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// Reads `text`, or `0x` and pairs of hexadecimal digits between which there may be blanks.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] for `field`.
    pub fn parse(field: &'static str, text: &str) -> Result<Bytes, ModelError> {
        let refuse = |problem: &str| ModelError::invalid(field, text, problem, SYNTAX);
        let bytes = match hexadecimal(text) {
            Some(digits) => pairs(digits, |digit| u8::try_from(digit.to_digit(16)?).ok()),
            None => unescape(text),
        };
        let bytes = bytes.map_err(&refuse)?;
        match bytes.len() > MAX_BYTES {
            true => Err(refuse("has more than 8192 octets")),
            false => Ok(Bytes(bytes)),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readable = |b: &u8| b.is_ascii_graphic() || b" \r\n\t".contains(b);
        let text: String = match self.0.iter().all(readable) {
            true => self.0.iter().copied().map(char::from).collect(),
            false => String::new(),
        };
        // A blank at an end would get lost where lists of settings are read.
        if text.is_empty() && !self.0.is_empty() || text != text.trim() || ambiguous(&text) {
            f.write_str("0x")?;
            return self.0.iter().try_for_each(|b| write!(f, "{b:02x}"));
        }
        for c in text.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '\r' => f.write_str("\\r")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                c => fmt::Write::write_char(f, c)?,
            }
        }
        Ok(())
    }
}

/// Whether text would be read as something else.
fn ambiguous(text: &str) -> bool {
    hexadecimal(text).is_some() || ["any", "none"].iter().any(|w| text.eq_ignore_ascii_case(w))
}

/// Octets of which only some bits matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Masked {
    /// What is expected. Bits that do not matter are 0.
    bytes: Vec<u8>,
    /// Bits that matter; as long.
    mask: Vec<u8>,
}

impl Masked {
    /// Octets under a mask of the same length; `None` if it is not as long, or there is none.
    pub fn new(bytes: &[u8], mask: &[u8]) -> Option<Masked> {
        let bytes = bytes.iter().zip(mask).map(|(b, m)| b & m).collect();
        let masked = Masked {
            bytes,
            mask: mask.to_vec(),
        };
        (!mask.is_empty() && masked.bytes.len() == mask.len()).then_some(masked)
    }

    /// Reads text, `0x` and digits with `?`, or `0x` and digits with a mask behind `/0x`.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] for `field`.
    pub fn parse(field: &'static str, text: &str) -> Result<Masked, ModelError> {
        let refuse = |problem: &str| ModelError::invalid(field, text, problem, MASKED_SYNTAX);
        let Some(digits) = hexadecimal(text) else {
            let Bytes(bytes) = Bytes::parse(field, text)?;
            let mask = vec![0xff; bytes.len()];
            return Masked::new(&bytes, &mask).ok_or_else(|| refuse("is empty"));
        };
        let plain = |digit: char| u8::try_from(digit.to_digit(16)?).ok();
        let (bytes, mask) = match digits.split_once('/') {
            Some((bytes, mask)) => {
                let mask = hexadecimal(mask.trim()).unwrap_or(mask);
                (pairs(bytes, plain), pairs(mask, plain))
            }
            None => (
                pairs(digits, |digit| match digit {
                    '?' => Some(0),
                    _ => plain(digit),
                }),
                pairs(digits, |digit| Some(if digit == '?' { 0 } else { 15 })),
            ),
        };
        let (bytes, mask) = (bytes.map_err(&refuse)?, mask.map_err(&refuse)?);
        if bytes.len() > MAX_BYTES {
            return Err(refuse("has more than 8192 octets"));
        }
        if bytes.is_empty() {
            return Err(refuse("is empty"));
        }
        Masked::new(&bytes, &mask).ok_or_else(|| refuse("has a mask of another length"))
    }

    /// Whether `reply` begins so.
    pub fn begins(&self, reply: &[u8]) -> bool {
        let mut pairs = reply.iter().zip(self.bytes.iter().zip(&self.mask));
        reply.len() >= self.bytes.len() && pairs.all(|(r, (b, m))| r & m == *b)
    }
}

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mask.iter().all(|m| *m == 0xff) {
            return Bytes(self.bytes.clone()).fmt(f);
        }
        let nibble = |b: u8, m: u8| match m {
            15 => char::from_digit(b.into(), 16),
            0 => Some('?'),
            _ => None,
        };
        let digits = self
            .bytes
            .iter()
            .zip(&self.mask)
            .flat_map(|(b, m)| [nibble(b >> 4, m >> 4), nibble(b & 15, m & 15)]);
        if let Some(digits) = digits.collect::<Option<String>>() {
            return write!(f, "0x{digits}");
        }
        f.write_str("0x")?;
        self.bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str("/0x")?;
        self.mask.iter().try_for_each(|m| write!(f, "{m:02x}"))
    }
}

fn hexadecimal(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

/// Octets of pairs of digits; blanks and colons between them do not count.
fn pairs(digits: &str, value: impl Fn(char) -> Option<u8>) -> Result<Vec<u8>, &'static str> {
    let digits: Option<Vec<u8>> = digits
        .chars()
        .filter(|c| !c.is_ascii_whitespace() && *c != ':')
        .map(value)
        .collect();
    let digits = digits.ok_or("has something that is no hexadecimal digit")?;
    match digits.len() % 2 {
        0 => Ok(digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()),
        _ => Err("has an odd number of hexadecimal digits"),
    }
}

fn unescape(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        bytes.push(match rest.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('\\') => b'\\',
            Some('x') => {
                let mut digit = || rest.next().and_then(|c| c.to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err("has \\x without two hexadecimal digits");
                };
                u8::try_from(high << 4 | low).unwrap_or_default()
            }
            _ => return Err("has a backslash before something else than r, n, t, x or \\"),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_and_digits_are_read() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("PING\\r\\n", b"PING\r\n"),
            ("\\x00\\xffa\\\\", b"\x00\xffa\\"),
            ("0x", b""),
            ("0x0aFF", b"\x0a\xff"),
            ("0x0a ff:00", b"\x0a\xff\x00"),
            ("ü", "ü".as_bytes()),
        ] {
            assert_eq!(Bytes::parse("payload", text).unwrap().0, bytes, "{text}");
        }
        for (text, problem) in [
            ("0x0", "has an odd number of hexadecimal digits"),
            ("0x0g", "has something that is no hexadecimal digit"),
            ("\\x0", "has \\x without two hexadecimal digits"),
            (
                "\\q",
                "has a backslash before something else than r, n, t, x or \\",
            ),
        ] {
            let error = Bytes::parse("payload", text).unwrap_err().to_string();
            assert_eq!(error, format!("payload '{text}' {problem}: {SYNTAX}"));
        }
        let long = "x".repeat(MAX_BYTES + 1);
        assert!(Bytes::parse("payload", &long).is_err());
        assert!(Bytes::parse("payload", &long[1..]).is_ok());
    }

    #[test]
    fn only_bits_under_the_mask_matter() {
        for (text, yes, no) in [
            (
                "+PONG",
                vec![&b"+PONG"[..], b"+PONG\r\n"],
                vec![&b"+PON"[..], b"-PONG", b""],
            ),
            (
                "0x1?ff",
                vec![b"\x10\xff", b"\x1f\xff\x00"],
                vec![b"\x20\xff", b"\x10\xfe"],
            ),
            ("0x????", vec![b"ab", b"abc"], vec![b"a"]),
            (
                "0x8180/0xff8f",
                vec![b"\x81\x80", b"\x81\xf0"],
                vec![b"\x81\x83", b"\x81\x00"],
            ),
        ] {
            let masked = Masked::parse("reply", text).unwrap();
            assert!(yes.iter().all(|reply| masked.begins(reply)), "{text}");
            assert!(!no.iter().any(|reply| masked.begins(reply)), "{text}");
        }
        for (text, problem) in [
            ("", "is empty"),
            ("0x", "is empty"),
            ("0x12/0x1", "has an odd number of hexadecimal digits"),
            ("0x12/0x1234", "has a mask of another length"),
            ("0x1?/0xff", "has something that is no hexadecimal digit"),
        ] {
            let error = Masked::parse("reply", text).unwrap_err().to_string();
            assert_eq!(error, format!("reply '{text}' {problem}: {MASKED_SYNTAX}"));
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "[ -~\r\n\t]{0,20}|any|none|0x00".prop_map(String::into_bytes),
            ],
            bits in prop_oneof![Just(0xffu8), any::<u8>(), Just(0xf0)],
        ) {
            let payload = Bytes(bytes.clone());
            prop_assert_eq!(Bytes::parse("payload", &payload.to_string()).unwrap(), payload);
            if let Some(masked) = Masked::new(&bytes, &vec![bits; bytes.len()]) {
                prop_assert_eq!(Masked::parse("reply", &masked.to_string()).unwrap(), masked);
            }
        }

        #[test]
        fn no_text_is_a_surprise(text in "(0x)?\\PC{0,24}") {
            let _ = (Bytes::parse("payload", &text), Masked::parse("reply", &text));
        }
    }
}
