//! What an end of a session is given, and what it gives back.

use crate::record::{End, Record};
use crate::seal::Secret;
use crate::traces::Traces;

/// What an end goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our number, 0 or 1; the peer has the other one.
    pub node: u8,
    /// What both know.
    pub secret: Secret,
    /// Most octets a second that are sent, headers included; 0 is no limit.
    pub bandwidth: u32,
    /// Largest datagram, in octets.
    pub datagram: usize,
}

/// The connections of this node.
pub trait Table {
    /// Entries below this number may hold something.
    fn size(&self) -> u32;
    /// What is to be told of an entry; None if there is nothing in it, or nothing that the peer needs.
    fn read(&mut self, entry: u32) -> Option<Record>;
    /// Whether there is a connection (again) that would be mistaken for the one that ended.
    fn has(&mut self, end: &End) -> bool;
    /// The trace of an entry; None if it is not to be told of by its trace.
    fn trace(&mut self, entry: u32) -> Option<u32> {
        let _ = entry;
        None
    }
    /// What a peer before this one had told, and for how many seconds it has not been heard.
    fn inherited(&mut self) -> Option<(Vec<u32>, u16)> {
        None
    }
}

/// What came of a datagram, or of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer is there.
    Up,
    /// It does not answer any more.
    Down,
    /// It says this of a connection.
    Record(Record),
    /// It has asked for everything.
    Asked,
    /// It has told everything that we asked for.
    Everything,
    /// It has these connections.
    Traces(Traces),
}
