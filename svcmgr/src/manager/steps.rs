//! The steps of a change, in their order, and back again when one fails.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ilb_node::control::{Request, Response, Statistics};
use libilb::model::Configuration;
use tokio::time::timeout;

use super::change::Change;
use super::error::ManagerError;
use super::recovery::Failure;
use super::{Manager, announce};
use crate::addresses::{self, AddressError, Addresses, Plan};
use crate::author::Author;
use crate::compile;
use crate::dataplane::DataPlane;
use crate::followed::Followed;
use crate::history::Entry;
use crate::pending::Pending;
use crate::retired::RetiredKey;
use crate::state::State;
use crate::store::codec;

/// How long a commit may take before the disk is given up: a write takes milliseconds, on a disk that is very busy seconds.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
/// How often a change is tried that the other node of the pair overtakes.
pub(super) const TRIES: usize = 5;
/// How many names a line of the history has at most.
const NAMED: usize = 8;
/// How often in a row a retired item has to be without connections before it goes.
const IDLE_ENOUGH: u32 = 2;

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// A user action from beginning to end. If the other node of a pair was first, it is done again on top of that.
    pub(super) async fn change(
        &mut self,
        author: &Author,
        change: &Change,
    ) -> Result<Vec<String>, ManagerError> {
        for _ in 0..TRIES {
            match self.change_once(author, change).await {
                Err(ManagerError::Overtaken) => {}
                result => return result,
            }
        }
        Err(ManagerError::Overtaken)
    }

    async fn change_once(
        &mut self,
        author: &Author,
        change: &Change,
    ) -> Result<Vec<String>, ManagerError> {
        self.need_store().await?;
        let mut configuration = self.editable();
        let names = change.apply(&mut configuration)?;
        let cause = Cause {
            author: author.clone(),
            words: cause_words(change.words(), &names),
        };
        self.configure(configuration, cause).await?;
        Ok(names)
    }

    /// Makes this the configuration: durable and in force. One that is the same changes nothing. After an error the
    /// previous one is in force.
    pub(super) async fn configure(
        &mut self,
        configuration: Configuration,
        cause: Cause,
    ) -> Result<(), ManagerError> {
        let pending = self.state.pending.clone();
        self.configure_until(configuration, pending, cause).await
    }

    /// The same, and in the same transaction what is known of a change that waits for its confirmation. In a pair the other
    /// node has it before.
    ///
    /// # Errors
    /// [`ManagerError::Overtaken`] when that one had another change, which is in force now.
    pub(super) async fn configure_until(
        &mut self,
        configuration: Configuration,
        pending: Option<Arc<Pending>>,
        cause: Cause,
    ) -> Result<(), ManagerError> {
        let configuration = self.unless_only_numbers(configuration);
        let Some(agreed) = self.agree(&configuration, &cause).await? else {
            let pair = self.state.pair.clone();
            return self.put(configuration, pending, pair, cause).await;
        };
        let pair = self.one_more(&agreed.version, configuration != self.state.configuration);
        self.following.told = agreed.told;
        let result = self.put(configuration, pending, pair, cause).await;
        self.following.told = false;
        self.follow_on(agreed, result).await
    }

    /// Makes this the configuration, with what is known of the pair.
    pub(super) async fn put(
        &mut self,
        configuration: Configuration,
        pending: Option<Arc<Pending>>,
        pair: Option<Arc<Followed>>,
        cause: Cause,
    ) -> Result<(), ManagerError> {
        let before = &self.state.configuration;
        if configuration == *before {
            if (&pending, &pair) == (&self.state.pending, &self.state.pair) {
                return Ok(());
            }
            let next = State {
                pending,
                pair,
                ..self.state.clone()
            };
            return self.commit(next, cause).await;
        }
        let mut next = self.state.clone();
        next.configuration = configuration;
        next.pending = pending;
        next.pair = pair;
        next.retired.follow(before, &next.configuration, unix_now());
        let (old, book) = (before.clone(), self.book.clone());
        let surroundings = self.surroundings.clone();
        let now = boot_seconds();
        self.surroundings
            .risen
            .follow(before, &next.configuration, now);
        let targets = self.follow_checks(&old, &next, false);
        let result = self.advance(next, cause).await;
        match &result {
            Ok(()) => {
                self.checks.test(targets);
                self.follow_sources(&old);
            }
            Err(_) => (self.surroundings, self.book) = (surroundings, book),
        }
        result
    }

    /// Makes `next` durable and puts it in force. After an error the previous state is.
    async fn advance(&mut self, mut next: State, cause: Cause) -> Result<(), ManagerError> {
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
        self.commit(next, cause).await?;
        let durable = began.elapsed();
        let Err(refusal) = self.carry_out(plan).await else {
            let in_force = began.elapsed() - durable;
            tracing::debug!("stored in {durable:?}, in force in {in_force:?}");
            return Ok(());
        };
        tracing::warn!("taking the change back: {refusal}");
        let words = format!("taken back: {refusal}");
        let back = State {
            generation: self.state.generation + 1,
            history: self.state.history.clone(),
            ..before
        };
        let back = self.told_back(back, &words);
        let cause = Cause::own(words);
        self.commit(back, cause).await?;
        self.catch_up().await;
        Err(refusal)
    }

    /// One transaction, durable. The store is not to be trusted any more when it fails. A new generation is entered in the
    /// history.
    pub(super) async fn commit(
        &mut self,
        mut next: State,
        cause: Cause,
    ) -> Result<(), ManagerError> {
        let Some(store) = self.store.clone() else {
            return Err(ManagerError::Degraded(self.health_reason.clone()));
        };
        let before = self.state.clone();
        let announced = (before.clone(), cause.author.clone(), cause.words.clone());
        if next.generation != before.generation {
            let undo = codec::history::undo(&before.configuration, &next.configuration);
            let entry = Entry {
                time: unix_now(),
                author: cause.author,
                words: cause.words,
                before: before.generation,
                undo: Some(Arc::new(undo)),
            };
            next.history.push(next.generation, entry);
        }
        let after = next.clone();
        let replace = tokio::task::spawn_blocking(move || store.replace(&before, &after));
        let failure = match timeout(STORE_PATIENCE, replace).await {
            Ok(Ok(Ok(()))) => {
                if let Some(snapshots) = &self.snapshots {
                    snapshots.write(&next);
                }
                let (before, author, words) = announced;
                announce::change(&before, &next, &author, &words);
                self.state = next;
                return Ok(());
            }
            Ok(Ok(Err(error))) => Failure {
                damage: error.is_damage(),
                reason: error.to_string(),
                hangs: false,
            },
            Ok(Err(error)) => Failure {
                damage: false,
                reason: error.to_string(),
                hangs: false,
            },
            Err(_) => Failure {
                damage: false,
                reason: format!(
                    "the disk has not answered for {} s",
                    STORE_PATIENCE.as_secs()
                ),
                hangs: true,
            },
        };
        Err(self.degrade(failure))
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
        self.placed = plan.owned;
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
        if !self.known {
            return true;
        }
        let plan = match self.plan(&self.state.clone()).await {
            Ok(plan) => plan,
            Err(error) => {
                tracing::error!("{error}");
                return false;
            }
        };
        if plan.owned != self.state.addresses && self.store.is_none() {
            // They are needed for forwarding; the marks on them are as good as the record.
            self.state.addresses = plan.owned.clone();
        }
        if plan.owned != self.state.addresses {
            let next = State {
                addresses: plan.owned.clone(),
                ..self.state.clone()
            };
            // No new generation: nobody but us has to know.
            let cause = Cause::own(String::new());
            if let Err(error) = self.commit(next, cause).await {
                tracing::error!("{error}");
                return false;
            }
        }
        let in_step = self.in_step();
        self.miss_addresses(&plan.add);
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
        settled &= self.remove_addresses(moved).await;
        if settled {
            self.addresses_are(plan.owned);
        }
        settled
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

    /// What has drained, for people.
    fn drained(&self, gone: &[RetiredKey]) -> String {
        let retired = &self.state.retired;
        let name = |key: &RetiredKey| match key {
            RetiredKey::Rule(rule) => {
                let record = retired.rules.get(rule);
                record.map_or(format!("rule #{rule}"), |r| format!("rule {}", r.rule.name))
            }
            RetiredKey::Server(rule, server) => {
                let record = retired.servers.get(&(*rule, *server));
                record.map_or(format!("server #{server}"), |r| r.server.id.clone())
            }
        };
        let names: Vec<String> = gone.iter().map(name).collect();
        cause_words("drained", &names)
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
        tracing::info!("{}", self.drained(&gone));
        let cause = Cause::own(self.drained(&gone));
        if let Err(error) = self.advance(next, cause).await {
            tracing::error!("{error}");
        }
    }
}

