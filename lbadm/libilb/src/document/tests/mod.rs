//! What documents mean, what they do to a configuration, and what is said about bad ones.

mod laws;

use super::*;
use crate::model::{Configuration, RuleSettings, Topology};
use crate::port::PortRange;
use crate::rule::{Protocol, Timeout, Tunnel};
use crate::tunnel::TunnelChecksum;

const SAMPLE: &str = include_str!("../../../../../packaging/examples/web.toml");

fn planned(text: &str, present: &Configuration) -> Plan {
    plan(text, present, false).unwrap_or_else(|mistakes| panic!("{}", mistakes.render("text")))
}

fn merged(text: &str, present: &Configuration) -> Plan {
    plan(text, present, true).unwrap_or_else(|mistakes| panic!("{}", mistakes.render("text")))
}

fn made(text: &str) -> Configuration {
    let plan = planned(text, &Configuration::default());
    plan.configuration.validate().unwrap();
    plan.configuration
}

fn mistakes(text: &str) -> String {
    let refused = plan(text, &Configuration::default(), false);
    refused.expect_err("it is wrong").render("x.toml")
}

/// A group and a rule; `more` comes behind the rule.
fn with(more: &str) -> String {
    format!(
        "[group.web]\nservers = [\"10.0.0.1\", \"10.0.0.2:8080\"]\n\n[rule.www]\nvip = \"192.0.2.10\"\nport = 80\n\
         algorithm = \"wlc\"\ntopology = \"HALF-NAT\"\ngroup = \"web\"\n{more}"
    )
}

#[test]
fn the_sample_means_what_it_says() {
    let c = made(SAMPLE);
    assert_eq!(c.rules.len(), 3);
    let www = c.rule("www").unwrap();
    assert!(www.enabled && www.manage_addresses);
    assert_eq!(www.persistence.unwrap().mask, 24);
    assert_eq!(www.persistence.unwrap().timeout, 300);
    assert_eq!(www.timeouts[&Timeout::FinWait], 20);
    let web = c.group("web").unwrap();
    assert_eq!(web.servers.len(), 4);
    assert_eq!(
        web.servers[2].host_name.as_deref(),
        Some("web3.example.org")
    );
    assert_eq!(
        (web.servers[2].weight, web.servers[2].max_connections),
        (3, 1000)
    );
    assert!(!web.servers[3].enabled);
    let dns = c.rule("dns").unwrap();
    assert_eq!(dns.vips.column(|vip| vip.protocol), "udp,tcp");
    let far = c.rule("far").unwrap();
    let checksum = TunnelChecksum::Remote;
    assert_eq!(
        far.tunnel,
        Some(Tunnel::Gue {
            port: 6080,
            checksum
        })
    );
    assert_eq!(far.topology, Topology::Tun);
}

