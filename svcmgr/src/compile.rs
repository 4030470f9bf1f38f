//! From the administrator's words to what the fast path forwards by. Pure: the same input gives the same snapshot.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ilb_forwarder::spec::{
    Algorithm, PortMap, PortRange, Protocol, RuleSpec, ServerSpec, SnapshotSpec, Timeouts,
    Topology, VipSpec,
};
use libilb::model::{self, Configuration, Rule, Server};
use libilb::port;

use crate::retired::{Retired, RetiredRule};

/// The snapshot of a configuration: its enabled rules, and whatever is retired.
pub fn snapshot(generation: u64, configuration: &Configuration, retired: &Retired) -> SnapshotSpec {
    let active = configuration
        .rules
        .values()
        .filter(|rule| rule.enabled)
        .map(|rule| active(configuration, rule, retired));
    let leaving = retired.rules.values().map(|record| leaving(record));
    let mut rules: Vec<RuleSpec> = active.chain(leaving).collect();
    rules.sort_by_key(|rule| rule.id);
    SnapshotSpec {
        generation,
        rules,
        ..SnapshotSpec::default()
    }
}

/// A rule with the enabled servers of its group, and its retired ones.
fn active(configuration: &Configuration, item: &Rule, retired: &Retired) -> RuleSpec {
    let group = configuration.group_of(item);
    let servers = group
        .into_iter()
        .flat_map(|group| &group.servers)
        .filter(|server| server.enabled)
        .map(|server| (server, true));
    let leaving = retired
        .servers_of(item.number)
        .map(|record| (&record.server, false));
    rule(item, true, servers.chain(leaving))
}

/// A rule that only serves the connections that it has.
fn leaving(record: &RetiredRule) -> RuleSpec {
    let servers = record.servers.iter().map(|server| (server, false));
    rule(&record.rule, false, servers)
}

fn rule<'a>(
    rule: &Rule,
    accepting: bool,
    servers: impl Iterator<Item = (&'a Server, bool)>,
) -> RuleSpec {
    RuleSpec {
        id: rule.number,
        name: rule.name.clone(),
        accepting,
        vips: vec![VipSpec {
            address: rule.vip,
            protocol: match rule.protocol {
                model::Protocol::Tcp => Protocol::Tcp,
                model::Protocol::Udp => Protocol::Udp,
            },
            ports: PortRange {
                first: rule.ports.first,
                last: rule.ports.last,
            },
        }],
        topology: match rule.topology {
            model::Topology::Dsr => Topology::Dsr,
            model::Topology::Nat => Topology::Nat,
            model::Topology::HalfNat => Topology::HalfNat,
        },
        algorithm: match rule.algorithm {
            model::Algorithm::RoundRobin => Algorithm::RoundRobin,
            model::Algorithm::HashIp => Algorithm::HashIp,
            model::Algorithm::HashIpPort => Algorithm::HashIpPort,
            model::Algorithm::HashIpVip => Algorithm::HashIpVip,
        },
        proxy_src: rule.proxy_src.clone(),
        timeouts: timeouts(rule),
        servers: servers
            .filter_map(|(item, accepting)| server(rule, item, accepting))
            .collect(),
        ..RuleSpec::default()
    }
}

fn timeouts(rule: &Rule) -> Timeouts {
    let defaults = Timeouts::default();
    match rule.protocol {
        model::Protocol::Tcp => Timeouts {
            tcp_established: rule.idle_timeout(),
            ..defaults
        },
        model::Protocol::Udp => Timeouts {
            udp: rule.idle_timeout(),
            ..defaults
        },
    }
}

/// `None` for a server whose ports do not fit the rule, which a valid configuration has none of.
fn server(rule: &Rule, server: &Server, accepting: bool) -> Option<ServerSpec> {
    Some(ServerSpec {
        id: server.number,
        name: server.id.clone(),
        address: server.address,
        ports: match Configuration::port_map(rule, server)? {
            port::PortMap::Same => PortMap::Same,
            port::PortMap::Collapse(port) => PortMap::Collapse(port),
            port::PortMap::Shift(first) => PortMap::Shift(first),
        },
        weight: server.weight,
        accepting,
        ..ServerSpec::default()
    })
}

