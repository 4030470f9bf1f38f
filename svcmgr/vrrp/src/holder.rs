//! The addresses that we have, by rtnetlink(7).
//!
//! Our mark is the address protocol [`ADDRESS_PROTOCOL`] (`IFA_PROTO`, since Linux 5.18), and for IPv4 also the label
//! `<interface>:vrrp`. It is another one than that of the addresses of rules: who looks after those sees ours as somebody else's.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use rtnetlink::{Handle, new_connection};

use crate::virtual_mac::Devices;

/// Our number in `IFA_PROTO`. 0 to 3 are the kernel's (`include/uapi/linux/if_addr.h`), 0xb1 is that of rules.
pub const ADDRESS_PROTOCOL: u8 = 0xb2;

const LABEL_SUFFIX: &str = ":vrrp";
/// Longest label in bytes (`IFNAMSIZ` with its terminating zero).
const MAX_LABEL: usize = 15;
/// `INFINITY_LIFE_TIME` in `include/net/addrconf.h`.
const FOREVER: u32 = u32::MAX;

/// See the module.
pub struct Holder {
    handle: Handle,
    /// The interfaces of virtual MAC addresses.
    pub devices: Devices,
}

/// Takes every address with our mark away, and says which they were.
///
/// # Errors
/// What the kernel says.
pub async fn sweep() -> io::Result<Vec<IpAddr>> {
    let holder = Holder::open()?;
    holder.devices.sweep().await?;
    holder.sweep(&[]).await
}

impl Holder {
    /// Opens a netlink socket. Needs a running tokio runtime.
    ///
    /// # Errors
    /// What socket(2) and bind(2) report.
    pub fn open() -> io::Result<Holder> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        Ok(Holder {
            devices: Devices::new(handle.clone()),
            handle,
        })
    }

    /// Puts an address on an interface. False if it was there already, whoever put it there.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn add(&self, name: &str, index: u32, address: IpAddr) -> io::Result<bool> {
        let mut request = self
            .handle
            .address()
            .add(index, address, full_prefix(address));
        let attributes = &mut request.message_mut().attributes;
        let protocol = AddressProtocol::Other(ADDRESS_PROTOCOL);
        attributes.push(AddressAttribute::Protocol(protocol));
        match address {
            IpAddr::V4(_) => {
                attributes.push(AddressAttribute::Label(label(name)));
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
        match request.execute().await.map_err(system) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes an address off an interface. One that is not there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove(&self, index: u32, address: IpAddr) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.index = index;
        message.header.prefix_len = full_prefix(address);
        message.attributes.push(AddressAttribute::Local(address));
        match self
            .handle
            .address()
            .del(message)
            .execute()
            .await
            .map_err(system)
        {
            Err(error) if is_gone(&error) => Ok(()),
            result => result,
        }
    }

    /// Takes every address with our mark off its interface, and where the kernel has no marks those of `known`, by number of
    /// the interface. Says which they were.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn sweep(&self, known: &[(u32, IpAddr)]) -> io::Result<Vec<IpAddr>> {
        let all = self.handle.address().get().execute();
        let all: Vec<AddressMessage> = all.try_collect().await.map_err(system)?;
        let marks_exist = all.iter().any(|message| protocol(message).is_some());
        let mut swept = Vec::new();
        for message in &all {
            let Some(address) = address_of(message) else {
                continue;
            };
            let index = message.header.index;
            let ours = labelled(message) || protocol(message) == Some(ADDRESS_PROTOCOL);
            let known = !marks_exist
                && address.is_ipv6()
                && message.header.prefix_len == full_prefix(address)
                && known.contains(&(index, address));
            if ours || known {
                self.remove(index, address).await?;
                swept.push(address);
            }
        }
        Ok(swept)
    }
}

fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => return Some(*address),
            AddressAttribute::Address(address) => found = Some(*address),
            _ => {}
        }
    }
    found
}

fn protocol(message: &AddressMessage) -> Option<u8> {
    let mut attributes = message.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        AddressAttribute::Protocol(protocol) => Some(u8::from(*protocol)),
        _ => None,
    })
}

fn labelled(message: &AddressMessage) -> bool {
    let mut attributes = message.attributes.iter();
    attributes.any(|attribute| match attribute {
        AddressAttribute::Label(label) => label.ends_with(LABEL_SUFFIX),
        _ => false,
    })
}

const fn full_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// `<interface>:vrrp`, the interface's name cut so that it fits.
fn label(interface: &str) -> String {
    let mut end = interface.len().min(MAX_LABEL - LABEL_SUFFIX.len());
    while !interface.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{LABEL_SUFFIX}", &interface[..end])
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [nix::libc::EADDRNOTAVAIL, nix::libc::ENODEV];
    error
        .raw_os_error()
        .is_some_and(|code| gone.contains(&code))
}

pub(crate) fn system(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit_the_kernel() {
        assert_eq!(label("eth0"), "eth0:vrrp");
        assert_eq!(label("enp0s31f6-lan01"), "enp0s31f6-:vrrp");
    }
}
