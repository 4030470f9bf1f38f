//! Counters as the manager reports them.
//!
//! `GetStatistics` returns `a(ssa{st})`: rule, server id (empty for the rule as a whole), and counters by name. The entry
//! with both names empty is the node as a whole; it also counts drops by reason, under `drop:<label>`.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::words::{self, Word};

/// What is counted for the node, for each rule, and for each server of a rule. All grow only, but for
/// [`Counter::Connections`], and begin at 0 when the fast path starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// Packets forwarded.
    PacketsForwarded,
    /// Bytes of the forwarded packets, Ethernet header included.
    BytesForwarded,
    /// Packets that were left to the kernel.
    PacketsUnprocessed,
    /// Bytes of these.
    BytesUnprocessed,
    /// Packets dropped, for whatever reason.
    PacketsDropped,
    /// Bytes of these.
    BytesDropped,
    /// ICMP errors carried to the right end.
    IcmpForwarded,
    /// ICMP errors dropped.
    IcmpDropped,
    /// "Fragmentation needed" and "packet too big" among the forwarded ones.
    IcmpTooBigForwarded,
    /// The same among the dropped ones.
    IcmpTooBigDropped,
    /// Packets dropped because there was no room for their connection.
    NoMemoryDropped,
    /// Packets dropped because every NAT port was taken.
    NoPortDropped,
    /// Packets dropped because their new flow was over a limit.
    AdmissionDropped,
    /// Connections begun.
    ConnectionsBegun,
    /// Connections that came to nothing and made way for others.
    ConnectionsReplaced,
    /// Connections that live now.
    Connections,
}

const COUNTERS: &[Word<Counter>] = &[
    (Counter::PacketsForwarded, "packets-forwarded", &[]),
    (Counter::BytesForwarded, "bytes-forwarded", &[]),
    (Counter::PacketsUnprocessed, "packets-unprocessed", &[]),
    (Counter::BytesUnprocessed, "bytes-unprocessed", &[]),
    (Counter::PacketsDropped, "packets-dropped", &[]),
    (Counter::BytesDropped, "bytes-dropped", &[]),
    (Counter::IcmpForwarded, "icmp-forwarded", &[]),
    (Counter::IcmpDropped, "icmp-dropped", &[]),
    (Counter::IcmpTooBigForwarded, "icmp-too-big-forwarded", &[]),
    (Counter::IcmpTooBigDropped, "icmp-too-big-dropped", &[]),
    (Counter::NoMemoryDropped, "no-memory-dropped", &[]),
    (Counter::NoPortDropped, "no-port-dropped", &[]),
    (Counter::AdmissionDropped, "admission-dropped", &[]),
    (Counter::ConnectionsBegun, "connections-new", &[]),
    (Counter::ConnectionsReplaced, "connections-replaced", &[]),
    (Counter::Connections, "connections", &[]),
];

/// What stands before the label of a drop reason in a counter's name.
pub const DROP_PREFIX: &str = "drop:";

impl Counter {
    /// Every counter.
    pub fn all() -> impl Iterator<Item = Counter> {
        COUNTERS.iter().map(|&(counter, _, _)| counter)
    }

    /// Its name on D-Bus.
    pub fn name(self) -> &'static str {
        words::name(COUNTERS, self)
    }
}

/// The name under which the drops for one reason are counted.
pub fn drop_counter(label: &str) -> String {
    format!("{DROP_PREFIX}{label}")
}

/// One element of what `GetStatistics` returns.
pub type RawEntry = (String, String, HashMap<String, u64>);

/// The counters of the node, of a rule, or of a server in a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Rule name, empty for the node.
    pub rule: String,
    /// Server id, empty for the rule or node as a whole.
    pub server: String,
    /// By name. Names that this version does not know are kept.
    pub counters: BTreeMap<String, u64>,
}

impl Entry {
    /// The value of a counter, 0 if it was not reported.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters.get(counter.name()).copied().unwrap_or(0)
    }

    /// Sets a counter.
    pub fn set(&mut self, counter: Counter, value: u64) {
        self.counters.insert(counter.name().to_string(), value);
    }

    /// Label and count of every drop reason.
    pub fn drops(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counters
            .iter()
            .filter_map(|(name, &count)| Some((name.strip_prefix(DROP_PREFIX)?, count)))
    }
}

/// All counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// In the manager's order: the node first, each rule before its servers.
    pub entries: Vec<Entry>,
}

impl Statistics {
    /// The counters of the node, a rule (`server` empty), or a server of a rule. Names in any case.
    pub fn get(&self, rule: &str, server: &str) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|e| e.rule.eq_ignore_ascii_case(rule) && e.server.eq_ignore_ascii_case(server))
    }

    /// As D-Bus carries them.
    pub fn to_raw(&self) -> Vec<RawEntry> {
        self.entries
            .iter()
            .map(|e| {
                (
                    e.rule.clone(),
                    e.server.clone(),
                    e.counters.clone().into_iter().collect(),
                )
            })
            .collect()
    }
}

impl From<Vec<RawEntry>> for Statistics {
    fn from(raw: Vec<RawEntry>) -> Statistics {
        Statistics {
            entries: raw
                .into_iter()
                .map(|(rule, server, counters)| Entry {
                    rule,
                    server,
                    counters: counters.into_iter().collect(),
                })
                .collect(),
        }
    }
}
