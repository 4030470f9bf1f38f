//! The answer to `Describe()`. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ilb_forwarder::spec::ServerId;
use ilb_forwarder::verdict;
use libilb::describe::{
    CheckDescription, Description, DropReason, Fastpath, GroupDescription, HealthSummary,
    PanicDescription, RuleDescription, ServerDescription, Status, VrrpDescription,
};
use libilb::health::HealthState;
use libilb::model::{Configuration, Rule, Server, ServerGroup, key};
use libilb::rule::PanicMode;
use libilb::vrrp::VrrpState;

use super::statistics::Ledger;
use super::view::View;
use crate::tiers::Tier;

/// Everything about the node. `present` are the addresses on its interfaces, if they could be read.
pub fn describe(
    view: &View,
    reports: &[ilb_vrrp::Report],
    ledger: &Ledger,
    database: &str,
    present: Option<&BTreeSet<IpAddr>>,
) -> Description {
    let configuration = &view.state.configuration;
    let retired = &view.state.retired;
    let configured = configuration.rules.values().map(|rule| RuleDescription {
        rule: rule.as_ref().clone(),
        status: match (rule.enabled, retired.rules.contains_key(&rule.number)) {
            (true, _) => Status::Enabled,
            (false, true) => Status::Draining,
            (false, false) => Status::Disabled,
        },
        deleted: false,
        connections: ledger.counters(rule.number, 0).connections_open,
        has_quorum: view.standings.of(rule.number).map(|s| s.quorum),
        served_by: served_by(view, rule),
        panic: panic(view, rule),
        problems: problems(view, rule, present),
    });
    let deleted = retired
        .rules
        .values()
        .filter(|record| configuration.rules.by_number(record.rule.number).is_none())
        .map(|record| RuleDescription {
            rule: Rule {
                enabled: false,
                ..record.rule.clone()
            },
            status: Status::Draining,
            deleted: true,
            connections: ledger.counters(record.rule.number, 0).connections_open,
            has_quorum: None,
            served_by: None,
            panic: None,
            problems: Vec::new(),
        });
    let connections = ledger.connections_of_servers();
    let mut draining: HashMap<String, Draining<'_>> = HashMap::new();
    for record in retired.servers.values() {
        let group = record.server.id.strip_prefix('_').unwrap_or_default();
        let group = group.rsplit_once('.').map_or(group, |(group, _)| group);
        let servers = draining.entry(key(group)).or_default();
        servers.insert(record.server.number, &record.server);
    }
    let none = Draining::new();
    Description {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: view.state.generation,
        state: view.health,
        state_reason: view.health_reason.clone(),
        fastpath: view.fastpath,
        fastpath_generation: view.fastpath_generation,
        drift: view.drift.to_vec(),
        waiting: view.state.pending.as_ref().map(|p| p.waiting.clone()),
        database_path: database.to_owned(),
        rules: configured.chain(deleted).collect(),
        groups: configuration
            .groups
            .iter()
            .map(|(key, item)| group(view, item, draining.get(key).unwrap_or(&none), &connections))
            .collect(),
        checks: checks(configuration),
        vrrp: vrrp(view, reports),
        pair: None,
        drop_reasons: verdict::DropReason::ALL
            .iter()
            .map(|reason| DropReason {
                label: reason.label().to_owned(),
                words: reason.words().to_owned(),
            })
            .collect(),
    }
}

/// Health checks, each with the rules that use it.
fn checks(configuration: &Configuration) -> Vec<CheckDescription> {
    let mut rules: HashMap<&str, Vec<String>> = HashMap::new();
    for rule in configuration.rules.values() {
        if let Some(used) = &rule.health_check {
            rules.entry(&used.name).or_default().push(rule.name.clone());
        }
    }
    let described = configuration.checks.values().map(|check| CheckDescription {
        check: check.as_ref().clone(),
        rules: rules.remove(check.name.as_str()).unwrap_or_default(),
    });
    described.collect()
}

