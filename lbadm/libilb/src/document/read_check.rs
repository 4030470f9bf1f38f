//! A health check as a document has it: the keys of [`HealthCheckSettings`], with the aliases that they have behind `-h`.

use serde_json::{Map, Value as Json};

use super::entry::CheckEntry;
use super::node::{Key, Kind, Node};
use super::read::{Reader, value};
use crate::healthcheck::{FIELDS, Field, HealthCheckSettings};
use crate::words;

/// The key of a field in a document.
pub(super) fn check_key(field: Field) -> &'static str {
    match field {
        Field::Url => "urls",
        Field::Argument => "arguments",
        other => words::name(FIELDS, other),
    }
}

/// Whether a field stands in the tables of `urls` and not beside them.
fn of_a_page(field: Field) -> bool {
    matches!(
        field,
        Field::Status | Field::Digest | Field::Regex | Field::RegexNoMatch
    )
}

impl Reader {
    /// A health check. Whether its keys belong together shows when it is planned.
    pub(super) fn check(
        &mut self,
        name: &str,
        path: &str,
        entries: Vec<(Key, Node)>,
    ) -> CheckEntry {
        let mut all = Map::new();
        for (key, node) in entries {
            let typed = key.name.to_ascii_lowercase();
            let bare = typed.strip_prefix("hc-").unwrap_or(&typed);
            let field = words::find(FIELDS, bare);
            let Some(field) = field.filter(|field| !of_a_page(*field)) else {
                let keys: Vec<&str> = FIELDS
                    .iter()
                    .filter(|(field, ..)| !of_a_page(*field))
                    .map(|(field, ..)| check_key(*field))
                    .collect();
                let hint = match field {
                    Some(_) => {
                        format!("; it stands with a page: urls = [{{ path = \"/\", {bare} = … }}]")
                    }
                    None => words::nearest(bare, keys.iter().copied())
                        .map_or(String::new(), |word| format!("; did you mean '{word}'?")),
                };
                let message = format!(
                    "key '{}' is not known: use {}{hint}",
                    key.name.escape_debug(),
                    words::one_of(&keys)
                );
                self.note(&format!("{path}.{}", key.name), &key.span, message);
                continue;
            };
            let usual = check_key(field);
            let path = format!("{path}.{usual}");
            self.mark(&path, &node.span.clone().or(key.span.clone()));
            let said = value(&node).to_json();
            let said = match (field, &node.kind) {
                (Field::Url | Field::Argument, Kind::Text(_) | Kind::Table(_)) => {
                    Json::Array(vec![said])
                }
                _ => said,
            };
            // By itself, so that what is wrong with it has its place.
            let alone: Map<String, Json> =
                [(usual.to_string(), said.clone())].into_iter().collect();
            if let Err(error) = serde_json::from_value::<HealthCheckSettings>(Json::Object(alone)) {
                self.note(
                    &path,
                    &node.span,
                    in_words(usual, &node, &error.to_string()),
                );
            } else if all.insert(usual.to_string(), said).is_some() {
                self.note(
                    &path,
                    &key.span,
                    format!("{usual} is given twice: give it once"),
                );
            }
        }
        let settings = serde_json::from_value(Json::Object(all)).unwrap_or_default();
        CheckEntry {
            name: name.to_string(),
            settings,
        }
    }
}

/// What serde says, with the key that it says it of.
fn in_words(key: &str, node: &Node, error: &str) -> String {
    match error.strip_prefix("invalid type: ") {
        // "string "x", expected u32"
        Some(rest) => {
            let expected = rest.rsplit_once(", expected ").map_or(rest, |(_, e)| e);
            let expected = match expected {
                "u32" => "a whole number",
                "a boolean" => "true or false",
                "a string" => "text",
                other => other,
            };
            format!("{key} {} is not allowed: use {expected}", node.words())
        }
        // A time does not know whose it is.
        None if error.starts_with("time ") => error.replacen("time", key, 1),
        None if error.contains(key) => error.to_string(),
        None => format!("{key} {} is not allowed: {error}", node.words()),
    }
}
