//! Opening the store at the start: one process only, and a damaged database is rebuilt from the newest good snapshot.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::sled_store::{SledStore, io_error};
use super::snapshots::Snapshots;
use super::{Store, StoreError};
use crate::state::State;

/// How long to wait for another process to give the database free.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// A store that is open, and what it holds.
pub struct Opened {
    /// The database.
    pub store: SledStore,
    /// Its contents.
    pub state: State,
    /// What happened to the database, when it was rebuilt.
    pub rebuilt: Option<String>,
    /// Kept as long as the store is used: it locks others out.
    pub lock: Lock,
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

/// Opens the database at `database`, rebuilding it from the snapshots in `snapshots` when it is damaged.
///
/// # Errors
/// [`OpenError`].
pub fn open(database: &Path, snapshots: &Path) -> Result<Opened, OpenError> {
    let parent = database.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    let lock = Lock::take(database)?;
    let files = Snapshots::new(snapshots);
    let fresh = !database.exists();
    if fresh {
        SledStore::create(database)?;
    }
    let damage = match SledStore::open(database) {
        Ok((store, state)) => match files.newest_generation() {
            // A snapshot is written after its change is durable, so the database cannot be older.
            Some(newest) if newest > state.generation => StoreError::Damaged {
                path: database.to_owned(),
                reason: format!(
                    "it has generation {}, but a snapshot of generation {newest} was written after it",
                    state.generation
                ),
            },
            _ => {
                return Ok(Opened {
                    store,
                    state,
                    rebuilt: None,
                    lock,
                });
            }
        },
        Err(error) if error.is_damage() => error,
        Err(error) => return Err(error.into()),
    };
    let Some((mut state, source)) = files.newest_good() else {
        if fresh {
            return begin_empty(database, lock, &files);
        }
        return Err(OpenError::Hopeless {
            damage: Box::new(damage),
            database: database.to_owned(),
            snapshots: snapshots.to_owned(),
        });
    };
    let aside = aside(database);
    fs::rename(database, &aside).map_err(io_error("move aside", database))?;
    SledStore::create(database)?;
    let (store, empty) = SledStore::open(database)?;
    // The fast path may have seen later generations than the snapshot has.
    state.generation = state.generation.max(files.newest_generation().unwrap_or(0)) + 1;
    store.replace(&empty, &state)?;
    let rebuilt = format!(
        "{damage}; it was rebuilt from {} and the damaged one moved to {}: compare 'lbadm show-rule' with what you expect",
        source.display(),
        aside.display()
    );
    tracing::error!("{rebuilt}");
    Ok(Opened {
        store,
        state,
        rebuilt: Some(rebuilt),
        lock,
    })
}

/// There is no database and no good snapshot: an empty configuration, numbered after everything that ever was.
fn begin_empty(database: &Path, lock: Lock, files: &Snapshots) -> Result<Opened, OpenError> {
    let (store, empty) = SledStore::open(database)?;
    let state = State {
        generation: files.newest_generation().unwrap_or(0) + 1,
        ..State::default()
    };
    store.replace(&empty, &state)?;
    tracing::warn!("no database and no good snapshot: beginning with an empty configuration");
    Ok(Opened {
        store,
        state,
        rebuilt: None,
        lock,
    })
}

/// A name beside the database that nothing has yet.
fn aside(database: &Path) -> PathBuf {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut attempt = 0;
    loop {
        let mut name = database.as_os_str().to_owned();
        name.push(format!(".damaged-{seconds}"));
        if attempt > 0 {
            name.push(format!(".{attempt}"));
        }
        let path = PathBuf::from(name);
        if !path.exists() {
            return path;
        }
        attempt += 1;
    }
}

/// Keeps a second process off the same database; the kernel gives it back when this one ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    fn take(database: &Path) -> Result<Lock, StoreError> {
        let mut name = database.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match try_for(&file, LOCK_PATIENCE) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                return Err(StoreError::InUse {
                    path: database.to_owned(),
                    holder: match known {
                        true => format!(" (process {})", holder.trim()),
                        false => String::new(),
                    },
                });
            }
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io_error("write", &path))?;
        Ok(Lock { _file: file })
    }
}

