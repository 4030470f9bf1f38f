use super::*;
use crate::manager::change::Change;
use crate::retired::Retired;
use libilb::model::{RuleSettings, ServerSettings};
use proptest::prelude::*;

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

fn state(configuration: Configuration) -> State {
    State {
        generation: 9,
        configuration,
        ..State::default()
    }
}

fn spec(state: &State) -> SnapshotSpec {
    snapshot(state, &Surroundings::default())
}

#[test]
fn a_rule_is_translated_word_by_word() {
    let spec = spec(&state(configuration()));
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
    assert_eq!(
        rule.timeouts,
        Timeouts {
            tcp_established: 7,
            udp: 7,
            sctp: 7,
            ..Timeouts::default()
        }
    );
    let ports: Vec<PortMap> = rule.servers.iter().map(|server| server.ports).collect();
    assert_eq!(
        ports,
        [PortMap::Same, PortMap::Collapse(80), PortMap::Shift(9000)]
    );
}

#[test]
fn everything_that_can_be_said_arrives() {
    let mut configuration = Configuration::default();
    let servers = ["192.0.2.1,weight=3,max-conn=10,min-conn=5", "[2001:db8::1]"];
    configuration.create_group("far", &servers).unwrap();
    let vip = |vip: &str, port: &str, protocol: &str| model::VipSettings {
        vip: vip.into(),
        port: port.into(),
        protocol: Some(protocol.into()),
    };
    let said = RuleSettings {
        port: "any".into(),
        more_vips: vec![
            vip("198.51.100.1", "5000-5009", "udp"),
            vip("198.51.100.2", "", "icmp"),
            vip("198.51.100.3", "", "any"),
            vip("198.51.100.4", "9", "sctp"),
        ],
        clients: vec!["10.0.0.0/8".into(), "192.0.2.7".into()],
        algorithm: "mh".into(),
        flags: vec!["mh-port".into(), "mh-fallback".into()],
        topology: "tun".into(),
        tunnel: Some("gue".into()),
        gue_port: Some(5555),
        tunnel_checksum: Some("remcsum".into()),
        proxy_src: vec!["198.51.100.9".into(), "2001:db8::9".into()],
        servergroup: "far".into(),
        nat_timeout: None,
        pmask: Some("/24".into()),
        persist_timeout: Some(300),
        orphans: Some("reset".into()),
        sync: Some("light".into()),
        slow_start: Some(20),
        max_new_flows: Some(1000),
        timeouts: [(Timeout::FinWait, 9), (Timeout::Icmp, 4)].into(),
        ..settings()
    };
    configuration.create_rule("far", &said).unwrap();
    let limits = Limits {
        new_flows_per_second: 5,
        ..Limits::default()
    };
    let mut risen = Risen::default();
    let before = configuration.clone();
    configuration
        .enable_servers(&["_far.1"], false)
        .and_then(|_| configuration.clone().enable_servers(&["_far.1"], true))
        .unwrap();
    risen.follow(&configuration, &before, 1234);
    let state = state(before);
    let spec = snapshot(
        &state,
        &Surroundings {
            limits,
            risen,
            ..Surroundings::default()
        },
    );
    assert_eq!(spec.limits, limits);
    let vip = |address: &str, protocol, first, last| VipSpec {
        address: address.parse().unwrap(),
        protocol,
        ports: PortRange { first, last },
    };
    let server = |id, name: &str, address: &str| ServerSpec {
        id,
        name: name.into(),
        address: address.parse().unwrap(),
        ..ServerSpec::default()
    };
    let prefix = |address: &str, len| Prefix {
        address: address.parse().unwrap(),
        len,
    };
    let expected = RuleSpec {
        id: 1,
        name: "far".into(),
        accepting: true,
        vips: vec![
            vip("198.51.100.1", Protocol::Tcp, 0, 65535),
            vip("198.51.100.1", Protocol::Udp, 5000, 5009),
            vip("198.51.100.2", Protocol::Icmp, 0, 65535),
            vip("198.51.100.3", Protocol::Any, 0, 65535),
            vip("198.51.100.4", Protocol::Sctp, 9, 9),
        ],
        clients: vec![prefix("10.0.0.0", 8), prefix("192.0.2.7", 32)],
        topology: Topology::Tun,
        tunnel: Tunnel::Gue {
            port: 5555,
            checksum: GueChecksum::Remote,
        },
        algorithm: Algorithm::Maglev,
        options: AlgorithmOptions {
            fallback: true,
            port: true,
        },
        proxy_src: vec![
            "198.51.100.9".parse().unwrap(),
            "2001:db8::9".parse().unwrap(),
        ],
        persistence: Some(Persistence {
            mask: 24,
            timeout: 300,
        }),
        sync: Synchronise::Light,
        one_packet: false,
        orphans: Orphans::Reset,
        slow_start: 20,
        new_flows_per_second: 1000,
        timeouts: Timeouts {
            tcp_fin_wait: 9,
            icmp: 4,
            ..Timeouts::default()
        },
        servers: vec![
            ServerSpec {
                weight: 3,
                max_connections: 10,
                min_connections: 5,
                ..server(1, "_far.0", "192.0.2.1")
            },
            ServerSpec {
                up_since: 1234,
                place: 1,
                ..server(2, "_far.1", "2001:db8::1")
            },
        ],
        places: 2,
    };
    assert_eq!(spec.rules, [expected]);
    assert_eq!(addresses(&state).len(), 6);
}

