//! From start to stop: opens what the manager needs, runs it, and ends it in order.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ilb_node::journal::events::DATABASE_DAMAGED;
use ilb_node::settings::{Settings, SettingsError};
use ilb_vrrp::Driver;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::addresses::{AddressError, Addresses, KernelAddresses, Mark, SimulatedAddresses};
use crate::args::Args;
use crate::checks::memory::Memory;
use crate::checks::{self, Checks};
use crate::dataplane::{DataPlane, SimulatedDataPlane, SocketDataPlane, pulse};
use crate::dbus::{self, BusError};
use crate::manager::{Manager, Start};
use crate::metrics;
use crate::pair;
use crate::pair::keep::Keep;
use crate::reload::{self, Reload};
use crate::sources;
use crate::state::State;
use crate::store::lock::Lock;
use crate::store::open::{OpenError, Place};
use crate::store::snapshots::Snapshots;
use crate::store::{Keeper, Store, StoreError};
use crate::watchdog::{self, notify};

/// How long a write that is under way may keep the program from ending.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Why the program ends before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings are missing or wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bus cannot be used.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The endpoint for metrics cannot be had.
    #[error(
        "cannot listen on {address} for metrics: {source}; correct listen in section [metrics] of the settings"
    )]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Addresses cannot be taken off.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Something of the system is missing.
    #[error("cannot {action}: {source}")]
    System {
        /// What was to be done.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The manager's loop has ended, which only a panic can do.
    #[error("the manager has ended by itself; ending, so that a new start has a new one")]
    ManagerEnded,
    /// The bus is gone; the supervisor starts us again.
    #[error(
        "the connection to the D-Bus system bus is lost; ending, so that a new start connects again"
    )]
    BusLost,
}

/// Does what the command line says: mostly, run until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`].
pub fn run(args: &Args) -> Result<(), RunError> {
    let settings = Settings::load(&args.config)?;
    if args.check {
        return Ok(());
    }
    keep_capabilities_to_ourselves();
    if let Err(error) = ilb_programs::adopt_orphans() {
        tracing::warn!("programs that we start may leave processes behind: {error}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the async runtime"))?;
    let result = runtime.block_on(async {
        let reload = Reload::new(&settings, &args.config)?;
        if args.detach {
            detach(&settings).await
        } else if args.sim {
            tracing::warn!("simulating the fast path and addresses: no packet will be forwarded");
            serve(
                &settings,
                reload,
                SimulatedDataPlane::default(),
                SimulatedAddresses::default(),
                checks::simulate(),
                Driver::simulated(),
            )
            .await
        } else {
            let addresses = KernelAddresses::open().map_err(system("open a netlink socket"))?;
            let link = SocketDataPlane::start(&settings.control_socket());
            let checks = checks::start().map_err(system("start the health checks"))?;
            let vrrp = Driver::start().map_err(system("start VRRP"))?;
            let (speaker, path) = (vrrp.speaker(), settings.control_socket());
            tokio::spawn(async move { pulse::watch(&path, speaker).await });
            serve(&settings, reload, link, addresses, checks, vrrp).await
        }
    });
    // A disk that does not answer shall not keep us from ending.
    runtime.shutdown_timeout(STOP_PATIENCE);
    result
}

/// What we may do beyond other processes, programs that we start (scripts of health checks) may not.
fn keep_capabilities_to_ourselves() {
    if let Err(error) = rustix::thread::clear_ambient_capability_set() {
        tracing::warn!("programs that we start inherit our capabilities: {error}");
    }
}

/// Takes every address with our mark off its interface.
async fn detach(settings: &Settings) -> Result<(), RunError> {
    // A manager that runs would put them back.
    let _lock = Lock::take_for_reading(&settings.database())?;
    let mut addresses = KernelAddresses::open().map_err(system("open a netlink socket"))?;
    let ours = addresses.present().await?;
    for item in ours.into_iter().filter(|item| item.mark == Mark::Ours) {
        addresses.remove(item.address, &item.interface).await?;
        tracing::info!("took address {} off {}", item.address, item.interface);
    }
    let shared = ilb_vrrp::sweep().await;
    for address in shared.map_err(system("take off the addresses of VRRP instances"))? {
        tracing::info!("took address {address} of a VRRP instance off");
    }
    Ok(())
}

