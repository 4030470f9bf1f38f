//! What whoever dials says first, so that the other node answers at all.
//!
//! ```text
//!   "ilbP" version(1) kind(1) 0 0   minute(4) nonce(16)   signature(64)   tag(32)
//! ```
//!
//! The tag (HMAC-SHA-256, RFC 2104, by a key that comes from the secret) is over everything before it. The signature
//! (Ed25519) is over everything before it and the public key of its maker, which is not said: a peer knows it, and one that
//! joins shows it in the TLS session that follows, so that who takes a greeting from its way cannot use it with a key of
//! his own. A nonce counts once, and minute (since 1970) bounds how long nonces have to be remembered.

use std::collections::{BTreeMap, HashSet};

use ring::hmac;

use crate::identity::{Identity, PublicKey};
use crate::refusal::Reason;
use crate::secret::Secret;

/// Version of greetings.
pub const VERSION: u8 = 1;
/// Octets of a greeting.
pub const LEN: usize = TAG_AT + 32;
/// By how many minutes the clocks of both nodes may differ.
pub const WINDOW: u32 = 60;

pub(crate) const MAGIC: [u8; 4] = *b"ilbP";
const MINUTE_AT: usize = 8;
const NONCE_AT: usize = 12;
const SIGNATURE_AT: usize = 28;
const TAG_AT: usize = SIGNATURE_AT + 64;
/// Most nonces that are remembered: many times what a peer that dials every second needs.
const MAX_REMEMBERED: usize = 100_000;

/// What a greeting is for. Its octet is part of what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The peer comes back.
    Peer,
    /// Somebody with a token wants to join.
    Join,
}

impl Kind {
    const fn octet(self) -> u8 {
        match self {
            Kind::Peer => 0,
            Kind::Join => 1,
        }
    }
}

/// A number that is drawn once.
pub type Nonce = [u8; 16];

/// A greeting that was made with the right secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// When it was made, in minutes since 1970, by its maker's clock.
    pub minute: u32,
    /// What its maker drew.
    pub nonce: Nonce,
    said: [u8; SIGNATURE_AT],
    signature: [u8; 64],
}

fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &secret.derive("ilb pair greeting"))
}

/// What is signed: the beginning of a greeting, and whose it is.
fn to_sign(said: &[u8], maker: &PublicKey) -> Vec<u8> {
    [b"ilb pair greeting", said, maker.octets()].concat()
}

/// A greeting of ours.
pub fn make(
    kind: Kind,
    secret: &Secret,
    identity: &Identity,
    minute: u32,
    nonce: &Nonce,
) -> [u8; LEN] {
    let mut out = [0; LEN];
    out[..4].copy_from_slice(&MAGIC);
    out[4] = VERSION;
    out[5] = kind.octet();
    out[MINUTE_AT..NONCE_AT].copy_from_slice(&minute.to_be_bytes());
    out[NONCE_AT..SIGNATURE_AT].copy_from_slice(nonce);
    let signature = identity.sign(&to_sign(&out[..SIGNATURE_AT], &identity.public()));
    out[SIGNATURE_AT..TAG_AT].copy_from_slice(&signature);
    let tag = hmac::sign(&key(secret), &out[..TAG_AT]);
    out[TAG_AT..].copy_from_slice(tag.as_ref());
    out
}

/// Whether these first octets of somebody may be the beginning of a greeting.
pub fn may_become(octets: &[u8]) -> bool {
    octets
        .iter()
        .zip(&MAGIC)
        .all(|(octet, magic)| octet == magic)
}

/// Reads a greeting of this kind that was made with this secret. Who made it and when is left to be asked.
///
/// # Errors
/// What it is instead.
pub fn read(octets: &[u8; LEN], kind: Kind, secret: &Secret) -> Result<Greeting, Reason> {
    if !may_become(octets) {
        return Err(Reason::Foreign);
    }
    if octets[4] != VERSION {
        return Err(Reason::Version);
    }
    if octets[5] != kind.octet() {
        return Err(Reason::Purpose);
    }
    let (said, tag) = octets.split_at(TAG_AT);
    hmac::verify(&key(secret), said, tag).map_err(|_| Reason::Forged)?;
    fn part<const N: usize>(octets: &[u8; LEN], at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&octets[at..at + N]);
        out
    }
    Ok(Greeting {
        minute: u32::from_be_bytes(part(octets, MINUTE_AT)),
        nonce: part(octets, NONCE_AT),
        said: part(octets, 0),
        signature: part(octets, SIGNATURE_AT),
    })
}

impl Greeting {
    /// Whether the owner of this key has made it, for that key.
    pub fn is_by(&self, maker: &PublicKey) -> bool {
        maker.has_signed(&to_sign(&self.said, maker), &self.signature)
    }
}

/// The greetings that came, for as long as they could come again.
#[derive(Debug, Default)]
pub struct Heard {
    nonces: BTreeMap<u32, HashSet<Nonce>>,
    count: usize,
}

