//! Connections and persistence entries as a person asks for them, from the table that the workers use.
//!
//! Reading takes no lock and writes nothing, so forwarding is not disturbed. One call looks at [`SLICE`] entries at
//! most, so that whoever answers has time for others: a [`Page`] says where the next one begins. A connection that
//! begins or ends between two pages may be missed; none is given twice.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::Addr;
use crate::matching::Clients;
use crate::spec::{Prefix, RuleId, ServerId, Topology};
use crate::state;
use crate::table::{Connection, State, Table};
use crate::view::View;

/// Entries that one page looks at, a few milliseconds.
pub const SLICE: u32 = 1 << 16;
/// Entries that one page gives.
pub const MOST: u32 = 10_000;

/// What is asked for. Everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Only of this rule.
    pub rule: Option<RuleId>,
    /// Only of this server.
    pub server: Option<ServerId>,
    /// Only of clients within this network.
    pub client: Option<Prefix>,
    /// Only to this VIP.
    pub vip: Option<IpAddr>,
    /// Only in this state, by its label ([`State::label`]).
    pub state: Option<String>,
    /// Only of this protocol number.
    pub protocol: Option<u8>,
    /// Persistence entries instead of connections.
    pub persistence: bool,
}

/// A question for one page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Query {
    /// Which ones.
    pub filter: Filter,
    /// How many at most; [`MOST`] if it is more.
    pub limit: u32,
    /// Where to begin: 0, then [`Page::next`].
    pub cursor: u32,
}

impl Default for Query {
    /// The first hundred connections.
    fn default() -> Query {
        Query {
            filter: Filter::default(),
            limit: 100,
            cursor: 0,
        }
    }
}

/// An answer. It may hold fewer than were asked for, or none, and yet not be the last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Page {
    /// What was found.
    pub entries: Vec<Entry>,
    /// Where the next page begins; None if there is nothing more.
    pub next: Option<u32>,
}

/// A connection, or a client's claim to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its rule.
    pub rule: RuleId,
    /// Its server.
    pub server: ServerId,
    /// Where the server is; None if it is not configured any more.
    pub address: Option<End>,
    /// Protocol number; 0 for persistence.
    pub protocol: u8,
    /// The client; of a persistence entry, its network.
    pub client: End,
    /// What it connected to; None if the rule is not configured any more.
    pub vip: Option<End>,
    /// What the server sees as the client, under NAT.
    pub source: Option<End>,
    /// [`State::label`].
    pub state: String,
    /// Seconds since its last packet.
    pub idle: u32,
    /// Seconds after which it is forgotten if no more packets come (of a claim: if none of the client's connections is
    /// left); None if the rule is not configured any more.
    pub remaining: Option<u32>,
    /// The version of the pool that it began with; 0 if it is not known.
    pub pool_version: u16,
}

/// An address with a port or an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The address.
    pub address: IpAddr,
    /// The port; 0 for protocols that have none.
    pub port: u16,
}

impl End {
    /// From what a tuple holds.
    pub fn new(address: Addr, port: u16) -> End {
        End {
            address: address.into(),
            port,
        }
    }
}

/// A filter that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No such state.
    #[error("there is no state '{wanted}'; there are {}", labels())]
    State {
        /// What was asked for.
        wanted: String,
    },
    /// A prefix that is longer than its address.
    #[error("{address}/{len} is no network")]
    Prefix {
        /// The address.
        address: IpAddr,
        /// The length.
        len: u8,
    },
}

fn labels() -> String {
    State::ALL.map(State::label).join(", ")
}

/// A filter, checked.
struct Wanted<'q> {
    filter: &'q Filter,
    state: Option<State>,
    clients: Clients,
    vip: Option<Addr>,
}

