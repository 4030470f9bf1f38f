//! Settings of a health check as a D-Bus dictionary.

use std::collections::HashMap;

use zbus::{OwnedVariant, Variant};

use super::{FIELDS, Field, HealthCheckSettings, StatusSet};
use crate::dbus::unknown;
use crate::error::ModelError;
use crate::words;

/// The keys of the `settings` dictionary of `CreateHealthCheck` and `ModifyHealthCheck`, with the D-Bus type of each.
/// Texts are as behind `lbadm`'s `-h`, so that times may be `5`, `0.5` or `500ms`; nothing as text means the default. The
/// dictionaries of `urls` have the keys path, status, digest, regex, regex-no-match and host.
pub const HEALTH_CHECK_SETTINGS: &[(&str, &str)] = &[
    ("test", "s"),
    ("timeout", "s"),
    ("count", "u"),
    ("interval", "s"),
    ("rise", "u"),
    ("retries", "u"),
    ("retry-delay", "s"),
    ("warm-up", "s"),
    ("jitter", "u"),
    ("ping", "b"),
    ("alpha", "b"),
    ("port", "s"),
    ("address", "s"),
    ("source", "s"),
    ("host", "s"),
    ("sni", "s"),
    ("verify", "b"),
    ("ca-file", "s"),
    ("payload", "s"),
    ("reply", "s"),
    ("query", "s"),
    ("record-type", "s"),
    ("answer", "s"),
    ("helo", "s"),
    ("path", "s"),
    ("arguments", "as"),
    ("contract", "s"),
    ("weight", "b"),
    ("load", "s"),
    ("load-interval", "s"),
    ("load-least", "u"),
    ("load-port", "u"),
    ("community", "s"),
    ("urls", "aa{ss}"),
];

const URL_KEYS: &[(&str, Field)] = &[
    ("path", Field::Url),
    ("status", Field::Status),
    ("digest", Field::Digest),
    ("regex", Field::Regex),
    ("regex-no-match", Field::RegexNoMatch),
    ("host", Field::Host),
];

/// `settings` as `CreateHealthCheck` and `ModifyHealthCheck` take them: what is not said is left out.
pub fn settings_to_dbus(settings: &HealthCheckSettings) -> HashMap<&'static str, Variant<'static>> {
    let mut map: HashMap<&'static str, Variant<'static>> = HashMap::new();
    // Pages and arguments are lists.
    let rest = HealthCheckSettings {
        urls: None,
        arguments: None,
        ..settings.clone()
    };
    let said = rest.pairs();
    let cleared = settings.cleared.iter().map(|field| (*field, String::new()));
    for (field, text) in cleared.chain(said) {
        let name = words::name(FIELDS, field);
        let Some(&(key, signature)) = HEALTH_CHECK_SETTINGS.iter().find(|(key, _)| *key == name)
        else {
            continue;
        };
        let value = match signature {
            "u" => text.parse::<u32>().map(Variant::from).ok(),
            "b" if !text.is_empty() => Some(Variant::from(text == "yes")),
            _ => None,
        };
        map.insert(key, value.unwrap_or_else(|| Variant::from(text)));
    }
    if let Some(arguments) = &settings.arguments {
        map.insert("arguments", Variant::from(arguments.clone()));
    }
    if let Some(urls) = &settings.urls {
        let urls: Vec<HashMap<String, String>> = urls
            .iter()
            .map(|url| {
                let optional = |value: Option<String>, key: &str| Some((key.to_string(), value?));
                let usual = url.status == StatusSet::default();
                [
                    optional(Some(url.path.clone()), "path"),
                    optional((!usual).then(|| url.status.to_string()), "status"),
                    optional(url.digest.map(|d| d.to_string()), "digest"),
                    optional(url.regex.as_ref().map(ToString::to_string), "regex"),
                    optional(
                        url.regex_no_match.then(|| "yes".to_string()),
                        "regex-no-match",
                    ),
                    optional(url.host.clone(), "host"),
                ]
                .into_iter()
                .flatten()
                .collect()
            })
            .collect();
        map.insert("urls", Variant::from(urls));
    }
    map
}

/// Reads what `CreateHealthCheck` or `ModifyHealthCheck` was given.
///
/// # Errors
/// [`ModelError::UnknownWord`] for a key that does not exist, [`ModelError::Invalid`] for a value of the wrong type, or
/// that [`HealthCheckSettings::set`] refuses.
pub fn settings_from_dbus(
    map: &HashMap<String, OwnedVariant>,
) -> Result<HealthCheckSettings, ModelError> {
    let mut settings = HealthCheckSettings::default();
    let mut urls = None;
    for (key, value) in map {
        let known = HEALTH_CHECK_SETTINGS.iter().find(|(known, _)| known == key);
        let Some(&(key, signature)) = known else {
            return Err(unknown(HEALTH_CHECK_SETTINGS, key));
        };
        let text = <&str>::try_from(value).ok();
        let owned = || value.try_clone().ok();
        match (key, signature) {
            ("arguments", _) => {
                let list = owned().and_then(|v| Vec::<String>::try_from(v).ok());
                settings.arguments = Some(list.ok_or_else(|| wrong_type(key, signature, value))?);
            }
            ("urls", _) => {
                let list = owned().and_then(|v| Vec::<HashMap<String, String>>::try_from(v).ok());
                let list = list.ok_or_else(|| wrong_type(key, signature, value))?;
                urls = Some(list.iter().map(read_url).collect::<Result<_, _>>()?);
            }
            (_, signature) => {
                let text = match signature {
                    "u" => u32::try_from(value).ok().map(|number| number.to_string()),
                    "b" => bool::try_from(value)
                        .ok()
                        .map(|yes| if yes { "yes" } else { "no" }.to_string()),
                    _ => None,
                }
                .or_else(|| text.map(str::to_string));
                let text = text.ok_or_else(|| wrong_type(key, signature, value))?;
                let field = words::parse(FIELDS, "setting", key)?;
                settings.set(field, &text)?;
            }
        }
    }
    // Last: a host that is said after a page would be that page's.
    settings.urls = urls;
    Ok(settings)
}

fn read_url(map: &HashMap<String, String>) -> Result<super::Url, ModelError> {
    let keys: Vec<&str> = URL_KEYS.iter().map(|(key, _)| *key).collect();
    if let Some(key) = map.keys().find(|key| !keys.contains(&key.as_str())) {
        return Err(ModelError::UnknownWord {
            field: "setting of a URL",
            value: key.clone(),
            allowed: words::one_of(&keys),
            suggestion: words::nearest(key, keys.iter().copied()),
        });
    }
    let mut page = HealthCheckSettings::default();
    // In the order of the table: the path comes first.
    for (key, field) in URL_KEYS {
        match map.get(*key) {
            Some(value) => page.set(*field, value)?,
            None if *field == Field::Url => page.set(Field::Url, "/")?,
            None => {}
        }
    }
    page.urls
        .and_then(|mut urls| urls.pop())
        .ok_or_else(|| ModelError::Missing {
            field: "path",
            allowed: "each URL has a path, such as /health".to_string(),
        })
}

fn wrong_type(key: &str, signature: &str, value: &OwnedVariant) -> ModelError {
    ModelError::invalid(
        "setting",
        key,
        format!("has D-Bus type {}", value.value_signature()),
        format!("it has to be of type {signature}"),
    )
}
