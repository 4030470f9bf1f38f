//! What is different between two configurations, item by item and field by field, as a person or a program reads it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map as Fields, Value};

use crate::model::{Configuration, ServerGroup};
use crate::server::Server;

/// One item that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What kind of item: `rule`, `servergroup`, `server`, `healthcheck`, `vrrp`. More may come.
    pub item: String,
    /// Its name or id.
    pub name: String,
    /// What became of it.
    pub change: Change,
    /// The fields that are not the same, under the names that they have in `Describe`; of an item that is created or
    /// deleted all.
    pub fields: Vec<Field>,
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there before.
    Created,
    /// It is not there any more.
    Deleted,
    /// It is another.
    Changed,
}

/// One field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What it was; null if it was not there.
    pub before: Value,
    /// What it is; null if it is not there.
    pub after: Value,
}

/// What leads from `before` to `after`: server groups, their servers, health checks, VRRP instances, rules, each in the order of their names.
pub fn between(before: &Configuration, after: &Configuration) -> Vec<Difference> {
    let mut found = Vec::new();
    for group in after.groups.since(&before.groups) {
        let (old, new) = (group.before, group.after);
        let name = new.or(old).map_or("", |group| &group.name);
        let said = |group: Option<&std::sync::Arc<ServerGroup>>| {
            group.map(|group| {
                let source = group.source.iter();
                let source = source.map(|s| ("source".to_owned(), Value::from(s.words())));
                source.collect::<Fields<String, Value>>()
            })
        };
        let (was, is) = (said(old), said(new));
        if was != is {
            found.extend(difference("servergroup", name, was, is));
        }
        servers(old.map(AsRef::as_ref), new.map(AsRef::as_ref), &mut found);
    }
    for check in after.checks.since(&before.checks) {
        let name = check.after.or(check.before).map_or("", |check| &check.name);
        let (old, new) = (check.before.map(fields), check.after.map(fields));
        found.extend(difference("healthcheck", name, old, new));
    }
    for instance in after.vrrp.since(&before.vrrp) {
        let (old, new) = (instance.before, instance.after);
        let name = new.or(old).map_or("", |instance| &instance.name);
        found.extend(difference("vrrp", name, old.map(fields), new.map(fields)));
    }
    for rule in after.rules.since(&before.rules) {
        let name = rule.after.or(rule.before).map_or("", |rule| &rule.name);
        let (old, new) = (rule.before.map(fields), rule.after.map(fields));
        found.extend(difference("rule", name, old, new));
    }
    found
}

/// Two servers of one id and different numbers are not one that was changed.
fn servers(old: Option<&ServerGroup>, new: Option<&ServerGroup>, found: &mut Vec<Difference>) {
    let of = |group: Option<&ServerGroup>, number: u32| -> Option<Server> {
        let mut servers = group?.servers.iter();
        servers.find(|server| server.number == number).cloned()
    };
    let all = [old, new]
        .into_iter()
        .flatten()
        .flat_map(|group| &group.servers);
    let numbers: BTreeSet<u32> = all.map(|server| server.number).collect();
    for number in numbers {
        let (old, new) = (of(old, number), of(new, number));
        if old != new {
            let id = new
                .as_ref()
                .or(old.as_ref())
                .map_or("", |server| &server.id);
            let both = (old.as_ref().map(fields), new.as_ref().map(fields));
            found.extend(difference("server", id, both.0, both.1));
        }
    }
}

/// `None` if both have the same fields.
fn difference(
    item: &str,
    name: &str,
    before: Option<Fields<String, Value>>,
    after: Option<Fields<String, Value>>,
) -> Option<Difference> {
    let change = match (&before, &after) {
        (None, Some(_)) => Change::Created,
        (Some(_), None) => Change::Deleted,
        _ => Change::Changed,
    };
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let value = |fields: &Fields<String, Value>, name: &String| {
        fields.get(name).cloned().unwrap_or(Value::Null)
    };
    let fields: Vec<Field> = names
        .into_iter()
        .map(|name| Field {
            name: name.clone(),
            before: value(&before, name),
            after: value(&after, name),
        })
        .filter(|field| field.before != field.after)
        .collect();
    (change != Change::Changed || !fields.is_empty()).then(|| Difference {
        item: item.to_owned(),
        name: name.to_owned(),
        change,
        fields,
    })
}

/// The fields of an item, but for what only names it within ilb.
fn fields<T: Serialize>(item: &T) -> Fields<String, Value> {
    match serde_json::to_value(item) {
        Ok(Value::Object(mut fields)) => {
            for known in ["number", "name", "id", "place"] {
                fields.remove(known);
            }
            fields
        }
        _ => Fields::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::RuleSettings;
    use serde_json::json;

    #[test]
    fn every_item_that_is_different_is_named_once_with_what_is_different() {
        let mut before = Configuration::default();
        before
            .create_group("web", &["192.0.2.1", "192.0.2.2"])
            .unwrap();
        before.create_group("old", &["192.0.2.8"]).unwrap();
        let settings = RuleSettings {
            vip: "198.51.100.1".into(),
            port: "80".into(),
            algorithm: "rr".into(),
            topology: "DSR".into(),
            servergroup: "web".into(),
            ..RuleSettings::default()
        };
        before.create_rule("www", &settings).unwrap();
        let mut after = before.clone();
        after.delete_groups(&["old"]).unwrap();
        after.enable_servers(&["_web.0"], false).unwrap();
        after.remove_servers("web", &["_web.1"]).unwrap();
        after.add_servers("web", &["192.0.2.3"]).unwrap();
        after.enable_rules(&["www"], true).unwrap();

        let found = between(&before, &after);
        let short: Vec<_> = found
            .iter()
            .map(|d| (d.item.as_str(), d.name.as_str(), d.change))
            .collect();
        let expected = [
            ("servergroup", "old", Change::Deleted),
            ("server", "_old.0", Change::Deleted),
            ("server", "_web.0", Change::Changed),
            ("server", "_web.1", Change::Deleted),
            ("server", "_web.2", Change::Created),
            ("rule", "www", Change::Changed),
        ];
        assert_eq!(short, expected);
        let enabled = |before: Value, after: Value| Field {
            name: "enabled".into(),
            before,
            after,
        };
        assert_eq!(found[2].fields, [enabled(json!(true), json!(false))]);
        assert_eq!(found[5].fields, [enabled(json!(false), json!(true))]);
        assert!(found[4].fields.contains(&enabled(Value::Null, json!(true))));
        assert_eq!(between(&before, &before.clone()), []);
        // And back again: created and deleted change places.
        assert_eq!(between(&after, &before).len(), found.len());
    }
}
