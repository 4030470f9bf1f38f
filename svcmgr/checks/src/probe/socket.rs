//! Sockets of tests: bound where the check says, and told of every ICMP error; or what stands for them where the kernel's
//! lead elsewhere.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::wire;

/// By which way a server is asked.
#[derive(Debug, Clone)]
pub enum Way {
    /// By the routes of this machine, from this address if there is one.
    Routes(Option<IpAddr>),
    /// To the VIP by way of the server.
    Wire(wire::Path),
}

impl Way {
    /// Connects.
    pub async fn connect(&self, place: SocketAddr) -> io::Result<Stream> {
        match self {
            Way::Routes(source) => connect(place, *source).await.map(Stream::Kernel),
            Way::Wire(path) => Ok(Stream::Wire(Box::new(path.connect(place).await?))),
        }
    }

    /// Datagrams to and from one place, with all errors about them.
    pub async fn datagrams(&self, place: SocketAddr) -> io::Result<Datagrams> {
        match self {
            Way::Routes(source) => connect_udp(place, *source).await.map(Datagrams::Kernel),
            Way::Wire(path) => path.datagrams(place).map(Datagrams::Wire),
        }
    }
}

/// A TCP connection.
#[derive(Debug)]
pub enum Stream {
    /// Of the kernel.
    Kernel(TcpStream),
    /// Of our own.
    Wire(Box<wire::Stream>),
}

impl Stream {
    /// What is written leaves at once.
    pub fn hurry(&self) {
        if let Stream::Kernel(stream) = self {
            // It leaves a little later then.
            let _ = stream.set_nodelay(true);
        }
    }

    /// Ends with a reset.
    pub fn reset(self) {
        if let Stream::Kernel(stream) = self {
            // If it cannot be reset it is closed.
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Kernel(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Wire(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Kernel(stream) => Pin::new(stream).poll_write(context, octets),
            Stream::Wire(stream) => Pin::new(stream).poll_write(context, octets),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Kernel(stream) => Pin::new(stream).poll_flush(context),
            Stream::Wire(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Kernel(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Wire(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Datagrams to and from one place.
#[derive(Debug)]
pub enum Datagrams {
    /// A socket of the kernel.
    Kernel(UdpSocket),
    /// Packets of our own.
    Wire(wire::Datagrams),
}

impl Datagrams {
    pub async fn send(&self, payload: &[u8]) -> io::Result<()> {
        match self {
            Datagrams::Kernel(socket) => socket.send(payload).await.map(drop),
            Datagrams::Wire(datagrams) => datagrams.send(payload),
        }
    }

    pub async fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Datagrams::Kernel(socket) => socket.recv(buffer).await,
            Datagrams::Wire(datagrams) => datagrams.recv(buffer).await,
        }
    }
}

/// Connects, from `source` if there is one. Unlike a plain connection, it fails at once when ICMP says that the host cannot be
/// reached.
async fn connect(place: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = match place {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    match place {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    if let Some(source) = source {
        // The port is chosen with the connection: otherwise each would need one for itself.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(place).await
}

/// A UDP socket that is connected, so that it hears of errors and of no one else.
async fn connect_udp(place: SocketAddr, source: Option<IpAddr>) -> io::Result<UdpSocket> {
    let any: IpAddr = match place {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(source.unwrap_or(any), 0)).await?;
    match place {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    socket.connect(place).await?;
    Ok(socket)
}
