//! Echoes through one socket for all targets of a family (and source): a raw one, which needs CAP_NET_RAW and hears why an
//! echo could not be delivered, with a filter, so that nobody else's messages crowd it; or a "ping socket" where the system
//! lets us have no other (`net.ipv4.ping_group_range`), which hears of answers only.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libilb::health::{Code, Layer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::icmp::{self, Message, Token};
use crate::outcome::{Failure, Success};

/// Octets that the kernel may keep for us, so that no reply is lost in a crowd.
const RECEIVE_BUFFER: usize = 4 << 20;

/// By whether it is for IPv4, and its source.
type Sockets = HashMap<(bool, Option<IpAddr>), Arc<Shared>>;

/// Sends echoes and hands out what comes back for them. Copies share their sockets.
#[derive(Debug, Clone, Default)]
pub struct Pinger {
    kinds: Kinds,
    sockets: Arc<Mutex<Sockets>>,
}

/// Which sockets may be used.
#[derive(Debug, Clone, Copy, Default)]
enum Kinds {
    #[default]
    Any,
    Unprivileged,
}

/// A socket with those who wait for it.
#[derive(Debug)]
struct Shared {
    /// Tokio's name for a socket that sends and receives packets, whatever their protocol.
    socket: UdpSocket,
    raw: bool,
    v4: bool,
    identifier: u16,
    nonce: u64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    count: u64,
    /// By where the echo went, and its sequence number.
    echoes: HashMap<(IpAddr, u16), (u64, oneshot::Sender<Answer>)>,
}

#[derive(Debug)]
enum Answer {
    Reply,
    Undelivered(&'static str, u8),
}

/// Forgets an echo that nobody waits for any more.
struct Registration {
    shared: Arc<Shared>,
    key: (IpAddr, u16),
    count: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut waiting = lock(&self.shared.waiting);
        if waiting
            .echoes
            .get(&self.key)
            .is_some_and(|(count, _)| *count == self.count)
        {
            waiting.echoes.remove(&self.key);
        }
    }
}

impl Pinger {
    /// One that uses no raw sockets, whatever this process may have.
    pub fn unprivileged() -> Pinger {
        Pinger {
            kinds: Kinds::Unprivileged,
            ..Pinger::default()
        }
    }

    /// Sends an echo and waits for the answer, for as long as the caller likes.
    pub(crate) async fn ping(
        &self,
        to: IpAddr,
        source: Option<IpAddr>,
    ) -> Result<Success, Failure> {
        let cannot = |error: io::Error| Failure::local("ping", &error);
        let shared = self.socket(to.is_ipv4(), source).map_err(cannot)?;
        let (sender, receiver) = oneshot::channel();
        let (token, registration) = Shared::register(&shared, to, sender);
        let packet = icmp::request(shared.v4, shared.identifier, token);
        let mut full = 0;
        loop {
            match shared.socket.send_to(&packet, SocketAddr::new(to, 0)).await {
                Ok(_) => break,
                // Something about an earlier echo of somebody else.
                Err(error) if error.raw_os_error() == Some(nix::libc::ECONNREFUSED) => {}
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) && full < 20 => {
                    full += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => return Err(Failure::of_socket(Layer::L3, &error)),
            }
        }
        let answer = receiver.await;
        drop(registration);
        match answer {
            Ok(Answer::Reply) => Ok(Success::at(Layer::L3)),
            Ok(Answer::Undelivered(why, code)) => {
                Err(Failure::new(Layer::L3, Code::Unreachable, why).with_number(code))
            }
            Err(_) => {
                let words = "the socket for echoes was closed";
                Err(Failure::new(Layer::Local, Code::NotAsked, words))
            }
        }
    }

    fn socket(&self, v4: bool, source: Option<IpAddr>) -> io::Result<Arc<Shared>> {
        let mut sockets = lock(&self.sockets);
        if let Some(shared) = sockets.get(&(v4, source)) {
            return Ok(shared.clone());
        }
        let shared = Arc::new(Shared::open(self.kinds, v4, source)?);
        tokio::spawn(receive(Arc::downgrade(&shared)));
        sockets.insert((v4, source), shared.clone());
        Ok(shared)
    }
}

