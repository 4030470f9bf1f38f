//! Reads the load of servers whose checks ask for it, and keeps the shares that follow.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use libilb::health::LoadReport;
use libilb::healthcheck::{Load, LoadSource};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::load::snmp::{self, Past};
use crate::load::{Group, Reading, ask_agent};
use crate::random::Random;
use crate::schedule::{Micros, Schedule};
use crate::target::{Id, Target};

/// Most that a reading may take; a shorter interval is the bound if there is one.
const PATIENCE: Duration = Duration::from_secs(2);

/// A reading that has ended.
pub struct Read {
    id: Id,
    generation: u64,
    past: Past,
    result: Result<Option<Reading>, String>,
}

/// A server whose load is read.
struct Entry {
    load: Load,
    place: Option<SocketAddr>,
    generation: u64,
    /// None while a reading is under way.
    past: Option<Past>,
    due: Micros,
    error: Option<String>,
}

/// The servers of a rule.
struct Rule {
    group: Group,
    /// When shares were settled last.
    settled: Micros,
}

/// All servers whose load is read.
pub struct Loads {
    entries: BTreeMap<Id, Entry>,
    rules: HashMap<u32, Rule>,
    schedule: Schedule<Id>,
    random: Random,
    generations: u64,
    report: mpsc::UnboundedSender<Read>,
    done: mpsc::UnboundedReceiver<Read>,
}

impl Loads {
    pub fn new(seed: u64) -> Loads {
        let (report, done) = mpsc::unbounded_channel();
        Loads {
            entries: BTreeMap::new(),
            rules: HashMap::new(),
            schedule: Schedule::new(seed),
            random: Random::new(seed),
            generations: 0,
            report,
            done,
        }
    }

    /// A target is as it is now: read from now on, if its check asks for it and it is up, or no longer. Returns the shares
    /// that follow.
    pub fn follow(&mut self, target: &Target, up: bool, now: Micros) -> Vec<(Id, u16)> {
        let id = target.id;
        let Some(load) = target.check.load.as_ref().filter(|_| up && target.enabled) else {
            return self.forget(id, now);
        };
        let address = target.check.address.unwrap_or(target.address);
        let place = match &load.source {
            LoadSource::Response => None,
            LoadSource::Snmp { port, .. } | LoadSource::Agent { port } => {
                Some(SocketAddr::new(address, *port))
            }
        };
        let same = |entry: &&Entry| entry.load == *load && entry.place == place;
        if self.entries.get(&id).filter(same).is_some() {
            return Vec::new();
        }
        self.generations += 1;
        let due = now + self.random.up_to(interval(load));
        if place.is_some() {
            self.schedule.put(id, due);
        } else {
            self.schedule.remove(id);
        }
        let entry = Entry {
            load: load.clone(),
            place,
            generation: self.generations,
            past: Some(Past::None),
            due,
            error: None,
        };
        let known = self.entries.insert(id, entry).is_some();
        let rule = self.rules.entry(id.rule).or_insert_with(|| Rule {
            group: Group::new(load.least),
            settled: 0,
        });
        rule.group.bound(load.least);
        if known {
            // Readings of another kind cannot be compared.
            rule.group.leave(id.server);
        }
        rule.group.join(id.server);
        Vec::new()
    }

    /// Reads a target no longer. Returns the shares of the others that follow.
    pub fn forget(&mut self, id: Id, now: Micros) -> Vec<(Id, u16)> {
        if self.entries.remove(&id).is_none() {
            return Vec::new();
        }
        self.schedule.remove(id);
        let Some(rule) = self.rules.get_mut(&id.rule) else {
            return Vec::new();
        };
        rule.group.leave(id.server);
        if rule.group.is_empty() {
            self.rules.remove(&id.rule);
        }
        self.settle(id.rule, now)
    }

    /// When the next reading is due.
    pub fn next(&self) -> Option<Micros> {
        self.schedule.next()
    }

    /// Begins every reading that is due and for which there is a socket.
    pub fn begin_what_is_due(&mut self, sockets: &Arc<Semaphore>, now: Micros) {
        while let Some((id, due)) = self.schedule.pop(now) {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            let interval = interval(&entry.load);
            // Not in the past, or one that was late would be followed by many.
            entry.due = (due + interval).max(now);
            self.schedule.put(id, entry.due);
            let (Some(place), Ok(permit)) = (entry.place, sockets.clone().try_acquire_owned())
            else {
                continue;
            };
            // One that is still under way is not overtaken.
            let Some(mut past) = entry.past.take() else {
                continue;
            };
            let (source, generation) = (entry.load.source.clone(), entry.generation);
            let (report, random) = (self.report.clone(), self.random.any());
            let patience = PATIENCE.min(Duration::from_micros(interval));
            tokio::spawn(async move {
                let result = timeout(patience, read(place, &source, &mut past, random)).await;
                drop(permit);
                let result = result.unwrap_or_else(|_| {
                    past = Past::None;
                    Err(format!("no answer within {} ms", patience.as_millis()))
                });
                // The task may have ended.
                let _ = report.send(Read {
                    id,
                    generation,
                    past,
                    result,
                });
            });
        }
    }

