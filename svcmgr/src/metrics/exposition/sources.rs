//! Metrics of server groups that find their servers by themselves.

use std::borrow::Cow;

use libilb::model::ServerGroup;
use libilb::source::SourceDescription;

use super::{Kind, Scrape, Writer};

/// A metric: its name without prefix and `_total`, its kind and words, and where it is.
type Metric = (
    &'static str,
    Kind,
    &'static str,
    fn(&ServerGroup, &SourceDescription) -> u64,
);

const METRICS: &[Metric] = &[
    (
        "answers",
        Kind::Counter,
        "Answers about the servers of the group, since the manager was started.",
        |_, said| said.answers,
    ),
    (
        "failures",
        Kind::Counter,
        "Questions about the servers of the group without an answer of use, since the manager was started.",
        |_, said| said.failures,
    ),
    (
        "up",
        Kind::Gauge,
        "1 while the servers of the group can be followed.",
        |_, said| said.problem.is_empty().into(),
    ),
    (
        "servers",
        Kind::Gauge,
        "Servers of the group that were found.",
        |group, _| {
            let found = group.servers.iter().filter(|server| server.found);
            found.count() as u64
        },
    ),
    (
        "candidates",
        Kind::Gauge,
        "Servers that wait to be approved.",
        |_, said| said.candidates.len() as u64,
    ),
    (
        "last_answer_timestamp_seconds",
        Kind::Gauge,
        "When the last answer came, in Unix time; 0 for none yet.",
        |_, said| said.last_answer / 1000,
    ),
    (
        "last_change_timestamp_seconds",
        Kind::Gauge,
        "When an answer changed the group last, in Unix time; 0 for never.",
        |_, said| said.last_change / 1000,
    ),
];

impl<F: FnMut(Vec<u8>) -> bool> Writer<F> {
    pub(super) fn sources(&mut self, scrape: &Scrape) {
        let groups = scrape.view.state.configuration.groups.iter();
        let said: Vec<(&ServerGroup, SourceDescription)> = groups
            .filter_map(|(key, group)| {
                let source = group.source.as_deref()?;
                let follower = scrape.view.followers.get(key);
                let follower = follower.map(|follower| (**follower).clone());
                Some((
                    group.as_ref(),
                    follower.unwrap_or_default().describe(source),
                ))
            })
            .collect();
        if said.is_empty() {
            return;
        }
        for (name, kind, help, value) in METRICS {
            let name = format!("ilb_source_{name}");
            self.family(&name, *kind, help);
            for (group, said) in &said {
                let labels = [("group", Cow::from(&group.name))];
                self.line(&name, *kind, &labels, value(group, said));
            }
        }
    }
}
