//! Where clients connect to, as a document has it.

use super::keys::{VIP_KEYS, VipKey};
use super::node::{Kind, Node, Span};
use super::read::Reader;
use crate::address::{self, Purpose};
use crate::rule::Protocol;
use crate::vip::{Vip, VipSettings};

/// Where clients connect to, as it was written.
#[derive(Default)]
pub(super) struct Place {
    pub span: Span,
    pub vips: Option<Node>,
    pub ports: Option<Node>,
    pub protocols: Option<Node>,
    pub list: Option<Node>,
}

impl Reader {
    /// Addresses, protocols and ports, each with each; or a list in which each stands for itself.
    pub(super) fn vips(&mut self, path: &str, place: Place) -> Option<Vec<Vip>> {
        let mut vips = Vec::new();
        if let Some(list) = place.list {
            let path = &format!("{path}.vips");
            if let Some(other) = place.vips.or(place.ports).or(place.protocols) {
                self.note(
                    path,
                    &other.span,
                    "vips is given, too: vip, port and protocol stand in its tables then",
                );
                return None;
            }
            let example = "write vips = [{ vip = \"192.0.2.1\", port = 80 }]";
            let Kind::List(items) = list.kind else {
                let what = list.words();
                self.note(path, &list.span, format!("vips is {what}: {example}"));
                return None;
            };
            for (n, item) in items.into_iter().enumerate() {
                let path = &format!("{path}[{n}]");
                self.mark(path, &item.span);
                let span = item.span.clone();
                let Some(entries) = self.table(path, item, example) else {
                    continue;
                };
                let mut place = Place {
                    span,
                    ..Place::default()
                };
                for (meaning, _, node) in self.known(entries, VIP_KEYS, path) {
                    match meaning {
                        VipKey::Vip => place.vips = Some(node),
                        VipKey::Port => place.ports = Some(node),
                        VipKey::Protocol => place.protocols = Some(node),
                    }
                }
                vips.extend(self.product(path, place));
            }
            return Some(vips);
        }
        if place.vips.is_none() {
            let alone = [("port", place.ports), ("protocol", place.protocols)];
            for (word, node) in alone {
                if let Some(node) = node {
                    let message = format!(
                        "{word} is given without vip: vip, port and protocol belong together"
                    );
                    self.note(&format!("{path}.{word}"), &node.span, message);
                }
            }
            return None;
        }
        Some(self.product(path, place))
    }

    fn product(&mut self, path: &str, place: Place) -> Vec<Vip> {
        let mut words = |word: &str, node: Option<Node>| -> Vec<(String, Span)> {
            let Some(node) = node else {
                return vec![(String::new(), place.span.clone())];
            };
            let path = format!("{path}.{word}");
            let items = match node.kind {
                Kind::List(items) => items,
                kind => vec![Node {
                    span: node.span.clone(),
                    kind,
                }],
            };
            if items.is_empty() {
                self.note(
                    &path,
                    &node.span,
                    format!("{word} is an empty list: name at least one"),
                );
            }
            let mut all = Vec::new();
            for item in items {
                match item.kind {
                    Kind::Text(text) => all.push((text, item.span)),
                    Kind::Number(number) if word == "port" => {
                        all.push((number.to_string(), item.span));
                    }
                    _ => {
                        let message =
                            format!("{word} is {}: use text, or a list of texts", item.words());
                        self.note(&path, &item.span, message);
                    }
                }
            }
            all
        };
        let protocols = match place.protocols {
            None => vec![("tcp".to_string(), None)],
            some => words("protocol", some),
        };
        let vips = words("vip", place.vips);
        let ports = words("port", place.ports);
        let mut addresses = Vec::new();
        for (vip, span) in &vips {
            match address::parse(Purpose::Vip, vip) {
                Ok(address) => addresses.push(address),
                Err(error) => self.note_error(&format!("{path}.vip"), span, error),
            }
        }
        let mut places = Vec::new();
        for (word, span) in &protocols {
            if let Err(error) = Protocol::parse(word) {
                self.note_error(&format!("{path}.protocol"), span, error);
                continue;
            }
            for (port, span) in &ports {
                let settings = VipSettings {
                    vip: "192.0.2.1".to_string(),
                    port: port.clone(),
                    protocol: Some(word.clone()),
                };
                match settings.check() {
                    Ok(place) => places.push(place),
                    Err(error) => self.note_error(&format!("{path}.port"), span, error),
                }
            }
        }
        let all = addresses.iter().flat_map(|&address| {
            let places = places.iter();
            places.map(move |&place| Vip { address, ..place })
        });
        all.collect()
    }
}
