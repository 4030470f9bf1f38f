//! A rule, compiled, with the addresses that it is reached by.

use std::sync::Arc;

use crate::address::Addr;
use crate::admission::Admission;
use crate::counters::Account;
use crate::persistence::Renewed;
use crate::pool::Pool;
use crate::select::{Selector, Turns};
use crate::spec::{
    Orphans, Persistence, PortRange, Prefix, Protocol, RuleId, Synchronise, Timeouts, Topology,
};

/// A VIP of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: Addr,
    /// The protocol.
    pub protocol: Protocol,
    /// The ports.
    pub ports: PortRange,
}

/// A rule, compiled.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its id.
    pub id: RuleId,
    /// Its name.
    pub name: String,
    /// Whether it takes new connections.
    pub accepting: bool,
    /// How packets reach the servers.
    pub topology: Topology,
    /// Where clients connect to.
    pub vips: Box<[Vip]>,
    /// Clients that the rule is for; empty for all.
    pub clients: Box<[Prefix]>,
    /// Source addresses towards the servers.
    pub proxy_src: Box<[Addr]>,
    /// New flows a second; 0 is no limit.
    pub new_flows_per_second: u32,
    /// Those of the current second.
    pub(crate) admission: Arc<Admission>,
    /// Whether a client comes back to its server.
    pub persistence: Option<Persistence>,
    /// When persistence was last looked after.
    pub(crate) renewed: Arc<Renewed>,
    /// Whether every datagram is a choice of its own.
    pub one_packet: bool,
    /// What becomes of connections whose server is dead or gone.
    pub orphans: Orphans,
    /// Whether connections follow to the peer.
    pub sync: Synchronise,
    /// Idle times.
    pub timeouts: Timeouts,
    /// Counters for what concerns no server.
    pub account: Arc<Account>,
    /// Versions of its candidates, the present one first.
    pub pool: Pool,
    /// All its targets, as indices into [`super::Snapshot::targets`].
    pub(super) targets: Box<[u32]>,
    /// Targets that take new connections, as indices into [`super::Snapshot::targets`].
    pub(super) candidates: Box<[u32]>,
    pub(super) selector: Option<Arc<Selector>>,
    pub(super) turns: Arc<Turns>,
}

impl Rule {
    /// All its targets, as indices into [`super::Snapshot::targets`].
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// What chooses its servers; None if there is none that takes new connections.
    pub fn selector(&self) -> Option<&Arc<Selector>> {
        self.selector.as_ref()
    }

    /// Whether it takes the same packets as another.
    pub(super) fn accepts_as(&self, other: &Rule) -> bool {
        self.accepting == other.accepting
            && self.vips == other.vips
            && self.clients == other.clients
    }

    /// Targets that take new connections, in the order of the selector's candidates.
    pub fn candidates(&self) -> &[u32] {
        &self.candidates
    }
}
