//! Health checks: asks servers, and says what it believes of them.
//!
//! Three things that are apart: asking ([`probe`]: one test, bounded in time and memory, that ends in an [`Outcome`]),
//! believing ([`fsm`]: pure, counts evidence as the settings demand) and telling ([`engine`]: schedules the tests of all
//! targets by [`schedule`], keeps their last transitions, and publishes changes within milliseconds). This crate refuses to
//! know rules, weights of groups, the database or the fast path: who uses it says what is to be tested and does what it
//! likes with the answers.
//!
//! ```text
//!   Engine (handle) --Command--> engine task --spawns--> probe ...
//!        ^                        |  ^  Schedule, Machine  |
//!        |                        |  +------Outcome--------+
//!        +---- changes() <--------+
//! ```

#![forbid(unsafe_code)]

pub mod dns;
pub mod engine;
pub mod fsm;
pub mod load;
pub mod outcome;
pub mod probe;
pub mod random;
pub mod schedule;
pub mod target;
mod wire;

pub use engine::{Changed, Engine, Options};
pub use outcome::{Outcome, Verdict};
pub use target::{Id, Ports, Target, Via};
