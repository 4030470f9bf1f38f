//! A thread that goes before all ordinary ones.
//!
//! Advertisements every hundredth of a second leave a backup about 30 ms to hear one, and an ordinary thread of a busy machine may
//! wait that long for a processor: then roles change for nothing. The engine does little and sleeps the rest of the time, so the
//! kernel may well let it go first (sched(7), `SCHED_RR`), as keepalived does with `vrrp_rt_priority`.

#![allow(
    unsafe_code,
    reason = "no safe interface to sched_setscheduler(2) knows SCHED_RESET_ON_FORK"
)]

use std::io;

/// Among threads of its kind it is one of the last: those of the kernel, and of others who say that they are urgent, go first.
/// 1..=99.
const PRIORITY: libc::c_int = 10;

/// Makes the calling thread urgent. What it starts, threads and programs, is ordinary again.
///
/// # Errors
/// If it may not: that takes `CAP_SYS_NICE`, or a limit `RLIMIT_RTPRIO` of at least [`PRIORITY`].
pub fn make_urgent() -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: PRIORITY,
    };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the call reads the structure, which lives until it returns, and keeps nothing.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy of the calling thread: field 41 of proc_pid_stat(5).
    fn policy() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields
            .split_whitespace()
            .nth(41 - 3)
            .unwrap()
            .parse()
            .unwrap()
    }

    #[test]
    fn what_an_urgent_thread_starts_is_ordinary() {
        let urgent = || {
            let made = make_urgent();
            let own = policy();
            let child = std::thread::spawn(policy).join().unwrap();
            (made.is_ok(), own, child)
        };
        let (made, own, child) = std::thread::spawn(urgent).join().unwrap();
        // Who runs the tests may not be allowed to.
        let expected = if made {
            libc::SCHED_RR
        } else {
            libc::SCHED_OTHER
        };
        assert_eq!((own, child), (expected, libc::SCHED_OTHER));
    }
}
