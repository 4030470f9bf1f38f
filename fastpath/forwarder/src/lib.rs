//! The packet logic of ilb.
//!
//! This crate owns everything that happens between a received frame and its verdict: packet views, the connection
//! table, the choice of a server, rewriting and checksums, NAT ports, ICMP errors, fragments, drop reasons, and the
//! [`spec::SnapshotSpec`] that configures it all. It refuses to know where frames come from: it does no syscall, reads
//! no clock, spawns nothing, and neither allocates nor locks per packet.

pub mod address;
pub mod checksum;
pub mod hash;
pub mod network;
pub mod packet;
pub mod spec;
pub mod table;
pub mod verdict;