/// VRRP instances, each with where it stands and the rules that need its addresses.
fn vrrp(view: &View, reports: &[ilb_vrrp::Report]) -> Vec<VrrpDescription> {
    let configuration = &view.state.configuration;
    let described = configuration.vrrp.iter().map(|(name, instance)| {
        let report = reports.iter().find(|report| key(&report.name) == *name);
        let has = |address: &IpAddr| instance.addresses.contains(address);
        let uses = |rule: &&Arc<Rule>| {
            rule.vips.iter().any(|vip| has(&vip.address)) || rule.proxy_src.iter().any(has)
        };
        let rules = configuration.rules.values().filter(uses);
        VrrpDescription {
            instance: instance.as_ref().clone(),
            status: view.vrrp.get(name).cloned().unwrap_or_default(),
            counters: report.map(|it| it.counters.clone()).unwrap_or_default(),
            rules: rules.map(|rule| rule.name.clone()).collect(),
        }
    });
    described.collect()
}

/// Whether an address belongs to a VRRP instance that does not have it now: nothing is wrong then.
fn is_elsewhere(view: &View, address: IpAddr) -> bool {
    let instance = view.state.configuration.instance_of(address);
    instance.is_some_and(|instance| {
        let status = view.vrrp.get(&key(&instance.name));
        status.is_none_or(|status| status.state != VrrpState::Active)
    })
}

/// Retired servers by their numbers; a removed one may drain in several rules.
type Draining<'a> = BTreeMap<ServerId, &'a Server>;

fn group(
    view: &View,
    group: &ServerGroup,
    draining: &Draining<'_>,
    connections: &HashMap<ServerId, u64>,
) -> GroupDescription {
    let connections = |number| connections.get(&number).copied().unwrap_or(0);
    let configuration = &view.state.configuration;
    let checked: Vec<&Rule> = configuration
        .rules_of(&group.name)
        .map(AsRef::as_ref)
        .filter(|rule| rule.health_check.is_some())
        .collect();
    let standby = |server: &Server| -> Vec<String> {
        let rules = configuration.rules_of(&group.name);
        let others = rules.filter(|rule| !view.standings.has(rule.number, Tier::of(server.tier)));
        others.map(|rule| rule.name.clone()).collect()
    };
    let there = group.servers.iter().map(|server| ServerDescription {
        server: server.clone(),
        status: match (server.enabled, draining.contains_key(&server.number)) {
            (true, _) => Status::Enabled,
            (false, true) => Status::Draining,
            (false, false) => Status::Disabled,
        },
        removed: false,
        connections: connections(server.number),
        standby: standby(server),
        health: checked
            .iter()
            .filter_map(|rule| health(view, rule, server))
            .collect(),
    });
    let numbers: BTreeSet<u32> = group.servers.iter().map(|s| s.number).collect();
    let removed = draining
        .values()
        .filter(|server| !numbers.contains(&server.number))
        .map(|server| ServerDescription {
            server: (*server).clone(),
            status: Status::Draining,
            removed: true,
            connections: connections(server.number),
            standby: Vec::new(),
            health: Vec::new(),
        });
    GroupDescription {
        name: group.name.clone(),
        servers: there.chain(removed).collect(),
        places: group.places,
        source: group.source.as_ref().map(|source| {
            let follower = view.followers.get(&key(&group.name));
            let follower = follower.map(|follower| (**follower).clone());
            Box::new(follower.unwrap_or_default().describe(source))
        }),
    }
}

/// What the health check of a rule says of a server.
fn health(view: &View, rule: &Rule, server: &Server) -> Option<HealthSummary> {
    let check = view.state.configuration.check_of(rule)?;
    let tested = rule.enabled && server.enabled;
    let known = view.book.of(rule.number, server.number).filter(|_| tested);
    Some(HealthSummary {
        rule: rule.name.clone(),
        check: check.name.clone(),
        state: match tested {
            true => view.book.state(rule.number, server.number),
            false => HealthState::Disabled,
        },
        up: known.map_or(tested && !check.alpha, |news| news.up),
        why: known.map(|news| news.why.clone()).unwrap_or_default(),
        since: known.map_or(0, |news| news.since),
        overruled: overruled(view, rule, server),
    })
}

