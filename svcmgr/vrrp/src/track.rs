//! What instances depend on: what was found, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::time::Duration;

use libilb::model::key;
use libilb::vrrp::{OWNER, Probe, VrrpInstance};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::interfaces::Interfaces;

/// Time from one run of a script, or look into a file, to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a script or a look may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A number and a line's end, and not a whole disk.
const LONGEST: u64 = 64;

/// What a script or a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// All is well.
    Well,
    /// It is not.
    Failed,
    /// What is multiplied with the weight.
    Number(i64),
}

/// What is known of everything that is tracked.
#[derive(Debug, Default)]
pub struct World {
    /// The interfaces.
    pub interfaces: Interfaces,
    /// Whether the fast path forwards.
    pub fastpath: bool,
    /// Whether it is there and does not answer.
    pub hangs: bool,
    /// The rules that are tracked, by key of their names: why one is not well.
    pub rules: BTreeMap<String, Option<String>>,
    /// What scripts and files said last.
    pub findings: BTreeMap<Probe, Finding>,
}

/// What follows for an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It takes part with this priority.
    Fit(u8),
    /// It cannot take part, and why.
    Unfit(String),
}

impl World {
    /// What follows for an instance by itself.
    pub fn judge(&self, instance: &VrrpInstance) -> Verdict {
        match self.interfaces.get(&instance.interface) {
            None => {
                return Verdict::Unfit(format!("there is no interface {}", instance.interface));
            }
            Some(interface) if !interface.running => {
                return Verdict::Unfit(format!("interface {} is down", instance.interface));
            }
            Some(_) => {}
        }
        let mut sum = 0i64;
        for track in &instance.track {
            let weight = i64::from(track.weight);
            let well = match self.find(&track.probe) {
                Finding::Number(number) => {
                    // Beyond what a priority can be it does not matter.
                    let add = number.saturating_mul(weight).clamp(-512, 512);
                    if add <= -254 {
                        return Verdict::Unfit(format!("{} says {number}", track.probe));
                    }
                    sum += add;
                    continue;
                }
                Finding::Well => true,
                Finding::Failed => false,
            };
            match (well, weight) {
                (false, 0) => return Verdict::Unfit(self.failure(&track.probe)),
                (true, weight) if weight > 0 => sum += weight,
                (false, weight) if weight < 0 => sum += weight,
                _ => {}
            }
        }
        let priority = match instance.priority {
            OWNER => OWNER,
            priority => (i64::from(priority) + sum).clamp(1, 254) as u8,
        };
        Verdict::Fit(priority)
    }

    fn find(&self, probe: &Probe) -> Finding {
        let well = match probe {
            Probe::Fastpath => self.fastpath && !self.hangs,
            Probe::Rule(name) => matches!(self.rules.get(&key(name)), Some(None)),
            Probe::Interface(name) => self.interfaces.get(name).is_some_and(|it| it.running),
            // Nothing is known yet.
            Probe::Script(_) => return self.found(probe, Finding::Failed),
            Probe::File(_) => return self.found(probe, Finding::Number(0)),
        };
        if well { Finding::Well } else { Finding::Failed }
    }

    fn found(&self, probe: &Probe, unknown: Finding) -> Finding {
        self.findings.get(probe).copied().unwrap_or(unknown)
    }

    /// What is wrong with something that is not well.
    fn failure(&self, probe: &Probe) -> String {
        match probe {
            Probe::Fastpath if self.hangs => "the fast path does not answer".to_owned(),
            Probe::Fastpath => "the fast path does not forward".to_owned(),
            Probe::Rule(name) => match self.rules.get(&key(name)) {
                Some(Some(why)) => why.clone(),
                Some(None) | None => format!("there is no rule {name}"),
            },
            Probe::Interface(name) => format!("interface {name} is down"),
            Probe::Script(path) => format!("script {path} fails"),
            Probe::File(path) => format!("file {path} says so"),
        }
    }
}

/// Runs scripts and looks into files, each in a task of its own.
#[derive(Debug)]
pub struct Probes {
    tasks: BTreeMap<Probe, AbortHandle>,
    sender: mpsc::Sender<(Probe, Finding)>,
}

impl Probes {
    /// None yet, and where findings will come from.
    pub fn new() -> (Probes, mpsc::Receiver<(Probe, Finding)>) {
        let (sender, findings) = mpsc::channel(64);
        let tasks = BTreeMap::new();
        (Probes { tasks, sender }, findings)
    }

    /// Looks after what these instances track, and nothing else. Needs a running tokio runtime.
    pub fn follow<'a>(
        &mut self,
        instances: impl Iterator<Item = &'a VrrpInstance>,
        findings: &mut BTreeMap<Probe, Finding>,
    ) {
        let wanted: BTreeSet<Probe> = instances
            .flat_map(|instance| &instance.track)
            .map(|track| track.probe.clone())
            .filter(|probe| matches!(probe, Probe::Script(_) | Probe::File(_)))
            .collect();
        self.tasks.retain(|probe, task| {
            let keep = wanted.contains(probe);
            if !keep {
                task.abort();
            }
            keep
        });
        findings.retain(|probe, _| wanted.contains(probe));
        for probe in wanted {
            if !self.tasks.contains_key(&probe) {
                let task = tokio::spawn(look(probe.clone(), self.sender.clone()));
                self.tasks.insert(probe, task.abort_handle());
            }
        }
    }
}

async fn look(probe: Probe, sender: mpsc::Sender<(Probe, Finding)>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        ticks.tick().await;
        let finding = match &probe {
            Probe::Script(path) => run(path).await,
            Probe::File(path) => read(path).await,
            Probe::Fastpath | Probe::Rule(_) | Probe::Interface(_) => return,
        };
        if last != Some(finding) {
            last = Some(finding);
            if sender.send((probe.clone(), finding)).await.is_err() {
                return;
            }
        }
    }
}

