//! The whole configuration and everything that can be done to it.
//!
//! Every mutation either leaves a configuration that is valid as a whole and says what changed, or changes nothing and
//! says why. Items are behind [`Arc`], so that a clone is cheap: the manager clones, changes, stores, and only then
//! replaces what it had.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Item, ModelError};
use crate::healthcheck::HealthCheck;
use crate::healthcheck_use::check_use;
use crate::map::Map;
use crate::port::{self, PortMap};
use crate::rules::Rules;
use crate::server::{ServerSpec, Target, UNPLACED};
use crate::source::Source;
use crate::validate::check_fit;
use crate::vrrp::VrrpInstance;
use crate::words;

mod checks;
mod sources;
mod vrrp;

pub use checks::MAX_CHECKS;
pub use sources::Followed;
pub use vrrp::MAX_INSTANCES;

pub use crate::healthcheck::HealthCheckSettings;
pub use crate::port::PortRange;
pub use crate::rule::{
    Algorithm, CheckPort, Flags, HealthCheckUse, Orphans, Persistence, Prefix, Protocol, Rule,
    RuleSettings, Synchronise, Timeout, Topology, Tunnel, TunnelChecksum, Vip, VipSettings, Vips,
};
pub use crate::server::{Server, ServerSettings};
pub use crate::servergroup::ServerGroup;

/// Most rules.
pub const MAX_RULES: usize = 65_536;
/// Most servers of one group.
pub const MAX_SERVERS: usize = 65_536;

/// All rules, server groups, health checks and VRRP instances, and the counters that number them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// By [`key`].
    pub rules: Rules,
    /// By [`key`].
    pub groups: Map<String, Arc<ServerGroup>>,
    /// By [`key`].
    #[serde(default)]
    pub checks: Map<String, Arc<HealthCheck>>,
    /// By [`key`].
    #[serde(default)]
    pub vrrp: Map<String, Arc<VrrpInstance>>,
    /// Number of the next rule. Grows only; stored with the rest.
    pub next_rule: u32,
    /// Number of the next server. Grows only; stored with the rest.
    pub next_server: u32,
}

impl Default for Configuration {
    fn default() -> Configuration {
        Configuration {
            rules: Rules::default(),
            groups: Map::default(),
            checks: Map::default(),
            vrrp: Map::default(),
            next_rule: 1,
            next_server: 1,
        }
    }
}

/// The key under which a name is found: names are the same in any case.
pub fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

impl Configuration {
    /// The rule of this name.
    pub fn rule(&self, name: &str) -> Option<&Arc<Rule>> {
        self.rules.get(&key(name))
    }

    /// The server group of this name.
    pub fn group(&self, name: &str) -> Option<&Arc<ServerGroup>> {
        self.groups.get(&key(name))
    }

    /// The server group and server of this id.
    pub fn server(&self, id: &str) -> Option<(&Arc<ServerGroup>, &Server)> {
        let group = self.group(id.strip_prefix('_')?.rsplit_once('.')?.0)?;
        Some((group, group.server(id)?))
    }

    /// The server group of a rule.
    pub fn group_of(&self, rule: &Rule) -> Option<&Arc<ServerGroup>> {
        self.group(&rule.servergroup)
    }

