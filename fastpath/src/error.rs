//! Why the fast path could not start or go on, in words for the person who has to repair it.

use std::io;

/// Why packet memory or sockets could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel refused the packet memory.
    #[error("{bytes} bytes of packet memory: {reason}")]
    Umem {
        /// How much was asked for.
        bytes: usize,
        /// Why not, and what to do.
        reason: String,
    },
    /// The kernel refused a socket.
    #[error("interface {interface}, queue {queue}: {reason}")]
    Socket {
        /// Name of the interface.
        interface: String,
        /// Number of the queue.
        queue: u32,
        /// The kernel's error number, 0 if there is none.
        errno: i32,
        /// Why not, and what to do.
        reason: String,
    },
    /// A value of the node settings cannot be used.
    #[error("{0}")]
    Setting(String),
}

impl OpenError {
    /// For memory of `bytes` bytes.
    pub fn umem(bytes: usize, errno: i32) -> OpenError {
        OpenError::Umem {
            bytes,
            reason: explain(errno),
        }
    }

    /// For a socket.
    pub fn socket(interface: &str, queue: u32, errno: i32) -> OpenError {
        OpenError::Socket {
            interface: interface.into(),
            queue,
            errno,
            reason: explain(errno),
        }
    }

    /// The kernel's error number where one is known.
    pub fn errno(&self) -> i32 {
        match self {
            OpenError::Socket { errno, .. } => *errno,
            OpenError::Umem { .. } | OpenError::Setting(_) => 0,
        }
    }
}

/// Why the fast path cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Sockets.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The XDP program.
    #[error(transparent)]
    Xdp(#[from] xdp_redirect::Error),
    /// The connection table.
    #[error(transparent)]
    Table(#[from] crate::table_file::TableFileError),
    /// The kernel's view of the network.
    #[error(transparent)]
    Netlink(#[from] crate::netlink::NetlinkError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] crate::control::ControlError),
    /// The node settings.
    #[error(transparent)]
    Settings(#[from] ilb_node::settings::SettingsError),
    /// Something of the system.
    #[error("{step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl StartError {
    /// For `map_err`.
    pub fn system(step: &'static str) -> impl FnOnce(io::Error) -> StartError {
        move |source| StartError::System { step, source }
    }
}

/// The kernel's error number behind an error of xsk-rs, 0 if there is none.
pub fn os_error(error: &(dyn std::error::Error + 'static)) -> i32 {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error().unwrap_or(0);
        }
        cause = error.source();
    }
    0
}

/// What an error number of the AF_XDP calls means, and what to do about it.
pub fn explain(errno: i32) -> String {
    let words = match errno {
        0 => return "the kernel gave no reason".into(),
        libc::ENOBUFS => {
            "more locked memory than allowed: raise the limit (LimitMEMLOCK=infinity in the unit, or ulimit -l), or \
             lower frames in the node settings"
        }
        libc::ENOMEM => "the machine is out of memory: lower frames in the node settings",
        libc::EBUSY => {
            "another program uses this queue with AF_XDP: stop it (another ilb-fastpath?), or leave the interface out"
        }
        libc::EPERM | libc::EACCES => {
            "not allowed: CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF are needed"
        }
        libc::EOPNOTSUPP => "the driver does not offer this",
        libc::EINVAL => "the driver refuses these parameters, or the queue does not exist",
        libc::ENODEV | libc::ENXIO => "the interface or queue does not exist",
        libc::ENETDOWN => "the interface is down",
        libc::EAFNOSUPPORT => "this kernel was built without AF_XDP (CONFIG_XDP_SOCKETS)",
        _ => return io::Error::from_raw_os_error(errno).to_string(),
    };
    format!("{words} ({})", io::Error::from_raw_os_error(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_become_advice() {
        for (errno, advice) in [
            (libc::ENOBUFS, "LimitMEMLOCK"),
            (libc::EBUSY, "another"),
            (libc::EPERM, "CAP_NET_RAW"),
            (libc::EOPNOTSUPP, "driver"),
        ] {
            let words = explain(errno);
            assert!(words.contains(advice), "{words}");
            assert!(words.contains("os error"), "{words}");
        }
    }

    #[test]
    fn the_error_number_is_found_behind_its_wrapping() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let wrapped = Outer(io::Error::from_raw_os_error(libc::EBUSY));
        assert_eq!(os_error(&wrapped), libc::EBUSY);
        assert_eq!(os_error(&std::fmt::Error), 0);
    }
}
