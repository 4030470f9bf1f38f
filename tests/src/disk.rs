//! A small disk that can be full.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::shell;

/// A file system in memory, of 24 MiB, gone with this value.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it on a folder, which is made if it is not there.
    #[track_caller]
    pub fn new(path: &Path) -> SmallDisk {
        std::fs::create_dir_all(path).expect("a folder of the lab can be made");
        shell::run_line(&format!(
            "mount -t tmpfs -o size=24m small {}",
            path.display()
        ))
        .ok();
        SmallDisk(path.to_owned())
    }

    /// Leaves no room.
    #[track_caller]
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("there is some room");
        let megabyte = vec![1; 1 << 20];
        while file.write_all(&megabyte).is_ok() {}
    }

    /// There is room again.
    #[track_caller]
    pub fn clear(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        shell::run_line(&format!("umount -l {}", self.0.display()));
    }
}
