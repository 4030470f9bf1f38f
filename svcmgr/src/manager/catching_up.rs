//! A fast path that has just started knows none of the connections that the other node of the pair forwards, and one whose
//! node has lost its addresses, because it did not run or was cut off, lacks those that have begun since. Until it has been
//! told of them, this node takes no addresses away from one that has them: a higher priority alone would break them.

use std::time::Duration;

use ilb_node::control::{PeerStatus, Request, Response};
use tokio::time::Instant;

use super::Manager;
use crate::addresses::Addresses;
use crate::dataplane::DataPlane;

/// For how long the other node's connections are waited for. Its fast path may not be there, and then there is nothing to wait for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether they are there. A hundred thousand take about a second.
const LOOK: Duration = Duration::from_millis(200);
/// What the fast path says of its peer is believed after this time: one that did not run for a while finds out by then how it
/// stands, and is told of what it missed, which the other one offers five times a second.
const SETTLE: Duration = Duration::from_secs(1);

/// What is known of the fast path that runs now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum CatchingUp {
    /// There is none.
    #[default]
    Unknown,
    /// It may not have been told everything.
    Waits {
        /// Which one.
        start: u64,
        /// When it is waited for no longer.
        until: Instant,
        /// When to look again.
        look: Instant,
    },
    /// It has been, or has been waited for long enough.
    Done {
        /// Which one.
        start: u64,
        /// Whether its node has addresses.
        active: bool,
    },
}

impl CatchingUp {
    /// Whether this node, a member of a pair, had better leave addresses where they are.
    pub fn waits(&self) -> bool {
        !matches!(self, CatchingUp::Done { .. })
    }

    /// When something is due.
    pub fn due(&self) -> Option<Instant> {
        match self {
            CatchingUp::Waits { look, .. } => Some(*look),
            CatchingUp::Unknown | CatchingUp::Done { .. } => None,
        }
    }

    /// The fast path with this number of its start is there, and its node has addresses or not.
    fn meet(&mut self, running: u64, active: bool, now: Instant) {
        match self {
            CatchingUp::Waits { start, .. } if *start == running => {}
            CatchingUp::Done { start, active: was } if *start == running && (active || !*was) => {
                *was = active;
            }
            CatchingUp::Unknown | CatchingUp::Waits { .. } | CatchingUp::Done { .. } => {
                *self = CatchingUp::Waits {
                    start: running,
                    until: now + PATIENCE,
                    look: now + SETTLE,
                };
            }
        }
    }

    /// What it says of its peer. Returns how the waiting has ended, if it has.
    fn hear(
        &mut self,
        status: Option<&PeerStatus>,
        active: bool,
        now: Instant,
    ) -> Option<&'static str> {
        let CatchingUp::Waits { start, until, look } = self else {
            return None;
        };
        *look = now + LOOK;
        let ended = match status {
            Some(status) if status.up && status.complete => {
                "the fast path knows all connections of the other node"
            }
            _ if *until <= now => {
                "the other node's fast path has told nothing of its connections, they are waited for no longer"
            }
            _ => return None,
        };
        let start = *start;
        *self = CatchingUp::Done { start, active };
        Some(ended)
    }
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// Looks how it stands, if it is time to.
    pub(super) async fn tend_catching_up(&mut self) {
        let now = Instant::now();
        let active = self.own_node().active;
        match &self.link.peer {
            Some(hello) if self.pair.is_member() => {
                self.pair.catching_up.meet(hello.start_id, active, now);
            }
            _ => self.pair.catching_up = CatchingUp::Unknown,
        }
        if self.pair.catching_up.due().is_none_or(|due| due > now) {
            return;
        }
        let status = match self.dataplane.request(Request::Status).await {
            Ok(Response::Status(status)) => status.peer,
            // Whoever needs more of it says so.
            Ok(_) | Err(_) => None,
        };
        let now = Instant::now();
        if let Some(how) = self.pair.catching_up.hear(status.as_ref(), active, now) {
            tracing::info!("{how}: from now on priorities decide who has the addresses");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(up: bool, complete: bool) -> PeerStatus {
        PeerStatus {
            up,
            complete,
            ..PeerStatus::default()
        }
    }

    #[test]
    fn it_waits_once_for_each_fast_path_and_not_for_ever() {
        let begin = Instant::now();
        let mut it = CatchingUp::default();
        assert!(it.waits() && it.due().is_none(), "without a fast path");
        it.meet(7, false, begin);
        assert_eq!(it.due(), Some(begin + SETTLE), "it is looked at soon");
        for nothing in [None, Some(status(false, false)), Some(status(true, false))] {
            assert_eq!(it.hear(nothing.as_ref(), false, begin), None);
            assert!(it.waits());
            assert_eq!(it.due(), Some(begin + LOOK));
        }
        let all = status(true, true);
        assert!(it.hear(Some(&all), false, begin).is_some());
        assert!(!it.waits() && it.due().is_none());
        it.meet(7, false, begin);
        assert!(!it.waits(), "the same one is still well");
        it.meet(8, false, begin);
        assert!(it.waits(), "another one begins anew");
        it.meet(8, false, begin + PATIENCE);
        assert_eq!(it.due(), Some(begin + SETTLE), "and is not given more time");
        assert!(it.hear(None, false, begin + PATIENCE).is_some());
        assert!(!it.waits());
    }

    #[test]
    fn whoever_loses_its_addresses_has_to_be_told_of_what_it_misses() {
        let begin = Instant::now();
        let all = status(true, true);
        let mut it = CatchingUp::default();
        it.meet(7, true, begin);
        assert!(it.hear(Some(&all), true, begin).is_some());
        it.meet(7, true, begin);
        assert!(!it.waits(), "it is active");
        it.meet(7, false, begin);
        assert!(it.waits(), "it was");
        assert_eq!(it.due(), Some(begin + SETTLE), "what it says may be old");
        assert!(it.hear(Some(&all), false, begin).is_some());
        it.meet(7, false, begin);
        assert!(!it.waits(), "once is enough");
        it.meet(7, true, begin);
        assert!(!it.waits(), "it is active again");
    }
}
