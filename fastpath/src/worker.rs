//! A worker thread: moves packets between its rings and does what the forwarder decided.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use ilb_forwarder::fragment::Key;
use ilb_forwarder::network::PortIndex;
use ilb_forwarder::packet::{ETHERNET, Packet};
use ilb_forwarder::verdict::{DropReason, Verdict};
use ilb_forwarder::{Forwarder, View};
use xsk_rs::umem::frame::FrameDesc;

use crate::board::{Ask, Board};
use crate::clock::Instant;
use crate::counters::Counters;
use crate::error::StartError;
use crate::frames::Place;
use crate::held::Held;
use crate::pending::{Pending, Pushed, Waiting};
use crate::port::{BATCH, Plan};
use crate::ports::Ports;
use crate::raw::RawSender;
use crate::tun::Tun;
use crate::umem::FRAME_SIZE;

/// Rounds without a packet before the worker sleeps.
const QUIET_ROUNDS: u32 = 32;
/// Milliseconds between two audits of the frames, and the longest sleep.
const AUDIT_MS: u64 = 5_000;
/// Longest sleep in milliseconds while frames are under way.
const LONGEST_NAP_MS: u64 = 500;
/// Longest sleep in milliseconds while fragments wait for their first one.
const HELD_NAP_MS: u64 = 2;
/// Milliseconds after which sockets that could not be opened are tried again.
const REOPEN_MS: u64 = 1_000;

/// A packet that waits for its next hop.
#[derive(Debug, Clone, Copy)]
struct Parked {
    frame: FrameDesc,
    length: usize,
}

/// A later fragment that waits for its first one.
#[derive(Debug, Clone, Copy)]
struct Fragment {
    frame: FrameDesc,
    length: usize,
    ingress: PortIndex,
}

/// Opens the sockets of a plan and makes XDP steer to them.
pub type Opener = Box<dyn Fn(&[Plan]) -> Result<Ports, StartError> + Send>;

/// Ways around the rings, shared by all workers.
pub struct SideDoors {
    /// To interfaces on which a worker has no queue.
    pub raw: RawSender,
    /// To the kernel; None where there is no tun device to be had.
    pub tun: Option<Tun>,
}

/// See the module's text.
pub struct Worker {
    number: usize,
    board: Arc<Board>,
    forwarder: Forwarder,
    counters: Arc<Counters>,
    doors: Arc<SideDoors>,
    opener: Opener,
    ports: Ports,
    pending: Pending<Parked>,
    held: Held<Fragment>,
    /// First fragments that had come when the held ones were looked through last.
    first_fragments: u64,
    view: Arc<View>,
    version: u64,
    /// The last sign of life that was asked for and given.
    pulse: u64,
    batch: ArrayVec<FrameDesc, BATCH>,
    waits: Vec<libc::pollfd>,
    now: Instant,
    nap: u64,
    audited: u64,
    try_again: Option<(u64, Vec<Plan>)>,
    /// Misplaced frames in the books of sockets that are closed.
    misplaced: u64,
}

impl Worker {
    /// A worker that has its sockets already.
    pub fn new(
        number: usize,
        board: Arc<Board>,
        forwarder: Forwarder,
        counters: Arc<Counters>,
        doors: Arc<SideDoors>,
        opener: Opener,
        ports: Ports,
    ) -> Worker {
        let (version, view) = board.latest();
        let now = Instant::now();
        let mut worker = Worker {
            number,
            board,
            forwarder,
            counters,
            doors,
            opener,
            held: Held::new(ports.frames()),
            first_fragments: 0,
            ports,
            pending: Pending::default(),
            view,
            version,
            pulse: 0,
            batch: ArrayVec::new(),
            waits: Vec::new(),
            now,
            nap: 1,
            audited: now.milliseconds(),
            try_again: None,
            misplaced: 0,
        };
        worker.board.acknowledge(number, version);
        worker.list_waits();
        worker
    }

    /// Works until the board says stop.
    pub fn run(mut self) {
        let mut quiet = 0;
        while !self.board.is_stopping() {
            if self.round() > 0 {
                quiet = 0;
                self.nap = 1;
            } else if quiet < QUIET_ROUNDS {
                quiet += 1;
                std::hint::spin_loop();
            } else {
                self.sleep();
            }
        }
        self.audit();
    }

    /// One round over all sockets; gives the number of packets received.
    fn round(&mut self) -> usize {
        self.now = Instant::now();
        self.take_up_changes();
        self.ports.reap();
        self.ports.refill();
        let mut received = 0;
        for socket in 0..self.ports.sockets() {
            received += self.receive_and_forward(socket);
        }
        self.release_held();
        self.give_up_waiting();
        self.send();
        self.audit_now_and_then();
        self.give_sign_of_life();
        received
    }

