//! The configuration on its way to the other node of a pair: what is different after a change, and making that change there.
//!
//! VRRP instances have something that is each node's own and does not follow: interface, priority, whether they take part,
//! peers and source.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ilb_pair::follow::{Delta, Numbers, Record, VersionId};
use libilb::model::{Configuration, Rule, ServerGroup, key};
use libilb::vrrp::VrrpInstance;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{GroupRecord, Key, Records, ServerRecord, Tree, encode, history};
use crate::state::State;

/// How much lower the priority of an instance is that was made on the other node.
const LOWER: u8 = 50;

/// What leads from `before` to `after` on another node; nothing if what is different is this node's own.
pub fn records(before: &Configuration, after: &Configuration) -> Vec<Record> {
    let mut changes = history::undo(after, before).changes;
    // As `since` has them: a version is named after them.
    changes.sort_by(|(one, _), (other, _)| one.cmp(other));
    changes
        .into_iter()
        .filter(|((tree, name), value)| match tree {
            Tree::Vrrp => {
                let name = std::str::from_utf8(name).unwrap_or_default();
                let old = before.vrrp.get(name);
                let old = old.and_then(|instance| serde_json::to_vec(instance.as_ref()).ok());
                differs(Tree::Vrrp, old.as_deref(), value.as_deref())
            }
            // They are different for certain.
            _ => true,
        })
        .map(|(place, value)| record(&place, value.as_deref()))
        .collect()
}

/// Whether the other node has to know.
fn differs(tree: Tree, old: Option<&[u8]>, new: Option<&[u8]>) -> bool {
    match (tree, old, new) {
        (Tree::Vrrp, Some(old), Some(new)) => shared(old) != shared(new),
        _ => old != new,
    }
}

/// What of an instance is the same on both nodes.
fn shared(octets: &[u8]) -> Option<VrrpInstance> {
    let instance: VrrpInstance = serde_json::from_slice(octets).ok()?;
    Some(VrrpInstance {
        interface: String::new(),
        priority: 0,
        enabled: false,
        peers: Vec::new(),
        source: None,
        ..instance
    })
}

fn record((tree, octets): &Key, value: Option<&[u8]>) -> Record {
    let key = match <[u8; 4]>::try_from(octets.as_slice()) {
        Ok(number) if matches!(tree, Tree::Rules | Tree::Servers) => {
            u32::from_be_bytes(number).to_string()
        }
        _ => String::from_utf8_lossy(octets).into_owned(),
    };
    Record {
        tree: tree.name().to_owned(),
        key,
        value: value.map(|octets| serde_json::from_slice(octets).unwrap_or(Value::Null)),
    }
}

/// The numbers that the next things get.
pub fn numbers(configuration: &Configuration) -> Numbers {
    Numbers {
        rule: configuration.next_rule,
        server: configuration.next_server,
    }
}

/// What has changed with each version after `base`, oldest first; `None` if that is not known any more.
pub fn since(state: &State, base: VersionId) -> Option<Vec<Delta>> {
    let line = &state.pair.as_ref()?.line;
    let kept = line.after(base)?;
    let before = line.versions().len().checked_sub(kept.len() + 1)?;
    let base = line.versions().get(before)?.mark;
    if base == 0 {
        return None;
    }
    state.history.way_back(state.generation, base)?;
    let generations: Vec<u64> = state.history.kept(state.generation).collect();
    let mut way = generations
        .into_iter()
        .take_while(|at| *at > base)
        .peekable();
    let mut now: Records = encode(&State {
        configuration: state.configuration.clone(),
        ..State::default()
    });
    // Goes a generation back, and returns what was there before that.
    let mut back = |generation: u64| -> Option<Vec<(Key, Option<Vec<u8>>)>> {
        let undo = state.history.entries.get(&generation)?.undo.clone()?;
        let step = |(place, old): &(Key, Option<Vec<u8>>)| {
            let was = match old {
                Some(old) => now.insert(place.clone(), old.clone()),
                None => now.remove(place),
            };
            (place.clone(), was)
        };
        Some(undo.changes.iter().map(step).collect())
    };
    let mut deltas = Vec::new();
    for (index, version) in kept.iter().enumerate().rev() {
        let from = index.checked_sub(1).and_then(|index| kept.get(index));
        let from = from.map_or(base, |kept| kept.mark);
        // What is newer than the newest version is this node's own.
        while let Some(generation) = way.next_if(|at| *at > version.mark) {
            back(generation)?;
        }
        let mut ends: BTreeMap<Key, Option<Vec<u8>>> = BTreeMap::new();
        let mut starts: BTreeMap<Key, Option<Vec<u8>>> = BTreeMap::new();
        while let Some(generation) = way.next_if(|at| *at > from) {
            let undo = state.history.entries.get(&generation)?.undo.clone()?;
            starts.extend(undo.changes.iter().cloned());
            for (place, end) in back(generation)? {
                ends.entry(place).or_insert(end);
            }
        }
        let changed = ends.iter().filter(|(place, end)| {
            let start = starts.get(place).and_then(Option::as_deref);
            differs(place.0, start, end.as_deref())
        });
        deltas.push(Delta {
            version: version.version.clone(),
            records: changed
                .map(|(place, end)| record(place, end.as_deref()))
                .collect(),
            numbers: numbers(&state.configuration),
        });
    }
    deltas.reverse();
    Some(deltas)
}

