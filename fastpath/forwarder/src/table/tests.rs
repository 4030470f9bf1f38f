//! The table against a plain map, alone and with many workers, and after being cut off at any point.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::address::Addr;
use crate::hash::FIXED_KEYS;

fn table(capacity: u32) -> Table {
    Table::private(capacity, FIXED_KEYS).unwrap()
}

pub(super) fn identity(flow: u32) -> Identity {
    Identity {
        client: Addr(flow as u128),
        client_port: flow as u16,
        vip_port: 80,
        nat_port: 0,
        nat_index: 0,
        vip_index: 0,
        rule: 1,
        server: 1,
        protocol: 6,
        has_reverse: false,
        pool_version: 0,
    }
}

fn forward_hash(table: &Table, flow: u32) -> u32 {
    table
        .hasher()
        .flow(Addr(flow as u128), Addr(1), flow as u16, 80, 6) as u32
}

/// Reverse keys are (server 1, NAT port).
fn reverse_hash(table: &Table, port: u16) -> u32 {
    table.hasher().flow(Addr(2), Addr(3), 80, port, 6) as u32
}

fn insert(table: &Table, flow: u32) -> Result<u32, InsertError> {
    let same = |c: &Connection, d: Direction| {
        d == Direction::Forward && c.identity.client == Addr(flow as u128)
    };
    let hash = forward_hash(table, flow);
    let candidate = Candidate {
        identity: identity(flow),
        state: State::SynReceived,
        hash,
        lane: NO_LANE,
        now: 0,
    };
    table
        .insert(candidate, same, |_| None, |_, _, _| false)
        .map(|(index, _)| index)
}

/// Enters a flow with a NAT port out of `ports`, in order.
fn insert_nat(table: &Table, flow: u32, ports: std::ops::Range<u16>) -> Result<u16, InsertError> {
    let same = |c: &Connection, d: Direction| {
        d == Direction::Forward && c.identity.client == Addr(flow as u128)
    };
    let same_reverse = |wanted: &Identity, c: &Connection, d: Direction| {
        d == Direction::Reverse && c.identity.nat_port == wanted.nat_port
    };
    let mut ports = ports;
    let next = |identity: &mut Identity| {
        identity.nat_port = ports.next()?;
        Some(reverse_hash(table, identity.nat_port))
    };
    let mut identity = identity(flow);
    identity.has_reverse = true;
    let hash = forward_hash(table, flow);
    let candidate = Candidate {
        identity,
        state: State::SynReceived,
        hash,
        lane: NO_LANE,
        now: 0,
    };
    table
        .insert(candidate, same, next, same_reverse)
        .map(|(_, identity)| identity.nat_port)
}

fn find(table: &Table, flow: u32) -> Option<u32> {
    table
        .find(forward_hash(table, flow), |c, d| {
            d == Direction::Forward && c.identity.client == Addr(flow as u128)
        })
        .map(|found| found.index)
}

fn find_reverse(table: &Table, port: u16) -> Option<Found> {
    table.find(reverse_hash(table, port), |c, d| {
        d == Direction::Reverse && c.identity.nat_port == port
    })
}

#[test]
fn a_connection_costs_at_most_64_bytes() {
    for capacity in [1 << 16, 1_000_000, 1 << 20] {
        let bytes = table(capacity).bytes_per_connection();
        assert!(bytes <= 64.01, "{capacity}: {bytes}");
    }
}

#[test]
fn fills_to_the_last_entry_with_both_directions() {
    let table = table(40_000);
    for flow in 0..40_000 {
        assert_eq!(
            insert_nat(&table, flow, flow as u16..u16::MAX),
            Ok(flow as u16)
        );
    }
    assert_eq!(insert(&table, 99_999), Err(InsertError::Full));
    for flow in 0..40_000 {
        let forward = find(&table, flow).unwrap();
        let reverse = find_reverse(&table, flow as u16).unwrap();
        assert_eq!(forward, reverse.index);
        assert_eq!(reverse.direction, Direction::Reverse);
    }
}

#[test]
fn an_ended_connection_makes_room_for_another() {
    let table = table(16);
    let mut sweeper = table.sweeper();
    for round in 0..100 {
        for flow in 0..16 {
            insert(&table, round * 16 + flow).unwrap();
        }
        assert_eq!(insert(&table, u32::MAX), Err(InsertError::Full));
        assert_eq!(sweeper.pass(|_| Sweep::End).ended, 16);
        sweeper.pass(|_| Sweep::End);
        assert_eq!(
            sweeper.pass(|_| Sweep::End).freed + table.used(),
            16,
            "round {round}"
        );
        while table.used() > 0 {
            sweeper.pass(|_| Sweep::End);
        }
    }
}

