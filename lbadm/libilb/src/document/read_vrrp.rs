//! A VRRP instance as a document has it: the keys of [`VrrpSettings`], with the aliases that they have behind `-i`.

use super::Value;
use super::entry::VrrpEntry;
use super::node::{Key, Node};
use super::read::{Reader, value};
use crate::vrrp::{FIELDS, Field, VRRP_SETTINGS, VrrpSettings};
use crate::words;

impl Reader {
    /// A VRRP instance. Whether its keys belong together shows when it is planned.
    pub(super) fn vrrp(&mut self, name: &str, path: &str, entries: Vec<(Key, Node)>) -> VrrpEntry {
        let mut settings = VrrpSettings::default();
        for (field, usual, node) in self.known(entries, FIELDS, path) {
            let path = format!("{path}.{usual}");
            let span = node.span.clone();
            let said = match text(&value(&node)) {
                Some(said) => settings
                    .set(field, &said)
                    .map_err(|error| error.to_string()),
                None => Err(format!(
                    "{usual} {} is not allowed: use a text, a number, true, false or a list of texts",
                    node.words()
                )),
            };
            if let Err(message) = said {
                self.note(&path, &span, message);
            }
        }
        VrrpEntry {
            name: name.to_string(),
            settings,
        }
    }
}

/// A value as `-i` has it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(if *yes { "yes" } else { "no" }.to_string()),
        Value::List(items) => {
            let texts: Option<Vec<String>> = items.iter().map(text).collect();
            // An empty list is nothing to track, and nothing else.
            texts.map(|texts| match texts.is_empty() {
                true => "none".to_string(),
                false => texts.join(","),
            })
        }
        Value::Table(_) => None,
    }
}

/// What is said about a VRRP instance, under the usual keys in their order.
pub(super) fn vrrp_fields(entry: &VrrpEntry) -> Vec<(&'static str, Value)> {
    let said = FIELDS.iter().filter_map(|(field, name, _)| {
        let text = entry.settings.fields.get(field)?;
        Some((*name, typed(*field, name, text)))
    });
    said.collect()
}

/// A text as the value that people would write.
fn typed(field: Field, name: &str, text: &str) -> Value {
    let signature = VRRP_SETTINGS.iter().find(|(key, _)| *key == name);
    match signature.map(|(_, signature)| *signature) {
        Some("u") => text
            .parse::<u32>()
            .map_or_else(|_| text.into(), Value::from),
        Some("b") => Value::Bool(text == words::name(crate::vrrp::YES_OR_NO, true)),
        Some("as") if field == Field::Track && text == "none" => Value::List(Vec::new()),
        Some("as") => Value::List(text.split(',').map(Value::from).collect()),
        // Times: whole seconds are numbers.
        _ => match (field, text.parse::<u32>()) {
            (Field::Interval | Field::PreemptDelay | Field::AnnounceInterval, Ok(seconds)) => {
                seconds.into()
            }
            _ => text.into(),
        },
    }
}
