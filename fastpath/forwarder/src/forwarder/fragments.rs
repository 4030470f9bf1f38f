//! Fragments: the first one decides, the others follow.

use super::{Path, not_ours};
use crate::fragment::{self, Fate, Key, Place};
use crate::packet::{Headers, Kind, Packet};
use crate::table::Direction;
use crate::verdict::{DropReason, Verdict};
use crate::view::{Flow, View};

impl Path {
    fn fragment_key(&self, headers: &Headers) -> (u32, Key) {
        let id = headers.fragment.unwrap_or_default();
        (id, fragment::key(&self.hasher, headers, id))
    }

    /// A fragment of any kind.
    #[cold]
    #[inline(never)]
    pub(super) fn fragment(
        &mut self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        now: u32,
    ) -> Verdict {
        let extent = match fragment::sound_extent(packet.frame(), headers) {
            Ok(extent) => extent,
            Err(reason) => return Verdict::Drop(reason),
        };
        if headers.kind == Kind::LaterFragment {
            return self.later_fragment(view, packet, headers, extent.offset, now);
        }
        self.notes.relayed = false;
        let verdict = self.one(view, packet, headers, now);
        if not_ours::is_first_of_others(view, headers, verdict) {
            self.remember_first(view, headers, Fate::Kernel, extent.len, now);
        } else if self.notes.relayed {
            self.remember_first(view, headers, Fate::Relayed, extent.len, now);
        }
        verdict
    }

    fn remember_first(
        &self,
        view: &View,
        headers: &Headers,
        fate: Fate,
        end: usize,
        now: u32,
    ) -> Place {
        let (id, key) = self.fragment_key(headers);
        let fragments = &view.snapshot.guard().fragments;
        if !self.is_real() {
            let known = fragments.recall(headers, id, key, now);
            return known.unwrap_or(Place {
                fate,
                end: end as u16,
                id: 0,
            });
        }
        fragments.remember(headers, id, key, (fate, end), now)
    }

    /// Sends a first fragment on its way, and remembers for the others where that was.
    #[cold]
    pub(super) fn forward_first(
        &self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        (flow, direction): (&Flow<'_>, Direction),
        hash: u64,
        now: u32,
    ) -> Verdict {
        let extent = match fragment::sound_extent(packet.frame(), headers) {
            Ok(extent) => extent,
            Err(reason) => return Verdict::Drop(reason),
        };
        let fate = Fate::Flow(flow.identity, direction);
        let place = self.remember_first(view, headers, fate, extent.len, now);
        self.forward_fragment(view, packet, headers, (flow, direction), &place, hash)
    }

    fn later_fragment(
        &mut self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        offset: usize,
        now: u32,
    ) -> Verdict {
        let (id, key) = self.fragment_key(headers);
        let fragments = &view.snapshot.guard().fragments;
        let Some(place) = fragments.recall(headers, id, key, now) else {
            return Verdict::Hold { key };
        };
        if offset < place.end as usize {
            return Verdict::Drop(DropReason::FragmentOverlap);
        }
        let (identity, direction) = match place.fate {
            Fate::Flow(identity, direction) => (identity, direction),
            Fate::Kernel => return not_ours::verdict(view, headers),
            Fate::Relayed => {
                let relayed = self.relay(view, packet, headers, |_, _| true);
                return relayed.unwrap_or(Verdict::Drop(DropReason::FragmentUnknown));
            }
        };
        match view.flow(identity) {
            Some(flow) => {
                self.forward_fragment(view, packet, headers, (&flow, direction), &place, key)
            }
            None => Verdict::Drop(DropReason::ServerGone),
        }
    }

    fn forward_fragment(
        &self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        (flow, direction): (&Flow<'_>, Direction),
        place: &Place,
        hash: u64,
    ) -> Verdict {
        let verdict = self.forward(view, packet, headers, flow, direction, hash);
        let leaves = matches!(verdict, Verdict::Transmit(_) | Verdict::Unresolved { .. });
        if leaves && headers.is_v4() && flow.rule.topology.has_reverse() {
            fragment::identify(packet.frame_mut(), headers, place.id);
        }
        verdict
    }
}