#[test]
fn an_entry_is_not_reused_while_a_worker_may_read_it() {
    let table = table(16);
    let mut sweeper = table.sweeper();
    for flow in 0..16 {
        insert(&table, flow).unwrap();
    }
    table.enter(3);
    for _ in 0..10 {
        sweeper.pass(|_| Sweep::End);
    }
    assert_eq!(table.used(), 16, "worker 3 is still in its batch");
    table.quiesce(3);
    sweeper.pass(|_| Sweep::End);
    sweeper.pass(|_| Sweep::End);
    assert_eq!(table.used(), 0);
}

#[test]
fn nat_ports_run_out_and_come_back() {
    let table = table(1000);
    for flow in 0..10 {
        assert_eq!(insert_nat(&table, flow, 100..110), Ok(100 + flow as u16));
    }
    assert_eq!(
        insert_nat(&table, 10, 100..110),
        Err(InsertError::ReverseTaken)
    );
    assert_eq!(find(&table, 10), None);
    assert!(table.kill(find(&table, 4).unwrap()).is_some());
    assert_eq!(find_reverse(&table, 104).map(|found| found.index), None);
    assert_eq!(insert_nat(&table, 11, 100..110), Ok(104));
}

#[test]
fn memory_that_is_not_a_table_is_refused() {
    assert_eq!(
        Table::private(3, FIXED_KEYS).err(),
        Some(TableError::Capacity(3))
    );
    let small = Table::attach(Region::private(16), 1000, FIXED_KEYS).err();
    assert!(
        matches!(small, Some(TableError::Memory { capacity: 1000, .. })),
        "{small:?}"
    );
}

#[test]
fn many_workers_enter_the_same_flows_exactly_once() {
    const WORKERS: usize = 4;
    const FLOWS: u32 = 200;
    for round in 0..50u32 {
        let table = table(4096);
        let start = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (table, start) = (&table, &start);
                scope.spawn(move || {
                    while !start.load(Ordering::Acquire) {
                        std::hint::spin_loop();
                    }
                    for flow in 0..FLOWS {
                        table.enter(worker);
                        // A loser of the race finds the winner's entry, perhaps after another look.
                        while find(table, flow).is_none() {
                            match insert_nat(table, flow, 1000..60_000) {
                                Ok(_) | Err(InsertError::Race) => {}
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                        table.quiesce(worker);
                    }
                });
            }
            start.store(true, Ordering::Release);
        });
        let (mut clients, mut ports, mut n) = (HashSet::new(), HashSet::new(), 0);
        table.each(|_, connection| {
            clients.insert(connection.identity.client);
            ports.insert(connection.identity.nat_port);
            n += 1;
            std::ops::ControlFlow::Continue(())
        });
        assert_eq!(
            (clients.len(), ports.len(), n),
            (FLOWS as usize, FLOWS as usize, FLOWS as usize),
            "round {round}"
        );
    }
}

