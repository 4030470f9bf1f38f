//! What the manager shows: the state that everybody may read at any time without asking it.

use std::sync::Arc;

use libilb::describe;
use libilb::map::Map;
use libilb::vrrp::VrrpStatus;

use super::following::FollowStatus;
use crate::checks::book::Book;
use crate::sources::follow::Follower;
use crate::standing::Standings;
use crate::state::State;
use crate::vigour::Vigours;

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
    /// What the fast path is to believe of servers.
    pub vigours: Vigours,
    /// How rules stand with them.
    pub standings: Standings,
    /// Where VRRP instances stand, by [`libilb::model::key`] of their names.
    pub vrrp: Map<String, VrrpStatus>,
    /// What is known of the sources of server groups, by the keys of these.
    pub followers: Map<String, Arc<Follower>>,
    /// How the configuration stands to that of the other node of the pair; nothing without one.
    pub following: Option<FollowStatus>,
}

impl View {
    /// Whether the servers of a rule have its quorum, by what health checks have found: what whoever decides between
    /// nodes, such as VRRP, goes by. Hysteresis is in it, so that it may be followed as it is. `None` for a rule that does
    /// not exist or is not enabled.
    pub fn has_quorum(&self, rule: &str) -> Option<bool> {
        let rule = self.state.configuration.rule(rule)?;
        Some(self.standings.of(rule.number)?.quorum)
    }
}
