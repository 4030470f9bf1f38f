//! Attaching the program to interfaces.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libbpf_rs::libbpf_sys::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};

use crate::error::explain_attach;
use crate::mend::Held;
use crate::pins::{self, PinnedLink};
use crate::{Error, sys};

/// How the program runs on an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Native if the driver can, generic otherwise.
    #[default]
    Auto,
    /// In the driver, before the kernel makes anything of the frame.
    Native,
    /// In the kernel's network stack: works with every driver, slower.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Auto => "auto",
            Mode::Native => "native",
            Mode::Generic => "generic",
        })
    }
}

/// How the program was attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Index of the interface.
    pub ifindex: u32,
    /// [`Mode::Native`] or [`Mode::Generic`].
    pub mode_used: Mode,
    /// Why it is not native although that was tried or could have been.
    pub reason: Option<String>,
    /// Whether an earlier process had attached it already: the program was replaced without a gap.
    pub adopted: bool,
}

/// Attaches `program` to an interface, or puts it in the place of the one that a pinned link has there.
pub(crate) fn attach(
    pin_dir: &Path,
    program: BorrowedFd<'_>,
    interface: &str,
    ifindex: u32,
    mode: Mode,
) -> Result<(Attached, Held), Error> {
    let path = pins::link_path(pin_dir, interface, ifindex);
    let present = query(interface, ifindex)?;
    let mut adopted = None;
    for link in pins::links(pin_dir)? {
        let alive =
            present.filter(|xdp| link.info.ifindex == ifindex && link.info.program == xdp.program);
        if let Some(xdp) = alive {
            adopted = Some((link, xdp));
        } else if link.info.ifindex == 0 || link.info.ifindex == ifindex || link.path == path {
            tracing::info!(
                "{} belongs to an interface that is gone: removed",
                link.path.display()
            );
            pins::remove(&link.path)?;
        }
    }
    match adopted {
        Some((link, xdp)) if fits(mode, xdp.generic) => {
            adopt(link, program, interface, ifindex, &path, xdp)
        }
        Some((link, xdp)) => {
            let from = if xdp.generic {
                Mode::Generic
            } else {
                Mode::Native
            };
            tracing::warn!(
                "{interface} changes from {from} to {mode} mode: it is without the program for a moment"
            );
            link.detach()?;
            create(program, interface, ifindex, &path, mode)
        }
        None => create(program, interface, ifindex, &path, mode),
    }
}

fn query(interface: &str, ifindex: u32) -> Result<Option<sys::XdpInfo>, Error> {
    sys::xdp_query(ifindex).map_err(|source| Error::NoInterface {
        name: interface.to_owned(),
        source,
    })
}

fn fits(mode: Mode, generic: bool) -> bool {
    match mode {
        Mode::Auto => true,
        Mode::Native => !generic,
        Mode::Generic => generic,
    }
}

fn adopt(
    link: PinnedLink,
    program: BorrowedFd<'_>,
    interface: &str,
    ifindex: u32,
    path: &Path,
    xdp: sys::XdpInfo,
) -> Result<(Attached, Held), Error> {
    let mode_used = if xdp.generic {
        Mode::Generic
    } else {
        Mode::Native
    };
    sys::link_update(link.fd.as_fd(), program).map_err(|error| Error::Attach {
        interface: interface.to_owned(),
        mode: mode_used,
        reason: explain_attach(&error),
    })?;
    if link.path != path {
        // The interface has been renamed.
        pins::pin(&link.fd, path)?;
        pins::remove(&link.path)?;
    }
    let reason = xdp.generic.then(|| {
        "an earlier process attached it so, and staying so leaves no gap; detach it to try native mode again".to_owned()
    });
    let attached = Attached {
        ifindex,
        mode_used,
        reason,
        adopted: true,
    };
    Ok((attached, held(link.fd, path)))
}

fn held(fd: OwnedFd, path: &Path) -> Held {
    Held {
        fd,
        path: path.to_owned(),
    }
}

fn create(
    program: BorrowedFd<'_>,
    interface: &str,
    ifindex: u32,
    path: &Path,
    mode: Mode,
) -> Result<(Attached, Held), Error> {
    let failed = |mode, error: &std::io::Error| Error::Attach {
        interface: interface.to_owned(),
        mode,
        reason: explain_attach(error),
    };
    let mut reason = None;
    if mode != Mode::Generic {
        match sys::link_create(program, ifindex, XDP_FLAGS_DRV_MODE) {
            Ok(link) => {
                pins::pin(&link, path)?;
                let attached = Attached {
                    ifindex,
                    mode_used: Mode::Native,
                    reason: None,
                    adopted: false,
                };
                return Ok((attached, held(link, path)));
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EBUSY | libc::EEXIST) => return Err(busy(interface, ifindex)),
                Some(libc::EPERM | libc::EACCES) => return Err(failed(Mode::Native, &error)),
                _ if mode == Mode::Native => return Err(failed(Mode::Native, &error)),
                _ => reason = Some(explain_attach(&error)),
            },
        }
    }
    match sys::link_create(program, ifindex, XDP_FLAGS_SKB_MODE) {
        Ok(link) => {
            pins::pin(&link, path)?;
            let attached = Attached {
                ifindex,
                mode_used: Mode::Generic,
                reason,
                adopted: false,
            };
            Ok((attached, held(link, path)))
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
            Err(busy(interface, ifindex))
        }
        Err(error) => Err(failed(Mode::Generic, &error)),
    }
}

fn busy(interface: &str, ifindex: u32) -> Error {
    let program = match query(interface, ifindex) {
        Ok(Some(xdp)) => match sys::program_name(xdp.program) {
            Some(name) => format!("id {}, \"{name}\"", xdp.program),
            None => format!("id {}", xdp.program),
        },
        _ => "it is not visible which".to_owned(),
    };
    Error::Busy {
        interface: interface.to_owned(),
        program,
    }
}
