//! One AF_XDP socket: one queue of one interface, with its four rings.
//! Kernel reference: Documentation/networking/af_xdp.rst, net/xdp/xsk.c.

use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};

use arrayvec::ArrayVec;
use ilb_forwarder::network::PortIndex;
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::umem::{CompQueue, FillQueue};
use xsk_rs::{RxQueue, Socket, TxQueue};

use crate::error::{OpenError, explain, os_error};
use crate::frames::{Ledger, Place};
use crate::umem::Area;

/// Packets that are received at once.
pub const BATCH: usize = 64;

/// Frames that one `sendto` sends at most in copy mode (`TX_BATCH_SIZE`, net/xdp/xsk.c).
const SENT_AT_ONCE: u32 = 32;

/// Tries to get frames into a full transmit ring before they are dropped.
const SEND_TRIES: usize = 4;

/// Which queue a port serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The interface's index in the node settings.
    pub interface: PortIndex,
    /// Its name.
    pub name: String,
    /// Its queue.
    pub queue: u32,
}

/// Settings of a socket.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Entries of each ring.
    pub ring_size: u32,
    /// Ask for zero copy, or for copy mode.
    pub zero_copy: bool,
    /// Let the kernel poll the device from our system calls (SO_PREFER_BUSY_POLL).
    pub busy_poll: bool,
}

/// What became of an outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Packets that the transmit ring took.
    pub sent: usize,
    /// Packets that it did not take.
    pub refused: usize,
    /// Their bytes, Ethernet headers included.
    pub refused_bytes: usize,
}

/// An open socket. Dropping it gives the queue back; frames that were with the kernel then stay with this UMEM.
pub struct Port {
    plan: Plan,
    number: usize,
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    fd: RawFd,
    ring_size: u32,
    /// Frames with the kernel to receive into.
    given: usize,
    /// How many that should be.
    target: usize,
    /// Frames with the kernel to be sent.
    sending: usize,
    /// Whether the kernel did not take all frames of the transmit ring at the last kick.
    stalled: bool,
    /// Frames to be sent with the next flush.
    outbox: Vec<FrameDesc>,
    scratch: ArrayVec<FrameDesc, BATCH>,
    /// Where the rings write what they give, never read beyond that.
    taken: Box<[FrameDesc; BATCH]>,
    dead: bool,
}

