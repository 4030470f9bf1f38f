//! A web server whose requests cost processor time, on a small processor of its own, with a real SNMP agent beside it that says
//! how busy that is.
//!
//! All namespaces of a lab share this machine's processors, and its `/proc/stat`. So a strained server is given a part of a processor
//! ([`PROCESSOR`]): what its processes and its burden have used of it is read from the kernel's accounts of them, as a container's view
//! of `/proc/stat` is made.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};

use crate::lab::Lab;
use crate::lab::namespace::Namespace;
use crate::lab::process::Daemon;
use crate::load;
use crate::shell;

/// Where it speaks HTTP.
pub const PORT: u16 = 8070;
/// What it has of one of this machine's processors.
pub const PROCESSOR: f64 = 0.25;
/// Where its agent says how busy it is, in percent.
pub const OBJECT: &str = "1.3.6.1.4.1.8072.9999.9999.7.0";
/// The agent's community.
pub const COMMUNITY: &str = "lab";

/// How often the accounts are read.
const TICK: Duration = Duration::from_millis(100);
/// Over how many of these the load is said.
const WINDOW: usize = 5;
/// Ticks a second in `/proc/stat`.
const HERTZ: f64 = 100.0;
/// Text that takes about two milliseconds to compress.
const PAGE_BYTES: usize = 16 * 1024;

/// One server. It ends when dropped.
#[derive(Debug)]
pub struct Strained {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    _daemons: [Daemon; 2],
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// Thousandths of its processor that the burden takes.
    burden: AtomicU32,
    /// Nanoseconds that the burden has run.
    burnt: AtomicU64,
    /// Load of the last [`WINDOW`], 0 to 1.
    load: Mutex<f64>,
}

