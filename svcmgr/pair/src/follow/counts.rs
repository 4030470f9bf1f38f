//! What has happened, in numbers.

use std::collections::BTreeMap;

use super::message::Reason;

/// What became of a change that the other node was asked to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It has taken it.
    Taken,
    /// It has refused it.
    Refused(Reason),
    /// It has not answered in time: the change was made without it.
    Unanswered,
    /// The link broke before the answer: the change was made without it.
    Cut,
    /// A change of the other node came first.
    Overtaken,
}

impl Answer {
    const ALL: [Answer; 9] = [
        Answer::Taken,
        Answer::Refused(Reason::Busy),
        Answer::Refused(Reason::Stale),
        Answer::Refused(Reason::Waiting),
        Answer::Refused(Reason::Forged),
        Answer::Refused(Reason::Cannot),
        Answer::Unanswered,
        Answer::Cut,
        Answer::Overtaken,
    ];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Answer::Taken => "taken",
            Answer::Refused(reason) => reason.word(),
            Answer::Unanswered => "unanswered",
            Answer::Cut => "cut",
            Answer::Overtaken => "overtaken",
        }
    }
}

/// Since the beginning, each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Changes that the other node was asked to take, by [`Answer::word`].
    pub offers: BTreeMap<&'static str, u64>,
    /// What we did not take of what the other node told, by [`Reason::word`].
    pub refused: BTreeMap<&'static str, u64>,
    /// Changes of the other node that were made here, one by one.
    pub taken: u64,
    /// Whole configurations that were made ours.
    pub wholes_taken: u64,
    /// Whole configurations that were sent.
    pub wholes_given: u64,
    /// Conflicting histories of which ours went on.
    pub forks_won: u64,
    /// Conflicting histories of which that of the other node went on.
    pub forks_lost: u64,
}

/// Everything is there from the beginning, so that a rate begins with the first.
impl Default for Counts {
    fn default() -> Counts {
        Counts {
            offers: Answer::ALL.map(|answer| (answer.word(), 0)).into(),
            refused: Reason::ALL.map(|reason| (reason.word(), 0)).into(),
            taken: 0,
            wholes_taken: 0,
            wholes_given: 0,
            forks_won: 0,
            forks_lost: 0,
        }
    }
}

impl Counts {
    pub(super) fn answer(&mut self, answer: Answer) {
        *self.offers.entry(answer.word()).or_default() += 1;
    }

    pub(super) fn refuse(&mut self, reason: Reason) {
        *self.refused.entry(reason.word()).or_default() += 1;
    }
}
