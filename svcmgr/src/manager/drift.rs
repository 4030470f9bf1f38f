//! Desired against actual: what is found other than it should be, in the fast path, in the kernel, on interfaces; what is
//! done about it; and who is told.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ilb_node::control::{self, Request, Response, Status};
use ilb_node::journal::events::{DRIFT_FOUND, DRIFT_REPAIRED};
use libilb::describe::Drift;
use libilb::map::Map;
use tokio::time::Instant;

use super::Manager;
use crate::addresses::Addresses;
use crate::compile;
use crate::dataplane::{DataPlane, unexpected};

/// How often the fast path is asked how it is.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// How often a fast path that refuses the present configuration is given it again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long something that was put right is remembered, in milliseconds.
const REMEMBERED: u64 = 600_000;
/// How much of that is remembered.
const MOST: usize = 32;

const FASTPATH: &str = "fast path";

/// What is known of drift.
#[derive(Default)]
pub(super) struct Drifts {
    /// What we found ourselves, the earliest first.
    ours: Vec<Drift>,
    /// What the fast path said last that it has found.
    theirs: Vec<Drift>,
    /// Both, for everybody.
    all: Arc<[Drift]>,
    /// When a fast path that refuses was given everything last.
    tried: Option<Instant>,
}

impl Drifts {
    /// Everything, as it is published.
    pub(super) fn all(&self) -> Arc<[Drift]> {
        self.all.clone()
    }

    /// Something is other than it should be, and this is done about it.
    pub(super) fn found(
        &mut self,
        what: &str,
        item: &str,
        wanted: String,
        actual: String,
        doing: &str,
    ) {
        if let Some(known) = self.open(what, item) {
            (known.wanted, known.actual) = (wanted, actual);
            known.doing = doing.to_owned();
        } else {
            tracing::warn!(
                message_id = DRIFT_FOUND.id,
                ilb_drift = what,
                ilb_item = item,
                ilb_wanted = wanted,
                ilb_actual = actual,
                "{what} {item}: {actual} instead of {wanted}; {doing}"
            );
            self.ours.push(Drift {
                what: what.to_owned(),
                item: item.to_owned(),
                wanted,
                actual,
                since: now(),
                repaired: 0,
                doing: doing.to_owned(),
            });
        }
        self.publish();
    }

    /// Something is as it should be.
    pub(super) fn is_well(&mut self, what: &str, item: &str) {
        let Some(known) = self.open(what, item) else {
            return;
        };
        known.repaired = now();
        known.doing.clear();
        tracing::warn!(
            message_id = DRIFT_REPAIRED.id,
            ilb_drift = what,
            ilb_item = item,
            ilb_wanted = known.wanted,
            "{what} {item}: {} again",
            known.wanted
        );
        self.publish();
    }

    /// Nobody wants any more what was missed.
    pub(super) fn forget(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let gone =
            |drift: &Drift| drift.repaired == 0 && drift.what == what && !wanted(&drift.item);
        if self.ours.iter().any(gone) {
            self.ours.retain(|drift| !gone(drift));
            self.publish();
        }
    }

    /// What the fast path says. It tells the journal itself.
    fn hear(&mut self, theirs: Vec<control::Drift>) {
        let theirs: Vec<Drift> = theirs.into_iter().map(translated).collect();
        self.theirs = theirs;
        self.publish();
    }

    fn open(&mut self, what: &str, item: &str) -> Option<&mut Drift> {
        let mut ours = self.ours.iter_mut();
        ours.find(|drift| drift.repaired == 0 && drift.what == what && drift.item == item)
    }

    fn publish(&mut self) {
        let now = now();
        let recent = |drift: &Drift| drift.repaired == 0 || drift.repaired + REMEMBERED > now;
        self.ours.retain(recent);
        while self.ours.len() > MOST {
            let Some(old) = self.ours.iter().position(|drift| drift.repaired != 0) else {
                break;
            };
            self.ours.remove(old);
        }
        let theirs = self.theirs.iter().filter(|drift| recent(drift));
        let all: Vec<Drift> = self.ours.iter().chain(theirs).cloned().collect();
        if *all != *self.all {
            self.all = all.into();
        }
    }
}