    /// Waits for a reading to end. May be cancelled.
    pub async fn done(&mut self) -> Option<Read> {
        self.done.recv().await
    }

    /// Takes a reading. Returns the shares that follow.
    pub fn take(&mut self, read: Read, now: Micros) -> Vec<(Id, u16)> {
        let Read {
            id,
            generation,
            past,
            result,
        } = read;
        let Some(entry) = self
            .entries
            .get_mut(&id)
            .filter(|entry| entry.generation == generation)
        else {
            return Vec::new();
        };
        entry.past = Some(past);
        let reading = match result {
            Ok(Some(reading)) => Some(reading),
            // The first of two.
            Ok(None) => {
                entry.error = None;
                return Vec::new();
            }
            Err(error) => {
                entry.error = Some(error);
                self.enter(id, None);
                return self.settle_sometimes(id.rule, now);
            }
        };
        entry.error = None;
        self.enter(id, reading);
        self.settle_sometimes(id.rule, now)
    }

    /// Takes the time of a successful test, in microseconds. Returns the shares that follow.
    pub fn took(&mut self, id: Id, micros: u64, now: Micros) -> Vec<(Id, u16)> {
        let reads = |entry: &&Entry| entry.load.source == LoadSource::Response;
        if self.entries.get(&id).filter(reads).is_none() {
            return Vec::new();
        }
        self.enter(id, Some(Reading::Time(micros as f64)));
        self.settle_sometimes(id.rule, now)
    }

    /// What is known of the load of a target; none if it is not read.
    pub fn report(&self, id: Id) -> Option<LoadReport> {
        let entry = self.entries.get(&id)?;
        let group = &self.rules.get(&id.rule)?.group;
        Some(LoadReport {
            source: entry.load.source.to_string(),
            value: group.reading(id.server).map(|reading| match reading {
                Reading::Busy(busy) => format!("{:.0} %", busy * 100.0),
                Reading::Time(micros) => format!("{:.1} ms", micros / 1000.0),
                Reading::Share(share) => format!("asks for {:.0} %", share * 100.0),
            }),
            share: group.share(id.server),
            error: entry.error.clone(),
        })
    }

    fn enter(&mut self, id: Id, reading: Option<Reading>) {
        if let Some(rule) = self.rules.get_mut(&id.rule) {
            rule.group.take(id.server, reading);
        }
    }

    /// Settles the shares of a rule, whose cost grows with its servers, but not for each of many readings.
    fn settle_sometimes(&mut self, rule: u32, now: Micros) -> Vec<(Id, u16)> {
        let load = |(_, entry): (_, &Entry)| interval(&entry.load);
        let first = Id { rule, server: 0 };
        let often = self.entries.range(first..).next().map_or(0, load) / 8;
        match self
            .rules
            .get(&rule)
            .is_some_and(|rule| now >= rule.settled + often)
        {
            true => self.settle(rule, now),
            false => Vec::new(),
        }
    }

    fn settle(&mut self, number: u32, now: Micros) -> Vec<(Id, u16)> {
        let Some(rule) = self.rules.get_mut(&number) else {
            return Vec::new();
        };
        rule.settled = now;
        let shares = rule.group.settle().into_iter();
        let id = |server| Id {
            rule: number,
            server,
        };
        shares.map(|(server, share)| (id(server), share)).collect()
    }
}

fn interval(load: &Load) -> Micros {
    u64::from(load.interval.millis()) * 1000
}

async fn read(
    place: SocketAddr,
    source: &LoadSource,
    past: &mut Past,
    random: u64,
) -> Result<Option<Reading>, String> {
    match source {
        // The tests themselves are the readings.
        LoadSource::Response => Ok(None),
        LoadSource::Agent { .. } => ask_agent(place).await.map(Some),
        LoadSource::Snmp {
            figure, community, ..
        } => {
            let busy = snmp::ask(place, community, figure, past, random).await?;
            Ok(busy.map(Reading::Busy))
        }
    }
}
