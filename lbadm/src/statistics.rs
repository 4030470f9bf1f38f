//! `show-statistics`: counters, vmstat-like.

use std::time::SystemTime;

use libilb::ModelError;
use libilb::describe::Description;
use libilb::error::Item;
use libilb::stats::{Counter, Entry, Statistics};
use libilb::words;
use serde_json::{Value, json};

use crate::action::{Action, line};
use crate::cli::{ShowStatistics, StatisticsCommand};
use crate::error::Error;
use crate::table::{self, Cell, Column, Style};
use crate::time;

/// How many lines there are under one heading.
const LINES: usize = 20;

/// Reads a command about counters.
///
/// # Errors
/// Unknown fields.
pub fn understand(command: StatisticsCommand) -> Result<Action, Error> {
    match command {
        StatisticsCommand::ShowStatistics(args) => show(args),
    }
}

/// Reads `show-statistics`.
///
/// # Errors
/// Unknown fields.
fn show(args: ShowStatistics) -> Result<Action, Error> {
    if args.drops {
        drop_columns(&args)?;
    } else {
        choose(&args)?;
    }
    Ok(Action::Statistics(args))
}

/// One line: what it is about, and its values.
struct Row {
    time: String,
    name: String,
    values: Entry,
}

/// Counters with their columns; false for those that only `-v` shows.
const COLUMNS: &[(&str, Counter, bool)] = &[
    ("PKT_P", Counter::PacketsForwarded, true),
    ("BYTES_P", Counter::BytesForwarded, true),
    ("PKT_U", Counter::PacketsUnprocessed, true),
    ("BYTES_U", Counter::BytesUnprocessed, true),
    ("PKT_D", Counter::PacketsDropped, true),
    ("BYTES_D", Counter::BytesDropped, true),
    ("ICMP_P", Counter::IcmpForwarded, false),
    ("ICMP_D", Counter::IcmpDropped, false),
    ("ICMP2BIG_P", Counter::IcmpTooBigForwarded, false),
    ("ICMP2BIG_D", Counter::IcmpTooBigDropped, false),
    ("NOMEMP_D", Counter::NoMemoryDropped, false),
    ("NOPORTP_D", Counter::NoPortDropped, false),
    ("ADMISSION_D", Counter::AdmissionDropped, false),
    ("REPLACED", Counter::ConnectionsReplaced, false),
    ("NEWCONN", Counter::ConnectionsBegun, false),
    ("CONNECTIONS", Counter::Connections, false),
];

macro_rules! counter_column {
    ($index:literal, $verbose:expr) => {
        Column {
            name: COLUMNS[$index].0,
            default: COLUMNS[$index].2 || $verbose,
            number: true,
            value: |row: &Row| row.values.get(COLUMNS[$index].1).into(),
        }
    };
}

fn columns(args: &ShowStatistics) -> Vec<Column<Row>> {
    let v = args.verbose;
    let text = |name, default, value: fn(&Row) -> Cell| Column {
        name,
        default,
        number: false,
        value,
    };
    vec![
        text("TIME", args.time, |r| r.time.as_str().into()),
        text(name_heading(args), args.itemize, |r| r.name.as_str().into()),
        counter_column!(0, v),
        counter_column!(1, v),
        counter_column!(2, v),
        counter_column!(3, v),
        counter_column!(4, v),
        counter_column!(5, v),
        counter_column!(6, v),
        counter_column!(7, v),
        counter_column!(8, v),
        counter_column!(9, v),
        counter_column!(10, v),
        counter_column!(11, v),
        counter_column!(12, v),
        counter_column!(13, v),
        counter_column!(14, v),
        counter_column!(15, v),
    ]
}

/// Names of all columns.
pub fn fields() -> Vec<&'static str> {
    let named = ["TIME", "RULENAME"].into_iter();
    named
        .chain(COLUMNS.iter().map(|(name, ..)| *name))
        .collect()
}

fn name_heading(args: &ShowStatistics) -> &'static str {
    match (&args.rule, &args.server) {
        (Some(_), None) => "SERVERID",
        _ => "RULENAME",
    }
}

