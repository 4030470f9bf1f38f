//! Loading the program, with the maps that an earlier process left or with new ones.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Once;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Error as LibbpfError, ErrorKind, MapCore, PrintLevel};

use crate::map::Map;
use crate::maps::{self, Maps};
use crate::{Error, LoadOptions, pins, sys};

#[allow(
    missing_docs,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "written by libbpf-cargo"
)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/xdp_redirect.skel.rs"));
}

/// A program in the kernel with its maps.
pub(crate) struct Loaded {
    pub program: OwnedFd,
    pub maps: Maps,
}

/// Loads the program with the pinned maps if they fit, otherwise with new ones that get the contents of those there were.
pub(crate) fn load(options: &LoadOptions, directory: &Path) -> Result<Loaded, Error> {
    log_libbpf();
    let pinned = match Maps::open(directory) {
        Ok(maps) => Some(maps),
        Err(error) => {
            tracing::debug!("no complete set of pinned maps: {error}");
            None
        }
    };
    if let Some(maps) = &pinned {
        match instantiate(options, Some(maps)) {
            Ok(loaded) => return Ok(loaded),
            Err(Instantiate::Failed(error)) => return Err(error),
            Err(Instantiate::Unsuitable(name)) => {
                tracing::info!(
                    "the pinned map {name} has another size than is needed now: making new maps"
                );
            }
        }
    }

    let loaded = match instantiate(options, None) {
        Ok(loaded) => loaded,
        Err(Instantiate::Failed(error)) => return Err(error),
        Err(Instantiate::Unsuitable(name)) => {
            return Err(Error::Load {
                reason: format!("the kernel made the map {name} other than it was asked to"),
            });
        }
    };
    if let Some(old) = pinned {
        match old.current() {
            Ok(steering) => drop(loaded.maps.apply(&steering)?),
            Err(error) => tracing::warn!(%error, "the steering of the earlier process is lost"),
        }
    }
    for map in loaded.maps.all() {
        pins::pin(map.fd(), &directory.join(map.name()))?;
    }
    Ok(loaded)
}

enum Instantiate {
    /// This map is not what the program needs.
    Unsuitable(&'static str),
    Failed(Error),
}

impl From<LibbpfError> for Instantiate {
    fn from(error: LibbpfError) -> Instantiate {
        let hint = match error.kind() {
            ErrorKind::PermissionDenied => {
                ": the capabilities CAP_BPF and CAP_NET_ADMIN are needed, before Linux 6.17 also CAP_PERFMON"
            }
            ErrorKind::OutOfMemory => {
                ": the kernel has no memory for it, or a memory limit of the service is reached"
            }
            _ => " (what the kernel's verifier said is in the log)",
        };
        Instantiate::Failed(Error::Load {
            reason: format!("{error:#}{hint}"),
        })
    }
}

impl From<Error> for Instantiate {
    fn from(error: Error) -> Instantiate {
        Instantiate::Failed(error)
    }
}

fn instantiate(options: &LoadOptions, pinned: Option<&Maps>) -> Result<Loaded, Instantiate> {
    let mut storage = MaybeUninit::uninit();
    let mut open = skeleton::XdpRedirectSkelBuilder::default().open(&mut storage)?;
    for mut map in open.open_object_mut().maps_mut() {
        let name = map_name(&map.name().to_string_lossy())?;
        if maps::STEERING.contains(&name) {
            map.set_max_entries(maps::entries_for(options.max_addresses))?;
        }
        let Some(pinned) =
            pinned.and_then(|maps| maps.all().into_iter().find(|map| map.name() == name))
        else {
            continue;
        };
        if pinned.info() != sys::map_definition(&map) {
            return Err(Instantiate::Unsuitable(name));
        }
        map.reuse_fd(pinned.fd().as_fd())?;
    }

    let skel = open.load()?;
    let copy = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(|error| Error::Load {
            reason: format!("cannot copy a descriptor: {error}"),
        })
    };
    let maps = Maps::gather(|name| {
        let found = skel.object().maps().find(|map| map.name() == name);
        let map = found.ok_or_else(|| Error::Load {
            reason: format!("the program has no map {name}"),
        })?;
        Map::new(name, copy(map.as_fd())?)
    })?;
    Ok(Loaded {
        program: copy(skel.progs.ilb_steer.as_fd())?,
        maps,
    })
}

/// The name as a constant of ours.
fn map_name(name: &str) -> Result<&'static str, Error> {
    let known = maps::NAMES.into_iter().find(|known| *known == name);
    known.ok_or_else(|| Error::Load {
        reason: format!("the program has the map {name}, which the library does not know"),
    })
}

/// libbpf writes to standard error unless told otherwise.
fn log_libbpf() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Info, |level, message| {
            let message = message.trim_end();
            match level {
                PrintLevel::Warn => tracing::warn!(target: "libbpf", "{message}"),
                PrintLevel::Info => tracing::info!(target: "libbpf", "{message}"),
                PrintLevel::Debug => tracing::debug!(target: "libbpf", "{message}"),
            }
        })));
    });
}
