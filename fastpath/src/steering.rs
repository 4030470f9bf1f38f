//! What XDP has to do for this fast path: the program on its interfaces, its sockets in the map, and the addresses of the
//! snapshot in force.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ilb_forwarder::network::PortIndex;
use ilb_forwarder::{Side, Snapshot};
use ilb_node::control::XdpMode;
use ilb_node::settings;
use xdp_redirect::{Attached, LoadOptions, Mode, Redirect};

use crate::ports::Ports;

/// Addresses that can be steered: enough for 100,000 servers behind HALF-NAT rules.
const MAX_ADDRESSES: u32 = 1 << 17;

/// How an interface is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The kernel's index of the interface.
    pub ifindex: u32,
    /// Where the program runs.
    pub mode: XdpMode,
    /// Why not in the driver; empty if it does.
    pub reason: String,
}

struct State {
    redirect: Redirect,
    attached: HashMap<PortIndex, Attachment>,
}

/// See the module's text. Shared by the control thread and the workers, which enter their sockets themselves.
pub struct Steering {
    state: Mutex<State>,
    mode: Mode,
}

impl Steering {
    /// Loads the program, with the maps that an earlier process left.
    ///
    /// # Errors
    /// See [`Redirect::load`].
    pub fn load(pin_dir: &Path, mode: settings::Mode) -> Result<Steering, xdp_redirect::Error> {
        let options = LoadOptions {
            pin_dir: pin_dir.into(),
            max_addresses: MAX_ADDRESSES,
        };
        let state = State {
            redirect: Redirect::load(&options)?,
            attached: HashMap::new(),
        };
        Ok(Steering {
            state: Mutex::new(state),
            mode: match mode {
                settings::Mode::Auto => Mode::Auto,
                settings::Mode::Native => Mode::Native,
                settings::Mode::Generic => Mode::Generic,
            },
        })
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steers by this snapshot. A packet sees the old entry of its address or the new one, never none between.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub fn follow(&self, snapshot: &Snapshot) -> Result<(), xdp_redirect::Error> {
        let mut steering = xdp_redirect::Steering::new();
        for entry in snapshot.steering() {
            let (address, protocol) = (entry.address, entry.protocol);
            let (first, last) = (entry.ports.first, entry.ports.last);
            match entry.side {
                Side::Destination => steering.add_destination(address, protocol, first, last)?,
                Side::Source => steering.add_source(address, protocol, first, last)?,
            }
        }
        let changes = self.locked().redirect.apply(&steering)?;
        tracing::debug!(?changes, "steering follows the snapshot");
        Ok(())
    }

    /// Puts the program on an interface; does nothing if it is there already.
    ///
    /// # Errors
    /// See [`Redirect::attach`].
    pub fn attach(
        &self,
        port: PortIndex,
        name: &str,
        ifindex: u32,
    ) -> Result<(), xdp_redirect::Error> {
        let mut state = self.locked();
        if state
            .attached
            .get(&port)
            .is_some_and(|a| a.ifindex == ifindex)
        {
            return Ok(());
        }
        let Attached {
            ifindex,
            mode_used,
            reason,
            ..
        } = state.redirect.attach(name, self.mode)?;
        let attachment = Attachment {
            ifindex,
            mode: match mode_used {
                Mode::Native => XdpMode::Native,
                Mode::Auto | Mode::Generic => XdpMode::Generic,
            },
            reason: reason.unwrap_or_default(),
        };
        state.attached.insert(port, attachment);
        Ok(())
    }

    /// Takes the program off interfaces that the node settings do not name any more.
    ///
    /// # Errors
    /// See [`Redirect::detach_except`].
    pub fn detach_others(&self) -> Result<(), xdp_redirect::Error> {
        let mut state = self.locked();
        let ours: Vec<u32> = state.attached.values().map(|a| a.ifindex).collect();
        state.redirect.detach_except(&ours)?;
        Ok(())
    }

    /// An interface is gone, and its link with it.
    pub fn forget(&self, port: PortIndex) {
        self.locked().attached.remove(&port);
    }

    /// How an interface is attached, if it is.
    pub fn attachment(&self, port: PortIndex) -> Option<Attachment> {
        self.locked().attached.get(&port).cloned()
    }

    /// Steers to the sockets of a worker. `ifindex` gives the kernel's index of an interface.
    ///
    /// # Errors
    /// See [`Redirect::set_socket`].
    pub fn enter(
        &self,
        ports: &Ports,
        ifindex: impl Fn(PortIndex) -> u32,
    ) -> Result<(), xdp_redirect::Error> {
        let mut state = self.locked();
        for port in ports.iter() {
            let plan = port.plan();
            let ifindex = ifindex(plan.interface);
            state.redirect.set_socket(ifindex, plan.queue, port.fd())?;
        }
        Ok(())
    }
}
