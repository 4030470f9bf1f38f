//! From a text to a [`Document`]: every value is read by itself, every mistake is noted with its place.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Document;
use super::entry::{GroupEntry, Mask, RuleEntry};
use super::keys::{GROUP_KEYS, GroupKey, RULE_KEYS, RuleKey, SECTIONS, Section};
use super::mistake::{Mistake, Mistakes};
use super::node::{self, Key, Kind, Node, Span};
use super::read_vip::Place;
use super::value::Value;
use crate::address::{self, Purpose};
use crate::error::{Item, ModelError};
use crate::healthcheck::CheckPort;
use crate::model::key;
use crate::notify::is_none;
use crate::rule::{
    Algorithm, Notify, NotifyEvent, Orphans, Synchronise, Timeout, Timeouts, Topology, Tunnel,
    check_name,
};
use crate::vip::Prefix;
use crate::words::{self, Word};

/// What was read, and what was wrong with it.
pub(super) struct Reading {
    pub document: Document,
    pub mistakes: Vec<Mistake>,
    /// [`key`]s of rules that have mistakes: what is missing in them is no further mistake.
    pub broken: HashSet<String>,
    /// The same of VRRP instances, which have names of their own.
    pub broken_vrrp: HashSet<String>,
    pub text: Arc<str>,
}

/// Reads a text as far as it can be read.
pub(super) fn read(text: &str) -> Reading {
    let mut reader = Reader::default();
    let node = node::parse(text, &mut reader.mistakes);
    reader.document(node);
    reader.finish(text.into())
}

/// Reads a text without mistakes.
pub(super) fn strictly(text: &str) -> Result<Document, Mistakes> {
    read(text).strictly()
}

/// Reads a tree without mistakes.
pub(super) fn from_node(node: Node) -> Result<Document, Mistakes> {
    let mut reader = Reader::default();
    reader.document(node);
    reader.finish("".into()).strictly()
}

impl Reading {
    fn strictly(self) -> Result<Document, Mistakes> {
        match self.mistakes.is_empty() {
            true => Ok(self.document),
            false => Err(Mistakes::new(
                self.mistakes,
                &self.document.marks,
                &self.text,
            )),
        }
    }
}

#[derive(Default)]
pub(super) struct Reader {
    document: Document,
    pub(super) mistakes: Vec<Mistake>,
    broken: HashSet<String>,
    broken_vrrp: HashSet<String>,
}

impl Reader {
    fn finish(self, text: Arc<str>) -> Reading {
        Reading {
            document: self.document,
            mistakes: self.mistakes,
            broken: self.broken,
            broken_vrrp: self.broken_vrrp,
            text,
        }
    }

    pub(super) fn note(&mut self, path: &str, span: &Span, message: impl std::fmt::Display) {
        let mut mistake = Mistake::new(path, message);
        mistake.span.clone_from(span);
        self.mistakes.push(mistake);
    }

    /// What the model says of a value, under the name that the key has here.
    pub(super) fn note_error(&mut self, path: &str, span: &Span, error: ModelError) {
        self.note(path, span, renamed(error));
    }

    pub(super) fn mark(&mut self, path: &str, span: &Span) {
        self.document.marks.insert(path.to_string(), span.clone());
    }

    fn document(&mut self, node: Node) {
        let Kind::Table(sections) = node.kind else {
            let what = node.words();
            self.note(
                "",
                &node.span,
                format!("{what} is no document: it is a table of group and rule"),
            );
            return;
        };
        for (section, name, node) in self.known(sections, SECTIONS, "") {
            let name: &'static str = name;
            let Some(items) = self.table(name, node, &format!("write [{name}.NAME]")) else {
                continue;
            };
            match section {
                Section::Kept => {
                    for (key, node) in items {
                        self.mark(&format!("{name}.{}", key.name), &key.span);
                        self.document.kept.push((key.name, value(&node)));
                    }
                }
                Section::Group | Section::HealthCheck | Section::Rule | Section::Vrrp => {
                    self.named(section, name, items)
                }
            }
        }
    }

