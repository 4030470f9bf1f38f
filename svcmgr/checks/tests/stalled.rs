//! A manager that is stopped and goes on, again and again, finds no server dead that is well: late tests are no failures. Needs
//! root. Alone in its program, because the whole of it is stopped.

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use common::{target, until};
use ilb_checks::{Engine, Options};
use libilb::health::HealthState;
use nix::sched::{CloneFlags, unshare};

/// A server in another process, which is not stopped, and takes its time about a page.
fn nginx(folder: &std::path::Path) -> std::process::Child {
    let root = folder.display();
    let configuration = format!(
        "daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/error.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; client_body_temp_path {root}; proxy_temp_path {root};\n\
         fastcgi_temp_path {root}; uwsgi_temp_path {root}; scgi_temp_path {root};\n\
         server {{ listen 127.0.0.1:80; root {root}; limit_rate 10k; }} }}\n"
    );
    std::fs::write(folder.join("nginx.conf"), configuration).unwrap();
    std::fs::write(
        folder.join("index.html"),
        format!("{}end\n", "x".repeat(2000)),
    )
    .unwrap();
    let arguments = [format!("-c{root}/nginx.conf"), format!("-p{root}")];
    Command::new("nginx")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_manager_that_is_stopped_finds_nobody_dead() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .unwrap();
    assert!(up.success());
    let folder = std::env::temp_dir().join(format!("ilb-stalled-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut server = nginx(&folder);
    until("the server listens", || {
        std::net::TcpStream::connect("127.0.0.1:80").is_ok()
    });

    let engine = Engine::start(Options {
        max_sockets: 64,
        max_scripts: 1,
        seed: 1,
    })
    .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // One failure would be enough.
    let check = "hc-test=http,hc-regex=end$,hc-timeout=2,hc-interval=200ms,hc-count=1";
    let targets = (1..=20).map(|n| target(n, check, "127.0.0.1:80".parse().unwrap()));
    engine.set(targets.collect());
    let alive = || {
        let report = runtime.block_on(engine.report());
        report
            .servers
            .iter()
            .all(|server| server.state == HealthState::Alive)
    };
    until("all are alive", alive);
    let before = runtime.block_on(engine.statistics());

    // Stopped for longer than the timeout, and for most of it.
    let stopper =
        "for time in 3 1.9 3 1.9; do kill -STOP $0; sleep $time; kill -CONT $0; sleep 0.4; done";
    let pid = std::process::id().to_string();
    let mut stopper = Command::new("sh")
        .args(["-c", stopper, &pid])
        .spawn()
        .unwrap();
    stopper.wait().unwrap();

    let after = runtime.block_on(engine.statistics());
    until("tests went on", || {
        std::thread::sleep(Duration::from_millis(50));
        runtime.block_on(engine.statistics()).tests > after.tests + 20
    });
    let report = runtime.block_on(engine.report());
    server.kill().unwrap();
    server.wait().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(after.late > before.late, "it was not stopped: {after:?}");
    for server in report.servers {
        let states: Vec<_> = server
            .transitions
            .iter()
            .map(|t| (t.to, t.finding.to_string()))
            .collect();
        assert_eq!(states.len(), 1, "{states:?}");
    }
}
