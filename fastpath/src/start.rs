//! Puts the fast path together, in the order that loses least: program and maps, connection table, last snapshot,
//! sockets, and only then the world may see us.

use std::path::Path;
use std::sync::Arc;

use ilb_forwarder::changes::Changes;
use ilb_forwarder::network::PortIndex;
use ilb_forwarder::spec::SnapshotSpec;
use ilb_forwarder::{Forwarder, Snapshot, View};
use ilb_node::settings::{Fastpath, Settings};
use tokio::signal::unix::{SignalKind, signal};

use crate::board::Board;
use crate::clock::Instant;
use crate::counters::Counters;
use crate::engine::{Engine, Parts};
use crate::error::StartError;
use crate::last_snapshot::{self, Writer};
use crate::netlink::{Netlink, NetlinkError};
use crate::notify::notify;
use crate::peer::Peers;
use crate::picture::{Input, Picture};
use crate::raw::RawSender;
use crate::reception::{self, Reception};
use crate::reload::Reload;
use crate::statistics::Counted;
use crate::steering::Steering;
use crate::sweeper::Sweeper;
use crate::table_file;
use crate::tun::Tun;
use crate::watchdog::Watchdog;
use crate::worker::{SideDoors, Worker};

/// Takes everything out of the kernel.
///
/// # Errors
/// When another fast path runs, or a pin cannot be removed.
pub fn detach(settings: &Settings) -> Result<(), StartError> {
    let _lock = table_file::lock(&settings.node.runtime_dir)?;
    xdp_redirect::Redirect::detach_all(&settings.node.bpf_dir)?;
    tracing::info!(
        "the XDP program and its maps are gone from {}",
        settings.node.bpf_dir.display()
    );
    Ok(())
}

/// Runs the fast path by the settings that were read from `path`, until it is told to stop by SIGTERM or SIGINT. Program, links and maps stay where they are.
///
/// # Errors
/// When it cannot start, or cannot go on.
pub fn run(settings: Settings, path: &Path) -> Result<(), StartError> {
    // Everything that we make is for our user alone, but for the control socket.
    // SAFETY: plain system call, before there are other threads.
    unsafe { libc::umask(0o077) };
    raise_memlock();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::system("starting the control thread"))?;
    runtime.block_on(serve(settings, path))
}

/// UMEM is locked memory (net/xdp/xdp_umem.c). Where this is not allowed, the sockets' error says what to do.
fn raise_memlock() {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the structure lives through the calls.
    unsafe {
        if libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) == 0
            || libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) != 0
        {
            return;
        }
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit);
    }
}

