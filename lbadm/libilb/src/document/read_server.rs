//! The servers of a group as a document has them: specifications as `lbadm` takes them, or tables.

use super::entry::ServerEntry;
use super::keys::{SERVER_KEYS, ServerKey};
use super::node::{Kind, Node};
use super::read::Reader;
use crate::error::ModelError;
use crate::port::PortRange;
use crate::rule::Protocol;
use crate::server::{ServerKey as Key, ServerSettings, ServerSpec};

const EXAMPLE: &str =
    "write \"192.0.2.10:80\" or { address = \"192.0.2.10:80\", weight = 2 }, several in a list";

impl Reader {
    /// A server or a list of them.
    pub(super) fn servers(&mut self, path: &str, node: Node) -> Vec<ServerEntry> {
        let items = match node.kind {
            Kind::List(items) => items,
            _ => vec![node],
        };
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            let place = format!("{path}[{}]", all.len());
            let span = item.span.clone();
            let found = match item.kind {
                Kind::Text(text) => match ServerSpec::parse(&text) {
                    Ok(specs) => specs.into_iter().map(ServerEntry::from_spec).collect(),
                    Err(error) => {
                        self.note_error(&place, &span, error);
                        Vec::new()
                    }
                },
                Kind::Table(_) => self.server(&place, item),
                _ => {
                    let message = format!("a server is {}: {EXAMPLE}", item.words());
                    self.note(&place, &span, message);
                    Vec::new()
                }
            };
            for entry in found {
                self.mark(&format!("{path}[{}]", all.len()), &span);
                all.push(entry);
            }
        }
        all
    }

    /// A table; several servers if its address is a range.
    fn server(&mut self, path: &str, node: Node) -> Vec<ServerEntry> {
        let span = node.span.clone();
        let mut entry = ServerEntry::default();
        let (mut address, mut ports) = (None, None);
        let before = self.mistakes.len();
        let Some(entries) = self.table(path, node, EXAMPLE) else {
            return Vec::new();
        };
        let connections = "connections; 0 is no limit";
        for (meaning, usual, node) in self.known(entries, SERVER_KEYS, path) {
            let path = &format!("{path}.{usual}");
            match meaning {
                ServerKey::Address => {
                    let span = node.span.clone();
                    if let Some(text) = self.text(path, node, "such as \"192.0.2.10:80\"") {
                        address = Some((text, span));
                    }
                }
                ServerKey::Port => {
                    let span = node.span.clone();
                    let text = match node.kind {
                        Kind::Number(number) => Some(number.to_string()),
                        _ => self.text(path, node, "such as \"8000-8009\""),
                    };
                    let read = text.map(|text| PortRange::parse("port", &text, Protocol::Tcp));
                    match read.transpose() {
                        Ok(read) => ports = read.map(|ports| (ports, span)),
                        Err(error) => self.note_error(path, &span, error),
                    }
                }
                ServerKey::Host => {
                    entry.host = self.text(path, node, "such as \"web1.example.org\"");
                }
                ServerKey::Weight => {
                    let what = "0 takes no new connections";
                    let read = self.number(path, usual, node, 0..=65535, what);
                    entry.weight = read.and_then(|weight| u16::try_from(weight).ok());
                }
                ServerKey::MaxConnections => {
                    entry.max_connections =
                        self.number(path, usual, node, 0..=u32::MAX, connections);
                }
                ServerKey::MinConnections => {
                    entry.min_connections =
                        self.number(path, usual, node, 0..=u32::MAX, connections);
                }
                ServerKey::Tier => {
                    let span = node.span.clone();
                    let text = match node.kind {
                        Kind::Number(number) => Some(number.to_string()),
                        _ => self.text(path, node, "a number, or \"sorry\""),
                    };
                    let mut settings = ServerSettings::default();
                    let read = text.map(|text| settings.set(Key::Tier, &text));
                    match read.transpose() {
                        Ok(_) => entry.tier = settings.tier,
                        Err(error) => self.note_error(path, &span, error),
                    }
                }
                ServerKey::Enabled => entry.enabled = self.boolean(path, usual, node),
                ServerKey::Found => entry.found = self.boolean(path, usual, node),
                ServerKey::Id => entry.id = self.text(path, node, "such as \"_web.0\""),
                ServerKey::Place => {
                    let span = node.span.clone();
                    let text = self.text(path, node, "such as \"3/10\", the fourth of ten");
                    match text.map(|text| text.parse()).transpose() {
                        Ok(place) => entry.group_place = place,
                        Err(error) => self.note_error(path, &span, error),
                    }
                }
            }
        }
        if self.mistakes.len() > before {
            return Vec::new();
        }
        let (text, text_span) = match (address, &entry.host) {
            (Some(given), _) => given,
            (None, Some(host)) => (host.clone(), span.clone()),
            (None, None) => {
                self.note(path, &span, format!("address is missing: {EXAMPLE}"));
                return Vec::new();
            }
        };
        let specs = match ServerSpec::parse(&text) {
            Ok(specs) => specs,
            Err(error) => {
                self.note_error(path, &text_span, error);
                return Vec::new();
            }
        };
        let several = specs.len() > 1;
        let mut all = Vec::with_capacity(specs.len());
        for spec in specs {
            let read = ServerEntry::from_spec(spec);
            if let Some(problem) = clash(&entry, &read, ports.is_some(), several) {
                self.note(path, &text_span, problem);
                return Vec::new();
            }
            all.push(ServerEntry {
                address: read.address,
                host: read.host.or(entry.host.clone()),
                ports: read.ports.or(ports.as_ref().map(|(ports, _)| *ports)),
                weight: read.weight.or(entry.weight),
                max_connections: read.max_connections.or(entry.max_connections),
                min_connections: read.min_connections.or(entry.min_connections),
                id: read.id.or(entry.id.clone()),
                group_place: read.group_place.or(entry.group_place),
                tier: read.tier.or(entry.tier),
                found: read.found.or(entry.found),
                ..entry.clone()
            });
        }
        let limits = all.first().map(|one| {
            crate::server::check_limits(
                one.max_connections.unwrap_or(0),
                one.min_connections.unwrap_or(0),
            )
        });
        // Of a server that is there already the other limit may be known.
        if let Some(Err(error)) = limits.filter(|_| entry.max_connections.is_some()) {
            self.note_error(path, &span, error);
            return Vec::new();
        }
        all
    }
}

/// What is said twice, or cannot be said of several servers.
fn clash(table: &ServerEntry, spec: &ServerEntry, port: bool, several: bool) -> Option<String> {
    let twice = |word: &str| {
        Some(format!(
            "{word} is given twice: within the address, and by itself"
        ))
    };
    if port && spec.ports.is_some() {
        return twice("port");
    }
    if spec.weight.is_some() && table.weight.is_some() {
        return twice("weight");
    }
    if spec.max_connections.is_some() && table.max_connections.is_some() {
        return twice("max-conn");
    }
    if spec.min_connections.is_some() && table.min_connections.is_some() {
        return twice("min-conn");
    }
    if spec.tier.is_some() && table.tier.is_some() {
        return twice("tier");
    }
    if let (Some(host), Some(other)) = (&spec.host, &table.host)
        && host != other
    {
        return twice("host");
    }
    let own = table.host.is_some() || table.id.is_some() || table.group_place.is_some();
    if several && own {
        let error = ModelError::invalid(
            "address",
            "a range",
            "stands for several servers",
            "host, id and place belong to one; write a table for each",
        );
        return Some(error.to_string());
    }
    None
}
