//! Talks with the kernel's rtnetlink: lists links, routes and neighbours, hears of changes, and has neighbours resolved.

use std::io;
use std::net::IpAddr;

use futures_util::stream::{Stream, StreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::proto::sys::SocketAddr;
use rtnetlink::sys::AsyncSocket;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::task::JoinHandle;

use crate::picture::{KernelRoute, forwarding_route, local_address};

/// Receive buffer of the socket in bytes; a burst beyond it costs a new listing, nothing else.
const BUFFER: usize = 1 << 20;

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("opening a netlink socket: {0}")]
    Open(#[from] io::Error),
    /// The kernel did not answer a listing.
    #[error("listing {what} by netlink: {source}")]
    List {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: Box<rtnetlink::Error>,
    },
    /// The socket is gone.
    #[error("the netlink socket has closed")]
    Closed,
}

/// What the kernel says by itself.
#[derive(Debug)]
pub enum Event {
    /// A link is there or has changed.
    Link(LinkMessage),
    /// A link is gone.
    LinkGone(u32),
    /// Something about routes or addresses has changed: they have to be listed anew.
    Routes,
    /// A neighbour is there or has changed.
    Neighbour(NeighbourMessage),
    /// A neighbour is gone.
    NeighbourGone(NeighbourMessage),
    /// Events were lost: everything has to be listed anew.
    Overrun,
}

/// A connection to the kernel.
pub struct Netlink {
    handle: Handle,
    events: Box<dyn Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Unpin>,
    connection: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    /// Opens a connection that hears all changes from now on. Within a tokio runtime.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn open() -> Result<Netlink, NetlinkError> {
        let (mut connection, handle, events) = new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ])?;
        if let Err(error) = connection
            .socket_mut()
            .socket_mut()
            .set_rx_buf_sz(BUFFER as u32)
        {
            tracing::debug!("netlink receive buffer stays as it is: {error}");
        }
        let connection = tokio::spawn(connection);
        Ok(Netlink {
            handle,
            events: Box::new(events),
            connection,
        })
    }

    /// The next thing that the kernel says.
    ///
    /// # Errors
    /// [`NetlinkError::Closed`].
    pub async fn next(&mut self) -> Result<Event, NetlinkError> {
        loop {
            let (message, _) = self.events.next().await.ok_or(NetlinkError::Closed)?;
            let message = match message.payload {
                NetlinkPayload::InnerMessage(message) => message,
                NetlinkPayload::Overrun(_) => return Ok(Event::Overrun),
                _ => continue,
            };
            return Ok(match message {
                RouteNetlinkMessage::NewLink(link) => Event::Link(link),
                RouteNetlinkMessage::DelLink(link) => {
                    // A link that leaves a bridge is not gone.
                    if link.header.interface_family == AddressFamily::Bridge {
                        continue;
                    }
                    Event::LinkGone(link.header.index)
                }
                RouteNetlinkMessage::NewRoute(_)
                | RouteNetlinkMessage::DelRoute(_)
                | RouteNetlinkMessage::NewAddress(_)
                | RouteNetlinkMessage::DelAddress(_) => Event::Routes,
                RouteNetlinkMessage::NewNeighbour(n) => Event::Neighbour(n),
                RouteNetlinkMessage::DelNeighbour(n) => Event::NeighbourGone(n),
                _ => continue,
            });
        }
    }

    /// All links.
    ///
    /// # Errors
    /// [`NetlinkError::List`].
    pub async fn links(&self) -> Result<Vec<LinkMessage>, NetlinkError> {
        list("links", self.handle.link().get().execute()).await
    }

    /// All routes that packets may be forwarded by, and all addresses of this host.
    ///
    /// # Errors
    /// [`NetlinkError::List`].
    pub async fn routes(&self) -> Result<(Vec<KernelRoute>, Vec<IpAddr>), NetlinkError> {
        let (mut routes, mut local) = (Vec::new(), Vec::new());
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let listed = list("routes", self.handle.route().get(request).execute()).await?;
            routes.extend(listed.iter().filter_map(forwarding_route));
            local.extend(listed.iter().filter_map(local_address));
        }
        Ok((routes, local))
    }

    /// All neighbours.
    ///
    /// # Errors
    /// [`NetlinkError::List`].
    pub async fn neighbours(&self) -> Result<Vec<NeighbourMessage>, NetlinkError> {
        let mut neighbours = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.handle.neighbours().get().set_address_family(family);
            neighbours.extend(list("neighbours", request.execute()).await?);
        }
        Ok(neighbours)
    }

    /// Has the kernel find out a neighbour's link-layer address, or confirm the one that it has (`NTF_USE`,
    /// net/core/neighbour.c). Its answer comes as an [`Event::Neighbour`].
    pub fn resolve(&self, ifindex: u32, address: IpAddr) {
        let request = self
            .handle
            .neighbours()
            .add(ifindex, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace()
            .execute();
        tokio::spawn(async move {
            if let Err(error) = request.await {
                tracing::warn!("the kernel does not resolve {address}: {error}");
            }
        });
    }
}

async fn list<T>(
    what: &'static str,
    answer: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, NetlinkError> {
    let mut answer = std::pin::pin!(answer);
    let mut items = Vec::new();
    while let Some(item) = answer.next().await {
        items.push(item.map_err(|source| NetlinkError::List {
            what,
            source: Box::new(source),
        })?);
    }
    Ok(items)
}
