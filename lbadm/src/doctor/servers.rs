//! The ways to the servers: routes, interfaces, neighbours, and settings that matter on them. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Facts;
use super::network::Way;
use crate::finding::Finding;

/// Every way, and the settings of interfaces.
pub fn all(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    let interfaces = facts.settings.as_ref();
    let interfaces = interfaces.map_or(&[][..], |settings| &settings.fastpath.interfaces);
    let mut well = 0;
    let mut local = false;
    for (server, way) in &facts.network.ways {
        let about = format!("server {server}");
        match way {
            Way::None(reason) => all.push(Finding::bad(
                about,
                format!("no way: {reason}"),
                format!("'ip route get {server}' must name an interface of the settings"),
            )),
            Way::Local => {
                local = true;
                well += 1;
            }
            Way::By { interface, .. } if !interfaces.contains(interface) => {
                all.push(Finding::bad(
                    about,
                    format!("the way leads by {interface}, which the fast path does not serve"),
                    format!("add \"{interface}\" to interfaces in the settings and restart the fast path, or change the route"),
                ));
            }
            Way::By {
                interface,
                next_hop,
            } => match unresolved(facts, interface, *next_hop) {
                None => well += 1,
                Some(state) => all.push(Finding::bad(
                    about,
                    format!("next hop {next_hop} on {interface} does not answer ({state})"),
                    format!("is it up, in this network, the address right? 'ping {next_hop}'"),
                )),
            },
        }
    }
    if facts.node.is_ok() {
        all.push(match (well, facts.network.ways.len()) {
            (_, 0) => Finding::ok("ways", "there are no servers"),
            (well, of) if facts.network.more_servers > 0 => Finding::ok(
                "ways",
                format!(
                    "{well} of the first {of} server addresses are well; {} were not looked at",
                    facts.network.more_servers
                ),
            ),
            (well, of) => Finding::ok("ways", format!("{well} of {of} server addresses are well")),
        });
    }
    all.extend(settings(facts, local));
    all
}

/// The state of a neighbour that does not answer. One that was not needed yet is not there, which is well.
fn unresolved<'a>(facts: &'a Facts, interface: &str, next_hop: IpAddr) -> Option<&'a str> {
    let key = (interface.to_string(), next_hop);
    let state = facts.network.neighbours.get(&key)?;
    matches!(state.as_str(), "FAILED" | "INCOMPLETE").then_some(state)
}

/// Settings of the kernel that hurt. `local`: whether the node is a server of its own.
fn settings(facts: &Facts, local: bool) -> Vec<Finding> {
    let mut all = Vec::new();
    let node = facts.node.as_ref().ok();
    let rules = node.map_or(&[][..], |node| &node.rules);
    let vips: BTreeSet<IpAddr> = rules
        .iter()
        .flat_map(|rule| rule.rule.vips.iter().map(|vip| vip.address))
        .collect();
    let of_all = |key: &str| facts.system.all.get(key).map(String::as_str);
    for (name, interface) in &facts.system.interfaces {
        // The kernel goes by the larger of both.
        let value = |key: &str| {
            let own = interface.settings.get(key).map(String::as_str);
            let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
            number(own).max(number(of_all(key))).unwrap_or(0)
        };
        let about = format!("settings of {name}");
        let mut said = false;
        if local && value("ipv4.rp_filter") == 1 {
            said = true;
            all.push(Finding::bad(
                about.clone(),
                "rp_filter is 1: packets for the node's own server are dropped by the kernel",
                format!("sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{name}.rp_filter=0 (2 does, too)"),
            ));
        }
        if value("ipv4.arp_ignore") == 8 || value("ipv4.arp_ignore") == 3 {
            said = true;
            all.push(Finding::bad(
                about.clone(),
                format!(
                    "arp_ignore is {}: nobody is told where VIPs are",
                    value("ipv4.arp_ignore")
                ),
                format!(
                    "sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.{name}.arp_ignore=0"
                ),
            ));
        }
        if vips.iter().any(IpAddr::is_ipv6) && value("ipv6.disable_ipv6") == 1 {
            said = true;
            all.push(Finding::bad(
                about.clone(),
                "IPv6 is disabled, but a rule has an IPv6 vip",
                format!("sysctl -w net.ipv6.conf.{name}.disable_ipv6=0"),
            ));
        }
        if !said {
            all.push(Finding::ok(
                about,
                "none hurts (rp_filter, arp_ignore, disable_ipv6)",
            ));
        }
    }
    all
}
