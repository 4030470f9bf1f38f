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
//! [`Pairing`] speaks with the other node of a pair, if there is one (`crate::pair`).
//! [`Failover`] speaks VRRP, knows of the fast path's health, and puts up the addresses of instances by itself.
//! [`Checks`] are told whom to test, and what they find reaches the fast path by the same way as a change, but for the store.
//! [`Sources`] are asked where servers are found, and what they hear becomes a change like any other.
//!
//! A user action is answered when it is durable, the fast path has acknowledged it (if it is there), its addresses are on
//! their interfaces, and the D-Bus objects show it. Without a fast path a change is accepted all the same: the configuration
//! says what is wanted, and a fast path gets it as soon as it comes.

mod accept;
mod announce;
mod apply;
mod catching_up;
pub mod change;
mod command;
pub mod describe;
mod drift;
pub mod error;
mod fastpath_description;
pub mod following;
mod handle;
mod handover;
mod health;
mod ledger_file;
mod link;
mod notices;
mod pair;
mod pair_description;
mod questions;
mod recovery;
mod restore;
mod snapshot_writer;
mod sources;
mod standing;
pub mod statistics;
mod steps;
#[cfg(test)]
mod tests;
pub mod view;
mod vrrp;
mod work;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use libilb::map::Map;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::addresses::Addresses;
use crate::checks::Checks;
use crate::checks::book::Book;
use crate::checks::memory::Memory;
use crate::compile::Surroundings;
use crate::dataplane::DataPlane;
use crate::notify::Notifier;
use crate::pair::Place;
use crate::pair::keep::Keep;
use crate::retired::RetiredKey;
use crate::sources::Sources;
use crate::state::State;
use crate::store::snapshots::Snapshots;
use crate::store::{Keeper, Store};
use accept::Accepting;
pub use command::{Command, Live};
use drift::Drifts;
use following::Following;
pub use handle::ManagerHandle;
use ledger_file::LedgerFile;
use link::Link;
use pair::Pairing;
use recovery::Recovery;
use snapshot_writer::SnapshotWriter;
use sources::Followers;
use statistics::Ledger;
pub use statistics::Numbers;
use view::View;
use vrrp::Failover;

/// Commands that may wait; more senders wait for room.
const QUEUE: usize = 64;

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
    /// Who asks where servers are found.
    pub sources: Sources,
    /// Who runs commands when servers and quorums come and go.
    pub notifier: Notifier,
    /// Where what they find is kept for a restart.
    pub memory: Option<Memory>,
    /// Who speaks VRRP.
    pub vrrp: ilb_vrrp::Driver,
    /// What is kept of the pair.
    pub pair: Keep,
    /// Where to listen for the other node, unless it is said otherwise.
    pub listen: Place,
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
    followers: Followers,
    notifier: Notifier,
    memory: Option<Memory>,
    /// What health checks said last.
    book: Book,
    vrrp: Failover,
    accepting: Accepting,
    pair: Pairing,
    following: Following,
    link: Link,
    /// What the fast path was told of other nodes.
    told_of_others: handover::Told,
    ledger: Ledger,
    ledger_file: Option<LedgerFile>,
    /// What was found other than it should be.
    drift: Drifts,
    /// Addresses that we have put on interfaces, or found there, as they should be.
    placed: Map<IpAddr, String>,
    /// How often in a row a retired item had no connections.
    idle: BTreeMap<RetiredKey, u32>,
    /// When the change that waits for its confirmation is taken back.
    confirm_by: Option<Instant>,
    commands: mpsc::Receiver<Command>,
    view: watch::Sender<Arc<View>>,
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
            vrrp: Failover::new(start.vrrp),
            accepting: Accepting::new(&start.interfaces),
            pair: Pairing::start(start.pair),
            following: Following::default(),
            told_of_others: handover::Told::default(),
            followers: Followers::new(start.sources),
            notifier: start.notifier,
            ledger,
            ledger_file,
            drift: Drifts::default(),
            placed: Map::default(),
            idle: BTreeMap::new(),
            confirm_by: None,
            commands,
            view,
            database: start.database.clone(),
        };
        manager.begin_following();
        manager.begin_checks();
        manager.begin_sources();
        manager.view.send_replace(Arc::new(manager.look()));
        let handle = ManagerHandle {
            checks: manager.checks.orders(),
            commands: sender,
            view: viewer,
            database: start.database.into(),
            interfaces: start.interfaces.into(),
            listen: start.listen,
            snapshots: start.snapshots,
            previews: Arc::new(Semaphore::new(1)),
        };
        (manager, handle)
    }
}
