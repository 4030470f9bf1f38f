//! Whether the fast path answers. One that hangs keeps its connection to us, and a change that it works at may take seconds: so it
//! is asked apart from all that, and whoever has to know is told when it does not answer.

use std::path::Path;
use std::time::Duration;

use ilb_vrrp::{Order, Speaker};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::socket::greet;

/// How often it is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// How long it may take: while it compiles a large configuration, it answers nothing else.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks again and again while there are VRRP instances, and tells what is different, at first that it answers. Ends with them.
pub async fn watch(path: &Path, mut whom: Speaker) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answers = true;
    while whom.wanted().await {
        ticks.tick().await;
        // One that is not there, or speaks another version, is no matter of ours.
        let now = timeout(PATIENCE, greet(path)).await.is_ok();
        if now != answers {
            answers = now;
            match answers {
                true => tracing::info!("the fast path answers again"),
                false => {
                    tracing::warn!("the fast path does not answer for {} s", PATIENCE.as_secs())
                }
            }
            whom.order(Order::Pulse(answers));
        }
    }
}
