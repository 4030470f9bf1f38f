//! What becomes of the manager's part in health checks: whom to test follows the configuration, and what was found reaches
//! the fast path at once, without a write to the store.

use std::collections::BTreeSet;

use ilb_forwarder::spec::{RuleId, ServerId};
use ilb_node::journal::events::{SERVER_DOWN, SERVER_UP};
use libilb::health::{HealthState, ServerHealth};
use libilb::healthfilter::HealthFilter;
use libilb::model::{Configuration, Rule, Server};
use tokio::sync::oneshot;

use super::error::ManagerError;
use super::steps::{boot_second, boot_seconds};
use super::{Manager, ManagerHandle, notices, standing};
use crate::addresses::Addresses;
use crate::checks::wanted::{self, Difference};
use crate::checks::{News, Order};
use crate::compile::Surroundings;
use crate::dataplane::DataPlane;
use crate::state::State;
use crate::vigour::Vigours;

impl ManagerHandle {
    /// What is known of the servers that a filter wants, by rule and server.
    ///
    /// # Errors
    /// [`ManagerError::Model`] for a rule or server that does not exist.
    pub async fn health_results(
        &self,
        filter: &HealthFilter,
    ) -> Result<Vec<ServerHealth>, ManagerError> {
        let view = self.view();
        let configuration = &view.state.configuration;
        if let Some(rule) = &filter.rule {
            configuration.expect_rule(rule)?;
        }
        if let Some(server) = &filter.server {
            configuration.expect_server(server)?;
        }
        let (reply, answer) = oneshot::channel();
        let asked = self.checks.send(Order::Report(reply));
        asked.map_err(|_| ManagerError::Stopping)?;
        let mut all = answer.await.map_err(|_| ManagerError::Stopping)?;
        all.retain(|server| filter.wants(&server.rule, &server.server));
        Ok(all)
    }
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// Takes note of what a new state means for health checks, before the fast path hears of it, and says what the
    /// engine has to be told afterwards. `remembered` is whether what is in the book counts for who was not tested before.
    pub(super) fn follow_checks(
        &mut self,
        before: &Configuration,
        after: &State,
        remembered: bool,
    ) -> Difference {
        let affected = wanted::affected(before, &after.configuration);
        let mut difference = wanted::difference(before, &after.configuration, &affected);
        let now = boot_seconds();
        for target in &mut difference.changed {
            let id = target.id;
            if !target.enabled || is_tested(before, id.rule, id.server) {
                continue;
            }
            let known = self.book.of(id.rule, id.server).filter(|_| remembered);
            target.remembered = known.map(|news| news.state);
            let (place, vigours) = ((id.rule, id.server), &mut self.surroundings.vigours);
            match known {
                Some(news) => drop(vigours.learn(place, !news.up, news.weight, now)),
                None if target.check.alpha => vigours.doubt(place),
                None => drop(vigours.learn(place, false, None, now)),
            }
            if known.is_none() {
                self.book.forget(id);
            }
        }
        for id in &difference.gone {
            self.book.forget(*id);
        }
        // What is found out about a server counts for its last connections, too.
        self.surroundings.vigours.retain(|rule, server| {
            let retired = &after.retired;
            is_tested(&after.configuration, rule, server)
                || retired.rules.contains_key(&rule)
                || retired.servers.contains_key(&(rule, server))
        });
        for number in affected {
            self.settle(&after.configuration, number);
        }
        difference
    }

    /// Does what news of servers demand.
    pub(super) async fn learn(&mut self, all: Vec<News>) {
        let now = boot_seconds();
        let mut different = false;
        let mut remember = false;
        let mut rules = BTreeSet::new();
        for mut news in all {
            let place = (news.id.rule, news.id.server);
            let configuration = &self.state.configuration;
            let Some((rule, server)) = checked(configuration, place.0, place.1) else {
                continue;
            };
            // A target that is new to the engine is told of without a reason: what is remembered has one.
            let same = |known: &News| {
                (known.state, known.up, known.weight) == (news.state, news.up, news.weight)
                    && (news.why.is_empty() || (&known.why, known.since) == (&news.why, news.since))
            };
            let known = self.book.of(place.0, place.1);
            if known.is_some_and(same) {
                continue;
            }
            news.changes += known.map_or(0, |known| known.changes);
            announce(rule, server, &news);
            let was_dead = self.surroundings.vigours.of(place.0, place.1).dead;
            let event = notices::event(known.map(|known| known.state), was_dead, &news);
            self.notify(event.and_then(|event| notices::of_server(rule, server, event, &news)));
            if news.state != HealthState::Disabled && rule.enabled && server.enabled {
                let (dead, weight) = (!news.up, news.weight);
                if self.surroundings.vigours.learn(place, dead, weight, now) {
                    different = true;
                    rules.insert(place.0);
                }
                remember = true;
            }
            self.book.enter(news);
        }
        if !rules.is_empty() {
            let configuration = self.state.configuration.clone();
            for number in rules {
                self.settle(&configuration, number);
            }
        }
        if different
            && self.link.peer.is_some()
            && let Err(reason) = self.push().await
        {
            tracing::error!("the fast path refuses what health checks found: {reason}");
        }
        if remember
            && let Some(memory) = &self.memory
            && let Err(error) = memory.write(&self.book)
        {
            tracing::warn!("what health checks found cannot be kept for a restart: {error}");
        }
    }

