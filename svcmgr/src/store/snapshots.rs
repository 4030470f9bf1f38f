//! The state as text: one canonical TOML file for each change, the last ten kept. A damaged database is rebuilt from them,
//! and a person can read and compare them. They have the history, too, but not the ways back.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libilb::healthcheck::HealthCheck;
use libilb::model::{Configuration, Rule, ServerGroup, key};
use libilb::vrrp::VrrpInstance;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::codec::{self, HistoryRecord, OLDEST_SCHEMA, PairRecord, SCHEMA, VersionRecord};
use super::sled_store::{io_error, sync_folder};
use crate::history::{Entry, History};
use crate::pending::Pending;
use crate::retired::{Retired, RetiredRule, RetiredServer};
use crate::state::State;

/// How many files are kept.
pub const KEPT: usize = 10;
/// How much of the history a file has.
pub const CHANGES: usize = 100;

const PREFIX: &str = "configuration-";
const SUFFIX: &str = ".toml";

const HEAD: &str = "\
# Configuration of the ilb load balancer, written by ilb-svcmgr after each change. Changing this file changes nothing:
# use lbadm(8). It is read only when the database is damaged.
";

/// The last line. A file that was cut off may well be a configuration, but another one.
const END: &str = "# The end.\n";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    schema: u32,
    generation: u64,
    next_rule: u32,
    next_server: u32,
    #[serde(default)]
    servergroup: Vec<ServerGroup>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    healthcheck: Vec<HealthCheck>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    vrrp: Vec<VrrpInstance>,
    #[serde(default)]
    rule: Vec<Rule>,
    #[serde(default)]
    retired_rule: Vec<RetiredRule>,
    #[serde(default)]
    retired_server: Vec<RetiredServerOfRule>,
    #[serde(default)]
    address: Vec<Address>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending: Option<Pending>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pair: Option<Pair>,
    /// Newest first.
    #[serde(default)]
    change: Vec<ChangeOfGeneration>,
}

/// The pair, with as many versions as there are changes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Pair {
    #[serde(flatten)]
    record: PairRecord,
    /// Oldest first.
    #[serde(default)]
    version: Vec<VersionRecord>,
}

#[derive(Serialize, Deserialize)]
struct ChangeOfGeneration {
    generation: u64,
    #[serde(flatten)]
    record: HistoryRecord,
}

#[derive(Serialize, Deserialize)]
struct RetiredServerOfRule {
    rule: u32,
    #[serde(flatten)]
    record: RetiredServer,
}

#[derive(Serialize, Deserialize)]
struct Address {
    address: std::net::IpAddr,
    interface: String,
}

/// The folder of the snapshots.
#[derive(Debug, Clone)]
pub struct Snapshots {
    folder: PathBuf,
}

impl Snapshots {
    /// Uses `folder`, created with the first snapshot.
    pub fn new(folder: &Path) -> Snapshots {
        Snapshots {
            folder: folder.to_owned(),
        }
    }

    /// Writes a state and deletes what is older than the last [`KEPT`]. Either the whole file is there or none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn write(&self, state: &State) -> Result<PathBuf, StoreError> {
        fs::create_dir_all(&self.folder).map_err(io_error("create", &self.folder))?;
        let path = self.folder.join(file_name(state.generation));
        let temporary = self.folder.join(".writing");
        let text = to_text(state).map_err(|reason| StoreError::Damaged {
            path: path.clone(),
            reason,
        })?;
        let mut file = File::create(&temporary).map_err(io_error("create", &temporary))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(io_error("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(io_error("rename", &temporary))?;
        sync_folder(&self.folder)?;
        for (_, old) in self.list()?.into_iter().skip(KEPT) {
            fs::remove_file(&old).map_err(io_error("delete", &old))?;
        }
        Ok(path)
    }

    /// The state of one generation.
    ///
    /// # Errors
    /// Why it cannot be had: there is no such file, or it is not usable.
    pub fn read(&self, generation: u64) -> Result<State, String> {
        let path = self.folder.join(file_name(generation));
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let state = from_text(&text)?;
        match state.generation == generation {
            true => Ok(state),
            false => Err(format!("it has generation {}", state.generation)),
        }
    }

    /// The generations that there are files of, whether good or not, newest first.
    pub fn generations(&self) -> Vec<u64> {
        let files = self.list().unwrap_or_default();
        files
            .into_iter()
            .map(|(generation, _)| generation)
            .collect()
    }

    /// The newest state that can be read and is valid, and its file. Others are named in the log.
    pub fn newest_good(&self) -> Option<(State, PathBuf)> {
        let files = self.list().unwrap_or_else(|error| {
            tracing::error!("{error}");
            Vec::new()
        });
        files.into_iter().find_map(|(_, path)| {
            let state = fs::read_to_string(&path)
                .map_err(|error| error.to_string())
                .and_then(|text| from_text(&text));
            match state {
                Ok(state) => Some((state, path)),
                Err(reason) => {
                    tracing::error!("snapshot {} is not usable: {reason}", path.display());
                    None
                }
            }
        })
    }

    /// Generation of the newest file, whether good or not.
    pub fn newest_generation(&self) -> Option<u64> {
        Some(self.list().ok()?.first()?.0)
    }

    /// Generations and files, newest first.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>, StoreError> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&self.folder).map_err(io_error("read", &self.folder))?;
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_error("read", &self.folder))?;
            if let Some(generation) = entry.file_name().to_str().and_then(generation_of) {
                files.push((generation, entry.path()));
            }
        }
        files.sort_by(|a, b| b.cmp(a));
        Ok(files)
    }
}

