//! Lanes: everything that forwarding for one server of one rule needs, side by side in two cache lines.
//!
//! An entry of the connection table names its lane by a small number ([`crate::table::NO_LANE`] if it knows none), so
//! that a packet of an established connection needs no lookup by ids. Numbers are given once and never again, because
//! an entry may keep one for longer than the server is configured; a number whose server is gone leads nowhere, and the
//! packet takes the general path, which looks the durable ids up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::address::Addr;
use crate::counters::Traffic;
use crate::hash::FoldBuild;
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
#[derive(Debug, Clone)]
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
    count: usize,
    pages: Box<[Option<Arc<Page>>]>,
}

/// Lanes in the making. Pages without a change stay those of the view that it is a copy of.
#[derive(Debug, Default)]
pub struct LanesDraft {
    count: usize,
    pages: Vec<Option<Arc<Page>>>,
    /// What the lanes of a rule share, by the rule's place.
    shared: HashMap<u32, Shared, FoldBuild>,
}

impl LanesDraft {
    /// A copy.
    pub fn of(lanes: &Lanes) -> LanesDraft {
        LanesDraft {
            count: lanes.count,
            pages: lanes.pages.to_vec(),
            shared: HashMap::default(),
        }
    }

    /// Adds the lane of a target, which has none yet.
    pub fn add(&mut self, snapshot: &Snapshot, network: &Network, target: &Target, hop: NextHop) {
        let rule = &snapshot.rules()[target.rule as usize];
        if target.lane == NO_LANE || !is_express(rule, target) {
            return;
        }
        let shared = self.shared.entry(target.rule);
        let shared = shared.or_insert_with(|| Shared::new(rule));
        let Some(vip) = shared.vips.first() else {
            return;
        };
        let lane = Lane {
            server: target.address,
            vip: *vip,
            vips: shared.vips.clone(),
            sources: shared.sources.clone(),
            traffic: target.account.shares(),
            exit: Exit::new(network, hop),
            ports: target.ports,
            topology: rule.topology,
        };
        let (page, place) = split(target.lane);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| Arc::new([const { None }; PAGE]));
        Arc::make_mut(page)[place] = Some(lane);
        self.count += 1;
    }

    /// Takes the lane of a target out, if it has one.
    pub fn remove(&mut self, target: &Target) {
        let (page, place) = split(target.lane);
        let Some(Some(page)) = self.pages.get_mut(page) else {
            return;
        };
        if page[place].is_some() {
            Arc::make_mut(page)[place] = None;
            self.count -= 1;
        }
    }

    /// The lanes.
    pub fn finish(self) -> Lanes {
        Lanes {
            many: self.count > FEW,
            count: self.count,
            pages: self.pages.into(),
        }
    }
}

impl Lanes {
    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.count
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
#[derive(Debug)]
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
