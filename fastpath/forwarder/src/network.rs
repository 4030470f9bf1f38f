//! The forwarder's picture of the network around it: interfaces, routes and neighbours, made from what the kernel
//! knows, immutable once built, looked up without a lock.

use std::net::IpAddr;

use crate::verdict::Verdict;

/// Index of an interface that the fast path serves, in the order of the node settings. 0..=254.
pub type PortIndex = u8;

/// Ethernet address.
pub type MacAddr = [u8; 6];

/// An interface that the fast path serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// Its Ethernet address, the source of what we send.
    pub mac: MacAddr,
    /// Largest IP packet that it takes, in bytes.
    pub mtu: u16,
}

/// A route of the kernel's tables, only those that forward (unicast; no local, broadcast, blackhole).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Network address.
    pub prefix: IpAddr,
    /// Prefix length, 0..=32 or 0..=128.
    pub len: u8,
    /// Lower wins among routes of one prefix.
    pub metric: u32,
    /// Where to: one, or several of equal cost.
    pub hops: Vec<Hop>,
}

/// One way of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The interface; None for one that the fast path does not serve.
    pub port: Option<PortIndex>,
    /// The gateway; None if the destination is on the link itself.
    pub via: Option<IpAddr>,
}

/// A neighbour whose link-layer address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Interface on which it lives.
    pub port: PortIndex,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Network {}

impl Network {
    /// Builds the lookup structures. `interfaces` is indexed by [`PortIndex`].
    pub fn new(
        _interfaces: Vec<Interface>,
        _routes: Vec<Route>,
        _neighbours: Vec<Neighbour>,
    ) -> Network {
        Network {}
    }

    /// Completes a frame that had to wait for a neighbour: writes its Ethernet addresses. Gives
    /// [`Verdict::Transmit`], or [`Verdict::Unresolved`] again. `frame` begins with the Ethernet header.
    pub fn finish(&self, port: PortIndex, next_hop: IpAddr, _frame: &mut [u8]) -> Verdict {
        Verdict::Unresolved { port, next_hop }
    }
}
