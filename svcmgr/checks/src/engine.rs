//! Tests all targets on time and tells who uses it what has changed.
//!
//! The engine has a thread of its own, so that nothing that the manager does delays a test. Its handle is cheap to call from
//! any runtime: targets are set as a whole, what is unchanged is not disturbed, and changes are collected with
//! [`Engine::changes`], within milliseconds of the test that showed them.

mod feed;
mod load;
mod task;

use std::io;
use std::sync::Arc;
use std::thread;

use libilb::health::{HealthReport, HealthState, Transition, Weight};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{mpsc, oneshot};

use self::feed::Feed;
use self::task::{Command, Task};
use crate::target::{Id, Target};

/// File descriptors that are left to others.
const RESERVED: u64 = 256;
/// Most sockets unless told otherwise.
const MAX_SOCKETS: u64 = 16_384;

/// Threads that read files.
const BLOCKING_THREADS: usize = 8;

/// Limits of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Most tests with a socket of their own at the same time; others wait.
    pub max_sockets: usize,
    /// Most scripts at the same time.
    pub max_scripts: usize,
    /// Of chance.
    pub seed: u64,
}

impl Options {
    /// As many sockets as this process may have, whose limit is raised as far as it may be, and 32 scripts.
    pub fn for_this_process() -> Options {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, hard)| {
            let wanted = hard.min(MAX_SOCKETS + RESERVED).max(soft);
            match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
                Ok(()) => wanted,
                Err(_) => soft,
            }
        });
        let sockets = limit.saturating_sub(RESERVED).clamp(16, MAX_SOCKETS);
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Options {
            max_sockets: usize::try_from(sockets).unwrap_or(16),
            max_scripts: 32,
            seed: clock.map_or(1, |clock| u64::try_from(clock.as_nanos()).unwrap_or(1)),
        }
    }
}

/// What has changed about a target since it was told last. The latest state counts; the transitions are all that led there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Which one.
    pub id: Id,
    /// What is believed of it.
    pub state: HealthState,
    /// Whether it takes new connections as far as its health is concerned.
    pub up: bool,
    /// Weight that its test gives.
    pub weight: Option<Weight>,
    /// How it came about; empty for a target that is new. At most [`libilb::health::TRANSITIONS`].
    pub transitions: Vec<Transition>,
}

/// How well the engine keeps up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Tests begun.
    pub tests: u64,
    /// Of those, begun more than 200 ms after they were due.
    pub late: u64,
    /// Tests that showed nothing.
    pub unknown: u64,
    /// Targets now.
    pub targets: u64,
    /// Tests under way now.
    pub running: u64,
}

/// An engine. It ends when this is dropped.
#[derive(Debug)]
pub struct Engine {
    commands: Option<mpsc::UnboundedSender<Command>>,
    feed: Arc<Feed>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Engine {
    /// Starts an engine without targets.
    ///
    /// # Errors
    /// If the system gives no thread or no runtime.
    pub fn start(options: Options) -> io::Result<Engine> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let feed = Arc::new(Feed::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Files are read by them, briefly.
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let published = feed.clone();
        let thread = thread::Builder::new()
            .name("ilb-checks".to_string())
            .spawn(move || {
                runtime.block_on(Task::new(options, receiver, published).run());
                // Scripts and lookups that are under way are left to the system.
                runtime.shutdown_background();
            })?;
        Ok(Engine {
            commands: Some(commands),
            feed,
            thread: Some(thread),
        })
    }

    /// Says what is to be tested from now on. A target that was there and is equal goes on undisturbed; one with another
    /// check keeps its state. Of two with the same id the last one counts.
    pub fn set(&self, targets: Vec<Target>) {
        self.send(Command::Set(targets));
    }

    /// Says what is to be tested otherwise, or anew, and what no longer. All others go on undisturbed. The work is that of
    /// the difference.
    pub fn update(&self, changed: Vec<Target>, gone: Vec<Id>) {
        self.send(Command::Update { changed, gone });
    }

    /// Waits for changes, and takes them; by id. May be cancelled. Each target is told of once when it is new.
    pub async fn changes(&self) -> Vec<Changed> {
        self.feed.take().await
    }

    /// Everything that is known, by rule and server.
    pub async fn report(&self) -> HealthReport {
        self.ask(Command::Report).await.unwrap_or_default()
    }

    /// How well it keeps up.
    pub async fn statistics(&self) -> Statistics {
        self.ask(Command::Statistics).await.unwrap_or_default()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.send(command(sender));
        receiver.await.ok()
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // It is there as long as this is.
            let _ = commands.send(command);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}
