//! A UDP echo that says who it is, and a client for it.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::lab::namespace::Namespace;
use crate::load;

/// An echo in a namespace, until dropped. It answers `<name> <what came>` from the address it was asked at.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts it on exactly this address.
    #[track_caller]
    pub fn start(namespace: &Namespace, name: &str, address: SocketAddr) -> Echo {
        let socket = namespace
            .enter(|| UdpSocket::bind(address))
            .unwrap_or_else(|error| {
                panic!("cannot bind UDP {address} in {}: {error}", namespace.name())
            });
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a positive timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, name) = (Arc::clone(&stop), name.to_owned());
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, client)) = socket.recv_from(&mut buffer) {
                    let mut answer = format!("{name} ").into_bytes();
                    answer.extend_from_slice(&buffer[..length]);
                    // A client that has gone away is no error of the echo.
                    socket.send_to(&answer, client).ok();
                }
            }
        });
        Echo {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Sends one datagram from `port` (0: any) and waits up to two seconds for the answer, once: nothing is repeated.
/// Returns the name of the server, after checking the payload and where the answer came from.
pub fn ask(target: SocketAddr, port: u16, payload: &[u8]) -> Result<String, String> {
    let socket = open(target, port).map_err(|error| format!("socket: {error}"))?;
    ask_on(&socket, payload)
}

/// A socket connected to `target`: the kernel drops answers from anywhere else.
fn open(target: SocketAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((load::unspecified(target.ip()), port))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(socket)
}

/// The same as [`ask`] on a connected socket that is there already.
fn ask_on(socket: &UdpSocket, payload: &[u8]) -> Result<String, String> {
    socket
        .send(payload)
        .map_err(|error| format!("send: {error}"))?;
    let mut buffer = vec![0; 65_536];
    let length = socket
        .recv(&mut buffer)
        .map_err(|error| format!("receive: {error}"))?;
    let answer = &buffer[..length];
    let space = answer
        .iter()
        .position(|byte| *byte == b' ')
        .ok_or("an answer without a name")?;
    if &answer[space + 1..] != payload {
        return Err(format!(
            "sent {} bytes, got {} others back",
            payload.len(),
            answer.len() - space - 1
        ));
    }
    Ok(String::from_utf8_lossy(&answer[..space]).into_owned())
}

/// `count` datagrams, each a flow of its own: from the ports `first_port`… on. Who answered how often. One failure is an
/// `Err`.
pub fn tally(
    from: &Namespace,
    target: SocketAddr,
    first_port: u16,
    count: u16,
    payload: usize,
) -> Result<BTreeMap<String, usize>, String> {
    from.enter(|| {
        let mut answers = BTreeMap::new();
        for number in 0..count {
            let bytes: Vec<u8> = (0..payload).map(|n| (n * 7) as u8 ^ number as u8).collect();
            let port = first_port + number;
            let name =
                ask(target, port, &bytes).map_err(|error| format!("from port {port}: {error}"))?;
            *answers.entry(name).or_default() += 1;
        }
        Ok(answers)
    })
}
