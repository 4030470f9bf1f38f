//! Two nodes on one wire, with real sockets and addresses.

mod common;

use common::{configure, instance, one, stands, two_nodes, wait};
use ilb_vrrp::{News, Order};
use libilb::vrrp::VrrpState::{self, Active, Backup, Disabled, Fault};

/// How two nodes speak, and the address that they share.
const WAYS: &[(&str, &str, &str, &str)] = &[
    ("IPv4 multicast", "192.0.2.80", "", ""),
    (
        "IPv4 unicast",
        "192.0.2.80",
        ",peers=192.0.2.2",
        ",peers=192.0.2.1",
    ),
    ("IPv4 RFC checksum", "192.0.2.80", ",checksum=message", ""),
    ("IPv6 multicast", "fe80::80,2001:db8::80", "", ""),
    (
        "IPv6 unicast",
        "2001:db8::80",
        ",peers=fe80::2",
        ",peers=fe80::1",
    ),
];

#[tokio::test]
async fn the_higher_priority_has_the_address_and_gives_it_up_in_order() {
    let (left, right) = two_nodes();
    for (way, addresses, more_left, more_right) in WAYS {
        let (a, b) = (left.driver(), right.driver());
        let text = format!("interface=eth0,vrid=51,addresses={addresses},interval=0.05,track=none");
        let last = addresses.split(',').next_back().unwrap();
        configure(&b, &[("x", &format!("{text},priority=100{more_right}"))]);
        stands(&b, &format!("{way}: a node alone is active"), Active).await;
        assert!(right.has(last), "{way}");
        configure(&a, &[("x", &format!("{text},priority=150{more_left}"))]);
        stands(&a, &format!("{way}: the higher one preempts"), Active).await;
        stands(&b, &format!("{way}: the lower one gives way"), Backup).await;
        assert!(left.has(last) && !right.has(last), "{way}");
        let (ra, rb) = (one(&a).await, one(&b).await);
        assert!(
            ra.counters.sent > 0 && ra.counters.announcements > 0,
            "{way}: {ra:?}"
        );
        assert!(
            rb.counters.received > 0 && rb.counters.refused.is_empty(),
            "{way}: {rb:?}"
        );
        assert_eq!(ra.status.priority, 150, "{way}");
        assert!(
            !rb.status.active_node.is_empty(),
            "{way}: it knows who is active: {rb:?}"
        );
        // Planned: priority 0 is told before the end.
        a.stop().await;
        assert!(
            !left.has(last),
            "{way}: who is stopped has no address any more"
        );
        stands(&b, &format!("{way}: the other one takes over"), Active).await;
        assert!(right.has(last), "{way}");
        let why = one(&b).await.status.why;
        assert_eq!(why, "the active router gave up", "{way}");
        b.stop().await;
        assert!(!right.has(last), "{way}");
    }
}

