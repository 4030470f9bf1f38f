//! Where the control thread puts up what the workers forward by, and where they note that they have read it.
//!
//! ```text
//!   control thread ──publish──▶ Board ──latest (when the version differs)──▶ worker 0..n
//!                  ◀──wait_for── Board ◀──acknowledge──────────────────────── worker 0..n
//!                  ◀──requests── Board ◀──ask────── worker (resolve a neighbour, port lost)
//! ```
//! A worker looks at one atomic number per round and takes the lock only when that has changed.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ilb_forwarder::View;
use ilb_forwarder::network::PortIndex;
use tokio::sync::{Notify, mpsc};

use crate::port::Plan;

/// What a worker asks of the control thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A packet waits for the link-layer address of this neighbour.
    Resolve {
        /// Interface that the neighbour lives on.
        port: PortIndex,
        /// Its address.
        next_hop: IpAddr,
    },
}

/// An eventfd: something to wait on beside sockets.
struct Bell(OwnedFd);

impl Bell {
    fn new() -> io::Result<Bell> {
        // SAFETY: plain system call.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and nobody else owns it.
        Ok(Bell(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn ring(&self) {
        let one = 1u64;
        // SAFETY: the buffer has the eight bytes that an eventfd takes. It fails only when it has rung already.
        unsafe {
            libc::write(
                self.0.as_raw_fd(),
                (&raw const one).cast(),
                size_of::<u64>(),
            )
        };
    }

    fn silence(&self) {
        let mut count = 0u64;
        // SAFETY: the buffer has the eight bytes that an eventfd gives. It fails only when it has not rung.
        unsafe {
            libc::read(
                self.0.as_raw_fd(),
                (&raw mut count).cast(),
                size_of::<u64>(),
            )
        };
    }
}

/// One worker's corner of the board.
struct Corner {
    bell: Bell,
    taken: AtomicU64,
    /// The last pulse that it has felt.
    pulse: AtomicU64,
    reopen: AtomicBool,
    plans: Mutex<Vec<Plan>>,
}

/// See the module's text.
pub struct Board {
    version: AtomicU64,
    /// Number of the last sign of life that was asked for.
    pulse: AtomicU64,
    view: Mutex<Arc<View>>,
    /// Views that a worker may still use, so that it is not a worker that has to free them.
    retired: Mutex<Vec<(u64, Arc<View>)>>,
    corners: Box<[Corner]>,
    read: Notify,
    asks: mpsc::Sender<Ask>,
    stopping: AtomicBool,
    /// Index of each interface in the kernel, 0 while it does not exist.
    ifindexes: Box<[AtomicU32]>,
}

/// Requests that may wait for the control thread; more are dropped, and asked again later.
const ASKS: usize = 1024;

/// A worker did not take up the newest view.
#[derive(Debug, thiserror::Error)]
#[error("worker {worker} did not take up the new configuration within {seconds} s")]
pub struct NotTaken {
    worker: usize,
    seconds: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// A board with a first view. Gives also the end on which the workers' requests arrive.
    ///
    /// # Errors
    /// When the process may open no more files.
    pub fn new(
        workers: usize,
        interfaces: usize,
        view: Arc<View>,
    ) -> io::Result<(Board, mpsc::Receiver<Ask>)> {
        let corners = (0..workers)
            .map(|_| {
                Ok(Corner {
                    bell: Bell::new()?,
                    taken: AtomicU64::new(0),
                    pulse: AtomicU64::new(0),
                    reopen: AtomicBool::new(false),
                    plans: Mutex::new(Vec::new()),
                })
            })
            .collect::<io::Result<_>>()?;
        let (asks, requests) = mpsc::channel(ASKS);
        let board = Board {
            version: AtomicU64::new(1),
            pulse: AtomicU64::new(0),
            view: Mutex::new(view),
            retired: Mutex::new(Vec::new()),
            corners,
            read: Notify::new(),
            asks,
            stopping: AtomicBool::new(false),
            ifindexes: (0..interfaces).map(|_| AtomicU32::new(0)).collect(),
        };
        Ok((board, requests))
    }

    /// Puts up a new view and wakes all workers. Gives its version.
    pub fn publish(&self, view: Arc<View>) -> u64 {
        let version = {
            let mut current = locked(&self.view);
            let old = std::mem::replace(&mut *current, view);
            let version = self.version.load(Ordering::Relaxed) + 1;
            locked(&self.retired).push((version - 1, old));
            self.version.store(version, Ordering::Release);
            version
        };
        self.wake_all();
        version
    }

    /// Waits until every worker forwards by `version` or a later one.
    ///
    /// # Errors
    /// When one has not done so after `patience`.
    pub async fn wait_for(&self, version: u64, patience: Duration) -> Result<(), NotTaken> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let read = self.read.notified();
            let Some(worker) = self.behind(version) else {
                return Ok(());
            };
            if tokio::time::timeout_at(deadline, read).await.is_err() {
                return Err(NotTaken {
                    worker,
                    seconds: patience.as_secs(),
                });
            }
        }
    }

    fn behind(&self, version: u64) -> Option<usize> {
        self.corners
            .iter()
            .position(|c| c.taken.load(Ordering::Acquire) < version)
    }

    /// Frees the views that no worker uses any more.
    pub fn sweep(&self) {
        let oldest = self
            .corners
            .iter()
            .map(|c| c.taken.load(Ordering::Acquire))
            .min()
            .unwrap_or(u64::MAX);
        let unused: Vec<_> = {
            let mut retired = locked(&self.retired);
            let split = retired.partition_point(|(version, _)| *version < oldest);
            retired.drain(..split).collect()
        };
        drop(unused);
    }

    /// The newest version.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The newest view with its version.
    pub fn latest(&self) -> (u64, Arc<View>) {
        let view = locked(&self.view);
        (self.version.load(Ordering::Relaxed), Arc::clone(&view))
    }

    /// A worker forwards by this version from now on and holds none older.
    pub fn acknowledge(&self, worker: usize, version: u64) {
        self.corners[worker].taken.store(version, Ordering::Release);
        self.read.notify_one();
    }

    /// Asks every worker for a sign of life. Gives the number that they will answer with.
    pub fn take_pulse(&self) -> u64 {
        let pulse = self.pulse.fetch_add(1, Ordering::Relaxed) + 1;
        self.wake_all();
        pulse
    }

    /// The number that a worker answers with at the end of a round.
    #[inline]
    pub fn pulse(&self) -> u64 {
        self.pulse.load(Ordering::Relaxed)
    }

    /// A worker has ended a round since it was asked.
    pub fn feel(&self, worker: usize, pulse: u64) {
        self.corners[worker].pulse.store(pulse, Ordering::Relaxed);
    }

    /// A worker that has not ended a round since it was asked for this pulse.
    pub fn without_pulse(&self, pulse: u64) -> Option<usize> {
        self.corners
            .iter()
            .position(|c| c.pulse.load(Ordering::Relaxed) < pulse)
    }

    /// Asks the control thread; false if it has too much to do.
    pub fn ask(&self, ask: Ask) -> bool {
        self.asks.try_send(ask).is_ok()
    }

    /// What a worker waits on beside its sockets.
    pub fn bell(&self, worker: usize) -> RawFd {
        self.corners[worker].bell.0.as_raw_fd()
    }

    /// A worker has heard its bell.
    pub fn silence(&self, worker: usize) {
        self.corners[worker].bell.silence();
    }

    fn wake_all(&self) {
        for corner in &self.corners {
            corner.bell.ring();
        }
    }

    /// Tells all workers to open their sockets anew by these plans, one list for each worker: interfaces have come.
    pub fn reopen(&self, plans: Vec<Vec<Plan>>) {
        for (corner, plans) in self.corners.iter().zip(plans) {
            *locked(&corner.plans) = plans;
            corner.reopen.store(true, Ordering::Release);
        }
        self.wake_all();
    }

    /// What this worker has to open anew, if it has to; asked once, answered once.
    #[inline]
    pub fn take_reopen(&self, worker: usize) -> Option<Vec<Plan>> {
        let corner = &self.corners[worker];
        if !corner.reopen.load(Ordering::Relaxed) || !corner.reopen.swap(false, Ordering::AcqRel) {
            return None;
        }
        Some(locked(&corner.plans).clone())
    }

    /// Tells all workers to end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Whether workers shall end.
    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.corners.len()
    }

    /// Notes an interface's index in the kernel, 0 when it does not exist.
    pub fn set_ifindex(&self, port: PortIndex, ifindex: u32) {
        if let Some(slot) = self.ifindexes.get(usize::from(port)) {
            slot.store(ifindex, Ordering::Relaxed);
        }
    }

    /// An interface's index in the kernel, 0 when it does not exist.
    pub fn ifindex(&self, port: PortIndex) -> u32 {
        self.ifindexes
            .get(usize::from(port))
            .map_or(0, |slot| slot.load(Ordering::Relaxed))
    }
}
