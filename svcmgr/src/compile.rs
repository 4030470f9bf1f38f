//! From the administrator's words to what the fast path forwards by. Pure: the same input gives the same snapshot.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use ilb_forwarder::spec::{
    Algorithm, AlgorithmOptions, GueChecksum, Limits, Orphans, Persistence, PortMap, PortRange,
    Prefix, Protocol, RuleId, RuleSpec, ServerId, ServerSpec, SnapshotSpec, SpecChange,
    Synchronise, Timeouts, Topology, Tunnel, VipSpec,
};
use libilb::model::{self, Configuration, Rule, Server, Timeout};
use libilb::port;

use crate::retired::RetiredRule;
use crate::risen::Risen;
use crate::standing::Standings;
use crate::state::State;
use crate::tiers::Tier;
use crate::vigour::Vigours;

/// Parts into which a weight of 1 can be divided: shares are told in hundredths.
const FINEST: u16 = 100;

/// What is compiled with every state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// What the node as a whole lets in.
    pub limits: Limits,
    /// Servers that came up lately.
    pub risen: Risen,
    /// What health checks have found out.
    pub vigours: Vigours,
    /// How rules stand with their servers.
    pub standings: Standings,
}

/// The snapshot of a state: its enabled rules, and whatever is retired.
pub fn snapshot(state: &State, surroundings: &Surroundings) -> SnapshotSpec {
    let configured = state.configuration.rules.values().map(|rule| rule.number);
    let leaving = state.retired.rules.keys().copied();
    let numbers: BTreeSet<RuleId> = configured.chain(leaving).collect();
    SnapshotSpec {
        generation: state.generation,
        limits: surroundings.limits,
        rules: numbers
            .into_iter()
            .filter_map(|number| rule_of(state, number, surroundings))
            .collect(),
    }
}

/// How many rules the snapshot of a state has.
pub fn count_rules(state: &State) -> u64 {
    let leaving = &state.retired.rules;
    let enabled = state.configuration.rules.values().filter(|r| r.enabled);
    let active = enabled.filter(|rule| !leaving.contains_key(&rule.number));
    (active.count() + leaving.len()) as u64
}

/// What the fast path was given.
#[derive(Debug, Clone)]
pub struct Given {
    /// The state that it forwards by.
    pub state: State,
    /// What was compiled with it.
    pub surroundings: Surroundings,
}

/// What leads from the snapshot that was given to that of `after`. The work is that of the difference.
pub fn change(given: &Given, after: &State, surroundings: &Surroundings) -> SpecChange {
    let before = &given.state;
    let mut risen: HashSet<ServerId> = surroundings
        .risen
        .different(&given.surroundings.risen)
        .collect();
    let mut numbers: BTreeSet<RuleId> = BTreeSet::new();
    let (old, new) = (&before.configuration, &after.configuration);
    for rule in new.rules.since(&old.rules) {
        numbers.extend([rule.before, rule.after].iter().flatten().map(|r| r.number));
    }
    for group in new.groups.since(&old.groups) {
        numbers.extend(new.rules_of(group.key).map(|rule| rule.number));
        for server in group.after.into_iter().flat_map(|group| &group.servers) {
            risen.remove(&server.number);
        }
    }
    // Of groups that are as they were given: it takes a server that went and came back before the fast path heard of it.
    for (key, group) in new.groups.iter().filter(|_| !risen.is_empty()) {
        if group.servers.iter().any(|s| risen.contains(&s.number)) {
            numbers.extend(new.rules_of(key).map(|rule| rule.number));
        }
    }
    let old = &given.surroundings.vigours;
    numbers.extend(surroundings.vigours.different(old));
    let old = &given.surroundings.standings;
    numbers.extend(surroundings.standings.different(old));
    let (old, new) = (&before.retired, &after.retired);
    numbers.extend(new.rules.since(&old.rules).map(|rule| *rule.key));
    numbers.extend(new.servers.since(&old.servers).map(|server| server.key.0));

    let mut change = SpecChange {
        base: before.generation,
        generation: after.generation,
        limits: surroundings.limits,
        ..SpecChange::default()
    };
    for number in numbers {
        match rule_of(after, number, surroundings) {
            Some(rule) => change.rules.push(rule),
            None if is_given(before, number) => change.removed.push(number),
            None => {}
        }
    }
    change
}

/// Whether the fast path has to know of the rule with this number.
fn is_given(state: &State, number: RuleId) -> bool {
    let rule = state.configuration.rules.by_number(number);
    state.retired.rules.contains_key(&number) || rule.is_some_and(|rule| rule.enabled)
}

