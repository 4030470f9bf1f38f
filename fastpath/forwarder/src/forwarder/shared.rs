//! What a packet changes beyond the table and its worker's own counters: loads of servers and limits of the node. A
//! rehearsal changes none of it.

use super::Path;
use crate::admission::Window;
use crate::changes::{Change, Ended, Phase};
use crate::select::Mode;
use crate::table::State;
use crate::view::View;

impl Path {
    /// Whether this is a packet, and not the rehearsal of one.
    #[inline(always)]
    pub(super) fn is_real(&self) -> bool {
        self.mode == Mode::Choose
    }

    /// An entry has come into the table in this state. Only what is more than embryonic concerns the peer.
    #[inline]
    pub(super) fn tell_new(&self, index: u32, state: State) {
        self.tell_changed(index, (State::SynReceived, state));
    }

    /// The state of an entry has changed.
    #[inline]
    pub(super) fn tell_changed(&self, index: u32, (old, new): (State, State)) {
        if Phase::of(old) != Phase::of(new) && self.is_real() && self.changes.is_on() {
            self.changes.note(self.worker, &Change::Entry(index));
        }
    }

    /// Ends an entry, and has the peer told if it was one that it knows. Gives its last state; None if somebody else was
    /// faster.
    pub(super) fn kill(&self, index: u32) -> Option<State> {
        let told = self.is_real() && self.changes.is_on();
        let connection = told.then(|| self.table.get(index)).flatten();
        let state = self.table.kill(index)?;
        if let Some(connection) = connection
            && !state.is_claim()
            && !state.is_embryonic()
        {
            let ended = Ended::from(&connection.identity);
            self.changes.note(self.worker, &Change::Ended(ended));
        }
        Some(state)
    }

    /// A connection to this target has begun.
    #[inline]
    pub(super) fn load_began(&self, view: &View, target: u32, state: State) {
        if self.is_real() {
            view.snapshot.connection_began(target, state);
        }
    }

    /// The state of a connection to this target has changed.
    #[inline(always)]
    pub(super) fn load_changed(&self, view: &View, target: u32, change: (State, State)) {
        if self.is_real() {
            view.snapshot.connection_changed(target, change);
        }
    }

    /// A connection to this target has ended in this state.
    #[inline]
    pub(super) fn load_ended(&self, view: &View, target: u32, state: State) {
        if self.is_real() {
            view.snapshot.connection_ended(target, state);
        }
    }

    /// Whether one more ICMP error of our own may be sent; counts it.
    pub(super) fn may_make_icmp(&self, view: &View) -> bool {
        self.within(view, &view.snapshot.guard().icmp_made)
    }

    /// Whether one more ICMP error may be carried; counts it.
    pub(super) fn may_carry_icmp(&self, view: &View) -> bool {
        self.within(view, &view.snapshot.guard().icmp_carried)
    }

    fn within(&self, view: &View, window: &Window) -> bool {
        let limit = view.snapshot.limits().icmp_errors_per_second;
        match self.mode {
            Mode::Choose => window.take(limit, self.now),
            Mode::Preview => window.has_room(limit, self.now),
        }
    }
}
