//! Counters that go on when the fast path begins anew, and their names on D-Bus.

use std::collections::{BTreeMap, HashMap};

use ilb_forwarder::spec::{RuleId, ServerId};
use ilb_node::control::{Counters, Statistics};
use libilb::model::Configuration;
use libilb::pair::PairDescription;
use libilb::stats::{self, Counter, Entry, drop_counter};
use serde::{Deserialize, Serialize};

use crate::retired::Retired;

/// Whose counters: a rule with server 0, or a server within a rule.
type Place = (RuleId, ServerId);

/// The last that each fast path said, added up. Kept in a file over restarts of the manager: see
/// [`LedgerFile`](super::ledger_file::LedgerFile).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Since when it counts, in seconds of the Unix clock.
    pub created: u64,
    /// [`Statistics::start_id`] of the fast path whose page is `now`.
    start_id: u64,
    /// Of the present fast path, or of the last one.
    now: Page,
    /// Of those before it, as of the last time that they were asked.
    before: Page,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Page {
    totals: Counters,
    drops: BTreeMap<String, u64>,
    #[serde(with = "as_list")]
    places: BTreeMap<Place, Counters>,
}

/// Keys of JSON's objects are words; ours are pairs of numbers.
mod as_list {
    use super::{BTreeMap, Counters, Place};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        places: &BTreeMap<Place, Counters>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(places)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Place, Counters>, D::Error> {
        Ok(Vec::<(Place, Counters)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

/// The sums of one moment.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// Since when they count, in seconds of the Unix clock.
    pub created: u64,
    /// The node.
    pub totals: Counters,
    /// Packets dropped by reason.
    pub drops: BTreeMap<String, u64>,
    /// VRRP instances; they count since the manager was started.
    pub vrrp: Vec<ilb_vrrp::Report>,
    /// How it stands with the pair, if there is one; without what the fast paths tell each other.
    pub pair: Option<Box<PairDescription>>,
    places: BTreeMap<Place, Counters>,
}

impl Numbers {
    /// The counters of a rule (server 0) or of a server within a rule.
    pub fn of(&self, rule: RuleId, server: ServerId) -> Counters {
        self.places
            .get(&(rule, server))
            .copied()
            .unwrap_or_default()
    }
}

impl Ledger {
    /// Takes what the fast path counted.
    pub fn enter(&mut self, statistics: &Statistics) {
        if statistics.start_id != self.start_id {
            self.turn_page();
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

    /// The fast path is gone: what it had open, it has no longer. It may be the same one that comes back, with what it
    /// has counted so far.
    pub fn close(&mut self) {
        self.now.totals = self.now.totals.without_gauges();
        for counters in self.now.places.values_mut() {
            *counters = counters.without_gauges();
        }
    }

    /// Another fast path has begun to count.
    fn turn_page(&mut self) {
        self.close();
        let page = std::mem::take(&mut self.now);
        self.before.totals.add(&page.totals);
        for (label, count) in page.drops {
            *self.before.drops.entry(label).or_default() += count;
        }
        for (place, counters) in page.places {
            self.before.places.entry(place).or_default().add(&counters);
        }
    }

    /// All sums.
    pub fn numbers(&self) -> Numbers {
        let mut sums = Numbers {
            created: self.created,
            totals: self.before.totals,
            drops: self.before.drops.clone(),
            places: self.before.places.clone(),
            vrrp: Vec::new(),
            pair: None,
        };
        sums.totals.add(&self.now.totals);
        for (label, count) in &self.now.drops {
            *sums.drops.entry(label.clone()).or_default() += count;
        }
        for (place, counters) in &self.now.places {
            sums.places.entry(*place).or_default().add(counters);
        }
        sums
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
        ledger.close();
        let sum = ledger.counters(1, 1);
        assert_eq!((sum.packets, sum.connections_open), (16, 0));
        let report = ledger.report(&Configuration::default());
        let node = report.get("", "").unwrap();
        assert_eq!(node.get(Counter::PacketsForwarded), 16);
        assert_eq!(node.drops().collect::<Vec<_>>(), [("malformed", 16)]);
    }

    #[test]
    fn a_fast_path_that_was_only_out_of_sight_is_not_counted_twice() {
        let mut ledger = Ledger::default();
        ledger.enter(&statistics(7, 10, 3));
        ledger.close();
        ledger.enter(&statistics(7, 12, 3));
        assert_eq!(ledger.counters(1, 0).packets, 12);
        assert_eq!(ledger.numbers().totals.packets, 12);
    }

    #[test]
    fn a_ledger_goes_on_after_it_was_kept_in_a_file() {
        let mut ledger = Ledger::default();
        ledger.enter(&statistics(7, 10, 3));
        ledger.enter(&statistics(8, 5, 2));
        let text = serde_json::to_string(&ledger).unwrap();
        // The same fast path, and another one.
        for (start_id, packets, expected) in [(8, 6, 16), (9, 1, 16)] {
            let mut kept: Ledger = serde_json::from_str(&text).unwrap();
            assert_eq!(kept, ledger);
            kept.enter(&statistics(start_id, packets, 1));
            let numbers = kept.numbers();
            assert_eq!(numbers.totals.packets, expected, "{start_id}");
            assert_eq!(numbers.of(1, 1).packets, expected);
            assert_eq!(numbers.of(1, 1).connections_open, 1);
            assert_eq!(numbers.drops["malformed"], expected);
        }
    }

    #[test]
    fn a_deleted_rule_is_forgotten() {
        let mut ledger = Ledger::default();
        ledger.enter(&statistics(7, 10, 3));
        ledger.prune(&Configuration::default(), &Retired::default());
        assert_eq!(ledger.counters(1, 0), Counters::default());
    }
}
