//! VIPs and `proxy-src` addresses on the node's interfaces, so that the kernel answers ARP and neighbour discovery.
//!
//! Deciding is here and pure ([`plan`]); the kernel is behind [`Addresses`]. An address goes as /32 or /128 to the
//! interface whose network it belongs to, or to `lo` when no network fits (it is routed to us). What is already there
//! without our mark is adopted: it serves as it is, and is never changed or removed.

mod netlink;
mod simulated;

use std::collections::{BTreeSet, HashSet};
use std::future::Future;
use std::net::IpAddr;

use libilb::map::Map;

pub use netlink::KernelAddresses;
pub use simulated::SimulatedAddresses;

/// The interface for addresses that belong to no interface's network.
pub const LOOPBACK: &str = "lo";

/// Why an address could not be read, added or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The kernel's list cannot be read.
    #[error("cannot read the kernel's addresses: {0}")]
    Read(String),
    /// The address cannot be put on the interface.
    #[error(
        "cannot put address {address} on interface {interface}: {reason}; \
         correct this, or set manage-addresses = false and put it there yourself"
    )]
    Add {
        /// The address.
        address: IpAddr,
        /// Where it belongs.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// The address cannot be taken off the interface.
    #[error("cannot take address {address} off interface {interface}: {reason}")]
    Remove {
        /// The address.
        address: IpAddr,
        /// Where it is.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
}

/// The kernel's addresses, or a simulation of them.
pub trait Addresses: Send + 'static {
    /// All addresses of all interfaces.
    fn present(&mut self) -> impl Future<Output = Result<Vec<Present>, AddressError>> + Send;

    /// Puts an address with our mark on an interface. One that is there already is no error.
    fn add(
        &mut self,
        address: IpAddr,
        interface: &str,
    ) -> impl Future<Output = Result<(), AddressError>> + Send;

    /// Takes an address off an interface. One that is not there is no error.
    fn remove(
        &mut self,
        address: IpAddr,
        interface: &str,
    ) -> impl Future<Output = Result<(), AddressError>> + Send;

    /// Resolves when an interface or an address may have changed. May be dropped and called again.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

/// An address as it is on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Name of the interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Whether we put it there.
    pub mark: Mark,
}

/// What an address says about who put it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// We did.
    Ours,
    /// Somebody else did.
    Foreign,
    /// This kernel cannot mark addresses of this family; our records decide.
    Unknown,
}

/// What has to be done so that exactly the wanted addresses are there. Removals come first.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Addresses to take off.
    pub remove: Vec<(IpAddr, String)>,
    /// Addresses to put on.
    pub add: Vec<(IpAddr, String)>,
    /// Wanted addresses that are ours, there already or in `add`, with their interface.
    pub owned: Map<IpAddr, String>,
}

/// Compares what is there with what is wanted. `recorded` are the addresses that the store knows as ours.
pub fn plan(
    present: &[Present],
    wanted: &BTreeSet<IpAddr>,
    recorded: &Map<IpAddr, String>,
) -> Plan {
    let is_ours = |item: &Present| match item.mark {
        Mark::Ours => true,
        Mark::Foreign => false,
        Mark::Unknown => {
            item.prefix == full_prefix(item.address)
                && recorded.get(&item.address) == Some(&item.interface)
        }
    };
    let foreign: BTreeSet<IpAddr> = present
        .iter()
        .filter(|item| !is_ours(item))
        .map(|item| item.address)
        .collect();
    let networks: Vec<&Present> = present.iter().filter(|item| !is_ours(item)).collect();
    let ours: HashSet<(IpAddr, &str)> = present
        .iter()
        .filter(|item| is_ours(item))
        .map(|item| (item.address, item.interface.as_str()))
        .collect();

    let mut plan = Plan {
        // What stays as it is shares what it had.
        owned: recorded.clone(),
        ..Plan::default()
    };
    for item in recorded.keys() {
        if !wanted.contains(item) || foreign.contains(item) {
            plan.owned.remove(item);
        }
    }
    for address in wanted.difference(&foreign) {
        let interface = home(*address, &networks);
        if !ours.contains(&(*address, interface)) {
            plan.add.push((*address, interface.to_owned()));
        }
        if plan.owned.get(address).map(String::as_str) != Some(interface) {
            plan.owned.insert(*address, interface.to_owned());
        }
    }
    for item in present.iter().filter(|item| is_ours(item)) {
        if plan.owned.get(&item.address) != Some(&item.interface) {
            plan.remove.push((item.address, item.interface.clone()));
        }
    }
    plan
}

