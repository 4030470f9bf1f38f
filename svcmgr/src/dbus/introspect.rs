//! What objects say of themselves: what they are, and the names of those one step below, no more.

use libilb::dbus::{ROOT_PATH, escape};

use super::objects::Object;
use crate::manager::ManagerHandle;
use crate::manager::view::View;

/// The interfaces that every object has; the third is that of the manager's object alone.
const STANDARD: &str = r#"  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId">
      <arg name="machine_uuid" type="s" direction="out"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect">
      <arg name="xml_data" type="s" direction="out"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="out"/>
    </method>
    <method name="Set">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="in"/>
    </method>
    <method name="GetAll">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="properties" type="a{sv}" direction="out"/>
    </method>
    <signal name="PropertiesChanged">
      <arg name="interface_name" type="s"/>
      <arg name="changed_properties" type="a{sv}"/>
      <arg name="invalidated_properties" type="as"/>
    </signal>
  </interface>
"#;
const OBJECT_MANAGER: &str = r#"  <interface name="org.freedesktop.DBus.ObjectManager">
    <method name="GetManagedObjects">
      <arg name="objects" type="a{oa{sa{sv}}}" direction="out"/>
    </method>
    <signal name="InterfacesAdded">
      <arg name="object_path" type="o"/>
      <arg name="interfaces_and_properties" type="a{sa{sv}}"/>
    </signal>
    <signal name="InterfacesRemoved">
      <arg name="object_path" type="o"/>
      <arg name="interfaces" type="as"/>
    </signal>
  </interface>
"#;
const HEAD: &str = r#"<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
"#;

/// The answer, or what to say if there is no such object.
///
/// # Errors
/// The text of the error.
pub fn answer(handle: &ManagerHandle, path: &str) -> Result<String, String> {
    let object = Object::at(path, handle);
    let names = match &object {
        // Those have none.
        Some(object) if !matches!(object, Object::Manager(_)) => Vec::new(),
        _ => below(path, &handle.view()).ok_or_else(|| format!("no object {path}"))?,
    };
    let mut xml = HEAD.to_owned();
    xml.push_str(STANDARD);
    if let Some(object) = object {
        if matches!(object, Object::Manager(_)) {
            xml.push_str(OBJECT_MANAGER);
        }
        object.interface().introspect_to_writer(&mut xml, 2);
    }
    for name in names {
        xml.push_str("  <node name=\"");
        xml.push_str(&name);
        xml.push_str("\"/>\n");
    }
    xml.push_str("</node>\n");
    Ok(xml)
}

/// Names of the objects one step below a path, if there is anything.
fn below(path: &str, view: &View) -> Option<Vec<String>> {
    let configuration = &view.state.configuration;
    let kind = |kind: &str| -> Vec<String> {
        let mut names: Vec<String> = match kind {
            "rule" => configuration
                .rules
                .iter()
                .map(|(_, rule)| escape(&rule.name))
                .collect(),
            "healthcheck" => configuration
                .checks
                .iter()
                .map(|(_, check)| escape(&check.name))
                .collect(),
            "vrrp" => configuration
                .vrrp
                .iter()
                .map(|(_, instance)| escape(&instance.name))
                .collect(),
            "servergroup" => configuration
                .groups
                .iter()
                .map(|(_, group)| escape(&group.name))
                .collect(),
            "server" => configuration
                .groups
                .iter()
                .flat_map(|(_, group)| group.servers.iter().map(|server| escape(&server.id)))
                .collect(),
            _ => Vec::new(),
        };
        names.sort_unstable();
        names
    };
    let rest = path.trim_end_matches('/');
    if let Some(below) = path.strip_prefix(ROOT_PATH) {
        let names = match below.strip_prefix('/') {
            Some(name) => kind(name),
            None if below.is_empty() => ["healthcheck", "rule", "server", "servergroup", "vrrp"]
                .into_iter()
                .filter(|name| !kind(name).is_empty())
                .map(str::to_owned)
                .collect(),
            None => return None,
        };
        return (below.is_empty() || !names.is_empty()).then_some(names);
    }
    // On the way to the manager's object.
    let step = ROOT_PATH.strip_prefix(rest)?.strip_prefix('/')?;
    Some(vec![step.split('/').next().unwrap_or_default().to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_objects_is_found() {
        let view = View::default();
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("/", Some(&["org"])),
            ("/org", Some(&["ilb"])),
            ("/org/ilb", Some(&["Ilb1"])),
            ("/org/ilb/Ilb1", Some(&[])),
            ("/org/ilb/Ilb1/rule", None),
            ("/org/ilb/Ilb1x", None),
            ("/org/ilb/Ilb", None),
            ("/com", None),
        ];
        for (path, then) in cases {
            let got = below(path, &view);
            let got: Option<Vec<&str>> = got
                .as_ref()
                .map(|names| names.iter().map(String::as_str).collect());
            assert_eq!(got.as_deref(), *then, "{path}");
        }
    }
}
