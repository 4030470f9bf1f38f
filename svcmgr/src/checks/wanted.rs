//! Whom to test: each server of each rule that has a health check. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ilb_checks::{Id, Ports, Target, Via};
use libilb::model::{Configuration, PortRange, Rule, Server, Topology};

/// What is different between two configurations.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// New targets, and ones that are different now.
    pub changed: Vec<Target>,
    /// Those that are not there any more.
    pub gone: Vec<Id>,
}

/// The numbers of the rules that something is different for: they, their servers or their checks.
pub fn affected(before: &Configuration, after: &Configuration) -> BTreeSet<u32> {
    let mut rules: BTreeSet<u32> = BTreeSet::new();
    for rule in after.rules.since(&before.rules) {
        rules.extend([rule.before, rule.after].iter().flatten().map(|r| r.number));
    }
    for group in after.groups.since(&before.groups) {
        rules.extend(after.rules_of(group.key).map(|rule| rule.number));
    }
    for check in after.checks.since(&before.checks) {
        rules.extend(after.rules_of_check(check.key).map(|rule| rule.number));
    }
    rules
}

/// What leads from the targets of one configuration to those of another, of these rules. The work is that of the difference.
pub fn difference(
    before: &Configuration,
    after: &Configuration,
    rules: &BTreeSet<u32>,
) -> Difference {
    let mut difference = Difference::default();
    for &number in rules {
        let mut old = targets(before, number);
        for (id, target) in targets(after, number) {
            if old.remove(&id).as_ref() != Some(&target) {
                difference.changed.push(target);
            }
        }
        difference.gone.extend(old.into_keys());
    }
    difference
}

/// The targets of the rule with this number.
fn targets(configuration: &Configuration, number: u32) -> BTreeMap<Id, Target> {
    let rule = configuration.rules.by_number(number);
    let check = rule.and_then(|rule| configuration.check_of(rule));
    let group = rule.and_then(|rule| configuration.group_of(rule));
    let (Some(rule), Some(check), Some(group)) = (rule, check, group) else {
        return BTreeMap::new();
    };
    let used = rule.health_check.as_ref();
    // Each rule has at least one.
    let Some(first) = rule.vips.first() else {
        return BTreeMap::new();
    };
    let via = match rule.topology {
        // Who says which address is asked means that one.
        _ if check.address.is_some() => None,
        Topology::Dsr => Some(Via::Link),
        Topology::Tun => Some(Via::Tunnel(rule.tunnel.unwrap_or_default())),
        Topology::HalfNat | Topology::Nat => None,
    };
    let vip = |server: &Server| {
        let mut vips = rule.vips.iter();
        let alike = vips.find(|vip| vip.address.is_ipv4() == server.address.is_ipv4());
        // A tunnel carries either family.
        alike.unwrap_or(first)
    };
    let target = |server: &Server| Target {
        id: Id {
            rule: rule.number,
            server: server.number,
        },
        rule: rule.name.clone(),
        server: server.id.clone(),
        check: check.clone(),
        address: server.address,
        port: used.and_then(|used| used.port),
        ports: ports(rule, server),
        vip: vip(server).address,
        protocol: vip(server).protocol,
        topology: rule.topology,
        enabled: rule.enabled && server.enabled,
        via,
        remembered: None,
    };
    let targets = group.servers.iter().map(target);
    targets.map(|target| (target.id, target)).collect()
}

/// Where connections of a rule go to: the server's own ports, or the first ones of the rule that are not all.
fn ports(rule: &Rule, server: &Server) -> Ports {
    let of_rule = || {
        let mut vips = rule.vips.iter().filter(|vip| vip.protocol.has_ports());
        let vip = vips.find(|vip| vip.ports != PortRange::ANY);
        vip.map(|vip| vip.ports)
    };
    let ports = server.ports.or_else(of_rule);
    ports.map_or(Ports::default(), |ports| Ports {
        first: ports.first,
        last: ports.last,
    })
}

#[cfg(test)]
mod tests {
    use libilb::model::{HealthCheckSettings, RuleSettings};

    use super::*;

    fn check(text: &str) -> HealthCheckSettings {
        let mut settings = HealthCheckSettings::default();
        settings.parse(text).unwrap();
        settings
    }

