//! Running programs: what was tried is in every message.

use std::fmt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a finished program left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its command line, for messages.
    pub command: String,
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    fn new(command: String, output: Output) -> Answer {
        Answer {
            command,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output of a program that must have succeeded; panics with everything it said otherwise.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "a command that must succeed failed\n{self}");
        self.stdout
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  $ {}\n  exit code {}\n  stdout: {}\n  stderr: {}",
            self.command,
            self.code,
            self.stdout.trim_end(),
            self.stderr.trim_end()
        )
    }
}

/// The words of a command line as a person would type them.
pub fn spelled(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    for argument in command.get_args() {
        let word = argument.to_string_lossy();
        if word.is_empty() || word.contains([' ', '"', '\'', '$', '&', ';', '\n']) {
            words.push(format!("'{word}'"));
        } else {
            words.push(word.into_owned());
        }
    }
    words.join(" ")
}

/// Runs `command` to its end without standard input.
#[track_caller]
pub fn run(mut command: Command) -> Answer {
    let spelled = spelled(&command);
    match command.stdin(Stdio::null()).output() {
        Ok(output) => Answer::new(spelled, output),
        Err(error) => {
            panic!("cannot run `{spelled}`: {error} (is the program installed? `make deps`)")
        }
    }
}

/// Runs a command given as one line of words without quoting.
#[track_caller]
pub fn run_line(line: &str) -> Answer {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("an empty command line"));
    command.args(words);
    run(command)
}

/// Asks `question` every 20 ms until it answers with something or `limit` has passed.
pub fn wait_for<T>(limit: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
