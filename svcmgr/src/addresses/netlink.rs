//! The kernel's addresses by rtnetlink(7).
//!
//! Our mark is the address protocol [`ADDRESS_PROTOCOL`] (`IFA_PROTO`, since Linux 5.18, both families), and for IPv4 also
//! the label `<interface>:ilb`, which `ip address` and `ifconfig` show.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt, TryStreamExt};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{Handle, MulticastGroup, new_connection, new_multicast_connection};
use tokio::sync::mpsc;

use super::{AddressError, Addresses, Mark, Present, full_prefix};

/// Our number in `IFA_PROTO`. 0 to 3 are the kernel's (`include/uapi/linux/if_addr.h`); nobody registers the rest.
pub const ADDRESS_PROTOCOL: u8 = 0xb1;

/// What our labels end with.
const LABEL_SUFFIX: &str = ":ilb";

/// Longest label in bytes (`IFNAMSIZ` with its terminating zero).
const MAX_LABEL: usize = 15;

/// A lifetime without end (`INFINITY_LIFE_TIME` in `include/net/addrconf.h`).
const FOREVER: u32 = u32::MAX;

/// How long to wait for more after a first change, so that a burst of them is looked at once.
const SETTLE: Duration = Duration::from_millis(100);

/// The addresses of the network namespace that we run in.
pub struct KernelAddresses {
    handle: Handle,
    changes: mpsc::Receiver<()>,
}

impl KernelAddresses {
    /// Opens one netlink socket for requests and one that hears of changes. Needs a running tokio runtime.
    ///
    /// # Errors
    /// What socket(2) and bind(2) report.
    pub fn open() -> io::Result<KernelAddresses> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        let (connection, _, messages) = new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ])?;
        tokio::spawn(connection);
        let (sender, changes) = mpsc::channel(1);
        tokio::spawn(forward_changes(messages, sender));
        Ok(KernelAddresses { handle, changes })
    }

    async fn interfaces(&self) -> Result<HashMap<u32, String>, rtnetlink::Error> {
        let links: Vec<_> = self.handle.link().get().execute().try_collect().await?;
        Ok(links
            .into_iter()
            .filter_map(|link| {
                let index = link.header.index;
                link.attributes
                    .into_iter()
                    .find_map(|attribute| match attribute {
                        LinkAttribute::IfName(name) => Some((index, name)),
                        _ => None,
                    })
            })
            .collect())
    }

    async fn index_of(&self, interface: &str) -> Result<u32, String> {
        let interfaces = self.interfaces().await.map_err(reason)?;
        interfaces
            .into_iter()
            .find(|(_, name)| name == interface)
            .map(|(index, _)| index)
            .ok_or_else(|| "there is no such interface".to_owned())
    }

    async fn try_add(&self, address: IpAddr, interface: &str) -> Result<(), String> {
        let index = self.index_of(interface).await?;
        let mut request = self
            .handle
            .address()
            .add(index, address, full_prefix(address));
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(
            ADDRESS_PROTOCOL,
        )));
        match address {
            IpAddr::V4(_) => {
                attributes.push(AddressAttribute::Label(label(interface)));
                attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
            }
            IpAddr::V6(_) => {
                // Without duplicate address detection it answers at once. A preferred lifetime of 0 keeps the kernel
                // from choosing it as source of the node's own connections (RFC 6724 section 5 rule 3).
                attributes.push(AddressAttribute::Flags(
                    AddressFlags::Noprefixroute | AddressFlags::Nodad,
                ));
                let mut lifetime = CacheInfo::default();
                lifetime.ifa_preferred = 0;
                lifetime.ifa_valid = FOREVER;
                attributes.push(AddressAttribute::CacheInfo(lifetime));
            }
        }
        match request.execute().await {
            Err(error) if errno(&error) == Some(io::ErrorKind::AlreadyExists) => Ok(()),
            result => result.map_err(reason),
        }
    }

    async fn try_remove(&self, address: IpAddr, interface: &str) -> Result<(), String> {
        let Ok(index) = self.index_of(interface).await else {
            // Addresses go with their interface.
            return Ok(());
        };
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = full_prefix(address);
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.attributes.push(AddressAttribute::Local(address));
        match self.handle.address().del(message).execute().await {
            Err(error) if errno(&error) == Some(io::ErrorKind::AddrNotAvailable) => Ok(()),
            result => result.map_err(reason),
        }
    }
}

