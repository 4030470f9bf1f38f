//! The virtual MAC address: who asks for an address hears of it, whichever node is active, and nothing of it is left behind.

mod common;

use std::time::Duration;

use common::{Net, configure, stands, two_nodes, wait};
use ilb_vrrp::Driver;
use libilb::vrrp::VrrpState::{Active, Backup, Disabled};

const FOUR: &str = "192.0.2.80";
const SIX: &str = "2001:db8::80";
const MACS: [(&str, &str); 2] = [(FOUR, "00:00:5e:00:01:33"), (SIX, "00:00:5e:00:02:33")];

fn both(driver: &Driver, more: &str) {
    let text = format!("interface=eth0,vrid=51,interval=0.1,track=none,mac=virtual{more}");
    configure(
        driver,
        &[
            ("four", &format!("{text},addresses={FOUR}")),
            ("six", &format!("{text},addresses={SIX}")),
        ],
    );
}

/// What a node believes an address's MAC address to be, having asked just now.
fn found(from: &Net, address: &str) -> String {
    let family = if address.contains(':') { "-6" } else { "-4" };
    from.ip(&[&format!("{family} neigh flush dev eth0")]);
    from.run(&[&format!("ping -c 1 -W 5 -q {address}")]);
    from.ip(&[&format!("{family} neigh show {address} dev eth0")])
}

fn real(of: &Net) -> String {
    let link = of.ip(&["-br link show eth0"]);
    link.split_whitespace().nth(2).unwrap().to_owned()
}

fn devices(of: &Net) -> String {
    of.ip(&["-br link show type macvlan"])
}

/// How its interface speaks ARP: `arp_ignore` and `arp_announce`.
fn manners(of: &Net) -> Vec<String> {
    let all = of.run(&["sysctl -n net.ipv4.conf.eth0.arp_ignore net.ipv4.conf.eth0.arp_announce"]);
    all.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn whoever_is_active_has_the_same_mac_address_and_leaves_nothing_behind() {
    let (left, right) = two_nodes();
    let (a, b) = (left.driver(), right.driver());
    both(&a, ",priority=150");
    stands(&a, "the first one is active", Active).await;
    for (address, mac) in MACS {
        let neighbour = found(&right, address);
        assert!(neighbour.contains(mac), "given {address}: {neighbour}");
        // More than once, as the interface below must not answer at any time.
        let again = found(&right, address);
        assert!(again.contains(mac), "given {address}: {again}");
    }
    let own = found(&right, "192.0.2.1");
    assert!(own.contains(&real(&left)), "the node's own address: {own}");
    assert_eq!(manners(&left), ["1", "2"]);
    both(&b, "");
    stands(&b, "the second one hears the first", Backup).await;
    assert_eq!(devices(&right), "", "a backup has none");

    a.stop().await;
    stands(&b, "the second one takes over", Active).await;
    assert_eq!(devices(&left), "", "who gave up has none any more");
    assert_eq!(manners(&left), ["0", "0"], "and is as it was");
    for (address, mac) in MACS {
        let neighbour = found(&left, address);
        assert!(neighbour.contains(mac), "given {address}: {neighbour}");
    }

    // Both have the address for a moment, and hear each other all the same.
    let a = left.driver();
    both(&a, ",priority=150");
    stands(&a, "the first one comes back", Active).await;
    stands(&b, "the second one gives way", Backup).await;
    assert_eq!(devices(&right), "");
    a.stop().await;
    b.stop().await;
    assert_eq!(devices(&right), "");
}

#[tokio::test]
async fn advertisements_and_announcements_come_from_it() {
    let (left, right) = two_nodes();
    let capture = right.enter(|| {
        std::process::Command::new("tcpdump")
            .args(["-i", "eth0", "-e", "-n", "-l", "--immediate-mode"])
            .args([
                "arp", "or", "ip", "proto", "112", "or", "icmp6", "or", "ip6", "proto", "112",
            ])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    });
    let mut capture = Killed(capture);
    let lines = std::io::BufReader::new(capture.0.stdout.take().unwrap());
    let (sender, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(lines).map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let a = left.driver();
    both(&a, "");
    stands(&a, "it is active", Active).await;
    let mut all: Vec<String> = Vec::new();
    let wanted = [
        ("00:00:5e:00:01:33", "VRRPv3, Advertisement"),
        ("00:00:5e:00:02:33", "VRRPv3, Advertisement"),
        ("00:00:5e:00:01:33", "192.0.2.80"),
        ("00:00:5e:00:02:33", "neighbor advertisement"),
    ];
    wait("all of it is seen", || {
        all.extend(seen.try_iter());
        let missing = wanted.iter().find(|(mac, what)| {
            !all.iter()
                .any(|line| line.contains(&format!("{mac} > ")) && line.contains(what))
        });
        let why = missing.map(|it| format!("no {it:?} in {all:#?}"));
        async move { why }
    })
    .await;
    // Not a single one from the interface's own address.
    let other: Vec<&String> = all
        .iter()
        .filter(|line| line.contains("Advertisement") && line.contains("VRRPv3"))
        .filter(|line| line.contains(&format!("{} > ", real(&left))))
        .collect();
    assert!(other.is_empty(), "{other:#?}");
    a.stop().await;
}

#[tokio::test]
async fn what_a_killed_run_left_behind_goes_and_somebody_elses_stays() {
    let (left, _right) = two_nodes();
    left.ip(&[
        "link add vrrp.9.51 link eth0 address 00:00:5e:00:01:33 type macvlan mode private",
        "link add other link eth0 type macvlan mode private",
    ]);
    let driver = left.driver();
    both(&driver, ",enabled=no");
    stands(&driver, "it takes no part", Disabled).await;
    let all = devices(&left);
    assert!(!all.contains("vrrp.9.51") && all.contains("other"), "{all}");
    driver.stop().await;
}

/// A child that ends with this value.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