fn choose(args: &ShowStatistics) -> Result<Vec<Column<Row>>, Error> {
    let all = columns(args);
    let mut chosen = table::choose(&all, args.format.output.as_deref(), args.format.parsable)?;
    // What -t and -i add stands before the fields that -o chose.
    for (index, wanted) in [(1, args.itemize), (0, args.time)] {
        if wanted && !chosen.iter().any(|c| c.name == all[index].name) {
            chosen.insert(0, all[index]);
        }
    }
    Ok(chosen)
}

/// What the command is about, as name and counters, from everything that is counted.
///
/// # Errors
/// A rule or server of which nothing is counted.
fn select(args: &ShowStatistics, all: &Statistics) -> Result<Vec<(String, Entry)>, Error> {
    let rules = || {
        all.entries
            .iter()
            .filter(|e| !e.rule.is_empty() && e.server.is_empty())
    };
    let servers = || all.entries.iter().filter(|e| !e.server.is_empty());
    if let Some(rule) = &args.rule {
        known(Item::Rule, rule, rules().map(|e| e.rule.as_str()))?;
    }
    if let Some(server) = &args.server {
        known(Item::Server, server, servers().map(|e| e.server.as_str()))?;
    }
    let is = |a: &str, b: &Option<String>| b.as_ref().is_none_or(|b| a.eq_ignore_ascii_case(b));
    let entries: Vec<&Entry> = match (&args.rule, &args.server, args.itemize) {
        (None, None, false) => all.get("", "").into_iter().collect(),
        (None, None, true) => rules().collect(),
        (Some(_), None, false) => rules().filter(|e| is(&e.rule, &args.rule)).collect(),
        _ => servers()
            .filter(|e| is(&e.rule, &args.rule) && is(&e.server, &args.server))
            .collect(),
    };
    if args.itemize {
        let by_server = name_heading(args) == "SERVERID";
        return Ok(entries
            .into_iter()
            .map(|e| {
                (
                    if by_server { &e.server } else { &e.rule }.clone(),
                    e.clone(),
                )
            })
            .collect());
    }
    let mut sum = Entry::default();
    for entry in entries {
        for (name, count) in &entry.counters {
            *sum.counters.entry(name.clone()).or_default() += count;
        }
    }
    Ok(vec![(String::new(), sum)])
}

