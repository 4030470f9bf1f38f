//! What is said when a rule stands otherwise with its servers.

use ilb_node::journal::events::{PANIC_BEGAN, PANIC_OVER, QUORUM_LOST, QUORUM_MET};
use libilb::model::Rule;
use libilb::rule::PanicMode;

use crate::standing::Standing;

/// Says what is otherwise than it was `before`.
pub(super) fn announce(rule: &Rule, before: &Standing, after: &Standing) {
    let (name, group) = (&*rule.name, &*rule.servergroup);
    let mode = |standing: &Standing| standing.panic.map(|panic| panic.mode);
    match (mode(before), mode(after)) {
        (before, Some(mode)) if before != Some(mode) => tracing::warn!(
            message_id = PANIC_BEGAN.id,
            ilb_rule = name,
            ilb_group = group,
            ilb_mode = mode.name(),
            "rule {name}: fewer than {} % of its servers look alive, so panic mode {mode} holds: {}",
            rule.panic_threshold,
            words(mode)
        ),
        (Some(mode), None) => tracing::info!(
            message_id = PANIC_OVER.id,
            ilb_rule = name,
            ilb_group = group,
            ilb_mode = mode.name(),
            "rule {name}: panic mode {mode} is over, enough servers are alive"
        ),
        _ => {}
    }
    match (before.quorum, after.quorum) {
        (true, false) => tracing::warn!(
            message_id = QUORUM_LOST.id,
            ilb_rule = name,
            ilb_group = group,
            "rule {name} has lost its quorum of {}",
            rule.quorum
        ),
        (false, true) => tracing::info!(
            message_id = QUORUM_MET.id,
            ilb_rule = name,
            ilb_group = group,
            "rule {name} has its quorum of {} again",
            rule.quorum
        ),
        _ => {}
    }
    match (before.level, after.level) {
        (Some(before), Some(level)) if level > before => {
            tracing::warn!("rule {name} is served by {level} now: too few servers are able");
        }
        (Some(before), Some(level)) if level < before => {
            tracing::info!("rule {name} is served by {level} again");
        }
        // Nothing was chosen before, or is now.
        _ => {}
    }
}

/// What a panic mode does.
pub(super) fn words(mode: PanicMode) -> &'static str {
    match mode {
        PanicMode::None => "nothing is done about it",
        PanicMode::KeepLast => "those that were alive until then are used all the same",
        PanicMode::FailOpen => "all are used all the same",
        PanicMode::Sorry => "the sorry servers serve",
    }
}