#[test]
fn json_says_the_same() {
    let document = Document::parse(SAMPLE).unwrap();
    let json = serde_json::to_string_pretty(&document).unwrap();
    let read = Document::parse(&json).unwrap();
    assert_eq!(read.to_toml(), document.to_toml());
    let by_serde: Document = serde_json::from_str(&json).unwrap();
    assert_eq!(by_serde, read);
    let c = planned(&json, &Configuration::default()).configuration;
    assert_eq!(to_toml(&c), to_toml(&made(SAMPLE)));
    let wrong: Result<Document, _> = serde_json::from_str(r#"{"rule": {"www": {"prt": 80}}}"#);
    assert!(
        wrong
            .unwrap_err()
            .to_string()
            .contains("did you mean 'port'?")
    );
}

#[test]
fn keys_have_the_aliases_of_lbadm_and_any_case() {
    let a = made(&with("pmask = 32\nclients = [\"10.0.0.0/8\"]"));
    let b = made(
        "[SERVERGROUP.web]\nServer = [\"10.0.0.1\", { IP = \"10.0.0.2\", ports = \"8080\" }]\n\
         [rl.www]\nVIP = \"192.0.2.10\"\nPorts = \"80\"\nPROT = \"TCP\"\nlbalg = \"WLC\"\ntype = \"h\"\nsg = \"WEB\"\n\
         Persistence = true\nsrc = \"10.0.0.0/8\"",
    );
    assert_eq!(a, b);
}

#[test]
fn addresses_ports_and_protocols_are_combined() {
    let c = made(
        "[group.g]\nservers = [\"10.0.0.1\"]\n\
         [rule.all]\nvip = [\"192.0.2.1\", \"192.0.2.2\"]\nport = [53, \"853-854\"]\nprotocol = [\"udp\", \"tcp\"]\n\
         lbalg = \"rr\"\ntype = \"DSR\"\ngroup = \"g\"\n\
         [rule.some]\nvips = [{ vip = \"192.0.2.3\", port = 80 }, { vip = \"192.0.2.3\", protocol = \"icmp\" }]\n\
         lbalg = \"rr\"\ntype = \"DSR\"\ngroup = \"g\"\n",
    );
    let all = c.rule("all").unwrap();
    assert_eq!(all.vips.len(), 8);
    assert_eq!(all.vips[3].to_string(), "192.0.2.1 tcp port 853-854");
    let some = c.rule("some").unwrap();
    assert_eq!(some.vips[1].protocol, Protocol::Icmp);
    assert_eq!(some.vips[1].ports, PortRange::ANY);
    // And are written as they were.
    let text = to_toml(&c);
    assert!(text.contains("vip = [\"192.0.2.1\", \"192.0.2.2\"]\nport = [53, \"853-854\"]\nprotocol = [\"udp\", \"tcp\"]\n"), "{text}");
    assert!(text.contains("vips = [{ vip = \"192.0.2.3\", port = 80 }, { vip = \"192.0.2.3\", protocol = \"icmp\" }]\n"), "{text}");
    assert_eq!(made(&text), c);
}

#[test]
fn times_have_units() {
    for (text, expected) in [
        ("90", Some(90)),
        ("90s", Some(90)),
        (" 5m ", Some(300)),
        ("1h", Some(3600)),
        ("", None),
        ("m", None),
        ("1d", None),
        ("-1s", None),
        ("+1s", None),
        ("2000000h", None),
        ("1.5m", None),
        ("5µ", None),
    ] {
        assert_eq!(seconds(text), expected, "{text:?}");
    }
    let rule = made(&with("conn-drain = \"5m\"\nslow-start = 30"));
    assert_eq!(rule.rule("www").unwrap().conn_drain, 300);
}

#[test]
fn what_is_the_same_is_not_touched() {
    let before = made(SAMPLE);
    // Other order, other case, servers in another order, a comment.
    let text = SAMPLE.replace("[rule.www]", "# moved\n[rule.WWW]");
    let plan = planned(&text, &before);
    assert!(plan.report.is_empty(), "{}", plan.report);
    assert_eq!(plan.configuration, before);
    assert!(plan.configuration.rules.is_copy_of(&before.rules));
    assert!(plan.configuration.groups.is_copy_of(&before.groups));
    assert_eq!(plan.report.unchanged.rules, 3);
    assert_eq!(plan.report.unchanged.servers, 6);
}

#[test]
fn a_document_is_the_whole() {
    let before = made(&with(""));
    let text = "[group.web]\nservers = [\"10.0.0.3\", { address = \"10.0.0.2:8080\", weight = 5 }]\n\
                [group.new]\nservers = []\n[rule.other]\nvip = \"192.0.2.10\"\nport = 80\nlbalg = \"rr\"\ntype = \"h\"\n\
                group = \"web\"";
    let plan = planned(text, &before);
    plan.configuration.validate().unwrap();
    assert_eq!(
        plan.report.to_string(),
        "~ group web\n\
         +   server _web.2: 10.0.0.3\n\
         ~   server _web.1: weight default → 5\n\
         -   server _web.0: 10.0.0.1\n\
         + group new\n\
         - rule www: vip 192.0.2.10, port 80, algorithm wlc, topology HALF-NAT, group web\n\
         + rule other: vip 192.0.2.10, port 80, algorithm roundrobin, topology HALF-NAT, group web\n"
    );
    let ids: Vec<_> = plan
        .configuration
        .group("web")
        .unwrap()
        .servers
        .iter()
        .map(|s| s.id.clone())
        .collect();
    assert_eq!(ids, ["_web.1", "_web.2"]);
    assert_eq!(plan.configuration.rule("other").unwrap().number, 2);
}

#[test]
fn merged_a_document_changes_only_what_it_names() {
    let before = made(&with("pmask = 24\npersist-timeout = 9\n"));
    let plan = merged(
        "[rule.www]\nenabled = false\nconn-drain = 7\n[group.web]\nservers = [{ address = \"10.0.0.1\", weight = 0 }, \"10.0.0.9\"]",
        &before,
    );
    plan.configuration.validate().unwrap();
    assert_eq!(
        plan.report.to_string(),
        "~ group web\n\
         ~   server _web.0: weight default → 0\n\
         +   server _web.2: 10.0.0.9\n\
         ~ rule www: enabled default → false, conn-drain default → 7\n"
    );
    let www = plan.configuration.rule("www").unwrap();
    assert_eq!((www.number, www.persistence.unwrap().timeout), (1, 9));
    assert_eq!(plan.report.unchanged.servers, 1);
    // What belongs to a word that changes is not taken over.
    let tun = "[rule.www]\ntopology = \"TUN\"\nproxy-src = \"192.0.2.90\"\n[group.web]\nservers=[]";
    let refused = super::plan(tun, &before, true)
        .expect_err("a server has a port")
        .render("x");
    assert!(refused.contains("its port is 8080"), "{refused}");
    let none = merged("[rule.www]\npmask = false", &before);
    assert_eq!(none.configuration.rule("www").unwrap().persistence, None);
    assert!(merged("", &before).report.is_empty());
}

#[test]
fn a_rule_whose_connections_depend_on_the_change_is_made_anew() {
    let before = made(&with(""));
    for (old, new, anew) in [
        ("port = 80", "port = 81", true),
        (
            "vip = \"192.0.2.10\"",
            "vip = [\"192.0.2.10\", \"192.0.2.11\"]",
            true,
        ),
        ("algorithm = \"wlc\"", "algorithm = \"rr\"", false),
        (
            "group = \"web\"\n",
            "group = \"web\"\nslow-start = 5\n",
            false,
        ),
    ] {
        let text = with("").replace(old, new);
        let plan = planned(&text, &before);
        let number = plan.configuration.rule("www").unwrap().number;
        assert_eq!(
            (number == 2, plan.report.changes[0].anew),
            (anew, anew),
            "{new}"
        );
        assert_eq!(plan.report.changes.len(), 1, "{}", plan.report);
    }
}

#[test]
fn ids_are_kept_asked_for_and_never_given_twice() {
    let mut c = made("[group.web]\nservers = [\"10.0.0.1-10.0.0.3\"]");
    c.remove_servers("web", &["_web.1"]).unwrap();
    let text = to_toml(&c);
    assert_eq!(
        text,
        "[group.web]\nservers = [\n    \"10.0.0.1\",\n    { address = \"10.0.0.3\", id = \"_web.2\", place = \"2/3\" },\n]\n"
    );
    let fresh = made(&text);
    let ids = |c: &Configuration| {
        c.group("web")
            .unwrap()
            .servers
            .iter()
            .map(|s| s.id.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&fresh), ids(&c));
    assert_eq!(
        fresh.group("web").unwrap().servers[1].place,
        2,
        "its place is kept, too"
    );
    assert_eq!(fresh.group("web").unwrap().next_index, 3);
    // An id that was given once is not given again.
    let back = planned(
        "[group.web]\nservers = [\"10.0.0.1\", { address = \"10.0.0.2\", id = \"_web.1\" }, \"10.0.0.3\"]",
        &c,
    );
    assert_eq!(
        back.configuration.group("web").unwrap().servers[2].id,
        "_web.3"
    );
    assert_eq!(
        back.report.notes,
        [
            "server 10.0.0.2 gets the id _web.3: _web.1 was asked for, and is not free in group 'web'"
        ]
    );
    let other = planned(
        "[group.web]\nservers = [{ address = \"10.0.0.1\", id = \"_web.7\" }, \"10.0.0.3\"]",
        &c,
    );
    assert!(other.report.is_empty());
    assert_eq!(
        other.report.notes,
        ["server 10.0.0.1 keeps its id _web.0: _web.7 was asked for"]
    );
}

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let text = "\
[group.web]
servers = [\"10.0.0.1:80\", \"10.0.0.1:80\", \"10.0.0.300\", { adress = \"10.0.0.4\" }]

[rule.www]
vip = \"localhost\"
prot = \"tpc\"
port = 80
lbalg = \"roundrobbin\"
algorithm = \"rr\"
type = \"HALF-NAT\"
group = \"web\"
persist-timeout = \"soon\"

[rule.empty]

[rule.six]
vip = \"2001:db8::1\"
port = 80
algorithm = \"rr\"
topology = \"HALF-NAT\"
group = \"wbe\"
proxy-src = \"192.0.2.9\"

[role.x]
";
    let expected = include_str!("mistakes.txt");
    let told = mistakes(text);
    assert_eq!(told, expected, "it is now:\n{told}");
}

#[test]
fn mistakes_between_items_stand_where_the_document_says_them() {
    let text = with(
        "[rule.too]\nvip = \"192.0.2.10\"\nport = 80\nlbalg = \"rr\"\ntype = \"DSR\"\ngroup = \"web\"\n",
    );
    let told = mistakes(&text);
    assert!(
        told.contains("rule 'too' would claim 192.0.2.10 tcp port 80, which rule 'www' has"),
        "{told}"
    );
    assert!(told.contains("--> x.toml:11:7"), "{told}");
    assert!(told.contains("its port is 8080, but with DSR"), "{told}");
    assert!(told.contains("--> x.toml:2:24\n"), "{told}");
    assert!(told.ends_with("x.toml: 2 mistakes\n"), "{told}");
}

#[test]
fn a_text_that_is_neither_toml_nor_json_is_told_where() {
    let told = mistakes("[rule.www\nvip = 1\n");
    assert!(
        told.contains("error: not TOML: ") && told.contains("--> x.toml:1:"),
        "{told}"
    );
    let told = mistakes("{\n  \"rule\": { \"www\": { \"port\": 80, } }\n}");
    assert!(
        told.contains("error: not JSON: ") && told.contains("--> x.toml:2:"),
        "{told}"
    );
    let told = mistakes("{\"group\": {\"a\": {}, \"a\": {}}}");
    assert!(told.contains("duplicate key \"a\""), "{told}");
    let told = mistakes(&with("port = 81"));
    assert!(told.contains("not TOML") && told.contains("10:1"), "{told}");
}

#[test]
fn long_lines_and_control_characters_do_no_harm() {
    let servers = vec!["\"10.0.0.1\""; 200].join(", ");
    let text = format!("[group.web]\nservers = [{servers}, \"\\u001b[2J\"]");
    let told = mistakes(&text);
    assert!(
        told.lines().all(|line| line.chars().count() < 200),
        "{told}"
    );
    assert!(!told.contains('\x1b'));
    assert!(
        told.ends_with("x.toml: 200 mistakes, of which 100 are not shown\n"),
        "{told}"
    );
}

#[test]
fn what_has_no_place_is_kept_and_told() {
    let text = with("[kept.outer]\ninterface = \"eth0\"\npriority = 100\ntrack = [\"eth1\"]\n");
    let plan = planned(&text, &Configuration::default());
    assert!(plan.report.notes[0].starts_with("kept is what an importer found"));
    let document = Document::parse(&text).unwrap();
    let again = Document::parse(&document.to_toml()).unwrap();
    assert_eq!(again, document);
    assert!(
        document
            .to_toml()
            .ends_with("[kept.outer]\ninterface = \"eth0\"\npriority = 100\ntrack = [\"eth1\"]\n")
    );
}

#[test]
fn instances_are_made_changed_and_removed() {
    let text = "[vrrp.outer]\ninterface = \"eth0\"\nvrid = 51\naddresses = [\"192.0.2.80\"]\npriority = 150\n\
                interval = \"0.1\"\npreempt = false\npreempt-delay = 3\ntrack = []\n";
    let made = planned(text, &Configuration::default());
    assert_eq!(made.report.names_of(Action::Created, Item::Vrrp), ["outer"]);
    let instance = made.configuration.instance("OUTER").unwrap();
    assert_eq!(
        (instance.interval, instance.priority, instance.preempt),
        (10, 150, false)
    );
    assert!(instance.track.is_empty());
    assert_eq!(crate::document::to_toml(&made.configuration), text);
    let again = planned(text, &made.configuration);
    assert!(again.report.is_empty() && again.report.unchanged.vrrp == 1);

    let other = text.replace("150", "90");
    let changed = planned(&other, &made.configuration);
    assert_eq!(
        changed.report.to_string(),
        "~ vrrp outer: priority 150 → 90\n"
    );
    let gone = planned("", &made.configuration);
    assert_eq!(gone.report.names_of(Action::Removed, Item::Vrrp), ["outer"]);
    assert!(gone.configuration.vrrp.is_empty());
    let merged = Document::parse("[vrrp.outer]\npriority = 90\n").unwrap();
    let merged = merged.plan(&made.configuration, true).unwrap();
    assert_eq!(merged.configuration, changed.configuration);

    let twice = text.replace("outer", "inner");
    let told = mistakes(&format!("{text}{twice}"));
    assert!(
        told.contains("both are vrid 51 on interface eth0; give it another vrid"),
        "{told}"
    );
    let told = mistakes(&text.replace("vrid = 51", "vrid = 0").replace("true", "{}"));
    assert!(told.contains("vrid '0' is out of range"), "{told}");
}

#[test]
fn a_host_name_has_to_be_resolved() {
    let told = mistakes("[group.web]\nservers = [\"web1.example.org:80\"]");
    assert!(
        told.contains("server 'web1.example.org:80' is a host name that was not resolved"),
        "{told}"
    );
    let c = made("[group.web]\nservers = [\"web1.example.org=10.0.0.1:80\"]");
    assert_eq!(
        to_toml(&c),
        "[group.web]\nservers = [\n    { address = \"10.0.0.1:80\", host = \"web1.example.org\" },\n]\n"
    );
}

#[test]
fn what_lbadm_creates_a_document_says() {
    let mut c = Configuration::default();
    c.create_group("web", &["192.0.2.11", "back=192.0.2.12:8080,weight=3"])
        .unwrap();
    let settings = RuleSettings {
        vip: "192.0.2.80".into(),
        port: "80".into(),
        algorithm: "mh".into(),
        flags: vec!["mh-port".into(), "mh-fallback".into()],
        topology: "n".into(),
        proxy_src: vec!["192.0.2.90-192.0.2.91".into()],
        servergroup: "web".into(),
        pmask: Some("24".into()),
        orphans: Some("reset".into()),
        sync: Some("off".into()),
        ..RuleSettings::default()
    };
    c.create_rule("w.w.w", &settings).unwrap();
    assert_eq!(
        to_toml(&c),
        "[group.web]\nservers = [\n    \"192.0.2.11\",\n    { address = \"192.0.2.12:8080\", host = \"back\", weight = 3 },\n]\n\n\
         [rule.\"w.w.w\"]\nenabled = false\nvip = \"192.0.2.80\"\nport = 80\nalgorithm = \"mh\"\n\
         flags = [\"mh-fallback\", \"mh-port\"]\ntopology = \"NAT\"\nproxy-src = [\"192.0.2.90\", \"192.0.2.91\"]\n\
         group = \"web\"\npmask = 24\npersist-timeout = 60\norphans = \"reset\"\nsync = \"off\"\n"
    );
    assert_eq!(made(&to_toml(&c)), c);
}

#[test]
fn health_checks_are_read_and_written() {
    let text = "\
[healthcheck.page]
test = \"https\"
timeout = 2
interval = \"500ms\"
ping = false
port = 8443
urls = [{ path = \"/health\", status = \"200-204\" }]
host = \"www.example.org\"

[healthcheck.script]
test = \"/usr/lib/check me\"
arguments = [\"-x\", \"a,b\"]

[rule.www]
healthcheck = \"page\"
healthcheck-port = \"any\"
";
    let document = Document::parse(text).unwrap();
    assert_eq!(document.checks.len(), 2);
    let page = document.checks[0].settings.check("page").unwrap();
    assert_eq!(page.test.kind(), crate::healthcheck::Kind::Https);
    assert_eq!(page.timing.interval.to_string(), "0.5");
    let again = Document::parse(&document.to_toml()).unwrap();
    assert_eq!(again.checks, document.checks);
    assert_eq!(again.rules, document.rules);
    assert_eq!(again.to_toml(), document.to_toml());
    let aliases =
        Document::parse("[HC.page]\nhc-test = \"http\"\nhc-tout = \"1s\"\nurl = \"/\"\n").unwrap();
    assert_eq!(
        aliases.checks[0]
            .settings
            .check("page")
            .unwrap()
            .timing
            .timeout
            .to_string(),
        "1"
    );
}

#[test]
fn mistakes_in_health_checks_have_their_places() {
    let text = "[healthcheck.a]\ntest = \"tpc\"\ntimeout = \"soon\"\ncount = \"x\"\nintervall = 3\nstatus = 200\nping = \"yes\"\n";
    let refused = Document::parse(text).unwrap_err();
    let told: Vec<String> = refused
        .list
        .iter()
        .map(|m| format!("{}:{} {}", m.line.unwrap(), m.column.unwrap(), m.message))
        .collect();
    assert!(
        told[0].starts_with("3:11 timeout 'soon' is not a time: "),
        "{told:#?}"
    );
    assert_eq!(told[1], "4:9 count 'x' is not allowed: use a whole number");
    assert!(
        told[2].starts_with("5:1 key 'intervall' is not known: use test, timeout"),
        "{told:#?}"
    );
    assert!(told[2].ends_with("; did you mean 'interval'?"), "{told:#?}");
    assert!(
        told[3].contains("it stands with a page: urls = [{ path = \"/\", status = … }]"),
        "{told:#?}"
    );
    assert_eq!(told[4], "7:8 ping 'yes' is not allowed: use true or false");
    assert_eq!(told.len(), 5);
    let told = mistakes("[healthcheck.a]\ntest = \"tpc\"\n");
    assert!(
        told.contains("x.toml:2:8") && told.contains("did you mean 'tcp'?"),
        "{told}"
    );
}

#[test]
fn a_group_that_finds_its_servers_is_not_told_whom() {
    let text = "[group.web]\nservers = [\"10.0.0.1\", { address = \"10.0.0.2:80\", found = true }]\n\
                source = { dns = \"app.example.com\", port = 80, hold = \"2m\", resolver = [\"10.0.0.53\", \"10.0.0.54\"], except = \"10.0.0.9\" }\n";
    let before = made(text);
    let group = before.group("web").unwrap();
    let words =
        "dns=app.example.com,port=80,hold=120,resolver=10.0.0.53,10.0.0.54,except=10.0.0.9/32";
    assert_eq!(group.source.as_ref().unwrap().words(), words);
    let marks: Vec<bool> = group.servers.iter().map(|server| server.found).collect();
    assert_eq!(marks, [false, true]);
    // What it says of itself makes the same, in a node that has it and in one that has nothing.
    let own = Document::of(&before).to_toml();
    assert_eq!(planned(&own, &before).report.to_string(), "");
    assert_eq!(made(&own), before);
    // Whom it has found since stays; whom it has let go does not come back.
    let found = crate::source::Found {
        address: "10.0.0.3".parse().unwrap(),
        ports: None,
        weight: None,
        host_name: None,
    };
    let mut later = before.clone();
    later.follow("web", &[found], &[2]).unwrap();
    let plan = planned(text, &later);
    assert_eq!(plan.report.to_string(), "");
    assert_eq!(plan.configuration, later);
    // Another source is a change; without one, whom it has found goes as any other that is not named.
    let other = "[group.web]\nservers = [\"10.0.0.1\"]\nsource = { subnet = \"10.0.0.0/28\" }\n";
    assert_eq!(
        planned(other, &later).report.to_string(),
        "~ group web: subnet default → 10.0.0.0/28, dns app.example.com → default, port 80 → default, hold 120 → default, \
         resolver 10.0.0.53, 10.0.0.54 → default, except 10.0.0.9/32 → default\n"
    );
    let none = "[group.web]\nservers = [\"10.0.0.1\"]\n";
    let plan = planned(none, &later);
    assert!(plan.configuration.group("web").unwrap().source.is_none());
    assert_eq!(plan.configuration.group("web").unwrap().servers.len(), 1);
    // Merged, what is not said stays.
    let plan = merged(
        "[group.web]\nservers = [\"10.0.0.8\"]\nsource = { hold = 7 }\n",
        &later,
    );
    let group = plan.configuration.group("web").unwrap().clone();
    assert_eq!(
        group.source.as_ref().unwrap().words(),
        words.replace("120", "7")
    );
    assert_eq!(group.servers.len(), 3);
    let told = mistakes(
        "[group.a]\nsource = { dns = \"192.0.2.1\", limt = 3 }\n[group.b]\nsource = \"app\"\n\
         [group.c]\nsource = { subnet = \"10.0.0.0/8\", rate = 500 }\n[group.d]\nsource = { port = 80 }\n",
    );
    for expected in [
        "dns '192.0.2.1' is an address",
        "group.a.source.dns",
        "key 'limt' is not known",
        "did you mean 'limit'?",
        "source is 'app': write { dns = ",
        "subnet '10.0.0.0/8' has more than 1024 addresses",
        "rate '500' is out of range: use 1 to 50",
        "dns or subnet is missing",
        "group.d.source",
    ] {
        assert!(told.contains(expected), "{expected}:\n{told}");
    }
}
