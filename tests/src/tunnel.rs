//! The far end of a tunnel, for a kernel without ipip, gre and fou: it takes outer packets from raw sockets, checks all of
//! them that can be checked, and gives the inner packets to the server's own kernel, as a tunnel device would.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::Socket;

use crate::lab::namespace::Namespace;
use crate::{Family, raw};

const IPV4: u8 = 4;
const IPV6: u8 = 41;
const GRE: u8 = 47;
const UDP: u8 = 17;
/// Its registered port.
pub const GUE_PORT: u16 = 6080;

/// How packets are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RFC 2003, RFC 2473, RFC 4213.
    Ipip,
    /// RFC 2784.
    Gre,
    /// draft-ietf-intarea-gue, variant 0.
    Gue,
}

/// What came out of a tunnel.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Packets that were unwrapped.
    pub packets: u64,
    /// Outer source addresses, with ports under GUE.
    pub sources: BTreeSet<SocketAddr>,
    /// Packets with a GRE or UDP checksum.
    pub checked: u64,
    /// Packets whose inner checksum was left to us.
    pub offloaded: u64,
    /// What was wrong with the others.
    pub faults: Vec<String>,
}

/// A decapsulator, until dropped.
#[derive(Debug)]
pub struct FarEnd {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
    // So that the kernel does not answer "port unreachable".
    _port: Option<UdpSocket>,
}

impl FarEnd {
    /// Starts it on a server's address.
    #[track_caller]
    pub fn start(namespace: &Namespace, kind: Kind, address: IpAddr) -> FarEnd {
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Seen>>::default());
        let protocols: &[u8] = match kind {
            Kind::Ipip => &[IPV4, IPV6],
            Kind::Gre => &[GRE],
            Kind::Gue => &[UDP],
        };
        let threads = protocols.iter().map(|&protocol| {
            let work = namespace.enter(|| Worker::new(kind, protocol, address));
            let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            std::thread::spawn(move || work.run(&stopped, &seen))
        });
        let threads = threads.collect();
        let port = (kind == Kind::Gue).then(|| {
            namespace
                .enter(|| UdpSocket::bind((address, GUE_PORT)))
                .expect("the port of GUE is free")
        });
        FarEnd {
            stop,
            seen,
            threads,
            _port: port,
        }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// An inner packet and what its wrapping said.
struct Unwrapped {
    packet: Vec<u8>,
    sport: u16,
    checked: bool,
    offloaded: bool,
}

struct Worker {
    kind: Kind,
    protocol: u8,
    address: IpAddr,
    outer: Socket,
    inner: [Socket; 2],
}

impl Worker {
    fn new(kind: Kind, protocol: u8, address: IpAddr) -> Worker {
        let family = Family::of(address);
        let patience = Duration::from_millis(50);
        let open = raw::open(family, protocol.into(), Some(address), patience);
        let outer = open.expect("raw sockets are there for root");
        // A burst of big packets must not be lost here.
        outer.set_recv_buffer_size(4 << 20).ok();
        let inner = Family::BOTH.map(|family| raw::sender(family).expect("as before"));
        Worker {
            kind,
            protocol,
            address,
            outer,
            inner,
        }
    }

    fn run(&self, stop: &AtomicBool, seen: &Mutex<Seen>) {
        while !stop.load(Ordering::Relaxed) {
            let Ok((bytes, from)) = raw::receive(&self.outer) else {
                continue;
            };
            // Raw sockets see all of UDP.
            if self.kind == Kind::Gue && word(&bytes, 2) != Some(GUE_PORT) {
                continue;
            }
            let unwrapped = self
                .unwrap(&bytes, from)
                .and_then(|unwrapped| self.deliver(&unwrapped.packet).map(|()| unwrapped));
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match unwrapped {
                Ok(unwrapped) => {
                    seen.packets += 1;
                    seen.sources.insert((from, unwrapped.sport).into());
                    seen.checked += u64::from(unwrapped.checked);
                    seen.offloaded += u64::from(unwrapped.offloaded);
                }
                Err(fault) => seen.faults.push(format!("{fault}: {bytes:02x?}")),
            }
        }
    }

    fn unwrap(&self, bytes: &[u8], from: IpAddr) -> Result<Unwrapped, String> {
        match self.kind {
            Kind::Ipip => Ok(Unwrapped {
                packet: whole(bytes, self.protocol)?,
                sport: 0,
                checked: false,
                offloaded: false,
            }),
            Kind::Gre => gre(bytes),
            Kind::Gue => self.gue(bytes, from),
        }
    }

