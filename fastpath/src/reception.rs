//! Which worker serves which queues, and how.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ilb_forwarder::network::PortIndex;
use ilb_node::control::{InterfaceStatus, Status, XdpMode};
use ilb_node::settings::{Fastpath, MAX_QUEUES, Queues};

use crate::board::Board;
use crate::error::{OpenError, StartError};
use crate::pending;
use crate::picture::Picture;
use crate::port::Plan;
use crate::ports::{CopyMode, Ports};
use crate::queues::receive_queues;
use crate::statistics::Counted;
use crate::steering::Steering;
use crate::umem::{FRAME_SIZE, HEADROOM};

/// Room before a packet, and an Ethernet header with a VLAN tag, in bytes.
const AROUND_PACKET: usize = HEADROOM + 18;

/// What one worker serves.
#[derive(Debug, Clone)]
struct Serving {
    plans: Vec<Plan>,
    copy_mode: CopyMode,
}

/// See the module's text.
pub struct Reception {
    settings: Fastpath,
    workers: usize,
    serving: Mutex<Vec<Option<Serving>>>,
}

/// Number of workers: as the settings say, or as many as the interface with most queues has.
///
/// # Errors
/// When there are more queues than can be served.
pub fn workers(settings: &Fastpath) -> Result<usize, StartError> {
    match settings.queues {
        Queues::Count(count) => Ok(count as usize),
        Queues::All => {
            let mut most = 1;
            for name in &settings.interfaces {
                most = most.max(checked_queues(name)?);
            }
            Ok(most as usize)
        }
    }
}

/// Queues of an interface; 0 if it does not exist.
fn checked_queues(name: &str) -> Result<u32, StartError> {
    let queues = receive_queues(name).unwrap_or(0);
    if queues > MAX_QUEUES {
        return Err(OpenError::Setting(format!(
            "interface {name} has {queues} receive queues and at most {MAX_QUEUES} can be served: reduce them with \
             ethtool -L {name} combined {MAX_QUEUES}"
        ))
        .into());
    }
    Ok(queues)
}

impl Reception {
    /// Nobody serves anything yet.
    pub fn new(settings: Fastpath, workers: usize) -> Reception {
        Reception {
            settings,
            workers,
            serving: Mutex::new(vec![None; workers]),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Option<Serving>>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who shall serve what, given the interfaces that are there; puts the program on those that do not have it. Queue q
    /// goes to worker q, and to those from the beginning again if there are more queues than workers.
    ///
    /// # Errors
    /// When the program cannot be attached, or an interface has too many queues.
    pub fn plan(
        &self,
        picture: &Picture,
        steering: &Steering,
    ) -> Result<Vec<Vec<Plan>>, StartError> {
        let mut plans = vec![Vec::new(); self.workers];
        for (port, name) in self.settings.interfaces.iter().enumerate() {
            let interface = port as PortIndex;
            let Some(link) = picture.link(interface) else {
                tracing::warn!(
                    "interface {name}: it is not there; it will be served when it comes"
                );
                continue;
            };
            if usize::from(link.mtu) + AROUND_PACKET > FRAME_SIZE {
                tracing::warn!(
                    "interface {name}: packets of more than {} bytes cannot be received, and its MTU is {}: lower that",
                    FRAME_SIZE - AROUND_PACKET,
                    link.mtu
                );
            }
            steering.attach(interface, name, link.ifindex)?;
            for queue in 0..checked_queues(name)? {
                plans[queue as usize % self.workers].push(Plan {
                    interface,
                    name: name.clone(),
                    queue,
                });
            }
        }
        Ok(plans)
    }

    /// Opens a worker's sockets and has XDP steer to them.
    ///
    /// # Errors
    /// See [`Ports::open`] and [`Steering::enter`].
    pub fn open(
        &self,
        worker: usize,
        plans: &[Plan],
        steering: &Steering,
        board: &Board,
    ) -> Result<Ports, StartError> {
        let generic = plans.iter().find(|plan| {
            steering
                .attachment(plan.interface)
                .is_some_and(|a| a.mode == XdpMode::Generic)
        });
        let generic = generic.map(|plan| plan.name.as_str());
        let ports = Ports::open(plans, &self.settings, pending::CAPACITY, generic)?;
        steering.enter(&ports, |port| board.ifindex(port))?;
        let copy_mode = ports.copy_mode().clone();
        for Plan { name, queue, .. } in plans {
            match &copy_mode {
                CopyMode::ZeroCopy => {
                    tracing::info!(
                        "{name}, queue {queue}: worker {worker} serves it with zero copy"
                    );
                }
                CopyMode::Copy(reason) => {
                    tracing::info!(
                        "{name}, queue {queue}: worker {worker} serves it in copy mode: {reason}"
                    );
                }
            }
        }
        self.locked()[worker] = Some(Serving {
            plans: plans.to_vec(),
            copy_mode,
        });
        Ok(ports)
    }

    /// How every interface is served.
    pub fn status(&self, steering: &Steering, counted: &[Counted]) -> Status {
        let serving = self.locked();
        let interfaces = self
            .settings
            .interfaces
            .iter()
            .enumerate()
            .map(|(port, name)| {
                let port = port as PortIndex;
                let mut status = InterfaceStatus {
                    name: name.clone(),
                    zero_copy: true,
                    ..InterfaceStatus::default()
                };
                status.attached = Some(steering.attachment(port).is_some());
                match steering.attachment(port) {
                    Some(attachment) => {
                        status.mode = attachment.mode;
                        status.mode_reason = attachment.reason;
                    }
                    None => status.mode_reason = "there is no such interface".into(),
                }
                for worker in serving.iter().flatten() {
                    let own = worker.plans.iter().filter(|plan| plan.interface == port);
                    let queues = own.count() as u32;
                    if let (CopyMode::Copy(reason), true) = (&worker.copy_mode, queues > 0) {
                        status.zero_copy = false;
                        status.copy_reason.clone_from(reason);
                    }
                    status.queues += queues;
                }
                status.zero_copy &= status.queues > 0;
                let frames = |of: fn(&crate::counters::Counters, PortIndex) -> u64| -> u64 {
                    counted.iter().map(|c| of(&c.worker, port)).sum()
                };
                status.rx_packets = frames(crate::counters::Counters::frames_received);
                status.tx_packets = frames(crate::counters::Counters::frames_sent);
                status
            })
            .collect();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            workers: self.workers as u32,
            interfaces,
            ..Status::default()
        }
    }
}
