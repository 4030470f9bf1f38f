//! Steers packets into AF_XDP sockets: the XDP program of ilb, its maps, and everything about loading, pinning and
//! attaching it.
//!
//! The crate owns the one question that is asked in the kernel, *is this packet ours?*, and the maps that answer it. It
//! refuses to decide which server a packet goes to, to rewrite anything, or to read a packet in userspace.
//!
//! # What is ours
//! A frame is redirected to the socket of its queue if
//! - its destination address, protocol and port are in [`Steering`] as a destination, or
//! - its source address, protocol and port are there as a source, or
//! - it is a fragment other than the first and its destination or source is there with any port, or
//! - it is an ICMP or ICMPv6 *error* (destination unreachable, packet too big, time exceeded, parameter problem) about a
//!   packet that left from one of the destinations, or that was sent to a destination or to a source.
//!
//! TCP, UDP and SCTP have ports; ICMP and ICMPv6 have *queries* (echo, timestamp, information, address mask), and all other
//! protocols of an address are steered together or not at all.
//!
//! Everything else passes to the kernel, whatever is in [`Steering`]: ARP, neighbour discovery and every other ICMP message
//! that is neither error nor query, IGMP, frames with a VLAN tag, multicast and broadcast, and whatever is truncated or contradicts itself. IPv4 options and up
//! to eight IPv6 extension headers are walked; a packet with more of them passes. A VLAN tag that the network card has
//! stripped is invisible to XDP: switch `rx-vlan-offload` off where VLANs share an interface with us.
//!
//! # Closed addresses
//! An address may be [closed](Redirect::close): what is sent to it and is not redirected is dropped, whatever it is, so that this
//! host takes nothing for itself there (`Accept_Mode` of RFC 9568 section 6.1, switched off). What a host needs to have the
//! address at all still passes: ARP, which names no destination, neighbour discovery (ICMPv6 133 to 137), VRRP (protocol
//! 112), and frames with a VLAN tag. A packet that is malformed or has too many headers to be understood
//! is dropped, too.
//!
//! # Life without a process
//! Maps and links are pinned, so they outlive the process. Its sockets do not: from then on packets of ours are *dropped*,
//! so that TCP retransmits, and never passed to a kernel that would answer them with RST. The next process
//! [loads](Redirect::load) the program with the same maps and puts it into the same links, without a gap.
//! [`Redirect::detach`] ends that.
//!
//! ```no_run
//! use xdp_redirect::{LoadOptions, Mode, Redirect, Steering};
//! # fn socket() -> i32 { 0 }
//! # fn main() -> Result<(), xdp_redirect::Error> {
//! let mut redirect = Redirect::load(&LoadOptions::default())?;
//! let mut steering = Steering::new();
//! steering.add_destination([192, 0, 2, 1].into(), 6, 80, 80)?;
//! redirect.apply(&steering)?;
//! let attached = redirect.attach("eth0", Mode::Auto)?;
//! redirect.set_socket(attached.ifindex, 0, socket())?;
//! # Ok(())
//! # }
//! ```
//!
//! # Privileges
//! CAP_BPF and CAP_NET_ADMIN. With CAP_PERFMON, the program reads packets directly; without it, the verifier allows that
//! at constant offsets only, and a variant is loaded that reads by helper functions: it needs Linux 5.18 instead of 5.10
//! and takes longer. (Tested: the one on 5.10, 6.1 and 6.18, the other on 6.1 and 6.18.) Mounting the BPF file system,
//! where nobody has, needs CAP_SYS_ADMIN.

mod abi;
mod error;
mod link;
mod load;
mod map;
mod maps;
mod mend;
mod pins;
mod ports;
mod steering;
mod sys;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

pub use abi::{MAX_CLOSED, MAX_INTERFACES, MAX_QUEUES};
pub use error::Error;
pub use link::{Attached, Mode};
pub use mend::{Lost, Mended};
pub use ports::PortSet;
pub use steering::{Changes, ERRORS_ONLY, OTHER_PROTOCOLS, Steering};

use maps::Maps;
use mend::Links;

/// Largest number of addresses that [`LoadOptions::max_addresses`] allows.
pub const MAX_ADDRESSES: u32 = 1 << 22;

/// How to load the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Directory of the pins, in a BPF file system. It is made if it is not there, with mode 0700.
    pub pin_dir: PathBuf,
    /// For how many addresses, counted for each protocol and apart for IPv4 and IPv6, destinations and sources, there is
    /// room: 1 to [`MAX_ADDRESSES`]. Each takes memory only when it is there, besides 160 bytes for all the maps.
    pub max_addresses: u32,
}

impl Default for LoadOptions {
    /// `/sys/fs/bpf/ilb` and 65536 addresses.
    fn default() -> LoadOptions {
        LoadOptions {
            pin_dir: PathBuf::from("/sys/fs/bpf/ilb"),
            max_addresses: 65536,
        }
    }
}