    /// Says that a round has been gone, if the control thread wants to know.
    #[inline]
    fn give_sign_of_life(&mut self) {
        let pulse = self.board.pulse();
        if pulse != self.pulse {
            self.pulse = pulse;
            self.board.feel(self.number, pulse);
        }
    }

    /// Takes up a new view or new sockets, if there are any.
    #[inline]
    fn take_up_changes(&mut self) {
        if let Some(plans) = self.board.take_reopen(self.number) {
            self.reopen(plans);
        }
        if let Some((at, _)) = self.try_again
            && at <= self.now.milliseconds()
            && let Some((_, plans)) = self.try_again.take()
        {
            self.reopen(plans);
        }
        if self.board.version() != self.version {
            (self.version, self.view) = self.board.latest();
            self.board.acknowledge(self.number, self.version);
            self.retry_waiting();
        }
    }

    #[inline]
    fn receive_and_forward(&mut self, socket: usize) -> usize {
        self.batch.clear();
        self.ports.receive(socket, &mut self.batch);
        if self.batch.is_empty() {
            return 0;
        }
        let ingress = self.ports.interface(socket);
        self.counters.received(ingress, self.batch.len());
        let mut packets: ArrayVec<Packet<'_>, BATCH> = ArrayVec::new();
        for frame in &self.batch {
            // SAFETY: the frame was just received, so that it is ours; `packets` ends within this function, and each
            // packet before its frame goes on.
            let (bytes, start) = unsafe { self.ports.frame(frame) };
            let packet = Packet::new(bytes, start, frame.lengths().data(), ingress);
            packet.prefetch();
            packets.push(packet);
        }
        self.forwarder
            .process(&self.view, &mut packets, self.now.seconds());
        for (at, packet) in packets.drain(..).enumerate() {
            let mut frame = self.batch[at];
            if packet.start() != frame.addr() % FRAME_SIZE {
                self.ports.set_start(&mut frame, packet.start());
            }
            let (verdict, length) = (packet.verdict, packet.len());
            match verdict {
                Verdict::Hold { key } => self.hold(frame, length, ingress, key),
                _ => self.dispose(frame, length, verdict, Place::BATCH),
            }
        }
        self.batch.len()
    }

    /// Does with a packet what was decided; `from` is where its frame is.
    #[inline]
    fn dispose(&mut self, frame: FrameDesc, length: usize, verdict: Verdict, from: Place) {
        match verdict {
            Verdict::Transmit(port) => {
                if !self.ports.post(port, frame, length, from) {
                    self.send_around(port, frame, length);
                    self.ports.give_back(frame, from);
                }
            }
            Verdict::Unresolved { port, next_hop } => self.park(frame, length, port, next_hop),
            Verdict::Kernel => {
                // XDP steers by the configuration that was in force before we started: what comes is for a service whose
                // connections the kernel does not have, and it would reset them.
                match self.view.snapshot.generation() {
                    0 => self.lose(DropReason::Unconfigured, length),
                    _ => self.deliver(frame, length),
                }
                self.ports.give_back(frame, from);
            }
            // Whoever could hold it has looked at this before.
            Verdict::Hold { .. } => {
                self.lose(DropReason::FragmentUnknown, length);
                self.ports.give_back(frame, from);
            }
            Verdict::Drop(_) => {
                let bytes = length.saturating_sub(ETHERNET) as u64;
                self.counters.dropped_bytes.add(bytes);
                self.ports.give_back(frame, from);
            }
        }
    }

    /// Keeps a packet of the batch until its next hop is known, and has it found out.
    fn park(&mut self, frame: FrameDesc, length: usize, port: PortIndex, next_hop: IpAddr) {
        let parked = Parked { frame, length };
        let now = self.now.milliseconds();
        match self.pending.push(parked, port, next_hop, now) {
            Pushed::Refused(_) => {
                self.lose(DropReason::NeighbourUnresolved, length);
                self.ports.give_back(frame, Place::BATCH);
                return;
            }
            Pushed::Ask => {
                if !self.board.ask(Ask::Resolve { port, next_hop }) {
                    tracing::debug!(
                        "too many unresolved next hops at once: {next_hop} has to wait"
                    );
                }
            }
            Pushed::Waits => {}
        }
        if !self.ports.note(&frame, Place::BATCH, Place::PENDING) {
            tracing::error!("a frame that waits for {next_hop} is not in the books");
        }
    }

