//! Hashing by folded 64×64→128-bit multiplication: a few cycles a key and, with secret keys, not steerable by a
//! sender who wants all of his flows in one bucket.

use std::hash::{BuildHasher, Hasher};

use crate::address::Addr;
use crate::packet::Tuple;

/// Multiplies and folds the halves of the product.
#[inline(always)]
pub fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// Keys of a [`FlowHasher`]. Odd and random for the connection table; fixed where two nodes must agree.
pub type HashKeys = [u64; 4];

/// Keys for choices that must be the same on every node (digits of pi, so that nobody can suspect a choice).
pub const FIXED_KEYS: HashKeys = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
];

/// Hash of a packet's addresses, ports and protocol in the direction in which it travels.
#[derive(Debug, Clone, Copy)]
pub struct FlowHasher {
    keys: HashKeys,
}

impl FlowHasher {
    /// With these keys.
    pub const fn new(keys: HashKeys) -> FlowHasher {
        FlowHasher { keys }
    }

    /// [`FlowHasher::flow`] of a packet's tuple.
    #[inline(always)]
    pub fn tuple(&self, tuple: &Tuple) -> u64 {
        let Tuple {
            src,
            dst,
            sport,
            dport,
            protocol,
        } = *tuple;
        self.flow(src, dst, sport, dport, protocol)
    }

    /// 64 well-mixed bits.
    #[inline(always)]
    pub fn flow(&self, src: Addr, dst: Addr, sport: u16, dport: u16, protocol: u8) -> u64 {
        let [k0, k1, k2, k3] = self.keys;
        if src.is_v4() {
            // All there is fits two words.
            let addresses = src.low() << 32 | dst.low() & 0xffff_ffff;
            let ports = (sport as u64) << 32 | (dport as u64) << 16 | protocol as u64;
            return fold(fold(addresses ^ k0, ports ^ k1) ^ k2, k3);
        }
        let ports = (sport as u64) << 32 | (dport as u64) << 16 | protocol as u64;
        let low = fold(src.low() ^ k0, dst.low().rotate_left(32) ^ k1);
        let high = fold(src.high() ^ k2 ^ ports, dst.high() ^ k3);
        fold(low ^ k3, high.wrapping_add(k0) ^ ports.rotate_left(17))
    }

    /// Hash of one address and one number.
    #[inline(always)]
    pub fn address(&self, address: Addr, number: u64) -> u64 {
        let [k0, k1, k2, k3] = self.keys;
        let body = fold(address.low() ^ k0, address.high() ^ k1);
        fold(body ^ k2, number ^ k3)
    }
}

/// For `HashMap`s that are built off the workers and only read by them.
#[derive(Debug, Clone, Copy, Default)]
pub struct FoldBuild;

/// See [`FoldBuild`].
#[derive(Debug, Clone, Copy)]
pub struct FoldHasher(u64);

impl BuildHasher for FoldBuild {
    type Hasher = FoldHasher;
    fn build_hasher(&self) -> FoldHasher {
        FoldHasher(FIXED_KEYS[0])
    }
}

impl Hasher for FoldHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    #[inline]
    fn write_u8(&mut self, n: u8) {
        self.write_u64(n as u64);
    }
    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.write_u64(n as u64);
    }
    #[inline]
    fn write_u64(&mut self, n: u64) {
        self.0 = fold(self.0 ^ n, FIXED_KEYS[1]).wrapping_add(FIXED_KEYS[2]);
    }
    #[inline]
    fn write_u128(&mut self, n: u128) {
        self.write_u64(n as u64);
        self.write_u64((n >> 64) as u64);
    }
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn neighbouring_flows_spread_evenly() {
        let hasher = FlowHasher::new(FIXED_KEYS);
        let vip = Addr::from("10.0.0.1".parse::<IpAddr>().unwrap());
        let mut buckets = [0u32; 64];
        for client in 0..1024u32 {
            for port in 0..64u16 {
                let client = Addr::v4((0x0a01_0000 + client).to_be_bytes());
                buckets[(hasher.flow(client, vip, 1024 + port, 80, 6) >> 58) as usize] += 1;
            }
        }
        // 1024 expected each, standard deviation 32: six of them is one chance in a hundred million.
        assert!(
            buckets.iter().all(|&n| (832..1216).contains(&n)),
            "{buckets:?}"
        );
    }

    #[test]
    fn direction_matters() {
        let hasher = FlowHasher::new(FIXED_KEYS);
        let (a, b) = (Addr(1), Addr(2));
        assert_ne!(hasher.flow(a, b, 1, 2, 6), hasher.flow(b, a, 2, 1, 6));
    }
}
