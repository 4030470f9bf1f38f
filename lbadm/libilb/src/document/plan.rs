//! From a document and the present configuration to the one that there shall be. What stays the same is left untouched, so
//! that it keeps numbers, ids and connections.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Document;
use super::entry::{CheckEntry, GroupEntry, RuleEntry, ServerEntry};
use super::ids::Ids;
use super::mistake::{Mistake, Mistakes};
use super::read::{self, Reading, field, renamed};
use super::report::{Action, Change, Field, Item, Report};
use super::value::Value;
use super::write::{check_fields, rule_fields, server_fields};
use crate::error::{self, ModelError};
use crate::healthcheck::HealthCheck;
use crate::healthcheck_use::check_use;
use crate::model::{Configuration, MAX_RULES, MAX_SERVERS, key};
use crate::port::PortRange;
use crate::rule::{Rule, check_name, rule_problems};
use crate::server::{Server, ServerSpec, Target, UNPLACED};
use crate::servergroup::ServerGroup;
use crate::validate::{claim_conflicts, misfits};
use crate::words;

/// What a document makes of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What there would be; valid.
    pub configuration: Configuration,
    /// What would be different.
    pub report: Report,
}

/// Reads a document and plans it, see [`Document::plan`]. Mistakes of both kinds are reported together.
///
/// # Errors
/// Everything that is wrong with the document.
pub fn plan(text: &str, present: &Configuration, merge: bool) -> Result<Plan, Mistakes> {
    let Reading {
        document,
        mistakes,
        broken,
        text,
    } = read::read(text);
    let mut planner = Planner::new(present, merge);
    planner.mistakes = mistakes;
    planner.run(&document, &broken);
    planner.finish(&document, &text)
}

/// A document without mistakes, as far as that can be told without a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The document; its servers have addresses.
    pub document: Document,
    /// Whether host names were resolved: its text says more than the one that was read.
    pub resolved: bool,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Reads a document, resolves its host names with `lookup`, and checks what can be checked without the configuration that
/// it is for: everything, unless it is to be merged.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(
    text: &str,
    merge: bool,
    lookup: impl Fn(&str) -> Result<Vec<IpAddr>, String>,
) -> Result<Checked, Mistakes> {
    let Reading {
        mut document,
        mut mistakes,
        broken,
        text,
    } = read::read(text);
    let mut resolved = false;
    let mut failed = HashSet::new();
    for group in &mut document.groups {
        for (at, server) in group.servers.iter_mut().enumerate() {
            let (None, Some(host)) = (server.address, &server.host) else {
                continue;
            };
            let spec = ServerSpec {
                target: Target::Host(host.clone()),
                host_name: None,
                ports: server.ports,
                limits: Default::default(),
                id: None,
            };
            match spec.resolve_with(&lookup) {
                Ok(spec) => {
                    server.address = ServerEntry::from_spec(spec).address;
                    resolved = true;
                }
                Err(error) => {
                    let path = format!("group.{}.servers[{at}]", group.name);
                    mistakes.push(Mistake::new(path.clone(), error));
                    failed.insert(path);
                }
            }
        }
    }
    let nothing = Configuration::default();
    let mut planner = Planner::new(&nothing, merge);
    planner.mistakes = mistakes;
    if !merge {
        planner.run(&document, &broken);
        // Those that could not be resolved were told already.
        planner
            .mistakes
            .retain(|m| !m.message.contains(NOT_RESOLVED) || !failed.contains(&m.field));
    }
    let plan = planner.finish(&document, &text)?;
    Ok(Checked {
        document,
        resolved,
        notes: plan.report.notes,
    })
}

pub(super) fn plan_document(
    document: &Document,
    present: &Configuration,
    merge: bool,
) -> Result<Plan, Mistakes> {
    let mut planner = Planner::new(present, merge);
    planner.run(document, &HashSet::new());
    planner.finish(document, &"".into())
}

/// What is said of a server that has no address.
const NOT_RESOLVED: &str = "is a host name that was not resolved";

/// Address and ports: what makes a server of a group the same.
pub(super) type Place = (IpAddr, Option<PortRange>);

struct Planner<'a> {
    present: &'a Configuration,
    merge: bool,
    next: Configuration,
    report: Report,
    mistakes: Vec<Mistake>,
    /// [`key`]s of the groups that are different.
    groups: HashSet<String>,
    /// [`key`]s of the health checks that are different.
    checks: HashSet<String>,
    /// [`key`]s of the rules that are different.
    rules: HashSet<String>,
    /// Where the document says something about a server, by the number of the server.
    places: HashMap<u32, String>,
}

