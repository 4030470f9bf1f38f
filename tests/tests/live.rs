//! What `lbadm` shows of a whole node while things happen to it: events, a live screen, and the doctor.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ilb_tests::lab::{Lab, Spec};
use ilb_tests::service::Service;
use ilb_tests::{Family, Topology, shell};

const PATIENCE: Duration = Duration::from_secs(30);

/// A program that goes on until its value is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(command.spawn().expect("it can be run"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn events_are_told_as_they_happen_and_through_a_restart() {
    let lab = Lab::with_ilb(Spec::default());
    let path = lab.directory().join("events");
    let mut command = lab.node.lbadm_command();
    command
        .arg("monitor")
        .stdout(File::create(&path).expect("the lab's directory can be written"));
    let _monitor = Running::start(&mut command);
    let told = |wanted: &str| {
        let found = shell::wait_for(PATIENCE, || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            text.contains(wanted).then_some(())
        });
        assert!(
            found.is_some(),
            "given `lbadm monitor`, then it says {wanted:?}:\n{}",
            fs::read_to_string(&path).unwrap_or_default()
        );
    };
    // It listens when it tells of the first group that was created after it.
    let listens = shell::wait_for(PATIENCE, || {
        lab.node.lbadm("create-servergroup probe");
        lab.node.lbadm("delete-servergroup probe");
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.contains("probe").then_some(())
    });
    assert!(listens.is_some(), "given a change, then it is told");
    Service::http(0, Topology::HalfNat, Family::V4).create(&lab);
    told("rule rule0 created: ");
    lab.node.lbadm("disable-server _group0.0");
    told("server _group0.0 enabled yes -> no");
    lab.node.kill_manager();
    told("manager stopped");
    lab.node.start_manager();
    told("manager started");
    lab.node.lbadm("enable-server _group0.0");
    told("server _group0.0 enabled no -> yes");

    let mut command = lab.node.lbadm_command();
    command.arg("monitor").stdout(Stdio::piped());
    let mut monitor = Running::start(&mut command);
    drop(monitor.0.stdout.take());
    let ended = shell::wait_for(PATIENCE, || monitor.0.try_wait().ok().flatten());
    assert!(
        ended.is_some_and(|status| status.success()),
        "given a reader that is gone and nothing to say, then it ends all the same: {ended:?}"
    );
}

#[test]
fn top_is_a_screen_on_a_terminal_and_the_doctor_says_what_ails() {
    let lab = Lab::with_ilb(Spec::default());
    Service::http(0, Topology::HalfNat, Family::V4).create(&lab);
    let lines = lab.node.lbadm("top 1 2");
    assert!(
        lines.matches("PKT/S").count() == 2 && lines.contains("rule0") && !lines.contains('\x1b'),
        "given no terminal, then each look is a table:\n{lines}"
    );
    // script(1) gives it a terminal and types for it.
    let inner = lab.node.lbadm_command();
    let words: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let screen = lab.directory().join("screen");
    File::create(&screen).expect("the lab's directory can be written");
    let line = format!("stty cols 90 rows 20; {} top", words.join(" "));
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!(
            "seen() {{ for _ in $(seq 300); do grep -q \"$1\" {out} && break; sleep 0.1; done; }}; \
             {{ seen rule0; printf s; seen vBIT/S; printf q; sleep 3; }} | timeout 60 script -qefc {} {out}",
            shell_quoted(&line),
            out = screen.display(),
        ))
        .env("TERM", "xterm")
        .env("LC_ALL", "C.UTF-8");
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let answer = shell::run(command);
    for wanted in ["\x1b[?1049h", "vPKT/S", "vBIT/S", "rule0", "\x1b[?1049l"] {
        assert!(
            answer.stdout.contains(wanted),
            "given a terminal, then it shows {wanted:?}:\n{answer}"
        );
    }
    assert_eq!(answer.code, 0, "given q, then it ends well\n{answer}");
    the_doctor_looks(&lab);
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The doctor sees the interfaces, and a server that does not answer.
fn the_doctor_looks(lab: &Lab) {
    lab.node
        .lbadm("create-servergroup -s server=10.2.0.99 absent");
    let settings = lab.node.settings().display().to_string();
    let look = || {
        lab.node
            .try_lbadm(&["doctor", "--config", settings.as_str()])
    };
    let answer = look();
    for wanted in [
        "interface eth0",
        "virtual (veth)",
        "every frame is copied: ",
        "version",
    ] {
        assert!(
            answer.stdout.contains(wanted),
            "given a lab of veths, then the doctor says {wanted:?}\n{answer}"
        );
    }
    let failed = shell::wait_for(PATIENCE, || {
        lab.at("lb").try_run("ping -c 1 -W 1 10.2.0.99");
        let answer = look();
        answer
            .stdout
            .contains("next hop 10.2.0.99 on eth1 does not answer")
            .then_some(answer.code)
    });
    assert_eq!(
        failed,
        Some(5),
        "given a server that is not there\n{}",
        look()
    );
}
