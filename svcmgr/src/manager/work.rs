//! The manager at work: one thing after the other, and after each what there is to see is shown.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use libilb::describe::{Description, Fastpath};
use tokio::time::{Instant, sleep_until};

use super::command::{Command, Live};
use super::ledger_file::LedgerFile;
use super::view::View;
use super::{Manager, Publisher, describe, drift, notices};
use crate::addresses::Addresses;
use crate::dataplane::DataPlane;

/// How long addresses may be other than they should be when their correction failed, or nobody was told of a change.
const CORRECTION: Duration = Duration::from_secs(1);
const INSPECTION: Duration = Duration::from_secs(60);

/// How often retired rules and servers are looked after, while there are any.
const SUPERVISION: Duration = Duration::from_secs(1);

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// Works until `stop` resolves. Addresses and the fast path are left as they are, so that forwarding goes on.
    pub async fn run<P: Publisher>(mut self, mut publisher: P, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        // An earlier run may not have come to telling it.
        self.notify(notices::of_quorums(&View::default(), &self.look()));
        self.publish(&mut publisher).await;
        // What an earlier run has left behind goes even if no fast path ever comes.
        self.settle_addresses().await;
        self.watch_pending();
        let mut inspection = Instant::now() + CORRECTION;
        let mut supervision = Instant::now() + SUPERVISION;
        let mut look = Instant::now() + drift::LOOK;
        loop {
            let supervise = !self.state.retired.is_empty();
            let recovery = self.recovery.due();
            let confirm_by = self.confirm_by;
            let pair_due = self.pair.due();
            let follow_due = self.following.due();
            tokio::select! {
                () = &mut stop => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.handle(command, &mut publisher).await,
                    None => break,
                },
                event = self.dataplane.event() => self.link_changed(event).await,
                news = self.checks.news() => self.learn(news).await,
                () = self.vrrp.hear() => {}
                news = self.followers.asking.news() => self.hear(news).await,
                event = self.pair.link.event() => self.pair_event(event).await,
                () = sleep_until(pair_due.unwrap_or(supervision)), if pair_due.is_some() => {}
                () = sleep_until(follow_due.unwrap_or(supervision)), if follow_due.is_some() => {
                    self.look_again().await;
                }
                () = self.addresses.changed() => inspection = self.inspect().await,
                () = sleep_until(inspection) => inspection = self.inspect().await,
                () = sleep_until(look), if self.link.peer.is_some() => {
                    self.look_at_fastpath().await;
                    look = Instant::now() + drift::LOOK;
                }
                () = sleep_until(confirm_by.unwrap_or(supervision)), if confirm_by.is_some() => {
                    self.not_confirmed().await;
                }
                () = sleep_until(self.ledger_file.as_ref().map_or(supervision, LedgerFile::due)),
                    if self.ledger_file.is_some() => self.keep_ledger().await,
                () = sleep_until(supervision), if supervise => {
                    self.supervise().await;
                    supervision = Instant::now() + SUPERVISION;
                }
                () = sleep_until(recovery.unwrap_or(supervision)), if recovery.is_some() => {
                    self.recover().await;
                }
            }
            self.publish(&mut publisher).await;
        }
        // First of all: another node shall not wait.
        self.vrrp.stop().await;
        if let Some(store) = self.store.take() {
            // Everything is durable, and the library panics if it cannot write what it likes to write when it is closed.
            std::mem::forget(store);
        }
        self.read_statistics().await;
        if let Some(file) = self.ledger_file {
            file.finish(&self.ledger).await;
        }
        if let Some(snapshots) = self.snapshots {
            snapshots.finish().await;
        }
    }

    /// Looks after the addresses, and says when to look again.
    async fn inspect(&mut self) -> Instant {
        let settled = self.settle_addresses().await;
        Instant::now() + if settled { INSPECTION } else { CORRECTION }
    }

    async fn handle<P: Publisher>(&mut self, command: Command, publisher: &mut P) {
        // A caller that has gone away does not need its answer.
        match command {
            Command::Change {
                author,
                change,
                reply,
            } => {
                let result = self.change(&author, &change).await;
                match &result {
                    Ok(names) if names.is_empty() => {
                        tracing::debug!("{author}: {change:?}: nothing to do")
                    }
                    Ok(names) => tracing::debug!("{author}: {}: {names:?}", change.words()),
                    Err(error) => tracing::info!("{author}: {}: refused: {error}", change.words()),
                }
                self.publish(publisher).await;
                drop(reply.send(result));
            }
            Command::Apply {
                author,
                document,
                options,
                reply,
            } => {
                let result = self.apply(&author, document, options).await;
                match &result {
                    Ok(report) if report.is_empty() => {
                        tracing::debug!("{author}: apply: nothing to do")
                    }
                    Ok(report) => tracing::debug!("{author}: apply: {:?}", report.names()),
                    Err(error) => tracing::info!("{author}: apply: refused: {error}"),
                }
                self.publish(publisher).await;
                drop(reply.send(result));
            }
            Command::Confirm { author, reply } => {
                let result = self.confirm().await;
                tracing::info!("{author}: confirm: {result:?}");
                self.publish(publisher).await;
                drop(reply.send(result));
            }
            Command::Revert { author, reply } => {
                let result = self.revert(author.clone()).await;
                tracing::info!("{author}: revert: {result:?}");
                self.publish(publisher).await;
                drop(reply.send(result));
            }
            Command::Statistics { reply } => {
                self.read_statistics().await;
                drop(reply.send(self.ledger.report(&self.state.configuration)));
            }
            Command::Rollback {
                author,
                generation,
                reply,
            } => {
                let result = self.rollback(author, generation).await;
                self.publish(publisher).await;
                drop(reply.send(result));
            }
            Command::Attend { settings, reply } => {
                if let Some(settings) = settings {
                    self.reload(settings).await;
                }
                // Whoever asked may have gone away.
                let _ = reply.send(());
            }
            Command::Pair(command) => self.handle_pair(command, publisher).await,
            Command::Ask { request, reply } => drop(reply.send(self.ask(request).await)),
            Command::Numbers { reply } => {
                self.read_statistics().await;
                // A caller that has gone away does not need them.
                let mut numbers = self.ledger.numbers();
                numbers.vrrp = self.vrrp.report().await;
                numbers.pair = self.pair_numbers();
                let _ = reply.send(numbers);
            }
            Command::Describe { reply } => {
                self.read_statistics().await;
                self.look_at_fastpath().await;
                let present = self.present_addresses().await;
                let reports = self.vrrp.report().await;
                let pair = self.pair_status().await;
                let description = describe::describe(
                    &self.look(),
                    &reports,
                    &self.ledger,
                    &self.database,
                    present.as_ref(),
                );
                // A caller that has gone away does not need it.
                drop(reply.send(Description {
                    pair,
                    ..description
                }));
            }
        }
    }

    /// Keeps the counters, so that they go on after a restart.
    async fn keep_ledger(&mut self) {
        let began = Instant::now();
        self.read_statistics().await;
        if let Some(file) = &mut self.ledger_file {
            file.write(&self.ledger, began.elapsed());
        }
    }

    async fn reload(&mut self, settings: Live) {
        self.manage_addresses = settings.manage_addresses;
        if self.surroundings.limits != settings.limits {
            self.surroundings.limits = settings.limits;
            // Limits change without a generation.
            self.link.doubtful = true;
        }
        if self.store.is_some() {
            self.catch_up().await;
        }
    }

    async fn present_addresses(&mut self) -> Option<BTreeSet<IpAddr>> {
        match self.addresses.present().await {
            Ok(present) => Some(present.into_iter().map(|item| item.address).collect()),
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        }
    }

    /// Whether the fast path is there and has something to forward by.
    pub(super) fn forwards(&self) -> bool {
        self.link.peer.is_some() && (self.link.applied > 0 || self.in_step())
    }

    pub(super) async fn publish<P: Publisher>(&mut self, publisher: &mut P) {
        self.tend_pair().await;
        self.tend_following().await;
        self.tell_of_others().await;
        let forwards = self.forwards();
        if self.known {
            let configuration = &self.state.configuration;
            let vigours = &self.surroundings.vigours;
            let stance = self.pair.stance();
            self.vrrp.drive(configuration, vigours, forwards, stance);
            self.close_addresses().await;
            self.mind_open_instances();
        }
        let after = Arc::new(self.look());
        let before = self.view.borrow().clone();
        if before != after {
            self.notify(notices::of_quorums(&before, &after));
            self.view.send_replace(after.clone());
            publisher.publish(&before, &after).await;
        }
    }

    /// What there is to see.
    pub(super) fn look(&self) -> View {
        View {
            state: self.state.clone(),
            health: self.health,
            health_reason: self.health_reason.clone(),
            fastpath: match self.link.peer {
                None => Fastpath::Absent,
                Some(_) if self.in_step() => Fastpath::Connected,
                Some(_) => Fastpath::Behind,
            },
            fastpath_generation: self.link.applied,
            drift: self.drift.all(),
            book: self.book.clone(),
            vigours: self.surroundings.vigours.clone(),
            standings: self.surroundings.standings.clone(),
            vrrp: self.vrrp_standing(),
            followers: self.followers.all.clone(),
            following: self.follow_status(),
        }
    }
}
