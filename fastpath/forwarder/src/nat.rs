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
    /// Ports of each address. A protocol that has none counts as having the one port 0.
    ports: PortRange,
}

impl Candidates {
    /// For `addresses` source addresses (1..=10), seeded by the flow's hash.
    pub fn new(ports: Ports, addresses: usize, hash: u64) -> Candidates {
        let (ports, count) = match ports {
            Ports::Both | Ports::Identifier => (PORTS, COUNT),
            Ports::None => (PortRange::single(0), 1),
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
            ports,
        }
    }
}

impl Iterator for Candidates {
    /// Index of the source address, and port.
    type Item = (u8, u16);

    fn next(&mut self) -> Option<(u8, u16)> {
        self.left = self.left.checked_sub(1)?;
        self.at = ((self.at as u64 + self.stride as u64) % self.space as u64) as u32;
        let count = (self.ports.last - self.ports.first) as u32 + 1;
        Some((
            (self.at / count) as u8,
            self.ports.first + (self.at % count) as u16,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn candidates_are_allowed_distinct_and_spread() {
        for addresses in 1..=10 {
            for hash in [0, 1, u64::MAX, 0x1234_5678_9abc_def0, 3 << 32, 105 << 32] {
                let candidates: Vec<_> = Candidates::new(Ports::Both, addresses, hash).collect();
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
                let mut portless: Vec<_> = Candidates::new(Ports::None, addresses, hash).collect();
                portless.sort();
                let every_address: Vec<_> = (0..addresses as u8).map(|n| (n, 0)).collect();
                assert_eq!(portless, every_address);
            }
        }
    }
}
