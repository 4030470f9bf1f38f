//! A node whose clock is not the machine's: what its programs take for the time of day is moved by libfaketime, while what only ever
//! goes on (CLOCK_MONOTONIC) goes on as it is, as when an administrator or an NTP daemon sets a clock.

use std::path::{Path, PathBuf};

/// Where Debian's libfaketime puts the library for programs with threads, within /usr/lib.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The clock of a node.
#[derive(Debug, Clone)]
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// A clock that is right, which this file of its folder sets.
    #[track_caller]
    pub(crate) fn new(folder: &Path) -> Clock {
        let clock = Clock {
            file: folder.join("clock"),
        };
        clock.set(0);
        clock
    }

    /// Sets it to so many seconds after the machine's, or before it.
    #[track_caller]
    pub fn set(&self, seconds: i64) {
        // Replaced as a whole: programs read it at any time.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("the lab's folder can be written");
        std::fs::rename(&new, &self.file).expect("the lab's folder can be written");
    }

    /// What a program is started with that shall go by it.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 5] {
        [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }
}

#[track_caller]
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib is there");
    let found = folders
        .flatten()
        .map(|folder| folder.path().join(LIBRARY))
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("/usr/lib/*/{LIBRARY} is not there: run `make deps`"))
}
