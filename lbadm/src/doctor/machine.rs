//! The daemons with their versions, the kernel, memory, disk and clock. Pure.

use super::Facts;
use super::system::Space;
use crate::finding::{Finding, Level};
use crate::status;

/// Our version, which all three programs should have.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Settings, manager, fast path, and what ails rules.
pub fn daemons(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![match &facts.settings {
        Ok(settings) => Finding::ok(
            "settings",
            format!("interfaces {}", settings.fastpath.interfaces.join(", ")),
        ),
        Err(mistakes) => Finding::bad(
            "settings",
            mistakes.lines().collect::<Vec<_>>().join("; "),
            "correct /etc/ilb/ilb.toml, or name another file with --config",
        ),
    }];
    let versions = |about: &str, version: &str| match version == VERSION {
        true => Finding::ok(about, format!("version {version}, as lbadm")),
        false => Finding::warn(
            about,
            format!("version {version}, but lbadm has {VERSION}"),
            format!(
                "restart it after the upgrade: 'systemctl restart {}'",
                unit(about)
            ),
        ),
    };
    match &facts.node {
        Err(reason) => all.push(Finding::bad(
            "manager",
            reason.clone(),
            "'systemctl start ilb'; 'journalctl -u ilb' says why it ended",
        )),
        Ok(node) => {
            all.push(versions("manager", &node.version));
            all.extend(status::troubles(node));
        }
    }
    match &facts.fastpath {
        Ok(fastpath) => {
            all.push(versions("fast path", &fastpath.version));
            all.push(table(fastpath.table_used, fastpath.table_capacity));
        }
        // Said above, if the manager can say it.
        Err(_) if all.iter().any(|f| f.about == "fast path") => {}
        Err(reason) => all.push(Finding::unknown(
            "fast path",
            match facts.node {
                Ok(_) => reason.clone(),
                Err(_) => "it tells through the manager, which is not there".to_string(),
            },
            "'systemctl status ilb-fastpath' says whether it runs",
        )),
    }
    all
}

fn unit(about: &str) -> &'static str {
    match about {
        "manager" => "ilb",
        _ => "ilb-fastpath",
    }
}

fn table(used: u64, capacity: u64) -> Finding {
    let found = format!("{used} of {capacity} entries in use");
    match capacity {
        0 => Finding::ok("table", "no table: simulated"),
        _ if used.saturating_mul(10) >= capacity.saturating_mul(9) => Finding::bad(
            "table",
            found,
            "raise table-size in the settings and restart the fast path, or shorten times: strangers are turned away when it is full",
        ),
        _ if used.saturating_mul(10) >= capacity.saturating_mul(7) => Finding::warn(
            "table",
            found,
            "raise table-size in the settings; it takes a restart of the fast path, which forgets connections",
        ),
        _ => Finding::ok("table", found),
    }
}

