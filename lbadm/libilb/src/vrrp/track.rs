//! What an instance depends on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Item, ModelError};
use crate::rule::check_name;
use crate::words;

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// The local fast path: it is there and forwards.
    Fastpath,
    /// A rule has the servers that it needs.
    Rule(String),
    /// Another interface is up.
    Interface(String),
    /// A program, run every second, ends with 0.
    Script(String),
    /// A number in a file, which the weight is multiplied with.
    File(String),
}

/// One thing that an instance depends on. Written `fastpath`, `rule:NAME`, `interface:NAME`, `script:/PATH` or `file:/PATH`, and the weight
/// behind one more colon.
///
/// Without a weight (0) the instance gives up while it fails. With a positive weight its priority is so much higher while all is well,
/// with a negative one so much lower while it fails; it stays between 1 and 254.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Track {
    /// What.
    pub probe: Probe,
    /// -253 to 253. Of a file, which has no default of 0: 1.
    pub weight: i16,
}

/// Largest weight, without its sign.
const MAX_WEIGHT: i16 = 253;
const SYNTAX: &str = "use fastpath, rule:NAME, interface:NAME, script:/PATH or file:/PATH, each with :WEIGHT from -253 to 253 if you like";
const KINDS: &[&str] = &["fastpath", "rule", "interface", "script", "file"];

impl Track {
    /// The local fast path, without a weight.
    pub const FASTPATH: Track = Track {
        probe: Probe::Fastpath,
        weight: 0,
    };

    /// Reads one.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] or [`ModelError::UnknownWord`].
    pub fn parse(text: &str) -> Result<Track, ModelError> {
        let refuse = |problem: &str| ModelError::invalid("track", text, problem, SYNTAX);
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let kind = kind.to_ascii_lowercase();
        // A weight is the number behind the last colon.
        let (what, weight) = match (kind.as_str(), rest.rsplit_once(':')) {
            ("fastpath", _) => ("", (!rest.is_empty()).then_some(rest)),
            (_, Some((what, weight))) => (what, Some(weight)),
            (_, None) => (rest, None),
        };
        let weight = match weight.map(i16::from_str) {
            None => None,
            Some(Ok(weight)) if weight.abs() <= MAX_WEIGHT => Some(weight),
            Some(_) => return Err(refuse("has a weight that is no number from -253 to 253")),
        };
        let absolute = |what: &str| match what.starts_with('/') {
            true => Ok(what.to_owned()),
            false => Err(refuse("names no absolute path")),
        };
        let probe = match kind.as_str() {
            "fastpath" => Probe::Fastpath,
            "rule" => {
                check_name(Item::Rule, what)?;
                Probe::Rule(what.to_owned())
            }
            "interface" => Probe::Interface(super::settings::interface("track", what)?),
            "script" => Probe::Script(absolute(what)?),
            "file" => Probe::File(absolute(what)?),
            _ => {
                return Err(ModelError::UnknownWord {
                    field: "track",
                    value: text.to_owned(),
                    allowed: words::one_of(KINDS),
                    suggestion: words::nearest(&kind, KINDS.iter().copied()),
                });
            }
        };
        let default = i16::from(matches!(probe, Probe::File(_)));
        Ok(Track {
            weight: weight.unwrap_or(default),
            probe,
        })
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Fastpath => f.write_str("fastpath"),
            Probe::Rule(name) => write!(f, "rule:{name}"),
            Probe::Interface(name) => write!(f, "interface:{name}"),
            Probe::Script(path) => write!(f, "script:{path}"),
            Probe::File(path) => write!(f, "file:{path}"),
        }
    }
}

impl fmt::Display for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = i16::from(matches!(self.probe, Probe::File(_)));
        match self.weight == default {
            true => write!(f, "{}", self.probe),
            false => write!(f, "{}:{}", self.probe, self.weight),
        }
    }
}

impl Serialize for Track {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Track {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Track, D::Error> {
        let text = String::deserialize(deserializer)?;
        Track::parse(&text).map_err(serde::de::Error::custom)
    }
}
