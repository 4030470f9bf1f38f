//! The thread's loop: datagrams in, changes of the workers, datagrams out; about a hundred times a second when there is
//! nothing to do.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ilb_forwarder::changes::{Change, Changes};
use ilb_forwarder::peer::{self, Outcome, Places, VISITOR};
use ilb_forwarder::{Table, View};
use ilb_node::control::PeerStatus;
use ilb_node::journal::events::{PEER_COMPLETE, PEER_FOUND, PEER_LOST};
use ilb_sync::{Event, Session, Settings};

use super::Report;
use super::entries::{Came, Entries};
use crate::board::Board;
use crate::clock::Instant;

/// Longest wait for a datagram: changes are told of no later than that.
const WAIT: Duration = Duration::from_millis(10);
/// Octets of datagrams that may wait for us: a burst that the peer's limit lets through, as far as the system allows.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;
/// Seconds in which every entry is looked at once: does the peer have to hear of it again?
const ROUND: u32 = 5;
/// Milliseconds between two looks at a part of the table.
const STEP: u64 = 20;
/// Milliseconds between two reports.
const REPORT: u64 = 50;
/// Datagrams that are sent or received before the other direction has its turn.
const TURN: usize = 256;

/// Has the socket not wait for ever, and hold as much as it can.
pub fn prepare(socket: &UdpSocket) -> io::Result<()> {
    socket.set_read_timeout(Some(WAIT))?;
    socket.set_write_timeout(Some(WAIT))?;
    let size = RECEIVE_BUFFER;
    for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
        // SAFETY: the value lives through the call and has the length that is given. Refusal leaves a smaller buffer.
        let outcome = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const size).cast(),
                size_of_val(&size) as libc::socklen_t,
            )
        };
        if outcome == 0 {
            break;
        }
    }
    Ok(())
}

/// Random octets of the kernel's.
fn draw() -> [u8; 16] {
    let mut octets = [0u8; 16];
    // SAFETY: the buffer has this length.
    let got = unsafe { libc::getrandom(octets.as_mut_ptr().cast(), octets.len(), 0) };
    assert!(
        got == octets.len() as isize,
        "the kernel's random numbers are not available: {}",
        io::Error::last_os_error()
    );
    octets
}

/// See the module's text.
pub struct Talk {
    socket: UdpSocket,
    peer: SocketAddr,
    session: Session,
    board: Arc<Board>,
    table: Arc<Table>,
    changes: Arc<Changes>,
    report: Arc<Report>,
    version: u64,
    view: Arc<View>,
    places: Places,
    events: Vec<Event>,
    /// Datagrams of others than the peer.
    strangers: u64,
    unsent: u64,
    unknown: u64,
    outcomes: [u64; Outcome::ALL.len()],
    up: bool,
    complete_at: Option<u64>,
    reported: u64,
    /// That of the peer whose traces are the present ones.
    incarnation: Option<u64>,
    /// Entry that is looked at next for a refresh, and when that was done last.
    refresh_at: u32,
    refreshed: u64,
}

impl Talk {
    /// A thread's work: call [`Talk::run`] there.
    pub fn new(
        socket: UdpSocket,
        peer: SocketAddr,
        settings: Settings,
        board: Arc<Board>,
        table: Arc<Table>,
        changes: Arc<Changes>,
        report: Arc<Report>,
    ) -> Talk {
        let now = Instant::now().milliseconds();
        let (version, view) = board.latest();
        let mut talk = Talk {
            session: Session::new(settings, table.capacity(), draw, now),
            places: Places::of(&view.snapshot),
            socket,
            peer,
            board,
            table,
            changes,
            report,
            version,
            view,
            events: Vec::new(),
            strangers: 0,
            unsent: 0,
            unknown: 0,
            outcomes: [0; Outcome::ALL.len()],
            up: false,
            complete_at: None,
            reported: 0,
            incarnation: None,
            refresh_at: 0,
            refreshed: now,
        };
        talk.show(now);
        talk
    }

    /// Talks until `stop`.
    pub fn run(mut self, stop: &AtomicBool) {
        // What was noted for somebody before us is of no interest: the peer asks for everything.
        self.changes.take(|_| {});
        self.changes.switch(true);
        let mut buffer = vec![0; usize::from(u16::MAX)];
        while !stop.load(Ordering::Relaxed) {
            self.hear(&mut buffer);
            let now = Instant::now();
            self.take_up_view(now);
            self.take_changes(now);
            self.refresh(now);
            self.say(now);
            self.attend(now);
            if now.milliseconds().saturating_sub(self.reported) >= REPORT {
                self.show(now.milliseconds());
            }
        }
        self.changes.switch(false);
    }

    /// Receives what has come, or waits a little.
    fn hear(&mut self, buffer: &mut [u8]) {
        let began = Instant::now().milliseconds();
        for _ in 0..TURN {
            let Ok((length, from)) = self.socket.recv_from(buffer) else {
                // Nothing has come, or the system has told us of something that did not arrive.
                return;
            };
            if from.ip() != self.peer.ip() {
                self.strangers += 1;
                continue;
            }
            let now = Instant::now();
            let datagram = &mut buffer[..length];
            // What is refused is counted by the session.
            let _ = self
                .session
                .handle(datagram, now.milliseconds(), &mut self.events);
            self.attend(now);
            let waited = now.milliseconds().saturating_sub(began) >= WAIT.as_millis() as u64;
            if waited || self.session.owes_answer() {
                return;
            }
        }
    }

