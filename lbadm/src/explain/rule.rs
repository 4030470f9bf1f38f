//! `explain rule`: why a rule gets and gives connections, or does not. Pure.

use libilb::describe::{Description, PanicDescription, Status};
use libilb::error::Item;
use libilb::stats::{Counter, Statistics};
use serde::Serialize;

use super::share::{self, Share};
use super::{Lines, not_found};
use crate::error::Error;
use crate::status::advice;
use crate::table::{Style, Tone};

/// Everything that decides what becomes of a rule's connections.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    /// Its name.
    pub rule: String,
    /// Its topology.
    pub topology: String,
    /// Its algorithm.
    pub algorithm: String,
    /// Its server group.
    pub servergroup: String,
    /// Its health check, if it has one.
    pub healthcheck: Option<String>,
    /// Its VIPs, such as `192.0.2.80 tcp port 80`.
    pub vips: Vec<String>,
    /// Networks of clients; none for all.
    pub clients: Vec<String>,
    /// Whether it takes connections.
    pub status: Status,
    /// Whether it is deleted and only drains.
    pub deleted: bool,
    /// Connections that live now.
    pub connections: u64,
    /// Connections begun since counting began.
    pub begun: u64,
    /// Its servers.
    pub servers: Vec<Share>,
    /// Dropped packets since counting began, by what they were dropped for; the rest is `other`.
    pub dropped: Vec<Dropped>,
    /// What keeps it from doing its work.
    pub problems: Vec<String>,
    /// Whether its servers have its quorum, while it is enabled.
    pub has_quorum: Option<bool>,
    /// The quorum.
    pub quorum: u32,
    /// Who serves, where that is a question.
    pub served_by: Option<String>,
    /// What holds because most of its servers look dead.
    pub panic: Option<PanicDescription>,
}

/// Dropped packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// How many.
    pub packets: u64,
    /// Why.
    pub why: &'static str,
}

/// Finds out.
///
/// # Errors
/// A name that does not exist.
pub fn explain(name: &str, node: &Description, counted: &Statistics) -> Result<Explained, Error> {
    let named =
        |rule: &&libilb::describe::RuleDescription| rule.rule.name.eq_ignore_ascii_case(name);
    let found = node
        .rule(name)
        .or_else(|| node.rules.iter().find(named))
        .ok_or_else(|| {
            let names = node.rules.iter().map(|rule| rule.rule.name.as_str());
            not_found(Item::Rule, name, names)
        })?;
    let rule = &found.rule;
    let entry = counted.get(&rule.name, "");
    let count = |counter| entry.map_or(0, |entry| entry.get(counter));
    let known = [
        (Counter::AdmissionDropped, "new flows over a limit"),
        (Counter::NoMemoryDropped, "no room in the connection table"),
        (Counter::NoPortDropped, "no NAT port was free"),
    ];
    let mut dropped: Vec<Dropped> = known
        .into_iter()
        .map(|(counter, why)| Dropped {
            packets: count(counter),
            why,
        })
        .collect();
    let rest = dropped.iter().map(|drop| drop.packets).sum();
    dropped.push(Dropped {
        packets: count(Counter::PacketsDropped).saturating_sub(rest),
        why: "other reasons, see 'lbadm show-statistics --drops'",
    });
    dropped.retain(|drop| drop.packets > 0);
    let vip = |vip: &libilb::vip::Vip| match vip.protocol.has_ports() {
        true => format!("{} {} port {}", vip.address, vip.protocol, vip.ports),
        false => format!("{} {}", vip.address, vip.protocol),
    };
    Ok(Explained {
        rule: rule.name.clone(),
        topology: rule.topology.to_string(),
        algorithm: rule.algorithm.to_string(),
        servergroup: rule.servergroup.clone(),
        healthcheck: rule.health_check.as_ref().map(|used| used.name.clone()),
        vips: rule.vips.iter().map(vip).collect(),
        clients: rule.clients.iter().map(ToString::to_string).collect(),
        status: found.status,
        deleted: found.deleted,
        connections: found.connections,
        begun: count(Counter::ConnectionsBegun),
        servers: share::of(found, node, counted),
        dropped,
        problems: found.problems.clone(),
        has_quorum: found.has_quorum,
        quorum: rule.quorum,
        served_by: found.served_by.clone(),
        panic: found.panic.clone(),
    })
}

/// Writes it.
pub fn render(said: &Explained, style: Style) -> String {
    let mut lines = Lines::default();
    lines.add(
        "rule",
        format!(
            "{} ({}, {}), to server group {}",
            said.rule, said.topology, said.algorithm, said.servergroup
        ),
    );
    for vip in &said.vips {
        lines.add("vip", vip);
    }
    if !said.clients.is_empty() {
        lines.add("clients", format!("only {}", said.clients.join(", ")));
    }
    let deleted = if said.deleted { " (deleted)" } else { "" };
    lines.add("state", format!("{}{deleted}", said.status));
    lines.add(
        "has",
        format!(
            "{} connections; {} began since counting did",
            said.connections, said.begun
        ),
    );
    if let Some(check) = &said.healthcheck {
        lines.add(
            "check",
            format!(
                "{check}; 'lbadm show-hc-result {}' shows each test",
                said.rule
            ),
        );
    }
    if let Some(served_by) = &said.served_by {
        lines.add("served by", served_by);
    }
    if said.has_quorum == Some(false) {
        let text = format!("lost: its servers do not have a weight of {}", said.quorum);
        lines.add("quorum", style.paint(Tone::Notice, &text));
    }
    if let Some(panic) = &said.panic {
        lines.add("panic", style.paint(Tone::Notice, &panic.to_string()));
    }
    for server in &said.servers {
        let (tone, text) = match &server.obstacle {
            None => (Tone::Good, format!("open, weight {}", server.weight)),
            Some(obstacle) => (Tone::Notice, format!("closed: {obstacle}")),
        };
        lines.add(
            "server",
            format!(
                "{} at {} is {}; has {} connections, {}",
                server.server,
                server.at,
                style.paint(tone, &text),
                server.connections,
                share::text(server)
            ),
        );
    }
    for drop in &said.dropped {
        lines.add("dropped", format!("{} packets: {}", drop.packets, drop.why));
    }
    for problem in &said.problems {
        let text = match advice(problem, &said.servergroup) {
            Some(advice) => format!("{problem}: {advice}"),
            None => problem.clone(),
        };
        lines.add("problem", style.paint(Tone::Bad, &text));
    }
    lines.add("outcome", outcome(said, style));
    lines.text()
}

fn outcome(said: &Explained, style: Style) -> String {
    let open = said.servers.iter().filter(|s| s.obstacle.is_none()).count();
    let there = said.servers.len();
    match said.status {
        Status::Enabled if said.problems.is_empty() && open > 0 => style.paint(
            Tone::Good,
            &format!("new connections are balanced over {open} of {there} servers"),
        ),
        Status::Enabled if open == 0 => {
            style.paint(Tone::Bad, "no new connections: no server takes any")
        }
        Status::Enabled => style.paint(Tone::Bad, "clients may not get through: see the problems"),
        Status::Disabled => style.paint(
            Tone::Notice,
            &format!(
                "no new connections: it is disabled; 'lbadm enable-rule {}' enables it",
                said.rule
            ),
        ),
        Status::Draining => style.paint(
            Tone::Notice,
            "no new connections: it drains; those that live go on",
        ),
    }
}