impl<'a> Planner<'a> {
    fn new(present: &'a Configuration, merge: bool) -> Planner<'a> {
        Planner {
            present,
            merge,
            next: present.clone(),
            report: Report::default(),
            mistakes: Vec::new(),
            groups: HashSet::new(),
            checks: HashSet::new(),
            rules: HashSet::new(),
            places: HashMap::new(),
        }
    }

    fn note(&mut self, path: &str, message: impl std::fmt::Display) {
        self.mistakes.push(Mistake::new(path, message));
    }

    /// What the model says about a rule; the path leads to the key that it is about, if there is one.
    fn note_rule(&mut self, name: &str, error: ModelError) {
        let error = renamed(error);
        let path = match field(&error) {
            "" | "rule name" => format!("rule.{name}"),
            field => format!("rule.{name}.{field}"),
        };
        self.note(&path, error);
    }

    fn run(&mut self, document: &Document, broken: &HashSet<String>) {
        let named_groups = self.names("group", document.groups.iter().map(|g| &g.name));
        let named = self.names("rule", document.rules.iter().map(|r| &r.name));
        let named_checks = self.names("healthcheck", document.checks.iter().map(|c| &c.name));
        for check in &document.checks {
            if !broken.contains(&key(&check.name)) {
                self.check(check);
            }
        }
        for group in &document.groups {
            if let Err(error) = check_name(error::Item::ServerGroup, &group.name) {
                self.note(&format!("group.{}", group.name), error);
            }
            self.group(group);
        }
        if !self.merge {
            let gone = |(k, _): &(&String, &Arc<HealthCheck>)| !named_checks.contains(*k);
            for (k, check) in self.present.checks.iter().filter(gone) {
                self.next.checks.remove(k);
                let said = fields(&check_fields(&CheckEntry::of(check)), &[]);
                self.change(Action::Removed, Item::HealthCheck, &check.name, said);
            }
            for (_, group) in self
                .present
                .groups
                .iter()
                .filter(|(k, _)| !named_groups.contains(*k))
            {
                self.remove_group(group);
            }
            // Before others are made: what they claim becomes free.
            for (_, rule) in self
                .present
                .rules
                .iter()
                .filter(|(k, _)| !named.contains(*k))
            {
                self.remove_rule(rule);
            }
        }
        for rule in &document.rules {
            if broken.contains(&key(&rule.name)) {
                // Its claims are unknown; what it was says nothing about them.
                self.next.rules.remove(&key(&rule.name));
            } else {
                self.rule(rule, &named_checks);
            }
        }
        self.limits(document);
        self.fit();
        if !document.vrrp.is_empty() {
            self.report.notes.push(
                "vrrp is kept for a later version, which has failover: nothing was done about it"
                    .to_string(),
            );
        }
    }

    /// The [`key`]s of names, each of which may be there once.
    fn names<'n>(
        &mut self,
        word: &str,
        names: impl Iterator<Item = &'n String>,
    ) -> HashSet<String> {
        let mut keys = HashSet::new();
        for name in names {
            if !keys.insert(key(name)) {
                self.note(
                    &format!("{word}.{name}"),
                    format!("{word} '{name}' is there twice"),
                );
            }
        }
        keys
    }

    fn limits(&mut self, document: &Document) {
        if self.next.next_rule == u32::MAX || self.next.next_server == u32::MAX {
            self.note(
                "",
                "the numbers of rules and servers are used up: begin with an empty database",
            );
        }
        if self.next.rules.len() > MAX_RULES
            && let Some(last) = document.rules.last()
        {
            let path = format!("rule.{}", last.name);
            let message = format!(
                "there would be {} rules: there can be at most {MAX_RULES}",
                self.next.rules.len()
            );
            self.note(&path, message);
        }
    }