    /// Keeps a later fragment of the batch until its first one has come.
    fn hold(&mut self, frame: FrameDesc, length: usize, ingress: PortIndex, key: Key) {
        if !self.ports.note(&frame, Place::BATCH, Place::HELD) {
            tracing::error!("a fragment that waits is not in the books");
        }
        let limit = self.view.snapshot.limits().waiting_fragments;
        let fragment = Fragment {
            frame,
            length,
            ingress,
        };
        let now = self.now.milliseconds();
        if let Some(gone) = self.held.push(fragment, key, limit, now) {
            self.lose(DropReason::FragmentLimit, gone.length);
            self.ports.give_back(gone.frame, Place::HELD);
        }
    }

    /// Processes held fragments again whose first one has come, here or at another worker.
    #[inline]
    fn release_held(&mut self) {
        if self.held.count() == 0 {
            return;
        }
        let came = Forwarder::first_fragments(&self.view);
        if came != self.first_fragments {
            self.first_fragments = came;
            let mut at = 0;
            while self.release_some(&mut at) {}
        }
    }

    /// A batch of them, from number `at` on; false if there are no more.
    fn release_some(&mut self, at: &mut usize) -> bool {
        let now = self.now.seconds();
        let mut fragments: ArrayVec<Fragment, BATCH> = ArrayVec::new();
        while !fragments.is_full()
            && let Some(fragment) = self.held.take(at, |key| {
                Forwarder::is_awaited_no_more(&self.view, key, now)
            })
        {
            if !self.ports.note(&fragment.frame, Place::HELD, Place::BATCH) {
                tracing::error!("a fragment that waited is not in the books");
            }
            fragments.push(fragment);
        }
        let mut packets: ArrayVec<Packet<'_>, BATCH> = ArrayVec::new();
        for fragment in &fragments {
            // SAFETY: the frame has left our list, so that it is ours; `packets` ends within this function, and each
            // packet before its frame goes on.
            let (bytes, start) = unsafe { self.ports.frame(&fragment.frame) };
            packets.push(Packet::new(bytes, start, fragment.length, fragment.ingress));
        }
        self.forwarder.process(&self.view, &mut packets, now);
        for (at, packet) in packets.drain(..).enumerate() {
            let mut frame = fragments[at].frame;
            if packet.start() != frame.addr() % FRAME_SIZE {
                self.ports.set_start(&mut frame, packet.start());
            }
            let (verdict, length) = (packet.verdict, packet.len());
            self.dispose(frame, length, verdict, Place::BATCH);
        }
        !fragments.is_empty()
    }

    /// Looks through the waiting packets: some next hops may be known now.
    fn retry_waiting(&mut self) {
        for _ in 0..self.pending.count() {
            let Some(waiting) = self.pending.pop() else {
                return;
            };
            let Parked { frame, length } = waiting.frame;
            let verdict = self.finish(&waiting);
            match verdict {
                Verdict::Unresolved { .. } => self.pending.put_back(waiting),
                Verdict::Drop(reason) => {
                    self.lose(reason, length);
                    self.ports.give_back(frame, Place::PENDING);
                }
                Verdict::Transmit(_) | Verdict::Hold { .. } | Verdict::Kernel => {
                    self.dispose(frame, length, verdict, Place::PENDING);
                }
            }
        }
    }

    fn finish(&self, waiting: &Waiting<Parked>) -> Verdict {
        let Parked { frame, length } = waiting.frame;
        // SAFETY: the frame waits in our list, so that it is ours; the slice ends within this function.
        let (bytes, start) = unsafe { self.ports.frame(&frame) };
        self.view.network.finish(
            waiting.port,
            waiting.next_hop,
            &mut bytes[start..start + length],
        )
    }

    /// Drops packets whose next hop, or first fragment, did not come in time.
    #[inline]
    fn give_up_waiting(&mut self) {
        while let Some(waiting) = self.pending.expired(self.now.milliseconds()) {
            self.lose(DropReason::NeighbourUnresolved, waiting.frame.length);
            self.ports.give_back(waiting.frame.frame, Place::PENDING);
        }
        while let Some(fragment) = self.held.expired(self.now.milliseconds()) {
            self.lose(DropReason::FragmentUnknown, fragment.length);
            self.ports.give_back(fragment.frame, Place::HELD);
        }
    }

    #[inline]
    fn send(&mut self) {
        let (counters, drops) = (&self.counters, self.forwarder.counters());
        self.ports.send(|port, flushed| {
            counters.sent(port, flushed.sent);
            for _ in 0..flushed.refused {
                drops.dropped(DropReason::TxFull);
            }
            let headers = ETHERNET * flushed.refused;
            let bytes = flushed.refused_bytes.saturating_sub(headers);
            counters.dropped_bytes.add(bytes as u64);
        });
    }

