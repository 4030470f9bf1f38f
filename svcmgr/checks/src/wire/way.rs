//! Where a server is on a link: the route to it, its neighbour entry in the kernel, and frames that go there.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use libilb::health::{Code, Layer};
use nix::sys::socket::{AddressFamily as Family, LinkAddr, SockaddrLike, SockaddrStorage};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{IPV4, IPV6, lock, tunnel};
use crate::outcome::Failure;

/// Most octets of a packet in a frame: what every Ethernet carries.
pub const MTU: usize = 1500;
/// How long an interface's own link address is believed.
const FRESH: Duration = Duration::from_secs(10);
/// `ARPHRD_ETHER` (include/uapi/linux/if_arp.h).
const ETHERNET: u16 = 1;

/// How packets leave.
#[derive(Debug)]
pub enum Sender {
    /// In frames for a link address.
    Link {
        /// An interface.
        port: Arc<Port>,
        /// Of the server, or of the router before it.
        to: [u8; 6],
    },
    /// Through a tunnel.
    Tunnel(tunnel::Tunnel),
}

impl Sender {
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        match self {
            Sender::Link { port, to } => {
                let kind = match packet.first().map(|first| first >> 4) {
                    Some(4) => IPV4,
                    _ => IPV6,
                };
                let mut frame = Vec::with_capacity(14 + packet.len());
                frame.extend_from_slice(to);
                frame.extend_from_slice(&port.mac);
                frame.extend_from_slice(&kind.to_be_bytes());
                frame.extend_from_slice(packet);
                port.socket.send(&frame).map(drop)
            }
            Sender::Tunnel(tunnel) => tunnel.send(packet),
        }
    }
}

/// A socket that sends frames by one interface.
#[derive(Debug)]
pub struct Port {
    socket: Socket,
    mac: [u8; 6],
    opened: Instant,
}

/// What the kernel knows of ways. Asked and heard by a connection that is opened when it is needed first.
#[derive(Debug, Default)]
pub struct Ways {
    kernel: tokio::sync::Mutex<Option<Kernel>>,
    ports: Mutex<HashMap<u32, Arc<Port>>>,
}

#[derive(Debug, Clone)]
struct Kernel {
    handle: Handle,
    neighbours: Arc<Neighbours>,
}

#[derive(Debug, Default)]
struct Neighbours {
    known: Mutex<HashMap<(u32, IpAddr), Neighbour>>,
    news: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Neighbour {
    mac: [u8; 6],
    state: NeighbourState,
}

/// A route to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Route {
    interface: u32,
    /// The neighbour that gets the packet.
    next: IpAddr,
    /// The address of this machine that it would come from.
    source: Option<IpAddr>,
}

fn cannot(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Layer::Local,
        Code::NotAsked,
        format!("cannot {what}: {error}"),
    )
}

impl Ways {
    /// How frames get to a server, and from which address packets to it would come; none for this machine itself.
    pub async fn link(
        &self,
        server: IpAddr,
        patience: Duration,
    ) -> Result<Option<(Sender, Option<IpAddr>)>, Failure> {
        let kernel = self.kernel().await?;
        let Some(route) = kernel.route(server).await? else {
            return Ok(None);
        };
        let to = kernel.neighbour(&route, patience).await?;
        let port = self
            .port(route.interface)
            .map_err(|error| cannot("send frames", &error))?;
        Ok(Some((Sender::Link { port, to }, route.source)))
    }

    /// From which address packets to a server would come.
    pub async fn source(&self, server: IpAddr) -> Result<Option<IpAddr>, Failure> {
        let route = self.kernel().await?.route(server).await?;
        Ok(route.and_then(|route| route.source))
    }

    async fn kernel(&self) -> Result<Kernel, Failure> {
        let mut kernel = self.kernel.lock().await;
        if let Some(kernel) = &*kernel
            && !kernel.is_gone()
        {
            return Ok(kernel.clone());
        }
        let opened = Kernel::open().await?;
        Ok(kernel.insert(opened).clone())
    }

