//! Asks: a task for each group, that waits for its time, asks name servers or tests the addresses of a subnet, and tells what
//! it has heard.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ilb_checks::dns::resolver::{self, SYSTEM, Unknown};
use ilb_checks::probe::{self, Plan, Tools};
use ilb_checks::{Id, Ports, Target, Verdict};
use libilb::address::Family;
use libilb::healthcheck::{HealthCheck, HealthCheckSettings, RecordType, Test};
use libilb::model::{PortRange, Protocol, Topology};
use libilb::source::{Found, Origin};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use super::follow::Heard;
use super::{Asked, Families, News, Order, Question, Sources};

/// Names that are asked for at a time: a start with many groups is no storm.
const AT_A_TIME: usize = 16;
/// How long an address has to answer, where no rule has a health check that says so.
const PATIENCE: &str = "2";

/// The manager's end, the other one being served by a task. Needs a running tokio runtime.
pub fn start() -> Sources {
    let (sources, asked) = Sources::pair();
    tokio::spawn(serve(asked));
    sources
}

/// Ends when the manager does.
async fn serve(asked: Asked) {
    let Asked { mut orders, news } = asked;
    let mut tasks: HashMap<String, AbortHandle> = HashMap::new();
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    let tools = Tools::default();
    while let Some(order) = orders.recv().await {
        let old = match &order {
            Order::Ask { group, .. } | Order::Forget(group) => tasks.remove(group),
        };
        if let Some(old) = old {
            old.abort();
        }
        if let Order::Ask {
            group,
            serial,
            question,
            after,
        } = order
        {
            let name = group.clone();
            let (news, turns, tools) = (news.clone(), turns.clone(), tools.clone());
            let task = tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let teller = Teller {
                    group,
                    serial,
                    news,
                };
                let heard = match &question.source.origin {
                    Origin::Dns(name) => {
                        let _turn = turns.acquire().await;
                        follow(&question, name).await
                    }
                    Origin::Subnet(_) => search(&question, &tools, &teller).await,
                };
                teller.tell(heard).await;
            });
            tasks.insert(name, task.abort_handle());
        }
    }
    for task in tasks.into_values() {
        task.abort();
    }
}

/// Tells the manager.
struct Teller {
    group: String,
    serial: u64,
    news: mpsc::Sender<News>,
}

impl Teller {
    async fn tell(&self, heard: Heard) {
        let news = News {
            group: self.group.clone(),
            serial: self.serial,
            heard,
        };
        // At the end of the program there may be nobody any more.
        drop(self.news.send(news).await);
    }
}

/// Asks name servers.
async fn follow(question: &Question, name: &str) -> Heard {
    let mut servers = question.source.resolver.clone();
    if servers.is_empty() {
        let read = || resolver::system_servers(Path::new(SYSTEM));
        servers = tokio::task::spawn_blocking(read).await.unwrap_or_default();
    }
    let result = match (question.families, question.source.family) {
        (_, Some(family)) | (Families::One(family), None) => {
            answer(&servers, name, &[record_type(family)]).await
        }
        (Families::Both, None) => answer(&servers, name, &[RecordType::A, RecordType::Aaaa]).await,
        (Families::Either, None) => match answer(&servers, name, &[RecordType::A]).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let other = answer(&servers, name, &[RecordType::Aaaa]).await;
                other.map_err(|_| error)
            }
        },
    };
    match result {
        Ok((found, ttl)) => Heard::All(found, Some(Duration::from_secs(ttl.into()))),
        Err(error) => {
            // Whose name it is is said anyway.
            let words = error.to_string();
            let rest = words
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(": "));
            Heard::Failed(rest.unwrap_or(&words).to_owned())
        }
    }
}

const fn record_type(family: Family) -> RecordType {
    match family {
        Family::Ipv4 => RecordType::A,
        Family::Ipv6 => RecordType::Aaaa,
    }
}