fn translated(drift: control::Drift) -> Drift {
    let doing = match (drift.repaired, drift.trouble.as_str()) {
        (0, "") => "the fast path puts it right".to_owned(),
        (0, trouble) => format!("the fast path tries to put it right, but {trouble}"),
        _ => String::new(),
    };
    Drift {
        what: drift.what,
        item: drift.item,
        wanted: drift.wanted,
        actual: drift.actual,
        since: drift.since,
        repaired: drift.repaired,
        doing,
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// Compares what the fast path does with what it should, and has it put right.
    pub(super) async fn look_at_fastpath(&mut self) {
        if self.link.peer.is_none() {
            return;
        }
        let mut status = match self.dataplane.request(Request::Status).await {
            Ok(Response::Status(status)) => status,
            Ok(other) => {
                tracing::warn!("{}", unexpected(&other));
                return;
            }
            Err(error) => {
                tracing::warn!("no status: {error}");
                self.link_lost();
                return;
            }
        };
        self.drift.hear(std::mem::take(&mut status.drift));
        self.look_at_interfaces(&status);
        if !self.known {
            return;
        }
        let acknowledged = self.link.applied;
        if status.generation != acknowledged {
            self.drift.found(
                "generation",
                FASTPATH,
                format!("generation {acknowledged}"),
                format!("generation {}", status.generation),
                "it gets the configuration anew",
            );
            self.link.applied = status.generation;
            self.give_anew().await;
        } else if !self.in_step() {
            let tried = self.drift.tried;
            if tried.is_none_or(|then| then.elapsed() > AGAIN) {
                self.give_anew().await;
            }
        } else if let Some(rules) = status.rules {
            let wanted = compile::count_rules(&self.state);
            if rules != wanted {
                self.drift.found(
                    "rules",
                    FASTPATH,
                    format!("{wanted} rules"),
                    format!("{rules} rules"),
                    "it gets the configuration anew",
                );
                self.give_anew().await;
            } else {
                self.drift.is_well("rules", FASTPATH);
            }
        }
        if self.in_step() {
            self.drift.is_well("generation", FASTPATH);
        } else if self.link.peer.is_some() {
            self.drift.found(
                "generation",
                FASTPATH,
                format!("generation {}", self.state.generation),
                format!("generation {}", self.link.applied),
                "it refuses the configuration and gets it again every minute: 'journalctl -u ilb' says why",
            );
        }
    }

    async fn give_anew(&mut self) {
        self.drift.tried = Some(Instant::now());
        self.link.given = None;
        self.link.doubtful = true;
        self.catch_up().await;
    }

    fn look_at_interfaces(&mut self, status: &Status) {
        for interface in &status.interfaces {
            match interface.attached {
                Some(false) => self.drift.found(
                    "interface",
                    &interface.name,
                    "served".to_owned(),
                    interface.mode_reason.clone(),
                    "it is served as soon as it is there",
                ),
                Some(true) => self.drift.is_well("interface", &interface.name),
                None => {}
            }
        }
        let names = &status.interfaces;
        self.drift.forget("interface", |item| {
            names.iter().any(|interface| interface.name == item)
        });
    }

    /// Takes note of addresses that we had put on their interfaces, and that are not there.
    pub(super) fn miss_addresses(&mut self, missing: &[(IpAddr, String)]) {
        for (address, interface) in missing {
            if self.placed.get(address) == Some(interface) {
                self.drift.found(
                    "address",
                    &address.to_string(),
                    format!("on {interface}"),
                    "on no interface".to_owned(),
                    "it is put there again",
                );
            }
        }
    }

    /// Takes note that these, and no others of ours, are on their interfaces.
    pub(super) fn addresses_are(&mut self, owned: Map<IpAddr, String>) {
        let missed = self.drift.ours.iter();
        let missed = missed.filter(|drift| drift.repaired == 0 && drift.what == "address");
        let missed: Vec<String> = missed.map(|drift| drift.item.clone()).collect();
        for item in missed {
            let here = |address: IpAddr| owned.get(&address).is_some();
            match item.parse().is_ok_and(here) {
                true => self.drift.is_well("address", &item),
                false => self.drift.forget("address", |other| other != item),
            }
        }
        self.placed = owned;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drifts() -> Drifts {
        let mut drifts = Drifts::default();
        drifts.found(
            "address",
            "192.0.2.1",
            "on eth0".into(),
            "gone".into(),
            "doing",
        );
        drifts
    }

    #[test]
    fn what_is_found_twice_is_one_drift_and_what_was_put_right_is_remembered() {
        let mut drifts = drifts();
        let since = drifts.all()[0].since;
        drifts.found(
            "address",
            "192.0.2.1",
            "on eth1".into(),
            "gone".into(),
            "doing",
        );
        assert_eq!(drifts.all().len(), 1);
        assert_eq!(drifts.all()[0].wanted, "on eth1");
        assert_eq!(
            (drifts.all()[0].since, drifts.all()[0].repaired),
            (since, 0)
        );
        drifts.is_well("address", "192.0.2.2");
        assert_eq!(drifts.all()[0].repaired, 0);
        drifts.is_well("address", "192.0.2.1");
        assert!(drifts.all()[0].repaired >= since);
        drifts.forget("address", |_| false);
        assert_eq!(drifts.all().len(), 1, "it has happened");
    }

    #[test]
    fn what_is_not_right_outlives_what_is_and_nothing_grows() {
        let mut drifts = drifts();
        for n in 0..2 * MOST {
            let item = n.to_string();
            drifts.found("interface", &item, String::new(), String::new(), "");
            drifts.is_well("interface", &item);
        }
        let all = drifts.all();
        assert_eq!(all.len(), MOST);
        assert_eq!((&*all[0].item, all[0].repaired), ("192.0.2.1", 0));
        drifts.forget("address", |_| false);
        assert!(drifts.all().iter().all(|drift| drift.repaired != 0));
    }

    #[test]
    fn the_fast_path_says_why_it_cannot() {
        let mut drifts = Drifts::default();
        drifts.hear(vec![control::Drift {
            what: "program".into(),
            item: "eth0".into(),
            trouble: "the interface is busy".into(),
            ..control::Drift::default()
        }]);
        let expected = "the fast path tries to put it right, but the interface is busy";
        assert_eq!(drifts.all()[0].doing, expected);
    }
}
