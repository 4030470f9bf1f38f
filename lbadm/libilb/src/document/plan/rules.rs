//! Rules of a document: which are new, changed or as they were.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::entry::RuleEntry;
use super::super::read::{field, renamed};
use super::super::report::{Action, Item};
use super::super::write::rule_fields;
use super::{Planner, fields};
use crate::error::{self, ModelError};
use crate::model::key;
use crate::rule::{Rule, rule_problems};
use crate::words;

impl Planner<'_> {
    /// Makes one rule of a document.
    pub(super) fn rule(&mut self, entry: &RuleEntry, named_checks: &HashSet<String>) {
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

    /// Takes a rule out.
    pub(super) fn remove_rule(&mut self, rule: &Rule) {
        self.next.rules.remove(&key(&rule.name));
        let fields = fields(&rule_fields(&RuleEntry::of(rule)), &[]);
        self.change(Action::Removed, Item::Rule, &rule.name, fields);
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