    fn port(&self, interface: u32) -> io::Result<Arc<Port>> {
        let mut ports = lock(&self.ports);
        if let Some(port) = ports.get(&interface)
            && port.opened.elapsed() < FRESH
        {
            return Ok(port.clone());
        }
        let port = Arc::new(Port::open(interface)?);
        ports.insert(interface, port.clone());
        Ok(port)
    }
}

impl Port {
    fn open(interface: u32) -> io::Result<Port> {
        let link = nix::ifaddrs::getifaddrs()?
            .filter_map(|entry| entry.address?.as_link_addr().copied())
            .find(|link: &LinkAddr| link.ifindex() == interface as usize)
            .ok_or_else(|| io::Error::other(format!("interface {interface} is gone")))?;
        let mac = link.addr().filter(|_| link.hatype() == ETHERNET);
        let mac =
            mac.ok_or_else(|| io::Error::other(format!("interface {interface} is no Ethernet")))?;
        // It speaks no protocol, so that it hears nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &link)?;
        Ok(Port {
            socket,
            mac,
            opened: Instant::now(),
        })
    }
}

impl Kernel {
    /// Hears of neighbours from now on, and learns all that are known.
    async fn open() -> Result<Kernel, Failure> {
        let failed = |error: &dyn std::fmt::Display| cannot("ask the kernel for neighbours", error);
        let (connection, handle, mut messages) =
            new_multicast_connection(&[MulticastGroup::Neigh]).map_err(|error| failed(&error))?;
        tokio::spawn(connection);
        let kernel = Kernel {
            handle,
            neighbours: Arc::default(),
        };
        let listening = kernel.clone();
        // Ends with the connection, which ends when nobody asks any more.
        let heard = Arc::downgrade(&kernel.neighbours);
        let handle = kernel.handle.clone();
        tokio::spawn(async move {
            while let Some((message, _)) = messages.next().await {
                let Some(neighbours) = heard.upgrade() else {
                    return;
                };
                match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
                        neighbours.learn(&message, true);
                    }
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(message)) => {
                        neighbours.learn(&message, false);
                    }
                    // Some were lost.
                    NetlinkPayload::Overrun(_) => {
                        let _ = list(&handle, &neighbours).await;
                    }
                    _ => {}
                }
            }
        });
        list(&listening.handle, &listening.neighbours)
            .await
            .map_err(|error| failed(&error))?;
        Ok(kernel)
    }

    /// Whether nobody hears any more for this.
    fn is_gone(&self) -> bool {
        Arc::weak_count(&self.neighbours) == 0
    }

    /// The route to an address; none to one of this machine.
    async fn route(&self, to: IpAddr) -> Result<Option<Route>, Failure> {
        let message = match to {
            IpAddr::V4(to) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to, 32)
                .build(),
            IpAddr::V6(to) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to, 128)
                .build(),
        };
        let mut answer = std::pin::pin!(self.handle.route().get(message).execute());
        match answer.try_next().await {
            Ok(Some(answer)) if answer.header.kind == RouteType::Local => Ok(None),
            Ok(Some(answer)) => match read_route(&answer, to) {
                Some(route) => Ok(Some(route)),
                None => {
                    let words = format!("server {to} is on no link of this machine");
                    Err(Failure::new(Layer::Local, Code::NotAsked, words))
                }
            },
            Ok(None) | Err(_) => {
                let words = format!("no route to {to}");
                Err(Failure::new(Layer::L3, Code::Unreachable, words))
            }
        }
    }

    /// The link address of the next neighbour; the kernel finds it out if it has to.
    async fn neighbour(&self, route: &Route, patience: Duration) -> Result<[u8; 6], Failure> {
        let place = (route.interface, route.next);
        let silent = || {
            let words = format!("the neighbour {} does not answer", route.next);
            Failure::new(Layer::L3, Code::Unreachable, words)
        };
        let began = Instant::now();
        let mut asked = false;
        loop {
            let news = self.neighbours.news.notified();
            let known = lock(&self.neighbours.known).get(&place).copied();
            match known.map(|known| (known.state, known.mac)) {
                Some((
                    NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp,
                    mac,
                )) => {
                    return Ok(mac);
                }
                // It will do, but nobody else makes the kernel confirm it.
                Some((NeighbourState::Stale, mac)) => {
                    self.ask(route);
                    return Ok(mac);
                }
                Some((NeighbourState::Delay | NeighbourState::Probe, mac)) => return Ok(mac),
                Some((NeighbourState::Failed, _)) if asked => return Err(silent()),
                _ => {}
            }
            if !asked {
                asked = true;
                self.ask(route);
            }
            let left = patience.saturating_sub(began.elapsed());
            if tokio::time::timeout(left, news).await.is_err() {
                return Err(silent());
            }
        }
    }

    /// Has the kernel find a neighbour, or confirm what it knows (`NTF_USE`, net/core/neighbour.c).
    fn ask(&self, route: &Route) {
        let request = self
            .handle
            .neighbours()
            .add(route.interface, route.next)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace()
            .execute();
        let next = route.next;
        tokio::spawn(async move {
            if let Err(error) = request.await {
                tracing::debug!("the kernel does not look for neighbour {next}: {error}");
            }
        });
    }
}

