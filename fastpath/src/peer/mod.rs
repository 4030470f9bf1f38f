//! The other node: a thread that tells it of connections and enters those that it tells of.
//!
//! ```text
//!   workers ──Changes──▶ ┌──────────┐ ──datagrams──▶ the peer's
//!   table ◀──entries───▶ │ ilb-peer │ ◀──datagrams──
//!   engine ──set───────▶ └──────────┘ ──Report──▶ engine (status)
//! ```
//!
//! What is said and when is decided by `ilb_sync`; what comes of a record, by `ilb_forwarder::peer`.

pub mod entries;
mod thread;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ilb_forwarder::changes::Changes;
use ilb_forwarder::nat::Share;
use ilb_forwarder::{Guard, Table};
use ilb_node::control::{PeerSpec, PeerStatus};
use ilb_sync::{Secret, Settings};

use crate::board::Board;

/// Why there is no speaking with a peer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No number of a node.
    #[error("peer: node is {0}; allowed are 0 and 1, one for each node")]
    Node(u8),
    /// No key.
    #[error(
        "peer: key has {0} characters or something else than hexadecimal digits; it must be 64 of these (32 octets)"
    )]
    Key(usize),
    /// No port.
    #[error("peer: port is 0; allowed are 1 to 65535")]
    Port,
    /// Addresses that do not reach each other.
    #[error("peer: local {local} and address {address} are not of the same family")]
    Family {
        /// Ours.
        local: IpAddr,
        /// The peer's.
        address: IpAddr,
    },
    /// The same address twice.
    #[error("peer: address {0} is our own local one")]
    Same(IpAddr),
    /// The system refuses.
    #[error("peer: {step} {local}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// Our address.
        local: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
}

/// What the thread shows of itself.
#[derive(Default)]
struct Report(Mutex<PeerStatus>);

impl Report {
    fn show(&self, status: PeerStatus) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    fn get(&self) -> PeerStatus {
        let status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        status.clone()
    }
}

/// A running thread.
struct Running {
    spec: PeerSpec,
    stop: Arc<AtomicBool>,
    report: Arc<Report>,
    thread: JoinHandle<()>,
}

/// See the module's text.
pub struct Peers {
    board: Arc<Board>,
    table: Arc<Table>,
    changes: Arc<Changes>,
    running: Option<Running>,
}

impl Peers {
    /// With nobody to speak with.
    pub fn new(board: Arc<Board>, table: Arc<Table>, changes: Arc<Changes>) -> Peers {
        Peers {
            board,
            table,
            changes,
            running: None,
        }
    }

    /// Speaks with this peer from now on, or with nobody. The same peer again changes nothing.
    ///
    /// # Errors
    /// When that cannot be; everything stays as it was then, but for a socket that was to be opened where another is.
    pub fn set(&mut self, spec: Option<PeerSpec>, guard: &Guard) -> Result<(), PeerError> {
        if self.running.as_ref().map(|it| &it.spec) == spec.as_ref() {
            return Ok(());
        }
        let Some(spec) = spec else {
            self.leave();
            guard.set_share(Share::All);
            tracing::info!("there is no peer any more");
            return Ok(());
        };
        let settings = check(&spec)?;
        let node = settings.node;
        // The socket of the one before may be the one that is wanted.
        let before = self.running.as_ref().map(|it| it.spec.clone());
        self.leave();
        match self.start(spec, settings) {
            Ok(running) => self.running = Some(running),
            Err(error) => {
                let before = before.and_then(|spec| Some((check(&spec).ok()?, spec)));
                self.running = before.and_then(|(settings, spec)| self.start(spec, settings).ok());
                return Err(error);
            }
        }
        guard.set_share(if node == 0 { Share::Even } else { Share::Odd });
        Ok(())
    }

    fn start(&self, spec: PeerSpec, settings: Settings) -> Result<Running, PeerError> {
        let local = SocketAddr::new(spec.local, spec.port);
        let failed = |step| {
            move |source| PeerError::System {
                step,
                local,
                source,
            }
        };
        let socket = UdpSocket::bind(local).map_err(failed("binding UDP"))?;
        thread::prepare(&socket).map_err(failed("setting up UDP"))?;
        let (stop, report) = (Arc::<AtomicBool>::default(), Arc::<Report>::default());
        let talk = thread::Talk::new(
            socket,
            SocketAddr::new(spec.address, spec.port),
            settings,
            Arc::clone(&self.board),
            Arc::clone(&self.table),
            Arc::clone(&self.changes),
            Arc::clone(&report),
        );
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("ilb-peer".into())
            .spawn(move || talk.run(&stopped))
            .map_err(failed("starting a thread for"))?;
        tracing::info!("the peer is {} on port {}", spec.address, spec.port);
        Ok(Running {
            spec,
            stop,
            report,
            thread,
        })
    }

    /// Speaks with nobody any more.
    pub fn leave(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.store(true, Ordering::Relaxed);
            if running.thread.join().is_err() {
                tracing::error!("the peer's thread has panicked");
            }
        }
    }

    /// How it stands; None without a peer.
    pub fn status(&self) -> Option<PeerStatus> {
        self.running.as_ref().map(|it| it.report.get())
    }
}

fn check(spec: &PeerSpec) -> Result<Settings, PeerError> {
    if spec.node > 1 {
        return Err(PeerError::Node(spec.node));
    }
    if spec.port == 0 {
        return Err(PeerError::Port);
    }
    if spec.local.is_ipv4() != spec.address.is_ipv4() {
        return Err(PeerError::Family {
            local: spec.local,
            address: spec.address,
        });
    }
    if spec.local == spec.address {
        return Err(PeerError::Same(spec.address));
    }
    let secret = Secret::from_hex(&spec.key.0);
    Ok(Settings {
        node: spec.node,
        secret: secret.ok_or(PeerError::Key(spec.key.0.chars().count()))?,
        bandwidth: spec.bandwidth,
        datagram: ilb_sync::session::DATAGRAM,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ilb_node::control::PeerKey;

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let good = PeerSpec {
            local: [192, 0, 2, 1].into(),
            address: [192, 0, 2, 2].into(),
            port: 49_280,
            node: 0,
            key: PeerKey("0f".repeat(32)),
            bandwidth: 0,
        };
        assert!(check(&good).is_ok());
        type Spoil = fn(&mut PeerSpec);
        #[rustfmt::skip]
        let table: [(Spoil, &str); 5] = [
            (|it| it.node = 2, "node is 2; allowed are 0 and 1"),
            (|it| it.key.0.push('0'), "key has 65 characters"),
            (|it| it.port = 0, "port is 0; allowed are 1 to 65535"),
            (|it| it.address = "2001:db8::1".parse().unwrap(), "local 192.0.2.1 and address 2001:db8::1"),
            (|it| it.address = it.local, "address 192.0.2.1 is our own"),
        ];
        for (spoil, words) in table {
            let mut spec = good.clone();
            spoil(&mut spec);
            let error = check(&spec).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("0f0f"), "a key is not shown");
        }
        assert!(!format!("{good:?}").contains("0f0f"));
    }
}
