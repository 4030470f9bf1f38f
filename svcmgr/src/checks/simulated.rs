//! Health checks for `--sim`: nobody is asked anything, so that nothing is known of anybody.

use std::collections::BTreeMap;

use ilb_checks::Target;
use libilb::health::{HealthState, ServerHealth};

use super::{Checker, Checks, Order};

/// The manager's end, the other one being played by a task. Needs a running tokio runtime.
pub fn simulate() -> Checks {
    let (checks, checker) = Checks::pair();
    tokio::spawn(play(checker));
    checks
}

async fn play(mut checker: Checker) {
    let mut targets = BTreeMap::new();
    while let Some(order) = checker.orders.recv().await {
        match order {
            Order::Test { changed, gone } => {
                for id in gone {
                    targets.remove(&id);
                }
                targets.extend(changed.into_iter().map(|target| (target.id, target)));
            }
            // Who asked may have gone away.
            Order::Report(reply) => drop(reply.send(targets.values().map(unknown).collect())),
        }
    }
}

fn unknown(target: &Target) -> ServerHealth {
    let state = match target.enabled {
        true => HealthState::UnInit,
        false => HealthState::Disabled,
    };
    ServerHealth {
        rule: target.rule.clone(),
        server: target.server.clone(),
        check: target.check.name.clone(),
        kind: target.check.test.kind(),
        address: target.check.address.unwrap_or(target.address),
        port: target.fixed_port(),
        state,
        up: target.enabled && !target.check.alpha,
        fails: 0,
        successes: 0,
        last: None,
        next: None,
        rtt: None,
        weight: None,
        load: None,
        result: None,
        transitions: Vec::new(),
    }
}
