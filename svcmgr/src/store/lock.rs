//! One process only has the database.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StoreError;
use super::sled_store::io_error;

/// How long to wait for another process to give the database free.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Keeps a second process off the same database; the kernel gives it back when this one ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    named: bool,
}

impl Lock {
    /// Takes it, and writes down who has it.
    ///
    /// # Errors
    /// [`StoreError::InUse`], or that the file cannot be written.
    pub fn take(database: &Path) -> Result<Lock, StoreError> {
        let path = path_of(database);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open", &path))?;
        lock(&mut file, database, &path)?;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io_error("write", &path))?;
        Ok(Lock {
            _file: file,
            named: true,
        })
    }

    /// Takes it where nothing can be written; `None` where there is no such file.
    ///
    /// # Errors
    /// [`StoreError::InUse`], or that the file cannot be read.
    pub fn take_for_reading(database: &Path) -> Result<Option<Lock>, StoreError> {
        let path = path_of(database);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        lock(&mut file, database, &path)?;
        Ok(Some(Lock {
            _file: file,
            named: false,
        }))
    }

    /// Whether the file says who has it.
    pub fn is_named(&self) -> bool {
        self.named
    }
}

fn path_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn lock(file: &mut File, database: &Path, path: &Path) -> Result<(), StoreError> {
    match try_for(file, LOCK_PATIENCE) {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            Err(StoreError::InUse {
                path: database.to_owned(),
                holder: match known {
                    true => format!(" (process {})", holder.trim()),
                    false => String::new(),
                },
            })
        }
        Err(TryLockError::Error(error)) => Err(io_error("lock", path)(error)),
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
