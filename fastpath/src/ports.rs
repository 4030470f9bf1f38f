//! All sockets of one worker with the frames that they share, and how they are opened: zero copy first, copy mode if
//! that is refused.

use std::num::NonZeroU32;
use std::os::fd::RawFd;
use std::time::Duration;

use arrayvec::ArrayVec;
use ilb_forwarder::network::PortIndex;
use ilb_node::settings::{Fastpath, ZeroCopy};
use xsk_rs::umem::frame::FrameDesc;

use crate::error::OpenError;
use crate::frames::{Ledger, Place};
use crate::port::{BATCH, Flushed, Options, Plan, Port};
use crate::umem::Area;

/// How long a queue may still be held by a process that has just ended: the kernel frees it in the background.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How the packets of a worker get to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyMode {
    /// They stay where the NIC put them.
    ZeroCopy,
    /// The kernel copies them, for this reason.
    Copy(String),
}

/// Sockets and frames of one worker.
pub struct Ports {
    // Dropped in this order: sockets before the memory that they use.
    ports: Vec<Port>,
    /// None when closed.
    area: Option<Area>,
    ledger: Ledger,
    free: Vec<FrameDesc>,
    /// For each interface the number of the socket that sends to it.
    egress: Vec<Option<usize>>,
    copy_mode: CopyMode,
}

impl Ports {
    /// Opens a socket for each plan. `outbox` is how many packets may be sent in one round besides those that were
    /// received in it. `generic` names an interface on which the XDP program does not run in the driver: there, frames
    /// can only be copied.
    ///
    /// # Errors
    /// When any of the sockets cannot be opened.
    pub fn open(
        plans: &[Plan],
        settings: &Fastpath,
        outbox: usize,
        generic: Option<&str>,
    ) -> Result<Ports, OpenError> {
        let reason = match (settings.zero_copy, generic) {
            (ZeroCopy::Never, _) => Some("zero-copy = \"never\" in the node settings".to_owned()),
            (_, Some(name)) => Some(format!("the XDP program on {name} runs in generic mode")),
            (ZeroCopy::Auto | ZeroCopy::Require, None) => None,
        };
        match reason {
            Some(reason) if settings.zero_copy == ZeroCopy::Require => {
                return Err(OpenError::Setting(format!(
                    "zero-copy = \"require\" cannot be met: {reason}"
                )));
            }
            Some(reason) => {
                return Ports::attempt(plans, settings, outbox, CopyMode::Copy(reason));
            }
            None => {}
        }
        match Ports::attempt(plans, settings, outbox, CopyMode::ZeroCopy) {
            Err(OpenError::Socket {
                interface,
                errno,
                reason,
                ..
            }) if settings.zero_copy == ZeroCopy::Auto && refuses_zero_copy(errno) => {
                let reason = format!("no zero copy on {interface}: {reason}");
                Ports::attempt(plans, settings, outbox, CopyMode::Copy(reason))
            }
            outcome => outcome,
        }
    }

    fn attempt(
        plans: &[Plan],
        settings: &Fastpath,
        outbox: usize,
        copy_mode: CopyMode,
    ) -> Result<Ports, OpenError> {
        let total = (settings.frames as usize * plans.len()).max(1);
        let count = u32::try_from(total)
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or_else(|| {
                OpenError::Setting(format!("frames: {total} for one worker are too many"))
            })?;
        let (area, free) = Area::new(count, settings.ring_size)?;
        let options = Options {
            ring_size: settings.ring_size,
            zero_copy: copy_mode == CopyMode::ZeroCopy,
            busy_poll: settings.busy_poll,
        };
        let outbox = outbox + BATCH * plans.len();
        let mut ports = Vec::with_capacity(plans.len());
        for plan in plans {
            let mut port = open_patiently(&area, ports.len(), plan, options, outbox)?;
            // The other half is for what is being sent and for what waits.
            port.set_target(settings.frames as usize / 2);
            ports.push(port);
        }
        let mut egress = vec![None; settings.interfaces.len()];
        for port in &ports {
            let slot = &mut egress[usize::from(port.plan().interface)];
            *slot = slot.or(Some(port.number()));
        }
        let mut opened = Ports {
            ports,
            area: Some(area),
            ledger: Ledger::new(total),
            free,
            egress,
            copy_mode,
        };
        opened.refill();
        Ok(opened)
    }

    /// Gives all queues back. What was in the rings is lost; the books begin anew with the next [`Ports::open`].
    pub fn close(&mut self) {
        self.ports.clear();
        // The first socket of a UMEM is closed with it and not before.
        self.area = None;
        self.egress.fill(None);
        self.ledger = Ledger::new(0);
        self.free.clear();
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.ledger.frames()
    }

    /// Number of sockets.
    pub fn sockets(&self) -> usize {
        self.ports.len()
    }

    /// The sockets.
    pub fn iter(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter()
    }

    /// Whether frames are copied.
    pub fn copy_mode(&self) -> &CopyMode {
        &self.copy_mode
    }

