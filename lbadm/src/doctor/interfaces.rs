//! The interfaces of the fast path: driver, mode, zero copy, MTU, queues, and whose XDP program they have. Pure.

use std::collections::BTreeMap;

use libilb::fastpath::InterfaceDescription;
use libilb::tunnel::Tunnel;

use super::Facts;
use super::network::{Link, Way};
use super::system::Interface;
use crate::finding::Finding;

/// Every interface of the settings.
pub fn all(facts: &Facts) -> Vec<Finding> {
    let Ok(settings) = &facts.settings else {
        return Vec::new();
    };
    let served = facts.fastpath.as_ref().ok();
    let mut all: Vec<Finding> = Vec::new();
    for name in &settings.fastpath.interfaces {
        let about = format!("interface {name}");
        let Some(interface) = facts.system.interfaces.get(name) else {
            all.push(Finding::bad(
                about,
                "there is no such interface",
                "'ip link' lists them; correct interfaces in the settings",
            ));
            continue;
        };
        let link = facts.network.links.as_ref();
        let link = link.and_then(|links| links.get(name)).cloned();
        let link = link.unwrap_or_default();
        all.push(state(&about, interface, &link));
        let served = served.map(|fastpath| &fastpath.interfaces);
        let served = served.and_then(|all| all.iter().find(|one| one.name == *name));
        match (served, link.program) {
            (Some(served), _) => all.extend(how(&about, served, interface)),
            (None, Some(program)) if facts.node.is_ok() => all.push(Finding::warn(
                about,
                format!("an XDP program (number {program}) is on it, but no fast path serves it"),
                "if it is not of ilb ('bpftool prog show'), take it off: 'ip link set dev NAME xdp off'; ilb's own waits for the fast path",
            )),
            _ => {}
        }
    }
    for finding in &mut all {
        let name = finding.about.trim_start_matches("interface ");
        finding.advice = finding.advice.replace("NAME", name);
    }
    all.extend(tunnels(facts));
    all
}

fn state(about: &str, interface: &Interface, link: &Link) -> Finding {
    let driver = match (interface.driver.as_str(), link.kind.as_str()) {
        ("", "") => "no driver".to_string(),
        ("", kind) => format!("virtual ({kind})"),
        (driver, _) => format!("driver {driver}"),
    };
    let found = format!(
        "{}, {driver}, MTU {}, {} receive queue{}",
        interface.state,
        interface.mtu,
        interface.queues,
        if interface.queues == 1 { "" } else { "s" }
    );
    match interface.state.as_str() {
        "down" | "lowerlayerdown" | "notpresent" => {
            Finding::bad(about, found, "is the cable in? 'ip link set dev NAME up'")
        }
        _ => Finding::ok(about, found),
    }
}

fn how(about: &str, served: &InterfaceDescription, interface: &Interface) -> Vec<Finding> {
    let mut all = Vec::new();
    all.push(match served.mode.as_str() {
        "native" => Finding::ok(about, "XDP runs in the driver"),
        mode => Finding::warn(
            about,
            format!("XDP runs in {mode} mode: {}", served.mode_reason),
            "another NIC or a newer kernel; LRO and jumbo frames keep some drivers from it: 'ethtool -K NAME lro off'",
        ),
    });
    all.push(match served.zero_copy {
        true => Finding::ok(about, "zero copy"),
        false => Finding::warn(
            about,
            format!("every frame is copied: {}", served.copy_reason),
            "it works, at some cost; zero copy depends on driver and kernel (ixgbe, i40e 4.20, mlx5 5.3, ice 5.5, igc 5.14, gve 6.4, virtio_net 6.13)",
        ),
    });
    if (served.queues as usize) < interface.queues {
        all.push(Finding::warn(
            about,
            format!(
                "{} of {} receive queues have a worker: what comes by others is left to the kernel",
                served.queues, interface.queues
            ),
            format!(
                "queues = \"all\" in the settings, or 'ethtool -L NAME combined {}'",
                served.queues
            ),
        ));
    }
    all
}

/// Bytes that a tunnel adds at most, over IPv6 if servers have it.
fn overhead(tunnel: Tunnel, ipv6: bool) -> u32 {
    let outer = if ipv6 { 40 } else { 20 };
    outer
        + match tunnel {
            Tunnel::Ipip => 0,
            Tunnel::Gre { checksum: false } => 4,
            Tunnel::Gre { checksum: true } => 8,
            // UDP, GUE, and the option of remote checksum offload.
            Tunnel::Gue { .. } => 20,
        }
}

/// Whether whole packets of clients fit through the tunnels.
fn tunnels(facts: &Facts) -> Vec<Finding> {
    let Ok(node) = &facts.node else {
        return Vec::new();
    };
    let mtu = |interface: &str| facts.system.interfaces.get(interface).map(|i| i.mtu);
    let mut worst: BTreeMap<&str, (String, u32, u32)> = BTreeMap::new();
    for rule in &node.rules {
        let (Some(tunnel), Some(group)) = (rule.rule.tunnel, node.group(&rule.rule.servergroup))
        else {
            continue;
        };
        for server in &group.servers {
            let address = server.server.address;
            let Some(Way::By { interface, .. }) = facts.network.ways.get(&address) else {
                continue;
            };
            let Some(mtu) = mtu(interface) else { continue };
            let room = mtu.saturating_sub(overhead(tunnel, address.is_ipv6()));
            let there = worst.get(rule.rule.name.as_str());
            if there.is_none_or(|(_, _, known)| room < *known) {
                worst.insert(&rule.rule.name, (interface.clone(), mtu, room));
            }
        }
    }
    let found = worst.into_iter().map(|(rule, (interface, mtu, room))| {
        let about = format!("tunnel of {rule}");
        let found = format!("{interface} has MTU {mtu}: packets of clients up to {room} bytes fit");
        match room < 1500 {
            true => Finding::warn(
                about,
                found,
                "MTU 1560 between balancer and servers, or advmss 1380 on the servers (docs/operations.md, Sizes); otherwise clients have to be told by ICMP",
            ),
            false => Finding::ok(about, found),
        }
    });
    found.collect()
}
