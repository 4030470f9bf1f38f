//! Settings of an instance as a D-Bus dictionary.

use std::collections::HashMap;

use zbus::{OwnedVariant, Variant};

use super::{FIELDS, VrrpSettings};
use crate::dbus::unknown;
use crate::error::ModelError;
use crate::words;

/// The keys of the `settings` dictionary of `CreateVrrp` and `ModifyVrrp`, with the D-Bus type of each. Each may be a text as behind
/// `lbadm`'s `-i`, too; nothing as text means the default.
pub const VRRP_SETTINGS: &[(&str, &str)] = &[
    ("interface", "s"),
    ("vrid", "u"),
    ("addresses", "as"),
    ("version", "u"),
    ("priority", "u"),
    ("interval", "s"),
    ("preempt", "b"),
    ("preempt-delay", "s"),
    ("source", "s"),
    ("peers", "as"),
    ("checksum", "s"),
    ("mac", "s"),
    ("accept", "b"),
    ("track", "as"),
    ("sync-group", "s"),
    ("notify", "s"),
    ("announcements", "u"),
    ("announce-delay", "s"),
    ("announce-interval", "s"),
    ("enabled", "b"),
];

/// `settings` as `CreateVrrp` and `ModifyVrrp` take them: what is not said is left out.
pub fn settings_to_dbus(settings: &VrrpSettings) -> HashMap<&'static str, Variant<'static>> {
    let mut map: HashMap<&'static str, Variant<'static>> = HashMap::new();
    for (field, text) in &settings.fields {
        let name = words::name(FIELDS, *field);
        let Some(&(key, signature)) = VRRP_SETTINGS.iter().find(|(key, _)| *key == name) else {
            continue;
        };
        let value = match signature {
            "u" => text.parse::<u32>().map(Variant::from).ok(),
            "b" if !text.is_empty() => Some(Variant::from(text == "yes")),
            "as" if !text.is_empty() => {
                let list: Vec<String> = text.split(',').map(str::to_owned).collect();
                Some(Variant::from(list))
            }
            _ => None,
        };
        map.insert(key, value.unwrap_or_else(|| Variant::from(text.clone())));
    }
    map
}

/// Reads what `CreateVrrp` or `ModifyVrrp` was given.
///
/// # Errors
/// [`ModelError::UnknownWord`] for a key that does not exist, [`ModelError::Invalid`] for a value of the wrong type, or
/// that [`VrrpSettings::set`] refuses.
pub fn settings_from_dbus(map: &HashMap<String, OwnedVariant>) -> Result<VrrpSettings, ModelError> {
    let mut settings = VrrpSettings::default();
    for (key, value) in map {
        let known = VRRP_SETTINGS.iter().find(|(known, _)| known == key);
        let Some(&(key, signature)) = known else {
            return Err(unknown(VRRP_SETTINGS, key));
        };
        let text = match signature {
            "u" => u32::try_from(value).ok().map(|number| number.to_string()),
            "b" => bool::try_from(value)
                .ok()
                .map(|yes| if yes { "yes" } else { "no" }.to_owned()),
            "as" => {
                let list = value.try_clone().ok();
                let list = list.and_then(|list| Vec::<String>::try_from(list).ok());
                list.map(|list| list.join(","))
            }
            _ => None,
        };
        let text = text.or_else(|| <&str>::try_from(value).ok().map(str::to_owned));
        let text = text.ok_or_else(|| {
            ModelError::invalid(
                "setting",
                key,
                format!("has D-Bus type {}", value.value_signature()),
                format!("it has to be of type {signature}"),
            )
        })?;
        settings.set(words::parse(FIELDS, "setting", key)?, &text)?;
    }
    Ok(settings)
}
