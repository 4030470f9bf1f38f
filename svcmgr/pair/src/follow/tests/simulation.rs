//! Two nodes with disks, users and a link that delays, breaks and comes back; each may be killed between any two steps.

use std::collections::{BTreeMap, VecDeque};

use serde_json::json;

use super::super::*;

/// A configuration: what somebody has set.
type Config = BTreeMap<String, u64>;

/// splitmix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub(super) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// What survives a kill.
#[derive(Clone, Default)]
struct Disk {
    line: Line,
    /// By generation, which is the place. Old ones may be forgotten.
    generations: Vec<Option<Config>>,
    /// Words of every version that was ever made here, as the history has them.
    history: Vec<String>,
    /// Of every fork that was lost: how many changes.
    lost: usize,
    won: usize,
}

impl Disk {
    fn config(&self) -> Config {
        self.generations
            .last()
            .cloned()
            .flatten()
            .unwrap_or_default()
    }

    fn commit(&mut self, config: Config, version: Version) {
        let words = version.words.clone();
        let there = self
            .line
            .versions()
            .iter()
            .any(|kept| kept.version.words == words);
        assert!(!there, "{words} is made twice");
        self.generations.push(Some(config));
        self.line
            .push(version, self.generations.len() as u64 - 1)
            .unwrap();
        self.history.push(words);
    }

    fn at(&self, mark: u64) -> Option<&Config> {
        self.generations.get(mark as usize)?.as_ref()
    }

    fn collect(&self, after: VersionId) -> Option<Vec<Delta>> {
        let versions = self.line.after(after)?;
        let all = self.line.versions();
        let before = all.iter().find(|kept| kept.version.id == after)?;
        let mut old = self.at(before.mark)?;
        let mut deltas = Vec::new();
        for kept in versions {
            let new = self.at(kept.mark)?;
            deltas.push(Delta {
                version: kept.version.clone(),
                records: difference(old, new),
                numbers: Numbers::default(),
            });
            old = new;
        }
        Some(deltas)
    }
}

fn difference(old: &Config, new: &Config) -> Vec<Record> {
    let changed = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(value));
    let record = |(key, value): (&String, &u64)| Record {
        tree: "t".into(),
        key: key.clone(),
        value: Some(json!(value)),
    };
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let deleted = gone.map(|key| Record {
        tree: "t".into(),
        key: key.clone(),
        value: None,
    });
    changed.map(record).chain(deleted).collect()
}

fn apply(config: &mut Config, records: &[Record]) {
    for record in records {
        match &record.value {
            Some(value) => drop(config.insert(record.key.clone(), value.as_u64().unwrap())),
            None => drop(config.remove(&record.key)),
        }
    }
}

/// A user's wish.
#[derive(Clone)]
struct Wish {
    serial: u64,
}

/// What a node notices when it has done what it had to do.
enum News {
    Up,
    Down,
    Frame(Vec<u8>),
}

struct Node {
    disk: Disk,
    follow: Follow,
    /// The disk is full.
    full: bool,
    active: bool,
    /// What was asked for and is not answered.
    wish: Option<Wish>,
    inbox: VecDeque<News>,
    /// What is to be done; a kill may come before each.
    work: VecDeque<Action>,
}

impl Node {
    fn new(node: u8, disk: Disk) -> Node {
        let line = disk.line.clone();
        Node {
            follow: Follow::new(node, Speaks::default(), line, false),
            disk,
            full: false,
            active: false,
            wish: None,
            inbox: VecDeque::new(),
            work: VecDeque::new(),
        }
    }

    fn wished(&self, wish: &Wish) -> (Config, Draft) {
        let mut config = self.disk.config();
        // Few keys, so that changes meet.
        config.insert(format!("k{}", wish.serial % 5), wish.serial);
        if wish.serial.is_multiple_of(7) {
            config.remove("k3");
        }
        let records = difference(&self.disk.config(), &config);
        let draft = Draft {
            words: wish.serial.to_string(),
            digest: Digest::of(&records),
            ..Draft::default()
        };
        (config, draft)
    }

