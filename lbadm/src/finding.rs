//! What was found out about a part of the node: how well it is, and what to do.

use serde::Serialize;

use crate::table::{Style, Tone};

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// Nobody can say from here.
    Unknown,
    /// It works, but may hurt.
    Warn,
    /// It does not work.
    Bad,
}

impl Level {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Unknown => "?",
            Level::Warn => "warn",
            Level::Bad => "bad",
        }
    }

    /// Its colour.
    pub fn tone(self) -> Tone {
        match self {
            Level::Ok => Tone::Good,
            Level::Unknown => Tone::Plain,
            Level::Warn => Tone::Notice,
            Level::Bad => Tone::Bad,
        }
    }
}

/// A part of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which part.
    pub about: String,
    /// How well it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do; empty if there is nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

impl Finding {
    /// Something that is well.
    pub fn ok(about: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding::new(Level::Ok, about, found, "")
    }

    /// Something that nobody can say from here, and what it takes.
    pub fn unknown(
        about: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding::new(Level::Unknown, about, found, advice)
    }

    /// Something that may hurt, and what to do.
    pub fn warn(
        about: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding::new(Level::Warn, about, found, advice)
    }

    /// Something that does not work, and what to do.
    pub fn bad(
        about: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding::new(Level::Bad, about, found, advice)
    }

    fn new(
        level: Level,
        about: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding {
            about: about.into(),
            level,
            found: found.into(),
            advice: advice.into(),
        }
    }

    /// Two lines at most: what was found, and what to do.
    pub fn render(&self, width: usize, style: Style) -> String {
        let word = style.paint(self.level.tone(), self.level.word());
        let pad = " ".repeat(4 - self.level.word().len());
        let mut out = format!("{word}{pad}  {:<width$}  {}\n", self.about, self.found);
        if !self.advice.is_empty() {
            out.push_str(&format!("      {:<width$}  -> {}\n", "", self.advice));
        }
        out
    }
}

/// The worst of some findings; what nobody can say does not count.
pub fn worst(findings: &[Finding]) -> Level {
    let levels = findings.iter().map(|finding| finding.level);
    let worst = levels.filter(|level| *level != Level::Unknown).max();
    worst.unwrap_or(Level::Ok)
}
