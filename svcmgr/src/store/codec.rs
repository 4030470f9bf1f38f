//! Trees, keys and values of the database: all of them, and nothing else.
//!
//! | tree | key | value |
//! |---|---|---|
//! | `meta` | name | number, big-endian |
//! | `rules` | number of the rule, u32 big-endian | JSON of [`Rule`] |
//! | `groups` | name in lower case | JSON of [`GroupRecord`] |
//! | `servers` | number of the server, u32 big-endian | JSON of [`ServerRecord`] |
//! | `health-checks` | name in lower case | JSON of [`HealthCheck`] |
//! | `retired-rules` | number of the rule | JSON of [`RetiredRule`] |
//! | `retired-servers` | number of the rule, number of the server | JSON of [`RetiredServer`] |
//! | `addresses` | 4 or 16 octets | name of the interface |

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use libilb::healthcheck::HealthCheck;
use libilb::map::Map;
use libilb::model::{Configuration, Rule, Server, ServerGroup, key};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::retired::{Retired, RetiredRule, RetiredServer};
use crate::state::State;

/// Latest version of this layout. 2 has health checks.
pub const SCHEMA: u32 = 2;

/// The earliest version that can hold a state. It is written as that, so that an earlier program can read what it
/// understands, and says so of what it does not.
pub fn schema(state: &State) -> u32 {
    match state.configuration.checks.is_empty() {
        true => 1,
        false => 2,
    }
}

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
    /// See [`Retired::rules`].
    RetiredRules,
    /// See [`Retired::servers`].
    RetiredServers,
    /// See [`State::addresses`].
    Addresses,
}

impl Tree {
    /// All trees; a tree's place is `tree as usize`.
    pub const ALL: [Tree; 8] = [
        Tree::Meta,
        Tree::Rules,
        Tree::Groups,
        Tree::Servers,
        Tree::HealthChecks,
        Tree::RetiredRules,
        Tree::RetiredServers,
        Tree::Addresses,
    ];

    /// Its name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Tree::Meta => "meta",
            Tree::Rules => "rules",
            Tree::Groups => "groups",
            Tree::Servers => "servers",
            Tree::HealthChecks => "health-checks",
            Tree::RetiredRules => "retired-rules",
            Tree::RetiredServers => "retired-servers",
            Tree::Addresses => "addresses",
        }
    }
}

const META_SCHEMA: &str = "schema";
const META_GENERATION: &str = "generation";
const META_NEXT_RULE: &str = "next-rule";
const META_NEXT_SERVER: &str = "next-server";
/// How many records the other trees have together: a record that is lost does not go unnoticed.
const META_RECORDS: &str = "records";

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
    /// The schema is another one.
    #[error("schema {0}, which is none of 1 to {SCHEMA}")]
    Schema(u32),
    /// The records do not fit together.
    #[error("{0}")]
    Whole(String),
}

/// The records of a state.
pub fn encode(state: &State) -> Records {
    let (changes, _) = changes(&State::default(), state, 0);
    let mut records: Records = changes
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    records.extend(meta_records(state, count(state)));
    records
}

/// Number of records outside of `meta`.
pub fn count(state: &State) -> u64 {
    let groups = &state.configuration.groups;
    let servers: usize = groups.values().map(|group| group.servers.len()).sum();
    let all = state.configuration.rules.len()
        + groups.len()
        + servers
        + state.configuration.checks.len()
        + state.retired.rules.len()
        + state.retired.servers.len()
        + state.addresses.len();
    all as u64
}

/// The records of the tree `meta`.
fn meta_records(state: &State, count: u64) -> [(Key, Vec<u8>); 5] {
    let configuration = &state.configuration;
    [
        (META_SCHEMA, be(schema(state))),
        (META_GENERATION, state.generation.to_be_bytes().to_vec()),
        (META_NEXT_RULE, be(configuration.next_rule)),
        (META_NEXT_SERVER, be(configuration.next_server)),
        (META_RECORDS, count.to_be_bytes().to_vec()),
    ]
    .map(|(name, value)| ((Tree::Meta, name.as_bytes().to_vec()), value))
}

/// Collects what has to be written.
struct Changes {
    list: Vec<Change>,
    /// Records outside of `meta` that there will be.
    count: u64,
}

impl Changes {
    /// One record: what it was and what it will be.
    fn record<T>(
        &mut self,
        tree: Tree,
        key: Vec<u8>,
        (before, after): (Option<T>, Option<T>),
        value: impl FnOnce(T) -> Vec<u8>,
    ) {
        self.count -= u64::from(before.is_some() && after.is_none());
        self.count += u64::from(before.is_none() && after.is_some());
        self.list.push(((tree, key), after.map(value)));
    }

