//! What a lab leaves behind, how to find it and how to remove it.
//!
//! Everything of a lab hangs on its identity `ilb-<pid>-<n>`: the namespaces are called `<identity>-<role>`, and its
//! files lie in `<temporary directory>/<identity>` with a BPF file system mounted in it, so that pins die with it. The
//! directory is made first and removed last, so a runner that was killed with -9 leaves at least the directory,
//! whose file `owner` tells who it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::shell;

const PREFIX: &str = "ilb-";
const OWNER: &str = "owner";
const KEPT: &str = "kept";

/// Where the directories of labs lie: `$TMPDIR` or /tmp.
pub fn root() -> PathBuf {
    std::env::temp_dir()
}

/// Notes in a lab's directory who owns it.
pub(crate) fn claim(directory: &Path) {
    let pid = std::process::id();
    let start = start_time(pid).expect("/proc is not mounted");
    fs::write(directory.join(OWNER), format!("{pid} {start}\n"))
        .expect("cannot write into the lab's directory");
}

/// Notes that a lab shall outlive its owner until `make lab-clean`.
pub(crate) fn keep(directory: &Path) {
    fs::write(directory.join(KEPT), "").expect("cannot write into the lab's directory");
}

/// Start time of a process in ticks since boot: with the id it names a process for good.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name in parentheses, may hold anything; start time is the 22nd.
    let rest = &stat[stat.rfind(')')? + 1..];
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Is the process that made this lab still there?
fn owner_lives(directory: &Path) -> bool {
    let Ok(text) = fs::read_to_string(directory.join(OWNER)) else {
        // Made this very moment, or no lab of ours at all: not to be touched.
        return true;
    };
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    match (words.next(), words.next()) {
        (Some(Ok(pid)), Some(Ok(start))) => start_time(pid as u32) == Some(start),
        _ => false,
    }
}

/// Identities of all labs that have a directory, with whether their owner is gone, and whether they are kept.
fn labs() -> Vec<(String, bool, bool)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_identity(&name) && entry.path().is_dir() {
            let directory = entry.path();
            found.push((
                name,
                !owner_lives(&directory),
                directory.join(KEPT).exists(),
            ));
        }
    }
    found
}

/// `ilb-<pid>-<n>`, nothing more.
fn is_identity(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let parts: Vec<&str> = rest.split('-').collect();
    parts.len() == 2 && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

/// Removes labs whose owner is dead. Kept ones only when `kept_too`. Returns the identities removed.
pub fn sweep(kept_too: bool) -> Vec<String> {
    let mut removed = Vec::new();
    for (identity, orphaned, kept) in labs() {
        if orphaned && (kept_too || !kept) {
            remove(&identity);
            removed.push(identity);
        }
    }
    removed
}

/// Removes the labs of this very process, for a program that was interrupted.
pub fn remove_mine() {
    let mine = format!("{PREFIX}{}-", std::process::id());
    for (identity, _, _) in labs() {
        if identity.starts_with(&mine) {
            remove(&identity);
        }
    }
}

/// Names of the namespaces of a lab.
fn namespaces(identity: &str) -> Vec<String> {
    let mine = format!("{identity}-");
    let mut names: Vec<String> = fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&mine))
        .collect();
    names.sort();
    names
}

/// Mount points below a lab's directory, deepest first.
fn mounts(directory: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(PathBuf::from)
        .filter(|path| path.starts_with(directory))
        .collect();
    found.sort();
    found.reverse();
    found
}

/// Processes inside one of `namespaces` or with the lab's directory in their command line, without ourselves.
fn processes(namespaces: &[String], directory: &Path) -> Vec<(i32, String)> {
    let identities: Vec<String> = namespaces
        .iter()
        .filter_map(|name| nix::sys::stat::stat(&Path::new("/run/netns").join(name)).ok())
        .map(|status| format!("net:[{}]", status.st_ino))
        .collect();
    processes_of(&identities, directory)
}

/// The same by the namespaces' identities, which also works after their names are gone.
pub(crate) fn processes_of(identities: &[String], directory: &Path) -> Vec<(i32, String)> {
    let directory = format!("{}/", directory.display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        if pid == std::process::id() as i32 {
            continue;
        }
        let network = fs::read_link(entry.path().join("ns/net")).unwrap_or_default();
        let inside = identities
            .iter()
            .any(|identity| Path::new(identity) == network);
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if inside || line.contains(&directory) {
            found.push((pid, line.trim().to_owned()));
        }
    }
    found
}

/// Removes everything of a lab: processes, namespaces, mounts (and pins with them), files.
pub(crate) fn remove(identity: &str) {
    let directory = root().join(identity);
    let namespaces = namespaces(identity);
    let gone = shell::wait_for(Duration::from_secs(5), || {
        let left = processes(&namespaces, &directory);
        for (pid, _) in &left {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
        }
        left.is_empty().then_some(())
    });
    if gone.is_none() {
        eprintln!("lab {identity}: some processes do not die");
    }
    for name in &namespaces {
        let answer = shell::run_line(&format!("ip netns del {name}"));
        if answer.code != 0 {
            eprintln!("lab {identity}: cannot delete namespace {name}\n{answer}");
        }
    }
    for mount in mounts(&directory) {
        if let Err(error) = nix::mount::umount(&mount) {
            eprintln!(
                "lab {identity}: cannot unmount {}: {error}",
                mount.display()
            );
        }
    }
    // Never walk into a file system that is still mounted.
    if mounts(&directory).is_empty()
        && directory.exists()
        && let Err(error) = fs::remove_dir_all(&directory)
    {
        eprintln!(
            "lab {identity}: cannot remove {}: {error}",
            directory.display()
        );
    }
}

/// What is left of a lab, one line each; empty is what everybody wants. `identities` are those of its namespaces.
pub fn of(identity: &str, identities: &[String]) -> Vec<String> {
    let directory = root().join(identity);
    let mut left = Vec::new();
    for name in namespaces(identity) {
        left.push(format!("namespace {name}"));
    }
    for (pid, line) in processes_of(identities, &directory) {
        left.push(format!("process {pid}: {line}"));
    }
    for mount in mounts(&directory) {
        left.push(format!(
            "mount {} (with the BPF pins in it)",
            mount.display()
        ));
    }
    if directory.exists() {
        left.push(format!("directory {}", directory.display()));
    }
    left
}

/// Every trace of any lab on this machine whose owner is gone, for `make lab-clean` to prove its work.
pub fn anything() -> Vec<String> {
    labs()
        .into_iter()
        .filter(|(_, orphaned, _)| *orphaned)
        .flat_map(|(identity, _, _)| of(&identity, &[]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_told_from_other_names() {
        for (name, expected) in [
            ("ilb-12-0", true),
            ("ilb-12-13", true),
            ("ilb-12", false),
            ("ilb-12-0-lb", false),
            ("ilb-demo-1", false),
            ("xlb-12-0", false),
        ] {
            assert_eq!(is_identity(name), expected, "given the name {name}");
        }
    }

    #[test]
    fn this_process_has_a_start_time_and_a_dead_one_has_none() {
        assert!(start_time(std::process::id()).is_some(), "given our own id");
        assert_eq!(start_time(u32::MAX), None, "given an id that cannot exist");
    }
}
