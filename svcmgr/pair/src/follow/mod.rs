//! Configuration follows from node to node. Pure: no sockets, no clock, no store.
//!
//! Each change is a [`Version`], and versions follow one another in a [`Line`] that both nodes have. While the nodes hear
//! each other a change is *offered* to the other node first, on top of the newest version that both have, and made when
//! that one has it durably. Of two that are offered at once node 0's goes first; the other node takes it and tries its own
//! again on top. Alone, a node makes its changes by itself, and the other one gets them later, in their order.
//!
//! When both have changed something while they did not hear each other, node 0 decides by the rule of [`wins`] whose line
//! goes on. The other node takes the whole configuration of the winner as one more generation, and what it had stays in
//! its history.
//!
//! [`Follow`] says what is to be said and done; the host does it, durably, and tells what came of it. It may be killed
//! between any two steps: everything is found out anew from the two lines.

mod counts;
mod line;
mod machine;
mod message;
mod patience;
#[cfg(test)]
mod tests;
mod version;

pub use counts::{Answer, Counts};
pub use line::{Kept, Line, MOST, Relation};
pub use machine::{Action, Follow, Fork, Outcome, Refused, Speaks, Stand, Turn, wins};
pub use message::{
    Delta, Heard, Hello, Message, Nonsense, Numbers, OLDEST, PROTOCOL, Reason, Record, Whole,
};
pub use patience::{SILENCE, patience};
pub use version::{Digest, Draft, NoVersionId, Version, VersionId};
