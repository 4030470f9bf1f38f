//! What the manager shows: the state that everybody may read at any time without asking it.

use std::sync::Arc;

use libilb::describe;
use libilb::map::Map;
use libilb::vrrp::VrrpStatus;

use crate::checks::book::Book;
use crate::sources::follow::Follower;
use crate::state::State;
use crate::tiers::Levels;

/// One moment. A clone is cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Configuration and what belongs to it.
    pub state: State,
    /// Whether changes can be stored.
    pub health: describe::State,
    /// Why not, or what else a person should know; empty when all is well.
    pub health_reason: String,
    /// Whether the fast path forwards by this state.
    pub fastpath: describe::Fastpath,
    /// The generation that it acknowledged last; 0 when there was none.
    pub fastpath_generation: u64,
    /// What was found other than it should be, and what was put right lately.
    pub drift: Arc<[describe::Drift]>,
    /// What health checks said last.
    pub book: Book,
    /// Which tiers serve.
    pub levels: Levels,
    /// Where VRRP instances stand, by [`libilb::model::key`] of their names.
    pub vrrp: Map<String, VrrpStatus>,
    /// What is known of the sources of server groups, by the keys of these.
    pub followers: Map<String, Arc<Follower>>,
}
