//! What can be done to a configuration, and that it stays valid whatever is done.

use libilb::describe::Description;
use libilb::healthcheck::HealthCheckSettings;
use libilb::model::{Configuration, RuleSettings, Topology};
use libilb::port::{self, PortMap, PortRange};
use libilb::rule::{Protocol, Rule, Vip};
use libilb::server::{ServerSettings, ServerSpec, Target};
use proptest::prelude::*;

fn settings(vip: &str, port: &str, group: &str) -> RuleSettings {
    RuleSettings {
        vip: vip.into(),
        port: port.into(),
        algorithm: "RR".into(),
        topology: "h".into(),
        servergroup: group.into(),
        ..RuleSettings::default()
    }
}

#[test]
fn names_keep_their_spelling_and_are_found_in_any_case() {
    let mut c = Configuration::default();
    c.create_group("Web", &["192.0.2.11"]).unwrap();
    let rule = c
        .create_rule("WWW", &settings("192.0.2.80", "80", "wEB"))
        .unwrap();
    assert_eq!(
        (rule.name.as_str(), rule.servergroup.as_str()),
        ("WWW", "Web")
    );
    assert_eq!(c.server("_WEB.0").unwrap().1.id, "_Web.0");
    assert_eq!(c.delete_rules(&["www", "Www"]).unwrap().len(), 1);
    assert!(c.rules.is_empty());
}

#[test]
fn a_rule_is_created_disabled_with_the_defaults_of_ilbadm() {
    let mut c = Configuration::default();
    c.create_group("web", &["192.0.2.11"]).unwrap();
    let rule = c
        .create_rule("a", &settings("192.0.2.80", "80", "web"))
        .unwrap();
    assert!(!rule.enabled && rule.manage_addresses);
    assert_eq!(
        (rule.vips[0].protocol, rule.idle_timeout(), rule.conn_drain),
        (Protocol::Tcp, 120, 0)
    );
    let udp = RuleSettings {
        protocol: Some("UDP".into()),
        ..settings("192.0.2.80", "80", "web")
    };
    assert_eq!(c.create_rule("b", &udp).unwrap().idle_timeout(), 60);
    for (name, protocol, seconds) in [("c", "tcp", 900), ("d", "udp", 300)] {
        let dsr = RuleSettings {
            topology: "dsr".into(),
            protocol: Some(protocol.into()),
            ..settings("192.0.2.81", "80", "web")
        };
        let rule = c.create_rule(name, &dsr).unwrap();
        assert_eq!(rule.idle_timeout(), seconds, "{protocol} under DSR");
    }
}

#[test]
fn an_id_can_be_wished_for_but_not_twice() {
    let mut c = Configuration::default();
    c.create_group("web", &["192.0.2.11,id=_web.3", "192.0.2.12"])
        .unwrap();
    let added = c.add_servers("WEB", &["back=192.0.2.13:80,weight=2,id=_Web.7"]);
    assert_eq!(added.unwrap()[0].id, "_web.7");
    let ids = |c: &Configuration| -> Vec<String> {
        let group = c.group("web").unwrap();
        group.servers.iter().map(|s| s.id.clone()).collect()
    };
    assert_eq!(ids(&c), ["_web.3", "_web.4", "_web.7"]);
    assert_eq!(c.validate(), Ok(()));
    for (spec, words) in [
        (
            "192.0.2.14,id=_web.5",
            "server id '_web.5' has been given before: use _web.8 or a higher number",
        ),
        (
            "192.0.2.14,id=_other.9",
            "server id '_other.9' is not an id of this group: use _web.8",
        ),
        (
            "192.0.2.14,id=9",
            "server id '9' is not an id of this group",
        ),
        ("192.0.2.14,id=_web.4294967295", "one too many"),
        (
            "192.0.2.14-192.0.2.15,id=_web.9",
            "server id '_web.9' is given to several addresses",
        ),
    ] {
        let error = c.add_servers("web", &[spec]).unwrap_err().to_string();
        assert!(error.contains(words), "{spec}: {error}");
    }
    assert_eq!(ids(&c).len(), 3);
}

