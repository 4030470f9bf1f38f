//! Choosing a server for a new connection: one file per algorithm, one trait. What can be computed beforehand is
//! computed when the snapshot is compiled, so that a choice is O(1).

mod hash;
pub mod maglev;
mod round_robin;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::address::Addr;
use crate::hash::{FIXED_KEYS, FlowHasher};
use crate::packet::Tuple;
use crate::spec::{Algorithm, ServerId};
use maglev::Maglev;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The client's address.
    pub client: Addr,
    /// The client's port.
    pub client_port: u16,
    /// The address that it connects to.
    pub vip: Addr,
    /// The port that it connects to.
    pub vip_port: u16,
    /// Index of the VIP among those of the rule.
    pub vip_index: u8,
    /// Protocol number.
    pub protocol: u8,
    /// Hash of the flow with [`crate::hash::FIXED_KEYS`]: the same on every node.
    pub hash: u64,
    /// Seconds since boot.
    pub now: u32,
}

impl Request {
    /// For a flow whose first packet has this tuple and meets this VIP of the rule.
    pub fn new(tuple: &Tuple, vip_index: u8, now: u32) -> Request {
        Request {
            client: tuple.src,
            client_port: tuple.sport,
            vip: tuple.dst,
            vip_port: tuple.dport,
            vip_index,
            protocol: tuple.protocol,
            hash: HASHER.flow(
                tuple.src,
                tuple.dst,
                tuple.sport,
                tuple.dport,
                tuple.protocol,
            ),
            now,
        }
    }
}

const HASHER: FlowHasher = FlowHasher::new(FIXED_KEYS);

/// Whether a choice counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// For a connection that begins: turns move on.
    Choose,
    /// Only to know what [`Mode::Choose`] would give now: nothing changes.
    Preview,
}

/// Why there is no server for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoChoice {
    /// No server takes new connections: all are disabled, dead, removed or of weight 0.
    NoServer,
    /// The servers that might take it are at their thresholds.
    AtLimits,
}

/// A way to choose among the servers that take new connections.
pub trait Select: Send + Sync + std::fmt::Debug {
    /// Index of the chosen server among the candidates that the selector was made for. Only called when there are any.
    fn select(&self, request: &Request, mode: Mode) -> Result<u32, NoChoice>;
}

/// Makes the selector of an algorithm for candidates given by their ids, in configured order. `cursor` is the rule's
/// place in its turn and outlives the selector; `table` gives the hash table for these candidates.
pub fn selector(
    algorithm: Algorithm,
    candidates: &[ServerId],
    cursor: &Arc<AtomicU32>,
    table: impl FnOnce() -> Arc<Maglev>,
) -> Arc<dyn Select> {
    match algorithm {
        Algorithm::RoundRobin
        | Algorithm::WeightedRoundRobin
        | Algorithm::LeastConnection
        | Algorithm::WeightedLeastConnection
        | Algorithm::ShortestExpectedDelay
        | Algorithm::NeverQueue
        | Algorithm::LocalityLeastConnection
        | Algorithm::LocalityLeastConnectionReplication
        | Algorithm::DestinationHash
        | Algorithm::SourceHash
        | Algorithm::Failover
        | Algorithm::Overflow
        | Algorithm::Maglev
        | Algorithm::TwoChoices => Arc::new(round_robin::RoundRobin::new(
            candidates.len() as u32,
            cursor.clone(),
        )),
        Algorithm::HashIp => Arc::new(hash::HashIp(table())),
        Algorithm::HashIpPort => Arc::new(hash::HashIpPort(table())),
        Algorithm::HashIpVip => Arc::new(hash::HashIpVip(table())),
    }
}

/// Whether the algorithm looks its choice up in a hash table.
pub fn uses_table(algorithm: Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::HashIp | Algorithm::HashIpPort | Algorithm::HashIpVip
    )
}

/// Whether the algorithm gives a flow the same server of the same candidates every time, whatever came before.
pub fn is_computed(algorithm: Algorithm) -> bool {
    match algorithm {
        Algorithm::DestinationHash
        | Algorithm::SourceHash
        | Algorithm::Maglev
        | Algorithm::HashIp
        | Algorithm::HashIpPort
        | Algorithm::HashIpVip => true,
        Algorithm::RoundRobin
        | Algorithm::WeightedRoundRobin
        | Algorithm::LeastConnection
        | Algorithm::WeightedLeastConnection
        | Algorithm::ShortestExpectedDelay
        | Algorithm::NeverQueue
        | Algorithm::LocalityLeastConnection
        | Algorithm::LocalityLeastConnectionReplication
        | Algorithm::Failover
        | Algorithm::Overflow
        | Algorithm::TwoChoices => false,
    }
}
