//! What the managers of two nodes say to each other, and how nobody else can.
//!
//! This crate owns who a node is ([`identity`]), what both nodes know and nobody else does ([`secret`]), the word by which an
//! administrator makes two nodes a pair ([`token`]), the port that tells a stranger nothing ([`door`]), what is said
//! through it ([`link`]), and how the configuration follows from node to node ([`follow`]). It refuses to know the database,
//! the bus, files and when to dial: who uses it brings connections, keeps what is to be kept, and decides what becomes of what
//! the other node says.

#![forbid(unsafe_code)]

mod dial;
pub mod door;
pub mod follow;
pub mod frame;
pub mod greeting;
mod hex;
pub mod identity;
pub mod link;
pub mod refusal;
pub mod secret;
mod tls;
pub mod token;

pub use dial::{Trust, connect, join};
pub use door::Door;
pub use identity::{Identity, PublicKey};
pub use link::{Link, LinkError, LinkReceiver, LinkSender};
pub use refusal::{Reason, Refusal};
pub use secret::Secret;
pub use token::Token;
