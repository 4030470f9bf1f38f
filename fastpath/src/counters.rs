//! What one worker counts besides the forwarder: frames by interface, and bytes that go nowhere. Written by the worker
//! alone, read by the control thread at any time.

use std::sync::atomic::{AtomicU64, Ordering};

use ilb_forwarder::network::PortIndex;

/// A number that one thread writes and all may read.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; by the owning thread only.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Sets; by the owning thread only.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One worker's counters.
#[repr(align(128))]
pub struct Counters {
    received: Box<[Counter]>,
    sent: Box<[Counter]>,
    /// Bytes of dropped packets, from the IP header on.
    pub dropped_bytes: Counter,
    /// Packets that the kernel got.
    pub kernel_packets: Counter,
    /// Bytes of them, from the IP header on.
    pub kernel_bytes: Counter,
    /// Frames that were not where they had to be; see [`crate::frames::Ledger`].
    pub misplaced_frames: Counter,
    /// Times that the worker slept.
    pub sleeps: Counter,
}

impl Counters {
    /// All zero, for this many interfaces.
    pub fn new(interfaces: usize) -> Counters {
        let zero = || (0..interfaces).map(|_| Counter::default()).collect();
        Counters {
            received: zero(),
            sent: zero(),
            dropped_bytes: Counter::default(),
            kernel_packets: Counter::default(),
            kernel_bytes: Counter::default(),
            misplaced_frames: Counter::default(),
            sleeps: Counter::default(),
        }
    }

    /// Counts frames that came in.
    #[inline]
    pub fn received(&self, port: PortIndex, n: usize) {
        self.received[usize::from(port)].add(n as u64);
    }

    /// Counts frames that went out.
    #[inline]
    pub fn sent(&self, port: PortIndex, n: usize) {
        self.sent[usize::from(port)].add(n as u64);
    }

    /// Frames received on an interface.
    pub fn frames_received(&self, port: PortIndex) -> u64 {
        self.received[usize::from(port)].get()
    }

    /// Frames sent on an interface.
    pub fn frames_sent(&self, port: PortIndex) -> u64 {
        self.sent[usize::from(port)].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_by_interface_and_direction() {
        let counters = Counters::new(2);
        counters.received(0, 3);
        counters.received(1, 1);
        counters.received(0, 2);
        counters.sent(1, 7);
        assert_eq!(
            [counters.frames_received(0), counters.frames_received(1)],
            [5, 1]
        );
        assert_eq!([counters.frames_sent(0), counters.frames_sent(1)], [0, 7]);
    }
}