impl Addresses for KernelAddresses {
    async fn present(&mut self) -> Result<Vec<Present>, AddressError> {
        let read = |error| AddressError::Read(reason(error));
        let interfaces = self.interfaces().await.map_err(read)?;
        let messages: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(read)?;
        // Since IFA_PROTO exists the kernel sets it for ::1 and for link-local addresses.
        let marks_exist = messages.iter().any(|message| {
            message
                .attributes
                .iter()
                .any(|a| matches!(a, AddressAttribute::Protocol(_)))
        });
        Ok(messages
            .iter()
            .filter_map(|message| present_from(message, &interfaces, marks_exist))
            .collect())
    }

    async fn add(&mut self, address: IpAddr, interface: &str) -> Result<(), AddressError> {
        self.try_add(address, interface)
            .await
            .map_err(|reason| AddressError::Add {
                address,
                interface: interface.to_owned(),
                reason,
            })
    }

    async fn remove(&mut self, address: IpAddr, interface: &str) -> Result<(), AddressError> {
        self.try_remove(address, interface)
            .await
            .map_err(|reason| AddressError::Remove {
                address,
                interface: interface.to_owned(),
                reason,
            })
    }

    async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            // The listener is gone; changes made by others are no longer followed, ours still are.
            std::future::pending().await
        }
    }
}

/// Turns bursts of netlink messages into single wake-ups.
async fn forward_changes<S: Stream + Unpin>(mut messages: S, sender: mpsc::Sender<()>) {
    while messages.next().await.is_some() {
        let settle = tokio::time::sleep(SETTLE);
        tokio::pin!(settle);
        loop {
            tokio::select! {
                () = &mut settle => break,
                more = messages.next() => if more.is_none() { break },
            }
        }
        match sender.try_send(()) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(())) => {}
            Err(mpsc::error::TrySendError::Closed(())) => return,
        }
    }
}

fn present_from(
    message: &AddressMessage,
    interfaces: &HashMap<u32, String>,
    marks_exist: bool,
) -> Option<Present> {
    let interface = interfaces.get(&message.header.index)?.clone();
    let mut address = None;
    let mut local = None;
    let mut labelled = false;
    let mut protocol = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(found) => address = Some(*found),
            // On a point-to-point interface the address is the peer's and the local one is ours.
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Label(label) => labelled = label.ends_with(LABEL_SUFFIX),
            AddressAttribute::Protocol(found) => protocol = Some(u8::from(*found)),
            _ => {}
        }
    }
    let address = local.or(address)?;
    let mark = if labelled || protocol == Some(ADDRESS_PROTOCOL) {
        Mark::Ours
    } else if marks_exist || address.is_ipv4() {
        Mark::Foreign
    } else {
        Mark::Unknown
    };
    Some(Present {
        interface,
        address,
        prefix: message.header.prefix_len,
        mark,
    })
}

/// `<interface>:ilb`, the interface's name cut so that it fits.
fn label(interface: &str) -> String {
    let mut end = interface.len().min(MAX_LABEL - LABEL_SUFFIX.len());
    while !interface.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{LABEL_SUFFIX}", &interface[..end])
}

fn errno(error: &rtnetlink::Error) -> Option<io::ErrorKind> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(message.to_io().kind()),
        _ => None,
    }
}

fn reason(error: rtnetlink::Error) -> String {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit_the_kernel() {
        assert_eq!(label("eth0"), "eth0:ilb");
        assert_eq!(label("enp0s31f6-lan01"), "enp0s31f6-l:ilb");
    }
}
