//! `status`: is everything well, and if not, what to do.

use libilb::describe::{self, Description, Fastpath, State};
use serde_json::{Value, json};

use crate::action::Show;
use crate::error::{Error, Exit};
use crate::table::{Style, Tone};

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
        match node.state {
            State::Ok => Exit::Ok,
            State::Degraded => Exit::Degraded,
        }
    }
}

/// Writes `status`.
fn render(node: &Description, style: Style) -> String {
    let state = match node.state {
        State::Ok => style.paint(Tone::Good, "ok"),
        State::Degraded => {
            let why = if node.state_reason.is_empty() {
                "no reason given"
            } else {
                &node.state_reason
            };
            let text = style.paint(Tone::Bad, "degraded");
            format!("{text}: {why}; nothing can be changed, forwarding goes on")
        }
    };
    let fastpath = match node.fastpath {
        Fastpath::Connected => {
            let text = style.paint(Tone::Good, "connected");
            format!("{text}, forwards generation {}", node.fastpath_generation)
        }
        Fastpath::Absent => {
            let text = style.paint(Tone::Bad, "absent");
            format!(
                "{text}: it does not answer the manager; see 'systemctl status ilb-fastpath', start it with 'systemctl \
                 start ilb-fastpath'"
            )
        }
        Fastpath::Behind => {
            let text = style.paint(Tone::Notice, "behind");
            format!(
                "{text}: forwards generation {} instead of {}; see 'journalctl -u ilb -u ilb-fastpath'",
                node.fastpath_generation, node.generation
            )
        }
    };
    let rules = node.rules.iter().filter(|r| !r.deleted);
    let count = rules.clone().count();
    let enabled = rules
        .clone()
        .filter(|r| r.status == describe::Status::Enabled)
        .count();
    let servers: usize = node
        .groups
        .iter()
        .map(|g| g.servers.iter().filter(|s| !s.removed).count())
        .sum();
    let connections: u64 = node.rules.iter().map(|r| r.connections).sum();
    let mut out = format!(
        "manager:     {state}\n\
         version:     {}\n\
         database:    {}\n\
         generation:  {}\n\
         fast path:   {fastpath}\n\
         rules:       {count}, {enabled} enabled\n\
         servers:     {servers} in {} server group{}\n\
         connections: {connections}\n",
        node.version,
        node.database_path,
        node.generation,
        node.groups.len(),
        if node.groups.len() == 1 { "" } else { "s" },
    );
    for rule in node.rules.iter().filter(|r| !r.problems.is_empty()) {
        let line = format!(
            "problem:     rule {}: {}",
            rule.rule.name,
            rule.problems.join("; ")
        );
        out.push_str(&style.paint(Tone::Bad, &line));
        out.push('\n');
    }
    out
}

/// Writes `status --json`.
fn json(node: &Description) -> Value {
    let problems: Vec<Value> = node
        .rules
        .iter()
        .filter(|r| !r.problems.is_empty())
        .map(|r| json!({ "rule": r.rule.name, "problems": r.problems }))
        .collect();
    json!({
        "state": node.state,
        "state_reason": node.state_reason,
        "version": node.version,
        "database_path": node.database_path,
        "generation": node.generation,
        "fastpath": node.fastpath,
        "fastpath_generation": node.fastpath_generation,
        "rules": node.rules.iter().filter(|r| !r.deleted).count(),
        "rules_enabled": node.rules.iter().filter(|r| r.status == describe::Status::Enabled).count(),
        "groups": node.groups.len(),
        "servers": node.groups.iter().map(|g| g.servers.iter().filter(|s| !s.removed).count()).sum::<usize>(),
        "connections": node.rules.iter().map(|r| r.connections).sum::<u64>(),
        "problems": problems,
    })
}
