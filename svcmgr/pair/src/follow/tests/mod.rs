//! Lines, messages and the machine as tables, and two nodes in a simulated world.

mod machine;
mod patience;
mod simulation;

use serde_json::json;

use super::line::MOST;
use super::*;

/// A version with these words on top of `parent`, made on `node`.
fn version(parent: Option<&Version>, node: u8, words: &str) -> Version {
    let draft = Draft {
        time: 7,
        author: "root".into(),
        words: words.into(),
        digest: Digest::default(),
    };
    Version::new(parent, node, &draft)
}

/// One version for each letter; capitals are of node 1.
fn line(words: &str) -> Line {
    let mut line = Line::default();
    for (mark, letter) in words.chars().enumerate() {
        let node = u8::from(letter.is_uppercase());
        let next = version(line.newest(), node, &letter.to_string());
        line.push(next, mark as u64 + 1).unwrap();
    }
    line
}

/// The words of a line.
fn words(line: &Line) -> String {
    let versions = line.versions().iter();
    versions.map(|kept| kept.version.words.as_str()).collect()
}

#[test]
fn a_version_is_known_by_everything_that_it_is() {
    let base = Draft {
        time: 1,
        author: "root".into(),
        words: "create rule www".into(),
        digest: Digest::of(&[record(
            "rules",
            "1",
            Some(json!({"vip": "192.0.2.1", "time": 0.35})),
        )]),
    };
    let parent = version(None, 0, "parent");
    let id = Version::new(Some(&parent), 0, &base).id;
    assert_eq!(Version::new(Some(&parent), 0, &base).id, id);
    let other = |change: fn(&mut Draft)| {
        let mut draft = base.clone();
        change(&mut draft);
        Version::new(Some(&parent), 0, &draft).id
    };
    for (what, different) in [
        ("the parent", Version::new(None, 0, &base).id),
        ("the node", Version::new(Some(&parent), 1, &base).id),
        ("the time", other(|draft| draft.time = 2)),
        ("the author", other(|draft| draft.author = "bob".into())),
        ("the words", other(|draft| draft.words.push('s'))),
        (
            "the content",
            other(|draft| draft.digest = Digest::default()),
        ),
        // What is at the end of one is not what is at the beginning of the next.
        (
            "where one ends",
            other(|draft| {
                draft.author.push('c');
                draft.words.remove(0);
            }),
        ),
    ] {
        assert_ne!(different, id, "{what}");
    }
}

fn record(tree: &str, key: &str, value: Option<serde_json::Value>) -> Record {
    Record {
        tree: tree.into(),
        key: key.into(),
        value,
    }
}

#[test]
fn a_version_proves_what_it_changes_also_after_its_way_as_text() {
    let records = vec![
        record("groups", "web", None),
        record(
            "rules",
            "1",
            Some(json!({"name": "www", "z": 1, "a": 0.35, "b": [1.0, -3, "\u{fc}\n"]})),
        ),
    ];
    let draft = Draft {
        digest: Digest::of(&records),
        ..Draft::default()
    };
    let delta = Delta {
        version: Version::new(None, 0, &draft),
        records: records.clone(),
        numbers: Numbers::default(),
    };
    let text = serde_json::to_string(&delta).unwrap();
    let Delta {
        version, records, ..
    } = serde_json::from_str(&text).unwrap();
    assert_eq!(version.proves(&records), Ok(()));
    let [gone, there] = records.as_slice() else {
        panic!("{records:?}");
    };
    let value = |value| Record {
        value,
        ..there.clone()
    };
    for (what, wrong) in [
        ("nothing", vec![]),
        ("one too few", vec![there.clone()]),
        (
            "one too many",
            vec![gone.clone(), there.clone(), there.clone()],
        ),
        ("another order", vec![there.clone(), gone.clone()]),
        ("gone instead of there", vec![gone.clone(), value(None)]),
        ("another value", vec![gone.clone(), value(Some(json!({})))]),
        (
            "another key",
            vec![
                gone.clone(),
                Record {
                    key: "2".into(),
                    ..there.clone()
                },
            ],
        ),
        (
            "another tree",
            vec![
                gone.clone(),
                Record {
                    tree: "vrrp".into(),
                    ..there.clone()
                },
            ],
        ),
    ] {
        let error = version.proves(&wrong).expect_err(what);
        assert!(error.starts_with("what version "), "{what}: {error}");
    }
    // Nothing of what it says can be another thing.
    let other = |change: fn(&mut Version)| {
        let mut other = version.clone();
        change(&mut other);
        other
    };
    for (what, wrong) in [
        ("parent", other(|version| version.parent = version.id)),
        ("number", other(|version| version.number = 9)),
        ("node", other(|version| version.node = 1)),
        ("time", other(|version| version.time = 1)),
        ("author", other(|version| version.author.push('x'))),
        ("words", other(|version| version.words.push('x'))),
        (
            "digest",
            other(|version| version.digest = Digest::default()),
        ),
        ("name", other(|version| version.id = VersionId::ROOT)),
    ] {
        let error = wrong.proves(&records).expect_err(what);
        assert!(
            error.contains("is not what its name says"),
            "{what}: {error}"
        );
    }
}

