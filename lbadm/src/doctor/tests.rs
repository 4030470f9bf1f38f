//! A node that is well, one that ails everywhere, and files of a kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::network::{Link, Way, links, neighbours, rewrites, route};
use super::system::{Interface, Listener, Space};
use super::*;
use crate::golden::node::node;

fn settings(interfaces: &str) -> Settings {
    Settings::parse(&format!("[fastpath]\ninterfaces = {interfaces}")).unwrap()
}

fn pairs(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = all.iter();
    pairs
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

fn well() -> Facts {
    let mut node = node();
    for server in node.groups.iter_mut().flat_map(|group| &mut group.servers) {
        server.health.clear();
    }
    node.rules.iter_mut().for_each(|rule| rule.problems.clear());
    let interface = |driver: &str, mtu| Interface {
        state: "up".into(),
        driver: driver.into(),
        mtu,
        queues: 2,
        settings: pairs(&[("ipv4.rp_filter", "0"), ("ipv4.arp_ignore", "0")]),
    };
    let fastpath = json!({
        "version": env!("CARGO_PKG_VERSION"), "generation": 12, "workers": 2, "uptime": 5,
        "interfaces": [
            {"name": "eth0", "mode": "native", "zero_copy": true, "queues": 2},
            {"name": "eth1", "mode": "native", "zero_copy": true, "queues": 2},
        ],
        "table_capacity": 1_048_576, "table_used": 9,
    });
    let servers = node.groups.iter().flat_map(|group| &group.servers);
    let ways = servers.map(|server| {
        let way = Way::By {
            interface: "eth1".into(),
            next_hop: server.server.address,
        };
        (server.server.address, way)
    });
    Facts {
        settings: Ok(settings("[\"eth0\", \"eth1\"]")),
        network: Network {
            links: Some(Default::default()),
            ways: ways.collect(),
            more_servers: 0,
            neighbours: [(
                ("eth1".to_string(), "192.0.2.11".parse().unwrap()),
                "STALE".to_string(),
            )]
            .into(),
            rewrites: Some(Vec::new()),
        },
        node: Ok(node),
        fastpath: Ok(serde_json::from_value(fastpath).unwrap()),
        system: System {
            kernel: Some("6.12.48-amd64".into()),
            btf: true,
            jit: Some("1".into()),
            af_xdp: Some(true),
            bpffs: vec![PathBuf::from("/sys/fs/bpf")],
            memory: Some(8 << 30),
            memlock: Some("unlimited".into()),
            clocksource: Some("tsc".into()),
            synchronized: true,
            processes: ["systemd".to_string(), "ilb-fastpath".to_string()].into(),
            listeners: [Listener {
                protocol: "tcp",
                address: "0.0.0.0".parse().unwrap(),
                port: 22,
            }]
            .into(),
            ip_vs: None,
            interfaces: [
                ("eth0".to_string(), interface("ice", 1500)),
                ("eth1".to_string(), interface("ice", 9000)),
            ]
            .into(),
            all: pairs(&[("ipv4.rp_filter", "0")]),
            state_dir: Some(Space {
                free: 40 << 30,
                total: 100 << 30,
            }),
            runtime_dir: Some(Space {
                free: 1 << 30,
                total: 2 << 30,
            }),
        },
    }
}

/// Everything that can be wrong at once.
fn ill() -> Facts {
    let mut facts = well();
    facts.settings = Ok(settings("[\"eth0\", \"eth1\", \"eth7\"]"));
    if let Ok(node) = &mut facts.node {
        *node = crate::golden::node::node();
        node.version = "0.0.9".into();
    }
    if let Ok(fastpath) = &mut facts.fastpath {
        fastpath.table_used = 1_000_000;
        let eth0 = &mut fastpath.interfaces[0];
        eth0.mode = "generic".into();
        eth0.mode_reason = "the driver has no XDP".into();
        eth0.zero_copy = false;
        eth0.copy_reason = "generic mode always copies".into();
        eth0.queues = 1;
        fastpath.interfaces.truncate(1);
    }
    let system = &mut facts.system;
    system.kernel = Some("5.10.0-28-amd64".into());
    system.btf = false;
    system.jit = Some("0".into());
    system.af_xdp = Some(false);
    system.bpffs.clear();
    system.memlock = Some("65536".into());
    system.clocksource = Some("hpet".into());
    system.synchronized = false;
    system.processes = ["keepalived", "haproxy", "firewalld"]
        .map(String::from)
        .into();
    system.ip_vs = Some(vec!["TCP C0000250:0050".into()]);
    system.listeners = [Listener {
        protocol: "tcp",
        address: "192.0.2.80".parse().unwrap(),
        port: 80,
    }]
    .into();
    system.state_dir = Some(Space {
        free: 3 << 20,
        total: 100 << 30,
    });
    for (name, interface) in &mut system.interfaces {
        interface.state = "down".into();
        interface.mtu = 1500;
        if name == "eth0" {
            interface
                .settings
                .insert("ipv4.arp_ignore".into(), "8".into());
        } else {
            interface
                .settings
                .insert("ipv6.disable_ipv6".into(), "1".into());
            interface
                .settings
                .insert("ipv4.rp_filter".into(), "1".into());
        }
    }
    let network = &mut facts.network;
    network.links = Some(
        [(
            "eth1".to_string(),
            Link {
                kind: String::new(),
                program: Some(77),
            },
        )]
        .into(),
    );
    let mut ways = network.ways.values_mut();
    *ways.next().unwrap() = Way::None("Network is unreachable".into());
    *ways.next().unwrap() = Way::By {
        interface: "eth5".into(),
        next_hop: "192.0.2.1".parse().unwrap(),
    };
    *ways.next().unwrap() = Way::Local;
    network.neighbours = [(
        ("eth1".to_string(), "2001:db8::11".parse().unwrap()),
        "FAILED".to_string(),
    )]
    .into();
    let rule = json!({"nftables": [{"rule": {
        "family": "ip", "table": "nat", "chain": "prerouting",
        "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "192.0.2.82"}},
            {"dnat": {"addr": "192.0.2.99"}},
        ],
    }}]});
    network.rewrites = Some(rewrites(&rule));
    facts
}

