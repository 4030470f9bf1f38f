//! Between records and the connection table.

use std::net::IpAddr;

use ilb_forwarder::changes::Ended;
use ilb_forwarder::network::NextHop;
use ilb_forwarder::peer::{self, Known, Outcome, Places};
use ilb_forwarder::table::{self, Connection};
use ilb_forwarder::{Table, View};
use ilb_sync::{Claim, End, Record, Session, State, Traces};

use crate::board::Ask;

/// What came of a record: [`Outcome`], or a place that we do not have.
pub enum Came {
    /// It was looked at.
    To(Outcome),
    /// Its rule and server are not ours, or not as ours.
    Unknown,
}

fn state_of(state: State) -> table::State {
    match state {
        State::Established => table::State::Established,
        State::FinWait => table::State::FinWait,
        State::CloseWait => table::State::CloseWait,
        State::LastAck => table::State::LastAck,
        State::TimeWait => table::State::TimeWait,
        State::Close => table::State::Close,
        State::Flowing => table::State::Flowing,
    }
}

fn told_state(state: table::State) -> Option<State> {
    Some(match state {
        table::State::Established => State::Established,
        table::State::FinWait => State::FinWait,
        table::State::CloseWait => State::CloseWait,
        table::State::LastAck => State::LastAck,
        table::State::TimeWait => State::TimeWait,
        table::State::Close => State::Close,
        table::State::Flowing => State::Flowing,
        table::State::SynReceived
        | table::State::Fresh
        | table::State::Offered
        | table::State::Persistence => return None,
    })
}

/// The table as the session sees it.
pub struct Entries<'a> {
    /// The configuration.
    pub view: &'a View,
    /// The entries.
    pub table: &'a Table,
    /// What both nodes mean by rules and servers.
    pub places: &'a Places,
    /// Seconds since boot.
    pub now: u32,
}

impl Entries<'_> {
    /// What is to be told of a connection.
    fn record(&self, connection: &Connection) -> Option<Record> {
        let identity = &connection.identity;
        if peer::is_light(self.view, identity.rule) && !connection.state.is_claim() {
            return None;
        }
        let place = self.places.hash(identity.rule, identity.server)?;
        let client: IpAddr = identity.client.into();
        let idle = connection.idle(self.now).min(u32::from(u16::MAX)) as u16;
        if connection.state.is_claim() {
            return Some(Record::Claim(Claim {
                place,
                client,
                nat_index: identity.nat_index,
                idle,
            }));
        }
        Some(Record::Connection(ilb_sync::Connection {
            state: told_state(connection.state)?,
            protocol: identity.protocol,
            vip_index: identity.vip_index,
            place,
            client,
            client_port: identity.client_port,
            vip_port: identity.vip_port,
            nat: self
                .is_nat(identity.rule)
                .then_some((identity.nat_port, identity.nat_index)),
            idle,
        }))
    }

    fn is_nat(&self, rule: u32) -> bool {
        let rule = self.view.snapshot.rule_by_id(rule);
        rule.is_some_and(|rule| rule.topology == ilb_forwarder::spec::Topology::Nat)
    }

    /// How a connection that has ended is told of.
    pub fn end(&self, ended: &Ended) -> Option<End> {
        if peer::is_light(self.view, ended.rule) {
            return None;
        }
        Some(End {
            protocol: ended.protocol,
            vip_index: ended.vip_index,
            place: self.places.hash(ended.rule, ended.server)?,
            client: ended.client.into(),
            client_port: ended.client_port,
            vip_port: ended.vip_port,
        })
    }

    fn known(&self, end: &End) -> Option<Known> {
        Some(Known {
            ids: self.places.ids(end.place)?,
            client: end.client,
            client_port: end.client_port,
            vip_port: end.vip_port,
            vip_index: end.vip_index,
            protocol: end.protocol,
            nat: None,
        })
    }

    /// Tells the session of an entry that has changed.
    pub fn tell(&self, session: &mut Session, entry: u32, now: u64) {
        match peer::trace(self.view, self.table, entry) {
            Some(trace) => session.traced(trace, now),
            None => session.changed(entry, now),
        }
    }

    /// Remembers traces of the peer.
    pub fn remember(&self, it: &Traces) {
        let told = &self.view.snapshot.guard().traces;
        match it.inherited {
            Some(age) => told.told_again(&it.traces, age, self.now),
            None => told.told(it.round, &it.traces, self.now),
        }
        if it.over {
            told.over(it.round);
        }
    }

    /// The neighbour that a connection's client is reached by, if answers pass through here and nobody has found out its
    /// link-layer address yet: whoever takes the connection over needs it at once.
    pub fn unresolved(&self, record: &Record) -> Option<Ask> {
        let Record::Connection(it) = record else {
            return None;
        };
        let (rule, _) = self.places.ids(it.place)?;
        let rule = self.view.snapshot.rule_by_id(rule)?;
        if !rule.topology.has_reverse() {
            return None;
        }
        match self.view.network.only_hop(it.client.into())? {
            NextHop::Unknown { port, address } => Some(Ask::Resolve {
                port,
                next_hop: address.into(),
            }),
            NextHop::Known { .. } | NextHop::Local | NextHop::None(_) => None,
        }
    }

    /// Does as a record of the peer says. To be called as the table's visitor.
    pub fn take(&self, record: &Record) -> Came {
        let Entries {
            view, table, now, ..
        } = *self;
        let outcome = match record {
            Record::Connection(it) => self.known(&it.end()).map(|known| {
                let known = Known {
                    nat: it.nat,
                    ..known
                };
                let (state, idle) = (state_of(it.state), u32::from(it.idle));
                peer::enter(view, table, known.identity(), state, idle, now)
            }),
            Record::Claim(it) => self.places.ids(it.place).map(|(rule, server)| {
                let (client, idle) = (it.client.into(), u32::from(it.idle));
                peer::claim(view, table, rule, client, server, it.nat_index, idle, now)
            }),
            Record::End(it) => self
                .known(it)
                .map(|known| peer::leave(view, table, &known.identity())),
        };
        outcome.map_or(Came::Unknown, Came::To)
    }
}

impl ilb_sync::Table for Entries<'_> {
    fn size(&self) -> u32 {
        self.table.high_water()
    }

    fn read(&mut self, entry: u32) -> Option<Record> {
        self.record(&peer::telling(self.table, entry)?)
    }

    fn has(&mut self, end: &End) -> bool {
        let known = self.known(end);
        known.is_some_and(|it| peer::has(self.view, self.table, &it.identity()))
    }

    fn trace(&mut self, entry: u32) -> Option<u32> {
        peer::trace(self.view, self.table, entry)
    }

    fn inherited(&mut self) -> Option<(Vec<u32>, u16)> {
        self.view.snapshot.guard().traces.inherited(self.now)
    }
}
