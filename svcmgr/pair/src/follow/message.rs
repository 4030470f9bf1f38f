//! What the nodes tell each other. JSON, so that nodes of different versions understand what both know: fields that one
//! does not know are left out of account, messages that one does not know are answered with [`Message::Unknown`].

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::version::{Version, VersionId};

/// The protocol that we speak best.
pub const PROTOCOL: u32 = 1;
/// The oldest that we speak: that of the release before this one.
pub const OLDEST: u32 = 1;
/// Names of versions that a greeting has at most, beyond which it is none of ours.
const MOST_IDS: usize = super::line::MOST + 1;

/// One record of the configuration as it is after a change. What it means is for the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The kind of thing that it describes.
    pub tree: String,
    /// Which one.
    pub key: String,
    /// What it is now; nothing if it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// The numbers that the next things get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// The next rule.
    pub rule: u32,
    /// The next server.
    pub server: u32,
}

/// A version and what it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The version.
    pub version: Version,
    /// What is different after it.
    pub records: Vec<Record>,
    /// Counters after it.
    pub numbers: Numbers,
}

/// A whole configuration, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    /// Its versions, oldest first.
    pub line: Vec<Version>,
    /// Everything that it has.
    pub records: Vec<Record>,
    /// Its counters.
    pub numbers: Numbers,
}

/// Who I am and what I have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol that I speak best.
    pub protocol: u32,
    /// The oldest that I speak.
    pub oldest: u32,
    /// Which node I am, 0 or 1.
    pub node: u8,
    /// See [`super::Line::ids`].
    pub line: Vec<VersionId>,
    /// Whether clients are served by my configuration.
    pub active: bool,
    /// I may lack something that only a later program than mine could keep when it was told.
    #[serde(default)]
    pub incomplete: bool,
    /// This answers a greeting, and wants none.
    #[serde(default)]
    pub answer: bool,
}

/// Why a version was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A change of my own goes first, and is on its way.
    Busy,
    /// It does not follow what I have.
    Stale,
    /// A change waits for its confirmation here, and nothing may be changed until then.
    Waiting,
    /// It is not what its name says.
    Forged,
    /// I cannot have it: it makes no sense here, or cannot be stored.
    #[serde(other)]
    Cannot,
}

impl Reason {
    /// Every one.
    pub const ALL: [Reason; 5] = [
        Reason::Busy,
        Reason::Stale,
        Reason::Waiting,
        Reason::Forged,
        Reason::Cannot,
    ];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Reason::Busy => "busy",
            Reason::Stale => "stale",
            Reason::Waiting => "waiting",
            Reason::Forged => "forged",
            Reason::Cannot => "cannot",
        }
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Message {
    /// Who I am and what I have.
    Hello(Hello),
    /// May I make this change? I have not yet.
    Offer(Delta),
    /// Changes that I have made, in their order.
    Feed {
        /// They follow one another.
        deltas: Vec<Delta>,
    },
    /// Everything, in the place of what you have.
    Whole {
        /// The newest version that you have, as far as I know.
        instead: VersionId,
        /// What you get.
        whole: Whole,
    },
    /// I have this version now, and all before it.
    Done {
        /// The version.
        id: VersionId,
    },
    /// I do not have this version.
    Refused {
        /// The version.
        id: VersionId,
        /// Why, for programs.
        reason: Reason,
        /// Why, for people.
        words: String,
    },
    /// Give me everything that you have, in the place of what I have.
    Want {
        /// The newest version that I have.
        instead: VersionId,
    },
    /// Whether clients are served by my configuration has changed.
    Active {
        /// Whether they are now.
        active: bool,
    },
    /// Somebody has taken note of what became of conflicting histories.
    Acknowledged,
    /// I do not know what you said.
    Unknown {
        /// Its kind.
        what: String,
    },
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// This.
    Message(Box<Message>),
    /// Something of a kind that we do not know.
    Unknown(String),
}

pub(super) const KINDS: [&str; 10] = [
    "hello",
    "offer",
    "feed",
    "whole",
    "done",
    "refused",
    "want",
    "active",
    "acknowledged",
    "unknown",
];

/// What is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the other node says what makes no sense: {0}")]
pub struct Nonsense(pub String);

impl Message {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        // Strings, numbers and values that are JSON already: serialising them cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// As it was received.
    ///
    /// # Errors
    /// [`Nonsense`].
    pub fn decode(octets: &[u8]) -> Result<Heard, Nonsense> {
        #[derive(Deserialize)]
        struct Kind {
            kind: String,
        }
        let nonsense = |error: serde_json::Error| Nonsense(error.to_string());
        let Kind { kind } = serde_json::from_slice(octets).map_err(nonsense)?;
        if !KINDS.contains(&kind.as_str()) {
            return Ok(Heard::Unknown(kind.chars().take(40).collect()));
        }
        let message: Message = serde_json::from_slice(octets).map_err(nonsense)?;
        message.check().map_err(Nonsense)?;
        Ok(Heard::Message(Box::new(message)))
    }

    /// What can be said of it without knowing anything else.
    fn check(&self) -> Result<(), String> {
        let node = |node: u8| match node {
            0 | 1 => Ok(()),
            _ => Err(format!("node {node}: 0 and 1 are allowed")),
        };
        match self {
            Message::Hello(hello) => {
                node(hello.node)?;
                if hello.oldest > hello.protocol {
                    return Err(format!(
                        "oldest protocol {}: at most {} is allowed",
                        hello.oldest, hello.protocol
                    ));
                }
                match hello.line.len() {
                    0..=MOST_IDS => Ok(()),
                    many => Err(format!("a line of {many} versions: {MOST_IDS} are allowed")),
                }
            }
            Message::Offer(delta) => node(delta.version.node),
            Message::Feed { deltas } if deltas.is_empty() => Err("no deltas".to_owned()),
            Message::Feed { deltas } => {
                deltas.iter().try_for_each(|delta| node(delta.version.node))
            }
            Message::Whole { whole, .. } => {
                if whole.line.is_empty() || whole.line.len() > MOST_IDS {
                    let many = whole.line.len();
                    return Err(format!(
                        "a line of {many} versions: 1 to {MOST_IDS} are allowed"
                    ));
                }
                whole.line.iter().try_for_each(|version| node(version.node))
            }
            Message::Done { .. }
            | Message::Refused { .. }
            | Message::Want { .. }
            | Message::Active { .. }
            | Message::Acknowledged
            | Message::Unknown { .. } => Ok(()),
        }
    }
}
