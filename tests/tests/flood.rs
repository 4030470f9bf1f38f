//! A thousand downloads under a flood of SYNs, datagrams and fragments from random sources: through ilb, none breaks.
//! What becomes of them through nftables DNAT with conntrack, same lab and same flood, is printed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ilb_tests::flood::{Flood, Sent};
use ilb_tests::lab::{Lab, Spec};
use ilb_tests::load::{Load, Tally};
use ilb_tests::transfer::{Downloads, Outcome, sha256_of};
use ilb_tests::{Family, shell};

const DOWNLOADS: usize = 1000;
/// Bytes of each download, and bytes a second: about 14 s, longer than the flood.
const SIZE: usize = 280_000;
const RATE: u32 = 20_000;
const FLOOD: Duration = Duration::from_secs(6);
/// Packets a second of the flood that must reach the balancer for it to be one. The generator makes millions.
const LEAST: f64 = 0.1e6;
const UDP_PORT: u16 = 9000;
/// New flows a second that the rules let in, in the round with limits; known clients have as many again.
const ADMITTED: u32 = 2000;
/// The lab's table and conntrack get the same room.
const CONNECTIONS: &str = "262144";
const CONNTRACK: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Room of conntrack, which the kernel keeps for all namespaces together; put back on drop.
struct Conntrack(String);

impl Conntrack {
    fn same_room() -> Conntrack {
        let before = std::fs::read_to_string(CONNTRACK).expect("this kernel has conntrack");
        std::fs::write(CONNTRACK, CONNECTIONS).expect("conntrack's room can be set");
        Conntrack(before)
    }
}

impl Drop for Conntrack {
    fn drop(&mut self) {
        std::fs::write(CONNTRACK, self.0.trim()).expect("conntrack's room can be put back");
    }
}

struct Result {
    sent: Sent,
    /// Packets that the balancer's front interface received meanwhile; what is missing was lost before it.
    arrived: u64,
    newcomers: Tally,
    outcomes: Vec<Outcome>,
    whole: usize,
}

impl Result {
    fn words(&self) -> String {
        let slowest = self.outcomes.iter().map(|outcome| outcome.took).max();
        let broken: Vec<&str> = self
            .outcomes
            .iter()
            .filter_map(|outcome| outcome.result.as_ref().err().map(String::as_str))
            .take(3)
            .collect();
        format!(
            "{} of {} downloads whole, the slowest after {:.1} s; {} new requests of their client answered and {} not \
             (15 s of patience); the flood {:.2} Mpps for {:.1} s ({} packets), of which {:.2} Mpps arrived{}",
            self.whole,
            self.outcomes.len(),
            slowest.unwrap_or_default().as_secs_f64(),
            self.newcomers.answers.values().sum::<usize>(),
            self.newcomers.failures.len(),
            self.sent.mpps(),
            self.sent.took.as_secs_f64(),
            self.sent.packets,
            self.arrived as f64 / self.sent.took.as_secs_f64() / 1e6,
            if broken.is_empty() {
                String::new()
            } else {
                format!("; {}", broken.join("; "))
            },
        )
    }
}

fn received(lab: &Lab) -> u64 {
    let text = lab
        .at("lb")
        .run("cat /sys/class/net/eth0/statistics/rx_packets");
    text.trim().parse().expect("a counter")
}

fn flooded(lab: &Lab, target: SocketAddr, expected: &str) -> Result {
    let path = format!("/paced/flood?rate={RATE}");
    let downloads = Downloads::start(lab.at("c1"), target, &path, DOWNLOADS);
    let before = received(lab);
    let flood = Flood::start(lab, target.ip(), target.port(), UDP_PORT);
    let newcomers = Load::new(target, 0).start(lab.at("c1"));
    std::thread::sleep(FLOOD);
    let sent = flood.stop();
    let (arrived, under_way) = (received(lab) - before, downloads.under_way());
    let newcomers = newcomers.stop();
    let outcomes = downloads.join();
    let whole = outcomes
        .iter()
        .filter(|outcome| outcome.result.as_deref() == Ok(expected))
        .count();
    let result = Result {
        sent,
        arrived,
        newcomers,
        outcomes,
        whole,
    };
    assert!(
        arrived as f64 > LEAST * sent.took.as_secs_f64(),
        "given a flood, when it is over, then most of it has met the balancer: {}",
        result.words()
    );
    // Those that break end early; those that are whole must have lived through all of it.
    assert!(
        under_way >= whole,
        "given {DOWNLOADS} downloads, when the flood is over, then no whole one has ended before: {under_way}, {}",
        result.words()
    );
    result
}

