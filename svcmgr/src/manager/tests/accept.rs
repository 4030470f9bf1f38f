//! Accept mode within the manager: which addresses the fast path is told to close, and when.

use ilb_vrrp::{Driver, News, Server};
use libilb::vrrp::{VrrpSettings, VrrpState, VrrpStatus};

use super::*;

/// A manager with somebody at the other end of VRRP who says where instances stand.
fn bench() -> (Bench, Server) {
    let (driver, server) = Driver::pair();
    let keep = Keep::new("/nowhere".as_ref());
    let bench = Bench::with_driver(true, State::default(), None, keep, driver);
    (bench, server)
}

async fn create(bench: &Bench, name: &str, text: &str) {
    let mut settings = VrrpSettings::default();
    settings.parse(text).unwrap();
    let name = name.to_owned();
    bench
        .change(Change::CreateVrrp { name, settings })
        .await
        .unwrap();
}

async fn modify(bench: &Bench, name: &str, text: &str) {
    let mut settings = VrrpSettings::default();
    settings.parse(text).unwrap();
    let name = name.to_owned();
    bench
        .change(Change::ModifyVrrp { name, settings })
        .await
        .unwrap();
}

/// An instance goes to a state, and everybody can see it.
async fn stands(bench: &Bench, server: &Server, name: &str, state: VrrpState) {
    let status = VrrpStatus {
        state,
        why: "said so".to_owned(),
        ..VrrpStatus::default()
    };
    let news = News {
        name: name.to_owned(),
        status,
        other: None,
    };
    server.news.send(news).unwrap();
    let there = |view: &View| view.vrrp.get(name).is_some_and(|it| it.state == state);
    bench.until(there).await;
}

#[track_caller]
fn closed(bench: &Bench, given: &str, expected: &[&str]) {
    let closed = bench.world.lock().unwrap().closed.clone();
    let closed: Vec<String> = closed.iter().map(ToString::to_string).collect();
    assert_eq!(closed, expected, "{given}");
}

fn why(bench: &Bench, name: &str) -> String {
    bench.handle.view().vrrp.get(name).unwrap().why.clone()
}

#[tokio::test]
async fn addresses_are_closed_while_an_instance_is_active() {
    let (bench, server) = bench();
    bench.connect(0).await;
    let of = "interface=eth0,track=none";
    create(
        &bench,
        "shut",
        &format!("{of},vrid=1,addresses=192.0.2.1,192.0.2.2,accept=no"),
    )
    .await;
    create(
        &bench,
        "six",
        &format!("{of},vrid=2,addresses=fe80::80,accept=no"),
    )
    .await;
    create(&bench, "open", &format!("{of},vrid=3,addresses=192.0.2.3")).await;
    create(
        &bench,
        "own",
        &format!("{of},vrid=4,addresses=192.0.2.4,accept=no,priority=255"),
    )
    .await;
    let both = ["192.0.2.1", "192.0.2.2"];
    for (name, state, expected) in [
        ("shut", VrrpState::Backup, &[][..]),
        ("open", VrrpState::Active, &[]),
        ("own", VrrpState::Active, &[]),
        ("shut", VrrpState::Active, &both),
        (
            "six",
            VrrpState::Active,
            &["192.0.2.1", "192.0.2.2", "fe80::80"],
        ),
        ("six", VrrpState::Fault, &both),
        ("shut", VrrpState::Backup, &[]),
        ("shut", VrrpState::Active, &both),
    ] {
        stands(&bench, &server, name, state).await;
        closed(&bench, &format!("when {name} is {state}"), expected);
        assert_eq!(why(&bench, name), "said so");
    }
    modify(&bench, "shut", "accept=yes").await;
    closed(&bench, "when it accepts", &[]);
    modify(&bench, "open", "accept=no").await;
    closed(&bench, "when another does not", &["192.0.2.3"]);
    modify(&bench, "own", "priority=254").await;
    closed(
        &bench,
        "when nobody is the owner",
        &["192.0.2.3", "192.0.2.4"],
    );
    let gone = Change::DeleteVrrp(vec!["open".into(), "own".into()]);
    bench.change(gone).await.unwrap();
    closed(&bench, "when the instances are gone", &[]);
    // Nothing is said twice.
    let said = bench.world.lock().unwrap().closings;
    stands(&bench, &server, "shut", VrrpState::Backup).await;
    assert_eq!(bench.world.lock().unwrap().closings, said);
}

#[tokio::test]
async fn each_fast_path_is_told_whatever_it_had_before() {
    let (bench, server) = bench();
    create(
        &bench,
        "shut",
        "interface=eth0,vrid=1,addresses=192.0.2.1,accept=no",
    )
    .await;
    stands(&bench, &server, "shut", VrrpState::Active).await;
    let absent = "said so; accept=no has no effect without a fast path";
    assert_eq!(why(&bench, "shut"), absent);
    for _ in 0..2 {
        bench.set(|world| world.closed.clear());
        bench.connect(0).await;
        closed(&bench, "given a fast path that comes", &["192.0.2.1"]);
        assert_eq!(why(&bench, "shut"), "said so");
        bench.disconnect().await;
    }
    stands(&bench, &server, "shut", VrrpState::Backup).await;
    closed(&bench, "given none, nobody can be told", &["192.0.2.1"]);
    bench.connect(0).await;
    closed(&bench, "given one that has what was closed before", &[]);
}

#[tokio::test]
async fn what_cannot_be_closed_is_said() {
    let (bench, server) = bench();
    bench.set(|world| world.refuse_closing = true);
    bench.connect(0).await;
    create(
        &bench,
        "away",
        "interface=eth7,vrid=1,addresses=192.0.2.1,accept=no",
    )
    .await;
    create(
        &bench,
        "shut",
        "interface=eth0,vrid=2,addresses=192.0.2.2,accept=no",
    )
    .await;
    stands(&bench, &server, "away", VrrpState::Backup).await;
    assert_eq!(why(&bench, "away"), "said so");
    stands(&bench, &server, "away", VrrpState::Active).await;
    closed(
        &bench,
        "given an interface that the fast path does not have",
        &[],
    );
    let expected =
        "said so; accept=no has no effect, because eth7 is none of the fast path's interfaces";
    assert_eq!(why(&bench, "away"), expected);
    stands(&bench, &server, "shut", VrrpState::Active).await;
    let expected =
        "said so; accept=no has no effect, because the fast path does not see to it: no room";
    assert_eq!(why(&bench, "shut"), expected);
    closed(&bench, "given a fast path that refuses", &[]);
}
