//! Tests 10,000 targets on loopback every 2 s, half by TCP and half by ping, and prints how many tests were late and how much
//! CPU it took. `cargo run --release -p ilb-checks --example ten_thousand -- [targets] [seconds]`; pings need root or a ping
//! socket. One thread of this process is the server that takes the connections; its time is not counted.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ilb_checks::{Engine, Id, Options, Ports, Target};
use libilb::health::HealthState;
use libilb::healthcheck::{HealthCheck, HealthCheckSettings};
use libilb::rule::{Protocol, Topology};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: u32 = arguments.next().map_or(Ok(10_000), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(30), |text| text.parse())?;

    let listener = TcpListener::bind("0.0.0.0:0")?;
    let port = listener.local_addr()?.port();
    std::thread::Builder::new()
        .name("server".to_string())
        .spawn(move || {
            for stream in listener.incoming() {
                drop(stream);
            }
        })?;

    let checks = [check("hc-test=tcp,hc-ping=no")?, check("hc-test=ping")?];
    let engine = Engine::start(Options::for_this_process())?;
    engine.set(
        (0..count)
            .map(|n| target(n, &checks[n as usize % 2], port))
            .collect(),
    );

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // The first round is over then.
    std::thread::sleep(Duration::from_secs(5));
    let (began, cpu) = (Instant::now(), cpu()?);
    let before = runtime.block_on(engine.statistics());
    std::thread::sleep(Duration::from_secs(seconds));
    let after = runtime.block_on(engine.statistics());
    let (took, used) = (began.elapsed(), self::cpu()? - cpu);
    let report = runtime.block_on(engine.report());

    let (tests, late) = (after.tests - before.tests, after.late - before.late);
    let alive = report
        .servers
        .iter()
        .filter(|s| s.state == HealthState::Alive)
        .count();
    println!(
        "{tests} tests in {:.1} s: {:.0} a second",
        took.as_secs_f64(),
        tests as f64 / took.as_secs_f64()
    );
    println!(
        "late by more than 200 ms: {late} ({:.3} %)",
        100.0 * late as f64 / tests.max(1) as f64
    );
    println!("showed nothing: {}", after.unknown - before.unknown);
    println!("alive: {alive} of {count}");
    println!(
        "CPU of the engine: {:.1} % of a core",
        100.0 * used.as_secs_f64() / took.as_secs_f64()
    );
    println!("memory: {}", memory()?);
    Ok(())
}

fn check(text: &str) -> Result<Arc<HealthCheck>, Box<dyn Error>> {
    let mut settings = HealthCheckSettings::default();
    settings.parse(&format!("{text},hc-interval=2,hc-timeout=1"))?;
    Ok(Arc::new(settings.check("c")?))
}

fn target(number: u32, check: &Arc<HealthCheck>, port: u16) -> Target {
    // 127.1.0.1 and so on: each has an address of its own.
    let address = IpAddr::from(Ipv4Addr::from(0x7f01_0001 + number));
    let place = SocketAddr::new(address, port);
    Target {
        id: Id {
            rule: 1,
            server: number + 1,
        },
        rule: "web".to_string(),
        server: format!("_g.{number}"),
        check: check.clone(),
        address: place.ip(),
        port: None,
        ports: Ports {
            first: port,
            last: port,
        },
        vip: Ipv4Addr::new(192, 0, 2, 1).into(),
        protocol: Protocol::Tcp,
        topology: Topology::HalfNat,
        enabled: true,
        via: None,
        remembered: None,
    }
}

/// Time that the engine's thread has run.
fn cpu() -> Result<Duration, Box<dyn Error>> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == "ilb-checks" {
            let stat = std::fs::read_to_string(task.join("schedstat"))?;
            let nanos = stat.split(' ').next().unwrap_or_default().parse()?;
            return Ok(Duration::from_nanos(nanos));
        }
    }
    Err("the engine has no thread".into())
}

fn memory() -> Result<String, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap_or_default();
    Ok(line.trim_start_matches("VmRSS:").trim().to_string())
}
