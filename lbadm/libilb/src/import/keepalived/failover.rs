//! What belongs to VRRP, in a form that keeps it whole.

use serde_json::{Map, Value};

use super::super::report::Kind;
use super::Reader;
use super::tree::Statement;

/// Blocks that are kept, as keepalived calls them.
pub(super) const BLOCKS: &[&str] = &[
    "vrrp_instance",
    "vrrp_sync_group",
    "vrrp_script",
    "vrrp_track_process",
    "track_process",
    "track_file",
    "vrrp_track_file",
    "track_group",
    "garp_group",
    "static_ipaddress",
    "static_routes",
    "static_rules",
    "bfd_instance",
];

/// Whether a block is kept.
pub(super) fn is_block(word: &str) -> bool {
    BLOCKS.contains(&word)
}

/// Whether a directive of `global_defs` is kept.
pub(super) fn is_global(word: &str) -> bool {
    const OTHERS: [&str; 4] = [
        "dynamic_interfaces",
        "vmac_prefix",
        "vmac_addr_prefix",
        "fifo_write_vrrp_states_on_reload",
    ];
    word.starts_with("vrrp_") || OTHERS.contains(&word)
}

/// Blocks whose lines are a list.
const LISTS: &[&str] = &[
    "group",
    "virtual_ipaddress",
    "virtual_ipaddress_excluded",
    "virtual_routes",
    "virtual_rules",
    "track_interface",
    "track_script",
    "track_file",
    "track_process",
    "track_bfd",
    "unicast_peer",
    "notify_master_rx_lower_pri",
];

impl Reader<'_> {
    /// Keeps a block under its kind and its name; without name under its kind.
    pub(super) fn keep(&mut self, block: &Statement) {
        let kind = block.key();
        let kind = kind.strip_prefix("vrrp_").unwrap_or(kind);
        let list = kind.starts_with("static_") && block.block.is_some();
        let value = match list {
            true => lines(block.inner()),
            false => Value::Object(object(block.inner())),
        };
        let name = block.values().join(" ");
        let old = self.failover.get_mut(kind);
        match (name.is_empty(), old) {
            (true, Some(Value::Array(old))) => {
                if let Value::Array(more) = value {
                    old.extend(more);
                }
            }
            (true, _) => {
                self.failover.insert(kind.to_string(), value);
            }
            (false, Some(Value::Object(old))) => {
                if old.insert(name.clone(), value).is_some() {
                    let note = format!(
                        "there is a {} of that name before; this one counts",
                        block.key()
                    );
                    self.say(block, Kind::Changed, note);
                }
            }
            (false, _) => {
                let named = [(name, value)].into_iter().collect();
                self.failover.insert(kind.to_string(), Value::Object(named));
            }
        }
        let count = count(block.inner());
        let lines = if count == 1 { "line" } else { "lines" };
        let note = format!("{count} {lines} as they are, under kept.{kind}");
        self.say(block, Kind::Kept, note);
    }

    /// Keeps a directive of `global_defs`.
    pub(super) fn keep_global(&mut self, statement: &Statement) {
        let globals = self
            .failover
            .entry("global")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(globals) = globals {
            globals.insert(statement.key().to_string(), value(statement));
        }
        self.say(statement, Kind::Kept, "as it is, under kept.global");
    }
}

fn count(statements: &[Statement]) -> usize {
    statements.iter().map(|s| 1 + count(s.inner())).sum()
}

/// A block as a table. What stands there several times is a list.
fn object(statements: &[Statement]) -> Map<String, Value> {
    let mut table = Map::new();
    for statement in statements {
        let value = value(statement);
        match table.get_mut(statement.key()) {
            None => {
                table.insert(statement.key().to_string(), value);
            }
            Some(Value::Array(all)) if !LISTS.contains(&statement.key()) => all.push(value),
            Some(Value::Array(all)) => {
                if let Value::Array(more) = value {
                    all.extend(more);
                }
            }
            Some(old) => *old = Value::Array(vec![old.take(), value]),
        }
    }
    table
}

fn value(statement: &Statement) -> Value {
    match (&statement.block, statement.values()) {
        (Some(block), _) if LISTS.contains(&statement.key()) => lines(block),
        (Some(block), []) => Value::Object(object(block)),
        (Some(block), name) => {
            let inner = Value::Object(object(block));
            Value::Object([(name.join(" "), inner)].into_iter().collect())
        }
        (None, []) => Value::Bool(true),
        (None, values) => Value::String(written(values)),
    }
}

/// Lines as texts.
fn lines(statements: &[Statement]) -> Value {
    let text = |s: &Statement| match &s.block {
        None => Value::String(written(&s.words)),
        Some(block) => {
            let inner = Value::Object(object(block));
            Value::Object([(written(&s.words), inner)].into_iter().collect())
        }
    };
    Value::Array(statements.iter().map(text).collect())
}

/// Words with blanks between, quoted where they have blanks themselves; one word is just that.
fn written(words: &[String]) -> String {
    let quoted = |word: &String| match word.is_empty() || word.contains(char::is_whitespace) {
        true => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")),
        false => word.clone(),
    };
    match words {
        [one] => one.clone(),
        all => all.iter().map(quoted).collect::<Vec<_>>().join(" "),
    }
}