/// `base` with these records. What is a node's own of VRRP instances is that of `local`. The result is valid. When a program that
/// is `later` than this one tells it, kinds of things and fields that are not known here are left out; otherwise nobody has them.
/// A value that is not known is an error, because what is without it would be something else.
///
/// # Errors
/// The first record, or combination of records, that makes no sense, for a person.
pub fn apply(
    base: &Configuration,
    local: &Configuration,
    records: &[Record],
    numbers: Numbers,
    later: bool,
) -> Result<Configuration, String> {
    let mut change = Application {
        configuration: base.clone(),
        servers: HashMap::new(),
    };
    change.configuration.next_rule = local.next_rule.max(numbers.rule);
    change.configuration.next_server = local.next_server.max(numbers.server);
    let trees: Vec<(Tree, &Record)> = records
        .iter()
        .filter_map(|record| {
            let mut known = Tree::ALL.into_iter();
            match known.find(|tree| tree.name() == record.tree) {
                Some(tree) if tree.is_configuration() => Some(Ok((tree, record))),
                None if later => None,
                _ => Some(Err(format!(
                    "{:?} is nothing that this version knows",
                    record.tree
                ))),
            }
        })
        .collect::<Result<_, String>>()?;
    if trees.iter().any(|(tree, _)| *tree == Tree::Servers) {
        change.know_servers();
    }
    let of = |wanted: Tree, there: bool| {
        let all = trees.iter().copied();
        all.filter(move |(tree, record)| *tree == wanted && record.value.is_some() == there)
            .map(|(_, record)| record)
    };
    // A name may go from one to another.
    of(Tree::Rules, false).try_for_each(|record| change.delete_rule(record))?;
    of(Tree::Servers, false).try_for_each(|record| change.delete_server(record))?;
    of(Tree::Groups, true).try_for_each(|record| change.group(record))?;
    of(Tree::Servers, true).try_for_each(|record| change.server(record))?;
    for record in of(Tree::HealthChecks, true) {
        let check: libilb::healthcheck::HealthCheck = match later {
            true => parse(&without_unknown(record))?,
            false => parse(record)?,
        };
        let name = named(record, &check.name)?;
        change.configuration.checks.insert(name, Arc::new(check));
    }
    for record in of(Tree::Vrrp, true) {
        let instance: VrrpInstance = parse(record)?;
        let name = named(record, &instance.name)?;
        let instance = own(instance, local.vrrp.get(&name).map(AsRef::as_ref));
        change.configuration.vrrp.insert(name, Arc::new(instance));
    }
    of(Tree::Rules, true).try_for_each(|record| change.rule(record))?;
    for record in of(Tree::HealthChecks, false) {
        let gone = change.configuration.checks.remove(&record.key);
        gone.ok_or_else(|| absent(record))?;
    }
    for record in of(Tree::Vrrp, false) {
        let gone = change.configuration.vrrp.remove(&record.key);
        gone.ok_or_else(|| absent(record))?;
    }
    for record in of(Tree::Groups, false) {
        let gone = change.configuration.groups.remove(&record.key);
        gone.ok_or_else(|| absent(record))?;
    }
    let configuration = change.settled();
    configuration
        .validate()
        .map_err(|error| error.to_string())?;
    Ok(configuration)
}

/// An instance as the other node has it, with what is this node's own.
fn own(there: VrrpInstance, here: Option<&VrrpInstance>) -> VrrpInstance {
    if let Some(here) = here {
        return VrrpInstance {
            interface: here.interface.clone(),
            priority: here.priority,
            enabled: here.enabled,
            peers: here.peers.clone(),
            source: here.source,
            ..there
        };
    }
    // Advertisements to named nodes: each has the other one's address, if both can be known.
    let (peers, source, known) = match (there.peers.as_slice(), there.source) {
        ([], _) => (Vec::new(), None, true),
        ([us], Some(they)) => (vec![they], Some(*us), true),
        _ => (Vec::new(), None, false),
    };
    VrrpInstance {
        priority: there.priority.saturating_sub(LOWER).max(1),
        enabled: there.enabled && known,
        peers,
        source,
        ..there
    }
}

fn absent(record: &Record) -> String {
    format!(
        "{} of {} was to be deleted and is not there",
        record.key, record.tree
    )
}

