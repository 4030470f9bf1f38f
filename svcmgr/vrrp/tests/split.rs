//! What becomes of two nodes that do not hear each other, or only one of them the other, and what when they do again; and a
//! planned change, in which there is never nobody.

mod common;

use std::time::{Duration, Instant};

use common::{Net, configure, one, stands, two_nodes, wait};
use ilb_vrrp::Driver;
use libilb::vrrp::VrrpCounters;
use libilb::vrrp::VrrpState::{Active, Backup, Disabled};

const FOUR: &str = "192.0.2.80";
const SIX: &str = "2001:db8::80";

/// Its node hears nothing on its wire any more.
struct Deaf<'a>(&'a Net);

impl Deaf<'_> {
    fn new(net: &Net) -> Deaf<'_> {
        net.run(&[
            "nft add table netdev deaf",
            "nft add chain netdev deaf in { type filter hook ingress device eth0 priority 0 ; policy drop ; }",
        ]);
        Deaf(net)
    }
}

impl Drop for Deaf<'_> {
    fn drop(&mut self) {
        self.0.run(&["nft delete table netdev deaf"]);
    }
}

/// An instance of each family, with this priority.
fn both(driver: &Driver, priority: u8) {
    let text = format!("interface=eth0,vrid=51,interval=0.1,track=none,priority={priority}");
    configure(
        driver,
        &[
            ("four", &format!("{text},addresses={FOUR}")),
            ("six", &format!("{text},addresses=fe80::80,{SIX}")),
        ],
    );
}

async fn counters(driver: &Driver) -> Vec<VrrpCounters> {
    let all = driver.report().await;
    all.into_iter().map(|report| report.counters).collect()
}

/// Two nodes with priorities 150 and 100, of which the first is active.
async fn settled(left: &Net, right: &Net) -> (Driver, Driver) {
    let (a, b) = (left.driver(), right.driver());
    both(&a, 150);
    stands(&a, "the higher one is active", Active).await;
    both(&b, 100);
    stands(&b, "the lower one waits", Backup).await;
    (a, b)
}

/// It stays as it is for many intervals: nobody's state changes.
async fn stays(drivers: [&Driver; 2], given: &str) {
    let transitions = async || {
        let mut all = Vec::new();
        for driver in drivers {
            let counters = counters(driver).await;
            all.extend(counters.into_iter().map(|it| it.transitions));
        }
        all
    };
    let before = transitions().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(transitions().await, before, "{given}, then nothing changes");
}

#[tokio::test]
async fn two_that_are_apart_are_both_active_and_one_gives_way_at_once_when_they_meet() {
    let (left, right) = two_nodes();
    let (a, b) = settled(&left, &right).await;
    let before = counters(&a).await;
    {
        let _cut = (Deaf::new(&left), Deaf::new(&right));
        stands(&b, "apart, the other one takes over, too", Active).await;
        assert!(left.has(FOUR) && right.has(FOUR) && left.has(SIX) && right.has(SIX));
        stays([&a, &b], "given a cut wire").await;
    }
    stands(&b, "together, the lower one gives way", Backup).await;
    stands(&a, "and the higher one stays", Active).await;
    assert!(left.has(FOUR) && !right.has(FOUR) && left.has(SIX) && !right.has(SIX));
    stays([&a, &b], "given a healed wire").await;
    // The one had the addresses all the time, and tells once more that it has: the other one has told otherwise.
    for (before, after) in before.iter().zip(counters(&a).await) {
        assert_eq!(after.transitions, before.transitions);
    }
    let before = before.iter().map(|it| it.announcements).sum::<u64>();
    wait("it announces its addresses again", || async {
        let all = counters(&a).await;
        let after = all.iter().map(|it| it.announcements).sum::<u64>();
        (after < before + 3).then(|| format!("{before}, {after}"))
    })
    .await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn one_that_is_deaf_changes_nothing_or_has_the_addresses_until_it_hears() {
    let (left, right) = two_nodes();
    let (a, b) = settled(&left, &right).await;
    {
        let _deaf = Deaf::new(&left);
        stays([&a, &b], "given an active node that hears nothing").await;
    }
    {
        let _deaf = Deaf::new(&right);
        stands(&b, "a deaf backup cannot know better", Active).await;
        stays([&a, &b], "given a backup that hears nothing").await;
        // The active one is heard to be the higher one, but does not give way: it is right.
        stands(&a, "the higher one stays", Active).await;
    }
    stands(&b, "as soon as it hears, it gives way", Backup).await;
    stays([&a, &b], "given two that hear each other").await;
    assert!(left.has(FOUR) && !right.has(FOUR));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_wire_that_flaps_moves_nothing_away_from_the_higher_one() {
    let (left, right) = two_nodes();
    let (a, b) = settled(&left, &right).await;
    let before = counters(&a).await;
    for _ in 0..10 {
        let _cut = (Deaf::new(&left), Deaf::new(&right));
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    stands(&b, "in the end the lower one waits", Backup).await;
    stands(&a, "and the higher one is active", Active).await;
    for (before, after) in before.iter().zip(counters(&a).await) {
        assert_eq!(
            after.transitions, before.transitions,
            "it was so all the time"
        );
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn in_a_planned_change_there_is_never_nobody() {
    let (left, right) = two_nodes();
    let (a, b) = (left.driver(), right.driver());
    let text = format!("interface=eth0,vrid=51,interval=1,track=none,addresses={FOUR}");
    configure(&a, &[("x", &format!("{text},priority=150"))]);
    stands(&a, "the higher one is active", Active).await;
    configure(&b, &[("x", &text)]);
    wait("the other one hears it", || async {
        let report = one(&b).await;
        (report.counters.received == 0).then(|| format!("{report:?}"))
    })
    .await;
    for (enabled, what, state) in [
        (",enabled=no", "disabled", Disabled),
        ("", "enabled", Active),
    ] {
        configure(&a, &[("x", &format!("{text},priority=150{enabled}"))]);
        let began = Instant::now();
        let (from, to) = match state {
            Disabled => (&left, &right),
            _ => (&right, &left),
        };
        // Asked in this order, there is no moment at which both may be without.
        while from.has(FOUR) {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}: it goes");
        }
        assert!(to.has(FOUR), "{what}: gone from one, it is at the other");
        stands(&a, what, state).await;
    }
    // Nobody is there to take over: it is given up nevertheless.
    b.stop().await;
    assert!(left.has(FOUR));
    a.stop().await;
    assert!(!left.has(FOUR));
}
