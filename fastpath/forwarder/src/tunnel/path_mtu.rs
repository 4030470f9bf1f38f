//! What routers on the way to a server have told about its MTU (RFC 1191, RFC 8201). An error may quote too little of
//! the client's packet to be carried on to the client; what it says is kept here, so that the next packet that is too big
//! is answered by us.

use std::sync::atomic::{AtomicU64, Ordering};

/// Seconds after which a path may have become wider again (RFC 1191 section 6.3, RFC 8201 section 5.3).
const LIFE_SECONDS: u32 = 600;

/// Smallest MTU that is believed: nobody shall make us refuse ordinary packets by one forged error. The kernel has the
/// same for IPv4 (`min_pmtu`, Documentation/networking/ip-sysctl.rst); IPv6 knows no smaller one (RFC 8200 section 5).
const LEAST_V4: u32 = 552;
const LEAST_V6: u32 = 1280;

/// One value for all workers and all rules with this server.
#[derive(Debug, Default)]
pub struct PathMtu(AtomicU64);

impl PathMtu {
    /// The path's MTU, if one was learned in the last ten minutes.
    #[inline]
    pub fn get(&self, now: u32) -> Option<usize> {
        let value = self.0.load(Ordering::Relaxed);
        let (mtu, learned) = ((value >> 32) as u32, value as u32);
        (mtu != 0 && now.wrapping_sub(learned) < LIFE_SECONDS).then_some(mtu as usize)
    }

    /// Takes up what an error reported. A smaller value counts at once; a larger one when the old one has expired.
    pub fn learn(&self, mtu: u32, v4: bool, now: u32) {
        let mtu = mtu.max(if v4 { LEAST_V4 } else { LEAST_V6 });
        // Two workers that learn at once differ by one packet; the next error sets it right.
        if self.get(now).is_none_or(|known| mtu as usize <= known) {
            let value = (mtu as u64) << 32 | now as u64;
            self.0.store(value, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_values_count_at_once_and_all_expire() {
        let path = PathMtu::default();
        assert_eq!(path.get(50), None);
        path.learn(1400, true, 100);
        assert_eq!(path.get(100), Some(1400));
        path.learn(1450, true, 150);
        assert_eq!(path.get(150), Some(1400), "a larger one is old news");
        path.learn(1300, true, 200);
        assert_eq!(path.get(799), Some(1300));
        assert_eq!(path.get(800), None);
        path.learn(1450, true, 800);
        assert_eq!(path.get(800), Some(1450));
    }

    #[test]
    fn nobody_talks_us_into_tiny_packets() {
        for (v4, least) in [(true, 552), (false, 1280)] {
            let path = PathMtu::default();
            path.learn(68, v4, 1);
            assert_eq!(path.get(1), Some(least));
        }
    }
}
