//! Packets in mid-connection of which no entry is known: the versions of the rule's pool may know their server.
//!
//! If they do not, the peer may have told of it the light way ([`crate::traces`]).
//!
//! What they recover is a connection like any other from then on. Packets from a server without an entry are looked for in
//! what the peer told: a client that downloads has nothing to say before the server's next packet has come. Otherwise they
//! are not: under DSR and TUN there are none, and under HALF-NAT the client's next packet brings the entry back; until then
//! they go to the kernel, as everything does that the server sends on its own account.

use super::Path;
use crate::packet::{Headers, Tuple, sctp, tcp};
use crate::pool::{self, Budget, MOST_SERVERS, Recovered};
use crate::select::Request;
use crate::snapshot::{Rule, Target, Vip};
use crate::spec::{PortMap, ServerId, Synchronise};
use crate::state;
use crate::table::{Identity, InsertError, State};
use crate::traces;
use crate::view::{Flow, View};

/// The connection of a packet in mid-life without an entry, if a version of the rule's pool knows its server.
pub(crate) fn recovered(
    view: &View,
    rule: &Rule,
    request: &Request,
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
    let known = rule.pool.recover(request, budget, usable);
    let known = known.or_else(|| traced(view, rule, request, budget, usable))?;
    Some(identity(rule, request, known))
}

fn identity(rule: &Rule, request: &Request, found: Recovered) -> Identity {
    Identity {
        client: request.client,
        client_port: request.client_port,
        vip_port: request.vip_port,
        nat_port: 0,
        nat_index: 0,
        vip_index: request.vip_index,
        rule: rule.id,
        server: found.server,
        protocol: request.protocol,
        has_reverse: rule.topology.has_reverse(),
        pool_version: found.version,
    }
}

/// The server that the peer told of by the flow's trace. Those that would be computed are asked about first, so that hardly
/// a mistake is possible for algorithms that compute.
#[cold]
fn traced(
    view: &View,
    rule: &Rule,
    request: &Request,
    budget: &Budget,
    usable: impl Fn(ServerId) -> bool,
) -> Option<Recovered> {
    let told = &view.snapshot.guard().traces;
    if rule.sync != Synchronise::Light || rule.targets().len() > MOST_SERVERS || told.is_empty() {
        return None;
    }
    budget.question(request.now, rule.targets().len())?;
    let targets = view.snapshot.targets();
    let asked = |target: &Target| {
        target.mark != 0
            && told.contains(traces::trace(request.hash, target.mark))
            && usable(target.server)
    };
    let computed = || {
        let versions = rule.pool.versions().iter();
        versions
            .filter_map(|version| version.computed(request))
            .filter_map(|server| view.snapshot.target_of(rule.id, server))
    };
    let all = rule.targets().iter().copied();
    let found = computed()
        .chain(all)
        .map(|at| &targets[at as usize])
        .find(|target| asked(target))?;
    Some(Recovered {
        version: rule.pool.current(),
        server: found.server,
    })
}

/// Ports of a VIP that a server's port may stand for, at most.
const MOST_PORTS: usize = 16;

/// Ports of the VIP that packets from this port of the server may belong to.
fn vip_ports(target: &Target, vip: &Vip, server_port: u16) -> impl Iterator<Item = u16> {
    let (first, last) = (vip.ports.first, vip.ports.last);
    let range = match target.ports {
        _ if !vip.protocol.has_ports() => server_port..=server_port,
        PortMap::Same => server_port..=server_port,
        PortMap::Shift(begin) => {
            let port = server_port.wrapping_sub(begin).wrapping_add(first);
            port..=port
        }
        PortMap::Collapse(_) => first..=last,
    };
    range
        .take(MOST_PORTS)
        .filter(|&port| !vip.protocol.has_ports() || vip.ports.contains(port))
        .filter(move |&port| target.port(vip, port) == server_port)
}

/// The connection of a server's packet without an entry, if the peer told of it: the client's request, the place of the
/// rule, and who it is.
#[cold]
fn traced_back(view: &View, headers: &Headers, budget: &Budget, now: u32) -> Option<Identity> {
    let (snapshot, back) = (&view.snapshot, &headers.tuple);
    let servers = snapshot.behind(back.src);
    let told = &snapshot.guard().traces;
    if servers.is_empty() || told.is_empty() {
        return None;
    }
    for &(rule, server) in servers {
        let target = &snapshot.targets()[snapshot.target_of(rule, server)? as usize];
        if target.mark == 0 {
            continue;
        }
        let of = &snapshot.rules()[target.rule as usize];
        for (vip, number) in of.vips.iter().zip(0..) {
            for vip_port in vip_ports(target, vip, back.sport) {
                budget.question(now, 1)?;
                let forward = Tuple {
                    src: back.dst,
                    dst: vip.address,
                    sport: back.dport,
                    dport: vip_port,
                    protocol: back.protocol,
                };
                let request = Request::new(&forward, number, now);
                if told.contains(traces::trace(request.hash, target.mark))
                    && snapshot.accepting(&forward) == Some((target.rule, number))
                {
                    let version = of.pool.current();
                    return Some(identity(of, &request, Recovered { version, server }));
                }
            }
        }
    }
    None
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
        let identity = recovered(view, rule, request, &self.budget)?;
        self.enter_again(view, rule, identity, headers, hash, request.now)
    }

    /// The same for a server's packet.
    pub(super) fn recover_back<'v>(
        &mut self,
        view: &'v View,
        headers: &Headers,
        now: u32,
    ) -> Option<Option<Flow<'v>>> {
        let tuple = &headers.tuple;
        if !state::has_handshake(tuple.protocol) || state::begins_with_handshake(headers) {
            return None;
        }
        let identity = traced_back(view, headers, &self.budget, now)?;
        let flow = view.flow(identity)?;
        // It is entered as the client's would be who says nothing but that it is there.
        let forward = Headers {
            tuple: flow.forward_tuple(),
            tcp_flags: tcp::ACK,
            message: sctp::DATA,
            ..*headers
        };
        let hash = self.hasher.tuple(&forward.tuple);
        self.enter_again(view, flow.rule, identity, &forward, hash, now)
    }

    fn enter_again<'v>(
        &mut self,
        view: &'v View,
        rule: &Rule,
        identity: Identity,
        headers: &Headers,
        hash: u64,
        now: u32,
    ) -> Option<Option<Flow<'v>>> {
        match self.enter(view, rule, identity, None, headers, hash, now) {
            Ok(identity) => {
                let flow = view.flow(identity)?;
                flow.target.account.of(self.worker).recovered.add(1);
                self.remember(&flow, now);
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
