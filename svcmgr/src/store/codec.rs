//! Trees, keys and values of the database: all of them, and nothing else.
//!
//! | tree | key | value |
//! |---|---|---|
//! | `meta` | name | number, big-endian |
//! | `rules` | number of the rule, u32 big-endian | JSON of [`Rule`] |
//! | `groups` | name in lower case | JSON of [`GroupRecord`] |
//! | `servers` | number of the server, u32 big-endian | JSON of [`ServerRecord`] |
//! | `health-checks` | name in lower case | JSON of [`HealthCheck`] |
//! | `vrrp` | name in lower case | JSON of [`VrrpInstance`] |
//! | `retired-rules` | number of the rule | JSON of [`RetiredRule`] |
//! | `retired-servers` | number of the rule, number of the server | JSON of [`RetiredServer`] |
//! | `addresses` | 4 or 16 octets | name of the interface |
//! | `pending` | `pending` | JSON of [`Pending`] |
//! | `pair` | `pair`, or number of a version, u64 big-endian | JSON of [`PairRecord`], or of [`VersionRecord`] |
//! | `history` | generation, u64 big-endian | JSON of [`HistoryRecord`] |
//! | `undo` | generation, u32 of the record, big-endian | a record of the generation before, see [`history`] |
//!
//! `meta` has the schema, the generation, the numbers that the next rule and the next server get, and the [`Seal`].
//! Schema 1 had no `health-checks`, no `history`, no `undo`, and of the seal only the number of records. Schema 2 had no `vrrp`: who
//! does not know that tree would count too few records and take the database for damaged. Schema 3 had no `pair`.

pub mod forward;
pub mod history;
mod pair;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use libilb::healthcheck::HealthCheck;
use libilb::model::{Configuration, Rule, Server, ServerGroup, key};
use libilb::source::Source;
use libilb::vrrp::VrrpInstance;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::seal::Seal;
use crate::pending::Pending;
use crate::retired::{RetiredRule, RetiredServer};
use crate::state::State;
pub use history::HistoryRecord;
pub use pair::{PairRecord, VersionRecord};

/// Version of this layout.
pub const SCHEMA: u32 = 4;
/// The oldest layout that is read; it becomes the present one with the next change.
pub const OLDEST_SCHEMA: u32 = 1;

/// The trees, in the order of their declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// Schema, generation, counters.
    Meta,
    /// Rules.
    Rules,
    /// Server groups without their servers.
    Groups,
    /// Servers of all groups.
    Servers,
    /// Health checks.
    HealthChecks,
    /// VRRP instances.
    Vrrp,
    /// See [`Retired::rules`].
    RetiredRules,
    /// See [`Retired::servers`].
    RetiredServers,
    /// See [`State::addresses`].
    Addresses,
    /// See [`State::history`].
    History,
    /// See [`crate::history::Undo`].
    Undo,
    /// See [`State::pending`].
    Pending,
    /// See [`State::pair`].
    Pair,
}

impl Tree {
    /// All trees; a tree's place is `tree as usize`.
    pub const ALL: [Tree; 13] = [
        Tree::Meta,
        Tree::Rules,
        Tree::Groups,
        Tree::Servers,
        Tree::HealthChecks,
        Tree::Vrrp,
        Tree::RetiredRules,
        Tree::RetiredServers,
        Tree::Addresses,
        Tree::History,
        Tree::Undo,
        Tree::Pending,
        Tree::Pair,
    ];

