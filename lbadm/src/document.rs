//! `check`, `diff`, `apply`, `confirm`, `revert`: configurations as files.

use std::io::Read;
use std::net::{IpAddr, ToSocketAddrs};

use libilb::apply::{ApplyOptions, MAX_DOCUMENT};
use libilb::client::{Client, ClientError};
use libilb::document::{self, Checked, Mistakes, Report};
use libilb::{ErrorKind, ModelError};
use serde_json::json;

use crate::action::{Action, line};
use crate::agent;
use crate::cli::DocumentCommand;
use crate::error::{Error, Exit};

/// What to do with a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// `check`.
    Check {
        /// The file.
        file: String,
        /// Whether it is a part only.
        merge: bool,
    },
    /// `diff`.
    Diff {
        /// The file.
        file: String,
        /// Whether it is a part only.
        merge: bool,
    },
    /// `apply`.
    Apply {
        /// The file.
        file: String,
        /// How.
        options: ApplyOptions,
    },
    /// `confirm`.
    Confirm,
    /// `revert`.
    Revert,
}

/// What a command says, and how it ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output.
    pub out: String,
    /// For standard error.
    pub err: String,
    /// Exit code.
    pub exit: Exit,
}

impl Outcome {
    fn said(out: String) -> Outcome {
        Outcome {
            out,
            err: String::new(),
            exit: Exit::Ok,
        }
    }
}

/// Reads a command about a file.
///
/// # Errors
/// A time that is none.
pub fn understand(command: DocumentCommand) -> Result<Action, Error> {
    Ok(Action::Document(match command {
        DocumentCommand::Check(args) => Request::Check {
            file: args.file,
            merge: args.merge,
        },
        DocumentCommand::Diff(args) => Request::Diff {
            file: args.file,
            merge: args.merge,
        },
        DocumentCommand::Apply(args) => {
            let confirm = match &args.confirm {
                None => None,
                Some(text) => Some(document::seconds(text).ok_or_else(|| {
                    Error::from_command_line(ModelError::invalid(
                        "--confirm",
                        text,
                        "is not a time",
                        "use seconds such as 60, or 60s, 5m or 1h",
                    ))
                })?),
            };
            let options = ApplyOptions {
                merge: args.merge,
                dry_run: args.dry_run,
                confirm,
            };
            let options = options.check().map_err(Error::from_command_line)?;
            Request::Apply {
                file: args.file,
                options,
            }
        }
        DocumentCommand::Confirm => Request::Confirm,
        DocumentCommand::Revert => Request::Revert,
    }))
}

/// Does it; its user may be asked for a password (`ask`).
///
/// # Errors
/// See [`Error`]; mistakes in the file are an [`Outcome`].
pub async fn run(request: Request, json: bool, ask: bool) -> Result<Outcome, Error> {
    let (file, options) = match request {
        Request::Check { file, merge } => {
            let text = read(&file)?;
            return Ok(checked(&file, &text, merge, lookup, json));
        }
        Request::Diff { file, merge } => {
            let options = ApplyOptions {
                merge,
                dry_run: true,
                confirm: None,
            };
            return diff(&file, &options, json).await;
        }
        Request::Confirm => {
            let done = agent::connect(ask).await?.confirm().await?;
            return Ok(answered(done, "confirmed", json));
        }
        Request::Revert => {
            let done = agent::connect(ask).await?.revert().await?;
            return Ok(answered(done, "reverted", json));
        }
        Request::Apply { file, options } => (file, options),
    };
    Ok(match send(&file, &options, json, ask).await? {
        Ok(report) => applied(&report, &options, json),
        Err(outcome) => outcome,
    })
}

async fn diff(file: &str, options: &ApplyOptions, json: bool) -> Result<Outcome, Error> {
    Ok(match send(file, options, json, false).await? {
        Ok(report) => differs(&report, json),
        Err(outcome) => outcome,
    })
}

/// Gives the manager a file that is checked and whose names are resolved.
async fn send(
    file: &str,
    options: &ApplyOptions,
    json: bool,
    ask: bool,
) -> Result<Result<Report, Outcome>, Error> {
    let text = read(file)?;
    let Checked {
        document, resolved, ..
    } = match document::check(&text, options.merge, lookup) {
        Ok(checked) => checked,
        Err(found) => return Ok(Err(mistakes(file, &found, json))),
    };
    // As it was written, so that lines are those of the file.
    let text = if resolved { document.to_toml() } else { text };
    // Nobody has to be authorised to be told what would be different.
    let answer = match options.dry_run {
        true => Client::connect().await?.apply(&text, options).await,
        false => agent::connect(ask).await?.apply(&text, options).await,
    };
    match answer {
        Ok(report) => Ok(Ok(report)),
        // What only the manager could know, told as the rest is.
        Err(ClientError::Refused { kind, message })
            if kind == ErrorKind::InvalidArgument && message.starts_with("error: ") && !json =>
        {
            let message = match resolved {
                true => message,
                false => message
                    .replace("--> document:", &format!("--> {file}:"))
                    .replace("\ndocument: ", &format!("\n{file}: ")),
            };
            Ok(Err(Outcome {
                out: String::new(),
                err: format!("{message}\n"),
                exit: Exit::Failed,
            }))
        }
        Err(error) => Err(error.into()),
    }
}

