//! What the census does for the versions of pools: counts who lives by them, keeps their filters young and large enough,
//! and retires those that nobody needs.

use std::sync::atomic::Ordering;

use super::filter::{FULL, SATURATED, level_for};
use super::{Key, SLOTS, Version};
use crate::select::Request;
use crate::snapshot::Rule;
use crate::spec::Timeouts;
use crate::state;
use crate::table::{Connection, State};
use crate::view::{Flow, View};

/// One census pass. Not for a worker: it allocates.
pub struct Care<'v> {
    view: &'v View,
    now: u32,
    /// Entries of each version, [`SLOTS`] places a rule.
    counts: Vec<u32>,
    /// What is to be done to each.
    plans: Vec<Plan>,
}

/// Seconds after which nobody can come back to a connection that was seen last before.
pub(crate) fn longest(timeouts: &Timeouts) -> u32 {
    [
        timeouts.tcp_established,
        timeouts.tcp_fin_wait,
        timeouts.tcp_close_wait,
        timeouts.sctp,
    ]
    .into_iter()
    .fold(60, u32::max)
}

impl<'v> Care<'v> {
    /// Before the pass. `capacity` is the table's: no filter has to hold more.
    pub fn begin(view: &'v View, capacity: u32, now: u32) -> Care<'v> {
        let rules = view.snapshot.rules();
        let mut care = Care {
            view,
            now,
            counts: vec![0; rules.len() * SLOTS],
            plans: vec![Plan::default(); rules.len() * SLOTS],
        };
        for (n, rule) in rules.iter().enumerate() {
            for (place, version) in rule.pool.versions().iter().enumerate() {
                care.plans[n * SLOTS + place] = prepare(version, rule, capacity, now);
            }
        }
        care
    }

    /// An entry that goes on.
    #[inline]
    pub fn saw(&mut self, flow: &Flow<'_>, connection: &Connection) {
        let pool = &flow.rule.pool;
        let base = flow.target.rule as usize * SLOTS;
        if let Some(place) = pool.place_of(flow.identity.pool_version) {
            self.counts[base + place] += 1;
        }
        if is_remembered(flow, connection.state)
            && let Some(version) =
                pool.version_for(flow.identity.pool_version, flow.identity.server)
            && let Some(place) = pool.place_of(version.number())
            && self.plans[base + place].refill
            && let Some(filter) = version.filter()
        {
            let request = Request::new(&flow.forward_tuple(), flow.identity.vip_index, self.now);
            filter.insert(Key::of(request.hash), flow.identity.server);
        }
    }

    /// After the pass.
    pub fn finish(self) {
        let rules = self.view.snapshot.rules();
        for (n, rule) in rules.iter().enumerate() {
            let patience = longest(&rule.timeouts);
            for (place, version) in rule.pool.versions().iter().enumerate() {
                let live = self.counts[n * SLOTS + place];
                if self.plans[n * SLOTS + place].drop_older
                    && let Some(filter) = version.filter()
                {
                    filter.clear_older();
                }
                version.live.store(live, Ordering::Relaxed);
                let needed = live > 0 || place == 0;
                let since = match version.unused_since.load(Ordering::Relaxed) {
                    _ if needed => 0,
                    0 => self.now.wrapping_add(1),
                    since => since,
                };
                version.unused_since.store(since, Ordering::Relaxed);
                let unused = self.now.wrapping_add(1).wrapping_sub(since);
                version
                    .retired
                    .store(!needed && unused > patience, Ordering::Relaxed);
            }
        }
    }
}

/// Whether a connection in this state belongs into a filter.
pub(crate) fn is_remembered(flow: &Flow<'_>, state: State) -> bool {
    match state {
        State::Established | State::FinWait | State::CloseWait => {
            state::has_handshake(flow.identity.protocol)
        }
        State::SynReceived
        | State::LastAck
        | State::TimeWait
        | State::Close
        | State::Fresh
        | State::Flowing
        | State::Persistence
        | State::Offered => false,
    }
}

/// What is to be done to a version's filter in this pass.
#[derive(Debug, Clone, Copy, Default)]
struct Plan {
    /// All of its connections are entered anew.
    refill: bool,
    /// The older halves are so full that they say yes to nearly everybody: away with them as soon as the younger ones
    /// hold all that lives.
    drop_older: bool,
}

/// Rotates and grows a version's filter where that is due.
fn prepare(version: &Version, rule: &Rule, capacity: u32, now: u32) -> Plan {
    let Some(filter) = version.filter() else {
        return Plan::default();
    };
    let mut refill = version.incomplete.swap(false, Ordering::Relaxed);
    let stamp = now.wrapping_add(1).max(1);
    let rotated = version.rotated.load(Ordering::Relaxed);
    let aged = rotated != 0 && stamp.wrapping_sub(rotated) >= longest(&rule.timeouts);
    let fill = filter.fill();
    // A third more than there are, so that connections that come and go do not fill it at once.
    let live = version.live();
    let wanted = level_for(live.saturating_add(live / 3)).min(level_for(capacity));
    if aged || fill > FULL {
        filter.rotate();
        refill = true;
    }
    if wanted > filter.active() {
        filter.grow(wanted);
        refill = true;
    }
    if rotated == 0 || aged || fill > FULL {
        version.rotated.store(stamp, Ordering::Relaxed);
    }
    Plan {
        refill,
        drop_older: fill > SATURATED,
    }
}