    /// A group with its servers, of which only those are written that are different.
    fn group(&mut self, name: &str, before: Option<&ServerGroup>, after: Option<&ServerGroup>) {
        let record = |group: &ServerGroup| GroupRecord {
            name: group.name.clone(),
            next_index: group.next_index,
            places: group.places,
        };
        let records = (before.map(record), after.map(record));
        if records.0 != records.1 {
            self.record(Tree::Groups, name.into(), records, |record| json(&record));
        }
        fn servers(group: Option<&ServerGroup>) -> BTreeMap<u32, &Server> {
            let servers = group.into_iter().flat_map(|group| &group.servers);
            servers.map(|server| (server.number, server)).collect()
        }
        let (old, new) = (servers(before), servers(after));
        for (number, server) in &old {
            if !new.contains_key(number) {
                self.record(Tree::Servers, be(*number), (Some(*server), None), |_| {
                    Vec::new()
                });
            }
        }
        for (number, server) in new {
            let was = old.get(&number).copied();
            if was != Some(server) {
                self.record(
                    Tree::Servers,
                    be(number),
                    (was, Some(server)),
                    |server: &Server| {
                        json(&ServerRecord {
                            group: name.into(),
                            server: server.clone(),
                        })
                    },
                );
            }
        }
    }
}

/// What has to be written so that a database with the records of `before`, of which there are `count` outside of
/// `meta`, has those of `after`; and how many these are. The work is that of the difference.
pub fn changes(before: &State, after: &State, count: u64) -> (Vec<Change>, u64) {
    let mut changes = Changes {
        list: Vec::new(),
        count,
    };
    let (old, new) = (&before.configuration, &after.configuration);
    for rule in new.rules.since(&old.rules) {
        match (rule.before, rule.after) {
            // One name, two rules.
            (Some(old), Some(new)) if old.number != new.number => {
                let gone = (Some(old), None);
                changes.record(Tree::Rules, be(old.number), gone, |_| Vec::new());
                let come = (None, Some(new));
                changes.record(Tree::Rules, be(new.number), come, |rule| {
                    json(rule.as_ref())
                });
            }
            both => {
                let number = both.0.or(both.1).map_or(0, |rule| rule.number);
                changes.record(Tree::Rules, be(number), both, |rule| json(rule.as_ref()));
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
        let both = (check.before, check.after);
        let key = check.key.clone().into_bytes();
        changes.record(Tree::HealthChecks, key, both, |check| json(check.as_ref()));
    }
    let (old, new) = (&before.retired, &after.retired);
    for rule in new.rules.since(&old.rules) {
        let both = (rule.before, rule.after);
        changes.record(Tree::RetiredRules, be(*rule.key), both, |rule| {
            json(rule.as_ref())
        });
    }
    for server in new.servers.since(&old.servers) {
        let key = [be(server.key.0), be(server.key.1)].concat();
        let both = (server.before, server.after);
        changes.record(Tree::RetiredServers, key, both, |server| {
            json(server.as_ref())
        });
    }
    for address in after.addresses.since(&before.addresses) {
        let key = match address.key {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let both = (address.before, address.after);
        changes.record(Tree::Addresses, key, both, |name| name.clone().into_bytes());
    }
    let meta = meta_records(after, changes.count);
    let old = meta_records(before, count);
    let different = meta.into_iter().zip(old).filter(|(new, old)| new != old);
    changes
        .list
        .extend(different.map(|((key, value), _)| (key, Some(value))));
    (changes.list, changes.count)
}

/// The state that records make, checked as a whole.
///
/// # Errors
/// [`DecodeError`] for the first record, or combination of records, that makes no sense.
pub fn decode(records: &Records) -> Result<State, DecodeError> {
    let schema = meta_u32(records, META_SCHEMA)?;
    if !(1..=SCHEMA).contains(&schema) {
        return Err(DecodeError::Schema(schema));
    }
    let mut state = State {
        generation: meta_u64(records, META_GENERATION)?,
        configuration: Configuration {
            next_rule: meta_u32(records, META_NEXT_RULE)?,
            next_server: meta_u32(records, META_NEXT_SERVER)?,
            ..Configuration::default()
        },
        retired: Retired::default(),
        addresses: Map::default(),
    };
    let expected = meta_u64(records, META_RECORDS)?;
    let mut groups: BTreeMap<String, ServerGroup> = BTreeMap::new();
    let mut found = 0;
    // Trees come in their order: groups before servers.
    for ((tree, record_key), value) in records {
        found += u64::from(*tree != Tree::Meta);
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
            Tree::Addresses => {
                let address = address(record_key)
                    .ok_or_else(|| fail("the key is not an address".to_owned()))?;
                let interface = String::from_utf8(value.clone())
                    .map_err(|_| fail("the name is not text".to_owned()))?;
                state.addresses.insert(address, interface);
            }
        }
    }
    if found != expected {
        return Err(DecodeError::Whole(format!(
            "{found} records are there, but {expected} were written"
        )));
    }
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
        Ok(text) if matches!(tree, Tree::Meta | Tree::Groups | Tree::HealthChecks) => {
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