    /// Checks what is different against everything else.
    fn fit(&mut self) {
        let mut found: Vec<(String, ModelError)> = Vec::new();
        let mut claims: Vec<&Rule> = Vec::with_capacity(self.next.rules.len());
        for (k, rule) in &self.next.rules {
            claims.push(rule);
            let Some(group) = self.next.group_of(rule) else {
                // That is told with the rule.
                continue;
            };
            let different = self.rules.contains(k) || self.groups.contains(&key(&group.name));
            if let Some(check) = self.next.check_of(rule)
                && (different || self.checks.contains(&key(&check.name)))
                && let Err(error) = check_use(rule, check, &group.servers)
            {
                found.push((format!("rule.{}.healthcheck", rule.name), error));
            }
            if different {
                // Of many servers that do not fit for the same reason the first ones tell enough.
                for (at, error) in misfits(rule, group, 0).take(super::mistake::MOST) {
                    let place = self.places.get(&group.servers[at].number).cloned();
                    found.push((
                        place.unwrap_or_else(|| format!("rule.{}.group", rule.name)),
                        error,
                    ));
                }
            }
        }
        for error in claim_conflicts(&claims) {
            if let ModelError::Overlap { rule, other, .. } = &error {
                // Where the document says it: with the rule that it changes.
                let (mine, theirs) = (key(rule), key(other));
                let at = match self.rules.contains(&mine) || !self.rules.contains(&theirs) {
                    true => rule,
                    false => other,
                };
                found.push((format!("rule.{at}.vip"), error.clone()));
            }
        }
        for (path, error) in found {
            self.note(&path, error);
        }
    }

    fn remove_rule(&mut self, rule: &Rule) {
        self.next.rules.remove(&key(&rule.name));
        let fields = fields(&rule_fields(&RuleEntry::of(rule)), &[]);
        self.change(Action::Removed, Item::Rule, &rule.name, fields);
    }

    fn remove_group(&mut self, group: &ServerGroup) {
        self.next.groups.remove(&key(&group.name));
        self.change(Action::Removed, Item::Group, &group.name, Vec::new());
        for server in &group.servers {
            let said = fields(&server_fields(&ServerEntry::of(server)), &[]);
            self.server_change(Action::Removed, group, server, said);
        }
    }

    fn change(&mut self, action: Action, item: Item, name: &str, fields: Vec<Field>) {
        self.report.changes.push(Change {
            action,
            item,
            name: name.to_string(),
            group: None,
            anew: false,
            fields,
        });
    }

    fn server_change(
        &mut self,
        action: Action,
        group: &ServerGroup,
        server: &Server,
        fields: Vec<Field>,
    ) {
        self.report.changes.push(Change {
            action,
            item: Item::Server,
            name: server.id.clone(),
            group: Some(group.name.clone()),
            anew: false,
            fields,
        });
    }

    fn check(&mut self, entry: &CheckEntry) {
        let k = key(&entry.name);
        let old = self.present.checks.get(&k).cloned();
        let made = match &old {
            Some(old) if self.merge => entry.settings.amend(old).map_err(|error| vec![error]),
            _ => entry.settings.check_all(&entry.name),
        };
        let mut check = match made {
            Ok(check) => check,
            Err(errors) => {
                for error in errors {
                    self.note(
                        &format!("healthcheck.{}.{}", entry.name, field(&error)),
                        error,
                    );
                }
                return;
            }
        };
        let after = check_fields(&CheckEntry::of(&check));
        match &old {
            Some(old) => {
                check.name.clone_from(&old.name);
                if check == **old {
                    return;
                }
                let before = check_fields(&CheckEntry::of(old));
                let said = fields(&before, &after);
                self.change(Action::Changed, Item::HealthCheck, &old.name, said);
            }
            None => {
                let said = fields(&[], &after);
                self.change(Action::Created, Item::HealthCheck, &entry.name, said);
            }
        }
        self.checks.insert(k.clone());
        self.next.checks.insert(k, Arc::new(check));
    }