async fn serve(settings: Settings, path: &Path) -> Result<(), StartError> {
    let node = &settings.node;
    let _lock = table_file::lock(&node.runtime_dir)?;
    let steering = Arc::new(Steering::load(&node.bpf_dir, settings.fastpath.mode)?);
    let table = Arc::new(table_file::open_table(
        &settings.table_file(),
        settings.fastpath.table_size,
        table_file::Joining::Later,
    )?);
    let netlink = Netlink::open()?;
    let mut picture = first_picture(&netlink, &settings.fastpath).await?;
    picture.closed_are(steering.closed()?);
    let workers = reception::workers(&settings.fastpath)?;

    let snapshot = Arc::new(last_snapshot_of(&settings, workers));
    let input = picture.input();
    let view = Arc::new(view(Arc::clone(&snapshot), input.clone()));
    let interfaces = settings.fastpath.interfaces.len();
    let (board, asks) = Board::new(workers, interfaces, Arc::clone(&view))
        .map_err(StartError::system("making an eventfd"))?;
    let board = Arc::new(board);
    for port in 0..interfaces as PortIndex {
        board.set_ifindex(port, picture.link(port).map_or(0, |link| link.ifindex));
    }
    // Without a configuration what an earlier process steered stays with us, until the manager has said what is in force:
    // the kernel knows none of those connections, and would reset them.
    if snapshot.generation() > 0 {
        steering.follow(&snapshot)?;
    }

    let reception = Arc::new(Reception::new(settings.fastpath.clone(), workers));
    let doors = Arc::new(SideDoors {
        raw: RawSender::open().map_err(StartError::system(
            "opening a packet socket (CAP_NET_RAW is needed)",
        ))?,
        tun: open_tun(),
    });
    let plans = reception.plan(&picture, &steering)?;
    steering.detach_others()?;
    let changes = Arc::new(Changes::new(workers));
    let mut counted = Vec::new();
    let mut threads = Vec::new();
    let mut ready = Vec::new();
    for (number, plans) in plans.iter().enumerate() {
        let ports = reception.open(number, plans, &steering, &board)?;
        let mut forwarder = Forwarder::new(number, Arc::clone(&table));
        forwarder.set_changes(Arc::clone(&changes));
        let counters = Arc::new(Counters::new(interfaces));
        counted.push(Counted {
            forwarder: Arc::clone(forwarder.counters()),
            worker: Arc::clone(&counters),
        });
        let opener = {
            let (reception, steering) = (Arc::clone(&reception), Arc::clone(&steering));
            let board = Arc::clone(&board);
            Box::new(move |plans: &[_]| reception.open(number, plans, &steering, &board))
        };
        let (board, doors) = (Arc::clone(&board), Arc::clone(&doors));
        ready.push(Worker::new(
            number, board, forwarder, counters, doors, opener, ports,
        ));
    }
    for (number, worker) in ready.into_iter().enumerate() {
        let thread = std::thread::Builder::new()
            .name(format!("ilb-worker-{number}"))
            .spawn(move || worker.run())
            .map_err(StartError::system("starting a worker"))?;
        threads.push(thread);
    }

    let (sweeper, sweeping) = Sweeper::start(Arc::clone(&table), Arc::clone(&board))
        .map_err(StartError::system("starting the sweeper"))?;
    let writer =
        Writer::start(&node.runtime_dir).map_err(StartError::system("starting the writer"))?;
    let stop = stop_signal()?;
    let reload =
        Reload::new(&settings, path).map_err(StartError::system("listening for signals"))?;
    let commands = crate::control::listen(&settings.control_socket())?;
    let generation = snapshot.generation();
    let peers = Peers::new(Arc::clone(&board), Arc::clone(&table), changes);
    let mut engine = Engine::new(Parts {
        board: Arc::clone(&board),
        steering,
        reception,
        netlink,
        picture,
        input,
        view,
        table,
        sweeper: sweeper.clone(),
        counted,
        peers,
        writer,
        start_id: Instant::now().nanoseconds(),
        watchdog: Watchdog::from_environment(std::process::id(), |name| std::env::var(name).ok()),
        reload,
    });
    tracing::info!("ready: {workers} workers, generation {generation}");
    notify("READY=1");
    let outcome = engine.run(commands, asks, stop).await;
    notify("STOPPING=1");
    tracing::info!("stopping; packets for our services are dropped until the fast path is back");
    engine.leave_peer();
    board.stop();
    sweeper.stop();
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker has panicked");
        }
    }
    let _ = sweeping.join();
    outcome
}

async fn first_picture(netlink: &Netlink, settings: &Fastpath) -> Result<Picture, NetlinkError> {
    let mut picture = Picture::new(settings.interfaces.clone());
    for link in netlink.links().await? {
        picture.link_is(&link);
    }
    let (routes, local) = netlink.routes().await?;
    picture.routes_are(routes);
    picture.local_addresses_are(local);
    for neighbour in netlink.neighbours().await? {
        picture.neighbour_is(&neighbour);
    }
    Ok(picture)
}

/// The snapshot of the process before us, or none: then the service manager has to send one.
fn last_snapshot_of(settings: &Settings, workers: usize) -> Snapshot {
    let compile =
        |spec: SnapshotSpec| Snapshot::compile(&spec, None, workers).map_err(|e| e.to_string());
    // For as many workers, too: changes of it are, and an account for none counts nothing.
    let nothing = || compile(SnapshotSpec::default()).unwrap_or_else(|_| Snapshot::empty());
    let loaded = last_snapshot::load(&settings.node.runtime_dir).map_err(|e| e.to_string());
    match loaded.and_then(|spec| spec.map(compile).transpose()) {
        Ok(snapshot) => snapshot.unwrap_or_else(nothing),
        Err(error) => {
            tracing::error!("the last snapshot cannot be used: {error}; waiting for ilb-svcmgr");
            nothing()
        }
    }
}

fn view(snapshot: Arc<Snapshot>, input: Input) -> View {
    View::new(snapshot, Arc::new(input.network()))
}

fn open_tun() -> Option<Tun> {
    match Tun::create() {
        Ok(tun) => {
            tracing::info!("packets for the kernel go through {}", tun.name());
            Some(tun)
        }
        Err(error) => {
            tracing::warn!("{error}");
            None
        }
    }
}

/// Ready when SIGTERM or SIGINT arrives.
fn stop_signal() -> Result<impl Future<Output = ()>, StartError> {
    let listen = |kind| signal(kind).map_err(StartError::system("listening for signals"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
