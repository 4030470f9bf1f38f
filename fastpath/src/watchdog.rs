//! What systemd is told while we live (sd_watchdog_enabled(3)): that every worker has ended a round since it was asked last
//! time, and that the control thread is there to say so. One worker that is stuck is enough for silence, and for systemd to
//! start us anew, which disturbs connections less than a queue that nobody empties.

use std::time::Duration;

use crate::board::Board;

/// How often in the time that systemd waits it is told.
const SHARE: u32 = 4;

/// See the module's text.
#[derive(Debug, PartialEq, Eq)]
pub struct Watchdog {
    interval: Duration,
    /// What the workers were asked for last.
    asked: u64,
    /// Times in a row that somebody was silent.
    silent: u32,
}

impl Watchdog {
    /// What the environment asks of this process; None when nobody watches it. `read` gives variables by name.
    pub fn from_environment(
        process: u32,
        read: impl Fn(&str) -> Option<String>,
    ) -> Option<Watchdog> {
        if read("WATCHDOG_PID").is_some_and(|pid| pid != process.to_string()) {
            return None;
        }
        let patience: u64 = read("WATCHDOG_USEC")?.parse().ok()?;
        (patience > 0).then(|| Watchdog {
            interval: Duration::from_micros(patience) / SHARE,
            asked: 0,
            silent: 0,
        })
    }

    /// Time between two calls of [`Watchdog::look`].
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Whether all is well since the last look; asks the workers for the next one.
    pub fn look(&mut self, board: &Board) -> bool {
        let silent = board.without_pulse(self.asked);
        // A worker that was not there yet when the last question was asked answers this one.
        self.asked = board.take_pulse();
        let Some(worker) = silent else {
            self.silent = 0;
            return true;
        };
        self.silent += 1;
        let seconds = (self.interval * self.silent).as_secs();
        tracing::error!(
            "worker {worker} has not ended a round for {seconds} s; systemd will start us anew if that goes on"
        );
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use ilb_forwarder::network::Network;
    use ilb_forwarder::{Snapshot, View};

    fn asked_by(variables: &[(&str, &str)]) -> Option<Watchdog> {
        Watchdog::from_environment(7, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn only_who_is_watched_is_fed_for_and_four_times_in_the_time() {
        let interval = |variables: &[(&str, &str)]| asked_by(variables).map(|dog| dog.interval());
        let second = Some(Duration::from_secs(1));
        assert_eq!(interval(&[("WATCHDOG_USEC", "4000000")]), second);
        let ours = [("WATCHDOG_USEC", "4000000"), ("WATCHDOG_PID", "7")];
        assert_eq!(interval(&ours), second);
        let of_others = [("WATCHDOG_USEC", "4000000"), ("WATCHDOG_PID", "8")];
        assert_eq!(interval(&of_others), None);
        assert_eq!(interval(&[]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "soon")]), None);
    }

    #[test]
    fn one_worker_that_is_stuck_is_enough_for_silence_until_it_goes_on() {
        let network = Network::new(Vec::new(), Vec::new(), Vec::new());
        let view = View::new(Arc::new(Snapshot::empty()), Arc::new(network));
        let (board, _asks) = Board::new(2, 1, Arc::new(view)).unwrap();
        let mut watchdog = asked_by(&[("WATCHDOG_USEC", "4000000")]).unwrap();
        let round = |workers: &[usize]| {
            for worker in workers {
                board.feel(*worker, board.pulse());
            }
        };
        assert!(watchdog.look(&board), "nobody has been asked yet");
        round(&[0, 1]);
        assert!(watchdog.look(&board));
        round(&[0]);
        assert!(!watchdog.look(&board), "worker 1 is silent");
        assert!(!watchdog.look(&board), "both are");
        round(&[0, 1]);
        assert!(watchdog.look(&board));
    }
}
