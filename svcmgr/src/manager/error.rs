//! Why the manager refused or failed.

use libilb::apply::MAX_DOCUMENT;
use libilb::document::Mistakes;
use libilb::{ErrorKind, ModelError};

use crate::addresses::AddressError;

/// See the module. The text is what a person reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagerError {
    /// What was asked for is wrong in itself or does not fit the configuration.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A document with everything that is wrong with it.
    #[error("{0}")]
    Document(Mistakes),
    /// A document that nobody should have to read.
    #[error("the document has {0} bytes: at most {MAX_DOCUMENT} are read")]
    TooLarge(usize),
    /// Another change waits for its confirmation.
    #[error(
        "a change of {author} waits for its confirmation and will be taken back in {left} s: 'lbadm confirm' keeps it, \
         'lbadm revert' takes it back now; until then nothing else can be changed"
    )]
    Waiting {
        /// Who made it.
        author: String,
        /// Seconds that are left.
        left: u64,
    },
    /// The other node of the pair was first, again and again.
    #[error(
        "the other node of the pair changes the configuration at the same time, nothing was changed: try again"
    )]
    Overtaken,
    /// The other node must not change now.
    #[error("nothing was changed: on the other node of the pair {0}")]
    PeerForbids(String),
    /// This node lacks what the other one has.
    #[error(
        "nothing was changed: this node lacks {changes} that the other node of the pair has{why}; make the change there, or \
         see 'lbadm show-pair'"
    )]
    PeerAhead {
        /// How many changes, in words.
        changes: String,
        /// Why, in words that go on; may be empty.
        why: String,
    },
    /// The other node has it, and this one could not keep it.
    #[error(
        "{0}; the other node of the pair has the change, and this one gets it when it can be stored"
    )]
    OnlyThere(Box<ManagerError>),
    /// Nothing can be stored.
    #[error("nothing can be changed, the manager is degraded: {0}")]
    Degraded(String),
    /// The fast path does not take it.
    #[error("the fast path refused the change, nothing was changed: {0}")]
    FastpathRejected(String),
    /// The fast path cannot be asked, or does not understand the question.
    #[error("the fast path cannot say: {0}")]
    Fastpath(String),
    /// An address could not be put on its interface.
    #[error("{0}; nothing was changed")]
    Address(AddressError),
    /// It is about the pair.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// There is no way back to it.
    #[error(
        "generation {generation} {problem}: 'lbadm history' lists those that one can go back to"
    )]
    Generation {
        /// Which.
        generation: u64,
        /// What about it.
        problem: String,
    },
    /// The caller may not.
    #[error(
        "user {uid} may not {what}: {reason}; run it as root, for example with sudo, or have an administrator allow the \
         polkit action {action}"
    )]
    NotAuthorized {
        /// Number of the caller's user.
        uid: u32,
        /// What it wanted, after `may not`.
        what: &'static str,
        /// Name of the action in polkit's rules.
        action: &'static str,
        /// Why not.
        reason: String,
    },
    /// The bus does not say who the caller is.
    #[error("cannot find out who asks, so nothing was changed: {0}")]
    UnknownCaller(String),
    /// The manager is on its way out.
    #[error("the manager is stopping: try again when it has started")]
    Stopping,
    /// Something that never should happen.
    #[error("{0}")]
    Internal(String),
}

/// What cannot be done about the pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// A value that is none.
    #[error("{field} '{value}' {problem}: {allowed}")]
    Invalid {
        /// What the value was given for.
        field: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it, beginning with a verb.
        problem: &'static str,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A token that is none. The text is not repeated.
    #[error("token: {0}")]
    Token(String),
    /// There is a pair.
    #[error("this node is in a pair already, with {0}: 'lbadm pair leave' ends that")]
    Paired(String),
    /// There is none.
    #[error("this node is in no pair: 'lbadm help pair' shows how to make one")]
    NotPaired,
    /// Something would go.
    #[error(
        "this node has a configuration of its own ({0}), which gives way to that of the other node: \
         'lbadm pair join --replace' says that it may go; 'lbadm rollback' brings it back after 'lbadm pair leave'"
    )]
    Occupied(String),
    /// The port cannot be had.
    #[error("cannot listen on {whom}: {why}")]
    Listen {
        /// Address and port.
        whom: String,
        /// Why not.
        why: String,
    },
    /// The other node does not take it.
    #[error("cannot join the pair: {0}; nothing was changed")]
    Join(String),
    /// There is nothing to give.
    #[error(
        "this node has no addresses by VRRP, so it has none to give: run 'lbadm failover' on the node that is active \
         ('lbadm show-pair')"
    )]
    NotActive,
    /// It is being done.
    #[error("the addresses of this node are being given to the other one already")]
    Giving,
    /// The other node cannot take over.
    #[error(
        "the other node cannot take over: {0}; nothing was changed, 'lbadm failover --force' does it all the same"
    )]
    NotReady(String),
    /// It did not.
    #[error(
        "the other node did not take the addresses within {0} s, so this node takes them back: look at 'lbadm show-vrrp' there"
    )]
    NotTaken(u64),
    /// The disk.
    #[error("{0}; nothing was changed")]
    Keep(String),
}

impl PairError {
    const fn kind(&self) -> ErrorKind {
        match self {
            PairError::Invalid { .. } | PairError::Token(_) => ErrorKind::InvalidArgument,
            PairError::Paired(_)
            | PairError::NotPaired
            | PairError::Occupied(_)
            | PairError::NotActive
            | PairError::Giving
            | PairError::NotReady(_) => ErrorKind::Conflict,
            PairError::Listen { .. }
            | PairError::Join(_)
            | PairError::NotTaken(_)
            | PairError::Keep(_) => ErrorKind::Failed,
        }
    }
}

impl ManagerError {
    /// The class, which decides the D-Bus error's name and the exit code of `lbadm`.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ManagerError::Model(error) => error.kind(),
            ManagerError::Generation { .. } => ErrorKind::NotFound,
            ManagerError::Pair(error) => error.kind(),
            ManagerError::Document(_) | ManagerError::TooLarge(_) => ErrorKind::InvalidArgument,
            ManagerError::Waiting { .. }
            | ManagerError::Overtaken
            | ManagerError::PeerForbids(_)
            | ManagerError::PeerAhead { .. } => ErrorKind::Conflict,
            ManagerError::OnlyThere(error) => error.kind(),
            ManagerError::Degraded(_) => ErrorKind::Degraded,
            ManagerError::FastpathRejected(_) => ErrorKind::FastpathRejected,
            ManagerError::NotAuthorized { .. } | ManagerError::UnknownCaller(_) => {
                ErrorKind::NotAuthorized
            }
            ManagerError::Address(_)
            | ManagerError::Fastpath(_)
            | ManagerError::Stopping
            | ManagerError::Internal(_) => ErrorKind::Failed,
        }
    }
}
