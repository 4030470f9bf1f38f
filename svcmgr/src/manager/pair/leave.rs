//! The end of a pair: this node leaves it, or the other one does.

use ilb_node::journal::events::{PAIR_LEFT, PAIR_PEER_LEFT};

use crate::addresses::Addresses;
use crate::author::Author;
use crate::dataplane::DataPlane;
use crate::manager::Manager;
use crate::manager::error::ManagerError;
use crate::manager::steps::unix_now;
use crate::pair::keep::{Kept, Left};

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// `LeavePair`. The other node is told, if it is heard. Of one that has left before, it is taken note.
    pub(in crate::manager) async fn leave_pair(
        &mut self,
        author: &Author,
    ) -> Result<bool, ManagerError> {
        let waited = self.pair.open_until() > 0;
        self.close_pair();
        let kept = Kept {
            membership: None,
            yielded: false,
            left: None,
            ..self.pair.kept.clone()
        };
        let noted = self.pair.kept.left.is_some();
        let membership = self.pair.kept.membership.clone();
        // Whatever happens next, this node has left.
        self.keep_pair(kept).await?;
        let Some(membership) = membership else {
            return Ok(waited || noted);
        };
        let told = match self.pair.link.leave().await {
            true => "which knows it",
            false => "which could not be told: 'lbadm pair leave' there as well",
        };
        tracing::info!(
            message_id = PAIR_LEFT.id,
            ilb_peer = %membership.address,
            "{author}: left the pair with {}, {told}", membership.address
        );
        self.end_pair().await;
        Ok(true)
    }

    /// The other node has left: this one stands alone from now on, and goes on with what it has.
    pub(super) async fn other_has_left(&mut self) {
        let Some(membership) = self.pair.kept.membership.clone() else {
            return;
        };
        let name = self.pair.there.as_ref().map(|node| node.name.clone());
        let left = Left {
            time: unix_now(),
            name: name.unwrap_or_default(),
            address: membership.address,
        };
        let kept = Kept {
            membership: None,
            yielded: false,
            left: Some(left.clone()),
            ..self.pair.kept.clone()
        };
        tracing::warn!(
            message_id = PAIR_PEER_LEFT.id,
            ilb_peer = %left.address,
            "the other node, {} at {}, has left the pair: this node stands alone",
            left.name,
            left.address
        );
        if let Err(error) = self.keep_pair(kept.clone()).await {
            tracing::error!("{error}");
            // It is so all the same, until the next start.
            self.pair.kept = kept;
        }
        self.end_pair().await;
    }

    /// Nobody is spoken with any more.
    async fn end_pair(&mut self) {
        self.pair.there = None;
        self.pair.be();
        self.pair.set_link(false, "there is no pair");
        self.follow_down().await;
        self.introduce_peer().await;
    }
}