async fn serve<D: DataPlane, A: Addresses>(
    settings: &Settings,
    mut reload: Reload,
    dataplane: D,
    addresses: A,
    checks: Checks,
    vrrp: Driver,
) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(system("catch SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("catch SIGINT"))?;
    // As a service we have a folder of our own: the runtime directory is the fast path's, who is another user.
    let own = std::env::var_os("RUNTIME_DIRECTORY")
        .map_or_else(|| settings.node.runtime_dir.clone(), PathBuf::from);
    let place = Place::new(&settings.database(), &settings.snapshots(), &own);
    let content = open_store(Arc::new(place), &settings.snapshots()).await?;
    let (connection, gate) = dbus::connect().await?;
    let notifier = crate::notify::start().map_err(system("start a thread for commands"))?;
    let (manager, handle) = Manager::new(Start {
        store: content.store,
        state: content.state,
        notice: content.notice,
        known: content.known,
        keeper: content.keeper,
        database: settings.database().display().to_string(),
        snapshots: content.snapshots,
        dataplane,
        addresses,
        checks,
        vrrp,
        sources: sources::start(),
        notifier,
        pair: Keep::new(&settings.node.state_dir),
        listen: pair::Place {
            address: settings.pair.address,
            port: settings.pair.port,
        },
        memory: Some(Memory::new(&own.join("health.json"))),
        live: reload::live(settings),
        statistics: Some(settings.node.state_dir.join("statistics.json")),
        interfaces: settings.fastpath.interfaces.clone(),
    });
    if let Some(address) = settings.metrics.listen {
        let per_server = settings.metrics.per_server;
        let listening = metrics::listen(address, per_server, handle.clone()).await;
        listening.map_err(|source| RunError::Metrics { address, source })?;
    }
    let publisher = dbus::serve(&connection, &gate, &handle).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut manager = tokio::spawn(manager.run(publisher, async {
        // A sender that is dropped means the same.
        drop(stopped.await);
    }));
    notify(NotifyState::Ready);
    tracing::info!("ready");
    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = connection.closed() => Err(RunError::BusLost),
        _ = &mut manager => Err(RunError::ManagerEnded),
        () = watchdog::feed(&handle) => Err(RunError::ManagerEnded),
        () = reload.serve(&handle) => Err(RunError::ManagerEnded),
    };
    notify(NotifyState::Stopping);
    drop(stop);
    if !manager.is_finished()
        && let Err(error) = manager.await
    {
        tracing::error!("the manager ended badly: {error}");
    }
    tracing::info!(
        "stopped; the fast path and the addresses stay as they are, but for those of VRRP instances"
    );
    result
}

struct Content {
    store: Option<Arc<dyn Store>>,
    state: State,
    notice: String,
    known: bool,
    keeper: Option<Arc<dyn Keeper>>,
    snapshots: Option<Snapshots>,
}

/// Opens the database off the async thread. A hopelessly damaged one is no reason not to start: what is forwarded now can
/// still be seen, and an error that is told over D-Bus reaches the administrator sooner.
async fn open_store(place: Arc<Place>, snapshots: &Path) -> Result<Content, RunError> {
    let opener = place.clone();
    let opened = tokio::task::spawn_blocking(move || opener.open())
        .await
        .map_err(|error| RunError::System {
            action: "open the database",
            source: io::Error::other(error),
        })?;
    match opened {
        Ok(opened) => Ok(Content {
            store: opened.store,
            state: opened.state,
            notice: opened.notice,
            known: true,
            keeper: Some(place),
            snapshots: Some(Snapshots::new(snapshots)),
        }),
        Err(OpenError::Store(error)) => Err(error.into()),
        Err(hopeless @ OpenError::Hopeless { .. }) => {
            tracing::error!(
                message_id = DATABASE_DAMAGED.id,
                ilb_database = %place.database().display(),
                "{hopeless}"
            );
            Ok(Content {
                store: None,
                state: State::default(),
                notice: hopeless.to_string(),
                known: false,
                keeper: None,
                snapshots: None,
            })
        }
    }
}

/// An error of the system, with what was to be done.
pub fn system(action: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { action, source }
}
