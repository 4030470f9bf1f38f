//! `create-vrrp`, `modify-vrrp`, `enable-vrrp`, `disable-vrrp`, `delete-vrrp`, `show-vrrp`.

use std::time::{Duration, SystemTime};

use libilb::describe::{Description, VrrpDescription};
use libilb::error::Item;
use libilb::vrrp::{Time, VrrpSettings};
use serde_json::{Value, json};

use crate::action::{Action, Request, Show};
use crate::cli::{CreateVrrp, ShowVrrp, VrrpCommand};
use crate::error::Error;
use crate::show;
use crate::table::{self, Cell, Column, Style};
use crate::time;

/// Reads a command about VRRP instances.
///
/// # Errors
/// Everything that is wrong whatever is configured.
pub fn understand(command: VrrpCommand) -> Result<Action, Error> {
    match command {
        VrrpCommand::CreateVrrp(args) => create(args),
        VrrpCommand::ModifyVrrp(args) => modify(args),
        VrrpCommand::EnableVrrp(args) => Ok(enable(args.names, true)),
        VrrpCommand::DisableVrrp(args) => Ok(enable(args.names, false)),
        VrrpCommand::DeleteVrrp(args) => Ok(Action::Change(Request::DeleteVrrp(args.names))),
        VrrpCommand::ShowVrrp(args) => show(args),
    }
}

fn enable(names: Vec<String>, enabled: bool) -> Action {
    Action::Change(Request::EnableVrrp { names, enabled })
}

fn create(args: CreateVrrp) -> Result<Action, Error> {
    let settings = read(&args)?;
    settings
        .check(&args.name)
        .map_err(Error::from_command_line)?;
    Ok(Action::Change(Request::CreateVrrp {
        name: args.name,
        settings,
    }))
}

fn modify(args: CreateVrrp) -> Result<Action, Error> {
    let settings = read(&args)?;
    if settings.is_empty() {
        return Err(Error::Usage(
            "what shall be changed? Give -i ('lbadm help modify-vrrp' explains it)".to_string(),
        ));
    }
    Ok(Action::Change(Request::ModifyVrrp {
        name: args.name,
        settings,
    }))
}

fn show(args: ShowVrrp) -> Result<Action, Error> {
    table::choose(
        &columns(),
        args.format.output.as_deref(),
        args.format.parsable,
    )?;
    Ok(Action::Show(Box::new(args)))
}

fn read(args: &CreateVrrp) -> Result<VrrpSettings, Error> {
    let mut settings = VrrpSettings::default();
    for text in &args.settings {
        settings.parse(text).map_err(Error::from_command_line)?;
    }
    Ok(settings)
}

impl Show for ShowVrrp {
    fn render(&self, node: &Description, style: Style) -> Result<String, Error> {
        render(self, node, style)
    }

    fn json(&self, node: &Description) -> Result<Value, Error> {
        Ok(json!(select(self, node)?))
    }
}

type Row<'a> = &'a VrrpDescription;

fn column<'a>(name: &'static str, default: bool, value: fn(&Row<'a>) -> Cell) -> Column<Row<'a>> {
    Column {
        name,
        default,
        number: false,
        value,
    }
}

fn list<T: ToString>(items: &[T]) -> Cell {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    texts.join(",").into()
}

/// Every column.
fn columns<'a>() -> Vec<Column<Row<'a>>> {
    vec![
        column("NAME", true, |v| v.instance.name.as_str().into()),
        column("STATE", true, |v| v.status.state.word().into()),
        column("INTERFACE", true, |v| v.instance.interface.as_str().into()),
        column("VRID", true, |v| u32::from(v.instance.vrid).into()),
        column("PRIORITY", true, |v| u32::from(v.instance.priority).into()),
        column("ADDRESSES", true, |v| list(&v.instance.addresses)),
        column("SINCE", true, |v| match v.status.since {
            0 => Cell::default(),
            since => time::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(since)).into(),
        }),
        column("EFFECTIVE", false, |v| u32::from(v.status.priority).into()),
        column("ACTIVE", false, |v| v.status.active_node.as_str().into()),
        column("REASON", false, |v| v.status.why.as_str().into()),
        column("VERSION", false, |v| v.instance.version.to_string().into()),
        column("INTERVAL", false, |v| {
            Time::from_millis(u32::from(v.instance.interval) * 10)
                .to_string()
                .into()
        }),
        column("PEERS", false, |v| list(&v.instance.peers)),
        column("SOURCE", false, |v| list(v.instance.source.as_slice())),
        column("TRACK", false, |v| list(&v.instance.track)),
        column("SYNC-GROUP", false, |v| {
            list(v.instance.sync_group.as_slice())
        }),
        column("SETTINGS", false, |v| {
            VrrpSettings::from(&v.instance).brief().words().into()
        }),
        column("SENT", false, |v| v.counters.sent.to_string().into()),
        column("RECEIVED", false, |v| {
            v.counters.received.to_string().into()
        }),
        column("REFUSED", false, |v| {
            let refused: u64 = v.counters.refused.values().sum();
            refused.to_string().into()
        }),
        column("TRANSITIONS", false, |v| {
            v.counters.transitions.to_string().into()
        }),
        column("RULES", false, |v| v.rules.join(",").into()),
    ]
}

/// Names of all columns.
pub fn fields() -> Vec<&'static str> {
    columns().iter().map(|column| column.name).collect()
}

/// The instances that `show-vrrp` is about.
fn select<'a>(args: &ShowVrrp, node: &'a Description) -> Result<Vec<&'a VrrpDescription>, Error> {
    let known = || node.vrrp.iter().map(|v| v.instance.name.as_str());
    show::check_names(Item::Vrrp, &args.names, known)?;
    Ok(node
        .vrrp
        .iter()
        .filter(|v| show::named(&args.names, &v.instance.name))
        .collect())
}

fn render(args: &ShowVrrp, node: &Description, style: Style) -> Result<String, Error> {
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
            "there are no VRRP instances; 'lbadm help create-vrrp' shows how to create one\n"
                .to_string(),
        );
    }
    Ok(table::table(&columns, &rows, style, true, &[]).0)
}
