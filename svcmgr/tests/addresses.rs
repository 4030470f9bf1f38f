//! Addresses of rules on real interfaces, in throw-away network namespaces. Needs root.

mod common;

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Bus, FakeFastpath, Node, Process, answering, need_root, rule, wait_for, wait_until};
use libilb::client::{Client, ClientError};
use libilb::describe::Fastpath;

/// A balancer's namespace and a client's, joined by a veth pair: `lan` here, `client` there.
struct Network {
    here: String,
    there: String,
}

impl Network {
    fn new() -> Network {
        need_root();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "ilb-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let network = Network {
            here: format!("{name}-lb"),
            there: format!("{name}-cl"),
        };
        for namespace in [&network.here, &network.there] {
            ip(&["netns", "add", namespace]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        ip(&[
            "-n",
            &network.here,
            "link",
            "add",
            "lan",
            "type",
            "veth",
            "peer",
            "name",
            "client",
            "netns",
            &network.there,
        ]);
        for (namespace, device, host) in [(&network.here, "lan", 1), (&network.there, "client", 2)]
        {
            ip(&["-n", namespace, "link", "set", device, "up"]);
            ip(&[
                "-n",
                namespace,
                "addr",
                "add",
                &format!("10.9.0.{host}/24"),
                "dev",
                device,
            ]);
            let six = format!("2001:db8:9::{host}/64");
            ip(&["-n", namespace, "addr", "add", &six, "dev", device, "nodad"]);
        }
        network
    }

    /// What `ip address` says of an address here: interface and line, for each interface that has it.
    fn find(&self, address: &str) -> Vec<(String, String)> {
        let text = ip(&["-n", &self.here, "-o", "-d", "addr", "show"]);
        text.lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let interface = words.nth(1)?;
                let found = words.nth(1)?.split('/').next()?;
                (found == address).then(|| (interface.to_owned(), line.to_owned()))
            })
            .collect()
    }

    fn has(&self, address: &str) -> bool {
        !self.find(address).is_empty()
    }

    /// Whether the client reaches the kernel behind an address: a connection is refused rather than unanswered.
    fn answers(&self, address: &str) -> bool {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.there, "timeout", "3", "bash", "-c"])
            .arg(format!("exec 3<>/dev/tcp/{address}/9"))
            .output()
            .expect("bash can be run");
        String::from_utf8_lossy(&output.stderr).contains("Connection refused")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.here, &self.there] {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
        }
    }
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("ip can be run");
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("ip prints text")
}

async fn start(bus: &Bus, node: &Node, network: &Network) -> (Process, Client) {
    let manager = Process::start(&mut node.command_in(bus, &network.here));
    (manager, answering(bus).await)
}

