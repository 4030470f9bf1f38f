//! One checker while it is read: each directive becomes a setting of a health check, or is reported.

use super::super::report::Kind;
use super::checkers::Defaults;
use super::milliseconds;
use super::tree::Statement;
use super::values::too_many;
use crate::healthcheck::{Field, HealthCheckSettings};

/// Milliseconds between checks.
const DELAY_LOOP: u32 = 60_000;
/// Milliseconds that a check may take.
const CONNECT_TIMEOUT: u32 = 5_000;

/// The test with its settings while it is read.
pub(super) struct Draft<'s> {
    pub statement: &'s Statement,
    pub settings: HealthCheckSettings,
    pub defaults: Defaults,
    pub problems: Vec<(&'s Statement, Kind, String)>,
}

impl<'s> Draft<'s> {
    pub fn set(&mut self, statement: &'s Statement, field: Field, value: &str) {
        if let Err(error) = self.settings.set(field, value) {
            self.problems
                .push((statement, Kind::Wrong, error.to_string()));
        }
    }

    pub fn note(&mut self, statement: &'s Statement, kind: Kind, note: impl Into<String>) {
        self.problems.push((statement, kind, note.into()));
    }
}

/// What only binds the checker itself.
const LEFT_OUT: [(&str, &str); 3] = [
    (
        "bind_port",
        "checks come from ports that the kernel chooses",
    ),
    ("bind_if", "checks leave by the route to the server"),
    ("fwmark", "packets of checks are not marked"),
];

impl<'s> Draft<'s> {
    /// What all checkers may say.
    pub fn common(&mut self, statement: &'s Statement) -> bool {
        let value = statement.value().unwrap_or_default();
        if let Some(problem) = too_many(statement) {
            self.note(statement, Kind::Wrong, problem);
            return true;
        }
        match statement.key() {
            "connect_ip" => self.set(statement, Field::Address, value),
            "connect_port" => self.set(statement, Field::Port, value),
            "bindto" | "bind_to" => self.set(statement, Field::Source, value),
            "log_all_failures" => self.note(
                statement,
                Kind::Unneeded,
                "'lbadm show-hc-result' shows every failure",
            ),
            key if LEFT_OUT.iter().any(|(word, _)| *word == key) => {
                let why = LEFT_OUT
                    .iter()
                    .find(|(word, _)| *word == key)
                    .map_or("", |(_, why)| why);
                self.note(statement, Kind::LeftOut, why);
            }
            // Only those of HTTP have one, and only for themselves.
            "virtualhost" => return false,
            _ => match self.defaults.take(statement) {
                Some(Ok(())) => {}
                Some(Err(problem)) => self.note(statement, Kind::Wrong, problem),
                None => return false,
            },
        }
        true
    }

    pub fn unknown(&mut self, statement: &'s Statement, known: &[&str]) {
        const COMMON: [&str; 10] = [
            "connect_ip",
            "connect_port",
            "bindto",
            "bind_if",
            "bind_port",
            "connect_timeout",
            "retry",
            "delay_before_retry",
            "delay_loop",
            "warmup",
        ];
        let all = known.iter().chain(&COMMON).copied();
        let hint = crate::words::nearest(statement.key(), all)
            .map_or(String::new(), |word| format!("; did you mean '{word}'?"));
        let note = format!(
            "'{}' is not known in {}{hint}",
            statement.key(),
            self.statement.key()
        );
        self.note(statement, Kind::Wrong, note);
    }

    pub fn http(&mut self, statement: &'s Statement, tls: bool) {
        match statement.key() {
            "url" => self.url(statement),
            "virtualhost" => self.defaults.virtualhost = statement.value().map(str::to_string),
            "http_protocol" => self.note(
                statement,
                Kind::Unneeded,
                "each page is asked for on a connection of its own",
            ),
            "fast_recovery" => self.note(
                statement,
                Kind::Unneeded,
                "all pages are asked for in one test",
            ),
            // The name is sent whenever there is one.
            "enable_sni" if tls => {}
            _ => self.unknown(
                statement,
                &[
                    "url",
                    "virtualhost",
                    "http_protocol",
                    "fast_recovery",
                    "enable_sni",
                ],
            ),
        }
    }

