//! Programs of the administrator: run without a shell, with an environment of their own, and without anybody of them left when
//! they are over. Not more of their output is kept than is needed. What they are run for is nothing that this crate knows.
//!
//! It runs in a process group of its own, which is killed when its first process has ended or nobody waits for it any more.
//! A process that has left the group (setsid(2), daemon(3)) is found in another way: a program that has called
//! [`adopt_orphans`] is the reaper of its descendants (`PR_SET_CHILD_SUBREAPER`, prctl(2)), so that whoever loses its parent
//! becomes its child; those that belong to no program that still runs are killed. Processes are killed by their parent, us,
//! before it has reaped them, so that no number means another process.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fs;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// How much is kept of what a program writes, in octets; what it writes beyond gets an error.
const MAX_OUTPUT: u64 = 4096;
/// What a program finds others by.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The variable by which processes of one run are known.
const RUN: &str = "ILB_RUN";
/// How often, and after which pauses, it is looked for those who are left. Somebody may sleep in the kernel.
const ROUNDS: u32 = 400;
const PAUSE: Duration = Duration::from_millis(5);

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Of its first process.
    pub status: ExitStatus,
    /// The beginning of what it wrote.
    pub output: String,
    /// The same of its standard error.
    pub errors: String,
}

impl Ended {
    /// What a person reads: the first line that it wrote, of its errors if there is no other.
    pub fn first_line(&self) -> &str {
        match first_line(&self.output) {
            "" => first_line(&self.errors),
            line => line,
        }
    }
}

/// The first line of a text, without blanks around it.
pub fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim()
}

/// What runs.
#[derive(Default)]
struct Runs {
    /// Whether all children that are none of these are orphans of ours.
    adopts: bool,
    next: u64,
    /// First processes of programs, those included that tokio has not reaped yet.
    first: HashSet<i32>,
    /// Process groups and names of runs that go on.
    running: HashSet<(i32, String)>,
}

static RUNS: LazyLock<Mutex<Runs>> = LazyLock::new(Mutex::default);

fn runs() -> MutexGuard<'static, Runs> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on every process that a program leaves behind becomes a child of this one and is killed, and so is every other
/// child that [`run`] has not started: a program that calls this starts others by [`run`] only.
///
/// # Errors
/// That of prctl(2).
pub fn adopt_orphans() -> io::Result<()> {
    set_child_subreaper(true)?;
    runs().adopts = true;
    Ok(())
}

/// A program that runs. When this goes, everybody of it is killed.
struct Run {
    group: Pid,
    name: String,
}

impl Drop for Run {
    fn drop(&mut self) {
        // There may be nobody left.
        let _ = killpg(self.group, Signal::SIGKILL);
        let mut runs = runs();
        runs.running
            .remove(&(self.group.as_raw(), self.name.clone()));
        let adopts = runs.adopts;
        drop(runs);
        if adopts && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(clear(self.group));
        }
    }
}

/// Runs a program until its first process ends. Whoever drops this kills it, and everybody whom it started is killed in any
/// case.
///
/// # Errors
/// It cannot be started, or not be waited for.
pub async fn run(
    path: &str,
    arguments: &[String],
    environment: &[(&str, String)],
) -> io::Result<Ended> {
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C")
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let (mut child, run) = start(&mut command)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let status = child.wait().await;
        // Whoever is left would keep the output open.
        drop(run);
        status
    };
    let (status, output, errors) = tokio::join!(ended, keep(out), keep(err));
    Ok(Ended {
        status: status?,
        output,
        errors,
    })
}

/// Starts it. Meanwhile nobody looks for orphans: a process that is half made looks like one.
fn start(command: &mut Command) -> io::Result<(tokio::process::Child, Run)> {
    let mut runs = runs();
    runs.next += 1;
    let name = format!("{}.{}", std::process::id(), runs.next);
    let child = command.env(RUN, &name).spawn()?;
    let number = child.id().and_then(|pid| i32::try_from(pid).ok());
    let number = number.ok_or_else(|| io::Error::other("the program has no process id"))?;
    runs.first.insert(number);
    runs.running.insert((number, name.clone()));
    let group = Pid::from_raw(number);
    Ok((child, Run { group, name }))
}

