//! From a configuration to a document, and from a document to its canonical text: the same document gives the same text.

use std::fmt::Write as _;

use super::Document;
use super::entry::{CheckEntry, GroupEntry, Mask, RuleEntry, ServerEntry, VrrpEntry};
use super::read_check::check_key;
use super::read_vrrp::vrrp_fields;
use super::value::{self, Value};
use crate::healthcheck::{CheckPort, FIELDS};
use crate::model::{Configuration, key};
use crate::rule::{Protocol, Tunnel};
use crate::source::SourceSettings;
use crate::tunnel::TunnelChecksum;
use crate::vip::Vip;

/// See [`Document::of`].
pub(super) fn document(configuration: &Configuration) -> Document {
    Document {
        groups: configuration
            .groups
            .values()
            .map(|group| {
                // An id is told where it is not the one that the server would get in a new group.
                let mut next = 0;
                // So are places in the group.
                let mut places = group.places_told().into_iter();
                let servers = group.servers.iter().map(|server| {
                    let index = server_index(&server.id);
                    let id = (index != Some(next)).then(|| server.id.clone());
                    next = index.map_or(next, |index| index.saturating_add(1));
                    ServerEntry {
                        id,
                        group_place: places.next().flatten(),
                        ..ServerEntry::of(server)
                    }
                });
                GroupEntry {
                    name: group.name.clone(),
                    servers: servers.collect(),
                    source: SourceSettings::from(group.source.as_deref()),
                }
            })
            .collect(),
        checks: configuration
            .checks
            .values()
            .map(|check| CheckEntry::of(check))
            .collect(),
        rules: configuration
            .rules
            .values()
            .map(|rule| RuleEntry::of(rule))
            .collect(),
        vrrp: configuration
            .vrrp
            .values()
            .map(|instance| VrrpEntry::of(instance))
            .collect(),
        ..Document::default()
    }
}

/// The `<n>` of `_<group>.<n>`.
pub(super) fn server_index(id: &str) -> Option<u32> {
    id.rsplit_once('.')?.1.parse().ok()
}

/// What is said about a rule, under the usual keys in their order.
pub(super) fn rule_fields(rule: &RuleEntry) -> Vec<(&'static str, Value)> {
    let mut fields: Vec<(&'static str, Value)> = Vec::new();
    let mut field = |key: &'static str, value: Option<Value>| {
        fields.extend(value.map(|value| (key, value)));
    };
    let number = |n: Option<u32>| n.map(Value::from);
    let flag = |b: Option<bool>| b.map(Value::from);
    field("enabled", flag(rule.enabled));
    for (key, value) in rule.vips.as_deref().map(vips).unwrap_or_default() {
        field(key, Some(value));
    }
    field("clients", rule.clients.as_deref().map(texts));
    field("algorithm", rule.algorithm.map(|a| a.name().into()));
    field("flags", rule.flags.as_deref().map(texts));
    field("topology", rule.topology.map(|t| t.name().into()));
    let (kind, port, sum) = match rule.tunnel {
        None => (None, None, TunnelChecksum::None),
        Some(Tunnel::Ipip) => (Some("ipip"), None, TunnelChecksum::None),
        Some(Tunnel::Gre { checksum: false }) => (Some("gre"), None, TunnelChecksum::None),
        Some(Tunnel::Gre { checksum: true }) => (Some("gre"), None, TunnelChecksum::Full),
        Some(Tunnel::Gue { port, checksum }) => (Some("gue"), Some(port), checksum),
    };
    field("tunnel", kind.map(Value::from));
    field("gue-port", number(port.map(u32::from)));
    let sum = match sum {
        TunnelChecksum::None => None,
        TunnelChecksum::Full => Some("full"),
        TunnelChecksum::Remote => Some("remote"),
    };
    field("tunnel-checksum", sum.map(Value::from));
    field("proxy-src", rule.proxy_src.as_deref().map(texts));
    field("group", rule.group.clone().map(Value::from));
    field("healthcheck", rule.check.clone().map(Value::from));
    let port = rule.check_port.map(|port| match port {
        CheckPort::Number(port) => Value::Number(port.into()),
        CheckPort::Any => "any".into(),
    });
    field("healthcheck-port", port);
    let mask = rule.mask.map(|mask| match mask {
        Mask::None => Value::Bool(false),
        Mask::Bits(bits) => Value::Number(bits.into()),
        Mask::All => Value::Bool(true),
    });
    field("pmask", mask);
    field("persist-timeout", number(rule.persist_timeout));
    field("conn-drain", number(rule.conn_drain));
    field("nat-timeout", number(rule.nat_timeout));
    let timeouts = rule.timeouts.as_ref().map(|timeouts| {
        let all = timeouts.iter();
        Value::Table(
            all.map(|(state, &seconds)| (state.name().to_string(), seconds.into()))
                .collect(),
        )
    });
    field("timeouts", timeouts);
    field("one-packet", flag(rule.one_packet));
    field("orphans", rule.orphans.map(|o| o.name().into()));
    field("sync", rule.sync.map(|s| s.name().into()));
    field("slow-start", number(rule.slow_start));
    field("max-new-flows", number(rule.max_new_flows));
    field("quorum", number(rule.quorum));
    field("hysteresis", number(rule.hysteresis));
    field("panic-mode", rule.panic_mode.map(|m| m.name().into()));
    let percent = rule.panic_threshold.map(u32::from);
    field("panic-threshold", number(percent));
    let notify = rule.notify.as_ref().map(|notify| {
        let all = notify.iter();
        let all =
            all.map(|(event, command)| (event.name().to_string(), command.to_string().into()));
        Value::Table(all.collect())
    });
    field("notify", notify);
    field("manage-addresses", flag(rule.manage_addresses));
    fields
}

