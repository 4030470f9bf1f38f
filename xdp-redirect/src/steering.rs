//! What is ours: the contents of the steering maps as a value.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::{Error, PortSet, abi};

/// Protocols that have ports where the program looks for them.
const WITH_PORTS: [u8; 3] = [
    libc::IPPROTO_TCP as u8,
    libc::IPPROTO_UDP as u8,
    libc::IPPROTO_SCTP as u8,
];

/// Stands for all protocols but TCP, UDP, SCTP, ICMP or ICMPv6 (by the address's family), and IGMP.
pub const OTHER_PROTOCOLS: u8 = abi::PROTOCOL_OTHERS as u8;

/// Stands for no packets to or from an address, but for ICMP errors about any that left from it.
pub const ERRORS_ONLY: u8 = abi::PROTOCOL_ERRORS as u8;

/// The packets that the program redirects into sockets. Everything else goes to the kernel.
///
/// *Destinations* are what clients and servers send to: VIPs with the ports of their rules, and the source addresses of
/// NAT with the ports that it allocates. *Sources* are what our servers answer from where the answer does not come to an
/// address of ours: the servers of HALF-NAT rules with their ports.
///
/// Later fragments and ICMP errors need no entries of their own; they follow from these. Of ICMP itself, queries are
/// steered; neighbour discovery, router and group messages never are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steering {
    pub(crate) destinations: BTreeMap<(IpAddr, u8), PortSet>,
    pub(crate) sources: BTreeMap<(IpAddr, u8), PortSet>,
}

impl Steering {
    /// Nothing is ours.
    pub const fn new() -> Steering {
        Steering {
            destinations: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }

    /// Adds packets to `address` with destination port `first` to `last`, both included.
    ///
    /// `protocol` is the number in the IP header: 6 (TCP), 17 (UDP), 132 (SCTP), or 1 (ICMP) of an IPv4 and 58 (ICMPv6) of
    /// an IPv6 address; or it is [`OTHER_PROTOCOLS`] or [`ERRORS_ONLY`]. Only the first three have ports: `first` and
    /// `last` do not matter to the others. The same ports may be added twice.
    ///
    /// # Errors
    /// [`Error::Protocol`] for another protocol, [`Error::PortRange`] if `first > last`.
    pub fn add_destination(
        &mut self,
        address: IpAddr,
        protocol: u8,
        first: u16,
        last: u16,
    ) -> Result<(), Error> {
        add(&mut self.destinations, address, protocol, first, last)
    }

    /// Adds packets from `address` with source port `first` to `last`, both included; otherwise as
    /// [`add_destination`](Steering::add_destination).
    ///
    /// # Errors
    /// [`Error::Protocol`] for another protocol or [`ERRORS_ONLY`], [`Error::PortRange`] if `first > last`.
    pub fn add_source(
        &mut self,
        address: IpAddr,
        protocol: u8,
        first: u16,
        last: u16,
    ) -> Result<(), Error> {
        if protocol == ERRORS_ONLY {
            return Err(Error::Protocol { address, protocol });
        }
        add(&mut self.sources, address, protocol, first, last)
    }

    /// Destination addresses with protocol and ports, in order.
    pub fn destinations(&self) -> impl Iterator<Item = (IpAddr, u8, &PortSet)> {
        self.destinations
            .iter()
            .map(|(&(address, protocol), ports)| (address, protocol, ports))
    }

    /// Source addresses with protocol and ports, in order.
    pub fn sources(&self) -> impl Iterator<Item = (IpAddr, u8, &PortSet)> {
        self.sources
            .iter()
            .map(|(&(address, protocol), ports)| (address, protocol, ports))
    }

    /// Whether nothing is ours.
    pub fn is_empty(&self) -> bool {
        self.destinations.is_empty() && self.sources.is_empty()
    }
}

fn add(
    side: &mut BTreeMap<(IpAddr, u8), PortSet>,
    address: IpAddr,
    protocol: u8,
    first: u16,
    last: u16,
) -> Result<(), Error> {
    let icmp = match address {
        IpAddr::V4(_) => libc::IPPROTO_ICMP as u8,
        IpAddr::V6(_) => libc::IPPROTO_ICMPV6 as u8,
    };
    if [icmp, OTHER_PROTOCOLS, ERRORS_ONLY].contains(&protocol) {
        side.insert((address, protocol), PortSet::any());
        return Ok(());
    }
    if !WITH_PORTS.contains(&protocol) {
        return Err(Error::Protocol { address, protocol });
    }
    if first > last {
        return Err(Error::PortRange {
            address,
            first,
            last,
        });
    }
    side.entry((address, protocol))
        .or_default()
        .insert(first, last);
    Ok(())
}

/// What an [`apply`](crate::Redirect::apply) did to the entries of the steering maps; an entry is one address with one
/// protocol on one side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries that were not there before.
    pub added: usize,
    /// Entries whose ports are others now.
    pub changed: usize,
    /// Entries that are no longer there.
    pub removed: usize,
}

impl Changes {
    /// Whether the maps were already as wanted.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_steered_is_refused_by_name() {
        let mut steering = Steering::new();
        let address = IpAddr::from([192, 0, 2, 1]);
        for protocol in [2, 47, 58] {
            let error = steering
                .add_destination(address, protocol, 0, 1)
                .expect_err("it has no entries of its own");
            let words = format!("protocol {protocol} of 192.0.2.1");
            assert!(error.to_string().contains(&words), "{error}");
        }
        steering
            .add_source(address, ERRORS_ONLY, 0, 0)
            .expect_err("errors are about what left from us");
        let error = steering
            .add_source(address, 6, 90, 80)
            .expect_err("the range is empty");
        assert!(error.to_string().contains("90-80"), "{error}");
        assert!(steering.is_empty());
    }

    #[test]
    fn entries_of_one_address_come_together() {
        let mut steering = Steering::new();
        let address = IpAddr::from([192, 0, 2, 1]);
        for (protocol, first, last) in [(6, 80, 80), (17, 53, 53), (6, 81, 85)] {
            steering
                .add_destination(address, protocol, first, last)
                .expect("allowed");
        }
        let entries: Vec<String> = steering
            .destinations()
            .map(|(a, protocol, ports)| format!("{a} {protocol} {ports}"))
            .collect();
        assert_eq!(entries, ["192.0.2.1 6 80-85", "192.0.2.1 17 53"]);
        assert_eq!(steering.sources().count(), 0);
    }
}
