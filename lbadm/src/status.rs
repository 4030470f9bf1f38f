//! `status`: is everything well, and if not, what to do. One screen.

pub mod pair;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use libilb::describe::{
    self, Description, Fastpath, GroupDescription, HealthSummary, RuleDescription, State,
};
use libilb::health::HealthState;
use libilb::vrrp::VrrpState;
use serde_json::{Value, json};

use crate::action::Show;
use crate::error::{Error, Exit};
use crate::finding::{Finding, Level, worst};
use crate::table::Style;
use crate::time;

/// `status`.
#[derive(Debug)]
pub struct Status;

impl Show for Status {
    fn render(&self, node: &Description, style: Style) -> Result<String, Error> {
        Ok(render(node, style))
    }

    fn json(&self, node: &Description) -> Result<Value, Error> {
        Ok(json(node))
    }

    fn exit(&self, node: &Description) -> Exit {
        match worst(&troubles(node)) {
            Level::Bad => Exit::Degraded,
            _ => Exit::Ok,
        }
    }
}

/// How many of everything there are.
struct Counts {
    rules: usize,
    enabled: usize,
    groups: usize,
    servers: usize,
    candidates: usize,
    connections: u64,
}

impl Counts {
    fn of(node: &Description) -> Counts {
        let rules = || node.rules.iter().filter(|rule| !rule.deleted);
        let servers = node.groups.iter().flat_map(|group| &group.servers);
        Counts {
            rules: rules().count(),
            enabled: rules()
                .filter(|rule| rule.status == describe::Status::Enabled)
                .count(),
            groups: node.groups.len(),
            servers: servers.filter(|server| !server.removed).count(),
            candidates: node
                .groups
                .iter()
                .filter_map(|group| group.source.as_ref())
                .map(|source| source.candidates.len())
                .sum(),
            connections: node.rules.iter().map(|rule| rule.connections).sum(),
        }
    }
}

/// Everything that is not well, the node before its rules.
pub fn troubles(node: &Description) -> Vec<Finding> {
    let mut all = Vec::new();
    if node.state == State::Degraded {
        let why = match node.state_reason.as_str() {
            "" => "no reason given",
            reason => reason,
        };
        all.push(Finding::bad(
            "manager",
            format!("degraded: {why}; nothing can be changed, forwarding goes on"),
            "remove the cause, then 'systemctl restart ilb', which no connection notices",
        ));
    } else if !node.state_reason.is_empty() {
        all.push(Finding::warn("manager", node.state_reason.clone(), ""));
    }
    if let Some(waiting) = &node.waiting {
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(waiting.until);
        all.push(Finding::warn(
            "manager",
            format!(
                "the last change, by {}, is taken back at {} unless it is confirmed; until then nothing else can be \
                 changed",
                waiting.author,
                time::rfc3339(until)
            ),
            "'lbadm confirm' keeps it, 'lbadm revert' takes it back now",
        ));
    }
    match node.fastpath {
        Fastpath::Connected => {}
        Fastpath::Absent => all.push(Finding::bad(
            "fast path",
            "absent: it does not answer the manager",
            "'systemctl start ilb-fastpath'; 'systemctl status ilb-fastpath' says why it ended",
        )),
        Fastpath::Behind => all.push(Finding::bad(
            "fast path",
            format!(
                "behind: it forwards by generation {} instead of {}",
                node.fastpath_generation, node.generation
            ),
            "'journalctl -u ilb -u ilb-fastpath' says why it did not take the new one",
        )),
    }
    // A fast path that is behind is said already.
    let said = |what: &str| what == "generation" && node.fastpath == Fastpath::Behind;
    let open = node.drift.iter().filter(|drift| drift.repaired == 0);
    for drift in open.filter(|drift| !said(&drift.what)) {
        all.push(Finding::bad(
            format!("{} {}", drift.what, drift.item),
            format!("{} instead of {}", drift.actual, drift.wanted),
            drift.doing.clone(),
        ));
    }
    for v in node
        .vrrp
        .iter()
        .filter(|v| v.status.state == VrrpState::Fault)
    {
        all.push(Finding::bad(
            format!("VRRP {}", v.instance.name),
            format!("fault: {}", v.status.why),
            "it takes part again when that is well; another node may have its addresses meanwhile",
        ));
    }
    all.extend(pair::troubles(node));
    for rule in &node.rules {
        // What ails the fast path ails every rule, and is said already.
        let own = rule.problems.iter();
        for problem in own.filter(|problem| !problem.starts_with("the fast path ")) {
            all.push(Finding::bad(
                format!("rule {}", rule.rule.name),
                problem.clone(),
                advice(problem, &rule.rule.servergroup).unwrap_or_default(),
            ));
        }
        all.extend(rule.panic.as_ref().map(|panic| {
            Finding::warn(
                format!("rule {}", rule.rule.name),
                panic.to_string(),
                format!(
                    "see whether this node can reach its servers: 'lbadm show-hc-result {}' says how the tests fail",
                    rule.rule.name
                ),
            )
        }));
        all.extend(down(node, rule));
    }
    all.extend(node.groups.iter().filter_map(unfollowed));
    all
}

