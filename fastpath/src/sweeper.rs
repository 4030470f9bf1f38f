//! The thread that looks at all connections about once a second: ends those that are idle and counts the others.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use ilb_forwarder::{Table, census};
use tokio::sync::Notify;

use crate::board::Board;
use crate::clock::Instant;

/// Time between two passes.
const INTERVAL: Duration = Duration::from_secs(1);
/// A pass may take at most one part in so many of a processor.
const SHARE: u32 = 50;

#[derive(Default)]
struct State {
    /// Whether somebody waits for a pass.
    wanted: bool,
    /// Version of the board that the last pass was made under.
    version: u64,
    stop: bool,
}

/// A handle on the thread.
#[derive(Clone)]
pub struct Sweeper {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    passed: Notify,
}

impl Sweeper {
    /// Starts the thread. It ends with [`Sweeper::stop`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        table: Arc<Table>,
        board: Arc<Board>,
    ) -> io::Result<(Sweeper, std::thread::JoinHandle<()>)> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            passed: Notify::new(),
        });
        let sweeper = Sweeper { shared };
        let thread = {
            let sweeper = sweeper.clone();
            std::thread::Builder::new()
                .name("ilb-sweeper".into())
                .spawn(move || sweeper.run(&table, &board))?
        };
        Ok((sweeper, thread))
    }

    fn run(&self, table: &Table, board: &Board) {
        let mut sweeper = table.sweeper();
        loop {
            let began = std::time::Instant::now();
            let (version, view) = board.latest();
            // Without any configuration nothing is known about the connections of an earlier process: they wait.
            if view.snapshot.generation() > 0 {
                census::take(&view, &mut sweeper, Instant::now().seconds());
            }
            drop(view);
            let pause = INTERVAL.max(began.elapsed() * SHARE);
            let mut state = self.locked();
            state.version = version;
            state.wanted = false;
            self.shared.passed.notify_waiters();
            let (state, _) = self
                .shared
                .wake
                .wait_timeout_while(state, pause, |state| !state.wanted && !state.stop)
                .unwrap_or_else(PoisonError::into_inner);
            if state.stop {
                return;
            }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the connections have been counted under `version` of the board or a later one: before that, servers
    /// that are new in it look as if they had none.
    pub async fn counted(&self, version: u64, patience: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let passed = self.shared.passed.notified();
            let mut passed = std::pin::pin!(passed);
            passed.as_mut().enable();
            {
                let mut state = self.locked();
                if state.version >= version {
                    return true;
                }
                state.wanted = true;
            }
            self.shared.wake.notify_one();
            if tokio::time::timeout_at(deadline, passed).await.is_err() {
                return false;
            }
        }
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.locked().stop = true;
        self.shared.wake.notify_one();
    }
}
