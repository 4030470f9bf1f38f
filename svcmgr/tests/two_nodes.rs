//! Two managers become a pair over loopback, each on a bus of its own, with simulated fast paths: everything but packets.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use common::{Bus, Node, PATIENCE, Process};
use libilb::ErrorKind;
use libilb::client::{Client, ClientError};
use libilb::pair::{Invitation, PairDescription, Step};

/// A node with what belongs to it.
struct One {
    // It ends before its folder and its bus go.
    manager: Option<Process>,
    node: Node,
    bus: Bus,
    client: Client,
}

impl One {
    async fn new() -> One {
        let (bus, node) = (Bus::start(), Node::new());
        let (manager, client) = node.start_sim(&bus).await;
        One {
            node,
            bus,
            client,
            manager: Some(manager),
        }
    }

    async fn restart(&mut self) {
        drop(self.manager.take());
        let (manager, client) = self.node.start_sim(&self.bus).await;
        (self.manager, self.client) = (Some(manager), client);
    }

    async fn until(&self, what: &str, is: impl Fn(&PairDescription) -> bool) -> PairDescription {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pair = self.client.describe_pair().await.expect("an answer");
            if is(&pair) {
                return pair;
            }
            assert!(Instant::now() < deadline, "in vain: {what}: {pair:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its number").port()
}

async fn invite(one: &One, port: u16) -> Invitation {
    let address = "127.0.0.1".parse().expect("an address");
    let invited = one.client.create_pair(Some(address), port).await;
    invited.expect("a token")
}

async fn join(one: &One, invitation: &Invitation, replace: bool) -> Result<(), ClientError> {
    let address = invitation.host.parse().expect("an address");
    let (port, token) = (invitation.port, &invitation.token);
    one.client.join_pair(address, port, token, replace).await
}

#[track_caller]
fn refused(result: Result<(), ClientError>, kind: ErrorKind, words: &str) {
    match result {
        Err(ClientError::Refused {
            kind: found,
            message,
        }) if found == kind && message.contains(words) => {}
        other => panic!("refused as {kind:?} because {words}: {other:?}"),
    }
}

#[tokio::test]
async fn two_nodes_become_a_pair_stay_one_over_restarts_and_part() {
    let (mut first, mut second, third) = (One::new().await, One::new().await, One::new().await);
    let before = first.client.describe_pair().await.unwrap();
    assert!(!before.paired && before.there.is_none(), "{before:?}");

    // Who has something of its own is asked whether it may go.
    second
        .client
        .create_group("own", &["192.0.2.9"])
        .await
        .unwrap();
    let invitation = invite(&first, free_port()).await;
    assert!(first.client.describe_pair().await.unwrap().open_until > 0);
    let joined = join(&second, &invitation, false).await;
    refused(joined, ErrorKind::Conflict, "1 server group");

    // A token of somebody else's opens nothing.
    let other = invite(&third, free_port()).await;
    let forged = Invitation {
        token: other.token.clone(),
        ..invitation.clone()
    };
    refused(
        join(&second, &forged, true).await,
        ErrorKind::Failed,
        "cannot join",
    );

    join(&second, &invitation, true).await.expect("joined");
    for (one, number, name) in [(&first, 0, "first"), (&second, 1, "second")] {
        let pair = one
            .until("both hear each other", |pair| {
                pair.link.up && pair.there.is_some()
            })
            .await;
        assert!(pair.paired && pair.open_until == 0, "{name}: {pair:?}");
        assert_eq!(pair.here.node, number, "{name}");
        let there = pair.there.unwrap();
        assert_eq!(there.node, 1 - number, "{name}");
        assert_eq!(there.software, env!("CARGO_PKG_VERSION"), "{name}");
        assert!(
            pair.connections.is_none() || !pair.connections.unwrap().up,
            "{name}"
        );
    }
    // It was good for one, and for once.
    refused(
        join(&third, &invitation, false).await,
        ErrorKind::Failed,
        "cannot join",
    );
    let again = first.client.create_pair(None, 0).await.map(drop);
    refused(again, ErrorKind::Conflict, "in a pair already");
    refused(
        join(&second, &invitation, true).await,
        ErrorKind::Conflict,
        "in a pair already",
    );

    // What a node is told of the other one is told at once.
    assert!(second.client.set_maintenance(true).await.unwrap());
    first
        .until("the other one is in maintenance", |pair| {
            pair.there.as_ref().is_some_and(|it| it.maintenance)
        })
        .await;

    // The port says nothing to a stranger.
    let mut stranger = TcpStream::connect((invitation.host.as_str(), invitation.port)).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = Vec::new();
    // Whether the end is a reset or not.
    let _ = stranger.read_to_end(&mut said);
    assert!(said.is_empty(), "{said:?}");
    first
        .until("the stranger is counted", |pair| {
            pair.refused.values().sum::<u64>() > 0
        })
        .await;

    // Each restarts, and they find each other again.
    second.restart().await;
    let pair = second
        .until("they hear each other again", |it| it.link.up)
        .await;
    assert!(pair.here.maintenance, "over a restart");
    first.restart().await;
    for one in [&first, &second] {
        one.until("they hear each other again", |it| it.link.up)
            .await;
    }
    for one in [&first, &second] {
        for name in ["pair.json", "pair.key"] {
            let path = one.node.path("state").join(name);
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    // One dies; the other one notices.
    drop(second.manager.take());
    let pair = first.until("the link is down", |it| !it.link.up).await;
    assert!(!pair.link.why.is_empty());
    second.restart().await;
    first.until("the link is up", |it| it.link.up).await;

    // They part: who is left alone knows it, and whom it has lost, also after a restart.
    assert!(second.client.leave_pair().await.unwrap());
    assert!(!second.client.leave_pair().await.unwrap());
    let is_alone = |it: &PairDescription| it.left.is_some();
    let pair = first.until("it is told", is_alone).await;
    assert!(!pair.paired && !pair.link.up, "{pair:?}");
    first.restart().await;
    let pair = first.until("it still knows", is_alone).await;
    let left = pair.left.clone().unwrap();
    let name = host_name();
    assert_eq!((left.name, left.address.as_str()), (name, "127.0.0.1"));
    let shown = first.client.describe().await.unwrap().pair.unwrap();
    assert_eq!(shown.left, pair.left, "status has it, too");
    // It goes on by itself.
    first
        .client
        .create_group("alone", &["192.0.2.1"])
        .await
        .unwrap();
    assert!(first.client.leave_pair().await.unwrap(), "taken note of");
    for one in [&first, &second] {
        let pair = one.client.describe_pair().await.unwrap();
        assert!(
            !pair.paired && !pair.link.up && pair.left.is_none(),
            "{pair:?}"
        );
        assert_eq!(one.client.describe().await.unwrap().pair, None);
    }
    // And may become another pair.
    let invitation = invite(&second, free_port()).await;
    join(&first, &invitation, true).await.expect("joined");
    let pair = first.until("both hear each other", |it| it.link.up).await;
    assert_eq!(pair.here.node, 1);
}

/// Name of this machine.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("there is one");
    name.trim().to_owned()
}

async fn groups(one: &One) -> Vec<String> {
    let node = one.client.describe().await.expect("an answer");
    node.groups.into_iter().map(|group| group.name).collect()
}

#[tokio::test]
async fn who_was_left_is_in_another_pair_with_one_command() {
    // Which of the two nodes leaves, and what the other one does next: nothing of the former pair is in its way.
    for (leaver, joins) in [(0, true), (1, false)] {
        let what = format!("node {leaver} leaves, the other one joins: {joins}");
        let both = [One::new().await, One::new().await];
        let invitation = invite(&both[0], free_port()).await;
        join(&both[1], &invitation, true).await.expect("joined");
        for one in &both {
            let in_step = |pair: &PairDescription| pair.configuration.step == Step::InStep;
            one.until(&what, in_step).await;
        }
        // The longer its line of changes is, the more it could seem to have the newer one.
        for number in 0..3 {
            let name = format!("former-{number}");
            let made = both[1].client.create_group(&name, &["192.0.2.1"]).await;
            made.expect(&what);
        }
        assert!(both[leaver].client.leave_pair().await.expect(&what));
        let left = &both[1 - leaver];
        left.until("it is told", |pair| pair.left.is_some()).await;
        let third = One::new().await;
        third
            .client
            .create_group("third", &["192.0.2.3"])
            .await
            .expect(&what);
        let (creator, joiner) = match joins {
            true => (&third, left),
            false => (left, &third),
        };
        let invitation = invite(creator, free_port()).await;
        join(joiner, &invitation, true).await.expect(&what);
        let expected = groups(creator).await;
        for one in [creator, joiner] {
            let in_step = |pair: &PairDescription| {
                pair.link.up && pair.left.is_none() && pair.configuration.step == Step::InStep
            };
            one.until(&what, in_step).await;
            assert_eq!(groups(one).await, expected, "{what}");
        }
        let deadline = Instant::now() + PATIENCE;
        creator
            .client
            .create_group("next", &["192.0.2.9"])
            .await
            .expect(&what);
        while !groups(joiner).await.contains(&"next".to_owned()) {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn who_could_not_be_told_can_leave_by_itself() {
    let (mut first, second) = (One::new().await, One::new().await);
    let invitation = invite(&first, free_port()).await;
    join(&second, &invitation, false).await.expect("joined");
    first.until("they hear each other", |it| it.link.up).await;
    drop(first.manager.take());
    second.until("it is alone", |it| !it.link.up).await;
    assert!(second.client.leave_pair().await.unwrap());
    first.restart().await;
    let pair = first.until("it waits for it", |it| it.paired).await;
    assert!(!pair.link.up && pair.left.is_none(), "{pair:?}");
    let again = first.client.create_pair(None, 0).await.map(drop);
    refused(again, ErrorKind::Conflict, "'lbadm pair leave' ends that");
    assert!(first.client.leave_pair().await.unwrap());
    let invitation = invite(&first, free_port()).await;
    join(&second, &invitation, false).await.expect("joined");
    second.until("they hear each other", |it| it.link.up).await;
}

#[tokio::test]
async fn nothing_secret_is_said_or_written_where_others_read() {
    let (first, second) = (One::new().await, One::new().await);
    let invitation = invite(&first, free_port()).await;
    join(&second, &invitation, false).await.expect("joined");
    second.until("they hear each other", |it| it.link.up).await;
    let kept = std::fs::read_to_string(second.node.path("state/pair.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    let secret = kept["membership"]["secret"].as_str().unwrap().to_owned();
    assert_eq!(secret.len(), 64);
    let fast = ilb_pair::Secret::new(
        secret
            .parse::<ilb_pair::Secret>()
            .unwrap()
            .derive("ilb fast path"),
    );
    let hidden = [
        secret,
        fast.to_hex(),
        invitation.token.trim_start_matches("ilb1").to_owned(),
    ];
    let pair = second.client.describe_pair().await.unwrap();
    let described = second.client.describe().await.unwrap();
    let snapshots = second.node.path("state/snapshots");
    let mut texts = vec![format!("{pair:?}"), described.to_json().unwrap()];
    if let Ok(files) = std::fs::read_dir(snapshots) {
        texts.extend(files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()));
    }
    let process = second.manager.as_ref().unwrap().id();
    texts.push(std::fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap());
    for text in texts {
        for secret in &hidden {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
