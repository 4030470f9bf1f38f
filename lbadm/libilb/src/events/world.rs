//! Every object as it was heard of last. Pure.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use zbus::Variant;

use super::{Difference, Event, Kind, Properties, What};
use crate::dbus;

/// What a manager shows of its objects, by path and interface.
pub type Objects<V> = HashMap<String, HashMap<String, HashMap<String, V>>>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Object {
    kind: Kind,
    name: String,
    properties: Properties,
}

/// See the module.
#[derive(Debug, Default)]
pub struct World {
    objects: BTreeMap<String, Object>,
}

impl World {
    /// Takes over everything that there is, and says what is different from what was known: the order is that of paths.
    pub fn replace<'v, V: AsRef<Variant<'v>>>(&mut self, objects: &Objects<V>) -> Vec<Event> {
        let mut events = Vec::new();
        let gone: Vec<String> = self
            .objects
            .keys()
            .filter(|path| !objects.contains_key(*path))
            .cloned()
            .collect();
        for path in gone {
            events.extend(self.remove(&path));
        }
        let sorted: BTreeMap<_, _> = objects.iter().collect();
        for (path, interfaces) in sorted {
            events.extend(self.add(path, interfaces));
        }
        events
    }

    /// An object is there, with these interfaces. One that was known already may have changed.
    pub fn add<'v, V: AsRef<Variant<'v>>>(
        &mut self,
        path: &str,
        interfaces: &HashMap<String, HashMap<String, V>>,
    ) -> Option<Event> {
        let (kind, given) = interfaces
            .iter()
            .find_map(|(name, properties)| Some((Kind::of(name)?, properties)))?;
        let properties: Properties = given
            .iter()
            .map(|(name, value)| (key(name), json(value.as_ref())))
            .collect();
        if let Some(known) = self.objects.get_mut(path) {
            let changes = differences(&known.properties, &properties);
            known.properties = properties;
            return changed(known, changes);
        }
        let name = name(kind, path, &properties);
        let object = Object {
            kind,
            name: name.clone(),
            properties: properties.clone(),
        };
        self.objects.insert(path.to_string(), object);
        Some(Event {
            object: kind,
            name,
            what: What::Created { properties },
        })
    }

    /// An object is gone.
    pub fn remove(&mut self, path: &str) -> Option<Event> {
        let object = self.objects.remove(path)?;
        Some(Event {
            object: object.kind,
            name: object.name,
            what: What::Removed,
        })
    }

    /// Properties of an interface of an object have these values now. Nothing if the object is not known.
    pub fn change<'v, V: AsRef<Variant<'v>>>(
        &mut self,
        path: &str,
        interface: &str,
        properties: &HashMap<String, V>,
    ) -> Option<Event> {
        let object = self.objects.get_mut(path)?;
        if Kind::of(interface) != Some(object.kind) {
            return None;
        }
        let mut after = object.properties.clone();
        let given = properties.iter();
        after.extend(given.map(|(name, value)| (key(name), json(value.as_ref()))));
        let changes = differences(&object.properties, &after);
        object.properties = after;
        changed(object, changes)
    }
}

fn changed(object: &Object, changes: BTreeMap<String, Difference>) -> Option<Event> {
    (!changes.is_empty()).then(|| Event {
        object: object.kind,
        name: object.name.clone(),
        what: What::Changed { changes },
    })
}

fn differences(before: &Properties, after: &Properties) -> BTreeMap<String, Difference> {
    let value = |of: &Properties, name: &str| of.get(name).cloned().unwrap_or(Value::Null);
    let names = before.keys().chain(after.keys());
    names
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| {
            let (old, new) = (value(before, name), value(after, name));
            (name.clone(), Difference { old, new })
        })
        .collect()
}

/// What people call it.
fn name(kind: Kind, path: &str, properties: &Properties) -> String {
    if kind == Kind::Manager {
        return String::new();
    }
    let own = ["name", "id"].iter().find_map(|key| properties.get(*key));
    let last = path.rsplit('/').next().unwrap_or(path);
    match own.and_then(Value::as_str) {
        Some(own) => own.to_string(),
        None => dbus::unescape(last).unwrap_or_else(|| last.to_string()),
    }
}

