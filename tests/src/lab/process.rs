//! A program that runs for as long as the lab does, or until somebody kills it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;

use crate::shell;

/// A running program in a process group of its own. Dropping it ends the group.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`; its output goes (appended) to `log`.
    #[track_caller]
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Daemon {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("cannot open {}: {error}", log.display()));
        let errors = file
            .try_clone()
            .expect("cannot duplicate a file descriptor");
        command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .process_group(0);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!(
                "cannot start {name} as `{}`: {error}",
                shell::spelled(&command)
            )
        });
        Daemon {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("cannot wait for a child of ours")
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("cannot wait for a child of ours");
    }

    /// Asks it to end and waits up to ten seconds; it must do so.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        match shell::wait_for(Duration::from_secs(10), || self.ended()) {
            Some(status) => status,
            None => panic!(
                "{} (pid {}) did not end within 10 s of SIGTERM; its log:\n{}",
                self.name,
                self.pid(),
                tail(&self.log, 40)
            ),
        }
    }

    fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // The group may have ended between the question and now: that is what we want anyway.
            killpg(Pid::from_raw(self.child.id() as i32), signal).ok();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        if shell::wait_for(Duration::from_secs(2), || self.ended()).is_none() {
            self.signal(Signal::SIGKILL);
            self.child.wait().ok();
        }
    }
}

/// The last `lines` lines of a file, for messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    match text {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({}: {error})", path.display()),
    }
}
