//! From frame to verdict. One [`Forwarder`] belongs to each worker; all share one connection table.
//!
//! The batch loop is here. What it calls is found by what happens to the packet: [`known`] for one of a connection,
//! [`begin`] for one that begins a connection, [`send`] for its way out, [`fragments`] and [`icmp_errors`] for what has
//! no ports of its own.

mod begin;
mod fragments;
mod icmp_errors;
mod known;
mod recover;
mod send;

use std::sync::Arc;

use crate::counters::WorkerCounters;
use crate::fragment::Fragments;
use crate::hash::FlowHasher;
use crate::packet::{self, Headers, Kind, Packet, Tuple};
use crate::pool::Budget;
use crate::table::Table;
use crate::verdict::{DropReason, Verdict};
use crate::view::View;

/// Packets that are taken through each step together, so that memory arrives while others are worked on.
pub const BATCH: usize = 64;

/// See the module's text.
pub struct Forwarder {
    path: Path,
    parsed: Box<[Parsed; BATCH]>,
}

/// Everything that a packet meets on its way.
struct Path {
    worker: usize,
    table: Arc<Table>,
    hasher: FlowHasher,
    fragments: Fragments,
    counters: Arc<WorkerCounters>,
    /// For questions to pools.
    budget: Budget,
    /// The batch's time, in seconds since boot.
    now: u32,
}

/// A packet on its way through the batch.
#[derive(Clone, Copy)]
struct Parsed {
    headers: Headers,
    outcome: Result<(), DropReason>,
    hash: u64,
    /// Entry that probably belongs to it.
    candidate: Option<u32>,
}

impl Forwarder {
    /// For worker number `worker`, below [`crate::table::MAX_WORKERS`] and the number of workers that snapshots are
    /// compiled for.
    pub fn new(worker: usize, table: Arc<Table>) -> Forwarder {
        let nothing = Parsed {
            headers: Headers::default(),
            outcome: Err(DropReason::Malformed),
            hash: 0,
            candidate: None,
        };
        Forwarder {
            path: Path {
                worker,
                hasher: table.hasher(),
                table,
                fragments: Fragments::default(),
                counters: Arc::default(),
                budget: Budget::default(),
                now: 0,
            },
            parsed: Box::new([nothing; BATCH]),
        }
    }

    /// This worker's counters, to be read by anybody.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.path.counters
    }

    /// Gives every packet its verdict and changes those that are to be sent. `now` is in seconds since boot, the same
    /// clock for all workers and for [`crate::table::Sweeper`].
    pub fn process(&mut self, view: &View, packets: &mut [Packet<'_>], now: u32) {
        self.path.now = now;
        for batch in packets.chunks_mut(BATCH) {
            self.path.table.enter(self.path.worker);
            self.parse(batch);
            self.look_ahead(batch.len());
            for (packet, parsed) in batch.iter_mut().zip(self.parsed.iter()) {
                packet.verdict = match parsed.outcome {
                    Ok(()) => self.path.one(view, packet, parsed, now),
                    Err(reason) => Verdict::Drop(reason),
                };
            }
            self.path.count(batch);
            self.path.table.quiesce(self.path.worker);
        }
    }

    #[inline(always)]
    fn parse(&mut self, batch: &[Packet<'_>]) {
        for (packet, parsed) in batch.iter().zip(self.parsed.iter_mut()) {
            parsed.outcome = packet::parse_into(packet.frame(), &mut parsed.headers);
            parsed.hash = hash(&self.path.hasher, &parsed.headers.tuple);
            self.path.table.prefetch_bucket(parsed.hash as u32);
        }
    }

    #[inline(always)]
    fn look_ahead(&mut self, count: usize) {
        for parsed in &mut self.parsed[..count] {
            parsed.candidate = self.path.table.candidate(parsed.hash as u32);
            if let Some(index) = parsed.candidate {
                self.path.table.prefetch(index);
            }
        }
    }
}

impl Path {
    #[inline(always)]
    fn count(&self, batch: &[Packet<'_>]) {
        let (mut bytes, mut transmitted) = (0, 0);
        for packet in batch {
            bytes += packet.len();
            match packet.verdict {
                Verdict::Transmit(_) => transmitted += 1,
                Verdict::Unresolved { .. } => self.counters.unresolved.add(1),
                Verdict::Kernel => self.counters.kernel.add(1),
                Verdict::Drop(reason) => self.counters.dropped(reason),
            }
        }
        self.counters.packets.add(batch.len() as u64);
        self.counters.bytes.add(bytes as u64);
        self.counters.transmitted.add(transmitted);
    }

    #[inline(always)]
    fn one(&mut self, view: &View, packet: &mut Packet<'_>, parsed: &Parsed, now: u32) -> Verdict {
        let headers = &parsed.headers;
        match headers.kind {
            Kind::Transport => self.transport(view, packet, parsed, now),
            Kind::LaterFragment => self.later_fragment(view, packet, headers, now),
            Kind::IcmpError => self.icmp_error(view, packet, headers),
            Kind::Other => Verdict::Kernel,
        }
    }

    #[inline(always)]
    fn transport(
        &mut self,
        view: &View,
        packet: &mut Packet<'_>,
        parsed: &Parsed,
        now: u32,
    ) -> Verdict {
        let (headers, hash) = (&parsed.headers, parsed.hash);
        if headers.fragment.is_none()
            && let Some(index) = parsed.candidate
            && let Some((flow, direction)) = self.continues(view, headers, hash, index, now)
        {
            return self.forward(view, packet, headers, &flow, direction, hash);
        }
        self.transport_slowly(view, packet, headers, hash, now)
    }
}

#[inline(always)]
fn hash(hasher: &FlowHasher, tuple: &Tuple) -> u64 {
    hasher.flow(
        tuple.src,
        tuple.dst,
        tuple.sport,
        tuple.dport,
        tuple.protocol,
    )
}
