//! Records of the pair: which node this is, and the versions of the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use ilb_pair::follow::{Kept, Line, Version};
use serde::{Deserialize, Serialize};

use super::{Change, DecodeError, Tree, json, parse, same_key};
use crate::followed::{Followed, Notice};

/// Everything but the versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PairRecord {
    node: u8,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    incomplete: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notices: Vec<Notice>,
}

/// A version, and the generation that it is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    generation: u64,
    #[serde(flatten)]
    version: Version,
}

impl From<&Followed> for PairRecord {
    fn from(pair: &Followed) -> PairRecord {
        PairRecord {
            node: pair.node,
            incomplete: pair.incomplete,
            notices: pair.notices.clone(),
        }
    }
}

impl From<&Kept> for VersionRecord {
    fn from(kept: &Kept) -> VersionRecord {
        VersionRecord {
            generation: kept.mark,
            version: kept.version.clone(),
        }
    }
}

impl PairRecord {
    /// The whole, with these versions, oldest first.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn followed(
        self,
        versions: impl IntoIterator<Item = VersionRecord>,
    ) -> Result<Followed, String> {
        let kept = versions.into_iter().map(|record| Kept {
            version: record.version,
            mark: record.generation,
        });
        if self.node > 1 {
            return Err(format!("node {}: 0 and 1 are allowed", self.node));
        }
        Ok(Followed {
            node: self.node,
            line: Line::new(kept)?,
            incomplete: self.incomplete,
            notices: self.notices,
        })
    }
}

/// What has to be written when the pair `before` becomes `after`.
pub(super) fn changes(
    before: Option<&Arc<Followed>>,
    after: Option<&Arc<Followed>>,
    list: &mut Vec<Change>,
) {
    if before == after {
        return;
    }
    let record = |pair: &Arc<Followed>| PairRecord::from(&**pair);
    let (old, new) = (before.map(record), after.map(record));
    if old != new {
        let key = (Tree::Pair, Tree::Pair.name().into());
        list.push((key, new.map(|new| json(&new))));
    }
    fn versions(pair: Option<&Arc<Followed>>) -> BTreeMap<u64, &Arc<Kept>> {
        let versions = pair.into_iter().flat_map(|pair| pair.line.versions());
        versions.map(|kept| (kept.version.number, kept)).collect()
    }
    let (old, new) = (versions(before), versions(after));
    let key = |number: u64| (Tree::Pair, number.to_be_bytes().to_vec());
    for number in old.keys().filter(|number| !new.contains_key(number)) {
        list.push((key(*number), None));
    }
    for (number, kept) in new {
        if old.get(&number) != Some(&kept) {
            list.push((key(number), Some(json(&VersionRecord::from(&**kept)))));
        }
    }
}

/// Collects what is known of the pair while records are read.
#[derive(Default)]
pub(super) struct Reader {
    pair: Option<PairRecord>,
    /// By number.
    versions: BTreeMap<u64, VersionRecord>,
}

impl Reader {
    /// A record of [`Tree::Pair`].
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        if let Ok(number) = key.try_into().map(u64::from_be_bytes) {
            let record: VersionRecord = parse(value)?;
            same_key(&record.version.number.to_be_bytes(), key)?;
            self.versions.insert(number, record);
            return Ok(());
        }
        same_key(Tree::Pair.name().as_bytes(), key)?;
        self.pair = Some(parse(value)?);
        Ok(())
    }

    /// Everything has been read.
    pub(super) fn finish(self) -> Result<Option<Arc<Followed>>, DecodeError> {
        match self.pair {
            Some(pair) => {
                let followed = pair.followed(self.versions.into_values());
                Ok(Some(Arc::new(followed.map_err(DecodeError::Whole)?)))
            }
            None if self.versions.is_empty() => Ok(None),
            None => Err(DecodeError::Whole(
                "there are versions of a pair, and there is no pair".to_owned(),
            )),
        }
    }
}