/// The servers of a name, and for how many seconds that holds.
async fn answer(
    servers: &[SocketAddr],
    name: &str,
    types: &[RecordType],
) -> Result<(Vec<Found>, u32), Unknown> {
    if !name.starts_with('_') {
        let answer = resolver::addresses(servers, name, types).await?;
        let found = answer.addresses.into_iter().map(|address| Found {
            address,
            ports: None,
            weight: None,
            host_name: Some(name.to_owned()),
        });
        return Ok((found.collect(), answer.ttl));
    }
    let (hosts, ttl) = resolver::services(servers, name, types).await?;
    let found = hosts.into_iter().flat_map(|host| {
        let service = host.service;
        let name = service.target.trim_end_matches('.').to_owned();
        host.addresses.into_iter().map(move |address| Found {
            address,
            ports: Some(PortRange::single(service.port)),
            // Weight 0 is "hardly any", which would be none at all here.
            weight: Some(service.weight.max(1)),
            host_name: Some(name.clone()),
        })
    });
    Ok((found.collect(), ttl))
}

/// Tests the addresses of a subnet one after the other, and tells of each that answers at once.
async fn search(question: &Question, tools: &Tools, teller: &Teller) -> Heard {
    let ports = match (question.source.port, question.port) {
        (Some(ports), _) => Ports {
            first: ports.first,
            last: ports.last,
        },
        (None, Some(port)) => Ports {
            first: port,
            last: port,
        },
        (None, None) => Ports::default(),
    };
    let Some(check) = question.check.clone().or_else(|| usual_check(ports)) else {
        return Heard::Failed("there is no way to test addresses".to_owned());
    };
    let plan = Arc::new(Plan::new(check.clone()));
    let local = local_addresses();
    let mut probes = JoinSet::new();
    let mut found = Vec::new();
    let mut unknown = None;
    let pause = Duration::from_secs(1) / question.source.rate().max(1);
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut hosts = question.source.hosts().into_iter();
    let mut left = true;
    while left || !probes.is_empty() {
        tokio::select! {
            _ = ticks.tick(), if left => {
                let Some(address) = hosts.next() else {
                    left = false;
                    continue;
                };
                if question.ours.contains(&address) || local.contains(&address) {
                    continue;
                }
                // Others that would be refused anyway are none of our business.
                if question.source.permits(address, None).is_err() {
                    continue;
                }
                let target = target(check.clone(), address, ports, question.source.to_string());
                let (plan, tools) = (plan.clone(), tools.clone());
                probes.spawn(async move {
                    (address, probe::once(&target, &plan, &tools).await)
                });
            }
            Some(done) = probes.join_next() => {
                let Ok((address, outcome)) = done else { continue };
                match outcome.verdict {
                    Verdict::Good => {
                        let one = Found {
                            address,
                            ports: None,
                            weight: None,
                            host_name: None,
                        };
                        teller.tell(Heard::Some(vec![one.clone()])).await;
                        found.push(one);
                    }
                    Verdict::Unknown => unknown = Some(outcome.finding.to_string()),
                    Verdict::Dead | Verdict::Unreachable => {}
                }
            }
        }
    }
    match (unknown, found.is_empty()) {
        // Who is gone is not known.
        (Some(why), _) => Heard::Failed(why),
        // Most probably it is us who are cut off.
        (None, true) => Heard::Failed(format!("nobody in {} answers", question.source)),
        (None, false) => Heard::All(found, None),
    }
}

/// A connection to the port; without a port an echo.
fn usual_check(ports: Ports) -> Option<Arc<HealthCheck>> {
    let test = if ports.first > 0 { "tcp" } else { "ping" };
    let mut settings = HealthCheckSettings::default();
    let text = format!("test={test},ping=no,timeout={PATIENCE}");
    settings.parse(&text).ok()?;
    settings.check("source").ok().map(Arc::new)
}

/// Whether a rule's check says something about addresses that are not servers yet.
pub fn suits(check: &HealthCheck) -> bool {
    check.address.is_none() && !matches!(check.test, Test::File(_))
}

fn target(check: Arc<HealthCheck>, address: IpAddr, ports: Ports, name: String) -> Target {
    Target {
        id: Id { rule: 0, server: 0 },
        rule: name,
        server: address.to_string(),
        check,
        address,
        port: None,
        ports,
        vip: address,
        protocol: Protocol::Tcp,
        topology: Topology::HalfNat,
        enabled: true,
        via: None,
        remembered: None,
    }
}

/// This machine's own addresses. If they cannot be had, none: `except` can name them.
fn local_addresses() -> BTreeSet<IpAddr> {
    let all = match nix::ifaddrs::getifaddrs() {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!("cannot read the addresses of this machine: {error}");
            return BTreeSet::new();
        }
    };
    all.filter_map(|item| {
        let address = item.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    })
    .collect()
}
