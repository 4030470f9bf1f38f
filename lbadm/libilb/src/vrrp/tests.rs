//! What can be said about an instance, and what cannot.

use super::*;

fn said(text: &str) -> Result<VrrpInstance, String> {
    let mut settings = VrrpSettings::default();
    settings
        .parse(text)
        .and_then(|()| settings.check("outer"))
        .map_err(|error| error.to_string())
}

#[test]
fn little_has_to_be_said() {
    let instance =
        said("interface=eth0,vrid=51,addresses=192.0.2.80,192.0.2.81,priority=150").unwrap();
    assert_eq!(instance.addresses.len(), 2);
    assert_eq!(
        (instance.version, instance.interval, instance.priority),
        (Version::V3, 100, 150)
    );
    assert_eq!(instance.track, [Track::FASTPATH]);
    let brief = VrrpSettings::from(&instance).brief().words();
    assert_eq!(
        brief,
        "interface=eth0,vrid=51,addresses=192.0.2.80,192.0.2.81,priority=150"
    );
}

#[test]
fn what_is_said_is_read_again() {
    for text in [
        "interface=eth0,vrid=1,addresses=192.0.2.80,version=2,interval=3,preempt=no,accept=no,track=none",
        "interface=eth0,vrid=255,addresses=fe80::80,2001:db8::80,interval=0.01,preempt-delay=1.5,source=fe80::1,peers=fe80::2",
        "interface=eth0,vrid=9,addresses=192.0.2.80,checksum=message,mac=virtual,track=fastpath:-20,interface:eth1,script:/bin/ok:10,file:/x:-1,\
         sync-group=both,notify=/bin/tell,announcements=2,announce-interval=60,enabled=no",
    ] {
        let text = text.replace(char::is_whitespace, "");
        let instance = said(&text).unwrap();
        assert_eq!(VrrpSettings::from(&instance).brief().words(), text);
        let json = serde_json::to_string(&instance).unwrap();
        assert_eq!(
            serde_json::from_str::<VrrpInstance>(&json).unwrap(),
            instance
        );
        let dbus = settings_to_dbus(&VrrpSettings::from(&instance));
        let dbus = dbus
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.try_into().unwrap()));
        let again = settings_from_dbus(&dbus.collect())
            .unwrap()
            .check("outer")
            .unwrap();
        assert_eq!(again, instance);
    }
}

#[test]
fn addresses_are_closed_unless_somebody_owns_them() {
    for (text, closed) in [
        ("accept=no", true),
        ("accept=no,priority=254", true),
        // RFC 9568 section 6.1: the owner accepts whatever is said.
        ("accept=no,priority=255", false),
        ("accept-mode=yes", false),
        ("accept=", false),
        ("priority=1", false),
    ] {
        let instance = said(&format!(
            "interface=eth0,vrid=1,addresses=192.0.2.80,{text}"
        ))
        .unwrap();
        assert_eq!(instance.is_closed(), closed, "{text}");
    }
    // As an earlier version has written it.
    let instance = said("interface=eth0,vrid=1,addresses=192.0.2.80").unwrap();
    let mut json = serde_json::to_value(&instance).unwrap();
    assert_eq!(json["accept"], true);
    json.as_object_mut().unwrap().remove("accept");
    let again: VrrpInstance = serde_json::from_value(json).unwrap();
    assert_eq!(again, instance);
}

#[test]
fn mistakes_name_field_value_and_what_is_allowed() {
    for (text, message) in [
        (
            "vrid=51,addresses=192.0.2.80",
            "interface is missing: name one",
        ),
        ("interface=eth0,addresses=192.0.2.80", "vrid is missing"),
        ("interface=eth0,vrid=51", "addresses is missing"),
        (
            "interface=eth0,vrid=0",
            "vrid '0' is out of range: use a whole number from 1 to 255",
        ),
        ("interface=eth0,vrid=256", "vrid '256' is out of range"),
        (
            "interface=a/b",
            "interface 'a/b' is no name of an interface",
        ),
        (
            "priority=0",
            "priority '0' is out of range: use a whole number from 1 to 255",
        ),
        (
            "accept=maybe",
            "accept 'maybe' is not known: use yes (true, on, y, 1) or no",
        ),
        ("interval=0.005", "interval '0.005' cannot be advertised"),
        ("interval=256", "interval '256' cannot be advertised"),
        (
            "interface=e,vrid=1,addresses=192.0.2.80,interval=41",
            "interval '41' is too long: version 3",
        ),
        (
            "interface=e,vrid=1,addresses=192.0.2.80,version=2,interval=0.5",
            "interval '0.5' is not whole seconds",
        ),
        (
            "interface=e,vrid=1,addresses=2001:db8::1,version=2",
            "version '2' has no IPv6: use version 3",
        ),
        (
            "version=4",
            "version '4' is not known: use 2 (v2) or 3 (v3)",
        ),
        (
            "addresses=192.0.2.80,192.0.2.80",
            "addresses '192.0.2.80' is given twice",
        ),
        (
            "addresses=224.0.0.18",
            "addresses '224.0.0.18' cannot be the address of a node",
        ),
        (
            "interface=e,vrid=1,addresses=192.0.2.80,2001:db8::1",
            "addresses '2001:db8::1' is not IPv4 like 192.0.2.80",
        ),
        (
            "interface=e,vrid=1,addresses=192.0.2.80,peers=2001:db8::1",
            "peers '2001:db8::1' is not IPv4",
        ),
        (
            "interface=e,vrid=1,addresses=192.0.2.80,source=192.0.2.1,peers=192.0.2.1",
            "peers '192.0.2.1' is this node's own",
        ),
        (
            "track=fastpth",
            "track 'fastpth' is not known: use fastpath, rule, interface, script or file; did you mean 'fastpath'?",
        ),
        (
            "track=fastpath:254",
            "track 'fastpath:254' has a weight that is no number from -253 to 253",
        ),
        (
            "track=script:ok",
            "track 'script:ok' names no absolute path",
        ),
        (
            "track=fastpath,fastpath:3",
            "track 'fastpath:3' is given twice",
        ),
        ("notify=tell", "notify 'tell' is no absolute path"),
        (
            "announce-interval=0.5",
            "announce-interval '0.5' is too short",
        ),
        ("vrid=1,vrid=2", "key 'vrid' is given twice"),
        ("vird=1", "did you mean 'vrid'?"),
        ("eth0", "setting 'eth0' is not key=value"),
    ] {
        let told = said(text).expect_err(text);
        assert!(
            told.contains(message),
            "given {text}, then {message}, not {told}"
        );
    }
}

#[test]
fn an_amendment_keeps_the_rest_and_nothing_is_the_default() {
    let old = said("interface=eth0,vrid=51,addresses=192.0.2.80,priority=150,track=none").unwrap();
    let mut settings = VrrpSettings::default();
    settings.parse("priority=,interval=0.1").unwrap();
    let new = settings.amend(&old).unwrap();
    assert_eq!((new.priority, new.interval), (100, 10));
    assert!(new.track.is_empty() && new.vrid == 51);
}
