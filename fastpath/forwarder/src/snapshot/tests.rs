//! A snapshot that is made of the one before and a change is what a compilation of everything gives, but for places.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::network::{Hop, Interface, Neighbour, Network, Route};
use crate::spec::{
    Algorithm, PortRange, Prefix, Protocol, RuleSpec, ServerSpec, Topology, VipSpec,
};
use crate::view::View;

/// Servers 1 to 5 have a neighbour of their own, the others a gateway that has not answered.
fn network() -> Arc<Network> {
    let interface = Interface {
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
    };
    let route = |prefix: [u8; 4], len, via: Option<[u8; 4]>| Route {
        prefix: prefix.into(),
        len,
        metric: 0,
        hops: vec![Hop {
            port: Some(0),
            via: via.map(IpAddr::from),
        }],
    };
    let routes = vec![
        route([198, 51, 100, 0], 24, None),
        route([198, 51, 100, 6], 31, Some([198, 51, 100, 200])),
    ];
    let neighbours = (1..=5).map(|n| Neighbour {
        port: 0,
        address: [198, 51, 100, n].into(),
        mac: [2, 0, 0, 0, 1, n],
    });
    Arc::new(Network::new(vec![interface], routes, neighbours.collect()))
}

prop_compose! {
    fn server()(
        id in 1u32..9, weight in 0u16..3, accepting in prop::bool::weighted(0.8), dead in prop::bool::weighted(0.2),
    ) -> ServerSpec {
        ServerSpec {
            id,
            name: format!("_g.{id}"),
            address: [198, 51, 100, id as u8].into(),
            weight,
            accepting,
            dead,
            ..ServerSpec::default()
        }
    }
}

prop_compose! {
    fn rule()(
        id in 1u32..6, vip in 1u8..4, port in 80u16..83, width in 0u16..2, udp in any::<bool>(), topology in 0usize..4,
        algorithm in 0usize..3, some in prop::bool::weighted(0.3), accepting in prop::bool::weighted(0.8),
        servers in prop::collection::vec(server(), 0..7),
    ) -> RuleSpec {
        let topology = [Topology::Dsr, Topology::HalfNat, Topology::Nat, Topology::Tun][topology];
        let algorithms = [Algorithm::RoundRobin, Algorithm::WeightedLeastConnection, Algorithm::SourceHash];
        RuleSpec {
            id,
            name: format!("rule{id}"),
            accepting,
            vips: vec![VipSpec {
                address: [192, 0, 2, vip].into(),
                protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                ports: PortRange { first: port, last: port + width },
            }],
            clients: some.then_some(Prefix { address: [10, 0, 0, 0].into(), len: 8 }).into_iter().collect(),
            topology,
            algorithm: algorithms[algorithm],
            proxy_src: match topology {
                Topology::Nat | Topology::Tun => vec![[192, 0, 2, 100].into()],
                Topology::Dsr | Topology::HalfNat => vec![],
            },
            servers,
            ..RuleSpec::default()
        }
    }
}

prop_compose! {
    fn change()(
        rules in prop::collection::vec(rule(), 0..3), removed in prop::collection::vec(1u32..6, 0..2),
        limit in 0u32..2,
    ) -> SpecChange {
        SpecChange {
            rules,
            removed,
            limits: Limits { new_flows_per_second: limit, ..Limits::default() },
            ..SpecChange::default()
        }
    }
}

/// A target in words, with where it leads.
fn target_words(view: &View, rule: &Rule, at: u32) -> String {
    let snapshot = &view.snapshot;
    let target = &snapshot.targets()[at as usize];
    assert_eq!(snapshot.rules()[target.rule as usize].id, rule.id);
    assert_eq!(snapshot.target_of(rule.id, target.server), Some(at));
    format!(
        "{} {} {:?} {:?} {} {} {:?} {:?} {:?} {:?}",
        target.server,
        target.name,
        target.address,
        target.ports,
        target.accepting,
        target.dead,
        target.candidate,
        target.encapsulation,
        view.hop(at),
        view.lane(target.lane),
    )
}

/// Everything that packets can notice of a view, by rule.
fn words(view: &View) -> BTreeMap<RuleId, String> {
    let snapshot = &view.snapshot;
    let rules = snapshot.rules().iter().enumerate().map(|(at, rule)| {
        assert_eq!(snapshot.rule_index(rule.id), Some(at as u32));
        let targets = rule.targets().iter();
        let targets: Vec<String> = targets.map(|&at| target_words(view, rule, at)).collect();
        let candidates = rule.candidates().iter();
        let candidates: Vec<ServerId> = candidates
            .map(|&at| snapshot.targets()[at as usize].server)
            .collect();
        let version = rule.pool.versions().first().map(|v| v.servers().to_vec());
        let text = format!(
            "{} {} {:?} {:?} {:?} {:?} {targets:#?} {candidates:?} {} {version:?}",
            rule.name,
            rule.accepting,
            rule.topology,
            rule.vips,
            rule.clients,
            rule.proxy_src,
            rule.selector.is_some(),
        );
        (rule.id, text)
    });
    let rules: BTreeMap<RuleId, String> = rules.collect();
    let targets: usize = snapshot.rules().iter().map(|r| r.targets().len()).sum();
    assert_eq!(
        (rules.len(), targets),
        (snapshot.rules().len(), snapshot.targets().len())
    );
    rules
}

