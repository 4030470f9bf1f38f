//! What can be done to health checks.

use std::sync::Arc;

use super::{Configuration, key, not_found, too_many};
use crate::error::{Item, ModelError};
use crate::healthcheck::{HealthCheck, HealthCheckSettings};
use crate::healthcheck_use::check_use;
use crate::rule::Rule;

/// Most health checks.
pub const MAX_CHECKS: usize = 65_536;

impl Configuration {
    /// The health check of this name.
    pub fn check(&self, name: &str) -> Option<&Arc<HealthCheck>> {
        self.checks.get(&key(name))
    }

    /// The health check of a rule.
    pub fn check_of(&self, rule: &Rule) -> Option<&Arc<HealthCheck>> {
        self.check(&rule.health_check.as_ref()?.name)
    }

    /// The rules that use a health check, in the order of their names.
    pub fn rules_of_check(&self, check: &str) -> impl Iterator<Item = &Arc<Rule>> {
        let uses = move |rule: &&Arc<Rule>| {
            let used = rule.health_check.as_ref();
            used.is_some_and(|used| used.name.eq_ignore_ascii_case(check))
        };
        self.rules.values().filter(uses)
    }

    /// Creates a health check.
    ///
    /// # Errors
    /// Those of [`HealthCheckSettings::check`], or [`ModelError::AlreadyExists`].
    pub fn create_check(
        &mut self,
        name: &str,
        settings: &HealthCheckSettings,
    ) -> Result<Arc<HealthCheck>, ModelError> {
        let check = Arc::new(settings.check(name)?);
        if let Some(other) = self.check(name) {
            return Err(ModelError::AlreadyExists {
                item: Item::HealthCheck,
                name: other.name.clone(),
            });
        }
        if self.checks.len() >= MAX_CHECKS {
            return Err(too_many("health check", name, MAX_CHECKS));
        }
        self.checks.insert(key(name), check.clone());
        Ok(check)
    }

    /// Changes a health check in place and returns it if that made a difference. Servers that it has found healthy stay so
    /// until it finds otherwise.
    ///
    /// # Errors
    /// [`ModelError::NotFound`]; those of [`HealthCheckSettings::amend`]; [`ModelError::CheckMismatch`] with a rule that uses it.
    pub fn modify_check(
        &mut self,
        name: &str,
        settings: &HealthCheckSettings,
    ) -> Result<Option<Arc<HealthCheck>>, ModelError> {
        let old = self
            .check(name)
            .ok_or_else(|| self.check_not_found(&[name]))?;
        let new = settings.amend(old)?;
        if new == **old {
            return Ok(None);
        }
        for rule in self.rules_of_check(name) {
            let group = self.group_of(rule);
            check_use(rule, &new, group.map_or(&[], |group| &group.servers))?;
        }
        let new = Arc::new(new);
        self.checks.insert(key(name), new.clone());
        Ok(Some(new))
    }

    /// Deletes health checks. A name given twice counts once.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with every name that does not exist; [`ModelError::CheckInUse`].
    pub fn delete_checks<S: AsRef<str>>(
        &mut self,
        names: &[S],
    ) -> Result<Vec<Arc<HealthCheck>>, ModelError> {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let missing: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| self.check(name).is_none())
            .collect();
        if !missing.is_empty() {
            return Err(self.check_not_found(&missing));
        }
        for check in names.iter().filter_map(|name| self.check(name)) {
            let rules: Vec<String> = self
                .rules_of_check(&check.name)
                .map(|rule| rule.name.clone())
                .collect();
            if !rules.is_empty() {
                return Err(ModelError::CheckInUse {
                    check: check.name.clone(),
                    rules,
                });
            }
        }
        Ok(names
            .iter()
            .filter_map(|name| self.checks.remove(&key(name)))
            .collect())
    }

    /// Makes a rule name its health check as that is spelled.
    ///
    /// # Errors
    /// [`ModelError::NotFound`].
    pub(super) fn adopt_check(&self, rule: &mut Rule) -> Result<(), ModelError> {
        let Some(used) = &mut rule.health_check else {
            return Ok(());
        };
        let check = self
            .check(&used.name)
            .ok_or_else(|| self.check_not_found(&[&used.name]))?;
        used.name = check.name.clone();
        Ok(())
    }

    /// Nothing, if there is a rule of this name.
    ///
    /// # Errors
    /// [`ModelError::NotFound`].
    pub fn expect_rule(&self, name: &str) -> Result<(), ModelError> {
        let known = self.rules.values().map(|rule| rule.name.as_str());
        let found = self.rule(name).map(drop);
        found.ok_or_else(|| not_found(Item::Rule, &[name], known))
    }

    /// Nothing, if there is a server of this id.
    ///
    /// # Errors
    /// [`ModelError::NotFound`].
    pub fn expect_server(&self, id: &str) -> Result<(), ModelError> {
        let known = self.groups.values().flat_map(|group| &group.servers);
        let known = known.map(|server| server.id.as_str());
        let found = self.server(id).map(drop);
        found.ok_or_else(|| not_found(Item::Server, &[id], known))
    }

    pub(crate) fn check_not_found(&self, names: &[&str]) -> ModelError {
        let known = self.checks.values().map(|check| check.name.as_str());
        not_found(Item::HealthCheck, names, known)
    }
}
