//! The slow look at all connections: ends those that have been idle for too long and counts the others.

use crate::load::{Activity, Connections};
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
    let judge = |connection: &Connection| {
        // Rule or server may not be configured any more, not even to drain.
        let Some(flow) = view.flow(connection.identity) else {
            return Sweep::End;
        };
        let idle = connection.idle(now);
        if idle
            > state::timeout(
                connection.state,
                connection.identity.protocol,
                &flow.rule.timeouts,
            )
        {
            return Sweep::End;
        }
        if remember && matches!(connection.state, State::Established | State::Flowing) {
            clients.insert(&hasher, connection.identity.client);
        }
        let count = &mut counts[flow.target_index as usize];
        count.open += state::is_open(connection, now) as u32;
        count.total += 1;
        count.load.add(Activity::of(connection.state));
        pools.saw(&flow, connection);
        Sweep::Keep
    };
    let ended = |connection: &Connection| {
        if let Some(flow) = view.flow(connection.identity) {
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
