//! Adds up what all workers counted, for the control socket.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ilb_forwarder::Snapshot;
use ilb_forwarder::counters::{Account, TrafficTotals, WorkerCounters};
use ilb_forwarder::spec::{RuleId, ServerId};
use ilb_forwarder::verdict::DropReason;
use ilb_node::control::{Counters, RuleStatistics, ServerStatistics, Statistics};

/// Counters of one worker: the forwarder's and the worker's own.
pub struct Counted {
    /// Verdicts and drops.
    pub forwarder: Arc<WorkerCounters>,
    /// Frames and bytes.
    pub worker: Arc<crate::counters::Counters>,
}

/// Counters of rules and servers that are not configured any more, so that the node's totals never go back.
#[derive(Default)]
pub struct Departed {
    sum: Counters,
}

impl Departed {
    /// Takes over what `old` has and `new` does not carry on. To be called when no worker uses `old` any more.
    pub fn take_over(&mut self, old: &Snapshot, new: &Snapshot) {
        // What both share is carried on. What was moved is among what is the new one's own.
        let kept: HashSet<*const Account> = accounts(new, old).map(Arc::as_ptr).collect();
        for account in accounts(old, new) {
            if !kept.contains(&Arc::as_ptr(account)) {
                self.sum.add(&of(account).without_gauges());
            }
        }
    }
}

/// The accounts of rules and targets that a snapshot does not share with `other`.
fn accounts<'a>(
    snapshot: &'a Snapshot,
    other: &Snapshot,
) -> impl Iterator<Item = &'a Arc<Account>> {
    let rules = snapshot.rules().own(other.rules()).map(|r| &r.account);
    let targets = snapshot.targets().own(other.targets());
    rules.chain(targets.map(|t| &t.account))
}

fn of(account: &Account) -> Counters {
    let (open, total) = account.connections();
    let totals = account.totals();
    Counters {
        connections_open: u64::from(open),
        connections_total: u64::from(total),
        ..counters(&totals)
    }
}

fn counters(totals: &TrafficTotals) -> Counters {
    Counters {
        packets: totals.packets,
        bytes: totals.bytes,
        // What is left to the kernel belongs to no rule; the node's totals count it.
        unprocessed_packets: 0,
        unprocessed_bytes: 0,
        dropped_packets: totals.dropped_packets,
        dropped_bytes: totals.dropped_bytes,
        // The forwarder counts "too big" among all errors, the protocol beside the others.
        icmp_p: totals
            .icmp_processed
            .saturating_sub(totals.too_big_processed),
        icmp_d: totals.icmp_dropped.saturating_sub(totals.too_big_dropped),
        icmp2big_p: totals.too_big_processed,
        icmp2big_d: totals.too_big_dropped,
        nomem_d: totals.no_memory,
        noport_d: totals.no_port,
        admission_d: totals.refused,
        replaced_connections: totals.replaced,
        new_connections: totals.connections,
        connections_open: 0,
        connections_total: 0,
    }
}

/// Everything that has been counted. `closed` are packets and bytes that XDP has dropped because of their destination.
pub fn collect(
    start_id: u64,
    snapshot: &Snapshot,
    departed: &Departed,
    workers: &[Counted],
    closed: (u64, u64),
) -> Statistics {
    let rules: Vec<RuleStatistics> = by_rule(snapshot);
    let mut totals = departed.sum;
    for rule in &rules {
        totals.add(&rule.counters);
    }
    let mut drops = BTreeMap::new();
    for reason in DropReason::ALL {
        let by_workers: u64 = workers.iter().map(|w| w.forwarder.drops(*reason)).sum();
        let before = match reason {
            DropReason::AddressClosed => closed.0,
            _ => 0,
        };
        drops.insert(reason.label().to_owned(), by_workers + before);
    }
    // Of these, rules know only a part: a packet that is malformed belongs to none.
    totals.dropped_packets = drops.values().sum();
    let bytes: u64 = workers.iter().map(|w| w.worker.dropped_bytes.get()).sum();
    totals.dropped_bytes = bytes + closed.1;
    totals.unprocessed_packets = workers.iter().map(|w| w.worker.kernel_packets.get()).sum();
    totals.unprocessed_bytes = workers.iter().map(|w| w.worker.kernel_bytes.get()).sum();
    Statistics {
        start_id,
        totals,
        drops,
        rules,
    }
}

/// What has been counted for some rules (with server 0) and servers of rules.
pub fn collect_of(start_id: u64, snapshot: &Snapshot, places: &[(RuleId, ServerId)]) -> Statistics {
    let mut rules: Vec<RuleStatistics> = Vec::new();
    for &(id, server) in places {
        let Some(rule) = snapshot.rule_by_id(id) else {
            continue;
        };
        let targets = || {
            rule.targets()
                .iter()
                .map(|&at| &snapshot.targets()[at as usize])
        };
        let mut statistics = RuleStatistics {
            id,
            ..RuleStatistics::default()
        };
        if server == 0 {
            statistics.counters = of(&rule.account);
            targets().for_each(|target| statistics.counters.add(&of(&target.account)));
        } else if let Some(target) = targets().find(|target| target.server == server) {
            statistics.servers = vec![ServerStatistics {
                id: server,
                counters: of(&target.account),
            }];
        } else {
            continue;
        }
        rules.push(statistics);
    }
    Statistics {
        start_id,
        rules,
        ..Statistics::default()
    }
}

