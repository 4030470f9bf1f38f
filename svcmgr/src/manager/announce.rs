//! What is said of a change when it is durable.

use ilb_node::journal::events::{CONFIGURATION_CHANGED, RULE_CHANGED, RULE_CREATED, RULE_DELETED};

use crate::author::Author;
use crate::state::State;

/// Rules that one change says something of.
const MOST: usize = 100;

/// Says that `after` took the place of `before`, if that is another generation.
pub(super) fn change(before: &State, after: &State, author: &Author, words: &str) {
    let generation = after.generation;
    if generation == before.generation {
        return;
    }
    tracing::info!(
        message_id = CONFIGURATION_CHANGED.id,
        ilb_generation = generation,
        ilb_user = %author,
        ilb_what = words,
        "generation {generation}, by {author}: {words}"
    );
    let rules = &after.configuration.rules;
    for change in rules.since(&before.configuration.rules).take(MOST) {
        let (event, rule, done) = match (change.before, change.after) {
            (None, Some(rule)) => (&RULE_CREATED, rule, "created"),
            (Some(_), Some(rule)) => (&RULE_CHANGED, rule, "changed"),
            (Some(rule), None) => (&RULE_DELETED, rule, "deleted"),
            (None, None) => continue,
        };
        tracing::info!(
            message_id = event.id,
            ilb_rule = rule.name,
            ilb_group = rule.servergroup,
            ilb_generation = generation,
            ilb_user = %author,
            "rule {} was {done} with generation {generation}",
            rule.name
        );
    }
}