#[test]
fn disabled_rules_and_servers_are_left_out() {
    let mut configuration = configuration();
    configuration.enable_servers(&["_web.1"], false).unwrap();
    let names: Vec<String> = spec(&state(configuration.clone())).rules[0]
        .servers
        .iter()
        .map(|s| s.name.clone())
        .collect();
    assert_eq!(names, ["_web.0", "_web.2"]);
    configuration.enable_rules::<&str>(&[], false).unwrap();
    let state = state(configuration);
    assert!(spec(&state).rules.is_empty());
    assert!(addresses(&state).is_empty());
}

#[test]
fn a_retired_rule_stays_beside_a_new_one_on_its_vip() {
    let before = configuration();
    let mut after = before.clone();
    after.delete_all_rules();
    let mut retired = Retired::default();
    retired.follow(&before, &after, 1);
    after.create_rule("again", &settings()).unwrap();
    let spec = spec(&State {
        retired,
        ..state(after)
    });
    let rules: Vec<(u32, bool)> = spec.rules.iter().map(|r| (r.id, r.accepting)).collect();
    assert_eq!(rules, [(1, false), (2, true)]);
    assert_eq!(spec.rules[0].vips, spec.rules[1].vips);
    assert_eq!(spec.rules[0].servers.len(), 3);
    assert!(spec.rules[0].servers.iter().all(|server| !server.accepting));
}

#[test]
fn an_address_of_a_vrrp_instance_is_put_up_by_no_rule() {
    let mut configuration = configuration();
    let all = addresses(&state(configuration.clone()));
    let shared = *all.first().unwrap();
    let mut settings = libilb::vrrp::VrrpSettings::default();
    let text = format!("interface=eth0,vrid=1,addresses={shared}");
    settings.parse(&text).unwrap();
    configuration.create_vrrp("outer", &settings).unwrap();
    let left = addresses(&state(configuration));
    assert!(!left.contains(&shared));
    assert_eq!(left.len(), all.len() - 1);
}

#[test]
fn addresses_are_vips_and_sources_of_managed_rules() {
    let both: BTreeSet<IpAddr> = ["198.51.100.1", "198.51.100.2"]
        .map(|a| a.parse().unwrap())
        .into();
    let before = configuration();
    assert_eq!(addresses(&state(before.clone())), both);
    let mut after = before.clone();
    after.delete_all_rules();
    let mut retired = Retired::default();
    retired.follow(&before, &after, 1);
    let drains = State {
        retired,
        ..state(after.clone())
    };
    assert_eq!(addresses(&drains), both);
    let own = RuleSettings {
        manage_addresses: Some(false),
        ..settings()
    };
    after.create_rule("own", &own).unwrap();
    assert!(addresses(&state(after)).is_empty());
}

/// What happens to a node: a user action, or a retired item that goes.
#[derive(Debug, Clone)]
enum Step {
    Change(Change),
    Drain(prop::sample::Index),
}

