//! What the show commands have in common.

use std::collections::HashMap;

use libilb::ModelError;
use libilb::describe::{Description, GroupDescription};
use libilb::error::Item;
use libilb::model::key;
use libilb::words;

use crate::error::Error;

/// Whether `name` was asked for: it is among `names`, or there are none.
pub fn named(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// Server groups by name in any case, for who asks for those of thousands of rules.
pub struct Groups<'a>(HashMap<String, &'a GroupDescription>);

impl<'a> Groups<'a> {
    /// Those of a node.
    pub fn of(node: &'a Description) -> Groups<'a> {
        let groups = node.groups.iter();
        Groups(groups.map(|group| (key(&group.name), group)).collect())
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&'a GroupDescription> {
        self.0.get(&key(name)).copied()
    }
}

/// A line about what is gone but for its connections; nothing if there is none.
pub fn draining<'a>(what: &str, gone: impl Iterator<Item = (&'a str, u64)>) -> String {
    let gone: Vec<String> = gone
        .map(|(name, count)| format!("{name} ({count})"))
        .collect();
    match gone.is_empty() {
        true => String::new(),
        false => format!("{what}: {}\n", gone.join(", ")),
    }
}

/// Checks that every one of `names` exists.
///
/// # Errors
/// All names that do not, with the nearest one.
pub fn check_names<'a, I: Iterator<Item = &'a str>>(
    item: Item,
    names: &[String],
    known: impl Fn() -> I,
) -> Result<(), Error> {
    let missing: Vec<String> = names
        .iter()
        .filter(|name| !known().any(|k| k.eq_ignore_ascii_case(name)))
        .cloned()
        .collect();
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(Error::Model(ModelError::NotFound {
            item,
            suggestion: words::nearest(first, known()),
            names: missing,
        })),
    }
}
