//! Sends signals for what really changed: objects that came and went, and properties.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use libilb::dbus::{ROOT_PATH, check_path, group_path, rule_path, server_path, vrrp_path};
use libilb::map::Difference;
use libilb::model::{Configuration, Rule, Server, ServerGroup};
use libilb::vrrp::VrrpStatus;
use zbus::fdo::ObjectManager;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, ObjectPath, Variant};

use super::healthcheck::HealthCheckObject;
use super::manager::ManagerObject;
use super::objects::Object;
use super::rule::RuleObject;
use super::server::ServerObject;
use super::servergroup::ServerGroupObject;
use super::vrrp::VrrpObject;
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

    /// Says that an object is there now.
    async fn added(&self, path: String) -> zbus::Result<()> {
        let Some(object) = Object::at(&path, &self.handle) else {
            return Ok(());
        };
        let properties = object.properties(&self.connection, &path).await?;
        let properties = properties
            .iter()
            .map(|(name, value)| Ok((name.as_str(), Variant::try_from(value)?)))
            .collect::<zbus::Result<_>>()?;
        let interfaces = HashMap::from([(object.name(), properties)]);
        let path = ObjectPath::try_from(path)?;
        ObjectManager::interfaces_added(&self.emitter(ROOT_PATH)?, path, interfaces).await
    }

    /// Says that an object with this interface is gone.
    async fn removed<I: Interface>(&self, path: String) -> zbus::Result<()> {
        let path = ObjectPath::try_from(path)?;
        let interfaces = [I::name()];
        let emitter = self.emitter(ROOT_PATH)?;
        ObjectManager::interfaces_removed(&emitter, path, (&interfaces).into()).await
    }

    fn emitter<'a>(&self, path: impl Into<Cow<'a, str>>) -> zbus::Result<SignalEmitter<'a>> {
        let path = match path.into() {
            Cow::Borrowed(path) => ObjectPath::try_from(path)?,
            Cow::Owned(path) => ObjectPath::try_from(path)?,
        };
        SignalEmitter::new(&self.connection, path)
    }

    async fn rules(&self, before: &Configuration, after: &Configuration) -> zbus::Result<()> {
        let changes = || after.rules.since(&before.rules);
        // Another number is another rule: what never changes in the life of one may be different.
        let another = |rule: &Difference<'_, String, Arc<Rule>>| {
            rule.before.map(|r| r.number) != rule.after.map(|r| r.number)
        };
        for old in changes().filter(another).filter_map(|rule| rule.before) {
            self.removed::<RuleObject>(rule_path(&old.name)).await?;
        }
        for rule in changes() {
            match (rule.before, rule.after) {
                (_, Some(new)) if another(&rule) => self.added(rule_path(&new.name)).await?,
                (Some(old), Some(new)) => {
                    let object = RuleObject::new(self.handle.clone(), new.name.clone());
                    let emitter = self.emitter(rule_path(&new.name))?;
                    object.announce(&emitter, old, new).await?;
                }
                (None, Some(_)) | (_, None) => {}
            }
        }
        Ok(())
    }

    async fn groups(&self, before: &Configuration, after: &Configuration) -> zbus::Result<()> {
        for group in after.groups.since(&before.groups) {
            match (group.before, group.after) {
                (Some(old), None) => {
                    let path = group_path(&old.name);
                    self.removed::<ServerGroupObject>(path).await?;
                }
                (None, Some(new)) => self.added(group_path(&new.name)).await?,
                (Some(old), Some(new)) => {
                    let ids = |group: &ServerGroup| -> Vec<u32> {
                        group.servers.iter().map(|server| server.number).collect()
                    };
                    if ids(old) != ids(new) {
                        let object = ServerGroupObject::new(self.handle.clone(), new.name.clone());
                        let emitter = self.emitter(group_path(&new.name))?;
                        object.servers_changed(&emitter).await?;
                    }
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    async fn servers(&self, before: &Configuration, after: &Configuration) -> zbus::Result<()> {
        let changes = || after.groups.since(&before.groups);
        let old = servers(changes().filter_map(|group| group.before));
        let new = servers(changes().filter_map(|group| group.after));
        let number = |servers: &BTreeMap<&str, (&str, &Server)>, id: &str| {
            servers.get(id).map(|(_, server)| server.number)
        };
        for id in old.keys() {
            if number(&new, id) != number(&old, id) {
                self.removed::<ServerObject>(server_path(id)).await?;
            }
        }
        for (id, (group, item)) in &new {
            match old.get(id) {
                was if was.map(|(_, was)| was.number) != Some(item.number) => {
                    self.added(server_path(id)).await?;
                }
                Some((_, was)) if was != item => {
                    let object = self.server(group, item);
                    let emitter = self.emitter(server_path(id))?;
                    object.announce(&emitter, was, item).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn server(&self, group: &str, server: &Server) -> ServerObject {
        ServerObject::new(self.handle.clone(), group.to_owned(), server.clone())
    }

    async fn checks(&self, before: &Configuration, after: &Configuration) -> zbus::Result<()> {
        for check in after.checks.since(&before.checks) {
            match (check.before, check.after) {
                (Some(old), None) => {
                    let path = check_path(&old.name);
                    self.removed::<HealthCheckObject>(path).await?;
                }
                (None, Some(new)) => self.added(check_path(&new.name)).await?,
                (Some(old), Some(new)) => {
                    let object = HealthCheckObject::new(self.handle.clone(), new.name.clone());
                    let emitter = self.emitter(check_path(&new.name))?;
                    object.announce(&emitter, old, new).await?;
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    async fn vrrp(&self, before: &View, after: &View) -> zbus::Result<()> {
        let (old, new) = (&before.state.configuration, &after.state.configuration);
        for instance in new.vrrp.since(&old.vrrp) {
            match (instance.before, instance.after) {
                (Some(old), None) => self.removed::<VrrpObject>(vrrp_path(&old.name)).await?,
                (None, Some(new)) => self.added(vrrp_path(&new.name)).await?,
                (Some(_), Some(new)) => {
                    let object = VrrpObject::new(self.handle.clone(), new.name.clone());
                    let emitter = self.emitter(vrrp_path(&new.name))?;
                    object.settings_changed(&emitter).await?;
                }
                (None, None) => {}
            }
        }
        for status in after.vrrp.since(&before.vrrp) {
            let Some(instance) = new.vrrp.get(status.key) else {
                continue;
            };
            let unknown = VrrpStatus::default();
            let (old, new) = (status.before, status.after);
            let (old, new) = (old.unwrap_or(&unknown), new.unwrap_or(&unknown));
            let object = VrrpObject::new(self.handle.clone(), instance.name.clone());
            let emitter = self.emitter(vrrp_path(&instance.name))?;
            object.announce(&emitter, old, new).await?;
        }
        Ok(())
    }

    /// Servers of which health checks say something else.
    async fn health(&self, before: &View, after: &View) -> zbus::Result<()> {
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
                let object = self.server(&group.name, &group.servers[at]);
                let emitter = self.emitter(server_path(&group.servers[at].id))?;
                object.health_changed(&emitter).await?;
            }
        }
        Ok(())
    }

    /// Rules that stand otherwise with their servers.
    async fn standings(&self, before: &View, after: &View) -> zbus::Result<()> {
        let rules = &after.state.configuration.rules;
        for number in after.standings.since(&before.standings) {
            let Some(rule) = rules.by_number(number) else {
                continue;
            };
            let object = RuleObject::new(self.handle.clone(), rule.name.clone());
            let emitter = &self.emitter(rule_path(&rule.name))?;
            let now = |view: &View| view.standings.of(number).copied();
            let (old, new) = (now(before), now(after));
            if old.map(|s| s.quorum) != new.map(|s| s.quorum) {
                object.has_quorum_changed(emitter).await?;
            }
            if old.map(|s| s.level) != new.map(|s| s.level) {
                object.served_by_changed(emitter).await?;
            }
            if old.map(|s| s.panic) != new.map(|s| s.panic) {
                object.panic_changed(emitter).await?;
            }
        }
        Ok(())
    }

    async fn manager(&self, before: &View, after: &View) -> zbus::Result<()> {
        let emitter = &self.emitter(ROOT_PATH)?;
        let manager = ManagerObject::new(self.handle.clone());
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
        if before.drift != after.drift {
            manager.drift_changed(emitter).await?;
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
            self.vrrp(before, after).await,
            self.rules(old, new).await,
            self.groups(old, new).await,
            self.servers(old, new).await,
            self.health(before, after).await,
            self.standings(before, after).await,
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
