//! The latest generation that was acknowledged, in a small file beside the database: of a database that has lost its end
//! nothing can be told by itself, because it looks as it did some time ago.
//!
//! It is written after each commit and not synced: what a power loss takes from it only makes it lower than it could be.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Notes that this generation is durable. A file that cannot be written is a safeguard less, and no reason to refuse a
/// change.
pub fn write(database: &Path, generation: u64) {
    let path = path_of(database);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let text = format!("{generation:020}\n");
    // In place and of one length: needs no room on a full disk, and is never half there.
    if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
        tracing::warn!("cannot write {}: {error}", path.display());
    }
}

/// The generation noted last, if any can be read.
pub fn read(database: &Path) -> Option<u64> {
    let text = fs::read_to_string(path_of(database)).ok()?;
    (text.len() == 21).then(|| text.trim_end().parse().ok())?
}

fn path_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".generation");
    PathBuf::from(name)
}
