//! The manager with 10,000 rules and 100,000 servers, on a system bus with the limits that system buses have: how long it
//! takes to start, to be listed, and to change, and how much memory that takes. The fast path is simulated (`--sim`); what
//! a change costs with the real one is in [`super::scale`].
//!
//! Changes are measured twice, with the state on the disk and in memory (`/dev/shm`), and beside them a bare `fdatasync`,
//! so that what the disk takes can be told from what the manager does. What a pair costs is in [`following`].

mod following;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libilb::apply::ApplyOptions;
use libilb::client::Client;
use libilb::rule::RuleSettings;

use super::{Report, median};
use crate::lab::node::programs;
use crate::lab::process::{Daemon, tail};
use crate::shell;

/// Rules, each with a server group of its own.
const RULES: usize = 10_000;
/// Servers of each group.
const SERVERS: usize = 10;
/// Changes of each kind.
const CHANGES: usize = 41;
/// Starts, listings and documents of each kind.
const TIMES: usize = 5;
/// How long a start may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures and reports.
pub fn run(report: &mut Report) {
    println!(
        "\nThe manager with {RULES} rules and {} servers:",
        RULES * SERVERS
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("an async runtime");
    let disk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let place = Place::new(&disk);
    runtime.block_on(starts_and_lists(&place, report));
    drop(place);
    for (name, folder) in [("disk", disk.as_path()), ("memory", Path::new("/dev/shm"))] {
        let place = Place::new(folder);
        runtime.block_on(changes(&place, name, report));
    }
    runtime.block_on(following::run(&disk, report));
}

/// A folder with a bus and a node's settings and state; gone in the end.
struct Place {
    folder: PathBuf,
    _bus: Daemon,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Another run removes what is left.
        fs::remove_dir_all(&self.folder).ok();
    }
}

impl Place {
    fn new(beside: &Path) -> Place {
        Place::named(beside, "manager")
    }

