//! The machine as tables.

use super::super::*;
use super::{line, version, words};

fn follow(node: u8, words: &str) -> Follow {
    Follow::new(node, Speaks::default(), line(words), false)
}

fn delta(version: Version) -> Delta {
    Delta {
        version,
        records: Vec::new(),
        numbers: Numbers::default(),
    }
}

fn heard(follow: &mut Follow, message: Message) -> Vec<Action> {
    follow.heard(Heard::Message(Box::new(message)))
}

fn hello(node: u8, words: &str, active: bool, answer: bool) -> Hello {
    Hello {
        protocol: PROTOCOL,
        oldest: OLDEST,
        node,
        line: line(words).ids(),
        active,
        incomplete: false,
        answer,
    }
}

/// One that hears the other node, which has said what it has.
fn met(node: u8, ours: &str, theirs: &str) -> (Follow, Vec<Action>) {
    let mut follow = follow(node, ours);
    follow.up();
    let hello = hello(1 - node, theirs, false, true);
    let actions = heard(&mut follow, Message::Hello(hello));
    (follow, actions)
}

fn said(actions: &[Action]) -> Vec<String> {
    let name = |action: &Action| match action {
        Action::Send(message) => {
            let value = serde_json::to_value(message).unwrap();
            let mut text = value["kind"].as_str().unwrap().to_owned();
            if let Some(reason) = value["reason"].as_str() {
                text = format!("{text} {reason}");
            }
            text
        }
        Action::Take(deltas) => format!("take {}", deltas.len()),
        Action::Replace { fork: None, .. } => "replace".into(),
        Action::Replace {
            fork: Some(fork), ..
        } => format!("replace {}", fork.ours),
        Action::Collect(_) => "collect".into(),
        Action::Gather => "gather".into(),
        Action::Outcome(Outcome::Make(version)) => format!("make {}", version.words),
        Action::Outcome(Outcome::Overtaken) => "overtaken".into(),
        Action::Outcome(Outcome::Forbidden(_)) => "forbidden".into(),
        Action::Won(fork) => format!("won {}", fork.theirs),
        Action::Acknowledged => "acknowledged".into(),
    };
    actions.iter().map(name).collect()
}

#[test]
fn what_is_done_when_two_meet() {
    // Node, what it has, what the other one has; what it does, and how a change is made then.
    for (node, ours, theirs, expected, turn) in [
        (0, "ab", "ab", &[] as &[&str], Turn::Offer),
        (1, "ab", "ab", &[], Turn::Offer),
        (0, "abc", "a", &["collect"], Turn::Wait),
        (1, "abc", "a", &["collect"], Turn::Wait),
        (0, "abc", "", &["gather"], Turn::Wait),
        (1, "", "abc", &[], Turn::Wait),
        (0, "a", "abc", &[], Turn::Wait),
        // More changes win, and of as many node 0.
        (0, "abc", "aXY", &["gather"], Turn::Alone),
        (0, "ab", "aXY", &["want"], Turn::Wait),
        // Node 1 does not decide.
        (1, "aXY", "ab", &[], Turn::Wait),
        (1, "aX", "abc", &[], Turn::Wait),
        (0, "ab", "XYZ", &["want"], Turn::Wait),
    ] {
        let (follow, actions) = met(node, ours, theirs);
        let what = format!("node {node}: {ours:?}, {theirs:?}");
        assert_eq!(said(&actions), expected, "{what}");
        assert_eq!(follow.turn(), turn, "{what}");
    }
}

#[test]
fn the_active_node_wins_whoever_has_more() {
    for (zero, one, expected) in [
        (true, false, "gather"),
        (false, true, "want"),
        (true, true, "want"),
        (false, false, "want"),
    ] {
        let mut follow = follow(0, "ab");
        follow.set_active(zero);
        follow.up();
        let hello = Message::Hello(hello(1, "aXY", one, true));
        let actions = heard(&mut follow, hello);
        assert_eq!(said(&actions), [expected], "{zero} {one}");
    }
}

