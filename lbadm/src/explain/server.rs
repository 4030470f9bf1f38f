//! `explain server`: why a server gets connections, or does not. Pure.

use std::time::{Duration, SystemTime};

use libilb::describe::{Description, Fastpath, HealthSummary, Status};
use libilb::error::Item;
use libilb::stats::{Counter, Statistics};
use serde::Serialize;

use super::share::{self, Share};
use super::{Lines, not_found};
use crate::error::Error;
use crate::table::{Style, Tone};
use crate::time;

/// Everything that decides what a server gets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    /// Its id.
    pub server: String,
    /// Its group.
    pub servergroup: String,
    /// Its address, with its port if it has its own.
    pub at: String,
    /// The name that it was given by.
    pub host: Option<String>,
    /// What has found it, if its group has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found_by: Option<String>,
    /// Whether it takes connections.
    pub status: Status,
    /// Whether it is removed and only drains.
    pub removed: bool,
    /// Connections that live now.
    pub connections: u64,
    /// Connections at which it takes no more; 0 for none.
    pub max_connections: u32,
    /// Connections below which a full one takes new ones again.
    pub min_connections: u32,
    /// What it is in each rule that uses its group.
    pub rules: Vec<InRule>,
    /// Why no rule gives it new connections; empty if one does.
    pub reasons: Vec<String>,
}

/// A server in a rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InRule {
    /// The rule.
    pub rule: String,
    /// Its algorithm.
    pub algorithm: String,
    /// Whether the rule takes connections.
    pub status: Status,
    /// What keeps the rule from its work.
    pub problems: Vec<String>,
    /// Weight and shares.
    #[serde(flatten)]
    pub share: Share,
    /// Packets of the rule for this server that were dropped.
    pub dropped: u64,
}

/// Finds out.
///
/// # Errors
/// An id that does not exist.
pub fn explain(id: &str, node: &Description, counted: &Statistics) -> Result<Explained, Error> {
    let all = || {
        let groups = node.groups.iter();
        groups.flat_map(|group| group.servers.iter().map(move |server| (group, server)))
    };
    let (group, server) = all()
        .find(|(_, server)| server.server.id.eq_ignore_ascii_case(id))
        .ok_or_else(|| {
            let ids = all().map(|(_, server)| server.server.id.as_str());
            not_found(Item::Server, id, ids)
        })?;
    let users = node
        .rules
        .iter()
        .filter(|rule| rule.rule.servergroup.eq_ignore_ascii_case(&group.name));
    let rules: Vec<InRule> = users
        .filter_map(|rule| {
            let shares = share::of(rule, node, counted);
            let share = shares
                .into_iter()
                .find(|share| share.server == server.server.id)?;
            let entry = counted.get(&rule.rule.name, &server.server.id);
            Some(InRule {
                rule: rule.rule.name.clone(),
                algorithm: rule.rule.algorithm.to_string(),
                status: rule.status,
                problems: rule.problems.clone(),
                share,
                dropped: entry.map_or(0, |entry| entry.get(Counter::PacketsDropped)),
            })
        })
        .collect();
    let mut reasons: Vec<String> = share::own_obstacle(server).into_iter().collect();
    if rules.is_empty() {
        reasons.push(format!("no rule uses server group {}", group.name));
    } else if rules.iter().all(|rule| rule.status != Status::Enabled) {
        let names: Vec<&str> = rules.iter().map(|rule| rule.rule.as_str()).collect();
        reasons.push(match names[..] {
            [one] => format!("its rule {one} is not enabled"),
            _ => format!("none of its rules is enabled: {}", names.join(", ")),
        });
    } else if reasons.is_empty() {
        reasons = refusals(&rules);
    }
    if node.fastpath == Fastpath::Absent {
        reasons.push("the fast path is not running".to_string());
    }
    let of = |server: &libilb::server::Server| match server.ports {
        Some(ports) => format!("{} port {ports}", server.address),
        None => server.address.to_string(),
    };
    Ok(Explained {
        server: server.server.id.clone(),
        servergroup: group.name.clone(),
        at: of(&server.server),
        host: server.server.host_name.clone(),
        found_by: group
            .source
            .as_ref()
            .filter(|_| server.server.found)
            .map(|said| match said.problem.as_str() {
                "" => said.source.to_string(),
                problem => format!("{} (now: {problem})", said.source),
            }),
        status: server.status,
        removed: server.removed,
        connections: server.connections,
        max_connections: server.server.max_connections,
        min_connections: server.server.min_connections,
        rules,
        reasons,
    })
}