    /// Begins with the wish, or again.
    fn begin(&mut self) {
        let Some(wish) = self.wish.clone() else {
            return;
        };
        let decided = |action: &Action| matches!(action, Action::Outcome(_));
        if self.work.iter().any(decided) {
            return;
        }
        if self.follow.offered().is_some() {
            return;
        }
        if self.full {
            self.wish = None;
            return;
        }
        if self.follow.turn() == Turn::Wait {
            return;
        }
        let (config, draft) = self.wished(&wish);
        let records = difference(&self.disk.config(), &config);
        let delta = Delta {
            version: self.follow.draft(&draft),
            records,
            numbers: Numbers::default(),
        };
        let actions = self.follow.offer(delta);
        self.work.extend(actions);
    }

    fn refusal(&self) -> Option<Refused> {
        self.full.then(|| Refused {
            reason: Reason::Cannot,
            words: "disk full".into(),
        })
    }
}

struct World {
    random: Random,
    nodes: [Node; 2],
    up: bool,
    serial: u64,
    done: Vec<(usize, u64)>,
}

impl World {
    fn new(seed: u64) -> World {
        let empty = Disk {
            generations: vec![None],
            ..Disk::default()
        };
        let mut disk = empty.clone();
        let draft = Draft {
            words: "begin".into(),
            ..Draft::default()
        };
        disk.commit(
            Config::from([("k".into(), 1)]),
            Version::new(None, 0, &draft),
        );
        World {
            random: Random(seed),
            nodes: [Node::new(0, disk), Node::new(1, empty)],
            up: false,
            serial: 1,
            done: Vec::new(),
        }
    }

    fn connect(&mut self) {
        if self.up {
            return;
        }
        self.up = true;
        for node in &mut self.nodes {
            node.inbox.push_back(News::Up);
        }
    }

    /// What is on its way is lost.
    fn cut(&mut self) {
        self.up = false;
        for node in &mut self.nodes {
            node.inbox.clear();
            node.inbox.push_back(News::Down);
        }
    }

    fn kill(&mut self, me: usize) {
        let node = &mut self.nodes[me];
        let (disk, active) = (node.disk.clone(), node.active);
        *node = Node::new(me as u8, disk);
        node.active = active;
        let actions = node.follow.set_active(active);
        assert_eq!(actions, []);
        self.cut();
    }

    /// One thing that a node has to do.
    fn work(&mut self, me: usize) -> bool {
        let Some(action) = self.nodes[me].work.pop_front() else {
            return false;
        };
        let up = self.up;
        let node = &mut self.nodes[me];
        let actions = match action {
            Action::Send(message) => {
                if up {
                    let frame = News::Frame(message.encode());
                    self.nodes[1 - me].inbox.push_back(frame);
                }
                Vec::new()
            }
            Action::Take(deltas) => {
                let mut result = Ok(());
                for delta in deltas {
                    // It may become full between two.
                    if let Some(refused) = node.refusal() {
                        result = Err(refused);
                        break;
                    }
                    let mut config = node.disk.config();
                    apply(&mut config, &delta.records);
                    node.disk.commit(config, delta.version);
                }
                node.follow.took(&node.disk.line, false, result)
            }
            Action::Replace { whole, fork } => {
                let result = match node.refusal() {
                    Some(refused) => Err(refused),
                    None => {
                        let mut config = Config::new();
                        apply(&mut config, &whole.records);
                        let disk = &mut node.disk;
                        disk.generations.push(Some(config));
                        let mark = disk.generations.len() as u64 - 1;
                        let kept = whole.line.into_iter();
                        // Only the newest is kept here; what is older has no generation.
                        let newest = kept.map(|version| Kept { version, mark: 0 });
                        let mut line: Vec<Kept> = newest.collect();
                        line.last_mut().unwrap().mark = mark;
                        disk.line = Line::new(line).unwrap();
                        disk.lost += fork.map_or(0, |fork| fork.ours);
                        Ok(())
                    }
                };
                node.follow.took(&node.disk.line, false, result)
            }
            Action::Collect(after) => {
                let deltas = node.disk.collect(after);
                node.follow.collected(deltas)
            }
            Action::Gather => node.follow.gathered(Whole {
                line: Vec::new(),
                records: difference(&Config::new(), &node.disk.config()),
                numbers: Numbers::default(),
            }),
            Action::Outcome(outcome) => {
                let wish = node.wish.clone().expect("somebody wished it");
                match outcome {
                    Outcome::Make(_) if node.full => {
                        node.wish = None;
                        node.follow.again()
                    }
                    Outcome::Make(version) => {
                        let (config, _) = node.wished(&wish);
                        assert_eq!(version.words, wish.serial.to_string());
                        node.disk.commit(config, version);
                        node.wish = None;
                        self.done.push((me, wish.serial));
                        node.follow.advanced(&node.disk.line, false)
                    }
                    Outcome::Overtaken => {
                        node.begin();
                        Vec::new()
                    }
                    Outcome::Forbidden(_) => {
                        node.wish = None;
                        Vec::new()
                    }
                }
            }
            Action::Won(fork) => {
                node.disk.won += fork.theirs;
                Vec::new()
            }
            Action::Acknowledged => Vec::new(),
        };
        // Before what was to be done already: it belongs to the same step.
        for action in actions.into_iter().rev() {
            self.nodes[me].work.push_front(action);
        }
        true
    }

