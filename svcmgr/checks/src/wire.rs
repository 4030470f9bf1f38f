//! The way of a test to the VIP through one server of many that hold it (DSR, TUN), while this machine holds it, too.
//!
//! No socket of the kernel's can do that: it delivers what is for an address of its own to itself, and throws away what comes
//! from one. Nothing of the machine's routing is changed for it. Instead, packets are made here (TCP by smoltcp), sent in
//! frames to the server's link address ([`way`]) or through its tunnel ([`tunnel`]), and their answers are picked up as they
//! come in, by a filter, from ports that the kernel gives to nobody else ([`FIRST_PORT`] and up). When this process ends,
//! however it does, all of that is gone with its sockets.

mod datagrams;
mod packet;
mod stream;
mod tunnel;
mod way;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use libilb::health::{Code, Layer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::outcome::Failure;
use crate::target::Via;

pub use datagrams::{Datagrams, echo};
pub use packet::Key;
pub use stream::Stream;

use way::{Sender, Ways};

/// The first of the ports that packets made here come from; the last is 65535. Linux gives connections ports up to 60999
/// unless `net.ipv4.ip_local_port_range` says otherwise.
pub const FIRST_PORT: u16 = 61_000;

/// Octets that the kernel may keep for us.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Packets that wait for one test. More than that it did not ask for.
const MAX_WAITING: usize = 64;
/// Ethernet types.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Copies share their sockets, which are opened when they are needed first.
#[derive(Debug, Clone, Default)]
pub struct Wire(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Those who hear for IPv6, and for IPv4.
    ears: Mutex<[Option<Arc<Ear>>; 2]>,
    ways: Ways,
}

/// What hears the packets of a family.
#[derive(Debug)]
struct Ear {
    /// Tokio's name for a socket that receives packets, whatever their protocol.
    socket: UdpSocket,
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    next: u16,
    tests: HashMap<Key, Test>,
}

#[derive(Debug)]
struct Test {
    local: IpAddr,
    peer: IpAddr,
    sender: mpsc::Sender<Heard>,
}

/// What comes for a test.
#[derive(Debug)]
enum Heard {
    /// An IP packet.
    Packet(Vec<u8>),
    /// ICMP says that something could not be delivered.
    Error(i32),
}

impl Heard {
    fn error(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }
}

/// A way to the VIP through one server.
#[derive(Debug, Clone)]
pub struct Path {
    ear: Arc<Ear>,
    sender: Arc<Sender>,
    /// Where packets come from: an address of this machine.
    local: IpAddr,
    /// Most octets of a packet.
    mtu: usize,
}

impl Wire {
    /// Finds the way; there is none, and none is needed, to this machine itself. Takes as long as the neighbour takes to answer, and no longer than `patience`.
    ///
    /// # Errors
    /// That the neighbour does not answer, or what this machine cannot do.
    pub(crate) async fn path(
        &self,
        via: Via,
        server: IpAddr,
        vip: IpAddr,
        source: Option<IpAddr>,
        patience: Duration,
    ) -> Result<Option<Path>, Failure> {
        let ear = self
            .ear(vip.is_ipv4())
            .map_err(|error| Failure::local("hear what servers answer from the VIP", &error))?;
        let (sender, local, mtu) = match via {
            Via::Link => {
                let Some((sender, preferred)) = self.0.ways.link(server, patience).await? else {
                    return Ok(None);
                };
                let local = source
                    .or(preferred)
                    .filter(|a| a.is_ipv4() == vip.is_ipv4());
                (sender, local, way::MTU)
            }
            Via::Tunnel(kind) => {
                // Answers come to us by the route that they like: any address of the VIP's family will do.
                let local = match source {
                    Some(source) => Some(source),
                    None if server.is_ipv4() == vip.is_ipv4() => self.0.ways.source(server).await?,
                    None => way::any_address(vip),
                };
                let sender = tunnel::open(kind, server, vip.is_ipv4())
                    .map_err(|error| Failure::local("send through a tunnel", &error))?;
                (Sender::Tunnel(sender), local, tunnel::MTU)
            }
        };
        let local = local.ok_or_else(|| {
            let words = format!("this machine has no address that server {server} could answer to");
            Failure::new(Layer::Local, Code::NotAsked, words)
        })?;
        Ok(Some(Path {
            ear,
            sender: Arc::new(sender),
            local,
            mtu,
        }))
    }

