//! The steps of a change, in their order, and back again when one fails.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ilb_node::control::{Request, Response, Statistics};

use super::Manager;
use super::change::Change;
use super::error::ManagerError;
use crate::addresses::{self, AddressError, Addresses, Plan};
use crate::compile;
use crate::dataplane::{DataPlane, unexpected};
use crate::state::State;

/// How often in a row a retired item has to be without connections before it goes.
const IDLE_ENOUGH: u32 = 2;

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// A user action from beginning to end.
    pub(super) async fn change(&mut self, change: &Change) -> Result<Vec<String>, ManagerError> {
        if self.health == libilb::describe::State::Degraded {
            return Err(ManagerError::Degraded(self.health_reason.clone()));
        }
        let mut next = self.state.clone();
        let names = change.apply(&mut next.configuration)?;
        let before = &self.state.configuration;
        if next.configuration != *before {
            next.retired.follow(before, &next.configuration, unix_now());
            let risen = self.surroundings.risen.clone();
            let now = boot_seconds();
            self.surroundings
                .risen
                .follow(before, &next.configuration, now);
            let result = self.advance(next).await;
            if result.is_err() {
                self.surroundings.risen = risen;
            }
            result?;
        }
        Ok(names)
    }

    /// Makes `next` durable and puts it in force. After an error the previous state is.
    async fn advance(&mut self, mut next: State) -> Result<(), ManagerError> {
        let before = self.state.clone();
        next.generation = before.generation + 1;
        let plan = match same_addresses(&before, &next) {
            true => Plan {
                owned: before.addresses.clone(),
                ..Plan::default()
            },
            false => self.plan(&next).await.map_err(ManagerError::Address)?,
        };
        next.addresses = plan.owned.clone();
        let began = Instant::now();
        self.commit(next).await?;
        let durable = began.elapsed();
        let Err(refusal) = self.carry_out(plan).await else {
            let in_force = began.elapsed() - durable;
            tracing::debug!("stored in {durable:?}, in force in {in_force:?}");
            return Ok(());
        };
        tracing::warn!("taking the change back: {refusal}");
        let back = State {
            generation: self.state.generation + 1,
            ..before
        };
        self.commit(back).await?;
        self.catch_up().await;
        Err(refusal)
    }

    /// One transaction, durable. The store is not to be trusted any more when it fails.
    async fn commit(&mut self, next: State) -> Result<(), ManagerError> {
        let Some(store) = self.store.clone() else {
            return Err(ManagerError::Degraded(self.health_reason.clone()));
        };
        let (before, after) = (self.state.clone(), next.clone());
        let result = tokio::task::spawn_blocking(move || store.replace(&before, &after)).await;
        let failure = match result {
            Ok(Ok(())) => {
                if let Some(snapshots) = &self.snapshots {
                    snapshots.write(&next);
                }
                self.state = next;
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            "the configuration cannot be stored, from now on it can only be read: {failure}"
        );
        self.health = libilb::describe::State::Degraded;
        self.health_reason = format!("{failure}; see to the disk and restart ilb");
        Err(ManagerError::Degraded(self.health_reason.clone()))
    }

    /// Brings kernel and fast path to the present state: addresses that are no longer wanted go before their steering,
    /// new ones come after it, so that the kernel never gets a packet for a VIP that it would answer with a reset.
    async fn carry_out(&mut self, plan: Plan) -> Result<(), ManagerError> {
        let (moved, gone): (Vec<_>, Vec<_>) = plan
            .remove
            .into_iter()
            .partition(|(address, _)| plan.owned.contains_key(address));
        self.remove_addresses(gone).await;
        if !self.push().await.map_err(ManagerError::FastpathRejected)? {
            return Ok(());
        }
        for (address, interface) in plan.add {
            tracing::info!("putting address {address} on {interface}");
            let added = self.addresses.add(address, &interface).await;
            added.map_err(ManagerError::Address)?;
        }
        self.remove_addresses(moved).await;
        Ok(())
    }

    /// An address that stays too long does less harm than a change that fails for it; the next look tries again.
    async fn remove_addresses(&mut self, list: Vec<(std::net::IpAddr, String)>) -> bool {
        let mut removed = true;
        for (address, interface) in list {
            tracing::info!("taking address {address} off {interface}");
            if let Err(error) = self.addresses.remove(address, &interface).await {
                tracing::error!("{error}");
                removed = false;
            }
        }
        removed
    }

    /// Gives the fast path the present state. `Ok(false)` when it is not there or does not answer.
    ///
    /// # Errors
    /// Its words when it refuses.
    async fn push(&mut self) -> Result<bool, String> {
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
            if let Err(error) = self.commit(next).await {
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

    async fn plan(&mut self, state: &State) -> Result<Plan, AddressError> {
        if !self.manage_addresses && state.addresses.is_empty() {
            return Ok(Plan::default());
        }
        let wanted = match self.manage_addresses {
            true => compile::addresses(state),
            false => Default::default(),
        };
        let present = self.addresses.present().await?;
        Ok(addresses::plan(&present, &wanted, &state.addresses))
    }

    /// Looks whether the interfaces have what they should have, and corrects it. New addresses wait until the fast path
    /// is in step. Returns false when something failed and another try is worth it.
    pub(super) async fn settle_addresses(&mut self) -> bool {
        if self.store.is_none() || self.health == libilb::describe::State::Degraded {
            return true;
        }
        let plan = match self.plan(&self.state.clone()).await {
            Ok(plan) => plan,
            Err(error) => {
                tracing::error!("{error}");
                return false;
            }
        };
        if plan.owned != self.state.addresses {
            let next = State {
                addresses: plan.owned.clone(),
                ..self.state.clone()
            };
            if let Err(error) = self.commit(next).await {
                tracing::error!("{error}");
                return false;
            }
        }
        let in_step = self.in_step();
        let (moved, gone): (Vec<_>, Vec<_>) = plan
            .remove
            .into_iter()
            .partition(|(address, _)| plan.owned.contains_key(address));
        let mut settled = self.remove_addresses(gone).await;
        if !in_step {
            return settled;
        }
        for (address, interface) in plan.add {
            tracing::info!("putting address {address} on {interface}");
            if let Err(error) = self.addresses.add(address, &interface).await {
                tracing::error!("{error}");
                settled = false;
            }
        }
        self.remove_addresses(moved).await && settled
    }

    /// Asks the fast path for the counters of what is retired, and of nothing else: of large configurations that is little.
    async fn count_retired(&mut self) -> Option<Statistics> {
        let places = self.state.retired.places();
        match self.dataplane.request(Request::StatisticsOf(places)).await {
            Ok(Response::Statistics(statistics)) => Some(statistics),
            // One of an earlier version says all or nothing.
            Ok(_) => self.read_statistics().await,
            Err(error) => {
                tracing::warn!("no statistics: {error}");
                self.link_lost();
                None
            }
        }
    }

    /// Lets retired rules and servers go that have no connections any more or whose time is over.
    pub(super) async fn supervise(&mut self) {
        if self.health == libilb::describe::State::Degraded {
            return;
        }
        let mut gone = self.state.retired.overdue(unix_now());
        let statistics = match self.in_step() {
            true => self.count_retired().await,
            false => None,
        };
        match statistics {
            Some(statistics) => {
                let idle = self.state.retired.without_connections(&statistics);
                self.idle.retain(|key, _| idle.contains(key));
                for key in idle {
                    let times = self.idle.entry(key).or_default();
                    *times += 1;
                    if *times >= IDLE_ENOUGH {
                        gone.push(key);
                    }
                }
            }
            None => self.idle.clear(),
        }
        if gone.is_empty() {
            return;
        }
        let mut next = self.state.clone();
        for key in &gone {
            next.retired.remove(*key);
            self.idle.remove(key);
        }
        tracing::info!("drained: {gone:?}");
        if let Err(error) = self.advance(next).await {
            tracing::error!("{error}");
        }
    }
}

/// Whether two states need the same addresses for certain, because they have the same rules.
fn same_addresses(a: &State, b: &State) -> bool {
    a.configuration.rules.is_copy_of(&b.configuration.rules)
        && a.retired.rules.is_copy_of(&b.retired.rules)
}

/// Seconds since the machine was booted, as the fast path counts them; 0 when nobody knows.
fn boot_seconds() -> u32 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let whole = uptime.split('.').next().unwrap_or_default();
    whole.parse().unwrap_or(0)
}

/// Seconds of the Unix clock.
fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
