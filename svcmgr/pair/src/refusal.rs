//! Why somebody at the door is not let in.

use std::fmt;
use std::net::SocketAddr;

/// Why somebody was refused. Who is refused never learns it: what he sees is the same for each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing came.
    Silent,
    /// The beginning of a greeting came, and no more of it.
    Incomplete,
    /// Something else than a greeting.
    Foreign,
    /// A greeting of another version of this protocol.
    Version,
    /// A joiner where no token is open, or a peer of old where one is.
    Purpose,
    /// A greeting that was not made with our secret, or was changed.
    Forged,
    /// A right greeting of another time: overheard long ago, or the clocks of the nodes differ too much.
    Clock,
    /// A right greeting that has been here before.
    Repeated,
    /// A right greeting, but not by the key of our peer.
    Key,
    /// Too many were at the door at once; the oldest had to go.
    Crowded,
    /// A right greeting, but no TLS 1.3 session with the right key after it.
    Handshake,
}

impl Reason {
    /// All of them, in the order of their counters.
    pub const ALL: [Reason; 11] = [
        Reason::Silent,
        Reason::Incomplete,
        Reason::Foreign,
        Reason::Version,
        Reason::Purpose,
        Reason::Forged,
        Reason::Clock,
        Reason::Repeated,
        Reason::Key,
        Reason::Crowded,
        Reason::Handshake,
    ];

    /// One word, for a label of a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Reason::Silent => "silent",
            Reason::Incomplete => "incomplete",
            Reason::Foreign => "foreign",
            Reason::Version => "version",
            Reason::Purpose => "purpose",
            Reason::Forged => "forged",
            Reason::Clock => "clock",
            Reason::Repeated => "repeated",
            Reason::Key => "key",
            Reason::Crowded => "crowded",
            Reason::Handshake => "handshake",
        }
    }

    /// For a person.
    pub const fn words(self) -> &'static str {
        match self {
            Reason::Silent => "said nothing",
            Reason::Incomplete => "did not finish its greeting",
            Reason::Foreign => "said something else than a greeting of ilb",
            Reason::Version => "greets in another version of the protocol",
            Reason::Purpose => {
                "wants to join where no token is open, or greets as a peer where one is"
            }
            Reason::Forged => "does not know the secret, or its token is not valid any longer",
            Reason::Clock => "greets with a time that is too far from ours: compare the clocks",
            Reason::Repeated => "repeats a greeting that was heard before",
            Reason::Key => "knows the secret and has another key than our peer",
            Reason::Crowded => "had to make room for others at the port",
            Reason::Handshake => "greets rightly, but gets no TLS session",
        }
    }

    /// Where it is counted.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// Somebody who was not let in.
#[derive(Debug, thiserror::Error)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Who, if the system still knew.
    pub from: Option<SocketAddr>,
    /// What is known beyond the reason; may be empty.
    pub detail: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Some(from) => write!(f, "{from} {}", self.reason.words())?,
            None => write!(f, "somebody {}", self.reason.words())?,
        }
        match self.detail.as_str() {
            "" => Ok(()),
            detail => write!(f, " ({detail})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_counter_a_label_and_words_of_its_own() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), at);
        }
        let labels: HashSet<_> = Reason::ALL.map(Reason::label).into();
        let words: HashSet<_> = Reason::ALL.map(Reason::words).into();
        assert_eq!((labels.len(), words.len()), (11, 11));
    }

    #[test]
    fn docs_pair_md_says_the_same() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/pair.md");
        let text = std::fs::read_to_string(path).unwrap();
        let after = text.split_once("<!-- begin refusals -->\n").unwrap().1;
        let table = after.split_once("<!-- end refusals -->").unwrap().0;
        let row = |reason: Reason| format!("| `{}` | {} |\n", reason.label(), reason.words());
        let rows: String = Reason::ALL.map(row).concat();
        assert_eq!(
            table,
            format!("| reason | somebody who |\n|---|---|\n{rows}")
        );
    }

    #[test]
    fn a_refusal_says_who_and_why() {
        let refusal = Refusal {
            reason: Reason::Clock,
            from: Some("[2001:db8::9]:4000".parse().unwrap()),
            detail: "61 minutes behind".to_string(),
        };
        assert_eq!(
            refusal.to_string(),
            "[2001:db8::9]:4000 greets with a time that is too far from ours: compare the clocks (61 minutes behind)"
        );
    }
}
