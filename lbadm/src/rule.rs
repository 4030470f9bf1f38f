//! `create-rule`, `delete-rule`, `enable-rule`, `disable-rule`, `show-rule`.

use libilb::describe::{Description, RuleDescription, Status};
use libilb::error::Item;
use libilb::healthcheck_use;
use libilb::notify::{NOTIFY_EVENTS, NotifyCommand, NotifyEvent, is_none};
use libilb::rule::{
    Flags, HealthCheckUse, Orphans, PanicMode, Protocol, Rule, RuleSettings, Synchronise,
    VipSettings,
};

use serde_json::{Value, json};

use crate::action::{Action, Request, Show};
use crate::cli::{CreateRule, DeleteRule, ModifyRule, RuleCommand, RuleNames, ShowRule};
use crate::error::Error;
use crate::keys::{HEALTH, INCOMING, Key, METHOD, OUTGOING, TIMERS};
use crate::show;
use crate::table::{self, Cell, Column, Style, Tone};

/// Reads a command about rules.
///
/// # Errors
/// Everything that is wrong whatever is configured.
pub fn understand(command: RuleCommand) -> Result<Action, Error> {
    match command {
        RuleCommand::CreateRule(args) => create(args),
        RuleCommand::ModifyRule(args) => modify(args),
        RuleCommand::DeleteRule(args) => delete(args),
        RuleCommand::EnableRule(args) => Ok(enable(args, true)),
        RuleCommand::DisableRule(args) => Ok(enable(args, false)),
        RuleCommand::ShowRule(args) => show(args),
    }
}

fn enable(args: RuleNames, enabled: bool) -> Action {
    Action::Change(Request::EnableRules {
        names: args.names,
        enabled,
    })
}

/// Reads `create-rule`.
///
/// # Errors
/// Everything that is wrong whatever is configured.
fn create(args: CreateRule) -> Result<Action, Error> {
    let mut settings = RuleSettings {
        enabled: args.enable,
        ..RuleSettings::default()
    };
    incoming(&args.incoming, &mut settings)?;
    let mut pairs = METHOD.parse(&args.method)?;
    pairs.extend(TIMERS.parse(&args.timers)?);
    pairs.extend(OUTGOING.parse(&args.outgoing)?);
    pairs.extend(HEALTH.parse(&args.health)?);
    notify(&args.notify, &mut settings)?;
    set(pairs, &mut settings)?;
    if args.persistent {
        settings.pmask.get_or_insert_default();
    }
    let vips = settings.vips();
    let ported = |vip: &VipSettings| {
        let word = vip.protocol.as_deref().unwrap_or("tcp");
        // What is no protocol gets its own message.
        Protocol::parse(word).is_ok_and(Protocol::has_ports)
    };
    for (missing, what) in [
        (vips.iter().any(|vip| vip.vip.is_empty()), "-i vip=ADDRESS"),
        (
            vips.iter().any(|vip| vip.port.is_empty() && ported(vip)),
            "-i port=PORT",
        ),
        (settings.algorithm.is_empty(), "-m lbalg=ALGORITHM"),
        (settings.topology.is_empty(), "-m type=TOPOLOGY"),
        (settings.servergroup.is_empty(), "-o servergroup=NAME"),
    ] {
        if missing {
            return Err(Error::Usage(format!(
                "missing: {what} ('lbadm help create-rule' explains it)"
            )));
        }
    }
    if settings.health_check.is_none() && settings.health_check_port.is_some() {
        return Err(Error::Usage(
            "missing: -h hc-name=NAME ('lbadm help create-rule' explains it)".to_string(),
        ));
    }
    settings
        .check(&args.name)
        .map_err(Error::from_command_line)?;
    Ok(Action::Change(Request::CreateRule {
        name: args.name,
        settings: Box::new(settings),
    }))
}

/// Reads `modify-rule`.
///
/// # Errors
/// Everything that is wrong whatever is configured.
fn modify(args: ModifyRule) -> Result<Action, Error> {
    let mut settings = RuleSettings::default();
    incoming(&args.incoming, &mut settings)?;
    let mut pairs = METHOD.parse(&args.method)?;
    pairs.extend(TIMERS.parse(&args.timers)?);
    match &args.health[..] {
        [word] if healthcheck_use::is_none(word) => settings.health_check = Some(word.clone()),
        given => pairs.extend(HEALTH.parse(given)?),
    }
    set(pairs, &mut settings)?;
    notify(&args.notify, &mut settings)?;
    if args.persistent {
        settings.pmask.get_or_insert_default();
    }
    if settings == RuleSettings::default() {
        return Err(Error::Usage(
            "what shall be changed? Give -m, -t, -h, -n, -i or -p ('lbadm help modify-rule' explains it)"
                .to_string(),
        ));
    }
    Ok(Action::Change(Request::ModifyRule {
        name: args.name,
        settings: Box::new(settings),
    }))
}

