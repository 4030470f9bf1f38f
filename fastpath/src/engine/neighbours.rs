//! Neighbours that have to be known before a packet needs them: next hops of servers, gateways, and other nodes.

use std::collections::HashSet;
use std::net::IpAddr;

use ilb_forwarder::network::{NextHop, PortIndex};
use ilb_node::control::{Giver, Response};
use tokio::time::Instant;

use super::{DOUBT, Engine, Parts, REPEAT};
use crate::clock;

impl Engine {
    /// Keeps the next hops of servers known and fresh: the kernel does not see that they are used.
    pub(super) fn check_neighbours(&mut self) {
        self.parts.board.sweep();
        let now = Instant::now();
        self.asked
            .retain(|_, then| now.duration_since(*then) < DOUBT);
        let servers: HashSet<IpAddr> = self
            .parts
            .view
            .snapshot
            .targets()
            .iter()
            .map(|target| target.address.into())
            .collect();
        let givers: HashSet<IpAddr> = self.handover.places().map(|(_, it)| it).collect();
        let matters = |it: &IpAddr| servers.contains(it) || givers.contains(it);
        for (port, address) in self.parts.picture.stale(matters) {
            self.resolve(port, address, DOUBT);
        }
        self.resolve_servers();
        self.resolve_others();
    }

    /// Has gateways and other nodes found out before a packet needs them: a node that takes over has everybody's packets at
    /// once.
    fn resolve_others(&mut self) {
        let network = &self.parts.view.network;
        let givers = self.handover.unresolved(network);
        let gateways = self.parts.picture.unresolved_gateways();
        for (port, address) in givers {
            self.resolve(port, address, REPEAT);
        }
        for (port, address) in gateways {
            self.resolve(port, address, DOUBT);
        }
    }

    /// Has the next hops of servers found out before a packet needs them.
    pub(super) fn resolve_servers(&mut self) {
        let unknown: HashSet<(PortIndex, IpAddr)> = self
            .parts
            .view
            .server_hops()
            .iter()
            .filter_map(|hop| match hop {
                NextHop::Unknown { port, address } => Some((*port, (*address).into())),
                NextHop::Known { .. } | NextHop::Local | NextHop::None(_) => None,
            })
            .collect();
        for (port, address) in unknown {
            self.resolve(port, address, DOUBT);
        }
    }

    /// Other nodes are these.
    pub(super) fn hand_over(&mut self, givers: &[Giver]) -> Response {
        let picture = &self.parts.picture;
        let port_of = |name: &str| picture.port_named(name);
        self.handover
            .set(givers, port_of, clock::Instant::now().seconds());
        self.relay();
        self.resolve_others();
        Response::Handover
    }

    /// Has the workers send on what other nodes may know more of.
    pub(super) fn relay(&self) {
        let Parts { view, input, .. } = &self.parts;
        let relay = &view.snapshot.guard().relay;
        let ports = input.interfaces.len();
        self.handover.put_in_force(&view.network, relay, ports);
    }
}
