//! What only the fast path knows about single connections and packets: its words, and those of the administrator. Pure but
//! for the asking, which [`super::ManagerHandle::ask_fastpath`] does.

use std::net::IpAddr;

use ilb_forwarder::explain as said;
use ilb_forwarder::listing;
use ilb_forwarder::spec::{self, RuleId, ServerId};
use ilb_node::control::{Request, Response};
use libilb::ModelError;
use libilb::connections::{Connection, End, Filter, protocol_word};
use libilb::error::Item;
use libilb::explain::{
    Candidate, Chosen, Explanation, Leaving, Matched, Miss, Origin, Outcome, Packet, Shared,
};
use libilb::model::{Rule, Server, Vip, key};
use libilb::words;

use super::ManagerHandle;
use super::error::ManagerError;
use super::view::View;
use crate::state::State;

/// An ICMP echo request, an ICMPv6 echo request, and the first chunk of an SCTP association.
const FIRST_MESSAGES: [(u8, u8); 3] = [(1, 8), (58, 128), (132, 1)];

impl ManagerHandle {
    /// One page of connections, and where the next one begins; 0 for the end.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn connections(
        &self,
        filter: &Filter,
        cursor: u32,
        limit: u32,
    ) -> Result<(Vec<Connection>, u32), ManagerError> {
        let view = self.view();
        let query = listing::Query {
            filter: wanted(&view.state, filter)?,
            limit,
            cursor,
        };
        let page = match self.ask_fastpath(Request::Connections(query)).await? {
            Response::Connections(page) => page,
            other => return Err(unexpected(&other)),
        };
        let connections = page.entries.iter();
        Ok((
            connections.map(|c| connection(&view.state, c)).collect(),
            page.next.unwrap_or(0),
        ))
    }

    /// What would become of a packet.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn explain(&self, packet: &Packet) -> Result<Explanation, ManagerError> {
        let interfaces = self.interfaces();
        let query = query(packet, interfaces)?;
        match self.ask_fastpath(Request::Explain(query)).await? {
            Response::Explanation(said) => {
                let view = self.view();
                Ok(Explanation {
                    vrrp: shared(&view, packet.destination.address),
                    ..explanation(&view.state, interfaces, *said)
                })
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// The VRRP instance that has an address.
fn shared(view: &View, address: IpAddr) -> Option<Shared> {
    let instance = view.state.configuration.instance_of(address)?;
    let status = view.vrrp.get(&key(&instance.name)).cloned();
    let status = status.unwrap_or_default();
    Some(Shared {
        name: instance.name.clone(),
        state: status.state,
        active_node: status.active_node,
    })
}

fn unexpected(response: &Response) -> ManagerError {
    match response {
        Response::Error { message } => ManagerError::Fastpath(message.clone()),
        other => ManagerError::Fastpath(crate::dataplane::unexpected(other).to_string()),
    }
}

/// A filter with numbers instead of names.
fn wanted(state: &State, filter: &Filter) -> Result<listing::Filter, ManagerError> {
    let rule = filter.rule.as_ref().map(|name| {
        let configured = state.configuration.rule(name).map(|rule| rule.number);
        // Of two deleted rules with one name, the later one is meant.
        let retired = state.retired.rules.values().map(|record| &record.rule);
        let retired = retired.filter(|rule| rule.name.eq_ignore_ascii_case(name));
        configured
            .or(retired.last().map(|rule| rule.number))
            .ok_or_else(|| {
                let known = state.configuration.rules.values();
                not_found(Item::Rule, name, known.map(|rule| rule.name.as_str()))
            })
    });
    let server = filter.server.as_ref().map(|id| {
        let configured = state.configuration.server(id).map(|(_, server)| server);
        let rules = state.retired.rules.values();
        let retired = state.retired.servers.values().map(|record| &record.server);
        let mut retired = retired.chain(rules.flat_map(|record| &record.servers));
        configured
            .or_else(|| retired.find(|server| server.id.eq_ignore_ascii_case(id)))
            .map(|server| server.number)
            .ok_or_else(|| {
                let known = state.configuration.groups.values();
                let known = known.flat_map(|group| &group.servers);
                not_found(Item::Server, id, known.map(|server| server.id.as_str()))
            })
    });
    Ok(listing::Filter {
        rule: rule.transpose()?,
        server: server.transpose()?,
        client: filter.client.map(|client| spec::Prefix {
            address: client.address,
            len: client.len,
        }),
        vip: filter.vip,
        state: filter.state.clone(),
        protocol: filter.protocol,
        persistence: filter.persistence,
    })
}

fn not_found<'a>(item: Item, name: &str, known: impl Iterator<Item = &'a str>) -> ModelError {
    ModelError::NotFound {
        item,
        names: vec![name.to_owned()],
        suggestion: words::nearest(name, known),
    }
}

fn rule_of(state: &State, number: RuleId) -> Option<&Rule> {
    let configured = state.configuration.rules.by_number(number);
    let retired = state.retired.rules.get(&number);
    configured
        .map(AsRef::as_ref)
        .or(retired.map(|record| &record.rule))
}

fn rule_name(state: &State, number: RuleId) -> String {
    rule_of(state, number).map_or_else(|| format!("#{number}"), |rule| rule.name.clone())
}

fn server_id(state: &State, rule: RuleId, number: ServerId) -> String {
    let group = rule_of(state, rule).and_then(|rule| state.configuration.group_of(rule));
    let configured = group.into_iter().flat_map(|group| &group.servers);
    let retired = state.retired.servers.get(&(rule, number));
    let of_retired = state.retired.rules.get(&rule);
    let all = configured
        .chain(retired.map(|record| &record.server))
        .chain(of_retired.into_iter().flat_map(|record| &record.servers));
    let mut found = all.filter(|server: &&Server| server.number == number);
    found
        .next()
        .map_or_else(|| format!("#{number}"), |server| server.id.clone())
}

fn end(end: listing::End) -> End {
    End {
        address: end.address,
        port: end.port,
    }
}

fn connection(state: &State, entry: &listing::Entry) -> Connection {
    Connection {
        rule: rule_name(state, entry.rule),
        server: server_id(state, entry.rule, entry.server),
        protocol: match entry.protocol {
            0 => String::new(),
            number => protocol_word(number),
        },
        client: end(entry.client),
        vip: entry.vip.map(end),
        source: entry.source.map(end),
        destination: entry.address.map(end),
        state: entry.state.clone(),
        idle: entry.idle,
        remaining: entry.remaining,
    }
}

/// A packet in the fast path's words.
fn query(packet: &Packet, interfaces: &[String]) -> Result<said::Query, ManagerError> {
    let ingress = match &packet.interface {
        None => 0,
        Some(name) => interfaces
            .iter()
            .position(|known| known == name)
            .ok_or_else(|| ModelError::UnknownWord {
                field: "interface",
                value: name.clone(),
                allowed: words::one_of(interfaces),
                suggestion: words::nearest(name, interfaces.iter().map(String::as_str)),
            })?,
    };
    let default = said::Query::default();
    let first = FIRST_MESSAGES
        .iter()
        .find(|(protocol, _)| *protocol == packet.protocol);
    let far = |end: End| listing::End {
        address: end.address,
        port: end.port,
    };
    Ok(said::Query {
        source: far(packet.source),
        destination: far(packet.destination),
        protocol: packet.protocol,
        tcp_flags: packet.flags.unwrap_or(default.tcp_flags),
        message: packet
            .message
            .unwrap_or(first.map_or(default.message, |(_, message)| *message)),
        length: packet.length.unwrap_or(default.length),
        ttl: packet.ttl.unwrap_or(default.ttl),
        // There are at most as many interfaces as fit.
        ingress: ingress as u8,
    })
}

/// What the fast path said, in the administrator's words.
fn explanation(state: &State, interfaces: &[String], said: said::Explanation) -> Explanation {
    let rule = said.rule.as_ref();
    let id = rule.map_or(0, |rule| rule.id);
    let configured = rule.and_then(|rule| rule_of(state, rule.id));
    Explanation {
        generation: said.generation,
        origin: match said.origin {
            said::Origin::None => Origin::None,
            said::Origin::Known => Origin::Known,
            said::Origin::Begins => Origin::Begins,
            said::Origin::Recovered => Origin::Recovered,
        },
        connection: said.entry.as_ref().map(|entry| connection(state, entry)),
        from_server: said.from_server,
        rule: rule.map(|matched| Matched {
            name: matched.name.clone(),
            vip: vip(&matched.vip),
            topology: configured.map_or_else(String::new, |rule| rule.topology.to_string()),
            algorithm: configured.map_or_else(String::new, |rule| rule.algorithm.to_string()),
        }),
        misses: said
            .misses
            .into_iter()
            .map(|miss| Miss {
                vip: vip(&miss.vip),
                rule: miss.name,
                obstacles: miss.obstacles,
            })
            .collect(),
        claim: said.claim.as_ref().map(|claim| connection(state, claim)),
        servers: said
            .servers
            .into_iter()
            .map(|server| Candidate {
                server: server.name,
                weight: server.weight,
                open: server.open,
                total: server.total,
                obstacle: server.obstacle,
            })
            .collect(),
        server: said.server.map(|server| Chosen {
            server: match server.name.is_empty() {
                true => server_id(state, id, server.id),
                false => server.name,
            },
            end: end(server.end),
        }),
        leaving: said.leaving.map(|leaving| Leaving {
            interface: interfaces
                .get(usize::from(leaving.interface))
                .cloned()
                .unwrap_or_else(|| format!("#{}", leaving.interface)),
            protocol: protocol_word(leaving.protocol),
            source: end(leaving.source),
            destination: end(leaving.destination),
            neighbour: leaving.neighbour.map(|mac| {
                let parts = mac.map(|byte| format!("{byte:02x}"));
                parts.join(":")
            }),
        }),
        vrrp: None,
        outcome: match said.outcome {
            said::Outcome::Transmit if said.relayed => Outcome::Relay,
            said::Outcome::Transmit => Outcome::Transmit,
            said::Outcome::Unresolved { next_hop } => Outcome::Unresolved { next_hop },
            said::Outcome::Hold => Outcome::Hold,
            said::Outcome::Kernel => Outcome::Kernel,
            said::Outcome::Drop { reason, words } => Outcome::Drop { reason, words },
        },
    }
}

fn vip(vip: &said::VipText) -> String {
    use libilb::model::{PortRange, Protocol};
    let vip = Vip {
        address: vip.address,
        protocol: match vip.protocol {
            spec::Protocol::Tcp => Protocol::Tcp,
            spec::Protocol::Udp => Protocol::Udp,
            spec::Protocol::Sctp => Protocol::Sctp,
            spec::Protocol::Icmp => Protocol::Icmp,
            spec::Protocol::Any => Protocol::Any,
        },
        ports: PortRange {
            first: vip.ports.first,
            last: vip.ports.last,
        },
    };
    vip.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ilb_forwarder::table::State as Label;
    use libilb::connections::{CLAIMS, STATES};

    use crate::manager::change::Change;

    /// Rule 1 `www` with servers 1 and 2; then rule 1 and server 2 go, and come back as others.
    fn states() -> (State, State) {
        let rule = libilb::model::RuleSettings {
            enabled: true,
            vip: "192.0.2.80".into(),
            port: "80".into(),
            algorithm: "wlc".into(),
            topology: "HALF-NAT".into(),
            servergroup: "web".into(),
            ..Default::default()
        };
        let mut before = State::default();
        let servers = ["192.0.2.11", "192.0.2.12"];
        before.configuration.create_group("web", &servers).unwrap();
        before.configuration.create_rule("www", &rule).unwrap();
        let mut after = before.clone();
        let changes = [
            Change::RemoveServers {
                group: "web".into(),
                servers: vec!["_web.1".into()],
            },
            Change::DeleteRules(vec!["www".into()]),
        ];
        for change in changes {
            let old = after.configuration.clone();
            change.apply(&mut after.configuration).unwrap();
            after.retired.follow(&old, &after.configuration, 0);
        }
        (before, after)
    }

    fn far(address: &str, port: u16) -> listing::End {
        listing::End {
            address: address.parse().unwrap(),
            port,
        }
    }

    fn entry() -> listing::Entry {
        listing::Entry {
            rule: 1,
            server: 2,
            address: Some(far("192.0.2.12", 80)),
            protocol: 6,
            client: far("203.0.113.9", 40000),
            vip: Some(far("192.0.2.80", 80)),
            source: None,
            state: "established".into(),
            idle: 3,
            remaining: Some(117),
            pool_version: 1,
        }
    }

    #[test]
    fn the_words_for_states_are_those_of_the_table() {
        let (claims, flows): (Vec<Label>, Vec<Label>) =
            Label::ALL.into_iter().partition(|state| state.is_claim());
        let labels = |states: Vec<Label>| states.into_iter().map(Label::label).collect::<Vec<_>>();
        assert_eq!(labels(flows), STATES);
        assert_eq!(labels(claims), CLAIMS);
    }

    #[test]
    fn names_become_numbers_and_numbers_names_even_of_what_only_drains() {
        let (before, after) = states();
        let filter = Filter {
            rule: Some("WWW".into()),
            server: Some("_web.1".into()),
            state: Some("established".into()),
            ..Filter::default()
        };
        for state in [&before, &after] {
            let wanted = wanted(state, &filter).unwrap();
            assert_eq!((wanted.rule, wanted.server), (Some(1), Some(2)));
            let connection = connection(state, &entry());
            assert_eq!((&*connection.rule, &*connection.server), ("www", "_web.1"));
            assert_eq!(connection.protocol, "tcp");
            assert_eq!(connection.client.to_string(), "203.0.113.9:40000");
        }
        let gone = connection(&State::default(), &entry());
        assert_eq!((&*gone.rule, &*gone.server), ("#1", "#2"));
        let filter = Filter {
            rule: Some("wwv".into()),
            ..Filter::default()
        };
        let error = wanted(&before, &filter).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no rule is named 'wwv'; did you mean 'www'?"
        );
    }

    #[test]
    fn a_packet_is_what_begins_a_connection_unless_it_is_said_to_be_another() {
        let interfaces = ["eth0".to_owned(), "eth1".to_owned()];
        let of = |protocol: &str, from: &str, to: &str| {
            query(&Packet::new(protocol, from, to).unwrap(), &interfaces).unwrap()
        };
        let tcp = of("tcp", "203.0.113.9:4000", "192.0.2.80:80");
        assert_eq!((tcp.protocol, tcp.tcp_flags, tcp.ingress), (6, 2, 0));
        let icmp = of("icmp", "203.0.113.9:7", "192.0.2.80");
        assert_eq!((icmp.protocol, icmp.message), (1, 8));
        let icmp6 = of("icmp", "[2001:db8::9]:7", "2001:db8::80");
        assert_eq!((icmp6.protocol, icmp6.message), (58, 128));
        let sctp = of("sctp", "203.0.113.9:4000", "192.0.2.80:80");
        assert_eq!((sctp.protocol, sctp.message), (132, 1));
        let packet = |interface: &str| Packet {
            flags: Some(16),
            interface: Some(interface.into()),
            ..Packet::new("tcp", "203.0.113.9:4000", "192.0.2.80:80").unwrap()
        };
        let ack = query(&packet("eth1"), &interfaces).unwrap();
        assert_eq!((ack.tcp_flags, ack.ingress), (16, 1));
        assert_eq!(
            query(&packet("eth7"), &interfaces).unwrap_err().to_string(),
            "interface 'eth7' is not known: use eth0 or eth1; did you mean 'eth0'?"
        );
    }

    #[test]
    fn an_explanation_is_told_in_the_administrators_words() {
        let vip = said::VipText {
            address: "192.0.2.80".parse().unwrap(),
            protocol: spec::Protocol::Tcp,
            ports: spec::PortRange::single(80),
        };
        let told = said::Explanation {
            generation: 3,
            entry: Some(entry()),
            origin: said::Origin::Known,
            from_server: false,
            rule: Some(said::Matched {
                id: 1,
                name: "www".into(),
                vip,
                topology: spec::Topology::HalfNat,
                algorithm: Some(spec::Algorithm::WeightedLeastConnection),
                pool_version: 1,
            }),
            misses: vec![],
            servers: vec![],
            claim: Some(listing::Entry {
                protocol: 0,
                client: far("203.0.113.0", 0),
                vip: None,
                state: "offered".into(),
                ..entry()
            }),
            server: Some(said::Chosen {
                id: 2,
                name: "_web.1".into(),
                end: far("192.0.2.12", 80),
                pool_version: 1,
            }),
            leaving: Some(said::Leaving {
                source: far("203.0.113.9", 40000),
                destination: far("192.0.2.12", 80),
                protocol: 6,
                interface: 1,
                neighbour: Some([2, 0, 0, 0, 0, 0x0b]),
            }),
            outcome: said::Outcome::Transmit,
            relayed: false,
        };
        let (state, _) = states();
        let interfaces = ["eth0".to_owned(), "eth1".to_owned()];
        let words = explanation(&state, &interfaces, told);
        let rule = words.rule.unwrap();
        assert_eq!(
            (&*rule.vip, &*rule.topology, &*rule.algorithm),
            ("192.0.2.80 tcp port 80", "HALF-NAT", "wlc")
        );
        assert_eq!(words.connection.unwrap().server, "_web.1");
        let claim = words.claim.unwrap();
        assert_eq!(
            (
                &*claim.rule,
                &*claim.server,
                &*claim.protocol,
                &*claim.state
            ),
            ("www", "_web.1", "", "offered")
        );
        assert_eq!(claim.client.to_string(), "203.0.113.0");
        let leaving = words.leaving.unwrap();
        assert_eq!(leaving.interface, "eth1");
        assert_eq!(leaving.neighbour.as_deref(), Some("02:00:00:00:00:0b"));
    }
}
