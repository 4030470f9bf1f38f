//! What SIGHUP means to us. All settings of the fast path are about sockets, memory and places, which a process has for
//! its life, and a restart disturbs no connection: so the settings are read to say what a restart would change.

use std::io;
use std::path::{Path, PathBuf};

use ilb_node::settings::Settings;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// See the module's text.
pub struct Reload {
    path: PathBuf,
    running: Settings,
    hangup: Signal,
}

impl Reload {
    /// For settings that were read from `path`. Within a tokio runtime.
    ///
    /// # Errors
    /// When the signal cannot be caught.
    pub fn new(running: &Settings, path: &Path) -> io::Result<Reload> {
        Ok(Reload {
            path: path.into(),
            running: running.clone(),
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Ready with the next SIGHUP. May be dropped and called again.
    pub async fn wanted(&mut self) {
        self.hangup.recv().await;
    }

    /// Reads the settings and says what is wrong with them, or what takes a restart.
    pub fn read(&self) {
        match Settings::load(&self.path) {
            Err(error) => tracing::error!("{error}; going on as before"),
            Ok(new) => match self.running.different(&new, &["node", "fastpath"])[..] {
                [] => tracing::info!("the settings of the fast path are those that it runs by"),
                ref keys => tracing::warn!(
                    "these settings are others now and take a restart of ilb-fastpath: {}",
                    keys.join(", ")
                ),
            },
        }
    }
}
