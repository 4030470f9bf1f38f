//! The fast path of ilb: moves packets between AF_XDP rings as the service manager has configured it.
//!
//! This program owns AF_XDP sockets and their memory, worker threads, next-hop resolution, the control socket and the
//! statistics. What happens to a packet is decided by `ilb-forwarder`; which packets come here, by `xdp-redirect`; the
//! configuration comes from the service manager and is never made up here.
//!
//! ```text
//!   main thread    engine: netlink, control socket, publishing            (engine.rs)
//!   ilb-worker-N   one per queue: rings, forwarder                        (worker.rs)
//!   ilb-sweeper    ends idle connections, counts the others               (sweeper.rs)
//!   ilb-peer       tells the other node of connections, if there is one  (peer/)
//!   ilb-snapshot   writes the last applied snapshot                       (last_snapshot.rs)
//! ```

mod answers;
pub mod board;
pub mod clock;
pub mod control;
pub mod counters;
mod drift;
pub mod engine;
pub mod error;
pub mod frames;
mod handover;
pub mod held;
pub mod last_snapshot;
pub mod netlink;
pub mod notify;
pub mod peer;
pub mod pending;
pub mod picture;
pub mod port;
pub mod ports;
pub mod queues;
pub mod raw;
pub mod reception;
mod reload;
pub mod start;
pub mod statistics;
pub mod steering;
pub mod sweeper;
pub mod table_file;
pub mod tun;
pub mod umem;
pub mod watchdog;
pub mod worker;
