//! A program that adopts orphans kills what its scripts leave behind, wherever that has gone. A file, and with it a process,
//! of its own: it may have no other children.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{PATIENCE, target, words};
use ilb_checks::probe::{Plan, Tools, probe};

/// Whether a process is there, dead or alive.
fn is_there(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

#[test]
fn nobody_of_a_script_survives_it() {
    ilb_programs::adopt_orphans().unwrap();
    let folder = std::env::temp_dir().join(format!("ilb-checks-reaper-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let pids = folder.join("pids");
    let place: SocketAddr = "192.0.2.7:80".parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let leave = |how: &str| {
        format!(
            "{how} sh -c 'echo $$ >>{}; exec sleep 1000'",
            pids.display()
        )
    };
    let wait = format!(
        "while [ $(wc -l <{0} 2>/dev/null || echo 0) -lt 2 ]; do sleep 0.01; done",
        pids.display()
    );
    // What it leaves in two ways, how it goes on, what is found.
    for (name, first, second, ending, expected) in [
        (
            "sessions of their own",
            leave("setsid") + " 3>&- &",
            "(".to_string() + &leave("setsid") + " 3>&- &)",
            "echo 7",
            "good local/ok: 7",
        ),
        (
            "a script that hangs, and daemons",
            leave("setsid -f") + " 3>&-",
            leave("setsid -f") + " 3>&-",
            "sleep 1000",
            "dead local/timeout: no answer in time",
        ),
        (
            "without the environment that it was given",
            leave("setsid -f env -i PATH=$PATH") + " 3>&-",
            leave("env -i PATH=$PATH setsid -f") + " 3>&-",
            "echo 8",
            "good local/ok: 8",
        ),
        (
            "in its own group",
            leave("") + " 3>&- &",
            "(".to_string() + &leave("") + " 3>&- &)",
            "echo 9",
            "good local/ok: 9",
        ),
    ] {
        let _ = fs::remove_file(&pids);
        let path = folder.join("script");
        // What is left behind does not hold the output.
        let quiet = "exec 3>&1 >/dev/null 2>&1";
        let body = format!("#!/bin/sh\n{quiet}\n{first}\n{second}\n{wait}\n{ending} >&3\n");
        fs::write(&path, body).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let test = format!("hc-test={},hc-ping=no,hc-timeout=10", path.display());
        let target = target(1, &test, place);
        let plan = Plan::new(target.check.clone());
        let outcome = runtime.block_on(probe(&target, &plan, place, &Tools::default()));
        assert_eq!(words(&outcome), expected, "{name}");
        let written = fs::read_to_string(&pids).unwrap();
        assert_eq!(written.lines().count(), 2, "{name}: {written}");
        // Killed, and reaped.
        let began = Instant::now();
        while written.lines().any(is_there) {
            assert!(
                began.elapsed() < PATIENCE,
                "{name}: somebody is left of {written}"
            );
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(10)).await });
        }
    }
    fs::remove_dir_all(&folder).unwrap();
}
