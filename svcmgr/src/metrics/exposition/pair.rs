//! The pair. Without one there is nothing to say.

use std::borrow::Cow;
use std::collections::BTreeMap;

use libilb::pair::{PairDescription, Step};

use super::{Kind, Scrape, Writer};

/// A family, its words, and its value.
type Column = (&'static str, &'static str, fn(&PairDescription) -> u64);

const GAUGES: &[Column] = &[
    (
        "ilb_pair_link_up",
        "1 while both managers hear each other.",
        |pair| pair.link.up.into(),
    ),
    (
        "ilb_pair_active",
        "1 while this node has addresses by VRRP.",
        |pair| pair.here.active.into(),
    ),
    (
        "ilb_pair_maintenance",
        "1 while this node is in maintenance.",
        |pair| pair.here.maintenance.into(),
    ),
    (
        "ilb_pair_in_step",
        "1 while both nodes have the same configuration, as far as they hear each other.",
        |pair| (pair.configuration.step == Step::InStep).into(),
    ),
    (
        "ilb_pair_changes_missing",
        "Changes that the node that is behind has not got yet.",
        |pair| pair.configuration.changes,
    ),
    (
        "ilb_pair_notices",
        "What happened to the pair and nobody has acknowledged.",
        |pair| pair.notices.len() as u64,
    ),
    (
        "ilb_pair_changes_behind",
        "Changes of the other node that this one has not got yet.",
        |pair| match pair.configuration.step {
            Step::Behind => pair.configuration.changes,
            Step::Unknown | Step::InStep | Step::Ahead | Step::Forked => 0,
        },
    ),
    (
        "ilb_pair_peer_left",
        "1 after the other node has left the pair, until somebody takes note.",
        |pair| pair.left.is_some().into(),
    ),
];

const COUNTERS: &[Column] = &[
    (
        "ilb_pair_link_lost",
        "Times that the managers did not hear each other any more.",
        |pair| pair.link.lost,
    ),
    (
        "ilb_pair_changes_taken",
        "Changes of the other node that were made here, one by one.",
        |pair| pair.following.taken,
    ),
];

/// A family with one label, its words, the label, and its values.
type Labelled = (
    &'static str,
    &'static str,
    &'static str,
    fn(&PairDescription) -> BTreeMap<String, u64>,
);

const LABELLED: &[Labelled] = &[
    (
        "ilb_pair_refused",
        "Connections to the port of the pair that were refused, by reason.",
        "reason",
        |pair| pair.refused.clone(),
    ),
    (
        "ilb_pair_offers",
        "Changes of this node that the other one was asked to take, by what became of it.",
        "outcome",
        |pair| pair.following.offers.clone(),
    ),
    (
        "ilb_pair_changes_refused",
        "What this node did not take of what the other one told, by reason.",
        "reason",
        |pair| pair.following.refused.clone(),
    ),
    (
        "ilb_pair_whole_transfers",
        "Whole configurations that went from node to node, by direction.",
        "direction",
        |pair| {
            let counts = &pair.following;
            [
                ("received", counts.wholes_taken),
                ("sent", counts.wholes_given),
            ]
            .map(|(name, count)| (name.to_owned(), count))
            .into()
        },
    ),
    (
        "ilb_pair_forks",
        "Conflicting histories, by what became of this node's.",
        "outcome",
        |pair| {
            let counts = &pair.following;
            [("won", counts.forks_won), ("lost", counts.forks_lost)]
                .map(|(name, count)| (name.to_owned(), count))
                .into()
        },
    ),
];

impl<F: FnMut(Vec<u8>) -> bool> Writer<F> {
    /// Everything about the pair.
    pub(super) fn pair(&mut self, scrape: &Scrape) {
        let Some(pair) = &scrape.numbers.pair else {
            return;
        };
        for (columns, kind) in [(GAUGES, Kind::Gauge), (COUNTERS, Kind::Counter)] {
            for (name, help, value) in columns {
                self.family(name, kind, help);
                self.line(name, kind, &[], value(pair));
            }
        }
        for (name, help, label, values) in LABELLED {
            self.family(name, Kind::Counter, help);
            for (value, count) in values(pair) {
                self.line(name, Kind::Counter, &[(*label, Cow::from(value))], count);
            }
        }
    }
}