    fn url(&mut self, block: &'s Statement) {
        let inner = block.inner();
        let find = |key| inner.iter().find(|s| s.key() == key);
        let Some(path) = find("path").and_then(Statement::value) else {
            self.note(block, Kind::Wrong, "a url has a path");
            return;
        };
        self.set(block, Field::Url, path);
        let flags = find("regex_options")
            .map(|s| self.regex_options(s))
            .unwrap_or_default();
        for statement in inner {
            let values = statement.values();
            match statement.key() {
                "path" | "regex_options" => {}
                "status_code" => self.set(statement, Field::Status, &values.join(",")),
                "digest" => self.set(statement, Field::Digest, &values.join("")),
                "virtualhost" => self.set(statement, Field::Host, &values.join(" ")),
                "regex" => self.set(
                    statement,
                    Field::Regex,
                    &format!("{flags}{}", values.join(" ")),
                ),
                "regex_no_match" => self.set(statement, Field::RegexNoMatch, "yes"),
                "regex_stack" => self.note(statement, Kind::Unneeded, "patterns need no stack"),
                "regex_min_offset" | "regex_max_offset" => {
                    self.note(
                        statement,
                        Kind::LeftOut,
                        "patterns are looked for in the whole body",
                    );
                }
                _ => self.unknown(
                    statement,
                    &[
                        "path",
                        "status_code",
                        "digest",
                        "virtualhost",
                        "regex",
                        "regex_no_match",
                        "regex_options",
                    ],
                ),
            }
        }
    }

    /// The flags that stand before a pattern.
    fn regex_options(&mut self, statement: &'s Statement) -> String {
        let mut flags = String::new();
        for option in statement.values() {
            match option.as_str() {
                "caseless" => flags.push('i'),
                "multiline" => flags.push('m'),
                "dotall" => flags.push('s'),
                "extended" => flags.push('x'),
                "ungreedy" => flags.push('U'),
                "utf" | "ucp" | "never_backslash_c" | "auto_callout" | "no_auto_possess"
                | "no_dotstar_anchor" | "no_start_optimize" | "no_auto_capture" => {}
                other => {
                    let note = format!("patterns have no option '{other}'");
                    self.note(statement, Kind::LeftOut, note);
                }
            }
        }
        match flags.is_empty() {
            true => flags,
            false => format!("(?{flags})"),
        }
    }

    pub fn smtp(&mut self, statement: &'s Statement) {
        match statement.key() {
            "helo_name" => self.set(
                statement,
                Field::Helo,
                statement.value().unwrap_or_default(),
            ),
            "host" => {
                if std::ptr::eq(self.first_host(), statement) {
                    for inner in statement.inner() {
                        if !self.common(inner) {
                            self.unknown(inner, &[]);
                        }
                    }
                } else {
                    let note =
                        "a health check asks one address; a check of several can be a script";
                    self.note(statement, Kind::LeftOut, note);
                }
            }
            _ => self.unknown(statement, &["helo_name", "host"]),
        }
    }