    /// File descriptors to wait on, one per socket; -1, which `poll` passes over, for a dead one.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.ports
            .iter()
            .map(|port| if port.is_dead() { -1 } else { port.fd() })
    }

    /// Interface that socket `number` receives from.
    #[inline]
    pub fn interface(&self, number: usize) -> PortIndex {
        self.ports[number].plan().interface
    }

    /// Takes back what has been sent.
    #[inline]
    pub fn reap(&mut self) -> usize {
        let mut reaped = 0;
        for port in &mut self.ports {
            reaped += port.reap(&mut self.ledger, &mut self.free);
        }
        reaped
    }

    /// Gives the kernel frames to receive into.
    #[inline]
    pub fn refill(&mut self) {
        for port in &mut self.ports {
            port.refill(&mut self.ledger, &mut self.free);
        }
    }

    /// Receives from socket `number`.
    #[inline]
    pub fn receive(&mut self, number: usize, batch: &mut ArrayVec<FrameDesc, BATCH>) {
        self.ports[number].receive(&mut self.ledger, batch);
    }

    /// The bytes of a frame and where its packet begins.
    ///
    /// # Safety
    /// As [`Area::frame`].
    #[inline]
    pub unsafe fn frame<'a>(&self, frame: &FrameDesc) -> (&'a mut [u8], usize) {
        match &self.area {
            // SAFETY: passed on.
            Some(area) => unsafe { area.frame(frame) },
            None => (&mut [], 0),
        }
    }

    /// Says that the packet in a frame of ours now begins at `start` of the frame.
    #[inline]
    pub fn set_start(&self, frame: &mut FrameDesc, start: usize) {
        if let Some(area) = &self.area {
            area.set_start(frame, start);
        }
    }

    /// Posts a packet of `length` bytes for `interface`; it leaves with the next [`Ports::send`]. False, and the frame
    /// stays where it is, if no socket sends there.
    #[inline]
    pub fn post(
        &mut self,
        interface: PortIndex,
        mut frame: FrameDesc,
        length: usize,
        from: Place,
    ) -> bool {
        let egress = self.egress.get(usize::from(interface)).copied();
        let (Some(Some(number)), Some(area)) = (egress, &self.area) else {
            return false;
        };
        area.set_length(&mut frame, length);
        self.ports[number].post(&mut self.ledger, frame, from);
        true
    }

    /// Puts a frame that is done with into the free list.
    #[inline]
    pub fn give_back(&mut self, frame: FrameDesc, from: Place) {
        if self
            .ledger
            .move_frame(Area::index(&frame), from, Place::FREE)
        {
            self.free.push(frame);
        }
    }

    /// Notes that a frame of the batch waits, or that one that waited is being looked at again.
    #[inline]
    pub fn note(&mut self, frame: &FrameDesc, from: Place, to: Place) -> bool {
        self.ledger.move_frame(Area::index(frame), from, to)
    }

    /// Sends everything that was posted. `done` is called for each socket that had something.
    #[inline]
    pub fn send(&mut self, mut done: impl FnMut(PortIndex, Flushed)) {
        for port in &mut self.ports {
            let flushed = port.flush(&mut self.ledger, &mut self.free);
            if flushed != Flushed::default() {
                done(port.plan().interface, flushed);
            }
        }
    }

    /// Looks after a socket that `poll` complains about: nothing is sent to an interface that is gone. Gives the socket
    /// if it has just been found dead.
    pub fn check(&mut self, number: usize) -> Option<&Port> {
        let port = &mut self.ports[number];
        if port.is_dead() || port.check() == 0 {
            return None;
        }
        for egress in &mut self.egress {
            *egress = egress.filter(|e| *e != number);
        }
        Some(&self.ports[number])
    }

    /// Whether frames are under way whose return should be looked after.
    pub fn is_sending(&self) -> bool {
        self.ports.iter().any(Port::is_sending)
    }

    /// Whether a fill ring has fewer frames than it should.
    pub fn is_short(&self) -> bool {
        self.ports.iter().any(Port::is_short)
    }

    /// Checks that every frame is where the books say; `pending` is how many wait for a neighbour,
    /// `held` how many for a first fragment. Not within a round.
    pub fn audit(&mut self, pending: usize, held: usize) -> bool {
        let elsewhere = [
            (Place::FREE, self.free.len()),
            (Place::BATCH, 0),
            (Place::PENDING, pending),
            (Place::HELD, held),
        ];
        self.ledger
            .audit(self.ports.iter().flat_map(Port::census).chain(elsewhere))
    }

    /// See [`Ledger::violations`].
    pub fn violations(&self) -> u64 {
        self.ledger.violations()
    }
}

/// Whether an error of the first attempt may go away in copy mode.
fn refuses_zero_copy(errno: i32) -> bool {
    !matches!(
        errno,
        libc::EBUSY | libc::ENOBUFS | libc::EPERM | libc::ENODEV | libc::ENXIO
    )
}

fn open_patiently(
    area: &Area,
    number: usize,
    plan: &Plan,
    options: Options,
    outbox: usize,
) -> Result<Port, OpenError> {
    let mut waited = Duration::ZERO;
    loop {
        match Port::open(area, number, plan.clone(), options, outbox) {
            Err(error) if error.errno() == libc::EBUSY && waited < BUSY_PATIENCE => {
                std::thread::sleep(BUSY_PAUSE);
                waited += BUSY_PAUSE;
            }
            outcome => return outcome,
        }
    }
}
