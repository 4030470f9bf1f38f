//! What both nodes know and nobody else does.

use std::fmt;
use std::str::FromStr;

use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::hex;

/// Octets of a secret and of whatever is derived from one.
pub const SECRET_LEN: usize = 32;

/// Why there is nothing drawn at random: the system gives none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandom;

/// Why a text is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is {} hexadecimal digits", 2 * SECRET_LEN)]
pub struct NotASecret;

/// Octets that were drawn at random.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut octets = [0; N];
    SystemRandom::new()
        .fill(&mut octets)
        .map_err(|_| NoRandom)?;
    Ok(octets)
}

/// 32 octets that both nodes of a pair have and nobody else. In text, as in the database, it is 64 hexadecimal digits; in
/// messages for people it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_LEN]);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn generate() -> Result<Secret, NoRandom> {
        random().map(Secret)
    }

    /// These octets, which were drawn at random or come from a key exchange.
    pub const fn new(octets: [u8; SECRET_LEN]) -> Secret {
        Secret(octets)
    }

    pub(crate) const fn octets(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }

    /// A key for one purpose, by HKDF (RFC 5869) with SHA-256: who has it knows neither the secret nor any other key.
    pub fn derive(&self, label: &str) -> [u8; 32] {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"ilb pair").extract(&self.0);
        let mut key = [0; 32];
        let done = prk
            .expand(&[label.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key));
        assert!(done.is_ok(), "HKDF gives up to 8160 octets");
        key
    }

    /// 64 hexadecimal digits, for where it is kept.
    pub fn to_hex(&self) -> String {
        hex::write(&self.0)
    }
}

impl fmt::Debug for Secret {
    /// Not what it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl FromStr for Secret {
    type Err = NotASecret;

    fn from_str(digits: &str) -> Result<Secret, NotASecret> {
        hex::read(digits).map(Secret).ok_or(NotASecret)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        let digits = String::deserialize(deserializer)?;
        // The words of the error must not show what may be nearly a secret.
        digits.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_purposes_and_secrets_differ_and_are_the_same_on_both_nodes() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.derive("a"), one.clone().derive("a"));
        assert_ne!(one.derive("a"), one.derive("b"));
        assert_ne!(one.derive("a"), other.derive("a"));
        assert_ne!(&one.derive("a"), one.octets());
    }

    /// Made with another implementation (Python's hmac, RFC 5869 by hand): what a later version must go on to derive.
    #[test]
    fn what_is_derived_never_changes() {
        let derived = Secret::new([7; 32]).derive("ilb fast path");
        assert_eq!(hex::write(&derived), DERIVED);
    }
    const DERIVED: &str = "8cf562b067d6eac53a6bea8492ac57e650b77b846ca40851076ab57a05ea075b";

    #[test]
    fn it_is_kept_as_digits_and_never_shown() {
        let secret = Secret::new([0xa5; 32]);
        let kept = serde_json::to_string(&secret).unwrap();
        assert_eq!(kept, format!("\"{}\"", "a5".repeat(32)));
        assert_eq!(serde_json::from_str::<Secret>(&kept).unwrap(), secret);
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn what_is_no_secret() {
        let long = "0".repeat(66);
        let odd = "0".repeat(63);
        let letter = "0".repeat(63) + "g";
        let sign = "+1".repeat(32);
        let wide = "é".repeat(32);
        for text in ["", "00", &long, &odd, &letter, &sign, &wide] {
            let error = text.parse::<Secret>().unwrap_err();
            assert_eq!(error.to_string(), "a secret is 64 hexadecimal digits");
            let error = serde_json::from_value::<Secret>(text.into()).unwrap_err();
            let said = error.to_string();
            assert!(text.is_empty() || !said.contains(text), "{said}");
        }
    }
}
