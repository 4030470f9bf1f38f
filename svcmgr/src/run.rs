//! From start to stop: opens what the manager needs, runs it, and ends it in order.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ilb_node::settings::{Settings, SettingsError};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::addresses::{Addresses, KernelAddresses, SimulatedAddresses};
use crate::args::Args;
use crate::checks::memory::Memory;
use crate::checks::{self, Checks};
use crate::dataplane::{DataPlane, SimulatedDataPlane, SocketDataPlane};
use crate::dbus::{self, BusError};
use crate::manager::{Manager, Start};
use crate::state::State;
use crate::store::open::{OpenError, Place};
use crate::store::snapshots::Snapshots;
use crate::store::{Keeper, Store, StoreError};

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
    /// Something of the system is missing.
    #[error("cannot {action}: {source}")]
    System {
        /// What was to be done.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The bus is gone; the supervisor starts us again.
    #[error(
        "the connection to the D-Bus system bus is lost; ending, so that a new start connects again"
    )]
    BusLost,
}

/// Logs to standard error: from info on, or as the environment variable ILB_LOG says.
pub fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("ILB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`].
pub fn run(args: &Args) -> Result<(), RunError> {
    let settings = Settings::load(&args.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the async runtime"))?;
    let result = runtime.block_on(async {
        if args.sim {
            tracing::warn!("simulating the fast path and addresses: no packet will be forwarded");
            serve(
                &settings,
                SimulatedDataPlane::default(),
                SimulatedAddresses::default(),
                checks::simulate(),
            )
            .await
        } else {
            let addresses = KernelAddresses::open().map_err(system("open a netlink socket"))?;
            let link = SocketDataPlane::start(&settings.control_socket());
            let checks = checks::start().map_err(system("start the health checks"))?;
            serve(&settings, link, addresses, checks).await
        }
    });
    // A disk that does not answer shall not keep us from ending.
    runtime.shutdown_timeout(STOP_PATIENCE);
    result
}

async fn serve<D: DataPlane, A: Addresses>(
    settings: &Settings,
    dataplane: D,
    addresses: A,
    checks: Checks,
) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(system("catch SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("catch SIGINT"))?;
    // Settings are read at the start only; without a handler SIGHUP would end us.
    let _hangup = signal(SignalKind::hangup()).map_err(system("catch SIGHUP"))?;

    let scratch = &settings.node.runtime_dir;
    let place = Place::new(&settings.database(), &settings.snapshots(), scratch);
    let content = open_store(Arc::new(place), &settings.snapshots()).await?;
    let (connection, gate) = dbus::connect().await?;
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
        memory: Some(Memory::new(&settings.health_memory())),
        manage_addresses: settings.manager.manage_addresses,
        limits: settings.limits,
        interfaces: settings.fastpath.interfaces.clone(),
    });
    let publisher = dbus::serve(&connection, &gate, &handle).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let manager = tokio::spawn(manager.run(publisher, async {
        // A sender that is dropped means the same.
        drop(stopped.await);
    }));
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("ready");
    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = connection.closed() => Err(RunError::BusLost),
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    drop(stop);
    if let Err(error) = manager.await {
        tracing::error!("the manager ended badly: {error}");
    }
    tracing::info!("stopped; the fast path and the addresses stay as they are");
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
            tracing::error!("{hopeless}");
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

/// Tells systemd, if it wants to know.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot notify systemd: {error}");
    }
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { action, source }
}
