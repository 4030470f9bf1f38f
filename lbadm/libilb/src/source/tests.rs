use super::*;
use crate::model::{Configuration, RuleSettings};

fn said(text: &str) -> SourceSettings {
    let mut settings = SourceSettings::default();
    settings.parse(text).unwrap();
    settings
}

fn source(text: &str) -> Source {
    said(text).apply(None).unwrap().unwrap()
}

fn error(text: &str) -> String {
    let mut settings = SourceSettings::default();
    match settings.parse(text).and_then(|()| settings.apply(None)) {
        Ok(source) => panic!("{text}: {source:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_said_is_what_is_shown() {
    for text in [
        "dns=app.example.com",
        "dns=_http._tcp.example.com,limit=1024",
        "dns=app.example.com,port=8080,family=ipv6,approve=ask,limit=3,interval=1,max-interval=7,hold=0,resolver=192.0.2.53,[2001:db8::53]:5353,except=192.0.2.1/32,2001:db8::/64",
        "subnet=192.0.2.0/22,port=8080-8089,rate=50",
        "subnet=2001:db8::/118,approve=ask,interval=86400,hold=604800",
    ] {
        let text = text.replace("192.0.2.0/22", "192.0.0.0/22");
        let source = source(&text);
        assert_eq!(source.words(), text);
        assert_eq!(source.check(), Ok(()));
        let json = serde_json::to_string(&source).unwrap();
        assert_eq!(serde_json::from_str::<Source>(&json).unwrap(), source);
    }
    // Other spellings of the same.
    let other = source("DNS=App.Example.COM.,Port=http,interval=1m,except=192.0.2.1,approve=AUTO");
    let usual = source("dns=app.example.com,port=80,interval=60,except=192.0.2.1/32");
    assert_eq!(other, usual);
}

#[test]
fn defaults_depend_on_the_origin() {
    let seconds = |time: Time| time.millis() / 1000;
    let all = |text: &str| {
        let source = source(text);
        let times = [source.interval(), source.max_interval(), source.hold()];
        (times.map(seconds), source.limit, source.rate())
    };
    assert_eq!(all("dns=a.example.com"), ([5, 300, 30], 64, 4));
    assert_eq!(
        all("dns=a.example.com,interval=400"),
        ([400, 400, 30], 64, 4)
    );
    assert_eq!(all("subnet=192.0.2.0/28"), ([60, 300, 3600], 64, 4));
}

#[test]
fn mistakes_name_the_field_the_value_and_what_is_allowed() {
    for (text, expected) in [
        (
            "port=80",
            "dns or subnet is missing: say where servers are found",
        ),
        ("dns=", "dns is missing: write dns=VALUE"),
        (
            "dns=not a name",
            "dns 'not a name' is not a name: use a whole name",
        ),
        ("dns=-x.example.com", "dns '-x.example.com' is not a name"),
        (
            "dns=192.0.2.1",
            "dns '192.0.2.1' is an address: addresses do not change",
        ),
        ("dns=[2001:db8::1]", "is an address"),
        (
            "dns=a.example.com,subnet=192.0.2.0/28",
            "subnet '192.0.2.0/28' is given beside dns: a group follows a name or searches a subnet",
        ),
        (
            "dns=a.example.com,rate=3",
            "rate '3' is for subnets: leave it out with dns",
        ),
        (
            "subnet=192.0.2.0/28,resolver=192.0.2.53",
            "resolver '192.0.2.53' is for names",
        ),
        (
            "subnet=192.0.2.0/28,family=ipv4",
            "family 'ipv4' is for names",
        ),
        (
            "subnet=10.0.0.0/8",
            "subnet '10.0.0.0/8' has more than 1024 addresses: use /22 to /32 with IPv4",
        ),
        ("subnet=2001:db8::/64", "use /118 to /128 with IPv6"),
        (
            "subnet=192.0.2.1/28",
            "subnet '192.0.2.1/28' has bits set behind its length: write 192.0.2.0/28",
        ),
        ("subnet=web", "subnet 'web' is not a network"),
        (
            "subnet=127.0.0.0/28",
            "subnet '127.0.0.0/28' is a loopback address",
        ),
        ("subnet=224.0.0.0/28", "is a multicast address"),
        ("subnet=fe80::/120", "is a link-local address"),
        (
            "dns=a.example.com,limit=0",
            "limit '0' is out of range: use 1 to 1024",
        ),
        (
            "dns=a.example.com,limit=1025",
            "limit '1025' is out of range",
        ),
        (
            "dns=a.example.com,interval=0",
            "interval '0' is out of range: use 1 to 86400 seconds",
        ),
        (
            "dns=a.example.com,interval=soon",
            "interval 'soon' is not a time",
        ),
        (
            "dns=a.example.com,interval=10,max-interval=5",
            "max-interval '5' is shorter than interval 10",
        ),
        (
            "dns=a.example.com,approve=maybe",
            "approve 'maybe' is not a policy: use auto",
        ),
        (
            "dns=a.example.com,family=5",
            "family '5' is not a family: use ipv4, ipv6 or auto",
        ),
        (
            "dns=a.example.com,resolver=ns1",
            "resolver 'ns1' is not the address of a name server",
        ),
        (
            "dns=a.example.com,resolver=0.0.0.0",
            "is not the address of a name server",
        ),
        ("dns=a.example.com,except=b", "except 'b' is not a network"),
        ("dns=a.example.com,port=0", "port '0'"),
        ("dns=a.example.com,limt=3", "source key 'limt' is not known"),
        ("dns=a.example.com,limt=3", "did you mean 'limit'?"),
        (
            "dns=a.example.com,limit=3,limit=4",
            "limit '4' is given twice",
        ),
        ("dns=none,port=80", "port '80' is given for no source"),
        ("a.example.com", "source 'a.example.com' is not key=value"),
    ] {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    let many = vec!["192.0.2.1"; 17].join(",");
    let error = error(&format!("dns=a.example.com,except={many}"));
    assert!(
        error.contains("except '17' are too many: give at most 16"),
        "{error}"
    );
}

#[test]
fn a_change_says_what_is_different_and_keeps_the_rest() {
    let before = "dns=a.example.com,port=80,family=ipv4,hold=9,resolver=192.0.2.53";
    // (what is said, what comes of it)
    for (text, expected) in [
        (
            "hold=10",
            "dns=a.example.com,port=80,family=ipv4,hold=10,resolver=192.0.2.53",
        ),
        (
            "dns=b.example.com",
            "dns=b.example.com,port=80,family=ipv4,hold=9,resolver=192.0.2.53",
        ),
        (
            "resolver=none",
            "dns=a.example.com,port=80,family=ipv4,hold=9",
        ),
        (
            "family=auto,approve=ask",
            "dns=a.example.com,port=80,approve=ask,hold=9,resolver=192.0.2.53",
        ),
        // What is only for names goes with the name.
        (
            "subnet=192.0.2.0/28,rate=9",
            "subnet=192.0.2.0/28,port=80,rate=9",
        ),
    ] {
        let after = said(text).apply(Some(&source(before))).unwrap().unwrap();
        assert_eq!(after.words(), expected, "{text}");
    }
    assert_eq!(said("dns=none").apply(Some(&source(before))), Ok(None));
    assert_eq!(said("subnet=none").apply(None), Ok(None));
}

#[test]
fn hosts_of_a_subnet() {
    let hosts = |text: &str| {
        let hosts = source(&format!("subnet={text}")).hosts();
        let end = |host: Option<&IpAddr>| host.unwrap().to_string();
        (hosts.len(), end(hosts.first()), end(hosts.last()))
    };
    for (subnet, count, first, last) in [
        ("192.0.2.16/28", 14, "192.0.2.17", "192.0.2.30"),
        ("192.0.2.16/31", 2, "192.0.2.16", "192.0.2.17"),
        ("192.0.2.16/32", 1, "192.0.2.16", "192.0.2.16"),
        ("10.1.4.0/22", 1022, "10.1.4.1", "10.1.7.254"),
        ("2001:db8::100/120", 255, "2001:db8::101", "2001:db8::1ff"),
        ("2001:db8::400/118", 1023, "2001:db8::401", "2001:db8::7ff"),
    ] {
        assert_eq!(
            hosts(subnet),
            (count, first.into(), last.into()),
            "{subnet}"
        );
    }
    assert!(source("dns=a.example.com").hosts().is_empty());
}

fn found(address: &str) -> Found {
    Found {
        address: address.parse().unwrap(),
        ports: None,
        weight: None,
        host_name: Some("a.example.com".into()),
    }
}

#[test]
fn a_group_takes_in_what_fits_and_lets_go_what_its_source_gave() {
    let mut c = Configuration::default();
    c.create_group_from("web", &["192.0.2.1"], &said("dns=a.example.com"))
        .unwrap();
    let rule = RuleSettings {
        vip: "198.51.100.1".into(),
        port: "80".into(),
        algorithm: "rr".into(),
        topology: "h".into(),
        servergroup: "web".into(),
        ..RuleSettings::default()
    };
    c.create_rule("www", &rule).unwrap();
    let all = [
        found("192.0.2.2"),
        found("2001:db8::1"),
        found("192.0.2.1"),
        found("192.0.2.3"),
    ];
    let followed = c.follow("web", &all, &[]).unwrap();
    assert_eq!(followed.added, ["_web.1", "_web.2"]);
    let refused: Vec<_> = followed
        .refused
        .iter()
        .map(|r| r.address.to_string())
        .collect();
    assert_eq!(refused, ["2001:db8::1", "192.0.2.1"]);
    assert!(
        followed.refused[0].why.starts_with("does not fit: "),
        "{followed:?}"
    );
    let group = c.group("web").unwrap().clone();
    let marks: Vec<bool> = group.servers.iter().map(|server| server.found).collect();
    assert_eq!(marks, [false, true, true]);
    assert_eq!(c.validate(), Ok(()));
    // Whom somebody has added by hand the source does not take away.
    let followed = c.follow("web", &[], &[1, 2]).unwrap();
    assert_eq!(followed.removed, ["_web.1"]);
    assert_eq!(c.follow("web", &[], &[2]).unwrap(), Default::default());
    // An id is not given twice.
    assert_eq!(c.follow("web", &all[..1], &[]).unwrap().added, ["_web.3"]);
    assert_eq!(c.validate(), Ok(()));
    // Without a source they are like others.
    c.modify_group("web", &said("dns=none")).unwrap().unwrap();
    assert_eq!(c.modify_group("web", &said("dns=none")), Ok(None));
    let group = c.group("web").unwrap();
    assert!(group.source.is_none() && group.servers.iter().all(|server| !server.found));
    let error = c
        .modify_group("web", &said("subnet=2001:db8::/120"))
        .unwrap_err();
    assert!(
        error.to_string().contains("is IPv6, and rule 'www' is not"),
        "{error}"
    );
}
