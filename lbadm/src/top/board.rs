//! What `top` shows: rates, their history, and how well everything is. Pure.

use std::collections::{HashMap, VecDeque};

use libilb::describe::{Description, RuleDescription, ServerDescription, Status};
use libilb::stats::{Counter, Entry, Statistics};
use serde::Serialize;

use crate::explain::{down, obstacle};
use crate::table::Tone;

/// How many intervals are remembered.
pub const HISTORY: usize = 120;

/// What happens in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// Packets forwarded.
    pub packets: u64,
    /// Bits of these.
    pub bits: u64,
    /// Connections begun.
    pub begun: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// A rule, a server of it, or the node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Name of the rule; empty for the node.
    pub rule: String,
    /// Id of the server; empty for the rule as a whole.
    pub server: String,
    /// Its state in words.
    pub state: String,
    /// Why a server takes no new connections; empty if it does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Whether that is good.
    #[serde(skip)]
    pub tone: Tone,
    /// Rates of the last interval.
    #[serde(flatten)]
    pub rates: Rates,
    /// Connections that live now.
    pub connections: u64,
    /// Packets a second of the last intervals, the newest at the end.
    #[serde(skip)]
    pub history: Vec<u64>,
}

/// By what rules, and the servers of each, are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// By packets a second.
    #[default]
    Packets,
    /// By bits a second.
    Bits,
    /// By connections begun a second.
    Begun,
    /// By drops a second.
    Dropped,
    /// By connections.
    Connections,
    /// By name.
    Name,
}

impl Sort {
    /// The next one.
    pub fn next(self) -> Sort {
        match self {
            Sort::Packets => Sort::Bits,
            Sort::Bits => Sort::Begun,
            Sort::Begun => Sort::Dropped,
            Sort::Dropped => Sort::Connections,
            Sort::Connections => Sort::Name,
            Sort::Name => Sort::Packets,
        }
    }

    /// The column that it is about.
    pub fn heading(self) -> &'static str {
        match self {
            Sort::Packets => "PKT/S",
            Sort::Bits => "BIT/S",
            Sort::Begun => "NEW/S",
            Sort::Dropped => "DROP/S",
            Sort::Connections => "CONN",
            Sort::Name => "RULE",
        }
    }

    fn value(self, row: &Row) -> u64 {
        match self {
            Sort::Packets => row.rates.packets,
            Sort::Bits => row.rates.bits,
            Sort::Begun => row.rates.begun,
            Sort::Dropped => row.rates.dropped,
            Sort::Connections => row.connections,
            Sort::Name => 0,
        }
    }
}

type Key = (String, String);

/// Everything that is remembered between two looks.
#[derive(Debug, Default)]
pub struct Board {
    before: HashMap<Key, Entry>,
    rates: HashMap<Key, Rates>,
    history: HashMap<Key, VecDeque<u64>>,
    connections: HashMap<Key, u64>,
    /// The node as it was described last.
    pub node: Description,
}

impl Board {
    /// Takes over counters, `seconds` after the last time. The first time there are no rates yet.
    pub fn take(&mut self, counted: &Statistics, seconds: f64) {
        let mut before = HashMap::new();
        let mut history = HashMap::new();
        self.rates.clear();
        self.connections.clear();
        for entry in &counted.entries {
            let key = (entry.rule.clone(), entry.server.clone());
            let open = entry.get(Counter::Connections);
            self.connections.insert(key.clone(), open);
            if let Some(old) = self.before.get(&key) {
                let rates = rates(old, entry, seconds);
                let mut past = self.history.remove(&key).unwrap_or_default();
                if past.len() == HISTORY {
                    past.pop_front();
                }
                past.push_back(rates.packets);
                self.rates.insert(key.clone(), rates);
                history.insert(key.clone(), past);
            }
            before.insert(key, entry.clone());
        }
        // Who is gone is forgotten.
        (self.before, self.history) = (before, history);
    }

    /// The node as a whole.
    pub fn total(&self) -> Row {
        self.row("", "", String::new(), Tone::Plain)
    }

