//! The screen of `top` as lines of text. Pure.

use libilb::describe::{Fastpath, State};

use super::board::{Board, Row, Sort};
use crate::status;
use crate::table::{Style, Tone};

/// What the user has chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// By what is sorted.
    pub sort: Sort,
    /// The other way round.
    pub reverse: bool,
    /// Only names that hold this.
    pub filter: String,
    /// Whether the filter is being typed.
    pub typing: bool,
    /// Whether servers are hidden.
    pub only_rules: bool,
    /// Rows above the screen.
    pub scroll: usize,
}

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Up or down by so many rows.
    Move(isize),
    /// Ctrl-C.
    Interrupt,
}

impl View {
    /// Does what a key says; false ends it all.
    pub fn press(&mut self, key: Key, page: usize) -> bool {
        match key {
            Key::Interrupt => return false,
            Key::Char(c) if self.typing => self.filter.push(c),
            Key::Backspace if self.typing => {
                self.filter.pop();
            }
            Key::Enter if self.typing => self.typing = false,
            Key::Escape => {
                self.typing = false;
                self.filter.clear();
            }
            Key::Char('q' | 'Q') => return false,
            Key::Char('s') => self.sort = self.sort.next(),
            Key::Char('r') => self.reverse = !self.reverse,
            Key::Char(' ') => self.only_rules = !self.only_rules,
            Key::Char('/') => self.typing = true,
            Key::Move(rows) => {
                let rows = match rows {
                    isize::MIN => -(page as isize),
                    isize::MAX => page as isize,
                    rows => rows,
                };
                self.scroll = self.scroll.saturating_add_signed(rows);
            }
            Key::Char(_) | Key::Enter | Key::Backspace => {}
        }
        true
    }
}

/// How graphs may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Colours.
    pub style: Style,
    /// Whether the terminal shows more than ASCII.
    pub unicode: bool,
}

const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 9] = [' ', '.', ':', '-', '=', '+', '*', '%', '#'];

/// A graph of the last values, as high as the largest of them.
pub fn graph(history: &[u64], width: usize, unicode: bool) -> String {
    let marks = if unicode { BLOCKS } else { ASCII };
    let shown = &history[history.len().saturating_sub(width)..];
    let most = shown.iter().copied().max().unwrap_or(0).max(1);
    let blank = width - shown.len();
    let bars = shown.iter().map(|&value| {
        // Something is never nothing.
        let eighths = (u128::from(value) * 8).div_ceil(u128::from(most));
        marks[eighths as usize]
    });
    std::iter::repeat_n(' ', blank).chain(bars).collect()
}

/// A number in five characters at most.
pub fn short(number: u64) -> String {
    let units = [
        (1_000_000_000_000, 'T'),
        (1_000_000_000, 'G'),
        (1_000_000, 'M'),
        (1_000, 'k'),
    ];
    let unit = units.into_iter().find(|(size, _)| number >= *size);
    match unit {
        Some((size, letter)) if number < 10 * size => {
            let tenths = number / (size / 10);
            format!("{}.{}{letter}", tenths / 10, tenths % 10)
        }
        Some((size, letter)) => format!("{}{letter}", number / size),
        None => number.to_string(),
    }
}

const NUMBERS: usize = 7;

