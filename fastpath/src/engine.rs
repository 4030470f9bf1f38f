//! The control thread's loop: the one place where everything that changes comes together, one thing after the other.
//!
//! ```text
//!   kernel ──netlink──▶ ┌────────┐ ──publish──▶ Board ──▶ workers
//!   workers ────Ask───▶ │ engine │ ──resolve──▶ kernel
//!   clients ──Command─▶ │        │ ──follow───▶ Steering (XDP maps)
//!   signals ──────────▶ └────────┘ ──write────▶ snapshot file
//! ```

mod neighbours;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ilb_forwarder::network::PortIndex;
use ilb_forwarder::spec::{SnapshotSpec, SpecChange};
use ilb_forwarder::{Snapshot, Table, View};
use ilb_node::control::{Hello, PROTOCOL_VERSION, PeerSpec, Request, Response, Statistics};
use ilb_node::journal::events::{GENERATION_APPLIED, GENERATION_REFUSED};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::answers;
use crate::board::{Ask, Board};
use crate::control::Command;
use crate::drift::Drifts;
use crate::error::StartError;
use crate::handover::Handover;
use crate::last_snapshot::Writer;
use crate::netlink::{Event, Netlink, NetlinkError};
use crate::notify::notify;
use crate::peer::Peers;
use crate::picture::{Input, LinkChange, Picture, neighbour_address};
use crate::reception::Reception;
use crate::reload::Reload;
use crate::statistics::{Counted, Departed, collect, collect_of};
use crate::steering::Steering;
use crate::sweeper::Sweeper;
use crate::watchdog::Watchdog;

/// How long changes in the network are collected before the workers get a new picture.
const COALESCE: Duration = Duration::from_millis(5);
/// Listing routes may take at most one part in so many of the time.
const LISTING_SHARE: u32 = 5;
/// Time between two looks at neighbours that matter.
const CHECK: Duration = Duration::from_secs(5);
/// Time after which a neighbour in doubt is asked about again.
const DOUBT: Duration = Duration::from_secs(20);
/// Time in which a request for one neighbour is not repeated.
const REPEAT: Duration = Duration::from_millis(500);
/// Time in which every worker must take up a new view. Opening sockets anew may hold one up for seconds.
const TAKE_UP: Duration = Duration::from_secs(15);
/// Time after which something that has failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Longer than anybody waits: for timers that are not used.
const NEVER: Duration = Duration::from_secs(1 << 30);
/// Time that a count of connections may take when statistics wait for it.
const COUNT: Duration = Duration::from_secs(5);

/// What the engine is made of.
pub struct Parts {
    /// Where views are published.
    pub board: Arc<Board>,
    /// XDP.
    pub steering: Arc<Steering>,
    /// Which worker serves what.
    pub reception: Arc<Reception>,
    /// The kernel.
    pub netlink: Netlink,
    /// What it has said so far.
    pub picture: Picture,
    /// What the workers have of it.
    pub input: Input,
    /// The view that the board began with.
    pub view: Arc<View>,
    /// Connections.
    pub table: Arc<Table>,
    /// Their timer.
    pub sweeper: Sweeper,
    /// All counters.
    pub counted: Vec<Counted>,
    /// The other node.
    pub peers: Peers,
    /// Keeps the last snapshot.
    pub writer: Writer,
    /// Differs between any two starts.
    pub start_id: u64,
    /// Who waits for signs of life.
    pub watchdog: Option<Watchdog>,
    /// What SIGHUP asks for.
    pub reload: Reload,
}

/// See the module's text.
pub struct Engine {
    parts: Parts,
    departed: Departed,
    drift: Drifts,
    handover: Handover,
    /// Version of the board with the snapshot in force.
    snapshot_version: u64,
    began: std::time::Instant,
    due: Option<Instant>,
    relist: Relist,
    /// Sockets have to be opened anew, not before this time.
    reopen: Option<Instant>,
    /// Whether the picture differs from what the workers have.
    outdated: bool,
    asked: HashMap<(PortIndex, IpAddr), Instant>,
}

