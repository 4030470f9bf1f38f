//! What the kernel says in files below `/proc` and `/sys`. What cannot be read is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ilb_node::settings::{Node, Settings};

/// Free and total bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What we could still write.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// A socket that takes connections or datagrams.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its address; unspecified for all.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// `up`, `down`, `unknown`.
    pub state: String,
    /// Its driver; empty for virtual ones.
    pub driver: String,
    /// Its MTU.
    pub mtu: u32,
    /// Its receive queues.
    pub queues: usize,
    /// Its settings below `/proc/sys/net`, such as `ipv4.rp_filter`.
    pub settings: BTreeMap<String, String>,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct System {
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// Whether the kernel describes its types.
    pub btf: bool,
    /// `net.core.bpf_jit_enable`; only root may read it.
    pub jit: Option<String>,
    /// Whether AF_XDP sockets are compiled in.
    pub af_xdp: Option<bool>,
    /// Where bpf file systems are mounted.
    pub bpffs: Vec<PathBuf>,
    /// Bytes of memory that can be had.
    pub memory: Option<u64>,
    /// Limit of locked memory of the fast path.
    pub memlock: Option<String>,
    /// Where the kernel has its time from.
    pub clocksource: Option<String>,
    /// Whether systemd-timesyncd has set the clock.
    pub synchronized: bool,
    /// Names of all processes.
    pub processes: BTreeSet<String>,
    /// Whose port is open.
    pub listeners: BTreeSet<Listener>,
    /// Services of the kernel's own balancer; `None` when it is not loaded.
    pub ip_vs: Option<Vec<String>>,
    /// The interfaces of the settings that there are.
    pub interfaces: BTreeMap<String, Interface>,
    /// `net.ipv4.conf.all.rp_filter` and the like.
    pub all: BTreeMap<String, String>,
    /// File systems of state and runtime directory.
    pub state_dir: Option<Space>,
    /// The same of the runtime directory, which has the connection table.
    pub runtime_dir: Option<Space>,
}

fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_string())
}

