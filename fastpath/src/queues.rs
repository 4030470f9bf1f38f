//! How many receive queues an interface has.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `ETHTOOL_GCHANNELS` of include/uapi/linux/ethtool.h.
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels` of include/uapi/linux/ethtool.h.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Number of receive queues in use, at least 1. A driver that cannot tell is taken to have one per entry in sysfs.
///
/// # Errors
/// When there is no such interface.
pub fn receive_queues(interface: &str) -> io::Result<u32> {
    match channels(interface) {
        Ok(count) => Ok(count.max(1)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(error),
        Err(_) => Ok(in_sysfs(interface).max(1)),
    }
}

fn channels(interface: &str) -> io::Result<u32> {
    // SAFETY: plain system call.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut channels = Channels {
        cmd: ETHTOOL_GCHANNELS,
        ..Channels::default()
    };
    // SAFETY: all-zero is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: SIOCETHTOOL reads and writes an ifreq that points to a structure of the command's type; both live
    // through the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(channels.rx + channels.combined)
}

fn in_sysfs(interface: &str) -> u32 {
    let Ok(entries) = std::fs::read_dir(format!("/sys/class/net/{interface}/queues")) else {
        return 1;
    };
    entries
        .flatten()
        .filter(|e| e.file_name().as_encoded_bytes().starts_with(b"rx-"))
        .count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_does_not_exist_is_an_error() {
        let error = receive_queues("no-such-if").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(receive_queues("a-name-that-is-too-long-for-linux").is_err());
    }

    #[test]
    fn loopback_has_a_queue() {
        assert_eq!(receive_queues("lo").unwrap(), 1);
    }
}
