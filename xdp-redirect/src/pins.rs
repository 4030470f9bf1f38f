//! What lies in the BPF file system, and where.
//!
//! ```text
//! <pin directory>/v<ABI version>/<map>       the maps
//! <pin directory>/link-<interface>-<index>   the program's attachment to an interface
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::explain;
use crate::{Error, abi, sys};

/// Where systemd and everybody else mount the BPF file system.
const MOUNT_POINT: &str = "/sys/fs/bpf";

static MOUNTING: Mutex<()> = Mutex::new(());

/// Beginning of the names of pinned links.
const LINK: &str = "link-";

/// Makes the pin directory and the one for the maps in it, after mounting the BPF file system if nobody has.
pub(crate) fn prepare(pin_dir: &Path) -> Result<PathBuf, Error> {
    let wrong = |reason: String| Error::PinDirectory {
        path: pin_dir.to_owned(),
        reason,
    };
    if !pin_dir.is_absolute() || pin_dir.components().any(|part| part.as_os_str() == "..") {
        return Err(wrong("it must be an absolute path without `..`".to_owned()));
    }
    // Two threads that both find nothing would mount twice, and the second mount would hide the first one's pins.
    let _alone = MOUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let look = || -> Result<(&Path, bool), Error> {
        let existing = pin_dir
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        let inside = sys::is_bpf_file_system(existing).map_err(|source| Error::Pin {
            action: "look at",
            path: existing.to_owned(),
            source,
        })?;
        Ok((existing, inside))
    };
    let (mut existing, mut inside) = look()?;
    // Not whenever the mount point has none: a confined service may see nothing but its own directory there.
    if !inside && pin_dir.starts_with(MOUNT_POINT) {
        mount().map_err(wrong)?;
        (existing, inside) = look()?;
    }
    if !inside {
        return Err(wrong(format!(
            "it is not in a BPF file system: choose one below {MOUNT_POINT}"
        )));
    }
    let new = pin_dir.strip_prefix(existing).unwrap_or(Path::new(""));
    if new.to_string_lossy().contains('.') {
        return Err(wrong("names in a BPF file system have no dots".to_owned()));
    }

    let maps = maps_directory(pin_dir);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&maps)
        .map_err(|source| Error::Pin {
            action: "make the directory",
            path: maps.clone(),
            source,
        })?;
    Ok(maps)
}

/// Mounts the BPF file system where everybody expects it.
fn mount() -> Result<(), String> {
    sys::mount_bpf_file_system(Path::new(MOUNT_POINT)).map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::EPERM) => "mounting it needs CAP_SYS_ADMIN".to_owned(),
            _ => error.to_string(),
        };
        format!(
            "no BPF file system is mounted at {MOUNT_POINT}, and {why}: `mount -t bpf bpf {MOUNT_POINT}` as root"
        )
    })?;
    tracing::warn!(
        "mounted a BPF file system at {MOUNT_POINT}: none was there. \
         The pins last as long as this mount does, in a private mount namespace no longer than this process"
    );
    Ok(())
}

/// Directory of the pinned maps of this version's ABI.
pub(crate) fn maps_directory(pin_dir: &Path) -> PathBuf {
    pin_dir.join(format!("v{}", abi::ABI_VERSION))
}

/// Removes the maps of other ABI versions. What runs with them runs on until its link gets our program.
pub(crate) fn remove_other_versions(pin_dir: &Path) -> Result<(), Error> {
    let ours = maps_directory(pin_dir);
    for path in list(pin_dir)? {
        if path != ours && version_of(&path).is_some() {
            tracing::warn!(
                "{} holds maps of another version: replacing them with new ones (version {})",
                path.display(),
                abi::ABI_VERSION
            );
            remove_directory(&path)?;
        }
    }
    Ok(())
}

fn version_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_prefix('v')?.parse().ok()
}

/// Pins an object at `path`, in the place of what is there.
pub(crate) fn pin(object: &OwnedFd, path: &Path) -> Result<(), Error> {
    let failed = |action| {
        move |source| Error::Pin {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let mut new = path.as_os_str().to_owned();
    new.push("-new");
    let new = PathBuf::from(new);
    remove(&new)?;
    sys::object_pin(object.as_fd(), &new).map_err(failed("pin"))?;
    fs::rename(&new, path).map_err(failed("replace"))
}

/// Removes a pin; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Pin {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Removes a directory with the pins in it.
fn remove_directory(path: &Path) -> Result<(), Error> {
    for pin in list(path)? {
        remove(&pin)?;
    }
    fs::remove_dir(path).map_err(|source| Error::Pin {
        action: "remove",
        path: path.to_owned(),
        source,
    })
}

/// Everything in a directory; nothing if there is no such directory.
fn list(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Pin {
        action: "list",
        path: directory.to_owned(),
        source,
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    entries
        .map(|entry| Ok(entry.map_err(failed)?.path()))
        .collect()
}

/// Where the link to an interface is pinned.
pub(crate) fn link_path(pin_dir: &Path, interface: &str, ifindex: u32) -> PathBuf {
    // The kernel reserves names with dots, which VLAN interfaces have. The index tells apart what this makes equal.
    pin_dir.join(format!("{LINK}{}-{ifindex}", interface.replace('.', "_")))
}

/// A pinned link.
pub(crate) struct PinnedLink {
    pub path: PathBuf,
    pub fd: OwnedFd,
    pub info: sys::LinkInfo,
}

impl PinnedLink {
    /// Takes the program off the interface and removes the pin.
    pub fn detach(self) -> Result<(), Error> {
        // A link whose interface is gone says that there is nothing to detach.
        if let Err(error) = sys::link_detach(self.fd.as_fd())
            && self.info.ifindex != 0
        {
            tracing::debug!("cannot detach {}: {}", self.path.display(), explain(&error));
        }
        remove(&self.path)
    }
}

/// All pinned links. A file of that name that is none is left alone.
pub(crate) fn links(pin_dir: &Path) -> Result<Vec<PinnedLink>, Error> {
    let mut links = Vec::new();
    for path in list(pin_dir)? {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !name.starts_with(LINK) {
            continue;
        }
        let failed = |source| Error::Pin {
            action: "open",
            path: path.clone(),
            source,
        };
        let fd = sys::object_get(&path).map_err(failed)?;
        match sys::link_info(fd.as_fd()) {
            Ok(Some(info)) => links.push(PinnedLink { path, fd, info }),
            Ok(None) => tracing::warn!(
                "{} is not a link of an XDP program: left alone",
                path.display()
            ),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(links)
}

/// Removes links, maps and the directory itself. A directory of another user's stays: it was made for one that may not make
/// it again.
pub(crate) fn remove_all(pin_dir: &Path) -> Result<(), Error> {
    for link in links(pin_dir)? {
        link.detach()?;
    }
    for path in list(pin_dir)? {
        if version_of(&path).is_some() {
            remove_directory(&path)?;
        }
    }
    if fs::metadata(pin_dir).is_ok_and(|found| found.uid() != sys::effective_user()) {
        return Ok(());
    }
    match fs::remove_dir(pin_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            tracing::warn!(
                "{} stays: something that is not ours is in it",
                pin_dir.display()
            );
            Ok(())
        }
        Err(source) => Err(Error::Pin {
            action: "remove",
            path: pin_dir.to_owned(),
            source,
        }),
        Ok(()) => Ok(()),
    }
}
