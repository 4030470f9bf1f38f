//! The one owner of the configuration. Everybody else sends it messages or reads the [`View`] that it publishes.
//!
//! ```text
//!  D-Bus methods ──Command (mpsc, oneshot reply)──▶ ┌─────────┐ ──replace──▶ Store (blocking thread)
//!                                                   │         │ ──State────▶ snapshot writer (watch, newest wins)
//!  D-Bus properties ◀──View (watch)──────────────── │ Manager │ ──Request──▶ DataPlane (link task ◀─▶ ilb-fastpath)
//!                                                   │         │ ◀─Event─────  "  (came, went)
//!  D-Bus objects ◀──publish(before, after)───────── │         │ ──add/remove▶ Addresses (rtnetlink)
//!                                                   └─────────┘ ◀─changed────  "
//!                      timer, 1 s, only while something is retired ──▲
//! ```
//!
//! [`Checks`] are told whom to test, and what they find reaches the fast path by the same way as a change, but for the store.
//!
//! A user action is answered when it is durable, the fast path has acknowledged it (if it is there), its addresses are on
//! their interfaces, and the D-Bus objects show it. Without a fast path a change is accepted all the same: the configuration
//! says what is wanted, and a fast path gets it as soon as it comes.

mod apply;
pub mod change;
pub mod describe;
pub mod error;
mod fastpath_description;
mod health;
mod ledger_file;
mod questions;
mod recovery;
mod restore;
mod snapshot_writer;
pub mod statistics;
mod steps;
#[cfg(test)]
mod tests;
pub mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ilb_forwarder::spec::Limits;
use ilb_node::control::{Hello, Request, Response};
use libilb::apply::ApplyOptions;
use libilb::describe::Description;
use libilb::document;
use libilb::stats;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::addresses::Addresses;
use crate::author::Author;
use crate::checks::book::Book;
use crate::checks::memory::Memory;
use crate::checks::{Checks, Order};
use crate::compile::{Given, Surroundings};
use crate::dataplane::{DataPlane, Event};
use crate::retired::RetiredKey;
use crate::state::State;
use crate::store::snapshots::Snapshots;
use crate::store::{Keeper, Store};
use change::Change;
use error::ManagerError;
use ledger_file::LedgerFile;
use libilb::history::Report;
use recovery::Recovery;
use snapshot_writer::SnapshotWriter;
use statistics::Ledger;
pub use statistics::Numbers;
use view::View;

/// How long addresses may be other than they should be when their correction failed, or nobody was told of a change.
const CORRECTION: Duration = Duration::from_secs(1);
const INSPECTION: Duration = Duration::from_secs(60);

/// How often retired rules and servers are looked after, while there are any.
const SUPERVISION: Duration = Duration::from_secs(1);

/// Commands that may wait; more senders wait for room.
const QUEUE: usize = 64;

/// What can be asked of the manager.
#[derive(Debug)]
pub enum Command {
    /// Do this, durably.
    Change {
        /// Who asks for it.
        author: Author,
        /// What.
        change: Change,
        /// Names or ids of what was changed.
        reply: oneshot::Sender<Result<Vec<String>, ManagerError>>,
    },
    /// Make a document the configuration, durably.
    Apply {
        /// Who asks for it.
        author: Author,
        /// Its text.
        document: String,
        /// How.
        options: ApplyOptions,
        /// What was changed.
        reply: oneshot::Sender<Result<document::Report, ManagerError>>,
    },
    /// Keep the change that waits for its confirmation.
    Confirm {
        /// Who asks for it.
        author: Author,
        /// Whether one did.
        reply: oneshot::Sender<Result<bool, ManagerError>>,
    },
    /// Take back the change that waits for its confirmation.
    Revert {
        /// Who asks for it.
        author: Author,
        /// Whether one did.
        reply: oneshot::Sender<Result<bool, ManagerError>>,
    },
    /// Counters of this moment.
    Statistics {
        /// All of them.
        reply: oneshot::Sender<stats::Statistics>,
    },
    /// All sums of this moment, for machines.
    Numbers {
        /// All of them.
        reply: oneshot::Sender<Numbers>,
    },
    /// Configuration and state of this moment.
    Describe {
        /// All of it.
        reply: oneshot::Sender<Description>,
    },
    /// Go back to the configuration of this generation, durably.
    Rollback {
        /// Who asks for it; `None` to see what would change.
        author: Option<Author>,
        /// The generation.
        generation: u64,
        /// What is different, or would be.
        reply: oneshot::Sender<Result<Report, ManagerError>>,
    },
    /// Say that you are there, and go by these settings from now on, if there are any.
    Attend {
        /// The new settings.
        settings: Option<Live>,
        /// Sent when they are in force.
        reply: oneshot::Sender<()>,
    },
    /// Something that only the fast path knows.
    Ask {
        /// The question.
        request: Request,
        /// Its answer.
        reply: oneshot::Sender<Result<Response, ManagerError>>,
    },
}

