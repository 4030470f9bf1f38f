use super::*;
use crate::author::Author;
use crate::followed::Followed;
use crate::history::{Entry, History, Undo};
use crate::pending::Pending;
use crate::retired::Retired;
use ilb_pair::follow::{Draft, Version};
use libilb::model::{HealthCheckSettings, RuleSettings};
use libilb::source::SourceSettings;

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
        .create_group(
            "far",
            &["192.0.2.31,weight=0,max-conn=9,min-conn=3,tier=sorry"],
        )
        .unwrap();
    let mut source = SourceSettings::default();
    let said = "dns=app.example.com,port=8080,approve=ask,hold=9,except=192.0.2.1";
    source.parse(said).unwrap();
    before
        .create_group_from("named", &["app=192.0.2.41:8080,found=yes"], &source)
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
    for (name, text) in [
        (
            "Outer",
            "interface=eth0,vrid=51,addresses=198.51.100.1,priority=150,interval=0.1,track=fastpath:-20,script:/bin/true",
        ),
        (
            "six",
            "interface=eth0,vrid=51,addresses=fe80::80,2001:db8::80,source=fe80::1,peers=fe80::2,sync-group=both,notify=/bin/true",
        ),
    ] {
        let mut settings = libilb::vrrp::VrrpSettings::default();
        settings.parse(text).unwrap();
        before.create_vrrp(name, &settings).unwrap();
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
        sync: Some("off".into()),
        slow_start: Some(5),
        max_new_flows: Some(7),
        quorum: Some(3),
        hysteresis: Some(1),
        panic_mode: Some("keep-last".into()),
        panic_threshold: Some(99),
        notify: [(libilb::rule::NotifyEvent::Down, "/bin/a 'b c'".into())].into(),
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
    let mut history = History::default();
    let author = Author::User {
        uid: 1000,
        name: Some("alice".into()),
    };
    for (generation, before, author, words, undo) in [
        (7, 0, Author::Manager, "beginning", None),
        (40, 7, author, "many things", Some(Undo::default())),
        (
            42,
            40,
            Author::of_number(7),
            "remove",
            Some(super::history::undo(&before, &after)),
        ),
    ] {
        let entry = Entry {
            time: 1_700_000_000 + generation,
            author,
            words: words.into(),
            before,
            undo: undo.map(Arc::new),
        };
        history.push(generation, entry);
    }
    let waiting = libilb::apply::Waiting {
        until: 1_700_000_060,
        generation: 41,
        author: "root (uid 0)".into(),
    };
    let pending = Pending::new(&before, &after, waiting, 60);
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
        history,
        pending: Some(Arc::new(pending)),
        pair: Some(Arc::new(followed())),
    }
}

/// Node 1 of a pair that has had a few changes and a conflict.
fn followed() -> Followed {
    let mut pair = Followed {
        node: 1,
        incomplete: true,
        ..Followed::default()
    };
    for (generation, words) in [(7, "beginning"), (40, "many things"), (42, "remove")] {
        let draft = Draft {
            time: generation,
            author: "alice".into(),
            words: words.into(),
            digest: ilb_pair::follow::Digest::default(),
        };
        let next = Version::new(pair.line.newest(), 0, &draft);
        pair.line.push(next, generation).unwrap();
    }
    pair.notice(1_700_000_000, "what gave way".into());
    pair
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
        let mut seal = Seal::of(&records);
        for (key, value) in changes(from, to) {
            let old = match value.clone() {
                Some(value) => records.insert(key.clone(), value),
                None => records.remove(&key),
            };
            seal.replace(&key, old.as_deref(), value.as_deref());
        }
        records.extend(seal.stored());
        assert_eq!(records, encode(to));
    }
    assert_eq!(changes(&full, &full.clone()), vec![]);
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
    let mut settings = libilb::vrrp::VrrpSettings::default();
    settings.parse("priority=9").unwrap();
    state.configuration.modify_vrrp("outer", &settings).unwrap();
    state.configuration.delete_vrrp(&["six"]).unwrap();
    state
}

