//! What the health checks have found out: the state of each server, how it came about, and in whose words.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::healthcheck::Kind;
use crate::words::{self, Word};

/// Transitions that are kept for each server.
pub const TRANSITIONS: usize = 32;
/// Longest text of a peer that is kept, in octets.
pub const MAX_WORDS: usize = 256;

/// Every server of every rule that is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HealthReport {
    /// By rule, then in the order of the group.
    pub servers: Vec<ServerHealth>,
}

/// A server in a rule, as its health check sees it. Times of day are milliseconds since 1970, UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServerHealth {
    /// Name of the rule.
    pub rule: String,
    /// Id of the server.
    pub server: String,
    /// Name of the health check.
    pub check: String,
    /// What it asks.
    pub kind: Kind,
    /// Address that is asked.
    pub address: IpAddr,
    /// Port that is asked, if it has one that does not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// See [`HealthState`].
    pub state: HealthState,
    /// Whether it takes new connections as far as its health is concerned.
    pub up: bool,
    /// Failures in a row; 0 after a success.
    pub fails: u32,
    /// Successes in a row since the last failure, up to the number that would bring it back.
    #[serde(default)]
    pub successes: u32,
    /// When the last test ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// When the next one begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Smoothed round-trip time in microseconds: three quarters of what it was and one of the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt: Option<u64>,
    /// Weight that the check gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
    /// Its load, where the check looks at that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadReport>,
    /// What the last test found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Finding>,
    /// The last [`TRANSITIONS`] changes of state, the latest last.
    #[serde(default)]
    pub transitions: Vec<Transition>,
}

/// What is known of a server's load, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoadReport {
    /// What is looked at, as the check says it.
    pub source: String,
    /// The smoothed reading for a person, such as `37 %` or `1.5 ms`; none while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Its share of new connections in thousandths of the configured one; none before the first reading of a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u16>,
    /// Why there was no reading, if there was none last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is believed of a server.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// Nothing yet.
    #[default]
    UnInit,
    /// It answers as it should.
    Alive,
    /// It does not answer the ping that goes before the test.
    Unreach,
    /// Its test fails.
    Dead,
    /// It is not tested: the server or the rule is disabled.
    Disabled,
}

/// The words for them, ilbadm's.
pub const STATES: &[Word<HealthState>] = &[
    (HealthState::UnInit, "un-init", &[]),
    (HealthState::Alive, "alive", &[]),
    (HealthState::Unreach, "unreach", &[]),
    (HealthState::Dead, "dead", &[]),
    (HealthState::Disabled, "disabled", &[]),
];

impl HealthState {
    /// Its word.
    pub fn name(self) -> &'static str {
        words::name(STATES, self)
    }

    /// Whether a server in this state was found to be down.
    pub const fn is_down(self) -> bool {
        matches!(self, HealthState::Unreach | HealthState::Dead)
    }
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Transition {
    /// When.
    pub time: u64,
    /// State before.
    pub from: HealthState,
    /// State after.
    pub to: HealthState,
    /// Name of the health check.
    pub check: String,
    /// Results in a row that it took.
    pub count: u32,
    /// The last of them.
    #[serde(flatten)]
    pub finding: Finding,
}

/// What a test found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// What was asked: [`Kind::Ping`] also for the ping before another test.
    pub kind: Kind,
    /// How far it got.
    pub layer: Layer,
    /// What happened there.
    pub code: Code,
    /// HTTP status, SMTP reply, DNS response code, exit code or signal, ICMP code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// How long it took, in microseconds.
    pub duration: u64,
    /// What a person reads: the peer's own words where it said any, else ours. At most [`MAX_WORDS`] octets, printable.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub words: String,
}

/// Such as `L7/status 503 after 1.2 ms: Service Unavailable`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.layer, self.code)?;
        if let Some(number) = self.number {
            write!(f, " {number}")?;
        }
        let (millis, micros) = (self.duration / 1000, self.duration % 1000);
        write!(f, " after {millis}.{} ms", micros / 100)?;
        match self.words.is_empty() {
            true => Ok(()),
            false => write!(f, ": {}", self.words),
        }
    }
}

/// How far a test got: the layer that had the last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Layer {
    /// This machine: sockets, files, programs.
    #[serde(rename = "local")]
    Local,
    /// Network: ping, routes, neighbours.
    #[serde(rename = "L3")]
    L3,
    /// Transport: a connection or a datagram.
    #[serde(rename = "L4")]
    L4,
    /// TLS.
    #[serde(rename = "L6")]
    L6,
    /// The service itself.
    #[serde(rename = "L7")]
    L7,
}

const LAYERS: &[Word<Layer>] = &[
    (Layer::Local, "local", &[]),
    (Layer::L3, "L3", &[]),
    (Layer::L4, "L4", &[]),
    (Layer::L6, "L6", &[]),
    (Layer::L7, "L7", &[]),
];

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(words::name(LAYERS, *self))
    }
}

/// What happened at a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// All was as it should be.
    Ok,
    /// No answer in time.
    Timeout,
    /// Nobody listens: a reset, or ICMP "port unreachable".
    Refused,
    /// No way there: ICMP says so, or no neighbour answers, or there is no route.
    Unreachable,
    /// The connection was reset.
    Reset,
    /// The connection was closed too early.
    Closed,
    /// A TLS handshake failed.
    Handshake,
    /// A certificate is not to be trusted.
    Certificate,
    /// The status or reply code is none of those that will do.
    Status,
    /// The body has another digest.
    Digest,
    /// The pattern does not occur, or must not.
    Regex,
    /// The answer is another one.
    Answer,
    /// The answer is malformed.
    Protocol,
    /// The answer is larger than a check reads.
    TooLarge,
    /// A script ended with a code that means dead.
    Exit,
    /// A script was ended by a signal.
    Killed,
    /// A script or file said nothing that can be understood.
    Output,
    /// A script or file is not there or cannot be used.
    Missing,
    /// This machine could not ask; that says nothing about the server.
    NotAsked,
    /// An administrator did it.
    Administrator,
}

