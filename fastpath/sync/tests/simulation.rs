//! Two ends over a network that loses, delays, doubles and reorders, with somebody in between who keeps everything that he
//! hears and sends it again: in the end both tables agree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ilb_sync::seal::Token;
use ilb_sync::{
    Claim, Connection, End, Event, Record, Refused, Secret, Session, Settings, State, Table,
};
use proptest::prelude::*;

const ENTRIES: u32 = 300;

/// A repeatable stream of numbers.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A table of one node: entries of its own, and what it was told.
#[derive(Default)]
struct Node {
    own: BTreeMap<u32, Record>,
    told: BTreeMap<Key, Record>,
    /// Traces of its own, and those that it was told: in this round, and before.
    traces: BTreeMap<u32, u32>,
    heard: [BTreeSet<u32>; 2],
    round: u32,
    /// What it has to pass on, and what was passed on to it.
    inherited: Option<(Vec<u32>, u16)>,
    kept: BTreeSet<u32>,
    events: Vec<Event>,
}

type Key = (u64, std::net::IpAddr, u16, u8);

/// What a record is known by.
fn key(record: &Record) -> Key {
    match record {
        Record::Connection(it) => (it.place, it.client, it.client_port, it.protocol),
        Record::Claim(it) => (it.place, it.client, 0, 0),
        Record::End(it) => (it.place, it.client, it.client_port, it.protocol),
    }
}

impl Table for Node {
    fn size(&self) -> u32 {
        ENTRIES
    }
    fn read(&mut self, entry: u32) -> Option<Record> {
        self.own.get(&entry).copied()
    }
    fn has(&mut self, end: &End) -> bool {
        let wanted = key(&Record::End(*end));
        self.own.values().any(|record| key(record) == wanted)
    }
    fn trace(&mut self, entry: u32) -> Option<u32> {
        self.traces.get(&entry).copied()
    }
    fn inherited(&mut self) -> Option<(Vec<u32>, u16)> {
        self.inherited.take()
    }
}

impl Node {
    fn take(&mut self) {
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Record(record @ Record::End(_)) => drop(self.told.remove(&key(&record))),
                Event::Record(record) => drop(self.told.insert(key(&record), record)),
                Event::Traces(it) if it.inherited.is_some() => self.kept.extend(it.traces),
                Event::Traces(it) => {
                    if it.round != self.round {
                        self.round = it.round;
                        let before = std::mem::take(&mut self.heard[0]);
                        self.heard[1].extend(before);
                    }
                    self.heard[0].extend(it.traces);
                    if it.over {
                        self.heard[1].clear();
                    }
                }
                Event::Up | Event::Down | Event::Asked | Event::Everything => {}
            }
        }
    }

    fn expected(&self) -> BTreeMap<Key, Record> {
        self.own
            .values()
            .map(|record| (key(record), *record))
            .collect()
    }
}

struct World {
    random: Random,
    now: u64,
    nodes: [Node; 2],
    ends: [Session; 2],
    /// (when it arrives, at whom, what).
    wire: Vec<(u64, usize, Vec<u8>)>,
    /// Everything that was ever sent.
    heard: VecDeque<(usize, Vec<u8>)>,
    /// Of a hundred datagrams, how many are lost, doubled, changed and sent again later.
    faults: u64,
    cut: [bool; 2],
}

fn session(node: u8, seed: u64, now: u64) -> Session {
    let mut random = Random(seed);
    let draw = move || -> Token {
        let mut token = [0; 16];
        token[..8].copy_from_slice(&random.next().to_be_bytes());
        token[8..].copy_from_slice(&random.next().to_be_bytes());
        token
    };
    let settings = Settings {
        node,
        secret: Secret::new([7; 32]),
        bandwidth: 2_000_000,
        datagram: 700,
    };
    Session::new(settings, ENTRIES, draw, now)
}

