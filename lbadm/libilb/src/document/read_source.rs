//! The source of a server group as a document has it: the keys of `lbadm`'s `-d` in a table.

use super::node::{Kind, Node};
use super::read::Reader;
use crate::source::{SOURCE_FIELDS, SourceSettings};

const EXAMPLE: &str = "write { dns = \"app.example.com\" } or { subnet = \"192.0.2.0/28\" }";

impl Reader {
    /// A table. Whether its keys belong together shows when it is planned.
    pub(super) fn source(&mut self, path: &str, node: Node) -> SourceSettings {
        let mut said = SourceSettings::default();
        self.mark(path, &node.span);
        if !matches!(node.kind, Kind::Table(_)) {
            let message = format!("source is {}: {EXAMPLE}", node.words());
            self.note(path, &node.span, message);
            return said;
        }
        let Some(entries) = self.table(path, node, EXAMPLE) else {
            return said;
        };
        for (field, usual, node) in self.known(entries, SOURCE_FIELDS, path) {
            let path = &format!("{path}.{usual}");
            let span = node.span.clone();
            self.mark(path, &span);
            let items = match node.kind {
                Kind::List(items) if field.is_list() => items,
                _ => vec![node],
            };
            for item in items {
                let text = match &item.kind {
                    Kind::Text(text) | Kind::Other(text) => text.clone(),
                    Kind::Number(number) => number.to_string(),
                    Kind::Bool(_) | Kind::List(_) | Kind::Table(_) => {
                        let message = format!("{usual} {} is not allowed: use text", item.words());
                        self.note(path, &item.span, message);
                        continue;
                    }
                };
                if let Err(error) = said.set(field, &text) {
                    self.note_error(path, &item.span, error);
                }
            }
        }
        said
    }
}
