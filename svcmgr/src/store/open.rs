//! Opening the store at the start: one process only; a damaged database is rebuilt from the newest good snapshot, one that
//! cannot be written is at least read; and getting it back when it can be written again.
//!
//! ```text
//!                     ┌─ as it was left ──────────────────────────▶ store and state
//!  open ── database ──┼─ older schema ── copied, brought up to date ▶ store and state
//!                     ├─ damaged, or older than it has to be ── moved aside, rebuilt from a snapshot ▶ store, state, notice
//!                     ├─ damaged, no snapshot ─────────────────────▶ nothing: "hopeless"
//!                     ├─ newer schema, in use, not ours to read ───▶ an error, the program ends
//!                     └─ no room, read-only, I/O errors ── a copy in memory is read ▶ state, trouble
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ilb_node::journal::events::{DATABASE_DAMAGED, DEGRADED};

use super::codec::SCHEMA;
use super::lock::Lock;
use super::sled_store::{SledStore, io_error, sync_folder};
use super::snapshots::Snapshots;
use super::{Keeper, Store, StoreError, watermark};
use crate::author::Author;
use crate::history::{Entry, Undo};
use crate::state::State;

/// What is known about the configuration after the start.
pub struct Opened {
    /// The database; `None` while it cannot be written.
    pub store: Option<Arc<dyn Store>>,
    /// Its contents.
    pub state: State,
    /// What a person should know: that it was rebuilt, or why it cannot be written. Usually empty.
    pub notice: String,
}

/// Why the store is not there, and what can be known without it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Stop and say why.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database is damaged and there is nothing to rebuild it from: touch nothing, forward on.
    #[error(
        "{damage}; there is no good snapshot in {snapshots} to rebuild it from. The fast path goes on with what it \
         has. Put a snapshot there and restart ilb, or move {database} away to begin with an empty configuration"
    )]
    Hopeless {
        /// What is wrong.
        damage: Box<StoreError>,
        /// The database.
        database: PathBuf,
        /// Where snapshots were looked for.
        snapshots: PathBuf,
    },
}

/// Where the database and its snapshots are. As long as this lives, no other process has them.
pub struct Place {
    database: PathBuf,
    snapshots: Snapshots,
    folder: PathBuf,
    /// A folder in memory, for a copy of a database that can only be read.
    scratch: PathBuf,
    lock: Mutex<Option<Lock>>,
}

impl Place {
    /// The database at `database`, its snapshots in the folder `snapshots`; `scratch` is in memory.
    pub fn new(database: &Path, snapshots: &Path, scratch: &Path) -> Place {
        Place {
            database: database.to_owned(),
            snapshots: Snapshots::new(snapshots),
            folder: snapshots.to_owned(),
            scratch: scratch.to_owned(),
            lock: Mutex::default(),
        }
    }

