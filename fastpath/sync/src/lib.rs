//! How two fast paths tell each other of their connections.
//!
//! This crate owns what goes between them: records ([`record`]), traces ([`traces`]), the frames that they travel in ([`frame`]), datagrams
//! that nobody else can make, change or repeat ([`seal`]), and the session of two ends ([`session`]): who is there, what the
//! other end may not know yet, what was lost on the way, and how much may be sent. It refuses to know what a connection
//! table is (see [`Table`]), opens no socket, reads no clock and draws no random numbers: all of that is given to it.
//!
//! ```text
//!   Table ──read(index)──▶ Session ──poll──▶ datagram ──▶ the other end
//!   changed, traced, ended ─▶ │    ◀─handle── datagram ◀──
//!                             └──▶ Event (records, traces, up, down)
//! ```

#![forbid(unsafe_code)]

mod bytes;
mod counters;
pub mod error;
pub mod frame;
mod host;
mod link;
mod marks;
mod pace;
pub mod record;
pub mod seal;
pub mod session;
pub mod traces;

pub use error::Refused;
pub use host::{Event, Settings, Table};
pub use record::{Claim, Connection, End, Record, State};
pub use seal::Secret;
pub use session::Session;
pub use traces::Traces;