fn change_of_a_node() -> impl Strategy<Value = Change> {
    let group = || prop::sample::select(vec!["a".to_string(), "b".into()]);
    let rule = || prop::sample::select(vec!["r".to_string(), "s".into(), "t".into()]);
    let server = || (1..5u8).prop_map(|n| format!("192.0.2.{n}"));
    let id = || (group(), 0..6u8).prop_map(|(group, n)| format!("_{group}.{n}"));
    let settings = |vip: u8, group: String| RuleSettings {
        vip: format!("198.51.100.{vip}"),
        servergroup: group,
        slow_start: Some(u32::from(vip) % 2),
        ..settings()
    };
    prop_oneof![
        (group(), server()).prop_map(|(name, server)| Change::CreateGroup {
            source: Default::default(),
            name,
            servers: vec![server],
        }),
        group().prop_map(|name| Change::DeleteGroups(vec![name])),
        (group(), server()).prop_map(|(group, server)| Change::AddServers {
            group,
            servers: vec![server],
        }),
        (group(), server()).prop_map(|(group, server)| Change::RemoveServers {
            group,
            servers: vec![server],
        }),
        (rule(), 1..4u8, group()).prop_map(move |(name, vip, group)| Change::CreateRule {
            name,
            settings: Box::new(settings(vip, group)),
        }),
        (rule(), 0..2u32).prop_map(|(name, limit)| Change::ModifyRule {
            name,
            settings: Box::new(RuleSettings {
                max_new_flows: Some(limit),
                ..RuleSettings::default()
            }),
        }),
        rule().prop_map(|name| Change::DeleteRules(vec![name])),
        (rule(), any::<bool>()).prop_map(|(name, enabled)| Change::EnableRules {
            names: vec![name],
            enabled,
        }),
        (id(), any::<bool>()).prop_map(|(id, enabled)| Change::EnableServers {
            ids: vec![id],
            enabled,
        }),
        (id(), 0..3u16).prop_map(|(id, weight)| Change::ModifyServers {
            ids: vec![id],
            settings: ServerSettings {
                weight: Some(weight),
                ..ServerSettings::default()
            },
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => change_of_a_node().prop_map(Step::Change),
        1 => any::<prop::sample::Index>().prop_map(Step::Drain),
    ]
}

proptest! {
    /// Whoever follows the differences, some of them taken together, has what a compilation of the whole gives.
    #[test]
    fn differences_lead_where_the_whole_is(
        steps in prop::collection::vec((step(), any::<bool>()), 1..60)
    ) {
        let mut state = State::default();
        let mut surroundings = Surroundings::default();
        let give = |state: &State, surroundings: &Surroundings| Given {
            state: state.clone(),
            surroundings: surroundings.clone(),
        };
        let mut given = give(&state, &surroundings);
        let mut follower = snapshot(&state, &surroundings);
        for (now, (step, sent)) in (1..).zip(steps) {
            let mut next = state.clone();
            match &step {
                Step::Change(change) => {
                    if change.apply(&mut next.configuration).is_err() {
                        continue;
                    }
                    let (old, new) = (&state.configuration, &next.configuration);
                    next.retired.follow(old, new, 0);
                    surroundings.risen.follow(old, new, now);
                }
                Step::Drain(index) => {
                    let keys: Vec<_> = next.retired.keys().collect();
                    if !keys.is_empty() {
                        next.retired.remove(*index.get(&keys));
                    }
                }
            }
            next.generation += 1;
            state = next;
            if sent {
                follower.change(change(&given, &state, &surroundings));
                prop_assert_eq!(&follower, &snapshot(&state, &surroundings));
                given = give(&state, &surroundings);
            }
        }
    }
}

#[test]
fn one_server_more_is_a_change_of_its_rules_only() {
    let mut before = configuration();
    before.create_group("other", &["192.0.2.9"]).unwrap();
    let other = RuleSettings {
        vip: "198.51.100.3".into(),
        servergroup: "other".into(),
        ..settings()
    };
    before.create_rule("other", &other).unwrap();
    let mut after = before.clone();
    after.add_servers("other", &["192.0.2.10"]).unwrap();
    let given = Given {
        state: state(before),
        surroundings: Surroundings::default(),
    };
    let change = change(&given, &state(after), &Surroundings::default());
    let ids: Vec<RuleId> = change.rules.iter().map(|rule| rule.id).collect();
    assert_eq!((ids, change.removed), (vec![2], vec![]));
}
