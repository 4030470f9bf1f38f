//! Health checks as text, TOML, JSON and D-Bus: one vocabulary, one meaning.

use std::collections::HashMap;

use proptest::prelude::*;
use zbus::OwnedVariant;

use super::*;

fn said(text: &str) -> HealthCheckSettings {
    let mut settings = HealthCheckSettings::default();
    settings.parse(text).unwrap();
    settings
}

fn check(text: &str) -> HealthCheck {
    said(text).check("c").unwrap()
}

fn refusal(text: &str) -> String {
    let mut settings = HealthCheckSettings::default();
    let error = settings.parse(text).and_then(|()| settings.check("c"));
    error.unwrap_err().to_string()
}

/// One of each kind, with everything that it can have.
const EVERYTHING: &[&str] = &[
    "hc-test=ping,hc-timeout=500ms,hc-interval=2,hc-jitter=0",
    "hc-test=tcp,hc-port=any,hc-address=192.0.2.7,hc-source=192.0.2.1,hc-ping=no,hc-alpha=yes",
    "test=tcp,count=5,rise=2,retries=1,retry-delay=0.25,warm-up=10,port=8080,source=2001:db8::1",
    "hc-test=udp",
    "hc-test=udp,hc-payload=PING\\r\\n,hc-reply=+PONG",
    "hc-test=udp,hc-payload=0x00ff,hc-reply=0x8?ff",
    "hc-test=udp,hc-payload=a\\,b,hc-reply=any",
    "hc-test=http",
    "hc-test=http,hc-host=a.example,hc-url=/a?b=c,hc-status=200-299,301,hc-url=/d,hc-host=b.example,hc-regex=^ok\\,\\d{1\\,3}",
    "hc-test=http,hc-digest=d41d8cd98f00b204e9800998ecf8427e,hc-url=/x,hc-regex=down,hc-regex-no-match=yes",
    "hc-test=https,hc-sni=a.example,hc-verify=yes,hc-ca-file=/etc/ca.pem,hc-url=/,hc-digest=\
     e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "hc-test=dns,hc-query=www.example.com,hc-type=a,hc-answer=192.0.2.1",
    "hc-test=dns",
    "hc-test=smtp,hc-helo=balancer.example",
    "hc-test=/usr/local/bin/check",
    "hc-test=script,hc-path=/bin/check,hc-contract=exit-code,hc-weight=yes,hc-arg=-v,hc-arg=a\\,b",
    "hc-test=file,hc-path=/run/load,hc-weight=yes",
];

#[test]
fn what_ilbadm_says_means_what_it_meant() {
    // given
    let check = check("HC-TEST=tcp,hc-tout=5,hc-count=3,hc-intl=30");
    // then
    assert_eq!(check.test, Test::Tcp);
    assert_eq!(check.timing, Timing::default());
    assert_eq!(check.timing.quick_retries(), 2);
    assert!(check.ping && !check.alpha && check.port.is_none());

    let script = Script {
        path: "/opt/my check".to_string(),
        arguments: Vec::new(),
        contract: Contract::Ilbadm,
        weight: false,
    };
    let read = self::check("hc-test=/opt/my check");
    assert_eq!(read.test, Test::Script(script));
    assert_eq!(read.test.to_string(), "/opt/my check");
    assert!(!self::check("hc-test=ping").ping, "a ping before a ping");
}

#[test]
fn urls_have_what_stands_behind_them() {
    let Test::Http(http) = check(EVERYTHING[8]).test else {
        panic!("no http");
    };
    assert_eq!(http.host.as_deref(), Some("a.example"));
    let [first, second] = &http.urls[..] else {
        panic!("{:?}", http.urls);
    };
    assert_eq!(first.path, "/a?b=c");
    assert!([200, 299, 301].iter().all(|s| first.status.contains(*s)));
    assert!(![199, 300, 302].iter().any(|s| first.status.contains(*s)));
    assert_eq!(second.host.as_deref(), Some("b.example"));
    let regex = second.regex.as_ref().unwrap();
    assert_eq!(regex.to_string(), "^ok,\\d{1,3}");
    assert!(regex.compile().unwrap().is_match(b"ok,17"));
}