/// `ProxySrc` as `proxy-src`.
fn key(property: &str) -> String {
    let mut out = String::with_capacity(property.len() + 2);
    for (at, c) in property.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// A D-Bus value as JSON has it. Entries of dictionaries whose keys are no text are written as text.
fn json(value: &Variant<'_>) -> Value {
    match value {
        Variant::U8(n) => (*n).into(),
        Variant::Bool(b) => (*b).into(),
        Variant::I16(n) => (*n).into(),
        Variant::U16(n) => (*n).into(),
        Variant::I32(n) => (*n).into(),
        Variant::U32(n) => (*n).into(),
        Variant::I64(n) => (*n).into(),
        Variant::U64(n) => (*n).into(),
        Variant::F64(n) => (*n).into(),
        Variant::Str(s) => s.as_str().into(),
        Variant::ObjectPath(path) => path.as_str().into(),
        Variant::Variant(inner) => json(inner),
        Variant::Array(array) => array.inner().iter().map(json).collect(),
        Variant::Structure(fields) => fields.fields().iter().map(json).collect(),
        Variant::Dict(dict) => Value::Object(
            dict.iter()
                .map(|(key, value)| match json(key) {
                    Value::String(key) => (key, json(value)),
                    key => (key.to_string(), json(value)),
                })
                .collect(),
        ),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct V(Variant<'static>);

    impl AsRef<Variant<'static>> for V {
        fn as_ref(&self) -> &Variant<'static> {
            &self.0
        }
    }

    fn rule(enabled: bool, clients: &[&str]) -> HashMap<String, HashMap<String, V>> {
        let clients: Vec<String> = clients.iter().map(ToString::to_string).collect();
        let properties = [
            ("Name", "WWW-1".into()),
            ("Enabled", enabled.into()),
            ("ConnDrain", 30_u32.into()),
            ("Clients", clients.into()),
        ];
        let properties =
            properties.map(|(name, value): (&str, Variant<'static>)| (name.to_string(), V(value)));
        let none = HashMap::new();
        [
            ("org.freedesktop.DBus.Peer".to_string(), none),
            ("org.ilb.Ilb1.Rule".to_string(), properties.into()),
        ]
        .into()
    }

    const PATH: &str = "/org/ilb/Ilb1/rule/www_2d1";

    #[test]
    fn an_object_is_created_changed_and_removed() {
        let mut world = World::default();
        let created = world.add(PATH, &rule(false, &[])).unwrap();
        assert_eq!(
            json!(created),
            json!({
                "object": "rule", "name": "WWW-1", "event": "created",
                "properties": {"name": "WWW-1", "enabled": false, "conn-drain": 30, "clients": []}
            })
        );
        assert_eq!(world.add(PATH, &rule(false, &[])), None, "known already");

        let enabled = [("Enabled".to_string(), V(true.into()))].into();
        let changed = world.change(PATH, "org.ilb.Ilb1.Rule", &enabled);
        assert_eq!(
            json!(changed.unwrap()),
            json!({
                "object": "rule", "name": "WWW-1", "event": "changed",
                "changes": {"enabled": {"old": false, "new": true}}
            })
        );
        assert_eq!(world.change(PATH, "org.ilb.Ilb1.Rule", &enabled), None);
        assert_eq!(world.change(PATH, "org.example.Other", &enabled), None);
        assert_eq!(
            world.change("/unknown", "org.ilb.Ilb1.Rule", &enabled),
            None
        );

        let removed = world.remove(PATH).unwrap();
        assert_eq!(
            (removed.name.as_str(), removed.what),
            ("WWW-1", What::Removed)
        );
        assert_eq!(world.remove(PATH), None);
    }

    #[test]
    fn what_happened_while_nobody_listened_is_found_out() {
        let mut world = World::default();
        let objects = |path: &str, rule| Objects::from([(path.to_string(), rule)]);
        world.replace(&objects(PATH, rule(false, &[])));
        let other = "/org/ilb/Ilb1/rule/zz";
        let mut now = objects(PATH, rule(true, &["10.0.0.0/8"]));
        now.extend(objects(other, rule(true, &[])));
        let events = world.replace(&now);
        let What::Changed { changes } = &events[0].what else {
            panic!("{events:?}");
        };
        let names: Vec<&str> = changes.keys().map(String::as_str).collect();
        assert_eq!(names, ["clients", "enabled"]);
        assert!(matches!(events[1].what, What::Created { .. }));
        assert!(world.replace(&now).is_empty());
        let events = world.replace(&objects(other, rule(true, &[])));
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].what, What::Removed);
    }

    #[test]
    fn names_of_properties_are_written_as_keys_are() {
        for (property, word) in [
            ("Vip", "vip"),
            ("ProxySrc", "proxy-src"),
            ("MaxNewFlows", "max-new-flows"),
            ("already-so", "already-so"),
        ] {
            assert_eq!(key(property), word);
        }
    }
}
