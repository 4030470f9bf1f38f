//! Two managers of a pair, over loopback, with real identities and TLS: what one is told the other one has.

use std::net::{IpAddr, TcpListener};

use ilb_pair::follow::{
    Delta, Digest, Draft, Heard, Hello, Message, Numbers, Reason, Record, Version, VersionId, Whole,
};
use ilb_pair::{Identity, Secret};
use libilb::apply::ApplyOptions;
use libilb::model::Configuration;
use libilb::pair::Step;
use libilb::vrrp::VrrpSettings;

use super::*;
use crate::manager::following::FollowStatus;
use crate::pair::keep::{Kept, Membership};
use crate::pair::{Event as LinkEvent, PairLink};
use crate::store::codec::forward;
use crate::test_folder::TestFolder;

/// Two nodes, of which each may be away.
struct Two {
    folders: [TestFolder; 2],
    nodes: [Option<Bench>; 2],
}

fn membership(node: u8, peer: &Identity, secret: &Secret, port: u16) -> Membership {
    let here: IpAddr = "127.0.0.1".parse().unwrap();
    Membership {
        node,
        peer: peer.public(),
        secret: secret.clone(),
        address: here,
        local: here,
        listen: Some(here),
        port,
    }
}

impl Two {
    /// Both are in a pair, and neither is there.
    fn new(name: &str) -> Two {
        let folders = [0, 1].map(|node| TestFolder::new(&format!("{name}-{node}")));
        let keeps = [0, 1].map(|node: usize| Keep::new(folders[node].path()));
        let identities = [0, 1].map(|node: usize| keeps[node].identity().unwrap());
        let secret = Secret::generate().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        for node in 0..2 {
            let peer = &identities[1 - node];
            let member = membership(node as u8, peer, &secret, port);
            let kept = Kept {
                membership: Some(member),
                ..Kept::default()
            };
            keeps[node].store(&kept).unwrap();
        }
        Two {
            folders,
            nodes: [None, None],
        }
    }

    /// A node comes, with what it has.
    fn start(&mut self, node: usize, state: State) -> &Bench {
        let keep = Keep::new(self.folders[node].path());
        let bench = Bench::with_pair(true, state.clone(), None, keep);
        bench.set(|world| world.stored = Some(state));
        self.nodes[node].insert(bench)
    }

    /// A node goes, and leaves what was durable.
    async fn stop(&mut self, node: usize) -> State {
        let bench = self.nodes[node].take().unwrap();
        drop(bench._stop);
        bench._task.await.unwrap();
        let mut world = bench.world.lock().unwrap();
        world.stored.take().unwrap()
    }

    fn node(&self, node: usize) -> &Bench {
        self.nodes[node].as_ref().unwrap()
    }

