//! The server of a persistent client: the one of its claim, or a new one that it gets a claim to.

use super::{Path, known::RACES};
use crate::address::Addr;
use crate::persistence::{self, Pin};
use crate::select::{NoChoice, Request};
use crate::snapshot::Rule;
use crate::spec::{Persistence, ServerId, Topology};
use crate::table::{Candidate, InsertError, NO_LANE, State};
use crate::verdict::DropReason;
use crate::view::{Flow, View};

impl Path {
    /// Where a new flow of a persistent client goes. The claim is entered before the connection, so that of two
    /// workers that meet a new client at once one finds the other's choice.
    #[cold]
    pub(super) fn pin(
        &self,
        view: &View,
        rule: &Rule,
        persistence: &Persistence,
        request: &Request,
    ) -> Result<Pin, DropReason> {
        let client = persistence::masked(request.client, persistence.mask);
        for _ in 0..RACES {
            let claim = persistence::find(&self.table, &self.hasher, rule.id, client);
            if let Some((found, identity)) = claim
                && let Some(pin) = honoured(view, rule, identity.server, identity.nat_index)
            {
                let real = self.is_known(view, request.client);
                match self.table.touch(
                    found.index,
                    |state| persistence::used(state, real),
                    request.now,
                ) {
                    Some(change) => {
                        self.tell_changed(found.index, change);
                        return Ok(pin);
                    }
                    None => continue,
                }
            }
            let target = view
                .snapshot
                .select(rule, request, self.mode)
                .map_err(reason)?;
            if let Some((found, _)) = claim {
                self.table.kill(found.index);
            }
            let state = match self.is_known(view, request.client) {
                true => State::Persistence,
                false => State::Offered,
            };
            let server = view.snapshot.targets()[target as usize].server;
            match self.claim(rule, client, server, state, request.now) {
                Ok(nat_index) => return Ok(Pin { target, nat_index }),
                Err(InsertError::Race) => {}
                Err(InsertError::Full | InsertError::ReverseTaken) => {
                    rule.account.of(self.worker).no_memory.add(1);
                    return Err(DropReason::TableFull);
                }
            }
        }
        Err(DropReason::InsertRace)
    }

    /// Enters a claim of a (masked) client. Gives the index of the source address that goes with it.
    fn claim(
        &self,
        rule: &Rule,
        client: Addr,
        server: ServerId,
        state: State,
        now: u32,
    ) -> Result<u8, InsertError> {
        let hash = persistence::hash(&self.hasher, rule.id, client);
        let nat_index = match rule.topology {
            Topology::Nat => (hash as usize % rule.proxy_src.len().max(1)) as u8,
            Topology::Dsr | Topology::HalfNat | Topology::Tun => 0,
        };
        let candidate = Candidate {
            identity: persistence::identity(rule.id, client, server, nat_index),
            state,
            hash,
            lane: NO_LANE,
            now,
        };
        self.table
            .insert(
                candidate,
                |connection, _| persistence::is_claim(connection, rule.id, client),
                |_| None,
                |_, _, _| false,
            )
            .map(|(index, _)| {
                self.tell_new(index, state);
                nat_index
            })
    }

    /// The client of this connection is real, and so is its claim. One that was lost, with the table or under pressure,
    /// comes back.
    #[cold]
    pub(super) fn assure_claim(&self, flow: &Flow<'_>, persistence: &Persistence) {
        let client = persistence::masked(flow.identity.client, persistence.mask);
        let found = persistence::find(&self.table, &self.hasher, flow.rule.id, client);
        if let Some((found, _)) = found {
            let used = |state| persistence::used(state, true);
            if let Some(change) = self.table.touch(found.index, used, self.now) {
                self.tell_changed(found.index, change);
            }
            return;
        }
        // Without it the connection goes on all the same.
        let server = flow.identity.server;
        let _ = self.claim(flow.rule, client, server, State::Persistence, self.now);
    }

    /// Takes away what was offered to a client whose connection has come to nothing.
    pub(super) fn drop_offer(&self, flow: &Flow<'_>) {
        let Some(persistence) = &flow.rule.persistence else {
            return;
        };
        let client = persistence::masked(flow.identity.client, persistence.mask);
        if let Some((found, _)) = persistence::find(&self.table, &self.hasher, flow.rule.id, client)
            && found.state == State::Offered
        {
            self.table.kill(found.index);
        }
    }

    fn is_known(&self, view: &View, client: Addr) -> bool {
        view.snapshot.guard().clients.contains(&self.hasher, client)
    }
}

/// What a claim to this server gives, if it is worth anything: see [`crate::persistence`].
fn honoured(view: &View, rule: &Rule, server: u32, nat_index: u8) -> Option<Pin> {
    let target = view.snapshot.target_of(rule.id, server)?;
    let has_source = rule.topology != Topology::Nat || (nat_index as usize) < rule.proxy_src.len();
    (view.snapshot.targets()[target as usize].takes_new() && has_source)
        .then_some(Pin { target, nat_index })
}

/// Why a packet is dropped for want of a choice.
pub(super) fn reason(none: NoChoice) -> DropReason {
    match none {
        NoChoice::NoServer => DropReason::NoServer,
        NoChoice::AtLimits => DropReason::ServerLimits,
    }
}