/// Why there is a new generation.
pub(super) struct Cause {
    /// Who wants it.
    pub author: Author,
    /// What was done, for people.
    pub words: String,
}

impl Cause {
    /// Of our own accord.
    pub(super) fn own(words: String) -> Cause {
        Cause {
            author: Author::Manager,
            words,
        }
    }
}

/// What was done and to what, of which as many are named as can be read at a glance.
pub(super) fn cause_words(what: &str, names: &[String]) -> String {
    let mut words = what.to_owned();
    for (index, name) in names.iter().enumerate() {
        if index == NAMED {
            words.push_str(&format!(" and {} more", names.len() - NAMED));
            break;
        }
        words.push_str(if index == 0 { " " } else { ", " });
        words.push_str(name);
    }
    words
}

/// Whether two states need the same addresses for certain, because they have the same rules and VRRP instances.
fn same_addresses(a: &State, b: &State) -> bool {
    a.configuration.rules.is_copy_of(&b.configuration.rules)
        && a.configuration.vrrp.is_copy_of(&b.configuration.vrrp)
        && a.retired.rules.is_copy_of(&b.retired.rules)
}

/// Seconds since the machine was booted, as the fast path counts them. (Not /proc/uptime, which a confined service does
/// not see.)
pub(super) fn boot_seconds() -> u32 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u32::try_from(now.tv_sec).unwrap_or(u32::MAX)
}

/// The second since boot at which the Unix clock was at so many milliseconds; that after the boot if it was earlier.
pub(super) fn boot_second(millis: u64) -> u32 {
    let ago = (unix_now() * 1000).saturating_sub(millis) / 1000;
    let ago = u32::try_from(ago).unwrap_or(u32::MAX);
    boot_seconds().saturating_sub(ago).max(1)
}

/// Seconds of the Unix clock.
pub(super) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
