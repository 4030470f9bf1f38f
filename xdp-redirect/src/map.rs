//! One BPF map with its name and sizes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::{Error, sys};

/// Elements that are read at once. A hash map wants at least as many as its fullest bucket has.
const BATCH: usize = 512;

/// Key and value.
pub(crate) type Element = (Vec<u8>, Vec<u8>);

/// An open map. Every method checks the sizes that the kernel takes for granted.
#[derive(Debug)]
pub(crate) struct Map {
    name: &'static str,
    fd: OwnedFd,
    info: sys::MapInfo,
}

impl Map {
    /// A map from its descriptor.
    pub fn new(name: &'static str, fd: OwnedFd) -> Result<Map, Error> {
        let info = sys::map_info(fd.as_fd()).map_err(|source| Error::Map {
            action: "describe",
            map: name,
            source,
        })?;
        Ok(Map { name, fd, info })
    }

    /// A pinned map.
    pub fn open(name: &'static str, path: &Path) -> io::Result<Map> {
        let fd = sys::object_get(path)?;
        let info = sys::map_info(fd.as_fd())?;
        Ok(Map { name, fd, info })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn info(&self) -> sys::MapInfo {
        self.info
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    fn error(&self, action: &'static str, source: io::Error) -> Error {
        Error::Map {
            action,
            map: self.name,
            source,
        }
    }

    fn check_key(&self, action: &'static str, key: &[u8]) -> Result<(), Error> {
        if key.len() == self.info.key_size as usize {
            return Ok(());
        }
        Err(self.error(action, io::Error::from_raw_os_error(libc::EINVAL)))
    }

    /// Sets an element.
    pub fn update(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.check_key("change", key)?;
        if value.len() != self.info.value_size as usize {
            return Err(self.error("change", io::Error::from_raw_os_error(libc::EINVAL)));
        }
        sys::map_update(self.fd.as_fd(), key, value).map_err(|error| self.error("change", error))
    }

    /// Removes an element; one that is not there is fine.
    pub fn delete(&self, key: &[u8]) -> Result<(), Error> {
        self.check_key("remove from", key)?;
        match sys::map_delete(self.fd.as_fd(), key) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                Err(self.error("remove from", error))
            }
            _ => Ok(()),
        }
    }

    /// Reads an element of a per-CPU map: one value for each possible CPU.
    pub fn lookup_per_cpu(&self, key: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let each = (self.info.value_size as usize).next_multiple_of(8);
        let cpus = sys::possible_cpus().map_err(|error| self.error("count the CPUs of", error))?;
        self.check_key("read", key)?;
        let mut all = vec![0; each * cpus];
        sys::map_lookup(self.fd.as_fd(), key, &mut all)
            .map_err(|error| self.error("read", error))?;
        Ok(all.chunks(each).map(<[u8]>::to_vec).collect())
    }

    /// All elements of a hash map.
    pub fn elements(&self) -> Result<Vec<Element>, Error> {
        let (key_size, value_size) = (self.info.key_size as usize, self.info.value_size as usize);
        let mut batch = BATCH.min(self.info.max_entries as usize);
        let mut keys = vec![0; batch * key_size];
        let mut values = vec![0; batch * value_size];
        let mut elements = Vec::new();
        let mut cursor = None;
        loop {
            let before = cursor;
            match sys::map_lookup_batch(self.fd.as_fd(), &mut cursor, batch, &mut keys, &mut values)
            {
                Ok((count, last)) => {
                    let found = keys
                        .chunks(key_size)
                        .zip(values.chunks(value_size))
                        .take(count);
                    elements.extend(found.map(|(key, value)| (key.to_vec(), value.to_vec())));
                    if last {
                        return Ok(elements);
                    }
                }
                // One bucket has more elements than were asked for: once more from there.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    cursor = before;
                    batch *= 2;
                    keys.resize(batch * key_size, 0);
                    values.resize(batch * value_size, 0);
                }
                Err(error) => return Err(self.error("read", error)),
            }
        }
    }
}