async fn list(handle: &Handle, neighbours: &Neighbours) -> Result<(), rtnetlink::Error> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let request = handle.neighbours().get().set_address_family(family);
        let mut answer = std::pin::pin!(request.execute());
        while let Some(message) = answer.try_next().await? {
            neighbours.learn(&message, true);
        }
    }
    Ok(())
}

impl Neighbours {
    fn learn(&self, message: &NeighbourMessage, there: bool) {
        let (mut address, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => {
                    address = Some(IpAddr::from(*a))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => {
                    address = Some(IpAddr::from(*a))
                }
                NeighbourAttribute::LinkLayerAddress(octets) => mac = octets[..].try_into().ok(),
                _ => {}
            }
        }
        let Some(address) = address else {
            return;
        };
        let place = (message.header.ifindex, address);
        let state = message.header.state;
        let mut known = lock(&self.known);
        match (there, mac, state) {
            (true, Some(mac), _) => drop(known.insert(place, Neighbour { mac, state })),
            // It has none yet, or never will.
            (true, None, NeighbourState::Failed) => {
                let mac = [0; 6];
                known.insert(place, Neighbour { mac, state });
            }
            (true, None, _) | (false, ..) => drop(known.remove(&place)),
        }
        drop(known);
        self.news.notify_waiters();
    }
}

fn read_route(message: &RouteMessage, to: IpAddr) -> Option<Route> {
    (message.header.kind == RouteType::Unicast).then_some(())?;
    let (mut interface, mut next, mut source) = (None, to, None);
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(a) => Some(IpAddr::from(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::from(*a)),
        _ => None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => next = ip(address)?,
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    Some(Route {
        interface: interface?,
        next,
        source,
    })
}

/// An address of this machine that others may answer to, of the family of `vip`: one of a network rather than one for itself,
/// which would be another VIP.
pub fn any_address(vip: IpAddr) -> Option<IpAddr> {
    let ip = |address: &SockaddrStorage| match address.family()? {
        Family::Inet => Some(IpAddr::from(address.as_sockaddr_in()?.ip())),
        Family::Inet6 => Some(IpAddr::from(address.as_sockaddr_in6()?.ip())),
        _ => None,
    };
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(a) => vip.is_ipv4() && !a.is_loopback() && !a.is_link_local(),
        IpAddr::V6(a) => vip.is_ipv6() && !a.is_loopback() && !a.is_unicast_link_local(),
    };
    let alone = |mask: Option<SockaddrStorage>| match mask.as_ref().and_then(ip) {
        Some(IpAddr::V4(mask)) => mask.is_broadcast(),
        Some(IpAddr::V6(mask)) => mask.octets() == [0xff; 16],
        None => false,
    };
    let all = nix::ifaddrs::getifaddrs().ok()?.filter_map(|entry| {
        let address = ip(&entry.address?).filter(usable)?;
        (address != vip).then(|| (alone(entry.netmask), address))
    });
    all.min_by_key(|(alone, _)| *alone)
        .map(|(_, address)| address)
}

/// For messages about sockets.
pub fn place(server: IpAddr, port: u16) -> SockAddr {
    std::net::SocketAddr::new(server, port).into()
}
