//! Writes snapshots of the configuration beside the manager: when changes come faster than the disk, only the newest
//! counts. The whole configuration is written each time, so a large one is written less often; the database has it anyway.

use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::state::State;
use crate::store::snapshots::Snapshots;

/// Writing takes at most one part in so many of the time.
const SHARE: u32 = 20;
/// What is written faster than this needs no pause.
const QUICK: Duration = Duration::from_millis(50);

/// The writer's task.
pub(super) struct SnapshotWriter {
    states: watch::Sender<State>,
    /// Ends a pause.
    hurry: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl SnapshotWriter {
    /// Starts the task, and writes `state` if its snapshot is missing. Needs a running tokio runtime.
    pub(super) fn start(files: Snapshots, state: &State) -> SnapshotWriter {
        let (states, mut receiver) = watch::channel(state.clone());
        if files.newest_generation() != Some(state.generation) {
            receiver.mark_changed();
        }
        let (hurry, mut hurried) = oneshot::channel();
        let task = tokio::spawn(async move {
            while receiver.changed().await.is_ok() {
                let began = Instant::now();
                let state = receiver.borrow_and_update().clone();
                let files = files.clone();
                let written = tokio::task::spawn_blocking(move || files.write(&state)).await;
                match written {
                    Ok(Ok(path)) => tracing::debug!("wrote {}", path.display()),
                    Ok(Err(error)) => tracing::error!("no snapshot of the configuration: {error}"),
                    Err(error) => tracing::error!("no snapshot of the configuration: {error}"),
                }
                let took = began.elapsed();
                if took > QUICK && !hurried.is_terminated() {
                    let pause = tokio::time::sleep(took * SHARE);
                    tokio::select! {
                        () = pause => {}
                        _ = &mut hurried => {}
                    }
                }
            }
        });
        SnapshotWriter {
            states,
            hurry,
            task,
        }
    }

    /// Has this state written, soon.
    pub(super) fn write(&self, state: &State) {
        self.states.send_replace(state.clone());
    }

    /// Waits until the newest state is written.
    pub(super) async fn finish(self) {
        drop(self.states);
        drop(self.hurry);
        if let Err(error) = self.task.await {
            tracing::error!("the snapshot writer failed: {error}");
        }
    }
}
