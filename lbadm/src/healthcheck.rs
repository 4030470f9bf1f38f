//! `create-healthcheck`, `modify-healthcheck`, `delete-healthcheck`, `show-healthcheck`.

use libilb::describe::{CheckDescription, Description};
use libilb::error::Item;
use libilb::healthcheck::{Field, HealthCheckSettings};

use serde_json::{Value, json};

use crate::action::{Action, Request, Show};
use crate::cli::{CheckNames, CreateHealthcheck, HealthcheckCommand, ShowHealthcheck};
use crate::error::Error;
use crate::hcresult;
use crate::show;
use crate::table::{self, Cell, Column, Style};

/// Reads a command about health checks.
///
/// # Errors
/// Everything that is wrong whatever is configured.
pub fn understand(command: HealthcheckCommand) -> Result<Action, Error> {
    match command {
        HealthcheckCommand::CreateHealthcheck(args) => create(args),
        HealthcheckCommand::ModifyHealthcheck(args) => modify(args),
        HealthcheckCommand::DeleteHealthcheck(args) => Ok(delete(args)),
        HealthcheckCommand::ShowHealthcheck(args) => show(args),
        HealthcheckCommand::ShowHcResult(args) => hcresult::show(args),
    }
}

/// Reads `create-healthcheck`.
///
/// # Errors
/// Everything that is wrong whatever is configured.
fn create(args: CreateHealthcheck) -> Result<Action, Error> {
    let wrong = Error::from_command_line;
    let settings = read(&args)?;
    settings.check(&args.name).map_err(wrong)?;
    Ok(Action::Change(Request::CreateCheck {
        name: args.name,
        settings: Box::new(settings),
    }))
}

/// Reads `modify-healthcheck`.
///
/// # Errors
/// Values that are wrong in themselves, or none.
fn modify(args: CreateHealthcheck) -> Result<Action, Error> {
    let settings = read(&args)?;
    if settings.is_empty() {
        return Err(Error::Usage(
            "what shall be changed? Give -h or -n ('lbadm help modify-healthcheck' explains it)"
                .to_string(),
        ));
    }
    Ok(Action::Change(Request::ModifyCheck {
        name: args.name,
        settings: Box::new(settings),
    }))
}

/// Reads `delete-healthcheck`.
fn delete(args: CheckNames) -> Action {
    Action::Change(Request::DeleteChecks(args.names))
}

/// Reads `show-healthcheck`.
///
/// # Errors
/// Unknown fields.
fn show(args: ShowHealthcheck) -> Result<Action, Error> {
    table::choose(
        &columns(),
        args.format.output.as_deref(),
        args.format.parsable,
    )?;
    Ok(Action::Show(Box::new(args)))
}

/// Reads `-h` and `-n`.
fn read(args: &CreateHealthcheck) -> Result<HealthCheckSettings, Error> {
    let wrong = Error::from_command_line;
    let mut settings = HealthCheckSettings::default();
    for text in &args.health {
        settings.parse(text).map_err(wrong)?;
    }
    if args.no_ping {
        settings.set(Field::Ping, "no").map_err(wrong)?;
    }
    Ok(settings)
}

impl Show for ShowHealthcheck {
    fn render(&self, node: &Description, style: Style) -> Result<String, Error> {
        render(self, node, style)
    }

    fn json(&self, node: &Description) -> Result<Value, Error> {
        Ok(json!(select(self, node)?))
    }
}

type Row<'a> = &'a CheckDescription;

fn column<'a>(name: &'static str, default: bool, value: fn(&Row<'a>) -> Cell) -> Column<Row<'a>> {
    Column {
        name,
        default,
        number: false,
        value,
    }
}

/// Every column.
fn columns<'a>() -> Vec<Column<Row<'a>>> {
    vec![
        column("HCNAME", true, |c| c.check.name.as_str().into()),
        column("TIMEOUT", true, |c| c.check.timing.timeout.into()),
        column("COUNT", true, |c| c.check.timing.count.into()),
        column("INTERVAL", true, |c| c.check.timing.interval.into()),
        column("DEF_PING", true, |c| {
            if c.check.ping { "Y" } else { "N" }.into()
        }),
        column("TEST", true, |c| (&c.check.test).into()),
        column("RISE", false, |c| c.check.timing.rise.into()),
        column("PORT", false, |c| {
            c.check.port.map(Cell::from).unwrap_or_default()
        }),
        column("ALPHA", false, |c| {
            if c.check.alpha { "Y" } else { "N" }.into()
        }),
        column("SETTINGS", false, |c| {
            let mut settings = HealthCheckSettings::from(&c.check).brief();
            settings.name = None;
            settings.words().into()
        }),
        column("RULES", false, |c| c.rules.join(",").into()),
    ]
}

/// Names of all columns.
pub fn fields() -> Vec<&'static str> {
    columns().iter().map(|column| column.name).collect()
}

/// The health checks that `show-healthcheck` is about.
///
/// # Errors
/// A name that does not exist.
fn select<'a>(
    args: &ShowHealthcheck,
    node: &'a Description,
) -> Result<Vec<&'a CheckDescription>, Error> {
    let known = || node.checks.iter().map(|c| c.check.name.as_str());
    show::check_names(Item::HealthCheck, &args.names, known)?;
    Ok(node
        .checks
        .iter()
        .filter(|c| show::named(&args.names, &c.check.name))
        .collect())
}

/// Writes `show-healthcheck`.
///
/// # Errors
/// A name or field that does not exist.
fn render(args: &ShowHealthcheck, node: &Description, style: Style) -> Result<String, Error> {
    let rows = select(args, node)?;
    let columns = table::choose(
        &columns(),
        args.format.output.as_deref(),
        args.format.parsable,
    )?;
    if args.format.parsable {
        return Ok(table::parsable(&columns, &rows));
    }
    if rows.is_empty() {
        return Ok(
            "there are no health checks; 'lbadm help create-healthcheck' shows how to create one\n"
                .to_string(),
        );
    }
    Ok(table::table(&columns, &rows, style, true, &[]).0)
}