    /// Rules or groups: their names may be there once.
    fn named(&mut self, section: Section, word: &str, items: Vec<(Key, Node)>) {
        let item = match section {
            Section::Rule => Item::Rule,
            Section::HealthCheck => Item::HealthCheck,
            Section::Vrrp => Item::Vrrp,
            _ => Item::ServerGroup,
        };
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for (name, node) in items {
            let path = format!("{word}.{}", name.name);
            let before = self.mistakes.len();
            if let Err(error) = check_name(item, &name.name) {
                self.note_error(&path, &name.span, error);
            }
            if let Some(other) = seen.insert(key(&name.name), name.name.clone()) {
                let message = format!(
                    "{item} '{}' is there twice, first as '{other}': names are the same in any case",
                    name.name
                );
                self.note(&path, &name.span, message);
                continue;
            }
            self.mark(&path, &name.span);
            let example = match section {
                Section::Rule => "write [rule.NAME] and its keys below it",
                Section::HealthCheck => "write [healthcheck.NAME] and test = \"tcp\" below it",
                Section::Vrrp => "write [vrrp.NAME] and interface = \"eth0\" below it",
                _ => "write [group.NAME] and servers = [\"192.0.2.10:80\"] below it",
            };
            let Some(entries) = self.table(&path, node, example) else {
                match section {
                    Section::Vrrp => self.broken_vrrp.insert(key(&name.name)),
                    _ => self.broken.insert(key(&name.name)),
                };
                continue;
            };
            if section == Section::Rule {
                let rule = self.rule(&name.name, &path, entries);
                if self.mistakes.len() > before {
                    self.broken.insert(key(&name.name));
                }
                self.document.rules.push(rule);
            } else if section == Section::HealthCheck {
                let check = self.check(&name.name, &path, entries);
                if self.mistakes.len() > before {
                    self.broken.insert(key(&check.name));
                }
                self.document.checks.push(check);
            } else if section == Section::Vrrp {
                let instance = self.vrrp(&name.name, &path, entries);
                if self.mistakes.len() > before {
                    self.broken_vrrp.insert(key(&instance.name));
                }
                self.document.vrrp.push(instance);
            } else {
                let mut group = GroupEntry {
                    name: name.name,
                    ..GroupEntry::default()
                };
                for (meaning, usual, node) in self.known(entries, GROUP_KEYS, &path) {
                    let path = format!("{path}.{usual}");
                    match meaning {
                        GroupKey::Servers => group.servers = self.servers(&path, node),
                        GroupKey::Source => group.source = self.source(&path, node),
                    }
                }
                self.document.groups.push(group);
            }
        }
    }

    /// The entries of a table.
    pub(super) fn table(
        &mut self,
        path: &str,
        node: Node,
        example: &str,
    ) -> Option<Vec<(Key, Node)>> {
        match node.kind {
            Kind::Table(entries) => Some(entries),
            _ => {
                let what = node.words();
                self.note(path, &node.span, format!("{path} is {what}: {example}"));
                None
            }
        }
    }

