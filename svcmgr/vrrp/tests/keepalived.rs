//! Next to keepalived, Debian's: as its backup and as its active, in every way that both can speak. What happened is the
//! table in docs/pair.md, which `ILB_WRITE=1` writes anew.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::{Net, configure, one, stands, two_nodes, wait};
use ilb_vrrp::Driver;
use libilb::vrrp::VrrpState::{Active, Backup};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A way of speaking.
struct Way {
    version: u8,
    family: &'static str,
    mode: &'static str,
    checksum: &'static str,
    /// Seconds between advertisements.
    interval: &'static str,
    address: &'static str,
    /// What keepalived's configuration says besides.
    unicast: &'static str,
    /// What ours does.
    more: &'static str,
    /// Whether keepalived believes us.
    understood: bool,
}

const UNICAST4: &str = "unicast_src_ip 192.0.2.2\n unicast_peer {\n 192.0.2.1\n }";
const UNICAST6: &str = "unicast_src_ip fe80::2\n unicast_peer {\n fe80::1\n }";
const PEER4: &str = ",source=192.0.2.1,peers=192.0.2.2";
const PEER6: &str = ",source=fe80::1,peers=fe80::2";

const BASE: Way = Way {
    version: 3,
    family: "IPv4",
    mode: "multicast",
    checksum: "pseudo-header",
    interval: "0.1",
    address: "192.0.2.80",
    unicast: "",
    more: "",
    understood: true,
};

const WAYS: &[Way] = &[
    BASE,
    Way {
        checksum: "message",
        more: ",checksum=message",
        understood: false,
        ..BASE
    },
    Way {
        mode: "unicast",
        unicast: UNICAST4,
        more: PEER4,
        ..BASE
    },
    Way {
        family: "IPv6",
        address: "fe80::80",
        ..BASE
    },
    Way {
        family: "IPv6",
        address: "fe80::80",
        mode: "unicast",
        unicast: UNICAST6,
        more: PEER6,
        ..BASE
    },
    Way {
        version: 2,
        interval: "1",
        checksum: "message",
        ..BASE
    },
    Way {
        version: 2,
        interval: "1",
        checksum: "message",
        mode: "unicast",
        unicast: UNICAST4,
        more: PEER4,
        ..BASE
    },
];

/// A running keepalived.
struct Keepalived {
    child: Child,
    log: PathBuf,
    folder: PathBuf,
}

