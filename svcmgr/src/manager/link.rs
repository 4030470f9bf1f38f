//! The fast path: whether it is there, what it forwards by, and making that what it should be.

use ilb_node::control::{Hello, Request, Response, Statistics};
use ilb_node::journal::events::{FASTPATH_FOUND, FASTPATH_LOST};

use super::Manager;
use super::error::ManagerError;
use super::steps::Cause;
use crate::addresses::Addresses;
use crate::compile::{self, Given, Surroundings};
use crate::dataplane::{DataPlane, Event, unexpected};
use crate::state::State;

/// What is known of the fast path.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Who it is, while it is there.
    pub peer: Option<Hello>,
    /// The generation that it acknowledged last.
    pub applied: u64,
    /// It may have another configuration under the same generation: apply in any case.
    pub doubtful: bool,
    /// What it forwards by, as far as we know it wholly: what comes next can be a difference to that.
    pub given: Option<Given>,
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// A question of somebody's.
    pub(super) async fn ask(&mut self, request: Request) -> Result<Response, ManagerError> {
        let absent = "it is not running: start it with 'systemctl start ilb-fastpath'";
        if self.link.peer.is_none() {
            return Err(ManagerError::Fastpath(absent.to_owned()));
        }
        let answer = self.dataplane.request(request).await;
        answer.map_err(|error| {
            tracing::warn!("{error}");
            self.link_lost();
            ManagerError::Fastpath(error.to_string())
        })
    }

    /// Asks the fast path for its counters; without an answer the last ones stay.
    pub(super) async fn read_statistics(&mut self) -> Option<Statistics> {
        self.link.peer.as_ref()?;
        match self.dataplane.request(Request::Statistics).await {
            Ok(Response::Statistics(statistics)) => {
                self.ledger.enter(&statistics);
                let state = &self.state;
                self.ledger.prune(&state.configuration, &state.retired);
                Some(statistics)
            }
            Ok(other) => {
                tracing::warn!("{}", unexpected(&other));
                None
            }
            Err(error) => {
                tracing::warn!("no statistics: {error}");
                self.link_lost();
                None
            }
        }
    }

    /// Whether the fast path is there and forwards by the present state.
    pub(super) fn in_step(&self) -> bool {
        self.link.peer.is_some()
            && self.link.applied == self.state.generation
            && !self.link.doubtful
    }

    /// It has come, or gone.
    pub(super) async fn link_changed(&mut self, event: Event) {
        match event {
            Event::Down(reason) => {
                tracing::warn!(message_id = FASTPATH_LOST.id, "{reason}");
                self.link_lost();
            }
            Event::Up(hello) => {
                tracing::info!(
                    message_id = FASTPATH_FOUND.id,
                    ilb_generation = hello.generation,
                    "fast path connected: process {}, generation {}; ours is {}",
                    hello.pid,
                    hello.generation,
                    self.state.generation
                );
                self.link.applied = hello.generation;
                // Settings may have changed while no manager was running. And one that has nothing yet leaves to XDP what
                // an earlier one has steered by, even if there is nothing for it to do.
                self.link.doubtful |=
                    hello.limits != self.surroundings.limits || hello.generation == 0;
                self.link.peer = Some(hello);
                let in_step = self.in_step();
                self.link.given = in_step.then(|| Given {
                    surroundings: Surroundings {
                        vigours: self.unknown_vigours(),
                        // Nor is it known which tiers it believes to serve.
                        standings: crate::standing::Standings::default(),
                        ..self.surroundings.clone()
                    },
                    ..self.give()
                });
                self.idle.clear();
                // Before clients come by what it is given next: until then it takes the peer's ports, too.
                self.introduce_peer().await;
                if self.known {
                    self.close_addresses().await;
                    self.catch_up().await;
                }
                if in_step {
                    self.repeat_vigours().await;
                }
            }
        }
    }

    /// What the fast path has when it has the present state.
    fn give(&self) -> Given {
        Given {
            state: self.state.clone(),
            surroundings: self.surroundings.clone(),
        }
    }

    /// It is not there, as far as we are concerned.
    pub(super) fn link_lost(&mut self) {
        self.link.peer = None;
        self.link.given = None;
        self.idle.clear();
        self.ledger.close();
    }

    /// Gives the fast path the present state. `Ok(false)` when it is not there or does not answer.
    ///
    /// # Errors
    /// Its words when it refuses.
    pub(super) async fn push(&mut self) -> Result<bool, String> {
        if self.link.peer.is_none() {
            return Ok(false);
        }
        let generation = self.state.generation;
        // A difference, if that means anything to it; otherwise everything.
        let mut answer = None;
        if let Some(given) = self.link.given.take().filter(|_| !self.link.doubtful) {
            let change = compile::change(&given, &self.state, &self.surroundings);
            let said = self.dataplane.request(Request::Change(change)).await;
            match said {
                Ok(Response::Gap { generation }) => tracing::warn!(
                    "the fast path forwards by generation {generation} instead of {}: it gets everything anew",
                    given.state.generation
                ),
                Ok(Response::Error { message }) => {
                    tracing::warn!("{message}: the fast path gets everything anew");
                }
                other => {
                    if let Ok(Response::Rejected { .. }) = other {
                        self.link.given = Some(given);
                    }
                    answer = Some(other);
                }
            }
        }
        let answer = match answer {
            Some(answer) => answer,
            None => {
                let spec = compile::snapshot(&self.state, &self.surroundings);
                self.dataplane.request(Request::Apply(spec)).await
            }
        };
        match answer {
            Ok(Response::Applied {
                generation: applied,
            }) if applied == generation => {
                self.link.applied = generation;
                self.link.doubtful = false;
                self.link.given = Some(self.give());
                Ok(true)
            }
            Ok(Response::Rejected { reason, .. }) => Err(reason),
            Ok(other) => {
                tracing::error!("{}", unexpected(&other));
                Ok(false)
            }
            Err(error) => {
                tracing::warn!("{error}; it gets the change when it is back");
                self.link_lost();
                Ok(false)
            }
        }
    }

    /// Makes a fast path that may be behind forward by the present state.
    pub(super) async fn catch_up(&mut self) {
        if self.link.peer.is_some() && self.link.applied > self.state.generation {
            // Our numbers went back, as from a snapshot; the fast path must not take old for new.
            let next = State {
                generation: self.link.applied + 1,
                ..self.state.clone()
            };
            let words = "numbered after what the fast path has seen".to_owned();
            if let Err(error) = self.commit(next, Cause::own(words)).await {
                tracing::error!("{error}");
                return;
            }
        }
        if !self.in_step()
            && let Err(reason) = self.push().await
        {
            tracing::error!("the fast path refuses the present configuration: {reason}");
        }
        self.settle_addresses().await;
    }
}
