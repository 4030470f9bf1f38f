//! What the manager is asked, and settings that it can be told anew.

use std::sync::Arc;

use ilb_forwarder::spec::Limits;
use ilb_node::control::{Request, Response};
use ilb_pair::Identity;
use libilb::apply::ApplyOptions;
use libilb::describe::Description;
use libilb::document;
use libilb::history::Report;
use libilb::pair::{Invitation, PairDescription};
use libilb::stats;
use tokio::sync::oneshot;

use super::change::Change;
use super::error::ManagerError;
use super::statistics::Numbers;
use crate::author::Author;
use crate::pair::Place;
use crate::pair::keep::Membership;

/// What can be asked of the manager.
#[derive(Debug)]
pub enum Command {
    /// Do this, durably.
    Change {
        /// Who asks for it.
        author: Author,
        /// What.
        change: Change,
        /// Names or ids of what was changed.
        reply: oneshot::Sender<Result<Vec<String>, ManagerError>>,
    },
    /// Make a document the configuration, durably.
    Apply {
        /// Who asks for it.
        author: Author,
        /// Its text.
        document: String,
        /// How.
        options: ApplyOptions,
        /// What was changed.
        reply: oneshot::Sender<Result<document::Report, ManagerError>>,
    },
    /// Keep the change that waits for its confirmation.
    Confirm {
        /// Who asks for it.
        author: Author,
        /// Whether one did.
        reply: oneshot::Sender<Result<bool, ManagerError>>,
    },
    /// Take back the change that waits for its confirmation.
    Revert {
        /// Who asks for it.
        author: Author,
        /// Whether one did.
        reply: oneshot::Sender<Result<bool, ManagerError>>,
    },
    /// Counters of this moment.
    Statistics {
        /// All of them.
        reply: oneshot::Sender<stats::Statistics>,
    },
    /// All sums of this moment, for machines.
    Numbers {
        /// All of them.
        reply: oneshot::Sender<Numbers>,
    },
    /// Configuration and state of this moment.
    Describe {
        /// All of it.
        reply: oneshot::Sender<Description>,
    },
    /// Go back to the configuration of this generation, durably.
    Rollback {
        /// Who asks for it; `None` to see what would change.
        author: Option<Author>,
        /// The generation.
        generation: u64,
        /// What is different, or would be.
        reply: oneshot::Sender<Result<Report, ManagerError>>,
    },
    /// Say that you are there, and go by these settings from now on, if there are any.
    Attend {
        /// The new settings.
        settings: Option<Live>,
        /// Sent when they are in force.
        reply: oneshot::Sender<()>,
    },
    /// Something about the pair.
    Pair(PairCommand),
    /// Something that only the fast path knows.
    Ask {
        /// The question.
        request: Request,
        /// Its answer.
        reply: oneshot::Sender<Result<Response, ManagerError>>,
    },
}

/// What can be asked about the pair.
#[derive(Debug)]
pub enum PairCommand {
    /// How it stands.
    Describe {
        /// All of it.
        reply: oneshot::Sender<PairDescription>,
    },
    /// Make this node the first of a pair.
    Create {
        /// Who asks for it.
        author: Author,
        /// Where to listen.
        place: Place,
        /// What the other node needs.
        reply: oneshot::Sender<Result<Invitation, ManagerError>>,
    },
    /// Say whether this node may join a pair.
    Prepare {
        /// Whether what is configured may go.
        replace: bool,
        /// As whom.
        reply: oneshot::Sender<Result<Arc<Identity>, ManagerError>>,
    },
    /// Be the second node of a pair.
    Join {
        /// Who asks for it.
        author: Author,
        /// Which.
        membership: Membership,
        /// Sent when it is durable.
        reply: oneshot::Sender<Result<(), ManagerError>>,
    },
    /// The other node keeps it, too: meet it.
    Meet {
        /// When that is begun.
        reply: oneshot::Sender<()>,
    },
    /// End the pair for this node.
    Leave {
        /// Who asks for it.
        author: Author,
        /// Whether there was one.
        reply: oneshot::Sender<Result<bool, ManagerError>>,
    },
    /// Take note of what happened.
    Acknowledge {
        /// Who does.
        author: Author,
        /// How much.
        reply: oneshot::Sender<Result<u32, ManagerError>>,
    },
    /// Give the addresses of this node to the other one.
    Failover {
        /// Who asks for it.
        author: Author,
        /// Whatever is against it.
        force: bool,
        /// The instances, when the other node has their addresses.
        reply: oneshot::Sender<Result<Vec<String>, ManagerError>>,
    },
    /// Take this node out of service, or in again.
    Maintenance {
        /// Who asks for it.
        author: Author,
        /// Which of both.
        on: bool,
        /// Whether it was otherwise.
        reply: oneshot::Sender<Result<bool, ManagerError>>,
    },
}

/// Settings of the node that may change while the manager runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Whether addresses are managed at all.
    pub manage_addresses: bool,
    /// What the node as a whole lets in.
    pub limits: Limits,
}
