//! The D-Bus interface: names, object paths, the settings dictionary, and proxies.

mod proxy;

use std::collections::HashMap;
use std::fmt::Write as _;

use zbus::{OwnedVariant, Variant};

pub use self::proxy::*;
use crate::error::{ErrorKind, ModelError};
use crate::rule::{NotifyEvent, RuleSettings, Timeout};
use crate::server::{ServerKey, ServerSettings};
use crate::source::{SOURCE_FIELDS, SourceSettings};
use crate::words;

/// The manager's name on the bus.
pub const BUS_NAME: &str = "org.ilb.Ilb1";
/// The manager's object; the others are below it.
pub const ROOT_PATH: &str = "/org/ilb/Ilb1";
/// Interface of the manager.
pub const MANAGER_INTERFACE: &str = "org.ilb.Ilb1.Manager";
/// Interface of a rule.
pub const RULE_INTERFACE: &str = "org.ilb.Ilb1.Rule";
/// Interface of a server group.
pub const SERVER_GROUP_INTERFACE: &str = "org.ilb.Ilb1.ServerGroup";
/// Interface of a health check.
pub const HEALTH_CHECK_INTERFACE: &str = "org.ilb.Ilb1.HealthCheck";
/// Interface of a VRRP instance.
pub const VRRP_INTERFACE: &str = "org.ilb.Ilb1.VrrpInstance";
/// Interface of a server.
pub const SERVER_INTERFACE: &str = "org.ilb.Ilb1.Server";
/// What stands before [`ErrorKind::word`] in the name of an error.
pub const ERROR_PREFIX: &str = "org.ilb.Ilb1.Error.";

/// The D-Bus name of a kind of error.
pub fn error_name(kind: ErrorKind) -> String {
    format!("{ERROR_PREFIX}{}", kind.word())
}

/// The kind of error that a D-Bus name stands for, if it is one of ours.
pub fn error_kind(name: &str) -> Option<ErrorKind> {
    let word = name.strip_prefix(ERROR_PREFIX)?;
    ErrorKind::ALL.into_iter().find(|kind| kind.word() == word)
}

/// Object path of a rule.
pub fn rule_path(name: &str) -> String {
    format!("{ROOT_PATH}/rule/{}", escape(name))
}

/// Object path of a server group.
pub fn group_path(name: &str) -> String {
    format!("{ROOT_PATH}/servergroup/{}", escape(name))
}

/// Object path of a server.
pub fn server_path(id: &str) -> String {
    format!("{ROOT_PATH}/server/{}", escape(id))
}

/// Object path of a health check.
pub fn check_path(name: &str) -> String {
    format!("{ROOT_PATH}/healthcheck/{}", escape(name))
}

/// Object path of a VRRP instance.
pub fn vrrp_path(name: &str) -> String {
    format!("{ROOT_PATH}/vrrp/{}", escape(name))
}