    fn say(&mut self, now: Instant) {
        let mut entries = Entries {
            view: &self.view,
            table: &self.table,
            places: &self.places,
            now: now.seconds(),
        };
        self.table.enter(VISITOR);
        for _ in 0..TURN {
            let said = self
                .session
                .poll(&mut entries, now.milliseconds(), &mut self.events);
            let Some(datagram) = said else {
                break;
            };
            // What does not leave is lost like what does not arrive.
            if self.socket.send_to(&datagram, self.peer).is_err() {
                self.unsent += 1;
                break;
            }
        }
        self.table.quiesce(VISITOR);
    }

    /// Does what has come of datagrams.
    fn attend(&mut self, now: Instant) {
        if self.events.is_empty() {
            return;
        }
        let events = std::mem::take(&mut self.events);
        let entries = Entries {
            view: &self.view,
            table: &self.table,
            places: &self.places,
            now: now.seconds(),
        };
        self.table.enter(VISITOR);
        for event in &events {
            match event {
                Event::Record(record) => {
                    if let Some(ask) = entries.unresolved(record) {
                        // If nobody has the time for it now, the first packet asks.
                        self.board.ask(ask);
                    }
                    match entries.take(record) {
                        Came::To(outcome) => self.outcomes[outcome as usize] += 1,
                        Came::Unknown => self.unknown += 1,
                    }
                }
                Event::Up => {
                    self.up = true;
                    tracing::info!(
                        message_id = PEER_FOUND.id,
                        ilb_peer = %self.peer,
                        "the peer {} is there",
                        self.peer
                    );
                    if self.session.peer() != self.incarnation {
                        self.incarnation = self.session.peer();
                        self.view.snapshot.guard().traces.inherit();
                    }
                }
                Event::Down => {
                    self.up = false;
                    tracing::warn!(
                        message_id = PEER_LOST.id,
                        ilb_peer = %self.peer,
                        "the peer {} does not answer any more",
                        self.peer
                    );
                }
                Event::Everything => {
                    self.complete_at = Some(now.milliseconds());
                    tracing::info!(
                        message_id = PEER_COMPLETE.id,
                        ilb_peer = %self.peer,
                        "the peer {} has told everything",
                        self.peer
                    );
                }
                Event::Asked => tracing::info!("the peer {} asks for everything", self.peer),
                Event::Traces(traces) => entries.remember(traces),
            }
        }
        self.table.quiesce(VISITOR);
        self.events = events;
        self.events.clear();
    }

    /// Follows the configuration. What is new in it may be of use to either side: both tables are told once more.
    fn take_up_view(&mut self, now: Instant) {
        if self.board.version() == self.version {
            return;
        }
        let before = Arc::clone(&self.view.snapshot);
        (self.version, self.view) = self.board.latest();
        if Arc::ptr_eq(&before, &self.view.snapshot) {
            return;
        }
        let places = Places::of(&self.view.snapshot);
        if places.adds_to(&self.places) {
            self.session.want();
            let size = self.table.high_water();
            self.session.everything_changed(size, now.milliseconds());
        }
        if places.traces_more_than(&self.places) {
            self.session.traces_changed();
        }
        self.places = places;
    }

    fn take_changes(&mut self, now: Instant) {
        let entries = Entries {
            view: &self.view,
            table: &self.table,
            places: &self.places,
            now: now.seconds(),
        };
        let (session, time) = (&mut self.session, now.milliseconds());
        let missed = self.changes.take(|change| match change {
            Change::Entry(entry) => entries.tell(session, entry, time),
            Change::Ended(ended) => {
                if let Some(end) = entries.end(&ended) {
                    session.ended(end, time);
                }
            }
        });
        if missed {
            session.everything_changed(self.table.high_water(), time);
        }
    }

    /// Looks at a part of the table: which connections must be told of again, so that the peer does not forget them?
    fn refresh(&mut self, now: Instant) {
        let passed = now.milliseconds().saturating_sub(self.refreshed);
        if passed < STEP {
            return;
        }
        self.refreshed = now.milliseconds();
        let traces = &self.view.snapshot.guard().traces;
        if self.up {
            traces.heard(now.seconds());
        }
        traces.forget(peer::patience(&self.view), now.seconds());
        let size = self.table.high_water();
        let share = u64::from(size) * passed / (u64::from(ROUND) * 1000) + 1;
        for _ in 0..share.min(u64::from(size)) {
            if self.refresh_at >= size {
                self.refresh_at = 0;
            }
            let entry = self.refresh_at;
            self.refresh_at += 1;
            if peer::wants_refresh(&self.view, &self.table, entry, ROUND, now.seconds()) {
                self.session.changed(entry, now.milliseconds());
            }
        }
    }

    fn show(&mut self, now: u64) {
        self.reported = now;
        let named = |name: &str, count| (name.to_owned(), count);
        let counters = self.session.counters().entries();
        let mut counters: BTreeMap<_, _> = counters.map(|(name, n)| named(name, n)).collect();
        counters.insert("unsent_datagrams".into(), self.unsent);
        let known = self.view.snapshot.guard().traces.count();
        let known = [known.younger, known.older, known.inherited].map(u64::from);
        counters.insert("known_traces".into(), known.into_iter().sum());
        let outcomes = Outcome::ALL.iter().zip(self.outcomes);
        let mut records: BTreeMap<_, _> = outcomes.map(|(it, n)| named(it.label(), n)).collect();
        records.insert("unknown-place".into(), self.unknown);
        let refused = self.session.refused();
        let mut refused: BTreeMap<_, _> = refused.map(|(it, n)| named(it.label(), n)).collect();
        refused.insert("stranger".into(), self.strangers);
        self.report.show(PeerStatus {
            address: self.peer.to_string(),
            node: self.session.settings().node,
            up: self.up,
            complete: self.session.has_everything(),
            complete_ago: self.complete_at.map(|then| now.saturating_sub(then) / 1000),
            lag_ms: self.session.lag(now),
            pending: self.session.pending(),
            counters,
            records,
            refused,
        });
    }
}