/// Nothing runs, and whoever looks is not root.
fn alone() -> Facts {
    let mut facts = well();
    facts.settings = Err("line 2, column 1: fastpath.interfaces: missing".into());
    facts.node = Err("the load balancer's manager is not running".into());
    facts.fastpath = Err("the load balancer's manager is not running".into());
    facts.system = System {
        kernel: facts.system.kernel,
        bpffs: facts.system.bpffs,
        ..System::default()
    };
    facts.network = Network::default();
    facts
}

#[test]
fn each_finding_says_what_was_found_and_what_to_do() {
    let plain = Style::default();
    let text = |title: &str, facts: &Facts| {
        let findings = judge::all(facts);
        let code = exit(&findings) as u8;
        format!("== {title}\n{}[exit {code}]\n", render(&findings, plain))
    };
    let now = [
        text("a node that is well", &well()),
        text("a node that ails", &ill()),
        text("no manager, no rights", &alone()),
    ]
    .join("\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden/doctor.txt");
    if std::env::var_os("ILB_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, now).unwrap();
    } else {
        assert_eq!(now, fs::read_to_string(&path).unwrap());
    }
}

#[test]
fn what_is_not_well_says_what_to_do() {
    for facts in [ill(), alone()] {
        for finding in judge::all(&facts) {
            assert!(
                matches!(finding.level, Level::Ok | Level::Unknown) || !finding.advice.is_empty(),
                "{finding:?}"
            );
        }
    }
    assert_eq!(exit(&judge::all(&well())), Exit::Ok);
}

struct Root(PathBuf);