impl Strained {
    /// Starts it in the server `role`, and waits until it answers.
    #[track_caller]
    pub fn start(lab: &Lab, role: &str) -> Strained {
        let folder = lab.directory().join(format!("strained-{role}"));
        fs::create_dir(&folder).expect("cannot write into the lab's directory");
        let files = Files::write(&folder, role);
        let namespace = lab.at(role);
        let mut nginx = namespace.command("nginx");
        nginx.arg("-e").arg(folder.join("error.log"));
        nginx.arg("-c").arg(&files.nginx);
        let log = |name: &str| lab.directory().join(format!("{name}-{role}.log"));
        let nginx = Daemon::spawn(&format!("strained {role}"), nginx, &log("strained"));
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            burden: AtomicU32::new(0),
            burnt: AtomicU64::new(0),
            load: Mutex::new(0.0),
        });
        let mut meter = Meter::new(nginx.pid(), Arc::clone(&shared), files.clone());
        meter.write(0.0);
        let mut snmpd = namespace.command("sh");
        snmpd.arg("-c").arg(format!(
            // `ip netns exec` gave it mounts of its own.
            "mount --bind {} /proc/stat && exec snmpd -f -Ln -C -c {}",
            files.stat.display(),
            files.snmpd.display()
        ));
        snmpd.env("SNMP_PERSISTENT_DIR", &folder);
        let snmpd = Daemon::spawn(&format!("snmpd {role}"), snmpd, &log("snmpd"));
        let burner = Arc::clone(&shared);
        let threads = vec![
            std::thread::spawn(move || meter.run()),
            std::thread::spawn(move || burn(&burner)),
        ];
        let strained = Strained {
            shared,
            threads,
            _daemons: [nginx, snmpd],
        };
        let answers = shell::wait_for(Duration::from_secs(15), || {
            namespace.enter(|| ask((std::net::Ipv4Addr::LOCALHOST, PORT).into()).ok())
        });
        assert!(answers.is_some(), "the strained server in {role} answers");
        strained
    }

    /// From now on this part of its processor is busy with something else.
    pub fn burden(&self, part: f64) {
        let thousandths = (part * 1000.0) as u32;
        self.shared.burden.store(thousandths, Ordering::Relaxed);
    }

    /// How busy its processor was in the last half second, 0 to 1.
    pub fn load(&self) -> f64 {
        *self
            .shared
            .load
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Strained {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// One request over a connection of its own, whose answer is compressed for it. Returns who answered.
///
/// # Errors
/// What went wrong, in words.
pub fn ask(target: SocketAddr) -> Result<String, String> {
    let mut stream = load::connect(target, None).map_err(|error| format!("connect: {error}"))?;
    stream
        .write_all(b"GET /page HTTP/1.1\r\nHost: lab\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
        .map_err(|error| format!("send: {error}"))?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .map_err(|error| format!("receive: {error}"))?;
    let text = String::from_utf8_lossy(&answer);
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    if !head.starts_with("HTTP/1.1 200 ") || !head.contains("Content-Encoding: gzip") {
        return Err(format!("an answer that was not asked for: {head:?}"));
    }
    let server = head
        .lines()
        .find_map(|line| line.strip_prefix("X-Server: "));
    Ok(server.ok_or("an answer of nobody")?.to_owned())
}

/// The files of a server.
#[derive(Debug, Clone)]
struct Files {
    nginx: PathBuf,
    snmpd: PathBuf,
    /// Its view of `/proc/stat`.
    stat: PathBuf,
    /// Its load in percent.
    percent: PathBuf,
}

impl Files {
    #[track_caller]
    fn write(folder: &Path, role: &str) -> Files {
        let files = Files {
            nginx: folder.join("nginx.conf"),
            snmpd: folder.join("snmpd.conf"),
            stat: folder.join("stat"),
            percent: folder.join("percent"),
        };
        let root = folder.display();
        let put = |path: &Path, text: &str| fs::write(path, text).expect("the lab's directory");
        put(
            &files.nginx,
            &format!(
                "daemon off;\nuser root;\nworker_processes 1;\npid {root}/pid;\nerror_log {root}/error.log warn;\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{\n  access_log off;\n  default_type text/plain;\n  keepalive_timeout 600s;\n\
                 client_body_temp_path {root};\n  proxy_temp_path {root};\n  fastcgi_temp_path {root};\n\
                 uwsgi_temp_path {root};\n  scgi_temp_path {root};\n\
                 gzip on;\n  gzip_comp_level 9;\n  gzip_types text/plain;\n\
                 server {{\n    listen {PORT};\n    listen [::]:{PORT} ipv6only=on;\n    root {root};\n\
                 add_header X-Server {role};\n\
                 location = / {{ return 200 \"{role}\\n\"; }}\n  }}\n}}\n"
            ),
        );
        // Words that are neither all different nor all the same: hexadecimal digests.
        let mut page = String::new();
        let mut seed = Sha256::digest(role);
        while page.len() < PAGE_BYTES {
            seed = Sha256::digest(seed);
            for byte in seed {
                page.push_str(["the ", "load ", "of ", "a ", "server "][usize::from(byte % 5)]);
                page.push(char::from(b'a' + byte / 10));
            }
        }
        put(&folder.join("page"), &page);
        let script = folder.join("say");
        put(
            &script,
            // The protocol of pass_persist. (Answers of `pass` are kept for half a minute.)
            &format!(
                "while read -r word; do\n  case $word in\n  PING) echo PONG;;\n  get) read -r _; echo .{OBJECT}; echo integer; cat {root}/percent;;\n\
                 getnext) read -r _; echo NONE;;\n  *) exit;;\n  esac\ndone\n"
            ),
        );
        put(
            &files.snmpd,
            &format!(
                "agentaddress udp:161,udp6:161\nrocommunity {COMMUNITY}\nrocommunity6 {COMMUNITY}\n\
                 pass_persist .{OBJECT} /bin/sh {}\n",
                script.display()
            ),
        );
        files
    }
}

/// Reads the accounts and writes what the agent says.
struct Meter {
    group: u32,
    shared: Arc<Shared>,
    files: Files,
    begun: Instant,
    /// When, and seconds used until then.
    past: VecDeque<(Instant, f64)>,
}

impl Meter {
    fn new(group: u32, shared: Arc<Shared>, files: Files) -> Meter {
        Meter {
            group,
            shared,
            files,
            begun: Instant::now(),
            past: VecDeque::new(),
        }
    }

    fn run(mut self) {
        let first = self.used();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let used = self.used() - first;
            self.write(used);
            std::thread::sleep(TICK);
        }
    }

    /// Seconds of processor time that its processes and its burden have used.
    fn used(&self) -> f64 {
        let burnt = self.shared.burnt.load(Ordering::Relaxed);
        (burnt + group_nanos(self.group)) as f64 / 1e9
    }

    fn write(&mut self, used: f64) {
        let now = Instant::now();
        self.past.push_back((now, used));
        if self.past.len() > WINDOW + 1 {
            self.past.pop_front();
        }
        let (then, before) = self.past[0];
        let had = (now - then).as_secs_f64() * PROCESSOR;
        let load = match had > 0.0 {
            true => ((used - before) / had).clamp(0.0, 1.0),
            false => 0.0,
        };
        *self
            .shared
            .load
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = load;
        replace(&self.files.percent, &format!("{:.0}\n", load * 100.0));
        // In place, or the agent would go on seeing what was mounted; always of one length, so that nothing remains.
        let all = self.begun.elapsed().as_secs_f64() * PROCESSOR * HERTZ;
        let busy = (used * HERTZ).min(all);
        let line = format!("{:>12.0} 0 0 {:>12.0} 0 0 0 0 0 0", busy, all - busy);
        let stat = format!(
            "cpu  {line}\ncpu0 {line}\nintr 0\nctxt 0\nbtime 0\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n"
        );
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.files.stat);
        file.and_then(|mut file| file.write_all(stat.as_bytes()))
            .expect("the lab's directory");
    }
}

/// A file that is replaced is never half there.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("the lab's directory");
    fs::rename(&new, path).expect("the lab's directory");
}