    /// Both say that they have the same, and have.
    async fn together(&self) {
        for node in 0..2 {
            self.node(node).until(in_step).await;
        }
        let of = |node: usize| shared(&self.node(node).handle.view().state.configuration);
        // What a node has taken it shows a moment later.
        for _ in 0..1000 {
            if of(0) == of(1) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(of(0), of(1));
    }

    /// Both are there and have the same, beginning with these.
    async fn both(name: &str, zero: State, one: State) -> Two {
        let mut two = Two::new(name);
        two.start(0, zero);
        two.start(1, one);
        two.together().await;
        two
    }
}

fn step(view: &View) -> Step {
    let status = view.following.as_ref();
    status.map_or(Step::Unknown, |status| status.step.step)
}

fn in_step(view: &View) -> bool {
    step(view) == Step::InStep
}

fn status(bench: &Bench) -> FollowStatus {
    bench.handle.view().following.clone().unwrap()
}

/// Everything that follows.
fn shared(configuration: &Configuration) -> Configuration {
    let mut shared = configuration.clone();
    for (name, instance) in &configuration.vrrp {
        let mut instance = instance.as_ref().clone();
        (instance.priority, instance.enabled) = (0, false);
        shared.vrrp.insert(name.clone(), Arc::new(instance));
    }
    shared
}

fn configured() -> State {
    let mut configuration = Configuration::default();
    configuration
        .create_group("web", &["192.0.2.1", "192.0.2.2"])
        .unwrap();
    let mut settings = VrrpSettings::default();
    let text = "interface=eth0,vrid=51,addresses=192.0.2.80,priority=150";
    settings.parse(text).unwrap();
    configuration.create_vrrp("outer", &settings).unwrap();
    State {
        generation: 7,
        configuration,
        ..State::default()
    }
}

fn root() -> Author {
    Author::User {
        uid: 0,
        name: Some("root".into()),
    }
}

async fn change(bench: &Bench, change: Change) -> Result<Vec<String>, ManagerError> {
    bench.handle.change(root(), change).await
}

fn group(name: &str) -> Change {
    Change::CreateGroup {
        name: name.into(),
        servers: vec!["192.0.2.10".into()],
        source: Default::default(),
    }
}

fn names(bench: &Bench) -> Vec<String> {
    let view = bench.handle.view();
    view.state.configuration.groups.keys().cloned().collect()
}

#[tokio::test]
async fn who_joins_gets_everything_and_what_is_a_nodes_own_stays_its_own() {
    let two = Two::both("follow-join", configured(), State::default()).await;
    let one = two.node(1).handle.view();
    let instance = &one.state.configuration.vrrp.get("outer").unwrap();
    assert_eq!(
        (instance.priority, instance.interface.as_str()),
        (100, "eth0")
    );
    assert_eq!(one.state.configuration.next_server, 3);
    // Its own is changed on each, and nobody else hears of it.
    for (node, priority) in [(0, 200), (1, 60)] {
        let mut settings = VrrpSettings::default();
        settings.parse(&format!("priority={priority}")).unwrap();
        let name = "outer".to_owned();
        change(two.node(node), Change::ModifyVrrp { name, settings })
            .await
            .unwrap();
    }
    two.together().await;
    // What both share follows, and leaves that alone.
    let mut settings = VrrpSettings::default();
    settings.parse("interval=0.5").unwrap();
    let name = "outer".to_owned();
    change(two.node(0), Change::ModifyVrrp { name, settings })
        .await
        .unwrap();
    two.together().await;
    for (node, priority) in [(0, 200), (1, 60)] {
        let view = two.node(node).handle.view();
        let instance = view.state.configuration.vrrp.get("outer").unwrap().clone();
        assert_eq!(
            (instance.priority, instance.interval),
            (priority, 50),
            "{node}"
        );
    }
}

#[tokio::test]
async fn a_change_on_one_is_on_the_other_before_it_is_answered() {
    let two = Two::both("follow-change", State::default(), State::default()).await;
    for (node, name) in [(0, "a"), (1, "b"), (1, "c"), (0, "d")] {
        change(two.node(node), group(name)).await.unwrap();
        let stored = two.node(1 - node).world.lock().unwrap().stored.clone();
        let stored = stored.unwrap().configuration;
        assert!(stored.group(name).is_some(), "{name} is durable there");
        two.together().await;
        let there = two.node(1 - node).handle.view();
        let group = there.state.configuration.group(name).cloned();
        let here = two.node(node).handle.view();
        assert_eq!(
            group.as_ref(),
            here.state.configuration.group(name),
            "{name}"
        );
        let last = there.state.history.entries.iter().last().unwrap().1.clone();
        assert_eq!(last.author, Author::Peer("root".into()));
        assert_eq!(last.words, format!("create server group {name}"));
    }
    // Both at once: none is lost, none is there twice, and the order is the same.
    let at_once = |node: usize, name: &'static str| change(two.node(node), group(name));
    let (x, y, z) = tokio::join!(at_once(0, "x"), at_once(1, "y"), at_once(1, "z"));
    for result in [x, y, z] {
        result.unwrap();
    }
    two.together().await;
    assert_eq!(names(two.node(0)), ["a", "b", "c", "d", "x", "y", "z"]);
    let line = |node: usize| {
        let pair = two.node(node).handle.view().state.pair.clone().unwrap();
        let words = pair.line.versions().iter();
        words
            .map(|kept| kept.version.words.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(line(0), line(1));
    assert_eq!(line(0).len(), 8);
    // A mistake is refused where it is made, and changes nothing anywhere.
    let error = change(two.node(1), group("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    two.together().await;
    assert_eq!(line(0).len(), 8);
}

#[tokio::test]
async fn who_was_away_gets_what_it_missed_in_its_order() {
    let mut two = Two::both("follow-away", State::default(), State::default()).await;
    change(two.node(0), group("a")).await.unwrap();
    two.together().await;
    let state = two.stop(1).await;
    two.node(0).until(|view| step(view) == Step::Unknown).await;
    for name in ["b", "c", "d"] {
        change(two.node(0), group(name)).await.unwrap();
    }
    two.start(1, state);
    two.together().await;
    let view = two.node(1).handle.view();
    let entries = view.state.history.entries.values();
    let words: Vec<&str> = entries.map(|entry| entry.words.as_str()).collect();
    let last = ["b", "c", "d"].map(|name| format!("create server group {name}"));
    assert_eq!(words[words.len() - 3..], last);
    assert!(status(two.node(1)).notices.is_empty());
    // Node 1 alone gives other numbers than node 0 would.
    two.stop(0).await;
    two.node(1).until(|view| step(view) == Step::Unknown).await;
    change(two.node(1), group("e")).await.unwrap();
    let view = two.node(1).handle.view();
    assert!(view.state.configuration.group("e").unwrap().servers[0].number > 65_536);
}

#[tokio::test]
async fn of_conflicting_histories_one_wins_and_the_other_can_be_brought_back() {
    let mut two = Two::both("follow-fork", State::default(), State::default()).await;
    let (zero, one) = (two.stop(0).await, two.stop(1).await);
    two.start(0, zero);
    change(two.node(0), group("zero")).await.unwrap();
    let zero = two.stop(0).await;
    two.start(1, one);
    for name in ["one", "more"] {
        change(two.node(1), group(name)).await.unwrap();
    }
    let one = two.stop(1).await;
    let lost = zero.generation;
    two.start(0, zero);
    two.start(1, one);
    two.together().await;
    assert_eq!(
        names(two.node(0)),
        ["more", "one"],
        "who has more changes wins"
    );
    two.node(1)
        .until(|view| {
            view.following
                .as_ref()
                .is_some_and(|it| !it.notices.is_empty())
        })
        .await;
    let notice = |node: usize| status(two.node(node)).notices[0].words.clone();
    let words = notice(0);
    assert!(
        words.contains(&format!("'lbadm rollback {lost}'")),
        "{words}"
    );
    assert!(
        words.contains("1 change was made on this node and 2 changes"),
        "{words}"
    );
    let words = notice(1);
    assert!(
        words.contains("1 change was made on the other node"),
        "{words}"
    );
    // The loser's own comes back, on both.
    two.node(0).handle.rollback(root(), lost).await.unwrap();
    two.together().await;
    assert_eq!(names(two.node(1)), ["zero"]);
    // Whoever takes note does so for both.
    assert_eq!(
        two.node(0).handle.acknowledge_pair(root()).await.unwrap(),
        1
    );
    for node in 0..2 {
        two.node(node)
            .until(|view| {
                view.following
                    .as_ref()
                    .is_some_and(|it| it.notices.is_empty())
            })
            .await;
    }
}

#[tokio::test]
async fn a_full_disk_on_one_node_does_not_keep_the_other_from_its_work() {
    let mut two = Two::both("follow-full", State::default(), State::default()).await;
    two.node(1).set(|world| world.fail_store = true);
    change(two.node(0), group("a")).await.unwrap();
    two.node(0).until(|view| step(view) == Step::Ahead).await;
    let words = status(two.node(0)).step.words;
    assert!(
        words.contains("the other node does not take it") && words.contains("disk full"),
        "{words}"
    );
    change(two.node(0), group("b")).await.unwrap();
    let error = change(two.node(1), group("c")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Degraded);
    assert!(names(two.node(1)).is_empty());
    // There is room again.
    let world = two.node(1).world.clone();
    let state = world.lock().unwrap().stored.clone().unwrap();
    two.stop(1).await;
    two.start(1, state);
    two.together().await;
    assert_eq!(names(two.node(1)), ["a", "b"]);
}

#[tokio::test]
async fn what_the_first_node_cannot_have_is_taken_back_on_both_and_its_numbers_stay_used() {
    let two = Two::both("follow-back", State::default(), State::default()).await;
    two.node(0).connect(0).await;
    change(two.node(0), group("web")).await.unwrap();
    two.node(0).set(|world| world.refuse_spec = true);
    let error = change(two.node(0), rule("www", "198.51.100.1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FastpathRejected);
    two.together().await;
    let view = two.node(1).handle.view();
    assert!(view.state.configuration.rules.is_empty());
    assert_eq!(view.state.configuration.next_rule, 2);
    // What the second node cannot have is in force on the first, and known to be missing.
    two.node(0).set(|world| world.refuse_spec = false);
    two.node(1).connect(0).await;
    two.node(1).set(|world| world.refuse_spec = true);
    change(two.node(0), rule("www", "198.51.100.1"))
        .await
        .unwrap();
    two.node(0).until(|view| step(view) == Step::Ahead).await;
    assert!(status(two.node(0)).step.words.contains("not today"));
    assert!(
        two.node(1)
            .handle
            .view()
            .state
            .configuration
            .rules
            .is_empty()
    );
    let error = change(two.node(1), group("more")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("lacks 1 change"), "{error}");
    two.node(1).set(|world| world.refuse_spec = false);
    two.together().await;
    assert_eq!(two.node(1).handle.view().state.configuration.rules.len(), 1);
}

#[tokio::test]
async fn while_a_change_waits_for_its_confirmation_the_other_node_waits_too() {
    let two = Two::both("follow-confirm", configured(), State::default()).await;
    let document = "[group.web]\nservers = [\"192.0.2.9\"]\n".to_owned();
    let options = ApplyOptions {
        merge: true,
        confirm: Some(600),
        ..ApplyOptions::default()
    };
    let apply = two.node(0).handle.apply(root(), document.clone(), options);
    apply.await.unwrap();
    two.together().await;
    let error = change(two.node(1), group("more")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error.to_string().contains("waits for its confirmation"),
        "{error}"
    );
    assert!(two.node(0).handle.revert(root()).await.unwrap());
    two.together().await;
    let view = two.node(1).handle.view();
    let servers = &view.state.configuration.group("web").unwrap().servers;
    let addresses: Vec<String> = servers.iter().map(|it| it.address.to_string()).collect();
    assert_eq!(addresses, ["192.0.2.1", "192.0.2.2"]);
    change(two.node(1), group("more")).await.unwrap();
    two.together().await;
}

#[tokio::test]
async fn what_nobody_has_confirmed_is_taken_back_on_top_of_what_the_other_node_did_meanwhile() {
    let mut two = Two::both("follow-unconfirmed", configured(), State::default()).await;
    let document = "[group.web]\nservers = [\"192.0.2.9\"]\n".to_owned();
    let options = ApplyOptions {
        merge: true,
        confirm: Some(600),
        ..ApplyOptions::default()
    };
    let apply = two.node(0).handle.apply(root(), document, options);
    apply.await.unwrap();
    two.together().await;
    let zero = two.stop(0).await;
    two.node(1).until(|view| step(view) == Step::Unknown).await;
    change(two.node(1), group("meanwhile")).await.unwrap();
    two.start(0, zero);
    // Who waits takes nothing.
    let waits = |view: &View| {
        let status = view.following.as_ref();
        status.is_some_and(|it| it.step.words.contains("waits for its confirmation"))
    };
    two.node(1).until(waits).await;
    two.node(0).until(|view| step(view) == Step::Behind).await;
    assert!(two.node(0).handle.revert(root()).await.unwrap());
    two.together().await;
    for node in 0..2 {
        let view = two.node(node).handle.view();
        let configuration = &view.state.configuration;
        let servers = &configuration.group("web").unwrap().servers;
        let addresses: Vec<String> = servers.iter().map(|it| it.address.to_string()).collect();
        assert_eq!(addresses, ["192.0.2.1", "192.0.2.2"], "node {node}");
        assert!(configuration.group("meanwhile").is_some(), "node {node}");
        let notices = status(two.node(node)).notices;
        assert!(notices.is_empty(), "node {node}: {notices:?}");
    }
}

/// Somebody who is the other node by his key, and says what he likes.
struct Liar {
    link: PairLink,
    _folder: TestFolder,
}

impl Liar {
    /// Node 1 to this node 0.
    async fn connect(two: &Two) -> Liar {
        let keep = Keep::new(two.folders[1].path());
        let kept = keep.load().unwrap();
        let folder = TestFolder::new("follow-liar");
        let mut link = PairLink::start();
        link.be(keep.identity().ok().zip(kept.membership));
        let up = async { while !matches!(link.event().await, LinkEvent::Up { .. }) {} };
        tokio::time::timeout(Duration::from_secs(20), up)
            .await
            .unwrap();
        Liar {
            link,
            _folder: folder,
        }
    }

    /// The next message that is wanted.
    async fn hear<T>(&mut self, wanted: impl Fn(&Message) -> Option<T>) -> T {
        let hear = async {
            loop {
                if let LinkEvent::Message(frame) = self.link.event().await
                    && let Ok(Heard::Message(message)) = Message::decode(&frame)
                    && let Some(found) = wanted(&message)
                {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), hear)
            .await
            .unwrap()
    }

    fn say(&self, message: &Message) {
        self.link.send(message.encode());
    }

    /// Why a version was refused, if this message says so.
    fn refusal_of(id: VersionId, message: &Message) -> Option<(Reason, String)> {
        match message {
            Message::Refused {
                id: of,
                reason,
                words,
            } if *of == id => Some((*reason, words.clone())),
            _ => None,
        }
    }

    fn hello(&self, line: &[VersionId], protocol: u32, oldest: u32) {
        self.say(&Message::Hello(Hello {
            protocol,
            oldest,
            node: 1,
            line: line.to_vec(),
            active: false,
            incomplete: false,
            answer: false,
        }));
    }
}

#[tokio::test]
async fn rubbish_of_the_other_node_is_refused_as_a_whole() {
    let mut two = Two::new("follow-rubbish");
    two.start(0, configured());
    let mut liar = Liar::connect(&two).await;
    let greeted = |message: &Message| match message {
        Message::Hello(hello) => Some(hello.clone()),
        _ => None,
    };
    let ours = liar.hear(greeted).await;
    liar.hello(&ours.line, 1, 1);
    two.node(0).until(in_step).await;
    let before = two.node(0).handle.view().state.clone();
    let line = &before.pair.as_ref().unwrap().line;
    let record = |tree: &str, key: &str, value: serde_json::Value| Record {
        tree: tree.into(),
        key: key.into(),
        value: (!value.is_null()).then_some(value),
    };
    let empty = serde_json::json!({"name": "x", "next_index": 0});
    let server = serde_json::json!({"group": "nowhere", "server": {"number": 9, "id": "_nowhere.0", "address": "192.0.2.1", "enabled": true}});
    let numbered = serde_json::json!({"group": "web", "server": {"number": 77, "id": "_web.9", "address": "192.0.2.1", "enabled": true}});
    for (number, (records, why)) in [
        (
            vec![record("meta", "schema", empty.clone())],
            "\"meta\" is nothing that this version knows",
        ),
        (
            vec![record("moods", "good", empty.clone())],
            "\"moods\" is nothing that this version knows",
        ),
        (
            vec![record("rules", "1", serde_json::json!(7))],
            "1 of rules: invalid type",
        ),
        (
            vec![record("rules", "1", serde_json::Value::Null)],
            "was to be deleted and is not there",
        ),
        (
            vec![record("groups", "y", empty.clone())],
            "contradict each other",
        ),
        (
            vec![record("groups", "x", empty), record("servers", "9", server)],
            "there is no group",
        ),
        (vec![record("servers", "77", numbered)], "server"),
        (
            vec![
                record("groups", "web", serde_json::Value::Null),
                record("vrrp", "outer", serde_json::json!({})),
            ],
            "of vrrp",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let draft = Draft {
            time: number as u64,
            digest: Digest::of(&records),
            ..Draft::default()
        };
        let version = Version::new(line.newest(), 1, &draft);
        let id = version.id;
        liar.link.send(b"rubbish".to_vec());
        liar.link.send(br#"{"kind":"dance"}"#.to_vec());
        liar.say(&Message::Offer(Delta {
            version,
            records,
            numbers: Numbers::default(),
        }));
        let (reason, words) = liar.hear(|message| Liar::refusal_of(id, message)).await;
        assert_eq!(reason, Reason::Cannot, "{words}");
        assert!(words.contains(why), "{words:?} has {why:?}");
    }
    // What has another content than its name says is not even looked at.
    let version = Version::new(line.newest(), 1, &Draft::default());
    let id = version.id;
    liar.say(&Message::Offer(Delta {
        version,
        records: vec![record("groups", "web", serde_json::Value::Null)],
        numbers: Numbers::default(),
    }));
    let (reason, words) = liar.hear(|message| Liar::refusal_of(id, message)).await;
    assert_eq!(reason, Reason::Forged);
    assert!(words.contains("is not what its name says"), "{words}");
    let after = two.node(0).handle.view().state.clone();
    assert_eq!(after, before, "nothing is otherwise");
    change(two.node(0), group("still")).await.unwrap();
}

#[tokio::test]
async fn programs_one_protocol_apart_are_a_pair_and_two_apart_say_so() {
    let mut two = Two::new("follow-versions");
    two.start(0, configured());
    let mut liar = Liar::connect(&two).await;
    let greeted = |message: &Message| match message {
        Message::Hello(hello) => Some(hello.clone()),
        _ => None,
    };
    let ours = liar.hear(greeted).await;
    // A later one that understands us.
    liar.hello(&ours.line, 2, 1);
    two.node(0).until(in_step).await;
    // One that does not understand us any more.
    liar.hello(&ours.line, 3, 2);
    two.node(0).until(|view| step(view) == Step::Unknown).await;
    let words = status(two.node(0)).step.words;
    assert!(
        words.contains("install a newer ilb on this node"),
        "{words}"
    );
    change(two.node(0), group("alone")).await.unwrap();
}

#[tokio::test]
async fn what_only_a_later_program_knows_is_left_out_and_told_again_when_this_one_is_as_new() {
    let mut two = Two::new("follow-later");
    two.start(0, configured());
    let greeted = |message: &Message| match message {
        Message::Hello(hello) => Some(hello.clone()),
        _ => None,
    };
    let done = |message: &Message| match message {
        Message::Done { id } => Some(Ok(*id)),
        Message::Refused { words, .. } => Some(Err(words.clone())),
        _ => None,
    };
    let mut liar = Liar::connect(&two).await;
    let ours = liar.hear(greeted).await;
    liar.hello(&ours.line, 2, 1);
    two.node(0).until(in_step).await;
    // What a later program has made of everything: more in each, and something of another kind.
    let before = two.node(0).handle.view().state.clone();
    let mut after = before.configuration.clone();
    let mut vrrp = VrrpSettings::default();
    vrrp.parse("interface=eth1,vrid=52,addresses=192.0.2.81")
        .unwrap();
    let name = "later".to_owned();
    let changes = [
        group("later"),
        rule("later", "198.51.100.7"),
        Change::CreateVrrp {
            name: name.clone(),
            settings: vrrp,
        },
        Change::CreateCheck {
            name,
            settings: Box::new(libilb::healthcheck::HealthCheckSettings {
                test: Some("tcp".into()),
                ..Default::default()
            }),
        },
    ];
    for change in changes {
        change.apply(&mut after).unwrap();
    }
    let mut records = forward::records(&before.configuration, &after);
    let mut kinds: Vec<String> = records.iter().map(|record| record.tree.clone()).collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        ["rules", "groups", "servers", "health-checks", "vrrp"]
    );
    for value in records
        .iter_mut()
        .filter_map(|record| record.value.as_mut())
    {
        value["colour"] = serde_json::json!("red");
        if value.get("server").is_some() {
            value["server"]["shade"] = serde_json::json!({"of": "grey"});
        }
    }
    records.push(Record {
        tree: "moods".into(),
        key: "good".into(),
        value: Some(serde_json::json!({"since": 7})),
    });
    let offer = |parent: &Version, records: Vec<Record>| {
        let draft = Draft {
            digest: Digest::of(&records),
            ..Draft::default()
        };
        Delta {
            version: Version::new(Some(parent), 1, &draft),
            records,
            numbers: forward::numbers(&after),
        }
    };
    let parent = before.pair.as_ref().unwrap().line.newest().unwrap().clone();
    let delta = offer(&parent, records.clone());
    let (told, id) = (delta.version.clone(), delta.version.id);
    liar.say(&Message::Offer(delta));
    assert_eq!(liar.hear(done).await, Ok(id));
    let has = |configuration: &Configuration| {
        let own = |it: &Configuration| {
            let mut it = shared(it);
            it.vrrp.remove(&"later".to_owned());
            it
        };
        assert_eq!(own(configuration), own(&after));
        let instance = configuration.vrrp.get("later").unwrap();
        assert_eq!(instance.addresses, after.vrrp["later"].addresses);
    };
    has(&two.node(0).handle.view().state.configuration);
    // A value that is not known would be something else without it.
    let mut strange = records.clone();
    strange.retain(|record| record.tree == "rules");
    strange[0].value.as_mut().unwrap()["algorithm"] = serde_json::json!("telepathy");
    liar.say(&Message::Offer(offer(&told, strange)));
    let words = liar.hear(done).await.unwrap_err();
    assert!(words.contains("telepathy"), "{words}");
    // It knows, durably, that it may lack something, and says so.
    liar.hello(&[&ours.line[..], &[id]].concat(), 2, 1);
    assert!(liar.hear(greeted).await.incomplete);
    let state = two.stop(0).await;
    drop(liar);
    two.start(0, state);
    let mut liar = Liar::connect(&two).await;
    let ours = liar.hear(greeted).await;
    assert!(ours.incomplete);
    // Now both are programs of one age: it gets everything once more.
    liar.hello(&ours.line, 1, 1);
    let line = two.node(0).handle.view().state.pair.clone().unwrap();
    let versions = line.line.versions().iter();
    liar.say(&Message::Whole {
        instead: id,
        whole: Whole {
            line: versions.map(|kept| kept.version.clone()).collect(),
            records: forward::records(&Configuration::default(), &after),
            numbers: forward::numbers(&after),
        },
    });
    assert_eq!(liar.hear(done).await, Ok(id));
    liar.hello(&ours.line, 1, 1);
    assert!(!liar.hear(greeted).await.incomplete);
    has(&two.node(0).handle.view().state.configuration);
}

#[tokio::test]
async fn one_node_lets_discovery_change_the_configuration_and_the_other_goes_on_when_it_is_gone() {
    let mut two = Two::both("follow-sources", State::default(), State::default()).await;
    let mut source = libilb::source::SourceSettings::default();
    source.parse("dns=a.example.com,hold=0").unwrap();
    let name = "App".to_owned();
    let servers = Vec::new();
    let made = change(
        two.node(1),
        Change::CreateGroup {
            name,
            servers,
            source,
        },
    );
    made.await.unwrap();
    two.together().await;
    async fn hear(two: &mut Two, node: usize, octets: &[u8]) {
        let bench = two.nodes[node].as_mut().unwrap();
        let serial = bench.asked().await;
        bench.hear(serial, sources::all(octets)).await;
    }
    // Neither is active: node 0 leads, and what node 1 finds changes nothing.
    hear(&mut two, 1, &[7, 8]).await;
    two.together().await;
    assert_eq!(two.node(1).servers(), [""; 0]);
    hear(&mut two, 0, &[1, 2]).await;
    two.together().await;
    for node in 0..2 {
        assert_eq!(two.node(node).servers(), ["192.0.2.1", "192.0.2.2"]);
    }
    let view = two.node(1).handle.view();
    let last = view.state.history.entries.iter().last().unwrap().1.clone();
    assert_eq!(last.author, Author::Peer("discovery of App".into()));
    // It dies, and the other one goes on with what it finds.
    let zero = two.stop(0).await;
    two.node(1).until(|view| step(view) == Step::Unknown).await;
    hear(&mut two, 1, &[2, 3]).await;
    assert_eq!(two.node(1).servers(), ["192.0.2.2", "192.0.2.3"]);
    // Who comes back gets that, and leads again.
    two.start(0, zero);
    two.together().await;
    assert_eq!(two.node(0).servers(), ["192.0.2.2", "192.0.2.3"]);
    hear(&mut two, 1, &[9]).await;
    hear(&mut two, 0, &[3]).await;
    two.together().await;
    for node in 0..2 {
        assert_eq!(two.node(node).servers(), ["192.0.2.3"], "node {node}");
        assert!(status(two.node(node)).notices.is_empty());
    }
}
