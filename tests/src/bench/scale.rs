//! A node with 10,000 rules and 100,000 servers, the real manager and the real fast path in the lab: whether it forwards as
//! fast as one with a single rule, and what a change costs, from the call over D-Bus until it is durable, every worker
//! forwards by it, and the caller has its answer.

use std::time::{Duration, Instant};

use libilb::client::Client;
use libilb::rule::RuleSettings;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::rings::{PORT, Wire};
use super::{Report, median};
use crate::lab::Lab;

/// Rules, each with a server group of its own.
const RULES: usize = 10_000;
/// Servers of each group at first.
const SERVERS: usize = 10;
/// Servers that are added, one call each.
const ADDED: usize = 41;
/// Calls that may be under way while the node is filled.
const AT_ONCE: usize = 16;
/// Flows through the rules: one to each server of the many.
const FLOWS: u32 = (RULES * SERVERS) as u32;
const ROUNDS: usize = 3;
/// Address of the first rule; the others' follow.
const FIRST_VIP: u32 = 0xc612_0001;

/// Measures and reports.
pub fn run(report: &mut Report) {
    println!(
        "\nA change among {RULES} rules with {} servers:",
        RULES * SERVERS
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("an async runtime");
    // One lab at a time, and the single rule before and after, because the machine's pace changes.
    let mut single = forwarding(&runtime, 1, |_| ()).0;
    let (many, (adding, creating)) =
        forwarding(&runtime, RULES, |lab| runtime.block_on(measure(lab)));
    single.extend(forwarding(&runtime, 1, |_| ()).0);
    report.add(
        "forward_10k_rules_vs_1",
        median(many) / median(single),
        "ratio",
        "rate through rings, all rules and servers in use, over that of one rule with 10",
    );
    let milliseconds = |times: &[Duration]| times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
    report.add(
        "add_server_ms_at_100k",
        median(milliseconds(&adding)),
        "ms",
        "one server more, over D-Bus, durable and in force",
    );
    let worst = adding.iter().max().copied().unwrap_or_default();
    report.add(
        "add_server_ms_at_100k_worst",
        worst.as_secs_f64() * 1e3,
        "ms",
        "the slowest of them",
    );
    report.add(
        "create_rule_ms_at_10k",
        median(milliseconds(&creating)),
        "ms",
        "one enabled rule more",
    );
}

/// The rates at which a node with so many rules forwards, all of them in use, and what `then` finds out of it.
fn forwarding<T>(runtime: &Runtime, rules: usize, then: impl FnOnce(&Lab) -> T) -> (Vec<f64>, T) {
    let wire = Wire::new();
    // Servers behind a router: one neighbour for all of them.
    let router = wire.server();
    let lb = wire.lab().at("lb");
    lb.run(&format!("ip route add 100.64.0.0/10 via {router}"));
    wire.start_ilb();
    runtime.block_on(fill_with(wire.lab(), rules));
    let rates = (0..ROUNDS)
        .map(|_| wire.measure(FLOWS, FIRST_VIP.into(), rules as u16))
        .collect();
    let found = then(wire.lab());
    wire.stop_ilb();
    (rates, found)
}

async fn client(lab: &Lab) -> Client {
    let address = lab.node.bus().try_into().expect("the bus has an address");
    Client::connect_to(address)
        .await
        .expect("the manager is there")
}

/// Gives a node so many rules.
async fn fill_with(lab: &Lab, rules: usize) {
    let client = client(lab).await;
    let began = Instant::now();
    let numbers: Vec<usize> = (0..rules).collect();
    for some in numbers.chunks(AT_ONCE) {
        let mut calls = JoinSet::new();
        for &n in some {
            let client = client.clone();
            calls.spawn(async move { fill(&client, n).await });
        }
        calls.join_all().await;
    }
    let filled = began.elapsed();
    client
        .enable_rules(&[], true)
        .await
        .expect("all rules can be enabled");
    let enabled = began.elapsed() - filled;
    println!(
        "  filled with {rules} rules in {:.1} s, enabled in {:.1} s",
        filled.as_secs_f64(),
        enabled.as_secs_f64()
    );
    // What writes the large configuration in the background is through.
    tokio::time::sleep(Duration::from_secs(5)).await;
}

async fn measure(lab: &Lab) -> (Vec<Duration>, Vec<Duration>) {
    let client = client(lab).await;
    let mut adding = Vec::with_capacity(ADDED);
    for n in 0..ADDED {
        let group = group(n * 7919 % RULES);
        let server = format!("100.127.0.{n}");
        let began = Instant::now();
        client
            .add_servers(&group, &[&server])
            .await
            .expect("a server can be added");
        adding.push(began.elapsed());
    }
    let mut creating = Vec::with_capacity(ADDED);
    for n in RULES..RULES + ADDED {
        create_group(&client, n).await;
        let began = Instant::now();
        create_rule(&client, n, true).await;
        creating.push(began.elapsed());
    }
    let node = client
        .describe()
        .await
        .expect("the manager describes itself");
    assert_eq!(
        node.fastpath_generation, node.generation,
        "given changes, when all have been answered, then the fast path forwards by them"
    );
    let servers: usize = node.groups.iter().map(|group| group.servers.len()).sum();
    assert_eq!(servers, (RULES + ADDED) * SERVERS + ADDED);
    (adding, creating)
}

fn group(n: usize) -> String {
    format!("group{n}")
}

async fn fill(client: &Client, n: usize) {
    create_group(client, n).await;
    create_rule(client, n, false).await;
}

async fn create_group(client: &Client, n: usize) {
    let first = 0x6440_0000 + (n * 16) as u32 + 1;
    let last = first + SERVERS as u32 - 1;
    let [first, last] = [first, last].map(std::net::Ipv4Addr::from);
    client
        .create_group(&group(n), &[&format!("{first}-{last}")])
        .await
        .expect("a group can be created");
}

async fn create_rule(client: &Client, n: usize, enabled: bool) {
    let settings = RuleSettings {
        enabled,
        vip: std::net::Ipv4Addr::from(FIRST_VIP + n as u32).to_string(),
        port: PORT.to_string(),
        protocol: Some("udp".into()),
        algorithm: "wlc".into(),
        topology: "HALF-NAT".into(),
        servergroup: group(n),
        // Ten thousand addresses would be the kernel's figure.
        manage_addresses: Some(false),
        ..RuleSettings::default()
    };
    client
        .create_rule(&format!("rule{n}"), &settings)
        .await
        .expect("a rule can be created");
}
