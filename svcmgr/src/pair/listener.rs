//! The port of the pair, of the node that created it: the other node comes, or somebody with the token.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ilb_pair::{Door, Identity, Secret, Token, Trust};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::session::Arrived;
use super::wire::Frame;
use super::{Admitted, Event, LASTING};

/// Pause before another try when the port cannot be had: its address may not be there yet.
const RETRY: Duration = Duration::from_secs(1);
/// How long each side of a join may take.
pub const JOIN_PATIENCE: Duration = Duration::from_secs(10);

/// Who is let in.
#[derive(Clone)]
pub enum Guest {
    /// The other node.
    Peer(Arc<Trust>),
    /// Whoever has the token.
    Joiner(Arc<Identity>, Arc<Token>),
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// All addresses if there is none.
    pub address: Option<IpAddr>,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}", SocketAddr::new(address, self.port)),
            None => write!(f, "port {} of all addresses", self.port),
        }
    }
}

/// Opens the port.
pub async fn bind(place: Place) -> io::Result<TcpListener> {
    match place.address {
        Some(address) => TcpListener::bind(SocketAddr::new(address, place.port)).await,
        None => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, place.port)).await {
            // A machine without IPv6.
            Err(error)
                if error.kind() == io::ErrorKind::AddrNotAvailable
                    || error.raw_os_error() == Some(AFNOSUPPORT) =>
            {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, place.port)).await
            }
            other => other,
        },
    }
}

/// "Address family not supported" (`errno.h`).
const AFNOSUPPORT: i32 = 97;

/// Lets in whom it may, for ever. `first` is the port, if it is open already.
pub async fn run(
    place: Place,
    first: Option<TcpListener>,
    guest: Guest,
    door: Arc<Door>,
    arrived: mpsc::Sender<Arrived>,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut listener = first;
    loop {
        let port = match listener.take() {
            Some(port) => port,
            None => match bind(place).await {
                Ok(port) => port,
                Err(error) => {
                    let why = format!("cannot listen on {place}: {error}");
                    // Whoever was to be told may have gone away.
                    drop(events.send(Event::Trouble(why)));
                    sleep(RETRY).await;
                    continue;
                }
            },
        };
        match port.accept().await {
            Ok((stream, _)) => {
                let (door, guest) = (door.clone(), guest.clone());
                let (arrived, events) = (arrived.clone(), events.clone());
                // Each ends by itself: the door has its deadlines.
                tokio::spawn(async move { let_in(stream, guest, &door, arrived, events).await });
                listener = Some(port);
            }
            // As when there are no more descriptors.
            Err(error) => {
                tracing::debug!("cannot take a connection to the pair's port: {error}");
                sleep(RETRY).await;
                listener = Some(port);
            }
        }
    }
}

/// Addresses of both ends, as they are where IPv4 is within IPv6.
pub fn ends(stream: &TcpStream) -> io::Result<(IpAddr, IpAddr)> {
    let bare = |address: SocketAddr| address.ip().to_canonical();
    Ok((bare(stream.local_addr()?), bare(stream.peer_addr()?)))
}

async fn let_in(
    stream: TcpStream,
    guest: Guest,
    door: &Door,
    arrived: mpsc::Sender<Arrived>,
    events: mpsc::UnboundedSender<Event>,
) {
    let Ok((local, remote)) = ends(&stream) else {
        return;
    };
    match guest {
        Guest::Peer(trust) => match door.accept(stream, &trust).await {
            Ok(link) => {
                let (over, _) = oneshot::channel();
                let it = Arrived {
                    link,
                    local,
                    remote,
                    over,
                };
                // Whoever waits for it may have gone away.
                drop(arrived.send(it).await);
            }
            Err(refusal) => tracing::debug!("{remote} is not let in: {refusal}"),
        },
        Guest::Joiner(identity, token) => match door.admit(stream, &identity, &token).await {
            Ok((peer, link)) => {
                let admitted = async {
                    let secret = Secret::new(link.export(LASTING).ok()?);
                    let (mut sender, mut receiver) = link.split();
                    let said = receiver.receive().await.ok().flatten()?;
                    if Frame::decode(said) != Ok(Frame::Kept) {
                        return None;
                    }
                    let (reply, kept) = oneshot::channel();
                    let admitted = Admitted {
                        peer,
                        secret,
                        remote,
                        local,
                        reply,
                    };
                    events.send(Event::Admitted(Box::new(admitted))).ok()?;
                    if !kept.await.ok()? {
                        return None;
                    }
                    sender.send(&Frame::Kept.encode()).await.ok()?;
                    // The other one ends it when it has heard that, in whatever way.
                    let _ = receiver.receive().await;
                    Some(())
                };
                if !matches!(timeout(JOIN_PATIENCE, admitted).await, Ok(Some(()))) {
                    tracing::warn!("{remote} has begun to join the pair and not come to an end");
                }
            }
            Err(refusal) => tracing::debug!("{remote} does not join: {refusal}"),
        },
    }
}
