//! Introspection data as zbus writes it: one element a line, comments before what they explain.

use zbus::fdo::IntrospectableProxy;

use super::common::Bus;
use libilb::dbus::BUS_NAME;

/// Head of an introspection file.
const HEAD: &str = r#"<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<!-- Written by `make dbus-docs` from what ilb-svcmgr says of itself. -->
<node>
"#;

/// When a property is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emits {
    /// With every change, and its value.
    True,
    /// With every change, without its value.
    Invalidates,
    /// It never changes.
    Const,
    /// Never, though it changes.
    False,
}

/// Name and type.
pub type Argument = (String, String);

/// Part of an interface.
#[derive(Debug, Clone)]
pub enum Member {
    Method {
        name: String,
        doc: String,
        takes: Vec<Argument>,
        gives: Vec<Argument>,
    },
    Property {
        name: String,
        doc: String,
        kind: String,
        access: String,
        emits: Emits,
    },
    Signal {
        name: String,
        doc: String,
        has: Vec<Argument>,
    },
}

/// What an object says of one of its interfaces.
#[derive(Debug, Clone)]
pub struct Interface {
    pub name: String,
    pub members: Vec<Member>,
    lines: Vec<String>,
}

impl Member {
    pub fn name(&self) -> &str {
        match self {
            Member::Method { name, .. }
            | Member::Property { name, .. }
            | Member::Signal { name, .. } => name,
        }
    }

    pub fn doc(&self) -> &str {
        match self {
            Member::Method { doc, .. }
            | Member::Property { doc, .. }
            | Member::Signal { doc, .. } => doc,
        }
    }

    /// What a method takes.
    pub fn signature(&self) -> String {
        match self {
            Member::Method { takes, .. } => takes.iter().map(|(_, kind)| kind.as_str()).collect(),
            _ => String::new(),
        }
    }
}

impl Interface {
    /// The whole file that `/usr/share/dbus-1/interfaces` has of it.
    pub fn file(&self) -> String {
        format!("{HEAD}{}\n</node>\n", self.lines.join("\n"))
    }

    /// The tables for people; `who` says who may call a method.
    pub fn tables(&self, who: impl Fn(&str) -> &'static str) -> String {
        let mut methods = String::new();
        let mut properties = String::new();
        let mut signals = String::new();
        for member in &self.members {
            let doc = member.doc().replace('|', "\\|");
            match member {
                Member::Method {
                    name, takes, gives, ..
                } => methods.push_str(&format!(
                    "| `{name}` | {} | {} | {} | {doc} |\n",
                    list(takes),
                    list(gives),
                    who(name)
                )),
                Member::Property {
                    name, kind, emits, ..
                } => {
                    let told = match emits {
                        Emits::True => "with each change",
                        Emits::Invalidates => "that it changed",
                        Emits::Const => "never changes",
                        Emits::False => "no",
                    };
                    properties.push_str(&format!("| `{name}` | `{kind}` | {told} | {doc} |\n"));
                }
                Member::Signal { name, has, .. } => {
                    signals.push_str(&format!("| `{name}` | {} | {doc} |\n", list(has)));
                }
            }
        }
        let tables = [
            (
                "| method | takes | gives | who | |\n|---|---|---|---|---|\n",
                methods,
            ),
            (
                "| property | type | told | |\n|---|---|---|---|\n",
                properties,
            ),
            ("| signal | has | |\n|---|---|---|\n", signals),
        ];
        tables
            .into_iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(head, rows)| format!("\n{head}{rows}"))
            .chain(["\n".to_owned()])
            .collect()
    }
}

fn list(arguments: &[Argument]) -> String {
    let words: Vec<String> = arguments
        .iter()
        .map(|(name, kind)| format!("`{kind}` {name}"))
        .collect();
    words.join(", ")
}

/// What the object at this path says of itself.
pub async fn introspect(bus: &Bus, path: &str) -> String {
    let connection = bus.connection().await;
    let proxy = IntrospectableProxy::builder(&connection)
        .destination(BUS_NAME)
        .path(path.to_owned())
        .build()
        .await
        .unwrap();
    proxy.introspect().await.unwrap()
}

/// Names of the objects one step below.
pub fn children(xml: &str) -> impl Iterator<Item = &str> {
    xml.lines()
        .filter(|line| line.starts_with("  <node name="))
        .map(|line| attribute(line, "name"))
}

/// The interfaces of an object.
pub fn interfaces(xml: &str) -> Vec<Interface> {
    let mut all: Vec<Interface> = Vec::new();
    let mut inside = false;
    let mut comment: Option<Vec<&str>> = None;
    let mut doc = String::new();
    for line in xml.lines() {
        let text = line.trim();
        if text.starts_with("<interface ") {
            inside = true;
            all.push(Interface {
                name: attribute(text, "name").to_owned(),
                members: Vec::new(),
                lines: Vec::new(),
            });
        }
        let Some(interface) = all.last_mut().filter(|_| inside) else {
            continue;
        };
        interface.lines.push(line.trim_end().to_owned());
        if let Some(lines) = &mut comment {
            if text == "-->" {
                doc = lines.join(" ").trim().to_owned();
                comment = None;
            } else {
                lines.push(text);
            }
            continue;
        }
        let word = text.split([' ', '>']).next().unwrap_or_default();
        match word {
            "<!--" => comment = Some(Vec::new()),
            "</interface" => inside = false,
            "<method" => interface.members.push(Member::Method {
                name: attribute(text, "name").to_owned(),
                doc: std::mem::take(&mut doc),
                takes: Vec::new(),
                gives: Vec::new(),
            }),
            "<signal" => interface.members.push(Member::Signal {
                name: attribute(text, "name").to_owned(),
                doc: std::mem::take(&mut doc),
                has: Vec::new(),
            }),
            "<property" => interface.members.push(Member::Property {
                name: attribute(text, "name").to_owned(),
                doc: std::mem::take(&mut doc),
                kind: attribute(text, "type").to_owned(),
                access: attribute(text, "access").to_owned(),
                emits: Emits::True,
            }),
            "<arg" => {
                let argument = (
                    attribute(text, "name").to_owned(),
                    attribute(text, "type").to_owned(),
                );
                match interface.members.last_mut() {
                    Some(Member::Method { takes, gives, .. }) => {
                        match attribute(text, "direction") {
                            "out" => gives.push(argument),
                            _ => takes.push(argument),
                        }
                    }
                    Some(Member::Signal { has, .. }) => has.push(argument),
                    other => panic!("an argument of {other:?}"),
                }
            }
            "<annotation" if text.contains("EmitsChangedSignal") => {
                if let Some(Member::Property { emits, .. }) = interface.members.last_mut() {
                    *emits = match attribute(text, "value") {
                        "const" => Emits::Const,
                        "false" => Emits::False,
                        "invalidates" => Emits::Invalidates,
                        _ => Emits::True,
                    };
                }
            }
            _ => {}
        }
    }
    all
}

/// The value of an attribute, or nothing.
fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
    element
        .split_once(&format!(" {name}=\""))
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("", |(value, _)| value)
}
