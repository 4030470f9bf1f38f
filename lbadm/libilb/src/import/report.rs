//! What became of each thing in a file that was imported.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file as it was named; `-` for standard input.
    pub file: Arc<str>,
    /// Its line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It means here what it meant there.
    Taken,
    /// It is taken with another meaning, or as something else that comes near.
    Changed,
    /// It belongs to failover: kept as it is for the time when ilb does that.
    Kept,
    /// It is understood, and nothing here depends on it: mail, names of processes, logging.
    Unneeded,
    /// It is understood and cannot be expressed.
    LeftOut,
    /// It is not understood, or not allowed.
    Wrong,
}

impl Kind {
    /// Every kind, those first that a person has to look at.
    pub const ALL: [Kind; 6] = [
        Kind::Wrong,
        Kind::LeftOut,
        Kind::Changed,
        Kind::Kept,
        Kind::Unneeded,
        Kind::Taken,
    ];

    /// Its word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Taken => "taken",
            Kind::Changed => "changed",
            Kind::Kept => "kept for failover",
            Kind::Unneeded => "not needed",
            Kind::LeftOut => "left out",
            Kind::Wrong => "wrong",
        }
    }

    /// Whether something is missing from the result. Then nothing is applied unless the user says so.
    pub const fn is_loss(self) -> bool {
        matches!(self, Kind::LeftOut | Kind::Wrong)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// What became of it.
    pub kind: Kind,
    /// As it is written there, shortened.
    pub what: String,
    /// What it became, or why not.
    pub note: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry {
            place,
            kind,
            what,
            note,
        } = self;
        write!(f, "{place}: {kind}: {what}: {note}")
    }
}

/// Longest text of what stands in a file, in characters.
const LONGEST: usize = 120;

/// What became of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order in which things stand in the file.
    pub entries: Vec<Entry>,
}

impl Report {
    /// Adds a line.
    pub fn add(&mut self, place: &Place, kind: Kind, what: &str, note: impl Into<String>) {
        let mut what = what.replace(|c: char| c.is_control(), " ");
        if let Some((end, _)) = what.char_indices().nth(LONGEST) {
            what.truncate(end);
            what.push('…');
        }
        self.entries.push(Entry {
            place: place.clone(),
            kind,
            what,
            note: note.into(),
        });
    }

    /// Whether nothing is missing from the result.
    pub fn is_complete(&self) -> bool {
        !self.entries.iter().any(|entry| entry.kind.is_loss())
    }

    /// How many lines are of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.entries.iter().filter(|e| e.kind == kind).count()
    }

    /// How many of each kind there are, as in `3 taken, 1 left out`.
    pub fn summary(&self) -> String {
        let counts: Vec<String> = Kind::ALL
            .iter()
            .rev()
            .map(|&kind| (kind, self.count(kind)))
            .filter(|&(_, count)| count > 0)
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        match counts.is_empty() {
            true => "nothing".to_string(),
            false => counts.join(", "),
        }
    }

    /// Puts the lines into the order of the file that was read first to last; those of other files follow by name.
    pub(crate) fn sort(&mut self) {
        let first = self.entries.first().map(|e| e.place.file.clone());
        self.entries.sort_by(|a, b| {
            let rank = |e: &Entry| (Some(&e.place.file) != first.as_ref(), e.place.file.clone());
            (rank(a), a.place.line).cmp(&(rank(b), b.place.line))
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries
            .iter()
            .try_for_each(|entry| writeln!(f, "{entry}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_and_shortens() {
        let place = Place {
            file: "a.conf".into(),
            line: 3,
        };
        let mut report = Report::default();
        assert_eq!(report.summary(), "nothing");
        report.add(&place, Kind::Taken, "x", "y");
        assert!(report.is_complete());
        report.add(&place, Kind::LeftOut, &"ä".repeat(500), "why");
        assert!(!report.is_complete());
        assert_eq!(report.summary(), "1 taken, 1 left out");
        let text = report.to_string();
        assert!(text.starts_with("a.conf:3: taken: x: y\na.conf:3: left out: ää"));
        assert!(text.ends_with("ä…: why\n"), "{text}");
    }
}
