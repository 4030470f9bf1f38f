//! What it costs that the configuration follows to the other node of a pair: the same changes alone and in a pair, within one
//! run, and how long the whole configuration takes to somebody who joins. Both managers are on this machine and share its disk
//! and processors, so it is the most that it can be.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use libilb::client::Client;
use libilb::pair::{PairDescription, Step};
use libilb::rule::RuleSettings;

use super::{CHANGES, PATIENCE, Place, RULES, filled, settle};
use crate::bench::{Report, median};

/// Measures and reports.
pub(super) async fn run(disk: &Path, report: &mut Report) {
    let (first, second) = (Place::new(disk), Place::named(disk, "joiner"));
    let (mut daemon, client, _) = filled(&first).await;
    settle().await;
    let alone = changes(&client, 0).await;
    let (mut other, _) = second.start();
    let joiner = second.client().await;
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    let invitation = client
        .create_pair(Some(here), free_port())
        .await
        .expect("a token");
    let began = Instant::now();
    joiner
        .join_pair(here, invitation.port, &invitation.token, false)
        .await
        .expect("joined");
    until(&joiner, |pair| {
        pair.following.wholes_taken > 0 && pair.configuration.step == Step::InStep
    })
    .await;
    let took = began.elapsed();
    until(&client, |pair| pair.configuration.step == Step::InStep).await;
    let there = joiner.describe().await.expect("it describes itself");
    assert_eq!(there.rules.len(), RULES);
    let given = client.describe_pair().await.expect("an answer").following;
    report.add(
        "pair_join_s_100k",
        took.as_secs_f64(),
        "s",
        "from 'pair join' until the joiner has everything, durably",
    );
    report.add(
        "pair_whole_mib_100k",
        given.whole_octets as f64 / f64::from(1 << 20),
        "MiB",
        "the whole configuration, as it is sent",
    );
    settle().await;
    let paired = changes(&client, 1).await;
    let given = client.describe_pair().await.expect("an answer").following;
    let taken = given.offers.get("taken").copied();
    assert_eq!(taken, Some(CHANGES as u64), "each was offered and taken");
    report.add(
        "pair_modify_rule_ms_100k_alone",
        alone,
        "ms",
        "a rule of them is changed, without a pair",
    );
    report.add(
        "pair_modify_rule_ms_100k",
        paired,
        "ms",
        "the same in a pair: durable on both nodes",
    );
    report.add(
        "pair_modify_rule_vs_alone",
        paired / alone,
        "",
        "the second by the first",
    );
    other.terminate();
    daemon.terminate();
}

/// How long a change of one rule takes, in milliseconds; the median of some.
async fn changes(client: &Client, round: usize) -> f64 {
    let mut times = Vec::new();
    for n in 0..CHANGES {
        let rule = format!("rule{}", n * 7919 % RULES);
        let settings = RuleSettings {
            slow_start: Some(u32::try_from(30 + round).unwrap_or(30)),
            ..RuleSettings::default()
        };
        let began = Instant::now();
        client
            .modify_rule(&rule, &settings)
            .await
            .expect("modified");
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    median(times)
}

async fn until(client: &Client, is: impl Fn(&PairDescription) -> bool) {
    let began = Instant::now();
    loop {
        let pair = client.describe_pair().await.expect("an answer");
        if is(&pair) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "in vain: {pair:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its number").port()
}