#[tokio::test]
async fn two_versions_and_whole_seconds() {
    let (left, right) = two_nodes();
    let (a, b) = (left.driver(), right.driver());
    let text = "interface=eth0,vrid=7,addresses=192.0.2.80,version=2,interval=1,track=none";
    configure(&a, &[("x", &format!("{text},priority=150"))]);
    configure(&b, &[("x", text)]);
    stands(&a, "version 2 has an active node", Active).await;
    wait("the other one hears it", || async {
        let report = one(&b).await;
        let hears = report.counters.received > 0 && report.status.state == Backup;
        (!hears).then(|| format!("{report:?}"))
    })
    .await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn an_address_of_a_killed_run_goes_and_somebody_elses_stays() {
    let (left, _right) = two_nodes();
    left.ip(&[
        "addr add 192.0.2.80/32 dev eth0 label eth0:vrrp noprefixroute",
        "addr add 192.0.2.81/32 dev eth0",
    ]);
    let driver = left.driver();
    let text = "interface=eth0,vrid=51,interval=0.05,track=none,enabled=no";
    configure(
        &driver,
        &[("x", &format!("{text},addresses=192.0.2.80,192.0.2.81"))],
    );
    stands(&driver, "it takes no part", Disabled).await;
    assert!(!left.has("192.0.2.80"));
    assert!(left.has("192.0.2.81"), "what has no mark is not ours");
    // And with everything on: an address that was there is not taken away either.
    let text = text.replace(",enabled=no", "");
    configure(
        &driver,
        &[("x", &format!("{text},addresses=192.0.2.80,192.0.2.81"))],
    );
    stands(&driver, "it is active", Active).await;
    assert!(left.has("192.0.2.80"));
    driver.stop().await;
    assert!(!left.has("192.0.2.80") && left.has("192.0.2.81"));
}

#[tokio::test]
async fn what_it_depends_on_decides() {
    let (left, right) = two_nodes();
    let (mut a, b) = (left.driver(), right.driver());
    let file = std::env::temp_dir().join(format!("ilb-vrrp-{}", std::process::id()));
    std::fs::write(&file, "0\n").unwrap();
    let text = "interface=eth0,vrid=51,addresses=192.0.2.80,interval=0.05";
    let track = format!("fastpath,file:{}:-1", file.display());
    configure(&a, &[("x", &format!("{text},priority=150,track={track}"))]);
    wait("without a fast path it cannot be active", || async {
        let status = one(&a).await.status;
        let expected = (Fault, "the fast path does not forward");
        ((status.state, status.why.as_str()) != expected).then(|| format!("{status:?}"))
    })
    .await;
    a.order(Order::Fastpath(true));
    stands(&a, "with one it is", Active).await;
    configure(&b, &[("x", &format!("{text},priority=100,track=none"))]);
    stands(&b, "the other one waits", Backup).await;

    std::fs::write(&file, "100\n").unwrap();
    stands(&b, "a weight that is lost costs the address", Active).await;
    stands(&a, "and it is given up", Backup).await;
    assert_eq!(one(&a).await.status.priority, 50);
    std::fs::write(&file, "0\n").unwrap();
    stands(&a, "and comes back", Active).await;

    for (given, lost, back) in [
        ("gone", Order::Fastpath(false), Order::Fastpath(true)),
        ("hangs", Order::Pulse(false), Order::Pulse(true)),
    ] {
        a.order(lost);
        let what = format!("a fast path that is {given} costs everything");
        stands(&a, &what, Fault).await;
        stands(&b, "at once", Active).await;
        assert_eq!(one(&b).await.status.why, "the active router gave up");
        a.order(back);
        stands(&a, "and with it everything comes back", Active).await;
    }

    left.ip(&["link set eth0 down"]);
    wait("an interface that is down is a reason", || async {
        let why = one(&a).await.status.why;
        (why != "interface eth0 is down").then_some(why)
    })
    .await;
    // Everybody is told of each state, in order.
    let up = [Fault, Backup, Active];
    let expected = [&up[..], &up[1..], &up, &up, &up[..1]].concat();
    let mut states = Vec::new();
    while states.last() != Some(&Fault) || states.len() < expected.len() {
        let News { status, .. } = a.news().await;
        if states.last() != Some(&status.state) {
            states.push(status.state);
        }
    }
    assert_eq!(states, expected);
    a.stop().await;
    b.stop().await;
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn a_sync_group_is_active_together_or_not_at_all() {
    let (left, right) = two_nodes();
    let (a, b) = (left.driver(), right.driver());
    let script = std::env::temp_dir().join(format!("ilb-vrrp-{}.sh", std::process::id()));
    let write = |code: u8| {
        use std::os::unix::fs::PermissionsExt as _;
        let new = script.with_extension("new");
        std::fs::write(&new, format!("#!/bin/sh\nexit {code}\n")).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &script).unwrap();
    };
    write(0);
    let four = "interface=eth0,vrid=51,addresses=192.0.2.80,interval=0.05,sync-group=g";
    let six = "interface=eth0,vrid=51,addresses=fe80::80,interval=0.05,sync-group=g";
    let track = format!("track=script:{}", script.display());
    configure(
        &a,
        &[
            ("four", &format!("{four},priority=150,{track}")),
            ("six", &format!("{six},priority=200,track=none")),
        ],
    );
    stands(&a, "both are active", Active).await;
    for report in a.report().await {
        assert_eq!(
            report.status.priority, 150,
            "the lowest priority counts: {report:?}"
        );
    }
    configure(
        &b,
        &[
            ("four", &format!("{four},track=none")),
            ("six", &format!("{six},track=none")),
        ],
    );
    stands(&b, "both wait", Backup).await;
    write(1);
    stands(&a, "what one cannot, none can", Fault).await;
    stands(&b, "the others take over", Active).await;
    assert!(right.has("192.0.2.80") && right.has("fe80::80"));
    write(0);
    stands(&a, "and give back", Active).await;
    stands(&b, "together", Backup).await;
    assert!(left.has("192.0.2.80") && left.has("fe80::80"));
    a.stop().await;
    b.stop().await;
    std::fs::remove_file(&script).unwrap();
}

#[tokio::test]
async fn a_change_of_priority_is_no_restart() {
    let (left, right) = two_nodes();
    let (a, b) = (left.driver(), right.driver());
    let text = "interface=eth0,vrid=51,addresses=192.0.2.80,interval=0.05,track=none";
    configure(&a, &[("x", &format!("{text},priority=150"))]);
    stands(&a, "it is active", Active).await;
    configure(&b, &[("x", text)]);
    stands(&b, "the other one waits", Backup).await;
    let before = one(&a).await.counters;
    configure(&a, &[("x", &format!("{text},priority=160"))]);
    let after = one(&a).await;
    assert_eq!((after.status.state, after.status.priority), (Active, 160));
    assert_eq!(after.counters.transitions, before.transitions);
    assert_eq!(instance("x", text).priority, 100);
    a.stop().await;
    b.stop().await;
}

/// Waits for the news that an instance stands so, with this one as the other one.
async fn hears(driver: &mut ilb_vrrp::Driver, what: &str, state: VrrpState, other: Option<&str>) {
    let expected = other.map(|it| it.parse().unwrap());
    let is_it = |news: &News| news.status.state == state && news.other == expected;
    let mut last = None;
    let found = async {
        while !last.as_ref().is_some_and(is_it) {
            last = Some(driver.news().await);
        }
    };
    let found = tokio::time::timeout(std::time::Duration::from_secs(20), found).await;
    assert!(
        found.is_ok(),
        "{what}, then {state} after {other:?}: {last:?}"
    );
}

#[tokio::test]
async fn whoever_takes_over_knows_from_whom_if_that_one_lives() {
    let (left, right) = two_nodes();
    let (mut a, mut b) = (left.driver(), right.driver());
    let text = "interface=eth0,vrid=51,addresses=192.0.2.80,interval=0.05,track=none";
    let (one, two) = (Some("192.0.2.1"), Some("192.0.2.2"));
    configure(&b, &[("x", &format!("{text},priority=100"))]);
    hears(&mut b, "given nobody else", Active, None).await;
    configure(&a, &[("x", &format!("{text},priority=150"))]);
    hears(&mut a, "given a lower one", Active, two).await;
    hears(&mut b, "given a higher one", Backup, one).await;
    configure(&a, &[("x", &format!("{text},priority=150,enabled=no"))]);
    hears(&mut b, "given one that gives up", Active, one).await;
    hears(&mut a, "given who has taken over", Disabled, two).await;
}

#[tokio::test]
async fn of_a_sync_group_those_that_clients_ask_come_last() {
    let (left, right) = two_nodes();
    let (a, b) = (left.driver(), right.driver());
    // So many that it takes a while to put them up.
    let many: Vec<String> = (100..160).map(|n| format!("192.0.2.{n}")).collect();
    let text = |vrid: u8, addresses: &str, priority: u8| {
        format!(
            "interface=eth0,vrid={vrid},addresses={addresses},interval=0.05,track=none,sync-group=g,priority={priority}"
        )
    };
    for (driver, priority) in [(&a, 150), (&b, 100)] {
        // By the alphabet it would be the other way round.
        driver.order(Order::Outer(["clients".to_owned()].into()));
        let outer = text(1, &many.join(","), priority);
        let inner = text(2, "192.0.2.90", priority);
        configure(driver, &[("clients", &outer), ("servers", &inner)]);
        match priority {
            150 => stands(driver, "the first node is active", Active).await,
            _ => stands(driver, "the second node is its backup", Backup).await,
        }
    }
    a.stop().await;
    stands(&b, "the second node is active", Active).await;
    let reports = b.report().await;
    let since = |name: &str| {
        let found = reports.iter().find(|it| it.name == name);
        found.map(|it| it.status.since)
    };
    assert!(
        since("servers") < since("clients"),
        "given a takeover, then servers know before clients do: {reports:?}"
    );
}
