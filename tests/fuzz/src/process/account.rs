//! The table as a whole against the reference, and what ends.

use super::*;

impl World {
    /// The table holds the connections of the reference and no others, each found by both of its keys.
    pub(super) fn compare(&mut self, surprises: bool) {
        let mut listed = Vec::new();
        let mut claims = std::collections::BTreeMap::new();
        self.table.each(|index, connection| {
            let id = connection.identity;
            if connection.state.is_claim() {
                let twice = claims.insert((id.rule, id.client.into()), id.server);
                assert_eq!(twice, None, "a client has one claim");
            } else {
                listed.push((index, *connection));
            }
            ControlFlow::Continue(())
        });
        self.reference.claims = claims;
        let mut seen = std::collections::BTreeMap::new();
        for (index, connection) in &listed {
            let Some((key, known)) = self.meaning(connection) else {
                continue;
            };
            let before = seen.insert(key, known);
            assert!(before.is_none(), "{key:?} is in the table twice");
            if self
                .reference
                .configured(known.rule, known.server)
                .is_some()
            {
                self.both_ways(*index, connection);
            }
            match self.reference.flows.get(&key) {
                Some(old) if (old.server, old.nat) == (known.server, known.nat) => {
                    assert!(
                        surprises || old.life == known.life,
                        "{key:?}: {old:?}, but in the table {:?}",
                        connection.state
                    );
                }
                Some(old) => assert!(
                    surprises || self.reference.configured(old.rule, old.server).is_none(),
                    "{key:?} has changed from {old:?} to {known:?}"
                ),
                None => assert!(surprises, "{key:?} comes from nowhere: {known:?}"),
            }
        }
        for (key, old) in &self.reference.flows {
            let excused = self.reference.configured(old.rule, old.server).is_none();
            assert!(
                surprises || excused || seen.contains_key(key),
                "{key:?} is lost: {old:?}"
            );
        }
        self.reference.flows = seen;
    }

    /// What an entry stands for; None for one that is no connection. Its server may be gone, but rules stay.
    fn meaning(&self, connection: &Connection) -> Option<(Key, Known)> {
        let id = &connection.identity;
        if connection.state.is_claim() {
            return None;
        }
        let rule = self.reference.rule(id.rule)?;
        let key = Key {
            client: (id.client.into(), id.client_port),
            vip: (rule.vips[id.vip_index as usize].address, id.vip_port),
            protocol: id.protocol,
        };
        let nat = (rule.topology == Topology::Nat)
            .then(|| (rule.proxy_src[id.nat_index as usize], id.nat_port));
        let life = match connection.state {
            State::FinWait | State::TimeWait | State::LastAck => Life::Closed,
            State::Close => Life::Reset,
            _ => Life::Open,
        };
        let known = Known {
            rule: id.rule,
            server: id.server,
            nat,
            life,
            seen: connection.last_seen,
        };
        Some((key, known))
    }

    fn both_ways(&self, index: u32, connection: &Connection) {
        let flow = self.view.flow(connection.identity).expect("is configured");
        let find = |tuple: &Tuple| {
            let hash = self.table.hasher().flow(
                tuple.src,
                tuple.dst,
                tuple.sport,
                tuple.dport,
                tuple.protocol,
            );
            self.table
                .find(hash as u32, |entry, direction| {
                    self.view.recognise(tuple, entry, direction).is_some()
                })
                .map(|found| (found.index, found.direction))
        };
        assert_eq!(
            find(&flow.forward_tuple()),
            Some((index, Direction::Forward)),
            "{connection:?}"
        );
        if let Some(tuple) = flow.reverse_tuple() {
            assert_eq!(
                find(&tuple),
                Some((index, Direction::Reverse)),
                "{connection:?}"
            );
        }
    }

    pub(super) fn sweep(&mut self) {
        let table = self.table.clone();
        let mut sweeper = table.sweeper();
        let swept = census::take(&self.view, &mut sweeper, self.now);
        let mut left = 0;
        let mut lost = Vec::new();
        let mut live = std::collections::BTreeSet::new();
        table.each(|_, connection| {
            left += 1;
            live.extend(self.meaning(connection).map(|(key, _)| key));
            ControlFlow::Continue(())
        });
        assert_eq!(swept.live, left, "what the census counted is what is there");
        for (key, known) in &self.reference.flows {
            let idle = self.now - known.seen;
            let (there, configured) = (
                live.contains(key),
                self.reference
                    .configured(known.rule, known.server)
                    .is_some(),
            );
            assert!(
                there || !configured || idle > SURVIVED,
                "{key:?} ended after {idle} s"
            );
            assert!(!there || idle <= FORGOTTEN, "{key:?} lives after {idle} s");
            lost.extend((!there).then_some(*key));
        }
        self.reference.flows.retain(|key, _| !lost.contains(key));
        // Nobody is in a batch: whatever is dead comes back.
        for _ in 0..2 {
            census::take(&self.view, &mut sweeper, self.now);
        }
        assert_eq!(table.used(), left, "entries in use are live ones");
        self.compare(true);
    }

    pub(super) fn end(&mut self) {
        self.sweep();
        let counters = self.workers.iter().map(Forwarder::counters);
        let (mut verdicts, mut packets, mut held) = (0, 0, 0);
        for counters in counters {
            packets += counters.packets.get();
            verdicts +=
                counters.transmitted.get() + counters.kernel.get() + counters.unresolved.get();
            held += counters.held.get();
            verdicts += DropReason::ALL
                .iter()
                .map(|&reason| counters.drops(reason))
                .sum::<u64>();
        }
        assert_eq!(
            (packets, verdicts + held, held),
            (self.packets, self.packets + self.answers, self.held),
            "one verdict each, and one more for an answer"
        );
        // Claims outlive the connections that they were for.
        for _ in 0..4 {
            self.now += 1_000_000;
            self.sweep();
        }
        let mut left = Vec::new();
        self.table.each(|_, connection| {
            left.push(*connection);
            ControlFlow::Continue(())
        });
        assert_eq!(
            (self.table.used(), left),
            (0, vec![]),
            "everything ends, at {}",
            self.now
        );
    }
}
