//! The words for what can be said about a health check.

use crate::words::Word;

/// One thing that can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Kind of the test, or the path of a script.
    Test,
    /// Script or file.
    Path,
    /// Arguments of a script.
    Argument,
    /// How a script answers.
    Contract,
    /// Whether a script or file gives weights.
    Weight,
    /// Ping before each test.
    Ping,
    /// Down until proved to be up.
    Alpha,
    /// Time that a test may take.
    Timeout,
    /// Time between tests.
    Interval,
    /// Failures that it takes.
    Count,
    /// Successes that it takes.
    Rise,
    /// Quick repetitions.
    Retries,
    /// Time before each of them.
    RetryDelay,
    /// Time within which the first test comes.
    WarmUp,
    /// Variation of the interval in percent.
    Jitter,
    /// Port that is asked.
    Port,
    /// Address that is asked.
    Address,
    /// Address that is asked from.
    Source,
    /// A page.
    Url,
    /// Statuses of the page before it.
    Status,
    /// Digest of the page before it.
    Digest,
    /// Pattern of the page before it.
    Regex,
    /// Whether the pattern must not occur.
    RegexNoMatch,
    /// Virtual host of the page before it, or of all.
    Host,
    /// Name in TLS.
    Sni,
    /// Whether the certificate counts.
    Verify,
    /// Certificates that are trusted.
    CaFile,
    /// What a datagram contains.
    Payload,
    /// What has to come back.
    Reply,
    /// Name that is asked for.
    Query,
    /// Type that is asked for.
    RecordType,
    /// What has to be answered.
    Answer,
    /// Name in HELO.
    Helo,
    /// Where the load of servers is learned.
    Load,
    /// How often.
    LoadInterval,
    /// What is left of a share at least.
    LoadLeast,
    /// Port of an agent.
    LoadPort,
    /// Community of an SNMP agent.
    Community,
}

/// The words for them. Each may have `hc-` before it, as ilbadm's have.
pub const FIELDS: &[Word<Field>] = &[
    (Field::Test, "test", &[]),
    (Field::Timeout, "timeout", &["tout"]),
    (Field::Count, "count", &["fall"]),
    (Field::Interval, "interval", &["intl"]),
    (Field::Rise, "rise", &[]),
    (Field::Retries, "retries", &["retry"]),
    (Field::RetryDelay, "retry-delay", &["delay-before-retry"]),
    (Field::WarmUp, "warm-up", &["warmup"]),
    (Field::Jitter, "jitter", &[]),
    (Field::Ping, "ping", &["def-ping"]),
    (Field::Alpha, "alpha", &[]),
    (Field::Port, "port", &["connect-port"]),
    (Field::Address, "address", &["connect-ip"]),
    (Field::Source, "source", &["bindto"]),
    (Field::Url, "url", &["urls"]),
    (Field::Status, "status", &["status-code"]),
    (Field::Digest, "digest", &[]),
    (Field::Regex, "regex", &[]),
    (Field::RegexNoMatch, "regex-no-match", &[]),
    (Field::Host, "host", &["virtualhost"]),
    (Field::Sni, "sni", &[]),
    (Field::Verify, "verify", &[]),
    (Field::CaFile, "ca-file", &[]),
    (Field::Payload, "payload", &[]),
    (Field::Reply, "reply", &[]),
    (Field::Query, "query", &[]),
    (Field::RecordType, "record-type", &["type"]),
    (Field::Answer, "answer", &[]),
    (Field::Helo, "helo", &["helo-name"]),
    (Field::Path, "path", &[]),
    (Field::Argument, "argument", &["arg", "arguments"]),
    (Field::Contract, "contract", &[]),
    (Field::Weight, "weight", &[]),
    (Field::Load, "load", &[]),
    (Field::LoadInterval, "load-interval", &[]),
    (Field::LoadLeast, "load-least", &["load-min"]),
    (Field::LoadPort, "load-port", &[]),
    (Field::Community, "community", &[]),
];