/// A name as an element of an object path: in lower case, since names are the same in any case; letters and digits stay,
/// every other byte becomes `_` and two hexadecimal digits (`web-1` is `web_2d1`).
pub fn escape(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() {
            path.push(byte.to_ascii_lowercase() as char);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}

/// The name that an element of an object path stands for, in lower case.
pub fn unescape(element: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(element.len());
    let mut rest = element.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'_' {
            bytes.push(byte);
            continue;
        }
        let hex = [rest.next()?, rest.next()?];
        let hex = std::str::from_utf8(&hex).ok()?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// The keys of the `settings` dictionary of `CreateRule` and `ModifyRule`, with the D-Bus type of each.
pub const SETTINGS: &[(&str, &str)] = &[
    ("enabled", "b"),
    ("vip", "s"),
    ("port", "s"),
    ("protocol", "s"),
    ("vips", "as"),
    ("clients", "as"),
    ("algorithm", "s"),
    ("flags", "as"),
    ("topology", "s"),
    ("tunnel", "s"),
    ("gue-port", "u"),
    ("tunnel-checksum", "s"),
    ("proxy-src", "as"),
    ("servergroup", "s"),
    ("conn-drain", "u"),
    ("nat-timeout", "u"),
    ("persist-timeout", "u"),
    ("pmask", "s"),
    ("timeouts", "a{su}"),
    ("one-packet", "b"),
    ("orphans", "s"),
    ("sync", "s"),
    ("slow-start", "u"),
    ("max-new-flows", "u"),
    ("quorum", "u"),
    ("hysteresis", "u"),
    ("panic-mode", "s"),
    ("panic-threshold", "u"),
    ("notify", "a{ss}"),
    ("manage-addresses", "b"),
    ("health-check", "s"),
    ("health-check-port", "s"),
];

/// The keys of the `settings` dictionary of `ModifyServers`, with the D-Bus type of each.
pub const SERVER_SETTINGS: &[(&str, &str)] = &[
    ("weight", "u"),
    ("max-connections", "u"),
    ("min-connections", "u"),
    ("tier", "u"),
];

/// The keys of the `source` dictionary of `CreateFollowingServerGroup` and `ModifyServerGroup`, with the D-Bus type of each.
/// All may be texts, as behind `lbadm`'s `-d`; nothing as text means the default.
pub const SOURCE_SETTINGS: &[(&str, &str)] = &[
    ("dns", "s"),
    ("subnet", "s"),
    ("port", "s"),
    ("family", "s"),
    ("approve", "s"),
    ("limit", "u"),
    ("interval", "s"),
    ("max-interval", "s"),
    ("hold", "s"),
    ("resolver", "as"),
    ("rate", "u"),
    ("except", "as"),
];

/// `source` as `CreateFollowingServerGroup` and `ModifyServerGroup` take it.
pub fn source_to_dbus(source: &SourceSettings) -> HashMap<&'static str, Variant<'static>> {
    let said = source.pairs().iter();
    let said = said.map(|(field, text)| (field.name(), Variant::from(text.clone())));
    said.collect()
}

/// Reads a `source`.
///
/// # Errors
/// As [`settings_from_dbus`].
pub fn source_from_dbus(map: &HashMap<String, OwnedVariant>) -> Result<SourceSettings, ModelError> {
    let mut source = SourceSettings::default();
    for (key, value) in map {
        let known = SOURCE_SETTINGS.iter().find(|(known, _)| known == key);
        let Some(&(key, signature)) = known else {
            return Err(unknown(SOURCE_SETTINGS, key));
        };
        let text = <&str>::try_from(value).ok().map(str::to_string);
        let text = text.or_else(|| match signature {
            "u" => u32::try_from(value).ok().map(|number| number.to_string()),
            "as" => {
                let list = value.try_clone().ok();
                let list = list.and_then(|value| Vec::<String>::try_from(value).ok());
                list.map(|list| list.join(","))
            }
            _ => None,
        });
        let text = text.ok_or_else(|| {
            let found = format!("has D-Bus type {}", value.value_signature());
            let allowed = format!("it has to be of type {signature}");
            ModelError::invalid("setting", key, found, allowed)
        })?;
        source.set(words::parse(SOURCE_FIELDS, "setting", key)?, &text)?;
    }
    Ok(source)
}

/// `settings` as `CreateRule` and `ModifyRule` take them: what is not said is left out.
pub fn settings_to_dbus(settings: &RuleSettings) -> HashMap<&'static str, Variant<'static>> {
    let text = |s: &String| Variant::from(s.clone());
    let mut map = HashMap::new();
    if settings.enabled {
        map.insert("enabled", Variant::from(true));
    }
    for (key, value) in [
        ("vip", &settings.vip),
        ("port", &settings.port),
        ("algorithm", &settings.algorithm),
        ("topology", &settings.topology),
        ("servergroup", &settings.servergroup),
    ] {
        if !value.is_empty() {
            map.insert(key, text(value));
        }
    }
    let vips: Vec<String> = settings.more_vips.iter().map(ToString::to_string).collect();
    for (key, list) in [
        ("vips", &vips),
        ("clients", &settings.clients),
        ("flags", &settings.flags),
        ("proxy-src", &settings.proxy_src),
    ] {
        if !list.is_empty() {
            map.insert(key, Variant::from(list.clone()));
        }
    }
    if !settings.timeouts.is_empty() {
        let timeouts: HashMap<String, u32> = settings
            .timeouts
            .iter()
            .map(|(state, &seconds)| (state.name().to_string(), seconds))
            .collect();
        map.insert("timeouts", Variant::from(timeouts));
    }
    if !settings.notify.is_empty() {
        let notify: HashMap<String, String> = settings
            .notify
            .iter()
            .map(|(event, command)| (event.name().to_string(), command.clone()))
            .collect();
        map.insert("notify", Variant::from(notify));
    }
    let number = |n: Option<u32>| n.map(Variant::from);
    let flag = |b: Option<bool>| b.map(Variant::from);
    let optional = [
        ("protocol", settings.protocol.as_ref().map(text)),
        ("tunnel", settings.tunnel.as_ref().map(text)),
        ("gue-port", number(settings.gue_port)),
        (
            "tunnel-checksum",
            settings.tunnel_checksum.as_ref().map(text),
        ),
        ("pmask", settings.pmask.as_ref().map(text)),
        ("conn-drain", number(settings.conn_drain)),
        ("nat-timeout", number(settings.nat_timeout)),
        ("persist-timeout", number(settings.persist_timeout)),
        ("one-packet", flag(settings.one_packet)),
        ("orphans", settings.orphans.as_ref().map(text)),
        ("sync", settings.sync.as_ref().map(text)),
        ("slow-start", number(settings.slow_start)),
        ("max-new-flows", number(settings.max_new_flows)),
        ("quorum", number(settings.quorum)),
        ("hysteresis", number(settings.hysteresis)),
        ("panic-mode", settings.panic_mode.as_ref().map(text)),
        ("panic-threshold", number(settings.panic_threshold)),
        ("manage-addresses", flag(settings.manage_addresses)),
        ("health-check", settings.health_check.as_ref().map(text)),
        (
            "health-check-port",
            settings.health_check_port.as_ref().map(text),
        ),
    ];
    map.extend(optional.into_iter().filter_map(|(k, v)| Some((k, v?))));
    map
}

/// `settings` as `ModifyServers` takes them.
pub fn server_settings_to_dbus(
    settings: &ServerSettings,
) -> HashMap<&'static str, Variant<'static>> {
    [
        ("weight", settings.weight.map(u32::from)),
        ("max-connections", settings.max_connections),
        ("min-connections", settings.min_connections),
        ("tier", settings.tier.map(u32::from)),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, Variant::from(value?))))
    .collect()
}