/// Who gets which packets.
fn claims(snapshot: &Snapshot) -> Vec<Option<(RuleId, u8)>> {
    let mut claims = Vec::new();
    for vip in 1..4 {
        for (protocol, dport) in [(6, 80), (6, 81), (6, 83), (17, 80), (17, 82)] {
            for client in [[10, 1, 2, 3], [11, 1, 2, 3]] {
                let tuple = Tuple {
                    src: IpAddr::from(client).into(),
                    dst: IpAddr::from([192, 0, 2, vip]).into(),
                    sport: 1000,
                    dport,
                    protocol,
                };
                let found = snapshot.accepting(&tuple);
                claims.push(found.map(|(rule, vip)| (snapshot.rules()[rule as usize].id, vip)));
            }
        }
    }
    claims
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_change_leads_where_a_compilation_of_everything_does(
        changes in prop::collection::vec(change(), 1..12)
    ) {
        let network = network();
        let view_of = |snapshot| View::new(Arc::new(snapshot), Arc::clone(&network));
        let mut spec = SnapshotSpec::default();
        let mut whole = view_of(Snapshot::compile(&spec, None, 2).unwrap());
        let mut part = view_of(Snapshot::compile(&spec, None, 2).unwrap());
        for mut change in changes {
            change.generation = spec.generation + 1;
            // Once removed and once there is not what a manager says.
            change.removed.retain(|id| change.rules.iter().all(|rule| rule.id != *id));
            let mut next = spec.clone();
            next.change(change.clone());
            let compiled = Snapshot::compile(&next, Some(&whole.snapshot), 2);
            let changed = part.snapshot.changed(&change);
            prop_assert_eq!(
                compiled.as_ref().err().map(std::mem::discriminant),
                changed.as_ref().err().map(std::mem::discriminant)
            );
            let (Ok(compiled), Ok(changed)) = (compiled, changed) else {
                continue;
            };
            spec = next;
            whole = view_of(compiled);
            let before = part;
            part = before.with(Arc::new(changed));

            prop_assert_eq!(part.snapshot.generation(), spec.generation);
            prop_assert_eq!(part.snapshot.limits(), &spec.limits);
            prop_assert_eq!(words(&part), words(&whole));
            prop_assert_eq!(part.lanes().count(), whole.lanes().count());
            prop_assert_eq!(claims(&part.snapshot), claims(&whole.snapshot));
            let steering = part.snapshot.steering();
            prop_assert_eq!(sorted(steering.clone()), sorted(whole.snapshot.steering()));
            let (gone, come) = part.snapshot.steering_since(&before.snapshot);
            let there = [before.snapshot.steering(), come].concat();
            prop_assert_eq!(sorted(there), sorted([steering, gone].concat()));

            // Whoever stays keeps what it has; whoever went leads nowhere.
            for target in before.snapshot.targets() {
                let rule = before.snapshot.rules()[target.rule as usize].id;
                match part.snapshot.target_of(rule, target.server) {
                    Some(at) => {
                        let now = &part.snapshot.targets()[at as usize];
                        prop_assert!(Arc::ptr_eq(&now.account, &target.account));
                        prop_assert_eq!(now.lane, target.lane);
                    }
                    None => prop_assert!(part.lane(target.lane).is_none()),
                }
            }
        }
    }
}

#[test]
fn one_server_more_shares_nearly_everything() {
    let rule = |n: u32, servers: u32| RuleSpec {
        id: n + 1,
        name: format!("rule{n}"),
        vips: vec![VipSpec {
            address: [192, 0, (n >> 8) as u8, n as u8].into(),
            protocol: Protocol::Tcp,
            ports: PortRange::single(80),
        }],
        servers: (0..servers)
            .map(|m| ServerSpec {
                id: n * 100 + m + 1,
                name: format!("_g{n}.{m}"),
                address: [10, (n >> 8) as u8, n as u8, m as u8].into(),
                ..ServerSpec::default()
            })
            .collect(),
        ..RuleSpec::default()
    };
    let spec = SnapshotSpec {
        generation: 1,
        rules: (0..1000).map(|n| rule(n, 10)).collect(),
        ..SnapshotSpec::default()
    };
    let before = Snapshot::compile(&spec, None, 1).unwrap();
    let change = SpecChange {
        base: 1,
        generation: 2,
        rules: vec![rule(500, 11)],
        ..SpecChange::default()
    };
    let after = before.changed(&change).unwrap();
    assert_eq!(after.targets().len(), 10_001);
    // Of each list a few chunks of 64.
    assert!(after.rules().own(before.rules()).count() <= 64);
    assert!(after.targets().own(before.targets()).count() <= 64 * 4);
    assert!(Arc::ptr_eq(&after.matcher, &before.matcher));
}
