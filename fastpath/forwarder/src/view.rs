//! What a worker sees during one batch: a snapshot of the configuration, a picture of the network, and what follows
//! from both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::address::Addr;
use crate::chunks::{Chunks, Draft};
use crate::lane::{Lane, Lanes, LanesDraft};
use crate::network::{Network, NextHop};
use crate::packet::Tuple;
use crate::snapshot::{Rule, Snapshot, Target, Vip};
use crate::spec::Topology;
use crate::table::{Connection, Direction, Identity};
use crate::verdict::DropReason;

/// See the module's text. Made anew when either part changes.
#[derive(Debug)]
pub struct View {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// Routes and neighbours.
    pub network: Arc<Network>,
    /// Next hop towards each target.
    hops: Chunks<NextHop>,
    lanes: Lanes,
    serial: u64,
}

/// Number of the last view that was made.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A connection with everything that its ids stand for.
#[derive(Debug, Clone, Copy)]
pub struct Flow<'v> {
    /// Its identity in the table.
    pub identity: Identity,
    /// Index of its server in [`Snapshot::targets`].
    pub target_index: u32,
    /// Its server.
    pub target: &'v Target,
    /// Its rule.
    pub rule: &'v Rule,
    /// The VIP that the client connected to.
    pub vip: &'v Vip,
}

/// Whether an entry of the table is the one that a packet belongs to.
#[derive(Debug, Clone, Copy)]
pub enum Recognised<'v> {
    /// It is, and this is what it stands for.
    Flow(Flow<'v>),
    /// It is, but its server is not configured any more. The rule, and the index of the VIP there.
    ServerGone(&'v Rule, u8),
}

impl View {
    /// Puts a view together.
    pub fn new(snapshot: Arc<Snapshot>, network: Arc<Network>) -> View {
        let places = snapshot.targets().iter().enumerate();
        let hops: Chunks<NextHop> = places
            .map(|(at, target)| hop_to(&network, at, target))
            .collect();
        let mut lanes = LanesDraft::default();
        for (target, hop) in snapshot.targets().iter().zip(hops.iter()) {
            lanes.add(&snapshot, &network, target, *hop);
        }
        View {
            lanes: lanes.finish(),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed) + 1,
            snapshot,
            network,
            hops,
        }
    }

    /// The view of another snapshot, on the same network. What its snapshots share, the views share too.
    pub fn with(&self, snapshot: Arc<Snapshot>) -> View {
        let network = Arc::clone(&self.network);
        let (old, new) = (self.snapshot.targets(), snapshot.targets());
        let mut hops = Draft::of(&self.hops);
        while hops.len() > new.len() {
            hops.swap_remove(hops.len() - 1);
        }
        let mut lanes = LanesDraft::of(&self.lanes);
        for (_, targets) in old.changed(new) {
            targets.iter().for_each(|target| lanes.remove(target));
        }
        for (first, targets) in new.changed(old) {
            for (target, at) in targets.iter().zip(first..) {
                let hop = hop_to(&network, at, target);
                match at < hops.len() {
                    true => *hops.get_mut(at) = hop,
                    false => hops.push(hop),
                }
                lanes.add(&snapshot, &network, target, hop);
            }
        }
        View {
            lanes: lanes.finish(),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed) + 1,
            snapshot,
            network,
            hops: hops.finish(),
        }
    }

    /// A number that no other view of this process has; never 0.
    #[inline(always)]
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// All lanes.
    #[inline(always)]
    pub(crate) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// What the entries of this lane need.
    #[inline(always)]
    pub(crate) fn lane(&self, lane: u32) -> Option<&Lane> {
        self.lanes.get(lane)
    }

    /// Next hop towards a target; none towards a dead one, so that nothing can take a short way to it.
    #[inline(always)]
    pub fn hop(&self, target: u32) -> NextHop {
        self.hops[target as usize]
    }

    /// Next hops that servers are reached through, without repetition of neighbours, for whoever keeps them resolved.
    pub fn server_hops(&self) -> &Chunks<NextHop> {
        &self.hops
    }

    /// What an identity stands for; None if its rule or server is not configured any more.
    #[inline(always)]
    pub fn flow(&self, identity: Identity) -> Option<Flow<'_>> {
        let target_index = self.snapshot.target_of(identity.rule, identity.server)?;
        let target = &self.snapshot.targets()[target_index as usize];
        let rule = &self.snapshot.rules()[target.rule as usize];
        let vip = rule.vips.get(identity.vip_index as usize)?;
        Some(Flow {
            identity,
            target_index,
            target,
            rule,
            vip,
        })
    }

    /// Whether a packet with this tuple belongs to a connection, in the direction given.
    #[inline(always)]
    pub fn recognise(
        &self,
        tuple: &Tuple,
        connection: &Connection,
        direction: Direction,
    ) -> Option<Recognised<'_>> {
        let identity = &connection.identity;
        if identity.protocol != tuple.protocol {
            return None;
        }
        match (self.flow(*identity), direction) {
            (Some(flow), _) => flow
                .matches(tuple, direction)
                .then_some(Recognised::Flow(flow)),
            (None, Direction::Forward) => {
                let rule = self.snapshot.rule_by_id(identity.rule)?;
                let vip = rule.vips.get(identity.vip_index as usize)?;
                let same = identity.client == tuple.src
                    && identity.client_port == tuple.sport
                    && identity.vip_port == tuple.dport
                    && vip.address == tuple.dst;
                same.then_some(Recognised::ServerGone(rule, identity.vip_index))
            }
            (None, Direction::Reverse) => None,
        }
    }
}