async fn run(path: &str) -> Finding {
    match timeout(PATIENCE, ilb_programs::run(path, &[], &[])).await {
        Ok(Ok(ended)) if ended.status.success() => Finding::Well,
        Ok(Ok(_)) | Err(_) => Finding::Failed,
        Ok(Err(error)) => {
            tracing::debug!("cannot run {path}: {error}");
            Finding::Failed
        }
    }
}

/// A file that is not there, or says nothing, says 0.
async fn read(path: &str) -> Finding {
    let path = path.to_owned();
    let number = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(LONGEST).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    });
    let number = timeout(PATIENCE, number).await.ok().and_then(Result::ok);
    Finding::Number(number.flatten().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use libilb::vrrp::VrrpSettings;

    use super::*;
    use crate::interfaces::Interface;

    fn world(fastpath: bool, up: &[&str], findings: &[(&str, Finding)]) -> World {
        let interface = |name: &&str| {
            let interface = Interface {
                index: 1,
                running: true,
                ..Interface::default()
            };
            ((*name).to_owned(), interface)
        };
        let finding = |(probe, finding): &(&str, Finding)| {
            let track = libilb::vrrp::Track::parse(probe).unwrap();
            (track.probe, *finding)
        };
        World {
            interfaces: up.iter().map(interface).collect(),
            fastpath,
            hangs: false,
            rules: [
                ("www".to_owned(), None),
                ("dns".to_owned(), Some("0 of 2 servers".to_owned())),
            ]
            .into(),
            findings: findings.iter().map(finding).collect(),
        }
    }

    #[test]
    fn what_is_tracked_decides_priority_and_fitness() {
        use Finding::{Failed, Number, Well};
        let down = "the fast path does not forward";
        let fit = Ok::<u8, &str>;
        for (track, priority, world, expected) in [
            ("fastpath", 100, world(true, &["eth0"], &[]), fit(100)),
            ("fastpath", 100, world(false, &["eth0"], &[]), Err(down)),
            ("fastpath", 255, world(false, &["eth0"], &[]), Err(down)),
            ("none", 100, world(false, &["eth0"], &[]), fit(100)),
            (
                "none",
                100,
                world(true, &[], &[]),
                Err("there is no interface eth0"),
            ),
            ("fastpath:-30", 100, world(false, &["eth0"], &[]), fit(70)),
            ("fastpath:30", 100, world(true, &["eth0"], &[]), fit(130)),
            ("fastpath:30", 100, world(false, &["eth0"], &[]), fit(100)),
            ("fastpath:-253", 100, world(false, &["eth0"], &[]), fit(1)),
            ("fastpath:253", 100, world(true, &["eth0"], &[]), fit(254)),
            ("fastpath:-30", 255, world(false, &["eth0"], &[]), fit(255)),
            ("rule:WWW", 100, world(true, &["eth0"], &[]), fit(100)),
            ("rule:www:20", 100, world(true, &["eth0"], &[]), fit(120)),
            ("rule:dns:-60", 100, world(true, &["eth0"], &[]), fit(40)),
            (
                "rule:dns",
                100,
                world(true, &["eth0"], &[]),
                Err("0 of 2 servers"),
            ),
            (
                "rule:nfs",
                100,
                world(true, &["eth0"], &[]),
                Err("there is no rule nfs"),
            ),
            (
                "fastpath",
                100,
                World {
                    hangs: true,
                    ..world(true, &["eth0"], &[])
                },
                Err("the fast path does not answer"),
            ),
            (
                "interface:eth1",
                100,
                world(true, &["eth0"], &[]),
                Err("interface eth1 is down"),
            ),
            (
                "interface:eth1:-5",
                100,
                world(true, &["eth0"], &[]),
                fit(95),
            ),
            (
                "interface:eth1:-5",
                100,
                world(true, &["eth0", "eth1"], &[]),
                fit(100),
            ),
            (
                "script:/x",
                100,
                world(true, &["eth0"], &[]),
                Err("script /x fails"),
            ),
            (
                "script:/x",
                100,
                world(true, &["eth0"], &[("script:/x", Failed)]),
                Err("script /x fails"),
            ),
            (
                "script:/x",
                100,
                world(true, &["eth0"], &[("script:/x", Well)]),
                fit(100),
            ),
            (
                "script:/x:9",
                100,
                world(true, &["eth0"], &[("script:/x", Well)]),
                fit(109),
            ),
            ("file:/x", 100, world(true, &["eth0"], &[]), fit(100)),
            (
                "file:/x",
                100,
                world(true, &["eth0"], &[("file:/x", Number(-7))]),
                fit(93),
            ),
            (
                "file:/x:-2",
                100,
                world(true, &["eth0"], &[("file:/x", Number(7))]),
                fit(86),
            ),
            (
                "file:/x:-1",
                100,
                world(true, &["eth0"], &[("file:/x", Number(i64::MAX))]),
                Err("file:/x says 9223372036854775807"),
            ),
        ] {
            let mut settings = VrrpSettings::default();
            let text = format!(
                "interface=eth0,vrid=1,addresses=192.0.2.80,priority={priority},track={track}"
            );
            settings.parse(&text).unwrap();
            let verdict = world.judge(&settings.check("x").unwrap());
            let expected = match expected {
                Ok(priority) => Verdict::Fit(priority),
                Err(why) => Verdict::Unfit(why.to_owned()),
            };
            assert_eq!(verdict, expected, "given {track}, {world:?}");
        }
    }
}
