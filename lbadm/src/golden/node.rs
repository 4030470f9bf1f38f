//! The node that the cases are about, and what it has counted.

use libilb::describe::{
    CheckDescription, Description, DropReason, Fastpath, GroupDescription, HealthSummary,
    RuleDescription, ServerDescription, State, Status, VrrpDescription,
};
use libilb::health::{Code, Finding, HealthReport, HealthState, Layer, ServerHealth, Transition};
use libilb::healthcheck::{HealthCheckSettings, Kind};
use libilb::model::{Configuration, RuleSettings, Server, ServerGroup, Timeout};
use libilb::source::{Candidate, Found, Refused, Source, SourceDescription, SourceSettings};
use libilb::stats::{Counter, Entry, Statistics};
use libilb::vrrp::{VrrpCounters, VrrpSettings, VrrpState, VrrpStatus};

/// A source that has found somebody.
fn followed(source: &Source) -> SourceDescription {
    let address = |n: u8| [192, 0, 2, n].into();
    SourceDescription {
        source: source.clone(),
        answers: 7,
        failures: 1,
        last_answer: 1_700_000_000_000,
        last_change: 0,
        problem: String::new(),
        candidates: vec![Candidate {
            found: Found {
                address: address(41),
                ports: source.port,
                weight: None,
                host_name: Some("app.example.com".into()),
            },
            since: 1_699_999_000_000,
        }],
        refused: vec![Refused {
            address: address(1),
            why: "is in 192.0.2.1/32, which is excepted".into(),
        }],
    }
}

/// A node with four rules: one enabled, one disabled with a problem, one that drains after it was deleted, one that says
/// all that can be said.
pub fn node() -> Description {
    let mut c = Configuration::default();
    c.create_group("web", &["192.0.2.11", "back=192.0.2.12:8080"])
        .unwrap();
    c.create_group("web6", &["[2001:db8::11]:8000-8009"])
        .unwrap();
    let mut source = SourceSettings::default();
    let said = "dns=app.example.com,port=8080,approve=ask,except=192.0.2.1";
    source.parse(said).unwrap();
    c.create_group_from::<&str>("spare", &[], &source).unwrap();
    let rule = |vip: &str, port: &str, topology: &str, group: &str| RuleSettings {
        vip: vip.into(),
        port: port.into(),
        algorithm: "rr".into(),
        topology: topology.into(),
        servergroup: group.into(),
        ..RuleSettings::default()
    };
    let nat = RuleSettings {
        enabled: true,
        proxy_src: vec!["192.0.2.90-192.0.2.91".into()],
        conn_drain: Some(30),
        ..rule("192.0.2.80", "80", "n", "web")
    };
    let half = RuleSettings {
        algorithm: "hip".into(),
        nat_timeout: Some(900),
        ..rule("2001:db8::80", "80-89", "h", "web6")
    };
    c.create_group(
        "far",
        &[
            "192.0.2.31,weight=3,max-conn=10,min-conn=5",
            "[2001:db8::31],weight=0",
        ],
    )
    .unwrap();
    for (name, text) in [
        ("alive", "test=tcp,timeout=2,interval=0.5,ping=no"),
        (
            "page",
            "test=https,url=/health,status=200-204\\,301,host=www.example.com,verify=yes,count=2,rise=2,port=8443",
        ),
        ("db", "test=/etc/ilb/check-db.sh"),
    ] {
        let mut settings = HealthCheckSettings::default();
        settings.parse(text).unwrap();
        c.create_check(name, &settings).unwrap();
    }
    let mut outer = VrrpSettings::default();
    outer
        .parse("interface=eth0,vrid=51,addresses=192.0.2.80,priority=120,interval=0.1")
        .unwrap();
    c.create_vrrp("outer", &outer).unwrap();
    let far = RuleSettings {
        more_vips: vec!["vip=192.0.2.83,port=443,protocol=sctp".parse().unwrap()],
        clients: vec!["10.0.0.0/8".into(), "192.0.2.7".into()],
        algorithm: "mh".into(),
        flags: vec!["mh-port".into(), "mh-fallback".into()],
        tunnel: Some("gue".into()),
        proxy_src: vec!["192.0.2.90".into(), "2001:db8::90".into()],
        pmask: Some("24".into()),
        orphans: Some("reset".into()),
        sync: Some("light".into()),
        slow_start: Some(30),
        max_new_flows: Some(1000),
        timeouts: [(Timeout::SynReceived, 5), (Timeout::FinWait, 20)].into(),
        health_check: Some("page".into()),
        health_check_port: Some("443".into()),
        ..rule("192.0.2.82", "any", "t", "far")
    };
    let rules = [
        (
            c.create_rule("far", &far).unwrap(),
            Status::Enabled,
            0,
            false,
            vec![],
        ),
        (
            c.create_rule("www", &nat).unwrap(),
            Status::Enabled,
            7,
            false,
            vec![],
        ),
        (
            c.create_rule("www6", &half).unwrap(),
            Status::Disabled,
            0,
            false,
            vec!["the vip 2001:db8::80 is on no interface".to_string()],
        ),
        (
            c.create_rule("old", &rule("192.0.2.81", "443", "h", "web"))
                .unwrap(),
            Status::Draining,
            2,
            true,
            vec![],
        ),
    ];
    c.enable_servers(&["_web.1"], false).unwrap();
    let removed = c.add_servers("web", &["192.0.2.13"]).unwrap();
    Description {
        version: "0.1.0".into(),
        generation: 12,
        state: State::Ok,
        state_reason: String::new(),
        fastpath: Fastpath::Connected,
        fastpath_generation: 12,
        drift: Vec::new(),
        waiting: None,
        pair: None,
        database_path: "/var/lib/ilb/db".into(),
        rules: rules
            .into_iter()
            .map(
                |(rule, status, connections, deleted, problems)| RuleDescription {
                    rule: (*rule).clone(),
                    status,
                    deleted,
                    connections,
                    has_quorum: None,
                    served_by: None,
                    panic: None,
                    problems,
                },
            )
            .collect(),
        groups: c
            .groups
            .values()
            .map(|g| GroupDescription {
                source: g.source.as_deref().map(|s| Box::new(followed(s))),
                places: g.places,
                name: g.name.clone(),
                servers: g
                    .servers
                    .iter()
                    .map(|s| ServerDescription {
                        server: s.clone(),
                        status: if s.enabled && !removed.contains(s) {
                            Status::Enabled
                        } else {
                            Status::Draining
                        },
                        removed: removed.contains(s),
                        connections: 3,
                        standby: Vec::new(),
                        health: health(g, s),
                    })
                    .collect(),
            })
            .collect(),
        checks: c
            .checks
            .values()
            .map(|check| CheckDescription {
                check: (**check).clone(),
                rules: c
                    .rules_of_check(&check.name)
                    .map(|rule| rule.name.clone())
                    .collect(),
            })
            .collect(),
        vrrp: c
            .vrrp
            .values()
            .map(|instance| VrrpDescription {
                instance: (**instance).clone(),
                status: VrrpStatus {
                    state: VrrpState::Backup,
                    why: "192.0.2.3 is active with priority 150".into(),
                    since: 1_795_000_000_000,
                    priority: 120,
                    active_node: "192.0.2.3".into(),
                },
                counters: VrrpCounters {
                    transitions: 2,
                    received: 31,
                    refused: [("checksum".to_string(), 2)].into(),
                    ..VrrpCounters::default()
                },
                rules: vec!["www".into()],
            })
            .collect(),
        drop_reasons: [
            (
                "malformed",
                "the packet is truncated or its headers contradict each other",
            ),
            ("no-server", "no server of the rule accepts new connections"),
            (
                "no-route",
                "the kernel's routing table has no route to the destination",
            ),
        ]
        .map(|(label, words)| DropReason {
            label: label.into(),
            words: words.into(),
        })
        .into(),
    }
}