    fn deliver(&mut self, me: usize) -> bool {
        let node = &mut self.nodes[me];
        if !node.work.is_empty() {
            return self.work(me);
        }
        let actions = match node.inbox.pop_front() {
            None => return false,
            Some(News::Up) => node.follow.up(),
            Some(News::Down) => node.follow.down(),
            Some(News::Frame(octets)) => {
                let heard = Message::decode(&octets).expect("a node talks no nonsense");
                node.follow.heard(heard)
            }
        };
        node.work.extend(actions);
        true
    }

    /// Nobody waits any longer.
    fn patience(&mut self, me: usize) {
        let node = &mut self.nodes[me];
        if !node.work.is_empty() {
            return;
        }
        if node.follow.offered().is_some() {
            let actions = node.follow.enough();
            node.work.extend(actions);
        } else if let Some(wish) = node.wish.clone() {
            match node.follow.stand() {
                Stand::Greeting if !node.full => {
                    let (_, draft) = node.wished(&wish);
                    let version = node.follow.draft(&draft);
                    node.work.push_back(Action::Outcome(Outcome::Make(version)));
                }
                Stand::Ahead(_) => {
                    let actions = node.follow.enough();
                    assert_eq!(actions, []);
                    node.begin();
                }
                // It lacks what the other node has.
                Stand::Behind(_) | Stand::Forked(_) => node.wish = None,
                _ => node.begin(),
            }
        }
    }

    fn step(&mut self) {
        let me = self.random.below(2) as usize;
        let idle = self.nodes[me].work.is_empty();
        match self.random.below(100) {
            0..65 => drop(self.deliver(me)),
            65..80 if idle => {
                if self.nodes[me].wish.is_none() {
                    self.serial += 1;
                    let serial = self.serial;
                    self.nodes[me].wish = Some(Wish { serial });
                }
                self.nodes[me].begin();
            }
            80..84 => self.patience(me),
            84..87 => self.cut(),
            87..93 => self.connect(),
            93..95 => self.kill(me),
            95 => self.nodes[me].full ^= true,
            96 if idle => {
                let node = &mut self.nodes[me];
                node.active ^= true;
                let actions = node.follow.set_active(node.active);
                node.work.extend(actions);
            }
            97 if idle => {
                let actions = self.nodes[me].follow.again();
                self.nodes[me].work.extend(actions);
            }
            98 if self.random.one_in(3) => {
                // What is old is forgotten, so that nobody can say what has changed since.
                let generations = &mut self.nodes[me].disk.generations;
                let keep = generations.len() - 1;
                generations[..keep].fill(None);
            }
            _ => {}
        }
    }

