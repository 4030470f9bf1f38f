//! Lanes: everything that forwarding for one server of one rule needs, side by side in two cache lines.
//!
//! An entry of the connection table names its lane by a small number ([`crate::table::NO_LANE`] if it knows none), so
//! that a packet of an established connection needs no lookup by ids. Numbers are given once and never again, because
//! an entry may keep one for longer than the server is configured; a number whose server is gone leads nowhere, and the
//! packet takes the general path, which looks the durable ids up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::address::Addr;
use crate::counters::Traffic;
use crate::network::{MacAddr, Network, NextHop, PortIndex};
use crate::snapshot::{Rule, Snapshot, Target};
use crate::spec::{PortMap, Topology};
use crate::table::{MAX_LANE, NO_LANE};

/// A way to leave by: the first 12 bytes of the frame, and what fits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exit {
    /// Destination and source Ethernet address.
    pub ethernet: [u8; 12],
    /// Largest IP packet, in bytes; 0 if there is no way out that needs no further thought.
    pub mtu: u16,
    /// Egress interface.
    pub port: PortIndex,
}

impl Exit {
    /// For a next hop whose link-layer address is known; an exit that lets nothing through for all others.
    pub fn new(network: &Network, hop: NextHop) -> Exit {
        let NextHop::Known { port, mac } = hop else {
            return Exit::default();
        };
        match network.interface(port) {
            Some(interface) => Exit {
                ethernet: ethernet(mac, interface.mac),
                mtu: interface.mtu,
                port,
            },
            None => Exit::default(),
        }
    }
}

fn ethernet(destination: MacAddr, source: MacAddr) -> [u8; 12] {
    let mut addresses = [0; 12];
    addresses[..6].copy_from_slice(&destination);
    addresses[6..].copy_from_slice(&source);
    addresses
}

/// A VIP as a lane knows it.
#[derive(Debug, Clone, Copy)]
pub struct LaneVip {
    /// The address.
    pub address: Addr,
    /// Its first port.
    pub first: u16,
    /// Whether its protocol has ports: those of a VIP of any protocol stay as they are.
    pub has_ports: bool,
}

/// See the module's text.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Lane {
    /// The server's address.
    pub server: Addr,
    /// The rule's first VIP, which mostly is the only one.
    vip: LaneVip,
    /// The way to the server.
    pub exit: Exit,
    /// How the VIP's port becomes the server's.
    ports: PortMap,
    /// How packets reach the server.
    pub topology: Topology,
    /// Where its packets are counted, by worker.
    pub traffic: Arc<[Traffic]>,
    /// The rule's source addresses.
    pub sources: Arc<[Addr]>,
    /// The rule's VIPs.
    vips: Arc<[LaneVip]>,
}

const _: () = assert!(size_of::<Lane>() == 128);

impl Lane {
    /// One of the rule's VIPs.
    #[inline(always)]
    pub fn vip(&self, index: u8) -> Option<&LaneVip> {
        match index {
            0 => Some(&self.vip),
            _ => self.vips.get(index as usize),
        }
    }

    /// The server's port for a port of this VIP.
    #[inline(always)]
    pub fn port(&self, vip: &LaneVip, vip_port: u16) -> u16 {
        match self.ports {
            _ if !vip.has_ports => vip_port,
            PortMap::Same => vip_port,
            PortMap::Collapse(port) => port,
            PortMap::Shift(first) => first.wrapping_add(vip_port.wrapping_sub(vip.first)),
        }
    }
}

/// A lane that nobody in this process has or ever had; [`NO_LANE`] when there are no more.
pub fn next() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(NO_LANE);
    let next = |last| (last < MAX_LANE).then_some(last + 1);
    LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        .map_or(NO_LANE, |last| last + 1)
}

/// So many lanes, with the counters behind them, are in the second-level cache anyway.
const FEW: usize = 2048;

const PAGE_BITS: u32 = 6;
const PAGE: usize = 1 << PAGE_BITS;

type Page = [Option<Lane>; PAGE];

/// All lanes of a view, by number.
#[derive(Debug, Default)]
pub struct Lanes {
    /// Whether they are too many to be in a cache anyway.
    pub many: bool,
    pages: Box<[Option<Arc<Page>>]>,
}

impl Lanes {
    /// Lanes of all targets of a snapshot; `hops` has the next hop of each.
    pub fn new(snapshot: &Snapshot, network: &Network, hops: &[NextHop]) -> Lanes {
        let mut count = 0;
        let mut pages: Vec<Option<Box<Page>>> = Vec::new();
        let shared: Vec<Shared> = snapshot.rules().iter().map(Shared::new).collect();
        for (target, hop) in snapshot.targets().iter().zip(hops) {
            let rule = target.rule as usize;
            if target.lane == NO_LANE || !is_express(&snapshot.rules()[rule], target) {
                continue;
            }
            let (page, place) = split(target.lane);
            if pages.len() <= page {
                pages.resize_with(page + 1, || None);
            }
            let page = pages[page].get_or_insert_with(|| Box::new([const { None }; PAGE]));
            let Some(vip) = shared[rule].vips.first() else {
                continue;
            };
            count += 1;
            page[place] = Some(Lane {
                server: target.address,
                vip: *vip,
                vips: shared[rule].vips.clone(),
                sources: shared[rule].sources.clone(),
                traffic: target.account.shares(),
                exit: Exit::new(network, *hop),
                ports: target.ports,
                topology: snapshot.rules()[rule].topology,
            });
        }
        Lanes {
            many: count > FEW,
            pages: pages.into_iter().map(|page| page.map(Arc::from)).collect(),
        }
    }

    /// Asks for the lane of this number.
    #[inline(always)]
    pub fn prefetch(&self, lane: u32) {
        let (page, place) = split(lane);
        if let Some(Some(page)) = self.pages.get(page) {
            prefetch_lane(&page[place]);
        }
    }

    /// The lane of this number, if it leads anywhere.
    #[inline(always)]
    pub fn get(&self, lane: u32) -> Option<&Lane> {
        let (page, place) = split(lane);
        self.pages.get(page)?.as_ref()?[place].as_ref()
    }
}

/// Asks for both cache lines of a lane, without looking whether it is one.
#[inline(always)]
fn prefetch_lane(place: &Option<Lane>) {
    crate::table::prefetch_lines::<_, 2>(place);
}

#[inline(always)]
fn split(lane: u32) -> (usize, usize) {
    ((lane >> PAGE_BITS) as usize, lane as usize % PAGE)
}

/// Whether established connections of this server need nothing that only the general path does.
fn is_express(rule: &Rule, _target: &Target) -> bool {
    rule.topology != Topology::Tun
}

/// What all lanes of a rule share.
struct Shared {
    vips: Arc<[LaneVip]>,
    sources: Arc<[Addr]>,
}

impl Shared {
    fn new(rule: &Rule) -> Shared {
        let vip = |vip: &crate::snapshot::Vip| LaneVip {
            address: vip.address,
            first: vip.ports.first,
            has_ports: vip.protocol.has_ports(),
        };
        Shared {
            vips: rule.vips.iter().map(vip).collect(),
            sources: rule.proxy_src.iter().copied().collect(),
        }
    }
}
