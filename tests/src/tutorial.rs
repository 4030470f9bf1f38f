//! A document whose commands are run, and whose outputs are those of a run: `docs/tutorial.md`.
//!
//! A fenced block of the kind `console` holds commands, each after the prompt of a namespace (`lb# `; lines that go on begin
//! with `> `), and below each what it printed. Comments before a block say what cannot be seen in it:
//!
//! | comment | meaning |
//! |---|---|
//! | `<!-- wait: TEXT & TEXT -->` | the commands only read, and are repeated until they print all of this |
//! | `<!-- numbers vary -->` | numbers and the room between columns are those of one run |
//! | `<!-- meanwhile: s1# COMMAND -->` | this is typed elsewhere while the block's one command goes on; it ends when it has printed what `wait` says |
//!
//! Times, durations and paths of a lab always vary.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Lab, play};
use crate::shell;

/// How long a command may be repeated, or go on.
const PATIENCE: Duration = Duration::from_secs(30);

/// A piece of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// Lines that are no commands.
    Text(String),
    /// A command with what it prints.
    Step(Step),
}

/// A command of the document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Step {
    role: String,
    /// As it is typed, with its line breaks.
    command: String,
    /// What the document says that it prints.
    printed: String,
    wait: Option<String>,
    numbers_vary: bool,
    meanwhile: Option<(String, String)>,
}

/// Takes a document apart.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut plain = String::new();
    let mut said = Step::default();
    let mut within = false;
    for line in text.lines() {
        let prompt = line
            .split_once("# ")
            .filter(|(role, _)| within && is_role(role));
        let last = match pieces.last_mut() {
            Some(Piece::Step(step)) if within && plain.is_empty() => Some(step),
            _ => None,
        };
        match (prompt, last) {
            (Some((role, command)), _) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Step(Step {
                    role: role.to_owned(),
                    command: command.to_owned(),
                    ..said.clone()
                }));
            }
            (None, Some(step)) if line != "```" => match line.strip_prefix("> ") {
                Some(more) if step.printed.is_empty() => {
                    step.command.push('\n');
                    step.command.push_str(more);
                }
                _ => {
                    step.printed.push_str(line);
                    step.printed.push('\n');
                }
            },
            _ => {
                plain.push_str(line);
                plain.push('\n');
                match line {
                    "```console" => within = true,
                    "```" => (within, said) = (false, Step::default()),
                    _ => comment(line, &mut said),
                }
            }
        }
    }
    pieces.push(Piece::Text(plain));
    pieces
}

fn is_role(word: &str) -> bool {
    let digits = word.trim_start_matches(|c: char| c.is_ascii_lowercase());
    !word.is_empty() && word.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit())
}

fn comment(line: &str, said: &mut Step) {
    let inner = line
        .strip_prefix("<!-- ")
        .and_then(|rest| rest.strip_suffix(" -->"));
    match inner.map(|inner| inner.split_once(": ").unwrap_or((inner, ""))) {
        Some(("wait", text)) => said.wait = Some(text.to_owned()),
        Some(("numbers vary", "")) => said.numbers_vary = true,
        Some(("meanwhile", typed)) => {
            let (role, command) = typed.split_once("# ").expect("a prompt before a command");
            said.meanwhile = Some((role.to_owned(), command.to_owned()));
        }
        _ => {}
    }
}

/// What a run gave.
#[derive(Debug)]
pub struct Run {
    /// The document with the outputs of this run where they are different.
    pub text: String,
    /// Steps that printed something else, for a person.
    pub wrong: Vec<String>,
    /// How many commands were run.
    pub steps: usize,
}

/// Runs every command of a document in its order.
pub fn run(lab: &Lab, text: &str) -> Run {
    let enter = play::scripts(lab);
    let mut run = Run {
        text: String::new(),
        wrong: Vec::new(),
        steps: 0,
    };
    for piece in pieces(text) {
        let step = match piece {
            Piece::Text(text) => {
                run.text.push_str(&text);
                continue;
            }
            Piece::Step(step) => step,
        };
        run.steps += 1;
        let printed = step.run(lab, &enter);
        let same = step.same(&printed);
        if !same {
            run.wrong.push(format!(
                "{}# {}\n---- the document has\n{}---- it printed\n{printed}",
                step.role, step.command, step.printed
            ));
        }
        let printed = if same { &step.printed } else { &printed };
        let command = step.command.replace('\n', "\n> ");
        write!(run.text, "{}# {command}\n{printed}", step.role).expect("writing to a string");
    }
    run
}