    /// One of several at the same time.
    fn named(beside: &Path, name: &str) -> Place {
        let folder = beside.join(format!("ilb-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("run")).expect("a folder can be created");
        let folder = folder.canonicalize().expect("the folder is there");
        let settings = format!(
            "[node]\nruntime-dir = \"{0}/run\"\nstate-dir = \"{0}/state\"\n[fastpath]\ninterfaces = [\"eth0\"]\n",
            folder.display()
        );
        fs::write(folder.join("ilb.toml"), settings).expect("the settings can be written");
        let bus = bus(&folder);
        Place { folder, _bus: bus }
    }

    fn address(&self) -> String {
        format!("unix:path={}/bus", self.folder.display())
    }

    /// Starts the manager, and says after how long it was ready.
    fn start(&self) -> (Daemon, Duration) {
        let socket = self.folder.join("notify");
        fs::remove_file(&socket).ok();
        let listener = UnixDatagram::bind(&socket).expect("a socket can be had");
        listener
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("it can have a timeout");
        let mut command = Command::new(programs().join("ilb-svcmgr"));
        command
            .args(["--sim", "--config"])
            .arg(self.folder.join("ilb.toml"))
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .env("NOTIFY_SOCKET", &socket);
        let began = Instant::now();
        let mut daemon = Daemon::spawn("ilb-svcmgr", command, &self.folder.join("manager.log"));
        let mut text = [0; 4096];
        loop {
            let got = listener.recv(&mut text).unwrap_or(0);
            if String::from_utf8_lossy(&text[..got]).contains("READY=1") {
                return (daemon, began.elapsed());
            }
            assert!(
                daemon.ended().is_none() && began.elapsed() < PATIENCE,
                "the manager did not start:\n{}",
                tail(daemon.log(), 20)
            );
        }
    }

    async fn client(&self) -> Client {
        let address = self.address();
        let address = address.as_str().try_into().expect("the bus has an address");
        Client::connect_to(address)
            .await
            .expect("the manager is there")
    }

    /// How long a command of lbadm takes, with all that it prints.
    fn lbadm(&self, command: &str) -> Duration {
        let began = Instant::now();
        let status = Command::new(programs().join("lbadm"))
            .arg(command)
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .stdout(Stdio::null())
            .status()
            .expect("lbadm can be run");
        assert!(status.success(), "lbadm {command}: {status}");
        began.elapsed()
    }

    /// How long a small write takes to be durable here.
    fn sync(&self) -> Duration {
        let path = self.folder.join("probe");
        let mut file = File::create(path).expect("a file can be created");
        let times = (0..CHANGES).map(|_| {
            let began = Instant::now();
            file.write_all(&[7; 4096])
                .and_then(|()| file.sync_data())
                .expect("it can be written");
            began.elapsed()
        });
        Duration::from_secs_f64(median(times.map(|time| time.as_secs_f64()).collect()))
    }
}

/// A bus daemon with the limits of a system bus.
fn bus(folder: &Path) -> Daemon {
    let text = format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={}/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#,
        folder.display()
    );
    let configuration = folder.join("bus.conf");
    fs::write(&configuration, text).expect("the bus's configuration can be written");
    let mut command = Command::new("dbus-daemon");
    command
        .arg(format!("--config-file={}", configuration.display()))
        .args(["--nofork", "--nopidfile", "--nosyslog"]);
    let daemon = Daemon::spawn("dbus-daemon", command, &folder.join("bus.log"));
    let socket = folder.join("bus");
    shell::wait_for(Duration::from_secs(5), || socket.exists().then_some(()))
        .expect("dbus-daemon comes up");
    daemon
}

/// The whole configuration as a document.
fn document() -> String {
    let mut text = String::new();
    for n in 0..RULES {
        let servers: Vec<String> = (1..=SERVERS)
            .map(|server| {
                format!(
                    "\"{}\"",
                    Ipv4Addr::from(0x6440_0000 + (n * 16 + server) as u32)
                )
            })
            .collect();
        writeln!(
            text,
            "[group.group{n}]\nservers = [{}]\n[rule.rule{n}]\nvip = \"{}\"\nport = 80\nalgorithm = \"wlc\"\n\
             topology = \"HALF-NAT\"\ngroup = \"group{n}\"\nmanage-addresses = false",
            servers.join(", "),
            Ipv4Addr::from(0xc612_0001 + n as u32)
        )
        .expect("writing to a string");
    }
    text
}

async fn filled(place: &Place) -> (Daemon, Client, Duration) {
    let (daemon, _) = place.start();
    let client = place.client().await;
    let began = Instant::now();
    let report = client
        .apply(&document(), &ApplyOptions::default())
        .await
        .expect("the document is applied");
    let took = began.elapsed();
    assert!(report.generation > 0 && !report.is_empty());
    (daemon, client, took)
}

async fn starts_and_lists(place: &Place, report: &mut Report) {
    let (mut daemon, client, took) = filled(place).await;
    report.add(
        "apply_s_100k",
        took.as_secs_f64(),
        "s",
        "everything configured by one document",
    );
    settle().await;
    for (name, command) in [
        ("show_rule_ms_100k", "show-rule"),
        ("show_server_ms_100k", "show-server"),
        ("show_servergroup_ms_100k", "show-servergroup"),
    ] {
        let times = (0..TIMES).map(|_| place.lbadm(command)).collect();
        add(report, name, times, command);
    }
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let began = Instant::now();
        let node = client.describe().await.expect("it describes itself");
        times.push(began.elapsed());
        assert_eq!((node.rules.len(), node.groups.len()), (RULES, RULES));
    }
    add(report, "describe_ms_100k", times, "Describe, by libilb");
    memory(report, &daemon, "manager_mib_100k", "after being listed");
    daemon.terminate();
    drop(daemon);

    let settings = ilb_node::settings::Settings::load(&place.folder.join("ilb.toml"))
        .expect("the settings are good");
    for (name, meaning, prepare) in [
        ("start_ms_100k", "from the database", &(|| ()) as &dyn Fn()),
        (
            "start_ms_100k_no_snapshot",
            "from the database, without a snapshot beside it",
            &|| fs::remove_dir_all(settings.snapshots()).expect("snapshots are there"),
        ),
        (
            "start_ms_100k_rebuilt",
            "the database is lost and rebuilt from a snapshot",
            &|| fs::remove_dir_all(settings.database()).expect("the database is there"),
        ),
    ] {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            prepare();
            let (mut daemon, took) = place.start();
            times.push(took);
            let node = place.client().await.describe().await;
            assert_eq!(node.expect("it describes itself").rules.len(), RULES);
            if times.len() == 1 && name == "start_ms_100k" {
                memory(report, &daemon, "manager_mib_100k_started", "after a start");
            }
            // A snapshot that is missing is written before it ends.
            daemon.terminate();
        }
        add(report, name, times, meaning);
    }
    // As after a crash.
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let (mut daemon, took) = place.start();
        times.push(took);
        daemon.kill();
    }
    add(report, "start_ms_100k_killed", times, "after kill -9");
}