impl Keepalived {
    fn start(net: &Net, way: &Way) -> Keepalived {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("ilb-keepalived-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!(
            "global_defs {{\n router_id stranger\n vrrp_version {}\n}}\nvrrp_instance x {{\n state BACKUP\n interface eth0\n \
             virtual_router_id 51\n priority 100\n advert_int {}\n {}\n virtual_ipaddress {{\n {} dev eth0\n }}\n}}\n",
            way.version, way.interval, way.unicast, way.address
        );
        std::fs::write(folder.join("keepalived.conf"), text).unwrap();
        let log = folder.join("log");
        let (at, out) = (folder.clone(), std::fs::File::create(&log).unwrap());
        let child = net.enter(move || {
            Command::new("keepalived")
                .args(["--vrrp", "--dont-fork", "--log-console", "--log-detail"])
                .arg("--use-file")
                .arg(at.join("keepalived.conf"))
                .arg("--pid")
                .arg(at.join("pid"))
                .arg("--vrrp_pid")
                .arg(at.join("vrrp.pid"))
                .stdin(Stdio::null())
                .stdout(out.try_clone().unwrap())
                .stderr(out)
                .spawn()
                .expect("keepalived runs: `make deps` installs it")
        });
        Keepalived { child, log, folder }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// As an administrator stops it.
    fn terminate(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.terminate();
        // It ends its child before it ends.
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

async fn has(net: &Net, way: &Way, keepalived: &Keepalived, wanted: bool) {
    let what = format!("keepalived has {}: {wanted}", way.address);
    wait(&what, || async {
        (net.has(way.address) != wanted).then(|| keepalived.log())
    })
    .await;
}

fn ours(way: &Way, priority: u8) -> String {
    format!(
        "interface=eth0,vrid=51,addresses={},version={},interval={},priority={priority},track=none{}",
        way.address, way.version, way.interval, way.more
    )
}

/// One line of the table.
async fn meet(left: &Net, right: &Net, way: &Way) -> String {
    let mut keepalived = Keepalived::start(right, way);
    has(right, way, &keepalived, true).await;

    // We are better.
    let a = left.driver();
    configure(&a, &[("x", &ours(way, 150))]);
    stands(&a, "we take over", Active).await;
    let mut cells = Vec::new();
    if way.understood {
        has(right, way, &keepalived, false).await;
        assert!(left.has(way.address));
        cells.push("ilb takes over, keepalived gives way".to_owned());
        let began = Instant::now();
        a.stop().await;
        has(right, way, &keepalived, true).await;
        cells.push(format!("keepalived, {} ms", began.elapsed().as_millis()));
    } else {
        wait("keepalived says that it does not understand", || async {
            let told = keepalived.log().contains("Invalid VRRPv3 checksum");
            (!told).then(|| keepalived.log())
        })
        .await;
        assert!(right.has(way.address), "{}", keepalived.log());
        cells.push("both active: this keepalived does not know the form".to_owned());
        cells.push("–".to_owned());
        a.stop().await;
    }

    // We are worse, and understand it.
    let a = left.driver();
    configure(&a, &[("x", &ours(way, 50))]);
    hears(&a).await;
    assert!(right.has(way.address) && !left.has(way.address));
    cells.push("ilb is its backup".to_owned());
    let began = Instant::now();
    keepalived.terminate();
    stands(&a, "we stand in for it", Active).await;
    cells.push(format!("ilb, {} ms", began.elapsed().as_millis()));
    let why = one(&a).await.status.why;
    assert_eq!(
        why, "the active router gave up",
        "we understand its priority 0"
    );
    a.stop().await;
    format!(
        "| {} | {} | {} | {} | {} s | {} |",
        way.version,
        way.family,
        way.mode,
        way.checksum,
        way.interval,
        cells.join(" | ")
    )
}

async fn hears(driver: &Driver) {
    wait("we hear it and stay its backup", || async {
        let report = one(driver).await;
        let well = report.status.state == Backup && report.counters.received >= 3;
        (!well).then(|| format!("{report:?}"))
    })
    .await;
    let refused = one(driver).await.counters.refused;
    assert!(refused.is_empty(), "{refused:?}");
}

/// Times are other ones each time.
fn without_times(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.parse::<u64>() {
        Ok(_) => "N",
        Err(_) => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn keepalived_and_we_understand_each_other() {
    let (left, right) = two_nodes();
    let mut lines = Vec::new();
    for way in WAYS {
        let line = meet(&left, &right, way).await;
        println!("{line}");
        lines.push(line);
    }
    let table = lines.join("\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pair.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (
        "<!-- begin interoperability -->\n",
        "\n<!-- end interoperability -->",
    );
    let (head, rest) = text.split_once(begin).expect("docs/pair.md has the mark");
    let (old, tail) = rest
        .split_once(end)
        .expect("docs/pair.md has the end's mark");
    let heading = "| version | family | mode | checksum | interval | ilb has the higher priority | and stops; who takes over | \
                   ilb has the lower priority | keepalived stops; who takes over |\n|---|---|---|---|---|---|---|---|---|\n";
    let new = format!("{heading}{table}");
    if std::env::var_os("ILB_WRITE").is_some_and(|value| value == "1") {
        std::fs::write(&path, format!("{head}{begin}{new}{end}{tail}")).unwrap();
    } else {
        assert_eq!(without_times(old), without_times(&new), "docs/pair.md");
    }
}
