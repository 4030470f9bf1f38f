//! The D-Bus side: names, paths, settings, errors.

use std::collections::{HashMap, HashSet};

use libilb::ErrorKind;
use libilb::client::ClientError;
use libilb::connections::{CLAIMS, Filter, STATES};
use libilb::dbus::{
    error_kind, error_name, escape, rule_path, server_path, settings_from_dbus, settings_to_dbus,
    source_from_dbus, source_to_dbus, unescape,
};
use libilb::rule::{RuleSettings, Timeout, VipSettings};
use libilb::server::ServerSettings;
use libilb::source::SourceSettings;
use libilb::stats::{Counter, Entry, Statistics};
use proptest::prelude::*;
use zbus::{OwnedVariant, Variant};

#[test]
fn paths_hold_only_what_d_bus_allows() {
    assert_eq!(rule_path("Web-1"), "/org/ilb/Ilb1/rule/web_2d1");
    assert_eq!(server_path("_web.0"), "/org/ilb/Ilb1/server/_5fweb_2e0");
    assert_eq!(unescape("web_2d1").as_deref(), Some("web-1"));
    assert_eq!(unescape("web_2"), None);
    assert_eq!(unescape("web_zz"), None);
}

#[test]
fn errors_have_names_of_their_own() {
    let names: HashSet<String> = ErrorKind::ALL.into_iter().map(error_name).collect();
    assert_eq!(names.len(), ErrorKind::ALL.len());
    for kind in ErrorKind::ALL {
        assert_eq!(error_kind(&error_name(kind)), Some(kind));
    }
    assert_eq!(error_kind("org.freedesktop.DBus.Error.Failed"), None);
}

fn owned(settings: HashMap<&'static str, Variant<'static>>) -> HashMap<String, OwnedVariant> {
    settings
        .into_iter()
        .map(|(k, v)| (k.to_string(), OwnedVariant::try_from(v).unwrap()))
        .collect()
}

