//! Keeps the D-Bus objects in step with the view, and sends signals for what really changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use libilb::dbus::{ROOT_PATH, group_path, rule_path, server_path};
use libilb::model::{Configuration, Server};
use zbus::Connection;

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
        for (key, old) in &before.rules {
            if !after.rules.contains_key(key) {
                server.remove::<RuleObject, _>(rule_path(&old.name)).await?;
            }
        }
        for (key, new) in &after.rules {
            let path = rule_path(&new.name);
            match before.rules.get(key) {
                None => {
                    let object = RuleObject::new(self.handle.clone(), new.name.clone());
                    server.at(path, object).await?;
                }
                Some(old) if !Arc::ptr_eq(old, new) => {
                    let object = server.interface::<_, RuleObject>(path).await?;
                    let emitter = object.signal_emitter();
                    object.get().await.announce(emitter, old, new).await?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn groups(&self, before: &Configuration, after: &Configuration) -> zbus::Result<()> {
        let server = self.connection.object_server();
        for (key, old) in &before.groups {
            if !after.groups.contains_key(key) {
                server
                    .remove::<ServerGroupObject, _>(group_path(&old.name))
                    .await?;
            }
        }
        for (key, new) in &after.groups {
            let path = group_path(&new.name);
            match before.groups.get(key) {
                None => {
                    let object = ServerGroupObject::new(self.handle.clone(), new.name.clone());
                    server.at(path, object).await?;
                }
                Some(old) if old != new => {
                    let ids = |group: &libilb::model::ServerGroup| -> Vec<u32> {
                        group.servers.iter().map(|server| server.number).collect()
                    };
                    if ids(old) != ids(new) {
                        let object = server.interface::<_, ServerGroupObject>(path).await?;
                        let emitter = object.signal_emitter();
                        object.get().await.servers_changed(emitter).await?;
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn servers(&self, before: &Configuration, after: &Configuration) -> zbus::Result<()> {
        let server = self.connection.object_server();
        let old = changed_servers(before, after);
        let new = changed_servers(after, before);
        for id in old.keys() {
            if !new.contains_key(id) {
                server.remove::<ServerObject, _>(server_path(id)).await?;
            }
        }
        for (id, (group, item)) in &new {
            match old.get(id) {
                None => {
                    let group = (*group).to_owned();
                    let object = ServerObject::new(self.handle.clone(), group, (*item).clone());
                    server.at(server_path(id), object).await?;
                }
                Some((_, was)) if was != item => {
                    let object = server.interface::<_, ServerObject>(server_path(id)).await?;
                    let emitter = object.signal_emitter();
                    object.get().await.announce(emitter, was, item).await?;
                }
                Some(_) => {}
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
            self.rules(old, new).await,
            self.groups(old, new).await,
            self.servers(old, new).await,
            self.manager(before, after).await,
        ] {
            if let Err(error) = result {
                tracing::error!("D-Bus objects are out of step: {error}");
            }
        }
    }
}

/// The servers, with the names of their groups, of all groups that are not the same in `other`.
fn changed_servers<'a>(
    configuration: &'a Configuration,
    other: &Configuration,
) -> BTreeMap<&'a str, (&'a str, &'a Server)> {
    configuration
        .groups
        .iter()
        .filter(|(key, group)| other.groups.get(*key) != Some(*group))
        .flat_map(|(_, group)| group.servers.iter().map(|item| (group.name.as_str(), item)))
        .map(|(group, item)| (item.id.as_str(), (group, item)))
        .collect()
}
