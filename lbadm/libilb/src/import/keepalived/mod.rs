//! keepalived.conf, as keepalived.conf(5) of version 2.2 describes it.
//!
//! `source` makes lines that stand for themselves, `tree` directives and blocks; each kind of block has its file.
//! Virtual servers become rules with their server groups and health checks, what belongs to VRRP is kept for the time
//! when ilb does failover.

mod checkers;
mod draft;
mod failover;
mod globals;
mod pool;
mod real_server;
mod repeat;
mod source;
mod tree;
mod values;
mod virtual_server;
mod vrrp;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use self::tree::Statement;
use super::build::Builder;
use super::report::{Kind, Report};
use super::service::{Idle, Said};
use super::{Failure, Files, Import, Options, Source};
use crate::healthcheck::HealthCheck;
use crate::vip::Vip;
use crate::words;

/// Blocks and directives that stand on their own, but for those of `globals` and `failover`.
const TOP: [&str; 6] = [
    "global_defs",
    "virtual_server",
    "virtual_server_group",
    "SSL",
    "track_file",
    "vrrp_track_file",
];

/// Whether a line that begins with this word is one of keepalived.conf.
pub(super) fn is_keyword(word: &str) -> bool {
    let bare = word.trim_end_matches('{');
    TOP.contains(&bare)
        || failover::is_block(bare)
        || globals::is_directive(bare)
        || bare.starts_with("include")
        || ["@", "~SEQ", "~LST", "$"]
            .iter()
            .any(|sign| word.starts_with(sign))
}

/// Reads a file with everything that it includes.
///
/// # Errors
/// [`Failure::Structure`] or [`Failure::TooMuch`].
pub(super) fn import(
    text: &str,
    file: &Arc<str>,
    files: &dyn Files,
    options: &Options,
) -> Result<Import, Failure> {
    let mut builder = Builder::new(options);
    let source = source::Reader::new(files, options.config_id.as_deref());
    let lines = source.read(text, file, &mut builder.report)?;
    let statements = tree::parse(&lines)?;
    drop(lines);
    let mut reader = Reader {
        builder,
        idle: Idle::default(),
        groups: HashMap::new(),
        files: HashMap::new(),
        checks: Checks::default(),
        vrrp: vrrp::Known::default(),
        failover: serde_json::Map::new(),
    };
    // What others refer to comes first, wherever it stands.
    for statement in &statements {
        reader.prepare(statement);
        reader.prepare_vrrp(statement);
    }
    for statement in &statements {
        reader.read(statement);
    }
    let Reader {
        mut builder,
        failover,
        ..
    } = reader;
    builder.report.sort();
    Ok(Import {
        source: Source::Keepalived,
        configuration: builder.configuration,
        failover,
        report: builder.report,
    })
}

/// What has been read so far.
struct Reader<'a> {
    builder: Builder<'a>,
    /// Of `lvs_timeouts`.
    idle: Idle,
    /// Virtual server groups by name.
    groups: HashMap<String, Vec<Member>>,
    /// Tracked files by name.
    files: HashMap<String, TrackedFile>,
    checks: Checks,
    vrrp: vrrp::Known,
    failover: serde_json::Map<String, serde_json::Value>,
}

/// A line of a virtual server group.
#[derive(Debug, Clone)]
enum Member {
    /// Addresses with their port; none for all.
    Addresses(Vec<IpAddr>, Option<u16>),
    /// A firewall mark.
    Mark(Said, u32),
}

/// A `track_file` block.
#[derive(Debug, Clone, Default)]
struct TrackedFile {
    path: Option<String>,
    weight: Option<String>,
}

/// Health checks that were made, so that equal ones are one.
#[derive(Debug, Default)]
struct Checks {
    /// By what they ask.
    names: HashMap<String, String>,
    taken: HashSet<String>,
}