/// Settings of the node that may change while the manager runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Whether addresses are managed at all.
    pub manage_addresses: bool,
    /// What the node as a whole lets in.
    pub limits: Limits,
}

/// Sends commands. A clone is cheap.
#[derive(Debug, Clone)]
pub struct ManagerHandle {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<View>>,
    checks: mpsc::UnboundedSender<Order>,
    database: Arc<str>,
    interfaces: Arc<[String]>,
    snapshots: Option<Snapshots>,
    /// One preview at a time: they are for everybody, and a large one is work.
    previews: Arc<Semaphore>,
}

impl ManagerHandle {
    /// Does a change and waits until it is in force.
    ///
    /// # Errors
    /// [`ManagerError`]; nothing was changed.
    pub async fn change(
        &self,
        author: Author,
        change: Change,
    ) -> Result<Vec<String>, ManagerError> {
        self.ask(|reply| Command::Change {
            author,
            change,
            reply,
        })
        .await?
    }

    /// The counters of this moment.
    ///
    /// # Errors
    /// [`ManagerError::Stopping`].
    pub async fn statistics(&self) -> Result<stats::Statistics, ManagerError> {
        self.ask(|reply| Command::Statistics { reply }).await
    }

    /// All sums of this moment, for machines.
    ///
    /// # Errors
    /// [`ManagerError::Stopping`].
    pub async fn numbers(&self) -> Result<Numbers, ManagerError> {
        self.ask(|reply| Command::Numbers { reply }).await
    }

    /// Configuration and state of this moment.
    ///
    /// # Errors
    /// [`ManagerError::Stopping`].
    pub async fn describe(&self) -> Result<Description, ManagerError> {
        self.ask(|reply| Command::Describe { reply }).await
    }

    /// Waits until the manager has done what it was asked before.
    ///
    /// # Errors
    /// [`ManagerError::Stopping`].
    pub async fn attend(&self) -> Result<(), ManagerError> {
        let settings = None;
        self.ask(|reply| Command::Attend { settings, reply }).await
    }

    /// Has the manager go by these settings.
    ///
    /// # Errors
    /// [`ManagerError::Stopping`].
    pub async fn reload(&self, settings: Live) -> Result<(), ManagerError> {
        let settings = Some(settings);
        self.ask(|reply| Command::Attend { settings, reply }).await
    }

    /// Asks the fast path something that changes nothing.
    ///
    /// # Errors
    /// [`ManagerError::Fastpath`] when it does not answer.
    pub async fn ask_fastpath(&self, request: Request) -> Result<Response, ManagerError> {
        self.ask(|reply| Command::Ask { request, reply }).await?
    }

    /// The fast path's interfaces, in its order.
    pub fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// What was published last.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Where the configuration is stored.
    pub fn database(&self) -> &str {
        &self.database
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ManagerError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| ManagerError::Stopping)?;
        answer.await.map_err(|_| ManagerError::Stopping)
    }
}

/// Shows changes to the world.
pub trait Publisher: Send + 'static {
    /// Called after each change, before its author gets an answer.
    fn publish(&mut self, before: &View, after: &View) -> impl Future<Output = ()> + Send;
}

