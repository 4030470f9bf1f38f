//! The values of a health check that have a syntax of their own: ports, statuses, digests, patterns, replies, records, URLs.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bytes::Masked;
use crate::error::ModelError;
use crate::words::{self, Word};

/// Largest compiled pattern, in octets.
const PATTERN_SIZE: usize = 1 << 20;
/// Longest path of a URL and longest pattern, in octets.
const MAX_TEXT: usize = 2048;

/// Which port a check asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckPort {
    /// This one, 1 to 65535.
    Number(u16),
    /// Any of the server's: another one by chance each time.
    Any,
}

impl CheckPort {
    /// Reads a number or `any`.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] for `field`.
    pub fn parse(field: &'static str, text: &str) -> Result<CheckPort, ModelError> {
        if text.eq_ignore_ascii_case("any") {
            return Ok(CheckPort::Any);
        }
        let number = text.parse().ok().filter(|port| *port > 0);
        number.map(CheckPort::Number).ok_or_else(|| {
            let allowed = "use a port from 1 to 65535, or ANY for any of the server's ports";
            ModelError::invalid(field, text, "is not a port", allowed)
        })
    }
}

impl fmt::Display for CheckPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckPort::Number(port) => f.pad(&port.to_string()),
            CheckPort::Any => f.pad("ANY"),
        }
    }
}

impl Serialize for CheckPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            CheckPort::Number(port) => serializer.serialize_u16(*port),
            CheckPort::Any => serializer.serialize_str("any"),
        }
    }
}

impl<'de> Deserialize<'de> for CheckPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CheckPort, D::Error> {
        let text = NumberOrText::deserialize(deserializer)?.0;
        CheckPort::parse("port", &text).map_err(D::Error::custom)
    }
}

/// HTTP statuses that will do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StatusSet(Vec<(u16, u16)>);

impl Default for StatusSet {
    /// 200 to 299.
    fn default() -> StatusSet {
        StatusSet(vec![(200, 299)])
    }
}

