//! Big downloads and uploads whose bytes are compared by SHA-256.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::lab::namespace::Namespace;
use crate::load;

/// What a download reads at a time.
const PIECE: usize = 64 * 1024;
/// What one that takes its time reads at a time, and how long it rests after that.
const BITE: (usize, Duration) = (8 * 1024, Duration::from_millis(200));
/// What it leaves until it may hurry, in bytes: its connection has something to bring until then.
const REST: u64 = 128 * 1024;

/// SHA-256 in hexadecimal of a file.
#[track_caller]
pub fn sha256_of(path: &Path) -> String {
    let mut file =
        File::open(path).unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    hexadecimal(hash)
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What one download brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// SHA-256 of the body, or what went wrong after how many bytes.
    pub result: Result<String, String>,
    /// How long it took.
    pub took: Duration,
}

/// Downloads that go on in the background.
#[derive(Debug)]
pub struct Downloads {
    threads: Vec<JoinHandle<Outcome>>,
    under_way: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
    hurry: Arc<AtomicBool>,
}

impl Downloads {
    /// Starts `count` downloads of `path` at once. Returns when all of them have received their first bytes or failed.
    #[track_caller]
    pub fn start(from: &Arc<Namespace>, target: SocketAddr, path: &str, count: usize) -> Downloads {
        Downloads::begin(from, target, path, count, true)
    }

    /// The same, but whoever receives them takes his time, and does not come to an end before [`Downloads::hurry`].
    #[track_caller]
    pub fn slowly(
        from: &Arc<Namespace>,
        target: SocketAddr,
        path: &str,
        count: usize,
    ) -> Downloads {
        Downloads::begin(from, target, path, count, false)
    }

    /// From now on everything is received as it comes.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    #[track_caller]
    fn begin(
        from: &Arc<Namespace>,
        target: SocketAddr,
        path: &str,
        count: usize,
        hurry: bool,
    ) -> Downloads {
        let hurry = Arc::new(AtomicBool::new(hurry));
        let under_way = Arc::new(AtomicUsize::new(count));
        let begun = Arc::new(AtomicUsize::new(0));
        let threads = (0..count)
            .map(|_| {
                let (from, path) = (Arc::clone(from), path.to_owned());
                let (under_way, begun) = (Arc::clone(&under_way), Arc::clone(&begun));
                let hurry = Arc::clone(&hurry);
                std::thread::spawn(move || {
                    from.join_here();
                    let start = Instant::now();
                    let mut told = false;
                    let progress = |left: u64| {
                        if !told {
                            begun.fetch_add(1, Ordering::Relaxed);
                            told = true;
                        }
                        while !hurry.load(Ordering::Relaxed) {
                            std::thread::sleep(BITE.1);
                            if left > REST {
                                break;
                            }
                        }
                    };
                    let result = match hurry.load(Ordering::Relaxed) {
                        true => download(target, &path, progress),
                        false => sip(target, &path, progress),
                    };
                    if !told {
                        begun.fetch_add(1, Ordering::Relaxed);
                    }
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    Outcome {
                        result,
                        took: start.elapsed(),
                    }
                })
            })
            .collect();
        let downloads = Downloads {
            threads,
            under_way,
            begun,
            hurry,
        };
        let all = crate::shell::wait_for(Duration::from_secs(30), || {
            (downloads.begun.load(Ordering::Relaxed) == count).then_some(())
        });
        assert!(
            all.is_some(),
            "given a balancer at rest, when {count} downloads of {path} start, then all begin within 30 s; {} did",
            downloads.begun.load(Ordering::Relaxed)
        );
        downloads
    }

    /// How many are not finished yet.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Waits for all.
    #[track_caller]
    pub fn join(self) -> Vec<Outcome> {
        self.threads
            .into_iter()
            .map(|thread| thread.join().expect("a download thread panicked"))
            .collect()
    }

