//! VRRP instances. Without any there is nothing to say.

use std::borrow::Cow;

use ilb_vrrp::Report;
use libilb::vrrp::VrrpState;

use super::{Kind, Scrape, Writer};

/// A family, its words, and its value of an instance.
type Column = (&'static str, Kind, &'static str, fn(&Report) -> u64);

const COLUMNS: &[Column] = &[
    (
        "ilb_vrrp_priority",
        Kind::Gauge,
        "Priority by which the instance takes part; 0 when it does not.",
        |report| report.status.priority.into(),
    ),
    (
        "ilb_vrrp_transitions",
        Kind::Counter,
        "Changes of state.",
        |report| report.counters.transitions,
    ),
    (
        "ilb_vrrp_became_active",
        Kind::Counter,
        "Times that this node took the addresses.",
        |report| report.counters.became_active,
    ),
    (
        "ilb_vrrp_sent",
        Kind::Counter,
        "Advertisements sent.",
        |report| report.counters.sent,
    ),
    (
        "ilb_vrrp_send_errors",
        Kind::Counter,
        "Advertisements that could not be sent.",
        |report| report.counters.send_errors,
    ),
    (
        "ilb_vrrp_received",
        Kind::Counter,
        "Advertisements received and believed.",
        |report| report.counters.received,
    ),
    (
        "ilb_vrrp_other_addresses",
        Kind::Counter,
        "Advertisements that were believed and have other addresses.",
        |report| report.counters.other_addresses,
    ),
];

impl<F: FnMut(Vec<u8>) -> bool> Writer<F> {
    /// Everything about all instances.
    pub(super) fn vrrp(&mut self, scrape: &Scrape) {
        let reports = &scrape.numbers.vrrp;
        if reports.is_empty() {
            return;
        }
        let instance = |report: &Report| ("vrrp", Cow::from(report.name.clone()));
        let name = "ilb_vrrp_state";
        self.family(
            name,
            Kind::Gauge,
            "1 for the state of the instance, 0 for the others.",
        );
        for report in reports {
            for state in VrrpState::ALL {
                let labels = [instance(report), ("state", Cow::from(state.word()))];
                let is = u64::from(report.status.state == state);
                self.line(name, Kind::Gauge, &labels, is);
            }
        }
        for (name, kind, help, value) in COLUMNS {
            self.family(name, *kind, help);
            for report in reports {
                self.line(name, *kind, &[instance(report)], value(report));
            }
        }
        let name = "ilb_vrrp_refused";
        self.family(
            name,
            Kind::Counter,
            "Packets that were not believed, by reason.",
        );
        for report in reports {
            for (reason, count) in &report.counters.refused {
                let labels = [instance(report), ("reason", Cow::from(reason.clone()))];
                self.line(name, Kind::Counter, &labels, *count);
            }
        }
    }
}