fn texts<T: ToString>(items: &[T]) -> Value {
    Value::List(items.iter().map(|i| Value::Text(i.to_string())).collect())
}

/// One value, or a list of them.
fn some_of(mut items: Vec<Value>) -> Value {
    match items.len() {
        1 => items.remove(0),
        _ => Value::List(items),
    }
}

/// As `vip`, `port` and `protocol` if they are all of them combined, otherwise as a list.
fn vips(vips: &[Vip]) -> Vec<(&'static str, Value)> {
    fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
        let mut all = Vec::new();
        for item in items {
            if !all.contains(&item) {
                all.push(item);
            }
        }
        all
    }
    let port = |vip: &Vip| match vip.ports.first == vip.ports.last {
        true => Value::Number(vip.ports.first.into()),
        false => Value::Text(vip.ports.to_string()),
    };
    let addresses = distinct(vips.iter().map(|vip| vip.address));
    let protocols = distinct(vips.iter().map(|vip| vip.protocol));
    let ports = distinct(vips.iter().map(|vip| vip.ports));
    let mut all = addresses.iter().flat_map(|&address| {
        protocols.iter().flat_map({
            let ports = &ports;
            move |&protocol| {
                ports.iter().map(move |&ports| Vip {
                    address,
                    protocol,
                    ports,
                })
            }
        })
    });
    let with_ports = vips.iter().all(|vip| vip.protocol.has_ports());
    let without = vips.iter().all(|vip| !vip.protocol.has_ports());
    let combined = vips.len() == addresses.len() * protocols.len() * ports.len()
        && vips.iter().all(|vip| all.next() == Some(*vip))
        && (with_ports || without);
    let protocol = |protocol: &Protocol| Value::from(protocol.name());
    if combined && !vips.is_empty() {
        let mut fields = vec![(
            "vip",
            some_of(addresses.iter().map(|a| a.to_string().into()).collect()),
        )];
        if with_ports {
            let ports = distinct(vips.iter().map(port));
            fields.push(("port", some_of(ports)));
        }
        if protocols != [Protocol::Tcp] {
            let words = protocols.iter().map(protocol).collect();
            fields.push(("protocol", some_of(words)));
        }
        return fields;
    }
    let tables = vips.iter().map(|vip| {
        let mut table = vec![("vip".to_string(), vip.address.to_string().into())];
        if vip.protocol.has_ports() {
            table.push(("port".to_string(), port(vip)));
        }
        if vip.protocol != Protocol::Tcp {
            table.push(("protocol".to_string(), protocol(&vip.protocol)));
        }
        Value::Table(table)
    });
    vec![("vips", Value::List(tables.collect()))]
}

/// What is said about a health check, under the usual keys in their order.
pub(super) fn check_fields(check: &CheckEntry) -> Vec<(&'static str, Value)> {
    // Its types are text, numbers and lists: serialising them cannot fail.
    let all = serde_json::to_value(&check.settings).unwrap_or_default();
    FIELDS
        .iter()
        .filter_map(|(field, ..)| {
            let key = check_key(*field);
            Some((key, Value::from_json(all.get(key)?)))
        })
        .collect()
}

/// What is said about a server, under the usual keys in their order.
pub(super) fn server_fields(server: &ServerEntry) -> Vec<(&'static str, Value)> {
    let mut fields: Vec<(&'static str, Value)> = Vec::new();
    let mut field = |key: &'static str, value: Option<Value>| {
        fields.extend(value.map(|value| (key, value)));
    };
    let resolved = server.address.is_some();
    field("address", Some(server.place().into()));
    let host = server.host.clone().filter(|_| resolved);
    field("host", host.map(Value::from));
    field("weight", server.weight.map(|w| u32::from(w).into()));
    field("max-conn", server.max_connections.map(Value::from));
    field("min-conn", server.min_connections.map(Value::from));
    field(
        "tier",
        server.tier.map(|tier| match tier {
            crate::server::SORRY => Value::from(crate::server::tier_text(tier)),
            tier => u32::from(tier).into(),
        }),
    );
    field("enabled", server.enabled.map(Value::from));
    field("id", server.id.clone().map(Value::from));
    let place = server.group_place.map(|place| place.to_string());
    field("place", place.map(Value::from));
    field("found", server.found.map(Value::from));
    fields
}