#[test]
fn a_small_change_writes_few_records() {
    let full = full_state();
    let mut after = full.clone();
    after.configuration.enable_rules(&["shop"], false).unwrap();
    let list = changes(&full, &after);
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
fn a_record_as_it_was_some_time_ago_is_noticed() {
    let full = full_state();
    let mut after = full.clone();
    after.configuration.enable_rules(&["shop"], false).unwrap();
    let (old, mut new) = (encode(&full), encode(&after));
    let key = (Tree::Rules, be(1));
    assert_ne!(
        new.insert(key.clone(), old[&key].clone()).as_ref(),
        old.get(&key)
    );
    let error = decode(&new).unwrap_err().to_string();
    assert!(
        error.contains("the checksum over all of them is wrong"),
        "{error}"
    );
}

#[test]
fn an_unknown_schema_is_no_damage() {
    for schema in [0, SCHEMA + 1] {
        let mut records = encode(&full_state());
        records.insert((Tree::Meta, b"schema".to_vec()), be(schema));
        assert_eq!(decode(&records), Err(DecodeError::Schema(schema)));
    }
}

#[test]
fn a_way_leads_back_step_by_step() {
    let mut configuration = Configuration::default();
    let mut all = vec![configuration.clone()];
    let mut step = |change: &dyn Fn(&mut Configuration)| {
        change(&mut configuration);
        all.push(configuration.clone());
    };
    step(&|c| {
        drop(
            c.create_group("web", &["192.0.2.1", "192.0.2.2:80"])
                .unwrap(),
        )
    });
    step(&|c| drop(c.remove_servers("web", &["_web.0"]).unwrap()));
    step(&|c| drop(c.delete_groups(&["web"]).unwrap()));
    step(&|c| drop(c.create_group("Web", &["192.0.2.9"]).unwrap()));
    let way: Vec<_> = all
        .windows(2)
        .map(|pair| Arc::new(super::history::undo(&pair[0], &pair[1])))
        .rev()
        .collect();
    let newest = all.last().unwrap();
    for (steps, expected) in all.iter().rev().enumerate() {
        let found = super::history::back(newest, &way[..steps]).unwrap();
        assert_eq!(
            (&found.rules, &found.groups),
            (&expected.rules, &expected.groups)
        );
    }
    let wrong = super::history::back(newest, &way[1..]).unwrap_err();
    assert!(wrong.to_string().contains("there is no group"), "{wrong}");
}

#[test]
fn what_changes_on_one_node_changes_on_the_other() {
    let full = full_state().configuration;
    let mut configuration = full.clone();
    let mut steps: Vec<(&str, Configuration)> = vec![("nothing", Configuration::default())];
    let mut step = |what: &'static str, change: &dyn Fn(&mut Configuration)| {
        change(&mut configuration);
        steps.push((what, configuration.clone()));
    };
    step("everything", &|_| ());
    step("a server goes", &|c| {
        drop(c.remove_servers("web", &["_Web.0"]).unwrap());
    });
    step("a rule is disabled", &|c| {
        drop(c.enable_rules(&["shop"], false).unwrap());
    });
    step("a name goes to another", &|c| {
        drop(c.delete_rules(&["shop"]).unwrap());
        drop(c.delete_groups(&["web"]).unwrap());
        drop(c.create_group("WEB", &["192.0.2.77"]).unwrap());
    });
    step("checks and instances go", &|c| {
        drop(c.delete_checks(&["udp"]).unwrap());
        drop(c.delete_vrrp(&["outer"]).unwrap());
    });
    step("all of it comes back", &|c| *c = c.restored(full.clone()));
    for pair in steps.windows(2) {
        let [(_, before), (what, after)] = pair else {
            continue;
        };
        let records = forward::records(before, after);
        let numbers = forward::numbers(after);
        // Each has its own of the instances: as on the node that has everything.
        let found = forward::apply(before, before, &records, numbers, false).unwrap();
        let own = |configuration: &Configuration| {
            let mut shared = configuration.clone();
            for (name, instance) in &configuration.vrrp {
                let mut instance = instance.as_ref().clone();
                (instance.priority, instance.peers, instance.source) = (0, Vec::new(), None);
                shared.vrrp.insert(name.clone(), Arc::new(instance));
            }
            shared
        };
        assert_eq!(own(&found), own(after), "{what}");
        assert_eq!(forward::records(after, after), [], "{what}");
    }
    // An instance that is new has a lower priority, and the peers the other way round.
    let records = forward::records(&Configuration::default(), &full);
    let empty = Configuration::default();
    let there = forward::apply(&empty, &empty, &records, forward::numbers(&full), false).unwrap();
    assert_eq!(there.vrrp.get("outer").unwrap().priority, 100);
    let six = there.vrrp.get("six").unwrap();
    let (source, peer) = ("fe80::2".parse().unwrap(), "fe80::1".parse().unwrap());
    assert_eq!((six.source, &six.peers), (Some(source), &vec![peer]));
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
    records.insert((Tree::Meta, META_SCHEMA.into()), be(1));
    records.remove(&(Tree::Meta, META_CHECKSUM.into()));
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
