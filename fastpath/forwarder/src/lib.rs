//! The packet logic of ilb.
//!
//! This crate owns everything that happens between a received frame and its verdict: packet views, the connection
//! table, the choice of a server, rewriting and checksums, NAT ports, ICMP errors, fragments, drop reasons, and the
//! [`spec::SnapshotSpec`] that configures it all. It refuses to know where frames come from: it does no syscall, reads
//! no clock, spawns nothing, and neither allocates nor locks per packet.

pub mod address;
mod admission;
pub mod census;
pub mod changes;
pub mod checksum;
pub mod chunks;
pub mod counters;
mod crc32c;
pub mod explain;
mod forwarder;
pub mod fragment;
mod guard;
pub mod hash;
mod icmp;
mod icmp_answer;
mod idmap;
mod known_clients;
mod lane;
pub mod listing;
pub mod load;
pub mod matching;
pub mod nat;
pub mod network;
pub mod packet;
pub mod peer;
pub mod persistence;
pub mod pool;
pub mod relay;
mod reset;
mod rewrite;
pub mod select;
pub mod snapshot;
pub mod spec;
mod state;
pub mod steering;
pub mod table;
mod too_big;
pub mod traces;
pub mod tunnel;
pub mod verdict;
pub mod view;

pub use forwarder::{BATCH, Forwarder};
pub use guard::Guard;
pub use packet::Packet;
pub use snapshot::{CompileError, Snapshot};
pub use steering::{Side, SteeringEntry};
pub use table::Table;
pub use view::View;
