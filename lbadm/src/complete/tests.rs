//! Command lines that are being typed, and what is offered.

use libilb::model::Configuration;

use super::*;
use crate::golden::history::history;

fn node() -> Description {
    let mut configuration = Configuration::default();
    configuration
        .create_group("web", &["192.0.2.11", "192.0.2.12"])
        .unwrap();
    configuration.create_group::<&str>("spare", &[]).unwrap();
    let mut check = libilb::healthcheck::HealthCheckSettings::default();
    check.parse("test=tcp").unwrap();
    configuration.create_check("page", &check).unwrap();
    let mut instance = libilb::vrrp::VrrpSettings::default();
    let said = "interface=eth0,vrid=51,addresses=192.0.2.90";
    instance.parse(said).unwrap();
    configuration.create_vrrp("front", &instance).unwrap();
    let settings = libilb::model::RuleSettings {
        vip: "192.0.2.80".into(),
        port: "80".into(),
        algorithm: "rr".into(),
        topology: "h".into(),
        servergroup: "web".into(),
        ..Default::default()
    };
    let rule = configuration.create_rule("www", &settings).unwrap();
    let text = serde_json::json!({
        "version": "", "generation": 1, "state": "ok", "fastpath": "absent",
        "rules": [{ "status": "disabled" }],
        "groups": [],
    });
    let mut text = text;
    let mut described = serde_json::json!(*rule);
    described["status"] = "disabled".into();
    text["rules"] = vec![described].into();
    let groups = configuration.groups.values().map(|group| {
        let servers = group.servers.iter().map(|server| {
            let mut server = serde_json::json!(server);
            server["status"] = "enabled".into();
            server
        });
        let mut said =
            serde_json::json!({ "name": group.name, "servers": servers.collect::<Vec<_>>() });
        if group.name == "spare" {
            said["source"] = serde_json::json!({
                "dns": "app.example.com",
                "candidates": [{
                    "address": "192.0.2.41",
                    "ports": { "first": 8080, "last": 8080 },
                    "since": 0,
                }],
            });
        }
        said
    });
    text["groups"] = groups.collect::<Vec<_>>().into();
    let checks = configuration.checks.values();
    let checks = checks.map(|check| serde_json::json!(**check));
    text["checks"] = checks.collect::<Vec<_>>().into();
    let instances = configuration.vrrp.values();
    let instances = instances.map(|instance| serde_json::json!(**instance));
    text["vrrp"] = instances.collect::<Vec<_>>().into();
    Description::from_json(&text.to_string()).unwrap()
}