#[test]
fn a_filter_survives_the_bus_with_states_of_its_kind() {
    let filter = |state: &str, persistence| Filter {
        state: Some(state.to_string()),
        persistence,
        ..Filter::default()
    };
    let all = |of: &[&'static str], persistence| {
        let filters: Vec<Filter> = of.iter().map(|state| filter(state, persistence)).collect();
        filters
    };
    for filter in [all(&STATES, false), all(&CLAIMS, true)].concat() {
        let read = Filter::from_dbus(&owned(filter.to_dbus())).unwrap();
        assert_eq!(read, filter);
    }
    for (state, persistence, allowed) in [
        ("offered", false, "use syn-received,"),
        ("fresh", true, "use persistence or offered"),
    ] {
        let error = Filter::from_dbus(&owned(filter(state, persistence).to_dbus()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(allowed), "{error}");
    }
}

#[test]
fn settings_survive_the_bus() {
    let full = RuleSettings {
        enabled: true,
        vip: "192.0.2.1".into(),
        port: "80".into(),
        protocol: Some("udp".into()),
        algorithm: "rr".into(),
        topology: "NAT".into(),
        proxy_src: vec!["192.0.2.2".into(), "192.0.2.3-192.0.2.4".into()],
        servergroup: "web".into(),
        conn_drain: Some(5),
        nat_timeout: Some(0),
        persist_timeout: Some(7),
        pmask: Some("/24".into()),
        manage_addresses: Some(false),
        more_vips: vec![
            VipSettings {
                vip: "192.0.2.5".into(),
                port: "any".into(),
                protocol: Some("sctp".into()),
            },
            VipSettings {
                vip: "192.0.2.6".into(),
                ..VipSettings::default()
            },
        ],
        clients: vec!["10.0.0.0/8".into()],
        flags: vec!["mh-port".into()],
        tunnel: Some("gue".into()),
        gue_port: Some(5555),
        tunnel_checksum: Some("csum".into()),
        timeouts: [(Timeout::FinWait, 3), (Timeout::Udp, 0)].into(),
        one_packet: Some(true),
        orphans: Some("drop".into()),
        sync: Some("light".into()),
        slow_start: Some(9),
        max_new_flows: Some(0),
        quorum: Some(3),
        hysteresis: Some(2),
        panic_mode: Some("fail-open".into()),
        panic_threshold: Some(30),
        notify: [(libilb::rule::NotifyEvent::QuorumUp, "/bin/a b".to_string())].into(),
        health_check: Some("web".into()),
        health_check_port: Some("ANY".into()),
    };
    assert_eq!(
        settings_from_dbus(&owned(settings_to_dbus(&full))),
        Ok(full)
    );
    let plain = RuleSettings::default();
    assert_eq!(
        settings_from_dbus(&owned(settings_to_dbus(&plain))),
        Ok(plain)
    );
}

#[test]
fn server_settings_survive_the_bus() {
    let full = ServerSettings {
        weight: Some(65535),
        max_connections: Some(10),
        min_connections: Some(0),
        tier: Some(255),
    };
    for settings in [full, ServerSettings::default()] {
        let map = owned(libilb::dbus::server_settings_to_dbus(&settings));
        assert_eq!(libilb::dbus::server_settings_from_dbus(&map), Ok(settings));
    }
    let one = |key: &'static str, value: Variant<'static>| {
        libilb::dbus::server_settings_from_dbus(&owned(HashMap::from([(key, value)])))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        one("wieght", Variant::from(1u32)),
        "setting 'wieght' is not known: use weight, max-connections, min-connections or tier; did you mean 'weight'?"
    );
    assert_eq!(
        one("weight", Variant::from(1u16)),
        "setting 'weight' has D-Bus type q: it has to be of type u"
    );
    assert_eq!(
        one("weight", Variant::from(65536u32)),
        "weight '65536' is out of range: use 0 to 65535; 0 takes no new connections"
    );
}

#[test]
fn sources_survive_the_bus_as_texts_numbers_and_lists() {
    let mut source = SourceSettings::default();
    let said = "dns=app.example.com,port=8080,limit=3,resolver=192.0.2.53,192.0.2.54,except=none";
    source.parse(said).unwrap();
    let read = source_from_dbus(&owned(source_to_dbus(&source))).unwrap();
    assert_eq!(read.apply(None), source.apply(None));
    let other = HashMap::from([
        ("dns", Variant::from("app.example.com")),
        ("port", Variant::from("8080")),
        ("limit", Variant::from(3u32)),
        ("resolver", Variant::from(vec!["192.0.2.53", "192.0.2.54"])),
    ]);
    let read = source_from_dbus(&owned(other)).unwrap();
    assert_eq!(read.apply(None), source.apply(None));
    for (key, value, expected) in [
        ("dnss", Variant::from("a"), "dnss"),
        (
            "dns",
            Variant::from(7u32),
            "setting 'dns' has D-Bus type u: it has to be of type s",
        ),
        (
            "limit",
            Variant::from(vec!["3"]),
            "setting 'limit' has D-Bus type as",
        ),
        (
            "limit",
            Variant::from(0u32),
            "limit '0' is out of range: use 1 to 1024",
        ),
        (
            "subnet",
            Variant::from("10.0.0.0/8"),
            "has more than 1024 addresses",
        ),
    ] {
        let error = source_from_dbus(&owned(HashMap::from([(key, value)]))).unwrap_err();
        assert!(error.to_string().contains(expected), "{key}: {error}");
    }
}

#[test]
fn wrong_settings_are_named() {
    let one = |key: &'static str, value: Variant<'static>| {
        settings_from_dbus(&owned(HashMap::from([(key, value)])))
            .unwrap_err()
            .to_string()
    };
    let unknown = one("algo", Variant::from("rr"));
    assert!(
        unknown.starts_with("setting 'algo' is not known: use enabled, vip, port"),
        "{unknown}"
    );
    assert_eq!(
        one("prot", Variant::from("tcp")).rsplit("; ").next(),
        Some("did you mean 'port'?")
    );
    assert_eq!(
        one("conn-drain", Variant::from("5")),
        "setting 'conn-drain' has D-Bus type s: it has to be of type u"
    );
    assert_eq!(
        one("proxy-src", Variant::from("192.0.2.1")),
        "setting 'proxy-src' has D-Bus type s: it has to be of type as"
    );
}

#[test]
fn counters_are_found_by_name() {
    let names: HashSet<&str> = Counter::all().map(Counter::name).collect();
    assert_eq!(names.len(), Counter::all().count());
    assert!(!names.contains("?"));
    let mut entry = Entry {
        rule: "Web".into(),
        ..Entry::default()
    };
    entry.set(Counter::PacketsForwarded, 7);
    entry.counters.insert("drop:no-route".into(), 2);
    let all = Statistics {
        entries: vec![entry],
    };
    let again = Statistics::from(all.to_raw());
    assert_eq!(again, all);
    let entry = again.get("web", "").unwrap();
    assert_eq!(
        (
            entry.get(Counter::PacketsForwarded),
            entry.get(Counter::BytesDropped)
        ),
        (7, 0)
    );
    assert_eq!(entry.drops().collect::<Vec<_>>(), [("no-route", 2)]);
}

/// What a client makes of an error reply.
fn reply(name: &str, text: &str) -> ClientError {
    let call = zbus::Message::method_call("/", "Call")
        .destination(":1.2")
        .build(&())
        .unwrap();
    let reply = zbus::Message::error(&call.header(), name)
        .build(&text)
        .unwrap();
    ClientError::from(zbus::Error::from(reply))
}

#[test]
fn a_client_knows_absent_from_refused() {
    for name in ["ServiceUnknown", "NameHasNoOwner", "NoReply"] {
        let error = reply(
            &format!("org.freedesktop.DBus.Error.{name}"),
            "The name is not activatable",
        );
        assert!(
            matches!(error, ClientError::NotRunning(_)),
            "{name}: {error:?}"
        );
        assert!(error.to_string().contains("systemctl start ilb"), "{error}");
    }
    for kind in ErrorKind::ALL {
        let error = reply(&error_name(kind), "text of the manager");
        match kind {
            ErrorKind::NotAuthorized => {
                assert_eq!(
                    error,
                    ClientError::NotAuthorized("text of the manager".into())
                );
            }
            _ => assert_eq!(
                error,
                ClientError::Refused {
                    kind,
                    message: "text of the manager".into()
                }
            ),
        }
    }
    assert_eq!(
        reply(
            "org.freedesktop.DBus.Error.AccessDenied",
            "Sender is not root"
        )
        .to_string(),
        "not authorised: Sender is not root; run it as root"
    );
    assert!(matches!(
        reply("org.freedesktop.DBus.Error.UnknownMethod", "no such method"),
        ClientError::Protocol(_)
    ));
}

proptest! {
    #[test]
    fn escaping_is_reversible_but_for_case(name in "[A-Za-z0-9._-]{1,63}") {
        let element = escape(&name);
        prop_assert!(element.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        prop_assert_eq!(unescape(&element), Some(name.to_ascii_lowercase()));
    }
}