/// Reads what `ModifyServers` was given.
///
/// # Errors
/// As [`settings_from_dbus`].
pub fn server_settings_from_dbus(
    map: &HashMap<String, OwnedVariant>,
) -> Result<ServerSettings, ModelError> {
    let mut settings = ServerSettings::default();
    for (key, value) in map {
        let word = match key.as_str() {
            "weight" => ServerKey::Weight,
            "max-connections" => ServerKey::MaxConnections,
            "min-connections" => ServerKey::MinConnections,
            "tier" => ServerKey::Tier,
            _ => return Err(unknown(SERVER_SETTINGS, key)),
        };
        let number: u32 = u32::try_from(value).map_err(|_| wrong_type(key, value))?;
        settings.set(word, &number.to_string())?;
    }
    Ok(settings)
}

/// Reads what `CreateRule` was given.
///
/// # Errors
/// [`ModelError::UnknownWord`] for a key that does not exist, [`ModelError::Invalid`] for a value of the wrong type.
pub fn settings_from_dbus(map: &HashMap<String, OwnedVariant>) -> Result<RuleSettings, ModelError> {
    let mut settings = RuleSettings::default();
    for (key, value) in map {
        match key.as_str() {
            "enabled" => settings.enabled = read(key, value)?,
            "vip" => settings.vip = read_text(key, value)?,
            "port" => settings.port = read_text(key, value)?,
            "protocol" => settings.protocol = Some(read_text(key, value)?),
            "algorithm" => settings.algorithm = read_text(key, value)?,
            "topology" => settings.topology = read_text(key, value)?,
            "vips" => {
                let texts = read_list(key, value)?;
                let vips: Result<_, _> = texts.iter().map(|text| text.parse()).collect();
                settings.more_vips = vips?;
            }
            "clients" => settings.clients = read_list(key, value)?,
            "flags" => settings.flags = read_list(key, value)?,
            "tunnel" => settings.tunnel = Some(read_text(key, value)?),
            "gue-port" => settings.gue_port = Some(read(key, value)?),
            "tunnel-checksum" => settings.tunnel_checksum = Some(read_text(key, value)?),
            "timeouts" => {
                let map = value.try_clone().ok();
                let map = map.and_then(|v| HashMap::<String, u32>::try_from(v).ok());
                for (word, seconds) in map.ok_or_else(|| wrong_type(key, value))? {
                    settings.timeouts.insert(Timeout::parse(&word)?, seconds);
                }
            }
            "notify" => {
                let map = value.try_clone().ok();
                let map = map.and_then(|v| HashMap::<String, String>::try_from(v).ok());
                for (word, command) in map.ok_or_else(|| wrong_type(key, value))? {
                    settings.notify.insert(NotifyEvent::parse(&word)?, command);
                }
            }
            "one-packet" => settings.one_packet = Some(read(key, value)?),
            "orphans" => settings.orphans = Some(read_text(key, value)?),
            "sync" => settings.sync = Some(read_text(key, value)?),
            "slow-start" => settings.slow_start = Some(read(key, value)?),
            "max-new-flows" => settings.max_new_flows = Some(read(key, value)?),
            "quorum" => settings.quorum = Some(read(key, value)?),
            "hysteresis" => settings.hysteresis = Some(read(key, value)?),
            "panic-mode" => settings.panic_mode = Some(read_text(key, value)?),
            "panic-threshold" => settings.panic_threshold = Some(read(key, value)?),
            "proxy-src" => settings.proxy_src = read_list(key, value)?,
            "servergroup" => settings.servergroup = read_text(key, value)?,
            "conn-drain" => settings.conn_drain = Some(read(key, value)?),
            "nat-timeout" => settings.nat_timeout = Some(read(key, value)?),
            "persist-timeout" => settings.persist_timeout = Some(read(key, value)?),
            "pmask" => settings.pmask = Some(read_text(key, value)?),
            "manage-addresses" => settings.manage_addresses = Some(read(key, value)?),
            "health-check" => settings.health_check = Some(read_text(key, value)?),
            "health-check-port" => settings.health_check_port = Some(read_text(key, value)?),
            _ => return Err(unknown(SETTINGS, key)),
        }
    }
    Ok(settings)
}