/// A group whose servers cannot be followed, or not all of them.
fn unfollowed(group: &GroupDescription) -> Option<Finding> {
    let said = group.source.as_deref()?;
    (!said.problem.is_empty()).then(|| {
        Finding::warn(
            format!("server group {}", group.name),
            format!(
                "{}: {}; the servers that it has stay",
                said.source, said.problem
            ),
            "'journalctl -u ilb' says since when; it is tried again",
        )
    })
}

/// Servers that are named when several are down; nobody reads more of them on a screen of problems.
const NAMED: usize = 3;

/// Servers of a rule that its health check found down, unless all are: that is a problem of the rule, and said already.
fn down(node: &Description, rule: &RuleDescription) -> Option<Finding> {
    let name = &rule.rule.name;
    let group = node.group(&rule.rule.servergroup)?;
    let tested: Vec<(&str, &HealthSummary)> = group
        .servers
        .iter()
        .filter_map(|server| Some((server.server.id.as_str(), server.health_in(name)?)))
        .filter(|(_, health)| health.state != HealthState::Disabled)
        .collect();
    let down = tested.iter().filter(|(_, health)| health.state.is_down());
    let down: Vec<&(&str, &HealthSummary)> = down.collect();
    let said = rule.panic.is_none() && tested.iter().all(|(_, health)| !health.up);
    if rule.deleted || down.is_empty() || said {
        return None;
    }
    let mut named: Vec<String> = down
        .iter()
        .take(NAMED)
        .map(|(id, health)| match health.why.as_str() {
            "" => format!("{id} ({})", health.state),
            why => format!("{id} ({}, {why})", health.state),
        })
        .collect();
    if down.len() > NAMED {
        named.push(format!("{} more", down.len() - NAMED));
    }
    let (is, server) = match down.len() {
        1 => ("is", down.first().map_or("ID", |(id, _)| id)),
        _ => ("are", "ID"),
    };
    Some(Finding::warn(
        format!("rule {name}"),
        format!(
            "{} of {} servers {is} down: {}",
            down.len(),
            tested.len(),
            named.join(", ")
        ),
        format!(
            "'lbadm explain server {server}' says since when, 'lbadm show-hc-result {name}' shows each test"
        ),
    ))
}

/// What to do about a rule's problem.
pub fn advice(problem: &str, group: &str) -> Option<String> {
    let known = [
        (
            "has no servers",
            format!("add one: 'lbadm add-server -s server=ADDRESS {group}'"),
        ),
        (
            "are disabled",
            format!(
                "'lbadm show-servergroup {group}' lists their ids, 'lbadm enable-server ID' enables one"
            ),
        ),
        (
            "have weight 0",
            "give one a weight: 'lbadm modify-server -s weight=1 ID'".to_string(),
        ),
        (
            "is on no interface",
            "'journalctl -u ilb' says why ilb could not put it there; with manage-addresses=no it is yours to add"
                .to_string(),
        ),
    ];
    let found = known.into_iter().find(|(sign, _)| problem.contains(*sign));
    found.map(|(_, advice)| advice)
}

