//! Where included files come from.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::MAX_BYTES;
use super::glob;

/// Most files that a pattern may name.
const MOST: usize = 10_000;

/// Reads files and finds them by pattern.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// Of the system; [`io::ErrorKind::FileTooLarge`].
    fn read(&self, path: &Path) -> io::Result<String>;

    /// Names of what is in a folder, in any order; none if there is no such folder.
    fn list(&self, folder: &Path) -> Vec<String>;

    /// What two paths to one file have in common.
    fn identity(&self, path: &Path) -> PathBuf;
}

/// The files of this system.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Files for System {
    fn read(&self, path: &Path) -> io::Result<String> {
        use io::Read;
        let file = std::fs::File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > MAX_BYTES {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        // Comments may be in any encoding.
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    fn list(&self, folder: &Path) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Vec::new();
        };
        entries
            .flatten()
            .take(MOST)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    fn identity(&self, path: &Path) -> PathBuf {
        path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
    }
}

/// Files that are given, for tests and for programs that have them in memory.
#[derive(Debug, Clone, Default)]
pub struct Memory(pub BTreeMap<PathBuf, String>);

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<String> {
        let text = self.0.get(&self.identity(path)).cloned();
        text.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn list(&self, folder: &Path) -> Vec<String> {
        let folder = self.identity(folder);
        let below = self
            .0
            .keys()
            .filter_map(|path| path.strip_prefix(&folder).ok());
        let mut names: Vec<String> = below
            .filter_map(|rest| rest.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        names
    }

    fn identity(&self, path: &Path) -> PathBuf {
        let mut plain = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => {
                    plain.pop();
                }
                Component::CurDir => {}
                part => plain.push(part),
            }
        }
        plain
    }
}

/// The files that a pattern names, in the order of their names. A name without pattern is itself, be it there or not.
pub(super) fn find(files: &dyn Files, folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let Some(all) = glob::alternatives(pattern) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for one in all {
        let path = folder.join(&one);
        if !glob::is_pattern(&one) {
            found.push(path);
            continue;
        }
        let mut places = vec![PathBuf::new()];
        for part in path.components() {
            let part = part.as_os_str();
            let name = part.to_string_lossy();
            let mut next = Vec::new();
            for place in places {
                if !glob::is_pattern(&name) {
                    next.push(place.join(part));
                    continue;
                }
                let mut names = files.list(&place);
                names.retain(|n| glob::fits(&name, n));
                names.sort();
                next.extend(names.into_iter().map(|n| place.join(n)));
                next.truncate(MOST);
            }
            places = next;
        }
        found.extend(places);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_files_in_order() {
        let files = Memory(
            [
                "/e/k/b.conf",
                "/e/k/a.conf",
                "/e/k/.h.conf",
                "/e/k/d/x",
                "/e/l/a.conf",
            ]
            .map(|path| (path.into(), String::new()))
            .into(),
        );
        let find = |pattern: &str| -> Vec<String> {
            let all = find(&files, Path::new("/e/k"), pattern);
            all.iter().map(|p| p.display().to_string()).collect()
        };
        assert_eq!(find("*.conf"), ["/e/k/a.conf", "/e/k/b.conf"]);
        assert_eq!(find("/e/*/a.conf"), ["/e/k/a.conf", "/e/l/a.conf"]);
        assert_eq!(find("{d/x,none}"), ["/e/k/d/x", "/e/k/none"]);
        assert_eq!(find("*.none"), Vec::<String>::new());
        assert_eq!(find("plain"), ["/e/k/plain"]);
    }

    #[test]
    fn the_files_of_the_system_are_read() {
        let folder = std::env::temp_dir().join(format!("ilb-import-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a.conf"), b"caf\xe9").unwrap();
        let found = find(&System, &folder, "?.conf");
        let text = System.read(&found[0]).unwrap();
        let not_a_file = System.read(&folder).unwrap_err();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!((found.len(), text.as_str()), (1, "caf\u{fffd}"));
        assert_eq!(not_a_file.kind(), io::ErrorKind::InvalidInput);
    }
}