#[test]
fn numbers_and_ids_are_never_given_twice() {
    let mut c = Configuration::default();
    c.create_group("web", &["192.0.2.11-192.0.2.13"]).unwrap();
    let first = c
        .create_rule("a", &settings("192.0.2.80", "80", "web"))
        .unwrap();
    c.delete_all_rules();
    let second = c
        .create_rule("a", &settings("192.0.2.80", "80", "web"))
        .unwrap();
    assert!(second.number > first.number);
    let removed = c.remove_servers("web", &["_web.2"]).unwrap();
    let added = c.add_servers("web", &["192.0.2.13"]).unwrap();
    assert_eq!(added[0].id, "_web.3");
    assert!(added[0].number > removed[0].number);
    c.delete_all_rules();
    c.delete_groups(&["web"]).unwrap();
    let group = c.create_group("web", &["192.0.2.11"]).unwrap();
    assert!(group.servers[0].number > added[0].number);
}

#[test]
fn only_what_changed_is_reported() {
    let mut c = Configuration::default();
    c.create_group("web", &["192.0.2.11", "192.0.2.12"])
        .unwrap();
    c.create_rule("a", &settings("192.0.2.80", "80", "web"))
        .unwrap();
    c.create_rule("b", &settings("192.0.2.80", "81", "web"))
        .unwrap();
    let changed = |c: &mut Configuration, names: &[&str], enabled| {
        let changed = c.enable_rules(names, enabled).unwrap();
        changed.iter().map(|r| r.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(changed(&mut c, &["b", "B"], true), ["b"]);
    assert_eq!(changed(&mut c, &[], true), ["a"]);
    assert_eq!(changed(&mut c, &[], true), [""; 0]);
    assert_eq!(changed(&mut c, &[], false), ["a", "b"]);
    let ids = ["_web.1", "_WEB.1"];
    assert_eq!(c.enable_servers(&ids, false).unwrap().len(), 1);
    assert_eq!(c.enable_servers(&ids, false).unwrap().len(), 0);
}

#[test]
fn the_same_port_is_free_for_another_protocol_or_address() {
    let mut c = Configuration::default();
    c.create_group("web", &["192.0.2.11"]).unwrap();
    c.create_rule("a", &settings("192.0.2.80", "80-90", "web"))
        .unwrap();
    let udp = RuleSettings {
        protocol: Some("udp".into()),
        ..settings("192.0.2.80", "80-90", "web")
    };
    c.create_rule("b", &udp).unwrap();
    c.create_rule("c", &settings("192.0.2.81", "80-90", "web"))
        .unwrap();
    c.create_rule("d", &settings("192.0.2.80", "91", "web"))
        .unwrap();
    c.create_rule("e", &settings("192.0.2.80", "1-79", "web"))
        .unwrap();
    c.validate().unwrap();
}

#[test]
fn servers_are_removed_by_id_address_range_and_name() {
    let mut c = Configuration::default();
    let servers = ["192.0.2.1-192.0.2.4:80", "192.0.2.4:81", "db=192.0.2.9:80"];
    c.create_group("web", &servers).unwrap();
    let removed = |c: &mut Configuration, which: &[&str]| {
        let removed = c.remove_servers("web", which).unwrap();
        removed.into_iter().map(|s| s.id).collect::<Vec<_>>()
    };
    assert_eq!(
        removed(&mut c, &["192.0.2.2-192.0.2.3:80"]),
        ["_web.1", "_web.2"]
    );
    assert_eq!(removed(&mut c, &["192.0.2.4"]), ["_web.3", "_web.4"]);
    assert_eq!(removed(&mut c, &["DB"]), ["_web.5"]);
    assert_eq!(removed(&mut c, &["_Web.0", "192.0.2.1:80"]), ["_web.0"]);
    c.validate().unwrap();
}

#[test]
fn ports_map_as_the_parity_table_says() {
    let range = |first, last| PortRange { first, last };
    let rule = range(80, 89);
    let map = |ports, server| {
        let vip = Vip {
            address: "192.0.2.80".parse().unwrap(),
            protocol: Protocol::Tcp,
            ports,
        };
        port::map(&[vip], server)
    };
    assert_eq!(map(rule, None), Some(PortMap::Same));
    assert_eq!(map(rule, Some(rule)), Some(PortMap::Same));
    assert_eq!(
        map(rule, Some(range(8080, 8080))),
        Some(PortMap::Collapse(8080))
    );
    assert_eq!(
        map(rule, Some(range(8000, 8009))),
        Some(PortMap::Shift(8000))
    );
    assert_eq!(map(rule, Some(range(8000, 8010))), None);
    assert_eq!(map(PortRange::single(80), Some(range(80, 81))), None);
}

#[test]
fn service_names_are_read_as_services_5_says() {
    let services = "# comment\nhttp\t\t80/tcp\t\twww web # WorldWideWeb\ndomain 53/tcp\ndomain 53/udp\nhttp-alt 8080/tcp\n";
    let parse = |text, protocol| PortRange::parse_with("port", text, protocol, services);
    assert_eq!(parse("WWW", Protocol::Tcp), Ok(PortRange::single(80)));
    assert_eq!(
        parse("http-alt", Protocol::Tcp),
        Ok(PortRange::single(8080))
    );
    assert_eq!(parse("domain", Protocol::Udp), Ok(PortRange::single(53)));
    assert_eq!(
        parse("http", Protocol::Udp).unwrap_err().to_string(),
        "port 'http' is no udp service in /etc/services: use a port from 1 to 65535, a range such as 8000-8009, or the \
         name of a service such as https"
    );
    let hint = parse("domian", Protocol::Udp).unwrap_err().to_string();
    assert!(hint.ends_with("; did you mean 'domain'?"), "{hint}");
}

#[test]
fn a_host_name_is_resolved_to_one_address_and_kept() {
    let spec = || ServerSpec::parse("db.example.net:5432").unwrap().remove(0);
    assert_eq!(spec().target, Target::Host("db.example.net".into()));
    let resolved = spec()
        .resolve_with(|_| {
            Ok(vec![
                "192.0.2.5".parse().unwrap(),
                "192.0.2.5".parse().unwrap(),
            ])
        })
        .unwrap();
    assert_eq!(resolved.to_string(), "db.example.net=192.0.2.5:5432");
    let both = vec!["192.0.2.5".parse().unwrap(), "2001:db8::5".parse().unwrap()];
    assert_eq!(
        spec().resolve_with(|_| Ok(both)).unwrap_err().to_string(),
        "server 'db.example.net' has several addresses (192.0.2.5, 2001:db8::5): say which one is meant: \
         db.example.net=192.0.2.5; or have the group follow it: -d dns=db.example.net"
    );
    assert_eq!(
        spec()
            .resolve_with(|_| Err("no such host".into()))
            .unwrap_err()
            .to_string(),
        "server 'db.example.net' cannot be resolved (no such host): check the name, or give the address"
    );
    let loopback = vec!["127.0.0.1".parse().unwrap()];
    assert!(spec().resolve_with(|_| Ok(loopback)).is_err());
}

fn spoil_rule(c: &mut Configuration, spoil: impl FnOnce(&mut Rule)) {
    let mut rule = Rule::clone(&c.rules["b"]);
    spoil(&mut rule);
    c.rules.insert("b".into(), rule.into());
}

#[test]
fn a_configuration_that_was_tampered_with_is_not_valid() {
    let mut good = Configuration::default();
    good.create_group("web", &["192.0.2.11", "192.0.2.12"])
        .unwrap();
    good.create_rule("a", &settings("192.0.2.80", "80", "web"))
        .unwrap();
    good.create_check("alive", &check("test=tcp")).unwrap();
    let checked = RuleSettings {
        health_check: Some("alive".into()),
        ..settings("192.0.2.80", "81", "web")
    };
    good.create_rule("b", &checked).unwrap();
    good.validate().unwrap();
    let spoil: [fn(&mut Configuration); 10] = [
        |c| c.next_rule = 2,
        |c| c.next_server = 2,
        |c| drop(c.groups.remove("web")),
        |c| spoil_rule(c, |rule| rule.vips.0[0].ports = PortRange::single(80)),
        |c| spoil_rule(c, |rule| rule.number = 1),
        |c| spoil_rule(c, |rule| rule.topology = Topology::Nat),
        |c| spoil_rule(c, |rule| rule.name = "x".into()),
        |c| std::sync::Arc::make_mut(c.groups.get_mut("web").unwrap()).next_index = 1,
        |c| drop(c.checks.remove("alive")),
        |c| {
            spoil_rule(c, |rule| {
                rule.health_check.as_mut().unwrap().name = "ALIVE".into()
            })
        },
    ];
    for (i, spoil) in spoil.iter().enumerate() {
        let mut c = good.clone();
        spoil(&mut c);
        assert!(c.validate().is_err(), "case {i} passed for valid");
    }
}

#[test]
fn descriptions_and_configurations_survive_json() {
    let mut c = Configuration::default();
    c.create_group("web", &["a=192.0.2.11:80-90", "192.0.2.12"])
        .unwrap();
    c.create_rule("www", &settings("192.0.2.80", "80-90", "web"))
        .unwrap();
    c.create_check("alive", &check("test=tcp,timeout=0.5"))
        .unwrap();
    let used = RuleSettings {
        health_check: Some("ALIVE".into()),
        health_check_port: Some("8080".into()),
        ..RuleSettings::default()
    };
    c.modify_rule("www", &used).unwrap();
    let json = serde_json::to_string(&c).unwrap();
    assert_eq!(serde_json::from_str::<Configuration>(&json).unwrap(), c);
    let old = r#"{"version":"9","generation":3,"state":"ok","fastpath":"behind","rules":[],"groups":[],"new":1}"#;
    let description = Description::from_json(old).unwrap();
    assert_eq!(description.generation, 3);
    let again = Description::from_json(&description.to_json().unwrap()).unwrap();
    assert_eq!(again, description);
}

#[test]
fn a_rule_has_its_health_check_until_it_is_taken_off() {
    let mut c = Configuration::default();
    c.create_group("web", &["192.0.2.11"]).unwrap();
    c.create_check("Alive", &check("test=tcp")).unwrap();
    c.create_check("page", &check("test=http,port=8080"))
        .unwrap();
    c.create_rule("www", &settings("192.0.2.80", "80", "web"))
        .unwrap();
    let mut modify = |name: Option<&str>, port: Option<&str>| {
        let said = RuleSettings {
            health_check: name.map(str::to_string),
            health_check_port: port.map(str::to_string),
            ..RuleSettings::default()
        };
        let changed = c.modify_rule("www", &said).unwrap().is_some();
        let used = c.rule("www").unwrap().health_check.clone();
        let words = used.map(|used| (used.name, used.port.map(|port| port.to_string())));
        (changed, words)
    };
    let of = |name: &str, port: Option<&str>| Some((name.to_string(), port.map(str::to_string)));
    // (given, then): hc-name and hc-port; whether that made a difference, and what the rule has.
    for (given, then) in [
        ((Some("alive"), None), (true, of("Alive", None))),
        ((Some("ALIVE"), None), (false, of("Alive", None))),
        ((None, Some("81")), (true, of("Alive", Some("81")))),
        ((Some("page"), None), (true, of("page", Some("81")))),
        ((Some("page"), Some("any")), (true, of("page", Some("ANY")))),
        ((Some("None"), None), (true, None)),
        ((Some("none"), None), (false, None)),
        ((Some("alive"), Some("82")), (true, of("Alive", Some("82")))),
    ] {
        assert_eq!(modify(given.0, given.1), then, "{given:?}");
    }
    assert_eq!(c.rules_of_check("ALIVE").count(), 1);
    c.delete_checks(&["page"]).unwrap();
    c.delete_rules(&["www"]).unwrap();
    c.delete_checks(&["alive", "Alive"]).unwrap();
    assert!(c.checks.is_empty());
}

fn check(text: &str) -> HealthCheckSettings {
    let mut settings = HealthCheckSettings::default();
    settings.parse(text).unwrap();
    settings
}

/// Requests of all kinds from a small world, so that they meet each other.
#[derive(Debug, Clone)]
enum Step {
    CreateGroup(u8, Vec<String>),
    DeleteGroup(u8),
    Add(u8, Vec<String>),
    Remove(u8, String),
    EnableServer(u8, u8, bool),
    CreateRule(u8, RuleSettings),
    DeleteRule(u8),
    EnableRule(Option<u8>, bool),
    ModifyRule(u8, RuleSettings),
    ModifyServer(u8, u8, ServerSettings),
    CreateCheck(u8, HealthCheckSettings),
    ModifyCheck(u8, HealthCheckSettings),
    DeleteCheck(u8),
}

fn checks() -> impl Strategy<Value = HealthCheckSettings> {
    prop::sample::select(vec![
        "test=tcp",
        "test=ping,source=10.0.0.7",
        "test=tcp,source=2001:db8::7",
        "test=http,url=/health,status=200-204",
        "test=/bin/true,port=81",
        "count=2",
        "count=0",
        "url=/",
        "source=",
    ])
    .prop_map(check)
}

fn server() -> impl Strategy<Value = String> {
    let ports = prop::sample::select(vec![
        "",
        ":80",
        ":81",
        ":80-81",
        ":90-91",
        ":70-80",
        ":0",
        ":80,weight=0",
        ",max-conn=9,min-conn=3",
        ",min-conn=3",
    ]);
    let address = prop_oneof![
        (1..6u8).prop_map(|n| format!("10.0.0.{n}")),
        (1..4u8).prop_map(|n| format!("10.0.0.{n}-10.0.0.{}", n + 2)),
        (1..4u8).prop_map(|n| format!("[2001:db8::{n}]")),
    ];
    (address, ports).prop_map(|(a, p)| format!("{a}{p}"))
}

fn rule() -> impl Strategy<Value = RuleSettings> {
    let vip = prop::sample::select(vec!["10.0.0.80", "10.0.0.3", "2001:db8::80", "127.0.0.1"]);
    let port = prop::sample::select(vec!["80", "80-81", "79-90", "81", "any"]);
    let topology = prop::sample::select(vec!["d", "n", "h", "t"]);
    let source = prop::sample::select(vec![
        None,
        Some("10.0.0.9"),
        Some("2001:db8::9"),
        Some("10.0.0.4-10.0.0.5"),
    ]);
    let protocol = prop::sample::select(vec![None, Some("udp".to_string())]);
    let more = prop::sample::select(vec![
        "",
        "vip=10.0.0.81,port=80",
        "vip=10.0.0.80,protocol=icmp",
        "vip=10.0.0.80,protocol=any",
        "vip=2001:db8::81,port=any",
    ]);
    (
        vip,
        port,
        topology,
        source,
        protocol,
        0..3u8,
        more,
        changes(),
    )
        .prop_map(
            |(vip, port, topology, source, protocol, group, more, changes)| RuleSettings {
                topology: topology.into(),
                proxy_src: source.map(str::to_string).into_iter().collect(),
                protocol,
                more_vips: Some(more)
                    .filter(|more| !more.is_empty())
                    .map(|more| more.parse().unwrap())
                    .into_iter()
                    .collect(),
                clients: changes.clients,
                flags: changes.flags,
                pmask: changes.pmask,
                one_packet: changes.one_packet,
                health_check: changes.health_check,
                health_check_port: changes.health_check_port,
                ..settings(vip, port, &format!("g{group}"))
            },
        )
}

/// What can be said when a rule is created and afterwards.
fn changes() -> impl Strategy<Value = RuleSettings> {
    let clients = prop::sample::select(vec![
        "",
        "",
        "10.0.0.0/8",
        "0.0.0.0/0",
        "10.1.0.0/16",
        "all",
    ]);
    let algorithm = prop::sample::select(vec!["", "mh", "sh", "wlc"]);
    let flag = prop::sample::select(vec!["", "", "", "mh-port", "none"]);
    let mask = prop::sample::select(vec![None, Some(""), Some("/24"), Some("/33"), Some("none")]);
    let one_packet = prop::sample::select(vec![None, Some(true), Some(false)]);
    let check = prop_oneof![
        8 => Just(("", "")),
        3 => prop::sample::select(vec![
            ("h0", ""),
            ("H1", ""),
            ("H1", "81"),
            ("h1", "any"),
            ("none", ""),
            ("", "81"),
            ("h0", "0"),
        ]),
    ];
    let given = |text: &str| Some(text.to_string()).filter(|t| !t.is_empty());
    (clients, algorithm, flag, mask, one_packet, check).prop_map(
        move |(clients, algorithm, flag, mask, one_packet, check)| RuleSettings {
            health_check: given(check.0),
            health_check_port: given(check.1),
            clients: given(clients).into_iter().collect(),
            algorithm: algorithm.into(),
            flags: given(flag).into_iter().collect(),
            pmask: mask.map(str::to_string),
            one_packet,
            ..RuleSettings::default()
        },
    )
}

fn limits() -> impl Strategy<Value = ServerSettings> {
    let number = |list: Vec<u32>| prop::option::of(prop::sample::select(list));
    (
        number(vec![0, 1, 65535]),
        number(vec![0, 10]),
        number(vec![0, 5, 20]),
    )
        .prop_map(
            |(weight, max_connections, min_connections)| ServerSettings {
                weight: weight.map(|w| w as u16),
                max_connections,
                min_connections,
                tier: weight.map(|weight| u8::try_from(weight % 256).unwrap()),
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    let servers = || prop::collection::vec(server(), 0..3);
    prop_oneof![
        (0..3u8, servers()).prop_map(|(g, s)| Step::CreateGroup(g, s)),
        (0..3u8).prop_map(Step::DeleteGroup),
        (0..3u8, servers()).prop_map(|(g, s)| Step::Add(g, s)),
        (0..3u8, server()).prop_map(|(g, s)| Step::Remove(g, s)),
        (0..3u8, 0..6u8, any::<bool>()).prop_map(|(g, n, e)| Step::EnableServer(g, n, e)),
        (0..4u8, rule()).prop_map(|(n, r)| Step::CreateRule(n, r)),
        (0..4u8).prop_map(Step::DeleteRule),
        (prop::option::of(0..4u8), any::<bool>()).prop_map(|(n, e)| Step::EnableRule(n, e)),
        (0..4u8, changes()).prop_map(|(n, r)| Step::ModifyRule(n, r)),
        (0..3u8, 0..6u8, limits()).prop_map(|(g, n, l)| Step::ModifyServer(g, n, l)),
        (0..2u8, checks()).prop_map(|(n, s)| Step::CreateCheck(n, s)),
        (0..2u8, checks()).prop_map(|(n, s)| Step::ModifyCheck(n, s)),
        (0..2u8).prop_map(Step::DeleteCheck),
    ]
}

fn apply(c: &mut Configuration, step: &Step) -> Result<(), libilb::ModelError> {
    match step {
        Step::CreateGroup(g, s) => c.create_group(&format!("g{g}"), s).map(drop),
        Step::DeleteGroup(g) => c.delete_groups(&[format!("G{g}")]).map(drop),
        Step::Add(g, s) => c.add_servers(&format!("g{g}"), s).map(drop),
        Step::Remove(g, s) => c.remove_servers(&format!("g{g}"), &[s]).map(drop),
        Step::EnableServer(g, n, e) => c.enable_servers(&[format!("_g{g}.{n}")], *e).map(drop),
        Step::CreateRule(n, r) => c.create_rule(&format!("r{n}"), r).map(drop),
        Step::DeleteRule(n) => c.delete_rules(&[format!("R{n}")]).map(drop),
        Step::EnableRule(n, e) => {
            let names: Vec<String> = n.iter().map(|n| format!("r{n}")).collect();
            c.enable_rules(&names, *e).map(drop)
        }
        Step::ModifyRule(n, r) => c.modify_rule(&format!("r{n}"), r).map(drop),
        Step::ModifyServer(g, n, l) => c.modify_servers(&[format!("_g{g}.{n}")], l).map(drop),
        Step::CreateCheck(n, s) => c.create_check(&format!("h{n}"), s).map(drop),
        Step::ModifyCheck(n, s) => c.modify_check(&format!("H{n}"), s).map(drop),
        Step::DeleteCheck(n) => c.delete_checks(&[format!("h{n}")]).map(drop),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// The checks of a mutation look only at what it touches; they must find all that a check from scratch finds.
    #[test]
    fn every_change_keeps_it_valid_and_every_refusal_keeps_it(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        let mut c = Configuration::default();
        for step in &steps {
            let before = c.clone();
            match apply(&mut c, step) {
                Ok(()) => prop_assert_eq!(c.validate(), Ok(()), "after {:?}", step),
                Err(_) => prop_assert_eq!(&c, &before, "after {:?}", step),
            }
            prop_assert!(c.next_rule >= before.next_rule && c.next_server >= before.next_server);
        }
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,40}", tail in "[]\\[0-9a-f:.=-]{0,30}") {
        for text in [&text, &tail] {
            let _ = ServerSpec::parse(text);
            let _ = PortRange::parse("port", text, Protocol::Tcp);
            let rule = RuleSettings { proxy_src: vec![text.clone()], topology: "n".into(), ..settings(text, text, text) };
            let _ = rule.check(text);
            let _ = libilb::dbus::unescape(text);
        }
    }

    #[test]
    fn specifications_are_read_as_they_are_written(text in server()) {
        if let Ok(specs) = ServerSpec::parse(&text) {
            for spec in specs {
                prop_assert_eq!(ServerSpec::parse(&spec.to_string()), Ok(vec![spec]));
            }
        }
    }
}

/// The property above says nothing if its steps all fail, or all succeed.
#[test]
fn the_random_steps_are_accepted_and_refused_in_every_way() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut c = Configuration::default();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..30_000 {
        let step = step().new_tree(&mut runner).unwrap().current();
        let kind = match step {
            Step::CreateGroup(..) => "create group",
            Step::DeleteGroup(..) => "delete group",
            Step::Add(..) => "add",
            Step::Remove(..) => "remove",
            Step::EnableServer(..) => "enable server",
            Step::CreateRule(..) => "create rule",
            Step::DeleteRule(..) => "delete rule",
            Step::EnableRule(..) => "enable rule",
            Step::ModifyRule(..) => "modify rule",
            Step::ModifyServer(..) => "modify server",
            Step::CreateCheck(..) => "create check",
            Step::ModifyCheck(..) => "modify check",
            Step::DeleteCheck(..) => "delete check",
        };
        let outcome = match apply(&mut c, &step) {
            Ok(()) => "ok".to_string(),
            Err(e) => format!("{:?}", e.kind()),
        };
        seen.insert(format!("{kind}: {outcome}"));
    }
    for wanted in [
        "create group: ok",
        "create group: AlreadyExists",
        "create group: InvalidArgument",
        "delete group: ok",
        "delete group: InUse",
        "delete group: NotFound",
        "add: ok",
        "add: Conflict",
        "remove: ok",
        "remove: NotFound",
        "enable server: ok",
        "enable server: NotFound",
        "create rule: ok",
        "create rule: AlreadyExists",
        "create rule: Conflict",
        "create rule: NotFound",
        "delete rule: ok",
        "delete rule: NotFound",
        "enable rule: ok",
        "enable rule: NotFound",
        "modify rule: ok",
        "modify rule: InvalidArgument",
        "modify server: ok",
        "modify server: InvalidArgument",
        "modify server: NotFound",
        "modify rule: NotFound",
        "create check: ok",
        "create check: AlreadyExists",
        "create check: InvalidArgument",
        "modify check: ok",
        "modify check: NotFound",
        "modify check: InvalidArgument",
        "delete check: ok",
        "delete check: NotFound",
        "delete check: InUse",
    ] {
        assert!(
            seen.contains(wanted),
            "never seen: {wanted}; seen: {seen:?}"
        );
    }
}
