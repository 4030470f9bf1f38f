//! Counters that go on when the fast path begins anew, and their names on D-Bus.

use std::collections::{BTreeMap, HashMap};

use ilb_forwarder::spec::{RuleId, ServerId};
use ilb_node::control::{Counters, Statistics};
use libilb::model::Configuration;
use libilb::stats::{self, Counter, Entry, drop_counter};

use crate::retired::Retired;

/// Whose counters: a rule with server 0, or a server within a rule.
type Place = (RuleId, ServerId);

/// The last that each fast path said, added up since the manager started.
#[derive(Debug, Default)]
pub struct Ledger {
    start_id: u64,
    /// Of the present fast path.
    now: Page,
    /// Of those before it, as of the last time that they were asked.
    before: Page,
}

#[derive(Debug, Default)]
struct Page {
    totals: Counters,
    drops: BTreeMap<String, u64>,
    places: BTreeMap<Place, Counters>,
}

impl Ledger {
    /// Takes what the fast path counted.
    pub fn enter(&mut self, statistics: &Statistics) {
        if statistics.start_id != self.start_id {
            self.close_page();
            self.start_id = statistics.start_id;
        }
        let mut places = BTreeMap::new();
        for rule in &statistics.rules {
            places.insert((rule.id, 0), rule.counters);
            for server in &rule.servers {
                places.insert((rule.id, server.id), server.counters);
            }
        }
        self.now = Page {
            totals: statistics.totals,
            drops: statistics.drops.clone(),
            places,
        };
    }

    /// The fast path is gone: what it had open, it has no longer.
    pub fn close_page(&mut self) {
        let page = std::mem::take(&mut self.now);
        self.before.totals.add(&page.totals.without_gauges());
        for (label, count) in page.drops {
            *self.before.drops.entry(label).or_default() += count;
        }
        for (place, counters) in page.places {
            let sum = self.before.places.entry(place).or_default();
            sum.add(&counters.without_gauges());
        }
        self.start_id = 0;
    }

    /// Forgets rules that are gone for good.
    pub fn prune(&mut self, configuration: &Configuration, retired: &Retired) {
        let known: std::collections::BTreeSet<RuleId> = configuration
            .rules
            .values()
            .map(|rule| rule.number)
            .chain(retired.rules.keys().copied())
            .collect();
        for page in [&mut self.now, &mut self.before] {
            page.places.retain(|(rule, _), _| known.contains(rule));
        }
    }

    /// The counters of a rule (server 0) or of a server within a rule.
    pub fn counters(&self, rule: RuleId, server: ServerId) -> Counters {
        let mut sum = self
            .before
            .places
            .get(&(rule, server))
            .copied()
            .unwrap_or_default();
        if let Some(now) = self.now.places.get(&(rule, server)) {
            sum.add(now);
        }
        sum
    }

    /// Live connections of every server that has any, over all rules.
    pub fn connections_of_servers(&self) -> HashMap<ServerId, u64> {
        let mut sums = HashMap::new();
        for ((_, server), counters) in &self.now.places {
            if *server != 0 && counters.connections_total > 0 {
                *sums.entry(*server).or_default() += counters.connections_total;
            }
        }
        sums
    }

    /// What `GetStatistics` says: the node, then each configured rule and behind it its servers.
    pub fn report(&self, configuration: &Configuration) -> stats::Statistics {
        let mut totals = self.before.totals;
        totals.add(&self.now.totals);
        let mut node = entry("", "", &totals);
        for page in [&self.before, &self.now] {
            for (label, count) in &page.drops {
                *node.counters.entry(drop_counter(label)).or_default() += count;
            }
        }
        let mut entries = vec![node];
        for rule in configuration.rules.values() {
            entries.push(entry(&rule.name, "", &self.counters(rule.number, 0)));
            let group = configuration.group_of(rule);
            for server in group.into_iter().flat_map(|group| &group.servers) {
                let counters = self.counters(rule.number, server.number);
                entries.push(entry(&rule.name, &server.id, &counters));
            }
        }
        stats::Statistics { entries }
    }
}

fn entry(rule: &str, server: &str, counters: &Counters) -> Entry {
    let mut entry = Entry {
        rule: rule.to_owned(),
        server: server.to_owned(),
        counters: BTreeMap::new(),
    };
    for counter in Counter::all() {
        let value = match counter {
            Counter::PacketsForwarded => counters.packets,
            Counter::BytesForwarded => counters.bytes,
            Counter::PacketsUnprocessed => counters.unprocessed_packets,
            Counter::BytesUnprocessed => counters.unprocessed_bytes,
            Counter::PacketsDropped => counters.dropped_packets,
            Counter::BytesDropped => counters.dropped_bytes,
            Counter::IcmpForwarded => counters.icmp_p,
            Counter::IcmpDropped => counters.icmp_d,
            Counter::IcmpTooBigForwarded => counters.icmp2big_p,
            Counter::IcmpTooBigDropped => counters.icmp2big_d,
            Counter::NoMemoryDropped => counters.nomem_d,
            Counter::NoPortDropped => counters.noport_d,
            Counter::AdmissionDropped => counters.admission_d,
            Counter::ConnectionsBegun => counters.new_connections,
            Counter::ConnectionsReplaced => counters.replaced_connections,
            Counter::Connections => counters.connections_open,
        };
        entry.set(counter, value);
    }
    let total = "connections-total".to_owned();
    entry.counters.insert(total, counters.connections_total);
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use ilb_node::control::{RuleStatistics, ServerStatistics};

    fn statistics(start_id: u64, packets: u64, open: u64) -> Statistics {
        let counters = Counters {
            packets,
            connections_open: open,
            ..Counters::default()
        };
        Statistics {
            start_id,
            totals: counters,
            drops: BTreeMap::from([("malformed".to_owned(), packets)]),
            rules: vec![RuleStatistics {
                id: 1,
                counters,
                servers: vec![ServerStatistics { id: 1, counters }],
            }],
        }
    }

    #[test]
    fn counters_go_on_over_a_restart_and_gauges_do_not_add_up() {
        let mut ledger = Ledger::default();
        ledger.enter(&statistics(7, 10, 3));
        ledger.enter(&statistics(7, 15, 2));
        ledger.enter(&statistics(8, 1, 1));
        let sum = ledger.counters(1, 0);
        assert_eq!((sum.packets, sum.connections_open), (16, 1));
        ledger.close_page();
        let sum = ledger.counters(1, 1);
        assert_eq!((sum.packets, sum.connections_open), (16, 0));
        let report = ledger.report(&Configuration::default());
        let node = report.get("", "").unwrap();
        assert_eq!(node.get(Counter::PacketsForwarded), 16);
        assert_eq!(node.drops().collect::<Vec<_>>(), [("malformed", 16)]);
    }

    #[test]
    fn a_deleted_rule_is_forgotten() {
        let mut ledger = Ledger::default();
        ledger.enter(&statistics(7, 10, 3));
        ledger.prune(&Configuration::default(), &Retired::default());
        assert_eq!(ledger.counters(1, 0), Counters::default());
    }
}
