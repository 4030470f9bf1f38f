//! `top`: a live picture of what passes, or lines of it where there is no terminal.
//!
//! [`board`] counts, [`screen`] draws lines of text, both pure; [`terminal`] is the rest. It takes nothing more than
//! termios, so no crate for terminals is needed.

mod board;
mod screen;
mod terminal;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant, SystemTime};

use libilb::client::Client;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::action::{Action, line};
use crate::cli::{Top, TopCommand};
use crate::error::Error;
use crate::table::{self, Cell, Column, Style};
use crate::time;
use board::{Board, Row, Sort};
use screen::{Look, View, short};
use terminal::Terminal;

/// Reads `top`.
///
/// # Errors
/// None.
pub fn understand(command: TopCommand) -> Result<Action, Error> {
    let TopCommand::Top(args) = command;
    Ok(Action::Top(args))
}

/// What comes from the manager. Everything about a large node is asked for less often than its counters.
struct Source {
    client: Client,
    board: Board,
    last: Instant,
    described: Option<(Instant, Duration)>,
}

impl Source {
    async fn look(&mut self) -> Result<(), Error> {
        let due = self
            .described
            .is_none_or(|(when, cost)| when.elapsed() > cost * 20);
        if due {
            let begin = Instant::now();
            self.board.node = self.client.describe().await?;
            self.described = Some((Instant::now(), begin.elapsed()));
        }
        let counted = self.client.statistics().await?;
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        self.board.take(&counted, seconds);
        Ok(())
    }
}

/// Shows it until the user has enough.
///
/// # Errors
/// The manager does not answer, or the output is gone.
pub async fn run(
    args: Top,
    json: bool,
    style: Style,
    say: impl Fn(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut source = Source {
        client: Client::connect().await?,
        board: Board::default(),
        last: Instant::now(),
        described: None,
    };
    // Before the terminal is another, so that an error is seen.
    source.look().await?;
    let every = Duration::from_secs(args.interval.unwrap_or(1).into());
    let view = View {
        filter: args.filter.clone().unwrap_or_default(),
        ..View::default()
    };
    if json || args.plain || !io::stdout().is_terminal() {
        return plain(source, &args, every, &view, json, style, say).await;
    }
    match Terminal::open() {
        Ok(terminal) => live(source, terminal, &args, every, view, style).await,
        Err(_) => plain(source, &args, every, &view, json, style, say).await,
    }
}

/// Whether the user's locale has more than ASCII.
fn unicode() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter();
    let mut set = set.filter_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    set.next().is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

async fn live(
    mut source: Source,
    mut terminal: Terminal,
    args: &Top,
    every: Duration,
    mut view: View,
    style: Style,
) -> Result<(), Error> {
    let gone = Error::Output;
    let look = Look {
        style,
        unicode: unicode(),
    };
    let mut resized = signal(SignalKind::window_change()).map_err(gone)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(gone)?;
    let mut ticks = tokio::time::interval(every);
    ticks.reset();
    let mut left = args.count;
    loop {
        let (width, height) = terminal.size();
        let lines = screen::screen(&source.board, &view, width, height, look);
        terminal.draw(&lines).map_err(gone)?;
        tokio::select! {
            keys = terminal.keys() => {
                for key in keys.map_err(gone)? {
                    if !view.press(key, height.saturating_sub(6).max(1)) {
                        return Ok(());
                    }
                }
            }
            _ = ticks.tick() => {
                source.look().await?;
                if let Some(left) = &mut left {
                    *left -= 1;
                    if *left == 0 {
                        return Ok(());
                    }
                }
            }
            _ = resized.recv() => {}
            _ = terminate.recv() => return Ok(()),
        }
    }
}

async fn plain(
    mut source: Source,
    args: &Top,
    every: Duration,
    view: &View,
    json: bool,
    style: Style,
    say: impl Fn(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut ticks = tokio::time::interval(every);
    ticks.reset();
    let mut left = args.count;
    loop {
        ticks.tick().await;
        source.look().await?;
        say(&lines(&source.board, view, json, SystemTime::now(), style))?;
        if let Some(left) = &mut left {
            *left -= 1;
            if *left == 0 {
                return Ok(());
            }
        }
    }
}

/// One look as lines.
fn lines(board: &Board, view: &View, json: bool, now: SystemTime, style: Style) -> String {
    let rows = board.rows(Sort::Packets, false, &view.filter, true);
    if json {
        let total = board.total();
        return line(&json!({ "time": time::rfc3339(now), "node": total, "rows": rows }));
    }
    let text = |name, value: fn(&Row) -> Cell| Column {
        name,
        default: true,
        number: false,
        value,
    };
    let number = |name, value: fn(&Row) -> Cell| Column {
        name,
        default: true,
        number: true,
        value,
    };
    let columns = [
        text("RULE", |r| r.rule.as_str().into()),
        text("SERVERID", |r| r.server.as_str().into()),
        text("STATE", |r| Cell {
            text: r.state.clone(),
            tone: r.tone,
        }),
        number("PKT/S", |r| short(r.rates.packets).into()),
        number("BIT/S", |r| short(r.rates.bits).into()),
        number("NEW/S", |r| short(r.rates.begun).into()),
        number("DROP/S", |r| short(r.rates.dropped).into()),
        number("CONN", |r| short(r.connections).into()),
    ];
    let (table, _) = table::table(&columns, &rows, style, true, &[]);
    format!("{}\n{table}\n", time::rfc3339(now))
}
