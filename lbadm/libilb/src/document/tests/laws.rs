//! What holds for every configuration: its own document changes nothing, and leads from any other one to it.

use proptest::prelude::*;

use super::*;
use crate::model::RuleSettings;

/// Host, port, weight, enabled.
type Server = (u8, Option<u16>, u16, bool);
/// Name, VIP, algorithm and topology, group, enabled, mask.
type Rule = (u8, u8, u8, u8, bool, Option<u8>);

/// A configuration as a few numbers.
#[derive(Debug, Clone)]
struct Seed {
    groups: Vec<Vec<Server>>,
    removed: Vec<(u8, u8)>,
    rules: Vec<Rule>,
}

fn seed() -> impl Strategy<Value = Seed> {
    let server = (0..12u8, prop::option::of(80..83u16), 0..4u16, any::<bool>());
    let rule = (
        0..8u8,
        0..6u8,
        0..4u8,
        0..3u8,
        any::<bool>(),
        prop::option::of(8..33u8),
    );
    (
        prop::collection::vec(prop::collection::vec(server, 0..5), 1..4),
        prop::collection::vec((0..3u8, 0..5u8), 0..3),
        prop::collection::vec(rule, 0..6),
    )
        .prop_map(|(groups, removed, rules)| Seed {
            groups,
            removed,
            rules,
        })
}

/// Whatever of the seed is possible.
fn configuration(seed: &Seed) -> Configuration {
    let mut c = Configuration::default();
    for (n, servers) in seed.groups.iter().enumerate() {
        let name = format!("Group.{n}");
        c.create_group::<&str>(&name, &[]).unwrap();
        for (host, port, weight, enabled) in servers {
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            let spec = format!("10.0.0.{host}{port},weight={weight}", host = host + 1);
            if let Ok(added) = c.add_servers(&name, &[spec]) {
                c.enable_servers(&[&added[0].id], *enabled).unwrap();
            }
        }
    }
    for (group, server) in &seed.removed {
        let name = format!("Group.{group}");
        let _ = c.remove_servers(&name, &[format!("_{name}.{server}")]);
    }
    for (name, vip, how, group, enabled, mask) in &seed.rules {
        let (algorithm, topology) =
            [("rr", "h"), ("mh", "d"), ("wlc", "n"), ("sh", "t")][usize::from(*how)];
        let settings = RuleSettings {
            enabled: *enabled,
            vip: format!("192.0.2.{}", vip / 2 + 1),
            port: if vip % 2 == 0 { "80" } else { "81-82" }.into(),
            algorithm: algorithm.into(),
            topology: topology.into(),
            proxy_src: match topology {
                "n" | "t" => vec!["192.0.2.90".into()],
                _ => Vec::new(),
            },
            servergroup: format!("group.{group}"),
            pmask: mask.map(|mask| mask.to_string()),
            flags: match algorithm {
                "mh" => vec!["mh-port".into()],
                _ => Vec::new(),
            },
            slow_start: Some(u32::from(*vip)),
            quorum: Some(1 + u32::from(*vip)),
            hysteresis: Some(u32::from(*vip)),
            panic_mode: (*how == 1).then(|| "keep-last".into()),
            panic_threshold: Some(1 + u32::from(*vip) % 100),
            notify: match how {
                1 => [(
                    crate::rule::NotifyEvent::Down,
                    "/bin/a 'b c' \"d'e\"".into(),
                )]
                .into(),
                _ => Default::default(),
            },
            timeouts: match how {
                0 => [(Timeout::FinWait, 5)].into(),
                _ => Default::default(),
            },
            ..RuleSettings::default()
        };
        let _ = c.create_rule(&format!("rule-{name}"), &settings);
    }
    c.validate().unwrap();
    c
}

/// What a document says without ids and places of servers, which depend on what was before.
fn contents(c: &Configuration) -> Document {
    let mut document = Document::of(c);
    for group in &mut document.groups {
        for server in &mut group.servers {
            (server.id, server.group_place) = (None, None);
        }
        group.servers.sort_by_key(ServerEntry::place);
    }
    document
}

