//! A change that is taken back unless it is confirmed in time. It is part of the durable state: a manager that was killed
//! meanwhile takes it back after its start. Pure: time comes in.

use std::sync::Arc;

use libilb::apply::Waiting;
use libilb::healthcheck::HealthCheck;
use libilb::model::{Configuration, Rule, ServerGroup};
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pending {
    /// When it is over and who made the change.
    #[serde(flatten)]
    pub waiting: Waiting,
    /// Seconds that it had at the beginning: a clock that is set back does not give it more.
    pub seconds: u32,
    /// Rules as they were before, of those that are different.
    #[serde(default)]
    rule: Vec<Before<Rule>>,
    /// Health checks likewise.
    #[serde(default)]
    healthcheck: Vec<Before<HealthCheck>>,
    /// Server groups likewise.
    #[serde(default)]
    servergroup: Vec<Before<ServerGroup>>,
}

/// An item as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Before<T> {
    key: String,
    /// `None` if it was not there.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    was: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

impl Pending {
    /// For a change from `before` to `after` at `now`, in seconds of the Unix clock.
    pub fn new(
        before: &Configuration,
        after: &Configuration,
        waiting: Waiting,
        seconds: u32,
    ) -> Pending {
        fn was<T: Clone>(key: &str, before: Option<&Arc<T>>) -> Before<T> {
            Before {
                key: key.to_owned(),
                was: before.map(|item| item.as_ref().clone()),
            }
        }
        Pending {
            waiting,
            seconds,
            rule: after
                .rules
                .since(&before.rules)
                .map(|rule| was(rule.key, rule.before))
                .collect(),
            healthcheck: after
                .checks
                .since(&before.checks)
                .map(|check| was(check.key, check.before))
                .collect(),
            servergroup: after
                .groups
                .since(&before.groups)
                .map(|group| was(group.key, group.before))
                .collect(),
        }
    }

    /// Seconds that are left at `now`, in seconds of the Unix clock.
    pub fn left(&self, now: u64) -> u64 {
        let left = self.waiting.until.saturating_sub(now);
        left.min(self.seconds.into())
    }

    /// The configuration as it was. Items have the numbers and ids that they had; none that was given since is given
    /// again.
    pub fn back(&self, now: &Configuration) -> Configuration {
        let mut back = now.clone();
        for group in &self.servergroup {
            let now = now.groups.get(&group.key);
            let (next, places) = now.map_or((0, 0), |now| (now.next_index, now.places));
            match &group.was {
                Some(was) => {
                    let mut was = was.clone();
                    was.next_index = was.next_index.max(next);
                    was.places = was.places.max(places);
                    back.groups.insert(group.key.clone(), Arc::new(was));
                }
                None => drop(back.groups.remove(&group.key)),
            }
        }
        for check in &self.healthcheck {
            match &check.was {
                Some(was) => drop(back.checks.insert(check.key.clone(), Arc::new(was.clone()))),
                None => drop(back.checks.remove(&check.key)),
            }
        }
        for rule in &self.rule {
            match &rule.was {
                Some(was) => drop(back.rules.insert(rule.key.clone(), Arc::new(was.clone()))),
                None => drop(back.rules.remove(&rule.key)),
            }
        }
        back
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libilb::document;

    const BEFORE: &str = "[group.web]\nservers = [\"192.0.2.1\", \"192.0.2.2\"]\n[group.old]\nservers = [\"192.0.2.3\"]\n[healthcheck.c]\ntest = \"tcp\"\n\
        [rule.www]\nvip = \"198.51.100.1\"\nport = 80\nlbalg = \"rr\"\ntype = \"DSR\"\ngroup = \"web\"\n\
        [rule.same]\nvip = \"198.51.100.1\"\nport = 81\nlbalg = \"rr\"\ntype = \"DSR\"\ngroup = \"web\"\n";
    const AFTER: &str = "[group.web]\nservers = [\"192.0.2.1\", \"192.0.2.9\"]\n[group.new]\nservers = [\"192.0.2.4\"]\n[healthcheck.c]\ntest = \"tcp\"\ncount = 5\n[healthcheck.d]\ntest = \"ping\"\n\
        [rule.www]\nvip = \"198.51.100.2\"\nport = 80\nlbalg = \"rr\"\ntype = \"DSR\"\ngroup = \"new\"\n\
        [rule.same]\nvip = \"198.51.100.1\"\nport = 81\nlbalg = \"rr\"\ntype = \"DSR\"\ngroup = \"web\"\n";

    fn pending() -> (Configuration, Configuration, Pending) {
        let empty = Configuration::default();
        let before = document::plan(BEFORE, &empty, false).unwrap().configuration;
        let after = document::plan(AFTER, &before, false).unwrap().configuration;
        let waiting = Waiting {
            until: 1060,
            generation: 7,
            author: "root".into(),
        };
        let pending = Pending::new(&before, &after, waiting, 60);
        (before, after, pending)
    }

    #[test]
    fn it_leads_back_to_what_was_with_its_numbers() {
        let (before, after, pending) = pending();
        let back = pending.back(&after);
        back.validate().unwrap();
        assert_eq!(back.rules, before.rules);
        assert_eq!(
            document::to_toml(&back),
            document::to_toml(&before),
            "servers have their ids"
        );
        assert_eq!(back.next_rule, after.next_rule);
        assert_eq!(back.next_server, after.next_server);
        assert_eq!(
            back.group("web").unwrap().next_index,
            after.group("web").unwrap().next_index
        );
        let keys: Vec<_> = pending.rule.iter().map(|rule| rule.key.as_str()).collect();
        assert_eq!(keys, ["www"], "what is the same is not kept twice");
    }

    #[test]
    fn it_survives_json_and_toml() {
        let (_, _, pending) = pending();
        let json = serde_json::to_string(&pending).unwrap();
        assert_eq!(serde_json::from_str::<Pending>(&json).unwrap(), pending);
        let text = toml::to_string(&pending).unwrap();
        assert_eq!(toml::from_str::<Pending>(&text).unwrap(), pending);
    }

    #[test]
    fn a_clock_that_jumps_shortens_the_time_only() {
        let (_, _, pending) = pending();
        for (now, left) in [(1000, 60), (1059, 1), (1060, 0), (5000, 0), (10, 60)] {
            assert_eq!(pending.left(now), left, "at {now}");
        }
    }
}
