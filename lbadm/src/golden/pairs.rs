//! The pair that the cases are about.

use std::collections::BTreeMap;

use libilb::pair::{
    ExchangeDescription, Invitation, LeftDescription, LinkDescription, NodeDescription, Notice,
    PairDescription, Step, StepDescription,
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
            lost: 0,
        },
        configuration: StepDescription {
            step: Step::Behind,
            changes: 3,
            words: String::new(),
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
        left: None,
        following: Default::default(),
    }
}

/// The same when all is well.
pub fn well() -> PairDescription {
    PairDescription {
        configuration: StepDescription {
            step: Step::InStep,
            ..StepDescription::default()
        },
        notices: Vec::new(),
        ..pair()
    }
}

/// Nothing is as it should be, though both hear each other.
pub fn ill() -> PairDescription {
    let mut ill = pair();
    ill.configuration.words = "this node does not take it: disk full".into();
    ill.connections = None;
    ill.here.instances.push("outer".into());
    ill.here.active = true;
    ill
}

/// The other node is away.
pub fn down() -> PairDescription {
    PairDescription {
        link: LinkDescription {
            up: false,
            since: 1_763_749_843_000,
            why: "nothing was heard for 5 s".into(),
            lost: 1,
        },
        configuration: StepDescription::default(),
        ..well()
    }
}

/// The other node has left.
pub fn left() -> PairDescription {
    PairDescription {
        left: Some(LeftDescription {
            time: 1_763_749_843,
            name: "lb1".into(),
            address: "192.0.2.1".into(),
        }),
        here: pair().here,
        ..PairDescription::default()
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
