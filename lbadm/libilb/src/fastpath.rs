//! The JSON that `Manager.DescribeFastpath()` returns: how the fast path does its work.

use serde::{Deserialize, Serialize};

/// The fast path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FastpathDescription {
    /// Version of the program.
    pub version: String,
    /// Generation that it forwards by; 0 when it has none yet.
    pub generation: u64,
    /// Worker threads.
    pub workers: u32,
    /// Seconds since it started.
    pub uptime: u64,
    /// Interfaces of the node settings, in their order.
    pub interfaces: Vec<InterfaceDescription>,
    /// Connections that fit into its table.
    pub table_capacity: u64,
    /// Entries of the table in use.
    pub table_used: u64,
}

/// How an interface is served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceDescription {
    /// Its name.
    pub name: String,
    /// `native` (the XDP program runs in the driver) or `generic`.
    pub mode: String,
    /// Why not in the driver; empty if it does.
    pub mode_reason: String,
    /// Whether frames are received and sent without copying them.
    pub zero_copy: bool,
    /// Why they are copied; empty if they are not.
    pub copy_reason: String,
    /// Receive queues that have a worker.
    pub queues: u32,
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
}
