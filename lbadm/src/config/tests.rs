//! Files of commands become what is written down beside them, and what is exported is imported as the same.

use std::net::IpAddr;
use std::path::PathBuf;

use libilb::export;
use libilb::import::{Import, Source};
use libilb::model::{Configuration, RuleSettings, Timeout, VipSettings};
use libilb::server::ServerSettings;
use libilb::source::SourceSettings;
use proptest::prelude::*;

use super::script;

fn lookup(host: &str) -> Result<Vec<IpAddr>, String> {
    match host {
        "web1" => Ok(vec!["192.0.2.11".parse().unwrap()]),
        _ => Err("no such name".to_string()),
    }
}

fn read(text: &str, name: &str) -> Import {
    let source = Source::recognise(text).unwrap();
    script::import(source, text, name, &lookup).unwrap()
}

fn commands(configuration: &Configuration) -> String {
    export::commands(configuration, "X")
}

#[test]
fn files_become_what_is_written_down() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/config/files");
    let mut wrong = String::new();
    for name in ["export.ilbadm", "manual.ilbadm", "commands.lbadm"] {
        let import = read(&std::fs::read_to_string(folder.join(name)).unwrap(), name);
        assert_eq!(import.configuration.validate(), Ok(()), "{name}");
        let got = format!(
            "{}: {}{}\n\n{}\n{}\n{}",
            import.source,
            import.report.summary(),
            if import.report.is_complete() {
                ""
            } else {
                "; not complete"
            },
            import.report,
            commands(&import.configuration),
            import.document().to_toml(),
        );
        let expected = folder.join(format!("{name}.expected"));
        if std::env::var_os("ILB_BLESS").is_some() {
            std::fs::write(&expected, &got).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != got {
            wrong.push_str(&format!("==== {name}\n{got}"));
        }
    }
    assert!(wrong.is_empty(), "these give something else:\n{wrong}");
}

/// The numbers of rules and servers are given anew. A group that has no servers has no places that anybody could miss.
fn renumbered(configuration: &Configuration) -> Configuration {
    let mut all = Configuration {
        checks: configuration.checks.clone(),
        ..Configuration::default()
    };
    for (key, group) in &configuration.groups {
        let mut group = (**group).clone();
        for server in &mut group.servers {
            server.number = 0;
        }
        group.next_index = 0;
        if group.servers.is_empty() {
            group.places = 0;
        }
        all.groups.insert(key.clone(), group.into());
    }
    for (key, rule) in &configuration.rules {
        let mut rule = (**rule).clone();
        rule.number = 0;
        all.rules.insert(key.clone(), rule.into());
    }
    all
}

fn some<T: Clone + std::fmt::Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(values)
}

/// A server as text.
fn server() -> impl Strategy<Value = (String, Option<u16>, u16, u32)> {
    let host = prop::option::of(some(&["db", "web-1.example.com"]));
    let port = prop::option::of(1u16..60_000);
    (
        host,
        1u8..250,
        port,
        some(&[0u16, 1, 3, 65_535]),
        some(&[0u32, 100]),
    )
        .prop_map(|(host, address, port, weight, most)| {
            let name = host.map_or(String::new(), |h| format!("{h}="));
            (format!("{name}10.0.0.{address}"), port, weight, most)
        })
}

prop_compose! {
    fn rule()(
        enabled in any::<bool>(),
        vips in prop::collection::vec((1u8..250, 1u16..65_000, some(&["tcp", "udp", "sctp", "icmp"])), 1..4),
        algorithm in some(&["rr", "wrr", "wlc", "sh", "mh", "hip", "fo"]),
        flags in any::<bool>(),
        topology in some(&["HALF-NAT", "NAT", "DSR", "TUN gue", "TUN gre", "TUN ipip"]),
        persistence in prop::option::of((0u8..=32, 1u32..10_000)),
        orphans in prop::option::of(some(&["reset", "drop"])),
        sync in prop::option::of(some(&["full", "off"])),
        times in (prop::option::of(1u32..1000), prop::option::of(0u32..1000), prop::option::of(1u32..60)),
        idle in prop::option::of(1u32..1000),
        most in prop::option::of(0u32..1000),
        clients in any::<bool>(),
        manage in prop::option::of(any::<bool>()),
    ) -> RuleSettings {
        let mut vips = vips.into_iter().map(|(address, port, protocol)| VipSettings {
            vip: format!("192.0.2.{address}"),
            port: if protocol == "icmp" { String::new() } else { format!("{port}-{}", port + 9) },
            protocol: Some(protocol.to_string()),
        });
        let first = vips.next().unwrap();
        let (topology, tunnel) = topology.split_once(' ').unwrap_or((topology, ""));
        RuleSettings {
            enabled,
            vip: first.vip,
            port: first.port,
            protocol: first.protocol,
            more_vips: vips.collect(),
            clients: if clients { vec!["10.0.0.0/8".into(), "192.0.2.7".into()] } else { vec![] },
            algorithm: algorithm.into(),
            flags: match (flags, algorithm) {
                (true, "sh") => vec!["sh-port".into()],
                (true, "mh") => vec!["mh-port".into(), "mh-fallback".into()],
                _ => vec![],
            },
            topology: topology.into(),
            tunnel: (!tunnel.is_empty()).then(|| tunnel.to_string()),
            gue_port: (tunnel == "gue").then_some(6081),
            tunnel_checksum: (tunnel == "gue" && flags).then(|| "remote".to_string()),
            proxy_src: match topology {
                "NAT" | "TUN" => vec!["198.51.100.1-198.51.100.3".into()],
                _ => vec![],
            },
            servergroup: String::new(),
            conn_drain: times.0,
            nat_timeout: times.1,
            slow_start: times.2,
            persist_timeout: persistence.map(|(_, seconds)| seconds),
            pmask: persistence.map(|(mask, _)| mask.to_string()),
            timeouts: idle.map(|s| (Timeout::FinWait, s)).into_iter().collect(),
            orphans: orphans.map(str::to_string),
            sync: sync.map(str::to_string),
            max_new_flows: most,
            quorum: orphans.map(|_| 3),
            hysteresis: orphans.map(|_| 2),
            panic_mode: orphans.map(|_| "sorry".to_string()),
            panic_threshold: orphans.map(|_| 75),
            notify: orphans
                .map(|_| (libilb::rule::NotifyEvent::Down, "/bin/a 'b, c=\"d' \"it's\"".to_string()))
                .into_iter()
                .collect(),
            manage_addresses: manage,
            ..RuleSettings::default()
        }
    }
}

