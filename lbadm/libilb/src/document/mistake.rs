//! What is wrong with a document: every mistake with its place, the line quoted and marked.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Mistakes that are kept of one document; of more, only the number is told.
pub const MOST: usize = 100;
/// Characters of a long line that are quoted.
const WIDTH: usize = 100;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mistake {
    /// What it is about, such as `rule.www.vip`; empty for the whole document.
    pub field: String,
    /// What is wrong, with which value, what is allowed.
    pub message: String,
    /// Line, from 1, if the document was read from a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in characters, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// Where in the text, in bytes.
    #[serde(skip)]
    pub span: Option<Range<usize>>,
}

impl Mistake {
    /// A mistake about a field.
    pub fn new(field: impl Into<String>, message: impl fmt::Display) -> Mistake {
        Mistake {
            field: field.into(),
            message: message.to_string(),
            line: None,
            column: None,
            span: None,
        }
    }
}

/// Everything that is wrong with a document; at least one mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// In the order of the text; at most [`MOST`].
    pub list: Vec<Mistake>,
    /// How many there are.
    pub count: usize,
    text: Arc<str>,
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render("document").trim_end())
    }
}

impl Mistakes {
    /// Finds lines and columns in the text that the document came from.
    pub(super) fn new(mut list: Vec<Mistake>, marks: &Marks, text: &Arc<str>) -> Mistakes {
        for mistake in &mut list {
            if mistake.span.is_none() {
                mistake.span = marks.nearest(&mistake.field);
            }
        }
        // Those without a place stay in the order in which they were found.
        list.sort_by_key(|m| m.span.as_ref().map_or(usize::MAX, |span| span.start));
        let mut seen = HashSet::new();
        list.retain(|m| seen.insert((m.field.clone(), m.message.clone(), m.span.clone())));
        let count = list.len();
        list.truncate(MOST);
        for mistake in &mut list {
            if let Some(span) = &mistake.span {
                let before = text.get(..span.start).unwrap_or(text);
                let line_start = before.rfind('\n').map_or(0, |at| at + 1);
                mistake.line = Some(before.matches('\n').count() + 1);
                mistake.column = Some(before[line_start..].chars().count() + 1);
            }
        }
        Mistakes {
            list,
            count,
            text: text.clone(),
        }
    }

    /// All of them for a person, each with its line quoted; `name` is what the document is called.
    pub fn render(&self, name: &str) -> String {
        let mut out = String::new();
        for mistake in &self.list {
            // Writing to a String cannot fail.
            let _ = self.render_one(&mut out, mistake, name);
        }
        let count = self.count;
        let more = match count - self.list.len() {
            0 => String::new(),
            n => format!(", of which {n} are not shown"),
        };
        let word = if count == 1 { "mistake" } else { "mistakes" };
        let _ = writeln!(out, "{name}: {count} {word}{more}");
        out
    }

    fn render_one(&self, out: &mut String, mistake: &Mistake, name: &str) -> fmt::Result {
        let message: String = mistake.message.chars().map(printable).collect();
        writeln!(out, "error: {message}")?;
        let (Some(line), Some(column), Some(span)) = (mistake.line, mistake.column, &mistake.span)
        else {
            match mistake.field.is_empty() {
                true => writeln!(out, "  --> {name}\n")?,
                false => writeln!(out, "  --> {name}: {}\n", mistake.field)?,
            }
            return Ok(());
        };
        let quoted: Vec<char> = self.text
            [self.text[..span.start].rfind('\n').map_or(0, |n| n + 1)..]
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .map(printable)
            .collect();
        // Of a long line the part around the mistake.
        let from = match quoted.len() > WIDTH {
            true => (column - 1).saturating_sub(WIDTH / 3),
            false => 0,
        };
        let part: String = quoted.iter().skip(from).take(WIDTH).collect();
        let marked = self.text.get(span.clone()).unwrap_or_default();
        let marked = marked.lines().next().unwrap_or_default().chars().count();
        let room = (from + WIDTH).min(quoted.len()).saturating_sub(column - 1);
        let carets = "^".repeat(marked.min(room).max(1));
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(column - 1 - from);
        writeln!(out, "{margin} --> {name}:{line}:{column}")?;
        writeln!(out, "{margin} |")?;
        writeln!(out, "{number} | {}", part.trim_end())?;
        let label = format!("{margin} | {indent}{carets} {}", mistake.field);
        writeln!(out, "{}\n", label.trim_end())
    }
}

/// Nothing that a terminal would obey.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// Where in its text each part of a document is. It says nothing about what the document means: all marks are equal.
#[derive(Debug, Clone, Default)]
pub struct Marks(HashMap<String, Range<usize>>);

impl PartialEq for Marks {
    fn eq(&self, _: &Marks) -> bool {
        true
    }
}

impl Eq for Marks {}

impl Marks {
    pub(super) fn insert(&mut self, field: String, span: Option<Range<usize>>) {
        if let Some(span) = span {
            self.0.insert(field, span);
        }
    }

    /// The place of a field, or of what it would be in.
    fn nearest(&self, field: &str) -> Option<Range<usize>> {
        let mut field = field;
        loop {
            if let Some(span) = self.0.get(field) {
                return Some(span.clone());
            }
            field = &field[..field.rfind(['.', '['])?];
        }
    }
}
