//! NAT source ports. There is no list of free ports: a port is free towards a server when the connection table has no
//! entry with that reverse key, and entering the key is what takes it. So workers cannot collide, and nothing is lost
//! or leaked when one is killed.

use crate::packet::Ports;
use crate::spec::PortRange;

/// Ports, or identifiers of ICMP queries, that we use on `proxy-src` addresses: all but the well-known ones.
pub const PORTS: PortRange = PortRange {
    first: 1024,
    last: u16::MAX,
};

/// Which ports of a source address are ours to take: all, or half of them, because the peer takes the others. What both
/// take without knowing of each other's cannot meet then. The lowest bit of a port decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Share {
    /// All.
    #[default]
    All,
    /// The even ones.
    Even,
    /// The odd ones.
    Odd,
}

impl Share {
    /// Whether a port of a source address may be one that the peer has taken: all of those that are not ours to take, and any
    /// where nothing is shared out.
    pub fn may_be_others(self, ports: Ports, port: u16) -> bool {
        match (self, ports) {
            (Share::All, _) | (_, Ports::None) => true,
            (Share::Even, Ports::Both | Ports::Identifier) => port % 2 == 1,
            (Share::Odd, Ports::Both | Ports::Identifier) => port.is_multiple_of(2),
        }
    }
}

const COUNT: u32 = (PORTS.last - PORTS.first) as u32 + 1;

/// Attempts before the ports count as exhausted. With nine ports in ten taken, one connection in a million fails.
pub const ATTEMPTS: u32 = 128;

/// Candidates for one connection: pseudo-random, so that neighbours do not try the same ones, each at most once.
#[derive(Debug, Clone)]
pub struct Candidates {
    at: u32,
    stride: u32,
    space: u32,
    left: u32,
    /// First port of each address, how many there are and how far apart they lie. A protocol that has none counts as
    /// having the one port 0.
    first: u16,
    count: u32,
    step: u32,
}

impl Candidates {
    /// For `addresses` source addresses (1..=10), seeded by the flow's hash.
    pub fn new(ports: Ports, addresses: usize, hash: u64, share: Share) -> Candidates {
        let (first, count, step) = match (ports, share) {
            (Ports::Both | Ports::Identifier, Share::All) => (PORTS.first, COUNT, 1),
            (Ports::Both | Ports::Identifier, Share::Even) => (PORTS.first, COUNT / 2, 2),
            (Ports::Both | Ports::Identifier, Share::Odd) => (PORTS.first + 1, COUNT / 2, 2),
            (Ports::None, _) => (0, 1, 1),
        };
        let space = addresses.max(1) as u32 * count;
        // 64,512 = 2^10 · 3^2 · 7, times up to 10: a stride without these factors and 5 visits everything once.
        let mut stride = ((hash >> 32) as u32 % space) | 1;
        while [3, 5, 7]
            .iter()
            .any(|factor| stride.is_multiple_of(*factor))
        {
            stride += 2;
        }
        Candidates {
            at: hash as u32 % space,
            stride,
            space,
            left: ATTEMPTS.min(space),
            first,
            count,
            step,
        }
    }
}

impl Iterator for Candidates {
    /// Index of the source address, and port.
    type Item = (u8, u16);

    fn next(&mut self) -> Option<(u8, u16)> {
        self.left = self.left.checked_sub(1)?;
        self.at = ((self.at as u64 + self.stride as u64) % self.space as u64) as u32;
        let port = self.at % self.count * self.step;
        Some(((self.at / self.count) as u8, self.first + port as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn candidates_are_allowed_distinct_and_spread() {
        let shares = [Share::All, Share::Even, Share::Odd];
        for (addresses, share) in (1..=10).flat_map(|n| shares.map(|share| (n, share))) {
            for hash in [0, 1, u64::MAX, 0x1234_5678_9abc_def0, 3 << 32, 105 << 32] {
                let candidates: Vec<_> =
                    Candidates::new(Ports::Both, addresses, hash, share).collect();
                assert_eq!(candidates.len(), ATTEMPTS as usize);
                assert_eq!(
                    candidates.iter().collect::<HashSet<_>>().len(),
                    ATTEMPTS as usize
                );
                assert!(
                    candidates
                        .iter()
                        .all(|&(n, port)| (n as usize) < addresses && PORTS.contains(port))
                );
                let ours = |port: u16| match share {
                    Share::All => true,
                    Share::Even => port.is_multiple_of(2),
                    Share::Odd => port % 2 == 1,
                };
                assert!(candidates.iter().all(|&(_, port)| ours(port)));
                let mut portless: Vec<_> =
                    Candidates::new(Ports::None, addresses, hash, share).collect();
                portless.sort();
                let every_address: Vec<_> = (0..addresses as u8).map(|n| (n, 0)).collect();
                assert_eq!(portless, every_address);
            }
        }
    }
}
