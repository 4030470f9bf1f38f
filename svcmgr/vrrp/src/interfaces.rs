//! The node's interfaces, as far as VRRP needs them.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use futures_util::StreamExt as _;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{LinkAddr, SockaddrLike as _, SockaddrStorage};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// It is up and has a carrier.
    pub running: bool,
    /// Its hardware address with its number; `None` of what is no Ethernet.
    pub link: Option<LinkAddr>,
    /// Its addresses, in the kernel's order, but for those with a label of their own.
    pub addresses: Vec<IpAddr>,
}

/// All of them, by name.
pub type Interfaces = BTreeMap<String, Interface>;

/// What there is now.
///
/// # Errors
/// If the kernel does not say.
pub fn scan() -> io::Result<Interfaces> {
    let mut all = Interfaces::new();
    for item in getifaddrs()? {
        let interface = all.entry(item.interface_name).or_default();
        let up = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        interface.running = item.flags.contains(up);
        let Some(address) = item.address else {
            continue;
        };
        if let Some(link) = address.as_link_addr() {
            interface.index = u32::try_from(link.ifindex()).unwrap_or(0);
            interface.link = (link.halen() == 6).then_some(*link);
        } else if let Some(address) = ip_address(&address) {
            interface.addresses.push(address);
        }
    }
    // What has no number is no interface but a label of addresses.
    all.retain(|_, interface| interface.index != 0);
    Ok(all)
}

fn ip_address(address: &SockaddrStorage) -> Option<IpAddr> {
    match address.family()? {
        nix::sys::socket::AddressFamily::Inet => Some(address.as_sockaddr_in()?.ip().into()),
        nix::sys::socket::AddressFamily::Inet6 => Some(address.as_sockaddr_in6()?.ip().into()),
        _ => None,
    }
}

/// Hears that an interface or an address may have changed. Needs a running tokio runtime.
///
/// # Errors
/// What socket(2) and bind(2) report.
pub fn watch() -> io::Result<mpsc::Receiver<()>> {
    let (connection, _, mut messages) = new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ])?;
    tokio::spawn(connection);
    let (sender, changes) = mpsc::channel(1);
    tokio::spawn(async move {
        while messages.next().await.is_some() {
            // One that waits already says it, too.
            if let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
                return;
            }
        }
    });
    Ok(changes)
}
