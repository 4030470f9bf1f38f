//! From frame to verdict. One [`Forwarder`] belongs to each worker; all share one connection table.
//!
//! The batch loop is here. Nearly all packets take the [`express`] path; the others take the general one, whose steps are
//! found by what happens to the packet: [`known`] for one of a connection, [`begin`] for one that begins a connection
//! ([`pinned`] if its client is persistent), [`orphans`] for one whose server is dead or gone, [`relay`] for one that another
//! node may know, [`send`] for its way out, [`fragments`] and [`icmp_errors`] for what has no ports of its own.

mod admit;
mod begin;
mod express;
mod fragments;
mod icmp_errors;
mod known;
mod not_ours;
mod orphans;
mod pinned;
mod recover;
mod rehearse;
mod relay;
mod send;
mod shared;
mod too_big;
mod tunnel;

use std::sync::Arc;

use self::express::{Exits, Glance, Shape};
use rehearse::Notes;
pub(crate) use rehearse::{Rehearsed, rehearse};

use crate::changes::Changes;
use crate::counters::WorkerCounters;
use crate::fragment::{self, Key};
use crate::hash::FlowHasher;
use crate::packet::{self, Headers, Kind, Packet};
use crate::pool::Budget;
use crate::select::Mode;
use crate::table::{Limbo, Table};
use crate::verdict::{DropReason, Verdict};
use crate::view::View;

/// Packets that are taken through each step together, so that memory arrives while others are worked on.
pub const BATCH: usize = 64;

/// See the module's text.
pub struct Forwarder {
    path: Path,
    glances: Box<[Glance; BATCH]>,
    express: bool,
    express_packets: u64,
}

/// Everything that a packet meets on its way.
struct Path {
    worker: usize,
    table: Arc<Table>,
    hasher: FlowHasher,
    limbo: Limbo,
    exits: Exits,
    counters: Arc<WorkerCounters>,
    /// What the peer has to be told.
    changes: Arc<Changes>,
    /// For questions to pools.
    budget: Budget,
    /// The batch's time, in seconds since boot.
    now: u32,
    /// Whether what it does counts.
    mode: Mode,
    notes: Notes,
}

impl Forwarder {
    /// For worker number `worker`, below [`crate::table::MAX_WORKERS`] and the number of workers that snapshots are
    /// compiled for.
    pub fn new(worker: usize, table: Arc<Table>) -> Forwarder {
        Forwarder {
            path: Path {
                worker,
                hasher: table.hasher(),
                table,
                limbo: Limbo::default(),
                exits: Exits::default(),
                counters: Arc::default(),
                changes: Arc::new(Changes::new(0)),
                budget: Budget::default(),
                now: 0,
                mode: Mode::Choose,
                notes: Notes::default(),
            },
            glances: Box::new([Glance::NOTHING; BATCH]),
            express: true,
            express_packets: 0,
        }
    }

    /// Notes here what the peer has to be told, whenever that is switched on.
    pub fn set_changes(&mut self, changes: Arc<Changes>) {
        self.path.changes = changes;
    }

    /// Switches the express path on (as it is at first) or off. Off is slower and must make no other difference: for
    /// tests, and for whoever doubts it.
    pub fn set_express(&mut self, express: bool) {
        self.express = express;
    }

    /// Packets that took the express path.
    pub fn express_packets(&self) -> u64 {
        self.express_packets
    }

