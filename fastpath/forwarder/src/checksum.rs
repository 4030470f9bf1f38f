//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3), in one helper for every header.

use crate::address::Addr;

/// What changed, as a ones' complement sum that is not folded yet: `HC' = ~(~HC + ~m + m')`. Words of 32 bits may be
/// added as they are, because 2^16 is congruent to 1 modulo 2^16 - 1 (RFC 1071 section 2 C).
#[derive(Debug, Clone, Copy, Default)]
pub struct Delta(u64);

impl Delta {
    /// Nothing changed.
    pub const NONE: Delta = Delta(0);

    /// A 16-bit word changed.
    #[inline(always)]
    pub fn word(&mut self, old: u16, new: u16) {
        self.0 += !old as u64 + new as u64;
    }

    /// Two neighbouring 16-bit words changed.
    #[inline(always)]
    pub fn words(&mut self, old: u32, new: u32) {
        self.0 += !old as u64 + new as u64;
    }

    /// An address of either family changed; both must be of one family.
    #[inline(always)]
    pub fn address(&mut self, old: Addr, new: Addr) {
        self.words(old.0 as u32, new.0 as u32);
        if !new.is_v4() {
            for shift in [32, 64, 96] {
                self.words((old.0 >> shift) as u32, (new.0 >> shift) as u32);
            }
        }
    }

    /// That changed, too.
    #[inline(always)]
    pub fn add(&mut self, other: Delta) {
        self.0 += other.0;
    }

    /// The checksum after the change.
    #[inline(always)]
    pub fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + !checksum as u64)
    }

    /// The UDP checksum after the change: 0 means that there is none and stays (RFC 768), a computed 0 is sent as
    /// all ones.
    #[inline(always)]
    pub fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            sum => sum,
        }
    }
}

#[inline(always)]
fn sum128(value: u128) -> u64 {
    [0, 32, 64, 96]
        .iter()
        .map(|shift| (value >> shift) as u32 as u64)
        .sum()
}

/// Folds to 16 bits, carries included.
#[inline(always)]
pub fn fold(sum: u64) -> u16 {
    let (sum, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let sum = sum + carry as u32;
    // The sum's halves swapped and added: what the lower half carries over arrives in the upper one, and the carry
    // of the upper half is the borrow of the subtraction.
    !((!sum).wrapping_sub(sum.rotate_right(16)) >> 16) as u16
}

/// Checksum of bytes, with `initial` words already summed (see [`pseudo_header`]).
pub fn of(bytes: &[u8], initial: u64) -> u16 {
    !fold(initial + sum(bytes))
}

/// Sum of the 16-bit words of bytes, a last odd byte being the upper half of one.
pub fn sum(bytes: &[u8]) -> u64 {
    let mut sum = 0;
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        sum += u16::from_be_bytes([word[0], word[1]]) as u64;
    }
    if let [last] = words.remainder() {
        sum += (*last as u64) << 8;
    }
    sum
}

/// Sum of the pseudo-header of either family (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub fn pseudo_header(src: Addr, dst: Addr, protocol: u8, len: usize) -> u64 {
    let addresses = if src.is_v4() {
        (src.0 as u32 as u64) + (dst.0 as u32 as u64)
    } else {
        sum128(src.0) + sum128(dst.0)
    };
    addresses + protocol as u64 + len as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn example_of_rfc_1624() {
        let mut delta = Delta::NONE;
        delta.word(0x5555, 0x3285);
        assert_eq!(delta.apply(0xdd2f), 0x0000);
    }

    proptest! {
        #[test]
        fn incremental_equals_recomputed(
            mut words in proptest::collection::vec(any::<u16>(), 9..40), at in 0usize..8, new in any::<u128>(), six in any::<bool>()
        ) {
            // Words 0..8 hold an address; the sum must not be the degenerate all-zero packet.
            words[8] |= 1;
            let bytes = |w: &[u16]| w.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
            let before = of(&bytes(&words), 0);
            let mut delta = Delta::NONE;
            if six {
                let old = words[..8].iter().fold(0u128, |a, w| a << 16 | *w as u128);
                prop_assume!(!Addr(old).is_v4() && !Addr(new).is_v4());
                delta.address(Addr(old), Addr(new));
                for (i, w) in words[..8].iter_mut().enumerate() { *w = (new >> (112 - 16 * i)) as u16; }
            } else {
                delta.word(words[at], new as u16);
                words[at] = new as u16;
            }
            let after = of(&bytes(&words), 0);
            prop_assert_eq!(delta.apply(before), after);
        }

        #[test]
        fn udp_never_gains_or_loses_its_checksum(sum in any::<u16>(), old in any::<u16>(), new in any::<u16>()) {
            let mut delta = Delta::NONE;
            delta.word(old, new);
            prop_assert_eq!(delta.apply_udp(sum) == 0, sum == 0);
        }
    }
}