impl Step {
    fn run(&self, lab: &Lab, enter: &Path) -> String {
        if self.meanwhile.is_some() {
            return self.go_on(lab, enter);
        }
        let Some(wanted) = &self.wait else {
            return typed(enter, &self.role, &self.command);
        };
        let mut last = String::new();
        // What it says in the end may take longer than the word that is waited for.
        shell::wait_for(PATIENCE, || {
            last = typed(enter, &self.role, &self.command);
            (has(&last, wanted) && (self.same(&last) || writing())).then_some(())
        });
        last
    }

    /// Starts the command, waits until it listens, has something happen, and ends it when it has told of that.
    fn go_on(&self, lab: &Lab, enter: &Path) -> String {
        let path = lab.directory().join("going-on");
        let out = File::create(&path).expect("the lab's directory can be written");
        let mut command = Command::new(enter);
        command
            .args([&self.role, "bash", "-c", &format!("exec {}", self.command)])
            .stdin(Stdio::null())
            .stdout(out);
        let mut running = Running(command.spawn().expect("it can be run"));
        let read = || std::fs::read_to_string(&path).unwrap_or_default();
        let listens = shell::wait_for(PATIENCE, || {
            lab.node.lbadm("create-servergroup nobody");
            lab.node.lbadm("delete-servergroup nobody");
            read().contains("nobody removed").then_some(())
        });
        assert!(listens.is_some(), "`{}` tells of nothing", self.command);
        if let Some((role, command)) = &self.meanwhile {
            typed(enter, role, command);
        }
        let wanted = self.wait.as_deref().unwrap_or_default();
        shell::wait_for(PATIENCE, || has(&read(), wanted).then_some(()));
        running.interrupt();
        let ours = |line: &&str| !line.contains("nobody");
        read()
            .lines()
            .filter(ours)
            .map(|line| format!("{line}\n"))
            .collect()
    }

    fn same(&self, printed: &str) -> bool {
        let usual = |text: &str| usual(text, self.numbers_vary);
        usual(&self.printed) == usual(printed)
    }
}

/// A program that goes on until its value is dropped.
struct Running(Child);

