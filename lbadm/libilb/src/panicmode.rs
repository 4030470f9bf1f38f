//! What a rule does when most of its servers look dead at once. Then it is often not they who are sick, but the one who
//! tests them that is cut off.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::words::{self, Word};

/// Percentage of living servers below which a rule with a [`PanicMode`] takes to it, unless set.
pub const PANIC_THRESHOLD: u8 = 50;

/// What is done while fewer servers live than the rule's `panic-threshold` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PanicMode {
    /// Nothing: who looks dead gets nothing, as always.
    #[default]
    None,
    /// Those that lived until it began are used, whatever is found of them since.
    KeepLast,
    /// All that ever lived are used.
    FailOpen,
    /// The sorry servers serve, alone.
    Sorry,
}

pub(crate) const PANIC_MODES: &[Word<PanicMode>] = &[
    (PanicMode::None, "none", &["off"]),
    (PanicMode::KeepLast, "keep-last", &[]),
    (PanicMode::FailOpen, "fail-open", &[]),
    (PanicMode::Sorry, "sorry", &[]),
];

impl PanicMode {
    pub(crate) fn is_none(&self) -> bool {
        *self == PanicMode::None
    }

    /// The usual word for it.
    pub fn name(self) -> &'static str {
        words::name(PANIC_MODES, self)
    }

    /// Reads a word or its alias, in any case.
    ///
    /// # Errors
    /// [`ModelError::UnknownWord`].
    pub fn parse(text: &str) -> Result<PanicMode, ModelError> {
        words::parse(PANIC_MODES, "panic-mode", text)
    }
}

impl fmt::Display for PanicMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

pub(crate) fn threshold() -> u8 {
    PANIC_THRESHOLD
}

pub(crate) fn is_usual(threshold: &u8) -> bool {
    *threshold == PANIC_THRESHOLD
}

/// Reads a percentage.
///
/// # Errors
/// [`ModelError::Invalid`] unless it is 1 to 100.
pub fn check_threshold(percent: u32) -> Result<u8, ModelError> {
    let fits = u8::try_from(percent)
        .ok()
        .filter(|percent| (1..=100).contains(percent));
    fits.ok_or_else(|| {
        ModelError::invalid(
            "panic-threshold",
            percent.to_string(),
            "is not a percentage of servers",
            "use 1 (when all look dead) to 100 (when one does)",
        )
    })
}