impl Heard {
    /// Whether a greeting may count at this minute, by our clock: neither too old nor from the future, and not heard before.
    ///
    /// # Errors
    /// [`Reason::Clock`], [`Reason::Repeated`], or [`Reason::Crowded`] when no more can be remembered.
    pub fn is_new(&mut self, greeting: &Greeting, now: u32) -> Result<(), Reason> {
        if greeting.minute.abs_diff(now) > WINDOW {
            return Err(Reason::Clock);
        }
        // What is too old by now would be refused for that.
        while let Some(oldest) = self.nonces.first_entry()
            && oldest.key().saturating_add(WINDOW) < now
        {
            self.count -= oldest.remove().len();
        }
        let of_minute = self.nonces.get(&greeting.minute);
        if of_minute.is_some_and(|nonces| nonces.contains(&greeting.nonce)) {
            return Err(Reason::Repeated);
        }
        if self.count >= MAX_REMEMBERED {
            return Err(Reason::Crowded);
        }
        Ok(())
    }

    /// From now on it is not new any longer.
    pub fn remember(&mut self, greeting: &Greeting) {
        let nonces = self.nonces.entry(greeting.minute).or_default();
        self.count += usize::from(nonces.insert(greeting.nonce));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 29_000_000;

    fn made(secret: &Secret, identity: &Identity, minute: u32, nonce: u8) -> [u8; LEN] {
        make(Kind::Peer, secret, identity, minute, &[nonce; 16])
    }

    #[test]
    fn a_greeting_says_when_and_by_whom() {
        let (secret, identity) = (Secret::new([1; 32]), Identity::generate().unwrap());
        let said = made(&secret, &identity, NOW, 9);
        let greeting = read(&said, Kind::Peer, &secret).unwrap();
        assert_eq!((greeting.minute, greeting.nonce), (NOW, [9; 16]));
        assert!(greeting.is_by(&identity.public()));
        assert!(!greeting.is_by(&Identity::generate().unwrap().public()));
    }

    #[test]
    fn every_changed_octet_is_seen() {
        let (secret, identity) = (Secret::new([1; 32]), Identity::generate().unwrap());
        let said = made(&secret, &identity, NOW, 9);
        for at in 0..LEN {
            let mut changed = said;
            changed[at] ^= 0x40;
            let reason = match at {
                0..4 => Reason::Foreign,
                4 => Reason::Version,
                5 => Reason::Purpose,
                _ => Reason::Forged,
            };
            assert_eq!(read(&changed, Kind::Peer, &secret), Err(reason), "{at}");
        }
        let other = Secret::new([2; 32]);
        assert_eq!(read(&said, Kind::Peer, &other), Err(Reason::Forged));
        assert_eq!(read(&said, Kind::Join, &secret), Err(Reason::Purpose));
    }

    /// Who knows the secret and has heard a greeting can make the tag anew, but not say that it is his.
    #[test]
    fn a_greeting_cannot_be_made_ones_own() {
        let (secret, thief) = (Secret::new([1; 32]), Identity::generate().unwrap());
        let mut said = made(&secret, &Identity::generate().unwrap(), NOW, 9);
        said[NONCE_AT] ^= 1;
        let tag = hmac::sign(&key(&secret), &said[..TAG_AT]);
        said[TAG_AT..].copy_from_slice(tag.as_ref());
        let greeting = read(&said, Kind::Peer, &secret).unwrap();
        assert!(!greeting.is_by(&thief.public()));
    }

    #[test]
    fn what_may_become_a_greeting() {
        let cases: [(&[u8], bool); 6] = [
            (b"", true),
            (b"i", true),
            (b"ilbP", true),
            (b"ilbP\x09...", true),
            (b"GET / HTTP/1.1", false),
            (b"ilbS", false),
        ];
        for (octets, expected) in cases {
            assert_eq!(may_become(octets), expected, "{octets:?}");
        }
    }

    #[test]
    fn clocks_may_differ_by_an_hour() {
        let (secret, identity) = (Secret::new([1; 32]), Identity::generate().unwrap());
        let at = |minute| read(&made(&secret, &identity, minute, 1), Kind::Peer, &secret).unwrap();
        let cases = [
            (NOW, Ok(())),
            (NOW - WINDOW, Ok(())),
            (NOW + WINDOW, Ok(())),
            (NOW - WINDOW - 1, Err(Reason::Clock)),
            (NOW + WINDOW + 1, Err(Reason::Clock)),
            (0, Err(Reason::Clock)),
            (u32::MAX, Err(Reason::Clock)),
        ];
        for (minute, expected) in cases {
            assert_eq!(Heard::default().is_new(&at(minute), NOW), expected);
        }
    }

    #[test]
    fn a_greeting_counts_once_for_as_long_as_it_could_come_again() {
        let (secret, identity) = (Secret::new([1; 32]), Identity::generate().unwrap());
        let mut heard = Heard::default();
        for (minute, nonce) in [(NOW - WINDOW, 1), (NOW, 2), (NOW, 3), (NOW + WINDOW, 4)] {
            let said = made(&secret, &identity, minute, nonce);
            let greeting = read(&said, Kind::Peer, &secret).unwrap();
            assert_eq!(heard.is_new(&greeting, NOW), Ok(()));
            // Asked only, as for a greeting with a wrong key: nothing is remembered of it.
            assert_eq!(heard.is_new(&greeting, NOW), Ok(()));
            heard.remember(&greeting);
            for now in [minute.max(NOW) - WINDOW, NOW, minute + WINDOW] {
                let repeated = heard.is_new(&greeting, now).unwrap_err();
                assert!([Reason::Repeated, Reason::Clock].contains(&repeated));
            }
            assert_eq!(
                heard.is_new(&greeting, minute + WINDOW),
                Err(Reason::Repeated)
            );
            assert_eq!(
                heard.is_new(&greeting, minute + WINDOW + 1),
                Err(Reason::Clock)
            );
        }
    }
}