/// (what is typed, what is offered; "…" for whatever comes behind)
const CASES: &[(&str, &[&str])] = &[
    ("lbadm create-r", &["create-rule"]),
    ("lbadm CREATE-R", &["create-rule"]),
    (
        "lbadm -j show-s",
        &["show-servergroup", "show-server", "show-statistics"],
    ),
    (
        "lbadm help modify-s",
        &["modify-servergroup", "modify-server"],
    ),
    ("lbadm modify-servergroup s", &["spare"]),
    ("lbadm create-servergroup -d d", &["dns="]),
    (
        "lbadm modify-servergroup -d hold=3,ap",
        &["hold=3,approve="],
    ),
    (
        "lbadm modify-servergroup -d hold=3,approve=a",
        &["hold=3,approve=auto", "hold=3,approve=ask"],
    ),
    ("lbadm modify-servergroup -d dns=", &["dns=none"]),
    (
        "lbadm approve-server -s server=",
        &["server=192.0.2.41:8080"],
    ),
    ("lbadm show-candidate s", &["spare"]),
    ("lbadm nosuch ", &[]),
    ("lbadm delete-rule ", &["www"]),
    (
        "lbadm create-rule -n ",
        &["up=", "down=", "quorum-up=", "quorum-down="],
    ),
    ("lbadm delete-rule www ", &["www"]),
    ("lbadm delete-rl W", &["www"]),
    ("lbadm delete-servergroup s", &["spare"]),
    ("lbadm modify-vrrp ", &["front"]),
    ("lbadm delete-vrrp f", &["front"]),
    ("lbadm pair ", &["create", "join", "leave", "acknowledge"]),
    ("lbadm pair create --a", &["--address"]),
    ("lbadm pair create --port 1 --", &["--address"]),
    ("lbadm pair join --r", &["--replace"]),
    ("lbadm pair leave ", &[]),
    ("lbadm show-pair -o ro", &["role"]),
    ("lbadm maintenance ", &["on", "off"]),
    ("lbadm failover --f", &["--force"]),
    ("lbadm disable-server _", &["_web.0", "_web.1"]),
    ("lbadm create-rule ", &[]),
    ("lbadm create-rule -i v", &["vip="]),
    (
        "lbadm create-rule -i vip=192.0.2.80,po",
        &["vip=192.0.2.80,port="],
    ),
    (
        "lbadm create-rule -i vip=192.0.2.80,port=80,p",
        &["vip=192.0.2.80,port=80,protocol="],
    ),
    (
        "lbadm create-rule -i protocol=",
        &[
            "protocol=tcp",
            "protocol=udp",
            "protocol=sctp",
            "protocol=icmp",
            "protocol=any",
        ],
    ),
    ("lbadm create-rule -i prot=t", &["prot=tcp"]),
    ("lbadm create-rule -m lbalg=ro", &["lbalg=roundrobin"]),
    (
        "lbadm create-rule -m lbalg=rr,type=H",
        &["lbalg=rr,type=HALF-NAT"],
    ),
    ("lbadm create-rule -e -o s", &["servergroup="]),
    (
        "lbadm create-rule -eo servergroup=",
        &["servergroup=spare", "servergroup=web"],
    ),
    ("lbadm remove-server -s server=_web.1", &["server=_web.1"]),
    ("lbadm remove-server -s server=_web.0 ", &["spare", "web"]),
    (
        "lbadm modify-server -s ",
        &["weight=", "max-conn=", "min-conn=", "tier="],
    ),
    (
        "lbadm modify-server -s weight=3,m",
        &["weight=3,max-conn=", "weight=3,min-conn="],
    ),
    ("lbadm modify-server -s weight=3 ", &["_web.0", "_web.1"]),
    ("lbadm show-rule -o ru", &["rulename"]),
    ("lbadm show-rule -p -o rulename,vi", &["rulename,vip"]),
    ("lbadm show-connections --st", &["--state"]),
    ("lbadm show-connections --state est", &["established"]),
    ("lbadm show-connections -r ", &["www"]),
    (
        "lbadm show-connections --state=established -s _web.1",
        &["_web.1"],
    ),
    ("lbadm explain s", &["server", "sctp"]),
    ("lbadm explain rule ", &["www"]),
    ("lbadm explain server ", &["_web.0", "_web.1"]),
    ("lbadm explain tcp ", &[]),
    (
        "lbadm monitor --only rule,serv",
        &["rule,servergroup", "rule,server"],
    ),
    ("lbadm create-vrrp -i vr", &["vrid="]),
    (
        "lbadm create-vrrp -i interface=eth0,pre",
        &["interface=eth0,preempt=", "interface=eth0,preempt-delay="],
    ),
    ("lbadm show-vrrp -o sta", &["state"]),
    ("lbadm create-healthcheck -h te", &["test="]),
    ("lbadm create-healthcheck -h hc-te", &["hc-test="]),
    (
        "lbadm create-healthcheck -n -h hc-test=h",
        &["hc-test=http", "hc-test=https"],
    ),
    (
        "lbadm create-healthcheck -h test=tcp,hc-cou",
        &["test=tcp,hc-count="],
    ),
    ("lbadm 'show-rule' \"ww", &["www"]),
    ("lbadm delete-healthcheck ", &["page"]),
    ("lbadm rollback ", &["11"]),
    ("lbadm rollback --dry-run 1", &["11"]),
    ("lbadm show-hc-result -o rule", &["rulename"]),
    ("lbadm import-config --from i", &["ilbadm", "ipvsadm"]),
    ("lbadm explain --flags syn,f", &["syn,fin"]),
    ("lbadm top --filter w", &["www"]),
];