    fn first_host(&self) -> &'s Statement {
        let mut inner = self.statement.inner().iter();
        inner.find(|s| s.key() == "host").unwrap_or(self.statement)
    }

    pub fn dns(&mut self, statement: &'s Statement) {
        let value = statement.value().unwrap_or_default();
        match statement.key() {
            "type" => self.set(statement, Field::RecordType, value),
            "name" => self.set(statement, Field::Query, value),
            _ => self.unknown(statement, &["type", "name"]),
        }
    }

    pub fn script(&mut self, statement: &'s Statement) {
        match statement.key() {
            "misc_path" => {
                // A quoted path has its arguments in it.
                let words = statement.values().iter();
                let words: Vec<&str> = words.flat_map(|w| w.split_whitespace()).collect();
                let Some((path, arguments)) = words.split_first() else {
                    self.note(statement, Kind::Wrong, "it names no script");
                    return;
                };
                if !path.starts_with('/') {
                    let note = "a script is named by its absolute path";
                    self.note(self.statement, Kind::LeftOut, note);
                    return;
                }
                self.set(statement, Field::Test, path);
                self.set(statement, Field::Contract, "exit-code");
                for argument in arguments {
                    self.set(statement, Field::Argument, argument);
                }
            }
            "misc_timeout" => match statement.value().and_then(milliseconds) {
                Some(millis) => self.defaults.connect_timeout = Some(millis),
                None => self.note(statement, Kind::Wrong, "it is not a number of seconds"),
            },
            "misc_dynamic" => self.set(statement, Field::Weight, "yes"),
            "user" => self.note(statement, Kind::LeftOut, "scripts run as the manager does"),
            _ => self.unknown(
                statement,
                &["misc_path", "misc_timeout", "misc_dynamic", "user"],
            ),
        }
    }

    pub fn udp(&mut self, statement: &'s Statement) {
        let digits = statement.values();
        match statement.key() {
            "payload" => match hexadecimal(digits, false) {
                Some(text) => self.set(statement, Field::Payload, &text),
                None => self.note(statement, Kind::Wrong, "it is not hexadecimal"),
            },
            "require_reply" if digits.is_empty() => self.set(statement, Field::Reply, "any"),
            "require_reply" => match hexadecimal(digits, true) {
                Some(text) => self.set(statement, Field::Reply, &text),
                None => self.note(statement, Kind::Wrong, "it is not hexadecimal"),
            },
            "min_reply_length" | "max_reply_length" => {
                self.note(
                    statement,
                    Kind::LeftOut,
                    "the length of a reply is not looked at",
                );
            }
            _ => self.unknown(
                statement,
                &[
                    "payload",
                    "require_reply",
                    "min_reply_length",
                    "max_reply_length",
                ],
            ),
        }
    }

    /// The weight of a file: what its number is multiplied by.
    pub fn weight(&mut self, text: &str) {
        if text != "1" {
            let note = format!(
                "the number in the file is added to the weight as it is; here it has the weight {text}"
            );
            self.note(self.statement, Kind::LeftOut, note);
        }
    }

    /// Settles what several directives say together.
    pub fn finish(&mut self, test: &str) {
        let defaults = std::mem::take(&mut self.defaults);
        if test == "file" {
            // Its own words say all.
        } else {
            let delay_loop = defaults.delay_loop.unwrap_or(DELAY_LOOP);
            let (retry, delay) = match test {
                "http" | "https" => (1, 3_000),
                "dns" => (3, delay_loop),
                "script" => (0, 1_000),
                _ => (1, 1_000),
            };
            let retry = defaults.retry.unwrap_or(retry);
            let most = crate::healthcheck::MAX_COUNT;
            if retry >= most {
                let note = format!(
                    "a server is dead after {most} failures in a row, not after {retry} and one"
                );
                self.note(self.statement, Kind::Changed, note);
            }
            self.settings.count = Some(retry.saturating_add(1).min(most));
            let delay = defaults.delay_before_retry.unwrap_or(delay);
            self.settings.retry_delay =
                (retry > 0).then(|| crate::healthcheck::Time::from_millis(delay));
            let timeout = defaults.connect_timeout.unwrap_or(match test {
                "script" => delay_loop,
                _ => CONNECT_TIMEOUT,
            });
            self.settings.timeout = Some(crate::healthcheck::Time::from_millis(timeout.max(1)));
        }
        let interval = defaults.delay_loop.unwrap_or(DELAY_LOOP);
        self.settings.interval = Some(crate::healthcheck::Time::from_millis(interval.max(10)));
        self.settings.warm_up = defaults.warmup.map(crate::healthcheck::Time::from_millis);
        self.settings.alpha = Some(defaults.alpha);
        let statement = self.statement;
        match test {
            "http" | "https" => {
                let none = self.settings.urls.as_ref().is_none_or(Vec::is_empty);
                if none && statement.inner().iter().any(|s| s.key() == "url") {
                    self.note(statement, Kind::Wrong, "none of its pages can be asked for");
                } else if none {
                    let note = "without url it asks for nothing; the page / is asked for";
                    self.note(statement, Kind::Changed, note);
                }
                if let Some(host) = defaults.virtualhost
                    && self.settings.host.is_none()
                {
                    self.settings.host = Some(host);
                }
            }
            "script" if self.settings.test.is_none() => {
                let named = self
                    .problems
                    .iter()
                    .any(|(at, ..)| std::ptr::eq(*at, statement));
                if !named {
                    self.note(statement, Kind::Wrong, "it names no script: misc_path");
                }
            }
            "udp" if self.settings.payload.is_none() => {
                let note = "an empty datagram is sent, not one of random octets";
                self.note(statement, Kind::Changed, note);
            }
            "file" if self.settings.path.is_none() => {
                let named = self
                    .problems
                    .iter()
                    .any(|(at, ..)| std::ptr::eq(*at, statement));
                if !named {
                    self.note(statement, Kind::Wrong, "it names no file: track_file");
                }
            }
            _ => {}
        }
    }
}

/// Hexadecimal digits in keepalived's free form: words of an odd number end with half an octet, which is one by itself. With
/// `wild` a digit may be `x`: it does not matter.
fn hexadecimal(words: &[String], wild: bool) -> Option<String> {
    let mut text = "0x".to_string();
    for word in words {
        let digits: Vec<char> = word.chars().collect();
        for pair in digits.chunks(2) {
            if let [_] = pair {
                text.push('0');
            }
            for &digit in pair {
                text.push(match digit {
                    'x' | 'X' if wild => '?',
                    d if d.is_ascii_hexdigit() => d,
                    _ => return None,
                });
            }
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_have_a_free_form() {
        let read = |text: &str, wild| {
            let words: Vec<String> = text.split(' ').map(String::from).collect();
            hexadecimal(&words, wild)
        };
        // The example of keepalived.conf(5).
        let example = read("Ab12f 3 456 546443123", false).unwrap();
        assert_eq!(example.to_ascii_uppercase(), "0XAB120F0345065464431203");
        assert_eq!(read("aXx1", true).as_deref(), Some("0xa??1"));
        assert_eq!(read("aXx1", false), None);
        assert_eq!(read("gg", true), None);
    }
}