#[test]
fn a_greeting_is_answered_once() {
    let mut follow = follow(0, "ab");
    assert_eq!(said(&follow.up()), ["hello"]);
    let first = Message::Hello(hello(1, "a", false, false));
    assert_eq!(said(&heard(&mut follow, first)), ["hello", "collect"]);
    let second = Message::Hello(hello(1, "a", false, true));
    assert_eq!(
        said(&heard(&mut follow, second)),
        [""; 0],
        "it is on its way"
    );
}

#[test]
fn a_change_is_made_when_the_other_node_has_it() {
    let (mut follow, _) = met(0, "ab", "ab");
    let next = version(follow.line().newest(), 0, "c");
    assert_eq!(said(&follow.offer(delta(next.clone()))), ["offer"]);
    assert_eq!(follow.offered(), Some(&next));
    let actions = heard(&mut follow, Message::Done { id: next.id });
    assert_eq!(actions, [Action::Outcome(Outcome::Make(next))]);
    assert_eq!(follow.advanced(&line("abc"), false), []);
    assert_eq!(follow.stand(), Stand::Together);
}

#[test]
fn what_becomes_of_an_offer() {
    let next = |node| version(line("ab").newest(), node, "x");
    let id = next(0).id;
    let refused = |reason| Message::Refused {
        id,
        reason,
        words: "why".into(),
    };
    // What comes; what follows, and how a change is made afterwards.
    for (message, expected, turn) in [
        (
            Some(refused(Reason::Cannot)),
            &["make x"] as &[&str],
            Turn::Alone,
        ),
        (Some(refused(Reason::Waiting)), &["forbidden"], Turn::Offer),
        (
            Some(refused(Reason::Stale)),
            &["hello", "overtaken"],
            Turn::Wait,
        ),
        (
            Some(refused(Reason::Busy)),
            &["hello", "overtaken"],
            Turn::Wait,
        ),
        // The link breaks.
        (None, &["make x"], Turn::Alone),
    ] {
        let (mut follow, _) = met(0, "ab", "ab");
        follow.offer(delta(next(0)));
        let what = format!("{message:?}");
        let actions = match message {
            Some(message) => heard(&mut follow, message),
            None => follow.down(),
        };
        assert_eq!(said(&actions), expected, "{what}");
        if expected == ["make x"] {
            let mut line = line("ab");
            line.push(next(0), 3).unwrap();
            assert_eq!(follow.advanced(&line, false), [], "{what}");
        }
        assert_eq!(follow.turn(), turn, "{what}");
    }
}

#[test]
fn who_is_too_slow_gets_it_later_and_may_answer_late() {
    let (mut follow, _) = met(0, "ab", "ab");
    let mut line = line("ab");
    let next = version(line.newest(), 0, "c");
    follow.offer(delta(next.clone()));
    assert_eq!(said(&follow.enough()), ["make c"]);
    line.push(next.clone(), 3).unwrap();
    assert_eq!(follow.advanced(&line, false), [], "it was told already");
    assert_eq!(follow.stand(), Stand::Ahead(1));
    let more = version(line.newest(), 0, "d");
    assert_eq!(said(&follow.offer(delta(more.clone()))), ["make d"]);
    line.push(more, 4).unwrap();
    assert_eq!(follow.advanced(&line, false), []);
    let actions = heard(&mut follow, Message::Done { id: next.id });
    assert_eq!(actions, [Action::Collect(next.id)]);
}