    /// The entries of a table by the meaning of their keys, each with the key's usual name. Others are mistakes.
    pub(super) fn known<T: Copy + PartialEq>(
        &mut self,
        entries: Vec<(Key, Node)>,
        keys: &[Word<T>],
        path: &str,
    ) -> Vec<(T, &'static str, Node)> {
        let mut found: Vec<(T, &'static str, Node)> = Vec::with_capacity(entries.len());
        let mut spelled: Vec<String> = Vec::new();
        for (name, node) in entries {
            let full = match path {
                "" => name.name.clone(),
                path => format!("{path}.{}", name.name),
            };
            let Some(meaning) = words::find(keys, &name.name) else {
                let names: Vec<&str> = keys.iter().map(|(_, name, _)| *name).collect();
                let all = keys.iter().flat_map(|(_, name, aliases)| {
                    std::iter::once(*name).chain(aliases.iter().copied())
                });
                let hint = words::nearest(&name.name, all)
                    .map_or(String::new(), |word| format!("; did you mean '{word}'?"));
                let message = format!(
                    "key '{}' is not known: use {}{hint}",
                    name.name.escape_debug(),
                    words::one_of(&names)
                );
                self.note(&full, &name.span, message);
                continue;
            };
            let usual = words::name(keys, meaning);
            if let Some(at) = found.iter().position(|(other, ..)| *other == meaning) {
                let message = format!(
                    "{usual} is given twice, as '{}' and as '{}': give it once",
                    spelled[at], name.name
                );
                self.note(&full, &name.span, message);
                continue;
            }
            let usual_path = match path {
                "" => usual.to_string(),
                path => format!("{path}.{usual}"),
            };
            self.mark(&usual_path, &node.span.clone().or(name.span));
            spelled.push(name.name);
            found.push((meaning, usual, node));
        }
        found
    }

    fn rule(&mut self, name: &str, path: &str, entries: Vec<(Key, Node)>) -> RuleEntry {
        let mut rule = RuleEntry {
            name: name.to_string(),
            ..RuleEntry::default()
        };
        let mut place = Place::default();
        let mut tunnel = TunnelWords::default();
        for (meaning, usual, node) in self.known(entries, RULE_KEYS, path) {
            let path = &format!("{path}.{usual}");
            match meaning {
                RuleKey::Vip => place.vips = Some(node),
                RuleKey::Port => place.ports = Some(node),
                RuleKey::Protocol => place.protocols = Some(node),
                RuleKey::Vips => place.list = Some(node),
                RuleKey::Tunnel => {
                    tunnel.span.clone_from(&node.span);
                    tunnel.kind = self.text(path, node, "ipip, gre or gue");
                }
                RuleKey::GuePort => {
                    tunnel.port = self.number(path, usual, node, 0..=u32::MAX, "a UDP port");
                }
                RuleKey::TunnelChecksum => {
                    tunnel.checksum = self.text(path, node, "none, full or remote");
                }
                RuleKey::Enabled => rule.enabled = self.boolean(path, usual, node),
                RuleKey::OnePacket => rule.one_packet = self.boolean(path, usual, node),
                RuleKey::ManageAddresses => {
                    rule.manage_addresses = self.boolean(path, usual, node);
                }
                RuleKey::Algorithm => rule.algorithm = self.word(path, node, Algorithm::parse),
                RuleKey::Topology => rule.topology = self.word(path, node, Topology::parse),
                RuleKey::Orphans => rule.orphans = self.word(path, node, Orphans::parse),
                RuleKey::Sync => rule.sync = self.word(path, node, Synchronise::parse),
                RuleKey::Clients => rule.clients = self.clients(path, node),
                RuleKey::Flags => {
                    let words = self.texts(path, usual, node, "flags such as \"mh-port\"");
                    rule.flags = words.map(|words| words.into_iter().map(|(w, _)| w).collect());
                }
                RuleKey::ProxySrc => {
                    let words = self.texts(path, usual, node, "addresses such as \"192.0.2.9\"");
                    rule.proxy_src = words.map(|words| {
                        let mut all = Vec::new();
                        for (word, span) in words {
                            match address::parse_range(Purpose::ProxySrc, &word) {
                                Ok(found) => all.extend(found),
                                Err(error) => self.note_error(path, &span, error),
                            }
                        }
                        all
                    });
                }
                RuleKey::Group => {
                    rule.group = self.text(path, node, "the name of a server group");
                }
                RuleKey::HealthCheck => {
                    rule.check = self.text(path, node, "the name of a health check, or none");
                }
                RuleKey::HealthCheckPort => {
                    let span = node.span.clone();
                    let text = match node.kind {
                        Kind::Number(number) => Some(number.to_string()),
                        _ => self.text(path, node, "a port, or any"),
                    };
                    let port = text.map(|text| CheckPort::parse(usual, &text));
                    match port.transpose() {
                        Ok(port) => rule.check_port = port,
                        Err(error) => self.note_error(path, &span, error),
                    }
                }
                RuleKey::Mask => rule.mask = self.mask(path, usual, node),
                RuleKey::PersistTimeout => rule.persist_timeout = self.seconds(path, usual, node),
                RuleKey::ConnDrain => rule.conn_drain = self.seconds(path, usual, node),
                RuleKey::NatTimeout => rule.nat_timeout = self.seconds(path, usual, node),
                RuleKey::SlowStart => rule.slow_start = self.seconds(path, usual, node),
                RuleKey::MaxNewFlows => {
                    let allowed = "flows a second; 0 is no limit";
                    rule.max_new_flows = self.number(path, usual, node, 0..=u32::MAX, allowed);
                }
                RuleKey::Quorum => {
                    let allowed = "weight of servers that is enough";
                    rule.quorum =
                        self.number(path, usual, node, 1..=crate::rule::MAX_QUORUM, allowed);
                }
                RuleKey::Hysteresis => {
                    let allowed = "weight; less than quorum";
                    let most = crate::rule::MAX_QUORUM - 1;
                    rule.hysteresis = self.number(path, usual, node, 0..=most, allowed);
                }
                RuleKey::PanicMode => {
                    rule.panic_mode = self.word(path, node, crate::rule::PanicMode::parse);
                }
                RuleKey::PanicThreshold => {
                    let allowed = "percentage of living servers";
                    let percent = self.number(path, usual, node, 1..=100, allowed);
                    rule.panic_threshold = percent.and_then(|n| u8::try_from(n).ok());
                }
                RuleKey::Notify => rule.notify = self.notify(path, node),
                RuleKey::Timeouts => rule.timeouts = self.timeouts(path, node),
            }
        }
        rule.vips = self.vips(path, place);
        if tunnel.kind.is_some() || tunnel.port.is_some() || tunnel.checksum.is_some() {
            let read = Tunnel::parse(
                tunnel.kind.as_deref(),
                tunnel.port,
                tunnel.checksum.as_deref(),
            );
            match read {
                Ok(tunnel) => rule.tunnel = Some(tunnel),
                Err(error) => self.note_error(&format!("{path}.tunnel"), &tunnel.span, error),
            }
        }
        rule
    }

    fn clients(&mut self, path: &str, node: Node) -> Option<Vec<Prefix>> {
        let words = self.texts(path, "clients", node, "networks such as \"10.0.0.0/8\"")?;
        if let [(all, _)] = &words[..]
            && ["any", "all"].iter().any(|w| w.eq_ignore_ascii_case(all))
        {
            return Some(Vec::new());
        }
        let mut clients = Vec::new();
        for (word, span) in words {
            match Prefix::parse(&word) {
                Ok(client) => clients.push(client),
                Err(error) => self.note_error(path, &span, error),
            }
        }
        Some(clients)
    }

    fn mask(&mut self, path: &str, usual: &str, node: Node) -> Option<Mask> {
        let bits = |number: i64| u8::try_from(number).ok().filter(|&bits| bits <= 128);
        let read = match &node.kind {
            Kind::Bool(true) => Some(Mask::All),
            Kind::Bool(false) => Some(Mask::None),
            Kind::Number(number) => bits(*number).map(Mask::Bits),
            Kind::Text(text) => match text.to_ascii_lowercase().as_str() {
                "none" | "no" | "off" => Some(Mask::None),
                "" => Some(Mask::All),
                text => {
                    let digits = text.strip_prefix('/').unwrap_or(text);
                    digits.parse().ok().and_then(bits).map(Mask::Bits)
                }
            },
            _ => None,
        };
        if read.is_none() {
            let message = format!(
                "{usual} {} is not a prefix length: use a number such as 24, true for every bit, or false for no \
                 persistence",
                node.words()
            );
            self.note(path, &node.span, message);
        }
        read
    }

    fn notify(&mut self, path: &str, node: Node) -> Option<Notify> {
        let example = "write notify = { down = \"/usr/local/bin/tell down\" }";
        let entries = self.table(path, node, example)?;
        let mut notify = Notify::new();
        for (name, node) in entries {
            let path = format!("{path}.{}", name.name);
            match NotifyEvent::parse(&name.name) {
                Ok(event) => {
                    let span = node.span.clone();
                    let text = self.text(&path, node, "a path and arguments");
                    match text
                        .filter(|text| !is_none(text))
                        .map(|t| t.parse())
                        .transpose()
                    {
                        Ok(command) => notify.extend(command.map(|command| (event, command))),
                        Err(error) => self.note_error(&path, &span, error),
                    }
                }
                Err(error) => self.note_error(&path, &name.span, error),
            }
        }
        Some(notify)
    }

    fn timeouts(&mut self, path: &str, node: Node) -> Option<Timeouts> {
        let entries = self.table(path, node, "write timeouts = { fin-wait = 20 }")?;
        let mut timeouts = Timeouts::new();
        for (name, node) in entries {
            let path = format!("{path}.{}", name.name);
            match Timeout::parse(&name.name) {
                Ok(state) => {
                    if let Some(seconds) = self.seconds(&path, state.name(), node)
                        && seconds > 0
                    {
                        timeouts.insert(state, seconds);
                    }
                }
                Err(error) => self.note_error(&path, &name.span, error),
            }
        }
        Some(timeouts)
    }

    pub(super) fn boolean(&mut self, path: &str, usual: &str, node: Node) -> Option<bool> {
        if let Kind::Bool(value) = node.kind {
            return Some(value);
        }
        let message = format!("{usual} {} is not known: use true or false", node.words());
        self.note(path, &node.span, message);
        None
    }

    pub(super) fn number(
        &mut self,
        path: &str,
        usual: &str,
        node: Node,
        range: RangeInclusive<u32>,
        what: &str,
    ) -> Option<u32> {
        if let Kind::Number(number) = node.kind
            && let Ok(number) = u32::try_from(number)
            && range.contains(&number)
        {
            return Some(number);
        }
        let message = format!(
            "{usual} {} is not allowed: use a whole number from {} to {}: {what}",
            node.words(),
            range.start(),
            range.end()
        );
        self.note(path, &node.span, message);
        None
    }

    fn seconds(&mut self, path: &str, usual: &str, node: Node) -> Option<u32> {
        let read = match &node.kind {
            Kind::Number(number) => u32::try_from(*number).ok(),
            Kind::Text(text) => seconds(text),
            _ => None,
        };
        if read.is_none() {
            let message = format!(
                "{usual} {} is not a time: use a number of seconds, or text such as \"90s\", \"5m\" or \"1h\"",
                node.words()
            );
            self.note(path, &node.span, message);
        }
        read
    }

    pub(super) fn text(&mut self, path: &str, node: Node, what: &str) -> Option<String> {
        match node.kind {
            Kind::Text(text) => Some(text),
            _ => {
                let name = path.rsplit('.').next().unwrap_or(path);
                let message = format!("{name} is {}: use text: {what}", node.words());
                self.note(path, &node.span, message);
                None
            }
        }
    }

    /// One text, or a list of them.
    fn texts(
        &mut self,
        path: &str,
        usual: &str,
        node: Node,
        what: &str,
    ) -> Option<Vec<(String, Span)>> {
        let items = match node.kind {
            Kind::Text(text) => return Some(vec![(text, node.span)]),
            Kind::List(items) => items,
            _ => {
                let message = format!("{usual} is {}: use a list of {what}", node.words());
                self.note(path, &node.span, message);
                return None;
            }
        };
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            match item.kind {
                Kind::Text(text) => all.push((text, item.span)),
                _ => {
                    let message = format!("{usual} has {}: use a list of {what}", item.words());
                    self.note(path, &item.span, message);
                }
            }
        }
        Some(all)
    }