impl Shared {
    fn open(kinds: Kinds, v4: bool, source: Option<IpAddr>) -> io::Result<Shared> {
        let (domain, protocol) = match v4 {
            true => (Domain::IPV4, Protocol::ICMPV4),
            false => (Domain::IPV6, Protocol::ICMPV6),
        };
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let nonce =
            u64::from(std::process::id()) << 32 ^ u64::try_from(clock.as_nanos()).unwrap_or(0);
        // A ping socket has one of the kernel's in its place.
        let identifier = u16::try_from(nonce & 0xffff).unwrap_or(1);
        let raw = match kinds {
            Kinds::Any => Socket::new(domain, Type::RAW, Some(protocol)).ok(),
            Kinds::Unprivileged => None,
        };
        let (socket, raw) = match raw {
            Some(socket) => {
                socket.attach_filter(&icmp::filter(v4, identifier))?;
                (socket, true)
            }
            None => (Socket::new(domain, Type::DGRAM, Some(protocol))?, false),
        };
        socket.set_nonblocking(true)?;
        // As much as the system allows.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        let any: IpAddr = match v4 {
            true => Ipv4Addr::UNSPECIFIED.into(),
            false => Ipv6Addr::UNSPECIFIED.into(),
        };
        socket.bind(&SocketAddr::new(source.unwrap_or(any), 0).into())?;
        Ok(Shared {
            socket: UdpSocket::from_std(socket.into())?,
            raw,
            v4,
            identifier,
            nonce,
            waiting: Mutex::default(),
        })
    }

    fn register(
        shared: &Arc<Shared>,
        to: IpAddr,
        sender: oneshot::Sender<Answer>,
    ) -> (Token, Registration) {
        let mut waiting = lock(&shared.waiting);
        waiting.count += 1;
        let token = Token {
            nonce: shared.nonce,
            count: waiting.count,
        };
        let key = (to, icmp::sequence(token));
        // Whoever waits for the echo 65536 before this one has waited long enough: its sender goes.
        waiting.echoes.insert(key, (token.count, sender));
        let registration = Registration {
            shared: shared.clone(),
            key,
            count: token.count,
        };
        (token, registration)
    }

    /// Gives a packet to whom it belongs.
    fn deliver(&self, packet: &[u8], from: IpAddr) {
        let message = match (self.v4, self.raw) {
            (true, true) => icmp::behind_ipv4(packet).and_then(icmp::read),
            (true, false) => icmp::read(packet),
            (false, _) => icmp::read_v6(packet),
        };
        let mut waiting = lock(&self.waiting);
        match message {
            Some(Message::Reply(token)) if token.nonce == self.nonce => {
                let key = (from, icmp::sequence(token));
                if waiting
                    .echoes
                    .get(&key)
                    .is_some_and(|(count, _)| *count == token.count)
                    && let Some((_, sender)) = waiting.echoes.remove(&key)
                {
                    // If nobody waits any more it is late.
                    let _ = sender.send(Answer::Reply);
                }
            }
            Some(Message::Undelivered {
                to,
                identifier,
                sequence,
                why,
                code,
            }) if !self.raw || identifier == self.identifier => {
                if let Some((_, sender)) = waiting.echoes.remove(&(to, sequence)) {
                    let _ = sender.send(Answer::Undelivered(why, code));
                }
            }
            _ => {}
        }
    }
}

/// Reads what comes in for as long as anybody has the socket.
async fn receive(shared: Weak<Shared>) {
    let mut buffer = vec![0; 2048];
    while let Some(shared) = shared.upgrade() {
        // Looks now and then whether anybody is left.
        let received = shared.socket.recv_from(&mut buffer);
        match tokio::time::timeout(Duration::from_secs(60), received).await {
            Ok(Ok((length, from))) => shared.deliver(&buffer[..length], from.ip()),
            // An error of an echo that somebody sent; its own packet tells more. It is gone once it is read.
            Ok(Err(_)) => tokio::task::yield_now().await,
            Err(_) => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
