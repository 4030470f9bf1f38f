//! The pair: two managers that speak with each other.
//!
//! ```text
//!            Order (mpsc)          ┌─────────┐ ◀─Arrived── Listener (node 0: a task that accepts, one a connection)
//!  manager ──────────────────────▶ │ Network │ ◀─Arrived── Dialer (node 1: a task that tries again and again)
//!          ◀────────────────────── │         │ ──frames──▶ Session (one at most: a task that reads, one that writes)
//!            Event (mpsc)          └─────────┘ ◀─Heard────  "
//! ```
//!
//! [`ilb_pair`] says who may speak and that nobody else hears it. Here is what is kept ([`keep`]), when to listen and to dial
//! ([`network`]), and what a frame is about ([`wire`]). What becomes of it is the manager's.

pub mod join;
pub mod keep;
mod listener;
pub mod network;
mod session;
pub mod wire;

use std::net::IpAddr;

use ilb_pair::{PublicKey, Secret};
use libilb::pair::NodeDescription;
use tokio::sync::oneshot;

pub use listener::Place;
pub use network::PairLink;

/// Label of the secret that lasts, for the exporter of the session of a join (RFC 8446 section 7.5).
pub const LASTING: &str = "ilb pair secret";

/// What happens to the link.
#[derive(Debug)]
pub enum Event {
    /// Both hear each other.
    Up {
        /// Version of the other manager.
        software: String,
        /// What it says of itself.
        beat: Box<NodeDescription>,
        /// Our address on the way to it.
        local: IpAddr,
        /// Its address.
        remote: IpAddr,
    },
    /// They do not any more, with the reason.
    Down(String),
    /// The other node has left the pair.
    Left,
    /// The other node says something about the configuration.
    Message(Vec<u8>),
    /// The other node says who it is and how it stands.
    Heard(Box<NodeDescription>),
    /// The link is down and cannot be had, with the reason.
    Trouble(String),
    /// Somebody who has the token joins.
    Admitted(Box<Admitted>),
}

/// Who joins.
#[derive(Debug)]
pub struct Admitted {
    /// By what it is known.
    pub peer: PublicKey,
    /// What both know from now on.
    pub secret: Secret,
    /// Its address.
    pub remote: IpAddr,
    /// Ours, on the way to it.
    pub local: IpAddr,
    /// Whether it is kept, durably.
    pub reply: oneshot::Sender<bool>,
}
