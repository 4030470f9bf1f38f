//! Rules and servers that take no new connections but still serve those that they have.
//!
//! Whatever leaves the active configuration (disabled, deleted, removed) is kept here, frozen as it last was, and goes on
//! being part of every snapshot until its last connection has ended or its rule's conn-drain is over. Pure: time comes in.

use std::collections::HashSet;
use std::sync::Arc;

use ilb_forwarder::spec::{RuleId, ServerId};
use ilb_node::control::{Counters, Statistics};
use libilb::map::{Difference, Map};
use libilb::model::{Configuration, Rule, Server};
use serde::{Deserialize, Serialize};

/// Names one retired item: a rule, or a server within a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RetiredKey {
    /// A whole rule.
    Rule(RuleId),
    /// A server of a rule that is active.
    Server(RuleId, ServerId),
}

/// A rule that was disabled or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredRule {
    /// Seconds of the Unix clock when it was retired.
    pub since: u64,
    /// The rule as it last was. Its conn-drain says how many seconds its connections may live on; 0 is without limit.
    pub rule: Rule,
    /// Its servers, those included that were retired before it.
    pub servers: Vec<Server>,
}

/// A server that was disabled or removed while its rule goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredServer {
    /// Seconds of the Unix clock when it was retired.
    pub since: u64,
    /// Seconds that its connections may live on; 0 is without limit.
    pub conn_drain: u32,
    /// The server as it last was.
    pub server: Server,
}

/// Everything that is retired. A clone shares everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    /// By the rule's number.
    pub rules: Map<RuleId, Arc<RetiredRule>>,
    /// By the numbers of rule and server. The rule is active.
    pub servers: Map<(RuleId, ServerId), Arc<RetiredServer>>,
}

