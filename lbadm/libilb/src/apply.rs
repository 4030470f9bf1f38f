//! How a document is applied over D-Bus: the options of `Apply`, and what waits for a confirmation.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use zbus::{OwnedVariant, Variant};

use crate::dbus::{read, unknown};
use crate::error::ModelError;

/// Longest time that a change may wait for its confirmation, in seconds: a day.
pub const MAX_CONFIRM: u32 = 86_400;
/// Longest document, in bytes. A hundred thousand servers need some 5 million.
pub const MAX_DOCUMENT: usize = 32 << 20;

/// The keys of the `options` dictionary of `Apply`, with the D-Bus type of each.
pub const APPLY_OPTIONS: &[(&str, &str)] = &[("merge", "b"), ("dry-run", "b"), ("confirm", "u")];

/// How a document is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Only what the document names is changed; otherwise it is the whole.
    pub merge: bool,
    /// Only say what would be different.
    pub dry_run: bool,
    /// Seconds, 1 to [`MAX_CONFIRM`], after which the change is taken back unless it was confirmed; none to keep it.
    pub confirm: Option<u32>,
}

impl ApplyOptions {
    /// As `Apply` takes them.
    pub fn to_dbus(&self) -> HashMap<&'static str, Variant<'static>> {
        let flag = |value: bool| value.then(|| Variant::from(true));
        let all = [
            ("merge", flag(self.merge)),
            ("dry-run", flag(self.dry_run)),
            ("confirm", self.confirm.map(Variant::from)),
        ];
        all.into_iter().filter_map(|(k, v)| Some((k, v?))).collect()
    }

    /// Reads what `Apply` was given.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`] for a key that does not exist, [`ModelError::Invalid`] for a value.
    pub fn from_dbus(map: &HashMap<String, OwnedVariant>) -> Result<ApplyOptions, ModelError> {
        let mut options = ApplyOptions::default();
        for (key, value) in map {
            match key.as_str() {
                "merge" => options.merge = read(key, value)?,
                "dry-run" => options.dry_run = read(key, value)?,
                "confirm" => options.confirm = Some(read(key, value)?),
                _ => return Err(unknown(APPLY_OPTIONS, key)),
            }
        }
        options.check()
    }

    /// Checks that the options belong together.
    ///
    /// # Errors
    /// [`ModelError::Invalid`].
    pub fn check(self) -> Result<ApplyOptions, ModelError> {
        let Some(seconds) = self.confirm else {
            return Ok(self);
        };
        let refuse = |problem: &str, allowed: String| {
            Err(ModelError::invalid(
                "confirm",
                seconds.to_string(),
                problem,
                allowed,
            ))
        };
        if self.dry_run {
            return refuse(
                "is given with dry-run",
                "a dry run changes nothing that could be confirmed; give one of both".to_string(),
            );
        }
        match (1..=MAX_CONFIRM).contains(&seconds) {
            true => Ok(self),
            false => refuse("is out of range", format!("use 1 to {MAX_CONFIRM} seconds")),
        }
    }
}

/// A change that is taken back unless it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Waiting {
    /// Unix time in seconds at which it is taken back.
    pub until: u64,
    /// The generation whose configuration comes back then.
    pub generation: u64,
    /// Who made the change.
    #[serde(default)]
    pub author: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(options: &ApplyOptions) -> HashMap<String, OwnedVariant> {
        let map = options.to_dbus().into_iter();
        map.map(|(k, v)| (k.to_string(), OwnedVariant::try_from(v).unwrap()))
            .collect()
    }

    #[test]
    fn options_go_there_and_back() {
        for (merge, dry_run, confirm) in [
            (false, false, None),
            (true, true, None),
            (false, false, Some(1)),
            (true, false, Some(MAX_CONFIRM)),
        ] {
            let options = ApplyOptions {
                merge,
                dry_run,
                confirm,
            };
            assert_eq!(ApplyOptions::from_dbus(&owned(&options)), Ok(options));
        }
    }

    #[test]
    fn bad_options_are_told() {
        let told = |options: ApplyOptions| options.check().unwrap_err().to_string();
        for seconds in [0, MAX_CONFIRM + 1] {
            let confirm = Some(seconds);
            assert_eq!(
                told(ApplyOptions {
                    confirm,
                    ..ApplyOptions::default()
                }),
                format!("confirm '{seconds}' is out of range: use 1 to 86400 seconds")
            );
        }
        let both = ApplyOptions {
            dry_run: true,
            confirm: Some(5),
            ..ApplyOptions::default()
        };
        assert!(told(both).contains("is given with dry-run"));
        let mut map = owned(&ApplyOptions::default());
        map.insert(
            "dryrun".into(),
            OwnedVariant::try_from(Variant::from(true)).unwrap(),
        );
        let error = ApplyOptions::from_dbus(&map).unwrap_err().to_string();
        assert!(error.ends_with("did you mean 'dry-run'?"), "{error}");
        let wrong = OwnedVariant::try_from(Variant::from("soon")).unwrap();
        let map = HashMap::from([("confirm".to_string(), wrong)]);
        let error = ApplyOptions::from_dbus(&map).unwrap_err().to_string();
        assert!(error.contains("it has to be of type u"), "{error}");
    }
}