async fn changes(place: &Place, name: &str, report: &mut Report) {
    let (mut daemon, client, _) = filled(place).await;
    settle().await;
    let sync = place.sync();
    report.add(
        &format!("fdatasync_ms_{name}"),
        sync.as_secs_f64() * 1e3,
        "ms",
        "4 KiB appended and synced",
    );
    let mut kinds: [(&str, Vec<Duration>); 5] = [
        ("add_server", Vec::new()),
        ("modify_rule", Vec::new()),
        ("disable_server", Vec::new()),
        ("create_group", Vec::new()),
        ("create_rule", Vec::new()),
    ];
    for n in 0..CHANGES {
        let at = n * 7919 % RULES;
        let (group, rule, server) = (
            format!("group{at}"),
            format!("rule{at}"),
            format!("_group{at}.3"),
        );
        let (new, added) = (RULES + n, format!("100.127.0.{n}"));
        let (new_rule, new_group) = (format!("rule{new}"), format!("group{new}"));
        let slow_start = RuleSettings {
            slow_start: Some(30),
            ..RuleSettings::default()
        };
        let settings = RuleSettings {
            enabled: true,
            vip: Ipv4Addr::from(0xc612_0001 + new as u32).to_string(),
            port: "80".into(),
            algorithm: "wlc".into(),
            topology: "HALF-NAT".into(),
            servergroup: new_group.clone(),
            manage_addresses: Some(false),
            ..RuleSettings::default()
        };
        let mut began = Instant::now();
        let mut lap = |kind: usize| {
            kinds[kind].1.push(began.elapsed());
            began = Instant::now();
        };
        client.add_servers(&group, &[&added]).await.expect("added");
        lap(0);
        client
            .modify_rule(&rule, &slow_start)
            .await
            .expect("modified");
        lap(1);
        client
            .enable_servers(&[&server], false)
            .await
            .expect("disabled");
        lap(2);
        client
            .create_group(&new_group, &["192.0.2.1-192.0.2.10"])
            .await
            .expect("created");
        lap(3);
        client
            .create_rule(&new_rule, &settings)
            .await
            .expect("created");
        lap(4);
    }
    for (kind, times) in kinds {
        let worst = times.iter().max().copied().unwrap_or_default();
        add(
            report,
            &format!("{kind}_ms_100k_{name}"),
            times,
            "durable and shown",
        );
        report.add(
            &format!("{kind}_ms_100k_{name}_worst"),
            worst.as_secs_f64() * 1e3,
            "ms",
            "the slowest of them",
        );
    }
    let mut times = Vec::new();
    for n in 0..TIMES {
        let text = format!("[group.group0]\nservers = [\"192.0.2.{}\"]\n", n + 1);
        let options = ApplyOptions {
            merge: true,
            ..ApplyOptions::default()
        };
        let began = Instant::now();
        client.apply(&text, &options).await.expect("applied");
        times.push(began.elapsed());
    }
    add(
        report,
        &format!("apply_merge_ms_100k_{name}"),
        times,
        "a document with one group, --merge",
    );
    let mut times = Vec::new();
    for n in 0..TIMES {
        let text = document().replacen("100.64.0.1\"", &format!("192.0.2.{}\"", n + 11), 1);
        let began = Instant::now();
        client
            .apply(&text, &ApplyOptions::default())
            .await
            .expect("applied");
        times.push(began.elapsed());
    }
    add(
        report,
        &format!("apply_whole_ms_100k_{name}"),
        times,
        "the whole document with one difference",
    );
    let history = client.history(10).await.expect("there is a history");
    let back = history.get(2).expect("there were changes").generation;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let began = Instant::now();
        client.preview_rollback(back).await.expect("a preview");
        times.push(began.elapsed());
    }
    add(
        report,
        &format!("preview_rollback_ms_100k_{name}"),
        times,
        "what going back two changes would change",
    );
    memory(
        report,
        &daemon,
        &format!("manager_mib_100k_changed_{name}"),
        "after all these changes",
    );
    daemon.terminate();
}

/// Until what is written in the background is through.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

fn add(report: &mut Report, name: &str, times: Vec<Duration>, meaning: &str) {
    let times = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    report.add(name, median(times), "ms", meaning);
}

/// Resident memory now, and the most that there was.
fn memory(report: &mut Report, daemon: &Daemon, name: &str, meaning: &str) {
    let [now, most] = resident_mib(daemon.pid());
    report.add(name, now, "MiB", meaning);
    report.add(&format!("{name}_peak"), most, "MiB", "the most until then");
}

/// Resident memory of a process and the most that it ever was, in MiB.
pub fn resident_mib(pid: u32) -> [f64; 2] {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        number.expect("memory is in KiB") / 1024.0
    })
}
