//! What an instance does with its addresses: puts them up, announces them, gives them up.

use std::time::Duration;

use libilb::vrrp::{Mac, Version};

use super::{LINGER, Router, TAKING_OVER};
use crate::announcer::announce;
use crate::holder::Holder;
use crate::schedule::Schedule;
use crate::socket::VrrpSocket;

impl Router {
    /// Makes the interface of the virtual MAC address, if it shall have one and has not. Without one the real address has to do:
    /// better than none.
    pub(super) async fn rise(&mut self, holder: &Holder) {
        let instance = &self.instance;
        let Some(open) = &mut self.open else {
            return;
        };
        if instance.mac != Mac::Virtual || open.above.is_some() {
            return;
        }
        let below = (instance.interface.as_str(), &open.interface);
        let made = holder
            .devices
            .make(below, (instance.vrid, instance.is_v6()));
        let device = match made.await {
            Ok(device) => device,
            Err(error) => {
                tracing::error!(
                    "VRRP instance {}: no virtual MAC address on {}, it has the interface's: {error}",
                    instance.name,
                    instance.interface
                );
                return;
            }
        };
        let source = open.machine.config().source;
        match VrrpSocket::from_elsewhere(&device.name, device.index, source) {
            Ok(socket) => open.above = Some((device, socket)),
            Err(error) => {
                tracing::error!(
                    "VRRP instance {}: cannot speak from {}: {error}",
                    instance.name,
                    device.name
                );
                if let Err(error) = holder.devices.remove(&device).await {
                    tracing::error!("cannot take {} away: {error}", device.name);
                }
            }
        }
    }

    /// Puts up those of its addresses that are not there.
    pub(super) async fn put_up(&mut self, holder: &Holder) {
        let name = &self.instance.name;
        let Some(open) = &mut self.open else {
            return;
        };
        let (interface, index) = match &open.above {
            Some((device, _)) => (&device.name, device.index),
            None => (&self.instance.interface, open.interface.index),
        };
        open.lingers = None;
        for address in &self.instance.addresses {
            if open.held.contains(address) {
                continue;
            }
            match holder.add(interface, index, *address).await {
                Ok(true) => open.held.push(*address),
                Ok(false) => tracing::info!(
                    "VRRP instance {name}: address {address} was on {interface} already and stays there"
                ),
                Err(error) => tracing::error!(
                    "VRRP instance {name}: cannot put address {address} on {interface}: {error}"
                ),
            }
        }
    }

    /// Begins to announce them.
    pub(super) fn take(&mut self, now: Duration) {
        let Some(open) = &mut self.open else {
            return;
        };
        let instance = &self.instance;
        open.announcements = Schedule::begin(
            now,
            instance.announcements,
            instance.announce_delay.duration(),
            instance.announce_interval.duration(),
        );
        open.announcements.is_due(now);
        self.announce();
    }

    pub(super) fn announce(&mut self) {
        let name = &self.instance.name;
        let Some(open) = &self.open else {
            return;
        };
        let addresses = &self.instance.addresses;
        let (interface, link) = match &open.above {
            Some((device, _)) => (&device.name, Some(&device.link)),
            None => (&self.instance.interface, open.interface.link.as_ref()),
        };
        if let Some(link) = link {
            match announce(interface, link, addresses) {
                Ok(()) => self.counters.announcements += addresses.len() as u64,
                Err(error) => tracing::warn!(
                    "VRRP instance {name} cannot announce its addresses on {interface}: {error}"
                ),
            }
        }
    }

    /// The addresses are given up, but stay until somebody else has them.
    pub(super) fn linger(&mut self, now: Duration) {
        let Some(open) = &mut self.open else {
            return;
        };
        open.announcements = Schedule::default();
        // Who hears that we gave up waits by its skew time, of version 3 a part of the interval (RFC 9568 section 6.1).
        let longest = match self.instance.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => Duration::from_millis(10) * u32::from(self.instance.interval),
        };
        open.lingers = Some(now + (longest + TAKING_OVER).min(LINGER));
    }

    pub(super) async fn release(&mut self, holder: &Holder) {
        let Some(open) = &mut self.open else {
            return;
        };
        open.announcements = Schedule::default();
        open.lingers = None;
        let index = match &open.above {
            Some((device, _)) => device.index,
            None => open.interface.index,
        };
        for address in std::mem::take(&mut open.held) {
            if let Err(error) = holder.remove(index, address).await {
                tracing::error!(
                    "VRRP instance {}: cannot take address {address} off {}: {error}",
                    self.instance.name,
                    self.instance.interface
                );
            }
        }
        if let Some((device, _)) = open.above.take()
            && let Err(error) = holder.devices.remove(&device).await
        {
            tracing::error!(
                "VRRP instance {}: cannot take {} away: {error}",
                self.instance.name,
                device.name
            );
        }
    }
}