fn file_name(generation: u64) -> String {
    format!("{PREFIX}{generation:020}{SUFFIX}")
}

fn generation_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?
        .strip_suffix(SUFFIX)?
        .parse()
        .ok()
}

/// The canonical text of a state: the same state gives the same text.
fn to_text(state: &State) -> Result<String, String> {
    let document = Document {
        schema: SCHEMA,
        generation: state.generation,
        next_rule: state.configuration.next_rule,
        next_server: state.configuration.next_server,
        servergroup: cloned(state.configuration.groups.values()),
        healthcheck: cloned(state.configuration.checks.values()),
        vrrp: cloned(state.configuration.vrrp.values()),
        rule: cloned(state.configuration.rules.values()),
        retired_rule: cloned(state.retired.rules.values()),
        retired_server: state
            .retired
            .servers
            .iter()
            .map(|((rule, _), record)| RetiredServerOfRule {
                rule: *rule,
                record: record.as_ref().clone(),
            })
            .collect(),
        address: state
            .addresses
            .iter()
            .map(|(address, interface)| Address {
                address: *address,
                interface: interface.clone(),
            })
            .collect(),
        change: changes(&state.history),
        pending: state.pending.as_deref().cloned(),
        pair: state.pair.as_deref().map(|pair| {
            let versions = pair.line.versions();
            let older = versions.len().saturating_sub(CHANGES);
            Pair {
                record: PairRecord::from(pair),
                version: versions
                    .iter()
                    .skip(older)
                    .map(|kept| VersionRecord::from(&**kept))
                    .collect(),
            }
        }),
    };
    let text = toml::to_string(&document).map_err(|error| error.to_string())?;
    Ok(format!("{HEAD}{text}{END}"))
}

/// The newest entries, without their ways back.
fn changes(history: &History) -> Vec<ChangeOfGeneration> {
    let entries: Vec<_> = history.entries.iter().collect();
    let newest = entries.into_iter().rev().take(CHANGES);
    let change = |(generation, entry): (&u64, &Arc<Entry>)| ChangeOfGeneration {
        generation: *generation,
        record: HistoryRecord {
            undo: None,
            ..HistoryRecord::from(entry.as_ref())
        },
    };
    newest.map(change).collect()
}

fn cloned<'a, T: Clone + 'a>(items: impl Iterator<Item = &'a Arc<T>>) -> Vec<T> {
    items.map(|item| item.as_ref().clone()).collect()
}

