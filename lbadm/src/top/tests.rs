//! Screens as people see them, and keys.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::screen::{Key, graph, screen};
use super::terminal::keys;
use super::*;
use crate::golden::node::{counted, node};

const PLAIN: Look = Look {
    style: Style { colour: false },
    unicode: true,
};

/// Four looks, a second apart; the last second had twice the traffic.
fn board() -> Board {
    let mut board = Board::default();
    board.node = node();
    for second in [10, 11, 12, 14] {
        board.take(&counted(second), 1.0);
    }
    board
}

fn text(view: &View, width: usize, height: usize, look: Look) -> String {
    screen(&board(), view, width, height, look).join("\n")
}

#[test]
fn screens_are_as_written_down() {
    let usual = View::default();
    let small = View {
        scroll: 3,
        sort: Sort::Name,
        reverse: true,
        ..View::default()
    };
    let filtered = View {
        filter: "web6".into(),
        ..View::default()
    };
    let typing = View {
        filter: "nobody".into(),
        typing: true,
        ..View::default()
    };
    let rules = View {
        only_rules: true,
        ..View::default()
    };
    let ascii = Look {
        unicode: false,
        ..PLAIN
    };
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
    let now: String = [
        ("100 x 18", text(&usual, 100, 18, PLAIN)),
        (
            "72 x 9, by name the other way round, scrolled",
            text(&small, 72, 9, PLAIN),
        ),
        ("80 x 9, only web6", text(&filtered, 80, 9, PLAIN)),
        ("80 x 7, nothing fits", text(&typing, 80, 7, PLAIN)),
        ("90 x 10, only rules, in ASCII", text(&rules, 90, 10, ascii)),
        ("30 x 8", text(&usual, 30, 8, PLAIN)),
        ("lines", lines(&board(), &usual, false, at, PLAIN.style)),
        ("JSON", lines(&board(), &filtered, true, at, PLAIN.style)),
    ]
    .iter()
    .map(|(title, text)| {
        let text: Vec<&str> = text.lines().map(str::trim_end).collect();
        format!("== {title}\n{}\n", text.join("\n"))
    })
    .collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden/top.txt");
    if std::env::var_os("ILB_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, now).unwrap();
    } else {
        assert_eq!(now, fs::read_to_string(&path).unwrap());
    }
}

#[test]
fn no_size_is_too_small_and_no_line_too_long() {
    for width in 0..120 {
        for height in [0, 1, 2, 3, 4, 5, 10, 60] {
            let lines = screen(&board(), &View::default(), width, height, PLAIN);
            assert_eq!(lines.len(), height, "{width} x {height}");
            for line in lines {
                assert!(
                    line.chars().count() <= width,
                    "{width} x {height}: {line:?}"
                );
            }
        }
    }
}

#[test]
fn colours_take_no_room() {
    let coloured = Look {
        style: Style { colour: true },
        ..PLAIN
    };
    let with = text(&View::default(), 100, 18, coloured);
    assert!(with.contains("\x1b[32m"), "{with}");
    let bare = ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"]
        .iter()
        .fold(with, |text, code| text.replace(code, ""));
    assert_eq!(bare, text(&View::default(), 100, 18, PLAIN));
}

#[test]
fn a_graph_shows_something_as_more_than_nothing() {
    for (history, width, drawn) in [
        (&[][..], 3, "   "),
        (&[0, 0][..], 3, "   "),
        (&[0, 1, 8000][..], 3, " ▁█"),
        (&[1, 2, 3, 4, 5, 6, 7, 8][..], 4, "▅▆▇█"),
        (&[u64::MAX, 1][..], 2, "█▁"),
    ] {
        assert_eq!(graph(history, width, true), drawn, "{history:?}");
    }
    assert_eq!(graph(&[0, 1, 8], 3, false), " .#");
}

#[test]
fn numbers_have_five_characters_at_most() {
    for (number, written) in [
        (0, "0"),
        (999, "999"),
        (1000, "1.0k"),
        (9_949, "9.9k"),
        (10_000, "10k"),
        (999_999, "999k"),
        (1_500_000, "1.5M"),
        (40_000_000_000, "40G"),
        (5_000_000_000_000, "5.0T"),
    ] {
        assert_eq!(short(number), written);
    }
}

#[test]
fn keys_are_understood() {
    let up = Key::Move(-1);
    for (bytes, pressed) in [
        (&b"q"[..], vec![Key::Char('q')]),
        (b"\x03", vec![Key::Interrupt]),
        (b"\x1b", vec![Key::Escape]),
        (b"\x1b[A\x1bOAs", vec![up, up, Key::Char('s')]),
        (b"\x1b[6~", vec![Key::Move(isize::MAX)]),
        (b"\x1b[1;5Cx", vec![Key::Char('x')]),
        (b"\x1b[", vec![]),
        (
            "ü\r\x7f\x01".as_bytes(),
            vec![Key::Char('ü'), Key::Enter, Key::Backspace],
        ),
    ] {
        assert_eq!(keys(bytes), pressed, "{bytes:?}");
    }
}

#[test]
fn keys_change_the_view() {
    let mut view = View::default();
    let mut press = |key| {
        let goes_on = view.press(key, 10);
        (goes_on, view.clone())
    };
    assert_eq!(press(Key::Char('s')).1.sort, Sort::Bits);
    assert!(press(Key::Char('r')).1.reverse);
    assert_eq!(press(Key::Move(1)).1.scroll, 1);
    assert_eq!(press(Key::Move(isize::MAX)).1.scroll, 11);
    assert_eq!(press(Key::Move(isize::MIN)).1.scroll, 1);
    assert_eq!(press(Key::Move(-1)).1.scroll, 0);
    assert_eq!(press(Key::Move(-1)).1.scroll, 0);
    assert!(press(Key::Char('/')).1.typing);
    // A letter of the filter is no command.
    let (goes_on, typed) = press(Key::Char('q'));
    assert!(goes_on && typed.filter == "q" && typed.typing);
    assert_eq!(press(Key::Backspace).1.filter, "");
    assert_eq!(press(Key::Char('w')).1.filter, "w");
    let kept = press(Key::Enter).1;
    assert!(!kept.typing && kept.filter == "w");
    assert_eq!(press(Key::Escape).1.filter, "");
    assert!(press(Key::Char(' ')).1.only_rules);
    assert!(!press(Key::Char('q')).0);
    assert!(!press(Key::Interrupt).0);
}