prop_compose! {
    /// A configuration in which servers were removed and disabled.
    fn configuration()(
        groups in prop::collection::vec(
            (prop::collection::vec((server(), any::<bool>(), any::<bool>()), 0..5),
             prop::collection::vec((rule(), any::<bool>()), 0..4)),
            0..4,
        ),
        checks in prop::collection::vec(
            some(&["hc-test=tcp,hc-timeout=0.5", "hc-test=/bin/x,hc-arg=a b,hc-contract=exit-code,hc-weight=yes",
                   "hc-test=http,hc-url=/a\\,b,hc-status=200-204,hc-host=www.example.com,hc-ping=no",
                   "hc-test=udp,hc-payload=0x00ff,hc-reply=any,hc-interval=2"]), 0..3),
    ) -> Configuration {
        let mut all = Configuration::default();
        for (n, words) in checks.iter().enumerate() {
            let mut settings = libilb::healthcheck::HealthCheckSettings::default();
            settings.parse(words).unwrap();
            all.create_check(&format!("check{n}"), &settings).unwrap();
        }
        for (n, (servers, rules)) in groups.into_iter().enumerate() {
            let name = format!("G{n}");
            all.create_group::<&str>(&name, &[]).unwrap();
            let mut ids = Vec::new();
            for ((text, port, weight, most), disabled, removed) in servers {
                let port = port.map_or(String::new(), |p| format!(":{p}"));
                // Duplicates are refused, which is as good.
                if let Ok(added) = all.add_servers(&name, &[format!("{text}{port}")]) {
                    let id = added[0].id.clone();
                    let limits = ServerSettings {
                        weight: Some(weight),
                        max_connections: Some(most),
                        min_connections: Some(most / 2),
                        tier: Some([0, 1, libilb::server::SORRY][usize::from(weight % 3)]),
                    };
                    all.modify_servers(&[&id], &limits).unwrap();
                    ids.push((id, disabled, removed));
                }
            }
            for (id, disabled, removed) in ids {
                if disabled {
                    all.enable_servers(&[&id], false).unwrap();
                }
                if removed {
                    all.remove_servers(&name, &[&id]).unwrap();
                }
            }
            for (m, (mut rule, checked)) in rules.into_iter().enumerate() {
                rule.servergroup.clone_from(&name);
                if checked && !checks.is_empty() {
                    rule.health_check = Some("check0".into());
                    rule.health_check_port = Some("8080".into());
                }
                // What claims the same, or does not fit, is refused.
                let _ = all.create_rule(&format!("r{n}.{m}"), &rule);
            }
        }
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Given any configuration, when it is exported and imported, then it is the same: ids, places, names, weights and all.
    #[test]
    fn what_is_exported_is_imported_as_the_same(before in configuration()) {
        prop_assert_eq!(before.validate(), Ok(()));
        let text = commands(&before);
        let import = read_all(&text);
        prop_assert!(import.report.is_complete(), "{}\n{}", text, import.report);
        prop_assert_eq!(renumbered(&import.configuration), renumbered(&before));
        // And what comes of that is written as the same text.
        prop_assert_eq!(commands(&import.configuration), text);
    }

    /// Whatever stands in a file of commands: reading it ends, and what comes of it is valid.
    #[test]
    fn no_file_makes_it_panic(
        cut in any::<prop::sample::Index>(),
        remove in 0usize..60,
        insert in "[ \n'\"\\\\#=,a-z0-9.:_-]{0,8}",
    ) {
        let text = include_str!("files/commands.lbadm");
        let chars: Vec<char> = text.chars().collect();
        let at = cut.index(chars.len());
        let mut changed: Vec<char> = chars[..at].to_vec();
        changed.extend(insert.chars());
        changed.extend(chars.iter().skip(at + remove));
        let text: String = changed.into_iter().collect();
        if let Ok(import) = script::import(Source::Lbadm, &text, "x", &lookup) {
            prop_assert_eq!(import.configuration.validate(), Ok(()));
        }
    }
}

fn read_all(text: &str) -> Import {
    script::import(Source::Lbadm, text, "x", &lookup).unwrap()
}

/// What `import-config` was told.
fn told(words: &str) -> super::Import {
    let args = words.split(' ').map(Into::into).collect();
    match crate::action::understand(crate::cli::parse(args).unwrap()).unwrap() {
        crate::action::Action::Import(import) => *import,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_applied_unless_all_of_it_is_understood() {
    let whole = "-A -t 192.0.2.80:80 -s rr\n";
    let part = "-A -t 192.0.2.80:80 -s rr\n-A -f 1 -s rr\n-A -t\n";
    for (text, options, may) in [
        (whole, "", true),
        (part, "", false),
        (part, " --partial", true),
        (part, " --dry-run", true),
    ] {
        let import = told(&format!("lbadm import-config{options}"));
        let read = import.read_text(text, "f", &lookup).unwrap();
        let said = import.check(&read).map_err(|e| e.to_string());
        let words = "2 things are wrong or cannot be expressed: nothing is changed; --partial applies the rest, \
                     --dry-run shows it";
        let expected = if may { Ok(()) } else { Err(words.to_string()) };
        assert_eq!(said, expected, "{text}{options}");
    }
}

#[test]
fn a_report_says_what_a_person_has_to_look_at() {
    let text = "-A -t 192.0.2.80:80 -s rr\n-Z\n-A -f 1 -s rr\n";
    let shown = |options: &str| {
        let import = told(&format!("lbadm import-config{options}"));
        let read = import.read_text(text, "f", &lookup).unwrap();
        import.render(
            &read,
            options.contains("-j"),
            crate::table::Style::default(),
        )
    };
    let mark = "f:3: left out: -A -f 1 -s rr: what the firewall marks with 1 does not stand here; say it: --fwmark \
                1=tcp:ADDRESS:PORT\n";
    let sum = "ipvsadm: 1 taken, 1 not needed, 1 left out\n";
    assert_eq!(shown(""), format!("{mark}{sum}"));
    let all = shown(" -v --dry-run");
    assert!(all.starts_with("f:1: taken: "), "{all}");
    assert!(all.contains("\nf:2: not needed: -Z"), "{all}");
    assert!(
        all.contains("\n[rule.\"tcp-192.0.2.80-80\"]\nvip = \"192.0.2.80\"\n"),
        "{all}"
    );
    let json: serde_json::Value = serde_json::from_str(&shown(" -j")).unwrap();
    assert_eq!(json["format"], "ipvsadm");
    assert_eq!(json["complete"], false);
    assert_eq!(json["report"][2]["kind"], "left-out");
    assert_eq!(json["report"][2]["line"], 3);
    assert_eq!(
        json["document"]["rule"]["tcp-192.0.2.80-80"]["vip"],
        "192.0.2.80"
    );
}

#[test]
fn groups_that_find_their_servers_are_exported_with_them() {
    let mut all = Configuration::default();
    for (name, servers, said) in [
        (
            "app",
            &[
                "192.0.2.1",
                "app.example.com=192.0.2.2:8080,weight=3,found=yes",
            ][..],
            "dns=app.example.com,port=8080,approve=ask,limit=3,hold=0,resolver=192.0.2.53,[2001:db8::53]:5353,except=192.0.2.7,192.0.2.8",
        ),
        ("farm", &[], "subnet=2001:db8::/120,rate=9,interval=300"),
    ] {
        let mut source = SourceSettings::default();
        source.parse(said).unwrap();
        all.create_group_from(name, servers, &source).unwrap();
    }
    let text = commands(&all);
    assert!(
        text.contains("-d subnet=2001:db8::/120,interval=300,rate=9"),
        "{text}"
    );
    let again = read(&text, "x");
    assert!(again.report.is_complete(), "{}", again.report);
    assert_eq!(again.configuration, all);
    // And as a document.
    let text = again.document().to_toml();
    let plan = libilb::document::plan(&text, &Configuration::default(), false).unwrap();
    assert_eq!(plan.configuration, all);
    // Without the source there is nobody who would have found them.
    let plain = read(
        "lbadm create-servergroup -s server=192.0.2.2,found=yes app\n",
        "x",
    );
    assert!(!plain.configuration.group("app").unwrap().servers[0].found);
}
