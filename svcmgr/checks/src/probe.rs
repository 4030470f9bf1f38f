//! One test of one server: bounded in time by its timeout, in memory by the limits of each kind.

mod dns;
mod file;
mod http;
mod icmp;
mod ping;
mod script;
mod smtp;
pub(crate) mod socket;
mod tcp;
mod tls;
mod udp;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use libilb::health::{Code, Layer};
use libilb::healthcheck::{HealthCheck, Kind, Test};
use libilb::rule::{Protocol, Topology};
use tokio::time::Instant;

use crate::outcome::{Failure, Outcome, Success, Verdict};
use crate::random::Random;
use crate::target::{Target, Via};
use crate::wire;

use self::socket::Way;

pub use crate::wire::Wire;
pub use ping::Pinger;
pub use tls::Trust;

/// A timer that fires so much later than it should says nothing about the server.
const LATE: Duration = Duration::from_millis(200);

/// What tests share.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// Sends and receives echoes.
    pub pinger: Pinger,
    /// Certificates that are trusted.
    pub trust: Trust,
    /// The way to servers that hold the VIP themselves.
    pub wire: Wire,
}

/// A health check that is ready for use: patterns are compiled once.
#[derive(Debug)]
pub struct Plan {
    /// The check.
    pub check: Arc<HealthCheck>,
    patterns: Vec<Option<regex::bytes::Regex>>,
}

impl Plan {
    /// Makes a check ready.
    pub fn new(check: Arc<HealthCheck>) -> Plan {
        let patterns = match &check.test {
            Test::Http(http) | Test::Https(http, _) => http
                .urls
                .iter()
                // A pattern that was read compiles.
                .map(|url| url.regex.as_ref().and_then(|regex| regex.compile().ok()))
                .collect(),
            _ => Vec::new(),
        };
        Plan { check, patterns }
    }
}

/// What a script is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances {
    pub vip: std::net::IpAddr,
    pub protocol: Protocol,
    pub topology: Topology,
}

/// Tests a target at `place`: a ping first if the check wants one, then the test itself. The ping before a test is for the
/// server's own address whatever the way of the test is: it tells a server that is there from one that is not.
pub async fn probe(target: &Target, plan: &Plan, place: SocketAddr, tools: &Tools) -> Outcome {
    let check = &*plan.check;
    let timeout = check.timing.timeout.duration();
    if check.ping {
        let ping = tools.pinger.ping(place.ip(), check.source);
        let mut outcome = timed(Kind::Ping, timeout, Layer::L3, ping).await;
        match outcome.verdict {
            // If this machine cannot ping, the test itself may still say something.
            Verdict::Good | Verdict::Unknown => {}
            Verdict::Dead | Verdict::Unreachable => {
                outcome.verdict = Verdict::Unreachable;
                return outcome;
            }
        }
    }
    match (&check.test, target.via) {
        // What they ask is not up to us.
        (Test::Script(_) | Test::File(_), _) | (_, None) => {
            test(target, plan, place, &Way::Routes(check.source), tools).await
        }
        (_, Some(via)) => {
            let began = Instant::now();
            match through(target, via, place, check.source, tools, timeout).await {
                Ok(path) => {
                    let place = SocketAddr::new(target.vip, place.port());
                    // A server on this very machine has the VIP as this machine has it.
                    let way = path.map_or(Way::Routes(check.source), Way::Wire);
                    test(target, plan, place, &way, tools).await
                }
                Err(failure) => Outcome::new(check.test.kind(), began.elapsed(), Err(failure)),
            }
        }
    }
}

/// Tests a target once, as nobody's schedule says.
pub async fn once(target: &Target, plan: &Plan, tools: &Tools) -> Outcome {
    let place = target.place(&mut Random::new(u64::from(crate::dns::random_id())));
    probe(target, plan, place, tools).await
}

/// The way to the VIP by way of a server; none if the server is this machine.
async fn through(
    target: &Target,
    via: Via,
    place: SocketAddr,
    source: Option<IpAddr>,
    tools: &Tools,
    timeout: Duration,
) -> Result<Option<wire::Path>, Failure> {
    let path = tools
        .wire
        .path(via, place.ip(), target.vip, source, timeout);
    match tokio::time::timeout(timeout, path).await {
        Ok(path) => path,
        Err(_) => Err(Failure::new(
            Layer::Local,
            Code::NotAsked,
            "the kernel did not say in time where the server is",
        )),
    }
}

/// The test itself.
async fn test(
    target: &Target,
    plan: &Plan,
    place: SocketAddr,
    way: &Way,
    tools: &Tools,
) -> Outcome {
    let check = &*plan.check;
    let timeout = check.timing.timeout.duration();
    match &check.test {
        Test::Ping => match way {
            Way::Routes(source) => {
                let ping = tools.pinger.ping(place.ip(), *source);
                timed(Kind::Ping, timeout, Layer::L3, ping).await
            }
            Way::Wire(path) => {
                let echo = async {
                    let answer = wire::echo(path, place.ip()).await;
                    answer.map_err(|error| Failure::of_socket(Layer::L3, &error))?;
                    Ok(Success::at(Layer::L3))
                };
                timed(Kind::Ping, timeout, Layer::L3, echo).await
            }
        },
        Test::Tcp => timed(Kind::Tcp, timeout, Layer::L4, tcp::probe(place, way)).await,
        Test::Udp(udp) => {
            let began = Instant::now();
            let result = udp::probe(place, way, udp, timeout).await;
            Outcome::new(Kind::Udp, began.elapsed(), result)
        }
        Test::Http(http) => {
            let fetch = http::probe(place, way, http, None, &plan.patterns);
            timed(Kind::Http, timeout, Layer::L7, fetch).await
        }
        Test::Https(http, tls) => {
            let fetch = async {
                let config = tools.trust.config(tls).await?;
                http::probe(place, way, http, Some((tls, config)), &plan.patterns).await
            };
            timed(Kind::Https, timeout, Layer::L7, fetch).await
        }
        Test::Dns(dns) => timed(Kind::Dns, timeout, Layer::L7, dns::probe(place, way, dns)).await,
        Test::Smtp(smtp) => {
            timed(
                Kind::Smtp,
                timeout,
                Layer::L7,
                smtp::probe(place, way, smtp),
            )
            .await
        }
        Test::Script(script) => {
            let circumstances = Circumstances {
                vip: target.vip,
                protocol: target.protocol,
                topology: target.topology,
            };
            let run = script::probe(place, script, circumstances, timeout);
            timed(Kind::Script, timeout, Layer::Local, run).await
        }
        Test::File(file) => timed(Kind::File, timeout, Layer::Local, file::probe(file)).await,
    }
}

/// Carries out a test within its time.
async fn timed(
    kind: Kind,
    timeout: Duration,
    layer: Layer,
    test: impl Future<Output = Result<Success, Failure>>,
) -> Outcome {
    let began = Instant::now();
    let result = match tokio::time::timeout(timeout, test).await {
        Ok(result) => result,
        Err(_) => Err(silence(layer, began, timeout)),
    };
    Outcome::new(kind, began.elapsed(), result)
}

/// No answer in time, unless the time was ours.
fn silence(layer: Layer, began: Instant, timeout: Duration) -> Failure {
    if began.elapsed() > timeout + LATE {
        let words = "this machine was too busy to listen in time";
        return Failure::new(Layer::Local, Code::NotAsked, words);
    }
    Failure::new(layer, Code::Timeout, "no answer in time")
}
