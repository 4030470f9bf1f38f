//! The way to the kernel for packets that were steered to us and are none of ours: a tun device of our own, from which
//! the kernel receives them as if from the wire.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// The device's name; the kernel puts a number in.
const NAME: &[u8] = b"ilb%d\0";

/// A tun device that exists as long as this value.
pub struct Tun {
    file: File,
    name: String,
}

/// Why there is no way to the kernel.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}; packets that are none of ours cannot be handed to the kernel")]
pub struct TunError {
    step: &'static str,
    source: io::Error,
}

impl Tun {
    /// Creates the device in the current network namespace and brings it up.
    ///
    /// # Errors
    /// Without /dev/net/tun or CAP_NET_ADMIN.
    pub fn create() -> Result<Tun, TunError> {
        let step = |step| move |source| TunError { step, source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(step("opening /dev/net/tun"))?;
        let mut request = interface_request();
        for (to, from) in request.ifr_name.iter_mut().zip(NAME) {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes an ifreq, which lives through the call.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } < 0 {
            return Err(step("creating a tun device")(io::Error::last_os_error()));
        }
        // SAFETY: the kernel has written a name with its terminating zero.
        let name = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) }
            .to_string_lossy()
            .into_owned();
        let tun = Tun { file, name };
        tun.accept_any_source();
        tun.warn_of_strict_filter();
        tun.bring_up().map_err(step("bringing the tun device up"))?;
        Ok(tun)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hands an IP packet (without Ethernet header) to the kernel.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn deliver(&self, packet: &[u8]) -> io::Result<()> {
        match (&self.file).write(packet)? {
            n if n == packet.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Settings of this device only: packets come from anywhere, and the kernel shall not use the device by itself.
    fn accept_any_source(&self) {
        for (setting, value) in [
            (format!("ipv4/conf/{}/rp_filter", self.name), "0"),
            (format!("ipv6/conf/{}/addr_gen_mode", self.name), "1"),
            (format!("ipv6/conf/{}/accept_ra", self.name), "0"),
        ] {
            let path = PathBuf::from("/proc/sys/net").join(&setting);
            if let Err(error) = std::fs::write(&path, value) {
                tracing::debug!("{} stays as it is: {error}", path.display());
            }
        }
    }

    /// The stricter of a device's setting and that of all devices counts (Documentation/networking/ip-sysctl.rst).
    fn warn_of_strict_filter(&self) {
        const ALL: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";
        if std::fs::read(ALL).is_ok_and(|value| value.starts_with(b"1")) {
            tracing::warn!(
                "net.ipv4.conf.all.rp_filter is 1: the kernel will drop IPv4 packets that are steered here and are \
                 none of ours; set it to 0 or 2 if that matters"
            );
        }
    }

    fn bring_up(&self) -> io::Result<()> {
        // SAFETY: plain system call.
        let socket =
            unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut request = interface_request();
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_NOARP) as libc::c_short;
        // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives through the call.
        let result = unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request) };
        let error = io::Error::last_os_error();
        // SAFETY: the descriptor was opened above and is not used any more.
        unsafe { libc::close(socket) };
        if result < 0 { Err(error) } else { Ok(()) }
    }
}

fn interface_request() -> libc::ifreq {
    // SAFETY: all-zero is a valid value of this plain C structure.
    unsafe { std::mem::zeroed() }
}
