//! A TCP connection to the VIP through one server, with a TCP of our own.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::Instant as Moment;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Address, Ipv6Address};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::packet::TCP;
use super::{Heard, Path, Registration};
use crate::random::Random;

/// Octets that the server may send ahead, and that we may.
const RECEIVE_WINDOW: usize = 16 << 10;
const SEND_BUFFER: usize = 4 << 10;

/// See the module. Dropped, it is reset: nothing lingers with the server.
pub struct Stream {
    path: Path,
    registration: Registration,
    queue: Queue,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    began: Instant,
    timer: Pin<Box<Sleep>>,
    /// What ICMP said, as connect(2) puts it.
    error: Option<i32>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Path {
    /// Connects to the VIP.
    pub(crate) async fn connect(&self, place: SocketAddr) -> io::Result<Stream> {
        let registration = self.register(TCP, place.ip())?;
        let mut stream = Stream::new(self.clone(), registration, place)?;
        poll_fn(|context| stream.poll_connected(context)).await?;
        Ok(stream)
    }
}

impl Stream {
    fn new(path: Path, registration: Registration, place: SocketAddr) -> io::Result<Stream> {
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let nanos = u64::try_from(clock.as_nanos()).unwrap_or(0);
        let mut config = Config::new(HardwareAddress::Ip);
        // Of the first sequence number.
        config.random_seed = Random::new(nanos ^ u64::from(registration.key.port) << 48).any();
        let mut queue = Queue {
            mtu: path.mtu,
            ..Queue::default()
        };
        let mut interface = Interface::new(config, &mut queue, Moment::ZERO);
        let length = if path.local.is_ipv4() { 32 } else { 128 };
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            let _ = addresses.push(IpCidr::new(path.local.into(), length));
        });
        // Everything goes into the queue.
        let routed = match path.local {
            IpAddr::V4(_) => interface
                .routes_mut()
                .add_default_ipv4_route(Ipv4Address::UNSPECIFIED)
                .is_ok(),
            IpAddr::V6(_) => interface
                .routes_mut()
                .add_default_ipv6_route(Ipv6Address::UNSPECIFIED)
                .is_ok(),
        };
        let buffer = |octets| SocketBuffer::new(vec![0; octets]);
        let mut socket = Socket::new(buffer(RECEIVE_WINDOW), buffer(SEND_BUFFER));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let local = (path.local, registration.key.port);
        let connected = socket.connect(interface.context(), (place.ip(), place.port()), local);
        if connected.is_err() || !routed {
            return Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
        }
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Ok(Stream {
            path,
            registration,
            queue,
            interface,
            sockets,
            handle,
            began: Instant::now(),
            timer: Box::pin(sleep_until(Instant::now())),
            error: None,
        })
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Takes what has come, sends what is to be sent, and sees to it that the task is woken for what comes next.
    fn drive(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            while let Poll::Ready(Some(heard)) = self.registration.receiver.poll_recv(context) {
                match heard {
                    Heard::Packet(packet) => self.queue.received.push_back(packet),
                    Heard::Error(errno) => self.error = Some(errno),
                }
            }
            let now = self.exchange()?;
            let Some(at) = self.interface.poll_at(now, &self.sockets) else {
                return Ok(());
            };
            let micros = u64::try_from(at.total_micros()).unwrap_or(0);
            self.timer
                .as_mut()
                .reset(self.began + Duration::from_micros(micros));
            if self.timer.as_mut().poll(context).is_pending() {
                return Ok(());
            }
        }
    }

    fn exchange(&mut self) -> io::Result<Moment> {
        let micros = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        let now = Moment::from_micros(micros);
        self.interface.poll(now, &mut self.queue, &mut self.sockets);
        for packet in self.queue.sent.drain(..) {
            self.path.send(&packet)?;
        }
        Ok(now)
    }

    fn poll_connected(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drive(context)?;
        match (self.socket().state(), self.error) {
            (State::Established | State::CloseWait, _) => Poll::Ready(Ok(())),
            (_, Some(errno)) => Poll::Ready(Err(Heard::error(errno))),
            (State::Closed, None) => Poll::Ready(Err(Heard::error(libc::ECONNREFUSED))),
            _ => Poll::Pending,
        }
    }

    fn broken(&self) -> io::Error {
        Heard::error(self.error.unwrap_or(libc::ECONNRESET))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.drive(context)?;
        let room = buffer.initialize_unfilled();
        let length = match self.socket().recv_slice(room) {
            Ok(0) if !room.is_empty() => return Poll::Pending,
            Ok(length) => length,
            Err(RecvError::Finished) => 0,
            Err(RecvError::InvalidState) => return Poll::Ready(Err(self.broken())),
        };
        buffer.advance(length);
        // There may be room for more now, which the server wants to hear.
        self.exchange()?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.drive(context)?;
        match self.socket().send_slice(octets) {
            Ok(0) if !octets.is_empty() => Poll::Pending,
            Ok(length) => {
                self.drive(context)?;
                Poll::Ready(Ok(length))
            }
            Err(_) => Poll::Ready(Err(self.broken())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().close();
        self.drive(context)?;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.socket().abort();
        // If the reset does not leave, the server finds out by itself.
        let _ = self.exchange();
    }
}

/// Packets on their way between our TCP and the wire.
#[derive(Debug, Default)]
struct Queue {
    mtu: usize,
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Device for Queue {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, _: Moment) -> Option<(Received, ToSend<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), ToSend(&mut self.sent)))
    }

    fn transmit(&mut self, _: Moment) -> Option<ToSend<'_>> {
        Some(ToSend(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // A packet from a server on this very host may come without a checksum, which was never on a wire.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct ToSend<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push(packet);
        result
    }
}
