//! Health checks as the manager sees them: somebody who is told whom to test ([`wanted`]), and tells what came of it.
//!
//! ```text
//!            Order (mpsc): whom to test, what is known
//!  manager ───────────────────────────────────────────▶ ilb-checks' engine, or nobody with --sim
//!          ◀───────────────────────────────────────────
//!            News (mpsc): changes of state, as soon as there are any
//! ```

pub mod book;
mod engine;
pub mod memory;
mod simulated;
pub mod wanted;

use ilb_checks::{Id, Target};
use libilb::health::{HealthState, ServerHealth, Weight};
use tokio::sync::{mpsc, oneshot};

pub use engine::start;
pub use simulated::simulate;

/// What the manager says.
#[derive(Debug)]
pub enum Order {
    /// Test these as they are now, and some no longer.
    Test {
        /// New ones, and ones that are different now.
        changed: Vec<Target>,
        /// Those that are not tested any more.
        gone: Vec<Id>,
    },
    /// Say everything that is known.
    Report(oneshot::Sender<Vec<ServerHealth>>),
}

/// A server of a rule is believed to be otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Which.
    pub id: Id,
    /// What is believed of it now.
    pub state: HealthState,
    /// Whether it is to take new connections as far as its health is concerned.
    pub up: bool,
    /// Weight that its check gives.
    pub weight: Option<Weight>,
    /// Why, for a person; may be empty.
    pub why: String,
    /// Since when, in milliseconds since 1970; 0 if unknown.
    pub since: u64,
    /// How often its state has changed; in news, since what was said before.
    pub changes: u64,
}

/// The manager's end.
#[derive(Debug)]
pub struct Checks {
    orders: mpsc::UnboundedSender<Order>,
    news: mpsc::UnboundedReceiver<Vec<News>>,
}

/// The other end.
#[derive(Debug)]
pub struct Checker {
    /// What the manager says.
    pub orders: mpsc::UnboundedReceiver<Order>,
    /// What it is told.
    pub news: mpsc::UnboundedSender<Vec<News>>,
}

impl Checks {
    /// Both ends.
    pub fn pair() -> (Checks, Checker) {
        let (order_sender, orders) = mpsc::unbounded_channel();
        let (news_sender, news) = mpsc::unbounded_channel();
        let checks = Checks {
            orders: order_sender,
            news,
        };
        let checker = Checker {
            orders,
            news: news_sender,
        };
        (checks, checker)
    }

    /// Says who is to be tested otherwise.
    pub fn test(&self, difference: wanted::Difference) {
        let wanted::Difference { changed, gone } = difference;
        if !changed.is_empty() || !gone.is_empty() {
            // At the end of the program there may be nobody any more.
            drop(self.orders.send(Order::Test { changed, gone }));
        }
    }

    /// The next news, together with all that have come meanwhile. May be dropped and called again.
    pub async fn news(&mut self) -> Vec<News> {
        let Some(mut all) = self.news.recv().await else {
            return std::future::pending().await;
        };
        while let Ok(more) = self.news.try_recv() {
            all.extend(more);
        }
        all
    }

    /// Whom to ask for what is known.
    pub fn orders(&self) -> mpsc::UnboundedSender<Order> {
        self.orders.clone()
    }
}