fn by_rule(snapshot: &Snapshot) -> Vec<RuleStatistics> {
    let mut rules: Vec<RuleStatistics> = snapshot
        .rules()
        .iter()
        .map(|rule| RuleStatistics {
            id: rule.id,
            counters: of(&rule.account),
            servers: Vec::new(),
        })
        .collect();
    for target in snapshot.targets() {
        let rule = &mut rules[target.rule as usize];
        let counters = of(&target.account);
        rule.counters.add(&counters);
        rule.servers.push(ServerStatistics {
            id: target.server,
            counters,
        });
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use ilb_forwarder::spec::{
        Algorithm, PortMap, PortRange, Protocol, RuleSpec, ServerSpec, SnapshotSpec, Topology,
        VipSpec,
    };

    fn rule(id: u32) -> RuleSpec {
        RuleSpec {
            id,
            name: format!("rule{id}"),
            accepting: true,
            vips: vec![VipSpec {
                address: [192, 0, 2, id as u8].into(),
                protocol: Protocol::Tcp,
                ports: PortRange::single(80),
            }],
            topology: Topology::Dsr,
            algorithm: Algorithm::RoundRobin,
            proxy_src: vec![],
            servers: vec![ServerSpec {
                id: 100 + id,
                name: format!("_g.{id}"),
                address: [10, 0, 0, id as u8].into(),
                ports: PortMap::Same,
                weight: 1,
                accepting: true,
                ..ServerSpec::default()
            }],
            ..RuleSpec::default()
        }
    }

    fn compile(ids: &[u32], previous: Option<&Snapshot>) -> Snapshot {
        let spec = SnapshotSpec {
            generation: 1,
            rules: ids.iter().map(|id| rule(*id)).collect(),
            ..SnapshotSpec::default()
        };
        Snapshot::compile(&spec, previous, 1).unwrap()
    }

    #[test]
    fn some_are_counted_as_all_are() {
        let snapshot = compile(&[1, 2, 3], None);
        snapshot.targets()[1].account.of(0).packets.add(7);
        snapshot.rules()[1].account.of(0).packets.add(1);
        let all = collect(9, &snapshot, &Departed::default(), &[], (0, 0));
        let some = collect_of(9, &snapshot, &[(2, 0), (3, 103), (1, 7), (9, 0)]);
        let [rule, server] = &some.rules[..] else {
            panic!("what is not there is left out: {some:?}");
        };
        assert_eq!(rule.counters, all.rules[1].counters);
        assert_eq!(rule.counters.packets, 8);
        assert_eq!((server.id, &server.servers), (3, &all.rules[2].servers));
    }

    #[test]
    fn a_rule_counts_what_its_servers_count_and_what_concerns_none() {
        let snapshot = compile(&[1, 2], None);
        snapshot.targets()[0].account.of(0).packets.add(5);
        snapshot.rules()[0].account.of(0).dropped_packets.add(2);
        snapshot.targets()[1].account.of(0).packets.add(7);
        let statistics = collect(9, &snapshot, &Departed::default(), &[], (3, 250));
        assert_eq!(statistics.start_id, 9);
        assert_eq!(statistics.rules[0].counters.packets, 5);
        assert_eq!(statistics.rules[0].counters.dropped_packets, 2);
        assert_eq!(statistics.rules[0].servers[0].counters.packets, 5);
        assert_eq!(statistics.rules[0].servers[0].counters.dropped_packets, 0);
        assert_eq!(statistics.totals.packets, 12);
        assert_eq!(statistics.drops.len(), DropReason::COUNT);
        assert_eq!(statistics.drops["address-closed"], 3);
        let dropped = (
            statistics.totals.dropped_packets,
            statistics.totals.dropped_bytes,
        );
        assert_eq!(
            dropped,
            (3, 250),
            "what XDP has dropped counts for the node"
        );
    }

    #[test]
    fn totals_do_not_go_back_when_a_rule_goes() {
        let old = compile(&[1, 2], None);
        old.targets()[0].account.of(0).packets.add(5);
        old.targets()[1].account.of(0).packets.add(7);
        old.targets()[0].account.set_connections(3, 4);
        let new = compile(&[2], Some(&old));
        let mut departed = Departed::default();
        departed.take_over(&old, &new);
        let statistics = collect(1, &new, &departed, &[], (0, 0));
        assert_eq!(statistics.totals.packets, 12);
        assert_eq!(statistics.totals.connections_open, 0);
        assert_eq!(statistics.rules.len(), 1);
    }
}