#[test]
fn of_two_offers_that_of_node_0_goes_first() {
    let theirs = |node: u8| delta(version(line("ab").newest(), node, "theirs"));
    let ours = |node: u8| delta(version(line("ab").newest(), node, "ours"));
    let (mut zero, _) = met(0, "ab", "ab");
    zero.offer(ours(0));
    let actions = heard(&mut zero, Message::Offer(theirs(1)));
    assert_eq!(said(&actions), ["refused busy"]);
    assert!(zero.offered().is_some());

    let (mut one, _) = met(1, "ab", "ab");
    one.offer(ours(1));
    let offer = theirs(0);
    let actions = heard(&mut one, Message::Offer(offer.clone()));
    assert_eq!(said(&actions), ["take 1"]);
    let mut line = line("ab");
    line.push(offer.version, 3).unwrap();
    let actions = one.took(&line, false, Ok(()));
    assert_eq!(said(&actions), ["done", "overtaken"]);
    assert_eq!((one.offered(), one.turn()), (None, Turn::Offer));
}

#[test]
fn what_we_cannot_take_is_refused_with_its_reason() {
    let (mut follow, _) = met(1, "ab", "ab");
    let next = version(line("ab").newest(), 0, "c");
    heard(&mut follow, Message::Offer(delta(next.clone())));
    let refused = Refused {
        reason: Reason::Cannot,
        words: "disk full".into(),
    };
    let actions = follow.took(&line("ab"), false, Err(refused.clone()));
    let expected = Message::Refused {
        id: next.id,
        reason: Reason::Cannot,
        words: "disk full".into(),
    };
    assert_eq!(actions, [Action::Send(expected)]);
    assert_eq!(follow.refuses(), Some(&refused));
    // The other one makes it alone and is asked again when there is room.
    assert_eq!(said(&follow.again()), ["hello"]);
    let greeting = Message::Hello(hello(0, "abc", false, true));
    heard(&mut follow, greeting);
    assert_eq!(follow.stand(), Stand::Behind(1));
    let feed = Message::Feed {
        deltas: vec![delta(version(line("ab").newest(), 0, "c"))],
    };
    assert_eq!(said(&heard(&mut follow, feed)), ["take 1"]);
    assert_eq!(said(&follow.took(&line("abc"), false, Ok(()))), ["done"]);
    assert_eq!((follow.refuses(), follow.stand()), (None, Stand::Together));
}