impl Retired {
    /// Whether there is nothing to supervise.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.servers.is_empty()
    }

    /// All items.
    #[cfg(test)]
    pub fn keys(&self) -> impl Iterator<Item = RetiredKey> {
        let rules = self.rules.keys().map(|id| RetiredKey::Rule(*id));
        let servers = self
            .servers
            .keys()
            .map(|(rule, server)| RetiredKey::Server(*rule, *server));
        rules.chain(servers)
    }

    /// Rules, with server 0, and servers of rules.
    pub fn places(&self) -> Vec<(RuleId, ServerId)> {
        let rules = self.rules.keys().map(|rule| (*rule, 0));
        rules.chain(self.servers.keys().copied()).collect()
    }

    /// The retired servers of one active rule.
    pub fn servers_of(&self, rule: RuleId) -> impl Iterator<Item = &Arc<RetiredServer>> {
        self.keys_of(rule).map(|(_, server)| server)
    }

    fn keys_of(
        &self,
        rule: RuleId,
    ) -> impl Iterator<Item = (&(RuleId, ServerId), &Arc<RetiredServer>)> {
        self.servers
            .from(&(rule, 0))
            .take_while(move |((of, _), _)| *of == rule)
    }

    /// Follows a change of the configuration: retires what is no longer active, takes back what is active again. Looks at
    /// what has changed only.
    pub fn follow(&mut self, before: &Configuration, after: &Configuration, now: u64) {
        for Difference {
            before: old,
            after: new,
            ..
        } in after.rules.since(&before.rules)
        {
            let old = old.filter(|rule| rule.enabled);
            let new = new.filter(|rule| rule.enabled);
            match (old, new) {
                (Some(old), Some(new)) if old.number == new.number => {
                    self.follow_servers(before, old, after, new, now);
                }
                (old, new) => {
                    if let Some(old) = old {
                        self.retire_rule(before, old, now);
                    }
                    if let Some(new) = new
                        && let Some(record) = self.rules.remove(&new.number)
                    {
                        self.revive_rule(&record, after, new);
                    }
                }
            }
        }
        // Of rules that have not changed themselves.
        for group in after.groups.since(&before.groups) {
            for rule in after.rules_of(group.key).filter(|rule| rule.enabled) {
                if before.rule(&rule.name) == Some(rule) {
                    self.follow_servers(before, rule, after, rule, now);
                }
            }
        }
    }

    fn retire_rule(&mut self, before: &Configuration, rule: &Rule, now: u64) {
        let mut servers: Vec<Server> = enabled_servers(before, rule).cloned().collect();
        let keys: Vec<_> = self.keys_of(rule.number).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(record) = self.servers.remove(&key) {
                servers.push(record.server.clone());
            }
        }
        let record = RetiredRule {
            since: now,
            rule: rule.clone(),
            servers,
        };
        self.rules.insert(rule.number, Arc::new(record));
    }

    /// A retired rule is enabled again: servers that it had and has no longer are retired in its stead.
    fn revive_rule(&mut self, record: &RetiredRule, after: &Configuration, rule: &Rule) {
        let active: HashSet<ServerId> = enabled_servers(after, rule).map(|s| s.number).collect();
        for server in &record.servers {
            if !active.contains(&server.number) {
                self.retire_server(rule, server, record.since);
            }
        }
    }

    fn follow_servers(
        &mut self,
        before: &Configuration,
        old: &Rule,
        after: &Configuration,
        new: &Rule,
        now: u64,
    ) {
        if let (Some(old), Some(new)) = (before.group_of(old), after.group_of(new))
            && Arc::ptr_eq(old, new)
        {
            return;
        }
        for server in enabled_servers(after, new) {
            self.servers.remove(&(new.number, server.number));
        }
        let active: HashSet<ServerId> = enabled_servers(after, new).map(|s| s.number).collect();
        for server in enabled_servers(before, old) {
            if !active.contains(&server.number) {
                self.retire_server(new, server, now);
            }
        }
    }

    fn retire_server(&mut self, rule: &Rule, server: &Server, since: u64) {
        let record = RetiredServer {
            since,
            conn_drain: rule.conn_drain,
            server: server.clone(),
        };
        self.servers
            .insert((rule.number, server.number), Arc::new(record));
    }

    /// Drops one item.
    pub fn remove(&mut self, key: RetiredKey) {
        match key {
            RetiredKey::Rule(rule) => drop(self.rules.remove(&rule)),
            RetiredKey::Server(rule, server) => drop(self.servers.remove(&(rule, server))),
        }
    }

    /// The items whose conn-drain is over at `now`. A clock that was set back only makes them wait.
    pub fn overdue(&self, now: u64) -> Vec<RetiredKey> {
        let over =
            |since: u64, limit: u32| limit > 0 && now.saturating_sub(since) >= u64::from(limit);
        let rules = self
            .rules
            .iter()
            .filter(|(_, rule)| over(rule.since, rule.rule.conn_drain))
            .map(|(id, _)| RetiredKey::Rule(*id));
        let servers = self
            .servers
            .iter()
            .filter(|(_, server)| over(server.since, server.conn_drain))
            .map(|((rule, server), _)| RetiredKey::Server(*rule, *server));
        rules.chain(servers).collect()
    }

    /// The items of which the fast path says that they have no connection. What it does not mention is not known to
    /// have none.
    pub fn without_connections(&self, statistics: &Statistics) -> Vec<RetiredKey> {
        let mut none = Vec::new();
        for rule in &statistics.rules {
            if self.rules.contains_key(&rule.id) {
                if idle(&rule.counters) {
                    none.push(RetiredKey::Rule(rule.id));
                }
                continue;
            }
            for server in &rule.servers {
                if self.servers.contains_key(&(rule.id, server.id)) && idle(&server.counters) {
                    none.push(RetiredKey::Server(rule.id, server.id));
                }
            }
        }
        none
    }
}

fn idle(counters: &Counters) -> bool {
    counters.connections_open == 0 && counters.connections_total == 0
}