    /// Finds out how a rule stands with its servers now.
    fn settle(&mut self, configuration: &Configuration, number: RuleId) {
        let Surroundings {
            standings, vigours, ..
        } = &mut self.surroundings;
        let before = standings.of(number).copied();
        if !standings.settle(configuration, number, vigours) {
            return;
        }
        let rule = configuration.rules.by_number(number);
        if let (Some(rule), Some(before), Some(after)) = (rule, before, standings.of(number)) {
            standing::announce(rule, &before, after);
        }
    }

    /// Begins with what is remembered of an earlier run.
    pub(super) fn begin_checks(&mut self) {
        let configuration = &self.state.configuration;
        self.book
            .retain(|id| checked(configuration, id.rule, id.server).is_some());
        // Also of servers that only serve their last connections.
        for news in self.book.iter() {
            let place = (news.id.rule, news.id.server);
            let vigours = &mut self.surroundings.vigours;
            match news.state {
                HealthState::UnInit if !news.up => vigours.doubt(place),
                _ => drop(vigours.learn(place, !news.up, news.weight, boot_second(news.since))),
            }
        }
        let state = self.state.clone();
        let targets = self.follow_checks(&Configuration::default(), &state, true);
        self.checks.test(targets);
    }

    /// Tells a fast path that has just come, and forwards by the present generation, what is believed of servers.
    pub(super) async fn repeat_vigours(&mut self) {
        let given = self.link.given.as_ref();
        let differ = given.is_some_and(|given| {
            let Surroundings {
                vigours, standings, ..
            } = &self.surroundings;
            let given = &given.surroundings;
            vigours.different(&given.vigours).next().is_some()
                || standings.different(&given.standings).next().is_some()
        });
        if differ && let Err(reason) = self.push().await {
            tracing::error!("the fast path refuses what health checks found: {reason}");
        }
    }

    /// What the fast path may believe of servers that are tested, which is unknown when it comes: other than what we do, of
    /// each rule that has a check.
    pub(super) fn unknown_vigours(&self) -> Vigours {
        let mut vigours = self.surroundings.vigours.clone();
        for rule in self.state.configuration.rules.values() {
            if rule.health_check.is_some() && rule.enabled {
                // No server has this number.
                vigours.learn((rule.number, 0), true, None, 0);
            }
        }
        vigours
    }
}

fn announce(rule: &Rule, server: &Server, news: &News) {
    let (group, rule) = (&*rule.servergroup, &*rule.name);
    let (server, why, state) = (&*server.id, &news.why, news.state.name());
    // They begin with layer and code, such as L4/refused.
    let code = why.split(' ').next().unwrap_or_default();
    match news.state {
        HealthState::Dead | HealthState::Unreach => tracing::warn!(
            message_id = SERVER_DOWN.id,
            ilb_rule = rule,
            ilb_server = server,
            ilb_group = group,
            ilb_state = state,
            ilb_code = code,
            "server {server} of rule {rule} is {state}: {why}"
        ),
        // Nothing new of its state, only another weight, which may change with every reading.
        HealthState::Alive if why.is_empty() => {
            tracing::debug!(weight = ?news.weight, "weight of server {server} of rule {rule}");
        }
        HealthState::Alive => tracing::info!(
            message_id = SERVER_UP.id,
            ilb_rule = rule,
            ilb_server = server,
            ilb_group = group,
            ilb_state = state,
            ilb_code = code,
            "server {server} of rule {rule} is alive: {why}"
        ),
        HealthState::UnInit | HealthState::Disabled => {
            tracing::debug!("server {server} of rule {rule} is {}", news.state);
        }
    }
}

/// A rule with a health check and one of its servers.
fn checked(
    configuration: &Configuration,
    rule: RuleId,
    server: ServerId,
) -> Option<(&Rule, &Server)> {
    let rule = configuration.rules.by_number(rule)?;
    rule.health_check.as_ref()?;
    let servers = &configuration.group_of(rule)?.servers;
    // They are in the order of their numbers.
    let at = servers.binary_search_by_key(&server, |item| item.number);
    Some((rule, &servers[at.ok()?]))
}

/// Whether a server is tested for a rule.
fn is_tested(configuration: &Configuration, rule: RuleId, server: ServerId) -> bool {
    checked(configuration, rule, server)
        .is_some_and(|(rule, server)| rule.enabled && server.enabled)
}
