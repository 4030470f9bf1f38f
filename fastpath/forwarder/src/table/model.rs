//! The table against models in plain maps: one worker with every operation and restarts in between, and many workers
//! whose histories must be linearizable for each flow and for each NAT port.

use std::collections::{BTreeMap, HashSet};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;

use super::tests::shared;
use super::*;
use crate::address::Addr;
use crate::hash::FIXED_KEYS;

/// A flow is a client; its key towards the server is its NAT port.
fn identity(flow: u32, has_reverse: bool) -> Identity {
    Identity {
        client: Addr(flow as u128),
        client_port: 4000,
        vip_port: 80,
        nat_port: 0,
        nat_index: 0,
        vip_index: 0,
        rule: 1,
        server: 1 + flow % 3,
        protocol: 6,
        has_reverse,
        pool_version: flow as u16,
    }
}

fn forward_hash(table: &Table, flow: u32) -> u32 {
    let tuple = (Addr(flow as u128), Addr(1));
    table.hasher().flow(tuple.0, tuple.1, 4000, 80, 6) as u32
}

fn reverse_hash(table: &Table, port: u16) -> u32 {
    table.hasher().flow(Addr(2), Addr(3), 80, port, 6) as u32
}

fn is_flow(flow: u32) -> impl Fn(&Connection, Direction) -> bool {
    move |connection, direction| {
        direction == Direction::Forward && connection.identity.client == Addr(flow as u128)
    }
}

/// Enters a flow, with the first free NAT port of `ports` unless there are none to try.
fn insert(
    table: &Table,
    flow: u32,
    ports: Range<u16>,
    now: u32,
) -> Result<(u32, u16), InsertError> {
    let candidate = Candidate {
        identity: identity(flow, !ports.is_empty()),
        state: State::SynReceived,
        hash: forward_hash(table, flow),
        lane: NO_LANE,
        now,
    };
    let mut ports = ports;
    let next = |identity: &mut Identity| {
        identity.nat_port = ports.next()?;
        Some(reverse_hash(table, identity.nat_port))
    };
    let same = |wanted: &Identity, connection: &Connection, direction: Direction| {
        direction == Direction::Reverse && connection.identity.nat_port == wanted.nat_port
    };
    table
        .insert(candidate, is_flow(flow), next, same)
        .map(|(index, identity)| (index, identity.nat_port))
}

fn find(table: &Table, flow: u32) -> Option<u32> {
    let found = table.find(forward_hash(table, flow), is_flow(flow))?;
    assert_eq!(found.direction, Direction::Forward);
    Some(found.index)
}

fn find_reverse(table: &Table, port: u16) -> Option<u32> {
    let is_it = |connection: &Connection, direction: Direction| {
        direction == Direction::Reverse && connection.identity.nat_port == port
    };
    Some(table.find(reverse_hash(table, port), is_it)?.index)
}

/// What the model knows of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    index: u32,
    port: u16,
    state: State,
    seen: u32,
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    /// Enter a flow, with so many NAT ports to try; 0 for none at all.
    Insert(u32, u16),
    Touch(u32, State),
    Kill(u32),
    /// End flows of this remainder by 5.
    Sweep(u32),
    /// The process ends and another one takes the memory over.
    Restart,
    Later(u32),
}

fn operation() -> impl Strategy<Value = Operation> {
    let flow = 0u32..150;
    prop_oneof![
        8 => (flow.clone(), prop_oneof![Just(0u16), Just(3), Just(40)]).prop_map(|(f, n)| Operation::Insert(f, n)),
        4 => (flow.clone(), 0usize..9).prop_map(|(f, n)| Operation::Touch(f, State::ALL[n])),
        3 => flow.prop_map(Operation::Kill),
        1 => (0u32..5).prop_map(Operation::Sweep),
        1 => Just(Operation::Restart),
        1 => (1u32..100).prop_map(Operation::Later),
    ]
}

