//! The pair within the manager: what the fast path is told, what is kept, and when the addresses stay away.

use std::path::Path;

use ilb_pair::{Identity, Secret};
use libilb::vrrp::{VrrpSettings, VrrpState};

use super::*;
use crate::manager::error::PairError;
use crate::pair::keep::{Kept, Membership};
use crate::test_folder::TestFolder;

fn root() -> Author {
    Author::of_number(0)
}

fn bench(folder: &Path) -> Bench {
    Bench::with_pair(true, State::default(), None, Keep::new(folder))
}

/// As node 1 of a pair whose other node nobody reaches.
pub(super) fn member(folder: &Path) -> Keep {
    let keep = Keep::new(folder);
    keep.identity().unwrap();
    let kept = Kept {
        membership: Some(Membership {
            node: 1,
            peer: Identity::generate().unwrap().public(),
            secret: Secret::generate().unwrap(),
            address: "127.0.0.1".parse().unwrap(),
            local: "127.0.0.1".parse().unwrap(),
            listen: None,
            port: 1,
        }),
        ..Kept::default()
    };
    keep.store(&kept).unwrap();
    keep
}

async fn instance(bench: &Bench) {
    let mut settings = VrrpSettings::default();
    settings
        .parse("interface=eth0,vrid=51,addresses=192.0.2.80,track=none")
        .unwrap();
    let name = "outer".to_owned();
    let change = Change::CreateVrrp { name, settings };
    bench.handle.change(root(), change).await.unwrap();
}

fn stands(view: &View, state: VrrpState, why: &str) -> bool {
    let status = view.vrrp.get("outer");
    status.is_some_and(|status| status.state == state && status.why.contains(why))
}

#[tokio::test]
async fn each_fast_path_is_told_of_its_peer_before_anything_else() {
    let folder = TestFolder::new("pair-peer");
    let keep = member(folder.path());
    let bench = Bench::with_pair(true, State::default(), None, keep);
    let told = |bench: &Bench| -> Vec<String> {
        let log = bench.world.lock().unwrap().log.clone();
        let about = |line: &String| line.starts_with("peer") || line.starts_with("apply");
        log.into_iter().filter(about).collect()
    };
    bench.connect(0).await;
    bench.disconnect().await;
    bench.connect(0).await;
    bench.handle.attend().await.unwrap();
    let both = ["peer 127.0.0.1", "apply 0"];
    assert_eq!(told(&bench), [both, both].concat(), "given two fast paths");
    assert_eq!(bench.handle.leave_pair(root()).await, Ok(true));
    assert_eq!(
        told(&bench).last().unwrap(),
        "peer ",
        "given no pair any more"
    );
    assert_eq!(bench.handle.leave_pair(root()).await, Ok(false));
    bench.disconnect().await;
    bench.connect(0).await;
    bench.handle.attend().await.unwrap();
    assert_eq!(told(&bench).len(), 6, "{:?}", told(&bench));
    assert_eq!(Keep::new(folder.path()).load(), Ok(Kept::default()));
}

#[tokio::test]
async fn maintenance_keeps_addresses_away_and_leaves_the_configuration_alone() {
    let folder = TestFolder::new("pair-maintenance");
    let bench_one = bench(folder.path());
    instance(&bench_one).await;
    bench_one
        .until(|view| stands(view, VrrpState::Disabled, "simulated"))
        .await;
    let generation = bench_one.handle.view().state.generation;
    assert_eq!(
        bench_one.handle.set_maintenance(root(), true).await,
        Ok(true)
    );
    assert_eq!(
        bench_one.handle.set_maintenance(root(), true).await,
        Ok(false)
    );
    bench_one
        .until(|view| stands(view, VrrpState::Disabled, "maintenance"))
        .await;
    let view = bench_one.handle.view();
    assert_eq!(view.state.generation, generation);
    assert!(view.state.configuration.vrrp["outer"].enabled);
    let pair = bench_one.handle.describe_pair().await.unwrap();
    assert_eq!(pair.here.role(), "maintenance");

    // It is so after a restart, too.
    let state = view.state.clone();
    let again = Bench::with_pair(true, State::default(), None, Keep::new(folder.path()));
    drop((bench_one, state));
    instance(&again).await;
    again
        .until(|view| stands(view, VrrpState::Disabled, "maintenance"))
        .await;
    assert_eq!(again.handle.set_maintenance(root(), false).await, Ok(true));
    again
        .until(|view| stands(view, VrrpState::Disabled, "simulated"))
        .await;
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_the_reason_and_changes_nothing() {
    let folder = TestFolder::new("pair-refused");
    let bench = bench(folder.path());
    let refused = bench.handle.fail_over(root(), true).await.unwrap_err();
    assert_eq!(refused, PairError::NotPaired.into());
    bench
        .handle
        .change(
            root(),
            Change::CreateGroup {
                name: "web".into(),
                servers: vec!["192.0.2.1".into()],
                source: Default::default(),
            },
        )
        .await
        .unwrap();
    let token = ilb_pair::Token {
        secret: Secret::generate().unwrap(),
        creator: Identity::generate().unwrap().public(),
    };
    let (good, port) = (token.to_string(), 1);
    #[rustfmt::skip]
    let cases = [
        ("lb1", &*good, false, ErrorKind::InvalidArgument, "address 'lb1' is no address of a node"),
        ("0.0.0.0", &good, false, ErrorKind::InvalidArgument, "address '0.0.0.0' is no address of a node"),
        ("127.0.0.1", "hello", false, ErrorKind::InvalidArgument, "token: "),
        ("127.0.0.1", &good[..40], false, ErrorKind::InvalidArgument, "token: "),
        ("127.0.0.1", &good, false, ErrorKind::Conflict, "has a configuration of its own (1 server group)"),
        ("127.0.0.1", &good, true, ErrorKind::Failed, "127.0.0.1:1 cannot be reached"),
    ];
    for (address, token, replace, kind, words) in cases {
        let joined = bench
            .handle
            .join_pair(root(), address, port, token, replace)
            .await;
        let error = joined.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains(&good[4..20]), "{error}");
    }
    let pair = bench.handle.describe_pair().await.unwrap();
    assert!(!pair.paired && pair.open_until == 0);
    assert_eq!(bench.handle.view().state.configuration.groups.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_kept_does_not_happen() {
    let bench = Bench::new();
    let error = bench
        .handle
        .set_maintenance(root(), true)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/nowhere"), "{error}");
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    let pair = bench.handle.describe_pair().await.unwrap();
    assert!(!pair.here.maintenance);
}

#[tokio::test]
async fn a_damaged_file_is_not_overwritten() {
    let folder = TestFolder::new("pair-hopeless");
    let path = folder.path().join("pair.json");
    std::fs::write(&path, "x").unwrap();
    let bench = bench(folder.path());
    let error = bench
        .handle
        .set_maintenance(root(), true)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("pair.json"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "x");
}
