//! Checkers, and what virtual and real servers say about them.
//!
//! keepalived checks each server by checkers of its own; ilb's servers of a rule are checked in one way. The way that most
//! servers have is taken, the others are reported.

use super::super::report::Kind;
use super::super::service::Said;
use super::draft::Draft;
use super::tree::Statement;
use super::{Reader, milliseconds, said, switch};
use crate::healthcheck::{Field, HealthCheck, HealthCheckSettings};
use crate::model::{Configuration, RuleSettings};

/// Kinds of checkers, with the test that each becomes.
const CHECKERS: [(&str, &str); 9] = [
    ("HTTP_GET", "http"),
    ("SSL_GET", "https"),
    ("TCP_CHECK", "tcp"),
    ("SMTP_CHECK", "smtp"),
    ("DNS_CHECK", "dns"),
    ("MISC_CHECK", "script"),
    ("UDP_CHECK", "udp"),
    ("PING_CHECK", "ping"),
    ("FILE_CHECK", "file"),
];

/// Whether it begins a checker.
pub(super) fn is_checker(word: &str) -> bool {
    word == "BFD_CHECK" || CHECKERS.iter().any(|(checker, _)| *checker == word)
}

/// What is said for all checkers of a virtual or real server. What a checker says itself counts more.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults {
    /// Milliseconds.
    pub delay_loop: Option<u32>,
    pub delay_before_retry: Option<u32>,
    pub connect_timeout: Option<u32>,
    pub warmup: Option<u32>,
    pub retry: Option<u32>,
    pub alpha: bool,
    /// Servers that fail keep their connections.
    pub inhibit: bool,
    pub virtualhost: Option<String>,
}

impl Defaults {
    /// Takes up a directive, if it is one of these.
    pub fn take(&mut self, statement: &Statement) -> Option<Result<(), String>> {
        let value = statement.value();
        let time = |field: &mut Option<u32>| match value.and_then(milliseconds) {
            Some(millis) => {
                *field = Some(millis);
                Ok(())
            }
            None => Err("it is not a number of seconds".to_string()),
        };
        Some(match statement.key() {
            "delay_loop" => time(&mut self.delay_loop),
            "delay_before_retry" => time(&mut self.delay_before_retry),
            "connect_timeout" => time(&mut self.connect_timeout),
            "warmup" => time(&mut self.warmup),
            "retry" | "nb_get_retry" => match value.and_then(|text| text.parse().ok()) {
                Some(count) => {
                    self.retry = Some(count);
                    Ok(())
                }
                None => Err("it is not a number".to_string()),
            },
            "alpha" => match switch(statement) {
                Some(alpha) => {
                    self.alpha = alpha;
                    Ok(())
                }
                None => Err("it is on or off".to_string()),
            },
            "inhibit_on_failure" => match switch(statement) {
                Some(inhibit) => {
                    self.inhibit = inhibit;
                    Ok(())
                }
                None => Err("it is on or off".to_string()),
            },
            "virtualhost" => {
                self.virtualhost = value.map(str::to_string);
                Ok(())
            }
            _ => return None,
        })
    }
}

/// A health check with the place where it stands.
#[derive(Debug, Clone)]
pub(super) struct Check {
    said: Said,
    check: HealthCheck,
}

/// The check that a rule gets, with its name.
pub(super) struct Chosen {
    name: String,
    settings: HealthCheckSettings,
}

/// Gives a rule its check.
pub(super) fn attach(chosen: &Chosen, rule: &mut RuleSettings, configuration: &mut Configuration) {
    let there = configuration.check(&chosen.name).is_some();
    // It was checked before; only too many of them can be the reason.
    if there
        || configuration
            .create_check(&chosen.name, &chosen.settings)
            .is_ok()
    {
        rule.health_check = Some(chosen.name.clone());
    }
}