/// What has to be listed anew.
#[derive(Debug, Clone, Copy, Default)]
struct Relist {
    routes: bool,
    all: bool,
    /// Not before this time.
    earliest: Option<Instant>,
}

impl Engine {
    /// An engine in motion: call [`Engine::run`] next.
    pub fn new(parts: Parts) -> Engine {
        Engine {
            snapshot_version: parts.board.version(),
            parts,
            departed: Departed::default(),
            drift: Drifts::default(),
            handover: Handover::default(),
            began: std::time::Instant::now(),
            due: None,
            relist: Relist::default(),
            reopen: None,
            outdated: false,
            asked: HashMap::new(),
        }
    }

    /// Runs until `stop` is ready.
    ///
    /// # Errors
    /// When the kernel cannot be heard any more.
    pub async fn run(
        &mut self,
        mut commands: mpsc::Receiver<Command>,
        mut asks: mpsc::Receiver<Ask>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), StartError> {
        let mut stop = std::pin::pin!(stop);
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let often = self.parts.watchdog.as_ref().map(Watchdog::interval);
        let mut feeding = tokio::time::interval(often.unwrap_or(NEVER));
        feeding.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = self.due;
            tokio::select! {
                () = &mut stop => return Ok(()),
                event = self.parts.netlink.next() => self.hear(event?),
                Some(ask) = asks.recv() => self.attend(ask),
                Some(Command { request, answer }) = commands.recv() => {
                    // Somebody who has gone away meanwhile needs no answer.
                    let _ = answer.send(self.answer(request).await);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.due = None;
                    self.catch_up().await;
                }
                _ = check.tick() => {
                    self.check_neighbours();
                    self.drift.look(&self.parts.steering);
                }
                _ = feeding.tick(), if often.is_some() => self.feed_watchdog(),
                () = self.parts.reload.wanted() => self.reload(),
            }
        }
    }

    fn feed_watchdog(&mut self) {
        let Parts {
            watchdog, board, ..
        } = &mut self.parts;
        if watchdog.as_mut().is_some_and(|dog| dog.look(board)) {
            notify("WATCHDOG=1");
        }
    }

    /// Says what a restart would change, and asks the kernel anew what we know of the network.
    fn reload(&mut self) {
        notify("RELOADING=1");
        self.parts.reload.read();
        self.relist.all = true;
        self.soon();
        notify("READY=1");
    }

    /// Something has to be done about the network soon, together with what else comes until then.
    fn soon(&mut self) {
        self.no_later_than(Instant::now() + COALESCE);
    }

    fn no_later_than(&mut self, time: Instant) {
        self.due = Some(self.due.map_or(time, |due| due.min(time)));
    }

    fn hear(&mut self, event: Event) {
        let picture = &mut self.parts.picture;
        let matters = match event {
            Event::Link(link) => {
                let change = picture.link_is(&link);
                self.link_changed(change)
            }
            Event::LinkGone(ifindex) => {
                let change = picture.link_is_gone(ifindex);
                self.link_changed(change)
            }
            Event::Routes => {
                self.relist.routes = true;
                true
            }
            Event::Neighbour(neighbour) => picture.neighbour_is(&neighbour),
            Event::NeighbourGone(neighbour) => {
                // The next packet for it has to ask at once, however lately it was asked about.
                if let Some(gone) = neighbour_address(&neighbour) {
                    self.asked.retain(|(_, address), _| *address != gone);
                }
                picture.neighbour_is_gone(&neighbour)
            }
            Event::Overrun => {
                tracing::warn!("the kernel had more to say than we could hear: asking it anew");
                self.relist.all = true;
                true
            }
        };
        if matters {
            self.outdated = true;
            self.soon();
        }
    }

    /// True if something has to be done about it.
    fn link_changed(&mut self, change: LinkChange) -> bool {
        let Parts {
            picture,
            board,
            steering,
            ..
        } = &self.parts;
        match change {
            LinkChange::None => return false,
            LinkChange::Appeared(port) => {
                let ifindex = picture.link(port).map_or(0, |link| link.ifindex);
                board.set_ifindex(port, ifindex);
                tracing::info!("interface {}: it is there", picture.name(port));
                self.reopen = Some(Instant::now());
            }
            LinkChange::Vanished(port) => {
                board.set_ifindex(port, 0);
                steering.forget(port);
                tracing::warn!("interface {}: it is gone", picture.name(port));
            }
            LinkChange::Changed(port) => {
                let up = picture.link(port).is_some_and(|link| link.up);
                let state = if up { "up" } else { "down" };
                tracing::info!("interface {}: it is {state}", picture.name(port));
            }
        }
        // The kernel takes IPv4 routes away with their link without a word about them.
        self.relist.routes = true;
        true
    }

    /// Lists anew what has to be, opens sockets that have to be, and gives the workers the new picture.
    async fn catch_up(&mut self) {
        if let Err(error) = self.list().await {
            tracing::error!("{error}; trying again");
            let later = Instant::now() + TRY_AGAIN;
            self.relist.all = true;
            self.relist.earliest = Some(later);
            self.no_later_than(later);
        }
        match self.reopen {
            Some(time) if time <= Instant::now() => self.open_anew(),
            Some(time) => self.no_later_than(time),
            None => {}
        }
        self.publish_network();
    }

    async fn list(&mut self) -> Result<(), NetlinkError> {
        let Relist {
            routes,
            all,
            earliest,
        } = self.relist;
        if !routes && !all {
            return Ok(());
        }
        let now = Instant::now();
        if let Some(earliest) = earliest.filter(|earliest| *earliest > now) {
            self.no_later_than(earliest);
            return Ok(());
        }
        self.outdated = true;
        self.relist = Relist::default();
        if all {
            self.list_links_and_neighbours().await?;
        }
        let (routes, local) = self.parts.netlink.routes().await?;
        self.parts.picture.routes_are(routes);
        self.parts.picture.local_addresses_are(local);
        self.relist.earliest = Some(Instant::now() + now.elapsed() * LISTING_SHARE);
        Ok(())
    }

    async fn list_links_and_neighbours(&mut self) -> Result<(), NetlinkError> {
        let links = self.parts.netlink.links().await?;
        let there: HashSet<u32> = links.iter().map(|link| link.header.index).collect();
        for port in 0..self.parts.input.interfaces.len() {
            let ifindex = self.parts.board.ifindex(port as PortIndex);
            if ifindex != 0 && !there.contains(&ifindex) {
                let change = self.parts.picture.link_is_gone(ifindex);
                self.link_changed(change);
            }
        }
        for link in &links {
            let change = self.parts.picture.link_is(link);
            self.link_changed(change);
        }
        self.relist.routes = false;
        let neighbours = self.parts.netlink.neighbours().await?;
        self.parts.picture.forget_neighbours();
        for neighbour in &neighbours {
            self.parts.picture.neighbour_is(neighbour);
        }
        Ok(())
    }

    /// Attaches the program to interfaces that have come and has the workers open all sockets anew.
    fn open_anew(&mut self) {
        let Parts {
            reception,
            steering,
            picture,
            board,
            ..
        } = &self.parts;
        match reception.plan(picture, steering) {
            Ok(plans) => {
                board.reopen(plans);
                self.reopen = None;
            }
            Err(error) => {
                tracing::error!("{error}; trying again");
                let later = Instant::now() + TRY_AGAIN;
                self.reopen = Some(later);
                self.no_later_than(later);
            }
        }
    }

    fn publish_network(&mut self) {
        if !std::mem::take(&mut self.outdated) {
            return;
        }
        let input = self.parts.picture.input();
        if input == self.parts.input {
            return;
        }
        let network = Arc::new(input.clone().network());
        self.parts.input = input;
        let snapshot = Arc::clone(&self.parts.view.snapshot);
        self.show(Arc::new(View::new(snapshot, network)));
        self.relay();
    }

    /// Puts a view up for the workers. Gives its version.
    fn show(&mut self, view: Arc<View>) -> u64 {
        self.parts.board.sweep();
        self.parts.view = view;
        self.parts.board.publish(Arc::clone(&self.parts.view))
    }

    fn attend(&mut self, ask: Ask) {
        let Ask::Resolve { port, next_hop } = ask;
        // If the answer has come while the worker asked, a view with it is published, or about to be.
        self.resolve(port, next_hop, REPEAT);
    }

    fn resolve(&mut self, port: PortIndex, address: IpAddr, repeat: Duration) {
        let now = Instant::now();
        let recently = |then: &Instant| now.duration_since(*then) < repeat;
        if self.asked.get(&(port, address)).is_some_and(recently) {
            return;
        }
        let Some(link) = self.parts.picture.link(port) else {
            return;
        };
        self.asked.insert((port, address), now);
        self.parts.netlink.resolve(link.ifindex, address);
    }

    async fn answer(&mut self, request: Request) -> Response {
        match request {
            Request::Hello { version } => {
                if version != PROTOCOL_VERSION {
                    tracing::warn!(
                        "a client speaks version {version} of the control protocol, we speak {PROTOCOL_VERSION}"
                    );
                }
                Response::Hello(Hello {
                    version: PROTOCOL_VERSION,
                    pid: std::process::id(),
                    start_id: self.parts.start_id,
                    generation: self.parts.view.snapshot.generation(),
                    limits: *self.parts.view.snapshot.limits(),
                })
            }
            Request::Apply(spec) => self.apply(spec).await,
            Request::Change(change) => self.change(change).await,
            Request::Status => self.status(),
            Request::Statistics => {
                let Parts {
                    counted, steering, ..
                } = &self.parts;
                let all = |start_id, snapshot: &_| {
                    let before = steering.dropped();
                    collect(start_id, snapshot, &self.departed, counted, before)
                };
                self.statistics(all).await
            }
            Request::StatisticsOf(places) => {
                let some = |start_id, snapshot: &_| collect_of(start_id, snapshot, &places);
                self.statistics(some).await
            }
            Request::Explain(query) => {
                answers::explain(&self.parts.view, &self.parts.table, &query)
            }
            Request::Connections(query) => {
                answers::connections(&self.parts.view, &self.parts.table, &query)
            }
            Request::Peer(spec) => self.set_peer(spec),
            Request::Close(addresses) => self.close(addresses),
            Request::Handover(givers) => self.hand_over(&givers),
            Request::PoolExport { rule } => answers::pool(&self.parts.view, rule),
        }
    }

    /// Forwards by a whole configuration.
    async fn apply(&mut self, spec: SnapshotSpec) -> Response {
        let generation = spec.generation;
        let old = Arc::clone(&self.parts.view.snapshot);
        let workers = self.parts.board.workers();
        let new = match Snapshot::compile(&spec, Some(&old), workers) {
            Ok(snapshot) => Arc::new(snapshot),
            Err(error) => return rejected(generation, error.to_string()),
        };
        let network = Arc::clone(&self.parts.view.network);
        let view = View::new(Arc::clone(&new), network);
        let follow = |steering: &Steering| steering.follow(&new);
        if let Err(reason) = self.put_in_force(view, follow).await {
            return rejected(generation, reason);
        }
        self.parts.writer.write(spec);
        let rules = new.rules().len();
        tracing::info!(
            message_id = GENERATION_APPLIED.id,
            ilb_generation = generation,
            "generation {generation} applied: {rules} rules"
        );
        Response::Applied { generation }
    }

    /// Forwards by what a change makes of the configuration in force.
    async fn change(&mut self, change: SpecChange) -> Response {
        let generation = change.generation;
        let old = Arc::clone(&self.parts.view.snapshot);
        if change.base != old.generation() {
            return Response::Gap {
                generation: old.generation(),
            };
        }
        let new = match old.changed(&change) {
            Ok(snapshot) => Arc::new(snapshot),
            Err(error) => return rejected(generation, error.to_string()),
        };
        let view = self.parts.view.with(Arc::clone(&new));
        let follow = |steering: &Steering| steering.follow_change(&old, &new);
        if let Err(reason) = self.put_in_force(view, follow).await {
            return rejected(generation, reason);
        }
        let (changed, removed) = (change.rules.len(), change.removed.len());
        self.parts.writer.change(change);
        tracing::info!(
            message_id = GENERATION_APPLIED.id,
            ilb_generation = generation,
            "generation {generation} applied: {changed} rules changed, {removed} removed"
        );
        Response::Applied { generation }
    }

    /// Puts a view in force, wholly or not at all: first the workers, so that they know what to do with packets that are
    /// steered to them, then steering. What is steered no more is passed on by the workers meanwhile.
    async fn put_in_force(
        &mut self,
        view: View,
        follow: impl FnOnce(&Steering) -> Result<(), xdp_redirect::Error>,
    ) -> Result<(), String> {
        let old = Arc::clone(&self.parts.view);
        let version = self.show(Arc::new(view));
        let outcome = match self.parts.board.wait_for(version, TAKE_UP).await {
            Ok(()) => follow(&self.parts.steering).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = outcome {
            self.show(Arc::clone(&old));
            if let Err(error) = self.parts.steering.follow(&old.snapshot) {
                tracing::error!("steering cannot be taken back: {error}");
            }
            return Err(reason);
        }
        self.snapshot_version = version;
        self.departed
            .take_over(&old.snapshot, &self.parts.view.snapshot);
        self.resolve_servers();
        Ok(())
    }

    fn status(&mut self) -> Response {
        self.drift.look(&self.parts.steering);
        let Parts {
            reception,
            steering,
            counted,
            table,
            ..
        } = &self.parts;
        let mut status = reception.status(steering, counted);
        status.generation = self.parts.view.snapshot.generation();
        status.uptime_seconds = self.began.elapsed().as_secs();
        status.table.capacity = u64::from(table.capacity());
        status.table.used = u64::from(table.used());
        status.rules = Some(self.parts.view.snapshot.rules().len() as u64);
        status.drift = self.drift.list();
        status.peer = self.parts.peers.status();
        if let Some(peer) = &mut status.peer {
            let relayed = self.parts.counted.iter();
            let relayed = relayed.map(|it| it.forwarder.relayed.get()).sum();
            peer.counters.insert("relayed_packets".into(), relayed);
        }
        Response::Status(status)
    }

    /// Ends the thread that speaks with the peer.
    pub fn leave_peer(&mut self) {
        self.parts.peers.leave();
    }

    fn set_peer(&mut self, spec: Option<PeerSpec>) -> Response {
        let guard = self.parts.view.snapshot.guard();
        match self.parts.peers.set(spec, guard) {
            Ok(()) => Response::Peer(self.parts.peers.status()),
            Err(error) => Response::Error {
                message: error.to_string(),
            },
        }
    }

    /// Takes nothing for this host at these addresses: XDP drops what it does not steer, and the workers what turns out to be
    /// nobody's.
    fn close(&mut self, addresses: BTreeSet<IpAddr>) -> Response {
        if let Err(error) = self.parts.steering.close(&addresses) {
            return Response::Error {
                message: error.to_string(),
            };
        }
        self.parts.picture.closed_are(addresses);
        self.outdated = true;
        self.publish_network();
        Response::Closed
    }

    async fn statistics(&self, collect: impl FnOnce(u64, &Snapshot) -> Statistics) -> Response {
        let Parts {
            sweeper,
            view,
            start_id,
            ..
        } = &self.parts;
        if !sweeper.counted(self.snapshot_version, COUNT).await {
            return Response::Error {
                message: "the connections are still being counted; ask again".into(),
            };
        }
        Response::Statistics(collect(*start_id, &view.snapshot))
    }
}

fn rejected(generation: u64, reason: String) -> Response {
    tracing::error!(
        message_id = GENERATION_REFUSED.id,
        ilb_generation = generation,
        "generation {generation} rejected: {reason}"
    );
    Response::Rejected { generation, reason }
}
