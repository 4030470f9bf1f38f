//! What can be done to VRRP instances.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Configuration, key, not_found, too_many};
use crate::error::{Item, ModelError};
use crate::vrrp::{VrrpInstance, VrrpSettings};

/// Most VRRP instances.
pub const MAX_INSTANCES: usize = 1024;

impl Configuration {
    /// The VRRP instance of this name.
    pub fn instance(&self, name: &str) -> Option<&Arc<VrrpInstance>> {
        self.vrrp.get(&key(name))
    }

    /// The VRRP instance that has an address: it puts it up, nobody else.
    pub fn instance_of(&self, address: IpAddr) -> Option<&Arc<VrrpInstance>> {
        self.vrrp
            .values()
            .find(|instance| instance.addresses.contains(&address))
    }

    /// Creates a VRRP instance.
    ///
    /// # Errors
    /// Those of [`VrrpSettings::check`]; [`ModelError::AlreadyExists`]; [`ModelError::VrrpConflict`].
    pub fn create_vrrp(
        &mut self,
        name: &str,
        settings: &VrrpSettings,
    ) -> Result<Arc<VrrpInstance>, ModelError> {
        let instance = settings.check(name)?;
        if let Some(other) = self.instance(name) {
            return Err(ModelError::AlreadyExists {
                item: Item::Vrrp,
                name: other.name.clone(),
            });
        }
        if self.vrrp.len() >= MAX_INSTANCES {
            return Err(too_many("VRRP instance", name, MAX_INSTANCES));
        }
        self.check_vrrp_among(&instance)?;
        let instance = Arc::new(instance);
        self.vrrp.insert(key(name), instance.clone());
        Ok(instance)
    }

    /// Changes a VRRP instance and returns it if that made a difference.
    ///
    /// # Errors
    /// [`ModelError::NotFound`]; those of [`VrrpSettings::amend`]; [`ModelError::VrrpConflict`].
    pub fn modify_vrrp(
        &mut self,
        name: &str,
        settings: &VrrpSettings,
    ) -> Result<Option<Arc<VrrpInstance>>, ModelError> {
        let old = self
            .instance(name)
            .ok_or_else(|| self.vrrp_not_found(&[name]))?;
        let new = settings.amend(old)?;
        if new == **old {
            return Ok(None);
        }
        self.check_vrrp_among(&new)?;
        let new = Arc::new(new);
        self.vrrp.insert(key(name), new.clone());
        Ok(Some(new))
    }

    /// Enables or disables VRRP instances, all if none is named, and returns those that were not so before.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with every name that does not exist.
    pub fn enable_vrrp<S: AsRef<str>>(
        &mut self,
        names: &[S],
        enabled: bool,
    ) -> Result<Vec<Arc<VrrpInstance>>, ModelError> {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let keys: Vec<String> = match names.is_empty() {
            true => self.vrrp.keys().cloned().collect(),
            false => {
                self.expect_instances(&names)?;
                names.iter().map(|name| key(name)).collect()
            }
        };
        let mut changed = Vec::new();
        for key in keys {
            let Some(old) = self.vrrp.get(&key).filter(|old| old.enabled != enabled) else {
                continue;
            };
            let new = Arc::new(VrrpInstance {
                enabled,
                ..VrrpInstance::clone(old)
            });
            self.vrrp.insert(key, new.clone());
            changed.push(new);
        }
        Ok(changed)
    }

    /// Deletes VRRP instances. A name given twice counts once.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with every name that does not exist.
    pub fn delete_vrrp<S: AsRef<str>>(
        &mut self,
        names: &[S],
    ) -> Result<Vec<Arc<VrrpInstance>>, ModelError> {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        self.expect_instances(&names)?;
        Ok(names
            .iter()
            .filter_map(|name| self.vrrp.remove(&key(name)))
            .collect())
    }

    fn expect_instances(&self, names: &[&str]) -> Result<(), ModelError> {
        let missing = names.iter().copied();
        let missing: Vec<&str> = missing
            .filter(|name| self.instance(name).is_none())
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(self.vrrp_not_found(&missing)),
        }
    }

    pub(crate) fn vrrp_not_found(&self, names: &[&str]) -> ModelError {
        let known = self.vrrp.values().map(|instance| instance.name.as_str());
        not_found(Item::Vrrp, names, known)
    }

    /// Whether an instance goes together with all others but the one that it replaces.
    pub(crate) fn check_vrrp_among(&self, instance: &VrrpInstance) -> Result<(), ModelError> {
        for other in self.vrrp.values() {
            if other.name.eq_ignore_ascii_case(&instance.name) {
                continue;
            }
            let refuse = |problem: String| {
                Err(ModelError::VrrpConflict {
                    instance: instance.name.clone(),
                    other: other.name.clone(),
                    problem,
                })
            };
            if instance.is_like(other) {
                return refuse(format!(
                    "both are vrid {} on interface {}; give it another vrid",
                    instance.vrid, instance.interface
                ));
            }
            let common = |address: &&IpAddr| other.addresses.contains(address);
            if let Some(address) = instance.addresses.iter().find(common) {
                return refuse(format!(
                    "both have address {address}; each can be in one instance"
                ));
            }
        }
        Ok(())
    }
}