/// Everything that can be asked of the table is what the model says.
fn compare(table: &Table, model: &BTreeMap<u32, Known>) {
    let mut listed = BTreeMap::new();
    table.each(|index, connection| {
        let flow = connection.identity.client.low() as u32;
        let known = Known {
            index,
            port: connection.identity.nat_port,
            state: connection.state,
            seen: connection.last_seen,
        };
        let mut wanted = identity(flow, known.port != 0);
        wanted.nat_port = known.port;
        assert_eq!(
            connection.identity, wanted,
            "nothing of an identity is lost"
        );
        assert_eq!(
            listed.insert(flow, known),
            None,
            "flow {flow} is there twice"
        );
        ControlFlow::Continue(())
    });
    assert_eq!(&listed, model);
    for (&flow, known) in model {
        assert_eq!(find(table, flow), Some(known.index));
        let hash = forward_hash(table, flow);
        let peeked = table
            .peek(known.index, hash)
            .map(|(_, direction)| direction);
        assert_eq!(peeked, Some(Direction::Forward));
        if known.port != 0 {
            assert_eq!(find_reverse(table, known.port), Some(known.index));
        }
    }
    let ports: HashSet<u16> = model.values().map(|known| known.port).collect();
    for port in (1..=40).filter(|port| !ports.contains(port)) {
        assert_eq!(find_reverse(table, port), None, "port {port} is free");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn one_worker_agrees_with_a_map(operations in proptest::collection::vec(operation(), 1..400)) {
        const CAPACITY: u32 = 64;
        let memory = shared(CAPACITY);
        let mut table = Table::attach(memory(), CAPACITY, FIXED_KEYS).unwrap();
        let (mut model, mut now) = (BTreeMap::<u32, Known>::new(), 1);
        // Entries that have died and are not yet given back.
        let mut dead = 0;
        for operation in operations {
            match operation {
                Operation::Insert(flow, ports) => {
                    let wanted = (1..=ports).find(|port| model.values().all(|known| known.port != *port));
                    let result = insert(&table, flow, 1..ports + 1, now);
                    let full = model.len() as u32 + dead == CAPACITY;
                    match result {
                        Ok((index, port)) => {
                            prop_assert!(!model.contains_key(&flow) && !full);
                            prop_assert_eq!(port, wanted.unwrap_or(0));
                            let state = State::SynReceived;
                            model.insert(flow, Known { index, port, state, seen: now });
                        }
                        Err(error) => {
                            let expected = match (full, ports > 0 && wanted.is_none()) {
                                (true, _) => InsertError::Full,
                                (false, true) => InsertError::ReverseTaken,
                                (false, false) => InsertError::Race,
                            };
                            prop_assert_eq!(error, expected);
                            prop_assert!(error != InsertError::Race || model.contains_key(&flow));
                            // An entry was tried and withdrawn.
                            dead += u32::from(!full);
                        }
                    }
                }
                Operation::Touch(flow, state) => {
                    if let Some(known) = model.get_mut(&flow) {
                        prop_assert_eq!(table.touch(known.index, |_| state, now), Some((known.state, state)));
                        (known.state, known.seen) = (state, now);
                    }
                }
                Operation::Kill(flow) => {
                    if let Some(known) = model.remove(&flow) {
                        prop_assert_eq!(table.kill(known.index), Some(known.state));
                        prop_assert_eq!(table.kill(known.index), None, "only once");
                        prop_assert_eq!(table.touch(known.index, |state| state, now), None);
                        dead += 1;
                    }
                }
                Operation::Sweep(rest) => {
                    let ends = |flow: u32| flow % 5 == rest;
                    let mut sweeper = table.sweeper();
                    let swept = sweeper.pass(|connection| match ends(connection.identity.client.low() as u32) {
                        true => Sweep::End,
                        false => Sweep::Keep,
                    });
                    let before = model.len();
                    model.retain(|&flow, _| !ends(flow));
                    prop_assert_eq!((swept.live as usize, swept.ended as usize), (model.len(), before - model.len()));
                    for _ in 0..3 {
                        sweeper.pass(|_| Sweep::Keep);
                    }
                    dead = 0;
                }
                Operation::Restart => {
                    drop(table);
                    table = Table::attach(memory(), CAPACITY, [9; 4]).unwrap();
                    dead = 0;
                }
                Operation::Later(seconds) => now += seconds,
            }
            prop_assert_eq!(table.used(), model.len() as u32 + dead);
        }
        compare(&table, &model);
    }
}

/// What a worker did to a register (a flow, or a NAT port) and when it began and ended, by one clock for all.
#[derive(Debug, Clone, Copy)]
struct Event {
    action: Action,
    began: u64,
    ended: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// It was free and is taken now.
    Take,
    /// It was taken and is free now.
    Release,
    SeenTaken,
    SeenFree,
}

/// Whether there is an order of all events in which each takes effect at one moment between its begin and its end
/// (Herlihy and Wing 1990), and what is left is `taken`. Each worker's events are in their order.
fn linearizable(histories: &[Vec<Event>], taken: bool) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![(vec![0usize; histories.len()], false)];
    while let Some((at, state)) = open.pop() {
        if !seen.insert((at.clone(), state)) {
            continue;
        }
        let next: Vec<Option<&Event>> = histories.iter().zip(&at).map(|(h, &n)| h.get(n)).collect();
        // Nothing may come after what had ended before it began.
        let Some(first_end) = next.iter().flatten().map(|event| event.ended).min() else {
            if state == taken {
                return true;
            }
            continue;
        };
        for (worker, event) in next.into_iter().enumerate() {
            let Some(event) = event.filter(|event| event.began <= first_end) else {
                continue;
            };
            let after = match (event.action, state) {
                (Action::Take, false) | (Action::SeenTaken, true) => true,
                (Action::Release, true) | (Action::SeenFree, false) => false,
                _ => continue,
            };
            let mut at = at.clone();
            at[worker] += 1;
            open.push((at, after));
        }
    }
    false
}

