//! What stands around the real servers of a virtual server: quorum, sorry server, what is run when servers come and go, and
//! whether those that fail keep their connections.

use std::collections::BTreeMap;

use super::super::report::Kind;
use super::super::service::{Backend, Method, Said, Service};
use super::tree::Statement;
use super::values::{method, number, port_of};
use super::{Reader, said};
use crate::model::RuleSettings;
use crate::rule::{NotifyCommand, NotifyEvent};

/// What is run, with its place.
type Script = (Said, String);

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Pool {
    quorum: Option<(Said, u32)>,
    hysteresis: Option<(Said, u32)>,
    quorum_up: Option<Script>,
    quorum_down: Option<Script>,
    sorry: Option<Backend>,
    sorry_method: Option<Method>,
    /// Of each real server, what is run when it comes and goes.
    scripts: Vec<(Said, [Option<Script>; 2])>,
    /// Where servers that fail are said to keep their connections, and how many real servers that is said of.
    inhibits: Vec<Said>,
    inhibited: usize,
}

/// What a rule gets of it.
#[derive(Debug, Default)]
pub(super) struct Terms {
    quorum: u32,
    hysteresis: u32,
    notify: BTreeMap<NotifyEvent, String>,
    keep: bool,
}

impl Terms {
    /// Gives it to a rule, whose weights are divided by `scale`.
    pub fn attach(&self, settings: &mut RuleSettings, scale: u32) {
        let quorum = self.quorum.div_ceil(scale).max(1);
        settings.quorum = (quorum != 1).then_some(quorum);
        let hysteresis = (self.hysteresis / scale).min(quorum - 1);
        settings.hysteresis = (hysteresis != 0).then_some(hysteresis);
        settings.notify.clone_from(&self.notify);
        settings.orphans = self.keep.then(|| "keep".to_string());
    }
}

impl Pool {
    /// Takes note of where `inhibit_on_failure` stands.
    pub fn inhibit(&mut self, said: Said) {
        self.inhibits.push(said);
    }

    /// Takes note of a real server.
    pub fn server(&mut self, at: Said, scripts: [Option<Script>; 2], inhibited: bool) {
        self.scripts.push((at, scripts));
        self.inhibited += usize::from(inhibited);
    }

    /// The sorry server as one of the servers; `tested` is whether the others are tested.
    pub fn sorry(&mut self, reader: &mut Reader<'_>, service: &mut Service, tested: bool) {
        let Some(mut backend) = self.sorry.take() else {
            return;
        };
        backend.method = self.sorry_method.or(service.method);
        if tested {
            let note = "it is tested as the others are; if it looks dead it serves only when none of them is able";
            let report = reader.report();
            report.add(&backend.place, Kind::Changed, &backend.what, note);
        }
        service.servers.push(backend);
    }
}