/// The servers to which a rule sends new connections.
fn enabled_servers<'a>(
    configuration: &'a Configuration,
    rule: &Rule,
) -> impl Iterator<Item = &'a Server> {
    configuration
        .group_of(rule)
        .into_iter()
        .flat_map(|group| &group.servers)
        .filter(|server| server.enabled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ilb_node::control::{RuleStatistics, ServerStatistics};
    use libilb::model::RuleSettings;

    fn configuration() -> Configuration {
        let mut configuration = Configuration::default();
        configuration
            .create_group("web", &["192.0.2.10", "192.0.2.11"])
            .unwrap();
        let settings = RuleSettings {
            enabled: true,
            vip: "198.51.100.1".into(),
            port: "80".into(),
            algorithm: "rr".into(),
            topology: "DSR".into(),
            servergroup: "web".into(),
            conn_drain: Some(30),
            ..RuleSettings::default()
        };
        configuration.create_rule("r", &settings).unwrap();
        configuration
    }

    fn step(
        retired: &mut Retired,
        before: &Configuration,
        change: impl FnOnce(&mut Configuration),
    ) -> Configuration {
        let mut after = before.clone();
        change(&mut after);
        retired.follow(before, &after, 100);
        after
    }

    #[test]
    fn a_deleted_rule_lives_on_with_its_servers() {
        let mut retired = Retired::default();
        step(&mut retired, &configuration(), |c| {
            drop(c.delete_all_rules())
        });
        assert_eq!(retired.rules[&1].servers.len(), 2);
        assert_eq!(retired.overdue(129), []);
        assert_eq!(retired.overdue(130), [RetiredKey::Rule(1)]);
        assert_eq!(retired.overdue(0), []);
    }

    #[test]
    fn a_rule_that_was_never_enabled_leaves_nothing() {
        let mut before = configuration();
        before.enable_rules::<&str>(&[], false).unwrap();
        let mut retired = Retired::default();
        step(&mut retired, &before, |c| drop(c.delete_all_rules()));
        assert!(retired.is_empty());
    }

    #[test]
    fn a_disabled_server_retires_and_comes_back() {
        let mut retired = Retired::default();
        let off = step(&mut retired, &configuration(), |c| {
            c.enable_servers(&["_web.1"], false).unwrap();
        });
        let number = off.server("_web.1").unwrap().1.number;
        assert_eq!(
            retired.keys().collect::<Vec<_>>(),
            [RetiredKey::Server(1, number)]
        );
        step(&mut retired, &off, |c| {
            c.enable_servers(&["_web.1"], true).unwrap();
        });
        assert!(retired.is_empty());
    }

    #[test]
    fn removing_a_disabled_server_keeps_its_record() {
        let mut retired = Retired::default();
        let off = step(&mut retired, &configuration(), |c| {
            c.enable_servers(&["_web.1"], false).unwrap();
        });
        let kept = retired.clone();
        step(&mut retired, &off, |c| {
            c.remove_servers("web", &["_web.1"]).unwrap();
        });
        assert_eq!(retired, kept);
    }

    #[test]
    fn a_revived_rule_hands_its_lost_servers_over() {
        let mut retired = Retired::default();
        let off = step(&mut retired, &configuration(), |c| {
            c.enable_rules::<&str>(&[], false).unwrap();
        });
        let number = off.server("_web.0").unwrap().1.number;
        let less = step(&mut retired, &off, |c| {
            c.remove_servers("web", &["_web.0"]).unwrap();
        });
        assert_eq!(retired.keys().collect::<Vec<_>>(), [RetiredKey::Rule(1)]);
        let on = step(&mut retired, &less, |c| {
            c.enable_rules::<&str>(&[], true).unwrap();
        });
        assert_eq!(
            retired.keys().collect::<Vec<_>>(),
            [RetiredKey::Server(1, number)]
        );
        // And back into the rule when that is deleted.
        step(&mut retired, &on, |c| drop(c.delete_all_rules()));
        assert_eq!(retired.keys().collect::<Vec<_>>(), [RetiredKey::Rule(1)]);
        assert_eq!(retired.rules[&1].servers.len(), 2);
    }

    #[test]
    fn only_an_explicit_zero_is_no_connection() {
        let mut retired = Retired::default();
        let off = step(&mut retired, &configuration(), |c| {
            c.enable_servers(&["_web.1"], false).unwrap();
        });
        let id = off.server("_web.1").unwrap().1.number;
        let statistics = |open, total| Statistics {
            rules: vec![RuleStatistics {
                id: 1,
                servers: vec![ServerStatistics {
                    id,
                    counters: Counters {
                        connections_open: open,
                        connections_total: total,
                        ..Counters::default()
                    },
                }],
                ..RuleStatistics::default()
            }],
            ..Statistics::default()
        };
        assert_eq!(retired.without_connections(&Statistics::default()), []);
        assert_eq!(retired.without_connections(&statistics(1, 1)), []);
        assert_eq!(retired.without_connections(&statistics(0, 1)), []);
        assert_eq!(
            retired.without_connections(&statistics(0, 0)),
            [RetiredKey::Server(1, id)]
        );
    }
}
