//! What is believed of a server: pure, without clock and without network. Evidence comes in, changes of state come out.
//!
//! This is the damping between a test and what is published: nothing changes but by as many results in a row as the
//! settings demand. What could not be found out is no evidence: it neither counts nor interrupts a count.

use libilb::health::{HealthState, Weight};

/// What the settings demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// Failures in a row that make a server dead, at least 1.
    pub count: u32,
    /// Successes in a row that bring it back, at least 1.
    pub rise: u32,
    /// Failed tests that are repeated at once, each time.
    pub retries: u32,
    /// Whether a server is down until it has proved to be up.
    pub alpha: bool,
}

/// What one test showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The server is well.
    Good {
        /// Round-trip time in microseconds, if the test has one.
        rtt: Option<u64>,
        /// Weight that the test gives.
        weight: Option<Weight>,
    },
    /// It does not answer the ping before the test.
    Unreachable,
    /// Its test failed.
    Dead,
    /// Nothing: the test could not be made, or was late by our own fault.
    None,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// State before.
    pub from: HealthState,
    /// State after.
    pub to: HealthState,
    /// Results in a row that it took; 0 if an administrator did it.
    pub count: u32,
}

/// When to test next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// After the interval.
    Interval,
    /// After the delay before a retry.
    Retry,
    /// Never, until it is enabled.
    Never,
}

/// The state of one server.
#[derive(Debug, Clone)]
pub struct Machine {
    demands: Demands,
    state: HealthState,
    /// Failures in a row.
    fails: u32,
    /// Of those, the last ones that were of one kind.
    alike: u32,
    /// That kind.
    unreachable: bool,
    /// Successes in a row.
    successes: u32,
    /// Failures since the last regular test that were repeated at once.
    repeated: u32,
    rtt: Option<u64>,
    weight: Option<Weight>,
}

impl Machine {
    /// Begins with what is remembered of the server: one that was down stays so until it has proved otherwise.
    pub fn new(demands: Demands, remembered: Option<HealthState>) -> Machine {
        Machine {
            demands,
            state: remembered
                .filter(|state| state.is_down())
                .unwrap_or_default(),
            fails: 0,
            alike: 0,
            unreachable: false,
            successes: 0,
            repeated: 0,
            rtt: None,
            weight: None,
        }
    }

    /// The state.
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// Whether the server is to take new connections as far as its health is concerned.
    pub fn up(&self) -> bool {
        match self.state {
            HealthState::Alive => true,
            HealthState::UnInit => !self.demands.alpha,
            HealthState::Unreach | HealthState::Dead | HealthState::Disabled => false,
        }
    }

    /// Failures in a row.
    pub fn fails(&self) -> u32 {
        self.fails
    }

    /// Successes in a row, up to the number that would bring it back.
    pub fn successes(&self) -> u32 {
        self.successes
    }

    /// Repetitions of a failed test since the last regular one, with the one that comes next.
    pub fn repeated(&self) -> u32 {
        self.repeated
    }

    /// Smoothed round-trip time in microseconds.
    pub fn rtt(&self) -> Option<u64> {
        self.rtt
    }

    /// Weight that the tests give.
    pub fn weight(&self) -> Option<Weight> {
        self.weight
    }

    /// Takes other demands. The state stays; counting begins anew.
    pub fn demand(&mut self, demands: Demands) {
        self.demands = demands;
        self.forget();
    }

    /// Is not tested any more, or is again.
    pub fn enable(&mut self, enabled: bool) -> Option<Change> {
        let to = match (enabled, self.state) {
            (false, _) => HealthState::Disabled,
            (true, HealthState::Disabled) => HealthState::UnInit,
            (true, state) => state,
        };
        if to != self.state {
            self.forget();
            self.rtt = None;
            self.weight = None;
        }
        self.become_(to, 0)
    }

    fn forget(&mut self) {
        (self.fails, self.alike, self.successes, self.repeated) = (0, 0, 0, 0);
    }

    /// Takes the result of a test, and says what changed by it.
    pub fn handle(&mut self, evidence: Evidence) -> Option<Change> {
        match (self.state, evidence) {
            (HealthState::Disabled, _)
            | (
                HealthState::UnInit | HealthState::Alive | HealthState::Unreach | HealthState::Dead,
                Evidence::None,
            ) => None,
            (HealthState::UnInit, Evidence::Good { rtt, weight }) => {
                self.succeed(rtt, weight);
                let rise = if self.demands.alpha {
                    self.demands.rise
                } else {
                    1
                };
                self.rise(rise)
            }
            (HealthState::Unreach | HealthState::Dead, Evidence::Good { rtt, weight }) => {
                self.succeed(rtt, weight);
                self.rise(self.demands.rise)
            }
            (HealthState::Alive, Evidence::Good { rtt, weight }) => {
                self.succeed(rtt, weight);
                None
            }
            (HealthState::UnInit | HealthState::Alive, Evidence::Unreachable) => {
                self.fail(true);
                self.fall(HealthState::Unreach, self.fails)
            }
            (HealthState::UnInit | HealthState::Alive, Evidence::Dead) => {
                self.fail(false);
                self.fall(HealthState::Dead, self.fails)
            }
            // It is down either way, but the reason has to be as well founded as the state was.
            (HealthState::Dead, Evidence::Unreachable) => {
                self.fail(true);
                self.fall(HealthState::Unreach, self.alike)
            }
            (HealthState::Unreach, Evidence::Dead) => {
                self.fail(false);
                self.fall(HealthState::Dead, self.alike)
            }
            (HealthState::Dead, Evidence::Dead) => {
                self.fail(false);
                None
            }
            (HealthState::Unreach, Evidence::Unreachable) => {
                self.fail(true);
                None
            }
        }
    }

    /// When the next test is due after the last evidence; counts the retry if it is one.
    pub fn plan(&mut self) -> Next {
        if self.state == HealthState::Disabled {
            return Next::Never;
        }
        let doubtful = self.fails > 0 && !self.state.is_down();
        if doubtful && self.repeated < self.demands.retries {
            self.repeated += 1;
            return Next::Retry;
        }
        self.repeated = 0;
        Next::Interval
    }

    fn succeed(&mut self, rtt: Option<u64>, weight: Option<Weight>) {
        (self.fails, self.alike) = (0, 0);
        self.successes = self.successes.saturating_add(1).min(self.demands.rise);
        if let Some(new) = rtt {
            self.rtt = Some(self.rtt.map_or(new, |old| smooth(old, new)));
        }
        self.weight = weight;
    }

    fn fail(&mut self, unreachable: bool) {
        self.successes = 0;
        self.alike = match self.unreachable == unreachable {
            true => self.alike.saturating_add(1),
            false => 1,
        };
        self.unreachable = unreachable;
        self.fails = self.fails.saturating_add(1);
    }

    fn rise(&mut self, needed: u32) -> Option<Change> {
        let enough = self.successes >= needed;
        enough
            .then(|| self.become_(HealthState::Alive, needed))
            .flatten()
    }

    fn fall(&mut self, to: HealthState, failures: u32) -> Option<Change> {
        let enough = failures >= self.demands.count;
        enough.then(|| self.become_(to, failures)).flatten()
    }

    fn become_(&mut self, to: HealthState, count: u32) -> Option<Change> {
        let from = std::mem::replace(&mut self.state, to);
        (from != to).then_some(Change { from, to, count })
    }
}

/// Three quarters of the old and one of the new.
fn smooth(old: u64, new: u64) -> u64 {
    let sum = u128::from(old) * 3 + u128::from(new);
    u64::try_from(sum / 4).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "fsm_tests.rs"]
mod tests;