impl Root {
    fn new() -> Root {
        let root = std::env::temp_dir().join(format!("lbadm-doctor-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Root(root)
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_of_a_kernel_are_read() {
    let root = Root::new();
    let heading = "  sl  local_address rem_address   st\n";
    let be = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
    let (vip, own) = (be([192, 0, 2, 80]), be([192, 0, 2, 1]));
    let six = [[0x20, 1, 0xd, 0xb8], [0; 4], [0; 4], [0, 0, 0, 1]]
        .map(be)
        .concat();
    for (path, text) in [
        ("proc/sys/kernel/osrelease", "6.12.48-amd64\n"),
        ("proc/sys/net/core/bpf_jit_enable", "1\n"),
        ("proc/net/protocols", "protocol  size\nXDP  960\nTCP 100\n"),
        (
            "proc/mounts",
            "bpf /sys/fs/bpf bpf rw 0 0\nproc /proc proc rw 0 0\n",
        ),
        ("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:  2048 kB\n"),
        ("proc/17/comm", "ilb-fastpath\n"),
        (
            "proc/17/limits",
            "Limit  Soft Limit  Hard Limit  Units\nMax locked memory  unlimited  unlimited  bytes\n",
        ),
        ("proc/18/comm", "keepalived\n"),
        (
            "proc/net/tcp",
            &format!("{heading} 0: {vip}:0050 00000000:0000 0A\n 1: {own}:0016 {own}:9999 01\n"),
        ),
        (
            "proc/net/udp6",
            &format!("{heading} 0: {six}:0035 {six}:0000 07\n"),
        ),
        (
            "proc/net/ip_vs",
            "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\nTCP  C0000250:0050 rr\n  -> C000020B:0050 Masq 1 0 0\n",
        ),
        ("proc/sys/net/ipv4/conf/all/rp_filter", "2\n"),
        ("proc/sys/net/ipv4/conf/eth0/arp_ignore", "1\n"),
        ("sys/class/net/eth0/mtu", "1500\n"),
        ("sys/class/net/eth0/operstate", "up\n"),
        ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
        ("sys/class/net/eth0/queues/rx-1/rps_cpus", "0\n"),
        ("sys/class/net/eth0/queues/tx-0/xps_cpus", "0\n"),
        ("var/lib/ilb/db", ""),
    ] {
        root.file(path, text);
    }
    let system = System::read(&root.0, Some(&settings("[\"eth0\", \"eth9\"]")));
    assert_eq!(system.kernel.as_deref(), Some("6.12.48-amd64"));
    assert_eq!((system.btf, system.af_xdp), (false, Some(true)));
    assert_eq!(system.bpffs, [PathBuf::from("/sys/fs/bpf")]);
    assert_eq!(system.memory, Some(2 << 20));
    assert_eq!(system.memlock.as_deref(), Some("unlimited"));
    assert!(system.processes.contains("keepalived"));
    let listeners: Vec<String> = system
        .listeners
        .iter()
        .map(|one| format!("{} {} {}", one.protocol, one.address, one.port))
        .collect();
    assert_eq!(listeners, ["tcp 192.0.2.80 80", "udp 2001:db8::1 53"]);
    assert_eq!(system.ip_vs, Some(vec!["TCP C0000250:0050".to_string()]));
    assert_eq!(system.all["ipv4.rp_filter"], "2");
    assert_eq!(system.interfaces.len(), 1, "eth9 is not there");
    let eth0 = &system.interfaces["eth0"];
    assert_eq!(
        (eth0.mtu, eth0.queues, eth0.state.as_str()),
        (1500, 2, "up")
    );
    assert_eq!(eth0.settings["ipv4.arp_ignore"], "1");
    assert!(
        system
            .state_dir
            .is_some_and(|space| space.total >= space.free)
    );

    let nothing = System::read(&root.0.join("nothing"), None);
    assert_eq!(
        (nothing.kernel, nothing.jit, nothing.ip_vs),
        (None, None, None)
    );
}

#[test]
fn what_ip_says_is_understood() {
    let server = "192.0.2.11".parse().unwrap();
    let by = |next_hop: &str| {
        Some(Way::By {
            interface: "eth1".into(),
            next_hop: next_hop.parse().unwrap(),
        })
    };
    for (said, way) in [
        (
            json!([{"dst": "192.0.2.11", "dev": "eth1"}]),
            by("192.0.2.11"),
        ),
        (
            json!([{"dst": "192.0.2.11", "gateway": "10.0.0.1", "dev": "eth1"}]),
            by("10.0.0.1"),
        ),
        (
            json!([{"dst": "192.0.2.11", "via": {"family": "inet6", "host": "fe80::1"}, "dev": "eth1"}]),
            by("fe80::1"),
        ),
        (
            json!([{"type": "local", "dst": "192.0.2.11", "dev": "lo"}]),
            Some(Way::Local),
        ),
        (json!([]), None),
    ] {
        assert_eq!(route(server, &said), way, "{said}");
    }
    let said = json!([
        {"ifname": "eth0", "linkinfo": {"info_kind": "veth"}, "xdp": {"mode": 1, "prog": {"id": 5}}},
        {"ifname": "eth1"},
    ]);
    let links = links(&said);
    assert_eq!(
        (links["eth0"].kind.as_str(), links["eth0"].program),
        ("veth", Some(5))
    );
    assert_eq!(links["eth1"], Link::default());
    let said = json!([{"dst": "192.0.2.11", "dev": "eth1", "state": ["FAILED"]}, {"dev": "x"}]);
    assert_eq!(neighbours(&said)[&("eth1".to_string(), server)], "FAILED");
}