    /// All is well from now on.
    fn settle(&mut self) {
        for node in &mut self.nodes {
            node.full = false;
        }
        self.connect();
        for _ in 0..20 {
            let mut calm = 0;
            while calm < 2 {
                calm = match self.deliver(0) | self.deliver(1) {
                    true => 0,
                    false => calm + 1,
                };
            }
            for me in 0..2 {
                self.patience(me);
                while self.work(me) {}
                let actions = self.nodes[me].follow.again();
                self.nodes[me].work.extend(actions);
            }
        }
    }
}

fn run(seed: u64, steps: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.settle();
    let [zero, one] = &world.nodes;
    for node in &world.nodes {
        assert_eq!(node.follow.stand(), Stand::Together, "seed {seed}");
        assert!(node.wish.is_none(), "seed {seed}: somebody waits");
        assert_eq!(node.follow.line(), &node.disk.line, "seed {seed}");
        // Whoever is what he says he is believed.
        assert_eq!(node.follow.counts().refused["forged"], 0, "seed {seed}");
    }
    assert_eq!(zero.disk.line.ids(), one.disk.line.ids(), "seed {seed}");
    assert_eq!(zero.disk.config(), one.disk.config(), "seed {seed}");
    let words: Vec<&str> = zero
        .disk
        .line
        .versions()
        .iter()
        .map(|kept| kept.version.words.as_str())
        .collect();
    for (me, serial) in &world.done {
        let serial = serial.to_string();
        if words.contains(&serial.as_str()) {
            continue;
        }
        let disk = &world.nodes[*me].disk;
        assert!(
            disk.history.contains(&serial),
            "seed {seed}: {serial} is lost"
        );
        assert!(
            world.nodes.iter().any(|node| node.disk.lost > 0),
            "seed {seed}: {serial} was given up, and nobody was told"
        );
    }
    world
}

#[test]
fn whatever_happens_both_have_the_same_in_the_end() {
    let (mut changes, mut forks, mut both) = (0, 0, 0);
    for seed in 0..1500 {
        let world = run(seed, 100 + seed % 400);
        changes += world.done.len();
        forks += usize::from(world.nodes.iter().any(|node| node.disk.lost > 0));
        both += usize::from(world.nodes.iter().any(|node| node.disk.won > 0));
    }
    // It was worth looking.
    assert!(changes > 10_000, "{changes} changes");
    assert!(
        forks > 100 && both > 50,
        "{forks} forks, {both} told to the winner"
    );
}

#[test]
fn while_the_link_stays_nothing_is_ever_given_up() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        world.connect();
        let calm = |world: &mut World| while world.deliver(0) | world.deliver(1) {};
        calm(&mut world);
        assert_eq!(world.nodes[1].disk.config(), world.nodes[0].disk.config());
        for _ in 0..400 {
            let me = world.random.below(2) as usize;
            match world.random.below(10) {
                0..7 => drop(world.deliver(me)),
                7..9 => {
                    if world.nodes[me].wish.is_none() {
                        world.serial += 1;
                        let serial = world.serial;
                        world.nodes[me].wish = Some(Wish { serial });
                    }
                    world.nodes[me].begin();
                }
                // One of them has no patience; that both have none does not happen, see `patience`.
                _ => {
                    let me = (seed % 2) as usize;
                    if world.nodes[me].follow.offered().is_some() {
                        world.patience(me);
                    }
                }
            }
        }
        world.settle();
        let [zero, one] = &world.nodes;
        assert_eq!(zero.disk.line.ids(), one.disk.line.ids(), "seed {seed}");
        assert_eq!(zero.disk.config(), one.disk.config(), "seed {seed}");
        let lost: Vec<&(usize, u64)> = world
            .done
            .iter()
            .filter(|(_, serial)| {
                let words = serial.to_string();
                !zero
                    .disk
                    .line
                    .versions()
                    .iter()
                    .any(|kept| kept.version.words == words)
            })
            .collect();
        assert_eq!(lost, Vec::<&(usize, u64)>::new(), "seed {seed}");
    }
}