#[test]
fn every_form_carries_everything() {
    for text in EVERYTHING {
        let settings = said(text);
        let check = settings.check("c").unwrap();
        let full = HealthCheckSettings::from(&check);

        let again = said(&settings.words());
        assert_eq!(again.check("c").unwrap(), check, "{text}");
        assert_eq!(said(&full.words()).check("c").unwrap(), check, "{text}");
        assert_eq!(full.clone().brief().check("c").unwrap(), check, "{text}");

        let json = serde_json::to_string(&check).unwrap();
        assert_eq!(
            serde_json::from_str::<HealthCheck>(&json).unwrap(),
            check,
            "{json}"
        );
        let toml = toml::to_string(&check).unwrap();
        assert_eq!(
            toml::from_str::<HealthCheck>(&toml).unwrap(),
            check,
            "{toml}"
        );

        for settings in [settings, HealthCheckSettings { name: None, ..full }] {
            let map: HashMap<String, OwnedVariant> = settings_to_dbus(&settings)
                .into_iter()
                .map(|(key, value)| {
                    let (_, signature) = HEALTH_CHECK_SETTINGS
                        .iter()
                        .find(|(k, _)| *k == key)
                        .unwrap();
                    assert_eq!(value.value_signature().to_string(), *signature, "{key}");
                    (key.to_string(), OwnedVariant::try_from(value).unwrap())
                })
                .collect();
            let read = settings_from_dbus(&map).unwrap();
            assert_eq!(read.check("c").unwrap(), check, "{text}");
        }
    }
}

#[test]
fn a_person_writes_toml() {
    let check: HealthCheck = toml::from_str(
        r#"
        name = "web"
        test = "https"
        interval = 2
        timeout = 0.5
        retry-delay = "100ms"
        port = 8443
        urls = ["/health", { path = "/deep", status = 204 }]
        "#,
    )
    .unwrap();
    assert_eq!(check.timing.timeout.millis(), 500);
    assert_eq!(check.timing.retry_delay.millis(), 100);
    assert_eq!(check.port, Some(CheckPort::Number(8443)));
    let Test::Https(http, tls) = &check.test else {
        panic!("{:?}", check.test);
    };
    assert!(!tls.verify);
    assert_eq!(http.urls.len(), 2);
    assert!(http.urls[1].status.contains(204) && !http.urls[1].status.contains(200));
    let brief = HealthCheckSettings::from(&check).brief();
    let json = serde_json::to_value(&brief).unwrap();
    assert_eq!(json["timeout"], 0.5);
    assert_eq!(json["interval"], 2);
    assert!(json.get("count").is_none() && json.get("verify").is_none());
}

