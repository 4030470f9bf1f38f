//! The pair. Without one there is nothing to say.

use std::borrow::Cow;

use libilb::pair::{PairDescription, Step};

use super::{Kind, Scrape, Writer};

/// A family, its words, and its value.
type Column = (&'static str, &'static str, fn(&PairDescription) -> u64);

const COLUMNS: &[Column] = &[
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
];

impl<F: FnMut(Vec<u8>) -> bool> Writer<F> {
    /// Everything about the pair.
    pub(super) fn pair(&mut self, scrape: &Scrape) {
        let Some(pair) = &scrape.numbers.pair else {
            return;
        };
        for (name, help, value) in COLUMNS {
            self.family(name, Kind::Gauge, help);
            self.line(name, Kind::Gauge, &[], value(pair));
        }
        let name = "ilb_pair_refused";
        self.family(
            name,
            Kind::Counter,
            "Connections to the port of the pair that were refused, by reason.",
        );
        for (reason, count) in &pair.refused {
            let labels = [("reason", Cow::from(reason.clone()))];
            self.line(name, Kind::Counter, &labels, *count);
        }
    }
}
