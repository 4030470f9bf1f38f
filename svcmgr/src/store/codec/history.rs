//! Records of the history: how each generation came about, and what leads back to the one before.

use std::collections::BTreeMap;
use std::sync::Arc;

use libilb::map::Map;
use libilb::model::Configuration;
use serde::{Deserialize, Serialize};

use super::{Change, DecodeError, Key, Records, Tree, bad, decode_state, encode, json, parse};
use crate::author::Author;
use crate::history::{Entry, History, Undo};
use crate::state::State;

/// An [`Entry`] without its way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// See [`Entry::time`].
    pub time: u64,
    /// The author's number, if he is a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The author's name, if he has one; without a number, the group whose source it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The author's name on the other node of the pair, if he was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// See [`Entry::words`].
    pub words: String,
    /// See [`Entry::before`].
    pub before: u64,
    /// How many records the way back has; none if it is not known any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<u32>,
}

impl From<&Entry> for HistoryRecord {
    fn from(entry: &Entry) -> HistoryRecord {
        let (uid, user, peer) = match &entry.author {
            Author::Manager => (None, None, None),
            Author::Discovery(group) => (None, Some(group.clone()), None),
            Author::User { uid, name } => (Some(*uid), name.clone(), None),
            Author::Peer(name) => (None, None, Some(name.clone())),
        };
        let undo = entry.undo.as_ref();
        HistoryRecord {
            time: entry.time,
            uid,
            user,
            peer,
            words: entry.words.clone(),
            before: entry.before,
            undo: undo.map(|undo| u32::try_from(undo.changes.len()).unwrap_or(u32::MAX)),
        }
    }
}

impl HistoryRecord {
    /// The entry, with this way back.
    pub fn entry(self, undo: Option<Arc<Undo>>) -> Entry {
        Entry {
            time: self.time,
            author: match (self.peer, self.uid, self.user) {
                (Some(name), _, _) => Author::Peer(name),
                (None, Some(uid), name) => Author::User { uid, name },
                (None, None, Some(group)) => Author::Discovery(group),
                (None, None, None) => Author::Manager,
            },
            words: self.words,
            before: self.before,
            undo,
        }
    }
}

/// What has to be written when the history `before` becomes `after`.
pub(super) fn changes(before: &History, after: &History, list: &mut Vec<Change>) {
    for entry in after.entries.since(&before.entries) {
        let generation = *entry.key;
        let record = |entry: &Arc<Entry>| HistoryRecord::from(entry.as_ref());
        let (old, new) = (entry.before.map(record), entry.after.map(record));
        if old != new {
            let key = (Tree::History, generation.to_be_bytes().to_vec());
            list.push((key, new.map(|new| json(&new))));
        }
        let undo = |entry: Option<&Arc<Entry>>| entry.and_then(|entry| entry.undo.clone());
        let (old, new) = (undo(entry.before), undo(entry.after));
        if old == new {
            continue;
        }
        let count = |undo: &Option<Arc<Undo>>| undo.as_ref().map_or(0, |undo| undo.changes.len());
        for index in count(&new)..count(&old) {
            list.push((place(generation, index), None));
        }
        for (index, change) in new.iter().flat_map(|undo| &undo.changes).enumerate() {
            list.push((place(generation, index), Some(frame(change))));
        }
    }
}

/// Key of one record of a way back.
fn place(generation: u64, index: usize) -> Key {
    let mut key = generation.to_be_bytes().to_vec();
    key.extend((index as u32).to_be_bytes());
    (Tree::Undo, key)
}

/// Length of the tree's name, its name, length of the key, the key, 1 and the value or 0.
fn frame(((tree, key), value): &Change) -> Vec<u8> {
    let name = tree.name().as_bytes();
    let mut bytes = vec![name.len() as u8];
    bytes.extend(name);
    bytes.extend((key.len() as u16).to_be_bytes());
    bytes.extend(key);
    bytes.push(u8::from(value.is_some()));
    bytes.extend(value.iter().flatten());
    bytes
}

fn unframe(bytes: &[u8]) -> Option<Change> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked((*length).into())?;
    let tree = Tree::ALL
        .into_iter()
        .find(|tree| tree.name().as_bytes() == name)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (key, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let value = match rest.split_first()? {
        (0, []) => None,
        (1, value) => Some(value.to_vec()),
        _ => return None,
    };
    tree.is_configuration()
        .then(|| ((tree, key.to_vec()), value))
}

/// Collects the history while records are read.
#[derive(Default)]
pub(super) struct Reader {
    entries: BTreeMap<u64, HistoryRecord>,
    undo: BTreeMap<u64, Undo>,
}

impl Reader {
    /// A record of [`Tree::History`].
    pub(super) fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let generation = key.try_into().map(u64::from_be_bytes);
        let generation = generation.map_err(|_| "the key is not a generation".to_owned())?;
        self.entries.insert(generation, parse(value)?);
        Ok(())
    }

    /// A record of [`Tree::Undo`]. They come in the order of their keys.
    pub(super) fn undo(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let (generation, index) = key
            .split_first_chunk::<8>()
            .and_then(|(generation, index)| {
                let index = u32::from_be_bytes(index.try_into().ok()?);
                Some((u64::from_be_bytes(*generation), index))
            })
            .ok_or("the key is not a generation and a number")?;
        let change = unframe(value).ok_or("it is not a change of the configuration")?;
        let changes = &mut self.undo.entry(generation).or_default().changes;
        if changes.len() != index as usize {
            return Err("the one before it is missing".to_owned());
        }
        changes.push(change);
        Ok(())
    }

    /// Everything has been read.
    pub(super) fn finish(mut self) -> Result<History, DecodeError> {
        let mut entries = Map::default();
        for (generation, record) in self.entries {
            let undo = self.undo.remove(&generation);
            let undo = match (record.undo, undo) {
                (None, None) => None,
                (Some(0), None) => Some(Undo::default()),
                (Some(count), Some(undo)) if undo.changes.len() == count as usize => Some(undo),
                _ => {
                    return Err(DecodeError::Whole(format!(
                        "the way back from generation {generation} is not whole"
                    )));
                }
            };
            entries.insert(generation, Arc::new(record.entry(undo.map(Arc::new))));
        }
        match self.undo.keys().next() {
            Some(generation) => Err(DecodeError::Whole(format!(
                "there is a way back from generation {generation}, which there is not"
            ))),
            None => Ok(History { entries }),
        }
    }
}

/// What leads from `after` back to `before`.
pub fn undo(before: &Configuration, after: &Configuration) -> Undo {
    let state = |configuration: &Configuration| State {
        configuration: configuration.clone(),
        ..State::default()
    };
    let mut changes = super::changes(&state(after), &state(before));
    changes.retain(|((tree, _), _)| tree.is_configuration());
    Undo { changes }
}

/// The configuration to which these ways lead back, one after the other. Counters are those of `configuration`.
///
/// # Errors
/// [`DecodeError`] when what comes of it is no valid configuration.
pub fn back(
    configuration: &Configuration,
    way: &[Arc<Undo>],
) -> Result<Configuration, DecodeError> {
    let mut records: Records = encode(&State {
        configuration: configuration.clone(),
        ..State::default()
    });
    for ((tree, key), value) in way.iter().flat_map(|undo| &undo.changes) {
        let place = (*tree, key.clone());
        match value {
            Some(value) => drop(records.insert(place, value.clone())),
            None if records.remove(&place).is_none() => {
                return Err(bad(
                    *tree,
                    key,
                    "was to be deleted and is not there".to_owned(),
                ));
            }
            None => {}
        }
    }
    Ok(decode_state(&records)?.configuration)
}
