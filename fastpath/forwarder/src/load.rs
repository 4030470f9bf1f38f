//! How many connections a server has now: what the least-connection algorithms and the thresholds go by.
//!
//! The workers keep it up to date as connections begin, change and end; whoever changes the state of a table entry
//! (the entry's compare-and-swap decides who that is) also counts the change, so each is counted exactly once. A
//! census compares what it sees in the table and corrects what nobody counted: connections that an earlier process
//! began, above all.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use crate::table::State;

/// How a connection counts towards its server's load, as in the kernel's IPVS (`tcp_state_active_table` in
/// `net/netfilter/ipvs/ip_vs_proto_tcp.c`; connections of other protocols are active while they last).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Not at all: no connection yet or any more, or a client's claim to a server.
    None,
    /// It keeps the server busy: handshake, open, or any flow without connections.
    Active,
    /// It is closed by one end at least and only waits to be forgotten.
    Inactive,
}

impl Activity {
    /// How a connection in this state counts.
    #[inline(always)]
    pub const fn of(state: State) -> Activity {
        match state {
            State::SynReceived | State::Established | State::Fresh | State::Flowing => {
                Activity::Active
            }
            State::FinWait | State::CloseWait | State::LastAck | State::TimeWait | State::Close => {
                Activity::Inactive
            }
            State::Persistence | State::Offered => Activity::None,
        }
    }

    /// What it adds to the counts: active in the lower half of the word, inactive in the upper.
    const fn unit(self) -> i64 {
        match self {
            Activity::None => 0,
            Activity::Active => 1,
            Activity::Inactive => 1 << 32,
        }
    }
}

/// Connections of one kind and the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    /// See [`Activity::Active`].
    pub active: u32,
    /// See [`Activity::Inactive`].
    pub inactive: u32,
}

impl Connections {
    /// Both kinds.
    pub const fn total(self) -> u32 {
        self.active.saturating_add(self.inactive)
    }

    /// Counts one more.
    pub const fn add(&mut self, activity: Activity) {
        match activity {
            Activity::None => {}
            Activity::Active => self.active += 1,
            Activity::Inactive => self.inactive += 1,
        }
    }
}

/// Thresholds of a server: when it is full and when it is not any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Thresholds {
    /// Connections, active and inactive, at which it is full; 0 for never.
    pub max: u32,
    /// Connections below which it is not full any more; 0 for three quarters of `max`.
    pub min: u32,
}

impl Thresholds {
    /// Whether a server with so many connections is full, given whether it was.
    pub const fn full(self, was: bool, connections: u32) -> bool {
        if self.max == 0 {
            return false;
        }
        if connections >= self.max {
            return true;
        }
        let relieved = match self.min {
            0 => (connections as u64) * 4 < self.max as u64 * 3,
            min => connections < min,
        };
        was && !relieved
    }
}

/// See the module's text. On a cache line of its own, because all workers write it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Load {
    /// `active + inactive * 2^32`, both signed: what an earlier process counted may end before the census knows of it.
    counts: AtomicI64,
    /// Changes, so that a census knows how much may have happened meanwhile.
    changes: AtomicU64,
    full: AtomicBool,
    /// When its turn comes among equals; see [`crate::select`].
    pub(crate) turn: AtomicU64,
    /// Difference that the last census saw and was not sure of.
    doubt: AtomicI64,
    doubted_at: AtomicU64,
}

fn split(counts: i64) -> (i32, i32) {
    let low = counts as i32;
    (low, ((counts - low as i64) >> 32) as i32)
}

impl Load {
    /// Connections now.
    #[inline]
    pub fn connections(&self) -> Connections {
        let (active, inactive) = split(self.counts.load(Ordering::SeqCst));
        Connections {
            active: active.max(0) as u32,
            inactive: inactive.max(0) as u32,
        }
    }

