use super::*;
use libilb::model::{HealthCheckSettings, RuleSettings};

/// A state with something in every tree.
pub fn full_state() -> State {
    let mut before = Configuration::default();
    before
        .create_group("Web", &["192.0.2.10", "192.0.2.11:8080", "192.0.2.12"])
        .unwrap();
    before.create_group("six", &["[2001:db8::1]"]).unwrap();
    let settings = |vip: &str, group: &str| RuleSettings {
        enabled: true,
        vip: vip.into(),
        port: "80".into(),
        algorithm: "rr".into(),
        topology: "HALF-NAT".into(),
        servergroup: group.into(),
        ..RuleSettings::default()
    };
    before
        .create_rule("Shop", &settings("198.51.100.1", "web"))
        .unwrap();
    before
        .create_rule("gone", &settings("198.51.100.2", "web"))
        .unwrap();
    before
        .create_rule("six", &settings("2001:db8::80", "six"))
        .unwrap();
    before
        .create_group("far", &["192.0.2.31,weight=0,max-conn=9,min-conn=3"])
        .unwrap();
    for (name, text) in [
        (
            "Page",
            "test=https,url=/a\\,b,status=200-204,digest=0123456789abcdef0123456789abcdef,verify=yes,timeout=0.5",
        ),
        (
            "udp",
            "test=udp,payload=0x00ff,reply=0x0?ff,retries=0,warm-up=1,jitter=0",
        ),
        (
            "script",
            "test=/bin/true,contract=exit-code,arg=a b,weight=yes,alpha=yes,source=192.0.2.1",
        ),
    ] {
        let mut settings = HealthCheckSettings::default();
        settings.parse(text).unwrap();
        before.create_check(name, &settings).unwrap();
    }
    let far = RuleSettings {
        health_check: Some("page".into()),
        health_check_port: Some("8443".into()),
        more_vips: vec!["vip=198.51.100.9,protocol=icmp".parse().unwrap()],
        clients: vec!["10.0.0.0/8".into()],
        algorithm: "mh".into(),
        flags: vec!["mh-port".into()],
        topology: "tun".into(),
        tunnel: Some("gue".into()),
        tunnel_checksum: Some("remote".into()),
        proxy_src: vec!["198.51.100.10".into()],
        pmask: Some("/24".into()),
        orphans: Some("drop".into()),
        slow_start: Some(5),
        max_new_flows: Some(7),
        timeouts: [(libilb::rule::Timeout::FinWait, 3)].into(),
        ..settings("198.51.100.8", "far")
    };
    before.create_rule("far", &far).unwrap();
    let mut after = before.clone();
    after.delete_rules(&["gone"]).unwrap();
    after.remove_servers("web", &["_Web.2"]).unwrap();
    let mut retired = Retired::default();
    retired.follow(&before, &after, 1_700_000_000);
    assert!(!retired.rules.is_empty() && !retired.servers.is_empty());
    State {
        generation: 42,
        configuration: after,
        retired,
        addresses: [
            ("198.51.100.1".parse().unwrap(), "eth0".to_owned()),
            ("2001:db8::80".parse().unwrap(), "lo".to_owned()),
        ]
        .into_iter()
        .collect(),
    }
}

#[test]
fn every_state_survives_its_records() {
    let state = full_state();
    let records = encode(&state);
    for tree in Tree::ALL {
        assert!(records.keys().any(|(t, _)| *t == tree), "{tree:?} is empty");
    }
    assert_eq!(decode(&records).unwrap(), state);
    assert_eq!(
        decode(&encode(&State::default())).unwrap(),
        State::default()
    );
    assert!(decode(&Records::new()).is_err());
}

#[test]
fn changes_lead_from_one_state_to_the_other() {
    let full = full_state();
    let mut less = full.clone();
    less.configuration
        .remove_servers("web", &["_web.0"])
        .unwrap();
    less.generation += 1;
    let empty = State::default();
    for (from, to) in [
        (&full, &empty),
        (&empty, &full),
        (&full, &less),
        (&less, &full),
        (&full, &checked_otherwise(&full)),
        (&checked_otherwise(&full), &full),
        // Equal, but nothing is shared.
        (&full, &decode(&encode(&full)).unwrap()),
    ] {
        let mut records = encode(from);
        let before = count(from);
        let (list, after) = changes(from, to, before);
        assert_eq!(after, count(to));
        for (key, value) in list {
            match value {
                Some(value) => drop(records.insert(key, value)),
                None => drop(records.remove(&key)),
            }
        }
        assert_eq!(records, encode(to));
    }
    assert_eq!(changes(&full, &full.clone(), 3), (vec![], 3));
}