/// What health checks say of the servers of group `far`: the first is dead, of the second nothing is known.
fn health(group: &ServerGroup, server: &Server) -> Vec<HealthSummary> {
    let first = server.id == "_far.0";
    let summary = HealthSummary {
        rule: "far".into(),
        check: "page".into(),
        state: if first {
            HealthState::Dead
        } else {
            HealthState::UnInit
        },
        up: !first,
        why: match first {
            true => "L7/status 503 after 1.2 ms: Service Unavailable".into(),
            false => String::new(),
        },
        since: if first { 25_203_000 } else { 0 },
        overruled: None,
    };
    (group.name == "far")
        .then_some(summary)
        .into_iter()
        .collect()
}

/// The same as `show-hc-result` gets it.
pub fn results() -> HealthReport {
    let finding = Finding {
        kind: Kind::Https,
        layer: Layer::L7,
        code: Code::Status,
        number: Some(503),
        duration: 1_234,
        words: "Service Unavailable".into(),
    };
    let dead = ServerHealth {
        rule: "far".into(),
        server: "_far.0".into(),
        check: "page".into(),
        kind: Kind::Https,
        address: "192.0.2.31".parse().unwrap(),
        port: Some(443),
        state: HealthState::Dead,
        up: false,
        fails: 12,
        successes: 0,
        last: Some(25_261_019),
        next: Some(25_287_000),
        rtt: Some(941),
        weight: None,
        load: None,
        result: Some(finding.clone()),
        transitions: vec![Transition {
            time: 25_203_000,
            from: HealthState::Alive,
            to: HealthState::Dead,
            check: "page".into(),
            count: 2,
            finding,
        }],
    };
    let unknown = ServerHealth {
        server: "_far.1".into(),
        address: "2001:db8::31".parse().unwrap(),
        state: HealthState::UnInit,
        up: true,
        fails: 0,
        last: None,
        rtt: None,
        result: None,
        transitions: Vec::new(),
        ..dead.clone()
    };
    HealthReport {
        servers: vec![dead, unknown],
    }
}

/// Counters after `n` seconds of steady traffic.
pub fn counted(n: u64) -> Statistics {
    let entry = |rule: &str, server: &str, share: u64| {
        let mut entry = Entry {
            rule: rule.into(),
            server: server.into(),
            ..Entry::default()
        };
        entry.set(Counter::PacketsForwarded, 1000 * share * n);
        entry.set(Counter::BytesForwarded, 600_000 * share * n);
        entry.set(Counter::PacketsDropped, 2 * share * n);
        entry.set(Counter::BytesDropped, 128 * share * n);
        entry.set(Counter::IcmpForwarded, n);
        entry.set(Counter::ConnectionsBegun, 10 * share * n);
        entry.set(Counter::Connections, 7 * share);
        entry
    };
    let mut node = entry("", "", 4);
    node.set(Counter::PacketsUnprocessed, 5 * n);
    node.counters.insert("drop:no-server".into(), 7 * n);
    node.counters.insert("drop:no-route".into(), n);
    node.counters.insert("drop:malformed".into(), 0);
    Statistics {
        entries: vec![
            node,
            entry("www", "", 3),
            entry("www", "_web.0", 2),
            entry("www", "_web.1", 1),
            entry("www6", "", 1),
            entry("www6", "_web6.0", 1),
        ],
    }
}