/// Release and features.
pub fn kernel(facts: &Facts) -> Vec<Finding> {
    let system = &facts.system;
    let mut all = Vec::new();
    all.push(match &system.kernel {
        None => Finding::unknown("kernel", "its release cannot be read", "is /proc mounted?"),
        Some(release) => match version(release) {
            Some(found) if found < (5, 18) => Finding::bad(
                "kernel",
                format!("Linux {release}"),
                "too old: addresses of ilb need 5.18, zero copy of many drivers more; take Debian 12 or newer",
            ),
            Some(found) if found < (6, 1) => Finding::warn(
                "kernel",
                format!("Linux {release}"),
                "ilb is tried with 6.1 and newer",
            ),
            _ => Finding::ok("kernel", format!("Linux {release}")),
        },
    });
    all.push(match system.af_xdp {
        Some(true) => Finding::ok("AF_XDP", "in the kernel"),
        Some(false) => Finding::bad(
            "AF_XDP",
            "this kernel has no AF_XDP sockets",
            "take a kernel with CONFIG_XDP_SOCKETS=y",
        ),
        None => Finding::unknown("AF_XDP", "/proc/net/protocols cannot be read", ""),
    });
    all.push(match system.jit.as_deref() {
        Some("0") => Finding::warn(
            "BPF JIT",
            "off: the XDP program is interpreted, which costs several times as much",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => Finding::ok("BPF JIT", "on"),
        None => Finding::unknown("BPF JIT", "only root may see it", "run it as root"),
    });
    all.push(match system.btf {
        true => Finding::ok("BTF", "the kernel describes its types"),
        false => Finding::warn(
            "BTF",
            "the kernel does not describe its types (/sys/kernel/btf/vmlinux)",
            "ilb does without; tools that look into it (bpftool) show less",
        ),
    });
    let wanted = facts.settings.as_ref().ok();
    let folder = wanted.map(|settings| settings.node.bpf_dir.clone());
    let folder = folder.unwrap_or_else(|| "/sys/fs/bpf/ilb".into());
    all.push(
        match system.bpffs.iter().find(|at| folder.starts_with(at)) {
            Some(at) => Finding::ok(
                "bpf files",
                format!("{} is a bpf file system", at.display()),
            ),
            None => Finding::bad(
                "bpf files",
                format!("{} is on no bpf file system", folder.display()),
                "mount -t bpf bpf /sys/fs/bpf",
            ),
        },
    );
    all
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Memory and disk.
pub fn resources(facts: &Facts) -> Vec<Finding> {
    let system = &facts.system;
    let mut all = Vec::new();
    all.push(match system.memlock.as_deref() {
        Some("unlimited") => Finding::ok("locked memory", "no limit for the fast path"),
        Some(limit) => Finding::warn(
            "locked memory",
            format!("the fast path may lock {limit} bytes: packet memory beyond that is refused (ENOBUFS)"),
            "LimitMEMLOCK=infinity in its unit, as ours has it; 'ulimit -l unlimited' in a shell",
        ),
        None => Finding::unknown(
            "locked memory",
            "no fast path was seen",
            "run it as root, on the node where the fast path runs",
        ),
    });
    // What the table takes when it is filled; packet memory is there already.
    let running = facts.fastpath.is_ok();
    if let (Ok(settings), Some(free)) = (&facts.settings, system.memory) {
        let table = u64::from(settings.fastpath.table_size) * 64;
        let found = format!(
            "{} can be had, a full connection table has {}",
            size(free),
            size(table)
        );
        all.push(match free > table || running {
            true => Finding::ok("memory", found),
            false => Finding::bad("memory", found, "lower table-size in the settings"),
        });
        if let Some(space) = system.runtime_dir.filter(|_| !running) {
            let folder = settings.node.runtime_dir.display();
            let found = format!("{} free for {folder}", size(space.free));
            all.push(match space.free > table + table / 8 {
                true => Finding::ok("runtime dir", found),
                false => Finding::bad(
                    "runtime dir",
                    format!("{found}, but the connection table needs {}", size(table)),
                    "lower table-size, or 'mount -o remount,size=…' /run",
                ),
            });
        }
    }
    all.push(match system.state_dir {
        Some(space) => disk(space),
        None => Finding::unknown(
            "disk",
            "the state directory cannot be seen",
            "run it as root",
        ),
    });
    all
}

fn disk(space: Space) -> Finding {
    let found = format!(
        "{} of {} free for the state directory",
        size(space.free),
        size(space.total)
    );
    let advice = "make room: without it nothing can be changed";
    match space.free >> 20 {
        0..32 => Finding::bad("disk", found, advice),
        32..256 => Finding::warn("disk", found, advice),
        _ => Finding::ok("disk", found),
    }
}

/// Bytes as people write them.
fn size(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mib @ 1..10_240 => format!("{mib} MiB"),
        mib => format!("{} GiB", mib >> 10),
    }
}

/// Where time comes from.
pub fn clock(facts: &Facts) -> Vec<Finding> {
    let system = &facts.system;
    let mut all = Vec::new();
    if let Some(source) = system.clocksource.as_deref() {
        let slow = ["jiffies", "acpi_pm", "hpet", "refined-jiffies"].contains(&source);
        all.push(match slow {
            true => Finding::warn(
                "clock source",
                format!("{source}: asking for the time is slow"),
                "'dmesg | grep -i clocksource' says why tsc was given up",
            ),
            false => Finding::ok("clock source", source),
        });
    }
    let keeper = ["chronyd", "ntpd", "ptp4l", "phc2sys"]
        .into_iter()
        .find(|name| system.processes.contains(*name));
    all.push(match (system.synchronized, keeper) {
        (true, _) => Finding::ok("clock", "set by systemd-timesyncd"),
        (false, Some(keeper)) => Finding::ok("clock", format!("kept by {keeper}")),
        (false, None) => Finding::warn(
            "clock",
            "nobody seems to keep it: logs of several nodes cannot be compared",
            "'timedatectl set-ntp true', or install chrony",
        ),
    });
    debug_assert!(all.iter().all(|finding| finding.level != Level::Bad));
    all
}
