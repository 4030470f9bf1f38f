//! The command line of ilb.
//!
//! This crate owns the commands of `lbadm`: how they are written, what they print, and their exit codes. It refuses to
//! open the database or to talk to anything but the manager's D-Bus interface, and knows no rule about what may be
//! configured that is not in `libilb`.

#![forbid(unsafe_code)]

mod action;
mod agent;
mod candidate;
mod cli;
mod complete;
mod config;
mod connections;
mod doctor;
mod document;
mod error;
mod explain;
mod finding;
mod hcresult;
mod healthcheck;
mod history;
mod keys;
mod man;
mod monitor;
mod node;
mod pair;
mod rule;
mod server;
mod servergroup;
mod show;
mod statistics;
mod status;
mod table;
mod time;
mod top;
mod usage;

#[cfg(test)]
mod golden;
mod vrrp;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use libilb::client::{Client, ClientError};
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

use action::Action;
use cli::ShowStatistics;
use complete::{Known, Missed};
use error::{Error, Exit};
use explain::Question;
use statistics::Printer;
use table::Style;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let exit = match run(std::env::args_os().collect()).await {
        Ok(exit) => exit,
        // Whoever read our output has enough of it.
        Err(Error::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            complain(&error.to_string());
            error.exit()
        }
    };
    ExitCode::from(exit as u8)
}

/// Understands the command line and does what it says.
async fn run(args: Vec<OsString>) -> Result<Exit, Error> {
    let words: Vec<String> = args
        .iter()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let cli = match cli::parse(args) {
        Ok(cli) => cli,
        Err(e) if !e.use_stderr() => {
            say(&e.render().to_string())?;
            return Ok(Exit::Ok);
        }
        Err(e) => return Err(Error::Usage(usage::message(&e, &words))),
    };
    let (json, ask) = (cli.json, !cli.no_ask_password);
    match action::understand(cli)? {
        Action::Say(text) => say(text)?,
        Action::Man(directory) => man::generate(&directory)?,
        Action::Change(request) => {
            let (word, names) = action::change(request, ask).await?;
            if json {
                say(&action::changed_json(word, &names))?;
            }
        }
        Action::Document(request) => {
            let outcome = document::run(request, json, ask).await?;
            say(&outcome.out)?;
            // If that fails there is nobody left to tell.
            let _ = io::stderr().write_all(outcome.err.as_bytes());
            return Ok(outcome.exit);
        }
        Action::Pair(request) => say(&pair::run(request, json, ask, style()).await?)?,
        Action::Show(show) => {
            let node = Client::connect().await?.describe().await?;
            say(&action::shown(&*show, &node, json, style())?)?;
            return Ok(show.exit(&node));
        }
        Action::Statistics(args) => statistics(args, json).await?,
        Action::Connections(listing) => {
            let client = Client::connect().await?;
            let (found, more) = client.connections(&listing.filter, listing.limit).await?;
            say(&listing.render(&found, more, json, style())?)?;
        }
        Action::History(listing) => {
            let count = listing.count.saturating_add(1);
            let found = Client::connect().await?.history(count).await?;
            say(&listing.render(&found, json, style())?)?;
        }
        Action::Rollback(rollback) => {
            let generation = rollback.generation;
            let report = match rollback.dry_run {
                true => {
                    Client::connect()
                        .await?
                        .preview_rollback(generation)
                        .await?
                }
                false => agent::connect(ask).await?.rollback(generation).await?,
            };
            say(&rollback.render(&report, json, style())?)?;
        }
        Action::HealthResults(results) => {
            let client = Client::connect().await?;
            let report = results.fetch(&client).await?;
            say(&results.render(&report, json, style())?)?;
        }
        Action::Explain(Question::Packet(packet)) => {
            let said = Client::connect().await?.explain(&packet).await?;
            say(&explain::packet(&packet, &said, json, style()))?;
        }
        Action::Explain(Question::Object(object)) => {
            let client = Client::connect().await?;
            let (node, counted) = (client.describe().await?, client.statistics().await?);
            say(&object.explain(&node, &counted, json, style())?)?;
        }
        Action::Export(args) => {
            let node = Client::connect().await?.describe().await?;
            let text = config::export(&args, &node, json);
            match &args.file {
                Some(file) if file.as_os_str() != "-" => config::write(file, &text)?,
                _ => say(&text)?,
            }
        }
        Action::Import(import) => {
            let read = import.read()?;
            say(&import.render(&read, json, style()))?;
            import.check(&read)?;
            if !import.is_dry_run() {
                let client = agent::connect(ask).await?;
                let report = import.apply(&client, &read).await?;
                if !json {
                    say(&report.to_string())?;
                }
            }
        }
        Action::Doctor(config) => {
            let findings = doctor::judge::all(&doctor::look(&config).await);
            say(&match json {
                true => action::line(&serde_json::json!(findings)),
                false => doctor::render(&findings, style()),
            })?;
            return Ok(doctor::exit(&findings));
        }
        Action::Complete(line) => complete(&line).await?,
        Action::Top(args) => top::run(args, json, style(), say).await?,
        Action::Monitor(filter) => monitor(&filter, json).await?,
    }
    Ok(Exit::Ok)
}

