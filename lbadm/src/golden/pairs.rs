//! The pair that the cases are about.

use std::collections::BTreeMap;

use libilb::pair::{
    ExchangeDescription, Invitation, LinkDescription, NodeDescription, Notice, PairDescription,
    Step, StepDescription,
};

/// The second node of a pair: the first one is active, and something has happened.
pub fn pair() -> PairDescription {
    let node = |node: u8, name: &str| NodeDescription {
        node,
        name: name.into(),
        software: "0.1.0".into(),
        active: node == 0,
        instances: if node == 0 {
            vec!["outer".into()]
        } else {
            Vec::new()
        },
        maintenance: false,
        fastpath: true,
        generation: 40 + u64::from(node),
    };
    PairDescription {
        paired: true,
        open_until: 0,
        address: "192.0.2.1:49281".into(),
        link: LinkDescription {
            up: true,
            since: 1_763_749_843_000,
            why: String::new(),
        },
        configuration: StepDescription {
            step: Step::Behind,
            changes: 3,
            words: "it is taking them".into(),
        },
        connections: Some(ExchangeDescription {
            up: true,
            complete: true,
            lag: 12,
            pending: 7,
            ..ExchangeDescription::default()
        }),
        connections_why: String::new(),
        here: node(1, "lb2"),
        there: Some(node(0, "lb1")),
        notices: vec![Notice {
            time: 1_763_749_843,
            words: "both nodes were changed while they did not hear each other; lb1 was active, so its configuration holds"
                .into(),
        }],
        refused: BTreeMap::from([("greeting".to_owned(), 4), ("busy".to_owned(), 0)]),
    }
}

/// What the first node of a pair says.
pub fn invitation() -> Invitation {
    Invitation {
        token: "ilb1-example".into(),
        host: "lb1".into(),
        port: 49_281,
        until: 1_763_753_443,
    }
}
