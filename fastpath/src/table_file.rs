//! The connection table's memory: a file in the runtime directory, mapped shared, so that connections outlive this
//! process. The file is also the lock that keeps a second fast path out.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use ilb_forwarder::table::{Region, Table, TableError};

/// Why there is no connection table.
#[derive(Debug, thiserror::Error)]
pub enum TableFileError {
    /// A system call failed.
    #[error("{step} {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "another ilb-fastpath uses {path}: stop it first, or give this one another runtime-dir in the node settings"
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The forwarder refuses the memory.
    #[error("connection table {path}: {source}; correct table-size in the node settings")]
    Table {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TableError,
    },
}

/// The runtime directory's lock: held as long as this value lives.
pub struct Lock {
    _file: File,
}

/// Takes the lock of a runtime directory, which is made if there is none. The lock is a file of its own, so that the
/// table can be replaced under it.
///
/// # Errors
/// [`TableFileError::Locked`] when another process holds it.
pub fn lock(runtime_dir: &Path) -> Result<Lock, TableFileError> {
    let path = runtime_dir.join("fastpath.lock");
    let failed = |step| {
        let path = path.clone();
        move |source| TableFileError::Io { path, step, source }
    };
    std::fs::create_dir_all(runtime_dir).map_err(failed("making the directory of"))?;
    let file = open(&path).map_err(failed("opening"))?;
    // SAFETY: plain system call on an open descriptor.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let error = io::Error::last_os_error();
        return Err(match error.kind() {
            io::ErrorKind::WouldBlock => TableFileError::Locked { path },
            _ => failed("locking")(error),
        });
    }
    Ok(Lock { _file: file })
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// The memory of a mapped file.
struct Mapping {
    address: usize,
    len: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length, unmapped once.
        unsafe { libc::munmap(self.address as *mut libc::c_void, self.len) };
    }
}

/// Maps the table at `path` for `capacity` connections: the one that is there with its connections, or a new one. One
/// of another size or layout is replaced, which is said loudly, because its connections are lost.
///
/// # Errors
/// See [`TableFileError`].
pub fn open_table(path: &Path, capacity: u32) -> Result<Table, TableFileError> {
    match attach(path, capacity) {
        Err(TableFileError::Table { source, .. }) if !matches!(source, TableError::Capacity(_)) => {
            tracing::warn!(
                "{}: {source}. A new table is begun; connections that were in the old one are forgotten",
                path.display()
            );
            std::fs::remove_file(path).map_err(|source| TableFileError::Io {
                path: path.into(),
                step: "removing the old connection table",
                source,
            })?;
            attach(path, capacity)
        }
        outcome => outcome,
    }
}

fn attach(path: &Path, capacity: u32) -> Result<Table, TableFileError> {
    let failed = |step| {
        move |source| TableFileError::Io {
            path: path.into(),
            step,
            source,
        }
    };
    let file = open(path).map_err(failed("opening"))?;
    let found = file
        .metadata()
        .map_err(failed("reading the size of"))?
        .len();
    let needed = Table::bytes(capacity) as u64;
    if found < needed {
        // Space is taken now, so that a full file system is an error here and not a SIGBUS later. An old table of
        // another size is found out by its header.
        // SAFETY: plain system call on an open descriptor.
        let result = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, needed as libc::off_t) };
        if result != 0 {
            return Err(failed("taking space for")(io::Error::from_raw_os_error(
                result,
            )));
        }
    }
    let len = needed as usize;
    // SAFETY: a new mapping of an open file that has at least this length.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(failed("mapping")(io::Error::last_os_error()));
    }
    let mapping = Mapping {
        address: address as usize,
        len,
    };
    // Huge pages where the file system gives them (tmpfs with shmem_enabled=advise or always); else nothing changes.
    // SAFETY: advice about memory that was mapped just now.
    unsafe { libc::madvise(address, len, libc::MADV_HUGEPAGE) };
    let memory = NonNull::new(address.cast())
        .ok_or_else(|| failed("mapping")(io::ErrorKind::AddrNotAvailable.into()))?;
    // SAFETY: the memory is valid until `mapping` is dropped, which the region owns, and belongs to this process alone
    // by the lock of the runtime directory.
    let region = unsafe { Region::new(memory, len, Box::new(mapping)) };
    Table::attach(region, capacity, random_keys()).map_err(|source| TableFileError::Table {
        path: path.into(),
        source,
    })
}

/// Keys that nobody can guess, so that nobody can choose flows that collide.
fn random_keys() -> [u64; 4] {
    let mut keys = [0u64; 4];
    let wanted = size_of_val(&keys);
    // SAFETY: the buffer has this length.
    let got = unsafe { libc::getrandom(keys.as_mut_ptr().cast(), wanted, 0) };
    assert!(
        got == wanted as isize,
        "the kernel's random numbers are not available: {}",
        io::Error::last_os_error()
    );
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("ilb-table-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_second_process_is_told_who_is_in_the_way() {
        let dir = Dir::new("lock");
        let held = lock(&dir.0).unwrap();
        let error = lock(&dir.0).map(|_| ()).unwrap_err();
        assert!(
            error.to_string().contains("another ilb-fastpath"),
            "{error}"
        );
        drop(held);
        lock(&dir.0).unwrap();
    }

    #[test]
    fn a_table_is_adopted_with_its_keys() {
        let dir = Dir::new("adopt");
        let path = dir.0.join("connections");
        let keys = |table: &Table| format!("{:?}", table.hasher());
        let first = keys(&open_table(&path, 1024).unwrap());
        assert_eq!(keys(&open_table(&path, 1024).unwrap()), first);
    }

    #[test]
    fn a_table_of_another_size_is_replaced() {
        let dir = Dir::new("resize");
        let path = dir.0.join("connections");
        for capacity in [1024, 4096, 2048] {
            assert_eq!(open_table(&path, capacity).unwrap().capacity(), capacity);
        }
    }

    #[test]
    fn a_file_of_something_else_is_replaced() {
        let dir = Dir::new("junk");
        let path = dir.0.join("connections");
        std::fs::write(&path, b"not a table at all").unwrap();
        assert_eq!(open_table(&path, 1024).unwrap().capacity(), 1024);
    }
}