/// One health check changed, one gone, one more.
fn checked_otherwise(state: &State) -> State {
    let mut state = state.clone();
    let mut settings = HealthCheckSettings::default();
    settings.parse("count=7").unwrap();
    state.configuration.modify_check("page", &settings).unwrap();
    settings.parse("test=ping").unwrap();
    state.configuration.create_check("more", &settings).unwrap();
    state.configuration.delete_checks(&["udp"]).unwrap();
    state
}

#[test]
fn a_small_change_writes_few_records() {
    let full = full_state();
    let mut after = full.clone();
    after.configuration.enable_rules(&["shop"], false).unwrap();
    let (list, _) = changes(&full, &after, count(&full));
    let trees: Vec<Tree> = list.iter().map(|((tree, _), _)| *tree).collect();
    assert_eq!(trees, [Tree::Rules]);
}

#[test]
fn a_lost_or_broken_record_is_noticed() {
    let records = encode(&full_state());
    for key in records.keys() {
        let mut less = records.clone();
        less.remove(key);
        assert!(decode(&less).is_err(), "{key:?} was missing");
        let mut broken = records.clone();
        broken.insert(key.clone(), vec![0xff, 0x00, b'{']);
        assert!(decode(&broken).is_err(), "{key:?} was broken");
    }
}

#[test]
fn a_later_schema_is_no_damage() {
    let mut records = encode(&full_state());
    for schema in [0, SCHEMA + 1] {
        records.insert((Tree::Meta, b"schema".to_vec()), be(schema));
        assert_eq!(decode(&records), Err(DecodeError::Schema(schema)));
    }
}

/// An earlier program shall read what it understands, and not take for damage what it does not.
#[test]
fn a_state_is_written_as_the_earliest_schema_that_holds_it() {
    let full = full_state();
    let mut plain = full.clone();
    let configuration = &mut plain.configuration;
    let off = RuleSettings {
        health_check: Some("none".into()),
        ..RuleSettings::default()
    };
    configuration.modify_rule("far", &off).unwrap();
    let names: Vec<String> = configuration.checks.keys().cloned().collect();
    configuration.delete_checks(&names).unwrap();
    for (state, schema) in [(&full, 2), (&plain, 1), (&State::default(), 1)] {
        assert_eq!(meta_u32(&encode(state), META_SCHEMA), Ok(schema));
    }
    let schemas = |from, to| {
        let (list, _) = changes(from, to, count(from));
        let of_schema = |(key, value): (Key, _)| (key.1 == b"schema").then_some(value);
        list.into_iter().find_map(of_schema)
    };
    assert_eq!(schemas(&plain, &full), Some(Some(be(2))));
    assert_eq!(schemas(&full, &plain), Some(Some(be(1))));
    assert_eq!(schemas(&full, &full.clone()), None);
}

/// Records as the first version wrote them: one VIP, and nothing of what rules and servers can say since.
#[test]
fn records_of_the_first_version_are_read() {
    let mut configuration = Configuration::default();
    configuration.create_group("web", &["192.0.2.10"]).unwrap();
    let settings = RuleSettings {
        vip: "198.51.100.1".into(),
        port: "80-81".into(),
        algorithm: "hip".into(),
        topology: "h".into(),
        servergroup: "web".into(),
        ..RuleSettings::default()
    };
    configuration.create_rule("www", &settings).unwrap();
    let state = State {
        generation: 3,
        configuration,
        ..State::default()
    };
    let mut records = encode(&state);
    let rule = r#"{"number":1,"name":"www","enabled":false,"vip":"198.51.100.1","protocol":"tcp","ports":{"first":80,"last":81},"algorithm":"hash-ip","topology":"HALF-NAT","proxy_src":[],"servergroup":"web","conn_drain":0,"nat_timeout":0,"manage_addresses":true}"#;
    let server = r#"{"group":"web","server":{"number":1,"id":"_web.0","address":"192.0.2.10","weight":1,"enabled":true}}"#;
    for (tree, text) in [(Tree::Rules, rule), (Tree::Servers, server)] {
        let old = records.insert((tree, be(1)), text.into()).unwrap();
        // What says no more is written as it always was, but for the order of its fields and a server's place.
        let mut value: serde_json::Value = serde_json::from_slice(&old).unwrap();
        if let Some(server) = value.get_mut("server").and_then(|v| v.as_object_mut()) {
            assert_eq!(server.remove("place"), Some(0.into()));
        }
        assert_eq!(
            value,
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        );
    }
    assert_eq!(decode(&records).unwrap(), state);
}
