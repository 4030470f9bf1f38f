//! Whether everything in the kernel is still as this process has left it, and putting it right again.
//!
//! A link and the maps live as long as somebody holds them: this process does, besides the pins. So a pin that is deleted takes
//! no program off its interface; but the next process would not find it, and the program would go with this one.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::maps::Maps;
use crate::{Error, pins, sys};

/// A link as this process has left it.
#[derive(Debug)]
pub(crate) struct Held {
    pub fd: OwnedFd,
    /// Where it is pinned.
    pub path: PathBuf,
}

/// Links by the index of their interface.
pub(crate) type Links = HashMap<u32, Held>;

/// Something that was not as this process had left it.
#[derive(Debug)]
pub struct Mended {
    /// What.
    pub what: Lost,
    /// The interface, or the path of the pin.
    pub item: String,
    /// Whether it is right again.
    pub outcome: Result<(), Error>,
}

/// What can get lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lost {
    /// The program was taken off its interface.
    Program,
    /// A pin of a link or a map was deleted.
    Pin,
}

impl Lost {
    /// Its name, as in reports of drift.
    pub const fn label(self) -> &'static str {
        match self {
            Lost::Program => "program",
            Lost::Pin => "pin",
        }
    }

    /// How it should be, in words.
    pub const fn wanted(self) -> &'static str {
        match self {
            Lost::Program => "the XDP program on it",
            Lost::Pin => "pinned there",
        }
    }

    /// How it was, in words.
    pub const fn actual(self) -> &'static str {
        match self {
            Lost::Program => "taken off",
            Lost::Pin => "deleted",
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// Whether a link is still attached to its interface. One that cannot be asked is taken for well: what is not known to be
/// lost is left alone.
pub(crate) fn is_attached(link: &Held, ifindex: u32) -> bool {
    !matches!(sys::link_info(link.fd.as_fd()), Ok(Some(info)) if info.ifindex != ifindex)
}

/// Pins again what is pinned no more.
pub(crate) fn pins(pin_dir: &Path, links: &Links, maps: &Maps) -> Vec<Mended> {
    let directory = pins::maps_directory(pin_dir);
    let maps = maps.all().map(|map| (map.fd(), directory.join(map.name())));
    let links = links.values().map(|link| (&link.fd, link.path.clone()));
    let mut mended = Vec::new();
    for (fd, path) in maps.into_iter().chain(links) {
        // Whatever cannot be looked at is not known to be gone.
        if path.try_exists().unwrap_or(true) {
            continue;
        }
        let outcome = pins::prepare(pin_dir).and_then(|_| pins::pin(fd, &path));
        mended.push(Mended {
            what: Lost::Pin,
            item: path.display().to_string(),
            outcome,
        });
    }
    mended
}
