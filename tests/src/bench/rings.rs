//! Packets a second through real rings: ilb, the bare AF_XDP loop on the same rings, and nftables DNAT, in turn within
//! one run, on the same veth pairs, from the same source.
//!
//! The source has processor 0 to itself. It sends out of the switch's end of the balancer's front interface, so that
//! packets arrive at the balancer as if from the wire; a sink on the switch's end of the back interface counts and
//! drops. The fast path and the bare loop run on processor 1. The kernel does nftables' work where packets arrive
//! (processor 0, behind the source); that is measured with and without handing it on to processor 1 (RPS), and the
//! better figure counts. What users find without such care is measured, too.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::generator::{Programs, Stream};
use super::{Report, median};
use crate::Family;
use crate::lab::process::Daemon;
use crate::lab::{Lab, Spec};
use crate::shell;

/// Port of all VIPs.
pub const PORT: u16 = 9000;
const ROUNDS: usize = 3;
const WINDOW: Duration = Duration::from_secs(2);
/// Longest time until all flows are known.
const WARM_UP: Duration = Duration::from_secs(30);
/// Packets that each flow has had by then, in the mean: hardly one is left that has had less than three, which is when
/// ilb takes it for more than a beginning.
const SEEN: u64 = 10;
/// `logic` counts to a million; the table has room for all of them and more.
const TABLE_SIZE: u32 = 2_097_152;
const CONNTRACK: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const CONNTRACK_BUCKETS: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";

/// Measures and reports packets a second.
pub fn run(report: &mut Report) {
    println!(
        "\nThrough real rings (veth, 64-byte UDP, one processor sends, one forwards; medians of {ROUNDS}):"
    );
    let bench = Bench::new();
    let mut ratios = Vec::new();
    for (name, flows) in [("1flow", 1), ("10k", 10_000), ("1m", 1_000_000)] {
        let (mut ilb, mut bare, mut nft, mut plain) = (vec![], vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            bare.push(bench.bare_loop(flows));
            ilb.push(bench.ilb(flows));
            nft.push(bench.nftables(flows, Help::All));
            plain.push(bench.nftables(flows, Help::Room));
        }
        let of = |a: &[f64], b: &[f64]| median(a.iter().zip(b).map(|(a, b)| a / b).collect());
        let (to_bare, to_nft, to_plain) = (of(&ilb, &bare), of(&ilb, &nft), of(&ilb, &plain));
        let all = [
            ("ilb", "ilb, HALF-NAT", ilb),
            ("bare", "AF_XDP loop that only changes MAC addresses", bare),
            ("nft", "nftables DNAT, helped in every way", nft),
            (
                "nft_plain",
                "nftables DNAT, with room for the flows only",
                plain,
            ),
        ];
        for (what, meaning, values) in all {
            let value = median(values) / 1e6;
            report.add(&format!("mpps_{what}_{name}"), value, "Mpps", meaning);
        }
        ratios.push((name, to_bare, to_nft, to_plain));
    }
    for (name, to_bare, to_nft, to_plain) in ratios {
        let meaning = "ilb over the bare loop, same rings";
        let plain = format!("forward_vs_bare_loop_{name}");
        let key = if name == "1flow" {
            "forward_vs_bare_loop"
        } else {
            &plain
        };
        report.add(key, to_bare, "ratio", meaning);
        let meaning = "ilb over nftables DNAT";
        report.add(&format!("forward_vs_nft_{name}"), to_nft, "ratio", meaning);
        let meaning = "ilb over nftables DNAT as it is found";
        let key = format!("forward_vs_nft_plain_{name}");
        report.add(&key, to_plain, "ratio", meaning);
    }
}

/// A lab with one server and a source and a sink of packets at the far ends of the balancer's interfaces.
pub struct Wire {
    lab: Lab,
    ports: [u32; 2],
    mac: [u8; 6],
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => panic!("{v6} is not IPv4"),
    }
}

impl Wire {
    /// Sets the lab up. Its table has room for more than a million flows.
    pub fn new() -> Wire {
        Wire::of(Spec {
            servers: 1,
            ..Spec::default()
        })
    }