/// The record of a health check without the fields that are not known here, of which its reader would say that they are mistakes.
fn without_unknown(record: &Record) -> Record {
    let mut record = record.clone();
    if let Some(Value::Object(fields)) = &mut record.value {
        let known = |name: &str| {
            name == "name"
                || libilb::healthcheck::FIELDS
                    .iter()
                    .any(|(_, word, _)| *word == name)
        };
        fields.retain(|name, _| known(name));
    }
    record
}

fn parse<T: DeserializeOwned>(record: &Record) -> Result<T, String> {
    let value = record.value.clone().unwrap_or_default();
    serde_json::from_value(value)
        .map_err(|error| format!("{} of {}: {error}", record.key, record.tree))
}

/// The key of something with this name, which has to be that of its record.
fn named(record: &Record, name: &str) -> Result<String, String> {
    let expected = key(name);
    match record.key == expected {
        true => Ok(expected),
        false => Err(contradiction(record)),
    }
}

fn contradiction(record: &Record) -> String {
    format!(
        "{} of {}: the key and its value contradict each other",
        record.key, record.tree
    )
}

struct Application {
    configuration: Configuration,
    /// The key of each server's group, by its number; empty if no server changes.
    servers: HashMap<u32, String>,
}

impl Application {
    fn know_servers(&mut self) {
        let groups = self.configuration.groups.iter();
        let servers = groups.flat_map(|(name, group)| {
            group
                .servers
                .iter()
                .map(move |server| (server.number, name.clone()))
        });
        self.servers = servers.collect();
    }

    fn delete_rule(&mut self, record: &Record) -> Result<(), String> {
        let rules = &mut self.configuration.rules;
        let number = record.key.parse().ok();
        let rule = number.and_then(|number| rules.by_number(number).cloned());
        let rule = rule.ok_or_else(|| absent(record))?;
        rules.remove(&key(&rule.name));
        Ok(())
    }

    fn rule(&mut self, record: &Record) -> Result<(), String> {
        let rule: Rule = parse(record)?;
        if rule.number.to_string() != record.key {
            return Err(contradiction(record));
        }
        let rules = &mut self.configuration.rules;
        if let Some(old) = rules.by_number(rule.number).cloned() {
            rules.remove(&key(&old.name));
        }
        let name = key(&rule.name);
        match rules.insert(name, Arc::new(rule)) {
            None => Ok(()),
            Some(_) => Err(format!(
                "{} of {}: its name is there twice",
                record.key, record.tree
            )),
        }
    }

    fn delete_server(&mut self, record: &Record) -> Result<(), String> {
        let number: u32 = record.key.parse().map_err(|_| absent(record))?;
        let group = self.servers.remove(&number);
        let group = group.and_then(|name| self.configuration.groups.get_mut(&name));
        let group = Arc::make_mut(group.ok_or_else(|| absent(record))?);
        group.servers.retain(|server| server.number != number);
        Ok(())
    }

    fn group(&mut self, record: &Record) -> Result<(), String> {
        let new: GroupRecord = parse(record)?;
        let name = named(record, &new.name)?;
        let groups = &mut self.configuration.groups;
        let servers = groups.get(&name).map(|group| group.servers.clone());
        let group = ServerGroup {
            name: new.name,
            servers: servers.unwrap_or_default(),
            next_index: new.next_index,
            places: new.places,
            source: new.source,
        };
        groups.insert(name, Arc::new(group));
        Ok(())
    }

    fn server(&mut self, record: &Record) -> Result<(), String> {
        let ServerRecord { group, server } = parse(record)?;
        let number = server.number;
        if number.to_string() != record.key {
            return Err(contradiction(record));
        }
        if self.servers.get(&number).is_some_and(|now| *now != group) {
            self.delete_server(record)?;
        }
        let there = self.configuration.groups.get_mut(&group);
        let there = there.ok_or_else(|| {
            format!(
                "{} of {}: there is no group {group:?}",
                record.key, record.tree
            )
        })?;
        let servers = &mut Arc::make_mut(there).servers;
        match servers.iter_mut().find(|known| known.number == number) {
            Some(known) => *known = server,
            None => servers.push(server),
        }
        self.servers.insert(number, group);
        Ok(())
    }

    /// Servers in the order of their numbers, and all with their places, as a store has them.
    fn settled(mut self) -> Configuration {
        let touched: std::collections::BTreeSet<String> = self.servers.into_values().collect();
        for name in touched {
            if let Some(group) = self.configuration.groups.get_mut(&name) {
                let sorted = group.servers.is_sorted_by_key(|server| server.number);
                if !sorted {
                    let group = Arc::make_mut(group);
                    group.servers.sort_by_key(|server| server.number);
                    group.settle();
                }
            }
        }
        self.configuration
    }
}
