//! From what is heard of a source to what becomes of its group. Pure: time comes in, in milliseconds since 1970.
//!
//! No server goes without an answer that does not have it, [`Source::hold`] after the first such answer, and none because
//! nobody answers: silence, errors and answers without a single usable address change nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use libilb::address::Family;
use libilb::model::{PortRange, Server, ServerGroup};
use libilb::source::{Approve, Candidate, Found, Refused, Source, SourceDescription};

/// Refused addresses that are kept to be shown.
const MOST_REFUSED: usize = 16;
/// Longest pause after failures, unless the source wants a shorter or longer one anyway.
const MOST_PATIENCE: Duration = Duration::from_secs(60);
/// Soonest question after another.
const SOONEST: Duration = Duration::from_secs(1);

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Everything that there is, and how long that holds, if it is said.
    All(Vec<Found>, Option<Duration>),
    /// Something that there is; there may be more.
    Some(Vec<Found>),
    /// Nothing, and why.
    Failed(String),
}

/// Address and ports: what makes a server the same.
pub type Place = (IpAddr, Option<PortRange>);

/// What is known of one source beyond the servers of its group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Follower {
    /// Since when servers are missing from all answers.
    absent: BTreeMap<Place, u64>,
    candidates: BTreeMap<Place, Candidate>,
    refused: Vec<Refused>,
    failed: u32,
    answers: u64,
    failures: u64,
    last_answer: u64,
    last_change: u64,
    problem: String,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// To be taken into the group.
    pub add: Vec<Found>,
    /// To be taken out of it, by their numbers.
    pub remove: Vec<u32>,
    /// Servers that have begun to wait for approval.
    pub candidates: Vec<Found>,
    /// When to ask again; `None` if that is going on.
    pub again: Option<Duration>,
}

impl Follower {
    /// What follows from what was heard at `now` for a group whose rules want addresses of `family`.
    pub fn hear(
        &mut self,
        source: &Source,
        group: &ServerGroup,
        family: Option<Family>,
        heard: Heard,
        now: u64,
    ) -> Step {
        let step = match heard {
            Heard::Failed(why) => self.fail(source, why),
            Heard::Some(found) => {
                let usable = self.usable(source, family, found);
                let mut step = Step::default();
                self.come(source, group, usable, &mut step, now);
                step
            }
            Heard::All(found, ttl) => {
                self.refused.clear();
                let several = found.len();
                let usable = self.usable(source, family, found);
                match usable.is_empty() {
                    true => {
                        let why = match self.refused.first() {
                            None => "nothing was found".to_owned(),
                            Some(first) => format!(
                                "none of {several} addresses can be used: {} {}",
                                first.address, first.why
                            ),
                        };
                        self.fail(source, why)
                    }
                    false => self.learn(source, group, usable, ttl, now),
                }
            }
        };
        if !step.add.is_empty() || !step.remove.is_empty() {
            self.last_change = now;
        }
        step
    }

    fn fail(&mut self, source: &Source, why: String) -> Step {
        self.failures += 1;
        self.failed = self.failed.saturating_add(1);
        self.problem = why;
        let least = source.interval().duration();
        let doubled = least.saturating_mul(1 << (self.failed - 1).min(16));
        let most = source.max_interval().duration().min(MOST_PATIENCE);
        Step {
            again: Some(doubled.min(most.max(least))),
            ..Step::default()
        }
    }

    /// A whole answer.
    fn learn(
        &mut self,
        source: &Source,
        group: &ServerGroup,
        usable: Vec<Found>,
        ttl: Option<Duration>,
        now: u64,
    ) -> Step {
        self.answers += 1;
        self.failed = 0;
        self.problem.clear();
        self.last_answer = now;
        let mut step = Step::default();
        let there: BTreeSet<Place> = usable.iter().map(place).collect();
        self.candidates.retain(|place, _| there.contains(place));
        let hold = u64::from(source.hold().millis());
        let mine = group.servers.iter().filter(|server| server.found);
        let missing: Vec<&Server> = mine.filter(|s| !there.contains(&place_of(s))).collect();
        let gone: BTreeSet<Place> = missing.iter().copied().map(place_of).collect();
        self.absent.retain(|place, _| gone.contains(place));
        let mut due = u64::MAX;
        for server in missing {
            let since = *self.absent.entry(place_of(server)).or_insert(now);
            let end = since.saturating_add(hold);
            match end <= now {
                true => {
                    step.remove.push(server.number);
                    self.absent.remove(&place_of(server));
                }
                false => due = due.min(end - now),
            }
        }
        self.come(source, group, usable, &mut step, now);
        let pause = match ttl {
            Some(ttl) => ttl.clamp(
                source.interval().duration(),
                source.max_interval().duration(),
            ),
            None => source.interval().duration(),
        };
        // Who is missing goes on time.
        step.again = Some(pause.min(Duration::from_millis(due).max(SOONEST)));
        step
    }

