//! Whether a configuration is valid as a whole: what each item says by itself is checked where the item is; here is what
//! they have to do with each other.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::address::Family;
use crate::error::ModelError;
use crate::healthcheck_use::check_use;
use crate::model::{Configuration, key};
use crate::port::{self, PortMap, PortRange};
use crate::rule::{Prefix, Protocol, Rule, Topology};
use crate::server::Server;
use crate::servergroup::ServerGroup;
use crate::vrrp::VrrpSettings;

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
        for (k, check) in &self.checks {
            check_key(k, &check.name)?;
        }
        for (k, instance) in &self.vrrp {
            check_key(k, &instance.name)?;
            VrrpSettings::from(instance.as_ref()).check(&instance.name)?;
            self.check_vrrp_among(instance)?;
        }
        let mut claims: Vec<&Rule> = Vec::with_capacity(self.rules.len());
        for (k, rule) in &self.rules {
            check_key(k, &rule.name)?;
            crate::rule::check_rule(rule)?;
            let group = self
                .group_of(rule)
                .ok_or_else(|| self.group_not_found(&rule.servergroup))?;
            check_fit(rule, group, 0)?;
            self.check_use_of(rule, &group.servers)?;
            claims.push(rule);
        }
        claim_conflicts(&claims)
            .into_iter()
            .next()
            .map_or(Ok(()), Err)
    }

    /// Checks a rule that is valid by itself against everything else.
    pub(crate) fn check_among(&self, rule: &Rule) -> Result<(), ModelError> {
        for other in rule
            .vips
            .iter()
            .flat_map(|vip| self.rules.of_vip(vip.address))
        {
            if other.number != rule.number
                && let Some(claim) = rule.overlap(other)
            {
                return Err(overlap(rule, other, claim));
            }
        }
        let group = self
            .group_of(rule)
            .ok_or_else(|| self.group_not_found(&rule.servergroup))?;
        check_fit(rule, group, 0)?;
        self.check_use_of(rule, &group.servers)
    }

    /// Checks that the health check of a rule is there, is spelled so, and can be carried out.
    fn check_use_of(&self, rule: &Rule, servers: &[Server]) -> Result<(), ModelError> {
        let Some(used) = &rule.health_check else {
            return Ok(());
        };
        let check = self
            .check(&used.name)
            .filter(|check| check.name == used.name)
            .ok_or_else(|| self.check_not_found(&[&used.name]))?;
        check_use(rule, check, servers)
    }
}

/// Finds rules that claim the same traffic with nothing to tell which is meant; of two rules one of their claims.
pub(crate) fn claim_conflicts(rules: &[&Rule]) -> Vec<ModelError> {
    let mut conflicts = Vec::new();
    let mut pairs = HashSet::new();
    let everyone = |rule: &Rule| Prefix {
        address: rule
            .vips
            .first()
            .map_or(
                IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
                |vip| match vip.address {
                    IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
                    IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
                },
            ),
        len: 0,
    };
    let mut claims: HashMap<_, Vec<(PortRange, &Rule)>> = HashMap::new();
    for &rule in rules {
        let all = [everyone(rule)];
        let clients = match rule.clients.is_empty() {
            true => &all[..],
            false => &rule.clients,
        };
        for vip in rule.vips.iter() {
            for client in clients {
                let place = (vip.address, vip.protocol, *client);
                claims.entry(place).or_default().push((vip.ports, rule));
            }
        }
    }
    for mut list in claims.into_values() {
        // Widest first: what is open then is a tower of ranges, each within the one below it.
        list.sort_by_key(|(ports, rule)| (ports.first, u16::MAX - ports.last, rule.number));
        let mut open: Vec<(PortRange, &Rule)> = Vec::new();
        for (ports, rule) in list {
            open.retain(|(other, _)| other.last >= ports.first);
            if let Some((other, other_rule)) = open.last()
                && (other.last < ports.last || *other == ports)
                && let Some(claim) = rule.overlap(other_rule)
                && pairs.insert((&rule.name, &other_rule.name))
            {
                conflicts.push(overlap(rule, other_rule, claim));
            }
            open.push((ports, rule));
        }
    }
    conflicts
}

