//! Sources of server groups, and the servers that they find.

use std::sync::Arc;

use super::{Configuration, key};
use crate::address::Family;
use crate::error::ModelError;
use crate::healthcheck_use::check_use;
use crate::rule::Topology;
use crate::server::Server;
use crate::servergroup::ServerGroup;
use crate::source::{Found, Origin, Refused, Source, SourceSettings};
use crate::validate::check_fit;

/// What came of following a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// Ids of servers that came.
    pub added: Vec<String>,
    /// Ids of servers that went.
    pub removed: Vec<String>,
    /// Who does not fit a rule of the group.
    pub refused: Vec<Refused>,
}

impl Configuration {
    /// Creates a server group with a source, and with servers if `specs` has any.
    ///
    /// # Errors
    /// Those of [`Configuration::create_group`] and [`SourceSettings::apply`].
    pub fn create_group_from<S: AsRef<str>>(
        &mut self,
        name: &str,
        specs: &[S],
        source: &SourceSettings,
    ) -> Result<Arc<ServerGroup>, ModelError> {
        let source = match source.is_empty() {
            true => None,
            false => source.apply(None)?,
        };
        self.create(name, specs, source)
    }

    /// Changes the source of a group, and returns the group if that made a difference. Without a source the servers that
    /// it has found stay, as if they had been added by hand.
    ///
    /// # Errors
    /// [`ModelError::NotFound`]; those of [`SourceSettings::apply`]; [`ModelError::Invalid`] for a subnet whose addresses no
    /// rule of the group could use.
    pub fn modify_group(
        &mut self,
        name: &str,
        settings: &SourceSettings,
    ) -> Result<Option<Arc<ServerGroup>>, ModelError> {
        let old = self.group(name).ok_or_else(|| self.group_not_found(name))?;
        let source = settings.apply(old.source.as_deref())?;
        if source.as_ref() == old.source.as_deref() {
            return Ok(None);
        }
        if let Some(source) = &source {
            self.check_source(&old.name, source)?;
        }
        let mut new = ServerGroup::clone(old);
        new.follow(source);
        let new = Arc::new(new);
        self.groups.insert(key(name), new.clone());
        Ok(Some(new))
    }

    /// The group of this name.
    ///
    /// # Errors
    /// [`ModelError::NotFound`].
    pub fn expect_group(&self, name: &str) -> Result<&Arc<ServerGroup>, ModelError> {
        self.group(name).ok_or_else(|| self.group_not_found(name))
    }

    /// The family of the addresses that the rules of a group can use: that of their VIPs, unless all are tunnelled; without
    /// rules that of the servers that are there. `None` for any.
    pub fn family_of(&self, group: &str) -> Option<Family> {
        let plain = self
            .rules_of(group)
            .find(|rule| rule.topology != Topology::Tun);
        match plain.and_then(|rule| rule.vips.first()) {
            Some(vip) => Some(Family::of(vip.address)),
            None if self.rules_of(group).next().is_some() => None,
            None => {
                let first = self.group(group)?.servers.first()?;
                Some(Family::of(first.address))
            }
        }
    }

    fn check_source(&self, group: &str, source: &Source) -> Result<(), ModelError> {
        let Origin::Subnet(prefix) = source.origin else {
            return Ok(());
        };
        let family = Family::of(prefix.address);
        let other = self.rules_of(group).find(|rule| {
            let first = rule.vips.first();
            rule.topology != Topology::Tun
                && first.is_some_and(|vip| Family::of(vip.address) != family)
        });
        match other {
            Some(rule) => Err(ModelError::invalid(
                "subnet",
                prefix.to_string(),
                format!("is {family}, and rule '{}' is not", rule.name),
                "use a subnet of the family of the rules that use the group",
            )),
            None => Ok(()),
        }
    }

    /// Takes servers into a group that its source has found, and others of its source out. Nobody is refused for another.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] for the group, or numbers that are used up.
    pub fn follow(
        &mut self,
        group: &str,
        add: &[Found],
        remove: &[u32],
    ) -> Result<Followed, ModelError> {
        let old = self
            .group(group)
            .ok_or_else(|| self.group_not_found(group))?;
        let mut followed = Followed::default();
        let mut new = ServerGroup::clone(old);
        let mut next_server = self.next_server;
        let leaves = |server: &Server| server.found && remove.contains(&server.number);
        let leaving = new.servers.iter().filter(|server| leaves(server));
        followed.removed = leaving.map(|server| server.id.clone()).collect();
        new.servers.retain(|server| !leaves(server));
        for found in add {
            let before = new.servers.len();
            let mut more = new.clone();
            let spec = found.spec().to_string();
            let mut fits = self.extend_from(&mut more, &[spec], next_server);
            for rule in self.rules_of(group) {
                fits = fits.and_then(|next| check_fit(rule, &more, before).map(|()| next));
                if let Some(check) = self.check_of(rule) {
                    let added = more.servers.get(before..).unwrap_or_default();
                    fits = fits.and_then(|next| check_use(rule, check, added).map(|()| next));
                }
            }
            match fits {
                Ok(next) => {
                    let id = more.servers.last().map(|server| server.id.clone());
                    followed.added.extend(id);
                    (new, next_server) = (more, next);
                }
                Err(error) => followed.refused.push(Refused {
                    address: found.address,
                    why: format!("does not fit: {error}"),
                }),
            }
        }
        if !followed.added.is_empty() || !followed.removed.is_empty() {
            self.groups.insert(key(group), Arc::new(new));
            self.next_server = next_server;
        }
        Ok(followed)
    }
}
