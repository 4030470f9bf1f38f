//! One change of the configuration, as both nodes know it.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::message::Record;
use crate::hex;

/// Names a version, and with it all that came before it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId([u8; 16]);

impl VersionId {
    /// What there is before the first version.
    pub const ROOT: VersionId = VersionId([0; 16]);
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

/// What is no [`VersionId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version: 32 hexadecimal digits")]
pub struct NoVersionId(String);

impl FromStr for VersionId {
    type Err = NoVersionId;

    fn from_str(text: &str) -> Result<VersionId, NoVersionId> {
        let fail = || NoVersionId(text.chars().take(40).collect());
        if text.len() != 32 || !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return Err(fail());
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| fail())?;
        Ok(VersionId(number.to_be_bytes()))
    }
}

impl Serialize for VersionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VersionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<VersionId, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// SHA-256 of what a version changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// That of these records, in this order. (JSON has its names in alphabetical order here, and numbers and texts one form each.)
    pub fn of(records: &[Record]) -> Digest {
        let mut hash = Context::new(&SHA256);
        for Record { tree, key, value } in records {
            part(&mut hash, tree.as_bytes());
            part(&mut hash, key.as_bytes());
            match value {
                // What is JSON already can be written.
                Some(value) => part(&mut hash, &serde_json::to_vec(value).unwrap_or_default()),
                None => hash.update(&u64::MAX.to_be_bytes()),
            }
        }
        Digest(whole(hash))
    }
}

/// Somebody's own, for a version whose content nobody gets.
impl From<[u8; 32]> for Digest {
    fn from(octets: [u8; 32]) -> Digest {
        Digest(octets)
    }
}

/// That of nothing.
impl Default for Digest {
    fn default() -> Digest {
        Digest::of(&[])
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::write(&self.0))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::write(&self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        let octets = hex::read(&text).map(Digest);
        octets.ok_or_else(|| serde::de::Error::custom("no digest: 64 hexadecimal digits"))
    }
}

/// Something that may be of any length: where it ends is no question.
fn part(hash: &mut Context, octets: &[u8]) {
    hash.update(&(octets.len() as u64).to_be_bytes());
    hash.update(octets);
}

fn whole(hash: Context) -> [u8; 32] {
    let mut octets = [0; 32];
    octets.copy_from_slice(hash.finish().as_ref());
    octets
}

/// See the module. Its name is SHA-256 of everything else that it says, in 16 octets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its name.
    pub id: VersionId,
    /// The version that it changes; [`VersionId::ROOT`] for the first.
    pub parent: VersionId,
    /// How many there were up to this one, from 1.
    pub number: u64,
    /// The node on which it was made, 0 or 1.
    pub node: u8,
    /// When, in seconds of that node's Unix clock.
    pub time: u64,
    /// Who made it.
    pub author: String,
    /// What was done, for people.
    pub words: String,
    /// What it changes.
    pub digest: Digest,
}

/// What somebody wants to change, before it has its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// See [`Version::time`].
    pub time: u64,
    /// See [`Version::author`].
    pub author: String,
    /// See [`Version::words`].
    pub words: String,
    /// See [`Version::digest`].
    pub digest: Digest,
}

impl Version {
    /// The draft on top of `parent`, made on `node`.
    pub fn new(parent: Option<&Version>, node: u8, draft: &Draft) -> Version {
        let version = Version {
            id: VersionId::ROOT,
            parent: parent.map_or(VersionId::ROOT, |parent| parent.id),
            number: parent.map_or(0, |parent| parent.number) + 1,
            node,
            time: draft.time,
            author: draft.author.clone(),
            words: draft.words.clone(),
            digest: draft.digest,
        };
        let id = version.name();
        Version { id, ..version }
    }

    /// The name that it has by rights.
    fn name(&self) -> VersionId {
        let mut hash = Context::new(&SHA256);
        hash.update(&self.parent.0);
        hash.update(&self.number.to_be_bytes());
        hash.update(&[self.node]);
        hash.update(&self.time.to_be_bytes());
        part(&mut hash, self.author.as_bytes());
        part(&mut hash, self.words.as_bytes());
        hash.update(&self.digest.0);
        let mut name = [0; 16];
        name.copy_from_slice(&whole(hash)[..16]);
        VersionId(name)
    }

    /// Whether it has the name of what it says.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn proves_itself(&self) -> Result<(), String> {
        match self.name() == self.id {
            true => Ok(()),
            false => Err(format!(
                "version {} is not what its name says: it would be {}",
                self.id,
                self.name()
            )),
        }
    }

    /// The same, and whether these records are what it changes.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn proves(&self, records: &[Record]) -> Result<(), String> {
        self.proves_itself()?;
        match Digest::of(records) == self.digest {
            true => Ok(()),
            false => Err(format!(
                "what version {} changes is not what its name says",
                self.id
            )),
        }
    }
}