    /// Waits for all, and none may be broken: each has the expected SHA-256.
    #[track_caller]
    pub fn none_broken(self, expected: &str, given_when: &str) -> Duration {
        let outcomes = self.join();
        let broken: Vec<String> = outcomes
            .iter()
            .filter_map(|outcome| match &outcome.result {
                Ok(hash) if hash == expected => None,
                Ok(hash) => Some(format!("SHA-256 {hash} after {:?}", outcome.took)),
                Err(error) => Some(format!("{error} after {:?}", outcome.took)),
            })
            .collect();
        assert!(
            broken.is_empty(),
            "{given_when}, then no download breaks; {} of {} did, the first: {}",
            broken.len(),
            outcomes.len(),
            broken[..broken.len().min(5)].join("; ")
        );
        outcomes
            .iter()
            .map(|outcome| outcome.took)
            .max()
            .unwrap_or_default()
    }
}

/// One download; returns the SHA-256 of the body. `progress` is called after each piece with the bytes that are missing.
pub fn download(
    target: SocketAddr,
    path: &str,
    progress: impl FnMut(u64),
) -> Result<String, String> {
    let stream = connect(target)?;
    fetch(stream, path, PIECE, progress)
}

/// The same in small pieces. No more is on its way, or in the kernel, than what is left at the end.
fn sip(target: SocketAddr, path: &str, progress: impl FnMut(u64)) -> Result<String, String> {
    let stream = connect(target)?;
    // The kernel doubles it.
    let small = socket2::SockRef::from(&stream).set_recv_buffer_size(PIECE / 2);
    small.map_err(|error| error.to_string())?;
    fetch(stream, path, BITE.0, progress)
}

fn connect(target: SocketAddr) -> Result<TcpStream, String> {
    load::connect(target, None).map_err(|error| format!("connect: {error}"))
}

fn fetch(
    mut stream: TcpStream,
    path: &str,
    piece: usize,
    mut progress: impl FnMut(u64),
) -> Result<String, String> {
    // Longer than any disturbance, shorter than a test.
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .map_err(|error| error.to_string())?;
    load::request(&mut stream, path, true).map_err(|error| format!("send: {error}"))?;
    let mut reader = BufReader::with_capacity(piece, stream);
    let length = head(&mut reader)?.ok_or("an answer without Content-Length")?;
    let mut hash = Sha256::new();
    let mut received = 0u64;
    loop {
        let piece = reader
            .fill_buf()
            .map_err(|error| format!("receive after {received} of {length} bytes: {error}"))?;
        if piece.is_empty() {
            break;
        }
        hash.update(piece);
        let size = piece.len();
        received += size as u64;
        reader.consume(size);
        progress(length.saturating_sub(received));
    }
    if received != length {
        return Err(format!(
            "the connection ended after {received} of {length} bytes"
        ));
    }
    Ok(hexadecimal(hash))
}

/// One upload of `body` by PUT; the server answers 201 or 204.
pub fn upload(target: SocketAddr, path: &str, body: &Path) -> Result<(), String> {
    let mut stream = load::connect(target, None).map_err(|error| format!("connect: {error}"))?;
    let mut file = File::open(body).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    stream
        .write_all(
            format!("PUT {path} HTTP/1.1\r\nHost: lab\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
        .map_err(|error| format!("send: {error}"))?;
    std::io::copy(&mut file, &mut stream).map_err(|error| format!("send the body: {error}"))?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(|error| format!("receive: {error}"))?;
    let status = answer.lines().next().unwrap_or_default();
    if status.starts_with("HTTP/1.1 201") || status.starts_with("HTTP/1.1 204") {
        Ok(())
    } else {
        Err(format!("status {status:?}"))
    }
}

/// Reads the head of an answer that must be 200; its Content-Length.
fn head(reader: &mut impl BufRead) -> Result<Option<u64>, String> {
    let mut length = None;
    let mut first = true;
    loop {
        let mut line = String::new();
        let read = reader
            .read_line(&mut line)
            .map_err(|error| format!("receive the head: {error}"))?;
        if read == 0 {
            return Err("the connection ended in the head".to_owned());
        }
        let line = line.trim_end();
        if first && !line.starts_with("HTTP/1.1 200 ") {
            return Err(format!("status {line:?}"));
        }
        first = false;
        if line.is_empty() {
            return Ok(length);
        }
        if let Some((key, value)) = line.split_once(':')
            && key.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
}