#[test]
fn what_does_not_fit_is_not_taken() {
    let base = line("ab");
    let next = version(base.newest(), 0, "c");
    let later = version(Some(&next), 0, "d");
    let elsewhere = version(line("aX").newest(), 0, "c");
    let numbered = Version {
        number: 77,
        ..next.clone()
    };
    let reworded = Version {
        words: "other".into(),
        ..next.clone()
    };
    let filled = Delta {
        records: vec![Record {
            tree: "t".into(),
            key: "k".into(),
            value: None,
        }],
        ..delta(next.clone())
    };
    let whole = |words: &str| Whole {
        line: line(words)
            .versions()
            .iter()
            .map(|kept| kept.version.clone())
            .collect(),
        records: Vec::new(),
        numbers: Numbers::default(),
    };
    let broken = Whole {
        line: vec![next.clone(), later.clone(), next.clone()],
        ..whole("a")
    };
    let feed = |deltas: &[&Version]| Message::Feed {
        deltas: deltas
            .iter()
            .map(|version| delta((*version).clone()))
            .collect(),
    };
    let (head, old) = (base.head(), line("a").head());
    for (what, message, expected) in [
        (
            "one too many",
            Message::Offer(delta(later.clone())),
            &["refused stale", "hello"] as &[&str],
        ),
        (
            "another parent",
            Message::Offer(delta(elsewhere)),
            &["refused stale", "hello"],
        ),
        (
            "another number",
            Message::Offer(delta(numbered)),
            &["refused forged"],
        ),
        (
            "other words",
            Message::Offer(delta(reworded.clone())),
            &["refused forged"],
        ),
        (
            "another content",
            Message::Offer(filled.clone()),
            &["refused forged"],
        ),
        (
            "the second with another content",
            Message::Feed {
                deltas: vec![
                    delta(next.clone()),
                    Delta {
                        version: later.clone(),
                        ..filled.clone()
                    },
                ],
            },
            &["refused forged"],
        ),
        (
            "an old one with other words",
            Message::Whole {
                instead: head,
                whole: Whole {
                    line: vec![reworded, later.clone()],
                    ..whole("a")
                },
            },
            &["refused forged"],
        ),
        (
            "what is there",
            Message::Offer(delta(base.newest().unwrap().clone())),
            &["done"],
        ),
        ("with a gap", feed(&[&later]), &["refused stale", "hello"]),
        ("in disorder", feed(&[&later, &next]), &["refused cannot"]),
        (
            "in order",
            feed(&[base.newest().unwrap(), &next, &later]),
            &["take 2"],
        ),
        ("what all have", feed(&[base.newest().unwrap()]), &["done"]),
        (
            "instead of another",
            Message::Whole {
                instead: old,
                whole: whole("aXY"),
            },
            &["refused stale", "hello"],
        ),
        (
            "what we had",
            Message::Whole {
                instead: head,
                whole: whole("a"),
            },
            &["refused stale", "hello"],
        ),
        (
            "no line",
            Message::Whole {
                instead: head,
                whole: broken,
            },
            &["refused cannot"],
        ),
        (
            "all that we lack",
            Message::Whole {
                instead: head,
                whole: whole("abcd"),
            },
            &["replace"],
        ),
        (
            "another history",
            Message::Whole {
                instead: head,
                whole: whole("aXYZ"),
            },
            &["replace 1"],
        ),
        (
            "nothing in common",
            Message::Whole {
                instead: head,
                whole: whole("XYZ"),
            },
            &["replace 2"],
        ),
        (
            "what nobody wants",
            Message::Want { instead: head },
            &["hello"],
        ),
        (
            "done what we do not know",
            Message::Done { id: later.id },
            &[],
        ),
    ] {
        let (mut follow, _) = met(1, "ab", "ab");
        assert_eq!(said(&heard(&mut follow, message)), expected, "{what}");
        assert_eq!(words(follow.line()), "ab", "{what}");
        for reason in Reason::ALL {
            let refused = expected.contains(&format!("refused {}", reason.word()).as_str());
            let counted = follow.counts().refused[reason.word()];
            assert_eq!(counted, u64::from(refused), "{what}: {}", reason.word());
        }
    }
}