/// How many frames became what, since the maps were made, all interfaces together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// To the kernel, the malformed ones included.
    pub passed: u64,
    /// To the kernel because truncated or contradictory.
    pub malformed: u64,
    /// Ours and given to a socket. Whether the socket had room only the socket knows (`XDP_STATISTICS`).
    pub redirected: u64,
    /// Ours and dropped, because no socket served the queue.
    pub unserved: u64,
    /// Of the last two: fragments other than the first, known by their addresses alone.
    pub fragments: u64,
    /// Of redirected and unserved: ICMP errors about our packets.
    pub icmp_errors: u64,
    /// Not ours and dropped, because sent to a closed address.
    pub closed: u64,
    /// Bytes of those, without Ethernet headers.
    pub closed_bytes: u64,
}

/// What the program does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The kernel gets it.
    Pass,
    /// It is ours, and no socket serves its queue; or it is not, and is sent to a closed address.
    Drop,
    /// It is ours and goes to the socket of its queue.
    Redirect,
    /// Another number of `enum xdp_action`, which our program never returns: 0 is `XDP_ABORTED`, 3 `XDP_TX`.
    Other(u32),
}

/// The program in the kernel, with its maps.
///
/// Dropping it leaves everything in place: pinned maps, pinned links, the program on its interfaces. See
/// [`detach`](Redirect::detach) for the other end.
pub struct Redirect {
    pin_dir: PathBuf,
    program: OwnedFd,
    maps: Maps,
    links: Links,
}

impl fmt::Debug for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redirect")
            .field("pin_dir", &self.pin_dir)
            .finish_non_exhaustive()
    }
}

impl Redirect {
    /// Loads the program.
    ///
    /// Maps that are pinned already are used with all they contain. If they have the wrong size, because
    /// `max_addresses` is another one now, new ones are made and get their contents; if they are of another ABI version,
    /// they are replaced by empty ones, and [`apply`](Redirect::apply) should come before [`attach`](Redirect::attach).
    /// Interfaces that an earlier process attached keep that process's program and maps until `attach` replaces it.
    ///
    /// # Errors
    /// Missing privileges, no BPF file system, a kernel that refuses the program, no memory.
    pub fn load(options: &LoadOptions) -> Result<Redirect, Error> {
        if !(1..=MAX_ADDRESSES).contains(&options.max_addresses) {
            return Err(Error::MaxAddresses {
                max_addresses: options.max_addresses,
            });
        }
        let directory = pins::prepare(&options.pin_dir)?;
        pins::remove_other_versions(&options.pin_dir)?;
        let loaded = load::load(options, &directory)?;
        let alive: Vec<u32> = pins::links(&options.pin_dir)?
            .iter()
            .map(|link| link.info.ifindex)
            .collect();
        loaded.maps.keep_slots(&alive)?;
        Ok(Redirect {
            pin_dir: options.pin_dir.clone(),
            program: loaded.program,
            maps: loaded.maps,
            links: Links::new(),
        })
    }

    /// Attaches the program to an interface of the calling thread's network namespace, by a link that is pinned.
    ///
    /// If an earlier process left a link to this very interface, its program is replaced atomically. If `mode` asks for
    /// another mode than the link has, the link is replaced, and for a moment the interface is without the program. Which
    /// mode is used and why is logged.
    ///
    /// # Errors
    /// [`Error::NoInterface`], [`Error::Busy`] if another XDP program is there, [`Error::Attach`] with the reason,
    /// [`Error::TooManyInterfaces`] beyond [`MAX_INTERFACES`].
    pub fn attach(&mut self, interface: &str, mode: Mode) -> Result<Attached, Error> {
        let ifindex = sys::interface_index(interface).map_err(|source| Error::NoInterface {
            name: interface.to_owned(),
            source,
        })?;
        self.maps.slot(ifindex)?;
        pins::prepare(&self.pin_dir)?;
        let (attached, held) = link::attach(
            &self.pin_dir,
            self.program.as_fd(),
            interface,
            ifindex,
            mode,
        )?;
        self.links.insert(ifindex, held);
        let how = if attached.adopted {
            "replaced the XDP program of"
        } else {
            "attached the XDP program to"
        };
        match &attached.reason {
            None => tracing::info!("{how} {interface} in {} mode", attached.mode_used),
            Some(reason) => {
                tracing::warn!("{how} {interface} in {} mode: {reason}", attached.mode_used)
            }
        }
        Ok(attached)
    }

    /// Whether the program was taken off an interface that [`attach`](Redirect::attach) has put it on; `attach` puts it
    /// there again.
    pub fn is_taken_off(&self, ifindex: u32) -> bool {
        let held = self.links.get(&ifindex);
        // With an interface its link goes, too.
        held.is_some_and(|link| {
            !mend::is_attached(link, ifindex) && sys::interface_name(ifindex).is_ok()
        })
    }

    /// Pins again what is pinned no more, and says what that was. As long as this process lives, nothing else is lost with
    /// a pin.
    pub fn mend_pins(&self) -> Vec<Mended> {
        mend::pins(&self.pin_dir, &self.links, &self.maps)
    }

    /// Lets go of the link to an interface that is gone.
    pub fn forget(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
    }

