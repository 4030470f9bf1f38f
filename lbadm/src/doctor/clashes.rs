//! Other programs that have their hands on the same packets. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use libilb::rule::Protocol;

use super::Facts;
use super::network::Way;
use crate::finding::Finding;

/// Everything that stands in the way.
pub fn all(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    kernel(facts, &mut all);
    daemons(facts, &mut all);
    listeners(facts, &mut all);
    if all.is_empty() {
        all.push(Finding::ok(
            "clashes",
            match facts.node {
                Ok(_) => "nobody else balances, and nobody listens on a vip",
                Err(_) => "nobody else balances",
            },
        ));
    }
    all
}

fn vips(facts: &Facts) -> BTreeSet<IpAddr> {
    let rules = facts.node.as_ref().map_or(&[][..], |node| &node.rules);
    let vips = rules.iter().flat_map(|rule| rule.rule.vips.iter());
    vips.map(|vip| vip.address).collect()
}

/// The kernel's own balancer, and rewriting by nftables.
fn kernel(facts: &Facts, all: &mut Vec<Finding>) {
    match facts.system.ip_vs.as_deref() {
        None => {}
        Some([]) => {}
        Some(services) => all.push(Finding::warn(
            "ip_vs",
            format!("the kernel balances {} of its own", services.join(", ")),
            "let one of both do it: 'ipvsadm -C' ends the kernel's",
        )),
    }
    let vips: Vec<String> = vips(facts).iter().map(IpAddr::to_string).collect();
    for rule in facts.network.rewrites.iter().flatten() {
        let quoted = |vip: &&String| rule.contains(&format!("\"{vip}\""));
        let place = rule.split(": ").next().unwrap_or_default();
        if let Some(vip) = vips.iter().find(quoted) {
            all.push(Finding::bad(
                "nftables",
                format!("a rule in {place} rewrites what is for the vip {vip}"),
                "XDP comes first, so it never matches: remove it, or the rule of ilb",
            ));
        }
    }
}

/// Daemons that are known to hold addresses or ports.
fn daemons(facts: &Facts, all: &mut Vec<Finding>) {
    let known = [
        (
            "keepalived",
            "it runs: it may hold the same addresses, and balance by ip_vs",
            "leave it VRRP only: no virtual_server blocks, no address of a rule",
        ),
        (
            "haproxy",
            "it runs: what it binds on a vip gets nothing",
            "let it listen on addresses of its own, or behind ilb as a server",
        ),
        (
            "firewalld",
            "it runs: its rules see packets for the kernel only, not those that ilb forwards",
            "filter clients with 'client=' of the rule, or before the balancer",
        ),
    ];
    for (name, found, advice) in known {
        if facts.system.processes.contains(name) {
            all.push(Finding::warn(name, found, advice));
        }
    }
}

/// Programs that listen where the fast path takes everything.
fn listeners(facts: &Facts, all: &mut Vec<Finding>) {
    let Ok(node) = &facts.node else {
        return;
    };
    for rule in node.rules.iter().filter(|rule| rule.rule.enabled) {
        let group = node.group(&rule.rule.servergroup);
        let servers = group.map_or(&[][..], |group| &group.servers);
        // The node is its own server there, so somebody has to listen.
        let local = servers
            .iter()
            .any(|s| facts.network.ways.get(&s.server.address) == Some(&Way::Local));
        for vip in rule.rule.vips.iter().filter(|_| !local) {
            let taken = facts.system.listeners.iter().filter(|listener| {
                let protocol = match vip.protocol {
                    Protocol::Any => true,
                    protocol => protocol.name() == listener.protocol,
                };
                protocol
                    && listener.address == vip.address
                    && (!vip.protocol.has_ports()
                        || (vip.ports.first..=vip.ports.last).contains(&listener.port))
            });
            for listener in taken {
                all.push(Finding::warn(
                    format!("rule {}", rule.rule.name),
                    format!(
                        "a program listens on its vip: {} {} port {}",
                        listener.protocol, listener.address, listener.port
                    ),
                    "clients reach the servers instead; let the program listen elsewhere ('ss -lntup' names it)",
                ));
            }
        }
    }
}