async fn groups(client: &Client) {
    client.create_group("four", &["10.9.0.2"]).await.unwrap();
    client
        .create_group("six", &["[2001:db8:9::2]"])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_vip_answers_when_its_rule_is_enabled_and_goes_with_it() {
    let network = Network::new();
    let (bus, node) = (Bus::start(), Node::new());
    let _fastpath = FakeFastpath::start(&node);
    let (_manager, client) = start(&bus, &node, &network).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    groups(&client).await;

    let mut nat = rule("10.9.0.80", "four");
    nat.topology = "NAT".into();
    nat.proxy_src = vec!["10.9.0.81".into()];
    nat.enabled = false;
    client.create_rule("four", &nat).await.unwrap();
    assert!(!network.has("10.9.0.80"), "the rule is disabled");
    client.enable_rules(&["four"], true).await.unwrap();
    for address in ["10.9.0.80", "10.9.0.81"] {
        let found = network.find(address);
        let [(interface, line)] = found.as_slice() else {
            panic!("{address} once, not {found:?}");
        };
        assert_eq!(interface, "lan");
        assert!(
            line.contains(&format!("{address}/32")) && line.contains("lan:ilb"),
            "{line}"
        );
        assert!(
            network.answers(address),
            "{address} is reached from outside"
        );
    }

    client
        .create_rule("six", &rule("2001:db8:9::80", "six"))
        .await
        .unwrap();
    let found = network.find("2001:db8:9::80");
    let [(interface, line)] = found.as_slice() else {
        panic!("once, not {found:?}");
    };
    assert_eq!(interface, "lan");
    assert!(
        line.contains("/128") && line.contains("nodad") && line.contains("noprefixroute"),
        "{line}"
    );
    assert!(
        line.contains("deprecated"),
        "never a source of the node's own connections: {line}"
    );
    assert!(
        network.answers("2001:db8:9::80"),
        "neighbour discovery is answered at once"
    );

    client
        .create_rule("routed", &rule("198.51.100.1", "four"))
        .await
        .unwrap();
    assert_eq!(network.find("198.51.100.1")[0].0, "lo");

    client.disable_rules_and_delete().await;
    for address in ["10.9.0.80", "10.9.0.81", "2001:db8:9::80", "198.51.100.1"] {
        wait_until(&format!("{address} is gone"), || !network.has(address));
    }
    assert!(network.has("10.9.0.1") && network.has("2001:db8:9::1"));
}

trait Everything {
    async fn disable_rules_and_delete(&self);
}

impl Everything for Client {
    async fn disable_rules_and_delete(&self) {
        self.enable_rules(&[], false).await.unwrap();
        self.delete_all_rules().await.unwrap();
    }
}

#[tokio::test]
async fn addresses_of_others_are_used_and_left_as_they_were() {
    let network = Network::new();
    ip(&[
        "-n",
        &network.here,
        "addr",
        "add",
        "10.9.0.90/32",
        "dev",
        "lan",
    ]);
    ip(&[
        "-n",
        &network.here,
        "addr",
        "add",
        "2001:db8:9::90/128",
        "dev",
        "lan",
        "nodad",
    ]);
    let before = (
        network.find("10.9.0.90"),
        network.find("2001:db8:9::90"),
        network.find("10.9.0.1"),
    );
    let (bus, node) = (Bus::start(), Node::new());
    let _fastpath = FakeFastpath::start(&node);
    let (_manager, client) = start(&bus, &node, &network).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    groups(&client).await;
    client
        .create_rule("a", &rule("10.9.0.90", "four"))
        .await
        .unwrap();
    client
        .create_rule("b", &rule("2001:db8:9::90", "six"))
        .await
        .unwrap();
    // The node's own address is a VIP too.
    client
        .create_rule("c", &rule("10.9.0.1", "four"))
        .await
        .unwrap();
    client.delete_all_rules().await.unwrap();
    wait_for(&client, "all is drained", |d| d.rules.is_empty()).await;
    let after = (
        network.find("10.9.0.90"),
        network.find("2001:db8:9::90"),
        network.find("10.9.0.1"),
    );
    assert_eq!(after, before);
}

#[tokio::test]
async fn two_rules_share_an_address_and_the_last_takes_it_away() {
    let network = Network::new();
    let (bus, node) = (Bus::start(), Node::new());
    let _fastpath = FakeFastpath::start(&node);
    let (_manager, client) = start(&bus, &node, &network).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    groups(&client).await;
    client
        .create_rule("http", &rule("10.9.0.80", "four"))
        .await
        .unwrap();
    let mut https = rule("10.9.0.80", "four");
    https.port = "443".into();
    client.create_rule("https", &https).await.unwrap();
    client.delete_rules(&["http"]).await.unwrap();
    wait_for(&client, "one is drained", |d| d.rules.len() == 1).await;
    assert!(network.has("10.9.0.80"));
    client.delete_rules(&["https"]).await.unwrap();
    wait_until("the address is gone", || !network.has("10.9.0.80"));
}

#[tokio::test]
async fn none_are_managed_when_told_so() {
    let network = Network::new();
    let (bus, node) = (Bus::start(), Node::new());
    let _fastpath = FakeFastpath::start(&node);
    let (mut manager, client) = start(&bus, &node, &network).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    groups(&client).await;
    let mut own = rule("10.9.0.80", "four");
    own.manage_addresses = Some(false);
    client.create_rule("own", &own).await.unwrap();
    assert!(!network.has("10.9.0.80"));
    let description = client.describe().await.unwrap();
    assert_eq!(
        description.rule("own").unwrap().problems,
        ["the vip 10.9.0.80 is on no interface of this node"]
    );
    client
        .create_rule("ours", &rule("10.9.0.81", "four"))
        .await
        .unwrap();
    assert!(network.has("10.9.0.81"));
    // Told for the whole node, it takes back what it had put there.
    manager.signal("TERM");
    manager.wait();
    node.configure("[manager]\nmanage-addresses = false");
    let (_manager, client) = start(&bus, &node, &network).await;
    wait_until("ours is gone", || !network.has("10.9.0.81"));
    client
        .create_rule("more", &rule("10.9.0.82", "four"))
        .await
        .unwrap();
    assert!(!network.has("10.9.0.82"));
}

#[tokio::test]
async fn addresses_stay_over_a_stop_and_leftovers_go_at_the_start() {
    let network = Network::new();
    let (bus, node) = (Bus::start(), Node::new());
    let fastpath = FakeFastpath::start(&node);
    let (mut manager, client) = start(&bus, &node, &network).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    groups(&client).await;
    client
        .create_rule("four", &rule("10.9.0.80", "four"))
        .await
        .unwrap();
    client
        .create_rule("six", &rule("2001:db8:9::80", "six"))
        .await
        .unwrap();
    manager.signal("TERM");
    assert!(manager.wait().success());
    assert!(network.has("10.9.0.80") && network.has("2001:db8:9::80"));
    drop(fastpath);
    let (mut manager, _client) = start(&bus, &node, &network).await;
    assert!(
        network.has("10.9.0.80"),
        "still wanted, also without a fast path"
    );
    manager.kill();
    // Another configuration finds what the first one has put there.
    let other = Node::new();
    let (_manager, _client) = start(&bus, &other, &network).await;
    wait_until("leftovers are gone", || {
        !network.has("10.9.0.80") && !network.has("2001:db8:9::80")
    });
}

#[tokio::test]
async fn new_addresses_wait_for_the_fast_path() {
    let network = Network::new();
    let (bus, node) = (Bus::start(), Node::new());
    let (_manager, client) = start(&bus, &node, &network).await;
    groups(&client).await;
    client
        .create_rule("four", &rule("10.9.0.80", "four"))
        .await
        .unwrap();
    assert!(
        !network.has("10.9.0.80"),
        "the kernel would answer with a reset"
    );
    let _fastpath = FakeFastpath::start(&node);
    wait_until("the address comes", || network.has("10.9.0.80"));
}

#[tokio::test]
async fn lost_addresses_come_back_and_follow_their_network() {
    let network = Network::new();
    let (bus, node) = (Bus::start(), Node::new());
    let _fastpath = FakeFastpath::start(&node);
    let (_manager, client) = start(&bus, &node, &network).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    groups(&client).await;
    client
        .create_rule("four", &rule("10.9.0.80", "four"))
        .await
        .unwrap();
    ip(&[
        "-n",
        &network.here,
        "addr",
        "del",
        "10.9.0.80/32",
        "dev",
        "lan",
    ]);
    wait_until("it is back", || network.has("10.9.0.80"));
    let node = wait_for(&client, "that is told", |d| {
        d.drift.iter().any(|drift| drift.repaired != 0)
    })
    .await;
    let told: Vec<_> = node
        .drift
        .iter()
        .map(|d| (&*d.what, &*d.item, &*d.wanted, &*d.actual))
        .collect();
    assert_eq!(
        told,
        [("address", "10.9.0.80", "on lan", "on no interface")]
    );

    client
        .create_rule("late", &rule("10.7.0.80", "four"))
        .await
        .unwrap();
    assert_eq!(network.find("10.7.0.80")[0].0, "lo");
    ip(&[
        "-n",
        &network.here,
        "addr",
        "add",
        "10.7.0.1/24",
        "dev",
        "lan",
    ]);
    wait_until("it has moved", || {
        network
            .find("10.7.0.80")
            .iter()
            .map(|(i, _)| i.as_str())
            .eq(["lan"])
    });
}

#[tokio::test]
async fn an_address_that_the_kernel_refuses_undoes_the_rule() {
    let network = Network::new();
    let (bus, node) = (Bus::start(), Node::new());
    let fastpath = FakeFastpath::start(&node);
    let (_manager, client) = start(&bus, &node, &network).await;
    wait_for(&client, "it is connected", |d| {
        d.fastpath == Fastpath::Connected
    })
    .await;
    groups(&client).await;
    let switch = Command::new("ip")
        .args([
            "netns",
            "exec",
            &network.here,
            "sh",
            "-c",
            "echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6",
        ])
        .status();
    assert!(switch.expect("sh can be run").success());
    match client
        .create_rule("six", &rule("2001:db8:aaaa::80", "six"))
        .await
    {
        Err(ClientError::Refused { message, .. }) => {
            assert!(
                message.contains("cannot put address 2001:db8:aaaa::80 on interface lo"),
                "{message}"
            );
            assert!(message.contains("manage-addresses = false"), "{message}");
        }
        other => panic!("a refusal was expected: {other:?}"),
    }
    assert!(client.describe().await.unwrap().rules.is_empty());
    fastpath.wait_for_rules(0);
}
