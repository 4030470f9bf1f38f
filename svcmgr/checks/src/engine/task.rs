//! The task that owns all targets.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libilb::health::{
    Code, Finding, HealthReport, Layer, ServerHealth, TRANSITIONS, Transition, Weight,
};
use libilb::healthcheck::{HealthCheck, Kind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::feed::Feed;
use super::load::Loads;
use super::{Changed, Options, Statistics};
use crate::fsm::{Change, Demands, Machine, Next};
use crate::outcome::{Outcome, Verdict};
use crate::probe::{Plan, Tools, probe};
use crate::random::Random;
use crate::schedule::{Micros, Schedule};
use crate::target::{Id, Target};

/// A test that begins so much after it was due is late.
const LATE: Micros = 200_000;
/// While tests are under way the task looks this often whether time goes by as it should.
const WATCH: Micros = 100_000;
/// Less than this is no stall.
const STALL: Micros = 20_000;
/// After a test that showed nothing the next one comes within this.
const AFTER_NOTHING: Micros = 1_000_000;

/// What the handle asks for.
pub enum Command {
    Set(Vec<Target>),
    Update { changed: Vec<Target>, gone: Vec<Id> },
    Report(oneshot::Sender<HealthReport>),
    Statistics(oneshot::Sender<Statistics>),
}

/// A target with all that is known about it.
struct Entry {
    target: Target,
    plan: Arc<Plan>,
    machine: Machine,
    /// Tells results of tests that were overtaken by a change of the target.
    generation: u64,
    running: Option<Running>,
    /// When its last regular test was due.
    due: Micros,
    last: Option<u64>,
    result: Option<Finding>,
    transitions: VecDeque<Transition>,
    /// Its share by its load, in thousandths.
    share: Option<u16>,
}

impl Entry {
    fn weight(&self) -> Option<Weight> {
        self.machine.weight().or(self.share.map(Weight::Share))
    }
}

struct Running {
    abort: AbortHandle,
    /// What [`Task::stalled`] was when it began.
    stalled: Micros,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// A test that has ended.
struct Done {
    id: Id,
    generation: u64,
    outcome: Outcome,
}

pub struct Task {
    commands: mpsc::UnboundedReceiver<Command>,
    feed: Arc<Feed>,
    done: mpsc::UnboundedReceiver<Done>,
    report: mpsc::UnboundedSender<Done>,
    start: Instant,
    entries: BTreeMap<Id, Entry>,
    schedule: Schedule<Id>,
    random: Random,
    tools: Tools,
    sockets: Arc<Semaphore>,
    scripts: Arc<Semaphore>,
    /// Scripts that are due and wait for their turn, with when they were due.
    waiting: VecDeque<(Id, Micros)>,
    /// Time in which this task should have run and could not, in all.
    stalled: Micros,
    generations: u64,
    /// Each test has a copy.
    tests: Arc<()>,
    loads: Loads,
    statistics: Statistics,
}

impl Task {
    pub fn new(
        options: Options,
        commands: mpsc::UnboundedReceiver<Command>,
        feed: Arc<Feed>,
    ) -> Task {
        let (report, done) = mpsc::unbounded_channel();
        Task {
            commands,
            feed,
            done,
            report,
            start: Instant::now(),
            entries: BTreeMap::new(),
            schedule: Schedule::new(options.seed),
            random: Random::new(options.seed ^ 1),
            tools: Tools::default(),
            sockets: Arc::new(Semaphore::new(options.max_sockets.max(1))),
            scripts: Arc::new(Semaphore::new(options.max_scripts.max(1))),
            waiting: VecDeque::new(),
            stalled: 0,
            generations: 0,
            tests: Arc::default(),
            loads: Loads::new(options.seed ^ 2),
            statistics: Statistics::default(),
        }
    }

    /// Works until the handle is gone.
    pub async fn run(mut self) {
        loop {
            let full = self.begin_what_is_due();
            // What waits for a free socket is looked at when a test ends, or soon.
            let due = self.schedule.next().filter(|_| !full);
            let watch = (self.under_way() > 0).then(|| self.now() + WATCH);
            let wake = [due, watch, self.loads.next()].into_iter().flatten().min();
            let deadline = self.start + Duration::from_micros(wake.unwrap_or(0));
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(done) = self.done.recv() => self.take(done),
                Some(read) = self.loads.done() => {
                    let shares = self.loads.take(read, self.now());
                    self.share_out(shares);
                }
                () = sleep_until(deadline), if wake.is_some() => {}
            }
            let overslept = wake.map_or(0, |wake| self.now().saturating_sub(wake));
            if overslept > STALL {
                self.stalled += overslept;
            }
            // What else has ended meanwhile.
            while let Ok(done) = self.done.try_recv() {
                self.take(done);
            }
        }
    }

    /// Tests that have begun and not ended.
    fn under_way(&self) -> usize {
        Arc::strong_count(&self.tests) - 1
    }

    fn now(&self) -> Micros {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Set(targets) => self.set(targets),
            Command::Update { changed, gone } => self.update(changed, &gone),
            // Who asked may have gone.
            Command::Report(sender) => {
                let _ = sender.send(self.health());
            }
            Command::Statistics(sender) => {
                let statistics = Statistics {
                    targets: self.entries.len() as u64,
                    running: self.under_way() as u64,
                    ..self.statistics
                };
                let _ = sender.send(statistics);
            }
        }
    }

    fn set(&mut self, targets: Vec<Target>) {
        let ids: HashSet<Id> = targets.iter().map(|target| target.id).collect();
        let gone: Vec<Id> = self
            .entries
            .keys()
            .copied()
            .filter(|id| !ids.contains(id))
            .collect();
        self.update(targets, &gone);
    }

    fn update(&mut self, changed: Vec<Target>, gone: &[Id]) {
        for &id in gone {
            self.schedule.remove(id);
            self.entries.remove(&id);
            self.feed.forget(id);
            let shares = self.loads.forget(id, self.now());
            self.share_out(shares);
        }
        self.waiting.retain(|(id, _)| self.entries.contains_key(id));
        // A check that many targets share is made ready once.
        let mut plans: HashMap<usize, Arc<Plan>> = HashMap::new();
        for target in changed {
            let known = self.entries.get(&target.id).map(|entry| &entry.plan);
            let plan = match known.filter(|plan| plan.check == target.check) {
                Some(plan) => plan.clone(),
                None => plans
                    .entry(Arc::as_ptr(&target.check).addr())
                    .or_insert_with(|| Arc::new(Plan::new(target.check.clone())))
                    .clone(),
            };
            match self.entries.contains_key(&target.id) {
                true => self.change(target, plan),
                false => self.add(target, plan),
            }
        }
    }

    fn add(&mut self, target: Target, plan: Arc<Plan>) {
        let id = target.id;
        let mut machine = Machine::new(demands(&target.check), target.remembered);
        if !target.enabled {
            machine.enable(false);
        }
        let entry = Entry {
            target,
            plan,
            machine,
            generation: 0,
            running: None,
            due: 0,
            last: None,
            result: None,
            transitions: VecDeque::new(),
            share: None,
        };
        self.feed.publish(changed(&entry, None));
        self.entries.insert(id, entry);
        self.follow_load(id);
        self.plan_first(id);
    }

    fn change(&mut self, target: Target, plan: Arc<Plan>) {
        let id = target.id;
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        // What is remembered counts at the beginning only.
        let target = Target {
            remembered: entry.target.remembered,
            ..target
        };
        if target == entry.target {
            return;
        }
        let before = (
            entry.machine.state(),
            entry.machine.up(),
            entry.machine.weight(),
        );
        let old = std::mem::replace(&mut entry.target, target);
        let target = &entry.target;
        let names = Target {
            rule: target.rule.clone(),
            server: target.server.clone(),
            ..old.clone()
        };
        if names == *target {
            return;
        }
        entry.plan = plan;
        // A test that is under way would answer the old question.
        self.generations += 1;
        entry.generation = self.generations;
        entry.running = None;
        let moved = (target.address, target.via) != (old.address, old.via);
        if moved {
            let remembered = Some(entry.machine.state());
            entry.machine = Machine::new(demands(&target.check), remembered);
            entry.result = None;
        } else if target.check != old.check {
            entry.machine.demand(demands(&target.check));
        }
        let (enabled, kind) = (target.enabled, target.check.test.kind());
        let by_hand = entry.machine.enable(enabled);
        let transition = by_hand.map(|change| {
            let finding = Finding {
                kind,
                layer: Layer::Local,
                code: Code::Administrator,
                number: None,
                duration: 0,
                words: if enabled { "enabled" } else { "disabled" }.to_string(),
            };
            remember(entry, change, finding)
        });
        let after = (
            entry.machine.state(),
            entry.machine.up(),
            entry.machine.weight(),
        );
        if before != after {
            self.feed.publish(changed(entry, transition));
        }
        self.follow_load(id);
        self.plan_first(id);
    }

    fn plan_first(&mut self, id: Id) {
        let now = self.now();
        match self.entries.get(&id).filter(|entry| entry.target.enabled) {
            Some(entry) => {
                self.schedule.begin(id, &entry.target.check.timing, now);
            }
            None => self.schedule.remove(id),
        }
    }

    /// Begins every test that is due and may begin; true if some could not for want of sockets.
    fn begin_what_is_due(&mut self) -> bool {
        while let Some(&(id, due)) = self.waiting.front() {
            let Ok(permit) = self.scripts.clone().try_acquire_owned() else {
                break;
            };
            self.waiting.pop_front();
            self.begin(id, due, Some(permit));
        }
        let now = self.now();
        while let Some((id, due)) = self.schedule.pop(now) {
            let Some(entry) = self.entries.get(&id) else {
                continue;
            };
            let permit = match entry.target.check.test.kind() {
                Kind::Ping | Kind::File => None,
                Kind::Script => match self.scripts.clone().try_acquire_owned() {
                    Ok(permit) => Some(permit),
                    Err(_) => {
                        self.waiting.push_back((id, due));
                        continue;
                    }
                },
                Kind::Tcp | Kind::Udp | Kind::Http | Kind::Https | Kind::Dns | Kind::Smtp => {
                    match self.sockets.clone().try_acquire_owned() {
                        Ok(permit) => Some(permit),
                        Err(_) => {
                            self.schedule.put(id, due);
                            return true;
                        }
                    }
                }
            };
            self.begin(id, due, permit);
        }
        let now = self.now();
        self.loads.begin_what_is_due(&self.sockets, now);
        false
    }

    fn begin(&mut self, id: Id, due: Micros, permit: Option<OwnedSemaphorePermit>) {
        let now = self.now();
        let Some(entry) = self
            .entries
            .get_mut(&id)
            .filter(|entry| entry.target.enabled)
        else {
            return;
        };
        self.statistics.tests += 1;
        self.statistics.late += u64::from(now > due + LATE);
        if entry.machine.repeated() == 0 {
            entry.due = due;
        }
        let place = entry.target.place(&mut self.random);
        let (target, plan, tools) = (entry.target.clone(), entry.plan.clone(), self.tools.clone());
        let (report, generation) = (self.report.clone(), entry.generation);
        let counted = self.tests.clone();
        let test = tokio::spawn(async move {
            let _counted = counted;
            let outcome = probe(&target, &plan, place, &tools).await;
            drop(permit);
            // The task may have ended.
            let _ = report.send(Done {
                id,
                generation,
                outcome,
            });
        });
        entry.running = Some(Running {
            abort: test.abort_handle(),
            stalled: self.stalled,
        });
    }

    fn take(&mut self, done: Done) {
        let now = self.now();
        let Some(entry) = self.entries.get_mut(&done.id) else {
            return;
        };
        if entry.generation != done.generation {
            return;
        }
        let Some(running) = entry.running.take() else {
            return;
        };
        let mut outcome = done.outcome;
        let timing = entry.target.check.timing;
        let stalled = self.stalled.saturating_sub(running.stalled);
        let patience = u64::from(timing.timeout.millis()) * 1000 / 4;
        if outcome.finding.code == Code::Timeout && stalled > patience {
            outcome.verdict = Verdict::Unknown;
            outcome.finding.layer = Layer::Local;
            outcome.finding.code = Code::NotAsked;
            outcome.finding.words = "this machine was too busy to listen in time".to_string();
        }
        let rtt = outcome.rtt;
        let before = (entry.machine.up(), entry.machine.weight());
        let change = entry.machine.handle(outcome.evidence());
        entry.last = Some(wall());
        entry.result = Some(outcome.finding.clone());
        let transition = change.map(|change| remember(entry, change, outcome.finding));
        if transition.is_some() || before != (entry.machine.up(), entry.machine.weight()) {
            self.feed.publish(changed(entry, transition));
        }
        let id = done.id;
        if before.0 != entry.machine.up() {
            self.follow_load(id);
        }
        if let Some(rtt) = rtt {
            let shares = self.loads.took(id, rtt, now);
            self.share_out(shares);
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if outcome.verdict == Verdict::Unknown {
            self.statistics.unknown += 1;
            let soon = u64::from(timing.interval.millis()) * 1000;
            self.schedule.put(id, now + soon.min(AFTER_NOTHING));
            return;
        }
        match entry.machine.plan() {
            Next::Retry => self.schedule.retry(id, &timing, now),
            Next::Interval => self.schedule.again(id, &timing, entry.due, now),
            Next::Never => now,
        };
    }

    /// A target is another one now, or up, or down: so much for its load.
    fn follow_load(&mut self, id: Id) {
        let now = self.now();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let up = entry.machine.up();
        let shares = self.loads.follow(&entry.target, up, now);
        if self.loads.report(id).is_none() && entry.share.take().is_some() {
            self.feed.publish(changed(entry, None));
        }
        self.share_out(shares);
    }

    /// Tells of shares that are others now.
    fn share_out(&mut self, shares: Vec<(Id, u16)>) {
        for (id, share) in shares {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.share = Some(share);
                self.feed.publish(changed(entry, None));
            }
        }
    }

    fn health(&self) -> HealthReport {
        let (now, wall) = (self.now(), wall());
        let health = |entry: &Entry| {
            let (target, machine) = (&entry.target, &entry.machine);
            let due = self.schedule.due(target.id);
            ServerHealth {
                rule: target.rule.clone(),
                server: target.server.clone(),
                check: target.check.name.clone(),
                kind: target.check.test.kind(),
                address: target.check.address.unwrap_or(target.address),
                port: target.fixed_port(),
                state: machine.state(),
                up: machine.up(),
                fails: machine.fails(),
                successes: machine.successes(),
                last: entry.last,
                next: due.map(|due| wall + due.saturating_sub(now) / 1000),
                rtt: machine.rtt(),
                weight: entry.weight(),
                load: self.loads.report(target.id),
                result: entry.result.clone(),
                transitions: entry.transitions.iter().cloned().collect(),
            }
        };
        HealthReport {
            servers: self.entries.values().map(health).collect(),
        }
    }
}

fn demands(check: &HealthCheck) -> Demands {
    Demands {
        count: check.timing.count,
        rise: check.timing.rise,
        retries: check.timing.quick_retries(),
        alpha: check.alpha,
    }
}

fn remember(entry: &mut Entry, change: Change, finding: Finding) -> Transition {
    let transition = Transition {
        time: wall(),
        from: change.from,
        to: change.to,
        check: entry.target.check.name.clone(),
        count: change.count,
        finding,
    };
    if entry.transitions.len() >= TRANSITIONS {
        entry.transitions.pop_front();
    }
    entry.transitions.push_back(transition.clone());
    transition
}

fn changed(entry: &Entry, transition: Option<Transition>) -> Changed {
    Changed {
        id: entry.target.id,
        state: entry.machine.state(),
        up: entry.machine.up(),
        weight: entry.weight(),
        transitions: transition.into_iter().collect(),
    }
}

/// Milliseconds since 1970.
fn wall() -> u64 {
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(clock.as_millis()).unwrap_or(u64::MAX)
}