    /// The same with a lab of another kind.
    pub fn of(spec: Spec) -> Wire {
        let lab = Lab::new(spec);
        let settings = lab.node.settings();
        let text = std::fs::read_to_string(&settings).expect("the lab wrote settings");
        let larger: String = text
            .lines()
            .map(|line| match line.starts_with("table-size") {
                true => format!("table-size = {TABLE_SIZE}\n"),
                false => format!("{line}\n"),
            })
            .collect();
        std::fs::write(&settings, larger).expect("the lab's settings can be written");
        let index = |device: &str| -> u32 {
            let path = format!("/sys/class/net/{device}/ifindex");
            let text = lab.at("sw").run(&format!("cat {path}"));
            text.trim().parse().expect("an interface index")
        };
        let text = lab.at("lb").run("cat /sys/class/net/eth0/address");
        let mac: Vec<u8> = text
            .trim()
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).expect("a MAC address"))
            .collect();
        let wire = Wire {
            ports: [index("lb-front"), index("lb-back")],
            mac: mac.try_into().expect("six bytes"),
            lab,
        };
        // The sink swallows ARP, so that the balancer has to know its server.
        let lladdr = wire.lab.at("s1").run("cat /sys/class/net/eth0/address");
        wire.lab.at("lb").run(&format!(
            "ip neigh replace {} lladdr {} dev eth1 nud permanent",
            wire.server(),
            lladdr.trim()
        ));
        wire
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The server whose neighbour entry is permanent.
    pub fn server(&self) -> Ipv4Addr {
        v4(self.lab.server(Family::V4, 1))
    }

    /// Packets a second that arrive at the sink, once all flows are known, of so many flows to VIPs next to each other.
    pub fn measure(&self, flows: u32, vip: Ipv4Addr, vips: u16) -> f64 {
        let stream = Stream {
            ifindex: self.ports[0],
            flows,
            client: Ipv4Addr::new(11, 0, 0, 0),
            vip,
            vips,
            port: PORT,
            destination: self.mac,
            source: [2, 0, 0, 0, 0, 9],
        };
        let stop = AtomicBool::new(false);
        let switch = self.lab.at("sw");
        let mut source = Programs::load();
        let mut sink = Programs::load();
        let link = switch.enter(|| sink.attach("sink", self.ports[1]));
        let rate = std::thread::scope(|scope| {
            scope.spawn(|| {
                switch.join_here();
                pin(Pid::from_raw(0), 0);
                source.send(&stream, &stop);
            });
            let begin = Instant::now();
            let wanted = u64::from(flows) * SEEN;
            while sink.seen() < wanted && begin.elapsed() < WARM_UP {
                std::thread::sleep(Duration::from_millis(50));
            }
            std::thread::sleep(Duration::from_millis(300));
            let (before, begin) = (sink.seen(), Instant::now());
            std::thread::sleep(WINDOW);
            let rate = (sink.seen() - before) as f64 / begin.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            rate
        });
        drop(link);
        rate
    }

    /// Starts ilb, with its fast path on the processor that the source does not have.
    pub fn start_ilb(&self) {
        self.lab.node.start();
        pin_all(self.lab.node.fastpath_pid(), 1);
    }

    /// Ends ilb and takes its XDP programs out.
    pub fn stop_ilb(&self) {
        self.lab.node.assert_alive();
        self.lab.node.stop();
        let program = crate::lab::node::programs().join("ilb-fastpath");
        let mut command = self.lab.at("lb").command(program);
        command
            .args(["--detach", "--config"])
            .arg(self.lab.node.settings());
        shell::run(command).ok();
    }
}

impl Default for Wire {
    fn default() -> Wire {
        Wire::new()
    }
}

struct Bench {
    wire: Wire,
    vip: Ipv4Addr,
}

impl Bench {
    fn new() -> Bench {
        let wire = Wire::new();
        Bench {
            vip: v4(wire.lab.vip(Family::V4, 0)),
            wire,
        }
    }

    fn measure(&self, flows: u32) -> f64 {
        self.wire.measure(flows, self.vip, 1)
    }

    fn ilb(&self, flows: u32) -> f64 {
        let node = &self.wire.lab.node;
        self.wire.start_ilb();
        if !node.lbadm("show-rule").contains("bench") {
            node.lbadm(&format!(
                "create-servergroup -s server={}:{PORT} bench",
                self.wire.server()
            ));
            node.lbadm(&format!(
                "create-rule -e -i vip={},port={PORT},protocol=udp -m lbalg=rr,type=HALF-NAT -o servergroup=bench bench",
                self.vip
            ));
        }
        let rate = self.measure(flows);
        self.wire.stop_ilb();
        rate
    }

    fn bare_loop(&self, flows: u32) -> f64 {
        let own = std::env::current_exe().expect("the benchmark knows its own file");
        let mut command = self
            .wire
            .lab
            .at("lb")
            .command(own.with_file_name("ilb-bare-loop"));
        let pins = self.wire.lab.directory().join("bpf/bare");
        command.arg(self.wire.lab.node.settings()).arg(&pins);
        command.arg(format!("{}:{PORT}", self.vip));
        let log = self.wire.lab.directory().join("bare-loop.log");
        let mut daemon = Daemon::spawn("ilb-bare-loop", command, &log);
        wait_for_text(&log, "ready");
        pin_all(daemon.pid(), 1);
        let rate = self.measure(flows);
        daemon.terminate();
        xdp_redirect::Redirect::detach_all(&pins)
            .expect("the bare loop's program can be taken out");
        rate
    }

