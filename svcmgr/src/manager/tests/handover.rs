//! What the fast path is told of nodes that addresses are taken over from: before it is needed, and only in a pair.

use ilb_vrrp::{Driver, News};
use libilb::vrrp::{VrrpSettings, VrrpState, VrrpStatus};

use super::pair::member;
use super::*;
use crate::test_folder::TestFolder;

/// An instance `outer` on eth0 says where it stands.
fn says(state: VrrpState, other: Option<&str>) -> News {
    News {
        name: "outer".into(),
        status: VrrpStatus {
            state,
            ..VrrpStatus::default()
        },
        other: other.map(|it| it.parse().unwrap()),
    }
}

async fn bench(keep: Keep) -> (Bench, ilb_vrrp::Server) {
    let (driver, server) = Driver::pair();
    let bench = Bench::with_driver(true, State::default(), None, keep, driver);
    bench.connect(0).await;
    let mut settings = VrrpSettings::default();
    settings
        .parse("interface=eth0,vrid=51,addresses=192.0.2.80,track=none")
        .unwrap();
    let name = "outer".to_owned();
    bench
        .change(Change::CreateVrrp { name, settings })
        .await
        .unwrap();
    (bench, server)
}

fn told(bench: &Bench) -> Vec<String> {
    let log = bench.world.lock().unwrap().log.clone();
    let about = |line: &String| line.starts_with("handover");
    log.into_iter().filter(about).collect()
}

/// Sends news, and returns when what comes of it has been done.
async fn hear(bench: &Bench, server: &ilb_vrrp::Server, news: News) {
    let state = news.status.state;
    server.news.send(news).unwrap();
    bench
        .until(|view| view.vrrp.get("outer").is_some_and(|it| it.state == state))
        .await;
    // What is told is told before anything else is done.
    bench.handle.attend().await.unwrap();
    bench.handle.attend().await.unwrap();
}

#[tokio::test]
async fn the_fast_path_knows_who_is_active_before_this_node_takes_over() {
    let folder = TestFolder::new("handover-told");
    let (bench, server) = bench(member(folder.path())).await;
    let one = Some("192.0.2.1");
    hear(&bench, &server, says(VrrpState::Backup, None)).await;
    hear(&bench, &server, says(VrrpState::Backup, one)).await;
    hear(&bench, &server, says(VrrpState::Active, one)).await;
    let expected = [
        "handover",
        "handover eth0 192.0.2.1",
        "handover eth0 192.0.2.1 for a while",
    ];
    assert_eq!(
        told(&bench),
        expected,
        "given a takeover from one that lives"
    );

    hear(&bench, &server, says(VrrpState::Backup, one)).await;
    hear(&bench, &server, says(VrrpState::Active, None)).await;
    let expected = ["handover eth0 192.0.2.1", "handover"];
    assert_eq!(told(&bench)[3..], expected, "given one that was silent");

    hear(&bench, &server, says(VrrpState::Backup, one)).await;
    bench.disconnect().await;
    bench.connect(0).await;
    bench.handle.attend().await.unwrap();
    let again = ["handover eth0 192.0.2.1"; 2];
    assert_eq!(told(&bench)[5..], again, "given another fast path");

    let author = Author::of_number(0);
    assert_eq!(bench.handle.leave_pair(author).await, Ok(true));
    bench.handle.attend().await.unwrap();
    assert_eq!(told(&bench)[7..], ["handover"], "given no pair any more");
}

#[tokio::test]
async fn without_a_pair_nobody_is_told_of() {
    let folder = TestFolder::new("handover-alone");
    let (bench, server) = bench(Keep::new(folder.path())).await;
    for state in [VrrpState::Backup, VrrpState::Active] {
        hear(&bench, &server, says(state, Some("192.0.2.1"))).await;
    }
    assert_eq!(told(&bench), [""; 0]);
}