#[test]
fn what_is_typed_gets_what_fits() {
    let (node, history) = (node(), history());
    for (line, expected) in CASES {
        let known = Known {
            node: Some(&node),
            history: Some(&history),
        };
        let answer = answer(line, known);
        let words: Vec<&str> = answer.candidates.iter().map(|(w, _)| w.as_str()).collect();
        assert_eq!(words, *expected, "given {line:?}");
    }
}

#[test]
fn a_node_is_asked_for_only_where_names_are_wanted() {
    for (line, wanted) in [
        ("lbadm show-r", (false, false)),
        ("lbadm create-rule -m lbalg=", (false, false)),
        ("lbadm show-rule -o ", (false, false)),
        ("lbadm show-rule ", (true, false)),
        ("lbadm create-rule -o servergroup=", (true, false)),
        ("lbadm explain server ", (true, false)),
        ("lbadm rollback ", (false, true)),
        ("lbadm rollback --dry", (false, false)),
    ] {
        let missed = answer(line, Known::default()).missed;
        assert_eq!((missed.node, missed.history), wanted, "given {line:?}");
    }
}

#[test]
fn commands_are_offered_with_their_meaning() {
    let text = answer("lbadm show-rul", Known::default()).text();
    assert_eq!(text, "show-rule\tShow rules\n");
}

/// What a person makes up: names of what is new, numbers, addresses, patterns.
const FREE: &[&str] = &[
    "create-rule NAME",
    "create-servergroup NAME",
    "create-healthcheck NAME",
    "create-vrrp INSTANCE",
    "show-statistics INTERVAL",
    "show-statistics COUNT",
    "show-connections NETWORK",
    "show-connections ADDRESS",
    "show-connections N",
    "show-nat COUNT",
    "show-persist COUNT",
    "history COUNT",
    "import-config ADDRESS,...",
    "import-config MARK=PROTOCOL:ADDRESS:PORT,...",
    "import-config ID",
    "explain SOURCE",
    "explain DESTINATION",
    "explain TYPE",
    "explain N",
    "explain NAME",
    "top INTERVAL",
    "top COUNT",
];

/// A new option, list of columns or name must not be forgotten here.
#[test]
fn every_value_has_an_offer_unless_a_person_makes_it_up() {
    let (node, history) = (node(), history());
    let known = Known {
        node: Some(&node),
        history: Some(&history),
    };
    let mut without = Vec::new();
    for sub in cli::command()
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
    {
        let positionals = sub.get_positionals().filter(|arg| !arg.is_hide_set());
        let mut before = String::new();
        let mut lines: Vec<(String, String)> = Vec::new();
        let what = |arg: &Arg| {
            let name = arg.get_value_names().and_then(|names| names.first());
            name.map_or(String::new(), |name| name.to_string())
        };
        for arg in positionals {
            lines.push((before.clone(), what(arg)));
            before.push_str("x ");
        }
        for arg in sub
            .get_arguments()
            .filter(|arg| !arg.is_positional() && !arg.is_hide_set() && takes_value(arg))
        {
            let short = arg.get_short().map(|c| format!("-{c} "));
            let long = arg.get_long().map(|name| format!("--{name} "));
            lines.push((long.or(short).unwrap_or_default(), what(arg)));
        }
        for (before, what) in lines {
            let line = format!("lbadm {} {before}", sub.get_name());
            if answer(&line, known).candidates.is_empty() {
                without.push(format!("{} {what}", sub.get_name()));
            }
        }
    }
    without.retain(|one| !FREE.contains(&one.as_str()));
    assert_eq!(without, Vec::<String>::new());
}