proptest! {
    #[test]
    fn its_own_document_changes_nothing(seed in seed()) {
        let c = configuration(&seed);
        let text = to_toml(&c);
        for merge in [false, true] {
            let plan = plan(&text, &c, merge).unwrap();
            prop_assert!(plan.report.is_empty(), "{}", plan.report);
            prop_assert!(plan.report.notes.is_empty());
            prop_assert_eq!(&plan.configuration, &c);
        }
        // The text is canonical, and so is JSON.
        let document = Document::parse(&text).unwrap();
        prop_assert_eq!(document.to_toml(), text);
        let json = serde_json::to_string(&document).unwrap();
        prop_assert_eq!(&Document::parse(&json).unwrap(), &document);
    }

    #[test]
    fn an_empty_node_gets_the_same_with_its_ids(seed in seed()) {
        let c = configuration(&seed);
        let fresh = plan(&to_toml(&c), &Configuration::default(), false).unwrap().configuration;
        fresh.validate().unwrap();
        prop_assert_eq!(Document::of(&fresh), Document::of(&c));
        for group in c.groups.values() {
            let ids = |group: &crate::model::ServerGroup| -> Vec<_> {
                group.servers.iter().map(|s| (s.id.clone(), s.address, s.ports, s.place)).collect()
            };
            if !group.servers.is_empty() {
                prop_assert_eq!(fresh.group(&group.name).unwrap().places, group.places);
            }
            prop_assert_eq!(ids(fresh.group(&group.name).unwrap()), ids(group));
        }
    }

    #[test]
    fn there_and_back_is_as_before(a in seed(), b in seed()) {
        let (a, b) = (configuration(&a), configuration(&b));
        let there = plan(&to_toml(&b), &a, false).unwrap().configuration;
        there.validate().unwrap();
        prop_assert_eq!(contents(&there), contents(&b));
        let back = plan(&to_toml(&a), &there, false).unwrap().configuration;
        back.validate().unwrap();
        prop_assert_eq!(contents(&back), contents(&a));
        // Numbers are never given twice, and what survived both ways is what it was.
        for (name, rule) in &back.rules {
            let (first, second) = (&a.rules[name], there.rules.get(name));
            match second {
                Some(second) if second.number == first.number => prop_assert_eq!(rule.number, first.number),
                _ => prop_assert!(rule.number >= there.next_rule),
            }
        }
    }

    #[test]
    fn merging_adds_and_takes_nothing_away(a in seed(), b in seed()) {
        let (a, b) = (configuration(&a), configuration(&b));
        if let Ok(plan) = plan(&to_toml(&b), &a, true) {
            plan.configuration.validate().unwrap();
            prop_assert!(plan.report.names_of(Action::Removed, Item::Rule).is_empty());
            prop_assert!(plan.report.names_of(Action::Removed, Item::Server).is_empty());
            for rule in b.rules.keys().chain(a.rules.keys()) {
                prop_assert!(plan.configuration.rules.contains_key(rule));
            }
        }
    }

    #[test]
    fn no_text_is_too_bad_for_an_answer(text in "[\\[\\]a-z.=\" {}0-9\\n,'#-]{0,200}") {
        if let Err(mistakes) = plan(&text, &Configuration::default(), false) {
            prop_assert!(mistakes.count > 0);
            prop_assert!(!mistakes.render("x").is_empty());
        }
    }

    #[test]
    fn a_broken_sample_is_refused_or_valid(at in 0..2000usize, with in "[\\[\\]a-z.=\" {}0-9\\n]{0,3}", cut in 0..9usize) {
        let from = (0..=at.min(SAMPLE.len())).rev().find(|&n| SAMPLE.is_char_boundary(n)).unwrap();
        let to = (from..=(from + cut).min(SAMPLE.len())).rev().find(|&n| SAMPLE.is_char_boundary(n)).unwrap();
        let text = [&SAMPLE[..from], &with, &SAMPLE[to..]].concat();
        match plan(&text, &Configuration::default(), false) {
            Ok(plan) => plan.configuration.validate().unwrap(),
            Err(mistakes) => {
                prop_assert!(mistakes.list.iter().all(|m| m.line.is_some()), "{:?}", mistakes);
                prop_assert!(!mistakes.render("x").is_empty());
            }
        }
    }
}
