//! What two fast paths say of each other, asked by their control sockets.

use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use ilb_node::control::{
    PEER_PORT, PeerKey, PeerSpec, PeerStatus, Request, Response, read_frame, write_frame,
};

use crate::shell;

const PATIENCE: Duration = Duration::from_secs(30);

/// Two fast paths that are to tell each other of their connections, by number.
#[derive(Debug)]
pub struct Peers {
    /// Their runtime directories.
    pub runs: [PathBuf; 2],
    /// Their addresses.
    pub addresses: [IpAddr; 2],
}

impl Peers {
    /// Asks one of them.
    #[track_caller]
    pub fn ask(&self, at: usize, request: &Request) -> Response {
        let socket = self.runs[at].join("fastpath.sock");
        let mut stream = UnixStream::connect(socket).expect("the fast path listens");
        write_frame(&mut stream, request).expect("the fast path reads");
        let answer = read_frame(&mut stream).expect("an answer that is understood");
        answer.expect("an answer")
    }

    /// Tells one of them who its peer is.
    #[track_caller]
    pub fn introduce(&self, at: usize) {
        let spec = PeerSpec {
            local: self.addresses[at],
            address: self.addresses[1 - at],
            port: PEER_PORT,
            node: at as u8,
            key: PeerKey("5e".repeat(32)),
            bandwidth: 2_000_000,
        };
        match self.ask(at, &Request::Peer(Some(spec))) {
            Response::Peer(Some(_)) => {}
            other => {
                panic!("given a fast path, when it is told of its peer, then it agrees; {other:?}")
            }
        }
    }

    /// What it says of its peer.
    #[track_caller]
    pub fn status(&self, at: usize) -> PeerStatus {
        match self.ask(at, &Request::Status) {
            Response::Status(status) => status.peer.expect("it has a peer"),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until something holds of what one of them says of its peer.
    #[track_caller]
    pub fn until(&self, at: usize, what: &str, holds: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
        let status = shell::wait_for(PATIENCE, || Some(self.status(at)).filter(&holds));
        status.unwrap_or_else(|| {
            panic!(
                "given two nodes, then {what} at node {at} within {PATIENCE:?}; {:#?}\nand the other one: {:#?}",
                self.status(at),
                self.status(1 - at)
            )
        })
    }

    /// Waits until both are there, have told each other everything, and have nothing to say.
    #[track_caller]
    pub fn settled(&self) {
        for at in 0..2 {
            self.until(at, "all is told", |it| {
                it.up && it.complete && it.pending == 0
            });
        }
    }

    /// Open connections that one of them has in its table.
    #[track_caller]
    pub fn open(&self, at: usize) -> u64 {
        let Response::Statistics(statistics) = self.ask(at, &Request::Statistics) else {
            panic!("no statistics");
        };
        statistics
            .rules
            .iter()
            .map(|rule| rule.counters.connections_open)
            .sum()
    }

    /// Waits until one of them has at least so many open connections in its table.
    #[track_caller]
    pub fn has_open(&self, at: usize, count: u64) {
        let enough = shell::wait_for(PATIENCE, || (self.open(at) >= count).then_some(()));
        assert!(
            enough.is_some(),
            "given {count} open connections, then node {at} knows of them; it has {}: {:#?}",
            self.open(at),
            self.status(at)
        );
    }
}
