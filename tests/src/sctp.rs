//! The first exchange of an SCTP association (RFC 9260 section 5.1) over raw sockets, for kernels without SCTP: INIT,
//! and INIT ACK from a server that says which one it is. Checksums are computed and checked bit by bit.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::namespace::Namespace;
use crate::{Family, raw};

const SCTP: i32 = 132;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// Where the checksum stands in the common header.
const CHECKSUM: std::ops::Range<usize> = 8..12;
const PATIENCE: Duration = Duration::from_secs(5);

/// CRC32c (RFC 9260 appendix A), one bit after the other.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

/// A packet with one INIT or INIT ACK chunk whose initiate tag is `tag`.
fn packet(from: u16, to: u16, verification: u32, chunk: u8, tag: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(from.to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend(verification.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([chunk, 0, 0, 20]);
    bytes.extend(tag.to_be_bytes());
    bytes.extend(65_536u32.to_be_bytes());
    bytes.extend([0, 1, 0, 1, 0, 0, 0, 9]);
    let crc = crc32c(&bytes);
    bytes[CHECKSUM].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Ports, chunk and tag of a packet whose checksum is right.
struct Seen {
    from: u16,
    to: u16,
    chunk: u8,
    tag: u32,
}

fn read(bytes: &[u8]) -> Result<Seen, String> {
    if bytes.len() != 32 {
        return Err(format!("{} bytes are none of our packets", bytes.len()));
    }
    let mut blank = bytes.to_vec();
    blank[CHECKSUM].fill(0);
    if crc32c(&blank).to_le_bytes() != bytes[CHECKSUM] {
        return Err("the checksum is wrong".into());
    }
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    Ok(Seen {
        from: port(0),
        to: port(2),
        chunk: bytes[12],
        tag: u32::from_be_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]),
    })
}

/// A server that acknowledges every INIT until it is dropped.
#[derive(Debug)]
pub struct Responder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Starts it on this address and port; `name` is in the tag of its answers.
    #[track_caller]
    pub fn start(namespace: &Namespace, address: IpAddr, port: u16, name: u8) -> Responder {
        let socket = namespace
            .enter(|| {
                let patience = Duration::from_millis(50);
                raw::open(Family::of(address), SCTP, Some(address), patience)
            })
            .unwrap_or_else(|error| panic!("no raw socket in {}: {error}", namespace.name()));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok((bytes, client)) = raw::receive(&socket) else {
                    continue;
                };
                if let Ok(seen) = read(&bytes)
                    && (seen.chunk, seen.to) == (INIT, port)
                {
                    let answer = packet(port, seen.from, seen.tag, INIT_ACK, u32::from(name));
                    // A client that has gone away is no error of the server.
                    socket
                        .send_to(&answer, &SocketAddr::new(client, 0).into())
                        .ok();
                }
            }
        });
        Responder {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Sends INIT once and waits for the INIT ACK, from the address that was asked and with a right checksum. Gives the
/// server's name.
pub fn ask(target: SocketAddr, port: u16) -> Result<u8, String> {
    let socket = raw::open(Family::of(target.ip()), SCTP, None, PATIENCE)
        .map_err(|error| format!("raw socket: {error}"))?;
    let init = packet(port, target.port(), 0, INIT, 7 << 16 | u32::from(port));
    let to = SocketAddr::new(target.ip(), 0).into();
    socket
        .send_to(&init, &to)
        .map_err(|error| format!("send: {error}"))?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let (bytes, from) = raw::receive(&socket).map_err(|error| format!("receive: {error}"))?;
        let seen = read(&bytes)?;
        if seen.chunk == INIT_ACK && seen.to == port {
            if (from, seen.from) != (target.ip(), target.port()) {
                return Err(format!("the answer came from {from} port {}", seen.from));
            }
            return Ok(seen.tag as u8);
        }
    }
    Err("no answer".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720 appendix B.4.
    #[test]
    fn crc32c_of_known_bytes() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }
}
