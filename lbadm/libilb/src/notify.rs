//! Commands that a rule has run when its servers come and go, or its quorum does.
//!
//! A command is a program with its arguments; no shell reads it. As text it is the absolute path and the arguments with blanks
//! between them; an argument with blanks stands in quotes of either kind, within which everything is as it is.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::ModelError;
use crate::words::{self, Word};

/// Most arguments of a command.
pub const MAX_ARGUMENTS: usize = 64;
/// Longest command, in octets.
pub const MAX_COMMAND: usize = 4096;

/// What a command may be run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotifyEvent {
    /// A server of the rule is alive again.
    Up,
    /// A server of the rule was found dead.
    Down,
    /// The rule has its quorum.
    QuorumUp,
    /// It has not.
    QuorumDown,
}

/// The words for them.
pub const NOTIFY_EVENTS: &[Word<NotifyEvent>] = &[
    (NotifyEvent::Up, "up", &["notify-up"]),
    (NotifyEvent::Down, "down", &["notify-down"]),
    (NotifyEvent::QuorumUp, "quorum-up", &[]),
    (NotifyEvent::QuorumDown, "quorum-down", &[]),
];

impl NotifyEvent {
    /// Its word.
    pub fn name(self) -> &'static str {
        words::name(NOTIFY_EVENTS, self)
    }

    /// Reads a word or its alias, in any case.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`].
    pub fn parse(text: &str) -> Result<NotifyEvent, ModelError> {
        words::parse(NOTIFY_EVENTS, "notify", text)
    }
}

impl fmt::Display for NotifyEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The commands of a rule.
pub type Notify = BTreeMap<NotifyEvent, NotifyCommand>;

/// Whether a text means no command.
pub fn is_none(text: &str) -> bool {
    text.trim().is_empty() || text.trim().eq_ignore_ascii_case("none")
}

/// Takes over what is said: no command takes one away.
///
/// # Errors
/// As [`NotifyCommand::from_str`].
pub(crate) fn change(
    said: &BTreeMap<NotifyEvent, String>,
    notify: &mut Notify,
) -> Result<(), ModelError> {
    for (event, text) in said {
        match is_none(text) {
            true => notify.remove(event),
            false => notify.insert(*event, text.parse()?),
        };
    }
    Ok(())
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NotifyCommand {
    /// An absolute path.
    pub path: String,
    /// What it is given.
    pub arguments: Vec<String>,
}

impl FromStr for NotifyCommand {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<NotifyCommand, ModelError> {
        let refuse = |problem: &str, allowed: String| {
            let value = text.escape_debug().to_string();
            Err(ModelError::invalid("notify", value, problem, allowed))
        };
        let example = "write PATH ARGUMENT..., such as /usr/local/bin/tell --all 'two words'";
        if text.len() > MAX_COMMAND {
            return refuse("is too long", format!("use at most {MAX_COMMAND} octets"));
        }
        if text.chars().any(char::is_control) {
            return refuse("has control characters", "leave them out".to_string());
        }
        let Some(words) = split(text) else {
            return refuse("has a quote without end", example.to_string());
        };
        let mut words = words.into_iter();
        let path = words.next().unwrap_or_default();
        if !path.starts_with('/') {
            return refuse("does not begin with an absolute path", example.to_string());
        }
        let arguments: Vec<String> = words.collect();
        if arguments.len() > MAX_ARGUMENTS {
            return refuse(
                &format!("has {} arguments", arguments.len()),
                format!("use at most {MAX_ARGUMENTS}"),
            );
        }
        Ok(NotifyCommand { path, arguments })
    }
}

/// Words between blanks that are in no quotes; none if a quote has no end.
fn split(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

impl fmt::Display for NotifyCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_word(f, &self.path)?;
        for argument in &self.arguments {
            f.write_str(" ")?;
            write_word(f, argument)?;
        }
        Ok(())
    }
}

fn write_word(f: &mut fmt::Formatter<'_>, word: &str) -> fmt::Result {
    if !word.is_empty() && !word.contains([' ', '\'', '"']) {
        return f.write_str(word);
    }
    // Each kind of quotes holds the other.
    for (n, part) in word.split('\'').enumerate() {
        if n > 0 {
            f.write_str("\"'\"")?;
        }
        if !part.is_empty() || !word.contains('\'') {
            write!(f, "'{part}'")?;
        }
    }
    Ok(())
}

impl Serialize for NotifyCommand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NotifyCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NotifyCommand, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_is_a_path_and_arguments() {
        for (text, path, arguments, shown) in [
            ("/bin/true", "/bin/true", &[][..], "/bin/true"),
            ("  /bin/a  b   c ", "/bin/a", &["b", "c"], "/bin/a b c"),
            (
                "/bin/a 'b c' \"d 'e'\" '' f'g h'\"i\"",
                "/bin/a",
                &["b c", "d 'e'", "", "fg hi"],
                "/bin/a 'b c' 'd '\"'\"'e'\"'\" '' 'fg hi'",
            ),
            (
                "'/my bin/a' $x;y|z\\",
                "/my bin/a",
                &["$x;y|z\\"],
                "'/my bin/a' $x;y|z\\",
            ),
        ] {
            let command: NotifyCommand = text.parse().unwrap();
            assert_eq!(
                (&*command.path, &*command.arguments),
                (
                    path,
                    &arguments
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()[..]
                ),
                "{text}"
            );
            assert_eq!(command.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, problem) in [
            ("true", "notify 'true' does not begin with an absolute path"),
            (
                "'' /bin/true",
                "notify '\\'\\' /bin/true' does not begin with an absolute path",
            ),
            ("/bin/a 'b", "notify '/bin/a \\'b' has a quote without end"),
            ("/bin/a\nb", "notify '/bin/a\\nb' has control characters"),
        ] {
            let error = text.parse::<NotifyCommand>().unwrap_err().to_string();
            assert!(error.starts_with(problem), "{error}");
        }
        let long = format!("/bin/a {}", "x".repeat(MAX_COMMAND));
        assert!(long.parse::<NotifyCommand>().is_err());
        let many = format!("/bin/a {}", "x ".repeat(MAX_ARGUMENTS + 1));
        assert!(many.parse::<NotifyCommand>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(arguments in prop::collection::vec("[a '\"$\\\\=,]{0,6}", 0..5)) {
            let command = NotifyCommand { path: "/bin/a".into(), arguments };
            prop_assert_eq!(command.to_string().parse::<NotifyCommand>().unwrap(), command);
        }
    }
}