#[test]
fn what_was_not_told_like_this_is_told_as_a_whole() {
    let (b, c) = (
        version(line("a").newest(), 0, "b"),
        version(line("ab").newest(), 0, "c"),
    );
    let other = |version: &Version| Delta {
        records: vec![Record {
            tree: "t".into(),
            key: "k".into(),
            value: None,
        }],
        ..delta(version.clone())
    };
    for (what, deltas, expected) in [
        ("nothing is known", None, "gather"),
        (
            "all is as it was",
            Some(vec![delta(b.clone()), delta(c.clone())]),
            "feed 2",
        ),
        (
            "the second is otherwise",
            Some(vec![delta(b.clone()), other(&c)]),
            "feed 1",
        ),
        (
            "the first is otherwise",
            Some(vec![other(&b), delta(c)]),
            "gather",
        ),
    ] {
        let (mut follow, actions) = met(0, "abc", "a");
        assert_eq!(said(&actions), ["collect"]);
        let told = match follow.collected(deltas).as_slice() {
            [Action::Gather] => "gather".to_owned(),
            [Action::Send(Message::Feed { deltas })] => format!("feed {}", deltas.len()),
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(told, expected, "{what}");
    }
}

#[test]
fn before_a_greeting_nothing_else_is_heard() {
    let next = version(line("ab").newest(), 0, "c");
    let mut node = follow(1, "ab");
    assert_eq!(heard(&mut node, Message::Offer(delta(next.clone()))), []);
    node.up();
    assert_eq!(heard(&mut node, Message::Offer(delta(next))), []);
    assert_eq!(node.stand(), Stand::Greeting);
}

#[test]
fn programs_one_version_apart_understand_each_other() {
    let speaks = |protocol, oldest| Speaks { protocol, oldest };
    // What we speak and what they do; whether that goes together, and who is to be brought up to date otherwise.
    for (ours, theirs, expected) in [
        (speaks(1, 1), speaks(1, 1), None),
        (speaks(1, 1), speaks(2, 1), None),
        (speaks(2, 1), speaks(1, 1), None),
        (speaks(1, 1), speaks(3, 2), Some("newer ilb on this node")),
        (
            speaks(3, 2),
            speaks(1, 1),
            Some("newer ilb on the other node"),
        ),
    ] {
        let mut follow = Follow::new(0, ours, line("a"), false);
        follow.up();
        let greeting = Message::Hello(Hello {
            protocol: theirs.protocol,
            oldest: theirs.oldest,
            ..hello(1, "ab", false, true)
        });
        heard(&mut follow, greeting);
        match (expected, follow.stand()) {
            (None, stand) => assert_eq!(stand, Stand::Behind(1), "{ours:?} {theirs:?}"),
            (Some(part), Stand::Incompatible(words)) => {
                assert!(words.contains(part), "{ours:?} {theirs:?}: {words}");
                assert_eq!(follow.turn(), Turn::Alone, "it is as if it were away");
            }
            (Some(_), stand) => panic!("{ours:?} {theirs:?}: {stand:?}"),
        }
        assert_eq!(
            follow.may_lack(),
            expected.is_none() && theirs.protocol > ours.protocol
        );
    }
}

#[test]
fn who_may_lack_something_gets_everything_when_its_program_is_as_new() {
    let greeting = |protocol| {
        Message::Hello(Hello {
            protocol,
            incomplete: true,
            ..hello(1, "ab", false, true)
        })
    };
    let speaks = Speaks {
        protocol: 2,
        oldest: 1,
    };
    for (protocol, ours_lacks, expected) in [
        (1, false, &[] as &[&str]),
        (2, false, &["gather"]),
        (2, true, &["gather"]),
    ] {
        let mut follow = Follow::new(0, speaks, line("ab"), ours_lacks);
        follow.up();
        let actions = heard(&mut follow, greeting(protocol));
        assert_eq!(said(&actions), expected, "{protocol} {ours_lacks}");
    }
    let mut one = Follow::new(1, speaks, line("ab"), true);
    one.up();
    let zero = Hello {
        protocol: 2,
        incomplete: true,
        ..hello(0, "ab", false, true)
    };
    assert_eq!(
        heard(&mut one, Message::Hello(zero)),
        [],
        "one of two is enough"
    );
}

#[test]
fn two_of_the_same_number_are_no_pair() {
    let mut follow = follow(0, "a");
    follow.up();
    heard(&mut follow, Message::Hello(hello(0, "ab", false, true)));
    let Stand::Incompatible(words) = follow.stand() else {
        panic!("{:?}", follow.stand());
    };
    assert!(
        words.contains("both nodes say that they are node 0"),
        "{words}"
    );
}

#[test]
fn one_of_two_changes_things_of_its_own_accord() {
    // Node, whether it is active, whether the other one is if it is heard; whether it leads.
    for (node, ours, theirs, leads) in [
        (0, false, None, true),
        (1, false, None, true),
        (0, false, Some(false), true),
        (1, false, Some(false), false),
        (0, true, Some(true), true),
        (1, true, Some(true), false),
        (0, false, Some(true), false),
        (1, true, Some(false), true),
    ] {
        let mut follow = follow(node, "a");
        follow.set_active(ours);
        if let Some(active) = theirs {
            follow.up();
            heard(
                &mut follow,
                Message::Hello(hello(1 - node, "a", false, true)),
            );
            heard(&mut follow, Message::Active { active });
        }
        assert_eq!(follow.leads(), leads, "node {node}: {ours}, {theirs:?}");
    }
}
