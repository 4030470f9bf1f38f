//! Datagrams that nobody else can make, read, change or repeat.
//!
//! ```text
//!   greeting   "ilbS" version(1) 1 node(1) 0  key(8) nonce(16) echo(16) incarnation(8) tag(32)
//!   sealed     "ilbS" version(1) 2 node(1) 0  session(8) number(8)  payload… tag(16)
//! ```
//!
//! Both nodes have the same secret of 32 octets. From it come, by HKDF (RFC 5869) with SHA-256, a key for greetings
//! (HMAC, RFC 2104) and the number by which a key is told from another. Each greeting carries a nonce that its sender drew
//! and the one that it heard from the other end; who gets his own latest nonce back knows that the greeting was not made
//! before that was drawn. Both nonces and the secret give the keys of one session, one for each direction (AES-256-GCM;
//! the nonce of a datagram is its number, which never repeats under one key). A datagram counts only if its number is above
//! all that came before: what is repeated is refused, and what was overtaken is told again by its sender.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, hmac};

use crate::bytes::Reader;
use crate::error::Refused;

/// Version of the protocol that this crate speaks.
pub const VERSION: u8 = 1;
/// Octets of a secret.
pub const SECRET_LEN: usize = 32;
/// Octets of a sealed datagram before its payload.
pub const HEAD: usize = 24;
/// Octets behind the payload.
pub const TAG: usize = 16;

const MAGIC: [u8; 4] = *b"ilbS";
const GREETING: u8 = 1;
const SEALED: u8 = 2;
const GREETING_LEN: usize = 88;

/// A number that is drawn once.
pub type Token = [u8; 16];

/// What both nodes know and nobody else does.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_LEN]);

impl Secret {
    /// These octets, which somebody has drawn at random.
    pub const fn new(octets: [u8; SECRET_LEN]) -> Secret {
        Secret(octets)
    }

    /// From 64 hexadecimal digits; None if these are something else.
    pub fn from_hex(digits: &str) -> Option<Secret> {
        if digits.len() != 2 * SECRET_LEN || !digits.is_ascii() {
            return None;
        }
        let mut octets = [0; SECRET_LEN];
        for (octet, at) in octets.iter_mut().zip((0..).step_by(2)) {
            let pair = &digits[at..at + 2];
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *octet = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Secret(octets))
    }
}

impl std::fmt::Debug for Secret {
    /// Not what it is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// `N` octets that come from a secret and nothing else: at most 64, where HKDF cannot fail.
fn derive<const N: usize>(prk: &hkdf::Prk, words: &[&[u8]]) -> [u8; N] {
    const { assert!(N <= 64) };
    let mut out = [0; N];
    let done = prk.expand(words, Len(N)).and_then(|okm| okm.fill(&mut out));
    assert!(done.is_ok(), "HKDF gives up to 8160 octets");
    out
}

/// What greetings are made and known by.
pub struct Greeter {
    secret: Secret,
    node: u8,
    key: hmac::Key,
    id: [u8; 8],
}

/// A greeting that was made with our secret by the other node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// Its sender's nonce.
    pub nonce: Token,
    /// The nonce that its sender last heard; zero for none.
    pub echo: Token,
    /// What its sender drew when it started.
    pub incarnation: u64,
}

