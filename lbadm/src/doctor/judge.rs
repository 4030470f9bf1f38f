//! What the facts mean, in the order in which a person would look. Pure.

use super::{Facts, clashes, interfaces, machine, servers};
use crate::finding::Finding;

/// Judges everything.
pub fn all(facts: &Facts) -> Vec<Finding> {
    [
        machine::daemons(facts),
        machine::kernel(facts),
        interfaces::all(facts),
        machine::resources(facts),
        servers::all(facts),
        clashes::all(facts),
        machine::clock(facts),
    ]
    .concat()
}