/// Nanoseconds that the processes of a group have run. Those that ended are forgotten; nginx has none that end.
fn group_nanos(group: u32) -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_group = processes.filter(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name in brackets: state, parent, group.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        rest.split_whitespace().nth(2) == Some(&group.to_string())
    });
    of_group.map(|entry| nanos(&entry.path())).sum()
}

/// Nanoseconds that a thread has run, by its folder in `/proc`.
fn nanos(folder: &Path) -> u64 {
    let text = fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().unwrap_or(0)
}

/// Nanoseconds that this thread has run. (Its `schedstat` is only as new as the last tick of the scheduler.)
fn own_nanos() -> u64 {
    let time =
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every kernel has this clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Uses its part of the processor, in slices of 20 ms.
fn burn(shared: &Shared) {
    const SLICE: Duration = Duration::from_millis(20);
    let mut digest = Sha256::digest(b"");
    while !shared.stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let part = f64::from(shared.burden.load(Ordering::Relaxed)) / 1000.0 * PROCESSOR;
        let (before, due) = (own_nanos(), SLICE.mul_f64(part).as_nanos() as u64);
        while part > 0.0 && own_nanos() - before < due {
            for _ in 0..200 {
                digest = Sha256::digest(digest);
            }
        }
        shared.burnt.store(own_nanos(), Ordering::Relaxed);
        std::hint::black_box(&digest);
        std::thread::sleep(SLICE.saturating_sub(begun.elapsed()));
    }
}

/// When something was asked, and who answered, or what went wrong.
pub type Asked = (Instant, Result<String, String>);

/// Asks at a steady rate, each time over a new connection, until stopped.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Asked>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// `rate` requests a second, begun by four threads in turn.
    pub fn start(from: &Arc<Namespace>, target: SocketAddr, rate: u32) -> Stream {
        const THREADS: u32 = 4;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let threads = (0..THREADS)
            .map(|number| {
                let (from, stop, seen) = (Arc::clone(from), Arc::clone(&stop), Arc::clone(&seen));
                let pace = Duration::from_secs(1) * THREADS / rate;
                std::thread::spawn(move || {
                    from.join_here();
                    std::thread::sleep(pace * number / THREADS);
                    while !stop.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        let who = ask(target);
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.push((begun, who));
                        drop(seen);
                        std::thread::sleep(pace.saturating_sub(begun.elapsed()));
                    }
                })
            })
            .collect();
        Stream {
            stop,
            seen,
            threads,
        }
    }

    /// Ends it; who answered what was asked when.
    pub fn stop(mut self) -> Vec<Asked> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread that asks panicked");
        }
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}