#[test]
fn a_version_has_a_name_that_is_read_again() {
    let id = version(None, 0, "a").id;
    assert_eq!(id.to_string().parse::<VersionId>(), Ok(id));
    assert_eq!(id.to_string().len(), 32);
    for wrong in ["", "12", &"g".repeat(32), &"+1".repeat(16), &"0".repeat(33)] {
        let error = wrong.parse::<VersionId>().unwrap_err();
        assert!(error.to_string().contains("32 hexadecimal digits"));
    }
}

#[test]
fn how_lines_stand_to_each_other() {
    use Relation::*;
    let common = |words: &str| line(words).head();
    for (ours, theirs, expected) in [
        ("", "", Same),
        ("abc", "abc", Same),
        ("abc", "", Ahead(3)),
        ("", "abc", Behind(3)),
        ("abc", "a", Ahead(2)),
        ("a", "aBc", Behind(2)),
        (
            "abcd",
            "abXYZ",
            Forked {
                common: common("ab"),
                ours: 2,
                theirs: 3,
            },
        ),
        ("abc", "XY", Strangers { ours: 3, theirs: 2 }),
        // The same words, but not the same story.
        ("ab", "xb", Strangers { ours: 2, theirs: 2 }),
    ] {
        let (a, b) = (line(ours), line(theirs));
        assert_eq!(a.relation(&b.ids()), expected, "{ours:?} and {theirs:?}");
    }
}

#[test]
fn a_line_forgets_what_is_too_old_and_knows_where_that_was() {
    let long: Vec<Version> = std::iter::successors(Some(version(None, 0, "0")), |last| {
        Some(version(Some(last), 0, "more"))
    })
    .take(MOST + 3)
    .collect();
    let line = |count: usize| {
        let versions = long.iter().take(count).cloned();
        Line::new(versions.map(|version| Kept { version, mark: 1 })).unwrap()
    };
    let whole = line(MOST + 3);
    assert_eq!(whole.versions().len(), MOST);
    assert_eq!(whole.newest().unwrap().number, MOST as u64 + 3);
    // The last one that is forgotten is still known as the parent of the first.
    assert_eq!(whole.relation(&line(3).ids()), Relation::Ahead(MOST));
    assert_eq!(whole.after(line(3).head()).unwrap().len(), MOST);
    let (ours, theirs) = (MOST + 1, 2);
    let lost = Relation::Strangers { ours, theirs };
    assert_eq!(whole.relation(&line(2).ids()), lost);
    assert_eq!(whole.after(line(2).head()), None);
}

#[test]
fn what_does_not_follow_is_no_part_of_a_line() {
    let base = line("ab");
    let next = version(base.newest(), 0, "c");
    let wrong_number = Version {
        number: 9,
        ..next.clone()
    };
    let stranger = version(None, 0, "c");
    let again = base.newest().unwrap().clone();
    for (what, wrong) in [
        ("number", wrong_number),
        ("parent", stranger),
        ("twice", again),
    ] {
        let mut line = base.clone();
        line.push(wrong, 1).expect_err(what);
        assert_eq!(line, base, "{what}");
    }
    let mut line = base.clone();
    line.push(next, 1).unwrap();
    assert_eq!(words(&line), "abc");
    assert_eq!(words(&base), "ab", "a clone is another one");
}

