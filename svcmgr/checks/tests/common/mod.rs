//! What the tests of health checks share: targets, and little servers that do as they are told.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ilb_checks::probe::{Plan, Tools, probe};
use ilb_checks::{Id, Outcome, Ports, Target};
use libilb::healthcheck::{HealthCheck, HealthCheckSettings};
use libilb::rule::{Protocol, Topology};

/// Longest time that a test waits for something that has to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn check(text: &str) -> Arc<HealthCheck> {
    let mut settings = HealthCheckSettings::default();
    settings.parse(text).unwrap();
    Arc::new(settings.check("c").unwrap())
}

pub fn target(server: u32, text: &str, place: SocketAddr) -> Target {
    Target {
        id: Id { rule: 1, server },
        rule: "web".to_string(),
        server: format!("_g.{server}"),
        check: check(text),
        address: place.ip(),
        port: None,
        ports: Ports {
            first: place.port(),
            last: place.port(),
        },
        vip: "192.0.2.1".parse().unwrap(),
        protocol: Protocol::Tcp,
        topology: Topology::HalfNat,
        enabled: true,
        via: None,
        remembered: None,
    }
}

/// One test.
pub fn ask(text: &str, place: SocketAddr) -> Outcome {
    ask_with(text, place, &Tools::default())
}

/// One test with these tools.
pub fn ask_with(text: &str, place: SocketAddr, tools: &Tools) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let target = target(1, text, place);
    let plan = Plan::new(target.check.clone());
    runtime.block_on(probe(&target, &plan, place, tools))
}

/// What a person reads about it, without the time that it took.
pub fn words(outcome: &Outcome) -> String {
    let finding = &outcome.finding;
    let number = finding.number.map(|n| format!(" {n}")).unwrap_or_default();
    let verdict = format!("{:?}", outcome.verdict).to_lowercase();
    let text = format!(
        "{verdict} {}/{}{number}: {}",
        finding.layer, finding.code, finding.words
    );
    text.trim_end_matches(": ").to_string()
}

/// A TCP server that does this with each connection, on loopback.
pub fn serve(address: &str, each: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((address.parse::<IpAddr>().unwrap(), 0)).unwrap();
    let place = listener.local_addr().unwrap();
    let each = Arc::new(each);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = each.clone();
            std::thread::spawn(move || each(stream));
        }
    });
    place
}

/// A server that reads a request and gives this answer.
pub fn answering(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    serve("127.0.0.1", move |mut stream| {
        request(&mut stream);
        let _ = stream.write_all(&answer);
    })
}

/// Reads up to the empty line.
pub fn request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut octet = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut octet).unwrap_or(0) > 0 {
        text.push(octet[0]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A port where nobody listens.
pub fn nobody(address: &str) -> SocketAddr {
    let listener = TcpListener::bind((address.parse::<IpAddr>().unwrap(), 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Waits until something is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