    /// Takes the program off all interfaces but these, for instance those that are no longer configured. Returns the
    /// indexes of those that it was taken off; links of interfaces that are gone are removed, too.
    ///
    /// # Errors
    /// When a pin cannot be read or removed.
    pub fn detach_except(&mut self, interfaces: &[u32]) -> Result<Vec<u32>, Error> {
        let mut detached = Vec::new();
        for link in pins::links(&self.pin_dir)? {
            let ifindex = link.info.ifindex;
            if interfaces.contains(&ifindex) {
                continue;
            }
            link.detach()?;
            if ifindex != 0 {
                let name =
                    sys::interface_name(ifindex).unwrap_or_else(|_| format!("interface {ifindex}"));
                tracing::info!("took the XDP program off {name}");
                detached.push(ifindex);
            }
        }
        self.links.retain(|ifindex, _| interfaces.contains(ifindex));
        self.maps.keep_slots(interfaces)?;
        Ok(detached)
    }

    /// Lets a socket serve a queue of an interface. `socket` is an AF_XDP socket bound to that interface and queue; the
    /// kernel drops what is redirected to one that is bound elsewhere. The entry vanishes when the socket is closed.
    /// `queue` is below [`MAX_QUEUES`]; the interface need not be attached yet.
    ///
    /// # Errors
    /// [`Error::Queue`], [`Error::TooManyInterfaces`], [`Error::Map`] if the descriptor is no AF_XDP socket.
    pub fn set_socket(&mut self, ifindex: u32, queue: u32, socket: RawFd) -> Result<(), Error> {
        self.maps
            .set_socket(ifindex, queue, Some(sys::socket_value(socket)))
    }

    /// Lets no socket serve a queue of an interface: packets of ours are dropped there.
    ///
    /// # Errors
    /// [`Error::Queue`], [`Error::Map`].
    pub fn clear_socket(&mut self, ifindex: u32, queue: u32) -> Result<(), Error> {
        self.maps.set_socket(ifindex, queue, None)
    }

    /// Makes the kernel steer by `steering`. Only what differs from what is in the maps is touched, additions come before
    /// removals, and an entry is either the old or the new one to every packet. When it fails half way, the changes are
    /// taken back.
    ///
    /// # Errors
    /// [`Error::TooManyAddresses`] before anything is changed, [`Error::Map`] otherwise.
    pub fn apply(&mut self, steering: &Steering) -> Result<Changes, Error> {
        self.maps.apply(steering)
    }

    /// As [`apply`](Redirect::apply), for a part: every entry of `new` becomes as it is there, entries of `old` that `new`
    /// has not are removed, whatever their ports, and all others stay. What it costs grows with these two and not with what
    /// is in the maps: they are read only if this process has not done so yet.
    ///
    /// # Errors
    /// As `apply`.
    pub fn replace(&mut self, old: &Steering, new: &Steering) -> Result<Changes, Error> {
        self.maps.replace(old, new)
    }

    /// What the kernel steers by, read from the maps.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn current(&self) -> Result<Steering, Error> {
        self.maps.current()
    }

    /// Closes these addresses, and opens all others that are closed. They stay closed when the process ends. Returns how many
    /// were added and removed; when it fails, no more are closed than before.
    ///
    /// # Errors
    /// [`Error::TooManyClosed`] before anything is changed, [`Error::Map`] otherwise.
    pub fn close(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<Changes, Error> {
        self.maps.close(addresses)
    }

    /// The addresses that are closed, read from the map.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn closed(&self) -> Result<BTreeSet<IpAddr>, Error> {
        self.maps.closed()
    }

    /// The program's counters. They go on through a restart that keeps the maps.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn counters(&self) -> Result<Counters, Error> {
        self.maps.counters()
    }

    /// What the program would do with a frame that arrives at queue 0 of the loopback interface: nothing is sent or
    /// received, but counted. `frame` begins with the Ethernet header and has at least 14 bytes and at most about 3500.
    ///
    /// # Errors
    /// [`Error::TestRun`], for instance because the frame is too short or too long.
    pub fn try_frame(&self, frame: &[u8]) -> Result<Action, Error> {
        // enum xdp_action in linux/bpf.h
        match sys::test_run(self.program.as_fd(), frame) {
            Ok(libbpf_rs::libbpf_sys::XDP_PASS) => Ok(Action::Pass),
            Ok(libbpf_rs::libbpf_sys::XDP_DROP) => Ok(Action::Drop),
            Ok(libbpf_rs::libbpf_sys::XDP_REDIRECT) => Ok(Action::Redirect),
            Ok(other) => Ok(Action::Other(other)),
            Err(source) => Err(Error::TestRun {
                length: frame.len(),
                source,
            }),
        }
    }

    /// Takes the program off all interfaces and removes links, maps and the pin directory.
    ///
    /// # Errors
    /// When a pin cannot be read or removed.
    pub fn detach(self) -> Result<(), Error> {
        Redirect::detach_all(&self.pin_dir)
    }

    /// The same without loading anything: for decommissioning. A directory that is not there is fine.
    ///
    /// # Errors
    /// When a pin cannot be read or removed.
    pub fn detach_all(pin_dir: &Path) -> Result<(), Error> {
        pins::remove_all(pin_dir)
    }
}