/// The next hop towards the target with this number; none towards a dead one.
fn hop_to(network: &Network, at: usize, target: &Target) -> NextHop {
    match target.dead {
        true => NextHop::None(DropReason::Orphaned),
        false => network.server_hop(target.address, (at as u32).wrapping_mul(0x9e37_79b9)),
    }
}

impl Flow<'_> {
    /// Whether a packet with this tuple is one of the connection's, in this direction.
    #[inline(always)]
    pub fn matches(&self, tuple: &Tuple, direction: Direction) -> bool {
        match direction {
            Direction::Forward => self.forward_tuple() == *tuple,
            Direction::Reverse => self.reverse_tuple() == Some(*tuple),
        }
    }

    /// The server's port for this connection.
    #[inline(always)]
    pub fn server_port(&self) -> u16 {
        self.target.port(self.vip, self.identity.vip_port)
    }

    /// Tuple of packets that come from the client.
    #[inline(always)]
    pub fn forward_tuple(&self) -> Tuple {
        Tuple {
            src: self.identity.client,
            dst: self.vip.address,
            sport: self.identity.client_port,
            dport: self.identity.vip_port,
            protocol: self.identity.protocol,
        }
    }

    /// What the server sees as the client: its own address, or ours under NAT.
    #[inline(always)]
    fn seen_client(&self) -> Option<(Addr, u16)> {
        match self.rule.topology {
            Topology::Dsr | Topology::Tun | Topology::HalfNat => {
                Some((self.identity.client, self.identity.client_port))
            }
            Topology::Nat => {
                let source = self.rule.proxy_src.get(self.identity.nat_index as usize)?;
                Some((*source, self.identity.nat_port))
            }
        }
    }

    /// Tuple of packets that come from the server through us; None if there are none.
    #[inline(always)]
    pub fn reverse_tuple(&self) -> Option<Tuple> {
        if !self.rule.topology.has_reverse() {
            return None;
        }
        let (dst, dport) = self.seen_client()?;
        let protocol = self.identity.protocol;
        Some(Tuple {
            src: self.target.address,
            dst,
            sport: self.server_port(),
            dport,
            protocol,
        })
    }

    /// Tuple of a packet when it leaves us in this direction.
    #[inline(always)]
    pub fn translated(&self, direction: Direction) -> Option<Tuple> {
        match (direction, self.rule.topology) {
            (Direction::Forward, Topology::Dsr | Topology::Tun) => Some(self.forward_tuple()),
            (Direction::Forward, Topology::HalfNat | Topology::Nat) => {
                Some(self.reverse_tuple()?.reversed())
            }
            (Direction::Reverse, _) => Some(self.forward_tuple().reversed()),
        }
    }
}
