//! How a server is chosen for a new connection: ilbadm's algorithms, and those of LVS under LVS's names.

use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::words::{self, Word};

/// How a server is chosen for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Each server in turn, whatever its weight.
    #[serde(rename = "roundrobin")]
    RoundRobin,
    /// Each server in turn, as often as its weight says.
    #[serde(rename = "wrr")]
    WeightedRoundRobin,
    /// The server with the fewest connections.
    #[serde(rename = "lc")]
    LeastConnection,
    /// The server with the fewest connections for its weight.
    #[serde(rename = "wlc")]
    WeightedLeastConnection,
    /// The server that the VIP had, unless it is overloaded.
    #[serde(rename = "lblc")]
    LocalityLeastConnection,
    /// The same with a set of servers for each VIP.
    #[serde(rename = "lblcr")]
    LocalityLeastConnectionReplication,
    /// By the VIP.
    #[serde(rename = "dh")]
    DestinationHash,
    /// By the client's address.
    #[serde(rename = "sh")]
    SourceHash,
    /// The server with the shortest expected delay.
    #[serde(rename = "sed")]
    ShortestExpectedDelay,
    /// An idle server if there is one, otherwise the shortest expected delay.
    #[serde(rename = "nq")]
    NeverQueue,
    /// The server with the highest weight.
    #[serde(rename = "fo")]
    Failover,
    /// The server with the highest weight whose connections are fewer than its weight.
    #[serde(rename = "ovf")]
    Overflow,
    /// By the client's address, with a Maglev table.
    #[serde(rename = "mh")]
    Maglev,
    /// The less loaded of two that were drawn by weight.
    #[serde(rename = "twos")]
    TwoChoices,
    /// By the client's address.
    HashIp,
    /// By the client's address and port.
    HashIpPort,
    /// By the client's address and the VIP.
    HashIpVip,
}

pub(crate) const ALGORITHMS: &[Word<Algorithm>] = &[
    (Algorithm::RoundRobin, "roundrobin", &["rr"]),
    (Algorithm::WeightedRoundRobin, "wrr", &[]),
    (Algorithm::LeastConnection, "lc", &[]),
    (Algorithm::WeightedLeastConnection, "wlc", &[]),
    (Algorithm::LocalityLeastConnection, "lblc", &[]),
    (Algorithm::LocalityLeastConnectionReplication, "lblcr", &[]),
    (Algorithm::DestinationHash, "dh", &[]),
    (Algorithm::SourceHash, "sh", &[]),
    (Algorithm::ShortestExpectedDelay, "sed", &[]),
    (Algorithm::NeverQueue, "nq", &[]),
    (Algorithm::Failover, "fo", &[]),
    (Algorithm::Overflow, "ovf", &[]),
    (Algorithm::Maglev, "mh", &[]),
    (Algorithm::TwoChoices, "twos", &[]),
    (Algorithm::HashIp, "hash-ip", &["hip"]),
    (Algorithm::HashIpPort, "hash-ip-port", &["hipp"]),
    (Algorithm::HashIpVip, "hash-ip-vip", &["hipv"]),
];

impl Algorithm {
    /// Whether a server's part of new connections is its part of the weights: not where all have the same, and not where a
    /// weight is a rank or a limit.
    pub const fn shares_by_weight(self) -> bool {
        !matches!(
            self,
            Algorithm::RoundRobin
                | Algorithm::LeastConnection
                | Algorithm::LocalityLeastConnection
                | Algorithm::LocalityLeastConnectionReplication
                | Algorithm::Failover
                | Algorithm::Overflow
        )
    }
}

/// Options of an algorithm, for those that have them (sh and mh).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Flags {
    /// When the server that the hash names takes no connections, another is taken instead of none.
    pub fallback: bool,
    /// The client's port is hashed too.
    pub port: bool,
}

impl Flags {
    /// Whether none is set, as with most rules.
    pub fn is_none(&self) -> bool {
        *self == Flags::default()
    }

    /// The flags as LVS names them, separated by commas; empty for none.
    pub fn words(self, algorithm: Algorithm) -> String {
        let set: Vec<&str> = FLAGS
            .iter()
            .filter(|((of, flag), ..)| *of == algorithm && flag.is_set(self))
            .map(|&(_, name, _)| name)
            .collect();
        set.join(",")
    }

    /// Reads flags for an algorithm; the single word `none` clears them all.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`]; [`ModelError::Invalid`] for a flag of another algorithm.
    pub fn parse<S: AsRef<str>>(algorithm: Algorithm, texts: &[S]) -> Result<Flags, ModelError> {
        let mut flags = Flags::default();
        if let [only] = texts
            && only.as_ref().eq_ignore_ascii_case("none")
        {
            return Ok(flags);
        }
        for text in texts {
            let text = text.as_ref();
            let (of, flag) = words::parse(FLAGS, "flag", text)?;
            if of != algorithm {
                return Err(ModelError::invalid(
                    "flag",
                    text,
                    format!("is given, but lbalg is {algorithm}"),
                    match algorithm {
                        Algorithm::SourceHash => "sh has sh-fallback and sh-port".to_string(),
                        Algorithm::Maglev => "mh has mh-fallback and mh-port".to_string(),
                        _ => format!("it belongs to lbalg={of}; {algorithm} has no flags"),
                    },
                ));
            }
            match flag {
                Flag::Fallback => flags.fallback = true,
                Flag::Port => flags.port = true,
            }
        }
        Ok(flags)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    Fallback,
    Port,
}

impl Flag {
    fn is_set(self, flags: Flags) -> bool {
        match self {
            Flag::Fallback => flags.fallback,
            Flag::Port => flags.port,
        }
    }
}

const FLAGS: &[Word<(Algorithm, Flag)>] = &[
    ((Algorithm::SourceHash, Flag::Fallback), "sh-fallback", &[]),
    ((Algorithm::SourceHash, Flag::Port), "sh-port", &[]),
    ((Algorithm::Maglev, Flag::Fallback), "mh-fallback", &[]),
    ((Algorithm::Maglev, Flag::Port), "mh-port", &[]),
];

/// Checks that the algorithm has the flags that are set.
///
/// # Errors
/// [`ModelError::Invalid`].
pub(crate) fn check(algorithm: Algorithm, flags: Flags) -> Result<(), ModelError> {
    if flags.is_none() || matches!(algorithm, Algorithm::SourceHash | Algorithm::Maglev) {
        return Ok(());
    }
    Err(ModelError::invalid(
        "flags",
        algorithm.name(),
        "has no flags",
        "only sh and mh have",
    ))
}