/// Why none of the enabled rules gives a server connections that could take them; empty if one does.
fn refusals(rules: &[InRule]) -> Vec<String> {
    let enabled = || rules.iter().filter(|rule| rule.status == Status::Enabled);
    let several = enabled().count() > 1;
    let why = |rule: &InRule| match &rule.share.obstacle {
        Some(obstacle) if several => Some(format!("{obstacle} (rule {})", rule.rule)),
        Some(obstacle) => Some(obstacle.clone()),
        None => (rule.share.expected == Some(0.0))
            .then(|| "the algorithm prefers another server".to_string()),
    };
    let all: Option<Vec<String>> = enabled().map(why).collect();
    let mut all = all.unwrap_or_default();
    all.dedup();
    all
}

/// What a rule's health check says, and since when.
fn health_text(health: &HealthSummary) -> String {
    let mut text = format!("{} says {}", health.check, health.state);
    if health.since > 0 {
        let since = SystemTime::UNIX_EPOCH + Duration::from_millis(health.since);
        text.push_str(&format!(" since {}", time::rfc3339(since)));
    }
    if !health.why.is_empty() {
        text.push_str(&format!(": {}", health.why));
    }
    if let Some(mode) = health.overruled {
        text.push_str(&format!("; used all the same, by panic mode {mode}"));
    }
    text
}

/// Writes it.
pub fn render(said: &Explained, style: Style) -> String {
    let mut lines = Lines::default();
    let host = said.host.as_ref().map(|host| format!(" ({host})"));
    lines.add(
        "server",
        format!(
            "{} at {}{}, of server group {}",
            said.server,
            said.at,
            host.unwrap_or_default(),
            said.servergroup
        ),
    );
    if let Some(found_by) = &said.found_by {
        lines.add("found by", found_by.clone());
    }
    let removed = if said.removed { " (removed)" } else { "" };
    lines.add("state", format!("{}{removed}", said.status));
    let limits = match (said.max_connections, said.min_connections) {
        (0, _) => "no limit".to_string(),
        (max, 0) => format!(
            "at most {max}; a full one takes new ones again below {}",
            max - max / 4
        ),
        (max, min) => format!("at most {max}; a full one takes new ones again below {min}"),
    };
    lines.add("has", format!("{} connections, {limits}", said.connections));
    for rule in &said.rules {
        lines.add(
            "rule",
            format!(
                "{} ({}, {}): weight {}, {}; {} packets dropped",
                rule.rule,
                rule.status,
                rule.algorithm,
                rule.share.weight,
                share::text(&rule.share),
                rule.dropped
            ),
        );
        if let Some(health) = &rule.share.health {
            let tone = match share::down(health) {
                Some(_) => Tone::Bad,
                None => Tone::Plain,
            };
            lines.add("health", style.paint(tone, &health_text(health)));
        }
        for problem in &rule.problems {
            lines.add("problem", format!("rule {}: {problem}", rule.rule));
        }
    }
    let outcome = match said.reasons.is_empty() {
        true => style.paint(Tone::Good, &gets(said)),
        false => style.paint(
            Tone::Bad,
            &format!("no new connections: {}", said.reasons.join("; ")),
        ),
    };
    lines.add("outcome", outcome);
    lines.text()
}

/// Of which rules it gets connections, if some give it none.
fn gets(said: &Explained) -> String {
    let enabled = |rule: &&InRule| rule.status == Status::Enabled;
    let closed = |rule: &&InRule| rule.share.obstacle.is_some();
    let (closed, open): (Vec<&InRule>, Vec<&InRule>) =
        said.rules.iter().filter(enabled).partition(closed);
    let names = |rules: &[&InRule]| {
        let names: Vec<&str> = rules.iter().map(|rule| rule.rule.as_str()).collect();
        names.join(", ")
    };
    match closed.is_empty() {
        true => "it gets new connections".to_string(),
        false => format!(
            "it gets new connections of {}, none of {}",
            names(&open),
            names(&closed)
        ),
    }
}