impl Running {
    /// Ctrl-C.
    fn interrupt(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        // It may have ended by itself.
        let _ = kill(pid, Signal::SIGINT);
        let ended = shell::wait_for(PATIENCE, || self.0.try_wait().ok().flatten());
        assert!(ended.is_some(), "it does not end at Ctrl-C");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether all that is waited for is there.
fn has(text: &str, wanted: &str) -> bool {
    wanted.split(" & ").all(|one| text.contains(one))
}

/// Whether the document is written anew, so that what stands there is not to be waited for: `ILB_GOLDEN=write`.
pub fn writing() -> bool {
    std::env::var_os("ILB_GOLDEN").is_some_and(|value| value == "write")
}

/// What a person sees who types this.
fn typed(enter: &Path, role: &str, command: &str) -> String {
    let mut shell = Command::new(enter);
    // Both outputs in their order, as on a terminal.
    shell
        .args([role, "bash", "-c", &format!("exec 2>&1\n{command}")])
        .env("NO_COLOR", "1");
    let mut text = shell::run(shell).stdout;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// A text with everything replaced that is different in each run.
fn usual(text: &str, numbers_vary: bool) -> String {
    let lines = text.lines().map(|line| {
        let mut words: Vec<String> = line.split(' ').map(word).collect();
        for at in 1..words.len() {
            let unit = words
                .get(at + 1)
                .is_some_and(|unit| ["ms", "ms:", "s", "milliseconds"].contains(&unit.as_str()));
            if unit && matches!(words[at - 1].as_str(), "after" | "for") {
                words[at] = "N".to_owned();
            }
        }
        let line = words.join(" ");
        match numbers_vary {
            true => numberless(&line),
            false => line.trim_end().to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A word, or what it stands for.
fn word(word: &str) -> String {
    let bare = word.trim_matches(|c: char| "()[]<>\"',;".contains(c));
    let bare = bare.trim_end_matches(':');
    let only = |allowed: &str| !bare.is_empty() && bare.chars().all(|c| allowed.contains(c));
    let time = bare.ends_with('Z') && bare.contains(':') && only("0123456789:-TZ");
    let date = bare.len() == 10 && bare.matches('-').count() == 2 && only("0123456789-");
    let mac = bare.len() == 17 && bare.matches(':').count() == 5 && only("0123456789abcdef:");
    if time || date {
        return word.replace(bare, "TIME");
    }
    if mac {
        return word.replace(bare, "MAC");
    }
    // A path of a lab: `/tmp/ilb-123-0/work`.
    match bare.starts_with('/').then(|| bare.find("/ilb-")).flatten() {
        Some(at) => {
            let rest = &bare[at + 1..];
            let rest = rest.find('/').map_or("", |end| &rest[end..]);
            word.replace(bare, &format!("LAB{rest}"))
        }
        None => word.to_owned(),
    }
}

/// A line in which every number is the same, and so is the room around it.
fn numberless(line: &str) -> String {
    let mut out = String::new();
    for c in line.trim().chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        let again = (c == '#' || c == ' ') && out.ends_with(c);
        if !again {
            out.push(c);
        }
    }
    out.replace("#.#", "#")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# Title\n\n```console\nlb# one\nprinted\n\nmore\nc1# two \\\n> of it\n```\n\nText. lb# no command\n\n\
                            <!-- wait: dead -->\n<!-- numbers vary -->\n```console\nlb# three\n1 dead\n```\n\n\
                            <!-- meanwhile: s2# web stop -->\n```console\nlb# four\n```\n";

    #[test]
    fn a_document_is_commands_and_text() {
        let all = pieces(DOCUMENT);
        let steps: Vec<&Step> = all
            .iter()
            .filter_map(|piece| match piece {
                Piece::Step(step) => Some(step),
                Piece::Text(_) => None,
            })
            .collect();
        let step = |role: &str, command: &str, printed: &str| Step {
            role: role.into(),
            command: command.into(),
            printed: printed.into(),
            ..Step::default()
        };
        assert_eq!(
            steps,
            [
                &step("lb", "one", "printed\n\nmore\n"),
                &step("c1", "two \\\nof it", ""),
                &Step {
                    wait: Some("dead".into()),
                    numbers_vary: true,
                    ..step("lb", "three", "1 dead\n")
                },
                &Step {
                    meanwhile: Some(("s2".into(), "web stop".into())),
                    ..step("lb", "four", "")
                },
            ]
        );
        let mut text = String::new();
        for piece in all {
            text.push_str(&match piece {
                Piece::Text(text) => text,
                Piece::Step(step) => {
                    let command = step.command.replace('\n', "\n> ");
                    format!("{}# {command}\n{}", step.role, step.printed)
                }
            });
        }
        assert_eq!(text, DOCUMENT);
    }

    #[test]
    fn what_varies_is_not_compared() {
        for (one, other, numbers, same) in [
            (
                "at 2026-11-18T11:06:40Z x",
                "at 2027-01-01T00:00:00Z x",
                false,
                true,
            ),
            (
                "2025-11-21 19:20:55Z  root",
                "2025-11-22 19:20:56Z  root",
                false,
                true,
            ),
            (
                "dead after 0.2 ms: no",
                "dead after 17.5 ms: no",
                false,
                true,
            ),
            (
                "dead after 0.2 ms: no",
                "dead after 17.5 ms: yes",
                false,
                false,
            ),
            (
                "(/tmp/ilb-1-0/state/db)",
                "(/var/tmp/ilb-77-3/state/db)",
                false,
                true,
            ),
            (
                "/tmp/ilb-1-0/state/db",
                "/tmp/ilb-1-0/state/x",
                false,
                false,
            ),
            (
                "to 02:00:00:00:00:0b, as",
                "to 02:00:00:00:00:ff, as",
                false,
                true,
            ),
            ("7 connections", "8 connections", false, false),
            ("a   7  1.5k", "a 1234 88k", true, true),
            ("a 7 up", "a 7 down", true, false),
            ("no such word", "no such words", false, false),
        ] {
            assert_eq!(
                usual(one, numbers) == usual(other, numbers),
                same,
                "{one:?} and {other:?}"
            );
        }
    }
}
