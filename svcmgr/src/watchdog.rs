//! What systemd is told while we live (sd_watchdog_enabled(3)): that the manager's loop, where everything goes one after the
//! other, has come round since last time. Whatever it hangs on, systemd then starts us anew, and forwarding goes on meanwhile.

use sd_notify::NotifyState;

use crate::manager::ManagerHandle;

/// How often in the time that systemd waits it is told.
const SHARE: u32 = 4;

/// Tells systemd, if it wants to know.
pub fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("cannot notify systemd: {error}");
    }
}

/// Tells systemd as often as it wants to know; ends with the manager.
pub async fn feed(manager: &ManagerHandle) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    while manager.attend().await.is_ok() {
        notify(NotifyState::Watchdog);
        tokio::time::sleep(patience / SHARE).await;
    }
}
