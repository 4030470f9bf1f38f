//! Who a node is: an Ed25519 key pair (RFC 8032) that it keeps, and the public half by which the other node knows it.
//!
//! In TLS the public half goes as it is (RFC 7250), without a certificate around it: there is nobody who could certify
//! anything, and nothing that expires.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::hex;
use crate::secret::NoRandom;

/// Octets of a public key.
pub const PUBLIC_KEY_LEN: usize = 32;

/// What stands before an Ed25519 public key in a SubjectPublicKeyInfo (RFC 8410 section 4).
const SPKI_HEAD: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why octets are no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// See [`NoRandom`].
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// What was kept is damaged, or something else.
    #[error("this is no Ed25519 key pair in PKCS#8 (RFC 8410): {0}")]
    Damaged(String),
}

/// Why a text is no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public key is {} hexadecimal digits", 2 * PUBLIC_KEY_LEN)]
pub struct NotAPublicKey;

/// By what a node is known: 64 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; PUBLIC_KEY_LEN]);

impl PublicKey {
    pub(crate) const fn new(octets: [u8; PUBLIC_KEY_LEN]) -> PublicKey {
        PublicKey(octets)
    }

    pub(crate) const fn octets(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.0
    }

    /// As TLS carries it.
    pub(crate) fn spki(&self) -> Vec<u8> {
        [SPKI_HEAD.as_slice(), &self.0].concat()
    }

    /// Out of what TLS carries; None for a key of another kind.
    pub(crate) fn from_spki(spki: &[u8]) -> Option<PublicKey> {
        let key = spki.strip_prefix(&SPKI_HEAD)?;
        key.try_into().ok().map(PublicKey)
    }

    /// Whether the owner of this key has signed `said`.
    pub(crate) fn has_signed(&self, said: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(said, signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::write(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = NotAPublicKey;

    fn from_str(digits: &str) -> Result<PublicKey, NotAPublicKey> {
        hex::read(digits).map(PublicKey).ok_or(NotAPublicKey)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PublicKey, D::Error> {
        let digits = String::deserialize(deserializer)?;
        digits.parse().map_err(de::Error::custom)
    }
}

/// The key pair of a node.
pub struct Identity {
    pkcs8: Vec<u8>,
    pair: Ed25519KeyPair,
    public: PublicKey,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn generate() -> Result<Identity, IdentityError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        Identity::from_bytes(document.map_err(|_| NoRandom)?.as_ref())
    }

    /// The one that was kept.
    ///
    /// # Errors
    /// If these are not the octets of [`to_bytes`](Identity::to_bytes).
    pub fn from_bytes(pkcs8: &[u8]) -> Result<Identity, IdentityError> {
        let damaged = |error: &dyn fmt::Display| IdentityError::Damaged(error.to_string());
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|error| damaged(&error))?;
        let octets = pair.public_key().as_ref().try_into();
        let public = PublicKey(octets.map_err(|error| damaged(&error))?);
        let pkcs8 = pkcs8.to_vec();
        let der = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
        let signer = rustls::crypto::ring::sign::any_eddsa_type(&der);
        let signer = signer.map_err(|error| damaged(&error))?;
        let raw = CertificateDer::from(public.spki());
        Ok(Identity {
            pkcs8,
            pair,
            public,
            certified: Arc::new(CertifiedKey::new(vec![raw], signer)),
        })
    }

    /// PKCS#8 (RFC 5958, RFC 8410), for a file that nobody else may read.
    pub fn to_bytes(&self) -> &[u8] {
        &self.pkcs8
    }

    /// What the other node may know.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn sign(&self, said: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(said).as_ref());
        out
    }

    /// For TLS.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

impl fmt::Debug for Identity {
    /// The public half alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_one_when_it_was_kept() {
        let identity = Identity::generate().unwrap();
        let kept = Identity::from_bytes(identity.to_bytes()).unwrap();
        assert_eq!(kept.public(), identity.public());
        assert!(identity.public().has_signed(b"x", &kept.sign(b"x")));
        assert_ne!(
            Identity::generate().unwrap().public(),
            identity.public(),
            "drawn anew"
        );
    }

    #[test]
    fn the_private_half_is_not_shown() {
        let identity = Identity::generate().unwrap();
        let shown = format!("{identity:?}");
        assert_eq!(shown, format!("Identity({})", identity.public()));
    }

    #[test]
    fn damaged_octets_are_no_identity() {
        let good = Identity::generate().unwrap().to_bytes().to_vec();
        let cut = good[..good.len() - 1].to_vec();
        let mut longer = good.clone();
        longer.push(0);
        // One bit of the private key: its public half does not belong to it any longer.
        let mut flipped = good.clone();
        flipped[20] ^= 1;
        for octets in [Vec::new(), b"hello".to_vec(), cut, longer, flipped] {
            let error = Identity::from_bytes(&octets).unwrap_err().to_string();
            assert!(error.starts_with("this is no Ed25519 key pair"), "{error}");
        }
    }

    #[test]
    fn a_signature_counts_for_its_words_and_its_owner_alone() {
        let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let signature = one.sign(b"words");
        assert!(one.public().has_signed(b"words", &signature));
        assert!(!one.public().has_signed(b"other words", &signature));
        assert!(!other.public().has_signed(b"words", &signature));
        assert!(!one.public().has_signed(b"words", &signature[..63]));
        assert!(!one.public().has_signed(b"words", &[0; 64]));
    }

    #[test]
    fn public_keys_are_digits_and_come_back() {
        let key = Identity::generate().unwrap().public();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(key.to_string().to_uppercase().parse(), Ok(key));
        let kept = serde_json::to_string(&key).unwrap();
        assert_eq!(kept, format!("\"{key}\""));
        assert_eq!(serde_json::from_str::<PublicKey>(&kept).unwrap(), key);
        assert_eq!(PublicKey::from_spki(&key.spki()), Some(key));
        for text in ["", "00", &kept, &key.to_string()[1..]] {
            assert_eq!(text.parse::<PublicKey>(), Err(NotAPublicKey), "{text}");
        }
        assert_eq!(PublicKey::from_spki(key.octets()), None);
        assert_eq!(PublicKey::from_spki(&key.spki()[..43]), None);
    }
}
