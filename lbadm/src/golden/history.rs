//! What was changed, for the cases.

use libilb::difference;
use libilb::history::{Item, Report};
use libilb::model::{Configuration, RuleSettings};

/// Three generations: of a user, of one without name that one cannot go back to, and of the manager.
pub fn history() -> Vec<Item> {
    let item = |generation, uid, user: Option<&str>, words: &str, kept| Item {
        generation,
        time: Some(1_763_752_843 + generation),
        uid,
        user: user.map(str::to_string),
        words: words.into(),
        kept,
    };
    vec![
        item(
            12,
            Some(0),
            Some("root"),
            "add servers _web.2, _web.3",
            true,
        ),
        item(11, None, Some("ilb-svcmgr"), "drained _web.1", true),
        item(9, Some(1007), None, "create rule www", false),
    ]
}

/// What going back to this generation would change: to 12 nothing.
pub fn rolled_back(to: u64, dry_run: bool) -> Report {
    let mut old = Configuration::default();
    old.create_group("web", &["192.0.2.11", "192.0.2.12"])
        .unwrap();
    let rule = RuleSettings {
        enabled: true,
        vip: "192.0.2.80".into(),
        port: "80".into(),
        algorithm: "rr".into(),
        topology: "DSR".into(),
        servergroup: "web".into(),
        ..RuleSettings::default()
    };
    old.create_rule("www", &rule).unwrap();
    let mut new = old.clone();
    if to != 12 {
        new.remove_servers("web", &["_web.1"]).unwrap();
        new.add_servers("web", &["192.0.2.13"]).unwrap();
        let other = RuleSettings {
            algorithm: "wlc".into(),
            conn_drain: Some(30),
            ..RuleSettings::default()
        };
        new.modify_rule("www", &other).unwrap();
        new.create_group("more", &["192.0.2.20"]).unwrap();
    }
    Report {
        from: 12,
        to,
        generation: if dry_run || to == 12 { 12 } else { 13 },
        differences: difference::between(&new, &new.restored(old)),
    }
}