    /// The database.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// Opens it for reading and writing, or if that is not possible says what it holds.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self) -> Result<Opened, OpenError> {
        match self.open_writable() {
            Err(OpenError::Store(error)) if error.is_about_writing() => self.look(error),
            other => other,
        }
    }

    fn open_writable(&self) -> Result<Opened, OpenError> {
        let database = self.database.as_path();
        let parent = database.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        self.take_lock()?;
        self.finish_renewal()?;
        let fresh = !database.exists();
        if fresh {
            self.put(&State::default(), None)?;
        }
        let expected = self.expected();
        let (damage, readable) = match SledStore::open(database) {
            Ok((store, state, schema)) if expected <= state.generation => {
                return self.opened(store, state, schema);
            }
            // What was acknowledged is on the disk, so it cannot be older.
            Ok((_, state, _)) => {
                let reason = format!(
                    "it has generation {}, but generation {expected} was written after it",
                    state.generation
                );
                let path = database.to_owned();
                (StoreError::Damaged { path, reason }, Some(state))
            }
            Err(error) if error.is_damage() => (error, None),
            Err(error) => return Err(error.into()),
        };
        // Of a new database nothing is readable that counts.
        let readable = readable.filter(|_| !fresh).map(|state| (state, None));
        let snapshot = self
            .snapshots
            .newest_good()
            .map(|(state, path)| (state, Some(path)));
        let best = [readable, snapshot].into_iter().flatten();
        let Some((state, source)) = best.max_by_key(|(state, _)| state.generation) else {
            if fresh {
                return self.begin_empty();
            }
            return Err(OpenError::Hopeless {
                damage: Box::new(damage),
                database: database.to_owned(),
                snapshots: self.folder.clone(),
            });
        };
        self.rebuild(&damage, state, source.as_deref())
    }

    /// The generation that the database has at least, by what else was written.
    fn expected(&self) -> u64 {
        let snapshot = self.snapshots.newest_generation().unwrap_or(0);
        snapshot.max(watermark::read(&self.database).unwrap_or(0))
    }

    fn opened(&self, store: SledStore, mut state: State, schema: u32) -> Result<Opened, OpenError> {
        let store = match schema {
            SCHEMA => store,
            older => {
                drop(store);
                let kept = beside(&self.database, &format!(".schema-{older}"));
                copy_folder(&self.database, &kept)?;
                let (store, _, _) = SledStore::open(&self.database)?;
                store.migrate()?;
                tracing::warn!(
                    "the database {} had schema {older} and has {SCHEMA} now; what it was is kept in {}",
                    self.database.display(),
                    kept.display()
                );
                // Schema 1 had no history: it begins with this. Later ones know who made the present generation.
                if older == 1 {
                    let words = format!("taken over from schema {older}");
                    let before = state.clone();
                    enter(&mut state, before.generation, words);
                    store.replace(&before, &state)?;
                }
                store
            }
        };
        Ok(Opened {
            store: Some(Arc::new(store)),
            state,
            notice: String::new(),
        })
    }

    fn rebuild(
        &self,
        damage: &StoreError,
        mut state: State,
        source: Option<&Path>,
    ) -> Result<Opened, OpenError> {
        let database = self.database.as_path();
        let aside = aside(database);
        let (from, what) = match source {
            Some(path) => (path.display().to_string(), "of the snapshot"),
            None => ("what could be read of it".to_owned(), "that could be read"),
        };
        let words = format!("rebuilt from generation {} {what}", state.generation);
        // The fast path may have seen later generations.
        let generation = self.expected().max(state.generation) + 1;
        enter(&mut state, generation, words);
        let store = self.put(&state, Some(&aside))?;
        watermark::write(database, state.generation);
        let notice = format!(
            "{damage}; it was rebuilt from {from} and the damaged one moved to {}: compare 'lbadm show-rule' with what you expect",
            aside.display()
        );
        tracing::error!(
            message_id = DATABASE_DAMAGED.id,
            ilb_database = %database.display(),
            "{notice}"
        );
        Ok(Opened {
            store: Some(Arc::new(store)),
            state,
            notice,
        })
    }

    /// There is no database and no good snapshot: an empty configuration, numbered after everything that ever was.
    fn begin_empty(&self) -> Result<Opened, OpenError> {
        let mut state = State::default();
        enter(&mut state, self.expected() + 1, "beginning".to_owned());
        let store = self.put(&state, None)?;
        watermark::write(&self.database, state.generation);
        tracing::warn!("no database and no good snapshot: beginning with an empty configuration");
        Ok(Opened {
            store: Some(Arc::new(store)),
            state,
            notice: String::new(),
        })
    }

    /// What can be known of a database that cannot be written.
    fn look(&self, error: StoreError) -> Result<Opened, OpenError> {
        self.take_lock_for_reading()?;
        let copy = self
            .scratch
            .join(format!("database-{}", std::process::id()));
        let read = copy_folder(&self.database, &copy).and_then(|()| SledStore::open(&copy));
        if let Err(error) = fs::remove_dir_all(&copy) {
            tracing::debug!("{}: {error}", copy.display());
        }
        let (state, from) = match read {
            Ok((_, state, _)) => (state, "the database"),
            Err(unreadable) => {
                tracing::error!("{unreadable}");
                let Some((state, _)) = self.snapshots.newest_good() else {
                    return Err(error.into());
                };
                (state, "the newest snapshot")
            }
        };
        let notice = format!("{error}; the configuration is that of {from}");
        tracing::error!(
            message_id = DEGRADED.id,
            ilb_generation = state.generation,
            "{notice}"
        );
        Ok(Opened {
            store: None,
            state,
            notice,
        })
    }

    /// Makes a database that holds `state` and puts it in its place, whole. The one that is there goes to `aside`, or goes.
    fn put(&self, state: &State, aside: Option<&Path>) -> Result<SledStore, StoreError> {
        let database = self.database.as_path();
        let (new, old) = (beside(database, ".new"), beside(database, ".old"));
        SledStore::create(&new, state)?;
        let away = aside.unwrap_or(&old);
        if database.exists() {
            fs::rename(database, away).map_err(io_error("move aside", database))?;
        }
        fs::rename(&new, database).map_err(io_error("rename", &new))?;
        database.parent().map_or(Ok(()), sync_folder)?;
        if old.exists() {
            fs::remove_dir_all(&old).map_err(io_error("delete", &old))?;
        }
        let (store, found, _) = SledStore::open(database)?;
        if found != *state {
            let reason = "what was just written is not what is read".to_owned();
            let path = database.to_owned();
            return Err(StoreError::Damaged { path, reason });
        }
        Ok(store)
    }

    /// An earlier process may have been killed within [`Place::put`].
    fn finish_renewal(&self) -> Result<(), StoreError> {
        let (database, old) = (self.database.as_path(), beside(&self.database, ".old"));
        if !old.exists() {
            return Ok(());
        }
        match database.exists() {
            true => fs::remove_dir_all(&old).map_err(io_error("delete", &old)),
            false => fs::rename(&old, database).map_err(io_error("rename", &old)),
        }
    }

    fn take_lock(&self) -> Result<(), StoreError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was taken for reading is as good, but has nobody's number in it.
        if lock.as_ref().is_none_or(|lock| !lock.is_named()) {
            *lock = None;
            *lock = Some(Lock::take(&self.database)?);
        }
        Ok(())
    }

    fn take_lock_for_reading(&self) -> Result<(), StoreError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            *lock = Lock::take_for_reading(&self.database)?;
        }
        Ok(())
    }
}

