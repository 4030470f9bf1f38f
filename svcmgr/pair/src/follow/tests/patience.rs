//! Two nodes whose link stalls, for less long than it takes to give it up, and users who change something on both. Time is virtual.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::*;
use super::simulation::Random;
use super::{line, version};

/// Milliseconds.
type Time = u64;

struct Node {
    follow: Follow,
    line: Line,
    patience: Time,
    /// What somebody wants, and until when he waits.
    wish: Option<(String, Time)>,
    /// Until when the other node is waited for.
    offered: Option<Time>,
    /// What is on its way, and when it comes.
    inbox: VecDeque<(Time, Vec<u8>)>,
}

struct World {
    random: Random,
    now: Time,
    nodes: [Node; 2],
    /// Until when nothing gets through, from each node.
    stalled: [Time; 2],
    made: usize,
    forks: usize,
}

impl World {
    fn new(seed: u64, patience: [Duration; 2]) -> World {
        let node = |node: u8| Node {
            follow: Follow::new(node, Speaks::default(), line("a"), false),
            line: line("a"),
            patience: patience[usize::from(node)].as_millis() as Time,
            wish: None,
            offered: None,
            inbox: VecDeque::new(),
        };
        let mut world = World {
            random: Random(seed),
            now: 0,
            nodes: [node(0), node(1)],
            stalled: [0; 2],
            made: 0,
            forks: 0,
        };
        for me in 0..2 {
            let actions = world.nodes[me].follow.up();
            world.act(me, actions);
        }
        world
    }

    fn act(&mut self, me: usize, actions: Vec<Action>) {
        let mut work = VecDeque::from(actions);
        while let Some(action) = work.pop_front() {
            let node = &mut self.nodes[me];
            let more = match action {
                Action::Send(message) => {
                    let sent = self.now.max(self.stalled[me]) + 1 + self.random.below(30);
                    let there = &mut self.nodes[1 - me].inbox;
                    // One after the other.
                    let last = there.back().map_or(0, |(time, _)| *time);
                    there.push_back((sent.max(last), message.encode()));
                    Vec::new()
                }
                Action::Take(deltas) => {
                    for delta in deltas {
                        node.line.push(delta.version, 1).unwrap();
                    }
                    node.follow.took(&node.line, false, Ok(()))
                }
                Action::Replace { whole, fork } => {
                    self.forks += usize::from(fork.is_some());
                    let kept = whole.line.into_iter();
                    node.line = Line::new(kept.map(|version| Kept { version, mark: 1 })).unwrap();
                    node.follow.took(&node.line, false, Ok(()))
                }
                Action::Collect(base) => {
                    let delta = |kept: &std::sync::Arc<Kept>| Delta {
                        version: kept.version.clone(),
                        records: Vec::new(),
                        numbers: Numbers::default(),
                    };
                    let deltas = node.line.after(base);
                    let deltas = deltas.map(|kept| kept.iter().map(delta).collect());
                    node.follow.collected(deltas)
                }
                Action::Gather => node.follow.gathered(Whole {
                    line: Vec::new(),
                    records: Vec::new(),
                    numbers: Numbers::default(),
                }),
                Action::Outcome(Outcome::Make(version)) => {
                    node.line.push(version, 1).unwrap();
                    self.made += 1;
                    (node.wish, node.offered) = (None, None);
                    node.follow.advanced(&node.line, false)
                }
                // Tried again with the next look.
                Action::Outcome(Outcome::Overtaken) => {
                    node.offered = None;
                    Vec::new()
                }
                Action::Outcome(Outcome::Forbidden(words)) => panic!("{words}"),
                Action::Won(_) | Action::Acknowledged => Vec::new(),
            };
            for action in more.into_iter().rev() {
                work.push_front(action);
            }
        }
    }

    fn look(&mut self, me: usize) {
        let (now, node) = (self.now, &mut self.nodes[me]);
        if node.inbox.front().is_some_and(|(time, _)| *time <= now) {
            let (_, frame) = node.inbox.pop_front().unwrap();
            let heard = Message::decode(&frame).unwrap();
            let actions = node.follow.heard(heard);
            return self.act(me, actions);
        }
        if let Some(until) = node.offered {
            if until <= now {
                let actions = node.follow.enough();
                self.act(me, actions);
            }
            return;
        }
        let Some((words, until)) = node.wish.clone() else {
            return;
        };
        if node.follow.turn() == Turn::Wait {
            if until > now {
                return;
            }
            if matches!(node.follow.stand(), Stand::Behind(_) | Stand::Forked(_)) {
                node.wish = None;
                return;
            }
            let actions = node.follow.enough();
            assert_eq!(actions, []);
        }
        let node = &mut self.nodes[me];
        let delta = Delta {
            version: version(node.line.newest(), me as u8, &words),
            records: Vec::new(),
            numbers: Numbers::default(),
        };
        let actions = node.follow.offer(delta);
        node.offered = node.follow.offered().map(|_| now + node.patience);
        self.act(me, actions);
    }

    fn step(&mut self) {
        self.now += 10;
        // Beats are heard in between: the link stays.
        let longest = SILENCE.as_millis() as Time - 500;
        if self.random.one_in(300) {
            let until = self.now + self.random.below(longest);
            match self.random.below(4) {
                0 => self.stalled[0] = until,
                1 => self.stalled[1] = until,
                _ => self.stalled = [until; 2],
            }
        }
        for me in 0..2 {
            if self.nodes[me].wish.is_none() && self.random.one_in(150) {
                let until = self.now + self.nodes[me].patience;
                self.nodes[me].wish = Some((format!("{me} at {}", self.now), until));
            }
            self.look(me);
            let unsettled = self.nodes[me].follow.stand() != Stand::Together;
            if unsettled && self.now.is_multiple_of(5000) {
                let actions = self.nodes[me].follow.again();
                self.act(me, actions);
            }
        }
    }
}

fn forks(seeds: u64, patience: [Duration; 2]) -> usize {
    let (mut made, mut forks) = (0, 0);
    for seed in 0..seeds {
        let mut world = World::new(seed, patience);
        for _ in 0..6000 {
            world.step();
        }
        (made, forks) = (made + world.made, forks + world.forks);
    }
    assert!(made > 10 * seeds as usize, "{made} changes are no test");
    forks
}

#[test]
fn a_link_that_stalls_and_stays_makes_no_conflicting_histories() {
    assert_eq!(forks(150, [patience(0), patience(1)]), 0);
}

#[test]
fn with_the_same_patience_there_would_be_some() {
    assert!(forks(100, [patience(0); 2]) > 0);
}