fn known<'a>(
    item: Item,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), Error> {
    if known.clone().any(|k| k.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    Err(Error::Model(ModelError::NotFound {
        item,
        names: vec![name.to_string()],
        suggestion: words::nearest(name, known),
    }))
}

/// `now` minus `before`, divided by `seconds` unless the difference itself is wanted. A counter that went back began
/// anew. How many connections there are is no sum and stays as it is.
fn progress(now: &Entry, before: Option<&Entry>, seconds: Option<f64>) -> Entry {
    let mut out = now.clone();
    for (name, value) in &mut out.counters {
        if name == Counter::Connections.name() || name == "connections-total" {
            continue;
        }
        let old = before
            .and_then(|b| b.counters.get(name))
            .copied()
            .unwrap_or(0);
        let delta = value.checked_sub(old).unwrap_or(*value);
        *value = match seconds {
            Some(seconds) => (delta as f64 / seconds).round() as u64,
            None => delta,
        };
    }
    out
}

/// Writes line after line and remembers what it needs for the next.
pub struct Printer {
    args: ShowStatistics,
    json: bool,
    style: Style,
    before: Vec<(String, Entry)>,
    first: bool,
    lines: usize,
    widths: Vec<usize>,
}

impl Printer {
    /// For one command line.
    pub fn new(args: ShowStatistics, json: bool, style: Style) -> Printer {
        Printer {
            args,
            json,
            style,
            before: Vec::new(),
            first: true,
            lines: 0,
            widths: Vec::new(),
        }
    }

    /// The next lines. `elapsed` is the time since the last call in seconds, `now` the time of day.
    ///
    /// # Errors
    /// A rule or server of which nothing is counted.
    pub fn next(
        &mut self,
        all: &Statistics,
        elapsed: f64,
        now: SystemTime,
    ) -> Result<String, Error> {
        let current = select(&self.args, all)?;
        let time = time::of_day(now);
        let rows: Vec<Row> = current
            .iter()
            .map(|(name, entry)| {
                let before = self.before.iter().find(|(n, _)| n == name).map(|(_, e)| e);
                let values = if self.first || self.args.absolute {
                    entry.clone()
                } else if self.args.delta {
                    progress(entry, before, None)
                } else {
                    progress(entry, before, Some(elapsed.max(0.001)))
                };
                Row {
                    time: time.clone(),
                    name: name.clone(),
                    values,
                }
            })
            .collect();
        self.before = current;
        self.first = false;
        if self.json {
            return Ok(line(&self.to_json(&rows)));
        }
        let columns = choose(&self.args)?;
        if self.args.format.parsable {
            return Ok(table::parsable(&columns, &rows));
        }
        let heading = self.lines.is_multiple_of(LINES) || self.args.itemize;
        let (text, widths) = table::table(&columns, &rows, self.style, heading, &self.widths);
        let gap = if self.args.itemize && self.lines > 0 {
            "\n"
        } else {
            ""
        };
        self.lines += 1;
        self.widths = widths;
        Ok(format!("{gap}{text}"))
    }

    fn to_json(&self, rows: &[Row]) -> Value {
        let rows: Vec<Value> = rows
            .iter()
            .map(|row| {
                let mut value = json!({ "counters": row.values.counters });
                if self.args.itemize {
                    let key = if name_heading(&self.args) == "SERVERID" {
                        "server"
                    } else {
                        "rule"
                    };
                    value[key] = json!(row.name);
                }
                if self.args.time {
                    value["time"] = json!(row.time);
                }
                value
            })
            .collect();
        json!(rows)
    }
}

/// A reason for drops and how often it occurred.
struct Drop {
    label: String,
    count: u64,
    words: String,
}

/// The columns of `--drops` that were chosen.
fn drop_columns(args: &ShowStatistics) -> Result<Vec<Column<Drop>>, Error> {
    let all: [Column<Drop>; 3] = [
        Column {
            name: "DROPS",
            default: true,
            number: true,
            value: |r| r.count.into(),
        },
        Column {
            name: "REASON",
            default: true,
            number: false,
            value: |r| r.label.as_str().into(),
        },
        Column {
            name: "MEANING",
            default: true,
            number: false,
            value: |r| r.words.as_str().into(),
        },
    ];
    table::choose(&all, args.format.output.as_deref(), args.format.parsable)
}

/// Writes `show-statistics --drops`. Reasons come from the manager, which knows them all.
///
/// # Errors
/// None: the fields were chosen before.
pub fn drops(
    args: &ShowStatistics,
    node: &Description,
    all: &Statistics,
    json: bool,
    style: Style,
) -> Result<String, Error> {
    let counted = all.get("", "");
    let count = |label: &str| {
        counted
            .and_then(|e| e.drops().find(|(l, _)| *l == label))
            .map_or(0, |(_, count)| count)
    };
    let mut rows: Vec<Drop> = node
        .drop_reasons
        .iter()
        .map(|reason| Drop {
            label: reason.label.clone(),
            count: count(&reason.label),
            words: reason.words.clone(),
        })
        .collect();
    for (label, count) in counted.into_iter().flat_map(Entry::drops) {
        if !node.drop_reasons.iter().any(|r| r.label == label) {
            rows.push(Drop {
                label: label.to_string(),
                count,
                words: String::new(),
            });
        }
    }
    rows.retain(|row| args.verbose || row.count > 0);
    rows.sort_by_key(|row| std::cmp::Reverse(row.count));
    if json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|r| json!({ "reason": r.label, "count": r.count, "words": r.words }))
            .collect();
        return Ok(line(&json!(rows)));
    }
    let columns = drop_columns(args)?;
    if args.format.parsable {
        return Ok(table::parsable(&columns, &rows));
    }
    if rows.is_empty() {
        return Ok("no packet was dropped since the fast path started\n".to_string());
    }
    Ok(table::table(&columns, &rows, style, true, &[]).0)
}