/// The interface that has the longest network with `address` in it.
fn home<'a>(address: IpAddr, networks: &[&'a Present]) -> &'a str {
    networks
        .iter()
        .filter(|item| {
            item.interface != LOOPBACK
                && item.prefix < full_prefix(address)
                && shares_network(item.address, address, item.prefix)
        })
        .max_by_key(|item| item.prefix)
        .map_or(LOOPBACK, |item| item.interface.as_str())
}

/// 32 or 128.
pub const fn full_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn shares_network(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let differing = u32::from(a) ^ u32::from(b);
            differing.leading_zeros() >= u32::from(prefix)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let differing = u128::from(a) ^ u128::from(b);
            differing.leading_zeros() >= u32::from(prefix)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(interface: &str, address: &str, mark: Mark) -> Present {
        let (address, prefix) = address.split_once('/').unwrap();
        Present {
            interface: interface.into(),
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
            mark,
        }
    }

    fn wanted(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|a| a.parse().unwrap()).collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(IpAddr, String)> {
        list.iter()
            .map(|(a, i)| (a.parse().unwrap(), (*i).to_owned()))
            .collect()
    }

    #[test]
    fn an_address_goes_to_the_longest_network_or_to_lo() {
        let there = [
            present("lo", "127.0.0.1/8", Mark::Foreign),
            present("eth0", "10.0.0.1/8", Mark::Foreign),
            present("eth1", "10.1.0.1/16", Mark::Foreign),
            present("eth1", "2001:db8:1::1/64", Mark::Foreign),
            present("eth1", "fe80::1/64", Mark::Foreign),
            present("eth2", "192.0.2.1/32", Mark::Foreign),
        ];
        let plan = plan(
            &there,
            &wanted(&[
                "10.1.2.3",
                "10.2.2.3",
                "192.0.2.9",
                "2001:db8:1::80",
                "2001:db8:2::80",
            ]),
            &Map::default(),
        );
        let expected = pairs(&[
            ("10.1.2.3", "eth1"),
            ("10.2.2.3", "eth0"),
            ("192.0.2.9", "lo"),
            ("2001:db8:1::80", "eth1"),
            ("2001:db8:2::80", "lo"),
        ]);
        assert_eq!(plan.add, expected);
        assert_eq!(plan.owned, expected.into_iter().collect());
        assert!(plan.remove.is_empty());
    }

    #[test]
    fn foreign_addresses_are_adopted_and_never_removed() {
        let there = [
            present("eth0", "10.0.0.80/24", Mark::Foreign),
            present("eth0", "10.0.0.81/32", Mark::Foreign),
        ];
        let adopted = plan(
            &there,
            &wanted(&["10.0.0.80", "10.0.0.81"]),
            &Map::default(),
        );
        assert_eq!(adopted, Plan::default());
        assert_eq!(
            plan(&there, &BTreeSet::new(), &Map::default()),
            Plan::default()
        );
    }

    #[test]
    fn ours_are_kept_moved_and_removed() {
        let there = [
            present("eth0", "10.0.0.1/24", Mark::Foreign),
            present("eth0", "10.0.0.80/32", Mark::Ours),
            present("lo", "10.0.0.81/32", Mark::Ours),
            present("eth0", "10.0.0.82/32", Mark::Ours),
        ];
        let plan = plan(
            &there,
            &wanted(&["10.0.0.80", "10.0.0.81"]),
            &Map::default(),
        );
        assert_eq!(plan.add, pairs(&[("10.0.0.81", "eth0")]));
        assert_eq!(
            plan.remove,
            pairs(&[("10.0.0.81", "lo"), ("10.0.0.82", "eth0")])
        );
    }

    #[test]
    fn without_marks_the_record_decides() {
        let there = [
            present("eth0", "2001:db8::1/64", Mark::Unknown),
            present("eth0", "2001:db8::80/128", Mark::Unknown),
            present("eth0", "2001:db8::81/128", Mark::Unknown),
        ];
        let recorded = pairs(&[("2001:db8::80", "eth0"), ("2001:db8::1", "eth0")])
            .into_iter()
            .collect();
        let plan = plan(&there, &BTreeSet::new(), &recorded);
        assert_eq!(plan.remove, pairs(&[("2001:db8::80", "eth0")]));
    }
}