    fn rule(&mut self, entry: &RuleEntry, named_checks: &HashSet<String>) {
        let k = key(&entry.name);
        self.rules.insert(k.clone());
        let old = self.present.rules.get(&k).cloned();
        let full = match &old {
            Some(old) if self.merge => entry.clone().or(RuleEntry::of(old)),
            _ => entry.clone(),
        };
        let made = match full.rule() {
            Ok(rule) => rule,
            Err(errors) => {
                self.next.rules.remove(&k);
                for error in errors {
                    self.note_rule(&entry.name, error);
                }
                return;
            }
        };
        let mut rule = made;
        let problems = rule_problems(&rule);
        let sound = problems.is_empty();
        for error in problems {
            self.note_rule(&entry.name, error);
        }
        match self.next.group(&rule.servergroup) {
            Some(group) => rule.servergroup.clone_from(&group.name),
            None => {
                let suggestion = words::nearest(
                    &rule.servergroup,
                    self.next.groups.values().map(|g| g.name.as_str()),
                );
                let error = ModelError::NotFound {
                    item: error::Item::ServerGroup,
                    names: vec![rule.servergroup.clone()],
                    suggestion,
                };
                self.note(&format!("rule.{}.group", entry.name), error);
            }
        }
        if let Some(used) = &mut rule.health_check {
            match self.next.check(&used.name) {
                Some(check) => used.name.clone_from(&check.name),
                // One with mistakes of its own is no other mistake.
                None if named_checks.contains(&key(&used.name)) => {}
                None => {
                    let error = self.next.check_not_found(&[&used.name]);
                    self.note(&format!("rule.{}.healthcheck", entry.name), error);
                }
            }
        }
        if !sound {
            self.next.rules.remove(&k);
            return;
        }
        let Some(old) = old else {
            rule.number = self.next_rule();
            let said = fields(&[], &rule_fields(&RuleEntry::of(&rule)));
            self.change(Action::Created, Item::Rule, &entry.name, said);
            self.next.rules.insert(k, Arc::new(rule));
            return;
        };
        keep_order(&mut rule, &old);
        rule.name.clone_from(&old.name);
        rule.number = old.number;
        if rule == *old {
            self.rules.remove(&k);
            return;
        }
        let anew = !same_life(&rule, &old);
        if anew {
            rule.number = self.next_rule();
        }
        let before = rule_fields(&RuleEntry::of(&old));
        let after = rule_fields(&RuleEntry::of(&rule));
        self.change(
            Action::Changed,
            Item::Rule,
            &old.name,
            fields(&before, &after),
        );
        if let Some(change) = self.report.changes.last_mut() {
            change.anew = anew;
        }
        self.next.rules.insert(k, Arc::new(rule));
    }

    fn next_rule(&mut self) -> u32 {
        let number = self.next.next_rule;
        self.next.next_rule = number.saturating_add(1);
        number
    }

    fn group(&mut self, entry: &GroupEntry) {
        let path = format!("group.{}", entry.name);
        let k = key(&entry.name);
        let old = self.present.groups.get(&k).cloned();
        let mut group = ServerGroup {
            name: old.as_ref().map_or(&entry.name, |old| &old.name).clone(),
            servers: Vec::new(),
            next_index: old.as_ref().map_or(0, |old| old.next_index),
            places: old.as_ref().map_or(0, |old| old.places),
        };
        let known: HashMap<Place, &Server> = old
            .iter()
            .flat_map(|old| &old.servers)
            .map(|server| ((server.address, server.ports), server))
            .collect();
        let name = group.name.clone();
        let mut ids = Ids::new(&name, group.next_index, &entry.servers, &known);
        let mut seen: HashMap<Place, usize> = HashMap::new();
        let mut changes: Vec<(Action, Server, Vec<Field>)> = Vec::new();
        for (at, said) in entry.servers.iter().enumerate() {
            let path = format!("{path}.servers[{at}]");
            let Some(address) = said.address else {
                let host = said.host.clone().unwrap_or_default();
                let message = format!(
                    "server '{}' {NOT_RESOLVED}: give its address, too: '{host}=ADDRESS'",
                    said.place()
                );
                self.note(&path, message);
                continue;
            };
            let place = (address, said.ports);
            if seen.insert(place, at).is_some() {
                let message = format!(
                    "server {} is in group '{}' twice: each address and port can be there once",
                    said.place(),
                    entry.name
                );
                self.note(&path, message);
                continue;
            }
            let before = known.get(&place).copied();
            let mut server = match before {
                Some(server) => server.clone(),
                None => Server {
                    number: self.next.next_server,
                    id: ids.next(said, &mut self.report.notes),
                    address,
                    host_name: None,
                    ports: said.ports,
                    weight: 1,
                    max_connections: 0,
                    min_connections: 0,
                    enabled: true,
                    place: UNPLACED,
                },
            };
            self.say(said, &mut server);
            let limits =
                crate::server::check_limits(server.max_connections, server.min_connections);
            if let Err(error) = limits {
                self.note(&format!("{path}.min-conn"), error);
            }
            match before {
                Some(before) => {
                    if let Some(id) = &said.id
                        && !id.eq_ignore_ascii_case(&before.id)
                    {
                        let note = format!(
                            "server {} keeps its id {}: {id} was asked for",
                            said.place(),
                            before.id
                        );
                        self.report.notes.push(note);
                    }
                    if server != *before {
                        let was = server_fields(&ServerEntry::of(before));
                        let is = server_fields(&ServerEntry::of(&server));
                        changes.push((Action::Changed, server.clone(), fields(&was, &is)));
                    }
                }
                None => {
                    self.next.next_server = server.number.saturating_add(1);
                    let is = server_fields(&ServerEntry::of(&server));
                    changes.push((Action::Created, server.clone(), fields(&[], &is)));
                }
            }
            self.places.insert(server.number, path);
            group.servers.push(server);
        }
        for server in old.iter().flat_map(|old| &old.servers) {
            if seen.contains_key(&(server.address, server.ports)) {
                continue;
            }
            if self.merge {
                group.servers.push(server.clone());
            } else {
                let was = server_fields(&ServerEntry::of(server));
                changes.push((Action::Removed, server.clone(), fields(&was, &[])));
            }
        }
        group.next_index = ids.end();
        // Servers are in the order in which they came to be.
        group.servers.sort_by_key(|server| server.number);
        group.settle();
        if group.servers.len() > MAX_SERVERS {
            let message = format!(
                "group '{}' would have {} servers: there can be at most {MAX_SERVERS}",
                group.name,
                group.servers.len()
            );
            self.note(&path, message);
        }
        let action = match &old {
            Some(_) if changes.is_empty() => return,
            Some(_) => Action::Changed,
            None => Action::Created,
        };
        self.change(action, Item::Group, &group.name, Vec::new());
        for (action, server, fields) in changes {
            self.server_change(action, &group, &server, fields);
        }
        self.groups.insert(k.clone());
        self.next.groups.insert(k, Arc::new(group));
    }