/// A process that was just killed may hold its lock for a moment longer, until the disk has answered it.
fn try_for(file: &File, patience: Duration) -> Result<(), TryLockError> {
    let end = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec::tests::full_state;
    use crate::test_folder::TestFolder;

    struct Room {
        folder: TestFolder,
    }

    impl Room {
        fn new(name: &str) -> Room {
            Room {
                folder: TestFolder::new(name),
            }
        }

        fn database(&self) -> PathBuf {
            self.folder.path().join("state/db")
        }

        fn open(&self) -> Result<Opened, OpenError> {
            open(&self.database(), &self.snapshots())
        }

        fn snapshots(&self) -> PathBuf {
            self.folder.path().join("state/snapshots")
        }

        /// A database with `state`, closed, and a snapshot of it.
        fn filled(name: &str, state: &State) -> Room {
            let room = Room::new(name);
            let opened = room.open().unwrap();
            assert_eq!(opened.state, State::default());
            opened.store.replace(&opened.state, state).unwrap();
            Snapshots::new(&room.snapshots()).write(state).unwrap();
            room
        }

        fn damaged_ones(&self) -> usize {
            let entries = fs::read_dir(self.database().parent().unwrap()).unwrap();
            entries
                .filter(|entry| {
                    let name = entry.as_ref().unwrap().file_name();
                    name.to_str().unwrap().contains(".damaged-")
                })
                .count()
        }
    }

    #[test]
    fn what_was_written_is_there_again() {
        let state = full_state();
        let room = Room::filled("reopen", &state);
        let opened = room.open().unwrap();
        assert_eq!(opened.state, state);
        assert_eq!(opened.rebuilt, None);
        let mut less = state.clone();
        less.configuration.delete_rules(&["six"]).unwrap();
        less.generation += 1;
        opened.store.replace(&state, &less).unwrap();
        drop(opened);
        assert_eq!(room.open().unwrap().state, less);
    }

    #[test]
    fn a_second_instance_is_told_who_has_it() {
        let room = Room::new("second");
        let first = room.open().unwrap();
        let Err(error) = room.open() else {
            panic!("a second instance was let in");
        };
        let text = error.to_string();
        let holder = format!(
            "in use by another ilb-svcmgr (process {})",
            std::process::id()
        );
        assert!(text.contains(&holder), "{text}");
        drop(first);
        room.open().unwrap();
    }

    /// Overwrites parts of the database's main file.
    fn damage(database: &Path, step: usize) {
        let file = database.join("db");
        let mut bytes = fs::read(&file).unwrap();
        for byte in bytes.iter_mut().step_by(step) {
            *byte = !*byte;
        }
        fs::write(&file, bytes).unwrap();
    }

    #[test]
    fn a_damaged_database_is_rebuilt_from_the_newest_snapshot() {
        let state = full_state();
        for step in [1, 7, 64, 997] {
            let room = Room::filled(&format!("damaged-{step}"), &state);
            damage(&room.database(), step);
            let opened = room.open().unwrap();
            let rebuilt = opened.rebuilt.expect("the damage is noticed");
            assert!(
                rebuilt.contains("configuration-00000000000000000042.toml"),
                "{rebuilt}"
            );
            assert_eq!(opened.state.generation, state.generation + 1);
            assert_eq!(opened.state.configuration, state.configuration);
            assert_eq!(opened.state.retired, state.retired);
            assert_eq!(room.damaged_ones(), 1);
            drop((opened.store, opened.lock));
            let again = room.open().unwrap();
            assert_eq!(again.rebuilt, None);
            assert_eq!(again.state, opened.state);
        }
    }

    #[test]
    fn a_database_that_lost_its_end_is_noticed() {
        let state = full_state();
        let room = Room::filled("cut", &state);
        let main = room.database().join("db");
        fs::remove_file(&main).unwrap();
        let opened = room.open().unwrap();
        assert!(opened.rebuilt.is_some());
        assert_eq!(opened.state.configuration, state.configuration);
    }

    #[test]
    fn without_snapshot_the_database_stays_where_it_is() {
        let room = Room::filled("hopeless", &full_state());
        fs::remove_dir_all(room.snapshots()).unwrap();
        damage(&room.database(), 1);
        let Err(error) = room.open() else {
            panic!("a damaged database was accepted");
        };
        assert!(matches!(error, OpenError::Hopeless { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains("begin with an empty configuration"),
            "{error}"
        );
        assert!(room.database().exists());
        assert_eq!(room.damaged_ones(), 0);
    }

    #[test]
    fn a_lost_database_comes_back_from_its_snapshot() {
        let state = full_state();
        let room = Room::filled("lost", &state);
        fs::remove_dir_all(room.database()).unwrap();
        assert_eq!(
            room.open().unwrap().state.configuration,
            state.configuration
        );
    }

    #[test]
    fn bad_snapshots_do_not_keep_from_beginning_anew() {
        let room = Room::filled("anew", &full_state());
        fs::remove_dir_all(room.database()).unwrap();
        fs::write(
            room.snapshots()
                .join("configuration-00000000000000000042.toml"),
            "no",
        )
        .unwrap();
        for _ in 0..2 {
            let opened = room.open().unwrap();
            assert_eq!((opened.state.generation, opened.rebuilt), (43, None));
            assert!(opened.state.configuration.rules.is_empty());
        }
    }
}