#[test]
fn workers_and_sweeper_together_lose_nothing() {
    const WORKERS: u64 = 3;
    let table = table(2000);
    let stop = AtomicBool::new(false);
    let entered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (table, stop, entered) = (&table, &stop, &entered);
            scope.spawn(move || {
                let mut random = worker + 1;
                while !stop.load(Ordering::Relaxed) {
                    table.enter(worker as usize);
                    for _ in 0..32 {
                        random = random
                            .wrapping_mul(6364136223846793005)
                            .wrapping_add(1442695040888963407);
                        let flow = (random >> 33) as u32 % 3000;
                        match find(table, flow) {
                            Some(index) if random & 3 == 0 => drop(table.kill(index)),
                            Some(index) => {
                                // What was found stays this flow's until the batch ends, or is not live any more.
                                if let Some(connection) = table.get(index) {
                                    assert_eq!(connection.identity.client, Addr(flow as u128));
                                }
                            }
                            None => {
                                if insert_nat(table, flow, 0..u16::MAX).is_ok() {
                                    entered.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        }
                    }
                    table.quiesce(worker as usize);
                }
            });
        }
        let mut sweeper = table.sweeper();
        let mut pass = 0u32;
        while entered.load(Ordering::Relaxed) < 20_000 {
            pass += 1;
            sweeper.pass(|c| {
                if c.identity.client.low() as u32 % 7 == pass % 7 {
                    Sweep::End
                } else {
                    Sweep::Keep
                }
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut sweeper = table.sweeper();
    for _ in 0..3 {
        sweeper.pass(|_| Sweep::End);
    }
    assert_eq!(table.used(), 0, "every entry has come back");
    assert!(
        table
            .buckets
            .iter()
            .all(|b| b.slots.iter().all(|s| s.load(Ordering::Relaxed) == 0))
    );
    assert!(
        table
            .buckets
            .iter()
            .all(|b| b.overflowed.load(Ordering::Relaxed) == 0)
    );
}

/// Memory that outlives the tables made of it, as a file does.
pub(super) fn shared(capacity: u32) -> impl Fn() -> Region {
    let region = Arc::new(Region::private(capacity));
    move || {
        let owner = region.clone();
        let (memory, len) = memory::raw(&region);
        // SAFETY: the owner keeps the memory, and the tests use one table at a time.
        unsafe { Region::new(memory, len, Box::new(owner)) }
    }
}

#[test]
fn a_restarted_process_finds_its_connections() {
    let memory = shared(1000);
    let first = Table::attach(memory(), 1000, FIXED_KEYS).unwrap();
    for flow in 0..900 {
        insert_nat(&first, flow, 0..u16::MAX).unwrap();
    }
    drop(first);
    assert!(matches!(
        Table::attach(memory(), 500, FIXED_KEYS).err(),
        Some(TableError::Size {
            found: 1000,
            wanted: 500
        })
    ));
    let second = Table::attach(memory(), 1000, [5; 4]).unwrap();
    for flow in 0..900 {
        assert!(find(&second, flow).is_some(), "flow {flow}");
        assert!(find_reverse(&second, flow as u16).is_some(), "flow {flow}");
    }
    assert_eq!(second.used(), 900);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn behaves_like_a_map(operations in proptest::collection::vec((0u8..4, 0u32..300), 1..2000)) {
        let table = table(200);
        let mut sweeper = table.sweeper();
        let mut model = HashMap::new();
        for (operation, flow) in operations {
            match operation {
                0 | 1 => {
                    let known = model.contains_key(&flow);
                    prop_assert_eq!(find(&table, flow).is_some(), known);
                    if !known && let Ok(port) = insert_nat(&table, flow, 0..u16::MAX) {
                        prop_assert!(!model.values().any(|&p| p == port));
                        model.insert(flow, port);
                    }
                }
                2 => {
                    let found = find(&table, flow);
                    prop_assert_eq!(found.is_some(), model.contains_key(&flow));
                    if let Some(index) = found {
                        prop_assert!(table.kill(index).is_some());
                        model.remove(&flow);
                    }
                }
                _ => {
                    let swept = sweeper.pass(|c| if c.identity.client.low() as u32 == flow { Sweep::End } else { Sweep::Keep });
                    model.remove(&flow);
                    prop_assert_eq!(swept.live as usize, model.len());
                }
            }
        }
        for (&flow, &port) in &model {
            prop_assert_eq!(find(&table, flow), find_reverse(&table, port).map(|f| f.index));
        }
    }

    /// A process may be killed between any two stores. Whatever it leaves, recovery finds only whole connections.
    #[test]
    fn recovery_survives_any_damage(
        flows in 1u32..200, damage in proptest::collection::vec((any::<usize>(), any::<u64>()), 0..64)
    ) {
        let memory = shared(256);
        let first = Table::attach(memory(), 256, FIXED_KEYS).unwrap();
        for flow in 0..flows {
            insert_nat(&first, flow, 0..u16::MAX).unwrap();
        }
        drop(first);
        let region = memory();
        for (at, value) in damage {
            memory::damage(&region, at, value);
        }
        drop(region);
        let second = Table::attach(memory(), 256, FIXED_KEYS).unwrap();
        second.each(|index, connection| {
            let flow = connection.identity.client.low() as u32;
            // An entry whose identity was damaged is unreachable by its own key, which no recovery can know; the
            // sweeper ends it. No entry is reachable by two keys of one direction.
            if let Some(found) = find(&second, flow) {
                assert!(found == index || second.get(found).is_some());
            }
            std::ops::ControlFlow::Continue(())
        });
        for flow in 1000..1100 {
            let _ = insert_nat(&second, flow, 0..u16::MAX);
        }
        let mut sweeper = second.sweeper();
        for _ in 0..3 {
            sweeper.pass(|_| Sweep::End);
        }
        prop_assert_eq!(second.used(), 0);
    }
}