pub(crate) fn unknown(settings: &[(&str, &str)], key: &str) -> ModelError {
    let keys: Vec<&str> = settings.iter().map(|(key, _)| *key).collect();
    ModelError::UnknownWord {
        field: "setting",
        value: key.to_string(),
        allowed: words::one_of(&keys),
        suggestion: words::nearest(key, keys.iter().copied()),
    }
}

pub(crate) fn read<'a, T: TryFrom<&'a OwnedVariant>>(
    key: &str,
    value: &'a OwnedVariant,
) -> Result<T, ModelError> {
    T::try_from(value).map_err(|_| wrong_type(key, value))
}

pub(crate) fn read_text(key: &str, value: &OwnedVariant) -> Result<String, ModelError> {
    <&str>::try_from(value)
        .map(str::to_string)
        .map_err(|_| wrong_type(key, value))
}

fn read_list(key: &str, value: &OwnedVariant) -> Result<Vec<String>, ModelError> {
    value
        .try_clone()
        .ok()
        .and_then(|v| Vec::<String>::try_from(v).ok())
        .ok_or_else(|| wrong_type(key, value))
}

fn wrong_type(key: &str, value: &OwnedVariant) -> ModelError {
    let mut all = SETTINGS
        .iter()
        .chain(SERVER_SETTINGS)
        .chain(crate::connections::FILTER)
        .chain(crate::explain::PACKET)
        .chain(crate::healthfilter::HEALTH_FILTER)
        .chain(crate::apply::APPLY_OPTIONS);
    let wanted = all.find(|(k, _)| *k == key);
    ModelError::invalid(
        "setting",
        key,
        format!("has D-Bus type {}", value.value_signature()),
        format!("it has to be of type {}", wanted.map_or("?", |(_, t)| t)),
    )
}
