//! From a document and the present configuration to the one that there shall be. What stays the same is left untouched, so
//! that it keeps numbers, ids and connections.

mod checks;
mod groups;
mod instances;
mod rules;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Document;
use super::entry::{CheckEntry, ServerEntry};
use super::mistake::{Mistake, Mistakes};
use super::read::{self, Reading};
use super::report::{Action, Change, Field, Item, Report};
use super::value::Value;
use super::write::check_fields;
use crate::error::{self, ModelError};
use crate::healthcheck::HealthCheck;
use crate::healthcheck_use::check_use;
use crate::model::{Configuration, MAX_RULES, key};
use crate::rule::{Rule, check_name};
use crate::server::{Server, ServerSpec, Target};
use crate::servergroup::ServerGroup;
use crate::validate::{claim_conflicts, misfits};

pub(super) use self::groups::Place;

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
        broken_vrrp,
        text,
    } = read::read(text);
    let mut planner = Planner::new(present, merge);
    planner.mistakes = mistakes;
    planner.run(&document, &broken, &broken_vrrp);
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
        broken_vrrp,
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
                place: None,
                found: false,
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
        planner.run(&document, &broken, &broken_vrrp);
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
    planner.run(document, &HashSet::new(), &HashSet::new());
    planner.finish(document, &"".into())
}

/// What is said of a server that has no address.
const NOT_RESOLVED: &str = "is a host name that was not resolved";

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

    fn run(
        &mut self,
        document: &Document,
        broken: &HashSet<String>,
        broken_vrrp: &HashSet<String>,
    ) {
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
        self.instances(document, broken_vrrp);
        if !document.kept.is_empty() {
            self.report.notes.push(
                "kept is what an importer found and has no place for: nothing was done about it"
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
        self.report.unchanged.vrrp = self.next.vrrp.len() - touched(Item::Vrrp);
        self.report.unchanged.healthchecks = self.next.checks.len() - touched(Item::HealthCheck);
        self.report.unchanged.servers = servers - touched(Item::Server);
        Ok(Plan {
            configuration: self.next,
            report: self.report,
        })
    }
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