/// A file, or standard input.
fn read(file: &str) -> Result<String, Error> {
    let failed = |cause| Error::Read {
        path: file.to_string(),
        cause,
    };
    let mut bytes = Vec::new();
    // One more than is allowed, to know whether there is more.
    let most = MAX_DOCUMENT as u64 + 1;
    match file {
        "-" => std::io::stdin().lock().take(most).read_to_end(&mut bytes),
        path => std::fs::File::open(path).and_then(|f| f.take(most).read_to_end(&mut bytes)),
    }
    .map_err(failed)?;
    if bytes.len() > MAX_DOCUMENT {
        let problem = format!("it has more than {MAX_DOCUMENT} bytes");
        return Err(failed(std::io::Error::other(problem)));
    }
    String::from_utf8(bytes).map_err(|error| failed(std::io::Error::other(error.utf8_error())))
}

/// What the system's resolver knows for a host name.
fn lookup(host: &str) -> Result<Vec<IpAddr>, String> {
    (host, 0u16)
        .to_socket_addrs()
        .map(|found| found.map(|a| a.ip()).collect())
        .map_err(|e| e.to_string())
}

/// What `check` says of a text.
pub fn checked(
    name: &str,
    text: &str,
    merge: bool,
    lookup: impl Fn(&str) -> Result<Vec<IpAddr>, String>,
    json: bool,
) -> Outcome {
    let Checked {
        document, notes, ..
    } = match document::check(text, merge, lookup) {
        Ok(checked) => checked,
        Err(found) => return mistakes(name, &found, json),
    };
    let servers: usize = document.groups.iter().map(|g| g.servers.len()).sum();
    let counts = [
        (document.rules.len(), "rule"),
        (document.groups.len(), "server group"),
        (servers, "server"),
        (document.checks.len(), "health check"),
        (document.vrrp.len(), "VRRP instance"),
    ];
    if json {
        let count = |n: usize| counts[n].0;
        return Outcome::said(line(&json!({
            "mistakes": [], "count": 0, "notes": notes,
            "rules": count(0), "groups": count(1), "servers": count(2), "healthchecks": count(3),
            "vrrp": count(4),
        })));
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(n, word)| format!("{n} {word}{}", if *n == 1 { "" } else { "s" }))
        .collect();
    let notes: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
    Outcome::said(format!(
        "{name}: no mistakes: {}\n{notes}",
        counts.join(", ")
    ))
}

/// What is said of a file with mistakes.
pub fn mistakes(name: &str, found: &Mistakes, json: bool) -> Outcome {
    let (out, err) = match json {
        true => {
            let all = json!({ "mistakes": found.list, "count": found.count });
            (line(&all), String::new())
        }
        false => (String::new(), found.render(name)),
    };
    let exit = Exit::Failed;
    Outcome { out, err, exit }
}

fn report_json(report: &Report) -> String {
    line(&json!(report))
}

/// What `diff` says.
pub fn differs(report: &Report, json: bool) -> Outcome {
    Outcome {
        exit: match report.is_empty() {
            true => Exit::Ok,
            false => Exit::Failed,
        },
        ..Outcome::said(match json {
            true => report_json(report),
            false => report.to_string(),
        })
    }
}

/// What `apply` says.
pub fn applied(report: &Report, options: &ApplyOptions, json: bool) -> Outcome {
    if json {
        return Outcome::said(report_json(report));
    }
    let then = match (report.is_empty(), options.dry_run, options.confirm) {
        (true, ..) => "nothing is different\n".to_string(),
        (false, true, _) => "nothing was changed, it was a dry run\n".to_string(),
        (false, false, Some(seconds)) => format!(
            "'lbadm confirm' within {seconds} s keeps it; otherwise, or with 'lbadm revert', all is as before\n"
        ),
        (false, false, None) => String::new(),
    };
    Outcome::said(format!("{report}{then}"))
}

/// What `confirm` and `revert` say.
pub fn answered(done: bool, word: &'static str, json: bool) -> Outcome {
    let nothing =
        "lbadm: no change waits for a confirmation: it was confirmed, or taken back already\n";
    Outcome {
        out: match json {
            true => line(&json!({ word: done })),
            false => String::new(),
        },
        err: match done || json {
            true => String::new(),
            false => nothing.to_string(),
        },
        exit: if done { Exit::Ok } else { Exit::Failed },
    }
}
