//! The connection table's memory: a file in the runtime directory, mapped shared, so that connections outlive this
//! process. The file is also the lock that keeps a second fast path out.
//!
//! A large table is read at random, so that with pages of 4 KiB nearly every packet would wait for an address
//! translation, too. Tmpfs gives huge pages at once where `shmem_enabled` says so; everywhere else
//! (the default is `never`) the pages are joined afterwards, which the kernel does for whoever asks (`MADV_COLLAPSE`,
//! Linux 6.1, `mm/khugepaged.c`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

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

/// When small pages are joined to huge ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joining {
    /// Before the table is given out.
    Now,
    /// By a thread of its own, while the table is in use: joining takes some milliseconds for each huge page.
    Later,
}

/// Size of a huge page, to which the mapping is aligned.
const HUGE_PAGE: usize = 2 << 20;

/// `MADV_COLLAPSE` of `include/uapi/asm-generic/mman-common.h`.
const MADV_COLLAPSE: libc::c_int = 25;

/// The memory of a mapped file.
struct Mapping {
    /// What has to be unmapped: address and length.
    reserved: (usize, usize),
    address: usize,
    len: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `Mapping::new` with this length, unmapped once.
        unsafe { libc::munmap(self.reserved.0 as *mut libc::c_void, self.reserved.1) };
    }
}

impl Mapping {
    /// Reserves address space that is aligned to huge pages, and maps the file there.
    fn new(file: &File, len: usize) -> io::Result<Mapping> {
        let reserved = len + HUGE_PAGE;
        // SAFETY: a new mapping that nothing is in yet.
        let place = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                reserved,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if place == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = Mapping {
            reserved: (place as usize, reserved),
            address: (place as usize).next_multiple_of(HUGE_PAGE),
            len,
        };
        // SAFETY: the file has at least this length, and the place lies within what was reserved just now.
        let mapped = unsafe {
            libc::mmap(
                mapping.address as *mut libc::c_void,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                file.as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: advice about memory that was mapped just now.
        unsafe { libc::madvise(mapped, len, libc::MADV_HUGEPAGE) };
        Ok(mapping)
    }

    /// Joins small pages to huge ones, as far as the kernel does it. What it cannot do only costs speed.
    fn join_pages(&self) {
        let mut joined = 0;
        let pages = self.len / HUGE_PAGE;
        for page in 0..pages {
            let address = (self.address + page * HUGE_PAGE) as *mut libc::c_void;
            // SAFETY: the page lies within the mapping, which `self` keeps; its contents stay.
            let outcome = unsafe { libc::madvise(address, HUGE_PAGE, MADV_COLLAPSE) };
            joined += (outcome == 0) as usize;
            let refused = io::Error::last_os_error();
            if outcome != 0 && refused.raw_os_error() == Some(libc::EINVAL) {
                tracing::info!(
                    "the connection table has small pages, because its file system has no huge ones: a runtime-dir on tmpfs makes large tables faster"
                );
                return;
            }
        }
        tracing::debug!("{joined} of {pages} pieces of the connection table are huge pages");
    }
}

/// Maps the table at `path` for `capacity` connections: the one that is there with its connections, or a new one. One
/// of another size or layout is replaced, which is said loudly, because its connections are lost.
///
/// # Errors
/// See [`TableFileError`].
pub fn open_table(path: &Path, capacity: u32, joining: Joining) -> Result<Table, TableFileError> {
    match attach(path, capacity, joining) {
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
            attach(path, capacity, joining)
        }
        outcome => outcome,
    }
}

fn attach(path: &Path, capacity: u32, joining: Joining) -> Result<Table, TableFileError> {
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
    let mapping = Arc::new(Mapping::new(&file, len).map_err(failed("mapping"))?);
    let memory = NonNull::new(mapping.address as *mut u8)
        .ok_or_else(|| failed("mapping")(io::ErrorKind::AddrNotAvailable.into()))?;
    match joining {
        Joining::Now => mapping.join_pages(),
        Joining::Later => {
            let mapping = mapping.clone();
            let thread = std::thread::Builder::new().name("ilb-pages".into());
            if let Err(error) = thread.spawn(move || mapping.join_pages()) {
                tracing::warn!(
                    "the connection table keeps its small pages: no thread to join them: {error}"
                );
            }
        }
    }
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
        let first = keys(&open_table(&path, 1024, Joining::Now).unwrap());
        assert_eq!(keys(&open_table(&path, 1024, Joining::Now).unwrap()), first);
    }

    #[test]
    fn pages_are_joined_under_a_table_in_use() {
        let dir = Dir(PathBuf::from(format!(
            "/dev/shm/ilb-table-huge-{}",
            std::process::id()
        )));
        std::fs::create_dir_all(&dir.0).unwrap();
        let path = dir.0.join("connections");
        let table = open_table(&path, 200_000, Joining::Now).unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let ours = maps.split(path.to_str().unwrap()).nth(1).unwrap();
        let huge = ours
            .lines()
            .find_map(|line| line.strip_prefix("ShmemPmdMapped:"))
            .unwrap();
        let kilobytes: usize = huge.trim().trim_end_matches(" kB").parse().unwrap();
        // Memory may be in pieces on a busy machine, so that not every page need have been joined.
        assert!(
            kilobytes >= 2048,
            "{huge} of {} bytes",
            Table::bytes(200_000)
        );
        assert_eq!(table.capacity(), 200_000);
    }

    #[test]
    fn a_table_of_another_size_is_replaced() {
        let dir = Dir::new("resize");
        let path = dir.0.join("connections");
        for capacity in [1024, 4096, 2048] {
            assert_eq!(
                open_table(&path, capacity, Joining::Later)
                    .unwrap()
                    .capacity(),
                capacity
            );
        }
    }

    #[test]
    fn a_file_of_something_else_is_replaced() {
        let dir = Dir::new("junk");
        let path = dir.0.join("connections");
        std::fs::write(&path, b"not a table at all").unwrap();
        assert_eq!(
            open_table(&path, 1024, Joining::Now).unwrap().capacity(),
            1024
        );
    }
}