    fn gue(&self, bytes: &[u8], from: IpAddr) -> Result<Unwrapped, String> {
        let (Some(sport), Some(length), Some(checksum)) =
            (word(bytes, 0), word(bytes, 4), word(bytes, 6))
        else {
            return Err("UDP header".into());
        };
        if usize::from(length) != bytes.len() {
            return Err("UDP length".into());
        }
        let pseudo = raw::pseudo_header(from, self.address, UDP, bytes.len());
        if checksum != 0 && raw::sum(&[&pseudo, bytes]) != 0xffff {
            return Err("UDP checksum".into());
        }
        let gue = bytes.get(8..12).ok_or("GUE header")?;
        let options = usize::from(gue[0] & 0x1f) * 4;
        let (flags, protocol) = (word(gue, 2).unwrap_or_default(), gue[1]);
        let mut packet = whole(bytes.get(12 + options..).ok_or("GUE options")?, protocol)?;
        let offload = match (gue[0] & 0xe0, flags, options) {
            (0, 0, 0) => None,
            // Private flags, of which only remote checksum offload.
            (0, 1, 8) if bytes[12..16] == [0x80, 0, 0, 0] => {
                Some((word(bytes, 16), word(bytes, 18)))
            }
            _ => return Err("GUE flags".into()),
        };
        if let Some((Some(start), Some(at))) = offload {
            let (start, at) = (usize::from(start), usize::from(at));
            let covered = packet.get(start..).ok_or("start of the remote checksum")?;
            let checksum = !raw::sum(&[covered]);
            let place = packet.get_mut(at..at + 2).ok_or("remote checksum")?;
            place.copy_from_slice(&checksum.to_be_bytes());
        }
        Ok(Unwrapped {
            packet,
            sport,
            checked: checksum != 0,
            offloaded: offload.is_some(),
        })
    }

    /// Gives a packet to the kernel that we are in: its destination is an address of this host.
    fn deliver(&self, packet: &[u8]) -> Result<(), String> {
        let (socket, to) = match packet[0] >> 4 {
            4 => {
                let to: [u8; 4] = packet[16..20].try_into().expect("checked");
                (&self.inner[0], IpAddr::from(to))
            }
            _ => {
                let to: [u8; 16] = packet[24..40].try_into().expect("checked");
                (&self.inner[1], IpAddr::from(to))
            }
        };
        socket
            .send_to(packet, &SocketAddr::new(to, 0).into())
            .map(drop)
            .map_err(|error| format!("for {to}: {error}"))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

fn gre(bytes: &[u8]) -> Result<Unwrapped, String> {
    let (Some(flags), Some(ethertype)) = (word(bytes, 0), word(bytes, 2)) else {
        return Err("GRE header".into());
    };
    let checked = flags == 0x8000;
    if !checked && flags != 0 {
        return Err("GRE flags".into());
    }
    if checked && raw::sum(&[bytes]) != 0xffff {
        return Err("GRE checksum".into());
    }
    let protocol = match ethertype {
        0x0800 => IPV4,
        0x86dd => IPV6,
        _ => return Err("GRE protocol".into()),
    };
    let at = if checked { 8 } else { 4 };
    Ok(Unwrapped {
        packet: whole(bytes.get(at..).ok_or("GRE header")?, protocol)?,
        sport: 0,
        checked,
        offloaded: false,
    })
}

/// A packet of this protocol number, if it is one and no byte is missing or too many.
fn whole(bytes: &[u8], protocol: u8) -> Result<Vec<u8>, String> {
    let (version, length, least) = match protocol {
        IPV4 => (4, word(bytes, 2).map(usize::from), 20),
        IPV6 => (6, word(bytes, 4).map(|length| 40 + usize::from(length)), 40),
        _ => return Err(format!("inner protocol {protocol}")),
    };
    if bytes.len() < least || bytes[0] >> 4 != version || length != Some(bytes.len()) {
        return Err("inner length".into());
    }
    if version == 4 && raw::sum(&[&bytes[..usize::from(bytes[0] & 0xf) * 4]]) != 0xffff {
        return Err("inner header checksum".into());
    }
    Ok(bytes.to_vec())
}