fn from_text(text: &str) -> Result<State, String> {
    let document: Document = toml::from_str(text).map_err(|error| error.to_string())?;
    // Schema 1 did not have it yet.
    if document.schema > 1 && !text.ends_with(END) {
        return Err("it is cut off: its last line is missing".to_owned());
    }
    if !(OLDEST_SCHEMA..=SCHEMA).contains(&document.schema) {
        return Err(format!(
            "schema {}, which this version does not know",
            document.schema
        ));
    }
    let mut history = History::default();
    for change in document.change {
        let entry = Arc::new(change.record.entry(None));
        history.entries.insert(change.generation, entry);
    }
    let state = State {
        generation: document.generation,
        configuration: Configuration {
            rules: document
                .rule
                .into_iter()
                .map(|rule| (key(&rule.name), Arc::new(rule)))
                .collect(),
            groups: document
                .servergroup
                .into_iter()
                .map(|mut group| {
                    group.settle();
                    (key(&group.name), Arc::new(group))
                })
                .collect(),
            checks: document
                .healthcheck
                .into_iter()
                .map(|check| (key(&check.name), Arc::new(check)))
                .collect(),
            vrrp: document
                .vrrp
                .into_iter()
                .map(|instance| (key(&instance.name), Arc::new(instance)))
                .collect(),
            next_rule: document.next_rule,
            next_server: document.next_server,
        },
        retired: Retired {
            rules: document
                .retired_rule
                .into_iter()
                .map(|record| (record.rule.number, Arc::new(record)))
                .collect(),
            servers: document
                .retired_server
                .into_iter()
                .map(|item| {
                    let place = (item.rule, item.record.server.number);
                    (place, Arc::new(item.record))
                })
                .collect(),
        },
        addresses: document
            .address
            .into_iter()
            .map(|item| (item.address, item.interface))
            .collect(),
        history,
        pending: document.pending.map(Arc::new),
        pair: match document.pair {
            Some(pair) => Some(Arc::new(pair.record.followed(pair.version)?)),
            None => None,
        },
    };
    codec::check(&state).map_err(|error| error.to_string())?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec::tests::full_state;
    use crate::test_folder::TestFolder;

    #[test]
    fn a_state_survives_its_text() {
        let mut state = full_state();
        let text = to_text(&state).unwrap();
        // Everything but the ways back.
        for generation in [7, 40, 42] {
            let entry = state.history.entries.get_mut(&generation).unwrap();
            Arc::make_mut(entry).undo = None;
        }
        assert_eq!(from_text(&text).unwrap(), state);
        assert_eq!(to_text(&from_text(&text).unwrap()).unwrap(), text);
        assert!(text.contains("\n[[rule]]\n"), "{text}");
        let empty = State::default();
        assert_eq!(from_text(&to_text(&empty).unwrap()).unwrap(), empty);
    }

    #[test]
    fn the_last_ten_are_kept_and_nothing_else() {
        let folder = TestFolder::new("snapshots");
        let snapshots = Snapshots::new(&folder.path().join("s"));
        let mut state = full_state();
        state.history = History::default();
        for generation in 1..=13 {
            state.generation = generation;
            snapshots.write(&state).unwrap();
        }
        let mut names: Vec<String> = fs::read_dir(folder.path().join("s"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected: Vec<String> = (4..=13).map(file_name).collect();
        assert_eq!(names, expected);
        assert_eq!(snapshots.newest_good().unwrap().0, state);
        assert_eq!(snapshots.generations(), Vec::from_iter((4..=13).rev()));
        assert_eq!(snapshots.read(7).unwrap().generation, 7);
        assert!(snapshots.read(3).is_err());
        assert_eq!(snapshots.newest_generation(), Some(13));
    }

    #[test]
    fn bad_files_are_passed_over() {
        let folder = TestFolder::new("bad-snapshots");
        let snapshots = Snapshots::new(folder.path());
        let mut state = full_state();
        for generation in 1..=3 {
            state.generation = generation;
            snapshots.write(&state).unwrap();
        }
        // Cut in the middle, and whole but contradicting itself.
        let cut = folder.path().join(file_name(3));
        let text = fs::read_to_string(&cut).unwrap();
        for length in 0..text.len() {
            assert!(from_text(&text[..length]).is_err(), "cut at {length}");
        }
        fs::write(&cut, &text[..text.len() / 2]).unwrap();
        let wrong = folder.path().join(file_name(2));
        let text = fs::read_to_string(&wrong).unwrap();
        fs::write(
            &wrong,
            text.replace("servergroup = \"Web\"", "servergroup = \"nowhere\""),
        )
        .unwrap();
        assert_eq!(snapshots.newest_good().unwrap().0.generation, 1);
        fs::remove_file(folder.path().join(file_name(1))).unwrap();
        assert!(snapshots.newest_good().is_none());
    }
}
