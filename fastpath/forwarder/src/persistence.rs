//! A client's claim to the server that it had ([`Persistence`]): one entry for each rule and masked client in the
//! connection table, so that it survives restarts and can be listed and carried to a peer like a connection. It is
//! common to all VIPs, ports and protocols of the rule, and looked up for new flows only.
//!
//! **What it is worth.** A claim holds while its server is accepting, alive and of a weight above 0; otherwise a server
//! is chosen anew and the claim is given to that one (IPVS: `ip_vs_check_template` with `expire_quiescent_template`,
//! which is our default). A server at its connection threshold keeps its persistent clients, as IPVS does. Under NAT a
//! claim holds the source address, too.
//!
//! **Claims of strangers.** A claim is only *offered* until a connection of the client (with a mask, of any of its
//! network) has become more than embryonic, because whoever invents addresses must not fill the table with claims, nor
//! take away those of others. Offered claims hold like others, but they count as embryonic entries: they make way under
//! pressure. IPVS tells them apart in the same way (`IP_VS_CTPL_S_ASSURED`).
//!
//! **How long it lives.** [`Persistence::timeout`] counts from the end of the client's last connection, which is when
//! the connection's entry goes. Each new connection and each end renews the claim. In between, each pass of the census
//! renews the claims of a slice of the connections: those whose turn has come since the pass before, so that every one
//! has its turn in a quarter of the timeout. The cost is one look into the table for each connection and quarter of the
//! timeout (at a million connections and 60 s, 67,000 looks a second on the census's own thread), whatever the traffic.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::address::Addr;
use crate::hash::FlowHasher;
use crate::snapshot::Rule;
use crate::spec::{Persistence, RuleId, ServerId};
use crate::table::{Connection, Found, Identity, State, Table};

/// What a claim gives a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// Index of the server in [`crate::snapshot::Snapshot::targets`].
    pub target: u32,
    /// Index into the rule's `proxy_src`, for NAT.
    pub nat_index: u8,
}

/// The part of a client's address that counts: its first `mask` bits.
pub fn masked(client: Addr, mask: u8) -> Addr {
    client.network(mask).0
}

/// What the claim is found by.
pub fn hash(hasher: &FlowHasher, rule: RuleId, client: Addr) -> u32 {
    hasher.address(client, rule as u64) as u32
}

/// What the claim's entry holds. `client` is masked.
pub fn identity(rule: RuleId, client: Addr, server: ServerId, nat_index: u8) -> Identity {
    Identity {
        client,
        client_port: 0,
        vip_port: 0,
        nat_port: 0,
        nat_index,
        vip_index: 0,
        rule,
        server,
        protocol: 0,
        has_reverse: false,
        pool_version: 0,
    }
}

/// Whether an entry is the claim of a masked client to a server of a rule.
pub fn is_claim(connection: &Connection, rule: RuleId, client: Addr) -> bool {
    connection.state.is_claim()
        && connection.identity.rule == rule
        && connection.identity.client == client
}

/// The entry of a claim.
pub fn find(
    table: &Table,
    hasher: &FlowHasher,
    rule: RuleId,
    client: Addr,
) -> Option<(Found, Identity)> {
    let mut identity = None;
    let found = table.find(hash(hasher, rule, client), |connection, _| {
        let it = is_claim(connection, rule, client);
        if it {
            identity = Some(connection.identity);
        }
        it
    })?;
    Some((found, identity?))
}

/// The state of a claim after it was used. `real` if the client is known to be.
pub fn used(state: State, real: bool) -> State {
    match state {
        State::Offered if real => State::Persistence,
        other => other,
    }
}

/// When the census last renewed the claims of a rule; outlives snapshots.
#[derive(Debug, Default)]
pub struct Renewed(AtomicU32);

/// One pass of the census over the claims of one rule.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    persistence: Persistence,
    /// Seconds in which every connection has its turn.
    period: u32,
    /// Seconds since the pass before.
    gap: u32,
    now: u32,
}

impl Turn {
    /// The pass of second `now`; None if the rule has no persistence.
    pub fn take(rule: &Rule, now: u32) -> Option<Turn> {
        let persistence = rule.persistence?;
        let before = rule.renewed.0.swap(now, Ordering::Relaxed);
        Some(Turn {
            persistence,
            period: (persistence.timeout / 4).max(1),
            gap: now.saturating_sub(before),
            now,
        })
    }

    /// Whether a claim, idle for so long, is over. After a pause of the census (a restart, a pass that took its time)
    /// nothing is over yet that connections did not have the chance to renew.
    pub fn is_over(&self, idle: u32) -> bool {
        idle > self
            .persistence
            .timeout
            .max(self.period.saturating_add(self.gap))
    }

    /// A connection goes on: renews its client's claim if it has its turn.
    pub fn goes_on(&self, table: &Table, rule: &Rule, connection: &Connection) {
        if self.has_turn(&connection.identity) {
            self.ends(table, rule, connection);
        }
    }

    /// Whether one of the seconds since the pass before is a connection's: one second in each period is.
    fn has_turn(&self, connection: &Identity) -> bool {
        let second = (connection.client.low() as u32)
            .wrapping_mul(31)
            .wrapping_add(connection.client_port as u32)
            % self.period;
        (self.now % self.period + self.period - second) % self.period < self.gap
    }

    /// A connection ends: the timeout counts from now.
    pub fn ends(&self, table: &Table, rule: &Rule, connection: &Connection) {
        let client = masked(connection.identity.client, self.persistence.mask);
        if let Some((found, _)) = find(table, &table.hasher(), rule.id, client) {
            let real = !connection.state.is_embryonic();
            table.touch(found.index, |state| used(state, real), self.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn masks_keep_their_bits() {
        #[rustfmt::skip]
        let table = [
            ("192.0.2.129", 32, "192.0.2.129"),
            ("192.0.2.129", 25, "192.0.2.128"),
            ("192.0.2.129", 24, "192.0.2.0"),
            ("192.0.2.129", 0, "0.0.0.0"),
            ("2001:db8:1:2:3:4:5:6", 128, "2001:db8:1:2:3:4:5:6"),
            ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::"),
            ("2001:db8:1:2:3:4:5:6", 0, "::"),
        ];
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        for (client, mask, expected) in table {
            assert_eq!(
                masked(addr(client), mask),
                addr(expected),
                "{client}/{mask}"
            );
        }
    }

    #[test]
    fn every_connection_has_its_turn_in_every_period() {
        let identity = |port| Identity {
            client_port: port,
            ..identity(1, Addr(77), 1, 0)
        };
        // Passes at these seconds: regular, late, and after a pause.
        let passes = [
            100, 101, 102, 103, 105, 106, 109, 110, 150, 151, 152, 153, 154,
        ];
        for timeout in [1, 4, 8, 12, 20] {
            for port in 0..50 {
                let mut last = None;
                for pair in passes.windows(2) {
                    let turn = Turn {
                        persistence: Persistence { mask: 32, timeout },
                        period: (timeout / 4).max(1),
                        gap: pair[1] - pair[0],
                        now: pair[1],
                    };
                    if turn.has_turn(&identity(port)) {
                        last = Some(pair[1]);
                    }
                    if let Some(last) = last {
                        let idle = pair[1] - last;
                        assert!(!turn.is_over(idle), "{timeout} {port} {pair:?}: {idle} s");
                        assert!(idle < turn.period, "{timeout} {port} {pair:?}: {idle} s");
                    }
                }
                assert!(last.is_some_and(|last| last > 149), "{timeout} {port}");
            }
        }
    }
}
