//! Configurations of other balancers, read into ours.
//!
//! Each reader makes a [`Configuration`] and a [`Report`] that says of every thing in the file what became of it and
//! why. Nothing is looked up in the network or taken from the running system; what a file leaves open ([`Options`]) is
//! asked for. Whatever stands in a file, reading it ends, and takes memory in proportion to the limits below.

pub mod ipvsadm;
pub mod keepalived;
pub mod lines;
pub mod report;

mod build;
mod files;
mod glob;
mod options;
mod service;

use std::fmt;
use std::sync::Arc;

pub use files::{Files, Memory, System};
pub use options::{Mark, Options};
pub use report::{Entry, Kind, Place, Report};

use crate::document::{self, Document};
use crate::model::Configuration;
use crate::words::{self, Word};

/// Largest file, in bytes; all included ones together.
pub const MAX_BYTES: usize = 16 << 20;

/// Which system a file is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Commands of lbadm, as export-config writes them.
    Lbadm,
    /// What `ilbadm export-config` of illumos and OpenSolaris writes.
    Ilbadm,
    /// What `ipvsadm-save` writes.
    Ipvsadm,
    /// keepalived.conf.
    Keepalived,
}

const SOURCES: &[Word<Source>] = &[
    (Source::Lbadm, "lbadm", &[]),
    (Source::Ilbadm, "ilbadm", &[]),
    (Source::Ipvsadm, "ipvsadm", &["ipvsadm-save"]),
    (Source::Keepalived, "keepalived", &["keepalived.conf"]),
];

impl Source {
    /// Every word.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SOURCES.iter().map(|(_, name, _)| *name)
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        words::name(SOURCES, self)
    }

    /// Reads its word.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`](crate::ModelError::UnknownWord).
    pub fn parse(text: &str) -> Result<Source, crate::ModelError> {
        words::parse(SOURCES, "format", text)
    }

    /// The format of a file, by the first of its lines that is of one only.
    ///
    /// # Errors
    /// [`Failure::Unknown`] or [`Failure::Document`].
    pub fn recognise(text: &str) -> Result<Source, Failure> {
        let mut begun = false;
        for line in text.lines() {
            let line = line.trim_start_matches('\u{feff}').trim();
            let Some(word) = line.split_whitespace().next() else {
                continue;
            };
            if line.starts_with(['#', '!']) {
                continue;
            }
            if let Some(source) = of_word(word) {
                return Ok(source);
            }
            if !begun && (line.starts_with('{') || of_document(line)) {
                return Err(Failure::Document);
            }
            begun = true;
        }
        Err(Failure::Unknown)
    }
}

/// The format that a line with this first word is of.
fn of_word(word: &str) -> Option<Source> {
    let program = word.rsplit('/').next().unwrap_or(word);
    match program {
        "lbadm" => return Some(Source::Lbadm),
        "ilbadm" => return Some(Source::Ilbadm),
        "ipvsadm" => return Some(Source::Ipvsadm),
        _ => {}
    }
    const VERBS: [&str; 8] = [
        "create-", "delete-", "enable-", "disable-", "add-", "remove-", "modify-", "show-",
    ];
    let lower = word.to_ascii_lowercase();
    if VERBS.iter().any(|verb| lower.starts_with(verb)) {
        return Some(Source::Ilbadm);
    }
    if ipvsadm::is_command(word) {
        return Some(Source::Ipvsadm);
    }
    keepalived::is_keyword(word).then_some(Source::Keepalived)
}

/// Whether a line is of a TOML document.
fn of_document(line: &str) -> bool {
    let table = line.starts_with('[') && line.ends_with(']');
    let key = |c: char| c.is_ascii_alphanumeric() || "-_.\"".contains(c);
    let pair = line.split_once('=');
    table || pair.is_some_and(|(k, _)| !k.trim().is_empty() && k.trim().chars().all(key))
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What was read.
#[derive(Debug, Clone)]
pub struct Import {
    /// Which system it came from.
    pub source: Source,
    /// Rules, server groups and health checks; a rule is there whole or not at all.
    pub configuration: Configuration,
    /// What belongs to failover, by kind of block, then by name; empty if there is nothing.
    pub failover: serde_json::Map<String, serde_json::Value>,
    /// What became of each thing.
    pub report: Report,
}

impl Import {
    /// What was read as a document, with what is kept for failover.
    pub fn document(&self) -> Document {
        let mut document = Document::of(&self.configuration);
        let kept = self.failover.iter();
        document.kept = kept
            .map(|(kind, value)| (kind.clone(), document::Value::from_json(value)))
            .collect();
        document
    }
}

/// Why a file cannot be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It is of no known format.
    #[error(
        "the format is not recognised: say it with --from lbadm, ilbadm, ipvsadm or keepalived"
    )]
    Unknown,
    /// It is one of our own documents.
    #[error("this is a document, not a list of commands: use 'lbadm apply'")]
    Document,
    /// It is too large.
    #[error("{place}: {what} is more than can be read: {limit}")]
    TooMuch {
        /// Where the limit was reached.
        place: Place,
        /// What there is too much of.
        what: &'static str,
        /// What is allowed.
        limit: String,
    },
    /// A quote or a block has no end, or an end has no beginning.
    #[error("{place}: {problem}")]
    Structure {
        /// Where.
        place: Place,
        /// What is wrong.
        problem: String,
    },
    /// A file could not be read.
    #[error("cannot read {file}: {cause}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        cause: String,
    },
}

/// Reads what `ipvsadm-save` wrote, or a keepalived.conf. `file` names it in the report; what a keepalived.conf includes is
/// read by `files`.
///
/// # Errors
/// [`Failure`]: it cannot be read at all. Everything else is in the report.
pub fn import(
    source: Source,
    text: &str,
    file: &str,
    files: &dyn Files,
    options: &Options,
) -> Result<Import, Failure> {
    let name: Arc<str> = file.into();
    check_size(text, &name)?;
    match source {
        Source::Keepalived => keepalived::import(text, &name, files, options),
        _ => ipvsadm::import(text, &name, options),
    }
}

/// Checks that a file is not too large.
///
/// # Errors
/// [`Failure::TooMuch`].
pub fn check_size(text: &str, file: &Arc<str>) -> Result<(), Failure> {
    if text.len() <= MAX_BYTES {
        return Ok(());
    }
    Err(Failure::TooMuch {
        place: Place {
            file: file.clone(),
            line: 1,
        },
        what: "the file",
        limit: format!("{} MiB at most", MAX_BYTES >> 20),
    })
}