#[test]
fn mistakes_are_named() {
    for (text, expected) in [
        (
            "hc-test",
            "setting 'hc-test' is not key=value: write it like test=tcp,timeout=2",
        ),
        (
            "hc-test=tpc",
            "test 'tpc' is not known: use ping, tcp, udp, http, https, dns, smtp, script or file, or the \
          absolute path of a script; did you mean 'tcp'?",
        ),
        (
            "hc-count=3",
            "test is missing: say what is asked: ping, tcp, udp, http, https, dns, smtp, script or file, or \
          the absolute path of a script",
        ),
        (
            "hc-test=tcp,hc-test=udp",
            "key 'test' is given twice: give it once",
        ),
        (
            "hc-test=tcp,hc-timeout=0",
            "timeout '0' is out of range: use 0.001 to 3600 seconds",
        ),
        (
            "hc-test=tcp,hc-interval=0.009",
            "interval '0.009' is out of range: use 0.01 to 86400 seconds",
        ),
        (
            "hc-test=tcp,hc-count=0",
            "count '0' is out of range: use 1 to 255",
        ),
        (
            "hc-test=tcp,hc-rise=256",
            "rise '256' is out of range: use 1 to 255",
        ),
        (
            "hc-test=tcp,hc-jitter=51",
            "jitter '51' is out of range: use 0 to 50 percent",
        ),
        (
            "hc-test=tcp,hc-port=0",
            "port '0' is not a port: use a port from 1 to 65535, or ANY for any of the server's \
          ports",
        ),
        (
            "hc-test=ping,hc-port=1",
            "setting 'port' is given, but test is ping: it belongs to test=tcp, udp, http, https, \
          dns, smtp or script; leave it out",
        ),
        (
            "hc-test=tcp,hc-url=/",
            "setting 'url' is given, but test is tcp: it belongs to test=http or https; leave it out",
        ),
        (
            "hc-test=http,hc-verify=no",
            "setting 'verify' is given, but test is http: it belongs to test=https; leave it \
          out",
        ),
        (
            "hc-test=http,hc-url=health",
            "url 'health' does not begin with a slash: use path and query of the page, such \
          as /health, with %HH for what is no printable ASCII",
        ),
        (
            "hc-test=http,hc-status=20",
            "status '20' contains '20', which is no status: use statuses from 100 to 999 and \
          ranges of them, such as 200-299,301",
        ),
        (
            "hc-test=http,hc-status=299-200",
            "status '299-200' contains '299-200', which ends before it begins: use statuses \
          from 100 to 999 and ranges of them, such as 200-299,301",
        ),
        (
            "hc-test=http,hc-digest=abc",
            "digest 'abc' is not a digest: use 32 hexadecimal digits for MD5 or 64 for SHA-256",
        ),
        (
            "hc-test=http,hc-regex-no-match=yes",
            "regex-no-match 'yes' is given without regex: say what must not occur in \
          the body",
        ),
        (
            "hc-test=http,hc-host=a b",
            "host 'a b' contains ' ': use a host name such as www.example.com",
        ),
        (
            "hc-test=https,hc-ca-file=/ca",
            "ca-file '/ca' is given without verify=yes: give verify=yes too, or leave it out",
        ),
        (
            "hc-test=script",
            "path is missing: use an absolute path, such as /etc/ilb/check.sh",
        ),
        (
            "hc-test=bin/check",
            "test 'bin/check' is no absolute path: use an absolute path, such as /etc/ilb/check.sh",
        ),
        (
            "hc-test=/bin/check,hc-path=/bin/true",
            "path '/bin/true' is given, but test is /bin/check: give one of both",
        ),
        (
            "hc-test=/bin/check,hc-arg=x",
            "arguments 'x' cannot be given with contract ilbadm: give contract=exit-code too, \
          or leave it out",
        ),
        (
            "hc-test=/bin/check,hc-weight=yes",
            "weight 'yes' cannot be given with contract ilbadm: give contract=exit-code \
          too, or leave it out",
        ),
        (
            "hc-test=dns,hc-query=a..b",
            "query 'a..b' is not a name of the DNS: use a name such as www.example.com, or . for \
          the root",
        ),
        (
            "hc-test=dns,hc-type=B",
            "record-type 'B' is not known: use A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV or ANY",
        ),
        (
            "hc-test=tcp,hc-address=224.0.0.1",
            "address '224.0.0.1' is a multicast address: use a unicast address that other \
          hosts can reach",
        ),
        (
            "hc-test=tcp,hc-source=host",
            "source 'host' is not an IP address: use an address such as 192.0.2.1 or \
          2001:db8::1",
        ),
        (
            "hc-test=tcp,hc-source=::1,hc-address=127.0.0.1",
            "source '::1' is of another address family than address \
          127.0.0.1: use two addresses of one family",
        ),
        (
            "hc-test=tcp,hc-alpha=maybe",
            "alpha 'maybe' is neither yes nor no: use yes or no",
        ),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
    let error = refusal("hc-test=http,hc-regex=a(b");
    assert!(
        error.starts_with("regex 'a(b' is not a regular expression (unclosed group)"),
        "{error}"
    );
    let error = refusal("hc-test=http,hc-regex=(a{1000}){1000}");
    assert!(
        error.contains("is not a regular expression (Compiled regex exceeds size limit"),
        "{error}"
    );
    let error = refusal("hc-timout=3");
    assert!(
        error.starts_with("key 'hc-timout' is not known: use test, timeout (tout)"),
        "{error}"
    );
    assert!(error.ends_with("; did you mean 'timeout'?"), "{error}");
}

#[test]
fn a_document_hears_of_all_its_mistakes() {
    let error = toml::from_str::<HealthCheck>(
        "name = \"web\"\ntest = \"tcp\"\ncount = 0\ntimeout = 9999\nverify = true\nhelo = \"a b\"\n",
    )
    .unwrap_err()
    .to_string();
    for part in [
        "health check 'web': ",
        "timeout '9999' is out of range",
        "count '0' is out of range",
        "setting 'verify' is given, but test is tcp",
        "setting 'helo' is given, but test is tcp",
        "helo 'a b' contains ' '",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let unknown = toml::from_str::<HealthCheckSettings>("tset = \"tcp\"")
        .unwrap_err()
        .to_string();
    assert!(
        unknown.contains("unknown field `tset`, expected one of `name`, `test`"),
        "{unknown}"
    );
    let unknown = toml::from_str::<HealthCheckSettings>("urls = [{ path = \"/\", state = 1 }]");
    let unknown = unknown.unwrap_err().to_string();
    assert!(
        unknown.contains("unknown field `state`, expected one of `path`, `status`"),
        "{unknown}"
    );
    let strange = toml::from_str::<HealthCheckSettings>("timeout = true")
        .unwrap_err()
        .to_string();
    assert!(
        strange.contains("expected a time: use seconds such as 5"),
        "{strange}"
    );
}

#[test]
fn changes_keep_what_is_not_said() {
    let old = check("hc-test=http,hc-url=/a,hc-timeout=2,hc-source=192.0.2.1,hc-host=a.example");
    for (change, expected) in [
        (
            "hc-count=5",
            "hc-test=http,hc-url=/a,hc-timeout=2,hc-source=192.0.2.1,hc-host=a.example,hc-count=5",
        ),
        (
            "hc-source=",
            "hc-test=http,hc-url=/a,hc-timeout=2,hc-host=a.example",
        ),
        (
            "hc-url=/b",
            "hc-test=http,hc-url=/b,hc-timeout=2,hc-source=192.0.2.1,hc-host=a.example",
        ),
        (
            "hc-timeout=",
            "hc-test=http,hc-url=/a,hc-source=192.0.2.1,hc-host=a.example",
        ),
        (
            "hc-test=https,hc-verify=yes",
            "hc-test=https,hc-verify=yes,hc-url=/a,hc-timeout=2,hc-source=192.0.2.1,hc-host=a.example",
        ),
        (
            "hc-test=tcp",
            "hc-test=tcp,hc-timeout=2,hc-source=192.0.2.1",
        ),
        (
            "hc-test=/bin/x",
            "hc-test=/bin/x,hc-timeout=2,hc-source=192.0.2.1",
        ),
    ] {
        // The host is the last page's where it stands behind one; say it first.
        let sort = |text: &str| {
            let (first, rest): (Vec<&str>, Vec<&str>) = text
                .split(',')
                .partition(|item| !item.starts_with("hc-url"));
            check([first, rest].concat().join(",").as_str())
        };
        let old = sort(&old_words(&old));
        assert_eq!(
            said(change).amend(&old).unwrap(),
            sort(expected),
            "{change}"
        );
    }
    let script = check("hc-test=/bin/x");
    assert_eq!(
        said("hc-test=/bin/y").amend(&script).unwrap(),
        check("hc-test=/bin/y")
    );
    assert!(
        said("hc-verify=yes")
            .amend(&old)
            .unwrap_err()
            .to_string()
            .contains("test is http")
    );
    assert_eq!(said("hc-timeout=2").amend(&old).unwrap(), old);
}

fn old_words(check: &HealthCheck) -> String {
    let mut words = HealthCheckSettings::from(check).brief();
    words.name = None;
    for url in words.urls.iter_mut().flatten() {
        words.host = url.host.take().or(words.host.take());
    }
    words.words()
}

#[test]
fn dbus_refuses_what_it_does_not_know() {
    let refuse = |key: &str, value: zbus::Variant<'static>| {
        let map = HashMap::from([(key.to_string(), OwnedVariant::try_from(value).unwrap())]);
        settings_from_dbus(&map).unwrap_err().to_string()
    };
    let error = refuse("intervall", 3u32.into());
    assert!(error.ends_with("did you mean 'interval'?"), "{error}");
    assert_eq!(
        refuse("timeout", 3u32.into()),
        "setting 'timeout' has D-Bus type u: it has to be of type s"
    );
    assert_eq!(
        refuse("timeout", "soon".into()),
        "timeout 'soon' is not a time: use seconds such as 5 or 0.5, or a number with ms, s, m or h, such as 500ms"
    );
    let url = HashMap::from([("pth".to_string(), "/".to_string())]);
    let error = refuse("urls", vec![url].into());
    assert_eq!(
        error,
        "setting of a URL 'pth' is not known: use path, status, digest, regex, regex-no-match or host; did you mean 'path'?"
    );
}

#[test]
fn a_source_asks_its_own_family_only() {
    let check = check("hc-test=tcp,hc-source=192.0.2.1");
    assert!(check.check_server("192.0.2.9".parse().unwrap()).is_ok());
    assert_eq!(
        check
            .check_server("2001:db8::9".parse().unwrap())
            .unwrap_err()
            .to_string(),
        "source '192.0.2.1' cannot ask 2001:db8::9, which is of another address family: use a source of the servers' \
         family, or leave it out"
    );
}

proptest! {
    #[test]
    fn no_text_is_a_surprise(text in "(hc-[a-z-]{2,9}=\\PC{0,8},?){0,4}|\\PC{0,60}") {
        let mut settings = HealthCheckSettings::default();
        if settings.parse(&text).is_ok() {
            let _ = settings.check_all("c");
        }
    }

    #[test]
    fn a_combination_is_refused_or_survives_every_form(
        picks in prop::collection::vec((0..EVERYTHING.len(), 0..8usize), 1..6),
    ) {
        let mut settings = HealthCheckSettings::default();
        for (which, item) in picks {
            // Some items of some examples, together.
            if let Some((field, value)) = said(EVERYTHING[which]).pairs().get(item) {
                let _ = settings.set(*field, value);
            }
        }
        match settings.check_all("c") {
            Ok(check) => {
                let json = serde_json::to_string(&check).unwrap();
                prop_assert_eq!(&serde_json::from_str::<HealthCheck>(&json).unwrap(), &check);
                prop_assert_eq!(&said(&settings.words()).check("c").unwrap(), &check);
            }
            Err(errors) => prop_assert!(!errors.is_empty()),
        }
    }
}