    /// Its name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Tree::Meta => "meta",
            Tree::Rules => "rules",
            Tree::Groups => "groups",
            Tree::Servers => "servers",
            Tree::HealthChecks => "health-checks",
            Tree::Vrrp => "vrrp",
            Tree::RetiredRules => "retired-rules",
            Tree::RetiredServers => "retired-servers",
            Tree::Addresses => "addresses",
            Tree::Pending => "pending",
            Tree::Pair => "pair",
            Tree::History => "history",
            Tree::Undo => "undo",
        }
    }

    /// Whether its records are what the administrator has configured: what comes back when a generation is restored.
    pub const fn is_configuration(self) -> bool {
        match self {
            Tree::Rules | Tree::Groups | Tree::Servers | Tree::HealthChecks | Tree::Vrrp => true,
            Tree::Meta
            | Tree::RetiredRules
            | Tree::RetiredServers
            | Tree::Addresses
            | Tree::History
            | Tree::Undo
            | Tree::Pending
            | Tree::Pair => false,
        }
    }
}

const META_SCHEMA: &str = "schema";
const META_GENERATION: &str = "generation";
const META_NEXT_RULE: &str = "next-rule";
const META_NEXT_SERVER: &str = "next-server";
pub(super) const META_RECORDS: &str = "records";
pub(super) const META_CHECKSUM: &str = "checksum";

/// Names a record.
pub type Key = (Tree, Vec<u8>);

/// All records of a state or of a database.
pub type Records = BTreeMap<Key, Vec<u8>>;

/// One record to be written (`Some`) or deleted.
pub type Change = (Key, Option<Vec<u8>>);

/// A server group without its servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    name: String,
    next_index: u32,
    #[serde(default)]
    places: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Box<Source>>,
}

/// A server and the group that it is in. Servers of a group are in the order of their numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerRecord {
    group: String,
    server: Server,
}

/// Why records make no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A record is not what its tree holds.
    #[error("record {key} of tree {tree}: {reason}")]
    Record {
        /// The tree.
        tree: &'static str,
        /// The key, as hexadecimal digits or a name.
        key: String,
        /// Why.
        reason: String,
    },
    /// The schema is one that this version does not know.
    #[error("schema {0}, which this version does not know")]
    Schema(u32),
    /// The records do not fit together.
    #[error("{0}")]
    Whole(String),
}

/// The records of a state, sealed.
pub fn encode(state: &State) -> Records {
    let mut records: Records = changes(&State::default(), state)
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    records.extend(meta_records(state));
    let seal = Seal::of(&records);
    records.extend(seal.stored());
    records
}

/// The records of the tree `meta`, but for the seal.
fn meta_records(state: &State) -> [(Key, Vec<u8>); 4] {
    let configuration = &state.configuration;
    [
        (META_SCHEMA, be(SCHEMA)),
        (META_GENERATION, state.generation.to_be_bytes().to_vec()),
        (META_NEXT_RULE, be(configuration.next_rule)),
        (META_NEXT_SERVER, be(configuration.next_server)),
    ]
    .map(|(name, value)| ((Tree::Meta, name.as_bytes().to_vec()), value))
}

/// What makes records of an older schema those of this one; the seal aside.
pub fn migration() -> Vec<Change> {
    vec![(
        (Tree::Meta, META_SCHEMA.as_bytes().to_vec()),
        Some(be(SCHEMA)),
    )]
}

/// Collects what has to be written.
struct Changes {
    list: Vec<Change>,
}

impl Changes {
    /// One record: what it will be.
    fn record<T>(
        &mut self,
        tree: Tree,
        key: Vec<u8>,
        after: Option<T>,
        value: impl FnOnce(T) -> Vec<u8>,
    ) {
        self.list.push(((tree, key), after.map(value)));
    }

    /// A group with its servers, of which only those are written that are different.
    fn group(&mut self, name: &str, before: Option<&ServerGroup>, after: Option<&ServerGroup>) {
        let record = |group: &ServerGroup| GroupRecord {
            name: group.name.clone(),
            next_index: group.next_index,
            places: group.places,
            source: group.source.clone(),
        };
        let (was, is) = (before.map(record), after.map(record));
        if was != is {
            self.record(Tree::Groups, name.into(), is, |record| json(&record));
        }
        fn servers(group: Option<&ServerGroup>) -> BTreeMap<u32, &Server> {
            let servers = group.into_iter().flat_map(|group| &group.servers);
            servers.map(|server| (server.number, server)).collect()
        }
        let (old, new) = (servers(before), servers(after));
        for number in old.keys() {
            if !new.contains_key(number) {
                self.list.push(((Tree::Servers, be(*number)), None));
            }
        }
        for (number, server) in new {
            let was = old.get(&number).copied();
            if was != Some(server) {
                self.record(Tree::Servers, be(number), Some(server), |server| {
                    json(&ServerRecord {
                        group: name.into(),
                        server: server.clone(),
                    })
                });
            }
        }
    }
}

