//! Takes values out of a parsed TOML text, notes every mistake with its place, and goes on with a default.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::suggest::nearest;
use super::{Mistake, Queues};

/// Longest name of an interface in bytes (`IFNAMSIZ` is 16 with its terminating zero, `include/uapi/linux/if.h`).
const MAX_INTERFACE_NAME: usize = 15;

/// Collects the mistakes of one text.
pub(super) struct Reader<'t> {
    text: &'t str,
    mistakes: Vec<(usize, String)>,
}

/// A section of the file; empty when the file has none of that name.
pub(super) struct Section<'a, 't> {
    name: &'static str,
    /// Offset of the section's header, or 0.
    offset: usize,
    table: Option<&'a DeTable<'t>>,
}

impl<'a, 't> Section<'a, 't> {
    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'t>>> {
        entry(self.table?, key).map(|(_, value)| value)
    }
}

fn entry<'a, 't>(table: &'a DeTable<'t>, key: &str) -> Option<(usize, &'a Spanned<DeValue<'t>>)> {
    table
        .iter()
        .find(|(name, _)| name.get_ref() == key)
        .map(|(name, value)| (name.span().start, value))
}

impl<'t> Reader<'t> {
    /// The parsed text, and a reader that has already noted its mistakes of syntax.
    pub(super) fn new(text: &'t str) -> (DeTable<'t>, Reader<'t>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut reader = Reader {
            text,
            mistakes: Vec::new(),
        };
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            reader.note(offset, format!("not TOML: {}", error.message()));
        }
        (table.into_inner(), reader)
    }

    /// `Ok` when there was no mistake, otherwise all of them in the order of the text.
    pub(super) fn finish(mut self) -> Result<(), Vec<Mistake>> {
        if self.mistakes.is_empty() {
            return Ok(());
        }
        self.mistakes.sort_by_key(|(offset, _)| *offset);
        self.mistakes.dedup();
        Err(self
            .mistakes
            .iter()
            .map(|(offset, message)| {
                let before = self.text.get(..*offset).unwrap_or(self.text);
                let line_start = before.rfind('\n').map_or(0, |at| at + 1);
                Mistake {
                    line: before.matches('\n').count() + 1,
                    column: before[line_start..].chars().count() + 1,
                    message: message.clone(),
                }
            })
            .collect())
    }

    fn note(&mut self, offset: usize, message: String) {
        self.mistakes.push((offset, message));
    }

    /// Notes a mistake about a key's value, or about the section when the key is not there.
    pub(super) fn mistake_at(&mut self, section: &Section<'_, '_>, key: &str, message: &str) {
        let offset = section
            .value(key)
            .map_or(section.offset, |value| value.span().start);
        self.note(offset, format!("{}.{key}: {message}", section.name));
    }

    /// Notes sections and keys that do not exist.
    pub(super) fn only_known_sections(
        &mut self,
        table: &DeTable<'_>,
        sections: &[(&'static str, &[&'static str])],
    ) {
        for (name, value) in table.iter() {
            let typed: &str = name.get_ref();
            let Some((_, keys)) = sections.iter().find(|(known, _)| *known == typed) else {
                let names: Vec<&str> = sections.iter().map(|(known, _)| *known).collect();
                let hint = match home_of(typed, sections) {
                    Some(home) => format!("; {typed} belongs in [{home}]"),
                    None => did_you_mean(typed, &names),
                };
                let what = if value.get_ref().is_table() {
                    format!("unknown section [{typed}]")
                } else {
                    format!("unknown key {typed} outside of any section")
                };
                let message = format!("{what}; sections are {}{hint}", words(&names));
                self.note(name.span().start, message);
                continue;
            };
            let Some(inner) = value.get_ref().as_table() else {
                let message = format!(
                    "{typed}: {} is not a section; write [{typed}] on a line of its own",
                    describe(value.get_ref())
                );
                self.note(value.span().start, message);
                continue;
            };
            for (key, _) in inner.iter() {
                let typed_key: &str = key.get_ref();
                if keys.contains(&typed_key) {
                    continue;
                }
                let hint = match home_of(typed_key, sections) {
                    Some(home) => format!("; {typed_key} belongs in [{home}]"),
                    None => did_you_mean(typed_key, keys),
                };
                let message = format!(
                    "{typed}.{typed_key}: unknown key; allowed are {}{hint}",
                    words(keys)
                );
                self.note(key.span().start, message);
            }
        }
    }

    /// The section of this name.
    pub(super) fn section<'a>(
        &mut self,
        table: &'a DeTable<'t>,
        name: &'static str,
    ) -> Section<'a, 't> {
        let found = entry(table, name);
        Section {
            name,
            offset: found.map_or(0, |(offset, _)| offset),
            table: found.and_then(|(_, value)| value.get_ref().as_table()),
        }
    }

    /// A true or false.
    pub(super) fn boolean(&mut self, section: &Section<'_, '_>, key: &str, default: bool) -> bool {
        let Some(value) = section.value(key) else {
            return default;
        };
        value.get_ref().as_bool().unwrap_or_else(|| {
            let message = format!(
                "{} is not allowed; allowed are true and false",
                describe(value.get_ref())
            );
            self.mistake_at(section, key, &message);
            default
        })
    }

    /// A whole number within `range`.
    pub(super) fn integer(
        &mut self,
        section: &Section<'_, '_>,
        key: &str,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> u32 {
        let Some(value) = section.value(key) else {
            return default;
        };
        if let Some(number) = number(value.get_ref(), &range) {
            return number;
        }
        let message = format!(
            "{} is not allowed; allowed is a whole number from {} to {}",
            describe(value.get_ref()),
            range.start(),
            range.end()
        );
        self.mistake_at(section, key, &message);
        default
    }

    /// A power of two within `range`.
    pub(super) fn power_of_two(
        &mut self,
        section: &Section<'_, '_>,
        key: &str,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> u32 {
        let Some(value) = section.value(key) else {
            return default;
        };
        let given = number(value.get_ref(), &range);
        if let Some(number) = given.filter(|number| number.is_power_of_two()) {
            return number;
        }
        let hint = given.map_or(String::new(), |number| {
            let above = number.next_power_of_two();
            format!("; the nearest are {} and {above}", above / 2)
        });
        let message = format!(
            "{} is not allowed; allowed is a power of two from {} to {}{hint}",
            describe(value.get_ref()),
            range.start(),
            range.end()
        );
        self.mistake_at(section, key, &message);
        default
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        section: &Section<'_, '_>,
        key: &str,
        choices: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(value) = section.value(key) else {
            return default;
        };
        let typed = value.get_ref().as_str();
        if let Some((_, choice)) = choices.iter().find(|(word, _)| typed == Some(word)) {
            return *choice;
        }
        let known: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let quoted: Vec<String> = known.iter().map(|word| format!("{word:?}")).collect();
        let quoted: Vec<&str> = quoted.iter().map(String::as_str).collect();
        let message = format!(
            "{} is not allowed; allowed are {}{}",
            describe(value.get_ref()),
            words(&quoted),
            typed.map_or(String::new(), |typed| did_you_mean(typed, &known))
        );
        self.mistake_at(section, key, &message);
        default
    }

    /// An absolute path.
    pub(super) fn path(
        &mut self,
        section: &Section<'_, '_>,
        key: &str,
        default: PathBuf,
    ) -> PathBuf {
        let Some(value) = section.value(key) else {
            return default;
        };
        match value.get_ref().as_str() {
            Some(path) if Path::new(path).is_absolute() && !path.contains('\0') => path.into(),
            _ => {
                let message = format!(
                    "{} is not allowed; allowed is an absolute path such as {:?}",
                    describe(value.get_ref()),
                    default.display().to_string()
                );
                self.mistake_at(section, key, &message);
                default
            }
        }
    }

    /// An address and a port to listen on, if there is one.
    pub(super) fn listen(&mut self, section: &Section<'_, '_>, key: &str) -> Option<SocketAddr> {
        let value = section.value(key)?;
        let text = value.get_ref().as_str();
        if text == Some("off") {
            return None;
        }
        let address = text.and_then(|text| text.parse().ok());
        let address = address.filter(|address: &SocketAddr| address.port() != 0);
        if address.is_none() {
            let message = format!(
                "{} is not allowed; allowed are \"off\" and an address with a port from 1 to 65535, such as \"127.0.0.1:9749\" or \"[::1]:9749\"",
                describe(value.get_ref())
            );
            self.mistake_at(section, key, &message);
        }
        address
    }

    /// An address of this node, or `"all"`.
    pub(super) fn address(&mut self, section: &Section<'_, '_>, key: &str) -> Option<IpAddr> {
        let value = section.value(key)?;
        let text = value.get_ref().as_str();
        if text == Some("all") {
            return None;
        }
        let address = text.and_then(|text| text.parse().ok());
        let address = address.filter(|it: &IpAddr| !it.is_unspecified() && !it.is_multicast());
        if address.is_none() {
            let message = format!(
                "{} is not allowed; allowed are \"all\" and an address of this node, such as \"192.0.2.1\" or \"2001:db8::1\"",
                describe(value.get_ref())
            );
            self.mistake_at(section, key, &message);
        }
        address
    }

    /// `"all"` or a number of queues.
    pub(super) fn queues(&mut self, section: &Section<'_, '_>, key: &str, most: u32) -> Queues {
        let Some(value) = section.value(key) else {
            return Queues::All;
        };
        if value.get_ref().as_str() == Some("all") {
            return Queues::All;
        }
        if let Some(count) = number(value.get_ref(), &(1..=most)) {
            return Queues::Count(count);
        }
        let message = format!(
            "{} is not allowed; allowed are \"all\" and whole numbers from 1 to {most}",
            describe(value.get_ref())
        );
        self.mistake_at(section, key, &message);
        Queues::All
    }

    /// One to `most` different names of interfaces.
    pub(super) fn interfaces(
        &mut self,
        section: &Section<'_, '_>,
        key: &str,
        most: usize,
    ) -> Vec<String> {
        let allowed = format!("a list of 1 to {most} names, such as [\"eth0\", \"eth1\"]");
        let Some(value) = section.value(key) else {
            let message = format!("missing; it is required: {allowed}");
            self.mistake_at(section, key, &message);
            return Vec::new();
        };
        let Some(array) = value
            .get_ref()
            .as_array()
            .filter(|array| (1..=most).contains(&array.len()))
        else {
            let what = match value.get_ref().as_array() {
                Some(array) => format!("a list of {}", array.len()),
                None => describe(value.get_ref()),
            };
            let message = format!("{what} is not allowed; allowed is {allowed}");
            self.mistake_at(section, key, &message);
            return Vec::new();
        };
        let mut names: Vec<String> = Vec::new();
        for item in array.iter() {
            let offset = item.span().start;
            let path = format!("{}.{key}", section.name);
            match item.get_ref().as_str() {
                Some(name) if names.iter().any(|known| known == name) => {
                    self.note(
                        offset,
                        format!("{path}: {name:?} is there twice; name each interface once"),
                    );
                }
                Some(name) if is_interface_name(name) => names.push(name.to_owned()),
                _ => {
                    let message = format!(
                        "{path}: {} is not the name of an interface; allowed are 1 to {MAX_INTERFACE_NAME} bytes \
                         without spaces, '/' and ':', not \".\" or \"..\"",
                        describe(item.get_ref())
                    );
                    self.note(offset, message);
                }
            }
        }
        names
    }
}

/// What the kernel takes as a name (`dev_valid_name` in `net/core/dev.c`).
fn is_interface_name(name: &str) -> bool {
    (1..=MAX_INTERFACE_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .chars()
            .any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

fn number(value: &DeValue<'_>, range: &RangeInclusive<u32>) -> Option<u32> {
    let integer = value.as_integer()?;
    let digits = integer.as_str().replace('_', "");
    let number = u32::from_str_radix(digits.trim_start_matches('+'), integer.radix()).ok()?;
    range.contains(&number).then_some(number)
}

/// The value as a person would recognise it from the file.
fn describe(value: &DeValue<'_>) -> String {
    if let Some(text) = value.as_str() {
        format!("{text:?}")
    } else if let Some(integer) = value.as_integer() {
        match integer.radix() {
            16 => format!("0x{}", integer.as_str()),
            8 => format!("0o{}", integer.as_str()),
            2 => format!("0b{}", integer.as_str()),
            _ => integer.as_str().to_owned(),
        }
    } else if let Some(float) = value.as_float() {
        float.as_str().to_owned()
    } else if let Some(boolean) = value.as_bool() {
        boolean.to_string()
    } else if let Some(datetime) = value.as_datetime() {
        datetime.to_string()
    } else if value.is_array() {
        "a list".to_owned()
    } else {
        "a section".to_owned()
    }
}

fn home_of<'a>(key: &str, sections: &[(&'a str, &[&str])]) -> Option<&'a str> {
    sections
        .iter()
        .find(|(_, keys)| keys.contains(&key))
        .map(|(name, _)| *name)
}

fn did_you_mean(typed: &str, known: &[&str]) -> String {
    nearest(typed, known.iter().copied())
        .map_or(String::new(), |word| format!("; did you mean {word:?}?"))
}

/// `a, b and c`.
fn words(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
