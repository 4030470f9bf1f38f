//! A time as an administrator writes it: seconds, or with its unit.

use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::ModelError;

/// A span of time, to the millisecond, up to 49 days. Written as seconds, `5` or `0.5`, or with a unit, `500ms`, `5s`, `2m`,
/// `1h`; in TOML and JSON also as a number of seconds, and always shown as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u32);

const SYNTAX: &str = "use seconds such as 5 or 0.5, or a number with ms, s, m or h, such as 500ms";

impl Time {
    /// None at all.
    pub const ZERO: Time = Time(0);

    /// Whole seconds.
    pub const fn from_secs(seconds: u32) -> Time {
        Time(seconds.saturating_mul(1000))
    }

    /// Milliseconds.
    pub const fn from_millis(millis: u32) -> Time {
        Time(millis)
    }

    /// In milliseconds.
    pub const fn millis(self) -> u32 {
        self.0
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }

    /// Reads a time.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] for `field`: no time, finer than a millisecond, or longer than can be.
    pub fn parse(field: &'static str, text: &str) -> Result<Time, ModelError> {
        let refuse = |problem: &str| ModelError::invalid(field, text, problem, SYNTAX);
        let lower = text.trim().to_ascii_lowercase();
        let (number, unit) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]
            .into_iter()
            .find_map(|(unit, millis)| Some((lower.strip_suffix(unit)?.trim_end(), millis)))
            .unwrap_or((&lower, 1000u64));
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) {
            return Err(refuse("is not a time"));
        }
        let part = part.trim_end_matches('0');
        let too_long = || refuse("is too long");
        let too_fine = || refuse("is finer than a millisecond");
        let scale = u32::try_from(part.len())
            .ok()
            .and_then(|places| 10u64.checked_pow(places))
            .filter(|scale| *scale <= 1_000_000_000)
            .ok_or_else(too_fine)?;
        let part = part.parse::<u64>().unwrap_or(0) * unit;
        if !part.is_multiple_of(scale) {
            return Err(too_fine());
        }
        let whole: u64 = whole.parse().map_err(|_| too_long())?;
        let millis = whole.checked_mul(unit).ok_or_else(too_long)? + part / scale;
        u32::try_from(millis).map(Time).map_err(|_| too_long())
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1000, self.0 % 1000);
        match millis {
            0 => f.pad(&seconds.to_string()),
            _ => f.pad(format!("{seconds}.{millis:03}").trim_end_matches('0')),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 1000 {
            0 => serializer.serialize_u32(self.0 / 1000),
            _ => serializer.serialize_f64(f64::from(self.0) / 1000.0),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a time: {SYNTAX}")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Time, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Time, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Time, E> {
                // The shortest decimal fraction that means this number is the one that was written.
                self.visit_str(&number.to_string())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                Time::parse("time", text).map_err(E::custom)
            }
        }
        deserializer
            .deserialize_any(Reader)
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, millis) in [
            ("5", 5000),
            ("0", 0),
            ("0.5", 500),
            ("1.250", 1250),
            ("500ms", 500),
            ("500 MS", 500),
            ("5s", 5000),
            ("2m", 120_000),
            ("0.5m", 30_000),
            ("1h", 3_600_000),
            ("4294967.295", u32::MAX),
        ] {
            assert_eq!(
                Time::parse("timeout", text).unwrap().millis(),
                millis,
                "{text}"
            );
        }
        for (text, problem) in [
            ("", "is not a time"),
            ("ms", "is not a time"),
            ("-1", "is not a time"),
            ("1.", "is not a time"),
            (".5", "is not a time"),
            ("five", "is not a time"),
            ("1e3", "is not a time"),
            ("0.0005", "is finer than a millisecond"),
            ("0.5ms", "is finer than a millisecond"),
            ("0.0000000000000000000001", "is finer than a millisecond"),
            ("4294967.296", "is too long"),
            ("99999999999999999999", "is too long"),
            ("9999999999999999h", "is too long"),
        ] {
            let error = Time::parse("timeout", text).unwrap_err().to_string();
            assert_eq!(error, format!("timeout '{text}' {problem}: {SYNTAX}"));
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read(millis in any::<u32>()) {
            let time = Time::from_millis(millis);
            prop_assert_eq!(Time::parse("timeout", &time.to_string()).unwrap(), time);
            let json = serde_json::to_string(&time).unwrap();
            prop_assert_eq!(serde_json::from_str::<Time>(&json).unwrap(), time);
        }

        #[test]
        fn no_text_is_a_surprise(text in "\\PC{0,24}", number in any::<f64>()) {
            let _ = Time::parse("timeout", &text);
            let _ = serde_json::from_value::<Time>(serde_json::json!(number));
        }
    }
}
