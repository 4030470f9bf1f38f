//! The slow look at all connections: ends those that have been idle for too long and counts the others.

use crate::load::{Activity, Connections};
use crate::persistence::Turn;
use crate::pool::Care;
use crate::state;
use crate::table::{Connection, State, Sweep, Sweeper, Swept};
use crate::view::View;

/// One pass of the sweeper under a view: what it ends is by the rules of that view, and the accounts of the view's
/// targets hold its counts afterwards; what the workers did not count themselves is corrected, and selectors see what
/// changed with time. Not for a worker: it allocates, and takes its time in a large table.
///
/// Clients whose connections are open stay known as real, for as long as they are.
///
/// Under generation 0 nothing is ended: a fast path that has not been told its configuration yet knows no rule of the
/// connections that it found.
pub fn take(view: &View, sweeper: &mut Sweeper<'_>, now: u32) -> Swept {
    if view.snapshot.generation() == 0 {
        return sweeper.pass(|_| Sweep::Keep);
    }
    let clients = &view.snapshot.guard().clients;
    let hasher = sweeper.hasher();
    let remember = clients.rotate(now);
    let targets = view.snapshot.targets();
    let before: Vec<u64> = targets
        .iter()
        .map(|target| target.account.load().changes())
        .collect();
    let mut counts = vec![Count::default(); targets.len()];
    let mut pools = Care::begin(view, sweeper.capacity(), now);
    let table = sweeper.table();
    let rules = view.snapshot.rules();
    let turns: Vec<_> = rules.iter().map(|rule| Turn::take(rule, now)).collect();
    let judge = |connection: &Connection| {
        let identity = &connection.identity;
        let idle = connection.idle(now);
        let Some(rule) = view.snapshot.rule_index(identity.rule) else {
            return Sweep::End;
        };
        let (rule, turn) = (&rules[rule as usize], &turns[rule as usize]);
        if connection.state.is_claim() {
            let server = view.snapshot.target_of(identity.rule, identity.server);
            return match turn {
                Some(turn) if server.is_some() && !turn.is_over(idle) => Sweep::Keep,
                _ => Sweep::End,
            };
        }
        if idle > state::timeout(connection.state, identity.protocol, &rule.timeouts) {
            // What came to nothing gives no claim: the client may not even exist.
            if let Some(turn) = turn
                && connection.state != State::SynReceived
            {
                turn.ends(table, rule, connection);
            }
            return Sweep::End;
        }
        if remember && matches!(connection.state, State::Established | State::Flowing) {
            clients.insert(&hasher, connection.identity.client);
        }
        if let Some(turn) = turn {
            turn.goes_on(table, rule, connection);
        }
        // Its server may not be configured any more: the client's next packet decides, as the rule says of orphans.
        let Some(flow) = view.flow(*identity) else {
            return Sweep::Keep;
        };
        let count = &mut counts[flow.target_index as usize];
        count.open += state::is_open(connection, now) as u32;
        count.total += 1;
        count.load.add(Activity::of(connection.state));
        pools.saw(&flow, connection);
        Sweep::Keep
    };
    let ended = |connection: &Connection| {
        if !connection.state.is_claim()
            && let Some(flow) = view.flow(connection.identity)
        {
            let snapshot = &view.snapshot;
            snapshot.connection_ended(flow.target_index, connection.state);
        }
    };
    let swept = sweeper.pass_and_tell(judge, ended);
    pools.finish();
    for ((target, count), before) in targets.iter().zip(counts).zip(before) {
        let account = &target.account;
        account.set_connections(count.open, count.total);
        account
            .load()
            .reconcile(count.load, before, account.workers());
    }
    view.snapshot.refresh(now);
    swept
}

/// What a pass saw of one target.
#[derive(Clone, Copy, Default)]
struct Count {
    open: u32,
    total: u32,
    load: Connections,
}