/// What the manager begins with.
pub struct Start<D, A> {
    /// Where states are stored, and what it holds; `None` when it is damaged beyond repair.
    pub store: Option<Arc<dyn Store>>,
    /// What the store holds.
    pub state: State,
    /// What a person should know about the store: why there is none, or that it was rebuilt. Usually empty.
    pub notice: String,
    /// Where the database is, for people.
    pub database: String,
    /// Whether `state` is what the administrator wants: not when nothing could be read.
    pub known: bool,
    /// How to get a store again when it cannot be written.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// Where snapshots go; `None` when nothing could be read.
    pub snapshots: Option<Snapshots>,
    /// The fast path.
    pub dataplane: D,
    /// The interfaces' addresses.
    pub addresses: A,
    /// Who tests servers.
    pub checks: Checks,
    /// Where what they find is kept for a restart.
    pub memory: Option<Memory>,
    /// Settings of the node that may change.
    pub live: Live,
    /// Where counters are kept over restarts; `None` to begin at zero each time.
    pub statistics: Option<PathBuf>,
    /// The fast path's interfaces, in its order.
    pub interfaces: Vec<String>,
}

/// See the module.
pub struct Manager<D, A> {
    store: Option<Arc<dyn Store>>,
    known: bool,
    keeper: Option<Arc<dyn Keeper>>,
    recovery: Recovery,
    state: State,
    database: String,
    health: libilb::describe::State,
    health_reason: String,
    snapshots: Option<SnapshotWriter>,
    snapshot_files: Option<Snapshots>,
    dataplane: D,
    addresses: A,
    manage_addresses: bool,
    surroundings: Surroundings,
    checks: Checks,
    memory: Option<Memory>,
    /// What health checks said last.
    book: Book,
    link: Link,
    ledger: Ledger,
    ledger_file: Option<LedgerFile>,
    /// How often in a row a retired item had no connections.
    idle: BTreeMap<RetiredKey, u32>,
    /// When the change that waits for its confirmation is taken back.
    confirm_by: Option<Instant>,
    commands: mpsc::Receiver<Command>,
    view: watch::Sender<Arc<View>>,
}

/// What is known of the fast path.
#[derive(Debug, Default)]
struct Link {
    /// Who it is, while it is there.
    peer: Option<Hello>,
    /// The generation that it acknowledged last.
    applied: u64,
    /// It may have another configuration under the same generation: apply in any case.
    doubtful: bool,
    /// What it forwards by, as far as we know it wholly: what comes next can be a difference to that.
    given: Option<Given>,
}

impl<D: DataPlane, A: Addresses> Manager<D, A> {
    /// A manager that does nothing yet, and the handle to send it commands.
    pub fn new(start: Start<D, A>) -> (Manager<D, A>, ManagerHandle) {
        let (sender, commands) = mpsc::channel(QUEUE);
        let degraded = start.store.is_none();
        let kept = start.statistics.as_deref().map(LedgerFile::open);
        let (ledger_file, kept) = kept.unzip();
        let mut ledger = kept.unwrap_or_default();
        if ledger.created == 0 {
            ledger.created = ledger_file::now();
        }
        let (view, viewer) = watch::channel(Arc::new(View::default()));
        let mut manager = Manager {
            link: Link {
                doubtful: !start.notice.is_empty(),
                ..Link::default()
            },
            snapshots: start
                .snapshots
                .clone()
                .map(|files| SnapshotWriter::start(files, &start.state)),
            snapshot_files: start.snapshots.clone(),
            recovery: match degraded && start.known {
                true => Recovery::reopen(),
                false => Recovery::default(),
            },
            store: start.store,
            known: start.known,
            keeper: start.keeper,
            state: start.state,
            health: match degraded {
                true => libilb::describe::State::Degraded,
                false => libilb::describe::State::Ok,
            },
            health_reason: start.notice,
            dataplane: start.dataplane,
            addresses: start.addresses,
            manage_addresses: start.live.manage_addresses,
            surroundings: Surroundings {
                limits: start.live.limits,
                ..Surroundings::default()
            },
            book: start.memory.as_ref().map(Memory::load).unwrap_or_default(),
            memory: start.memory,
            checks: start.checks,
            ledger,
            ledger_file,
            idle: BTreeMap::new(),
            confirm_by: None,
            commands,
            view,
            database: start.database.clone(),
        };
        manager.begin_checks();
        manager.view.send_replace(Arc::new(manager.look()));
        let handle = ManagerHandle {
            checks: manager.checks.orders(),
            commands: sender,
            view: viewer,
            database: start.database.into(),
            interfaces: start.interfaces.into(),
            snapshots: start.snapshots,
            previews: Arc::new(Semaphore::new(1)),
        };
        (manager, handle)
    }