fn render(node: &Description, style: Style) -> String {
    let troubles = troubles(node);
    let counts = Counts::of(node);
    let headline = match worst(&troubles) {
        Level::Bad => format!("degraded: {}", say(troubles.len())),
        Level::Warn => format!("works, but: {}", say(troubles.len())),
        Level::Ok | Level::Unknown => "all is well".to_string(),
    };
    let mut out = style.paint(worst(&troubles).tone(), &headline) + "\n";
    let fastpath = match node.fastpath {
        Fastpath::Connected => format!(
            "connected, forwards generation {}",
            node.fastpath_generation
        ),
        other => other.to_string(),
    };
    let lines = [
        (
            "manager",
            format!(
                "{}, version {}, generation {}",
                node.state, node.version, node.generation
            ),
        ),
        ("fast path", fastpath),
        ("database", node.database_path.clone()),
        (
            "rules",
            format!("{}, {} enabled", counts.rules, counts.enabled),
        ),
        (
            "servers",
            format!(
                "{} in {} server group{}{}",
                counts.servers,
                counts.groups,
                if counts.groups == 1 { "" } else { "s" },
                match counts.candidates {
                    0 => String::new(),
                    n => format!(", {n} to be approved"),
                }
            ),
        ),
        ("connections", counts.connections.to_string()),
    ];
    let vrrp = node
        .vrrp
        .iter()
        .map(|v| format!("{} {}", v.instance.name, v.status.state));
    let vrrp = (!node.vrrp.is_empty()).then(|| ("vrrp", vrrp.collect::<Vec<_>>().join(", ")));
    let pair = pair::line(node).map(|line| ("pair", line));
    for (what, text) in lines.into_iter().chain(vrrp).chain(pair) {
        let head = format!("{what}:");
        out.push_str(format!("{head:<13}{text}").trim_end());
        out.push('\n');
    }
    let width = troubles.iter().map(|trouble| trouble.about.len()).max();
    for trouble in &troubles {
        out.push_str(&trouble.render(width.unwrap_or(0), style));
    }
    for drift in node.drift.iter().filter(|drift| drift.repaired != 0) {
        let since = SystemTime::UNIX_EPOCH + Duration::from_millis(drift.since);
        out.push_str(&format!(
            "found and put right, {}: {} {}: {} instead of {}\n",
            time::rfc3339(since),
            drift.what,
            drift.item,
            drift.actual,
            drift.wanted
        ));
    }
    if counts.rules == 0 {
        out.push_str("there are no rules; 'lbadm help create-rule' shows how to create one\n");
    }
    out
}

fn say(count: usize) -> String {
    match count {
        1 => "1 problem".to_string(),
        _ => format!("{count} problems"),
    }
}

fn json(node: &Description) -> Value {
    let counts = Counts::of(node);
    let troubles = troubles(node);
    json!({
        "well": worst(&troubles) == Level::Ok,
        "state": node.state,
        "state_reason": node.state_reason,
        "version": node.version,
        "database_path": node.database_path,
        "generation": node.generation,
        "waiting": node.waiting,
        "fastpath": node.fastpath,
        "fastpath_generation": node.fastpath_generation,
        "rules": counts.rules,
        "rules_enabled": counts.enabled,
        "groups": counts.groups,
        "candidates": counts.candidates,
        "servers": counts.servers,
        "connections": counts.connections,
        "drift": node.drift,
        "vrrp": node.vrrp.iter().map(|v| (v.instance.name.as_str(), v.status.state)).collect::<BTreeMap<_, _>>(),
        "pair": node.pair,
        "problems": troubles,
    })
}