impl Reader<'_> {
    fn report(&mut self) -> &mut Report {
        &mut self.builder.report
    }

    /// Reports what became of a directive.
    fn say(&mut self, statement: &Statement, kind: Kind, note: impl Into<String>) {
        self.builder
            .report
            .add(&statement.place, kind, &statement.what(), note);
    }

    /// Reports a word that keepalived does not know in this place.
    fn unknown(&mut self, statement: &Statement, known: &[&str]) {
        let hint = words::nearest(statement.key(), known.iter().copied())
            .map_or(String::new(), |word| format!("; did you mean '{word}'?"));
        let note = format!("'{}' is not known here{hint}", statement.key());
        self.say(statement, Kind::Wrong, note);
    }

    /// Takes up what others refer to.
    fn prepare(&mut self, statement: &Statement) {
        match statement.key() {
            "virtual_server_group" => self.group(statement),
            "track_file" | "vrrp_track_file" => self.tracked_file(statement),
            "global_defs" => {
                for inner in statement.inner() {
                    self.idle_times(inner);
                }
            }
            _ => {}
        }
    }

    fn read(&mut self, statement: &Statement) {
        match statement.key() {
            "virtual_server" => self.virtual_server(statement),
            "virtual_server_group" => {}
            "global_defs" => self.globals(statement),
            "SSL" => self.ssl(statement),
            "vrrp_instance" => self.instance(statement),
            "vrrp_sync_group" | "vrrp_script" | "track_file" | "vrrp_track_file" => {
                self.referred(statement);
            }
            key if failover::is_block(key) => self.keep(statement),
            key if globals::is_directive(key) => self.global(statement),
            _ => self.unknown(statement, &[&TOP[..], failover::BLOCKS].concat()),
        }
    }

    fn tracked_file(&mut self, statement: &Statement) {
        let Some(name) = statement.value() else {
            return;
        };
        let mut file = TrackedFile::default();
        for inner in statement.inner() {
            match inner.key() {
                "file" => file.path = inner.value().map(str::to_string),
                "weight" => file.weight = Some(inner.values().join(" ")),
                _ => {}
            }
        }
        self.files.insert(name.to_string(), file);
    }

    /// What a firewall mark stands for, in every protocol that the user said.
    fn marked(&mut self, said: &Said, number: u32) -> Option<Vec<Vip>> {
        self.builder.mark(&said.place, &said.what, number)
    }
}

impl Checks {
    /// The name of a check like this one; a new one if there is none.
    fn name(&mut self, check: &HealthCheck) -> (String, bool) {
        let mut nameless = check.clone();
        nameless.name.clear();
        // All that can be said about it, in a fixed order.
        let key = format!("{nameless:?}");
        if let Some(name) = self.names.get(&key) {
            return (name.clone(), false);
        }
        let kind = check.test.kind();
        let numbered = (1u32..).map(|n| match n {
            1 => kind.to_string(),
            n => format!("{kind}-{n}"),
        });
        let mut free = numbered.filter(|name| !self.taken.contains(name));
        let name = free.next().unwrap_or_default();
        self.taken.insert(name.clone());
        self.names.insert(key, name.clone());
        (name, true)
    }
}

/// A word with its place, out of a directive.
fn said(statement: &Statement, value: &str) -> Said {
    Said {
        place: statement.place.clone(),
        what: statement.what(),
        value: value.to_string(),
    }
}

/// `on`, `true` and `yes`, or nothing at all, against `off`, `false` and `no`.
fn switch(statement: &Statement) -> Option<bool> {
    match statement.value().map(str::to_ascii_lowercase).as_deref() {
        None | Some("on" | "true" | "yes") => Some(true),
        Some("off" | "false" | "no") => Some(false),
        Some(_) => None,
    }
}

/// Reads a number of whole seconds or a fraction of them, and gives milliseconds.
fn milliseconds(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds: f64 = text.parse().ok().filter(|_| plain)?;
    let millis = (seconds * 1000.0).ceil();
    // The cast cannot lose anything after this.
    (0.0..=f64::from(u32::MAX))
        .contains(&millis)
        .then_some(millis as u32)
}