#[test]
fn the_check_of_histories_sees_what_cannot_be() {
    use Action::*;
    let event = |action, began, ended| Event {
        action,
        began,
        ended,
    };
    let good = [
        vec![event(Take, 0, 5), event(SeenFree, 9, 10)],
        vec![event(SeenFree, 1, 2), event(Release, 3, 8)],
    ];
    assert!(linearizable(&good, false));
    assert!(!linearizable(&good, true));
    let twice = [vec![event(Take, 0, 1)], vec![event(Take, 2, 3)]];
    assert!(!linearizable(&twice, true));
    let lost = [vec![event(Take, 0, 1)], vec![event(SeenFree, 2, 3)]];
    assert!(!linearizable(&lost, true));
}

/// One worker's events, by flow and by port.
type Log = (BTreeMap<u32, Vec<Event>>, BTreeMap<u16, Vec<Event>>);

const FLOWS: u32 = 5;
const PORTS: Range<u16> = 1..5;

fn work(table: &Table, worker: usize, clock: &AtomicU64, seed: u64) -> Log {
    let tick = || clock.fetch_add(1, Ordering::SeqCst);
    let (mut flows, mut ports) = Log::default();
    let mut random = seed;
    for _ in 0..40 {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let flow = (random >> 33) as u32 % FLOWS;
        table.enter(worker);
        let began = tick();
        let found = find(table, flow);
        let (action, port) = match (found, random >> 60 & 1) {
            (Some(index), 0) => {
                let before = table.get(index);
                match (before, table.kill(index)) {
                    (Some(connection), Some(_)) => {
                        assert_eq!(connection.identity.client, Addr(flow as u128));
                        (Some(Action::Release), Some(connection.identity.nat_port))
                    }
                    (None, Some(_)) => panic!("what was dead already was ended"),
                    (_, None) => (None, None),
                }
            }
            (Some(_), _) => (Some(Action::SeenTaken), None),
            (None, 0) => (Some(Action::SeenFree), None),
            (None, _) => match insert(table, flow, PORTS, 1) {
                Ok((_, port)) => (Some(Action::Take), Some(port)),
                Err(InsertError::Race | InsertError::ReverseTaken | InsertError::Full) => {
                    (None, None)
                }
            },
        };
        let ended = tick();
        table.quiesce(worker);
        let event = |action| Event {
            action,
            began,
            ended,
        };
        flows.entry(flow).or_default().extend(action.map(event));
        if let Some(port) = port {
            ports.entry(port).or_default().extend(action.map(event));
        }
    }
    (flows, ports)
}