/// The whole screen, `height` lines of at most `width` columns.
pub fn screen(board: &Board, view: &View, width: usize, height: usize, look: Look) -> Vec<String> {
    let style = look.style;
    let total = board.total();
    let mut lines = vec![
        first(board, width, style),
        second(&total, width, look),
        third(board, width, style),
    ];
    let rows = board.rows(view.sort, view.reverse, &view.filter, !view.only_rules);
    let name = rows.iter().map(|row| name(row).chars().count()).max();
    let name = name.unwrap_or(0).clamp(12, 30).min(width / 3);
    let graphs = width.saturating_sub(name + 2 + 11 + 5 * (NUMBERS + 1) + 2);
    lines.push(heading(view, name, graphs, width));
    let room = height.saturating_sub(lines.len() + 1);
    let scroll = view.scroll.min(rows.len().saturating_sub(room));
    for row in rows.iter().skip(scroll).take(room) {
        lines.push(row_line(row, name, graphs, width, look));
    }
    if rows.is_empty() && room > 0 {
        lines.push(
            match (board.node.rules.is_empty(), view.filter.is_empty()) {
                (true, _) => "there are no rules".to_string(),
                (false, _) => "no rule or server has this in its name".to_string(),
            },
        );
    }
    lines.resize(height.saturating_sub(1), String::new());
    lines.truncate(height.saturating_sub(1));
    if height > 0 {
        lines.push(footer(view, rows.len(), scroll, room, width));
    }
    lines
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

fn first(board: &Board, width: usize, style: Style) -> String {
    let node = &board.node;
    let (tone, state) = match (node.state, node.fastpath) {
        (State::Degraded, _) => (Tone::Bad, "degraded: nothing can be changed".to_string()),
        (_, Fastpath::Absent) => (Tone::Bad, "the fast path is absent".to_string()),
        (_, Fastpath::Behind) => (Tone::Bad, "the fast path is behind".to_string()),
        (State::Ok, Fastpath::Connected) => (Tone::Good, "forwards".to_string()),
    };
    let head = format!("ilb {}, generation {}: ", node.version, node.generation);
    let head = cut(&head, width);
    let rest = cut(&state, width.saturating_sub(head.chars().count()));
    head + &style.paint(tone, &rest)
}

fn second(total: &Row, width: usize, look: Look) -> String {
    let text = format!(
        "{} packets/s, {} bit/s, {} new/s, {} drops/s, {} connections ",
        short(total.rates.packets),
        short(total.rates.bits),
        short(total.rates.begun),
        short(total.rates.dropped),
        short(total.connections)
    );
    let room = width.saturating_sub(text.chars().count()).min(60);
    cut(
        &(text + graph(&total.history, room, look.unicode).trim_start()),
        width,
    )
}

/// The worst that ails the node, in a line; how much else there is stands before it, where it is seen.
fn third(board: &Board, width: usize, style: Style) -> String {
    let troubles = status::troubles(&board.node);
    let Some(worst) = troubles.iter().rev().max_by_key(|trouble| trouble.level) else {
        return String::new();
    };
    let count = match troubles.len() {
        1 => String::new(),
        n => format!("1 of {n} problems, "),
    };
    let text = format!("{count}{}: {}", worst.about, worst.found);
    style.paint(worst.level.tone(), &cut(&text, width))
}

fn name(row: &Row) -> String {
    match row.server.as_str() {
        "" => row.rule.clone(),
        server => format!("  {server}"),
    }
}

fn heading(view: &View, name: usize, graphs: usize, width: usize) -> String {
    let mark = |heading: &str| match heading == view.sort.heading() {
        true if view.reverse => format!("^{heading}"),
        true => format!("v{heading}"),
        false => heading.to_string(),
    };
    let mut line = format!("{:<name$}  {:<11}", mark("RULE"), "STATE");
    for heading in ["PKT/S", "BIT/S", "NEW/S", "DROP/S", "CONN"] {
        line.push_str(&format!(" {:>NUMBERS$}", mark(heading)));
    }
    if graphs >= 8 {
        line.push_str("  PACKETS");
    }
    cut(&line, width)
}

fn row_line(row: &Row, wide: usize, graphs: usize, width: usize, look: Look) -> String {
    let numbers = [
        row.rates.packets,
        row.rates.bits,
        row.rates.begun,
        row.rates.dropped,
        row.connections,
    ];
    let name = cut(&name(row), wide);
    let state = cut(&row.state, 11);
    let mut rest = String::new();
    for number in numbers {
        rest.push_str(&format!(" {:>NUMBERS$}", short(number)));
    }
    if graphs >= 8 {
        rest.push_str("  ");
        rest.push_str(graph(&row.history, graphs, look.unicode).trim_end());
    }
    let rest = cut(&rest, width.saturating_sub(wide + 2 + 11));
    let padded = format!("{state:<11}");
    let line = format!(
        "{name:<wide$}  {}{rest}",
        look.style.paint(row.tone, &padded)
    );
    match width < wide + 2 + 11 {
        true => cut(&format!("{name:<wide$}  {padded}"), width),
        false => line,
    }
}

fn footer(view: &View, rows: usize, scroll: usize, room: usize, width: usize) -> String {
    if view.typing {
        return cut(
            &format!("filter: {}_  (Enter keeps it, Esc clears it)", view.filter),
            width,
        );
    }
    let filter = match view.filter.as_str() {
        "" => String::new(),
        filter => format!("  [only {filter}]"),
    };
    let more = match rows > room {
        true => format!("  {}-{} of {rows}", scroll + 1, (scroll + room).min(rows)),
        false => String::new(),
    };
    cut(
        &format!("q quit  s sort  r reverse  / filter  space servers  arrows scroll{filter}{more}"),
        width,
    )
}