    fn ear(&self, v4: bool) -> io::Result<Arc<Ear>> {
        let mut ears = lock(&self.0.ears);
        let ear = &mut ears[usize::from(v4)];
        if let Some(ear) = ear {
            return Ok(ear.clone());
        }
        let opened = Arc::new(Ear::open(v4)?);
        tokio::spawn(hear(Arc::downgrade(&opened)));
        Ok(ear.insert(opened).clone())
    }
}

impl Path {
    /// A port (or number of an echo) of its own, at which this test hears `peer`.
    fn register(&self, protocol: u8, peer: IpAddr) -> io::Result<Registration> {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let mut waiting = lock(&self.ear.waiting);
        for _ in FIRST_PORT..=u16::MAX {
            let port = waiting.next;
            waiting.next = if port == u16::MAX {
                FIRST_PORT
            } else {
                port + 1
            };
            let key = Key { protocol, port };
            if let Entry::Vacant(free) = waiting.tests.entry(key) {
                free.insert(Test {
                    local: self.local,
                    peer,
                    sender,
                });
                return Ok(Registration {
                    ear: self.ear.clone(),
                    key,
                    receiver,
                });
            }
        }
        Err(io::Error::from_raw_os_error(nix::libc::EADDRINUSE))
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        match self.sender.send(packet) {
            // As if the network had lost it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(()),
            result => result,
        }
    }
}

/// A test that hears what is for it. It is forgotten with this.
#[derive(Debug)]
struct Registration {
    ear: Arc<Ear>,
    key: Key,
    receiver: mpsc::Receiver<Heard>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.ear.waiting).tests.remove(&self.key);
    }
}

impl Ear {
    /// A packet socket (packet(7)) that the kernel gives a copy of what comes in for our ports. Needs CAP_NET_RAW.
    fn open(v4: bool) -> io::Result<Ear> {
        let kind = if v4 { IPV4 } else { IPV6 };
        let protocol = Protocol::from(i32::from(kind.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
        socket.attach_filter(&packet::filter(v4))?;
        // As much as the system allows.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.set_nonblocking(true)?;
        Ok(Ear {
            socket: UdpSocket::from_std(socket.into())?,
            waiting: Mutex::new(Waiting {
                next: FIRST_PORT,
                tests: HashMap::new(),
            }),
        })
    }

    fn deliver(&self, octets: &[u8]) {
        let Some(read) = packet::read(octets) else {
            return;
        };
        let waiting = lock(&self.waiting);
        let Some(test) = waiting.tests.get(&read.key) else {
            return;
        };
        if test.local != read.local || test.peer != read.peer {
            return;
        }
        let heard = match read.error {
            Some(errno) => Heard::Error(errno),
            None => Heard::Packet(read.whole.to_vec()),
        };
        // Who is too slow loses packets, as on any network.
        let _ = test.sender.try_send(heard);
    }
}

/// Reads what comes in for as long as anybody has the ear.
async fn hear(ear: Weak<Ear>) {
    let mut buffer = vec![0; 65_536];
    while let Some(ear) = ear.upgrade() {
        let received = ear.socket.recv(&mut buffer);
        // Looks now and then whether anybody is left.
        match tokio::time::timeout(Duration::from_secs(60), received).await {
            Ok(Ok(length)) => ear.deliver(&buffer[..length]),
            // An interface went down. It is gone once it is read.
            Ok(Err(_)) => tokio::task::yield_now().await,
            Err(_) => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
