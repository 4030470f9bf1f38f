//! The history of the configuration: what `History`, `Rollback` and `PreviewRollback` of the manager say.

use serde::{Deserialize, Serialize};

use crate::difference::Difference;
use crate::model::Configuration;

/// One generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its number. Numbers only grow; some may be missing.
    pub generation: u64,
    /// When it came about, in seconds of the Unix clock; none if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
    /// The number of the user who made it; none if it was the manager itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The name of who made it; none for a user without name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What was done, such as `create rule www`.
    pub words: String,
    /// Whether one can go back to it.
    pub kept: bool,
}

/// What going back to a generation changed, or would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The generation before.
    pub from: u64,
    /// The one whose configuration is restored.
    pub to: u64,
    /// The new generation; the same as `from` if nothing was changed.
    pub generation: u64,
    /// What is different.
    pub differences: Vec<Difference>,
}

impl Configuration {
    /// The configuration `old`, to come after this one: its items have the numbers and ids that they had, and none that
    /// was given since is given again.
    pub fn restored(&self, old: Configuration) -> Configuration {
        let mut restored = Configuration {
            next_rule: self.next_rule.max(old.next_rule),
            next_server: self.next_server.max(old.next_server),
            ..old
        };
        let given: Vec<(String, u32, u32)> = restored
            .groups
            .iter()
            .filter_map(|(key, group)| {
                let now = self.groups.get(key)?;
                let grown = now.next_index > group.next_index || now.places > group.places;
                grown.then(|| (key.clone(), now.next_index, now.places))
            })
            .collect();
        for (key, next_index, places) in given {
            if let Some(group) = restored.groups.get_mut(&key) {
                let group = std::sync::Arc::make_mut(group);
                group.next_index = group.next_index.max(next_index);
                group.places = group.places.max(places);
            }
        }
        restored
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::RuleSettings;

    fn rule(vip: &str) -> RuleSettings {
        RuleSettings {
            vip: vip.into(),
            port: "80".into(),
            algorithm: "rr".into(),
            topology: "DSR".into(),
            servergroup: "web".into(),
            ..RuleSettings::default()
        }
    }

    #[test]
    fn what_comes_back_has_its_numbers_and_no_number_is_given_twice() {
        let mut old = Configuration::default();
        old.create_group("web", &["192.0.2.1", "192.0.2.2"])
            .unwrap();
        old.create_rule("www", &rule("198.51.100.1")).unwrap();
        let mut new = old.clone();
        new.delete_rules(&["www"]).unwrap();
        new.create_rule("www", &rule("198.51.100.2")).unwrap();
        new.remove_servers("web", &["_web.1"]).unwrap();
        new.add_servers("web", &["192.0.2.3"]).unwrap();
        new.create_group("more", &["192.0.2.9"]).unwrap();

        let mut restored = new.restored(old.clone());
        assert_eq!(restored.rules, old.rules);
        assert_eq!(restored.rule("www").unwrap().number, 1);
        assert_eq!(
            restored.group("web").unwrap().servers,
            old.group("web").unwrap().servers
        );
        restored.validate().unwrap();
        let again = restored.add_servers("web", &["192.0.2.4"]).unwrap();
        assert_eq!((again[0].id.as_str(), again[0].number), ("_web.3", 5));
        let again = restored.create_rule("more", &rule("198.51.100.3")).unwrap();
        assert_eq!(again.number, 3);
    }
}
