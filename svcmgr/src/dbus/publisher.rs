//! Keeps the D-Bus objects in step with the view, and sends signals for what really changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use libilb::dbus::{ROOT_PATH, check_path, group_path, rule_path, server_path};
use libilb::map::Difference;
use libilb::model::{Configuration, Rule, Server, ServerGroup};
use zbus::Connection;

use super::healthcheck::HealthCheckObject;
use super::manager::ManagerObject;
use super::rule::RuleObject;
use super::server::ServerObject;
use super::servergroup::ServerGroupObject;
use crate::manager::view::View;
use crate::manager::{ManagerHandle, Publisher};

/// See the module.
pub struct ObjectPublisher {
    connection: Connection,
    handle: ManagerHandle,
}

impl ObjectPublisher {
    /// Publishes on this connection.
    pub fn new(connection: Connection, handle: ManagerHandle) -> ObjectPublisher {
        ObjectPublisher { connection, handle }
    }

    async fn rules(&self, before: &Configuration, after: &Configuration) -> zbus::Result<()> {
        let server = self.connection.object_server();
        let changes = || after.rules.since(&before.rules);
        // Another number is another rule: what never changes in the life of one may be different.
        let another = |rule: &Difference<'_, String, Arc<Rule>>| {
            rule.before.map(|r| r.number) != rule.after.map(|r| r.number)
        };
        for old in changes().filter(another).filter_map(|rule| rule.before) {
            server.remove::<RuleObject, _>(rule_path(&old.name)).await?;
        }
        for rule in changes() {
            match (rule.before, rule.after) {
                (_, Some(new)) if another(&rule) => {
                    let object = RuleObject::new(self.handle.clone(), new.name.clone());
                    server.at(rule_path(&new.name), object).await?;
                }
                (Some(old), Some(new)) => {
                    let path = rule_path(&new.name);
                    let object = server.interface::<_, RuleObject>(path).await?;
                    let emitter = object.signal_emitter();
                    object.get().await.announce(emitter, old, new).await?;
                }
                (None, Some(_)) | (_, None) => {}
            }
        }
        Ok(())
    }

    async fn groups(&self, before: &Configuration, after: &Configuration) -> zbus::Result<()> {
        let server = self.connection.object_server();
        for group in after.groups.since(&before.groups) {
            match (group.before, group.after) {
                (Some(old), None) => {
                    server
                        .remove::<ServerGroupObject, _>(group_path(&old.name))
                        .await?;
                }
                (None, Some(new)) => {
                    let object = ServerGroupObject::new(self.handle.clone(), new.name.clone());
                    server.at(group_path(&new.name), object).await?;
                }
                (Some(old), Some(new)) => {
                    let ids = |group: &libilb::model::ServerGroup| -> Vec<u32> {
                        group.servers.iter().map(|server| server.number).collect()
                    };
                    if ids(old) != ids(new) {
                        let path = group_path(&new.name);
                        let object = server.interface::<_, ServerGroupObject>(path).await?;
                        let emitter = object.signal_emitter();
                        object.get().await.servers_changed(emitter).await?;
                    }
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    async fn servers(&self, before: &Configuration, after: &Configuration) -> zbus::Result<()> {
        let server = self.connection.object_server();
        let changes = || after.groups.since(&before.groups);
        let old = servers(changes().filter_map(|group| group.before));
        let new = servers(changes().filter_map(|group| group.after));
        let number = |servers: &BTreeMap<&str, (&str, &Server)>, id: &str| {
            servers.get(id).map(|(_, server)| server.number)
        };
        for id in old.keys() {
            if number(&new, id) != number(&old, id) {
                server.remove::<ServerObject, _>(server_path(id)).await?;
            }
        }
        for (id, (group, item)) in &new {
            match old.get(id) {
                was if was.map(|(_, was)| was.number) != Some(item.number) => {
                    let group = (*group).to_owned();
                    let object = ServerObject::new(self.handle.clone(), group, (*item).clone());
                    server.at(server_path(id), object).await?;
                }
                Some((_, was)) if was != item => {
                    let object = server.interface::<_, ServerObject>(server_path(id)).await?;
                    let emitter = object.signal_emitter();
                    object.get().await.announce(emitter, was, item).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn checks(&self, before: &Configuration, after: &Configuration) -> zbus::Result<()> {
        let server = self.connection.object_server();
        for check in after.checks.since(&before.checks) {
            match (check.before, check.after) {
                (Some(old), None) => {
                    server
                        .remove::<HealthCheckObject, _>(check_path(&old.name))
                        .await?;
                }
                (None, Some(new)) => {
                    let object = HealthCheckObject::new(self.handle.clone(), new.name.clone());
                    server.at(check_path(&new.name), object).await?;
                }
                (Some(old), Some(new)) => {
                    let path = check_path(&new.name);
                    let object = server.interface::<_, HealthCheckObject>(path).await?;
                    let emitter = object.signal_emitter();
                    object.get().await.announce(emitter, old, new).await?;
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Servers of which health checks say something else.
    async fn health(&self, before: &View, after: &View) -> zbus::Result<()> {
        let server = self.connection.object_server();
        let configuration = &after.state.configuration;
        let mut told = BTreeSet::new();
        for (rule, number) in after.book.different(&before.book) {
            let group = configuration.rules.by_number(rule);
            let group = group.and_then(|rule| configuration.group_of(rule));
            let Some(group) = group.filter(|_| told.insert(number)) else {
                continue;
            };
            // They are in the order of their numbers.
            let at = group.servers.binary_search_by_key(&number, |s| s.number);
            if let Ok(at) = at {
                let path = server_path(&group.servers[at].id);
                let object = server.interface::<_, ServerObject>(path).await?;
                let emitter = object.signal_emitter();
                object.get().await.health_changed(emitter).await?;
            }
        }
        Ok(())
    }

    async fn manager(&self, before: &View, after: &View) -> zbus::Result<()> {
        let server = self.connection.object_server();
        let Ok(object) = server.interface::<_, ManagerObject>(ROOT_PATH).await else {
            // The first time, before it is exported.
            return Ok(());
        };
        let emitter = object.signal_emitter();
        let manager = object.get().await;
        if before.state.generation != after.state.generation {
            manager.generation_changed(emitter).await?;
        }
        if before.health != after.health {
            manager.state_changed(emitter).await?;
        }
        if before.health_reason != after.health_reason {
            manager.state_reason_changed(emitter).await?;
        }
        if before.state.pending != after.state.pending {
            manager.confirm_by_changed(emitter).await?;
        }
        if before.fastpath != after.fastpath {
            manager.fastpath_changed(emitter).await?;
        }
        if before.fastpath_generation != after.fastpath_generation {
            manager.fastpath_generation_changed(emitter).await?;
        }
        Ok(())
    }
}

impl Publisher for ObjectPublisher {
    async fn publish(&mut self, before: &View, after: &View) {
        let old = &before.state.configuration;
        let new = &after.state.configuration;
        for result in [
            self.checks(old, new).await,
            self.rules(old, new).await,
            self.groups(old, new).await,
            self.servers(old, new).await,
            self.health(before, after).await,
            self.manager(before, after).await,
        ] {
            if let Err(error) = result {
                tracing::error!("D-Bus objects are out of step: {error}");
            }
        }
    }
}

/// The servers of some groups by their ids, with the names of the groups.
fn servers<'a>(
    groups: impl Iterator<Item = &'a Arc<ServerGroup>>,
) -> BTreeMap<&'a str, (&'a str, &'a Server)> {
    groups
        .flat_map(|group| group.servers.iter().map(|item| (group.name.as_str(), item)))
        .map(|(group, item)| (item.id.as_str(), (group, item)))
        .collect()
}
