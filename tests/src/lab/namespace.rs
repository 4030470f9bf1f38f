//! One network namespace, by the name that `ip netns` knows.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};

use crate::shell::{self, Answer};

/// A network namespace that this process made.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace called `name`, with its loopback up.
    #[track_caller]
    pub(crate) fn create(name: String) -> Namespace {
        shell::run_line(&format!("ip netns add {name}")).ok();
        shell::run_line(&format!("ip -n {name} link set lo up")).ok();
        Namespace { name }
    }

    /// Its full name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run inside. `ip netns exec` also gives it a /sys of that network.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs one line of words inside and returns what it left.
    #[track_caller]
    pub fn try_run(&self, line: &str) -> Answer {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("an empty command line"));
        command.args(words);
        shell::run(command)
    }

    /// Runs one line of words inside; it must succeed.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        self.try_run(line).ok()
    }

    /// Gives several lines to one `ip -batch`; all must succeed.
    #[track_caller]
    pub fn ip(&self, lines: &[String]) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("cannot run ip (package iproute2)");
        let mut input = child.stdin.take().expect("the pipe was asked for");
        input
            .write_all((lines.join("\n") + "\n").as_bytes())
            .expect("ip closed its input");
        drop(input);
        let output = child.wait_with_output().expect("ip vanished");
        assert!(
            output.status.success(),
            "ip refused one of these lines in {}:\n{}\n{}",
            self.name,
            lines.join("\n"),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Runs `work` on a thread of its own that lives in this namespace.
    #[track_caller]
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.join_here();
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Moves the calling thread into this namespace, for good. For threads that were made for it.
    #[track_caller]
    pub fn join_here(&self) {
        let file = File::open(self.path())
            .unwrap_or_else(|error| panic!("cannot open namespace {}: {error}", self.name));
        setns(file, CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|error| panic!("cannot enter namespace {}: {error}", self.name));
    }

    /// Sets sysctls below `net.`, as (`ipv4.ip_forward`, `1`).
    #[track_caller]
    pub fn sysctl(&self, settings: &[(&str, &str)]) {
        self.enter(|| {
            for (key, value) in settings {
                let path = format!("/proc/sys/net/{}", key.replace('.', "/"));
                if let Err(error) = std::fs::write(&path, value) {
                    panic!("cannot set {path} to {value} in {}: {error}", self.name);
                }
            }
        });
    }

    /// What identifies the namespace in /proc/PID/ns/net, such as `net:[4026532331]`.
    pub(crate) fn identity(&self) -> Option<String> {
        // The bind mount has the inode number of the namespace.
        let status = nix::sys::stat::stat(&self.path()).ok()?;
        Some(format!("net:[{}]", status.st_ino))
    }
}
