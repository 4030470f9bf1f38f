//! Which results of health checks are asked for: the filter of `ListHealthResults`.

use std::collections::HashMap;

use zbus::{OwnedVariant, Variant};

use crate::dbus::{read_text, unknown};
use crate::error::ModelError;

/// The keys of the filter of `ListHealthResults`, with the D-Bus type of each.
pub const HEALTH_FILTER: &[(&str, &str)] = &[("rule", "s"), ("server", "s")];

/// See the module. Everything that is given must hold; names are the same in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthFilter {
    /// Name of a rule.
    pub rule: Option<String>,
    /// Id of a server.
    pub server: Option<String>,
}

impl HealthFilter {
    /// Whether a server of a rule is asked for.
    pub fn wants(&self, rule: &str, server: &str) -> bool {
        let is = |wanted: &Option<String>, name: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(name))
        };
        is(&self.rule, rule) && is(&self.server, server)
    }

    /// As `ListHealthResults` takes it.
    pub fn to_dbus(&self) -> HashMap<&'static str, Variant<'static>> {
        [("rule", &self.rule), ("server", &self.server)]
            .into_iter()
            .filter_map(|(key, value)| Some((key, Variant::from(value.clone()?))))
            .collect()
    }

    /// Reads what `ListHealthResults` was given.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`] for a key that does not exist, [`ModelError::Invalid`] for a value of the wrong type.
    pub fn from_dbus(map: &HashMap<String, OwnedVariant>) -> Result<HealthFilter, ModelError> {
        let mut filter = HealthFilter::default();
        for (key, value) in map {
            match key.as_str() {
                "rule" => filter.rule = Some(read_text(key, value)?),
                "server" => filter.server = Some(read_text(key, value)?),
                _ => return Err(unknown(HEALTH_FILTER, key)),
            }
        }
        Ok(filter)
    }
}