#[test]
fn messages_are_read_again_as_they_were_written() {
    let one = version(None, 0, "a");
    let delta = Delta {
        version: one.clone(),
        records: vec![
            record("rules", "00000001", Some(json!({"name": "www"}))),
            record("groups", "web", None),
        ],
        numbers: Numbers { rule: 2, server: 3 },
    };
    let id = one.id;
    let hello = Hello {
        protocol: 1,
        oldest: 1,
        node: 1,
        line: vec![id],
        active: true,
        incomplete: false,
        answer: false,
    };
    let whole = Whole {
        line: vec![one],
        records: delta.records.clone(),
        numbers: delta.numbers,
    };
    let mut kinds = Vec::new();
    for message in [
        Message::Hello(hello),
        Message::Offer(delta.clone()),
        Message::Feed {
            deltas: vec![delta],
        },
        Message::Whole { instead: id, whole },
        Message::Done { id },
        Message::Refused {
            id,
            reason: Reason::Stale,
            words: "why".into(),
        },
        Message::Want { instead: id },
        Message::Active { active: true },
        Message::Acknowledged,
        Message::Unknown {
            what: "dance".into(),
        },
    ] {
        let octets = message.encode();
        let value: serde_json::Value = serde_json::from_slice(&octets).unwrap();
        kinds.push(value["kind"].as_str().unwrap().to_owned());
        let heard = Heard::Message(Box::new(message));
        assert_eq!(Message::decode(&octets), Ok(heard));
    }
    assert_eq!(kinds, super::message::KINDS);
}

#[test]
fn what_a_later_program_says_is_understood_as_far_as_it_goes() {
    let id = version(None, 0, "a").id;
    let message = |value: serde_json::Value| match Message::decode(value.to_string().as_bytes()) {
        Ok(Heard::Message(message)) => *message,
        other => panic!("{other:?}"),
    };
    // Fields that we do not know.
    let done = message(json!({"kind": "done", "id": id, "quickly": true}));
    assert_eq!(done, Message::Done { id });
    // Reasons that we do not know.
    let refused = json!({"kind": "refused", "id": id, "reason": "moonlight", "words": "w"});
    let (reason, words) = (Reason::Cannot, "w".to_owned());
    let expected = Message::Refused { id, reason, words };
    assert_eq!(message(refused), expected);
    // Kinds that we do not know, and an answer to that, which has none.
    let mut follow = Follow::new(0, Speaks::default(), line("a"), false);
    follow.up();
    let unknown = Message::decode(br#"{"kind":"dance","how":7}"#).unwrap();
    assert_eq!(unknown, Heard::Unknown("dance".into()));
    let answer = Message::Unknown {
        what: "dance".into(),
    };
    assert_eq!(follow.heard(unknown), [Action::Send(answer.clone())]);
    assert_eq!(follow.heard(Heard::Message(Box::new(answer))), []);
}

#[test]
fn rubbish_is_no_message() {
    let id = version(None, 0, "a").id;
    let many = vec![id; MOST + 2];
    let hello = |node: u8, oldest: u32, line: &[VersionId]| json!({"kind": "hello", "protocol": 3, "oldest": oldest, "node": node, "line": line, "active": false});
    assert!(Message::decode(hello(1, 3, &many[1..]).to_string().as_bytes()).is_ok());
    for (what, text, said) in [
        ("nothing", String::new(), "EOF"),
        ("no JSON", "\u{7f}ELF".into(), "expected value"),
        ("no kind", "{}".into(), "kind"),
        ("cut off", r#"{"kind":"done","id":"00"#.into(), "EOF"),
        ("no version", json!({"kind": "done", "id": "zz"}).to_string(), "32 hexadecimal"),
        ("a third node", hello(2, 1, &[]).to_string(), "node 2"),
        ("protocols", hello(1, 4, &[]).to_string(), "oldest protocol 4"),
        ("too long", hello(1, 1, &many).to_string(), "1002 versions"),
        ("no deltas", json!({"kind": "feed", "deltas": []}).to_string(), "no deltas"),
        (
            "nothing whole",
            json!({"kind": "whole", "instead": id, "whole": {"line": [], "records": [], "numbers": {"rule": 1, "server": 1}}})
                .to_string(),
            "0 versions",
        ),
    ] {
        let error = Message::decode(text.as_bytes()).expect_err(what);
        assert!(error.to_string().contains(said), "{what}: {error}");
    }
}

#[test]
fn the_rule_for_conflicting_histories() {
    // Whether node 0 is active and its changes, the same of node 1; whether node 0 wins.
    for (zero, one, expected) in [
        ((true, 1), (false, 9), true),
        ((false, 9), (true, 1), false),
        ((false, 2), (false, 3), false),
        ((false, 3), (false, 2), true),
        ((false, 2), (false, 2), true),
        ((true, 2), (true, 3), false),
        ((true, 2), (true, 2), true),
    ] {
        assert_eq!(
            wins(zero.0, zero.1, one.0, one.1),
            expected,
            "{zero:?} {one:?}"
        );
    }
}