    /// Takes in those that are new, as far as there is room: those that are missing make room first.
    fn come(
        &mut self,
        source: &Source,
        group: &ServerGroup,
        usable: Vec<Found>,
        step: &mut Step,
        now: u64,
    ) {
        for found in &usable {
            self.absent.remove(&place(found));
        }
        let known: BTreeSet<Place> = group.servers.iter().map(place_of).collect();
        let new: Vec<Found> = usable
            .into_iter()
            .filter(|found| !known.contains(&place(found)))
            .collect();
        let limit = usize::try_from(source.limit).unwrap_or(usize::MAX);
        let all = new.len();
        let taken = match source.approve {
            Approve::Ask => self.wait(new, limit, step, now),
            Approve::Auto => {
                let mine = || {
                    let mine = group.servers.iter().filter(|server| server.found);
                    mine.filter(|server| !step.remove.contains(&server.number))
                };
                let mut room = limit.saturating_sub(mine().count());
                let mut absent: Vec<(u64, u32)> = mine()
                    .filter_map(|s| Some((*self.absent.get(&place_of(s))?, s.number)))
                    .collect();
                absent.sort_unstable();
                let way: Vec<u32> = absent
                    .into_iter()
                    .map(|(_, number)| number)
                    .take(new.len().saturating_sub(room))
                    .collect();
                room += way.len();
                step.remove.extend(way);
                step.add.extend(new.into_iter().take(room));
                step.add.len()
            }
        };
        if taken < all {
            self.problem = format!(
                "{} more servers were found than limit={limit} lets in",
                all - taken
            );
        }
    }

    /// Notes those that are to be approved, and returns how many of them there was room for.
    fn wait(&mut self, new: Vec<Found>, limit: usize, step: &mut Step, now: u64) -> usize {
        let mut taken = 0;
        for found in new {
            if let Some(candidate) = self.candidates.get_mut(&place(&found)) {
                candidate.found = found;
            } else if self.candidates.len() < limit {
                step.candidates.push(found.clone());
                let candidate = Candidate { found, since: now };
                self.candidates.insert(place(&candidate.found), candidate);
            } else {
                continue;
            }
            taken += 1;
        }
        taken
    }

    /// Each once, in order, without those that may not be servers.
    fn usable(&mut self, source: &Source, family: Option<Family>, found: Vec<Found>) -> Vec<Found> {
        let mut seen = BTreeSet::new();
        let mut all: Vec<Found> = Vec::new();
        for mut one in found {
            one.ports = one.ports.or(source.port);
            if !seen.insert(place(&one)) {
                continue;
            }
            match source.permits(one.address, family) {
                Ok(()) => all.push(one),
                Err(why) => self.refuse(one.address, why),
            }
        }
        all.sort();
        all
    }

    /// Notes that an address is not taken.
    pub fn refuse(&mut self, address: IpAddr, why: String) {
        let known = self.refused.iter().any(|other| other.address == address);
        if !known && self.refused.len() < MOST_REFUSED {
            self.refused.push(Refused { address, why });
        }
    }

    /// Notes why what was to be done could not be done.
    pub fn prevented(&mut self, why: String) {
        self.problem = why;
    }

    /// Those that wait, in order.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.values()
    }

    /// Forgets those that wait no longer: they are in the group.
    pub fn settle(&mut self, group: &ServerGroup) {
        let known: BTreeSet<Place> = group.servers.iter().map(place_of).collect();
        self.candidates.retain(|place, _| !known.contains(place));
    }

    /// What is wrong; empty for nothing.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// For people and programs.
    pub fn describe(&self, source: &Source) -> SourceDescription {
        SourceDescription {
            source: source.clone(),
            answers: self.answers,
            failures: self.failures,
            last_answer: self.last_answer,
            last_change: self.last_change,
            problem: self.problem.clone(),
            candidates: self.candidates.values().cloned().collect(),
            refused: self.refused.clone(),
        }
    }
}

fn place(found: &Found) -> Place {
    (found.address, found.ports)
}

fn place_of(server: &Server) -> Place {
    (server.address, server.ports)
}