impl World {
    fn new(seed: u64, faults: u64) -> World {
        World {
            random: Random(seed),
            now: 1,
            nodes: [Node::default(), Node::default()],
            ends: [session(0, seed ^ 1, 1), session(1, seed ^ 2, 1)],
            wire: Vec::new(),
            heard: VecDeque::new(),
            faults,
            cut: [false; 2],
        }
    }

    /// Ten milliseconds.
    fn tick(&mut self) {
        self.now += 10;
        let mut due: Vec<_> = self.wire.extract_if(.., |it| it.0 <= self.now).collect();
        due.sort_by_key(|it| it.0);
        for (_, to, mut bytes) in due {
            let node = &mut self.nodes[to];
            // What is refused is counted by the session.
            let _ = self.ends[to].handle(&mut bytes, self.now, &mut node.events);
            node.take();
        }
        for from in 0..2 {
            while let Some(bytes) =
                self.ends[from].poll(&mut self.nodes[from], self.now, &mut Vec::new())
            {
                self.send(1 - from, bytes);
            }
        }
        if self.random.below(100) < self.faults && !self.heard.is_empty() {
            let at = self.random.below(self.heard.len() as u64) as usize;
            let (to, mut bytes) = self.heard[at].clone();
            if self.random.below(2) == 0 {
                let at = self.random.below(bytes.len() as u64) as usize;
                match self.random.below(3) {
                    0 => bytes.truncate(at),
                    1 => bytes[at] ^= 1 << self.random.below(8),
                    _ => bytes.push(0),
                }
            }
            // To either end: also back to who sent it.
            let to = if self.random.below(4) == 0 {
                1 - to
            } else {
                to
            };
            self.wire.push((self.now, to, bytes));
        }
    }

    fn send(&mut self, to: usize, bytes: Vec<u8>) {
        if self.heard.len() == 500 {
            self.heard.pop_front();
        }
        self.heard.push_back((to, bytes.clone()));
        if self.cut[to] || self.random.below(100) < self.faults {
            return;
        }
        let mut delay = 1;
        if self.random.below(100) < self.faults {
            delay += self.random.below(200);
            if self.random.below(2) == 0 {
                self.wire.push((self.now + 1, to, bytes.clone()));
            }
        }
        self.wire.push((self.now + delay, to, bytes));
    }

    /// Something happens to an entry of a node.
    fn happens(&mut self, at: usize) {
        let entry = self.random.below(u64::from(ENTRIES)) as u32;
        let (node, end) = (&mut self.nodes[at], &mut self.ends[at]);
        let choice = self.random.below(10);
        if let Some(old) = node.own.get(&entry).copied() {
            if let (Record::Connection(mut it), 0..6) = (old, choice) {
                it.state = State::ALL[self.random.below(7) as usize];
                node.own.insert(entry, Record::Connection(it));
                end.changed(entry, self.now);
                return;
            }
            node.own.remove(&entry);
            if let Record::Connection(it) = old {
                end.ended(it.end(), self.now);
            } else {
                // Claims are never ended: put it back.
                node.own.insert(entry, old);
                return;
            }
        }
        // Few clients, so that the same one comes again by another entry; those of each node are its own.
        let client = [10, at as u8, 0, self.random.below(100) as u8];
        let record = match choice {
            9 => Record::Claim(Claim {
                place: 1_000_000 + u64::from(entry),
                client: client.into(),
                nat_index: 0,
                idle: 0,
            }),
            _ => Record::Connection(Connection {
                state: State::Established,
                protocol: 6,
                vip_index: 0,
                place: 77,
                client: client.into(),
                client_port: self.random.below(4) as u16,
                vip_port: 80,
                nat: (at == 1).then_some((entry as u16, 0)),
                idle: 0,
            }),
        };
        let taken = key(&record);
        if node.own.values().any(|other| key(other) == taken) {
            return;
        }
        node.own.insert(entry, record);
        end.changed(entry, self.now);
    }