/// Reads every `-n`. A command may have commas.
fn notify(texts: &[String], settings: &mut RuleSettings) -> Result<(), Error> {
    for text in texts {
        let Some((word, command)) = text.split_once('=') else {
            let events = libilb::words::all(NOTIFY_EVENTS);
            return Err(Error::Usage(format!(
                "-n: '{text}' is not EVENT=COMMAND: write it like down='/usr/local/bin/tell admin'; events are {events}"
            )));
        };
        let event = NotifyEvent::parse(word.trim()).map_err(Error::from_command_line)?;
        if !is_none(command) {
            let read: Result<NotifyCommand, _> = command.parse();
            read.map_err(Error::from_command_line)?;
        }
        if settings.notify.insert(event, command.to_string()).is_some() {
            return Err(Error::Usage(format!("-n: event '{event}' is given twice")));
        }
    }
    Ok(())
}

/// Reads every `-i`. A vip begins with the option in which it is named; what is said without one belongs to the vip
/// before it.
fn incoming(texts: &[String], settings: &mut RuleSettings) -> Result<(), Error> {
    let mut vips: Vec<VipSettings> = vec![VipSettings::default()];
    for pairs in INCOMING.parse_each(texts)? {
        let named = pairs.iter().any(|(key, _)| *key == Key::Vip);
        if named && vips.last().is_some_and(|vip| !vip.vip.is_empty()) {
            vips.push(VipSettings::default());
        }
        let Some(vip) = vips.last_mut() else {
            continue;
        };
        for (key, value) in pairs {
            let twice = match key {
                Key::Vip => !std::mem::replace(&mut vip.vip, value).is_empty(),
                Key::Port => !std::mem::replace(&mut vip.port, value).is_empty(),
                Key::Protocol => vip.protocol.replace(value).is_some(),
                Key::Client => {
                    settings.clients.push(value);
                    false
                }
                Key::ManageAddresses => {
                    let manage = yes_or_no("manage-addresses", &value)?;
                    settings.manage_addresses.replace(manage).is_some()
                }
                _ => false,
            };
            if twice {
                return Err(INCOMING.twice(key));
            }
        }
    }
    let first = vips.remove(0);
    (settings.vip, settings.port, settings.protocol) = (first.vip, first.port, first.protocol);
    settings.more_vips = vips;
    Ok(())
}

/// Takes over what -m, -t and -o said.
fn set(pairs: Vec<(Key, String)>, settings: &mut RuleSettings) -> Result<(), Error> {
    for (key, value) in pairs {
        match key {
            Key::Lbalg => settings.algorithm = value,
            Key::Flags => settings.flags.push(value),
            Key::Type => settings.topology = value,
            Key::Tunnel => settings.tunnel = Some(value),
            Key::GuePort => settings.gue_port = Some(number("gue-port", &value)?),
            Key::TunnelChecksum => settings.tunnel_checksum = Some(value),
            Key::ProxySrc => settings.proxy_src.push(value),
            Key::Pmask => settings.pmask = Some(value),
            Key::OnePacket => settings.one_packet = Some(yes_or_no("one-packet", &value)?),
            Key::Orphans => settings.orphans = Some(value),
            Key::Sync => settings.sync = Some(value),
            Key::MaxNewFlows => settings.max_new_flows = Some(number("max-new-flows", &value)?),
            Key::Quorum => settings.quorum = Some(number("quorum", &value)?),
            Key::Hysteresis => settings.hysteresis = Some(number("hysteresis", &value)?),
            Key::PanicMode => settings.panic_mode = Some(value),
            Key::PanicThreshold => {
                settings.panic_threshold = Some(number("panic-threshold", &value)?);
            }
            Key::ConnDrain => settings.conn_drain = Some(seconds("conn-drain", &value)?),
            Key::NatTimeout => settings.nat_timeout = Some(seconds("nat-timeout", &value)?),
            Key::PersistTimeout => {
                settings.persist_timeout = Some(seconds("persist-timeout", &value)?);
            }
            Key::SlowStart => settings.slow_start = Some(seconds("slow-start", &value)?),
            Key::Timeout(state) => {
                let seconds = seconds(state.name(), &value)?;
                settings.timeouts.insert(state, seconds);
            }
            Key::Servergroup => settings.servergroup = value,
            Key::HcName => settings.health_check = Some(value),
            Key::HcPort => settings.health_check_port = Some(value),
            Key::Vip
            | Key::Port
            | Key::Protocol
            | Key::Client
            | Key::ManageAddresses
            | Key::Server
            | Key::Limit(_)
            | Key::Id
            | Key::Place
            | Key::Found => {}
        }
    }
    Ok(())
}

