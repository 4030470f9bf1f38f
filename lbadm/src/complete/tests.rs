//! Command lines that are being typed, and what is offered.

use libilb::model::Configuration;

use super::*;

fn node() -> Description {
    let mut configuration = Configuration::default();
    configuration
        .create_group("web", &["192.0.2.11", "192.0.2.12"])
        .unwrap();
    configuration.create_group::<&str>("spare", &[]).unwrap();
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
        serde_json::json!({ "name": group.name, "servers": servers.collect::<Vec<_>>() })
    });
    text["groups"] = groups.collect::<Vec<_>>().into();
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
    ("lbadm help modify-s", &["modify-server"]),
    ("lbadm nosuch ", &[]),
    ("lbadm delete-rule ", &["www"]),
    ("lbadm delete-rule www ", &["www"]),
    ("lbadm delete-rl W", &["www"]),
    ("lbadm delete-servergroup s", &["spare"]),
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
        &["weight=", "max-conn=", "min-conn="],
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
];

#[test]
fn what_is_typed_gets_what_fits() {
    let node = node();
    for (line, expected) in CASES {
        let answer = answer(line, Some(&node));
        let words: Vec<&str> = answer.candidates.iter().map(|(w, _)| w.as_str()).collect();
        assert_eq!(words, *expected, "given {line:?}");
    }
}

#[test]
fn a_node_is_asked_for_only_where_names_are_wanted() {
    for (line, wanted) in [
        ("lbadm show-r", false),
        ("lbadm create-rule -m lbalg=", false),
        ("lbadm show-rule -o ", false),
        ("lbadm show-rule ", true),
        ("lbadm create-rule -o servergroup=", true),
        ("lbadm explain server ", true),
    ] {
        assert_eq!(answer(line, None).needs_node, wanted, "given {line:?}");
    }
}

#[test]
fn commands_are_offered_with_their_meaning() {
    let text = answer("lbadm show-rul", None).text();
    assert_eq!(text, "show-rule\tShow rules\n");
}

/// A new list of columns or keys must not be forgotten here.
#[test]
fn every_option_with_fields_or_keys_has_an_offer() {
    for sub in cli::command().get_subcommands() {
        for arg in sub.get_arguments() {
            let short = arg.get_short().map(|c| format!("-{c}"));
            let long = arg.get_long().map(|name| format!("--{name}"));
            let what = arg.get_value_names().and_then(|names| names.first());
            let wanted = ["FIELD,...", "KEY=VALUE,...", "KEY=VALUE", "server=SPEC,..."];
            if let (Some(option), true) = (
                long.or(short),
                what.is_some_and(|what| wanted.contains(&what.as_str())),
            ) {
                let line = format!("lbadm {} {option} ", sub.get_name());
                assert!(!answer(&line, None).candidates.is_empty(), "given {line:?}");
            }
        }
    }
}
