//! The slow look at all connections: ends those that have been idle for too long and counts the others.

use crate::pool::Care;
use crate::state;
use crate::table::{State, Sweep, Sweeper, Swept};
use crate::view::View;

/// One pass of the sweeper under a view: what it ends is by the rules of that view, and the accounts of the view's
/// targets hold its counts afterwards. Not for a worker: it allocates, and takes its time in a large table.
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
    let mut counts = vec![(0, 0); targets.len()];
    let mut pools = Care::begin(view, sweeper.capacity(), now);
    let swept = sweeper.pass(|connection| {
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
        let (open, total) = &mut counts[flow.target_index as usize];
        *open += state::is_open(connection, now) as u32;
        *total += 1;
        pools.saw(&flow, connection);
        Sweep::Keep
    });
    pools.finish();
    for (target, (open, total)) in targets.iter().zip(counts) {
        target.account.set_connections(open, total);
    }
    swept
}
