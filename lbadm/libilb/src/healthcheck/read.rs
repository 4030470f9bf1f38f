//! Settings of a health check as `key=value`.

use std::net::IpAddr;

use super::values::{CheckPort, Digest, Pattern, RecordType, Reply, StatusSet, Url};
use super::{Bytes, CONTRACTS, FIELDS, Field, HealthCheckSettings, Time};
use crate::error::ModelError;
use crate::words;

impl HealthCheckSettings {
    /// Reads what stands behind `-h`: `key=value` with commas between. A comma that belongs to a value has a backslash
    /// before it, or no key behind it (`hc-status=200,301`). A key without value sets its default again. `hc-url` may be
    /// there several times; status, digest, regex and host belong to the URL before them, a host before every URL to all.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`] for a key, [`ModelError::Invalid`] for a value or a key that is there twice.
    pub fn parse(&mut self, text: &str) -> Result<(), ModelError> {
        let mut pairs: Vec<(Field, String)> = Vec::new();
        for piece in pieces(text) {
            match (piece.split_once('='), pairs.last_mut()) {
                (Some((key, value)), _) => {
                    pairs.push((parse_field(key.trim())?, value.trim().to_string()));
                }
                (None, Some((_, value))) => {
                    value.push(',');
                    value.push_str(&piece);
                }
                (None, None) => {
                    let allowed = "write it like test=tcp,timeout=2";
                    return Err(ModelError::invalid(
                        "setting",
                        piece,
                        "is not key=value",
                        allowed,
                    ));
                }
            }
        }
        pairs
            .into_iter()
            .try_for_each(|(key, value)| self.set(key, &value))
    }

    /// Says one thing. Nothing as value means the default.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] or [`ModelError::UnknownWord`] for the value, or if it was said before.
    pub fn set(&mut self, field: Field, text: &str) -> Result<(), ModelError> {
        let name = words::name(FIELDS, field);
        if text.is_empty() && !matches!(field, Field::Payload | Field::Argument) {
            self.cleared.insert(field);
            return Ok(());
        }
        let owned = || Ok(text.to_string());
        match field {
            Field::Test => once(name, &mut self.test, owned()),
            Field::Path => once(name, &mut self.path, owned()),
            Field::Contract => {
                let contract = words::parse(CONTRACTS, "contract", text);
                once(name, &mut self.contract, contract)
            }
            Field::Weight => once(name, &mut self.weight, yes_or_no(name, text)),
            Field::Ping => once(name, &mut self.ping, yes_or_no(name, text)),
            Field::Alpha => once(name, &mut self.alpha, yes_or_no(name, text)),
            Field::Timeout => once(name, &mut self.timeout, Time::parse(name, text)),
            Field::Interval => once(name, &mut self.interval, Time::parse(name, text)),
            Field::Count => once(name, &mut self.count, number(name, text)),
            Field::Rise => once(name, &mut self.rise, number(name, text)),
            Field::Retries => once(name, &mut self.retries, number(name, text)),
            Field::RetryDelay => once(name, &mut self.retry_delay, Time::parse(name, text)),
            Field::WarmUp => once(name, &mut self.warm_up, Time::parse(name, text)),
            Field::Jitter => {
                let percent = text.strip_suffix('%').unwrap_or(text);
                once(name, &mut self.jitter, number(name, percent))
            }
            Field::Port => once(name, &mut self.port, CheckPort::parse(name, text)),
            Field::Address => once(name, &mut self.address, ip_address(name, text)),
            Field::Source => once(name, &mut self.source, ip_address(name, text)),
            Field::Url => {
                let url = Url::parse(text)?;
                self.urls.get_or_insert_default().push(url);
                Ok(())
            }
            Field::Status => {
                self.url()?.status = StatusSet::parse(text)?;
                Ok(())
            }
            Field::Digest => once(name, &mut self.url()?.digest, Digest::parse(text)),
            Field::Regex => once(name, &mut self.url()?.regex, Pattern::parse(text)),
            Field::RegexNoMatch => {
                self.url()?.regex_no_match = yes_or_no(name, text)?;
                Ok(())
            }
            Field::Host => match self.urls.as_mut().and_then(|urls| urls.last_mut()) {
                Some(url) => once(name, &mut url.host, owned()),
                None => once(name, &mut self.host, owned()),
            },
            Field::Sni => once(name, &mut self.sni, owned()),
            Field::Verify => once(name, &mut self.verify, yes_or_no(name, text)),
            Field::CaFile => once(name, &mut self.ca_file, owned()),
            Field::Payload => once(name, &mut self.payload, Bytes::parse(name, text)),
            Field::Reply => once(name, &mut self.reply, Reply::parse(text)),
            Field::Query => once(name, &mut self.query, owned()),
            Field::RecordType => once(name, &mut self.record_type, RecordType::parse(text)),
            Field::Answer => once(name, &mut self.answer, owned()),
            Field::Helo => once(name, &mut self.helo, owned()),
            Field::Load => once(name, &mut self.load, owned()),
            Field::LoadInterval => once(name, &mut self.load_interval, Time::parse(name, text)),
            Field::LoadLeast => {
                let percent = text.strip_suffix('%').unwrap_or(text);
                once(name, &mut self.load_least, number(name, percent))
            }
            Field::LoadPort => once(name, &mut self.load_port, number(name, text)),
            Field::Community => once(name, &mut self.community, owned()),
            Field::Argument => {
                let list = self.arguments.get_or_insert_default();
                if !text.is_empty() {
                    list.push(text.to_string());
                }
                Ok(())
            }
        }
    }

