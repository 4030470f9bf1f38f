//! A limit on octets a second, as a bucket that fills with time.

/// See the module's text.
#[derive(Debug)]
pub struct Pace {
    /// Octets a second; 0 is no limit.
    rate: u64,
    /// Octets that may be sent now, in thousandths; below zero after one that was larger than what was left.
    tokens: i64,
    most: i64,
    filled: u64,
}

/// Octets that may always be sent at once: below what a socket's buffer holds.
const BURST: u64 = 64 * 1024;

impl Pace {
    /// For `rate` octets a second (0 is no limit), full at the time `now`, in milliseconds.
    pub fn new(rate: u32, now: u64) -> Pace {
        // A fiftieth of a second's worth: who asks every ten milliseconds gets the whole rate.
        let most = (BURST.max(u64::from(rate) / 50) * 1000) as i64;
        Pace {
            rate: u64::from(rate),
            tokens: most,
            most,
            filled: now,
        }
    }

    /// Whether something may be sent.
    pub fn is_open(&mut self, now: u64) -> bool {
        let passed = now.saturating_sub(self.filled);
        self.filled = self.filled.max(now);
        let more = passed.min(1000).saturating_mul(self.rate) as i64;
        self.tokens = (self.tokens + more).min(self.most);
        self.rate == 0 || self.tokens > 0
    }

    /// Counts what was sent. The last one may have been larger than what was left: the next ones wait for that.
    pub fn sent(&mut self, octets: usize) {
        self.tokens -= octets as i64 * 1000;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_rate_and_not_much_less() {
        for rate in [50_000, 1_000_000, 100_000_000] {
            let (mut pace, mut sent) = (Pace::new(rate, 0), 0u64);
            for now in (0..10_000).step_by(10) {
                while pace.is_open(now) {
                    pace.sent(1400);
                    sent += 1400;
                }
            }
            let wanted = u64::from(rate) * 10;
            let burst = BURST.max(u64::from(rate) / 50) + 1400;
            assert!(sent <= wanted + burst, "{rate}: {sent}");
            assert!(sent >= wanted * 9 / 10, "{rate}: {sent}");
        }
        let mut without = Pace::new(0, 0);
        without.sent(usize::from(u16::MAX) * 1000);
        assert!(without.is_open(0));
    }
}
