//! The database: sled 0.34.7 used by the recipe that makes "acknowledged" mean "durable".
//!
//! A change is one transaction over all trees. After it comes `flush`, which hands everything to the kernel, and then
//! `sync_data` on file descriptors of our own, because sled's flush ends in `sync_file_range`, which does not survive a
//! power loss.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};

use super::codec::{self, Change, DecodeError, Records, SCHEMA, Tree};
use super::seal::Seal;
use super::{EIO, Store, StoreError, watermark};
use crate::state::State;

/// Memory for sled's page cache, in bytes. All of a usual configuration fits, and the manager keeps it in memory anyway.
const CACHE_BYTES: u64 = 8 << 20;
/// How long to wait for a lock of the library's own; [`super::lock`] keeps other processes away.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
pub struct SledStore {
    path: PathBuf,
    db: sled::Db,
    trees: Vec<sled::Tree>,
    /// Of what it holds.
    seal: Mutex<Seal>,
}

impl SledStore {
    /// Creates a database in the folder `path` that holds `state`; what was there goes. Not whole before it returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn create(path: &Path, state: &State) -> Result<(), StoreError> {
        if path.exists() {
            fs::remove_dir_all(path).map_err(io_error("delete", path))?;
        }
        let store = SledStore::open_unguarded(path)?;
        let records = codec::encode(state);
        let changes: Vec<Change> = records.into_iter().map(|(k, v)| (k, Some(v))).collect();
        if let Err(error) = store.write_guarded(&changes) {
            // It writes when it is closed, and panics if it cannot.
            std::mem::forget(store);
            return Err(error);
        }
        catch_unwind(AssertUnwindSafe(|| drop(store))).map_err(|panic| {
            tracing::debug!("{}", panic_text(panic.as_ref()));
            io_error("close", path)(io::Error::from_raw_os_error(EIO))
        })
    }

    /// Opens the database in the folder `path`, and reads and checks every record. Says by which schema it was written.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::is_damage`] tells whether the contents are bad.
    pub fn open(path: &Path) -> Result<(SledStore, State, u32), StoreError> {
        // sled panics on some kinds of damage, and takes other kinds for an empty database.
        let (store, records) = catch_unwind(AssertUnwindSafe(|| {
            let store = SledStore::open_unguarded(path)?;
            let records = store.records()?;
            Ok((store, records))
        }))
        .unwrap_or_else(|panic| Err(damaged(path, panic_text(panic.as_ref()))))?;
        let decoded = codec::schema(&records).and_then(|schema| {
            let state = codec::decode(&records)?;
            Ok((schema, state))
        });
        let (schema, state) = decoded.map_err(|error| match error {
            DecodeError::Schema(found) => StoreError::Schema {
                path: path.to_owned(),
                found,
                known: SCHEMA,
            },
            other => damaged(path, other.to_string()),
        })?;
        store.set_seal(Seal::of(&records));
        Ok((store, state, schema))
    }

    fn open_unguarded(path: &Path) -> Result<SledStore, StoreError> {
        let failed = |source| StoreError::Database {
            path: path.to_owned(),
            source,
        };
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            // We flush after each change ourselves; a thread that wakes up for it would only burn time.
            .flush_every_ms(None);
        let end = Instant::now() + LOCK_PATIENCE;
        let db = loop {
            match config.open() {
                // One that we have just closed is kept by a thread of the library for a moment longer.
                Err(sled::Error::Io(error))
                    if error.to_string().contains("lock") && Instant::now() < end =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => break other.map_err(failed)?,
            }
        };
        let trees = Tree::ALL
            .iter()
            .map(|tree| db.open_tree(tree.name()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        Ok(SledStore {
            path: path.to_owned(),
            db,
            trees,
            seal: Mutex::default(),
        })
    }

    fn records(&self) -> Result<Records, StoreError> {
        let mut records = Records::new();
        for tree in Tree::ALL {
            for item in self.trees[tree as usize].iter() {
                let (key, value) = item.map_err(|source| self.failed(source))?;
                records.insert((tree, key.to_vec()), value.to_vec());
            }
        }
        Ok(records)
    }

    /// Makes the records of an older schema those of the present one.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing is known about what it holds.
    pub fn migrate(&self) -> Result<(), StoreError> {
        self.write_guarded(&codec::migration())
    }

    fn set_seal(&self, seal: Seal) {
        *self.seal.lock().unwrap_or_else(PoisonError::into_inner) = seal;
    }

    /// One transaction, sealed, and durable.
    fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        let sealed = *self.seal.lock().unwrap_or_else(PoisonError::into_inner);
        let seal = self
            .trees
            .as_slice()
            .transaction(|trees| {
                // It may have to be done again.
                let mut seal = sealed;
                for (key, value) in changes {
                    let tree = &trees[key.0 as usize];
                    let old = match value {
                        Some(value) => tree.insert(key.1.as_slice(), value.as_slice())?,
                        None => tree.remove(key.1.as_slice())?,
                    };
                    seal.replace(key, old.as_deref(), value.as_deref());
                }
                for ((tree, key), value) in seal.stored() {
                    trees[tree as usize].insert(key, value)?;
                }
                Ok::<Seal, ConflictableTransactionError<()>>(seal)
            })
            .map_err(|error| match error {
                TransactionError::Storage(source) => self.failed(source),
                TransactionError::Abort(()) => {
                    self.failed(sled::Error::Unsupported("aborted".to_owned()))
                }
            })?;
        self.db.flush().map_err(|source| self.failed(source))?;
        self.sync()?;
        self.set_seal(seal);
        Ok(())
    }

    fn write_guarded(&self, changes: &[Change]) -> Result<(), StoreError> {
        catch_unwind(AssertUnwindSafe(|| self.write(changes)))
            .unwrap_or_else(|panic| Err(damaged(&self.path, panic_text(panic.as_ref()))))
    }

    /// Makes everything that was flushed survive a power loss.
    fn sync(&self) -> Result<(), StoreError> {
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).map_err(io_error("read", &folder))?;
            for entry in entries {
                let path = entry.map_err(io_error("read", &folder))?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                match File::open(&path) {
                    Ok(file) => file.sync_data().map_err(io_error("sync", &path))?,
                    // sled deletes files that it has replaced.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(io_error("open", &path)(error)),
                }
            }
            // Files that a write has created, such as those of large values.
            sync_folder(&folder)?;
        }
        Ok(())
    }

    fn failed(&self, source: sled::Error) -> StoreError {
        StoreError::Database {
            path: self.path.clone(),
            source,
        }
    }
}

impl Store for SledStore {
    fn replace(&self, before: &State, after: &State) -> Result<(), StoreError> {
        self.write_guarded(&codec::changes(before, after))?;
        watermark::write(&self.path, after.generation);
        Ok(())
    }
}

/// Makes the entries of a folder survive a power loss.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(io_error("sync", folder))
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}

fn damaged(path: &Path, reason: String) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        reason,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!(
        "the database library gave up: {}",
        text.unwrap_or("no reason")
    )
}
