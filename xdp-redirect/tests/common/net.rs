//! A private network: one namespace without a name, a veth pair in it, and a raw socket that plays the client.
//!
//! The namespace belongs to the test's thread and goes with it, whatever happens; nobody else can see it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::frames::{OUR_MAC, THEIR_MAC, address, checksum, frame, packet};

/// Address of the interface [`Network::OURS`], which the kernel answers for.
pub const OURS: &str = "192.0.2.1";
/// Address of the client that the raw socket plays.
pub const CLIENT: &str = "192.0.2.2";

/// How long to wait for an answer, and for none.
const PATIENCE: Duration = Duration::from_millis(400);

/// The client's end of a veth pair.
pub struct Network {
    socket: OwnedFd,
}

impl Network {
    /// Name of the interface on which the program goes.
    pub const OURS: &str = "ours";
    /// Name of the other end.
    pub const THEIRS: &str = "theirs";

    /// Runs `test` in a namespace of its own.
    pub fn with(test: impl FnOnce(Network) + Send) {
        let result = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: the call changes the namespace of this thread alone.
                let returned = unsafe { libc::unshare(libc::CLONE_NEWNET) };
                assert_eq!(
                    returned,
                    0,
                    "no network namespace (root?): {}",
                    io::Error::last_os_error()
                );
                ip("link set lo up");
                test(Network::new());
            });
            thread.join()
        });
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }

    fn new() -> Network {
        make_pair();
        Network {
            socket: packet_socket(Self::THEIRS),
        }
    }

    /// Sends a frame to our interface.
    pub fn send(&self, frame: &[u8]) {
        // SAFETY: the kernel reads the slice.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// Whether a frame that `wanted` likes comes back before patience ends.
    fn hears(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0u8; 2048];
        while Instant::now() < end {
            let fd = self.socket.as_raw_fd();
            // SAFETY: the kernel writes at most as many bytes as the buffer has.
            let length = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if let Ok(length) = usize::try_from(length)
                && wanted(&buffer[..length])
            {
                return true;
            }
        }
        false
    }

    /// Whether the kernel answers a TCP SYN to this port with RST: it does where the program passes it.
    pub fn kernel_refuses(&self, port: u16) -> bool {
        let from = 40000 + port % 1000;
        self.send(&syn(from, port));
        self.hears(|frame| {
            frame.len() >= 54
                && frame[12..14] == [8, 0]
                && frame[23] == 6
                && frame[34..38] == [port.to_be_bytes(), from.to_be_bytes()].concat()
                && frame[47] & 0x04 != 0
        })
    }

    /// Whether the kernel answers a ping.
    pub fn kernel_answers_ping(&self) -> bool {
        let mut echo = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
        let sum = checksum(&echo);
        echo[2..4].copy_from_slice(&sum.to_be_bytes());
        self.send(&frame(&packet(address(CLIENT), address(OURS), 1, &echo)));
        self.hears(|frame| frame.len() >= 42 && frame[23] == 1 && frame[34] == 0)
    }
}

/// Makes the veth pair.
pub fn make_pair() {
    let (ours, theirs) = (Network::OURS, Network::THEIRS);
    let (our_mac, their_mac) = (mac(OUR_MAC), mac(THEIR_MAC));
    ip(&format!(
        "link add {ours} address {our_mac} type veth peer name {theirs} address {their_mac}"
    ));
    ip(&format!("link set {ours} up"));
    ip(&format!("link set {theirs} up"));
    ip(&format!("addr add {OURS}/24 dev {ours}"));
    ip(&format!("neigh add {CLIENT} lladdr {their_mac} dev {ours}"));
}

/// Runs `ip` with these arguments in the namespace of the calling thread.
pub fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output();
    let output = output.expect("ip (package iproute2) can be run");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {message}");
}

fn mac(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// A socket for whole frames on an interface.
fn packet_socket(interface: &str) -> OwnedFd {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: the call takes numbers.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            protocol.into(),
        )
    };
    assert!(fd >= 0, "no packet socket: {}", io::Error::last_os_error());
    // SAFETY: the call has just opened this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let name = std::ffi::CString::new(interface).expect("no NUL in it");
    // SAFETY: all fields of the structure are numbers, for which zero is valid; the name is a C string.
    let (mut where_to, index) = unsafe {
        (
            std::mem::zeroed::<libc::sockaddr_ll>(),
            libc::if_nametoindex(name.as_ptr()),
        )
    };
    where_to.sll_family = libc::AF_PACKET as u16;
    where_to.sll_protocol = protocol;
    where_to.sll_ifindex = index as i32;
    let size = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: the address has the size that is given.
    let bound = unsafe { libc::bind(fd, (&raw const where_to).cast(), size) };
    assert_eq!(bound, 0, "{}", io::Error::last_os_error());
    let timeout = libc::timeval {
        tv_sec: 0,
        tv_usec: 50_000,
    };
    let size = size_of::<libc::timeval>() as u32;
    // SAFETY: the option has the size that is given.
    let set = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const timeout).cast(),
            size,
        )
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    socket
}

/// A whole TCP SYN from the client to our interface, as the kernel accepts it.
pub fn syn(from: u16, to: u16) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let ends = [CLIENT, OURS].map(|text| text.parse::<Ipv4Addr>().expect("an address").octets());
    let pseudo = [
        &ends[0][..],
        &ends[1][..],
        &[0, 6, 0, segment.len() as u8],
        &segment,
    ]
    .concat();
    let sum = checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    frame(&packet(address(CLIENT), address(OURS), 6, &segment))
}
