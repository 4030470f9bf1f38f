//! Loading the program, with the maps that an earlier process left or with new ones.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
    let old = match Maps::open(directory) {
        Ok(old) => old,
        Err(error) => {
            tracing::debug!("no complete set of pinned maps: {error}");
            let loaded = instantiate(options, |_| None)?;
            pin_all(&loaded.maps, directory)?;
            return Ok(loaded);
        }
    };
    match instantiate(options, |name| old.get(name)) {
        Ok(loaded) => return Ok(loaded),
        Err(Instantiate::Failed(error)) => return Err(error),
        Err(Instantiate::Unsuitable(name)) => tracing::info!(
            "the pinned map {name} has another size than is needed now: making new steering maps"
        ),
    }
    let others = |name: &str| old.get(name).filter(|_| !maps::STEERING.contains(&name));
    let mut loaded = match instantiate(options, others) {
        Err(Instantiate::Unsuitable(name)) => {
            tracing::warn!("the pinned map {name} is not what it should be: making all maps new");
            instantiate(options, |_| None)?
        }
        other => other?,
    };
    match old.current() {
        Ok(steering) => drop(loaded.maps.apply(&steering)?),
        Err(error) => tracing::warn!("the steering of the earlier process is lost: {error}"),
    }
    pin_all(&loaded.maps, directory)?;
    Ok(loaded)
}

fn pin_all(maps: &Maps, directory: &Path) -> Result<(), Error> {
    for map in maps.all() {
        pins::pin(map.fd(), &directory.join(map.name()))?;
    }
    Ok(())
}

/// Why there is no program.
enum Instantiate {
    /// This map is not what the program needs.
    Unsuitable(&'static str),
    Failed(Error),
}

impl From<Instantiate> for Error {
    fn from(reason: Instantiate) -> Error {
        match reason {
            Instantiate::Failed(error) => error,
            Instantiate::Unsuitable(name) => Error::Load {
                reason: format!("the map {name} is not what the program needs"),
            },
        }
    }
}

impl From<Error> for Instantiate {
    fn from(error: Error) -> Instantiate {
        Instantiate::Failed(error)
    }
}

impl From<LibbpfError> for Instantiate {
    fn from(error: LibbpfError) -> Instantiate {
        let hint = match error.kind() {
            ErrorKind::PermissionDenied => {
                ": the capabilities CAP_BPF and CAP_NET_ADMIN are needed, before Linux 5.18 also CAP_PERFMON"
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

/// Loads the program with the maps that `reuse` gives, and with new ones in the place of the others.
fn instantiate<'a>(
    options: &LoadOptions,
    reuse: impl Fn(&str) -> Option<&'a Map>,
) -> Result<Loaded, Instantiate> {
    let failed = |reason: String| Error::Load { reason };
    let mut storage = MaybeUninit::uninit();
    let mut open = skeleton::XdpRedirectSkelBuilder::default().open(&mut storage)?;
    for mut map in open.open_object_mut().maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        let known = maps::NAMES.into_iter().find(|known| *known == name);
        let name = known.ok_or_else(|| failed(format!("nobody knows its map {name}")))?;
        if maps::STEERING.contains(&name) {
            map.set_max_entries(maps::entries_for(options.max_addresses))?;
        }
        if let Some(pinned) = reuse(name) {
            if pinned.info() != sys::map_definition(&map) {
                return Err(Instantiate::Unsuitable(name));
            }
            map.reuse_fd(pinned.fd().as_fd())?;
        }
    }
    let direct = may_read_directly();
    open.progs.ilb_steer.set_autoload(direct);
    open.progs.ilb_steer_h.set_autoload(!direct);

    let skel = open.load()?;
    let copy = |fd: BorrowedFd<'_>| {
        fd.try_clone_to_owned()
            .map_err(|error| failed(format!("cannot copy a descriptor: {error}")))
    };
    let maps = Maps::gather(|name| {
        let found = skel.object().maps().find(|map| map.name() == name);
        let map = found.ok_or_else(|| failed(format!("it has no map {name}")))?;
        Map::new(name, copy(map.as_fd())?)
    })?;
    let program = if direct {
        &skel.progs.ilb_steer
    } else {
        &skel.progs.ilb_steer_h
    };
    Ok(Loaded {
        program: copy(program.as_fd())?,
        maps,
    })
}

/// Whether this thread may load a program that reads a packet at any offset: CAP_PERFMON (38) or, as everything that
/// CAP_BPF and CAP_PERFMON allow, CAP_SYS_ADMIN (21). True if nobody can tell.
fn may_read_directly() -> bool {
    let Ok(status) = fs::read_to_string("/proc/thread-self/status") else {
        return true;
    };
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_none_or(|set| set & (1 << 38 | 1 << 21) != 0)
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