/// Checks that the servers of `group` from index `from` on fit `rule`: family, ports, addresses.
pub(crate) fn check_fit(rule: &Rule, group: &ServerGroup, from: usize) -> Result<(), ModelError> {
    let first = misfits(rule, group, from).next();
    first.map_or(Ok(()), |(_, error)| Err(error))
}

/// The servers of `group` from index `from` on that do not fit `rule`, by their index.
pub(crate) fn misfits<'a>(
    rule: &'a Rule,
    group: &'a ServerGroup,
    from: usize,
) -> impl Iterator<Item = (usize, ModelError)> + 'a {
    // No port and the rule's own ports are the same place, which the group alone cannot know.
    let effective = move |server: &Server| match server.ports {
        Some(ports) if rule.vips.iter().all(|vip| vip.ports == ports) => None,
        ports => ports,
    };
    let mut places = HashMap::with_capacity(group.servers.len());
    for (i, server) in group.servers.iter().enumerate() {
        places
            .entry((server.address, effective(server)))
            .or_insert(i);
    }
    let servers = group.servers.iter().enumerate().skip(from);
    servers.filter_map(move |(i, server)| {
        let problem = match misfit(rule, server) {
            Some(problem) => problem,
            None => match places.get(&(server.address, effective(server))) {
                Some(&first) if first != i => format!(
                    "with the rule's port {} it is the same as {}; remove one of them",
                    rule.vips.column(|vip| vip.ports),
                    group.servers[first].id
                ),
                _ => return None,
            },
        };
        let error = ModelError::Mismatch {
            rule: rule.name.clone(),
            group: group.name.clone(),
            server: format!("{} ({})", server.id, server.spec()),
            problem,
        };
        Some((i, error))
    })
}

/// Why a server cannot serve a rule, if it cannot.
fn misfit(rule: &Rule, server: &Server) -> Option<String> {
    let family = Family::of(server.address);
    let tun = rule.topology == Topology::Tun;
    let ports = || rule.vips.column(|vip| vip.ports);
    if !tun && family != rule.family() {
        return Some(format!(
            "it is {family}, but the vip {} is {}; use servers of the vip's address family",
            rule.vips.column(|vip| vip.address),
            rule.family()
        ));
    }
    if tun && !rule.proxy_src.iter().any(|s| Family::of(*s) == family) {
        return Some(format!(
            "it is {family}, but the rule has no {family} proxy-src address for the outer header; give one"
        ));
    }
    if rule.vips.iter().any(|vip| vip.address == server.address) {
        return Some(
            "its address is the rule's own vip; give the server's own address".to_string(),
        );
    }
    if rule.proxy_src.contains(&server.address) {
        return Some(
            "its address is one of the rule's proxy-src addresses; these have to be the balancer's own"
                .to_string(),
        );
    }
    match port::map(&rule.vips, server.ports) {
        Some(PortMap::Same) => None,
        Some(_) if rule.topology == Topology::Dsr || tun => Some(format!(
            "its port is {}, but with {} the packet keeps the rule's port {}; leave the server's port out, or use NAT or \
             HALF-NAT",
            server.ports?,
            rule.topology,
            ports()
        )),
        Some(_) => None,
        None if rule.vips.iter().any(|vip| vip.protocol == Protocol::Any) => Some(format!(
            "its port is {}, but packets of protocol any keep what ports they have; leave the server's port out",
            server.ports?
        )),
        None => Some(format!(
            "its {} ports cannot stand for the {} ports {} of the rule; give no port, one port, or as many as the rule has",
            server.ports?.size(),
            rule.vips.column(|vip| vip.ports.size()),
            ports()
        )),
    }
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