async fn keep(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut octets = Vec::new();
    if let Some(stream) = stream {
        // What could not be read is not there.
        let _ = stream.take(MAX_OUTPUT).read_to_end(&mut octets).await;
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// Kills until nobody of a group, and no orphan, is left.
async fn clear(group: Pid) {
    for _ in 0..ROUNDS {
        // Whoever dies leaves its children to us: only a round that finds nobody is the last one.
        let gone = killpg(group, Signal::SIGKILL) == Err(Errno::ESRCH);
        let orphans = clear_orphans();
        if gone && !orphans {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    tracing::warn!(
        "processes that a program has left behind cannot be killed: somebody may wait for a device"
    );
}

/// Kills and reaps orphans; true if there was one.
fn clear_orphans() -> bool {
    let mut runs = runs();
    let children: HashSet<i32> = children().into_iter().collect();
    // What tokio has reaped is no child any more.
    let going: HashSet<i32> = runs.running.iter().map(|(group, _)| *group).collect();
    runs.first
        .retain(|pid| going.contains(pid) || children.contains(pid));
    let mut found = false;
    for pid in children {
        if runs.first.contains(&pid) {
            continue;
        }
        match whose(&runs, pid) {
            Whose::Running => continue,
            // It is about to become somebody.
            Whose::Unknown => {
                found = true;
                continue;
            }
            Whose::Nobody => found = true,
        }
        let orphan = Pid::from_raw(pid);
        // It may have ended by itself.
        let _ = kill(orphan, Signal::SIGKILL);
        let _ = waitpid(orphan, Some(WaitPidFlag::WNOHANG));
    }
    found
}

/// Whose a process is.
enum Whose {
    /// Of a program that still runs.
    Running,
    /// Nobody's any more.
    Nobody,
    /// It cannot be told yet.
    Unknown,
}

/// Whose a process is, by its group, or by the name of the run in its environment.
fn whose(runs: &Runs, pid: i32) -> Whose {
    if runs.running.is_empty() {
        return Whose::Nobody;
    }
    let of_group = |group: i32| runs.running.iter().any(|(running, _)| *running == group);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind its name, which may have blanks: state, parent, group; see proc_pid_stat(5).
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = fields.split_ascii_whitespace();
    let (state, group) = (fields.next(), fields.nth(1));
    if group
        .and_then(|text| text.parse().ok())
        .is_some_and(of_group)
    {
        return Whose::Running;
    }
    let read = |file| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let named = |environment: Vec<u8>| {
        environment.split(|octet| *octet == 0).any(|variable| {
            let text = std::str::from_utf8(variable).unwrap_or_default();
            let name = text
                .strip_prefix(RUN)
                .and_then(|rest| rest.strip_prefix('='));
            name.is_some_and(|name| runs.running.iter().any(|(_, running)| running == name))
        })
    };
    if named(read("environ")) {
        return Whose::Running;
    }
    if matches!(state, Some("Z" | "X")) {
        return Whose::Nobody;
    }
    // In the middle of execve(2) a process has neither arguments nor an environment, and then both.
    match (read("cmdline").is_empty(), named(read("environ"))) {
        (true, _) => Whose::Unknown,
        (false, true) => Whose::Running,
        (false, false) => Whose::Nobody,
    }
}

/// The children of this process, of all its threads.
fn children() -> Vec<i32> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    let lists = threads.flatten().map(|thread| {
        // A thread may have ended.
        fs::read_to_string(thread.path().join("children")).unwrap_or_default()
    });
    let lists: Vec<String> = lists.collect();
    lists
        .iter()
        .flat_map(|list| list.split_ascii_whitespace())
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