impl Keeper for Place {
    fn renew(&self, state: &State, damaged: bool) -> Result<Arc<dyn Store>, StoreError> {
        self.probe()?;
        let aside = damaged.then(|| aside(&self.database));
        let store = self.put(state, aside.as_deref())?;
        watermark::write(&self.database, state.generation);
        Ok(Arc::new(store))
    }

    fn reopen(&self) -> Result<Opened, OpenError> {
        self.probe()?;
        self.open_writable()
    }
}

impl Place {
    /// Whether something can be written at all, before more is tried.
    fn probe(&self) -> Result<(), StoreError> {
        let path = beside(&self.database, ".probe");
        let written = fs::File::create(&path).and_then(|mut file| {
            std::io::Write::write_all(&mut file, &vec![0; 1 << 20])?;
            file.sync_all()
        });
        let removed = match path.exists() {
            true => fs::remove_file(&path),
            false => Ok(()),
        };
        written.and(removed).map_err(io_error("write", &path))
    }
}

/// Notes in the history that `state` goes on as this generation without anybody having changed it.
fn enter(state: &mut State, generation: u64, words: String) {
    let before = state.generation;
    state.generation = generation;
    let entry = Entry {
        time: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        author: Author::Manager,
        words,
        before: before.min(generation.saturating_sub(1)),
        undo: (before < generation).then(|| Arc::new(Undo::default())),
    };
    state.history.push(generation, entry);
}

/// The database's name with an ending.
fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// A name beside the database that nothing has yet.
fn aside(database: &Path) -> PathBuf {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut attempt = 0;
    loop {
        let ending = match attempt {
            0 => format!(".damaged-{seconds}"),
            _ => format!(".damaged-{seconds}.{attempt}"),
        };
        let path = beside(database, &ending);
        if !path.exists() {
            return path;
        }
        attempt += 1;
    }
}

/// A copy of a folder with all that is in it; what was there goes.
pub(super) fn copy_folder(from: &Path, to: &Path) -> Result<(), StoreError> {
    if to.exists() {
        fs::remove_dir_all(to).map_err(io_error("delete", to))?;
    }
    fs::create_dir_all(to).map_err(io_error("create", to))?;
    for entry in fs::read_dir(from).map_err(io_error("read", from))? {
        let entry = entry.map_err(io_error("read", from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(io_error("copy", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