/// What has to be written so that a database with the records of `before` has those of `after`, but for the seal. The
/// work is that of the difference.
pub fn changes(before: &State, after: &State) -> Vec<Change> {
    let mut changes = Changes { list: Vec::new() };
    let (old, new) = (&before.configuration, &after.configuration);
    for rule in new.rules.since(&old.rules) {
        match (rule.before, rule.after) {
            // One name, two rules.
            (Some(old), Some(new)) if old.number != new.number => {
                changes.list.push(((Tree::Rules, be(old.number)), None));
                changes.record(Tree::Rules, be(new.number), Some(new), |rule| {
                    json(rule.as_ref())
                });
            }
            (old, new) => {
                let number = old.or(new).map_or(0, |rule| rule.number);
                changes.record(Tree::Rules, be(number), new, |rule| json(rule.as_ref()));
            }
        }
    }
    for group in new.groups.since(&old.groups) {
        changes.group(
            group.key,
            group.before.map(AsRef::as_ref),
            group.after.map(AsRef::as_ref),
        );
    }
    for check in new.checks.since(&old.checks) {
        let key = check.key.clone().into_bytes();
        changes.record(Tree::HealthChecks, key, check.after, |check| {
            json(check.as_ref())
        });
    }
    for instance in new.vrrp.since(&old.vrrp) {
        let key = instance.key.clone().into_bytes();
        changes.record(Tree::Vrrp, key, instance.after, |instance| {
            json(instance.as_ref())
        });
    }
    let (old, new) = (&before.retired, &after.retired);
    for rule in new.rules.since(&old.rules) {
        changes.record(Tree::RetiredRules, be(*rule.key), rule.after, |rule| {
            json(rule.as_ref())
        });
    }
    for server in new.servers.since(&old.servers) {
        let key = [be(server.key.0), be(server.key.1)].concat();
        changes.record(Tree::RetiredServers, key, server.after, |server| {
            json(server.as_ref())
        });
    }
    for address in after.addresses.since(&before.addresses) {
        let key = match address.key {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        changes.record(Tree::Addresses, key, address.after, |name| {
            name.clone().into_bytes()
        });
    }
    if before.pending != after.pending {
        let key = Tree::Pending.name().into();
        changes.record(Tree::Pending, key, after.pending.as_ref(), |pending| {
            json(pending.as_ref())
        });
    }
    history::changes(&before.history, &after.history, &mut changes.list);
    pair::changes(before.pair.as_ref(), after.pair.as_ref(), &mut changes.list);
    let meta = meta_records(after);
    let old = meta_records(before);
    let different = meta.into_iter().zip(old).filter(|(new, old)| new != old);
    changes
        .list
        .extend(different.map(|((key, value), _)| (key, Some(value))));
    changes.list
}

/// The schema by which records were written.
///
/// # Errors
/// [`DecodeError`] when it is missing or not known.
pub fn schema(records: &Records) -> Result<u32, DecodeError> {
    let schema = meta_u32(records, META_SCHEMA)?;
    match (OLDEST_SCHEMA..=SCHEMA).contains(&schema) {
        true => Ok(schema),
        false => Err(DecodeError::Schema(schema)),
    }
}

/// The state that records make, checked as a whole.
///
/// # Errors
/// [`DecodeError`] for the first record, or combination of records, that makes no sense.
pub fn decode(records: &Records) -> Result<State, DecodeError> {
    let sealed = schema(records)? > 1;
    let (expected, found) = (meta_u64(records, META_RECORDS)?, Seal::of(records));
    if found.records != expected {
        return Err(DecodeError::Whole(format!(
            "{} records are there, but {expected} were written",
            found.records
        )));
    }
    if sealed && found.checksum != meta_u64(records, META_CHECKSUM)? {
        return Err(DecodeError::Whole(
            "records are not what was written last: the checksum over all of them is wrong"
                .to_owned(),
        ));
    }
    decode_state(records)
}

/// As [`decode`], whatever schema and seal say.
fn decode_state(records: &Records) -> Result<State, DecodeError> {
    let mut state = State {
        generation: meta_u64(records, META_GENERATION)?,
        configuration: Configuration {
            next_rule: meta_u32(records, META_NEXT_RULE)?,
            next_server: meta_u32(records, META_NEXT_SERVER)?,
            ..Configuration::default()
        },
        ..State::default()
    };
    let mut history = history::Reader::default();
    let mut pair = pair::Reader::default();
    let mut groups: BTreeMap<String, ServerGroup> = BTreeMap::new();
    // Trees come in their order: groups before servers.
    for ((tree, record_key), value) in records {
        let fail = |reason: String| bad(*tree, record_key, reason);
        match tree {
            Tree::Meta => {}
            Tree::Rules => {
                let rule: Rule = parse(value).map_err(fail)?;
                same_key(&be(rule.number), record_key).map_err(fail)?;
                let name = key(&rule.name);
                if state
                    .configuration
                    .rules
                    .insert(name, Arc::new(rule))
                    .is_some()
                {
                    return Err(fail("its name is there twice".to_owned()));
                }
            }
            Tree::Groups => {
                let record: GroupRecord = parse(value).map_err(fail)?;
                let name = key(&record.name);
                same_key(name.as_bytes(), record_key).map_err(fail)?;
                let group = ServerGroup {
                    name: record.name,
                    servers: Vec::new(),
                    next_index: record.next_index,
                    places: record.places,
                    source: record.source,
                };
                groups.insert(name, group);
            }
            Tree::Servers => {
                let record: ServerRecord = parse(value).map_err(fail)?;
                same_key(&be(record.server.number), record_key).map_err(fail)?;
                groups
                    .get_mut(&record.group)
                    .ok_or_else(|| fail(format!("there is no group {:?}", record.group)))?
                    .servers
                    .push(record.server);
            }
            Tree::HealthChecks => {
                let check: HealthCheck = parse(value).map_err(fail)?;
                let name = key(&check.name);
                same_key(name.as_bytes(), record_key).map_err(fail)?;
                state.configuration.checks.insert(name, Arc::new(check));
            }
            Tree::Vrrp => {
                let instance: VrrpInstance = parse(value).map_err(fail)?;
                let name = key(&instance.name);
                same_key(name.as_bytes(), record_key).map_err(fail)?;
                state.configuration.vrrp.insert(name, Arc::new(instance));
            }
            Tree::RetiredRules => {
                let record: RetiredRule = parse(value).map_err(fail)?;
                let number = record.rule.number;
                same_key(&be(number), record_key).map_err(fail)?;
                state.retired.rules.insert(number, Arc::new(record));
            }
            Tree::RetiredServers => {
                let record: RetiredServer = parse(value).map_err(fail)?;
                let Some((rule, server)) = two_numbers(record_key) else {
                    return Err(fail("the key is not two numbers".to_owned()));
                };
                same_key(&be(record.server.number), &be(server)).map_err(fail)?;
                let place = (rule, server);
                state.retired.servers.insert(place, Arc::new(record));
            }
            Tree::Pending => {
                same_key(Tree::Pending.name().as_bytes(), record_key).map_err(fail)?;
                let pending: Pending = parse(value).map_err(fail)?;
                state.pending = Some(Arc::new(pending));
            }
            Tree::Addresses => {
                let address = address(record_key)
                    .ok_or_else(|| fail("the key is not an address".to_owned()))?;
                let interface = String::from_utf8(value.clone())
                    .map_err(|_| fail("the name is not text".to_owned()))?;
                state.addresses.insert(address, interface);
            }
            Tree::History => history.entry(record_key, value).map_err(fail)?,
            Tree::Undo => history.undo(record_key, value).map_err(fail)?,
            Tree::Pair => pair.record(record_key, value).map_err(fail)?,
        }
    }
    state.history = history.finish()?;
    state.pair = pair.finish()?;
    state.configuration.groups = groups
        .into_iter()
        .map(|(name, mut group)| {
            group.settle();
            (name, Arc::new(group))
        })
        .collect();
    check(&state)?;
    Ok(state)
}

/// Checks a state that was read.
///
/// # Errors
/// [`DecodeError::Whole`].
pub fn check(state: &State) -> Result<(), DecodeError> {
    let whole = |reason: String| Err(DecodeError::Whole(reason));
    if let Err(error) = state.configuration.validate() {
        return whole(error.to_string());
    }
    let rules = state.configuration.rules.values();
    let rules = rules.filter(|rule| rule.enabled);
    let enabled: HashSet<u32> = rules.map(|rule| rule.number).collect();
    let enabled = |number: u32| enabled.contains(&number);
    for (number, record) in &state.retired.rules {
        if *number >= state.configuration.next_rule || enabled(*number) {
            return whole(format!(
                "rule {:?} is retired and enabled",
                record.rule.name
            ));
        }
    }
    for (rule, server) in state.retired.servers.keys() {
        if *server >= state.configuration.next_server || !enabled(*rule) {
            return whole(format!(
                "server {server} is retired from rule {rule}, which is not enabled"
            ));
        }
    }
    Ok(())
}

fn be(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Types of the model have string keys and no values that JSON lacks: serialising them cannot fail.
fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn parse<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

fn same_key(expected: &[u8], found: &[u8]) -> Result<(), String> {
    if expected == found {
        Ok(())
    } else {
        Err("the key and its value contradict each other".to_owned())
    }
}

fn two_numbers(key: &[u8]) -> Option<(u32, u32)> {
    let (first, second) = key.split_first_chunk::<4>()?;
    Some((
        u32::from_be_bytes(*first),
        u32::from_be_bytes(second.try_into().ok()?),
    ))
}

fn address(key: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(key) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(key).ok().map(IpAddr::from)
}

fn meta<'a>(records: &'a Records, name: &str) -> Result<&'a [u8], DecodeError> {
    records
        .get(&(Tree::Meta, name.as_bytes().to_vec()))
        .map(Vec::as_slice)
        .ok_or_else(|| bad(Tree::Meta, name.as_bytes(), "is missing".to_owned()))
}

fn meta_u32(records: &Records, name: &str) -> Result<u32, DecodeError> {
    let value = meta(records, name)?.try_into();
    value
        .map(u32::from_be_bytes)
        .map_err(|_| bad(Tree::Meta, name.as_bytes(), "is not 4 bytes".to_owned()))
}

fn meta_u64(records: &Records, name: &str) -> Result<u64, DecodeError> {
    let value = meta(records, name)?.try_into();
    value
        .map(u64::from_be_bytes)
        .map_err(|_| bad(Tree::Meta, name.as_bytes(), "is not 8 bytes".to_owned()))
}

fn bad(tree: Tree, key: &[u8], reason: String) -> DecodeError {
    let key = match std::str::from_utf8(key) {
        Ok(text)
            if matches!(
                tree,
                Tree::Meta | Tree::Groups | Tree::HealthChecks | Tree::Vrrp
            ) =>
        {
            format!("{text:?}")
        }
        _ => key.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    DecodeError::Record {
        tree: tree.name(),
        key,
        reason,
    }
}

#[cfg(test)]
pub mod tests;