impl Reader<'_> {
    /// A directive of a virtual server, if it is one of these.
    pub(super) fn pool(&mut self, statement: &Statement, pool: &mut Pool) -> bool {
        let mut count = |field: &mut Option<(Said, u32)>, least| {
            let read = number(statement, i32::MAX.unsigned_abs());
            match read.and_then(|n| match n >= least {
                true => Ok(n),
                false => Err(format!("it is at least {least}")),
            }) {
                Ok(n) => *field = Some((said(statement, ""), n)),
                Err(problem) => self.say(statement, Kind::Wrong, problem),
            }
        };
        match statement.key() {
            "quorum" => count(&mut pool.quorum, 1),
            "hysteresis" => count(&mut pool.hysteresis, 0),
            "quorum_up" => pool.quorum_up = self.script(statement),
            "quorum_down" => pool.quorum_down = self.script(statement),
            "omega" => self.say(
                statement,
                Kind::Unneeded,
                "when the manager stops the servers go on: there is nothing to tell",
            ),
            "sorry_server_inhibit" => self.say(
                statement,
                Kind::Unneeded,
                "a sorry server that is not needed any more keeps its connections",
            ),
            "sorry_server_lvs_method" => match method(statement.values()) {
                Ok(method) => pool.sorry_method = Some(method),
                Err(problem) => self.say(statement, Kind::Wrong, problem),
            },
            "sorry_server" => match sorry(statement) {
                Ok(backend) => pool.sorry = Some(backend),
                Err(problem) => self.say(statement, Kind::Wrong, problem),
            },
            _ => return false,
        }
        true
    }

    /// What is to be run.
    pub(super) fn script(&mut self, statement: &Statement) -> Option<Script> {
        let text = statement.value().unwrap_or_default();
        match text.parse::<NotifyCommand>() {
            Ok(command) => Some((said(statement, ""), command.to_string())),
            Err(error) => {
                self.say(statement, Kind::LeftOut, error.to_string());
                None
            }
        }
    }

    /// What a rule gets of a pool, and what is to be said about it.
    pub(super) fn terms(&mut self, block: &Statement, pool: Pool) -> Terms {
        let mut terms = Terms {
            quorum: pool.quorum.as_ref().map_or(1, |(_, quorum)| *quorum),
            ..Terms::default()
        };
        let mut told: Vec<(Said, Kind, String)> = Vec::new();
        if let Some((at, quorum)) = pool.quorum {
            told.push((at, Kind::Taken, format!("quorum={quorum}")));
        }
        if let Some((at, hysteresis)) = pool.hysteresis {
            terms.hysteresis = hysteresis.min(terms.quorum.saturating_sub(1));
            told.push(match terms.hysteresis == hysteresis {
                true => (at, Kind::Taken, format!("hysteresis={hysteresis}")),
                false => {
                    let note = format!(
                        "hysteresis={}: it is less than the quorum",
                        terms.hysteresis
                    );
                    (at, Kind::Changed, note)
                }
            });
        }
        let of_quorum = [
            (NotifyEvent::QuorumUp, pool.quorum_up),
            (NotifyEvent::QuorumDown, pool.quorum_down),
        ];
        for (event, script) in of_quorum {
            if let Some((at, command)) = script {
                told.push((at, Kind::Changed, run(event, "")));
                terms.notify.insert(event, command);
            }
        }
        for (n, event) in [NotifyEvent::Up, NotifyEvent::Down].into_iter().enumerate() {
            let scripts: Vec<(&Said, Option<&Script>)> = pool
                .scripts
                .iter()
                .map(|(server, scripts)| (server, scripts[n].as_ref()))
                .collect();
            terms.notify.extend(chosen(event, &scripts, &mut told));
        }
        terms.keep = pool.inhibited > 0 && pool.inhibited == pool.scripts.len();
        for at in pool.inhibits {
            told.push(match terms.keep {
                true => (at, Kind::Taken, "orphans=keep".to_string()),
                false => {
                    let note = format!(
                        "it holds for {} of {} servers of {} only, and a rule has one way for all: connections of a server \
                         that fails its check are given to others; orphans=keep leaves them",
                        pool.inhibited,
                        pool.scripts.len(),
                        block.words.join(" ")
                    );
                    (at, Kind::Changed, note)
                }
            });
        }
        for (at, kind, note) in told {
            self.report().add(&at.place, kind, &at.what, note);
        }
        terms
    }
}

/// The command for all servers: that of most of them. The others are reported.
fn chosen(
    event: NotifyEvent,
    scripts: &[(&Said, Option<&Script>)],
    told: &mut Vec<(Said, Kind, String)>,
) -> Option<(NotifyEvent, String)> {
    let mut counts: Vec<(&Script, usize)> = Vec::new();
    for script in scripts.iter().filter_map(|(_, script)| *script) {
        match counts.iter_mut().find(|(other, _)| other.1 == script.1) {
            Some((_, count)) => *count += 1,
            None => counts.push((script, 1)),
        }
    }
    let most = counts.iter().map(|&(_, count)| count).max()?;
    let (first, command) = counts.iter().find(|&&(_, count)| count == most)?.0;
    for (server, script) in scripts {
        told.push(match script {
            Some((at, text)) if text == command => {
                let note = run(event, "; ILB_SERVER and ILB_ADDRESS say which server it is about");
                (at.clone(), Kind::Changed, note)
            }
            Some((at, _)) => {
                let note = format!(
                    "a rule has one command for all its servers, which is told which one it is about; that of line {} is taken",
                    first.place.line
                );
                (at.clone(), Kind::LeftOut, note)
            }
            None => {
                let note = format!("{event} of it is told, too, by the command of line {}", first.place.line);
                ((*server).clone(), Kind::Changed, note)
            }
        });
    }
    Some((event, command.clone()))
}

/// What is said of a command.
fn run(event: NotifyEvent, more: &str) -> String {
    format!("notify {event}: it is run as the manager's user, without privileges{more}")
}

/// `sorry_server ADDRESS [PORT]`.
fn sorry(statement: &Statement) -> Result<Backend, String> {
    let (address, port) = match statement.values() {
        [address] => (address, 0),
        [address, port] => (address, port_of(port)?),
        _ => return Err("it is an address and a port".to_string()),
    };
    let address = address
        .parse()
        .map_err(|_| "it is an address and a port".to_string())?;
    Ok(Backend {
        place: statement.place.clone(),
        what: statement.what(),
        address,
        port,
        method: None,
        weight: 1,
        upper: 0,
        lower: 0,
        sorry: true,
    })
}
