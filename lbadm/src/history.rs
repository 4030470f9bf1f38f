//! `history`, `rollback`: what was changed, and the way back.

use libilb::difference::{Change, Difference};
use libilb::history::{Item, Report};
use serde_json::{Value, json};

use crate::action::{Action, line};
use crate::cli::{self, Format, HistoryCommand};
use crate::error::Error;
use crate::table::{self, Cell, Column, Style, Tone};

/// How many generations are shown when nothing else is said.
const USUAL: u32 = 20;

/// `history`.
#[derive(Debug)]
pub struct Listing {
    /// How many at most.
    pub count: u32,
    format: Format,
}

/// `rollback`.
#[derive(Debug)]
pub struct Rollback {
    /// Where to.
    pub generation: u64,
    /// Only look.
    pub dry_run: bool,
    format: Format,
}

/// Reads a command about the history.
///
/// # Errors
/// Unknown fields.
pub fn understand(command: HistoryCommand) -> Result<Action, Error> {
    match command {
        HistoryCommand::History(cli::History { format, count }) => {
            choose(&columns(), &format)?;
            let count = count.unwrap_or(USUAL);
            Ok(Action::History(Listing { count, format }))
        }
        HistoryCommand::Rollback(args) => {
            choose(&rows(), &args.format)?;
            Ok(Action::Rollback(Rollback {
                generation: args.generation,
                dry_run: args.dry_run,
                format: args.format,
            }))
        }
    }
}

fn choose<R>(all: &[Column<R>], format: &Format) -> Result<Vec<Column<R>>, Error> {
    table::choose(all, format.output.as_deref(), format.parsable)
}

fn text<R>(name: &'static str, value: fn(&R) -> Cell) -> Column<R> {
    Column {
        name,
        default: true,
        number: false,
        value,
    }
}

/// A generation, and whether it is the present one.
type Row<'a> = (&'a Item, bool);

fn columns<'a>() -> Vec<Column<Row<'a>>> {
    vec![
        Column {
            number: true,
            ..text("GENERATION", |(item, _): &Row<'_>| item.generation.into())
        },
        text("TIME", |(item, _)| {
            item.time.map(utc).unwrap_or_default().into()
        }),
        text("USER", |(item, _)| match (&item.user, item.uid) {
            (Some(user), _) => user.into(),
            (None, Some(uid)) => format!("#{uid}").into(),
            (None, None) => Cell::default(),
        }),
        Column {
            default: false,
            ..text("UID", |(item, _)| {
                item.uid.map(Cell::from).unwrap_or_default()
            })
        },
        text("ROLLBACK", |(item, present)| match (present, item.kept) {
            (true, _) => Cell {
                text: "present".into(),
                tone: Tone::Good,
            },
            (false, true) => "yes".into(),
            (false, false) => Cell {
                text: "no".into(),
                tone: Tone::Notice,
            },
        }),
        text("CHANGE", |(item, _)| item.words.as_str().into()),
    ]
}

/// Names of all columns of `history`, or of `rollback`.
pub fn fields(rollback: bool) -> Vec<&'static str> {
    match rollback {
        true => rows().iter().map(|column| column.name).collect(),
        false => columns().iter().map(|column| column.name).collect(),
    }
}

impl Listing {
    /// The output; `found` may be one more than asked for, which is how we know of more.
    ///
    /// # Errors
    /// None: the fields were chosen before.
    pub fn render(&self, found: &[Item], json: bool, style: Style) -> Result<String, Error> {
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        let shown = &found[..found.len().min(count)];
        if json {
            return Ok(line(&json!(shown)));
        }
        let rows: Vec<Row<'_>> = shown
            .iter()
            .enumerate()
            .map(|(i, item)| (item, i == 0))
            .collect();
        let columns = choose(&columns(), &self.format)?;
        if self.format.parsable {
            return Ok(table::parsable(&columns, &rows));
        }
        if rows.is_empty() {
            return Ok("nothing was changed yet\n".to_string());
        }
        let (mut out, _) = table::table(&columns, &rows, style, true, &[]);
        if shown.len() < found.len() {
            let more = count.saturating_mul(5);
            out.push_str(&format!("there are more: 'lbadm history {more}'\n"));
        }
        Ok(out)
    }
}

/// What is different about an item, or one field of it.
struct Different<'a> {
    item: &'a Difference,
    field: Option<&'a libilb::difference::Field>,
}

fn rows<'a>() -> Vec<Column<Different<'a>>> {
    fn cell(value: Option<&Value>) -> Cell {
        match value {
            None | Some(Value::Null) => Cell::default(),
            Some(Value::String(text)) => text.into(),
            Some(other) => other.to_string().into(),
        }
    }
    vec![
        text("CHANGE", |row: &Different<'_>| {
            let (text, tone) = match row.item.change {
                Change::Created => ("created", Tone::Good),
                Change::Deleted => ("deleted", Tone::Bad),
                Change::Changed => ("changed", Tone::Notice),
            };
            Cell {
                text: text.into(),
                tone,
            }
        }),
        text("ITEM", |row| row.item.item.as_str().into()),
        text("NAME", |row| row.item.name.as_str().into()),
        text("FIELD", |row| {
            row.field
                .map(|field| field.name.as_str().into())
                .unwrap_or_default()
        }),
        text("BEFORE", |row| cell(row.field.map(|field| &field.before))),
        text("AFTER", |row| cell(row.field.map(|field| &field.after))),
    ]
}

impl Rollback {
    /// The output.
    ///
    /// # Errors
    /// None: the fields were chosen before.
    pub fn render(&self, report: &Report, json: bool, style: Style) -> Result<String, Error> {
        if json {
            return Ok(line(&json!(report)));
        }
        // Of what comes or goes as a whole the fields are of no interest.
        let mut found: Vec<Different<'_>> = Vec::new();
        for item in &report.differences {
            match item.change {
                Change::Changed => found.extend(item.fields.iter().map(|field| Different {
                    item,
                    field: Some(field),
                })),
                _ => found.push(Different { item, field: None }),
            }
        }
        let columns = choose(&rows(), &self.format)?;
        if self.format.parsable {
            return Ok(table::parsable(&columns, &found));
        }
        let (from, to) = (report.from, report.to);
        if report.differences.is_empty() {
            return Ok(format!(
                "nothing to change: generation {to} has the configuration that is in force\n"
            ));
        }
        let head = match self.dry_run {
            true => format!("going back from generation {from} to {to} would change:\n"),
            false => format!(
                "went back from generation {from} to {to}, which is generation {} now:\n",
                report.generation
            ),
        };
        let (table, _) = table::table(&columns, &found, style, true, &[]);
        Ok(head + &table)
    }
}

/// `YYYY-MM-DD HH:MM:SSZ` of seconds of the Unix clock (H. Hinnant, "chrono-compatible low-level date algorithms").
fn utc(seconds: u64) -> String {
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years.
    let days = day + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_date_says() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_763_752_843, "2025-11-21 19:20:43Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }
}
