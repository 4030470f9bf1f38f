//! Output: tables for people, `:`-separated lines for scripts, colours for terminals.

use libilb::words;

use crate::error::Error;

/// How output may look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether colours may be used.
    pub colour: bool,
}

/// What a value is, as far as colours are concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Notice,
    /// Wrong.
    Bad,
}

impl Style {
    /// `text` in the colour of `tone`, if colours may be used.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_string(),
            Tone::Good => "32",
            Tone::Notice => "33",
            Tone::Bad => "31",
        };
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }
}

/// A value in a table. Empty ones are shown to people as `-`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// The value.
    pub text: String,
    /// Its colour.
    pub tone: Tone,
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Cell {
        Cell {
            text: value.to_string(),
            tone: Tone::Plain,
        }
    }
}

/// A column of rows of type `R`.
pub struct Column<R> {
    /// Heading, and name for `-o` in any case.
    pub name: &'static str,
    /// Whether it is shown when `-o` does not choose.
    pub default: bool,
    /// Whether it is a number, which is aligned to the right.
    pub number: bool,
    /// Its value in a row.
    pub value: fn(&R) -> Cell,
}

impl<R> Clone for Column<R> {
    fn clone(&self) -> Column<R> {
        *self
    }
}

impl<R> Copy for Column<R> {}

/// Chooses columns by the `-o` option, or the default ones.
///
/// # Errors
/// [`Error::Usage`] for a name that is not among them, or `-p` without `-o`.
pub fn choose<R>(
    all: &[Column<R>],
    fields: Option<&str>,
    parsable: bool,
) -> Result<Vec<Column<R>>, Error> {
    let names: Vec<String> = all.iter().map(|c| c.name.to_ascii_lowercase()).collect();
    let Some(fields) = fields else {
        if parsable {
            let usual = all.iter().filter(|c| c.default).take(2);
            let usual: Vec<String> = usual.map(|c| c.name.to_ascii_lowercase()).collect();
            return Err(Error::Usage(format!(
                "-p needs -o: say which fields, in which order, such as -o {}; there are {}",
                usual.join(","),
                words::one_of(&names)
            )));
        }
        return Ok(all.iter().filter(|c| c.default).copied().collect());
    };
    if fields.eq_ignore_ascii_case("all") {
        return Ok(all.to_vec());
    }
    fields
        .split(',')
        .map(|field| {
            all.iter()
                .find(|c| c.name.eq_ignore_ascii_case(field.trim()))
                .copied()
                .ok_or_else(|| {
                    let hint = words::nearest(field, names.iter().map(String::as_str))
                        .map_or(String::new(), |word| format!("; did you mean '{word}'?"));
                    Error::Usage(format!(
                        "-o: field '{field}' is not known: use all, {}{hint}",
                        words::one_of(&names)
                    ))
                })
        })
        .collect()
}

/// Lines `value:value`, without heading; `:` and `\` in values have a `\` before them.
pub fn parsable<R>(columns: &[Column<R>], rows: &[R]) -> String {
    let mut out = String::new();
    for row in rows {
        let values: Vec<String> = columns
            .iter()
            .map(|c| {
                (c.value)(row)
                    .text
                    .replace('\\', "\\\\")
                    .replace(':', "\\:")
            })
            .collect();
        out.push_str(&values.join(":"));
        out.push('\n');
    }
    out
}

/// A table with a heading (unless `heading` is false), columns two spaces apart, each at least as wide as its heading and
/// as `widths` says. The widths used are returned, for tables that grow.
pub fn table<R>(
    columns: &[Column<R>],
    rows: &[R],
    style: Style,
    heading: bool,
    widths: &[usize],
) -> (String, Vec<usize>) {
    let cells: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            columns
                .iter()
                .map(|c| {
                    let cell = (c.value)(row);
                    if cell.text.is_empty() {
                        "-".into()
                    } else {
                        cell
                    }
                })
                .collect()
        })
        .collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let longest = cells.iter().map(|row| row[i].text.chars().count()).max();
            c.name
                .len()
                .max(longest.unwrap_or(0))
                .max(widths.get(i).copied().unwrap_or(0))
        })
        .collect();
    let mut out = String::new();
    let mut line = |cells: &[Cell]| {
        let mut text = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(widths[i].saturating_sub(cell.text.chars().count()));
            let value = style.paint(cell.tone, &cell.text);
            if i > 0 {
                text.push_str("  ");
            }
            if columns[i].number {
                text.push_str(&pad);
                text.push_str(&value);
            } else {
                text.push_str(&value);
                text.push_str(&pad);
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    if heading {
        let names: Vec<Cell> = columns.iter().map(|c| c.name.into()).collect();
        line(&names);
    }
    for row in &cells {
        line(row);
    }
    (out, widths)
}