impl Reader<'_> {
    /// The one check that the checkers of a real server make.
    pub(super) fn checks_of(&mut self, tests: &[&Statement], defaults: &Defaults) -> Option<Check> {
        let pings = |s: &&&Statement| s.key() == "PING_CHECK";
        let ping = tests.iter().find(pings);
        let mut others = tests.iter().filter(|s| !pings(s));
        let first = others.find_map(|statement| self.checker(statement, defaults, ping.is_some()));
        for more in others {
            let note =
                "a rule has one health check, which may ping as well; a script can combine several";
            self.say(more, Kind::LeftOut, note);
        }
        match (first, ping) {
            (Some(check), Some(ping)) => {
                self.say(ping, Kind::Taken, "the health check pings first");
                Some(check)
            }
            (Some(check), None) => Some(check),
            (None, Some(ping)) => self.checker(ping, defaults, false),
            (None, None) => None,
        }
    }

    /// Reads one checker.
    fn checker(&mut self, statement: &Statement, defaults: &Defaults, ping: bool) -> Option<Check> {
        let Some((_, test)) = CHECKERS.iter().find(|(word, _)| *word == statement.key()) else {
            self.say(statement, Kind::LeftOut, "ilb does not speak BFD");
            return None;
        };
        let mut draft = Draft {
            statement,
            settings: HealthCheckSettings {
                ping: Some(ping),
                jitter: Some(0),
                ..HealthCheckSettings::default()
            },
            defaults: defaults.clone(),
            problems: Vec::new(),
        };
        if *test != "script" {
            draft.set(statement, Field::Test, test);
        }
        for inner in statement.inner() {
            if draft.common(inner) {
                continue;
            }
            match *test {
                "http" | "https" => draft.http(inner, *test == "https"),
                "smtp" => draft.smtp(inner),
                "dns" => draft.dns(inner),
                "script" => draft.script(inner),
                "udp" => draft.udp(inner),
                "file" => self.file(&mut draft, inner),
                _ => draft.unknown(inner, &[]),
            }
        }
        draft.finish(test);
        let lost = draft
            .problems
            .iter()
            .any(|(at, kind, _)| kind.is_loss() && std::ptr::eq(*at, statement));
        for (at, kind, note) in draft.problems {
            self.say(at, kind, note);
        }
        if lost {
            return None;
        }
        match draft.settings.check_all("imported") {
            Ok(check) => Some(Check {
                said: said(statement, ""),
                check,
            }),
            Err(errors) => {
                for error in errors {
                    self.builder
                        .wrong(&statement.place, &statement.what(), &error);
                }
                None
            }
        }
    }

    /// `FILE_CHECK`.
    fn file<'s>(&mut self, draft: &mut Draft<'s>, statement: &'s Statement) {
        match statement.key() {
            "track_file" => {
                let name = statement.value().unwrap_or_default();
                match self.files.get(name) {
                    Some(file) => {
                        let path = file.path.clone().unwrap_or_default();
                        let weight = file.weight.clone().unwrap_or_else(|| "1".to_string());
                        draft.set(statement, Field::Path, &path);
                        draft.weight(&weight);
                    }
                    None => draft.note(
                        draft.statement,
                        Kind::Wrong,
                        format!("there is no track_file '{name}'"),
                    ),
                }
            }
            "dynamic" => draft.set(statement, Field::Weight, "yes"),
            "weight" => draft.weight(&statement.values().join(" ")),
            _ => draft.unknown(statement, &["track_file", "dynamic", "weight"]),
        }
    }

    /// The check of a rule: that of most servers. Others are reported.
    pub(super) fn choose(
        &mut self,
        block: &Statement,
        checks: Vec<(Said, Option<Check>)>,
    ) -> Option<Chosen> {
        let mut counts: Vec<(&Check, usize)> = Vec::new();
        for check in checks.iter().filter_map(|(_, check)| check.as_ref()) {
            match counts
                .iter_mut()
                .find(|(other, _)| other.check == check.check)
            {
                Some((_, count)) => *count += 1,
                None => counts.push((check, 1)),
            }
        }
        let most = counts.iter().map(|&(_, count)| count).max()?;
        let chosen = counts.iter().find(|&&(_, count)| count == most)?.0.clone();
        let (name, new) = self.checks.name(&chosen.check);
        for (server, check) in &checks {
            let (at, kind, note) = match check {
                None => (
                    server,
                    Kind::Changed,
                    format!("it was not checked; the rule's health check {name} asks it, too"),
                ),
                Some(check) if check.check == chosen.check => {
                    let shared = if new {
                        ""
                    } else {
                        ", which other rules have, too"
                    };
                    (
                        &check.said,
                        Kind::Taken,
                        format!("health check {name}{shared}"),
                    )
                }
                Some(check) => (
                    &check.said,
                    Kind::LeftOut,
                    format!(
                        "all servers of a rule are checked in one way; most of {} are by that of line {}",
                        block.words.join(" "),
                        chosen.said.place.line
                    ),
                ),
            };
            self.report().add(&at.place, kind, &at.what, note);
        }
        Some(Chosen {
            settings: HealthCheckSettings {
                name: None,
                ..HealthCheckSettings::from(&chosen.check).brief()
            },
            name,
        })
    }
}
