//! Scripts and files: their contracts, their limits, and that nobody of a script survives it.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::{ask, until, words};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ilb-checks-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn script(&self, name: &str, body: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn place() -> SocketAddr {
    "[2001:db8::7]:8080".parse().unwrap()
}

#[test]
fn ilbadms_contract() {
    let folder = Folder::new("ilbadm");
    for (name, body, expected, rtt) in [
        ("well", "echo 0", "good local/ok: 0", None),
        ("time", "echo 1500", "good local/ok: 1500", Some(1500)),
        (
            "dead",
            "echo -1",
            "dead local/output -1: the script says -1",
            None,
        ),
        (
            "reason",
            "echo '-1 no disk'",
            "dead local/output -1: no disk",
            None,
        ),
        (
            "first",
            "echo 7; echo -1; exit 3",
            "good local/ok: 7",
            Some(7),
        ),
        (
            "mute",
            "exit 0",
            "dead local/output: the script says nothing",
            None,
        ),
        ("babble", "echo fine", "dead local/output 0: fine", None),
        (
            "crash",
            "echo broken >&2; exit 9",
            "dead local/output 9: broken",
            None,
        ),
        (
            "suicide",
            "kill -9 $$",
            "dead local/killed 9: killed by SIGKILL",
            None,
        ),
        (
            "arguments",
            "[ \"$*\" = '192.0.2.1 2001:db8::7 TCP HALF_NAT 8080 20' ] && echo 0 || echo \"-1 $*\"",
            "good local/ok: 0",
            None,
        ),
    ] {
        let path = folder.script(name, body);
        let outcome = ask(&format!("hc-test={path},hc-ping=no,hc-timeout=20"), place());
        assert_eq!(words(&outcome), expected, "{name}");
        assert_eq!(outcome.rtt, rtt, "{name}");
    }
}

#[test]
fn exit_codes_and_weights() {
    let folder = Folder::new("exit");
    for (code, weighs, expected, weight) in [
        (0, "no", "good local/ok 0: text", None),
        (1, "no", "dead local/exit 1: text", None),
        (7, "no", "dead local/exit 7: text", None),
        (0, "yes", "good local/ok 0: text", None),
        (1, "yes", "dead local/exit 1: text", None),
        (2, "yes", "good local/ok 2: text", Some(0)),
        (255, "yes", "good local/ok 255: text", Some(253)),
    ] {
        let path = folder.script("exit", "echo text; exit $1");
        let settings = format!(
            "hc-test={path},hc-contract=exit-code,hc-weight={weighs},hc-arg={code},hc-ping=no,hc-timeout=20"
        );
        let outcome = ask(&settings, place());
        assert_eq!(words(&outcome), expected, "{code} {weighs}");
        let weight = weight.map(libilb::health::Weight::Set);
        assert_eq!(outcome.weight, weight, "{code} {weighs}");
    }
}

#[test]
fn scripts_that_cannot_be_run_are_missing() {
    let folder = Folder::new("missing");
    let data = folder.0.join("data");
    fs::write(&data, "no program").unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let plain = folder.0.join("plain");
    fs::write(&plain, "#!/bin/sh\n").unwrap();
    for path in [
        "/nowhere/check",
        data.to_str().unwrap(),
        plain.to_str().unwrap(),
    ] {
        let outcome = ask(&format!("hc-test={path},hc-ping=no"), place());
        let words = words(&outcome);
        assert!(
            words.starts_with(&format!("dead local/missing: {path}: ")),
            "{words}"
        );
    }
}

/// Whether a process lives (zombies do not).
fn lives(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|text| {
        !text
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

#[test]
fn a_script_that_hangs_is_killed_with_its_children() {
    let folder = Folder::new("hang");
    let pids = folder.0.join("pids");
    let pids_name = pids.display();
    let body = format!(
        "sleep 1000 & echo $! >>{pids_name}\n(sleep 1001 & echo $! >>{pids_name}; sleep 1002) &\necho $$ >>{pids_name}\n\
         trap '' TERM\nwait"
    );
    let path = folder.script("hang", &body);
    let outcome = ask(&format!("hc-test={path},hc-ping=no,hc-timeout=3"), place());
    assert_eq!(words(&outcome), "dead local/timeout: no answer in time");
    let written = fs::read_to_string(&pids).unwrap();
    assert_eq!(written.lines().count(), 3, "{written}");
    until("all are killed", || !written.lines().any(lives));
}

#[test]
fn children_that_are_left_behind_do_not_hold_the_result() {
    let folder = Folder::new("left");
    let pids = folder.0.join("pids");
    let path = folder.script(
        "left",
        &format!("sleep 1000 & echo $! >{}\necho 5", pids.display()),
    );
    let outcome = ask(&format!("hc-test={path},hc-ping=no,hc-timeout=25"), place());
    assert_eq!(words(&outcome), "good local/ok: 5");
    let pid = fs::read_to_string(&pids).unwrap();
    until("the child is killed", || !lives(pid.trim()));
}

#[test]
fn endless_output_is_not_kept() {
    let folder = Folder::new("endless");
    let path = folder.script("endless", "yes 0");
    let outcome = ask(&format!("hc-test={path},hc-ping=no,hc-timeout=20"), place());
    // Its output is closed: it ends by itself, long before its time.
    assert_eq!(words(&outcome), "good local/ok: 0");
}

#[test]
fn files_decide() {
    let folder = Folder::new("file");
    let path = folder.0.join("load");
    let test = format!(
        "hc-test=file,hc-path={},hc-weight=yes,hc-ping=no",
        path.display()
    );
    let words_now = || words(&ask(&test, place()));
    assert!(words_now().starts_with("dead local/missing: "));
    fs::write(&path, "12\n").unwrap();
    let outcome = ask(&test, place());
    assert_eq!(words(&outcome), "good local/ok 12");
    assert_eq!(outcome.weight, Some(libilb::health::Weight::Add(12)));
    fs::write(&path, "-254").unwrap();
    assert_eq!(words_now(), "dead local/output -254: the file says -254");
    fs::write(&path, "x".repeat(10_000_000)).unwrap();
    assert!(words_now().starts_with("dead local/output: 'xxx"));
    // A pipe that nobody writes to does not hold us.
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(words_now().ends_with("is no file"));
}
