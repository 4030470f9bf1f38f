//! The one clock of the fast path: CLOCK_BOOTTIME, which goes on while the machine sleeps and survives a restart of the
//! process, as the times in the connection table must.

/// A point in time: nanoseconds since the machine was booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// Reads the clock; on most machines without entering the kernel.
    #[inline]
    pub fn now() -> Instant {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the structure lives through the call. It cannot fail for a clock that every kernel since 2.6.39 has.
        unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
        Instant(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// Whole seconds, as the connection table has them; they last for 136 years of uptime.
    #[inline]
    pub fn seconds(self) -> u32 {
        (self.0 / 1_000_000_000) as u32
    }

    /// Whole milliseconds.
    #[inline]
    pub fn milliseconds(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Nanoseconds.
    pub fn nanoseconds(self) -> u64 {
        self.0
    }
}
