//! A small system with a systemd of its own in the balancer's network, where packages and units are what they are on a
//! real machine: users, capabilities, seccomp filters, mounts and watchdogs included.
//!
//! Its root is a copy-on-write view of this machine's, so what this machine has installed is there, and nothing that
//! happens in it stays. (`system.sh` says how it is made.)

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Lab;
use super::node::programs;
use super::process::{Daemon, tail};
use crate::shell::{self, Answer};

/// How long anything in it may take: machines that test are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running system. Dropping it ends everything in it.
#[derive(Debug)]
pub struct System {
    /// `unshare`, which waits for systemd.
    daemon: Daemon,
    /// systemd, as this machine counts processes.
    init: u32,
}

/// The sources that this test was built from.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl System {
    /// Boots one with ilb as `make install` puts it there, and settings that fit the lab; nothing of ilb runs yet.
    #[track_caller]
    pub fn with_ilb(lab: &Lab) -> System {
        let install = format!(
            "make -s -C {} install DESTDIR=$ROOT PREFIX=/usr STRIP= BUILT={}",
            sources().display(),
            programs().display()
        );
        let system = System::boot(lab, &install);
        system.write("/etc/ilb/ilb.toml", SETTINGS);
        system.run("systemd-sysusers").ok();
        system.run("systemd-tmpfiles --create ilb.conf").ok();
        system.run("journalctl --update-catalog").ok();
        system
    }

    /// Boots one. `prepare` is a shell command that runs before, with `$ROOT` for the new root.
    #[track_caller]
    pub fn boot(lab: &Lab, prepare: &str) -> System {
        let directory = lab.directory().join("system");
        std::fs::create_dir(&directory).expect("the lab's directory can be written");
        let mut command = lab.at("lb").command("unshare");
        command
            .args([
                "--mount",
                "--pid",
                "--ipc",
                "--uts",
                "--cgroup",
                "--fork",
                "--kill-child=SIGKILL",
            ])
            .arg(sources().join("tests/src/lab/system.sh"))
            .arg(&directory)
            .args(["sh", "-ec", prepare]);
        let log = lab.directory().join("system.log");
        let mut daemon = Daemon::spawn("a system", command, &log);
        let init = shell::wait_for(PATIENCE, || {
            assert!(
                daemon.ended().is_none(),
                "the system did not come up:\n{}",
                tail(&log, 40)
            );
            first_child_named(daemon.pid(), "systemd")
        });
        let init = init.unwrap_or_else(|| panic!("no systemd came up:\n{}", tail(&log, 40)));
        let system = System { daemon, init };
        let up = shell::wait_for(PATIENCE, || {
            (system.run("systemctl is-active lab.target").code == 0).then_some(())
        });
        assert!(up.is_some(), "{}", system.run("systemctl list-jobs"));
        system
    }

    /// A command that will run in the system, as root.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args([
                "--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup", "--root", "--wd",
            ])
            .arg(program);
        command
    }

    /// Runs one line of words.
    #[track_caller]
    pub fn run(&self, line: &str) -> Answer {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("an empty command line"));
        command.args(words);
        shell::run(command)
    }

    /// Runs a line of shell.
    #[track_caller]
    pub fn shell(&self, line: &str) -> Answer {
        let mut command = self.command("sh");
        command.args(["-c", line]);
        shell::run(command)
    }

    /// Where a file of the system is for us.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Writes a file.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        let parent = path.parent().expect("files have folders");
        std::fs::create_dir_all(parent).expect("the system can be written");
        std::fs::write(&path, text).expect("the system can be written");
    }

    /// Reads a file.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        let found = std::fs::read_to_string(self.path(path));
        found.unwrap_or_else(|error| panic!("cannot read {path} in the system: {error}"))
    }

    /// A property of a unit, as `systemctl show` says it.
    #[track_caller]
    pub fn property(&self, unit: &str, name: &str) -> String {
        let said = self.run(&format!("systemctl show --value --property={name} {unit}"));
        said.ok().trim().to_owned()
    }

    /// The first process of a unit, as the system counts processes.
    #[track_caller]
    pub fn pid(&self, unit: &str) -> u32 {
        let pid = self.property(unit, "MainPID");
        pid.parse().expect("a process id")
    }

    /// The number by which this machine knows a process of the system.
    #[track_caller]
    pub fn outside(&self, pid: u32) -> u32 {
        let processes = std::fs::read_dir("/proc")
            .expect("/proc is there")
            .flatten();
        let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let space = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = space(self.init);
        let found = numbers.find(|outside| {
            let status = std::fs::read_to_string(format!("/proc/{outside}/status"));
            let status = status.unwrap_or_default();
            let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            space(*outside) == ours
                && inside.and_then(|list| list.split_whitespace().last()) == Some(&pid.to_string())
        });
        found.unwrap_or_else(|| panic!("the system has no process {pid}"))
    }

    /// Starts ilb and waits until manager and fast path are in step.
    #[track_caller]
    pub fn start_ilb(&self) {
        let started = self.run("systemctl start ilb.service ilb-fastpath.service");
        assert!(started.code == 0, "{started}\n{}", self.journal());
        self.wait_ready();
    }

    /// Waits until the manager says that the fast path forwards by its configuration.
    #[track_caller]
    pub fn wait_ready(&self) {
        let ask = "busctl get-property org.ilb.Ilb1 /org/ilb/Ilb1 org.ilb.Ilb1.Manager Fastpath";
        let ready = shell::wait_for(PATIENCE, || {
            self.run(ask).stdout.contains("\"connected\"").then_some(())
        });
        assert!(ready.is_some(), "{}\n{}", self.run(ask), self.journal());
    }

    /// What the units of ilb have said.
    pub fn journal(&self) -> String {
        self.run("journalctl --no-pager -o short-monotonic -u ilb -u ilb-fastpath")
            .stdout
    }

    /// `lbadm` with one line of words; it must succeed.
    #[track_caller]
    pub fn lbadm(&self, line: &str) -> String {
        self.run(&format!("lbadm {line}")).ok()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // With its first process the kernel ends all the others; nothing in it asks for a goodbye.
        self.daemon.kill();
    }
}

/// The process itself or one that it has forked (and so on), by name.
fn first_child_named(of: u32, name: &str) -> Option<u32> {
    let comm = std::fs::read_to_string(format!("/proc/{of}/comm")).ok()?;
    if comm.trim() == name {
        return Some(of);
    }
    let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
    let mut children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    children.find_map(|child| first_child_named(child, name))
}

/// Everything where it is by default. A lab may lock only 8 MiB of memory: few frames.
pub const SETTINGS: &str = "[fastpath]\ninterfaces = [\"eth0\", \"eth1\"]\ntable-size = 65536\nring-size = 128\nframes = 256\n";
