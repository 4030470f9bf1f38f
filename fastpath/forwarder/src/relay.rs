//! The node whose addresses are taken over, on each interface: it may know the connections that this one does not.
//!
//! When addresses move from a node that lives, neighbours learn of it one after the other, and what is told of connections
//! is a few milliseconds old; of those that are half open, nothing is told at all. So a packet may find the node that does
//! not know what it belongs to. For as long as this is open such a packet is sent on as it came, to the other node, which
//! goes on as ever with what it has begun. Nothing here concerns a packet whose connection is known.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::admission::Window;
use crate::network::{MacAddr, PortIndex};

/// Packets that are sent on in one second at most, so that nobody doubles a flood with us.
pub const RELAYED_PER_SECOND: u32 = 50_000;

/// Number of [`PortIndex`].
const PORTS: usize = 256;

/// Set where there is a neighbour.
const THERE: u64 = 1 << 48;

/// For [`Relay::set`]: until it is said otherwise.
pub const ALWAYS: u32 = u32::MAX;

#[derive(Debug, Default)]
struct Neighbour {
    /// Its Ethernet address and [`THERE`]; 0 for none.
    mac: AtomicU64,
    /// The last second since boot in which packets are sent on.
    until: AtomicU32,
}

/// See the module's text. Shared by all workers, without a lock.
#[derive(Debug)]
pub struct Relay {
    neighbours: Box<[Neighbour]>,
    /// What has been sent on.
    pub sent: Window,
}

impl Default for Relay {
    fn default() -> Relay {
        Relay {
            neighbours: (0..PORTS).map(|_| Neighbour::default()).collect(),
            sent: Window::default(),
        }
    }
}

impl Relay {
    /// Says to whom packets that come in by an interface are sent on, up to and including the second `until` since boot.
    pub fn set(&self, port: PortIndex, to: Option<MacAddr>, until: u32) {
        let neighbour = &self.neighbours[usize::from(port)];
        let mac = to.map_or(0, |[a, b, c, d, e, f]| {
            THERE | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
        });
        neighbour.until.store(until, Ordering::Relaxed);
        neighbour.mac.store(mac, Ordering::Relaxed);
    }

    /// To whom a packet is sent on that came in by this interface in the second `now`.
    pub fn to(&self, port: PortIndex, now: u32) -> Option<MacAddr> {
        let neighbour = &self.neighbours[usize::from(port)];
        let mac = neighbour.mac.load(Ordering::Relaxed);
        if mac & THERE == 0 || now > neighbour.until.load(Ordering::Relaxed) {
            return None;
        }
        let [_, _, a, b, c, d, e, f] = mac.to_be_bytes();
        Some([a, b, c, d, e, f])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_has_a_neighbour_of_its_own_and_a_time() {
        let relay = Relay::default();
        let (one, other) = ([2, 0, 0, 0xfe, 0, 1], [0xff, 0, 0, 0, 0, 0]);
        relay.set(0, Some(one), 10);
        relay.set(255, Some(other), ALWAYS);
        for (port, now, expected) in [
            (0, 9, Some(one)),
            (0, 10, Some(one)),
            (0, 11, None),
            (1, 9, None),
            (255, 11, Some(other)),
            (255, ALWAYS, Some(other)),
        ] {
            assert_eq!(relay.to(port, now), expected, "port {port}, second {now}");
        }
        relay.set(255, None, ALWAYS);
        assert_eq!(relay.to(255, 11), None);
    }
}