/// The words for them.
pub const CODES: &[Word<Code>] = &[
    (Code::Ok, "ok", &[]),
    (Code::Timeout, "timeout", &[]),
    (Code::Refused, "refused", &[]),
    (Code::Unreachable, "unreachable", &[]),
    (Code::Reset, "reset", &[]),
    (Code::Closed, "closed", &[]),
    (Code::Handshake, "handshake", &[]),
    (Code::Certificate, "certificate", &[]),
    (Code::Status, "status", &[]),
    (Code::Digest, "digest", &[]),
    (Code::Regex, "regex", &[]),
    (Code::Answer, "answer", &[]),
    (Code::Protocol, "protocol", &[]),
    (Code::TooLarge, "too-large", &[]),
    (Code::Exit, "exit", &[]),
    (Code::Killed, "killed", &[]),
    (Code::Output, "output", &[]),
    (Code::Missing, "missing", &[]),
    (Code::NotAsked, "not-asked", &[]),
    (Code::Administrator, "administrator", &[]),
];

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(words::name(CODES, *self))
    }
}

/// A weight that a script or file gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// Instead of the server's own.
    Set(u16),
    /// On top of the server's own, which cannot fall below 0.
    Add(i32),
    /// This many thousandths of the server's own, 1 to 1000: its share by its load.
    Share(u16),
}

impl Weight {
    /// What becomes of a server's own weight.
    pub fn apply(self, weight: u16) -> u16 {
        match self {
            Weight::Set(weight) => weight,
            Weight::Add(more) => {
                let sum = i64::from(weight) + i64::from(more);
                u16::try_from(sum.clamp(0, u16::MAX.into())).unwrap_or(u16::MAX)
            }
            // Who is loaded takes less, not nothing.
            Weight::Share(share) => {
                let part = u32::from(weight) * u32::from(share.min(1000)) / 1000;
                u16::try_from(part).unwrap_or(u16::MAX).max(weight.min(1))
            }
        }
    }
}

/// What a peer said, fit to be shown: one line, printable, at most [`MAX_WORDS`] octets.
pub fn printable(words: &str) -> String {
    let mut shown = String::new();
    for c in words.trim().chars() {
        let c = if c.is_control() || c.is_whitespace() {
            ' '
        } else {
            c
        };
        if shown.len() + c.len_utf8() > MAX_WORDS {
            break;
        }
        if !(c == ' ' && shown.ends_with(' ')) {
            shown.push(c);
        }
    }
    shown.truncate(shown.trim_end().len());
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        Finding {
            kind: Kind::Http,
            layer: Layer::L7,
            code: Code::Status,
            number: Some(503),
            duration: 1234,
            words: "Service Unavailable".to_string(),
        }
    }

    #[test]
    fn a_finding_reads_like_a_sentence() {
        assert_eq!(
            finding().to_string(),
            "L7/status 503 after 1.2 ms: Service Unavailable"
        );
        let silent = Finding {
            layer: Layer::L4,
            code: Code::Timeout,
            number: None,
            duration: 5_000_000,
            words: String::new(),
            ..finding()
        };
        assert_eq!(silent.to_string(), "L4/timeout after 5000.0 ms");
    }

    #[test]
    fn a_report_travels_as_json_and_tolerates_what_is_new() {
        let health = ServerHealth {
            rule: "web".to_string(),
            server: "_g.0".to_string(),
            check: "c".to_string(),
            kind: Kind::Http,
            address: "192.0.2.1".parse().unwrap(),
            port: Some(80),
            state: HealthState::Dead,
            up: false,
            fails: 3,
            successes: 0,
            last: Some(1_700_000_000_000),
            next: None,
            rtt: Some(1500),
            weight: Some(Weight::Add(-3)),
            load: None,
            result: Some(finding()),
            transitions: vec![Transition {
                time: 1_700_000_000_000,
                from: HealthState::Alive,
                to: HealthState::Dead,
                check: "c".to_string(),
                count: 3,
                finding: finding(),
            }],
        };
        let report = HealthReport {
            servers: vec![health],
        };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<HealthReport>(&json).unwrap(), report);
        let newer = json.replacen("{\"rule\"", "{\"mood\":\"fine\",\"rule\"", 1);
        assert_eq!(
            serde_json::from_str::<HealthReport>(&newer).unwrap(),
            report
        );
        for part in [
            "\"state\":\"dead\"",
            "\"layer\":\"L7\"",
            "\"code\":\"status\"",
            "\"weight\":{\"add\":-3}",
        ] {
            assert!(json.contains(part), "{part} in {json}");
        }
    }

    #[test]
    fn weights_stay_in_their_range() {
        for (weight, own, result) in [
            (Weight::Set(9), 1, 9),
            (Weight::Add(5), 10, 15),
            (Weight::Add(-11), 10, 0),
            (Weight::Add(i32::MAX), 10, u16::MAX),
            (Weight::Share(1000), 100, 100),
            (Weight::Share(330), 100, 33),
            (Weight::Share(10), 3, 1),
            (Weight::Share(10), 0, 0),
            (Weight::Share(u16::MAX), 7, 7),
        ] {
            assert_eq!(weight.apply(own), result);
        }
    }

    #[test]
    fn words_of_peers_are_tamed() {
        assert_eq!(
            printable("  220 mail\r\n\x1b[31m  ready\0 "),
            "220 mail [31m ready"
        );
        let long = "ü".repeat(1000);
        assert!(printable(&long).len() <= MAX_WORDS);
    }
}
