//! Each server in turn. The turn belongs to the rule and is shared by all workers, so that the shares are exact.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Mode, NoChoice, Request, Select};

/// See the module's text.
#[derive(Debug)]
pub struct RoundRobin {
    candidates: u32,
    cursor: Arc<AtomicU32>,
}

impl RoundRobin {
    /// Over `candidates` servers, going on from where `cursor` stands.
    pub fn new(candidates: u32, cursor: Arc<AtomicU32>) -> RoundRobin {
        RoundRobin { candidates, cursor }
    }
}

impl Select for RoundRobin {
    fn select(&self, _: &Request, mode: Mode) -> Result<u32, NoChoice> {
        let next = |turn: u32| {
            Some(if turn.wrapping_add(1) >= self.candidates {
                0
            } else {
                turn + 1
            })
        };
        let turn = match mode {
            Mode::Preview => self.cursor.load(Ordering::Relaxed),
            Mode::Choose => {
                match self
                    .cursor
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
                {
                    Ok(turn) | Err(turn) => turn,
                }
            }
        };
        // The turn of a larger set may stand behind the end of this one.
        Ok(if turn < self.candidates { turn } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Addr;

    const ANYBODY: Request = Request {
        client: Addr(1),
        client_port: 1,
        vip: Addr(2),
        vip_port: 80,
        vip_index: 0,
        protocol: 6,
        hash: 0,
        now: 0,
    };

    fn choose(robin: &RoundRobin) -> u32 {
        robin.select(&ANYBODY, Mode::Choose).unwrap()
    }

    #[test]
    fn shares_are_exact_over_all_workers() {
        let robin = RoundRobin::new(3, Arc::new(AtomicU32::new(0)));
        let counts = [const { AtomicU32::new(0) }; 3];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..750 {
                        counts[choose(&robin) as usize].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(counts.map(AtomicU32::into_inner), [1000; 3]);
    }

    #[test]
    fn a_preview_takes_no_turn() {
        let robin = RoundRobin::new(3, Arc::new(AtomicU32::new(0)));
        for _ in 0..7 {
            let preview = robin.select(&ANYBODY, Mode::Preview);
            assert_eq!(preview, robin.select(&ANYBODY, Mode::Preview));
            assert_eq!(preview, Ok(choose(&robin)));
        }
    }

    #[test]
    fn goes_on_when_servers_come_and_go() {
        let cursor = Arc::new(AtomicU32::new(0));
        let five = RoundRobin::new(5, cursor.clone());
        assert_eq!(
            (0..4).map(|_| choose(&five)).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        let two = RoundRobin::new(2, cursor.clone());
        assert_eq!(
            (0..4).map(|_| choose(&two)).collect::<Vec<_>>(),
            [0, 0, 1, 0]
        );
        let one = RoundRobin::new(1, cursor);
        assert_eq!((0..3).map(|_| choose(&one)).collect::<Vec<_>>(), [0, 0, 0]);
    }
}
