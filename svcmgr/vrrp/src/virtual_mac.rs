//! The virtual MAC address of an active instance (RFC 9568 section 7.3), on a macvlan interface above the real one: the addresses
//! are there, so that requests for them are answered with it, and it is what advertisements and announcements come from.
//!
//! It is made when the instance becomes active and goes when it gives up, so that no other node ever sends from it. Neither would
//! the real interface be silent about addresses that are on the macvlan, nor that one about the real one's: both get
//! `arp_ignore` 1; and the real one `arp_announce` 2, or it would name them as the sender of its own questions. What it had
//! before is put back when the last macvlan above it goes. (After kill -9 nobody knows any more what it had.)

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use futures_util::TryStreamExt as _;
use nix::sys::socket::LinkAddr;
use rtnetlink::packet_core::{DefaultNla, NLA_F_NESTED};
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkInfo,
    LinkMessage, MacVlanMode,
};
use rtnetlink::{Handle, LinkMacVlan, LinkUnspec};

use crate::holder::system;
use crate::interfaces::{self, Interface};

/// `IFLA_INET_CONF` of `include/uapi/linux/if_link.h`.
const INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_RP_FILTER`, `IPV4_DEVCONF_ARP_ANNOUNCE` and `IPV4_DEVCONF_ARP_IGNORE` of `include/uapi/linux/ip.h`.
const RP_FILTER: u16 = 8;
const ARP_ANNOUNCE: u16 = 18;
const ARP_IGNORE: u16 = 19;

/// Answer only for addresses of the interface that was asked on (`ip-sysctl.rst`).
const OWN_ADDRESSES: u32 = 1;
/// Ask in the name of an address of the interface.
const OWN_NAME: u32 = 2;
/// Whoever can be reached by any interface may send: clients are reached by the real one.
const LOOSE: u32 = 2;

/// The macvlan interface of an instance that is active.
#[derive(Debug, Clone)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its virtual MAC address with its number.
    pub link: LinkAddr,
    parent: u32,
}

/// Makes them and takes them away.
#[derive(Debug)]
pub struct Devices {
    handle: Handle,
    /// What the real interfaces had before, and how many of ours are above each.
    quiet: Mutex<BTreeMap<u32, (Manners, usize)>>,
}

/// How an interface speaks ARP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Manners {
    ignore: u32,
    announce: u32,
}

impl Manners {
    const QUIET: Manners = Manners {
        ignore: OWN_ADDRESSES,
        announce: OWN_NAME,
    };

    /// What an interface has; the kernel's own choice if it does not say.
    fn of(name: &str) -> Manners {
        let read = |what: &str| {
            let path = format!("/proc/sys/net/ipv4/conf/{name}/{what}");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        Manners {
            ignore: read("arp_ignore"),
            announce: read("arp_announce"),
        }
    }
}

/// The address of a virtual router.
pub const fn virtual_mac(vrid: u8, v6: bool) -> [u8; 6] {
    [0, 0, 0x5e, 0, if v6 { 2 } else { 1 }, vrid]
}

/// No two instances of a node have the same.
fn device_name(parent: u32, vrid: u8, v6: bool) -> String {
    let family = if v6 { "6" } else { "" };
    format!("vrrp{family}.{parent}.{vrid}")
}

impl Devices {
    /// With this socket.
    pub fn new(handle: Handle) -> Devices {
        Devices {
            handle,
            quiet: Mutex::default(),
        }
    }

    /// The interface of an instance above its real one, made anew.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn make(
        &self,
        (parent_name, parent): (&str, &Interface),
        (vrid, v6): (u8, bool),
    ) -> io::Result<Device> {
        let name = device_name(parent.index, vrid, v6);
        if let Some(old) = interfaces::scan()?.get(&name) {
            // Of an earlier run that was killed.
            self.delete(old.index).await?;
        }
        let mac = virtual_mac(vrid, v6);
        // In the private mode what another active node advertises would come to this interface alone, because it comes from the
        // same address (`macvlan_handle_frame`); the socket below would never hear of it.
        let made = LinkMacVlan::new(&name, parent.index, MacVlanMode::Vepa)
            .address(mac.to_vec())
            .build();
        self.handle
            .link()
            .add(made)
            .execute()
            .await
            .map_err(system)?;
        let finished = self.finish(&name, (parent_name, parent)).await;
        if finished.is_err()
            && let Some(half) = interfaces::scan()?.get(&name)
        {
            self.delete(half.index).await?;
        }
        finished
    }

    async fn finish(
        &self,
        name: &str,
        (parent_name, parent): (&str, &Interface),
    ) -> io::Result<Device> {
        let found = interfaces::scan()?.remove(name);
        let found = found.and_then(|it| Some((it.index, it.link?)));
        let (index, link) = found.ok_or(io::ErrorKind::NotFound)?;
        // Before it is up: by itself it shall have no address, nor say anything.
        let inet = [(ARP_IGNORE, OWN_ADDRESSES), (RP_FILTER, LOOSE)];
        self.set(
            index,
            vec![
                AfSpecUnspec::Inet(vec![configuration(&inet)]),
                AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]),
            ],
        )
        .await?;
        self.quieten(parent_name, parent.index).await?;
        let up = LinkUnspec::new_with_index(index).up().build();
        if let Err(error) = self.handle.link().set(up).execute().await {
            self.unquieten(parent.index).await?;
            return Err(system(error));
        }
        Ok(Device {
            name: name.to_owned(),
            index,
            link,
            parent: parent.index,
        })
    }

    /// Takes it away, with all addresses that it has.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove(&self, device: &Device) -> io::Result<()> {
        let deleted = self.delete(device.index).await;
        self.unquieten(device.parent).await?;
        deleted
    }

    /// Takes all away that an earlier run has left behind, and says their names.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn sweep(&self) -> io::Result<Vec<String>> {
        let all = self.handle.link().get().execute();
        let all: Vec<LinkMessage> = all.try_collect().await.map_err(system)?;
        let mut swept = Vec::new();
        for message in all {
            if let Some(name) = ours(&message) {
                self.delete(message.header.index).await?;
                swept.push(name);
            }
        }
        Ok(swept)
    }

    async fn delete(&self, index: u32) -> io::Result<()> {
        match self
            .handle
            .link()
            .del(index)
            .execute()
            .await
            .map_err(system)
        {
            // With its real interface it goes by itself.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// The real interface answers no longer for what is above it.
    async fn quieten(&self, name: &str, index: u32) -> io::Result<()> {
        let first = {
            let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
            match quiet.get_mut(&index) {
                Some((_, count)) => {
                    *count += 1;
                    false
                }
                None => {
                    quiet.insert(index, (Manners::of(name), 1));
                    true
                }
            }
        };
        match first {
            true => self.arp(index, Manners::QUIET).await,
            false => Ok(()),
        }
    }

    async fn unquieten(&self, index: u32) -> io::Result<()> {
        let before = {
            let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
            let last = quiet.get_mut(&index).is_some_and(|(_, count)| {
                *count -= 1;
                *count == 0
            });
            last.then(|| quiet.remove(&index)).flatten()
        };
        match before {
            Some((before, _)) => match self.arp(index, before).await {
                Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
                result => result,
            },
            None => Ok(()),
        }
    }

    async fn arp(&self, index: u32, manners: Manners) -> io::Result<()> {
        let Manners { ignore, announce } = manners;
        let inet = configuration(&[(ARP_IGNORE, ignore), (ARP_ANNOUNCE, announce)]);
        self.set(index, vec![AfSpecUnspec::Inet(vec![inet])]).await
    }

    async fn set(&self, index: u32, families: Vec<AfSpecUnspec>) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(families))
            .build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(system)
    }
}

/// `IFLA_INET_CONF` as the kernel takes it. (The library's own form cannot say 0.)
fn configuration(values: &[(u16, u32)]) -> AfSpecInet {
    const LENGTH: u16 = 8;
    let mut bytes = Vec::new();
    for (kind, value) in values {
        bytes.extend(LENGTH.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
    }
    AfSpecInet::Other(DefaultNla::new(INET_CONF | NLA_F_NESTED, bytes))
}

/// The name, if it is a macvlan with a virtual router's address and a name as we give them.
fn ours(message: &LinkMessage) -> Option<String> {
    let (mut name, mut mac, mut macvlan) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(it) => name = Some(it),
            LinkAttribute::Address(it) => mac = Some(it),
            LinkAttribute::LinkInfo(all) => {
                macvlan = all.contains(&LinkInfo::Kind(InfoKind::MacVlan));
            }
            _ => {}
        }
    }
    let (name, mac) = name.zip(mac)?;
    let virtual_router = mac.starts_with(&[0, 0, 0x5e, 0]);
    (macvlan && virtual_router && name.starts_with("vrrp")).then(|| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_tell_instances_apart() {
        assert_eq!(device_name(2, 51, false), "vrrp.2.51");
        assert_eq!(device_name(99_999, 255, true), "vrrp6.99999.255");
        assert_eq!(device_name(99_999, 255, true).len(), 15);
    }

    #[test]
    fn addresses_are_those_of_the_rfc() {
        assert_eq!(virtual_mac(51, false), [0, 0, 0x5e, 0, 1, 51]);
        assert_eq!(virtual_mac(255, true), [0, 0, 0x5e, 0, 2, 255]);
    }
}
