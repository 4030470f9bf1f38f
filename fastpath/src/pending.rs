//! Packets that wait until the link-layer address of their next hop is known. Bounded in number, per next hop and in
//! time, so that a dead next hop cannot take all frames.

use std::collections::VecDeque;
use std::net::IpAddr;

use ilb_forwarder::network::PortIndex;

/// Packets that may wait, all next hops together.
pub const CAPACITY: usize = 256;
/// Packets that may wait for one next hop.
pub const PER_NEXT_HOP: usize = 16;
/// Milliseconds after which a packet is given up: the kernel tries three times, a second apart.
pub const PATIENCE_MS: u64 = 3_000;
/// Milliseconds after which somebody is asked again while packets keep coming: a request may have been lost, or made
/// before the next hop was there.
pub const ASK_AGAIN_MS: u64 = 600;

/// A packet and what it waits for.
#[derive(Debug)]
pub struct Waiting<F> {
    /// The packet.
    pub frame: F,
    /// Interface that the next hop lives on.
    pub port: PortIndex,
    /// Whose link-layer address is missing.
    pub next_hop: IpAddr,
    deadline: u64,
    /// When somebody was asked last for this next hop, as of this packet.
    asked: u64,
}

/// What [`Pending::push`] did.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed<F> {
    /// The packet waits, as others for this next hop do.
    Waits,
    /// The packet waits and is the first for this next hop, or the first for a while, so that somebody has to be asked
    /// to resolve it.
    Ask,
    /// There is no room; the packet comes back.
    Refused(F),
}

/// The waiting packets of one worker, oldest first.
#[derive(Debug)]
pub struct Pending<F> {
    waiting: VecDeque<Waiting<F>>,
}

impl<F> Default for Pending<F> {
    /// An empty list; allocates all that it will ever need.
    fn default() -> Pending<F> {
        Pending {
            waiting: VecDeque::with_capacity(CAPACITY),
        }
    }
}

impl<F> Pending<F> {
    /// Number of waiting packets.
    pub fn count(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a packet at `now` (milliseconds of a clock that does not go back).
    pub fn push(&mut self, frame: F, port: PortIndex, next_hop: IpAddr, now: u64) -> Pushed<F> {
        let mut same = 0;
        let mut asked = None;
        for waiting in &self.waiting {
            if waiting.next_hop == next_hop && waiting.port == port {
                same += 1;
                asked = asked.max(Some(waiting.asked));
            }
        }
        if same >= PER_NEXT_HOP || self.waiting.len() >= CAPACITY {
            return Pushed::Refused(frame);
        }
        let lately = asked.filter(|then| now.saturating_sub(*then) < ASK_AGAIN_MS);
        self.waiting.push_back(Waiting {
            frame,
            port,
            next_hop,
            deadline: now + PATIENCE_MS,
            asked: lately.unwrap_or(now),
        });
        match lately {
            Some(_) => Pushed::Waits,
            None => Pushed::Ask,
        }
    }

    /// Takes out the oldest packet, whatever its deadline.
    pub fn pop(&mut self) -> Option<Waiting<F>> {
        self.waiting.pop_front()
    }

    /// Puts a packet back that [`Pending::pop`] took out; it keeps its deadline.
    pub fn put_back(&mut self, waiting: Waiting<F>) {
        self.waiting.push_back(waiting);
    }

    /// Takes out the oldest packet if its time is over.
    pub fn expired(&mut self, now: u64) -> Option<Waiting<F>> {
        self.waiting.front().filter(|w| w.deadline <= now)?;
        self.waiting.pop_front()
    }

    /// When the first packet will be given up, in milliseconds of the same clock.
    pub fn next_deadline(&self) -> Option<u64> {
        self.waiting.front().map(|w| w.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn hop(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n))
    }

    #[test]
    fn the_first_packet_for_a_next_hop_asks_and_the_others_wait() {
        let mut pending = Pending::default();
        assert_eq!(pending.push(1, 0, hop(1), 0), Pushed::Ask);
        assert_eq!(pending.push(2, 0, hop(1), 0), Pushed::Waits);
        assert_eq!(pending.push(3, 1, hop(1), 0), Pushed::Ask);
        assert_eq!(pending.push(4, 0, hop(2), 0), Pushed::Ask);
        assert_eq!(pending.count(), 4);
    }

    #[test]
    fn packets_that_keep_coming_ask_again() {
        // A client that repeats its SYN every second, so that there is always one that waits.
        let mut pending = Pending::default();
        assert_eq!(pending.push(1, 0, hop(1), 0), Pushed::Ask);
        assert_eq!(pending.push(2, 0, hop(1), ASK_AGAIN_MS - 1), Pushed::Waits);
        assert_eq!(pending.push(3, 0, hop(1), ASK_AGAIN_MS), Pushed::Ask);
        assert_eq!(pending.push(4, 0, hop(1), ASK_AGAIN_MS + 1), Pushed::Waits);
        assert_eq!(pending.push(5, 0, hop(1), 2 * ASK_AGAIN_MS), Pushed::Ask);
    }

    #[test]
    fn one_next_hop_cannot_take_all_the_room() {
        let mut pending = Pending::default();
        for frame in 0..PER_NEXT_HOP {
            assert!(!matches!(
                pending.push(frame, 0, hop(1), 0),
                Pushed::Refused(_)
            ));
        }
        assert_eq!(pending.push(99, 0, hop(1), 0), Pushed::Refused(99));
        assert_eq!(pending.push(100, 0, hop(2), 0), Pushed::Ask);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut pending = Pending::default();
        for n in 0..CAPACITY {
            assert_eq!(pending.push(n, 0, hop(n as u32), 0), Pushed::Ask);
        }
        assert_eq!(
            pending.push(CAPACITY, 0, hop(70_000), 0),
            Pushed::Refused(CAPACITY)
        );
    }

    #[test]
    fn packets_expire_in_order_and_not_early() {
        let mut pending = Pending::default();
        pending.push('a', 0, hop(1), 0);
        pending.push('b', 0, hop(2), 10);
        assert_eq!(pending.next_deadline(), Some(PATIENCE_MS));
        assert!(pending.expired(PATIENCE_MS - 1).is_none());
        assert_eq!(pending.expired(PATIENCE_MS).unwrap().frame, 'a');
        assert!(pending.expired(PATIENCE_MS).is_none());
        assert_eq!(pending.expired(PATIENCE_MS + 10).unwrap().frame, 'b');
        assert!(pending.next_deadline().is_none());
    }

    #[test]
    fn going_through_the_list_once_keeps_its_order() {
        let mut pending = Pending::default();
        for frame in 0..5 {
            pending.push(frame, 0, hop(frame), u64::from(frame));
        }
        for _ in 0..pending.count() {
            let waiting = pending.pop().unwrap();
            if waiting.frame % 2 == 0 {
                pending.put_back(waiting);
            }
        }
        let left: Vec<u32> = std::iter::from_fn(|| pending.pop())
            .map(|w| w.frame)
            .collect();
        assert_eq!(left, [0, 2, 4]);
    }
}
