//! Locality: a VIP stays with the server that it had, whose caches are warm, as long as that can cope (`ip_vs_lblc.c`,
//! `ip_vs_lblcr.c`). What a VIP had belongs to the rule and outlives the selector.
//!
//! A server is overloaded when it has more active connections than its weight while another has less than half of its
//! own. Then lblc moves the VIP to the least loaded server, and lblcr adds that one to the VIP's set, of which the
//! least loaded is taken; a set that has not changed for ten minutes loses its most loaded server.
//!
//! The kernel keeps a hash table by destination address that a timer has to clear. A rule has at most 256 VIPs, so an
//! array does, and a set is one cache line: fifteen servers, of which the most loaded makes way for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::bitmap::Bitmap;
use super::failover::converge;
use super::least_connection::{LeastConnection, Measure};
use super::tournament::NEVER;
use super::{Candidates, Mode, NoChoice, Request, Select, Turns};
use crate::address::Addr;
use crate::spec::ServerId;

/// Most servers of one VIP.
pub const SET: usize = 15;
/// Seconds without a change after which a set loses its most loaded server (the kernel waits for a day).
pub const SHRINK_AFTER: u32 = 600;

/// Servers that a VIP had, 0 for none. Lblc uses the first place alone.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Local {
    servers: [AtomicU32; SET],
    /// When the set last changed, in seconds since boot.
    changed: AtomicU32,
}

/// Both algorithms.
#[derive(Debug)]
pub struct Locality {
    replicated: bool,
    least: LeastConnection,
    turns: Arc<Turns>,
    /// For each VIP of the rule the first one that has the same address.
    places: Box<[u8]>,
    /// Candidates by id.
    by_id: Box<[(ServerId, u32)]>,
    /// Candidates with less than half as many active connections as their weight.
    idle: Bitmap,
}

impl Locality {
    /// Over these candidates, for a rule with these VIPs. `replicated` for lblcr.
    pub fn new(replicated: bool, among: &Candidates, vips: &[Addr], turns: Arc<Turns>) -> Locality {
        let first = |vip| vips.iter().position(|other| other == vip).unwrap_or(0) as u8;
        let mut by_id: Box<[_]> = (0..among.count())
            .map(|index| (among.get(index).terms.id, index))
            .collect();
        by_id.sort_unstable();
        let this = Locality {
            replicated,
            least: LeastConnection::new(Measure::Weighted, among, turns.clone()),
            turns,
            places: vips.iter().map(first).collect(),
            by_id,
            idle: Bitmap::new(among.count()),
        };
        (0..among.count()).for_each(|index| this.changed(among, index));
        this
    }

    fn local(&self, request: &Request) -> &Local {
        let place = self.places.get(request.vip_index as usize).copied();
        &self.turns.localities()[place.unwrap_or(0) as usize]
    }

    /// The candidate with this id, if it may be taken.
    fn candidate(&self, among: &Candidates, id: ServerId) -> Option<u32> {
        let at = self.by_id.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        let index = self.by_id[at].1;
        among.available().contains(index).then_some(index)
    }

    fn copes(&self, among: &Candidates, index: u32) -> bool {
        among.connections(index).active as u64 <= among.weight(index) || self.idle.is_empty()
    }

    fn single(&self, among: &Candidates, local: &Local, mode: Mode) -> Result<u32, NoChoice> {
        let had = local.servers[0].load(Ordering::Relaxed);
        if let Some(index) = self.candidate(among, had)
            && self.copes(among, index)
        {
            return Ok(index);
        }
        let index = self.least.least().ok_or(NoChoice::AtLimits)?;
        if mode == Mode::Choose {
            self.least.picked(among, index);
            local.servers[0].store(among.get(index).terms.id, Ordering::Relaxed);
        }
        Ok(index)
    }

    fn set(
        &self,
        among: &Candidates,
        local: &Local,
        mode: Mode,
        now: u32,
    ) -> Result<u32, NoChoice> {
        let members = local
            .servers
            .iter()
            .filter_map(|server| self.candidate(among, server.load(Ordering::Relaxed)));
        if let Some(index) = members.min_by_key(|&index| self.least.load(index))
            && self.copes(among, index)
        {
            if mode == Mode::Choose {
                self.shrink(among, local, now);
            }
            return Ok(index);
        }
        let index = self.least.least().ok_or(NoChoice::AtLimits)?;
        if mode == Mode::Choose {
            self.least.picked(among, index);
            let id = among.get(index).terms.id;
            let member = |server: &AtomicU32| server.load(Ordering::Relaxed) == id;
            // A free place, or else the most loaded one makes way; workers may do the same at once, and the last one
            // prevails: the VIP has a new server all the same.
            if !local.servers.iter().any(member)
                && let Some(place) = local.servers.iter().max_by_key(|server| {
                    let free = server.load(Ordering::Relaxed) == 0;
                    (self.load_of(among, server), free)
                })
            {
                place.store(id, Ordering::Relaxed);
                local.changed.store(now, Ordering::Relaxed);
            }
        }
        Ok(index)
    }

    /// Takes the most loaded server out of a set that has long been the same.
    fn shrink(&self, among: &Candidates, local: &Local, now: u32) {
        let changed = local.changed.load(Ordering::Relaxed);
        if now.saturating_sub(changed) <= SHRINK_AFTER {
            return;
        }
        let relaxed = Ordering::Relaxed;
        let member = |server: &&AtomicU32| server.load(relaxed) != 0;
        let exchanged = || {
            local
                .changed
                .compare_exchange(changed, now, relaxed, relaxed)
        };
        if local.servers.iter().filter(member).count() < 2 || exchanged().is_err() {
            return;
        }
        let members = local.servers.iter().filter(member);
        if let Some(server) = members.max_by_key(|server| self.load_of(among, server)) {
            server.store(0, relaxed);
        }
    }

    /// Load of the server in a place of a set: most of all for one that may not be taken, or for nobody.
    fn load_of(&self, among: &Candidates, server: &AtomicU32) -> u64 {
        let index = self.candidate(among, server.load(Ordering::Relaxed));
        index.map_or(NEVER, |index| self.least.load(index))
    }
}

impl Select for Locality {
    fn select(&self, among: &Candidates, request: &Request, mode: Mode) -> Result<u32, NoChoice> {
        let local = self.local(request);
        if self.replicated {
            self.set(among, local, mode, request.now)
        } else {
            self.single(among, local, mode)
        }
    }

    fn changed(&self, among: &Candidates, index: u32) {
        self.least.changed(among, index);
        let idle = || among.connections(index).active as u64 * 2 < among.weight(index);
        converge(idle, |idle| self.idle.set(index, idle));
    }
}