    /// Sends by the way around the rings, to an interface that has no queue for this worker.
    fn send_around(&mut self, port: PortIndex, frame: FrameDesc, length: usize) {
        // SAFETY: the frame is ours until it is given back; the slice ends within this function.
        let (bytes, start) = unsafe { self.ports.frame(&frame) };
        let ifindex = self.board.ifindex(port);
        match self.doors.raw.send(ifindex, &bytes[start..start + length]) {
            Ok(()) => self.counters.sent(port, 1),
            Err(_) => self.lose(DropReason::TxFull, length),
        }
    }

    /// Hands a packet to the kernel.
    fn deliver(&mut self, frame: FrameDesc, length: usize) {
        // SAFETY: the frame is ours until it is given back; the slice ends within this function.
        let (bytes, start) = unsafe { self.ports.frame(&frame) };
        let packet = bytes[start..start + length].get(ETHERNET..);
        match (&self.doors.tun, packet) {
            (Some(tun), Some(packet)) if tun.deliver(packet).is_ok() => {
                self.counters.kernel_packets.add(1);
                self.counters.kernel_bytes.add(packet.len() as u64);
            }
            _ => self.lose(DropReason::KernelRefused, length),
        }
    }

    /// Counts a packet that is dropped after the forwarder has seen it.
    fn lose(&self, reason: DropReason, length: usize) {
        self.forwarder.counters().dropped(reason);
        let bytes = length.saturating_sub(ETHERNET) as u64;
        self.counters.dropped_bytes.add(bytes);
    }

    #[inline]
    fn audit_now_and_then(&mut self) {
        if self.now.milliseconds() - self.audited >= AUDIT_MS {
            self.audited = self.now.milliseconds();
            self.audit();
        }
    }

    fn audit(&mut self) {
        self.ports.audit(self.pending.count(), self.held.count());
        let misplaced = self.misplaced + self.ports.violations();
        self.counters.misplaced_frames.set(misplaced);
    }

    /// Waits for packets, for the bell, or for the next thing that has a time.
    fn sleep(&mut self) {
        let now = self.now.milliseconds();
        let mut longest = (self.audited + AUDIT_MS).saturating_sub(now);
        if let Some(deadline) = self.pending.next_deadline() {
            longest = longest.min(deadline.saturating_sub(now));
        }
        if let Some((at, _)) = &self.try_again {
            longest = longest.min(at.saturating_sub(now));
        }
        if self.held.count() > 0 {
            // The first fragment may come to another worker, which does not wake us.
            longest = longest.min(HELD_NAP_MS);
        }
        if self.ports.is_sending() || self.ports.is_short() {
            longest = longest.min(self.nap);
            self.nap = (self.nap * 2).min(LONGEST_NAP_MS);
        }
        self.counters.sleeps.add(1);
        // SAFETY: the list has this length and lives through the call.
        let ready = unsafe {
            libc::poll(
                self.waits.as_mut_ptr(),
                self.waits.len() as libc::nfds_t,
                longest as libc::c_int + 1,
            )
        };
        if ready > 0 {
            self.answer_wakeup();
        }
    }

    /// Silences the bell and looks after sockets that report an error.
    fn answer_wakeup(&mut self) {
        let complaint = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
        let sockets = self.ports.sockets();
        if self.waits[sockets].revents != 0 {
            self.board.silence(self.number);
        }
        for socket in 0..sockets {
            if self.waits[socket].revents & complaint == 0 {
                continue;
            }
            if let Some(port) = self.ports.check(socket) {
                let Plan { name, queue, .. } = port.plan();
                tracing::warn!(
                    "{name}, queue {queue}: the interface is gone; the others go on, and it will be served again when it is back"
                );
                self.waits[socket].fd = -1;
            }
        }
    }

    /// Closes all sockets and opens those of the plan, because interfaces have come. Packets in the rings are lost.
    fn reopen(&mut self, plans: Vec<Plan>) {
        while let Some(waiting) = self.pending.pop() {
            self.lose(DropReason::NeighbourUnresolved, waiting.frame.length);
        }
        while let Some(fragment) = self.held.pop() {
            self.lose(DropReason::FragmentUnknown, fragment.length);
        }
        // A queue can be bound only once, so that the old sockets have to go first.
        self.misplaced += self.ports.violations();
        self.ports.close();
        match (self.opener)(&plans) {
            Ok(ports) => {
                self.ports = ports;
                self.held = Held::new(self.ports.frames());
                tracing::info!("worker {} serves {} queues now", self.number, plans.len());
            }
            Err(error) => {
                tracing::error!("worker {} cannot serve: {error}; trying again", self.number);
                let at = Instant::now().milliseconds() + REOPEN_MS;
                self.try_again = Some((at, plans));
            }
        }
        self.list_waits();
        self.now = Instant::now();
    }

    fn list_waits(&mut self) {
        let wait = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        self.waits.clear();
        self.waits.extend(self.ports.fds().map(wait));
        self.waits.push(wait(self.board.bell(self.number)));
    }
}