    /// This worker's counters, to be read by anybody.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.path.counters
    }

    /// Whether a packet with verdict [`Verdict::Hold`] should be given to [`Forwarder::process`] again: its first fragment
    /// has come, on this worker or another one. Need not be asked while [`Forwarder::first_fragments`] stays the same.
    pub fn is_awaited_no_more(view: &View, key: Key, now: u32) -> bool {
        view.snapshot.guard().fragments.is_known(key, now)
    }

    /// How many first fragments have come, on all workers.
    pub fn first_fragments(view: &View) -> u64 {
        view.snapshot.guard().fragments.made()
    }

    /// Gives every packet its verdict and changes those that are to be sent. `now` is in seconds since boot, the same
    /// clock for all workers and for [`crate::table::Sweeper`].
    pub fn process(&mut self, view: &View, packets: &mut [Packet<'_>], now: u32) {
        self.path.now = now;
        for batch in packets.chunks_mut(BATCH) {
            self.path.table.enter(self.path.worker);
            self.glance(batch);
            self.look_ahead(batch.len());
            if view.lanes().many {
                self.path.look_further(view, &self.glances[..batch.len()]);
            }
            self.forward(view, batch, now);
            self.path.table.quiesce(self.path.worker);
            if !self.path.limbo.is_empty() {
                self.path.table.reclaim(&mut self.path.limbo);
            }
        }
    }

    /// Parses and hashes all, and asks for their places in the index.
    #[inline(always)]
    fn glance(&mut self, batch: &[Packet<'_>]) {
        let mut bytes = 0;
        for (packet, glance) in batch.iter().zip(self.glances.iter_mut()) {
            bytes += packet.len();
            self.path.glance(packet.frame(), glance);
            self.path.table.prefetch_bucket(glance.hash as u32);
        }
        self.path.counters.packets.add(batch.len() as u64);
        self.path.counters.bytes.add(bytes as u64);
    }

    /// Finds the entries that probably belong to them, and asks for these.
    #[inline(always)]
    fn look_ahead(&mut self, count: usize) {
        for glance in &mut self.glances[..count] {
            if glance.shape == Shape::Other {
                glance.candidate = None;
                continue;
            }
            glance.candidate = self.path.table.candidate(glance.hash as u32);
            if let Some(index) = glance.candidate {
                self.path.table.prefetch(index);
            }
        }
    }

    /// Rewrites all and decides where they go.
    #[inline(always)]
    fn forward(&mut self, view: &View, batch: &mut [Packet<'_>], now: u32) {
        let mut transmitted = 0;
        for (packet, glance) in batch.iter_mut().zip(self.glances.iter()) {
            let way = match self.express {
                true => self.path.express(view, packet.frame_mut(), glance, now),
                false => None,
            };
            match way {
                Some(port) => {
                    packet.verdict = Verdict::Transmit(port);
                    transmitted += 1;
                }
                None => self.path.general(view, packet, now),
            }
        }
        self.path.counters.transmitted.add(transmitted);
        self.express_packets += transmitted;
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.table.abandon(&mut self.limbo);
    }
}

impl Path {
    /// The general path: a packet of any kind.
    #[cold]
    #[inline(never)]
    fn general(&mut self, view: &View, packet: &mut Packet<'_>, now: u32) {
        packet.verdict = match packet::parse(packet.frame()) {
            Ok(headers) if headers.fragment.is_some() => self.fragment(view, packet, &headers, now),
            Ok(headers) => self.one(view, packet, &headers, now),
            Err(DropReason::Malformed) if fragment::is_tiny(packet.frame()) => {
                Verdict::Drop(DropReason::FragmentTiny)
            }
            Err(reason) => Verdict::Drop(reason),
        };
        match packet.verdict {
            Verdict::Transmit(_) => self.counters.transmitted.add(1),
            Verdict::Unresolved { .. } => self.counters.unresolved.add(1),
            Verdict::Kernel => self.counters.kernel.add(1),
            Verdict::Hold { .. } => self.counters.held.add(1),
            Verdict::Drop(reason) => self.counters.dropped(reason),
        }
    }

    fn one(
        &mut self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        now: u32,
    ) -> Verdict {
        match headers.kind {
            Kind::Transport => {
                let hash = self.hasher.tuple(&headers.tuple);
                self.transport(view, packet, headers, hash, now)
            }
            Kind::IcmpError => self.icmp_error(view, packet, headers),
            // Later fragments are dealt with before.
            Kind::LaterFragment | Kind::Other => not_ours::verdict(view, headers),
        }
    }
}
