//! What was found in the kernel other than we had left it, for who asks: what is not right yet, and the latest that is again.

use std::time::{SystemTime, UNIX_EPOCH};

use ilb_node::control::Drift;
use ilb_node::journal::events::{DRIFT_FOUND, DRIFT_REPAIRED};
use xdp_redirect::Mended;

use crate::steering::Steering;

/// How many are remembered.
const KEPT: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub struct Drifts(Vec<Drift>);

impl Drifts {
    /// Looks at everything, and has it put right.
    pub fn look(&mut self, steering: &Steering) {
        let all = steering.mend();
        if !all.is_empty() {
            self.enter(all, now());
        }
    }

    /// What is remembered, the earliest first.
    pub fn list(&self) -> Vec<Drift> {
        self.0.clone()
    }

    fn enter(&mut self, all: Vec<Mended>, now: u64) {
        for Mended {
            what,
            item,
            outcome,
        } in all
        {
            let label = what.label();
            let known =
                |drift: &Drift| drift.repaired == 0 && drift.what == label && drift.item == item;
            let at = match self.0.iter().position(known) {
                Some(at) => at,
                None => {
                    let (wanted, actual) = (what.wanted(), what.actual());
                    tracing::warn!(
                        message_id = DRIFT_FOUND.id,
                        ilb_drift = label,
                        ilb_item = item,
                        ilb_wanted = wanted,
                        ilb_actual = actual,
                        "{label} {item}: {actual} instead of {wanted}"
                    );
                    self.0.push(Drift {
                        what: label.to_owned(),
                        item: item.clone(),
                        wanted: wanted.to_owned(),
                        actual: actual.to_owned(),
                        since: now,
                        ..Drift::default()
                    });
                    self.0.len() - 1
                }
            };
            let drift = &mut self.0[at];
            match outcome {
                Ok(()) => {
                    drift.repaired = now;
                    drift.trouble.clear();
                    tracing::warn!(
                        message_id = DRIFT_REPAIRED.id,
                        ilb_drift = label,
                        ilb_item = item,
                        ilb_wanted = drift.wanted,
                        "{label} {item}: {} again",
                        drift.wanted
                    );
                }
                Err(error) => {
                    let trouble = error.to_string();
                    if drift.trouble != trouble {
                        tracing::error!("{label} {item}: {trouble}");
                        drift.trouble = trouble;
                    }
                }
            }
        }
        while self.0.len() > KEPT {
            let old = self.0.iter().position(|drift| drift.repaired != 0);
            self.0.remove(old.unwrap_or(0));
        }
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdp_redirect::{Error, Lost};

    fn mended(what: Lost, item: &str, right: bool) -> Vec<Mended> {
        let outcome = match right {
            true => Ok(()),
            false => Err(Error::MaxAddresses { max_addresses: 0 }),
        };
        let item = item.to_owned();
        vec![Mended {
            what,
            item,
            outcome,
        }]
    }

    #[test]
    fn what_is_found_is_one_drift_until_it_is_right() {
        let mut drifts = Drifts::default();
        drifts.enter(mended(Lost::Program, "eth0", false), 10);
        drifts.enter(mended(Lost::Program, "eth0", false), 20);
        drifts.enter(mended(Lost::Pin, "/pins/v1/slots", true), 30);
        let list = drifts.list();
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].since, list[0].repaired), (10, 0));
        assert!(!list[0].trouble.is_empty());
        drifts.enter(mended(Lost::Program, "eth0", true), 40);
        let list = drifts.list();
        assert_eq!((list[0].since, list[0].repaired), (10, 40));
        assert_eq!(list[0].trouble, "");
        // The next time is another time.
        drifts.enter(mended(Lost::Program, "eth0", true), 50);
        assert_eq!(drifts.list().len(), 3);
    }

    #[test]
    fn what_is_not_right_is_remembered_longest() {
        let mut drifts = Drifts::default();
        drifts.enter(mended(Lost::Program, "eth0", false), 1);
        for n in 0..2 * KEPT as u64 {
            drifts.enter(mended(Lost::Pin, &n.to_string(), true), n);
        }
        let list = drifts.list();
        assert_eq!(list.len(), KEPT);
        assert_eq!((&*list[0].item, list[0].repaired), ("eth0", 0));
        assert_eq!(list[KEPT - 1].item, (2 * KEPT - 1).to_string());
    }
}