    /// A connection that counted one way counts another way from now on.
    #[inline]
    pub fn shift(&self, from: Activity, to: Activity) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.counts
            .fetch_add(to.unit() - from.unit(), Ordering::SeqCst);
    }

    /// Whether the server was full when that was last looked at.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    /// Decides anew whether the server is full.
    pub fn judge(&self, thresholds: Thresholds) -> bool {
        loop {
            let was = self.is_full();
            let is = thresholds.full(was, self.connections().total());
            if is == was {
                return is;
            }
            // Whoever stores also looks again, so that of two workers the one with the older count does not prevail.
            self.full.store(is, Ordering::SeqCst);
        }
    }

    /// Number of changes so far: to be read before a census looks at the table.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Compares with what a census counted that began when there had been `before` changes. A difference that is
    /// larger than what happened meanwhile (`workers` may have been between table and counter) is corrected at once; a
    /// smaller one when it is seen twice and nothing at all happened since, because then nobody is on his way to count.
    /// True if the counts were corrected.
    pub fn reconcile(&self, counted: Connections, before: u64, workers: usize) -> bool {
        let counts = self.counts.load(Ordering::SeqCst);
        let now = self.changes();
        let (active, inactive) = split(counts);
        let (more, less) = (
            counted.active as i64 - active as i64,
            counted.inactive as i64 - inactive as i64,
        );
        let difference = more + (less << 32);
        if difference == 0 {
            return false;
        }
        let possible = now.wrapping_sub(before) as i64 + workers as i64;
        let certain = more.abs().max(less.abs()) > possible;
        let again = now == before
            && self.doubt.load(Ordering::Relaxed) == difference
            && self.doubted_at.load(Ordering::Relaxed) == now;
        if certain || again {
            self.counts.fetch_add(difference, Ordering::SeqCst);
            self.doubt.store(0, Ordering::Relaxed);
            return true;
        }
        self.doubt.store(difference, Ordering::Relaxed);
        self.doubted_at.store(now, Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_count_as_in_ipvs() {
        use Activity::{Active, Inactive};
        let counted: Vec<_> = State::ALL.into_iter().map(Activity::of).collect();
        let (a, i) = (Active, Inactive);
        assert_eq!(
            counted,
            [a, a, i, i, i, i, i, a, a, Activity::None, Activity::None]
        );
    }

    #[test]
    fn counts_follow_changes_and_never_show_less_than_nothing() {
        let load = Load::default();
        let connections = || (load.connections().active, load.connections().inactive);
        load.shift(Activity::Active, Activity::None);
        assert_eq!(connections(), (0, 0), "one less than none");
        load.shift(Activity::None, Activity::Active);
        load.shift(Activity::None, Activity::Active);
        load.shift(Activity::None, Activity::Active);
        assert_eq!(connections(), (2, 0));
        load.shift(Activity::Active, Activity::Inactive);
        assert_eq!(connections(), (1, 1));
        load.shift(Activity::Inactive, Activity::None);
        load.shift(Activity::Inactive, Activity::None);
        assert_eq!(connections(), (1, 0));
    }

    #[test]
    fn thresholds_have_hysteresis() {
        let (default, own) = (Thresholds { max: 8, min: 0 }, Thresholds { max: 8, min: 3 });
        // (thresholds, was full, connections, is full)
        for (thresholds, was, connections, full) in [
            (default, false, 7, false),
            (default, false, 8, true),
            (default, true, 7, true),
            (default, true, 6, true),
            (default, true, 5, false),
            (own, true, 5, true),
            (own, true, 3, true),
            (own, true, 2, false),
            (own, false, 3, false),
            (Thresholds { max: 0, min: 3 }, true, 9, false),
        ] {
            assert_eq!(
                thresholds.full(was, connections),
                full,
                "{thresholds:?} {was} {connections}"
            );
        }
    }

    #[test]
    fn a_census_corrects_what_nobody_counted() {
        let load = Load::default();
        let seen = |active, inactive| Connections { active, inactive };
        assert!(
            load.reconcile(seen(100, 50), load.changes(), 2),
            "a restart"
        );
        assert_eq!(load.connections(), seen(100, 50));
        let before = load.changes();
        load.shift(Activity::None, Activity::Active);
        assert!(
            !load.reconcile(seen(100, 50), before, 2),
            "it began behind the census's back"
        );
        assert!(
            load.reconcile(seen(100, 50), load.changes(), 2),
            "but it is not there later either, and nothing happened since"
        );
        assert_eq!(load.connections(), seen(100, 50));
        assert!(!load.reconcile(seen(100, 50), load.changes(), 2));
    }
}