/// `show-statistics`: once, `count` times, or until the user has enough.
async fn statistics(args: ShowStatistics, json: bool) -> Result<(), Error> {
    let client = Client::connect().await?;
    if args.drops {
        let node = client.describe().await?;
        let all = client.statistics().await?;
        return say(&statistics::drops(&args, &node, &all, json, style())?);
    }
    let interval = args.interval.map(|s| Duration::from_secs(s.into()));
    let mut left = match (interval, args.count) {
        (None, _) => Some(1),
        (Some(_), count) => count,
    };
    let mut printer = Printer::new(args, json, style());
    let mut last = Instant::now();
    let mut ticks = tokio::time::interval(interval.unwrap_or(Duration::from_secs(1)));
    loop {
        ticks.tick().await;
        let all = client.statistics().await?;
        let elapsed = last.elapsed().as_secs_f64();
        last = Instant::now();
        say(&printer.next(&all, elapsed, SystemTime::now())?)?;
        if let Some(left) = &mut left {
            *left -= 1;
            if *left == 0 {
                return Ok(());
            }
        }
    }
}

/// `__complete`: names are offered if the manager answers at once; somebody waits at a prompt.
async fn complete(line: &str) -> Result<(), Error> {
    let Missed { node, history } = complete::answer(line, Known::default()).missed;
    let look = async {
        if !node && !history {
            return Ok((None, None));
        }
        let client = Client::connect().await?;
        Ok::<_, ClientError>((
            if node {
                Some(client.describe().await?)
            } else {
                None
            },
            if history {
                Some(client.history(0).await?)
            } else {
                None
            },
        ))
    };
    let look = tokio::time::timeout(Duration::from_secs(2), look).await;
    let (node, history) = look.ok().and_then(Result::ok).unwrap_or_default();
    let known = Known {
        node: node.as_ref(),
        history: history.as_deref(),
    };
    say(&complete::answer(line, known).text())
}

/// `monitor`: until the user or the reader of the output has enough.
async fn monitor(filter: &monitor::Filter, json: bool) -> Result<(), Error> {
    let mut watcher = Client::connect().await?.watch().await?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Output)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Output)?;
    let closed = output_closed();
    tokio::pin!(closed);
    loop {
        let event = tokio::select! {
            event = watcher.next() => event?,
            () = &mut closed => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        };
        if let Some(text) = filter.render(event, SystemTime::now(), json, style()) {
            say(&text)?;
        }
    }
}

/// Returns when nobody reads our output any more, also while we write nothing. What is no pipe stays open.
async fn output_closed() {
    if let Ok(pipe) = pipe::OpenOptions::new().open_sender("/proc/self/fd/1")
        && pipe.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Colours only for a terminal that can show them and a user who wants them (<https://no-color.org>).
fn style() -> Style {
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
    Style {
        colour: io::stdout().is_terminal() && !set("NO_COLOR") && !dumb,
    }
}

/// Writes to standard output.
fn say(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::Output)
}

/// Writes to standard error. If that fails too there is nobody left to tell.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "lbadm: {message}");
}