    /// A node's process is started anew: its table may be empty then, or be what it was.
    fn restart(&mut self, at: usize, empty: bool) {
        let seed = self.random.next();
        self.ends[at] = session(at as u8, seed, self.now);
        if empty {
            // Its own connections are lost to the peer, too, in this model: nothing is left that could be said of them.
            self.nodes[at] = Node::default();
            self.nodes[1 - at].told.clear();
        }
    }

    /// Where what a node was told differs from what the other one has. After a restart, what ended before and was not told
    /// of is left to timers, which this model has none of.
    fn differences(&self, restarted: bool) -> Vec<(Option<Record>, Option<Record>)> {
        let mut differences = Vec::new();
        for at in 0..2 {
            let (told, own) = (&self.nodes[1 - at].told, self.nodes[at].expected());
            for (key, record) in &own {
                if told.get(key) != Some(record) {
                    differences.push((Some(*record), told.get(key).copied()));
                }
            }
            let gone = told
                .iter()
                .filter(|it| !restarted && !own.contains_key(it.0));
            differences.extend(gone.map(|it| (None, Some(*it.1))));
        }
        differences
    }

    fn is_settled(&self, restarted: bool) -> bool {
        self.differences(restarted).is_empty()
            && self
                .ends
                .iter()
                .all(|end| end.is_up() && end.has_everything() && end.pending() == 0)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn both_tables_agree_in_the_end(seed: u64, faults in 0u64..30, restarts in 0u32..3) {
        let mut world = World::new(seed, faults);
        let steps = 3_000;
        for step in 0..steps {
            if world.random.below(3) == 0 {
                let at = world.random.below(2) as usize;
                world.happens(at);
            }
            if restarts > 0 && world.random.below(steps) < u64::from(restarts) {
                let (at, empty) = (world.random.below(2) as usize, world.random.below(2) == 0);
                world.restart(at, empty);
            }
            if step % 700 == 100 {
                world.cut = [world.random.below(2) == 0, world.random.below(2) == 0];
            } else if step % 700 == 500 {
                world.cut = [false; 2];
            }
            world.tick();
        }
        world.cut = [false; 2];
        let mut patience = 6_000;
        while patience > 0 && !world.is_settled(restarts > 0) {
            world.tick();
            patience -= 1;
        }
        prop_assert_eq!(world.differences(restarts > 0), vec![]);
        prop_assert!(world.is_settled(restarts > 0), "both are there and have nothing to say");
    }
}

/// Runs until both are up and everything is told.
fn settle(world: &mut World) {
    for _ in 0..3_000 {
        world.tick();
        if world.is_settled(false) {
            return;
        }
    }
    panic!("not settled");
}

#[test]
fn what_is_forged_repeated_cut_or_foreign_changes_nothing_and_is_counted() {
    let mut world = World::new(11, 0);
    (0..200).for_each(|_| world.happens(0));
    settle(&mut world);
    let recorded: Vec<_> = world
        .heard
        .iter()
        .filter(|it| it.0 == 1)
        .map(|it| it.1.clone())
        .collect();
    let sealed = |bytes: &&Vec<u8>| bytes[5] == 2;
    let (greeting, datagram) = (
        recorded.iter().find(|it| it[5] == 1).unwrap().clone(),
        recorded.iter().rfind(sealed).unwrap().clone(),
    );
    let changed = |bytes: &[u8], at: usize, with: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = with;
        bytes
    };
    let mut next = datagram.clone();
    next[16..24].copy_from_slice(&u64::MAX.to_be_bytes());
    let mut answer = greeting.clone();
    answer[32..48].fill(9);
    #[rustfmt::skip]
    let table = [
        (Refused::Length, vec![]),
        (Refused::Length, b"ilbS".to_vec()),
        (Refused::Length, greeting[..80].to_vec()),
        (Refused::Length, datagram[..20].to_vec()),
        (Refused::Foreign, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        (Refused::Foreign, changed(&datagram, 5, 3)),
        (Refused::Version, changed(&datagram, 4, 2)),
        (Refused::Node, changed(&datagram, 6, 1)),
        (Refused::Key, changed(&greeting, 9, 1)),
        (Refused::Forged, changed(&greeting, 60, greeting[60] ^ 1)),
        (Refused::Forged, answer),
        (Refused::Session, changed(&datagram, 8, datagram[8] ^ 1)),
        (Refused::Late, datagram.clone()),
        (Refused::Late, recorded.iter().find(sealed).unwrap().clone()),
        (Refused::Seal, next),
        (Refused::Seal, [datagram[..16].to_vec(), vec![0xff; 8]].concat()),
    ];
    let told = world.nodes[1].told.clone();
    for (reason, mut bytes) in table {
        let count = |end: &Session| end.refused().find(|it| it.0 == reason).unwrap().1;
        let (before, counters) = (count(&world.ends[1]), *world.ends[1].counters());
        let mut events = Vec::new();
        let outcome = world.ends[1].handle(&mut bytes, world.now, &mut events);
        assert_eq!((outcome, events), (Err(reason), vec![]));
        assert_eq!(count(&world.ends[1]), before + 1, "{reason:?}");
        assert_eq!(*world.ends[1].counters(), counters);
        assert!(world.ends[1].is_up());
    }
    assert_eq!(world.nodes[1].told, told);
    // The whole session before, again, to a node that has started anew: no session comes of it.
    let mut world = World::new(12, 0);
    let mut events = Vec::new();
    for mut bytes in recorded {
        let _ = world.ends[1].handle(&mut bytes, world.now, &mut events);
    }
    assert_eq!((events, world.ends[1].counters().sessions), (vec![], 0));
}

#[test]
fn another_key_or_the_same_number_is_no_peer() {
    for (node, secret, reason) in [(1, [8; 32], Refused::Key), (0, [7; 32], Refused::Node)] {
        let mut world = World::new(3, 0);
        let settings = Settings {
            node,
            secret: Secret::new(secret),
            ..world.ends[1].settings().clone()
        };
        world.ends[1] = Session::new(settings, ENTRIES, || [5; 16], 1);
        (0..500).for_each(|_| world.tick());
        for end in &world.ends {
            assert!(!end.is_up());
            assert!(end.refused().any(|(it, count)| it == reason && count > 3));
            assert_eq!(end.counters().received_datagrams, 0);
        }
    }
}

#[test]
fn no_more_is_sent_than_the_limit_allows_and_changes_go_first() {
    let mut world = World::new(5, 0);
    settle(&mut world);
    let settings = Settings {
        bandwidth: 20_000,
        ..world.ends[0].settings().clone()
    };
    let mut random = Random(99);
    let draw = move || (u128::from(random.next()) << 64 | u128::from(random.next())).to_be_bytes();
    const MANY: u32 = 20_000;
    struct Large;
    impl Table for Large {
        fn size(&self) -> u32 {
            MANY
        }
        fn read(&mut self, entry: u32) -> Option<Record> {
            Some(Record::Claim(Claim {
                place: u64::from(entry),
                client: [10, 0, 0, 1].into(),
                nat_index: 0,
                idle: 0,
            }))
        }
        fn has(&mut self, _: &End) -> bool {
            false
        }
    }
    world.ends[0] = Session::new(settings, MANY, draw, world.now);
    let (mut octets, mut told, mut place) = (0, Vec::new(), None);
    for step in 0..2_000u64 {
        world.now += 10;
        let mut events = Vec::new();
        while let Some(mut bytes) = world.ends[0].poll(&mut Large, world.now, &mut events) {
            octets += bytes.len() + 48;
            world.ends[1]
                .handle(&mut bytes, world.now, &mut events)
                .unwrap();
        }
        let mut back = Vec::new();
        while let Some(mut bytes) = world.ends[1].poll(&mut world.nodes[1], world.now, &mut back) {
            let _ = world.ends[0].handle(&mut bytes, world.now, &mut back);
        }
        for event in events {
            if let Event::Record(Record::Claim(claim)) = event {
                if claim.place == u64::from(MANY - 1) {
                    place.get_or_insert(step);
                }
                told.push(claim.place);
            }
        }
        if step == 1_000 {
            assert!(place.is_none(), "its turn has not come yet");
            world.ends[0].changed(MANY - 1, world.now);
            assert!(world.ends[0].lag(world.now) > 0);
        }
    }
    // Twenty seconds and what a bucket holds.
    assert!(octets < 20 * 20_000 + 70_000, "{octets}");
    assert!(octets > 19 * 20_000, "{octets}");
    let place = place.expect("what has changed was told");
    assert!((1_000..1_030).contains(&place), "at once: step {place}");
    assert!(
        told.len() > 10_000 && told.len() < MANY as usize,
        "{}",
        told.len()
    );
}

impl Node {
    fn knows(&self, other: &Node) -> bool {
        let all: BTreeSet<u32> = self.heard.iter().flatten().copied().collect();
        other.traces.values().all(|it| all.contains(it))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn traces_are_known_in_the_end_and_forgotten_by_the_next_round(seed: u64, faults in 0u64..30) {
        let mut world = World::new(seed, faults);
        for step in 0..1_500 {
            if world.random.below(3) == 0 {
                let at = world.random.below(2) as usize;
                let (entry, trace) = (world.random.below(u64::from(ENTRIES)) as u32, world.random.next() as u32);
                world.nodes[at].traces.insert(entry, trace);
                let now = world.now;
                world.ends[at].traced(trace, now);
            }
            world.cut = [step % 500 > 400, step % 700 > 600];
            world.tick();
        }
        world.cut = [false; 2];
        let quiet = |world: &World| world.ends.iter().all(|end| end.is_up() && end.pending() == 0);
        // What was on its way when a round begins may be told in it once more, and goes with the one after it.
        for rounds in 0..3 {
            if rounds > 0 {
                world.ends.iter_mut().for_each(Session::traces_changed);
            }
            let before = [0, 1].map(|at| world.nodes[at].round);
            let over = |of: &Node, before: u32| rounds == 0 || of.round != before && of.heard[1].is_empty();
            let exact = |of: &Node, from: &Node| rounds < 2 || of.heard[0].len() == from.traces.len();
            let known = |world: &World| {
                let [a, b] = &world.nodes;
                a.knows(b) && b.knows(a) && over(a, before[0]) && over(b, before[1]) && exact(a, b) && exact(b, a)
            };
            for _ in 0..6_000 {
                world.tick();
                if quiet(&world) && known(&world) {
                    break;
                }
            }
            prop_assert!(known(&world), "after {} rounds", rounds);
        }
    }
}

#[test]
fn a_peer_that_asks_for_everything_is_told_what_was_inherited() {
    let mut world = World::new(3, 0);
    settle(&mut world);
    let expected: BTreeSet<u32> = (1..2000).map(|n: u32| n.wrapping_mul(77_777)).collect();
    world.nodes[0].inherited = Some((expected.iter().copied().collect(), 99));
    world.restart(1, true);
    let mut ages = BTreeSet::new();
    for _ in 0..300 {
        world.now += 10;
        for from in 0..2 {
            while let Some(mut bytes) =
                world.ends[from].poll(&mut world.nodes[from], world.now, &mut Vec::new())
            {
                let to = 1 - from;
                let _ = world.ends[to].handle(&mut bytes, world.now, &mut world.nodes[to].events);
            }
        }
        let told = world.nodes[1].events.iter().filter_map(|it| match it {
            Event::Traces(it) if !it.traces.is_empty() => Some(it.inherited),
            _ => None,
        });
        ages.extend(told);
        world.nodes.iter_mut().for_each(Node::take);
    }
    assert_eq!(world.nodes[1].kept, expected);
    assert!(world.nodes[1].heard.iter().all(BTreeSet::is_empty));
    assert_eq!(ages, [Some(99)].into());
}
