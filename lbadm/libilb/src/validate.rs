//! Whether a configuration is valid as a whole: what each item says by itself is checked where the item is; here is what
//! they have to do with each other.

use std::collections::{HashMap, HashSet};

use crate::address::Family;
use crate::error::ModelError;
use crate::model::{Configuration, key};
use crate::port;
use crate::rule::{Rule, Topology};
use crate::server::Server;
use crate::servergroup::ServerGroup;

impl Configuration {
    /// Checks everything from scratch. Mutations keep a configuration valid; one that was read from a store has to be
    /// checked.
    ///
    /// # Errors
    /// The first [`ModelError`] found.
    pub fn validate(&self) -> Result<(), ModelError> {
        for (k, group) in &self.groups {
            crate::servergroup::check_group(group)?;
            check_key(k, &group.name)?;
            let mut ids = HashSet::new();
            for server in &group.servers {
                let index = server
                    .id
                    .strip_prefix('_')
                    .and_then(|id| id.strip_prefix(group.name.as_str()))
                    .and_then(|id| id.strip_prefix('.'))
                    .and_then(|n| n.parse::<u32>().ok());
                if index.is_none_or(|n| n >= group.next_index) || !ids.insert(&server.id) {
                    return Err(ModelError::invalid(
                        "server id",
                        &server.id,
                        "is not one that this group has given",
                        format!(
                            "ids are _{}.<n> with n below {}",
                            group.name, group.next_index
                        ),
                    ));
                }
            }
        }
        let servers = self.groups.values().flat_map(|g| &g.servers);
        check_numbers("server", servers.map(|s| s.number), self.next_server)?;
        check_numbers(
            "rule",
            self.rules.values().map(|r| r.number),
            self.next_rule,
        )?;
        let mut claims: Vec<&Rule> = Vec::with_capacity(self.rules.len());
        for (k, rule) in &self.rules {
            check_key(k, &rule.name)?;
            crate::rule::check_rule(rule)?;
            let group = self
                .group_of(rule)
                .ok_or_else(|| self.group_not_found(&rule.servergroup))?;
            check_fit(rule, group, 0)?;
            claims.push(rule);
        }
        // Sorted by claim, an overlap shows between neighbours.
        claims.sort_by_key(|r| (r.vip, r.protocol, r.ports));
        for pair in claims.windows(2) {
            if let Some(claim) = pair[1].overlap(pair[0]) {
                return Err(overlap(pair[1], pair[0], claim));
            }
        }
        Ok(())
    }

    /// Checks a rule that is valid by itself against everything else.
    pub(crate) fn check_among(&self, rule: &Rule) -> Result<(), ModelError> {
        for other in self.rules.values() {
            if let Some(claim) = rule.overlap(other) {
                return Err(overlap(rule, other, claim));
            }
        }
        let group = self
            .group_of(rule)
            .ok_or_else(|| self.group_not_found(&rule.servergroup))?;
        check_fit(rule, group, 0)
    }
}

/// Checks that the servers of `group` from index `from` on fit `rule`: family, ports, addresses.
pub(crate) fn check_fit(rule: &Rule, group: &ServerGroup, from: usize) -> Result<(), ModelError> {
    // No port and the rule's own ports are the same place, which the group alone cannot know.
    let effective = |server: &Server| server.ports.unwrap_or(rule.ports);
    let mut places = HashMap::with_capacity(group.servers.len());
    for (i, server) in group.servers.iter().enumerate() {
        places
            .entry((server.address, effective(server)))
            .or_insert(i);
    }
    for (i, server) in group.servers.iter().enumerate().skip(from) {
        let problem = if Family::of(server.address) != rule.family() {
            format!(
                "it is {}, but the vip {} is {}; use servers of the vip's address family",
                Family::of(server.address),
                rule.vip,
                rule.family()
            )
        } else if server.address == rule.vip {
            "its address is the rule's own vip; give the server's own address".to_string()
        } else if rule.proxy_src.contains(&server.address) {
            "its address is one of the rule's proxy-src addresses; these have to be the balancer's own".to_string()
        } else if rule.topology == Topology::Dsr && server.ports.is_some_and(|p| p != rule.ports) {
            format!(
                "its port is {}, but with DSR the packet keeps the rule's port {}; leave the server's port out, or use \
                 NAT or HALF-NAT",
                server.ports.unwrap_or(rule.ports),
                rule.ports
            )
        } else if port::map(rule.ports, server.ports).is_none() {
            format!(
                "its {} ports cannot stand for the {} ports {} of the rule; give no port, one port, or as many as the rule \
                 has",
                server.ports.unwrap_or(rule.ports).size(),
                rule.ports.size(),
                rule.ports
            )
        } else {
            match places.get(&(server.address, effective(server))) {
                Some(&first) if first != i => format!(
                    "with the rule's port {} it is the same as {}; remove one of them",
                    rule.ports, group.servers[first].id
                ),
                _ => continue,
            }
        };
        return Err(ModelError::Mismatch {
            rule: rule.name.clone(),
            group: group.name.clone(),
            server: format!("{} ({})", server.id, server.spec()),
            problem,
        });
    }
    Ok(())
}

fn overlap(rule: &Rule, other: &Rule, claim: String) -> ModelError {
    ModelError::Overlap {
        rule: rule.name.clone(),
        other: other.name.clone(),
        claim,
    }
}

fn check_key(k: &str, name: &str) -> Result<(), ModelError> {
    if k == key(name) {
        return Ok(());
    }
    Err(ModelError::invalid(
        "name",
        name,
        format!("stands under the key '{k}'"),
        format!("the key has to be '{}'", key(name)),
    ))
}

fn check_numbers(
    field: &'static str,
    numbers: impl Iterator<Item = u32>,
    next: u32,
) -> Result<(), ModelError> {
    let mut seen = HashSet::new();
    for number in numbers {
        if number == 0 || number >= next || !seen.insert(number) {
            return Err(ModelError::invalid(
                field,
                number.to_string(),
                "has a number that is taken or was never given",
                format!(
                    "numbers are unique and from 1 to {}",
                    next.saturating_sub(1)
                ),
            ));
        }
    }
    Ok(())
}