impl Port {
    /// Opens the socket; it is the worker's `number`-th. The first one of an area decides for all whether frames are
    /// copied: the kernel has no other arrangement for a shared UMEM.
    ///
    /// # Errors
    /// See [`explain`].
    pub fn open(
        area: &Area,
        number: usize,
        plan: Plan,
        options: Options,
        outbox: usize,
    ) -> Result<Port, OpenError> {
        let refused = |errno| OpenError::socket(&plan.name, plan.queue, errno);
        let size = QueueSize::new(options.ring_size)
            .map_err(|e| OpenError::Setting(format!("ring-size: {e}")))?;
        let copy = if options.zero_copy {
            BindFlags::XDP_ZEROCOPY
        } else {
            BindFlags::XDP_COPY
        };
        let config = SocketConfig::builder()
            .rx_queue_size(size)
            .tx_queue_size(size)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_USE_NEED_WAKEUP | copy)
            .build();
        let name = CString::new(plan.name.as_str()).map_err(|_| refused(libc::ENODEV))?;
        // SAFETY: the flag that the contract asks for (no program of libxdp) is set.
        let opened = unsafe { Socket::new(config, area.umem(), &Interface::new(name), plan.queue) };
        let (tx, rx, rings) = opened.map_err(|error| refused(os_error(&error)))?;
        // Without rings of its own, this queue is already bound with this UMEM: then it stood in the plan twice.
        let (fill, completion) = rings.ok_or_else(|| refused(libc::EBUSY))?;
        let fd = rx.fd().as_raw_fd();
        if options.busy_poll {
            prefer_busy_poll(fd, &plan);
        }
        Ok(Port {
            plan,
            number,
            rx,
            tx,
            fill,
            completion,
            fd,
            ring_size: options.ring_size,
            given: 0,
            target: options.ring_size as usize,
            sending: 0,
            stalled: false,
            outbox: Vec::with_capacity(outbox),
            scratch: ArrayVec::new(),
            taken: Box::new([FrameDesc::default(); BATCH]),
            dead: false,
        })
    }

    /// The queue that it serves.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its number within the worker.
    pub fn number(&self) -> usize {
        self.number
    }

    /// For `poll` and the XSKMAP.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// How many frames the kernel shall have to receive into, at most the ring's size.
    pub fn set_target(&mut self, frames: usize) {
        self.target = frames.min(self.ring_size as usize);
    }

    /// Takes back what has been sent.
    #[inline]
    pub fn reap(&mut self, ledger: &mut Ledger, free: &mut Vec<FrameDesc>) -> usize {
        let mut reaped = 0;
        while self.sending > 0 {
            // SAFETY: the descriptors are used with this port's UMEM only.
            let n = unsafe { self.completion.consume(&mut self.taken[..]) };
            self.sending -= n.min(self.sending);
            for frame in &self.taken[..n] {
                if ledger.move_frame(
                    Area::index(frame),
                    Place::transmit(self.number),
                    Place::FREE,
                ) {
                    free.push(*frame);
                }
            }
            reaped += n;
            if n < BATCH {
                break;
            }
        }
        reaped
    }

    /// Gives the kernel frames to receive into, as many as it lacks and there are.
    #[inline]
    pub fn refill(&mut self, ledger: &mut Ledger, free: &mut Vec<FrameDesc>) {
        while self.given < self.target && !free.is_empty() {
            let n = (self.target - self.given).min(free.len()).min(BATCH);
            self.scratch.clear();
            for frame in free.drain(free.len() - n..) {
                if ledger.move_frame(Area::index(&frame), Place::FREE, Place::fill(self.number)) {
                    self.scratch.push(frame);
                }
            }
            // SAFETY: the ledger says that these frames were free, so that nobody else uses them.
            let taken = unsafe { self.fill.produce(&self.scratch) };
            self.given += taken;
            if taken < self.scratch.len() {
                // The ring holds no more, which `target` should have prevented: all of them come back.
                for frame in self.scratch.drain(..) {
                    if ledger.move_frame(Area::index(&frame), Place::fill(self.number), Place::FREE)
                    {
                        free.push(frame);
                    }
                }
                break;
            }
        }
        if self.fill.needs_wakeup() {
            self.wake_receiver();
        }
    }

    /// Receives up to [`BATCH`] packets into `batch`, which must be empty.
    #[inline]
    pub fn receive(&mut self, ledger: &mut Ledger, batch: &mut ArrayVec<FrameDesc, BATCH>) {
        // SAFETY: the descriptors are used with this port's UMEM only.
        let n = unsafe { self.rx.consume(&mut self.taken[..]) };
        self.given -= n.min(self.given);
        for frame in &self.taken[..n] {
            if ledger.move_frame(Area::index(frame), Place::fill(self.number), Place::BATCH) {
                batch.push(*frame);
            }
        }
    }

    /// Puts a packet, whose length is set, into the outbox; `from` is where it is now.
    #[inline]
    pub fn post(&mut self, ledger: &mut Ledger, frame: FrameDesc, from: Place) {
        if ledger.move_frame(Area::index(&frame), from, Place::transmit(self.number)) {
            self.outbox.push(frame);
        }
    }

    /// Sends the outbox. Frames for which the ring has no room, even after the kernel was asked to hurry, become free.
    #[inline]
    pub fn flush(&mut self, ledger: &mut Ledger, free: &mut Vec<FrameDesc>) -> Flushed {
        if self.outbox.is_empty() {
            if self.stalled {
                self.kick();
            }
            return Flushed::default();
        }
        let mut sent = 0;
        for _ in 0..SEND_TRIES {
            let left = self.outbox.len() - sent;
            let room = self
                .room()
                .min(self.tx.nb_free(left as u32) as usize)
                .min(left);
            if room > 0 {
                // SAFETY: the ledger says that these frames were ours, and `post` moved them to this ring.
                let n = unsafe { self.tx.produce(&self.outbox[sent..sent + room]) };
                self.sending += n;
                sent += n;
            }
            self.kick();
            if sent == self.outbox.len() {
                break;
            }
            self.reap(ledger, free);
        }
        let mut flushed = Flushed {
            sent,
            refused: self.outbox.len() - sent,
            refused_bytes: 0,
        };
        for frame in self.outbox.drain(sent..) {
            flushed.refused_bytes += frame.lengths().data();
            if ledger.move_frame(
                Area::index(&frame),
                Place::transmit(self.number),
                Place::FREE,
            ) {
                free.push(frame);
            }
        }
        self.outbox.clear();
        flushed
    }

    /// How many more frames may be under way: as many as the completion ring can give back.
    fn room(&self) -> usize {
        (self.ring_size as usize).saturating_sub(self.sending)
    }

    /// Asks the kernel to send what is in the transmit ring, until it has taken all or takes no more.
    #[inline]
    fn kick(&mut self) {
        if !self.tx.needs_wakeup() {
            self.stalled = false;
            return;
        }
        let mut queued = self.ring_size - self.tx.nb_free_exact();
        let tries = queued / SENT_AT_ONCE + 2;
        for _ in 0..tries {
            if queued == 0 {
                break;
            }
            // SAFETY: a null buffer of length 0 is what AF_XDP expects.
            unsafe {
                libc::sendto(
                    self.fd,
                    std::ptr::null(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null(),
                    0,
                )
            };
            // Its result says little (EAGAIN for "more to do", EBUSY, ENOBUFS, ENETDOWN): the ring says all.
            let left = self.ring_size - self.tx.nb_free_exact();
            if left >= queued {
                break;
            }
            queued = left;
        }
        self.stalled = queued > 0;
    }

    /// Tells a sleeping driver that the fill ring has frames again.
    #[cold]
    fn wake_receiver(&self) {
        // SAFETY: a null buffer of length 0 is what AF_XDP expects.
        unsafe {
            libc::recvfrom(
                self.fd,
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }

    /// The error that makes `poll` return at once, 0 if there is none. With one, the interface is gone: the kernel has
    /// unbound the socket, and it is left alone from now on.
    pub fn check(&mut self) -> i32 {
        let mut errno: libc::c_int = 0;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the option value is a C int that lives through the call.
        unsafe {
            libc::getsockopt(
                self.fd,
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut errno).cast(),
                &raw mut len,
            )
        };
        self.dead |= errno != 0;
        errno
    }

    /// Whether the interface is gone.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Whether frames are under way to the wire.
    pub fn is_sending(&self) -> bool {
        self.sending > 0 && !self.dead
    }

    /// Whether the kernel has fewer frames to receive into than it should.
    pub fn is_short(&self) -> bool {
        self.given < self.target && !self.dead
    }

    /// Frames by place, as this port counts them itself.
    pub fn census(&self) -> [(Place, usize); 2] {
        [
            (Place::fill(self.number), self.given),
            (
                Place::transmit(self.number),
                self.sending + self.outbox.len(),
            ),
        ]
    }
}

/// See Documentation/networking/napi.rst. A kernel that cannot only costs speed, so that it is only said.
fn prefer_busy_poll(fd: RawFd, plan: &Plan) {
    /// include/uapi/asm-generic/socket.h
    const SO_PREFER_BUSY_POLL: libc::c_int = 69;
    const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
    const MICROSECONDS: libc::c_int = 20;
    for (name, value) in [
        (SO_PREFER_BUSY_POLL, 1),
        (libc::SO_BUSY_POLL, MICROSECONDS),
        (SO_BUSY_POLL_BUDGET, BATCH as libc::c_int),
    ] {
        // SAFETY: the option value is a C int that lives through the call.
        let result = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                name,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result != 0 {
            let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
            tracing::warn!(
                "{}, queue {}: busy polling is not available: {}",
                plan.name,
                plan.queue,
                explain(errno)
            );
            return;
        }
    }
}