/// What the fast path has to know of the rule with this number, if anything.
fn rule_of(state: &State, number: RuleId, surroundings: &Surroundings) -> Option<RuleSpec> {
    if let Some(record) = state.retired.rules.get(&number) {
        return Some(leaving(record, surroundings));
    }
    let rule = state.configuration.rules.by_number(number)?;
    rule.enabled.then(|| active(state, rule, surroundings))
}

/// A rule with the enabled servers of its group, and its retired ones.
fn active(state: &State, item: &Rule, surroundings: &Surroundings) -> RuleSpec {
    let group = state.configuration.group_of(item);
    let servers = group
        .into_iter()
        .flat_map(|group| &group.servers)
        .filter(|server| server.enabled)
        .map(|server| (server, true));
    let leaving = state
        .retired
        .servers_of(item.number)
        .map(|record| (&record.server, false));
    let check = state.configuration.check_of(item);
    let scale = match check.is_some_and(|check| check.load.is_some()) {
        true => scale(group.map_or(&[], |group| &group.servers)),
        false => 1,
    };
    RuleSpec {
        places: group.map_or(0, |group| group.places),
        ..rule(item, true, servers.chain(leaving), surroundings, scale)
    }
}

/// By how much all weights are multiplied where shares change with load: most are 1, of which there are no parts.
fn scale(servers: &[Server]) -> u16 {
    let heaviest = servers.iter().map(|server| server.weight).max();
    (u16::MAX / heaviest.unwrap_or(1).max(1)).clamp(1, FINEST)
}

/// A rule that only serves the connections that it has.
fn leaving(record: &RetiredRule, surroundings: &Surroundings) -> RuleSpec {
    let servers = record.servers.iter().map(|server| (server, false));
    rule(&record.rule, false, servers, surroundings, 1)
}

fn rule<'a>(
    rule: &Rule,
    accepting: bool,
    servers: impl Iterator<Item = (&'a Server, bool)>,
    surroundings: &Surroundings,
    scale: u16,
) -> RuleSpec {
    RuleSpec {
        id: rule.number,
        // Only servers that are chosen from have places.
        places: 0,
        name: rule.name.clone(),
        accepting,
        vips: rule.vips.iter().map(vip).collect(),
        clients: rule
            .clients
            .iter()
            .map(|client| Prefix {
                address: client.address,
                len: client.len,
            })
            .collect(),
        topology: match rule.topology {
            model::Topology::Dsr => Topology::Dsr,
            model::Topology::Nat => Topology::Nat,
            model::Topology::HalfNat => Topology::HalfNat,
            model::Topology::Tun => Topology::Tun,
        },
        tunnel: rule.tunnel.map(tunnel).unwrap_or_default(),
        algorithm: algorithm(rule.algorithm),
        options: AlgorithmOptions {
            fallback: rule.flags.fallback,
            port: rule.flags.port,
        },
        proxy_src: rule.proxy_src.clone(),
        persistence: rule.persistence.map(|persistence| Persistence {
            mask: persistence.mask,
            timeout: persistence.timeout,
        }),
        sync: match rule.sync {
            model::Synchronise::Full => Synchronise::Full,
            model::Synchronise::Light => Synchronise::Light,
            model::Synchronise::Off => Synchronise::Off,
        },
        one_packet: rule.one_packet,
        orphans: match rule.orphans {
            model::Orphans::Reschedule | model::Orphans::Keep => Orphans::Reschedule,
            model::Orphans::Reset => Orphans::Reset,
            model::Orphans::Drop => Orphans::Drop,
        },
        slow_start: rule.slow_start,
        new_flows_per_second: rule.max_new_flows,
        timeouts: timeouts(rule),
        servers: servers
            .filter_map(|(item, accepting)| server(rule, item, accepting, surroundings, scale))
            .collect(),
    }
}

fn vip(vip: &model::Vip) -> VipSpec {
    VipSpec {
        address: vip.address,
        protocol: match vip.protocol {
            model::Protocol::Tcp => Protocol::Tcp,
            model::Protocol::Udp => Protocol::Udp,
            model::Protocol::Sctp => Protocol::Sctp,
            model::Protocol::Icmp => Protocol::Icmp,
            model::Protocol::Any => Protocol::Any,
        },
        ports: PortRange {
            first: vip.ports.first,
            last: vip.ports.last,
        },
    }
}

fn tunnel(tunnel: model::Tunnel) -> Tunnel {
    match tunnel {
        model::Tunnel::Ipip => Tunnel::Ipip,
        model::Tunnel::Gre { checksum } => Tunnel::Gre { checksum },
        model::Tunnel::Gue { port, checksum } => Tunnel::Gue {
            port,
            checksum: match checksum {
                model::TunnelChecksum::None => GueChecksum::None,
                model::TunnelChecksum::Full => GueChecksum::Udp,
                model::TunnelChecksum::Remote => GueChecksum::Remote,
            },
        },
    }
}

