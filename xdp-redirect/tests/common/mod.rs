//! What the tests of this crate share: a pin directory that cleans up after itself, and frames.
#![allow(dead_code, reason = "each test binary uses a part of this")]

pub mod frames;
pub mod model;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use xdp_redirect::{Action, LoadOptions, Redirect, Steering};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;

/// A pin directory of this test alone, removed with everything in it when the test ends, however it ends.
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    pub fn new() -> Pins {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            is_root(),
            "these tests load BPF programs into the kernel and need root: run them with sudo"
        );
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ilb-test-{}-{number}", std::process::id());
        Pins {
            directory: Path::new("/sys/fs/bpf").join(name),
        }
    }

    pub fn path(&self) -> &Path {
        &self.directory
    }

    pub fn options(&self) -> LoadOptions {
        LoadOptions {
            pin_dir: self.directory.clone(),
            max_addresses: 1024,
        }
    }

    pub fn load(&self) -> Redirect {
        Redirect::load(&self.options()).expect("the program loads")
    }

    /// A program that steers by this.
    pub fn steer(&self, steering: &Steering) -> Redirect {
        let mut redirect = self.load();
        redirect.apply(steering).expect("the maps take it");
        redirect
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let removed = Redirect::detach_all(&self.directory);
        if !std::thread::panicking() {
            removed.expect("the pins go away");
            assert!(
                !self.directory.exists(),
                "something stayed in {}",
                self.directory.display()
            );
        }
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|uids| uids.split_whitespace().nth(1)) == Some("0")
}

/// Runs all tests of this test binary but `this` once more in a process that has no capabilities but those that the
/// crate's documentation asks for. It lacks CAP_PERFMON, so another variant of the program is loaded.
pub fn again_without_perfmon(this: &str) {
    let program = std::env::current_exe().expect("the test knows its program");
    let mut command = std::process::Command::new("setpriv");
    command.args(["--bounding-set=-all,+bpf,+net_admin", "--no-new-privs"]);
    command.arg(program).args(["--exact", "--skip", this]);
    let output = command
        .output()
        .expect("setpriv (package util-linux) can be run");
    let words = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}{complaint}");
    assert!(
        words.contains("running ") && !words.contains(" 0 passed"),
        "{words}"
    );
}

/// Runs the program on a frame.
pub fn run(redirect: &Redirect, frame: &[u8]) -> Action {
    redirect
        .try_frame(frame)
        .unwrap_or_else(|error| panic!("{error}: {frame:02x?}"))
}
