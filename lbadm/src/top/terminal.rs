//! The terminal of `top`: its own screen, keys as they are pressed, and everything back as it was at the end.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::fs::{Mode, OFlags};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::screen::Key;

/// Another screen, without cursor (xterm's private modes 1049 and 25, which every terminal of today has).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// See the module. What was changed is undone when it is dropped.
pub struct Terminal {
    tty: File,
    before: Termios,
    pressed: mpsc::Receiver<io::Result<Vec<Key>>>,
}

impl Terminal {
    /// Takes over the controlling terminal.
    ///
    /// # Errors
    /// There is none, or it is none that can be set.
    pub fn open() -> io::Result<Terminal> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        let tty = File::from(rustix::fs::open("/dev/tty", flags, Mode::empty())?);
        let before = tcgetattr(&tty)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&tty, OptionalActions::Now, &raw)?;
        // It waits for a key when we end, and ends with us.
        let (sender, pressed) = mpsc::channel(16);
        let keyboard = tty.try_clone()?;
        std::thread::spawn(move || read(keyboard, &sender));
        let terminal = Terminal {
            tty,
            before,
            pressed,
        };
        terminal.write(ENTER)?;
        Ok(terminal)
    }

    /// Columns and lines.
    pub fn size(&self) -> (usize, usize) {
        match tcgetwinsize(&self.tty) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => (80, 24),
        }
    }

    /// Shows these lines, and nothing else.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        self.write(&text)
    }

    /// Waits for keys.
    ///
    /// # Errors
    /// The terminal is gone.
    pub async fn keys(&mut self) -> io::Result<Vec<Key>> {
        match self.pressed.recv().await {
            Some(keys) => keys,
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Standard output is the terminal, and blocks.
    fn write(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to put back.
        let _ = self.write(LEAVE);
        let _ = tcsetattr(&self.tty, OptionalActions::Now, &self.before);
    }
}

/// Reads keys until there is nobody to press them, or nobody to tell.
fn read(mut keyboard: File, sender: &mpsc::Sender<io::Result<Vec<Key>>>) {
    let mut bytes = [0; 64];
    loop {
        let pressed = match keyboard.read(&mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => Ok(keys(&bytes[..length])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let last = pressed.is_err();
        if sender.blocking_send(pressed).is_err() || last {
            return;
        }
    }
}

/// The keys behind some bytes, which come whole.
pub fn keys(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let text = String::from_utf8_lossy(bytes);
    let mut rest: &str = &text;
    let sequences = [
        ("\x1b[A", Key::Move(-1)),
        ("\x1bOA", Key::Move(-1)),
        ("\x1b[B", Key::Move(1)),
        ("\x1bOB", Key::Move(1)),
        ("\x1b[5~", Key::Move(isize::MIN)),
        ("\x1b[6~", Key::Move(isize::MAX)),
    ];
    while let Some(c) = rest.chars().next() {
        if let Some((sequence, key)) = sequences.iter().find(|(s, _)| rest.starts_with(s)) {
            keys.push(*key);
            rest = &rest[sequence.len()..];
            continue;
        }
        // Other sequences end with a letter or ~; they mean nothing here.
        if let Some(unknown) = rest.strip_prefix("\x1b[") {
            let end = unknown.find(|c: char| c.is_ascii_alphabetic() || c == '~');
            rest = end.map_or("", |end| &unknown[end + 1..]);
            continue;
        }
        rest = &rest[c.len_utf8()..];
        keys.push(match c {
            '\x03' => Key::Interrupt,
            '\x1b' => Key::Escape,
            '\r' | '\n' => Key::Enter,
            '\x08' | '\x7f' => Key::Backspace,
            c if c.is_control() => continue,
            c => Key::Char(c),
        });
    }
    keys
}