    fn word<T>(
        &mut self,
        path: &str,
        node: Node,
        parse: impl Fn(&str) -> Result<T, ModelError>,
    ) -> Option<T> {
        let span = node.span.clone();
        let text = self.text(path, node, "one word")?;
        parse(&text)
            .map_err(|error| self.note_error(path, &span, error))
            .ok()
    }
}

#[derive(Default)]
struct TunnelWords {
    span: Span,
    kind: Option<String>,
    port: Option<u32>,
    checksum: Option<String>,
}

/// Reads `90`, `90s`, `5m` or `1h`.
pub fn seconds(text: &str) -> Option<u32> {
    let text = text.trim();
    let (digits, factor) = match text.char_indices().last()? {
        (at, 's') => (&text[..at], 1),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3600),
        _ => (text, 1),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse::<u32>().ok()?.checked_mul(factor))?
}

/// What an error is about.
pub(super) fn field(error: &ModelError) -> &'static str {
    match error {
        ModelError::UnknownWord { field, .. }
        | ModelError::Invalid { field, .. }
        | ModelError::Missing { field, .. } => field,
        _ => "",
    }
}

/// The error under the name that its key has in documents.
pub(super) fn renamed(mut error: ModelError) -> ModelError {
    if let ModelError::UnknownWord { field, .. }
    | ModelError::Invalid { field, .. }
    | ModelError::Missing { field, .. } = &mut error
        && let Some(meaning) = words::find(RULE_KEYS, field)
    {
        *field = words::name(RULE_KEYS, meaning);
    }
    error
}

/// What is kept as it was written.
pub(super) fn value(node: &Node) -> Value {
    match &node.kind {
        Kind::Text(text) | Kind::Other(text) => Value::Text(text.clone()),
        Kind::Number(number) => Value::Number(*number),
        Kind::Bool(value) => Value::Bool(*value),
        Kind::List(items) => Value::List(items.iter().map(value).collect()),
        Kind::Table(entries) => Value::Table(
            entries
                .iter()
                .map(|(key, node)| (key.name.clone(), value(node)))
                .collect(),
        ),
    }
}