#[test]
fn many_workers_have_linearizable_histories() {
    const WORKERS: usize = 3;
    const ROUNDS: u64 = 300;
    let (mut taken_at_all, mut taken_in_race) = (0, 0);
    for round in 0..ROUNDS {
        let memory = shared(64);
        let table = Table::attach(memory(), 64, FIXED_KEYS).unwrap();
        let (clock, go, done) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
        let logs: Vec<Log> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS)
                .map(|worker| {
                    let (table, clock, go, done) = (&table, &clock, &go, &done);
                    scope.spawn(move || {
                        while !go.load(Ordering::Acquire) {
                            std::hint::spin_loop();
                        }
                        let log = work(table, worker, clock, round * 7 + worker as u64);
                        done.fetch_add(1, Ordering::Release);
                        log
                    })
                })
                .collect();
            go.store(true, Ordering::Release);
            // Dead entries come back and are used again all the time.
            let mut sweeper = table.sweeper();
            while done.load(Ordering::Acquire) < WORKERS as u64 {
                sweeper.pass(|_| Sweep::Keep);
                std::thread::yield_now();
            }
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .collect()
        });
        let live = |table: &Table| {
            let mut live = BTreeMap::new();
            table.each(|index, connection| {
                let identity = connection.identity;
                let flow = identity.client.low() as u32;
                assert_eq!(find(table, flow), Some(index));
                assert_eq!(find_reverse(table, identity.nat_port), Some(index));
                assert_eq!(live.insert(flow, identity.nat_port), None);
                ControlFlow::Continue(())
            });
            live
        };
        let left = live(&table);
        for flow in 0..FLOWS {
            let histories: Vec<_> = logs
                .iter()
                .map(|(flows, _)| flows.get(&flow).cloned().unwrap_or_default())
                .collect();
            assert!(
                linearizable(&histories, left.contains_key(&flow)),
                "round {round}, flow {flow}, left {left:?}: {histories:#?}"
            );
            let takes = |h: &Vec<Event>| {
                h.iter()
                    .filter(|event| event.action == Action::Take)
                    .count()
            };
            taken_at_all += histories.iter().map(takes).sum::<usize>();
            taken_in_race += usize::from(histories.iter().filter(|h| takes(h) > 0).count() > 1);
        }
        for port in PORTS {
            let histories: Vec<_> = logs
                .iter()
                .map(|(_, ports)| ports.get(&port).cloned().unwrap_or_default())
                .collect();
            assert!(
                linearizable(&histories, left.values().any(|&taken| taken == port)),
                "round {round}, port {port}, left {left:?}: {histories:#?}"
            );
        }
        let mut sweeper = table.sweeper();
        for _ in 0..3 {
            sweeper.pass(|_| Sweep::Keep);
        }
        assert_eq!(
            table.used() as usize,
            left.len(),
            "round {round}: nothing leaks"
        );
        drop(table);
        let table = Table::attach(memory(), 64, FIXED_KEYS).unwrap();
        assert_eq!(
            live(&table),
            left,
            "round {round}: a restart changes nothing"
        );
    }
    assert!(
        taken_at_all > 1000 && taken_in_race > 100,
        "the workers met: {taken_at_all} taken, {taken_in_race} flows by several workers"
    );
}
