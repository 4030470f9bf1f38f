//! Which of a rule's servers take new connections, and which share of them each should get and got. Pure.

use libilb::algorithm::Algorithm;
use libilb::describe::{Description, HealthSummary, RuleDescription, ServerDescription};
use libilb::health::HealthState;
use libilb::server::tier_text;
use libilb::stats::{Counter, Statistics};
use serde::Serialize;

/// A server as a rule sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    /// Its id.
    pub server: String,
    /// Where it is: address, and port if it is not the rule's.
    pub at: String,
    /// Its weight.
    pub weight: u16,
    /// Why it takes no new connections; nothing if it does.
    pub obstacle: Option<String>,
    /// What the rule's health check says, if it has one.
    pub health: Option<HealthSummary>,
    /// Part of the rule's new connections that it should get, in percent; nothing if nobody can say.
    pub expected: Option<f64>,
    /// Part of the rule's new connections that it got, in percent, since counting began; nothing if there were none.
    pub got: Option<f64>,
    /// Connections that it got.
    pub begun: u64,
    /// Connections that live now, of all rules.
    pub connections: u64,
}

/// Every server of the rule's group, those included that were removed and still have connections.
pub fn of(rule: &RuleDescription, node: &Description, counted: &Statistics) -> Vec<Share> {
    let servers = node.group(&rule.rule.servergroup);
    let servers = servers.map_or(&[][..], |group| &group.servers[..]);
    let begun = |server: &ServerDescription| {
        let entry = counted.get(&rule.rule.name, &server.server.id);
        entry.map_or(0, |entry| entry.get(Counter::ConnectionsBegun))
    };
    let all_begun: u64 = servers.iter().map(begun).sum();
    let parts = parts(rule, servers);
    let total: f64 = parts.iter().flatten().sum();
    servers
        .iter()
        .zip(parts)
        .map(|(server, part)| {
            let begun = begun(server);
            let percent = |part: f64, of: f64| (of > 0.0).then(|| round(100.0 * part / of));
            Share {
                server: server.server.id.clone(),
                at: match server.server.ports {
                    Some(ports) => format!("{} port {ports}", server.server.address),
                    None => server.server.address.to_string(),
                },
                weight: server.server.weight,
                obstacle: obstacle(server, &rule.rule.name),
                health: server.health_in(&rule.rule.name).cloned(),
                expected: part.and_then(|part| percent(part, total)),
                got: percent(begun as f64, all_begun as f64),
                begun,
                connections: server.connections,
            }
        })
        .collect()
}

fn round(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

/// Why a server takes no new connections of a rule.
pub fn obstacle(server: &ServerDescription, rule: &str) -> Option<String> {
    let health = || server.health_in(rule).and_then(down);
    let standby = || {
        let stands_by = server.stands_by_in(rule);
        stands_by.then(|| format!("it stands by in tier {}", tier_text(server.server.tier)))
    };
    own_obstacle(server).or_else(health).or_else(standby)
}

/// What a health check says of a server that it found down; nothing if the server may be used.
pub fn down(health: &HealthSummary) -> Option<String> {
    // One that is not tested is disabled, or its rule is; that is said by itself.
    if !health.keeps_out() || health.state == HealthState::Disabled {
        return None;
    }
    let check = &health.check;
    Some(match (health.state.is_down(), health.why.as_str()) {
        (true, "") => format!("its health check {check} says {}", health.state),
        (true, why) => format!("its health check {check} says {}: {why}", health.state),
        (false, "") => format!("its health check {check} has not found it alive yet"),
        (false, why) => format!("its health check {check} has not found it alive yet: {why}"),
    })
}

/// Why a server takes no new connections of any rule.
pub fn own_obstacle(server: &ServerDescription) -> Option<String> {
    let limit = u64::from(server.server.max_connections);
    if server.removed {
        Some("it is removed".to_string())
    } else if !server.server.enabled {
        Some("it is disabled".to_string())
    } else if server.server.weight == 0 {
        Some("its weight is 0".to_string())
    } else if limit > 0 && server.connections >= limit {
        Some(format!(
            "it is full: {} connections of at most {limit}",
            server.connections
        ))
    } else {
        None
    }
}

/// What counts for the algorithm, for each server; `None` where it does not decide by shares.
fn parts(rule: &RuleDescription, servers: &[ServerDescription]) -> Vec<Option<f64>> {
    let takes = |server: &ServerDescription| obstacle(server, &rule.rule.name).is_none();
    let by = |part: &dyn Fn(&ServerDescription) -> f64| {
        let each = servers.iter();
        each.map(|server| Some(if takes(server) { part(server) } else { 0.0 }))
            .collect()
    };
    match rule.rule.algorithm {
        // Each in turn, or by connections alone: weights do not count.
        Algorithm::RoundRobin | Algorithm::LeastConnection => by(&|_| 1.0),
        // The heaviest gets all; of equals the first.
        Algorithm::Failover | Algorithm::Overflow => {
            let open = servers.iter().filter(|server| takes(server));
            let best = open.clone().map(|server| server.server.weight).max();
            let first = open
                .filter(|server| Some(server.server.weight) == best)
                .map(|server| server.server.number)
                .next();
            by(&|server| f64::from(u8::from(Some(server.server.number) == first)))
        }
        // Where the VIP's connections went before decides.
        Algorithm::LocalityLeastConnection
        | Algorithm::LocalityLeastConnectionReplication
        | Algorithm::DestinationHash => servers.iter().map(|_| None).collect(),
        Algorithm::WeightedRoundRobin
        | Algorithm::WeightedLeastConnection
        | Algorithm::SourceHash
        | Algorithm::ShortestExpectedDelay
        | Algorithm::NeverQueue
        | Algorithm::Maglev
        | Algorithm::TwoChoices
        | Algorithm::HashIp
        | Algorithm::HashIpPort
        | Algorithm::HashIpVip => by(&|server| f64::from(server.server.weight)),
    }
}

/// `got 31.2 % of those begun (310), its share is 33.3 %`, as far as it is known.
pub fn text(share: &Share) -> String {
    let got = match share.got {
        Some(got) => format!("got {got} % of those begun ({})", share.begun),
        None => "none began yet".to_string(),
    };
    match (share.expected, &share.obstacle) {
        (Some(expected), None) => format!("{got}, its share is {expected} %"),
        _ => got,
    }
}