/// The addresses that have to be on the node: VIPs and proxy-src of all rules of a snapshot that are ours to manage.
pub fn addresses(configuration: &Configuration, retired: &Retired) -> BTreeSet<IpAddr> {
    let active = configuration.rules.values().map(AsRef::as_ref);
    let active = active.filter(|rule| rule.enabled);
    let leaving = retired.rules.values().map(|record| &record.rule);
    active
        .chain(leaving)
        .filter(|rule| rule.manage_addresses)
        .flat_map(|rule| rule.proxy_src.iter().copied().chain([rule.vip]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use libilb::model::RuleSettings;

    fn settings() -> RuleSettings {
        RuleSettings {
            enabled: true,
            vip: "198.51.100.1".into(),
            port: "8000-8009".into(),
            algorithm: "hipv".into(),
            topology: "NAT".into(),
            proxy_src: vec!["198.51.100.2".into()],
            servergroup: "web".into(),
            nat_timeout: Some(7),
            ..RuleSettings::default()
        }
    }

    fn configuration() -> Configuration {
        let mut configuration = Configuration::default();
        configuration
            .create_group("web", &["192.0.2.1", "192.0.2.2:80", "192.0.2.3:9000-9009"])
            .unwrap();
        configuration.create_rule("web", &settings()).unwrap();
        configuration
    }

    #[test]
    fn a_rule_is_translated_word_by_word() {
        let spec = snapshot(9, &configuration(), &Retired::default());
        assert_eq!(spec.generation, 9);
        let [rule] = spec.rules.as_slice() else {
            panic!("one rule expected: {spec:?}");
        };
        assert_eq!(
            (rule.id, rule.name.as_str(), rule.accepting),
            (1, "web", true)
        );
        assert_eq!(
            rule.vips,
            [VipSpec {
                address: "198.51.100.1".parse().unwrap(),
                protocol: Protocol::Tcp,
                ports: PortRange {
                    first: 8000,
                    last: 8009
                },
            }]
        );
        assert_eq!(rule.topology, Topology::Nat);
        assert_eq!(rule.algorithm, Algorithm::HashIpVip);
        assert_eq!(rule.timeouts.tcp_established, 7);
        assert_eq!(rule.timeouts.udp, Timeouts::default().udp);
        let ports: Vec<PortMap> = rule.servers.iter().map(|server| server.ports).collect();
        assert_eq!(
            ports,
            [PortMap::Same, PortMap::Collapse(80), PortMap::Shift(9000)]
        );
    }

    #[test]
    fn disabled_rules_and_servers_are_left_out() {
        let mut configuration = configuration();
        configuration.enable_servers(&["_web.1"], false).unwrap();
        let spec = snapshot(1, &configuration, &Retired::default());
        let names: Vec<&str> = spec.rules[0]
            .servers
            .iter()
            .map(|s| s.name.as_str())
            .collect();
        assert_eq!(names, ["_web.0", "_web.2"]);
        configuration.enable_rules::<&str>(&[], false).unwrap();
        assert!(
            snapshot(1, &configuration, &Retired::default())
                .rules
                .is_empty()
        );
        assert!(addresses(&configuration, &Retired::default()).is_empty());
    }

    #[test]
    fn a_retired_rule_stays_beside_a_new_one_on_its_vip() {
        let before = configuration();
        let mut after = before.clone();
        after.delete_all_rules();
        let mut retired = Retired::default();
        retired.follow(&before, &after, 1);
        after.create_rule("again", &settings()).unwrap();
        let spec = snapshot(2, &after, &retired);
        let rules: Vec<(u32, bool)> = spec.rules.iter().map(|r| (r.id, r.accepting)).collect();
        assert_eq!(rules, [(1, false), (2, true)]);
        assert_eq!(spec.rules[0].vips, spec.rules[1].vips);
        assert_eq!(spec.rules[0].servers.len(), 3);
        assert!(spec.rules[0].servers.iter().all(|server| !server.accepting));
    }

    #[test]
    fn addresses_are_vips_and_sources_of_managed_rules() {
        let both: BTreeSet<IpAddr> = ["198.51.100.1", "198.51.100.2"]
            .map(|a| a.parse().unwrap())
            .into();
        let before = configuration();
        assert_eq!(addresses(&before, &Retired::default()), both);
        let mut after = before.clone();
        after.delete_all_rules();
        let mut retired = Retired::default();
        retired.follow(&before, &after, 1);
        assert_eq!(addresses(&after, &retired), both);
        let own = RuleSettings {
            manage_addresses: Some(false),
            ..settings()
        };
        after.create_rule("own", &own).unwrap();
        assert!(addresses(&after, &Retired::default()).is_empty());
    }
}