fn algorithm(algorithm: model::Algorithm) -> Algorithm {
    use model::Algorithm as Said;
    match algorithm {
        Said::RoundRobin => Algorithm::RoundRobin,
        Said::WeightedRoundRobin => Algorithm::WeightedRoundRobin,
        Said::LeastConnection => Algorithm::LeastConnection,
        Said::WeightedLeastConnection => Algorithm::WeightedLeastConnection,
        Said::LocalityLeastConnection => Algorithm::LocalityLeastConnection,
        Said::LocalityLeastConnectionReplication => Algorithm::LocalityLeastConnectionReplication,
        Said::DestinationHash => Algorithm::DestinationHash,
        Said::SourceHash => Algorithm::SourceHash,
        Said::ShortestExpectedDelay => Algorithm::ShortestExpectedDelay,
        Said::NeverQueue => Algorithm::NeverQueue,
        Said::Failover => Algorithm::Failover,
        Said::Overflow => Algorithm::Overflow,
        Said::Maglev => Algorithm::Maglev,
        Said::TwoChoices => Algorithm::TwoChoices,
        Said::HashIp => Algorithm::HashIp,
        Said::HashIpPort => Algorithm::HashIpPort,
        Said::HashIpVip => Algorithm::HashIpVip,
    }
}

fn timeouts(rule: &Rule) -> Timeouts {
    Timeouts {
        tcp_established: rule.timeout(Timeout::TcpEstablished),
        tcp_syn_received: rule.timeout(Timeout::SynReceived),
        tcp_fin_wait: rule.timeout(Timeout::FinWait),
        tcp_time_wait: rule.timeout(Timeout::TimeWait),
        tcp_close: rule.timeout(Timeout::Close),
        tcp_close_wait: rule.timeout(Timeout::CloseWait),
        tcp_last_ack: rule.timeout(Timeout::LastAck),
        udp: rule.timeout(Timeout::Udp),
        sctp: rule.timeout(Timeout::Sctp),
        icmp: rule.timeout(Timeout::Icmp),
        other: rule.timeout(Timeout::Other),
    }
}

/// `None` for a server whose ports do not fit the rule, which a valid configuration has none of.
fn server(
    rule: &Rule,
    server: &Server,
    accepting: bool,
    surroundings: &Surroundings,
    scale: u16,
) -> Option<ServerSpec> {
    let vigour = surroundings.vigours.of(rule.number, server.number);
    let risen = surroundings.risen.since(server.number);
    let (standings, tier) = (&surroundings.standings, Tier::of(server.tier));
    let dead = standings.dead(rule.number, tier, &vigour);
    // With a weight of 0 its connections go on.
    let keeps = dead && rule.orphans == model::Orphans::Keep;
    Some(ServerSpec {
        id: server.number,
        name: server.id.clone(),
        address: server.address,
        ports: match Configuration::port_map(rule, server)? {
            port::PortMap::Same => PortMap::Same,
            port::PortMap::Collapse(port) => PortMap::Collapse(port),
            port::PortMap::Shift(first) => PortMap::Shift(first),
        },
        // Who took a server's share away meant it, whatever its check says.
        weight: match server.weight {
            0 => 0,
            // Its connections go on; others have their turn.
            _ if keeps || !standings.has(rule.number, tier) => 0,
            weight => {
                let weight = weight.saturating_mul(scale);
                vigour.weight.map_or(weight, |found| found.apply(weight))
            }
        },
        accepting,
        dead: dead && !keeps,
        max_connections: server.max_connections,
        min_connections: server.min_connections,
        up_since: match accepting && rule.slow_start > 0 {
            true => risen.max(vigour.up_since),
            false => 0,
        },
        place: server.place,
    })
}

/// The addresses that have to be on the node: VIPs and proxy-src of all rules of a snapshot that are ours to manage, but for
/// those that a VRRP instance has, who puts them up when it is active.
pub fn addresses(state: &State) -> BTreeSet<IpAddr> {
    let active = state.configuration.rules.values().map(AsRef::as_ref);
    let active = active.filter(|rule: &&Rule| rule.enabled);
    let leaving = state.retired.rules.values().map(|record| &record.rule);
    let instances = state.configuration.vrrp.values();
    let shared: HashSet<IpAddr> = instances.flat_map(|it| it.addresses.clone()).collect();
    active
        .chain(leaving)
        .filter(|rule| rule.manage_addresses)
        .flat_map(|rule| {
            let vips = rule.vips.iter().map(|vip| vip.address);
            vips.chain(rule.proxy_src.iter().copied())
        })
        .filter(|address| !shared.contains(address))
        .collect()
}

#[cfg(test)]
mod tests;