    /// What is said about a server; what is not said has its default, or stays if the document is merged.
    fn say(&self, said: &ServerEntry, server: &mut Server) {
        let other = match self.merge {
            true => server.clone(),
            false => Server {
                host_name: None,
                weight: 1,
                max_connections: 0,
                min_connections: 0,
                enabled: true,
                ..server.clone()
            },
        };
        *server = Server {
            host_name: said.host.clone().or(other.host_name),
            weight: said.weight.unwrap_or(other.weight),
            max_connections: said.max_connections.unwrap_or(other.max_connections),
            min_connections: said.min_connections.unwrap_or(other.min_connections),
            enabled: said.enabled.unwrap_or(other.enabled),
            ..other
        };
    }

    fn finish(mut self, document: &Document, text: &Arc<str>) -> Result<Plan, Mistakes> {
        if !self.mistakes.is_empty() {
            return Err(Mistakes::new(self.mistakes, &document.marks, text));
        }
        let total = |c: &Configuration| {
            let servers: usize = c.groups.values().map(|g| g.servers.len()).sum();
            (c.rules.len(), c.groups.len(), servers)
        };
        let (rules, groups, servers) = total(&self.next);
        let touched = |item: Item| {
            let all = self.report.changes.iter();
            all.filter(|c| c.item == item && c.action != Action::Removed)
                .count()
        };
        self.report.unchanged.rules = rules - touched(Item::Rule);
        self.report.unchanged.groups = groups - touched(Item::Group);
        self.report.unchanged.healthchecks = self.next.checks.len() - touched(Item::HealthCheck);
        self.report.unchanged.servers = servers - touched(Item::Server);
        Ok(Plan {
            configuration: self.next,
            report: self.report,
        })
    }
}

/// Gives lists that hold the same the order that they had: connections remember places in them.
fn keep_order(rule: &mut Rule, old: &Rule) {
    fn same<T: PartialEq>(a: &[T], b: &[T]) -> bool {
        a.len() == b.len() && a.iter().all(|item| b.contains(item))
    }
    if same(&rule.vips, &old.vips) {
        rule.vips.clone_from(&old.vips);
    }
    if same(&rule.proxy_src, &old.proxy_src) {
        rule.proxy_src.clone_from(&old.proxy_src);
    }
    if same(&rule.clients, &old.clients) {
        rule.clients.clone_from(&old.clients);
    }
}

/// Whether everything is the same that connections of a rule depend on, see [`crate::rule::RuleSettings::amend`].
fn same_life(a: &Rule, b: &Rule) -> bool {
    a.vips == b.vips
        && a.topology == b.topology
        && a.tunnel == b.tunnel
        && a.proxy_src == b.proxy_src
        && a.servergroup == b.servergroup
}

/// What is different between two lists of fields.
fn fields(before: &[(&'static str, Value)], after: &[(&'static str, Value)]) -> Vec<Field> {
    let find = |list: &[(&'static str, Value)], field: &str| {
        let found = list.iter().find(|(key, _)| *key == field);
        found.map(|(_, value)| value.plain())
    };
    let gone = before
        .iter()
        .filter(|(key, _)| !after.iter().any(|(k, _)| k == key));
    let keys = after.iter().chain(gone).map(|(key, _)| *key);
    keys.map(|key| Field {
        field: key.to_string(),
        old: find(before, key),
        new: find(after, key),
    })
    .filter(|field| field.old != field.new)
    .collect()
}