    fn nftables(&self, flows: u32, help: Help) -> f64 {
        let lb = self.wire.lab.at("lb");
        let _room = Conntrack::raise(help);
        lb.sysctl(&[
            ("ipv4.ip_forward", "1"),
            ("ipv4.conf.all.rp_filter", "0"),
            ("ipv4.conf.eth0.rp_filter", "0"),
        ]);
        lb.run(&format!("ip addr add {}/32 dev lo", self.vip));
        lb.run("nft add table ip bench");
        lb.run("nft add chain ip bench pre { type nat hook prerouting priority dstnat ; }");
        lb.run(&format!(
            "nft add rule ip bench pre ip daddr {} udp dport {PORT} dnat to {}:{PORT}",
            self.vip,
            self.wire.server()
        ));
        lb.run("ethtool -K eth0 gro on");
        let rps = |mask: &str| {
            let queues = lb.command("sh");
            let mut queues = queues;
            queues.args([
                "-c",
                &format!(
                    "for q in /sys/class/net/eth0/queues/rx-*/rps_cpus; do echo {mask} > $q; done"
                ),
            ]);
            shell::run(queues).ok();
        };
        rps("0");
        let local = self.measure(flows);
        let remote = match help {
            Help::All => {
                rps("2");
                self.measure(flows)
            }
            Help::Room => 0.0,
        };
        rps("0");
        lb.run("ethtool -K eth0 gro off");
        lb.run("nft delete table ip bench");
        lb.run(&format!("ip addr del {}/32 dev lo", self.vip));
        lb.sysctl(&[("ipv4.ip_forward", "0")]);
        local.max(remote)
    }
}

/// What is done for nftables before it is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Help {
    /// Room for all connections, buckets as many as there should be then, and the second processor if that is better.
    All,
    /// Room for all connections: without it, packets would be dropped.
    Room,
}

/// Room for a million tracked connections, which the kernel keeps for all namespaces together; put back on drop.
struct Conntrack {
    max: String,
    buckets: String,
}

impl Conntrack {
    fn raise(help: Help) -> Conntrack {
        let read = |path: &str| std::fs::read_to_string(path).expect("this kernel has conntrack");
        let before = Conntrack {
            max: read(CONNTRACK),
            buckets: read(CONNTRACK_BUCKETS),
        };
        write(CONNTRACK, "4194304");
        if help == Help::All {
            write(CONNTRACK_BUCKETS, "1048576");
        }
        before
    }
}

impl Drop for Conntrack {
    fn drop(&mut self) {
        write(CONNTRACK_BUCKETS, self.buckets.trim());
        write(CONNTRACK, self.max.trim());
    }
}

fn write(path: &str, value: &str) {
    std::fs::write(path, value)
        .unwrap_or_else(|error| panic!("cannot write {value} to {path}: {error}"));
}

fn pin(task: Pid, processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor).expect("a processor's number");
    sched_setaffinity(task, &set)
        .unwrap_or_else(|error| panic!("cannot run {task} on processor {processor}: {error}"));
}

/// All threads of a process.
pub fn pin_all(pid: u32, processor: usize) {
    let tasks = PathBuf::from(format!("/proc/{pid}/task"));
    for task in std::fs::read_dir(tasks).expect("the process runs") {
        let name = task.expect("a thread").file_name();
        let id: i32 = name.to_string_lossy().parse().expect("a thread's number");
        pin(Pid::from_raw(id), processor);
    }
}

fn wait_for_text(log: &Path, text: &str) {
    let found = shell::wait_for(Duration::from_secs(10), || {
        std::fs::read_to_string(log)
            .is_ok_and(|all| all.contains(text))
            .then_some(())
    });
    assert!(
        found.is_some(),
        "'{text}' did not appear in {}:\n{}",
        log.display(),
        std::fs::read_to_string(log).unwrap_or_default()
    );
}

/// Runs a command line and gives its words; for the report's head.
pub fn machine() -> String {
    let mut command = Command::new("uname");
    command.args(["-sr"]);
    let kernel = shell::run(command).ok();
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            Some(
                line.strip_prefix("model name")?
                    .split_once(':')?
                    .1
                    .trim()
                    .to_owned(),
            )
        })
        .unwrap_or_else(|| "unknown processor".into());
    format!("{}, {model}", kernel.trim())
}
