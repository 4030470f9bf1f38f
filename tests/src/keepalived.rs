//! The checkers of a real keepalived, beside ilb: what they believe of servers.
//!
//! They run without IPVS, which the kernels of build machines lack: a library that is loaded before (`keepalived/no-ipvs.c`) says yes to
//! everything that they ask of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::Lab;
use crate::lab::process::Daemon;
use crate::shell;

/// A running keepalived, until dropped.
#[derive(Debug)]
pub struct Checkers {
    daemon: Daemon,
}

/// A server of a service, both as keepalived writes them: `[10.2.0.12]:tcp:8090`.
pub type Place = (String, String);

impl Checkers {
    /// Starts it in the balancer's namespace.
    #[track_caller]
    pub fn start(lab: &Lab, configuration: &Path) -> Checkers {
        let library = library(lab.directory());
        let folder = lab.directory();
        let mut command = lab.at("lb").command("env");
        command
            .arg(format!("LD_PRELOAD={}", library.display()))
            .args([
                "keepalived",
                "--check",
                "--dont-fork",
                "--log-console",
                "--log-detail",
            ])
            .arg("--use-file")
            .arg(configuration);
        for (option, name) in [
            ("--pid", "keepalived.pid"),
            ("--checkers_pid", "checkers.pid"),
        ] {
            command.arg(option).arg(folder.join(name));
        }
        let log = folder.join("keepalived.log");
        Checkers {
            daemon: Daemon::spawn("keepalived", command, &log),
        }
    }

    /// Whether it believes that a server is up, for each that it checks.
    #[track_caller]
    pub fn believes(&mut self) -> BTreeMap<Place, bool> {
        let log = std::fs::read_to_string(self.daemon.log()).unwrap_or_default();
        if let Some(status) = self.daemon.ended() {
            panic!("keepalived ended ({status}):\n{log}");
        }
        let mut all = BTreeMap::new();
        for line in log.lines() {
            // After the time: what is done, and with whom.
            let Some((_, line)) = line.split_once(": ") else {
                continue;
            };
            let (words, up) = match line {
                line if line.starts_with("Activating healthchecker for service ") => (line, true),
                line if line.starts_with("Removing service ") => (line, false),
                line if line.starts_with("Adding service ") => (line, true),
                _ => continue,
            };
            let mut places = words.split(' ').filter(|word| word.starts_with('['));
            if let (Some(server), Some(service)) = (places.next(), places.next()) {
                all.insert((service.to_owned(), server.to_owned()), up);
            }
        }
        all
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        self.daemon.log()
    }
}

/// Compiles the library that says yes.
#[track_caller]
fn library(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("no-ipvs.c"), folder.join("no-ipvs.so"));
    std::fs::write(&source, include_str!("keepalived/no-ipvs.c")).expect("the lab's directory");
    let mut command = Command::new("gcc");
    command.args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"]);
    command.arg(&library).arg(&source);
    shell::run(command).ok();
    library
}
