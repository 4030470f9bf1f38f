//! What one test found.

use std::io;
use std::time::Duration;

use libilb::health::{Code, Finding, Layer, Weight, printable};
use libilb::healthcheck::Kind;

use crate::fsm::Evidence;

/// What a test says about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is well.
    Good,
    /// It did not answer the ping before the test.
    Unreachable,
    /// It is not.
    Dead,
    /// Nothing: it could not be asked, or we were late.
    Unknown,
}

/// The result of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What it says.
    pub verdict: Verdict,
    /// Where and why.
    pub finding: Finding,
    /// Round-trip time in microseconds.
    pub rtt: Option<u64>,
    /// Weight that the test gives.
    pub weight: Option<Weight>,
}

impl Outcome {
    /// What the state machine makes of it.
    pub fn evidence(&self) -> Evidence {
        match self.verdict {
            Verdict::Good => Evidence::Good {
                rtt: self.rtt,
                weight: self.weight,
            },
            Verdict::Unreachable => Evidence::Unreachable,
            Verdict::Dead => Evidence::Dead,
            Verdict::Unknown => Evidence::None,
        }
    }

    /// Puts a result into the common form.
    pub(crate) fn new(kind: Kind, took: Duration, result: Result<Success, Failure>) -> Outcome {
        let duration = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let finding = |layer, code, number, words: &str| Finding {
            kind,
            layer,
            code,
            number,
            duration,
            words: printable(words),
        };
        match result {
            Ok(success) => Outcome {
                verdict: Verdict::Good,
                finding: finding(success.layer, Code::Ok, success.number, &success.words),
                rtt: match success.rtt {
                    Rtt::Duration => Some(duration),
                    Rtt::Micros(micros) => Some(micros),
                    Rtt::None => None,
                },
                weight: success.weight,
            },
            Err(failure) => Outcome {
                verdict: match failure.code {
                    Code::NotAsked => Verdict::Unknown,
                    _ => Verdict::Dead,
                },
                finding: finding(failure.layer, failure.code, failure.number, &failure.words),
                rtt: None,
                weight: None,
            },
        }
    }
}

/// How a test went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Success {
    pub layer: Layer,
    pub number: Option<i64>,
    pub words: String,
    pub rtt: Rtt,
    pub weight: Option<Weight>,
}

/// The round-trip time of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rtt {
    /// As long as it took.
    Duration,
    /// Microseconds.
    Micros(u64),
    /// It has none.
    None,
}

impl Success {
    pub fn at(layer: Layer) -> Success {
        Success {
            layer,
            number: None,
            words: String::new(),
            rtt: Rtt::Duration,
            weight: None,
        }
    }
}

/// How it did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub layer: Layer,
    pub code: Code,
    pub number: Option<i64>,
    pub words: String,
}

impl Failure {
    pub fn new(layer: Layer, code: Code, words: impl Into<String>) -> Failure {
        Failure {
            layer,
            code,
            number: None,
            words: words.into(),
        }
    }

    pub fn with_number(self, number: impl Into<i64>) -> Failure {
        Failure {
            number: Some(number.into()),
            ..self
        }
    }

    /// Something that this machine could not do.
    pub fn local(what: &str, error: &io::Error) -> Failure {
        Failure::new(
            Layer::Local,
            Code::NotAsked,
            format!("cannot {what}: {}", reason(error)),
        )
    }

    /// An error of a socket, at the layer that was being talked at.
    pub fn of_socket(layer: Layer, error: &io::Error) -> Failure {
        use nix::errno::Errno;
        let errno = error.raw_os_error().map(Errno::from_raw);
        let (layer, code) = match errno {
            Some(Errno::ECONNREFUSED) => (Layer::L4, Code::Refused),
            Some(Errno::ECONNRESET) => (layer, Code::Reset),
            Some(Errno::EPIPE) => (layer, Code::Closed),
            Some(Errno::ETIMEDOUT) => (layer, Code::Timeout),
            Some(
                Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::EHOSTDOWN
                | Errno::ENETDOWN
                | Errno::ENONET
                | Errno::ENOPROTOOPT
                | Errno::EPROTO,
            ) => (Layer::L3, Code::Unreachable),
            Some(
                Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOBUFS
                | Errno::ENOMEM
                | Errno::EACCES
                | Errno::EPERM
                | Errno::EADDRNOTAVAIL
                | Errno::EADDRINUSE
                | Errno::EAGAIN
                | Errno::EAFNOSUPPORT
                | Errno::EINVAL,
            ) => (Layer::Local, Code::NotAsked),
            _ => match error.kind() {
                io::ErrorKind::UnexpectedEof => (layer, Code::Closed),
                io::ErrorKind::TimedOut => (layer, Code::Timeout),
                _ => (layer, Code::Closed),
            },
        };
        Failure::new(layer, code, reason(error))
    }
}

/// What the system says, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_lowercase(),
        None => text,
    }
}
