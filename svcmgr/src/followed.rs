//! What a node keeps of the configuration's way from node to node, in the same transactions as the configuration.

use ilb_pair::follow::Line;
use serde::{Deserialize, Serialize};

/// Notices that are kept; nobody reads more.
const NOTICES: usize = 20;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// Which node this is: 0 made the pair, 1 joined it.
    pub node: u8,
    /// The versions of the configuration, each with the generation that it is here.
    pub line: Line,
    /// What was told by a later program may have had more in it than this one could keep.
    pub incomplete: bool,
    /// What happened that a person should know, oldest first, until it is acknowledged.
    pub notices: Vec<Notice>,
}

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Seconds of the Unix clock.
    pub time: u64,
    /// What, for people.
    pub words: String,
}

impl Followed {
    /// One more notice; the oldest go when there are too many.
    pub fn notice(&mut self, time: u64, words: String) {
        self.notices.push(Notice { time, words });
        let over = self.notices.len().saturating_sub(NOTICES);
        self.notices.drain(..over);
    }
}
