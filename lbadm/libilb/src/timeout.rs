//! Idle times after which a connection is forgotten, by its protocol and state.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::words::{self, Word};

/// A state that has an idle time of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Timeout {
    /// An open TCP connection.
    TcpEstablished,
    /// A TCP connection whose handshake is not finished.
    SynReceived,
    /// A TCP connection that the client has closed.
    FinWait,
    /// A TCP connection that both have closed, the client first.
    TimeWait,
    /// A TCP connection that was reset.
    Close,
    /// A TCP connection that the server has closed.
    CloseWait,
    /// A TCP connection that both have closed, the server first.
    LastAck,
    /// A UDP flow.
    Udp,
    /// An SCTP association.
    Sctp,
    /// A series of ICMP queries.
    Icmp,
    /// A flow of any other protocol.
    Other,
}

/// Idle times that were set, in seconds, each at least 1. The others have their defaults.
pub type Timeouts = BTreeMap<Timeout, u32>;

/// Every state with its word and default in seconds: those of the kernel's IPVS.
const ALL: &[(Timeout, u32)] = &[
    (Timeout::TcpEstablished, 900),
    (Timeout::SynReceived, 60),
    (Timeout::FinWait, 120),
    (Timeout::TimeWait, 120),
    (Timeout::Close, 10),
    (Timeout::CloseWait, 60),
    (Timeout::LastAck, 30),
    (Timeout::Udp, 300),
    (Timeout::Sctp, 900),
    (Timeout::Icmp, 30),
    (Timeout::Other, 300),
];

/// The words for them.
pub const TIMEOUTS: &[Word<Timeout>] = &[
    (Timeout::TcpEstablished, "tcp-established", &["established"]),
    (Timeout::SynReceived, "syn-received", &["tcp-syn-received"]),
    (Timeout::FinWait, "fin-wait", &["tcp-fin-wait"]),
    (Timeout::TimeWait, "time-wait", &["tcp-time-wait"]),
    (Timeout::Close, "close", &["tcp-close"]),
    (Timeout::CloseWait, "close-wait", &["tcp-close-wait"]),
    (Timeout::LastAck, "last-ack", &["tcp-last-ack"]),
    (Timeout::Udp, "udp", &[]),
    (Timeout::Sctp, "sctp", &[]),
    (Timeout::Icmp, "icmp", &[]),
    (Timeout::Other, "other", &[]),
];

impl Timeout {
    /// All of them, in the order in which a connection meets them.
    pub fn all() -> impl Iterator<Item = Timeout> {
        ALL.iter().map(|&(timeout, _)| timeout)
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        words::name(TIMEOUTS, self)
    }

    /// Reads a word or its alias, in any case.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`].
    pub fn parse(text: &str) -> Result<Timeout, ModelError> {
        words::parse(TIMEOUTS, "timeout", text)
    }

    /// Seconds if nothing else was set.
    pub fn default_seconds(self) -> u32 {
        ALL.iter()
            .find(|&&(timeout, _)| timeout == self)
            .map_or(300, |&(_, seconds)| seconds)
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
