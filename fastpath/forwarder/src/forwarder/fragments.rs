//! Fragments behind the first one.

use super::Path;
use crate::packet::{Headers, Packet, Tuple};
use crate::verdict::{DropReason, Verdict};
use crate::view::View;

impl Path {
    pub(super) fn fragment_hash(&self, headers: &Headers, id: u32) -> u64 {
        let Tuple {
            src, dst, protocol, ..
        } = headers.tuple;
        self.hasher
            .flow(src, dst, id as u16, (id >> 16) as u16, protocol)
    }

    #[cold]
    pub(super) fn later_fragment(
        &self,
        view: &View,
        packet: &mut Packet<'_>,
        headers: &Headers,
        now: u32,
    ) -> Verdict {
        let id = headers.fragment.unwrap_or_default();
        let hash = self.fragment_hash(headers, id);
        let Some((identity, direction)) = self.fragments.recall(headers, id, hash, now) else {
            return Verdict::Drop(DropReason::FragmentUnknown);
        };
        match view.flow(identity) {
            Some(flow) => self.forward(view, packet, headers, &flow, direction, hash),
            None => Verdict::Drop(DropReason::ServerGone),
        }
    }
}