/// Reads `delete-rule`.
///
/// # Errors
/// Neither names nor `-a`, or both.
fn delete(args: DeleteRule) -> Result<Action, Error> {
    match (args.all, args.names.is_empty()) {
        (true, true) => Ok(Action::Change(Request::DeleteAllRules)),
        (false, false) => Ok(Action::Change(Request::DeleteRules(args.names))),
        (true, false) => Err(Error::Usage(
            "-a deletes all rules: give either -a or names".to_string(),
        )),
        (false, true) => Err(Error::Usage(
            "which rules? Give their names, or -a for all".to_string(),
        )),
    }
}

/// Reads `show-rule`.
///
/// # Errors
/// Unknown fields.
fn show(args: ShowRule) -> Result<Action, Error> {
    table::choose(
        &columns(),
        args.format.output.as_deref(),
        args.format.parsable,
    )?;
    Ok(Action::Show(Box::new(args)))
}

fn seconds(key: &str, value: &str) -> Result<u32, Error> {
    value.parse().map_err(|_| {
        Error::Usage(format!(
            "{key} '{value}' is not a number of seconds: write it like {key}=60"
        ))
    })
}

fn number(key: &str, value: &str) -> Result<u32, Error> {
    value.parse().map_err(|_| {
        Error::Usage(format!(
            "{key} '{value}' is not a number: write it like {key}=1000"
        ))
    })
}

fn yes_or_no(key: &str, value: &str) -> Result<bool, Error> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" => Ok(true),
        "no" | "false" | "off" => Ok(false),
        _ => Err(Error::Usage(format!(
            "{key} '{value}' is not known: use yes or no"
        ))),
    }
}

impl Show for ShowRule {
    fn render(&self, node: &Description, style: Style) -> Result<String, Error> {
        render(self, node, style)
    }

    fn json(&self, node: &Description) -> Result<Value, Error> {
        Ok(json!(select(self, node)?))
    }
}

/// A rule with what is around it.
struct Row<'a> {
    rule: &'a RuleDescription,
    servers: String,
}

/// The colour of a status.
pub fn status_cell(status: Status) -> Cell {
    Cell {
        text: status.to_string(),
        tone: match status {
            Status::Enabled => Tone::Good,
            Status::Disabled | Status::Draining => Tone::Notice,
        },
    }
}

