//! Packets in mid-connection of which no entry is known: the versions of the rule's pool may know their server.
//!
//! What they recover is a connection like any other from then on. Packets from a server without an entry are not looked
//! for: under DSR and TUN there are none, and under HALF-NAT the client's next packet brings the entry back; until then
//! they go to the kernel, as everything does that the server sends on its own account.

use super::Path;
use crate::packet::Headers;
use crate::pool::{self, Budget, Recovered};
use crate::select::Request;
use crate::snapshot::Rule;
use crate::state;
use crate::table::{Identity, InsertError, State};
use crate::view::{Flow, View};

/// The connection of a packet in mid-life without an entry, if a version of the rule's pool knows its server.
pub(crate) fn recovered(
    view: &View,
    rule: &Rule,
    request: &Request,
    has_reverse: bool,
    budget: &Budget,
) -> Option<Identity> {
    if !state::has_handshake(request.protocol) {
        return None;
    }
    let usable = |server| {
        view.snapshot
            .target_of(rule.id, server)
            .is_some_and(|target| !view.snapshot.targets()[target as usize].dead)
    };
    let Recovered { version, server } = rule.pool.recover(request, budget, usable)?;
    Some(Identity {
        client: request.client,
        client_port: request.client_port,
        vip_port: request.vip_port,
        nat_port: 0,
        nat_index: 0,
        vip_index: request.vip_index,
        rule: rule.id,
        server,
        protocol: request.protocol,
        has_reverse,
        pool_version: version,
    })
}

impl Path {
    /// Gives a packet in mid-connection its entry back. None if nobody knows it; Some(None) if another worker was faster.
    pub(super) fn recover<'v>(
        &mut self,
        view: &'v View,
        rule: &Rule,
        headers: &Headers,
        request: &Request,
        hash: u64,
    ) -> Option<Option<Flow<'v>>> {
        let has_reverse = rule.topology.has_reverse();
        let identity = recovered(view, rule, request, has_reverse, &self.budget)?;
        match self.enter(view, rule, identity, None, headers, hash, request.now) {
            Ok(identity) => {
                let flow = view.flow(identity)?;
                flow.target.account.of(self.worker).recovered.add(1);
                self.remember(&flow, request.now);
                if let Some(persistence) = &rule.persistence {
                    self.assure_claim(&flow, persistence);
                }
                self.notes.recovered = true;
                Some(Some(flow))
            }
            Err(InsertError::Race) => Some(None),
            Err(InsertError::Full | InsertError::ReverseTaken) => None,
        }
    }

    /// Has the version of a connection whose handshake is over remember it.
    #[cold]
    pub(super) fn remember(&self, flow: &Flow<'_>, now: u32) {
        let request = Request::new(&flow.forward_tuple(), flow.identity.vip_index, now);
        let Identity {
            pool_version,
            server,
            ..
        } = flow.identity;
        if self.is_real() {
            flow.rule.pool.remember(request.hash, pool_version, server);
        }
    }

    /// A packet took a connection from one state to another.
    #[inline(always)]
    pub(super) fn changed(&self, flow: &Flow<'_>, (before, after): (State, State), now: u32) {
        if before == State::SynReceived && pool::is_remembered(flow, after) {
            self.remember(flow, now);
        }
    }
}