    /// Rules with their servers behind each, those whose names or ids hold `filter`.
    pub fn rows(&self, sort: Sort, reverse: bool, filter: &str, servers: bool) -> Vec<Row> {
        let filter = filter.to_ascii_lowercase();
        let fits = |name: &str| name.to_ascii_lowercase().contains(&filter);
        let mut blocks: Vec<(Row, Vec<Row>)> = Vec::new();
        for rule in &self.node.rules {
            let name = &rule.rule.name;
            let group = self.node.group(&rule.rule.servergroup);
            let all = group.map_or(&[][..], |group| &group.servers[..]);
            let (state, tone) = state_of_rule(rule, all);
            let mut below: Vec<Row> = all
                .iter()
                .filter(|server| fits(name) || fits(&server.server.id))
                .map(|server| {
                    let (state, tone) = state_of_server(server, name);
                    Row {
                        why: obstacle(server, name).unwrap_or_default(),
                        ..self.row(name, &server.server.id, state, tone)
                    }
                })
                .collect();
            if fits(name) || !below.is_empty() {
                order(&mut below, sort, reverse, |row| row);
                blocks.push((self.row(name, "", state, tone), below));
            }
        }
        order(&mut blocks, sort, reverse, |(row, _)| row);
        let rows = blocks.into_iter().flat_map(|(rule, below)| {
            let below = below.into_iter().filter(move |_| servers);
            std::iter::once(rule).chain(below)
        });
        rows.collect()
    }

    fn row(&self, rule: &str, server: &str, state: String, tone: Tone) -> Row {
        let key = (rule.to_string(), server.to_string());
        let history = self.history.get(&key);
        Row {
            rule: key.0.clone(),
            server: key.1.clone(),
            state,
            why: String::new(),
            tone,
            rates: self.rates.get(&key).copied().unwrap_or_default(),
            connections: self.connections.get(&key).copied().unwrap_or(0),
            history: history.map_or(Vec::new(), |past| past.iter().copied().collect()),
        }
    }
}

/// The largest first, equals by name; names from a to z.
fn order<T>(rows: &mut [T], sort: Sort, reverse: bool, row: impl Fn(&T) -> &Row) {
    let name = |row: &Row| (row.rule.to_ascii_lowercase(), row.server.clone());
    rows.sort_by(|a, b| {
        let (a, b) = (row(a), row(b));
        let order = sort.value(b).cmp(&sort.value(a));
        order.then_with(|| name(a).cmp(&name(b)))
    });
    if reverse {
        rows.reverse();
    }
}

/// A counter that went back began anew.
fn rates(before: &Entry, now: &Entry, seconds: f64) -> Rates {
    let rate = |counter| {
        let (old, new) = (before.get(counter), now.get(counter));
        let delta = new.checked_sub(old).unwrap_or(new);
        (delta as f64 / seconds.max(0.001)).round() as u64
    };
    Rates {
        packets: rate(Counter::PacketsForwarded),
        bits: rate(Counter::BytesForwarded).saturating_mul(8),
        begun: rate(Counter::ConnectionsBegun),
        dropped: rate(Counter::PacketsDropped),
    }
}

fn state_of_rule(rule: &RuleDescription, servers: &[ServerDescription]) -> (String, Tone) {
    if rule.status != Status::Enabled {
        return (rule.status.to_string(), Tone::Notice);
    }
    let there = servers.iter().filter(|server| !server.removed).count();
    let takes = |server: &&ServerDescription| obstacle(server, &rule.rule.name).is_none();
    let open = servers.iter().filter(takes).count();
    let tone = match (open, rule.problems.is_empty()) {
        (0, _) | (_, false) => Tone::Bad,
        (open, _) if open < there => Tone::Notice,
        _ => Tone::Good,
    };
    (format!("{open}/{there} up"), tone)
}

fn state_of_server(server: &ServerDescription, rule: &str) -> (String, Tone) {
    match obstacle(server, rule) {
        None => ("up".to_string(), Tone::Good),
        Some(_) if server.removed => ("removed".to_string(), Tone::Notice),
        Some(_) if server.status != Status::Enabled => (server.status.to_string(), Tone::Notice),
        Some(_) if server.server.weight == 0 => ("weight 0".to_string(), Tone::Notice),
        Some(_) => match server.health_in(rule).filter(|h| down(h).is_some()) {
            Some(health) => (health.state.to_string(), Tone::Bad),
            None => ("closed".to_string(), Tone::Bad),
        },
    }
}
