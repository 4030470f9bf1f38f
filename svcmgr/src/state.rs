//! Everything durable, as one value: what the store holds, a snapshot file contains and the manager works on.

use std::net::IpAddr;
use std::sync::Arc;

use libilb::map::Map;
use libilb::model::Configuration;

use crate::followed::Followed;
use crate::history::History;
use crate::pending::Pending;
use crate::retired::Retired;

/// See the module. A clone shares everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Number of this state. Grows with every change that the fast path has to know, also over restarts.
    pub generation: u64,
    /// What the administrator wants.
    pub configuration: Configuration,
    /// What only serves its last connections.
    pub retired: Retired,
    /// The change that is taken back unless it is confirmed.
    pub pending: Option<Arc<Pending>>,
    /// Addresses that we put on interfaces, or are about to.
    pub addresses: Map<IpAddr, String>,
    /// How the generations came about, and the way back to them.
    pub history: History,
    /// What is known of the pair that this node is in, if it is in one.
    pub pair: Option<Arc<Followed>>,
}