fn column<'a>(name: &'static str, value: fn(&Row<'a>) -> Cell) -> Column<Row<'a>> {
    Column {
        name,
        default: true,
        number: false,
        value,
    }
}

fn extra<'a>(name: &'static str, value: fn(&Row<'a>) -> Cell) -> Column<Row<'a>> {
    Column {
        name,
        default: false,
        number: false,
        value,
    }
}

/// Every column.
fn columns<'a>() -> Vec<Column<Row<'a>>> {
    vec![
        column("RULENAME", |r| r.rule.rule.name.as_str().into()),
        column("STATUS", |r| status_cell(r.rule.status)),
        column("LBALG", |r| r.rule.rule.algorithm.into()),
        column("TYPE", |r| r.rule.rule.topology.into()),
        column("PROTOCOL", |r| {
            r.rule.rule.vips.column(|vip| vip.protocol).into()
        }),
        column("VIP", |r| r.rule.rule.vips.column(|vip| vip.address).into()),
        column("PORT", |r| r.rule.rule.vips.column(|vip| vip.ports).into()),
        extra("SERVERGROUP", |r| r.rule.rule.servergroup.as_str().into()),
        extra("SERVERS", |r| r.servers.as_str().into()),
        extra("PROXY-SRC", |r| listed(&r.rule.rule.proxy_src)),
        extra("CONN-DRAIN", |r| r.rule.rule.conn_drain.into()),
        extra("NAT-TIMEOUT", |r| r.rule.rule.idle_timeout().into()),
        extra("MANAGE-ADDRESSES", |r| yes(r.rule.rule.manage_addresses)),
        extra("CONNECTIONS", |r| r.rule.connections.into()),
        extra("PROBLEMS", |r| Cell {
            text: r.rule.problems.join("; "),
            tone: Tone::Bad,
        }),
        extra("CLIENTS", |r| listed(&r.rule.rule.clients)),
        extra("FLAGS", |r| {
            let rule = &r.rule.rule;
            rule.flags.words(rule.algorithm).into()
        }),
        extra("TUNNEL", |r| {
            let tunnel = r.rule.rule.tunnel;
            tunnel
                .map(|tunnel| tunnel.to_string())
                .unwrap_or_default()
                .into()
        }),
        extra("PMASK", |r| {
            let persistence = r.rule.rule.persistence;
            persistence
                .map(|p| format!("/{}", p.mask))
                .unwrap_or_default()
                .into()
        }),
        extra("PERSIST-TIMEOUT", |r| {
            let persistence = r.rule.rule.persistence;
            persistence.map(|p| p.timeout.into()).unwrap_or_default()
        }),
        extra("ONE-PACKET", |r| yes(r.rule.rule.one_packet)),
        extra("ORPHANS", |r| r.rule.rule.orphans.into()),
        extra("SYNC", |r| r.rule.rule.sync.into()),
        extra("SLOW-START", |r| r.rule.rule.slow_start.into()),
        extra("MAX-NEW-FLOWS", |r| r.rule.rule.max_new_flows.into()),
        extra("QUORUM", |r| r.rule.rule.quorum.into()),
        extra("HYSTERESIS", |r| r.rule.rule.hysteresis.into()),
        extra("PANIC-MODE", |r| r.rule.rule.panic_mode.into()),
        extra("PANIC-THRESHOLD", |r| {
            u32::from(r.rule.rule.panic_threshold).into()
        }),
        extra("NOTIFY", |r| {
            let set = r.rule.rule.notify.iter();
            let all: Vec<String> = set
                .map(|(event, command)| format!("{event}={command}"))
                .collect();
            all.join("; ").into()
        }),
        extra("HAS-QUORUM", |r| {
            r.rule.has_quorum.map(yes).unwrap_or_default()
        }),
        extra("SERVED-BY", |r| {
            r.rule.served_by.as_deref().unwrap_or_default().into()
        }),
        extra("PANIC", |r| Cell {
            text: r
                .rule
                .panic
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            tone: Tone::Notice,
        }),
        extra("TIMEOUTS", |r| {
            let set = r.rule.rule.timeouts.iter();
            let all: Vec<String> = set
                .map(|(state, seconds)| format!("{state}={seconds}"))
                .collect();
            all.join(",").into()
        }),
        extra("HC-NAME", |r| checked(r, |used| used.name.as_str().into())),
        extra("HC-PORT", |r| {
            checked(r, |used| used.port.map(Cell::from).unwrap_or_default())
        }),
    ]
}

fn checked(row: &Row<'_>, value: fn(&HealthCheckUse) -> Cell) -> Cell {
    let used = row.rule.rule.health_check.as_ref();
    used.map(value).unwrap_or_default()
}

fn yes(value: bool) -> Cell {
    if value { "yes" } else { "no" }.into()
}

fn listed<T: ToString>(all: &[T]) -> Cell {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join(",").into()
}

/// Names of all columns.
pub fn fields() -> Vec<&'static str> {
    columns().iter().map(|column| column.name).collect()
}

/// Whether a rule has what a field is about; `-f` leaves the others out.
fn concerns(name: &str, rule: &Rule) -> bool {
    match name {
        "PROXY-SRC" => !rule.proxy_src.is_empty(),
        "CLIENTS" => !rule.clients.is_empty(),
        "FLAGS" => rule.flags != Flags::default(),
        "TUNNEL" => rule.tunnel.is_some(),
        "PMASK" | "PERSIST-TIMEOUT" => rule.persistence.is_some(),
        "ONE-PACKET" => rule.one_packet,
        "ORPHANS" => rule.orphans != Orphans::default(),
        "SYNC" => rule.sync != Synchronise::default(),
        "SLOW-START" => rule.slow_start > 0,
        "MAX-NEW-FLOWS" => rule.max_new_flows > 0,
        "QUORUM" => rule.quorum > 1,
        "HYSTERESIS" => rule.hysteresis > 0,
        "PANIC-MODE" | "PANIC-THRESHOLD" => rule.panic_mode != PanicMode::None,
        "TIMEOUTS" => !rule.timeouts.is_empty(),
        "NOTIFY" => !rule.notify.is_empty(),
        "HC-NAME" | "HC-PORT" => rule.health_check.is_some(),
        _ => true,
    }
}

/// The rules that `show-rule` is about.
///
/// # Errors
/// A name that does not exist.
fn select<'a>(args: &ShowRule, node: &'a Description) -> Result<Vec<&'a RuleDescription>, Error> {
    let rules = || node.rules.iter().filter(|r| args.deleted || !r.deleted);
    let known = || rules().map(|r| r.rule.name.as_str());
    show::check_names(Item::Rule, &args.names, known)?;
    Ok(rules()
        .filter(|r| show::named(&args.names, &r.rule.name))
        .filter(|r| !args.enabled || r.status == Status::Enabled)
        .filter(|r| !args.disabled || r.status != Status::Enabled)
        .collect())
}

