//! `explain vrrp`: who answers for the addresses of a VRRP instance, and what would have to happen for this node to. Pure.

use std::time::{Duration, SystemTime};

use libilb::describe::{Description, VrrpDescription};
use libilb::error::Item;
use libilb::vrrp::{Time, VrrpState};

use super::{Lines, not_found};
use crate::error::Error;
use crate::table::{Style, Tone};
use crate::time;

/// The priority of the node that owns the addresses (RFC 9568 section 6.1).
const OWNER: u8 = 255;

/// The instance.
///
/// # Errors
/// A name that does not exist.
pub fn find<'a>(name: &str, node: &'a Description) -> Result<&'a VrrpDescription, Error> {
    node.instance(name).ok_or_else(|| {
        let names = node.vrrp.iter().map(|it| it.instance.name.as_str());
        not_found(Item::Vrrp, name, names)
    })
}

/// Writes it.
pub fn render(said: &VrrpDescription, style: Style) -> String {
    let (instance, status, counters) = (&said.instance, &said.status, &said.counters);
    let mut lines = Lines::default();
    let family = if instance.is_v6() { "IPv6" } else { "IPv4" };
    let interval = Time::from_millis(u32::from(instance.interval) * 10);
    lines.add(
        "instance",
        format!(
            "{} (virtual router {} on {}; VRRP version {}, {family}, every {interval} s)",
            instance.name, instance.vrid, instance.interface, instance.version
        ),
    );
    for address in &instance.addresses {
        lines.add("address", address.to_string());
    }
    if !said.rules.is_empty() {
        lines.add("needed by", format!("rules {}", said.rules.join(", ")));
    }
    let since = match status.since {
        0 => String::new(),
        since => {
            let since = SystemTime::UNIX_EPOCH + Duration::from_millis(since);
            format!(" since {}", time::rfc3339(since))
        }
    };
    let tone = match status.state {
        VrrpState::Active => Tone::Good,
        VrrpState::Backup => Tone::Plain,
        VrrpState::Disabled => Tone::Notice,
        VrrpState::Fault => Tone::Bad,
    };
    lines.add(
        "state",
        style.paint(tone, &format!("{}{since}", status.state)),
    );
    if !status.why.is_empty() {
        lines.add("because", &status.why);
    }
    lines.add("priority", priority(said));
    for tracked in &instance.track {
        lines.add("tracks", tracked.to_string());
    }
    if let Some(group) = &instance.sync_group {
        lines.add("together", format!("with the others of sync group {group}"));
    }
    if !status.active_node.is_empty() {
        lines.add(
            "heard",
            format!("{} was active, when it was heard last", status.active_node),
        );
    }
    lines.add(
        "packets",
        format!(
            "{} sent, {} received; {} announcements of the addresses",
            counters.sent, counters.received, counters.announcements
        ),
    );
    for (reason, count) in counters.refused.iter().filter(|(_, count)| **count > 0) {
        let text = format!("{count} packets: {reason}");
        lines.add("refused", style.paint(Tone::Notice, &text));
    }
    let (tone, outcome) = outcome(said);
    lines.add("outcome", style.paint(tone, &outcome));
    lines.text()
}

fn priority(said: &VrrpDescription) -> String {
    let (configured, now) = (said.instance.priority, said.status.priority);
    match now {
        0 => format!("{configured}; it takes no part now"),
        OWNER => format!("{OWNER}: the addresses are this node's own"),
        _ if now == configured => configured.to_string(),
        _ => format!("{now}; {configured} without what it tracks and its sync group"),
    }
}

/// Until when a backup waits, in milliseconds: Active_Down_Interval (RFC 9568 section 6.1).
fn patience(said: &VrrpDescription) -> u32 {
    let interval = u32::from(said.instance.interval) * 10;
    let skew = interval * (256 - u32::from(said.status.priority)) / 256;
    3 * interval + skew
}

fn outcome(said: &VrrpDescription) -> (Tone, String) {
    let instance = &said.instance;
    match said.status.state {
        VrrpState::Active => (
            Tone::Good,
            "this node has the addresses and answers for them".to_owned(),
        ),
        VrrpState::Backup => {
            let patience = Time::from_millis(patience(said));
            let lower = match instance.preempt {
                true => ", or hears only nodes with a lower priority",
                false => "",
            };
            let text = format!(
                "another node has the addresses; this one takes over when it hears nothing for {patience} s{lower}"
            );
            (Tone::Plain, text)
        }
        VrrpState::Disabled if instance.enabled => (
            Tone::Notice,
            format!(
                "this node takes no part: {}",
                match said.status.why.as_str() {
                    "" => "it has just been made",
                    why => why,
                }
            ),
        ),
        VrrpState::Disabled => (
            Tone::Notice,
            format!(
                "this node takes no part; 'lbadm enable-vrrp {}' lets it",
                instance.name
            ),
        ),
        VrrpState::Fault => (
            Tone::Bad,
            format!(
                "this node takes no part until that is mended: {}",
                said.status.why
            ),
        ),
    }
}
