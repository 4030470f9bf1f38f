//! The DNS as a client sees it: messages, which are pure, and questions to name servers.

pub(crate) mod message;
pub mod resolver;

pub use message::Service;

use std::hash::{BuildHasher, RandomState};

/// A number that nobody can foresee: the standard library seeds its hashes from the system's randomness.
pub(crate) fn random_id() -> u16 {
    let hash = RandomState::new().hash_one(0u8);
    u16::try_from(hash & 0xffff).unwrap_or_default()
}