impl StatusSet {
    /// Reads statuses and ranges between which there are commas or blanks: `200-299,301`.
    ///
    /// # Errors
    /// [`ModelError::Invalid`].
    pub fn parse(text: &str) -> Result<StatusSet, ModelError> {
        let refuse = |problem: String| {
            let allowed = "use statuses from 100 to 999 and ranges of them, such as 200-299,301";
            ModelError::invalid("status", text, problem, allowed)
        };
        let mut ranges = Vec::new();
        let separator = |c: char| c == ',' || c.is_ascii_whitespace();
        for item in text.split(separator).filter(|item| !item.is_empty()) {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let number = |text: &str| {
                let number = text.parse::<u16>().ok();
                number.filter(|status| (100..=999).contains(status))
            };
            let (Some(first), Some(last)) = (number(first), number(last)) else {
                return Err(refuse(format!("contains '{item}', which is no status")));
            };
            if last < first {
                return Err(refuse(format!(
                    "contains '{item}', which ends before it begins"
                )));
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        ranges.dedup();
        match ranges.is_empty() {
            true => Err(refuse("is empty".to_string())),
            false => Ok(StatusSet(ranges)),
        }
    }

    /// Whether a status will do.
    pub fn contains(&self, status: u16) -> bool {
        self.0
            .iter()
            .any(|&(first, last)| (first..=last).contains(&status))
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for StatusSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StatusSet, D::Error> {
        let text = NumberOrText::deserialize(deserializer)?.0;
        StatusSet::parse(&text).map_err(D::Error::custom)
    }
}

/// A digest of a page's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Digest {
    /// RFC 1321, as keepalived's `genhash` computes it. It guards against accidents, not against anybody.
    Md5([u8; 16]),
    /// FIPS 180-4.
    Sha256([u8; 32]),
}

impl Digest {
    /// Reads 32 hexadecimal digits (MD5) or 64 (SHA-256).
    ///
    /// # Errors
    /// [`ModelError::Invalid`].
    pub fn parse(text: &str) -> Result<Digest, ModelError> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect();
        let octets = digits.map(|d| d.chunks(2).map(|p| p[0] << 4 | p[p.len() - 1]).collect());
        let octets: Vec<u8> = octets.unwrap_or_default();
        match text.len() {
            32 => octets.try_into().ok().map(Digest::Md5),
            64 => octets.try_into().ok().map(Digest::Sha256),
            _ => None,
        }
        .ok_or_else(|| {
            let allowed = "use 32 hexadecimal digits for MD5 or 64 for SHA-256";
            ModelError::invalid("digest", text, "is not a digest", allowed)
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets: &[u8] = match self {
            Digest::Md5(octets) => octets,
            Digest::Sha256(octets) => octets,
        };
        octets.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A regular expression that is sought in a page's body, in the syntax of the `regex` crate: Perl's without look-around and
/// back-references, so that a hostile body cannot make it slow. `$` is the end of the body, or before its last line end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] for one that is malformed or too large.
    pub fn parse(text: &str) -> Result<Pattern, ModelError> {
        let refuse = |problem: String| {
            let allowed = "use a regular expression without look-around and back-references";
            ModelError::invalid("regex", text, problem, allowed)
        };
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(refuse(format!("has {} octets", text.len())));
        }
        let pattern = Pattern(text.to_string());
        pattern.compile().map_err(|error| {
            let error = error.to_string();
            let line = error.lines().last().unwrap_or_default();
            let line = line.strip_prefix("error: ").unwrap_or(line);
            refuse(format!("is not a regular expression ({line})"))
        })?;
        Ok(pattern)
    }

    /// Makes it ready for use.
    ///
    /// # Errors
    /// None for a pattern that was read.
    pub fn compile(&self) -> Result<regex::bytes::Regex, regex::Error> {
        regex::bytes::RegexBuilder::new(&self.0)
            .size_limit(PATTERN_SIZE)
            .dfa_size_limit(PATTERN_SIZE)
            .build()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What has to come back for a datagram.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Nothing: silence will do, only an ICMP error will not.
    #[default]
    None,
    /// Anything.
    Any,
    /// Something that begins so.
    Begins(Masked),
}

impl Reply {
    /// Reads `none`, `any`, or what [`Masked::parse`] takes.
    ///
    /// # Errors
    /// [`ModelError::Invalid`].
    pub fn parse(text: &str) -> Result<Reply, ModelError> {
        match text {
            _ if text.eq_ignore_ascii_case("none") => Ok(Reply::None),
            _ if text.eq_ignore_ascii_case("any") => Ok(Reply::Any),
            _ => Masked::parse("reply", text).map(Reply::Begins),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::None => f.pad("none"),
            Reply::Any => f.pad("any"),
            Reply::Begins(masked) => masked.fmt(f),
        }
    }
}

/// Type of a DNS record (RFC 1035, 3596, 2782).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// IPv4 address.
    A,
    /// Name server.
    Ns,
    /// Canonical name.
    Cname,
    /// Start of a zone.
    #[default]
    Soa,
    /// Pointer.
    Ptr,
    /// Mail exchange.
    Mx,
    /// Text.
    Txt,
    /// IPv6 address.
    Aaaa,
    /// Service.
    Srv,
    /// Everything that there is.
    Any,
}

const RECORD_TYPES: &[Word<RecordType>] = &[
    (RecordType::A, "A", &[]),
    (RecordType::Ns, "NS", &[]),
    (RecordType::Cname, "CNAME", &[]),
    (RecordType::Soa, "SOA", &[]),
    (RecordType::Ptr, "PTR", &[]),
    (RecordType::Mx, "MX", &[]),
    (RecordType::Txt, "TXT", &[]),
    (RecordType::Aaaa, "AAAA", &[]),
    (RecordType::Srv, "SRV", &[]),
    (RecordType::Any, "ANY", &[]),
];

impl RecordType {
    /// Its number in a packet.
    pub const fn number(self) -> u16 {
        match self {
            RecordType::A => 1,
            RecordType::Ns => 2,
            RecordType::Cname => 5,
            RecordType::Soa => 6,
            RecordType::Ptr => 12,
            RecordType::Mx => 15,
            RecordType::Txt => 16,
            RecordType::Aaaa => 28,
            RecordType::Srv => 33,
            RecordType::Any => 255,
        }
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        words::name(RECORD_TYPES, self)
    }

    /// Reads a word, in any case.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`].
    pub fn parse(text: &str) -> Result<RecordType, ModelError> {
        words::parse(RECORD_TYPES, "record-type", text)
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A page and what has to come back for it. In TOML and JSON a page without wishes may be just its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Url {
    /// From its slash on, with its query.
    pub path: String,
    /// Statuses that will do; 200 to 299 by default.
    #[serde(default)]
    pub status: StatusSet,
    /// Digest of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What has to occur in the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<Pattern>,
    /// Whether it must not occur instead.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub regex_no_match: bool,
    /// Virtual host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl Url {
    /// A page without wishes.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] for something else than a path.
    pub fn parse(path: &str) -> Result<Url, ModelError> {
        let problem = if !path.starts_with('/') {
            "does not begin with a slash".to_string()
        } else if path.len() > MAX_TEXT {
            format!("has {} octets", path.len())
        } else if let Some(c) = path.chars().find(|c| !c.is_ascii_graphic()) {
            format!("contains '{}'", c.escape_debug())
        } else {
            return Ok(Url {
                path: path.to_string(),
                status: StatusSet::default(),
                digest: None,
                regex: None,
                regex_no_match: false,
                host: None,
            });
        };
        Err(ModelError::invalid(
            "url",
            path,
            problem,
            "use path and query of the page, such as /health, with %HH for what is no printable ASCII",
        ))
    }

    /// Checks what belongs together.
    ///
    /// # Errors
    /// [`ModelError::Invalid`].
    pub(super) fn check(&self) -> Result<(), ModelError> {
        Url::parse(&self.path)?;
        if let Some(host) = &self.host {
            check_host("host", host)?;
        }
        match self.regex_no_match && self.regex.is_none() {
            true => Err(ModelError::invalid(
                "regex-no-match",
                "yes",
                "is given without regex",
                "say what must not occur in the body",
            )),
            false => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        struct Fields {
            path: String,
            #[serde(default)]
            status: StatusSet,
            digest: Option<Digest>,
            regex: Option<Pattern>,
            #[serde(default)]
            regex_no_match: bool,
            host: Option<String>,
        }
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Url;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path such as /health, or a table with path, status and so on")
            }

            fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<Url, E> {
                Url::parse(path).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Url, A::Error> {
                let fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Url {
                    path: fields.path,
                    status: fields.status,
                    digest: fields.digest,
                    regex: fields.regex,
                    regex_no_match: fields.regex_no_match,
                    host: fields.host,
                })
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Checks what stands in `Host:`, HELO or SNI: letters, digits and what addresses and ports need.
///
/// # Errors
/// [`ModelError::Invalid`] for `field`.
pub(super) fn check_host(field: &'static str, host: &str) -> Result<(), ModelError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    let problem = if host.is_empty() {
        "is empty".to_string()
    } else if host.len() > 255 {
        format!("has {} octets", host.len())
    } else if let Some(c) = host.chars().find(|c| !good(*c)) {
        format!("contains '{}'", c.escape_debug())
    } else {
        return Ok(());
    };
    let allowed = "use a host name such as www.example.com";
    Err(ModelError::invalid(
        field,
        host.escape_debug().to_string(),
        problem,
        allowed,
    ))
}

/// A number, or text.
struct NumberOrText(String);

impl<'de> Deserialize<'de> for NumberOrText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NumberOrText, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = NumberOrText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<NumberOrText, E> {
                Ok(NumberOrText(number.to_string()))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<NumberOrText, E> {
                Ok(NumberOrText(number.to_string()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<NumberOrText, E> {
                Ok(NumberOrText(text.to_string()))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Values that are text in TOML and JSON.
macro_rules! as_text {
    ($($type:ty = $parse:expr),* $(,)?) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(&text).map_err(D::Error::custom)
            }
        }
    )*};
}

as_text!(
    Digest = Digest::parse,
    Pattern = Pattern::parse,
    Reply = Reply::parse,
    RecordType = RecordType::parse,
    super::Bytes = |text: &str| super::Bytes::parse("payload", text),
);