/// The panic mode by which a server is used although it looks dead.
fn overruled(view: &View, rule: &Rule, server: &Server) -> Option<PanicMode> {
    let panic = view.standings.of(rule.number)?.panic?;
    let (tier, vigour) = (
        Tier::of(server.tier),
        view.vigours.of(rule.number, server.number),
    );
    let used = vigour.dead && !view.standings.dead(rule.number, tier, &vigour);
    used.then_some(panic.mode)
}

/// Who serves a rule, where that is a question.
pub fn served_by(view: &View, rule: &Rule) -> Option<String> {
    Some(view.standings.of(rule.number)?.level?.to_string())
}

/// The panic mode of a rule that holds.
pub fn panic(view: &View, rule: &Rule) -> Option<PanicDescription> {
    let panic = view.standings.of(rule.number)?.panic?;
    let group = view.state.configuration.group_of(rule)?;
    let lived = group.servers.iter().filter(|server| {
        let vigour = view.vigours.of(rule.number, server.number);
        let counts = server.enabled && server.weight > 0 && Tier::of(server.tier) != Tier::Sorry;
        counts && (!vigour.dead || vigour.down_since > 0)
    });
    let dead = |server: &&Server| view.vigours.of(rule.number, server.number).dead;
    let count = |servers: usize| u32::try_from(servers).unwrap_or(u32::MAX);
    Some(PanicDescription {
        mode: panic.mode,
        alive: count(lived.clone().filter(|server| !dead(server)).count()),
        servers: count(lived.count()),
        threshold: rule.panic_threshold,
    })
}

/// What is said of the first server of a rule, when its health check lets none of them be used.
fn all_down(view: &View, rule: &Rule, servers: &[Server]) -> Option<String> {
    let mut tested = servers
        .iter()
        .filter(|server| server.enabled)
        .filter_map(|server| health(view, rule, server));
    let first = tested.next().filter(|first| !first.up)?;
    let none = tested.all(|health| !health.up);
    none.then(|| match first.why.is_empty() {
        true => format!("nothing is known of them yet ({})", first.state),
        false => first.why,
    })
}

/// What keeps a rule from doing its work.
fn problems(view: &View, rule: &Rule, present: Option<&BTreeSet<IpAddr>>) -> Vec<String> {
    let mut problems = Vec::new();
    if !rule.enabled {
        return problems;
    }
    let group = view.state.configuration.group_of(rule);
    let servers = group.map_or(&[][..], |group| &group.servers);
    if servers.is_empty() {
        problems.push(format!(
            "server group '{}' has no servers",
            rule.servergroup
        ));
    } else if servers.iter().all(|server| !server.enabled) {
        problems.push(format!(
            "all servers of server group '{}' are disabled",
            rule.servergroup
        ));
    } else if servers
        .iter()
        .all(|server| !server.enabled || server.weight == 0)
    {
        problems.push(format!(
            "all enabled servers of server group '{}' have weight 0",
            rule.servergroup
        ));
    } else if let Some(why) = all_down(view, rule, servers)
        && panic(view, rule).is_none()
    {
        problems.push(format!(
            "every enabled server of server group '{}' is down: {why}; 'lbadm show-hc-result {}' says more",
            rule.servergroup, rule.name
        ));
    }
    match view.fastpath {
        Fastpath::Connected => {}
        Fastpath::Absent => problems.push(
            "the fast path is not running: start it with 'systemctl start ilb-fastpath'".to_owned(),
        ),
        Fastpath::Behind => problems.push(format!(
            "the fast path forwards by generation {}, not by this one: see its log",
            view.fastpath_generation
        )),
    }
    if let Some(present) = present {
        let vips: BTreeSet<IpAddr> = rule.vips.iter().map(|vip| vip.address).collect();
        let vip = vips.into_iter().map(|vip| ("vip", vip));
        let sources = rule.proxy_src.iter().map(|source| ("proxy-src", *source));
        for (what, address) in vip.chain(sources) {
            if !present.contains(&address) && !is_elsewhere(view, address) {
                problems.push(format!(
                    "the {what} {address} is on no interface of this node"
                ));
            }
        }
    }
    problems
}