fn nat_by_nftables(lab: &Lab, vip: IpAddr) {
    let lb = lab.at("lb");
    lb.sysctl(&[
        ("ipv4.ip_forward", "1"),
        ("ipv4.conf.all.rp_filter", "0"),
        ("ipv4.conf.eth0.rp_filter", "0"),
    ]);
    lb.run(&format!("ip addr add {vip}/32 dev lo"));
    lb.run("nft add table ip flood");
    lb.run("nft add chain ip flood pre { type nat hook prerouting priority dstnat ; }");
    lb.run("nft add chain ip flood post { type nat hook postrouting priority srcnat ; }");
    let servers: Vec<String> = (1..=3)
        .map(|n| format!("{} : {}", n - 1, lab.server(Family::V4, n)))
        .collect();
    for (protocol, port) in [("tcp", 80), ("udp", UDP_PORT)] {
        lb.run(&format!(
            "nft add rule ip flood pre ip daddr {vip} {protocol} dport {port} dnat to numgen inc mod 3 map {{ {} }}",
            servers.join(", ")
        ));
    }
    lb.run("nft add rule ip flood post oifname eth1 masquerade");
    // The flood comes by a veth's XDP end, and the other end takes such packets only with a program or with this.
    lb.run("ethtool -K eth0 gro on");
    // Otherwise the client's packets would go round the queue that the flood fills (veth_skb_is_eligible_for_gro).
    lab.at("sw").run("ethtool -K lb-front tso off gso off");
}

#[test]
fn no_established_connection_breaks_in_a_flood() {
    let lab = Lab::new(Spec::default());
    let file = lab.directory().join("files/flood");
    let bytes: Vec<u8> = (0..SIZE).map(|n| (n * 7 + n / 251) as u8).collect();
    std::fs::write(&file, bytes).expect("the lab's directory can be written");
    let expected = sha256_of(&file);
    let vip = lab.vip(Family::V4, 0);
    let target = SocketAddr::new(vip, 80);
    lab.udp_echo(Family::V4, &[], UDP_PORT);

    lab.node.start();
    for (name, protocol, port) in [("web", "tcp", 80), ("echo", "udp", UDP_PORT)] {
        lab.node.lbadm(&format!(
            "create-servergroup -s server={} {name}",
            lab.server_specs(Family::V4, &format!(":{port}"))
        ));
        lab.node.lbadm(&format!(
            "create-rule -e -i vip={vip},port={port},protocol={protocol} -m lbalg=rr,type=NAT,proxy-src={} -o servergroup={name} {name}",
            lab.proxy_source(Family::V4, 0)
        ));
    }
    for limit in [0, ADMITTED] {
        for rule in ["web", "echo"] {
            lab.node
                .lbadm(&format!("modify-rule -m max-new-flows={limit} {rule}"));
        }
        let ilb = flooded(&lab, target, &expected);
        println!("ilb, NAT, max-new-flows={limit}: {}", ilb.words());
        println!("{}", lab.node.lbadm("show-statistics"));
        println!("{}", lab.node.lbadm("status"));
        assert_eq!(
            ilb.whole,
            DOWNLOADS,
            "given {DOWNLOADS} downloads through ilb, when the flood is over, then none has broken: {}",
            ilb.words()
        );
        lab.node.assert_alive();
        // When the flood is over, the service is what it was.
        let after = Load::new(target, 300).run(lab.at("c1"));
        after.none_failed("given a flood that is over, when 300 clients come");
    }

    for rule in ["web", "echo"] {
        lab.node.lbadm(&format!("delete-rule {rule}"));
    }
    lab.node.stop();
    let mut detach = lab
        .at("lb")
        .command(ilb_tests::lab::node::programs().join("ilb-fastpath"));
    detach
        .args(["--detach", "--config"])
        .arg(lab.node.settings());
    shell::run(detach).ok();
    let _room = Conntrack::same_room();
    nat_by_nftables(&lab, vip);
    let kernel = flooded(&lab, target, &expected);
    println!(
        "nftables DNAT and masquerade, conntrack of {CONNECTIONS}: {}",
        kernel.words()
    );
    lab.at("lb").run("nft delete table ip flood");
}