    /// The page that was named last; `/` if none was.
    fn url(&mut self) -> Result<&mut Url, ModelError> {
        let urls = self.urls.get_or_insert_default();
        if urls.is_empty() {
            urls.push(Url::parse("/")?);
        }
        // There is one.
        let last = urls.len() - 1;
        Ok(&mut urls[last])
    }
}

/// Text between commas that have no backslash before them. A backslash stays unless it is before a comma or another one.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, pieces.last_mut()) {
            (',', _) => pieces.push(String::new()),
            ('\\', Some(last)) => match rest.next_if(|next| [',', '\\'].contains(next)) {
                Some(next) => last.push(next),
                None => last.push(c),
            },
            (c, Some(last)) => last.push(c),
            (_, None) => {}
        }
    }
    pieces
}

/// Finds a key, with or without `hc-`.
fn parse_field(word: &str) -> Result<Field, ModelError> {
    let bare = match word.get(..3) {
        Some(prefix) if prefix.eq_ignore_ascii_case("hc-") => &word[3..],
        _ => word,
    };
    words::find(FIELDS, bare).ok_or_else(|| {
        let known = FIELDS
            .iter()
            .flat_map(|(_, name, aliases)| std::iter::once(*name).chain(aliases.iter().copied()));
        ModelError::UnknownWord {
            field: "key",
            value: word.to_string(),
            allowed: words::all(FIELDS),
            suggestion: words::nearest(bare, known),
        }
    })
}

fn once<T>(
    field: &'static str,
    place: &mut Option<T>,
    value: Result<T, ModelError>,
) -> Result<(), ModelError> {
    match place.replace(value?) {
        None => Ok(()),
        Some(_) => Err(ModelError::invalid(
            "key",
            field,
            "is given twice",
            "give it once",
        )),
    }
}

fn yes_or_no(field: &'static str, text: &str) -> Result<bool, ModelError> {
    const WORDS: &[words::Word<bool>] = &[
        (true, "yes", &["true", "on", "y", "1"]),
        (false, "no", &["false", "off", "n", "0"]),
    ];
    let found = words::find(WORDS, text);
    found.ok_or_else(|| ModelError::invalid(field, text, "is neither yes nor no", "use yes or no"))
}

fn number(field: &'static str, text: &str) -> Result<u32, ModelError> {
    let number = text.parse();
    number.map_err(|_| ModelError::invalid(field, text, "is not a number", "use a whole number"))
}

fn ip_address(field: &'static str, text: &str) -> Result<IpAddr, ModelError> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse().map_err(|_| {
        let allowed = "use an address such as 192.0.2.1 or 2001:db8::1";
        ModelError::invalid(field, text, "is not an IP address", allowed)
    })
}
