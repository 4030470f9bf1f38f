//! How long a node waits for the other one before it goes on alone.

use std::time::Duration;

/// For how long nothing may be heard over a link that counts as up.
pub const SILENCE: Duration = Duration::from_secs(5);

/// How long an answer of the other node is awaited. That of node 0 is what a person waits for at most when the other node's
/// manager is stuck. Node 1 waits until the link would have been given up in either direction, and a good while more: what it
/// offers may be on its way for nearly that long, and when it comes node 0 may just have offered something itself, which is on
/// its way for as long. If the link is not given up, that is heard before, and of two changes at once that of node 0 goes first.
/// So both lose patience with each other only when the link is down, not when it is slow; otherwise there would be conflicting
/// histories though both hear each other.
pub const fn patience(node: u8) -> Duration {
    match node {
        0 => Duration::from_secs(2),
        _ => Duration::from_secs(2 * SILENCE.as_secs() + 2),
    }
}
