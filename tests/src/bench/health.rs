//! How long it takes from the moment in which a health check has made up its mind until packets go elsewhere: the real manager
//! and fast path in the lab, with datagrams that are each a choice of their own.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libilb::client::Client;
use libilb::health::HealthState;
use libilb::healthfilter::HealthFilter;

use super::{Report, median};
use crate::lab::namespace::Namespace;
use crate::lab::{Lab, Spec};
use crate::load;
use crate::{Family, shell};

/// How often the server goes down and comes back.
const ROUNDS: usize = 21;
/// Between two datagrams: what a figure may be wrong by, twice, as there are two servers.
const PACE: Duration = Duration::from_micros(250);
/// Port of the datagrams.
const PORT: u16 = 7;
/// Port that the health check asks.
const CHECKED: u16 = 7007;
/// Microseconds without a datagram after which a server was without.
const PAUSE: u64 = 100_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures and reports.
pub fn run(report: &mut Report) {
    println!("\nFrom a health check's verdict to packets that go elsewhere:");
    let lab = Lab::with_ilb(Spec {
        servers: 2,
        ..Spec::default()
    });
    let vip = lab.vip(Family::V4, 0);
    lab.dsr_address(vip);
    lab.node.lbadm(&format!(
        "create-servergroup -s server={} group",
        lab.server_specs(Family::V4, "")
    ));
    lab.node.lbadm(
        "create-healthcheck -n -h hc-test=tcp,hc-timeout=1,hc-count=2,hc-interval=0.1,hc-retry-delay=0.1 check",
    );
    lab.node.lbadm(&format!(
        "create-rule -e -i vip={vip},port={PORT},protocol=udp -m lbalg=rr,type=DSR,one-packet=yes \
         -h hc-name=check,hc-port={CHECKED} -o servergroup=group rule"
    ));
    let sinks = [1, 2].map(|n: u8| Sink::start(lab.at(&format!("s{n}")), (vip, PORT).into()));
    let _source = Source::start(lab.at("c1"), (vip, PORT).into());
    // Under DSR the VIP is asked, by way of each server.
    let checked = (vip, CHECKED).into();
    let _other = Listener::start(lab.at("s1"), checked);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("an async runtime");
    let (mut down, mut up) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let address = lab.node.bus().try_into().expect("the bus has an address");
        let client = Client::connect_to(address)
            .await
            .expect("the manager is there");
        for round in 0..=ROUNDS {
            let listener = Listener::start(lab.at("s2"), checked);
            let since = verdict(&client, HealthState::Alive).await;
            // It has packets again.
            let again = || Some(sinks[1].began()).filter(|began| began + 1000 >= since);
            let first = shell::wait_for(PATIENCE, again);
            let first = first.expect("a server that is well has packets");
            drop(listener);
            let since = verdict(&client, HealthState::Dead).await;
            // What is still under way arrives.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let last = sinks[1].last();
            // In the first round it was never down.
            if round > 0 {
                up.push(first.saturating_sub(since) as f64 / 1e3);
                down.push(last.saturating_sub(since) as f64 / 1e3);
            }
        }
    });
    let worst = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
    for (name, times, meaning) in [
        (
            "health_down_ms",
            down,
            "a dead server's last packet after the verdict, median",
        ),
        (
            "health_up_ms",
            up,
            "the first packet of one that is back, median",
        ),
    ] {
        report.add(&format!("{name}_worst"), worst(&times), "ms", "the slowest");
        report.add(name, median(times), "ms", meaning);
    }
}

/// Waits until the second server is in this state, and returns since when, in microseconds since 1970.
async fn verdict(client: &Client, state: HealthState) -> u64 {
    let deadline = SystemTime::now() + PATIENCE;
    loop {
        let filter = HealthFilter::default();
        let report = client.health_results(&filter).await;
        let report = report.expect("the manager says what it knows");
        let server = report.servers.iter().find(|one| one.server == "_group.1");
        if let Some(server) = server
            && server.state == state
            && let Some(last) = server.transitions.last()
        {
            return last.time * 1000;
        }
        assert!(
            SystemTime::now() < deadline,
            "the server is {state} in time"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// A thread that ends when this is dropped.
struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Running {
            stop,
            thread: Some(std::thread::spawn(move || work(&stopped))),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Takes datagrams and remembers when.
struct Sink {
    last: Arc<AtomicU64>,
    began: Arc<AtomicU64>,
    _running: Running,
}

impl Sink {
    #[track_caller]
    fn start(namespace: &Namespace, address: SocketAddr) -> Sink {
        let socket = namespace
            .enter(|| UdpSocket::bind(address))
            .expect("a server has the VIP");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a positive timeout");
        let [last, began] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let (seen, first) = (Arc::clone(&last), Arc::clone(&began));
        let running = Running::start(move |stop| {
            let mut buffer = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                if socket.recv(&mut buffer).is_ok() {
                    let now = now();
                    if now - seen.swap(now, Ordering::Relaxed) > PAUSE {
                        first.store(now, Ordering::Relaxed);
                    }
                }
            }
        });
        Sink {
            last,
            began,
            _running: running,
        }
    }

    /// When the last one came, in microseconds since 1970.
    fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// When the first one came after a pause.
    fn began(&self) -> u64 {
        self.began.load(Ordering::Relaxed)
    }
}

/// Sends datagrams at a steady pace.
struct Source;

impl Source {
    fn start(from: &Arc<Namespace>, target: SocketAddr) -> Running {
        let from = Arc::clone(from);
        Running::start(move |stop| {
            from.join_here();
            let socket = UdpSocket::bind((load::unspecified(target.ip()), 0)).expect("a socket");
            while !stop.load(Ordering::Relaxed) {
                // Nobody answers, and somebody may refuse.
                socket.send_to(b"x", target).ok();
                std::thread::sleep(PACE);
            }
        })
    }
}

/// What the health check finds open.
struct Listener;

impl Listener {
    #[track_caller]
    fn start(namespace: &Namespace, address: SocketAddr) -> Running {
        let listener = namespace
            .enter(|| TcpListener::bind(address))
            .expect("the port is free");
        listener.set_nonblocking(true).expect("a socket of ours");
        Running::start(move |stop| {
            while !stop.load(Ordering::Relaxed) {
                drop(listener.accept());
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    }
}
