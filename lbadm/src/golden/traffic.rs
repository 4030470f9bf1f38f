//! Connections of the node, and what its fast path says about packets.

use libilb::connections::{Connection, End};
use libilb::explain::{
    Candidate, Chosen, Explanation, Leaving, Matched, Miss, Origin, Outcome, Packet, Shared,
};
use libilb::vrrp::VrrpState;

fn end(text: &str) -> End {
    End::parse("end", text).unwrap()
}

/// A connection under NAT, and one whose rule and server are gone.
pub fn connections() -> Vec<Connection> {
    let nat = Connection {
        rule: "www".into(),
        server: "_web.0".into(),
        protocol: "tcp".into(),
        client: end("203.0.113.9:40000"),
        vip: Some(end("192.0.2.80:80")),
        source: Some(end("192.0.2.90:1025")),
        destination: Some(end("192.0.2.11:80")),
        state: "established".into(),
        idle: 3,
        remaining: Some(117),
    };
    let gone = Connection {
        rule: "#7".into(),
        server: "#9".into(),
        protocol: "udp".into(),
        client: end("[2001:db8::9]:5353"),
        vip: None,
        source: None,
        destination: None,
        state: "fresh".into(),
        idle: 0,
        remaining: None,
    };
    vec![nat, gone]
}

/// A network that is kept on a server, and one that is only offered one.
pub fn claims() -> Vec<Connection> {
    let kept = Connection {
        protocol: String::new(),
        client: end("203.0.113.0"),
        vip: None,
        source: None,
        state: "persistence".into(),
        remaining: Some(57),
        ..connections().remove(0)
    };
    let offered = Connection {
        client: end("198.51.100.0"),
        state: "offered".into(),
        idle: 0,
        remaining: Some(60),
        ..kept.clone()
    };
    vec![kept, offered]
}

/// What the fast path might say: of port 80 a beginning, for clients of [`claims`] with their claims, the offered one to a
/// server that takes no new connections; of an ACK a known connection, of port 443 a miss, of anything else a drop.
pub fn explanation(packet: &Packet) -> Explanation {
    let matched = Matched {
        name: "www".into(),
        vip: "192.0.2.80 tcp port 80".into(),
        topology: "NAT".into(),
        algorithm: "roundrobin".into(),
    };
    let nothing = Explanation {
        generation: 12,
        origin: Origin::None,
        connection: None,
        from_server: false,
        rule: None,
        misses: vec![],
        claim: None,
        servers: vec![],
        server: None,
        leaving: None,
        vrrp: (packet.destination.port != 80).then(|| Shared {
            name: "outer".into(),
            state: match packet.destination.port {
                443 => VrrpState::Backup,
                22 => VrrpState::Active,
                _ => VrrpState::Fault,
            },
            active_node: "192.0.2.2".into(),
        }),
        outcome: Outcome::Kernel,
    };
    let begins = Explanation {
        origin: Origin::Begins,
        rule: Some(matched),
        servers: vec![
            Candidate {
                server: "_web.0".into(),
                weight: Some(1),
                open: 3,
                total: 5,
                obstacle: None,
            },
            Candidate {
                server: "_web.1".into(),
                weight: None,
                open: 1,
                total: 1,
                obstacle: Some("disabled or removed".into()),
            },
        ],
        server: Some(Chosen {
            server: "_web.0".into(),
            end: end("192.0.2.11:80"),
        }),
        leaving: Some(Leaving {
            interface: "eth1".into(),
            protocol: "tcp".into(),
            source: end("192.0.2.90:1025"),
            destination: end("192.0.2.11:80"),
            neighbour: Some("02:00:00:00:00:0b".into()),
        }),
        outcome: Outcome::Transmit,
        ..nothing.clone()
    };
    match (packet.destination.port, packet.flags) {
        (22, _) => nothing,
        (80, None) => Explanation {
            claim: match packet.source.to_string().as_str() {
                "203.0.113.8:40000" => claims().into_iter().next(),
                "198.51.100.8:40000" => claims().into_iter().nth(1).map(|claim| Connection {
                    server: "_web.1".into(),
                    ..claim
                }),
                _ => None,
            },
            ..begins
        },
        (80, Some(_)) => Explanation {
            origin: Origin::Known,
            connection: connections().into_iter().next(),
            servers: vec![],
            leaving: begins.leaving.map(|leaving| Leaving {
                neighbour: None,
                ..leaving
            }),
            outcome: Outcome::Unresolved {
                next_hop: "192.0.2.11".parse().unwrap(),
            },
            ..begins
        },
        (443, _) => Explanation {
            misses: vec![Miss {
                rule: "www".into(),
                vip: "192.0.2.80 tcp port 80".into(),
                obstacles: vec![
                    "the rule is disabled or deleted".into(),
                    "another port".into(),
                    "the client is not one of the rule's".into(),
                ],
            }],
            ..nothing
        },
        _ => Explanation {
            rule: begins.rule,
            outcome: Outcome::Drop {
                reason: "no-server".into(),
                words: "the rule has no server that takes new connections".into(),
            },
            ..nothing
        },
    }
}
