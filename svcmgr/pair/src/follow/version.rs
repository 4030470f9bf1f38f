//! One change of the configuration, as both nodes know it.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

/// See the module.
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
    /// Anything that depends on all that changes.
    pub content: Vec<u8>,
}

impl Version {
    /// The draft on top of `parent`, made on `node`.
    pub fn new(parent: Option<&Version>, node: u8, draft: &Draft) -> Version {
        let number = parent.map_or(0, |parent| parent.number) + 1;
        let parent = parent.map_or(VersionId::ROOT, |parent| parent.id);
        let mut hash = Context::new(&SHA256);
        hash.update(&parent.0);
        hash.update(&[node]);
        hash.update(&draft.time.to_be_bytes());
        for part in [
            draft.author.as_bytes(),
            draft.words.as_bytes(),
            &draft.content,
        ] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finish();
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_ref()[..16]);
        Version {
            id: VersionId(id),
            parent,
            number,
            node,
            time: draft.time,
            author: draft.author.clone(),
            words: draft.words.clone(),
        }
    }
}
