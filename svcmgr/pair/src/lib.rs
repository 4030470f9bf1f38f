//! What the managers of two nodes say to each other, and how nobody else can.
//!
//! This crate owns who a node is ([`identity`]), what both nodes know and nobody else does ([`secret`]), the word by which an
//! administrator makes two nodes a pair ([`token`]), the port that tells a stranger nothing ([`door`]), and what is said
//! through it ([`link`]). It refuses to know the database, the bus, files and when to dial: who uses it brings connections,
//! keeps what is to be kept, and decides what becomes of what the other node says.

#![forbid(unsafe_code)]
// Until the door uses all of it.
#![allow(dead_code)]

pub mod door;
mod hex;
pub mod identity;
pub mod link;
pub mod secret;
pub mod token;

pub use identity::{Identity, PublicKey};
pub use secret::Secret;
pub use token::Token;
