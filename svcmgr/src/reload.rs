//! What SIGHUP means to us: the settings are read anew; what can change while we run changes, and the rest is named. A file
//! with mistakes changes nothing.

use std::path::{Path, PathBuf};

use ilb_node::settings::Settings;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::manager::{Live, ManagerHandle};
use crate::run::{RunError, system};
use crate::watchdog::notify;

/// See the module.
pub struct Reload {
    path: PathBuf,
    running: Settings,
    hangup: Signal,
}

/// What of the settings can change while we run.
pub fn live(settings: &Settings) -> Live {
    Live {
        manage_addresses: settings.manager.manage_addresses,
        limits: settings.limits,
    }
}

impl Reload {
    /// For settings that were read from `path`. Within a tokio runtime.
    ///
    /// # Errors
    /// [`RunError::System`] when the signal cannot be caught.
    pub fn new(settings: &Settings, path: &Path) -> Result<Reload, RunError> {
        Ok(Reload {
            path: path.into(),
            running: settings.clone(),
            hangup: signal(SignalKind::hangup()).map_err(system("catch SIGHUP"))?,
        })
    }

    /// Reloads with every SIGHUP; ends with the manager.
    pub async fn serve(&mut self, manager: &ManagerHandle) {
        while self.hangup.recv().await.is_some() {
            notify(NotifyState::Reloading);
            let reloaded = self.reload(manager).await;
            notify(NotifyState::Ready);
            if !reloaded {
                return;
            }
        }
    }

    /// False when the manager is gone.
    async fn reload(&mut self, manager: &ManagerHandle) -> bool {
        let new = match Settings::load(&self.path) {
            Ok(new) => new,
            Err(error) => {
                tracing::error!("{error}; going on as before");
                return true;
            }
        };
        if manager.reload(live(&new)).await.is_err() {
            return false;
        }
        let changed = self.running.different(&new, &["manager", "limits"]);
        let restart = self
            .running
            .different(&new, &["node", "fastpath", "pair", "metrics"]);
        self.running.manager = new.manager;
        self.running.limits = new.limits;
        match changed[..] {
            [] => tracing::info!(
                "settings read anew; nothing that can change while we run is different"
            ),
            _ => tracing::info!("settings in force now: {}", changed.join(", ")),
        }
        if !restart.is_empty() {
            tracing::warn!(
                "these settings are others now and take a restart of ilb and ilb-fastpath: {}",
                restart.join(", ")
            );
        }
        true
    }
}