/// What is said about the source of a group, under the usual keys in their order.
pub(super) fn source_fields(source: &SourceSettings) -> Vec<(&'static str, Value)> {
    let said = source.pairs().iter().map(|(field, text)| {
        let number = text.parse::<i64>().ok().map(Value::Number);
        let value = match field.is_list() {
            true => Value::List(text.split(',').map(Value::from).collect()),
            false => number.unwrap_or_else(|| Value::Text(text.clone())),
        };
        (field.name(), value)
    });
    said.collect()
}

/// A server as text if it has nothing but its place, otherwise as a table.
fn server(entry: &ServerEntry) -> Value {
    match &server_fields(entry)[..] {
        [(_, place)] => place.clone(),
        fields => table(fields.to_vec()),
    }
}

fn table(fields: Vec<(&'static str, Value)>) -> Value {
    let fields = fields.into_iter();
    Value::Table(fields.map(|(k, v)| (k.to_string(), v)).collect())
}

/// The items of a section in the order of their names.
fn sorted<T>(items: &[T], name: impl Fn(&T) -> &str) -> Vec<&T> {
    let mut sorted: Vec<&T> = items.iter().collect();
    sorted.sort_by_key(|item| key(name(item)));
    sorted
}

/// The whole document as one value.
pub(super) fn value(document: &Document) -> Value {
    let groups = sorted(&document.groups, |g| &g.name).into_iter().map(|g| {
        let servers = g.servers.iter().map(server).collect();
        let mut said = vec![("servers", Value::List(servers))];
        if !g.source.is_empty() {
            said.push(("source", table(source_fields(&g.source))));
        }
        (g.name.clone(), table(said))
    });
    let checks = sorted(&document.checks, |c| &c.name)
        .into_iter()
        .map(|c| (c.name.clone(), table(check_fields(c))));
    let rules = sorted(&document.rules, |r| &r.name)
        .into_iter()
        .map(|r| (r.name.clone(), table(rule_fields(r))));
    let vrrp = sorted(&document.vrrp, |v| &v.name)
        .into_iter()
        .map(|v| (v.name.clone(), table(vrrp_fields(v))));
    let sections = [
        ("group", groups.collect()),
        ("healthcheck", checks.collect()),
        ("rule", rules.collect()),
        ("vrrp", vrrp.collect()),
        ("kept", document.kept.clone()),
    ];
    let sections = sections.into_iter().filter(|(_, items)| !items.is_empty());
    table(
        sections
            .map(|(key, items)| (key, Value::Table(items)))
            .collect(),
    )
}

/// See [`Document::to_toml`].
pub(super) fn to_toml(document: &Document) -> String {
    let mut blocks = Vec::new();
    for group in sorted(&document.groups, |g| &g.name) {
        let mut block = format!("[group.{}]\n", value::key(&group.name));
        if group.servers.is_empty() {
            block.push_str("servers = []\n");
        } else {
            block.push_str("servers = [\n");
            for entry in &group.servers {
                // Writing to a String cannot fail.
                let _ = writeln!(block, "    {},", server(entry));
            }
            block.push_str("]\n");
        }
        if !group.source.is_empty() {
            let _ = writeln!(block, "source = {}", table(source_fields(&group.source)));
        }
        blocks.push(block);
    }
    for check in sorted(&document.checks, |c| &c.name) {
        let mut block = format!("[healthcheck.{}]\n", value::key(&check.name));
        for (key, value) in check_fields(check) {
            let _ = writeln!(block, "{key} = {value}");
        }
        blocks.push(block);
    }
    for rule in sorted(&document.rules, |r| &r.name) {
        let mut block = format!("[rule.{}]\n", value::key(&rule.name));
        for (key, value) in rule_fields(rule) {
            let _ = writeln!(block, "{key} = {value}");
        }
        blocks.push(block);
    }
    for instance in sorted(&document.vrrp, |v| &v.name) {
        let mut block = format!("[vrrp.{}]\n", value::key(&instance.name));
        for (key, value) in vrrp_fields(instance) {
            let _ = writeln!(block, "{key} = {value}");
        }
        blocks.push(block);
    }
    let mut kept: Vec<_> = document.kept.iter().collect();
    kept.sort_by_key(|(name, _)| key(name));
    for (name, kept) in kept {
        let mut block = String::new();
        match kept {
            Value::Table(entries) => {
                let _ = writeln!(block, "[kept.{}]", value::key(name));
                for (key, value) in entries {
                    let _ = writeln!(block, "{} = {value}", value::key(key));
                }
            }
            other => {
                let _ = writeln!(block, "kept.{} = {other}", value::key(name));
            }
        }
        blocks.push(block);
    }
    blocks.join("\n")
}
