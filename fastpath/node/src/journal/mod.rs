//! What the daemons say, and to whom: to systemd's journal with fields, when that listens; in words to standard error otherwise.
//!
//! Events that somebody may wait for have a number that never changes, in the field `MESSAGE_ID`: [`events`] has them all, and
//! [`catalog`] what `journalctl -x` says of them. They are given as
//! `warn!(message_id = SERVER_DOWN.id, ilb_rule = name, ilb_server = id, "words")`; fields whose names begin with `ilb_` are
//! for the journal alone, because the words of the message have them, too.

pub mod catalog;
pub mod events;

use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Begins to log, for the whole program: from `info` on, or as the environment variable ILB_LOG says.
pub fn start() {
    let filter = EnvFilter::try_from_env("ILB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::registry().with(filter);
    if let Some(Ok(journal)) = is_heard().then(tracing_journald::layer) {
        log.with(
            journal
                .with_field_prefix(None)
                .with_priority_mappings(PRIORITIES),
        )
        .init();
        return;
    }
    let words = format::debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        name if is_for_the_journal(name) => Ok(()),
        name => write!(writer, " {name}={value:?}"),
    });
    log.with(
        tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .fmt_fields(words),
    )
    .init();
}

/// As syslog has them: what is worth a note every day is information.
const PRIORITIES: PriorityMappings = PriorityMappings {
    error: Priority::Error,
    warn: Priority::Warning,
    info: Priority::Informational,
    debug: Priority::Debug,
    trace: Priority::Debug,
};

/// Whether a field's content is in the words as well.
fn is_for_the_journal(field: &str) -> bool {
    field == "message_id" || field.starts_with("ilb_")
}

/// Whether what is written to standard error goes to the journal: systemd then says device and inode of that connection
/// (systemd.exec(5), `$JOURNAL_STREAM`), which may have been inherited by somebody whose standard error is another.
fn is_heard() -> bool {
    let (Ok(stream), Ok(stderr)) = (
        std::env::var("JOURNAL_STREAM"),
        fs::metadata("/proc/self/fd/2"),
    ) else {
        return false;
    };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}