    /// The rules that use a server group.
    pub fn rules_of(&self, group: &str) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.of_group(group)
    }

    /// How the ports of `rule` become those of `server`. In a valid configuration every pair has an answer.
    pub fn port_map(rule: &Rule, server: &Server) -> Option<PortMap> {
        port::map(&rule.vips, server.ports)
    }

    /// Creates a rule.
    ///
    /// # Errors
    /// Every [`ModelError`] of a rule by itself, of its name, of its group, and of its place among the other rules.
    pub fn create_rule(
        &mut self,
        name: &str,
        settings: &RuleSettings,
    ) -> Result<Arc<Rule>, ModelError> {
        let mut rule = settings.check(name)?;
        if let Some(other) = self.rule(name) {
            return Err(ModelError::AlreadyExists {
                item: Item::Rule,
                name: other.name.clone(),
            });
        }
        let group = self
            .group(&rule.servergroup)
            .ok_or_else(|| self.group_not_found(&settings.servergroup))?;
        if self.rules.len() >= MAX_RULES {
            return Err(too_many("rule", name, MAX_RULES));
        }
        rule.servergroup = group.name.clone();
        rule.number = self.next_rule;
        self.adopt_check(&mut rule)?;
        self.check_among(&rule)?;
        let next = self.next_rule.checked_add(1);
        self.next_rule = next.ok_or_else(|| too_many("rule", name, u32::MAX as usize))?;
        let rule = Arc::new(rule);
        self.rules.insert(key(name), rule.clone());
        Ok(rule)
    }

    /// Changes a rule in place and returns it if that made a difference: algorithm, persistence, times, limits, clients,
    /// orphans. Its connections stay.
    ///
    /// # Errors
    /// [`ModelError::NotFound`]; those of [`RuleSettings::amend`]; [`ModelError::Overlap`].
    pub fn modify_rule(
        &mut self,
        name: &str,
        settings: &RuleSettings,
    ) -> Result<Option<Arc<Rule>>, ModelError> {
        self.find_rules(&[name])?;
        let Some(old) = self.rule(name) else {
            return Ok(None);
        };
        let mut new = settings.amend(old)?;
        self.adopt_check(&mut new)?;
        if new == **old {
            return Ok(None);
        }
        if new.clients != old.clients
            || new.health_check != old.health_check
            || new.algorithm != old.algorithm
        {
            self.check_among(&new)?;
        }
        let new = Arc::new(new);
        self.rules.insert(key(name), new.clone());
        Ok(Some(new))
    }

    /// Deletes rules. A name given twice counts once.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with every name that does not exist.
    pub fn delete_rules<S: AsRef<str>>(
        &mut self,
        names: &[S],
    ) -> Result<Vec<Arc<Rule>>, ModelError> {
        self.find_rules(names)?;
        Ok(names
            .iter()
            .filter_map(|name| self.rules.remove(&key(name.as_ref())))
            .collect())
    }

    /// Deletes all rules.
    pub fn delete_all_rules(&mut self) -> Vec<Arc<Rule>> {
        std::mem::take(&mut self.rules).values().cloned().collect()
    }

    /// Enables or disables rules, all if none is named, and returns those that were not so before.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with every name that does not exist.
    pub fn enable_rules<S: AsRef<str>>(
        &mut self,
        names: &[S],
        enabled: bool,
    ) -> Result<Vec<Arc<Rule>>, ModelError> {
        let keys: Vec<String> = if names.is_empty() {
            self.rules.keys().cloned().collect()
        } else {
            self.find_rules(names)?
        };
        Ok(keys
            .iter()
            .filter_map(|key| self.rules.enable(key, enabled))
            .collect())
    }

    /// Creates a server group, with servers if `specs` has any.
    ///
    /// # Errors
    /// Those of [`Configuration::add_servers`], of its name, or [`ModelError::AlreadyExists`].
    pub fn create_group<S: AsRef<str>>(
        &mut self,
        name: &str,
        specs: &[S],
    ) -> Result<Arc<ServerGroup>, ModelError> {
        self.create(name, specs, None)
    }

    fn create<S: AsRef<str>>(
        &mut self,
        name: &str,
        specs: &[S],
        source: Option<Source>,
    ) -> Result<Arc<ServerGroup>, ModelError> {
        crate::rule::check_name(Item::ServerGroup, name)?;
        if let Some(other) = self.group(name) {
            return Err(ModelError::AlreadyExists {
                item: Item::ServerGroup,
                name: other.name.clone(),
            });
        }
        let mut group = ServerGroup {
            name: name.to_string(),
            servers: Vec::new(),
            next_index: 0,
            places: 0,
            source: source.map(Box::new),
        };
        let next_server = self.extend(&mut group, specs)?;
        let group = Arc::new(group);
        self.groups.insert(key(name), group.clone());
        self.next_server = next_server;
        Ok(group)
    }

    /// Deletes server groups.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with every name that does not exist; [`ModelError::GroupInUse`].
    pub fn delete_groups<S: AsRef<str>>(
        &mut self,
        names: &[S],
    ) -> Result<Vec<Arc<ServerGroup>>, ModelError> {
        let missing: Vec<&str> = names
            .iter()
            .map(AsRef::as_ref)
            .filter(|name| self.group(name).is_none())
            .collect();
        if !missing.is_empty() {
            return Err(not_found(
                Item::ServerGroup,
                &missing,
                self.groups.values().map(|g| g.name.as_str()),
            ));
        }
        for name in names {
            let rules: Vec<String> = self
                .rules_of(name.as_ref())
                .map(|rule| rule.name.clone())
                .collect();
            if !rules.is_empty() {
                let group = self.group(name.as_ref());
                return Err(ModelError::GroupInUse {
                    group: group.map_or(name.as_ref().to_string(), |g| g.name.clone()),
                    rules,
                });
            }
        }
        Ok(names
            .iter()
            .filter_map(|name| self.groups.remove(&key(name.as_ref())))
            .collect())
    }

    /// Adds servers, enabled, and returns them.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] for the group; [`ModelError::Invalid`] for a specification;
    /// [`ModelError::DuplicateServer`]; [`ModelError::Mismatch`] with a rule that uses the group.
    pub fn add_servers<S: AsRef<str>>(
        &mut self,
        group: &str,
        specs: &[S],
    ) -> Result<Vec<Server>, ModelError> {
        let old = self
            .group(group)
            .ok_or_else(|| self.group_not_found(group))?;
        if specs.is_empty() {
            return Err(ModelError::Missing {
                field: "server",
                allowed: "name at least one, such as server=192.0.2.10:80".to_string(),
            });
        }
        let mut new = ServerGroup::clone(old);
        let before = new.servers.len();
        let next_server = self.extend(&mut new, specs)?;
        for rule in self.rules_of(group) {
            check_fit(rule, &new, before)?;
            if let Some(check) = self.check_of(rule) {
                check_use(rule, check, &new.servers[before..])?;
            }
        }
        let added = new.servers[before..].to_vec();
        self.groups.insert(key(group), Arc::new(new));
        self.next_server = next_server;
        Ok(added)
    }

    /// Removes servers of one group, named by id or by specification as [`Configuration::add_servers`] takes it, and
    /// returns them. A specification without port means all servers at that address.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] for the group or for every server that is not in it; [`ModelError::Invalid`] for a
    /// specification.
    pub fn remove_servers<S: AsRef<str>>(
        &mut self,
        group: &str,
        which: &[S],
    ) -> Result<Vec<Server>, ModelError> {
        let old = self
            .group(group)
            .ok_or_else(|| self.group_not_found(group))?;
        if which.is_empty() {
            return Err(ModelError::Missing {
                field: "server",
                allowed: format!("name at least one, such as server=_{}.0", old.name),
            });
        }
        let mut chosen = vec![false; old.servers.len()];
        let mut missing = Vec::new();
        for word in which {
            let word = word.as_ref();
            let mut any = false;
            for (server, chosen) in old.servers.iter().zip(&mut chosen) {
                if server.id.eq_ignore_ascii_case(word) {
                    (any, *chosen) = (true, true);
                }
            }
            if !any && !word.starts_with('_') {
                for spec in ServerSpec::parse(word)? {
                    let mut found = false;
                    for (server, chosen) in old.servers.iter().zip(&mut chosen) {
                        if names(&spec, server) {
                            (found, *chosen) = (true, true);
                        }
                    }
                    if !found {
                        missing.push(spec.to_string());
                    }
                }
            } else if !any {
                missing.push(word.to_string());
            }
        }
        if !missing.is_empty() {
            return Err(ModelError::NotInGroup {
                group: old.name.clone(),
                suggestion: words::nearest(&missing[0], old.servers.iter().map(|s| s.id.as_str())),
                servers: missing,
            });
        }
        let mut new = ServerGroup::clone(old);
        let mut removed = Vec::new();
        let mut chosen = chosen.into_iter();
        new.servers.retain(|server| {
            let remove = chosen.next().unwrap_or(false);
            if remove {
                removed.push(server.clone());
            }
            !remove
        });
        self.groups.insert(key(group), Arc::new(new));
        Ok(removed)
    }

    /// Enables or disables servers by id and returns those that were not so before.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with every id that does not exist; [`ModelError::Missing`] without ids.
    pub fn enable_servers<S: AsRef<str>>(
        &mut self,
        ids: &[S],
        enabled: bool,
    ) -> Result<Vec<Server>, ModelError> {
        self.change_servers(ids, |server| {
            server.enabled = enabled;
            Ok(())
        })
    }

    /// Changes weights and limits of servers, named by id, and returns those that were not so before. Their connections
    /// stay.
    ///
    /// # Errors
    /// As [`Configuration::enable_servers`]; [`ModelError::Missing`] without anything to change; [`ModelError::Invalid`] for
    /// limits that contradict each other.
    pub fn modify_servers<S: AsRef<str>>(
        &mut self,
        ids: &[S],
        settings: &ServerSettings,
    ) -> Result<Vec<Server>, ModelError> {
        if settings.is_empty() {
            return Err(ModelError::Missing {
                field: "weight",
                allowed: "say what to change: weight, max-conn, min-conn or tier".to_string(),
            });
        }
        self.change_servers(ids, |server| settings.apply(server))
    }

    /// All or none.
    fn change_servers<S: AsRef<str>>(
        &mut self,
        ids: &[S],
        change: impl Fn(&mut Server) -> Result<(), ModelError>,
    ) -> Result<Vec<Server>, ModelError> {
        if ids.is_empty() {
            return Err(ModelError::Missing {
                field: "server id",
                allowed: "name at least one; 'lbadm show-servergroup' lists them".to_string(),
            });
        }
        let missing: Vec<&str> = ids
            .iter()
            .map(AsRef::as_ref)
            .filter(|id| self.server(id).is_none())
            .collect();
        if !missing.is_empty() {
            let known = self.groups.values().flat_map(|g| &g.servers);
            return Err(not_found(
                Item::Server,
                &missing,
                known.map(|s| s.id.as_str()),
            ));
        }
        let mut changed: Vec<(String, Server)> = Vec::new();
        for id in ids {
            let Some((group, old)) = self.server(id.as_ref()) else {
                continue;
            };
            let mut new = old.clone();
            change(&mut new)?;
            if new != *old && changed.iter().all(|(_, other)| other.number != new.number) {
                changed.push((key(&group.name), new));
            }
        }
        for (group, new) in &changed {
            if let Some(group) = self.groups.get_mut(group) {
                let servers = &mut Arc::make_mut(group).servers;
                if let Some(server) = servers.iter_mut().find(|s| s.number == new.number) {
                    *server = new.clone();
                }
            }
        }
        Ok(changed.into_iter().map(|(_, server)| server).collect())
    }

    /// Adds the servers of `specs` to `group` and returns the number of the next server.
    fn extend<S: AsRef<str>>(
        &self,
        group: &mut ServerGroup,
        specs: &[S],
    ) -> Result<u32, ModelError> {
        self.extend_from(group, specs, self.next_server)
    }

    /// The same, where `number` is that of the next server.
    fn extend_from<S: AsRef<str>>(
        &self,
        group: &mut ServerGroup,
        specs: &[S],
        mut number: u32,
    ) -> Result<u32, ModelError> {
        for text in specs {
            for spec in ServerSpec::parse(text.as_ref())? {
                let Target::Address(address) = spec.target else {
                    return Err(ModelError::invalid(
                        "server",
                        text.as_ref(),
                        "is a host name",
                        "give name=address; lbadm resolves names by itself",
                    ));
                };
                let index = match &spec.id {
                    Some(id) => crate::servergroup::index(group, id)?,
                    None => group.next_index,
                };
                let mut server = Server {
                    number,
                    id: format!("_{}.{index}", group.name),
                    address,
                    host_name: spec.host_name,
                    ports: spec.ports,
                    weight: 1,
                    max_connections: 0,
                    min_connections: 0,
                    tier: 0,
                    enabled: true,
                    place: spec.place.map_or(UNPLACED, |place| place.place),
                    found: spec.found && group.source.is_some(),
                };
                group.places = group.places.max(spec.place.map_or(0, |place| place.places));
                spec.limits.apply(&mut server)?;
                group.servers.push(server);
                let next = (index.checked_add(1), number.checked_add(1));
                let (Some(index), Some(next)) = next else {
                    return Err(too_many("server group", &group.name, u32::MAX as usize));
                };
                (group.next_index, number) = (index, next);
            }
        }
        if group.servers.len() > MAX_SERVERS {
            return Err(too_many("server group", &group.name, MAX_SERVERS));
        }
        group.settle();
        crate::servergroup::check_group(group)?;
        Ok(number)
    }

    fn find_rules<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<String>, ModelError> {
        let missing: Vec<&str> = names
            .iter()
            .map(AsRef::as_ref)
            .filter(|name| self.rule(name).is_none())
            .collect();
        if missing.is_empty() {
            return Ok(names.iter().map(|name| key(name.as_ref())).collect());
        }
        Err(not_found(
            Item::Rule,
            &missing,
            self.rules.values().map(|r| r.name.as_str()),
        ))
    }

    pub(crate) fn group_not_found(&self, name: &str) -> ModelError {
        not_found(
            Item::ServerGroup,
            &[name],
            self.groups.values().map(|g| g.name.as_str()),
        )
    }
}

/// Whether a specification means this server.
fn names(spec: &ServerSpec, server: &Server) -> bool {
    let place = match &spec.target {
        Target::Address(address) => *address == server.address,
        Target::Host(host) => server
            .host_name
            .as_ref()
            .is_some_and(|name| name.eq_ignore_ascii_case(host)),
    };
    place && (spec.ports.is_none() || spec.ports == server.ports)
}

fn not_found<'a>(item: Item, missing: &[&str], known: impl Iterator<Item = &'a str>) -> ModelError {
    ModelError::NotFound {
        item,
        names: missing.iter().map(|s| (*s).to_string()).collect(),
        suggestion: missing.first().and_then(|name| words::nearest(name, known)),
    }
}

fn too_many(field: &'static str, name: &str, most: usize) -> ModelError {
    ModelError::invalid(
        field,
        name,
        "would be one too many",
        format!("there can be at most {most}"),
    )
}
