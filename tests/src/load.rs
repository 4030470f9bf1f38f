//! Small HTTP requests, each over a connection of its own, counted by who answered.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::namespace::Namespace;

/// How long a connection attempt or an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Opens a TCP connection from `source` (or whatever the kernel picks).
pub fn connect(target: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(target),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&target.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// A plan for requests.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to.
    pub target: SocketAddr,
    /// How many in all.
    pub requests: usize,
    /// How many at a time.
    pub parallel: usize,
    /// Source addresses, used in turn; empty lets the kernel choose.
    pub sources: Vec<IpAddr>,
    /// Path to ask for; the answer's body (one line) is what is counted.
    pub path: &'static str,
}

impl Load {
    /// `requests` requests for `/`, eight at a time.
    pub fn new(target: SocketAddr, requests: usize) -> Load {
        Load {
            target,
            requests,
            parallel: 8,
            sources: Vec::new(),
            path: "/",
        }
    }

    /// The same, one at a time.
    pub fn sequential(self) -> Load {
        Load {
            parallel: 1,
            ..self
        }
    }

    /// The same from these addresses in turn.
    pub fn from(self, sources: Vec<IpAddr>) -> Load {
        Load { sources, ..self }
    }

    /// The same for another path.
    pub fn path(self, path: &'static str) -> Load {
        Load { path, ..self }
    }

    /// Does it all and counts.
    #[track_caller]
    pub fn run(&self, from: &Namespace) -> Tally {
        let next = AtomicUsize::new(0);
        let tally = Mutex::new(Tally::default());
        std::thread::scope(|scope| {
            for _ in 0..self.parallel {
                scope.spawn(|| {
                    from.join_here();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.requests {
                            break;
                        }
                        self.one(number, &tally);
                    }
                });
            }
        });
        tally.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on in the background, ignoring `requests`, until [`Running::stop`].
    pub fn start(self, from: &Arc<Namespace>) -> Running {
        let shared = Arc::new(Shared::default());
        let load = Arc::new(self);
        let threads = (0..load.parallel)
            .map(|_| {
                let (shared, load, from) =
                    (Arc::clone(&shared), Arc::clone(&load), Arc::clone(from));
                std::thread::spawn(move || {
                    from.join_here();
                    while !shared.stop.load(Ordering::Relaxed) {
                        let number = shared.next.fetch_add(1, Ordering::Relaxed);
                        load.one(number, &shared.tally);
                    }
                })
            })
            .collect();
        Running { shared, threads }
    }

    fn one(&self, number: usize, tally: &Mutex<Tally>) {
        let source = (!self.sources.is_empty()).then(|| self.sources[number % self.sources.len()]);
        let begun = Instant::now();
        let outcome = get(self.target, source, self.path);
        let took = begun.elapsed();
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.slowest = tally.slowest.max(took);
        match outcome {
            Ok(body) => tally.count(source, body),
            Err(error) => tally
                .failures
                .push(format!("request {number} after {took:?}: {error}")),
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    next: AtomicUsize,
    tally: Mutex<Tally>,
}

/// A load that goes on.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// What was counted since the last call.
    pub fn take(&self) -> Tally {
        std::mem::take(
            &mut *self
                .shared
                .tally
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Ends it and returns what was counted since the last [`Running::take`].
    #[track_caller]
    pub fn stop(mut self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a load thread panicked");
        }
        self.take()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// Who answered how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers by their text.
    pub answers: BTreeMap<String, usize>,
    /// The same by source address, where one was given.
    pub by_source: BTreeMap<IpAddr, BTreeMap<String, usize>>,
    /// What went wrong.
    pub failures: Vec<String>,
    /// The slowest request.
    pub slowest: Duration,
}

impl Tally {
    fn count(&mut self, source: Option<IpAddr>, body: String) {
        if let Some(source) = source {
            *self
                .by_source
                .entry(source)
                .or_default()
                .entry(body.clone())
                .or_default() += 1;
        }
        *self.answers.entry(body).or_default() += 1;
    }

    /// Answers of one text.
    pub fn of(&self, answer: &str) -> usize {
        self.answers.get(answer).copied().unwrap_or(0)
    }

    /// All answers.
    pub fn total(&self) -> usize {
        self.answers.values().sum()
    }

    /// Panics if one failed.
    #[track_caller]
    pub fn none_failed(&self, given_when: &str) -> &Tally {
        assert!(
            self.failures.is_empty(),
            "{given_when}, then none fails; {} of {} failed, the first: {}",
            self.failures.len(),
            self.failures.len() + self.total(),
            self.failures[..self.failures.len().min(5)].join("; ")
        );
        self
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self
            .answers
            .iter()
            .map(|(who, n)| format!("{who} {n}"))
            .collect();
        write!(f, "{}", counts.join(", "))?;
        if !self.failures.is_empty() {
            write!(f, ", {} failed", self.failures.len())?;
        }
        write!(f, " (slowest {:.1} ms)", self.slowest.as_secs_f64() * 1e3)
    }
}

/// One GET over a connection of its own; the body without its line end.
pub fn get(target: SocketAddr, source: Option<IpAddr>, path: &str) -> Result<String, String> {
    let mut stream = connect(target, source).map_err(|error| format!("connect: {error}"))?;
    request(&mut stream, path, true).map_err(|error| format!("send: {error}"))?;
    let mut text = Vec::new();
    stream
        .read_to_end(&mut text)
        .map_err(|error| format!("receive: {error}"))?;
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("an answer without an end of its head: {text:?}"))?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!(
            "status {:?}",
            head.lines().next().unwrap_or_default()
        ));
    }
    Ok(body.trim_end().to_owned())
}

/// Sends a GET for `path`.
pub fn request(stream: &mut TcpStream, path: &str, close: bool) -> io::Result<()> {
    let connection = if close { "close" } else { "keep-alive" };
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: lab\r\nUser-Agent: ilb-tests\r\nConnection: {connection}\r\n\r\n")
            .as_bytes(),
    )
}

/// The unspecified address of the family of `address`.
pub fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