impl Greeter {
    /// For the node with this number.
    pub fn new(secret: &Secret, node: u8) -> Greeter {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"ilb sync greeting").extract(&secret.0);
        Greeter {
            key: hmac::Key::new(hmac::HMAC_SHA256, &derive::<32>(&prk, &[b"greeting"])),
            id: derive(&prk, &[b"key id"]),
            secret: secret.clone(),
            node,
        }
    }

    /// A greeting of ours.
    pub fn greet(&self, greeting: &Greeting) -> Vec<u8> {
        let mut out = Vec::with_capacity(GREETING_LEN);
        out.extend(MAGIC);
        out.extend([VERSION, GREETING, self.node, 0]);
        out.extend(self.id);
        out.extend(greeting.nonce);
        out.extend(greeting.echo);
        out.extend(greeting.incarnation.to_be_bytes());
        let tag = hmac::sign(&self.key, &out);
        out.extend(tag.as_ref());
        out
    }

    fn hear(&self, datagram: &[u8]) -> Result<Greeting, Refused> {
        if datagram.len() != GREETING_LEN {
            return Err(Refused::Length);
        }
        let (said, tag) = datagram.split_at(GREETING_LEN - 32);
        let fields = || {
            let mut reader = Reader(&said[8..]);
            Some((
                reader.array::<8>()?,
                reader.array()?,
                reader.array()?,
                reader.u64()?,
            ))
        };
        let (id, nonce, echo, incarnation) = fields().ok_or(Refused::Length)?;
        if id != self.id {
            return Err(Refused::Key);
        }
        hmac::verify(&self.key, said, tag).map_err(|_| Refused::Forged)?;
        Ok(Greeting {
            nonce,
            echo,
            incarnation,
        })
    }

    /// The keys of the session in which we said `ours` and the other end `theirs`.
    pub fn session(&self, ours: &Token, theirs: &Token) -> Keys {
        let (low, high) = match self.node {
            0 => (ours, theirs),
            _ => (theirs, ours),
        };
        let salt = [low.as_slice(), high.as_slice()].concat();
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(&self.secret.0);
        let key = |node: u8| {
            let octets: [u8; 32] = derive(&prk, &[b"from node ", &[node]]);
            let key = UnboundKey::new(&AES_256_GCM, &octets);
            LessSafeKey::new(key.expect("a key of this algorithm has 32 octets"))
        };
        Keys {
            id: derive(&prk, &[b"session id"]),
            node: self.node,
            sealing: key(self.node),
            opening: key(1 - self.node.min(1)),
        }
    }
}

/// The keys of one session.
pub struct Keys {
    id: [u8; 8],
    node: u8,
    sealing: LessSafeKey,
    opening: LessSafeKey,
}

fn nonce(number: u64) -> Nonce {
    let mut octets = [0; NONCE_LEN];
    octets[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(octets)
}

impl Keys {
    /// Seals `payload`. No number may be used twice.
    pub fn seal(&self, number: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + payload.len() + TAG);
        out.extend(MAGIC);
        out.extend([VERSION, SEALED, self.node, 0]);
        out.extend(self.id);
        out.extend(number.to_be_bytes());
        out.extend(payload);
        let (head, body) = out.split_at_mut(HEAD);
        let tag = self
            .sealing
            .seal_in_place_separate_tag(nonce(number), Aad::from(&*head), body)
            .expect("a datagram is shorter than what GCM takes");
        out.extend(tag.as_ref());
        out
    }

    /// Takes the seal off a datagram; gives its payload.
    fn open<'d>(&self, number: u64, datagram: &'d mut [u8]) -> Result<&'d [u8], Refused> {
        let (head, body) = datagram.split_at_mut(HEAD);
        match self
            .opening
            .open_in_place(nonce(number), Aad::from(&*head), body)
        {
            Ok(payload) => Ok(payload),
            Err(_) => Err(Refused::Seal),
        }
    }
}

/// What a datagram is, as far as its seal says.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'d> {
    /// A greeting.
    Greeting(Greeting),
    /// A payload of the session, with its number.
    Payload(u64, &'d [u8]),
}

/// Looks at a datagram: `keys` are those of the session, if there is one, and `above` the highest number that has come.
///
/// # Errors
/// What is not by our peer, or was repeated.
pub fn open<'d>(
    greeter: &Greeter,
    keys: Option<&Keys>,
    above: u64,
    datagram: &'d mut [u8],
) -> Result<Opened<'d>, Refused> {
    let mut reader = Reader(datagram);
    let magic = reader.array::<4>().ok_or(Refused::Length)?;
    let [version, kind, node, _] = reader.array().ok_or(Refused::Length)?;
    if magic != MAGIC {
        return Err(Refused::Foreign);
    }
    if version != VERSION {
        return Err(Refused::Version);
    }
    if node != 1 - greeter.node.min(1) {
        return Err(Refused::Node);
    }
    match kind {
        GREETING => greeter.hear(datagram).map(Opened::Greeting),
        SEALED => {
            let id = reader.array::<8>().ok_or(Refused::Length)?;
            let number = reader.u64().ok_or(Refused::Length)?;
            let keys = keys.filter(|keys| keys.id == id).ok_or(Refused::Session)?;
            if number <= above {
                return Err(Refused::Late);
            }
            Ok(Opened::Payload(number, keys.open(number, datagram)?))
        }
        _ => Err(Refused::Foreign),
    }
}
