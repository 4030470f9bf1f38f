//! `show-hc-result`.

use libilb::client::Client;
use libilb::health::{HealthReport, HealthState, ServerHealth};
use libilb::healthfilter::HealthFilter;
use serde_json::json;

use crate::action::{Action, line};
use crate::cli::{Format, ShowHcResult};
use crate::error::Error;
use crate::show;
use crate::table::{self, Cell, Column, Style, Tone};

/// Which results to show, and how.
#[derive(Debug)]
pub struct Results {
    /// Names of rules; all if there are none.
    pub rules: Vec<String>,
    format: Format,
}

/// Reads `show-hc-result`.
///
/// # Errors
/// Unknown fields.
pub fn show(args: ShowHcResult) -> Result<Action, Error> {
    table::choose(
        &columns(),
        args.format.output.as_deref(),
        args.format.parsable,
    )?;
    Ok(Action::HealthResults(Results {
        rules: args.rules,
        format: args.format,
    }))
}

/// The colour of a state.
pub fn state_cell(state: HealthState) -> Cell {
    Cell {
        text: state.to_string(),
        tone: match state {
            HealthState::Alive => Tone::Good,
            HealthState::UnInit | HealthState::Disabled => Tone::Notice,
            HealthState::Unreach | HealthState::Dead => Tone::Bad,
        },
    }
}

fn column<'a>(
    name: &'static str,
    default: bool,
    value: fn(&&'a ServerHealth) -> Cell,
) -> Column<&'a ServerHealth> {
    Column {
        name,
        default,
        number: false,
        value,
    }
}

/// Every column.
fn columns<'a>() -> Vec<Column<&'a ServerHealth>> {
    vec![
        column("RULENAME", true, |s| s.rule.as_str().into()),
        column("HCNAME", true, |s| s.check.as_str().into()),
        column("SERVERID", true, |s| s.server.as_str().into()),
        column("STATUS", true, |s| state_cell(s.state)),
        column("FAIL", true, |s| s.fails.into()),
        column("LAST", true, |s| time(s.last)),
        column("NEXT", true, |s| time(s.next)),
        column("RTT", true, |s| s.rtt.map(Cell::from).unwrap_or_default()),
        column("ADDRESS", false, |s| s.address.into()),
        column("PORT", false, |s| {
            s.port.map(Cell::from).unwrap_or_default()
        }),
        column("USABLE", false, |s| if s.up { "yes" } else { "no" }.into()),
        column("SINCE", false, |s| {
            time(s.transitions.last().map(|last| last.time))
        }),
        column("REASON", false, |s| {
            let result = s.result.as_ref();
            result.map(Cell::from).unwrap_or_default()
        }),
        column("LOAD", false, |s| {
            let load = s.load.as_ref();
            let value = load.and_then(|load| load.value.clone().or(load.error.clone()));
            value.map(Cell::from).unwrap_or_default()
        }),
        column("SHARE", false, |s| {
            let share = s.load.as_ref().and_then(|load| load.share);
            share
                .map(|share| format!("{}%", share / 10).into())
                .unwrap_or_default()
        }),
    ]
}

/// The names of all columns.
pub fn fields() -> Vec<&'static str> {
    columns().iter().map(|column| column.name).collect()
}

/// `HH:MM:SS` in UTC.
fn time(millis: Option<u64>) -> Cell {
    let Some(millis) = millis else {
        return Cell::default();
    };
    let seconds = millis / 1000 % 86_400;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}Z").into()
}

impl Results {
    /// Asks the manager, rule by rule if there are several.
    ///
    /// # Errors
    /// See [`libilb::client::ClientError`]; a rule that does not exist among them.
    pub async fn fetch(&self, client: &Client) -> Result<HealthReport, Error> {
        if self.rules.is_empty() {
            return Ok(client.health_results(&HealthFilter::default()).await?);
        }
        let mut report = HealthReport::default();
        for rule in &self.rules {
            let filter = HealthFilter {
                rule: Some(rule.clone()),
                server: None,
            };
            report
                .servers
                .extend(client.health_results(&filter).await?.servers);
        }
        Ok(report)
    }

    /// The output.
    ///
    /// # Errors
    /// None: the fields were chosen before.
    pub fn render(&self, report: &HealthReport, json: bool, style: Style) -> Result<String, Error> {
        let rows: Vec<&ServerHealth> = report
            .servers
            .iter()
            .filter(|s| show::named(&self.rules, &s.rule))
            .collect();
        if json {
            return Ok(line(&json!(rows)));
        }
        let Format { output, parsable } = &self.format;
        let columns = table::choose(&columns(), output.as_deref(), *parsable)?;
        if *parsable {
            return Ok(table::parsable(&columns, &rows));
        }
        if rows.is_empty() {
            let none = match self.rules.is_empty() {
                true => "no server is checked; 'lbadm help create-healthcheck' shows how\n",
                false => {
                    "the rule has no health check, or no servers; 'lbadm show-rule -f' shows it\n"
                }
            };
            return Ok(none.to_string());
        }
        let (mut out, _) = table::table(&columns, &rows, style, true, &[]);
        for row in rows.iter().filter(|row| row.state.is_down()) {
            if let Some(result) = &row.result {
                let why = format!("{} of {}: {result}", row.server, row.rule);
                out.push_str(&style.paint(Tone::Bad, &why));
                out.push('\n');
            }
        }
        Ok(out)
    }
}