impl System {
    /// Reads everything below `root`, which is `/` but in tests.
    pub fn read(root: &Path, settings: Option<&Settings>) -> System {
        let at = |path: &str| root.join(path);
        let lines = |path: &str| text(&at(path)).unwrap_or_default();
        let node = settings.map_or_else(Node::default, |settings| settings.node.clone());
        let names = settings.map(|settings| &settings.fastpath.interfaces[..]);
        let names = names.unwrap_or_default();
        let (processes, fastpath) = processes(&at("proc"));
        let sockets = [
            ("tcp", "tcp"),
            ("tcp6", "tcp"),
            ("udp", "udp"),
            ("udp6", "udp"),
        ];
        System {
            kernel: text(&at("proc/sys/kernel/osrelease")),
            btf: at("sys/kernel/btf/vmlinux").exists(),
            jit: text(&at("proc/sys/net/core/bpf_jit_enable")),
            af_xdp: text(&at("proc/net/protocols"))
                .map(|all| all.lines().any(|line| line.starts_with("XDP "))),
            bpffs: mounts(&lines("proc/mounts"), "bpf"),
            memory: available(&lines("proc/meminfo")),
            memlock: fastpath.and_then(|id| memlock(&lines(&format!("proc/{id}/limits")))),
            clocksource: text(&at(
                "sys/devices/system/clocksource/clocksource0/current_clocksource",
            )),
            synchronized: at("run/systemd/timesync/synchronized").exists(),
            processes,
            listeners: sockets
                .iter()
                .flat_map(|(file, protocol)| {
                    listeners(&lines(&format!("proc/net/{file}")), protocol)
                })
                .collect(),
            ip_vs: text(&at("proc/net/ip_vs")).map(|text| services(&text)),
            interfaces: names
                .iter()
                .filter_map(|name| Some((name.clone(), interface(root, name)?)))
                .collect(),
            all: conf(root, "all"),
            state_dir: space(&root.join(relative(&node.state_dir))),
            runtime_dir: space(&root.join(relative(&node.runtime_dir))),
        }
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// The file system of a directory, or of the one above if it is not there yet.
fn space(path: &Path) -> Option<Space> {
    let there = path.ancestors().find(|path| path.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    Some(Space {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

/// Names of processes, and the id of the fast path.
fn processes(proc: &Path) -> (BTreeSet<String>, Option<u32>) {
    let ids = fs::read_dir(proc).into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut names = BTreeSet::new();
    let mut fastpath = None;
    for id in ids {
        if let Some(name) = text(&proc.join(format!("{id}/comm"))) {
            if name == "ilb-fastpath" {
                fastpath = Some(id);
            }
            names.insert(name);
        }
    }
    (names, fastpath)
}

/// Mount points of one kind of file system, as proc(5) has them.
fn mounts(text: &str, kind: &str) -> Vec<PathBuf> {
    let rows = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    rows.filter(|row| row.get(2) == Some(&kind))
        .filter_map(|row| row.get(1).map(PathBuf::from))
        .collect()
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|l| l.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn memlock(limits: &str) -> Option<String> {
    let line = limits
        .lines()
        .find(|l| l.starts_with("Max locked memory"))?;
    line.split_whitespace().nth(3).map(str::to_string)
}

/// Services of `/proc/net/ip_vs`: `TCP 192.0.2.80:80`; addresses are hexadecimal there.
fn services(text: &str) -> Vec<String> {
    let rows = text.lines().filter(|line| {
        ["TCP ", "UDP ", "SCTP ", "FWM "]
            .iter()
            .any(|kind| line.starts_with(kind))
    });
    rows.map(|line| {
        let words: Vec<&str> = line.split_whitespace().take(2).collect();
        words.join(" ")
    })
    .collect()
}

/// Open sockets that listen: TCP in state 0A, UDP in state 07 (`include/net/tcp_states.h`).
fn listeners(text: &str, protocol: &'static str) -> Vec<Listener> {
    let wanted = if protocol == "tcp" { "0A" } else { "07" };
    let rows = text.lines().skip(1);
    rows.filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = words.get(1)?.split_once(':')?;
        (*words.get(3)? == wanted).then_some(())?;
        Some(Listener {
            protocol,
            address: parse_address(address)?,
            port: u16::from_str_radix(port, 16).ok()?,
        })
    })
    .collect()
}

/// An address as words of the machine's byte order, in hexadecimal digits.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok();
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes()))),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(8 * at)?.to_ne_bytes());
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

fn interface(root: &Path, name: &str) -> Option<Interface> {
    let folder = root.join("sys/class/net").join(name);
    folder.exists().then(|| Interface {
        state: text(&folder.join("operstate")).unwrap_or_default(),
        driver: fs::read_link(folder.join("device/driver"))
            .ok()
            .and_then(|link| Some(link.file_name()?.to_str()?.to_string()))
            .unwrap_or_default(),
        mtu: text(&folder.join("mtu"))
            .and_then(|mtu| mtu.parse().ok())
            .unwrap_or(0),
        queues: fs::read_dir(folder.join("queues"))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|queue| queue.file_name().to_string_lossy().starts_with("rx-"))
            .count(),
        settings: conf(root, name),
    })
}

/// Settings of an interface, or of all.
fn conf(root: &Path, name: &str) -> BTreeMap<String, String> {
    let wanted = [
        ("ipv4", "rp_filter"),
        ("ipv4", "arp_ignore"),
        ("ipv6", "disable_ipv6"),
    ];
    wanted
        .iter()
        .filter_map(|(family, key)| {
            let path = format!("proc/sys/net/{family}/conf/{name}/{key}");
            Some((format!("{family}.{key}"), text(&root.join(path))?))
        })
        .collect()
}