impl<'q> Wanted<'q> {
    fn new(filter: &'q Filter) -> Result<Wanted<'q>, QueryError> {
        let state = filter.state.as_ref().map(|label| {
            State::ALL
                .into_iter()
                .find(|state| state.label() == label)
                .ok_or_else(|| QueryError::State {
                    wanted: label.clone(),
                })
        });
        if let Some(Prefix { address, len }) = filter.client
            && len > if address.is_ipv4() { 32 } else { 128 }
        {
            return Err(QueryError::Prefix { address, len });
        }
        Ok(Wanted {
            filter,
            state: state.transpose()?,
            clients: filter.client.as_ref().map_or(Clients::ALL, Clients::of),
            vip: filter.vip.map(Addr::from),
        })
    }

    fn is(&self, view: &View, connection: &Connection) -> bool {
        let Connection {
            identity, state, ..
        } = connection;
        let same = |wanted: Option<u32>, id| wanted.is_none_or(|wanted| wanted == id);
        let family = |prefix: &Prefix| prefix.address.is_ipv4() == identity.client.is_v4();
        let vip = || {
            view.snapshot
                .rule_by_id(identity.rule)
                .and_then(|rule| rule.vips.get(identity.vip_index as usize))
                .map(|vip| vip.address)
        };
        state.is_claim() == self.filter.persistence
            && same(self.filter.rule, identity.rule)
            && same(self.filter.server, identity.server)
            && self.state.is_none_or(|wanted| wanted == *state)
            && self
                .filter
                .protocol
                .is_none_or(|wanted| wanted == identity.protocol)
            && self.filter.client.as_ref().is_none_or(family)
            && self.clients.contains(identity.client)
            && self.vip.is_none_or(|wanted| vip() == Some(wanted))
    }
}

/// One page. Not for a worker: it allocates.
///
/// # Errors
/// When the filter names what cannot be.
pub fn page(view: &View, table: &Table, query: &Query, now: u32) -> Result<Page, QueryError> {
    let wanted = Wanted::new(&query.filter)?;
    let limit = query.limit.clamp(1, MOST) as usize;
    let end = table.high_water();
    let mut page = Page::default();
    let slice = query.cursor..end.min(query.cursor.saturating_add(SLICE));
    let mut next = slice.end.max(query.cursor);
    for index in slice {
        let Some(connection) = table.get(index) else {
            continue;
        };
        if !wanted.is(view, &connection) {
            continue;
        }
        // Given to another connection while it was read? Then its parts may be of both.
        if table
            .get(index)
            .is_some_and(|again| again.identity == connection.identity)
        {
            page.entries.push(entry(view, &connection, now));
            if page.entries.len() == limit {
                next = index + 1;
                break;
            }
        }
    }
    page.next = (next < end).then_some(next);
    Ok(page)
}

/// A connection in words.
pub(crate) fn entry(view: &View, connection: &Connection, now: u32) -> Entry {
    let Connection {
        identity, state, ..
    } = connection;
    let rule = view.snapshot.rule_by_id(identity.rule);
    let vip = rule.and_then(|rule| rule.vips.get(identity.vip_index as usize));
    let flow = view.flow(*identity);
    let idle = connection.idle(now);
    let timeout = rule.and_then(|rule| match state.is_claim() {
        true => Some(rule.persistence?.timeout),
        false => Some(state::timeout(*state, identity.protocol, &rule.timeouts)),
    });
    let source = rule
        .filter(|rule| rule.topology == Topology::Nat)
        .and_then(|rule| rule.proxy_src.get(identity.nat_index as usize))
        .map(|&address| End::new(address, identity.nat_port));
    Entry {
        rule: identity.rule,
        server: identity.server,
        address: flow.map(|flow| End::new(flow.target.address, flow.server_port())),
        protocol: identity.protocol,
        client: End::new(identity.client, identity.client_port),
        vip: vip.map(|vip| End::new(vip.address, identity.vip_port)),
        source,
        state: state.label().into(),
        idle,
        remaining: timeout.map(|timeout| timeout.saturating_sub(idle)),
        pool_version: identity.pool_version,
    }
}
