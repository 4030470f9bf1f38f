//! What `status` says of the pair; nothing if there is none.

use std::time::{Duration, SystemTime};

use libilb::describe::Description;
use libilb::pair::{LeftDescription, NodeDescription, PairDescription, Step};

use crate::finding::Finding;
use crate::pair::configuration;
use crate::time;

/// Whom the findings are about.
const ABOUT: &str = "pair";

/// In a line: both nodes, who is active, whether they hear each other, and whether they have the same.
pub fn line(node: &Description) -> Option<String> {
    let pair = node.pair.as_deref()?;
    if let Some(left) = &pair.left {
        return Some(format!("{} has left it; this node stands alone", who(left)));
    }
    let this = |node: &NodeDescription| format!("{} {} (this node)", node.name, node.role());
    let other = match &pair.there {
        Some(node) if pair.link.up => format!("{} {}", node.name, node.role()),
        Some(node) => format!("{} not heard", node.name),
        None => "the other node not heard".to_owned(),
    };
    let mut words = match pair.here.node {
        0 => vec![format!("{}, {other}", this(&pair.here))],
        _ => vec![format!("{other}, {}", this(&pair.here))],
    };
    if pair.link.up {
        words.push("link up".to_owned());
        words.push(configuration(pair).0);
    } else {
        words.push("link down".to_owned());
    }
    match pair.notices.len() {
        0 => {}
        1 => words.push("1 notice".to_owned()),
        count => words.push(format!("{count} notices")),
    }
    Some(words.join("; "))
}

/// Everything about it that is not well.
pub fn troubles(node: &Description) -> Vec<Finding> {
    let Some(pair) = node.pair.as_deref() else {
        return Vec::new();
    };
    if let Some(left) = &pair.left {
        return vec![gone(left)];
    }
    let mut all = Vec::new();
    match pair.link.up {
        true => all.extend(together(pair)),
        false => all.push(Finding::bad(
            ABOUT,
            format!("the other node is not heard: {}", pair.link.why),
            "see whether it is up, and whether its ilb can be reached; each node goes on by itself meanwhile",
        )),
    }
    if !pair.notices.is_empty() {
        all.push(Finding::warn(
            ABOUT,
            "something has happened to it that a person should know",
            "'lbadm show-pair' says what, 'lbadm pair acknowledge' takes note of it",
        ));
    }
    all
}

fn who(left: &LeftDescription) -> String {
    match left.name.as_str() {
        "" => format!("the other node, {},", left.address),
        name => format!("{name} ({})", left.address),
    }
}

/// What is said, here and in `show-pair`, of a node that has left.
pub fn gone(left: &LeftDescription) -> Finding {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(left.time);
    Finding::warn(
        ABOUT,
        format!(
            "{} has left it at {}: this node stands alone and keeps what it has",
            who(left),
            time::rfc3339(at)
        ),
        "'lbadm pair leave' takes note of it; 'lbadm pair create' or 'lbadm pair join' makes another one",
    )
}

/// While both nodes hear each other.
fn together(pair: &PairDescription) -> Vec<Finding> {
    let mut all = Vec::new();
    let step = &pair.configuration;
    let refused = !step.words.is_empty();
    match step.step {
        Step::InStep => {}
        // Nothing hinders it: it takes a moment.
        Step::Unknown | Step::Behind | Step::Ahead if !refused => all.push(Finding::warn(
            ABOUT,
            format!("its configuration: {}", configuration(pair).0),
            "it follows by itself; 'lbadm show-pair' shows how it goes on",
        )),
        Step::Unknown | Step::Behind | Step::Ahead | Step::Forked => all.push(Finding::bad(
            ABOUT,
            format!("its configuration: {}", configuration(pair).0),
            "'journalctl -u ilb' on both nodes says more; it is tried again every few seconds",
        )),
    }
    let both = pair.there.iter().flat_map(|there| &there.instances);
    let both: Vec<&str> = both
        .filter(|name| {
            let mut here = pair.here.instances.iter();
            here.any(|own| own.eq_ignore_ascii_case(name))
        })
        .map(String::as_str)
        .collect();
    if !both.is_empty() {
        all.push(Finding::bad(
            ABOUT,
            format!("both nodes have the addresses of {}", both.join(", ")),
            "they do not hear each other by VRRP (protocol 112): see whether it gets through on the interfaces of \
             'lbadm show-vrrp'",
        ));
    }
    if pair.connections.as_ref().is_none_or(|it| !it.up) {
        let why = match (&pair.connections, pair.connections_why.as_str()) {
            (None, "") => "this node's fast path is not there",
            (None, why) => why,
            (Some(_), _) => "the other node's fast path does not answer",
        };
        all.push(Finding::warn(
            ABOUT,
            format!("connections do not follow: {why}"),
            "a failover would break them; see whether both fast paths run and UDP port 49280 gets through",
        ));
    }
    all
}