    fn used(name: &str) -> RuleSettings {
        RuleSettings {
            health_check: Some(name.into()),
            ..RuleSettings::default()
        }
    }

    /// Two rules of one group, one of them with a check, and a group of another rule.
    fn configuration() -> Configuration {
        let mut c = Configuration::default();
        c.create_group("web", &["192.0.2.10", "192.0.2.11:8080"])
            .unwrap();
        c.create_group("other", &["192.0.2.20"]).unwrap();
        c.create_check("alive", &check("test=tcp")).unwrap();
        c.create_check("page", &check("test=http")).unwrap();
        for (name, vip, group) in [
            ("a", "198.51.100.1", "web"),
            ("b", "198.51.100.2", "web"),
            ("c", "198.51.100.3", "other"),
        ] {
            let rule = RuleSettings {
                enabled: true,
                vip: vip.into(),
                port: "80-81".into(),
                algorithm: "rr".into(),
                topology: "h".into(),
                servergroup: group.into(),
                ..RuleSettings::default()
            };
            c.create_rule(name, &rule).unwrap();
        }
        c.modify_rule("a", &used("alive")).unwrap();
        c.modify_rule("c", &used("alive")).unwrap();
        c
    }

    #[test]
    fn what_is_new_is_tested_and_what_is_gone_is_not() {
        let every = |before: &Configuration, after: &Configuration| {
            difference(before, after, &affected(before, after))
        };
        let first = every(&Configuration::default(), &configuration());
        let known: Vec<_> = first
            .changed
            .iter()
            .map(|t| {
                (
                    t.rule.as_str(),
                    t.server.as_str(),
                    t.ports.first,
                    t.ports.last,
                )
            })
            .collect();
        let expected = [
            ("a", "_web.0", 80, 81),
            ("a", "_web.1", 8080, 8080),
            ("c", "_other.0", 80, 81),
        ];
        assert_eq!(known, expected);
        assert!(first.changed.iter().all(|target| target.enabled));
        type Step = fn(&mut Configuration);
        // (given, then): a change; who is tested otherwise, by rule, server and whether at all; who no longer.
        type Case = (Step, &'static [(u32, u32, bool)], &'static [(u32, u32)]);
        let cases: &[Case] = &[
            (|_| {}, &[], &[]),
            (
                |c| drop(c.modify_rule("b", &used("page"))),
                &[(2, 1, true), (2, 2, true)],
                &[],
            ),
            (
                |c| drop(c.modify_rule("a", &used("none"))),
                &[],
                &[(1, 1), (1, 2)],
            ),
            (
                |c| drop(c.enable_servers(&["_web.1"], false)),
                &[(1, 2, false)],
                &[],
            ),
            (
                |c| drop(c.enable_rules(&["a"], false)),
                &[(1, 1, false), (1, 2, false)],
                &[],
            ),
            (
                |c| drop(c.remove_servers("web", &["_web.0"])),
                &[],
                &[(1, 1)],
            ),
            (
                |c| drop(c.add_servers("web", &["192.0.2.12"])),
                &[(1, 4, true)],
                &[],
            ),
            (|c| drop(c.delete_rules(&["c"])), &[], &[(3, 3)]),
            (
                |c| drop(c.modify_check("page", &check("count=2"))),
                &[],
                &[],
            ),
            (
                |c| drop(c.modify_check("alive", &check("count=2"))),
                &[(1, 1, true), (1, 2, true), (3, 3, true)],
                &[],
            ),
            (|c| drop(c.modify_servers(&["_web.0"], &weight())), &[], &[]),
        ];
        for (i, (step, changed, gone)) in cases.iter().enumerate() {
            let before = configuration();
            let mut after = before.clone();
            step(&mut after);
            let difference = every(&before, &after);
            let of = |target: &Target| (target.id.rule, target.id.server, target.enabled);
            let now: Vec<_> = difference.changed.iter().map(of).collect();
            assert_eq!(now, *changed, "case {i}");
            let away: Vec<_> = difference
                .gone
                .iter()
                .map(|id| (id.rule, id.server))
                .collect();
            assert_eq!(away, *gone, "case {i}");
        }
    }

    fn weight() -> libilb::model::ServerSettings {
        libilb::model::ServerSettings {
            weight: Some(7),
            ..Default::default()
        }
    }
}
