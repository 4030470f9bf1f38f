//! The text of a document as a tree of values that know where they stand, be it TOML or JSON.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Mistake;

pub(super) type Span = Option<Range<usize>>;

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub span: Span,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Text(String),
    Number(i64),
    Bool(bool),
    List(Vec<Node>),
    /// In the order of the text.
    Table(Vec<(Key, Node)>),
    /// What no key of ours takes: a fraction, a date, null.
    Other(String),
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub span: Span,
    pub name: String,
}

impl Node {
    /// The value as a person would recognise it from the text.
    pub fn words(&self) -> String {
        match &self.kind {
            Kind::Text(text) => format!("'{}'", text.escape_debug()),
            Kind::Number(number) => number.to_string(),
            Kind::Bool(value) => value.to_string(),
            Kind::List(_) => "a list".to_string(),
            Kind::Table(_) => "a table".to_string(),
            Kind::Other(text) => text.clone(),
        }
    }
}

/// Reads a text, JSON if it begins with a brace. What is wrong with its syntax is noted; the rest is there.
pub(super) fn parse(text: &str, mistakes: &mut Vec<Mistake>) -> Node {
    if text.trim_start().starts_with('{') {
        return json(text, mistakes);
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let mut mistake = Mistake::new("", format!("not TOML: {}", error.message()));
        mistake.span = error.span().or(Some(0..0));
        mistakes.push(mistake);
    }
    table_node(None, table.get_ref())
}

fn table_node(span: Span, table: &DeTable<'_>) -> Node {
    let mut entries: Vec<(Key, Node)> = table
        .iter()
        .map(|(key, value)| {
            let key = Key {
                span: Some(key.span()),
                name: key.get_ref().to_string(),
            };
            (key, node(value))
        })
        .collect();
    entries.sort_by_key(|(key, _)| key.span.as_ref().map(|span| span.start));
    Node {
        span,
        kind: Kind::Table(entries),
    }
}

fn node(value: &Spanned<DeValue<'_>>) -> Node {
    let span = Some(value.span());
    let kind = match value.get_ref() {
        DeValue::String(text) => Kind::Text(text.to_string()),
        DeValue::Integer(integer) => {
            let digits = integer.as_str().replace('_', "");
            match i64::from_str_radix(&digits, integer.radix()) {
                Ok(number) => Kind::Number(number),
                Err(_) => Kind::Other(integer.to_string()),
            }
        }
        DeValue::Float(float) => Kind::Other(float.to_string()),
        DeValue::Boolean(value) => Kind::Bool(*value),
        DeValue::Datetime(date) => Kind::Other(date.to_string()),
        DeValue::Array(items) => Kind::List(items.iter().map(node).collect()),
        DeValue::Table(table) => return table_node(span, table),
    };
    Node { span, kind }
}

/// JSON says where its syntax is wrong, but not where its values are.
fn json(text: &str, mistakes: &mut Vec<Mistake>) -> Node {
    serde_json::from_str(text).unwrap_or_else(|error| {
        let lines: usize = text
            .split_inclusive('\n')
            .take(error.line().saturating_sub(1))
            .map(str::len)
            .sum();
        let at = (lines + error.column().saturating_sub(1)).min(text.len());
        let at = (0..=at).rev().find(|&at| text.is_char_boundary(at));
        let whole = error.to_string();
        let message = whole.split(" at line ").next().unwrap_or(&whole);
        let mut mistake = Mistake::new("", format!("not JSON: {message}"));
        mistake.span = at.map(|at| at..at);
        mistakes.push(mistake);
        Node {
            span: None,
            kind: Kind::Table(Vec::new()),
        }
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl Nodes {
    fn node(kind: Kind) -> Node {
        Node { span: None, kind }
    }
}

impl<'de> Visitor<'de> for Nodes {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Nodes::node(Kind::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Nodes::node(Kind::Number(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Nodes::node(match i64::try_from(value) {
            Ok(value) => Kind::Number(value),
            Err(_) => Kind::Other(value.to_string()),
        }))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Nodes::node(Kind::Other(value.to_string())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Nodes::node(Kind::Text(value.to_string())))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Nodes::node(Kind::Other("null".to_string())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Nodes::node(Kind::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen = HashSet::new();
        while let Some((name, value)) = access.next_entry::<String, Node>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format!("duplicate key {name:?}")));
            }
            entries.push((Key { span: None, name }, value));
        }
        Ok(Nodes::node(Kind::Table(entries)))
    }
}
