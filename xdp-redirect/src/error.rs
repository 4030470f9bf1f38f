//! What can go wrong, in words for the administrator.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::{Mode, abi};

/// Why something could not be done. The message says what failed, with which value, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a protocol that the program knows by itself.
    #[error(
        "protocol {protocol} of {address} cannot be steered by itself: 6 (TCP), 17 (UDP), 132 (SCTP) and the family's ICMP can, and all others together"
    )]
    Protocol {
        /// Address for which it was asked.
        address: IpAddr,
        /// Number in the IP header.
        protocol: u8,
    },
    /// A range that ends before it begins.
    #[error(
        "ports {first}-{last} of {address} are no range: the first must not be larger than the last"
    )]
    PortRange {
        /// Address for which it was asked.
        address: IpAddr,
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// More addresses than the maps were made for.
    #[error(
        "{wanted} {what} are to be steered, but the steering maps were made for {allowed}: \
         raise the number of addresses and restart the fast path"
    )]
    TooManyAddresses {
        /// Which of the maps: "IPv4 destinations" and so on.
        what: &'static str,
        /// Entries that were asked for.
        wanted: usize,
        /// Entries that are allowed.
        allowed: usize,
    },
    /// More addresses than can be closed.
    #[error("{wanted} addresses are to be closed, but there is room for {allowed}")]
    TooManyClosed {
        /// Addresses that were asked for.
        wanted: usize,
        /// Addresses that are allowed.
        allowed: usize,
    },
    /// A number in [`LoadOptions`](crate::LoadOptions) that is out of range.
    #[error(
        "{max_addresses} addresses are out of range: 1 to {} are allowed",
        crate::MAX_ADDRESSES
    )]
    MaxAddresses {
        /// The number that was asked for.
        max_addresses: u32,
    },
    /// The pin directory cannot be one.
    #[error("{} cannot hold pinned maps: {reason}", path.display())]
    PinDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Something with a file or directory among the pins.
    #[error("cannot {action} {}: {}", path.display(), explain(source))]
    Pin {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel did not take the program or its maps.
    #[error("cannot load the XDP program: {reason}")]
    Load {
        /// What libbpf said, and what to do.
        reason: String,
    },
    /// A map operation.
    #[error("cannot {action} the map {map}: {}", explain(source))]
    Map {
        /// What was to be done.
        action: &'static str,
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No such interface in this network namespace.
    #[error("there is no network interface {name}: {source}")]
    NoInterface {
        /// The name, or the index if only that is known.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// More interfaces than the program serves.
    #[error(
        "no room for another interface: one fast path serves at most {} interfaces",
        abi::MAX_INTERFACES
    )]
    TooManyInterfaces,
    /// A queue that cannot have a socket.
    #[error("queue {queue} is out of range: sockets can serve the queues 0 to {}", abi::MAX_QUEUES - 1)]
    Queue {
        /// The queue that was asked for.
        queue: u32,
    },
    /// Something else sits on the interface.
    #[error(
        "{interface} has another XDP program already ({program}): one interface takes one program; \
         take that one off with `ip link set dev {interface} xdp off` or by ending the program that attached it"
    )]
    Busy {
        /// Name of the interface.
        interface: String,
        /// Id and, if visible, name of the program that is there.
        program: String,
    },
    /// The program cannot be attached.
    #[error("cannot attach the XDP program to {interface} in {mode} mode: {reason}")]
    Attach {
        /// Name of the interface.
        interface: String,
        /// Mode that was tried last.
        mode: Mode,
        /// What the kernel said, in words.
        reason: String,
    },
    /// The program cannot run on a frame that was made up.
    #[error(
        "cannot run the XDP program on a frame of {length} bytes: {}",
        explain(source)
    )]
    TestRun {
        /// Length of the frame.
        length: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An error number of the BPF system call, with what it usually means there.
pub(crate) fn explain(error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "the capabilities CAP_BPF and CAP_NET_ADMIN are needed",
        Some(libc::ENOMEM) => {
            "the kernel has no memory for it, or a memory limit of the service is reached"
        }
        Some(libc::ENOBUFS) => "RLIMIT_MEMLOCK is too low: raise it (systemd: LimitMEMLOCK=)",
        Some(libc::E2BIG) => "the map is full",
        Some(libc::EROFS) => "the BPF file system is read-only here (systemd: ReadWritePaths=)",
        Some(libc::EBADF) => "the descriptor is closed, or not of the expected kind",
        _ => return error.to_string(),
    };
    format!("{error}: {hint}")
}

/// An error number of attaching an XDP program, with what it usually means there.
pub(crate) fn explain_attach(error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the driver has no native XDP",
        Some(libc::EINVAL) => {
            "the driver refuses it as the interface is set up now (MTU, LRO or number of queues)"
        }
        Some(libc::ERANGE | libc::EFBIG) => "the MTU of the interface is too large for XDP",
        Some(libc::ENOSPC) => "the interface has too few queues for XDP",
        Some(libc::ENOMEM) => "the driver has no memory for the queues of XDP",
        Some(libc::ENODEV | libc::ENXIO) => "the interface has just gone",
        _ => return explain(error),
    };
    format!("{error}: {hint}")
}