/// Writes `show-rule`.
///
/// # Errors
/// A name or field that does not exist.
fn render(args: &ShowRule, node: &Description, style: Style) -> Result<String, Error> {
    let groups = show::Groups::of(node);
    let rows: Vec<Row<'_>> = select(args, node)?
        .into_iter()
        .map(|rule| Row {
            rule,
            servers: groups
                .get(&rule.rule.servergroup)
                .map_or(String::new(), |g| {
                    let ids: Vec<&str> = g
                        .servers
                        .iter()
                        .filter(|s| !s.removed)
                        .map(|s| s.server.id.as_str())
                        .collect();
                    ids.join(",")
                }),
        })
        .collect();
    if args.full {
        return Ok(full(&rows, style));
    }
    let columns = table::choose(
        &columns(),
        args.format.output.as_deref(),
        args.format.parsable,
    )?;
    if args.format.parsable {
        return Ok(table::parsable(&columns, &rows));
    }
    if rows.is_empty() && args.names.is_empty() {
        let which = match (args.enabled, args.disabled) {
            (true, _) => "no rule is enabled; 'lbadm enable-rule' enables them\n",
            (_, true) => "every rule is enabled\n",
            _ => "there are no rules; 'lbadm help create-rule' shows how to create one\n",
        };
        return Ok(if node.rules.is_empty() {
            "there are no rules; 'lbadm help create-rule' shows how to create one\n".to_string()
        } else {
            which.to_string()
        });
    }
    let (mut out, _) = table::table(&columns, &rows, style, true, &[]);
    if !args.deleted && !args.enabled && !args.disabled && args.names.is_empty() {
        let gone = node.rules.iter().filter(|r| r.deleted);
        out.push_str(&show::draining(
            "deleted, until the last connections end",
            gone.map(|r| (r.rule.name.as_str(), r.connections)),
        ));
    }
    for row in &rows {
        if let Some(panic) = &row.rule.panic {
            let line = format!("{}: {panic}", row.rule.rule.name);
            out.push_str(&style.paint(Tone::Notice, &line));
            out.push('\n');
        }
        for problem in &row.rule.problems {
            let line = format!("{}: {problem}", row.rule.rule.name);
            out.push_str(&style.paint(Tone::Bad, &line));
            out.push('\n');
        }
    }
    Ok(out)
}

/// `-f`: a line for each field, a blank line between rules.
fn full(rows: &[Row<'_>], style: Style) -> String {
    let blocks: Vec<String> = rows
        .iter()
        .map(|row| {
            columns()
                .into_iter()
                .filter(|c| concerns(c.name, &row.rule.rule))
                .filter(|c| c.name != "PROBLEMS" || !row.rule.problems.is_empty())
                .filter(|c| c.name != "HAS-QUORUM" || row.rule.has_quorum == Some(false))
                .filter(|c| c.name != "SERVED-BY" || row.rule.served_by.is_some())
                .filter(|c| c.name != "PANIC" || row.rule.panic.is_some())
                .map(|c| {
                    let cell = (c.value)(row);
                    let note = match (c.name, cell.text.as_str()) {
                        ("STATUS", _) if row.rule.deleted => " (deleted)",
                        ("CONN-DRAIN", "0") => " (until the last connection ends)",
                        ("CONN-DRAIN" | "NAT-TIMEOUT" | "PERSIST-TIMEOUT" | "SLOW-START", _) => {
                            " s"
                        }
                        ("MAX-NEW-FLOWS", _) => " a second",
                        _ => "",
                    };
                    let text = if cell.text.is_empty() {
                        "-"
                    } else {
                        &cell.text
                    };
                    format!("{:>16}: {}{note}\n", c.name, style.paint(cell.tone, text))
                })
                .collect()
        })
        .collect();
    blocks.join("\n")
}