    /// Works until `stop` resolves. Addresses and the fast path are left as they are, so that forwarding goes on.
    pub async fn run<P: Publisher>(mut self, mut publisher: P, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        // What an earlier run has left behind goes even if no fast path ever comes.
        self.settle_addresses().await;
        self.watch_pending();
        let mut inspection = Instant::now() + CORRECTION;
        let mut supervision = Instant::now() + SUPERVISION;
        loop {
            let supervise = !self.state.retired.is_empty();
            let recovery = self.recovery.due();
            let confirm_by = self.confirm_by;
            tokio::select! {
                () = &mut stop => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.handle(command, &mut publisher).await,
                    None => break,
                },
                event = self.dataplane.event() => self.link_changed(event).await,
                news = self.checks.news() => self.learn(news).await,
                () = self.addresses.changed() => inspection = self.inspect().await,
                () = sleep_until(inspection) => inspection = self.inspect().await,
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
                    Ok(names) => tracing::info!("{author}: {}: {names:?}", change.words()),
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
                    Ok(report) => tracing::info!("{author}: apply: {:?}", report.names()),
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
            Command::Ask { request, reply } => drop(reply.send(self.ask(request).await)),
            Command::Numbers { reply } => {
                self.read_statistics().await;
                // A caller that has gone away does not need them.
                let _ = reply.send(self.ledger.numbers());
            }
            Command::Describe { reply } => {
                self.read_statistics().await;
                let present = self.present_addresses().await;
                drop(reply.send(describe::describe(
                    &self.look(),
                    &self.ledger,
                    &self.database,
                    present.as_ref(),
                )));
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

    async fn ask(&mut self, request: Request) -> Result<Response, ManagerError> {
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
    async fn read_statistics(&mut self) -> Option<ilb_node::control::Statistics> {
        self.link.peer.as_ref()?;
        match self.dataplane.request(Request::Statistics).await {
            Ok(Response::Statistics(statistics)) => {
                self.ledger.enter(&statistics);
                let state = &self.state;
                self.ledger.prune(&state.configuration, &state.retired);
                Some(statistics)
            }
            Ok(other) => {
                tracing::warn!("{}", crate::dataplane::unexpected(&other));
                None
            }
            Err(error) => {
                tracing::warn!("no statistics: {error}");
                self.link_lost();
                None
            }
        }
    }

    async fn publish<P: Publisher>(&mut self, publisher: &mut P) {
        let after = Arc::new(self.look());
        let before = self.view.borrow().clone();
        if before != after {
            self.view.send_replace(after.clone());
            publisher.publish(&before, &after).await;
        }
    }

    fn look(&self) -> View {
        use libilb::describe::Fastpath;
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
            book: self.book.clone(),
        }
    }

    /// Whether the fast path is there and forwards by the present state.
    fn in_step(&self) -> bool {
        self.link.peer.is_some()
            && self.link.applied == self.state.generation
            && !self.link.doubtful
    }

    async fn link_changed(&mut self, event: Event) {
        match event {
            Event::Down(reason) => {
                tracing::warn!("{reason}");
                self.link_lost();
            }
            Event::Up(hello) => {
                tracing::info!(
                    "fast path connected: process {}, generation {}; ours is {}",
                    hello.pid,
                    hello.generation,
                    self.state.generation
                );
                self.link.applied = hello.generation;
                // Settings may have changed while no manager was running.
                self.link.doubtful |= hello.limits != self.surroundings.limits;
                self.link.peer = Some(hello);
                let in_step = self.in_step();
                self.link.given = in_step.then(|| Given {
                    surroundings: Surroundings {
                        vigours: self.unknown_vigours(),
                        ..self.surroundings.clone()
                    },
                    ..self.give()
                });
                self.idle.clear();
                if self.known {
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

    fn link_lost(&mut self) {
        self.link.peer = None;
        self.link.given = None;
        self.idle.clear();
        self.ledger.close();
    }
}
